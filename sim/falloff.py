"""Cycle model of :class:`splatforge.hw.falloff.Falloff`: that of what it stands in place of.

A table of the whole exponential and a product with the opacity take the five stages that a table
of a power's fraction, a shift and a cap take in :mod:`splatforge.sim.alpha`; so the array in front
of which it stands keeps its own model.
"""

from splatforge.sim.alpha import INTERVAL, LATENCY, cycles

__all__ = ["INTERVAL", "LATENCY", "cycles"]

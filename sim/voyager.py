"""Cycle model of :class:`splatforge.hw.voyager.Voyager`: GSCore's, on its own workload.

Its alpha evaluation has the latency and the throughput of GSCore's (:mod:`splatforge.sim.falloff`),
so what a frame costs differs by where its pixels end.
"""

from splatforge.sim.gscore import simulate

__all__ = ["simulate"]

"""Areas, powers, peaks and energies of parts that papers publish, from our models of them."""

from collections.abc import Sequence
from functools import reduce
from operator import add

import numpy as np

from splatforge.claims.frames import significant
from splatforge.designs.array import ArrayDesign
from splatforge.designs.dram import PRESETS, Dram
from splatforge.designs.raster import RasterDesign
from splatforge.sim.area import area_of_units
from splatforge.sim.costs import Sourced, default_costs
from splatforge.sim.dram import replay
from splatforge.sim.dram_energy import dram_costs, dram_events
from splatforge.sim.parts import flip_flops, raster_inventory

__all__ = ["array_area", "array_power", "dram_over_sram", "dram_peak", "random_over_streaming",
           "scaled_area", "sram_area"]

_COUNTED = "counted"
#: Accesses of a stream that is long against the queues and the rows of a memory.
_ACCESSES = 40_000


def sram_area(macros: int, size_bytes: int, width_bits: int, node_nm: float) -> Sourced:
    """Area in mm^2 of a number of equal SRAM macros with one port."""
    macro = default_costs().area_of(f"sram_{width_bits}b_{size_bytes}B", node_nm=node_nm)
    return (macro * macros).to("mm^2")


def scaled_area(area_mm2: float, from_nm: float, to_nm: float) -> Sourced:
    """A published area in mm^2 brought to another node by the rule of our cost tables."""
    factor = default_costs().scale("area", from_nm, to_nm)
    return (factor * Sourced.exact(area_mm2, "mm^2", "the published area")).to("mm^2")


def array_area(lanes: int, node_nm: float, built: int = 64) -> Sourced:
    """Cell area in mm^2 of some lanes of our rendering array, with their share of what is shared.

    Parameters
    ----------
    lanes : int
        How many, each with its part of the pixels of two tiles.
    node_nm : float
        Process node, 7 to 130.
    built : int
        Lanes of the array they are of.
    """
    inventory = raster_inventory(RasterDesign(array=ArrayDesign(lanes=built)), default_costs())
    array = area_of_units({"array": inventory["array"]}, node_nm=node_nm).units["array"]
    return array * (lanes / built)


def array_power(lanes: int, node_nm: float, clock_hz: float, workloads: Sequence[str]) -> Sourced:
    """Power in W of some lanes of our rendering array with an evaluation in every cycle.

    Parameters
    ----------
    lanes : int
        How many.
    node_nm : float
        Process node, 7 to 130.
    clock_hz : float
        Clock.
    workloads : sequence of str
        How many evaluations are significant: those of :mod:`splatforge.claims.frames`.
    """
    table, design = default_costs(), RasterDesign()
    clocks, share = flip_flops(design, table), significant(workloads)

    def cost(event: str) -> Sourced:
        return table.energy_of(event, node_nm=node_nm)

    cycle = cost("alpha_evaluation") + cost("blend_evaluation")
    cycle += (cost("alpha_significant") + cost("blend_significant")) * share
    for block in ("alpha", "blend"):
        cycle += cost(f"{block}_flip_flop_cycle") * (clocks[block] / design.array.lanes)
        # One microsecond of the leakage of one lane.
        leakage = cost(f"{block}_leakage") * (1e6 / clock_hz)
        cycle += leakage * (1 / table.measured(block, "instances").cost.value)
    return (cycle * Sourced.exact(clock_hz * lanes, "Hz", _COUNTED)).to("W")


def _preset(name: str) -> Dram:
    if name not in PRESETS:
        raise ValueError(f"Memory must be one of {', '.join(PRESETS)}, not {name!r}")
    return PRESETS[name]


def dram_peak(preset: str) -> Sourced:
    """Bandwidth in B/s of one of our memories with every data bus always busy."""
    return Sourced.exact(_preset(preset).peak_bytes_per_s, "B/s", f"designs.dram: {preset}")


def _reads(dram: Dram, *, random: bool) -> Sourced:
    """Energy of a byte read from a memory that is kept busy, with its standby and refresh."""
    accesses = np.arange(_ACCESSES)
    if random:
        org = dram.organization
        accesses = np.random.default_rng(0).integers(
            0, org.size_bytes // org.access_bytes, _ACCESSES)
    counts = replay(dram, accesses * dram.organization.access_bytes, per_clock=4).counts
    costs, events = dram_costs(dram), dram_events(counts)
    total = reduce(add, (costs[event] * count for event, count in events.items()))
    return total / Sourced.exact(counts.bytes_moved, "B", _COUNTED)


def random_over_streaming(preset: str) -> Sourced:
    """Energy of reading single accesses at random over that of a stream, from the same memory."""
    dram = _preset(preset)
    return (_reads(dram, random=True) / _reads(dram, random=False)).to("1")


def dram_over_sram(preset: str, size_bytes: int, width_bits: int, node_nm: float) -> Sourced:
    """Energy of a byte read at random from a memory over one from an SRAM macro."""
    event = f"sram_read_{width_bits}b_{size_bytes}B"
    sram = default_costs().energy_of(event, node_nm=node_nm)
    byte = sram / Sourced.exact(width_bits / 8, "B", _COUNTED)
    return (_reads(_preset(preset), random=True) / byte).to("1")

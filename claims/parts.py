"""Areas and peaks that papers publish, from our cost tables and memories."""

from splatforge.designs.dram import PRESETS
from splatforge.sim.costs import Sourced, default_costs

__all__ = ["dram_peak", "scaled_area", "sram_area"]


def sram_area(macros: int, size_bytes: int, width_bits: int, node_nm: float) -> Sourced:
    """Area in mm^2 of a number of equal SRAM macros with one port."""
    macro = default_costs().area_of(f"sram_{width_bits}b_{size_bytes}B", node_nm=node_nm)
    return (macro * macros).to("mm^2")


def scaled_area(area_mm2: float, from_nm: float, to_nm: float) -> Sourced:
    """A published area in mm^2 brought to another node by the rule of our cost tables."""
    factor = default_costs().scale("area", from_nm, to_nm)
    return (factor * Sourced.exact(area_mm2, "mm^2", "the published area")).to("mm^2")


def dram_peak(preset: str) -> Sourced:
    """Bandwidth in B/s of one of our memories with every data bus always busy."""
    if preset not in PRESETS:
        raise ValueError(f"Memory must be one of {', '.join(PRESETS)}, not {preset!r}")
    return Sourced.exact(PRESETS[preset].peak_bytes_per_s, "B/s", f"designs.dram: {preset}")

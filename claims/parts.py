"""Areas that papers publish, from our cost tables."""

from splatforge.sim.costs import Sourced, default_costs

__all__ = ["scaled_area", "sram_area"]


def sram_area(macros: int, size_bytes: int, width_bits: int, node_nm: float) -> Sourced:
    """Area in mm^2 of a number of equal SRAM macros with one port."""
    macro = default_costs().area_of(f"sram_{width_bits}b_{size_bytes}B", node_nm=node_nm)
    return (macro * macros).to("mm^2")


def scaled_area(area_mm2: float, from_nm: float, to_nm: float) -> Sourced:
    """A published area in mm^2 brought to another node by the rule of our cost tables."""
    factor = default_costs().scale("area", from_nm, to_nm)
    return (factor * Sourced.exact(area_mm2, "mm^2", "the published area")).to("mm^2")

"""Area, critical path and routed clock of every unit of an accelerator."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from splatforge.designs.shell import AcceleratorDesign
from splatforge.synth import ecp5
from splatforge.synth.ecp5 import Routed, design_that_fits, route
from splatforge.synth.library import Library
from splatforge.synth.netlist import Netlist, gate_level
from splatforge.synth.parts import parts

__all__ = ["LANE_MODULES", "Synthesis", "Unit", "differences", "synthesize"]

#: Parts that are the same for any number of lanes.
LANELESS = ("bsu", "ccu", "cfu", "fetch", "ffu", "lists", "qsu", "radiance", "registers", "resolve",
            "setup", "shell", "tilelists", "vru", "vsort", "vsu")
#: Parts of the array's lane; a module of its netlist is named by the path of its first instance.
LANE_MODULES = ("alpha", "blend")
_CELL_FIGURES = ("cells", "area_um2", "cell_flip_flops", "path_ns")
_FPGA_FIGURES = ("luts", "flip_flops", "dsps", "brams", "fmax_mhz")


@dataclass(frozen=True, kw_only=True, eq=False)
class Unit:
    """A unit in standard cells, on an FPGA, or both.

    Parameters
    ----------
    name : str
        Its name.
    netlist : Netlist or None
        In the cells of a library.
    routed : Routed or None
        On the FPGA.
    """

    name: str
    netlist: Netlist | None = None
    routed: Routed | None = None

    def to_json(self) -> dict[str, Any]:
        """Figures under the names of ``splatforge synth --json``; null where not asked for."""
        netlist, routed = self.netlist, self.routed
        return {
            "cells": netlist and netlist.cells,
            "area_um2": netlist and netlist.area_um2,
            "gate_equivalents": netlist and netlist.gate_equivalents,
            "cell_flip_flops": netlist and netlist.flip_flops,
            "macros": netlist and [{**asdict(macro), "count": count}
                                   for macro, count in netlist.macros.items()],
            "path_ns": netlist and netlist.path_ns,
            "luts": routed and routed.luts, "flip_flops": routed and routed.flip_flops,
            "dsps": routed and routed.dsps, "brams": routed and routed.brams,
            "fmax_mhz": routed and routed.fmax_mhz,
            "fpga_lanes": routed.lanes if routed and self.name not in LANELESS else None,
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class Synthesis:
    """The units of a design.

    Parameters
    ----------
    design : AcceleratorDesign
        Its parameters.
    library : Library or None
        The cells.
    fpga : bool
        Whether the units were routed.
    units : Mapping
        Unit by name.
    """

    design: AcceleratorDesign
    library: Library | None
    fpga: bool
    units: Mapping[str, Unit]

    def lane_um2(self) -> dict[str, float]:
        """Area of one lane of the array in um^2: its alpha part, its blend part.

        Without any in a run that did not map the array. What the lanes of a row or a column share
        and the control of the array are no part of it.
        """
        array = self.units.get("array")
        if array is None or array.netlist is None:
            return {}
        return {name: module.area_um2 for name in LANE_MODULES
                for module in array.netlist.modules if f".{name}.lane" in module.name}

    def to_json(self) -> dict[str, Any]:
        """The figures of ``splatforge synth --json``."""
        library = self.library
        return {
            "design": self.design.name, "lanes": self.design.array.lanes,
            "library": library and library.name, "library_title": library and library.title,
            "licence": library and library.licence, "node_nm": library and library.node_nm,
            "fpga": {"device": ecp5.DEVICE, "target_mhz": ecp5.TARGET_MHZ, "seed": ecp5.SEED}
            if self.fpga else None,
            "units": {name: unit.to_json() for name, unit in self.units.items()},
            "lane_um2": self.lane_um2(),
        }


def synthesize(
    design: AcceleratorDesign, *, library: Library | None = None, fpga: bool = False,
    units: Sequence[str] = (), cache: Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Synthesis:
    """Map units to standard cells, and route them on an ECP5.

    On the FPGA the array and what is in it have as many lanes as fit; the standard cells are those
    of the design as it is.

    Parameters
    ----------
    design : AcceleratorDesign
        Its parameters.
    library : Library, optional
        Cells to map to.
    fpga : bool
        Whether to route.
    units : sequence of str
        Of :func:`splatforge.synth.parts.parts`, or the top's name; all parts by default.
    cache : Path, optional
        See :func:`splatforge.scenes.cache.cache_folder`.
    progress : callable, optional
        Called with what is done next, how many steps are done and their number.

    Raises
    ------
    ValueError
        If there is no such unit, or neither cells nor the FPGA are asked for.
    SynthesisError
        If a tool is not installed or fails.
    """
    if library is None and not fpga:
        raise ValueError("Synthesis must be to a cell library or to an FPGA, not to neither")
    names = units or parts(design)
    known = (*parts(design), design.name)
    for name in names:
        if name not in known:
            raise ValueError(f"Unit must be one of {', '.join(known)}, not {name!r}")
    number = len(names) * ((library is not None) + fpga)
    done = 0

    def tell(what: str) -> None:
        if progress is not None:
            progress(what, done, number)

    found = dict[str, Unit]()
    smaller = design
    if fpga and not set(names) <= set(LANELESS):
        tell("lanes that fit")
        smaller = design_that_fits(design, cache=cache)
    for name in names:
        netlist = routed = None
        if library is not None:
            tell(f"{name}: cells")
            netlist = gate_level(name, design, library, cache=cache)
            done += 1
        if fpga:
            tell(f"{name}: route")
            routed = route(name, smaller, cache=cache)
            done += 1
        found[name] = Unit(name=name, netlist=netlist, routed=routed)
    tell("done")
    return Synthesis(design=design, library=library, fpga=fpga, units=found)


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Figures that differ between two records of :meth:`Synthesis.to_json`.

    Only what both hold is compared: the same library, the same device and lanes, the same units.

    Returns
    -------
    list of dict
        ``unit``, ``figure``, ``before``, ``after``.
    """
    same = {name: before.get(name) == after.get(name) for name in ("library", "lanes", "fpga")}
    figures = (*(_CELL_FIGURES if same["library"] and same["lanes"] else ()),
               *(_FPGA_FIGURES if same["fpga"] else ()))
    found = []
    for unit in sorted(before["units"].keys() & after["units"].keys()):
        sides = [record["units"][unit] for record in (before, after)]
        lanes = {side["fpga_lanes"] for side in sides}
        for figure in figures:
            if figure in _FPGA_FIGURES and len(lanes) > 1:
                continue
            old, new = (side.get(figure) for side in sides)
            if None not in (old, new) and old != new:
                found.append({"unit": unit, "figure": figure, "before": old, "after": new})
    return found

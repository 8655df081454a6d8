"""Critical paths and areas of the accelerators' units in one library, and the table of them.

The clock of a time is made of the paths, see :meth:`splatforge.sim.costs.CostTable.clock`. Areas
are of the units that an accelerator has for itself, see :mod:`splatforge.sim.parts`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from splatforge.designs.raster import RasterDesign
from splatforge.designs.shell import AcceleratorDesign
from splatforge.synth.library import Library
from splatforge.synth.netlist import Netlist, gate_level
from splatforge.synth.parts import SHELL, parts, rtl_table

__all__ = ["HIGH", "own_units", "path_table", "timed_units"]

#: What a critical path may be longer than ABC's.
HIGH = 1.4
#: A unit that misses this path is mapped again with fewer, larger buffers; the better one stands.
TARGET_NS, MAX_FANOUT = 5.5, 24
_INTERVAL = (
    "high: OpenSTA against ABC on one blending lane, 10.75 to 7.70 ns in sg13g2, 8.97 to 7.41 in "
    "sky130hd, 2.28 to 1.97 in Nangate45: 1.40 at most; no wires in any")


def timed_units(design: AcceleratorDesign) -> tuple[str, ...]:
    """Parts of a design that no other holds: alpha's and blend's are in the array."""
    return tuple(unit for unit in parts(design) if unit not in ("alpha", "blend"))


def own_units(design: AcceleratorDesign) -> tuple[str, ...]:
    """Those of them whose area :mod:`splatforge.sim.parts` scales as one.

    Raster's are all shared by the accelerators.
    """
    shared = {*timed_units(RasterDesign()), SHELL}
    return tuple(unit for unit in timed_units(design) if unit not in shared)


def path_table(
    designs: Sequence[AcceleratorDesign], library: Library, supply_v: float, command: str, *,
    cache: Path | None = None, progress: Callable[[str], None] | None = None,
) -> str:
    """Map every unit of the designs to a library; their paths and areas as a table for ``sim``.

    Parameters
    ----------
    designs : sequence of AcceleratorDesign
        Whose units.
    library : Library
        The cells.
    supply_v : float
        Their supply.
    command : str
        How to make the table again, for its head.
    cache : Path, optional
        Cache folder of the netlists.
    progress : callable, optional
        Called with the unit that comes next.

    Raises
    ------
    SynthesisError
        If Yosys fails.
    """
    lines = [
        f"# Critical paths and areas of the units in {library.title} ({library.licence}).",
        f"# Made by: {command}",
        "# Pre-layout, by ABC, with clock-to-output and setup; paths end and begin at memories",
        "# above 1 Kbit, which no area holds. Areas are of the default parameters.",
        "# rtl: digests of what was mapped; a test compares them.",
        "",
    ]
    for design in designs:
        lines += rtl_table(design, timed_units(design))
    for design in designs:
        for unit in timed_units(design):
            if progress is not None:
                progress(unit)
            netlist = gate_level(unit, design, library, cache=cache)
            if netlist.path_ns > TARGET_NS:
                again = gate_level(unit, design, library, max_fanout=MAX_FANOUT, cache=cache)
                netlist = min(netlist, again, key=lambda mapped: mapped.path_ns)
            module = max(netlist.modules, key=lambda module: module.path_ns)
            path = f"{netlist.path_ns:.4g}"
            lines += [
                f"[path.{design.name}.{unit}]", f"value = {path}", 'unit = "ns"', f"low = {path}",
                f"high = {HIGH * float(path):.4g}",
                f"node_nm = {library.node_nm:g}", f"supply_v = {supply_v:g}",
                'kind = "measured"', 'confidence = "medium"',
                f'source = "this RTL in {library.title}, by Yosys and ABC"',
                f'interval = "{_INTERVAL}"', f'note = "in module {module.name}"', ""]
            if unit in own_units(design):
                lines += _area_lines(f"{design.name}_{unit}", netlist)
    return "\n".join(lines)


def _area_lines(name: str, netlist: Netlist) -> list[str]:
    """Area of a unit as an entry."""
    area, library = f"{netlist.area_um2:.4g}", netlist.library
    return [
        f"[area.{name}]", f"value = {area}", 'unit = "um^2"', f"low = {area}", f"high = {area}",
        f"node_nm = {library.node_nm:g}", 'kind = "measured"', 'confidence = "medium"',
        (f'source = "synthesis of this RTL in {library.title} ({library.licence}): '
         f'{netlist.cells:,} cells, of them {netlist.flip_flops:,} flip-flops; before placement"'),
        'interval = "that of the scaling between nodes comes on top"', ""]

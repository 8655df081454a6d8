"""Critical paths, areas and leakage of the accelerators' units in one library; their table.

The clock of a time is made of the paths, see :meth:`splatforge.sim.costs.CostTable.clock`. Leakage
is of the units that an accelerator has for itself, whose energy is not measured, see
:mod:`splatforge.sim.parts`.
"""

import tomllib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from splatforge.designs.gscore import GscoreDesign
from splatforge.designs.raster import RasterDesign
from splatforge.designs.shell import AcceleratorDesign
from splatforge.designs.voyager import VoyagerDesign
from splatforge.synth.liberty import Liberty
from splatforge.synth.library import Library
from splatforge.synth.netlist import Netlist, gate_level
from splatforge.synth.parts import SHELL, parts, rtl_digests, rtl_table

__all__ = ["HIGH", "LEAKAGE", "own_units", "path_table", "timed_units"]

#: What a critical path may be longer than ABC's.
HIGH = 1.4
#: What a unit may leak, of what its cells say: the least that blocks of the raster core leak in
#: SKY130 of what they do in SG13G2 (tables ``energy_*.toml``, compared by a test); twice.
LEAKAGE = (0.0173, 2.0)
#: A unit that misses this path is mapped again with fewer, larger buffers; the better one stands.
TARGET_NS, MAX_FANOUT = 5.5, 24
_INTERVAL = (
    "high: OpenSTA against ABC on one blending lane, 10.75 to 7.70 ns in sg13g2, 8.97 to 7.41 in "
    "sky130hd, 2.28 to 1.97 in Nangate45: 1.40 at most; no wires in any")


def timed_units(design: AcceleratorDesign) -> tuple[str, ...]:
    """Parts of a design that no other holds: alpha's and blend's are in the array."""
    return tuple(unit for unit in parts(design) if unit not in ("alpha", "falloff", "blend"))


def own_units(design: AcceleratorDesign) -> tuple[str, ...]:
    """Those of them that are not raster's, whose energy is measured, or GSCore's of Voyager."""
    shared = {*timed_units(RasterDesign()), SHELL}
    if isinstance(design, VoyagerDesign):
        shared |= {*timed_units(GscoreDesign())}
    return tuple(unit for unit in timed_units(design) if unit not in shared)


def path_table(
    designs: Sequence[AcceleratorDesign], library: Library, liberty: Liberty, command: str, *,
    before: str = "", cache: Path | None = None, progress: Callable[[str], None] | None = None,
) -> str:
    """Map every unit of the designs to a library; what ``sim`` wants to know of them as a table.

    Parameters
    ----------
    designs : sequence of AcceleratorDesign
        Whose units.
    library, liberty : Library, Liberty
        The cells, and what they leak and are supplied with.
    command : str
        How to make the table again, for its head.
    before : str
        A table of the same library: what it says of the same RTL in another design stands.
    cache : Path, optional
        Cache folder of the netlists.
    progress : callable, optional
        Called with the unit that comes next.

    Raises
    ------
    SynthesisError
        If Yosys fails.
    """
    known = _entries_by_rtl(before)
    lines = [
        f"# Critical paths, areas, leakage of the units in {library.title} ({library.licence}).",
        f"# Made by: {command}",
        "# Pre-layout, by ABC, with clock-to-output and setup; paths end and begin at memories",
        "# above 1 Kbit, banks together, which no area holds. Areas and leakage are of the default",
        "# parameters; energy.<design>_<unit>_leakage: one microsecond.",
        "# rtl: digests of what was mapped; a test compares them.",
        "",
    ]
    digests = {design.name: rtl_digests(design, timed_units(design)) for design in designs}
    for design in designs:
        lines += rtl_table(design, digests[design.name])
    for design in designs:
        for unit in timed_units(design):
            if progress is not None:
                progress(unit)
            wanted = [f"path.{design.name}.{unit}", f"area.{design.name}_{unit}"]
            if unit in own_units(design):
                wanted.append(f"energy.{design.name}_{unit}_leakage")
            same = known.get(digests[design.name][unit], {})
            if {each.partition(".")[0] for each in wanted} <= same.keys():
                for each in wanted:
                    lines += [f"[{each}]", *same[each.partition(".")[0]], ""]
                continue
            netlist = gate_level(unit, design, library, cache=cache)
            if netlist.path_ns > TARGET_NS:
                again = gate_level(unit, design, library, max_fanout=MAX_FANOUT, cache=cache)
                netlist = min(netlist, again, key=lambda mapped: mapped.path_ns)
            module = max(netlist.modules, key=lambda module: module.path_ns)
            path = f"{netlist.path_ns:.4g}"
            lines += [
                f"[path.{design.name}.{unit}]", f"value = {path}", 'unit = "ns"', f"low = {path}",
                f"high = {HIGH * float(path):.4g}",
                f"node_nm = {library.node_nm:g}", f"supply_v = {liberty.supply_v:g}",
                'kind = "measured"', 'confidence = "medium"',
                f'source = "this RTL in {library.title}, by Yosys and ABC"',
                f'interval = "{_INTERVAL}"', f'note = "in module {module.name}"', ""]
            lines += _area_lines(f"{design.name}_{unit}", netlist)
            if unit in own_units(design):
                lines += _leakage_lines(f"{design.name}_{unit}", netlist, liberty)
    return "\n".join(lines)


def _entries_by_rtl(text: str) -> dict[str, dict[str, list[str]]]:
    """Digest of a unit's RTL -> ``path``, ``area``, ``energy`` -> lines of that entry's values."""
    blocks = {block.partition("]")[0].removeprefix("["): block.split("\n")[1:]
              for block in text.strip().split("\n\n") if block.startswith("[")}
    found: dict[str, dict[str, list[str]]] = {}
    for design, units in tomllib.loads(text).get("rtl", {}).items():
        for unit, of in units.items():
            for name in (f"path.{design}.{unit}", f"area.{design}_{unit}",
                         f"energy.{design}_{unit}_leakage"):
                if name in blocks:
                    found.setdefault(of, {})[name.partition(".")[0]] = blocks[name]
    return found


def _area_lines(name: str, netlist: Netlist) -> list[str]:
    """Area of a unit as an entry."""
    area, library = f"{netlist.area_um2:.4g}", netlist.library
    return [
        f"[area.{name}]", f"value = {area}", 'unit = "um^2"', f"low = {area}", f"high = {area}",
        f"node_nm = {library.node_nm:g}", 'kind = "measured"', 'confidence = "medium"',
        (f'source = "synthesis of this RTL in {library.title} ({library.licence}): '
         f'{netlist.cells:,} cells, of them {netlist.flip_flops:,} flip-flops; before placement"'),
        'interval = "that of the scaling between nodes comes on top"', ""]


def _leakage_lines(name: str, netlist: Netlist, liberty: Liberty) -> list[str]:
    """A microsecond's leakage of a unit as an entry; it is not scaled, so it has no node."""
    kinds = Counter[str]()
    for module in netlist.modules:
        for kind, count in module.cells.items():
            kinds[kind] += module.instances * count
    leakage = sum(count * liberty.cell(kind).leakage_nw for kind, count in kinds.items()) / 1e3
    low, high = (factor * leakage for factor in LEAKAGE)
    library = netlist.library
    return [
        f"[energy.{name}_leakage]", f"value = {leakage:.4g}", 'unit = "pJ"', f"low = {low:.4g}",
        f"high = {high:.4g}", 'kind = "measured"', 'confidence = "low"',
        (f'source = "leakage of the cells of this RTL in {library.title}, the file\'s figure for '
         'each or the mean of its states"'),
        'interval = "low: as much less as blocks of the raster core leak in SKY130; high: twice"',
        ""]

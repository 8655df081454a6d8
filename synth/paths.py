"""Critical paths of the accelerators' units in one library, and the table that holds them.

The clock of a time is made of them, see :meth:`splatforge.sim.costs.CostTable.clock`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from splatforge.designs.shell import AcceleratorDesign
from splatforge.synth.library import Library
from splatforge.synth.netlist import gate_level
from splatforge.synth.parts import parts, rtl_table

__all__ = ["HIGH", "path_table", "timed_units"]

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


def path_table(
    designs: Sequence[AcceleratorDesign], library: Library, supply_v: float, command: str, *,
    cache: Path | None = None, progress: Callable[[str], None] | None = None,
) -> str:
    """Map every unit of the designs to a library; their paths as a table (TOML) for ``sim``.

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
        f"# Critical paths of the units in {library.title} ({library.licence}).",
        f"# Made by: {command}",
        "# Pre-layout, by ABC, with clock-to-output and setup; paths end and begin at memories",
        "# above 1 Kbit. rtl: digests of what was mapped; a test compares them.",
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
    return "\n".join(lines)

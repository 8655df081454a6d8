"""A unit of our RTL as a netlist of standard cells: area, gates, flip-flops, critical path.

Lanes are synthesised once and multiplied: a module with :data:`SHARED_INSTANCES` instances or more
keeps its place in the hierarchy, everything else is flattened. Memories above
:data:`MACRO_BITS` that can be written stay cells of their own, ``sram_<words>x<bits>``, to be
counted as macros, and so do equal memories of one module, its banks, that are as large together;
smaller ones are flip-flops, ROMs are logic.

The critical path is ABC's, pre-layout: Liberty delays under the loads of the pins, with
``driver`` at every input and flip-flop output and ``load_pf`` on every output, no wires. The
slowest clock-to-output and setup time of the flip-flops used are added from the Liberty.
"""

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from splatforge.designs.shell import AcceleratorDesign
from splatforge.hw.generate import to_rtlil
from splatforge.synth import yosys
from splatforge.synth.library import Library
from splatforge.synth.parts import part
from splatforge.verification.lib.build import cached, digest

__all__ = ["Macro", "Module", "Netlist", "gate_level"]

#: A module with as many instances in a unit keeps its place in the hierarchy.
SHARED_INSTANCES = 4
#: A memory with more bits is a macro, be it in one piece or in equal banks.
MACRO_BITS = 1024

_COARSE = """
read_rtlil unit.il
{keep}
hierarchy -top {top}
proc
setattr -unset init w:*
synth -top {top} -flatten -run begin:fine
write_rtlil coarse.il
"""

# Power-up values mean nothing to a standard cell: what must start known is reset.
_MAP = """
read_rtlil coarse.il
{macros}
synth -top {top} -noabc -run fine:check
dfflibmap{avoid}{liberty}
{abc}
opt_clean -purge
stat{liberty} -top {top}
tee -q -o stat.json stat{liberty} -top {top} -json
write_json netlist.json
"""

# One module at a time, for the log. Structure first, then sizes for the period; `stime -p` prints
# the critical path.
_ABC = ("abc{avoid}{liberty} -constr unit.constr -D {period_ps:.0f} -script +strash;ifraig;scorr;"
        "dc2;dch,-f;map,-B,0.9,{{D}};topo;buffer,-c;upsize,{{D}};dnsize,{{D}};stime,-p {module}")

_KEPT = ("netlist.json", "stat.json", "memories.json", "map.log")
_STIME = re.compile(r"Delay\s*=\s*([\d.]+)\s*ps")


@dataclass(frozen=True, kw_only=True)
class Macro:
    """A memory that is counted as an SRAM macro.

    Parameters
    ----------
    words, bits : int
        Depth and width.
    read_ports, write_ports : int
        Ports.
    """

    words: int
    bits: int
    read_ports: int
    write_ports: int


@dataclass(frozen=True, kw_only=True)
class Module:
    """One module of a netlist, without the shared modules in it.

    Parameters
    ----------
    name : str
        Its name in the netlist.
    instances : int
        How often the unit has it.
    cells : Mapping
        Standard cells of one instance, by type.
    area_um2, sequential_um2 : float
        Cell area of one instance, and the part of flip-flops.
    flip_flops : int
        Of one instance.
    macros : tuple of Macro
        Memories of one instance.
    logic_ns : float
        Critical path between registers or ports, flip-flops not in it.
    path_ns : float
        The same with clock-to-output and setup.
    critical : tuple of str
        The path as ABC prints it.
    """

    name: str
    instances: int
    cells: Mapping[str, int]
    area_um2: float
    sequential_um2: float
    flip_flops: int
    macros: tuple[Macro, ...]
    logic_ns: float
    path_ns: float
    critical: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Netlist:
    """A unit in standard cells.

    Parameters
    ----------
    unit : str
        Name of the unit and of the top module.
    library : Library
        The cells.
    path : Path
        The netlist as Yosys' JSON.
    modules : tuple of Module
        The top module and the shared ones.
    cached : bool
        Whether it had been made before.
    """

    unit: str
    library: Library
    path: Path
    modules: tuple[Module, ...]
    cached: bool

    @cached_property
    def netlist(self) -> dict[str, Any]:
        """Yosys' JSON: ``modules`` -> name -> ``ports``, ``cells``, ``netnames``."""
        return json.loads(self.path.read_text())

    @property
    def cells(self) -> int:
        """Standard cells of the unit."""
        return sum(module.instances * sum(module.cells.values()) for module in self.modules)

    @property
    def area_um2(self) -> float:
        """Cell area in um^2, macros not in it."""
        return sum(module.instances * module.area_um2 for module in self.modules)

    @property
    def gate_equivalents(self) -> float:
        """Area over that of a two-input NAND."""
        return self.area_um2 / self.library.gate_um2

    @property
    def flip_flops(self) -> int:
        """Flip-flops of the unit."""
        return sum(module.instances * module.flip_flops for module in self.modules)

    @property
    def path_ns(self) -> float:
        """Longest critical path of its modules."""
        return max(module.path_ns for module in self.modules)

    @property
    def macros(self) -> dict[Macro, int]:
        """Memories counted as macros -> how often."""
        counts = Counter[Macro]()
        for module in self.modules:
            for macro in module.macros:
                counts[macro] += module.instances
        return dict(counts)


def _hierarchy(text: str) -> dict[str, Counter[str]]:
    """Module -> how often it instantiates each other module."""
    modules = dict(re.findall(r"^module (\\\S+)(.*?)^end$", text, re.MULTILINE | re.DOTALL))
    return {name: Counter(cell for cell in re.findall(r"^  cell (\\\S+) ", body, re.MULTILINE)
                          if cell in modules)
            for name, body in modules.items()}


def _instances(tree: Mapping[str, Counter[str]], top: str) -> Counter[str]:
    """How often each module occurs below `top`, which occurs once."""
    total = Counter({top: 1})
    for child, count in tree.get(top, Counter()).items():
        for name, below in _instances(tree, child).items():
            total[name] += count * below
    return total


def _banks(text: str) -> list[tuple[int, int]]:
    """Shapes, words and bits, of small memories that a module has so many of that they are macros.

    The RTL's modules, before they are flattened.
    """
    found = set()
    for body in re.findall(r"^module \S+(.*?)^end$", text, re.MULTILINE | re.DOTALL):
        counts = Counter((int(words), int(bits)) for bits, words in re.findall(
            r"^  memory width (\d+) size (\d+)", body, re.MULTILINE))
        found |= {(words, bits) for (words, bits), count in counts.items()
                  if words * bits <= MACRO_BITS < words * bits * count}
    return sorted(found)


def _memories(text: str, banks: Collection[tuple[int, int]]) -> list[tuple[str, str, Macro]]:
    """Module, cell and shape of every memory with a write port that is a macro."""
    found = []
    for module, body in re.findall(r"^module (\S+)(.*?)^end$", text, re.MULTILINE | re.DOTALL):
        for cell, rest in re.findall(r"^  cell \$mem_v2 (\S+)(.*?)^  end$", body,
                                     re.MULTILINE | re.DOTALL):
            number = {name: int(value) for name, value in re.findall(
                r"parameter (?:signed )?\\(\w+) (\d+)$", rest, re.MULTILINE)}
            macro = Macro(words=number["SIZE"], bits=number["WIDTH"],
                          read_ports=number["RD_PORTS"], write_ports=number["WR_PORTS"])
            large = macro.words * macro.bits > MACRO_BITS
            if macro.write_ports and (large or (macro.words, macro.bits) in banks):
                found.append((module, cell, macro))
    return found


def gate_level(
    unit: str, design: AcceleratorDesign, library: Library, *, period_ps: float = 1000.0,
    max_fanout: int | None = None, flatten: bool = False, banks: bool = True,
    cache: Path | None = None,
) -> Netlist:
    """Netlist of a unit in the cells of a library, from the cache if it is there.

    Parameters
    ----------
    unit : str
        One of :func:`splatforge.synth.parts.parts`.
    design : AcceleratorDesign
        Its parameters.
    library : Library
        The cells.
    period_ps : float
        What ABC sizes the gates for; what cannot be reached is as fast as it gets.
    max_fanout : int, optional
        Of a gate before ABC puts buffers in; its own choice by default, 10, is slow where a net
        goes to hundreds.
    flatten : bool
        One module, lanes and all: minutes for an array.
    banks : bool
        Whether small memories that are large together are macros. To be simulated they are not:
        :class:`splatforge.synth.activity.Circuit` knows macros of one read port alone.
    cache : Path, optional
        See :func:`splatforge.scenes.cache.cache_folder`.

    Raises
    ------
    SynthesisError
        If Yosys is not installed or fails.
    """
    script = _ABC if max_fanout is None else _ABC.replace(
        "buffer,-c", f"buffer,-N,{max_fanout}")
    text = to_rtlil(part(unit, design), unit)
    tree = _hierarchy(text)
    top = f"\\{unit}"
    counts = _instances(tree, top)
    shared = [] if flatten else [
        name for name, count in counts.items() if name != top and count >= SHARED_INSTANCES]

    together = _banks(text) if banks else []

    def make(work: Path) -> None:
        (work / "unit.il").write_text(text)
        (work / "unit.constr").write_text(
            f"set_driving_cell {library.driver}\n"
            f"set_load {library.load_pf * 1e3:.6g} [all_outputs]\n")  # ABC reads fF
        liberty = ""
        for number, content in enumerate(library.texts):
            (work / f"library_{number}.lib").write_text(content)
            liberty += f" -liberty library_{number}.lib"
        keep = "\n".join(f"setattr -mod -set keep_hierarchy 1 {name}" for name in shared)
        yosys.run(_COARSE.format(top=unit, keep=keep), work, "coarse")
        found = _memories((work / "coarse.il").read_text(), together)
        (work / "memories.json").write_text(json.dumps(
            [(module, asdict(macro)) for module, _, macro in found]))
        macros = "\n".join(
            f"chtype -set \\sram_{macro.words}x{macro.bits} {module}/{cell}"
            for module, cell, macro in found)
        avoid = "".join(f" -dont_use {name}" for name in library.avoid)
        passes = "\n".join(
            script.format(avoid=avoid, liberty=liberty, period_ps=period_ps, module=name)
            for name in (*shared, top))
        yosys.run(_MAP.format(top=unit, macros=macros, avoid=avoid, liberty=liberty, abc=passes),
                  work, "map")

    key = digest(text, library.digest, yosys.version(), _COARSE, _MAP, script, repr(shared),
                 repr(period_ps), str(MACRO_BITS), *([repr(together)] if together else []))
    folder, hit = cached(f"{unit}-{library.name}-{key}", make, _KEPT, cache)
    return Netlist(unit=unit, library=library, path=folder / "netlist.json", cached=hit,
                   modules=_modules(folder, library, counts, unit))


def _modules(
    folder: Path, library: Library, counts: Mapping[str, int], unit: str
) -> tuple[Module, ...]:
    """What a finished run says of each module, the top first."""
    log = (folder / "map.log").read_text()
    timing = dict[str, tuple[float, tuple[str, ...]]]()
    for section in re.split(r"^[\d.]+ Extracting gate netlist of module `", log,
                            flags=re.MULTILINE)[1:]:
        name = section[:section.index("'")]
        delays = _STIME.findall(section)
        path = tuple(line.strip() for line in re.findall(r"ABC: (Path +\d+.*)", section))
        if delays:
            timing[name] = (float(delays[-1]) / 1e3, path)
    memories = json.loads((folder / "memories.json").read_text())
    modules = []
    for name, entry in json.loads((folder / "stat.json").read_text())["modules"].items():
        cells = {kind: count for kind, count in entry["num_cells_by_type"].items()
                 if kind in library.cells}
        flip_flops = {kind: count for kind, count in cells.items() if library.is_sequential(kind)}
        logic_ns, critical = timing.get(name, (0.0, ()))
        overhead = [sum(library.flip_flop_s(kind)) for kind in flip_flops]
        modules.append(Module(
            name=name.removeprefix("\\"), instances=counts[name], cells=cells,
            area_um2=sum(count * library.area_um2(kind) for kind, count in cells.items()),
            sequential_um2=sum(n * library.area_um2(kind) for kind, n in flip_flops.items()),
            flip_flops=sum(flip_flops.values()),
            macros=tuple(Macro(**macro) for module, macro in memories if module == name),
            logic_ns=logic_ns, path_ns=logic_ns + 1e9 * max(overhead, default=0.0),
            critical=critical))
    return tuple(sorted(modules, key=lambda module: module.name != unit))

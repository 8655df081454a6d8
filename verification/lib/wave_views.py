"""Save files for wave viewers: the ports of every unit in a group of its own."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from splatforge.designs.shell import AcceleratorDesign
from splatforge.hw.generate import UNITS
from splatforge.scenes.atomic_file import atomic_file

__all__ = ["View", "gtkwave_save", "surfer_commands", "view_paths", "views", "write_views"]

#: Scope that Verilator puts around the top module.
ROOT = "TOP"
_NAME = r"(?:\\\S+|\w+)"
_MODULE = re.compile(rf"^module ({_NAME})\s*\(.*?^endmodule", re.MULTILINE | re.DOTALL)
_INSTANCE = re.compile(rf"^  ({_NAME}) +({_NAME}) +\($", re.MULTILINE)
_PORT = re.compile(rf"^  (?:input|output) (?:\[(\d+):0\] )?({_NAME}) ?;$", re.MULTILINE)
#: Of a stream in this order.
_MEMBERS = ("valid", "ready", "payload")


@dataclass(frozen=True, kw_only=True)
class View:
    """A unit in the waves.

    Parameters
    ----------
    scope : str
        Its scope, as ``TOP.raster.fetch``.
    ports : tuple of (str, int)
        Names and widths of its ports, clock and reset first, the members of a stream together.
    """

    scope: str
    ports: tuple[tuple[str, int], ...]

    @property
    def title(self) -> str:
        """Path below the top module, or its name."""
        return self.scope.removeprefix(f"{ROOT}.").partition(".")[2] or self.scope.split(".")[-1]

    def signals(self) -> Iterator[tuple[str, int]]:
        """Full name and width of every port."""
        return ((f"{self.scope}.{name}", width) for name, width in self.ports)


def _order(port: tuple[str, int]) -> tuple[int, str, int]:
    """Clock and reset, then streams and AXI channels, then the rest."""
    name = port[0]
    if name in ("clk", "rst"):
        return 0, name, 0
    stream, double, member = name.rpartition("__")
    if double and member in _MEMBERS:
        return 1, stream, _MEMBERS.index(member)
    return 2, name, 0


def views(verilog: str, design: AcceleratorDesign) -> list[View]:
    """Units of an accelerator's Verilog, each behind the one that it is in.

    Parameters
    ----------
    verilog : str
        From :func:`splatforge.hw.generate.verilog`.
    design : AcceleratorDesign
        Whose it is.

    Returns
    -------
    list of View
        The top, its shell, and every instance of a unit of :data:`splatforge.hw.generate.UNITS`
        that is not one of many: of lanes and the like there is no group.
    """
    units = UNITS[design.name] | {"shell"}
    modules = {match.group(1).removeprefix("\\"): match.group(0)
               for match in _MODULE.finditer(verilog)}
    found: list[View] = []

    def visit(module: str, scope: str) -> None:
        text = modules[module]
        ports = sorted(((name.removeprefix("\\"), int(high or 0) + 1)
                        for high, name in _PORT.findall(text)
                        # Amaranth numbers what has no name of its own.
                        if "$" not in name), key=_order)
        found.append(View(scope=scope, ports=tuple(ports)))
        for kind, own in _INSTANCE.findall(text):
            if own in units:
                visit(kind.removeprefix("\\"), f"{scope}.{own}")

    visit(design.name, f"{ROOT}.{design.name}")
    return found


def gtkwave_save(units: Sequence[View], waves: Path) -> str:
    """GTKWave's save file: a group for each unit, that of the top open.

    Flags are GTKWave's: 0x22 a hexadecimal number that is right-justified, 0x28 a bit, 0x800200 the
    begin and 0x1000200 the end of a group, with 0xc00200 and 0x1400200 for a closed one.
    """
    lines = [f'[dumpfile] "{waves.name}"', "[timestart] 0", "[sst_expanded] 1"]
    for number, unit in enumerate(units):
        closed = 0x400000 if number else 0
        lines += [f"@{0x800200 | closed:x}", f"-{unit.title}"]
        for name, width in unit.signals():
            lines += ["@22", f"{name}[{width - 1}:0]"] if width > 1 else ["@28", name]
        lines += [f"@{0x1000200 | closed:x}", f"-{unit.title}"]
    return "\n".join(lines) + "\n"


def surfer_commands(units: Sequence[View]) -> str:
    """Surfer's command file: a divider for each unit, and its ports behind it.

    Surfer's state files hang on its version, its commands do not; none of them names a group and
    fills it with chosen signals.
    """
    lines = []
    for unit in units:
        lines.append(f"divider_add {unit.title}")
        lines += [f"variable_add {name}" for name, _ in unit.signals()]
    return "\n".join([*lines, "zoom_fit"]) + "\n"


def view_paths(waves: Path) -> tuple[Path, Path]:
    """Where the save files of `waves` are, GTKWave's and Surfer's."""
    return waves.with_suffix(".gtkw"), waves.with_suffix(".sucl")


def write_views(verilog: str, design: AcceleratorDesign, waves: Path) -> tuple[Path, Path]:
    """Write the save files of `waves` beside it, called like it: ``.gtkw`` and ``.sucl``.

    Returns
    -------
    tuple of Path
        For GTKWave (``gtkwave FILE.gtkw``) and for Surfer (``surfer --command-file FILE.sucl
        WAVES``).

    Raises
    ------
    SceneError
        If one cannot be written.
    """
    units = views(verilog, design)
    written = view_paths(waves)
    for path, text in zip(written, (gtkwave_save(units, waves), surfer_commands(units)),
                          strict=True):
        with atomic_file(path) as file:
            file.write(text.encode())
    return written

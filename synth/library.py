"""Cell libraries: Liberty files of the user's, with what is known about them."""

import gzip
import hashlib
import math
import os
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["NO_LIBRARY", "Library", "LibraryError", "find_library", "read_library"]

#: The library that anybody can install.
DEFAULT = "osu018"
#: What a user without a library reads.
NO_LIBRARY = (
    "No cell library: pass --liberty FILE, or install one (Debian, Ubuntu: apt install "
    "qflow-tech-osu018; SKY130 and GF180MCU: pip install ciel)")

_NAME = re.compile(r'^\s*library\s*\(\s*"?([\w.\-]+)"?\s*\)', re.MULTILINE)
_TIME = re.compile(r'time_unit\s*:\s*"?\s*([\d.]+)\s*([fpnu]s)')
_LOAD = re.compile(
    r'capacitive_load_unit\s*\(\s*"?\s*([\d.]+)\s*"?\s*,\s*"?\s*([fp]f)', re.IGNORECASE)
_CELL = re.compile(r'^\s*cell\s*\(\s*"?([\w.\-]+)"?\s*\)\s*\{', re.MULTILINE)
_NUMBERS = re.compile(r"[-+.\deE]+")
_SECONDS = {"fs": 1e-15, "ps": 1e-12, "ns": 1e-9, "us": 1e-6}


class LibraryError(ValueError):
    """A Liberty file is absent or not one; the message is one line that says what to do."""


def _block(text: str, brace: int) -> str:
    """Text between the brace at `brace` and its partner."""
    depth = 0
    for match in re.compile(r"[{}]").finditer(text, brace):
        depth += 1 if match[0] == "{" else -1
        if depth == 0:
            return text[brace + 1:match.start()]
    raise LibraryError("Liberty file must close every brace")


def _groups(body: str, kind: str) -> Iterator[tuple[str, str]]:
    """(argument, body) of every group ``kind (argument) { ... }`` in `body`, nested ones too."""
    for match in re.finditer(rf'\b{kind}\s*\(\s*"?([^)"]*)"?\s*\)\s*\{{', body):
        yield match[1], _block(body, match.end() - 1)


def _attribute(body: str, name: str) -> str | None:
    match = re.search(rf'\b{name}\s*:\s*"?([^";\n]+)', body)
    return match[1].strip() if match else None


def _numbers(body: str, name: str) -> npt.NDArray[np.float64] | None:
    """Numbers of a complex attribute such as ``values (...)``."""
    match = re.search(rf"\b{name}\s*\(([^)]*)\)", body)
    return None if match is None else np.array([float(x) for x in _NUMBERS.findall(match[1])])


@dataclass(frozen=True, kw_only=True, eq=False)
class Library:
    """A cell library.

    Parameters
    ----------
    name : str
        Short name, the key of tables.
    title : str
        Process, corner, supply.
    node_nm : float
        Process node.
    licence : str
        Licence of the library.
    driver : str
        Cell that is assumed to drive every input.
    load_pf : float
        Load on every output in pF.
    nand2 : str
        Cell whose area is one gate equivalent.
    avoid : tuple of str
        Cells that synthesis must not use, with ``*``.
    paths : tuple of Path
        The Liberty files.
    texts : tuple of str
        Their content.
    """

    name: str
    title: str
    node_nm: float
    licence: str
    driver: str
    load_pf: float
    nand2: str
    avoid: tuple[str, ...]
    paths: tuple[Path, ...]
    texts: tuple[str, ...] = field(repr=False)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of everything that synthesis depends on."""
        known = repr((self.driver, self.load_pf, self.avoid))
        return hashlib.sha256("\0".join((known, *self.texts)).encode()).hexdigest()

    @cached_property
    def cells(self) -> dict[str, tuple[int, int]]:
        """Name of each cell -> (number of the file, place of its opening brace)."""
        return {match[1]: (number, match.end() - 1) for number, text in enumerate(self.texts)
                for match in _CELL.finditer(text)}

    def cell(self, name: str) -> str:
        """Body of a cell's group.

        Raises
        ------
        LibraryError
            If the library has no such cell.
        """
        if name not in self.cells:
            raise LibraryError(f"Library {self.name} must have the cell {name!r}")
        number, brace = self.cells[name]
        return _block(self.texts[number], brace)

    def area_um2(self, name: str) -> float:
        """Area of a cell in um^2."""
        return float(_attribute(self.cell(name), "area") or 0.0)

    @cached_property
    def gate_um2(self) -> float:
        """Area of a two-input NAND in um^2: one gate equivalent."""
        return self.area_um2(self.nand2)

    def is_sequential(self, name: str) -> bool:
        """Whether a cell is a flip-flop or a latch."""
        return re.search(r"\b(ff|latch)\s*\(", self.cell(name)) is not None

    def time_s(self, number: int) -> float:
        """Time unit of file `number` in seconds."""
        match = _TIME.search(self.texts[number])
        return float(match[1]) * _SECONDS[match[2]] if match else 1e-9

    def load_units(self, number: int) -> float:
        """`load_pf` in the capacitance unit of file `number`."""
        match = _LOAD.search(self.texts[number])
        unit_pf = float(match[1]) * {"f": 1e-3, "p": 1.0}[match[2][0].lower()] if match else 1.0
        return self.load_pf / unit_pf

    def flip_flop_s(self, name: str) -> tuple[float, float]:
        """Clock-to-output and setup time of a flip-flop in seconds.

        Both are the worst over edges and outputs, at the middle of the tables' slopes and, for the
        output, at the load :attr:`load_pf`.

        Raises
        ------
        LibraryError
            If the cell has no such arcs.
        """
        number, _ = self.cells[name]
        body, unit = self.cell(name), self.time_s(number)
        text = self.texts[number]
        delays, setups = [0.0], [0.0]
        for _, pin in _groups(body, "pin"):
            for _, timing in _groups(pin, "timing"):
                kind = _attribute(timing, "timing_type") or ""
                for wanted, tables, found in (
                    ("_edge", ("cell_rise", "cell_fall"), delays),
                    ("setup_", ("rise_constraint", "fall_constraint"), setups),
                ):
                    if wanted not in kind:
                        continue
                    for table in tables:
                        found += [self._look_up(text, template, group, number, wanted == "_edge")
                                  for template, group in _groups(timing, table)]
        if len(delays) == 1 or len(setups) == 1:
            raise LibraryError(f"Cell {name!r} must have clock and setup arcs to be a flip-flop")
        return max(delays) * unit, max(setups) * unit

    def _look_up(self, text: str, template: str, table: str, number: int, loaded: bool) -> float:
        """Entry of a table at the middle slope, and at the load if one index is the load."""
        values = _numbers(table, "values")
        if values is None:
            return 0.0
        head = re.search(rf'lu_table_template\s*\(\s*"?{re.escape(template)}"?\s*\)\s*\{{', text)
        shared = _block(text, head.end() - 1) if head else ""
        place = []
        for axis in (1, 2):
            grid = _numbers(table, f"index_{axis}")
            if grid is None:
                grid = _numbers(shared, f"index_{axis}")
            if grid is None:
                continue
            variable = _attribute(shared, f"variable_{axis}") or ""
            here = (len(grid) - 1) / 2
            if loaded and "capacitance" in variable:
                here = float(np.interp(self.load_units(number), grid, np.arange(len(grid))))
            place.append((len(grid), here))
        values = values.reshape([size for size, _ in place])
        for _, here in reversed(place):
            low = math.floor(here)
            share = here - low
            values = values[..., low] * (1 - share) + values[..., math.ceil(here)] * share
        return float(values)


def _known() -> dict[str, dict[str, Any]]:
    """What is known of libraries, by the name in their Liberty file."""
    return tomllib.loads(files("splatforge.synth").joinpath("libraries.toml").read_text())


def find_library(name: str) -> list[Path]:
    """Liberty files of a library that is installed where its installer puts it.

    Parameters
    ----------
    name : str
        ``osu018``, ``sky130hd`` or ``sg13g2``.

    Raises
    ------
    LibraryError
        If there is no such library, or it is not installed; the message says how it gets there.
    """
    known = {entry["name"]: entry for entry in _known().values() if "places" in entry}
    if name not in known:
        raise LibraryError(f"Library must be one of {', '.join(sorted(known))}, not {name!r}: "
                           "of any other pass the files, --liberty FILE")
    root = os.environ.get("PDK_ROOT") or str(Path.home() / ".ciel")
    paths = [Path(place.replace("$PDK_ROOT", root)) for place in known[name]["places"]]
    if absent := [path for path in paths if not path.exists()]:
        raise LibraryError(f"{absent[0]}: not there ({known[name]['get']}); or pass --liberty FILE")
    return paths


def read_library(paths: Sequence[Path] = (), *, node_nm: float | None = None) -> Library:
    """Read a library from one or more Liberty files, plain or gzipped.

    Parameters
    ----------
    paths : sequence of Path
        The files of one library; without any, the one of Debian's qflow-tech-osu018.
    node_nm : float, optional
        Process node, of a library that is not in ``synth/libraries.toml``.

    Raises
    ------
    LibraryError
        If a file is absent, is no Liberty or is cut short, or its node is not known.
    """
    if not paths:
        try:
            paths = find_library(DEFAULT)
        except LibraryError:
            raise LibraryError(NO_LIBRARY) from None
    texts = []
    for path in paths:
        try:
            content = path.read_bytes()
            texts.append((gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content)
                         .decode("utf-8", "replace"))
        except (OSError, EOFError, gzip.BadGzipFile) as error:
            raise LibraryError(f"{path}: cannot be read: {error}") from None
        if not _NAME.search(texts[-1]):
            raise LibraryError(f"{path}: must be a Liberty file, `library (NAME) {{ ... }}`")
        if texts[-1].count("{") > texts[-1].count("}"):
            raise LibraryError(f"{path}: must close every brace: it may be cut short")
    table = _known()
    names = [match[1] for text in texts if (match := _NAME.search(text))]
    known = next((table[name] for name in names if name in table), {})
    facts = {
        "name": names[0], "title": names[0], "licence": "not known", "avoid": [],
        **{key: value for key, value in known.items() if key not in ("places", "get")}}
    if node_nm is not None:
        facts["node_nm"] = node_nm
    if "node_nm" not in facts:
        raise LibraryError(f"{paths[0]}: the node of {names[0]} is not known: pass "
                           "--library-node-nm")
    if not known:
        facts |= _guess(texts, paths)
    facts["avoid"] = tuple(facts["avoid"])
    return Library(paths=tuple(paths), texts=tuple(texts), **facts)


def _guess(texts: Sequence[str], paths: Sequence[Path]) -> dict[str, object]:
    """Driver, load and NAND2 of a library that is not known, by function and area."""
    buffers, nands = list[tuple[float, str, float]](), list[tuple[float, str]]()
    for text in texts:
        unit = _LOAD.search(text)
        to_pf = float(unit[1]) * {"f": 1e-3, "p": 1.0}[unit[2][0].lower()] if unit else 1.0
        for match in _CELL.finditer(text):
            body = _block(text, match.end() - 1)
            pins = dict(_groups(body, "pin"))
            functions = [function.replace(" ", "") for pin in pins.values()
                         if (function := _attribute(pin, "function"))]
            inputs = [name for name, pin in pins.items()
                      if _attribute(pin, "direction") == "input"]
            area = float(_attribute(body, "area") or 0.0)
            if len(functions) != 1 or area <= 0:
                continue
            if len(inputs) == 1 and functions[0] in (inputs[0], f"({inputs[0]})"):
                pin_pf = float(_attribute(pins[inputs[0]], "capacitance") or 0.0) * to_pf
                buffers.append((area, match[1], pin_pf))
            forms = {form.format(*order) for order in (inputs, inputs[::-1]) if len(inputs) == 2
                     for form in ("(!({0}*{1}))", "!({0}*{1})", "(!({0}&{1}))", "!({0}&{1})",
                                  "(!{0})|(!{1})", "(!{0}|!{1})", "({0}*{1})'", "({0}&{1})'")}
            if functions[0] in forms:
                nands.append((area, match[1]))
    if not buffers or not nands:
        raise LibraryError(f"{', '.join(map(str, paths))}: must have a buffer and a two-input "
                           "NAND, in one of the files")
    buffers.sort()
    _, driver, pin_pf = buffers[len(buffers) // 2]
    return {"driver": driver, "load_pf": 4 * pin_pf, "nand2": min(nands)[1]}

"""Cell libraries in Liberty format: cells, functions, capacitances, power and slew tables.

What is read is what energy at gate level needs: functions of outputs, flip-flops, capacitances of
pins, leakage by state, and the two-dimensional tables (NLDM) of internal power and output slew.
Everything is converted to fF, ps, fJ and nW; areas stay in the unit of the file, by convention
um^2.

Sources: the Liberty format as the open libraries use it (SkyWater sky130_fd_sc_hd, IHP sg13g2,
ASAP7, OSU 180 nm). The readers on PyPI at hand were looked at: ``liberty-parser`` is GPL-3.0, which
this project cannot take in, ``eda-liberty-parser`` is an editor's model without numbers.
"""

import gzip
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Arc", "Cell", "FlipFlop", "Function", "Liberty", "Pin", "Table", "evaluate",
           "parse_function"]

_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*|\\[ \t\r]*\n", re.DOTALL)
_TOKEN = re.compile(r'"[^"]*"|(?:[^\s(){}:;,"\[]|\[[^\]\n]*\])+|[(){}:;,"\[]')
_PREFIX = {"f": 1e-15, "p": 1e-12, "n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0}


def _blank(match: re.Match[str]) -> str:
    """As many lines as the comment had, so that positions keep their line."""
    return "\n" * match.group(0).count("\n") or " "


@dataclass(frozen=True, slots=True)
class _Group:
    """``kind (names) { attributes, groups }`` of a Liberty file, and where it begins."""

    kind: str
    names: tuple[str, ...]
    where: int
    attributes: dict[str, str] = field(default_factory=dict)
    lists: dict[str, tuple[str, ...]] = field(default_factory=dict)
    groups: list["_Group"] = field(default_factory=list)

    def of(self, kind: str) -> Iterator["_Group"]:
        """Groups of one kind."""
        return (group for group in self.groups if group.kind == kind)


class _Text:
    """One file: its tokens, and errors that name file and line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            content = path.read_bytes()
            if content[:2] == b"\x1f\x8b":
                content = gzip.decompress(content)
        except (OSError, EOFError) as error:
            raise ValueError(f"{path}: cannot be read as a Liberty file: {error}") from None
        self.text = _COMMENT.sub(_blank, content.decode("latin-1"))
        self.tokens = [(match.group(0), match.start()) for match in _TOKEN.finditer(self.text)]
        self.next = 0

    def error(self, where: int, message: str) -> ValueError:
        """An error of position `where`, to raise."""
        line = self.text.count("\n", 0, where) + 1
        return ValueError(f"{self.path}: line {line}: {message}")

    def take(self) -> tuple[str, int]:
        """The next token."""
        if self.next == len(self.tokens):
            raise self.error(len(self.text), "the file must not end inside of a group")
        self.next += 1
        return self.tokens[self.next - 1]

    def peek(self) -> str:
        """The next token's text, empty at the end."""
        return self.tokens[self.next][0] if self.next < len(self.tokens) else ""

    def value(self, where: int) -> str:
        """What stands behind a colon, up to the semicolon or, where it is missing, the line."""
        words = list[str]()
        while True:
            if self.peek() in (";", "}", ""):
                if self.peek() == ";":
                    self.next += 1
                break
            token, at = self.tokens[self.next]
            if words and "\n" in self.text[where:at]:
                break
            words.append(token.strip('"'))
            where = at + len(token)
            self.next += 1
        return " ".join(words)

    def arguments(self) -> tuple[str, ...]:
        """What stands in parentheses, behind the opening one."""
        words = list[str]()
        while True:
            token, at = self.take()
            if token == ")":
                return tuple(words)
            if token in "{};":
                raise self.error(at, f"an argument must be a name or a number, not {token!r}")
            if token != ",":
                words.append(token.strip('"'))

    def group(self, kind: str, names: tuple[str, ...], where: int) -> _Group:
        """A group, behind its opening brace."""
        group = _Group(kind, names, where)
        while True:
            name, at = self.take()
            if name == "}":
                return group
            if name == ";":
                continue
            if not (name[0].isalpha() or name[0] in "_\""):
                raise self.error(at, f"a statement must begin with a name, not {name!r}")
            mark, mark_at = self.take()
            if mark == ":":
                group.attributes[name] = self.value(mark_at + 1)
            elif mark == "(":
                words = self.arguments()
                if self.peek() == "{":
                    self.next += 1
                    group.groups.append(self.group(name, words, at))
                else:
                    group.lists[name] = words
            else:
                raise self.error(at, f"{name} must be followed by ':' or '(', not {mark!r}")

    def library(self) -> _Group:
        """The one ``library`` group of the file."""
        if self.peek() != "library":
            where = self.tokens[0][1] if self.tokens else 0
            raise self.error(where, f"a Liberty file must begin with 'library', "
                                    f"not {self.peek()!r}")
        _, where = self.take()
        mark, at = self.take()
        if mark != "(":
            raise self.error(at, f"library must be followed by '(', not {mark!r}")
        names = self.arguments()
        mark, at = self.take()
        if mark != "{":
            raise self.error(at, f"library must be followed by '{{', not {mark!r}")
        return self.group("library", names, where)


# --- Boolean functions ---------------------------------------------------------------------------

_OPERAND = re.compile(r"\s*([A-Za-z_][\w\[\]:.]*|[01]|[!()&*|+^'])")

#: A parsed function: a name, ``"0"``, ``"1"``, or an operator and its operands.
Function: TypeAlias = "str | tuple[str, Function] | tuple[str, Function, Function]"


def parse_function(text: str) -> Function:
    """Parse a Liberty function.

    Parameters
    ----------
    text : str
        ``!`` or a trailing ``'`` inverts; then, loosest last, ``^``; ``&``, ``*`` or nothing; ``|``
        or ``+``.

    Returns
    -------
    str or tuple
        A name, ``"0"``, ``"1"``, or ``("!", f)``, ``("&", f, g)``, ``("|", f, g)``,
        ``("^", f, g)``.

    Raises
    ------
    ValueError
        If the function is malformed.
    """
    tokens = list[str]()
    at = 0
    while text[at:].strip():
        match = _OPERAND.match(text, at)
        if match is None:
            raise ValueError(f"Function must be of names and operators, not {text!r}")
        tokens.append(match.group(1))
        at = match.end()
    tokens.reverse()

    def atom() -> Function:
        token = tokens.pop() if tokens else ""
        if token == "!":
            return ("!", atom())
        if token == "(":
            result = either()
            if not tokens or tokens.pop() != ")":
                raise ValueError(f"Function must close its parentheses, not {text!r}")
        elif token and (token[0].isalnum() or token[0] == "_"):
            result = token
        else:
            raise ValueError(f"Function must have an operand at each operator, not {text!r}")
        while tokens and tokens[-1] == "'":
            tokens.pop()
            result = ("!", result)
        return result

    def unequal() -> Function:
        result = atom()
        while tokens and tokens[-1] == "^":
            tokens.pop()
            result = ("^", result, atom())
        return result

    def both() -> Function:
        result = unequal()
        while tokens and tokens[-1] not in ("|", "+", ")"):
            if tokens[-1] in ("&", "*"):
                tokens.pop()
            result = ("&", result, unequal())
        return result

    def either() -> Function:
        result = both()
        while tokens and tokens[-1] in ("|", "+"):
            tokens.pop()
            result = ("|", result, both())
        return result

    result = either()
    if tokens:
        raise ValueError(f"Function must open its parentheses, not {text!r}")
    return result


def evaluate(function: Function, values: Mapping[str, int], ones: int) -> int:
    """Value of a function, bit by bit.

    Parameters
    ----------
    function : str or tuple
        From :func:`parse_function`.
    values : mapping
        Name -> bits.
    ones : int
        All bits set.

    Raises
    ------
    ValueError
        If a name has no value.
    """
    if isinstance(function, str):
        if function in ("0", "1"):
            return ones if function == "1" else 0
        if function not in values:
            raise ValueError(f"Function must be of {', '.join(values)}, not {function!r}")
        return values[function]
    operator, *operands = function
    bits = [evaluate(operand, values, ones) for operand in operands]
    match operator:
        case "!":
            return ones & ~bits[0]
        case "&":
            return bits[0] & bits[1]
        case "|":
            return bits[0] | bits[1]
        case _:
            return bits[0] ^ bits[1]


# --- What a library holds ------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, slots=True)
class Table:
    """A quantity over input slew and output load.

    Parameters
    ----------
    slew_ps, load_ff : ndarray
        Ascending axes; one point where the table does not depend on the axis.
    values : ndarray
        Of shape [slews, loads].
    """

    slew_ps: npt.NDArray[np.float64]
    load_ff: npt.NDArray[np.float64]
    values: npt.NDArray[np.float64]

    def at(
        self, slew_ps: npt.NDArray[np.float64], load_ff: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64]:
        """Bilinear interpolation; outside of the axes the value at their end."""
        low, share = _corner(self.slew_ps, slew_ps)
        left, part = _corner(self.load_ff, load_ff)
        high = np.minimum(low + 1, len(self.slew_ps) - 1)
        right = np.minimum(left + 1, len(self.load_ff) - 1)
        grid = self.values
        return ((1 - share) * ((1 - part) * grid[low, left] + part * grid[low, right])
                + share * ((1 - part) * grid[high, left] + part * grid[high, right]))


def _corner(
    axis: npt.NDArray[np.float64], points: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Lower neighbour of each point on `axis`, and how far it is to the next."""
    if len(axis) == 1:
        return np.zeros(len(points), np.intp), np.zeros(len(points))
    low = np.clip(np.searchsorted(axis, points, side="right") - 1, 0, len(axis) - 2)
    share = (points - axis[low]) / (axis[low + 1] - axis[low])
    return low, np.clip(share, 0.0, 1.0)


@dataclass(frozen=True, eq=False, slots=True)
class Arc:
    """Tables of one pin, for a condition and the input that causes the transition.

    Parameters
    ----------
    related : tuple of str
        Causing inputs; empty where the table is for any.
    when : str
        Condition over the cell's pins; empty where there is none.
    rise, fall : Table or None
        For a rising and a falling transition of the pin.
    """

    related: tuple[str, ...]
    when: str
    rise: Table | None
    fall: Table | None

    @property
    def tables(self) -> tuple[Table, ...]:
        """Those that are there."""
        return tuple(table for table in (self.rise, self.fall) if table is not None)


@dataclass(frozen=True, eq=False, slots=True)
class Pin:
    """A pin of a cell.

    Parameters
    ----------
    name, direction : str
        ``input``, ``output``, ``inout`` or ``internal``.
    capacitance_ff : float
        Of an input.
    function : str
        Of an output; empty where it has none.
    clock : bool
        Whether the file marks it as a clock.
    power : tuple of Arc
        Energy in fJ that the cell dissipates inside at a transition of the pin.
    slew : tuple of Arc
        Slew in ps of an output.
    """

    name: str
    direction: str
    capacitance_ff: float
    function: str
    clock: bool
    power: tuple[Arc, ...]
    slew: tuple[Arc, ...]


@dataclass(frozen=True, slots=True)
class FlipFlop:
    """What a flip-flop does.

    Parameters
    ----------
    state, inverse : str
        Names of the stored bit and of its complement in functions.
    next_state, clocked_on, clear, preset : str
        Functions; empty where there is none.
    """

    state: str
    inverse: str
    next_state: str
    clocked_on: str
    clear: str
    preset: str


@dataclass(frozen=True, eq=False, slots=True)
class Cell:
    """A cell of a library.

    Parameters
    ----------
    name : str
        Its name.
    area_um2 : float
        Area.
    leakage : tuple of (str, float)
        Conditions over the pins, and nW there.
    leakage_nw : float
        Where no condition holds: the file's own figure, else the mean of the conditions.
    pins : mapping
        Pins by name.
    flip_flop : FlipFlop or None
        For a flip-flop.
    storage : str
        ``""`` for a gate, else the kind of the group that makes it store: ``ff``, ``latch``,
        ``statetable``, ``ff_bank``, ``memory``.
    """

    name: str
    area_um2: float
    leakage: tuple[tuple[str, float], ...]
    leakage_nw: float
    pins: Mapping[str, Pin]
    flip_flop: FlipFlop | None
    storage: str

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs, in the order of the file."""
        return tuple(name for name, pin in self.pins.items() if pin.direction == "input")

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs, in the order of the file."""
        return tuple(name for name, pin in self.pins.items() if pin.direction == "output")


class Liberty:
    """Cells of one or more Liberty files, built when they are asked for.

    Parameters
    ----------
    paths : sequence of Path
        Files of one library, plain or gzipped. A cell of a later file replaces an earlier one's.

    Attributes
    ----------
    name : str
        Name of the first file's library.
    supply_v : float
        Nominal supply; the highest where the files differ.

    Raises
    ------
    ValueError
        If a file is malformed; the message names file and line.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        if not paths:
            raise ValueError("Liberty files must be at least one, not 0")
        self._sources: dict[str, _Source] = {}
        self._cells: dict[str, Cell] = {}
        supplies = set[float]()
        self.name = ""
        for path in paths:
            source = _Source(path)
            self.name = self.name or source.name
            supplies.add(source.supply_v)
            self._sources |= dict.fromkeys(source.cells, source)
        self.supply_v = max(supplies)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all cells."""
        return tuple(self._sources)

    def cell(self, name: str) -> Cell:
        """The cell called `name`.

        Raises
        ------
        ValueError
            If there is none, or it is malformed.
        """
        if name not in self._sources:
            raise ValueError(f"Cell must be one of library {self.name}, not {name!r}")
        if name not in self._cells:
            self._cells[name] = self._sources[name].build(name)
        return self._cells[name]


class _Source:
    """One file, from which cells are built."""

    def __init__(self, path: Path) -> None:
        self.file = _Text(path)
        self.root = self.file.library()
        del self.file.tokens[:]
        self.name = self.root.names[0] if self.root.names else path.name
        attributes = self.root.attributes
        self.cells = {group.names[0]: group for group in self.root.of("cell") if group.names}
        self.supply_v = self._number(self.root, "nom_voltage", "a supply in volts")
        size, unit = (*self.root.lists.get("capacitive_load_unit", ()), "", "")[:2]
        prefix = unit.strip().lower().removesuffix("f")
        try:
            self.farad = float(size) * _PREFIX[prefix]
        except (KeyError, ValueError):
            raise self.file.error(
                self.root.where, "library must state capacitive_load_unit as (number, pf or ff), "
                f"not {(size, unit)!r}") from None
        self.second = self._unit(attributes, "time_unit", "s")
        self.volt = self._unit(attributes, "voltage_unit", "v")
        self.watt = self._unit(attributes, "leakage_power_unit", "w")
        #: Liberty derives the energy unit: capacitance unit times the voltage unit squared.
        self.joule = self.farad * self.volt**2

    def _unit(self, attributes: Mapping[str, str], key: str, symbol: str) -> float:
        text = attributes.get(key, "")
        match = re.fullmatch(rf"\s*([\d.eE+-]+)\s*([fpnum]?){symbol}\s*", text, re.IGNORECASE)
        if match is None:
            raise self.file.error(
                self.root.where, f"library must state {key} as a number of {symbol}, not {text!r}")
        return float(match[1]) * _PREFIX[match[2].lower()]

    def _number(self, group: _Group, key: str, what: str, default: float | None = None) -> float:
        text = group.attributes.get(key)
        if text is None and default is not None:
            return default
        try:
            number = float(text or "")
        except ValueError:
            number = np.nan
        if not np.isfinite(number):
            raise self.file.error(
                group.where, f"{key} of {group.kind} {' '.join(group.names)} must be {what}, "
                f"not {text!r}".replace("  ", " "))
        return number

    @cached_property
    def _templates(self) -> dict[str, _Group]:
        return {group.names[0]: group for group in self.root.groups
                if group.kind in ("lu_table_template", "power_lut_template") and group.names}

    def _numbers(self, group: _Group, words: Sequence[str]) -> list[float]:
        try:
            return [float(number) for word in words for number in word.replace(",", " ").split()]
        except ValueError:
            raise self.file.error(
                group.where, f"{group.kind} must hold numbers, not {' '.join(words)[:40]!r}"
            ) from None

    def _table(self, group: _Group, unit: float) -> Table:
        """A table of slew and load, whatever the order of its axes."""
        template = self._templates.get(group.names[0] if group.names else "")
        if "values" not in group.lists:
            raise self.file.error(group.where, f"{group.kind} must hold values")
        values = np.array(self._numbers(group, group.lists["values"])) * unit
        axes = list[tuple[str, list[float]]]()
        for number in (1, 2):
            index = group.lists.get(f"index_{number}")
            variable = ""
            if template is not None:
                variable = template.attributes.get(f"variable_{number}", "")
                index = index or template.lists.get(f"index_{number}")
            if index is not None and (variable or template is None):
                axes.append((variable, self._numbers(group, index)))
        axes = axes if values.size > 1 else []
        if values.size != np.prod([len(axis) for _, axis in axes]):
            raise self.file.error(
                group.where, f"{group.kind} must hold as many values as its axes have points, "
                f"not {values.size}")
        slew, load = [0.0], [0.0]
        grid = values.reshape([len(axis) for _, axis in axes] or [1])
        kinds = list[str]()
        for variable, axis in axes:
            if any(after <= before for before, after in pairwise(axis)):
                raise self.file.error(group.where, f"{group.kind} must have ascending axes")
            if "capacitance" in variable:
                load = axis
                kinds.append("load")
            elif "transition" in variable:
                slew = axis
                kinds.append("slew")
            else:
                raise self.file.error(
                    group.where, f"{group.kind} must be over slew and capacitance, "
                    f"not {variable!r}")
        if len(set(kinds)) < len(kinds):
            raise self.file.error(group.where, f"{group.kind} must have two different axes")
        if kinds == ["load", "slew"]:
            grid = grid.T
        return Table(np.array(slew) * self.second * 1e12, np.array(load) * self.farad * 1e15,
                     grid.reshape(len(slew), len(load)))

    def _arcs(self, pin: _Group, kind: str, rise: str, fall: str, unit: float) -> tuple[Arc, ...]:
        """Arcs of a pin; those of several supply pins belong together and add up."""
        found = dict[tuple[tuple[str, ...], str, str], Arc]()
        for group in pin.of(kind):
            tables = {name: table for name in (rise, fall, "power") for table in group.of(name)}
            if not tables:
                continue
            both = tables.get("power")
            up, down = tables.get(rise, both), tables.get(fall, both)
            related = tuple(group.attributes.get("related_pin", "").split())
            when = group.attributes.get("when", "")
            supply = group.attributes.get("related_pg_pin", "")
            arc = Arc(related, when, self._table(up, unit) if up else None,
                      self._table(down, unit) if down else None)
            # The last of two groups of the same condition and supply counts.
            found[related, when, supply] = arc
        merged = dict[tuple[tuple[str, ...], str], Arc]()
        for (related, when, _), arc in found.items():
            before = merged.get((related, when))
            merged[related, when] = arc if before is None else Arc(
                related, when, _sum(before.rise, arc.rise), _sum(before.fall, arc.fall))
        return tuple(merged.values())

    def _pin(self, group: _Group, name: str) -> Pin:
        attributes = group.attributes
        direction = attributes.get("direction", "")
        if direction not in ("input", "output", "inout", "internal"):
            raise self.file.error(
                group.where, f"pin {name} must have a direction of input, output, inout or "
                f"internal, not {direction!r}")
        default = 0.0
        if direction == "input":
            default = self._number(self.root, "default_input_pin_cap", "a capacitance", 0.0)
        ratio = self.farad * 1e15
        return Pin(
            name, direction, self._number(group, "capacitance", "a capacitance", default) * ratio,
            attributes.get("function", ""), attributes.get("clock", "") == "true",
            self._arcs(group, "internal_power", "rise_power", "fall_power", self.joule * 1e15),
            self._arcs(group, "timing", "rise_transition", "fall_transition",
                       self.second * 1e12) if direction == "output" else ())

    def build(self, name: str) -> Cell:
        """The cell called `name`."""
        group = self.cells[name]
        pins = {}
        for pin in (pin for kind in ("pin", "bus") for pin in group.of(kind)):
            pins |= {each: self._pin(pin, each) for each in pin.names}
        unit = self.watt * 1e9
        conditions = dict[str, float]()
        for leakage in group.of("leakage_power"):
            when = leakage.attributes.get("when", "")
            value = self._number(leakage, "value", "a power") * unit
            conditions[when] = conditions.get(when, 0.0) + value
        stated = conditions.pop("", None)
        if "cell_leakage_power" in group.attributes:
            stated = self._number(group, "cell_leakage_power", "a power") * unit
        if stated is None:
            stated = float(np.mean(list(conditions.values()))) if conditions else (
                self._number(self.root, "default_cell_leakage_power", "a power", 0.0) * unit)
        storage = next((kind for kind in ("ff", "latch", "statetable", "ff_bank", "latch_bank",
                                          "memory") if any(group.of(kind))), "")
        flip_flop = None
        if storage == "ff":
            ff = next(group.of("ff"))
            if len(ff.names) != 2:
                raise self.file.error(ff.where, f"ff of {name} must name its state and the "
                                                f"complement, not {ff.names}")
            flip_flop = FlipFlop(*ff.names, *(ff.attributes.get(key, "") for key in (
                "next_state", "clocked_on", "clear", "preset")))
        return Cell(name, self._number(group, "area", "an area", 0.0), tuple(conditions.items()),
                    stated, pins, flip_flop, storage)


def _sum(first: Table | None, second: Table | None) -> Table | None:
    """Two tables added; a table of one point is a constant."""
    if first is None or second is None:
        return first or second
    if second.values.size == 1:
        return Table(first.slew_ps, first.load_ff, first.values + second.values[0, 0])
    if first.values.size == 1:
        return _sum(second, first)
    if not (np.array_equal(first.slew_ps, second.slew_ps)
            and np.array_equal(first.load_ff, second.load_ff)):
        raise ValueError("Power tables of two supply pins must have the same axes")
    return Table(first.slew_ps, first.load_ff, first.values + second.values)

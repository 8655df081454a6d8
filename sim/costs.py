"""Cost tables: what one event costs in energy and one instance in area, and who says so.

Every number is a :class:`Sourced` value with an interval, read from the TOML tables beside this
file. An entry without a source, with an unknown unit or with an interval that does not hold its
value is refused. A later file replaces earlier entries one by one, so that a measured entry
(synthesis of our own RTL, a user's library) displaces an estimate without touching the rest.

Vocabulary
----------
Events, for energy:

=======================================  ========================================================
``multiply_18x14``                       one integer multiplication of 18 by 14 bits
``add_20``                               one addition, subtraction or comparison of 20 bits
``shift_16``                             one pass through a barrel shifter of 16 bits
``register_bit_clock``                   one flip-flop bit, one clock cycle, not gated
``sram_read_128b_4KiB``                  one read of 128 bits from an SRAM of 4 KiB
``sram_write_128b_4KiB``                 one write of the same
``sram_leakage_128b_4KiB``               leakage of the same, one microsecond
``dram_read_byte``, ``dram_write_byte``  one byte over the DRAM interface
=======================================  ========================================================

Items, for area: ``multiply_18x14``, ``add_20``, ``shift_16``, ``register_bit``,
``sram_128b_4KiB``; ``<design>_<unit>``, such as ``gscore_bsu``, the cells of a unit (table
``paths.toml``).

An event finds its cost in this order: the entry ``energy.<event>`` of exactly this name; a
measured block; a law
(``energy.multiply`` per bit squared, ``energy.add`` per bit, ``energy.shift`` per bit and level);
the SRAM table; the DRAM entry. Logic scales between nodes by :meth:`CostTable.scale`; SRAM is
looked up at the node; DRAM does not scale.

Measured blocks, for energy (``splatforge energy``; tables ``energy_*.toml``):

======================================  ========================================================
``alpha_evaluation``                    one evaluation issued to a lane: the data in alpha's part
``alpha_significant``                   what a live evaluation over 1/255 costs there besides
``blend_evaluation``, ``_significant``  the same in blend's part
``array_block``                         one block issued: the parts that the lanes share, control
``fetch_splat``, ``resolve_pixel``      one record fetched, one pixel written
``registers_cycle``                     one cycle of the register file
``qsu_entry``, ``qsu_tile`` and so on   one action of a unit that one accelerator has for itself
                                        (``energy_gscore_*.toml`` and so on)
``<block>_flip_flop_cycle``             the clock of one flip-flop of the block, one cycle
``<block>_leakage``                     leakage of all of the block, one microsecond
======================================  ========================================================

Units that were not measured leak ``<design>_<unit>_leakage`` in a microsecond (``paths.toml``).

Critical paths of the units, ``path.<design>.<unit>`` (table ``paths.toml``), are what
:meth:`CostTable.clock` makes a clock of.

The last library of :data:`LIBRARIES` says the value of a measured event, at its node and supply; it
is brought to another node and to ``scaling.supply`` by the same rule. Its interval also holds what
the other libraries say there. Leakage is not scaled: no rule holds over processes and their
options; its interval spans the libraries.
"""

import contextlib
import difflib
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from splatforge.scenes import check_regular_file

__all__ = ["LIBRARIES", "CostTable", "Entry", "Sourced", "SramTable", "default_costs",
           "read_entries", "two_digits"]

_BASES: dict[str, tuple[float, dict[str, int]]] = {
    "1": (1.0, {}),
    "J": (1.0, {"J": 1}),
    "W": (1.0, {"J": 1, "s": -1}),
    "s": (1.0, {"s": 1}),
    "Hz": (1.0, {"s": -1}),
    "bit": (1.0, {"bit": 1}),
    "B": (8.0, {"bit": 1}),
    "bps": (1.0, {"bit": 1, "s": -1}),
    "m": (1.0, {"m": 1}),
    "V": (1.0, {"V": 1}),
    "A": (1.0, {"J": 1, "s": -1, "V": -1}),
    "FLOP": (1.0, {"FLOP": 1}),
}
_PREFIXES = {"f": 1e-15, "p": 1e-12, "n": 1e-9, "u": 1e-6, "m": 1e-3,
             "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}


def _factor(token: str, unit: str) -> tuple[float, dict[str, int], int]:
    """SI factor, base exponents and power of one factor such as ``pJ`` or ``um^2``."""
    symbol, _, power = token.partition("^")
    if power and not power.isdigit():
        raise ValueError(f"Unit must have whole powers, not {unit!r}")
    if symbol in _BASES:
        scale, exponents = _BASES[symbol]
    elif symbol[:1] in _PREFIXES and symbol[1:] in _BASES and symbol[1:] != "1":
        scale, exponents = _BASES[symbol[1:]]
        scale *= _PREFIXES[symbol[0]]
    else:
        raise ValueError(f"Unit must be made of {', '.join(_BASES)} with prefixes, not {unit!r}")
    return scale, exponents, int(power or 1)


@cache
def _parse_unit(unit: str) -> tuple[float, tuple[tuple[str, int], ...]]:
    """SI factor and sorted base exponents of ``a*b/c/d^2``."""
    total, exponents = 1.0, dict[str, int]()
    for position, part in enumerate(unit.split("/")):
        sign = 1 if position == 0 else -1
        for token in part.split("*"):
            scale, bases, power = _factor(token, unit)
            total *= scale ** (sign * power)
            for base, exponent in bases.items():
                exponents[base] = exponents.get(base, 0) + sign * power * exponent
    return total, tuple(sorted((base, n) for base, n in exponents.items() if n))


def _unit_name(exponents: tuple[tuple[str, int], ...]) -> str:
    """SI unit of base exponents; inverse of `_parse_unit` up to prefixes."""
    def power(base: str, n: int) -> str:
        return base if n == 1 else f"{base}^{n}"
    over = "*".join(power(base, n) for base, n in exponents if n > 0) or "1"
    return "/".join([over, *(power(base, -n) for base, n in exponents if n < 0)])


def _product(left: str, right: str, power: int) -> tuple[str, float]:
    """SI unit of ``left * right**power`` and the factor of the prefixes, which it drops."""
    ours, exponents = _parse_unit(left)
    theirs, others = _parse_unit(right)
    total = dict(exponents)
    for base, n in others:
        total[base] = total.get(base, 0) + power * n
    unit = _unit_name(tuple(sorted((base, n) for base, n in total.items() if n)))
    return unit, ours * theirs**power


def two_digits(number: float) -> str:
    """A number that is not known better, for people."""
    return f"{float(f'{number:.2g}'):g}"


def _join(first: str, second: str) -> str:
    """Both sources, each once."""
    return first if second in first else f"{first}; {second}"


@dataclass(frozen=True)
class Sourced:
    """A number with its unit, its interval and who says so.

    Parameters
    ----------
    value : float
        The number, finite and not negative.
    unit : str
        ``pJ``, ``pJ/bit^2``, ``um^2``, ``GB/s``, ``1`` and so on.
    source : str
        Author, title, year, table: enough to find it again.
    low, high : float
        Interval that holds `value`.
    points : frozenset of str
        Published points (ids of claims) that value or interval were calibrated on. They follow
        the number through sums, products and quotients, so that whatever is computed from it
        knows what it was fitted to.
    scatter : tuple of float, optional
        Of a mean over scenes the lowest and the highest, for people: no interval. Kept where the
        unit changes, lost in arithmetic with other numbers.

    Raises
    ------
    ValueError
        If the unit is unknown, the source is empty or the interval does not hold the value.

    Notes
    -----
    Products multiply units and intervals; sums need the same dimension and add the intervals end
    to end, that is, as if all errors pointed the same way.
    """

    value: float
    unit: str
    source: str
    low: float
    high: float
    points: frozenset[str] = frozenset()
    scatter: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        _parse_unit(self.unit)
        if not self.source.strip():
            raise ValueError("Source must say who says so, not be empty")
        if not all(math.isfinite(number) for number in (self.value, self.low, self.high)):
            raise ValueError(f"Value and interval must be finite, not {self.value!r} "
                             f"[{self.low!r}, {self.high!r}]")
        if not 0 <= self.low <= self.value <= self.high:
            raise ValueError(f"Interval must be non-negative and hold {self.value!r}, "
                             f"not [{self.low!r}, {self.high!r}]")

    @classmethod
    def exact(cls, value: float, unit: str, source: str) -> Self:
        """A number without spread: a count, a definition."""
        return cls(value, unit, source, value, value)

    def to(self, unit: str) -> "Sourced":
        """The same quantity in another unit of its dimension.

        Raises
        ------
        ValueError
            If the dimension differs.
        """
        ours, exponents = _parse_unit(self.unit)
        theirs, wanted = _parse_unit(unit)
        if exponents != wanted:
            raise ValueError(f"Unit must be one of {_unit_name(exponents)}, not {unit!r}")
        ratio = ours / theirs
        scatter = self.scatter and (self.scatter[0] * ratio, self.scatter[1] * ratio)
        return Sourced(self.value * ratio, unit, self.source, self.low * ratio, self.high * ratio,
                       self.points, scatter)

    def __add__(self, other: "Sourced") -> "Sourced":
        other = other.to(self.unit)
        return Sourced(self.value + other.value, self.unit, _join(self.source, other.source),
                       self.low + other.low, self.high + other.high, self.points | other.points)

    def __mul__(self, other: "Sourced | float") -> "Sourced":
        if not isinstance(other, Sourced):
            scatter = self.scatter and (self.scatter[0] * other, self.scatter[1] * other)
            return Sourced(self.value * other, self.unit, self.source,
                           self.low * other, self.high * other, self.points, scatter)
        unit, ratio = _product(self.unit, other.unit, 1)
        return Sourced(self.value * other.value * ratio, unit, _join(self.source, other.source),
                       self.low * other.low * ratio, self.high * other.high * ratio,
                       self.points | other.points)

    __rmul__ = __mul__

    def __truediv__(self, other: "Sourced") -> "Sourced":
        if other.low == 0:
            raise ValueError(f"Divisor must be above zero, not {other}")
        unit, ratio = _product(self.unit, other.unit, -1)
        return Sourced(self.value / other.value * ratio, unit, _join(self.source, other.source),
                       self.low / other.high * ratio, self.high / other.low * ratio,
                       self.points | other.points)

    def __str__(self) -> str:
        unit = "" if self.unit == "1" else f" {self.unit}"
        value, low, high = map(two_digits, (self.value, self.low, self.high))
        return f"{value}{unit} [{low}, {high}]"


#: Libraries with a committed table of measured energies; the last one's values are used. IHP's is a
#: process that is manufactured and whose supply is nearest to those of today, which ASAP7 is not;
#: SKY130's cells are for 1.8 V. Brought to 45 nm and 0.9 V a lane's cycle is 6.4 pJ from IHP's
#: 130 nm, 3.8 pJ from SKY130's and 35 pJ from ASAP7's 7 nm (bench/energy_check.py): the rule does
#: not hold from planar transistors to fins, and the interval says so.
LIBRARIES = ("asap7", "sky130hd", "sg13g2")
#: Accelerators of whose own units a library may have a table, too.
_OWN_MEASURED = ("gscore", "streaminggs", "lumina", "voyager")
#: Where an entry comes from, best first.
KINDS = ("measured", "published", "estimate")
CONFIDENCES = ("high", "medium", "low")
_REQUIRED = ("value", "unit", "low", "high", "source")
_KNOWN = (*_REQUIRED, "node_nm", "supply_v", "kind", "confidence", "interval", "note",
          "calibrated_on")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of a cost table.

    Parameters
    ----------
    name : str
        Dotted key, such as ``energy.multiply``.
    cost : Sourced
        The number.
    node_nm : float | None
        Process node at which it holds; ``None`` if it does not scale.
    supply_v : float | None
        Supply at which an energy holds; ``None`` for that of the scaling rule.
    kind : str
        ``measured`` on our own RTL, ``published``, or ``estimate``.
    confidence : str
        ``high``, ``medium`` or ``low``.
    interval : str
        Who says the interval.
    note : str
        What to know before using it.
    """

    name: str
    cost: Sourced
    node_nm: float | None = None
    supply_v: float | None = None
    kind: str = "published"
    confidence: str = "low"
    interval: str = ""
    note: str = ""


def _read_entry(where: str, name: str, table: Mapping[str, object]) -> Entry:
    for key in table:
        if key not in _KNOWN:
            near = difflib.get_close_matches(key, _KNOWN, n=1, cutoff=0.0)[0]
            raise ValueError(f"{where}: {name}.{key} is unknown: did you mean {near!r}?")
    for key in _REQUIRED:
        if key not in table:
            raise ValueError(f"{where}: {name}.{key} is missing: every entry states it")
    numbers = dict[str, float]()
    for key in ("value", "low", "high", "node_nm", "supply_v"):
        number = table.get(key)
        if number is None:
            continue
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ValueError(f"{where}: {name}.{key} must be a number, not {number!r}")
        numbers[key] = float(number)
    texts = dict[str, str]()
    for key in ("unit", "source", "kind", "confidence", "interval", "note"):
        text = table.get(key)
        if text is None:
            continue
        if not isinstance(text, str):
            raise ValueError(f"{where}: {name}.{key} must be text, not {text!r}")
        texts[key] = text
    for key, allowed in (("kind", KINDS), ("confidence", CONFIDENCES)):
        if key in texts and texts[key] not in allowed:
            raise ValueError(
                f"{where}: {name}.{key} must be {' or '.join(allowed)}, not {texts[key]!r}")
    for key in ("node_nm", "supply_v"):
        if numbers.get(key, 1.0) <= 0:
            raise ValueError(f"{where}: {name}.{key} must be positive, not {numbers[key]!r}")
    points = table.get("calibrated_on", [])
    if not (isinstance(points, list) and all(isinstance(point, str) for point in points)):
        raise ValueError(
            f"{where}: {name}.calibrated_on must be a list of ids of claims, not {points!r}")
    try:
        cost = Sourced(numbers["value"], texts.pop("unit"), texts.pop("source"),
                       numbers["low"], numbers["high"], frozenset(points))
    except ValueError as error:
        raise ValueError(f"{where}: {name}: {error}") from None
    return Entry(name=name, cost=cost, node_nm=numbers.get("node_nm"),
                 supply_v=numbers.get("supply_v"), **texts)


def read_entries(where: str, tree: Mapping[str, object], prefix: str = "") -> dict[str, Entry]:
    """Entries of a parsed TOML tree: every table that holds a ``value``, ``unit`` or ``source``.

    Parameters
    ----------
    where : str
        File name for error messages.
    tree : mapping
        Parsed TOML; everything in it must be a table.
    prefix : str
        Dotted key of `tree`.

    Raises
    ------
    ValueError
        If an entry is malformed; the message names file and field.
    """
    entries = dict[str, Entry]()
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if not isinstance(value, Mapping):
            raise ValueError(f"{where}: {name} must be a table, not {value!r}")
        if any(required in value for required in _REQUIRED):
            entries[name] = _read_entry(where, name, value)
        else:
            entries |= read_entries(where, value, f"{name}.")
    return entries


@dataclass(frozen=True, kw_only=True, eq=False)
class SramTable:
    """CACTI results over node, size and width, interpolated in the logarithms.

    Parameters
    ----------
    points : dict
        (node_nm, size_bytes, width_bits) -> read pJ, write pJ, area um^2, leakage uW, and the
        leakage of the leakiest cells that the macro may be made of.
    energy_model, area_model : Sourced
        Dimensionless factors whose intervals say how far CACTI is from other cells and from
        foundry macros.
    interpolation, width_interpolation : float
        Relative error of interpolating over sizes and over widths, at least
        `interpolation_error`.
    source : str
        Tool, version and configuration.

    Notes
    -----
    One read-write port, one bank. Logarithm of the cost, linear in the logarithms of size and
    width; no extrapolation. At a node that the table does not hold, the nearest one (in the
    logarithm) is used and scaled as logic; leakage is not scaled.
    """

    points: Mapping[tuple[int, int, int], tuple[float, float, float, float, float]]
    energy_model: Sourced
    area_model: Sourced
    interpolation: float
    width_interpolation: float
    source: str

    @property
    def nodes_nm(self) -> tuple[int, ...]:
        """Nodes of the table, smallest first."""
        return tuple(sorted({node for node, _, _ in self.points}))

    def _corners(self, number: int, grid: list[int], what: str) -> list[tuple[int, float]]:
        """Neighbours in `grid` and their weights."""
        if not grid[0] <= number <= grid[-1]:
            raise ValueError(f"{what} must be {grid[0]} to {grid[-1]}, not {number!r}")
        if number in grid:
            return [(number, 1.0)]
        below, above = next(pair for pair in pairwise(grid) if pair[0] < number < pair[1])
        share = math.log(number / below) / math.log(above / below)
        return [(below, 1.0 - share), (above, share)]

    def cost(self, what: str, *, size_bytes: int, width_bits: int, node_nm: float) -> Sourced:
        """Energy of one access, area or leakage of one macro.

        Parameters
        ----------
        what : str
            ``read`` or ``write`` (pJ), ``area`` (um^2) or ``leakage`` (uW).
        size_bytes, width_bits : int
            Capacity and port width, inside the table.
        node_nm : float
            A node of :attr:`nodes_nm`.

        Raises
        ------
        ValueError
            If size, width or node are outside the table, or the macro has too few rows.
        """
        if node_nm not in self.nodes_nm:
            raise ValueError(f"SRAM node must be one of {self.nodes_nm}, not {node_nm!r}")
        column = ("read", "write", "area", "leakage").index(what)
        sizes = self._corners(size_bytes, self._grid(1), "SRAM size in bytes")
        widths = self._corners(width_bits, self._grid(2), "SRAM width in bits")
        # The last column is the upper end of the leakage.
        logarithm, leaky = 0.0, 0.0
        for size, size_share in sizes:
            for width, width_share in widths:
                try:
                    point = self.points[int(node_nm), size, width]
                except KeyError:
                    raise ValueError(
                        f"SRAM of {width} bits must be larger than {size} bytes: "
                        "CACTI finds no organisation; count it as registers") from None
                logarithm += size_share * width_share * math.log(point[column])
                leaky += size_share * width_share * math.log(point[-1])
        value = math.exp(logarithm)
        spread = (1.0 + self.interpolation * (len(sizes) > 1)) * (
            1.0 + self.width_interpolation * (len(widths) > 1))
        if what == "leakage":
            return Sourced(value, "uW", self.source, value / spread, math.exp(leaky) * spread)
        unit, model = ("um^2", self.area_model) if what == "area" else ("pJ", self.energy_model)
        return Sourced(value, unit, self.source, value / spread, value * spread) * model

    def _grid(self, axis: int) -> list[int]:
        """Sizes (1) or widths (2) of the table, smallest first."""
        return sorted({key[axis] for key in self.points})

    def interpolation_error(self, axis: int = 1) -> float:
        """Largest relative error of any figure over inner points of an axis, each left out in turn.

        Parameters
        ----------
        axis : int
            1 for sizes, 2 for widths.
        """
        worst = 0.0
        grid = self._grid(axis)
        for key, point in self.points.items():
            index = grid.index(key[axis])
            if not 0 < index < len(grid) - 1:
                continue
            below, at, above = grid[index - 1:index + 2]
            node, size, width = key
            first, second = (self.points.get(
                (node, end, width) if axis == 1 else (node, size, end)) for end in (below, above))
            if first is None or second is None:
                continue
            share = math.log(at / below) / math.log(above / below)
            for low, high, figure in zip(first, second, point, strict=True):
                guess = low ** (1 - share) * high**share
                worst = max(worst, guess / figure - 1, figure / guess - 1)
        return worst


#: Supplies at which a scaling rule must hold: those of ``scaling.supply``.
_SUPPLY_RANGE_V = (0.8, 1.0)
#: The scaling rule's tables.
_FAMILIES = ("energy_hp", "energy_lp", "delay_hp", "delay_lp", "area")
#: Coefficients by family and node.
_Families = dict[str, dict[float, list[float]]]


def _read_sram(where: str, tree: Mapping[str, object]) -> SramTable:
    """The ``sram`` table: ``points`` rows of node, size, width and what a macro costs."""
    if not isinstance(tree, Mapping):
        raise ValueError(f"{where}: sram must be a table, not {tree!r}")
    for key in ("points", "energy_model", "area_model", "interpolation", "source"):
        if key not in tree:
            raise ValueError(f"{where}: sram.{key} is missing: every SRAM table states it")
    models = read_entries(
        where, {key: tree[key] for key in ("energy_model", "area_model")}, "sram.")
    errors = list[float]()
    for key in ("interpolation", "width_interpolation"):
        error = tree.get(key, tree["interpolation"])
        if not isinstance(error, int | float) or not 0 <= error < 10:
            raise ValueError(f"{where}: sram.{key} must be a relative error, not {error!r}")
        errors.append(float(error))
    points = dict[tuple[int, int, int], tuple[float, float, float, float, float]]()
    rows: npt.NDArray[np.float64] = np.empty((0, 0))
    with contextlib.suppress(TypeError, ValueError):
        rows = np.array(tree["points"], dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] != 8 or not np.all(np.isfinite(rows) & (rows > 0)):
        raise ValueError(
            f"{where}: sram.points must be rows of eight positive numbers (node, size, width, "
            "read, write, area, leakage, its upper end)")
    for node, size, width, *figures in rows.tolist():
        key = (int(node), int(size), int(width))
        if key in points:
            raise ValueError(f"{where}: sram.points must hold each macro once, not {key} twice")
        read, write, area, leakage, leaky = figures
        if leaky < leakage:
            raise ValueError(f"{where}: sram.points of {key} must have an upper end of the leakage "
                             f"of at least {leakage:g}, not {leaky:g}")
        points[key] = (read, write, area, leakage, leaky)
    table = SramTable(points=points, energy_model=models["sram.energy_model"].cost,
                      area_model=models["sram.area_model"].cost,
                      interpolation=errors[0], width_interpolation=errors[1],
                      source=str(tree["source"]))
    for axis, key in ((1, "interpolation"), (2, "width_interpolation")):
        if errors[axis - 1] < (least := table.interpolation_error(axis)):
            raise ValueError(
                f"{where}: sram.{key} must be at least {least:.3g}, the error at its own points, "
                f"not {errors[axis - 1]!r}")
    return table


def _read_scaling(where: str, tree: Mapping[str, Mapping[str, list[float]]]) -> _Families:
    """Node tables of the scaling rule: family -> node_nm -> coefficients."""
    families: _Families = {}
    lowest, highest = _SUPPLY_RANGE_V
    for family, table in tree.items():
        try:
            families[family] = {float(node): [float(number) for number in numbers]
                                for node, numbers in table.items()}
        except (AttributeError, TypeError, ValueError):
            raise ValueError(
                f"{where}: scaling.{family} must be node -> coefficients, not {table!r}") from None
        terms = {"area": 1, "energy": 3, "delay": 4}[family.partition("_")[0]]
        for node, numbers in families[family].items():
            factors = np.polyval(numbers, np.linspace(lowest, highest, 9))
            if node <= 0 or len(numbers) != terms or not np.all(factors > 0):
                raise ValueError(
                    f"{where}: scaling.{family} of {node:g} nm must be {terms} coefficient(s) of a "
                    f"factor above zero at {lowest:g} to {highest:g} V, not {numbers!r}")
    return families


_MULTIPLY = re.compile(r"multiply_(\d+)x(\d+)")
_ADD = re.compile(r"add_(\d+)")
_SHIFT = re.compile(r"shift_(\d+)")
_SRAM_EVENT = re.compile(r"sram_(read|write|leakage)_(\d+)b_(\d+)(B|KiB|MiB)")
_SRAM_ITEM = re.compile(r"sram_(\d+)b_(\d+)(B|KiB|MiB)")
_DRAM = re.compile(r"dram_(read|write)_byte")
_BYTES = {"B": 1, "KiB": 1024, "MiB": 1024**2}


def _is_event(name: str, entries: Mapping[str, Entry]) -> bool:
    """Whether an event of this name has a cost, or may have one of its own."""
    if any(form.fullmatch(name) for form in (_MULTIPLY, _ADD, _SHIFT, _SRAM_EVENT, _DRAM)):
        return True
    block, _, what = name.partition("_")
    return any(key.startswith("measured.") and key.endswith(f".{block}.{what}") for key in entries)


def _check_replacements(
    where: str, added: Mapping[str, Entry], entries: Mapping[str, Entry]
) -> None:
    """That a user's entries replace something, in its dimension, or are costs that are looked up.

    A misspelt name would leave the committed cost in place without a word.
    """
    for name, entry in added.items():
        exponents = _parse_unit(entry.cost.unit)[1]
        kind, _, rest = name.partition(".")
        if name in entries:
            wanted = [entries[name].cost.unit]
            if kind == "scaling" and entries[name].node_nm is not None and entry.node_nm is None:
                raise ValueError(f"{where}: {name}.node_nm is missing: the step ends there")
        elif kind == "energy":
            # An event, the leakage of a unit whose area is known, or what a bit costs in a DRAM of
            # this name.
            unit = rest.removesuffix("_leakage")
            leaks = unit != rest and f"area.{unit}" in {*entries, *added}
            wanted = ["pJ"] if leaks or _is_event(rest, entries) else ["pJ/bit"]
        elif kind == "area":
            wanted = ["um^2"]
        elif kind == "measured":
            continue
        else:
            wanted = []
        if not any(_parse_unit(unit)[1] == exponents for unit in wanted):
            if name in entries or (wanted and wanted != ["pJ/bit"]):
                raise ValueError(
                    f"{where}: {name}.unit must be one of {wanted[0]}, not {entry.cost.unit!r}")
            known = [key for key in entries if not key.startswith("measured.")]
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise ValueError(f"{where}: {name} is the cost of nothing: did you mean {near!r}?")


def _times(cost: Sourced, factor: int, unit: str) -> Sourced:
    """A law's cost times a width, with the law's source."""
    return replace(cost * Sourced.exact(factor, unit, cost.source), source=cost.source)


def _levels(bits: int) -> int:
    """Multiplexers per bit of a barrel shifter."""
    return max(1, math.ceil(math.log2(bits)))


@dataclass(frozen=True, kw_only=True, eq=False)
class CostTable:
    """Costs of events and items at any node.

    Parameters
    ----------
    entries : mapping
        Dotted key -> entry.
    sram : SramTable
        Macros.
    scaling : mapping
        Coefficients of the scaling rule by family and node.
    libraries : tuple of str
        Libraries with measured energies; the last one is in use.

    Notes
    -----
    Nodes: polynomials in the supply voltage for energy and delay and factors for area, from
    Stillmaker and Baas (2017), interpolated in the logarithm of the node between the published
    ones.
    """

    entries: Mapping[str, Entry]
    sram: SramTable
    scaling: Mapping[str, Mapping[float, list[float]]] = field(repr=False)
    libraries: tuple[str, ...] = ()
    # What was looked up and scaled before: a table does not change, and a sweep asks it for the
    # same events at every point.
    _known: dict[tuple[object, ...], Sourced] = field(
        default_factory=dict, init=False, repr=False)

    @classmethod
    def load(cls, *paths: Path) -> Self:
        """The committed tables, then `paths` on top, entry by entry.

        Raises
        ------
        ValueError
            If a file is not there or no TOML, or an entry in it is malformed, has the unit of
            another cost than the one it replaces, or is the cost of nothing.
        """
        entries = dict[str, Entry]()
        sram: SramTable | None = None
        scaling: _Families = {}
        libraries = dict[str, None]()
        folder = files("splatforge.sim")
        committed = ["costs.toml", "sram.toml", "paths.toml"]
        for name in LIBRARIES:
            own = (f"energy_{design}_{name}.toml" for design in _OWN_MEASURED)
            committed += [f"energy_{name}.toml", *(
                each for each in own if folder.joinpath(each).is_file())]
        sources = [(name, folder.joinpath(name).read_bytes()) for name in committed]
        for path in paths:
            check_regular_file(path, "TOML")
        users = {str(path) for path in paths}
        sources += [(str(path), path.read_bytes()) for path in paths]
        for where, content in sources:
            try:
                tree = tomllib.loads(content.decode())
            except ValueError as error:
                raise ValueError(f"{where}: not TOML: {error}") from None
            if "sram" in tree:
                sram = _read_sram(where, tree.pop("sram"))
            if isinstance(rule := tree.get("scaling"), dict):
                tables = {key: rule.pop(key) for key in _FAMILIES if key in rule}
                scaling |= _read_scaling(where, tables)
            tree.pop("rtl", None)  # what a table was measured from: of no cost
            for name in tree.get("measured", {}):
                libraries.pop(name, None)  # a later file's library is the one in use
                libraries[name] = None
            added = read_entries(where, tree)
            if where in users:
                _check_replacements(where, added, entries)
            entries |= added
        assert sram is not None  # the committed files hold one
        return cls(entries=entries, sram=sram, scaling=scaling, libraries=tuple(libraries))

    def entry(self, name: str) -> Entry:
        """The entry of a dotted key.

        Raises
        ------
        ValueError
            If the table has none: a cost without a source is not made up.
        """
        try:
            return self.entries[name]
        except KeyError:
            raise ValueError(f"Cost {name!r} must be in the table: add a sourced entry") from None

    def _node_factor(self, family: str, node_nm: float, volts: float) -> float:
        """Energy, delay or area factor of a node, interpolated in its logarithm."""
        table = self.scaling[family]
        nodes = sorted(table)
        if not nodes[0] <= node_nm <= nodes[-1]:
            raise ValueError(f"Node must be {nodes[0]:g} to {nodes[-1]:g} nm, not {node_nm!r}")
        logs = [math.log(float(np.polyval(table[node], volts))) for node in nodes]
        return math.exp(float(np.interp(math.log(node_nm), np.log(nodes), logs)))

    def _slower(self, node_nm: float) -> str:
        """A word on a node at which the rule has longer delays than at an older one."""
        volts = self.entry("scaling.supply").cost.to("V").value
        here = self._node_factor("delay_hp", node_nm, volts)
        faster = {node: factor for node in self.scaling["delay_hp"] if node > node_nm
                  and (factor := self._node_factor("delay_hp", node, volts)) < here}
        if not faster:
            return ""
        node = min(faster, key=faster.__getitem__)
        return (f", whose fits have logic at {node_nm:g} nm {two_digits(here / faster[node])} "
                f"times as slow as at {node:g} nm")

    def scale(
        self, quantity: str, from_nm: float, to_nm: float, *, supply_v: float | None = None
    ) -> Sourced:
        """Factor on a logic cost, or on a delay, between nodes.

        Parameters
        ----------
        quantity : str
            ``energy``, ``delay`` or ``area``.
        from_nm, to_nm : float
            Nodes, 7 to 130.
        supply_v : float, optional
            Supply at which an energy or a delay holds at `from_nm`; by default that of the other
            side.

        Returns
        -------
        Sourced
            Dimensionless. 1 without spread if the nodes are equal and no supply is given.

        Notes
        -----
        Energy and delay: high-performance family, at ``scaling.supply``. Where the supply of the
        cost is not known it is taken to be the same, so that no credit is taken for a lower one.
        The interval spans both families over the interval of the supply, widened by what the rule
        missed on one measured pair of libraries (``scaling.check_energy`` and so on), in proportion
        to the distance.

        The published fits of delay are not monotone: those of 20 nm, the first with fins, are
        slower at 0.9 V, the nominal supply there and at 32 nm, than those of 32 nm. They are used
        as they are, since a faster clock would be nobody's; the source of what is slower than at an
        older node says so.
        """
        if quantity not in ("energy", "delay", "area"):
            raise ValueError(f"Scaled quantity must be energy, delay or area, not {quantity!r}")
        source = self.entry(f"scaling.check_{quantity}").cost.source
        if from_nm == to_nm and supply_v is None:
            return Sourced.exact(1.0, "1", source)
        supply = self.entry("scaling.supply").cost.to("V")
        families = ("area",) if quantity == "area" else (f"{quantity}_hp", f"{quantity}_lp")
        ratios = {(family, volts): self._node_factor(family, to_nm, volts)
                  / self._node_factor(family, from_nm, supply_v or volts)
                  for family in families for volts in (supply.value, supply.low, supply.high)}
        check = self.entry(f"scaling.check_{quantity}")
        assert check.node_nm is not None  # the loader of the committed table is tested for it
        if quantity == "delay" and from_nm > to_nm:
            source += self._slower(to_nm)
        distance = abs(math.log(to_nm / from_nm)) / math.log(130 / check.node_nm)
        value = ratios[families[0], supply.value]
        low = min(ratios.values()) * min(1.0, check.cost.low**distance)
        high = max(ratios.values()) * max(1.0, check.cost.high**distance)
        return Sourced(value, "1", source, low, high)

    def _at(self, entry: Entry, quantity: str, node_nm: float) -> Sourced:
        if entry.node_nm is None or (entry.node_nm == node_nm and entry.supply_v is None):
            return entry.cost
        supply_v = None if quantity == "area" else entry.supply_v
        return entry.cost * self.scale(quantity, entry.node_nm, node_nm, supply_v=supply_v)

    def measured(self, block: str, what: str) -> Entry:
        """What the library in use says of a measured block.

        Parameters
        ----------
        block : str
            ``alpha``, ``blend``, ``array``, ``fetch``, ``resolve`` or ``registers``, or a unit.
        what : str
            ``flip_flops``, ``instances``, or the rest of a measured event's name.

        Raises
        ------
        ValueError
            If it does not say so.
        """
        return self.entry(f"measured.{self.libraries[-1]}.{block}.{what}")

    def is_measured(self, block: str) -> bool:
        """Whether the library in use says something of a block."""
        return f"measured.{self.libraries[-1]}.{block}.flip_flops" in self.entries

    def _measured(self, event: str, node_nm: float) -> Sourced | None:
        """Cost of a measured event, its interval over all libraries; None if there is none."""
        block, _, what = event.partition("_")
        entries = [entry for library in self.libraries
                   if (entry := self.entries.get(f"measured.{library}.{block}.{what}"))]
        if not entries:
            return None
        costs = [(entry.cost if what == "leakage" else self._at(entry, "energy", node_nm)).to("pJ")
                 for entry in entries]
        best = costs[-1]
        return replace(best, low=min(best.low, *(cost.value for cost in costs)),
                       high=max(best.high, *(cost.value for cost in costs)))

    def is_timed(self, design: str) -> bool:
        """Whether critical paths of a design's units are known."""
        return any(key.startswith(f"path.{design}.") for key in self.entries)

    def clock(self, design: str, *, node_nm: float) -> Sourced:
        """The clock in Hz that synthesis of a design's units supports: that of the slowest.

        The units are those of the design's default parameters, which were mapped.

        Parameters
        ----------
        design : str
            Its name.
        node_nm : float
            Process node, 7 to 130.

        Raises
        ------
        ValueError
            If no critical path of the design's units is known.
        """
        key = "clock", design, node_nm
        if key not in self._known:
            self._known[key] = self._clock(design, node_nm)
        return self._known[key]

    def _clock(self, design: str, node_nm: float) -> Sourced:
        start = f"path.{design}."
        paths = {key: entry for key, entry in self.entries.items() if key.startswith(start)}
        if not paths:
            raise ValueError(f"Critical paths of {design} must be in the table: bench/paths.py")
        slowest, entry = max(paths.items(), key=lambda each: each[1].cost.to("s").value)
        source = (f"critical path of {slowest.removeprefix(start)}, {entry.cost}, of "
                  f"{entry.cost.source}, brought to {node_nm:g} nm by "
                  f"{self.entry('scaling.check_delay').cost.source}{self._slower(node_nm)}")
        delay = replace(self._at(entry, "delay", node_nm), source=source)
        return (Sourced.exact(1.0, "1", source) / delay).to("Hz")

    def _sram(self, what: str, bits: str, number: str, unit: str, node_nm: float) -> Sourced:
        nodes = self.sram.nodes_nm
        nearest = min(nodes, key=lambda node: abs(math.log(node / node_nm)))
        cost = self.sram.cost(what, size_bytes=int(number) * _BYTES[unit], width_bits=int(bits),
                              node_nm=nearest)
        if what == "leakage":
            return _times(cost, 1, "us")
        if nearest == node_nm:
            return cost
        return cost * self.scale("area" if what == "area" else "energy", nearest, node_nm)

    def energy_of(self, event: str, *, node_nm: float, dram: str = "lpddr4") -> Sourced:
        """Energy of one event in pJ.

        Parameters
        ----------
        event : str
            A name of the vocabulary above.
        node_nm : float
            Process node of the logic and the SRAM, 7 to 130.
        dram : str
            Entry ``energy.<dram>`` that DRAM bytes cost.

        Raises
        ------
        ValueError
            If the event is not of the vocabulary, or a width is zero.
        """
        key = "energy", event, node_nm, dram
        if key not in self._known:
            self._known[key] = self._energy_of(event, node_nm, dram)
        return self._known[key]

    def _energy_of(self, event: str, node_nm: float, dram: str) -> Sourced:
        exact = self.entries.get(f"energy.{event}")
        if exact is not None:
            return self._at(exact, "energy", node_nm).to("pJ")
        if (measured := self._measured(event, node_nm)) is not None:
            return measured
        if match := _DRAM.fullmatch(event):
            return _times(self.entry(f"energy.{dram}").cost, 1, "B").to("pJ")
        if match := _SRAM_EVENT.fullmatch(event):
            return self._sram(*match.groups(), node_nm=node_nm).to("pJ")
        return self._law(event, "energy", node_nm).to("pJ")

    def area_of(self, item: str, *, node_nm: float) -> Sourced:
        """Area of one instance in um^2.

        Parameters
        ----------
        item : str
            A name of the vocabulary above.
        node_nm : float
            Process node, 7 to 130.

        Raises
        ------
        ValueError
            If the item is not of the vocabulary, or a width is zero.
        """
        key = "area", item, node_nm
        if key not in self._known:
            self._known[key] = self._area_of(item, node_nm)
        return self._known[key]

    def _area_of(self, item: str, node_nm: float) -> Sourced:
        exact = self.entries.get(f"area.{item}")
        if exact is not None:
            return self._at(exact, "area", node_nm).to("um^2")
        if match := _SRAM_ITEM.fullmatch(item):
            return self._sram("area", *match.groups(), node_nm=node_nm).to("um^2")
        return self._law(item, "area", node_nm).to("um^2")

    def _law(self, name: str, quantity: str, node_nm: float) -> Sourced:
        if match := _MULTIPLY.fullmatch(name):
            law, factor, unit = "multiply", int(match[1]) * int(match[2]), "bit^2"
        elif match := _ADD.fullmatch(name):
            law, factor, unit = "add", int(match[1]), "bit"
        elif match := _SHIFT.fullmatch(name):
            law, factor, unit = "shift", int(match[1]) * _levels(max(1, int(match[1]))), "bit"
        else:
            known = ("multiply_18x14", "add_20", "shift_16", "register_bit_clock",
                     "register_bit", "sram_read_128b_4KiB", "sram_write_128b_4KiB",
                     "sram_128b_4KiB", "dram_read_byte", "dram_write_byte")
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise ValueError(f"{quantity.capitalize()} name must be of the form {near!r}, "
                             f"not {name!r}")
        if factor == 0:
            raise ValueError(f"Widths must be at least 1 bit, not {name!r}")
        cost = self._at(self.entry(f"{quantity}.{law}"), quantity, node_nm)
        return _times(cost, factor, unit)


@cache
def default_costs() -> CostTable:
    """The committed tables."""
    return CostTable.load()

"""A graph of operations on few units, over and over: which does what in which cycle.

A new evaluation of the graph, a sample, may begin every `interval` cycles: each unit then does up
to `interval` different operations in turn, and all of them again for the next sample. That is
modulo scheduling (B. R. Rau, "Iterative Modulo Scheduling", MICRO-27, 1994) without recurrences,
where a schedule always exists. :class:`splatforge.hw.lib.folded.Folded` is built from the schedule,
and its cycle model knows the latency from it.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from splatforge.algos.dataflow import Dataflow
from splatforge.designs.fixed import Fixed
from splatforge.designs.floating import BINARY32, Floating

__all__ = [
    "LATENCY", "OPERAND_LATENCY", "READ_LATENCY", "RESULT_LATENCY", "Operand", "Output", "Placed",
    "Register", "Schedule", "Sign", "Source", "Unit", "schedule"]

#: Cycles from operands to result of each kind of unit, see :mod:`splatforge.hw.lib.floating`.
LATENCY = {"multiply": 3, "add": 7, "compare": 2, "reciprocal": 7, "wide_multiply": 4,
           "wide_add": 7, "narrow": 1, "to_fixed": 6, "log2": 7}
#: Cycles in front of a unit: its operands are chosen into registers.
OPERAND_LATENCY = 1
#: Cycles from the address of a beat of the record to its words.
READ_LATENCY = 2
#: Cycles from the last of a graph to that in which its results can transfer.
RESULT_LATENCY = 4

#: The kind of unit that does a kind of operation; what has none is done where a value is used.
_UNIT = {
    "multiply": "multiply", "add": "add", "subtract": "add",
    "minimum": "compare", "maximum": "compare", "select": "compare",
    "reciprocal": "reciprocal", "reciprocal_root": "reciprocal",
    "wide_multiply": "wide_multiply", "wide_add": "wide_add", "wide_subtract": "wide_add",
    "narrow": "narrow",
    "to_fixed": "to_fixed", "ceil_fixed": "to_fixed", "log2": "log2",
}


class Sign(IntEnum):
    """What happens to the sign of a word where it is used."""

    KEPT = 0
    TURNED = 1
    CLEARED = 2
    SET = 3


class Source(NamedTuple):
    """Where a value is to be had in a cycle.

    `kind` is ``unit``, ``register`` or ``read`` (a beat of the record, out of its buffer) with the
    number of the unit, the register or the beat's lane; ``constant`` with its place among the
    graph's constants; or ``word`` with the word itself.
    """

    kind: str
    number: int


class Operand(NamedTuple):
    """A value where it is used."""

    source: Source
    sign: Sign


@dataclass(frozen=True, kw_only=True)
class Placed:
    """An operation on its unit.

    Parameters
    ----------
    kind : str
        One of :data:`splatforge.algos.dataflow.KINDS`.
    cycle : int
        In which its operands are chosen, counted from the sample's beginning.
    operands : tuple of Operand
        They; the word that decides is the last of ``select``.
    to : Fixed, optional
        Format of a raw integer.
    """

    kind: str
    cycle: int
    operands: tuple[Operand, ...]
    to: Fixed | None = None


class Output(NamedTuple):
    """A result: its name, the value, its format unless it is a word, and whether it is wide."""

    name: str
    operand: Operand
    to: Fixed | None
    wide: bool


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A unit and what it does.

    Parameters
    ----------
    kind : str
        A key of :data:`LATENCY`.
    placed : tuple of Placed
        Its operations, no two in the same slot.
    """

    kind: str
    placed: tuple[Placed, ...]


@dataclass(frozen=True, kw_only=True)
class Register:
    """A register that holds values in turn.

    Parameters
    ----------
    width : int
        Its bits.
    loads : tuple of (int, Source)
        At the end of which slot it takes what.
    """

    width: int
    loads: tuple[tuple[int, Source], ...]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """What happens in which cycle of a sample; the cycle modulo `interval` is its slot.

    Parameters
    ----------
    interval : int
        Cycles from sample to sample.
    lanes : int
        Words of a beat of the record.
    finish : int
        The cycle in which all outputs are there at once.
    reads : tuple of int
        For each beat of the record, the cycle in which its words are there, :data:`READ_LATENCY`
        or later; 0 for what nothing needs.
    units : tuple of Unit
        Units.
    registers : tuple of Register
        Registers between them.
    outputs : tuple of Output
        Results in cycle `finish`.
    """

    interval: int
    lanes: int
    finish: int
    reads: tuple[int, ...]
    units: tuple[Unit, ...]
    registers: tuple[Register, ...]
    outputs: tuple[Output, ...]

    @property
    def last_read(self) -> int:
        """Cycle in which the last beat of the record is addressed."""
        return max(self.reads) - READ_LATENCY

    @property
    def under_way(self) -> int:
        """Records between their first cycle and the transfer of their results, at most.

        Enough that none waits for room when results are taken as they come, and one more.
        """
        return (self.finish + RESULT_LATENCY) // self.interval + 2

    @property
    def register_bits(self) -> int:
        """Bits of all registers between units."""
        return sum(register.width for register in self.registers)

    @property
    def choices(self) -> int:
        """Inputs of all multiplexers in front of operands and registers."""
        operands: dict[tuple[int, int], set[Source]] = defaultdict(set)
        for number, unit in enumerate(self.units):
            for placed in unit.placed:
                for n, operand in enumerate(placed.operands):
                    operands[number, n].add(operand.source)
        return sum(map(len, operands.values())) + sum(
            len({source for _, source in register.loads}) for register in self.registers)


class _Graph:
    """A graph with what costs nothing taken out of it: signs are of operands, not of values."""

    def __init__(self, flow: Dataflow, fmt: Floating, record: Sequence[str]) -> None:
        self.kind = {o.name: o.kind for o in flow.operations if o.kind in _UNIT}
        self.free = {o.name: o for o in flow.operations if o.kind not in _UNIT}
        literals = dict(flow.literals)
        #: Values that are there all the time.
        self.still = {name: Source("constant", n) for n, name in enumerate(flow.constants)}
        self.still |= {
            name: Source("word", int((BINARY32 if name in flow.wide else fmt).quantize(number)))
            for name, number in literals.items()}
        #: Operands of every operation.
        self.operands: dict[str, list[tuple[str, Sign]]] = {}
        for operation in flow.operations:
            if operation.kind not in _UNIT:
                continue
            operands = [self._resolved(operand) for operand in operation.operands]
            if operation.kind in ("subtract", "wide_subtract"):
                value, sign = operands[1]
                operands[1] = value, Sign(sign ^ Sign.TURNED)
            if operation.kind == "select":
                operands = [*operands[1:], operands[0]]
            self.operands[operation.name] = operands
        self.outputs = {name: self._resolved(value) for name, value in flow.outputs}
        self.to = {o.name: o.to for o in flow.operations if o.to}
        used = {value for value, _ in self.outputs.values()}
        for name in reversed(self.kind):
            if name in used:
                used.update(value for value, _ in self.operands[name])
        self.kind = {name: kind for name, kind in self.kind.items() if name in used}
        self.operands = {name: self.operands[name] for name in self.kind}
        #: Place in the record of every word that is needed.
        self.inputs = {name: place for place, name in enumerate(record) if name in used}
        #: Values that move, in an order in which they come to be.
        self.moving = [*self.inputs, *self.kind]
        self.wide = flow.wide_values
        self.width = {name: BINARY32.width if name in self.wide else fmt.width
                      for name in self.moving}
        self.width |= {name: to.width for name, to in self.to.items()}

    def _resolved(self, name: str) -> tuple[str, Sign]:
        """The value behind negations and magnitudes, and its sign."""
        if name not in self.free:
            return name, Sign.KEPT
        value, sign = self._resolved(self.free[name].operands[0])
        if self.free[name].kind == "negate":
            return value, Sign(sign ^ Sign.TURNED)
        return value, Sign.CLEARED


class _Search:
    """Cycles of operations and of beats: first all as late as can be, then better ones.

    Time runs backward from 0, in which the outputs are there. An item is an operation, by its name,
    or a beat of the record, by its number, whose unit is the buffer that it is read from.
    """

    def __init__(self, graph: _Graph, interval: int, lanes: int) -> None:
        self.graph, self.interval = graph, interval
        self.item: dict[str, str | int] = {
            **{name: place // lanes for name, place in graph.inputs.items()},
            **{name: name for name in graph.kind}}
        #: Values that an item makes, those that it takes, and the items that take a value.
        self.makes: dict[str | int, list[str]] = defaultdict(list)
        for value, item in self.item.items():
            self.makes[item].append(value)
        #: Items in an order in which they can be carried out.
        self.order = list(self.makes)
        self.takes: dict[str | int, list[str]] = {item: [] for item in self.order}
        self.users: dict[str, list[str | int]] = {value: [] for value in graph.moving}
        for name, operands in graph.operands.items():
            self.takes[name] = list(dict.fromkeys(
                value for value, _ in operands if value in self.item))
            for value in self.takes[name]:
                self.users[value].append(name)
        self.outputs = {value for value, _ in graph.outputs.values()}
        self.kind = {item: "read" if isinstance(item, int) else _UNIT[graph.kind[item]]
                     for item in self.order}
        self.wait = {item: 0 if kind == "read" else OPERAND_LATENCY + LATENCY[kind]
                     for item, kind in self.kind.items()}
        kinds = list(self.kind.values())
        if kinds.count("read") > interval:
            raise ValueError(f"Interval must be at least {kinds.count('read')}, the beats of a "
                             f"record, not {interval}")
        self.units = {kind: -(-kinds.count(kind) // interval) for kind in dict.fromkeys(kinds)}
        self.cycle: dict[str | int, int] = {}
        self.load: dict[tuple[str, int], int] = defaultdict(int)
        self._all_late()
        self._improve()

    def born(self, value: str) -> int:
        """Cycle in which a value is at its unit's output."""
        item = self.item[value]
        return self.cycle[item] + self.wait[item]

    def dies(self, value: str) -> int:
        """Cycle in which a value is used last."""
        uses = [self.cycle[user] for user in self.users[value]]
        return max([*uses, 0] if value in self.outputs else uses)

    def _latest(self, item: str | int) -> int:
        """Last cycle in which the item serves everyone in time."""
        ends = [self.cycle[user] for value in self.makes[item] for user in self.users[value]]
        if any(value in self.outputs for value in self.makes[item]):
            ends.append(0)
        return min(ends) - self.wait[item]

    def _earliest(self, item: str | int) -> int:
        """First cycle in which all that the item takes is there."""
        return max((self.born(value) for value in self.takes[item]), default=self.first)

    def _is_free(self, item: str | int, cycle: int) -> bool:
        kind = self.kind[item]
        return self.load[kind, cycle % self.interval] < self.units[kind]

    def _put(self, item: str | int, cycle: int) -> None:
        self.cycle[item] = cycle
        self.load[self.kind[item], cycle % self.interval] += 1

    def _lift(self, item: str | int) -> None:
        self.load[self.kind[item], self.cycle[item] % self.interval] -= 1

    def _bits(self, item: str | int, cycle: int) -> int:
        """Bits times cycles that registers hold around an item if it is in `cycle`."""
        was, self.cycle[item] = self.cycle[item], cycle
        total = sum(self.graph.width[value] * (self.dies(value) - self.born(value))
                    for value in (*self.makes[item], *self.takes[item]))
        self.cycle[item] = was
        return total

    def _all_late(self) -> None:
        """Everything as late as can be, what is farthest from the record first."""
        depth: dict[str | int, int] = {}
        for item in self.order:
            depth[item] = self.wait[item] + max(
                (depth[self.item[value]] for value in self.takes[item]), default=0)
        place = {item: n for n, item in enumerate(self.order)}
        for item in sorted(self.order, key=lambda item: (depth[item], place[item]), reverse=True):
            cycle = self._latest(item)
            while not self._is_free(item, cycle):
                cycle -= 1
            self._put(item, cycle)
        self.first = min(self.cycle.values())

    def _improve(self) -> None:
        """Move single items for as long as that saves registers; the total time stays."""
        better = True
        while better:
            better = False
            for item in self.order:
                best = now = self.cycle[item]
                least = self._bits(item, now)
                for cycle in range(self._earliest(item), self._latest(item) + 1):
                    if cycle != now and self._is_free(item, cycle):
                        bits = self._bits(item, cycle)
                        if bits < least:
                            best, least = cycle, bits
                if best != now:
                    self._lift(item)
                    self._put(item, best)
                    better = True


def _spans(born: int, dies: int, interval: int) -> Iterator[tuple[int, int]]:
    """Parts of a value's life, each from a load at its first cycle, none longer than a round."""
    while born < dies:
        yield born, min(dies, born + interval)
        born += interval


def _color(arcs: list[tuple[int, int]], interval: int) -> list[int]:
    """Registers for arcs (first cycle, last cycle) around a round, few of them: first fit.

    An arc takes the slots behind its first cycle up to its last. Those that cross the emptiest slot
    come first, each in a register of its own; the others follow in the order of their beginning.
    """
    cover = [0] * interval
    for first, last in arcs:
        for cycle in range(first + 1, last + 1):
            cover[cycle % interval] += 1
    cut = cover.index(min(cover))
    turned = []
    for first, last in arcs:
        begin = (first + 1 - cut) % interval
        turned.append((begin, begin + last - first))
    taken: list[int] = []
    colors = [0] * len(arcs)
    for number in sorted(range(len(arcs)), key=lambda n: (
            turned[n][1] <= interval, turned[n][0], -turned[n][1])):
        mask = 0
        for slot in range(*turned[number]):
            mask |= 1 << slot % interval
        color = next((color for color, busy in enumerate(taken) if not busy & mask), len(taken))
        if color == len(taken):
            taken.append(0)
        taken[color] |= mask
        colors[number] = color
    return colors


class _Binding:
    """Registers for values, units for operations, and where every operand comes from."""

    def __init__(self, graph: _Graph, search: _Search, lanes: int) -> None:
        self.graph, self.lanes, self.interval = graph, lanes, search.interval
        # The first beat is addressed in cycle 0.
        self.finish = READ_LATENCY - min(search.cycle.values())
        self.cycle = {item: cycle + self.finish for item, cycle in search.cycle.items()}
        self.life = {value: (search.born(value) + self.finish, search.dies(value) + self.finish)
                     for value in graph.moving}
        self.where: dict[tuple[str, int], int] = {}
        self.widths: list[int] = []
        self._registers()
        self.unit_of: dict[str, int] = {}
        self.units: list[tuple[str, list[str]]] = []
        self._bind(search)

    def _registers(self) -> None:
        parts: dict[int, list[tuple[tuple[str, int], tuple[int, int]]]] = defaultdict(list)
        for value, life in self.life.items():
            for number, span in enumerate(_spans(*life, self.interval)):
                parts[self.graph.width[value]].append(((value, number), span))
        for width in sorted(parts):
            colors = _color([span for _, span in parts[width]], self.interval)
            for (part, _), color in zip(parts[width], colors, strict=True):
                self.where[part] = len(self.widths) + color
            self.widths += [width] * (max(colors) + 1)

    def source(self, value: str, cycle: int) -> Source | None:
        """Where a value is in a cycle; None if straight from a unit that is not known yet."""
        if value in self.graph.still:
            return self.graph.still[value]
        born = self.life[value][0]
        if cycle > born:
            return Source("register", self.where[value, (cycle - born - 1) // self.interval])
        if value in self.graph.inputs:
            return Source("read", self.graph.inputs[value] % self.lanes)
        return Source("unit", self.unit_of[value]) if value in self.unit_of else None

    def _bind(self, search: _Search) -> None:
        """Operations of a slot each to the unit whose multiplexers they widen least."""
        operand_choices: dict[tuple[int, int], set[Source | str]] = defaultdict(set)
        load_choices: dict[int, set[int]] = defaultdict(set)
        by_slot: dict[tuple[str, int], list[str]] = defaultdict(list)
        for name in self.graph.kind:
            by_slot[search.kind[name], self.cycle[name] % self.interval].append(name)
        for kind in LATENCY:
            first = len(self.units)
            self.units += [(kind, []) for _ in range(search.units.get(kind, 0))]
            for slot in range(self.interval):
                free = set(range(first, len(self.units)))
                for name in by_slot[kind, slot]:
                    wants = [self.source(value, self.cycle[name]) or value
                             for value, _ in self.graph.operands[name]]
                    register = self.where.get((name, 0))
                    added = {unit: (
                        sum(want not in operand_choices[unit, n] for n, want in enumerate(wants))
                        + (register is not None and unit not in load_choices[register]), unit)
                        for unit in free}
                    unit = min(free, key=added.__getitem__)
                    free.remove(unit)
                    self.unit_of[name] = unit
                    self.units[unit][1].append(name)
                    for n, want in enumerate(wants):
                        operand_choices[unit, n].add(want)
                    if register is not None:
                        load_choices[register].add(unit)

    def operand(self, value: str, sign: Sign, cycle: int) -> Operand:
        """A value where it is used."""
        source = self.source(value, cycle)
        assert source is not None
        return Operand(source, sign)

    def loads(self) -> list[list[tuple[int, Source]]]:
        """What every register takes at the end of which slot."""
        loads: list[list[tuple[int, Source]]] = [[] for _ in self.widths]
        for (value, number), register in self.where.items():
            cycle = self.life[value][0] + number * self.interval
            loads[register].append(
                (cycle % self.interval, self.operand(value, Sign.KEPT, cycle).source))
        return loads


def schedule(
    flow: Dataflow, fmt: Floating, interval: int, record: Sequence[str], *, lanes: int = 4
) -> Schedule:
    """Place all operations of a graph on as few units as the interval allows.

    Deterministic. First every operation as late as it can be; then single operations move to where
    registers have less to hold. Registers are shared by lifetimes around the round (circular arcs),
    units are chosen so that multiplexers stay narrow.

    Parameters
    ----------
    flow : Dataflow
        What is to be computed.
    fmt : Floating
        Format of the words.
    interval : int
        Cycles from sample to sample.
    record : sequence of str
        Names of the words of a sample's record, all inputs of the graph among them.
    lanes : int
        Words that a beat of the record brings.

    Raises
    ------
    ValueError
        If the interval is shorter than the record, or an input is not in it.
    """
    missing = [name for name in flow.inputs if name not in record]
    if missing:
        raise ValueError(f"Record must hold all inputs of the graph, not all but {missing[0]!r}")
    graph = _Graph(flow, fmt, record)
    search = _Search(graph, interval, lanes)
    bound = _Binding(graph, search, lanes)
    return Schedule(
        interval=interval, lanes=lanes, finish=bound.finish,
        reads=tuple(bound.cycle.get(beat, 0) for beat in range(-(-len(record) // lanes))),
        units=tuple(Unit(kind=kind, placed=tuple(
            Placed(kind=graph.kind[name], cycle=bound.cycle[name], to=graph.to.get(name),
                   operands=tuple(bound.operand(value, sign, bound.cycle[name])
                                  for value, sign in graph.operands[name]))
            for name in names)) for kind, names in bound.units),
        registers=tuple(Register(width=width, loads=tuple(sorted(loads)))
                        for width, loads in zip(bound.widths, bound.loads(), strict=True)),
        outputs=tuple(Output(name, bound.operand(value, sign, bound.finish), graph.to.get(value),
                             value in graph.wide)
                      for name, (value, sign) in graph.outputs.items()))

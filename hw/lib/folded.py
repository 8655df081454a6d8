"""A graph of operations on few units that do others in every cycle, sample after sample."""

from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from amaranth.hdl import *
from amaranth.lib import data, stream
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from splatforge.algos.schedule import (
    READ_LATENCY,
    Operand,
    Placed,
    Schedule,
    Sign,
    Source,
    Unit,
)
from splatforge.designs.fixed import Fixed
from splatforge.designs.floating import BINARY32, Floating
from splatforge.hw.lib.component import Component
from splatforge.hw.lib.fixed import shape_of
from splatforge.hw.lib.floating import (
    Add,
    Compare,
    Log2,
    Multiply,
    Narrow,
    Reciprocal,
    ToFixed,
    WideMultiply,
)

__all__ = ["Folded", "result_layout"]

#: Registers between units that look at the same counter of the round.
REGISTERS_A_COUNTER = 4


def result_layout(plan: Schedule, fmt: Floating) -> data.StructLayout:
    """Results of a schedule by name, words or raw integers."""
    return data.StructLayout({
        output.name: shape_of(output.to) if output.to else unsigned(
            BINARY32.width if output.wide else fmt.width)
        for output in plan.outputs})


def _formats(unit: Unit) -> list[Fixed]:
    """Formats of the conversions of a unit."""
    return list(dict.fromkeys(placed.to for placed in unit.placed if placed.to))


class Folded(Component):
    """Evaluate a graph once every `interval` cycles, as a schedule says.

    Bit-true model: :func:`splatforge.algos.dataflow.evaluate`. Cycle model:
    :mod:`splatforge.sim.folded`.

    Records are buffered beat by beat. One begins in the first cycle of a round of `interval`
    cycles, as soon as all of it is there; its beats leave the buffer where the schedule wants them,
    so that what is needed late waits in a memory and not in registers. A round in which no record
    begins goes through empty. Each unit has registers for its operands, chosen by the slot of the
    round; results that are not used at once wait in shared registers.

    Nothing in it ever waits: a record begins only if there is room for its results, so that no
    signal steers all registers at once. Results go through a queue, out of a memory. While no
    record is in the arithmetic its operands hold: nothing moves but the counters of the round.

    Latency: ``schedule.finish + 4`` cycles from the round's first to that in which the results can
    transfer. Throughput: a record every `interval` cycles. Stall: as long as the results of
    ``schedule.under_way`` records are not taken, none begins. No ``ready``
    depends on an input combinationally.

    Parameters
    ----------
    schedule : Schedule
        What happens when.
    fmt : Floating
        Format of the words.
    constants : int
        Words that are the same for all records.
    depth : int
        Beats that the buffer holds, a power of two.

    Members
    -------
    start : ``In(1)``
        Begin the first round in the next cycle; before it nothing comes.
    beats : ``In(range)``
        Beats of a record; words of beats that it does not have are zero. Holds while records come.
    constants : ``In(ArrayLayout(32, constants))``
        Words of binary32, of which those of `fmt` are the upper bits. Hold while records come.
    i : ``In(stream.Signature(32 * lanes))``
        Beats of records, words from bit 0 upward, as the constants.
    o : ``Out(stream.Signature(StructLayout))``
        Results by name.
    freed : ``Out(1)``
        All beats of a record have left the buffer.
    busy : ``Out(1)``
        A record is under way, up to its results' transfer.
    stalled : ``Out(1)``
        A cycle of a round in which a record would have begun, had there been room for its results.
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, schedule: Schedule, fmt: Floating, constants: int, depth: int) -> None:
        self.schedule, self.fmt, self.depth = schedule, fmt, depth
        self._constants = constants
        super().__init__({
            "start": In(1), "beats": In(range(len(schedule.reads) + 1)),
            "constants": In(data.ArrayLayout(BINARY32.width, constants)),
            "i": In(stream.Signature(BINARY32.width * schedule.lanes)),
            "o": Out(stream.Signature(result_layout(schedule, fmt))),
            "freed": Out(1), "busy": Out(1), "stalled": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        plan = self.schedule
        interval, rounds = plan.interval, plan.finish // plan.interval + 1
        most = plan.under_way
        last = Signal()
        slot = Signal(range(interval))
        # Of the record that began in this round, in the one before, and so on.
        valid = Signal(rounds)
        begin, ready, due = Signal(), Signal(), Signal()
        flying = Signal(range(most + 1))
        room, held = Signal(init=1), Signal()

        def here(cycle: int) -> Value:
            """Whether there is a record whose cycle it is."""
            age, at = divmod(cycle, interval)
            return begin if cycle == 0 else (slot == at) & valid[age]

        m.d.comb += [
            last.eq(slot == interval - 1), due.eq(here(plan.finish)),
            begin.eq(ready & room), self.stalled.eq(Mux(slot == 0, ready & ~room, held)),
            self.busy.eq(flying.any()),
        ]
        words = self._buffer(m, slot, valid, last, ready, here)
        m.d.sync += slot.eq(Mux(last, 0, slot + 1))
        with m.If(slot == 0):
            m.d.sync += [valid[0].eq(begin), held.eq(ready & ~room)]
        with m.If(due):
            m.d.sync += valid[-1].eq(0)
        with m.If(last):
            m.d.sync += valid.eq(Cat(C(0, 1), valid))
        with m.If(self.start):
            m.d.sync += slot.eq(0)

        m.submodules.units = units = _Units(plan, self.fmt, self._constants)
        # A cycle late, and one more in the units: no operand is taken before its record's third.
        awake = Signal()
        m.d.sync += awake.eq(begin | valid.any())
        m.d.comb += [units.start.eq(self.start), units.constants.eq(self.constants),
                     units.words.eq(words), units.awake.eq(awake)]

        # ---- Results wait, and are given out of a register.
        done = Signal()
        results = Signal(units.o.shape().size, reset_less=True)
        m.d.sync += [done.eq(due), results.eq(units.o)]
        m.submodules.results = queue = SyncFIFOBuffered(width=len(results), depth=most)
        move = Signal()
        taken = Signal()
        m.d.comb += [
            queue.w_en.eq(done), queue.w_data.eq(results),
            # No interval is a single cycle: the queue need not know who takes what.
            move.eq(~self.o.valid), queue.r_en.eq(move),
            taken.eq(self.o.valid & self.o.ready),
        ]
        with m.If(move):
            m.d.sync += [self.o.valid.eq(queue.r_rdy), self.o.payload.eq(queue.r_data)]
        with m.If(taken):
            m.d.sync += self.o.valid.eq(0)
        with m.If(begin & ~taken):
            m.d.sync += [flying.eq(flying + 1), room.eq(flying != most - 1)]
        with m.If(~begin & taken):
            m.d.sync += [flying.eq(flying - 1), room.eq(1)]
        return m

    def _buffer(self, m, slot, valid, last, ready, here):
        """Beats in; words of the beat of the slot out."""
        plan, depth = self.schedule, self.depth
        interval = plan.interval
        m.submodules.buffer = buffer = Memory(
            shape=len(self.i.payload), depth=depth, init=[])
        write, read = buffer.write_port(), buffer.read_port()
        # Beats that came, that records that began ended at, and that have not been freed.
        came, head, used = (Signal(range(2 * depth), name=name)
                            for name in ("came", "head", "used"))
        m.d.comb += [
            self.i.ready.eq(~used[-1]),
            write.addr.eq(came), write.data.eq(self.i.payload),
            write.en.eq(self.i.valid & self.i.ready),
            ready.eq((slot == 0) & ((came - head)[:len(came)] >= self.beats)),
            self.freed.eq(here(plan.last_read)),
        ]
        with m.If(write.en):
            m.d.sync += came.eq(came + 1)
        m.d.sync += used.eq(used + write.en - Mux(self.freed, self.beats, 0))
        # Where the records of this round and those before begin.
        ages = plan.last_read // interval + 1
        bases = [head] + [Signal.like(head, name=f"base_{n}") for n in range(1, ages)]
        with m.If(last):
            m.d.sync += [after.eq(before) for before, after in pairwise(bases)]
            with m.If(valid[0]):
                m.d.sync += head.eq(head + self.beats)
        there = Signal()
        with m.Switch(slot):
            for beat, cycle in enumerate(plan.reads):
                age, at = divmod(cycle - READ_LATENCY, interval)
                if cycle:
                    with m.Case(at):
                        m.d.comb += read.addr.eq(bases[age] + beat)
                        m.d.sync += there.eq(beat < self.beats)
        words = Signal(len(self.i.payload), reset_less=True)
        m.d.sync += words.eq(Mux(there, read.data, 0))
        return words


class _Units(Component):
    """Units and registers of a schedule.

    Each unit counts the cycles of the round for itself, as do every few registers: one counter
    would have thousands of multiplexers to steer.

    Members
    -------
    start : ``In(1)``
        The first round begins in the next cycle.
    awake : ``In(1)``
        There is a record; operands are taken from the cycle after the next on.
    constants, words : ``In(ArrayLayout(32, ...))``
        Constants, and the beat that was read.
    o : ``Out(StructLayout)``
        Results, in their cycle.
    """

    def __init__(self, plan: Schedule, fmt: Floating, constants: int) -> None:
        self.plan, self.fmt = plan, fmt
        self.fronts: list[Signal] = []
        super().__init__({
            "start": In(1), "awake": In(1),
            "constants": In(data.ArrayLayout(BINARY32.width, constants)),
            "words": In(data.ArrayLayout(BINARY32.width, plan.lanes)),
            "o": Out(result_layout(plan, fmt)),
        })

    def elaborate(self, platform):
        m = Module()
        plan = self.plan
        units = [self._unit(unit) for unit in plan.units]
        #: Result of every unit, and the registers between them.
        self.results = [unit.o for unit in units]
        self.registers = [Signal(register.width, reset_less=True, name=f"register_{number}")
                          for number, register in enumerate(plan.registers)]
        for number, (register, signal) in enumerate(
                zip(plan.registers, self.registers, strict=True)):
            if number % REGISTERS_A_COUNTER == 0:
                self._count(m)
            self._choose(m, signal, [(slot, source) for slot, source in register.loads],
                         lambda source, width=register.width: self._value(source, width))
        for number, (made, unit) in enumerate(zip(units, plan.units, strict=True)):
            m.submodules[f"{unit.kind}_{number}"] = made
            self._count(m)
            self._operands(m, made, unit)
        for output in plan.outputs:
            target = Value.cast(self.o[output.name])
            if output.to or output.wide:
                # Neither has its sign turned.
                m.d.comb += target.eq(self._value(output.operand.source, len(target)))
            else:
                m.d.comb += target.eq(self._exact(output.operand))
        return m

    def _count(self, m) -> None:
        """A counter of the round, for what is chosen from here on."""
        self.slot = slot = Signal(
            range(self.plan.interval), name="slot", attrs={"keep": "true"})
        m.d.sync += slot.eq(Mux(self.start | (slot == self.plan.interval - 1), 0, slot + 1))

    def _unit(self, unit: Unit) -> Any:
        fmt = self.fmt
        match unit.kind:
            case "wide_multiply":
                return WideMultiply(BINARY32)
            case "wide_add":
                return Add(BINARY32)
            case "narrow":
                return Narrow(fmt, BINARY32)
            case "to_fixed":
                return ToFixed(_formats(unit), fmt)
            case "log2":
                (to,) = _formats(unit)
                return Log2(to, fmt)
        return {"multiply": Multiply, "add": Add, "compare": Compare,
                "reciprocal": Reciprocal}[unit.kind](fmt)

    def _operands(self, m, made, unit: Unit) -> None:
        """Registers in front of a unit, that take what the slot's operation wants."""
        width = BINARY32.width if unit.kind in (
            "wide_multiply", "wide_add", "narrow") else self.fmt.width

        def word(operand: Operand) -> Value:
            return self._with_sign(self._value(operand.source, width), operand.sign)

        ports: dict[str, Callable[[Placed], Any]] = {
            "a": lambda placed: placed.operands[0], "b": lambda placed: placed.operands[1]}
        of_operand: Callable[[Operand], Value] = word
        controls: dict[str, Callable[[Placed], int]] = {}
        match unit.kind:
            case "reciprocal":
                del ports["b"]
                controls["root"] = lambda placed: placed.kind == "reciprocal_root"
            case "log2" | "narrow":
                del ports["b"]
            case "to_fixed":
                del ports["b"]
                number: dict[Fixed | None, int] = {
                    to: n for n, to in enumerate(_formats(unit))}
                controls["format"] = lambda placed: number[placed.to]
                controls["ceil"] = lambda placed: placed.kind == "ceil_fixed"
            case "compare":
                of_operand = self._exact
                controls["told"] = lambda placed: placed.kind == "select"
                controls["largest"] = lambda placed: placed.kind == "maximum"
                deciding = [(self._slot(placed), placed.operands[2]) for placed in unit.placed
                            if placed.kind == "select"]
                self._register(m, made.first, deciding, self._is_not_negative)
        for name, choose in ports.items():
            self._register(
                m, getattr(made, name),
                [(self._slot(placed), choose(placed)) for placed in unit.placed], of_operand)
        for name, of in controls.items():
            self._register(m, getattr(made, name), [
                (self._slot(placed), int(of(placed))) for placed in unit.placed], C)

    def _slot(self, placed: Placed) -> int:
        return placed.cycle % self.plan.interval

    def _register(self, m, port, choices, value_of) -> None:
        """A register in front of a port of a unit."""
        register = Signal(len(port), reset_less=True, name=f"operand_{len(self.fronts)}")
        self.fronts.append(register)
        m.d.comb += port.eq(register)
        self._choose(m, register, choices, value_of)

    def _choose(self, m, register, choices: list[tuple[int, Any]], value_of) -> None:
        """By slot, what a register takes at its end; in others, and without a record, it holds."""
        slots: dict[Any, list[int]] = defaultdict(list)
        for slot, what in choices:
            slots[what].append(slot)
        # Which of them it is, and whether it is one, is in registers: what is chosen passes the
        # multiplexer alone. In the first slot behind `start` they say nothing; no record is there.
        number, takes = Signal(range(max(2, len(slots))), name="number"), Signal(name="takes")
        m.d.sync += takes.eq(0)
        with m.Switch(self.slot):
            for n, when in enumerate(slots.values()):
                with m.Case(*((slot - 1) % self.plan.interval for slot in when)):
                    m.d.sync += [takes.eq(self.awake), number.eq(n)]
        with m.If(takes), m.Switch(number):
            for n, what in enumerate(slots):
                with m.Case(n) if n + 1 < len(slots) else m.Default():
                    m.d.sync += register.eq(value_of(what))

    def _value(self, source: Source, width: int) -> Value:
        """What a source shows, `width` bits of it: words of binary32 lose their last."""
        match source.kind:
            case "unit":
                return self.results[source.number][:width]
            case "register":
                return self.registers[source.number]
            case "word":
                return C(source.number, width)
            case "constant":
                return self.constants[source.number][-width:]
        return self.words[source.number][-width:]

    @staticmethod
    def _with_sign(value: Value, sign: Sign) -> Value:
        """A word with another sign; of zero any will do."""
        return {Sign.KEPT: value, Sign.TURNED: Cat(value[:-1], ~value[-1]),
                Sign.CLEARED: Cat(value[:-1], C(0, 1)), Sign.SET: Cat(value[:-1], C(1, 1))}[sign]

    def _exact(self, operand: Operand) -> Value:
        """An operand that is to be the very word, as negation and magnitude leave zeros."""
        value = self._value(operand.source, self.fmt.width)
        some = value[self.fmt.fraction_bits:-1].any()
        match operand.sign:
            case Sign.KEPT:
                return value
            case Sign.CLEARED:
                return Cat(value[:-1], value[-1] & ~some)
        return Mux(some, self._with_sign(value, operand.sign), 0)

    def _is_not_negative(self, operand: Operand) -> Value:
        value = self._exact(operand)
        return ~(value[-1] & value[self.fmt.fraction_bits:-1].any())

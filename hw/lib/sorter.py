"""One sorter: a chunk in banks, and a network that its rows and columns pass through."""

from amaranth.hdl import *
from amaranth.lib import data, stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from splatforge.designs.bsu import BsuDesign
from splatforge.designs.entry import EntryFormat
from splatforge.hw.lib.component import Component

__all__ = ["Sorter", "pair_layout", "sorted_layout"]


def pair_layout(entry: EntryFormat) -> data.StructLayout:
    """One or two entries of a chunk; ``last`` is with the last of them."""
    return data.StructLayout({
        "first": entry.width, "second": entry.width, "both": 1, "last": 1})


def sorted_layout(entry: EntryFormat) -> data.StructLayout:
    """What is left of an entry when its depth has done its work."""
    return data.StructLayout({
        "feature": entry.feature_bits, "subtiles": entry.subtile_bits, "last": 1})


class Sorter(Component):
    """Take a chunk of entries in any order, give them in order of their keys.

    Bit-true model: :func:`splatforge.algos.bsu.bsu_fixed`. Cycle model:
    :mod:`splatforge.sim.sorter`.

    The entry in row `r` and column `c` lies in bank ``r ^ c`` at address `r`. So both the `width`
    entries of a row and those of a column lie in different banks; and two entries whose row, or
    whose column, differs in one bit lie in lanes that differ in that bit. The network takes a row
    or a column a cycle, as it comes out of the banks, and puts it back: stage after stage it
    compares the lanes that differ in the highest bit, and so on down to bit 0. Whether the lower
    lane gets the lesser entry is worked out from the pass and from which row or column it is.

    Latency: from a chunk's last pair to its first entry 4 cycles, one for every row of pads that
    fill it up to a power of two, and for every pass (:func:`splatforge.algos.bsu.passes`) one
    for every row of it and :attr:`latency`. Throughput: a pair of entries a cycle in, an entry a
    cycle out, one chunk at a time. Stall: ``o`` may stall for ever; behind ``drop`` it is
    withdrawn. ``i.ready`` depends on no input combinationally.

    Parameters
    ----------
    design : BsuDesign
        Chunk and network.

    Members
    -------
    i : ``In(stream.Signature(Pair))``
        Entries, as they lie in memory; ready from the last of a chunk's entries on ``o``, or its
        drop, to the last pair of the next.
    drop : ``In(1)``
        Forget the chunk; without effect while ``i`` is ready.
    o : ``Out(stream.Signature(Sorted))``
        Entries in order, without their depth.
    busy : ``Out(1)``
        For the counters: a row or a column was read for a pass.
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, design: BsuDesign = BsuDesign()) -> None:  # noqa: B008
        self.design = design
        super().__init__({
            "i": In(stream.Signature(pair_layout(design.entry))), "drop": In(1),
            "o": Out(stream.Signature(sorted_layout(design.entry))), "busy": Out(1),
        })

    @property
    def latency(self) -> int:
        """Cycles of a pass behind those that read its rows: data, stages, putting the last back."""
        return self.design.stages + 1

    def elaborate(self, platform):
        m = Module()
        design = self.design
        banks = []
        for lane in range(design.width):
            bank = Memory(shape=design.entry.width, depth=design.rows, init=[])
            m.submodules[f"bank_{lane}"] = bank
            banks.append((bank.write_port(), bank.read_port()))

        #: Place of the chunk's last entry, and from it the last row that takes part.
        last = Signal(design.levels)
        last_row = Signal(design.levels - design.stages)

        take, pad, sort, emit = (Signal(name=name) for name in ("take", "pad", "sort", "emit"))
        loaded, sorted_, emitted = (
            Signal(name=name) for name in ("loaded", "sorted", "emitted"))
        with m.FSM(name="phase"):
            with m.State("load"):
                m.d.comb += [self.i.ready.eq(1), take.eq(self.i.valid)]
                with m.If(take & self.i.p.last):
                    m.next = "pad"
            with m.State("pad"):
                m.d.comb += pad.eq(1)
                with m.If(self.drop):
                    m.next = "load"
                with m.Elif(loaded):
                    m.next = "sort"
                    with m.If(last == 0):
                        m.next = "emit"
            with m.State("sort"):
                m.d.comb += sort.eq(1)
                with m.If(self.drop):
                    m.next = "load"
                with m.Elif(sorted_):
                    m.next = "emit"
            with m.State("emit"):
                m.d.comb += emit.eq(1)
                with m.If(self.drop | emitted):
                    m.next = "load"

        self._load(m, banks, take, pad, last, last_row, loaded)
        self._sort(m, banks, sort, last, last_row, sorted_)
        self._emit(m, banks, emit, last, emitted)
        return m

    def _load(self, m, banks, take, pad, last, last_row, loaded):
        """A pair a cycle into its banks, pads into the rest of the last row and those behind.

        What is written goes through registers: it is there a cycle later.
        """
        design, entry = self.design, self.design.entry
        pair = Signal(design.stages - 1)
        row = Signal(design.levels - design.stages + 1)
        first, second = (
            Cat(~word[entry.key_bits:], word[:entry.key_bits])
            for word in (self.i.p.first, self.i.p.second))
        second = second | (~self.i.p.both).replicate(len(second))
        # Of the lanes of a pair the lower one has the even column in even rows.
        even, odd = Signal(entry.width), Signal(entry.width)
        place = Signal(len(last_row))
        m.d.comb += loaded.eq(row > last_row)
        m.d.sync += [
            Cat(even, odd).eq(Mux(row[0], Cat(second, first), Cat(first, second))),
            place.eq(row),
        ]
        for lane, (write, _) in enumerate(banks):
            column = (lane ^ row)[1:design.stages]
            behind, behind_now, enable = (
                Signal(name=f"{name}_{lane}") for name in ("behind", "behind_now", "enable"))
            m.d.comb += [
                behind_now.eq(pad | (column > pair)),
                write.addr.eq(place),
                write.data.eq(Mux(behind, ~C(0, entry.width), odd if lane % 2 else even)),
                write.en.eq(enable),
            ]
            m.d.sync += [
                behind.eq(behind_now),
                enable.eq(Mux(pad, ~loaded, take & (
                    (column == pair) | (self.i.p.last & behind_now)))),
            ]
        with m.If(take):
            m.d.sync += [
                Cat(pair, row).eq(Cat(pair, row) + 1),
                last.eq(Cat(self.i.p.both, pair, row)),
                last_row.eq(Cat(row[bit:].any() for bit in range(len(last_row)))),
            ]
            with m.If(self.i.p.last):
                m.d.sync += [pair.eq(0), row.eq(row + 1)]
        with m.If(pad):
            m.d.sync += row.eq(Mux(loaded | self.drop, 0, row + 1))

    def _sort(self, m, banks, sort, last, last_row, sorted_):
        """Pass after pass through the network; a pass begins when the one before is put back."""
        design, stages = self.design, self.design.stages
        level = Signal(range(design.levels + 1), init=1)
        column, reading = Signal(), Signal(init=1)
        line = Signal(len(last_row))
        put_back = Signal()
        lines = [Signal.like(line, name=f"line_{n}") for n in range(stages + 1)]
        valid = Signal(stages + 1)
        # Of this pass: whether its level is the last, that of the highest bit of the last place;
        # which stages compare; for each lane the bit of its number that turns the order round; in a
        # pass over columns, and in one over rows where that bit of the place is the row's, it is
        # the same for all lanes. Of the next pass the same: a pass is long enough to work it out.
        top, compares = Signal(), Signal(stages, init=1)
        turn = [C(sum((lane >> bit & 1) << lane for lane in range(design.width)), design.width)
                for bit in range(stages)]
        by_lane = Signal(design.width, init=turn[1].value if stages > 1 else 0)
        # Bit of the line that turns all of them, one of them or none.
        by_line = Signal.like(line, init=(2 if stages > 1 else 1) & (1 << len(line)) - 1)
        then_level, then_column = Signal.like(level), Signal()
        then_top, then_compares = Signal(), Signal.like(compares)
        then_by_lane, then_by_line = Signal.like(by_lane), Signal.like(by_line)
        m.d.comb += [
            then_level.eq(Mux(column, level, level + 1)),
            then_column.eq(~column & (level >= stages)),
        ]
        above = Signal(range(design.levels - stages + 1))
        m.d.comb += above.eq(then_level - stages)
        m.d.sync += [
            then_top.eq((last >> then_level) == 0),
            then_compares.eq(~C(0, stages)), then_by_lane.eq(0), then_by_line.eq(1 << above),
        ]
        with m.If(then_column):
            m.d.sync += [
                then_compares.eq((1 << above) - 1),
                then_by_lane.eq(Mux((last >> then_level) == 0, 0, Array(turn)[above])),
            ]
        with m.Elif(then_level < stages):
            m.d.sync += [
                then_compares.eq((1 << then_level) - 1),
                then_by_lane.eq(Array(turn)[then_level]), then_by_line.eq(1 << then_level)]

        m.d.comb += [
            self.busy.eq(sort & reading), sorted_.eq(put_back & ~column & top),
        ]
        with m.If(sort & reading):
            m.d.sync += [line.eq(line + 1), reading.eq(line != last_row)]
        with m.If(~sort):
            m.d.sync += top.eq((last >> 1) == 0)
        with m.If(put_back):
            m.d.sync += [
                line.eq(0), reading.eq(1), column.eq(then_column), level.eq(then_level),
                top.eq(then_top), compares.eq(then_compares), by_lane.eq(then_by_lane),
                by_line.eq(then_by_line),
            ]
        with m.If(sorted_ | self.drop):
            m.d.sync += [
                level.eq(1), column.eq(0), line.eq(0), reading.eq(1), compares.eq(1),
                by_lane.eq(by_lane.init), by_line.eq(by_line.init)]
        m.d.sync += [
            valid.eq(Mux(self.drop, 0, Cat(self.busy, valid))),
            put_back.eq(~self.drop & valid[stages - 1] & ~(
                valid[stages - 2] if stages > 1 else self.busy)),
        ]

        # With each line goes, for every lane, whether it gets the greater entry.
        greater = [Signal(design.width, name=f"greater_{n}") for n in range(stages)]
        m.d.sync += Cat(lines).eq(Cat(line, *lines[:-1]))
        here, of = line, by_lane ^ (line & by_line).any().replicate(design.width)
        for stage, bit in enumerate(reversed(range(stages))):
            flip = here[bit] if bit < len(line) else C(0, 1)
            before = here[bit + 1] if stage and bit + 1 < len(line) else C(0, 1)
            m.d.sync += greater[stage].eq(of ^ (flip ^ before).replicate(design.width))
            here, of = lines[stage], greater[stage]

        words = [read.data for _, read in banks]
        for stage, bit in enumerate(reversed(range(stages))):
            out = [Signal(design.entry.width, name=f"word_{stage}_{lane}")
                   for lane in range(design.width)]
            for low in range(design.width):
                high = low | 1 << bit
                if high == low:
                    continue
                # The sign of a difference, turned round in the same chain of carries: one input
                # of the multiplexers, which are one small table a bit with it.
                difference = Signal(design.entry.width + 1, name=f"difference_{stage}_{low}")
                swap = difference[-1] & compares[bit]
                m.d.comb += difference.eq(Cat(words[high], greater[stage][low]) - words[low])
                with m.If(valid[stage]):
                    m.d.sync += [
                        out[low].eq(Mux(swap, words[high], words[low])),
                        out[high].eq(Mux(swap, words[low], words[high])),
                    ]
            words = out
        for lane, (write, read) in enumerate(banks):
            across = column.replicate(len(line)) & last_row & lane
            m.d.comb += [read.addr.eq(line ^ across), read.en.eq(1)]
            with m.If(valid[stages]):
                m.d.comb += [
                    write.addr.eq(lines[stages] ^ across), write.data.eq(words[lane]),
                    write.en.eq(1),
                ]

    def _emit(self, m, banks, emit, last, emitted):
        """An entry a cycle, out of its bank, then into the output's register.

        Two that have been read when the output stalls wait in registers of their own, so that what
        is read from the banks need not be held there.
        """
        design, entry = self.design, self.design.entry
        place = Signal(design.levels + 1)
        lane, from_lane = Signal(design.stages), Signal(design.stages)
        read_one, valid, ends, free, more = (
            Signal(name=name) for name in ("read_one", "valid", "ends", "free", "more"))
        waits = Signal(2)
        found = Signal.like(self.o.payload)
        waiting = [Signal.like(found, name=f"waiting_{n}") for n in range(2)]
        m.d.comb += [
            free.eq(~self.o.valid | self.o.ready),
            lane.eq(place[:design.stages] ^ place[design.stages:design.levels]),
            read_one.eq(emit & more & (free | ~(waits[1] | (waits[0] & valid)))),
            emitted.eq(self.o.valid & self.o.ready & self.o.p.last),
        ]
        # A cycle behind: the first place is where the passes end as well.
        emits = Signal()
        m.d.sync += emits.eq(emit)
        for _, read in banks:
            with m.If(emits):
                m.d.comb += read.addr.eq(place[design.stages:])
        word = Signal(entry.width)
        m.d.comb += [
            word.eq(Array(read.data for _, read in banks)[from_lane]),
            found.last.eq(ends), found.subtiles.eq(~word[:entry.subtile_bits]),
            found.feature.eq(word[entry.subtile_bits:]),
        ]
        m.d.sync += [
            valid.eq(read_one), from_lane.eq(lane), ends.eq(place == last),
            more.eq(Mux(read_one, place < last, place <= last)),
        ]
        with m.If(read_one):
            m.d.sync += place.eq(place + 1)
        with m.If(free):
            m.d.sync += [
                self.o.valid.eq(waits[0] | valid),
                self.o.payload.eq(Mux(waits[0], waiting[0], found)),
                waits.eq(waits[0] & (waits[1] | valid)),
            ]
        with m.Else():
            m.d.sync += waits.eq(Mux(waits[0], Cat(C(1, 1), waits[1] | valid), valid))
        with m.If(free | ~waits[0]):
            m.d.sync += waiting[0].eq(Mux(waits[1], waiting[1], found))
        with m.If(~waits[1]):
            m.d.sync += waiting[1].eq(found)
        with m.If(emitted | self.drop):
            m.d.sync += [place.eq(0), valid.eq(0), waits.eq(0), self.o.valid.eq(0)]

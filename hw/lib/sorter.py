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
        m.d.comb += last_row.eq(Cat(
            last[bit:].any() for bit in range(design.stages, design.levels)))

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
        """A pair a cycle into its banks, pads into the rest of the last row and those behind."""
        design, entry = self.design, self.design.entry
        pair = Signal(design.stages - 1)
        row = Signal(design.levels - design.stages + 1)
        first, second = (
            Cat(~word[entry.key_bits:], word[:entry.key_bits])
            for word in (self.i.p.first, self.i.p.second))
        second = second | (~self.i.p.both).replicate(len(second))
        # Of the lanes of a pair the lower one has the even column in even rows.
        even, odd = Signal(entry.width), Signal(entry.width)
        m.d.comb += [
            Cat(even, odd).eq(Mux(row[0], Cat(second, first), Cat(first, second))),
            loaded.eq(row > last_row),
        ]
        for lane, (write, _) in enumerate(banks):
            column = (lane ^ row)[1:design.stages]
            behind = Signal(name=f"behind_{lane}")
            m.d.comb += [
                behind.eq(pad | (column > pair)),
                write.addr.eq(row),
                write.data.eq(Mux(behind, ~C(0, entry.width), odd if lane % 2 else even)),
                write.en.eq(Mux(
                    pad, ~loaded, take & ((column == pair) | (self.i.p.last & behind)))),
            ]
        with m.If(take):
            m.d.sync += [
                Cat(pair, row).eq(Cat(pair, row) + 1),
                last.eq(Cat(self.i.p.both, pair, row)),
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
        top, put_back = Signal(), Signal()
        lines = [Signal.like(line, name=f"line_{n}") for n in range(stages + 1)]
        valid = Signal(stages + 1)

        # The last level is that of the highest bit of the last place.
        m.d.comb += [
            top.eq((last >> level) == 0),
            self.busy.eq(sort & reading),
            put_back.eq(valid[stages] & ~valid[stages - 1]),
            sorted_.eq(put_back & ~column & top),
        ]
        with m.If(sort & reading):
            m.d.sync += [line.eq(line + 1), reading.eq(line != last_row)]
        with m.If(put_back):
            m.d.sync += [line.eq(0), reading.eq(1), column.eq(0)]
            with m.If(~column):
                m.d.sync += [level.eq(level + 1), column.eq(level >= stages)]
        with m.If(sorted_ | self.drop):
            m.d.sync += [level.eq(1), column.eq(0), line.eq(0), reading.eq(1)]
        m.d.sync += valid.eq(Mux(self.drop, 0, Cat(self.busy, valid)))

        # Which stages compare, and for each lane the bit of its number that turns the order round;
        # in a pass over columns, and in one over rows where that bit of the place is the row's, it
        # is the same for all lanes.
        compares, turns, turn_all = Signal(stages), Signal(design.width), Signal()
        turn = Array(
            C(sum((lane >> bit & 1) << lane for lane in range(design.width)), design.width)
            for bit in range(stages))
        above = Signal(range(design.levels - stages + 1))
        m.d.comb += above.eq(level - stages)
        with m.If(column):
            m.d.sync += compares.eq((1 << above) - 1)
            m.d.comb += [
                turns.eq(Mux(top, 0, turn[above])), turn_all.eq(line.bit_select(above, 1))]
        with m.Elif(level < stages):
            m.d.sync += compares.eq((1 << level) - 1)
            m.d.comb += [turns.eq(turn[level]), turn_all.eq(line.bit_select(level, 1))]
        with m.Else():
            m.d.sync += compares.eq(~C(0, stages))
            m.d.comb += turn_all.eq(line.bit_select(above, 1))
        # With each line goes, for every lane, whether it gets the greater entry.
        greater = [Signal(design.width, name=f"greater_{n}") for n in range(stages)]
        m.d.sync += Cat(lines).eq(Cat(line, *lines[:-1]))
        here, of = line, turns ^ turn_all.replicate(design.width)
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
            m.d.comb += [read.addr.eq(line ^ across), read.en.eq(self.busy)]
            with m.If(valid[stages]):
                m.d.comb += [
                    write.addr.eq(lines[stages] ^ across), write.data.eq(words[lane]),
                    write.en.eq(1),
                ]

    def _emit(self, m, banks, emit, last, emitted):
        """An entry a cycle, out of its bank, then into the output's register."""
        design, entry = self.design, self.design.entry
        place = Signal(design.levels + 1)
        lane, from_lane = Signal(design.stages), Signal(design.stages)
        move, read_one, valid, ends = (
            Signal(name=name) for name in ("move", "read_one", "valid", "ends"))
        m.d.comb += [
            move.eq(~self.o.valid | self.o.ready),
            lane.eq(place[:design.stages] ^ place[design.stages:design.levels]),
            read_one.eq(emit & move & (place <= last)),
            emitted.eq(self.o.valid & self.o.ready & self.o.p.last),
        ]
        for number, (_, read) in enumerate(banks):
            with m.If(emit):
                m.d.comb += [
                    read.addr.eq(place[design.stages:]), read.en.eq(read_one & (lane == number))]
        word = Signal(entry.width)
        m.d.comb += word.eq(Array(read.data for _, read in banks)[from_lane])
        with m.If(read_one):
            m.d.sync += [place.eq(place + 1), from_lane.eq(lane), ends.eq(place == last)]
        with m.If(move):
            m.d.sync += [
                valid.eq(read_one), self.o.valid.eq(valid), self.o.p.last.eq(ends),
                self.o.p.subtiles.eq(~word[:entry.subtile_bits]),
                self.o.p.feature.eq(word[entry.subtile_bits:]),
            ]
        with m.If(emitted | self.drop):
            m.d.sync += [place.eq(0), valid.eq(0), self.o.valid.eq(0)]

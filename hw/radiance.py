"""The radiance cache: colours of pixels by their first Gaussians, kept in memory between frames."""

from functools import reduce
from itertools import pairwise
from operator import or_

from amaranth.hdl import *
from amaranth.lib import data, stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from splatforge.designs.fetch import TILE_PX
from splatforge.designs.nru import RECORD_ID_BITS
from splatforge.designs.radiance import (
    BEAT_BYTES,
    BURST_BEATS,
    COLOR_BITS,
    LOW_BITS,
    RadianceDesign,
    index_string,
)
from splatforge.designs.shell import ShellDesign
from splatforge.hw.array import lowest_bit
from splatforge.hw.fetch import address_layout, beat_layout
from splatforge.hw.lib.arbiter import write_address_layout, write_data_layout
from splatforge.hw.lib.axi import READ_BANKS
from splatforge.hw.lib.component import Component

__all__ = ["PIXEL_BITS", "RGB8", "Radiance", "answer_layout", "lookup_layout", "walk_layout"]

PIXEL_BITS = (TILE_PX * TILE_PX - 1).bit_length()
#: Channels of a colour of 8 bits.
RGB8 = data.ArrayLayout(8, 3)


def _record_layout(record_ids: int) -> data.ArrayLayout:
    return data.ArrayLayout(RECORD_ID_BITS, record_ids)


def lookup_layout(record_ids: int) -> data.StructLayout:
    """A pixel that asks for its colour: its number in the tile, row-major, and its record."""
    return data.StructLayout({"pixel": PIXEL_BITS, "record": _record_layout(record_ids)})


def answer_layout() -> data.StructLayout:
    """What a pixel finds: its number, whether its record is known, and the colour."""
    return data.StructLayout({"pixel": PIXEL_BITS, "hit": 1, "color": RGB8})


def walk_layout(record_ids: int) -> data.StructLayout:
    """A pixel of a finished tile with its record and its final colour; ``last`` is no pixel."""
    return data.StructLayout({
        "pixel": PIXEL_BITS, "record": _record_layout(record_ids), "hit": 1, "color": RGB8,
        "last": 1})


def _one_hot_mux(chosen: Value, values) -> Value:
    """That of `values` whose bit of `chosen` is set, zero without one."""
    return reduce(or_, (Mux(chosen[n], value, 0) for n, value in enumerate(values)))


def _victim(recency: Value, ways: int) -> Value:
    """The way that the nodes point to, one bit each."""
    def leaves(node: int, count: int) -> list[Value]:
        if count == 1:
            return [C(1, 1)]
        return [here & (recency[node] == side) for side in range(2)
                for here in leaves(2 * node + 1 + side, count // 2)]
    return Cat(leaves(0, ways))


def _touched(recency: Value, way: Value, ways: int) -> Value:
    """The nodes behind a use of `way`, one bit each: none on its path points to it."""
    bits = {}

    def descend(node: int, first: int, count: int) -> None:
        if count == 1:
            return
        half = count // 2
        lower, upper = way[first:first + half].any(), way[first + half:first + count].any()
        bits[node] = lower | (recency[node] & ~upper)
        descend(2 * node + 1, first, half)
        descend(2 * node + 2, first + half, half)

    descend(0, 0, ways)
    return Cat(bits[node] for node in range(ways - 1))


class Radiance(Component):
    """Look pixels up by their records, put in what was not there, keep it over frames.

    Bit-true model: :func:`splatforge.algos.radiance.radiance_fixed`. Cycle model:
    :mod:`splatforge.sim.radiance`.

    A look-up finds what the tiles before have left. When a tile is finished, its pixels with a
    complete record are walked one by one. One whose record is that of the pixel before changes
    nothing and is passed over; one whose set is being changed waits. The next tile's look-ups wait
    for the end of the walk.

    There are two banks. While one serves a group of tiles, the other is saved and loaded with the
    bank of the group after it, each set read before it is overwritten. With ``flush`` sets are
    cleared instead of loaded, one a cycle.

    Latency: :attr:`latency` cycles from a look-up to its answer. Throughput: a look-up a cycle; a
    walked pixel a cycle, every four cycles where others of the same set follow each other; a beat
    of a bank a cycle in either direction, but a set that is saved takes three cycles at least.
    Stall: ``o_address``, ``o_write_address`` and ``o_write_data`` may stall for ever; ``i_lookup``
    and ``i_walk`` stall while their bank is on the way. ``o_answer`` does not stall, and ``i_beat``
    is always ready. No ``ready`` depends on an input.

    Parameters
    ----------
    design : RadianceDesign
        Geometry.
    shell : ShellDesign
        Bus.

    Members
    -------
    start : ``In(1)``
        Begin a frame with the parameters below, which must hold until it ends.
    stop : ``In(1)``
        Ask for nothing more.
    enable, flush : ``In(1)``
        Whether the frame uses the cache; whether banks start empty.
    width, height : ``In(16)``
        Frame in pixels.
    cache_address : ``In(address_bits)``
        Of the banks, group after group; a multiple of 256.
    i_lookup : ``In(stream.Signature(Lookup))``
        See :func:`lookup_layout`. Those of a tile come when all of the walk before has been taken.
    o_answer : ``Out(stream.Signature(Answer))``
        To the look-ups in order, see :func:`answer_layout`; ``ready`` must be high.
    i_walk : ``In(stream.Signature(Walk))``
        See :func:`walk_layout`: pixels with a complete record in raster order, whose look-ups have
        been answered, then the tile's end; tiles in order of their groups.
    o_address : ``Out(stream.Signature(Burst))``
        To the read address channel, ID 2.
    i_beat : ``In(stream.Signature(Beat))``
        From the read data channel, beats of ID 2; others are not looked at.
    o_write_address, o_write_data : ``Out(stream.Signature(...))``
        To the write channels.
    i_response : ``In(1)``
        A response to one of the write bursts arrives in this cycle.
    lookup, hit, fill, wait : ``Out(1)``
        For the counters: a pixel is looked up, is found, is put in; something waits for its bank.
    done : ``Out(1)``
        Every bank is saved and answered, or the frame does not use the cache; stays high until
        reset.
    idle : ``Out(1)``
        No address is waiting and no burst is in flight.
    """

    i_lookup: stream.Interface
    o_answer: stream.Interface
    i_walk: stream.Interface
    o_address: stream.Interface
    i_beat: stream.Interface
    o_write_address: stream.Interface
    o_write_data: stream.Interface

    #: Cycles from the transfer of a look-up to its answer.
    latency = 5

    def __init__(
        self,
        design: RadianceDesign = RadianceDesign(),  # noqa: B008
        shell: ShellDesign = ShellDesign(),  # noqa: B008
    ) -> None:
        self.design, self.shell = design, shell
        super().__init__({
            "start": In(1), "stop": In(1), "enable": In(1), "flush": In(1),
            "width": In(16), "height": In(16),
            "cache_address": In(shell.address_bits),
            "i_lookup": In(stream.Signature(lookup_layout(design.record_ids))),
            "o_answer": Out(stream.Signature(answer_layout())),
            "i_walk": In(stream.Signature(walk_layout(design.record_ids))),
            "o_address": Out(stream.Signature(address_layout(shell))),
            "i_beat": In(stream.Signature(beat_layout(shell))),
            "o_write_address": Out(stream.Signature(write_address_layout(shell))),
            "o_write_data": Out(stream.Signature(write_data_layout(shell))),
            "i_response": In(1),
            "lookup": Out(1), "hit": Out(1), "fill": Out(1), "wait": Out(1),
            "done": Out(1), "idle": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        design = self.design
        self._entry = data.StructLayout(
            {"tag": design.tag_bits, "color": COLOR_BITS, "valid": 1})
        # Whose turn it is: the bank that serves, also a bit each, whether each holds its group's
        # contents, the bank that is saved and loaded, also a bit each while it is.
        self._serving, self._loaded = Signal(name="serving"), Signal(2, name="loaded")
        self._serves = Signal(2, name="serves", init=0b01)
        self._working, self._bank = Signal(name="working"), Signal(name="bank")
        self._transfers = Signal(2, name="transfers")
        rows, recencies = self._banks(m)
        group_over = self._serve(m, rows, recencies)
        self._carry(m, rows, recencies, group_over)
        return m

    def _banks(self, m):
        """Two memories of sets and two of their recency; who drives them is decided by turns.

        Returns for each kind what the two sides see: a list by side, of what serves and of what
        saves and loads, of the row that was read two cycles ago or earlier, and of what it wants.
        Each bank has a register behind it: its blocks of memory lie far from each other.
        """
        design = self.design
        sides = []
        for name, shape in (("rows", data.ArrayLayout(self._entry.size, design.ways)),
                            ("recency", unsigned(design.ways - 1))):
            granular = name == "rows"
            enables = design.ways if granular else 1
            port = data.StructLayout({
                "read": 1, "read_set": design.index_bits, "write": enables,
                "write_set": design.index_bits, "data": shape})
            wants = [Signal(port, name=f"{name}_{side}") for side in ("service", "transfer")]
            seen = [Signal(shape, name=f"{name}_seen_{side}") for side in ("service", "transfer")]
            sides.append((wants, seen))
            if not granular and design.ways == 1:
                continue
            for n in range(2):
                m.submodules[f"{name}_{n}"] = memory = Memory(
                    shape=shape, depth=design.sets, init=[])
                write = memory.write_port(granularity=1 if granular else None)
                read = memory.read_port()
                mine, served = self._transfers[n], self._serves[n]
                service, transfer = wants
                for name_, target in (("read_set", read.addr), ("write_set", write.addr),
                                      ("data", write.data)):
                    m.d.comb += target.eq(Mux(
                        mine, Value.cast(transfer[name_]), Value.cast(service[name_])))
                m.d.comb += [
                    read.en.eq(Mux(mine, transfer.read, service.read & served)),
                    write.en.eq(Mux(mine, transfer.write, Mux(served, service.write, 0))),
                ]
                came = Signal.like(read.data, name=f"{name}_came_{n}", reset_less=True)
                m.d.sync += came.eq(read.data)
                with m.If(served):
                    m.d.comb += seen[0].eq(came)
                with m.If(self._bank == n):
                    m.d.comb += seen[1].eq(came)
        return sides

    def _serve(self, m, rows, recencies):
        """Look-ups and the walk; returns whether the walk of a group of tiles is over."""
        design, ways = self.design, self.design.ways
        (row_port, _), (row, _) = rows
        (recency_port, _), (recency, _) = recencies
        asked, pixel = self.i_lookup.p, self.i_walk.p
        valid, walked = ([Signal(name=f"{name}_{n}") for n in range(1, 5)]
                         for name in ("valid", "walked"))
        sets = [Signal(design.index_bits, name=f"set_{n}") for n in range(1, 5)]

        # ---- A look-up waits in a register until its bank is there and no walk is on the way.
        waiting, waits = Signal(lookup_layout(design.record_ids)), Signal()
        ready, over, walking = Signal(), Signal(), Signal()
        look, walk, go = Signal(), Signal(), Signal()
        m.d.comb += [
            walking.eq(over | Cat(v & w for v, w in zip(valid, walked, strict=True)).any()),
            look.eq(waits & ready & ~walking),
            self.i_lookup.ready.eq(~waits | look),
            self.i_walk.ready.eq(ready & ~over & go & ~waits),
            walk.eq(self.i_walk.valid & self.i_walk.ready),
            self.lookup.eq(look),
            self.wait.eq(~ready & (waits | self.i_walk.valid)),
        ]
        tile_over, group_over = Signal(), Signal()
        m.d.sync += ready.eq(self._loaded.bit_select(self._serving, 1) & ~group_over)
        with m.If(self.i_lookup.ready):
            m.d.sync += [waits.eq(self.i_lookup.valid), waiting.eq(asked)]

        # ---- Stage 1: the record and its set. The walked pixel before is still here where the next
        # is compared with it.
        record = Signal(_record_layout(design.record_ids), name="record_1")
        chosen = Signal.like(record, name="chosen")
        same, comparable = Signal(), Signal()
        numbers = [Signal(PIXEL_BITS, name=f"pixel_{n}") for n in range(1, 5)]
        known = [Signal(name=f"known_{n}") for n in range(1, 5)]
        color = [Signal(RGB8, name=f"color_{n}") for n in range(1, 5)]
        index = [C(0, 1)] * design.index_bits
        for bit, place, source in index_string(design):
            index[bit] = index[bit] ^ chosen[place][source]
        # Whether one of its set is on the way behind stage 1, where what is in it had been before:
        # known a cycle ahead, of what comes into the stage and of what stays in it.
        conflict = Signal()
        issue = Signal()
        m.d.comb += [
            chosen.eq(Mux(waits, waiting.record.as_value(), pixel.record.as_value())),
            go.eq(~valid[0] | ~walked[0] | same | ~conflict),
            issue.eq(valid[0] & go & ~(walked[0] & same)),
        ]
        def conflicts(of):
            """Whether a walked pixel will be behind stage 1 whose set is `of`."""
            return reduce(or_, (there & walked[n] & (sets[n] == of) for n, there in enumerate(
                (issue, valid[1], valid[2]))))

        m.d.sync += conflict.eq(Mux(go, conflicts(Cat(index)), conflicts(sets[0])))
        with m.If(go):
            m.d.sync += valid[0].eq(look | (walk & ~pixel.last))
        with m.If(look | walk):
            m.d.sync += [
                record.eq(chosen), sets[0].eq(Cat(index)), walked[0].eq(walk),
                numbers[0].eq(waiting.pixel), known[0].eq(pixel.hit), color[0].eq(pixel.color),
                comparable.eq(walk),
                same.eq(comparable & (pixel.record.as_value() == record.as_value())),
            ]

        # ---- Stage 2: the set comes out of its memory; stage 3: it is compared.
        tag = [Signal(design.tag_bits, name=f"tag_{n}") for n in (2, 3, 4)]
        m.d.comb += [
            row_port.read.eq(issue), row_port.read_set.eq(sets[0]),
            recency_port.read.eq(issue), recency_port.read_set.eq(sets[0]),
        ]
        m.d.sync += [
            valid[1].eq(issue), tag[0].eq(Cat(one[LOW_BITS:] for one in record))]
        for line in (valid[1:], tag, walked, sets, numbers, known, color):
            m.d.sync += [after.eq(before) for before, after in pairwise(line)]
        entries = [data.View(self._entry, row[way]) for way in range(ways)]

        # ---- Stage 4: what becomes of it.
        match, valids, nodes = Signal(ways), Signal(ways), Signal(ways - 1)
        found = [Signal(RGB8, name=f"found_{way}") for way in range(ways)]
        m.d.sync += [
            match.eq(Cat(one.valid & (one.tag == tag[1]) for one in entries)),
            valids.eq(Cat(one.valid for one in entries)), nodes.eq(recency),
            *(here.eq(one.color) for here, one in zip(found, entries, strict=True)),
        ]
        way, put, touch = Signal(ways), Signal(), Signal()
        written = Signal(self._entry)
        m.d.comb += [
            way.eq(Mux(match.any(), match,
                       Mux(valids.all(), _victim(nodes, ways), lowest_bit(~valids)))),
            put.eq(valid[3] & walked[3] & ~match.any() & ~known[3]),
            touch.eq(put | (valid[3] & walked[3] & match.any())),
            self.fill.eq(put),
            written.tag.eq(tag[2]), written.color.eq(color[3]), written.valid.eq(1),
            row_port.write.eq(Mux(put, way, 0)), row_port.write_set.eq(sets[3]),
            *(row_port.data[n].eq(written) for n in range(ways)),
            recency_port.write.eq(touch), recency_port.write_set.eq(sets[3]),
            recency_port.data.eq(_touched(nodes, way, ways)),
        ]
        answer = self.o_answer
        m.d.comb += [
            answer.valid.eq(valid[3] & ~walked[3]), answer.p.pixel.eq(numbers[3]),
            answer.p.hit.eq(match.any()),
            answer.p.color.eq(_one_hot_mux(match, [one.as_value() for one in found])),
            self.hit.eq(answer.valid & answer.p.hit),
        ]

        # ---- Behind the last pixel of a tile the stages run empty. Then look-ups of the next go.
        m.d.comb += tile_over.eq(over & ~Cat(valid).any())
        with m.If(walk & pixel.last):
            m.d.sync += over.eq(1)
        with m.If(tile_over):
            m.d.sync += [over.eq(0), comparable.eq(0)]

        side, tiles_x = design.group_tiles, Signal(12)
        columns, rows_left = Signal(12), Signal(12)
        # The group's tiles, three cycles behind the end of the one before, as its first tile's end.
        wide, high = (Signal(range(side + 1), name=name) for name in ("wide", "high"))
        tiles, number = (Signal(range(side * side + 1), name=name, init=init)
                         for name, init in (("tiles", 0), ("number", 1)))
        m.d.sync += [
            wide.eq(Mux(columns >= side, side, columns)),
            high.eq(Mux(rows_left >= side, side, rows_left)),
            # A multiplier of the FPGA is slower than these few bits.
            tiles.eq(sum(Mux(bit, high << n, 0) for n, bit in enumerate(wide))),
        ]
        m.d.comb += group_over.eq(tile_over & (number == tiles))
        with m.If(tile_over):
            m.d.sync += number.eq(Mux(group_over, 1, number + 1))
        with m.If(group_over):
            m.d.sync += [self._serving.eq(~self._serving), self._serves.eq(~self._serves)]
            with m.If(columns > side):
                m.d.sync += columns.eq(columns - side)
            with m.Else():
                m.d.sync += [
                    columns.eq(tiles_x), rows_left.eq(Mux(rows_left > side, rows_left - side, 0))]
        with m.If(self.start):
            m.d.sync += [
                tiles_x.eq(self._tiles(self.width)), columns.eq(self._tiles(self.width)),
                rows_left.eq(self._tiles(self.height))]
        self._served = Signal(name="served")
        m.d.comb += self._served.eq(~rows_left.any())
        return group_over

    @staticmethod
    def _tiles(pixels: Value) -> Value:
        """Tiles along a side of the frame."""
        return (pixels + TILE_PX - 1)[4:16]

    def _carry(self, m, rows, recencies, group_over):
        """Save banks that have served, load those that will."""
        design, ways, shell = self.design, self.design.ways, self.shell
        working, bank, loaded = self._working, self._bank, self._loaded
        (_, row_port), (_, row) = rows
        (_, recency_port), (_, recency) = recencies
        beats, burst_bytes = design.entry_beats, BURST_BEATS * BEAT_BYTES

        # ---- Turns: the first groups' banks are loaded, then each that has served is saved and
        # loaded with that of the group after the next.
        running = Signal()
        columns, rows_left, tiles_x = Signal(12), Signal(12), Signal(12)
        fresh, pending = Signal(2), Signal(2)
        saving, loading = Signal(), Signal()
        begin, end, load_more = Signal(), Signal(), Signal()
        save_bank, load_bank = Signal(), Signal()
        side = design.group_tiles
        begin_save, begin_load = Signal(), Signal()
        m.d.comb += [
            begin_load.eq(load_more & (fresh.any() | pending.any())),
            begin_save.eq(pending.any() & ~(fresh.any() & load_more)),
            begin.eq(~working & (begin_load | begin_save)),
        ]
        # Of a cycle ago: a bank takes more than one.
        m.d.sync += load_more.eq(rows_left.any())
        m.d.sync += pending.eq(pending + group_over - (begin & begin_save))
        with m.If(group_over):
            m.d.sync += loaded.eq(loaded & ~(1 << self._serving))
        with m.If(begin):
            m.d.sync += [
                working.eq(1), saving.eq(begin_save), loading.eq(begin_load),
                bank.eq(Mux(begin_save, save_bank, load_bank)),
                self._transfers.eq(1 << Mux(begin_save, save_bank, load_bank)),
                save_bank.eq(save_bank ^ begin_save), load_bank.eq(load_bank ^ begin_load),
            ]
            with m.If(~begin_save):
                m.d.sync += fresh.eq(fresh - 1)
            with m.If(begin_load):
                with m.If(columns > side):
                    m.d.sync += columns.eq(columns - side)
                with m.Else():
                    m.d.sync += [
                        columns.eq(tiles_x),
                        rows_left.eq(Mux(rows_left > side, rows_left - side, 0))]
        with m.If(end):
            m.d.sync += [working.eq(0), self._transfers.eq(0)]
            with m.If(loading):
                m.d.sync += loaded.eq((loaded & ~Mux(group_over, 1 << self._serving, 0))
                                      | (1 << bank))
        with m.If(self.start & self.enable):
            m.d.sync += [
                running.eq(1), fresh.eq(2), load_more.eq(1),
                tiles_x.eq(self._tiles(self.width)), columns.eq(self._tiles(self.width)),
                rows_left.eq(self._tiles(self.height))]

        # ---- Saving: addresses, and behind them entry after entry of the row that was read, which
        # is kept in a register while the next is read.
        save_row = Signal(range(design.sets + 1))
        save_left = Signal(range(design.bursts + 1))
        save_address = Signal(shell.address_bits)
        granted = Signal(range(design.bursts + 1))
        writes = Signal(range(design.outstanding_bursts + 1))
        may_put = Signal()
        coming, held, kept = Signal(), Signal(), Signal()
        kept_row, kept_recency = Signal.like(row, name="kept_row"), Signal.like(
            recency, name="kept_recency")
        way, part = Signal(range(max(ways, 2))), Signal()
        beat = Signal(range(BURST_BEATS))
        grant, move, put, keep, last_of_row, last_beat, saved = (Signal(name=name) for name in (
            "grant", "move_beat", "put", "keep", "last_of_row", "last_beat", "saved"))
        out = self.o_write_data
        m.d.comb += [
            grant.eq(working & saving & save_left.any() & ~self.o_write_address.valid & ~self.stop
                     & (writes != design.outstanding_bursts)),
            move.eq(~out.valid | out.ready),
            put.eq(move & kept & may_put),
            keep.eq(held & (~kept | (put & last_of_row))),
            last_of_row.eq((way == ways - 1) & (part == beats - 1)),
            last_beat.eq(beat == BURST_BEATS - 1),
            row_port.read.eq(
                working & saving & (save_row != design.sets) & ~coming & ~held),
            row_port.read_set.eq(save_row),
            recency_port.read.eq(row_port.read), recency_port.read_set.eq(save_row),
            self.o_write_address.p.length.eq(BURST_BEATS - 1),
            out.p.strobe.eq(~0),
        ]
        entry = Signal(self._entry, name="saved_entry")
        word = Signal(8 * BEAT_BYTES * beats, name="saved_word")
        m.d.comb += entry.eq(kept_row[way] if ways > 1 else kept_row[0])
        m.d.comb += word.eq(Cat(
            Mux(entry.valid, entry.as_value(), 0), Mux(way == 0, kept_recency, 0)))
        m.d.sync += [
            granted.eq(granted + grant - (put & last_beat)),
            may_put.eq(grant | Mux(put & last_beat, granted > 1, granted.any())),
            writes.eq(writes + grant - self.i_response),
        ]
        with m.If(self.o_write_address.ready):
            m.d.sync += self.o_write_address.valid.eq(0)
        with m.If(grant):
            m.d.sync += [
                self.o_write_address.valid.eq(1), self.o_write_address.p.address.eq(save_address),
                save_address.eq(save_address + burst_bytes), save_left.eq(save_left - 1),
            ]
        m.d.sync += [coming.eq(row_port.read), held.eq(coming | (held & ~keep))]
        with m.If(row_port.read):
            m.d.sync += save_row.eq(save_row + 1)
        with m.If(keep):
            m.d.sync += [kept.eq(1), kept_row.eq(row), kept_recency.eq(recency)]
        with m.Elif(put & last_of_row):
            m.d.sync += kept.eq(0)
        with m.If(move):
            m.d.sync += out.valid.eq(put)
        with m.If(put):
            m.d.sync += [
                out.p.data.eq(word.word_select(part, 8 * BEAT_BYTES) if beats > 1 else word),
                out.p.last.eq(last_beat), beat.eq(beat + 1),
            ]
            with m.If(part == beats - 1):
                m.d.sync += [part.eq(0), way.eq(Mux(way == ways - 1, 0, way + 1))]
            with m.Else():
                m.d.sync += part.eq(1)

        # ---- Loading: a burst is asked for when its sets have been read; or sets are cleared.
        asked_row, load_row = Signal(range(design.sets + 1)), Signal(range(design.sets + 1))
        load_address = Signal(shell.address_bits)
        reads = Signal(range(design.outstanding_bursts + 1))
        load_way, second = Signal(range(max(ways, 2))), Signal()
        first = Signal(8 * BEAT_BYTES)
        ask, here, whole, clear = (Signal(name=name) for name in ("ask", "here", "whole", "clear"))
        came = Signal(8 * BEAT_BYTES * beats)
        m.d.comb += [
            self.i_beat.ready.eq(1),
            ask.eq(working & loading & ~self.flush & (asked_row != design.sets)
                   & (~saving | (asked_row + design.burst_sets <= save_row))
                   & ~self.o_address.valid & ~self.stop & (reads != design.outstanding_bursts)),
            here.eq(self.i_beat.valid & (self.i_beat.p.id == READ_BANKS)),
            whole.eq(here & (second if beats > 1 else 1)),
            came.eq(Cat(first, self.i_beat.p.data) if beats > 1 else self.i_beat.p.data),
            clear.eq(working & loading & self.flush & (load_row != design.sets)
                     & (~saving | (load_row < save_row))),
            row_port.write_set.eq(load_row), recency_port.write_set.eq(load_row),
        ]
        with m.If(whole):
            m.d.comb += [
                row_port.write.eq(1 << load_way), recency_port.write.eq(load_way == 0),
                *(row_port.data[n].eq(came[:self._entry.size]) for n in range(ways)),
                recency_port.data.eq(came[self._entry.size:]),
            ]
        with m.Elif(clear):
            m.d.comb += [row_port.write.eq(~0), recency_port.write.eq(1)]
        m.d.sync += reads.eq(
            reads + (self.o_address.valid & self.o_address.ready) - (here & self.i_beat.p.last))
        with m.If(self.o_address.ready):
            m.d.sync += self.o_address.valid.eq(0)
        with m.If(ask):
            m.d.sync += [
                self.o_address.valid.eq(1), self.o_address.p.id.eq(READ_BANKS),
                self.o_address.p.address.eq(load_address),
                self.o_address.p.length.eq(BURST_BEATS - 1),
                load_address.eq(load_address + burst_bytes),
                asked_row.eq(asked_row + design.burst_sets),
            ]
        with m.If(here):
            m.d.sync += first.eq(self.i_beat.p.data)
            if beats > 1:
                m.d.sync += second.eq(~second)
        with m.If(whole):
            m.d.sync += load_way.eq(Mux(load_way == ways - 1, 0, load_way + 1))
        with m.If(clear | (whole & (load_way == ways - 1))):
            m.d.sync += load_row.eq(load_row + 1)

        # ---- What begins and what ends.
        with m.If(begin):
            m.d.sync += [
                save_row.eq(0), save_left.eq(design.bursts), asked_row.eq(0), load_row.eq(0)]
        with m.If(self.start):
            m.d.sync += [save_address.eq(self.cache_address), load_address.eq(self.cache_address)]
        m.d.comb += [
            saved.eq(~saving | (~save_left.any() & ~granted.any())),
            end.eq(working & saved & (~loading | (load_row == design.sets))),
            self.idle.eq(~self.o_address.valid & ~reads.any() & ~writes.any()
                         & ~self.o_write_address.valid & ~out.valid),
            self.done.eq(~self.enable | (running & self._served & ~pending.any() & ~working
                                         & self.idle)),
        ]


"""The array of neural rendering units: splats in, pixels out, look-ups of a cache on the way."""

from functools import reduce
from itertools import pairwise
from operator import or_

from amaranth.hdl import *
from amaranth.lib import data, enum, stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from splatforge.designs.fetch import SplatFormat
from splatforge.designs.nru import RECORD_ID_BITS, NruDesign
from splatforge.designs.resolve import ResolveDesign
from splatforge.hw.array import (
    PIXELS_PER_GROUP,
    Array,
    bit_number,
    lowest_bit,
    one_of,
    part_layout,
    tile_layout,
)
from splatforge.hw.blend import Blend
from splatforge.hw.lib.component import Component
from splatforge.hw.lib.fixed import round_shift, shape_of
from splatforge.hw.lib.nru_front import Forms, UnitFront, form_layout
from splatforge.hw.lib.nru_unit import NruUnit, splat_layout
from splatforge.hw.radiance import RGB8, answer_layout, lookup_layout, walk_layout
from splatforge.hw.vru import numbered_splat_layout

__all__ = ["Nru", "answer_layout", "lookup_layout", "walk_layout"]


class Phase(enum.Enum, shape=3):
    """What the array is about."""

    WAIT = 0
    """For a chunk."""
    LOAD = 1
    """A tile has begun: what depends on its live pixels comes into registers."""
    LOCKSTEP = 2
    """A splat a cycle at all pixels."""
    SETTLE = 3
    """Until nothing is on the way, and no look-up is out."""
    PICK = 4
    """The next live pixel of every unit."""
    PASS = 5
    """Several splats a cycle at these."""
    DRAIN = 6
    """Until the front has no splats of the pass."""
    END = 7
    """The tile waits for the one before to leave."""


class Nru(Component):
    """Blend tiles on an array of units of a few pixels, and ask a cache for colours.

    Bit-true model: :func:`splatforge.algos.nru.nru_fixed`. Cycle model:
    :mod:`splatforge.sim.nru`.

    Splats of a tile are collected in chunks, a chunk while the one before is blended. In lockstep a
    splat goes to all pixels of the tile in a cycle. Where no unit has all of its pixels live, the
    rest of the chunk is blended in passes: every unit takes one of its live pixels and tests as
    many splats at it in a cycle as it has elements, ``unit_pixels``. That waits until every live
    pixel has its record and every look-up its answer, which may end pixels. Significant fragments
    wait in the units' queues; while one of them is short of room, the whole front stands still. A
    tile ends with its list, or where no pixel is live; then its pixels leave one a cycle, while the
    next tile is blended.

    Latency: :attr:`latency` cycles from the issue of a splat until its fragments are in the queues.
    Throughput: a splat a cycle in lockstep, ``unit_pixels`` a cycle in a pass; a pixel a cycle on
    ``o`` and ``o_walk``. Stall: a stalled ``o``, ``o_tile`` or ``o_walk`` stops the look-ups of the
    next tile and keeps it from ending, a stalled ``o_lookup`` keeps its own tile from ending.
    ``i_splat.ready`` and ``i_tile.ready`` depend on no input.

    Parameters
    ----------
    design : NruDesign
        Size and formats.
    splat : SplatFormat
        Formats of the splats.
    record_ids : int
        k, ids of a record.
    resolve : ResolveDesign
        Format of the background.

    Members
    -------
    caching, remapping : ``In(1)``
        Whether pixels are looked up, and whether chunks may be blended in passes. They and
        ``background`` must hold while there are tiles.
    background : ``In(ArrayLayout(UQ(1,8), 3))``
        Behind the colours of ``o_walk``.
    i_tile : ``In(stream.Signature(Tile))``
        See :func:`splatforge.hw.array.tile_layout`.
    i_splat : ``In(stream.Signature(Splat))``
        See :func:`splatforge.hw.vru.numbered_splat_layout`; subtiles are not looked at.
    skip : ``Out(1)``
        In this cycle the tile that was taken last ends; its remaining splats must be taken out of
        ``i_splat``.
    o_lookup : ``Out(stream.Signature(Lookup))``
        See :func:`lookup_layout`. A pixel asks once, if its record is complete; not before the walk
        of the tile before has been taken.
    i_answer : ``In(stream.Signature(Answer))``
        See :func:`answer_layout`: one for every look-up, in any order; always ready.
    o_walk : ``Out(stream.Signature(Walk))``
        See :func:`walk_layout`: pixels with complete records, row-major, then the tile's end.
    o_tile, o : ``Out(stream.Signature(...))``
        As of :class:`splatforge.hw.array.Array`.
    lockstep, remapped, stalled, starved, bypassed : ``Out(1)``
        For the counters: a splat is issued; ``unit_pixels`` are; one would be if queues had room;
        the array waits for a chunk; a pixel leaves whose record is not complete.
    """

    i_tile: stream.Interface
    i_splat: stream.Interface
    o_lookup: stream.Interface
    i_answer: stream.Interface
    o_walk: stream.Interface
    o_tile: stream.Interface
    o: stream.Interface

    #: Cycles from the issue of a splat until its fragments are in the queues.
    latency = 11
    #: Cycles in which everything is quiet until that is believed: registers lag behind.
    settle = 3

    def __init__(
        self,
        design: NruDesign = NruDesign(),  # noqa: B008
        splat: SplatFormat = SplatFormat(),  # noqa: B008
        record_ids: int = 5,
        resolve: ResolveDesign = ResolveDesign(),  # noqa: B008
    ) -> None:
        self.design, self.splat, self.record_ids = design, splat, record_ids
        self.resolve = resolve
        super().__init__({
            "caching": In(1), "remapping": In(1),
            "background": In(data.ArrayLayout(shape_of(resolve.background), 3)),
            "i_tile": In(stream.Signature(tile_layout())),
            "i_splat": In(stream.Signature(numbered_splat_layout(splat, RECORD_ID_BITS))),
            "skip": Out(1),
            "o_lookup": Out(stream.Signature(lookup_layout(record_ids))),
            "i_answer": In(stream.Signature(answer_layout())),
            "o_walk": Out(stream.Signature(walk_layout(record_ids))),
            "o_tile": Out(stream.Signature(part_layout(1))),
            "o": Out(stream.Signature(Array.group_layout(design.array))),
            "lockstep": Out(1), "remapped": Out(1), "stalled": Out(1), "starved": Out(1),
            "bypassed": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        design, pixels = self.design, self.design.unit_pixels
        count = design.units

        # ---- What the parts share.
        #: The tile that is blended: its part in the frame, its pixels by unit.
        size = Signal(part_layout(1))
        #: `ends` is a register: what it stops and frees is far behind the control.
        begin, ends = Signal(name="begin"), Signal(name="ends")
        live, complete, asked, hit = (
            [Signal(pixels, name=f"{name}_{n}") for n in range(count)]
            for name in ("live", "complete", "asked", "hit"))
        #: Not before the next tile's begin may these be wanted by the one that leaves. Whether one
        #: still leaves in the next cycle.
        emptying, leaves = Signal(name="emptying"), Signal(name="leaves")
        units = []
        for n in range(count):
            m.submodules[f"unit_{n}"] = unit = NruUnit(design, self.record_ids)
            m.d.comb += unit.begin.eq(begin)
            units.append(unit)

        #: Of the chunk that is blended; a register, set while the array waits for it.
        held = Signal(data.StructLayout({
            "splats": range(design.chunk_splats + 1), "last": 1,
            "rows": range(design.chunk_splats // pixels + 1)}))
        read, chunk, free = self._buffer(m, ends, held)
        quiet, issue = self._front(m, units, live, read)
        #: Pixel and half that are read of every unit: what asks, or what leaves.
        read_slot = Signal(range(2 * pixels))
        m.d.comb += [unit.read_slot.eq(read_slot) for unit in units]
        looking = self._lookups(m, units, complete, asked, emptying, read_slot)
        self._control(m, units, live, complete, begin, ends, leaves, looking, quiet, issue, chunk,
                      held, free)

        # ---- Pixels of the tile that is blended.
        answer = self.i_answer.p
        m.d.comb += self.i_answer.ready.eq(1)
        for n, unit in enumerate(units):
            found = Signal(pixels, name=f"found_{n}")
            m.d.comb += found.eq(Cat(
                self.i_answer.valid & answer.hit & (answer.pixel == self._number(n, q))
                for q in range(pixels)))
            with m.If(begin):
                m.d.sync += [
                    live[n].eq(Cat(
                        (x < chunk.size.columns) & (y < chunk.size.rows)
                        for x, y in (self._place(n, q) for q in range(pixels)))),
                    complete[n].eq(0), hit[n].eq(0),
                ]
            with m.Else():
                m.d.sync += [
                    live[n].eq(live[n] & ~unit.ended & ~found),
                    complete[n].eq(complete[n] | unit.complete),
                    hit[n].eq(hit[n] | found),
                ]
        with m.If(begin):
            m.d.sync += size.eq(chunk.size)
        self._empty(m, units, complete, hit, size, ends, emptying, leaves, read_slot)
        return m

    def _place(self, unit: int, pixel: int) -> tuple[int, int]:
        """Column and row in the tile of a unit's pixel."""
        design = self.design
        return (unit % design.units_x + pixel % design.pixels_x * design.units_x,
                unit // design.units_x + pixel // design.pixels_x * design.side)

    def _number(self, unit: int, pixel: int) -> int:
        """Number in the tile of a unit's pixel, row-major."""
        x, y = self._place(unit, pixel)
        return y * self.design.tile_px + x

    def _buffer(self, m, ends, held):
        """Splats into the buffer; returns its read port's signals, the chunk, and what frees it."""
        design, pixels = self.design, self.design.unit_pixels
        rows, pixel_bits = design.chunk_splats // pixels, (pixels - 1).bit_length()
        chunk = Signal(data.StructLayout({
            "full": 1, "splats": range(design.chunk_splats + 1), "last": 1,
            "size": part_layout(1)}), name="chunk")
        chunks = [Signal.like(chunk, name=f"chunk_{n}") for n in range(2)]
        filling, more, half, read_half = (
            Signal(name=name) for name in ("filling", "more", "fill_half", "read_half"))
        left, place = Signal(32), Signal(range(design.chunk_splats))
        tile = Signal(part_layout(1), name="tile_filled")
        # What the control says of the chunk that is blended: it is over, whole; or its tile is.
        free = Signal()
        take, close, other_full, other_last, drop = (
            Signal(name=name) for name in ("take", "close", "other_full", "other_last", "drop"))
        here, other = chunks[0], chunks[1]
        full = Mux(half, other.full, here.full)
        m.d.comb += [
            chunk.eq(Mux(read_half, other, here)),
            other_full.eq(Mux(read_half, here.full, other.full)),
            other_last.eq(Mux(read_half, here.last, other.last)),
            # The tile that ends has not come as a whole: its splats are not needed any more.
            drop.eq(ends & ~held.last),
            self.skip.eq(drop & ~other_last),
            self.i_tile.ready.eq(~filling & ~self.skip),
            self.i_splat.ready.eq(filling & more & ~full & ~self.skip),
            take.eq(self.i_splat.valid & self.i_splat.ready),
            close.eq(filling & ~full & ~self.skip
                     & (~more | (take & ((left == 1) | (place == design.chunk_splats - 1))))),
        ]
        with m.If(self.i_tile.valid & self.i_tile.ready):
            m.d.sync += [
                filling.eq(1), left.eq(self.i_tile.p.splats), more.eq(self.i_tile.p.splats.any()),
                place.eq(0), tile.columns.eq(self.i_tile.p.columns),
                tile.rows.eq(self.i_tile.p.rows)]
        with m.If(take):
            m.d.sync += [left.eq(left - 1), more.eq(left != 1), place.eq(place + 1)]
        with m.If(close):
            m.d.sync += half.eq(~half)
            with m.If(~more | (left == 1)):
                m.d.sync += filling.eq(0)
        with m.If(self.skip):
            m.d.sync += filling.eq(0)
        dropped = drop & other_full
        with m.If(free | ends):
            m.d.sync += read_half.eq(read_half ^ ~dropped)
        for number, each in enumerate(chunks):
            with m.If(close & (half == number)):
                m.d.sync += [
                    each.full.eq(1), each.last.eq(~more | (left == 1)), each.size.eq(tile),
                    each.splats.eq(place + take)]
            with m.If(((free | ends) & (read_half == number)) | dropped):
                # The last one is one that is full.
                m.d.sync += [each.full.eq(0), each.last.eq(0)]

        # As many splats side by side as a unit has pixels, those of a row.
        layout = numbered_splat_layout(self.splat, RECORD_ID_BITS)
        read = data.StructLayout({"enable": 1, "row": range(rows), "splats": data.ArrayLayout(
            layout, pixels)})
        port = Signal(read, name="buffer_read")
        for q in range(pixels):
            m.submodules[f"splats_{q}"] = memory = Memory(
                shape=layout.size, depth=2 * rows, init=[])
            write, look = memory.write_port(), memory.read_port()
            m.d.comb += [
                write.addr.eq(Cat(place[pixel_bits:], half)),
                write.data.eq(self.i_splat.payload),
                write.en.eq(take & (place[:pixel_bits] == q)),
                look.addr.eq(Cat(port.row, read_half)), look.en.eq(port.enable),
                port.splats[q].eq(look.data),
            ]
        return port, chunk, free

    def _front(self, m, units, live, read):
        """From a row of the buffer to the queues; returns what is quiet, and what is issued."""
        design, pixels = self.design, self.design.unit_pixels
        item = data.StructLayout({
            "valid": 1, "row": read["row"].shape(), "splat": range(pixels), "places": pixels,
            "remapped": 1})
        issue = Signal(item, name="issue")
        #: All stages move; a cycle before, every queue had room for what moves into it twice.
        move = Signal()
        self._move = move
        self._picked = [Signal(range(pixels), name=f"picked_{n}") for n in range(len(units))]
        self._has_picked = [Signal(name=f"has_picked_{n}") for n in range(len(units))]
        m.d.sync += move.eq(Cat(unit.room for unit in units).all())
        m.d.comb += [read.row.eq(issue.row), read.enable.eq(move)]

        stages = self.latency - 1
        valid = [issue.valid & move] + [Signal(name=f"valid_{n}") for n in range(1, stages + 1)]
        places = [issue.places] + [Signal(pixels, name=f"places_{n}", reset_less=True)
                                   for n in range(1, stages)]
        # Constant while anything is in the stages.
        remapped = Signal()
        #: Which of a row's splats is issued to all places; none where it is all of them.
        alone = Signal(pixels)
        layout = numbered_splat_layout(self.splat, RECORD_ID_BITS)
        chosen = [[Signal(layout, name=f"chosen_{q}_{n}", reset_less=True)
                   for q in range(pixels)] for n in range(2, stages + 1)]
        # Memories take more than half a cycle: one level of logic is in front of the registers,
        # which take one of two splats, and what is left is behind them.
        own = [Signal(layout.size, name=f"own_{q}", reset_less=True) for q in range(pixels)]
        shared = [Signal(layout.size, name=f"shared_{n}", reset_less=True)
                  for n in range(pixels // 2)]
        m.d.comb += [
            each.as_value().eq(reduce(or_, shared) | Mux(remapped, mine, 0))
            for each, mine in zip(chosen[0], own, strict=True)]
        with m.If(move):
            m.d.sync += [
                *(after.eq(before) for line in (valid, places) for before, after in pairwise(line)),
                *(each.eq(reduce(or_, (
                    Mux(alone[q], read.splats[q].as_value(), 0) for q in (2 * n, 2 * n + 1))))
                  for n, each in enumerate(shared)),
                # Behind the forms only colour and number go on.
                *(after[q].splat[name].eq(before[q].splat[name])
                  for before, after in pairwise(chosen) for q in range(pixels)
                  for name in ("red", "green", "blue")),
                *(after[q].id.eq(before[q].id)
                  for before, after in pairwise(chosen) for q in range(pixels)),
            ]
            with m.If(remapped):
                m.d.sync += [each.eq(read.splats[q].as_value()) for q, each in enumerate(own)]
            with m.If(issue.valid):
                m.d.sync += [remapped.eq(issue.remapped),
                             alone.eq(Mux(issue.remapped, 0, 1 << issue.splat))]

        forms = []
        # Units above each other look at the same columns, those beside each other at the same rows.
        fronts = [UnitFront(design) for _ in units]
        columns = [Signal(fronts[0].columns.shape(), name=f"columns_{x}")
                   for x in range(design.units_x)]
        rows = [Signal(fronts[0].rows.shape(), name=f"rows_{y}") for y in range(design.side)]
        rests = [Signal(fronts[0].rests.shape(), name=f"rests_{y}") for y in range(design.side)]
        #: What queues take of a row's splats.
        splats = Signal(data.ArrayLayout(splat_layout(design), pixels), name="blended")
        for q in range(pixels):
            m.submodules[f"forms_{q}"] = each = Forms(design, self.splat)
            m.d.comb += each.enable.eq(move)
            m.d.comb += [each.splat[name].eq(chosen[0][q].splat[name])
                         for name in form_layout(self.splat).members]
            forms.append(each)
            m.d.comb += [
                *(of[q][far].eq(each.columns[first + far * design.units_x])
                  for first, of in enumerate(columns) for far in range(design.pixels_x)),
                *(of[q][far].eq(values[first + far * design.side])
                  for values, parts in ((each.rows, rows), (each.rests, rests))
                  for first, of in enumerate(parts) for far in range(2)),
                splats[q].color.as_value().eq(Cat(
                    chosen[-1][q].splat[name] for name in ("red", "green", "blue"))),
                splats[q].id.eq(chosen[-1][q].id),
            ]
        for n, unit in enumerate(units):
            m.submodules[f"front_{n}"] = front = fronts[n]
            significant = Signal(pixels, name=f"significant_{n}")
            mask = Signal(pixels, name=f"mask_{n}", reset_less=True)
            p = Signal(front.p.shape(), name=f"p_{n}", reset_less=True)
            pixel = self._picked[n]
            m.d.comb += [
                front.enable.eq(move), front.remapped.eq(remapped), front.pixel.eq(pixel),
                front.columns.eq(columns[n % design.units_x]),
                front.rows.eq(rows[n // design.units_x]),
                front.rests.eq(rests[n // design.units_x]),
            ]
            alive = Mux(
                remapped,
                (live[n].bit_select(pixel, 1) & self._has_picked[n]).replicate(pixels)
                & places[-1], live[n])
            m.d.comb += significant.eq(front.significant & alive)
            with m.If(move):
                m.d.sync += [mask.eq(significant), p.eq(front.p)]
            m.d.comb += [
                unit.i.valid.eq(valid[-1] & move & mask.any()),
                unit.i.p.mask.eq(mask), unit.i.p.remapped.eq(remapped), unit.i.p.pixel.eq(pixel),
                unit.i.p.p.eq(p), unit.i.p.splat.eq(splats),
            ]
        empty, quiet = Signal(), Signal()
        m.d.comb += [
            empty.eq(~Cat(valid[1:]).any()),
            quiet.eq(empty & ~Cat(unit.busy for unit in units).any()),
        ]
        self._empty_front = empty
        return quiet, issue

    def _lookups(self, m, units, complete, asked, emptying, read_slot):
        """Pixels whose records are complete ask for their colours; returns whether any are out."""
        side, across, pixels = self.design.side, self.design.units_x, self.design.unit_pixels
        move, go = Signal(name="lookup_move"), Signal(name="lookup_go")
        wants = [Signal(pixels, name=f"wants_{n}") for n in range(len(units))]
        wanting, first = Signal(len(units)), Signal(len(units))
        any_of_four = Signal(-(-len(units) // 4), name="wanting_fours")
        #: Of the unit that comes first its pixel that does; none of the others.
        bits = [Signal(pixels, name=f"asks_{n}") for n in range(len(units))]
        pixel = Signal(pixels, name="asking_pixel")
        # Chosen; its row's records; out.
        valid = [Signal(name=f"lookup_{n}") for n in (1, 2)]
        unit_1 = Signal(len(units), reset_less=True)
        unit_2 = Signal(len(units), reset_less=True)
        slots = [Signal(range(pixels), name=f"lookup_slot_{n}", reset_less=True)
                 for n in (1, 2)]
        rows = [Signal(data.ArrayLayout(RECORD_ID_BITS, self.record_ids), name=f"records_{n}",
                       reset_less=True) for n in range(side)]
        out = Signal(range(len(units) * pixels + 1))
        wanted, looking = Signal(), Signal()

        def encoded(one_hot, stride, count):
            """Bits of the unit's number, counted in `stride`, below `count`."""
            return [
                Cat(one_hot[n] for n in range(len(units)) if n // stride % count >> bit & 1).any()
                for bit in range(count.bit_length() - 1)]

        m.d.comb += [
            *(each.eq(complete[n] & ~asked[n]) for n, each in enumerate(wants)),
            wanting.eq(Cat(each.any() for each in wants)),
            any_of_four.eq(Cat(wanting[n:n + 4].any() for n in range(0, len(units), 4))),
            first.eq(lowest_bit(wanting, any_of_four)),
            *(each.eq(Mux(first[n], lowest_bit(wants[n]), 0)) for n, each in enumerate(bits)),
            pixel.eq(reduce(or_, bits)),
            move.eq(~self.o_lookup.valid | self.o_lookup.ready),
            go.eq(move & self.caching & ~emptying),
            looking.eq(self.caching & (wanted | Cat(valid).any() | self.o_lookup.valid
                                       | out.any())),
        ]
        m.d.sync += [
            wanted.eq(any_of_four.any()),
            out.eq(out + (self.o_lookup.valid & self.o_lookup.ready) - self.i_answer.valid),
        ]
        for n, each in enumerate(asked):
            # Asked for is what is complete: both begin anew with a tile.
            m.d.sync += each.eq(complete[n] & (each | Mux(go, bits[n], 0)))
        slot = bit_number(pixel)
        with m.If(move & ~emptying):
            m.d.sync += read_slot.eq(Cat(slot, units[0].current))
        with m.If(move):
            m.d.sync += [
                valid[0].eq(go & first.any()), valid[1].eq(valid[0]),
                self.o_lookup.valid.eq(valid[1]),
                unit_1.eq(first), unit_2.eq(unit_1),
                slots[0].eq(slot), slots[1].eq(slots[0]),
                self.o_lookup.p.record.as_value().eq(reduce(or_, (
                    Mux(unit_2[y * across:(y + 1) * across].any(), row.as_value(), 0)
                    for y, row in enumerate(rows)))),
                self.o_lookup.p.pixel.eq(Cat(
                    *encoded(unit_2, 1, across), slots[1][:-1],
                    *encoded(unit_2, across, side), slots[1][-1])),
            ]
            # Look-ups are rare: what they read need not move in other cycles.
            with m.If(valid[0]):
                m.d.sync += [
                    row.as_value().eq(reduce(or_, (
                        Mux(unit_1[y * across + x], units[y * across + x].record.as_value(), 0)
                        for x in range(across)))) for y, row in enumerate(rows)]
        return looking

    def _control(self, m, units, live, complete, begin, ends, leaves, looking, quiet, issue, chunk,
                 held, free):
        """What is issued in a cycle, and when a chunk or a tile is over."""
        design, pixels = self.design, self.design.unit_pixels
        rows, pixel_bits = design.chunk_splats // pixels, (pixels - 1).bit_length()
        phase = Signal(Phase)
        fresh = Signal(init=1)
        #: Splats of the chunk that all pixels have had, and rows of a pass.
        at = Signal(range(design.chunk_splats + 1))
        row = Signal(range(rows + 1))
        load = Signal(2)
        calm = Signal(range(self.settle + 1))
        #: Of the units' live pixels: whether one has one, two, and so on. A cycle late, as is
        #: whether one has no record yet, whether all is quiet, and whether a pass has live pixels.
        most = Signal(pixels)
        recording, still, alive = (Signal(name=name) for name in ("recording", "still", "alive"))
        #: Passes behind the next one.
        passes = Signal(pixels)
        todo = [Signal(pixels, name=f"todo_{n}") for n in range(len(units))]

        def at_least(mask: Value, count: int) -> Value:
            bits = list(mask)
            if count == 0:
                return C(1, 1)
            if len(bits) > 4:
                lower, upper = mask[:4], mask[4:]
                return reduce(or_, (
                    at_least(lower, n) & at_least(upper, count - n)
                    for n in range(max(0, count - 4), min(4, count) + 1)))
            if count == 1:
                return mask.any()
            if count == 1:
                return mask.any()
            if count == len(bits):
                return mask.all()
            # A bit is set below that of which as many are as are wanted in all.
            return reduce(or_, (
                bit & at_least(mask[:place], count - 1)
                for place, bit in enumerate(bits) if place >= count - 1))

        m.d.sync += [
            *(most[n].eq(Cat(at_least(each, n + 1) for each in live).any())
              for n in range(pixels)),
            recording.eq(self.caching & Cat(
                (each & ~done).any() for each, done in zip(live, complete, strict=True)).any()),
            still.eq(quiet),
            alive.eq(Cat(has & each.bit_select(pixel, 1) for has, each, pixel in zip(
                self._has_picked, live, self._picked, strict=True)).any()),
            calm.eq(0),
        ]
        remains = Signal(pixels)
        m.d.comb += [
            # The last row of a chunk may not be whole.
            remains.eq(Mux((row + 1 == held.rows) & held.splats[:pixel_bits].any(),
                           (1 << held.splats[:pixel_bits]) - 1, (1 << pixels) - 1)),
            issue.row.eq(at >> pixel_bits), issue.splat.eq(at[:pixel_bits]),
            issue.places.eq((1 << pixels) - 1),
            self.starved.eq((phase == Phase.WAIT) & ~chunk.full),
            self.lockstep.eq((phase == Phase.LOCKSTEP) & issue.valid & self._move),
            self.remapped.eq((phase == Phase.PASS) & issue.valid & self._move),
            self.stalled.eq(issue.valid & ~self._move),
        ]
        with m.Switch(phase):
            with m.Case(Phase.WAIT):
                m.d.sync += [
                    at.eq(0), load.eq(0), held.splats.eq(chunk.splats), held.last.eq(chunk.last),
                    held.rows.eq((chunk.splats + pixels - 1) >> pixel_bits)]
                with m.If(chunk.full):
                    m.d.comb += begin.eq(fresh)
                    m.d.sync += [phase.eq(Mux(fresh, Phase.LOAD, Phase.LOCKSTEP)), fresh.eq(0)]
            with m.Case(Phase.LOAD):
                m.d.sync += load.eq(load + 1)
                with m.If(load == 1):
                    m.d.sync += phase.eq(Phase.LOCKSTEP)
            with m.Case(Phase.LOCKSTEP):
                with m.If(~most.any() | ((at == held.splats) & held.last)):
                    m.d.sync += phase.eq(Phase.SETTLE)
                with m.Elif(at == held.splats):
                    m.d.comb += free.eq(1)
                    m.d.sync += phase.eq(Phase.WAIT)
                with m.Elif(self.remapping & ~at[:pixel_bits].any() & ~most[-1] & ~recording
                            & ~looking):
                    m.d.sync += phase.eq(Phase.SETTLE)
                with m.Else():
                    m.d.comb += issue.valid.eq(1)
                    m.d.sync += at.eq(at + self._move)
            with m.Case(Phase.SETTLE):
                m.d.sync += passes.eq(most)
                with m.If(still & ~looking):
                    m.d.sync += calm.eq(calm + 1)
                with m.If(calm == self.settle):
                    with m.If(~most.any() | (at == held.splats)):
                        m.d.sync += [phase.eq(Phase.END), ends.eq(~leaves)]
                    with m.Else():
                        m.d.sync += phase.eq(Phase.PICK)
                        m.d.sync += [each.eq(those)
                                     for each, those in zip(todo, live, strict=True)]
            with m.Case(Phase.PICK):
                # Twice: the second time it is in registers whether the pixels live.
                m.d.sync += [row.eq(at >> pixel_bits), load.eq(load + 1)]
                with m.If(~load[0]):
                    m.d.sync += passes.eq(passes >> 1)
                    for each, has, pixel in zip(
                            todo, self._has_picked, self._picked, strict=True):
                        lowest = lowest_bit(each)
                        m.d.sync += [
                            each.eq(each & ~lowest), has.eq(each.any()),
                            pixel.eq(bit_number(lowest))]
                with m.Else():
                    m.d.sync += phase.eq(Phase.PASS)
            with m.Case(Phase.PASS):
                m.d.comb += [issue.row.eq(row), issue.places.eq(remains), issue.remapped.eq(1)]
                with m.If((row == held.rows) | ~alive):
                    m.d.sync += phase.eq(Phase.DRAIN)
                with m.Else():
                    m.d.comb += issue.valid.eq(1)
                    m.d.sync += row.eq(row + self._move)
            with m.Case(Phase.DRAIN):
                with m.If(self._empty_front):
                    m.d.sync += phase.eq(Mux(passes.any(), Phase.PICK, Phase.LOCKSTEP))
                    with m.If(~passes.any()):
                        m.d.sync += at.eq(held.splats)
            with m.Case(Phase.END):
                m.d.sync += ends.eq(~ends & ~leaves)
                with m.If(ends):
                    m.d.sync += [phase.eq(Phase.WAIT), fresh.eq(1)]

    def _empty(self, m, units, complete, hit, size, ends, emptying, leaves, read_slot):
        """Pixels of a finished tile, one a cycle: to the framebuffer, and to the cache."""
        design, pixels = self.design, self.design.unit_pixels
        side, across = design.side, design.units_x
        blend = design.blend
        state_shape = Blend.state_layout(design.array)
        half = Signal(name="leaving_half")
        part = Signal(part_layout(1), name="leaving")
        hits, completes = ([Signal(pixels, name=f"leaving_{name}_{n}")
                            for n in range(len(units))] for name in ("hit", "complete"))
        bits = range(2 * side)
        x, y = Signal(bits, name="leaving_x"), Signal(bits, name="leaving_y")
        asking, mark, closing = (Signal(name=name) for name in ("asking", "mark", "closing"))
        move, last_x, last_y = (Signal(name=name) for name in ("empty_move", "last_x", "last_y"))
        with m.If(ends):
            m.d.sync += [
                emptying.eq(1), half.eq(units[0].current), part.eq(size), self.o_tile.valid.eq(1),
                *(after.eq(before) for before, after in zip(hit, hits, strict=True)),
                *(after.eq(before) for before, after in zip(complete, completes, strict=True))]
        m.d.comb += [
            self.o_tile.payload.eq(part),
            move.eq((~self.o.valid | self.o.ready) & (~self.o_walk.valid | self.o_walk.ready)),
            last_x.eq(x + 1 == part.columns), last_y.eq(y + 1 == part.rows),
        ]
        with m.If(self.o_tile.valid & self.o_tile.ready):
            m.d.sync += [self.o_tile.valid.eq(0), asking.eq(1), x.eq(0), y.eq(0)]
        with m.If(move):
            m.d.sync += mark.eq(asking & last_x & last_y)
            with m.If(asking):
                m.d.sync += x.eq(x + 1)
                with m.If(last_x):
                    m.d.sync += [x.eq(0), y.eq(y + 1)]
                    with m.If(last_y):
                        m.d.sync += asking.eq(0)

        # ---- A pixel: 1 its slot, 2 its row's units, 3 itself, 4 with the cache's colour, then
        # that over the background in three stages. Behind a tile's last one comes its mark.
        low_x, low_y = (each.bit_length() - 1 for each in (across, side))
        item = data.StructLayout({
            "valid": 1, "mark": 1, "x": bits, "y": bits, "group": 1, "complete": 1, "hit": 1})
        stages = [Signal(item, name=f"leaving_{n}") for n in range(1, 8)]
        one, two, three, four, *_, seven = stages
        records = [Signal(data.ArrayLayout(RECORD_ID_BITS, self.record_ids),
                          name=f"leaving_record_{n}", reset_less=True) for n in range(3, 8)]
        state = Signal(state_shape, name="state_3", reset_less=True)
        shown = Signal(state_shape, name="state_4", reset_less=True)
        cached = Signal(RGB8)
        row_layout = data.StructLayout({
            "state": state_shape, "record": records[0].shape(), "complete": 1, "hit": 1})
        rows = [Signal(row_layout, name=f"leaving_row_{n}", reset_less=True) for n in range(side)]
        slot = Signal(range(pixels), name="leaving_slot")
        m.d.comb += slot.eq(Cat(one.x[low_x:], one.y[low_y]))
        with m.If(move & emptying):
            m.d.sync += read_slot.eq(Cat(x[low_x:], y[low_y], half))

        m.submodules.cached = colors = Memory(
            shape=RGB8.size, depth=2 * len(units) * pixels, init=[])
        write, look = colors.write_port(), colors.read_port()
        answer = self.i_answer.p
        number_bits = len(x) + len(y)
        m.d.comb += [
            write.addr.eq(Cat(answer.pixel[:number_bits], units[0].current)),
            write.data.eq(answer.color.as_value()),
            write.en.eq(self.i_answer.valid & answer.hit),
            look.addr.eq(Cat(two.x, two.y, half)), look.en.eq(move), cached.eq(look.data),
        ]
        chosen = data.View(row_layout, Signal(row_layout.size, name="leaving_chosen"))
        m.d.comb += chosen.as_value().eq(one_of(rows, two.y[:low_y]))
        # v / 255 is v in every byte, as often as one likes.
        frac = blend.accumulator.frac_bits
        copies = -(-(frac + 8) // 8)
        total_shape = self._total_shape(blend)
        up = blend.transmittance.frac_bits + self.resolve.background.frac_bits - frac
        frac_bits = frac + up
        behind = Signal(data.ArrayLayout(
            blend.transmittance.width + self.resolve.background.width, 3), reset_less=True)
        front = Signal(state_shape.members["color"], name="color_5", reset_less=True)
        total = Signal(data.ArrayLayout(total_shape, 3), reset_less=True)
        color = Signal(RGB8, name="color_7", reset_less=True)
        with m.If(move):
            m.d.sync += [
                *(after.eq(before) for before, after in pairwise(stages)),
                one.valid.eq(asking), one.mark.eq(mark), one.x.eq(x), one.y.eq(y),
                one.group.eq(x[:2].all() | last_x),
                three.complete.eq(chosen.complete), three.hit.eq(chosen.hit),
                state.eq(chosen.state), records[0].eq(chosen.record),
                *(after.eq(before) for before, after in pairwise(records)),
                *(behind[c].eq(shown.transmittance * self.background[c]) for c in range(3)),
                front.eq(shown.color),
                *(total[c].eq((front[c] << up) + behind[c]) for c in range(3)),
            ]
            with m.If(one.valid):
                for number, row in enumerate(rows):
                    of_row = slice(number * across, (number + 1) * across)
                    at = one.x[:low_x]
                    m.d.sync += [
                        row.state.as_value().eq(one_of([each.state for each in units[of_row]], at)),
                        row.record.as_value().eq(
                            one_of([each.record for each in units[of_row]], at)),
                        row.complete.eq(one_of(completes[of_row], at).bit_select(slot, 1)),
                        row.hit.eq(one_of(hits[of_row], at).bit_select(slot, 1)),
                    ]
            m.d.sync += shown.eq(state)
            with m.If(three.hit):
                m.d.sync += shown.transmittance.eq(0)
                m.d.sync += [
                    shown.color[c].eq(round_shift(
                        Cat([cached[c]] * copies), 8 * copies - frac)) for c in range(3)]
            for c in range(3):
                eight = round_shift((total[c] << 8) - total[c], frac_bits)
                m.d.sync += color[c].eq(Mux(eight > 255, 255, eight))

        # ---- Out.
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(self.o_walk.ready):
            m.d.sync += self.o_walk.valid.eq(0)
        with m.If(move):
            m.d.sync += [
                self.o.valid.eq(four.valid & four.group),
                self.o_walk.valid.eq(self.caching & (seven.mark | (seven.valid & seven.complete))),
                self.o_walk.p.last.eq(seven.mark), self.o_walk.p.hit.eq(seven.hit),
                self.o_walk.p.pixel.eq(Cat(seven.x, seven.y)),
                self.o_walk.p.record.eq(records[-1]), self.o_walk.p.color.eq(color),
            ]
            for n in range(PIXELS_PER_GROUP):
                with m.If(four.valid & (four.x[:2] == n)):
                    m.d.sync += self.o.payload[n].eq(shown)
            with m.If(seven.mark):
                m.d.sync += closing.eq(1)
        m.d.comb += self.bypassed.eq(move & self.caching & seven.valid & ~seven.complete)
        closed = closing & ~self.o.valid & ~self.o_walk.valid
        m.d.comb += leaves.eq(emptying & ~closed)
        with m.If(closed):
            m.d.sync += [closing.eq(0), emptying.eq(0)]

    def _total_shape(self, blend):
        """Bits of a colour over the background."""
        up = (blend.transmittance.frac_bits + self.resolve.background.frac_bits
              - blend.accumulator.frac_bits)
        return blend.accumulator.width + up + 1

"""The rendering array: splats in, pixels out, two tiles or groups of tiles in flight."""

from collections.abc import Sequence
from functools import reduce
from operator import or_

from amaranth.hdl import C, Cat, Module, Mux, Shape, Signal, Value, ValueLike
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out

from splatforge.designs.array import ArrayDesign
from splatforge.designs.falloff import FalloffDesign
from splatforge.designs.fetch import SUBTILE_PX, SUBTILES, TILE_PX, SplatFormat
from splatforge.hw.alpha import Alpha
from splatforge.hw.blend import Blend
from splatforge.hw.falloff import Falloff
from splatforge.hw.lib.component import Component
from splatforge.hw.lib.copies import copy_of
from splatforge.hw.lib.fixed import shape_of

__all__ = ["PIXELS_PER_GROUP", "Array", "bit_number", "group_splat_layout", "lowest_bit", "one_of",
           "part_layout", "several_bits", "splat_layout", "tile_layout"]

#: Pixels of one transfer on the array's output.
PIXELS_PER_GROUP = 4


def splat_layout(splat: SplatFormat) -> data.StructLayout:
    """One record of a tile list, fields from bit 0 upward."""
    return data.StructLayout({
        name: Shape(width, signed=signed) for name, width, signed in splat.fields()
    })


def tile_layout() -> data.StructLayout:
    """What stands in front of a tile's splats: how many, and how much of it is in the frame."""
    return data.StructLayout({
        "columns": range(TILE_PX + 1), "rows": range(TILE_PX + 1), "splats": 32,
    })


def part_layout(side: int) -> data.StructLayout:
    """How much of a group of `side` tiles a side lies in the frame, in pixels."""
    pixels = range(TILE_PX * side + 1)
    return data.StructLayout({"columns": pixels, "rows": pixels})


def group_splat_layout(splat: SplatFormat, side: int) -> data.StructLayout:
    """A splat, and its tile among those of the group, row-major."""
    return data.StructLayout({"splat": splat_layout(splat), "tile": range(max(2, side * side))})


def fours(mask: Value) -> list[Value]:
    """The bits of `mask` in groups of four."""
    return [mask[at:at + 4] for at in range(0, len(mask), 4)]


def lowest_bit(mask: Value, any_of_four: Value | None = None) -> Value:
    """`mask` without all but its lowest bit, as a tree of groups of four.

    Parameters
    ----------
    mask : Value
        Of any width.
    any_of_four : Value, optional
        Of each group of four bits whether one is set, where that is known.
    """
    groups = fours(mask)
    if any_of_four is None:
        any_of_four = Cat(group.any() for group in groups)
    return Cat(
        bit & ~Cat(group[:place], any_of_four[:number]).any() if place or number else bit
        for number, group in enumerate(groups) for place, bit in enumerate(group))


def bit_number(one_hot: Value) -> Value:
    """Number of the one bit that is set; zero where none is."""
    return Cat(reduce(or_, (one_hot[n] for n in range(len(one_hot)) if n >> bit & 1))
               for bit in range((len(one_hot) - 1).bit_length()))


def one_of(values: Sequence[ValueLike], number: Value | Sequence[Value]) -> Value:
    """One of `values`, that of a number in bits, the lowest first.

    A tree of choices between two: a shift of all of them is as much logic, but a simulator in C++
    puts together what it shifts in every cycle.
    """
    if len(number) == 0:
        return Value.cast(values[0])
    *lower, highest = number
    half = 1 << len(lower)
    return Mux(highest, one_of(values[half:], lower), one_of(values[:half], lower))


def several_bits(mask: Value) -> Value:
    """Whether `mask` has more than one bit, as a tree of groups of four."""
    if len(mask) == 1:
        return C(0, 1)
    if len(mask) <= 4:
        return Cat(mask[bit] & mask[:bit].any() for bit in range(1, len(mask))).any()
    groups = fours(mask)
    return (Cat(several_bits(group) for group in groups).any()
            | several_bits(Cat(group.any() for group in groups)))


class Array(Component):
    """Blend tile after tile, one block of ``lanes`` pixels per cycle.

    Bit-true model: :func:`splatforge.algos.array.array_fixed`. Cycle model:
    :mod:`splatforge.sim.array`.

    A splat costs one cycle for each block that its subtile mask touches and that still has a live
    pixel; a splat without any costs the cycle in which it is taken. A tile ends with its last splat
    or when no pixel is live; then ``skip`` tells in one cycle that the rest of the tile's splats
    must not come. The state is held for two tiles: while one is emptied the next is blended.
    Latency: :attr:`latency` cycles from the last block of a tile to the first cycle in which ``o``
    can transfer its first pixels; throughput: one block per cycle, and one group of four pixels per
    cycle on ``o``. Stall: a stalled ``o`` stops nothing until both halves of the state are full;
    then ``i_tile`` waits. ``i_splat.ready`` depends on no input combinationally.

    With ``group_tiles`` all this is so of groups: a splat is of one tile of its group, the state is
    held for two groups, and a finished group leaves tile after tile, row-major, those outside of
    the frame left out. A group ends when it is said to, behind its last splat, or when no pixel of
    it is live.

    Parameters
    ----------
    design : ArrayDesign
        Lanes and formats, and whether tiles or groups come.
    splat : SplatFormat
        Format of the records.

    Members
    -------
    i_tile : ``In(stream.Signature(Tile))``
        ``columns`` and ``rows`` of the tile inside of the frame, 1 to 16; ``splats`` that follow.
    i_splat : ``In(stream.Signature(Splat))``
        Records in list order, see :class:`splatforge.designs.fetch.SplatFormat`.
    i_group : ``In(stream.Signature(Part))``
        Of groups, in place of ``i_tile``: ``columns`` and ``rows`` of it inside of the frame. Each
        splat then comes with its tile, see :func:`group_splat_layout`.
    finish : ``In(1)``
        Of groups: behind the splats that have been taken there are no more. None may be offered.
    dead : ``Out(side ** 2)``
        Of groups: the tiles of the current group without a live pixel.
    ended : ``Out(1)``
        Of groups: in this cycle the current group ends.
    skip : ``Out(1)``
        Of tiles: in this cycle the current tile ends; its remaining splats must be taken out of
        ``i_splat``.
    o_tile : ``Out(stream.Signature(Tile))``
        ``columns`` and ``rows`` of a finished tile, in order; its pixels follow on ``o``.
    o : ``Out(stream.Signature(Group))``
        Four pixels side by side, rows from the top, groups from the left, only those that begin
        inside of the frame: colour 3 x UQ(3,18) and T UQ(1,17).
    busy, starved, skipped, blocked : ``Out(1)``
        For the counters, never two in one cycle: a block is issued; a tile waits for splats and
        holds none; a splat without a live block is passed over; the next tile waits for state.
    stopped : ``Out(1)``
        For one cycle: a tile ended before its list did.
    """

    i_tile: stream.Interface
    i_splat: stream.Interface
    o_tile: stream.Interface
    o: stream.Interface

    #: Registers between the choice of a block and the lanes.
    issue = 2
    #: Cycles from the issue of a tile's last block until ``o`` can transfer its first pixels.
    latency = issue + Alpha.latency + Blend.latency + 5

    def __init__(
        self,
        design: ArrayDesign = ArrayDesign(),  # noqa: B008
        splat: SplatFormat = SplatFormat(),  # noqa: B008
    ) -> None:
        self.design, self.splat = design, splat
        side = design.side
        super().__init__({
            **({
                "i_group": In(stream.Signature(part_layout(side))),
                "i_splat": In(stream.Signature(group_splat_layout(splat, side))),
                "finish": In(1), "dead": Out(side * side), "ended": Out(1),
            } if design.group_tiles else {
                "i_tile": In(stream.Signature(tile_layout())),
                "i_splat": In(stream.Signature(splat_layout(splat))),
                "skip": Out(1),
            }),
            "o_tile": Out(stream.Signature(data.StructLayout({
                "columns": range(TILE_PX + 1), "rows": range(TILE_PX + 1)}))),
            "o": Out(stream.Signature(self.group_layout(design))),
            "busy": Out(1), "starved": Out(1), "skipped": Out(1), "blocked": Out(1),
            "stopped": Out(1),
        })

    @staticmethod
    def group_layout(design: ArrayDesign) -> data.ArrayLayout:
        """Payload of ``o``."""
        return data.ArrayLayout(Blend.state_layout(design), PIXELS_PER_GROUP)

    def elaborate(self, platform):
        m = Module()
        design = self.design
        blocks, block_bits = design.blocks, max(1, (design.blocks - 1).bit_length())
        side, places, grouped = design.side, design.places, design.group_tiles > 0
        carry = data.StructLayout({
            "color": data.ArrayLayout(shape_of(design.blend.color), 3),
            "slot": range(2 * places), "first": 1,
            "columns": design.block_width, "rows": design.block_height,
        })
        evaluate = Falloff if isinstance(design.alpha, FalloffDesign) else Alpha
        m.submodules.alpha = alpha = evaluate(design, self.splat, carry.size)
        m.submodules.blend = blend = Blend(design)

        # One tile is blended (`half`), the other half of the state is free, filling or emptied.
        active = Signal()
        half = Signal()
        remaining = Signal(32)
        columns, rows = (Signal(data.ArrayLayout(range(TILE_PX * side + 1), 2), name=name)
                         for name in ("columns", "rows"))
        held = Signal(2)
        touched = Signal(data.ArrayLayout(places, 2))
        dead = Signal(places)
        splat = Signal(splat_layout(self.splat), reset_less=True)
        # Of the splat: its tile in the group.
        tile = Signal(range(max(2, side * side)))
        splat_valid = Signal()
        pending = Signal(blocks)

        # Issue: the lowest pending block with a live pixel. Which blocks are candidates and whether
        # all are dead is in registers: `dead` counts from the next cycle on. So is whether there
        # are any, or several, in each four of the candidates: whether the splat's next block is its
        # last decides in the same cycle about everything else.
        candidates = Signal(blocks)
        number_of_fours = len(fours(candidates))
        any_of_four, several_of_four = (
            Signal(number_of_fours, name=name) for name in ("any_of_four", "several_of_four"))
        all_dead = Signal()
        rest = Signal(blocks)
        lowest = Signal(blocks)
        more = Signal()
        splat_free = Signal()
        end = Signal()
        offered, takes = Signal(), Signal()
        masks = design.block_subtiles()
        arrives = self.i_group if grouped else self.i_tile
        record = self.i_splat.p.splat if grouped else self.i_splat.payload
        incoming = Signal(blocks)
        m.d.comb += incoming.eq(Cat((record.subtiles & mask).any() for mask in masks))
        if grouped:
            expects = more & ~self.finish
            # Of the tile whose splat comes, and of that whose splat stays.
            gone = [dead.word_select(of, blocks) for of in (self.i_splat.p.tile, tile)]
            told = [
                self.ended.eq(end),
                self.dead.eq(Cat(dead.word_select(n, blocks).all() for n in range(side * side)))]
            waits = self.i_splat.ready & ~self.finish
        else:
            expects, gone, waits = more, [dead, dead], self.i_splat.ready
            told = [self.skip.eq(active & all_dead & more)]
        m.d.comb += [
            lowest.eq(lowest_bit(candidates, any_of_four)),
            rest.eq(candidates & ~lowest),
            splat_free.eq(~several_of_four.any() & ~several_bits(any_of_four)),
            self.busy.eq(any_of_four.any()),
            self.skipped.eq(splat_valid & ~any_of_four.any()),
            self.i_splat.ready.eq(active & splat_free & more & ~all_dead),
            end.eq(active & (all_dead | (splat_free & ~expects))),
            *told,
            self.stopped.eq(active & all_dead & (expects | (pending.any() & splat_valid))),
            self.starved.eq(waits & ~self.i_splat.valid & ~splat_valid),
            offered.eq(self.i_splat.valid & active & more & ~all_dead),
            takes.eq(splat_free & offered),
        ]
        comes, stays = incoming & ~gone[0], rest & ~gone[1]

        # Of a splat that is free nothing stays: so that may be left to chance.
        def follows(comes, stays):
            return stays | comes & takes.replicate(len(comes))

        m.d.sync += [
            pending.eq(follows(incoming, rest)),
            candidates.eq(follows(comes, stays)),
            *(after.eq(Cat(follows(of(one), of(other))
                           for one, other in zip(fours(comes), fours(stays), strict=True)))
              for after, of in ((any_of_four, Value.any), (several_of_four, several_bits))),
            all_dead.eq(dead.all()),
        ]
        # Splats are counted a cycle late. So it is known what is left behind one, and behind two.
        took, one_left, two_left = (Signal(name=name) for name in ("took", "one_left", "two_left"))
        if not grouped:
            m.d.sync += [
                took.eq(takes),
                one_left.eq(Mux(took, remaining == 2, remaining == 1)),
                two_left.eq(Mux(took, remaining == 3, remaining == 2)),
            ]
            with m.If(took):
                m.d.sync += remaining.eq(remaining - 1)
        # What is not valid may be anything, so that little decides whether a splat moves. Its many
        # bits come in every cycle: a cycle later it is in a register whether they did move, and
        # each field has its own.
        m.d.sync += splat.eq(record)
        with m.If(splat_free):
            m.d.sync += splat_valid.eq(offered)
            if grouped:
                m.d.sync += tile.eq(self.i_splat.p.tile)
        if not grouped:
            with m.If(takes):
                m.d.sync += more.eq(~Mux(took, two_left, one_left))

        # Tiles come and go. The next one starts in the cycle after the last one's end.
        m.d.comb += [
            arrives.ready.eq(~active & ~held.bit_select(~half, 1)),
            self.blocked.eq(arrives.valid & ~active & held.bit_select(~half, 1)),
        ]
        free = Signal(2)
        m.d.sync += held.eq(held & ~free)
        with m.If(end):
            m.d.sync += active.eq(0)
        # What is only looked at of an active tile may be anything before it comes.
        with m.If(arrives.ready):
            follow = [more.eq(1)] if grouped else [
                remaining.eq(self.i_tile.p.splats), more.eq(self.i_tile.p.splats.any()),
                one_left.eq(self.i_tile.p.splats == 1), two_left.eq(self.i_tile.p.splats == 2)]
            m.d.sync += [
                *follow, all_dead.eq(0),
                columns[~half].eq(arrives.p.columns), rows[~half].eq(arrives.p.rows),
                touched[~half].eq(0),
            ]
        with m.If(arrives.valid & arrives.ready):
            m.d.sync += [
                active.eq(1), half.eq(~half), held.eq((held & ~free) | (Mux(half, 1, 2)))]
        outside = Signal(places)
        m.d.comb += outside.eq(Cat(
            (TILE_PX * (n % side) + (number % design.blocks_x) * design.block_width
             >= arrives.p.columns)
            | (TILE_PX * (n // side) + (number // design.blocks_x) * design.block_height
               >= arrives.p.rows)
            for n in range(side * side) for number in range(blocks)))
        ended = Signal(places)
        with m.If(blend.o.valid & blend.o.p.dead & (blend.o.p.slot // places == half)):
            m.d.comb += ended.eq(1 << (blend.o.p.slot % places))
        begins = arrives.ready & arrives.valid if grouped else arrives.ready
        m.d.sync += dead.eq(Mux(begins, outside, dead | ended))
        m.d.comb += blend.o.ready.eq(1)

        # From the issue to the lanes: a register of the choice, and one of what follows from it.
        chosen = Signal(blocks)
        chosen_splat = Signal(splat_layout(self.splat), reset_less=True)
        chosen_half = Signal()
        m.d.sync += [chosen.eq(lowest), chosen_half.eq(half)]
        for name, _, _ in self.splat.fields():
            with m.If(copy_of(m, splat_free, C(1, 1))):
                m.d.sync += chosen_splat[name].eq(splat[name])
        chosen_tile = Signal.like(tile)
        mark = chosen
        if grouped:
            m.d.sync += chosen_tile.eq(tile)
            mark = Cat(chosen & (chosen_tile == n).replicate(blocks) for n in range(side * side))
        m.d.sync += touched[chosen_half].eq(touched[chosen_half] | mark)
        block = Signal(block_bits)
        m.d.comb += block.eq(Cat(
            Cat(chosen[number] for number in range(blocks) if number >> bit & 1).any()
            for bit in range(block_bits)))
        issue_carry = Signal(carry)
        x0 = (block % design.blocks_x) * design.block_width
        y0 = (block // design.blocks_x) * design.block_height
        place = block
        if grouped:
            x0, y0 = x0 + chosen_tile % side * TILE_PX, y0 + chosen_tile // side * TILE_PX
            place = chosen_tile * blocks + block
        m.d.comb += [
            issue_carry.color.as_value().eq(
                Cat(chosen_splat.red, chosen_splat.green, chosen_splat.blue)),
            issue_carry.slot.eq(chosen_half * places + place),
            issue_carry.first.eq(~(touched[chosen_half] & mark).any()),
            issue_carry.columns.eq(Cat(x0 + x < columns[chosen_half]
                                       for x in range(design.block_width))),
            issue_carry.rows.eq(Cat(y0 + y < rows[chosen_half]
                                    for y in range(design.block_height))),
        ]
        reach = Signal(design.lanes // SUBTILE_PX**2)
        m.d.comb += reach.eq(reduce(or_, (
            Cat(chosen_splat.subtiles[k] & chosen[number]
                for k in range(SUBTILES) if mask >> k & 1)
            for number, mask in enumerate(masks))))
        m.d.sync += alpha.i.valid.eq(chosen.any())
        m.d.sync += [alpha.i.p[name].eq(chosen_splat[name])
                     for name in ("u0", "v0", "a", "b", "c", "log_opacity")]
        m.d.sync += [
            alpha.i.p.block.eq(block), alpha.i.p.reach.eq(reach), alpha.i.p.carry.eq(issue_carry),
        ]
        blend_carry = data.View(carry, alpha.o.p.carry)
        m.d.comb += [blend.i.valid.eq(alpha.o.valid), alpha.o.ready.eq(blend.i.ready),
                     blend.i.p.alpha.eq(alpha.o.p.alpha)]
        m.d.comb += [blend.i.p[name].eq(blend_carry[name])
                     for name in ("color", "slot", "first", "columns", "rows")]

        # The end of a tile follows its last block through the pipeline.
        delay = self.issue + alpha.latency + blend.latency
        ends = Signal(delay)
        m.d.sync += ends.eq(Cat(end, ends[:-1]))
        self._empty(m, blend, ends[-1], columns, rows, touched, free)
        return m

    def _empty(self, m, blend, full, columns, rows, touched, free):
        """Read finished tiles out of the state, one group of four pixels per cycle."""
        design = self.design
        blocks, groups = design.blocks, design.block_width // PIXELS_PER_GROUP
        side, places = design.side, design.places
        waiting = Signal(2)
        read_half = Signal(init=1)
        running = Signal()
        asking = Signal()
        row = Signal(range(TILE_PX))
        group = Signal(range(TILE_PX // PIXELS_PER_GROUP))
        started = Signal()
        # The stages move in a cycle unless a group waited behind the output's in the one before:
        # that is a register, and each pixel of a group has its own, of the output's `valid`, too.
        stays, waits, leaves_next = Signal(), Signal(), Signal()
        chosen_valid = Signal()
        move, *moves = (
            Signal(init=1, name=f"move_{n}" if n else "move", attrs={"keep": "true"})
            for n in range(1 + PIXELS_PER_GROUP))
        tile_columns, tile_rows = columns[read_half], rows[read_half]
        # Of a group: the tile, and what of the group lies from it on in the frame.
        x, y = Signal(range(max(2, side))), Signal(range(max(2, side)))
        from_x, from_y = tile_columns - TILE_PX * x, tile_rows - TILE_PX * y
        last_x, last_y = (from_x <= TILE_PX) | (x == side - 1), (from_y <= TILE_PX) | (
            y == side - 1)
        if side > 1:
            tile_columns, tile_rows = (Signal(range(TILE_PX + 1), name=f"tile_{name}")
                                       for name in ("columns", "rows"))
            m.d.comb += [
                tile_columns.eq(Mux(from_x > TILE_PX, TILE_PX, from_x)),
                tile_rows.eq(Mux(from_y > TILE_PX, TILE_PX, from_y))]
        m.d.comb += [
            self.o_tile.valid.eq(~running & waiting.any()),
            self.o_tile.p.columns.eq(tile_columns),
            self.o_tile.p.rows.eq(tile_rows),
            started.eq(self.o_tile.valid & self.o_tile.ready),
            stays.eq(self.o.valid & ~self.o.ready),
            waits.eq(stays & (~move | chosen_valid)),
        ]
        m.d.comb += leaves_next.eq(stays | ~move | chosen_valid)
        m.d.sync += [
            self.o.valid.eq(leaves_next),
            *(each.eq(~waits) for each in (move, *moves)),
        ]
        m.d.sync += waiting.eq(
            waiting + full - (started & last_x & last_y if side > 1 else started))
        wide, high = (Signal(range(TILE_PX + 1), name=name) for name in ("wide", "high"))
        with m.If(started):
            m.d.sync += [running.eq(1), asking.eq(1), row.eq(0), group.eq(0),
                         wide.eq(tile_columns), high.eq(tile_rows)]

        # Where the group lies: block, and place among the block's lanes.
        block = (row // design.block_height) * design.blocks_x + group // groups
        here = Signal(range(max(2, places)))
        within = (row % design.block_height) * groups + group % groups
        last_group, last_row, asked, last, written = (
            Signal(name=name) for name in ("last_group", "last_row", "asked", "last", "written"))
        read_within = Signal.like(within, reset_less=True)
        m.d.comb += [
            here.eq((y * side + x) * blocks + block if side > 1 else block),
            last_group.eq((group + 1) * PIXELS_PER_GROUP >= wide),
            last_row.eq(row + 1 == high),
        ]
        m.d.comb += [
            blend.read_enable.eq(move), blend.read_slot.eq(read_half * places + here),
        ]
        with m.If(move):
            m.d.sync += [
                asked.eq(asking), last.eq(asking & last_group & last_row), read_within.eq(within),
                written.eq(touched[read_half].bit_select(here, 1)),
            ]
            with m.If(asking):
                with m.If(last_group):
                    m.d.sync += [group.eq(0), row.eq(row + 1)]
                    with m.If(last_row):
                        m.d.sync += asking.eq(0)
                with m.Else():
                    m.d.sync += group.eq(group + 1)

        # The groups of a block lie across the whole array. So neighbours are chosen among first,
        # about as many as are left to choose among in the next cycle, when it is known whether
        # they were touched at all. Each pixel of a group has a choice of its own. Behind the last
        # group the half of the state is free.
        bits = (design.lanes // PIXELS_PER_GROUP).bit_length() - 1
        near = bits // 2
        far = 1 << bits - near
        state = Blend.state_layout(design)
        untouched = state.const({"transmittance": design.blend.one}).as_value()
        for number, moved in enumerate(moves):
            lanes = [blend.state[at] for at in range(number, design.lanes, PIXELS_PER_GROUP)]
            leaves = Signal(name=f"leaves_{number}", attrs={"keep": "true"})
            m.d.sync += leaves.eq(leaves_next)
            select_near = copy_of(m, within[:near], moved)
            # None of them where the block was not touched.
            select_far = copy_of(m, Mux(written, 1 << read_within[near:bits], 0)[:far], moved)
            chosen = Signal(data.ArrayLayout(state, far), name=f"chosen_{number}", reset_less=True)
            found = Signal(state, name=f"found_{number}")
            waiting_group = Signal(state, name=f"waiting_{number}", reset_less=True)
            m.d.comb += found.eq(reduce(or_, (
                Mux(select_far[n], chosen[n], 0) for n in range(far)))
                | Mux(select_far.any(), 0, untouched))
            with m.If(moved):
                m.d.sync += [
                    *(chosen[n].eq(Cat(lanes[n << near:(n + 1) << near]).word_select(
                        select_near, state.size)) for n in range(far)),
                    waiting_group.eq(found),
                ]
            with m.If(~leaves | self.o.ready):
                m.d.sync += self.o.payload[number].eq(Mux(moved, found, waiting_group))
        with m.If(move):
            m.d.sync += chosen_valid.eq(asked)
            with m.If(asked & last):
                if side == 1:
                    m.d.sync += [running.eq(0), read_half.eq(~read_half)]
                    m.d.comb += free.eq(Mux(read_half, 2, 1))
                    return
                m.d.sync += [running.eq(0), x.eq(x + 1)]
                with m.If(last_x):
                    m.d.sync += [x.eq(0), y.eq(y + 1)]
                    with m.If(last_y):
                        m.d.sync += [y.eq(0), read_half.eq(~read_half)]
                        m.d.comb += free.eq(Mux(read_half, 2, 1))

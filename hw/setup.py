"""In front of StreamingGS's array: features in order, made into splats of their group's tiles."""

from itertools import pairwise

from amaranth.hdl import *
from amaranth.lib import data, stream
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from splatforge.designs.fetch import SUBTILE_PX, TILE_PX
from splatforge.designs.ffu import FfuDesign
from splatforge.designs.setup import QUEUED_GROUPS, SetupDesign
from splatforge.designs.tokens import GROUP_TAG_BITS
from splatforge.hw.array import group_splat_layout, part_layout
from splatforge.hw.lib.component import Component
from splatforge.hw.lib.fixed import round_shift
from splatforge.hw.lib.splat_setup import SplatSetup
from splatforge.hw.lib.tokens import group_layout
from splatforge.hw.vru import is_older
from splatforge.hw.vsort import sorted_token_layout

__all__ = ["Setup"]


class Setup(Component):
    """Work out a feature's splat in every tile of its group that it meets.

    Bit-true model: :func:`splatforge.algos.setup.setup_fixed`. Cycle model:
    :mod:`splatforge.sim.setup`.

    A feature stays in front of the arithmetic for one cycle a tile, row after row, tiles that are
    over left out; then come the stages of :class:`splatforge.hw.lib.splat_setup.SplatSetup`. The
    end of a group takes the same way and waits at the output, where ``finish`` tells that the group
    has no more splats. What belongs to a group that is over is dropped.

    Latency: :attr:`latency` cycles from a feature to its first splat. Throughput: a splat a cycle.
    Stall: ``o_splat`` and ``o_group`` may stall for ever; tokens then stall. ``i_token.ready``
    depends on ``o_splat.ready``, ``dead`` and ``ended`` combinationally.

    Parameters
    ----------
    design : SetupDesign
        Formats.
    ffu : FfuDesign
        Formats of the tokens, and tiles of a group.

    Members
    -------
    i_group : ``In(stream.Signature(Group))``
        Groups in order, each before what belongs to it, numbered from 0 on, see
        :func:`splatforge.hw.lib.tokens.group_layout`.
    i_token : ``In(stream.Signature(SortedToken))``
        Features in order and ends of groups, see :func:`splatforge.hw.vsort.sorted_token_layout`.
    o_group : ``Out(stream.Signature(Part))``
        To the array: ``columns`` and ``rows`` of the next group.
    o_splat : ``Out(stream.Signature(GroupSplat))``
        To the array: a splat of the group that it has taken last, and its tile.
    finish : ``Out(1)``
        Behind the splats that have been taken the group has no more.
    dead : ``In(tiles)``
        Tiles of the group in the array that want no more splats.
    ended : ``In(1)``
        The group in the array ends in this cycle.
    oldest : ``Out(5)``
        Tag of the oldest group that is wanted: the one in the array, or the next one.
    behind : ``Out(1)``
        Something of a group before `oldest` is inside.
    """

    i_group: stream.Interface
    i_token: stream.Interface
    o_group: stream.Interface
    o_splat: stream.Interface

    #: Cycles from a feature to the first in which its splat can transfer.
    latency = 1 + SplatSetup.latency

    def __init__(
        self,
        design: SetupDesign = SetupDesign(),  # noqa: B008
        ffu: FfuDesign = FfuDesign(),  # noqa: B008
    ) -> None:
        self.design, self.ffu = design, ffu
        side = ffu.group_tiles
        super().__init__({
            "i_group": In(stream.Signature(group_layout(side))),
            "i_token": In(stream.Signature(sorted_token_layout(ffu))),
            "o_group": Out(stream.Signature(part_layout(side))),
            "o_splat": Out(stream.Signature(group_splat_layout(design.splat, side))),
            "finish": Out(1), "dead": In(side * side), "ended": In(1),
            "oldest": Out(GROUP_TAG_BITS), "behind": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        side = self.ffu.group_tiles
        place = self._groups(m, side)
        move = Signal()

        # ---- A token in front of the arithmetic, with the tiles that it has not been given to.
        token = Signal(sorted_token_layout(self.ffu))
        held, first = Signal(), Signal()
        left, wanted, rest, lowest = (
            Signal(side * side, name=name) for name in ("left", "wanted", "rest", "lowest"))
        tile = Signal(range(side * side))
        over, current = Signal(), Signal()
        issue, gone = Signal(), Signal()
        span = token.kept
        met = Cat(self._between(span, x, "x") & self._between(span, y, "y")
                  for y in range(side) for x in range(side))
        m.d.comb += [
            over.eq(is_older(token.tag, self.oldest)),
            # Of the group in the array it is known which tiles are over.
            current.eq(self._taken & (token.tag == self.oldest)),
            wanted.eq(Mux(first, met, left) & ~(self.dead & current.replicate(side * side))),
            rest.eq(wanted & (wanted - 1)), lowest.eq(wanted & ~rest),
            issue.eq(held & ~over & (token.end | wanted.any())),
            gone.eq(~held | over | (~token.end & ~wanted.any())
                    | (move & (token.end | ~rest.any()))),
            self.i_token.ready.eq(gone),
        ]
        for number in range(side * side):
            with m.If(lowest[number]):
                m.d.comb += tile.eq(number)
        with m.If(gone):
            m.d.sync += [held.eq(self.i_token.valid), first.eq(1)]
            with m.If(self.i_token.valid):
                m.d.sync += token.eq(self.i_token.payload)
        with m.Elif(move & issue):
            m.d.sync += [first.eq(0), left.eq(rest)]

        # ---- Through the arithmetic.
        m.submodules.setup = setup = SplatSetup(self.design)
        passing = data.StructLayout({
            "valid": 1, "end": 1, "tag": GROUP_TAG_BITS, "tile": range(side * side)})
        line = [Signal(passing, name="passing_0")] + [
            Signal(passing, name=f"passing_{n}") for n in range(1, setup.latency + 1)]
        masks = [Signal(16, name=f"subtiles_{n}") for n in range(2, setup.latency)]
        last = line[-1]
        dead = last.valid & is_older(last.tag, self.oldest)
        x, y = Signal(12), Signal(12)
        m.d.comb += [
            line[0].valid.eq(issue), line[0].end.eq(token.end), line[0].tag.eq(token.tag),
            line[0].tile.eq(tile), place.addr.eq(token.tag),
            Cat(x, y).eq(place.data), setup.enable.eq(move), setup.feature.eq(span.feature),
            setup.x.eq(x + tile % side), setup.y.eq(y + tile // side),
            move.eq(~last.valid | dead | Mux(last.end, self.ended, self.o_splat.ready)),
            self.finish.eq(last.valid & last.end & ~dead),
            self.o_splat.valid.eq(last.valid & ~last.end & ~dead),
            self.o_splat.p.tile.eq(last.tile),
            self.behind.eq(
                (held & over) | Cat(here.valid & is_older(here.tag, self.oldest)
                                    for here in line[1:]).any()),
        ]
        out = self.o_splat.p.splat
        m.d.comb += [out[name].eq(getattr(setup, name)) for name, _, _ in
                     self.design.splat.fields() if name != "subtiles"]
        with m.If(move):
            m.d.sync += [after.eq(before) for before, after in pairwise(line)]
            m.d.sync += [after.eq(before) for before, after in pairwise(masks)]
            m.d.sync += masks[0].eq(self._subtiles(m, span, setup.x, setup.y, move))
            m.d.sync += out.subtiles.eq(masks[-1])
        return m

    def _between(self, span, number, axis):
        """Whether a column or row of the group is in the span; what is always so is left out."""
        first, last = span[f"first_{axis}"], span[f"last_{axis}"]
        parts = [first <= number] if number < self.ffu.group_tiles - 1 else []
        return Cat(*parts, *([last >= number] if number else [])).all()

    def _groups(self, m, side):
        """Groups to the array, and where each lies in the frame by its number."""
        layout = group_layout(side)
        m.submodules.groups = groups = SyncFIFOBuffered(width=layout.size, depth=QUEUED_GROUPS)
        places = Memory(shape=24, depth=1 << GROUP_TAG_BITS, init=[])
        m.submodules.places = places
        write, read = places.write_port(), places.read_port(domain="comb")
        head = data.View(layout, groups.r_data)
        group = self.i_group.p
        # The group that the array took last has not ended.
        self._taken = Signal()
        m.d.comb += [
            self.i_group.ready.eq(groups.w_rdy), groups.w_en.eq(self.i_group.valid),
            groups.w_data.eq(self.i_group.payload),
            write.en.eq(self.i_group.valid & self.i_group.ready), write.addr.eq(group.tag),
            write.data.eq(Cat(group.x, group.y)),
            self.o_group.valid.eq(groups.r_rdy), groups.r_en.eq(self.o_group.ready),
            self.o_group.p.columns.eq(head.columns), self.o_group.p.rows.eq(head.rows),
        ]
        with m.If(self.o_group.valid & self.o_group.ready):
            m.d.sync += self._taken.eq(1)
        with m.If(self.ended):
            m.d.sync += [self._taken.eq(0), self.oldest.eq(self.oldest + 1)]
        return read

    def _subtiles(self, m, kept, tile_x, tile_y, move):
        """Mask of the subtiles that the box reaches, one stage before its register."""
        frac_bits = self.ffu.extent.frac_bits
        down = self.design.feature.mean.frac_bits - frac_bits
        masks = []
        for axis, tile in (("x", tile_x), ("y", tile_y)):
            position = round_shift(kept.feature[f"mean_{axis}"], down)
            corner = tile << (frac_bits + (TILE_PX - 1).bit_length())
            # From the tile's corner to the box's ends; then which centres lie between.
            low, high = (Signal(signed(self.ffu.position.width + 2), name=f"{name}_{axis}")
                         for name in ("low", "high"))
            with m.If(move):
                m.d.sync += [
                    low.eq(position - kept[f"extent_{axis}"] - corner),
                    high.eq(position + kept[f"extent_{axis}"] - corner)]
            half = 1 << (frac_bits - 1)
            masks.append([
                (high >= (number * SUBTILE_PX << frac_bits) + half)
                & (low <= (((number + 1) * SUBTILE_PX - 1) << frac_bits) + half)
                for number in range(TILE_PX // SUBTILE_PX)])
        columns, rows = masks
        return Cat(row & column for row in rows for column in columns)

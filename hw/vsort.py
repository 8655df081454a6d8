"""Features of voxel after voxel, sorted side by side, and given one after another."""

from amaranth.hdl import *
from amaranth.lib import data, stream
from amaranth.lib.fifo import SyncFIFO, SyncFIFOBuffered
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from splatforge.designs.ffu import FfuDesign
from splatforge.designs.tokens import GROUP_TAG_BITS, FineKind
from splatforge.designs.vsort import VsortDesign
from splatforge.hw.lib.ahead import Ahead
from splatforge.hw.lib.component import Component
from splatforge.hw.lib.sorter import Sorter
from splatforge.hw.lib.tokens import fine_token_layout
from splatforge.hw.vru import is_older

__all__ = ["Vsort", "kept_layout", "sorted_token_layout"]


def kept_layout(ffu: FfuDesign) -> data.StructLayout:
    """What is kept of a feature while its depth is sorted."""
    return data.StructLayout({
        name: field.shape for name, field in fine_token_layout(ffu)
        if name not in ("kind", "tag", "depth")})


def sorted_token_layout(ffu: FfuDesign) -> data.StructLayout:
    """A feature in its place, or the end of a group, of which all but the tag means nothing."""
    return data.StructLayout({"end": 1, "tag": GROUP_TAG_BITS, "kept": kept_layout(ffu)})


class Vsort(Component):
    """Sort the features of every voxel by depth in the next free sorter, and give them in order.

    Bit-true model: :func:`splatforge.algos.vsort.vsort_fixed`. Cycle model:
    :mod:`splatforge.sim.vsort`.

    Tokens come through a queue, so that those before this unit go on while all sorters are full:
    voxels differ in size, and behind a large one a small one waits long. A feature then waits in a
    memory at the place that its number among those of its voxel says; depth and number go to a
    sorter, two features at a time. What belongs to a group that is over is dropped: as it leaves
    the queue, or when it is the next to be given. What such a group has left in a sorter that still
    loads is sorted all the same, and dropped then. That a group is over is known a cycle later than
    it is: no stage both compares a tag and acts on it.

    Latency: from the end of a voxel to its first feature on ``o_token`` the sorter's
    (:func:`splatforge.sim.sorter.sort_cycles`) and five cycles more; from the end of a group, with
    nothing before it, :attr:`latency`. Throughput: a token a cycle in, one out, and between two
    voxels one cycle. Stall: ``o_token`` may stall for ever; sorters then fill up, then the queue.
    No ``ready`` depends on an input combinationally.

    Parameters
    ----------
    design : VsortDesign
        Sorters.
    ffu : FfuDesign
        Formats of the tokens.

    Members
    -------
    oldest : ``In(5)``
        Tag of the oldest group that is still wanted.
    i_token : ``In(stream.Signature(FineToken))``
        Features, ends of voxels, ends of groups, see
        :func:`splatforge.hw.lib.tokens.fine_token_layout`. A voxel has at most ``capacity``
        features. Groups that are over may lack their end, and that of a voxel.
    behind : ``Out(1)``
        Something of a group before `oldest` is inside: a group more could be taken for it.
    o_token : ``Out(stream.Signature(SortedToken))``
        Features in order, ends of groups behind the last feature of each.
    busy : ``Out(1)``, sorted : ``Out(1)``
        For the counters: a sorter reads a row or a column for a pass; a voxel's features are
        all in their sorter.
    """

    i_token: stream.Interface
    o_token: stream.Interface

    #: Cycles from the transfer of a group's end to the first in which it can transfer behind.
    latency = 7

    def __init__(
        self,
        design: VsortDesign = VsortDesign(),  # noqa: B008
        ffu: FfuDesign = FfuDesign(),  # noqa: B008
    ) -> None:
        self.design, self.ffu = design, ffu
        super().__init__({
            "oldest": In(GROUP_TAG_BITS),
            "i_token": In(stream.Signature(fine_token_layout(ffu))),
            "behind": Out(1),
            "o_token": Out(stream.Signature(sorted_token_layout(ffu))),
            "busy": Out(1), "sorted": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        design = self.design
        units, entry = design.units, design.entry
        sorters = [Sorter(design.sorter) for _ in range(units)]
        for number, sorter in enumerate(sorters):
            m.submodules[f"sorter_{number}"] = sorter
        m.submodules.features = features = Memory(
            shape=kept_layout(self.ffu).size, depth=units * design.capacity, init=[])
        write, read = features.write_port(), features.read_port()
        # Voxels in sorters, and ends of groups between them, in order.
        order = data.StructLayout({"end": 1, "tag": GROUP_TAG_BITS})
        m.submodules.queue = queue = SyncFIFO(width=order.size, depth=2 * units)

        # ---- Tokens wait.
        layout = fine_token_layout(self.ffu)
        m.submodules.waiting = waiting = SyncFIFOBuffered(
            width=layout.size, depth=design.waiting)
        # They are looked at in registers, not at the memory's output; of the oldest it is known
        # whether its group is over.
        m.submodules.ahead = ahead = Ahead(layout)
        early, token = ahead.o.payload, Signal(layout, name="token")
        there, late, moves, leaves = (Signal(name=name) for name in (
            "there", "late", "moves", "leaves"))
        early_older, token_older = Signal(), Signal()
        m.d.comb += [
            ahead.i.valid.eq(waiting.r_rdy), ahead.i.payload.eq(waiting.r_data),
            waiting.r_en.eq(ahead.i.ready), moves.eq(~there | leaves), ahead.o.ready.eq(moves),
            early_older.eq(is_older(early.tag, self.oldest)),
            token_older.eq(is_older(token.tag, self.oldest)),
        ]
        with m.If(moves):
            m.d.sync += [there.eq(ahead.o.valid), token.eq(early)]
        m.d.sync += late.eq(Mux(moves, early_older, token_older))
        m.d.comb += [
            self.i_token.ready.eq(waiting.w_rdy), waiting.w_en.eq(self.i_token.valid),
            waiting.w_data.eq(self.i_token.payload),
        ]

        # ---- Features come: the last two are kept, until it is known whether they are the last.
        load = Signal(range(units))
        number = Signal(design.number_bits)
        count = Signal(2)
        first, second = Signal(entry.width), Signal(entry.width)
        tag = Signal(GROUP_TAG_BITS)
        dead, stale, feature, voxel_end, group_end = (
            Signal(name=name) for name in ("dead", "stale", "feature", "voxel_end", "group_end"))
        take, whole, sends, held_older, pushes = (Signal(name=name) for name in (
            "take", "whole", "sends", "held_older", "pushes"))
        # A sorter is free and the queue has a place, whatever happened in the cycle before.
        room = Signal(init=1)
        then = Signal(range(units))
        free = Array(sorter.i.ready for sorter in sorters)
        m.d.comb += [
            then.eq(Mux(load == units - 1, 0, load + 1)),
            held_older.eq(count.any() & is_older(tag, self.oldest)),
            dead.eq(there & late),
            take.eq(there & ~dead & room & ~stale), leaves.eq(take | dead),
            feature.eq(take & (token.kind == FineKind.FEATURE)),
            voxel_end.eq(take & (token.kind == FineKind.VOXEL_END)),
            group_end.eq(take & (token.kind == FineKind.GROUP_END)),
            whole.eq((voxel_end & count.any()) | (stale & room)),
            sends.eq(whole | (feature & (count == 2))),
            write.addr.eq(load * design.capacity + number),
            write.data.eq(Cat(token[name] for name, _ in kept_layout(self.ffu))),
            write.en.eq(feature),
            pushes.eq(whole | group_end),
            queue.w_en.eq(pushes),
            queue.w_data.eq(Cat(group_end, Mux(group_end, token.tag, tag))),
            self.sorted.eq(whole),
            self.busy.eq(Cat(sorter.busy for sorter in sorters).any()),
        ]
        m.d.sync += [
            # What is held belongs to a group that is over: nothing more of it comes.
            stale.eq(held_older & ~whole),
            room.eq(Mux(whole, free[then] if units > 1 else 0, free[load])
                    & (queue.w_level < queue.depth - pushes)),
        ]
        for at, sorter in enumerate(sorters):
            m.d.comb += [
                sorter.i.valid.eq(sends & (load == at)),
                sorter.i.p.first.eq(first), sorter.i.p.second.eq(second),
                sorter.i.p.both.eq(count == 2), sorter.i.p.last.eq(whole),
            ]
        word = Cat(number, token.depth, C(1, 1))
        with m.If(feature):
            m.d.sync += [number.eq(number + 1), tag.eq(token.tag)]
            with m.If(count == 1):
                m.d.sync += [second.eq(word), count.eq(2)]
            with m.Else():
                m.d.sync += [first.eq(word), count.eq(1)]
        with m.If(whole):
            m.d.sync += [number.eq(0), count.eq(0), load.eq(then)]

        # ---- The next in order is given, through the memory's register.
        following, head = data.View(order, queue.r_data), Signal(order, name="head")
        head_there, over_late, loads, head_older, following_older = (Signal(name=name) for name in (
            "head_there", "over_late", "loads", "head_older", "following_older"))
        give = Signal(range(units))
        end, out_tag = Signal(), Signal(GROUP_TAG_BITS)
        valid, move, over, goes, gone = (
            Signal(name=name) for name in ("valid", "move", "over", "goes", "gone"))
        sorted_valid, sorted_last = Signal(), Signal()
        place = Signal(design.number_bits)
        m.d.comb += [
            move.eq(~valid | self.o_token.ready),
            over.eq(head_there & over_late),
            sorted_valid.eq(Array(sorter.o.valid for sorter in sorters)[give]),
            sorted_last.eq(Array(sorter.o.p.last for sorter in sorters)[give]),
            place.eq(Array(sorter.o.p.feature for sorter in sorters)[give]),
            goes.eq(head_there & ~over & move & (head.end | sorted_valid)),
            gone.eq(over | (goes & (head.end | sorted_last))),
            loads.eq(~head_there | gone), queue.r_en.eq(loads),
            head_older.eq(is_older(head.tag, self.oldest)),
            following_older.eq(is_older(following.tag, self.oldest)),
            read.addr.eq(give * design.capacity + place), read.en.eq(goes),
            self.o_token.valid.eq(valid), self.o_token.p.end.eq(end),
            self.o_token.p.tag.eq(out_tag), self.o_token.p.kept.eq(read.data),
            self.behind.eq(
                (valid & is_older(out_tag, self.oldest)) | (head_there & head_older)
                | (queue.r_rdy & following_older) | held_older | (there & token_older)
                | (ahead.o.valid & early_older)),
        ]
        m.d.sync += over_late.eq(Mux(loads, following_older, head_older))
        with m.If(loads):
            m.d.sync += [head_there.eq(queue.r_rdy), head.eq(following)]
        for at, sorter in enumerate(sorters):
            chosen = head_there & ~head.end & (give == at)
            m.d.comb += [
                sorter.drop.eq(chosen & over), sorter.o.ready.eq(chosen & ~over & move)]
        with m.If(move):
            m.d.sync += valid.eq(goes)
        with m.If(goes):
            m.d.sync += [end.eq(head.end), out_tag.eq(head.tag)]
        with m.If(gone & ~head.end):
            m.d.sync += give.eq(Mux(give == units - 1, 0, give + 1))
        return m

"""Chunks read, sorted side by side, and given one after another."""

from functools import reduce
from operator import or_

from amaranth.hdl import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from splatforge.designs.bsu import BsuDesign
from splatforge.designs.entry import TILE_TAG_BITS
from splatforge.designs.lists import ListsDesign
from splatforge.designs.shell import ShellDesign
from splatforge.hw.fetch import address_layout, beat_layout
from splatforge.hw.lib.axi import READ_CHUNKS
from splatforge.hw.lib.component import Component
from splatforge.hw.lib.list_reader import ListReader, listed_layout
from splatforge.hw.lib.sorter import Sorter, pair_layout
from splatforge.hw.vru import entry_layout, is_older

__all__ = ["Bsu"]


class Bsu(Component):
    """Read chunk after chunk into the next free sorter, and give what they have sorted in order.

    Bit-true model: :func:`splatforge.algos.bsu.bsu_fixed`. Cycle model:
    :mod:`splatforge.sim.bsu`.

    The reader is ahead of the sorters by what its buffer holds. A chunk of a tile that is over is
    dropped before it is asked for, or as it comes, or when it is the next to be given; one that a
    sorter has begun to take is taken whole.

    Latency: :attr:`latency` cycles from a chunk to its first address; from its last pair to its
    first entry the sorter's and one or two (:func:`splatforge.sim.sorter.sort_cycles`). Throughput:
    two entries a cycle in, one out. Stall: ``o_address`` and ``o_entry`` may stall for ever;
    sorters then fill up, and chunks wait. No ``ready`` depends on an input.

    Parameters
    ----------
    design : BsuDesign
        Sorters.
    lists : ListsDesign
        What is read.
    shell : ShellDesign
        Bus.

    Members
    -------
    stop : ``In(1)``
        Ask for nothing more.
    base_address : ``In(address_bits)``
        Of page 0.
    oldest : ``In(4)``
        Number of the oldest tile that is still wanted, of :class:`splatforge.hw.vru.Vru`.
    i_chunk : ``In(stream.Signature(Listed))``
        Chunks in order: lists of no more entries than a sorter holds, with their tile's number.
    loaded : ``Out(1)``
        In this cycle a chunk has been read or dropped: nothing of it is read from memory any more.
        One that is dropped may be before another that is still read.
    behind : ``Out(1)``
        A chunk of a tile before `oldest` is being read: a tile more could be taken for it.
    o_address : ``Out(stream.Signature(Burst))``
        To the read address channel, ID 2.
    i_beat : ``In(stream.Signature(Beat))``
        From the read data channel.
    o_entry : ``Out(stream.Signature(Entry))``
        Entries in order, see :func:`splatforge.hw.vru.entry_layout`.
    busy, sorted : ``Out(1)``, entries : ``Out(2)``
        For the counters: a sorter reads a row or a column for a pass; a chunk, so many entries go
        to a sorter.
    idle : ``Out(1)``
        No address is waiting and no burst is in flight.
    """

    i_chunk: stream.Interface
    o_address: stream.Interface
    i_beat: stream.Interface
    o_entry: stream.Interface

    #: Cycles from the transfer of a chunk to the first in which its first address can transfer.
    latency = 3

    def __init__(
        self,
        design: BsuDesign = BsuDesign(),  # noqa: B008
        lists: ListsDesign = ListsDesign(),  # noqa: B008
        shell: ShellDesign = ShellDesign(),  # noqa: B008
    ) -> None:
        self.design, self.lists, self.shell = design, lists, shell
        super().__init__({
            "stop": In(1), "base_address": In(shell.address_bits), "oldest": In(TILE_TAG_BITS),
            "i_chunk": In(stream.Signature(listed_layout(lists))),
            "loaded": Out(1), "behind": Out(1),
            "o_address": Out(stream.Signature(address_layout(shell))),
            "i_beat": In(stream.Signature(beat_layout(shell))),
            "o_entry": Out(stream.Signature(entry_layout(design.entry))),
            "busy": Out(1), "sorted": Out(1), "entries": Out(2), "idle": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        units = self.design.units
        m.submodules.reader = reader = ListReader(READ_CHUNKS, self.lists, self.shell)
        wiring.connect(m, reader.o_address, wiring.flipped(self.o_address))
        wiring.connect(m, wiring.flipped(self.i_beat), reader.i_beat)
        m.d.comb += [
            reader.stop.eq(self.stop), reader.base_address.eq(self.base_address),
            self.idle.eq(reader.idle),
        ]
        sorters = [Sorter(self.design) for _ in range(units)]
        for number, sorter in enumerate(sorters):
            m.submodules[f"sorter_{number}"] = sorter

        # ---- A chunk goes to the reader, or is dropped.
        chunk, waits = Signal(listed_layout(self.lists)), Signal()
        dead, ended = Signal(), Signal()
        m.d.comb += [
            self.i_chunk.ready.eq(~waits),
            dead.eq(is_older(chunk.tag, self.oldest)),
            reader.i_list.valid.eq(waits & ~dead), reader.i_list.payload.eq(chunk),
        ]
        dropped = waits & dead & ~ended
        with m.If(self.i_chunk.ready):
            m.d.sync += [waits.eq(self.i_chunk.valid), chunk.eq(self.i_chunk.payload)]
        with m.Elif(dropped | (~dead & reader.i_list.ready)):
            m.d.sync += waits.eq(0)
        # Chunks in the reader, each with a burst of its own, but for the one that it holds and the
        # two whose last pairs are offered and wait behind.
        m.submodules.reading = reading = SyncFIFO(
            width=TILE_TAG_BITS, depth=self.lists.outstanding_pages + 3)
        m.d.comb += [
            reading.w_en.eq(reader.i_list.valid & reader.i_list.ready),
            reading.w_data.eq(chunk.tag), reading.r_en.eq(ended),
            self.behind.eq(reading.r_rdy & is_older(reading.r_data, self.oldest)),
        ]

        # ---- Pairs go to the next sorter, or are dropped from a chunk's first on: that is decided
        # before it comes. Of a page's first beat only one is an entry, a sorter wants two: one is
        # kept until the next comes.
        pair = reader.o_pair
        low, high = pair.p.entries[0], pair.p.entries[1]
        two = pair.p.valid.all()
        # The sorter that loads next, and below the one that gives, as one bit each: a number would
        # have to be decoded on the longest paths.
        loads = Signal(units, init=1)
        begun, decided, drops = Signal(), Signal(), Signal()
        # Decided, and not dropped.
        comes = Signal()
        spare, kept, alone = Signal.like(low), Signal(), Signal()
        tag = Signal(TILE_TAG_BITS)
        # Sorters that hold a chunk, from its last pair to its last entry, and of which tile.
        held = Signal(units)
        tags = Signal(data.ArrayLayout(TILE_TAG_BITS, units))
        room, keeps, taken, given = (
            Signal(name=name) for name in ("room", "keeps", "taken", "given"))
        packed = Signal(pair_layout(self.design.entry))
        first = Mux(pair.p.valid[0], low, high)
        m.d.comb += [
            room.eq((loads & ~held).any()),
            keeps.eq(~kept & ~two & ~pair.p.last),
            pair.ready.eq(~alone & decided & (drops | keeps | room)),
            taken.eq(pair.valid & pair.ready),
            ended.eq(taken & pair.p.last), self.loaded.eq(ended | dropped),
            given.eq(alone | (pair.valid & comes & (kept | two | pair.p.last))),
            packed.first.eq(Mux(kept, spare, first)), packed.second.eq(Mux(kept, first, high)),
            packed.both.eq(~alone & (kept | two)),
            packed.last.eq(alone | (pair.p.last & ~(kept & two))),
            self.sorted.eq(given & room & packed.last),
            self.entries.eq(Mux(taken & ~drops, pair.p.valid[0] + pair.p.valid[1], 0)),
            self.busy.eq(Cat(sorter.busy for sorter in sorters).any()),
        ]
        with m.If(alone & room):
            m.d.sync += [kept.eq(0), alone.eq(0)]
        with m.If(taken):
            m.d.sync += [begun.eq(~pair.p.last), tag.eq(pair.p.tag)]
            with m.If(~drops):
                m.d.sync += [
                    kept.eq(keeps | (kept & two)), spare.eq(high), alone.eq(
                        kept & two & pair.p.last)]
        with m.If(ended):
            m.d.sync += [decided.eq(0), comes.eq(0)]
        with m.Elif(~begun & ~taken):
            late = is_older(reading.r_data, self.oldest)
            m.d.sync += [
                decided.eq(reading.r_rdy), drops.eq(late), comes.eq(reading.r_rdy & ~late)]
        with m.If(self.sorted):
            m.d.sync += loads.eq(loads.rotate_left(1))

        # ---- The next chunk is given through a register.
        gives = Signal(units, init=1)
        move = Signal()
        # Sorters whose chunk is of a tile that is over, as of a cycle ago.
        dead_of = Signal(units)
        forget = Signal()
        m.d.comb += move.eq(~self.o_entry.valid | self.o_entry.ready)
        goes = gives & ~dead_of & Cat(sorter.o.valid for sorter in sorters)
        with m.If(move):
            m.d.sync += self.o_entry.valid.eq(goes.any())
            for name, of in (
                ("feature", [sorter.o.p.feature for sorter in sorters]),
                ("subtiles", [sorter.o.p.subtiles for sorter in sorters]), ("tile", tags),
            ):
                m.d.sync += self.o_entry.p[name].eq(reduce(or_, (
                    Mux(gives[number], of[number], 0) for number in range(units))))
        for number, sorter in enumerate(sorters):
            given_up = gives[number] & dead_of[number]
            m.d.comb += [
                sorter.i.valid.eq(given & loads[number]), sorter.i.payload.eq(packed),
                sorter.drop.eq(given_up),
                sorter.o.ready.eq(gives[number] & ~dead_of[number] & move),
            ]
            with m.If(self.sorted & loads[number]):
                m.d.sync += [held[number].eq(1), tags[number].eq(Mux(alone, tag, pair.p.tag))]
            m.d.sync += dead_of[number].eq(
                held[number] & is_older(tags[number], self.oldest) & ~(forget & gives[number]))
            with m.If(given_up | (goes[number] & move & sorter.o.p.last)):
                m.d.comb += forget.eq(1)
                m.d.sync += held[number].eq(0)
        with m.If(forget):
            m.d.sync += gives.eq(gives.rotate_left(1))
        return m

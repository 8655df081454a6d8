"""Reading lists: page after page along the links, pairs of entries out."""

from amaranth.hdl import *
from amaranth.lib import data, stream
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from splatforge.designs.entry import ENTRY_BITS, TILE_TAG_BITS
from splatforge.designs.lists import ListsDesign
from splatforge.designs.shell import ShellDesign
from splatforge.hw.fetch import address_layout, beat_layout
from splatforge.hw.lib.component import Component

__all__ = ["ListReader", "listed_layout", "pair_layout"]


def listed_layout(design: ListsDesign, tag_bits: int = TILE_TAG_BITS) -> data.StructLayout:
    """A list to read: its first page, its entries, at least one, and what to call it."""
    return data.StructLayout({
        "page": design.page_bits, "count": design.count_bits, "tag": tag_bits})


def pair_layout(design: ListsDesign, tag_bits: int = TILE_TAG_BITS) -> data.StructLayout:
    """What a beat brings of a list: up to two entries, whether it is the last, the list's tag.

    Bit n of ``valid`` tells whether ``entries[n]`` is one: of a page's first beat the lower half is
    the link, of its last the upper one may be empty.
    """
    return data.StructLayout({
        "entries": data.ArrayLayout(design.entry.width, 2), "valid": 2, "last": 1,
        "tag": tag_bits})


class ListReader(Component):
    """Read list after list, each page as one burst.

    Reads what :class:`splatforge.hw.lists.Lists` writes. Bit-true model:
    :meth:`splatforge.algos.lists.ListPages.read`. Cycle model: :mod:`splatforge.sim.list_reader`.

    A page is asked for when there is room for all of it, so that ``i_beat`` is always ready. The
    next page of a list is asked for when the first beat of the one before has brought its number,
    the first page of the next list without waiting for the end of this one.

    Latency: 2 cycles from a list on ``i_list`` to its first address, 2 from the beat with a link to
    the address of the page behind it, 4 from a beat to its pair. Throughput: a beat a cycle, an
    address every two. Stall: ``o_address`` and ``o_pair`` may stall for ever; requests stop when
    the buffer is full. No ``ready`` depends on an input.

    Parameters
    ----------
    read_id : int
        ID of its bursts.
    design : ListsDesign
        Pages and buffers.
    shell : ShellDesign
        Bus.
    tag_bits : int
        Bits that go with a list to its pairs.

    Members
    -------
    stop : ``In(1)``
        Ask for nothing more.
    base_address : ``In(address_bits)``
        Of page 0, a multiple of a page.
    i_list : ``In(stream.Signature(Listed))``
        Lists, see :func:`listed_layout`.
    o_address : ``Out(stream.Signature(Burst))``
        To the read address channel.
    i_beat : ``In(stream.Signature(Beat))``
        From the read data channel; beats of another ID, or while no burst of this reader is in
        flight, are not looked at.
    o_pair : ``Out(stream.Signature(Pair))``
        Entries of the lists in order, see :func:`pair_layout`.
    idle : ``Out(1)``
        No address is waiting and no burst is in flight.
    """

    i_list: stream.Interface
    o_address: stream.Interface
    i_beat: stream.Interface
    o_pair: stream.Interface

    def __init__(
        self,
        read_id: int,
        design: ListsDesign = ListsDesign(),  # noqa: B008
        shell: ShellDesign = ShellDesign(),  # noqa: B008
        tag_bits: int = TILE_TAG_BITS,
    ) -> None:
        self.read_id, self.design, self.shell, self.tag_bits = read_id, design, shell, tag_bits
        super().__init__({
            "stop": In(1), "base_address": In(shell.address_bits),
            "i_list": In(stream.Signature(listed_layout(design, tag_bits))),
            "o_address": Out(stream.Signature(address_layout(shell))),
            "i_beat": In(stream.Signature(beat_layout(shell))),
            "o_pair": Out(stream.Signature(pair_layout(design, tag_bits))),
            "idle": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        design, entry_bits = self.design, self.design.entry.width
        burst = data.StructLayout({"full": 1, "last": 1, "tag": self.tag_bits})
        m.submodules.bursts = bursts = SyncFIFOBuffered(
            width=burst.size, depth=design.outstanding_pages)
        m.submodules.beats = beats = SyncFIFOBuffered(
            width=2 * entry_bits + 1, depth=design.buffer_beats)

        # ---- Beats come: the first of a page brings the number of the next.
        here, middle, linked = Signal(), Signal(), Signal()
        in_flight = Signal(range(design.outstanding_pages + 1))
        beat = self.i_beat.p
        m.d.comb += [
            self.i_beat.ready.eq(1),
            here.eq(self.i_beat.valid & (beat.id == self.read_id) & in_flight.any()),
            linked.eq(here & ~middle),
            beats.w_en.eq(here),
            beats.w_data.eq(Cat(
                beat.data[:entry_bits], beat.data[ENTRY_BITS:ENTRY_BITS + entry_bits], beat.last)),
            self.idle.eq(~self.o_address.valid & ~in_flight.any()),
        ]
        with m.If(here):
            m.d.sync += middle.eq(~beat.last)
        went = self.o_address.valid & self.o_address.ready
        m.d.sync += in_flight.eq(in_flight + went - (here & beat.last))

        # ---- Pages are asked for: of a list that is held, the next whose number is known.
        held, known, ask, more, room = (
            Signal(name=name) for name in ("held", "known", "ask", "more", "room"))
        left, page = Signal(design.count_bits), Signal(design.page_bits)
        tag = Signal(self.tag_bits)
        length = Signal(range(design.page_beats))
        # Beats that were asked for and have not left the buffer; pages whose first has not come.
        reserved = Signal(range(design.buffer_beats + 1))
        awaited = Signal(range(design.outstanding_pages + 1))
        # Of a cycle ago: what is reserved since is known before the next page is asked for.
        m.d.sync += room.eq(reserved <= design.buffer_beats - design.page_beats)
        m.d.comb += [
            self.i_list.ready.eq(~held),
            length.eq(Mux(more, design.page_beats - 1, left >> 1)),
            ask.eq(held & known & room & bursts.w_rdy & ~self.o_address.valid & ~self.stop),
            bursts.w_en.eq(ask),
            bursts.w_data.eq(Cat(more | left[0], ~more, tag)),
        ]
        with m.If(self.o_address.ready):
            m.d.sync += self.o_address.valid.eq(0)
        with m.If(ask):
            m.d.sync += [
                self.o_address.valid.eq(1),
                self.o_address.p.id.eq(self.read_id),
                self.o_address.p.address.eq(
                    self.base_address + (page << (design.page_bytes - 1).bit_length())),
                self.o_address.p.length.eq(length),
                held.eq(more), known.eq(0), left.eq(left - design.page_entries),
                more.eq(left > 2 * design.page_entries),
            ]
        # Where a list waits for a link, no page behind that has been asked for: it is the last to
        # come.
        with m.Elif(linked & ~known & (awaited == 1)):
            m.d.sync += [page.eq(beat.data), known.eq(1)]
        with m.If(self.i_list.valid & self.i_list.ready):
            listed = self.i_list.p
            m.d.sync += [
                held.eq(1), known.eq(1), page.eq(listed.page), left.eq(listed.count),
                tag.eq(listed.tag), more.eq(listed.count > design.page_entries),
            ]
        take = Signal()
        m.d.sync += [
            awaited.eq(awaited + ask - linked),
            reserved.eq(reserved + Mux(ask, length + 1, 0) - take),
        ]

        # ---- Pairs leave, through a register behind the buffer's memory. What is known of a burst
        # is there before its beats. A pair that finds the output taken waits in a register of its
        # own, so that nothing of the buffer depends on who takes pairs.
        first, move = Signal(init=1), Signal()
        # Whether the first of the two registers takes a beat: known a cycle ahead, in a register
        # for the buffer and in one for the beat's own, that are far apart.
        fill, takes = (Signal(init=1, name=name, attrs={"keep": "true"})
                       for name in ("fill", "takes"))
        full, here_data, end = Signal(), Signal(2 * entry_bits), Signal()
        head = data.View(burst, bursts.r_data)
        found, waiting = Signal.like(self.o_pair.payload), Signal.like(self.o_pair.payload)
        free, waits = Signal(), Signal()
        m.d.comb += [
            free.eq(~self.o_pair.valid | self.o_pair.ready),
            move.eq(~waits), take.eq(takes & beats.r_rdy),
            beats.r_en.eq(take),
            bursts.r_en.eq(move & full & end),
            found.entries.eq(here_data), found.valid.eq(Cat(~first, ~end | head.full)),
            found.last.eq(end & head.last), found.tag.eq(head.tag),
        ]
        with m.If(fill):
            m.d.sync += [full.eq(beats.r_rdy), Cat(here_data, end).eq(beats.r_data)]
        with m.If(move):
            m.d.sync += waiting.eq(found)
            with m.If(full):
                m.d.sync += first.eq(end)
        will_wait = ~free & (waits | full)
        will_fill = ~(will_wait & Mux(fill, beats.r_rdy, full))
        m.d.sync += [waits.eq(will_wait), fill.eq(will_fill), takes.eq(will_fill)]
        with m.If(free):
            m.d.sync += [
                self.o_pair.valid.eq(waits | full), self.o_pair.payload.eq(
                    Mux(waits, waiting, found))]
        return m

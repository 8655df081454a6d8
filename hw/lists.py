"""Appending to lists in memory: many lists, each in pages that are linked."""

from itertools import pairwise

from amaranth.hdl import *
from amaranth.lib import data, stream
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from splatforge.designs.entry import ENTRY_BITS
from splatforge.designs.lists import SLOT_BYTES, ListsDesign
from splatforge.designs.shell import ShellDesign
from splatforge.hw.lib.arbiter import write_address_layout, write_data_layout
from splatforge.hw.lib.component import Component

__all__ = ["Lists", "answer_layout", "append_layout", "range_layout"]


def append_layout(design: ListsDesign) -> data.StructLayout:
    """An entry and the list that it goes to."""
    return data.StructLayout({"list": range(design.lists), "entry": design.entry.width})


def range_layout(design: ListsDesign) -> data.StructLayout:
    """So many lists from ``first`` on, to ``flush`` or else to clear."""
    return data.StructLayout({
        "first": range(design.lists), "count": range(design.lists + 1), "flush": 1})


def answer_layout(design: ListsDesign) -> data.StructLayout:
    """What is known of a list: first page, entries, least and greatest key."""
    return data.StructLayout({
        "page": design.page_bits, "count": design.count_bits, "low": design.entry.key_bits,
        "high": design.entry.key_bits})


class Lists(Component):
    """Append entries to lists, and write them to memory beat by beat.

    Bit-true model: :class:`splatforge.algos.lists.ListPages`. Cycle model:
    :mod:`splatforge.sim.lists`. What is written is read by
    :class:`splatforge.hw.lib.list_reader.ListReader`.

    Of every list its slots in use, its first page, the page of its last slot and the one behind
    are on chip, and the entry that waits for the second half of its beat. Entries, ranges to clear
    or flush, and queries go through one pipeline of three stages: read, work out, write. What is
    under way to the memory is passed back to who follows, so that a list takes an entry in every
    cycle. A page is allotted with the one before it: an empty list takes two with its first entry,
    later each page's first entry takes one. The least and the greatest key are known of each
    further list, and of the tiles' lists of all together.

    Latency: :attr:`latency` cycles from the entry that fills a beat to the beat; 4 from a query to
    its answer. Throughput: an entry a cycle, which is a beat every two; a list of a range a cycle.
    Stall: ``o_address`` and ``o_data`` may stall for ever, in any order; entries, ranges and
    queries then stall. Entries wait while a range is gone through. No ``ready`` depends on an
    input but ``stop``.

    Parameters
    ----------
    design : ListsDesign
        Lists, pages, and beats in flight.
    shell : ShellDesign
        Bus.

    Members
    -------
    start : ``In(1)``
        Begin a frame with the parameters below, which must hold until it ends. Lists keep what was
        in them until they are cleared.
    stop : ``In(1)``
        Take no entry and no range, and leave a range where it is.
    base_address : ``In(address_bits)``
        Of page 0, a multiple of a page.
    first_page : ``In(page_bits)``
        The first that is free.
    limit : ``In(32)``
        Pages of the workspace.
    i_entry : ``In(stream.Signature(Append))``
        See :func:`append_layout`.
    i_range : ``In(stream.Signature(Range))``
        Lists to clear or flush one after another, see :func:`range_layout`. A flush writes the
        entries that wait for the second half of their beat; they wait on for it.
    i_query : ``In(stream.Signature(range(lists)))``
        A list that something is to be known of, with all entries taken before. The next waits
        until the answer is taken.
    o_answer : ``Out(stream.Signature(Answer))``
        See :func:`answer_layout`; of an empty list page and greatest key are 0, the least key all
        ones.
    mark : ``In(1)``
        Remember the next free page.
    release : ``In(1)``
        Free all pages that were taken behind the mark.
    overflow : ``Out(1)``
        An entry found no page in the workspace; stays high until reset. It is not written.
    o_address, o_data : ``Out(stream.Signature(...))``
        To the write channels: bursts of one beat, of which a flush writes the lower half.
    i_response : ``In(1)``
        A response to one of the bursts arrives in this cycle.
    idle : ``Out(1)``
        Nothing is under way: all that was taken is written and answered.
    busy, stalled : ``Out(1)``
        For the counters: a beat was accepted, an entry waited.
    tile_bytes, slot_bytes : ``Out(5)``
        For the counters: bytes that will be written because of this cycle, of lists of tiles and of
        further ones.
    """

    i_entry: stream.Interface
    i_range: stream.Interface
    i_query: stream.Interface
    o_answer: stream.Interface
    o_address: stream.Interface
    o_data: stream.Interface

    #: Cycles from the transfer of an entry that fills a beat to the first in which its beat is
    #: offered: three stages, two of the queue.
    latency = 5

    def __init__(
        self,
        design: ListsDesign = ListsDesign(),  # noqa: B008
        shell: ShellDesign = ShellDesign(),  # noqa: B008
    ) -> None:
        self.design, self.shell = design, shell
        super().__init__({
            "start": In(1), "stop": In(1), "base_address": In(shell.address_bits),
            "first_page": In(design.page_bits), "limit": In(32),
            "i_entry": In(stream.Signature(append_layout(design))),
            "i_range": In(stream.Signature(range_layout(design))),
            "i_query": In(stream.Signature(range(design.lists))),
            "o_answer": Out(stream.Signature(answer_layout(design))),
            "mark": In(1), "release": In(1), "overflow": Out(1),
            "o_address": Out(stream.Signature(write_address_layout(shell))),
            "o_data": Out(stream.Signature(write_data_layout(shell))),
            "i_response": In(1), "idle": Out(1), "busy": Out(1), "stalled": Out(1),
            "tile_bytes": Out(5), "slot_bytes": Out(5),
        })

    def elaborate(self, platform):
        m = Module()
        design = self.design
        #: One of them at most is set: what is done with a list.
        self._operation = data.StructLayout({"append": 1, "clear": 1, "flush": 1, "query": 1})
        #: What is known of a list, and of its keys.
        self._record = data.StructLayout({
            "slots": design.count_bits, "head": design.page_bits, "page": design.page_bits,
            "next": design.page_bits, "half": design.entry.width})
        self._keys = data.StructLayout({
            "low": design.entry.key_bits, "high": design.entry.key_bits})
        self._stages = [Signal(data.StructLayout({
            "operation": self._operation, "list": range(design.lists),
            "entry": design.entry.width}), name=f"stage_{n}") for n in range(4)]
        # Answers to queries, and beats whose response has not come: what there is room for.
        self._asking = Signal(name="asking")
        self._unanswered = Signal(range(design.waiting_beats + 1), name="unanswered")
        self._select(m)
        self._work(m)
        return m

    def _select(self, m):
        """One list a cycle: that of a query, of the range, or of an entry."""
        design = self.design
        stage = self._stages[0]
        room, asked, walking, flush = (
            Signal(name=name) for name in ("room", "asked", "walking", "flush"))
        asked_list, at = (Signal(range(design.lists), name=name) for name in ("asked_list", "at"))
        left = Signal(range(design.lists + 1))
        entry, query, lists = self.i_entry, self.i_query, self.i_range
        m.d.comb += [
            # Each of the three stages behind may add a beat to those that are counted.
            room.eq(self._unanswered <= design.waiting_beats - 4),
            entry.ready.eq(~asked & ~walking & room & ~self.stop),
            lists.ready.eq(~walking & ~self.stop),
            query.ready.eq(~self._asking),
            stage.entry.eq(entry.p.entry),
        ]
        with m.If(asked):
            m.d.comb += [stage.list.eq(asked_list), stage.operation.query.eq(room)]
        with m.Elif(walking):
            m.d.comb += [
                stage.list.eq(at), stage.operation.flush.eq(room & flush & ~self.stop),
                stage.operation.clear.eq(room & ~flush & ~self.stop),
            ]
        with m.Else():
            m.d.comb += [
                stage.list.eq(entry.p.list), stage.operation.append.eq(entry.valid & entry.ready)]

        with m.If(query.valid & query.ready):
            m.d.sync += [self._asking.eq(1), asked.eq(1), asked_list.eq(query.payload)]
        with m.Elif(stage.operation.query):
            m.d.sync += asked.eq(0)
        with m.If(self.o_answer.valid & self.o_answer.ready):
            m.d.sync += self._asking.eq(0)

        with m.If(lists.valid & lists.ready):
            m.d.sync += [
                walking.eq(lists.p.count.any()), at.eq(lists.p.first), left.eq(lists.p.count),
                flush.eq(lists.p.flush)]
        with m.Elif(self.stop):
            m.d.sync += walking.eq(0)
        with m.Elif(stage.operation.flush | stage.operation.clear):
            m.d.sync += [at.eq(at + 1), left.eq(left - 1), walking.eq(left != 1)]

        under_way = [each.operation.as_value().any() for each in self._stages[1:]]
        m.d.comb += [
            self.idle.eq(~(walking | self._unanswered.any() | Cat(under_way).any())),
            self.stalled.eq(entry.valid & ~entry.ready),
        ]

    def _work(self, m):
        """Read what is known of the list, work out what comes of it, write it back."""
        design = self.design
        m.submodules.lists = lists = Memory(shape=self._record.size, depth=design.lists, init=[])
        m.submodules.keys = keys = Memory(shape=self._keys.size, depth=design.slots, init=[])
        ports = []
        stages = self._stages
        index = (design.slots - 1).bit_length()
        for memory in (lists, keys):
            write = memory.write_port()
            read = memory.read_port(transparent_for=[write])
            m.d.comb += [
                read.addr.eq(stages[0].list[:len(read.addr)]), read.en.eq(1),
                write.addr.eq(stages[3].list[:len(write.addr)])]
            ports.append((write, read))
        assert len(ports[1][0].addr) == index
        (write, read), (write_keys, read_keys) = ports
        m.d.sync += [after.eq(before) for before, after in pairwise(stages)]

        # ---- 1: what the memory holds, or what is just being written to it.
        record, pair = Signal(self._record), Signal(self._keys)
        written, written_pair = (
            Signal(self._record, name="written"), Signal(self._keys, name="written_pair"))
        same = Signal()
        recent = stages[1].list == stages[3].list
        busy = [stage.operation.as_value().any() for stage in stages]
        m.d.sync += [
            same.eq(busy[2] & (stages[1].list == stages[2].list)),
            record.eq(Mux(busy[3] & recent, written, read.data)),
            pair.eq(Mux(busy[3] & recent, written_pair, read_keys.data)),
        ]

        # ---- 2: where the entry goes.
        stage = stages[2]
        now = data.View(self._record, Mux(same, written, record))
        now_pair = data.View(self._keys, Mux(same, written_pair, pair))
        bound, free, taken = (Signal(design.page_bits, name=name)
                              for name in ("bound", "free", "taken"))
        fresh, first, emit = Signal(), Signal(), Signal()
        page, following, place, odd = (
            Signal(design.page_bits), Signal(design.page_bits),
            Signal(range(design.page_beats)), Signal())
        key = stage.entry[:design.entry.key_bits]

        def behind(number):
            return Mux(number == bound, bound, number + 1)[:design.page_bits]

        slot_bits = (design.page_slots - 1).bit_length()
        m.d.comb += [
            first.eq(~now.slots.any()), fresh.eq(~now.slots[:slot_bits].any()),
            odd.eq(now.slots[0]),
            taken.eq(behind(free)),
            page.eq(Mux(fresh, Mux(first, free, now.next), now.page)),
            following.eq(Mux(fresh, Mux(first, taken, free), now.next)),
        ]
        append, clear = stage.operation.append, stage.operation.clear
        low, high = (Signal(max(design.entry.width, design.page_bits), name="low"),
                     Signal(design.entry.width, name="high"))
        half = Signal()
        of_page = Signal(design.page_bits)
        m.d.sync += [
            written.eq(now), written_pair.eq(now_pair),
            emit.eq((append & (fresh | odd)) | (stage.operation.flush & odd)),
            of_page.eq(page), place.eq(now.slots[1:slot_bits]),
            low.eq(Mux(fresh, following, now.half)), high.eq(Mux(append, stage.entry, 0)),
            half.eq(~append),
        ]
        with m.If(append):
            m.d.sync += [
                # Of a fresh page the first two slots.
                written.slots.eq(Mux(fresh, now.slots | 2, now.slots + 1)),
                written.head.eq(Mux(first, free, now.head)),
                written.page.eq(page), written.next.eq(following),
            ]
            with m.If(~odd):
                m.d.sync += written.half.eq(stage.entry)
            with m.If(key < now_pair.low):
                m.d.sync += written_pair.low.eq(key)
            with m.If(key > now_pair.high):
                m.d.sync += written_pair.high.eq(key)
            with m.If(fresh):
                m.d.sync += free.eq(Mux(first, behind(taken), taken))
        with m.If(clear):
            m.d.sync += [written.eq(0), written_pair.low.eq(~0), written_pair.high.eq(0)]

        # ---- The allocator: numbers from `bound` on are no pages.
        starting = Signal()
        marked = Signal(design.page_bits)
        m.d.sync += starting.eq(self.start)
        with m.If(self.start):
            m.d.sync += bound.eq(Mux(self.limit > design.pages, design.pages, self.limit))
        with m.If(starting):
            m.d.sync += free.eq(Mux(self.first_page > bound, bound, self.first_page))
        with m.Elif(self.release):
            m.d.sync += free.eq(marked)
        with m.If(self.mark):
            m.d.sync += marked.eq(free)

        # ---- 3: into the memories, and to the bus.
        stage = stages[3]
        change = stage.operation.append | stage.operation.clear
        further = stage.list >= design.tiles
        push = Signal()
        m.d.comb += [
            write.data.eq(written), write.en.eq(change),
            write_keys.data.eq(written_pair), write_keys.en.eq(change & further),
            push.eq(emit & (of_page != bound)),
        ]
        with m.If(emit & (of_page == bound)):
            m.d.sync += self.overflow.eq(1)
        self._answer(m, written, written_pair, further)
        self._send(m, push, of_page, place, low, high, half, further)

    def _answer(self, m, record, pair, further):
        """Keys of the tiles' lists together, and the answer to a query."""
        design, stage, answer = self.design, self._stages[3], self.o_answer
        least, greatest = (Signal(design.entry.key_bits, name=name)
                           for name in ("least", "greatest"))
        key = stage.entry[:design.entry.key_bits]
        with m.If(stage.operation.append & ~further):
            with m.If(key < least):
                m.d.sync += least.eq(key)
            with m.If(key > greatest):
                m.d.sync += greatest.eq(key)
        with m.If(self.start):
            m.d.sync += [least.eq(~0), greatest.eq(0)]
        # The links are slots too.
        page_slots = design.page_slots
        links = (record.slots + page_slots - 1) >> (page_slots - 1).bit_length()
        with m.If(answer.ready):
            m.d.sync += answer.valid.eq(0)
        with m.If(stage.operation.query):
            m.d.sync += [
                answer.valid.eq(1), answer.p.page.eq(record.head),
                answer.p.count.eq(record.slots - links),
                answer.p.low.eq(Mux(further, pair.low, least)),
                answer.p.high.eq(Mux(further, pair.high, greatest)),
            ]

    def _send(self, m, push, page, place, low, high, half, further):
        """Beats and their addresses, that wait for the bus each on their own."""
        design, shell = self.design, self.shell
        page_shift = (design.page_bytes - 1).bit_length()
        beat_shift = (shell.data_bytes - 1).bit_length()
        m.submodules.addresses = addresses = SyncFIFOBuffered(
            width=shell.address_bits - beat_shift, depth=design.waiting_beats)
        m.submodules.beats = beats = SyncFIFOBuffered(
            width=len(low) + len(high) + 1, depth=design.waiting_beats)
        address, beat = self.o_address, self.o_data
        to_page = self.base_address[page_shift:] + page
        last_low, last_half = beats.r_data[:len(low)], beats.r_data[-1]
        last_high = beats.r_data[len(low):-1]
        m.d.comb += [
            addresses.w_en.eq(push),
            addresses.w_data.eq(Cat(place, to_page[:shell.address_bits - page_shift])),
            beats.w_en.eq(push), beats.w_data.eq(Cat(low, high, half)),
            address.valid.eq(addresses.r_rdy), addresses.r_en.eq(address.ready),
            address.p.address.eq(Cat(C(0, beat_shift), addresses.r_data)),
            beat.valid.eq(beats.r_rdy), beats.r_en.eq(beat.ready),
            beat.p.data.eq(Cat(last_low, C(0, ENTRY_BITS - len(low)), last_high)),
            beat.p.strobe.eq(Cat(C(~0, SLOT_BYTES), (~last_half).replicate(SLOT_BYTES))),
            beat.p.last.eq(1),
            self.busy.eq(beat.valid & beat.ready),
        ]
        size = Mux(half, SLOT_BYTES, 2 * SLOT_BYTES)
        with m.If(push):
            with m.If(further):
                m.d.comb += self.slot_bytes.eq(size)
            with m.Else():
                m.d.comb += self.tile_bytes.eq(size)
        m.d.sync += self._unanswered.eq(self._unanswered + push - self.i_response)

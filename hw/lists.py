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


#: Where an operation is selected, and the four registers that it goes through.
STAGES = 5


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

    Of every list its slots in use, its first page, the page of its last slot and the one behind are
    on chip, and the entry that waits for the second half of its beat. Entries, ranges to clear or
    flush, and queries go through one pipeline: two stages that read, one that chooses what is
    newest, one that works out what comes of it, one that writes. What the memory cannot have given
    is passed back to who follows, so that a list takes an entry in every cycle. A page is allotted
    with the one before it: an empty list takes two with its first entry, later each page's first
    entry takes one. The least and the greatest key are known of each further list, and of the
    tiles' lists of all together.

    Latency: :attr:`latency` cycles from the entry that fills a beat to the beat; 6 from a query to
    its answer. Throughput: an entry a cycle, which is a beat every two; a list of a range a cycle.
    Stall: ``o_address`` and ``o_data`` may stall for ever, in any order; entries, ranges and
    queries then stall. Entries wait while a range is gone through. No ``ready`` depends on an input
    but ``stop``.

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
    #: offered: four stages, two of the queue.
    latency = 6

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
            "entry": design.entry.width}), name=f"stage_{n}") for n in range(STAGES)]
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
            # Each of the stages behind may add a beat to those that are counted.
            room.eq(self._unanswered <= design.waiting_beats - STAGES),
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

    def _further(self, stage):
        """Whether the list of a stage is none of a tile's."""
        return stage.list[-1]

    def _work(self, m):
        """Read what is known of the list, work out what comes of it, write it back."""
        design, stages = self.design, self._stages
        known = data.StructLayout({"record": self._record, "keys": self._keys})
        m.submodules.tiles = tiles = Memory(shape=self._record.size, depth=design.tiles, init=[])
        m.submodules.slots = slots = Memory(shape=known.size, depth=design.slots, init=[])
        ports = [(memory.write_port(), memory.read_port()) for memory in (tiles, slots)]
        for write, read in ports:
            m.d.comb += [
                read.addr.eq(stages[0].list[:len(read.addr)]), read.en.eq(1),
                write.addr.eq(stages[4].list[:len(write.addr)])]
        (write_tile, read_tile), (write_slot, read_slot) = ports
        m.d.sync += [after.eq(before) for before, after in pairwise(stages)]

        # ---- 1: out of the memories. 2: what is newest of the list. A list that was read in the
        # cycle of a write, or before, has missed it: what is written stays for two cycles more.
        tile, slot, newest = Signal(self._record), Signal(known), Signal(known)
        # What the next slot is: the list's first, its page's first, an odd one. It goes with what
        # is newest, and with what comes of it.
        looks = data.StructLayout({"first": 1, "fresh": 1, "odd": 1})
        slot_bits = (design.page_slots - 1).bit_length()

        def look(slots: Value) -> Value:
            return Cat(~slots.any(), ~slots[:slot_bits].any(), slots[0])

        newest_looks = Signal(looks)
        looks_after = [Signal(looks, name=f"looks_{age}") for age in range(3)]
        written = [Signal(known, name=f"written_{age}") for age in range(3)]
        of = [stages[4].list, *(Signal(range(design.lists), name=f"of_{age}") for age in (1, 2))]
        there = [stages[4].operation.as_value().any(),
                 *(Signal(name=f"there_{age}") for age in (1, 2))]
        working = stages[3].operation.as_value().any()
        missed, same = Signal(3), Signal()
        for age in range(2):
            m.d.sync += [written[age + 1].eq(written[age]),
                         looks_after[age + 1].eq(looks_after[age]), of[age + 1].eq(of[age]),
                         there[age + 1].eq(there[age])]
        m.d.sync += [
            tile.eq(read_tile.data), slot.eq(read_slot.data),
            missed.eq(Cat(valid & (number == stages[1].list) for valid, number in (
                (working, stages[3].list), *zip(there[:2], of[:2], strict=True)))),
            same.eq(working & (stages[2].list == stages[3].list)),
        ]
        with m.If(missed[0]):
            m.d.sync += [newest.eq(written[0]), newest_looks.eq(looks_after[0])]
        with m.Elif(missed[1]):
            m.d.sync += [newest.eq(written[1]), newest_looks.eq(looks_after[1])]
        with m.Elif(missed[2]):
            m.d.sync += [newest.eq(written[2]), newest_looks.eq(looks_after[2])]
        with m.Elif(self._further(stages[2])):
            m.d.sync += [newest.eq(slot), newest_looks.eq(look(slot.record.slots))]
        with m.Else():
            m.d.sync += [newest.record.eq(tile), newest_looks.eq(look(tile.slots))]

        # ---- 3: where the entry goes.
        stage, result = stages[3], written[0]
        now = Signal(known)
        append, clear = stage.operation.append, stage.operation.clear
        fresh, first, emit, odd = (
            Signal(name=name) for name in ("fresh", "first", "emit", "odd"))
        page, following, of_page = (Signal(design.page_bits, name=name)
                                    for name in ("page", "following", "of_page"))
        place = Signal(range(design.page_beats))
        key = stage.entry[:design.entry.key_bits]
        record, looks_now = now.record, Signal(looks)
        free, after, bound = self._allot(m, append & fresh, first)
        m.d.comb += [
            now.eq(Mux(same, result, newest)),
            looks_now.eq(Mux(same, looks_after[0], newest_looks)),
            first.eq(looks_now.first), fresh.eq(looks_now.fresh), odd.eq(looks_now.odd),
            page.eq(Mux(fresh, Mux(first, free, record.next), record.page)),
            following.eq(Mux(fresh, Mux(first, after, free), record.next)),
        ]
        low, high = (Signal(max(design.entry.width, design.page_bits), name="low"),
                     Signal(design.entry.width, name="high"))
        half = Signal()
        m.d.sync += [
            result.eq(now), looks_after[0].eq(looks_now),
            emit.eq((append & (fresh | odd)) | (stage.operation.flush & odd)),
            of_page.eq(page), place.eq(record.slots[1:slot_bits]),
            low.eq(Mux(fresh, following, record.half)), high.eq(Mux(append, stage.entry, 0)),
            half.eq(~append),
        ]
        with m.If(append):
            m.d.sync += [
                # Of a fresh page the first two slots.
                result.record.slots.eq(Mux(fresh, record.slots | 2, record.slots + 1)),
                result.record.page.eq(page), result.record.next.eq(following),
                looks_after[0].first.eq(0), looks_after[0].odd.eq(~fresh & ~odd),
                looks_after[0].fresh.eq(~fresh & record.slots[:slot_bits].all()),
            ]
            with m.If(first):
                m.d.sync += result.record.head.eq(free)
            with m.If(~odd):
                m.d.sync += result.record.half.eq(stage.entry)
            with m.If(key < now.keys.low):
                m.d.sync += result.keys.low.eq(key)
            with m.If(key > now.keys.high):
                m.d.sync += result.keys.high.eq(key)
        with m.If(clear):
            m.d.sync += [
                result.record.eq(0), result.keys.low.eq(~0), result.keys.high.eq(0),
                looks_after[0].eq(look(C(0, slot_bits + 1)))]

        # ---- 4: into the memories, and to the bus.
        stage = stages[4]
        change, further = stage.operation.append | stage.operation.clear, self._further(stage)
        push = Signal()
        m.d.comb += [
            write_tile.data.eq(result.record), write_tile.en.eq(change & ~further),
            write_slot.data.eq(result), write_slot.en.eq(change & further),
            push.eq(emit & (of_page != bound)),
        ]
        with m.If(emit & (of_page == bound)):
            m.d.sync += self.overflow.eq(1)
        self._answer(m, result.record, result.keys, further)
        self._send(m, push, of_page, place, low, high, half, further)

    def _allot(self, m, take, both):
        """The next two free pages, and the number from which on there are none.

        One of the two is taken, or both.
        """
        free, after, bound, last, marked, marked_after = (
            Signal(self.design.page_bits, name=name)
            for name in ("free", "after", "bound", "last", "marked", "marked_after"))
        pages = self.design.pages
        at_end = after == bound
        starting = Signal(2)
        m.d.sync += starting.eq(Cat(self.start, starting[0]))
        with m.If(self.start):
            m.d.sync += bound.eq(Mux(self.limit > pages, pages, self.limit))
        with m.If(starting[0]):
            m.d.sync += [
                free.eq(Mux(self.first_page > bound, bound, self.first_page)), last.eq(bound - 1)]
        with m.Elif(starting[1]):
            m.d.sync += after.eq(Mux(free == bound, bound, free + 1))
        with m.Elif(self.release):
            m.d.sync += [free.eq(marked), after.eq(marked_after)]
        with m.Elif(take & both):
            m.d.sync += [
                free.eq(Mux(at_end, bound, after + 1)),
                after.eq(Mux(at_end | (after == last), bound, after + 2)),
            ]
        with m.Elif(take):
            m.d.sync += [free.eq(after), after.eq(Mux(at_end, bound, after + 1))]
        with m.If(self.mark):
            m.d.sync += [marked.eq(free), marked_after.eq(after)]
        return free, after, bound

    def _answer(self, m, record, keys, further):
        """Keys of the tiles' lists together, and the answer to a query."""
        design, stage, answer = self.design, self._stages[4], self.o_answer
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
                answer.p.low.eq(Mux(further, keys.low, least)),
                answer.p.high.eq(Mux(further, keys.high, greatest)),
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

"""Lists in pages: what is appended is read back; RTL against both models."""

import re
import sys
from collections import deque
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from splatforge.algos.lists import ListPages
from splatforge.designs.entry import EntryFormat
from splatforge.designs.gscore import GscoreDesign
from splatforge.designs.lists import ListsDesign
from splatforge.hw.lists import Lists
from splatforge.sim import lists as model

sys.path.insert(0, str(Path(__file__).parent))
import streams

#: Few lists of short pages.
SMALL = ListsDesign(
    entry=EntryFormat(feature_bits=9, depth_bits=7, subtile_bits=4), tiles=8, slots=4,
    page_bytes=64, page_bits=8, waiting_beats=8, buffer_beats=8, outstanding_pages=2)


def entries_of(design, count, rng):
    """Entries of any bits."""
    return rng.integers(0, 1 << design.entry.width, count, np.uint64)


@pytest.mark.parametrize("design", [ListsDesign(), SMALL], ids=["default", "small"])
def test_lists_are_read_back(design):
    """Many entries to few lists, few to many; each list keeps the order in which its came."""
    rng = np.random.default_rng(3)
    pages = ListPages(design, first_page=5)
    appended = [[] for _ in range(design.lists)]
    for size in (1, 2, 3, 40, 300):
        lists = rng.integers(0, design.lists, size)
        lists[rng.random(size) < 0.5] = design.lists - 2
        entries = entries_of(design, size, rng)
        pages.append(lists, entries)
        for at, entry in zip(lists.tolist(), entries.tolist(), strict=True):
            appended[at].append(entry)
    pages.flush(0, design.lists)
    assert not pages.overflow
    keys = design.entry.key(np.concatenate(
        [np.array(each, np.uint64) for each in appended[:design.tiles]]))
    seen = []
    for at, expected in enumerate(appended):
        head, count, low, high = pages.query(at)
        assert count == len(expected)
        assert pages.read(head, count).tolist() == expected
        if at >= design.tiles:
            own = design.entry.key(np.array(expected, np.uint64))
            assert (low, high) == ((own.min(), own.max()) if count else (
                (1 << design.entry.key_bits) - 1, 0))
        else:
            assert (low, high) == (keys.min(), keys.max())
        bursts = pages.bursts(head, count)
        assert sum(beats for _, beats in bursts) == (count + len(bursts) + 1) // 2
        seen += [page for page, _ in bursts]
    # No page is in two lists, all lie between the first and the next free one.
    assert len(set(seen)) == len(seen)
    assert 5 <= min(seen)
    assert max(seen) < pages.free
    assert len(pages.words) == pages.free
    assert not pages.words[:5].any()


def test_a_page_word_for_word():
    """Slot 0 links to the page that was allotted with it; the rest are entries in order."""
    pages = ListPages(SMALL)
    entries = np.arange(100, 120, dtype=np.uint64)
    pages.append(np.full(9, 3), entries[:9])
    pages.append(np.full(2, 9), entries[9:11])
    assert pages.words.tolist() == [
        [1, *range(100, 107)], [2, 107, 0, 0, 0, 0, 0, 0], [0] * 8,
        [4, 109, 0, 0, 0, 0, 0, 0], [0] * 8]
    # Six beats of list 3, one of list 9, and what waits of each.
    assert (pages.tile_bytes, pages.slot_bytes) == (16 * 5, 16)
    pages.flush(0, 12)
    assert pages.words[1].tolist() == [2, 107, 108, 0, 0, 0, 0, 0]
    assert pages.words[3].tolist() == [4, 109, 110, 0, 0, 0, 0, 0]
    assert (pages.tile_bytes, pages.slot_bytes) == (16 * 5 + 8, 16 + 8)
    # What was flushed is written again with its other half.
    pages.append(np.array([3]), entries[11:12])
    assert pages.words[1].tolist() == [2, 107, 108, 111, 0, 0, 0, 0]
    assert pages.query(3)[:2] == (0, 10)


def test_cleared_lists_begin_anew_on_pages_released():
    pages = ListPages(SMALL)
    rng = np.random.default_rng(1)
    pages.append(np.zeros(20, np.int64), entries_of(SMALL, 20, rng))
    pages.mark()
    for _ in range(3):
        pages.clear(8, 4)
        assert pages.query(9) == (0, 0, (1 << 16) - 1, 0)
        entries = entries_of(SMALL, 30, rng)
        pages.append(np.full(30, 9), entries)
        pages.flush(8, 4)
        head, count, low, high = pages.query(9)
        assert (head, count) == (4, 30)
        assert (low, high) == (SMALL.entry.key(entries).min(), SMALL.entry.key(entries).max())
        assert pages.read(head, count).tolist() == entries.tolist()
        pages.release()
        assert pages.free == 4
    assert pages.query(0)[:2] == (0, 20)


def test_the_workspace_ends():
    """A list may fill the last page; the link behind it leads nowhere, and nothing follows it."""
    entries = np.arange(1, 30, dtype=np.uint64)
    pages = ListPages(SMALL, limit=3)
    pages.append(np.full(21, 2), entries[:21])
    assert not pages.overflow
    assert pages.words[2, 0] == 3
    before = pages.words.copy()
    pages.append(np.full(3, 2), entries[21:24])
    assert pages.overflow
    np.testing.assert_array_equal(pages.words, before)
    # Without a limit all numbers but the last are pages.
    pages = ListPages(SMALL, first_page=253)
    pages.append(np.full(14, 2), entries[:14])
    assert not pages.overflow
    pages.append(np.full(1, 2), entries[:1])
    assert pages.overflow


@pytest.mark.parametrize(("change", "message"), [
    ({"tiles": 100}, "Lists of tiles must be a power of two from 2 to 65536, not 100"),
    ({"tiles": 1}, "Lists of tiles must be a power of two from 2 to 65536, not 1"),
    ({"tiles": 4}, "Further lists must be a power of two from 2 to 4, not 256"),
    ({"slots": 3}, "Further lists must be a power of two from 2 to 4096, not 3"),
    ({"page_bytes": 32}, "Bytes of a page must be a power of two from 64 to 4096, not 32"),
    ({"page_bytes": 8192}, "Bytes of a page must be a power of two from 64 to 4096, not 8192"),
    ({"page_bits": 25}, "Page numbers must have 4 to 24 bits, not 25"),
    ({"waiting_beats": 4}, "Waiting beats must be a power of two from 8 to 256, not 4"),
    ({"buffer_beats": 64}, "Buffered beats must be at least 128, two pages, not 64"),
    ({"outstanding_pages": 1}, "Outstanding pages must be a power of two from 2 to 256, not 1"),
])
def test_wrong_designs_are_refused(change, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ListsDesign(**change)


def test_entries_must_be_those_of_the_other_units():
    with pytest.raises(ValueError, match=r"^Lists must hold the entries of the other units$"):
        GscoreDesign(lists=SMALL)


BASE = 0x12_3456_7000
FIRST = 3


@cache
def bench(design):
    return streams.Bench(Lists(design))


class Play:
    """The unit before a memory, beside both models, cycle by cycle.

    What is done is a list of steps: ``("entries", lists)``, ``("range", first, count, flush)``,
    ``("idle",)``, which waits and then compares the memory, ``("mark",)`` and ``("release",)``.
    """

    def __init__(self, design, steps, *, gap=0.0, stall=0.0, latency=7, seed=1, queries=0.1,
                 limit=250, stop_at=None):
        self.design, self.steps = design, deque(steps)
        self.gap, self.stall, self.latency, self.queries = gap, stall, latency, queries
        self.rng = np.random.default_rng(seed)
        self.limit, self.stop_at = limit, stop_at
        self.pages = ListPages(design, FIRST, limit)
        self.state = model.new_lists(design, FIRST, limit)
        self.limits = model.limits_of(design)
        self.memory = np.zeros((1 << design.page_bits, design.page_slots), np.uint64)
        self.compared = self.answered = self.tile_bytes = self.slot_bytes = self.stalled = 0

    def out(self, probability):
        return self.rng.random() < probability

    def compare(self):
        """Memory against the bit-true model's."""
        words = self.pages.words
        np.testing.assert_array_equal(self.memory[:len(words)], words)
        assert (self.tile_bytes, self.slot_bytes) == (self.pages.tile_bytes, self.pages.slot_bytes)
        self.compared += 1

    async def play(self, ctx):
        dut, design, state, limits = bench(self.design).dut, self.design, self.state, self.limits
        for name, value in (("base_address", BASE), ("first_page", FIRST), ("limit", self.limit)):
            ctx.set(getattr(dut, name), value)
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        await ctx.tick()
        # What is still to be sent of a step, and whether it is being offered.
        entries, offered, shown = deque(), None, False
        asked, expected = -1, deque()
        addresses, beats, responses = deque(), deque(), deque()
        held = [None, None, None]
        # Nothing is known of lists that have not been cleared.
        cleared = False
        for cycle in range(20_000):
            stop = self.stop_at is not None and cycle >= self.stop_at
            idle = bool(model.idle(state))
            mark = release = False
            while not entries and offered is None and self.steps:
                kind, *values = self.steps[0]
                if kind == "entries":
                    words = self.rng.integers(0, 1 << design.entry.width, len(values[0]), np.uint64)
                    entries.extend(zip(values[0], words.tolist(), strict=True))
                elif kind == "range":
                    offered, shown = values, False
                elif not idle:
                    break
                elif kind == "idle":
                    self.compare()
                else:
                    mark, release = kind == "mark", kind == "release"
                    getattr(self.pages, kind)()
                    self.steps.popleft()
                    break
                self.steps.popleft()
            if not self.steps and not entries and offered is None and idle and not expected:
                break
            if stop and idle and not responses and cycle > self.stop_at + 12:
                break
            ctx.set(dut.mark, mark)
            ctx.set(dut.release, release)
            ctx.set(dut.stop, stop)
            number = entry = -1
            if entries and (shown or not self.out(self.gap)):
                shown = True
                number, entry = entries[0]
                ctx.set(dut.i_entry.p.list, number)
                ctx.set(dut.i_entry.p.entry, entry)
            ctx.set(dut.i_entry.valid, number >= 0)
            first, count, flush = offered or (-1, 0, 0)
            if offered:
                for name, value in (("first", first), ("count", count), ("flush", flush)):
                    ctx.set(getattr(dut.i_range.p, name), value)
            ctx.set(dut.i_range.valid, first >= 0)
            if cleared and asked < 0 and self.out(self.queries):
                asked = int(self.rng.integers(design.lists))
                ctx.set(dut.i_query.payload, asked)
            ctx.set(dut.i_query.valid, asked >= 0)
            address_ready, beat_ready, answer_ready = (
                not self.out(self.stall) for _ in range(3))
            ctx.set(dut.o_address.ready, address_ready)
            ctx.set(dut.o_data.ready, beat_ready)
            ctx.set(dut.o_answer.ready, answer_ready)
            response = bool(responses) and responses[0] <= cycle
            ctx.set(dut.i_response, response)
            if response:
                responses.popleft()

            want = model.offers(state, limits, stop)
            of_address, of_beat = (model.beat(state, limits, each) for each in (True, False))
            before = state.copy()
            model.step(state, limits, number, entry, first, count, flush, asked, mark, release,
                       stop, address_ready, beat_ready, answer_ready, response)
            _, _, *seen = await ctx.tick().sample(
                dut.i_entry.ready, dut.i_range.ready, dut.i_query.ready,
                dut.o_address.valid, dut.o_data.valid, dut.o_answer.valid,
                dut.o_address.payload.as_value(), dut.o_data.payload.as_value(),
                dut.o_answer.payload.as_value(), dut.idle, dut.overflow, dut.busy, dut.stalled,
                dut.tile_bytes, dut.slot_bytes)
            assert tuple(map(bool, seen[:6])) == tuple(map(bool, want)), cycle
            entry_ready, range_ready, query_ready, address, beat, answer = want
            words = seen[6:9]
            for n, (valid, ready) in enumerate((
                    (address, address_ready), (beat, beat_ready), (answer, answer_ready))):
                assert held[n] is None or (valid and held[n] == words[n])
                held[n] = words[n] if valid and not ready else None
            assert seen[9:11] == [idle, before[model.OVERFLOW]], cycle
            assert seen[11:13] == [beat and beat_ready, number >= 0 and not entry_ready]
            self.stalled += seen[12]
            self.tile_bytes += seen[13]
            self.slot_bytes += seen[14]
            if address:
                burst = streams.unpack(dut.o_address.payload.shape(), words[0])
                page, rest = divmod(burst.address - BASE, design.page_bytes)
                assert (page, rest, burst.length) == (of_address[0], 16 * of_address[1], 0)
                if address_ready:
                    addresses.append((page, rest // 8))
            if beat:
                got = streams.unpack(dut.o_data.payload.shape(), words[1])
                low, high, half = of_beat[2:]
                assert got.data == int(low) | (0 if half else int(high) << 64)
                assert (got.strobe, got.last) == (0xFF if half else 0xFFFF, 1)
                if beat_ready:
                    beats.append((int(low), None if half else int(high)))
            while addresses and beats:
                (page, slot), (low, high) = addresses.popleft(), beats.popleft()
                self.memory[page, slot] = low
                if high is not None:
                    self.memory[page, slot + 1] = high
                responses.append(cycle + self.latency)
            if number >= 0 and entry_ready:
                self.pages.append(np.array([number]), np.array([entry], np.uint64))
                entries.popleft()
                shown = False
            if asked >= 0 and query_ready:
                # In the midst of a range, or where it begins, only the cycle model knows.
                ranging = before[model.LEFT] or (first >= 0 and range_ready)
                expected.append(None if ranging else self.pages.query(asked))
                asked = -1
            if first >= 0 and range_ready:
                (self.pages.flush if flush else self.pages.clear)(first, count)
                offered = None
            cleared = cleared or (state[model.AT] > 0 and not state[model.LEFT])
            if answer:
                got = tuple(streams.unpack(dut.o_answer.payload.shape(), words[2])[name]
                            for name in ("page", "count", "low", "high"))
                assert got == tuple(before[model.ANSWER_PAGE:model.ANSWER_HIGH + 1])
                if answer_ready:
                    known = expected.popleft()
                    assert known is None or got == known
                    self.answered += known is not None
        else:
            raise AssertionError("not done")
        for name in ("i_entry", "i_range", "i_query"):
            ctx.set(getattr(dut, name).valid, 0)
        ctx.set(dut.i_response, 0)


def steps_of(design, seed):
    """Lists of all lengths, ranges of them flushed, then buckets on pages that are released."""
    rng = np.random.default_rng(seed)
    mixed = rng.integers(0, design.tiles, 120)
    mixed[20:60] = np.repeat(rng.integers(0, design.tiles, 8), 5)
    everything = ("range", 0, design.lists, 0)
    tiles, slots = (0, design.tiles), (design.tiles, design.slots)
    steps = [everything, ("entries", mixed.tolist()), ("range", *tiles, 1), ("idle",), ("mark",)]
    for _ in range(3):
        lists = design.tiles + rng.integers(0, design.slots, 40)
        lists[10:25] = lists[10]
        steps += [("range", *slots, 0), ("entries", lists.tolist()), ("range", *slots, 1),
                  ("idle",), ("release",)]
    return [*steps, ("entries", rng.integers(0, design.lists, 30).tolist()), ("range", 3, 2, 1),
            ("range", 1, 0, 1), ("range", 5, 1, 0), ("entries", [5, 5, 6]),
            ("range", 0, design.lists, 1), ("idle",)]


@pytest.mark.parametrize(("gap", "stall", "latency", "queries"), [
    (0.0, 0.0, 1, 0.0), (0.0, 0.0, 2, 0.3), (0.3, 0.0, 7, 0.1), (0.0, 0.5, 7, 0.1),
    (0.4, 0.4, 3, 0.9)])
@pytest.mark.parametrize("seed", [1, 2])
def test_rtl_against_both_models(gap, stall, latency, queries, seed):
    play = Play(SMALL, steps_of(SMALL, seed), gap=gap, stall=stall, latency=latency, seed=seed,
                queries=queries)
    bench(SMALL).play(play.play)
    assert play.compared == 5
    assert not play.pages.overflow
    assert (play.answered > 20) == (queries > 0)


def test_the_default_design():
    """Long pages; lists far apart."""
    design = ListsDesign()
    lists = [at for at in (0, 4095, 4096, 4351) for _ in range(260)]
    play = Play(design, [("range", 0, 1, 0), ("range", 4095, 2, 0), ("range", 4351, 1, 0),
                         ("entries", lists), ("range", 4095, 1, 1), ("range", 4351, 1, 1),
                         ("idle",)], queries=0, limit=1000)
    bench(design).play(play.play)
    assert play.compared == 1
    # A list takes an entry in every cycle: they waited only while ranges were gone through.
    assert play.stalled <= 2 + 3 + 2


@pytest.mark.parametrize(("gap", "stall"), [(0.0, 0.0), (0.3, 0.4)])
def test_overflow(gap, stall):
    """Behind the last page nothing is written, and it is said."""
    rng = np.random.default_rng(4)
    everything = (0, SMALL.lists)
    lists = rng.integers(0, SMALL.lists, 200)
    play = Play(SMALL, [("range", *everything, 0), ("entries", lists.tolist()),
                        ("range", *everything, 1), ("idle",)], gap=gap, stall=stall, limit=30)
    bench(SMALL).play(play.play)
    assert play.compared == 1
    assert play.pages.overflow
    assert not play.memory[30:].any()
    assert play.state[model.OVERFLOW]


@pytest.mark.parametrize("stop_at", [3, 14, 20, 33, 60, 140, 147])
def test_nothing_is_taken_behind_stop(stop_at):
    """What was taken is written and answered."""
    play = Play(SMALL, steps_of(SMALL, 1), stall=0.3, queries=0, stop_at=stop_at)
    bench(SMALL).play(play.play)
    assert play.steps
    assert play.compared == 0
    if stop_at < 100:
        # Not in the midst of a flush.
        play.compare()


@pytest.mark.parametrize(("lists", "latency"), [
    ([3], 1), ([3] * 20, 1), (list(range(8)) * 4, 1), ([0, 1] * 40, 20)])
def test_cycles_match_rtl(lists, latency):
    dut, seen = bench(SMALL).dut, []

    async def scenario(ctx):
        ctx.set(dut.limit, 250)
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        ctx.set(dut.i_range.p.count, SMALL.lists)
        ctx.set(dut.i_range.valid, 1)
        await ctx.tick()
        ctx.set(dut.i_range.valid, 0)
        await ctx.tick().repeat(20)
        for port in (dut.o_address, dut.o_data):
            ctx.set(port.ready, 1)
        sent, answers = 0, []
        for cycle in range(2000):
            ctx.set(dut.i_entry.valid, sent < len(lists))
            if sent < len(lists):
                ctx.set(dut.i_entry.p.list, lists[sent])
            ctx.set(dut.i_response, cycle in answers)
            _, _, ready, beat, idle = await ctx.tick().sample(
                dut.i_entry.ready, dut.o_data.valid, dut.idle)
            if sent == len(lists) and idle:
                return
            sent += bool(ready and sent < len(lists))
            if beat:
                seen.append(cycle)
                answers.append(cycle + latency)

    bench(SMALL).play(scenario)
    assert model.cycles(SMALL, lists, latency) == seen[-1] + 1
    if lists == [3] * 20:
        # The first entry of a page and every second behind it fill a beat.
        assert np.diff(seen).tolist() == [2, 2, 2, 1, 2, 2, 2, 1, 2, 2]
        assert seen[0] == Lists.latency


def test_latency_of_a_query():
    state, limits = model.new_lists(SMALL, 0, 250), model.limits_of(SMALL)
    for cycle in range(20):
        if model.offers(state, limits, False)[5]:
            break
        model.step(state, limits, -1, 0, -1, 0, 0, 3 if cycle == 0 else -1, False, False, False,
                   True, True, True, False)
    assert cycle == 6


@pytest.mark.rtl
def test_verilog_against_fixed(run_testbench):
    run_testbench("lists", seed=7)

"""Lists partitioned into chunks: order by construction, RTL against both models."""

import sys
from collections import deque
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from splatforge.algos.lists import ListPages
from splatforge.algos.qsu import qsu_fixed
from splatforge.designs.entry import EntryFormat
from splatforge.designs.lists import ListsDesign
from splatforge.designs.qsu import QsuDesign
from splatforge.hw.qsu import Qsu
from splatforge.sim import list_reader
from splatforge.sim import qsu as model

sys.path.insert(0, str(Path(__file__).parent))
import streams

ENTRY = EntryFormat(feature_bits=10, depth_bits=6)
#: Short pages, and buffers that are soon full.
LISTS = ListsDesign(entry=ENTRY, tiles=64, slots=64, page_bytes=64, page_bits=12,
                    waiting_beats=8, buffer_beats=8, outstanding_pages=4)
DESIGN = QsuDesign(chunk=8)
BASE = 0x12_3456_7000
FIRST = 3
TILES_X, TILES_Y = 5, 4


def entries_of(count, rng, entry=ENTRY, depths=None):
    """Entries whose keys differ, in any order."""
    depth = rng.integers(0, 1 << entry.depth_bits, count) if depths is None else depths
    feature = rng.choice(1 << entry.feature_bits, count, replace=False)
    return entry.encode(feature, depth, rng.integers(1, 16, count))


@pytest.mark.parametrize("buckets", [2, 8, 64])
@pytest.mark.parametrize("depths", ["any", "one", "two", "steep"])
def test_chunks_in_order_are_the_sorted_list(buckets, depths):
    """Whatever the depths: all alike, in two heaps, or each nearer than all before by half."""
    rng = np.random.default_rng(buckets)
    count = 700
    depth = {
        "any": None, "one": np.full(count, 9), "two": rng.choice((0, 63), count),
        "steep": np.minimum(63, rng.geometric(0.5, count)),
    }[depths]
    entries = entries_of(count, rng, depths=depth)
    design = QsuDesign(chunk=16, buckets=buckets)
    keys = ENTRY.key(entries)
    chunks, partitions = qsu_fixed(design, ENTRY, entries, int(keys.min()), int(keys.max()))
    assert all(1 <= len(chunk) <= 16 for chunk in chunks)
    assert partitions >= 1
    whole = np.concatenate([np.sort(ENTRY.key(chunk)) for chunk in chunks])
    np.testing.assert_array_equal(whole, np.sort(keys))
    # Within a chunk the list's order stays.
    place = {int(entry): n for n, entry in enumerate(entries)}
    for chunk in chunks:
        assert [place[int(entry)] for entry in chunk] == sorted(
            place[int(entry)] for entry in chunk)


def test_levels_suffice_for_the_worst_list():
    """Keys that crowd as closely as they can around the least take a partition on every level."""
    entry = EntryFormat(feature_bits=4, depth_bits=10)
    design, lists = QsuDesign(chunk=4, buckets=4), replace(LISTS, entry=entry)
    levels = design.levels(lists)
    assert levels == 6
    assert QsuDesign().levels(ListsDesign()) == 14

    def depth_of(keys, low, high):
        if len(keys) <= design.chunk:
            return 0
        bucket = (keys - low) >> design.shift(int(high - low))
        parts = [keys[bucket == number] for number in range(design.buckets)]
        return 1 + max(depth_of(part, part.min(), part.max()) for part in parts if len(part))

    keys = np.unique(np.concatenate([[0, 1, 2, 3], 1 << np.arange(14)]))
    deepest = depth_of(keys, 0, (1 << 14) - 1)
    assert levels - 1 <= deepest <= levels
    rng = np.random.default_rng(3)
    for _ in range(200):
        keys = np.unique(rng.integers(0, 1 << int(rng.integers(4, 15)), 60))
        assert depth_of(keys, keys[0], keys[-1]) <= levels


@cache
def bench(design):
    return streams.Bench(Qsu(design, LISTS))


class Play:
    """The unit amid lists, a memory, sorters and an array, beside both models, cycle by cycle.

    With ``early``, tiles are over at any time behind their announcement; in a cycle the next chunk
    has been read with a probability of ``loads``.
    """

    def __init__(self, counts, *, gap=0.0, stall=0.0, seed=1, early=False, stop_at=None, loads=0.2):
        self.rng = np.random.default_rng(seed)
        self.gap, self.stall, self.early, self.stop_at = gap, stall, early, stop_at
        self.counts, self.loads = counts, loads
        self.pages = ListPages(LISTS, FIRST)
        self.lists = [entries_of(count, self.rng) for count in counts]
        tile = np.repeat(np.arange(len(counts)), counts)
        order = self.rng.permutation(len(tile))
        self.pages.append(tile[order], np.concatenate(self.lists)[order])
        self.lists = [np.concatenate(self.lists)[order][tile[order] == n]
                      for n in range(len(counts))]
        self.pages.flush(0, len(counts))
        self.pages.mark()
        keys = ENTRY.key(np.concatenate(self.lists))
        self.low, self.high = int(keys.min()), int(keys.max())
        self.given = [[] for _ in counts]
        self.announced, self.partitioned, self.released = 0, 0, 0
        self.finished = False
        #: Tile and cycle of every chunk.
        self.times = []

    def out(self, probability):
        return self.rng.random() < probability

    async def play(self, ctx):
        dut = bench(DESIGN).dut
        state = model.new_qsu(DESIGN, LISTS, len(self.counts))
        reader = list_reader.new_list_reader(LISTS)
        limits = model.limits_of(DESIGN, LISTS)
        reader_limits = list_reader.limits_of(LISTS)
        for name, value in (("base_address", BASE), ("width", 16 * TILES_X - 3),
                            ("height", 16 * TILES_Y - 9)):
            ctx.set(getattr(dut, name), value)
        oldest, over = 0, 0
        answers, reading, beats, words = deque(), deque(), deque(), []
        settling = quiet = 0
        held = {}
        for cycle in range(60_000):
            start = cycle == 2
            stop = self.stop_at is not None and cycle >= self.stop_at
            ready = {name: not self.out(self.stall)
                     for name in ("tile", "chunk", "query", "range", "entry", "address")}
            for name, value in ready.items():
                ctx.set(getattr(dut, f"o_{name}").ready, value)
            # Of a tile that is over a chunk may take as long to arrive as the memory likes.
            behind = bool(reading) and reading[0][0] < oldest
            for name, value in (("start", start), ("stop", stop), ("oldest", oldest & 15),
                                ("behind", behind)):
                ctx.set(getattr(dut, name), value)
            answer = (False, 0, 0, 0, 0)
            if answers and answers[0][0] <= cycle:
                answer = (True, *answers[0][1])
                for name, value in zip(("page", "count", "low", "high"), answer[1:], strict=True):
                    ctx.set(dut.i_answer.p[name], value)
            ctx.set(dut.i_answer.valid, answer[0])
            loaded = bool(reading) and self.out(self.loads / 4 if self.stall else self.loads)
            ctx.set(dut.i_loaded, loaded)
            lists_idle = settling == 0
            settling -= settling > 0
            ctx.set(dut.i_lists_idle, lists_idle)
            beat = (-1, 0, False)
            if beats and beats[0][0] <= cycle and not self.out(self.gap):
                _, page, number, last = beats.popleft()
                pair = tuple(int(word) for word in self.pages.words[page, 2 * number:][:2])
                words.append(pair)
                beat = (len(words) - 1, pair[0], last)
                ctx.set(dut.i_beat.p.id, 1)
                ctx.set(dut.i_beat.p.data, pair[0] | pair[1] << 64)
                ctx.set(dut.i_beat.p.last, last)
            ctx.set(dut.i_beat.valid, beat[0] >= 0)

            want = model.offers(state)
            tile, chunk, query, takes_answer, clears, flushes, entry, release, done = want
            address = reader[list_reader.ADDRESS] != 0
            place = reader[list_reader.PAIR_PLACE]
            before, asked = state.copy(), reader.copy()
            model.step(
                state, reader, limits, reader_limits, start, stop, oldest, ready["tile"],
                ready["chunk"], loaded, ready["query"], answer, ready["range"], ready["entry"],
                lists_idle, ready["address"], beat, words[place] if words else (0, 0), behind)
            payloads = [getattr(dut, f"o_{name}").payload for name in ready]
            _, _, *seen = await ctx.tick().sample(
                *(getattr(dut, f"o_{name}").valid for name in ready), dut.i_answer.ready,
                dut.release, dut.done, dut.partitioned, dut.busy, dut.stalled, dut.idle,
                *(payload if isinstance(payload, streams.Value) else payload.as_value()
                  for payload in payloads))
            assert list(map(bool, seen[:9])) == [
                tile, chunk, query, clears or flushes, entry, address, takes_answer, release,
                done], cycle
            counted = [state[at] - before[at]
                       for at in (model.PARTITIONS, model.BUSY, model.STALLED)]
            assert seen[9:12] == counted, cycle
            assert seen[12] == (not address and asked[list_reader.IN_FLIGHT] == 0)
            said = dict(zip(ready, seen[13:], strict=True))
            for name, valid in zip(ready, seen, strict=False):
                if name in held:
                    assert valid, name
                    assert said[name] == held[name], name
                held = {key: value for key, value in held.items() if key != name}
                if valid and not ready[name]:
                    held[name] = said[name]

            def payload(name, said=said, dut=dut):
                return streams.unpack(getattr(dut, f"o_{name}").payload.shape(), said[name])

            if tile and ready["tile"]:
                got, number = payload("tile"), self.announced
                assert (got.tile, got.splats) == (number & 15, self.counts[number])
                assert got.columns == (13 if number % TILES_X == TILES_X - 1 else 16)
                assert got.rows == (7 if number // TILES_X == TILES_Y - 1 else 16)
                assert number - oldest <= 7
                assert not reading or number - reading[0][0] <= 8
                self.announced += 1
            if chunk and ready["chunk"]:
                got = payload("chunk")
                assert got.tag == (self.announced - 1) & 15
                assert got.page == before[model.PAGE]
                reading.append((self.announced - 1, got.page, got.count))
                self.times.append((self.announced - 1, cycle))
            if loaded:
                number, page, count = reading.popleft()
                # What is read now has not been written over since it was given.
                self.given[number].append(self.pages.read(page, count))
            if release:
                assert not reading
                self.pages.release()
                self.released += 1
            if query and ready["query"]:
                at = said["query"]
                assert at == before[model.AT]
                page, count, low, high = self.pages.query(at)
                if at < LISTS.tiles:
                    low, high = self.low, self.high
                answers.append((cycle + 6 + (5 if self.out(self.gap) else 0),
                                (page, count, low, high)))
            if answer[0] and takes_answer:
                answers.popleft()
            if (clears or flushes) and ready["range"]:
                got = payload("range")
                assert (got.flush, got.count) == (flushes, DESIGN.buckets)
                assert got.first == before[model.FIRST]
                (self.pages.flush if flushes else self.pages.clear)(got.first, got.count)
                settling = int(self.rng.integers(1, 12))
            if entry and ready["entry"]:
                got = payload("entry")
                assert (got.list, got.entry) == (
                    before[model.ENTRY_LIST], before[model.ENTRY])
                self.pages.append(np.array([got.list]), np.array([got.entry], np.uint64))
            if address and ready["address"]:
                got = payload("address")
                page, rest = divmod(got.address - BASE, LISTS.page_bytes)
                assert (got.id, rest) == (1, 0)
                assert (page, got.length + 1) == (
                    asked[list_reader.ADDRESS_PAGE], asked[list_reader.ADDRESS_BEATS])
                beats.extend((cycle + 20, page, n, n == got.length) for n in range(got.length + 1))
            # The array: a tile is over when all of its entries were given, or at any time.
            if oldest < self.announced:
                have = sum(map(len, self.given[oldest]))
                if have == self.counts[oldest] or (self.early and self.out(0.02)):
                    over += have < self.counts[oldest]
                    oldest += 1
            if stop:
                quiet = 0 if beats or address or reader[list_reader.ADDRESS] else quiet + 1
                if quiet > 40:
                    break
            elif done and not reading:
                self.finished = True
                self.partitioned = int(state[model.PARTITIONS])
                break
        else:
            raise AssertionError("not done")
        self.over = over


COUNTS = [0, 5, 8, 9, 30, 0, 120, 1, 61, 17, 64, 8, 0, 200, 40, 3, 9, 90, 0, 31]


@pytest.mark.parametrize("pace", [(0.0, 0.0), (0.4, 0.0), (0.3, 0.5)])
def test_chunks_against_both_models(pace):
    play = Play(COUNTS, gap=pace[0], stall=pace[1])
    bench(DESIGN).play(play.play)
    assert play.finished
    partitions = 0
    for entries, given in zip(play.lists, play.given, strict=True):
        chunks, within = qsu_fixed(DESIGN, ENTRY, entries, play.low, play.high)
        partitions += within
        assert len(given) == len(chunks)
        for got, expected in zip(given, chunks, strict=True):
            np.testing.assert_array_equal(got, expected)
    assert play.partitioned == partitions
    assert play.released == sum(count > DESIGN.chunk for count in COUNTS)


def test_latency_from_tile_to_tile():
    play = Play([5, 3, 8, 1] + 16 * [0])
    bench(DESIGN).play(play.play)
    assert [tile for tile, _ in play.times] == [0, 1, 2, 3]
    cycles = np.diff([cycle for _, cycle in play.times])
    assert cycles.tolist() == [Qsu.latency] * 3


@pytest.mark.parametrize("seed", range(2))
def test_of_a_tile_that_is_over_nothing_further_is_given(seed):
    play = Play(COUNTS, gap=0.1, stall=0.2, seed=seed, early=True)
    bench(DESIGN).play(play.play)
    assert play.finished
    assert play.over
    short = 0
    for entries, given in zip(play.lists, play.given, strict=True):
        chunks, _ = qsu_fixed(DESIGN, ENTRY, entries, play.low, play.high)
        short += len(given) < len(chunks)
        for got, expected in zip(given, chunks, strict=False):
            np.testing.assert_array_equal(got, expected)
    assert short


@pytest.mark.parametrize("seed", range(2))
def test_no_tile_is_announced_while_one_that_is_over_lingers(seed):
    """Empty tiles pass in a few cycles each; a chunk of the tile before them is still awaited."""
    play = Play([8, *[0] * 14, 30, *[0] * 4], seed=seed, early=True, loads=0.002)
    bench(DESIGN).play(play.play)
    assert play.finished
    assert play.over


@pytest.mark.parametrize("cycles", [60, 300, 700])
def test_nothing_is_asked_for_after_stop(cycles):
    play = Play(COUNTS, seed=3, stop_at=cycles)
    bench(DESIGN).play(play.play)
    assert not play.finished


def test_lists_must_suffice():
    with pytest.raises(ValueError, match="Further lists must be at least 112, 8 for each of 14"):
        QsuDesign().check_lists(ListsDesign(slots=64))
    with pytest.raises(ValueError, match="Buckets must be a power of two from 2 to 64, not 3"):
        QsuDesign(buckets=3)
    with pytest.raises(ValueError, match="Chunk must be a power of two"):
        QsuDesign(chunk=100)


@pytest.mark.rtl
def test_verilog_against_fixed(run_testbench):
    run_testbench("qsu", seed=11)

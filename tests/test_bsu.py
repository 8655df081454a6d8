"""Sorting units: the network against a plain sort, RTL against both models."""

import re
import sys
from collections import deque
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from splatforge.algos.bsu import bsu_fixed, from_words, passes, to_words
from splatforge.algos.lists import ListPages
from splatforge.designs.bsu import BsuDesign
from splatforge.designs.entry import EntryFormat
from splatforge.designs.lists import ListsDesign
from splatforge.hw.bsu import Bsu
from splatforge.hw.lib.sorter import Sorter, pair_layout, sorted_layout
from splatforge.sim import bsu as model
from splatforge.sim import list_reader
from splatforge.sim import sorter as sorter_model

sys.path.insert(0, str(Path(__file__).parent))
import streams

DESIGN = BsuDesign()
ENTRY = DESIGN.entry
#: Everything fills up; keys are soon the same.
SMALL = BsuDesign(entry=EntryFormat(feature_bits=5, depth_bits=3), chunk=16, width=4, units=2)
#: Fewer rows than columns.
FLAT = BsuDesign(chunk=32, width=8, units=3)


def entries(rng, count, entry=ENTRY):
    """Entries of any bits."""
    return entry.encode(*(rng.integers(0, 1 << width, count) for _, width in entry.fields()))


@pytest.mark.parametrize("design", [
    DESIGN, SMALL, FLAT, BsuDesign(chunk=2, width=2), BsuDesign(chunk=4, width=2),
    BsuDesign(chunk=1024, width=32), BsuDesign(chunk=16)])
@pytest.mark.parametrize("seed", [1, 2])
def test_network_sorts(design, seed):
    """By key, and where keys are the same by the mask; the last key of all among them."""
    rng = np.random.default_rng(seed)
    entry = design.entry
    full = (1 << entry.width) - 1
    counts = range(1, design.chunk + 1)
    if design.chunk > 32:
        counts = [1, design.chunk - 1, design.chunk, *rng.choice(counts, 40).tolist()]
    for count in counts:
        chunk = entries(rng, count, entry)
        chunk[rng.random(count) < 0.2] = full
        fields = entry.decode(chunk)
        want = chunk[np.lexsort([-fields["subtiles"], entry.key(chunk)])]
        np.testing.assert_array_equal(bsu_fixed(design, chunk), want)


@pytest.mark.parametrize("design", [
    BsuDesign(chunk=8, width=4), BsuDesign(chunk=8, width=8), BsuDesign(chunk=4, width=2)])
def test_every_order_of_zeros_and_ones_is_sorted(design):
    """What sorts these sorts everything (Knuth, The Art of Computer Programming 3, 5.3.4)."""
    for bits in range(1 << design.chunk):
        flags = bits >> np.arange(design.chunk) & 1
        chunk = design.entry.encode(flags, 0 * flags, 1 + 0 * flags)
        assert (np.diff(design.entry.key(bsu_fixed(design, chunk))) >= 0).all()


def test_a_pad_is_behind_every_entry_that_meets_a_subtile():
    chunk = np.array([(1 << ENTRY.width) - 1] * 3, np.uint64)
    np.testing.assert_array_equal(bsu_fixed(DESIGN, chunk), chunk)


def test_words_come_back():
    chunk = entries(np.random.default_rng(3), 500)
    np.testing.assert_array_equal(from_words(ENTRY, to_words(ENTRY, chunk)), chunk)


@pytest.mark.parametrize(("count", "number"), [
    (1, 0), (2, 1), (16, 4), (17, 6), (64, 8), (128, 10), (129, 12), (256, 12)])
def test_passes(count, number):
    """256 entries pass 192 rows and columns of 16."""
    assert len(passes(DESIGN, count)) == number


@pytest.mark.parametrize(("change", "message"), [
    ({"width": 12}, "Width of a sorter must be a power of two from 2 to 64, not 12"),
    ({"width": 128}, "Width of a sorter must be a power of two from 2 to 64, not 128"),
    ({"chunk": 512}, "Chunk must be a power of two from 16 to 256, not 512"),
    ({"chunk": 8}, "Chunk must be a power of two from 16 to 256, not 8"),
    ({"chunk": 96}, "Chunk must be a power of two from 16 to 256, not 96"),
    ({"units": 0}, "Sorters must be 1 to 16, not 0"),
    ({"units": 17}, "Sorters must be 1 to 16, not 17"),
])
def test_wrong_designs_are_refused(change, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        BsuDesign(**change)


@pytest.mark.parametrize("count", [0, 257])
def test_wrong_counts_are_refused(count):
    with pytest.raises(ValueError, match=f"^Entries of a chunk must be 1 to 256, not {count}$"):
        bsu_fixed(DESIGN, np.zeros(count, np.uint64))


@cache
def sorter_bench(design):
    return streams.Bench(Sorter(design))


class SortChunks:
    """A sorter beside its model, cycle by cycle; some chunks are dropped."""

    def __init__(self, design, chunks, seed, *, gap=0.0, stall=0.0, drop=0.0):
        self.design, self.chunks = design, chunks
        self.rng = np.random.default_rng(seed)
        self.gap, self.stall, self.drop = gap, stall, drop
        self.state = sorter_model.new_sorter(design)
        #: For each chunk what came of it, and whether all of it.
        self.came = []
        #: Cycles of each chunk's last pair and of its entries.
        self.loaded, self.times = [], []
        self.rows = 0

    def out(self, probability):
        return self.rng.random() < probability

    async def play(self, ctx):
        dut, entry = sorter_bench(self.design).dut, self.design.entry
        layout = pair_layout(entry)
        pairs, shown, number = [], None, 0
        for cycle in range(200_000):
            if not pairs and not shown:
                if number < len(self.chunks):
                    # One or two at a time, in any way that they come.
                    left = self.chunks[number].tolist()
                    while left:
                        count = 2 if len(left) > 1 else 1
                        pairs.append((left[:count], len(left) == count))
                        del left[:count]
                    number += 1
                    self.came.append([])
                    self.times.append([])
                elif len(self.loaded) == number and self.state[sorter_model.PHASE] == (
                        sorter_model.LOAD):
                    return
            ready, busy, place, last = sorter_model.offers(self.state)
            if shown is None and pairs and not self.out(self.gap):
                # Between chunks the pairs of the next wait; the sorter is not ready for them.
                shown = pairs.pop(0)
            words, ends = shown or ([], False)
            ctx.set(dut.i.valid, shown is not None)
            if shown:
                ctx.set(dut.i.payload, layout.const({
                    "first": words[0], "second": words[-1], "both": len(words) == 2,
                    "last": ends}))
            out_ready, drop = not self.out(self.stall), self.out(self.drop)
            ctx.set(dut.o.ready, out_ready)
            ctx.set(dut.drop, drop)
            _, _, *seen = await ctx.tick().sample(
                dut.i.ready, dut.busy, dut.o.valid, dut.o.payload.as_value())
            word = seen.pop()
            assert seen == [ready, busy, place >= 0], cycle
            self.rows += busy
            if place >= 0:
                got = sorted_layout(entry).from_bits(word)
                assert got.last == last
                if out_ready:
                    assert place == len(self.came[len(self.loaded) - 1])
                    self.came[len(self.loaded) - 1].append((got.feature, got.subtiles))
                    self.times[len(self.loaded) - 1].append(cycle)
            sorter_model.step(
                self.state, len(words) if ready else 0, ends, out_ready, drop)
            if ready and shown:
                if ends:
                    self.loaded.append(cycle)
                shown = None
        raise AssertionError("not done")


def counts_of(design, rng, number):
    """Chunks of every kind: one, powers of two and their neighbours, a full one, any."""
    around = [1, 2, 3, design.width - 1, design.width, design.width + 1, design.chunk // 2,
              design.chunk // 2 + 1, design.chunk - 1, design.chunk]
    counts = [count for count in around if 1 <= count <= design.chunk]
    return [*counts, *rng.integers(1, design.chunk + 1, number).tolist()]


@pytest.mark.parametrize(("design", "number"), [
    (SMALL, 40), (FLAT, 20), (BsuDesign(chunk=2, width=2), 20), (BsuDesign(chunk=4, width=2), 20),
    (BsuDesign(chunk=16), 10), (DESIGN, 0)],
    ids=["small", "flat", "two", "four", "row", "default"])
@pytest.mark.parametrize(("gap", "stall", "drop"), [
    (0.0, 0.0, 0.0), (0.3, 0.4, 0.0), (0.0, 0.2, 0.02)])
def test_sorter_against_both_models(design, number, gap, stall, drop):
    rng = np.random.default_rng(5)
    chunks = [entries(rng, count, design.entry) for count in counts_of(design, rng, number)]
    play = SortChunks(design, chunks, 6, gap=gap, stall=stall, drop=drop)
    sorter_bench(design).play(play.play)
    whole = 0
    for chunk, came in zip(chunks, play.came, strict=True):
        fields = design.entry.decode(bsu_fixed(design, chunk))
        want = list(zip(fields["feature"].tolist(), fields["subtiles"].tolist(), strict=True))
        assert came == want[:len(came)]
        whole += came == want
    if drop:
        assert whole < len(chunks)
        return
    assert whole == len(chunks)
    # A pass reads each row once.
    assert play.rows == sum(
        len(passes(design, len(chunk)))
        * max(1, (1 << (len(chunk) - 1).bit_length()) // design.width) for chunk in chunks)
    if not gap and not stall:
        for chunk, loaded, times in zip(chunks, play.loaded, play.times, strict=True):
            assert times[0] - loaded == sorter_model.sort_cycles(design, len(chunk))
            assert np.diff(times).tolist() == [1] * (len(chunk) - 1)


@pytest.mark.parametrize(("count", "cycles"), [
    (1, 4), (2, 10), (16, 28), (32, 46), (64, 76), (129, 263), (256, 256)])
def test_cycles_of_a_chunk(count, cycles):
    """Four sorters at this pace are ahead of an array that takes an entry a cycle."""
    assert sorter_model.sort_cycles(DESIGN, count) == cycles
    if count >= 16:
        assert count / 2 + cycles + count < DESIGN.units * count


LISTS = ListsDesign(entry=SMALL.entry, tiles=64, slots=64, page_bytes=64, page_bits=10,
                    waiting_beats=8, buffer_beats=8, outstanding_pages=4)
BASE, FIRST = 0x12_3456_7000, 2


@cache
def whole():
    return streams.Bench(Bsu(SMALL, LISTS))


class PlayChunks:
    """The unit between lists in a memory and an array, beside both models, cycle by cycle.

    With ``early``, tiles are over at any time behind their first chunk.
    """

    def __init__(self, tiles, *, gap=0.0, stall=0.0, seed=1, early=False, stop_at=None):
        self.rng = np.random.default_rng(seed)
        self.gap, self.stall, self.early, self.stop_at = gap, stall, early, stop_at
        self.tiles = tiles
        self.pages = ListPages(LISTS, FIRST)
        #: Tile, entries of each chunk; the list of its number holds them.
        self.chunks = []
        for _ in range(60):
            count = int(self.rng.choice([1, 2, 3, 7, 8, 15, SMALL.chunk]))
            self.chunks.append((int(self.rng.integers(tiles)), entries(self.rng, count,
                                                                       SMALL.entry)))
        self.chunks.sort(key=lambda chunk: chunk[0])
        for number, (_, chunk) in enumerate(self.chunks):
            self.pages.append(np.full(len(chunk), number), chunk)
        self.pages.flush(0, len(self.chunks))
        self.given, self.loaded, self.behind = [], 0, 0
        self.finished = False

    def out(self, probability):
        return self.rng.random() < probability

    async def play(self, ctx):
        dut = whole().dut
        state, sorters = model.new_bsu(SMALL), model.new_sorters(SMALL)
        reader = list_reader.new_list_reader(LISTS)
        limits = list_reader.limits_of(LISTS)
        ctx.set(dut.base_address, BASE)
        starts = np.concatenate([[0], np.cumsum([len(chunk) for _, chunk in self.chunks])])
        ordered = np.concatenate([bsu_fixed(SMALL, chunk) for _, chunk in self.chunks])
        fields = SMALL.entry.decode(ordered)
        owner = np.repeat(np.arange(len(self.chunks)), np.diff(starts))
        sent, shown, oldest, quiet = 0, False, 0, 0
        beats, came = deque(), 0
        counts = np.zeros(3, np.int64)
        held = {}
        for cycle in range(20_000):
            stop = self.stop_at is not None and cycle >= self.stop_at
            address_ready, entry_ready = (not self.out(self.stall) for _ in range(2))
            ctx.set(dut.o_address.ready, address_ready)
            ctx.set(dut.o_entry.ready, entry_ready)
            ctx.set(dut.oldest, oldest & 15)
            ctx.set(dut.stop, stop)
            chunk = (0, 0, 0, 0)
            if sent < len(self.chunks) and self.chunks[sent][0] - oldest < 8 and (
                    shown or not self.out(self.gap)):
                shown = True
                page, count, _, _ = self.pages.query(sent)
                chunk = (count, page, self.chunks[sent][0], int(starts[sent]))
                for name, value in (("page", page), ("count", count), ("tag", chunk[2] & 15)):
                    ctx.set(dut.i_chunk.p[name], value)
            ctx.set(dut.i_chunk.valid, chunk[0] > 0)
            beat = (-1, 0, False)
            if beats and beats[0][0] <= cycle and not self.out(self.gap):
                _, page, number, last = beats.popleft()
                pair = tuple(int(word) for word in self.pages.words[page, 2 * number:][:2])
                beat, came = (came, pair[0], last), came + 1
                ctx.set(dut.i_beat.p.id, 2)
                ctx.set(dut.i_beat.p.data, pair[0] | pair[1] << 64)
                ctx.set(dut.i_beat.p.last, last)
            ctx.set(dut.i_beat.valid, beat[0] >= 0)

            chunk_ready, valid = model.offers(state)
            behind = model.behind(state, oldest)
            place, tile = int(state[model.OUT_PLACE]), int(state[model.OUT_TILE])
            address = bool(reader[list_reader.ADDRESS])
            asked = reader[list_reader.ADDRESS_PAGE], reader[list_reader.ADDRESS_BEATS]
            before = state[[model.BUSY, model.CHUNKS, model.ENTRIES]]
            loaded = model.step(state, reader, sorters, limits, chunk, stop, oldest, address_ready,
                                beat, entry_ready)
            _, _, *seen = await ctx.tick().sample(
                dut.i_chunk.ready, dut.o_entry.valid, dut.o_address.valid, dut.loaded, dut.busy,
                dut.sorted, dut.entries, dut.o_entry.payload.as_value(),
                dut.o_address.payload.as_value(), dut.behind)
            assert seen[:4] == [chunk_ready, valid, address, loaded], cycle
            assert seen[9] == behind, cycle
            self.behind += behind
            now = state[[model.BUSY, model.CHUNKS, model.ENTRIES]]
            assert seen[4:7] == (now - before).tolist(), cycle
            counts += seen[4:7]
            for name, here, ready, word in (("entry", valid, entry_ready, seen[7]),
                                            ("address", address, address_ready, seen[8])):
                assert name not in held or (here and held[name] == word)
                held = {key: value for key, value in held.items() if key != name}
                if here and not ready:
                    held[name] = word
            if chunk[0] and chunk_ready:
                sent, shown = sent + 1, False
            self.loaded += loaded
            if valid:
                got = streams.unpack(dut.o_entry.payload.shape(), seen[7])
                assert (got.feature, got.subtiles, got.tile) == (
                    fields["feature"][place], fields["subtiles"][place], tile & 15), cycle
                assert tile == self.chunks[owner[place]][0]
                if entry_ready:
                    self.given.append(place)
            if address and address_ready:
                got = streams.unpack(dut.o_address.payload.shape(), seen[8])
                page, rest = divmod(got.address - BASE, LISTS.page_bytes)
                assert (got.id, rest) == (2, 0)
                assert (page, got.length + 1) == asked
                beats.extend((cycle + 15, page, n, n == got.length) for n in range(got.length + 1))
            # A tile is over when all of it was given, or at any time when some of it was.
            mine = [n for n, (owned, _) in enumerate(self.chunks) if owned == oldest]
            if oldest < self.tiles and (not mine or sent > mine[0]) and (
                    not mine or self.given[-1:] >= [starts[mine[-1] + 1] - 1]
                    or (self.early and self.out(0.02))):
                oldest += 1
            if stop:
                quiet = 0 if beats or address else quiet + 1
                if quiet > 40:
                    break
            elif oldest == self.tiles and self.loaded == len(self.chunks):
                self.finished = True
                break
        else:
            raise AssertionError("not done")
        self.counts, self.starts = counts.tolist(), starts
        self.idle = ctx.get(dut.idle)


@pytest.mark.parametrize("pace", [(0.0, 0.0), (0.4, 0.0), (0.2, 0.5)])
def test_chunks_against_both_models(pace):
    play = PlayChunks(12, gap=pace[0], stall=pace[1])
    whole().play(play.play)
    assert play.finished
    assert play.given == list(range(play.starts[-1]))
    assert play.counts[1:] == [len(play.chunks), play.starts[-1]]
    assert play.counts[0]


@pytest.mark.parametrize("seed", range(3))
def test_chunks_of_tiles_that_are_over_are_dropped(seed):
    play = PlayChunks(12, gap=0.1, stall=0.2, seed=seed, early=True)
    whole().play(play.play)
    assert play.finished
    assert play.given == sorted(set(play.given))
    assert len(play.given) < play.starts[-1]
    assert play.counts[1] < len(play.chunks)
    assert play.behind


@pytest.mark.parametrize("cycles", [20, 90])
def test_nothing_is_asked_for_after_stop(cycles):
    play = PlayChunks(12, seed=3, stop_at=cycles)
    whole().play(play.play)
    assert not play.finished
    assert play.idle


def paced(counts, latency):
    """Cycles from the first chunk to each chunk's last entry: chunks wait, the array takes all."""
    lists = ListsDesign()
    pages = ListPages(lists)
    for number, count in enumerate(counts):
        pages.append(np.full(count, number), np.zeros(count, np.uint64))
    pages.flush(0, len(counts))
    state, sorters = model.new_bsu(DESIGN), model.new_sorters(DESIGN)
    reader, limits = list_reader.new_list_reader(lists), list_reader.limits_of(lists)
    beats, ends, sent, place, free, cycle = deque(), [], 0, 0, 0, 0
    firsts = np.cumsum([0, *counts])
    while len(ends) < len(counts):
        chunk = (0, 0, 0, 0)
        if sent < len(counts):
            page, count, _, _ = pages.query(sent)
            chunk = (count, page, 0, int(firsts[sent]))
        beat = (-1, 0, False)
        if beats and beats[0][0] <= cycle:
            _, link, last = beats.popleft()
            beat, place = (place, link, last), place + 1
        ready, valid = model.offers(state)
        at = state[model.OUT_PLACE]
        if reader[list_reader.ADDRESS]:
            page, length = reader[list_reader.ADDRESS_PAGE], reader[list_reader.ADDRESS_BEATS]
            free = max(free, cycle + latency)
            beats.extend((free + n, int(pages.words[page, 0]), n == length - 1)
                         for n in range(length))
            free += int(length)
        model.step(state, reader, sorters, limits, chunk, False, 0, True, beat, True)
        sent += ready and sent < len(counts)
        if valid and at == firsts[len(ends) + 1] - 1:
            ends.append(cycle)
        cycle += 1
    return ends


@pytest.mark.parametrize(("count", "most"), [
    (256, 1), (129, 1), (64, 1), (17, 1.05), (16, 1), (8, 1.05), (2, 1.5)])
def test_an_entry_a_cycle(count, most):
    """Four sorters give an entry a cycle, of chunks of 16 entries and more: or nearly so."""
    ends = paced([count] * 24, 40)
    assert ends[-1] - ends[7] <= most * 16 * count


@pytest.mark.rtl
def test_verilog_against_fixed(run_testbench):
    run_testbench("bsu", seed=5)

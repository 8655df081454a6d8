"""Testbench of the partitioning unit, amid lists in a memory, sorters and an array."""

from collections import deque

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from splatforge.algos.lists import ListPages
from splatforge.algos.qsu import qsu_fixed
from splatforge.designs.entry import TILE_TAG_BITS
from splatforge.designs.fetch import TILE_PX
from splatforge.hw.lib.axi import READ_LISTS
from splatforge.hw.lib.list_reader import listed_layout
from splatforge.hw.lists import answer_layout, append_layout, range_layout
from splatforge.verification.lib.list_memory import (
    BASE,
    ENTRY,
    FIRST_PAGE,
    LISTS,
    ListMemory,
    check_stop,
)
from splatforge.verification.lib.runner import TESTED_GSCORE
from splatforge.verification.lib.stream import port, start

QSU = TESTED_GSCORE.qsu
TILES_X, TILES_Y = 4, 4
#: Entries of the first tiles: none, one, a chunk, one more, as many as there may be.
CORNERS = (0, 1, QSU.chunk, QSU.chunk + 1, (1 << ENTRY.feature_bits) - 1, 0)


class Around:
    """What stands around the unit, and what it is given.

    Parameters
    ----------
    dut :
        The unit.
    seed : int
        Draws lists, latencies and pauses.
    gap, stall : float
        Probability that nothing is sent, and that nothing is taken, in a cycle.
    early : bool
        Whether tiles end before their list does.
    """

    def __init__(self, dut, seed: int, gap: float, stall: float, early: bool) -> None:
        self.dut, self.stall, self.early = dut, stall, early
        self.rng = np.random.default_rng([cocotb.RANDOM_SEED, seed])
        self.memory = ListMemory(dut, self.rng, READ_LISTS, gap)
        self.pause = self.memory.pause
        tiles, top = TILES_X * TILES_Y, 1 << ENTRY.feature_bits
        self.counts = [*CORNERS, *self.rng.integers(0, top, tiles - len(CORNERS)).tolist()]
        tile = np.repeat(np.arange(tiles), self.counts)
        feature = np.concatenate(
            [self.rng.choice(top, count, replace=False) for count in self.counts])
        entries = ENTRY.encode(
            feature, self.rng.integers(0, 1 << ENTRY.depth_bits, len(tile)),
            self.rng.integers(1, 1 << ENTRY.subtile_bits, len(tile)))
        self.pages = ListPages(LISTS, FIRST_PAGE)
        self.pages.append(tile, entries)
        self.pages.flush(0, tiles)
        self.pages.mark()
        keys = ENTRY.key(entries)
        self.low, self.high = int(keys.min()), int(keys.max())
        #: Chunks that must come of every tile, and those that came.
        self.expected = [
            qsu_fixed(QSU, ENTRY, entries[tile == number], self.low, self.high)[0]
            for number in range(tiles)]
        self.given: list[list[np.ndarray]] = [[] for _ in range(tiles)]
        self.announced = self.oldest = 0
        self.chunks: deque[tuple[int, int, int]] = deque()
        self.answers: deque[tuple[int, tuple[int, ...]]] = deque()
        self.settled = 0
        self.answering = False

    async def step(self) -> None:
        """One cycle."""
        dut = self.dut
        ready = {name: not self.pause(self.stall)
                 for name in ("tile", "chunk", "query", "range", "entry")}
        for name, value in ready.items():
            port(dut, f"o_{name}").ready.value = int(value)
        address_ready = not self.pause(self.stall)
        answer = port(dut, "i_answer")
        if self.answers and self.answers[0][0] <= self.memory.cycle:
            answer.valid.value = 1
            answer.payload.value = answer_layout(LISTS).const(dict(zip(
                ("page", "count", "low", "high"), self.answers[0][1], strict=True,
            ))).as_value().value
        else:
            answer.valid.value = 0
        loaded = bool(self.chunks) and self.pause(0.1)
        dut.i_loaded.value = int(loaded)
        dut.i_lists_idle.value = int(self.settled <= self.memory.cycle)
        dut.oldest.value = self.oldest % (1 << TILE_TAG_BITS)
        dut.behind.value = int(bool(self.chunks) and self.chunks[0][0] < self.oldest)
        await self.memory.step(self.pages.words, address_ready=address_ready)

        def taken(name: str) -> int | None:
            stream = port(dut, f"o_{name}")
            return int(stream.payload.value) if ready[name] and stream.valid.value == 1 else None

        if answer.valid.value == 1 and answer.ready.value == 1:
            self.answers.popleft()
        if (word := taken("tile")) is not None:
            tile, y, x = self.announced, self.announced // TILES_X, self.announced % TILES_X
            columns = min(TILE_PX, int(dut.width.value) - TILE_PX * x)
            rows = min(TILE_PX, int(dut.height.value) - TILE_PX * y)
            # The layout of a listed tile: number, columns, rows, splats.
            assert word == (tile % (1 << TILE_TAG_BITS) | columns << 4 | rows << 9
                            | self.counts[tile] << 14)
            assert tile - self.oldest < 8
            assert not self.chunks or tile - self.chunks[0][0] <= 8
            self.announced += 1
        if loaded:
            tile, page, count = self.chunks.popleft()
            # What is read now has not been written over since it was given.
            self.given[tile].append(self.pages.read(page, count))
        if (word := taken("chunk")) is not None:
            chunk = listed_layout(LISTS).from_bits(word)
            assert chunk.tag == (self.announced - 1) % (1 << TILE_TAG_BITS)
            self.chunks.append((self.announced - 1, chunk.page, chunk.count))
        if dut.release.value == 1:
            assert not self.chunks, "pages are used again that are still to be read"
            self.pages.release()
        if (word := taken("query")) is not None:
            page, count, low, high = self.pages.query(word)
            if word < LISTS.tiles:
                low, high = self.low, self.high
            self.answers.append((self.memory.cycle + int(self.rng.integers(3, 9)),
                                 (page, count, low, high)))
        if (word := taken("range")) is not None:
            part = range_layout(LISTS).from_bits(word)
            (self.pages.flush if part.flush else self.pages.clear)(part.first, part.count)
            self.settled = self.memory.cycle + int(self.rng.integers(1, 9))
        if (word := taken("entry")) is not None:
            appended = append_layout(LISTS).from_bits(word)
            self.pages.append(
                np.array([appended.list]), np.array([appended.entry], np.uint64))
        # The array: a tile is over when it has all of its entries, or at any time.
        if self.oldest < self.announced:
            have = sum(map(len, self.given[self.oldest]))
            if have == self.counts[self.oldest] or (self.early and self.pause(0.02)):
                self.oldest += 1


async def begin(dut) -> None:
    """Reset, then start a frame."""
    dut.stop.value = dut.start.value = dut.i_loaded.value = dut.oldest.value = 0
    dut.behind.value = 0
    dut.i_lists_idle.value = 1
    dut.width.value, dut.height.value = TILES_X * TILE_PX - 3, TILES_Y * TILE_PX - 7
    dut.base_address.value = BASE
    await start(dut, inputs=["i_answer", "i_beat"],
                outputs=["o_tile", "o_chunk", "o_query", "o_range", "o_entry", "o_address"])
    dut.start.value = 1
    await RisingEdge(dut.clk)
    dut.start.value = 0


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(gap=[0.0, 0.4], stall=[0.0, 0.4], early=[False, True])
async def whole_frames(dut, gap: float, stall: float, early: bool) -> None:
    """Chunks in order, of every tile all or as many as were wanted, equal to the bit-true model."""
    around = Around(dut, 2, gap, stall, early)
    await begin(dut)
    while dut.done.value == 0 or around.chunks:
        await around.step()
    short = 0
    for expected, given in zip(around.expected, around.given, strict=True):
        short += len(given) < len(expected)
        for want, got in zip(expected, given, strict=False):
            np.testing.assert_array_equal(want, got)
    assert early or not short
    assert dut.idle.value == 1
    assert not around.memory.beats


@cocotb.test(timeout_time=100, timeout_unit="us")
@cocotb.parametrize(cycles=[60, 200, 500])
async def stop(dut, cycles: int) -> None:
    """Nothing is read behind ``stop``; what is in flight arrives."""
    await check_stop(Around(dut, 1, 0.0, 0.0, False), begin, cycles)

"""Testbench of the sorting units, amid chunks in a memory and an array that ends tiles."""

import cocotb
import numpy as np

from splatforge.algos.bsu import bsu_fixed
from splatforge.algos.lists import ListPages
from splatforge.designs.entry import TILE_TAG_BITS
from splatforge.hw.lib.axi import READ_CHUNKS
from splatforge.hw.lib.list_reader import listed_layout
from splatforge.hw.vru import entry_layout
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

BSU = TESTED_GSCORE.bsu
#: Chunks of the first tiles: none, the shortest and the longest, one of every length.
CORNERS = ((), (1,), (BSU.chunk, BSU.chunk), tuple(range(1, BSU.chunk + 1)), (), (1, 1, 1, 1))
TILES = 24
#: Tiles beyond the oldest that chunks are given of.
AHEAD = 6


class Around:
    """What stands around the unit, and what it is given.

    Parameters
    ----------
    dut :
        The unit.
    seed : int
        Draws chunks, latencies and pauses.
    gap, stall : float
        Probability that nothing is sent, and that nothing is taken, in a cycle.
    early : bool
        Whether tiles end before their last entry.
    """

    def __init__(self, dut, seed: int, gap: float, stall: float, early: bool) -> None:
        self.dut, self.gap, self.stall, self.early = dut, gap, stall, early
        self.rng = np.random.default_rng([cocotb.RANDOM_SEED, seed])
        self.memory = ListMemory(dut, self.rng, READ_CHUNKS, gap)
        self.pause = self.memory.pause
        counts = [*CORNERS, *(tuple(self.rng.integers(1, BSU.chunk + 1, chunks).tolist())
                              for chunks in self.rng.integers(0, 4, TILES - len(CORNERS)))]
        #: Tile of every chunk; its list is the one of that number.
        self.tiles = np.repeat(np.arange(TILES), [len(each) for each in counts]).tolist()
        number = np.repeat(np.arange(len(self.tiles)), [count for each in counts for count in each])
        entries = ENTRY.encode(
            self.rng.integers(0, 1 << ENTRY.feature_bits, len(number)),
            self.rng.integers(0, 1 << ENTRY.depth_bits, len(number)),
            self.rng.integers(1, 1 << ENTRY.subtile_bits, len(number)))
        self.pages = ListPages(LISTS, FIRST_PAGE)
        order = self.rng.permutation(len(number))
        self.pages.append(number[order], entries[order])
        self.pages.flush(0, len(self.tiles))
        self.words = self.pages.words.copy()
        #: Of every tile the entries that must come, in order, and those that came.
        self.expected: list[list[tuple[int, int]]] = [[] for _ in range(TILES)]
        self.given: list[list[tuple[int, int]]] = [[] for _ in range(TILES)]
        for chunk, tile in enumerate(self.tiles):
            fields = ENTRY.decode(bsu_fixed(BSU, entries[number == chunk]))
            self.expected[tile] += zip(
                fields["feature"].tolist(), fields["subtiles"].tolist(), strict=True)
        self.sent = self.loaded = self.settled = self.oldest = 0

    @property
    def done(self) -> bool:
        """Whether every chunk was read, and every tile is over."""
        return self.oldest == TILES and self.loaded == len(self.tiles)

    async def step(self) -> None:
        """One cycle."""
        dut = self.dut
        chunk, entry = port(dut, "i_chunk"), port(dut, "o_entry")
        entry_ready, address_ready = not self.pause(self.stall), not self.pause(self.stall)
        entry.ready.value = int(entry_ready)
        if chunk.valid.value == 0 and self.sent < len(self.tiles) and not self.pause(self.gap):
            tile = self.tiles[self.sent]
            if tile <= self.oldest + AHEAD:
                page, count, _, _ = self.pages.query(self.sent)
                chunk.payload.value = listed_layout(LISTS).const({
                    "page": page, "count": count, "tag": tile % (1 << TILE_TAG_BITS),
                }).as_value().value
                chunk.valid.value = 1
        dut.oldest.value = self.oldest % (1 << TILE_TAG_BITS)
        await self.memory.step(self.words, address_ready=address_ready)

        self.loaded += int(dut.loaded.value)
        if self.loaded == self.sent:
            # Nothing of all those is read from here on: their pages may hold anything.
            while self.settled < self.sent:
                for page, _ in self.pages.bursts(*self.pages.query(self.settled)[:2]):
                    self.words[page] = 0
                self.settled += 1
        if chunk.valid.value == 1 and chunk.ready.value == 1:
            self.sent += 1
            chunk.valid.value = 0
        if entry_ready and entry.valid.value == 1:
            got = entry_layout(ENTRY).from_bits(int(entry.payload.value))
            # Numbers of tiles tell those before and behind the oldest apart.
            half = 1 << (TILE_TAG_BITS - 1)
            tile = self.oldest + (got.tile - self.oldest + half) % (2 * half) - half
            self.given[tile].append((got.feature, got.subtiles))
        # The array: a tile is over when it has all of its entries, or at any time, but not while
        # anything of those before is inside.
        if self.oldest < TILES and dut.behind.value == 0:
            whole = len(self.given[self.oldest]) == len(self.expected[self.oldest])
            if whole or (self.early and self.pause(0.03)):
                self.oldest += 1


async def begin(dut) -> None:
    """Reset."""
    dut.stop.value = dut.oldest.value = 0
    dut.base_address.value = BASE
    await start(dut, inputs=["i_chunk", "i_beat"], outputs=["o_entry", "o_address"])


@cocotb.test(timeout_time=500, timeout_unit="us")
@cocotb.parametrize(seed=[1, 2], gap=[0.0, 0.4], stall=[0.0, 0.4], early=[False, True])
async def whole_frames(dut, seed: int, gap: float, stall: float, early: bool) -> None:
    """Of every tile the first entries in order, as many as were wanted, equal to the model's."""
    around = Around(dut, seed, gap, stall, early)
    await begin(dut)
    sorted_entries = sorted_chunks = 0
    while not around.done:
        await around.step()
        sorted_entries += int(dut.entries.value)
        sorted_chunks += int(dut.sorted.value)
    short = 0
    for tile, (expected, given) in enumerate(
            zip(around.expected, around.given, strict=True)):
        assert given == expected[:len(given)], f"tile {tile}"
        short += len(given) < len(expected)
    assert bool(short) == early
    if not early:
        assert sorted_entries == sum(map(len, around.expected))
        assert sorted_chunks == len(around.tiles)
    for _ in range(40):
        await around.step()
        assert port(dut, "o_entry").valid.value == 0, "more was sent than there is"
    assert dut.idle.value == 1
    assert not around.memory.beats


@cocotb.test(timeout_time=100, timeout_unit="us")
@cocotb.parametrize(cycles=[15, 40, 120])
async def stop(dut, cycles: int) -> None:
    """Nothing is read behind ``stop``; what is in flight arrives."""
    await check_stop(Around(dut, 1, 0.0, 0.0, False), begin, cycles)

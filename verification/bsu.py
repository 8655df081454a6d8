"""Testbench of the sorting units, amid lists in a memory and an array."""

from collections import deque

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from splatforge.algos.bsu import bsu_fixed
from splatforge.algos.lists import ListPages
from splatforge.designs.entry import TILE_TAG_BITS
from splatforge.hw.fetch import address_layout, beat_layout
from splatforge.hw.lib.axi import READ_CHUNKS, READ_FEATURES
from splatforge.hw.lib.list_reader import listed_layout
from splatforge.hw.vru import entry_layout
from splatforge.verification.lib.runner import TESTED_GSCORE
from splatforge.verification.lib.stream import port, start

BSU, LISTS, SHELL = TESTED_GSCORE.bsu, TESTED_GSCORE.lists, TESTED_GSCORE.shell
ENTRY = LISTS.entry
#: Above 32 bits, a multiple of a page.
BASE, FIRST_PAGE = 0x12_3456_7000, 5
TILES = 20


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
        Whether tiles end before all of their chunks have been given.
    """

    def __init__(self, dut, seed: int, gap: float, stall: float, early: bool) -> None:
        self.dut, self.gap, self.stall, self.early = dut, gap, stall, early
        self.rng = np.random.default_rng([cocotb.RANDOM_SEED, seed])
        self.pages = ListPages(LISTS, FIRST_PAGE)
        #: Tile of each chunk, and the word of every entry as it must come.
        self.tile = np.sort(self.rng.integers(0, TILES, LISTS.tiles))
        self.words: list[int] = []
        self.ends: list[int] = []
        for number, tile in enumerate(self.tile.tolist()):
            count = int(self.rng.choice([1, 2, 3, BSU.chunk - 1, BSU.chunk]))
            chunk = ENTRY.encode(
                self.rng.choice(1 << ENTRY.feature_bits, count, replace=False),
                self.rng.integers(0, 1 << ENTRY.depth_bits, count),
                self.rng.integers(0, 1 << ENTRY.subtile_bits, count))
            self.pages.append(np.full(count, number), chunk)
            fields = ENTRY.decode(bsu_fixed(BSU, chunk))
            self.words += [
                entry_layout(ENTRY).const({
                    "feature": feature, "subtiles": subtiles, "tile": tile % (1 << TILE_TAG_BITS),
                }).as_value().value
                for feature, subtiles in zip(
                    fields["feature"].tolist(), fields["subtiles"].tolist(), strict=True)]
            self.ends.append(len(self.words))
        self.pages.flush(0, LISTS.tiles)
        self.sent = self.loaded = self.oldest = self.cycle = self.bursts = 0
        self.shown = False
        #: Places of the entries that came.
        self.given: list[int] = []
        self.beats: deque[tuple[int, int, int, bool]] = deque()

    def pause(self, probability: float) -> bool:
        """Whether to sit out a cycle."""
        return self.rng.random() < probability

    async def step(self) -> None:
        """One cycle."""
        dut, chunk, beat = self.dut, port(self.dut, "i_chunk"), port(self.dut, "i_beat")
        address, entry = port(dut, "o_address"), port(dut, "o_entry")
        address_ready, entry_ready = (not self.pause(self.stall) for _ in range(2))
        address.ready.value, entry.ready.value = int(address_ready), int(entry_ready)
        dut.oldest.value = self.oldest % (1 << TILE_TAG_BITS)
        self.shown = self.shown or (
            self.sent < len(self.tile) and not self.pause(self.gap)
            and int(self.tile[self.sent]) - self.oldest < 8)
        chunk.valid.value = int(self.shown)
        if self.shown:
            page, count, _, _ = self.pages.query(self.sent)
            chunk.payload.value = listed_layout(LISTS).const({
                "page": page, "count": count,
                "tag": int(self.tile[self.sent]) % (1 << TILE_TAG_BITS)}).as_value().value
        due = bool(self.beats) and self.beats[0][0] <= self.cycle and not self.pause(self.gap)
        if due:
            _, page, number, last = self.beats.popleft()
            low, high = self.pages.words[page, 2 * number:2 * number + 2].tolist()
            fields: dict[int | str, int] = {
                "id": READ_CHUNKS, "data": low | high << 64, "last": int(last)}
        else:
            # Beats of others come between.
            fields = {"id": READ_FEATURES, "data": 0x55, "last": int(self.pause(0.5))}
        beat.payload.value = beat_layout(SHELL).const(fields).as_value().value
        beat.valid.value = int(due or self.pause(0.5))
        await RisingEdge(dut.clk)
        self.cycle += 1
        assert beat.ready.value == 1, "a beat that was asked for has no room"
        if self.shown and chunk.ready.value == 1:
            self.sent, self.shown = self.sent + 1, False
        self.loaded += int(dut.loaded.value)
        if address_ready and address.valid.value == 1:
            burst = address_layout(SHELL).from_bits(int(address.payload.value))
            page, rest = divmod(burst.address - BASE, LISTS.page_bytes)
            assert (burst.id, rest) == (READ_CHUNKS, 0)
            self.bursts += 1
            at = self.cycle + int(self.rng.integers(1, 25))
            at = max(at, self.beats[-1][0]) if self.beats else at
            self.beats.extend((at, page, n, n == burst.length) for n in range(burst.length + 1))
        if entry_ready and entry.valid.value == 1:
            word = int(entry.payload.value)
            place = self.given[-1] + 1 if self.given else 0
            # Where a tile ended early, chunks are missing, from their first entry on or within.
            while word != self.words[place]:
                assert self.early, f"entry {place} is another"
                place += 1
            self.given.append(place)
        # The array: a tile is over when all of it has come, or at any time when some was sent.
        mine = np.flatnonzero(self.tile == self.oldest)
        if self.oldest < TILES and (
                not len(mine) or (self.sent > mine[-1] and self.given
                                  and self.given[-1] + 1 >= self.ends[mine[-1]])
                or (self.early and self.sent > mine[0] and self.pause(0.02))):
            self.oldest += 1


async def begin(dut) -> None:
    """Reset."""
    dut.stop.value = dut.oldest.value = 0
    dut.base_address.value = BASE
    await start(dut, inputs=["i_chunk", "i_beat"], outputs=["o_entry", "o_address"])


@cocotb.test(timeout_time=1, timeout_unit="ms")
@cocotb.parametrize(gap=[0.0, 0.4], stall=[0.0, 0.5], early=[False, True])
async def whole_frames(dut, gap: float, stall: float, early: bool) -> None:
    """Chunk after chunk in order, all of them or as much as was wanted of each tile."""
    around = Around(dut, 1, gap, stall, early)
    await begin(dut)
    while around.oldest < TILES or around.loaded < len(around.tile):
        await around.step()
    if early:
        assert len(around.given) < len(around.words)
    else:
        assert around.given == list(range(len(around.words)))
    for _ in range(60):
        await around.step()
    assert dut.idle.value == 1
    assert around.loaded == len(around.tile)


@cocotb.test(timeout_time=50, timeout_unit="us")
@cocotb.parametrize(cycles=[25, 150])
async def stop(dut, cycles: int) -> None:
    """Nothing is read behind ``stop``; what is in flight arrives."""
    around = Around(dut, 2, 0.0, 0.0, False)
    await begin(dut)
    for _ in range(cycles):
        await around.step()
    dut.stop.value = 1
    # The burst that waits for the bus still goes.
    for _ in range(2):
        await around.step()
    bursts = around.bursts
    for _ in range(120):
        await around.step()
    assert around.bursts == bursts
    assert dut.idle.value == 1
    assert not around.beats

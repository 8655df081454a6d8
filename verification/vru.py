"""Testbench of the unit in front of the array, amid a sorter, a memory and an array."""

from collections import deque

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, RisingEdge

from splatforge.algos.records import encode_record
from splatforge.algos.vru import vru_fixed
from splatforge.designs.entry import TILE_TAG_BITS
from splatforge.designs.fetch import TILE_PX
from splatforge.hw.fetch import address_layout, beat_layout
from splatforge.hw.lib.axi import READ_FEATURES, READ_SPLATS
from splatforge.hw.vru import TILES_AHEAD, entry_layout, listed_tile_layout
from splatforge.verification.lib.runner import TESTED_GSCORE
from splatforge.verification.lib.stream import check_stream, port, start

VRU, SHELL = TESTED_GSCORE.vru, TESTED_GSCORE.shell
#: Above 32 bits, not at the beginning of a page.
BASE = 0x12_3456_7E20
#: More features than the cache holds, fewer than entries.
FEATURES = 24
#: Entries of the first tiles: none, one, more than wait anywhere.
CORNERS = (0, 3, 1, 0, 0, 40, 9, 17, 0)
TILES_X, TILES = 5, 23


class Frame:
    """Tiles with entries of features that repeat, and what must come of them.

    Parameters
    ----------
    seed : int
        Draws features of any bits, and entries.
    """

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.records = encode_record("Feature", VRU.feature.fields(), 4, {
            name: rng.integers(-(1 << width - 1) if signed else 0, 1 << width - signed, FEATURES)
            for name, width, signed in VRU.feature.fields()})
        self.counts = [*CORNERS, *rng.integers(0, 25, TILES - len(CORNERS)).tolist()]
        self.tile = np.repeat(np.arange(TILES), self.counts)
        self.feature, self.regions = (
            rng.integers(0, top, len(self.tile)) for top in (FEATURES, 16))
        expected = vru_fixed(VRU, self.records[self.feature], self.regions,
                             self.tile % TILES_X, self.tile // TILES_X)
        #: The splat of every entry.
        self.splats = [int(low) | int(high) << 64 for low, high in expected]

    def first(self, tile: int) -> int:
        """Place of a tile's first entry."""
        return sum(self.counts[:tile])


class Surroundings:
    """What stands around the unit.

    Parameters
    ----------
    dut :
        The unit.
    frame : Frame
        What is sent and must come.
    rng : numpy.random.Generator
        Draws latencies and pauses.
    gap, stall : float
        Probability that nothing is sent, and that nothing is taken, in a cycle.
    early : bool
        Whether the array ends tiles before their list.
    """

    def __init__(
        self, dut, frame: Frame, rng: np.random.Generator, gap: float, stall: float, early: bool
    ) -> None:
        self.dut, self.frame, self.rng = dut, frame, rng
        self.gap, self.stall, self.early = gap, stall, early
        self.announced = self.begun = 0
        #: For every tile what was taken of it.
        self.taken: list[list[int]] = []
        self.asked: list[int] = []
        self.beats: deque[tuple[int, int, bool]] = deque()

    def pause(self, probability: float) -> bool:
        """Whether to sit out a cycle."""
        return self.rng.random() < probability

    async def announce(self) -> None:
        """Send every tile, at most eight beyond the oldest that is wanted."""
        tile = port(self.dut, "i_tile")
        for number, count in enumerate(self.frame.counts):
            while self.pause(self.gap) or number >= max(1, self.begun) - 1 + TILES_AHEAD:
                tile.valid.value = 0
                await RisingEdge(self.dut.clk)
            tile.payload.value = listed_tile_layout().const({
                "tile": number % (1 << TILE_TAG_BITS), "columns": 1 + number % TILE_PX,
                "rows": TILE_PX - number % 3, "splats": count}).as_value().value
            tile.valid.value = 1
            await RisingEdge(self.dut.clk)
            while tile.ready.value != 1:
                await RisingEdge(self.dut.clk)
            tile.valid.value = 0
            self.announced += 1

    async def send(self) -> None:
        """Send every entry behind its tile."""
        entry, frame = port(self.dut, "i_entry"), self.frame
        for place, tile in enumerate(frame.tile.tolist()):
            while self.pause(self.gap) or tile >= self.announced:
                entry.valid.value = 0
                await RisingEdge(self.dut.clk)
            entry.payload.value = entry_layout(VRU.entry).const({
                "feature": int(frame.feature[place]), "subtiles": int(frame.regions[place]),
                "tile": tile % (1 << TILE_TAG_BITS)}).as_value().value
            entry.valid.value = 1
            await RisingEdge(self.dut.clk)
            while entry.ready.value != 1:
                await RisingEdge(self.dut.clk)
            entry.valid.value = 0

    async def serve(self) -> None:
        """Take bursts of two beats and answer them, in order; beats of others come between."""
        dut, address, beat = self.dut, port(self.dut, "o_address"), port(self.dut, "i_beat")
        layout, cycle = beat_layout(SHELL), 0
        while True:
            ready = not self.pause(self.stall)
            address.ready.value = int(ready)
            due = bool(self.beats) and self.beats[0][0] <= cycle and not self.pause(self.gap)
            beat.valid.value = 1
            if due:
                _, word, last = self.beats.popleft()
                beat.payload.value = layout.const(
                    {"id": READ_FEATURES, "data": word, "last": last}).as_value().value
            else:
                beat.payload.value = layout.const({
                    "id": READ_SPLATS, "data": 0x55, "last": int(self.pause(0.5)),
                }).as_value().value
                beat.valid.value = int(self.pause(0.5))
            await RisingEdge(dut.clk)
            cycle += 1
            assert beat.ready.value == 1, "a beat that was asked for has no room"
            if ready and address.valid.value == 1:
                burst = address_layout(SHELL).from_bits(int(address.payload.value))
                number, rest = divmod(burst.address - BASE, 32)
                assert (burst.id, burst.length, rest) == (READ_FEATURES, 1, 0)
                self.asked.append(number)
                flying = (len(self.beats) + 1) // 2
                assert flying < VRU.outstanding_features + 1
                at = cycle + int(self.rng.integers(1, 25))
                if self.beats:
                    at = max(at, self.beats[-1][0])
                for half in range(2):
                    low, high = (int(word) for word in self.frame.records[
                        number, 2 * half:2 * half + 2])
                    self.beats.append((at, low | high << 64, half == 1))

    async def blend(self) -> None:
        """Play the array: take a tile, some of its splats, then end it."""
        dut, tile, splat = self.dut, port(self.dut, "o_tile"), port(self.dut, "o_splat")
        left = wanted = 0
        while left or self.begun < len(self.frame.counts):
            go = not self.pause(self.stall)
            take_tile, skip = not left and go, bool(left) and not wanted and go
            take_splat = wanted > 0 and go
            tile.ready.value, splat.ready.value = int(take_tile), int(take_splat)
            dut.skip.value = int(skip)
            await RisingEdge(dut.clk)
            if take_tile and tile.valid.value == 1:
                count = self.frame.counts[self.begun]
                # The layout of the array's tile: columns, rows, splats.
                assert int(tile.payload.value) == (
                    1 + self.begun % TILE_PX | (TILE_PX - self.begun % 3) << 5 | count << 10)
                self.begun += 1
                self.taken.append([])
                left = count
                wanted = int(self.rng.integers(count + 1)) if self.early else count
            if take_splat and splat.valid.value == 1:
                self.taken[-1].append(int(splat.payload.value))
                left, wanted = left - 1, wanted - 1
            if skip:
                left = 0
        tile.ready.value = splat.ready.value = dut.skip.value = 0


async def begin(dut) -> None:
    """Reset, then start a frame."""
    dut.skip.value = dut.stop.value = dut.start.value = 0
    dut.width.value = TILES_X * TILE_PX - 3
    dut.feature_address.value = BASE
    await start(dut, inputs=["i_tile", "i_entry", "i_beat"], outputs=["o_address", "o_tile"])
    port(dut, "o_splat").ready.value = 0
    cocotb.start_soon(check_stream(
        dut.clk, port(dut, "o_splat"), released=lambda: dut.skip.value == 1))
    dut.start.value = 1
    await RisingEdge(dut.clk)
    dut.start.value = 0


@cocotb.test(timeout_time=300, timeout_unit="us")
@cocotb.parametrize(seed=[1, 2], gap=[0.0, 0.4], stall=[0.0, 0.5], early=[False, True])
async def whole_frames(dut, seed: int, gap: float, stall: float, early: bool) -> None:
    """Of every tile the first splats, as many as were wanted, equal to the bit-true model's."""
    frame = Frame(seed)
    around = Surroundings(
        dut, frame, np.random.default_rng([cocotb.RANDOM_SEED, seed]), gap, stall, early)
    await begin(dut)
    for each in (around.announce, around.send, around.serve):
        cocotb.start_soon(each())
    await around.blend()
    for tile, words in enumerate(around.taken):
        first = frame.first(tile)
        assert words == frame.splats[first:first + len(words)], f"tile {tile}"
    taken = sum(map(len, around.taken))
    assert (taken < len(frame.splats)) == early
    # The cache is too small for all of them and large enough for some.
    assert len(set(around.asked)) < len(around.asked) < len(frame.splats)
    for _ in range(100):
        await RisingEdge(dut.clk)
    assert dut.idle.value == 1
    assert not around.beats


@cocotb.test(timeout_time=50, timeout_unit="us")
@cocotb.parametrize(cycles=[20, 45, 90])
async def stop(dut, cycles: int) -> None:
    """Nothing is asked for behind ``stop``; what is in flight arrives."""
    around = Surroundings(
        dut, Frame(1), np.random.default_rng(cocotb.RANDOM_SEED), 0.0, 0.0, False)
    await begin(dut)
    tasks = [cocotb.start_soon(each()) for each in (
        around.announce, around.send, around.serve, around.blend)]
    await ClockCycles(dut.clk, cycles)
    dut.stop.value = 1
    # The burst that waits for the bus still goes.
    await ClockCycles(dut.clk, 2)
    asked = len(around.asked)
    assert 0 < asked
    await ClockCycles(dut.clk, 60)
    assert len(around.asked) == asked
    assert dut.idle.value == 1
    assert not around.beats
    for task in tasks:
        task.cancel()

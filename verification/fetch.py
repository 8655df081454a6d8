"""Testbench of the fetching unit: a memory that reorders IDs, a consumer that stops early."""

from collections import deque

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, RisingEdge

from splatforge.algos.fetch import SplatLists, fetch_fixed
from splatforge.designs.fetch import TILE_PX
from splatforge.hw.array import tile_layout
from splatforge.hw.fetch import address_layout, beat_layout
from splatforge.hw.lib.axi import READ_SPLATS, READ_TABLE
from splatforge.verification.lib.runner import TESTED
from splatforge.verification.lib.stream import check_stream, port, start

FETCH, SHELL = TESTED.fetch, TESTED.shell
#: The records begin 256 bytes below a page: bursts must end there.
BASE = {READ_TABLE: 0x1_2000_0100, READ_SPLATS: 0x1_2000_4F00}
#: Lengths of lists around those of a burst and of the buffer; two tiles of the five are empty.
CORNERS = (0, 1, 7, 8, 9, 0, 0, 15, 16, 17, 32, 50, 3)


def random_lists(seed: int) -> SplatLists:
    """Lists of random bits for 5x3 tiles, the last column and row cut; corners come first."""
    rng = np.random.default_rng(seed)
    counts = np.array([*CORNERS, *rng.integers(0, 40, 15 - len(CORNERS))])
    starts = np.concatenate([[0], np.cumsum(counts)])
    splats = int(starts[-1])
    return SplatLists(
        width=5 * TILE_PX - 3, height=3 * TILE_PX - 11, starts=starts,
        records=rng.integers(0, 1 << 64, (splats, 2), np.uint64), pairs=counts,
        places=np.concatenate([np.arange(n) for n in counts]).astype(np.int32),
        gaussians=splats, gaussians_visible=splats, sh_degree=0)


class Memory:
    """Takes bursts and answers them beat by beat, in order within an ID and in any order across.

    Parameters
    ----------
    dut :
        The unit.
    lists : SplatLists
        What the memory holds.
    rng : numpy.random.Generator
        Draws the latency of every burst and who is served in a cycle.
    stall, gap : float
        Probability that no address is taken in a cycle, and that no beat is sent.
    """

    def __init__(
        self, dut, lists: SplatLists, rng: np.random.Generator, stall: float, gap: float
    ) -> None:
        self.dut, self.rng, self.stall, self.gap = dut, rng, stall, gap
        table = np.zeros((-(-len(lists.pairs) // 2) * 2, 2), np.uint64)
        table[:len(lists.pairs)] = np.stack([lists.starts[:-1], lists.pairs], axis=1)
        entries = [int(first) | int(count) << 32 for first, count in table]
        self.content = {
            READ_TABLE: [low | high << 64
                         for low, high in zip(entries[::2], entries[1::2], strict=True)],
            READ_SPLATS: [int(low) | int(high) << 64 for low, high in lists.records.tolist()]}
        self.queues: dict[int, deque] = {READ_TABLE: deque(), READ_SPLATS: deque()}
        #: (ID, first beat, beats) of every burst in order of acceptance.
        self.bursts: list[tuple[int, int, int]] = []
        self.flying = 0

    @property
    def quiet(self) -> bool:
        """Whether every beat that was asked for has been sent."""
        return not any(self.queues.values())

    def read(self, kind: int) -> int:
        """Beats of an ID that were asked for."""
        return sum(count for each, _, count in self.bursts if each == kind)

    def accept(self, word: int, due: int) -> None:
        """Take one burst."""
        burst = address_layout(SHELL).from_bits(word)
        first, rest = divmod(burst.address - BASE[burst.id], SHELL.data_bytes)
        count = burst.length + 1
        assert rest == 0
        assert first + count <= len(self.content[burst.id]), "a burst beyond what there is"
        last_byte = burst.address + SHELL.data_bytes * count - 1
        assert burst.address >> 12 == last_byte >> 12, "a burst across 4 KiB"
        self.bursts.append((burst.id, first, count))
        if burst.id == READ_SPLATS:
            self.flying += 1
            assert self.flying <= FETCH.outstanding_bursts
        queue = self.queues[burst.id]
        if queue:
            due = max(due, queue[-1][0])
        queue.extend((due, first + n, n == count - 1) for n in range(count))

    async def run(self) -> None:
        """Serve for ever."""
        address, beat = port(self.dut, "o_address"), port(self.dut, "i_beat")
        layout = beat_layout(SHELL)
        cycle = 0
        while True:
            ready = self.rng.random() >= self.stall
            address.ready.value = int(ready)
            due = [kind for kind, queue in self.queues.items() if queue and queue[0][0] <= cycle]
            valid = bool(due) and self.rng.random() >= self.gap
            beat.valid.value = int(valid)
            if valid:
                kind = int(self.rng.choice(due))
                _, place, last = self.queues[kind].popleft()
                beat.payload.value = layout.const({
                    "id": kind, "data": self.content[kind][place], "last": last}).as_value().value
                if kind == READ_SPLATS and last:
                    self.flying -= 1
            await RisingEdge(self.dut.clk)
            cycle += 1
            assert beat.ready.value == 1, "a beat that was asked for has no room"
            if ready and address.valid.value == 1:
                self.accept(int(address.payload.value), cycle + int(self.rng.integers(1, 25)))


class Consumer:
    """Plays the array: takes a tile, some of its records, then ends it in one cycle.

    Parameters
    ----------
    dut :
        The unit.
    lists : SplatLists
        What must come.
    rng : numpy.random.Generator
        Draws when to sit out a cycle and when to stop.
    stall : float
        Probability of sitting out a cycle.
    early : bool
        Whether to stop before a list's end.
    """

    def __init__(
        self, dut, lists: SplatLists, rng: np.random.Generator, stall: float, early: bool
    ) -> None:
        self.dut, self.lists, self.rng, self.stall, self.early = dut, lists, rng, stall, early
        self.tiles: list[tuple[int, int, int]] = []
        self.taken: list[list[int]] = []
        self.dropped = 0

    @property
    def consumed(self) -> int:
        """Records taken or dropped."""
        return sum(map(len, self.taken)) + self.dropped

    def begin(self, word: int) -> tuple[int, int]:
        """Take a tile; how many records it has and how many to take."""
        tile = tile_layout().from_bits(word)
        self.tiles.append((tile.columns, tile.rows, tile.splats))
        self.taken.append([])
        count = tile.splats
        if self.early and count > 3 * FETCH.buffer_splats:
            # So early that the end of the list has not been asked for.
            return count, int(self.rng.integers(8))
        if not self.early or self.rng.random() < 0.3:
            return count, count
        return count, int(self.rng.integers(count + 1))

    async def run(self, memory: Memory) -> None:
        """Take every tile of the frame."""
        dut, tile, splat = self.dut, port(self.dut, "o_tile"), port(self.dut, "o_splat")
        left = wanted = 0
        while left or len(self.tiles) < len(self.lists.pairs):
            go = self.rng.random() >= self.stall
            take_tile = left == 0 and go
            take_splat = left > 0 and wanted > 0 and go
            skip = left > 0 and wanted == 0 and go
            tile.ready.value, splat.ready.value = int(take_tile), int(take_splat)
            dut.skip.value = int(skip)
            await RisingEdge(dut.clk)
            if take_tile and tile.valid.value == 1:
                left, wanted = self.begin(int(tile.payload.value))
            if take_splat and splat.valid.value == 1:
                self.taken[-1].append(int(splat.payload.value))
                left, wanted = left - 1, wanted - 1
            dropped = int(dut.dropped.value)
            assert skip or not dropped
            self.dropped += dropped
            if skip:
                left = wanted = 0
            assert memory.read(READ_SPLATS) - self.consumed <= FETCH.buffer_splats + 1
        tile.ready.value = splat.ready.value = dut.skip.value = 0


async def begin(dut, lists: SplatLists, splats: int) -> None:
    """Reset, then start a frame of `splats` records."""
    for name in ("start", "stop", "skip"):
        getattr(dut, name).value = 0
    dut.width.value, dut.height.value = lists.width, lists.height
    dut.table_address.value, dut.splat_address.value = BASE[READ_TABLE], BASE[READ_SPLATS]
    dut.splats.value = splats
    await start(dut, inputs=["i_beat"], outputs=["o_address", "o_tile"])
    port(dut, "o_splat").ready.value = 0
    cocotb.start_soon(check_stream(
        dut.clk, port(dut, "o_splat"), released=lambda: dut.skip.value == 1))
    dut.start.value = 1
    await RisingEdge(dut.clk)
    dut.start.value = 0


async def settle(dut, memory: Memory) -> None:
    """Wait for what is in flight; behind it nothing more may be asked for or offered."""
    while not memory.quiet:
        await RisingEdge(dut.clk)
    await ClockCycles(dut.clk, 4)
    asked = len(memory.bursts)
    for _ in range(20):
        await RisingEdge(dut.clk)
        assert dut.idle.value == 1
    assert len(memory.bursts) == asked


def expected_tiles(lists: SplatLists) -> list[tuple[int, int, int]]:
    """(columns, rows, records) of every tile."""
    return [(min(TILE_PX, lists.width - TILE_PX * x), min(TILE_PX, lists.height - TILE_PX * y),
             int(lists.pairs[y * lists.tiles_x + x]))
            for y in range(lists.tiles_y) for x in range(lists.tiles_x)]


@cocotb.test(timeout_time=200, timeout_unit="us")
@cocotb.parametrize(seed=[1, 2], stall=[0.0, 0.5], gap=[0.0, 0.4])
async def whole_lists(dut, seed: int, stall: float, gap: float) -> None:
    """Every tile and record in order, by exactly the bursts of the model."""
    rng = np.random.default_rng([cocotb.RANDOM_SEED, seed])
    lists = random_lists(seed)
    memory = Memory(dut, lists, rng, stall, gap)
    consumer = Consumer(dut, lists, rng, stall, early=False)
    await begin(dut, lists, lists.splats)
    cocotb.start_soon(memory.run())
    await consumer.run(memory)
    await settle(dut, memory)
    assert consumer.tiles == expected_tiles(lists)
    assert [word for tile in consumer.taken for word in tile] == memory.content[READ_SPLATS]
    for kind in (READ_TABLE, READ_SPLATS):
        assert [burst[1:] for burst in memory.bursts if burst[0] == kind] == [
            (first, count) for _, first, count, each in fetch_fixed(FETCH, SHELL, lists)
            if each == kind]
    assert consumer.dropped == 0
    assert dut.overlong.value == 0


@cocotb.test(timeout_time=200, timeout_unit="us")
@cocotb.parametrize(seed=[1, 2, 3], stall=[0.0, 0.5], gap=[0.0, 0.4])
async def early_stops(dut, seed: int, stall: float, gap: float) -> None:
    """Of every tile the first records, as many as were wanted; the others are cut short."""
    rng = np.random.default_rng([cocotb.RANDOM_SEED, seed])
    lists = random_lists(seed)
    memory = Memory(dut, lists, rng, stall, gap)
    consumer = Consumer(dut, lists, rng, stall, early=True)
    await begin(dut, lists, lists.splats)
    cocotb.start_soon(memory.run())
    await consumer.run(memory)
    await settle(dut, memory)
    assert consumer.tiles == expected_tiles(lists)
    for tile, words in enumerate(consumer.taken):
        first = int(lists.starts[tile])
        assert words == memory.content[READ_SPLATS][first:first + len(words)]
    # What was read was taken or dropped, and something was not even asked for.
    assert memory.read(READ_SPLATS) == consumer.consumed < lists.splats
    assert consumer.dropped > 0
    assert dut.overlong.value == 0


@cocotb.test(timeout_time=50, timeout_unit="us")
async def overlong_list(dut) -> None:
    """A list beyond the number of records is reported, neither announced nor asked for."""
    rng = np.random.default_rng(cocotb.RANDOM_SEED)
    lists = random_lists(1)
    memory = Memory(dut, lists, rng, 0.0, 0.0)
    consumer = Consumer(dut, lists, rng, 0.0, early=False)
    # The last record of the fifth tile is one too many.
    await begin(dut, lists, int(lists.starts[5]) - 1)
    cocotb.start_soon(memory.run())
    playing = cocotb.start_soon(consumer.run(memory))
    while dut.overlong.value != 1:
        await RisingEdge(dut.clk)
    await settle(dut, memory)
    playing.cancel()
    assert dut.overlong.value == 1
    assert consumer.tiles == expected_tiles(lists)[:4]
    assert memory.read(READ_SPLATS) == consumer.consumed == lists.starts[4]


@cocotb.test(timeout_time=50, timeout_unit="us")
@cocotb.parametrize(cycles=[1, 9, 40, 90])
async def stop(dut, cycles: int) -> None:
    """Nothing is asked for behind ``stop``; what is in flight arrives."""
    rng = np.random.default_rng(cocotb.RANDOM_SEED)
    lists = random_lists(1)
    memory = Memory(dut, lists, rng, 0.0, 0.0)
    consumer = Consumer(dut, lists, rng, 0.0, early=False)
    await begin(dut, lists, lists.splats)
    cocotb.start_soon(memory.run())
    playing = cocotb.start_soon(consumer.run(memory))
    await ClockCycles(dut.clk, cycles)
    dut.stop.value = 1
    # The burst that is in the bus register still goes.
    await ClockCycles(dut.clk, 2)
    asked = len(memory.bursts)
    await settle(dut, memory)
    playing.cancel()
    assert len(memory.bursts) == asked
    assert memory.read(READ_SPLATS) < lists.splats

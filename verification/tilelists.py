"""Testbench of the unit that reads lists of numbers, amid a memory and what takes the entries."""

from collections import deque

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, RisingEdge

from splatforge.designs.entry import TILE_TAG_BITS
from splatforge.hw.lib.axi import READ_TABLE
from splatforge.hw.vru import TILES_AHEAD, entry_layout, placed_tile_layout
from splatforge.verification.lib.number_lists import NumberLists
from splatforge.verification.lib.reads import ReadSide
from splatforge.verification.lib.runner import TESTED_LUMINA
from splatforge.verification.lib.stream import port, start

DESIGN, SIDE = TESTED_LUMINA.tilelists, TESTED_LUMINA.radiance.group_tiles
WIDTH, HEIGHT = 75, 53


class Consumer:
    """The feature cache and the array: takes tiles ahead, entries, and ends tiles.

    Parameters
    ----------
    dut :
        The unit.
    lists : NumberLists
        What must come.
    rng : numpy.random.Generator
        Draws pauses.
    stall : float
        Probability that nothing is taken in a cycle.
    early : bool
        Whether tiles end before their lists.
    """

    def __init__(
        self, dut, lists: NumberLists, rng: np.random.Generator, stall: float, early: bool
    ) -> None:
        self.dut, self.lists, self.rng, self.stall, self.early = dut, lists, rng, stall, early
        self.waiting: deque[int] = deque()
        self.oldest = 0
        self.taken: list[list[int]] = [[] for _ in range(lists.tiles)]
        #: Entries of tiles that are over.
        self.late = 0

    async def take(self) -> None:
        """The whole frame."""
        dut, lists, mask = self.dut, self.lists, (1 << TILE_TAG_BITS) - 1
        tile, entry = port(dut, "o_tile"), port(dut, "o_entry")
        announced, over, wanted = 0, 0, -1
        while over < lists.tiles:
            tile_ready = len(self.waiting) < TILES_AHEAD and self.rng.random() >= self.stall
            entry_ready = self.rng.random() >= self.stall
            tile.ready.value, entry.ready.value = int(tile_ready), int(entry_ready)
            dut.oldest.value = self.oldest & mask
            await RisingEdge(dut.clk)
            if entry_ready and entry.valid.value == 1:
                word = entry_layout(DESIGN.entry).from_bits(int(entry.payload.value))
                # Of a tile at most seven beyond the oldest, or of one before it.
                number = self.oldest + (word.tile - self.oldest + TILES_AHEAD & mask) - TILES_AHEAD
                if number < self.oldest:
                    self.late += 1
                else:
                    self.taken[number].append(int(entry.payload.value))
            if tile_ready and tile.valid.value == 1:
                assert int(tile.payload.value) == placed_tile_layout().const(
                    lists.tile_fields(announced)).as_value().value
                assert announced < self.oldest + TILES_AHEAD
                self.waiting.append(announced)
                announced += 1
            if wanted >= 0 and len(self.taken[self.oldest]) >= wanted:
                over += 1
                if wanted < lists.counts[self.oldest]:
                    self.oldest += 1
                wanted = -1
            elif wanted < 0 and self.waiting:
                self.oldest = self.waiting.popleft()
                count = int(lists.counts[self.oldest])
                wanted = int(self.rng.integers(count + 1)) if self.early else count
        tile.ready.value, entry.ready.value = 0, 1
        dut.oldest.value = self.oldest & mask


async def begin(dut, lists: NumberLists, list_beats: int | None = None) -> None:
    """Reset, then start a frame."""
    dut.stop.value = dut.start.value = dut.oldest.value = dut.behind.value = 0
    dut.width.value, dut.height.value = lists.width, lists.height
    dut.table_address.value, dut.list_address.value = lists.table_address, lists.list_address
    dut.list_beats.value = lists.list_beats if list_beats is None else list_beats
    await start(dut, inputs=["i_beat"], outputs=["o_address", "o_tile", "o_entry"])
    dut.start.value = 1
    await RisingEdge(dut.clk)
    dut.start.value = 0


def memory(dut, lists, rng, gap, stall) -> ReadSide:
    """The memory's read side: bursts of lists, and two of the table."""
    return ReadSide(dut, lists.memory, rng, gap, stall, read_id=READ_TABLE,
                    burst_beats=DESIGN.burst_beats,
                    outstanding_bursts=DESIGN.outstanding_bursts + 2)


@cocotb.test(timeout_time=200, timeout_unit="us")
@cocotb.parametrize(seed=[1, 2], gap=[0.0, 0.4], stall=[0.0, 0.5], early=[False, True])
async def whole_frames(dut, seed: int, gap: float, stall: float, early: bool) -> None:
    """Tiles and entries, as many of each as are wanted, equal to the bit-true model's."""
    rng = np.random.default_rng([cocotb.RANDOM_SEED, seed])
    lists = NumberLists(DESIGN, rng, WIDTH, HEIGHT, SIDE)
    consumer, reads = Consumer(dut, lists, rng, stall, early), memory(dut, lists, rng, gap, stall)
    await begin(dut, lists)
    cocotb.start_soon(reads.serve())
    await consumer.take()
    layout = entry_layout(DESIGN.entry)
    for tile, words in enumerate(consumer.taken):
        expected = [layout.const(one).as_value().value for one in lists.entries(tile)]
        assert words == expected[:len(words)], f"tile {tile}"
        assert early or len(words) == len(expected)
    await ClockCycles(dut.clk, 300)
    assert dut.idle.value == 1
    assert dut.overlong.value == 0
    # Everything once, whatever was dropped.
    assert len(reads.asked) == lists.listed.beats
    assert len(set(reads.asked)) == len(reads.asked)


@cocotb.test(timeout_time=50, timeout_unit="us")
@cocotb.parametrize(cycles=[4, 30, 200])
async def stop(dut, cycles: int) -> None:
    """Nothing is asked for behind ``stop``; what is in flight arrives."""
    rng = np.random.default_rng([cocotb.RANDOM_SEED, cycles])
    lists = NumberLists(DESIGN, rng, WIDTH, HEIGHT, SIDE)
    consumer, reads = Consumer(dut, lists, rng, 0.2, False), memory(dut, lists, rng, 0.1, 0.1)
    await begin(dut, lists)
    tasks = [cocotb.start_soon(each()) for each in (reads.serve, consumer.take)]
    await ClockCycles(dut.clk, cycles)
    dut.stop.value = 1
    # The burst that waits for the bus still goes.
    await ClockCycles(dut.clk, 12)
    asked = len(reads.bursts)
    await ClockCycles(dut.clk, 200)
    assert len(reads.bursts) == asked
    assert dut.idle.value == 1
    assert not reads.beats
    for task in tasks:
        task.cancel()


@cocotb.test(timeout_time=50, timeout_unit="us")
async def overlong(dut) -> None:
    """A list that reaches beyond the words that there are is told, and not asked for."""
    rng = np.random.default_rng([cocotb.RANDOM_SEED])
    lists = NumberLists(DESIGN, rng, WIDTH, HEIGHT, SIDE)
    bad = int(np.flatnonzero(lists.counts)[4])
    ends = lists.first + -(-lists.counts // 4)
    consumer, reads = Consumer(dut, lists, rng, 0.0, False), memory(dut, lists, rng, 0.0, 0.0)
    await begin(dut, lists, int(ends[bad]) - 1)
    for each in (reads.serve, consumer.take):
        cocotb.start_soon(each())
    while dut.overlong.value != 1:
        await RisingEdge(dut.clk)
    await ClockCycles(dut.clk, 100)
    assert dut.idle.value == 1
    last = lists.list_address + 16 * int(ends[:bad].max())
    assert all(address < last for address in reads.asked if address >= lists.list_address)

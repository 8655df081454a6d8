"""Testbench of the unit that appends to lists, before a memory that takes its time."""

from collections import deque
from collections.abc import Iterable

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, RisingEdge

from splatforge.algos.lists import ListPages
from splatforge.hw.lib.arbiter import write_address_layout, write_data_layout
from splatforge.hw.lists import answer_layout, append_layout, range_layout
from splatforge.verification.lib.runner import TESTED_GSCORE
from splatforge.verification.lib.stream import port, start

LISTS, SHELL = TESTED_GSCORE.lists, TESTED_GSCORE.shell
#: Above 32 bits.
BASE = 0x12_3456_7000
FIRST, LIMIT = 5, 900
TILES, SLOTS = (0, LISTS.tiles), (LISTS.tiles, LISTS.slots)


class Surroundings:
    """A memory, and who asks for what.

    Parameters
    ----------
    dut :
        The unit.
    rng : numpy.random.Generator
        Draws entries, latencies and pauses.
    gap, stall : float
        Probability that nothing is sent, and that nothing is taken, in a cycle.
    limit : int
        Pages of the workspace.
    """

    def __init__(
        self, dut, rng: np.random.Generator, gap: float, stall: float, limit: int = LIMIT
    ) -> None:
        self.dut, self.rng, self.gap, self.stall, self.limit = dut, rng, gap, stall, limit
        #: What the memory must hold, and what it holds.
        self.pages = ListPages(LISTS, FIRST, limit)
        self.memory = np.zeros((limit + 1, LISTS.page_slots), np.uint64)
        self.addresses: deque[int] = deque()
        self.beats: deque[int] = deque()
        #: Beats that may be answered, and those that are.
        self.taken = self.answered = 0
        self.tile_bytes = self.slot_bytes = 0

    def pause(self, probability: float) -> bool:
        """Whether to sit out a cycle."""
        return self.rng.random() < probability

    def store(self) -> None:
        """Put beats where their addresses say."""
        while self.addresses and self.beats:
            burst = write_address_layout(SHELL).from_bits(self.addresses.popleft())
            beat = write_data_layout(SHELL).from_bits(self.beats.popleft())
            place, rest = divmod(burst.address - BASE, SHELL.data_bytes)
            assert (burst.length, beat.last, rest) == (0, 1, 0)
            page, at = divmod(place, LISTS.page_beats)
            assert FIRST <= page < self.limit
            assert beat.strobe in (0xFF, 0xFFFF)
            self.memory[page, 2 * at] = beat.data & (1 << 64) - 1
            if beat.strobe == 0xFFFF:
                self.memory[page, 2 * at + 1] = beat.data >> 64
            self.taken += 1

    async def serve(self) -> None:
        """Take addresses and beats, in any order, and answer them."""
        dut, address, beat = self.dut, port(self.dut, "o_address"), port(self.dut, "o_data")
        while True:
            address_ready, beat_ready = (not self.pause(self.stall) for _ in range(2))
            address.ready.value, beat.ready.value = int(address_ready), int(beat_ready)
            response = self.answered < self.taken and not self.pause(0.4)
            dut.i_response.value = int(response)
            await RisingEdge(dut.clk)
            self.answered += response
            self.tile_bytes += int(dut.tile_bytes.value)
            self.slot_bytes += int(dut.slot_bytes.value)
            if address_ready and address.valid.value == 1:
                self.addresses.append(int(address.payload.value))
            if beat_ready and beat.valid.value == 1:
                self.beats.append(int(beat.payload.value))
            self.store()

    async def send(self, name: str, word: int) -> None:
        """Send one word to stream `name`."""
        stream = port(self.dut, name)
        while self.pause(self.gap):
            await RisingEdge(self.dut.clk)
        stream.payload.value = word
        stream.valid.value = 1
        await RisingEdge(self.dut.clk)
        while stream.ready.value != 1:
            await RisingEdge(self.dut.clk)
        stream.valid.value = 0

    async def append(self, lists: Iterable[int]) -> None:
        """Append an entry of any bits to each of `lists`."""
        for at in lists:
            entry = int(self.rng.integers(0, 1 << LISTS.entry.width))
            await self.send("i_entry", append_layout(LISTS).const(
                {"list": at, "entry": entry}).as_value().value)
            self.pages.append(np.array([at]), np.array([entry], np.uint64))

    async def walk(self, first: int, count: int, flush: bool) -> None:
        """Clear or flush a range and wait until that is done."""
        await self.send("i_range", range_layout(LISTS).const(
            {"first": first, "count": count, "flush": flush}).as_value().value)
        (self.pages.flush if flush else self.pages.clear)(first, count)
        await self.settle()

    async def settle(self) -> None:
        """Wait until all is written and answered."""
        await RisingEdge(self.dut.clk)
        while self.dut.idle.value != 1:
            await RisingEdge(self.dut.clk)
        assert not self.addresses
        assert not self.beats
        assert self.answered == self.taken

    async def query(self, at: int) -> None:
        """Ask what is known of a list."""
        await self.send("i_query", at)
        answer = port(self.dut, "o_answer")
        while True:
            answer.ready.value = int(not self.pause(self.stall))
            await RisingEdge(self.dut.clk)
            if answer.valid.value == 1 and answer.ready.value == 1:
                break
        answer.ready.value = 0
        got = answer_layout(LISTS).from_bits(int(answer.payload.value))
        assert (got.page, got.count, got.low, got.high) == self.pages.query(at), f"list {at}"

    def compare(self) -> None:
        """The memory against the bit-true model's."""
        words = self.pages.words
        np.testing.assert_array_equal(self.memory[:len(words)], words)
        assert (self.tile_bytes, self.slot_bytes) == (self.pages.tile_bytes, self.pages.slot_bytes)

    async def pulse(self, name: str) -> None:
        """Raise an input for a cycle."""
        getattr(self.dut, name).value = 1
        await RisingEdge(self.dut.clk)
        getattr(self.dut, name).value = 0
        getattr(self.pages, name)()


async def begin(dut, limit: int = LIMIT) -> None:
    """Reset, then start a frame."""
    for name in ("start", "stop", "mark", "release", "i_response"):
        getattr(dut, name).value = 0
    dut.base_address.value, dut.first_page.value, dut.limit.value = BASE, FIRST, limit
    await start(dut, inputs=["i_entry", "i_range", "i_query"],
                outputs=["o_address", "o_data", "o_answer"])
    dut.start.value = 1
    await RisingEdge(dut.clk)
    dut.start.value = 0


@cocotb.test(timeout_time=500, timeout_unit="us")
@cocotb.parametrize(seed=[1, 2], gap=[0.0, 0.4], stall=[0.0, 0.5])
async def whole_frames(dut, seed: int, gap: float, stall: float) -> None:
    """Lists of tiles, then further ones on pages that are released, word for word."""
    rng = np.random.default_rng([cocotb.RANDOM_SEED, seed])
    around = Surroundings(dut, rng, gap, stall)
    await begin(dut)
    cocotb.start_soon(around.serve())
    await around.walk(0, LISTS.lists, False)
    lists = rng.integers(0, LISTS.tiles, 300)
    # One list takes an entry in cycle after cycle.
    lists[100:180] = np.repeat(rng.integers(0, LISTS.tiles, 4), 20)
    await around.append(lists.tolist())
    await around.query(int(lists[-1]))
    await around.walk(*TILES, True)
    around.compare()
    await around.pulse("mark")
    for _ in range(3):
        await around.walk(*SLOTS, False)
        lists = LISTS.tiles + rng.integers(0, LISTS.slots, 60)
        lists[20:40] = lists[20]
        await around.append(lists.tolist())
        await around.walk(*SLOTS, True)
        around.compare()
        for at in range(LISTS.lists):
            await around.query(at)
        await around.pulse("release")
    assert dut.overflow.value == 0


@cocotb.test(timeout_time=200, timeout_unit="us")
@cocotb.parametrize(stall=[0.0, 0.5])
async def overflow(dut, stall: float) -> None:
    """Behind the last page nothing is written, and the rest is."""
    around = Surroundings(dut, np.random.default_rng(cocotb.RANDOM_SEED), 0.0, stall, limit=40)
    await begin(dut, 40)
    cocotb.start_soon(around.serve())
    await around.walk(0, LISTS.lists, False)
    await around.append(around.rng.integers(0, LISTS.lists, 100).tolist())
    await around.settle()
    assert dut.overflow.value == int(around.pages.overflow)
    await around.append(around.rng.integers(0, LISTS.lists, 200).tolist())
    await around.walk(0, LISTS.lists, True)
    assert around.pages.overflow
    assert dut.overflow.value == 1
    around.compare()


@cocotb.test(timeout_time=50, timeout_unit="us")
@cocotb.parametrize(cycles=[3, 30, 77])
async def stop(dut, cycles: int) -> None:
    """Nothing is taken behind ``stop``; what was taken is written and answered."""
    around = Surroundings(dut, np.random.default_rng(cocotb.RANDOM_SEED), 0.0, 0.3)
    await begin(dut)
    cocotb.start_soon(around.serve())
    await around.walk(0, LISTS.lists, False)
    task = cocotb.start_soon(around.append([3, 1, 3, 17, 3] * 40))
    await ClockCycles(dut.clk, cycles)
    dut.stop.value = 1
    await around.settle()
    taken = around.taken
    assert taken
    await ClockCycles(dut.clk, 40)
    assert around.taken == taken
    assert dut.i_entry__ready.value == dut.i_range__ready.value == 0
    around.compare()
    task.cancel()

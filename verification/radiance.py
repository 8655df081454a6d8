"""Testbench of the radiance cache, amid an array that asks and walks, and a memory."""

import random
from collections import deque

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, RisingEdge

from splatforge.hw.lib.arbiter import write_address_layout, write_data_layout
from splatforge.hw.lib.axi import READ_BANKS
from splatforge.hw.radiance import answer_layout, lookup_layout, walk_layout
from splatforge.verification.lib.reads import ReadSide
from splatforge.verification.lib.records import RecordedFrame, record_pool
from splatforge.verification.lib.runner import TESTED_LUMINA
from splatforge.verification.lib.stream import pauses, port, source, start

RADIANCE, SHELL = TESTED_LUMINA.radiance, TESTED_LUMINA.shell
#: Above 32 bits, not at the beginning of a page.
BASE = 0x12_3456_7F00
#: Tiles at the right and lower edge are less than whole groups.
WIDTH, HEIGHT = 43, 37
GROUPS = 4


class WriteSide:
    """Takes the write bursts of the unit into a memory, and responds some cycles later."""

    def __init__(self, dut, memory: dict[int, int], rng: np.random.Generator, stall: float) -> None:
        self.dut, self.memory, self.rng, self.stall = dut, memory, rng, stall
        #: Addresses of the bursts; those without all of their beats; beats without a burst.
        self.bursts: list[int] = []
        self.open: deque[int] = deque()
        self.words: deque[int] = deque()
        self.responses: deque[int] = deque()

    async def serve(self) -> None:
        """Take bursts; address and data stall for themselves."""
        dut, address, beat = (
            self.dut, port(self.dut, "o_write_address"), port(self.dut, "o_write_data"))
        cycle, flying = 0, 0
        while True:
            ready = [bool(self.rng.random() >= self.stall) for _ in range(2)]
            address.ready.value, beat.ready.value = map(int, ready)
            respond = bool(self.responses) and self.responses[0] <= cycle
            dut.i_response.value = int(respond)
            if respond:
                self.responses.popleft()
                flying -= 1
            await RisingEdge(dut.clk)
            cycle += 1
            if ready[0] and address.valid.value == 1:
                burst = write_address_layout(SHELL).from_bits(int(address.payload.value))
                assert burst.length == 15
                assert burst.address % 256 == 0
                self.bursts.append(burst.address)
                self.open.append(burst.address)
                flying += 1
                assert flying <= RADIANCE.outstanding_bursts
            if ready[1] and beat.valid.value == 1:
                word = write_data_layout(SHELL).from_bits(int(beat.payload.value))
                self.words.append(word.data)
                assert word.strobe == 0xFFFF
                assert word.last == (len(self.words) == 16)
            if len(self.words) == 16 and self.open:
                first = self.open.popleft()
                for n in range(16):
                    self.memory[first + 16 * n] = self.words.popleft()
                self.responses.append(cycle + int(self.rng.integers(1, 30)))


class Array:
    """What the array does: look a tile up, walk it when it is answered, go on to the next."""

    def __init__(self, dut, frame: RecordedFrame, rng: np.random.Generator, gap: float) -> None:
        self.dut, self.frame, self.gap = dut, frame, gap
        self.pause = pauses(random.Random(int(rng.integers(1 << 30))), gap)
        self.lookups = frame.lookups(rng)
        self.answers: list[int] = []
        self.fills = self.hits = 0

    async def watch(self) -> None:
        """Keep the answers, count what the unit counts."""
        answer = port(self.dut, "o_answer")
        answer.ready.value = 1
        while True:
            await RisingEdge(self.dut.clk)
            if answer.valid.value == 1:
                self.answers.append(int(answer.payload.value))
            self.fills += int(self.dut.fill.value)
            self.hits += int(self.dut.hit.value)

    async def play(self) -> None:
        """The whole frame."""
        frame, clk = self.frame, self.dut.clk
        lookup, walk = port(self.dut, "i_lookup"), port(self.dut, "i_walk")
        ids = RADIANCE.record_ids
        asked = 0
        for tile in range(frame.tiles):
            mine = [one for one in self.lookups if one[0] == tile]
            asked += len(mine)
            await source(clk, lookup, [lookup_layout(ids).const(
                frame.lookup_fields(*one)).as_value().value for one in mine], self.pause)
            while len(self.answers) < asked:
                await RisingEdge(clk)
            await source(clk, walk, [walk_layout(ids).const(
                frame.walk_fields(*one)).as_value().value
                for one in frame.walk() if one[0] == tile], self.pause)


async def begin(dut, frame: RecordedFrame, *, enable: bool = True) -> None:
    """Reset, then start a frame."""
    dut.stop.value = dut.start.value = dut.i_response.value = 0
    dut.enable.value, dut.flush.value = int(enable), int(frame.flush)
    dut.width.value, dut.height.value, dut.cache_address.value = frame.width, frame.height, BASE
    await start(dut, inputs=["i_lookup", "i_walk", "i_beat"],
                outputs=["o_address", "o_write_address", "o_write_data"])
    dut.start.value = 1
    await RisingEdge(dut.clk)
    dut.start.value = 0


def sides(dut, memory, rng, gap, stall):
    """The memory's two sides."""
    return (ReadSide(dut, memory, rng, gap, stall, read_id=READ_BANKS, burst_beats=16,
                     outstanding_bursts=RADIANCE.outstanding_bursts),
            WriteSide(dut, memory, rng, stall))


async def end(dut, cycles: int) -> None:
    """Wait until the frame is over."""
    for _ in range(cycles):
        await RisingEdge(dut.clk)
        if dut.done.value == 1:
            assert dut.idle.value == 1
            return
    raise AssertionError("not done")


@cocotb.test(timeout_time=3, timeout_unit="ms")
@cocotb.parametrize(seed=[1, 2], gap=[0.0, 0.4], stall=[0.0, 0.5])
async def whole_frames(dut, seed: int, gap: float, stall: float) -> None:
    """Answers and every byte of the banks over two frames, the first with a flush."""
    rng = np.random.default_rng([cocotb.RANDOM_SEED, seed])
    pool = record_pool(rng, RADIANCE.record_ids, 400)
    memory: dict[int, int] = {}
    images = None
    for _ in range(2):
        frame = RecordedFrame(RADIANCE, rng, pool, WIDTH, HEIGHT, images, share=0.4)
        await begin(dut, frame)
        reads, writes = sides(dut, memory, rng, gap, stall)
        array = Array(dut, frame, rng, gap)
        tasks = [cocotb.start_soon(each()) for each in (reads.serve, writes.serve, array.watch)]
        await array.play()
        await end(dut, 5000)
        assert array.answers == [answer_layout().const(
            frame.answer_fields(*one)).as_value().value for one in array.lookups]
        assert array.hits == frame.visits.hit.sum()
        assert array.fills == (frame.visits.outcome >= 3).sum()
        addresses = [BASE + 256 * n for n in range(GROUPS * RADIANCE.bursts)]
        assert writes.bursts == addresses
        assert [address for address, _ in reads.bursts] == ([] if frame.flush else addresses)
        images = np.frombuffer(b"".join(
            memory[BASE + 16 * n].to_bytes(16, "little") for n in range(16 * len(addresses))),
            np.uint8).reshape(GROUPS, -1)
        np.testing.assert_array_equal(images, frame.images)
        assert frame.visits.hit.any()
        for task in tasks:
            task.cancel()


@cocotb.test(timeout_time=300, timeout_unit="us")
@cocotb.parametrize(flush=[False, True])
async def any_bytes(dut, flush: bool) -> None:
    """What is in memory need not have been written by the unit."""
    rng = np.random.default_rng([cocotb.RANDOM_SEED, 3])
    images = rng.integers(0, 256, (GROUPS, RADIANCE.image_bytes)).astype(np.uint8)
    memory = {BASE + 16 * n: int.from_bytes(word.tobytes(), "little")
              for n, word in enumerate(images.reshape(-1, 16))}
    frame = RecordedFrame(RADIANCE, rng, record_pool(rng, RADIANCE.record_ids, 100), WIDTH, HEIGHT,
                          None if flush else images, share=0.4)
    await begin(dut, frame)
    reads, writes = sides(dut, memory, rng, 0.1, 0.1)
    array = Array(dut, frame, rng, 0.0)
    for each in (reads.serve, writes.serve, array.watch):
        cocotb.start_soon(each())
    await array.play()
    await end(dut, 5000)
    saved = b"".join(memory[BASE + 16 * n].to_bytes(16, "little")
                     for n in range(images.size // 16))
    assert saved == frame.images.tobytes()


@cocotb.test(timeout_time=100, timeout_unit="us")
@cocotb.parametrize(cycles=[3, 12, 400])
async def stop(dut, cycles: int) -> None:
    """Nothing is asked for behind ``stop``, as after a bus error; what is in flight is finished."""
    rng = np.random.default_rng([cocotb.RANDOM_SEED, cycles])
    pool = record_pool(rng, RADIANCE.record_ids, 100)
    images = np.zeros((GROUPS, RADIANCE.image_bytes), np.uint8)
    memory = {BASE + 16 * n: 0 for n in range(images.size // 16)}
    frame = RecordedFrame(RADIANCE, rng, pool, WIDTH, HEIGHT, images)
    await begin(dut, frame)
    reads, writes = sides(dut, memory, rng, 0.2, 0.2)
    array = Array(dut, frame, rng, 0.0)
    tasks = [cocotb.start_soon(each()) for each in (
        reads.serve, writes.serve, array.watch, array.play)]
    await ClockCycles(dut.clk, cycles)
    dut.stop.value = 1
    # The bursts that wait for the bus still go.
    await ClockCycles(dut.clk, 12)
    asked = len(reads.bursts), len(writes.bursts)
    await ClockCycles(dut.clk, 400)
    assert (len(reads.bursts), len(writes.bursts)) == asked
    assert dut.idle.value == 1
    assert not reads.beats
    assert not writes.open
    assert not writes.words
    for task in tasks:
        task.cancel()


@cocotb.test(timeout_time=20, timeout_unit="us")
async def without_cache(dut) -> None:
    """A frame that does not use the cache is over at once, and asks for nothing."""
    rng = np.random.default_rng(cocotb.RANDOM_SEED)
    frame = RecordedFrame(
        RADIANCE, rng, record_pool(rng, RADIANCE.record_ids, 10), WIDTH, HEIGHT, None)
    await begin(dut, frame, enable=False)
    for name in ("o_address", "o_write_address"):
        port(dut, name).ready.value = 1
    for _ in range(100):
        await RisingEdge(dut.clk)
        assert dut.done.value == 1
        assert dut.idle.value == 1
        assert port(dut, "o_address").valid.value == 0
        assert port(dut, "o_write_address").valid.value == 0

"""Testbench of the resolving unit: the framebuffer against the bit-true model."""

import random

import cocotb
import numpy as np
import numpy.typing as npt
from cocotb.triggers import RisingEdge

from splatforge.algos.resolve import resolve_fixed
from splatforge.designs.fetch import TILE_PX
from splatforge.designs.resolve import PixelFormat
from splatforge.hw.array import PIXELS_PER_GROUP
from splatforge.hw.blend import Blend
from splatforge.verification.lib.runner import TESTED
from splatforge.verification.lib.stream import pauses, port, source, start

BLEND = TESTED.array.blend
CANARY = 0xA5
FRAME = 0x7F_0012_3400


def random_state(rng: np.random.Generator, height: int, width: int) -> npt.NDArray[np.int64]:
    """Raw colour and T: what can occur, and the corners of the formats."""
    transmittance = rng.integers(0, BLEND.one + 1, (height, width, 1))
    top = BLEND.accumulator.raw_max
    state = np.concatenate([rng.integers(0, top + 1, (height, width, 3)), transmittance], axis=2)
    state[0, :3] = [0, 0, 0, BLEND.one], [top, top, top, 0], [top, 0, top, BLEND.one]
    return state


class Bus:
    """Takes bursts, puts their bytes into a framebuffer, and answers them."""

    def __init__(self, dut, size: int, rng: random.Random, stall: float) -> None:
        self.dut, self.rng, self.stall = dut, rng, stall
        self.frame = np.full(size, CANARY, np.uint8)
        self.bursts: list[tuple[int, int]] = []
        self.responses = 0

    async def addresses(self) -> None:
        """Take addresses for ever."""
        stream = port(self.dut, "o_address")
        while True:
            ready = self.rng.random() >= self.stall
            stream.ready.value = int(ready)
            await RisingEdge(self.dut.clk)
            if ready and stream.valid.value == 1:
                word = int(stream.payload.value)
                address, beats = word & (1 << 40) - 1, (word >> 40) + 1
                assert address // 4096 == (address + 16 * beats - 1) // 4096
                self.bursts.append((address - FRAME, beats))

    async def beats(self) -> None:
        """Take data for ever."""
        stream = port(self.dut, "o_data")
        burst = beat = 0
        while True:
            ready = self.rng.random() >= self.stall
            stream.ready.value = int(ready)
            known = len(self.bursts)
            await RisingEdge(self.dut.clk)
            if not ready or stream.valid.value == 0:
                continue
            assert burst < known, "data came before its address was taken"
            word = int(stream.payload.value)
            strobe, last = word >> 128 & 0xFFFF, word >> 144
            offset, length = self.bursts[burst]
            for number, byte in enumerate((word & (1 << 128) - 1).to_bytes(16, "little")):
                if strobe >> number & 1:
                    self.frame[offset + 16 * beat + number] = byte
            beat += 1
            assert last == (beat == length)
            if last:
                burst, beat = burst + 1, 0
                cocotb.start_soon(self.answer())

    async def answer(self) -> None:
        """One response, some cycles later; one at a time."""
        for _ in range(self.rng.randrange(1, 20)):
            await RisingEdge(self.dut.clk)
        self.responses += 1

    async def respond(self) -> None:
        """Hand responses over for ever, at most one in a cycle."""
        given = 0
        while True:
            self.dut.i_response.value = int(given < self.responses)
            given += given < self.responses
            await RisingEdge(self.dut.clk)


@cocotb.test(timeout_time=5, timeout_unit="ms")
@cocotb.parametrize(
    stall=[0.0, 0.5], gap=[0.0, 0.4], kind=list(PixelFormat), size=[(37, 19), (1, 1), (16, 33)])
async def against_model(
    dut, stall: float, gap: float, kind: PixelFormat, size: tuple[int, int]
) -> None:
    """Every byte of the framebuffer is that of the model, and no other is written."""
    width, height = size
    rng = np.random.default_rng(cocotb.RANDOM_SEED)
    state = random_state(rng, max(height, 3), max(width, 3))[:height, :width]
    background = (256, 100, 511)
    row = TILE_PX * kind.size_bytes
    pitch = -(-width * kind.size_bytes // row) * row + row
    tiles, groups = [], []
    pixel = Blend.state_layout(TESTED.array)
    for y in range(0, height, TILE_PX):
        for x in range(0, width, TILE_PX):
            tile = state[y:y + TILE_PX, x:x + TILE_PX]
            tiles.append(tile.shape[1] | tile.shape[0] << 5)
            for line in tile:
                for at in range(0, len(line), PIXELS_PER_GROUP):
                    four = np.full((PIXELS_PER_GROUP, 4), 77)
                    four[:len(line) - at] = line[at:at + PIXELS_PER_GROUP]
                    bits = [pixel.const({"color": p[:3].tolist(), "transmittance": int(p[3])})
                            .as_value().value for p in four]
                    groups.append(sum(
                        word << n * pixel.size for n, word in enumerate(bits)))
    dut.width.value, dut.height.value, dut.pixel_format.value = width, height, int(kind)
    fmt = TESTED.resolve.background
    dut.background.value = sum(c << n * fmt.width for n, c in enumerate(background))
    dut.frame_address.value, dut.pitch_bytes.value = FRAME, pitch
    dut.start.value = dut.stop.value = dut.i_response.value = 0
    await start(dut, inputs=["i_tile", "i"], outputs=["o_address", "o_data"])
    python_rng = random.Random(cocotb.RANDOM_SEED)
    bus = Bus(dut, pitch * height, python_rng, stall)
    for coroutine in (bus.addresses(), bus.beats(), bus.respond()):
        cocotb.start_soon(coroutine)
    await RisingEdge(dut.clk)
    dut.start.value = 1
    await RisingEdge(dut.clk)
    dut.start.value = 0
    cocotb.start_soon(source(dut.clk, port(dut, "i_tile"), tiles, pauses(python_rng, gap)))
    cocotb.start_soon(source(dut.clk, port(dut, "i"), groups, pauses(python_rng, gap)))
    while dut.done.value == 0:
        await RisingEdge(dut.clk)
    tiles_x = -(-width // TILE_PX)
    assert bus.responses == len(bus.bursts) == tiles_x * height
    want = np.full((height, pitch), CANARY, np.uint8)
    pixels = resolve_fixed(BLEND, TESTED.resolve, state, background, kind)
    want[:, :width * kind.size_bytes] = np.ascontiguousarray(pixels).view(np.uint8).reshape(
        height, -1)
    assert np.array_equal(bus.frame.reshape(height, pitch), want)
    assert dut.idle.value == 1

"""Testbench of the resolving unit: the framebuffer against the bit-true model."""

import random

import cocotb
import numpy as np
import numpy.typing as npt
from cocotb.triggers import ClockCycles, RisingEdge

from splatforge.algos.resolve import resolve_fixed
from splatforge.designs.fetch import TILE_PX
from splatforge.designs.resolve import PixelFormat
from splatforge.hw.array import PIXELS_PER_GROUP
from splatforge.hw.blend import Blend
from splatforge.verification.lib.runner import TESTED
from splatforge.verification.lib.stream import check_silence, pauses, port, source, start

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
    """Takes bursts, puts their bytes into a framebuffer, and answers them.

    Parameters
    ----------
    dut :
        The unit.
    size : int
        Bytes of the framebuffer.
    rng : random.Random
        Draws what is not taken in a cycle, and how late a response is.
    stall : float
        Probability that an address or a beat is not taken.
    late : int
        Most cycles from a burst's last beat to its response.
    """

    def __init__(
        self, dut, size: int, rng: random.Random, stall: float, late: int = 20
    ) -> None:
        self.dut, self.rng, self.stall, self.late = dut, rng, stall, late
        self.frame = np.full(size, CANARY, np.uint8)
        self.written = np.zeros(size, bool)
        #: (offset, beats) of every burst whose address was taken.
        self.bursts: list[tuple[int, int]] = []
        self.finished = self.responses = self.given = 0
        #: Most bursts that were taken and not answered.
        self.most_in_flight = 0

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
                self.most_in_flight = max(self.most_in_flight, len(self.bursts) - self.given)

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
                    at = offset + 16 * beat + number
                    assert not self.written[at], "a byte was written twice"
                    self.frame[at], self.written[at] = byte, True
            beat += 1
            assert last == (beat == length)
            if last:
                burst, beat = burst + 1, 0
                self.finished = burst
                cocotb.start_soon(self.answer())

    async def answer(self) -> None:
        """One response is due, some cycles later."""
        for _ in range(self.rng.randint(1, self.late)):
            await RisingEdge(self.dut.clk)
        self.responses += 1

    async def respond(self) -> None:
        """Hand responses over for ever, at most one in a cycle."""
        while True:
            ready = self.given < self.responses
            self.dut.i_response.value = int(ready)
            await RisingEdge(self.dut.clk)
            self.given += ready
            if self.given < len(self.bursts):
                assert self.dut.done.value == self.dut.idle.value == 0, "done before all is"


class Frame:
    """A frame as the array hands it over.

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws the pixels.
    width, height : int
        Size in pixels.
    kind : PixelFormat
        Of the framebuffer.
    """

    background = (256, 100, 511)

    def __init__(
        self, rng: np.random.Generator, width: int, height: int, kind: PixelFormat
    ) -> None:
        self.width, self.height, self.kind = width, height, kind
        self.state = random_state(rng, max(height, 3), max(width, 3))[:height, :width]
        row = TILE_PX * kind.size_bytes
        # One tile more than needed: nothing may rest on rows that touch.
        self.pitch = -(-width * kind.size_bytes // row) * row + row
        self.tiles: list[int] = []
        self.groups: list[int] = []
        pixel = Blend.state_layout(TESTED.array)
        for y in range(0, height, TILE_PX):
            for x in range(0, width, TILE_PX):
                tile = self.state[y:y + TILE_PX, x:x + TILE_PX]
                self.tiles.append(tile.shape[1] | tile.shape[0] << 5)
                for line in tile:
                    for at in range(0, len(line), PIXELS_PER_GROUP):
                        # Behind the frame's edge anything may come.
                        four = np.full((PIXELS_PER_GROUP, 4), 77)
                        four[:len(line) - at] = line[at:at + PIXELS_PER_GROUP]
                        bits = [pixel.const({"color": p[:3].tolist(), "transmittance": int(p[3])})
                                .as_value().value for p in four]
                        self.groups.append(sum(
                            word << n * pixel.size for n, word in enumerate(bits)))

    @property
    def bursts(self) -> int:
        """One for every row of every tile."""
        return -(-self.width // TILE_PX) * self.height

    def bytes(self) -> npt.NDArray[np.uint8]:
        """The framebuffer of the model, of shape [height, pitch]."""
        want = np.full((self.height, self.pitch), CANARY, np.uint8)
        pixels = resolve_fixed(BLEND, TESTED.resolve, self.state, self.background, self.kind)
        want[:, :self.width * self.kind.size_bytes] = np.ascontiguousarray(pixels).view(
            np.uint8).reshape(self.height, -1)
        return want


async def begin(dut, frame: Frame, bus: Bus) -> None:
    """Reset, then start the frame."""
    dut.width.value, dut.height.value = frame.width, frame.height
    dut.pixel_format.value = int(frame.kind)
    width = TESTED.resolve.background.width
    dut.background.value = sum(c << n * width for n, c in enumerate(frame.background))
    dut.frame_address.value, dut.pitch_bytes.value = FRAME, frame.pitch
    dut.start.value = dut.stop.value = dut.i_response.value = 0
    await start(dut, inputs=["i_tile", "i"], outputs=["o_address", "o_data"])
    for coroutine in (bus.addresses(), bus.beats(), bus.respond()):
        cocotb.start_soon(coroutine)
    await RisingEdge(dut.clk)
    dut.start.value = 1
    await RisingEdge(dut.clk)
    dut.start.value = 0


@cocotb.test(timeout_time=200, timeout_unit="us")
@cocotb.parametrize(
    (("width", "height", "seed"), [(37, 19, 1), (1, 1, 2), (16, 33, 3)]),
    ("stall", [0.0, 0.5]), ("gap", [0.0, 0.4]), ("kind", list(PixelFormat)))
async def against_model(
    dut, stall: float, gap: float, kind: PixelFormat, width: int, height: int, seed: int
) -> None:
    """Every byte of the framebuffer is that of the model, and no other is written."""
    rng = random.Random(f"{cocotb.RANDOM_SEED} {seed}")
    frame = Frame(np.random.default_rng([cocotb.RANDOM_SEED, seed]), width, height, kind)
    bus = Bus(dut, frame.pitch * height, rng, stall)
    await begin(dut, frame, bus)
    cocotb.start_soon(source(dut.clk, port(dut, "i_tile"), frame.tiles, pauses(rng, gap)))
    cocotb.start_soon(source(dut.clk, port(dut, "i"), frame.groups, pauses(rng, gap)))
    while dut.done.value == 0:
        await RisingEdge(dut.clk)
    assert bus.given == bus.finished == len(bus.bursts) == frame.bursts
    assert np.array_equal(bus.frame.reshape(height, -1), frame.bytes())
    assert dut.idle.value == 1
    await check_silence(dut.clk, port(dut, "o_address"), port(dut, "o_data"))


@cocotb.test(timeout_time=100, timeout_unit="us")
async def bursts_in_flight(dut) -> None:
    """While responses are late, as many bursts are begun as the design allows, and no more."""
    rng = random.Random(cocotb.RANDOM_SEED)
    frame = Frame(np.random.default_rng(cocotb.RANDOM_SEED), 32, 16, PixelFormat.RGBA8)
    bus = Bus(dut, frame.pitch * frame.height, rng, 0.0, late=60)
    await begin(dut, frame, bus)
    cocotb.start_soon(source(dut.clk, port(dut, "i_tile"), frame.tiles, pauses(rng, 0.0)))
    cocotb.start_soon(source(dut.clk, port(dut, "i"), frame.groups, pauses(rng, 0.0)))
    while dut.done.value == 0:
        await RisingEdge(dut.clk)
    assert bus.most_in_flight == TESTED.resolve.outstanding_bursts
    assert np.array_equal(bus.frame.reshape(frame.height, -1), frame.bytes())


@cocotb.test(timeout_time=100, timeout_unit="us")
@cocotb.parametrize(cycles=[1, 20, 61])
async def stop(dut, cycles: int) -> None:
    """Behind ``stop`` no burst is begun; those that were are finished, then the unit is idle."""
    rng = random.Random(cocotb.RANDOM_SEED)
    frame = Frame(np.random.default_rng(cocotb.RANDOM_SEED), 48, 32, PixelFormat.RGBA16)
    bus = Bus(dut, frame.pitch * frame.height, rng, 0.0)
    await begin(dut, frame, bus)
    cocotb.start_soon(source(dut.clk, port(dut, "i_tile"), frame.tiles, pauses(rng, 0.0)))
    cocotb.start_soon(source(dut.clk, port(dut, "i"), frame.groups, pauses(rng, 0.0)))
    await ClockCycles(dut.clk, cycles)
    dut.stop.value = 1
    # The burst that waits for the bus still goes.
    await ClockCycles(dut.clk, 3)
    begun = len(bus.bursts)
    while dut.idle.value == 0:
        await RisingEdge(dut.clk)
    await ClockCycles(dut.clk, 40)
    assert bus.given == bus.finished == len(bus.bursts) == begun < frame.bursts
    assert dut.idle.value == 1
    assert dut.done.value == 0

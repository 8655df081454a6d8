"""Testbench of the whole core: AXI models written by someone else around it, tiny frames.

Large frames, exact memory timing and data that come out of order are
:mod:`splatforge.verification.lib.frame`'s: the memory here answers in order of the addresses.
"""

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, RisingEdge
from cocotbext.axi import AxiBus, AxiLiteBus, AxiLiteMaster, AxiResp, AxiSlave

from splatforge.algos import raster
from splatforge.algos.fetch import MemoryImage, SplatLists, pack
from splatforge.designs.raster import COUNTERS
from splatforge.designs.resolve import PixelFormat
from splatforge.designs.shell import (
    CONTROL_ABORT,
    CONTROL_RESET,
    CONTROL_START,
    COUNTER_BASE,
    DESCRIPTOR_BYTES,
    HEAD_REGISTERS,
    IDENTITY,
    IRQ_DONE,
    IRQ_ERROR,
    STATUS_BUSY,
    STATUS_DONE,
    STATUS_ERROR,
    FrameError,
    counter_registers,
)
from splatforge.verification.lib.lists import random_lists
from splatforge.verification.lib.runner import TESTED
from splatforge.verification.lib.stream import axi_port, check_stream, pauses, start

OFFSET = {register.name: register.offset for register in HEAD_REGISTERS}
WRITABLE = {"IRQ_ENABLE": 3, "DESCRIPTOR_LOW": 0xFFFF_FFFF, "DESCRIPTOR_HIGH": 0xFF}
BACKGROUND = (0.25, 0.5, 1.0)
#: What the framebuffer holds before the frame.
CANARY = 0xA5
#: Above 32 bits: the upper half of every address matters.
BASE = 0x12_3456_7000
#: Channels that the core drives, with what must hold still while they wait.
DRIVEN = {
    "m_axi_ar": ("id", "addr", "len", "size", "burst"),
    "m_axi_aw": ("id", "addr", "len", "size", "burst"),
    "m_axi_w": ("data", "strb", "last"),
    "s_axil_b": ("resp",), "s_axil_r": ("data", "resp"),
}


@dataclass(kw_only=True, eq=False)
class Memory:
    """What one frame may read and write; any other address is answered with SLVERR.

    Parameters
    ----------
    image : MemoryImage
        The frame.
    faults : set of int
        Addresses of beats that are answered with SLVERR although they are there.
    """

    image: MemoryImage
    faults: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.frame = bytearray([CANARY]) * self.image.frame_bytes

    async def read(self, address: int, length: int) -> bytes:
        """Bytes of a segment."""
        for first, content in self.image.segments:
            if first <= address and address + length <= first + len(content):
                if address in self.faults:
                    break
                return content[address - first:address - first + length].tobytes()
        raise ValueError(f"no read from {address:#x}")

    async def write(self, address: int, data: bytes) -> None:
        """Bytes of the framebuffer."""
        first = address - self.image.frame_address
        if address in self.faults or not 0 <= first <= len(self.frame) - len(data):
            raise ValueError(f"no write to {address:#x}")
        self.frame[first:first + len(data)] = data


class Driver:
    """Drives the registers as software would, with the frame's memory behind the AXI4 port.

    Parameters
    ----------
    dut :
        The core.
    rng : random.Random
        Draws the pauses.
    gap, stall : float
        Probability that requests, data and responses towards the core pause in a cycle, and that
        what the core sends is not taken.
    """

    #: Performance counters of the core.
    names: ClassVar[tuple[tuple[str, str, str], ...]] = COUNTERS

    def __init__(self, dut, rng: random.Random, gap: float, stall: float) -> None:
        self.dut = dut
        # The models say something of every access.
        logging.getLogger(f"cocotb.{dut._name}").setLevel(logging.ERROR)
        # Any: cocotbext-axi has no types, and what a checker infers of it is wrong.
        self.axil: Any = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axil"), dut.clk)
        self.axi: Any = AxiSlave(AxiBus.from_prefix(dut, "m_axi"), dut.clk)
        for channel, probability in (
            (self.axil.write_if.aw_channel, gap), (self.axil.write_if.w_channel, gap),
            (self.axil.read_if.ar_channel, gap), (self.axil.write_if.b_channel, stall),
            (self.axil.read_if.r_channel, stall), (self.axi.write_if.b_channel, gap),
            (self.axi.read_if.r_channel, gap), (self.axi.write_if.aw_channel, stall),
            (self.axi.write_if.w_channel, stall), (self.axi.read_if.ar_channel, stall),
        ):
            if probability:
                channel.set_pause_generator(pauses(rng, probability))

    async def read(self, name: str) -> int:
        """Content of register `name`."""
        answer = await self.axil.read(OFFSET[name], 4)
        assert answer.resp is AxiResp.OKAY
        return int.from_bytes(answer.data, "little")

    async def write(self, name: str, value: int) -> None:
        """Write register `name`."""
        answer = await self.axil.write(OFFSET[name], value.to_bytes(4, "little"))
        assert answer.resp is AxiResp.OKAY

    async def counters(self) -> dict[str, int]:
        """All performance counters."""
        answer = await self.axil.read(COUNTER_BASE, 8 * len(self.names))
        assert answer.resp is AxiResp.OKAY
        return {name: int.from_bytes(answer.data[8 * n:8 * n + 8], "little")
                for n, (name, _, _) in enumerate(self.names)}

    async def start(self, memory: Memory, irq_enable: int = IRQ_DONE) -> None:
        """Start a frame."""
        self.axi.write_if.target = self.axi.read_if.target = memory
        address = memory.image.descriptor_address
        await self.write("DESCRIPTOR_LOW", address & 0xFFFF_FFFF)
        await self.write("DESCRIPTOR_HIGH", address >> 32)
        await self.write("IRQ_ENABLE", irq_enable)
        await self.write("CONTROL", CONTROL_START)

    async def finish(self) -> FrameError:
        """Wait for the interrupt, read the outcome, take the interrupt back."""
        while self.dut.irq.value != 1:
            await RisingEdge(self.dut.clk)
        error = FrameError(await self.read("ERROR"))
        failed = error is not FrameError.NONE
        assert await self.read("STATUS") == STATUS_DONE | (STATUS_ERROR if failed else 0)
        pending = await self.read("IRQ_STATUS")
        assert pending == IRQ_DONE | (IRQ_ERROR if failed else 0)
        await self.write("IRQ_STATUS", pending)
        assert self.dut.irq.value == 0
        return error

    async def frame(self, lists: SplatLists, kind: PixelFormat) -> None:
        """Run a frame; every byte of the framebuffer and the counters against the model."""
        memory = Memory(image=packed(lists, kind))
        await self.start(memory)
        assert await self.finish() is FrameError.NONE
        want = raster.render(lists, TESTED, BACKGROUND).pixels(kind)
        rows = np.frombuffer(memory.frame, np.uint8).reshape(lists.height, -1)
        assert np.array_equal(memory.image.pixels(bytes(memory.frame)), want)
        assert (rows[:, lists.width * kind.size_bytes:] == CANARY).all()
        counters = await self.counters()
        tiles = len(lists.pairs)
        assert counters["tiles"] == tiles
        assert counters["pixel_bytes"] == want.nbytes
        assert counters["descriptor_bytes"] == DESCRIPTOR_BYTES
        assert counters["table_bytes"] == 16 * -(-tiles // 2)
        assert counters["overfetch_bytes"] <= counters["splat_bytes"] <= 16 * lists.splats
        assert counters["fetch_busy"] == counters["splat_bytes"] // 16


async def quiet(dut) -> None:
    """Reset, and watch every channel that the core drives."""
    for name in ("awvalid", "wvalid", "arvalid", "bready", "rready"):
        getattr(dut, f"s_axil_{name}").value = 0
    for name in ("arready", "awready", "wready", "rvalid", "bvalid"):
        getattr(dut, f"m_axi_{name}").value = 0
    await start(dut)
    for channel, payload in DRIVEN.items():
        cocotb.start_soon(check_stream(dut.clk, axi_port(dut, channel, payload)))


async def begin(dut, gap: float = 0.0, stall: float = 0.0, seed: int = 0) -> Driver:
    """Reset, and drive the core."""
    await quiet(dut)
    return Driver(dut, random.Random(f"{cocotb.RANDOM_SEED} {seed}"), gap, stall)


def packed(lists: SplatLists, kind: PixelFormat) -> MemoryImage:
    """The frame in memory."""
    return pack(lists, background=BACKGROUND, pixel_format=kind, base_address=BASE,
                resolve=TESTED.resolve)


def frames(seed: int) -> Sequence[SplatLists]:
    """A frame without a splat, and one of 43x29 pixels in which tiles end early."""
    empty = random_lists(seed, tiles_x=1, tiles_y=1, longest=0)
    return empty, random_lists(seed, tiles_x=3, tiles_y=2, longest=30)


@cocotb.test(timeout_time=300, timeout_unit="us")
@cocotb.parametrize(
    (("gap", "stall", "seed"), [(0.0, 0.0, 1), (0.4, 0.0, 2), (0.0, 0.4, 3), (0.3, 0.3, 4)]),
    ("kind", list(PixelFormat)))
async def against_model(dut, kind: PixelFormat, gap: float, stall: float, seed: int) -> None:
    """Two frames in a row: every byte of the framebuffer is that of the model."""
    driver = await begin(dut, gap, stall, seed)
    for lists in frames(seed):
        await driver.frame(lists, kind)
    assert (await driver.counters())["tiles_stopped"] > 0


@cocotb.test(timeout_time=200, timeout_unit="us")
@cocotb.parametrize((("gap", "stall"), [(0.0, 0.0), (0.3, 0.3)]))
async def registers(dut, gap: float, stall: float) -> None:
    """The map through a manager that knows nothing of it; an idle core touches no memory."""
    driver = await begin(dut, gap, stall)
    assert await driver.read("IDENTITY") == IDENTITY
    assert await driver.read("LANES") == TESTED.array.lanes
    assert await driver.read("COUNTERS") == len(COUNTERS)
    for name, mask in WRITABLE.items():
        for value in (0xFFFF_FFFF, 0, 0x5A5A_A5A5, *(1 << bit for bit in range(0, 32, 5))):
            await driver.write(name, value)
            assert await driver.read(name) == value & mask
    for register in (*HEAD_REGISTERS, *counter_registers(COUNTERS)):
        answer = await driver.axil.read(register.offset, 4)
        assert answer.resp is AxiResp.OKAY
        if register.access == "ro":
            refused = await driver.axil.write(register.offset, b"\xff" * 4)
            assert refused.resp is AxiResp.SLVERR
            assert (await driver.axil.read(register.offset, 4)).data == answer.data
    beyond = await driver.axil.read(COUNTER_BASE + 8 * len(COUNTERS), 4)
    assert beyond.resp is AxiResp.SLVERR
    for name in ("arvalid", "awvalid", "wvalid"):
        assert getattr(dut, f"m_axi_{name}").value == 0


@cocotb.test(timeout_time=200, timeout_unit="us")
async def interrupt(dut) -> None:
    """The line follows what is enabled of what is pending; without it the driver polls."""
    driver = await begin(dut)
    _, lists = frames(1)
    await driver.start(Memory(image=packed(lists, PixelFormat.RGBA8)), irq_enable=0)
    assert await driver.read("STATUS") == STATUS_BUSY
    while await driver.read("STATUS") & STATUS_BUSY:
        assert dut.irq.value == 0
    assert await driver.read("STATUS") == STATUS_DONE
    await ClockCycles(dut.clk, 10)
    assert dut.irq.value == 0
    await driver.write("IRQ_ENABLE", IRQ_ERROR)
    assert dut.irq.value == 0
    await driver.write("IRQ_ENABLE", IRQ_DONE)
    assert dut.irq.value == 1
    await driver.write("IRQ_STATUS", IRQ_ERROR)
    assert dut.irq.value == 1
    await driver.write("IRQ_STATUS", IRQ_DONE)
    assert dut.irq.value == 0
    await driver.frame(lists, PixelFormat.RGBA8)


@cocotb.test(timeout_time=200, timeout_unit="us")
async def next_descriptor(dut) -> None:
    """Behind START the register is the next frame's, though this one's read waits for the bus."""
    driver = await begin(dut)
    _, lists = frames(4)
    image = packed(lists, PixelFormat.RGBA8)
    memory = Memory(image=image)
    driver.axi.read_if.ar_channel.pause = True
    await ClockCycles(dut.clk, 3)
    await driver.start(memory)
    await driver.write("DESCRIPTOR_LOW", 0xDEAD_BEC0)
    assert dut.m_axi_arvalid.value == 1
    assert int(dut.m_axi_araddr.value) == image.descriptor_address
    driver.axi.read_if.ar_channel.pause = False
    assert await driver.finish() is FrameError.NONE
    want = raster.render(lists, TESTED, BACKGROUND).pixels(PixelFormat.RGBA8)
    assert np.array_equal(image.pixels(bytes(memory.frame)), want)


@cocotb.test(timeout_time=200, timeout_unit="us")
@cocotb.parametrize(
    where=["descriptor", "table", "splats", "frame"], stall=[0.0, 0.3])
async def bus_error(dut, where: str, stall: float) -> None:
    """A frame ends behind an error response, names it, and the next one is whole."""
    driver = await begin(dut, stall=stall)
    _, lists = frames(2)
    image = packed(lists, PixelFormat.RGBA16)
    descriptor, table, splats = (address for address, _ in image.segments)
    address = {
        "descriptor": descriptor + 48, "table": table, "splats": splats + 16 * 9,
        "frame": image.frame_address + 3 * image.pitch_bytes}[where]
    memory = Memory(image=image, faults={address})
    await driver.start(memory)
    expected = FrameError.WRITE if where == "frame" else FrameError.READ
    assert await driver.finish() is expected
    await driver.frame(lists, PixelFormat.RGBA16)


@cocotb.test(timeout_time=200, timeout_unit="us")
@cocotb.parametrize(cycles=[0, 40, 500], command=[CONTROL_ABORT, CONTROL_RESET])
async def early_end(dut, cycles: int, command: int) -> None:
    """ABORT or RESET in mid-frame: what is in flight drains, and the next frame is whole."""
    driver = await begin(dut, 0.2, 0.2, cycles)
    _, lists = frames(3)
    await driver.start(Memory(image=packed(lists, PixelFormat.STATE)))
    await ClockCycles(dut.clk, cycles)
    await driver.write("CONTROL", command)
    if command == CONTROL_ABORT:
        assert await driver.finish() is FrameError.ABORTED
    else:
        while await driver.read("STATUS") & STATUS_BUSY:
            pass
        assert await driver.read("STATUS") == await driver.read("IRQ_STATUS") == 0
        assert dut.irq.value == 0
    await driver.frame(lists, PixelFormat.STATE)

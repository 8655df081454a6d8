"""Testbench of GSCore and of Voyager's client: AXI models written by someone else, tiny frames.

Large frames and exact memory timing are :mod:`splatforge.verification.lib.frame`'s.
"""

import random

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles

from splatforge.algos import gscore
from splatforge.algos.gscore import GscoreInput
from splatforge.designs.ccu import CAMERA_BEATS
from splatforge.designs.gscore import COUNTERS
from splatforge.designs.resolve import PixelFormat
from splatforge.designs.shell import (
    CONTROL_ABORT,
    DESCRIPTOR_BYTES,
    IDENTITY,
    FrameError,
)
from splatforge.scenes import default_camera, resolve
from splatforge.verification.lib.runner import TESTED_GSCORE, TESTED_VOYAGER
from splatforge.verification.raster import BACKGROUND, BASE, Driver, Memory, quiet

#: So many that lists are partitioned, and no more than features have numbers.
GAUSSIANS = 120
SIZE = (60, 35)
#: Who renders, by the top's name; in memory their frames are the same.
RENDERED = {"gscore": TESTED_GSCORE, "voyager": TESTED_VOYAGER}


class Workspace(Memory):
    """What one frame may read and write, the workspace among it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.workspace = bytearray(self.image.workspace_bytes)

    def _place(self, address: int, length: int) -> int | None:
        first = address - self.image.workspace_address
        return first if 0 <= first <= len(self.workspace) - length else None

    async def read(self, address: int, length: int) -> bytes:
        """Bytes of a segment or of the workspace."""
        place = self._place(address, length)
        if place is None or address in self.faults:
            return await super().read(address, length)
        return bytes(self.workspace[place:place + length])

    async def write(self, address: int, data: bytes) -> None:
        """Bytes of the framebuffer or of the workspace."""
        place = self._place(address, len(data))
        if place is None or address in self.faults:
            await super().write(address, data)
        else:
            self.workspace[place:place + len(data)] = data


class GscoreDriver(Driver):
    """Drives the registers as software would."""

    names = COUNTERS

    async def check(self, frame: GscoreInput, kind: PixelFormat) -> None:
        """Run a frame; every pixel and what is counted against the model."""
        memory = packed(frame, kind)
        await self.start(memory)
        assert await self.finish() is FrameError.NONE
        picture = gscore.render(frame, RENDERED[self.dut._name], BACKGROUND)
        want = picture.pixels(kind)
        assert np.array_equal(memory.image.pixels(bytes(memory.frame)), want)
        counters = await self.counters()
        first = picture.workload.ccu
        assert counters["gaussians"] == len(frame.gaussians)
        assert counters["visible"] == len(first.ids)
        assert counters["pairs"] == len(first.entries)
        assert counters["gaussian_bytes"] == frame.gaussians.nbytes
        assert counters["descriptor_bytes"] == DESCRIPTOR_BYTES + 16 * CAMERA_BEATS
        assert counters["feature_written_bytes"] == 32 * len(first.ids)
        assert counters["pixel_bytes"] == want.nbytes
        assert counters["partitions"]
        written = memory.workspace[:32 * len(first.ids)]
        assert bytes(written) == first.features.tobytes()


def frame_of(gaussians: int = GAUSSIANS, size: tuple[int, int] = SIZE) -> GscoreInput:
    """Some Gaussians of the default scene."""
    scene = resolve("default")
    camera = default_camera(scene, *size)
    return gscore.prepare(
        scene.select(np.linspace(0, scene.gaussians - 1, gaussians).astype(np.int64)), camera,
        TESTED_GSCORE)


def packed(frame: GscoreInput, kind: PixelFormat, pages: int | None = None) -> Workspace:
    """A frame in memory."""
    return Workspace(image=gscore.pack(
        frame, TESTED_GSCORE, background=BACKGROUND, pixel_format=kind, base_address=BASE,
        pages=pages))


async def begin(dut, gap: float = 0.0, stall: float = 0.0) -> GscoreDriver:
    """Reset, and drive the core."""
    await quiet(dut)
    return GscoreDriver(dut, random.Random(f"{cocotb.RANDOM_SEED}"), gap, stall)


@cocotb.test(timeout_time=5, timeout_unit="ms")
@cocotb.parametrize((("gap", "stall"), [(0.0, 0.0), (0.4, 0.3)]))
async def frames(dut, gap: float, stall: float) -> None:
    """Two frames behind each other, the second of another size and format."""
    driver = await begin(dut, gap, stall)
    assert await driver.read("IDENTITY") == IDENTITY
    await driver.check(frame_of(), PixelFormat.RGBA8)
    await driver.check(frame_of(90, (33, 50)), PixelFormat.STATE)


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def errors_end_a_frame(dut) -> None:
    """What is wrong with a frame is said, and the next one is right."""
    driver = await begin(dut)
    frame = frame_of()
    memory = packed(frame, PixelFormat.RGBA8)
    place = memory.image
    enough = place.workspace_bytes // TESTED_GSCORE.lists.page_bytes
    features = -(-len(frame.gaussians) * 32 // TESTED_GSCORE.lists.page_bytes)
    assert enough > features + 20
    for pages in (features - 1, features + 20):
        await driver.start(packed(frame, PixelFormat.RGBA8, pages))
        assert await driver.finish() is FrameError.WORKSPACE
    for address, error in (
        (place.segments[1][0], FrameError.READ), (place.segments[2][0] + 64, FrameError.READ),
        (place.workspace_address + 32, FrameError.WRITE), (place.frame_address, FrameError.WRITE),
    ):
        memory = packed(frame, PixelFormat.RGBA8)
        memory.faults.add(address)
        await driver.start(memory)
        assert await driver.finish() is error
    await driver.check(frame, PixelFormat.RGBA8)


@cocotb.test(timeout_time=5, timeout_unit="ms")
@cocotb.parametrize(cycles=[60, 900, 4000, 7000])
async def abort(dut, cycles: int) -> None:
    """A frame that is given up ends, and the next one is right."""
    driver = await begin(dut, 0.1, 0.1)
    frame = frame_of()
    await driver.start(packed(frame, PixelFormat.RGBA8))
    await ClockCycles(dut.clk, cycles)
    await driver.write("CONTROL", CONTROL_ABORT)
    assert await driver.finish() is FrameError.ABORTED
    await driver.check(frame, PixelFormat.RGBA8)

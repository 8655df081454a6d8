"""Testbench of StreamingGS: AXI models written by someone else around it, tiny frames.

Large frames and exact memory timing are :mod:`splatforge.verification.lib.frame`'s.
"""

import random
from dataclasses import replace
from functools import cache

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles

from splatforge.algos import streaminggs
from splatforge.algos.streaminggs.render import StreaminggsInput
from splatforge.designs.resolve import PixelFormat
from splatforge.designs.shell import (
    CONTROL_ABORT,
    DESCRIPTOR_BYTES,
    IDENTITY,
    FrameError,
)
from splatforge.designs.streaminggs import COUNTERS, DESCRIPTOR_FIELDS
from splatforge.scenes import default_camera, resolve
from splatforge.verification.lib.runner import TESTED_STREAMINGGS
from splatforge.verification.raster import BACKGROUND, BASE, Driver, Memory, quiet

#: Few enough that the table holds their voxels.
GAUSSIANS = 300
SIZE = (60, 35)


class StreaminggsDriver(Driver):
    """Drives the registers as software would."""

    names = COUNTERS

    async def check(self, frame: StreaminggsInput, kind: PixelFormat) -> None:
        """Run a frame; every pixel and what is counted against the model."""
        memory = packed(frame, kind)
        await self.start(memory)
        assert await self.finish() is FrameError.NONE
        picture = streaminggs.render(frame, TESTED_STREAMINGGS, BACKGROUND)
        want = picture.pixels(kind)
        assert np.array_equal(memory.image.pixels(bytes(memory.frame)), want)
        counters = await self.counters()
        work, stored = picture.workload, frame.stored
        assert counters["descriptor_bytes"] == DESCRIPTOR_BYTES
        assert counters["voxel_bytes"] == frame.camera.nbytes + stored.table.nbytes
        assert counters["codebook_bytes"] == stored.codebook_beats.nbytes
        assert counters["pixel_bytes"] == want.nbytes
        assert counters["voxels"] == len(stored.table)
        assert counters["voxels_visible"] == len(work.vsu.ids)
        assert counters["groups"] == work.vsu.columns * work.vsu.rows
        # No group of these frames ends early: all of every list is loaded.
        assert counters["groups_stopped"] == 0
        assert counters["voxels_loaded"] == len(work.vsu.places)
        assert counters["gaussians"] == len(work.cfu.passed)
        assert counters["gaussians_passed"] == counters["gaussians_projected"] == len(work.visit)
        assert counters["gaussians_kept"] == work.kept.sum()
        assert counters["fine_bytes"] == 16 * len(work.visit)


@cache
def frame_of(gaussians: int = GAUSSIANS, size: tuple[int, int] = SIZE) -> StreaminggsInput:
    """Some Gaussians of the default scene."""
    scene = resolve("default")
    camera = default_camera(scene, *size)
    return streaminggs.prepare(
        scene.select(np.linspace(0, scene.gaussians - 1, gaussians).astype(np.int64)), camera,
        TESTED_STREAMINGGS)


def packed(frame: StreaminggsInput, kind: PixelFormat) -> Memory:
    """A frame in memory."""
    return Memory(image=streaminggs.pack(
        frame, TESTED_STREAMINGGS, background=BACKGROUND, pixel_format=kind, base_address=BASE))


async def begin(dut, gap: float = 0.0, stall: float = 0.0) -> StreaminggsDriver:
    """Reset, and drive the core."""
    await quiet(dut)
    return StreaminggsDriver(dut, random.Random(f"{cocotb.RANDOM_SEED}"), gap, stall)


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
    place = packed(frame, PixelFormat.RGBA8).image
    camera, voxels, codebooks, scene = (address for address, _ in place.segments[1:])
    for address, error in (
        (camera, FrameError.READ), (voxels + 64, FrameError.READ), (codebooks, FrameError.READ),
        (scene + 4096, FrameError.READ), (place.frame_address, FrameError.WRITE),
    ):
        memory = packed(frame, PixelFormat.RGBA8)
        memory.faults.add(address)
        await driver.start(memory)
        assert await driver.finish() is error
    image = packed(frame, PixelFormat.RGBA8).image
    (base, descriptor), *rest = image.segments
    descriptor = descriptor.copy()
    descriptor[next(at for name, at, _ in DESCRIPTOR_FIELDS if name == "sh_degree")] = 4
    await driver.start(Memory(image=replace(image, segments=((base, descriptor), *rest))))
    assert await driver.finish() is FrameError.FORMAT
    crowded = frame_of(3000)
    assert len(crowded.stored.table) > 2 * TESTED_STREAMINGGS.vsu.voxels
    await driver.start(packed(crowded, PixelFormat.RGBA8))
    assert await driver.finish() is FrameError.WORKSPACE
    await driver.check(frame, PixelFormat.RGBA8)


@cocotb.test(timeout_time=5, timeout_unit="ms")
@cocotb.parametrize(cycles=[60, 700, 1500, 2500])
async def abort(dut, cycles: int) -> None:
    """A frame that is given up ends, and the next one is right."""
    driver = await begin(dut, 0.1, 0.1)
    frame = frame_of()
    await driver.start(packed(frame, PixelFormat.RGBA8))
    await ClockCycles(dut.clk, cycles)
    await driver.write("CONTROL", CONTROL_ABORT)
    assert await driver.finish() is FrameError.ABORTED
    await driver.check(frame, PixelFormat.RGBA8)

"""Testbench of LuminCore: AXI models written by someone else around it, tiny frames.

Large frames and exact memory timing are :mod:`splatforge.verification.lib.frame`'s.
"""

import random
from dataclasses import dataclass, replace
from functools import cache

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles

from splatforge.algos import lumina
from splatforge.algos.lumina.render import LuminaInput
from splatforge.algos.radiance import Banks
from splatforge.designs.lumina import COUNTERS, DESCRIPTOR_FIELDS
from splatforge.designs.resolve import PixelFormat
from splatforge.designs.shell import CONTROL_ABORT, DESCRIPTOR_BYTES, IDENTITY, FrameError
from splatforge.scenes import default_camera, resolve
from splatforge.verification.lib.runner import TESTED_LUMINCORE
from splatforge.verification.raster import BACKGROUND, BASE, CANARY, Driver, Memory, quiet

#: As many as the entries of the design that is tested can name.
GAUSSIANS = 127
#: Three by three tiles in groups of two by two.
SIZE = (43, 37)


@dataclass(kw_only=True, eq=False)
class BankedFrame(Memory):
    """A frame's memory with the banks of the cache, which may be read and written."""

    def __post_init__(self) -> None:
        super().__post_init__()
        image = self.image
        self.banks = bytearray([CANARY]) * image.workspace_bytes
        for address, content in image.segments:
            if image.workspace_bytes and address == image.workspace_address:
                self.banks[:] = content.tobytes()

    def _bank(self, address: int, length: int) -> int:
        """Place in the banks, or -1."""
        first = address - self.image.workspace_address
        return first if 0 <= first <= len(self.banks) - length else -1

    async def read(self, address: int, length: int) -> bytes:
        """Bytes of a segment, or of the banks as they are now."""
        at = self._bank(address, length)
        if at < 0 or address in self.faults:
            return await super().read(address, length)
        return bytes(self.banks[at:at + length])

    async def write(self, address: int, data: bytes) -> None:
        """Bytes of the framebuffer, or of the banks."""
        at = self._bank(address, len(data))
        if at < 0 or address in self.faults:
            await super().write(address, data)
        else:
            self.banks[at:at + len(data)] = data


class LuminaDriver(Driver):
    """Drives the registers as software would."""

    names = COUNTERS

    async def check(
        self, frame: LuminaInput, kind: PixelFormat, banks: Banks | None = None, *,
        remapping: bool = True,
    ) -> Banks | None:
        """Run a frame; pixels, banks and what is counted against the model."""
        design = replace(TESTED_LUMINCORE, remapping=remapping)
        memory = packed(frame, kind, banks, remapping=remapping)
        await self.start(memory)
        assert await self.finish() is FrameError.NONE
        picture = lumina.render(frame, design, BACKGROUND, banks)
        want, work = picture.pixels(kind), picture.workload
        assert np.array_equal(memory.image.pixels(bytes(memory.frame)), want)
        assert picture.banks is not None
        images = picture.banks.images(design.radiance)
        assert bytes(memory.banks) == images.tobytes()
        counters = await self.counters()
        assert counters["descriptor_bytes"] == DESCRIPTOR_BYTES
        assert counters["table_bytes"] == 16 * -(-len(work.tiles) // 2)
        assert counters["pixel_bytes"] == want.nbytes
        assert counters["cache_read_bytes"] == (0 if frame.flush else images.nbytes)
        assert counters["cache_written_bytes"] == images.nbytes
        assert counters["lookups"] == work.lookups
        assert counters["hits"] == work.hits
        assert counters["bypassed"] == work.pixels - work.lookups
        assert counters["feature_bytes"] % 32 == 0
        return picture.banks


@cache
def frames_of(size: tuple[int, int] = SIZE) -> tuple[LuminaInput, ...]:
    """Two frames in a row of some Gaussians of the default scene, seen from a little beside."""
    scene = resolve("default")
    few = scene.select(np.linspace(0, scene.gaussians - 1, GAUSSIANS).astype(np.int64))
    camera = default_camera(scene, *size)
    beside = camera.w2c.copy()
    beside[0, 3] += 0.01
    return tuple(lumina.prepare_sequence(
        few, (camera, replace(camera, w2c=beside)), TESTED_LUMINCORE))


def packed(
    frame: LuminaInput, kind: PixelFormat, banks: Banks | None = None, *, remapping: bool = True
) -> BankedFrame:
    """A frame in memory."""
    return BankedFrame(image=lumina.pack(
        frame, replace(TESTED_LUMINCORE, remapping=remapping), background=BACKGROUND,
        pixel_format=kind, base_address=BASE, banks=banks))


async def begin(dut, gap: float = 0.0, stall: float = 0.0) -> LuminaDriver:
    """Reset, and drive the core."""
    await quiet(dut)
    return LuminaDriver(dut, random.Random(f"{cocotb.RANDOM_SEED}"), gap, stall)


@cocotb.test(timeout_time=5, timeout_unit="ms")
@cocotb.parametrize((("gap", "stall"), [(0.0, 0.0), (0.4, 0.3)]))
async def frames(dut, gap: float, stall: float) -> None:
    """Two frames behind each other, with the first one's cache; with passes and without."""
    driver = await begin(dut, gap, stall)
    assert await driver.read("IDENTITY") == IDENTITY
    first, second = frames_of()
    banks = await driver.check(first, PixelFormat.RGBA8)
    await driver.check(second, PixelFormat.STATE, banks)
    await driver.check(second, PixelFormat.RGBA16, banks, remapping=False)


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def errors_end_a_frame(dut) -> None:
    """What is wrong with a frame is said, and the next one is right."""
    driver = await begin(dut)
    first, second = frames_of()
    banks = lumina.render(first, TESTED_LUMINCORE, BACKGROUND).banks
    image = packed(second, PixelFormat.RGBA8, banks).image
    table, cache_address, _, lists = (address for address, _ in image.segments[1:])
    listed = int(second.lists.ids[0])
    feature = image.segments[3][0] + 32 * listed
    for address, error in (
        (table, FrameError.READ), (lists, FrameError.READ), (feature, FrameError.READ),
        (cache_address, FrameError.READ), (image.frame_address, FrameError.WRITE),
    ):
        memory = packed(second, PixelFormat.RGBA8, banks)
        memory.faults.add(address)
        await driver.start(memory)
        assert await driver.finish() is error
    # The first frame loads no bank: the error is that of saving it.
    memory = packed(first, PixelFormat.RGBA8)
    memory.faults.add(cache_address)
    await driver.start(memory)
    assert await driver.finish() is FrameError.WRITE
    fields = {name: (at, size) for name, at, size in DESCRIPTOR_FIELDS}
    (base, descriptor), *rest = image.segments
    for name, place, value, error in (
        ("list_beats", 0, 1, FrameError.LIST), ("feature_address", 0, 0x10, FrameError.ALIGNMENT),
        ("cache_address", 0, 0x80, FrameError.ALIGNMENT),
    ):
        changed = descriptor.copy()
        at, size = fields[name]
        if name == "list_beats":
            changed[at:at + size] = 0
        changed[at + place] = value
        await driver.start(BankedFrame(
            image=replace(image, segments=((base, changed), *rest))))
        assert await driver.finish() is error
    await driver.check(second, PixelFormat.RGBA8, banks)


@cocotb.test(timeout_time=5, timeout_unit="ms")
@cocotb.parametrize(cycles=[60, 500, 1000, 1500])
async def abort(dut, cycles: int) -> None:
    """A frame that is given up ends, and the next one is right."""
    driver = await begin(dut, 0.1, 0.1)
    first, _ = frames_of()
    await driver.start(packed(first, PixelFormat.RGBA8))
    await ClockCycles(dut.clk, cycles)
    await driver.write("CONTROL", CONTROL_ABORT)
    assert await driver.finish() is FrameError.ABORTED
    await driver.check(first, PixelFormat.RGBA8)

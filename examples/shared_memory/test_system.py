"""The raster core draws a frame while another master works in the same memory."""

import os
import random
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, Event, ReadOnly, RisingEdge
from cocotbext.axi import AxiBus, AxiLiteBus, AxiLiteMaster, AxiMaster, AxiRam

from splatforge.algos import raster
from splatforge.algos.fetch import pack
from splatforge.designs.raster import PRESETS
from splatforge.designs.shell import CONTROL_START, HEAD_REGISTERS, IRQ_DONE, STATUS_DONE
from splatforge.scenes import default_camera, make_object

DESIGN = PRESETS["16-lane"]
OFFSET = {register.name: register.offset for register in HEAD_REGISTERS}
MEMORY_BYTES = 1 << 20
#: The frame is in the lower half of the memory, what the other master works on in the upper.
OTHERS = MEMORY_BYTES // 2


async def count_contention(dut, counted):
    """Cycles in which both masters show an address, of reads and of writes."""
    while True:
        await RisingEdge(dut.clk)
        await ReadOnly()
        for channel in ("ar", "aw"):
            both = (getattr(dut, f"dma_axi_{channel}valid"), getattr(dut, f"core_{channel}valid"))
            counted[channel] += all(signal.value == 1 for signal in both)


async def work(dma, rng, passes, over):
    """Write blocks anywhere in the upper half, of any length, and read them back."""
    while not over.is_set():
        size = rng.randrange(1, 1500)
        first = OTHERS + rng.randrange(OTHERS - size)
        block = rng.randbytes(size)
        await dma.write(first, block)
        read = await dma.read(first, size)
        assert read.data == block, f"{size} bytes at {first:#x} must be what was written"
        passes.append(size)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def two_masters_share_a_memory(dut):
    """The frame is the bit-true model's, and what the other master wrote is what it reads."""
    rng = random.Random(int(os.environ.get("SEED", "1")))
    scene = make_object(1000, 1)  # the smallest, so that a frame is soon over
    lists = raster.prepare(scene, default_camera(scene, 48, 32), DESIGN)
    image = pack(lists, base_address=0)
    expected = raster.render(lists, DESIGN).pixels(image.pixel_format)

    # cocotbext-axi has no types, and what a checker infers of it is wrong.
    registers: Any = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axil"), dut.clk, dut.rst)
    dma: Any = AxiMaster(AxiBus.from_prefix(dut, "dma_axi"), dut.clk, dut.rst)
    memory: Any = AxiRam(AxiBus.from_prefix(dut, "mem_axi"), dut.clk, dut.rst, size=MEMORY_BYTES)
    for bus in (dma, memory, registers):
        for interface in (bus.read_if, bus.write_if):
            interface.log.setLevel("WARNING")
    # A memory that is not always ready, and an answer that takes its time.
    for channel in (memory.read_if.r_channel, memory.write_if.w_channel,
                    memory.read_if.ar_channel, memory.write_if.b_channel):
        channel.set_pause_generator(iter(lambda: rng.random() < 0.2, None))
    for first, content in image.segments:
        assert first + content.nbytes <= OTHERS
        memory.write(first, content.tobytes())
    assert image.frame_address + image.frame_bytes <= OTHERS

    Clock(dut.clk, 10, unit="ns", impl="gpi").start()
    dut.rst.value = 1
    await ClockCycles(dut.clk, 4)
    dut.rst.value = 0

    over, passes, contended = Event(), [], {"ar": 0, "aw": 0}
    cocotb.start_soon(count_contention(dut, contended))
    worker = cocotb.start_soon(work(dma, rng, passes, over))

    async def write(name, value):
        await registers.write(OFFSET[name], value.to_bytes(4, "little"))

    await write("DESCRIPTOR_LOW", image.descriptor_address)
    await write("DESCRIPTOR_HIGH", 0)
    await write("IRQ_ENABLE", IRQ_DONE)
    await write("CONTROL", CONTROL_START)
    await RisingEdge(dut.irq)
    during = len(passes)
    over.set()
    await worker
    status = await registers.read(OFFSET["STATUS"], 4)
    assert int.from_bytes(status.data, "little") == STATUS_DONE

    # Software fetches the frame as it would on a chip: through the other master.
    fetched = await dma.read(image.frame_address, image.frame_bytes)
    pixels = image.pixels(np.frombuffer(bytes(fetched.data), np.uint8))
    assert during >= 3, f"the other master must have worked meanwhile, not {during} times"
    assert contended["ar"] > 0
    assert contended["aw"] > 0
    differing = int((pixels != expected).any(axis=2).sum())
    assert differing == 0, f"{differing} pixels must be those of the bit-true model"
    dut._log.info(f"{expected.shape[1]}x{expected.shape[0]} pixels equal; {during} blocks of the "
                  f"other master meanwhile, {contended} cycles with both at the arbiter")

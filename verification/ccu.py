"""Testbench of the unit that projects Gaussians, amid a memory and what takes its results."""

from functools import cache

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, RisingEdge

from splatforge.algos.ccu import CcuFrame, ccu_fixed, pack_camera, pack_gaussians
from splatforge.hw.ccu import tile_entry_layout
from splatforge.hw.lib.axi import READ_GAUSSIANS
from splatforge.scenes import Camera, Scene
from splatforge.verification.lib.reads import ReadSide
from splatforge.verification.lib.runner import TESTED_GSCORE
from splatforge.verification.lib.stream import port, start

CCU, SHELL = TESTED_GSCORE.ccu, TESTED_GSCORE.shell
#: Above 32 bits; the Gaussians in the middle of a burst, and across a page.
CAMERA, GAUSSIANS = 0x9_8765_4300, 0x12_3456_7FD0
WIDTH, HEIGHT, COUNT = 149, 101, 60


class Frame:
    """Gaussians around what a camera sees, needles among them, and what must come of them.

    Parameters
    ----------
    seed : int
        Draws the Gaussians; its last two bits are the degree of their colours.
    """

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.degree = seed % 4
        depth = rng.uniform(-0.5, 6, COUNT)
        scales = rng.uniform(-5, -1, (COUNT, 3))
        scales[::2, 0] += 3
        scene = Scene(
            means=np.stack([*(rng.uniform(-1, 1, (2, COUNT)) * depth), depth], axis=1).astype(
                np.float32),
            log_scales=scales.astype(np.float32),
            quats=rng.normal(size=(COUNT, 4)).astype(np.float32),
            opacity_logits=rng.uniform(-7, 5, COUNT).astype(np.float32),
            sh=rng.uniform(-1, 2, (COUNT, (self.degree + 1) ** 2, 3)).astype(np.float32),
            antialiased=seed % 2 == 1)
        view = Camera.look_at((0.1, -0.2, -0.4), (0.1, 0.1, 3), (0.1, -1, 0.2), width=WIDTH,
                              height=HEIGHT, fov_x_deg=60)
        records = pack_gaussians(CCU, scene)
        camera = pack_camera(CCU, view, antialiased=scene.antialiased)
        self.expected: CcuFrame = ccu_fixed(CCU, records, camera, self.degree, WIDTH, HEIGHT)
        #: Beats by address, in the order in which they are to be read.
        self.memory = {
            base + 16 * n: int.from_bytes(beat.astype("<u4").tobytes(), "little")
            for base, words in ((CAMERA, camera), (GAUSSIANS, records.reshape(-1)))
            for n, beat in enumerate(words.reshape(-1, 4))}


frame = cache(Frame)


class Surroundings(ReadSide):
    """What stands around the unit.

    Parameters
    ----------
    dut :
        The unit.
    frame : Frame
        What is read and must come.
    rng : numpy.random.Generator
        Draws latencies and pauses.
    gap, stall : float
        Probability that nothing is sent, and that nothing is taken, in a cycle.
    """

    def __init__(
        self, dut, frame: Frame, rng: np.random.Generator, gap: float, stall: float
    ) -> None:
        super().__init__(dut, frame.memory, rng, gap, stall, read_id=READ_GAUSSIANS,
                         outstanding_bursts=CCU.outstanding_bursts)
        self.frame = frame
        self.features: list[int] = []
        #: (tile, entry) of each.
        self.entries: list[tuple[int, int]] = []

    async def take(self) -> None:
        """Take features and entries."""
        dut, layout = self.dut, tile_entry_layout(CCU, SHELL)
        feature, entry = port(dut, "o_feature"), port(dut, "o_entry")
        while True:
            feature_ready, entry_ready = (not self.pause(self.stall) for _ in range(2))
            feature.ready.value, entry.ready.value = int(feature_ready), int(entry_ready)
            await RisingEdge(dut.clk)
            if feature_ready and feature.valid.value == 1:
                self.features.append(int(feature.payload.value))
            if entry_ready and entry.valid.value == 1:
                fields = layout.from_bits(int(entry.payload.value))
                self.entries.append((fields.tile, fields.entry))


async def begin(dut, frame: Frame) -> None:
    """Reset, then start a frame."""
    dut.stop.value = dut.start.value = 0
    dut.width.value, dut.height.value = WIDTH, HEIGHT
    dut.gaussians.value, dut.sh_degree.value = COUNT, frame.degree
    dut.camera_address.value, dut.scene_address.value = CAMERA, GAUSSIANS
    await start(dut, inputs=["i_beat"], outputs=["o_address", "o_feature", "o_entry"])
    dut.start.value = 1
    await RisingEdge(dut.clk)
    dut.start.value = 0


@cocotb.test(timeout_time=1, timeout_unit="ms")
@cocotb.parametrize(seed=[1, 2, 3, 4], gap=[0.0, 0.4], stall=[0.0, 0.7])
async def whole_frames(dut, seed: int, gap: float, stall: float) -> None:
    """Features, entries and reads of a frame, equal to the bit-true model's."""
    here = frame(seed)
    around = Surroundings(
        dut, here, np.random.default_rng([cocotb.RANDOM_SEED, seed]), gap, stall)
    await begin(dut, here)
    for each in (around.serve, around.take):
        cocotb.start_soon(each())
    await ClockCycles(dut.clk, 2)
    while dut.done.value != 1:
        await RisingEdge(dut.clk)
    expected = here.expected
    assert around.features == [sum(int(word) << 64 * n for n, word in enumerate(record))
                               for record in expected.features]
    assert around.entries == list(zip(
        expected.tiles.tolist(), expected.entries.tolist(), strict=True))
    assert around.asked == list(here.memory)
    assert dut.idle.value == 1
    # Some are dropped, and some tiles that are walked are not met.
    assert 0 < len(expected.features) < COUNT
    assert expected.met.sum() < expected.walked.sum()
    await ClockCycles(dut.clk, 50)
    assert (len(around.features), len(around.entries)) == (
        len(expected.features), len(expected.entries))


@cocotb.test(timeout_time=100, timeout_unit="us")
@cocotb.parametrize(cycles=[3, 40, 250])
async def stop(dut, cycles: int) -> None:
    """Nothing is asked for behind ``stop``; what is in flight arrives."""
    here = frame(3)
    around = Surroundings(dut, here, np.random.default_rng(cocotb.RANDOM_SEED), 0.0, 0.0)
    await begin(dut, here)
    for each in (around.serve, around.take):
        cocotb.start_soon(each())
    await ClockCycles(dut.clk, cycles)
    dut.stop.value = 1
    # The burst that waits for the bus still goes.
    await ClockCycles(dut.clk, 2)
    asked = len(around.asked)
    assert 0 < asked < len(here.memory)
    await ClockCycles(dut.clk, 150)
    assert len(around.asked) == asked
    assert dut.idle.value == 1
    assert dut.done.value == 0
    assert not around.beats

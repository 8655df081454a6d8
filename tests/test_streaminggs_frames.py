"""StreamingGS's Verilog on whole frames: every pixel, counter and byte as the models say."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from splatforge.designs.array import ArrayDesign
from splatforge.designs.dram import PRESETS as DRAMS
from splatforge.designs.memory import BankedMemory, MemoryTiming
from splatforge.designs.streaminggs import PRESETS, StreaminggsDesign
from splatforge.scenes import Scene, default_camera, resolve
from splatforge.verification.cosim import cosim
from splatforge.verification.lib.frame import Stall

pytestmark = pytest.mark.rtl

#: Fewer lanes are built sooner.
SMALL = StreaminggsDesign(array=ArrayDesign(lanes=16, group_tiles=2))


def check(result):
    """Pixels and state of the bit-true model, cycles and counters of the cycle model."""
    assert result.pixels_differing == 0
    for frame in result.frames:
        assert frame.state_pixels_differing == 0
        assert frame.rtl_cycles == frame.model_cycles
        assert frame.rtl_counters == frame.model_counters
        assert frame.rtl_dram == frame.model_dram


def few(number):
    """Every so manieth Gaussian of the default scene."""
    scene = resolve("default")
    return scene.select(np.linspace(0, scene.gaussians - 1, number).astype(np.int64))


def opaque(scene: Scene) -> Scene:
    """The same, so that groups end before their voxels do."""
    return replace(scene, opacity_logits=np.full(scene.gaussians, 6, np.float32),
                   log_scales=scene.log_scales + np.float32(2))


def test_frames_of_the_default_scene():
    """Back to back, without a reset between; the picture near that of float64."""
    scene = few(4000)
    result = cosim("streaminggs", SMALL, scene, [
        default_camera(scene, *size) for size in ((64, 48), (75, 33))])
    check(result)
    assert result.psnr_db_vs_float >= 45
    assert result.psnr_db_vs_float_non_background >= 45
    counters = result.frames[0].rtl_counters
    assert counters["gaussians_kept"] <= counters["gaussians_passed"] < counters["gaussians"]


def test_groups_end_early():
    """What is on its way to a group that is over is dropped wherever it is."""
    scene = opaque(few(4000))
    result = cosim("streaminggs", SMALL, scene, [default_camera(scene, 150, 100)],
                   timing=MemoryTiming(latency_cycles=200, read_beats_per_cycle=Fraction(1, 2)))
    check(result)
    assert result.frames[0].rtl_counters["groups_stopped"] > 5


@pytest.mark.matrix
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_stalls_change_no_pixel(seed):
    scene = few(4000)
    result = cosim("streaminggs", SMALL, scene, [default_camera(scene, 64, 48)],
                   stall=Stall.every_channel(0.3, seed))
    assert result.pixels_differing == 0
    assert result.frames[0].state_pixels_differing == 0


@pytest.mark.matrix
@pytest.mark.parametrize("timing", [
    MemoryTiming(latency_cycles=10), MemoryTiming(latency_cycles=400),
    BankedMemory(dram=DRAMS["lpddr4-3200"], clock_hz=1e9)], ids=["near", "far", "lpddr4"])
def test_before_other_memories(timing):
    scene = few(4000)
    check(cosim("streaminggs", SMALL, scene, [default_camera(scene, 64, 48)], timing=timing))


@pytest.mark.matrix
@pytest.mark.parametrize("name", [
    "inari_fox_50k.ply", "plant_114k.splat", "fourth_st_131k_sh3.spz"])
def test_captures(shared_scene, name):
    """The bars of the frame matrix: real captures at 320x240, with 64 lanes."""
    scene = resolve(shared_scene(name))
    result = cosim("streaminggs", PRESETS["default"], scene, [default_camera(scene, 320, 240)])
    check(result)
    assert result.psnr_db_vs_float >= 45
    assert result.psnr_db_vs_float_non_background >= 45

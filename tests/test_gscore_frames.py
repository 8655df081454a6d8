"""GSCore's Verilog on whole frames: every pixel, every counter, every byte as the models say."""

from fractions import Fraction

import numpy as np
import pytest

from splatforge.designs.array import ArrayDesign
from splatforge.designs.dram import PRESETS as DRAMS
from splatforge.designs.gscore import PRESETS, GscoreDesign
from splatforge.designs.memory import BankedMemory, MemoryTiming
from splatforge.scenes import Camera, Scene, default_camera, resolve
from splatforge.verification.cosim import cosim
from splatforge.verification.lib.frame import Stall

pytestmark = pytest.mark.rtl

#: Fewer lanes are built sooner.
SMALL = GscoreDesign(array=ArrayDesign(lanes=16))


def check(result):
    """Pixels and state of the bit-true model, cycles and counters of the cycle model."""
    assert result.pixels_differing == 0
    for frame in result.frames:
        assert frame.state_pixels_differing == 0
        assert frame.rtl_cycles == frame.model_cycles
        assert frame.rtl_counters == frame.model_counters
        assert frame.rtl_dram == frame.model_dram


def test_two_frames_of_the_default_scene():
    """Back to back, without a reset between; the picture near that of GSCore's rules in float64."""
    scene = resolve("default")
    cameras = [default_camera(scene, *size) for size in ((64, 48), (75, 33))]
    result = cosim("gscore", SMALL, scene, cameras)
    check(result)
    assert result.psnr_db_vs_float >= 45
    assert result.psnr_db_vs_float_non_background >= 45
    counters = result.frames[0].rtl_counters
    assert counters["partitions"] > 0
    assert counters["entries_sorted"] == counters["pairs"]


def crowded_corner(opaque, width, height):
    """Opaque Gaussians in the last tile of the first row, few in two tiles of the second row."""
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.uniform(width - 7, width - 3, opaque), np.repeat([168.0, 200.0], 3)])
    y = np.concatenate([rng.uniform(6, 10, opaque), np.full(6, height - 1)])
    depth = 2 + 0.001 * np.arange(len(x))
    scale = np.where(np.arange(len(x)) < opaque, 6, 1) / width * depth
    means = np.stack([(x - width / 2) / width * depth, (y - height / 2) / width * depth, depth], 1)
    return Scene(
        means=means.astype(np.float32),
        log_scales=np.log(np.repeat(scale[:, None], 3, 1)).astype(np.float32),
        quats=np.tile(np.float32([1, 0, 0, 0]), (len(x), 1)),
        opacity_logits=np.full(len(x), 6, np.float32),
        sh=rng.uniform(-1, 1, (len(x), 1, 3)).astype(np.float32))


def test_what_lingers_of_a_tile_is_not_taken_for_one_of_a_later_tile():
    """Chunks of a tile that ended early are read while eleven tiles pass, empty and two rows high.

    Numbers of tiles that are further apart than eight cannot be told older from newer.
    """
    width, height = 256, 18
    view = Camera(width=width, height=height, fx=width, fy=width, cx=width / 2, cy=height / 2,
                  w2c=np.eye(4))
    result = cosim(
        "gscore", SMALL, crowded_corner(600, width, height), [view],
        timing=MemoryTiming(latency_cycles=200, read_beats_per_cycle=Fraction(1, 4)))
    check(result)
    assert result.frames[0].rtl_counters["tiles_stopped"] > 0
    assert result.frames[0].rtl_counters["chunks_sorted"] > 4


@pytest.mark.matrix
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_stalls_change_no_pixel(seed):
    scene = resolve("default")
    result = cosim("gscore", SMALL, scene, [default_camera(scene, 64, 48)],
                   stall=Stall.every_channel(0.3, seed))
    assert result.pixels_differing == 0
    assert result.frames[0].state_pixels_differing == 0


@pytest.mark.matrix
@pytest.mark.parametrize("memory", [
    MemoryTiming(latency_cycles=400), MemoryTiming(latency_cycles=10, outstanding=4),
    BankedMemory(dram=DRAMS["lpddr4-3200"], clock_hz=1e9)], ids=["far", "near", "lpddr4"])
def test_cycles_before_other_memories(memory):
    scene = resolve("default")
    check(cosim("gscore", SMALL, scene, [default_camera(scene, 64, 48)], timing=memory))


@pytest.mark.matrix
@pytest.mark.parametrize("name", ["inari_fox_50k.ply", "fourth_st_131k_sh3.spz"])
def test_real_captures(name, shared_scene):
    """The published configuration: four sorters, eight buckets, 64 lanes."""
    scene = resolve(shared_scene(name))
    result = cosim("gscore", PRESETS["default"], scene, [default_camera(scene, 320, 240)])
    check(result)
    assert result.psnr_db_vs_float >= 45
    assert result.psnr_db_vs_float_non_background >= 45

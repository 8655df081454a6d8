"""StreamingGS's Verilog on whole frames: every pixel, counter and byte as the models say."""

import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from splatforge.algos import reference, streaminggs
from splatforge.algos.quality import psnr_db
from splatforge.designs.array import ArrayDesign
from splatforge.designs.cfu import CfuDesign
from splatforge.designs.codebook import CodebookDesign
from splatforge.designs.dram import PRESETS as DRAMS
from splatforge.designs.ffu import FfuDesign
from splatforge.designs.memory import BankedMemory, MemoryTiming
from splatforge.designs.shell import FrameError
from splatforge.designs.streaminggs import PRESETS, PartitionDesign, StreaminggsDesign
from splatforge.designs.vsort import VsortDesign
from splatforge.designs.vsu import VsuDesign
from splatforge.scenes import Scene, default_camera, resolve
from splatforge.verification.cosim import cosim
from splatforge.verification.lib.frame import Stall, build_frame, run_frames

sys.path.insert(0, str(Path(__file__).parent))
from gaussians import camera

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
    for (width, height), frame in zip(((64, 48), (75, 33)), result.frames, strict=True):
        # The order alone costs more than all that is rounded.
        view = default_camera(scene, width, height)
        picture = streaminggs.render(streaminggs.prepare(scene, view, SMALL), SMALL).image
        assert frame.psnr_db_vs_reference == pytest.approx(
            psnr_db(picture, reference.render(scene, view).image), abs=0.1)
        assert frame.psnr_db_vs_reference < frame.psnr_db_vs_float - 5
    figures = result.to_json()
    assert figures["psnr_db_vs_reference"] == min(
        frame.psnr_db_vs_reference for frame in result.frames) < figures["psnr_db_vs_float"]
    counters = result.frames[0].rtl_counters
    assert counters["gaussians_kept"] <= counters["gaussians_passed"] < counters["gaussians"]


def test_groups_end_early():
    """What is on its way to a group that is over is dropped wherever it is."""
    scene = opaque(few(4000))
    result = cosim("streaminggs", SMALL, scene, [default_camera(scene, 150, 100)],
                   timing=MemoryTiming(latency_cycles=200, read_beats_per_cycle=Fraction(1, 2)))
    check(result)
    assert result.frames[0].rtl_counters["groups_stopped"] > 5


def test_what_is_on_its_way_when_a_frame_ends():
    """The last rows are written sooner than what is left of the last group is dropped."""
    scene = opaque(opaque(few(1000)))
    view = default_camera(scene, 48, 17)
    check(cosim("streaminggs", SMALL, scene, [replace(view, fx=3 * view.fx, fy=3 * view.fy)],
                timing=MemoryTiming(latency_cycles=60)))


def test_codebooks_stay_on_chip():
    """Frames behind the first do not load them again, and could not: they are not in memory."""
    scene = few(1000)
    result = cosim("streaminggs", SMALL, scene, [
        default_camera(scene, *size) for size in ((40, 30), (33, 47))], keep_codebooks=True)
    check(result)
    loaded = [frame.rtl_counters["codebook_bytes"] for frame in result.frames]
    assert loaded == [16 * SMALL.ffu.codebooks.beats, 0]


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


def scattered(means, log_scale, logit=2.0):
    """Gaussians of about one scale in front of, around or behind a camera at the origin."""
    means = np.asarray(means, np.float32).reshape(-1, 3)
    count = len(means)
    rng = np.random.default_rng(1)
    return Scene(
        means=means, log_scales=rng.normal(log_scale, 0.3, (count, 3)).astype(np.float32),
        quats=rng.normal(size=(count, 4)).astype(np.float32),
        opacity_logits=np.full(count, logit, np.float32),
        sh=rng.uniform(-1, 1, (count, 1, 3)).astype(np.float32))


def hostile():
    """Scenes that no capture is like."""
    rng = np.random.default_rng(3)
    box = rng.uniform(-1, 1, (3000, 3))
    return {
        "empty": scattered([], -3),
        "one Gaussian": scattered([0.1, 0.05, 2], -3),
        "all behind": scattered(box[:300] - [0, 0, 4], -3),
        "one point": scattered(np.tile([0.1, 0.05, 2.0], (700, 1)), -2.5, -2),
        "one voxel": scattered([0, 0, 3] + 1e-4 * box[:700], -2.5, -2),
        "huge across the near plane": scattered(box[:400], 1, -3),
        "around the camera": scattered(3 * box, -2.5),
        "seven octaves": scattered(box[:500] * 10.0 ** rng.uniform(-3, 4, (500, 1)), 0),
        "a plane": scattered([0, 0, 2] + [2, 2, 0] * box[:800], -3),
        "points": scattered(box[:500] + np.array([0, 0, 2]), -20),
    }


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=[] if number < 3 else pytest.mark.matrix)
    for number, name in enumerate(hostile())])
def test_hostile_scenes(name):
    result = cosim("streaminggs", SMALL, hostile()[name], [camera(64, 48), camera(33, 70)],
                   background=(0.5, 0.25, 1.0))
    check(result)


@pytest.mark.matrix
@pytest.mark.parametrize("size", [
    (1, 1), (16, 16), (32, 32), (17, 1), (1, 33), (65, 31), (333, 217)])
def test_sizes_around_a_tile_and_a_group(size):
    scene = few(1000)
    check(cosim("streaminggs", SMALL, scene, [default_camera(scene, *size)]))


def point(side=2, lanes=16, *, partition=None, cfu=None, ffu=None, vsort=None, vsu=None):
    """A design with groups of `side` tiles a side, and parameters of units that differ."""
    return StreaminggsDesign(
        partition=PartitionDesign(**partition or {}),
        cfu=CfuDesign(group_tiles=side, **cfu or {}), ffu=FfuDesign(group_tiles=side, **ffu or {}),
        vsort=VsortDesign(**vsort or {}), vsu=VsuDesign(group_tiles=side, **vsu or {}),
        array=ArrayDesign(lanes=lanes, group_tiles=side))


#: What is published; the most of everything, with as many voxels as the preset for cities and
#: without coarse filters; the least.
POINTS = {
    "groups of a tile": replace(
        PRESETS["published"], array=ArrayDesign(lanes=16, group_tiles=1)),
    "groups of sixteen": point(
        4, cfu={"units": 4, "filters": False},
        ffu={"interval": 8, "codebooks": CodebookDesign(sh_degree=0)},
        vsu={"voxels": 65536, "scan_width": 16}),
    "small": point(
        lanes=32, partition={"capacity": 32}, vsort={
            "capacity": 32, "width": 8, "units": 3, "depth_bits": 12, "waiting": 4},
        cfu={"units": 1, "interval": 3, "voxels_ahead": 4, "buffer_beats": 64,
             "burst_beats": 8, "outstanding_bursts": 2, "queue": 32},
        ffu={"interval": 2, "depth_bits": 12, "waiting": 16, "buffer_beats": 16, "burst_beats": 1,
             "outstanding_bursts": 3, "codebook_bursts": 1,
             "codebooks": CodebookDesign(
                 rotation=(6, 5, 4), ratios=(5, 3), opacity=(5,), color=(8,), sh1=(7,),
                 sh_degree=1)},
        vsu={"voxels": 1024, "scan_width": 1, "interval": 2, "buffer_beats": 16, "burst_beats": 4,
             "outstanding_bursts": 1, "waiting_rows": 2}),
}


@pytest.mark.matrix
@pytest.mark.parametrize("name", POINTS)
def test_other_parameters(name):
    """Frames that are no multiples of a group, and groups that end before their voxels."""
    design = POINTS[name]
    scene = few(1500)
    check(cosim("streaminggs", design, scene, [
        default_camera(scene, *size) for size in ((75, 53), (40, 90))]))
    dense = opaque(few(2000))
    view = default_camera(dense, 100, 70)
    result = cosim("streaminggs", design, dense, [replace(view, fx=3 * view.fx, fy=3 * view.fy)],
                   timing=MemoryTiming(latency_cycles=200, read_beats_per_cycle=Fraction(1, 2)))
    check(result)
    assert result.frames[0].rtl_counters["groups_stopped"] > 0


@pytest.mark.matrix
def test_too_many_voxels_end_a_frame():
    """An error in the model, one in the RTL; the next frame is right."""
    design = POINTS["small"]
    scene, crowd = few(300), few(12000)
    frame, many = (
        streaminggs.prepare(each, default_camera(each, 64, 48), design) for each in (scene, crowd))
    with pytest.raises(ValueError, match=r"^Visible voxels must be at most 1024, not \d+$"):
        streaminggs.render(many, design)
    bad, good = run_frames(build_frame(design).path, [
        streaminggs.pack(each, design) for each in (many, frame)])
    assert bad.frame_error is FrameError.WORKSPACE
    assert good.frame_error is FrameError.NONE
    want = streaminggs.render(frame, design).pixels(good.image.pixel_format)
    np.testing.assert_array_equal(good.pixels, want)


@pytest.mark.matrix
@pytest.mark.parametrize("name", [
    "inari_fox_50k.ply", "plant_114k.splat", "fourth_st_131k_sh3.spz"])
def test_captures(shared_scene, name):
    """The bars of the frame matrix: real captures at 320x240, with 64 lanes.

    All units are at work at once: the frame takes little more than the fine filter alone.
    """
    scene = resolve(shared_scene(name))
    result = cosim("streaminggs", PRESETS["default"], scene, [default_camera(scene, 320, 240)])
    check(result)
    busiest = result.to_json()["busiest"]
    assert busiest["name"] == "ffu"
    assert busiest["ratio"] <= 1.15
    assert result.psnr_db_vs_float >= 45
    assert result.psnr_db_vs_float_non_background >= 45

"""Lumina on captures and real head motion, and its Verilog on whole sequences."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from splatforge.algos import lumina, reference
from splatforge.algos.lumina import prepare_sequence, render, render_sequence_float
from splatforge.algos.lumina.frame import look_up
from splatforge.algos.quality import psnr_db
from splatforge.algos.radiance import Banks
from splatforge.designs.dram import PRESETS as DRAMS
from splatforge.designs.lumina import LuminaDesign
from splatforge.designs.memory import BankedMemory, MemoryTiming
from splatforge.designs.nru import NruDesign
from splatforge.designs.resolve import PixelFormat
from splatforge.designs.shell import FrameError
from splatforge.scenes import default_camera, follow, load, load_eyenavgs, resolve
from splatforge.sim.lumina import simulate
from splatforge.verification.cosim import cosim
from splatforge.verification.lib.frame import FrameJob, Stall, build_frame, run_frames

FRAMES = 13


def mean_psnr(values):
    return -10 * np.log10(np.mean([10 ** (-0.1 * value) for value in values]))


@pytest.mark.matrix
@pytest.mark.parametrize("capture", ["inari_fox_50k.ply", "fourth_st_131k_sh3.spz"])
def test_a_head_before_a_capture(capture, shared_scene, shared_cameras):
    scene = load(shared_scene(capture))
    trace = load_eyenavgs(shared_cameras("eyenavgs_user101_truck.csv.gz")).cameras
    cameras = follow(default_camera(scene, 160, 120), trace[200:200 + FRAMES])
    design = LuminaDesign()
    fixed, same_hits, cached, shared, lists = [], [], [], [], []
    images = float_banks = None
    frames = zip(prepare_sequence(scene, cameras, design), cameras,
                 render_sequence_float(scene, cameras, design), strict=True)
    for frame, camera, exact in frames:
        # What the cache holds goes through memory from frame to frame.
        banks = None if images is None else Banks.from_images(design.radiance, images)
        got = render(frame, design, banks=banks)
        assert got.banks is not None
        images = got.banks.images(design.radiance)
        lists.append(frame.lists)
        assert psnr_db(got.uncached.image, exact.uncached) > 60
        nru = got.workload.nru
        same = look_up(exact, design.radiance, nru.ids, nru.complete >= 0, float_banks)
        float_banks = same.banks
        same_hits.append(psnr_db(got.image, same.image))
        fixed.append(psnr_db(got.image, exact.image))
        shared.append(psnr_db(exact.uncached, reference.render(scene, camera).image))
        cached.append(got.workload.hits / got.workload.lookups)
    assert sum(one is not other for one, other in pairwise(lists)) == 2
    # Two caches on their own: where rounding decides whether an alpha reaches 1/255 a record is
    # another, is found elsewhere or left by another pixel, and one record's pixels differ by some
    # 36 dB. With the same hits arithmetic alone is left.
    assert mean_psnr(fixed) > 45
    assert min(same_hits) > 60
    assert mean_psnr(shared) > 45
    assert np.mean(cached[1:]) > 0.2
    assert cached[0] < min(cached[1:])


def check(result):
    """Pixels, state and banks of the bit-true model, cycles and counters of the cycle model."""
    result.check()
    assert result.pixels_differing == 0
    for frame in result.frames:
        assert frame.state_pixels_differing in (0, None)
        assert frame.cache_bytes_differing in (0, None)
        assert frame.rtl_cycles == frame.model_cycles
        assert frame.rtl_counters == frame.model_counters
        assert frame.rtl_dram == frame.model_dram


def few(number, *, opaque=False):
    """Every so manieth Gaussian of the default scene; opaque ones end pixels early."""
    scene = resolve("default")
    scene = scene.select(np.linspace(0, scene.gaussians - 1, number).astype(np.int64))
    if not opaque:
        return scene
    return replace(scene, opacity_logits=np.full(number, 6, np.float32),
                   log_scales=scene.log_scales + np.float32(2))


@pytest.mark.rtl
@pytest.mark.matrix
@pytest.mark.parametrize(("opaque", "size", "changes", "timing"), [
    (False, (75, 33), {}, MemoryTiming()),
    (True, (50, 35), {}, MemoryTiming(latency_cycles=7, outstanding=2)),
    (True, (50, 35), {"remapping": False}, MemoryTiming(latency_cycles=200)),
    (True, (50, 35), {"caching": False}, MemoryTiming()),
    (True, (41, 70), {}, BankedMemory(dram=DRAMS["lpddr4-3200"], clock_hz=1e9)),
    (True, (50, 35), {"nru": NruDesign(unit_pixels=2)}, MemoryTiming()),
    (True, (50, 35), {"nru": NruDesign(unit_pixels=8)}, MemoryTiming()),
])
def test_sequences_under_verilator(opaque, size, changes, timing):
    scene = few(2000, opaque=opaque)
    cameras = [default_camera(scene, *size)] * 2
    result = cosim("lumina", replace(LuminaDesign(), **changes), scene, cameras, timing=timing)
    check(result)
    if result.design.caching:
        first, second = (frame.rtl_counters["hits"] for frame in result.frames)
        assert first < second


@pytest.mark.matrix
def test_passes_take_time_alone():
    """Pixels of an opaque scene end early: the few that live on take the rest of long lists."""
    design, scene = LuminaDesign(), few(2000, opaque=True)
    frame = lumina.prepare(scene, default_camera(scene, 50, 35), design)
    workload = lumina.render(frame, design).workload
    passing, lockstep = (
        simulate(frame, workload, replace(design, remapping=on)) for on in (True, False))
    assert passing.actions["remapped"] > 1000
    assert lockstep.actions["remapped"] == 0
    assert passing.actions["lockstep"] < lockstep.actions["lockstep"]
    assert passing.counters["cycles"] != lockstep.counters["cycles"]
    for name in ("lookups", "hits", "bypassed", "cache_written_bytes", "pixel_bytes"):
        assert passing.counters[name] == lockstep.counters[name]


@pytest.mark.rtl
@pytest.mark.matrix
@pytest.mark.parametrize("capture", ["inari_fox_50k.ply", "fourth_st_131k_sh3.spz"])
def test_a_head_before_a_capture_under_verilator(capture, shared_scene, shared_cameras):
    scene = load(shared_scene(capture))
    trace = load_eyenavgs(shared_cameras("eyenavgs_user101_truck.csv.gz")).cameras
    cameras = follow(default_camera(scene, 160, 120), trace[200:200 + FRAMES])
    result = cosim("lumina", LuminaDesign(), scene, cameras, state=False)
    check(result)
    assert result.psnr_db_vs_float_same_hits > 45
    assert result.psnr_db_vs_float < result.psnr_db_vs_float_same_hits


@pytest.mark.rtl
@pytest.mark.matrix
def test_stalls_change_no_pixel_and_no_bank():
    design, scene = LuminaDesign(), few(600)
    frame = lumina.prepare(scene, default_camera(scene, 40, 34), design)
    expected = lumina.render(frame, design)
    image = lumina.pack(frame, design)
    job = FrameJob(image=image, keep_workspace=True)
    (run,) = run_frames(build_frame(design).path, [job], stall=Stall.every_channel(0.3, 5))
    assert run.frame_error is FrameError.NONE
    assert (run.pixels == expected.pixels(PixelFormat.RGBA8)).all()
    assert expected.banks is not None
    assert run.workspace is not None
    assert run.workspace.tobytes() == expected.banks.images(design.radiance).tobytes()

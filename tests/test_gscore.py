import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from splatforge.algos import reference
from splatforge.algos.gscore import pack, prepare, render, render_float, workspace_pages
from splatforge.algos.lists import ListPages
from splatforge.algos.quality import psnr_db
from splatforge.designs.ccu import CAMERA_WORDS, CcuDesign, gaussian_beats
from splatforge.designs.entry import EntryFormat
from splatforge.designs.feature import FeatureFormat
from splatforge.designs.fixed import Fixed
from splatforge.designs.gscore import DESCRIPTOR_FIELDS, PRESETS, GscoreDesign
from splatforge.designs.lists import ListsDesign
from splatforge.designs.qsu import QsuDesign
from splatforge.designs.resolve import PixelFormat
from splatforge.scenes import default_camera, load

sys.path.insert(0, str(Path(__file__).parent))
from gaussians import camera, random_scene

DESIGN = GscoreDesign()
VIEW = camera(149, 101)


def draw(scene, view=VIEW, design=DESIGN, background=(0.0, 0.0, 0.0)):
    return render(prepare(scene, view, design), design, background)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("needles", [False, True])
def test_frame_is_near_the_float_one(preset, needles):
    scene = random_scene(400, 1, needles=needles, sh_degree=2)
    design, background = PRESETS[preset], (0.25, 0.5, 1.0)
    got = draw(scene, design=design, background=background)
    want = render_float(scene, VIEW, design, background)
    assert psnr_db(got.image, want.image) >= 50
    t = design.array.blend.transmittance.to_float(got.state[..., 3])
    assert np.abs(t - want.transmittance).mean() < 2e-3
    pixels = got.pixels(PixelFormat.RGBA8)[..., :3] / 255
    assert np.abs(pixels - np.clip(got.image, 0, 1)).max() <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize("needles", [False, True])
def test_float_rules_without_techniques_are_the_reference(needles, antialiased):
    scene = random_scene(400, 2, needles=needles, sh_degree=1, antialiased=antialiased)
    want = reference.render(scene, VIEW, background=(0.1, 0.2, 0.3))
    plain = render_float(scene, VIEW, PRESETS["aabb-whole-tiles"], (0.1, 0.2, 0.3))
    assert psnr_db(plain.image, want.image) >= 80
    # Where an alpha is all but 1/255 the reference's float32 may decide otherwise.
    assert np.abs(plain.transmittance - want.transmittance).mean() < 1e-4
    # What the techniques leave out is beyond three standard deviations.
    assert psnr_db(render_float(scene, VIEW, DESIGN, (0.1, 0.2, 0.3)).image, want.image) >= 40


def test_techniques_save_work():
    scene = random_scene(400, 3, needles=True)
    done = {name: draw(scene, design=design).workload for name, design in PRESETS.items()}
    pairs = {name: len(work.entries) for name, work in done.items()}
    assert pairs["default"] == pairs["whole-tiles"] < 0.8 * pairs["aabb"]
    assert pairs["aabb"] == pairs["aabb-whole-tiles"]
    evaluations = {name: work.array.evaluations.sum() for name, work in done.items()}
    assert evaluations["default"] < 0.8 * evaluations["aabb"] < 0.8 * evaluations[
        "aabb-whole-tiles"]
    assert evaluations["default"] < 0.8 * evaluations["whole-tiles"]


def test_workload_is_what_happened():
    scene = replace(random_scene(3000, 4), opacity_logits=np.full(3000, 4, np.float32))
    work = draw(scene).workload
    entry = DESIGN.ccu.entry
    starts = work.array.starts
    assert starts[-1] == len(work.entries) == work.array.pairs.sum()
    for tile in range(len(starts) - 1):
        of_tile = work.entries[starts[tile]:starts[tile + 1]]
        assert (np.diff(entry.key(of_tile)) > 0).all()
        emitted = work.ccu.entries[work.ccu.tiles == tile]
        np.testing.assert_array_equal(np.sort(of_tile), np.sort(emitted))
    # Features come in order of visibility, so that an entry's is that of its Gaussian.
    assert (np.diff(entry.decode(work.ccu.entries)["feature"]) >= 0).all()
    assert (work.array.gaussians, work.array.gaussians_visible) == (3000, len(work.ccu.ids))
    # Opaque Gaussians end tiles early.
    stopped = work.array.records_reached < np.diff(starts)
    assert 0 < stopped.sum() < len(stopped)


def test_saturated_colors_are_counted():
    scene = random_scene(50, 5)
    work = draw(scene).workload
    assert work.array.gaussians_saturated == 0
    sh = scene.sh.copy()
    sh[work.ccu.ids[3]] = 30
    assert draw(replace(scene, sh=sh)).workload.array.gaussians_saturated == 1


def test_empty_view_is_the_background():
    scene = random_scene(20, 6)
    behind = replace(VIEW, w2c=np.diag([-1.0, 1.0, -1.0, 1.0]))
    for empty, view in ((scene, behind), (scene.select(slice(0, 0)), VIEW)):
        frame = draw(empty, view, background=(1.0, 0.5, 0.0))
        assert len(frame.workload.entries) == 0
        assert (frame.pixels(PixelFormat.RGBA8) == [255, 128, 0, 255]).all()
        image = render_float(empty, view, DESIGN, (1.0, 0.5, 0.0)).image
        assert (image == np.float32([1, 0.5, 0])).all()


@pytest.mark.parametrize("kind", list(PixelFormat), ids=lambda kind: kind.name)
@pytest.mark.parametrize("sh_degree", [0, 3])
def test_packed_frame(kind, sh_degree):
    scene = random_scene(90, 7, sh_degree=sh_degree, antialiased=True)
    frame = prepare(scene, VIEW, DESIGN)
    image = pack(frame, DESIGN, background=(1.0, 0.5, 0.0), pixel_format=kind, pages=77)
    (at, descriptor), (camera_at, words), (scene_at, gaussians) = image.segments
    value = {name: int.from_bytes(descriptor[offset:offset + size].tobytes(), "little")
             for name, offset, size in DESCRIPTOR_FIELDS}
    assert at == image.descriptor_address == 0x1000_0000
    assert value == {
        "version": 1, "width": 149, "height": 101, "pixel_format": int(kind),
        "background_red": 256, "background_green": 128, "background_blue": 0,
        "scene_address": scene_at, "workspace_address": image.workspace_address,
        "frame_address": image.frame_address, "pitch_bytes": image.pitch_bytes, "gaussians": 90,
        "camera_address": camera_at, "workspace_pages": 77, "sh_degree": sh_degree}
    assert (image.width, image.height, image.core) == (149, 101, "gscore")
    assert image.pitch_bytes == 160 * kind.size_bytes
    np.testing.assert_array_equal(words.view("<u4"), frame.camera)
    assert len(words) == 4 * len(CAMERA_WORDS)
    assert len(gaussians) == 90 * 16 * gaussian_beats(sh_degree)
    np.testing.assert_array_equal(gaussians.view("<u4").reshape(90, -1), frame.gaussians)
    # Addresses ascend, nothing overlaps, and what bursts read starts where none crosses 4 KiB.
    ends = [at + 64, camera_at + len(words), scene_at + len(gaussians),
            image.workspace_address + 77 * 1024, image.frame_address + image.frame_bytes]
    begins = [at, camera_at, scene_at, image.workspace_address, image.frame_address]
    assert all(end <= begin for end, begin in zip(ends, begins[1:], strict=False))
    assert all(begin % 4096 == 0 for begin in begins)
    assert image.workspace_bytes == 77 * 1024


def partition(pages, design, entries, low, high, level):
    """Write the buckets of a list, and of those that are too long, as the hardware does."""
    if len(entries) <= design.qsu.chunk:
        return
    keys = design.ccu.entry.key(entries)
    bucket = (keys - low) >> design.qsu.shift(high - low)
    first = design.lists.tiles + level * design.qsu.buckets
    pages.clear(first, design.qsu.buckets)
    pages.append(first + bucket, entries)
    for number in range(design.qsu.buckets):
        part = bucket == number
        if part.any():
            partition(pages, design, entries[part], int(keys[part].min()), int(keys[part].max()),
                      level + 1)


def test_workspace_holds_the_lists():
    scene = random_scene(3000, 8, needles=True)
    small = GscoreDesign(lists=ListsDesign(page_bytes=64), qsu=QsuDesign(chunk=16))
    short = GscoreDesign(qsu=QsuDesign(chunk=16, buckets=2))
    for design, least in ((DESIGN, 1), (small, 20), (short, 20)):
        frame = prepare(scene, VIEW, design)
        ccu = frame.project(design)
        first = -(-3000 * 32 // design.lists.page_bytes)
        pages = ListPages(design.lists, first)
        pages.append(ccu.tiles, ccu.entries)
        assert not pages.overflow
        counts = np.bincount(ccu.tiles)
        enough = workspace_pages(design, 3000, counts)
        assert pack(frame, design).workspace_bytes == enough * design.lists.page_bytes
        keys = design.ccu.entry.key(ccu.entries)
        pages.mark()
        partitioned = 0
        for tile in range(len(counts)):
            before = pages.free
            partition(pages, design, ccu.entries[ccu.tiles == tile], int(keys.min()),
                      int(keys.max()), 0)
            partitioned += pages.free > before
            assert pages.free <= enough
            pages.release()
        assert partitioned >= least
    # Lists of less than a chunk are not partitioned; of no Gaussian there are no pages.
    few = prepare(random_scene(5, 9), VIEW, DESIGN)
    assert pack(few, DESIGN).workspace_bytes <= 1024 * (1 + 2 * 70)
    none = prepare(scene.select(slice(0, 0)), VIEW, DESIGN)
    assert pack(none, DESIGN).workspace_bytes == 0
    assert len(pack(none, DESIGN).segments) == 2


@pytest.mark.parametrize(("change", "message"), [
    ({"base_address": 0x1000_0100}, "Base address must be a multiple of 4096, not 0x10000100"),
    ({"background": (0.0, 1.5, 0.0)}, r"Background must be in [0, 1], not (0.0, 1.5, 0.0)"),
])
def test_wrong_packing_is_refused(change, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        pack(prepare(random_scene(3, 1), VIEW, DESIGN), DESIGN, **change)


@pytest.mark.parametrize(("design", "view", "message"), [
    (replace(DESIGN, shell=replace(DESIGN.shell, max_side=64)), camera(65, 8),
     "Frame must be 1x1 to 64x64 pixels, not 65x8"),
    (replace(DESIGN, lists=ListsDesign(tiles=128, slots=128)), camera(200, 170),
     "Frame must have at most 128 tiles, not 143"),
])
def test_frame_must_fit_the_design(design, view, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        prepare(random_scene(3, 1), view, design)


@pytest.mark.parametrize(("change", "message"), [
    ({"ccu": CcuDesign(entry=EntryFormat(feature_bits=20))},
     "Lists must hold the entries of the other units"),
    ({"ccu": CcuDesign(feature=FeatureFormat(mean=Fixed(int_bits=15, frac_bits=11, signed=True)))},
     "Features must be read as they are written"),
])
def test_wrong_designs_are_refused(change, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        GscoreDesign(**change)


CAPTURES = (
    "inari_fox_50k.ply", "fourth_st_131k_sh3.spz", "plant_114k.splat", "playbot_lod3_31k_sh2.sog",
    "tarot_115k.splat", "statue_massa_59k.sog", "statue_angel_71k.sog", "statue_trumpet_89k.sog")


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=[pytest.mark.matrix] if place > 1 else [])
    for place, name in enumerate(CAPTURES)])
def test_quality_on_captures(shared_scene, name):
    """At least 45 dB against the float run, overall and where the scene is."""
    scene = load(shared_scene(name))
    view = default_camera(scene, 222, 167)
    got, want = draw(scene, view), render_float(scene, view, DESIGN)
    drawn = want.transmittance < 1 - 1 / 255
    assert drawn.mean() > 0.05
    for image in (got.pixels(PixelFormat.RGBA8)[..., :3] / 255, got.image):
        assert psnr_db(image.astype(np.float32), want.image) >= 45
        assert psnr_db(image.astype(np.float32), want.image, drawn) >= 45


@pytest.mark.rtl
def test_verilog_against_fixed(run_testbench):
    run_testbench("gscore", seed=2)

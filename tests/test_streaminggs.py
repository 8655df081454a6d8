import re
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from splatforge.algos.quality import psnr_db
from splatforge.algos.streaminggs.frame import render_float
from splatforge.algos.streaminggs.order import OrderWeights, voxel_ranks
from splatforge.algos.streaminggs.render import lay_out, pack, prepare, render, store
from splatforge.algos.vsort import vsort_fixed
from splatforge.designs.array import ArrayDesign
from splatforge.designs.cfu import CfuDesign
from splatforge.designs.codebook import CodebookDesign
from splatforge.designs.ffu import FfuDesign
from splatforge.designs.resolve import PixelFormat
from splatforge.designs.streaminggs import DESCRIPTOR_FIELDS, PartitionDesign, StreaminggsDesign
from splatforge.designs.voxel import STREAM_CAMERA_WORDS
from splatforge.designs.vsort import VsortDesign
from splatforge.designs.vsu import VsuDesign
from splatforge.scenes import default_camera, load
from splatforge.sim.streaminggs import busiest, busy_cycles, simulate

sys.path.insert(0, str(Path(__file__).parent))
from gaussians import camera, random_scene

#: Small codebooks: quantization is no error here, since both sides see what is stored.
BOOKS = CodebookDesign(rotation=(7, 5), ratios=(6,), opacity=(6,), color=(7, 5), sh1=(5, 4),
                       sh2=(5, 4), sh3=(5, 4))
PARTITION = PartitionDesign(capacity=32)


def design_of(group_tiles=2, **cfu):
    return StreaminggsDesign(
        partition=PARTITION, cfu=CfuDesign(group_tiles=group_tiles, **cfu),
        ffu=FfuDesign(codebooks=BOOKS, group_tiles=group_tiles),
        vsu=VsuDesign(group_tiles=group_tiles), array=ArrayDesign(group_tiles=group_tiles))


DESIGN = design_of()
WHOLE = replace(DESIGN, vsu=replace(DESIGN.vsu, prefixes=False))
VIEW = camera(149, 101)


@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize("needles", [False, True])
@pytest.mark.parametrize("near", [0.2, 2.5])
def test_frame_is_near_the_float_one(needles, antialiased, near):
    scene = random_scene(1200, 1, needles=needles, sh_degree=2, antialiased=antialiased)
    view, background = replace(VIEW, near=near), (0.25, 0.5, 1.0)
    stored = store(scene, DESIGN)
    got = render(prepare(stored, view, DESIGN), DESIGN, background)
    want = render_float(stored.cut, view, scene=stored.decode(), background=background)
    assert psnr_db(got.image, want.image) >= 50
    t = DESIGN.array.blend.transmittance.to_float(got.state[..., 3])
    assert np.abs(t - want.transmittance).mean() < 2e-3
    # Both filters pass what the float ones do, or little more.
    work, exact = got.workload, want.work
    assert exact.coarse.sum() <= 1.002 * len(work.visit) <= 1.2 * exact.coarse.sum()
    assert exact.fine.sum() <= 1.002 * work.kept.sum() <= 1.2 * exact.fine.sum()
    assert work.array.gaussians == 1200
    assert work.array.gaussians_visible == len(np.unique(work.fine.position_x[work.kept]
                                                         + 1j * work.fine.position_y[work.kept]))


def test_groups_and_filters_change_no_pixel():
    """Filters leave out only what reaches no pixel, so that groups of any size give one picture."""
    scene = random_scene(1500, 2, sh_degree=1)
    stored = store(scene, DESIGN)
    want = render(prepare(stored, VIEW, DESIGN), DESIGN).state
    frames = [render(prepare(stored, VIEW, design), design)
              for design in (design_of(1), design_of(4), design_of(filters=False), WHOLE)]
    for frame in frames:
        np.testing.assert_array_equal(frame.state, want)
    loaded = [int(frame.workload.cfu.starts[-1]) for frame in frames]
    passed = [len(frame.workload.visit) for frame in frames]
    assert loaded[1] < loaded[0]
    assert passed[2] == loaded[2] > passed[0]


@pytest.mark.parametrize("needles", [False, True])
@pytest.mark.parametrize("group_tiles", [1, 2, 4])
def test_nothing_that_passes_is_beyond_its_prefix(group_tiles, needles):
    """What both filters pass of whole voxels they pass of prefixes, in the same order."""
    design = design_of(group_tiles)
    scene = random_scene(1500, 9, needles=needles)
    # Of every size.
    scene = replace(scene, log_scales=scene.log_scales - np.float32(3) * (
        np.arange(1500) % 4 > 0)[:, None].astype(np.float32))
    frame = prepare(scene, VIEW, design)
    less, all_of_it = (render(frame, replace(design, vsu=replace(
        design.vsu, prefixes=prefixes))).workload for prefixes in (True, False))
    np.testing.assert_array_equal(less.vsu.places, all_of_it.vsu.places)
    visits = less.visits
    assert (visits.prefixes <= visits.counts).all()
    assert ((visits.prefixes > 0) == (visits.counts > 0)).all()
    assert len(less.cfu.passed) < 0.95 * len(all_of_it.cfu.passed)
    np.testing.assert_array_equal(all_of_it.visits.prefixes, visits.counts)
    for name in ("visit", "number", "kept", "order", "records"):
        np.testing.assert_array_equal(getattr(less, name), getattr(all_of_it, name))


def test_workload_is_what_happened():
    scene = random_scene(900, 3)
    stored = store(scene, DESIGN)
    work = render(prepare(stored, VIEW, DESIGN), DESIGN).workload
    visits, cut = work.visits, stored.cut
    # Groups in raster order, each with its voxels from front to back and an end.
    ranks = voxel_ranks(cut, VIEW)
    groups = visits.rows * work.vsu.columns + visits.columns
    assert (np.diff(groups) >= 0).all()
    ends = np.flatnonzero(visits.counts == 0)
    np.testing.assert_array_equal(groups[ends], np.arange(work.vsu.columns * work.vsu.rows))
    np.testing.assert_array_equal(np.diff(np.append(-1, ends)) - 1, np.diff(work.vsu.starts))
    for group in range(len(ends)):
        assert (np.diff(ranks[work.vsu.voxels_of(group)]) > 0).all()
    # Survivors in order of visit and number; sorted within a visit as the sorters do.
    assert (np.diff(work.visit * 1000 + work.number) > 0).all()
    for visit in np.unique(work.visit[work.kept])[::7]:
        of = np.flatnonzero(work.kept & (work.visit == visit))
        mine = work.order[work.visit[work.order] == visit]
        np.testing.assert_array_equal(mine, of[vsort_fixed(DESIGN.vsort, work.fine.depth[of])])
    assert (np.diff(work.visit[work.order]) >= 0).all()
    # A splat for every tile that a feature meets, in every tile's list in that order.
    spans = work.spans[work.order]
    met = (spans[:, 2] - spans[:, 0] + 1) * (spans[:, 3] - spans[:, 1] + 1)
    np.testing.assert_array_equal(np.bincount(work.splat_places, minlength=len(met)), met)
    starts = work.array.starts
    for tile in range(len(starts) - 1):
        assert (np.diff(work.splat_places[starts[tile]:starts[tile + 1]]) > 0).all()
    assert starts[-1] == len(work.records) == len(work.splat_places)


def test_weights_are_those_that_are_given():
    scene = random_scene(900, 4)
    stored = store(scene, DESIGN)
    frames = [prepare(stored, VIEW, DESIGN, weights=weights)
              for weights in (None, OrderWeights())]
    word = STREAM_CAMERA_WORDS.index("weights")
    assert frames[1].camera[word] == 1 | 1 << 8 | 1 << 16
    assert frames[0].camera[word] != frames[1].camera[word]
    for frame, weights in zip(frames, (None, OrderWeights()), strict=True):
        ids = render(frame, DESIGN).workload.vsu.ids
        assert (np.diff(voxel_ranks(stored.cut, VIEW, weights)[ids]) > 0).all()


def test_empty_view_is_the_background():
    scene = random_scene(20, 5)
    behind = replace(VIEW, w2c=np.diag([-1.0, 1.0, -1.0, 1.0]))
    for empty, view in ((scene, behind), (scene.select(slice(0, 0)), VIEW)):
        frame = render(prepare(empty, view, DESIGN), DESIGN, (1.0, 0.5, 0.0))
        assert len(frame.workload.records) == 0
        assert (frame.pixels(PixelFormat.RGBA8) == [255, 128, 0, 255]).all()


@pytest.mark.parametrize("kind", list(PixelFormat), ids=lambda kind: kind.name)
def test_packed_frame(kind):
    scene = random_scene(90, 6, sh_degree=3, antialiased=True)
    frame = prepare(scene, VIEW, DESIGN)
    image = pack(frame, DESIGN, background=(1.0, 0.5, 0.0), pixel_format=kind)
    (at, descriptor), *parts = image.segments
    value = {name: int.from_bytes(descriptor[offset:offset + size].tobytes(), "little")
             for name, offset, size in DESCRIPTOR_FIELDS}
    assert at == image.descriptor_address == 0x1000_0000
    stored = frame.stored
    for (address, data), (name, words) in zip(parts, (
        ("camera_address", frame.camera), ("voxel_address", stored.table),
        ("codebook_address", stored.codebook_beats), ("scene_address", stored.beats),
    ), strict=True):
        assert value[name] == address
        assert address % 4096 == 0
        assert data.tobytes() == np.ascontiguousarray(words).tobytes()
    assert value["voxels"] == stored.cut.voxels
    assert (value["width"], value["height"]) == (149, 101)
    assert value["pixel_format"] == kind
    assert value["pitch_bytes"] == image.pitch_bytes == 160 * kind.size_bytes
    assert value["frame_address"] == image.frame_address
    spans = sorted([(a, a + len(data)) for a, data in image.segments]
                   + [(image.frame_address, image.frame_address + image.frame_bytes)])
    assert all(one[1] <= two[0] for one, two in pairwise(spans))


def test_codebooks_may_stay_on_chip():
    frame = prepare(random_scene(90, 7, sh_degree=1), VIEW, DESIGN)
    loading, keeping = (pack(frame, DESIGN, load_codebooks=load) for load in (True, False))
    at, size = next((offset, size) for name, offset, size in DESCRIPTOR_FIELDS
                    if name == "codebook_address")
    assert loading.segments[0][1][at:at + size].any()
    assert not keeping.segments[0][1][at:at + size].any()
    addresses = [[address for address, _ in image.segments] for image in (loading, keeping)]
    assert set(addresses[0]) - set(addresses[1]) == {lay_out(frame).codebook_address}
    workload = render(frame, DESIGN).workload
    runs = [simulate(frame, workload, DESIGN, load_codebooks=load) for load in (True, False)]
    assert [run.counters["codebook_bytes"] for run in runs] == [
        16 * BOOKS.loaded_beats(frame.stored.sh_degree), 0]
    assert runs[1].cycles < runs[0].cycles
    for name in ("voxel_bytes", "coarse_bytes", "fine_bytes", "splats"):
        assert runs[0].counters[name] == runs[1].counters[name]


def test_wrong_frames_are_named():
    scene = random_scene(3000, 7)
    with pytest.raises(ValueError, match=r"^Frame must be 1x1 to 8192x8192 pixels, not 9000x1$"):
        prepare(scene, replace(VIEW, width=9000, height=1), StreaminggsDesign())
    frame = prepare(scene, VIEW, DESIGN)
    with pytest.raises(ValueError, match=r"^Base address must be a multiple of 4096, not 0x10$"):
        pack(frame, DESIGN, base_address=16)
    with pytest.raises(ValueError, match=r"^Background must be in \[0, 1\], not \(2, 0, 0\)$"):
        pack(frame, DESIGN, background=(2, 0, 0))
    few = replace(DESIGN, vsu=VsuDesign(voxels=64))
    with pytest.raises(ValueError, match=r"^Visible voxels must be at most 64, not \d+$"):
        render(frame, few)


@pytest.mark.parametrize(("change", "message"), [
    ({"cfu": CfuDesign(group_tiles=1)},
     "Tiles of a group's side must be the same of all units, not {1, 2}"),
    ({"partition": PartitionDesign(capacity=257)},
     "Voxels must have at most 256 Gaussians, which a sorter holds, not 257"),
    ({"partition": PartitionDesign(capacity=257), "vsort": VsortDesign(capacity=1024, width=32)},
     "Voxels must have at most 256 Gaussians, which tokens tell apart, not 257"),
])
def test_wrong_designs_are_named(change, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        StreaminggsDesign(**change)


@pytest.mark.parametrize("name", ["inari_fox_50k.ply", pytest.param(
    "plant_114k.splat", marks=pytest.mark.matrix), pytest.param(
    "fourth_st_131k_sh3.spz", marks=pytest.mark.matrix)])
def test_real_scene(name, shared_scene):
    scene = load(shared_scene(name))
    design = StreaminggsDesign()
    view = default_camera(scene, 160, 120)
    stored = store(scene, design)
    frame = prepare(stored, view, design)
    got = render(frame, design)
    want = render_float(stored.cut, view, scene=stored.decode())
    assert psnr_db(got.image, want.image) >= 55
    assert psnr_db(got.image, want.image, want.transmittance < 0.999) >= 48
    # All units are at work at once.
    waited_for = busiest(design, simulate(frame, got.workload, design).counters)
    assert waited_for["name"] == "ffu"
    assert waited_for["ratio"] <= 1.15


@pytest.mark.parametrize(("change", "name"), [
    ({"ffu": replace(DESIGN.ffu, interval=32)}, "ffu"),
    ({"cfu": replace(DESIGN.cfu, units=1), "ffu": replace(DESIGN.ffu, interval=2)}, "cfu"),
    ({"vsu": replace(DESIGN.vsu, interval=64, scan_width=1), "ffu": replace(DESIGN.ffu, interval=2),
      "cfu": replace(DESIGN.cfu, interval=4)}, "vsu"),
    ({"cfu": replace(DESIGN.cfu, interval=64), "ffu": replace(DESIGN.ffu, interval=2)}, "cfu")])
def test_no_unit_is_busy_for_longer_than_the_frame(change, name):
    """And the one that is made slow is the one that the frame waits for."""
    design = replace(DESIGN, **change)
    frame = prepare(random_scene(600, 8), VIEW, design)
    counters = simulate(frame, render(frame, design).workload, design).counters
    busy = busy_cycles(design, counters)
    assert 0 < min(busy.values()) <= max(busy.values()) < counters["cycles"]
    assert busiest(design, counters) == {
        "name": name, "busy_cycles": busy[name], "ratio": counters["cycles"] / busy[name]}


@pytest.mark.rtl
def test_verilog_against_fixed(run_testbench):
    run_testbench("streaminggs", seed=11)

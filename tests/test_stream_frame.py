import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from splatforge.algos import reference
from splatforge.algos.gradient import trace
from splatforge.algos.quality import psnr_db
from splatforge.algos.streaminggs import frame as frame_model
from splatforge.algos.streaminggs.frame import render_float
from splatforge.algos.streaminggs.order import (
    OrderWeights,
    group_ranges,
    reach_rectangles,
    streaming_order,
    voxel_lists,
    voxel_ranks,
)
from splatforge.algos.streaminggs.partition import partition
from splatforge.algos.streaminggs.render import store
from splatforge.designs.streaminggs import PartitionDesign, StreaminggsDesign
from splatforge.scenes import default_camera, load, resolve

sys.path.insert(0, str(Path(__file__).parent))
from gaussians import camera, random_scene
from test_order import drawn

VIEW = camera(149, 101)


#: What ``bench/streaminggs_quality.py`` printed.
QUALITY = Path(__file__).parents[1] / "bench" / "streaminggs_quality.md"


def original(cut):
    return cut.scene.select(cut.ids)


def test_picture_is_the_references_in_streaming_order():
    scene = random_scene(900, 1, sh_degree=2, antialiased=True)
    cut = partition(scene, PartitionDesign(capacity=8))
    got = render_float(cut, VIEW, scene=original(cut), background=(0.2, 0.5, 1))
    want = trace(scene, VIEW, order=streaming_order(cut), background=(0.2, 0.5, 1))
    np.testing.assert_array_equal(got.image, want.image)
    np.testing.assert_array_equal(got.transmittance, want.transmittance)
    # One voxel is in order; what is stored is nearly what was.
    whole = partition(replace(scene, means=scene.means + 10),
                      PartitionDesign(voxel_size=100, capacity=1000))
    moved = replace(VIEW, w2c=np.array([[1, 0, 0, -10], [0, 1, 0, -10], [0, 0, 1, -10],
                                        [0, 0, 0, 1.0]]))
    assert whole.voxels == 1
    frame = render_float(whole, moved, background=(0.2, 0.5, 1))
    ref = reference.render(scene, VIEW, background=(0.2, 0.5, 1))
    assert psnr_db(frame.image, ref.image) > 60
    assert frame.work.crossing == 0
    assert 0 < frame.work.drawn < 900


@pytest.mark.parametrize("group_tiles", [1, 2, 4])
@pytest.mark.parametrize("opaque", [False, True])
def test_work_is_what_happened(group_tiles, opaque):
    """Counts against a plain walk over groups; where a group ends, against its pixels."""
    count = 1500
    scene = random_scene(count, 2)
    if opaque:
        scene = replace(scene, opacity_logits=np.full(count, 4, np.float32),
                        log_scales=np.full((count, 3), -1.5, np.float32))
    cut = partition(scene, PartitionDesign(capacity=16))
    stored = original(cut)
    frame = render_float(cut, VIEW, group_tiles=group_tiles, scene=stored)
    work = frame.work
    listed = voxel_lists(cut, VIEW, group_tiles)
    np.testing.assert_array_equal(work.listed, listed.sum(axis=1))
    assert ((work.fine <= work.coarse) & (work.coarse <= work.loaded)).all()
    assert 0 < work.removed < 1
    # Where all are of one size, there is nothing to leave out.
    assert (work.looked.sum() < 0.95 * work.loaded.sum()) == (not opaque)
    order = np.argsort(voxel_ranks(cut, VIEW))
    beyond = [group_ranges(reach_rectangles(cut, VIEW, octaves), VIEW.width, VIEW.height,
                           16 * group_tiles) for octaves in cut.octaves]
    passing = frame_model._coarse_groups(cut, VIEW, 16 * group_tiles)
    ended = 0
    for group in range(len(work.listed)):
        voxels = order[listed[group, order]]
        streamed = voxels[:work.voxels[group]]
        counts = cut.counts_of_voxels[streamed]
        assert work.loaded[group] == counts.sum()
        # Of each the shortest prefix beyond which nothing reaches the group.
        prefixes = counts
        needed = np.zeros(len(streamed), bool)
        for parts, ranges in zip((2, 4, 8), beyond, strict=True):
            x0, y0, x1, y1 = ranges[streamed].T
            row, column = divmod(group, work.groups_x)
            needed |= (x0 <= column) & (column < x1) & (y0 <= row) & (row < y1)
            prefixes = np.where(needed, prefixes, 4 * -(-counts // (4 * parts)))
        assert work.looked[group] == prefixes.sum()
        assert work.coarse_beats[group] == ((prefixes + 1) // 2).sum()
        # Nothing that the coarse filter passes is beyond them.
        x0, y0, x1, y1 = passing[np.isin(cut.voxel_of, streamed)].T
        assert work.coarse[group] == (
            (x0 <= column) & (column < x1) & (y0 <= row) & (row < y1)).sum()
        if len(streamed) == len(voxels) or ended == 3:
            continue
        # What is behind changes no pixel; the voxel that is the last does.
        ended += 1
        row, column = divmod(group, work.groups_x)
        part = (slice(16 * group_tiles * row, 16 * group_tiles * (row + 1)),
                slice(16 * group_tiles * column, 16 * group_tiles * (column + 1)))
        for kept, same in ((streamed, True), (streamed[:-1], False)):
            logits = np.where(
                np.isin(cut.voxel_of, kept), stored.opacity_logits, np.float32(-30))
            less = render_float(cut, VIEW, scene=replace(stored, opacity_logits=logits))
            assert np.array_equal(less.image[part], frame.image[part]) == same
    assert (ended == 3) == opaque
    if not opaque:
        pairs = drawn(stored, VIEW, group_tiles)
        exact = np.bincount(pairs[:, 0], minlength=len(work.listed))
        assert (exact <= work.fine).all()
        assert work.fine.sum() < 1.2 * exact.sum()
        assert work.drawn >= len(np.unique(pairs[:, 1]))
        assert work.crossing == crossing(cut, stored)


def crossing(cut, stored):
    """Gaussians that come behind a deeper one in a tile, list by list."""
    traced = trace(stored, VIEW)
    ranks = voxel_ranks(cut, VIEW)[cut.voxel_of[traced.ids]]
    late = set()
    for tile in range(traced.lists.tiles):
        part = slice(traced.lists.starts[tile], traced.lists.starts[tile + 1])
        entries = traced.lists.entries[part]
        entries = entries[np.argsort(ranks[entries], kind="stable")]
        depth = traced.depth[entries]
        late |= set(entries[depth < np.maximum.accumulate(depth)].tolist())
    return len(late)


def test_coarse_filter_passes_no_more_than_it_must():
    """Of small balls it passes what their circles meet, and little else."""
    scene = random_scene(1000, 3)
    scene = replace(scene, opacity_logits=np.full(1000, 4, np.float32),
                    log_scales=np.full((1000, 3), -5, np.float32))
    cut = partition(scene, PartitionDesign(capacity=16))
    work = render_float(cut, VIEW, scene=original(cut)).work
    assert work.coarse.sum() < 1.1 * work.fine.sum()
    assert work.loaded.sum() > 2 * work.coarse.sum()


def test_l1_weights_and_wrong_scene():
    cut = partition(random_scene(500, 4), PartitionDesign(capacity=4))
    by_depth = render_float(cut, VIEW)
    by_steps = render_float(cut, VIEW, weights=OrderWeights())
    assert 20 < psnr_db(by_steps.image, by_depth.image) < 80
    message = "Scene must have the 500 Gaussians of the voxels, not 3"
    with pytest.raises(ValueError, match=f"^{message}$"):
        render_float(cut, VIEW, scene=random_scene(3, 1))


def test_nothing_to_see():
    cut = partition(random_scene(20, 5).select(slice(0, 0)), PartitionDesign())
    frame = render_float(cut, VIEW, background=(1, 0, 0.5))
    assert (frame.image == np.float32([1, 0, 0.5])).all()
    assert frame.work.loaded.sum() == frame.work.drawn == 0
    behind = replace(VIEW, w2c=np.diag([-1.0, 1.0, -1.0, 1.0]))
    cut = partition(random_scene(20, 5), PartitionDesign(capacity=1))
    work = render_float(cut, behind).work
    assert work.fine.sum() == work.listed.sum() == 0


@pytest.mark.parametrize("name", ["inari_fox_50k.ply", "fourth_st_131k_sh3.spz"])
def test_real_scene(name, shared_scene):
    scene = load(shared_scene(name))
    view = default_camera(scene, 160, 120)
    cut = partition(scene, PartitionDesign())
    frame = render_float(cut, view)
    assert psnr_db(frame.image, reference.render(scene, view).image) > 35
    # Most of what is loaded is removed again (accelerators.md, 1.2: 76.3 %).
    assert 0.5 < frame.work.removed < 0.99


def test_what_order_and_codebooks_cost_is_what_is_written():
    """Each alone and both, against the reference, on the scene that ships."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")]
            for line in QUALITY.read_text("utf-8").splitlines() if line.startswith("|")]
    written = dict(zip(rows[0], next(row for row in rows if row[0] == "default"), strict=True))
    scene = resolve("default")
    view = default_camera(scene, 320, 240)
    exact = reference.render(scene, view).image
    stored = store(scene, StreaminggsDesign())
    cut, decoded = stored.cut, stored.decode()
    pictures = {
        "order": render_float(cut, view, scene=scene.select(cut.ids)),
        "codebooks": reference.render(decoded, view),
        "both": render_float(cut, view, scene=decoded)}
    for name, picture in pictures.items():
        assert psnr_db(picture.image, exact) == pytest.approx(float(written[name]), abs=0.06)
    assert len(rows) == 2 + 5

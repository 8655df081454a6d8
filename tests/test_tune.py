"""StreamingGS's fine-tuning: the paper's loss by hand, and what it does to a small scene."""

import inspect
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from splatforge.algos.fine_tune import FineTuning, compare, fine_tune
from splatforge.algos.gradient import gradients, trace
from splatforge.algos.streaminggs.order import streaming_order
from splatforge.algos.streaminggs.partition import partition
from splatforge.algos.streaminggs.tune import BOUNDARY_WEIGHT, cross_boundary_loss, tune
from splatforge.cli import scenes_tune
from splatforge.designs.streaminggs import PartitionDesign
from splatforge.scenes import load, surround

sys.path.insert(0, str(Path(__file__).parent))
import naive


@pytest.fixture(scope="module")
def small():
    scene = naive.random_scene(5, 400, spread=0.7)
    jitter = np.random.default_rng(0).uniform(0, 0.1, (400, 3))
    scene = replace(scene, log_scales=np.clip(scene.log_scales, -4, -1.5) + jitter)
    return scene, partition(scene, PartitionDesign(voxel_size=0.5, capacity=64))


def late_by_hand(drawn):
    """Ids that are blended somewhere, and those for which T_i = 1 in a pixel, pixel by pixel."""
    splats = {splat.id: splat for splat in naive.project(drawn.scene, drawn.camera)}
    tiles_x = drawn.lists.tiles_x
    rendered, late = set(), set()
    for y in range(drawn.camera.height):
        for x in range(drawn.camera.width):
            listed = list(drawn.ids[naive.entries_of(drawn.lists, y // 16 * tiles_x + x // 16)])
            t, deepest = 1.0, 0.0
            for i in listed:
                splat = splats[i]
                dx, dy = splat.center - (x + 0.5, y + 0.5)
                a, b, c = splat.conic
                alpha = splat.opacity * np.exp(-0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy)
                alpha = min(0.99, alpha)
                if alpha < 1 / 255:
                    continue
                if t * (1 - alpha) < 1e-4:
                    break
                t *= 1 - alpha
                rendered.add(i)
                if splat.depth < deepest:
                    late.add(i)
                deepest = max(deepest, splat.depth)
    return rendered, late


def test_the_loss_is_the_papers(small):
    scene, cut = small
    camera = surround(scene, 48, 40, frames=3).cameras[1]
    drawn = trace(scene, camera, order=streaming_order(cut))
    by = gradients(drawn, np.zeros(drawn.image.shape))
    rendered, late = late_by_hand(drawn)
    assert set(by.ids[by.pixels > 0]) == rendered
    assert set(by.ids[by.late > 0]) == late
    assert 0 < len(late) < len(rendered)
    scales = np.exp(scene.log_scales.astype(np.float64)).max(axis=1)
    expected = 0.3 * sum(scales[i] / 0.5 for i in late) / len(rendered)
    loss, slopes = cross_boundary_loss(0.3, 0.5)(scene.log_scales[by.ids], by)
    assert loss == pytest.approx(expected, rel=1e-6)
    # By differences: the decisions T_i stay.
    for v in range(0, len(by), 7):
        for axis in range(3):
            moved = scene.log_scales[by.ids].astype(np.float64)
            sums = []
            for sign in (1, -1):
                moved[v, axis] += sign * 1e-4
                sums.append(cross_boundary_loss(0.3, 0.5)(moved, by)[0])
                moved[v, axis] -= sign * 1e-4
            assert slopes[v, axis] == pytest.approx((sums[0] - sums[1]) / 2e-4, abs=1e-9, rel=1e-3)


def test_by_depth_nothing_is_late(small):
    scene, _ = small
    drawn = trace(scene, surround(scene, 48, 40, frames=1).cameras[0])
    by = gradients(drawn, np.zeros(drawn.image.shape))
    loss, slopes = cross_boundary_loss(1.0, 1.0)(scene.log_scales[by.ids], by)
    assert loss == 0
    assert not slopes.any()


def test_boundary_weight_trades_scales_for_order(small):
    scene, cut = small
    cameras = surround(scene, 48, 40, frames=48).cameras
    settings = FineTuning(
        iterations=240, scale_rate=0.01, rotation_rate=0.002, opacity_rate=0.05, sh_rate=0.005)
    order = streaming_order(cut)
    before = compare(scene, scene, cameras[1::2], order=order)
    plain = tune(scene, cut, cameras[::2], settings, boundary_weight=0)
    bound = tune(scene, cut, cameras[::2], settings, boundary_weight=1)
    by_plain, by_bound = (
        compare(tuned.scene, scene, cameras[1::2], order=order) for tuned in (plain, bound))
    assert by_plain.overall_psnr_db > before.overall_psnr_db + 0.7
    assert by_bound.late_pixel_share < by_plain.late_pixel_share - 0.01
    assert bound.scene.log_scales.max(axis=1).mean() < plain.scene.log_scales.max(axis=1).mean()
    assert bound.losses[:, 1].all()
    assert not plain.losses[:, 1].any()
    np.testing.assert_array_equal(bound.scene.means, scene.means)
    same = fine_tune(scene, cameras[::2], settings, order=order)
    np.testing.assert_array_equal(plain.scene.sh, same.scene.sh)


def test_the_checkpoint_knows_the_voxels_and_the_weight(small, tmp_path):
    scene, cut = small
    cameras, path = surround(scene, 48, 40, frames=2).cameras, tmp_path / "state.npz"
    settings = FineTuning(iterations=2)
    tune(scene, cut, cameras, settings, checkpoint=path)
    other = partition(scene, PartitionDesign(voxel_size=0.25))
    with pytest.raises(ValueError, match="checkpoint is of another scene"):
        tune(scene, other, cameras, settings, checkpoint=path)
    with pytest.raises(ValueError, match="checkpoint is of another scene"):
        tune(scene, cut, cameras, settings, boundary_weight=0.2, checkpoint=path)


def test_the_command_line_has_the_same_weight():
    assert inspect.signature(scenes_tune).parameters["boundary_weight"].default == BOUNDARY_WEIGHT


def test_wrong_input():
    with pytest.raises(ValueError, match=r"^Boundary weight must be finite and not negative, "):
        cross_boundary_loss(-1, 1)
    with pytest.raises(ValueError, match=r"^Voxel size must be positive and finite, not 0$"):
        cross_boundary_loss(1, 0)


@pytest.mark.matrix
def test_fox_is_43_db_from_itself(shared_scene):
    """A capture in 1,000 occupied cells, on held-out views: the bar of a tenth of a dB."""
    scene = load(shared_scene("inari_fox_50k.ply"))
    cut = partition(scene, PartitionDesign())
    assert cut.occupied_cells >= 1000
    cameras = surround(scene, 320, 240, frames=60).cameras
    tuned = tune(scene, cut, cameras[::2], FineTuning(iterations=600))
    found = compare(tuned.scene, scene, cameras[1::2], order=streaming_order(cut))
    assert found.overall_psnr_db >= 43

"""Self-distillation: it recovers what was disturbed, stops and goes on, repeats itself."""

import sys
from dataclasses import replace
from pathlib import Path

import numba
import numpy as np
import pytest

from splatforge.algos import fine_tune as algorithm
from splatforge.algos.fine_tune import FineTuning, compare, fine_tune, oversize_loss
from splatforge.algos.gradient import gradients, trace
from splatforge.algos.photometric import PhotometricLoss
from splatforge.algos.reference import render
from splatforge.scenes import Camera

sys.path.insert(0, str(Path(__file__).parent))
import naive

PARAMETERS = ("log_scales", "quats", "opacity_logits", "sh")


def around(count, width=48, height=40):
    """Views of the origin from all sides, every one from another height."""
    angle = 2 * np.pi * np.arange(count) / count
    eyes = 4 * np.stack([np.cos(angle), 0.3 * np.sin(2.3 * angle), np.sin(angle)], axis=1)
    return [Camera.look_at(eye, (0, 0, 0), (0, -1, 0), width=width, height=height, fov_x_deg=55)
            for eye in eyes]


def scene_and_cubes(gaussians=400, degree=1):
    """A scene, and the order that draws it cube by cube, by the cubes' distance from the eye."""
    scene = naive.random_scene(5, gaussians, degree=degree, spread=0.7)
    scene = replace(scene, log_scales=np.clip(scene.log_scales, -4, -1.5))
    cubes = np.floor(scene.means / 0.5).astype(int)

    def order(camera, ids, depth, lists):
        eye = np.floor(camera.position / 0.5).astype(int)
        away = np.abs(cubes[ids] - eye).sum(axis=1)
        rank = np.empty(len(ids), int)
        rank[np.lexsort((depth, *cubes[ids].T, away))] = np.arange(len(ids))
        tile = np.repeat(np.arange(lists.tiles), np.diff(lists.starts))
        return replace(lists, entries=lists.entries[np.lexsort((rank[lists.entries], tile))])

    return scene, order


def assert_equal_scenes(ours, theirs):
    for name in ("means", *PARAMETERS):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)


def test_held_out_views_come_nearer():
    scene, order = scene_and_cubes()
    views = around(24)
    before = compare(scene, scene, views[1::2], order=order)
    tuned = fine_tune(scene, views[::2], FineTuning(iterations=240), order=order)
    after = compare(tuned.scene, scene, views[1::2], order=order)
    assert after.overall_psnr_db > before.overall_psnr_db + 1.2
    assert after.worst_psnr_db > before.worst_psnr_db
    np.testing.assert_array_equal(tuned.scene.means, scene.means)
    assert tuned.losses.shape == (240, 2)
    assert tuned.losses[-24:, 0].mean() < 0.8 * tuned.losses[:12, 0].mean()
    # By depth nothing is late, and the scene is itself.
    same = compare(scene, scene, views[:2])
    assert same.overall_psnr_db == same.worst_psnr_db == np.inf
    assert same.late_pixels == same.late_gaussians == 0
    assert 0 < before.late_pixel_share < before.late_share < 1


def test_a_step_is_what_its_parts_give():
    """One step by hand: target, loss, gradient, Adam's first step of one rate against the slope."""
    scene, order = scene_and_cubes(60)
    scene = replace(
        scene, quats=scene.quats / np.linalg.norm(scene.quats, axis=1, keepdims=True))
    view = around(1)[0]
    settings = FineTuning(
        iterations=1, scale_rate=0.01, rotation_rate=0.02, opacity_rate=0.03, sh_rate=0.04,
        background=(0.1, 0.2, 0.3), dssim_weight=0.5)
    tuned = fine_tune(scene, [view], settings, order=order).scene
    drawn = trace(scene, view, background=settings.background, order=order)
    target = render(scene, view, background=settings.background).image
    loss, by_image = PhotometricLoss(target, dssim_weight=0.5)(drawn.image)
    by = gradients(drawn, by_image)
    losses = fine_tune(scene, [view], settings, order=order).losses
    assert losses[0, 0] == pytest.approx(loss, rel=1e-4)
    rates = {"log_scales": 0.01, "quats": 0.02, "opacity_logits": 0.03, "sh": 0.04}
    for name in PARAMETERS:
        before = getattr(scene, name).astype(np.float64)
        move = np.zeros_like(before)
        slope = getattr(by, name)
        move[by.ids] = -rates[name] * np.sign(slope)
        if name == "sh":
            move[:, 1:] /= 20
        felt = np.zeros(before.shape, bool)
        felt[by.ids] = np.abs(slope) > 1e-9
        ours = (getattr(tuned, name) - before)[felt]
        np.testing.assert_allclose(ours, move[felt], atol=3e-6, err_msg=name)
        assert felt.any()


def test_stopped_and_resumed_is_uninterrupted(tmp_path):
    scene, order = scene_and_cubes(120)
    views, settings = around(5), FineTuning(iterations=23)
    whole = fine_tune(scene, views, settings, order=order)
    path = tmp_path / "state.npz"

    class Stop(Exception):
        pass

    def stop(done, total):
        assert total == 23
        if done == 14:
            raise Stop

    with pytest.raises(Stop):
        fine_tune(scene, views, settings, order=order, checkpoint=path, checkpoint_every=5,
                  progress=stop)
    assert sorted(tmp_path.iterdir()) == [path]
    seen = []
    resumed = fine_tune(scene, views, settings, order=order, checkpoint=path, checkpoint_every=5,
                        progress=lambda done, total: seen.append(done))
    assert seen == list(range(11, 24))
    assert_equal_scenes(resumed.scene, whole.scene)
    np.testing.assert_array_equal(resumed.losses, whole.losses)
    # All is done: the file has it.
    again = fine_tune(scene, views, settings, order=order, checkpoint=path, progress=seen.append)
    assert_equal_scenes(again.scene, whole.scene)


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    scene, _ = scene_and_cubes(40)
    views, path = around(2), tmp_path / "state.npz"
    settings = FineTuning(iterations=3)
    fine_tune(scene, views, settings, checkpoint=path, identity="one")
    moved = replace(scene, opacity_logits=scene.opacity_logits + 1)
    for arguments, keywords in (
        ((moved, views, settings), {"identity": "one"}),
        ((scene, views[:1], settings), {"identity": "one"}),
        ((scene, views, FineTuning(iterations=4)), {"identity": "one"}),
        ((scene, views, settings), {"identity": "another"}),
    ):
        with pytest.raises(ValueError, match="checkpoint is of another scene, other views or"):
            fine_tune(*arguments, checkpoint=path, **keywords)
    whole = path.read_bytes()
    for damaged in (b"", whole[:100], whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="checkpoint is damaged"):
            fine_tune(scene, views, settings, checkpoint=path, identity="one")
    with pytest.raises(ValueError, match="cannot be written"):
        fine_tune(scene, views, settings, checkpoint=tmp_path / "state.npz" / "in a file")


def test_threads_and_seed():
    scene, order = scene_and_cubes(120)
    views, results = around(5), []
    before = numba.get_num_threads()
    try:
        for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
            numba.set_num_threads(threads)
            results.append(fine_tune(scene, views, FineTuning(iterations=8), order=order))
    finally:
        numba.set_num_threads(before)
    assert_equal_scenes(results[0].scene, results[1].scene)
    other = fine_tune(scene, views, FineTuning(iterations=8, seed=1), order=order)
    assert np.abs(other.scene.sh - results[0].scene.sh).max() > 0
    # Every view once a round.
    order_of_views = algorithm._view_order(5, FineTuning(iterations=23))
    assert len(order_of_views) >= 23
    for first in range(0, 25, 5):
        assert sorted(order_of_views[first : first + 5]) == [0, 1, 2, 3, 4]


def test_scale_loss_shrinks_what_it_names():
    scene, order = scene_and_cubes(150)

    def large(log_scales, by):
        return float(np.exp(log_scales).sum()), np.exp(log_scales)

    settings = FineTuning(iterations=30, scale_rate=0.02)
    usual = fine_tune(scene, around(5), settings, order=order)
    shrunk = fine_tune(scene, around(5), settings, order=order, scale_loss=large)
    assert shrunk.scene.log_scales.mean() < usual.scene.log_scales.mean() - 0.2
    assert (shrunk.losses[:, 1] > 0).all()
    assert not usual.losses[:, 1].any()


def test_oversize_loss_is_the_mean_excess():
    scene, order = scene_and_cubes(150)
    drawn = trace(scene, around(1)[0], order=order)
    by = gradients(drawn, np.zeros(drawn.image.shape))
    log_scales = scene.log_scales[by.ids]
    largest = np.exp(log_scales.astype(np.float64)).max(axis=1)[by.pixels > 0]
    excess = np.maximum(largest / 0.1 - 1, 0)
    assert 0 < np.count_nonzero(excess) < len(excess)
    loss, slopes = oversize_loss(0.5, 0.1)(log_scales, by)
    assert loss == pytest.approx(0.5 * excess.mean())
    moved = [oversize_loss(0.5, 0.1)(log_scales + sign * np.float32(1e-3), by)[0]
             for sign in (1, -1)]
    assert slopes.sum() == pytest.approx((moved[0] - moved[1]) / 2e-3, rel=1e-2)
    assert (np.count_nonzero(slopes, axis=1) <= 1).all()
    with pytest.raises(ValueError, match=r"^Scale weight must be finite and not negative, not -1$"):
        oversize_loss(-1, 1)
    with pytest.raises(ValueError, match=r"^Scale threshold must be positive and finite, not 0$"):
        oversize_loss(1, 0)


def test_straight_through_a_quantization():
    """Opacities kept in steps of 0.5: the loss sees the steps, and the rest makes up for them."""
    scene, _ = scene_and_cubes(150)

    def coarse(kept):
        return replace(kept, opacity_logits=np.round(kept.opacity_logits * 2) / 2)

    views = around(12)
    tuned = fine_tune(scene, views, FineTuning(iterations=240, opacity_rate=0), quantize=coarse)
    before = compare(coarse(scene), scene, views).overall_psnr_db
    assert compare(coarse(tuned.scene), scene, views).overall_psnr_db > before + 1


def test_quantized_now_and_then(tmp_path):
    """What a quantization changed stays added until the next one, over an interruption, too."""
    scene, _ = scene_and_cubes(60)
    views, settings = around(3), FineTuning(iterations=11)
    asked = []

    def coarse(kept):
        asked.append(kept)
        return replace(kept, means=np.round(kept.means * 64) / 64,
                       opacity_logits=np.round(kept.opacity_logits * 2) / 2)

    whole = fine_tune(scene, views, settings, quantize=coarse, quantize_every=4)
    assert len(asked) == 3
    np.testing.assert_array_equal(whole.scene.means, scene.means)
    every = fine_tune(scene, views, settings, quantize=coarse)
    assert len(asked) == 3 + 11
    assert every.losses[0, 0] == whole.losses[0, 0]
    assert every.losses[3, 0] != whole.losses[3, 0]
    class Stop(Exception):
        pass

    def stop(done, total):
        if done == 7:
            raise Stop

    path, options = tmp_path / "state.npz", {"quantize": coarse, "quantize_every": 4}
    with pytest.raises(Stop):
        fine_tune(scene, views, settings, checkpoint=path, checkpoint_every=6, progress=stop,
                  **options)
    resumed = fine_tune(scene, views, settings, checkpoint=path, checkpoint_every=6, **options)
    assert_equal_scenes(resumed.scene, whole.scene)
    np.testing.assert_array_equal(resumed.losses, whole.losses)
    with pytest.raises(ValueError, match="checkpoint is of another scene"):
        fine_tune(scene, views, settings, checkpoint=path, quantize=coarse, quantize_every=5)


def test_views_that_see_nothing():
    scene, _ = scene_and_cubes(30)
    away = Camera.look_at((9, 9, 9), (20, 20, 20), (0, -1, 0), width=20, height=20)
    tuned = fine_tune(scene, [away], FineTuning(iterations=2))
    assert not tuned.losses.any()
    np.testing.assert_array_equal(tuned.scene.sh, scene.sh)
    np.testing.assert_array_equal(tuned.scene.log_scales, scene.log_scales)


def test_wrong_input():
    scene, _ = scene_and_cubes(10)
    with pytest.raises(ValueError, match=r"^Training views must be at least one, not none$"):
        fine_tune(scene, [])
    with pytest.raises(ValueError, match=r"^Views to compare must be at least one, not none$"):
        compare(scene, scene, [])
    with pytest.raises(ValueError, match=r"^Steps between checkpoints must be at least 1, not 0$"):
        fine_tune(scene, around(1), checkpoint_every=0)
    with pytest.raises(ValueError, match=r"^Steps between quantizations must be at least 1, not"):
        fine_tune(scene, around(1), quantize_every=0)
    with pytest.raises(ValueError, match=r"^Iterations must be at least 1, not 0$"):
        FineTuning(iterations=0)
    with pytest.raises(ValueError, match=r"^SH rate must be finite and not negative, not -1$"):
        FineTuning(sh_rate=-1)
    with pytest.raises(ValueError, match=r"^Scale rate must be finite and not negative, not inf$"):
        FineTuning(scale_rate=np.inf)
    with pytest.raises(ValueError, match=r"^Final rate must be in \(0, 1\], not 0$"):
        FineTuning(final_rate=0)
    with pytest.raises(ValueError, match=r"^Weight of D-SSIM must be in \[0, 1\], not 2$"):
        FineTuning(dssim_weight=2)

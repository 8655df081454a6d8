"""Cache-aware fine-tuning: what is large, what the loss does, what the cache gains."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from splatforge.algos.fine_tune import FineTuning
from splatforge.algos.lumina.tune import compare_cached, scale_threshold, tune
from splatforge.designs.lumina import PRESETS
from splatforge.scenes import head_jitter, surround

sys.path.insert(0, str(Path(__file__).parent))
from gaussians import camera, random_scene

SCENE = random_scene(150, 3)
PATH = head_jitter(camera(64, 48), frames=3, seed=1, median_turn_deg=0.2).cameras


def test_threshold_is_exceeded_by_a_share():
    theta = scale_threshold(SCENE, 0.2)
    assert (np.exp(SCENE.log_scales.max(axis=1)) > theta).mean() == pytest.approx(0.2, abs=0.01)
    for wrong in (0.0, 1.0):
        message = f"Share of large Gaussians must be in (0, 1), not {wrong}"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            scale_threshold(SCENE, wrong)
    with pytest.raises(ValueError, match=r"^Scene to tune must have a Gaussian, not none$"):
        scale_threshold(SCENE.select(slice(0, 0)), 0.1)


def test_tuning_shrinks_what_is_large_and_keeps_the_picture():
    views = surround(SCENE, 48, 48, frames=4).cameras
    settings = FineTuning(iterations=40)
    tuned = tune(SCENE, views, settings, scale_weight=0.3, large_share=0.3)
    theta = scale_threshold(SCENE, 0.3)
    # Without a weight there is nothing to learn.
    still = tune(SCENE, views, settings, scale_weight=0.0)
    excess = [np.maximum(np.exp(one.log_scales.max(axis=1)) / theta - 1, 0).sum()
              for one in (SCENE, tuned.scene, still.scene)]
    assert excess[1] < 0.8 * excess[0]
    assert excess[2] == pytest.approx(excess[0], rel=0.05)
    assert tuned.losses[-4:, 1].mean() < 0.8 * tuned.losses[:4, 1].mean()
    np.testing.assert_array_equal(tuned.scene.means, SCENE.means)


def test_quality_of_pictures_with_the_cache():
    found = compare_cached(SCENE, SCENE, PATH, PRESETS["caching"])
    assert found.uncached_psnr_db > 90
    assert found.psnr_db == pytest.approx(found.cache_psnr_db, abs=0.01)
    assert 20 < found.psnr_db < 60
    assert 0 < found.hit_share < 1
    assert 0 < found.avoided_share < 1
    plain = compare_cached(SCENE, SCENE, PATH, PRESETS["plain"])
    assert (plain.hit_share, plain.avoided_share) == (0, 0)
    assert plain.cache_psnr_db == np.inf
    other = compare_cached(replace(SCENE, sh=SCENE.sh * 0.5), SCENE, PATH, PRESETS["caching"])
    assert other.uncached_psnr_db < 40
    with pytest.raises(ValueError, match=r"^Frames to compare must be at least two, not 1$"):
        compare_cached(SCENE, SCENE, PATH[:1], PRESETS["caching"])

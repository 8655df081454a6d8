"""The scene itself: validation, selection, merging, turning."""

import sys
from pathlib import Path

import numpy as np
import pytest

from splatforge.scenes import Scene, SceneError, merge, transform
from splatforge.scenes.transform import sh_basis

sys.path.insert(0, str(Path(__file__).parent))
from scene_files import small_scene


def test_arrays_are_kept_without_a_copy():
    scene = small_scene()
    again = Scene(
        means=scene.means,
        log_scales=scene.log_scales,
        quats=scene.quats,
        opacity_logits=scene.opacity_logits,
        sh=scene.sh,
    )
    assert again.means is scene.means
    assert again.sh is scene.sh


def test_properties():
    scene = small_scene(7, 2)
    assert (scene.gaussians, scene.sh_degree) == (7, 2)
    assert np.array_equal(scene.bbox_min, scene.means.min(axis=0))
    assert np.array_equal(scene.bbox_max, scene.means.max(axis=0))


def test_empty_scene_has_a_bounding_box():
    empty = small_scene(5).select(slice(0, 0))
    assert empty.gaussians == 0
    assert np.array_equal(empty.bbox_min, [0, 0, 0])
    assert np.array_equal(empty.bbox_max, [0, 0, 0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"means": np.zeros((40, 2))}, r"means must have the shape \(N, 3\), not \(40, 2\)"),
        ({"means": np.zeros(3)}, r"means must have the shape"),
        ({"quats": np.ones((39, 4))}, r"quats must have the shape \(40, 4\), not \(39, 4\)"),
        ({"log_scales": np.ones((40, 4))}, r"log_scales must have the shape"),
        ({"opacity_logits": np.ones((40, 1))}, r"opacity_logits must have the shape"),
        ({"sh": np.zeros((40, 5, 3))}, r"sh must have the shape \(40, K, 3\) with K in"),
        ({"means": [["a"] * 3] * 40}, r"means must be an array of numbers"),
        ({"quats": np.zeros((40, 4))}, r"quats must have a length between"),
        ({"quats": np.full((40, 4), 1e20)}, r"quats must have a length between"),
        ({"log_scales": np.full((40, 3), 31.0)}, r"log_scales must be at most 30, not 31"),
        ({"means": np.full((40, 3), 2e12)}, r"means must be between -1e\+12 and 1e\+12"),
    ],
)
def test_wrong_arrays_are_refused(changes, message):
    with pytest.raises(SceneError, match=message):
        small_scene(**changes)


@pytest.mark.parametrize("name", ["means", "log_scales", "quats", "opacity_logits", "sh"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_named(name, value):
    array = getattr(small_scene(), name).copy()
    array[17] = value
    with pytest.raises(SceneError, match=rf"{name} must be finite, not .*at Gaussian 17"):
        small_scene(**{name: array})


def test_a_late_nan_in_a_long_array_is_found():
    n = (1 << 20) // 3 + 10
    means = np.zeros((n, 3), np.float32)
    means[-1, 2] = np.nan
    with pytest.raises(SceneError, match=f"Gaussian {n - 1}"):
        small_scene(n, 0, means=means)


def test_merge_pads_sh_and_keeps_the_order():
    first, second = small_scene(5, 1), small_scene(6, 3, seed=1)
    both = merge([first, second])
    assert (both.gaussians, both.sh_degree) == (11, 3)
    assert np.array_equal(both.means, np.concatenate([first.means, second.means]))
    assert np.array_equal(both.sh[:5, :4], first.sh)
    assert not both.sh[:5, 4:].any()
    assert np.array_equal(both.sh[5:], second.sh)


def test_merge_refuses_nothing_and_mixed_flags():
    with pytest.raises(SceneError, match="at least one"):
        merge([])
    with pytest.raises(SceneError, match="antialiased must be the same"):
        merge([small_scene(), small_scene(antialiased=True)])


def test_select_takes_masks_and_indices():
    scene = small_scene(antialiased=True)
    picked = scene.select([3, 1])
    assert picked.antialiased
    assert np.array_equal(picked.sh, scene.sh[[3, 1]])
    assert scene.select(scene.means[:, 0] > 0).gaussians == (scene.means[:, 0] > 0).sum()


def _random_rotation(seed: int) -> np.ndarray:
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    return rotation * np.sign(np.linalg.det(rotation))


def _covariances(scene: Scene) -> np.ndarray:
    w, x, y, z = (scene.quats / np.linalg.norm(scene.quats, axis=1, keepdims=True)).T
    matrix = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    spread = np.moveaxis(matrix, 2, 0) * np.exp(scene.log_scales)[:, None]
    return spread @ spread.swapaxes(1, 2)


@pytest.mark.parametrize("seed", range(4))
def test_transform_turns_shape_and_colour(seed):
    scene = small_scene(seed=seed)
    rotation = _random_rotation(seed)
    moved = transform(scene, rotation, (1, 2, 3), 2.0)
    assert np.allclose(moved.means, 2 * scene.means @ rotation.T + (1, 2, 3), atol=1e-5)
    expected = 4 * rotation @ _covariances(scene) @ rotation.T
    assert np.allclose(_covariances(moved), expected, rtol=1e-3, atol=1e-6)
    directions = np.random.default_rng(seed).normal(size=(20, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    seen = np.einsum("dk,nkc->ndc", sh_basis(directions), scene.sh)
    turned = np.einsum("dk,nkc->ndc", sh_basis(directions @ rotation.T), moved.sh)
    assert np.allclose(seen, turned, atol=1e-5)


def test_sh_basis_is_orthonormal():
    random = np.random.default_rng(0)
    directions = random.normal(size=(400_000, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    basis = sh_basis(directions)
    gram = basis.T @ basis / len(basis) * 4 * np.pi
    assert np.allclose(gram, np.eye(16), atol=0.02)


@pytest.mark.parametrize(
    ("rotation", "scale", "message"),
    [
        (np.diag([1, 1, -1]), 1.0, "rotation must be a rotation matrix"),
        (2 * np.eye(3), 1.0, "rotation must be a rotation matrix"),
        (np.eye(3), 0.0, "scale must be positive"),
    ],
)
def test_transform_refuses(rotation, scale, message):
    with pytest.raises(ValueError, match=message):
        transform(small_scene(), rotation, scale=scale)

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numba
import numpy as np
import pytest

from splatforge.algos.project import Projected, project
from splatforge.algos.sh import view_colors
from splatforge.algos.workers import Workers
from splatforge.scenes import Camera, Scene

sys.path.insert(0, str(Path(__file__).parent))
import naive


def assert_matches(projected: Projected, splats: list[SimpleNamespace]) -> None:
    np.testing.assert_array_equal(projected.ids, [splat.id for splat in splats])
    for name, theirs, tolerance in (
        ("mean_px", "center", 1e-6),
        ("opacity", "opacity", 1e-6),
        ("color", "color", 5e-6),
        ("depth", "depth", 0),
        ("radius_px", "radius", 0),
    ):
        expected = np.array([getattr(splat, theirs) for splat in splats])
        np.testing.assert_allclose(
            getattr(projected, name), expected, rtol=tolerance, atol=tolerance, err_msg=name
        )
    for k, splat in enumerate(splats):
        # Relative to the largest entry: B passes through zero.
        np.testing.assert_allclose(
            projected.conic[k], splat.conic, rtol=0, atol=1e-6 * np.abs(splat.conic).max()
        )


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("antialiased", [False, True])
def test_against_naive(degree, antialiased):
    scene = naive.random_scene(degree, 300, degree=degree, antialiased=antialiased, spread=2.0)
    camera = naive.front_camera(333, 217)
    projected = project(scene, camera)
    assert 100 < len(projected) < 300  # some are behind or beside
    assert_matches(projected, naive.project(scene, camera))


@pytest.mark.parametrize(
    "changes",
    [
        {"cx": -40.0, "cy": 300.0},
        {"cx": 90.0, "fx": 60.0},
        {"fy": 900.0, "near": 3.5},
        {"width": 1, "height": 1, "cx": 0.5, "cy": 0.5},
    ],
)
def test_unusual_cameras_against_naive(changes):
    scene = naive.random_scene(7, 300, spread=3.0)
    camera = replace(naive.front_camera(200, 150), **changes)
    projected = project(scene, camera)
    assert len(projected) > 3
    assert_matches(projected, naive.project(scene, camera))


def one_gaussian(**changes) -> SimpleNamespace:
    """A red Gaussian at the origin; duck-typed, for values that Scene refuses."""
    values = {
        "means": [[0, 0, 0]],
        "log_scales": [[-2, -1, -3]],
        "quats": [[1, 0, 0, 0]],
        "opacity_logits": [0],
        "sh": [[[1, 0, 0]]],
    } | changes
    arrays = {name: np.array(value, np.float32) for name, value in values.items()}
    return SimpleNamespace(**arrays, antialiased=True, gaussians=len(arrays["means"]))


def test_zero_quaternion_is_no_rotation():
    camera = naive.front_camera(64, 64)
    zero, identity = (
        project(one_gaussian(quats=[quat]), camera) for quat in ([0, 0, 0, 0], [1, 0, 0, 0])
    )
    np.testing.assert_array_equal(zero.conic, identity.conic)
    assert np.isfinite(zero.conic).all()


def test_quaternion_length_does_not_matter():
    camera = naive.front_camera(64, 64)
    quat = np.array([0.1, -0.7, 0.4, 0.2], np.float32)
    first, second = (
        project(one_gaussian(quats=[quat * scale]), camera) for scale in (2.0**-20, 2.0**20)
    )
    np.testing.assert_array_equal(first.conic, second.conic)


@pytest.mark.parametrize(
    ("log_scales", "radius"),
    [
        # sqrt(0.3 + sqrt(0.1)) is the radius of a point: 3 * 0.785, rounded up.
        ([-80, -80, -80], 3),
        ([30, 30, 30], 1 << 24),
        ([30, -80, -80], 1 << 24),
        ([800, 0, 0], None),
    ],
)
def test_extreme_scales_stay_finite(log_scales, radius):
    camera = naive.front_camera(64, 64)
    scene = one_gaussian(log_scales=[log_scales])
    projected = project(scene, camera)
    if radius is None:  # overflows float64: dropped
        assert len(projected) == 0
        return
    assert projected.radius_px.tolist() == [radius]
    for name in ("mean_px", "conic", "depth", "opacity", "color"):
        assert np.isfinite(getattr(projected, name)).all(), name
    # The compensation of the mip filter has a floor: a point keeps 0.5 % of its opacity.
    if log_scales == [-80, -80, -80]:
        np.testing.assert_allclose(projected.opacity, 0.5 * 0.005, rtol=1e-6)


def test_needle_determinant_does_not_cancel():
    """Variances 1e12 and 0.3 px^2 at 45 degrees: a c - b^2 keeps no digit of it in float32."""
    camera = Camera.look_at((0, 0, -1), (0, 0, 0), (0, -1, 0), width=64, height=64, fx=1000)
    tilt = np.deg2rad(45) / 2
    scene = one_gaussian(
        log_scales=[[np.log(1000), -80, -80]], quats=[[np.cos(tilt), 0, 0, np.sin(tilt)]]
    )
    a, b, c = project(scene, camera).conic[0].astype(np.float64)
    # Across the needle the variance is the dilation alone.
    across = np.array([1, 1]) / np.sqrt(2)
    form = np.array([[a, b], [b, c]])
    values = [across @ form @ across, np.linalg.eigvalsh(form).max()]
    assert max(values) == pytest.approx(1 / 0.3, rel=1e-5)


def test_near_plane_and_behind():
    camera = Camera.look_at((0, 0, 0), (0, 0, 1), (0, -1, 0), width=64, height=64, near=0.5)
    depths = [-3.0, 0.0, 0.5, np.nextafter(np.float32(0.5), np.float32(1)), 3.0]
    n = len(depths)
    scene = one_gaussian(
        means=[[0, 0, z] for z in depths],
        log_scales=[[-6, -6, -6]] * n,
        quats=[[1, 0, 0, 0]] * n,
        opacity_logits=[0] * n,
        sh=[[[0, 0, 0]]] * n,
    )
    assert project(scene, camera).ids.tolist() == [3, 4]
    assert len(project(scene, replace(camera, near=100.0))) == 0


def test_empty_scene():
    scene = naive.random_scene(0, 0)
    projected = project(scene, naive.front_camera(40, 30))
    assert len(projected) == 0
    assert projected.color.shape == (0, 3)


def test_many_chunks_and_threads_keep_the_order():
    scene = naive.random_scene(3, 30_000, spread=1.5)
    camera = naive.front_camera(160, 120)
    threads = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        alone = project(scene, camera)
    finally:
        numba.set_num_threads(threads)
    together = project(scene, camera)
    assert (np.diff(alone.ids) > 0).all()
    assert len(alone) > 16_384
    for name in ("ids", "mean_px", "conic", "depth", "opacity", "color", "radius_px"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(together, name))


def test_mean_is_in_continuous_pixels():
    """A point on the axis is at (cx, cy), which with cx = 8.5 is the centre of pixel 8."""
    camera = Camera.look_at((0, 0, -2), (0, 0, 0), (0, -1, 0), width=17, height=17, fx=20)
    assert project(one_gaussian(), camera).mean_px[0].tolist() == [8.5, 8.5]


def colors_from_origin(means, sh) -> np.ndarray:
    """Colours as a camera at the origin sees them; the look of Gaussians behind it is no matter."""
    count = len(means)
    scene = Scene(means=means, log_scales=np.zeros((count, 3)), quats=np.ones((count, 4)),
                  opacity_logits=np.zeros(count), sh=sh)
    out = np.full((count, 5), -1, np.float32)
    camera = Camera.look_at((0, 0, 0), (0, 0, 1), (0, -1, 0), width=16, height=16)
    with Workers() as workers:
        view_colors(scene, camera, np.arange(count, dtype=np.int32), out, 1, workers)
    assert (out[:, [0, 4]] == -1).all()
    return out[:, 1:4]


@pytest.mark.parametrize("coefficients", [1, 4, 9, 16])
def test_sh_against_legendre(coefficients):
    rng = np.random.default_rng(coefficients)
    sh = rng.normal(0, 1, (200, coefficients, 3)).astype(np.float32)
    means = rng.normal(0, 1, (200, 3)) * rng.lognormal(0, 5, (200, 1))
    means[:6] = np.concatenate([np.eye(3), -np.eye(3)])
    means = means.astype(np.float32)
    bases = [naive.spherical_harmonics(mean, coefficients) for mean in means.astype(np.float64)]
    expected = [np.maximum(0, basis @ sh[i] + 0.5) for i, basis in enumerate(bases)]
    np.testing.assert_allclose(
        colors_from_origin(means, sh), expected, rtol=0,
        atol=1e-6 * np.abs(sh).sum(axis=1).max())


def test_sh_is_clipped_below_and_not_above():
    sh = np.zeros((2, 4, 3), np.float32)
    sh[:, 0] = 10, -10, 0
    np.testing.assert_allclose(
        colors_from_origin(np.ones((2, 3)), sh), [[0.5 + 2.8209479, 0, 0.5]] * 2, rtol=1e-6)


def test_real_capture_is_finite(shared_scene):
    from splatforge.scenes import load

    scene = load(shared_scene("fourth_st_131k_sh3.spz"))
    assert isinstance(scene, Scene)
    assert scene.antialiased
    projected = project(scene, Camera.look_at((0, 2, 3), (0, 0, 0), (0, 1, 0), width=64, height=48))
    assert len(projected) > 1000
    for name in ("mean_px", "conic", "depth", "opacity", "color"):
        assert np.isfinite(getattr(projected, name)).all(), name

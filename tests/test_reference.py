import sys
from dataclasses import replace
from pathlib import Path

import numba
import numpy as np
import pytest
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from splatforge.algos import rasterize, reference
from splatforge.algos.bin_tiles import bin_tiles
from splatforge.algos.project import project
from splatforge.algos.reference import Frame, render
from splatforge.scenes import Camera, Scene

sys.path.insert(0, str(Path(__file__).parent))
import naive

COUNTS = ("pairs", "pairs_reached", "evaluations", "significant", "blended", "stopped_pixels",
          "warp_steps", "warp_blends")


def assert_like_naive(
    scene, camera, *, background=(0, 0, 0), tolerance=2e-5, band=1e-4, share=0.01
) -> Frame:
    frame = render(scene, camera, background=background)
    slow = naive.render(scene, camera, background)
    assert frame.image.shape == (camera.height, camera.width, 3)
    assert frame.image.dtype == frame.transmittance.dtype == np.float32
    assert np.isfinite(frame.image).all()
    for ours, theirs in ((frame.image, slow.image), (frame.transmittance, slow.transmittance)):
        naive.assert_close_but_for_flips(
            ours, theirs, slow.margin, tolerance=tolerance, band=band, share=share
        )
    counted = render(scene, camera, background=background, statistics=True)
    # Leaving out what is skipped anyway must not change a bit.
    np.testing.assert_array_equal(counted.image, frame.image)
    np.testing.assert_array_equal(counted.transmittance, frame.transmittance)
    statistics = counted.statistics
    assert statistics is not None
    assert frame.statistics is None
    tiles_x = statistics.tiles_x
    near = np.zeros(tiles_x * statistics.tiles_y, bool)
    for y, x in zip(*np.nonzero(slow.margin < band), strict=True):
        near[y // 16 * tiles_x + x // 16] = True
    for name in COUNTS:
        count = getattr(statistics, name)
        assert count.shape == near.shape
        np.testing.assert_array_equal(count[~near], slow.counts[name][~near], err_msg=name)
    np.testing.assert_array_equal(
        statistics.significant, statistics.blended + statistics.stopped_pixels
    )
    return counted


@pytest.mark.parametrize(
    ("size", "n", "degree", "antialiased"),
    [
        ((100, 75), 150, 0, False),
        ((64, 48), 200, 3, True),
        ((333, 217), 25, 1, False),
        ((1, 1), 100, 2, False),
        ((16, 16), 300, 0, False),
        ((17, 33), 200, 0, True),
    ],
)
def test_against_naive(size, n, degree, antialiased):
    scene = naive.random_scene(n, n, degree=degree, antialiased=antialiased)
    assert_like_naive(scene, naive.front_camera(*size), background=(0.25, 0.5, 1.0), share=0.05)


def test_opaque_pile_stops_early():
    """Opacity 1, hundreds deep: alpha is clipped at 0.99, the third one ends a pixel."""
    scene = naive.random_scene(1, 400)
    scene = replace(
        scene,
        opacity_logits=np.full(400, 30, np.float32),
        log_scales=np.clip(scene.log_scales, -2, 0),
    )
    counted = assert_like_naive(scene, naive.front_camera(48, 40), share=0.2)
    totals = counted.statistics.totals()
    assert totals["stopped_pixels"] > 0.75 * 48 * 40
    assert totals["pairs_reached"] < 0.9 * totals["pairs"]
    assert counted.transmittance.min() >= 1e-4


def test_two_clipped_alphas_leave_a_ten_thousandth():
    """0.01 * (1 - 0.99) is 1e-4 within rounding: the stop is decided as float32 decides it."""
    point = np.float32(0.99)
    after_two = (np.float32(1) * (1 - point)) * (1 - point)
    scene = Scene(
        means=[[0, 0, 0]] * 3,
        log_scales=np.full((3, 3), 5),
        quats=[[1, 0, 0, 0]] * 3,
        opacity_logits=[40] * 3,
        sh=np.zeros((3, 1, 3)),
    )
    frame = render(scene, naive.front_camera(8, 8), statistics=True)
    stops = 1 if after_two < np.float32(1e-4) else 2
    assert frame.statistics.blended.tolist() == [64 * stops]
    assert frame.statistics.stopped_pixels.tolist() == [64]
    # The stopped Gaussian neither blends nor dims what is behind.
    assert frame.transmittance.max() == (1 - point if stops == 1 else after_two)


def test_needles_and_sheets_against_naive():
    """Axis ratios up to 1e4 at every angle: rows are walked only where a needle passes.

    A float32 conic of variances 1e6 : 0.3 leaves the power a relative error of 1e-7 times the
    terms that cancel in it: 1e-3.
    """
    rng = np.random.default_rng(9)
    n = 150
    scene = replace(
        naive.random_scene(9, n),
        log_scales=np.stack([rng.uniform(-4, 1.5, n), rng.uniform(-8, -5, n), np.full(n, -9)], 1),
        opacity_logits=rng.uniform(-2, 6, n),
    )
    assert_like_naive(scene, naive.front_camera(96, 80), tolerance=1e-3, band=2e-3, share=0.3)


def test_leaving_out_changes_nothing():
    """The full 3-sigma lists and the tight ones agree bit for bit, at any elongation and size."""
    rng = np.random.default_rng(4)
    n = 3000
    scene = replace(
        naive.random_scene(4, n, spread=2.0),
        log_scales=rng.uniform(-12, 4, (n, 3)),
        opacity_logits=rng.uniform(-7, 12, n),
    )
    camera = naive.front_camera(161, 99)
    tight, full = render(scene, camera), render(scene, camera, statistics=True)
    np.testing.assert_array_equal(tight.image, full.image)
    np.testing.assert_array_equal(tight.transmittance, full.transmittance)


def test_plain_loop_on_the_same_splats():
    """The expressions of the reference in numpy float32, all pixels of all listed tiles."""
    scene = naive.random_scene(21, 400, degree=1)
    camera = naive.front_camera(80, 60)
    splats = project(scene, camera)
    lists = bin_tiles(splats, 80, 60)
    one = np.float32(1)
    image = np.zeros((60, 80, 3), np.float32)
    left = np.ones((60, 80), np.float32)
    for tile in range(lists.tiles):
        top, start = (16 * part for part in divmod(tile, lists.tiles_x))
        area = np.s_[top : min(60, top + 16), start : min(80, start + 16)]
        y, x = np.mgrid[area].astype(np.float32) + np.float32(0.5)
        live = np.ones(x.shape, bool)
        for i in naive.entries_of(lists, tile):
            dx, dy = splats.mean_px[i, 0] - x, splats.mean_px[i, 1] - y
            a, b, c = splats.conic[i]
            power = np.float32(-0.5) * (a * dx * dx + c * dy * dy) - b * dx * dy
            alpha = np.minimum(np.float32(0.99), splats.opacity[i] * np.exp(power))
            after = left[area] * (one - alpha)
            seen = live & (power <= 0) & (alpha >= one / np.float32(255))
            blend = seen & (after >= np.float32(1e-4))
            live &= ~seen | blend
            weight = np.where(blend, alpha * left[area], np.float32(0))
            image[area] += weight[..., None] * splats.color[i]
            left[area] = np.where(blend, after, left[area])
    frame = render(scene, camera)
    np.testing.assert_allclose(frame.transmittance, left, rtol=0, atol=1e-6)
    np.testing.assert_allclose(frame.image, image, rtol=0, atol=2e-6)


@intrinsic
def _exp(typingctx, x):
    def codegen(context, builder, signature, args):
        lanes = rasterize._Lanes.splat(builder, args[0], 4).exp()
        return builder.extract_element(lanes.value, ir.IntType(32)(2))

    return types.float32(x), codegen


@numba.njit
def _exp_of(values):
    return np.array([_exp(value) for value in values])


def test_exp_to_the_last_bits():
    x = np.concatenate([np.linspace(-40, 0, 100_001), -np.logspace(-9, 1, 10_001)])
    x = x.astype(np.float32)
    np.testing.assert_allclose(_exp_of(x), np.exp(x.astype(np.float64)), rtol=1.5e-7)
    below = _exp_of(np.float32([-41, -87, -1e30, -np.inf]))
    assert (below == _exp_of(np.float32([-40]))).all()


def test_alpha_follows_exp():
    """One wide white Gaussian on black: a pixel is its alpha, relative error below 1e-6."""
    scene = Scene(
        means=[[0, 0, 0]],
        log_scales=[[0, 0, 0]],
        quats=[[1, 0, 0, 0]],
        opacity_logits=[-1.0],  # 1/255 is reached within 3 sigma
        sh=[[[0.5 / 0.28209479177387814] * 3]],
    )
    camera = Camera.look_at((0, 0, -5), (0, 0, 0), (0, -1, 0), width=400, height=400, fx=250)
    frame, splats = render(scene, camera), project(scene, camera)
    y, x = np.mgrid[:400, :400] + 0.5
    dx, dy = splats.mean_px[0, 0] - x, splats.mean_px[0, 1] - y
    a, b, c = splats.conic[0].astype(np.float64)
    alpha = splats.opacity[0] * np.exp(-0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy)
    sure = alpha > 1.001 / 255
    assert 0.3 < sure.mean() < 0.9
    # Powers down to -5.4 are themselves rounded to a relative 2e-7.
    np.testing.assert_allclose(frame.image[sure][:, 0], alpha[sure], rtol=2e-6)
    np.testing.assert_array_equal(frame.image[alpha < 0.999 / 255], 0)


def test_mirrored_scene_gives_the_mirrored_image():
    """Pixel centres, tile edges and row windows have no preferred side."""
    scene = naive.random_scene(6, 200)
    mirrored = replace(
        scene,
        means=scene.means * np.float32([-1, 1, 1]),
        quats=scene.quats * np.float32([1, 1, -1, -1]),
    )
    camera = Camera.look_at((0, 0, -4), (0, 0, 0), (0, -1, 0), width=96, height=64)
    left, right = render(scene, camera), render(mirrored, camera)
    np.testing.assert_allclose(left.image, right.image[:, ::-1], rtol=0, atol=1e-2)
    assert np.abs(left.image - right.image[:, ::-1]).mean() < 1e-5


@pytest.mark.parametrize("statistics", [False, True])
@pytest.mark.parametrize("case", ["empty", "behind", "beside", "transparent"])
def test_nothing_to_see(case, statistics):
    scene = naive.random_scene(0, 0 if case == "empty" else 50)
    if case == "behind":
        scene = replace(scene, means=scene.means - np.float32([0, 0, 40]))
    elif case == "beside":
        scene = replace(scene, means=scene.means + np.float32([900, 0, 0]))
    elif case == "transparent":
        scene = replace(scene, opacity_logits=np.full(50, -200, np.float32))
    frame = render(
        scene, naive.front_camera(45, 31), background=(0.1, 0.2, 0.3), statistics=statistics
    )
    assert (frame.image == np.float32([0.1, 0.2, 0.3])).all()
    assert (frame.transmittance == 1).all()
    if statistics:
        totals = frame.statistics.totals()
        assert totals["significant"] == totals["stopped_pixels"] == 0
        assert (totals["pairs"] > 0) == (case == "transparent")
        assert totals["pairs_reached"] == totals["pairs"]


def test_huge_and_extreme_gaussians_give_no_nan():
    rng = np.random.default_rng(8)
    n = 2000
    scene = Scene(
        means=rng.normal(0, 1, (n, 3)) * 10 ** rng.uniform(-6, 9, (n, 1)),
        log_scales=rng.uniform(-90, 30, (n, 3)),
        quats=rng.normal(0, 1, (n, 4)),
        opacity_logits=rng.uniform(-1e4, 1e4, n),
        sh=rng.normal(0, 1, (n, 16, 3)) * 10 ** rng.uniform(-6, 5, (n, 1, 1)),
        antialiased=True,
    )
    for width, height in ((67, 51), (1, 200)):
        camera = Camera.look_at(
            (0, 0, -1), (0, 0, 0), (0, -1, 0), width=width, height=height, fov_x_deg=100
        )
        for statistics in (False, True):
            frame = render(scene, camera, statistics=statistics)
            assert np.isfinite(frame.image).all()
            assert frame.transmittance.min() >= np.float32(1e-4)
            assert frame.transmittance.max() <= 1


def test_threads_do_not_change_the_image():
    scene, camera = naive.random_scene(2, 3000, degree=2), naive.front_camera(200, 130)
    threads = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        alone = render(scene, camera, statistics=True)
    finally:
        numba.set_num_threads(threads)
    together = render(scene, camera, statistics=True)
    np.testing.assert_array_equal(alone.image, together.image)
    for name in COUNTS:
        np.testing.assert_array_equal(
            getattr(alone.statistics, name), getattr(together.statistics, name)
        )


@pytest.mark.parametrize("pairs_at_once", [1, 2000])
@pytest.mark.parametrize("statistics", [False, True])
def test_bands_do_not_change_the_image(monkeypatch, pairs_at_once, statistics):
    scene, camera = naive.random_scene(3, 500), naive.front_camera(120, 100)
    whole = render(scene, camera, statistics=statistics)
    monkeypatch.setattr(reference, "_PAIRS_AT_ONCE", pairs_at_once)
    spans = np.array([[0, 0, 8, 7]] * 30, np.int16)
    assert len(reference._bands(spans, 7)) == (7 if pairs_at_once == 1 else 1)
    banded = render(scene, camera, statistics=statistics)
    np.testing.assert_array_equal(whole.image, banded.image)
    if statistics:
        for name in COUNTS:
            np.testing.assert_array_equal(
                getattr(whole.statistics, name), getattr(banded.statistics, name)
            )


def test_pairs_are_those_of_bin_tiles():
    scene, camera = naive.random_scene(12, 2000), naive.front_camera(333, 217)
    lists = bin_tiles(project(scene, camera), 333, 217)
    frame = render(scene, camera, statistics=True)
    np.testing.assert_array_equal(frame.statistics.pairs, np.diff(lists.starts))
    assert (frame.statistics.tiles_x, frame.statistics.tiles_y) == (lists.tiles_x, lists.tiles_y)


def test_stages_are_timed():
    frame = render(naive.random_scene(0, 10), naive.front_camera(20, 20))
    assert list(frame.stages_ms) == ["project", "color", "sort", "bin", "blend"]
    assert all(value >= 0 for value in frame.stages_ms.values())


@pytest.mark.parametrize("background", [(0, 0), 0.5, (0, np.nan, 0)])
def test_background_is_checked(background):
    with pytest.raises(ValueError, match=r"^Background must be three finite numbers, not "):
        render(naive.random_scene(0, 1), naive.front_camera(8, 8), background=background)


def test_flips_are_allowed_only_near_a_threshold():
    expected = np.zeros((4, 4))
    margin = np.full((4, 4), np.inf)
    actual = expected.copy()
    actual[1, 2] = 0.004
    rules = {"tolerance": 1e-5, "band": 1e-4, "share": 0.1}
    with pytest.raises(AssertionError, match=r"0\.004 at \(np\.int64\(1\), np\.int64\(2\)\)"):
        naive.assert_close_but_for_flips(actual, expected, margin, **rules)
    margin[1, 2] = 1e-5
    naive.assert_close_but_for_flips(actual, expected, margin, **rules)
    margin[0] = 1e-5
    with pytest.raises(AssertionError, match="of the pixels are near a threshold"):
        naive.assert_close_but_for_flips(actual, expected, margin, **rules)
    margin[0], actual[1, 2] = np.inf, 0.2
    with pytest.raises(AssertionError):
        naive.assert_close_but_for_flips(actual, expected, margin, **rules)

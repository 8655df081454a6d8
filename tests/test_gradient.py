"""The backward pass against finite differences of the slow float64 reference."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numba
import numpy as np
import pytest

from splatforge.algos.bin_tiles import TileLists
from splatforge.algos.gradient import gradients, trace
from splatforge.algos.reference import render
from splatforge.scenes import default_camera, load

sys.path.insert(0, str(Path(__file__).parent))
import naive

PARAMETERS = ("log_scales", "quats", "opacity_logits", "sh")
BACKGROUND = (0.25, 0.5, 1.0)


def reversed_pairs(camera, ids, depth, lists):
    """Neighbours in every list change places, and every seventh entry is left out."""
    starts, entries = [0], []
    for tile in range(lists.tiles):
        listed = naive.entries_of(lists, tile)
        swapped = np.concatenate([listed[k : k + 2][::-1] for k in range(0, len(listed), 2)] or
                                 [listed])
        entries.append(np.delete(swapped, np.s_[6::7]))
        starts.append(starts[-1] + len(entries[-1]))
    return TileLists(tiles_x=lists.tiles_x, tiles_y=lists.tiles_y, starts=np.array(starts),
                     entries=np.concatenate(entries))


def entries_by_id(drawn) -> list[list[int]]:
    return [list(drawn.ids[naive.entries_of(drawn.lists, tile)])
            for tile in range(drawn.lists.tiles)]


class Differences:
    """A loss linear in the picture, sum of w c, by the slow reference with lists held fixed."""

    def __init__(self, scene, camera, drawn, weights):
        self.camera, self.lists = camera, entries_by_id(drawn)
        self.scene = SimpleNamespace(
            gaussians=scene.gaussians, means=scene.means, antialiased=scene.antialiased,
            **{name: getattr(scene, name).astype(np.float64) for name in PARAMETERS})
        self.splats = {splat.id: splat for splat in naive.project(self.scene, camera)}
        shaded = [(y, x, self.shade(self.splats, y, x))
                  for y in range(camera.height) for x in range(camera.width)]
        self.pixels = [pixel for _, _, pixel in shaded]
        # Where a decision is near its threshold, the picture jumps: those pixels weigh nothing.
        self.weights = weights.copy()
        for y, x, pixel in shaded:
            if pixel.margin < 2e-3:
                self.weights[y, x] = 0
        self.ignored = np.mean([pixel.margin < 2e-3 for pixel in self.pixels])

    def tile(self, y, x):
        return y // 16 * -(-self.camera.width // 16) + x // 16

    def shade(self, splats, y, x):
        return naive.shade(splats, self.lists[self.tile(y, x)], x, y)

    def blended(self, y, x):
        """Ids of the Gaussians that a pixel blends, in their order."""
        listed = self.lists[self.tile(y, x)]
        steps = [naive.shade(self.splats, listed[:k], x, y).blended for k in range(len(listed) + 1)]
        return [listed[k] for k in np.flatnonzero(np.diff(steps))]

    def loss(self, changed):
        """What the pixels that list a Gaussian weigh when its parameters are as they are now."""
        one = SimpleNamespace(
            gaussians=1, antialiased=self.scene.antialiased,
            **{name: getattr(self.scene, name)[changed : changed + 1]
               for name in ("means", *PARAMETERS)})
        splats = {**self.splats, changed: naive.project(one, self.camera)[0]}
        total = 0.0
        for y in range(self.camera.height):
            for x in range(self.camera.width):
                if changed in self.lists[self.tile(y, x)] and self.weights[y, x].any():
                    pixel = self.shade(splats, y, x)
                    color = pixel.color + pixel.transmittance * np.array(BACKGROUND)
                    total += color @ self.weights[y, x]
        return total

    def derivative(self, name, index, step=1e-5):
        """Central difference by one parameter."""
        array = getattr(self.scene, name)
        value, sums = array[index], []
        for sign in (1, -1):
            array[index] = value + sign * step
            sums.append(self.loss(index[0]))
        array[index] = value
        return (sums[0] - sums[1]) / (2 * step)


def assert_gradients(scene, camera, *, order=None, seed=0, samples=16, tolerance=2e-3,
                     ignored=0.1):
    """Parameters of every kind, drawn by lot, against their differences."""
    drawn = trace(scene, camera, background=BACKGROUND, order=order)
    rng = np.random.default_rng(seed)
    differences = Differences(scene, camera, drawn, rng.normal(size=drawn.image.shape))
    assert differences.ignored <= ignored
    by = gradients(drawn, differences.weights)
    assert (np.diff(by.ids) > 0).all()
    for name in PARAMETERS:
        array = getattr(by, name)
        assert array.dtype == np.float32
        places = list(np.ndindex(array.shape))
        places = [places[k] for k in rng.permutation(len(places))[:samples]]
        ours = np.array([array[place] for place in places], np.float64)
        theirs = np.array([differences.derivative(name, (by.ids[v], *rest)) for v, *rest in places])
        # Of float32 sums of both signs: relative to each, and to the largest.
        bound = tolerance * np.abs(theirs) + 2e-5 * np.abs(theirs).max() + 1e-6
        worst = (np.abs(ours - theirs) / bound).argmax()
        assert (np.abs(ours - theirs) <= bound).all(), (name, ours[worst], theirs[worst])
        assert np.count_nonzero(np.abs(theirs) > 1e-3) >= samples // 4, name
    return drawn, by, differences


@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_every_parameter(degree, antialiased):
    scene = naive.random_scene(degree, 12, degree=degree, antialiased=antialiased)
    assert_gradients(scene, naive.front_camera(21, 18))


@pytest.mark.parametrize("antialiased", [False, True])
def test_points_under_the_dilation(antialiased):
    """Gaussians much smaller than a pixel: the 0.3 px^2 and the compensation are all there is."""
    scene = naive.random_scene(3, 40, antialiased=antialiased, spread=0.5)
    scene = replace(scene, log_scales=np.clip(scene.log_scales - 1, -4, -2.5),
                    opacity_logits=scene.opacity_logits + 4)
    assert_gradients(scene, naive.front_camera(20, 17))


def test_needles_across_the_image():
    rng = np.random.default_rng(9)
    scene = replace(
        naive.random_scene(9, 12),
        log_scales=np.stack([rng.uniform(-2, 1, 12), rng.uniform(-6, -4, 12), np.full(12, -7)], 1),
        opacity_logits=rng.uniform(1, 4, 12))
    # The power of a needle cancels: float32 forward loses what float64 keeps.
    assert_gradients(scene, naive.front_camera(24, 20), tolerance=2e-2)


def test_jacobian_beyond_the_clamp():
    """Large Gaussians whose centres are far out of the image on every side."""
    rng = np.random.default_rng(5)
    scene = naive.random_scene(5, 16)
    around = rng.permutation(16) / 16 * 2 * np.pi
    scene = replace(
        scene, means=3.5 * np.stack([np.cos(around), np.sin(around), 0.3 * rng.normal(size=16)], 1),
        log_scales=rng.uniform(-0.5, 0.5, (16, 3)), opacity_logits=rng.uniform(-1, 3, 16))
    assert_gradients(scene, naive.front_camera(24, 20))


def test_early_end_and_clipped_alphas():
    """A pile of opaque Gaussians: alphas at 0.99 pass nothing on, nor does what is behind."""
    scene = naive.random_scene(1, 40)
    scene = replace(scene, opacity_logits=np.linspace(1, 8, 40),
                    log_scales=np.clip(scene.log_scales, -1, 0))
    drawn, _, differences = assert_gradients(
        scene, naive.front_camera(20, 18), samples=30, ignored=0.3)
    assert sum(pixel.stopped for pixel in differences.pixels) > 0.1 * 20 * 18
    # All of them over the whole picture: one or two end it and are felt by their colour alone.
    flat = replace(scene, log_scales=np.full((40, 3), 4), opacity_logits=np.full(40, 30))
    by = gradients(trace(flat, drawn.camera), np.ones(drawn.image.shape))
    assert by.pixels.max() == 20 * 18
    assert not by.opacity_logits.any()
    assert not by.log_scales.any()
    assert np.abs(by.sh).max() > 1
    hidden = by.pixels == 0
    assert np.count_nonzero(hidden) >= 38
    assert not by.sh[hidden].any()


def test_colour_at_its_floor():
    scene = naive.random_scene(2, 12, degree=1)
    sh = scene.sh.copy()
    sh[::2, 0, 1] = -5
    _, by, _ = assert_gradients(replace(scene, sh=sh), naive.front_camera(20, 20))
    dark = by.ids % 2 == 0
    assert not by.sh[dark, :, 1].any()
    assert by.sh[~dark, :, 1].any()


def test_another_order():
    scene = naive.random_scene(7, 30, degree=1)
    scene = replace(scene, opacity_logits=np.clip(scene.opacity_logits, 0, 3))
    camera = naive.front_camera(24, 20)
    drawn, by, differences = assert_gradients(scene, camera, order=reversed_pairs)
    usual = trace(scene, camera, background=BACKGROUND)
    assert np.abs(usual.image - drawn.image).max() > 0.05
    for tile, (ours, depths) in enumerate(zip(entries_by_id(drawn), entries_by_id(usual),
                                              strict=True)):
        assert ours[:2] == depths[:2][::-1]
        assert len(ours) == len(depths) - len(depths) // 7, tile
    pixels, late = np.zeros(30, int), np.zeros(30, int)
    for y in range(camera.height):
        for x in range(camera.width):
            deepest = 0
            for i in differences.blended(y, x):
                pixels[i] += 1
                late[i] += differences.splats[i].depth < deepest
                deepest = max(deepest, differences.splats[i].depth)
    np.testing.assert_array_equal(by.pixels, pixels[by.ids])
    np.testing.assert_array_equal(by.late, late[by.ids])
    assert 0 < late.sum() < pixels.sum()


@pytest.mark.parametrize("antialiased", [False, True])
def test_depth_order_is_the_reference(antialiased):
    scene = naive.random_scene(11, 400, degree=2, antialiased=antialiased)
    camera = naive.front_camera(101, 67)
    drawn = trace(scene, camera, background=BACKGROUND)
    frame = render(scene, camera, background=BACKGROUND)
    np.testing.assert_array_equal(drawn.image, frame.image)
    np.testing.assert_array_equal(drawn.transmittance, frame.transmittance)
    by = gradients(drawn, np.zeros(drawn.image.shape))
    counted = render(scene, camera, statistics=True).statistics
    assert counted is not None
    assert by.pixels.sum() == counted.totals()["blended"]
    assert not by.late.any()
    for name in PARAMETERS:
        assert not getattr(by, name).any()


def test_threads_change_nothing():
    scene = naive.random_scene(13, 3000, degree=1)
    camera = naive.front_camera(161, 99)
    weights = np.random.default_rng(0).normal(size=(99, 161, 3))
    results = []
    before = numba.get_num_threads()
    try:
        for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
            numba.set_num_threads(threads)
            results.append(gradients(trace(scene, camera), weights))
    finally:
        numba.set_num_threads(before)
    for name in ("ids", *PARAMETERS, "pixels", "late"):
        np.testing.assert_array_equal(getattr(results[0], name), getattr(results[1], name))


def test_nothing_to_see():
    scene = naive.random_scene(1, 5)
    away = replace(scene, means=scene.means - (0, 0, 100))
    by = gradients(trace(away, naive.front_camera(20, 20)), np.ones((20, 20, 3)))
    assert len(by) == 0
    assert by.sh.shape == (0, 1, 3)
    empty = gradients(trace(scene.select(slice(0)), naive.front_camera(5, 5)), np.ones((5, 5, 3)))
    assert len(empty) == 0


def test_step_down_the_gradient_of_a_capture(shared_scene):
    """On a real scene: the loss falls by what its gradient foretells."""
    scene = load(shared_scene("inari_fox_50k.ply"))
    camera = default_camera(scene, 160, 120)
    target = trace(scene, camera).image
    rng = np.random.default_rng(0)
    moved = replace(
        scene, log_scales=scene.log_scales + rng.normal(0, 0.05, scene.log_scales.shape),
        quats=scene.quats + rng.normal(0, 0.02, scene.quats.shape),
        opacity_logits=scene.opacity_logits + rng.normal(0, 0.1, scene.gaussians),
        sh=scene.sh + rng.normal(0, 0.02, scene.sh.shape))

    def loss(image):
        return float(((image.astype(np.float64) - target) ** 2).sum())

    drawn = trace(moved, camera)
    by = gradients(drawn, 2 * (drawn.image - target))
    for name in PARAMETERS:
        slope = getattr(by, name).astype(np.float64)
        step = 0.01 * loss(drawn.image) / (slope**2).sum()
        losses = []
        for way in (step, -step):
            array = getattr(moved, name).astype(np.float64)
            array[by.ids] += way * slope
            losses.append(loss(trace(replace(moved, **{name: array}), camera).image))
        foretold = 2 * step * (slope**2).sum()
        assert losses[0] - losses[1] == pytest.approx(foretold, rel=0.03), name


def test_wrong_input():
    scene, camera = naive.random_scene(1, 20), naive.front_camera(40, 20)
    with pytest.raises(ValueError, match=r"^Background must be three finite numbers, not "):
        trace(scene, camera, background=(0, 0))
    drawn = trace(scene, camera)
    with pytest.raises(ValueError, match=r"must have its shape \(20, 40, 3\), not \(20, 40\)$"):
        gradients(drawn, np.zeros((20, 40)))
    with pytest.raises(ValueError, match=r"^Gradient by the image must be finite"):
        gradients(drawn, np.full((20, 40, 3), np.nan))

    def outside(camera, ids, depth, lists):
        return replace(lists, entries=np.full_like(lists.entries, len(ids)))

    def longer(camera, ids, depth, lists):
        entries = np.concatenate([lists.entries, lists.entries[:1]])
        return replace(lists, entries=entries, starts=lists.starts + (lists.starts > 0))

    with pytest.raises(ValueError, match=r"^Order must return entries from 0 to "):
        trace(scene, camera, order=outside)
    with pytest.raises(ValueError, match=r"^Order must return the lists of the same tiles"):
        trace(scene, camera, order=longer)

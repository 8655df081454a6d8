import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from splatforge.algos import reference
from splatforge.algos.ffu import decode_fine, fine_vectors
from splatforge.algos.quality import psnr_db
from splatforge.algos.records import decode_record
from splatforge.algos.streaminggs import quantize as unit
from splatforge.algos.streaminggs.partition import partition
from splatforge.algos.streaminggs.quantize import (
    assign,
    canonical,
    decode,
    quantize,
    straight_through,
)
from splatforge.designs.codebook import CodebookDesign
from splatforge.designs.feature import FeatureFormat
from splatforge.designs.ffu import FfuDesign
from splatforge.designs.floating import Floating
from splatforge.designs.streaminggs import PartitionDesign
from splatforge.scenes import default_camera, load

sys.path.insert(0, str(Path(__file__).parent))
from gaussians import camera, random_scene

VIEW = camera(149, 101)
SMALL = CodebookDesign(rotation=(6, 4), ratios=(4,), opacity=(5,), color=(5, 4), sh1=(4, 3),
                       sh2=(4,), sh3=(3, 2))


def covariances(scene):
    w, x, y, z = (scene.quats / np.linalg.norm(scene.quats, axis=1, keepdims=True)).T.astype(float)
    rotation = np.stack([
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], 1).reshape(-1, 3, 3)
    shape = rotation * np.exp(scene.log_scales.astype(float))[:, None]
    return shape @ shape.transpose(0, 2, 1)


def test_canonical_gaussians_are_the_same():
    scene = random_scene(3000, 1, needles=True)
    same = canonical(scene)
    assert (np.diff(same.log_scales, axis=1) <= 0).all()
    assert (same.quats[:, 0] >= 0).all()
    # Half turns about its axes exchange the quaternion's components: the real one is the largest.
    assert (np.abs(same.quats[:, 1:]) <= same.quats[:, :1] + 1e-6).all()
    want, got = covariances(scene), covariances(same)
    assert (np.abs(got - want).max(axis=(1, 2)) < 1e-5 * np.abs(want).max(axis=(1, 2))).all()
    image = reference.render(scene, VIEW).image
    assert psnr_db(reference.render(same, VIEW).image, image) > 80
    # A zero quaternion is no rotation.
    zero = canonical(replace(scene.select([0]), quats=[[0.0, 0, 0, 1e-9]]))
    assert np.isfinite(zero.quats).all()


def test_fewer_points_than_entries_are_kept_as_they_are():
    points = np.random.default_rng(2).integers(-40, 40, (200, 3)) / 4
    book = unit.fit_codebook(points, np.ones(200), 1024)
    labels = unit.nearest_entries(points.astype(np.float32), book.astype(np.float32))
    np.testing.assert_array_equal(book[labels], points)
    assert (unit.fit_codebook(points[:0], np.ones(0), 8) == 0).all()


def test_codebooks_are_better_than_a_grid():
    """k-means against a uniform grid of as many entries, on points that are not uniform."""
    rng = np.random.default_rng(3)
    points = rng.normal(size=(6000, 2)) * np.where(rng.random((6000, 1)) < 0.9, 0.05, 1)
    book = unit.fit_codebook(points, np.ones(6000), 64)
    labels = unit.nearest_entries(points.astype(np.float32), book.astype(np.float32))
    error = ((points - book[labels]) ** 2).sum(axis=1)
    edges = [np.linspace(*np.quantile(points[:, k], [0, 1]), 9) for k in range(2)]
    middle = [(e[1:] + e[:-1])[np.clip(np.searchsorted(e, points[:, k]) - 1, 0, 7)] / 2
              for k, e in enumerate(edges)]
    grid = ((points - np.stack(middle, axis=1)) ** 2).sum(axis=1)
    assert error.sum() < grid.sum() / 5
    # Each point has the nearest entry, each entry is about the mean of its points.
    far = ((points[:, None] - book) ** 2).sum(axis=2)
    np.testing.assert_allclose(far[np.arange(6000), labels], far.min(axis=1), atol=1e-6)


def test_weights_draw_entries():
    rng = np.random.default_rng(4)
    points = rng.uniform(-1, 1, (4000, 2))
    heavy = points[:, 0] > 0
    books = [unit.fit_codebook(points, np.where(heavy, weight, 1.0), 64) for weight in (1, 100)]
    shares = [np.mean(book[:, 0] > 0) for book in books]
    assert shares[0] < 0.6
    assert shares[1] > 0.7


@pytest.mark.parametrize("sh_degree", [0, 2, 3])
def test_what_is_stored_is_what_is_decoded(sh_degree):
    scene = random_scene(300, 5, sh_degree=sh_degree, antialiased=True)
    cut = partition(scene, PartitionDesign())
    stored = scene.select(cut.ids)
    quantized = quantize(stored, SMALL)
    again = quantize(stored, SMALL)
    beats = quantized.beats()
    np.testing.assert_array_equal(beats, again.beats())
    for name, entries, numbers in SMALL.codebooks():
        book = quantized.codebooks[name]
        assert book.shape == (entries, len(numbers))
        np.testing.assert_array_equal(book, again.codebooks[name])
        half = np.abs(book.view(np.float16).astype(float))
        assert ((half == 0) | (half >= 2.0**-14)).all()
        assert quantized.indices[name].max() < entries
        if int(name[2]) > sh_degree if name.startswith("sh") else False:
            assert (book == 0).all()
    records = np.ascontiguousarray(beats).view(np.uint64)
    raw = decode_record(SMALL.fields(), records)
    for name, _, _ in SMALL.fields():
        np.testing.assert_array_equal(raw[name], quantized.indices[name])
    # The hardware's words, summed over stages, are what the float form decodes.
    design = FfuDesign(codebooks=SMALL)
    words = decode_fine(design, quantized.codebooks, records)
    for name, numbers, stages in SMALL.vectors():
        total = sum(np.stack([
            Floating().to_float(words[f"{name}{stage}_{number}"]) for number in numbers], 1)
            for stage in range(len(stages)))
        np.testing.assert_array_equal(total, quantized.vector(name))
    decoded = decode(cut, quantized)
    assert decoded.sh_degree == sh_degree
    assert decoded.antialiased
    vectors = fine_vectors(decoded, FeatureFormat())
    # What the hardware makes of quaternions that are shorter than one.
    w, x, y, z = quantized.vector("rotation").T
    factor = np.stack([
        1 - (y * y + z * z), x * y - w * z, x * z + w * y, x * y + w * z, 1 - (x * x + z * z),
        y * z - w * x, x * z - w * y, y * z + w * x, 1 - (x * x + y * y)], 1).reshape(-1, 3, 3)
    factor[..., 1:] *= np.maximum(quantized.vector("ratios"), 1e-6)[:, None]
    factor *= cut.scales()[:, None, None]
    want = factor @ factor.transpose(0, 2, 1)
    error = np.abs(covariances(decoded) - want).max(axis=(1, 2)) / np.abs(want).max(axis=(1, 2))
    assert error.max() < 3e-3
    # They squeeze, but do not stretch, so that no filter that goes by the scale loses any.
    assert (vectors["scale"] <= cut.scales() * (1 + 2e-3)).all()
    np.testing.assert_allclose(vectors["color"], quantized.vector("color"), atol=1e-5)
    if sh_degree:
        np.testing.assert_allclose(vectors["sh1"], quantized.vector("sh1"), atol=1e-5)
    np.testing.assert_allclose(
        vectors["opacity"][:, 0], quantized.vector("opacity")[:, 0], atol=1e-5, rtol=1e-5)


def test_large_codebooks_hold_a_small_scene():
    scene = random_scene(400, 6, sh_degree=3)
    cut = partition(scene, PartitionDesign())
    decoded = decode(cut, quantize(scene.select(cut.ids), CodebookDesign()))
    want = reference.render(scene, VIEW)
    assert psnr_db(reference.render(decoded, VIEW).image, want.image) > 50
    small = decode(cut, quantize(scene.select(cut.ids), SMALL))
    assert psnr_db(reference.render(small, VIEW).image, want.image) < 40


@pytest.mark.parametrize("sh_degree", [0, 3])
def test_indices_are_found_again(sh_degree):
    """In codebooks that stay: the ones that quantize found, and for other Gaussians the nearest."""
    scene = random_scene(900, 4, sh_degree=sh_degree)
    fitted = quantize(scene, SMALL)
    again = assign(scene, fitted)
    assert again.codebooks is fitted.codebooks
    for key, indices in fitted.indices.items():
        assert np.mean(again.indices[key] != indices) <= (0.02 if key == "opacity0" else 0), key
    other = random_scene(500, 5, sh_degree=sh_degree)
    found = assign(other, fitted)
    vectors = fine_vectors(canonical(other), FeatureFormat())
    book = fitted.codebooks["ratios0"].view(np.float16).astype(float)
    far = np.linalg.norm(vectors["ratios"][:, None] - book, axis=2)
    np.testing.assert_allclose(
        far[np.arange(500), found.indices["ratios0"]], far.min(axis=1), atol=1e-6)


def test_straight_through_keeps_order_axes_and_sides():
    scene = random_scene(800, 6, sh_degree=1)
    cut = partition(scene, PartitionDesign(voxel_size=0.5))
    fitted = quantize(scene.select(cut.ids), SMALL)
    look = straight_through(cut, fitted)
    kept = look(scene)
    decoded = decode(cut, fitted)
    back = np.argsort(cut.ids)
    np.testing.assert_array_equal(kept.means, decoded.means[back])
    np.testing.assert_array_equal(kept.sh, decoded.sh[back])
    want, got = covariances(decoded.select(back)), covariances(kept)
    assert (np.abs(got - want).max(axis=(1, 2)) < 1e-5 * np.abs(want).max(axis=(1, 2))).all()
    # Scales lie along the axes that they had, whatever their order, quaternions beside theirs.
    ranks = np.argsort(np.argsort(-scene.log_scales, axis=1), axis=1)
    assert len(np.unique(ranks, axis=0)) == 6
    assert (np.diff(np.take_along_axis(
        kept.log_scales, np.argsort(-scene.log_scales, axis=1), axis=1), axis=1) <= 0.2).all()
    # Quaternions that come out short squeeze, none stretches.
    grown = kept.log_scales.max(axis=1) - scene.log_scales.max(axis=1)
    assert ((-0.3 < grown) & (grown < 3e-3)).all()
    own = scene.quats / np.linalg.norm(scene.quats, axis=1, keepdims=True)
    along = (kept.quats * own).sum(axis=1)
    assert along.min() >= 0
    assert np.median(along) > 0.95
    np.testing.assert_allclose(np.linalg.norm(kept.quats, axis=1), 1, atol=1e-6)
    # A larger scene follows, and only what changed does.
    grown = look(replace(scene, log_scales=scene.log_scales + 0.5))
    np.testing.assert_allclose(grown.log_scales, kept.log_scales + 0.5, atol=2e-3)
    np.testing.assert_array_equal(grown.opacity_logits, kept.opacity_logits)


def test_no_gaussians():
    empty = random_scene(5, 7, sh_degree=1).select(slice(0, 0))
    cut = partition(empty, PartitionDesign())
    quantized = quantize(empty, SMALL)
    assert quantized.beats().shape == (0, 4)
    assert decode(cut, quantized).gaussians == 0


@pytest.mark.parametrize(("name", "least"), [("inari_fox_50k.ply", 58)])
def test_real_scene(name, least, shared_scene):
    scene = load(shared_scene(name))
    view = default_camera(scene, 320, 240)
    cut = partition(scene, PartitionDesign())
    decoded = decode(cut, quantize(scene.select(cut.ids), CodebookDesign()))
    assert psnr_db(reference.render(decoded, view).image, reference.render(scene, view).image) > (
        least)

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splatforge.algos import reference
from splatforge.algos.quality import psnr_db
from splatforge.algos.streaminggs.partition import camera_cell, ceil_half, partition
from splatforge.designs.streaminggs import PartitionDesign
from splatforge.scenes import Scene, default_camera, load

sys.path.insert(0, str(Path(__file__).parent))
from gaussians import camera, random_scene

REAL = {"inari_fox_50k.ply": 0, "plant_114k.splat": 0, "fourth_st_131k_sh3.spz": 3}


def scene_at(means, log_scales=None):
    count = len(means)
    rng = np.random.default_rng(count)
    return Scene(
        means=np.asarray(means, np.float32).reshape(count, 3),
        log_scales=rng.uniform(-9, 0, (count, 3)) if log_scales is None else log_scales,
        quats=np.ones((count, 4)), opacity_logits=np.zeros(count), sh=np.zeros((count, 1, 3)))


def clustered(seed, count=3000):
    """Crowds in small places, some points in one, and strays far away."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(count, 3)) * 10.0 ** rng.integers(-4, 1, (count, 1))
    means[:300] = means[0]
    means[300:320] *= 10.0 ** rng.integers(2, 7, (20, 1))
    return scene_at(rng.permutation(means) + rng.uniform(-50, 50, 3))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("design", [
    PartitionDesign(), PartitionDesign(capacity=16), PartitionDesign(voxel_size=0.013, capacity=7),
    PartitionDesign(occupied_cells=3)], ids=str)
def test_voxels_hold_the_scene(seed, design):
    scene = clustered(seed)
    cut = partition(scene, design)
    np.testing.assert_array_equal(np.sort(cut.ids), np.arange(scene.gaussians))
    counts = cut.counts_of_voxels
    assert counts.min() >= 1
    assert counts.max() <= design.capacity
    # As the hardware sees it: within half a step of the voxel's cube, and of binary32.
    voxel = cut.voxel_of
    step = np.ldexp(cut.size[voxel].astype(np.float64), -cut.scale_log2)[:, None] / 65536
    means = scene.means[cut.ids].astype(np.float64)
    slack = np.abs(np.ldexp(cut.base[voxel].astype(np.float64), -cut.scale_log2)) * 2.0**-23
    assert (np.abs(cut.means() - means) <= step + slack).all()
    far = np.linalg.norm(
        np.ldexp(cut.means(), cut.scale_log2)
        - (cut.base[voxel] + 1.5 * cut.size[voxel, None].astype(np.float64)), axis=1)
    rho = cut.rho.view(np.float16).astype(np.float64)
    assert (far <= rho[voxel] * (1 + 1e-12)).all()
    assert (np.maximum.reduceat(far, cut.starts[:-1]) >= rho / (1 + 2**-9) - 2.0**-14).all()
    scales = np.exp(scene.log_scales[cut.ids].astype(np.float64)).max(axis=1)
    assert (cut.scales() >= scales).all()
    assert (cut.scales() <= np.maximum(scales * (1 + 2**-10),
                                       2.0**-14 * 2.0**-cut.scale_log2)).all()
    np.testing.assert_array_equal(
        cut.largest_scale, [cut.scale[a:b].max() for a, b in zip(
            cut.starts[:-1], cut.starts[1:], strict=True)])


@pytest.mark.parametrize("seed", range(3))
def test_places_are_those_of_the_means(seed):
    scene = clustered(seed)
    cut = partition(scene, PartitionDesign(capacity=16))
    finest = np.floor((np.ldexp(scene.means[cut.ids].astype(np.float64), cut.scale_log2)
                       - cut.origin) / cut.edge * 8)
    place = np.clip(finest, 0, 8 * cut.counts - 1).astype(int)
    inside = (place == finest).all(axis=1)
    assert 0 < np.count_nonzero(~inside) < 60
    voxel = cut.voxel_of
    np.testing.assert_array_equal(cut.cells[voxel], place >> 3)
    for level in range(1, 4):
        digit = ((place >> (3 - level)) & 1) @ [1, 2, 4]
        deep = cut.levels[voxel] >= level
        np.testing.assert_array_equal((cut.paths[voxel] >> 3 * (level - 1) & 7)[deep], digit[deep])
    assert (cut.paths >> 3 * cut.levels == 0).all()
    # A cube holds its means and no more; beyond the grid it may be larger than a cell.
    lonely = np.zeros(cut.voxels, bool)
    lonely[voxel[~inside]] = True
    assert (cut.size <= np.ldexp(cut.edge, -cut.levels) * (1 + 2**-14))[~lonely].all()
    full = (cut.size > cut.edge / 16) & ~lonely
    spread = np.maximum.reduceat(cut.q.astype(int), cut.starts[:-1]) - np.minimum.reduceat(
        cut.q.astype(int), cut.starts[:-1])
    assert (spread.max(axis=1) >= 65500)[full].all()
    assert not np.isin(voxel[inside], voxel[~inside]).any()
    # A cell that is not halved has few, and no cell is both a voxel and an ancestor of one.
    keys = [tuple(cell) + tuple(path >> 3 * k & 7 for k in range(level)) for cell, level, path in
            zip(cut.cells.tolist(), cut.levels, cut.paths, strict=True)]
    unhalved = set(keys)
    ringed = {key for key, apart in zip(keys, lonely, strict=True) if apart}
    assert not [key for key in unhalved - ringed for end in range(3, len(key))
                if key[:end] in unhalved - ringed]
    raster = cut.cells @ [1, 1 << 10, 1 << 20]
    assert (np.diff(raster) >= 0).all()


def test_too_many_in_one_place_are_cut_into_parts():
    cut = partition(scene_at(np.full((1000, 3), 0.3)), PartitionDesign(capacity=300))
    assert cut.counts_of_voxels.tolist() == [250] * 4
    assert (cut.levels == 3).all()
    assert len(np.unique(cut.paths)) == len(np.unique(cut.base, axis=0)) == 1
    np.testing.assert_allclose(cut.means(), 0.3, atol=1e-5)
    np.testing.assert_array_equal(cut.ids, np.arange(1000))


@given(count=st.integers(1, 60), exponent=st.integers(-12, 12), data=st.data())
@settings(max_examples=40, deadline=None)
def test_units_do_not_matter(count, exponent, data):
    coordinate = st.floats(-4, 4, width=16)
    drawn = data.draw(st.lists(
        st.tuples(coordinate, coordinate, coordinate), min_size=count, max_size=count))
    means = np.array([*drawn, (1, 0, 0), (0, 2, 0)])
    near, far = scene_at(means), scene_at(np.ldexp(means, exponent))
    design = PartitionDesign(sparsest=1, capacity=4)
    one, other = partition(near, design), partition(far, design)
    assert other.voxel_size == np.ldexp(one.voxel_size, exponent)
    np.testing.assert_array_equal(one.ids, other.ids)
    table = one.table()
    np.testing.assert_array_equal(table[:, :7], other.table()[:, :7])
    assert one.edge == other.edge
    assert 1 <= one.edge < 2


def test_memory_image():
    scene = clustered(5)
    cut = partition(scene, PartitionDesign(capacity=16))
    fine = np.random.default_rng(1).integers(0, 1 << 32, (scene.gaussians, 4), dtype=np.uint32)
    table, memory = cut.table(), cut.beats(fine)
    seen = set()
    assert table.dtype == memory.dtype == np.uint32
    end = 0
    for voxel, words in enumerate(table.astype(np.int64)):
        count, level, path = words[5] & 0x3FF, words[5] >> 16 & 3, words[5] >> 18
        assert words[4] == end
        coarse = memory[end:end + (count + 1) // 2].reshape(-1, 2)
        end += (count + 1) // 2
        of = np.arange(cut.starts[voxel], cut.starts[voxel + 1])
        assert len(of) == count
        # By descending scale.
        of = of[np.argsort(-cut.scale[of].astype(int), kind="stable")]
        np.testing.assert_array_equal(
            of, cut.in_memory[cut.starts[voxel]:cut.starts[voxel + 1]])
        scale = cut.scale[of].view(np.float16).astype(float)
        for n, part in enumerate((2, 4, 8)):
            octave, beyond = words[5] >> (10 + 2 * n) & 3, scale[4 * -(-count // (4 * part)):]
            if not len(beyond):
                assert octave == 0
                continue
            assert (beyond * 2.0**octave <= scale[0]).all()
            assert octave == 3 or beyond[0] * 2.0 ** (octave + 1) > scale[0]
            seen.add((n, int(octave)))
        words64 = coarse[:count, 0] | coarse[:count, 1].astype(np.uint64) << np.uint64(32)
        for axis in range(3):
            np.testing.assert_array_equal(
                words64 >> np.uint64(16 * axis) & np.uint64(0xFFFF), cut.q[of, axis])
        np.testing.assert_array_equal(words64 >> np.uint64(48), cut.scale[of])
        assert (coarse[count:] == 0).all()
        np.testing.assert_array_equal(memory[end:end + count], fine[of])
        end += count
        *base, size = table[voxel, :4].view(np.float32)
        assert (base == cut.base[voxel]).all()
        assert size == cut.size[voxel]
        assert (level, path) == (cut.levels[voxel], cut.paths[voxel])
        assert [words[6] >> 10 * k & 1023 for k in range(3)] == cut.cells[voxel].tolist()
        assert (words[7] & 0xFFFF, words[7] >> 16) == (cut.rho[voxel], cut.scale[of].max())
    assert end == len(memory)
    assert len(seen) == 12
    assert (cut.beats()[table[0, 4] + (table[0, 5] & 0x3FF) // 2 + 1] == 0).all()


def test_empty_scene():
    cut = partition(scene_at(np.zeros((0, 3))), PartitionDesign())
    assert (cut.voxels, cut.gaussians, cut.voxel_size, cut.occupied_cells) == (0, 0, 1.0, 0)
    assert cut.table().shape == (0, 8)
    assert cut.beats().shape == (0, 4)
    assert len(cut.largest_scale) == len(cut.means()) == cut.decode().gaussians == 0


def test_stored_camera_sees_the_same():
    scene, view = random_scene(300, 3, sh_degree=2), camera(97, 61)
    cut = partition(scene, PartitionDesign(voxel_size=0.003))
    assert cut.scale_log2 == 9
    stored = Scene(
        means=np.ldexp(scene.means, 9), log_scales=scene.log_scales + 9 * np.log(2),
        quats=scene.quats, opacity_logits=scene.opacity_logits, sh=scene.sh)
    got = reference.render(stored, cut.stored_camera(view))
    assert psnr_db(got.image, reference.render(scene, view).image) > 90
    np.testing.assert_array_equal(
        camera_cell(cut, view), np.clip(np.floor(-cut.origin / cut.edge * 8), -32768, 32767))


def test_decoded_scene_looks_the_same():
    scene, view = random_scene(400, 1, sh_degree=1), camera(149, 101)
    decoded = partition(scene, PartitionDesign()).decode()
    want = reference.render(scene, view)
    assert psnr_db(reference.render(decoded, view).image, want.image) > 60


@given(st.lists(st.floats(0, 60000), min_size=1))
@settings(deadline=None)
def test_ceil_half(values):
    values = np.array(values)
    words = ceil_half(values)
    half = words.view(np.float16).astype(np.float64)
    assert (half >= values).all()
    below = np.maximum(words, 1) - 1
    assert (np.where(words > 0x400, below.astype(np.uint16).view(np.float16), 0) < np.where(
        words > 0, values, 1)).all()
    assert not ((words > 0) & (words < 0x400)).any()
    assert ceil_half([0, 1e9, 65504]).tolist() == [0, 0x7BFF, 0x7BFF]


@pytest.mark.parametrize(("values", "message"), [
    ({"voxel_size": -1}, "Voxel size must be positive, or 0 to choose one, not -1"),
    ({"voxel_size": float("inf")}, "Voxel size must be positive, or 0 to choose one, not inf"),
    ({"occupied_cells": 0}, "Occupied cells must be at least 1, not 0"),
    ({"sparsest": 0}, "Sparsest must be at least 1, not 0"),
    ({"capacity": 0}, "Capacity must be 1 to 1023 Gaussians, not 0"),
    ({"capacity": 65536}, "Capacity must be 1 to 1023 Gaussians, not 65536"),
])
def test_wrong_parameters_are_named(values, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        PartitionDesign(**values)


def test_edge_that_is_far_too_small_is_named():
    message = "Voxel size must be at least 1e-24 of the farthest mean, not 1e-30"
    with pytest.raises(ValueError, match=re.escape(message)):
        partition(scene_at([[1e12, 0, 0]]), PartitionDesign(voxel_size=1e-30))


@pytest.mark.parametrize("name", REAL)
def test_real_scenes(name, shared_scene):
    scene = load(shared_scene(name))
    cut = partition(scene, PartitionDesign())
    assert 1000 <= cut.occupied_cells < 2000
    view = default_camera(scene, 160, 120)
    want = reference.render(scene, view)
    assert psnr_db(reference.render(cut.decode(), view).image, want.image) > 55

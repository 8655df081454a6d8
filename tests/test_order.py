import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splatforge.algos import reference
from splatforge.algos.gradient import trace
from splatforge.algos.project import project, tile_spans
from splatforge.algos.quality import psnr_db
from splatforge.algos.streaminggs.order import (
    LISTS,
    OrderWeights,
    kahn,
    order_lists,
    order_weights,
    ray_graph,
    reach_rectangles,
    streaming_order,
    voxel_keys,
    voxel_lists,
    voxel_ranks,
)
from splatforge.algos.streaminggs.partition import partition
from splatforge.algos.workers import Workers
from splatforge.designs.streaminggs import PartitionDesign
from splatforge.scenes import Camera, Scene, default_camera, load

sys.path.insert(0, str(Path(__file__).parent))
from gaussians import camera, random_scene


def cluster(seed, capacity, voxel_size=0.5, count=600, strays=True):
    """A cut of points that fill an octree to all its levels."""
    rng = np.random.default_rng(seed)
    means = rng.uniform(-1, 1, (count, 3))
    means[:count // 2] = 0.3 + 0.2 * rng.normal(size=(count // 2, 3)) ** 3
    if strays:
        # More than 1024 cells away: border cells have no outer wall.
        means[:4] = rng.normal(size=(4, 3)) * 3000
    scene = Scene(
        means=means, log_scales=np.full((count, 3), -3.0), quats=np.ones((count, 4)),
        opacity_logits=np.zeros(count), sh=np.zeros((count, 1, 3)))
    return partition(scene, PartitionDesign(voxel_size=voxel_size, capacity=capacity))


def look(eye, target, side=24):
    """Wide where the eye is near, and so that the scene fills the image where it is far."""
    distance = np.linalg.norm(np.subtract(eye, target))
    return Camera.look_at(eye, target, (0.1, 0.9, 0.3), width=side, height=side,
                          fx=side * max(0.4, distance / 3))


def check_order(cut, view, weights=None):
    """The key orders every ray's voxels, and is what Kahn's algorithm gives with it for ties."""
    graph, keys = ray_graph(cut, view, 8), voxel_keys(cut, view, weights)
    ranks = voxel_ranks(cut, view, weights)
    assert keys.max() < 1 << 21
    first = np.unique(graph.node_of, return_index=True)[1]
    before, after = graph.edges.T
    assert (keys[first][before] < keys[first][after]).all()
    order = kahn(len(first), graph.edges, ranks[first])
    np.testing.assert_array_equal(order, np.argsort(ranks[first]))
    # Parts of one place follow each other.
    assert all(np.ptp(ranks[graph.node_of == node]) == np.count_nonzero(graph.node_of == node) - 1
               for node in np.unique(graph.node_of[cut.levels == 3]))
    return graph


@given(
    seed=st.integers(0, 1 << 20), strays=st.sampled_from([False] * 7 + [True]),
    capacity=st.sampled_from([1, 3, 20, 1000]),
    weights=st.sampled_from([None, OrderWeights(), OrderWeights(
        cells=(9, 1, 50), children=(1, 5, 1))]),
    eye=st.tuples(*[st.floats(-3, 3)] * 3), on_wall=st.tuples(*[st.booleans()] * 3),
    target=st.tuples(*[st.floats(-1, 1)] * 3))
@settings(max_examples=30, deadline=None)
def test_keys_are_a_topological_order(
    seed, strays, capacity, weights, eye, on_wall, target,
):
    cut = cluster(seed, capacity, strays=strays)
    # Walls are exact: an eye on one, or on an edge or a corner of a cell, is where it says.
    at = np.where(on_wall, np.round(np.array(eye) * 16) / 16, eye)
    if np.linalg.norm(at - target) < 1e-3:
        at = np.add(at, [0.5, 0.25, 0.125])
    if strays and weights:
        weights = OrderWeights()
    graph = check_order(cut, look(at, target, 12), weights)
    assert len(graph.edges) or capacity == 1000


@pytest.mark.parametrize("eye", [
    (5000, 3, 2), (-4000, -4000, 4000), (0, 0, 0), (0.25, 0.25, 0.25), (300, 0.1, 0.1)])
def test_order_from_far_and_from_corners(eye):
    graph = check_order(cluster(1, 3), look(eye, (0.05, -0.02, 0.01)))
    assert len(graph.edges) > 10


def test_keys_are_what_they_say():
    """One scene by hand: base cells of edge 1, the eye in the cell (1, 1, 0), near its low x."""
    means = [(0.5, 0.5, 0.5), (3.5, 0.5, 0.5), (1.1, 1.1, 0.9), (1.9, 1.1, 0.1), (1.9, 1.9, 0.9)]
    scene = Scene(
        means=np.array([*means, (0.1, 0.1, 0.1)]), log_scales=np.zeros((6, 3)),
        quats=np.ones((6, 4)), opacity_logits=np.zeros(6), sh=np.zeros((6, 1, 3)))
    cut = partition(scene, PartitionDesign(voxel_size=1, capacity=2))
    view = look((1.2, 1.2, 0.2), (1.2, 1.2, 5))
    weights = OrderWeights(cells=(2, 3, 5), children=(1, 2, 4))
    keys = voxel_keys(cut, view, weights)[cut.voxel_of_id]
    # The cell of three is halved: z high is farther, x high, all three high.
    assert (keys >> 6).tolist() == [
        5 << 3, (2 * 2 + 3) << 3, 4, 1, 7, 5 << 3]
    assert voxel_ranks(cut, view, weights)[cut.voxel_of_id].tolist() == [3, 4, 1, 0, 2, 3]


def test_weights_follow_the_view():
    cut = cluster(4, 8, strays=False)
    weights = order_weights(cut, look((-3, -2, -1), (0, 0, 0)))
    x, y, z = weights.cells
    assert x > y > z
    assert weights.children == (4, 2, 1) or weights.children == (3, 2, 1)
    assert abs(y / x - 2 / 3) < 0.02
    assert x > 100
    # Across a grid of 1024 cells no distance may overflow.
    wide = order_weights(cluster(4, 8), look((5000, 3, 2), (0, 0, 0)))
    assert np.dot(wide.cells, [1023, 1023, 1023]) < 1 << 12


@pytest.mark.parametrize(("values", "message"), [
    ({"cells": (1, 0, 1)}, r"Weights of cells must be 1 to 255, not \(1, 0, 1\)"),
    ({"cells": (256, 1, 1)}, r"Weights of cells must be 1 to 255, not \(256, 1, 1\)"),
    ({"children": (0, 1, 1)},
     r"Weights of children must be positive, at most 7 together, not \(0, 1, 1\)"),
    ({"children": (4, 3, 1)},
     r"Weights of children must be positive, at most 7 together, not \(4, 3, 1\)"),
])
def test_wrong_weights_are_named(values, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        OrderWeights(**values)


def test_distance_that_overflows_is_named():
    with pytest.raises(ValueError, match=r"^Distance of a cell must be below 4096, not \d+$"):
        voxel_keys(cluster(1, 3), look((5000, 3, 2), (0, 0, 0)), OrderWeights(cells=(9, 9, 9)))


def test_axes_parallel_rays_have_an_order():
    view = Camera(width=21, height=15, fx=20, fy=20, cx=10.5, cy=7.5, w2c=np.eye(4))
    cut = cluster(2, 3)
    graph = check_order(cut, replace(view, w2c=np.array(
        [[1, 0, 0, -0.25], [0, 1, 0, -0.25], [0, 0, 1, 2], [0, 0, 0, 1.0]])))
    assert len(graph.edges) > 10


def test_every_ray_is_walked_as_its_points_say():
    """Cells at finely sampled points of rays are met by the walk, and nearly all the other way."""
    cut, view = cluster(3, 3, strays=False), look((-1.7, -0.4, -1.3), (0, 0, 0))
    exact, sampled = ray_graph(cut, view, 8), ray_graph(cut, view, 8, spacing=1e-3)
    assert not (sampled.met & ~exact.met).any()
    assert np.count_nonzero(exact.met & ~sampled.met) < 0.01 * np.count_nonzero(exact.met)
    coarse = ray_graph(cut, view, 8, spacing=0.5)
    assert np.count_nonzero(coarse.met) < np.count_nonzero(exact.met)


def test_kahn():
    edges = np.array([[0, 2], [1, 2], [2, 3]])
    assert kahn(5, edges, [5, 1, 0, 0, 7]).tolist() == [1, 0, 2, 3, 4]
    assert kahn(0, np.zeros((0, 2), np.int64), []).tolist() == []
    with pytest.raises(ValueError, match=r"^Graph must have no cycle, but 3 nodes are in one$"):
        kahn(4, np.array([[1, 2], [2, 3], [3, 1]]), [0] * 4)


def drawn(scene, view, group_tiles):
    """Which Gaussians the reference draws in which groups: pairs of group and id, by its lists."""
    projected = project(scene, view)
    tiles_x, tiles_y = -(-view.width // 16), -(-view.height // 16)
    spans = tile_spans(projected.mean_px, projected.radius_px, tiles_x, tiles_y, Workers(1))
    limit = 2 * np.log(255 * np.maximum(projected.opacity.astype(float), 1e-9))
    a, b, c = projected.conic.astype(float).T
    variances = np.stack([c, a], axis=1) / (a * c - b * b)[:, None]
    reach = np.sqrt(np.maximum(limit, 0)[:, None] * variances)
    pairs = set()
    for k in np.flatnonzero(limit > 0):
        # Pixels count at their centres.
        first = np.ceil(projected.mean_px[k] - reach[k] - 0.5)
        low = first // 16
        high = np.minimum(np.floor(projected.mean_px[k] + reach[k] - 0.5),
                          (view.width - 1, view.height - 1)) // 16
        if (first > (view.width - 1, view.height - 1)).any():
            continue
        x0, y0 = np.maximum(low, spans[k, :2]).astype(int)
        x1, y1 = np.minimum(high + 1, spans[k, 2:]).astype(int)
        for y in range(y0, y1):
            for x in range(x0, x1):
                group = y // group_tiles * -(-tiles_x // group_tiles) + x // group_tiles
                pairs.add((group, int(projected.ids[k])))
    return np.array(sorted(pairs))


@pytest.mark.parametrize("group_tiles", [1, 2])
@pytest.mark.parametrize("needles", [False, True])
@pytest.mark.parametrize("near", [0.2, 3.0])
def test_lists_by_reach_lose_nothing(group_tiles, needles, near):
    scene, view = random_scene(500, 4, needles=needles), replace(camera(149, 101), near=near)
    cut = partition(scene, PartitionDesign(capacity=8))
    group, ids = drawn(scene, view, group_tiles).T
    voxel = cut.voxel_of_id[ids]
    listed = {lists: voxel_lists(cut, view, group_tiles, lists) for lists in LISTS}
    assert listed["reach"][group, voxel].all()
    assert not (listed["reach"] & ~listed["dda+reach"]).any()
    # Points on rays miss what reaches over from voxels that no ray crosses.
    assert not listed["sampling"][group, voxel].all()
    assert np.count_nonzero(listed["reach"]) < listed["reach"].size


def test_rectangles_are_near_what_is_drawn():
    """A voxel of one Gaussian has a rectangle not much larger than the Gaussian."""
    scene, view = random_scene(200, 5), camera(149, 101)
    scene = replace(scene, log_scales=np.full((200, 3), -3.0), opacity_logits=np.full(200, 9.0))
    cut = partition(scene, PartitionDesign(capacity=1))
    projected = project(scene, view)
    rectangle = reach_rectangles(cut, view)[cut.voxel_of_id[projected.ids]]
    width = rectangle[:, 2:] - rectangle[:, :2]
    a, b, c = projected.conic.astype(float).T
    variances = np.stack([c, a], axis=1) / (a * c - b * b)[:, None]
    assert (width > 2 * 3.32 * np.sqrt(variances)).all()
    assert np.median(width / (2 * 3.32 * np.sqrt(variances))) < 2


def test_lists_are_ordered_voxel_by_voxel():
    scene, view = random_scene(800, 6), camera(96, 64)
    cut = partition(scene, PartitionDesign(capacity=8))
    by_depth = trace(scene, view)
    got = trace(scene, view, order=streaming_order(cut))
    ranks = voxel_ranks(cut, view)[cut.voxel_of_id[by_depth.ids]]
    for tile in range(got.lists.tiles):
        part = slice(got.lists.starts[tile], got.lists.starts[tile + 1])
        entries = got.lists.entries[part]
        assert sorted(entries) == sorted(by_depth.lists.entries[part])
        keys = list(zip(ranks[entries], by_depth.depth[entries], entries, strict=True))
        assert keys == sorted(keys)
    assert np.array_equal(got.lists.starts, by_depth.lists.starts)
    assert 25 < psnr_db(got.image, by_depth.image) < 60
    # A scene that is one voxel is in order.
    whole = partition(
        replace(scene, means=scene.means + 10), PartitionDesign(voxel_size=100, capacity=1000))
    assert whole.voxels == 1
    same = order_lists(whole, view, by_depth.ids, by_depth.depth, got.lists)
    np.testing.assert_array_equal(same.entries, by_depth.lists.entries)


@pytest.mark.parametrize("name", ["inari_fox_50k.ply", "plant_114k.splat"])
def test_real_scene_loses_nothing(name, shared_scene):
    scene = load(shared_scene(name))
    view = default_camera(scene, 160, 120)
    cut = partition(scene, PartitionDesign())
    check_order(cut, view)
    group, ids = drawn(scene, view, 2).T
    assert voxel_lists(cut, view, 2)[group, cut.voxel_of_id[ids]].all()
    image = trace(scene, view, order=streaming_order(cut)).image
    assert psnr_db(image, reference.render(scene, view).image) > 30

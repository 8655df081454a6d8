"""Level-of-detail trees and their cuts: every cut covers the scene once, however it is found."""

import itertools
import json
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splatforge.algos.voyager.build import build, build_chunk, cluster
from splatforge.algos.voyager.merge import SH_COLUMN, boxes, rows_of
from splatforge.algos.voyager.partition import partition
from splatforge.algos.voyager.path import search_path
from splatforge.algos.voyager.search import Search, follow_ahead, unchanged
from splatforge.algos.voyager.tree import LodTree, grow
from splatforge.designs.lod import SearchDesign, TreeDesign
from splatforge.scenes import Camera, Scene, SceneError, merge

ARRAYS = ("level_start", "parent", "first_child", "subtree", "roots", "box", "rows")


def some_scene(seed, count, degree=1, spread=10.0):
    """A crowd, some of it in one place, with sizes over three decades."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(count, 3)) * spread * rng.choice([0.01, 0.3, 1.0], (count, 1))
    means[: count // 8] = means[0]
    return Scene(
        means=means, log_scales=rng.uniform(-5, 1, (count, 3)), quats=rng.normal(size=(count, 4)),
        opacity_logits=rng.normal(size=count) * 3,
        sh=rng.normal(size=(count, (degree + 1) ** 2, 3)))


def random_tree(seed, nodes, subtree_nodes):
    """Any tree: fan-out 1 to 5, boxes within boxes, many of them equal or flat."""
    rng = np.random.default_rng(seed)
    parent, first_child, level_start = [-1], [], [0]
    while len(first_child) < len(parent):
        node = len(first_child)
        if node == len(parent) or parent[node] >= level_start[-1]:
            level_start.append(node)
        first_child.append(len(parent))
        left = nodes - len(parent)
        if left > 0 and (rng.random() < 0.6 or node == len(parent) - 1):
            parent += [node] * min(left, int(rng.integers(1, 6)))
    level_start.append(len(parent))
    first_child.append(len(parent))
    first_child = np.array(first_child, np.int32)
    box = np.zeros((len(parent), 6), np.float32)
    for node in range(len(parent) - 1, -1, -1):
        children = box[first_child[node]:first_child[node + 1]]
        if len(children):
            box[node] = np.r_[children[:, :3].min(axis=0), children[:, 3:].max(axis=0)]
        else:
            low = rng.normal(size=3) * 10.0
            box[node] = np.r_[low, low + rng.choice([0.0, 0.1, 1.0]) * rng.random(3)]
    subtree, roots = partition(first_child, subtree_nodes)
    return LodTree(
        level_start=np.array(level_start), parent=np.array(parent, np.int32),
        first_child=first_child, subtree=subtree, roots=roots, box=box,
        rows=np.zeros((len(parent), SH_COLUMN + 3), np.float32), antialiased=False,
        design=TreeDesign(subtree_nodes=subtree_nodes))


def naive_cut(tree, camera, tau_px):
    """The rule, node by node, in numpy's order of operations."""
    low, high = tree.box[:, :3].astype(np.float64), tree.box[:, 3:].astype(np.float64)
    away = np.maximum(np.maximum(low - camera.position, camera.position - high), 0)
    square = away[:, 0] ** 2 + away[:, 1] ** 2 + away[:, 2] ** 2
    edge = (tree.box[:, 3:] - tree.box[:, :3]).max(axis=1).astype(np.float64)
    fine = max(camera.fx, camera.fy) / tau_px * edge < np.maximum(np.sqrt(square), camera.near)
    cut, stack = [], [0]
    while stack:
        node = stack.pop()
        children = range(tree.first_child[node], tree.first_child[node + 1])
        if fine[node] or not children:
            cut.append(node)
        else:
            stack += children
    return np.sort(np.array(cut, np.int32))


def covers(tree, ids):
    """Whether every leaf has exactly one node of the cut above it, or is one."""
    above = np.zeros(tree.nodes, int)
    above[ids] += 1
    for node in range(1, tree.nodes):
        above[node] += above[tree.parent[node]]
    return (above[np.diff(tree.first_child) == 0] == 1).all()


def view(eye, fx=500.0, near=0.01):
    w2c = np.eye(4)
    w2c[:3, 3] = -np.asarray(eye, np.float64)
    return Camera(width=640, height=480, fx=fx, fy=fx, cx=320, cy=240, w2c=w2c, near=near)


@st.composite
def walks(draw):
    """Eyes from near to far, by steps from none to a jump."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    eye = rng.normal(size=3) * 30
    eyes = []
    for _ in range(draw(st.integers(1, 6))):
        eye = eye + rng.normal(size=3) * 10.0 ** draw(st.integers(-4, 2))
        eyes.append(eye)
    return eyes


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), nodes=st.integers(1, 400), eyes=walks(),
       subtree_nodes=st.sampled_from([1, 2, 7, 64, 512]), tau=st.floats(0.5, 300),
       block=st.sampled_from([1, 16, 1024]), alike=st.sampled_from([None, 0, 1, 2]))
def test_all_searches_find_the_same_valid_cut(seed, nodes, eyes, subtree_nodes, tau, block, alike):
    tree = random_tree(seed, nodes, subtree_nodes)
    near = 0.01
    if alike is not None:
        # A node that is exactly as long as the near plane is far.
        edges = (tree.box[:, 3:] - tree.box[:, :3]).max(axis=1).astype(np.float64)
        near = 500.0 / tau * edges[min(alike, tree.nodes - 1)] or near
    design = SearchDesign(tau_px=tau, block_nodes=block)
    searches = [Search(tree, design), Search(tree, replace(design, safe_distance=False))]
    whole = Search(tree, design)
    before = np.empty(0, np.int32)
    for number, eye in enumerate(eyes):
        # A lens that changes once leaves nothing safe.
        camera = view(eye, 500.0 if number != 3 else 800.0, near)
        full = whole.full(camera)
        np.testing.assert_array_equal(full.ids, naive_cut(tree, camera, tau))
        assert covers(tree, full.ids)
        assert full.tested <= full.visited <= tree.nodes
        for search in searches:
            found = search.step(camera)
            np.testing.assert_array_equal(found.ids, full.ids)
            assert found.ids.dtype == np.int32
            np.testing.assert_array_equal(found.added, np.setdiff1d(full.ids, before))
            np.testing.assert_array_equal(
                found.removed, np.setdiff1d(before, full.ids))
        before = full.ids


def test_a_node_as_long_as_the_near_plane_is_far():
    """Above the cut up to there, and not behind: it is not safe for ever."""
    box = np.array([[0, 0, 0, 1, 1, 1], [0, 0, 0, 0.5, 1, 1], [0.5, 0, 0, 1, 1, 1]], np.float32)
    tree = replace(
        random_tree(0, 1, 8), level_start=np.array([0, 1, 3]),
        parent=np.array([-1, 0, 0], np.int32), first_child=np.array([1, 3, 3, 3], np.int32),
        subtree=np.zeros(3, np.int32), box=box, rows=np.zeros((3, SH_COLUMN + 3), np.float32))
    search, whole = Search(tree, SearchDesign()), Search(tree, SearchDesign())
    for away, cut in ((0.5, [1, 2]), (0.5, [1, 2]), (1.5, [0]), (0.99, [1, 2])):
        camera = view((-away, 0.5, 0.5), fx=6.0, near=1.0)
        assert search.step(camera).ids.tolist() == whole.full(camera).ids.tolist() == cut


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 300), fan_out=st.integers(2, 9),
       median_level=st.sampled_from([0, 2, 24]))
def test_a_tree_holds_the_scene(seed, count, fan_out, median_level):
    scene = some_scene(seed, count)
    tree = grow(scene, TreeDesign(fan_out=fan_out, median_level=median_level, subtree_nodes=16))
    leaf = np.diff(tree.first_child) == 0
    assert tree.leaves == leaf.sum() == count
    rows = rows_of(scene)
    kept = tree.rows[leaf]
    np.testing.assert_array_equal(kept[np.lexsort(kept.T)], rows[np.lexsort(rows.T)])
    assert (np.diff(tree.first_child)[~leaf] <= fan_out).all()
    assert (np.diff(tree.first_child)[~leaf] >= 2).all()
    node = np.arange(1, tree.nodes)
    above = tree.parent[1:]
    assert (tree.first_child[above] <= node).all()
    assert (node < tree.first_child[above + 1]).all()
    assert (tree.box[above, :3] <= tree.box[1:, :3]).all()
    assert (tree.box[above, 3:] >= tree.box[1:, 3:]).all()
    level = np.searchsorted(tree.level_start, np.arange(tree.nodes), side="right")
    assert (level[1:] == level[above] + 1).all()
    assert (np.diff(tree.subtree[tree.roots]) == 1).all()
    assert np.bincount(tree.subtree).max() <= 16
    tree.scene(np.arange(tree.nodes))  # finite, and quaternions of some length


def matrices(quats):
    w, x, y, z = (quats / np.linalg.norm(quats, axis=1, keepdims=True)).T
    return np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]]).transpose(2, 0, 1)


def covariances(rows):
    spread = matrices(rows[:, 6:10].astype(np.float64)) * np.exp(
        rows[:, None, 3:6].astype(np.float64))
    return spread @ spread.transpose(0, 2, 1)


@pytest.mark.parametrize("seed", range(3))
def test_a_node_has_the_moments_of_the_leaves_below(seed):
    tree = grow(some_scene(seed, 200, degree=3), TreeDesign(fan_out=3))
    leaf = np.diff(tree.first_child) == 0
    rows = tree.rows.astype(np.float64)
    cov = covariances(tree.rows)
    scales = np.sort(np.exp(rows[:, 3:6]), axis=1)
    area = scales[:, 1] * scales[:, 2]
    weight = area / (1 + np.exp(-rows[:, 10]))
    members = [np.flatnonzero([node == i]) for i, node in enumerate(range(tree.nodes))]
    for node in range(tree.nodes - 1, 0, -1):
        members[tree.parent[node]] = np.r_[
            members[tree.parent[node]], members[node]] if not leaf[node] else np.r_[
            members[tree.parent[node]], node]
    for node in np.flatnonzero(~leaf):
        below = np.array([i for i in members[node] if leaf[i]])
        share = weight[below] / weight[below].sum()
        mean = share @ rows[below, :3]
        offset = rows[below, :3] - mean
        expected = np.einsum("n,nij->ij", share, cov[below]) + np.einsum(
            "n,ni,nj->ij", share, offset, offset)
        np.testing.assert_allclose(rows[node, :3], mean, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(cov[node], expected, rtol=1e-4, atol=1e-4 * expected.max())
        np.testing.assert_allclose(rows[node, SH_COLUMN:], share @ rows[below, SH_COLUMN:],
                                   rtol=1e-3, atol=1e-4)
        covered = min(max(weight[below].sum() / area[node], 1e-6), 1 - 1e-6)
        assert 1 / (1 + np.exp(-rows[node, 10])) == pytest.approx(covered, rel=1e-3)


def test_a_box_holds_three_standard_deviations():
    scene = some_scene(0, 50)
    found = boxes(rows_of(scene))
    reach = 3 * np.sqrt(np.einsum("nii->ni", covariances(rows_of(scene))))
    np.testing.assert_allclose(found, np.hstack([scene.means - reach, scene.means + reach]),
                               rtol=1e-4, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), nodes=st.integers(1, 11), most=st.integers(1, 6))
def test_subtrees_are_the_fewest(seed, nodes, most):
    tree = random_tree(seed, nodes, most)
    parent = tree.parent
    assert np.bincount(tree.subtree).max() <= most
    for node in range(1, tree.nodes):
        own = tree.subtree[parent[node]] != tree.subtree[node]
        assert own == (node in tree.roots)

    def fits(cut):
        top = np.arange(tree.nodes)
        for node in range(1, tree.nodes):
            if node not in cut:
                top[node] = top[parent[node]]
        return np.bincount(top).max() <= most

    fewest = next(
        count for count in range(tree.nodes)
        if any(fits(cut) for cut in itertools.combinations(range(1, tree.nodes), count)))
    assert len(tree.roots) == fewest + 1


def test_the_file_is_that_of_the_tree_however_it_is_built(tmp_path):
    scene = some_scene(5, 700)
    means = scene.means.copy()
    means[100:140] = means[100]  # nothing but the number tells these apart
    scene = Scene(**{name: getattr(scene, name) for name in (
        "log_scales", "quats", "opacity_logits", "sh")}, means=means)
    parts = [lambda part=part: scene.select(part)
             for part in (slice(0, 300), slice(300, 301), slice(301, 700))]
    written = set()
    for chunk in (1, 13, 100, 10_000):
        design = TreeDesign(chunk_gaussians=chunk, subtree_nodes=20)
        told = []
        build(parts, tmp_path / "some.lod", design,
              progress=lambda stage, done, total, told=told: told.append((stage, done, total)))
        assert {stage for stage, _, _ in told} == {"reading", "splitting", "building", "writing"}
        assert all(0 <= done <= total for _, done, total in told)
        tree, whole = LodTree.open(tmp_path / "some.lod", verify=True), grow(scene, design)
        for name in ARRAYS:
            np.testing.assert_array_equal(getattr(tree, name), getattr(whole, name), err_msg=name)
        assert tree.design == design
        assert not tree.antialiased
        written.add((tmp_path / "some.lod").read_bytes()[4096:])
    assert len(written) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["some.lod"]


def test_copies_stand_side_by_side(tmp_path):
    scene = some_scene(6, 90)
    build([lambda: scene], tmp_path / "some.lod", TreeDesign(chunk_gaussians=50), tiles=(3, 2))
    tree = LodTree.open(tmp_path / "some.lod", verify=True)
    size = scene.bbox_max.astype(np.float64) - scene.bbox_min
    across, along = np.argsort(size)[:-3:-1]
    copies = []
    for i, j in itertools.product(range(3), range(2)):
        move = np.zeros(3, np.float32)
        move[across], move[along] = i * size[across], j * size[along]
        copies.append(Scene(**{name: getattr(scene, name) for name in (
            "log_scales", "quats", "opacity_logits", "sh")}, means=scene.means + move))
    expected = rows_of(merge(copies))
    kept = tree.rows[np.diff(tree.first_child) == 0]
    np.testing.assert_array_equal(kept[np.lexsort(kept.T)], expected[np.lexsort(expected.T)])


def test_copies_that_would_be_too_far_are_refused(tmp_path):
    scene = some_scene(6, 9)
    wide = replace(scene, means=scene.means * np.float32(1e10))
    with pytest.raises(SceneError, match=r"copies must lie within 1e\+12 of the origin, not reach"):
        build([lambda: wide], tmp_path / "some.lod", TreeDesign(), tiles=(99, 1))
    assert not list(tmp_path.iterdir())


def test_parts_that_do_not_fit_are_named(tmp_path):
    scene = some_scene(1, 10)
    flagged = replace(scene, antialiased=True)
    for parts, message in (
            ([], "parts must be at least one scene, not none"),
            ([lambda: scene, lambda: scene.select(slice(0))], "part 1 must have at least one"),
            ([lambda: scene, lambda: flagged], "antialiased must be the same in all parts")):
        with pytest.raises(SceneError, match=message):
            build(parts, tmp_path / "some.lod", TreeDesign())
    assert not list(tmp_path.iterdir())
    calls = iter([scene, scene.select(slice(5))])
    with pytest.raises(SceneError, match="part 0 must stay as it is"):
        build([lambda: next(calls)], tmp_path / "some.lod", TreeDesign())
    with pytest.raises(SceneError, match="cannot be written"):
        build([lambda: scene], tmp_path / "gone" / "some.lod", TreeDesign())
    assert not list(tmp_path.iterdir())


def test_parts_may_have_other_degrees(tmp_path):
    plain, rich = some_scene(1, 30, degree=0), some_scene(2, 30, degree=2)
    build([lambda: plain, lambda: rich], tmp_path / "some.lod", TreeDesign())
    tree = LodTree.open(tmp_path / "some.lod")
    assert tree.sh_degree == 2
    assert tree.scene(np.flatnonzero(np.diff(tree.first_child) == 0)).sh_degree == 2


def damaged(data, at, value=None):
    return data[:at] + bytes([data[at] ^ 1 if value is None else value]) + data[at + 1:]


def test_a_file_that_is_cut_short_or_damaged_is_refused(tmp_path):
    path = tmp_path / "some.lod"
    build([lambda: some_scene(3, 100)], path, TreeDesign())
    data = path.read_bytes()
    cases = {
        "size must be at least 4096 bytes, not 100": data[:100],
        "size must be .* bytes, not .*: the file is cut short": data[:-1],
        "magic must be": b"ply\n" + data,
        "version must be 1, not 9": data[:8] + struct.pack("<I", 9) + data[12:],
        "header does not have its checksum": damaged(data, 40),
        "parent does not have its checksum": damaged(data, 8192 + 4),
        "rows does not have its checksum": damaged(data, len(data) - 1),
    }
    for message, content in cases.items():
        path.write_bytes(content)
        with pytest.raises(SceneError, match=message):
            LodTree.open(path, verify=True)
    # What is small is read at once in any case: a search believes it.
    for message in ("parent does not", "rows does not", "header does not"):
        path.write_bytes(cases[f"{message} have its checksum"])
        with pytest.raises(SceneError, match=message):
            LodTree.open(path)
    with pytest.raises(SceneError, match="level-of-detail tree file is missing"):
        LodTree.open(tmp_path / "gone.lod")
    path.write_bytes(data)
    told = []
    LodTree.open(path, verify=True, progress=lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1]


def put(record, keys, value):
    *above, last = keys
    for key in above:
        record = record[key]
    if value is None:
        del record[last]
    else:
        record[last] = value


@pytest.mark.parametrize(("keys", "value", "message"), [
    (["arrays"], None, "KeyError: 'arrays'"),
    (["arrays"], [1], "TypeError"),
    (["arrays", "box"], None, "KeyError: 'box'"),
    (["arrays", "box", "shape"], [5, 6], "shapes must be"),
    (["arrays", "first_child", "shape"], [3], "shapes must be"),
    (["arrays", "rows", "shape"], [-4, 14], "make no tree"),
    (["arrays", "rows", "shape"], [4, 15], "make no tree"),
    (["arrays", "rows", "shape"], [4.0, 14], "numbers must be whole, not 4.0"),
    (["arrays", "rows", "shape"], 14, "TypeError"),
    (["arrays", "box", "offset"], 4096, "offsets must be"),
    (["arrays", "roots", "crc32"], None, "roots does not have its checksum"),
    (["antialiased"], "no", "antialiased must be true or false"),
    (["design"], {"fan_out": 1}, "Fan-out must be"),
    (["design"], 7, "AttributeError")])
def test_a_header_that_is_no_builders_is_refused(tmp_path, keys, value, message):
    """With a right checksum: its arrays are not where, or what, the program takes them for."""
    path = tmp_path / "some.lod"
    build([lambda: some_scene(3, 20)], path, TreeDesign())
    data = path.read_bytes()
    magic, version, length, _ = struct.unpack_from("<8sIII", data)
    record = json.loads(data[20:20 + length])
    put(record, keys, value)
    text = json.dumps(record).encode()
    head = struct.pack("<8sIII", magic, version, len(text), zlib.crc32(text)) + text
    path.write_bytes(head.ljust(4096, b"\0") + data[4096:])
    with pytest.raises(SceneError, match=message) as caught:
        LodTree.open(path)
    assert "\n" not in str(caught.value)


def test_ahead_of_time_is_right_where_motion_is_even():
    tree = grow(some_scene(7, 3000), TreeDesign(subtree_nodes=64))
    cameras = [view((0.05 * i, 0, -20 - 0.1 * i)) for i in range(40)]
    design = SearchDesign(tau_px=20, window_frames=4)
    frames = list(follow_ahead(Search(tree, design), cameras))
    assert [number for number, frame in enumerate(frames) if frame.search] == list(range(0, 40, 4))
    exact = [Search(tree, design).full(camera).ids for camera in cameras]
    # The first frame waits; the one a window later is drawn with the cut of the first still.
    for number in (0, *range(8, 40, 4)):
        np.testing.assert_array_equal(frames[number].used, exact[number])
    np.testing.assert_array_equal(frames[4].used, exact[0])
    assert 0.5 < min(unchanged(exact[i], frames[i].used) for i in range(40)) < 1
    assert unchanged(np.array([1, 2, 3, 8]), np.array([2, 3, 4])) == 0.5


@pytest.mark.parametrize(("make", "message"), [
    (lambda: TreeDesign(fan_out=1), "Fan-out must be a whole number from 2 to 16, not 1"),
    (lambda: TreeDesign(subtree_nodes=0), "Subtree nodes must be"),
    (lambda: TreeDesign(chunk_gaussians=0.5), "Chunk Gaussians must be"),
    (lambda: SearchDesign(tau_px=0), "Tau must be between 0 and 1e6 px, not 0"),
    (lambda: SearchDesign(window_frames=0), "Window frames must be")])
def test_designs_refuse_what_makes_no_sense(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_cluster_builds_the_same_file(tmp_path):
    distributed = pytest.importorskip("distributed")
    scene = some_scene(8, 400)
    design = TreeDesign(chunk_gaussians=60)
    build([lambda: scene], tmp_path / "here.lod", design)
    with (distributed.LocalCluster(n_workers=1, threads_per_worker=2, processes=False,
                                   protocol="tcp://", dashboard_address=None) as local,
          cluster(local.scheduler_address) as executor):
        build([lambda: scene], tmp_path / "there.lod", design, executor=executor)
    assert (tmp_path / "there.lod").read_bytes() == (tmp_path / "here.lod").read_bytes()


def test_a_scheduler_that_is_not_there_is_named(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("splatforge.algos.voyager.build._ANSWER_S", 0.5)
    with (pytest.raises(ValueError, match="Scheduler must be a Dask scheduler that answers"),
          cluster("tcp://127.0.0.1:1")):
        pass
    with (pytest.raises(ValueError, match="Scheduler must be a Dask scheduler that answers"),
          cluster("nonsense://")):
        pass


def test_a_chunk_needs_the_folder(tmp_path):
    with pytest.raises(SceneError, match="workers must share the folder of the output"):
        build_chunk(str(tmp_path / "gone"), 0, 0, 1, 0, SH_COLUMN + 3, TreeDesign())


def test_an_overview_covers_the_scene():
    tree = grow(some_scene(9, 500), TreeDesign())
    for most in (1, 5, 100, 499, 500):
        ids = tree.overview(most)
        assert covers(tree, ids)
        assert len(ids) <= most
    assert len(tree.overview(500)) == 500


def test_figures_of_a_path():
    tree = grow(some_scene(7, 2000), TreeDesign(subtree_nodes=64))
    cameras = [view((i, 0, -60)) for i in range(12)]
    told = []
    found = search_path(tree, cameras, SearchDesign(tau_px=60), gaps=(1, 5, 64),
                        progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (12, 12)
    assert found.identical
    assert set(found.unchanged) == {1, 5}
    assert 0.5 < found.unchanged_worst[5] <= found.unchanged[5] <= found.unchanged[1] < 1
    # Streaming looks at all of a small tree; what is safe is not looked at again.
    assert found.streaming.visited == tree.nodes
    assert 0 < found.temporal.visited < found.temporal_all.visited / 2
    assert found.temporal_all.visited <= found.streaming.visited + len(tree.roots)
    assert 0.5 < found.ahead_present_worst <= found.ahead_present <= 1
    with pytest.raises(ValueError, match="Frames must be at least 3, not 2"):
        search_path(tree, cameras[:2], SearchDesign())

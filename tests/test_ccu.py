import math
import re
import sys
from collections import deque
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from splatforge.algos.bin_tiles import bin_tiles
from splatforge.algos.ccu import (
    camera_numbers,
    ccu_fixed,
    ccu_graph,
    ccu_schedule,
    gaussian_numbers,
    pack_camera,
    pack_gaussians,
    project_fixed,
    sh_monomials,
    walk,
)
from splatforge.algos.dataflow import evaluate
from splatforge.algos.footprint import COMPENSATION_FLOOR, FORM_SCALE
from splatforge.algos.project import project
from splatforge.algos.records import decode_record
from splatforge.designs.ccu import (
    CAMERA_WORDS,
    FLAG_ANTIALIASED,
    WIDE_WORDS,
    CcuDesign,
    gaussian_beats,
    gaussian_words,
)
from splatforge.designs.entry import EntryFormat
from splatforge.designs.feature import FeatureFormat
from splatforge.designs.fixed import Fixed
from splatforge.designs.floating import BINARY32, Floating
from splatforge.designs.memory import MemoryTiming
from splatforge.hw.ccu import Ccu
from splatforge.hw.lib.axi import READ_GAUSSIANS, READ_SPLATS
from splatforge.scenes import Camera, Scene
from splatforge.sim import ccu as model

sys.path.insert(0, str(Path(__file__).parent))
import naive
import streams
from bounds import error_bounds
from gaussians import camera, random_scene

DESIGN = CcuDesign()
FP = DESIGN.floating


def turned(width=149, height=101):
    """A camera that stands somewhere and looks askew, its image not centred."""
    view = Camera.look_at((0.4, -0.3, -1.5), (0.1, 0.2, 3.0), (0.1, -1.0, 0.2), width=width,
                          height=height, fov_x_deg=65)
    return replace(view, cx=view.cx + 7.3, cy=view.cy - 3.1)


def run(scene, view, design=DESIGN):
    return ccu_fixed(
        design, pack_gaussians(design, scene),
        pack_camera(design, view, antialiased=scene.antialiased), scene.sh_degree,
        view.width, view.height)


def test_records_by_hand():
    assert [gaussian_beats(n) for n in range(4)] == [4, 6, 10, 15]
    assert len(gaussian_words(3)) == 58
    scene = Scene(means=[[1, 2, 3.3]], log_scales=np.log([[2, 3, 4]]), quats=[[1, 0, 0, 0]],
                  opacity_logits=[0], sh=np.zeros((1, 1, 3)), antialiased=True)
    words = pack_gaussians(DESIGN, scene)
    assert (words.shape, words.dtype) == ((1, 16), np.uint32)
    got = words.view(np.float32)[0]
    # Means to all their bits, the rest in FP(8,17); signs of a factor's columns do not matter.
    np.testing.assert_array_equal(np.abs(got), np.float32(
        [1, 2, 3.3, 1, 2, 0, 3, 0, 0, 4, 0.5, 0.5, 0.5, 0, 0, 0]))
    view = replace(turned(), near=0.3)
    words = pack_camera(DESIGN, view, antialiased=True)
    assert words.shape == (24,)
    assert words[CAMERA_WORDS.index("flags")] == FLAG_ANTIALIASED
    assert pack_camera(DESIGN, view, antialiased=False)[CAMERA_WORDS.index("flags")] == 0
    number = dict(zip(CAMERA_WORDS, words.view(np.float32).astype(float), strict=True))
    assert number["eye_x"] == np.float32(0.4)
    np.testing.assert_allclose(
        [[number[f"{row}_{axis}"] for axis in "xyz"] for row in ("right", "down", "ahead")],
        view.w2c[:3, :3] * [[view.fx], [view.fy], [1]], rtol=FP.epsilon)
    np.testing.assert_array_equal(
        [number[f"depth_{axis}"] for axis in "xyz"], np.float32(view.w2c[2, :3]))
    assert (number["near"], number["reserved"]) == (np.float32(0.3), 0)
    # The fraction's last bits, which the arithmetic does not have, are zero.
    narrow = [name not in WIDE_WORDS for name in CAMERA_WORDS]
    assert (words[narrow][:11] & 63 == 0).all()


def test_factor_is_that_of_the_covariance():
    scene = random_scene(200, 1)
    numbers = gaussian_numbers(scene)
    factor = np.zeros((200, 3, 3))
    for row in range(3):
        for column in range(row + 1):
            factor[:, row, column] = numbers[f"l{row}{column}"]
    turn = np.stack([naive.rotation(quat) for quat in scene.quats])
    covariance = np.einsum(
        "nij,nj,nkj->nik", turn, np.exp(2 * scene.log_scales.astype(float)), turn)
    np.testing.assert_allclose(factor @ factor.transpose(0, 2, 1), covariance, atol=1e-6)


def test_monomials_are_the_harmonics():
    rng = np.random.default_rng(2)
    x, y, z = unit = (lambda v: v / np.linalg.norm(v, axis=0))(rng.normal(size=(3, 50)))
    q = x * x - y * y
    monomials = np.stack([
        np.ones(50), y, z, x, x * y, y * z, z * z, x * z, q, y * q, x * y * z, y * z * z, z**3,
        x * z * z, z * q, x * q], axis=1)
    harmonics = np.stack([naive.spherical_harmonics(direction, 16) for direction in unit.T])
    np.testing.assert_allclose(monomials @ sh_monomials(), harmonics, atol=1e-12)
    # A degree needs no more than its own monomials.
    for degree in range(3):
        assert not sh_monomials()[(degree + 1) ** 2:, :(degree + 1) ** 2].any()


CASES = [(1, False, 0), (2, True, 0), (3, False, 3), (4, True, 2)]


def exact(scene, view, design=DESIGN):
    """Outputs of the graph in float64, and their bounds."""
    return error_bounds(ccu_graph(design, scene.sh_degree), FP, gaussian_numbers(scene),
                        camera_numbers(view))


@pytest.mark.parametrize(("seed", "needles", "sh_degree"), CASES)
def test_graph_is_the_projection(seed, needles, sh_degree):
    """In float64 its outputs are what the float reference computes in another way."""
    scene, view = random_scene(500, seed, needles=needles, sh_degree=sh_degree), turned()
    want = project(scene, view)
    assert len(want) > 200
    at = want.ids
    got = {name: value[at] for name, (value, _) in exact(scene, view).items()}
    np.testing.assert_allclose(got["depth"], want.depth, rtol=1e-6)
    np.testing.assert_allclose(np.stack([got["mean_x"], got["mean_y"]], 1), want.mean_px, atol=1e-4)
    # The conic from the slopes; its terms cancel in needles, so to the precision of the largest.
    a, b, c = (got[name] / FORM_SCALE for name in "abc")
    conic = np.stack([a * a, a * b, b * b + c * c], 1)
    scale = np.abs(want.conic).max(axis=1, keepdims=True)
    np.testing.assert_allclose(conic / scale, want.conic / scale, atol=1e-6)
    np.testing.assert_allclose(np.exp2(-got["log_det"]), conic[:, 0] * conic[:, 2] - conic[:, 1]**2,
                               rtol=1e-6)
    np.testing.assert_array_equal(np.ceil(got["long"] - 1e-9), want.radius_px)
    color = np.stack([got[name] for name in ("red", "green", "blue")], 1)
    np.testing.assert_allclose(color, np.minimum(want.color, color_top()), atol=1e-4)
    # Axes: the covariance is long^2 / 9 along the vector, and short^2 / 9 across.
    np.testing.assert_allclose(got["oblong"], got["long"] - 2 * got["short"], atol=1e-9)
    oblong = got["oblong"] > 0
    assert oblong.sum() > 100
    got = {name: value[oblong] for name, value in got.items()}
    along = np.stack([got["axis_x"], got["axis_y"]], 1)
    np.testing.assert_allclose(np.linalg.norm(along, axis=1), 1, rtol=1e-12)
    variance = np.linalg.inv(conic[oblong][:, [0, 1, 1, 2]].reshape(-1, 2, 2))
    for vector, extent in ((along, got["long"]), (along[:, ::-1] * [-1, 1], got["short"])):
        np.testing.assert_allclose(
            np.einsum("nij,nj->ni", variance, vector), vector * (extent**2 / 9)[:, None],
            atol=1e-6 * float(got["long"].max()) ** 2)
    for name, vector in (("box_x", along), ("box_y", along[:, ::-1])):
        want_box = (np.abs(vector) * np.stack([got["long"], got["short"]], 1)).sum(axis=1)
        np.testing.assert_allclose(got[name], want_box)


def color_top():
    return DESIGN.feature.color.to_float(DESIGN.feature.color.raw_max)


#: Largest bound and largest error that is found over the Gaussians that meet an image of 149x101:
#: of words in units of their values, of what is in fixed point absolute. Needles of a thousand
#: pixels are the worst.
LIMITS = {
    "depth": (4e-7, 3e-7), "a": (1e-2, 5e-4), "c": (5e-3, 5e-4), "mean_x": (6e-3, 2e-3),
    "mean_y": (6e-3, 2e-3), "log_det": (8e-3, 1.2e-3), "short": (0.15, 0.13), "red": (3e-3, 2.2e-3)}


@pytest.mark.parametrize(("seed", "needles", "sh_degree"), CASES)
def test_results_are_within_their_bounds(seed, needles, sh_degree):
    scene, view = random_scene(2000, seed, needles=needles, sh_degree=sh_degree), turned()
    flow = ccu_graph(DESIGN, sh_degree)
    drop = BINARY32.fraction_bits - FP.fraction_bits

    def words(names, records):
        return {name: records[..., k].astype(np.int64) >> (0 if name in WIDE_WORDS else drop)
                for k, name in enumerate(names)}

    got = evaluate(flow, FP, words(gaussian_words(sh_degree), pack_gaussians(DESIGN, scene)),
                   words(CAMERA_WORDS, pack_camera(DESIGN, view, antialiased=False)))
    made = {operation.name: operation.to for operation in flow.operations}
    formats = {name: made[value] for name, value in flow.outputs}
    ids = project(scene, view).ids
    for name, (value, bound) in exact(scene, view).items():
        of = formats[name] or (BINARY32 if name == "depth" else FP)
        error = np.abs(of.to_float(got[name]) - value)[ids]
        value, bound = value[ids], np.where(np.isnan(bound[ids]), np.inf, bound[ids])
        assert (error <= bound).all(), name
        if name in LIMITS:
            scale = 1 if formats[name] else np.abs(value)
            most_bound, most_error = LIMITS[name]
            assert (bound / scale).max() <= most_bound, name
            assert (error / scale).max() <= most_error, name


def test_without_oriented_boxes_there_is_less_to_do():
    square = ccu_graph(replace(DESIGN, obb_ratio=0), 0)
    assert {name for name, _ in ccu_graph(DESIGN, 0).outputs} - {
        name for name, _ in square.outputs} == {
            "oblong", "short", "box_x", "box_y", "axis_x", "axis_y"}
    assert square.counts()["multiply"] < ccu_graph(DESIGN, 0).counts()["multiply"] - 8


def test_higher_degrees_with_zeros_are_the_same():
    scene = random_scene(300, 5, sh_degree=1)
    view = turned()
    padded = replace(scene, sh=np.pad(scene.sh, ((0, 0), (0, 12), (0, 0))))
    camera_words = pack_camera(DESIGN, view, antialiased=False)
    low = project_fixed(DESIGN, pack_gaussians(DESIGN, scene), camera_words, 1)
    high = project_fixed(DESIGN, pack_gaussians(DESIGN, padded), camera_words, 3)
    for name, raw in low.feature.items():
        np.testing.assert_array_equal(high.feature[name], raw)


def features(scene, view, design=DESIGN):
    """Decoded features with the Gaussians' ids."""
    frame = run(scene, view, design)
    return frame.ids, decode_record(design.feature.fields(), frame.features)


@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize("needles", [False, True])
def test_features_are_the_projected_gaussians(needles, antialiased):
    scene = random_scene(2000, 6, needles=needles, sh_degree=1, antialiased=antialiased)
    view = turned()
    want = project(scene, view)
    ids, got = features(scene, view)
    _, mine, theirs = np.intersect1d(ids, want.ids, return_indices=True)
    assert len(mine) > 800
    to = DESIGN.feature
    for axis, name in enumerate(("mean_x", "mean_y")):
        error = to.mean.to_float(got[name][mine]) - want.mean_px[theirs, axis]
        assert np.abs(error).max() <= 4e-3
    fall = np.minimum(-np.log2(np.maximum(want.opacity[theirs].astype(float), 1e-9)), 7.9999)
    error = to.log_opacity.to_float(got["log_opacity"][mine]) - fall
    # Half a unit, and half a one of the eight times finer logarithm, and those of two logarithms.
    assert np.abs(error).max() <= to.log_opacity.resolution * (0.75 if antialiased else 0.57)
    for channel, name in enumerate(("red", "green", "blue")):
        color = np.minimum(want.color[theirs, channel], color_top())
        error = to.color.to_float(got[name][mine]) - color
        assert np.abs(error).max() <= to.color.resolution / 2 + 1e-4
    # What one sees and the other does not: too faint, or on the image with a square's corner.
    only = np.setdiff1d(want.ids, ids)
    faint = want.opacity[np.searchsorted(want.ids, only)] < 2.0**-7.99
    assert faint.sum() > 50
    assert (~faint).sum() <= (0.05 if needles else 0.01) * len(ids)
    assert len(np.setdiff1d(ids, want.ids)) <= 0.002 * len(ids)


def test_compensation_has_a_floor():
    """A point far below a pixel keeps a 200th of its opacity."""
    scene = replace(random_scene(1, 7), log_scales=np.full((1, 3), -12.0, np.float32),
                    means=np.float32([[0, 0, 2]]), opacity_logits=np.float32([20]))
    ids, got = features(replace(scene, antialiased=True), camera(64, 64))
    assert ids.tolist() == [0]
    want = -0.5 * math.log2(COMPENSATION_FLOOR)
    got = DESIGN.feature.log_opacity.to_float(got["log_opacity"][0])
    assert got == pytest.approx(want, abs=4e-3)
    _, got = features(scene, camera(64, 64))
    assert got["log_opacity"].tolist() == [0]


def place(design=DESIGN, **change):
    """One Gaussian at (0, 0, 2) before a 64x64 camera, changed."""
    scene = Scene(**({"means": [[0, 0, 2]], "log_scales": [[-3, -3, -3]], "quats": [[1, 0, 0, 0]],
                      "opacity_logits": [2], "sh": np.zeros((1, 1, 3))} | change))
    return run(scene, camera(64, 64), design)


def test_culls():
    assert len(place().ids) == 1
    # At or behind the near plane, and just in front of it.
    assert len(place(means=[[0, 0, -2]]).ids) == 0
    assert len(place(means=[[0, 0, 0.2]]).ids) == 0
    assert len(place(means=[[0, 0, 0.2001]]).ids) == 1
    # A mean out of range, however large the Gaussian.
    huge = {"log_scales": [[9, 9, 9]]}
    assert len(place(means=[[510, 0, 2]], **huge).ids) == 1
    assert len(place(means=[[511, 0, 2]], **huge).ids) == 0
    # Fainter than a 255th, within the resolution of the logarithm.
    assert len(place(opacity_logits=[math.log(1 / 253)]).ids) == 1
    assert len(place(opacity_logits=[math.log(1 / 256)]).ids) == 0
    # Off the image by more than its 3 sigma.
    assert len(place(means=[[1.2, 0, 2]]).ids) == 0
    assert len(place(means=[[1.1, 0, 2]]).ids) == 1


def corners(x, y, axis_x, axis_y, long, short):
    """Corners of a box of shape [4, 2]."""
    along, across = np.array([axis_x, axis_y]) * long, np.array([-axis_y, axis_x]) * short
    around = np.stack([along + across, along - across, -along - across, -along + across])
    return around + np.array([x, y])


def overlap(a, b):
    """Whether two convex polygons share area: one cut by the other's sides leaves some."""
    polygon = a
    for k in range(4):
        from_, to = b[k - 1], b[k]
        inside = np.mean(b, axis=0)
        side = np.array([from_[1] - to[1], to[0] - from_[0]])
        side = side if side @ (inside - from_) > 0 else -side
        cut = []
        for n in range(len(polygon)):
            p, q = polygon[n - 1], polygon[n]
            dp, dq = side @ (p - from_), side @ (q - from_)
            if dp * dq < 0:
                cut.append(p + (q - p) * dp / (dp - dq))
            if dq >= 0:
                cut.append(q)
        polygon = np.array(cut)
        if len(polygon) < 3:
            return False
    x, y = polygon.T
    return abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) > 1e-6


@pytest.mark.parametrize("obb_ratio", [2, 0])
def test_walk_against_clipped_polygons(obb_ratio):
    """Every tile of the image and every region of it, by cutting one polygon with the other."""
    design = replace(DESIGN, obb_ratio=obb_ratio)
    scene, view = random_scene(60, 8, needles=True), turned(83, 52)
    finished = project_fixed(design, pack_gaussians(design, scene),
                             pack_camera(design, view, antialiased=False), 0)
    walked, met, tiles, masks, places = walk(design, finished, 83, 52)
    # Row after row of each Gaussian's box.
    owner = np.repeat(np.arange(60), met)
    same = owner[1:] == owner[:-1]
    assert (places < walked[owner]).all()
    assert (np.diff(places)[same] > 0).all()
    in_row = same & (tiles[1:] // 6 == tiles[:-1] // 6)
    np.testing.assert_array_equal(np.diff(places)[in_row], np.diff(tiles)[in_row])
    place = iter(zip(tiles.tolist(), masks.tolist(), strict=True))
    unit, one = design.extent.resolution, design.axis.resolution
    oblique = 0
    for n in range(60):
        if finished.culled[n]:
            assert walked[n] == met[n] == 0
            continue
        box = corners(
            finished.position_x[n] * unit, finished.position_y[n] * unit,
            finished.axis_x[n] * one, finished.axis_y[n] * one, finished.long[n] * unit,
            finished.short[n] * unit)
        oblique += bool(finished.axis_y[n])
        found = {}
        for tile in range(6 * 4):
            mask = 0
            for region in range(4):
                left = tile % 6 * 16 + region % 2 * 8
                top = tile // 6 * 16 + region // 2 * 8
                square = np.array([[left, top], [left + 8, top], [left + 8, top + 8],
                                   [left, top + 8]], float)
                mask |= overlap(square, box) << region
            if mask:
                found[tile] = mask
        got = dict(next(place) for _ in range(met[n]))
        assert list(got) == sorted(got)
        # The upright box of an oblique one is rounded up by itself, by an eighth of a pixel.
        for tile in found.keys() | got.keys():
            assert found.get(tile, 0) & ~got.get(tile, 0) == 0
        extra = sum(bin(got[tile] & ~found.get(tile, 0)).count("1") for tile in got)
        assert extra <= 1
        assert walked[n] >= met[n]
    assert next(place, None) is None
    assert (oblique > 20) == bool(obb_ratio)


def test_squares_make_the_lists_of_the_reference():
    design = replace(DESIGN, obb_ratio=0)
    scene, view = random_scene(2000, 9), turned()
    scene = replace(scene, opacity_logits=np.full(2000, 3, np.float32))
    frame = run(scene, view, design)
    projected = project(scene, view)
    lists = bin_tiles(projected, view.width, view.height)
    want = {(tile, int(projected.ids[n])) for tile in range(len(lists.starts) - 1)
            for n in lists.entries[lists.starts[tile]:lists.starts[tile + 1]]}
    fields = design.entry.decode(frame.entries)
    got = set(zip(frame.tiles.tolist(), frame.ids[fields["feature"]].tolist(), strict=True))
    # Radii within rounding of a whole pixel, and boxes that just touch.
    assert len(want ^ got) <= 0.01 * len(want)
    np.testing.assert_array_equal(frame.walked, frame.met)


def test_entries():
    scene, view = random_scene(1500, 10, needles=True), turned()
    frame = run(scene, view)
    fields = DESIGN.entry.decode(frame.entries)
    # Feature after feature, numbered in the order of the scene; tiles in raster order.
    assert (np.diff(fields["feature"]) >= 0).all()
    np.testing.assert_array_equal(np.unique(fields["feature"]), np.arange(len(frame.ids)))
    assert (np.diff(frame.ids) > 0).all()
    same = np.diff(fields["feature"]) == 0
    assert (np.diff(frame.tiles)[same] > 0).all()
    np.testing.assert_array_equal(np.bincount(fields["feature"]), frame.met[frame.ids])
    assert not np.delete(frame.met, frame.ids).any()
    # Depths are ordered like z: words of binary32 from the near plane's on, without two bits.
    z = view.w2c[2, :3] @ scene.means[frame.ids].T + view.w2c[2, 3]
    word = (fields["depth"] << 2) + int(BINARY32.quantize(view.near))
    np.testing.assert_allclose(BINARY32.to_float(word), z[fields["feature"]], rtol=5e-7)
    # Without subtiles the same entries reach all of their tiles.
    whole = run(scene, view, replace(DESIGN, subtiles=False))
    np.testing.assert_array_equal(DESIGN.entry.key(whole.entries), DESIGN.entry.key(frame.entries))
    assert (DESIGN.entry.decode(whole.entries)["subtiles"] == 15).all()
    assert (fields["subtiles"] < 15).mean() > 0.3
    # Oriented boxes meet fewer tiles than squares.
    assert len(frame.entries) < 0.8 * len(run(scene, view, replace(DESIGN, obb_ratio=0)).entries)


def test_depth_is_at_its_end_beyond_the_octaves():
    huge = {"log_scales": [[9, 9, 9]]}
    # The near plane lies at 0.2; 16 octaves reach to 13107.2.
    depths = [int(DESIGN.entry.decode(place(means=[[0, 0, z]], **huge).entries)["depth"][0])
              for z in (0.2001, 0.4, 13000, 13200, 1e9)]
    top = (1 << 25) - 1
    assert 0 < depths[0] < 2**11 < depths[1] == 1 << 21 < depths[2] < top
    assert depths[3:] == [top, top]
    assert (DESIGN.depth_drop, replace(DESIGN, depth_octaves=128).depth_drop) == (2, 5)


def test_empty_scene():
    empty = random_scene(3, 1).select(slice(0, 0))
    frame = run(empty, turned())
    assert (frame.features.shape, len(frame.entries)) == ((0, 4), 0)


def test_numbers_must_reach():
    design = replace(DESIGN, entry=EntryFormat(feature_bits=4))
    with pytest.raises(ValueError, match=r"^Visible Gaussians must be at most 16$"):
        run(random_scene(200, 11), camera(64, 64), design)


@pytest.mark.parametrize(("change", "message"), [
    ({"interval": 14}, (
        "Interval must be 15 to 256 cycles, not 14: a Gaussian of degree 3 is 15 beats, which come "
        "through one port, one in a cycle")),
    ({"buffer_beats": 96}, "Buffer must have a power of two from 64 to 4096 beats, not 96"),
    ({"burst_beats": 512}, "Burst must have a power of two from 4 to 256 beats, not 512"),
    ({"buffer_beats": 64, "burst_beats": 64},
     "Burst must be at most half of the buffer's 64 beats, not 64"),
    ({"outstanding_bursts": 0}, "Outstanding bursts must be 1 to 64, not 0"),
    ({"floating": Floating(exponent_bits=7)},
     "Arithmetic must have the 8 exponent bits of binary32, not FP(7,17)"),
    ({"floating": Floating(fraction_bits=15)},
     "Slopes of features must be FP(8,15), not FP(8,17)"),
    ({"entry": EntryFormat(feature_bits=20, depth_bits=28)},
     "Depth of entries must have at most 27 bits, not 28"),
    ({"depth_octaves": 2}, "Depth of entries must have at most 24 bits, not 25"),
    ({"depth_octaves": 12}, "Octaves of depth must be a power of two up to 128, not 12"),
    ({"depth_octaves": 256}, "Octaves of depth must be a power of two up to 128, not 256"),
    ({"entry": EntryFormat(subtile_bits=5)},
     "Entries must tell the four 8x8 regions of a tile, not 5"),
    ({"extent": Fixed(int_bits=14, frac_bits=3)},
     "Extent must be unsigned, as far as the mean and no finer, not UQ(14,3)"),
    ({"extent": Fixed(int_bits=15, frac_bits=13)},
     "Extent must be unsigned, as far as the mean and no finer, not UQ(15,13)"),
    ({"axis": Fixed(int_bits=2, frac_bits=12)},
     "Axis must be signed and hold one, SQ(2,f), not UQ(2,12)"),
    ({"logarithm": Fixed(int_bits=9, frac_bits=6, signed=True)},
     "Logarithm must be signed, hold 255 and be as fine as the opacity's, not SQ(9,6)"),
    ({"obb_ratio": 0.5}, "OBB ratio must be 0, or 1 or more, not 0.5"),
])
def test_wrong_designs_are_refused(change, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        CcuDesign(**change)


def test_other_formats():
    """Half the fraction, twice the error and more: the arithmetic follows the format."""
    coarse = CcuDesign(
        floating=Floating(fraction_bits=11),
        feature=FeatureFormat(slope=Floating(fraction_bits=11)))
    scene, view = random_scene(500, 12), turned()
    want = project(scene, view)
    errors = []
    for design in (DESIGN, coarse):
        ids, got = features(scene, view, design)
        _, mine, theirs = np.intersect1d(ids, want.ids, return_indices=True)
        errors.append(np.abs(design.feature.mean.to_float(got["mean_x"][mine])
                             - want.mean_px[theirs, 0]).mean())
    assert 20 < errors[1] / errors[0] < 200


# ---- The unit itself.

#: Everything fills up.
SMALL = CcuDesign(buffer_beats=64, burst_beats=4, outstanding_bursts=2, interval=15)
SQUARES = CcuDesign(obb_ratio=0, subtiles=False, interval=40, burst_beats=64)
#: Above 32 bits; the Gaussians in the middle of a burst, and across a page.
CAMERA, GAUSSIANS = 0x9_8765_4300, 0x12_3456_7FD0


@cache
def bench(design):
    return streams.Bench(Ccu(design))


class Play:
    """The unit between a memory and what takes features and entries, beside its model."""

    def __init__(self, design, scene, *, seed=1, gap=0.0, stall=0.0, latency=9, view=None,
                 records=None, stop=None):
        self.view, self.degree = view or turned(), scene.sh_degree
        self.design, self.gap, self.stall = design, gap, stall
        self.latency, self.stop = latency, stop
        self.rng = np.random.default_rng(seed)
        self.records = pack_gaussians(design, scene) if records is None else records
        self.camera = pack_camera(design, self.view, antialiased=scene.antialiased)
        self.frame = ccu_fixed(
            design, self.records, self.camera, self.degree, self.view.width, self.view.height)
        self.features, self.entries, self.asked, self.cycles = [], [], [], 0
        self.memory = {
            base + 16 * n: int.from_bytes(beat.astype("<u4").tobytes(), "little")
            for base, words in ((CAMERA, self.camera), (GAUSSIANS, self.records.reshape(-1)))
            for n, beat in enumerate(words.reshape(-1, 4))}

    def out(self, probability):
        return self.rng.random() < probability

    async def play(self, ctx):
        dut, view = bench(self.design).dut, self.view
        for name, value in (
            ("width", view.width), ("height", view.height), ("gaussians", len(self.records)),
            ("sh_degree", self.degree), ("camera_address", CAMERA), ("scene_address", GAUSSIANS),
            ("start", 1),
        ):
            ctx.set(getattr(dut, name), value)
        await ctx.tick()
        ctx.set(dut.start, 0)
        state = self.state = model.new_ccu(
            self.design, len(self.records), self.degree, camera_address=CAMERA,
            scene_address=GAUSSIANS)
        walked, starts, places = (
            self.frame.walked, model.starts_of(self.frame), self.frame.places)
        beats, entry_layout = deque(), dut.o_entry.payload.shape()
        watched = (
            dut.o_address.valid, dut.o_address.p.address, dut.o_address.p.length,
            dut.o_address.p.id, dut.o_feature.valid, dut.o_feature.payload, dut.o_entry.valid,
            dut.o_entry.payload.as_value(), dut.done, dut.idle, dut.busy, dut.stalled,
            dut.projected, dut.visible, dut.pair)
        counts = [model.BUSY, model.STALLED, model.PROJECTED, model.VISIBLE, model.PAIRS]
        for cycle in range(50_000):
            stop = self.stop is not None and cycle >= self.stop
            if model.is_idle(state) and (model.is_done(state) or stop):
                self.cycles = cycle
                break
            address_ready, feature_ready, entry_ready = (not self.out(self.stall) for _ in "afe")
            due = bool(beats) and beats[0][0] <= cycle and not self.out(self.gap)
            ctx.set(dut.o_address.ready, address_ready)
            ctx.set(dut.o_feature.ready, feature_ready)
            ctx.set(dut.o_entry.ready, entry_ready)
            ctx.set(dut.stop, stop)
            last = False
            if due:
                _, word, last = beats.popleft()
                beat = {"id": READ_GAUSSIANS, "data": word, "last": last}
            else:
                beat = {"id": READ_SPLATS, "data": 0x55, "last": self.out(0.5)}
            ctx.set(dut.i_beat.valid, due or self.out(0.3))
            ctx.set(dut.i_beat.payload, beat)
            offered = [*model.offers(state), model.is_done(state), model.is_idle(state)]
            asked, before = int(state[model.ADDRESS]), state[counts].copy()
            (_, _, address_valid, address, length, number, feature_valid, feature, entry_valid,
             entry, done, idle, *events) = await ctx.tick().sample(*watched)
            model.step(state, walked, starts, places, stop, address_ready, due, last,
                       feature_ready, entry_ready)
            # The model shows what the unit shows.
            assert [(length + 1) * address_valid, feature_valid, entry_valid, done, idle] == list(
                map(int, offered)), cycle
            assert list(map(int, events)) == (state[counts] - before).tolist(), cycle
            if address_valid:
                assert (address, number) == (16 * asked, READ_GAUSSIANS)
                assert address >> 12 == (address + 16 * length) >> 12
            if address_valid and address_ready:
                self.asked.append((address, length + 1))
                beats.extend((cycle + self.latency, self.memory[address + 16 * n], n == length)
                             for n in range(length + 1))
            if feature_valid and feature_ready:
                self.features.append(feature)
            if entry_valid and entry_ready:
                entry = entry_layout.from_bits(entry)
                self.entries.append((entry["tile"], entry["entry"]))
                # A feature record is never behind its entries.
                number = entry["entry"] % (1 << 24)
                assert number < len(self.features) + (feature_valid and not feature_ready)
        else:
            raise AssertionError("not done")

    def check(self):
        bench(self.design).play(self.play)
        assert self.features == [sum(int(word) << 64 * n for n, word in enumerate(record))
                                 for record in self.frame.features]
        assert self.entries == list(zip(
            self.frame.tiles.tolist(), self.frame.entries.tolist(), strict=True))
        # Every beat once, in order.
        read = [16 * n + address for address, beats in self.asked for n in range(beats)]
        assert read == list(self.memory)
        return self


@pytest.mark.parametrize(("design", "degree", "needles", "gap", "stall"), [
    (DESIGN, 3, True, 0.0, 0.0), (DESIGN, 0, False, 0.3, 0.6), (SMALL, 2, True, 0.2, 0.3),
    (SMALL, 1, False, 0.0, 0.96), (SQUARES, 1, True, 0.1, 0.5)])
def test_rtl_against_both_models(design, degree, needles, gap, stall):
    # More than the arithmetic holds, where its results are to wait.
    number = 80 if stall > 0.9 else 30
    scene = random_scene(number, 14 + degree, needles=needles, sh_degree=degree,
                         antialiased=degree % 2 == 1)
    play = Play(design, scene, gap=gap, stall=stall).check()
    # Some are dropped; some tiles that are walked are not met.
    assert 0 < len(play.frame.features) < number
    if needles and design.obb_ratio:
        assert play.frame.met.sum() < 0.8 * play.frame.walked.sum()
    assert play.state[model.STALLED] > 0 or stall < 0.9


def test_words_of_any_bits():
    """What no scene has: numbers of any size, and zeros that are not the word 0."""
    rng = np.random.default_rng(3)
    records = rng.integers(0, 1 << 32, (40, 60), dtype=np.uint32)
    records[:, 58:] = 0
    records[rng.random(records.shape) < 0.1] &= 0x807F_FFFF
    # In front of the camera, the others somewhere near it.
    near = BINARY32.quantize(rng.normal(0, 3, records.shape)).astype(np.uint32)
    some = (rng.random(records.shape) < 0.5) & (np.arange(60) < 58)
    records = np.where(some, near, records)
    play = Play(DESIGN, random_scene(1, 1, sh_degree=3), records=records, view=turned(60, 40))
    assert len(play.check().features) > 3
    # Some lie beyond the last octave.
    depth = DESIGN.entry.decode(play.frame.entries)["depth"]
    assert 0 < (depth == (1 << 25) - 1).sum() < len(depth)


def test_nothing_to_project():
    scene = random_scene(1, 1)
    play = Play(DESIGN, scene, records=np.zeros((0, 16), np.uint32)).check()
    assert play.asked == [(CAMERA, 6)]


def test_stop():
    """The model knows it as well."""
    play = Play(SMALL, random_scene(30, 14, sh_degree=3), stop=150)
    bench(SMALL).play(play.play)
    assert 1 < len(play.asked) < 100
    assert not model.is_done(play.state)


def test_cycles_are_the_interval_and_the_latencies():
    """A Gaussian every interval; alone, what the schedule and the stages say."""
    scene, view = random_scene(400, 16, sh_degree=3), turned()
    seen = run(scene, view)
    timing = MemoryTiming(latency_cycles=20)
    total = model.cycles(DESIGN, seen, 3, timing)
    assert DESIGN.interval * 400 < total < DESIGN.interval * 400 + 400
    # One that meets its first tile: camera and record, until a round begins; the arithmetic; then.
    alone = scene.select(slice(int(seen.ids[0]), int(seen.ids[0]) + 1))
    play = Play(DESIGN, alone, latency=20).check()
    tiles = int(play.frame.walked[0])
    began = play.cycles - tiles - Ccu.latency - (ccu_schedule(DESIGN).finish + 1)
    # Each burst 20 cycles behind its address, beats one by one, up to the end of a round.
    assert 20 + 6 + 15 <= began <= 20 + 6 + 15 + 3 + DESIGN.interval


@pytest.mark.rtl
def test_testbench(run_testbench):
    run_testbench("ccu", seed=1)

import math
import re
import sys
from collections import deque
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from splatforge.algos import ffu
from splatforge.algos.ccu import camera_numbers, pack_camera
from splatforge.algos.dataflow import evaluate
from splatforge.algos.footprint import FORM_SCALE
from splatforge.algos.project import project
from splatforge.designs.ccu import CAMERA_WORDS, CcuDesign
from splatforge.designs.ccu import WIDE_WORDS as CAMERA_WIDE
from splatforge.designs.codebook import VECTORS, CodebookDesign
from splatforge.designs.ffu import FfuDesign, record_words
from splatforge.designs.floating import BINARY32, Floating
from splatforge.designs.memory import MemoryTiming
from splatforge.designs.tokens import GROUPS_AHEAD, SurvivorKind
from splatforge.hw.ffu import Ffu
from splatforge.hw.lib.axi import READ_FINE, READ_SPLATS
from splatforge.scenes import Camera, Scene
from splatforge.sim import ffu as model
from splatforge.verification.lib.fine import Survivors, survivor_fields

sys.path.insert(0, str(Path(__file__).parent))
import fine
import naive
import streams
from bounds import error_bounds
from gaussians import random_scene

FP = Floating()


def turned(width=149, height=101):
    """A camera that stands somewhere and looks askew, its image not centred."""
    view = Camera.look_at((0.4, -0.3, -1.5), (0.1, 0.2, 3.0), (0.1, -1.0, 0.2), width=width,
                          height=height, fov_x_deg=65)
    return replace(view, cx=view.cx + 7.3, cy=view.cy - 3.1)


def camera_record(view, antialiased=False):
    return pack_camera(CcuDesign(), view, antialiased=antialiased)


@cache
def design_of(bits, sh_degree, **change):
    return FfuDesign(codebooks=fine.one_stage(bits, sh_degree), **change)


def words_of(design, scene, view):
    """Words of the records of a scene whose Gaussian n has index n in every codebook."""
    numbers = fine.voxel_numbers(scene, view)
    vectors = ffu.fine_vectors(scene, design.feature)
    q = np.stack([np.floor((numbers[f"q_{axis}"] - 1) * 65536) for axis in "xyz"], axis=1)
    words = {name: FP.quantize(numbers[name]) for name in ("d_x", "d_y", "d_z", "size")}
    words |= ffu.place_words(design, q.astype(np.int64), fine.halves(vectors["scale"]))
    books = fine.codebooks_of(design.codebooks, scene)
    index = np.arange(scene.gaussians)
    indices = {name: index for name, _, _ in design.codebooks.fields()}
    beats = ffu.encode_fine(design.codebooks, indices)
    return words | ffu.decode_fine(design, books, beats)


def numbers_of(words):
    return {name: (BINARY32 if name.startswith("q_") else FP).to_float(word)
            for name, word in words.items()}


def scene_of(words, view, sh_degree, *, antialiased=False):
    """The Gaussians that decoded words mean."""
    number, eye = numbers_of(words), camera_numbers(view)
    mean = [number[f"d_{axis}"] + number[f"q_{axis}"] * number["size"] + eye[f"eye_{axis}"]
            for axis in "xyz"]
    scales = number["scale"] * np.stack(
        [np.ones_like(number["scale"]), number["ratios0_1"], number["ratios0_2"]])
    opacity = np.exp2(-number["opacity0_log"])
    sh = np.zeros((len(opacity), (sh_degree + 1) ** 2, 3))
    for k in range((sh_degree + 1) ** 2):
        for c, channel in enumerate(("red", "green", "blue")):
            degree = math.isqrt(k)
            value = number[f"sh{degree}0_{k}_{channel}"] if k else number[f"color0_{channel}"] - 0.5
            sh[:, k, c] = value / ffu.sh_factors()[k]
    return Scene(
        means=np.stack(mean, axis=1).astype(np.float32),
        log_scales=np.log(np.maximum(scales.T, 1e-30)).astype(np.float32),
        quats=np.stack([number[f"rotation0_{n}"] for n in "wxyz"], axis=1).astype(np.float32),
        opacity_logits=-np.log(np.maximum(1 / opacity - 1, 1e-9)).astype(np.float32),
        sh=sh.astype(np.float32), antialiased=antialiased)


# ---- Records and codebooks.

def test_codebooks_by_hand():
    design = CodebookDesign(rotation=(2, 1), ratios=(3,), opacity=(4,), color=(2,), sh1=(1,),
                            sh2=(1,), sh3=(1,), sh_degree=1)
    assert [name for name, _, _ in design.fields()] == [
        "rotation0", "rotation1", "ratios0", "opacity0", "color0", "sh10"]
    assert (design.index_bits, design.size_bytes) == (13, 2 * (24 + 16 + 32 + 12 + 18))
    # An entry of nine numbers takes two beats.
    assert design.beats == 4 + 2 + 8 + 16 + 4 + 2 * 2
    beats = ffu.encode_fine(design, {
        "rotation0": [3], "rotation1": [1], "ratios0": [5], "opacity0": [9], "color0": [2],
        "sh10": [1]})
    assert beats.tolist() == [[3 | 1 << 2 | 5 << 3 | 9 << 6 | 2 << 10 | 1 << 12, 0]]
    books = {name: np.arange(1, 1 + entries * len(names)).reshape(entries, -1)
             for name, entries, names in design.codebooks()}
    packed = ffu.pack_codebooks(design, books)
    assert (packed.shape, packed.dtype) == ((design.beats, 8), np.uint16)
    assert packed[1].tolist() == [5, 6, 7, 8, 0, 0, 0, 0]
    assert packed[-2:].reshape(-1).tolist() == [*range(10, 19), *[0] * 7]
    with pytest.raises(ValueError, match=re.escape(
            "Codebook ratios0 must be of shape (8, 2), not (2, 8)")):
        ffu.pack_codebooks(design, books | {"ratios0": books["ratios0"].reshape(2, 8)})
    # In the record a word is called by its vector, the stage and its number.
    assert record_words(design)[8:17] == (
        *(f"rotation{stage}_{number}" for stage in range(2) for number in "wxyz"), "ratios0_1")
    assert len(dict(VECTORS)["sh3"]) == 21


def test_default_codebooks_fit():
    design = CodebookDesign()
    assert design.size_bytes <= 250 * 1024
    assert design.index_bits <= 128


def test_widened_halves_are_the_same_numbers():
    half = np.arange(1 << 16)
    want = half.astype(np.uint16).view(np.float16).astype(np.float64)
    some = np.isfinite(want) & (np.abs(want) >= 2.0**-14)
    words = ffu.widen(FP, half)
    np.testing.assert_array_equal(FP.to_float(words)[some], want[some])
    assert not words[np.abs(want) < 2.0**-14].any()
    np.testing.assert_array_equal(ffu.widen(BINARY32, half[some]).astype(np.uint32).view(
        np.float32), want[some])


def test_vectors_are_the_gaussians():
    scene = random_scene(300, 1, sh_degree=3)
    vectors = ffu.fine_vectors(scene, FfuDesign().feature)
    scales = np.exp(scene.log_scales.astype(float))
    np.testing.assert_allclose(vectors["scale"], scales.max(axis=1))
    assert vectors["ratios"].max() <= 1
    for n in range(300):
        want = naive.rotation(scene.quats[n]) * scales[n]
        quat = vectors["rotation"][n] / math.sqrt(2)
        got = naive.rotation(quat) * vectors["scale"][n] * [1, *vectors["ratios"][n]]
        np.testing.assert_allclose(got @ got.T, want @ want.T, atol=1e-6)
        assert quat[0] > 0
        assert np.linalg.norm(quat) == pytest.approx(1)
    still = np.tile(np.float32([1, 0, 0, 0]), (300, 1))
    no_turn = ffu.fine_vectors(replace(scene, quats=still), FfuDesign().feature)
    assert (no_turn["rotation"][scales.argmax(axis=1) == 0] == [math.sqrt(2), 0, 0, 0]).all()


def test_reach_is_where_the_opacity_ends():
    feature = FfuDesign().feature
    opacity = np.array([1.0, 0.5, 1 / 128, 1 / 254, 1 / 257])
    entries = ffu.opacity_entries(-np.log2(opacity), feature).view(np.float16).astype(float)
    above = 2.0 ** (feature.log_opacity.resolution / 2)
    at_reach = np.exp2(-entries[:, 0]) * above * np.exp(-entries[:, 1] ** 2 / 2)
    # Where it ends there is no 255th left; just before there is.
    assert (at_reach <= 1 / 255).all()
    assert (at_reach[:4] > 0.99 / 255).all()
    assert entries[-1, 1] == 0
    assert entries[0].tolist() == [0, pytest.approx(math.sqrt(2 * math.log(255 * above)), abs=2e-3)]


# ---- The graph.

CASES = [(1, False, 0), (2, True, 0), (3, False, 3), (4, True, 2)]


@pytest.mark.parametrize(("seed", "needles", "sh_degree"), CASES)
def test_graph_is_the_projection(seed, needles, sh_degree):
    """In float64 its outputs are what the float reference computes in another way."""
    scene, view = random_scene(500, seed, needles=needles, sh_degree=sh_degree), turned()
    want = project(scene, view)
    assert len(want) > 200
    flow = ffu.ffu_graph(design_of(8, sh_degree))
    at = want.ids
    got = {name: value[at] for name, (value, _) in error_bounds(
        flow, FP, fine.fine_numbers(scene, view), camera_numbers(view)).items()}
    np.testing.assert_allclose(got["z"], want.depth, rtol=1e-6)
    np.testing.assert_allclose(np.stack([got["mean_x"], got["mean_y"]], 1), want.mean_px, atol=1e-4)
    a, b, c = (got[name] / FORM_SCALE for name in "abc")
    conic = np.stack([a * a, a * b, b * b + c * c], 1)
    scale = np.abs(want.conic).max(axis=1, keepdims=True)
    np.testing.assert_allclose(conic / scale, want.conic / scale, atol=1e-6)
    np.testing.assert_array_equal(np.ceil(got["long"] - 1e-9), want.radius_px)
    color = np.stack([got[name] for name in ("red", "green", "blue")], 1)
    top = FfuDesign().feature.color
    np.testing.assert_allclose(
        color, np.minimum(want.color, top.to_float(top.raw_max)), atol=1e-4)
    # How far along an axis: where the opacity falls to a 255th on the ellipse's outermost point.
    variance = np.linalg.inv(conic[:, [0, 1, 1, 2]].reshape(-1, 2, 2))
    reach = ffu.reach_of(-np.log2(want.opacity.astype(float)), FfuDesign().feature)
    for name, k in (("reach_x", 0), ("reach_y", 1)):
        np.testing.assert_allclose(
            got[name], reach * np.sqrt(variance[:, k, k]), rtol=1e-3, atol=1e-3)
    # Depths in a voxel: z without the voxel's own, in its edges.
    numbers = fine.voxel_numbers(scene, view)
    own = sum(view.w2c[2, k] * numbers[f"d_{axis}"][at] for k, axis in enumerate("xyz"))
    np.testing.assert_allclose(
        got["depth"] - ffu.DEPTH_OFFSET, (got["z"] - own) / fine.EDGE, atol=1e-6)


#: Largest bound and largest error that is found over the Gaussians that meet an image of 149x101:
#: of words in units of their values, of what is in fixed point absolute.
LIMITS = {
    "depth": (3e-6, 1e-6), "z": (3e-5, 1.3e-5), "a": (1.9e-2, 3.5e-4), "c": (6.1e-3, 3.5e-4),
    "mean_x": (6.1e-3, 1.3e-3), "mean_y": (6.1e-3, 1.3e-3), "log_det": (5e-3, 6e-4),
    "reach_x": (0.4, 0.13), "red": (2.8e-3, 2e-3)}


@pytest.mark.parametrize(("seed", "needles", "sh_degree"), CASES)
def test_results_are_within_their_bounds(seed, needles, sh_degree):
    scene, view = random_scene(1000, seed, needles=needles, sh_degree=sh_degree), turned()
    design = design_of(10, sh_degree)
    flow = ffu.ffu_graph(design)
    words = words_of(design, scene, view)
    record = dict(zip(CAMERA_WORDS, camera_record(view).tolist(), strict=True))
    constants = {name: word if name in CAMERA_WIDE else word >> 6 for name, word in record.items()}
    got = evaluate(flow, FP, words, constants)
    made = {operation.name: operation.to for operation in flow.operations}
    formats = {name: made[value] for name, value in flow.outputs}
    ids = project(scene_of(words, view, sh_degree), view).ids
    assert len(ids) > 400
    for name, (value, bound) in error_bounds(
            flow, FP, numbers_of(words), camera_numbers(view)).items():
        of = formats[name] or (BINARY32 if name == "depth" else FP)
        error = np.abs(of.to_float(got[name]) - value)[ids]
        value, bound = value[ids], np.where(np.isnan(bound[ids]), np.inf, bound[ids])
        assert (error <= bound).all(), name
        if name in LIMITS:
            scale = 1 if formats[name] or name == "depth" else np.abs(value)
            most_bound, most_error = LIMITS[name]
            assert (bound / scale).max() <= most_bound, name
            assert (error / scale).max() <= most_error, name


def test_stages_are_summed():
    """An entry cut in two gives the Gaussian of the whole one, but for roundings."""
    scene, view = random_scene(200, 5, sh_degree=1), turned()
    whole, record = design_of(8, 1), camera_record(view)
    words = words_of(whole, scene, view)
    want = ffu.project_fine(whole, words, record)
    vectors = ("rotation", "ratios", "color", "sh1")
    halved = FfuDesign(codebooks=fine.one_stage(
        8, 1, **dict.fromkeys(vectors, (8, 8)))
    )
    words = {name: word for name, word in words.items() if not name.startswith(vectors)} | {
        name.replace("0_", f"{stage}_", 1): FP.quantize(FP.to_float(word) / 2)
        for name, word in words.items() if name.startswith(vectors) for stage in range(2)}
    got = ffu.project_fine(halved, words, record)
    for name, raw in want.feature.items():
        np.testing.assert_array_equal(got.feature[name], raw)


def test_higher_degrees_with_zeros_are_the_same():
    scene, view = random_scene(300, 6, sh_degree=1), turned()
    record = camera_record(view)
    low = ffu.project_fine(design_of(9, 1), words_of(design_of(9, 1), scene, view), record)
    high = ffu.project_fine(design_of(9, 3), words_of(design_of(9, 3), scene, view), record)
    for name, raw in low.feature.items():
        np.testing.assert_array_equal(high.feature[name], raw)


def test_nothing_to_project():
    scene, view = random_scene(3, 1), turned()
    words = {name: word[:0] for name, word in words_of(design_of(8, 0), scene, view).items()}
    assert len(ffu.project_fine(design_of(8, 0), words, camera_record(view)).depth) == 0


# ---- What is kept.

@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize("needles", [False, True])
def test_features_are_the_projected_gaussians(needles, antialiased):
    scene, view, design = random_scene(1000, 7, needles=needles, sh_degree=1), turned(), design_of(
        10, 1)
    words = words_of(design, scene, view)
    got = ffu.project_fine(design, words, camera_record(view, antialiased))
    want = project(scene_of(words, view, 1, antialiased=antialiased), view)
    at = want.ids[~got.culled[want.ids]]
    theirs = np.searchsorted(want.ids, at)
    assert len(at) > 400
    to = design.feature
    for axis, name in enumerate(("mean_x", "mean_y")):
        error = to.mean.to_float(got.feature[name][at]) - want.mean_px[theirs, axis]
        assert np.abs(error).max() <= 4e-3
    fall = np.minimum(-np.log2(np.maximum(want.opacity[theirs].astype(float), 1e-9)), 7.9999)
    error = to.log_opacity.to_float(got.feature["log_opacity"][at]) - fall
    # Determinants of quaternions that are not quite of length one.
    allowed = 0.57 if not antialiased else 2 if needles else 0.9
    assert np.abs(error).max() <= to.log_opacity.resolution * allowed
    for channel, name in enumerate(("red", "green", "blue")):
        color = np.minimum(want.color[theirs, channel], to.color.to_float(to.color.raw_max))
        error = to.color.to_float(got.feature[name][at]) - color
        assert np.abs(error).max() <= to.color.resolution / 2 + 1e-3


@pytest.mark.parametrize("group_tiles", [1, 2, 4])
@pytest.mark.parametrize("needles", [False, True])
def test_nothing_that_is_drawn_is_lost(needles, group_tiles):
    """Every tile with a pixel over a 255th, in the reference's square, is in the span."""
    scene, view = random_scene(400, 8, needles=needles), turned()
    design = design_of(9, 0, group_tiles=group_tiles)
    words = words_of(design, scene, view)
    fine_ones = ffu.project_fine(design, words, camera_record(view))
    want = project(scene_of(words, view, 0), view)
    tiles_x, tiles_y = -(-view.width // 16), -(-view.height // 16)
    met = np.zeros((400, tiles_y, tiles_x), bool)
    side = 16 * group_tiles
    for row in range(-(-view.height // side)):
        for column in range(-(-view.width // side)):
            spans, kept = ffu.spans_in_group(
                design, fine_ones, column, row, view.width, view.height)
            assert not spans[~kept].any()
            for n in np.flatnonzero(kept):
                x, y, last_x, last_y = spans[n] + np.array([column, row] * 2) * group_tiles
                met[n, y:last_y + 1, x:last_x + 1] = True
                assert 0 <= spans[n].min() <= spans[n].max() < group_tiles
    py, px = np.mgrid[:view.height, :view.width] + 0.5
    drawn = 0
    for n, number in enumerate(want.ids):
        dx, dy = px - want.mean_px[n, 0], py - want.mean_px[n, 1]
        conic = want.conic[n].astype(float)
        form = conic[0] * dx * dx + 2 * conic[1] * dx * dy + conic[2] * dy * dy
        # Two in a hundred for quaternions that are not quite of length one.
        alpha = want.opacity[n] * np.exp(-form / 2) > 1.02 / 255
        listed = np.zeros_like(met[0])
        first = np.floor((want.mean_px[n] - want.radius_px[n]) / 16).astype(int).clip(0)
        end = np.ceil((want.mean_px[n] + want.radius_px[n]) / 16).astype(int)
        listed[first[1]:end[1], first[0]:end[0]] = True
        seen = np.zeros_like(listed)
        rows, columns = np.nonzero(alpha)
        seen[rows // 16, columns // 16] = True
        assert not (seen & listed & ~met[number]).any()
        drawn += (seen & listed).sum()
    # Not many more than that are kept: corners of the boxes.
    assert drawn > 500
    assert met.sum() < (4 if needles else 1.5) * drawn


def test_depths_are_ordered_like_the_places():
    scene, view, design = random_scene(2000, 9), turned(), design_of(11, 0)
    words = words_of(design, scene, view)
    number = numbers_of(words)
    ahead = view.w2c[2, :3]
    want = sum(ahead[k] * number[f"q_{axis}"] for k, axis in enumerate("xyz"))
    got = ffu.project_fine(design, words, camera_record(view)).depth
    # Eight edges are the range, and zero stands at its middle.
    np.testing.assert_allclose(got * 8 / 2**20 - 4, want, atol=1.1 * 8 / 2**20)
    fewer = ffu.project_fine(replace(design, depth_bits=12), words, camera_record(view)).depth
    np.testing.assert_array_equal(fewer, got >> 8)


def place(at, scale=0.05, opacity=0.9, group=(1, 1), **change):
    """Span and whether it is kept of one Gaussian before a camera of 64x64 at the origin."""
    view = Camera(width=64, height=64, fx=64, fy=64, cx=32, cy=32, w2c=np.eye(4))
    scene = Scene(
        means=np.float32([at]), log_scales=np.full((1, 3), np.log(scale), np.float32),
        quats=np.float32([[1, 0, 0, 0]]), sh=np.zeros((1, 1, 3), np.float32),
        opacity_logits=np.float32([np.log(opacity / (1 - opacity))]))
    design = design_of(8, 0, **change)
    fine_one = ffu.project_fine(design, words_of(design, scene, view), camera_record(view))
    spans, kept = ffu.spans_in_group(design, fine_one, *group, 64, 64)
    assert not (kept[0] and fine_one.culled[0])
    return spans[0].tolist() if kept[0] else None


def test_spans_by_hand():
    # At pixel (32, 32), with a standard deviation of 1.69 px, that reaches 5.6 px, cut to the
    # square of six.
    assert place((0, 0, 2), group=(0, 0)) == [1, 1, 1, 1]
    assert place((0, 0, 2)) == [0, 0, 0, 0]
    assert place((0.2, 0.4, 2)) == [0, 0, 0, 1]
    assert place((0.6, 0.6, 2)) == [0, 0, 1, 1]
    assert place((0.7, 0.7, 2)) == [1, 1, 1, 1]
    assert place((0.7, 0.7, 2), group=(0, 1)) is None
    assert place((0, 0, 2), group=(0, 0), group_tiles=4) == [1, 1, 2, 2]
    # Tiles beyond the image are none.
    assert place((0.97, 0, 2), group=(1, 0), group_tiles=2) == [1, 1, 1, 1]
    assert place((1.2, 0, 2), group=(1, 0)) is None
    assert place((0.97, 0, 2), group=(2, 0)) is None


def test_culls():
    near = {"scale": 0.001, "group": (1, 1)}
    assert place((0, 0, 0.2001), **near)
    assert place((0, 0, 0.1999), **near) is None
    assert place((0, 0, -2)) is None
    # A mean out of range, however large the Gaussian.
    assert place((508, 0, 2), scale=500)
    assert place((511.9, 0, 2), scale=500) is None
    # Fainter than a 255th, within the resolution of the logarithm.
    assert place((0.2, 0.2, 2), opacity=1 / 253)
    assert place((0.2, 0.2, 2), opacity=1 / 257.2) is None


@pytest.mark.parametrize(("change", "message"), [
    ({"interval": 1}, "Interval must be 2 to 64 cycles, not 1"),
    ({"depth_bits": 24}, "Depth must have 8 to 23 bits, not 24"),
    ({"group_tiles": 3}, "Tiles of a group's side must be 1, 2 or 4, not 3"),
    ({"waiting": 48}, "Queue of tokens must hold a power of two from 16 to 1024, not 48"),
    ({"buffer_beats": 8}, "Buffer must hold a power of two from 16 to 1024, not 8"),
    ({"burst_beats": 128}, "Burst must hold a power of two from 1 to 64, not 128"),
    ({"burst_beats": 64, "buffer_beats": 64},
     "Burst must be at most half of the buffer's 64 beats, not 64"),
    ({"burst_beats": 32, "waiting": 32},
     "Burst must be at most half as long as the queue of 32 tokens, not 32"),
    ({"outstanding_bursts": 65}, "Outstanding bursts must be 1 to 64, not 65"),
    ({"codebook_bursts": 33},
     "Bursts of codebooks must be 1 to 32, which may be outstanding, not 33"),
    ({"floating": Floating(fraction_bits=16)}, "Slopes of features must be FP(8,16), not FP(8,17)"),
])
def test_wrong_designs_are_refused(change, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        FfuDesign(**change)


@pytest.mark.parametrize(("change", "message"), [
    ({"sh_degree": 4}, "SH degree must be 0 to 3, not 4"),
    ({"sh2": ()}, "Codebooks of sh2 must be one or more of 1 to 14 bits, not ()"),
    ({"color": (0,)}, "Codebooks of color must be one or more of 1 to 14 bits, not (0,)"),
    ({"opacity": (10, 14)}, "Indices must fit 128 bits, not 136"),
    ({"sh3": (12,)}, "Codebooks must fit 256000 bytes, not 331776"),
])
def test_wrong_codebooks_are_refused(change, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        CodebookDesign(**change)


def test_words_that_are_needed_late_have_beats_of_their_own():
    for interval in (2, 4, 8, 64):
        design = FfuDesign(interval=interval)
        lanes, record = design.lanes, design.record
        assert len(record) % lanes == 0
        assert len(record) <= interval * lanes
        early = record.index("ratios0_2")
        assert record[early + 1:-(-(early + 1) // lanes) * lanes] == ("",) * (-(early + 1) % lanes)
        plan = ffu.ffu_schedule(design)
        assert len(plan.reads) == len(record) // lanes


# ---- The unit itself.

def unit(interval=8, sh_degree=1, **change):
    """A small one: everything fills up."""
    books = CodebookDesign(rotation=(3, 2), ratios=(2,), opacity=(3,), color=(2,), sh1=(3, 1),
                           sh2=(2,), sh3=(1, 1), sh_degree=sh_degree)
    return FfuDesign(**{"interval": interval, "codebooks": books, "waiting": 32,
                        "buffer_beats": 16, "burst_beats": 4, "outstanding_bursts": 2,
                        "codebook_bursts": 1} | change)


SMALL, SPARSE = unit(), unit(
    16, 0, group_tiles=4, depth_bits=23, waiting=64, buffer_beats=64, burst_beats=32,
    outstanding_bursts=8)
CODEBOOKS, SCENE = 0x9_8765_4300, 0x12_3456_7F50


@cache
def bench(design):
    return streams.Bench(Ffu(design))


@cache
def survivors(design, seed, **size):
    return Survivors(design, seed, **size)


class Play:
    """The unit between what sends tokens, a memory and what takes them, beside its model."""

    def __init__(self, design, *, seed=1, gap=0.0, stall=0.0, latency=9, skip=0.0, load=True,
                 stop=None, hold=0, **size):
        self.design, self.gap, self.stall, self.skip = design, gap, stall, skip
        self.latency, self.load, self.stop, self.hold = latency, load, stop, hold
        self.rng = np.random.default_rng(seed)
        self.scene = survivors(design, seed, **size)
        self.taken, self.asked, self.oldest, self.was_behind = [], [], 0, 0
        #: Cycles in which results left the arithmetic, and in which a token was offered first.
        self.projected, self.offered = [], {}

    def out(self, probability):
        return self.rng.random() < probability

    @staticmethod
    def is_empty(state):
        """Whether no token is inside."""
        return (state[model.QUEUED_PUSHED] == state[model.QUEUED_POPPED]
                and state[model.BESIDE_PUSHED] == state[model.BESIDE_POPPED]
                and max(state[[model.TOKEN, model.FIRST, model.SECOND, model.THIRD,
                               model.OUT]]) < 0)

    async def play(self, ctx):
        dut, scene, design = bench(self.design).dut, self.scene, self.design
        memory = scene.memory(CODEBOOKS, SCENE)
        for name, value in (
            ("width", scene.width), ("height", scene.height), ("codebook_address", CODEBOOKS),
            ("scene_address", SCENE), ("sh_degree", scene.sh_degree), ("load", self.load),
            ("start", 1),
        ):
            ctx.set(getattr(dut, name), value)
        for n, word in enumerate(scene.camera.tolist()):
            ctx.set(dut.camera[n], word)
        await ctx.tick()
        ctx.set(dut.start, 0)
        ctx.set(dut.load, 0)
        state = self.state = model.new_ffu(
            design, load=self.load, codebook_address=CODEBOOKS, scene_address=SCENE,
            sh_degree=scene.sh_degree)
        kinds, tags = scene.tokens["kind"], scene.tokens["tag"]
        frame, total = scene.expected, len(scene.tokens["kind"])
        beats, given, announced = deque(), 0, -1
        watched = (
            dut.i_token.ready, dut.o_address.valid, dut.o_address.p.address,
            dut.o_address.p.length, dut.o_address.p.id, dut.o_token.valid,
            dut.o_token.payload.as_value(), dut.behind, dut.idle, dut.coded, dut.busy, dut.stalled,
            dut.projected, dut.kept, dut.patient)
        counts = [model.CODED, model.BUSY, model.STALLED, model.PROJECTED, model.KEPT]
        quiet, offered, held = 0, False, None
        for cycle in range(50_000):
            stop = self.stop is not None and cycle >= self.stop
            quiet = quiet + 1 if stop or (given == total and self.is_empty(state)) else 0
            if quiet > 60:
                return
            late = bool(model.behind(state, tags, self.oldest))
            self.was_behind += late
            if not offered and given < total and not self.out(self.gap):
                # A group begins only when nothing of one that is over lingers.
                offered = bool(tags[given] <= announced or (
                    tags[given] - self.oldest <= GROUPS_AHEAD and not late))
                announced = max(announced, int(tags[given]) if offered else -1)
            address_ready, token_ready = (not self.out(self.stall) for _ in "at")
            token_ready = token_ready and cycle >= self.hold
            due = bool(beats) and beats[0][0] <= cycle and not self.out(self.gap)
            ctx.set(dut.i_token.valid, offered)
            if offered:
                ctx.set(dut.i_token.payload, survivor_fields(scene.tokens, given))
            ctx.set(dut.o_address.ready, address_ready)
            ctx.set(dut.o_token.ready, token_ready)
            ctx.set(dut.stop, stop)
            ctx.set(dut.oldest, self.oldest % 32)
            last = False
            if due:
                _, word, last = beats.popleft()
                beat = {"id": READ_FINE, "data": word, "last": last}
            else:
                beat = {"id": READ_SPLATS, "data": 0x55, "last": self.out(0.5)}
            ctx.set(dut.i_beat.valid, due or self.out(0.3))
            ctx.set(dut.i_beat.payload, beat)
            number = given if offered else -1
            takes = offered and bool(model.takes(state, kinds, frame.places))
            asks, out = model.offers(state)
            idle = bool(model.is_idle(state))
            at, before = int(state[model.ADDRESS]), state[counts].copy()
            (_, _, ready, address_valid, address, length, read_id, valid, token, is_behind, is_idle,
             *events, patient) = await ctx.tick().sample(*watched)
            model.step(state, kinds, tags, frame.places, frame.kept, number, self.oldest, stop,
                       address_ready, due, last, token_ready)
            # The model shows what the unit shows.
            assert not offered or ready == takes, cycle
            assert [(length + 1) * address_valid, valid, is_behind, is_idle] == [
                asks, out >= 0, late, idle], cycle
            assert list(map(int, events)) == (state[counts] - before).tolist(), cycle
            if events[3]:
                self.projected.append(cycle)
            if valid:
                assert token == scene.leaving[int(out)], cycle
                self.offered.setdefault(int(out), cycle)
            assert held is None or (valid and token == held)
            held = token if valid and not token_ready else None
            if address_valid:
                assert patient == (address < SCENE)
                assert (address, read_id) == (16 * at, READ_FINE)
                assert address >> 12 == (address + 16 * length) >> 12
            if address_valid and address_ready:
                self.asked.append((address, length + 1))
                beats.extend((cycle + self.latency, memory[address + 16 * n], n == length)
                             for n in range(length + 1))
                assert length < design.burst_beats
            if takes:
                given, offered = given + 1, False
            if valid and token_ready:
                self.taken.append(int(out))
                if kinds[out] == SurvivorKind.GROUP_END and tags[out] == self.oldest:
                    self.oldest += 1
            if self.oldest <= announced and self.out(self.skip):
                self.oldest += 1
        raise AssertionError("not done")

    def check(self):
        bench(self.design).play(self.play)
        # Nothing is left inside.
        assert self.state[model.RESERVED] == self.state[model.FLYING] == 0
        return self


@pytest.mark.parametrize(("design", "seed", "gap", "stall", "latency"), [
    (SMALL, 1, 0.0, 0.0, 9), (SMALL, 2, 0.3, 0.6, 3), (SMALL, 3, 0.0, 0.9, 40),
    (SPARSE, 4, 0.1, 0.3, 9), (SPARSE, 5, 0.6, 0.0, 60)])
def test_rtl_against_both_models(design, seed, gap, stall, latency):
    play = Play(design, seed=seed, gap=gap, stall=stall, latency=latency).check()
    scene = play.scene
    # All that must come, in order.
    assert play.taken == list(scene.leaving)
    gaussians = int((scene.tokens["kind"] == SurvivorKind.GAUSSIAN).sum())
    assert 5 < int(play.state[model.KEPT]) < gaussians == int(play.state[model.PROJECTED])
    # Codebooks once, from the first beat to the last; then the indices, no beat but those.
    read = [(address - base) // 16 for base in (CODEBOOKS, SCENE) for first, beats in play.asked
            if (first >= SCENE) == (base == SCENE) for address in range(
                first, first + 16 * beats, 16)]
    books = design.codebooks.loaded_beats(scene.sh_degree)
    assert read[:books] == list(range(books))
    places = scene.expected.places[scene.tokens["kind"] == SurvivorKind.GAUSSIAN]
    assert read[books:] == places.tolist()
    if not stall:
        # The stages behind the arithmetic have their time.
        numbers = np.flatnonzero(scene.tokens["kind"] == SurvivorKind.GAUSSIAN).tolist()
        for number, cycle in zip(numbers, play.projected, strict=True):
            if number in play.offered:
                assert play.offered[number] == cycle + Ffu.latency
    # Neighbours come in one burst.
    runs = [beats for address, beats in play.asked if address >= SCENE]
    assert len(runs) < 0.8 * len(places)
    assert max(runs) > 3


@pytest.mark.parametrize(("design", "seed", "skip", "stall"), [
    (SMALL, 6, 0.003, 0.2), (SMALL, 7, 0.002, 0.7), (SPARSE, 8, 0.002, 0.0)])
def test_groups_that_are_over_are_dropped(design, seed, skip, stall):
    play = Play(design, seed=seed, skip=skip, stall=stall, latency=30, groups=10).check()
    assert play.oldest == 10
    assert 0 < len(play.taken) < len(play.scene.leaving)
    assert play.was_behind > 0
    assert sorted(set(play.taken)) == play.taken


@pytest.mark.parametrize(("voxels", "population"), [(30, 3), (3, 60)])
def test_everything_fills_up(voxels, population):
    """Nothing is taken for long; small voxels, whose ends wait, and large ones, whose beats do."""
    play = Play(SMALL, seed=11, hold=1300, latency=2, groups=3, voxels=voxels,
                population=population).check()
    assert play.taken == list(play.scene.leaving)
    assert min(play.offered.values()) < 600 < 1300 < max(play.offered.values())
    assert play.state[model.STALLED] > 500


@pytest.mark.parametrize("sh_degree", [0, 1])
def test_codebooks_stay(sh_degree):
    """A frame with those of the frame before, as far as it has SH."""
    first = Play(SMALL, seed=1)
    second = Play(SMALL, seed=9, load=False)
    second.scene = Survivors(SMALL, 9, codebooks=first.scene.codebooks, sh_degree=sh_degree)

    async def both(ctx):
        await first.play(ctx)
        await second.play(ctx)

    bench(SMALL).play(both)
    assert second.taken == list(second.scene.leaving)
    assert min(address for address, _ in second.asked) >= SCENE


def test_codebooks_of_no_sh_are_not_loaded():
    """What a scene does not have takes no time, and means nothing."""
    play = Play(SMALL, seed=3, sh_degree=0).check()
    assert play.taken == list(play.scene.leaving)
    loaded = sum(beats for address, beats in play.asked if address < SCENE)
    assert 0 < loaded < SMALL.codebooks.beats == SMALL.codebooks.loaded_beats(3)


def test_stop():
    """Nothing is asked for behind it; what is in flight arrives."""
    play = Play(SMALL, seed=1, stop=60)
    bench(SMALL).play(play.play)
    assert 1 < len(play.asked) < 15
    assert model.is_idle(play.state)


def voxels(count, share, seed=1):
    """Kinds of tokens of voxels of `count` Gaussians each, and what becomes of them."""
    rng = np.random.default_rng(seed)
    one = [SurvivorKind.VOXEL, *[SurvivorKind.GAUSSIAN] * count, SurvivorKind.VOXEL_END]
    kinds = np.array(one * (2000 // count))
    gaussian = kinds == SurvivorKind.GAUSSIAN
    places = np.cumsum(np.where(gaussian, rng.geometric(share, len(kinds)), 3))
    return kinds, ffu.FfuFrame(
        places=places, kept=kinds != SurvivorKind.VOXEL, tokens=np.zeros((0, 4), np.uint64))


@pytest.mark.parametrize(("sh_degree", "interval"), [(0, 4), (3, 2), (3, 4), (3, 8)])
def test_a_gaussian_every_interval(sh_degree, interval):
    """Whole voxels, and one in ten of small ones."""
    design = FfuDesign(interval=interval, codebooks=CodebookDesign(sh_degree=sh_degree))
    timing = MemoryTiming(latency_cycles=40)
    for count, share in ((256, 1.0), (20, 0.1)):
        kinds, frame = voxels(count, share)
        gaussians = int((kinds == SurvivorKind.GAUSSIAN).sum())
        cycles = model.cycles(design, kinds, frame, timing)
        # With every other cycle an end takes one that a Gaussian may want.
        allowed = 1.1 if interval > 2 else 1.2
        assert interval * gaussians < cycles < allowed * interval * gaussians
    # Codebooks: a beat a cycle, before anything.
    kinds, frame = voxels(20, 1.0)
    more = model.cycles(design, kinds, frame, timing, load=True) - model.cycles(
        design, kinds, frame, timing)
    assert abs(more - design.codebooks.beats) < 100


@pytest.mark.rtl
def test_testbench(run_testbench):
    run_testbench("ffu", seed=1)

"""Sorting of voxels: records, the rectangle's bound, order and lists, RTL against both models."""

import math
import re
import sys
from collections import deque
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from splatforge.algos.cfu import ALPHA_SIGMAS
from splatforge.algos.footprint import DILATION
from splatforge.algos.streaminggs.order import order_weights, voxel_keys, voxel_ranks
from splatforge.algos.streaminggs.partition import camera_cell, partition
from splatforge.algos.vsu import (
    MARGIN_PX,
    half_to_binary32,
    pack_stream_camera,
    sort_keys,
    vsu_fixed,
    vsu_schedule,
)
from splatforge.designs.ccu import CAMERA_WORDS, FLAG_ANTIALIASED
from splatforge.designs.floating import Floating
from splatforge.designs.memory import MemoryTiming
from splatforge.designs.shell import ShellDesign
from splatforge.designs.streaminggs import PartitionDesign
from splatforge.designs.tokens import GROUPS_AHEAD
from splatforge.designs.voxel import (
    STREAM_CAMERA_BEATS,
    STREAM_CAMERA_WORDS,
    VOXEL_BEATS,
    VOXEL_WORDS,
    WORD_INTEGERS,
)
from splatforge.designs.vsu import KEY_BITS, VsuDesign
from splatforge.hw.lib.axi import READ_SPLATS, READ_VOXELS
from splatforge.hw.vsu import Vsu
from splatforge.scenes import Camera
from splatforge.sim import vsu as model

sys.path.insert(0, str(Path(__file__).parent))
import streams
from gaussians import random_scene

DESIGN = VsuDesign()
FP = Floating()


def turned(width=149, height=101):
    """A camera that stands somewhere and looks askew, its image not centred."""
    view = Camera.look_at((0.4, -0.3, -1.5), (0.1, 0.2, 3.0), (0.1, -1.0, 0.2), width=width,
                          height=height, fov_x_deg=65)
    return replace(view, cx=view.cx + 7.3, cy=view.cy - 3.1)


def test_records_are_whole_beats():
    assert (len(VOXEL_WORDS), VOXEL_BEATS) == (8, 2)
    # At a multiple of 256 bytes the camera's lies in a page.
    assert STREAM_CAMERA_BEATS <= 16
    assert (len(STREAM_CAMERA_WORDS), STREAM_CAMERA_BEATS) == (56, 14)
    assert STREAM_CAMERA_WORDS[:23] == CAMERA_WORDS[:23]


def test_camera_by_hand():
    view = replace(turned(), near=0.3)
    words = pack_stream_camera(FP, view, (-5, 17, 9000), antialiased=True)
    assert (words.shape, words.dtype) == ((56,), np.uint32)
    word = dict(zip(STREAM_CAMERA_WORDS, words.tolist(), strict=True))
    assert [word[name] for name in WORD_INTEGERS[:4]] == [FLAG_ANTIALIASED, 0, 17, 8191]
    assert pack_stream_camera(FP, view, (0, 0, 0), antialiased=False)[15] == 0
    got = dict(zip(STREAM_CAMERA_WORDS, words.view(np.float32).astype(float), strict=True))
    assert got["near"] == np.float32(0.3)
    assert got["depth_x"] == np.float32(view.w2c[2, 0])
    assert MARGIN_PX > ALPHA_SIGMAS * math.sqrt(DILATION) + 0.25
    words = pack_stream_camera(
        FP, view, (0, 0, 0), antialiased=False, weights=(3, 200, 45), child_weights=(1, 4, 2))
    word = dict(zip(STREAM_CAMERA_WORDS, words.tolist(), strict=True))
    assert (word["weights"], word["child_weights"]) == (
        3 | 200 << 8 | 45 << 16, 1 | 4 << 3 | 2 << 6)
    np.testing.assert_allclose(
        [got[f"edge_{side}"] for side in ("left", "right", "top", "bottom")],
        [-view.cx - 2.25, 149 - view.cx + 2.25, -view.cy - 2.25, 101 - view.cy + 2.25], rtol=4e-6)
    assert got["focal2_x"] == pytest.approx(view.fx**2, rel=4e-6)
    # The frustum of the Jacobian is wider than the image by 0.3 of its half sides.
    far = math.hypot(view.fx, view.cx + 0.15 * 149)
    assert far < got["far_x"] < far * (1 + 1e-4)


def half_up(values):
    """Words of binary16, rounded up to a normal number."""
    half = np.asarray(values, np.float64).astype(np.float16)
    word = half.view(np.uint16) + (half.astype(float) < values)
    return np.where(np.asarray(values) > 0, np.maximum(word, 0x0400), 0).astype(np.uint32)


def records(base, size, rho, scale, *, cells=0, count=1, octaves=0, level=0, path=0, address=0):
    """The table of voxels."""
    table = np.zeros((len(size), 8), np.uint32)
    table[:, :3] = np.asarray(base, np.float32).view(np.uint32)
    table[:, 3] = np.asarray(size, np.float32).view(np.uint32)
    table[:, 4] = address
    table[:, 5] = (np.asarray(count) | np.asarray(octaves) << 10 | np.asarray(level) << 16
                   | np.asarray(path) << 18)
    table[:, 6] = cells
    table[:, 7] = half_up(rho) | half_up(scale) << 16
    return table


def test_words_of_binary16():
    half = np.arange(0x0400, 0x7C00, dtype=np.uint16)
    got = half_to_binary32(half).astype(np.uint32).view(np.float32)
    np.testing.assert_array_equal(got, half.view(np.float16).astype(np.float32))
    assert (half_to_binary32([0, 0x03FF, 0x8000]) == 0).all()


# ---- The rectangle holds whatever can be seen.


def crowds(view, count, seed, inside=24, falling=False):
    """Voxels around what a camera sees, and in front of its near plane; Gaussians in each.

    Half of the Gaussians are balls of the largest scale, which are the largest on the image; means
    stand in corners of the cube as well, and sizes and distances differ by orders of magnitude. Or
    their scales are `falling`, and what is beyond each prefix is as large as its octaves say.
    """
    rng = np.random.default_rng(seed)
    turn, eye = view.w2c[:3, :3], view.position
    size = (2.0 ** rng.uniform(-6, 3, count)).astype(np.float32)
    # Sizes of few bits, as those of cells are.
    size = (size.view(np.uint32) & 0xFFF0_0000).view(np.float32)
    depth = size * 2.0 ** rng.uniform(-2, 6, count) * np.where(rng.random(count) < 0.05, -1, 1)
    lateral = rng.uniform(-1, 1, (2, count)) * np.abs(depth) + rng.normal(0, 1, (2, count)) * size
    center = np.stack([*lateral, depth], 1) @ turn + eye
    base = (center - 1.5 * size[:, None]).astype(np.float32)
    q = rng.integers(0, 1 << 16, (count, inside, 3))
    corner = rng.random((count, inside, 1)) < 0.3
    q = np.where(corner, rng.choice((0, 65535), q.shape), q)
    # Some crowds fill only a part of their cube.
    narrow = rng.random((count, 1, 1)) < 0.3
    q = np.where(narrow, q[:, :1] + (q - q[:, :1]) // 16, q)
    means = base[:, None].astype(float) + (1 + q / 65536) * size[:, None, None].astype(float)
    center = base.astype(float) + 1.5 * size[:, None].astype(float)
    rho = np.linalg.norm(means - center[:, None], axis=2).max(axis=1)
    largest = half_up(size * 2.0 ** rng.uniform(-8, 1, count)).astype(np.uint16)
    largest = largest.view(np.float16).astype(float)
    scales = largest[:, None, None] * rng.uniform(0, 1, (count, inside, 3))
    scales[:, :, 0] = largest[:, None]
    scales[:, ::2] = largest[:, None, None]
    quats = rng.normal(size=(count, inside, 4))
    octaves = np.zeros((3, count), int)
    if falling:
        octaves = np.sort(rng.integers(0, 4, (3, count)), axis=0)[::-1]
        steps = np.zeros((count, inside))
        for prefix, step in zip(prefixes_of(inside)[::-1], octaves[::-1], strict=True):
            steps[:, prefix:] = step[:, None]
        scales *= 2.0 ** -steps[..., None]
    return records(base, size, rho, largest, count=inside, octaves=sum(
        octave << 2 * n for n, octave in enumerate(octaves))), means, scales, quats


def prefixes_of(count):
    """A half, a quarter, an eighth, in fours."""
    return [4 * math.ceil(count / 4 / part) for part in (2, 4, 8)]


def shadows(view, means, scales, quats):
    """Where on the image alpha can reach 1/255: ends in pixels [N, M, 4], and what is not culled.

    Written without the formulas of the unit: the whole covariance, in float64.
    """
    t = (means - view.position) @ view.w2c[:3, :3].T
    seen = t[..., 2] > view.near
    z = np.where(seen, t[..., 2], 1.0)
    u, v = view.fx * t[..., 0] / z, view.fy * t[..., 1] / z
    w, x, y, k = np.moveaxis(quats / np.linalg.norm(quats, axis=-1, keepdims=True), -1, 0)
    turn = np.stack([
        1 - 2 * (y * y + k * k), 2 * (x * y - w * k), 2 * (x * k + w * y),
        2 * (x * y + w * k), 1 - 2 * (x * x + k * k), 2 * (y * k - w * x),
        2 * (x * k - w * y), 2 * (y * k + w * x), 1 - 2 * (x * x + y * y),
    ], -1).reshape(*w.shape, 3, 3)
    half = turn * scales[..., None, :]
    ends = []
    for at, focal, center, side, row in (
            (u, view.fx, view.cx, view.width, 0), (v, view.fy, view.cy, view.height, 1)):
        clamped = np.clip(at, -center - 0.15 * side, side - center + 0.15 * side)
        jacobian = (focal * view.w2c[row, :3] - clamped[..., None] * view.w2c[2, :3]) / z[..., None]
        deviation = np.sqrt(((jacobian[..., None, :] @ half) ** 2).sum((-1, -2)) + DILATION)
        ends += [at + center - ALPHA_SIGMAS * deviation, at + center + ALPHA_SIGMAS * deviation]
    return np.stack(ends, -1), seen


def wide_view():
    """A camera of 110 degrees far from the origin, of a frame as large as may be."""
    view = Camera.look_at((812.3, -420.7, 96.1), (830.3, -433.0, 60.0), (0.3, 0.1, 1), width=8192,
                          height=4000, fov_x_deg=110)
    return replace(view, near=0.05)


@pytest.mark.parametrize(("view", "group", "count"), [
    (turned(), 1, 4000), (turned(640, 481), 2, 4000), (wide_view(), 4, 2000)])
def test_no_gaussian_is_lost(view, group, count):
    design = VsuDesign(group_tiles=group, voxels=65536)
    table, means, scales, quats = crowds(view, count, group)
    frame = vsu_fixed(
        design, table, pack_stream_camera(FP, view, (0, 0, 0), antialiased=False), view.width,
        view.height)
    ends, seen = shadows(view, means, scales, quats)
    px = design.group_px
    first, last = np.floor(ends[..., ::2] / px), np.floor(ends[..., 1::2] / px)
    groups = np.array([frame.columns, frame.rows])
    # A group ends with the image.
    met = seen & ((last >= 0) & (ends[..., ::2] <= [view.width, view.height])).all(-1)
    assert 0.3 * count < met.any(1).sum() < 0.75 * count
    listed = np.zeros(count, bool)
    listed[frame.ids] = True
    assert listed[met.any(1)].all()
    here = met[frame.ids]
    for n in range(2):
        low = np.where(here, np.maximum(first[frame.ids, :, n], 0), np.inf).min(1)
        high = np.where(here, np.minimum(last[frame.ids, :, n], groups[n] - 1), -1).max(1)
        assert (frame.ends[2 * n] <= low).all()
        assert (frame.ends[2 * n + 1] >= high).all()
    # And not much too much: most that are listed are met.
    assert met.any(1).sum() > 0.8 * len(frame.ids)


@pytest.mark.parametrize(("view", "group", "count"), [
    (turned(), 1, 1500), (turned(640, 481), 2, 1500), (wide_view(), 4, 500)])
@pytest.mark.parametrize("inside", [24, 33])
def test_nothing_beyond_a_prefix_is_wanted(view, group, count, inside):
    design = VsuDesign(group_tiles=group, voxels=65536)
    table, means, scales, quats = crowds(view, count, group, inside, falling=True)
    camera = pack_stream_camera(FP, view, (0, 0, 0), antialiased=False)
    frame = vsu_fixed(design, table, camera, view.width, view.height)
    assert set(frame.prefixes) == {inside, *prefixes_of(inside)}
    ends, seen = shadows(view, means, scales, quats)
    px = design.group_px
    # First and last group of every Gaussian of every visible voxel; beyond the image is nowhere.
    ends, seen = ends[frame.ids], seen[frame.ids]
    first, last = np.floor(ends[..., ::2] / px), np.floor(ends[..., 1::2] / px)
    met = seen & (ends[..., ::2] <= [view.width, view.height]).all(-1)
    hits = 0
    for number in range(frame.columns * frame.rows):
        of = slice(frame.starts[number], frame.starts[number + 1])
        at, here = frame.places[of], np.array([number % frame.columns, number // frame.columns])
        wanted = met[at] & ((first[at] <= here) & (here <= last[at])).all(-1)
        beyond = np.arange(inside) >= frame.prefixes[of][:, None]
        assert not (wanted & beyond).any()
        hits += wanted.sum()
    assert hits > 1000
    # Of most of these voxels, which stand near, all is loaded; of others less.
    assert (frame.prefixes < inside).mean() > 0.08
    whole = vsu_fixed(replace(design, prefixes=False), table, camera, view.width, view.height)
    np.testing.assert_array_equal(whole.places, frame.places)
    assert (whole.prefixes == inside).all()


def test_prefixes_by_hand():
    """One voxel of 20, straight ahead: the rectangle of means, and what halves of its blur meet."""
    view = Camera(width=512, height=32, fx=100, fy=100, cx=256, cy=16, w2c=np.eye(4))
    design = VsuDesign(group_tiles=1)

    def prefixes(octaves, **change):
        table = records([[-1.5, -1.5, 8.5]], [1.0], [0.01], [1.0], count=20, octaves=octaves)
        frame = vsu_fixed(replace(design, **change), table, pack_stream_camera(
            FP, view, (0, 0, 0), antialiased=False), view.width, view.height)
        of_row = frame.prefixes[frame.starts[0]:frame.starts[frame.columns]]
        return frame.ends[:2, 0].tolist(), of_row.tolist()

    # At a depth of 10 a scale of 1 reaches 33.3 px, and at an edge of the image so much more, with
    # margin and means 2.4 px: columns of 16 from 256 - 36 on.
    (left, right), whole = prefixes(0)
    assert (left, right) == (13, 18)
    assert whole == [20] * 6
    assert prefixes(0b111111, prefixes=False)[1] == [20] * 6
    # An eighth of that is 4.2 px, a half 16.7: beyond the half of them are none in outer columns.
    assert prefixes(0b111111)[1] == [4, 4, 20, 20, 4, 4]
    assert prefixes(0b010101)[1] == [4, 20, 20, 20, 20, 4]
    # The larger ones behind the eighth reach as far as a half, those behind the quarter do not.
    assert prefixes(0b011111)[1] == [4, 8, 20, 20, 8, 4]
    # What is behind the eighth reaches all of them, what is behind the half only the middle.
    assert prefixes(0b000111)[1] == [8, 12, 20, 20, 12, 8]


def test_rectangles_fit():
    """A small ball far from the sides: half a side is what the sphere and the blur make it."""
    view = turned(4000, 3000)
    rng = np.random.default_rng(5)
    center = np.stack([*rng.uniform(-0.2, 0.2, (2, 300)), np.ones(300)]) * rng.uniform(2, 9, 300)
    size = 2.0 ** rng.integers(-4, -1, 300)
    base = center.T @ view.w2c[:3, :3] + view.position - 1.5 * size[:, None]
    table = records(base, size, 0.7 * size, 0.05 * size)
    frame = vsu_fixed(
        VsuDesign(group_tiles=1), table, pack_stream_camera(FP, view, (0, 0, 0), antialiased=False),
        view.width, view.height)
    z, size = center[2, frame.ids], size[frame.ids]
    half = view.fx * (0.7 + 0.05 * ALPHA_SIGMAS) * size / (z - 0.7 * size) + MARGIN_PX
    groups = frame.ends[1] - frame.ends[0] + 1
    assert (groups >= np.floor(2 * half / 16)).all()
    # Off the axis balls look wider, by 1.1 at most here.
    assert (groups <= 2 * 1.1 * half / 16 + 2).all()


def ball(center, radius=0.5, scale=0.01, near=0.2, size=1.0):
    """Whether a voxel is listed, and its rectangle; the camera looks along +z from the origin."""
    view = replace(
        Camera(width=128, height=96, fx=100, fy=100, cx=64, cy=48, w2c=np.eye(4)), near=near)
    table = records(np.array([center]) - 1.5 * size, [size], [radius], [scale])
    frame = vsu_fixed(VsuDesign(group_tiles=1), table, pack_stream_camera(
        FP, view, (0, 0, 0), antialiased=False), view.width, view.height)
    return frame.ends[:, 0].tolist() if len(frame.ids) else None


def test_near_plane_and_sides_by_hand():
    assert ball((0, 0, 4), radius=0.1) == [3, 4, 2, 3]
    # Behind the plane; at the plane, where all of the image may show it; just clear of it.
    assert ball((0, 0, -0.31)) is None
    assert ball((0, 0, -0.29)) == ball((0, 0, 0.69)) == [0, 7, 0, 5]
    assert ball((0, 0, 0.71)) == [0, 7, 0, 5]
    # Beside the eye, across the near plane: beyond the left side at 45 degrees and beyond.
    assert ball((-3, 0, 0.2)) is None
    assert ball((-3, 0, 0.2), scale=1.0) == [0, 7, 0, 5]
    # One pixel beyond the right side, and on it: 0.64 of the depth.
    assert ball((5.4, 0, 8), radius=0.01, scale=0.001) is None
    assert ball((5.2, 0, 8), radius=0.01, scale=0.001) == [7, 7, 2, 3]


# ---- Order.


def leaves(rng, cells, deepest=3):
    """Cells halved at random: corner and edge in finest cells, base cell, level, path."""
    found = []

    def halve(cell, corner, edge, level, path):
        if level < deepest and rng.random() < (0.5, 0.4, 0.3)[level]:
            for child in range(8):
                offset = np.array([child & 1, child >> 1 & 1, child >> 2]) * edge // 2
                halve(cell, corner + offset, edge // 2, level + 1, path | child << 3 * level)
        else:
            found.append((corner, edge, cell, level, path))

    for number in range(cells**3):
        cell = np.array([number % cells, number // cells % cells, number // cells**2])
        halve(cell, 8 * cell, 8, 0, 0)
    return found


WEIGHTS = [((1, 1, 1), (1, 1, 1)), ((3, 200, 45), (1, 4, 2)), ((255, 1, 9), (3, 1, 2))]


def keys_of(found, eye, weights):
    cells = np.array([cell[0] | cell[1] << 10 | cell[2] << 20 for _, _, cell, _, _ in found])
    population = np.array([7 | level << 16 | path << 18 for *_, level, path in found])
    return sort_keys(cells, population, np.asarray(eye), *weights)


def slow_key(cell, level, path, eye, weights):
    """The key, one halving after another."""
    key = [sum(weights[0][axis] * abs(int(cell[axis]) - eye[axis] // 8) for axis in range(3))]
    corner, edge = [8 * int(c) for c in cell], 8
    for n in range(3):
        if n >= level:
            key.append(0)
            continue
        edge //= 2
        child = [path >> (3 * n + axis) & 1 for axis in range(3)]
        nearest = [int(eye[axis] >= corner[axis] + edge) for axis in range(3)]
        key.append(sum(weight * (a != b) for weight, a, b in zip(
            weights[1], child, nearest, strict=True)))
        corner = [corner[axis] + edge * child[axis] for axis in range(3)]
    return key[0] << 9 | key[1] << 6 | key[2] << 3 | key[3]


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("eye", [(13.3, 9.2, 20.9), (0, 0, 0), (31.9, 3.1, 16.0), (-40, 70, 5.5),
                                 (12.5, 16.0, 8.0)])
def test_every_ray_meets_voxels_in_order(eye, weights):
    rng = np.random.default_rng(3)
    found = leaves(rng, 4)
    eye = np.array(eye, float)
    # As it is packed: no lower than 0; the lists' order does not change by that.
    place = np.maximum(np.floor(eye), 0).astype(np.int64)
    keys = keys_of(found, place, weights)
    assert keys.tolist() == [slow_key(cell, level, path, place.tolist(), weights)
                             for _, _, cell, level, path in found]
    corners = np.array([corner for corner, *_ in found], float)
    edges = np.array([edge for _, edge, *_ in found], float)
    crossings = 0
    for target in rng.uniform(0, 32, (300, 3)):
        way = target - eye
        with np.errstate(divide="ignore"):
            low, high = (corners - eye) / way, (corners + edges[:, None] - eye) / way
        enter = np.minimum(low, high).max(1)
        leave = np.maximum(low, high).min(1)
        met = np.flatnonzero(leave - np.maximum(enter, 0) > 1e-9)
        along = keys[met[np.argsort(np.maximum(enter, 0)[met])]]
        assert (np.diff(along) > 0).all()
        crossings += len(met)
    assert crossings > 2000


def test_keys_fit():
    """The eye in one corner of the largest grid, a voxel in the other."""
    cell, population = (1 << 30) - 1, 1 | 3 << 16 | 511 << 18
    (key,) = sort_keys(np.array([cell]), np.array([population]), np.zeros(3, int))
    assert key == (3 * 1023) << 9 | 0b011011011
    # Saturated.
    (key,) = sort_keys(
        np.array([cell]), np.array([population]), np.zeros(3, int), (1, 3, 1), (4, 2, 1))
    assert key == (1 << KEY_BITS) - 1


def town(seed, view, cells=6, edge=1.0):
    """Voxels of a halved grid around what a camera sees; table and the eye's finest cell."""
    rng = np.random.default_rng(seed)
    found = [leaf for leaf in leaves(rng, cells) if rng.random() < 0.7]
    origin = view.position + view.w2c[2, :3] * 2.5 - cells * edge / 2
    corner = origin + np.array([leaf[0] for leaf in found]) * edge / 8
    size = np.array([leaf[1] for leaf in found]) * edge / 8
    cells_word = [c[0] | c[1] << 10 | c[2] << 20 for _, _, c, _, _ in found]
    table = records(
        corner - size[:, None], size, size * rng.uniform(0.3, 0.87, len(size)),
        size * 2.0 ** rng.uniform(-7, -3, len(size)), cells=cells_word,
        count=rng.integers(1, 257, len(size)), octaves=rng.integers(0, 64, len(size)),
        level=[leaf[3] for leaf in found], path=[leaf[4] for leaf in found],
        address=rng.integers(0, 1 << 32, len(size), dtype=np.uint32))
    eye = np.floor((view.position - origin) / (edge / 8)).astype(int)
    return table, eye


@pytest.mark.parametrize("eye", [(0.4, -0.3, -1.5), (0.3, 0.2, 3.1), (40.0, 3.0, 9.0)])
def test_order_is_that_of_the_algorithm(eye):
    """Of a scene that is cut into voxels, with weights after the view's direction."""
    scene = random_scene(4000, 7)
    cut = partition(scene, PartitionDesign(occupied_cells=60, capacity=32))
    assert len(np.unique(cut.levels)) > 2
    view = replace(Camera.look_at(eye, (0.1, 0.2, 3.0), (0.1, -1.0, 0.2), width=149, height=101,
                                  fov_x_deg=65), near=0.05)
    weights = order_weights(cut, view)
    assert max(weights.cells) > 20
    place = np.clip(camera_cell(cut, view), 0, 8 * cut.counts - 1)
    camera = pack_stream_camera(FP, cut.stored_camera(view), place, antialiased=False,
                                weights=weights.cells, child_weights=weights.children)
    frame = vsu_fixed(DESIGN, cut.table(), camera, view.width, view.height)
    assert 100 < len(frame.ids)
    np.testing.assert_array_equal(frame.keys, voxel_keys(cut, view)[frame.ids])
    rank = voxel_ranks(cut, view)[frame.ids]
    assert (np.diff(rank) > 0).all()
    # What the reference draws in a group is in a voxel of its list.
    ends, seen = shadows(view, cut.means(), *(
        (np.exp(scene.log_scales[cut.ids].astype(float)), scene.quats[cut.ids].astype(float))))
    first = np.maximum(np.floor(ends[:, ::2] / 32), 0)
    last = np.minimum(np.floor(ends[:, 1::2] / 32), [frame.columns - 1, frame.rows - 1])
    seen &= ((last >= 0) & (ends[:, ::2] <= [view.width, view.height])).all(-1)
    assert seen.sum() > 500
    for number in range(frame.columns * frame.rows):
        row, column = divmod(number, frame.columns)
        met = seen & ((first <= [column, row]) & (last >= [column, row])).all(-1)
        assert np.isin(cut.voxel_of[met], frame.voxels_of(number)).all()


@pytest.mark.parametrize("group", [1, 2, 4])
def test_lists_are_sorted_and_what_rectangles_say(group):
    view = turned(333, 217)
    table, eye = town(group, view)
    table[5, 5] &= ~np.uint32(0xFFFF)  # A voxel of nothing.
    weights = WEIGHTS[group // 2]
    camera = pack_stream_camera(
        FP, view, eye, antialiased=False, weights=weights[0], child_weights=weights[1])
    frame = vsu_fixed(VsuDesign(group_tiles=group), table, camera, view.width, view.height)
    assert (frame.columns, frame.rows) == (-(-333 // (16 * group)), -(-217 // (16 * group)))
    assert 300 < len(frame.ids) < 0.9 * len(table)
    assert 5 not in frame.ids
    # One of what stands in front of the other by its key, or by its place in the table.
    place = np.maximum(eye, 0)
    slow = [(slow_key([word & 1023, word >> 10 & 1023, word >> 20], pop >> 16 & 3, pop >> 18,
                      place.tolist(), weights), n)
            for n, (pop, word) in enumerate(table[:, 5:7].tolist())]
    assert [slow[n] for n in frame.ids] == sorted(slow[n] for n in frame.ids)
    np.testing.assert_array_equal(frame.count, table[frame.ids, 5] & 0x3FF)
    np.testing.assert_array_equal(frame.address, table[frame.ids, 4])
    base = table[:, :3].view(np.float32).astype(float)[frame.ids]
    np.testing.assert_allclose(FP.to_float(frame.d).T, base - view.position, atol=2e-5)
    np.testing.assert_array_equal(FP.to_float(frame.size), table[frame.ids, 3].view(np.float32))
    lists = [[] for _ in range(frame.columns * frame.rows)]
    for n, (left, right, top, bottom) in zip(frame.ids, frame.ends.T, strict=True):
        for row in range(top, bottom + 1):
            for column in range(left, right + 1):
                lists[row * frame.columns + column].append(n)
    for number, expected in enumerate(lists):
        assert frame.voxels_of(number).tolist() == expected


def test_coarser_arithmetic_is_still_a_bound():
    """Slack follows the format."""
    coarse = VsuDesign(floating=Floating(fraction_bits=11), group_tiles=1, voxels=65536)
    view = turned()
    table, means, scales, quats = crowds(view, 2000, 9)
    frame = vsu_fixed(coarse, table, pack_stream_camera(
        coarse.floating, view, (0, 0, 0), antialiased=False), view.width, view.height)
    ends, seen = shadows(view, means, scales, quats)
    met = seen & ((ends[..., 1::2] >= 0) & (ends[..., ::2] <= [view.width, view.height])).all(-1)
    listed = np.zeros(2000, bool)
    listed[frame.ids] = True
    assert listed[met.any(1)].all()


def test_wrong_weights_are_refused():
    for change, message in (
        ({"weights": (1, 0, 1)}, "Weights of cells must be 1 to 255, not (1, 0, 1)"),
        ({"weights": (1, 256, 1)}, "Weights of cells must be 1 to 255, not (1, 256, 1)"),
        ({"child_weights": (4, 2, 2)},
         "Weights of children must be 1 or more, at most 7 together, not (4, 2, 2)"),
        ({"child_weights": (4, 2, 0)},
         "Weights of children must be 1 or more, at most 7 together, not (4, 2, 0)"),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            pack_stream_camera(FP, turned(), (0, 0, 0), antialiased=False, **change)


def test_too_many_are_refused():
    view = turned(333, 217)
    table, eye = town(1, view)
    camera = pack_stream_camera(FP, view, eye, antialiased=False)
    with pytest.raises(ValueError, match=r"^Visible voxels must be at most 64, not \d+$"):
        vsu_fixed(VsuDesign(voxels=64), table, camera, view.width, view.height)


@pytest.mark.parametrize(("change", "message"), [
    ({"voxels": 100}, "Voxels must be a power of two from 64 to 65536, not 100"),
    ({"voxels": 32}, "Voxels must be a power of two from 64 to 65536, not 32"),
    ({"scan_width": 3}, "Scan width must be 1, 2, 4, 8 or 16, not 3"),
    ({"interval": 1}, "Interval must be 2 to 64 cycles, not 1"),
    ({"group_tiles": 3}, "Group must be 1, 2 or 4 tiles wide, not 3"),
    ({"floating": Floating(exponent_bits=7)},
     "Arithmetic must have the 8 exponent bits of binary32, not FP(7,17)"),
    ({"buffer_beats": 24}, "Buffer must have a power of two from 16 to 4096 beats, not 24"),
    ({"burst_beats": 512}, "Burst must have a power of two from 4 to 256 beats, not 512"),
    ({"burst_beats": 128}, "Burst must be at most half of the buffer's 128 beats, not 128"),
    ({"outstanding_bursts": 65}, "Outstanding bursts must be 1 to 64, not 65"),
    ({"waiting_rows": 1}, "Waiting rows must be 2 to 64, not 1"),
])
def test_wrong_designs_are_refused(change, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        VsuDesign(**change)


def test_groups_of_the_largest_frame():
    assert [VsuDesign(group_tiles=g).group_bits(ShellDesign()) for g in (1, 2, 4)] == [9, 8, 7]
    with pytest.raises(ValueError, match=r"^Largest side must be at most 16384 pixels, not 16385$"):
        DESIGN.group_bits(ShellDesign(max_side=16385))


# ---- The unit itself.

#: Everything fills up.
SMALL = VsuDesign(voxels=64, scan_width=2, interval=3, group_tiles=1, buffer_beats=16,
                  burst_beats=4, outstanding_bursts=2, waiting_rows=2)
WIDE = VsuDesign(scan_width=8, interval=8, group_tiles=4, waiting_rows=3)
ONE = VsuDesign(voxels=64, scan_width=1, interval=2)
WHOLE = VsuDesign(prefixes=False, interval=2, scan_width=4)
#: Above 32 bits; the table in the middle of a burst, and across a page.
CAMERA, TABLE = 0x9_8765_4300, 0x12_3456_7FD0


@cache
def bench(design):
    return streams.Bench(Vsu(design))


class Play:
    """The unit between a memory and what takes groups and voxels, beside both models.

    With ``early``, groups are over at any time behind their announcement; in a cycle something of
    one that is over lingers elsewhere with a probability of ``lingers``. Before cycle ``frozen`` no
    group is over.
    """

    def __init__(self, design, table, eye, view, *, seed=1, gap=0.0, stall=0.0, latency=9,
                 early=False, lingers=0.0, stop=None, frozen=0):
        self.design, self.view, self.table, self.stop = design, view, table, stop
        self.gap, self.stall, self.latency = gap, stall, latency
        self.early, self.lingers, self.frozen = early, lingers, frozen
        self.rng = np.random.default_rng(seed)
        self.camera = pack_stream_camera(
            FP, view, eye, antialiased=True, weights=(90, 41, 255), child_weights=(2, 1, 4))
        room = replace(design, voxels=65536)
        self.frame = vsu_fixed(room, table, self.camera, view.width, view.height)
        self.groups = self.frame.columns * self.frame.rows
        self.given = [[] for _ in range(self.groups)]
        self.ended = [False] * self.groups
        self.announced = self.oldest = self.cycles = 0
        #: Cycles in which groups and voxels were taken; (address, beats) of bursts.
        self.times, self.asked = [], []
        self.memory = {
            base + 16 * n: int.from_bytes(beat.astype("<u4").tobytes(), "little")
            for base, words in ((CAMERA, self.camera), (TABLE, table.reshape(-1)))
            for n, beat in enumerate(words.reshape(-1, 4))}

    def out(self, probability):
        return self.rng.random() < probability

    def check_group(self, got):
        design, view, number = self.design, self.view, self.announced
        row, column = divmod(number, self.frame.columns)
        assert (got.tag, got.x, got.y) == (
            number % 32, column * design.group_tiles, row * design.group_tiles)
        assert got.columns == min(design.group_px, view.width - column * design.group_px)
        assert got.rows == min(design.group_px, view.height - row * design.group_px)
        assert number - self.oldest <= GROUPS_AHEAD

    def check_voxel(self, got, number):
        """A token of group `number`, in the order of its list."""
        frame = self.frame
        assert (got.tag, got.row * frame.columns + got.column) == (number % 32, number)
        assert not self.ended[number]
        places = frame.places[frame.starts[number]:frame.starts[number + 1]]
        given = self.given[number]
        if got.last:
            assert len(given) == len(places)
            self.ended[number] = True
            return
        at = places[len(given)]
        voxel = got.voxel
        assert [voxel.d_x, voxel.d_y, voxel.d_z, voxel.size, voxel.count, voxel.address,
                got.prefix] == [
            *frame.d[:, at], frame.size[at], frame.count[at], frame.address[at],
            frame.prefixes[frame.starts[number] + len(given)]]
        given.append(frame.ids[at])

    async def play(self, ctx):
        dut, view, design = bench(self.design).dut, self.view, self.design
        for name, value in (
            ("width", view.width), ("height", view.height), ("voxels", len(self.table)),
            ("camera_address", CAMERA), ("voxel_address", TABLE), ("oldest", 0), ("start", 1),
        ):
            ctx.set(getattr(dut, name), value)
        await ctx.tick()
        ctx.set(dut.start, 0)
        state = self.state = model.new_vsu(
            design, len(self.table), self.groups, camera_address=CAMERA, voxel_address=TABLE)
        rows = model.rows_of(design, self.frame)
        visible = np.zeros(len(self.table), bool)
        visible[self.frame.ids] = True
        beats = deque()
        ports = dut.o_address, dut.o_group, dut.o_voxel
        layouts = [port.payload.shape() for port in ports]
        events = dut.busy, dut.stalled, dut.streamed, dut.visible, dut.found
        counts = [model.BUSY, model.STALLED, model.STREAMED, model.VISIBLE, model.HITS]
        held = {}
        for cycle in range(60_000):
            stop = self.stop is not None and cycle >= self.stop
            full = state[model.AT] == model.ANNOUNCE and state[model.OVERFLOW]
            if model.is_idle(state) and (model.is_done(state) or stop or full):
                self.cycles = cycle
                break
            ready = [not self.out(self.stall) for _ in ports]
            for port, value in zip(ports, ready, strict=True):
                ctx.set(port.ready, value)
            due = bool(beats) and beats[0][0] <= cycle and not self.out(self.gap)
            lingers = self.out(self.lingers)
            oldest = self.oldest
            ctx.set(dut.stop, stop)
            ctx.set(dut.oldest, oldest % 32)
            ctx.set(dut.others_behind, lingers)
            last = False
            if due:
                _, word, last = beats.popleft()
                beat = {"id": READ_VOXELS, "data": word, "last": last}
            else:
                beat = {"id": READ_SPLATS, "data": 0x55, "last": self.out(0.5)}
            ctx.set(dut.i_beat.valid, due or self.out(0.3))
            ctx.set(dut.i_beat.payload, beat)
            offered = [
                *model.offers(state), model.is_done(state), model.is_idle(state),
                model.is_loaded(state), model.behind(state, oldest), state[model.OVERFLOW]]
            asked, token, before = (
                int(state[model.ADDRESS]), int(state[model.TOKEN]), state[counts].copy())
            _, _, *seen = await ctx.tick().sample(
                *(port.valid for port in ports), dut.done, dut.idle, dut.loaded, dut.behind,
                dut.overflow, *events, *(port.payload.as_value() for port in ports))
            model.step(state, visible, rows, stop, ready[0], due, last, oldest, lingers, *ready[1:])
            valid, payloads = seen[:3], seen[-3:]
            burst, group, voxel = (
                streams.unpack(*pair) for pair in zip(layouts, payloads, strict=True))
            # The model shows what the unit shows.
            assert [(burst.length + 1) * valid[0], *seen[1:8]] == list(map(int, offered)), cycle
            assert seen[8:13] == (state[counts] - before).tolist(), cycle
            for n in range(3):
                if n in held:
                    assert valid[n]
                    assert payloads[n] == held[n]
                held.pop(n, None)
                if valid[n] and not ready[n]:
                    held[n] = payloads[n]
            if valid[0]:
                assert (burst.address, burst.id) == (16 * asked, READ_VOXELS)
                assert burst.address >> 12 == (burst.address + 16 * burst.length) >> 12
            if valid[0] and ready[0]:
                self.asked.append((burst.address, burst.length + 1))
                beats.extend((cycle + self.latency, self.memory[burst.address + 16 * n],
                              n == burst.length) for n in range(burst.length + 1))
            if valid[1] and ready[1]:
                self.check_group(group)
                self.times.append(("group", cycle))
                self.announced += 1
            if valid[2] and ready[2]:
                self.check_voxel(voxel, token)
                self.times.append(("voxel", cycle))
            while (self.oldest < self.announced and self.ended[self.oldest]
                   and cycle >= self.frozen):
                self.oldest += 1
            if self.early and self.oldest < self.announced and self.out(0.02):
                self.oldest += 1
        else:
            raise AssertionError("not done")

    def check(self):
        bench(self.design).play(self.play)
        # Every beat once, in order.
        read = [16 * n + address for address, beats in self.asked for n in range(beats)]
        assert read == list(self.memory)
        assert self.announced == self.groups
        if not self.early:
            assert all(self.ended)
            for number in range(self.groups):
                assert self.given[number] == self.frame.voxels_of(number).tolist()
        return self


@cache
def small_town():
    view = turned(85, 53)
    table, eye = town(4, view, cells=2, edge=2.0)
    return table[::2], eye, view


@pytest.mark.parametrize(("design", "gap", "stall", "early", "lingers"), [
    (DESIGN, 0.3, 0.5, True, 0.1), (SMALL, 0.2, 0.3, False, 0.3), (SMALL, 0.0, 0.8, True, 0.0),
    (WIDE, 0.0, 0.0, False, 0.0), (ONE, 0.1, 0.6, False, 0.0), (WHOLE, 0.1, 0.3, True, 0.1)])
def test_rtl_against_both_models(design, gap, stall, early, lingers):
    play = Play(design, *small_town(), gap=gap, stall=stall, early=early, lingers=lingers).check()
    assert 20 < len(play.frame.ids) < len(play.table)
    if early:
        # Some groups are cut short, and what is given of them is the beginning of their list.
        assert not all(play.ended)
    assert play.state[model.STALLED] > 0 or not stall


def test_nothing_lingers_when_a_group_is_announced():
    """A voxel of a group that is over is not taken while others pass: its tag would come again."""
    table, eye, view = small_town()
    play = Play(SMALL, table[::4], eye, view, stall=0.97, seed=2, early=True).check()
    assert sum(play.ended) < play.groups / 2


@pytest.mark.parametrize("visible", [False, True])
def test_the_last_voxel_of_the_table(visible):
    """Whether it is kept or not, and in which stage that is known, tells when sorting may begin."""
    table, eye, view = small_town()
    seen = np.zeros(len(table), bool)
    seen[vsu_fixed(DESIGN, table, pack_stream_camera(FP, view, eye, antialiased=True), view.width,
                   view.height).ids] = True
    Play(WIDE, table[np.argsort(seen if visible else ~seen, kind="stable")][::2], eye, view).check()


def test_nothing_to_sort():
    table, eye, view = small_town()
    play = Play(SMALL, table[:0], eye, view, frozen=600).check()
    assert play.asked == [(CAMERA, STREAM_CAMERA_BEATS)]
    assert all(play.ended)
    # Until one was over no more groups were announced than numbers tell apart.
    assert sum(cycle < 600 for name, cycle in play.times if name == "group") == GROUPS_AHEAD + 1


def test_too_many():
    table, eye, view = small_town()
    near = vsu_fixed(SMALL, table, pack_stream_camera(FP, view, eye, antialiased=True), 85, 53).ids
    play = Play(SMALL, table[np.tile(near, 9)[:70]], eye, view)
    bench(SMALL).play(play.play)
    assert play.state[model.OVERFLOW]
    assert play.announced == 0


@pytest.mark.parametrize("stop", [5, 300])
def test_stop(stop):
    """The model knows it as well."""
    play = Play(SMALL, *small_town(), stop=stop, latency=20)
    bench(SMALL).play(play.play)
    assert 0 < len(play.asked) < 2 * len(play.table) // 4
    assert not model.is_done(play.state)


def test_latency_and_throughput():
    """A hit a cycle; a group's scan is done while the one before is taken."""
    table, eye, view = small_town()
    play = Play(WIDE, table, eye, view).check()
    what = [name for name, _ in play.times]
    cycle = dict(enumerate(cycle for _, cycle in play.times))
    first = what.index("voxel")
    assert cycle[first] - cycle[first - 1] == Vsu.latency
    voxels = np.array([cycle for name, cycle in play.times if name == "voxel"])
    # Rows of eight, of which three wait: one voxel after the other, and the ends between them.
    hits = len(play.frame.places)
    assert voxels[-1] - voxels[0] < 1.1 * (hits + play.groups)


def test_cycles():
    """Before the first group the table and three passes; then the rows of all groups."""
    # With wider rows the hits take longer, and both have their turn.
    design = VsuDesign(scan_width=8)
    rng = np.random.default_rng(1)
    count, view = 2000, turned(320, 256)
    depth = rng.uniform(2, 12, count)
    center = np.stack([*(rng.uniform(-0.4, 0.4, (2, count)) * depth), depth])
    size = np.full(count, 0.25)
    table = records(
        center.T @ view.w2c[:3, :3] + view.position - 1.5 * size[:, None], size, 0.7 * size,
        size / 16, cells=rng.integers(0, 1 << 30, count))
    camera = pack_stream_camera(FP, view, (0, 0, 0), antialiased=False)
    frame = vsu_fixed(design, table, camera, view.width, view.height)
    visible, groups = len(frame.ids), frame.columns * frame.rows
    assert groups == 80
    assert visible > 1500
    first, total = model.cycles(design, frame, count, MemoryTiming(latency_cycles=40))
    # The first results may wait until counts are cleared; then these are added up.
    arithmetic = max(1 << 7, 40 + STREAM_CAMERA_BEATS + 40 + vsu_schedule(design).finish)
    streaming = arithmetic + design.interval * count
    assert abs(first - (streaming + 129 + 3 * visible)) < 60
    rows = -(-visible // design.scan_width)
    # Every row is read, every hit given, whichever takes longer.
    most = max(rows * groups, len(frame.places))
    assert rows * groups < total - first < 1.02 * most + 10 * groups


@pytest.mark.rtl
def test_testbench(run_testbench):
    run_testbench("vsu", seed=1)

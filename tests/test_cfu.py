"""Coarse filters: nothing that is seen is lost, little else passes, RTL as the models."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from splatforge.algos import cfu, floating
from splatforge.algos.cfu import (
    SLACK,
    block_exponent,
    cfu_graph,
    coarse_numbers,
    filter_fixed,
    group_center,
    near_depth,
    scaled,
)
from splatforge.algos.dataflow import evaluate
from splatforge.algos.streaminggs.partition import camera_cell, partition
from splatforge.algos.vsu import pack_stream_camera
from splatforge.designs.cfu import HALF, LARGE, NORM, CfuDesign
from splatforge.designs.floating import BINARY32, Floating
from splatforge.designs.streaminggs import PartitionDesign
from splatforge.designs.voxel import COARSE_INTEGERS, STREAM_CAMERA_WORDS
from splatforge.scenes import Camera

sys.path.insert(0, str(Path(__file__).parent))
from gaussians import random_scene

DESIGN = CfuDesign()
FP = Floating()
SIGMAS2 = 2 * np.log(255)


def turned(width=149, height=101, fov_x_deg=65.0):
    """A camera that stands somewhere and looks askew, its image not centred."""
    view = Camera.look_at((0.4, -0.3, -1.5), (0.1, 0.2, 3.0), (0.1, -1.0, 0.2), width=width,
                          height=height, fov_x_deg=fov_x_deg)
    return replace(view, cx=view.cx + 7.3, cy=view.cy - 3.1)


def voxel_words(cut, camera):
    """Corner less edge, relative to the eye, and the edge, of every voxel; [V, 4]."""
    wide = [floating.subtract(BINARY32, BINARY32.quantize(cut.base[:, k].astype(np.float64)),
                              BINARY32.quantize(camera.position[k])) for k in range(3)]
    wide.append(BINARY32.quantize(cut.size.astype(np.float64)))
    return np.stack([floating.narrow(FP, word, BINARY32) for word in wide], axis=1)


class Seen:
    """A scene in voxels before a camera, as the hardware and as float64 see it.

    Every length is a stored one.
    """

    def __init__(self, scene, view, population=64):
        self.cut = cut = partition(
            scene, PartitionDesign(occupied_cells=40, sparsest=4, capacity=population))
        self.camera = cut.stored_camera(view)
        self.record = pack_stream_camera(
            FP, self.camera, camera_cell(cut, view), antialiased=False)
        self.words = voxel_words(cut, self.camera)
        self.places, self.scales = cut.q.astype(np.int64), cut.scale.astype(np.int64)
        self.means = np.ldexp(cut.means(), cut.scale_log2)
        self.x, self.y, self.z = self.camera.w2c[:3, :3] @ (self.means - self.camera.position).T
        self.largest = cut.scale.view(np.float16).astype(np.float64)

    def passed(self, design, column, row):
        """Which Gaussians pass, voxel after voxel."""
        place = np.ones(len(self.words), np.int64)
        return filter_fixed(design, self.words, column * place, row * place, self.cut.voxel_of,
                            self.places, self.scales, self.record)

    def groups(self, design):
        """(column, row) of every group."""
        side = design.group_px
        return [(column, row) for row in range(-(-self.camera.height // side))
                for column in range(-(-self.camera.width // side))]

    def ellipses(self):
        """On the image: means [N, 2], covariances xx, xy, yy, opacities; by the reference's rules.

        The largest scale is the stored one, which is rounded up.
        """
        camera, scene = self.camera, self.cut.decode()
        scales = np.ldexp(np.exp(scene.log_scales.astype(np.float64)), self.cut.scale_log2)
        quats = scene.quats.astype(np.float64)
        quats /= np.linalg.norm(quats, axis=1, keepdims=True)
        w, x, y, z = quats.T
        rotation = np.stack([
            1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
            2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
            2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
        ], axis=1).reshape(-1, 3, 3)
        factor = rotation * scales[:, None]
        rows, on_image = [], []
        for k, (focal, center, side, ahead) in enumerate((
                (camera.fx, camera.cx, camera.width, self.x),
                (camera.fy, camera.cy, camera.height, self.y))):
            at = focal * ahead / self.z
            on_image.append(at + center)
            margin = 0.15 * side
            clamped = np.clip(at, -center - margin, side - center + margin)
            row = focal * camera.w2c[k, :3] - clamped[:, None] * camera.w2c[2, :3]
            rows.append(np.einsum("nk,nkj->nj", row / self.z[:, None], factor))
        p, q = rows
        opacity = 1 / (1 + np.exp(-scene.opacity_logits.astype(np.float64)))
        return (np.stack(on_image, axis=1), (p * p).sum(axis=1) + 0.3, (p * q).sum(axis=1),
                (q * q).sum(axis=1) + 0.3, opacity)

    def reached(self, design, column, row):
        """Which Gaussians have an alpha of 1/255 at a pixel of the group, in their 3-sigma square.

        Squares are those of whole pixels, as the reference's.
        """
        means, xx, xy, yy, opacity = self.ellipses()
        side = design.group_px
        x, y = (np.arange(side) + 0.5 + at * side for at in (column, row))
        x, y = x[x < self.camera.width], y[y < self.camera.height]
        det = xx * yy - xy * xy
        spread = np.sqrt(np.maximum(0.1, ((xx - yy) / 2) ** 2 + xy * xy))
        radius = np.ceil(3 * np.sqrt((xx + yy) / 2 + spread))[:, None, None]
        dx = x[None, None, :] - means[:, 0, None, None]
        dy = y[None, :, None] - means[:, 1, None, None]
        form = (yy[:, None, None] * dx * dx + xx[:, None, None] * dy * dy
                - 2 * xy[:, None, None] * dx * dy) / det[:, None, None]
        alpha = opacity[:, None, None] * np.exp(-0.5 * form)
        hit = (alpha >= 1 / 255) & (np.abs(dx) <= radius) & (np.abs(dy) <= radius)
        return (self.z > self.camera.near) & hit.any(axis=(1, 2))

    def within_spheres(self, design, column, row):
        """Which Gaussians pass the same test in float64 without any slack."""
        camera, side = self.camera, design.group_px
        ok = self.z > camera.near
        for along, focal, center, length, at in (
                (self.x, camera.fx, camera.cx, camera.width, column),
                (self.y, camera.fy, camera.cy, camera.height, row)):
            u = focal * along / self.z
            margin = 0.15 * length
            clamped = np.clip(u, -center - margin, length - center + margin)
            reach = np.sqrt(SIGMAS2 * (
                (self.largest / self.z) ** 2 * (focal**2 + clamped**2) + 0.3))
            ok &= np.abs(u - (at + 0.5) * side + center) - side / 2 + 0.5 <= reach
        return ok


def crowd(seed, count=400):
    """Gaussians of all sizes all around a camera: needles, giants, some in front of its nose."""
    rng = np.random.default_rng(seed)
    scene = random_scene(count, seed, needles=seed % 2 == 1)
    means = scene.means + np.array([0, 0, -1.5], np.float32)
    means[::5] = rng.normal(0, 3, means[::5].shape)
    means[::31] *= 30
    log_scales = scene.log_scales + rng.choice([0, 0, 0, 2, 4], (count, 1)).astype(np.float32)
    log_scales[::31] += 3
    return replace(scene, means=means.astype(np.float32), log_scales=log_scales)


@pytest.mark.parametrize(("seed", "tiles", "fov"), [
    (1, 1, 65.0), (2, 2, 100.0), (3, 2, 65.0), (4, 4, 30.0), (5, 1, 12.0)])
def test_nothing_that_is_seen_is_lost(seed, tiles, fov):
    design = CfuDesign(group_tiles=tiles)
    scene, view = crowd(seed), turned(fov_x_deg=fov)
    seen = Seen(scene, view)
    reached = exact = got = 0
    for column, row in seen.groups(design)[::max(1, 8 // tiles**2)]:
        passed = seen.passed(design, column, row)
        hit = seen.reached(design, column, row)
        within = seen.within_spheres(design, column, row)
        assert not (hit & ~within).any()
        # Nor is anything lost that float64 lets pass.
        assert not (within & ~passed).any()
        reached, exact, got = reached + hit.sum(), exact + within.sum(), got + passed.sum()
    assert 50 < reached < exact <= got
    # Slack, rounding, and the bound of the norm, most of it for giants in a wide view, cost little.
    assert got < 1.2 * exact


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_forms_are_within_their_slack(seed):
    """The three forms against float64, for voxels near and far, in units of their last bit."""
    seen = Seen(crowd(seed, 900), turned(640, 480, fov_x_deg=100))
    camera, record = seen.camera, dict(zip(STREAM_CAMERA_WORDS, seen.record.tolist(), strict=True))
    column, row = 9 * (seed % 2), 14
    block = block_exponent(FP, seen.words)
    inputs = {name: word << 6 for name, word in zip(
        cfu.RECORD[:4], scaled(FP, seen.words, block).T, strict=True)}
    inputs |= {"column": group_center(DESIGN, np.array(column)),
               "row": group_center(DESIGN, np.array(row))}
    flow = cfu_graph(DESIGN)
    bias = int(BINARY32.quantize(cfu.COUNT_BIAS))
    forms = evaluate(flow, FP, inputs, {
        name: bias if name == "count_bias" else record[name] >> (0 if name in flow.wide else 6)
        for name in flow.constants})
    unit_px = 1 / BINARY32.to_float(record["pixel"])
    unit = np.ldexp(1.0, block - 126)[seen.cut.voxel_of]
    assert (np.abs(seen.words & FP.magnitude_max).max(axis=1) < 1 << 25).all()
    for name, along, focal, center, at in (
            ("u", seen.x, camera.fx, camera.cx, column), ("v", seen.y, camera.fy, camera.cy, row),
            ("z", None, 1, 0, 0)):
        offset, *slopes = (forms[f"{name}_{k}"][seen.cut.voxel_of] for k in range(4))
        value = ((offset << cfu.OFFSET_UP) + sum(
            slope * seen.places[:, k] for k, slope in enumerate(slopes))) >> cfu.FORM_DOWN
        if along is None:
            want, slack = seen.z, cfu.NEAR_SLACK
        else:
            g = (at + 0.5) * DESIGN.group_px - center
            want, slack = (focal * along - g * seen.z) / unit_px, SLACK
        error = value - want / unit * 2**16
        assert -slack <= error.min() < -0.3
        assert error.max() < slack - 1
        assert (np.abs(want / unit) < 7).all()
    # Half a side and the norms, rounded up.
    assert float(HALF.to_float(forms["half"])) == pytest.approx(15.5 / unit_px, rel=1e-3)
    g = abs((column + 0.5) * 32 - camera.cx) + 48
    norm = np.sqrt(SIGMAS2) * np.hypot(camera.fx, g) / unit_px
    assert norm < NORM.to_float(forms["norm_x"]) < 1.3 * norm


def test_camera_by_hand():
    view = turned(640, 480)
    numbers = coarse_numbers(view)
    unit = max(view.fx, 640 + 64 - view.cx)
    assert numbers["pixel"] == pytest.approx(1 / unit)
    row = np.array([numbers[f"across_{k}"] for k in "xyz"]) * unit / view.fx
    np.testing.assert_allclose(row, view.w2c[0, :3])
    far = np.sqrt(SIGMAS2) * np.hypot(view.fx, view.cx + 0.15 * 640) / unit
    assert 0 < numbers["coarse_far_x"] * NORM.resolution - far < 3e-4
    assert numbers["coarse_large"] * LARGE.resolution == pytest.approx(
        far * unit / (32 - 0.5 - np.sqrt(SIGMAS2 * 0.3)), rel=1e-3)
    record = pack_stream_camera(FP, view, (0, 0, 0), antialiased=False)
    for name in COARSE_INTEGERS:
        assert record[STREAM_CAMERA_WORDS.index(name)] == numbers[name] < 1 << 18
    # With a focal length of 100,000 pixels nothing is small.
    long = coarse_numbers(replace(view, fx=1e5, fy=1e5))
    assert long["coarse_large"] == LARGE.raw_max
    assert long["norm_x"] > long["coarse_far_x"] * NORM.resolution


def test_units_of_voxels():
    words = FP.quantize([[3.0, -0.7, 0.0, 0.5], [0.1, 0.2, 0.3, 0.5], [1e-38, 0, 0, 1e-30]])
    block = block_exponent(FP, words)
    # 4 is above 3; 1 is twice 0.5 and not above it; zero stays zero.
    np.testing.assert_array_equal(block[:2] - 126, [2, 1])
    np.testing.assert_allclose(
        FP.to_float(scaled(FP, words, block))[:2],
        [[0.75, -0.175, 0, 0.125], [0.05, 0.1, 0.15, 0.25]], rtol=1e-5)
    assert scaled(FP, words, block)[2, 1] == 0
    for near in (0.2, 3.0, 1e-9, 1e9):
        raw = near_depth(int(BINARY32.quantize(near)), np.array([128])) + cfu.NEAR_SLACK
        np.testing.assert_allclose(raw, min(np.floor(near / 4 * 2**16), (1 << 18) - 1), atol=1)


def test_without_filters_everything_passes():
    seen = Seen(crowd(1, 60), turned())
    assert seen.passed(replace(DESIGN, filters=False), 0, 0).all()
    assert not seen.passed(DESIGN, 0, 0).all()


@pytest.mark.parametrize(("change", "message"), [
    ({"units": 3}, "Units must be 1, 2 or 4, not 3"),
    ({"group_tiles": 3}, "Group must have 1, 2 or 4 tiles a side, not 3"),
    ({"interval": 1}, "Interval must be 2 to 64 cycles, not 1"),
    ({"floating": Floating(exponent_bits=7)},
     "Arithmetic must have the 8 exponent bits of binary32, not FP(7,17)"),
    ({"voxels_ahead": 2}, "Voxels ahead must be a power of two from 4 to 64, not 2"),
    ({"buffer_beats": 96}, "Buffer must be a power of two from 64 to 4096 beats, not 96"),
    ({"burst_beats": 512}, "Burst must be a power of two from 4 to 256 beats, not 512"),
    ({"queue": 16}, "Queue must be a power of two from 32 to 4096 Gaussians, not 16"),
    ({"buffer_beats": 64, "burst_beats": 64},
     "Burst must be at most half of the buffer's 64 beats, not 64"),
    ({"outstanding_bursts": 0}, "Outstanding bursts must be 1 to 64, not 0"),
])
def test_wrong_designs_are_refused(change, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        CfuDesign(**change)

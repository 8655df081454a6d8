"""Coarse filters: nothing that is seen is lost, little else passes, RTL as the models."""

import re
import sys
from collections import deque
from dataclasses import replace
from functools import cache
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

from splatforge.algos import cfu, floating
from splatforge.algos.cfu import (
    SLACK,
    Visits,
    block_exponent,
    cfu_fixed,
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
from splatforge.designs.cfu import DILATION_BITS, HALF, LARGE, NORM, CfuDesign
from splatforge.designs.floating import BINARY32, Floating
from splatforge.designs.memory import MemoryTiming
from splatforge.designs.streaminggs import PartitionDesign
from splatforge.designs.tokens import GROUPS_AHEAD, SurvivorKind
from splatforge.designs.voxel import COARSE_INTEGERS, COARSE_RECORD, STREAM_CAMERA_WORDS
from splatforge.hw.cfu import Cfu
from splatforge.hw.lib.axi import READ_COARSE, READ_TABLE
from splatforge.hw.lib.delay import Delay
from splatforge.hw.lib.tokens import survivor_layout
from splatforge.scenes import Camera
from splatforge.sim import cfu as model

sys.path.insert(0, str(Path(__file__).parent))
import streams
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

    def __init__(self, scene, view, cells=40):
        self.cut = cut = partition(
            scene, PartitionDesign(occupied_cells=cells, sparsest=4, capacity=64))
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
    # Of the smallest image the dilation is largest.
    assert coarse_numbers(turned(16, 16))["coarse_dilation"] < 1 << DILATION_BITS
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


# ---- The unit itself.

#: Everything fills up.
SMALL = CfuDesign(units=1, group_tiles=1, interval=4, voxels_ahead=4, buffer_beats=64,
                  burst_beats=4, outstanding_bursts=2, queue=32)
WIDE = CfuDesign(units=4, group_tiles=4, interval=16, queue=64, burst_beats=128)
OFF = CfuDesign(filters=False, queue=32)
#: Above 32 bits; in the middle of a burst.
SCENE = 0x12_3456_7FD0


def visits_of(seen, design, groups, seed, share):
    """Groups with some voxels each, and what is in memory; tags begin somewhere."""
    rng = np.random.default_rng(seed)
    cut, rows = seen.cut, []
    for number, (column, row) in enumerate(groups):
        chosen = np.flatnonzero(rng.random(cut.voxels) < share * rng.integers(0, 3) / 2)
        for voxel in [*chosen, -1]:
            rows.append((number, column, row, voxel))
    number, column, row, voxel = np.array(rows).T
    is_end = voxel < 0
    return number, Visits(
        tags=(number + 29) % 32, columns=column, rows=row,
        words=np.where(is_end[:, None], 0x5A5A5A, seen.words[voxel]),
        counts=np.where(is_end, 0, cut.counts_of_voxels[voxel]),
        # Now and then all of it.
        prefixes=np.where(is_end, 0, np.minimum(
            rng.integers(1, 80, len(voxel)), cut.counts_of_voxels[voxel])),
        addresses=np.where(is_end, 0, cut.coarse_beats[:-1][voxel]))


def whole_groups(seen, number):
    """So many times all voxels, each time for another group."""
    cut = seen.cut
    voxel = np.tile(np.append(np.arange(cut.voxels), -1), number)
    group = np.repeat(np.arange(number), cut.voxels + 1)
    counts = np.where(voxel < 0, 0, cut.counts_of_voxels[voxel])
    return Visits(
        tags=group % 32, columns=group % 4, rows=group // 4, words=seen.words[voxel],
        counts=counts, prefixes=counts, addresses=cut.coarse_beats[:-1][voxel])


@cache
def small_crowd():
    """Mostly small Gaussians, in few voxels."""
    scene = crowd(3, 240)
    log_scales = scene.log_scales.copy()
    log_scales[np.arange(240) % 4 > 0] -= 4
    return Seen(replace(scene, log_scales=log_scales), turned(), cells=12)


@cache
def bench(design):
    return streams.Bench(Cfu(design))


class Play:
    """The unit amid what gives it voxels, a memory and what takes tokens, beside its model."""

    def __init__(self, design, seen, groups, *, seed=1, gap=0.0, stall=0.0, latency=9, skip=0.0,
                 stop=None, share=1.0):
        self.design, self.seen = design, seen
        self.gap, self.stall, self.latency, self.skip, self.stop = gap, stall, latency, skip, stop
        self.rng = np.random.default_rng(seed)
        self.group, self.visits = visits_of(seen, design, groups, seed, share)
        memory = seen.cut.beats()
        self.frame = cfu_fixed(design, self.visits, memory, seen.record)
        self.places, self.scales = self.frame.coarse(memory, np.arange(self.frame.starts[-1]))
        self.memory = {SCENE + 16 * n: int.from_bytes(beat.astype("<u4").tobytes(), "little")
                       for n, beat in enumerate(memory)}
        #: (kind, visit, Gaussian), and groups that were over before their end.
        self.tokens, self.over, self.asked, self.cycles = [], set(), [], 0

    def out(self, probability):
        return self.rng.random() < probability

    def token(self, kind, visit, gaussian):
        """Payload of a token."""
        visits, layout = self.visits, survivor_layout(self.design.floating)
        fields = {"kind": kind, "tag": int(visits.tags[visit])}
        if kind == SurvivorKind.VOXEL:
            words = dict(zip(("d_x", "d_y", "d_z", "size"), visits.words[visit].tolist(),
                             strict=True))
            fields["body"] = {"voxel": words | {
                "address": int(visits.addresses[visit] + (visits.counts[visit] + 1) // 2),
                "column": int(visits.columns[visit]), "row": int(visits.rows[visit])}}
        if kind == SurvivorKind.GAUSSIAN:
            place = self.places[gaussian].tolist()
            fields["body"] = {"gaussian": {
                "index": int(gaussian - self.frame.starts[visit]), "q_x": place[0],
                "q_y": place[1], "q_z": place[2], "scale": int(self.scales[gaussian])}}
        return streams.pack(layout, fields)

    def expected(self):
        """Tokens if no group is over before its end."""
        for visit, count in enumerate(self.visits.counts.tolist()):
            survivors = self.frame.survivors(visit) + self.frame.starts[visit]
            if count == 0:
                yield SurvivorKind.GROUP_END, visit, -1
            elif len(survivors):
                yield SurvivorKind.VOXEL, visit, -1
                yield from ((SurvivorKind.GAUSSIAN, visit, int(n)) for n in survivors)
                yield SurvivorKind.VOXEL_END, visit, -1

    async def play(self, ctx):
        dut, visits, frame = bench(self.design).dut, self.visits, self.frame
        for n, word in enumerate(self.seen.record.tolist()):
            ctx.set(dut.camera[n], word)
        ctx.set(dut.scene_address, SCENE)
        # The round before the first is cut short.
        await ctx.tick().repeat(3)
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        state = self.state = model.new_cfu(self.design, scene_address=SCENE)
        beats, sent, offered, oldest, skipped = deque(), 0, False, 0, 0
        counts = [model.GIVEN, model.PASSED, model.STALLED]
        watched = (
            dut.i_voxel.ready, dut.o_address.valid, dut.o_address.p.address,
            dut.o_address.p.length, dut.o_address.p.id, dut.o_token.valid,
            dut.o_token.payload.as_value(), dut.behind, dut.idle, dut.given, dut.passed,
            dut.stalled)
        total = len(visits.counts)
        for cycle in range(60_000):
            stop = self.stop is not None and cycle >= self.stop
            if model.is_idle(state) and (
                    stop or (sent == total and model.is_empty(state))):
                self.cycles = cycle
                break
            offered = sent < total and self.group[sent] <= oldest + GROUPS_AHEAD and (
                offered or not self.out(self.gap))
            ctx.set(dut.i_voxel.valid, offered)
            if offered:
                words = visits.words[sent].tolist()
                ctx.set(dut.i_voxel.payload, {
                    "tag": int(visits.tags[sent]), "column": int(visits.columns[sent]),
                    "row": int(visits.rows[sent]), "last": int(visits.counts[sent] == 0),
                    "prefix": int(visits.prefixes[sent]),
                    "voxel": {"d_x": words[0], "d_y": words[1], "d_z": words[2], "size": words[3],
                              "count": int(visits.counts[sent]),
                              "address": int(visits.addresses[sent])}})
            address_ready, token_ready = (not self.out(self.stall) for _ in "at")
            due = bool(beats) and beats[0][0] <= cycle and not self.out(self.gap)
            last = False
            if due:
                _, word, last = beats.popleft()
                beat = {"id": READ_COARSE, "data": word, "last": last}
            else:
                beat = {"id": READ_TABLE, "data": 0x55, "last": self.out(0.5)}
            tag = (oldest + 29) % 32
            for port, value in (
                    (dut.o_address.ready, address_ready), (dut.o_token.ready, token_ready),
                    (dut.i_beat.valid, due or self.out(0.3)), (dut.i_beat.payload, beat),
                    (dut.stop, stop), (dut.oldest, tag)):
                ctx.set(port, value)
            shown = [*map(int, model.offers(state)), model.is_idle(state),
                     model.behind(state, visits.tags, tag)]
            asked, before = int(state[model.ADDRESS]), state[counts].copy()
            token = (int(state[model.TOKEN]) - 1, int(state[model.TOKEN_VISIT]),
                     int(state[model.TOKEN_GAUSSIAN]))
            (_, _, voxel_ready, address_valid, address, length, number, token_valid, word, behind,
             idle, *events) = await ctx.tick().sample(*watched)
            model.step(state, visits.tags, visits.prefixes, visits.addresses, frame.starts,
                       frame.passed, sent if offered else -1, stop, address_ready, due, last, tag,
                       token_ready)
            # The model shows what the unit shows.
            assert [voxel_ready, (length + 1) * address_valid, token_valid, idle, behind] == [
                shown[0], shown[1], shown[2] > 0, *shown[3:]], cycle
            assert list(map(int, events)) == (state[counts] - before).tolist(), cycle
            if token_valid:
                assert word == self.token(*token), cycle
            if token_valid and token_ready:
                self.tokens.append(token)
            if address_valid:
                assert (address, number) == (16 * asked, READ_COARSE)
                assert address >> 12 == (address + 16 * length) >> 12
            if address_valid and address_ready:
                self.asked += [address + 16 * n for n in range(length + 1)]
                beats.extend((cycle + self.latency, self.memory[address + 16 * n], n == length)
                             for n in range(length + 1))
            sent += bool(offered and voxel_ready)
            offered = offered and not voxel_ready
            # A group is over with its end, or before.
            ends = token_valid and token_ready and token[0] == SurvivorKind.GROUP_END
            skipped = skipped + 1 if behind else 0
            if ends and self.group[token[1]] == oldest:
                oldest += 1
            elif self.out(self.skip) and skipped < 3 and oldest < self.group[max(sent - 1, 0)]:
                self.over.add(oldest)
                oldest += 1
        else:
            raise AssertionError("not done")

    def check(self):
        bench(self.design).play(self.play)
        expected = list(self.expected())
        if not self.skip:
            assert self.tokens == expected
            beats = (self.visits.prefixes + 1) // 2
            assert self.asked == [
                SCENE + 16 * (first + n) for first, count in zip(
                    self.visits.addresses.tolist(), beats.tolist(), strict=True)
                for n in range(count)]
        for number in range(int(self.group[-1]) + 1):
            mine, whole = ([token for token in tokens if self.group[token[1]] == number]
                           for tokens in (self.tokens, expected))
            if number not in self.over:
                assert mine == whole
                continue
            # Of what is over a part in order, with an end for every voxel that began.
            assert [token for token in whole if token in set(mine)] == mine
            for _, tokens in groupby(mine, key=lambda token: token[1]):
                kinds = [kind for kind, *_ in tokens]
                assert kinds in ([SurvivorKind.GROUP_END], [
                    SurvivorKind.VOXEL, *[SurvivorKind.GAUSSIAN] * (len(kinds) - 2),
                    SurvivorKind.VOXEL_END])
        return self


@pytest.mark.parametrize(("design", "gap", "stall", "skip"), [
    (DESIGN, 0.0, 0.0, 0.0), (DESIGN, 0.3, 0.6, 0.0), (DESIGN, 0.0, 0.3, 0.02),
    (SMALL, 0.0, 0.0, 0.0), (SMALL, 0.0, 0.9, 0.0), (SMALL, 0.1, 0.4, 0.04),
    (WIDE, 0.0, 0.0, 0.0), (WIDE, 0.4, 0.1, 0.03), (WIDE, 0.0, 0.9, 0.0),
    (OFF, 0.0, 0.2, 0.0), (OFF, 0.3, 0.6, 0.03)])
def test_rtl_against_both_models(design, gap, stall, skip):
    seen = small_crowd()
    groups = seen.groups(design)
    play = Play(design, seen, groups[len(groups) // 2:][:4], gap=gap, stall=stall, skip=skip)
    play.check()
    assert 0.05 < play.frame.passed.mean() < 0.6 or not design.filters
    assert not skip or 0 < len(play.over)
    assert play.state[model.STALLED] > 0 or stall < 0.8


def test_no_more_is_asked_for_than_the_buffer_has_room_for():
    """Far more in voxels than fits, most of it passed, before a taker that hardly takes."""
    seen = Seen(crowd(3, 1000), turned(), cells=3)
    groups = seen.groups(SMALL)
    play = Play(SMALL, seen, groups[len(groups) // 2:][:1], stall=0.9, share=2.0)
    play.check()
    assert len(play.asked) > 4 * SMALL.buffer_beats
    assert play.frame.passed.mean() > 0.6


def test_stop():
    """The model knows it as well; what is in flight arrives."""
    seen = small_crowd()
    play = Play(SMALL, seen, seen.groups(SMALL)[:4], stop=100)
    bench(SMALL).play(play.play)
    assert 0 < len(play.asked) < 60
    assert not model.is_empty(play.state)


def test_coarse_record_is_what_is_in_memory():
    """Of two Gaussians a beat, each from bit 0 upward; the token carries the same fields."""
    cut = small_crowd().cut
    voxel = int(np.flatnonzero(cut.counts_of_voxels >= 2)[0])
    beat = cut.beats()[cut.coarse_beats[voxel]]
    pair = cut.in_memory[cut.starts[voxel]:][:2]
    packed = int.from_bytes(beat.astype("<u4").tobytes(), "little")
    for gaussian in pair:
        for (_, bits), want in zip(
                COARSE_RECORD, (*cut.q[gaussian], cut.scale[gaussian]), strict=True):
            assert packed & ((1 << bits) - 1) == want
            packed >>= bits
    assert packed == 0
    fields = survivor_layout(FP)["body"].shape["gaussian"].shape
    assert [(name, field.width) for name, field in fields] == [
        ("index", fields["index"].width), *COARSE_RECORD]


def test_delay():
    held = streams.Bench(Delay(8, 5))
    got = []

    async def scenario(ctx):
        for cycle in range(20):
            ctx.set(held.dut.i, 7 * cycle % 256)
            _, _, word = await ctx.tick().sample(held.dut.o)
            got.append(word)

    held.play(scenario)
    assert got[5:] == [7 * cycle % 256 for cycle in range(15)]


def test_a_beat_a_cycle():
    """As many Gaussians a cycle as units, but no more than the bus brings."""
    seen = small_crowd()
    visits = whole_groups(seen, 12)
    frame = cfu_fixed(DESIGN, visits, seen.cut.beats(), seen.record)
    total, beats = len(frame.passed), int(((visits.counts + 1) // 2).sum())
    assert total > 2000
    timing = MemoryTiming(latency_cycles=40)
    got = {units: model.cycles(replace(DESIGN, units=units), visits, frame, timing)
           for units in (1, 2, 4)}
    # A third of these voxels has a single Gaussian, and one of its own takes two cycles; with four
    # units that is caught up with.
    assert total < got[1] < 1.1 * total
    assert beats + 100 < got[2] < 1.3 * beats
    assert beats < got[4] < beats + 100
    # Where the fine filter is slower, it says how fast: a voxel's token and end are tokens, too.
    slow = model.cycles(DESIGN, visits, frame, timing, interval=8)
    survivors = int(frame.passed.sum())
    assert 8 * survivors < slow < 8 * (survivors + 2 * len(visits.counts)) + 200


@pytest.mark.rtl
def test_testbench(run_testbench):
    run_testbench("cfu", seed=1)

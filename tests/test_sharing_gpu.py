"""The GPU's part of Lumina: what warps walk, what sorts and projections cost, what waits."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from splatforge.algos import reference
from splatforge.algos.lumina.render import render_sequence
from splatforge.algos.lumina.sharing import share
from splatforge.designs.lumina import PRESETS, LuminaDesign
from splatforge.designs.radiance import RadianceDesign
from splatforge.designs.sharing import SharingDesign
from splatforge.scenes import head_jitter
from splatforge.sim.costs import Sourced
from splatforge.sim.gpu import FrameWork, devices, gpu_frame
from splatforge.sim.sharing import (
    SortWork,
    Walk,
    frame_times,
    rasterize,
    refresh,
    sort,
    walk,
)

sys.path.insert(0, str(Path(__file__).parent))
from gaussians import camera, random_scene

SCENE = random_scene(400, 5, sh_degree=1)
VIEW = camera(70, 83)
XAVIER = devices()["agx_xavier"]
CACHED = LuminaDesign(sharing=SharingDesign(window=3, margin_px=2),
                      radiance=RadianceDesign(record_ids=2, sets=64, ways=2))


def frames(design, count=3):
    path = head_jitter(VIEW, frames=count, seed=3, median_turn_deg=0.1).cameras
    return [frame.workload for _, frame in zip(
        path, render_sequence(SCENE, path, design), strict=True)]


def naive(workload):
    """The same, pixel by pixel."""
    reached = steps = blends = 0
    frame, hit = workload.nru, workload.hit
    for tile in range(len(workload.tiles)):
        first, count = workload.starts[tile], workload.starts[tile + 1] - workload.starts[tile]
        last = [min(count, 1 + (frame.complete if hit[tile, p] else frame.ends)[tile, p])
                for p in range(256)]
        reached += max(last)
        for warp in range(8):
            lanes = range(32 * warp, 32 * warp + 32)
            longest = max(last[p] for p in lanes)
            steps += longest
            blends += sum(any(
                place < last[p] and int(frame.significant[first + place, p // 64]) >> p % 64 & 1
                for p in lanes) for place in range(longest))
    return reached, steps, blends


@pytest.mark.parametrize("design", [PRESETS["plain"], CACHED], ids=["plain", "cached"])
def test_warps_pixel_by_pixel(design):
    hits = 0
    for workload in frames(design):
        done = walk(workload)
        assert (done.pairs_reached, done.warp_steps, done.warp_blends) == naive(workload)
        assert done.pixels == 70 * 83
        hits += workload.hits
        assert done.inserts == done.lookups - workload.hits
    assert (hits > 0) == design.caching


def test_lists_of_ones_own_pose_are_walked_as_the_reference_does():
    """But for pixels at which rounding decides whether a Gaussian reaches 1/255."""
    path = head_jitter(VIEW, frames=1, seed=3, median_turn_deg=0.1).cameras
    done = walk(next(iter(render_sequence(SCENE, path, PRESETS["plain"]))).workload)
    counted = reference.render(SCENE, path[0], statistics=True).statistics
    assert done.pairs_reached == pytest.approx(counted.pairs_reached.sum(), rel=0.01)
    assert done.warp_steps == pytest.approx(counted.warp_steps.sum(), rel=0.01)
    assert done.warp_blends == pytest.approx(counted.warp_blends.sum(), rel=0.01)


def test_a_pixel_that_hits_ends_no_warp_by_itself():
    """A warp ends with its last pixel: hits of some shorten it less than hits of all."""
    workload = next(work for work in frames(CACHED) if work.hits)
    plain = walk(replace(workload, visits=None))
    cached = walk(workload)
    assert cached.warp_steps <= plain.warp_steps
    all_hit = replace(workload, visits=replace(
        workload.visits, hit=workload.nru.complete >= 0))
    assert walk(all_hit).warp_steps < cached.warp_steps


def test_a_whole_sort_is_the_reference_without_colours():
    """With lists of the frame's own pose: what Lumina moves is when colours are made."""
    lists = share(SCENE, VIEW, 0)
    work = SortWork.of(lists, SCENE.gaussians, 1)
    whole = gpu_frame(FrameWork(
        gaussians=SCENE.gaussians, gaussians_visible=work.listed, sh_degree=1, pairs=work.pairs,
        pairs_reached=0, pixels=0, tiles=work.tiles, evaluations=0, significant=0, warp_steps=0,
        warp_blends=0), XAVIER)
    ours = {stage.name: stage for stage in sort(work, XAVIER).stages}
    theirs = {stage.name: stage for stage in whole.stages}
    assert ours["sort"] == theirs["sort"]
    assert ours["duplicate"] == theirs["duplicate"]
    colors = theirs["preprocess"].traffic.value - ours["preprocess"].traffic.value
    assert colors == pytest.approx(4 * 3 * 4 * work.listed)


def test_a_refresh_by_hand():
    """Parameters of degree 1 are 23 numbers; a radius and a count are cleared; 32 bytes go out."""
    work = SortWork(gaussians=1000, listed=100, pairs=500, tiles=30, sh_degree=1)
    done = refresh(work, XAVIER)
    assert done.traffic_bytes == 100 * (4 * 23 + 8 + 32)
    assert [stage.name for stage in done.stages] == ["refresh"]
    assert refresh(work, XAVIER, features=False).traffic_bytes > done.traffic_bytes


def test_cache_of_the_gpu_by_hand():
    """A look-up reads four entries of 16 bytes, an insert writes one."""
    done = Walk(pixels=0, pairs_reached=0, warp_steps=0, warp_blends=0, lookups=10, inserts=3)
    assert rasterize(done, RadianceDesign(), XAVIER).traffic_bytes == 16 * (4 * 10 + 3)


def seconds(value, low=None, high=None):
    return Sourced(value, "s", "test", value if low is None else low,
                   value if high is None else high)


def test_times_by_hand():
    """A window's sort goes on beside one frame; that of a pose that is not predicted by itself."""
    draws, fresh = [seconds(2), seconds(3), seconds(4)], [seconds(1)] * 3
    times = frame_times(fresh, draws, [(0, seconds(5), 1), (2, seconds(7, 6, 8), 1)])
    assert [each.waited.value for each in times] == [5, 0, 4]
    assert (times[2].waited.low, times[2].waited.high) == (3, 5)
    assert [each.total.value for each in times] == [8, 4, 9]
    both = frame_times(fresh, draws, [(0, seconds(5), 0), (2, seconds(4), 2)])
    assert [each.waited.value for each in both] == [5, 0, 0]

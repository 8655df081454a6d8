"""Windows of frames, the lists that they share, and frames drawn with them."""

import re
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from splatforge.algos import reference
from splatforge.algos.bin_tiles import bin_tiles
from splatforge.algos.lumina.sharing import (
    gaussians_at,
    group_order,
    order_changes,
    render_shared,
    share,
    windows,
)
from splatforge.algos.project import project
from splatforge.algos.quality import psnr_db
from splatforge.designs.sharing import SharingDesign
from splatforge.scenes import Camera, extrapolate, head_jitter, orbit, turn_deg

sys.path.insert(0, str(Path(__file__).parent))
from gaussians import camera, random_scene

SCENE = random_scene(1200, 5, sh_degree=1)
VIEW = camera(120, 70)


def turning(angles_deg):
    """Cameras at the origin that have turned about the vertical by so many degrees."""
    cameras = []
    for angle in np.radians(angles_deg):
        w2c = np.eye(4)
        w2c[0, 0] = w2c[2, 2] = np.cos(angle)
        w2c[0, 2], w2c[2, 0] = np.sin(angle), -np.sin(angle)
        cameras.append(replace(VIEW, w2c=w2c))
    return cameras


@pytest.mark.parametrize(("wrong", "message"), [
    ({"window": 0}, "Window must be 1 to 64 frames, not 0"),
    ({"margin_px": -1}, "Margin must be 0 to 64 pixels, not -1"),
    ({"lead_frames": 65}, "Lead must be 0 to 64 frames, not 65"),
    ({"rotation_limit_deg": 0.0}, "Rotation limit must be positive, not 0.0 degrees"),
    ({"rotation_limit_deg": float("nan")}, "Rotation limit must be positive, not nan degrees")])
def test_errors(wrong, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        SharingDesign(**wrong)


def test_steady_motion_is_extrapolated_exactly():
    path = orbit(Camera.look_at((0, -1, -4), (0, 0, 0), (0, -1, 0), width=64, height=48),
                 (0, 0, 0), (0, -1, 0), frames=40).cameras
    ahead = extrapolate(path[3], path[4], 2.0)
    # The view turns on as it did; the eye leaves the circle along its tangent.
    np.testing.assert_allclose(ahead.w2c[:3, :3], path[6].w2c[:3, :3], atol=1e-12)
    np.testing.assert_allclose(ahead.position, 3 * path[4].position - 2 * path[3].position)
    assert turn_deg(path[4], path[6]) == pytest.approx(18)
    np.testing.assert_allclose(extrapolate(path[3], path[4], 0).w2c, path[4].w2c, atol=1e-12)


def test_windows_cover_every_frame_and_look_at_their_middle():
    cameras = turning(np.arange(20) * 0.3)
    found = windows(cameras, SharingDesign(window=6, lead_frames=1))
    assert [(w.first, w.frames) for w in found] == [(0, 6), (6, 6), (12, 6), (18, 2)]
    assert [w.predicted for w in found] == [False, True, True, True]
    assert found[0].pose is cameras[0]
    for window in found[1:]:
        middle = turning([0.3 * (window.first + 2.5)])[0]
        np.testing.assert_allclose(window.pose.w2c, middle.w2c, atol=1e-12)
    # Two frames must be known before the sort begins.
    late = windows(cameras, SharingDesign(window=6, lead_frames=6))
    assert [w.predicted for w in late] == [False, False, True, True]
    np.testing.assert_allclose(late[2].pose.w2c, turning([0.3 * 14.5])[0].w2c, atol=1e-12)
    single = windows(cameras, SharingDesign(window=1))
    assert [w.pose for w in single] == cameras
    assert not any(w.predicted for w in single)


def test_fast_turns_are_sorted_frame_by_frame():
    angles = np.cumsum([0, .1, .1, .1, 3, 3, .1, .1, .1, .1, .1])
    found = windows(turning(angles), SharingDesign(window=3, lead_frames=1, rotation_limit_deg=2))
    assert [(w.first, w.frames, w.predicted) for w in found] == [
        (0, 3, False), (3, 1, True), (4, 1, False), (5, 1, False), (6, 3, False), (9, 2, True)]
    # Nothing is fast without a limit.
    found = windows(turning(angles), SharingDesign(window=3, rotation_limit_deg=float("inf")))
    assert [w.frames for w in found] == [3, 3, 3, 2]


@pytest.mark.parametrize("side", [1, 2, 4])
def test_group_order(side):
    tiles, starts = group_order(16 * 9 - 3, 16 * 5 - 15, side)
    assert sorted(tiles) == list(range(45))
    want = [[y * 9 + x for y in range(gy, min(gy + side, 5)) for x in range(gx, min(gx + side, 9))]
            for gy in range(0, 5, side) for gx in range(0, 9, side)]
    assert [tiles[a:b].tolist() for a, b in pairwise(starts)] == want


def test_without_margin_lists_are_those_of_the_reference():
    lists = share(SCENE, VIEW, 0)
    projected = project(SCENE, VIEW)
    tiles = bin_tiles(projected, VIEW.width, VIEW.height)
    np.testing.assert_array_equal(lists.starts, tiles.starts)
    np.testing.assert_array_equal(lists.ids, projected.ids[tiles.entries])
    np.testing.assert_array_equal(lists.listed[lists.places], lists.ids)


def test_margin_lists_what_comes_as_near():
    """Every tile has, in order of depth, those whose squares come within the margin."""
    lists = share(SCENE, VIEW, 7)
    wide = replace(VIEW, width=VIEW.width + 14, height=VIEW.height + 14, cx=VIEW.cx + 7,
                   cy=VIEW.cy + 7)
    seen = project(SCENE, wide)
    order = np.lexsort((seen.ids, seen.depth))
    for tile in range(lists.tiles_x * lists.tiles_y):
        x, y = tile % lists.tiles_x * 16, tile // lists.tiles_x * 16
        near = [abs(seen.mean_px[i, 0] - 7 - x - 8) < 8 + 7 + seen.radius_px[i]
                and abs(seen.mean_px[i, 1] - 7 - y - 8) < 8 + 7 + seen.radius_px[i] for i in order]
        want = seen.ids[order[np.array(near)]]
        np.testing.assert_array_equal(lists.ids[lists.starts[tile]:lists.starts[tile + 1]], want)
    plain = share(SCENE, VIEW, 0)
    assert len(lists.ids) > len(plain.ids)
    inverted, gone = order_changes(plain, lists)
    assert inverted == gone == 0


def test_order_changes_are_pairs_that_changed_places():
    lists, other = share(SCENE, VIEW, 4), share(SCENE, turning([8])[0], 4)
    pairs = inverted = common = 0
    for tile in range(lists.tiles_x * lists.tiles_y):
        rank = {one: k for k, one in enumerate(
            other.ids[other.starts[tile]:other.starts[tile + 1]].tolist())}
        ranks = [rank[one] for one in lists.ids[lists.starts[tile]:lists.starts[tile + 1]].tolist()
                 if one in rank]
        common += len(ranks)
        pairs += len(ranks) * (len(ranks) - 1) // 2
        inverted += sum(ranks[i] > ranks[j] for j in range(len(ranks)) for i in range(j))
    got = order_changes(lists, other)
    assert got == (inverted / pairs, 1 - common / len(lists.ids))
    assert 0 < got[0] < 0.1


@pytest.mark.parametrize("antialiased", [False, True])
def test_window_of_one_without_margin_is_the_reference(antialiased):
    scene = replace(SCENE, antialiased=antialiased)
    for view in head_jitter(VIEW, frames=3, seed=1).cameras:
        (window,) = windows([view], SharingDesign(window=1, margin_px=0))
        got = render_shared(scene, view, share(scene, window.pose, 0), (0.3, 0, 1))
        want = reference.render(scene, view, background=(0.3, 0, 1))
        np.testing.assert_array_equal(got.image, want.image)
        np.testing.assert_array_equal(got.transmittance, want.transmittance)


def test_gaussians_of_a_frame_are_its_projection():
    """Of what a window lists, the frame's own projection; the rest is not visible."""
    view = turning([3])[0]
    lists = share(SCENE, VIEW, 8)
    got = gaussians_at(SCENE, lists.listed, view)
    want = project(SCENE, view)
    at = {int(one): k for k, one in enumerate(want.ids)}
    assert not got.visible.all()
    for k, one in enumerate(lists.listed.tolist()):
        assert got.visible[k] == (one in at)
        if one in at:
            for name in ("mean_px", "conic", "opacity", "color"):
                np.testing.assert_array_equal(
                    getattr(got, name)[k], getattr(want, name)[at[one]])


def test_a_margin_brings_what_comes_into_a_tile():
    """Three degrees away, 6 px: without a margin entries are missing, with 8 px next to none."""
    scene, view = random_scene(300, 5, sh_degree=1), turning([3])[0]
    want = reference.render(scene, view).image
    psnr = [psnr_db(render_shared(scene, view, share(scene, VIEW, margin)).image, want)
            for margin in (0, 2, 4, 8)]
    assert psnr == sorted(psnr)
    assert psnr[0] < 40
    assert psnr[3] > 70

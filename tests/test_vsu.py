"""Sorting of voxels: records, the rectangle's bound, order and lists, RTL against both models."""

import math
from dataclasses import replace

import numpy as np
import pytest

from splatforge.algos.vsu import ALPHA_SIGMAS, DILATION, MARGIN_PX, pack_stream_camera
from splatforge.designs.ccu import CAMERA_WORDS, FLAG_ANTIALIASED
from splatforge.designs.floating import Floating
from splatforge.designs.voxel import (
    STREAM_CAMERA_BEATS,
    STREAM_CAMERA_WORDS,
    VOXEL_BEATS,
    VOXEL_WORDS,
    WORD_INTEGERS,
)
from splatforge.scenes import Camera

FP = Floating()


def turned(width=149, height=101):
    """A camera that stands somewhere and looks askew, its image not centred."""
    view = Camera.look_at((0.4, -0.3, -1.5), (0.1, 0.2, 3.0), (0.1, -1.0, 0.2), width=width,
                          height=height, fov_x_deg=65)
    return replace(view, cx=view.cx + 7.3, cy=view.cy - 3.1)


def test_records_are_whole_beats():
    assert (len(VOXEL_WORDS), VOXEL_BEATS) == (8, 2)
    assert (len(STREAM_CAMERA_WORDS), STREAM_CAMERA_BEATS) == (36, 9)
    assert STREAM_CAMERA_WORDS[:23] == CAMERA_WORDS[:23]


def test_camera_by_hand():
    view = replace(turned(), near=0.3)
    words = pack_stream_camera(FP, view, (-5, 17, 9000), antialiased=True)
    assert (words.shape, words.dtype) == ((36,), np.uint32)
    word = dict(zip(STREAM_CAMERA_WORDS, words.tolist(), strict=True))
    assert [word[name] for name in WORD_INTEGERS] == [FLAG_ANTIALIASED, 0, 17, 8191, 0, 0]
    assert pack_stream_camera(FP, view, (0, 0, 0), antialiased=False)[15] == 0
    got = dict(zip(STREAM_CAMERA_WORDS, words.view(np.float32).astype(float), strict=True))
    assert got["near"] == np.float32(0.3)
    assert got["depth_x"] == np.float32(view.w2c[2, 0])
    assert MARGIN_PX > ALPHA_SIGMAS * math.sqrt(DILATION) + 0.25
    np.testing.assert_allclose(
        [got[f"edge_{side}"] for side in ("left", "right", "top", "bottom")],
        [-view.cx - 2.25, 149 - view.cx + 2.25, -view.cy - 2.25, 101 - view.cy + 2.25], rtol=4e-6)
    assert got["focal2_x"] == pytest.approx(view.fx**2, rel=4e-6)
    # The frustum of the Jacobian is wider than the image by 0.3 of its half sides.
    far = math.hypot(view.fx, view.cx + 0.15 * 149)
    assert far < got["far_x"] < far * (1 + 1e-4)

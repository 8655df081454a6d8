"""Frames of GSCore and of Voyager's client that are no whole number of tiles, or empty."""

import math
from dataclasses import replace

import numpy as np
import pytest

from splatforge.designs.array import ArrayDesign
from splatforge.designs.gscore import GscoreDesign
from splatforge.designs.voyager import PRESETS
from splatforge.scenes import Camera, default_camera, resolve
from splatforge.verification.cosim import cosim

#: Fewer lanes are built sooner, and have been for other tests.
DESIGNS = {"gscore": GscoreDesign(array=ArrayDesign(lanes=16)), "voyager": PRESETS["16-lane"]}

pytestmark = [pytest.mark.rtl, pytest.mark.parametrize("core", DESIGNS)]


@pytest.fixture(scope="module")
def scene():
    """A part of the default scene, with larger Gaussians in the place of those left out."""
    scene = resolve("default")
    few = scene.select(np.linspace(0, scene.gaussians - 1, 3000).astype(np.int64))
    return replace(few, log_scales=few.log_scales + np.float32(math.log(3)))


def check(result):
    """Pixels and state of the bit-true model, cycles and counters of the cycle model."""
    assert result.pixels_differing == 0
    for frame in result.frames:
        assert frame.state_pixels_differing == 0
        assert frame.rtl_cycles == frame.model_cycles
        assert frame.rtl_counters == frame.model_counters


@pytest.mark.matrix
def test_odd_size(core, scene):
    """The last tiles of 333x217 have 13 columns and 9 rows."""
    result = cosim(core, DESIGNS[core], scene, [default_camera(scene, 333, 217)])
    check(result)
    assert result.psnr_db_vs_float >= 45
    assert result.psnr_db_vs_float_non_background >= 45
    counters = result.frames[0].rtl_counters
    assert counters["tiles"] == 21 * 14
    assert counters["pixel_bytes"] == 4 * 333 * 217


@pytest.mark.matrix
def test_empty_frame(core, scene):
    """Nothing is seen: the background; then a frame that is not empty, without a reset between."""
    away = Camera.look_at((0, 0, 1e6), (0, 0, 2e6), (0, 1, 0), width=50, height=35)
    result = cosim(core, DESIGNS[core], scene, [away, default_camera(scene, 64, 48)],
                   background=(1.0, 0.5, 0.0))
    check(result)
    empty, full = result.frames
    assert (empty.rtl_counters["visible"], empty.rtl_counters["pairs"]) == (0, 0)
    assert empty.rtl_counters["pixel_bytes"] == 4 * 50 * 35
    assert empty.psnr_db_vs_float >= 45
    assert full.rtl_counters["visible"] > 0


def test_a_pixel_that_ends_before_its_lists(core, scene):
    """3,000 Gaussians on one pixel: it is written, and what they were partitioned into still goes.

    The frame ends with the bus, the counter of cycles with the framebuffer; stalls are counted on.
    """
    result = cosim(core, DESIGNS[core], scene, [default_camera(scene, 1, 1)])
    check(result)
    frame, = result.frames
    assert frame.rtl_counters["partitions"] > 0
    assert frame.rtl_counters["cycles"] < frame.rtl_cycles

"""Sorting of voxels: where on the image each can be seen, in which order, and by which groups."""

import math

import numpy as np
import numpy.typing as npt

from splatforge.algos.ccu import camera_numbers, encode_words
from splatforge.designs.ccu import CAMERA_WORDS, FLAG_ANTIALIASED
from splatforge.designs.floating import Floating
from splatforge.designs.voxel import (
    CELL_BITS,
    OCTREE_LEVELS,
    STREAM_CAMERA_WORDS,
    WIDE_WORDS,
    WORD_INTEGERS,
)
from splatforge.scenes import Camera

__all__ = ["MARGIN_PX", "pack_stream_camera", "stream_camera_numbers"]

UInt32Array = npt.NDArray[np.uint32]

#: Standard deviations along an axis of the image beyond which no alpha reaches 1/255.
ALPHA_SIGMAS = math.sqrt(2 * math.log(255))
#: Variance of the low-pass filter in px^2.
DILATION = 0.3
#: Pixels by which a Gaussian without size can be seen around its mean, ``ALPHA_SIGMAS *
#: sqrt(DILATION)`` or 1.82; a quarter for the rounding of rectangles; and what is left.
MARGIN_PX = 2.25


def stream_camera_numbers(camera: Camera) -> dict[str, float]:
    """Numbers of every word of the camera's record that has one, not yet rounded."""
    numbers = camera_numbers(camera)
    for axis, focal, center, side, low, high in (
        ("x", camera.fx, camera.cx, camera.width, "left", "right"),
        ("y", camera.fy, camera.cy, camera.height, "top", "bottom"),
    ):
        edges = -center - MARGIN_PX, side - center + MARGIN_PX
        numbers[f"edge_{low}"], numbers[f"edge_{high}"] = edges
        farthest = max(map(abs, (*edges, numbers[f"clamp_{low}"], numbers[f"clamp_{high}"])))
        numbers[f"focal2_{axis}"] = focal * focal
        # More than rounding takes away again.
        numbers[f"far_{axis}"] = math.hypot(focal, farthest) * (1 + 2.0**-14)
    return numbers


def pack_stream_camera(
    fmt: Floating, camera: Camera, cell: npt.ArrayLike, *, antialiased: bool
) -> UInt32Array:
    """Record of a camera as it stands in memory, shape [36].

    Parameters
    ----------
    fmt : Floating
        Format of the units' arithmetic.
    camera : Camera
        In the lengths of the voxels' records.
    cell : array_like
        Finest cell of the eye from the grid's origin, shape [3]. An eye beyond the cells that can
        be numbered, 0 to 8191 on an axis, is put into the last: that changes the distances of all
        voxels by the same.
    antialiased : bool
        Whether opacities are compensated for the dilation.
    """
    numbers = {**stream_camera_numbers(camera), **dict.fromkeys(WORD_INTEGERS, 0.0)}
    words = encode_words(fmt, STREAM_CAMERA_WORDS, numbers, WIDE_WORDS)
    words[CAMERA_WORDS.index("flags")] = FLAG_ANTIALIASED if antialiased else 0
    first = STREAM_CAMERA_WORDS.index("cell_x")
    words[first:first + 3] = np.clip(cell, 0, (1 << (CELL_BITS + OCTREE_LEVELS)) - 1)
    return words

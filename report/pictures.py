"""Arrays as PNG: frames, amplified differences, heat maps."""

import base64
import io

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["HEAT", "data_uri", "heat_map", "png", "to_bytes"]

#: Anchors of the heat-map colours from least to most, sRGB bytes: viridis (van der Walt and Smith,
#: 2015, CC0) sampled at eighths; ordered in lightness, so it survives grey print and colour
#: blindness.
HEAT = (
    (68, 1, 84), (71, 45, 123), (59, 82, 139), (44, 114, 142), (33, 145, 140),
    (40, 174, 128), (94, 201, 98), (173, 220, 48), (253, 231, 37),
)


def to_bytes(image: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Return a picture in [0, 1], shape [height, width, 3], as bytes, rounded to nearest."""
    values = np.clip(np.asarray(image, np.float32), 0.0, 1.0)
    return (values * 255.0 + 0.5).astype(np.uint8)


def heat_map(counts: npt.ArrayLike, pixels_per_cell: int = 16) -> npt.NDArray[np.uint8]:
    """Return counts as a picture, least dark blue, most yellow.

    Parameters
    ----------
    counts : array_like
        Shape [rows, columns], not negative.
    pixels_per_cell : int
        Side of the square that shows one count.

    Returns
    -------
    ndarray
        RGB bytes of shape [rows * pixels_per_cell, columns * pixels_per_cell, 3].
    """
    grid = np.asarray(counts, np.float64)
    share = grid / max(grid.max(initial=0.0), 1e-30) * (len(HEAT) - 1)
    anchors = np.array(HEAT, np.float64)
    channels = [np.interp(share, np.arange(len(HEAT)), anchors[:, c]) for c in range(3)]
    colors = (np.stack(channels, axis=-1) + 0.5).astype(np.uint8)
    return colors.repeat(pixels_per_cell, axis=0).repeat(pixels_per_cell, axis=1)


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Return RGB bytes of shape [height, width, 3] as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels), "RGB").save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def data_uri(pixels: npt.NDArray[np.uint8]) -> str:
    """Return RGB bytes of shape [height, width, 3] as a ``data:`` address."""
    return "data:image/png;base64," + base64.b64encode(png(pixels)).decode("ascii")

"""Features of a group made into splats of the tiles that they meet, in integers."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from splatforge.algos.fetch import encode_splats
from splatforge.algos.splat_setup import splat_fields
from splatforge.designs.fetch import SUBTILE_PX, TILE_PX
from splatforge.designs.ffu import FfuDesign
from splatforge.designs.setup import SetupDesign

__all__ = ["setup_fixed", "subtiles_met"]

Int64Array = npt.NDArray[np.int64]


def subtiles_met(
    ffu: FfuDesign, position: Int64Array, extent: Int64Array, tile: npt.ArrayLike
) -> Int64Array:
    """Which of a tile's four columns of subtiles, or rows, a box reaches; bit 0 the first.

    One is reached if the box meets what lies between the centres of its first and last pixels. No
    pixel is lost by rounding: extents are rounded up to the unit of which positions are off by a
    half, and centres are whole numbers of it.

    Parameters
    ----------
    ffu : FfuDesign
        Formats of position and extent.
    position, extent : ndarray
        Centre and half side along the axis, ``ffu.position`` and ``ffu.extent``, shape [N].
    tile : array_like
        Column or row of the tile, shape [N].
    """
    frac_bits = ffu.extent.frac_bits
    mask = np.zeros(len(position), np.int64)
    for number in range(TILE_PX // SUBTILE_PX):
        first = (np.asarray(tile, np.int64) * TILE_PX + number * SUBTILE_PX << frac_bits) + (
            1 << (frac_bits - 1))
        last = first + ((SUBTILE_PX - 1) << frac_bits)
        met = (position + extent >= first) & (position - extent <= last)
        mask |= met.astype(np.int64) << number
    return mask


def setup_fixed(
    design: SetupDesign, ffu: FfuDesign, feature: Mapping[str, Int64Array], extent_x: Int64Array,
    extent_y: Int64Array, tile_x: npt.ArrayLike, tile_y: npt.ArrayLike,
) -> npt.NDArray[np.uint64]:
    """Splats of their tiles, bit-true to :class:`splatforge.hw.setup.Setup`.

    Parameters
    ----------
    design : SetupDesign
        Formats.
    ffu : FfuDesign
        Of the boxes.
    feature : Mapping
        Raw fields of the features, shape [N] each.
    extent_x, extent_y : ndarray
        Half sides of their boxes, ``ffu.extent``, shape [N].
    tile_x, tile_y : array_like
        Column and row of the tile in the frame, shape [N].

    Returns
    -------
    ndarray
        Splat records of shape [N, 2], see :class:`splatforge.designs.fetch.SplatFormat`.
    """
    down = design.feature.mean.frac_bits - ffu.extent.frac_bits
    # As the fine filter rounds them: half up.
    columns, rows = (
        subtiles_met(ffu, (feature[name] + (1 << (down - 1))) >> down, extent, tile)
        for name, extent, tile in (
            ("mean_x", extent_x, tile_x), ("mean_y", extent_y, tile_y)))
    side = TILE_PX // SUBTILE_PX
    subtiles = np.zeros(len(columns), np.int64)
    for row in range(side):
        subtiles |= np.where(rows >> row & 1, columns, 0) << (side * row)
    return encode_splats(design.splat, {
        **splat_fields(design, feature, tile_x, tile_y), "subtiles": subtiles})

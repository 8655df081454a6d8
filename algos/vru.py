"""Features made into splats of a tile, in integers."""

import numpy as np
import numpy.typing as npt

from splatforge.algos.fetch import encode_splats
from splatforge.algos.records import decode_record
from splatforge.algos.splat_setup import splat_fields
from splatforge.designs.fetch import TILE_PX
from splatforge.designs.vru import REGION_PX, VruDesign

__all__ = ["REGION_SUBTILES", "vru_fixed"]

Int64Array = npt.NDArray[np.int64]

_SIDE = TILE_PX // REGION_PX
#: Mask of the 4x4-pixel subtiles for every mask of the 8x8-pixel regions of a tile.
REGION_SUBTILES = tuple(
    sum(1 << (4 * (2 * (region // _SIDE) + y) + 2 * (region % _SIDE) + x)
        for region in range(_SIDE**2) if mask >> region & 1 for y in range(2) for x in range(2))
    for mask in range(1 << _SIDE**2))


def vru_fixed(
    design: VruDesign, features: npt.NDArray[np.uint64], regions: Int64Array,
    tile_x: Int64Array, tile_y: Int64Array,
) -> npt.NDArray[np.uint64]:
    """Splats of their tiles, bit-true to :class:`splatforge.hw.vru.Vru`.

    The forms are those of :func:`splatforge.algos.splat_setup.splat_fields`.

    Parameters
    ----------
    design : VruDesign
        Formats.
    features : ndarray
        Feature records of shape [N, 4].
    regions : ndarray
        Mask of the 8x8 regions of the tile that each reaches, shape [N].
    tile_x, tile_y : ndarray
        Column and row of the tile, shape [N].

    Returns
    -------
    ndarray
        Splat records of shape [N, 2], see :class:`splatforge.designs.fetch.SplatFormat`.
    """
    fields = decode_record(design.feature.fields(), features)
    return encode_splats(design.splat, {
        **splat_fields(design.setup, fields, tile_x, tile_y),
        "subtiles": np.array(REGION_SUBTILES, np.int64)[regions],
    })

"""Features made into splats of a tile, in integers."""

import numpy as np
import numpy.typing as npt

from splatforge.algos.fetch import encode_splats
from splatforge.algos.fixed import round_shift
from splatforge.algos.floating import to_fixed
from splatforge.algos.records import decode_record
from splatforge.designs.fetch import TILE_PX
from splatforge.designs.vru import REGION_PX, VruDesign

__all__ = ["REGION_SUBTILES", "slope_fixed", "vru_fixed"]

Int64Array = npt.NDArray[np.int64]

_SIDE = TILE_PX // REGION_PX
#: Mask of the 4x4-pixel subtiles for every mask of the 8x8-pixel regions of a tile.
REGION_SUBTILES = tuple(
    sum(1 << (4 * (2 * (region // _SIDE) + y) + 2 * (region % _SIDE) + x)
        for region in range(_SIDE**2) if mask >> region & 1 for y in range(2) for x in range(2))
    for mask in range(1 << _SIDE**2))


def slope_fixed(design: VruDesign, words: Int64Array) -> Int64Array:
    """Slopes in fixed point from floating words: rounded half up in magnitude, saturating.

    Error: half a unit of ``design.slope``, none where the exponent leaves all bits of the fraction
    in it.
    """
    return to_fixed(design.feature.slope, words, design.slope)


def vru_fixed(
    design: VruDesign, features: npt.NDArray[np.uint64], regions: Int64Array,
    tile_x: Int64Array, tile_y: Int64Array,
) -> npt.NDArray[np.uint64]:
    """Splats of their tiles, bit-true to :class:`splatforge.hw.vru.Vru`.

    ``u0 = a dx + b dy`` and ``v0 = c dy`` at the centre of the tile's first pixel are exact sums of
    exact products of the slopes in ``design.slope``, rounded half up to the splat's formats and
    saturating. Against the feature's own values the error of ``u0`` is at most half a unit of its
    format and ``2**-(slope.frac_bits + 1) (|dx| + |dy|)``, that of ``v0`` the same with ``|dy|``
    alone.

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
    frac_bits = design.feature.mean.frac_bits
    half = 1 << (frac_bits - 1)
    dx = (np.asarray(tile_x, np.int64) * TILE_PX << frac_bits) + half - fields["mean_x"]
    dy = (np.asarray(tile_y, np.int64) * TILE_PX << frac_bits) + half - fields["mean_y"]
    a, b, c = (slope_fixed(design, fields[name]) for name in ("a", "b", "c"))
    splat, slope = design.splat, design.slope
    fine = frac_bits + slope.frac_bits

    def narrow(raw: Int64Array, bits: int, to) -> Int64Array:
        return to.saturate(round_shift(raw, bits - to.frac_bits))

    return encode_splats(splat, {
        "u0": narrow(a * dx + b * dy, fine, splat.u0),
        "v0": narrow(c * dy, fine, splat.v0),
        "a": narrow(a, slope.frac_bits, splat.a),
        "b": narrow(b, slope.frac_bits, splat.b),
        "c": narrow(c, slope.frac_bits, splat.c),
        "log_opacity": fields["log_opacity"],
        "red": fields["red"], "green": fields["green"], "blue": fields["blue"],
        "subtiles": np.array(REGION_SUBTILES, np.int64)[regions],
    })

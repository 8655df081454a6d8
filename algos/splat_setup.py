"""Features made into splats of a tile, in integers; without the subtiles that they reach."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from splatforge.algos.fixed import round_shift
from splatforge.algos.floating import to_fixed
from splatforge.designs.fetch import TILE_PX
from splatforge.designs.setup import SetupDesign

__all__ = ["slope_fixed", "splat_fields"]

Int64Array = npt.NDArray[np.int64]


def slope_fixed(design: SetupDesign, words: Int64Array) -> Int64Array:
    """Slopes in fixed point from floating words: rounded half up in magnitude, saturating.

    Error: half a unit of ``design.slope``, none where the exponent leaves all bits of the fraction
    in it.
    """
    return to_fixed(design.feature.slope, words, design.slope)


def splat_fields(
    design: SetupDesign, feature: Mapping[str, Int64Array], tile_x: npt.ArrayLike,
    tile_y: npt.ArrayLike,
) -> dict[str, Int64Array]:
    """Fields of splats but for their subtiles.

    Bit-true to :class:`splatforge.hw.lib.splat_setup.SplatSetup`. ``u0 = a dx + b dy`` and
    ``v0 = c dy`` at the centre of the tile's first pixel are exact sums of exact products of the
    slopes in ``design.slope``, rounded half up to the splat's formats and saturating. Against the
    feature's own values the error of ``u0`` is at most half a unit of its format and
    ``2**-(slope.frac_bits + 1) (|dx| + |dy|)``, that of ``v0`` the same with ``|dy|`` alone.

    Parameters
    ----------
    design : SetupDesign
        Formats.
    feature : Mapping
        Raw fields of the features, shape [N] each.
    tile_x, tile_y : array_like
        Column and row of the tile, shape [N].

    Returns
    -------
    dict
        Raw fields, see :class:`splatforge.designs.fetch.SplatFormat`, shape [N] each.
    """
    frac_bits = design.feature.mean.frac_bits
    half = 1 << (frac_bits - 1)
    dx = (np.asarray(tile_x, np.int64) * TILE_PX << frac_bits) + half - feature["mean_x"]
    dy = (np.asarray(tile_y, np.int64) * TILE_PX << frac_bits) + half - feature["mean_y"]
    a, b, c = (slope_fixed(design, feature[name]) for name in "abc")
    splat, slope = design.splat, design.slope
    fine = frac_bits + slope.frac_bits

    def narrow(raw: Int64Array, bits: int, to) -> Int64Array:
        return to.saturate(round_shift(raw, bits - to.frac_bits))

    return {
        "u0": narrow(a * dx + b * dy, fine, splat.u0),
        "v0": narrow(c * dy, fine, splat.v0),
        "a": narrow(a, slope.frac_bits, splat.a),
        "b": narrow(b, slope.frac_bits, splat.b),
        "c": narrow(c, slope.frac_bits, splat.c),
        **{name: feature[name] for name in ("log_opacity", "red", "green", "blue")},
    }

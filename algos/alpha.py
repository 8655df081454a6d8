"""Alpha of a splat at a pixel, from its linear forms.

Source: Kerbl et al., "3D Gaussian Splatting for Real-Time Radiance Field Rendering", ACM TOG
42(4), 2023, eq. (3) and its reference implementation (alpha below 1/255 is skipped, alpha is at
most 0.99). The factored exponent is explained in :mod:`splatforge.designs.alpha`; testing the
exponent before any exponential is the log-domain test of Voyager (2506.02774) and FLICKER
(2603.01158, eq. 2).
"""

from typing import NamedTuple

import numba as nb
import numpy as np
import numpy.typing as npt

from splatforge.algos.fixed import round_shift
from splatforge.designs.alpha import AlphaDesign
from splatforge.designs.fetch import SplatFormat

__all__ = ["Alpha", "AlphaConstants", "alpha_constants", "alpha_fixed", "alpha_float", "exp2_table",
           "forms_fixed"]


class Alpha(NamedTuple):
    """Opacity of fragments."""

    alpha: npt.NDArray
    """Opacity; zero where not significant."""
    significant: npt.NDArray[np.bool_]
    """Whether the opacity reaches 1/255."""


def alpha_float(u: npt.ArrayLike, v: npt.ArrayLike, log_opacity: npt.ArrayLike) -> Alpha:
    """Opacity ``2^-(u^2 + v^2 + lo)``, at most 0.99, zero below 1/255.

    Parameters
    ----------
    u, v : array_like
        Linear forms of the splat at the pixel, of shape [N], dimensionless.
    log_opacity : array_like
        ``lo = -log2(opacity)`` of shape [N], from 0 to 8.

    Returns
    -------
    Alpha
        Opacities of shape [N] in [0, 0.99] and their significance.
    """
    u, v = np.asarray(u, np.float64), np.asarray(v, np.float64)
    alpha = np.exp2(-(u * u + v * v + np.asarray(log_opacity, np.float64)))
    significant = alpha >= 1 / 255
    return Alpha(np.where(significant, np.minimum(alpha, 0.99), 0.0), significant)


def exp2_table(design: AlphaDesign) -> npt.NDArray[np.int64]:
    """Raw entries of the table of ``2^-f`` over ``[0, 1]``, both ends, of shape [entries + 1]."""
    steps = np.arange(design.table_entries + 1) / design.table_entries
    return design.table.quantize(np.exp2(-steps))


def forms_fixed(
    design: AlphaDesign,
    splat: SplatFormat,
    fields: dict[str, npt.NDArray[np.int64]],
    x: npt.ArrayLike,
    y: npt.ArrayLike,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Raw forms u and v in ``design.form_sum`` of splats at pixel (x, y) of their tile, exact.

    Parameters
    ----------
    design, splat : AlphaDesign, SplatFormat
        Formats.
    fields : dict
        Raw ``u0``, ``v0``, ``a``, ``b``, ``c`` of the records, any shapes that broadcast.
    x, y : array_like
        Column and row in the tile, 0 to 15.

    Returns
    -------
    tuple of ndarray
        u and v.
    """
    def up(name: str) -> npt.NDArray[np.int64]:
        shift = design.form_sum.frac_bits - getattr(splat, name).frac_bits
        return np.asarray(fields[name], np.int64) << shift

    x, y = np.asarray(x, np.int64), np.asarray(y, np.int64)
    return up("u0") + up("a") * x + up("b") * y, up("v0") + up("c") * y


def alpha_fixed(
    design: AlphaDesign, u: npt.ArrayLike, v: npt.ArrayLike, log_opacity: npt.ArrayLike
) -> Alpha:
    """Opacity in integers, bit-true to :class:`splatforge.hw.alpha.Alpha`.

    Rounds at four places, half up: ``u`` and ``v`` to ``form`` (saturating), ``u^2 + v^2`` to the
    exponent's fraction, the interpolated table entry to alpha's fraction after its shift. Against
    :func:`alpha_float` of the same raw inputs, with the default formats and away from the cut-off,
    alpha is off by at most 7.9e-4 (see ``tests/test_alpha.py``, which derives the bound).

    Parameters
    ----------
    design : AlphaDesign
        Formats.
    u, v : array_like
        Raw linear forms in ``design.form_sum``, of shape [N].
    log_opacity : array_like
        Raw ``-log2(opacity)`` in ``design.log_opacity``, of shape [N].

    Returns
    -------
    Alpha
        Raw opacities in ``design.alpha``.
    """
    exponent, lo = design.exponent, np.asarray(log_opacity, np.int64)
    drop = design.form_sum.frac_bits - design.form.frac_bits
    u = design.form.saturate(round_shift(u, drop))
    v = design.form.saturate(round_shift(v, drop))
    p = round_shift(u * u + v * v, 2 * design.form.frac_bits - exponent.frac_bits)
    p = p + (lo << (exponent.frac_bits - design.log_opacity.frac_bits))
    significant = p <= design.cutoff

    octave = np.minimum(p >> exponent.frac_bits, design.octaves - 1)
    fraction = p & ((1 << exponent.frac_bits) - 1)
    table = exp2_table(design)
    index, rest = fraction >> design.slope_bits, fraction & ((1 << design.slope_bits) - 1)
    value = (table[index] << design.slope_bits) - (table[index] - table[index + 1]) * rest
    value = value << (design.octaves - 1 - octave)
    frac_bits = design.table.frac_bits + design.slope_bits + design.octaves - 1
    alpha = np.minimum(round_shift(value, frac_bits - design.alpha.frac_bits), design.alpha_cap)
    return Alpha(np.where(significant, alpha, 0), significant)


class AlphaConstants(NamedTuple):
    """What the numba kernels need of an :class:`AlphaDesign`, as plain integers."""

    form_drop: int
    form_max: int
    square_drop: int
    lo_shift: int
    cutoff: int
    exponent_frac: int
    slope_bits: int
    octaves: int
    alpha_drop: int
    alpha_cap: int
    alpha_frac: int


def alpha_constants(design: AlphaDesign) -> AlphaConstants:
    """Constants of `design` for :func:`_alpha_kernel`."""
    return AlphaConstants(
        form_drop=design.form_sum.frac_bits - design.form.frac_bits,
        form_max=design.form.raw_max,
        square_drop=2 * design.form.frac_bits - design.exponent.frac_bits,
        lo_shift=design.exponent.frac_bits - design.log_opacity.frac_bits,
        cutoff=design.cutoff,
        exponent_frac=design.exponent.frac_bits,
        slope_bits=design.slope_bits,
        octaves=design.octaves,
        alpha_drop=(design.table.frac_bits + design.slope_bits + design.octaves - 1
                    - design.alpha.frac_bits),
        alpha_cap=design.alpha_cap,
        alpha_frac=design.alpha.frac_bits,
    )


@nb.njit(inline="always")
def _round_shift_kernel(raw, bits):
    return (raw + ((1 << bits) >> 1)) >> bits


@nb.njit(inline="always")
def _form_kernel(k, raw):
    """Round and saturate one raw form sum."""
    rounded = _round_shift_kernel(raw, k.form_drop)
    return min(k.form_max, max(-k.form_max - 1, rounded))


@nb.njit(inline="always")
def _alpha_kernel(k, table, u, v, lo):
    """Raw alpha of one fragment, or -1 where not significant; the scalar of `alpha_fixed`."""
    u = _form_kernel(k, u)
    v = _form_kernel(k, v)
    p = _round_shift_kernel(u * u + v * v, k.square_drop) + (lo << k.lo_shift)
    if p > k.cutoff:
        return np.int64(-1)
    fraction = p & ((1 << k.exponent_frac) - 1)
    index = fraction >> k.slope_bits
    rest = fraction & ((1 << k.slope_bits) - 1)
    value = (table[index] << k.slope_bits) - (table[index] - table[index + 1]) * rest
    value = value << (k.octaves - 1 - (p >> k.exponent_frac))
    return min(k.alpha_cap, _round_shift_kernel(value, k.alpha_drop))

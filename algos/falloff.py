"""Alpha as opacity times an exponential out of a small table, tested before it is looked up.

Source: Voyager, arXiv 2506.02774 (accelerators.md, 3.2); formats and choices are explained in
:mod:`splatforge.designs.falloff`.
"""

from typing import NamedTuple

import numba as nb
import numpy as np
import numpy.typing as npt

from splatforge.algos.alpha import Alpha, _form_kernel, _round_shift_kernel
from splatforge.algos.fixed import round_shift
from splatforge.designs.falloff import FalloffDesign

__all__ = ["FalloffConstants", "exponentials", "falloff_constants", "falloff_fixed",
           "falloff_float", "falloff_table", "opacities", "opacity_table", "real_table", "step_of"]

Int64Array = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]


def step_of(design: FalloffDesign) -> float:
    """Step of the table in nats, 0.0866 with 64 entries."""
    return design.octaves * np.log(2) / design.table_entries


def real_table(design: FalloffDesign) -> Float64Array:
    """Of every step ``exp(-E)``, and by how much it falls to the next one, shape [entries, 2].

    Without interpolation it is what lies half way between the ends, and does not fall.
    """
    ends = np.exp(-step_of(design) * np.arange(design.table_entries + 1))
    if design.interpolated:
        return np.stack([ends[:-1], ends[:-1] - ends[1:]], axis=1)
    return np.stack([(ends[:-1] + ends[1:]) / 2, np.zeros(design.table_entries)], axis=1)


def falloff_float(exponent: npt.ArrayLike, design: FalloffDesign) -> Float64Array:
    """``exp(-E)`` out of a table of real numbers.

    Parameters
    ----------
    exponent : array_like
        ``E`` in nats, from 0 to ln 256.
    design : FalloffDesign
        Size of the table, and whether it is interpolated; formats do not matter.
    """
    place = np.asarray(exponent, np.float64) / step_of(design)
    index = np.minimum(place.astype(np.int64), design.table_entries - 1)
    value, fall = real_table(design)[index].T
    return value - fall * (place - index)


def falloff_table(design: FalloffDesign) -> tuple[Int64Array, Int64Array]:
    """Raw entries of the table of ``exp(-E)``, and by how much each falls to the next one."""
    if not design.interpolated:
        values = design.table.quantize(real_table(design)[:, 0])
        return values, np.zeros_like(values)
    ends = design.table.quantize(
        np.exp(-step_of(design) * np.arange(design.table_entries + 1)))
    return ends[:-1], ends[:-1] - ends[1:]


def opacity_table(design: FalloffDesign) -> Int64Array:
    """Raw powers ``2^-f`` in ``design.opacity`` for every fraction of a log opacity."""
    steps = 1 << design.log_opacity.frac_bits
    return design.opacity.quantize(np.exp2(-np.arange(steps) / steps))


def opacities(design: FalloffDesign) -> Int64Array:
    """Raw opacity of every raw log opacity, rounded once more behind the shift."""
    lo = np.arange(design.log_opacity.raw_max + 1)
    value = opacity_table(design)[lo & ((1 << design.log_opacity.frac_bits) - 1)]
    octave = lo >> design.log_opacity.frac_bits
    return (value + ((1 << octave) >> 1)) >> octave


def exponentials(design: FalloffDesign) -> Int64Array:
    """Raw ``exp(-E)`` in ``design.table`` of every raw exponent that is ever looked up."""
    exponent = np.arange(design.cutoff + 1)
    values, deltas = falloff_table(design)
    index, rest = exponent >> design.slope_bits, exponent & ((1 << design.slope_bits) - 1)
    value = (values[index] << design.slope_bits) - deltas[index] * rest
    return round_shift(value, design.slope_bits)


def falloff_fixed(
    design: FalloffDesign, u: npt.ArrayLike, v: npt.ArrayLike, log_opacity: npt.ArrayLike
) -> Alpha:
    """Opacity in integers, bit-true to :class:`splatforge.hw.falloff.Falloff`.

    A fragment is significant if and only if ``u^2 + v^2 <= log2(255) - lo``, the same as
    :func:`splatforge.algos.alpha.alpha_fixed` says. Its alpha is off by what the table is (half a
    step, 4.2 % of full opacity at most with 64 entries; 1e-3 of it interpolated) and the rounding
    of table, opacity and product; ``tests/test_falloff.py`` derives the bound.

    Parameters
    ----------
    design : FalloffDesign
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
    k = falloff_constants(design)
    lo = np.asarray(log_opacity, np.int64)
    u = design.form.saturate(round_shift(u, k.form_drop))
    v = design.form.saturate(round_shift(v, k.form_drop))
    exponent = round_shift(u * u + v * v, k.square_drop)
    significant = exponent <= k.cutoff - (lo << k.lo_shift)
    product = exponentials(design)[np.minimum(exponent, k.cutoff)] * k.opacities[lo]
    alpha = np.minimum(round_shift(product, k.alpha_drop), k.alpha_cap)
    return Alpha(np.where(significant, alpha, 0), significant)


class FalloffConstants(NamedTuple):
    """What the numba kernels need of a :class:`FalloffDesign`."""

    form_drop: int
    form_max: int
    square_drop: int
    lo_shift: int
    cutoff: int
    opacities: Int64Array
    alpha_drop: int
    alpha_cap: int
    alpha_frac: int


def falloff_constants(design: FalloffDesign) -> FalloffConstants:
    """Constants of `design` for :func:`_falloff_kernel`."""
    return FalloffConstants(
        form_drop=design.form_sum.frac_bits - design.form.frac_bits,
        form_max=design.form.raw_max,
        square_drop=2 * design.form.frac_bits - design.exponent.frac_bits,
        lo_shift=design.exponent.frac_bits - design.log_opacity.frac_bits,
        cutoff=design.cutoff,
        opacities=opacities(design),
        alpha_drop=design.table.frac_bits + design.opacity.frac_bits - design.alpha.frac_bits,
        alpha_cap=design.alpha_cap,
        alpha_frac=design.alpha.frac_bits,
    )


@nb.njit(inline="always")
def _falloff_kernel(k, exponential, u, v, lo):
    """Raw alpha of one fragment, or -1 where not significant; the scalar of `falloff_fixed`."""
    u = _form_kernel(k, u)
    v = _form_kernel(k, v)
    exponent = _round_shift_kernel(u * u + v * v, k.square_drop)
    if exponent > k.cutoff - (lo << k.lo_shift):
        return np.int64(-1)
    return min(k.alpha_cap, _round_shift_kernel(
        exponential[exponent] * k.opacities[lo], k.alpha_drop))

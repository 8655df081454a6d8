"""Front-to-back blending of one fragment into one pixel, with early stop.

Source: Kerbl et al., "3D Gaussian Splatting for Real-Time Radiance Field Rendering", ACM TOG
42(4), 2023, eq. (3) and its reference implementation: a fragment that would take the
transmittance below 1e-4 is not blended and ends the pixel.
"""

from typing import NamedTuple

import numba as nb
import numpy as np
import numpy.typing as npt

from splatforge.algos.fixed import round_shift
from splatforge.designs.alpha import AlphaDesign
from splatforge.designs.blend import BlendDesign

__all__ = ["BlendState", "blend_fixed", "blend_float", "start_raw"]


class BlendState(NamedTuple):
    """What one pixel carries from fragment to fragment."""

    product: npt.NDArray
    """Product of ``1 - alpha`` over all significant fragments, the stopping one included; below
    the limit of 1e-4 the pixel has ended."""
    transmittance: npt.NDArray
    """T: the same product over the blended fragments only; what the background is weighted by."""
    accumulator: npt.NDArray
    """Colour so far, of shape [N, 3]."""


def start_raw(blend: BlendDesign, pixels: int) -> BlendState:
    """State of `pixels` untouched pixels, raw integers."""
    one = np.full(pixels, blend.one, np.int64)
    return BlendState(one, one.copy(), np.zeros((pixels, 3), np.int64))


def blend_float(state: BlendState, alpha: npt.ArrayLike, color: npt.ArrayLike) -> BlendState:
    """Blend one fragment into each pixel, float64.

    Parameters
    ----------
    state : BlendState
        Float state of N pixels; ones and a black accumulator for untouched ones.
    alpha : array_like
        Opacities of shape [N], dimensionless in [0, 0.99]; zero blends nothing.
    color : array_like
        Colours of shape [N, 3], linear radiance.

    Returns
    -------
    BlendState
        The state behind the fragment.
    """
    product = state.product * (1.0 - np.asarray(alpha, np.float64))
    blended = product >= 1e-4
    weight = np.where(blended, state.product - product, 0.0)
    return BlendState(
        product,
        np.where(blended, product, state.transmittance),
        state.accumulator + weight[..., None] * np.asarray(color, np.float64),
    )


def blend_fixed(
    alpha_design: AlphaDesign,
    blend: BlendDesign,
    state: BlendState,
    alpha: npt.ArrayLike,
    color: npt.ArrayLike,
) -> BlendState:
    """Blend one fragment into each pixel, bit-true to :class:`splatforge.hw.blend.Blend`.

    Arguments and result are those of :func:`blend_float` as raw int64. The product is rounded
    once, half up; the weight is the difference of two products, so that the weights and T of a
    pixel always sum to exactly one; weight times colour is rounded once into the accumulator.
    Error of one fragment: half a unit in the last place of T, and of the accumulator half a unit
    plus the colour times half a unit of T.
    """
    one = 1 << alpha_design.alpha.frac_bits
    product = round_shift(
        state.product * (one - np.asarray(alpha, np.int64)), alpha_design.alpha.frac_bits
    )
    blended = product >= blend.stop
    weight = np.where(blended, state.product - product, 0)
    shift = (
        blend.transmittance.frac_bits + blend.color.frac_bits - blend.accumulator.frac_bits
    )
    return BlendState(
        product,
        np.where(blended, product, state.transmittance),
        state.accumulator + round_shift(weight[..., None] * np.asarray(color, np.int64), shift),
    )


class BlendConstants(NamedTuple):
    """What the numba kernels need of a :class:`BlendDesign`, as plain integers."""

    one: int
    stop: int
    color_shift: int


def blend_constants(blend: BlendDesign) -> BlendConstants:
    """Constants of `blend` for the kernels."""
    return BlendConstants(
        one=blend.one,
        stop=blend.stop,
        color_shift=(blend.transmittance.frac_bits + blend.color.frac_bits
                     - blend.accumulator.frac_bits),
    )


@nb.njit(inline="always")
def _product_kernel(alpha_frac, product, alpha):
    """Raw product behind a fragment of raw `alpha`."""
    return (product * ((1 << alpha_frac) - alpha) + ((1 << alpha_frac) >> 1)) >> alpha_frac


@nb.njit(inline="always")
def _add_kernel(k, weight, color):
    """Raw addition to the accumulator of one channel."""
    return (weight * color + ((1 << k.color_shift) >> 1)) >> k.color_shift

"""A Gaussian's footprint on the image: the part of the arithmetic that projecting units share.

What is computed is the projection of :mod:`splatforge.algos.project`; its sources are named there.
The determinant on the image is a squared cross product, which loses no digits on needles.
"""

from collections.abc import Mapping, Sequence
from math import log2, sqrt
from typing import NamedTuple

import numba as nb
import numpy as np
import numpy.typing as npt

from splatforge.algos.dataflow import Builder, Value
from splatforge.algos.fixed import round_shift
from splatforge.designs.fetch import TILE_PX
from splatforge.designs.fixed import Fixed

__all__ = [
    "CHANNELS", "COMPENSATION_FLOOR", "DILATION", "FORM_SCALE", "SIGMAS", "Footprint", "color_sum",
    "compensated", "direction", "footprint_outputs", "jacobian_rows", "square_side", "tile_span"]

Int64Array = npt.NDArray[np.int64]

#: As the reference has them: variance of the low-pass filter in px^2, floors of the spread of the
#: eigenvalues and of the squared compensation.
DILATION = 0.3
EIGEN_FLOOR = 0.1
COMPENSATION_FLOOR = 0.000025
#: Half sides of boxes in standard deviations.
SIGMAS = 3.0
#: ``E * log2(e) = u^2 + v^2``, see :mod:`splatforge.designs.alpha`.
FORM_SCALE = sqrt(log2(np.e) / 2)
CHANNELS = ("red", "green", "blue")


class Footprint(NamedTuple):
    """Values that describe a Gaussian on the image, in pixels."""

    wide: Value
    """Variance along x, dilated."""
    high: Value
    """Variance along y, dilated."""
    root_high: Value
    """One over the square root of `high`."""
    det: Value
    """Determinant of the covariance, dilated."""
    root_det: Value
    """One over its square root."""
    difference: Value
    """Difference of the variances."""
    twice_xy: Value
    """Twice the covariance of x and y."""
    spread: Value
    """Difference of the eigenvalues."""
    inverse_large: Value
    """One over the square root of twice the larger eigenvalue."""
    long: Value
    """Three standard deviations along the longer axis."""


def jacobian_rows(
    g: Builder, camera: Mapping[str, Value], x: Value, y: Value
) -> tuple[list[Value], list[Value]]:
    """Rows of the Jacobian times the rotation, times z, in pixels.

    Parameters
    ----------
    g : Builder
        The graph.
    camera : Mapping
        Words of :data:`splatforge.designs.ccu.CAMERA_WORDS`.
    x, y : Value
        Mean in pixels from the principal point; the Jacobian is taken at the nearest point within
        the clamps.
    """
    at_x = g.minimum(g.maximum(x, camera["clamp_left"]), camera["clamp_right"])
    at_y = g.minimum(g.maximum(y, camera["clamp_top"]), camera["clamp_bottom"])
    u = [camera[f"right_{axis}"] - at_x * camera[f"ahead_{axis}"] for axis in "xyz"]
    v = [camera[f"down_{axis}"] - at_y * camera[f"ahead_{axis}"] for axis in "xyz"]
    return u, v


def footprint_outputs(
    g: Builder, p: Sequence[Value], q: Sequence[Value], square: Value, logarithm: Fixed
) -> Footprint:
    """Covariance on the image; outputs a, b, c, log_det and log_det_sharp.

    Parameters
    ----------
    g : Builder
        The graph.
    p, q : sequence of Value
        Rows of the Jacobian times a factor of the covariance in space, three values each, of any
        scale.
    square : Value
        The square of that scale: the covariance on the image is their products times it.
    logarithm : Fixed
        Of the determinants' logarithms.
    """
    dilation = g.literal("dilation", DILATION)
    form_scale = g.literal("form_scale", FORM_SCALE)
    xx, xy, yy = (g.dot(*rows) * square for rows in ((p, p), (p, q), (q, q)))
    cross = [p[1] * q[2] - p[2] * q[1], p[2] * q[0] - p[0] * q[2], p[0] * q[1] - p[1] * q[0]]
    det_sharp = g.dot(cross, cross) * (square * square)
    det = det_sharp + (
        dilation * (xx + yy) + g.literal("dilation_squared", DILATION * DILATION))
    wide, high = xx + dilation, yy + dilation
    g.output("log_det", g.log2(det, logarithm))
    g.output("log_det_sharp", g.log2(det_sharp, logarithm))

    # Slopes: its inverse's Cholesky factor, v along y alone.
    root_det, root_high = g.reciprocal_root(det), g.reciprocal_root(high)
    c = form_scale * root_high
    ratio = c * root_det
    g.output("a", ratio * high)
    g.output("b", -(ratio * xy))
    g.output("c", c)

    # The larger eigenvalue, twice: the trace and the root of the discriminant.
    difference, twice_xy = xx - yy, xy + xy
    discriminant = g.maximum(difference * difference + twice_xy * twice_xy,
                             g.literal("discriminant_floor", 4 * EIGEN_FLOOR))
    spread = discriminant * g.reciprocal_root(discriminant)
    large = (wide + high) + spread
    inverse_large = g.reciprocal_root(large)
    long = large * (inverse_large * g.literal("long_scale", SIGMAS / sqrt(2)))
    return Footprint(
        wide=wide, high=high, root_high=root_high, det=det, root_det=root_det,
        difference=difference, twice_xy=twice_xy, spread=spread, inverse_large=inverse_large,
        long=long)


def direction(g: Builder, d: Sequence[Value]) -> tuple[Value, Value, Value]:
    """Unit vector along `d`."""
    nearness = g.reciprocal_root(g.dot(d, d))
    x, y, z = (part * nearness for part in d)
    return x, y, z


def color_sum(g: Builder, coefficients: Sequence[Value], basis: Sequence[Value]) -> Value:
    """The first coefficient plus the others times functions of the direction, as a tree.

    A sum as of :meth:`splatforge.algos.dataflow.Builder.sum`: with zeros for coefficients behind,
    it is the same as without them.
    """
    return g.sum([coefficients[0], *(
        value * coefficient for value, coefficient in zip(basis, coefficients[1:], strict=False))])


def compensated(
    logarithm: Fixed, to: Fixed, values: Mapping[str, Int64Array], *, antialiased: bool
) -> Int64Array:
    """Raw -log2 of opacities in `to`, which may be above its range.

    Half the logarithm of the compensation, ``det / det_sharp``, is added to the opacity's at twice
    the resolution of `logarithm`, and the sum rounded once, half up.

    Parameters
    ----------
    logarithm, to : Fixed
        Formats of the operands and of the result.
    values : Mapping
        Raw log_opacity, log_det and log_det_sharp.
    antialiased : bool
        Whether opacities are compensated.
    """
    opacity = values["log_opacity"] << 1
    if antialiased:
        most = round(-log2(COMPENSATION_FLOOR) * 2**logarithm.frac_bits)
        opacity = opacity + np.clip(values["log_det"] - values["log_det_sharp"], 0, most)
    return np.maximum(round_shift(opacity, logarithm.frac_bits + 1 - to.frac_bits), 0)


def square_side(extent: Fixed, long: Int64Array) -> Int64Array:
    """Half sides rounded up to whole pixels, saturating; raw."""
    pixel = (1 << extent.frac_bits) - 1
    return np.minimum((long + pixel) & ~pixel, extent.raw_max & ~pixel)


@nb.njit(inline="always")
def tile_span(position, side, frac_bits, tiles):
    """First tile and end tile that ``position -+ side`` meets along one axis."""
    tile = TILE_PX << frac_bits
    first = (position - side) // tile
    end = (position + side + tile - 1) // tile
    return min(max(first, 0), tiles), min(max(end, 0), tiles)

"""How far a picture is from a target, and which way is nearer: L1 and structural similarity.

Source: the loss of Kerbl et al., "3D Gaussian Splatting for Real-Time Radiance Field Rendering",
ACM TOG 42(4), 2023, eq. (7), ``(1 - w) L1 + w (1 - SSIM)`` with w = 0.2; SSIM of Wang, Bovik,
Sheikh, Simoncelli, IEEE TIP 13(4), 2004.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from splatforge.algos.workers import Workers

__all__ = ["PhotometricLoss"]

Float32Array = npt.NDArray[np.float32]

# The window of SSIM and its constants for a peak of 1.
_WINDOW = 11
_SIGMA = 1.5
_C1, _C2 = np.float32(0.01**2), np.float32(0.03**2)
_ZERO, _HALF, _ONE, _TWO = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2)
# Rows per unit of parallel work.
_BAND = 16


def _weights() -> Float32Array:
    offset = np.arange(_WINDOW) - _WINDOW // 2
    weights = np.exp(-0.5 * (offset / _SIGMA) ** 2)
    return (weights / weights.sum()).astype(np.float32)


@njit(cache=True, nogil=True)
def _across_kernel(band, weights, image, target, moments):
    """Windows along rows of x, x^2 and x y; rows are flat, three channels side by side."""
    length = moments.shape[2]
    for row in range(band * _BAND, min(len(image), (band + 1) * _BAND)):
        moments[:, row] = _ZERO
        for tap in range(_WINDOW):
            weight = weights[tap]
            x, y = image[row, 3 * tap :], target[row, 3 * tap :]
            first, second, mixed = moments[0, row], moments[1, row], moments[2, row]
            for at in range(length):
                part = weight * x[at]
                first[at] += part
                second[at] += part * x[at]
                mixed[at] += part * y[at]


@njit(cache=True, nogil=True)
def _similarity_kernel(band, weights, across, targets, slopes, similarity):
    """Windows along columns, the similarity, and its derivatives by the three moments of x."""
    rows, length = slopes.shape[1:]
    sums = np.empty((3, length), np.float32)
    for row in range(band * _BAND, min(rows, (band + 1) * _BAND)):
        sums[:] = _ZERO
        for tap in range(_WINDOW):
            weight = weights[tap]
            for moment in range(3):
                source, total = across[moment, row + tap], sums[moment]
                for at in range(length):
                    total[at] += weight * source[at]
        total = 0.0
        for at in range(length):
            x, xx, xy = sums[0, at], sums[1, at], sums[2, at]
            y, yy = targets[0, row, at], targets[1, row, at]
            a1, a2 = _TWO * x * y + _C1, _TWO * (xy - x * y) + _C2
            b1, b2 = x * x + y * y + _C1, xx - x * x + yy - y * y + _C2
            inv = _ONE / (b1 * b2)
            value = a1 * a2 * inv
            slopes[0, row, at] = _TWO * inv * (y * (a2 - a1) + x * value * (b1 - b2))
            slopes[1, row, at] = -value * b1 * inv
            slopes[2, row, at] = _TWO * a1 * inv
            total += value
        similarity[row] = total


@njit(cache=True, nogil=True)
def _down_kernel(band, weights, slopes, spread):
    """Spread the slopes over the columns of their windows."""
    rows = slopes.shape[1]
    for row in range(band * _BAND, min(spread.shape[1], (band + 1) * _BAND)):
        spread[:, row] = _ZERO
        for tap in range(_WINDOW):
            if 0 <= row - tap < rows:
                weight = weights[tap]
                for moment in range(3):
                    source, total = slopes[moment, row - tap], spread[moment, row]
                    for at in range(len(total)):
                        total[at] += weight * source[at]


@njit(cache=True, nogil=True)
def _gradient_kernel(
    band, weights, image, target, spread, bend, l1_part, dssim_part, gradient, l1
):  # fmt: skip
    """Spread along rows, too; by the pixels, with what L1 adds. Sums of L1 per row."""
    length = spread.shape[2]
    sums = np.empty((3, gradient.shape[1]), np.float32)
    for row in range(band * _BAND, min(len(image), (band + 1) * _BAND)):
        sums[:] = _ZERO
        for tap in range(_WINDOW):
            weight = weights[tap]
            for moment in range(3):
                source, total = spread[moment, row], sums[moment, 3 * tap :]
                for at in range(length):
                    total[at] += weight * source[at]
        total = 0.0
        for at in range(gradient.shape[1]):
            x, y = image[row, at], target[row, at]
            slope = sums[0, at] + _TWO * x * sums[1, at] + y * sums[2, at]
            difference = x - y
            sign = min(_ONE, max(-_ONE, difference / bend))
            gradient[row, at] = l1_part * sign - dssim_part * slope
            total += sign * (difference - _HALF * bend * sign)
        l1[row] = total


class PhotometricLoss:
    """``(1 - w) L1 + w (1 - SSIM)`` against one target, and its gradient by the picture.

    SSIM is the mean over the pixels whose 11 x 11 window lies in the picture, as
    :func:`splatforge.algos.quality.ssim` has it; colours are not clipped.

    Parameters
    ----------
    target : array_like
        Linear colour of shape [height, width, 3], finite, at least 11 x 11.
    dssim_weight : float
        w, in [0, 1]. Default: 0.2.
    bend : float
        Below this difference, positive, L1 is a parabola (Huber's loss): a picture that is at its
        target but for rounding is at rest there. Default: a quarter of an 8-bit level.

    Raises
    ------
    ValueError
        If the shape, a value or the weight is not what it must be.
    """

    def __init__(
        self, target: npt.ArrayLike, *, dssim_weight: float = 0.2, bend: float = 1 / 1020
    ) -> None:
        target = np.ascontiguousarray(target, np.float32)
        if target.ndim != 3 or target.shape[2] != 3 or min(target.shape[:2]) < _WINDOW:
            raise ValueError(
                f"Target must have shape [height, width, 3] of at least {_WINDOW} x {_WINDOW}"
                f" pixels, not {target.shape}"
            )
        if not np.isfinite(target).all():
            raise ValueError("Target must be finite, not NaN or infinite anywhere")
        if not 0.0 <= dssim_weight <= 1.0:
            raise ValueError(f"Weight of D-SSIM must be between 0 and 1, not {dssim_weight!r}")
        if not 0.0 < bend < np.inf:
            raise ValueError(f"Bend of L1 must be positive and finite, not {bend!r}")
        self.target, self.dssim_weight, self.bend = target, float(dssim_weight), float(bend)
        self._weights = _weights()
        height, width = target.shape[:2]
        self._valid = height - _WINDOW + 1, 3 * (width - _WINDOW + 1)
        flat = target.reshape(height, -1)
        across = np.empty((3, height, self._valid[1]), np.float32)
        for band in range(-(-height // _BAND)):
            _across_kernel(band, self._weights, flat, flat, across)
        windows = np.lib.stride_tricks.sliding_window_view(across[:2], _WINDOW, axis=1)
        # Windowed mean and square of the target, kept for every picture that is compared.
        self._moments = np.ascontiguousarray(windows @ self._weights)

    def __call__(self, image: npt.ArrayLike) -> tuple[float, Float32Array]:
        """Loss of a picture, and its gradient of the picture's shape.

        Raises
        ------
        ValueError
            If the shape is not that of the target.
        """
        image = np.ascontiguousarray(image, np.float32)
        if image.shape != self.target.shape:
            raise ValueError(
                f"Image must have the shape of its target, {self.target.shape}, not {image.shape}"
            )
        height, flat_width = len(image), image.shape[1] * 3
        rows, length = self._valid
        flat, target = image.reshape(height, -1), self.target.reshape(height, -1)
        across = np.empty((3, height, length), np.float32)
        slopes = np.empty((3, rows, length), np.float32)
        similarity, l1 = np.empty(rows), np.empty(height)
        gradient = np.empty((height, flat_width), np.float32)
        parts = (
            np.float32(self.bend),
            np.float32((1.0 - self.dssim_weight) / flat.size),
            np.float32(self.dssim_weight / (rows * length)),
        )

        with Workers() as workers:

            def run(kernel: Callable[..., None], count: int, *args: Any) -> None:
                workers.run_chunks(kernel, -(-count // _BAND), self._weights, *args)

            run(_across_kernel, height, flat, target, across)
            run(_similarity_kernel, rows, across, self._moments, slopes, similarity)
            spread = across
            run(_down_kernel, height, slopes, spread)
            run(_gradient_kernel, height, flat, target, spread, *parts, gradient, l1)
        loss = (1.0 - self.dssim_weight) * float(l1.sum()) / flat.size + self.dssim_weight * (
            1.0 - float(similarity.sum()) / (rows * length)
        )
        return loss, gradient.reshape(image.shape)

"""Colour of a Gaussian from its spherical harmonics and the direction it is seen from.

Real spherical harmonics up to degree 3 in the order and with the signs of Kerbl et al.,
"3D Gaussian Splatting for Real-Time Radiance Field Rendering", ACM TOG 42(4), 2023, whose basis
is that of Ramamoorthi and Hanrahan (SIGGRAPH 2001) with the Condon-Shortley sign.
"""

from math import sqrt

import numpy as np
import numpy.typing as npt
from numba import njit

from splatforge.algos.workers import Workers
from splatforge.scenes import Camera, Scene

__all__ = ["view_colors"]

Float32Array = npt.NDArray[np.float32]

_C0 = np.float32(0.28209479177387814)  # 1 / (2 sqrt(pi))
_C1 = np.float32(0.4886025119029199)  # sqrt(3 / (4 pi))
_C2A = np.float32(1.0925484305920792)  # sqrt(15 / (4 pi))
_C2B = np.float32(0.31539156525252005)  # sqrt(5 / (16 pi))
_C2C = np.float32(0.5462742152960396)  # sqrt(15 / (16 pi))
_C3A = np.float32(0.5900435899266435)  # sqrt(35 / (32 pi))
_C3B = np.float32(2.890611442640554)  # sqrt(105 / (4 pi))
_C3C = np.float32(0.4570457994644658)  # sqrt(21 / (32 pi))
_C3D = np.float32(0.3731763325901154)  # sqrt(7 / (16 pi))
_C3E = np.float32(1.445305721320277)  # sqrt(105 / (16 pi))

_ZERO = np.float32(0)
_TWO = np.float32(2)
_THREE = np.float32(3)
_FOUR = np.float32(4)
_HALF = np.float32(0.5)

# Gaussians per unit of parallel work.
_CHUNK = 4096


@njit(cache=True, inline="always")
def _fill_basis(basis, coefficients, x, y, z):
    """Write the first ``coefficients`` basis functions of a unit direction in float32."""
    basis[0] = _C0
    if coefficients > 1:
        basis[1], basis[2], basis[3] = -_C1 * y, _C1 * z, -_C1 * x
    if coefficients > 4:
        xx, yy, zz = x * x, y * y, z * z
        basis[4], basis[5] = _C2A * x * y, -_C2A * y * z
        basis[6] = _C2B * (_TWO * zz - xx - yy)
        basis[7], basis[8] = -_C2A * x * z, _C2C * (xx - yy)
        if coefficients > 9:
            basis[9], basis[10] = -_C3A * y * (_THREE * xx - yy), _C3B * x * y * z
            basis[11] = -_C3C * y * (_FOUR * zz - xx - yy)
            basis[12] = _C3D * z * (_TWO * zz - _THREE * (xx + yy))
            basis[13] = -_C3C * x * (_FOUR * zz - xx - yy)
            basis[14], basis[15] = _C3E * z * (xx - yy), -_C3A * x * (xx - _THREE * yy)


@njit(cache=True, inline="always")
def _color(basis, sh, i):
    """Colour of Gaussian ``i`` in float32, not negative."""
    red, green, blue = _HALF, _HALF, _HALF
    for j in range(sh.shape[1]):
        red += basis[j] * sh[i, j, 0]
        green += basis[j] * sh[i, j, 1]
        blue += basis[j] * sh[i, j, 2]
    return max(_ZERO, red), max(_ZERO, green), max(_ZERO, blue)


@njit(cache=True, nogil=True)
def _view_color_kernel(chunk, means, sh, ids, eye, out, column):
    basis = np.empty(16, np.float32)
    for k in range(chunk * _CHUNK, min(len(ids), (chunk + 1) * _CHUNK)):
        i = ids[k]
        if i < 0:
            continue
        x = np.float64(means[i, 0]) - eye[0]
        y = np.float64(means[i, 1]) - eye[1]
        z = np.float64(means[i, 2]) - eye[2]
        # Not zero: the Gaussian lies in front of the near plane.
        scale = 1.0 / sqrt(x * x + y * y + z * z)
        _fill_basis(
            basis, sh.shape[1], np.float32(x * scale), np.float32(y * scale), np.float32(z * scale)
        )
        red, green, blue = _color(basis, sh, i)
        out[k, column], out[k, column + 1], out[k, column + 2] = red, green, blue


def view_colors(
    scene: Scene,
    camera: Camera,
    ids: npt.NDArray[np.int32],
    out: Float32Array,
    column: int,
    workers: Workers,
) -> None:
    """Write the colours of Gaussians ``ids`` as ``camera`` sees them into three columns.

    Linear colours: the sum over the basis plus 0.5, clamped at 0 from below and not from above.
    Error against exact arithmetic: at most 1e-6 times the sum of the magnitudes of the
    coefficients.

    Parameters
    ----------
    scene, camera : Scene, Camera
        What is seen from where; the Gaussians are in front of the camera.
    ids : numpy.ndarray
        Shape [M], int32; negative ones are left out.
    out : numpy.ndarray
        Shape [M, columns], float32.
    column : int
        The column of red; green and blue follow.
    workers : Workers
        The threads to run on.
    """
    workers.run_chunks(
        _view_color_kernel, -(-len(ids) // _CHUNK), scene.means, scene.sh, ids,
        np.ascontiguousarray(camera.position, np.float64), out, column,
    )  # fmt: skip

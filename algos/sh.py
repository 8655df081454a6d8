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

__all__ = ["evaluate_sh"]

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

_TWO = np.float32(2)
_THREE = np.float32(3)
_FOUR = np.float32(4)
_HALF = np.float32(0.5)

# Gaussians per unit of parallel work.
_CHUNK = 8192


@njit(cache=True, inline="always")
def _basis(x, y, z):
    """Basis functions 1 to 15 of a unit direction in float32."""
    xx, yy, zz = x * x, y * y, z * z
    b1, b2, b3 = -_C1 * y, _C1 * z, -_C1 * x
    b4, b5, b6 = _C2A * x * y, -_C2A * y * z, _C2B * (_TWO * zz - xx - yy)
    b7, b8 = -_C2A * x * z, _C2C * (xx - yy)
    b9, b10 = -_C3A * y * (_THREE * xx - yy), _C3B * x * y * z
    b11 = -_C3C * y * (_FOUR * zz - xx - yy)
    b12 = _C3D * z * (_TWO * zz - _THREE * (xx + yy))
    b13, b14 = -_C3C * x * (_FOUR * zz - xx - yy), _C3E * z * (xx - yy)
    b15 = -_C3A * x * (xx - _THREE * yy)
    return b1, b2, b3, b4, b5, b6, b7, b8, b9, b10, b11, b12, b13, b14, b15


@njit(cache=True, inline="always")
def _color(sh, i, x, y, z):
    """Colour of Gaussian ``i`` seen along the unit direction (x, y, z), float32, not negative."""
    k = sh.shape[1]
    r, g, b = _C0 * sh[i, 0, 0], _C0 * sh[i, 0, 1], _C0 * sh[i, 0, 2]
    if k > 1:
        basis = _basis(x, y, z)
        for j in range(3):
            r += basis[j] * sh[i, j + 1, 0]
            g += basis[j] * sh[i, j + 1, 1]
            b += basis[j] * sh[i, j + 1, 2]
        if k > 4:
            for j in range(3, 8):
                r += basis[j] * sh[i, j + 1, 0]
                g += basis[j] * sh[i, j + 1, 1]
                b += basis[j] * sh[i, j + 1, 2]
            if k > 9:
                for j in range(8, 15):
                    r += basis[j] * sh[i, j + 1, 0]
                    g += basis[j] * sh[i, j + 1, 1]
                    b += basis[j] * sh[i, j + 1, 2]
    zero = np.float32(0)
    return max(zero, r + _HALF), max(zero, g + _HALF), max(zero, b + _HALF)


@njit(cache=True, nogil=True)
def _sh_kernel(worker, workers, sh, directions, out):
    n = len(sh)
    for i in range(worker * n // workers, (worker + 1) * n // workers):
        x = np.float64(directions[i, 0])
        y = np.float64(directions[i, 1])
        z = np.float64(directions[i, 2])
        length = sqrt(x * x + y * y + z * z)
        scale = 1.0 / length if length > 0.0 else 0.0
        out[i, 0], out[i, 1], out[i, 2] = _color(
            sh, i, np.float32(x * scale), np.float32(y * scale), np.float32(z * scale)
        )


@njit(cache=True, nogil=True)
def _view_color_kernel(chunk, means, sh, ids, eye, out, column):
    for k in range(chunk * _CHUNK, min(len(ids), (chunk + 1) * _CHUNK)):
        i = ids[k]
        if i < 0:
            continue
        x = np.float64(means[i, 0]) - eye[0]
        y = np.float64(means[i, 1]) - eye[1]
        z = np.float64(means[i, 2]) - eye[2]
        # Not zero: the Gaussian lies in front of the near plane.
        scale = 1.0 / sqrt(x * x + y * y + z * z)
        red, green, blue = _color(
            sh, i, np.float32(x * scale), np.float32(y * scale), np.float32(z * scale)
        )
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


def evaluate_sh(sh: npt.ArrayLike, directions: npt.ArrayLike) -> Float32Array:
    """Colours of Gaussians seen along given directions.

    Parameters
    ----------
    sh : array_like
        Coefficients of shape [N, K, 3] with K in {1, 4, 9, 16}.
    directions : array_like
        From the camera to the Gaussian, shape [N, 3], of any length; of a zero direction only
        the constant term remains.

    Returns
    -------
    numpy.ndarray
        Linear colours of shape [N, 3], float32: the sum over the basis plus 0.5, clamped at 0
        from below and not from above. Error against exact arithmetic: at most
        1e-6 times the sum of the magnitudes of the coefficients.

    Raises
    ------
    ValueError
        If a shape is wrong.
    """
    sh = np.ascontiguousarray(sh, np.float32)
    directions = np.ascontiguousarray(directions)
    if sh.ndim != 3 or sh.shape[1] not in (1, 4, 9, 16) or sh.shape[2] != 3:
        raise ValueError(f"SH coefficients must have shape [N, 1|4|9|16, 3], not {sh.shape!r}")
    if directions.shape != (len(sh), 3):
        raise ValueError(
            f"Directions must have shape [{len(sh)}, 3] like the coefficients,"
            f" not {directions.shape!r}"
        )
    out = np.empty((len(sh), 3), np.float32)
    with Workers() as workers:
        workers.run(_sh_kernel, sh, directions, out)
    return out

"""A scene under a similarity transform: rotation, uniform scale, translation."""

import numpy as np
import numpy.typing as npt

from splatforge.scenes.scene import SH_COEFFICIENTS, Scene

Float64Array = npt.NDArray[np.float64]


def transform(
    scene: Scene,
    rotation: npt.ArrayLike,
    translation: npt.ArrayLike = (0, 0, 0),
    scale: float = 1.0,
) -> Scene:
    """Return ``scene`` rotated, scaled and moved: ``x -> scale * rotation @ x + translation``.

    The spherical harmonics turn with it, so what was seen from a direction is seen from the
    rotated direction.

    Parameters
    ----------
    scene : Scene
        Any scene.
    rotation : array_like
        Rotation matrix of shape [3, 3].
    translation : array_like
        Shape [3].
    scale : float
        Positive.

    Raises
    ------
    ValueError
        ``rotation`` is not a rotation matrix or ``scale`` is not positive.
    """
    matrix = np.asarray(rotation, dtype=np.float64)
    if (
        matrix.shape != (3, 3)
        or not np.allclose(matrix @ matrix.T, np.eye(3), atol=1e-6)
        or np.linalg.det(matrix) < 0
    ):
        raise ValueError(f"Transform rotation must be a rotation matrix, not {rotation!r}")
    if not (np.isfinite(scale) and scale > 0):
        raise ValueError(f"Transform scale must be positive and finite, not {scale!r}")
    sh = scene.sh.copy()
    for degree in range(1, scene.sh_degree + 1):
        band = slice(SH_COEFFICIENTS[degree - 1], SH_COEFFICIENTS[degree])
        turn = band_rotation(matrix, degree).astype(np.float32)
        sh[:, band] = np.einsum("ij,njc->nic", turn, scene.sh[:, band])
    w, x, y, z = _quat(matrix)
    left = np.array([[w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w]])
    with np.errstate(over="ignore"):  # what overflows, the scene refuses
        means = (scene.means @ (scale * matrix).T + np.asarray(translation)).astype(np.float32)
    return Scene(
        means=means,
        log_scales=scene.log_scales + np.float32(np.log(scale)),
        quats=(scene.quats @ left.T).astype(np.float32),
        opacity_logits=scene.opacity_logits,
        sh=sh,
        antialiased=scene.antialiased,
    )


def sh_basis(directions: npt.ArrayLike) -> Float64Array:
    """Return the real spherical-harmonics basis of the 3DGS reference up to degree 3.

    Parameters
    ----------
    directions : array_like
        Unit vectors of shape [N, 3].

    Returns
    -------
    ndarray
        Shape [N, 16], in the order and with the signs of Kerbl et al. (2023).
    """
    x, y, z = np.asarray(directions, dtype=np.float64).T
    xx, yy, zz = x * x, y * y, z * z
    return np.stack(
        [
            np.full_like(x, 0.28209479177387814),
            -0.4886025119029199 * y,
            0.4886025119029199 * z,
            -0.4886025119029199 * x,
            1.0925484305920792 * x * y,
            -1.0925484305920792 * y * z,
            0.31539156525252005 * (2 * zz - xx - yy),
            -1.0925484305920792 * x * z,
            0.5462742152960396 * (xx - yy),
            -0.5900435899266435 * y * (3 * xx - yy),
            2.890611442640554 * x * y * z,
            -0.4570457994644658 * y * (4 * zz - xx - yy),
            0.3731763325901154 * z * (2 * zz - 3 * xx - 3 * yy),
            -0.4570457994644658 * x * (4 * zz - xx - yy),
            1.445305721320277 * z * (xx - yy),
            -0.5900435899266435 * x * (xx - 3 * yy),
        ],
        axis=1,
    )


def band_rotation(rotation: Float64Array, degree: int) -> Float64Array:
    """Return the matrix that turns the SH coefficients of one band as ``rotation`` turns space.

    A band spans its own rotations, so the matrix follows exactly from the basis at a few
    directions in general position.
    """
    band = slice(SH_COEFFICIENTS[degree - 1], SH_COEFFICIENTS[degree])
    i = np.arange(32) + 0.5
    polar, azimuth = np.arccos(1 - 2 * i / 32), np.pi * (1 + 5**0.5) * i
    directions = np.stack(
        [np.cos(azimuth) * np.sin(polar), np.sin(azimuth) * np.sin(polar), np.cos(polar)], axis=1
    )
    # The turned function at d is the old one at R^T d.
    old = sh_basis(directions @ rotation)[:, band]
    return np.linalg.pinv(sh_basis(directions)[:, band]) @ old


def _quat(matrix: Float64Array) -> Float64Array:
    (a, b, c), (d, e, f), (g, h, i) = matrix
    candidates = np.array(
        [
            [1 + a + e + i, h - f, c - g, d - b],
            [h - f, 1 + a - e - i, b + d, c + g],
            [c - g, b + d, 1 - a + e - i, f + h],
            [d - b, c + g, f + h, 1 - a - e + i],
        ]
    )
    quat = candidates[int(np.argmax(np.diag(candidates)))]
    return quat / np.linalg.norm(quat)

"""Gaussians merged into one: the moments of a mixture.

A Gaussian weighs what it covers: its opacity times the product of its two larger standard
deviations, a surface's share of the image from wherever it is seen. The parent has the mean and the
covariance of the mixture of the Gaussians below it, their colour coefficients' mean, and the
opacity with which it covers as much as they do together, or nearly 1 where that is not enough.
"""

from dataclasses import dataclass
from math import exp, log, sqrt

import numpy as np
import numpy.typing as npt
from numba import njit

from splatforge.designs.lod import EXTENT_SIGMAS
from splatforge.scenes import Scene

__all__ = ["SH_COLUMN", "Moments", "boxes", "merge", "moments", "rows_of", "scene_of"]

#: A row of a Gaussian: mean, log scales, quaternion, opacity logit, then SH coefficients.
SH_COLUMN = 11

_OPACITY_LIMITS = (1e-6, 1 - 1e-6)
_VARIANCE_FLOOR = 1e-30
# A Gaussian that covers nothing at all still has a place.
_WEIGHT_FLOOR = 1e-200

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Moments:
    """What of a Gaussian goes into those above it.

    Parameters
    ----------
    weight : numpy.ndarray
        Opacity times area, shape [nodes], float64.
    mean : numpy.ndarray
        Shape [nodes, 3], float64.
    covariance : numpy.ndarray
        xx, xy, xz, yy, yz, zz, shape [nodes, 6], float64.
    """

    weight: Float64Array
    mean: Float64Array
    covariance: Float64Array

    @classmethod
    def allocate(cls, nodes: int) -> "Moments":
        """Moments yet to be written."""
        return cls(weight=np.empty(nodes), mean=np.empty((nodes, 3)),
                   covariance=np.empty((nodes, 6)))


def rows_of(scene: Scene, coefficients: int | None = None) -> Float32Array:
    """Return a scene's Gaussians as rows, shape [gaussians, 11 + 3 K], float32.

    Parameters
    ----------
    scene : Scene
        Any scene.
    coefficients : int, optional
        SH coefficients K of a row, at least those of the scene; further ones are zero.
    """
    present = 3 * scene.sh.shape[1]
    rows = np.zeros((scene.gaussians, SH_COLUMN + 3 * (coefficients or scene.sh.shape[1])),
                    np.float32)
    rows[:, 0:3], rows[:, 3:6], rows[:, 6:10] = scene.means, scene.log_scales, scene.quats
    rows[:, 10] = scene.opacity_logits
    rows[:, SH_COLUMN:SH_COLUMN + present] = scene.sh.reshape(scene.gaussians, present)
    return rows


def scene_of(rows: Float32Array, antialiased: bool) -> Scene:
    """Return the scene of rows that :func:`rows_of` has made."""
    return Scene(
        means=rows[:, 0:3], log_scales=rows[:, 3:6], quats=rows[:, 6:10],
        opacity_logits=rows[:, 10], sh=rows[:, SH_COLUMN:].reshape(len(rows), -1, 3),
        antialiased=antialiased)


def moments(rows: Float32Array) -> Moments:
    """Moments of single Gaussians."""
    found = Moments.allocate(len(rows))
    _moments_kernel(rows, found.weight, found.mean, found.covariance)
    return found


def boxes(rows: Float32Array) -> Float32Array:
    """Boxes of single Gaussians: lower and upper corner, shape [gaussians, 6], float32."""
    found = np.empty((len(rows), 6), np.float32)
    _boxes_kernel(rows, found)
    return found


def merge(first_child: npt.NDArray[np.int32], rows: Float32Array, box: Float32Array,
          known: Moments) -> None:
    """Fill in all nodes of a tree that have children, from the leaves up.

    Parameters
    ----------
    first_child : numpy.ndarray
        As in :class:`splatforge.algos.voyager.split.Cells`.
    rows, box, known :
        Of all nodes; those of leaves are there, the others are written. A parent's box holds those
        of its children.
    """
    _merge_kernel(first_child, rows, box, known.weight, known.mean, known.covariance)


@njit(cache=True, nogil=True)
def _covariance(row, out):
    w, x, y, z = (np.float64(row[6]), np.float64(row[7]), np.float64(row[8]), np.float64(row[9]))
    norm = sqrt(w * w + x * x + y * y + z * z)
    w, x, y, z = w / norm, x / norm, y / norm, z / norm
    v0 = exp(2.0 * np.float64(row[3]))
    v1 = exp(2.0 * np.float64(row[4]))
    v2 = exp(2.0 * np.float64(row[5]))
    r00, r01, r02 = 1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)
    r10, r11, r12 = 2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)
    r20, r21, r22 = 2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)
    out[0] = r00 * r00 * v0 + r01 * r01 * v1 + r02 * r02 * v2
    out[1] = r00 * r10 * v0 + r01 * r11 * v1 + r02 * r12 * v2
    out[2] = r00 * r20 * v0 + r01 * r21 * v1 + r02 * r22 * v2
    out[3] = r10 * r10 * v0 + r11 * r11 * v1 + r12 * r12 * v2
    out[4] = r10 * r20 * v0 + r11 * r21 * v1 + r12 * r22 * v2
    out[5] = r20 * r20 * v0 + r21 * r21 * v1 + r22 * r22 * v2


@njit(cache=True, nogil=True)
def _moments_kernel(rows, weight, mean, covariance):
    for i in range(len(rows)):
        _covariance(rows[i], covariance[i])
        a, b, c = np.float64(rows[i, 3]), np.float64(rows[i, 4]), np.float64(rows[i, 5])
        area = exp(a + b + c - min(a, b, c))
        weight[i] = max(area / (1.0 + exp(-np.float64(rows[i, 10]))), _WEIGHT_FLOOR)
        for axis in range(3):
            mean[i, axis] = rows[i, axis]


@njit(cache=True, nogil=True)
def _boxes_kernel(rows, box):
    covariance = np.empty(6)
    for i in range(len(rows)):
        _covariance(rows[i], covariance)
        for axis in range(3):
            reach = EXTENT_SIGMAS * sqrt(covariance[(0, 3, 5)[axis]])
            box[i, axis] = np.float64(rows[i, axis]) - reach
            box[i, 3 + axis] = np.float64(rows[i, axis]) + reach


@njit(cache=True, nogil=True)
def _eigen(a, v):
    """Eigenvectors of the symmetric matrix ``a`` into the columns of ``v``, by Jacobi rotations.

    ``a`` becomes diagonal, with the eigenvalues.
    """
    for i in range(3):
        for j in range(3):
            v[i, j] = 1.0 if i == j else 0.0
    scale = abs(a[0, 0]) + abs(a[1, 1]) + abs(a[2, 2])
    for _ in range(16):
        if abs(a[0, 1]) + abs(a[0, 2]) + abs(a[1, 2]) <= 1e-15 * scale:
            break
        for p in range(2):
            for q in range(p + 1, 3):
                if a[p, q] == 0.0:
                    continue
                theta = (a[q, q] - a[p, p]) / (2.0 * a[p, q])
                t = 1.0 / (abs(theta) + sqrt(theta * theta + 1.0))
                if theta < 0.0:
                    t = -t
                c = 1.0 / sqrt(t * t + 1.0)
                s = t * c
                for k in range(3):
                    one, other = a[k, p], a[k, q]
                    a[k, p], a[k, q] = c * one - s * other, s * one + c * other
                for k in range(3):
                    one, other = a[p, k], a[q, k]
                    a[p, k], a[q, k] = c * one - s * other, s * one + c * other
                for k in range(3):
                    one, other = v[k, p], v[k, q]
                    v[k, p], v[k, q] = c * one - s * other, s * one + c * other


@njit(cache=True, nogil=True)
def _quaternion(r, out):
    """Quaternion of the rotation ``r``, by a component that is not small."""
    trace = r[0, 0] + r[1, 1] + r[2, 2]
    if trace > 0.0:
        s = 2.0 * sqrt(trace + 1.0)
        w, x = 0.25 * s, (r[2, 1] - r[1, 2]) / s
        y, z = (r[0, 2] - r[2, 0]) / s, (r[1, 0] - r[0, 1]) / s
    elif r[0, 0] > r[1, 1] and r[0, 0] > r[2, 2]:
        s = 2.0 * sqrt(1.0 + r[0, 0] - r[1, 1] - r[2, 2])
        w, x = (r[2, 1] - r[1, 2]) / s, 0.25 * s
        y, z = (r[0, 1] + r[1, 0]) / s, (r[0, 2] + r[2, 0]) / s
    elif r[1, 1] > r[2, 2]:
        s = 2.0 * sqrt(1.0 + r[1, 1] - r[0, 0] - r[2, 2])
        w, x = (r[0, 2] - r[2, 0]) / s, (r[0, 1] + r[1, 0]) / s
        y, z = 0.25 * s, (r[1, 2] + r[2, 1]) / s
    else:
        s = 2.0 * sqrt(1.0 + r[2, 2] - r[0, 0] - r[1, 1])
        w, x = (r[1, 0] - r[0, 1]) / s, (r[0, 2] + r[2, 0]) / s
        y, z = (r[1, 2] + r[2, 1]) / s, 0.25 * s
    out[0], out[1], out[2], out[3] = w, x, y, z


@njit(cache=True, nogil=True)
def _merge_kernel(first_child, rows, box, weight, mean, covariance):
    matrix, axes, quat = np.empty((3, 3)), np.empty((3, 3)), np.empty(4)
    colors = np.empty(rows.shape[1] - SH_COLUMN)
    for node in range(len(rows) - 1, -1, -1):
        first, end = first_child[node], first_child[node + 1]
        if first == end:
            continue
        total = 0.0
        mean[node] = 0.0
        colors[:] = 0.0
        for child in range(first, end):
            total += weight[child]
            for axis in range(3):
                mean[node, axis] += weight[child] * mean[child, axis]
            for i in range(len(colors)):
                colors[i] += weight[child] * np.float64(rows[child, SH_COLUMN + i])
        weight[node] = total
        for axis in range(3):
            mean[node, axis] /= total
            rows[node, axis] = mean[node, axis]
            box[node, axis], box[node, 3 + axis] = box[first, axis], box[first, 3 + axis]
        for i in range(len(colors)):
            rows[node, SH_COLUMN + i] = colors[i] / total
        covariance[node] = 0.0
        for child in range(first, end):
            share = weight[child] / total
            x = mean[child, 0] - mean[node, 0]
            y = mean[child, 1] - mean[node, 1]
            z = mean[child, 2] - mean[node, 2]
            covariance[node, 0] += share * (covariance[child, 0] + x * x)
            covariance[node, 1] += share * (covariance[child, 1] + x * y)
            covariance[node, 2] += share * (covariance[child, 2] + x * z)
            covariance[node, 3] += share * (covariance[child, 3] + y * y)
            covariance[node, 4] += share * (covariance[child, 4] + y * z)
            covariance[node, 5] += share * (covariance[child, 5] + z * z)
            for axis in range(3):
                box[node, axis] = min(box[node, axis], box[child, axis])
                box[node, 3 + axis] = max(box[node, 3 + axis], box[child, 3 + axis])
        matrix[0, 0], matrix[1, 1] = covariance[node, 0], covariance[node, 3]
        matrix[2, 2] = covariance[node, 5]
        matrix[0, 1] = matrix[1, 0] = covariance[node, 1]
        matrix[0, 2] = matrix[2, 0] = covariance[node, 2]
        matrix[1, 2] = matrix[2, 1] = covariance[node, 4]
        _eigen(matrix, axes)
        # A rotation, not a reflection.
        axes[0, 2] = axes[1, 0] * axes[2, 1] - axes[2, 0] * axes[1, 1]
        axes[1, 2] = axes[2, 0] * axes[0, 1] - axes[0, 0] * axes[2, 1]
        axes[2, 2] = axes[0, 0] * axes[1, 1] - axes[1, 0] * axes[0, 1]
        _quaternion(axes, quat)
        a = 0.5 * log(max(matrix[0, 0], _VARIANCE_FLOOR))
        b = 0.5 * log(max(matrix[1, 1], _VARIANCE_FLOOR))
        c = 0.5 * log(max(matrix[2, 2], _VARIANCE_FLOOR))
        rows[node, 3], rows[node, 4], rows[node, 5] = a, b, c
        for i in range(4):
            rows[node, 6 + i] = quat[i]
        opacity = total / exp(a + b + c - min(a, b, c))
        opacity = min(max(opacity, _OPACITY_LIMITS[0]), _OPACITY_LIMITS[1])
        rows[node, 10] = log(opacity / (1.0 - opacity))

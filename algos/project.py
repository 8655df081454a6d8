"""From Gaussians in the world to ellipses on the image: EWA projection and view-dependent colour.

Source: Kerbl et al., "3D Gaussian Splatting for Real-Time Radiance Field Rendering", ACM TOG
42(4), 2023, section 4 and its rasterizer; Zwicker et al., "EWA Volume Splatting", IEEE
Visualization 2001, eq. (31); the opacity compensation of the mip filter is that of Yu et al.,
"Mip-Splatting", CVPR 2024, eq. (9), as the rasterizer's antialiased mode evaluates it.
"""

from dataclasses import dataclass
from math import ceil, exp, floor, sqrt

import numpy as np
import numpy.typing as npt
from numba import njit

from splatforge.algos.sh import view_colors
from splatforge.algos.workers import Workers
from splatforge.scenes import Camera, Scene

__all__ = ["TILE_PX", "Projected", "project"]

Float32Array = npt.NDArray[np.float32]
Int16Array = npt.NDArray[np.int16]
Int32Array = npt.NDArray[np.int32]

#: Edge of the square tiles that share one list of Gaussians, in pixels (Kerbl et al. 2023).
TILE_PX = 16

# Variance in px^2 that the image-space low-pass filter adds along both axes.
_DILATION = 0.3
# The Jacobian is taken at most this far out of the frustum, in units of its half-width.
_FRUSTUM_MARGIN = 0.3
# Floors of the reference: under the square root of the eigenvalue, and of the compensation.
_EIGEN_FLOOR = 0.1
_COMPENSATION_FLOOR = 0.000025
# The largest eigenvalue that the radius rule gives a point: the dilation and the floor's root.
_POINT_VARIANCE = _DILATION + sqrt(_EIGEN_FLOOR)
# A radius this large covers any image; larger ones would not be exact in float32.
_RADIUS_LIMIT = float(1 << 24)

# Gaussians per unit of parallel work: large enough to hide scheduling, small enough to balance.
_CHUNK = 4096

_GEOMETRY_COLUMNS = 10


@dataclass(frozen=True, kw_only=True, eq=False)
class Projected:
    """The Gaussians that meet the image, in the order of the scene.

    Image coordinates are continuous pixels: the centre of pixel (column i, row j) is at
    (i + 0.5, j + 0.5), the image covers [0, width] x [0, height], and the camera's cx, cy are in
    the same coordinates.

    Parameters
    ----------
    ids : numpy.ndarray
        Index into the scene, shape [M], int32, ascending.
    mean_px : numpy.ndarray
        Centres on the image, shape [M, 2], float32, (x, y) in pixels.
    conic : numpy.ndarray
        Inverse of the dilated covariance, shape [M, 3], float32, in 1/px^2: A, B, C of the form
        ``0.5 * (A dx^2 + C dy^2) + B dx dy``.
    depth : numpy.ndarray
        Camera z, shape [M], float32, in scene units, greater than the near plane.
    opacity : numpy.ndarray
        Peak alpha after the sigmoid and, for an antialiased scene, the mip compensation;
        shape [M], float32, in [0, 1].
    color : numpy.ndarray
        Linear colour, shape [M, 3], float32, not negative, not clipped above.
    radius_px : numpy.ndarray
        Half edge of the 3-sigma square, ``ceil(3 sqrt(lambda_max))``, shape [M], int32.
    """

    ids: Int32Array
    mean_px: Float32Array
    conic: Float32Array
    depth: Float32Array
    opacity: Float32Array
    color: Float32Array
    radius_px: Int32Array

    def __len__(self) -> int:
        return len(self.ids)


@njit(cache=True, inline="always")
def _tile_span(center, radius, tiles):
    """First tile and end tile along one axis that [center - radius, center + radius] meets.

    Clipped to ``tiles``.
    """
    first = floor((np.float64(center) - radius) / TILE_PX)
    end = ceil((np.float64(center) + radius) / TILE_PX)
    return int(min(max(first, 0.0), float(tiles))), int(min(max(end, 0.0), float(tiles)))


@njit(cache=True, nogil=True)
def _geometry_kernel(
    chunk, means, log_scales, quats, logits, w2c, fx, fy, cx, cy, width, height, near,
    antialiased, rows, ids, spans, counts,
):  # fmt: skip
    """Project the Gaussians of a chunk; the visible ones go to the front of its rows."""
    tiles_x = (width + TILE_PX - 1) // TILE_PX
    tiles_y = (height + TILE_PX - 1) // TILE_PX
    # The half-widths of the frustum on either side of the axis, widened; for a centred principal
    # point this is 1.3 tan(fov / 2).
    margin_x = _FRUSTUM_MARGIN * 0.5 * width / fx
    margin_y = _FRUSTUM_MARGIN * 0.5 * height / fy
    x_low, x_high = -cx / fx - margin_x, (width - cx) / fx + margin_x
    y_low, y_high = -cy / fy - margin_y, (height - cy) / fy + margin_y
    # The squared norm of the Jacobian over that of its scale, at most.
    spread_limit = 1.0 + max(-x_low, x_high) ** 2 + max(-y_low, y_high) ** 2
    right_edge, bottom_edge = float(tiles_x * TILE_PX), float(tiles_y * TILE_PX)
    r00, r01, r02, t0 = w2c[0, 0], w2c[0, 1], w2c[0, 2], w2c[0, 3]
    r10, r11, r12, t1 = w2c[1, 0], w2c[1, 1], w2c[1, 2], w2c[1, 3]
    r20, r21, r22, t2 = w2c[2, 0], w2c[2, 1], w2c[2, 2], w2c[2, 3]
    slot = chunk * _CHUNK
    for i in range(chunk * _CHUNK, min(len(means), (chunk + 1) * _CHUNK)):
        # Everything in float64: it costs little, and 500 m from the origin float32 would
        # lose a tenth of a pixel in the view transform alone.
        px, py, pz = np.float64(means[i, 0]), np.float64(means[i, 1]), np.float64(means[i, 2])
        z = r20 * px + r21 * py + r22 * pz + t2
        if not z > near:
            continue
        x = r00 * px + r01 * py + r02 * pz + t0
        y = r10 * px + r11 * py + r12 * pz + t1
        inv_z = 1.0 / z
        tx, ty = x * inv_z, y * inv_z
        mx, my = np.float32(fx * tx + cx), np.float32(fy * ty + cy)
        jx, jy = fx * inv_z, fy * inv_z
        if not (0.0 < mx < right_edge and 0.0 < my < bottom_edge):
            # Most of what misses the image misses it by far: a bound on the radius from the
            # largest scale alone spares the rotation, two exp and the rest.
            scale = exp(np.float64(max(log_scales[i, 0], log_scales[i, 1], log_scales[i, 2])))
            stretch = max(jx, jy) * scale
            bound = 3.0 * sqrt(stretch * stretch * spread_limit + _POINT_VARIANCE) + 1.0
            if not (-bound < mx < right_edge + bound and -bound < my < bottom_edge + bound):
                continue
        jxz = -jx * min(x_high, max(x_low, tx))
        jyz = -jy * min(y_high, max(y_low, ty))
        # J W, a 2 x 3 matrix.
        u0, u1, u2 = jx * r00 + jxz * r20, jx * r01 + jxz * r21, jx * r02 + jxz * r22
        v0, v1, v2 = jy * r10 + jyz * r20, jy * r11 + jyz * r21, jy * r12 + jyz * r22
        qw, qx = np.float64(quats[i, 0]), np.float64(quats[i, 1])
        qy, qz = np.float64(quats[i, 2]), np.float64(quats[i, 3])
        norm = qw * qw + qx * qx + qy * qy + qz * qz
        # A zero quaternion is no rotation, as in the reference, whose formula turns it so.
        two = 2.0 / norm if norm > 0.0 else 0.0
        s0 = exp(np.float64(log_scales[i, 0]))
        s1 = exp(np.float64(log_scales[i, 1]))
        s2 = exp(np.float64(log_scales[i, 2]))
        m00 = (1.0 - two * (qy * qy + qz * qz)) * s0
        m01 = two * (qx * qy - qw * qz) * s1
        m02 = two * (qx * qz + qw * qy) * s2
        m10 = two * (qx * qy + qw * qz) * s0
        m11 = (1.0 - two * (qx * qx + qz * qz)) * s1
        m12 = two * (qy * qz - qw * qx) * s2
        m20 = two * (qx * qz - qw * qy) * s0
        m21 = two * (qy * qz + qw * qx) * s1
        m22 = (1.0 - two * (qx * qx + qy * qy)) * s2
        # J W R S, whose Gram matrix is the covariance on the image.
        g0 = u0 * m00 + u1 * m10 + u2 * m20
        g1 = u0 * m01 + u1 * m11 + u2 * m21
        g2 = u0 * m02 + u1 * m12 + u2 * m22
        h0 = v0 * m00 + v1 * m10 + v2 * m20
        h1 = v0 * m01 + v1 * m11 + v2 * m21
        h2 = v0 * m02 + v1 * m12 + v2 * m22
        xx = g0 * g0 + g1 * g1 + g2 * g2
        xy = g0 * h0 + g1 * h1 + g2 * h2
        yy = h0 * h0 + h1 * h1 + h2 * h2
        # The determinant as the squared cross product: a c - b^2 would cancel for needles.
        e0, e1, e2 = g1 * h2 - g2 * h1, g2 * h0 - g0 * h2, g0 * h1 - g1 * h0
        det_sharp = e0 * e0 + e1 * e1 + e2 * e2
        det = det_sharp + _DILATION * (xx + yy) + _DILATION * _DILATION
        xx += _DILATION
        yy += _DILATION
        half_difference = 0.5 * (xx - yy)
        spread = sqrt(max(_EIGEN_FLOOR, half_difference * half_difference + xy * xy))
        radius = min(ceil(3.0 * sqrt(0.5 * (xx + yy) + spread)), _RADIUS_LIMIT)
        if not det < np.inf:
            continue
        first_x, end_x = _tile_span(mx, radius, tiles_x)
        first_y, end_y = _tile_span(my, radius, tiles_y)
        if first_x >= end_x or first_y >= end_y:
            continue
        opacity = 1.0 / (1.0 + exp(-np.float64(logits[i])))
        if antialiased:
            opacity *= sqrt(max(_COMPENSATION_FLOOR, det_sharp / det))
        inv_det = 1.0 / det
        rows[slot, 0], rows[slot, 1] = mx, my
        rows[slot, 2], rows[slot, 3], rows[slot, 4] = yy * inv_det, -xy * inv_det, xx * inv_det
        rows[slot, 5], rows[slot, 6], rows[slot, 7] = opacity, z, radius
        rows[slot, 8], rows[slot, 9] = xx, yy
        spans[slot, 0], spans[slot, 1] = first_x, first_y
        spans[slot, 2], spans[slot, 3] = end_x, end_y
        ids[slot] = i
        slot += 1
    counts[chunk] = slot - chunk * _CHUNK


@njit(cache=True, nogil=True)
def _gather_kernel(
    chunk, rows, row_ids, starts, ids, mean_px, conic, depth, opacity, radius_px
):  # fmt: skip
    row = chunk * _CHUNK
    for k in range(starts[chunk], starts[chunk + 1]):
        ids[k] = row_ids[row]
        mean_px[k, 0], mean_px[k, 1] = rows[row, 0], rows[row, 1]
        conic[k, 0], conic[k, 1], conic[k, 2] = rows[row, 2], rows[row, 3], rows[row, 4]
        opacity[k], depth[k] = rows[row, 5], rows[row, 6]
        radius_px[k] = int(rows[row, 7])
        row += 1


@njit(cache=True, nogil=True)
def _span_kernel(worker, workers, mean_px, radius_px, tiles_x, tiles_y, spans):
    n = len(radius_px)
    for i in range(worker * n // workers, (worker + 1) * n // workers):
        spans[i, 0], spans[i, 2] = _tile_span(mean_px[i, 0], float(radius_px[i]), tiles_x)
        spans[i, 1], spans[i, 3] = _tile_span(mean_px[i, 1], float(radius_px[i]), tiles_y)


def tile_spans(
    mean_px: Float32Array, radius_px: Int32Array, tiles_x: int, tiles_y: int, workers: Workers
) -> Int16Array:
    """Tiles that 3-sigma squares meet: x first, y first, x end, y end; shape [M, 4]."""
    spans = np.empty((len(radius_px), 4), np.int16)
    workers.run(_span_kernel, mean_px, radius_px, tiles_x, tiles_y, spans)
    return spans


@dataclass(frozen=True, kw_only=True, eq=False)
class Geometry:
    """What the projection kernel leaves: visible Gaussians at the front of each chunk.

    Parameters
    ----------
    rows : numpy.ndarray
        Shape [N, 10], float32: mean x, y; conic A, B, C; opacity; depth; radius; dilated
        covariance xx, yy.
    ids : numpy.ndarray
        Index into the scene, shape [N], int32.
    spans : numpy.ndarray
        Tiles that the 3-sigma square meets, shape [N, 4], int16: x first, y first, x end, y end.
    starts : numpy.ndarray
        Shape [chunks + 1], int64: chunk c holds the visible Gaussians ``starts[c]`` to
        ``starts[c + 1]``, in the rows from ``c * chunk`` on; what follows them is not written.
    chunk : int
        Rows per chunk.
    """

    rows: Float32Array
    ids: Int32Array
    spans: Int16Array
    starts: npt.NDArray[np.int64]
    chunk: int = _CHUNK

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return len(self.starts) - 1

    @property
    def visible(self) -> int:
        """Number of visible Gaussians."""
        return int(self.starts[-1])


def project_geometry(scene: Scene, camera: Camera, workers: Workers) -> Geometry:
    """Project without colours: the step that :func:`project` and the renderer share."""
    n = scene.gaussians
    chunks = -(-n // _CHUNK)
    # Pages of these that hold no visible Gaussian are never touched, hence never allocated.
    rows = np.empty((n, _GEOMETRY_COLUMNS), np.float32)
    ids = np.empty(n, np.int32)
    spans = np.empty((n, 4), np.int16)
    counts = np.zeros(chunks, np.int64)
    workers.run_chunks(
        _geometry_kernel, chunks, scene.means, scene.log_scales, scene.quats,
        scene.opacity_logits, np.ascontiguousarray(camera.w2c, np.float64),
        float(camera.fx), float(camera.fy), float(camera.cx), float(camera.cy),
        int(camera.width), int(camera.height), float(camera.near), bool(scene.antialiased),
        rows, ids, spans, counts,
    )  # fmt: skip
    starts = np.zeros(chunks + 1, np.int64)
    np.cumsum(counts, out=starts[1:])
    return Geometry(rows=rows, ids=ids, spans=spans, starts=starts)


def project(scene: Scene, camera: Camera) -> Projected:
    """Project a scene onto a camera's image plane.

    Kept are the Gaussians in front of the near plane whose 3-sigma square (the tiles it lists,
    see :func:`splatforge.algos.bin_tiles.bin_tiles`) meets the image.

    Parameters
    ----------
    scene : Scene
        The Gaussians; a zero quaternion means no rotation.
    camera : Camera
        The pinhole camera. The Jacobian is taken no farther out than 0.3 half-widths beyond the
        image's edge, which for a centred principal point is the reference's 1.3 tan(fov / 2).

    Returns
    -------
    Projected
        The visible Gaussians in the order of the scene.

    Notes
    -----
    Computed in float64 and rounded once to float32, the determinant without cancellation: the
    relative error of a conic is 1e-7, that of a mean half a float32 ulp (6e-5 px at x = 1920).
    A covariance that overflows float64 is dropped, so that no NaN leaves this function.
    """
    with Workers() as workers:
        geometry = project_geometry(scene, camera, workers)
        m = geometry.visible
        projected = Projected(
            ids=np.empty(m, np.int32),
            mean_px=np.empty((m, 2), np.float32),
            conic=np.empty((m, 3), np.float32),
            depth=np.empty(m, np.float32),
            opacity=np.empty(m, np.float32),
            color=np.empty((m, 3), np.float32),
            radius_px=np.empty(m, np.int32),
        )
        workers.run_chunks(
            _gather_kernel, geometry.chunks, geometry.rows, geometry.ids, geometry.starts,
            projected.ids, projected.mean_px, projected.conic, projected.depth,
            projected.opacity, projected.radius_px,
        )  # fmt: skip
        view_colors(scene, camera, projected.ids, projected.color, 0, workers)
    return projected

"""Gradients of the float reference: from a loss on the picture back to the Gaussians.

Differentiated are colour (all SH coefficients), opacity, scales and rotation; centres are taken as
fixed, which is what fine-tuning a trained scene for an accelerator asks for. The order in which a
tile blends its list is an input: depth order by default, or the order of a streaming accelerator.

Source: the chain of derivatives is that of Kerbl et al., "3D Gaussian Splatting for Real-Time
Radiance Field Rendering", ACM TOG 42(4), 2023, appendix A. Its rasterizer walks every pixel's list
backwards and divides the transmittance by what it meets; here a pixel knows its final colour c
and walks forward again. With g the gradient of the loss by the pixel, what is still behind entry i
weighs ``g . c`` less what has been blended, so that ::

    d loss / d alpha_i = T_i g . color_i - (what is behind i) / (1 - alpha_i)

needs no list of its own, meets the same decisions as the picture did, bit for bit, and stops
where the picture stopped.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import exp, floor, sqrt

import llvmlite.ir as ll
import numpy as np
import numpy.typing as npt
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from splatforge.algos import project as project_algorithm
from splatforge.algos import rasterize as rasterize_algorithm
from splatforge.algos import sh as sh_algorithm
from splatforge.algos.bin_tiles import TileLists, list_spans
from splatforge.algos.compiled import source_digest
from splatforge.algos.project import (
    _COMPENSATION_FLOOR,
    _DILATION,
    _FRUSTUM_MARGIN,
    TILE_PX,
    project_geometry,
)
from splatforge.algos.rasterize import (
    _A,
    _ALPHA_MAX,
    _ALPHA_MIN,
    _B,
    _BATCH,
    _BLUE,
    _C,
    _CHORD,
    _CURVE,
    _GREEN,
    _HALF,
    _LANES,
    _MX,
    _MY,
    _ONE,
    _OPACITY,
    _PAD,
    _PLANE,
    _REACH_Y,
    _RED,
    _ROWS,
    _SHEAR,
    _T_MIN,
    _TILES,
    _ZERO,
    _each_row,
    _Footprint,
    _gep,
    _Lanes,
    _live_rows,
    _reached_rows,
    blend_tiles,
    pack_records,
)
from splatforge.algos.sh import _fill_basis
from splatforge.algos.sort import sort_depths
from splatforge.algos.workers import Workers
from splatforge.scenes import Camera, Scene

__all__ = ["Gradients", "Order", "Trace", "gradients", "trace"]

Float32Array = npt.NDArray[np.float32]
Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]

# Sums per entry: one store of a vector each. Of g times the weight for red, green and blue; of
# p = d loss / d power, p dx^2, p dx dy, p dy^2; of pixels.
_SUMS = _LANES
_SUM_POWER, _SUM_XX, _SUM_XY, _SUM_YY, _SUM_PIXELS = range(3, _SUMS)
# A pixel counts 1, a late one 4096 more: a tile's 256 stay exact, and apart, in a float32.
_LATE = 4096.0
# Planes of a tile's state: gradient by red, green and blue; transmittance; what is behind; the
# largest depth blended so far.
_STATE_PLANES = 6
# Gaussians per unit of parallel work.
_CHUNK = 1024


@dataclass(frozen=True, kw_only=True, eq=False)
class Trace:
    """A rendered frame with what :func:`gradients` needs of it.

    Parameters
    ----------
    scene, camera : Scene, Camera
        What was drawn from where.
    image : numpy.ndarray
        Linear colour of shape [height, width, 3], float32, background included.
    transmittance : numpy.ndarray
        What of the background is seen, shape [height, width], float32.
    ids : numpy.ndarray
        Index into the scene of each projected Gaussian, shape [M], int32; -1 for one that no
        tile lists.
    depth : numpy.ndarray
        Its camera z, shape [M], float32.
    lists : TileLists
        The entries of every tile, indices into the M, in the order in which they were blended.
    records : numpy.ndarray
        What is blended, shape [M, 16], float32; private to the renderer.
    """

    scene: Scene
    camera: Camera
    image: Float32Array
    transmittance: Float32Array
    ids: Int32Array
    depth: Float32Array
    lists: TileLists
    records: Float32Array


#: Takes the camera and, of a frame, the ids [M] and depths [M] of the projected Gaussians and the
#: lists in depth order; returns lists with the entries as they are to be blended. It may leave
#: entries out; it must not add any.
Order = Callable[[Camera, Int32Array, Float32Array, TileLists], TileLists]


@dataclass(frozen=True, kw_only=True, eq=False)
class Gradients:
    """Derivatives of a loss by the parameters of the Gaussians that a frame lists.

    All float32, in the units in which :class:`splatforge.scenes.Scene` keeps the parameters.

    Parameters
    ----------
    ids : numpy.ndarray
        Index into the scene, shape [V], int32, ascending; the other Gaussians have no part in
        the frame and derivatives of zero.
    log_scales : numpy.ndarray
        Shape [V, 3].
    quats : numpy.ndarray
        Shape [V, 4]; at right angles to the quaternion, whose length does not matter.
    opacity_logits : numpy.ndarray
        Shape [V].
    sh : numpy.ndarray
        Shape [V, K, 3].
    pixels : numpy.ndarray
        No derivative: in how many pixels the Gaussian was blended, shape [V], int32. Zero if it
        was listed and never blended.
    late : numpy.ndarray
        In how many of them a deeper one had been blended before, shape [V], int32. Zero in depth
        order, by definition.
    """

    ids: Int32Array
    log_scales: Float32Array
    quats: Float32Array
    opacity_logits: Float32Array
    sh: Float32Array
    pixels: Int32Array
    late: Int32Array

    def __len__(self) -> int:
        return len(self.ids)


@intrinsic
def _gradient_rows(
    typingctx, state, sums, at, column, rows, px, py, mx, my, a, b, c, opacity, red, green, blue,
    depth,
):  # fmt: skip
    """Blend one Gaussian as ``_blend_rows`` does, and add to the sums of its entry.

    ``state`` is the flat float32 state of a tile, ``sums[at:at + 8]`` the sums. Returns 0.
    """
    signature = types.int64(
        state, sums, types.int64, types.int64, types.int64, *[types.float32] * 12
    )

    def codegen(context, builder, signature, args):
        i64 = ll.IntType(64)
        state, sums = (
            context.make_array(kind)(context, builder, value)
            for kind, value in zip(signature.args[:2], args[:2], strict=True)
        )
        at, column, rows, *place, opacity, red, green, blue, depth = args[2:]
        opacity, depth, *color = [
            _Lanes.splat(builder, scalar, _LANES) for scalar in (opacity, depth, red, green, blue)
        ]
        footprint = _Footprint(builder, *place)
        vector = ll.VectorType(ll.FloatType(), _LANES)
        # Three channels; p, p dy and p dy^2; pixels. They end up in registers.
        slots = [
            cgutils.alloca_once_value(builder, ll.Constant(vector, [0.0] * _LANES))
            for _ in range(7)
        ]

        def gain(index, amount):
            so_far = _Lanes(builder, builder.load(slots[index]))
            builder.store((so_far + amount).value, slots[index])

        late = _Lanes(builder, ll.Constant(vector, [1.0 + _LATE] * _LANES))
        with _each_row(builder, rows) as row:
            offset = builder.add(builder.mul(row, ll.Constant(i64, TILE_PX)), column)

            def plane(index, offset=offset):
                return _gep(builder, state, builder.add(offset, ll.Constant(i64, index * _PLANE)))

            power, dy = footprint.power(row)
            peak = opacity * power.minimum(0.0).exp()
            alpha = peak.minimum(_ALPHA_MAX)
            t = _Lanes.load(builder, plane(3), _LANES)
            clear = 1.0 - alpha
            after = t * clear
            seen = builder.and_(power <= 0.0, alpha >= _ALPHA_MIN)
            blend = builder.and_(seen, after >= _T_MIN)
            weight = (alpha * t).select(blend, 0.0)
            after.select(blend, t.negative_where(seen)).store(plane(3))
            by_color = [_Lanes.load(builder, plane(index), _LANES) for index in range(3)]
            for index, by_channel in enumerate(by_color):
                gain(index, weight * by_channel)
            dot = by_color[0] * color[0]
            for by_channel, channel in zip(by_color[1:], color[1:], strict=True):
                dot = by_channel.fma(channel, dot)
            behind = _Lanes.load(builder, plane(4), _LANES) - weight * dot
            behind.store(plane(4))
            # By the power: alpha times what alpha changes; nothing where alpha is clipped.
            change = (weight * dot - alpha * (behind / clear)).select(
                builder.and_(blend, peak <= _ALPHA_MAX), 0.0
            )
            gain(3, change)
            gain(4, change * dy)
            gain(5, change * dy * dy)
            deepest = _Lanes.load(builder, plane(5), _LANES)
            gain(6, late.select(deepest > depth, 1.0).select(blend, 0.0))
            depth.select(builder.and_(blend, depth > deepest), deepest).store(plane(5))
        reds, greens, blues, zeroth, first, second, pixels = (
            _Lanes(builder, builder.load(slot)) for slot in slots
        )
        dx = footprint.dx
        total = _transposed_sums(
            [reds, greens, blues, zeroth, zeroth * dx * dx, first * dx, second, pixels]
        )
        pointer = _gep(builder, sums, at)
        (_Lanes.load(builder, pointer, _LANES) + total).store(pointer)
        return ll.Constant(i64, 0)

    return signature, codegen


def _transposed_sums(vectors: list[_Lanes]) -> _Lanes:
    """Lane i of the result is the sum over the lanes of vector i; as many vectors as lanes."""
    builder, count = vectors[0].builder, len(vectors)
    mask_type = ll.VectorType(ll.IntType(32), count)
    span = 1
    while len(vectors) > 1:
        # Of each pair, neighbours `span` apart are added; the two results interleave.
        even = [
            first + i * count + lane
            for first in range(0, count, 2 * span)
            for i in (0, 1)
            for lane in range(span)
        ]
        odd = [lane + span for lane in even]
        vectors = [
            _Lanes(builder, builder.shuffle_vector(x.value, y.value, ll.Constant(mask_type, even)))
            + _Lanes(builder, builder.shuffle_vector(x.value, y.value, ll.Constant(mask_type, odd)))
            for x, y in zip(vectors[::2], vectors[1::2], strict=True)
        ]
        span *= 2
    return vectors[0]


def _compile_tiles(digest: str):
    """Kernel of the tiles, for the sources that `digest` stands for."""

    @njit(cache=True, nogil=True)
    def kernel(
        chunk, tile_order, starts, entries, records, depth, tiles_x, image, image_gradient, sums
    ):  # fmt: skip
        """Sums of the entries of a chunk of ``tile_order``; the walk is that of the blend."""
        digest  # noqa: B018 - a part of the key under which numba keeps this kernel
        height, width = image.shape[:2]
        state_flat = np.empty(_STATE_PLANES * _PLANE, np.float32)
        state = state_flat.reshape(_STATE_PLANES, TILE_PX, TILE_PX)
        reached = np.empty(_BATCH, np.int64)
        sums_flat = sums.reshape(-1)
        for turn in range(chunk * _TILES, min(len(tile_order), (chunk + 1) * _TILES)):
            tile = tile_order[turn]
            begin, end = starts[tile], starts[tile + 1]
            x0, y0 = (tile % tiles_x) * TILE_PX, (tile // tiles_x) * TILE_PX
            columns, rows = min(TILE_PX, width - x0), min(TILE_PX, height - y0)
            sums[begin:end] = _ZERO
            state_flat[:] = _ZERO
            for y in range(TILE_PX):
                for x in range(TILE_PX):
                    if x < columns and y < rows:
                        behind = _ZERO
                        for channel in range(3):
                            by_channel = image_gradient[y0 + y, x0 + x, channel]
                            state[channel, y, x] = by_channel
                            behind += by_channel * image[y0 + y, x0 + x, channel]
                        state[3, y, x], state[4, y, x] = _ONE, behind
                    else:
                        state[3, y, x] = -_ONE
            for batch in range(begin, end, _BATCH):
                # numba supplies the typing context, which pyright takes for an argument.
                live_rows = _live_rows(state_flat)  # pyright: ignore[reportCallIssue]
                if live_rows == 0:
                    break
                batch_end = min(end, batch + _BATCH)
                for k in range(batch, batch_end):
                    i = entries[k]
                    reached[k - batch] = live_rows & _reached_rows(
                        records[i, _MX] - np.float32(x0), records[i, _MY] - np.float32(y0),
                        records[i, _REACH_Y], records[i, _SHEAR], records[i, _CHORD],
                        records[i, _CURVE], records[i, _PAD],
                    )  # fmt: skip
                for k in range(batch, batch_end):
                    i = entries[k]
                    left = reached[k - batch]
                    while left != 0:
                        column = 0 if left & _ROWS != 0 else _LANES
                        mask = left & _ROWS if column == 0 else left >> TILE_PX
                        left = left & ~np.int64(_ROWS) if column == 0 else 0
                        _gradient_rows(
                            state_flat, sums_flat, k * _SUMS, column, mask,
                            np.float32(x0 + column) + _HALF, np.float32(y0) + _HALF,
                            records[i, _MX], records[i, _MY], records[i, _A], records[i, _B],
                            records[i, _C], records[i, _OPACITY], records[i, _RED],
                            records[i, _GREEN], records[i, _BLUE], depth[i],
                        )  # fmt: skip

    return kernel


@njit(cache=True)
def _places_kernel(entries, starts, places):
    """Sort the places of the entries by Gaussian, in tile order; ``starts`` [M + 1] as lists."""
    starts[:] = 0
    for place in range(len(entries)):
        starts[entries[place] + 1] += 1
    for i in range(1, len(starts)):
        starts[i] += starts[i - 1]
    for place in range(len(entries)):
        i = entries[place]
        places[starts[i]] = place
        starts[i] += 1
    for i in range(len(starts) - 1, 0, -1):
        starts[i] = starts[i - 1]
    starts[0] = 0


def _compile_parameters(digest: str):
    """Kernel of the parameters, for the sources that `digest` stands for."""

    @njit(cache=True, nogil=True)
    def kernel(
        chunk, rows, ids, starts, places, sums, records, means, log_scales, quats, logits, sh_in,
        w2c, eye, fx, fy, cx, cy, width, height, antialiased,
        by_log_scales, by_quats, by_logits, by_sh, pixels, late,
    ):  # fmt: skip
        """From the sums of a Gaussian's entries to its parameters: the projection backwards."""
        digest  # noqa: B018 - a part of the key under which numba keeps this kernel
        basis = np.empty(16, np.float32)
        total = np.empty(_SUMS, np.float64)
        margin_x = _FRUSTUM_MARGIN * 0.5 * width / fx
        margin_y = _FRUSTUM_MARGIN * 0.5 * height / fy
        x_low, x_high = -cx / fx - margin_x, (width - cx) / fx + margin_x
        y_low, y_high = -cy / fy - margin_y, (height - cy) / fy + margin_y
        r00, r01, r02, t0 = w2c[0, 0], w2c[0, 1], w2c[0, 2], w2c[0, 3]
        r10, r11, r12, t1 = w2c[1, 0], w2c[1, 1], w2c[1, 2], w2c[1, 3]
        r20, r21, r22, t2 = w2c[2, 0], w2c[2, 1], w2c[2, 2], w2c[2, 3]
        coefficients = sh_in.shape[1]
        for v in range(chunk * _CHUNK, min(len(rows), (chunk + 1) * _CHUNK)):
            k = rows[v]
            i = ids[k]
            total[:] = 0.0
            late_pixels = 0.0
            for at in range(starts[k], starts[k + 1]):
                for j in range(_SUMS):
                    total[j] += sums[places[at], j]
                late_pixels += floor(sums[places[at], _SUM_PIXELS] * (1.0 / _LATE))
            pixels[v] = int(total[_SUM_PIXELS] - _LATE * late_pixels)
            late[v] = int(late_pixels)
            px, py, pz = np.float64(means[i, 0]), np.float64(means[i, 1]), np.float64(means[i, 2])

            # Colour: linear in the coefficients but for the floor at 0.
            ex, ey, ez = px - eye[0], py - eye[1], pz - eye[2]
            scale = 1.0 / sqrt(ex * ex + ey * ey + ez * ez)
            _fill_basis(
                basis, coefficients, np.float32(ex * scale), np.float32(ey * scale),
                np.float32(ez * scale),
            )  # fmt: skip
            for channel in range(3):
                by_color = total[channel] if records[k, _RED + channel] > 0.0 else 0.0
                for j in range(coefficients):
                    by_sh[v, j, channel] = by_color * basis[j]

            # The projection again, as forward: J W, R and S.
            z = r20 * px + r21 * py + r22 * pz + t2
            x = r00 * px + r01 * py + r02 * pz + t0
            y = r10 * px + r11 * py + r12 * pz + t1
            inv_z = 1.0 / z
            jx, jy = fx * inv_z, fy * inv_z
            jxz = -jx * min(x_high, max(x_low, x * inv_z))
            jyz = -jy * min(y_high, max(y_low, y * inv_z))
            u0, u1, u2 = jx * r00 + jxz * r20, jx * r01 + jxz * r21, jx * r02 + jxz * r22
            v0, v1, v2 = jy * r10 + jyz * r20, jy * r11 + jyz * r21, jy * r12 + jyz * r22
            qw, qx = np.float64(quats[i, 0]), np.float64(quats[i, 1])
            qy, qz = np.float64(quats[i, 2]), np.float64(quats[i, 3])
            norm = sqrt(qw * qw + qx * qx + qy * qy + qz * qz)
            unit = 1.0 / norm if norm > 0.0 else 0.0
            qw, qx, qy, qz = qw * unit, qx * unit, qy * unit, qz * unit
            s0 = exp(np.float64(log_scales[i, 0]))
            s1 = exp(np.float64(log_scales[i, 1]))
            s2 = exp(np.float64(log_scales[i, 2]))
            m00 = (1.0 - 2.0 * (qy * qy + qz * qz)) * s0
            m01 = 2.0 * (qx * qy - qw * qz) * s1
            m02 = 2.0 * (qx * qz + qw * qy) * s2
            m10 = 2.0 * (qx * qy + qw * qz) * s0
            m11 = (1.0 - 2.0 * (qx * qx + qz * qz)) * s1
            m12 = 2.0 * (qy * qz - qw * qx) * s2
            m20 = 2.0 * (qx * qz - qw * qy) * s0
            m21 = 2.0 * (qy * qz + qw * qx) * s1
            m22 = (1.0 - 2.0 * (qx * qx + qy * qy)) * s2
            g0 = u0 * m00 + u1 * m10 + u2 * m20
            g1 = u0 * m01 + u1 * m11 + u2 * m21
            g2 = u0 * m02 + u1 * m12 + u2 * m22
            h0 = v0 * m00 + v1 * m10 + v2 * m20
            h1 = v0 * m01 + v1 * m11 + v2 * m21
            h2 = v0 * m02 + v1 * m12 + v2 * m22
            xx = g0 * g0 + g1 * g1 + g2 * g2
            xy = g0 * h0 + g1 * h1 + g2 * h2
            yy = h0 * h0 + h1 * h1 + h2 * h2
            e0, e1, e2 = g1 * h2 - g2 * h1, g2 * h0 - g0 * h2, g0 * h1 - g1 * h0
            det_sharp = e0 * e0 + e1 * e1 + e2 * e2
            det = det_sharp + _DILATION * (xx + yy) + _DILATION * _DILATION
            inv_det = 1.0 / det
            conic_a, conic_b, conic_c = (
                (yy + _DILATION) * inv_det, -xy * inv_det, (xx + _DILATION) * inv_det
            )  # fmt: skip

            # By the covariance: -V H V, with V the conic and H the derivative by it.
            ha, hb, hc = -0.5 * total[_SUM_XX], -0.5 * total[_SUM_XY], -0.5 * total[_SUM_YY]
            p00, p01 = ha * conic_a + hb * conic_b, ha * conic_b + hb * conic_c
            p10, p11 = hb * conic_a + hc * conic_b, hb * conic_b + hc * conic_c
            c00 = -(conic_a * p00 + conic_b * p10)
            c01 = -(conic_a * p01 + conic_b * p11)
            c11 = -(conic_b * p01 + conic_c * p11)
            bg0, bg1, bg2 = (
                2.0 * (c00 * g0 + c01 * h0), 2.0 * (c00 * g1 + c01 * h1),
                2.0 * (c00 * g2 + c01 * h2),
            )  # fmt: skip
            bh0, bh1, bh2 = (
                2.0 * (c01 * g0 + c11 * h0), 2.0 * (c01 * g1 + c11 * h1),
                2.0 * (c01 * g2 + c11 * h2),
            )  # fmt: skip

            # By the opacity; what it is compensated by depends on g and h, too.
            sigmoid = 1.0 / (1.0 + exp(-np.float64(logits[i])))
            by_logits[v] = total[_SUM_POWER] * (1.0 - sigmoid)
            if antialiased and det_sharp > _COMPENSATION_FLOOR * det:
                # log of the compensation: (log det_sharp - log det) / 2.
                by_sharp = 0.5 * total[_SUM_POWER] * (1.0 / det_sharp - inv_det)
                by_trace = -0.5 * total[_SUM_POWER] * _DILATION * inv_det
                bg0 += 2.0 * (by_sharp * (h1 * e2 - h2 * e1) + by_trace * g0)
                bg1 += 2.0 * (by_sharp * (h2 * e0 - h0 * e2) + by_trace * g1)
                bg2 += 2.0 * (by_sharp * (h0 * e1 - h1 * e0) + by_trace * g2)
                bh0 += 2.0 * (by_sharp * (e1 * g2 - e2 * g1) + by_trace * h0)
                bh1 += 2.0 * (by_sharp * (e2 * g0 - e0 * g2) + by_trace * h1)
                bh2 += 2.0 * (by_sharp * (e0 * g1 - e1 * g0) + by_trace * h2)

            # By M = R S.
            b00, b01, b02 = u0 * bg0 + v0 * bh0, u0 * bg1 + v0 * bh1, u0 * bg2 + v0 * bh2
            b10, b11, b12 = u1 * bg0 + v1 * bh0, u1 * bg1 + v1 * bh1, u1 * bg2 + v1 * bh2
            b20, b21, b22 = u2 * bg0 + v2 * bh0, u2 * bg1 + v2 * bh1, u2 * bg2 + v2 * bh2
            by_log_scales[v, 0] = b00 * m00 + b10 * m10 + b20 * m20
            by_log_scales[v, 1] = b01 * m01 + b11 * m11 + b21 * m21
            by_log_scales[v, 2] = b02 * m02 + b12 * m12 + b22 * m22
            b00, b10, b20 = b00 * s0, b10 * s0, b20 * s0
            b01, b11, b21 = b01 * s1, b11 * s1, b21 * s1
            b02, b12, b22 = b02 * s2, b12 * s2, b22 * s2
            bw = 2.0 * (qx * (b21 - b12) + qy * (b02 - b20) + qz * (b10 - b01))
            bx = 2.0 * (
                qw * (b21 - b12) - 2.0 * qx * (b11 + b22) + qy * (b01 + b10) + qz * (b02 + b20)
            )
            by = 2.0 * (
                qw * (b02 - b20) + qx * (b01 + b10) - 2.0 * qy * (b00 + b22) + qz * (b12 + b21)
            )
            bz = 2.0 * (
                qw * (b10 - b01) + qx * (b02 + b20) + qy * (b12 + b21) - 2.0 * qz * (b00 + b11)
            )
            along = bw * qw + bx * qx + by * qy + bz * qz
            by_quats[v, 0] = (bw - along * qw) * unit
            by_quats[v, 1] = (bx - along * qx) * unit
            by_quats[v, 2] = (by - along * qy) * unit
            by_quats[v, 3] = (bz - along * qz) * unit

    return kernel


_tiles_kernel = _compile_tiles(source_digest(rasterize_algorithm))
_parameters_kernel = _compile_parameters(source_digest(sh_algorithm, project_algorithm))


def trace(
    scene: Scene,
    camera: Camera,
    *,
    background: npt.ArrayLike = (0.0, 0.0, 0.0),
    order: Order | None = None,
) -> Trace:
    """Render a scene, and keep what :func:`gradients` needs.

    Parameters
    ----------
    scene : Scene
        The Gaussians.
    camera : Camera
        The pinhole camera.
    background : array_like
        Linear colour of shape [3].
    order : callable, optional
        The order of blending, see :data:`Order`. Default: by depth, and then the picture is that
        of :func:`splatforge.algos.reference.render`, bit for bit.

    Returns
    -------
    Trace
        The frame.

    Raises
    ------
    ValueError
        If the background is not three finite numbers, or what ``order`` returns does not fit the
        frame.
    """
    background = np.asarray(background, np.float32)
    if background.shape != (3,) or not np.isfinite(background).all():
        raise ValueError(f"Background must be three finite numbers, not {background!r}")
    tiles_x, tiles_y = -(-camera.width // TILE_PX), -(-camera.height // TILE_PX)
    image = np.empty((camera.height, camera.width, 3), np.float32)
    transmittance = np.empty((camera.height, camera.width), np.float32)
    with Workers() as workers:
        geometry = project_geometry(scene, camera, workers)
        records, ids, depth, spans = pack_records(scene, camera, geometry, True, workers)
        lists = list_spans(
            sort_depths(depth, workers), spans, tiles_x, 0, tiles_y, workers
        )
        if order is not None:
            lists = _checked(order(camera, ids, depth, lists), lists, len(ids))
        blend_tiles(lists, 0, records, background, image, transmittance, None, workers)
    return Trace(
        scene=scene, camera=camera, image=image, transmittance=transmittance, ids=ids,
        depth=depth, lists=lists, records=records,
    )  # fmt: skip


def _checked(lists: TileLists, by_depth: TileLists, gaussians: int) -> TileLists:
    """Return ``lists``, of which no index leads out of any array."""
    starts = np.ascontiguousarray(lists.starts, np.int64)
    entries = np.ascontiguousarray(lists.entries, np.int32)
    fit = (
        starts.shape == by_depth.starts.shape
        and starts[0] == 0
        and starts[-1] == len(entries)
        and bool((np.diff(starts) >= 0).all())
        and bool((np.diff(starts) <= np.diff(by_depth.starts)).all())
    )
    if not fit:
        raise ValueError("Order must return the lists of the same tiles, none of them longer")
    if len(entries) and not 0 <= int(entries.min()) <= int(entries.max()) < gaussians:
        raise ValueError(f"Order must return entries from 0 to {gaussians - 1}, not others")
    return TileLists(
        tiles_x=by_depth.tiles_x, tiles_y=by_depth.tiles_y, starts=starts, entries=entries
    )


def gradients(trace: Trace, image_gradient: npt.ArrayLike) -> Gradients:
    """Derivatives of a loss by the parameters, from those by the pixels.

    Parameters
    ----------
    trace : Trace
        The frame.
    image_gradient : array_like
        d loss / d image, shape [height, width, 3].

    Returns
    -------
    Gradients
        By log scales, quaternions, opacity logits and SH coefficients.

    Raises
    ------
    ValueError
        If the shape is not that of the image or a value is not finite.

    Notes
    -----
    Alphas that are clipped at 0.99 and colours at their floor of 0 pass nothing on; entries
    that a pixel skips (below 1/255, behind its end) have no part. Decisions themselves (which
    entries are skipped, where a pixel ends, which tiles list a Gaussian) are taken as fixed: the
    picture jumps there. Sums over a tile's pixels are in float32, all else in float64; the
    result does not depend on the number of threads.
    """
    image_gradient = np.ascontiguousarray(image_gradient, np.float32)
    if image_gradient.shape != trace.image.shape:
        raise ValueError(
            f"Gradient by the image must have its shape {trace.image.shape},"
            f" not {image_gradient.shape}"
        )
    if not np.isfinite(image_gradient).all():
        raise ValueError("Gradient by the image must be finite, not NaN or infinite anywhere")
    scene, camera, lists = trace.scene, trace.camera, trace.lists
    sums = np.empty((len(lists.entries), _SUMS), np.float32)
    starts = np.empty(len(trace.ids) + 1, np.int64)
    places = np.empty(len(lists.entries), np.int32)
    _places_kernel(lists.entries, starts, places)
    rows = np.flatnonzero(np.diff(starts)).astype(np.int32)
    count = len(rows)
    result = Gradients(
        ids=trace.ids[rows],
        log_scales=np.empty((count, 3), np.float32),
        quats=np.empty((count, 4), np.float32),
        opacity_logits=np.empty(count, np.float32),
        sh=np.empty((count, *scene.sh.shape[1:]), np.float32),
        pixels=np.empty(count, np.int32),
        late=np.empty(count, np.int32),
    )
    # Long lists first: the threads finish together.
    tile_order = np.argsort(-np.diff(lists.starts), kind="stable")
    with Workers() as workers:
        workers.run_chunks(
            _tiles_kernel, -(-lists.tiles // _TILES), tile_order, lists.starts, lists.entries,
            trace.records, trace.depth, lists.tiles_x, trace.image, image_gradient, sums,
        )  # fmt: skip
        workers.run_chunks(
            _parameters_kernel, -(-count // _CHUNK), rows, trace.ids, starts, places, sums,
            trace.records, scene.means, scene.log_scales, scene.quats, scene.opacity_logits,
            scene.sh, np.ascontiguousarray(camera.w2c, np.float64),
            np.ascontiguousarray(camera.position, np.float64), float(camera.fx),
            float(camera.fy), float(camera.cx), float(camera.cy), int(camera.width),
            int(camera.height), bool(scene.antialiased), result.log_scales, result.quats,
            result.opacity_logits, result.sh, result.pixels, result.late,
        )  # fmt: skip
    return result

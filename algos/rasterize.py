"""Blending the Gaussians of a tile's list into its pixels, eight pixels by one instruction.

numba leaves vectorizing to LLVM's loop passes, which give up on a body as long as a blend and
change their mind between releases. Here intrinsics build the vector instructions themselves.
"""

from math import log, sqrt
from typing import Any, Self

import llvmlite.ir as ll
import numpy as np
import numpy.typing as npt
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from splatforge.algos.bin_tiles import TileLists
from splatforge.algos.project import TILE_PX, Geometry
from splatforge.algos.sh import view_colors
from splatforge.algos.workers import Workers
from splatforge.scenes import Camera, Scene

__all__ = ["ALPHA_MAX", "ALPHA_MIN", "TRANSMITTANCE_MIN"]

Float32Array = npt.NDArray[np.float32]

#: Alphas below are skipped, alphas above are clipped (Kerbl et al. 2023, appendix C).
ALPHA_MIN = 1 / 255
ALPHA_MAX = 0.99
#: A Gaussian that would take the transmittance below ends the pixel and is not blended.
TRANSMITTANCE_MIN = 1e-4

_ALPHA_MIN = float(np.float32(1) / np.float32(255))
_ALPHA_MAX = float(np.float32(ALPHA_MAX))
_T_MIN = float(np.float32(TRANSMITTANCE_MIN))
_ZERO, _ONE, _HALF = np.float32(0), np.float32(1), np.float32(0.5)

# Columns evaluated at once: one AVX2 register of float32.
_LANES = 8
_LANE_BITS = (1 << _LANES) - 1
# Room behind the last column, so that a window may start at it.
_STRIDE = TILE_PX + _LANES
# The state of a tile: red, green, blue and transmittance, a plane each.
_PLANE = TILE_PX * _STRIDE
# Tiles per unit of parallel work.
_TILES = 8
# Pairs between two looks for rows that are finished.
_LOOK_EVERY = 16

# Columns of a record: one cache line per Gaussian.
_RECORD_COLUMNS = 16
(
    _MX, _MY, _A, _B, _C, _OPACITY, _RED, _GREEN, _BLUE,
    _REACH_Y, _SHEAR, _CHORD, _CURVE, _PAD,
) = range(14)  # fmt: skip


_EXP_SHIFT = 12582912.0 + 127.0
# The first part has 12 zero bits at its end, so that its product with n is exact.
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
# Of (exp(r) - 1 - r) / r^2.
_EXP_COEFFICIENTS = (
    4.9999993432e-01, 1.6666520399e-01, 4.1668390786e-02, 8.3687451078e-03, 1.3814540074e-03,
)  # fmt: skip

_F32 = ll.FloatType()
_I32 = ll.IntType(32)


class _Lanes:
    """A vector of float32 in a function under construction.

    Operators round once each and are never contracted or reassociated; :meth:`fma` is the only
    place where the machine may skip a rounding. Comparisons give vectors of bits for
    :meth:`select` and ``&``; they are false for NaN.

    Parameters
    ----------
    builder : llvmlite.ir.IRBuilder
        Where instructions go.
    value : llvmlite.ir.Value
        An LLVM vector of float32.
    """

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder, self.value = builder, value

    @classmethod
    def load(cls, builder: Any, pointer: Any, count: int) -> Self:
        """``count`` neighbours from memory, aligned to a float only."""
        vector = ll.VectorType(_F32, count)
        return cls(builder, builder.load(builder.bitcast(pointer, vector.as_pointer()), align=4))

    @classmethod
    def splat(cls, builder: Any, scalar: Any, count: int) -> Self:
        """The same scalar in ``count`` lanes."""
        vector = ll.VectorType(_F32, count)
        single = builder.insert_element(ll.Constant(vector, ll.Undefined), scalar, _I32(0))
        mask = ll.Constant(ll.VectorType(_I32, count), [0] * count)
        return cls(
            builder, builder.shuffle_vector(single, ll.Constant(vector, ll.Undefined), mask)
        )

    @classmethod
    def iota(cls, builder: Any, count: int, start: float = 0.0) -> Self:
        """``start``, ``start + 1``, ..."""
        vector = ll.VectorType(_F32, count)
        return cls(builder, ll.Constant(vector, [float(start + i) for i in range(count)]))

    @property
    def count(self) -> int:
        """Number of lanes."""
        return self.value.type.count

    def store(self, pointer: Any) -> None:
        """Write the lanes to neighbouring floats."""
        self.builder.store(
            self.value, self.builder.bitcast(pointer, self.value.type.as_pointer()), align=4
        )

    def _like(self, other: "_Lanes | float") -> Any:
        if isinstance(other, _Lanes):
            return other.value
        return ll.Constant(self.value.type, [float(other)] * self.count)

    def _new(self, value: Any) -> "_Lanes":
        return _Lanes(self.builder, value)

    def __add__(self, other: "_Lanes | float") -> "_Lanes":
        return self._new(self.builder.fadd(self.value, self._like(other)))

    def __sub__(self, other: "_Lanes | float") -> "_Lanes":
        return self._new(self.builder.fsub(self.value, self._like(other)))

    def __rsub__(self, other: float) -> "_Lanes":
        return self._new(self.builder.fsub(self._like(other), self.value))

    def __mul__(self, other: "_Lanes | float") -> "_Lanes":
        return self._new(self.builder.fmul(self.value, self._like(other)))

    def __le__(self, other: "_Lanes | float") -> Any:
        return self.builder.fcmp_ordered("<=", self.value, self._like(other))

    def __ge__(self, other: "_Lanes | float") -> Any:
        return self.builder.fcmp_ordered(">=", self.value, self._like(other))

    def __gt__(self, other: "_Lanes | float") -> Any:
        return self.builder.fcmp_ordered(">", self.value, self._like(other))

    def _call(self, name: str, *others: "_Lanes | float") -> "_Lanes":
        kind = self.value.type
        suffix = f"v{self.count}f32"
        function_type = ll.FunctionType(kind, [kind] * (1 + len(others)))
        module = self.builder.module
        full = f"llvm.{name}.{suffix}"
        function = module.globals.get(full) or ll.Function(module, function_type, full)
        return self._new(
            self.builder.call(function, [self.value, *(self._like(other) for other in others)])
        )

    def fma(self, factor: "_Lanes | float", summand: "_Lanes | float") -> "_Lanes":
        """``self * factor + summand``, rounded once on machines that can."""
        return self._call("fmuladd", factor, summand)

    def sqrt(self) -> "_Lanes":
        """Square root, correctly rounded."""
        return self._call("sqrt")

    def floor(self) -> "_Lanes":
        """Largest whole number not above."""
        return self._call("floor")

    def ceil(self) -> "_Lanes":
        """Smallest whole number not below."""
        return self._call("ceil")

    def minimum(self, other: "_Lanes | float") -> "_Lanes":
        """The smaller; ``other`` where a lane is NaN."""
        value = self._like(other)
        keep = self.builder.fcmp_ordered("<", self.value, value)
        return self._new(self.builder.select(keep, self.value, value))

    def maximum(self, other: "_Lanes | float") -> "_Lanes":
        """The larger; ``other`` where a lane is NaN."""
        value = self._like(other)
        keep = self.builder.fcmp_ordered(">", self.value, value)
        return self._new(self.builder.select(keep, self.value, value))

    def select(self, mask: Any, other: "_Lanes | float") -> "_Lanes":
        """These lanes where ``mask`` is set, ``other`` elsewhere."""
        return self._new(self.builder.select(mask, self.value, self._like(other)))

    def bits(self) -> Any:
        """The lanes as int32, bit by bit."""
        return self.builder.bitcast(self.value, ll.VectorType(_I32, self.count))

    def from_bits(self, value: Any) -> "_Lanes":
        """Int32 lanes as float32, bit by bit."""
        return self._new(self.builder.bitcast(value, self.value.type))

    def negative_magnitude(self) -> "_Lanes":
        """``-abs(self)``."""
        sign = ll.Constant(ll.VectorType(_I32, self.count), [-(1 << 31)] * self.count)
        return self.from_bits(self.builder.or_(self.bits(), sign))

    def exp(self) -> "_Lanes":
        """Exponential of lanes in [-87, 0], relative error below 1.5e-7 (1e-9 before rounding).

        ``exp(x) = 2^n exp(r)`` with ``|r| <= ln(2) / 2``, ln(2) split in two, and a polynomial
        whose coefficients minimize the largest relative error. Below -87 it stays at exp(-87).
        """
        x = self.maximum(-87.0)
        # Adding 1.5 * 2^23 leaves the nearest whole number in the low bits; 127 biases it so
        # that a shift makes it the exponent of a float.
        shifted = x.fma(1.4426950408889634, _EXP_SHIFT)
        n = shifted - _EXP_SHIFT
        r = n.fma(-_LN2_LOW, n.fma(-_LN2_HIGH, x))
        p = self._new(self._like(_EXP_COEFFICIENTS[-1]))
        for coefficient in reversed(_EXP_COEFFICIENTS[:-1]):
            p = p.fma(r, coefficient)
        p = p.fma(r * r, r) + 1.0
        shift = ll.Constant(ll.VectorType(_I32, self.count), [23] * self.count)
        return p * self.from_bits(self.builder.shl(shifted.bits(), shift))


@njit(cache=True, nogil=True)
def _record_kernel(
    chunk, chunk_rows, rows, row_ids, row_spans, starts, tight, records, ids, depth, spans
):  # fmt: skip
    """Pack a chunk's visible Gaussians: the region that alpha >= 1/255 reaches, its tiles."""
    row = chunk * chunk_rows - 1
    for k in range(starts[chunk], starts[chunk + 1]):
        row += 1
        mx, my = np.float64(rows[row, 0]), np.float64(rows[row, 1])
        opacity = rows[row, 5]
        depth[k] = rows[row, 6]
        ids[k] = -1
        x0, y0 = int(row_spans[row, 0]), int(row_spans[row, 1])
        x1, y1 = int(row_spans[row, 2]), int(row_spans[row, 3])
        a, b = np.float64(rows[row, 2]), np.float64(rows[row, 3])
        xx, yy = np.float64(rows[row, 8]), np.float64(rows[row, 9])
        # alpha >= 1/255 where the quadratic form is at most ``limit``. The margin covers what
        # float32 loses when the terms of the form cancel: 1 / (1 - correlation^2) of them.
        limit = 2.0 * log(255.0 * max(np.float64(opacity), 1e-30))
        limit += 1e-3 + 4e-6 * abs(limit) * a * xx
        if limit < 0.0:
            records[k, _REACH_Y] = -1.0
            if tight:
                spans[k] = 0
                continue
        else:
            reach_x, reach_y = sqrt(limit * xx) + 1e-3, sqrt(limit * yy) + 1e-3
            records[k, _REACH_Y] = reach_y
            # Row j has its centres at y = j + 0.5; within it alpha is significant on the
            # chord mx - shear dy +- sqrt(chord - curve dy^2).
            records[k, _SHEAR] = b / a
            records[k, _CHORD] = limit / a
            records[k, _CURVE] = 1.0 / (a * yy)
            records[k, _PAD] = 0.02 + 2e-6 * reach_x
            if tight:
                x0 = max(x0, int(max(mx - reach_x - 0.5, 0.0)) // TILE_PX)
                x1 = min(x1, int(max(mx + reach_x + TILE_PX - 0.5, 0.0)) // TILE_PX)
                y0 = max(y0, int(max(my - reach_y - 0.5, 0.0)) // TILE_PX)
                y1 = min(y1, int(max(my + reach_y + TILE_PX - 0.5, 0.0)) // TILE_PX)
        if tight and (x0 >= x1 or y0 >= y1):
            spans[k] = 0
            continue
        spans[k, 0], spans[k, 1], spans[k, 2], spans[k, 3] = x0, y0, x1, y1
        records[k, _MX], records[k, _MY] = rows[row, 0], rows[row, 1]
        # The factor -1/2 is exact, so folding it in does not change a bit of the power.
        records[k, _A], records[k, _C] = -_HALF * rows[row, 2], -_HALF * rows[row, 4]
        records[k, _B], records[k, _OPACITY] = rows[row, 3], opacity
        ids[k] = row_ids[row]


@intrinsic
def _blend_window(
    typingctx, state, offset, px, dy, mx, a, b, row_term, opacity, red, green, blue
):  # fmt: skip
    """Blend one Gaussian into ``_LANES`` neighbouring pixels of a row.

    ``state`` is the flat float32 state of a tile, ``offset`` the first pixel in its first plane,
    ``px`` the x of that pixel's centre. Returns the bits of the lanes that are live and
    significant, and of those among them that blend, eight bits higher.
    """
    signature = types.int32(state, types.int64, *[types.float32] * 10)

    def codegen(context, builder, signature, args):
        array = context.make_array(signature.args[0])(context, builder, args[0])

        def plane(index):
            at = builder.add(args[1], ll.Constant(args[1].type, index * _PLANE))
            return cgutils.gep_inbounds(builder, array.data, at)

        lanes = [_Lanes.splat(builder, scalar, _LANES) for scalar in args[2:]]
        px, dy, mx, a, b, row_term, opacity, *color = lanes
        dx = mx - (px + _Lanes.iota(builder, _LANES))
        power = (a * dx * dx + row_term) - b * dx * dy
        alpha = (opacity * power.minimum(0.0).exp()).minimum(_ALPHA_MAX)
        t = _Lanes.load(builder, plane(3), _LANES)
        # A stopped pixel keeps its transmittance with the sign flipped: the product below is
        # then negative, so it neither blends nor stops again.
        after = t * (1.0 - alpha)
        seen = builder.and_(power <= 0.0, alpha >= _ALPHA_MIN)
        blend = builder.and_(seen, after >= _T_MIN)
        weight = (alpha * t).select(blend, 0.0)
        for index, channel in enumerate(color):
            sum_so_far = _Lanes.load(builder, plane(index), _LANES)
            weight.fma(channel, sum_so_far).store(plane(index))
        after.select(blend, t.negative_magnitude().select(seen, t)).store(plane(3))

        def bits(mask):
            packed = builder.bitcast(mask, ll.IntType(_LANES))
            return builder.zext(packed, ll.IntType(32))

        live_seen = builder.and_(seen, t > 0.0)
        return builder.or_(
            bits(live_seen), builder.shl(bits(blend), ll.Constant(ll.IntType(32), _LANES))
        )

    return signature, codegen


@intrinsic
def _row_windows(typingctx, windows, x, y, shear, chord, curve, pad):
    """First and last column that a Gaussian reaches in each row of a tile.

    ``x`` and ``y`` are its centre relative to the tile's corner. Writes float32
    [2 * TILE_PX]: firsts, then lasts, clipped to the tile; empty rows may have first > last.
    """
    signature = types.void(windows, *[types.float32] * 6)

    def codegen(context, builder, signature, args):
        array = context.make_array(signature.args[0])(context, builder, args[0])
        for row in range(0, TILE_PX, _LANES):
            lanes = [_Lanes.splat(builder, scalar, _LANES) for scalar in args[1:]]
            x, y, shear, chord, curve, pad = lanes
            dy = _Lanes.iota(builder, _LANES, row + 0.5) - y
            middle = (x - shear * dy) - 0.5
            half = (chord - curve * dy * dy).maximum(0.0).sqrt() + pad
            for part, columns in enumerate(
                ((middle - half).ceil().maximum(0.0), (middle + half).floor())
            ):
                index = ll.Constant(ll.IntType(64), part * TILE_PX + row)
                columns = columns.maximum(-1.0).minimum(TILE_PX - 1.0 + (part == 0))
                columns.store(cgutils.gep_inbounds(builder, array.data, index))
        return context.get_dummy_value()

    return signature, codegen


@njit(cache=True, inline="always")
def _bits_set(word):
    count = 0
    while word != 0:
        word &= word - 1
        count += 1
    return count


@njit(cache=True, nogil=True)
def _blend_kernel(
    chunk, tile_order, first_tile, starts, entries, records, tiles_x, background, image,
    transmittance, counted, statistics,
):  # fmt: skip
    """Blend the tiles of a chunk of ``tile_order``."""
    height, width = transmittance.shape
    state_flat = np.empty(4 * _PLANE, np.float32)
    state = state_flat.reshape(4, TILE_PX, _STRIDE)
    windows = np.empty(2 * TILE_PX, np.float32)
    for turn in range(chunk * _TILES, min(len(tile_order), (chunk + 1) * _TILES)):
        tile = tile_order[turn]
        begin, end = starts[tile - first_tile], starts[tile - first_tile + 1]
        x0, y0 = (tile % tiles_x) * TILE_PX, (tile // tiles_x) * TILE_PX
        columns, rows = min(TILE_PX, width - x0), min(TILE_PX, height - y0)
        for y in range(TILE_PX):
            for x in range(_STRIDE):
                state[0, y, x] = _ZERO
                state[1, y, x] = _ZERO
                state[2, y, x] = _ZERO
                state[3, y, x] = _ONE if x < columns and y < rows else -_ONE
        live_rows = (1 << rows) - 1
        live_pixels = rows * columns
        look = 0
        for k in range(begin, end):
            if counted:
                if live_pixels == 0:
                    break
                statistics[1, tile] += 1
                statistics[2, tile] += live_pixels
            look += 1
            if look == _LOOK_EVERY:
                look = 0
                live_rows = 0
                for y in range(rows):
                    alive = _ZERO
                    for x in range(TILE_PX):
                        alive = max(alive, state[3, y, x])
                    if alive > _ZERO:
                        live_rows |= 1 << y
                if live_rows == 0:
                    break
            i = entries[k]
            reach = records[i, _REACH_Y]
            if reach < _ZERO:
                continue
            mx, my = records[i, _MX], records[i, _MY]
            local_x, local_y = mx - np.float32(x0), my - np.float32(y0)
            top = int(max(np.ceil(local_y - reach - _HALF), _ZERO))
            bottom = int(min(np.floor(local_y + reach - _HALF), np.float32(rows - 1)))
            _row_windows(
                windows, local_x, local_y, records[i, _SHEAR], records[i, _CHORD],
                records[i, _CURVE], records[i, _PAD],
            )  # fmt: skip
            a, b, c = records[i, _A], records[i, _B], records[i, _C]
            opacity = records[i, _OPACITY]
            red, green, blue = records[i, _RED], records[i, _GREEN], records[i, _BLUE]
            for y in range(top, bottom + 1):
                if not (live_rows >> y) & 1:
                    continue
                dy = my - (np.float32(y0 + y) + _HALF)
                row_term = c * dy * dy
                for x in range(int(windows[y]), int(windows[TILE_PX + y]) + 1, _LANES):
                    px = np.float32(x0 + x) + _HALF
                    bits = _blend_window(
                        state_flat, y * _STRIDE + x, px, dy, mx, a, b, row_term, opacity, red,
                        green, blue,
                    )  # fmt: skip
                    if counted:
                        significant = _bits_set(bits & _LANE_BITS)
                        blended = _bits_set(bits >> _LANES)
                        statistics[3, tile] += significant
                        statistics[4, tile] += blended
                        live_pixels -= significant - blended
        if counted:
            statistics[0, tile] = end - begin
            statistics[5, tile] = statistics[3, tile] - statistics[4, tile]
        for y in range(rows):
            for x in range(columns):
                t = abs(state[3, y, x])
                transmittance[y0 + y, x0 + x] = t
                for channel in range(3):
                    image[y0 + y, x0 + x, channel] = (
                        state[channel, y, x] + t * background[channel]
                    )


def pack_records(
    scene: Scene, camera: Camera, geometry: Geometry, tight: bool, workers: Workers
) -> tuple[Float32Array, Float32Array, npt.NDArray[np.int16]]:
    """Make the records that :func:`blend_tiles` reads, colours included.

    Parameters
    ----------
    scene, camera : Scene, Camera
        What was projected.
    geometry : Geometry
        Its projection.
    tight : bool
        Shrink the spans to the tiles that alpha >= 1/255 can reach; a Gaussian that reaches none
        gets an empty span and no colour.
    workers : Workers
        The threads to run on.

    Returns
    -------
    records, depth, spans : numpy.ndarray
        Shapes [M, 16] and [M], float32, and [M, 4], int16.
    """
    visible = geometry.visible
    records = np.empty((visible, _RECORD_COLUMNS), np.float32)
    ids = np.empty(visible, np.int32)
    depth = np.empty(visible, np.float32)
    spans = np.empty((visible, 4), np.int16)
    workers.run_chunks(
        _record_kernel, geometry.chunks, geometry.chunk, geometry.rows, geometry.ids,
        geometry.spans, geometry.starts, tight, records, ids, depth, spans,
    )  # fmt: skip
    view_colors(scene, camera, ids, records, _RED, workers)
    return records, depth, spans


def blend_tiles(
    lists: TileLists,
    first_tile: int,
    records: Float32Array,
    background: Float32Array,
    image: Float32Array,
    transmittance: Float32Array,
    statistics: npt.NDArray[np.int64] | None,
    workers: Workers,
) -> None:
    """Blend the tiles of ``lists``, of which the first is number ``first_tile`` of the image.

    Writes their pixels into ``image`` [height, width, 3] and ``transmittance`` [height, width]
    and, unless it is None, their counts into ``statistics`` [6, tiles of the image]: pairs,
    reached, evaluations, significant, blended, stopped.
    """
    # Long lists first: the threads finish together.
    tile_order = first_tile + np.argsort(-np.diff(lists.starts), kind="stable")
    workers.run_chunks(
        _blend_kernel, -(-lists.tiles // _TILES), tile_order, first_tile, lists.starts,
        lists.entries, records, lists.tiles_x, background, image, transmittance,
        statistics is not None, np.empty((6, 0), np.int64) if statistics is None else statistics,
    )  # fmt: skip

"""Blending the Gaussians of a tile's list into its pixels, eight pixels by one instruction.

numba leaves vectorizing to LLVM's loop passes, which give up on a body as long as a blend and
change their mind between releases. Here intrinsics build the vector instructions themselves.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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

# Columns evaluated at once: one AVX2 register of float32, half a row.
_LANES = 8
_HALVES = TILE_PX // _LANES
_ROWS = (1 << TILE_PX) - 1
# The state of a tile: red, green, blue and transmittance, a plane of rows each.
_PLANE = TILE_PX * TILE_PX
# Tiles per unit of parallel work.
_TILES = 8
# Pairs whose rows are found at once, and between two looks for rows that are finished.
_BATCH = 16

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

    def __truediv__(self, other: "_Lanes | float") -> "_Lanes":
        return self._new(self.builder.fdiv(self.value, self._like(other)))

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

    def negative_where(self, mask: Any) -> "_Lanes":
        """``-abs(self)`` where ``mask`` is set.

        By bits and not by :meth:`select`: LLVM would make a masked store of a select between a
        loaded value and a new one, and loads cannot be forwarded from masked stores.
        """
        vector = ll.VectorType(_I32, self.count)
        sign = ll.Constant(vector, [-(1 << 31)] * self.count)
        signs = self.builder.and_(self.builder.sext(mask, vector), sign)
        return self.from_bits(self.builder.or_(self.bits(), signs))

    def exp(self) -> "_Lanes":
        """Exponential of lanes in [-40, 0], relative error below 1.5e-7; exp(-40) below.

        ``exp(x) = 2^n exp(r)`` with ``|r| <= ln(2) / 2``, ln(2) split in two, and a polynomial
        whose coefficients minimize the largest relative error, 3e-9. Smaller results would only
        become denormal further on, which stalls the machine.
        """
        x = self.maximum(-40.0)
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
            # A row at no distance may pass, but none of its alphas will be significant.
            records[k, _REACH_Y:] = 0.0
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


def _gep(builder: Any, array: Any, index: Any) -> Any:
    if isinstance(index, int):
        index = ll.Constant(ll.IntType(64), index)
    return cgutils.gep_inbounds(builder, array.data, index)


def _mask_bits(builder: Any, mask: Any, width: int) -> Any:
    """A vector of bits as the low bits of an integer of ``width`` bits."""
    packed = builder.bitcast(mask, ll.IntType(mask.type.count))
    return builder.zext(packed, ll.IntType(width))


@intrinsic
def _reached_rows(typingctx, x, y, reach, shear, chord, curve, pad):
    """Rows in which a Gaussian reaches the left and the right half of a tile.

    ``x`` and ``y`` are its centre relative to the tile's corner. Returns an int64: bit j for row
    j of the left half, bit 16 + j for row j of the right one.
    """
    signature = types.int64(*[types.float32] * 7)

    def codegen(context, builder, signature, args):
        lanes = [_Lanes.splat(builder, scalar, TILE_PX) for scalar in args]
        x, y, reach, shear, chord, curve, pad = lanes
        dy = _Lanes.iota(builder, TILE_PX, 0.5) - y
        square = dy * dy
        inside = square <= reach * reach
        middle = x - shear * dy
        half = (chord - curve * square).maximum(0.0).sqrt() + pad
        left, right = middle - half, middle + half
        result = ll.Constant(ll.IntType(64), 0)
        for part in range(_HALVES):
            # The first and the last pixel centre of the half.
            first, last = part * _LANES + 0.5, (part + 1) * _LANES - 0.5
            meets = builder.and_(builder.and_(left <= last, right >= first), inside)
            bits = _mask_bits(builder, meets, 64)
            shift = ll.Constant(ll.IntType(64), part * TILE_PX)
            result = builder.or_(result, builder.shl(bits, shift))
        return result

    return signature, codegen


@intrinsic
def _live_rows(typingctx, state):
    """Rows with a pixel that has not stopped, as :func:`_reached_rows` gives them."""
    signature = types.int64(state)

    def codegen(context, builder, signature, args):
        array = context.make_array(signature.args[0])(context, builder, args[0])
        result = ll.Constant(ll.IntType(64), 0)
        for part in range(_HALVES):
            for row in range(TILE_PX):
                at = 3 * _PLANE + row * TILE_PX + part * _LANES
                live = _Lanes.load(builder, _gep(builder, array, at), _LANES) > 0.0
                some = builder.icmp_unsigned(
                    "!=", _mask_bits(builder, live, 64), ll.Constant(ll.IntType(64), 0)
                )
                bit = ll.Constant(ll.IntType(64), part * TILE_PX + row)
                result = builder.or_(result, builder.shl(builder.zext(some, ll.IntType(64)), bit))
        return result

    return signature, codegen


class _Footprint:
    """A Gaussian over ``_LANES`` columns: what depends on the column alone is computed once.

    Parameters
    ----------
    builder : llvmlite.ir.IRBuilder
        Where instructions go.
    px, py, mx, my, a, b, c : llvmlite.ir.Value
        Centre of the first pixel, mean and conic as in a record.
    """

    def __init__(
        self, builder: Any, px: Any, py: Any, mx: Any, my: Any, a: Any, b: Any, c: Any
    ) -> None:
        self._builder, self._py, self._my, self._c = builder, py, my, c
        self.dx = _Lanes.splat(builder, mx, _LANES) - (
            _Lanes.splat(builder, px, _LANES) + _Lanes.iota(builder, _LANES)
        )
        self._column_term = _Lanes.splat(builder, a, _LANES) * self.dx * self.dx
        self._cross_term = _Lanes.splat(builder, b, _LANES) * self.dx

    def power(self, row: Any) -> tuple[_Lanes, _Lanes]:
        """The power in a row, and dy in all lanes."""
        builder = self._builder
        row_y = builder.fadd(self._py, builder.sitofp(row, _F32))
        dy = builder.fsub(self._my, row_y)
        row_term = builder.fmul(builder.fmul(self._c, dy), dy)
        dy_lanes = _Lanes.splat(builder, dy, _LANES)
        power = (self._column_term + _Lanes.splat(builder, row_term, _LANES)) - (
            self._cross_term * dy_lanes
        )
        return power, dy_lanes


@contextmanager
def _each_row(builder: Any, rows: Any) -> Iterator[Any]:
    """A loop over the rows of a set, an integer with bit j set for row j; gives the row."""
    i64 = ll.IntType(64)
    left = cgutils.alloca_once_value(builder, rows)
    test, body, done = (builder.append_basic_block(name) for name in ("test", "row", "done"))
    builder.branch(test)
    with builder.goto_block(test):
        some = builder.icmp_unsigned("!=", builder.load(left), ll.Constant(i64, 0))
        builder.cbranch(some, body, done)
    with builder.goto_block(body):
        mask = builder.load(left)
        builder.store(builder.and_(mask, builder.sub(mask, ll.Constant(i64, 1))), left)
        yield builder.cttz(mask, ll.Constant(ll.IntType(1), 1))
        builder.branch(test)
    builder.position_at_end(done)


def _blend_rows_codegen(counted: bool) -> Callable[..., Any]:
    """Generator of code for :func:`_blend_rows` (or with counts)."""

    def codegen(context, builder, signature, args):
        i64 = ll.IntType(64)
        array = context.make_array(signature.args[0])(context, builder, args[0])
        column, rows, *place, opacity, red, green, blue = args[1:]
        opacity, *color = [
            _Lanes.splat(builder, scalar, _LANES) for scalar in (opacity, red, green, blue)
        ]
        footprint = _Footprint(builder, *place)
        counts = cgutils.alloca_once_value(builder, ll.Constant(i64, 0))
        zero = ll.Constant(i64, 0)
        with _each_row(builder, rows) as row:
            offset = builder.add(builder.mul(row, ll.Constant(i64, TILE_PX)), column)

            def plane(index, offset=offset):
                return _gep(builder, array, builder.add(offset, ll.Constant(i64, index * _PLANE)))

            power, _ = footprint.power(row)
            alpha = (opacity * power.minimum(0.0).exp()).minimum(_ALPHA_MAX)
            t = _Lanes.load(builder, plane(3), _LANES)
            # A stopped pixel keeps its transmittance with the sign flipped: the product below is
            # then negative, so it neither blends nor stops again.
            after = t * (1.0 - alpha)
            seen = builder.and_(power <= 0.0, alpha >= _ALPHA_MIN)
            blend = builder.and_(seen, after >= _T_MIN)
            weight = (alpha * t).select(blend, 0.0)
            for index, channel in enumerate(color):
                so_far = _Lanes.load(builder, plane(index), _LANES)
                weight.fma(channel, so_far).store(plane(index))
            after.select(blend, t.negative_where(seen)).store(plane(3))
            if counted:
                live_seen = _mask_bits(builder, builder.and_(seen, t > 0.0), 64)
                blended = builder.ctpop(_mask_bits(builder, blend, 64))
                some = builder.zext(builder.icmp_unsigned("!=", live_seen, zero), i64)
                all_three = builder.or_(
                    builder.or_(
                        builder.ctpop(live_seen), builder.shl(blended, ll.Constant(i64, 16))
                    ),
                    builder.shl(some, builder.add(row, ll.Constant(i64, 32))),
                )
                builder.store(builder.add(builder.load(counts), all_three), counts)
        return builder.load(counts)

    return codegen


def _blend_rows_signature(state: types.Type) -> Any:
    return types.int64(state, types.int64, types.int64, *[types.float32] * 11)


@intrinsic
def _blend_rows(
    typingctx, state, column, rows, px, py, mx, my, a, b, c, opacity, red, green, blue
):  # fmt: skip
    """Blend one Gaussian into the ``_LANES`` columns from ``column`` on, in the set ``rows``.

    ``state`` is the flat float32 state of a tile; ``rows`` has bit j set for row j; (px, py) is
    the centre of the pixel at ``column`` in row 0. Returns 0.
    """
    return _blend_rows_signature(state), _blend_rows_codegen(counted=False)


@intrinsic
def _blend_rows_counted(
    typingctx, state, column, rows, px, py, mx, my, a, b, c, opacity, red, green, blue
):  # fmt: skip
    """:func:`_blend_rows` that returns the number of live pixels that are significant, 16 bits
    higher of those among them that blend, and 32 bits higher the set of rows that hold one.
    """  # noqa: D205
    return _blend_rows_signature(state), _blend_rows_codegen(counted=True)


@njit(cache=True, nogil=True)
def _row_pairs(rows):
    """Count the pairs of rows (2j, 2j + 1) of which at least one is in the set: warps."""
    pairs = 0
    for j in range(0, TILE_PX, 2):
        pairs += (rows >> j) & 3 != 0
    return pairs


@njit(cache=True, nogil=True)
def _blend_kernel(
    chunk, tile_order, first_tile, starts, entries, records, tiles_x, background, image,
    transmittance, counted, statistics,
):  # fmt: skip
    """Blend the tiles of a chunk of ``tile_order``."""
    height, width = transmittance.shape
    state_flat = np.empty(4 * _PLANE, np.float32)
    state = state_flat.reshape(4, TILE_PX, TILE_PX)
    reached = np.empty(_BATCH, np.int64)
    for turn in range(chunk * _TILES, min(len(tile_order), (chunk + 1) * _TILES)):
        tile = tile_order[turn]
        begin, end = starts[tile - first_tile], starts[tile - first_tile + 1]
        x0, y0 = (tile % tiles_x) * TILE_PX, (tile // tiles_x) * TILE_PX
        columns, rows = min(TILE_PX, width - x0), min(TILE_PX, height - y0)
        for y in range(TILE_PX):
            for x in range(TILE_PX):
                state[0, y, x] = _ZERO
                state[1, y, x] = _ZERO
                state[2, y, x] = _ZERO
                state[3, y, x] = _ONE if x < columns and y < rows else -_ONE
        live_pixels = rows * columns
        live_warps = -(-rows // 2)
        for batch in range(begin, end, _BATCH):
            # numba supplies the typing context, which pyright takes for an argument.
            live_rows = _live_rows(state_flat)  # pyright: ignore[reportCallIssue]
            if live_rows == 0:
                break
            batch_end = min(end, batch + _BATCH)
            # Ahead of their use, so that the loops over rows know where they end.
            for k in range(batch, batch_end):
                i = entries[k]
                reached[k - batch] = live_rows & _reached_rows(
                    records[i, _MX] - np.float32(x0), records[i, _MY] - np.float32(y0),
                    records[i, _REACH_Y], records[i, _SHEAR], records[i, _CHORD],
                    records[i, _CURVE], records[i, _PAD],
                )  # fmt: skip
            for k in range(batch, batch_end):
                if counted:
                    if live_pixels == 0:
                        break
                    statistics[1, tile] += 1
                    statistics[2, tile] += live_pixels
                    statistics[6, tile] += live_warps
                i = entries[k]
                left = reached[k - batch]
                significant_rows, live_before = np.int64(0), live_pixels
                while left != 0:
                    # The left half if it is reached, else the right one.
                    column = 0 if left & _ROWS != 0 else _LANES
                    mask = left & _ROWS if column == 0 else left >> TILE_PX
                    left = left & ~np.int64(_ROWS) if column == 0 else 0
                    px, py = np.float32(x0 + column) + _HALF, np.float32(y0) + _HALF
                    if counted:
                        found = _blend_rows_counted(
                            state_flat, column, mask, px, py, records[i, _MX], records[i, _MY],
                            records[i, _A], records[i, _B], records[i, _C],
                            records[i, _OPACITY], records[i, _RED], records[i, _GREEN],
                            records[i, _BLUE],
                        )  # fmt: skip
                        significant, blended = found & 0xFFFF, (found >> 16) & 0xFFFF
                        significant_rows |= found >> 32
                        statistics[3, tile] += significant
                        statistics[4, tile] += blended
                        live_pixels -= significant - blended
                    else:
                        _blend_rows(
                            state_flat, column, mask, px, py, records[i, _MX], records[i, _MY],
                            records[i, _A], records[i, _B], records[i, _C],
                            records[i, _OPACITY], records[i, _RED], records[i, _GREEN],
                            records[i, _BLUE],
                        )  # fmt: skip
                if counted:
                    statistics[7, tile] += _row_pairs(significant_rows)
                    if live_pixels != live_before:
                        live_bits = _live_rows(state_flat)  # pyright: ignore[reportCallIssue]
                        live_warps = _row_pairs(live_bits | (live_bits >> TILE_PX))
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
) -> tuple[Float32Array, npt.NDArray[np.int32], Float32Array, npt.NDArray[np.int16]]:
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
    records, ids, depth, spans : numpy.ndarray
        Shapes [M, 16], float32, [M], int32 (-1 for an empty span), [M], float32, and [M, 4], int16.
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
    return records, ids, depth, spans


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
    and, unless it is None, their counts into ``statistics`` [8, tiles of the image]: pairs,
    reached, evaluations, significant, blended, stopped, warp steps, warp blends.
    """
    # Long lists first: the threads finish together.
    tile_order = first_tile + np.argsort(-np.diff(lists.starts), kind="stable")
    workers.run_chunks(
        _blend_kernel, -(-lists.tiles // _TILES), tile_order, first_tile, lists.starts,
        lists.entries, records, lists.tiles_x, background, image, transmittance,
        statistics is not None, np.empty((8, 0), np.int64) if statistics is None else statistics,
    )  # fmt: skip

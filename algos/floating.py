"""Arithmetic on words of :class:`~splatforge.designs.floating.Floating`, in integers.

Every operation takes words (int64, any shapes that broadcast) and gives words. A result is never
a zero with other bits set, and none is out of range: what is too large becomes the largest number,
what is too small becomes zero. Products and sums are those of real numbers rounded once to nearest,
ties away from zero, as :meth:`Floating.quantize` rounds; reciprocals, reciprocal roots and
logarithms come from a table and a quadratic, and err by little more.

The table method is that of Pineiro et al., "High-Speed Function Approximation Using a Minimax
Quadratic Interpolator", IEEE Trans. Computers 54(3), 2005, with interpolation in Chebyshev's
points, in Horner's form: two multiplications, one behind the other, and both narrow.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numba as nb
import numpy as np
import numpy.typing as npt

from splatforge.designs.fixed import Fixed
from splatforge.designs.floating import BINARY32, Floating

__all__ = [
    "GUARD_BITS", "QuadraticTable", "add", "ceil_fixed", "less", "log2", "log2_table",
    "maximum", "minimum", "multiply", "narrow", "negate", "reciprocal", "reciprocal_root",
    "reciprocal_root_table", "reciprocal_table", "subtract", "to_binary32", "to_fixed"]

Int64Array = npt.NDArray[np.int64]

#: Bits that the coefficients of a :class:`QuadraticTable` hold beyond its result's last.
GUARD_BITS = 4


@nb.njit(inline="always")
def _pack(negative, exponent, significand, exponent_bits, fraction_bits):
    """Word of a significand with its leading bit at `fraction_bits`, or just carried beyond it.

    `exponent` is the field, of any size; the carry of rounding adds one to it.
    """
    hidden = 1 << fraction_bits
    magnitude = (exponent << fraction_bits) + significand - hidden
    if magnitude < hidden:
        return np.int64(0)
    magnitude = min(magnitude, (1 << (exponent_bits + fraction_bits)) - 1)
    return np.int64(magnitude | negative << (exponent_bits + fraction_bits))


@nb.njit(inline="always")
def _unpack(word, exponent_bits, fraction_bits):
    """Sign, exponent field, and significand with its leading bit."""
    exponent = (word >> fraction_bits) & ((1 << exponent_bits) - 1)
    significand = (word & ((1 << fraction_bits) - 1)) | 1 << fraction_bits
    return word >> (exponent_bits + fraction_bits) & 1, exponent, significand


@nb.vectorize(cache=True)
def _multiply(a, b, exponent_bits, fraction_bits):
    negative_a, exponent_a, significand_a = _unpack(a, exponent_bits, fraction_bits)
    negative_b, exponent_b, significand_b = _unpack(b, exponent_bits, fraction_bits)
    if exponent_a == 0 or exponent_b == 0:
        return np.int64(0)
    # From 1 to just below 4, with twice the fraction bits.
    product = significand_a * significand_b
    exponent = exponent_a + exponent_b - ((1 << (exponent_bits - 1)) - 1)
    drop = fraction_bits
    if product >> (2 * fraction_bits + 1):
        exponent += 1
        drop += 1
    significand = (product + (1 << (drop - 1))) >> drop
    return _pack(negative_a ^ negative_b, exponent, significand, exponent_bits, fraction_bits)


@nb.vectorize(cache=True)
def _add(a, b, exponent_bits, fraction_bits):
    magnitude = (1 << (exponent_bits + fraction_bits)) - 1
    if (a & magnitude) < (b & magnitude):
        a, b = b, a
    negative, exponent, large = _unpack(a, exponent_bits, fraction_bits)
    negative_b, exponent_b, small = _unpack(b, exponent_bits, fraction_bits)
    if exponent == 0:
        return np.int64(0)
    if exponent_b == 0:
        return np.int64(a)
    # Two guard bits below the larger one's last; of what is below them only whether it is zero
    # matters, and only to a difference: the floor of the exact one is one smaller.
    down = min(exponent - exponent_b, fraction_bits + 3)
    shifted = (small << 2) >> down
    if negative == negative_b:
        total = (large << 2) + shifted
    else:
        total = (large << 2) - shifted - (shifted << down != small << 2)
    if total == 0:
        return np.int64(0)
    # Leading bit to `fraction_bits + 2`. A difference loses more than one bit only if nothing was
    # shifted out, so that the guard bits hold what rounding needs in every case.
    up = 0
    while total << up < 1 << (fraction_bits + 2):
        up += 1
    if total >> (fraction_bits + 3):
        return _pack(negative, exponent + 1, (total + 4) >> 3, exponent_bits, fraction_bits)
    significand = ((total << up) + 2) >> 2
    return _pack(negative, exponent - up, significand, exponent_bits, fraction_bits)


@nb.vectorize(cache=True)
def _order(a, exponent_bits, fraction_bits):
    """Integer that is ordered like the value of a word."""
    magnitude = a & ((1 << (exponent_bits + fraction_bits)) - 1)
    if magnitude >> fraction_bits == 0:
        return np.int64(0)
    return np.int64(-magnitude if a >> (exponent_bits + fraction_bits) & 1 else magnitude)


@nb.vectorize(cache=True)
def _to_fixed(a, frac_bits, raw_max, signed, exponent_bits, fraction_bits):
    negative, exponent, significand = _unpack(a, exponent_bits, fraction_bits)
    if exponent == 0:
        return np.int64(0)
    up = exponent - ((1 << (exponent_bits - 1)) - 1) - fraction_bits + frac_bits
    if up >= 0:
        magnitude = significand << min(up, 62 - fraction_bits)
    else:
        magnitude = ((significand << 1 >> min(-up, fraction_bits + 2)) + 1) >> 1
    magnitude = min(magnitude, raw_max)
    return np.int64((-magnitude if signed else 0) if negative else magnitude)


@nb.vectorize(cache=True)
def _ceil_fixed(a, frac_bits, raw_max, exponent_bits, fraction_bits):
    _, exponent, significand = _unpack(a, exponent_bits, fraction_bits)
    if exponent == 0:
        return np.int64(0)
    up = exponent - ((1 << (exponent_bits - 1)) - 1) - fraction_bits + frac_bits
    if up >= 0:
        return np.int64(min(significand << min(up, 62 - fraction_bits), raw_max))
    down = min(-up, fraction_bits + 1)
    return np.int64(min((significand + (1 << down) - 1) >> down, raw_max))


def multiply(fmt: Floating, a: npt.ArrayLike, b: npt.ArrayLike) -> Int64Array:
    """Products, rounded once to nearest.

    One unsigned multiplication of two significands; the product is rounded at the bit that its
    leading one selects. Relative error: ``fmt.epsilon``.
    """
    return np.asarray(_multiply(_word(a), _word(b), fmt.exponent_bits, fmt.fraction_bits))


def add(fmt: Floating, a: npt.ArrayLike, b: npt.ArrayLike) -> Int64Array:
    """Sums, rounded once to nearest.

    The smaller significand is shifted to the larger with two guard bits; a difference is made one
    guard bit smaller if bits other than zero were shifted out. That is enough to round the exact
    sum. Relative error: ``fmt.epsilon`` of the sum; a difference of words within a factor of two
    is exact.
    """
    return np.asarray(_add(_word(a), _word(b), fmt.exponent_bits, fmt.fraction_bits))


def subtract(fmt: Floating, a: npt.ArrayLike, b: npt.ArrayLike) -> Int64Array:
    """``a - b``, as :func:`add`."""
    return add(fmt, a, negate(fmt, b))


def negate(fmt: Floating, a: npt.ArrayLike) -> Int64Array:
    """Words with their sign turned; zero stays the word 0. Exact."""
    a = _word(a)
    exponents = (1 << (fmt.width - 1)) - (1 << fmt.fraction_bits)
    return np.where(a & exponents, a ^ fmt.sign_bit, 0)


def less(fmt: Floating, a: npt.ArrayLike, b: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """``a < b``; all words of zero are equal."""
    return _orders(fmt, a) < _orders(fmt, b)


def minimum(fmt: Floating, a: npt.ArrayLike, b: npt.ArrayLike) -> Int64Array:
    """``b`` if ``b < a``, else ``a``: the word itself."""
    return np.where(less(fmt, b, a), _word(b), _word(a))


def maximum(fmt: Floating, a: npt.ArrayLike, b: npt.ArrayLike) -> Int64Array:
    """``b`` if ``a < b``, else ``a``: the word itself."""
    return np.where(less(fmt, a, b), _word(b), _word(a))


def to_fixed(fmt: Floating, a: npt.ArrayLike, to: Fixed) -> Int64Array:
    """Raw integers of `to`: rounded to nearest, ties away from zero, saturating.

    The magnitude saturates to ``to.raw_max``; of an unsigned format what is negative becomes 0.
    Error: half a unit of `to`, none where all bits of the significand fit.
    """
    return np.asarray(_to_fixed(
        _word(a), to.frac_bits, to.raw_max, to.signed, fmt.exponent_bits, fmt.fraction_bits))


def ceil_fixed(fmt: Floating, a: npt.ArrayLike, to: Fixed) -> Int64Array:
    """Raw integers of `to` next above ``|a|``, or equal to it, saturating."""
    return np.asarray(_ceil_fixed(
        _word(a), to.frac_bits, to.raw_max, fmt.exponent_bits, fmt.fraction_bits))


def narrow(fmt: Floating, a: npt.ArrayLike, source: Floating) -> Int64Array:
    """Words of `fmt` from those of `source`, which has as many exponent bits and a finer fraction.

    Rounded to nearest, ties away from zero. Relative error: ``fmt.epsilon``.
    """
    a = _word(a)
    drop = source.fraction_bits - fmt.fraction_bits
    magnitude = ((a & source.magnitude_max) + (1 << drop >> 1)) >> drop
    magnitude = np.minimum(magnitude, fmt.magnitude_max)
    word = np.where(a & source.sign_bit, magnitude | fmt.sign_bit, magnitude)
    return np.where((a & source.magnitude_max) >> source.fraction_bits, word, 0)


def to_binary32(fmt: Floating, a: npt.ArrayLike) -> npt.NDArray[np.uint32]:
    """Words of binary32 of the same value, for words of 8 exponent bits. Exact."""
    return (_word(a) << (BINARY32.fraction_bits - fmt.fraction_bits)).astype(np.uint32)


class QuadraticTable(NamedTuple):
    """Coefficients of a function in equal segments of an octave.

    The fraction of a word, ``fraction_bits`` wide, is cut into its top `index_bits`, the segment,
    and the rest; ``x`` is the rest minus half of its range, a signed number. The value is, in units
    of ``2**-value_bits``,

        ``(c0 << c0_up) + (c1 + (c2 * x >> c2_down)) * x``

    with a shift that floors. One row is one octave; segments ascend.
    """

    c0: Int64Array
    """Value at the segment's middle, of shape [octaves, segments]."""
    c1: Int64Array
    """Slope there."""
    c2: Int64Array
    """Half of the curvature."""
    index_bits: int
    c0_up: int
    c2_down: int
    value_bits: int


def _quadratic_table(
    function: Callable[[float, int], float], octaves: int, precision: int, fraction_bits: int
) -> QuadraticTable:
    """Table of ``function(significand in [1, 2), octave)`` to `precision` bits after the point.

    A quadratic through the three Chebyshev points of a segment errs by a 192nd of the third
    derivative times the cube of the segment: a third of the precision's bits index segments.
    """
    index_bits = min(precision // 3, fraction_bits - 2)
    width = 2.0**-index_bits
    point = math.sqrt(3) / 4 * width
    rows = np.empty((3, octaves, 1 << index_bits))
    for octave in range(octaves):
        for segment in range(1 << index_bits):
            middle = 1 + (segment + 0.5) * width
            low, at, high = (function(middle + d, octave) for d in (-point, 0.0, point))
            rows[:, octave, segment] = (
                at, (high - low) / (2 * point), (high + low - 2 * at) / (2 * point * point))
    bits = precision + GUARD_BITS
    # An error of x's coefficient counts as much less as x is smaller than one.
    c1_bits = bits - 1 - index_bits
    c2_bits = c1_bits - index_bits
    c0, c1, c2 = (np.floor(np.ldexp(row, at) + 0.5).astype(np.int64)
                  for row, at in zip(rows, (bits, c1_bits, c2_bits), strict=True))
    value_bits = c1_bits + fraction_bits
    return QuadraticTable(c0=c0, c1=c1, c2=c2, index_bits=index_bits, c0_up=value_bits - bits,
                          c2_down=c2_bits + fraction_bits - c1_bits, value_bits=value_bits)


@lru_cache
def reciprocal_table(fmt: Floating) -> QuadraticTable:
    """``1 / m`` for significands m in [1, 2), one octave."""
    return _quadratic_table(lambda m, _: 1 / m, 1, fmt.fraction_bits + 1, fmt.fraction_bits)


@lru_cache
def reciprocal_root_table(fmt: Floating) -> QuadraticTable:
    """``1 / sqrt(m)`` for significands m in [1, 2), and ``1 / sqrt(2 m)`` behind."""
    return _quadratic_table(
        lambda m, octave: 1 / math.sqrt(m * (1 + octave)), 2, fmt.fraction_bits + 1,
        fmt.fraction_bits)


@lru_cache
def log2_table(fmt: Floating, to: Fixed) -> QuadraticTable:
    """``log2(m)`` for significands m in [1, 2), one octave."""
    return _quadratic_table(lambda m, _: math.log2(m), 1, to.frac_bits, fmt.fraction_bits)


def _evaluate(
    table: QuadraticTable, fmt: Floating, octave: int | Int64Array, words: Int64Array,
    frac_bits: int,
) -> Int64Array:
    """Values of `table`, rounded half up to `frac_bits` bits after the point."""
    rest_bits = fmt.fraction_bits - table.index_bits
    segment = (words >> rest_bits) & ((1 << table.index_bits) - 1)
    x = (words & ((1 << rest_bits) - 1)) - (1 << (rest_bits - 1))
    inner = table.c1[octave, segment] + (table.c2[octave, segment] * x >> table.c2_down)
    value = (table.c0[octave, segment] << table.c0_up) + inner * x
    drop = table.value_bits - frac_bits
    return (value + (1 << (drop - 1))) >> drop


def reciprocal(fmt: Floating, a: npt.ArrayLike) -> Int64Array:
    """``1 / a``; of zero the largest number.

    Relative error: at most 1.25 ``fmt.epsilon``, and 0.65 units in the last place; none of powers
    of two. Never ascends where `a` does.
    """
    a = _word(a)
    exponent = (a >> fmt.fraction_bits) & ((1 << fmt.exponent_bits) - 1)
    # From 1/2 to 1, both included.
    value = _evaluate(reciprocal_table(fmt), fmt, 0, a, fmt.fraction_bits + 1)
    word = _pack_array(fmt, 2 * fmt.bias - 1 - exponent, value)
    negative = (a & fmt.sign_bit != 0) & (word > 0)
    return np.where(exponent == 0, fmt.magnitude_max, word | negative * fmt.sign_bit)


def reciprocal_root(fmt: Floating, a: npt.ArrayLike) -> Int64Array:
    """``1 / sqrt(|a|)``; of zero the largest number.

    Relative error: at most 1.25 ``fmt.epsilon``; none of powers of four. Never ascends where
    ``|a|`` does.
    """
    a = _word(a)
    exponent = (a >> fmt.fraction_bits) & ((1 << fmt.exponent_bits) - 1)
    odd = (exponent - fmt.bias) & 1
    # From 1/2 to 1.
    value = _evaluate(reciprocal_root_table(fmt), fmt, odd, a, fmt.fraction_bits + 1)
    word = _pack_array(fmt, fmt.bias - 1 - ((exponent - fmt.bias) >> 1), value)
    return np.where(exponent == 0, fmt.magnitude_max, word)


def log2(fmt: Floating, a: npt.ArrayLike, to: Fixed) -> Int64Array:
    """Raw ``log2(|a|)`` in `to`, saturating; of zero the smallest.

    Error: at most 0.65 units of `to`, if it is no finer than the words; none of powers of two.
    """
    a = _word(a)
    exponent = (a >> fmt.fraction_bits) & ((1 << fmt.exponent_bits) - 1)
    value = _evaluate(log2_table(fmt, to), fmt, 0, a, to.frac_bits)
    raw = to.saturate(((exponent - fmt.bias) << to.frac_bits) + value)
    return np.where(exponent == 0, to.raw_min, raw)


def _pack_array(fmt: Floating, exponent: Int64Array, significand: Int64Array) -> Int64Array:
    """Magnitudes of significands at or just above the leading bit; see :func:`_pack`."""
    hidden = 1 << fmt.fraction_bits
    magnitude = (exponent << fmt.fraction_bits) + significand - hidden
    return np.where(magnitude < hidden, 0, np.minimum(magnitude, fmt.magnitude_max))


def _orders(fmt: Floating, a: npt.ArrayLike) -> Int64Array:
    return np.asarray(_order(_word(a), fmt.exponent_bits, fmt.fraction_bits))


def _word(word: npt.ArrayLike) -> Int64Array:
    return np.asarray(word, np.int64)

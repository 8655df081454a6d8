import math
import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splatforge.algos import floating
from splatforge.designs.fixed import Fixed
from splatforge.designs.floating import BINARY32, Floating

FP = Floating()


@pytest.mark.parametrize(("parts", "text"), [
    ((3, 17), "FP(3,17)"), ((9, 17), "FP(9,17)"), ((8, 3), "FP(8,3)"), ((8, 24), "FP(8,24)")])
def test_parts_are_checked(parts, text):
    message = ("Floating-point format must have 4 to 8 exponent bits and 4 to 23 fraction bits, "
               f"not {text}")
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Floating(exponent_bits=parts[0], fraction_bits=parts[1])


def test_format_by_hand():
    assert (FP.width, FP.bias, FP.sign_bit) == (26, 127, 1 << 25)
    assert FP.quantize([1.0, -2.0, 1.5, 0.0, -0.0]).tolist() == [
        127 << 17, (1 << 25) | 128 << 17, 127 << 17 | 1 << 16, 0, 0]
    assert (FP.smallest, FP.epsilon) == (2.0**-126, 2.0**-18)
    assert FP.largest == 2.0**129 - 2.0**111
    # Zero whatever the fraction or the sign.
    assert FP.to_float([5, FP.sign_bit, FP.sign_bit | 7]).tolist() == [0.0, 0.0, 0.0]


@given(st.floats(-2.0**100, 2.0**100).filter(lambda x: abs(x) > 2.0**-126))
def test_quantize_is_to_nearest(value):
    raw = int(FP.quantize(value))
    assert abs(float(FP.to_float(raw)) - value) <= FP.epsilon * abs(value)
    assert FP.quantize(FP.to_float(raw)) == raw


def test_quantize_at_the_ends():
    step = 2.0**-17
    # Ties away from zero, a carry into the exponent, saturation, and the flush below 2^-126.
    values = [1 + step / 2, -1 - step / 2, 2 - step / 2, 1e300, -math.inf, 2.0**-127,
              2.0**-126 * (1 - step / 4)]
    one, two = 127 << 17, 128 << 17
    assert FP.quantize(values).tolist() == [
        one + 1, FP.sign_bit | one + 1, two, FP.magnitude_max, FP.sign_bit | FP.magnitude_max, 0,
        1 << 17]


@given(st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False))
def test_binary32_is_what_ieee_says(value):
    word = int(np.float32(value).view(np.uint32))
    assert BINARY32.to_float(word) == value


# ---- Arithmetic.

SMALL = Floating(exponent_bits=4, fraction_bits=4)
FORMATS = [Floating(fraction_bits=n) for n in (4, 5, 7, 11, 17, 23)]


def words(fmt, count, seed, *, near=False):
    """Random words, some of zero; `near` with exponents around one's."""
    rng = np.random.default_rng(seed)
    word = rng.integers(1 << fmt.width, size=count)
    if near:
        exponent = fmt.bias + rng.integers(-fmt.fraction_bits // 2, fmt.fraction_bits, count)
        word = (word & ~(fmt.magnitude_max >> fmt.fraction_bits << fmt.fraction_bits)
                | exponent << fmt.fraction_bits)
    # Round numbers meet the ties.
    coarse = rng.random(count) < 0.3
    word[coarse] &= ~((1 << (fmt.fraction_bits // 2)) - 1)
    word[rng.random(count) < 0.02] &= fmt.sign_bit | 3
    return word


def exact(fmt, word):
    exponent = word >> fmt.fraction_bits & ((1 << fmt.exponent_bits) - 1)
    if exponent == 0:
        return Fraction(0)
    significand = word & ((1 << fmt.fraction_bits) - 1) | 1 << fmt.fraction_bits
    value = significand * Fraction(2) ** (exponent - fmt.bias - fmt.fraction_bits)
    return -value if word & fmt.sign_bit else value


def nearest(fmt, value):
    """Word nearest to a fraction, worked out without looking at bits."""
    if value == 0:
        return 0
    size, exponent = abs(value), 0
    while size >= 2:
        size, exponent = size / 2, exponent + 1
    while size < 1:
        size, exponent = size * 2, exponent - 1
    # Half up in magnitude; a carry gives 2, which is the next exponent's 1.
    units = math.floor((size - 1) * 2**fmt.fraction_bits + Fraction(1, 2))
    magnitude = min((exponent + fmt.bias << fmt.fraction_bits) + units, fmt.magnitude_max)
    if magnitude < 1 << fmt.fraction_bits:
        return 0
    return magnitude | (fmt.sign_bit if value < 0 else 0)


def test_all_products_and_sums_of_a_small_format():
    """Float64 holds them exactly, so that rounding them is all there is to do."""
    a, b = np.meshgrid(np.arange(1 << SMALL.width), np.arange(1 << SMALL.width), indexing="ij")
    x, y = SMALL.to_float(a), SMALL.to_float(b)
    np.testing.assert_array_equal(floating.multiply(SMALL, a, b), SMALL.quantize(x * y))
    np.testing.assert_array_equal(floating.add(SMALL, a, b), SMALL.quantize(x + y))
    np.testing.assert_array_equal(floating.subtract(SMALL, a, b), SMALL.quantize(x - y))
    np.testing.assert_array_equal(floating.less(SMALL, a, b), x < y)
    np.testing.assert_array_equal(
        floating.minimum(SMALL, a, b), np.where(y < x, b, a))
    np.testing.assert_array_equal(
        floating.maximum(SMALL, a, b), np.where(x < y, b, a))


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
@pytest.mark.parametrize("near", [False, True])
def test_products_and_sums_are_rounded_once(fmt, near):
    a, b = words(fmt, 3000, 1, near=near), words(fmt, 3000, 2, near=near)
    # Neighbours cancel.
    b[:300] = a[:300] ^ fmt.sign_bit ^ np.random.default_rng(3).integers(4, size=300)
    values = [(exact(fmt, int(x)), exact(fmt, int(y))) for x, y in zip(a, b, strict=True)]
    assert floating.multiply(fmt, a, b).tolist() == [nearest(fmt, x * y) for x, y in values]
    assert floating.add(fmt, a, b).tolist() == [nearest(fmt, x + y) for x, y in values]
    assert floating.subtract(fmt, a, b).tolist() == [nearest(fmt, x - y) for x, y in values]


def test_arithmetic_by_hand():
    one, two = FP.quantize([1, 2]).tolist()
    top, tiny = FP.magnitude_max, 1 << 17
    assert floating.multiply(FP, [one, top, tiny, tiny, 5], [two, two, one - 1, tiny, top]
                             ).tolist() == [two, top, 0, 0, 0]
    # 1 + 2^-18 is a tie and goes up; 1 - 2^-19 is one to 18 bits.
    assert floating.add(FP, one, FP.quantize([2.0**-18, -2.0**-19, -1.0])).tolist() == [
        one + 1, one, 0]
    assert floating.negate(FP, [one, FP.sign_bit | one, 0, FP.sign_bit, 5]).tolist() == [
        FP.sign_bit | one, one, 0, 0, 0]


def fractions(fmt):
    """All fractions in order; of binary32 every 61st."""
    return np.arange(0, 1 << fmt.fraction_bits, 61 if fmt == BINARY32 else 1)


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_reciprocals_of_all_significands(fmt):
    octave = fractions(fmt)
    word = (fmt.bias << fmt.fraction_bits) + octave
    x = fmt.to_float(word)
    got = fmt.to_float(floating.reciprocal(fmt, word))
    assert np.abs(got * x - 1).max() <= 1.25 * fmt.epsilon
    # Units in the last place below one are epsilon.
    assert np.abs(got - 1 / x).max() <= 0.65 * fmt.epsilon
    assert (np.diff(got) <= 0).all()
    assert got[0] == 1
    # From one exponent to another only the exponent changes.
    for shift in (-100, 37, 125):
        shifted = floating.reciprocal(fmt, word + (shift << fmt.fraction_bits) | fmt.sign_bit)
        np.testing.assert_array_equal(fmt.to_float(shifted), -np.ldexp(got, -shift))
    both = np.concatenate([word, word + (1 << fmt.fraction_bits)])
    x = fmt.to_float(both)
    got = fmt.to_float(floating.reciprocal_root(fmt, both))
    assert np.abs(got * np.sqrt(x) - 1).max() <= 1.25 * fmt.epsilon
    assert (np.diff(got) <= 0).all()
    assert got[0] == 1
    for shift in (-126, 30, 126):
        shifted = floating.reciprocal_root(fmt, both + (shift << fmt.fraction_bits) | fmt.sign_bit)
        np.testing.assert_array_equal(fmt.to_float(shifted), np.ldexp(got, -shift // 2))


def test_reciprocals_at_the_ends():
    top, tiny = FP.magnitude_max, 1 << 17
    assert floating.reciprocal(FP, [0, FP.sign_bit | 9, tiny, top, FP.quantize(2.0**126),
                                    FP.quantize(2.0**126) + 1]).tolist() == [
        top, top, FP.quantize(2.0**126), 0, tiny, 0]
    assert floating.reciprocal_root(FP, [0, FP.sign_bit, tiny]).tolist() == [
        top, top, FP.quantize(2.0**63)]


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
@pytest.mark.parametrize("coarser", [0, 2, 10])
def test_logarithms_of_all_significands(fmt, coarser):
    to = Fixed(int_bits=9, frac_bits=max(1, fmt.fraction_bits - coarser), signed=True)
    octave = fractions(fmt)
    for exponent in (fmt.bias, 1, 100, 255):
        word = (exponent << fmt.fraction_bits) + octave | (fmt.sign_bit if exponent == 1 else 0)
        got = to.to_float(floating.log2(fmt, word, to))
        assert np.abs(got - np.log2(np.abs(fmt.to_float(word)))).max() <= 0.65 * to.resolution
        assert got[0] == exponent - fmt.bias
    assert floating.log2(fmt, [0, fmt.sign_bit], to).tolist() == [to.raw_min] * 2
    narrow = Fixed(int_bits=3, frac_bits=7)
    assert floating.log2(fmt, fmt.quantize([2.0**20, 0.5, 8.0]), narrow).tolist() == [
        narrow.raw_max, 0, 384]


@pytest.mark.parametrize("to", [
    Fixed(int_bits=15, frac_bits=12, signed=True), Fixed(int_bits=3, frac_bits=7),
    Fixed(int_bits=62, frac_bits=0), Fixed(int_bits=2, frac_bits=40, signed=True)], ids=str)
def test_fixed_point(to):
    word = np.concatenate([words(FP, 3000, 4), words(FP, 3000, 5, near=True)])
    got = floating.to_fixed(FP, word, to).tolist()
    for have, at in zip(got, word.tolist(), strict=True):
        value = exact(FP, at) * 2**to.frac_bits
        want = min(math.floor(abs(value) + Fraction(1, 2)), to.raw_max)
        assert have == (want if value >= 0 else -want if to.signed else 0)
    up = floating.ceil_fixed(FP, word, to).tolist()
    assert up == [min(math.ceil(abs(exact(FP, at)) * 2**to.frac_bits), to.raw_max)
                  for at in word.tolist()]


def test_binary32_and_back():
    word = words(BINARY32, 3000, 8)
    word[:4] = [BINARY32.magnitude_max, BINARY32.sign_bit | 5, (128 << 23) - 1, (1 << 23) - 1]
    narrow = floating.narrow(FP, word, BINARY32)
    assert narrow.tolist() == [nearest(FP, exact(BINARY32, at)) for at in word.tolist()]
    assert floating.narrow(FP, FP.sign_bit | 9, FP) == 0
    wide = floating.to_binary32(FP, narrow)
    assert wide.dtype == np.uint32
    np.testing.assert_array_equal(BINARY32.to_float(wide), FP.to_float(narrow))

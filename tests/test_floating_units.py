"""Floating-point pipelines against the bit-true operations, word for word."""

import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from amaranth.hdl import Value

from splatforge.algos import floating
from splatforge.designs.fixed import Fixed
from splatforge.designs.floating import BINARY32, Floating
from splatforge.hw.lib.floating import (
    Add,
    Compare,
    Log2,
    Multiply,
    Narrow,
    Reciprocal,
    ToFixed,
    WideMultiply,
)

sys.path.insert(0, str(Path(__file__).parent))
import streams

FP = Floating()
FORMATS = [FP, Floating(exponent_bits=5, fraction_bits=10), BINARY32]
#: Means, colours, and what no word of a small format reaches.
FIXED = (Fixed(int_bits=15, frac_bits=12, signed=True), Fixed(int_bits=2, frac_bits=8),
         Fixed(int_bits=1, frac_bits=0, signed=True), Fixed(int_bits=3, frac_bits=20, signed=True))
EACH = pytest.mark.parametrize("fmt", FORMATS, ids=str)


def corners(fmt):
    """Zeros of all kinds, the ends of the range, powers of two and their neighbours."""
    one = fmt.bias << fmt.fraction_bits
    words = [0, 1, (1 << fmt.fraction_bits) - 1, 1 << fmt.fraction_bits,
             (1 << fmt.fraction_bits) + 1, fmt.magnitude_max, fmt.magnitude_max - 1,
             one - 1, one, one + 1, one + (1 << fmt.fraction_bits) - 1,
             one + (1 << fmt.fraction_bits), one + (1 << (fmt.fraction_bits - 1))]
    return np.array(words + [word | fmt.sign_bit for word in words])


def pairs(fmt, count, seed):
    """All pairs of corners; words of any bits; and words that nearly cancel."""
    rng = np.random.default_rng(seed)
    a, b = (axis.reshape(-1) for axis in np.meshgrid(corners(fmt), corners(fmt)))
    any_a, any_b = rng.integers(0, 1 << fmt.width, (2, count))
    # Exponents that differ by little, of either sign.
    exponent = rng.integers(0, fmt.fraction_bits + 6, count)
    low = any_a & fmt.magnitude_max
    near = np.clip(low + rng.integers(-3, 4, count) * rng.integers(0, 2, count)
                   - (exponent * rng.integers(0, 2, count) << fmt.fraction_bits),
                   0, fmt.magnitude_max)
    near ^= rng.integers(0, 1 << fmt.fraction_bits, count) * rng.integers(0, 2, count)
    near |= rng.integers(0, 2, count) * fmt.sign_bit
    return np.concatenate([a, any_a, any_a]), np.concatenate([b, any_b, near])


@cache
def bench(unit, *arguments):
    return streams.Bench(unit(*arguments))


def play(unit, arguments, inputs, outputs):
    """Each output's values, for operands in every cycle, `latency` cycles behind them."""
    held = bench(unit, *arguments)
    dut, got = held.dut, {name: [] for name in outputs}
    count = len(next(iter(inputs.values())))

    async def scenario(ctx):
        for cycle in range(count + dut.latency):
            for name, words in inputs.items():
                ctx.set(getattr(dut, name), int(words[min(cycle, count - 1)]))
            _, _, *seen = await ctx.tick().sample(
                *(Value.cast(getattr(dut, name)) for name in outputs))
            if cycle >= dut.latency:
                for name, value in zip(outputs, seen, strict=True):
                    got[name].append(value)

    held.play(scenario)
    return [np.array(got[name]) for name in outputs]


@EACH
@pytest.mark.parametrize(("unit", "operation"), [
    (Multiply, floating.multiply), (WideMultiply, floating.multiply), (Add, floating.add)])
def test_sums_and_products(fmt, unit, operation):
    a, b = pairs(fmt, 1200, 1)
    (got,) = play(unit, (fmt,), {"a": a, "b": b}, ["o"])
    np.testing.assert_array_equal(got, operation(fmt, a, b))


@EACH
def test_order(fmt):
    a, b = pairs(fmt, 300, 2)
    for largest, operation in ((0, floating.minimum), (1, floating.maximum)):
        got, less = play(Compare, (fmt,), {
            "a": a, "b": b, "told": a * 0, "first": b & 1, "largest": a * 0 + largest},
            ["o", "less"])
        np.testing.assert_array_equal(got, operation(fmt, a, b))
        np.testing.assert_array_equal(less, floating.less(fmt, a, b))


def test_choice():
    a, b = pairs(FP, 30, 3)
    first = np.random.default_rng(3).integers(0, 2, len(a))
    (got,) = play(Compare, (FP,), {
        "a": a, "b": b, "told": a * 0 + 1, "first": first, "largest": b & 1}, ["o"])
    np.testing.assert_array_equal(got, np.where(first, a, b))


@EACH
def test_reciprocals(fmt):
    a, _ = pairs(fmt, 600, 4)
    root = np.random.default_rng(4).integers(0, 2, len(a))
    (got,) = play(Reciprocal, (fmt,), {"a": a, "root": root}, ["o"])
    np.testing.assert_array_equal(got, np.where(
        root, floating.reciprocal_root(fmt, a), floating.reciprocal(fmt, a)))


@EACH
@pytest.mark.parametrize("to", [
    Fixed(int_bits=9, frac_bits=7, signed=True), Fixed(int_bits=3, frac_bits=7)], ids=str)
def test_logarithm(fmt, to):
    a, _ = pairs(fmt, 600, 5)
    (got,) = play(Log2, (to, fmt), {"a": a}, ["o"])
    np.testing.assert_array_equal(got, floating.log2(fmt, a, to))


@EACH
def test_to_fixed(fmt):
    rng = np.random.default_rng(6)
    a, _ = pairs(fmt, 300, 6)
    # Where the formats have their points and ends.
    exponent = rng.integers(-25, 20, 1200) + fmt.bias
    near = (np.clip(exponent, 0, 2 * fmt.bias) << fmt.fraction_bits
            | rng.integers(0, 1 << fmt.fraction_bits, 1200)
            | rng.integers(0, 2, 1200) * fmt.sign_bit)
    a = np.concatenate([a, near])
    number = rng.integers(0, len(FIXED), len(a))
    ceil = rng.integers(0, 2, len(a))
    (got,) = play(ToFixed, (FIXED, fmt), {"a": a, "format": number, "ceil": ceil}, ["o"])
    nearest, above = (np.choose(number, [operation(fmt, a, to) for to in FIXED])
                      for operation in (floating.to_fixed, floating.ceil_fixed))
    np.testing.assert_array_equal(got, np.where(ceil, above, nearest))


@pytest.mark.parametrize("fmt", [FP, BINARY32], ids=str)
def test_narrow_words(fmt):
    a, _ = pairs(BINARY32, 1200, 7)
    # All ones up to a carry, and zeros with other bits set.
    a[:4] = [BINARY32.magnitude_max, (128 << 23) - 1, (1 << 23) - 1, BINARY32.sign_bit | 1]
    (got,) = play(Narrow, (fmt, BINARY32), {"a": a}, ["o"])
    np.testing.assert_array_equal(got, floating.narrow(fmt, a, BINARY32))

"""Floating-point arithmetic in pipelines; twin of :mod:`splatforge.algos.floating`.

Every unit takes operands in every cycle and gives the result :attr:`latency` cycles later; no stage
holds more than one multiplication of significands, one addition or one shift. A stall of a whole
pipeline is :class:`amaranth.hdl.EnableInserter`'s business. Formats: words of
:class:`splatforge.designs.floating.Floating`.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from amaranth.hdl import *
from amaranth.lib import data
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from splatforge.algos.floating import (
    QuadraticTable,
    log2_table,
    reciprocal_root_table,
    reciprocal_table,
)
from splatforge.designs.fixed import Fixed
from splatforge.designs.floating import BINARY32, Floating
from splatforge.hw.lib.component import Component

__all__ = ["Add", "Compare", "Log2", "Multiply", "Narrow", "Reciprocal", "ToFixed", "WideMultiply"]


def _exponent(word: Value, fmt: Floating) -> Value:
    return word[fmt.fraction_bits:fmt.width - 1]


def _significand(word: Value, fmt: Floating) -> Value:
    """Fraction with the leading one."""
    return Cat(word[:fmt.fraction_bits], C(1, 1))


def _limited(magnitude: Value, fmt: Floating) -> Value:
    """A signed magnitude in the range of words: saturating, flushing to zero."""
    top = magnitude[fmt.width - 1:]
    small = ~magnitude[fmt.fraction_bits:].any()
    return Mux(magnitude[-1] | small, 0, Mux(top.any(), fmt.magnitude_max,
                                             magnitude[:fmt.width - 1]))


def _signed(negative: Value, magnitude: Value, fmt: Floating) -> Value:
    """Word of a sign and a magnitude; zero has no sign."""
    return Cat(magnitude, negative & magnitude[fmt.fraction_bits:].any())


def _leading_zeros(value: Value) -> Value:
    """Number of zeros in front of the leading one; one less than all for a value of zero."""
    length = 1 << (len(value) - 1).bit_length()

    def count(part: Value) -> Value:
        if len(part) == 2:
            return ~part[1]
        half = len(part) // 2
        found = part[half:].any()
        return Cat(Mux(found, count(part[half:]), count(part[:half])), ~found)

    return count(Cat(C(~0, length - len(value)), value))


class Multiply(Component):
    """``a * b``, see :func:`splatforge.algos.floating.multiply`.

    One multiplier of ``fraction_bits + 1`` bits, unsigned.

    Parameters
    ----------
    fmt : Floating
        Of operands and result.

    Members
    -------
    a, b : ``In(fmt.width)``
        Operands.
    o : ``Out(fmt.width)``
        Product.
    """

    #: Cycles from operands to the product.
    latency = 3

    def __init__(self, fmt: Floating = Floating()) -> None:  # noqa: B008
        self.fmt = fmt
        super().__init__({"a": In(fmt.width), "b": In(fmt.width), "o": Out(fmt.width)})

    def elaborate(self, platform):
        m = Module()
        fmt, fraction = self.fmt, self.fmt.fraction_bits
        # 1: the product, from 1 to just below 4.
        product = self._product(m, _significand(self.a, fmt), _significand(self.b, fmt))
        early = self.latency - 2
        exponents = [Signal(signed(fmt.exponent_bits + 2), name=f"exponent_{n}")
                     for n in range(early)]
        negative, zeros = Signal(early + 1), Signal(early)
        exponent, zero = exponents[-1], zeros[-1]
        a, b = _exponent(self.a, fmt), _exponent(self.b, fmt)
        m.d.sync += [
            exponents[0].eq(a + b - fmt.bias),
            *(after.eq(before) for before, after in pairwise(exponents)),
            negative.eq(Cat(self.a[-1] ^ self.b[-1], negative)),
            zeros.eq(Cat(~a.any() | ~b.any(), zeros)),
        ]
        # 2: rounded; a carry goes from the fraction into the exponent.
        magnitude = Signal(signed(len(exponent) + fraction))
        nothing = Signal()
        carry = product[-1]
        kept = Mux(carry, product[fraction + 1:-1], product[fraction:-2])
        half = Mux(carry, product[fraction], product[fraction - 1])
        m.d.sync += [
            magnitude.eq(Cat(kept, exponent).as_signed() + Cat(half, C(0, fraction - 1), carry)),
            nothing.eq(zero),
        ]
        # 3: within the range.
        m.d.sync += self.o.eq(Mux(
            nothing, 0, _signed(negative[-1], _limited(magnitude, fmt), fmt)))
        return m

    def _product(self, m, a: Value, b: Value) -> Value:
        product = Signal(len(a) + len(b))
        m.d.sync += product.eq(a * b)
        return product


class WideMultiply(Multiply):
    """``a * b`` of words whose significands are too wide for one multiplier of an FPGA.

    Four multipliers of half the width, and a stage that adds their products.
    """

    #: Cycles from operands to the product.
    latency = 4

    def _product(self, m, a: Value, b: Value) -> Value:
        half = len(a) // 2
        parts = {}
        for left, at_left in ((a[:half], 0), (a[half:], half)):
            for right, at_right in ((b[:half], 0), (b[half:], half)):
                part = Signal(len(left) + len(right), name=f"part_{at_left}_{at_right}")
                m.d.sync += part.eq(left * right)
                parts[at_left, at_right] = part
        product = Signal(len(a) + len(b))
        m.d.sync += product.eq(Cat(parts[0, 0], parts[half, half])
                               + ((parts[0, half] + parts[half, 0]) << half))
        return product


class Add(Component):
    """``a + b``, see :func:`splatforge.algos.floating.add`.

    Parameters
    ----------
    fmt : Floating
        Of operands and result.

    Members
    -------
    a, b : ``In(fmt.width)``
        Operands.
    o : ``Out(fmt.width)``
        Sum.
    """

    #: Cycles from operands to the sum.
    latency = 7

    def __init__(self, fmt: Floating = Floating()) -> None:  # noqa: B008
        self.fmt = fmt
        super().__init__({"a": In(fmt.width), "b": In(fmt.width), "o": Out(fmt.width)})

    def elaborate(self, platform):
        m = Module()
        fmt, fraction = self.fmt, self.fmt.fraction_bits
        # 1: the larger magnitude in front; how far the smaller lies below it.
        swap = Signal()
        ahead, behind = (Signal(signed(fmt.exponent_bits + 1), name=name)
                         for name in ("ahead", "behind"))
        distance = Signal(fmt.exponent_bits)
        farthest = fraction + 3
        large, small = Signal(fraction + 1), Signal(fraction + 1)
        exponents = [Signal(fmt.exponent_bits, name=f"exponent_{n}") for n in range(4)]
        negatives, subtracts = Signal(6), Signal(2)
        down, far = Signal(range(farthest + 1)), Signal()
        a, b = _exponent(self.a, fmt), _exponent(self.b, fmt)
        m.d.comb += [
            swap.eq(self.a[:-1] < self.b[:-1]), ahead.eq(a - b), behind.eq(b - a),
            # By the exponents alone, which is earlier there.
            distance.eq(Mux(ahead[-1], behind, ahead)),
        ]
        m.d.sync += [
            large.eq(_significand(Mux(swap, self.b, self.a), fmt)),
            small.eq(Mux(Mux(swap, a.any(), b.any()),
                         _significand(Mux(swap, self.a, self.b), fmt), 0)),
            exponents[0].eq(Mux(swap, b, a)),
            *(after.eq(before) for before, after in pairwise(exponents)),
            negatives.eq(Cat(Mux(swap, self.b[-1], self.a[-1]), negatives)),
            subtracts.eq(Cat(self.a[-1] ^ self.b[-1], subtracts)),
            down.eq(distance), far.eq(distance[len(down):].any()),
        ]
        # 2: the smaller one shifted to the larger, two guard bits below; what is lost of it.
        shifted, below = Signal(fraction + 3), Signal(farthest)
        before = Signal.like(large)
        long = Signal(2 * fraction + 6)
        m.d.comb += long.eq((small << (farthest + 2)) >> down)
        # The leading one stays within what is looked at, unless it is far: then all is lost.
        m.d.sync += [
            shifted.eq(Mux(far, 0, long[farthest:])),
            below.eq(Mux(far, small[-1], long[:farthest])), before.eq(large),
        ]
        # 3: the sum.
        total = Signal(fraction + 4)
        inverted = Cat(shifted, C(0, 1)) ^ subtracts[1].replicate(len(total))
        m.d.sync += total.eq((before << 2) + inverted + (subtracts[1] & ~below.any()))
        # 4: how many zeros stand in front of it.
        held, zeros = Signal.like(total), Signal(range(len(total)))
        m.d.sync += [held.eq(total), zeros.eq(_leading_zeros(total))]
        # 5: the leading one in its place.
        normal = Signal.like(total)
        exponent, nothings = Signal(signed(fmt.exponent_bits + 2)), Signal(2)
        m.d.sync += [
            normal.eq(held << zeros), exponent.eq(exponents[3] - zeros + 1),
            nothings.eq(Cat(~held.any() | ~exponents[3].any(), nothings)),
        ]
        # 6: rounded.
        magnitude = Signal(signed(len(exponent) + fraction))
        m.d.sync += magnitude.eq(Cat(normal[3:-1], exponent).as_signed() + normal[2])
        # 7: within the range.
        m.d.sync += self.o.eq(Mux(
            nothings[1], 0, _signed(negatives[5], _limited(magnitude, fmt), fmt)))
        return m


class Narrow(Component):
    """A wide word as a narrow one, see :func:`splatforge.algos.floating.narrow`.

    Parameters
    ----------
    fmt : Floating
        Of the result.
    wide : Floating
        Of the operand: as many exponent bits, a finer fraction.

    Members
    -------
    a : ``In(wide.width)``
        Operand.
    o : ``Out(fmt.width)``
        Result.
    """

    #: Cycles from the operand to the result.
    latency = 1

    def __init__(
        self, fmt: Floating = Floating(), wide: Floating = BINARY32  # noqa: B008
    ) -> None:
        self.fmt, self.wide = fmt, wide
        super().__init__({"a": In(wide.width), "o": Out(fmt.width)})

    def elaborate(self, platform):
        m = Module()
        fmt, drop = self.fmt, self.wide.fraction_bits - self.fmt.fraction_bits
        # A carry out of the largest exponent saturates.
        magnitude = Signal(fmt.width)
        m.d.comb += magnitude.eq(self.a[drop:-1] + (self.a[drop - 1] if drop else 0))
        m.d.sync += self.o.eq(Mux(_exponent(self.a, self.wide).any(), Cat(
            Mux(magnitude[-1], fmt.magnitude_max, magnitude[:-1]), self.a[-1]), 0))
        return m


class Compare(Component):
    """The order of two words: ``less``, ``minimum``, ``maximum``; or a choice that is told.

    See :func:`splatforge.algos.floating.less`, :func:`splatforge.algos.floating.minimum` and
    :func:`splatforge.algos.floating.maximum`.

    Parameters
    ----------
    fmt : Floating
        Of the operands.

    Members
    -------
    a, b : ``In(fmt.width)``
        Operands.
    told, first : ``In(1)``
        Whether `o` is told to be `a` or `b`, and which, or is to follow from the order.
    largest : ``In(1)``
        Which of the two `o` is to be: the larger one or the smaller one.
    o : ``Out(fmt.width)``
        One of the operands; `a` if they are equal.
    less : ``Out(1)``
        ``a < b``.
    """

    #: Cycles from operands to results.
    latency = 2

    def __init__(self, fmt: Floating = Floating()) -> None:  # noqa: B008
        self.fmt = fmt
        super().__init__({
            "a": In(fmt.width), "b": In(fmt.width), "told": In(1), "first": In(1),
            "largest": In(1), "o": Out(fmt.width), "less": Out(1)})

    def elaborate(self, platform):
        m = Module()
        fmt = self.fmt
        a, b = self.a, self.b
        zero_a, zero_b = ~_exponent(a, fmt).any(), ~_exponent(b, fmt).any()
        below, above = Signal(), Signal()
        less, more = Signal(), Signal()
        m.d.comb += [
            below.eq(Mux(zero_a, ~zero_b, a[:-1] < b[:-1])),
            above.eq(Mux(zero_b, ~zero_a, b[:-1] < a[:-1])),
        ]
        # By the signs of a and b: a negative one is less unless both are zero.
        with m.Switch(Cat(a[-1], b[-1])):
            with m.Case(0b00):
                m.d.comb += [less.eq(below), more.eq(above)]
            with m.Case(0b11):
                m.d.comb += [less.eq(above), more.eq(below)]
            with m.Case(0b01):
                m.d.comb += less.eq(~(zero_a & zero_b))
            with m.Case(0b10):
                m.d.comb += more.eq(~(zero_a & zero_b))
        # 1: the order; of equal operands the first. 2: the choice.
        other = Signal()
        first, second = Signal.like(a), Signal.like(b)
        less_before = Signal()
        m.d.sync += [
            other.eq(Mux(self.told, ~self.first, Mux(self.largest, less, more))),
            less_before.eq(less), first.eq(a), second.eq(b),
            self.less.eq(less_before), self.o.eq(Mux(other, second, first)),
        ]
        return m


class _Quadratic(Component):
    """A function from a table of quadratics, see :class:`splatforge.algos.floating.QuadraticTable`.

    Two multipliers, each of at most 18 bits.

    Parameters
    ----------
    fmt : Floating
        Of the operand.
    tables : sequence of QuadraticTable
        What differs in the coefficients only; their octaves stand one behind the other.
    frac_bits : int
        Bits of the result after the point.

    Members
    -------
    octave : ``In(range)``
        Number of the octave.
    fraction : ``In(fmt.fraction_bits)``
        Of the operand.
    o : ``Out(signed)``
        The result, rounded half up.
    """

    #: Cycles from the operand to the result.
    latency = 6

    def __init__(self, fmt: Floating, tables: Sequence[QuadraticTable], frac_bits: int) -> None:
        self.fmt, self.frac_bits = fmt, frac_bits
        self.table = table = tables[0]
        self.rows = [row for t in tables for row in zip(
            t.c0.reshape(-1).tolist(), t.c1.reshape(-1).tolist(), t.c2.reshape(-1).tolist(),
            strict=True)]
        octaves = len(self.rows) >> table.index_bits
        super().__init__({
            "octave": In(range(max(2, octaves))), "fraction": In(fmt.fraction_bits),
            "o": Out(signed(frac_bits + 2))})

    def elaborate(self, platform):
        m = Module()
        table = self.table
        drop = table.value_bits - self.frac_bits
        rest = self.fmt.fraction_bits - table.index_bits

        def width(values: Sequence[int]) -> int:
            return max(max(v, ~v).bit_length() for v in values) + 1

        # Half a unit of the result is added in the table, whose guard bits reach below it.
        half = 1 << (drop - 1 - table.c0_up)
        columns = [[row[0] + half for row in self.rows], *(
            [row[n] for row in self.rows] for n in (1, 2))]
        layout = data.StructLayout({
            f"c{n}": signed(width(column)) for n, column in enumerate(columns)})
        init: Any = [{f"c{n}": value for n, value in enumerate(row)}
                     for row in zip(*columns, strict=True)]
        m.submodules.rom = rom = Memory(shape=layout, depth=len(init), init=init)
        read = rom.read_port()
        # 1, 2: the coefficients; a block memory's output needs a register behind it.
        x = [Signal(signed(rest), name=f"x_{n}") for n in range(4)]
        m.d.comb += read.addr.eq(Cat(self.fraction[rest:], self.octave))
        # Minus half of the range: the top bit turned, as a sign.
        m.d.sync += x[0].eq(Cat(self.fraction[:rest - 1], ~self.fraction[rest - 1]).as_signed())
        c0 = [Signal.like(read.data.c0, name=f"c0_{n}") for n in range(4)]
        c1 = [Signal.like(read.data.c1, name=f"c1_{n}") for n in range(2)]
        c2 = Signal.like(read.data.c2)
        m.d.sync += [
            c0[0].eq(read.data.c0), c1[0].eq(read.data.c1), c2.eq(read.data.c2),
            *(after.eq(before) for line in (x, c0, c1) for before, after in pairwise(line)),
        ]
        # 3 to 6: product, sum, product, sum.
        bend = Signal.like(c2 * x[1])
        slope = Signal(signed(len(c1[0]) + 1))
        change = Signal.like(slope * x[0])
        m.d.sync += [
            bend.eq(c2 * x[1]), slope.eq(c1[1] + (bend >> table.c2_down)),
            change.eq(slope * x[3]),
            self.o.eq(((c0[3] << table.c0_up) + change) >> drop),
        ]
        return m


class Reciprocal(Component):
    """``1 / a`` or ``1 / sqrt(|a|)``.

    See :func:`splatforge.algos.floating.reciprocal` and
    :func:`splatforge.algos.floating.reciprocal_root`.

    Parameters
    ----------
    fmt : Floating
        Of operand and result.

    Members
    -------
    a : ``In(fmt.width)``
        Operand.
    root : ``In(1)``
        Which of the two.
    o : ``Out(fmt.width)``
        Result.
    """

    #: Cycles from the operand to the result.
    latency = 7

    def __init__(self, fmt: Floating = Floating()) -> None:  # noqa: B008
        self.fmt = fmt
        super().__init__({"a": In(fmt.width), "root": In(1), "o": Out(fmt.width)})

    def elaborate(self, platform):
        m = Module()
        fmt, fraction = self.fmt, self.fmt.fraction_bits
        m.submodules.quadratic = quadratic = _Quadratic(
            fmt, (reciprocal_table(fmt), reciprocal_root_table(fmt)), fraction + 1)
        exponent = _exponent(self.a, fmt)
        # The bias is odd: exponents that are even are odd powers of two.
        m.d.comb += [
            quadratic.fraction.eq(self.a[:fraction]),
            quadratic.octave.eq(Mux(self.root, Mux(exponent[0], 1, 2), 0)),
        ]
        passing = data.StructLayout({
            "exponent": signed(fmt.exponent_bits + 2), "negative": 1, "zero": 1})
        stages = [Signal(passing, name=f"stage_{n}") for n in range(quadratic.latency)]
        offset = Signal(signed(fmt.exponent_bits + 1))
        m.d.comb += offset.eq(exponent - fmt.bias)
        m.d.sync += [
            stages[0].exponent.eq(fmt.bias - 1 - Mux(self.root, offset >> 1, offset)),
            stages[0].negative.eq(self.a[-1] & ~self.root), stages[0].zero.eq(~exponent.any()),
            *(after.eq(before) for before, after in pairwise(stages)),
        ]
        last = stages[-1]
        # From 1/2 to 1: the leading one is the exponent's, and one is a carry into it.
        magnitude = Signal(signed(fmt.exponent_bits + 3 + fraction))
        m.d.comb += magnitude.eq(
            Cat(quadratic.o[:fraction], last.exponent + quadratic.o[fraction + 1]).as_signed())
        m.d.sync += self.o.eq(Mux(
            last.zero, fmt.magnitude_max,
            _signed(last.negative, _limited(magnitude, fmt), fmt)))
        return m


class Log2(Component):
    """``log2(|a|)`` in fixed point, see :func:`splatforge.algos.floating.log2`.

    Parameters
    ----------
    fmt : Floating
        Of the operand.
    to : Fixed
        Of the result.

    Members
    -------
    a : ``In(fmt.width)``
        Operand.
    o : ``Out(to.width)``
        Raw result, signed as `to` is.
    """

    #: Cycles from the operand to the result.
    latency = 7

    def __init__(self, to: Fixed, fmt: Floating = Floating()) -> None:  # noqa: B008
        self.fmt, self.to = fmt, to
        super().__init__({"a": In(fmt.width), "o": Out(Shape(to.width, signed=to.signed))})

    def elaborate(self, platform):
        m = Module()
        fmt, to = self.fmt, self.to
        m.submodules.quadratic = quadratic = _Quadratic(
            fmt, (log2_table(fmt, to),), to.frac_bits)
        exponent = _exponent(self.a, fmt)
        m.d.comb += quadratic.fraction.eq(self.a[:fmt.fraction_bits])
        stages = [Signal(data.StructLayout({"octaves": signed(fmt.exponent_bits + 1), "zero": 1}),
                         name=f"stage_{n}") for n in range(quadratic.latency)]
        m.d.sync += [
            stages[0].octaves.eq(exponent - fmt.bias), stages[0].zero.eq(~exponent.any()),
            *(after.eq(before) for before, after in pairwise(stages)),
        ]
        last = stages[-1]
        value = Signal(signed(fmt.exponent_bits + 2 + to.frac_bits))
        m.d.comb += value.eq((last.octaves << to.frac_bits) + quadratic.o)
        m.d.sync += self.o.eq(Mux(
            last.zero | (value < to.raw_min), to.raw_min,
            Mux(value > to.raw_max, to.raw_max, value)))
        return m


class ToFixed(Component):
    """A word in fixed point: rounded to nearest, or its magnitude rounded up.

    See :func:`splatforge.algos.floating.to_fixed` and
    :func:`splatforge.algos.floating.ceil_fixed`.

    Parameters
    ----------
    formats : sequence of Fixed
        Formats of results.
    fmt : Floating
        Of the operand.

    Members
    -------
    a : ``In(fmt.width)``
        Operand.
    format : ``In(range(len(formats)))``
        Number of the result's format; a bit if there is one alone.
    ceil : ``In(1)``
        Whether the magnitude is rounded up.
    o : ``Out(signed)``
        Raw result, as wide as the widest of them.
    """

    #: Cycles from the operand to the result.
    latency = 6

    def __init__(self, formats: Sequence[Fixed], fmt: Floating = Floating()) -> None:  # noqa: B008
        self.formats, self.fmt = tuple(formats), fmt
        #: Bits of a magnitude that does not saturate in any format.
        self.bits = max(to.raw_max.bit_length() for to in self.formats) + 1
        super().__init__({
            "a": In(fmt.width), "format": In(range(max(2, len(self.formats)))), "ceil": In(1),
            "o": Out(signed(self.bits + 1))})

    def elaborate(self, platform):
        m = Module()
        fmt, fraction, bits = self.fmt, self.fmt.fraction_bits, self.bits
        formats = [self.format] + [Signal.like(self.format, name=f"format_{n}") for n in range(5)]
        negatives, ceils = Signal(5), Signal(3)
        m.d.sync += [
            *(after.eq(before) for before, after in pairwise(formats)),
            negatives.eq(Cat(self.a[-1] & ~self.ceil, negatives)),
            ceils.eq(Cat(self.ceil, ceils)),
        ]
        # 1: how far up from where the last half unit is just lost.
        frac_bits, amount = Signal(range(max(to.frac_bits for to in self.formats) + 1)), Signal(
            signed(fmt.exponent_bits + 3))
        early = Signal(fraction + 1)
        exponent = _exponent(self.a, fmt)
        with m.Switch(self.format):
            for number, to in enumerate(self.formats):
                with m.Case(number):
                    m.d.comb += frac_bits.eq(to.frac_bits)
        m.d.sync += [
            amount.eq(exponent + frac_bits - (fmt.bias - 2)),
            early.eq(Mux(exponent.any(), _significand(self.a, fmt), 0)),
        ]
        # 2: within what there is; a magnitude that needs more bits saturates.
        farthest = bits + 1
        up, significand, beyond = Signal(range(farthest + 1)), Signal(fraction + 1), Signal(3)
        m.d.sync += [
            up.eq(Mux(amount < 0, 0, Mux(amount > farthest, farthest, amount))),
            beyond.eq(Cat(amount > farthest, beyond)), significand.eq(early),
        ]
        # 3: in its place, with half a unit below the point; and what is below that.
        shifted, rest = Signal(bits + 1), Signal(fraction + 1)
        m.d.sync += Cat(rest, shifted).eq(significand << up)
        # 4: rounded.
        magnitude = Signal(bits + 1)
        m.d.sync += magnitude.eq(shifted[1:] + (shifted[0] | (rest.any() & ceils[2])))
        # 5: in the range; 6: with its sign.
        limited = Signal(bits)
        with m.Switch(formats[4]):
            for number, to in enumerate(self.formats):
                with m.Case(number):
                    m.d.sync += limited.eq(Mux(
                        beyond[2] | (magnitude > to.raw_max), to.raw_max, magnitude))
        with m.Switch(formats[5]):
            for number, to in enumerate(self.formats):
                with m.Case(number):
                    m.d.sync += self.o.eq(Mux(
                        negatives[4], -limited if to.signed else 0, limited))
        return m

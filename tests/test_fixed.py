import math
import re

import numpy as np
import pytest
from amaranth.hdl import Module, Shape, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator
from hypothesis import given
from hypothesis import strategies as st

from splatforge.algos.fixed import round_shift
from splatforge.designs.fixed import Fixed
from splatforge.hw.lib import fixed as hardware


@st.composite
def formats(draw, widest: int = 62) -> Fixed:
    signed = draw(st.booleans())
    width = draw(st.integers(1, widest))
    int_bits = draw(st.integers(int(signed), width))
    return Fixed(int_bits=int_bits, frac_bits=width - int_bits, signed=signed)


@pytest.mark.parametrize(("parts", "text"), [
    ({"int_bits": -1, "frac_bits": 4}, "UQ(-1,4)"),
    ({"int_bits": 4, "frac_bits": -1}, "UQ(4,-1)"),
    ({"int_bits": 0, "frac_bits": 0}, "UQ(0,0)"),
    ({"int_bits": 31, "frac_bits": 32, "signed": True}, "SQ(31,32)"),
])
def test_parts_are_checked(parts, text):
    message = f"Fixed-point format must have non-negative parts and 1 to 62 bits, not {text}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Fixed(**parts)


def test_sign_bit_is_checked():
    message = re.escape("Signed fixed-point format must have a sign bit, not SQ(0,8)")
    with pytest.raises(ValueError, match=f"^{message}$"):
        Fixed(int_bits=0, frac_bits=8, signed=True)


def test_notation_counts_the_sign_bit():
    assert str(Fixed(int_bits=3, frac_bits=10, signed=True)) == "SQ(3,10)"
    assert str(Fixed(int_bits=0, frac_bits=14)) == "UQ(0,14)"
    form = Fixed(int_bits=3, frac_bits=10, signed=True)
    assert (form.width, form.raw_min, form.raw_max) == (13, -4096, 4095)
    assert form.to_float(form.raw_min) == -4.0
    assert form.to_float([1024, -512]).tolist() == [1.0, -0.5]


@given(formats())
def test_range_is_that_of_the_bits(fmt):
    assert fmt.raw_max - fmt.raw_min + 1 == 1 << fmt.width
    assert fmt.resolution == math.ldexp(1, -fmt.frac_bits)
    assert hardware.shape_of(fmt) == Shape(fmt.width, signed=fmt.signed)


# Up to 52 bits float64 holds every raw integer and its half.
@given(formats(52), st.data())
def test_quantize_inverts_to_float(fmt, draw):
    raw = draw.draw(st.integers(fmt.raw_min, fmt.raw_max))
    assert fmt.quantize(fmt.to_float(raw)) == raw


@given(formats(40), st.data())
def test_quantize_is_nearest_with_ties_up_and_saturates(fmt, draw):
    value = draw.draw(st.floats(-2.0**45, 2.0**45)) * fmt.resolution
    got = int(fmt.quantize(value))
    low, high = fmt.to_float(fmt.raw_min), fmt.to_float(fmt.raw_max)
    if value <= low:
        assert got == fmt.raw_min
    elif value >= high:
        assert got == fmt.raw_max
    else:
        # Half open: a tie is half a unit above the value, never below.
        assert -0.5 < got - value / fmt.resolution <= 0.5


def test_quantize_saturates_the_infinite():
    fmt = Fixed(int_bits=3, frac_bits=10, signed=True)
    assert fmt.quantize([-np.inf, np.inf, -1e300, 1e300]).tolist() == [-4096, 4095, -4096, 4095]


@given(formats(), st.integers(-(2**62), 2**62))
def test_saturate_is_the_nearest_in_range(fmt, raw):
    assert fmt.saturate(raw) == min(max(raw, fmt.raw_min), fmt.raw_max)


@given(st.integers(-(2**61), 2**61), st.integers(0, 60))
def test_round_shift_is_half_up(raw, bits):
    # Python's integers do not wrap and its floor division rounds down for either sign.
    assert round_shift(raw, bits) == (2 * raw + (1 << bits)) // (2 << bits)


@pytest.mark.parametrize(("raw", "want"), [(-3, -1), (-2, -1), (-1, 0), (1, 1), (2, 1), (3, 2)])
def test_round_shift_by_hand(raw, want):
    assert round_shift(raw, 1) == want


class Rounder(wiring.Component):
    """Every rounding and saturation of one width at once."""

    def __init__(self, width: int, fmt: Fixed) -> None:
        self.fmt = fmt
        super().__init__({
            "raw": In(Shape(width, signed=True)),
            **{f"rounded_{bits}": Out(Shape(width + 1, signed=True)) for bits in range(width)},
            "saturated": Out(hardware.shape_of(fmt)),
        })

    def elaborate(self, platform):
        m = Module()
        for bits in range(len(self.raw)):
            m.d.comb += getattr(self, f"rounded_{bits}").eq(hardware.round_shift(self.raw, bits))
        m.d.comb += self.saturated.eq(hardware.saturate(self.raw, self.fmt))
        return m


@pytest.mark.parametrize("fmt", [
    Fixed(int_bits=2, frac_bits=3, signed=True), Fixed(int_bits=2, frac_bits=3),
    Fixed(int_bits=1, frac_bits=0, signed=True), Fixed(int_bits=8, frac_bits=4, signed=True),
], ids=str)
def test_hardware_twins_on_every_integer(fmt):
    width = 9
    dut = Rounder(width, fmt)
    checked = []

    async def bench(ctx):
        for raw in range(-(1 << width - 1), 1 << width - 1):
            ctx.set(dut.raw, raw)
            for bits in range(width):
                assert ctx.get(getattr(dut, f"rounded_{bits}")) == round_shift(raw, bits)
            assert ctx.get(dut.saturated) == fmt.saturate(raw)
            checked.append(raw)

    simulator = Simulator(dut)
    simulator.add_testbench(bench)
    simulator.run()
    assert len(checked) == 1 << width


def test_hardware_round_shift_by_nothing_is_the_value():
    signal = Signal(4)
    assert hardware.round_shift(signal, 0) is signal

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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

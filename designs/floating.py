"""Floating-point formats of the hardware's own: no subnormals, no infinity, no NaN."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["BINARY32", "Floating"]


@dataclass(frozen=True, kw_only=True)
class Floating:
    """Binary floating-point format.

    Written ``FP(e,f)``. A raw word is, from the top: sign, exponent, fraction. Its value is
    ``(-1)^sign * 2^(exponent - bias) * (1 + fraction / 2^f)``; an exponent field of 0 is zero,
    whatever the fraction. All other exponent fields are ordinary: instead of infinity there is a
    largest number, to which results saturate; there is no NaN. What is smaller than the smallest
    number becomes zero. Operations give the word 0 for zero; a word of zero with other bits set is
    accepted as zero.

    The bias is that of IEEE 754, so that with 8 exponent bits a word is a binary32 word without
    its last fraction bits. Words without their sign are ordered like the magnitudes.

    Parameters
    ----------
    exponent_bits : int
        Bits of the exponent, 4 to 8: binary32 words then hold every number.
    fraction_bits : int
        Bits of the fraction, 4 to 23. 17 make a significand of 18 bits: one multiplier of an
        ECP5's DSP block (Lattice FPGA-TN-02205).

    Raises
    ------
    ValueError
        If a part is out of its range.
    """

    exponent_bits: int = 8
    fraction_bits: int = 17

    def __post_init__(self) -> None:
        if not (4 <= self.exponent_bits <= 8 and 4 <= self.fraction_bits <= 23):
            raise ValueError(
                "Floating-point format must have 4 to 8 exponent bits and 4 to 23 fraction bits, "
                f"not {self}")

    @property
    def width(self) -> int:
        """Bits of a word."""
        return 1 + self.exponent_bits + self.fraction_bits

    @property
    def bias(self) -> int:
        """Exponent field of one."""
        return (1 << (self.exponent_bits - 1)) - 1

    @property
    def magnitude_max(self) -> int:
        """Word of the largest number."""
        return (1 << (self.width - 1)) - 1

    @property
    def sign_bit(self) -> int:
        """Weight of the sign in a word."""
        return 1 << (self.width - 1)

    @property
    def epsilon(self) -> float:
        """Half a unit in the last place of one: the relative error of rounding to nearest."""
        return 2.0 ** -(self.fraction_bits + 1)

    @property
    def smallest(self) -> float:
        """Smallest positive number."""
        return 2.0 ** (1 - self.bias)

    @property
    def largest(self) -> float:
        """Largest number."""
        return float(self.to_float(self.magnitude_max))

    def quantize(self, value: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Words nearest to `value`: ties away from zero, saturating, flushing to zero."""
        value = np.asarray(value, np.float64)
        mantissa, exponent = np.frexp(np.minimum(np.abs(value), 2.0**200))
        # frexp's mantissa lies in [1/2, 1); rounding may carry into the exponent.
        significand = np.floor(np.ldexp(mantissa, self.fraction_bits + 1) + 0.5).astype(np.int64)
        hidden = 1 << self.fraction_bits
        magnitude = (exponent.astype(np.int64) - 1 + self.bias) << self.fraction_bits
        magnitude = magnitude + significand - hidden
        magnitude = np.where((magnitude < hidden) | (mantissa == 0), 0, magnitude)
        magnitude = np.minimum(magnitude, self.magnitude_max)
        return np.where((value < 0) & (magnitude > 0), magnitude | self.sign_bit, magnitude)

    def to_float(self, raw: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Values of words."""
        raw = np.asarray(raw, np.int64)
        exponent = (raw >> self.fraction_bits) & ((1 << self.exponent_bits) - 1)
        fraction = raw & ((1 << self.fraction_bits) - 1)
        value = np.ldexp(1.0 + fraction * 2.0**-self.fraction_bits, exponent - self.bias)
        value = np.where(exponent == 0, 0.0, value)
        return np.where(raw & self.sign_bit, -value, value)

    def __str__(self) -> str:
        return f"FP({self.exponent_bits},{self.fraction_bits})"


#: Words of IEEE 754 binary32, read as above.
BINARY32 = Floating(exponent_bits=8, fraction_bits=23)

"""Number formats of front-to-back blending."""

import math
from dataclasses import dataclass

from splatforge.designs.fixed import Fixed

__all__ = ["BlendDesign"]


@dataclass(frozen=True, kw_only=True)
class BlendDesign:
    """Formats of transmittance, colour and accumulator.

    Parameters
    ----------
    transmittance : Fixed
        Remaining transmittance T; holds 1.0 and needs at least 16 fraction bits, since 2^-12
        cannot carry the cut-off of 1e-4.
    color : Fixed
        One channel of a Gaussian's colour. Colours above its range saturate.
    accumulator : Fixed
        One channel of a pixel. Needs no saturation: the weights of a pixel sum to at most one, at
        most ``2**transmittance.frac_bits`` of them are not zero, and each rounds by half a unit.

    Raises
    ------
    ValueError
        If a format cannot hold what it must.
    """

    transmittance: Fixed = Fixed(int_bits=1, frac_bits=17)
    color: Fixed = Fixed(int_bits=2, frac_bits=8)
    accumulator: Fixed = Fixed(int_bits=3, frac_bits=18)

    def __post_init__(self) -> None:
        if self.transmittance.int_bits != 1 or self.transmittance.frac_bits < 16:
            raise ValueError(
                f"Transmittance must be UQ(1,16) or finer, not {self.transmittance}"
            )
        limit = 2.0**self.color.int_bits + 2.0 ** (
            self.transmittance.frac_bits - self.accumulator.frac_bits - 1
        )
        if limit > 2.0**self.accumulator.int_bits:
            raise ValueError(f"Accumulator must hold {limit:g}, not {self.accumulator}")
        if max(self.transmittance.width, self.accumulator.width) > 31:
            raise ValueError(
                "Transmittance and accumulator must fit 31 bits, "
                f"not {self.transmittance} and {self.accumulator}"
            )
        if self.accumulator.frac_bits > self.transmittance.frac_bits + self.color.frac_bits:
            raise ValueError(
                f"Accumulator must not be finer than weight times colour, not {self.accumulator}"
            )

    @property
    def one(self) -> int:
        """Raw transmittance of an untouched pixel."""
        return 1 << self.transmittance.frac_bits

    @property
    def stop(self) -> int:
        """Smallest raw transmittance still blended: 1e-4 (Kerbl et al. 2023), rounded up."""
        return math.ceil(1e-4 * self.one)

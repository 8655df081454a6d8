"""Pixel formats of the framebuffer, and the unit that writes it."""

from dataclasses import dataclass
from enum import IntEnum

from splatforge.designs.blend import BlendDesign
from splatforge.designs.fixed import Fixed

__all__ = ["PixelFormat", "ResolveDesign"]


class PixelFormat(IntEnum):
    """What a pixel of the framebuffer is; little-endian, red in the lowest bits."""

    RGBA8 = 0
    """Four bytes, alpha 255: colour over the background, clipped to [0, 1]."""
    RGBA16 = 1
    """Four 16-bit integers, alpha 65535."""
    STATE = 2
    """Four 32-bit integers: red, green, blue and T as the array holds them, no background."""

    @property
    def size_bytes(self) -> int:
        """Bytes of a pixel."""
        return {0: 4, 1: 8, 2: 16}[int(self)]


@dataclass(frozen=True, kw_only=True)
class ResolveDesign:
    """The unit that puts the background behind a tile and writes it.

    Parameters
    ----------
    background : Fixed
        One channel of the background colour; holds 1.0 and fits the descriptor's 16 bits.
    outstanding_bursts : int
        Write bursts (one row of a tile each) that may await their response.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    background: Fixed = Fixed(int_bits=1, frac_bits=8)
    outstanding_bursts: int = 32

    def __post_init__(self) -> None:
        if (self.background.int_bits != 1 or self.background.signed
                or self.background.width > 16):
            raise ValueError(f"Background must be UQ(1,0) to UQ(1,15), not {self.background}")
        if not 1 <= self.outstanding_bursts <= 256:
            raise ValueError(
                f"Outstanding bursts must be 1 to 256, not {self.outstanding_bursts!r}"
            )

    def check_blend(self, blend: BlendDesign) -> None:
        """Check that a background can be put behind such pixels.

        Raises
        ------
        ValueError
            If transmittance times background is coarser than the accumulator.
        """
        behind = blend.transmittance.frac_bits + self.background.frac_bits
        if behind < blend.accumulator.frac_bits:
            raise ValueError(
                "Transmittance times background must be as fine as the accumulator, "
                f"not {self.background}")

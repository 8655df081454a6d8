"""The packed frame in memory: splat records, tile table; and the buffers that fetch them."""

from dataclasses import dataclass

from splatforge.designs.fixed import Fixed

__all__ = ["SUBTILES", "SUBTILE_PX", "TILE_PX", "FetchDesign", "SplatFormat"]

#: Side of a tile in pixels (Kerbl et al. 2023).
TILE_PX = 16
#: Side of a subtile, the unit in which a list says what a splat can reach.
SUBTILE_PX = 4
#: Subtiles of a tile, row-major.
SUBTILES = (TILE_PX // SUBTILE_PX) ** 2


@dataclass(frozen=True, kw_only=True)
class SplatFormat:
    """One splat in the list of one tile: 128 bits, so that one bus beat brings one splat.

    Positions and slopes are those of the linear forms of :mod:`splatforge.designs.alpha` in
    coordinates of the tile: ``u = u0 + a x + b y``, ``v = v0 + c y``, with ``x`` and ``y`` the
    pixel's column and row in the tile, 0 to 15, centres included in ``u0`` and ``v0``.

    The ranges follow from the 0.3 px dilation: a variance of at least 0.3 px^2 bounds the slopes
    by ``sqrt(log2(e) / 2 / 0.3) = 1.551``, and a splat that a pixel of the tile can see has
    ``|u| <= 2.83`` there, hence ``|u0| <= 2.83 + 15 * 2 * 1.551 < 64`` and ``|v0| < 32``. Colours
    reach above one where the spherical harmonics overshoot, 3.2 in the captures at hand; above 4
    they saturate.

    Parameters
    ----------
    u0, v0 : Fixed
        The forms at the centre of the tile's first pixel.
    a, b, c : Fixed
        Their slopes per pixel.
    log_opacity : Fixed
        ``-log2(opacity)``.
    color : Fixed
        Each of red, green and blue.

    Raises
    ------
    ValueError
        If a record is wider than 128 bits.
    """

    u0: Fixed = Fixed(int_bits=7, frac_bits=11, signed=True)
    v0: Fixed = Fixed(int_bits=6, frac_bits=11, signed=True)
    a: Fixed = Fixed(int_bits=1, frac_bits=11)
    b: Fixed = Fixed(int_bits=2, frac_bits=11, signed=True)
    c: Fixed = Fixed(int_bits=1, frac_bits=11)
    log_opacity: Fixed = Fixed(int_bits=3, frac_bits=7)
    color: Fixed = Fixed(int_bits=2, frac_bits=8)

    def __post_init__(self) -> None:
        if self.width > 128:
            raise ValueError(f"Splat must fit 128 bits, not {self.width}")

    def fields(self) -> tuple[tuple[str, int, bool], ...]:
        """(name, width in bits, signed) of every field from bit 0 upward."""
        return (
            *((name, field.width, field.signed) for name, field in (
                ("u0", self.u0), ("v0", self.v0), ("a", self.a), ("b", self.b), ("c", self.c),
                ("log_opacity", self.log_opacity),
                ("red", self.color), ("green", self.color), ("blue", self.color),
            )),
            ("subtiles", SUBTILES, False),
        )

    @property
    def width(self) -> int:
        """Bits of a record."""
        return sum(width for _, width, _ in self.fields())


@dataclass(frozen=True, kw_only=True)
class FetchDesign:
    """Buffers and limits of the unit that reads tile lists.

    Parameters
    ----------
    splat : SplatFormat
        The record.
    buffer_splats : int
        Splats that may be requested and not yet consumed; a power of two, at least two bursts.
    burst_beats : int
        Longest read burst in beats of the bus: 4, 8 or 16. Bursts end at its multiples, and lists
        start at multiples of 256 bytes, so that none crosses 4 KiB; a longer one could.
    outstanding_bursts : int
        Splat bursts that may be in flight.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    splat: SplatFormat = SplatFormat()
    buffer_splats: int = 256
    burst_beats: int = 16
    outstanding_bursts: int = 16

    def __post_init__(self) -> None:
        if self.burst_beats not in (4, 8, 16):
            raise ValueError(f"Burst must be 4, 8 or 16 beats, not {self.burst_beats!r}")
        if self.buffer_splats & (self.buffer_splats - 1) or not (
            2 * self.burst_beats <= self.buffer_splats <= 4096
        ):
            raise ValueError(
                f"Splat buffer must be a power of two from {2 * self.burst_beats} to 4096, "
                f"not {self.buffer_splats!r}"
            )
        if not 1 <= self.outstanding_bursts <= 256:
            raise ValueError(
                f"Outstanding bursts must be 1 to 256, not {self.outstanding_bursts!r}"
            )

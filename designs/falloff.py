"""Number formats of alpha with the exponential out of a small table: Voyager's rasterizer.

A splat is skipped at a pixel if and only if its exponent ``E`` is above ``ln(255 o)``, which
follows once for every Gaussian from its opacity ``o``; nothing is looked up for what is skipped.
What is left needs ``exp(-E)`` for ``E`` in ``[0, ln 255]``, and takes it out of a table of 64
entries (Voyager, arXiv 2506.02774, as accelerators.md, 3.2 has it; SPLATONIC, 2511.18755, says of
it that 64 are enough). ``E`` is a sum of two squares (:mod:`splatforge.designs.alpha`), and never
below zero: what the rule skips for ``E < 0`` in floating point cannot come.

In powers of two: the table covers ``E log2(e)`` in ``[0, 8)``, hence ``exp(-E)`` from one to
1/256, and its index is the exponent's first bits; the last 0.07 % of it are below 1/255. A step is
``8 ln(2) / 64 = 0.0866`` of ``E``. Without interpolation an entry is half way between the ends of
its step.

The threshold needs no field of its own in the records: they hold ``lo = -log2(o)``, worked out
once for every Gaussian, and ``log2(255 o) = log2(255) - lo`` is one subtraction for all lanes of a
block. The opacity itself comes out of a table of its powers, once for every block as well.
"""

from dataclasses import dataclass

from splatforge.designs.alpha import AlphaDesign
from splatforge.designs.fixed import Fixed

__all__ = ["FalloffDesign"]

#: Eight octaves are what the table covers: ``2**-8`` is the first power of two below 1/255.
OCTAVE_BITS = 3


@dataclass(frozen=True, kw_only=True)
class FalloffDesign(AlphaDesign):
    """Formats and table size of alpha as opacity times a tabulated exponential.

    Parameters
    ----------
    form, form_sum, exponent, log_opacity, alpha : Fixed
        See :class:`splatforge.designs.alpha.AlphaDesign`; the exponent is ``E log2(e)``, without
        the opacity.
    table_entries : int
        Entries of the table of ``exp(-E)``, a power of two from 8 to 512, half of what the
        exponent's fraction tells apart.
    table : Fixed
        Format of the entries of the table, and of ``exp(-E)``.
    interpolated : bool
        Whether two entries are interpolated linearly, or the nearest one is taken as it is.
    opacity : Fixed
        The opacity, and the powers of two that it is made of.

    Raises
    ------
    ValueError
        If the table size is not one of those, or a format cannot hold what it must.
    """

    table: Fixed = Fixed(int_bits=1, frac_bits=14)
    interpolated: bool = False
    opacity: Fixed = Fixed(int_bits=1, frac_bits=14)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.table_entries < self.octaves:
            raise ValueError(
                f"Table entries must be at least {self.octaves}, one for each octave, "
                f"not {self.table_entries!r}")
        if self.opacity.int_bits != 1 or self.opacity.signed:
            raise ValueError(f"Opacity must be unsigned and hold one, not {self.opacity}")
        if self.log_opacity.int_bits > OCTAVE_BITS:
            raise ValueError(
                f"Log opacity must be below {1 << OCTAVE_BITS}, not {self.log_opacity}")

    @property
    def slope_bits(self) -> int:
        """Bits of the exponent behind those that index the table."""
        return self.exponent.frac_bits + OCTAVE_BITS - self.index_bits

    @property
    def octaves(self) -> int:
        """Whole powers of two that an opacity can be shifted down."""
        return 1 << OCTAVE_BITS

    @property
    def delta_width(self) -> int:
        """Bits of the difference of two neighbouring entries of the table."""
        first = 2**self.table.frac_bits * (1 - 2 ** (-self.octaves / self.table_entries))
        return int(first + 1).bit_length()

"""Number formats of the alpha evaluation: from a splat's linear form to an opacity.

A projected Gaussian falls off as ``opacity * exp(-E)`` with ``E = (A dx^2 + C dy^2)/2 + B dx dy``.
The conic is positive definite, so ``E * log2(e) = u^2 + v^2`` with ``u = a x + b y + u0`` and
``v = c y + v0`` (its Cholesky factor, scaled to base 2). Squares of two linear forms need no wide
products, never go negative, and lose no digits on needles, where the three terms of the conic
cancel. With ``lo = -log2(opacity)`` the opacity is ``2^-(u^2 + v^2 + lo)``, and the test
"alpha >= 1/255" is one comparison that needs no exponential.
"""

import math
from dataclasses import dataclass

from splatforge.designs.fixed import Fixed

__all__ = ["AlphaDesign"]


@dataclass(frozen=True, kw_only=True)
class AlphaDesign:
    """Formats and table size of the alpha evaluation.

    Parameters
    ----------
    form : Fixed
        The linear forms ``u`` and ``v`` where they are squared. Must reach beyond
        ``sqrt(log2(255)) = 2.83``: what saturates is insignificant.
    form_sum : Fixed
        ``u`` and ``v`` as summed, before rounding to `form`.
    exponent : Fixed
        ``p = u^2 + v^2 + lo``, the negative base-2 logarithm of alpha.
    log_opacity : Fixed
        ``lo = -log2(opacity)``; opacities below ``2**-8`` are below 1/255 and never stored.
    alpha : Fixed
        Opacity of one pixel; a raw integer never exceeds `alpha_cap`.
    table_entries : int
        Entries of the ``2^-f`` table over ``[0, 1)``, linearly interpolated; a power of two.
    table : Fixed
        Format of the entries of the table.

    Raises
    ------
    ValueError
        If the table size is not a power of two that the exponent's fraction can index, or a
        format cannot hold what it must.
    """

    form: Fixed = Fixed(int_bits=3, frac_bits=10, signed=True)
    form_sum: Fixed = Fixed(int_bits=8, frac_bits=12, signed=True)
    exponent: Fixed = Fixed(int_bits=6, frac_bits=10)
    log_opacity: Fixed = Fixed(int_bits=3, frac_bits=7)
    alpha: Fixed = Fixed(int_bits=0, frac_bits=14)
    table_entries: int = 64
    table: Fixed = Fixed(int_bits=1, frac_bits=16)

    def __post_init__(self) -> None:
        entries = self.table_entries
        if entries < 2 or entries & (entries - 1) or entries >= 1 << self.exponent.frac_bits:
            raise ValueError(
                "Table entries must be a power of two from 2 to "
                f"{1 << (self.exponent.frac_bits - 1)}, not {entries!r}"
            )
        if not self.form.signed or self.form.to_float(self.form.raw_max) ** 2 <= math.log2(255):
            raise ValueError(f"Form must be signed and reach beyond 2.83, not {self.form}")
        if self.form_sum.frac_bits < self.form.frac_bits:
            raise ValueError(f"Form sum must be at least as fine as the form, not {self.form_sum}")
        if self.exponent.frac_bits < self.log_opacity.frac_bits:
            raise ValueError(
                f"Exponent must be at least as fine as the log opacity, not {self.exponent}"
            )
        if 2 * self.form.frac_bits < self.exponent.frac_bits:
            raise ValueError(f"Squared form must be as fine as the exponent, not {self.form}")
        reach = 2 * self.form.to_float(self.form.raw_min) ** 2 + 2.0**self.log_opacity.int_bits
        if reach > 2.0**self.exponent.int_bits:
            raise ValueError(f"Exponent must hold {reach:g}, not {self.exponent}")
        if self.alpha.int_bits != 0 or self.table.int_bits != 1:
            raise ValueError(
                "Alpha must be below one and the table must hold one, "
                f"not {self.alpha} and {self.table}"
            )
        if self.alpha.frac_bits > self.table.frac_bits:
            raise ValueError(f"Alpha must not be finer than the table, not {self.alpha}")

    @property
    def cutoff(self) -> int:
        """Largest raw exponent that is significant: ``alpha >= 1/255`` iff ``p <= log2(255)``."""
        return math.floor(math.log2(255) * 2**self.exponent.frac_bits)

    @property
    def alpha_cap(self) -> int:
        """Largest raw alpha, 0.99 rounded down (Kerbl et al. 2023)."""
        return math.floor(0.99 * 2**self.alpha.frac_bits)

    @property
    def index_bits(self) -> int:
        """Bits of the exponent's fraction that index the table."""
        return self.table_entries.bit_length() - 1

    @property
    def slope_bits(self) -> int:
        """Bits of the exponent's fraction that interpolate between two entries."""
        return self.exponent.frac_bits - self.index_bits

    @property
    def octaves(self) -> int:
        """Whole powers of two that a significant alpha can be shifted down, 8 for 1/255."""
        return (self.cutoff >> self.exponent.frac_bits) + 1

    @property
    def delta_width(self) -> int:
        """Bits of the difference of two neighbouring entries of the table."""
        first = 2**self.table.frac_bits * (1 - 2 ** (-1 / self.table_entries))
        return math.ceil(first + 1).bit_length()

"""Fixed-point formats: the one notation for every raw integer between blocks."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Fixed"]


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """Two's-complement fixed-point format.

    Written ``UQ(i,f)`` or ``SQ(i,f)``; for ``SQ`` the sign bit is one of the ``i`` bits, as in
    Amaranth's fixed-point RFC. The value of a raw integer ``r`` is ``r * 2**-frac_bits``.

    Parameters
    ----------
    int_bits : int
        Bits left of the binary point, the sign bit included.
    frac_bits : int
        Bits right of the binary point.
    signed : bool
        Two's complement if true.

    Raises
    ------
    ValueError
        If a part is negative, the format is empty or wider than 62 bits (int64 would wrap
        silently in the bit-true models), or a signed format has no sign bit.
    """

    int_bits: int
    frac_bits: int
    signed: bool = False

    def __post_init__(self) -> None:
        if self.int_bits < 0 or self.frac_bits < 0 or not 0 < self.width <= 62:
            raise ValueError(
                f"Fixed-point format must have non-negative parts and 1 to 62 bits, not {self}"
            )
        if self.signed and self.int_bits == 0:
            raise ValueError(f"Signed fixed-point format must have a sign bit, not {self}")

    @property
    def width(self) -> int:
        """Bits of a raw integer."""
        return self.int_bits + self.frac_bits

    @property
    def raw_min(self) -> int:
        """Smallest raw integer."""
        return -(1 << (self.width - 1)) if self.signed else 0

    @property
    def raw_max(self) -> int:
        """Largest raw integer."""
        return (1 << (self.width - self.signed)) - 1

    @property
    def resolution(self) -> float:
        """Value of one unit in the last place."""
        return 2.0**-self.frac_bits

    def quantize(self, value: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Raw integers nearest to ``value``: ties towards plus infinity, saturating."""
        raw = np.floor(np.asarray(value, np.float64) / self.resolution + 0.5)
        return np.clip(raw, self.raw_min, self.raw_max).astype(np.int64)

    def to_float(self, raw: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Values of raw integers."""
        return np.asarray(raw, np.float64) * self.resolution

    def saturate(self, raw: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Raw integers clipped to the format's range."""
        return np.clip(np.asarray(raw, np.int64), self.raw_min, self.raw_max)

    def __str__(self) -> str:
        return f"{'SQ' if self.signed else 'UQ'}({self.int_bits},{self.frac_bits})"

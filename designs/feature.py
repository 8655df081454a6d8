"""The record of one projected Gaussian in memory: what rendering needs of it, once per frame."""

from dataclasses import dataclass

from splatforge.designs.fixed import Fixed
from splatforge.designs.floating import Floating

__all__ = ["FEATURE_BYTES", "FeatureFormat"]

#: Two beats of the bus. GSCore writes 9.5 MB of features a frame of Lego (NeRArch-Sim, Tab. VIII)
#: and reads 78.8 MB, 236 B for each of 334 k Gaussians: at most 32 B go with 28 B a Gaussian, where
#: some are culled.
FEATURE_BYTES = 32


@dataclass(frozen=True, kw_only=True)
class FeatureFormat:
    """One visible Gaussian on the image.

    ``a``, ``b`` and ``c`` are the slopes of the linear forms of :mod:`splatforge.designs.alpha`:
    at a pixel centre (x, y) ``u = a (x - mean_x) + b (y - mean_y)`` and ``v = c (y - mean_y)``.

    Parameters
    ----------
    mean : Fixed
        ``mean_x`` and ``mean_y`` in pixels, pixel centres at +0.5. A Gaussian whose mean is out of
        range is not visible.
    slope : Floating
        ``a`` and ``c``, positive, and ``b``; per pixel.
    log_opacity : Fixed
        ``-log2(opacity)``.
    color : Fixed
        Each of red, green and blue.

    Raises
    ------
    ValueError
        If the mean is unsigned or a record is larger than :data:`FEATURE_BYTES`.
    """

    mean: Fixed = Fixed(int_bits=15, frac_bits=12, signed=True)
    slope: Floating = Floating()
    log_opacity: Fixed = Fixed(int_bits=3, frac_bits=7)
    color: Fixed = Fixed(int_bits=2, frac_bits=8)

    def __post_init__(self) -> None:
        if not self.mean.signed:
            raise ValueError(f"Mean of a feature must be signed, not {self.mean}")
        if self.width > 8 * FEATURE_BYTES:
            raise ValueError(f"Feature must fit {8 * FEATURE_BYTES} bits, not {self.width}")

    def fields(self) -> tuple[tuple[str, int, bool], ...]:
        """(name, width in bits, signed) of every field from bit 0 upward."""
        return (
            ("mean_x", self.mean.width, True), ("mean_y", self.mean.width, True),
            ("a", self.slope.width, False), ("b", self.slope.width, False),
            ("c", self.slope.width, False),
            ("log_opacity", self.log_opacity.width, self.log_opacity.signed),
            ("red", self.color.width, self.color.signed),
            ("green", self.color.width, self.color.signed),
            ("blue", self.color.width, self.color.signed),
        )

    @property
    def width(self) -> int:
        """Bits of a record in use; the rest are zero."""
        return sum(width for _, width, _ in self.fields())

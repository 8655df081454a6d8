"""What makes splats of features, once for every tile; in front of StreamingGS's array."""

from dataclasses import dataclass

from splatforge.designs.feature import FeatureFormat
from splatforge.designs.fetch import SplatFormat
from splatforge.designs.fixed import Fixed
from splatforge.designs.tokens import GROUP_TAG_BITS

__all__ = ["QUEUED_GROUPS", "SetupDesign"]

#: Groups that may have been announced and not yet be taken by the array.
QUEUED_GROUPS = 1 << (GROUP_TAG_BITS - 1)


@dataclass(frozen=True, kw_only=True)
class SetupDesign:
    """Formats of the arithmetic from a feature to a splat of a tile.

    Parameters
    ----------
    feature : FeatureFormat
        What comes.
    splat : SplatFormat
        What the rendering array takes.
    slope : Fixed
        The slopes ``a``, ``b`` and ``c`` where they are multiplied by the distance from the mean.
        A slope is at most 1.551 (:class:`splatforge.designs.fetch.SplatFormat`); 24 fraction bits
        leave an error of 2^-25 a pixel of distance, a quarter of the splat's resolution at 4096.

    Raises
    ------
    ValueError
        If a format cannot hold what it must.
    """

    feature: FeatureFormat = FeatureFormat()
    splat: SplatFormat = SplatFormat()
    slope: Fixed = Fixed(int_bits=2, frac_bits=24, signed=True)

    def __post_init__(self) -> None:
        if not self.slope.signed or self.slope.int_bits != 2:
            raise ValueError(f"Slope must be signed and hold 1.551, SQ(2,f), not {self.slope}")
        splat, frac_bits = self.splat, self.slope.frac_bits
        if max(splat.a.frac_bits, splat.b.frac_bits, splat.c.frac_bits) >= frac_bits:
            raise ValueError(f"Slope must be finer than the splat's, not {self.slope}")
        if max(splat.u0.frac_bits, splat.v0.frac_bits) >= frac_bits + self.feature.mean.frac_bits:
            raise ValueError(
                f"Slope times distance must be finer than the splat's forms, not {self.slope}")
        if splat.log_opacity != self.feature.log_opacity or splat.color != self.feature.color:
            raise ValueError("Features must hold opacity and colour in the splat's formats")

    @property
    def distance(self) -> Fixed:
        """From a feature's mean to the centre of a tile's first pixel."""
        mean = self.feature.mean
        return Fixed(int_bits=mean.int_bits + 1, frac_bits=mean.frac_bits, signed=True)

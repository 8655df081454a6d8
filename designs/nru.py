"""The array of neural rendering units: a processing element for every pixel of a tile.

Source: "Lumina: Real-Time Mobile Neural Rendering by Exploiting Computational Redundancy", ISCA
2025: 8x8 units of four processing elements, which test what is significant, and one back end each,
which computes exponentials and blends.
"""

from dataclasses import dataclass

from splatforge.designs.alpha import AlphaDesign
from splatforge.designs.array import ArrayDesign
from splatforge.designs.blend import BlendDesign
from splatforge.designs.fetch import TILE_PX

__all__ = ["UNIT_PIXELS", "NruDesign"]

#: Processing elements of a unit: pixels that share a back end.
UNIT_PIXELS = 4


@dataclass(frozen=True, kw_only=True)
class NruDesign:
    """Formats of the array.

    Parameters
    ----------
    alpha : AlphaDesign
        Formats of the alpha evaluation.
    blend : BlendDesign
        Formats of blending.
    """

    alpha: AlphaDesign = AlphaDesign()
    blend: BlendDesign = BlendDesign()

    @property
    def units(self) -> int:
        """Units, each with a back end."""
        return TILE_PX * TILE_PX // UNIT_PIXELS

    @property
    def array(self) -> ArrayDesign:
        """An array of the same formats, with a lane for every processing element."""
        return ArrayDesign(lanes=TILE_PX * TILE_PX, alpha=self.alpha, blend=self.blend)

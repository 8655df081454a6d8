"""The array of neural rendering units: a processing element for every pixel of a tile.

Source: "Lumina: Real-Time Mobile Neural Rendering by Exploiting Computational Redundancy", ISCA
2025: 8x8 units of four processing elements, which test what is significant, and one back end each,
which computes exponentials and blends. Units of two or of eight elements share a back end more or
less: 16x8 of the ones, 4x8 of the others cover the same tile.
"""

from dataclasses import dataclass

from splatforge.designs.alpha import AlphaDesign
from splatforge.designs.array import ArrayDesign
from splatforge.designs.blend import BlendDesign
from splatforge.designs.fetch import TILE_PX
from splatforge.designs.radiance import LOW_BITS, TAG_BITS

__all__ = ["RECORD_ID_BITS", "NruDesign"]

#: Lowest bits of an id that a record keeps: what the cache makes its keys of.
RECORD_ID_BITS = LOW_BITS + TAG_BITS


@dataclass(frozen=True, kw_only=True)
class NruDesign:
    """The array: its size, its formats, its queues.

    Parameters
    ----------
    side : int
        Rows of units: 2, 4 or 8. The array's tiles have twice as many pixels a side.
    unit_pixels : int
        Processing elements of a unit, pixels that share a back end: 2, 4 or 8; the paper has 4. A
        unit has its pixels in two rows of the tile, so that the array has
        ``4 * side / unit_pixels`` units in a row. A back end blends a fragment a cycle, and 10.3 %
        of the Gaussians of a list are significant for a pixel (the paper): eight pixels have 0.82
        of a fragment in a cycle of lockstep, 16 had more than a back end takes. One pixel shares
        nothing, and has no elements beside it that could test for it.
    chunk_splats : int
        Splats of each half of the buffer in front of it; a power of two from 8 to 4096, and of two
        rows of ``unit_pixels`` or more.
    alpha : AlphaDesign
        Formats of the alpha evaluation.
    blend : BlendDesign
        Formats of blending.
    queue_entries : int
        Entries between the tests and the back end of a unit, each of up to ``unit_pixels``
        fragments; a power of two from 2 to 64. The paper has shift registers of 160 bytes.

    Raises
    ------
    ValueError
        If a parameter is none of these.
    """

    side: int = TILE_PX // 2
    unit_pixels: int = 4
    chunk_splats: int = 512
    alpha: AlphaDesign = AlphaDesign()
    blend: BlendDesign = BlendDesign()
    queue_entries: int = 8

    def __post_init__(self) -> None:
        if self.side not in (2, 4, 8):
            raise ValueError(f"Side must be 2, 4 or 8 units, not {self.side!r}")
        if self.unit_pixels not in (2, 4, 8):
            raise ValueError(
                f"Pixels of a unit, unit_pixels, must be 2, 4 or 8, not {self.unit_pixels!r}")
        least = max(8, 2 * self.unit_pixels)
        if self.chunk_splats & (self.chunk_splats - 1) or not least <= self.chunk_splats <= 4096:
            units = f" for units of {self.unit_pixels} pixels" if least > 8 else ""
            raise ValueError(f"Chunk must have a power of two from {least} to 4096 splats{units}, "
                             f"not {self.chunk_splats!r}")
        if self.queue_entries & (self.queue_entries - 1) or not 2 <= self.queue_entries <= 64:
            raise ValueError(
                f"Queue must have a power of two from 2 to 64 entries, not {self.queue_entries!r}")

    @property
    def exponent_bits(self) -> int:
        """Bits of an exponent that is significant."""
        return self.alpha.cutoff.bit_length()

    @property
    def pixels_x(self) -> int:
        """Columns of the tile that a unit has pixels in; it has them in two rows.

        The columns lie ``units_x`` apart, the rows ``side``: neighbours are of different units,
        but in a row of a single one.
        """
        return self.unit_pixels // 2

    @property
    def units_x(self) -> int:
        """Units in a row of the array."""
        return self.tile_px // self.pixels_x

    @property
    def units(self) -> int:
        """Units, each with a back end."""
        return self.units_x * self.side

    @property
    def tile_px(self) -> int:
        """Side of the array's tiles in pixels."""
        return 2 * self.side

    @property
    def array(self) -> ArrayDesign:
        """An array of the same formats, with a lane for every processing element."""
        return ArrayDesign(lanes=TILE_PX * TILE_PX, alpha=self.alpha, blend=self.blend)

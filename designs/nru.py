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
from splatforge.designs.radiance import LOW_BITS, TAG_BITS

__all__ = ["RECORD_ID_BITS", "UNIT_PIXELS", "NruDesign"]

#: Processing elements of a unit: pixels that share a back end.
UNIT_PIXELS = 4
#: Lowest bits of an id that a record keeps: what the cache makes its keys of.
RECORD_ID_BITS = LOW_BITS + TAG_BITS


@dataclass(frozen=True, kw_only=True)
class NruDesign:
    """The array: its size, its formats, its queues.

    Parameters
    ----------
    side : int
        Units along a side of the array: 2, 4 or 8. Its tiles have twice as many pixels a side.
    chunk_splats : int
        Splats of each half of the buffer in front of it; a power of two from 8 to 4096.
    alpha : AlphaDesign
        Formats of the alpha evaluation.
    blend : BlendDesign
        Formats of blending.
    queue_entries : int
        Entries between the tests and the back end of a unit, each of up to four fragments; a power
        of two from 2 to 64. The paper has shift registers of 160 bytes.

    Raises
    ------
    ValueError
        If a parameter is none of these.
    """

    side: int = TILE_PX // 2
    chunk_splats: int = 512
    alpha: AlphaDesign = AlphaDesign()
    blend: BlendDesign = BlendDesign()
    queue_entries: int = 8

    def __post_init__(self) -> None:
        if self.side not in (2, 4, 8):
            raise ValueError(f"Side must be 2, 4 or 8 units, not {self.side!r}")
        if self.chunk_splats & (self.chunk_splats - 1) or not 8 <= self.chunk_splats <= 4096:
            raise ValueError("Chunk must have a power of two from 8 to 4096 splats, "
                             f"not {self.chunk_splats!r}")
        if self.queue_entries & (self.queue_entries - 1) or not 2 <= self.queue_entries <= 64:
            raise ValueError(
                f"Queue must have a power of two from 2 to 64 entries, not {self.queue_entries!r}")

    @property
    def exponent_bits(self) -> int:
        """Bits of an exponent that is significant."""
        return self.alpha.cutoff.bit_length()

    @property
    def units(self) -> int:
        """Units, each with a back end."""
        return self.side * self.side

    @property
    def tile_px(self) -> int:
        """Side of the array's tiles in pixels."""
        return 2 * self.side

    @property
    def array(self) -> ArrayDesign:
        """An array of the same formats, with a lane for every processing element."""
        return ArrayDesign(lanes=TILE_PX * TILE_PX, alpha=self.alpha, blend=self.blend)

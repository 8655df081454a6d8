"""Voxel sorting unit of StreamingGS: which voxels each group of tiles needs, from front to back."""

from dataclasses import dataclass

from splatforge.designs.fetch import TILE_PX
from splatforge.designs.fixed import Fixed
from splatforge.designs.floating import Floating
from splatforge.designs.shell import ShellDesign
from splatforge.designs.voxel import CHILD_WEIGHT_BITS, OCTREE_LEVELS, VOXEL_BEATS

__all__ = [
    "BLUR",
    "DIGITS",
    "DIGIT_BITS",
    "DISTANCE_BITS",
    "GROUP_TILES",
    "KEY_BITS",
    "RECTANGLE",
    "ROWS_UNDER_WAY",
    "TOKENS_UNDER_WAY",
    "VsuDesign",
]

#: Tiles on the side of a group that there may be.
GROUP_TILES = (1, 2, 4)
#: Bits of the weighted distance of two base cells, the sum over three axes; what is farther is
#: equally far.
DISTANCE_BITS = 12
#: Bits of a voxel's key: the distance, and the weights of the axes on which a child lies away.
KEY_BITS = DISTANCE_BITS + CHILD_WEIGHT_BITS * OCTREE_LEVELS
#: Passes of the sort, and bits of a key that each looks at.
DIGITS = 3
DIGIT_BITS = KEY_BITS // DIGITS
#: Ends of rectangles in pixels.
RECTANGLE = Fixed(int_bits=16, frac_bits=2, signed=True)
#: What the largest Gaussian of a voxel reaches around its mean, in pixels.
BLUR = Fixed(int_bits=15, frac_bits=2)

#: Rows of the scan on their way to the queue when that is seen to be full.
ROWS_UNDER_WAY = 4
#: Tokens from where a hit is looked up to where they are offered, a power of two; seven are enough
#: for one a cycle.
TOKENS_UNDER_WAY = 8


@dataclass(frozen=True, kw_only=True)
class VsuDesign:
    """Speed, and what is kept on chip.

    StreamingGS builds, for every group of pixels, a graph of the voxels that its rays meet and
    removes from it what nothing is in front of, again and again (accelerators.md, 1.3). Here the
    order is found once a frame: from one eye every ray meets cells of a grid in ascending order of
    their distance from the eye's cell, summed over the axes with any weights, so that this distance
    orders all voxels for all groups at once.

    Parameters
    ----------
    voxels : int
        Visible voxels that are kept on chip, a power of two from 64 to 65536; a frame with more
        ends with an error.
    scan_width : int
        Voxels that are compared with a group in a cycle: 1, 2, 4, 8 or 16.
    interval : int
        Cycles from one voxel of the table to the next, 2 to 64.
    group_tiles : int
        Tiles on the side of a group: 1, 2 or 4. The paper's groups are tiles.
    prefixes : bool
        Whether a group looks only at those Gaussians of a voxel whose scale may reach it, an
        eighth, a quarter, a half or all; the paper's looks at all.
    floating : Floating
        Format of the arithmetic; 8 bits of exponent, as the words in memory.
    buffer_beats : int
        Beats of the table that may be on their way to the arithmetic, 16 to 4096, a power of two.
    burst_beats : int
        Beats of a burst, 4 to 256, a power of two, at most half of the buffer.
    outstanding_bursts : int
        Bursts that may be in flight, 1 to 64.
    waiting_rows : int
        Rows of the scan with a hit that may wait to be taken, 2 to 64: so far, and by what is
        under way, the scan of a group is ahead.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    voxels: int = 4096
    scan_width: int = 16
    interval: int = 4
    group_tiles: int = 2
    prefixes: bool = True
    floating: Floating = Floating()
    buffer_beats: int = 128
    burst_beats: int = 16
    outstanding_bursts: int = 8
    waiting_rows: int = 4

    def __post_init__(self) -> None:
        if self.voxels & (self.voxels - 1) or not 64 <= self.voxels <= 65536:
            raise ValueError(
                f"Voxels must be a power of two from 64 to 65536, not {self.voxels!r}")
        if self.scan_width not in (1, 2, 4, 8, 16):
            raise ValueError(f"Scan width must be 1, 2, 4, 8 or 16, not {self.scan_width!r}")
        if not VOXEL_BEATS <= self.interval <= 64:
            raise ValueError(f"Interval must be 2 to 64 cycles, not {self.interval!r}")
        if self.group_tiles not in GROUP_TILES:
            raise ValueError(f"Group must be 1, 2 or 4 tiles wide, not {self.group_tiles!r}")
        if self.floating.exponent_bits != 8:
            raise ValueError(
                f"Arithmetic must have the 8 exponent bits of binary32, not {self.floating}")
        for name, value, low in (("Buffer", self.buffer_beats, 16), ("Burst", self.burst_beats, 4)):
            high = 4096 if name == "Buffer" else 256
            if value & (value - 1) or not low <= value <= high:
                raise ValueError(
                    f"{name} must have a power of two from {low} to {high} beats, not {value!r}")
        if 2 * self.burst_beats > self.buffer_beats:
            raise ValueError(
                f"Burst must be at most half of the buffer's {self.buffer_beats} beats, "
                f"not {self.burst_beats!r}")
        if not 1 <= self.outstanding_bursts <= 64:
            raise ValueError(f"Outstanding bursts must be 1 to 64, not {self.outstanding_bursts!r}")
        if not 2 <= self.waiting_rows <= 64:
            raise ValueError(f"Waiting rows must be 2 to 64, not {self.waiting_rows!r}")

    @property
    def group_px(self) -> int:
        """Pixels on the side of a group."""
        return TILE_PX * self.group_tiles

    def group_bits(self, shell: ShellDesign) -> int:
        """Bits of a group's column or row.

        Raises
        ------
        ValueError
            If a frame may be larger than rectangles can tell.
        """
        if shell.max_side > 1 << (RECTANGLE.int_bits - 2):
            raise ValueError(
                f"Largest side must be at most {1 << (RECTANGLE.int_bits - 2)} pixels, "
                f"not {shell.max_side!r}")
        return max(1, (-(-shell.max_side // self.group_px) - 1).bit_length())

"""Fine filter of StreamingGS: what may be seen of a voxel, decoded and projected exactly."""

from dataclasses import dataclass

from splatforge.designs.ccu import check_formats
from splatforge.designs.codebook import CodebookDesign
from splatforge.designs.feature import FeatureFormat
from splatforge.designs.fixed import Fixed
from splatforge.designs.floating import Floating
from splatforge.designs.tokens import GROUP_TAG_BITS

__all__ = ["PLACE_WORDS", "FfuDesign", "record_words"]

#: What a decoded Gaussian's record starts with: of its voxel, base minus eye and the size; its own
#: place in it, ``1.q``; its largest scale.
PLACE_WORDS = ("d_x", "d_y", "d_z", "size", "q_x", "q_y", "q_z", "scale")


def record_words(codebooks: CodebookDesign) -> tuple[str, ...]:
    """Names of the words of a decoded Gaussian: of its voxel and of every codebook's entry."""
    return (*PLACE_WORDS, *(word for _, _, words in codebooks.codebooks() for word in words))


@dataclass(frozen=True, kw_only=True)
class FfuDesign:
    """Speed, formats, codebooks and buffers.

    Parameters
    ----------
    interval : int
        Cycles from one Gaussian to the next, 2 to 64.
    codebooks : CodebookDesign
        What indices mean.
    floating : Floating
        Format of the arithmetic; 8 bits of exponent, as the words in memory.
    feature : FeatureFormat
        What is told of a Gaussian that may be seen.
    depth_bits : int
        Bits of the depth within a voxel, 8 to 23, which span eight of its edges: 20 are 2^17 for
        an edge, twice as fine as the places of the Gaussians.
    extent : Fixed
        Half sides of boxes, and positions with one integer bit more, in pixels.
    logarithm : Fixed
        Logarithms of determinants, for the compensation of the opacity.
    group_tiles : int
        Tiles along a side of a group of pixels: 1, 2 or 4. In the paper a group is a tile.
    waiting : int
        Tokens between the fetch of indices and their decoding, 16 to 1024, a power of two.
    buffer_beats : int
        Indices that have been fetched or asked for, 16 to 1024, a power of two.
    burst_beats : int
        Longest burst, 1 to 64, a power of two, at most half of the buffer and of the queue.
    outstanding_bursts : int
        Bursts that may be in flight.
    codebook_bursts : int
        Bursts of codebooks that may be in flight, at least one, at most as many: what other units
        ask for at the start of a frame comes behind no more than these.

    Raises
    ------
    ValueError
        If a parameter is out of its range, or a format cannot hold what it must.
    """

    interval: int = 4
    codebooks: CodebookDesign = CodebookDesign()
    floating: Floating = Floating()
    feature: FeatureFormat = FeatureFormat()
    depth_bits: int = 20
    extent: Fixed = Fixed(int_bits=15, frac_bits=3)
    logarithm: Fixed = Fixed(int_bits=9, frac_bits=10, signed=True)
    group_tiles: int = 2
    waiting: int = 256
    buffer_beats: int = 256
    burst_beats: int = 16
    outstanding_bursts: int = 32
    codebook_bursts: int = 8

    def __post_init__(self) -> None:
        if not 2 <= self.interval <= 64:
            raise ValueError(f"Interval must be 2 to 64 cycles, not {self.interval!r}")
        check_formats(self.floating, self.feature, self.extent, self.logarithm)
        if not 8 <= self.depth_bits <= 23:
            raise ValueError(f"Depth must have 8 to 23 bits, not {self.depth_bits!r}")
        if self.group_tiles not in (1, 2, 4):
            raise ValueError(f"Tiles of a group's side must be 1, 2 or 4, not {self.group_tiles!r}")
        for name, value, low, high in (
            ("Queue of tokens", self.waiting, 16, 1024), ("Buffer", self.buffer_beats, 16, 1024),
            ("Burst", self.burst_beats, 1, 64)):
            if value & (value - 1) or not low <= value <= high:
                raise ValueError(
                    f"{name} must hold a power of two from {low} to {high}, not {value!r}")
        if 2 * self.burst_beats > self.buffer_beats:
            raise ValueError(
                f"Burst must be at most half of the buffer's {self.buffer_beats} beats, "
                f"not {self.burst_beats!r}")
        if 2 * self.burst_beats > self.waiting:
            # A run is asked for when something has come behind it, for which there must be a place.
            raise ValueError(
                f"Burst must be at most half as long as the queue of {self.waiting} tokens, "
                f"not {self.burst_beats!r}")
        if not 1 <= self.outstanding_bursts <= 64:
            raise ValueError(f"Outstanding bursts must be 1 to 64, not {self.outstanding_bursts!r}")
        if not 1 <= self.codebook_bursts <= self.outstanding_bursts:
            raise ValueError(
                f"Bursts of codebooks must be 1 to {self.outstanding_bursts}, which may be "
                f"outstanding, not {self.codebook_bursts!r}")

    @property
    def lanes(self) -> int:
        """Words of a beat of decoded records, so that all beats come within an interval."""
        early, late = self._parts
        return next(lanes for lanes in range(1, len(early) + len(late) + 1)
                    if -(-len(early) // lanes) - (-len(late) // lanes) <= self.interval)

    @property
    def record(self) -> tuple[str, ...]:
        """Names of the words of a decoded record, beat after beat; no name where there is none.

        What the projection needs at once has beats of its own; the others are read a hundred
        cycles later, and wait in a memory.
        """
        lanes = self.lanes
        return tuple(name for part in self._parts
                     for name in (*part, *[""] * (-len(part) % lanes)))

    @property
    def _parts(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Words that are needed early, and late."""
        words = record_words(self.codebooks)
        count = len(PLACE_WORDS) + sum(
            word.startswith(("rotation", "ratios")) for word in words)
        return words[:count], words[count:]

    @property
    def position(self) -> Fixed:
        """Means where tiles are told."""
        return Fixed(int_bits=self.extent.int_bits + 1, frac_bits=self.extent.frac_bits,
                     signed=True)

    def token_fields(self) -> tuple[tuple[str, int, bool], ...]:
        """(name, width in bits, signed) of every field of a token that leaves the unit.

        From bit 0 upward: its kind and its group's number; of a feature its fields, the depth
        within the voxel, the half sides of its upright box, and the first and last column and row
        of the tiles of the group that it meets. Of what ends all but the first two is zero.
        """
        tile_bits = (self.group_tiles - 1).bit_length()
        return (
            ("kind", 2, False), ("tag", GROUP_TAG_BITS, False), *self.feature.fields(),
            ("depth", self.depth_bits, False), ("extent_x", self.extent.width, False),
            ("extent_y", self.extent.width, False),
            *((f"{end}_{axis}", tile_bits, False) for end in ("first", "last") for axis in "xy"))

"""Tile lists of Gaussians' numbers in memory, and the buffers that fetch them."""

from dataclasses import dataclass

from splatforge.designs.entry import EntryFormat

__all__ = ["BEAT_IDS", "TilelistsDesign"]

#: Words of a list in a beat of the bus.
BEAT_IDS = 4


@dataclass(frozen=True, kw_only=True)
class TilelistsDesign:
    """Buffers and limits of the unit that reads lists of numbers.

    Parameters
    ----------
    entry : EntryFormat
        What becomes of a word of a list: the number of a feature, in its lowest bits. A list does
        not tell which regions of the tile a Gaussian reaches: it may be all.
    buffer_beats : int
        Beats of lists that may be asked for and not yet be taken; a power of two, at least two
        bursts, at most 4096.
    burst_beats : int
        Longest read burst: 4, 8 or 16 beats. Bursts of lists end at its multiples, so that none
        crosses 4 KiB.
    outstanding_bursts : int
        Bursts of lists that may be in flight, 1 to 64.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    entry: EntryFormat = EntryFormat(feature_bits=28, depth_bits=1)
    buffer_beats: int = 128
    burst_beats: int = 16
    outstanding_bursts: int = 8

    def __post_init__(self) -> None:
        if self.entry.feature_bits > 32:
            raise ValueError(
                f"Numbers must fit words of 32 bits, not {self.entry.feature_bits}")
        if self.burst_beats not in (4, 8, 16):
            raise ValueError(f"Burst must be 4, 8 or 16 beats, not {self.burst_beats!r}")
        if self.buffer_beats & (self.buffer_beats - 1) or not (
                2 * self.burst_beats <= self.buffer_beats <= 4096):
            raise ValueError(
                f"List buffer must be a power of two from {2 * self.burst_beats} to 4096 beats, "
                f"not {self.buffer_beats!r}")
        if not 1 <= self.outstanding_bursts <= 64:
            raise ValueError(
                f"Outstanding bursts must be 1 to 64, not {self.outstanding_bursts!r}")

"""Sorting of StreamingGS: what is left of a voxel, in the order of its depth."""

from dataclasses import dataclass

from splatforge.designs.bsu import BsuDesign
from splatforge.designs.entry import EntryFormat

__all__ = ["VsortDesign"]


@dataclass(frozen=True, kw_only=True)
class VsortDesign:
    """Sorters of GSCore, without its quick sort: a voxel is never more than a chunk.

    Parameters
    ----------
    capacity : int
        Features of a voxel that are sorted at once, a power of two from ``width`` to its square: at
        least the Gaussians of a voxel.
    width : int
        Features that go through a sorter's network side by side, a power of two from 2 to 64.
    units : int
        Sorters, 1 to 16. With two, one takes the next voxel's features while the other sorts and
        gives those before: enough for a fine filter that takes four cycles a Gaussian.
    waiting : int
        Tokens between the fine filter and the sorters, 4 to 4096, a power of two: so the filter
        goes on while all sorters are full, as behind a large voxel.
    depth_bits : int
        Bits of the depth that comes with a feature. Those of one depth keep their order.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    capacity: int = 256
    width: int = 16
    units: int = 2
    waiting: int = 512
    depth_bits: int = 20

    def __post_init__(self) -> None:
        if self.depth_bits < 1:
            raise ValueError(f"Depth must have 1 bit or more, not {self.depth_bits!r}")
        if self.waiting & (self.waiting - 1) or not 4 <= self.waiting <= 4096:
            raise ValueError(
                f"Waiting tokens must be a power of two from 4 to 4096, not {self.waiting!r}")
        self.sorter  # noqa: B018 - checks the rest

    @property
    def number_bits(self) -> int:
        """Bits of a feature's place among those of its voxel."""
        return self.capacity.bit_length() - 1

    @property
    def entry(self) -> EntryFormat:
        """What a sorter holds of a feature: its place, its depth; a mask that is always one."""
        return EntryFormat(
            feature_bits=self.number_bits, depth_bits=self.depth_bits, subtile_bits=1)

    @property
    def sorter(self) -> BsuDesign:
        """The sorters."""
        return BsuDesign(
            entry=self.entry, chunk=self.capacity, width=self.width, units=self.units)

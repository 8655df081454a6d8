"""Sorting units: chunk memories in rows and columns, and the network that they pass through."""

from dataclasses import dataclass

from splatforge.designs.entry import EntryFormat

__all__ = ["BsuDesign"]


@dataclass(frozen=True, kw_only=True)
class BsuDesign:
    """Sorters, and the chunk that each of them holds.

    The defaults are GSCore's four sorting units and its chunk of 256 (accelerators.md, 4.1). A
    network of 16 entries and four stages has 32 compare-exchanges and the four cycles that
    NeRArch-Sim, Tab. VI, gives a sorting unit.

    Parameters
    ----------
    entry : EntryFormat
        What is sorted.
    chunk : int
        Entries that a sorter holds: a power of two from ``width`` to its square, so that every row
        and every column of a chunk fits the network.
    width : int
        Entries that go through a sorter's network side by side, and banks of its memory: a power of
        two from 2 to 64.
    units : int
        Sorters, 1 to 16.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    entry: EntryFormat = EntryFormat()
    chunk: int = 256
    width: int = 16
    units: int = 4

    def __post_init__(self) -> None:
        if self.width & (self.width - 1) or not 2 <= self.width <= 64:
            raise ValueError(
                f"Width of a sorter must be a power of two from 2 to 64, not {self.width!r}")
        if self.chunk & (self.chunk - 1) or not self.width <= self.chunk <= self.width**2:
            raise ValueError(f"Chunk must be a power of two from {self.width} to {self.width**2}, "
                             f"not {self.chunk!r}")
        if not 1 <= self.units <= 16:
            raise ValueError(f"Sorters must be 1 to 16, not {self.units!r}")

    @property
    def stages(self) -> int:
        """Stages of the network, and bits of a lane's number."""
        return self.width.bit_length() - 1

    @property
    def rows(self) -> int:
        """Rows of a full chunk."""
        return self.chunk // self.width

    @property
    def levels(self) -> int:
        """Levels of the bitonic sort of a full chunk: its entries are 2 to this power."""
        return self.chunk.bit_length() - 1

"""Quick-sorting unit: long lists are partitioned by key until their parts are chunks."""

from dataclasses import dataclass

from splatforge.designs.lists import ListsDesign

__all__ = ["QsuDesign"]


@dataclass(frozen=True, kw_only=True)
class QsuDesign:
    """Buckets of a partition, and how long a list may stay as it is.

    GSCore orders a tile's list approximately first, and precisely only chunks that are needed
    (accelerators.md, 4.1). Its pivots are not published; here the keys from a list's least to its
    greatest are divided into equal ranges of a power of two, so that no pivot is stored or
    searched, and at least half of the buckets are in range.

    Parameters
    ----------
    chunk : int
        Entries of a list that is not partitioned: what a sorting unit holds, a power of two from 2
        to 65536.
    buckets : int
        Parts of a partition, a power of two from 2 to 64. GSCore has eight.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    chunk: int = 256
    buckets: int = 8

    def __post_init__(self) -> None:
        for name, value, low, high in (("Chunk", self.chunk, 2, 65536),
                                       ("Buckets", self.buckets, 2, 64)):
            if value & (value - 1) or not low <= value <= high:
                raise ValueError(
                    f"{name} must be a power of two from {low} to {high}, not {value!r}")

    def levels(self, lists: ListsDesign) -> int:
        """Partitions that may lie within each other.

        Keys of a list differ, so one that is longer than a chunk spans at least a chunk of keys;
        and the span of a part has fewer bits than that of its list, by those of a bucket's number.
        """
        keys = lists.entry.key_bits - (self.chunk.bit_length() - 1)
        return max(1, -(-keys // (self.buckets.bit_length() - 1)))

    def check_lists(self, lists: ListsDesign) -> None:
        """See that all parts that may lie side by side have a list.

        Raises
        ------
        ValueError
            If there are fewer further lists than that.
        """
        levels = self.levels(lists)
        if levels * self.buckets > lists.slots:
            raise ValueError(
                f"Further lists must be at least {levels * self.buckets}, {self.buckets} for each "
                f"of {levels} levels, not {lists.slots!r}")

    def shift(self, span: int) -> int:
        """Bits by which keys, less the least, are shifted to the number of their bucket."""
        return max(0, span.bit_length() - (self.buckets.bit_length() - 1))

"""Entries of tile lists: what a Gaussian leaves in the list of a tile that it meets."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["ENTRY_BITS", "TILE_TAG_BITS", "EntryFormat"]

#: Bits of an entry in memory: two of them are one beat of the bus.
ENTRY_BITS = 64
#: Bits of a tile's number, row-major, that go with what belongs to it from the list reader to the
#: array. Of two numbers within half of their range the older can be told.
TILE_TAG_BITS = 4


@dataclass(frozen=True, kw_only=True)
class EntryFormat:
    """One entry: whose features, how deep, and which subtiles it meets; the other bits are zero.

    From bit 0 upward ``feature``, ``depth``, ``subtiles``. Feature and depth together are the sort
    key, depth in the upper bits: since features differ, so do all keys of a tile, and any sorting
    network gives the one order.

    Parameters
    ----------
    feature_bits : int
        Number of the Gaussian's feature record: 16 million visible Gaussians by default.
    depth_bits : int
        Monotonic code of the depth: exponent and fraction of the CCU's floating word by default.
    subtile_bits : int
        Mask of the tile's 8x8-pixel subtiles, row-major (GSCore: 2x2 of them).

    Raises
    ------
    ValueError
        If a field is empty, the key is wider than 62 bits (int64 in the bit-true models), or an
        entry wider than 64 bits.
    """

    feature_bits: int = 24
    depth_bits: int = 25
    subtile_bits: int = 4

    def __post_init__(self) -> None:
        if min(self.feature_bits, self.depth_bits, self.subtile_bits) < 1:
            raise ValueError(
                "Feature, depth and subtiles must have 1 bit or more, not "
                f"{self.feature_bits}, {self.depth_bits} and {self.subtile_bits}")
        if self.key_bits > 62:
            raise ValueError(f"Sort key must have at most 62 bits, not {self.key_bits}")
        if self.width > ENTRY_BITS:
            raise ValueError(f"Entry must fit 64 bits, not {self.width}")

    @property
    def key_bits(self) -> int:
        """Bits of the sort key, the entry's lowest."""
        return self.feature_bits + self.depth_bits

    @property
    def width(self) -> int:
        """Bits of an entry that are not always zero."""
        return self.key_bits + self.subtile_bits

    def fields(self) -> tuple[tuple[str, int], ...]:
        """(name, width in bits) of every field from bit 0 upward."""
        return (("feature", self.feature_bits), ("depth", self.depth_bits),
                ("subtiles", self.subtile_bits))

    def encode(
        self, feature: npt.ArrayLike, depth: npt.ArrayLike, subtiles: npt.ArrayLike
    ) -> npt.NDArray[np.uint64]:
        """Entries of raw fields of shape [N] each.

        Raises
        ------
        ValueError
            If a field does not fit its bits.
        """
        word = np.zeros(np.shape(feature), np.uint64)
        shift = 0
        for (name, width), raw in zip(self.fields(), (feature, depth, subtiles), strict=True):
            raw = np.asarray(raw, np.int64)
            if raw.size and (raw.min() < 0 or raw.max() >> width):
                raise ValueError(
                    f"Entry {name} must be 0 to {(1 << width) - 1}, not {raw.min()} to {raw.max()}")
            word |= raw.astype(np.uint64) << np.uint64(shift)
            shift += width
        return word

    def decode(self, entries: npt.NDArray[np.uint64]) -> dict[str, npt.NDArray[np.int64]]:
        """Raw fields of shape [N] each, by name."""
        raw, shift = {}, 0
        for name, width in self.fields():
            bits = (entries >> np.uint64(shift)) & np.uint64((1 << width) - 1)
            raw[name] = bits.astype(np.int64)
            shift += width
        return raw

    def key(self, entries: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """Sort keys of entries."""
        return (entries & np.uint64((1 << self.key_bits) - 1)).astype(np.int64)

"""The radiance cache: final colours of pixels by the first Gaussians that they blend.

Source: "Lumina: Real-Time Mobile Neural Rendering by Exploiting Computational Redundancy", ISCA
2025: k = 5 ids, four ways of 1024 entries, tags of ten bytes (bits 2 to 17 of every id), 8-bit
colours, 52 KB; pixels of 4x4 tiles share a cache, whose contents last over frames in memory. What
it leaves open is chosen here: the order of look-ups and inserts, which pixels take part, and the
index of other geometries (:mod:`splatforge.algos.radiance`).
"""

from dataclasses import dataclass

__all__ = ["BEAT_BYTES", "BURST_BEATS", "COLOR_BITS", "LOW_BITS", "TAG_BITS", "RadianceDesign",
           "index_string"]

#: Lowest bits of an id, which are in the index and not in the tag.
LOW_BITS = 2
#: Bits of an id in the tag, above these.
TAG_BITS = 16
#: Red, green and blue of an entry.
COLOR_BITS = 24
#: One beat of the bus.
BEAT_BYTES = 16
#: Beats of a burst that loads or saves a part of a bank: whole sets in every geometry.
BURST_BEATS = 16


@dataclass(frozen=True, kw_only=True)
class RadianceDesign:
    """Geometry of the cache.

    In memory the bank of a group is ``image_bytes``: set after set, the ways of a set in order, an
    entry from bit 0 upward ``tag`` (that of the first id lowest), ``red``, ``green``, ``blue``
    (8 bits each), ``valid``, and in the first way of a set its ``recency``, ``ways - 1`` bits; then
    zeros to a whole number of beats. An entry that is not valid is zero but for the recency.

    Parameters
    ----------
    record_ids : int
        k, ids of the record of a pixel, 1 to 8.
    sets : int
        A power of two from 16 to 16384.
    ways : int
        1, 2, 4 or 8.
    group_tiles : int
        Tiles along a side of the groups that share a bank: 1, 2 or 4. The paper says 4x4 tiles of
        its array and elsewhere 2x2.
    outstanding_bursts : int
        Read bursts, and write bursts, of banks that may be in flight, 1 to 64.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    record_ids: int = 5
    sets: int = 1024
    ways: int = 4
    group_tiles: int = 4
    outstanding_bursts: int = 8

    def __post_init__(self) -> None:
        if not 1 <= self.record_ids <= 8:
            raise ValueError(f"Ids of a record must be 1 to 8, not {self.record_ids!r}")
        if self.sets & (self.sets - 1) or not 16 <= self.sets <= 16384:
            raise ValueError(f"Sets must be a power of two from 16 to 16384, not {self.sets!r}")
        if self.ways not in (1, 2, 4, 8):
            raise ValueError(f"Ways must be 1, 2, 4 or 8, not {self.ways!r}")
        if self.group_tiles not in (1, 2, 4):
            raise ValueError(
                f"Tiles of a group's side must be 1, 2 or 4, not {self.group_tiles!r}")
        if not 1 <= self.outstanding_bursts <= 64:
            raise ValueError(
                f"Outstanding bursts must be 1 to 64, not {self.outstanding_bursts!r}")

    @property
    def index_bits(self) -> int:
        """Bits of a set's number."""
        return self.sets.bit_length() - 1

    @property
    def tag_bits(self) -> int:
        """Bits of a tag."""
        return TAG_BITS * self.record_ids

    @property
    def entry_bits(self) -> int:
        """Bits of an entry in memory that are in use, those of the recency included."""
        return self.tag_bits + COLOR_BITS + 1 + self.ways - 1

    @property
    def entry_beats(self) -> int:
        """Beats of the bus that an entry takes in memory."""
        return -(-self.entry_bits // (8 * BEAT_BYTES))

    @property
    def image_bytes(self) -> int:
        """Bytes of a bank in memory."""
        return self.sets * self.ways * self.entry_beats * BEAT_BYTES

    @property
    def capacity_bytes(self) -> int:
        """Bytes of tags and colours of a bank, as the paper counts them: 52 KB."""
        return self.sets * self.ways * (self.tag_bits + COLOR_BITS) // 8

    @property
    def burst_sets(self) -> int:
        """Sets that a burst brings."""
        return BURST_BEATS // (self.ways * self.entry_beats)

    @property
    def bursts(self) -> int:
        """Bursts of a bank."""
        return self.sets // self.burst_sets


def index_string(design: RadianceDesign) -> list[tuple[int, int, int]]:
    """For every bit of the string: the bit of the index that it is XORed into, its id and its bit.

    Ids are counted from 0, the first that was blended.
    """
    ids, bits = design.record_ids, design.index_bits
    rounds = -(-bits // (LOW_BITS * ids))
    string = [(place, LOW_BITS * number + bit) for number in range(rounds)
              for place in range(ids) for bit in range(LOW_BITS)]
    return [(at % bits, place, bit) for at, (place, bit) in enumerate(string)]

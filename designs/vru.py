"""What stands in front of the rendering array: features by number, made into splats of a tile."""

from dataclasses import dataclass

from splatforge.designs.entry import EntryFormat
from splatforge.designs.feature import FeatureFormat
from splatforge.designs.fetch import SplatFormat
from splatforge.designs.fixed import Fixed
from splatforge.designs.setup import SetupDesign

__all__ = ["REGION_PX", "VruDesign"]

#: Side of the regions of a tile that an entry's mask speaks of: GSCore's subtiles, four of them in
#: a tile (accelerators.md, 4.1). What this package calls a subtile is a quarter of that side.
REGION_PX = 8


@dataclass(frozen=True, kw_only=True)
class VruDesign:
    """Feature cache, requests in flight, and formats of a splat's setup.

    Parameters
    ----------
    entry : EntryFormat
        What comes: the number of a feature record, and where in the tile it reaches.
    feature : FeatureFormat
        The record in memory.
    splat : SplatFormat
        What the rendering array takes.
    slope : Fixed
        As in :class:`splatforge.designs.setup.SetupDesign`.
    cache_features : int
        Records that the cache holds, direct-mapped by the lowest bits of their numbers; a power of
        two from 2 to 65536. GSCore's memory for features is 128 KB, 4096 records of 32 bytes.
    waiting : int
        Entries between the cache's tags and its data, 4 to 1024, a power of two: with 256, hits
        run ahead far enough to hide a memory of 100 cycles behind the blocks of those before.
    outstanding_features : int
        Records that may be in flight or not yet be in their place, 1 to 256, a power of two.

    Raises
    ------
    ValueError
        If a parameter is out of its range, or a format cannot hold what it must.
    """

    entry: EntryFormat = EntryFormat()
    feature: FeatureFormat = FeatureFormat()
    splat: SplatFormat = SplatFormat()
    slope: Fixed = Fixed(int_bits=2, frac_bits=24, signed=True)
    cache_features: int = 4096
    waiting: int = 256
    outstanding_features: int = 64

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("Cached features", self.cache_features, 2, 65536),
            ("Waiting entries", self.waiting, 4, 1024),
            ("Outstanding features", self.outstanding_features, 1, 256),
        ):
            if value & (value - 1) or not low <= value <= high:
                raise ValueError(
                    f"{name} must be a power of two from {low} to {high}, not {value!r}")
        if self.cache_features >> self.entry.feature_bits:
            raise ValueError(
                f"Cached features must be fewer than {1 << self.entry.feature_bits}, the numbers "
                f"that there are, not {self.cache_features!r}")
        if self.entry.subtile_bits != 4:
            raise ValueError(
                f"Entries must tell the four 8x8 regions of a tile, not {self.entry.subtile_bits}")
        self.setup  # noqa: B018 - checks the formats

    @property
    def index_bits(self) -> int:
        """Lowest bits of a feature's number, that say where in the cache it is."""
        return self.cache_features.bit_length() - 1

    @property
    def setup(self) -> SetupDesign:
        """What makes splats of features."""
        return SetupDesign(feature=self.feature, splat=self.splat, slope=self.slope)

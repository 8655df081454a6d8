"""Pixels of frames with their records, as the array shows them to the radiance cache."""

import numpy as np

from splatforge.algos.lumina.sharing import group_order
from splatforge.algos.radiance import Banks, radiance_fixed, record_keys
from splatforge.designs.fetch import TILE_PX
from splatforge.designs.nru import RECORD_ID_BITS
from splatforge.designs.radiance import RadianceDesign

__all__ = ["RecordedFrame", "record_pool"]

_PIXELS = TILE_PX * TILE_PX


def record_pool(rng: np.random.Generator, record_ids: int, count: int) -> np.ndarray:
    """Records to draw from, [count, k]: most lowest bits are zero, so that few sets are shared."""
    pool = rng.integers(0, 1 << RECORD_ID_BITS, (count, record_ids))
    pool[:, 1:] &= ~3
    return pool.astype(np.int32)


class RecordedFrame:
    """A frame in front of the cache, and what must come of it.

    Parameters
    ----------
    design : RadianceDesign
        The cache.
    rng : numpy.random.Generator
        Draws records and colours.
    pool : ndarray
        Records, [n, k].
    width, height : int
        In pixels.
    images : ndarray or None
        Banks in memory before the frame, or none: they start empty.
    share : float
        Most of a tile's pixels that have records, but for the first tile, where all have.
    """

    def __init__(
        self, design: RadianceDesign, rng: np.random.Generator, pool: np.ndarray, width: int,
        height: int, images: np.ndarray | None, share: float = 1.0,
    ) -> None:
        self.width, self.height, self.flush = width, height, images is None
        tiles, self.starts = group_order(width, height, design.group_tiles)
        count = len(tiles)
        # Neighbours share records, runs of several lengths; one tile has none, one has all.
        runs = rng.integers(0, len(pool), (count, _PIXELS))
        for pixel in range(1, _PIXELS):
            again = rng.random(count) < 0.6
            runs[again, pixel] = runs[again, pixel - 1]
        #: Records, [tiles, 256, k], and which are complete, [tiles, 256].
        self.ids = pool[runs]
        shares = share * rng.random(count)
        shares[0], shares[-1] = 1, 0
        self.complete = rng.random((count, _PIXELS)) < shares[:, None]
        #: Colour of every pixel without the cache, [tiles, 256, 3].
        self.colors = rng.integers(0, 256, (count, _PIXELS, 3)).astype(np.uint8)
        banks = Banks.empty(design, len(self.starts) - 1) if images is None else (
            Banks.from_images(design, images))
        self.visits, banks = radiance_fixed(
            design, banks, self.starts, self.ids, self.complete, self.colors)
        #: Banks in memory behind the frame.
        self.images = banks.images(design)
        self.sets, _ = record_keys(design, np.where(self.complete[..., None], self.ids, 0))

    @property
    def tiles(self) -> int:
        """Tiles of the frame."""
        return len(self.complete)

    def lookups(self, rng: np.random.Generator) -> list[tuple[int, int]]:
        """Tile and pixel of every look-up: tiles in order, pixels of one in some order."""
        return [(tile, pixel) for tile in range(self.tiles)
                for pixel in rng.permutation(np.flatnonzero(self.complete[tile])).tolist()]

    def walk(self) -> list[tuple[int, int]]:
        """Tile and pixel of every walked pixel in order; pixel -1 is the tile's end."""
        return [(tile, pixel) for tile in range(self.tiles)
                for pixel in [*np.flatnonzero(self.complete[tile]).tolist(), -1]]

    def lookup_fields(self, tile: int, pixel: int) -> dict:
        """A look-up for :func:`splatforge.hw.radiance.lookup_layout`."""
        return {"pixel": pixel, "record": self.ids[tile, pixel].tolist()}

    def answer_fields(self, tile: int, pixel: int) -> dict:
        """The answer, for :func:`splatforge.hw.radiance.answer_layout`."""
        return {"pixel": pixel, "hit": int(self.visits.hit[tile, pixel]),
                "color": self.visits.colors[tile, pixel].tolist()}

    def walk_fields(self, tile: int, pixel: int) -> dict:
        """A walked pixel for :func:`splatforge.hw.radiance.walk_layout`."""
        if pixel < 0:
            return {"last": 1}
        return {**self.lookup_fields(tile, pixel), "hit": int(self.visits.hit[tile, pixel]),
                "color": self.colors[tile, pixel].tolist(), "last": 0}

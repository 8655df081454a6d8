"""Tile tables and lists of numbers in memory, drawn."""

import numpy as np

from splatforge.algos.tilelists import tilelists_fixed
from splatforge.designs.tilelists import BEAT_IDS, TilelistsDesign

__all__ = ["NumberLists"]

_LIST_BEATS = 16


class NumberLists:
    """A frame's table and lists, and what must come of them.

    Parameters
    ----------
    design : TilelistsDesign
        Bits of a number.
    rng : numpy.random.Generator
        Draws numbers, and lengths beyond those given.
    width, height : int
        In pixels.
    side : int
        Tiles along a side of the groups.
    counts : sequence of int
        Entries of the first tiles' lists.
    numbers : int
        Numbers are below.
    """

    #: Above 32 bits; not at the beginning of a page.
    table_address, list_address = 0x12_3456_7F00, 0x13_0000_0100

    def __init__(
        self, design: TilelistsDesign, rng: np.random.Generator, width: int, height: int,
        side: int, counts=(0, 3, 1, 0, 0, 70, 9, 17, 4), numbers: int = 1 << 28,
    ) -> None:
        self.width, self.height = width, height
        tiles = -(-width // 16) * -(-height // 16)
        self.counts = np.array([*counts, *rng.integers(0, 90, tiles)][:tiles])
        spans = -(-self.counts // (BEAT_IDS * _LIST_BEATS)) * _LIST_BEATS
        self.first = np.concatenate([[0], np.cumsum(spans)[:-1]]).astype(np.int64)
        self.list_beats = int(spans.sum())
        # Upper bits of words, and words between lists, mean nothing.
        words = rng.integers(0, 1 << 32, BEAT_IDS * self.list_beats, dtype=np.uint32)
        if numbers < 1 << 28:
            words = words % numbers
        self.table = np.stack([self.first, self.counts], axis=1).astype(np.uint32)
        self.listed = tilelists_fixed(design, width, height, self.table, words, side)
        table = np.concatenate([self.table.reshape(-1), np.zeros(2 * (tiles % 2), np.uint32)])
        #: Beats by address.
        self.memory = {
            base + 16 * n: int.from_bytes(beat.astype("<u4").tobytes(), "little")
            for base, part in ((self.table_address, table), (self.list_address, words))
            for n, beat in enumerate(part.reshape(-1, BEAT_IDS))}

    @property
    def tiles(self) -> int:
        """Tiles of the frame."""
        return len(self.counts)

    def tile_fields(self, tile: int) -> dict:
        """A tile for :func:`splatforge.hw.vru.placed_tile_layout`."""
        listed = self.listed
        return {"tile": tile % 16, "splats": int(self.counts[tile]), **{
            name: int(getattr(listed, name)[tile]) for name in ("columns", "rows", "x", "y")}}

    def entries(self, tile: int) -> list[dict]:
        """Entries of a tile for :func:`splatforge.hw.vru.entry_layout`."""
        first, end = self.listed.starts[tile:tile + 2]
        return [{"feature": int(number), "subtiles": 15, "tile": tile % 16}
                for number in self.listed.numbers[first:end]]

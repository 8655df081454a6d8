"""Tile lists of random records, far beyond what scenes hold."""

import numpy as np

from splatforge.algos.fetch import SplatLists
from splatforge.designs.fetch import TILE_PX

__all__ = ["random_lists"]


def random_lists(seed: int, *, tiles_x: int, tiles_y: int, longest: int) -> SplatLists:
    """Lists of records of random bits, for a frame whose last tiles are not full.

    Some words are zero, which brings forms near zero, where splats are opaque; some masks reach
    every subtile. The first tile is empty, the last has `longest` records.
    """
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, longest + 1, tiles_x * tiles_y)
    lengths[0], lengths[-1] = 0, longest
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    splats = int(starts[-1])
    records = rng.integers(0, 2**64, (splats, 2), dtype=np.uint64)
    records[rng.random((splats, 2)) < 0.4] = 0
    records[:, 1] |= rng.choice(np.array([0, 0xFFFF << 48], np.uint64), splats)
    return SplatLists(
        width=TILE_PX * tiles_x - 5, height=TILE_PX * tiles_y - 3, starts=starts, records=records,
        pairs=lengths.astype(np.int64),
        places=np.concatenate([np.arange(n) for n in lengths]).astype(np.int32),
        gaussians=splats, gaussians_visible=splats, sh_degree=0)

"""Tile lists of random records, far beyond what scenes hold."""

import numpy as np

from splatforge.algos.fetch import SplatLists, decode_splats, encode_splats
from splatforge.designs.fetch import SUBTILES, TILE_PX, SplatFormat

__all__ = ["random_lists"]

#: Place in the second tile's list of two records that are opaque everywhere and end the tile.
ENDING = 3


def random_lists(
    seed: int, *, tiles_x: int, tiles_y: int, longest: int,
    splat: SplatFormat = SplatFormat(),  # noqa: B008
) -> SplatLists:
    """Lists of records of random bits, for a frame whose last tiles are not full.

    Some words are zero, which brings forms near zero, where splats are opaque; some masks reach
    every subtile. The first tile is empty; the second and the last have `longest` records, and
    the second ends at its fifth.
    """
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, longest + 1, tiles_x * tiles_y)
    lengths[1:2] = lengths[-1] = longest
    lengths[0] = 0
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    splats = int(starts[-1])
    records = rng.integers(0, 2**64, (splats, 2), dtype=np.uint64)
    records[rng.random((splats, 2)) < 0.4] = 0
    records[:, 1] |= rng.choice(np.array([0, 0xFFFF << 48], np.uint64), splats)
    fields = decode_splats(splat, records)
    if lengths[1:2].sum() >= ENDING + 2:
        for name in ("u0", "v0", "a", "b", "c", "log_opacity"):
            fields[name][ENDING:ENDING + 2] = 0
        fields["subtiles"][ENDING:ENDING + 2] = (1 << SUBTILES) - 1
    return SplatLists(
        width=TILE_PX * tiles_x - 5, height=TILE_PX * tiles_y - 3, starts=starts,
        records=encode_splats(splat, fields), pairs=lengths.astype(np.int64),
        places=np.concatenate([np.arange(n) for n in lengths]).astype(np.int32),
        gaussians=splats, gaussians_visible=splats, sh_degree=0)

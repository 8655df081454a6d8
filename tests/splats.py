"""Tile lists of random splats, as the raster core reads them."""

import numpy as np

from splatforge.algos.fetch import SplatLists, encode_splats
from splatforge.designs.fetch import SUBTILES, TILE_PX, SplatFormat

__all__ = ["FULL", "SPLAT", "join", "random_lists", "splats"]

SPLAT = SplatFormat()
FULL = (1 << SUBTILES) - 1


def splats(count, rng, *, opaque=0.0, wide=0.5, mask=None):
    """Raw fields of splats with a centre in or near the tile; `opaque` of them hide all behind."""
    x, y = rng.uniform(-4, 20, (2, count))
    size = 10 ** rng.uniform(-1.5, 0, count)
    a, c = size * rng.uniform(0.3, 1.5, (2, count))
    b = size * rng.uniform(-1, 1, count)
    flat = rng.random(count) < opaque
    a, b, c = (np.where(flat, 0, slope) for slope in (a, b, c))
    values = {"u0": -a * x - b * y, "v0": -c * y, "a": a, "b": b, "c": c}
    raw = {name: getattr(SPLAT, name).quantize(value) for name, value in values.items()}
    lo = np.where(rng.random(count) < wide, rng.integers(0, 60, count),
                  rng.integers(0, SPLAT.log_opacity.raw_max + 1, count))
    raw["log_opacity"] = np.where(flat, 0, lo)
    for channel in ("red", "green", "blue"):
        raw[channel] = rng.integers(0, SPLAT.color.raw_max + 1, count)
    drawn = rng.integers(0, FULL + 1, count) | rng.integers(0, FULL + 1, count)
    raw["subtiles"] = np.where(flat, FULL, drawn) if mask is None else np.full(count, mask)
    return raw


def join(width, height, tiles, seed=1):
    """The lists of a frame from the raw fields of every tile."""
    rng = np.random.default_rng(seed)
    counts = np.array([len(tile["u0"]) for tile in tiles])
    fields = {name: np.concatenate([tile[name] for tile in tiles]) for name in tiles[0]}
    # Some entries of the 3-sigma list have no record.
    pairs = counts + rng.integers(0, 9, len(tiles))
    places = [np.sort(rng.choice(n, k, replace=False)) for n, k in zip(pairs, counts, strict=True)]
    return SplatLists(
        width=width, height=height, starts=np.concatenate([[0], np.cumsum(counts)]),
        records=encode_splats(SPLAT, fields), pairs=pairs,
        places=np.concatenate(places).astype(np.int32), gaussians=500, gaussians_visible=400,
        sh_degree=2)


def random_lists(width, height, seed, longest=40, opaque=(0.0, 0.5)):
    rng = np.random.default_rng(seed)
    tiles = -(-width // TILE_PX) * -(-height // TILE_PX)
    lengths = rng.integers(1, longest, tiles)
    lengths[rng.random(tiles) < 0.15] = 0
    return join(width, height, [
        splats(int(n), rng, opaque=opaque[k % 2]) for k, n in enumerate(lengths)], seed)

"""Tiles for the array of neural rendering units, and what must come of them."""

from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from splatforge.algos.lumina.render import cached_state
from splatforge.algos.nru import SPLAT_FIELDS, NruFrame, nru_fixed, significant_fixed
from splatforge.algos.resolve import resolve_fixed
from splatforge.designs.fetch import TILE_PX
from splatforge.designs.lumina import LuminaDesign
from splatforge.designs.resolve import PixelFormat
from splatforge.hw.array import PIXELS_PER_GROUP
from splatforge.sim.nru import work_of

__all__ = ["BACKGROUND", "Tiles"]

#: Red, green, blue, UQ(1,8).
BACKGROUND = (30, 256, 141)


class Tiles:
    """Tiles with random lists, what they find in a cache, and what must come of them.

    The longest list begins opaque: its tile ends before it does.

    Parameters
    ----------
    design : LuminaDesign
        Array, formats, and k.
    seed : int
        Of everything random.
    counts : sequence of int
        Splats of the tiles.
    caching : bool
        Whether pixels are looked up; about half of those that are, hit.
    """

    def __init__(
        self, design: LuminaDesign, seed: int, counts: Sequence[int], caching: bool
    ) -> None:
        rng = np.random.default_rng(seed)
        nru, splat, side = design.nru, design.splat, design.nru.tile_px
        self.counts, self.caching, self.side = counts, caching, side
        #: Columns and rows of every tile inside of the frame.
        self.size = [(int(x), int(y)) for x, y in rng.integers(1, side + 1, (len(counts), 2))]
        self.size[:2] = (side, side), (side, side)
        self.starts = np.concatenate([[0], np.cumsum(counts)])
        count = int(self.starts[-1])

        # About as many are seen by a pixel whatever the tile's side.
        def slope(low: float, high: float):
            return rng.uniform(low, high, count) * 4 / side

        raw = {"u0": splat.u0.quantize(rng.uniform(-3, 1.5, count)),
               "v0": splat.v0.quantize(rng.uniform(-3, 1.5, count)),
               "a": splat.a.quantize(slope(0.05, 1.2)), "b": splat.b.quantize(slope(-0.5, 0.8)),
               "c": splat.c.quantize(slope(0.05, 1.2)),
               "log_opacity": splat.log_opacity.quantize(rng.uniform(0, 5, count)),
               **{name: splat.color.quantize(rng.uniform(0, 1, count))
                  for name in SPLAT_FIELDS[6:]}}
        raw["log_opacity"][rng.random(count) < 0.3] //= 12
        longest = int(self.starts[np.argmax(counts)])
        for name in SPLAT_FIELDS[:6]:
            raw[name][longest:longest + 20] = 0
        #: Raw :data:`splatforge.algos.nru.SPLAT_FIELDS`, and the splats' Gaussians.
        self.splats = np.stack([raw[name] for name in SPLAT_FIELDS], axis=1).astype(np.int32)
        self.ids = rng.integers(0, 1 << 18, count).astype(np.int32)
        frames = [nru_fixed(
            nru, splat, design.radiance.record_ids, columns, rows, np.array([0]), np.array([0]),
            np.array([0, last - first]), self.ids[first:last], self.splats[first:last])
            for (columns, rows), first, last in
            zip(self.size, self.starts[:-1], self.starts[1:], strict=True)]
        self.frame = NruFrame(**{
            field.name: np.concatenate([getattr(each, field.name) for each in frames])
            for field in fields(NruFrame)})
        self.complete = self.frame.complete >= 0
        self.hit = self.complete & (rng.random(self.complete.shape) < 0.5) & caching
        #: What pixels find that hit.
        self.colors = rng.integers(0, 256, (*self.hit.shape, 3))
        state = np.where(
            self.hit[..., None], cached_state(nru.blend, self.colors), self.frame.state)
        final = resolve_fixed(nru.blend, design.resolve, state, BACKGROUND, PixelFormat.RGBA8)
        #: For the cycle model.
        columns, rows = np.transpose(self.size)
        self.work = work_of(nru, self.frame, columns, rows, self.starts,
                            significant_fixed(nru, splat, self.splats))
        #: For every tile the pixels that are looked up, and their records.
        self.lookups: list[dict[int, tuple[int, ...]]] = [{} for _ in counts]
        #: Tile, pixel, record, hit and colour; behind a tile's last one its end.
        self.walk: list[tuple] = []
        #: Colour and T of the pixels of every group, those inside of the frame.
        self.groups: list[list[tuple[int, ...]]] = []
        for tile, (columns, rows) in enumerate(self.size):
            for y in range(rows):
                for x in range(columns):
                    pixel = TILE_PX * y + x
                    if not self.complete[tile, pixel]:
                        continue
                    record = tuple(self.frame.ids[tile, pixel].tolist())
                    self.lookups[tile][side * y + x] = record
                    self.walk.append((tile, side * y + x, record, int(self.hit[tile, pixel]),
                                      tuple(final[tile, pixel, :3].tolist())))
                row = state[tile, TILE_PX * y:TILE_PX * y + columns].tolist()
                self.groups += [[tuple(each) for each in row[first:first + PIXELS_PER_GROUP]]
                                for first in range(0, columns, PIXELS_PER_GROUP)]
            self.walk.append((tile, "end"))
        if not caching:
            self.walk, self.lookups = [], [{} for _ in counts]

    def answer(self, tile: int, pixel: int) -> tuple[bool, list[int]]:
        """Whether a pixel hits, and the colour that it finds."""
        at = TILE_PX * (pixel // self.side) + pixel % self.side
        return bool(self.hit[tile, at]), self.colors[tile, at].tolist()

"""Tile lists of Gaussians' numbers, as they lie in memory."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from splatforge.designs.fetch import TILE_PX
from splatforge.designs.tilelists import BEAT_IDS, TilelistsDesign

__all__ = ["ListedTiles", "tilelists_fixed"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ListedTiles:
    """Tiles of a frame in the order in which they are drawn.

    Parameters
    ----------
    x, y : ndarray
        Column and row of every tile in the frame, in tiles, shape [T].
    columns, rows : ndarray
        Pixels of it inside of the frame, shape [T].
    starts : ndarray
        First entry of every tile in `numbers`, shape [T + 1].
    numbers : ndarray
        Gaussians' numbers of all lists, shape [E].
    beats : int
        Beats of the bus that the table and the lists are, each list a whole number.
    """

    x: npt.NDArray[np.int64]
    y: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.int64]
    beats: int


def tilelists_fixed(
    design: TilelistsDesign, width: int, height: int, table: npt.NDArray[np.uint32],
    lists: npt.NDArray[np.uint32], side: int,
) -> ListedTiles:
    """Tiles and entries of a frame, bit-true to :class:`splatforge.hw.tilelists.Tilelists`.

    Groups of tiles come in raster order, and the tiles of each; what is outside of the frame is
    left out.

    Parameters
    ----------
    design : TilelistsDesign
        Bits of a number.
    width, height : int
        Frame in pixels.
    table : ndarray
        First beat and number of entries of every tile in that order, shape [T, 2].
    lists : ndarray
        Words of the lists, shape [4 * beats].
    side : int
        Tiles along a side of the groups.

    Raises
    ------
    ValueError
        If a list reaches beyond the words that there are.
    """
    tiles_x, tiles_y = -(-width // TILE_PX), -(-height // TILE_PX)
    y, x = np.divmod(np.arange(tiles_x * tiles_y), tiles_x)
    order = np.lexsort((x, y, x // side, y // side))
    x, y = x[order], y[order]
    first, counts = np.asarray(table, np.int64)[:len(order)].T
    beats = -(-counts // BEAT_IDS)
    if ((first + beats) * BEAT_IDS > len(lists)).any():
        raise ValueError("A list reaches beyond the words that there are")
    starts = np.concatenate([[0], np.cumsum(counts)])
    places = np.repeat(BEAT_IDS * first - starts[:-1], counts) + np.arange(starts[-1])
    numbers = np.asarray(lists, np.int64)[places] & ((1 << design.entry.feature_bits) - 1)
    return ListedTiles(
        x=x, y=y, columns=np.minimum(TILE_PX, width - TILE_PX * x),
        rows=np.minimum(TILE_PX, height - TILE_PX * y), starts=starts, numbers=numbers,
        beats=-(-len(order) // 2) + int(beats.sum()))

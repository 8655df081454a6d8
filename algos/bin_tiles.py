"""Lists of Gaussians per 16 x 16 tile, front to back."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from splatforge.algos.project import TILE_PX, Projected, tile_spans
from splatforge.algos.sort import sort_depths
from splatforge.algos.workers import Workers

__all__ = ["TileLists", "bin_tiles"]


@dataclass(frozen=True, kw_only=True, eq=False)
class TileLists:
    """Which Gaussians a tile must look at, in which order.

    Parameters
    ----------
    tiles_x, tiles_y : int
        Tiles across and down; the last ones may stick out of the image.
    starts : numpy.ndarray
        Shape [tiles_x * tiles_y + 1], int64: tile t = y * tiles_x + x owns
        ``entries[starts[t]:starts[t + 1]]``.
    entries : numpy.ndarray
        Shape [P], int32 indices into the projected Gaussians; within a tile by ascending
        (depth, id).
    tile_px : int
        Edge of a tile in pixels.
    """

    tiles_x: int
    tiles_y: int
    starts: npt.NDArray[np.int64]
    entries: npt.NDArray[np.int32]
    tile_px: int = TILE_PX

    @property
    def tiles(self) -> int:
        """Number of tiles."""
        return self.tiles_x * self.tiles_y


@njit(cache=True, nogil=True)
def _count_kernel(worker, workers, order, spans, tiles_x, first_row, end_row, counts):
    n = len(order)
    for k in range(worker * n // workers, (worker + 1) * n // workers):
        i = order[k]
        for y in range(max(spans[i, 1], first_row), min(spans[i, 3], end_row)):
            for x in range(spans[i, 0], spans[i, 2]):
                counts[worker, (y - first_row) * tiles_x + x] += 1


@njit(cache=True)
def _offset_kernel(counts, starts):
    """Turn counts per block and tile into where each block writes; return via ``starts``."""
    total = 0
    for tile in range(counts.shape[1]):
        starts[tile] = total
        for b in range(len(counts)):
            count = counts[b, tile]
            counts[b, tile] = total
            total += count
    starts[counts.shape[1]] = total


@njit(cache=True, nogil=True)
def _fill_kernel(worker, workers, order, spans, tiles_x, first_row, end_row, slots, entries):
    n = len(order)
    for k in range(worker * n // workers, (worker + 1) * n // workers):
        i = order[k]
        for y in range(max(spans[i, 1], first_row), min(spans[i, 3], end_row)):
            for x in range(spans[i, 0], spans[i, 2]):
                slot = slots[worker, (y - first_row) * tiles_x + x]
                entries[slot] = i
                slots[worker, (y - first_row) * tiles_x + x] = slot + 1


def list_spans(
    order: npt.NDArray[np.int32],
    spans: npt.NDArray[np.int16],
    tiles_x: int,
    first_row: int,
    end_row: int,
    workers: Workers,
) -> TileLists:
    """Lists from spans: a counting sort by tile of Gaussians that are in order already.

    Parameters
    ----------
    order : numpy.ndarray
        Indices of shape [M], int32, in the order that every list shall have.
    spans : numpy.ndarray
        Tiles of each Gaussian, shape [M, 4], int16: x first, y first, x end, y end.
    tiles_x : int
        Tiles across.
    first_row, end_row : int
        The rows of tiles that are listed; the first of them is row 0 of the result.
    workers : Workers
        The threads to run on.
    """
    # Each thread owns a run of the order and, per tile, a run of the list: the result does not
    # depend on the number of threads.
    tiles_y = end_row - first_row
    counts = np.zeros((workers.count, tiles_x * tiles_y), np.int64)
    starts = np.empty(tiles_x * tiles_y + 1, np.int64)
    workers.run(_count_kernel, order, spans, tiles_x, first_row, end_row, counts)
    _offset_kernel(counts, starts)
    entries = np.empty(int(starts[-1]), np.int32)
    workers.run(_fill_kernel, order, spans, tiles_x, first_row, end_row, counts, entries)
    return TileLists(tiles_x=tiles_x, tiles_y=tiles_y, starts=starts, entries=entries)


def bin_tiles(projected: Projected, width: int, height: int) -> TileLists:
    """List for every tile the Gaussians whose 3-sigma square reaches it.

    A Gaussian is in the tiles whose pixels' area the square [mean - r, mean + r] meets, r the
    radius: along either axis from ``floor((mean - r) / 16)`` to ``ceil((mean + r) / 16)``, end
    excluded.

    Parameters
    ----------
    projected : Projected
        The Gaussians.
    width, height : int
        Image size in pixels, at least 1.

    Returns
    -------
    TileLists
        Row-major tiles; within a tile by ascending (float32 depth, id).

    Raises
    ------
    ValueError
        If the size is not positive.

    Notes
    -----
    The square is that of Kerbl et al., ACM TOG 42(4), 2023. Their rasterizer rounds in integer
    arithmetic, ``int((p + r + 15) / 16)`` with p = mean - 0.5, and so loses the last column or
    row of the square where p + r lies less than a pixel behind a tile's edge: 4 to 9 % of the
    pairs on real scenes. The image differs by 70 to 87 dB; ours is the closer one to a rendering
    without any 3-sigma limit (90 dB and more against 70 to 87).
    """
    if width < 1 or height < 1:
        raise ValueError(f"Image size must be at least 1 x 1, not {width!r} x {height!r}")
    tiles_x, tiles_y = -(-width // TILE_PX), -(-height // TILE_PX)
    with Workers() as workers:
        spans = tile_spans(projected.mean_px, projected.radius_px, tiles_x, tiles_y, workers)
        order = sort_depths(projected.depth, workers)
        return list_spans(order, spans, tiles_x, 0, tiles_y, workers)

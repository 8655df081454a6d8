"""The array of neural rendering units in integers: what the pixels of tiles blend, without a cache.

Arithmetic and order are those of every array here: alpha of :mod:`splatforge.algos.alpha`, blending
of :mod:`splatforge.algos.blend`, front to back. Alongside comes what the cache and the models of
time want to know: the first Gaussians that every pixel blends, where it had that many and where it
ended, and which pixels every splat is significant for.
"""

from dataclasses import dataclass

import numba as nb
import numpy as np
import numpy.typing as npt

from splatforge.algos import alpha as alpha_algorithm
from splatforge.algos import blend as blend_algorithm
from splatforge.algos.alpha import _alpha_kernel, alpha_constants, exp2_table
from splatforge.algos.blend import _add_kernel, _product_kernel, blend_constants
from splatforge.algos.compiled import source_digest
from splatforge.algos.workers import Workers
from splatforge.designs.fetch import TILE_PX, SplatFormat
from splatforge.designs.nru import NruDesign

__all__ = ["OUTSIDE", "SPLAT_FIELDS", "NruFrame", "nru_fixed", "significant_fixed"]

Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]

_PIXELS = TILE_PX * TILE_PX
#: `NruFrame.ends` of a pixel outside of the frame.
OUTSIDE = -1
#: Columns of splats, raw fields of :class:`splatforge.designs.fetch.SplatFormat`.
SPLAT_FIELDS = ("u0", "v0", "a", "b", "c", "log_opacity", "red", "green", "blue")


@dataclass(frozen=True, kw_only=True, eq=False)
class NruFrame:
    """What tiles blended, tile after tile as given; 256 pixels of a tile in raster order.

    Parameters
    ----------
    state : ndarray
        Red, green, blue and T, shape [tiles, 256, 4], raw int32; one outside of the frame.
    ids : ndarray
        The first k Gaussians that every pixel blended, shape [tiles, 256, k], int32; zero where
        there were fewer.
    complete : ndarray
        Place in the tile's list of the last of these, shape [tiles, 256], int32; -1 where there
        were fewer.
    ends : ndarray
        Place in the list of the splat that ended the pixel; the length of the list where none did,
        -1 outside of the frame; shape [tiles, 256], int32.
    blended : ndarray
        Splats that the pixel blended, shape [tiles, 256], int32.
    significant : ndarray
        For every splat the pixels that it is significant for and that had not ended before it:
        bit ``p % 64`` of word ``p // 64``, shape [splats, 4], uint64.
    """

    state: Int32Array
    ids: Int32Array
    complete: Int32Array
    ends: Int32Array
    blended: Int32Array
    significant: npt.NDArray[np.uint64]


def _compile_tile(digest: str):
    """Kernel that blends a tile, for the sources that `digest` stands for."""
    @nb.njit(cache=True, nogil=True)
    def kernel(
        tile, starts, tile_x, tile_y, width, height, owners, splats, up, alpha_k, table, blend_k,
        state, ids, complete, ends, blended, significant,
    ):  # fmt: skip
        digest  # noqa: B018 - a part of the key under which numba keeps this kernel
        count = starts[tile + 1] - starts[tile]
        columns = min(TILE_PX, width - TILE_PX * tile_x[tile])
        rows = min(TILE_PX, height - TILE_PX * tile_y[tile])
        product = np.zeros(_PIXELS, np.int64)
        remaining = columns * rows
        for pixel in range(_PIXELS):
            complete[tile, pixel] = -1
            state[tile, pixel, 3] = blend_k.one
            ends[tile, pixel] = OUTSIDE
            if pixel % TILE_PX < columns and pixel // TILE_PX < rows:
                product[pixel] = blend_k.one
                ends[tile, pixel] = count
        k = ids.shape[2]
        for place in range(count):
            if remaining == 0:
                break
            at = starts[tile] + place
            u0, v0 = np.int64(splats[at, 0]) << up[0], np.int64(splats[at, 1]) << up[1]
            a, b = np.int64(splats[at, 2]) << up[2], np.int64(splats[at, 3]) << up[3]
            c, log_opacity = np.int64(splats[at, 4]) << up[4], np.int64(splats[at, 5])
            for y in range(rows):
                for x in range(columns):
                    pixel = y * TILE_PX + x
                    before = product[pixel]
                    if before < blend_k.stop:
                        continue
                    alpha = _alpha_kernel(
                        alpha_k, table, u0 + a * x + b * y, v0 + c * y, log_opacity)
                    if alpha < 0:
                        continue
                    significant[at, pixel >> 6] |= np.uint64(1) << np.uint64(pixel & 63)
                    after = _product_kernel(alpha_k.alpha_frac, before, alpha)
                    product[pixel] = after
                    if after < blend_k.stop:
                        ends[tile, pixel] = place
                        remaining -= 1
                        continue
                    state[tile, pixel, 3] = after
                    for channel in range(3):
                        state[tile, pixel, channel] += _add_kernel(
                            blend_k, before - after, np.int64(splats[at, 6 + channel]))
                    number = blended[tile, pixel]
                    if number < k:
                        ids[tile, pixel, number] = owners[at]
                        if number == k - 1:
                            complete[tile, pixel] = place
                    blended[tile, pixel] = number + 1

    return kernel


def _compile_significant(digest: str):
    """Kernel of the test of significance alone, for the sources that `digest` stands for."""
    @nb.njit(cache=True, nogil=True)
    def kernel(splats, up, alpha_k, table, significant):
        digest  # noqa: B018 - a part of the key under which numba keeps this kernel
        for at in range(len(splats)):
            u0, v0 = np.int64(splats[at, 0]) << up[0], np.int64(splats[at, 1]) << up[1]
            a, b = np.int64(splats[at, 2]) << up[2], np.int64(splats[at, 3]) << up[3]
            c, log_opacity = np.int64(splats[at, 4]) << up[4], np.int64(splats[at, 5])
            for pixel in range(_PIXELS):
                x, y = pixel % TILE_PX, pixel // TILE_PX
                if _alpha_kernel(
                        alpha_k, table, u0 + a * x + b * y, v0 + c * y, log_opacity) >= 0:
                    significant[at, pixel >> 6] |= np.uint64(1) << np.uint64(pixel & 63)

    return kernel


_significant_kernel = _compile_significant(source_digest(alpha_algorithm))
_tile_kernel = _compile_tile(source_digest(alpha_algorithm, blend_algorithm))


def nru_fixed(
    design: NruDesign, splat: SplatFormat, record_ids: int, width: int, height: int,
    tile_x: Int64Array, tile_y: Int64Array, starts: Int64Array, ids: Int32Array,
    splats: Int32Array,
) -> NruFrame:
    """Blend tiles, bit-true to :class:`splatforge.hw.nru.Nru`.

    Parameters
    ----------
    design : NruDesign
        Formats.
    splat : SplatFormat
        Formats of the splats.
    record_ids : int
        k, Gaussians of a record.
    width, height : int
        Frame in pixels.
    tile_x, tile_y : ndarray
        Column and row of every tile, shape [tiles].
    starts : ndarray
        First splat of every tile, shape [tiles + 1].
    ids : ndarray
        Gaussian of every splat, shape [splats].
    splats : ndarray
        Raw :data:`SPLAT_FIELDS` in coordinates of their tiles, shape [splats, 9].
    """
    tiles = len(tile_x)
    frame = NruFrame(
        state=np.zeros((tiles, _PIXELS, 4), np.int32),
        ids=np.zeros((tiles, _PIXELS, record_ids), np.int32),
        complete=np.empty((tiles, _PIXELS), np.int32), ends=np.empty((tiles, _PIXELS), np.int32),
        blended=np.zeros((tiles, _PIXELS), np.int32),
        significant=np.zeros((len(splats), _PIXELS // 64), np.uint64))
    up = _up(design, splat)
    with Workers() as workers:
        workers.run_chunks(
            _tile_kernel, tiles, starts, tile_x, tile_y, width, height, ids, splats, up,
            alpha_constants(design.alpha), exp2_table(design.alpha), blend_constants(design.blend),
            frame.state, frame.ids, frame.complete, frame.ends, frame.blended, frame.significant)
    return frame


def significant_fixed(
    design: NruDesign, splat: SplatFormat, splats: Int32Array
) -> npt.NDArray[np.uint64]:
    """Pixels of a tile that splats are significant for, whether or not they have ended.

    Parameters
    ----------
    design : NruDesign
        Formats.
    splat : SplatFormat
        Formats of the splats.
    splats : ndarray
        Raw :data:`SPLAT_FIELDS` in coordinates of their tiles, shape [splats, 9].

    Returns
    -------
    ndarray
        As `NruFrame.significant`.
    """
    significant = np.zeros((len(splats), _PIXELS // 64), np.uint64)
    _significant_kernel(
        splats, _up(design, splat), alpha_constants(design.alpha), exp2_table(design.alpha),
        significant)
    return significant


def _up(design: NruDesign, splat: SplatFormat) -> Int64Array:
    """Bits that the forms' sum is finer than the splats' fields."""
    return np.array([design.alpha.form_sum.frac_bits - getattr(splat, name).frac_bits
                     for name in SPLAT_FIELDS[:5]])

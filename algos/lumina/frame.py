"""Frames of Lumina in floating point: what the bit-true ones are measured against.

Lists are shared, Gaussians are projected anew, pixels blend front to back in float64, and the cache
holds float32 colours; look-ups and inserts are those of :mod:`splatforge.algos.radiance`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from numba import njit

from splatforge.algos.lumina.sharing import (
    ListedGaussians,
    SharedLists,
    gaussians_at,
    group_order,
    share,
    windows,
)
from splatforge.algos.radiance import Banks, Visits, radiance_fixed
from splatforge.algos.rasterize import ALPHA_MAX, ALPHA_MIN, TRANSMITTANCE_MIN
from splatforge.algos.reference import Frame
from splatforge.algos.workers import Workers
from splatforge.designs.fetch import TILE_PX
from splatforge.designs.lumina import LuminaDesign
from splatforge.designs.radiance import RadianceDesign
from splatforge.scenes import Camera, Scene

__all__ = ["CachedFrame", "look_up", "render_float", "render_sequence_float"]

Float32Array = npt.NDArray[np.float32]
Int32Array = npt.NDArray[np.int32]

_PIXELS = TILE_PX * TILE_PX


@dataclass(frozen=True, kw_only=True, eq=False)
class CachedFrame(Frame):
    """A frame of :func:`render_float`.

    Parameters
    ----------
    uncached : ndarray
        Its image without the cache, shape [height, width, 3], float32.
    uncached_transmittance : ndarray
        What the background's share of it is, shape [height, width], float32.
    evaluations, significant, blended : int
        Pixels times entries of their lists that they look at without the cache; of these, those
        with alpha of at least 1/255; of these, those that are blended.
    blended_cached : int
        Those that are blended where a pixel that finds its colour ends with its record.
    visits : Visits or None
        What happened in the cache, tiles group by group.
    banks : Banks or None
        Its contents behind the frame.
    """

    uncached: Float32Array
    uncached_transmittance: Float32Array
    evaluations: int
    significant: int
    blended: int
    blended_cached: int
    visits: Visits | None
    banks: Banks | None


@njit(cache=True, nogil=True)
def _blend_kernel(
    number, tiles, tiles_x, starts, ids, places, visible, mean, conic, opacity, color, background,
    image, transmittance, k, records, complete, blended, counts, alpha_min, alpha_max, t_min,
):  # fmt: skip
    """Blend a tile in float64; `number` is its place among the tiles, group by group."""
    tile = tiles[number]
    height, width = transmittance.shape
    x0, y0 = tile % tiles_x * TILE_PX, tile // tiles_x * TILE_PX
    columns, rows = min(TILE_PX, width - x0), min(TILE_PX, height - y0)
    left = np.ones(_PIXELS)
    ended = np.zeros(_PIXELS, np.bool_)
    sums = np.zeros((_PIXELS, 3))
    remaining = columns * rows
    for at in range(starts[tile], starts[tile + 1]):
        if remaining == 0:
            break
        counts[number, 0] += remaining
        n = places[at]
        if not visible[n]:
            continue
        a, b, c = float(conic[n, 0]), float(conic[n, 1]), float(conic[n, 2])
        # The form is at most this where alpha reaches the least.
        if opacity[n] < alpha_min:
            continue
        limit = 2 * np.log(float(opacity[n]) / alpha_min) + 1e-9
        for y in range(rows):
            dy = y0 + y + 0.5 - float(mean[n, 1])
            for x in range(columns):
                pixel = y * TILE_PX + x
                if ended[pixel]:
                    continue
                dx = x0 + x + 0.5 - float(mean[n, 0])
                form = a * dx * dx + c * dy * dy + 2 * b * dx * dy
                if form > limit or form < 0:
                    continue
                alpha = float(opacity[n]) * np.exp(-0.5 * form)
                if alpha < alpha_min:
                    continue
                counts[number, 1] += 1
                alpha = min(alpha, alpha_max)
                behind = left[pixel] * (1.0 - alpha)
                if behind < t_min:
                    ended[pixel] = True
                    remaining -= 1
                    continue
                for channel in range(3):
                    sums[pixel, channel] += left[pixel] * alpha * color[n, channel]
                left[pixel] = behind
                if blended[number, pixel] < k:
                    records[number, pixel, blended[number, pixel]] = ids[at]
                blended[number, pixel] += 1
    for y in range(rows):
        for x in range(columns):
            pixel = y * TILE_PX + x
            complete[number, pixel] = blended[number, pixel] >= k
            transmittance[y0 + y, x0 + x] = left[pixel]
            for channel in range(3):
                image[y0 + y, x0 + x, channel] = (
                    sums[pixel, channel] + left[pixel] * background[channel])


def to_tiles(image: npt.NDArray, tiles: npt.NDArray[np.int64]) -> npt.NDArray:
    """Pixels of an image [height, width, ...] by tiles, [tiles, 256, ...]; zero outside of it."""
    height, width = image.shape[:2]
    rows, columns = -(-height // TILE_PX), -(-width // TILE_PX)
    wide = np.zeros((rows * TILE_PX, columns * TILE_PX, *image.shape[2:]), image.dtype)
    wide[:height, :width] = image
    wide = wide.reshape(rows, TILE_PX, columns, TILE_PX, -1).swapaxes(1, 2)
    return wide.reshape(rows * columns, _PIXELS, *image.shape[2:])[tiles]


def from_tiles(
    pixels: npt.NDArray, tiles: npt.NDArray[np.int64], width: int, height: int
) -> npt.NDArray:
    """The image of tiles: the inverse of :func:`to_tiles`."""
    rows, columns = -(-height // TILE_PX), -(-width // TILE_PX)
    image = np.zeros((rows * columns, TILE_PX, TILE_PX, *pixels.shape[2:]), pixels.dtype)
    image[tiles] = pixels.reshape(len(tiles), TILE_PX, TILE_PX, *pixels.shape[2:])
    image = image.reshape(rows, columns, TILE_PX, TILE_PX, -1).swapaxes(1, 2)
    image = image.reshape(rows * TILE_PX, columns * TILE_PX, *pixels.shape[2:])
    return np.ascontiguousarray(image[:height, :width])


def render_float(
    lists: SharedLists, gaussians: ListedGaussians, design: LuminaDesign,
    background: npt.ArrayLike = (0.0, 0.0, 0.0), banks: Banks | None = None,
) -> CachedFrame:
    """Render a frame by Lumina's rules in float64.

    Parameters
    ----------
    lists : SharedLists
        Of the frame's window.
    gaussians : ListedGaussians
        What the frame makes of them.
    design : LuminaDesign
        The cache; formats do not matter.
    background : array_like
        Linear colour of shape [3].
    banks : Banks, optional
        Contents of the cache before the frame, colours in float32; empty by default.
    """
    width, height, radiance = lists.width, lists.height, design.radiance
    tiles, _ = group_order(width, height, radiance.group_tiles)
    image = np.empty((height, width, 3), np.float32)
    transmittance = np.empty((height, width), np.float32)
    records = np.zeros((len(tiles), _PIXELS, radiance.record_ids), np.int32)
    complete = np.zeros((len(tiles), _PIXELS), bool)
    blended = np.zeros((len(tiles), _PIXELS), np.int32)
    counts = np.zeros((len(tiles), 2), np.int64)
    with Workers() as workers:
        workers.run_chunks(
            _blend_kernel, len(tiles), tiles, lists.tiles_x, lists.starts, lists.ids,
            lists.places, gaussians.visible, gaussians.mean_px, gaussians.conic,
            gaussians.opacity, gaussians.color, np.asarray(background, np.float64), image,
            transmittance, radiance.record_ids, records, complete, blended, counts, ALPHA_MIN,
            ALPHA_MAX, TRANSMITTANCE_MIN)
    drawn = int(blended.sum())
    frame = CachedFrame(
        image=image, transmittance=transmittance, statistics=None, stages_ms={}, uncached=image,
        uncached_transmittance=transmittance, evaluations=int(counts[:, 0].sum()),
        significant=int(counts[:, 1].sum()), blended=drawn, blended_cached=drawn,
        visits=None, banks=None)
    if not design.caching:
        return frame
    frame = look_up(frame, radiance, records, complete, banks)
    assert frame.visits is not None  # it has been looked up
    return replace(frame, blended_cached=int(
        np.where(frame.visits.hit, radiance.record_ids, blended).sum()))


def look_up(
    frame: CachedFrame, radiance: RadianceDesign, records: Int32Array,
    complete: npt.NDArray[np.bool_], banks: Banks | None = None,
) -> CachedFrame:
    """Let the pixels of a frame look for their colour by given records.

    With the records of the frame's bit-true form, and colours that frames before have left by
    theirs, the same pixels hit the same entries in both: what the pictures differ by is arithmetic
    alone. By its own records a frame hits elsewhere where a single alpha is close to 1/255.

    Parameters
    ----------
    frame : CachedFrame
        A frame; what it found in the cache, if anything, is left out.
    radiance : RadianceDesign
        The cache.
    records, complete : ndarray
        As :func:`splatforge.algos.radiance.radiance_fixed` takes them.
    banks : Banks, optional
        Contents of the cache before the frame, colours in float32; empty by default.

    Returns
    -------
    CachedFrame
        The frame with what it found, and the cache behind it; counts are those of `frame`.
    """
    height, width = frame.uncached.shape[:2]
    tiles, groups = group_order(width, height, radiance.group_tiles)
    visits, kept = radiance_fixed(
        radiance, banks or Banks.empty(radiance, len(groups) - 1, np.float32), groups, records,
        complete, to_tiles(frame.uncached, tiles))
    found = from_tiles(visits.hit, tiles, width, height)
    return replace(
        frame, visits=visits, banks=kept,
        image=np.where(found[..., None], from_tiles(visits.colors, tiles, width, height),
                       frame.uncached),
        transmittance=np.where(found, np.float32(0), frame.uncached_transmittance))


def render_sequence_float(
    scene: Scene, cameras: Sequence[Camera], design: LuminaDesign,
    background: npt.ArrayLike = (0.0, 0.0, 0.0),
) -> Iterator[CachedFrame]:
    """Render frames one after another, lists shared and the cache carried on."""
    banks = None
    for window in windows(cameras, design.sharing):
        lists = share(scene, window.pose, design.sharing.margin_px)
        for camera in cameras[window.first:window.first + window.frames]:
            frame = render_float(
                lists, gaussians_at(scene, lists.listed, camera), design, background, banks)
            banks = frame.banks
            yield frame

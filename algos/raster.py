"""The raster core's algorithm: a scene to tile lists, tile lists to a frame, in integers."""

import math
from dataclasses import dataclass

import numba as nb
import numpy as np

from splatforge.algos.array import Workload, array_fixed
from splatforge.algos.bin_tiles import bin_tiles
from splatforge.algos.fetch import SplatLists, encode_splats
from splatforge.algos.project import project
from splatforge.algos.resolve import FixedFrame
from splatforge.algos.workers import Workers
from splatforge.designs.fetch import SUBTILE_PX, TILE_PX
from splatforge.designs.raster import RasterDesign
from splatforge.scenes import Camera, Scene

__all__ = ["RasterFrame", "prepare", "render"]

LOG2_255 = math.log2(255)
#: ``E * log2(e) = u^2 + v^2``: the factor between the conic's Cholesky factor and the forms.
SCALE = math.sqrt(math.log2(math.e) / 2)


@nb.njit(inline="always")
def _reach(a, b, c, left, right, top, bottom):
    """Smallest ``A dx^2 + 2 B dx dy + C dy^2`` over a rectangle around the Gaussian's mean.

    The form is convex: zero if the mean lies inside, else its minimum lies on the border, on each
    side at the unconstrained minimum along the side, clipped to it.
    """
    if left <= 0 <= right and top <= 0 <= bottom:
        return 0.0
    best = np.inf
    for dy in (top, bottom):
        dx = min(right, max(left, -b / a * dy))
        best = min(best, a * dx * dx + 2 * b * dx * dy + c * dy * dy)
    for dx in (left, right):
        dy = min(bottom, max(top, -b / c * dx))
        best = min(best, a * dx * dx + 2 * b * dx * dy + c * dy * dy)
    return best


@nb.njit(cache=True, nogil=True)
def _mask_kernel(band, starts, entries, mean, conic, opacity, width, height, masks, kept):
    """Subtiles of its tile that each pair of a row of tiles can reach with alpha of 1/255."""
    tiles_x = (width + TILE_PX - 1) // TILE_PX
    for tile in range(band * tiles_x, (band + 1) * tiles_x):
        x0 = (tile % tiles_x) * TILE_PX
        y0 = (tile // tiles_x) * TILE_PX
        for pair in range(starts[tile], starts[tile + 1]):
            g = entries[pair]
            a, b, c = float(conic[g, 0]), float(conic[g, 1]), float(conic[g, 2])
            # alpha >= 1/255 iff the quadratic form is at most 2 ln(255 opacity).
            limit = 2 * math.log(255 * float(opacity[g]))
            left, top = x0 + 0.5 - mean[g, 0], y0 + 0.5 - mean[g, 1]
            right = min(width - x0, TILE_PX) - 1 + left
            bottom = min(height - y0, TILE_PX) - 1 + top
            mask = 0
            if limit >= 0 and _reach(a, b, c, left, right, top, bottom) <= limit:
                for sy in range(0, min(height - y0, TILE_PX), SUBTILE_PX):
                    for sx in range(0, min(width - x0, TILE_PX), SUBTILE_PX):
                        sub_right = min(left + sx + SUBTILE_PX - 1, right)
                        sub_bottom = min(top + sy + SUBTILE_PX - 1, bottom)
                        if _reach(a, b, c, left + sx, sub_right, top + sy, sub_bottom) <= limit:
                            mask |= 1 << (sy // SUBTILE_PX * 4 + sx // SUBTILE_PX)
            masks[pair] = mask
            kept[tile + 1] += mask != 0


@nb.njit(cache=True, nogil=True)
def _form_kernel(band, starts, entries, mean, conic, masks, tiles_x, kept, forms, gaussian, places):
    """Linear forms at the centre of the tile's first pixel, float64, for every kept pair."""
    for tile in range(band * tiles_x, (band + 1) * tiles_x):
        x0 = (tile % tiles_x) * TILE_PX + 0.5
        y0 = (tile // tiles_x) * TILE_PX + 0.5
        at = kept[tile]
        for pair in range(starts[tile], starts[tile + 1]):
            if masks[pair] == 0:
                continue
            g = entries[pair]
            root = math.sqrt(float(conic[g, 0]))
            b = float(conic[g, 1]) / root
            c = math.sqrt(max(0.0, float(conic[g, 2]) - b * b))
            dx, dy = x0 - mean[g, 0], y0 - mean[g, 1]
            forms[0, at] = SCALE * (root * dx + b * dy)
            forms[1, at] = SCALE * c * dy
            forms[2, at] = SCALE * root
            forms[3, at] = SCALE * b
            forms[4, at] = SCALE * c
            gaussian[at] = g
            places[at] = pair - starts[tile]
            at += 1


def prepare(scene: Scene, camera: Camera, design: RasterDesign) -> SplatLists:
    """Project a scene, sort it into 3-sigma tile lists, and encode the records that can matter.

    What the stages in front of the raster core do, in float: an entry of a tile's 3-sigma list
    gets a record if its alpha can reach 1/255 somewhere on the tile's pixels in the frame, with
    the mask of the 4x4 subtiles where it can. Nothing that the float reference draws is left out.
    A colour beyond the record's format is drawn at its end, and its Gaussian counted.

    Parameters
    ----------
    scene : Scene
        The scene.
    camera : Camera
        The view; its size is the frame's.
    design : RasterDesign
        Number formats of the records.

    Returns
    -------
    SplatLists
        Sorted by (depth, id) within each tile.

    Raises
    ------
    ValueError
        If the frame is larger than the design allows.
    """
    width, height = camera.width, camera.height
    side = design.shell.max_side
    if not (1 <= width <= side and 1 <= height <= side):
        raise ValueError(f"Frame must be 1x1 to {side}x{side} pixels, not {width}x{height}")
    projected = project(scene, camera)
    tiles = bin_tiles(projected, width, height)
    count = len(tiles.starts) - 1
    masks = np.zeros(len(tiles.entries), np.uint16)
    kept = np.zeros(count + 1, np.int64)
    tiles_x = -(-width // TILE_PX)
    bands = count // tiles_x
    with Workers() as workers:
        workers.run_chunks(
            _mask_kernel, bands, tiles.starts, tiles.entries, projected.mean_px, projected.conic,
            projected.opacity, width, height, masks, kept)
        np.cumsum(kept, out=kept)
        splats = int(kept[-1])
        forms = np.empty((5, splats))
        gaussian = np.empty(splats, np.int32)
        places = np.empty(splats, np.int32)
        workers.run_chunks(
            _form_kernel, bands, tiles.starts, tiles.entries, projected.mean_px, projected.conic,
            masks, tiles_x, kept, forms, gaussian, places)
    splat = design.fetch.splat
    opacity = np.maximum(projected.opacity.astype(np.float64), 2.0**-8)
    log_opacity = splat.log_opacity.quantize(-np.log2(opacity))
    color = splat.color.quantize(projected.color)
    fields = {
        name: getattr(splat, name).quantize(forms[row])
        for row, name in enumerate(("u0", "v0", "a", "b", "c"))
    }
    fields["log_opacity"] = log_opacity[gaussian]
    for channel, name in enumerate(("red", "green", "blue")):
        fields[name] = color[gaussian, channel]
    fields["subtiles"] = masks[masks != 0].astype(np.int64)
    # Half a unit above the largest value is where rounding to it ends and saturation begins.
    bright = (splat.color.raw_max + 0.5) * splat.color.resolution
    saturated = np.any(projected.color >= bright, axis=1)
    return SplatLists(
        width=width, height=height, starts=kept, records=encode_splats(splat, fields),
        pairs=np.diff(tiles.starts), places=places, gaussians=scene.gaussians,
        gaussians_visible=len(projected.depth), sh_degree=scene.sh_degree,
        gaussians_saturated=len(np.unique(gaussian[saturated[gaussian]])),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class RasterFrame(FixedFrame):
    """A frame of the bit-true model.

    Parameters
    ----------
    workload : Workload
        What happened.
    """

    workload: Workload


def render(
    lists: SplatLists,
    design: RasterDesign,
    background: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> RasterFrame:
    """Render prepared lists, bit-true to :class:`splatforge.hw.raster.Raster`.

    Parameters
    ----------
    lists : SplatLists
        From :func:`prepare`.
    design : RasterDesign
        Number formats.
    background : tuple of float
        Linear red, green, blue in [0, 1].

    Returns
    -------
    RasterFrame
        The frame and its workload.
    """
    state, workload = array_fixed(design.array, design.fetch.splat, lists)
    red, green, blue = design.resolve.background.quantize(background).tolist()
    return RasterFrame(
        design=design, state=state, background=(red, green, blue), workload=workload
    )

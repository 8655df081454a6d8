"""Sorting shared: which frames share a sort, at which pose it is made, and what it lists.

A window of frames takes the lists of its tiles, and their order, from one sort at the pose that is
expected for its middle. The Gaussians of the lists are projected anew in every frame: means,
conics, opacities and colours are exact, and what is wrong is the order where depths have changed
places, and the lists where Gaussians have come into a tile or left it. A margin catches those: what
comes as near to a tile at the sort's pose is listed, too.

The pose is extrapolated from two frames that are known when the sort begins (Cicero's rule, of
which Lumina's eqs. 2 and 3 are a copy). A frame behind a fast turn is sorted by itself, at its own
pose, and ends the window before; what comes behind is not extrapolated from it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from numba import njit

from splatforge.algos.bin_tiles import TileLists, list_spans
from splatforge.algos.project import TILE_PX, project, project_geometry, tile_spans
from splatforge.algos.rasterize import blend_tiles, pack_records
from splatforge.algos.reference import Frame
from splatforge.algos.sort import sort_depths
from splatforge.algos.workers import Workers
from splatforge.designs.sharing import SharingDesign
from splatforge.scenes import Camera, Scene, extrapolate, turn_deg

__all__ = ["ListedGaussians", "SharedLists", "Window", "gaussians_at", "group_order",
           "order_changes", "render_shared", "share", "windows"]

Float32Array = npt.NDArray[np.float32]
Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Window:
    """Frames that share a sort.

    Parameters
    ----------
    first, frames : int
        The first of them, and how many there are.
    pose : Camera
        Where the sort is made.
    predicted : bool
        Whether the pose is extrapolated from frames before the window, so that the sort can go on
        beside their rasterization.
    """

    first: int
    frames: int
    pose: Camera
    predicted: bool


def windows(cameras: Sequence[Camera], design: SharingDesign) -> list[Window]:
    """Divide frames into windows, each by what is known of the motion before it.

    Parameters
    ----------
    cameras : sequence of Camera
        Views of the frames.
    design : SharingDesign
        Window, lead and limit.

    Returns
    -------
    list of Window
        In order; every frame is in one of them.
    """
    fast = [False] + [turn_deg(before, now) > design.rotation_limit_deg
                      for before, now in pairwise(cameras)]
    found = []
    first = 0
    while first < len(cameras):
        end = first + 1
        if not fast[first]:
            while end < min(first + design.window, len(cameras)) and not fast[end]:
                end += 1
        known = first - design.lead_frames
        predicted = design.window > 1 and known > 0 and not any(fast[known:first + 1])
        pose = cameras[first]
        if predicted:
            pose = extrapolate(cameras[known - 1], cameras[known],
                               design.lead_frames + (design.window - 1) / 2)
        found.append(Window(first=first, frames=end - first, pose=pose, predicted=predicted))
        first = end
    return found


def group_order(width: int, height: int, side: int) -> tuple[Int64Array, Int64Array]:
    """Tiles of a frame group by group, both in raster order; what lies outside is left out.

    Parameters
    ----------
    width, height : int
        Frame in pixels.
    side : int
        Tiles along a side of a group.

    Returns
    -------
    tiles : ndarray
        Numbers of the tiles in raster order of the frame, shape [T].
    starts : ndarray
        First of them of every group, shape [groups + 1].
    """
    tiles_x, tiles_y = -(-width // TILE_PX), -(-height // TILE_PX)
    y, x = np.divmod(np.arange(tiles_x * tiles_y), tiles_x)
    group = y // side * -(-tiles_x // side) + x // side
    tiles = np.argsort(group, kind="stable")
    starts = np.zeros(int(group.max()) + 2, np.int64)
    np.cumsum(np.bincount(group), out=starts[1:])
    return tiles, starts


@dataclass(frozen=True, kw_only=True, eq=False)
class SharedLists:
    """Lists of the tiles, as a sort leaves them for a window of frames.

    Parameters
    ----------
    width, height : int
        Frame in pixels.
    starts : ndarray
        First entry of every tile, shape [tiles + 1], tiles in raster order; int64.
    ids : ndarray
        Gaussians of the scene, tile after tile, by ascending (depth at the sort's pose, id),
        shape [P], int32.
    listed : ndarray
        Those that are in a list, ascending, shape [L], int32.
    places : ndarray
        Where in ``listed`` each entry is, shape [P], int32.
    """

    width: int
    height: int
    starts: Int64Array
    ids: Int32Array
    listed: Int32Array
    places: Int32Array

    @property
    def tiles_x(self) -> int:
        """Tiles side by side."""
        return -(-self.width // TILE_PX)

    @property
    def tiles_y(self) -> int:
        """Tiles on top of each other."""
        return -(-self.height // TILE_PX)


def share(scene: Scene, pose: Camera, margin_px: int) -> SharedLists:
    """Sort at a pose.

    A Gaussian is listed where its square of three standard deviations meets a tile that is widened
    by the margin; without a margin these are the lists of
    :func:`splatforge.algos.bin_tiles.bin_tiles`.

    Parameters
    ----------
    scene : Scene
        The Gaussians.
    pose : Camera
        The view of the sort; its size is the frame's.
    margin_px : int
        Pixels, not negative.
    """
    wide = replace(
        pose, width=pose.width + 2 * margin_px, height=pose.height + 2 * margin_px,
        cx=pose.cx + margin_px, cy=pose.cy + margin_px)
    tiles_x, tiles_y = -(-pose.width // TILE_PX), -(-pose.height // TILE_PX)
    with Workers() as workers:
        projected = project(scene, wide)
        spans = tile_spans(
            projected.mean_px - np.float32(margin_px), projected.radius_px + np.int32(margin_px),
            tiles_x, tiles_y, workers)
        order = sort_depths(projected.depth, workers)
        lists = list_spans(order, spans, tiles_x, 0, tiles_y, workers)
    ids = projected.ids[lists.entries]
    listed, places = np.unique(ids, return_inverse=True)
    return SharedLists(
        width=pose.width, height=pose.height, starts=lists.starts, ids=ids, listed=listed,
        places=places.astype(np.int32))


@dataclass(frozen=True, kw_only=True, eq=False)
class ListedGaussians:
    """What a frame makes of the Gaussians that its window lists; shape [L, ...], in their order.

    Parameters
    ----------
    visible : ndarray of bool
        Whether the frame's own projection keeps it; the rest is not drawn, and zero below.
    mean_px, conic, opacity, color : ndarray
        As in :class:`splatforge.algos.project.Projected`.
    """

    visible: npt.NDArray[np.bool_]
    mean_px: Float32Array
    conic: Float32Array
    opacity: Float32Array
    color: Float32Array


def gaussians_at(scene: Scene, listed: Int32Array, camera: Camera) -> ListedGaussians:
    """Project the Gaussians of a window's lists for one of its frames."""
    projected = project(scene.select(listed), camera)
    visible = np.zeros(len(listed), bool)
    visible[projected.ids] = True

    def spread(values: Float32Array) -> Float32Array:
        out = np.zeros((len(listed), *values.shape[1:]), np.float32)
        out[projected.ids] = values
        return out

    return ListedGaussians(
        visible=visible, mean_px=spread(projected.mean_px), conic=spread(projected.conic),
        opacity=spread(projected.opacity), color=spread(projected.color))


def render_shared(
    scene: Scene, camera: Camera, lists: SharedLists,
    background: npt.ArrayLike = (0.0, 0.0, 0.0),
) -> Frame:
    """Render a frame with the lists of its window, with the reference's arithmetic.

    What :func:`splatforge.algos.reference.render` makes of other lists: entries of Gaussians that
    the frame does not see, or that reach 1/255 nowhere on it, are passed over.
    """
    background = np.asarray(background, np.float32)
    shape = camera.height, camera.width
    image, transmittance = np.empty((*shape, 3), np.float32), np.empty(shape, np.float32)
    with Workers() as workers:
        geometry = project_geometry(scene, camera, workers)
        records, ids, _, _ = pack_records(scene, camera, geometry, True, workers)
        row_of = np.full(scene.gaussians, -1, np.int32)
        drawn = np.flatnonzero(ids >= 0)
        row_of[ids[drawn]] = drawn
        rows = row_of[lists.ids]
        kept = rows >= 0
        starts = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(kept, out=starts[1:])
        blend_tiles(
            TileLists(tiles_x=lists.tiles_x, tiles_y=lists.tiles_y, starts=starts[lists.starts],
                      entries=rows[kept]),
            0, records, background, image, transmittance, None, workers)
    return Frame(image=image, transmittance=transmittance, statistics=None, stages_ms={})


@njit(cache=True, nogil=True)
def _inversion_kernel(tile, starts, ids, other_starts, other_ids, counts):
    """Pairs of a tile's common Gaussians, and those of them in the opposite order."""
    first, last = starts[tile], starts[tile + 1]
    rank = {np.int32(-1): 0}
    for k in range(other_starts[tile], other_starts[tile + 1]):
        rank[other_ids[k]] = k - other_starts[tile]
    size = other_starts[tile + 1] - other_starts[tile]
    # A Fenwick tree over ranks: how many of those before come behind in the other order.
    tree = np.zeros(size + 1, np.int64)
    common = 0
    inverted = 0
    for k in range(first, last):
        if ids[k] not in rank:
            continue
        at = rank[ids[k]]
        before = 0
        i = at + 1
        while i > 0:
            before += tree[i]
            i -= i & -i
        inverted += common - before
        i = at + 1
        while i <= size:
            tree[i] += 1
            i += i & -i
        common += 1
    counts[tile, 0] = common * (common - 1) // 2
    counts[tile, 1] = inverted
    counts[tile, 2] = common


def order_changes(lists: SharedLists, other: SharedLists) -> tuple[float, float]:
    """How much two sorts of frames of one size differ.

    Returns
    -------
    inverted : float
        Share of the pairs of Gaussians that both list in a tile and that have changed places.
    gone : float
        Share of the entries of ``lists`` that ``other`` has not.
    """
    tiles = lists.tiles_x * lists.tiles_y
    counts = np.zeros((tiles, 3), np.int64)
    with Workers() as workers:
        workers.run_chunks(
            _inversion_kernel, tiles, lists.starts, lists.ids, other.starts, other.ids, counts)
    pairs, inverted, common = counts.sum(axis=0).tolist()
    return inverted / max(pairs, 1), 1 - common / max(len(lists.ids), 1)

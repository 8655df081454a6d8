"""A frame streamed from voxels, in floating point: the picture, and what happened on the way.

Group after group of tiles: voxels from front to back, of each the Gaussians that pass the coarse
filter, of these the ones that pass the fine one, by depth. The order of voxels is the same for all
groups, so the picture is that of the reference with its lists in streaming order.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from splatforge.algos.bin_tiles import TileLists, list_spans
from splatforge.algos.project import TILE_PX, project_geometry
from splatforge.algos.rasterize import blend_tiles, pack_records
from splatforge.algos.reference import Frame
from splatforge.algos.streaminggs.order import (
    DILATION,
    FRUSTUM_MARGIN,
    REACH_SIGMAS,
    OrderWeights,
    group_ranges,
    reach_rectangles,
    voxel_ranks,
)
from splatforge.algos.streaminggs.partition import Partition
from splatforge.algos.vsu import prefix_counts
from splatforge.algos.workers import Workers
from splatforge.designs.voxel import PREFIX_SHIFTS
from splatforge.scenes import Camera, Scene

__all__ = ["StreamFrame", "StreamWork", "render_float"]

Float64Array = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]
Int32Array = npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True, eq=False)
class StreamWork:
    """What a frame took, group by group, in raster order of groups; int64 of shape [groups].

    A group ends with the voxel in which its last pixel ends; what comes behind is not counted.

    Parameters
    ----------
    groups_x, groups_y : int
        Groups across and down.
    listed : ndarray
        Voxels whose stored reach touches the group.
    voxels : ndarray
        Of these, the ones that were streamed.
    loaded : ndarray
        Gaussians in them: what the coarse filter looks at where voxels are loaded as wholes.
    looked : ndarray
        Gaussians in the prefixes of them that may reach the group: what it looks at else.
    coarse : ndarray
        Gaussians that it passes: what the fine filter decodes.
    fine : ndarray
        Gaussians that it passes, in turn: what is sorted and blended.
    coarse_beats : ndarray
        Beats of the coarse halves that were streamed, of prefixes; the fine halves are a beat for
        each of ``coarse``.
    pairs : ndarray
        Gaussians in the group's tiles, tile by tile, until each of them had ended.
    drawn, crossing : int
        Gaussians in the lists of the frame's tiles, and those of them that come behind a deeper one
        in a tile. Not all are drawn wrongly: where a ray crosses both voxels, their order is
        right and that of the centres is not (:mod:`splatforge.algos.streaminggs.tune`).
    """

    groups_x: int
    groups_y: int
    listed: Int64Array
    voxels: Int64Array
    loaded: Int64Array
    looked: Int64Array
    coarse: Int64Array
    fine: Int64Array
    coarse_beats: Int64Array
    pairs: Int64Array
    drawn: int
    crossing: int

    @property
    def removed(self) -> float:
        """Share of the loaded Gaussians that the two filters remove."""
        return 1 - float(self.fine.sum()) / max(1, int(self.loaded.sum()))


@dataclass(frozen=True, kw_only=True, eq=False)
class StreamFrame(Frame):
    """A frame of :func:`render_float`.

    Parameters
    ----------
    work : StreamWork
        What it took.
    """

    work: StreamWork


@njit(cache=True)
def _work_kernel(
    order, starts, voxel_groups, prefixes, prefix_groups, places, coarse_groups, fine_groups, last,
    groups_x, listed, voxels, loaded, looked, coarse, fine, beats,
):  # fmt: skip
    """Count what every group streams, until the voxel of rank ``last``.

    ``prefix_groups`` are met by what is beyond each of ``prefixes``, the longest first; ``places``
    says where in its voxel a Gaussian lies.
    """
    lengths = np.zeros(len(last), np.int64)
    for rank in range(len(order)):
        voxel = order[rank]
        x0, y0, x1, y1 = voxel_groups[voxel]
        count = starts[voxel + 1] - starts[voxel]
        for y in range(y0, y1):
            for x in range(x0, x1):
                group = y * groups_x + x
                listed[group] += 1
                prefix = count
                for n in range(len(prefixes)):
                    left, top, right, bottom = prefix_groups[n, voxel]
                    if left <= x < right and top <= y < bottom:
                        break
                    prefix = prefixes[n, voxel]
                lengths[group] = prefix
                if rank <= last[group]:
                    voxels[group] += 1
                    loaded[group] += count
                    looked[group] += prefix
                    beats[group] += (prefix + 1) // 2
        for i in range(starts[voxel], starts[voxel + 1]):
            for y in range(max(y0, coarse_groups[i, 1]), min(y1, coarse_groups[i, 3])):
                for x in range(max(x0, coarse_groups[i, 0]), min(x1, coarse_groups[i, 2])):
                    group = y * groups_x + x
                    if rank <= last[group] and places[i] < lengths[group]:
                        coarse[group] += 1
                        fine[group] += (fine_groups[i, 0] <= x < fine_groups[i, 2]
                                        and fine_groups[i, 1] <= y < fine_groups[i, 3])


@njit(cache=True)
def _crossing_kernel(starts, entries, depth, listed, crossing):
    """Mark Gaussians of lists, and those among them that come behind a deeper one."""
    for tile in range(len(starts) - 1):
        deepest = np.float32(0)
        for k in range(starts[tile], starts[tile + 1]):
            i = entries[k]
            listed[i] = True
            if depth[i] < deepest:
                crossing[i] = True
            deepest = max(deepest, depth[i])


def _coarse_groups(cut: Partition, camera: Camera, group_px: int) -> Int32Array:
    """Groups that Gaussians may reach by their places and largest scales, shape [N, 4].

    First column and row, and end of both; by the coarse filter's test.
    """
    x, y, z = camera.w2c[:3, :3] @ cut.means().T + camera.w2c[:3, 3:]
    gone = ~(z > camera.near)
    inverse = 1 / np.where(gone, 1.0, z)
    reach = np.empty((cut.gaussians, 4))
    for axis, (at, focal, center, side) in enumerate((
        (x * inverse, camera.fx, camera.cx, camera.width),
        (y * inverse, camera.fy, camera.cy, camera.height),
    )):
        margin = FRUSTUM_MARGIN * side / 2
        held = np.clip(focal * at, -center - margin, side - center + margin)
        radius = REACH_SIGMAS * np.sqrt(
            (cut.scales() * inverse) ** 2 * (focal * focal + held * held) + DILATION)
        radius = np.where(gone, -np.inf, radius)
        reach[:, axis] = focal * at + center - radius
        reach[:, 2 + axis] = focal * at + center + radius
    return group_ranges(reach, camera.width, camera.height, group_px)


def _last_ranks(
    camera: Camera, group_tiles: int, lists: TileLists, ranks: Int32Array, reached: Int64Array,
    stopped: Int64Array, voxels: int,
) -> Int64Array:
    """Rank of the voxel in which every group ended; that of the last one for those that did not."""
    columns = np.minimum(TILE_PX, camera.width - TILE_PX * np.arange(lists.tiles_x))
    rows = np.minimum(TILE_PX, camera.height - TILE_PX * np.arange(lists.tiles_y))
    ended = stopped == (rows[:, None] * columns).reshape(-1)
    at = np.minimum(lists.starts[:-1] + np.maximum(reached, 1) - 1, max(len(lists.entries) - 1, 0))
    end = np.full(lists.tiles, voxels - 1, np.int64)
    end[ended] = ranks[lists.entries[at[ended]]]
    wide = np.full((-(-lists.tiles_y // group_tiles) * group_tiles,
                    -(-lists.tiles_x // group_tiles) * group_tiles), -1, np.int64)
    wide[:lists.tiles_y, :lists.tiles_x] = end.reshape(lists.tiles_y, lists.tiles_x)
    return wide.reshape(
        len(wide) // group_tiles, group_tiles, -1, group_tiles).max(axis=(1, 3)).reshape(-1)


def render_float(
    cut: Partition,
    camera: Camera,
    *,
    group_tiles: int = 2,
    scene: Scene | None = None,
    weights: OrderWeights | None = None,
    background: npt.ArrayLike = (0.0, 0.0, 0.0),
) -> StreamFrame:
    """Render a frame by StreamingGS's algorithm, with the reference's arithmetic.

    Parameters
    ----------
    cut : Partition
        The scene in voxels.
    camera : Camera
        In the scene's units.
    group_tiles : int
        Tiles of a group on either axis.
    scene : Scene, optional
        Gaussians in the voxels' order, as they are decoded: those of
        :func:`splatforge.algos.streaminggs.quantize.decode`, or ``cut.scene.select(cut.ids)`` for
        the streaming order alone; by default ``cut.decode()``.
    weights : OrderWeights, optional
        See :func:`splatforge.algos.streaminggs.order.voxel_keys`.
    background : array_like
        Linear colour of shape [3].

    Returns
    -------
    StreamFrame
        Image, transmittance, and what happened.

    Notes
    -----
    Gaussians are drawn by the rules of :func:`splatforge.algos.reference.render`, tile by tile;
    nothing that it draws is lost, since both filters are conservative. A voxel's Gaussians come by
    ascending depth, those of equal depth in the voxels' order.
    """
    if scene is None:
        scene = cut.decode()
    if scene.gaussians != cut.gaussians:
        raise ValueError(
            f"Scene must have the {cut.gaussians} Gaussians of the voxels, not {scene.gaussians}")
    background = np.asarray(background, np.float32)
    width, height = camera.width, camera.height
    tiles_x, tiles_y = -(-width // TILE_PX), -(-height // TILE_PX)
    group_px = TILE_PX * group_tiles
    groups_x, groups_y = -(-width // group_px), -(-height // group_px)
    image = np.empty((height, width, 3), np.float32)
    transmittance = np.empty((height, width), np.float32)
    counts = np.zeros((8, tiles_x * tiles_y), np.int64)
    ranks = voxel_ranks(cut, camera, weights)
    with Workers() as workers:
        geometry = project_geometry(scene, camera, workers)
        records, ids, depth, spans = pack_records(scene, camera, geometry, True, workers)
        rank = ranks[cut.voxel_of[ids]]
        order = np.lexsort((depth, rank)).astype(np.int32)
        lists = list_spans(order, spans, tiles_x, 0, tiles_y, workers)
        blend_tiles(lists, 0, records, background, image, transmittance, counts, workers)
    last = _last_ranks(camera, group_tiles, lists, rank, counts[1], counts[5], cut.voxels)

    fine = np.zeros((cut.gaussians, 4), np.int32)
    drawn = ids >= 0
    fine[ids[drawn], :2] = spans[drawn, :2] // group_tiles
    fine[ids[drawn], 2:] = -(-spans[drawn, 2:] // group_tiles)
    sums = [np.zeros(groups_x * groups_y, np.int64) for _ in range(7)]
    voxel_groups, *prefix_groups = (
        group_ranges(reach_rectangles(cut, camera, octaves), width, height, group_px)
        for octaves in (0, *cut.octaves))
    places = np.empty(cut.gaussians, np.int64)
    places[cut.in_memory] = np.arange(cut.gaussians) - cut.starts[cut.voxel_of]
    _work_kernel(
        np.argsort(ranks), cut.starts, voxel_groups,
        np.stack([prefix_counts(cut.counts_of_voxels, shift) for shift in PREFIX_SHIFTS]),
        np.stack(prefix_groups), places, _coarse_groups(cut, camera, group_px), fine, last,
        groups_x, *sums)
    listed, crossing = np.zeros(len(ids), bool), np.zeros(len(ids), bool)
    _crossing_kernel(lists.starts, lists.entries, depth, listed, crossing)
    tiles = np.arange(lists.tiles)
    group_of = tiles // tiles_x // group_tiles * groups_x + tiles % tiles_x // group_tiles
    return StreamFrame(
        image=image, transmittance=transmittance, statistics=None, stages_ms={},
        work=StreamWork(
            groups_x=groups_x, groups_y=groups_y, listed=sums[0], voxels=sums[1], loaded=sums[2],
            looked=sums[3], coarse=sums[4], fine=sums[5], coarse_beats=sums[6],
            pairs=np.bincount(group_of, counts[1], groups_x * groups_y).astype(np.int64),
            drawn=int(listed.sum()), crossing=int(crossing.sum())))

"""In which order voxels come, and which of them a group of tiles needs.

From one eye every ray crosses the cells of a grid with strictly growing L1 distance from the eye's
cell, since it never turns back on an axis, and whatever a step on each axis counts; inside a cell
that is halved the same holds of the octants. So one number per voxel orders all voxels of a frame
from front to back for all rays at once: a topological order of the graph that the paper builds from
a tile's rays and sorts by Kahn's algorithm. :func:`ray_graph` and :func:`kahn` are that graph and
that algorithm, which need no such insight; tests compare.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from heapq import heapify, heappop, heappush

import numpy as np
import numpy.typing as npt
from numba import njit

from splatforge.algos.bin_tiles import TileLists
from splatforge.algos.streaminggs.partition import Partition, camera_cell
from splatforge.designs.fetch import TILE_PX
from splatforge.designs.voxel import CELL_BITS, OCTREE_LEVELS
from splatforge.scenes import Camera

__all__ = [
    "LISTS", "OrderWeights", "RayGraph", "group_ranges", "kahn", "order_lists", "order_weights",
    "ray_graph", "reach_rectangles", "streaming_order", "voxel_keys", "voxel_lists", "voxel_ranks"]

Float64Array = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]
Int32Array = npt.NDArray[np.int32]

#: How a group's voxels are found: all whose stored reach touches it; those and all that a ray of
#: its pixels crosses; those at points along its rays only, as the paper does.
LISTS = ("reach", "dda+reach", "sampling")

#: Bits of a weighted distance between base cells, and of the weights of a child, in a key.
DISTANCE_BITS = 12
CHILD_BITS = 3
#: Where alpha falls below 1/255 along an axis at the latest, in standard deviations, rounded up.
REACH_SIGMAS = 3.34
#: As in :mod:`splatforge.algos.project`.
DILATION = 0.3
FRUSTUM_MARGIN = 0.3
_FINEST = 1 << OCTREE_LEVELS


@dataclass(frozen=True, kw_only=True)
class OrderWeights:
    """What a step away from the eye counts on every axis, in the keys that order voxels.

    Any positive weights give a topological order, since no ray turns back on an axis. Among cells
    that no ray has in common, equal weights put those first that are fewer steps away; weights in
    proportion to the view's direction put those first that are less deep, as the reference does.

    Parameters
    ----------
    cells : tuple of int
        For base cells, on x, y, z; 1 to 255.
    children : tuple of int
        For the halves of a cell; positive, at most 7 together.
    """

    cells: tuple[int, int, int] = (1, 1, 1)
    children: tuple[int, int, int] = (1, 1, 1)

    def __post_init__(self) -> None:
        if not all(1 <= weight <= 255 for weight in self.cells):
            raise ValueError(f"Weights of cells must be 1 to 255, not {self.cells}")
        if min(self.children) < 1 or sum(self.children) > 7:
            raise ValueError(
                f"Weights of children must be positive, at most 7 together, not {self.children}")


def _eye_cell(cut: Partition, camera: Camera) -> Int64Array:
    """The finest cell of the grid that is nearest to the eye: border cells have no outer wall."""
    return np.clip(camera_cell(cut, camera), 0, _FINEST * cut.counts - 1)


def order_weights(cut: Partition, camera: Camera) -> OrderWeights:
    """Weights after the view's direction, so large that the farthest cell's distance still fits.

    Measured against plain L1 distances, the picture of the streaming order alone comes 1 to 4 dB
    nearer to the reference's: 41.6 to 43.6 dB (fourth_st), 28.5 to 32.5 (statue_massa), 320x240.
    """
    along = np.abs(camera.w2c[2, :3])
    eye = _eye_cell(cut, camera) >> OCTREE_LEVELS
    farthest = np.maximum(eye, cut.counts - 1 - eye)
    cells = np.ones(3, np.int64)
    for scale in range(255, 0, -1):
        cells = np.maximum(1, np.rint(along * (scale / along.max()))).astype(np.int64)
        if cells @ farthest < 1 << DISTANCE_BITS:
            break
    rank = np.argsort(np.argsort(-along, kind="stable"))
    most, second, third = np.sort(along)[::-1]
    children = np.array([4 if most >= second + third else 3, 2, 1])[rank]
    return OrderWeights(
        cells=(int(cells[0]), int(cells[1]), int(cells[2])),
        children=(int(children[0]), int(children[1]), int(children[2])))


def voxel_keys(cut: Partition, camera: Camera, weights: OrderWeights | None = None) -> Int64Array:
    """Sort keys of all voxels, shape [V]: ascending from front to back.

    From the top: weighted L1 distance of the base cell from the eye's (12 bits), then for every
    level of the octree (three bits each, level 1 first) the weights of the axes on which the child
    is not the one nearest to the eye. Voxels of equal keys cross no common ray, or have the same
    place; they keep the table's order.

    Parameters
    ----------
    cut : Partition
        The scene's.
    camera : Camera
        In the scene's units.
    weights : OrderWeights, optional
        Those of :func:`order_weights` by default.

    Raises
    ------
    ValueError
        If a distance does not fit its bits.
    """
    if weights is None:
        weights = order_weights(cut, camera)
    eye = _eye_cell(cut, camera)
    keys = np.abs(cut.cells - (eye >> OCTREE_LEVELS)).astype(np.int64) @ weights.cells
    if keys.max(initial=0) >= 1 << DISTANCE_BITS:
        raise ValueError(
            f"Distance of a cell must be below {1 << DISTANCE_BITS}, not {int(keys.max())}")
    corner = cut.cells.astype(np.int64) * _FINEST
    for level in range(1, OCTREE_LEVELS + 1):
        half = _FINEST >> level
        digit = cut.paths >> 3 * (level - 1) & 7
        other = np.zeros(cut.voxels, np.int64)
        for axis in range(3):
            high = digit >> axis & 1
            nearest = eye[axis] >= corner[:, axis] + half
            other += weights.children[axis] * (high != nearest)
            corner[:, axis] += high * half
        keys = keys << CHILD_BITS | np.where(cut.levels >= level, other, 0)
    return keys


def voxel_ranks(
    cut: Partition, camera: Camera, weights: OrderWeights | None = None
) -> Int32Array:
    """Place of every voxel in the order of a frame, from front to back, shape [V]."""
    ranks = np.empty(cut.voxels, np.int32)
    ranks[np.argsort(voxel_keys(cut, camera, weights), kind="stable")] = np.arange(
        cut.voxels, dtype=np.int32)
    return ranks


@njit(cache=True)
def _reorder_kernel(starts, entries, order, firsts, tiles, slots, out):
    """Write lists of the same tiles with the same entries, each in the given order."""
    for k in range(len(entries)):
        firsts[entries[k] + 1] += 1
    for i in range(1, len(firsts)):
        firsts[i] += firsts[i - 1]
    for tile in range(len(starts) - 1):
        slots[tile] = starts[tile]
        for k in range(starts[tile], starts[tile + 1]):
            i = entries[k]
            tiles[firsts[i]] = tile
            firsts[i] += 1
    # Every Gaussian's tiles now end where its first ones are said to be.
    for i in order:
        for k in range(firsts[i - 1] if i > 0 else 0, firsts[i]):
            tile = tiles[k]
            out[slots[tile]] = i
            slots[tile] += 1


def order_lists(
    cut: Partition, camera: Camera, ids: Int32Array, depth: npt.NDArray[np.float32],
    lists: TileLists,
) -> TileLists:
    """Lists of tiles in streaming order: voxel after voxel, by depth within a voxel.

    Parameters
    ----------
    cut : Partition
        Of the scene, whose means have not changed since.
    camera : Camera
        What it is seen from.
    ids : ndarray
        Index into the scene of every projected Gaussian, shape [M]; -1 for one that no list holds.
    depth : ndarray
        Its camera z, shape [M].
    lists : TileLists
        Of indices into the projected Gaussians, in any order.

    Returns
    -------
    TileLists
        The same entries. With the cut bound by :func:`streaming_order` this is an order as
        :func:`splatforge.algos.gradient.trace` takes it.
    """
    rank = voxel_ranks(cut, camera)[cut.voxel_of_id[ids]]
    order = np.lexsort((np.arange(len(ids)), depth, rank)).astype(np.int32)
    entries = np.empty_like(lists.entries)
    _reorder_kernel(
        lists.starts, lists.entries, order, np.zeros(len(ids) + 1, np.int64),
        np.empty(len(entries), np.int32), np.empty(lists.tiles, np.int64), entries)
    return TileLists(
        tiles_x=lists.tiles_x, tiles_y=lists.tiles_y, starts=lists.starts, entries=entries,
        tile_px=lists.tile_px)


def streaming_order(
    cut: Partition,
) -> Callable[[Camera, Int32Array, npt.NDArray[np.float32], TileLists], TileLists]:
    """:func:`order_lists` of one scene."""
    return partial(order_lists, cut)


def reach_rectangles(
    cut: Partition, camera: Camera, octaves: Int64Array | int = 0
) -> Float64Array:
    """Where on the image everything lies that a voxel can draw, shape [V, 4], in pixels.

    x low, y low, x high, y high, conservatively from what a voxel's record holds: its cube's
    centre, how far its means are from it, and its largest scale. Infinite where the near plane cuts
    through the voxel, empty (low above high) where it lies before it.

    Parameters
    ----------
    cut : Partition
        The scene's.
    camera : Camera
        In the scene's units.
    octaves : ndarray or int
        By how many scales are smaller than the voxel's largest, of those that are meant; shape [V].
    """
    stored = cut.stored_camera(camera)
    rotation, shift = stored.w2c[:3, :3], stored.w2c[:3, 3]
    centers = cut.base.astype(np.float64) + 1.5 * cut.size[:, None].astype(np.float64)
    x, y, z = rotation @ centers.T + shift[:, None]
    rho = cut.rho.view(np.float16).astype(np.float64)
    scale = np.ldexp(cut.largest_scale.view(np.float16).astype(np.float64), -octaves)
    nearest = z - rho
    gone = z + rho <= stored.near
    whole = (nearest <= stored.near) & ~gone
    nearest = np.where(whole | gone, 1.0, nearest)
    z = np.where(whole | gone, 1.0, z)
    rectangles = np.empty((cut.voxels, 4))
    for axis, (at, focal, center, side) in enumerate((
        (x, stored.fx, stored.cx, stored.width), (y, stored.fy, stored.cy, stored.height),
    )):
        tangent = at / z
        margin = FRUSTUM_MARGIN * side / 2
        steepest = max(center, side - center, 0.0) + margin
        reach = focal * rho * np.sqrt(1 + tangent * tangent) / nearest
        reach += REACH_SIGMAS * (scale / nearest * np.hypot(focal, steepest) + np.sqrt(DILATION))
        reach = np.where(whole, np.inf, np.where(gone, -np.inf, reach))
        rectangles[:, axis] = focal * tangent + center - reach
        rectangles[:, 2 + axis] = focal * tangent + center + reach
    return rectangles


def group_ranges(
    rectangles: Float64Array, width: int, height: int, group_px: int
) -> Int32Array:
    """Groups with a pixel in rectangles on the image: first column and row, ends; shape [N, 4].

    Pixels count at their centres; ranges of nothing are zeros.

    Parameters
    ----------
    rectangles : ndarray
        x low, y low, x high, y high in pixels, shape [N, 4].
    width, height : int
        Of the image.
    group_px : int
        Edge of a group.
    """
    ranges = np.zeros((len(rectangles), 4), np.int32)
    for axis, side in enumerate((width, height)):
        low = np.ceil(np.clip(rectangles[:, axis], 0, side + 1) - 0.5)
        high = np.floor(np.clip(rectangles[:, 2 + axis], -1, side) - 0.5)
        some = (low <= high) & (low < side) & (high >= 0)
        ranges[:, axis] = np.where(some, np.maximum(low, 0) // group_px, 0)
        ranges[:, 2 + axis] = np.where(some, np.minimum(high, side - 1) // group_px + 1, 0)
    ranges[(ranges[:, 2:] == 0).any(axis=1)] = 0
    return ranges


@njit(cache=True)
def _met_kernel(
    width, height, group_px, groups_x, eye, right, down, ahead, origin, step, counts, cells, nodes,
    spacing, group_nodes, edges,
):  # fmt: skip
    """Walk the rays of all pixels through the finest cells; note nodes met, and who follows whom.

    ``nodes`` gives the node of a finest cell, or -1. ``spacing`` above 0 takes points at that
    distance along a ray instead of all cells. Returns the number of edges, which may be more than
    there is room for.
    """
    found = 0
    place, end = np.empty(3, np.int64), counts * _FINEST
    start, direction = np.empty(3, np.int64), np.empty(3)
    along, sign = np.empty(3), np.empty(3, np.int64)
    for axis in range(3):
        at = np.floor((eye[axis] - origin[axis]) / step)
        start[axis] = int(min(max(at, 0.0), end[axis] - 1.0))
    for y in range(height):
        for x in range(width):
            group = y // group_px * groups_x + x // group_px
            for axis in range(3):
                direction[axis] = (
                    ahead[axis] + (x + 0.5) * right[axis] + (y + 0.5) * down[axis])
                sign[axis] = 1 if direction[axis] > 0 else -1
                place[axis] = start[axis]
            last = np.int64(-1)
            farthest = 0.0
            if spacing > 0.0:
                for axis in range(3):
                    # Where the ray leaves the grid for good.
                    wall = origin[axis] + (end[axis] * step if sign[axis] > 0 else 0.0)
                    if direction[axis] != 0.0:
                        farthest = max(farthest, (wall - eye[axis]) / direction[axis])
            point = 0.0
            while True:
                cell = 0
                for axis in range(2, -1, -1):
                    cell = cell << CELL_BITS | place[axis] >> OCTREE_LEVELS
                row = np.searchsorted(cells, cell)
                if row < len(cells) and cells[row] == cell:
                    inner = 0
                    for axis in range(2, -1, -1):
                        inner = inner << OCTREE_LEVELS | place[axis] & (_FINEST - 1)
                    node = nodes[row, inner]
                    if node >= 0:
                        group_nodes[group, node] = True
                        if last >= 0 and last != node:
                            if found < len(edges):
                                edges[found] = last << 32 | node
                            found += 1
                        last = node
                if spacing > 0.0:
                    point += spacing
                    if point > farthest:
                        break
                    for axis in range(3):
                        at = np.floor((eye[axis] + point * direction[axis] - origin[axis]) / step)
                        place[axis] = int(min(max(at, 0.0), end[axis] - 1.0))
                    continue
                nearest = np.inf
                for axis in range(3):
                    along[axis] = np.inf
                    # Border cells have no outer wall.
                    ahead_of = place[axis] + sign[axis]
                    if 0 <= ahead_of < end[axis] and direction[axis] != 0.0:
                        wall = origin[axis] + step * (place[axis] + (sign[axis] > 0))
                        along[axis] = (wall - eye[axis]) / direction[axis]
                        nearest = min(nearest, along[axis])
                if nearest == np.inf:
                    break
                for axis in range(3):
                    if along[axis] == nearest:
                        place[axis] += sign[axis]
    return found


@dataclass(frozen=True, kw_only=True, eq=False)
class RayGraph:
    """Who comes before whom along the rays of a frame's pixels.

    Nodes are places that hold voxels (parts of one place are one node).

    Parameters
    ----------
    node_of : ndarray
        Node of every voxel, shape [V].
    met : ndarray
        Whether a ray of a group crosses a node, shape [groups, nodes], bool.
    edges : ndarray
        Pairs of nodes that follow each other on a ray, nothing between them; shape [E, 2], unique.
    """

    node_of: Int64Array
    met: npt.NDArray[np.bool_]
    edges: Int64Array


def ray_graph(
    cut: Partition, camera: Camera, group_px: int, *, spacing: float = 0.0
) -> RayGraph:
    """Follow the ray of every pixel centre through the voxels, exactly.

    Parameters
    ----------
    cut : Partition
        The scene's.
    camera : Camera
        In the scene's units.
    group_px : int
        Edge of a group of pixels.
    spacing : float
        Above 0: only points so far apart, in the scene's units and along the camera's z, are looked
        at, from the eye on. That is the paper's way.

    Notes
    -----
    A ray starts at the eye; it steps from wall to wall (Amanatides and Woo, "A Fast Voxel Traversal
    Algorithm for Ray Tracing", Eurographics 1987) through finest cells, on all axes at once where
    it meets an edge or a corner.
    """
    stored = cut.stored_camera(camera)
    groups_x, groups_y = -(-camera.width // group_px), -(-camera.height // group_px)
    raster = cut.cells.astype(np.int64) @ np.array([1, 1 << CELL_BITS, 1 << 2 * CELL_BITS])
    place = raster << 11 | cut.levels << 9 | cut.paths
    places, first, node_of = np.unique(place, return_index=True, return_inverse=True)
    cells = np.unique(raster)
    nodes = np.full((len(cells), _FINEST**3), -1, np.int64)
    inner = np.stack(np.meshgrid(*[np.arange(_FINEST)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    columns = inner[:, 0] | inner[:, 1] << OCTREE_LEVELS | inner[:, 2] << 2 * OCTREE_LEVELS
    for node, voxel in enumerate(first):
        inside = np.ones(len(inner), bool)
        for level in range(1, int(cut.levels[voxel]) + 1):
            digits = (inner >> (OCTREE_LEVELS - level) & 1) @ np.array([1, 2, 4])
            inside &= digits == cut.paths[voxel] >> 3 * (level - 1) & 7
        nodes[np.searchsorted(cells, raster[voxel]), columns[inside]] = node
    rotation = stored.w2c[:3, :3]
    right, down = rotation[0] / stored.fx, rotation[1] / stored.fy
    ahead = rotation[2] - stored.cx * right - stored.cy * down
    met = np.zeros((groups_x * groups_y, len(places)), bool)
    edges = np.empty(0, np.int64)
    for _ in range(2):
        found = _met_kernel(
            camera.width, camera.height, group_px, groups_x, stored.position, right, down, ahead,
            cut.origin, cut.edge / _FINEST, cut.counts, cells, nodes,
            np.ldexp(spacing, cut.scale_log2), met, edges)
        if found <= len(edges):
            break
        edges = np.empty(found, np.int64)
    pairs = np.unique(edges)
    return RayGraph(
        node_of=node_of, met=met, edges=np.stack([pairs >> 32, pairs & 0xFFFFFFFF], axis=1))


def kahn(nodes: int, edges: Int64Array, priority: npt.ArrayLike) -> Int64Array:
    """Topological order by Kahn's algorithm; of the nodes that may come, the least goes first.

    Parameters
    ----------
    nodes : int
        Number of nodes.
    edges : ndarray
        Pairs (before, after), shape [E, 2].
    priority : array_like
        Number of every node, shape [nodes]; ties go to the lower node.

    Raises
    ------
    ValueError
        If the graph has a cycle.
    """
    rank = np.asarray(priority).tolist()
    indegree = np.bincount(edges[:, 1], minlength=nodes).tolist()
    after: list[list[int]] = [[] for _ in range(nodes)]
    for source, target in edges.tolist():
        after[source].append(target)
    ready = [(rank[node], node) for node in range(nodes) if indegree[node] == 0]
    heapify(ready)
    order = []
    while ready:
        _, node = heappop(ready)
        order.append(node)
        for target in after[node]:
            indegree[target] -= 1
            if indegree[target] == 0:
                heappush(ready, (rank[target], target))
    if len(order) < nodes:
        raise ValueError(f"Graph must have no cycle, but {nodes - len(order)} nodes are in one")
    return np.array(order, np.int64)


def voxel_lists(
    cut: Partition, camera: Camera, group_tiles: int, lists: str = "reach", *,
    spacing: float | None = None,
) -> npt.NDArray[np.bool_]:
    """Which voxels every group of tiles streams, shape [groups, V].

    At 320x240 in groups of a tile, lists by reach hold 9,899 voxels of fox and 64,215 of
    statue_massa, and lose nothing that the reference draws; what rays cross besides adds 3 and 1 %
    and changes no pixel. Points on rays, half a cell apart, find 2,862 and 4,295 voxels, and lose
    4 and 24 % of the pairs of tile and Gaussian.

    Parameters
    ----------
    cut : Partition
        The scene's.
    camera : Camera
        In the scene's units.
    group_tiles : int
        Tiles of a group on either axis.
    lists : str
        One of :data:`LISTS`.
    spacing : float, optional
        Of the sampled points, in the scene's units; half a base cell's edge by default.
    """
    group_px = group_tiles * TILE_PX
    groups_x, groups_y = -(-camera.width // group_px), -(-camera.height // group_px)
    listed = np.zeros((groups_x * groups_y, cut.voxels), bool)
    if lists != "sampling":
        x0, y0, x1, y1 = group_ranges(
            reach_rectangles(cut, camera), camera.width, camera.height, group_px).T
        column, row = np.arange(groups_x)[:, None], np.arange(groups_y)[:, None]
        in_x, in_y = (x0 <= column) & (column < x1), (y0 <= row) & (row < y1)
        listed[:] = (in_y[:, None] & in_x).reshape(listed.shape)
    if lists != "reach":
        if spacing is None:
            spacing = cut.voxel_size / 2
        graph = ray_graph(
            cut, camera, group_px, spacing=spacing if lists == "sampling" else 0.0)
        listed |= graph.met[:, graph.node_of]
    return listed

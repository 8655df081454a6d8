"""A scene cut into voxels, and where they lie in memory.

Cells form a regular grid; a Gaussian belongs to the cell of its mean, however far it reaches. What
is more than a voxel can hold is halved on every axis, up to three times, and then cut into parts of
the same place. Cells at the border of the grid have no outer wall: what lies beyond the grid, where
captures have stray Gaussians, belongs to them, in voxels of its own. Walls are planes that all
cells share, so that an order of cells by their places stays an order along every ray.

In memory the Gaussians of a voxel lie by descending scale, so that a group which only the largest
of them can reach needs no more than the first.

All lengths are stored in units of a power of two of the scene's units, chosen so that the edge of a
base cell is in [1, 2): scales then fit binary16 whatever the scene's units, and nothing is rounded.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from math import floor, frexp, ldexp, log2

import numpy as np
import numpy.typing as npt
from numba import njit

from splatforge.algos.vsu import prefix_counts
from splatforge.designs.streaminggs import PartitionDesign
from splatforge.designs.voxel import (
    CELL_BITS,
    LEVEL_BIT,
    OCTAVE_BITS,
    OCTREE_LEVELS,
    POPULATION_BITS,
    PREFIX_SHIFTS,
    VOXEL_WORDS,
)
from splatforge.scenes import Camera, Scene

__all__ = ["Partition", "camera_cell", "ceil_half", "choose_voxel_size", "partition"]

Float64Array = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]
Int32Array = npt.NDArray[np.int32]
UInt32Array = npt.NDArray[np.uint32]
UInt16Array = npt.NDArray[np.uint16]

#: Base cells on an axis, finest cells on an edge of one.
_CELLS = 1 << CELL_BITS
_FINEST = 1 << OCTREE_LEVELS
#: Halvings of a base cell that decide the order within a voxel: neighbours come together.
_ORDER_LEVELS = 9
_RING_SHIFT = 3 * _ORDER_LEVELS
_RING_BITS = 6
_CELL_SHIFT = _RING_SHIFT + _RING_BITS
#: Least edge of a voxel's cube, in edges of a base cell.
_SMALLEST = 2.0**-10
#: From this ring on a Gaussian is a voxel by itself: a common cube would not fit binary16.
_LONELY_RING = 14
#: Largest and smallest normal numbers of binary16.
_HALF_MAX, _HALF_MIN = 65504.0, 2.0**-14


def ceil_half(values: npt.ArrayLike) -> UInt16Array:
    """Words of binary16 of non-negative values, rounded up to the next normal number or zero.

    What is beyond the largest number becomes the largest.
    """
    values = np.minimum(np.asarray(values, np.float64), _HALF_MAX)
    half = values.astype(np.float16)
    words = half.view(np.uint16) + (half.astype(np.float64) < values)
    return np.where(values > 0, np.maximum(words, np.float16(_HALF_MIN).view(np.uint16)), 0).astype(
        np.uint16)


@njit(cache=True)
def _count_cells(means, edge, origin, counts, limit):
    """Occupied cells of a grid, counted up to `limit`; cells beyond the grid are its border's."""
    size = 8
    while size < 4 * limit:
        size *= 2
    slots = np.full(size, -1, np.int64)
    found = 0
    for i in range(len(means)):
        key = np.int64(0)
        for axis in range(3):
            cell = int(np.floor((np.float64(means[i, axis]) - origin[axis]) / edge))
            key = key << CELL_BITS | min(max(cell, 0), counts[axis] - 1)
        slot = ((key * 0x9E3779B1) >> 7) & (size - 1)
        while slots[slot] != -1 and slots[slot] != key:
            slot = (slot + 1) & (size - 1)
        if slots[slot] == -1:
            slots[slot] = key
            found += 1
            if found == limit:
                break
    return found


@njit(cache=True)
def _key_kernel(means, edge, origin, counts, keys):
    """Key of every Gaussian: base cell in raster order, ring, place within the cell."""
    fine = edge / (1 << _ORDER_LEVELS)
    place = np.empty(3, np.int64)
    for i in range(len(means)):
        beyond = 0.0
        for axis in range(3):
            at = (np.float64(means[i, axis]) - origin[axis]) / fine
            end = np.float64(counts[axis] << _ORDER_LEVELS)
            beyond = max(beyond, max(-at, at - end))
            place[axis] = int(min(max(np.floor(at), 0.0), end - 1))
        ring = 0
        if beyond > 0.0:
            ring = 1 + max(0, int(np.floor(np.log2(beyond / (1 << _ORDER_LEVELS)))))
        ring = min(ring, (1 << _RING_BITS) - 1)
        raster = np.int64(0)
        for axis in range(2, -1, -1):
            raster = raster << CELL_BITS | place[axis] >> _ORDER_LEVELS
        key = raster << _RING_BITS | ring
        for level in range(_ORDER_LEVELS - 1, -1, -1):
            key <<= 3
            for axis in range(3):
                key |= (place[axis] >> level & 1) << axis
        keys[i] = key


@njit(cache=True)
def _leaf_kernel(keys, capacity, starts, levels):
    """Voxels of sorted keys: where each starts, and its level in the octree. Their number."""
    voxels = 0
    at = 0
    while at < len(keys):
        limit = capacity
        if keys[at] >> _RING_SHIFT & ((1 << _RING_BITS) - 1) >= _LONELY_RING:
            limit = 1
        for level in range(OCTREE_LEVELS + 1):
            shift = _RING_SHIFT - 3 * level
            prefix = keys[at] >> shift
            if at > 0 and keys[at - 1] >> shift == prefix:
                # What came before is of the same cell of this level: it was halved.
                continue
            end = at + 1
            while end < len(keys) and keys[end] >> shift == prefix and (
                    end - at <= limit or level == OCTREE_LEVELS):
                end += 1
            if end - at > limit and level < OCTREE_LEVELS:
                continue
            parts = (end - at + limit - 1) // limit
            for part in range(parts):
                starts[voxels] = at + part * (end - at) // parts
                levels[voxels] = level
                voxels += 1
            at = end
            break
    starts[voxels] = len(keys)
    return voxels


@njit(cache=True)
def _voxel_kernel(means, starts, keys, edge, cells, levels, paths, base, size, q, rho):
    """Places of voxels, and of the Gaussians in them; `means` in the voxels' order."""
    for voxel in range(len(starts) - 1):
        first, end = starts[voxel], starts[voxel + 1]
        key = keys[first]
        path = 0
        for level in range(levels[voxel]):
            path |= (key >> (_RING_SHIFT - 3 * (level + 1)) & 7) << (3 * level)
        paths[voxel] = path
        side = edge * _SMALLEST
        for axis in range(3):
            cells[voxel, axis] = key >> (_CELL_SHIFT + CELL_BITS * axis) & (_CELLS - 1)
            low, high = np.inf, -np.inf
            for i in range(first, end):
                low = min(low, np.float64(means[i, axis]))
                high = max(high, np.float64(means[i, axis]))
            base[voxel, axis] = 0.5 * (low + high)
            # So much larger that the highest place is one of those that there are.
            side = max(side, (high - low) * (1 + 2.0**-15))
        size[voxel] = side
        side = np.float64(size[voxel])
        for axis in range(3):
            base[voxel, axis] = np.float64(base[voxel, axis]) - 1.5 * side
        farthest = 0.0
        for i in range(first, end):
            distance = 0.0
            for axis in range(3):
                at = (np.float64(means[i, axis]) - np.float64(base[voxel, axis])) / side - 1.0
                raw = min(max(np.floor(at * 65536.0 + 0.5), 0.0), 65535.0)
                q[i, axis] = np.uint16(raw)
                distance += (raw / 65536.0 - 0.5) ** 2
            farthest = max(farthest, distance)
        rho[voxel] = np.sqrt(farthest) * side


@dataclass(frozen=True, kw_only=True, eq=False)
class Partition:
    """A scene in voxels. Stored lengths are the scene's times ``2 ** scale_log2``.

    Parameters
    ----------
    scene : Scene
        What was cut.
    design : PartitionDesign
        How.
    scale_log2 : int
        Stored lengths are the scene's times two to this.
    edge : float
        Of a base cell, stored; in [1, 2) unless the scene is empty.
    origin : ndarray
        Low corner of the grid, stored, shape [3].
    counts : ndarray
        Base cells on every axis, shape [3], at most 1024 each.
    ids : ndarray
        Index into the scene of every Gaussian, voxel after voxel, shape [N], int32.
    starts : ndarray
        Shape [V + 1]: voxel v holds the Gaussians ``ids[starts[v] : starts[v + 1]]``.
    cells : ndarray
        Base cell of every voxel, shape [V, 3].
    levels : ndarray
        How often the base cell was halved, shape [V]; 0 to 3.
    paths : ndarray
        Which child at every halving, shape [V]: three bits a level, level 1 in the lowest; of
        these the lowest is x, set where the coordinate is in the upper half.
    base : ndarray
        Corner minus size of the cube that holds a voxel's means, stored, shape [V, 3], float32.
        The cube is the smallest around them, whatever the place.
    size : ndarray
        Edge of that cube, stored, shape [V], float32; at least 2^-10 of a base cell's.
    q : ndarray
        Places in the cube, shape [N, 3], uint16: a mean is ``base + (1 + q / 65536) * size``.
    scale : ndarray
        Words of binary16 of the largest scale of every Gaussian, stored, rounded up; shape [N].
    rho : ndarray
        Words of binary16, shape [V]: from the cube's centre to its farthest mean, rounded up.
    """

    scene: Scene
    design: PartitionDesign
    scale_log2: int
    edge: float
    origin: Float64Array
    counts: Int64Array
    ids: Int32Array
    starts: Int64Array
    cells: Int32Array
    levels: Int32Array
    paths: Int32Array
    base: npt.NDArray[np.float32]
    size: npt.NDArray[np.float32]
    q: UInt16Array
    scale: UInt16Array
    rho: UInt16Array

    @property
    def voxels(self) -> int:
        """Number of voxels."""
        return len(self.size)

    @property
    def gaussians(self) -> int:
        """Number of Gaussians."""
        return len(self.ids)

    @property
    def voxel_size(self) -> float:
        """Edge of a base cell in the scene's units."""
        return ldexp(self.edge, -self.scale_log2)

    @property
    def occupied_cells(self) -> int:
        """Base cells with at least one Gaussian."""
        return len(np.unique(self.cells, axis=0))

    @cached_property
    def counts_of_voxels(self) -> Int64Array:
        """Gaussians of every voxel, shape [V]."""
        return np.diff(self.starts)

    @cached_property
    def voxel_of(self) -> Int32Array:
        """Voxel of every Gaussian in the voxels' order, shape [N]."""
        return np.repeat(np.arange(self.voxels, dtype=np.int32), self.counts_of_voxels)

    @cached_property
    def voxel_of_id(self) -> Int32Array:
        """Voxel of every Gaussian in the scene's order, shape [N]."""
        voxels = np.empty(self.gaussians, np.int32)
        voxels[self.ids] = self.voxel_of
        return voxels

    @cached_property
    def coarse_beats(self) -> Int64Array:
        """First beat of every voxel's coarse half from the scene's address, shape [V + 1].

        The fine half begins ``ceil(count / 2)`` beats behind; the last entry is the scene's end.
        """
        counts = self.counts_of_voxels
        beats = np.zeros(self.voxels + 1, np.int64)
        np.cumsum((counts + 1) // 2 + counts, out=beats[1:])
        return beats

    @property
    def largest_scale(self) -> UInt16Array:
        """Words of binary16 of the largest scale in every voxel, shape [V]."""
        if not self.voxels:
            return np.zeros(0, np.uint16)
        # Words of binary16 that are not negative are ordered as their values.
        return np.maximum.reduceat(self.scale, self.starts[:-1])

    @cached_property
    def in_memory(self) -> Int32Array:
        """Gaussians as they lie in memory, indices into the voxels' order; shape [N].

        Voxel after voxel, in one by descending largest scale; neighbours follow each other where
        that is the same.
        """
        return np.lexsort((-self.scale.astype(np.int32), self.voxel_of)).astype(np.int32)

    @cached_property
    def octaves(self) -> Int64Array:
        """Octaves by which scales beyond prefixes are below a voxel's largest, shape [prefixes, V].

        Rounded down, and at most what the record holds; 0 where there is nothing beyond.
        """
        scale = self.scale[self.in_memory].view(np.float16).astype(np.float64)
        counts, first = self.counts_of_voxels, self.starts[:-1]
        octaves = np.zeros((len(PREFIX_SHIFTS), self.voxels), np.int64)
        for n, shift in enumerate(PREFIX_SHIFTS):
            prefix = prefix_counts(counts, shift)
            shorter = np.flatnonzero(prefix < counts)
            beyond, largest = scale[(first + prefix)[shorter]], scale[first[shorter]]
            for octave in range(1, 1 << OCTAVE_BITS):
                octaves[n, shorter] += np.ldexp(beyond, octave) <= largest
        return octaves

    def means(self) -> Float64Array:
        """Means as the hardware sees them, in the scene's units, shape [N, 3], voxel by voxel."""
        voxel = self.voxel_of
        at = 1.0 + self.q.astype(np.float64) / 65536
        stored = self.base[voxel].astype(np.float64) + at * self.size[voxel, None].astype(
            np.float64)
        return np.ldexp(stored, -self.scale_log2)

    def scales(self) -> Float64Array:
        """Largest scales as the hardware sees them, in the scene's units, shape [N], likewise."""
        return np.ldexp(self.scale.view(np.float16).astype(np.float64), -self.scale_log2)

    def decode(self) -> Scene:
        """The scene as it is stored but for its fine halves, voxel after voxel.

        Means and largest scales are what the hardware sees; the rest is the scene's.
        """
        scene = self.scene.select(self.ids)
        log_scales = scene.log_scales.copy()
        rows = np.arange(self.gaussians)
        log_scales[rows, scene.log_scales.argmax(axis=1)] = np.log(self.scales())
        return replace(scene, means=self.means().astype(np.float32), log_scales=log_scales)

    def stored_camera(self, camera: Camera) -> Camera:
        """The camera in stored lengths; it sees the same picture."""
        w2c = camera.w2c.copy()
        w2c[:3, 3] = np.ldexp(w2c[:3, 3], self.scale_log2)
        return replace(camera, w2c=w2c, near=ldexp(camera.near, self.scale_log2))

    def table(self) -> UInt32Array:
        """Voxel records as they stand in memory, shape [V, 8], of 32-bit words.

        Their words are :data:`splatforge.designs.voxel.VOXEL_WORDS`.

        Raises
        ------
        ValueError
            If the scene takes 2^32 beats or more.
        """
        if self.coarse_beats[-1] >= 1 << 32:
            raise ValueError(
                f"Scene must take fewer than 2^32 beats, not {int(self.coarse_beats[-1])}")
        words = np.zeros((self.voxels, len(VOXEL_WORDS)), np.uint32)
        words[:, :3], words[:, 3] = self.base.view(np.uint32), self.size.view(np.uint32)
        words[:, 4] = self.coarse_beats[:-1]
        words[:, 5] = (self.counts_of_voxels | self.levels << LEVEL_BIT
                       | self.paths << (LEVEL_BIT + 2))
        for n, octaves in enumerate(self.octaves):
            words[:, 5] |= (octaves << (POPULATION_BITS + OCTAVE_BITS * n)).astype(np.uint32)
        words[:, 6] = self.cells @ np.array([1, 1 << CELL_BITS, 1 << 2 * CELL_BITS])
        words[:, 7] = self.rho | self.largest_scale.astype(np.uint32) << 16
        return words

    def beats(self, fine: UInt32Array | None = None) -> UInt32Array:
        """Coarse and fine halves of all voxels as they stand in memory, shape [beats, 4].

        Parameters
        ----------
        fine : ndarray, optional
            Fine halves, a beat a Gaussian in the voxels' order, shape [N, 4]; zeros by default.
        """
        memory = np.zeros((int(self.coarse_beats[-1]), 4), np.uint32)
        rank = np.arange(self.gaussians) - self.starts[self.voxel_of]
        first = self.coarse_beats[self.voxel_of]
        words, scale = (part[self.in_memory].astype(np.uint32) for part in (self.q, self.scale))
        at, half = first + rank // 2, 2 * (rank % 2)
        memory[at, half] = words[:, 0] | words[:, 1] << 16
        memory[at, half + 1] = words[:, 2] | scale << 16
        if fine is not None:
            fine = fine[self.in_memory]
            memory[first + (self.counts_of_voxels[self.voxel_of] + 1) // 2 + rank] = fine
        return memory


def camera_cell(cut: Partition, camera: Camera) -> Int64Array:
    """Where the eye is in finest cells from the grid's origin, shape [3], clipped to 16 bits.

    Parameters
    ----------
    cut : Partition
        The scene's.
    camera : Camera
        In the scene's units.
    """
    eye = np.ldexp(camera.position, cut.scale_log2)
    at = np.floor((eye - cut.origin) / (cut.edge / _FINEST))
    return np.clip(at, -(1 << 15), (1 << 15) - 1).astype(np.int64)


def _edge(step: int) -> float:
    """Edges to choose from: eight in an octave, of so few bits that walls are exact."""
    return ldexp(8 + step % 8, step // 8 - 3)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Bounds:
    """Of the means on every axis, shape [3] each; a reduction along an array's rows is slow."""

    low: Float64Array
    middle: Float64Array
    high: Float64Array

    @classmethod
    def of(cls, means: npt.NDArray[np.float32]) -> "_Bounds":
        columns = [means[:, axis].astype(np.float64) for axis in range(3)]
        return cls(
            low=np.array([column.min() for column in columns]),
            middle=np.array([np.median(column) for column in columns]),
            high=np.array([column.max() for column in columns]))

    def grid(self, edge: float) -> tuple[Float64Array, Int64Array]:
        """Origin and cells of a grid around all, or around most where it would be too large."""
        low = np.floor(self.low / edge)
        count = np.floor(self.high / edge) - low + 1
        centered = np.floor(self.middle / edge) - _CELLS // 2
        low = np.where(
            count > _CELLS, np.clip(centered, low, low + np.maximum(count - _CELLS, 0)), low)
        return low * edge, np.minimum(count, _CELLS).astype(np.int64)


def choose_voxel_size(scene: Scene, design: PartitionDesign) -> float:
    """Edge of a base cell for a scene, by the rule of :class:`PartitionDesign`.

    Where no edge occupies so many cells, because means coincide, the one that comes closest; 1
    where all coincide.
    """
    means = scene.means
    if not len(means):
        return 1.0
    bounds = _Bounds.of(means)
    extent = float((bounds.high - bounds.low).max())
    if not extent:
        return 1.0
    wanted = max(1, min(design.occupied_cells, len(means) // design.sparsest))
    top = floor(log2(extent)) + 1

    def found(step: int) -> int:
        edge = _edge(step)
        return _count_cells(means, edge, *bounds.grid(edge), wanted)

    # By octaves down to a millionth of the extent, then between two of them: more cells are
    # occupied the smaller they are, but for grids that are placed less luckily.
    counts = {}
    for octave in range(top, top - 20, -1):
        counts[8 * octave] = found(8 * octave)
        if counts[8 * octave] == wanted:
            break
    low = max(counts, key=lambda step: (counts[step], step))
    high = low + 8
    while counts[low] == wanted and high - low > 1:
        middle = (low + high) // 2
        counts[middle] = found(middle)
        low, high = (middle, high) if counts[middle] == wanted else (low, middle)
    return _edge(low)


def partition(scene: Scene, design: PartitionDesign) -> Partition:
    """Cut a scene into voxels.

    Parameters
    ----------
    scene : Scene
        Any scene.
    design : PartitionDesign
        Edge and capacity.

    Returns
    -------
    Partition
        Voxels in raster order of their base cells, then by octant; within a voxel neighbours
        follow each other. No Gaussian is left out.

    Notes
    -----
    Means are off by at most 2^-17 of their cube's edge on every axis, beside the rounding of the
    base to float32; where that counts, the scene's own float32 means are no better. Five million
    Gaussians take some five seconds.
    """
    edge = design.voxel_size or choose_voxel_size(scene, design)
    scale_log2 = 1 - frexp(edge)[1]
    edge = ldexp(edge, scale_log2)
    with np.errstate(over="ignore"):
        means = np.ldexp(scene.means, scale_log2)
    if not np.isfinite(means).all():
        raise ValueError(
            f"Voxel size must be at least 1e-24 of the farthest mean, not {design.voxel_size!r}")
    origin, counts = np.zeros(3), np.ones(3, np.int64)
    if len(means):
        origin, counts = _Bounds.of(means).grid(edge)
    keys = np.empty(len(means), np.int64)
    _key_kernel(means, edge, origin, counts, keys)
    ids = np.argsort(keys, kind="stable")
    keys, means = keys[ids], means[ids]
    starts, levels = np.empty(len(keys) + 1, np.int64), np.empty(len(keys), np.int32)
    voxels = _leaf_kernel(keys, design.capacity, starts, levels)
    starts, levels = starts[:voxels + 1].copy(), levels[:voxels].copy()
    cells, paths = np.empty((voxels, 3), np.int32), np.empty(voxels, np.int32)
    base, size = np.empty((voxels, 3), np.float32), np.empty(voxels, np.float32)
    q, rho = np.empty((len(keys), 3), np.uint16), np.empty(voxels)
    _voxel_kernel(means, starts, keys, edge, cells, levels, paths, base, size, q, rho)
    first, second, third = scene.log_scales.T
    largest = np.maximum(np.maximum(first, second), third)[ids].astype(np.float64)
    return Partition(
        scene=scene, design=design, scale_log2=scale_log2, edge=edge, origin=origin, counts=counts,
        ids=ids.astype(np.int32), starts=starts, cells=cells, levels=levels, paths=paths, base=base,
        size=size, q=q, scale=ceil_half(np.ldexp(np.exp(largest), scale_log2)), rho=ceil_half(rho))

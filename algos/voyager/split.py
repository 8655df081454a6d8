"""Gaussians split again and again into cells: which nodes a tree has, breadth-first.

A cell is split in the middle of its longest side. Sides are those of the centres' box, and the span
of the Gaussians' own sizes: what is much larger than its neighbours parts from them high up in the
tree, so that they are not drawn in full wherever it is near.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from splatforge.designs.lod import TreeDesign

__all__ = ["AXES", "Cells", "split"]

#: Coordinates of a point: its place, and its size, in the same unit.
AXES = 4

Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Cells:
    """Nodes of a tree, breadth-first: a level after the other, children of a node side by side.

    Parameters
    ----------
    order : numpy.ndarray
        Points, those of a node side by side, shape [points], int32.
    start, end : numpy.ndarray
        Where in the order those of a node are, shape [nodes], int64.
    parent : numpy.ndarray
        Shape [nodes], int32; -1 at the root.
    first_child : numpy.ndarray
        Children of node i are ``first_child[i]`` to ``first_child[i + 1]``, none at a leaf; shape
        [nodes + 1], int32.
    level_start : numpy.ndarray
        First node of each level, and how many nodes there are, shape [levels + 1], int64.
    """

    order: Int32Array
    start: Int64Array
    end: Int64Array
    parent: Int32Array
    first_child: Int32Array
    level_start: Int64Array


def split(points: npt.NDArray[np.float32], design: TreeDesign, *, leaf_points: int = 1,
          level: int = 0) -> Cells:
    """Split points until no cell has more than ``leaf_points``.

    The same points make the same cells: what is below a cell does not depend on how the points
    stood, or on where their splitting was interrupted.

    Parameters
    ----------
    points : numpy.ndarray
        Shape [points, 4], float32, C-contiguous, at least one, finite. They are put into the order
        of the cells.
    design : TreeDesign
        Its ``fan_out`` and ``median_level``.
    leaf_points : int
        Points of a leaf at most.
    level : int
        Level of the root, if this is part of a tree.
    """
    order = np.arange(len(points), dtype=np.int32)
    made: Any = _split_kernel(
        points, order, design.fan_out, leaf_points, level, design.median_level)
    start, end, parent, first_child, level_start = made
    return Cells(order=order, start=start, end=end, parent=parent, first_child=first_child,
                 level_start=level_start)


@njit(cache=True, nogil=True)
def _measure(points, start, end):
    """Longest side of a range's box: axis, length, middle."""
    axis, length, middle = 0, -1.0, 0.0
    for a in range(AXES):
        low = high = points[start, a]
        for i in range(start + 1, end):
            value = points[i, a]
            low, high = min(low, value), max(high, value)
        extent = np.float64(high) - np.float64(low)
        if extent > length:
            axis, length, middle = a, extent, 0.5 * (np.float64(low) + np.float64(high))
    return axis, length, middle


@njit(cache=True, nogil=True)
def _arrange(points, order, start, end, by):
    """Put a range into the order ``by``."""
    moved, ids = points[start:end].copy(), order[start:end].copy()
    for i in range(end - start):
        order[start + i] = ids[by[i]]
        for a in range(AXES):
            points[start + i, a] = moved[by[i], a]


@njit(cache=True, nogil=True)
def _halve(points, order, start, end, axis, length, middle, median):
    """Split a range; returns where its second part begins."""
    if length > 0.0 and not median:
        left, right = start, end - 1
        while True:
            while points[left, axis] < middle:
                left += 1
            while points[right, axis] >= middle:
                right -= 1
            if left > right:
                return left
            order[left], order[right] = order[right], order[left]
            for a in range(AXES):
                points[left, a], points[right, a] = points[right, a], points[left, a]
    # By number where places are equal, or how the points stood would tell.
    _arrange(points, order, start, end, np.argsort(order[start:end]))
    if length > 0.0:
        by = np.argsort(points[start:end, axis].copy(), kind="mergesort")
        _arrange(points, order, start, end, by)
    return (start + end) // 2


@njit(cache=True, nogil=True)
def _grown(array, size):
    larger = np.empty(2 * size, array.dtype)
    larger[:size] = array[:size]
    return larger


@njit(cache=True, nogil=True)
def _split_kernel(points, order, fan_out, leaf_points, level, median_level):
    capacity = 1024
    starts, ends = np.empty(capacity, np.int64), np.empty(capacity, np.int64)
    parent, first_child = np.empty(capacity, np.int32), np.empty(capacity, np.int32)
    level_start = np.empty(256, np.int64)
    starts[0], ends[0], parent[0] = 0, len(points), -1
    nodes, levels, level_end = 1, 0, 0
    part_start, part_end = np.empty(fan_out, np.int64), np.empty(fan_out, np.int64)
    axis, length = np.empty(fan_out, np.int64), np.empty(fan_out, np.float64)
    middle = np.empty(fan_out, np.float64)
    node = 0
    while node < nodes:
        if node == level_end:
            level_start[levels] = node
            levels += 1
            level_end = nodes
        if nodes + fan_out > capacity:
            starts, ends = _grown(starts, capacity), _grown(ends, capacity)
            parent, first_child = _grown(parent, capacity), _grown(first_child, capacity)
            capacity *= 2
        first_child[node] = nodes
        start, end = starts[node], ends[node]
        if end - start > leaf_points:
            parts = 1
            part_start[0], part_end[0] = start, end
            axis[0], length[0], middle[0] = _measure(points, start, end)
            while parts < fan_out:
                widest = -1
                for part in range(parts):
                    if part_end[part] - part_start[part] > 1 and (
                            widest < 0 or length[part] > length[widest]):
                        widest = part
                if widest < 0:
                    break
                at = _halve(points, order, part_start[widest], part_end[widest], axis[widest],
                            length[widest], middle[widest], level + levels - 1 >= median_level)
                for part in range(parts, widest + 1, -1):
                    part_start[part], part_end[part] = part_start[part - 1], part_end[part - 1]
                    axis[part], length[part] = axis[part - 1], length[part - 1]
                    middle[part] = middle[part - 1]
                part_start[widest + 1], part_end[widest + 1] = at, part_end[widest]
                part_end[widest] = at
                parts += 1
                for part in (widest, widest + 1):
                    axis[part], length[part], middle[part] = _measure(
                        points, part_start[part], part_end[part])
            for part in range(parts):
                starts[nodes], ends[nodes] = part_start[part], part_end[part]
                parent[nodes] = node
                nodes += 1
        node += 1
    level_start[levels] = nodes
    children = np.empty(nodes + 1, np.int32)
    children[:nodes] = first_child[:nodes]
    children[nodes] = nodes
    return (starts[:nodes].copy(), ends[:nodes].copy(), parent[:nodes].copy(), children,
            level_start[:levels + 1].copy())

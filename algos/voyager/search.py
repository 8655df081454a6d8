"""Which nodes of a tree a viewer needs: the cut, found by streaming the tree or from the last cut.

A node is fine enough if it measures less than tau pixels on the image:

    focal * edge < tau * distance

with the longest edge of its box, and the distance from the eye to the box, at least that of the
near plane. It is in the cut if its parent is not fine enough, and either it is itself or it has no
children. A parent's box holds its children's, so whatever the eye and however the sums round, what
is below a node that is fine enough is so too: every leaf has exactly one node of the cut above it,
or is one.

The cut depends on where the eye is and not on where it looks: what a turn of the head shows is
there before it is asked for.

Source of rule and searches: Nebula (ASPLOS 2026); the papers do not say how a node is measured.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from time import thread_time

import numpy as np
import numpy.typing as npt
from numba import njit

from splatforge.algos.voyager.tree import LodTree
from splatforge.designs.lod import SearchDesign
from splatforge.scenes import Camera, extrapolate

__all__ = ["Ahead", "Found", "Moved", "Search", "follow_ahead", "unchanged"]

# States of a node: below the cut, in it, above it.
_BELOW, _CUT, _ABOVE = 0, 1, 2
# What distances may be wrong by, of the lengths they are computed of; binary64 is a million times
# better.
_ROUNDING = 1e-9

Int32Array = npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Moved:
    """What a cut changes of the one before, and what it took to find that.

    Parameters
    ----------
    added, removed : numpy.ndarray
        Nodes that the cut before did not have, or had and this one has not; ascending, int32. All
        and none in a full search.
    visited : int
        Nodes looked at.
    tested : int
        Of these, nodes that were measured.
    pieces : int
        Blocks streamed, or subtrees searched.
    time_s : float
        Processor time; one thread does it.
    """

    added: Int32Array
    removed: Int32Array
    visited: int
    tested: int
    pieces: int
    time_s: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Found(Moved):
    """The cut as well.

    Parameters
    ----------
    ids : numpy.ndarray
        Nodes of the cut, ascending, shape [cut], int32.
    """

    ids: Int32Array


class Search:
    """The search for cuts of one tree, frame after frame.

    Parameters
    ----------
    tree : LodTree
        The tree.
    design : SearchDesign
        Which cut, and how.
    """

    def __init__(self, tree: LodTree, design: SearchDesign) -> None:
        self.tree = tree
        self.design = design
        # Of the cut, where a step has wanted them.
        self._ids: Int32Array | None = None
        self._state = np.zeros(tree.nodes, np.uint8)
        subtrees = len(tree.roots)
        # Of each subtree: whether its root is in the cut or above it, nodes of the cut in it, the
        # eye when it was searched, and how far from there nothing in it changes.
        self._live = np.zeros(subtrees, np.uint8)
        self._held = np.zeros(subtrees, np.int32)
        self._eye = np.zeros((subtrees, 3))
        self._safe = np.zeros(subtrees)
        self._scale: tuple[float, float] | None = None

    def _lens(self, camera: Camera) -> tuple[float, float]:
        return max(camera.fx, camera.fy) / self.design.tau_px, camera.near

    def full(self, camera: Camera) -> Found:
        """Stream the tree, block after block, until no node of a block can be in the cut."""
        tree, scale = self.tree, self._lens(camera)
        start = thread_time()
        ids, visited, tested, blocks = _full_kernel(
            tree.parent, tree.first_child, tree.box, camera.position, *scale,
            self.design.block_nodes, self._state)
        _enter_kernel(tree.subtree, tree.roots, self._state, ids, self._live, self._held)
        time_s = thread_time() - start
        # When they were searched is not known: each is, once.
        self._safe[:] = -1.0
        self._ids, self._scale = ids, scale
        return Found(ids=ids, added=ids, removed=ids[:0], visited=visited, tested=tested,
                     pieces=blocks, time_s=time_s)

    def step(self, camera: Camera) -> Found:
        """Find the cut from the one before; the first is a full search.

        Subtrees that hold nodes of the last cut are searched, from their roots down; where the cut
        has left one, that above it or those below it are. The cut is that of :meth:`full`, bit for
        bit.
        """
        if self._scale is None:
            return self.full(camera)
        if self._ids is None:
            self._ids = np.flatnonzero(self._state == _CUT).astype(np.int32)
        before = self._ids
        moved = self.move(camera)
        start = thread_time()
        self._ids = ids = _apply_kernel(before, moved.removed, moved.added)
        return Found(ids=ids, added=moved.added, removed=moved.removed, visited=moved.visited,
                     tested=moved.tested, pieces=moved.pieces,
                     time_s=moved.time_s + thread_time() - start)

    def move(self, camera: Camera) -> Moved:
        """The same without the cut itself, which takes as long as it is large."""
        if self._scale is None:
            return self.full(camera)
        tree, scale = self.tree, self._lens(camera)
        start = thread_time()
        if scale != self._scale:
            self._safe[:] = -1.0
        added, removed, visited, tested, pieces = _step_kernel(
            tree.parent, tree.first_child, tree.subtree, tree.roots, tree.box, camera.position,
            *scale, self.design.safe_distance, tree.design.subtree_nodes, self._state, self._live,
            self._held, self._eye, self._safe)
        added.sort()
        removed.sort()
        time_s = thread_time() - start
        self._ids, self._scale = None, scale
        return Moved(added=added, removed=removed, visited=visited, tested=tested, pieces=pieces,
                     time_s=time_s)


@dataclass(frozen=True, kw_only=True, eq=False)
class Ahead:
    """A frame drawn with the cut of a pose that was predicted.

    Parameters
    ----------
    used : numpy.ndarray
        The cut that is there, ascending, int32.
    search : Found or None
        The search that was begun at this frame.
    """

    used: Int32Array
    search: Found | None


def follow_ahead(search: Search, cameras: Sequence[Camera]) -> Iterator[Ahead]:
    """Yield the cut of each frame where the search runs beside the frames.

    Every ``window_frames`` it begins for the pose so many frames ahead, if motion goes on as it
    does, and its cut is drawn from that frame on; the first frame waits for its own.
    """
    window = search.design.window_frames
    ready: Int32Array | None = None
    used = np.empty(0, np.int32)
    for number, camera in enumerate(cameras):
        found = None
        if number % window == 0:
            if ready is None:
                found = search.full(camera)
                used = found.ids
            else:
                used = ready
                found = search.step(extrapolate(cameras[number - 1], camera, window))
            ready = found.ids
        yield Ahead(used=used, search=found)


def unchanged(before: Int32Array, now: Int32Array) -> float:
    """Share of a cut that is in another, from 0 to 1."""
    return _common_kernel(before, now) / len(before)


@njit(cache=True, nogil=True)
def _measure(box, eye, scale, near):
    """Length that a node may have to be fine enough, its own at this scale, and its distance.

    Every operation is monotone as it is rounded, so a box within another is not found larger or
    nearer.
    """
    edge = box[3] - box[0]
    edge = max(edge, box[4] - box[1])
    edge = max(edge, box[5] - box[2])
    square = 0.0
    for axis in range(3):
        away = max(0.0, np.float64(box[axis]) - eye[axis])
        away = max(away, eye[axis] - np.float64(box[3 + axis]))
        square += away * away
    distance = sqrt(square)
    return max(distance, near), scale * np.float64(edge), distance


@njit(cache=True, nogil=True)
def _full_kernel(parent, first_child, box, eye, scale, near, block, state):
    nodes = len(parent)
    bound, visited, tested, blocks, found = 1, 0, 0, 0, 0
    ids = np.empty(1024, np.int32)
    start = 0
    while start < bound:
        end = min(start + block, nodes)
        blocks += 1
        visited += end - start
        for node in range(start, end):
            if node > 0 and state[parent[node]] != _ABOVE:
                state[node] = _BELOW
                continue
            first, last = first_child[node], first_child[node + 1]
            if last > first:
                tested += 1
                allowed, length, _ = _measure(box[node], eye, scale, near)
                if length >= allowed:
                    state[node] = _ABOVE
                    bound = last
                    continue
            state[node] = _CUT
            if found == len(ids):
                larger = np.empty(2 * found, np.int32)
                larger[:found] = ids
                ids = larger
            ids[found] = node
            found += 1
        start = end
    state[start:] = _BELOW
    return ids[:found].copy(), visited, tested, blocks


@njit(cache=True, nogil=True)
def _enter_kernel(subtree, roots, state, ids, live, held):
    """Which subtrees have nodes in the cut or above it, and how many in it."""
    held[:] = 0
    for i in range(len(ids)):
        held[subtree[ids[i]]] += 1
    for tree in range(len(roots)):
        live[tree] = state[roots[tree]] != _BELOW


@njit(cache=True, nogil=True)
def _pushed(stack, count, node):
    if count == len(stack):
        larger = np.empty(2 * count, np.int32)
        larger[:count] = stack
        stack = larger
    stack[count] = node
    return stack


@njit(cache=True, nogil=True)
def _step_kernel(parent, first_child, subtree, roots, box, eye, scale, near, safe_distance, most,
                 state, live, held, last_eye, safe):
    subtrees = len(roots)
    wanted = np.zeros(subtrees, np.uint8)
    added, removed = np.empty(1024, np.int32), np.empty(1024, np.int32)
    additions, removals, visited, tested, pieces = 0, 0, 0, 0, 0
    queue, below = np.empty(most, np.int32), np.empty(1024, np.int32)
    if safe_distance:
        for tree in range(subtrees):
            if live[tree]:
                x, y = eye[0] - last_eye[tree, 0], eye[1] - last_eye[tree, 1]
                z = eye[2] - last_eye[tree, 2]
                wanted[tree] = not sqrt(x * x + y * y + z * z) < safe[tree]
    else:
        # From the last, whose roots are the deepest: where the cut has gone above a root, the
        # subtree above is searched, and if it is not there either, the next.
        for tree in range(subtrees - 1, -1, -1):
            if live[tree] and (held[tree] > 0 or wanted[tree]):
                wanted[tree] = 1
                if tree > 0:
                    above = parent[roots[tree]]
                    visited += 1
                    tested += 1
                    allowed, length, _ = _measure(box[above], eye, scale, near)
                    if length < allowed:
                        wanted[subtree[above]] = 1
    for tree in range(subtrees):
        # A subtree may have come to be below the cut meanwhile.
        if not (wanted[tree] and live[tree]):
            continue
        pieces += 1
        margin = np.inf
        held[tree] = 0
        queue[0] = roots[tree]
        head, tail = 0, 1
        while head < tail:
            node = queue[head]
            head += 1
            visited += 1
            first, last = first_child[node], first_child[node + 1]
            before, now = state[node], _CUT
            if last > first:
                tested += 1
                allowed, length, distance = _measure(box[node], eye, scale, near)
                if length >= allowed:
                    now = _ABOVE
                # Where it is nearer than the near plane, a node as long as that is above the cut.
                if length >= near:
                    sure = abs(length - distance) - _ROUNDING * (
                        length + distance + abs(eye[0]) + abs(eye[1]) + abs(eye[2]))
                    margin = min(margin, sure)
            state[node] = now
            if now == _CUT:
                held[tree] += 1
                if before != _CUT:
                    added = _pushed(added, additions, node)
                    additions += 1
                if before != _ABOVE:
                    continue
                # What was below it is so no more.
                count = 0
                for child in range(first, last):
                    below = _pushed(below, count, child)
                    count += 1
                while count > 0:
                    count -= 1
                    lower = below[count]
                    visited += 1
                    if roots[subtree[lower]] == lower:
                        live[subtree[lower]] = 0
                        held[subtree[lower]] = 0
                    if state[lower] == _CUT:
                        removed = _pushed(removed, removals, lower)
                        removals += 1
                    elif state[lower] == _ABOVE:
                        for child in range(first_child[lower], first_child[lower + 1]):
                            below = _pushed(below, count, child)
                            count += 1
                    state[lower] = _BELOW
                continue
            if before == _CUT:
                removed = _pushed(removed, removals, node)
                removals += 1
            for child in range(first, last):
                if subtree[child] == tree:
                    queue[tail] = child
                    tail += 1
                elif before != _ABOVE:
                    live[subtree[child]] = 1
                    wanted[subtree[child]] = 1
        safe[tree] = margin
        last_eye[tree, 0], last_eye[tree, 1], last_eye[tree, 2] = eye[0], eye[1], eye[2]
    return added[:additions].copy(), removed[:removals].copy(), visited, tested, pieces


@njit(cache=True, nogil=True)
def _common_kernel(before, now):
    """How many of some ascending numbers are among others."""
    common, at = 0, 0
    for i in range(len(before)):
        while at < len(now) and now[at] < before[i]:
            at += 1
        common += at < len(now) and now[at] == before[i]
    return common


@njit(cache=True, nogil=True)
def _apply_kernel(ids, removed, added):
    """Ascending ids without some of them, and with others."""
    found = np.empty(len(ids) - len(removed) + len(added), np.int32)
    r, a, at = 0, 0, 0
    for i in range(len(ids)):
        node = ids[i]
        if r < len(removed) and removed[r] == node:
            r += 1
            continue
        while a < len(added) and added[a] < node:
            found[at] = added[a]
            at += 1
            a += 1
        found[at] = node
        at += 1
    while a < len(added):
        found[at] = added[a]
        at += 1
        a += 1
    return found

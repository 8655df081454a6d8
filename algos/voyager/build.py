"""Trees of cities that do not fit into memory: chunk after chunk, here or on a cluster.

The centres alone, 16 bytes a Gaussian, are split until a cell is a chunk; the Gaussians are then
put into a file in the order of chunks; a task builds the tree of each chunk, and what is above the
chunks is merged from their roots. The file does not depend on how large chunks are or on who builds
them.
"""

import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numba
import numpy as np
import numpy.typing as npt

from splatforge.algos.voyager.merge import SH_COLUMN, Moments, boxes, merge, rows_of
from splatforge.algos.voyager.partition import partition
from splatforge.algos.voyager.split import AXES, Cells, split
from splatforge.algos.voyager.tree import (
    ARRAYS,
    HEADER_BYTES,
    array_shapes,
    header,
    layout,
    nodes_of,
    points_of,
)
from splatforge.designs.lod import TreeDesign
from splatforge.scenes import Scene, SceneError, check_writable
from splatforge.scenes.atomic_file import atomic_file

__all__ = ["Chunk", "build", "build_chunk", "cluster"]

_POINT = np.dtype("<f4")
#: Seconds in which a scheduler must answer.
_ANSWER_S = 10
#: Bytes copied at once.
_COPY = 1 << 24
_NODES_LIMIT = 2**31 - 1
#: Largest coordinate of a Gaussian (:mod:`splatforge.scenes.scene`).
_FARTHEST = 1e12

Float32Array = npt.NDArray[np.float32]
Int64Array = npt.NDArray[np.int64]
Progress = Callable[[str, float, float], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Chunk:
    """What is known of a chunk once its tree is built; its nodes are in files of the folder.

    Parameters
    ----------
    number, level : int
        Which it is, and the level of its root in the tree.
    level_start : numpy.ndarray
        First node of each of its levels and their number, shape [levels + 1], int64.
    row, box : numpy.ndarray
        The Gaussian of its root, shape [11 + 3 K], and its box, shape [6], float32.
    root : Moments
        Moments of its root.
    """

    number: int
    level: int
    level_start: Int64Array
    row: Float32Array
    box: Float32Array
    root: Moments

    def path(self, folder: Path, name: str) -> Path:
        """File of an array."""
        return folder / f"{self.number}.{name}"


def build_chunk(folder: str, number: int, start: int, count: int, level: int, columns: int,
                design: TreeDesign) -> Chunk:
    """Build the tree of a chunk: the task that is done many times.

    Parameters
    ----------
    folder : str
        Where ``rows`` has the Gaussians of all chunks, and where the chunk's arrays go.
    number, level : int
        See :class:`Chunk`.
    start, count : int
        Its Gaussians in ``rows``.
    columns : int
        Numbers of a row.
    design : TreeDesign
        The tree's.

    Raises
    ------
    SceneError
        The folder is not there: a worker on another machine must share it.
    """
    try:
        rows = np.fromfile(Path(folder) / "rows", "<f4", count * columns,
                           offset=4 * columns * start).reshape(count, columns)
    except OSError as error:
        raise SceneError(
            f"{folder}: chunk cannot be read ({error.strerror or error}): workers must share the "
            "folder of the output") from error
    cells, rows, box, known = nodes_of(rows, design, level)
    made = Chunk(
        number=number, level=level, level_start=cells.level_start, row=rows[0].copy(),
        box=box[0].copy(), root=Moments(
            weight=known.weight[:1].copy(), mean=known.mean[:1].copy(),
            covariance=known.covariance[:1].copy()))
    for name, array in (("parent", cells.parent), ("first_child", cells.first_child[:-1]),
                        ("box", box), ("rows", rows)):
        array.astype(ARRAYS[name], copy=False).tofile(made.path(Path(folder), name))
    return made


@contextmanager
def cluster(address: str | None = None) -> Iterator[Executor]:
    """Who builds chunks: the Dask cluster whose scheduler has this address, or threads here.

    Workers of a cluster need this package, and the folder of the output under the same name.

    Raises
    ------
    ValueError
        ``distributed`` is not installed, or no scheduler answers.
    """
    if address is None:
        with ThreadPoolExecutor(numba.get_num_threads(), "splatforge") as pool:
            try:
                yield pool
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return
    try:
        from distributed import Client
    except ImportError:
        raise ValueError("--scheduler must come with Dask: pip install 'splatforge[dask]'"
                         ) from None
    try:
        client = Client(address, timeout=_ANSWER_S)
    except (OSError, ValueError) as error:
        raise ValueError(f"Scheduler must be a Dask scheduler that answers, such as "
                         f"tcp://host:8786, not {address!r}: {error}") from None
    with client:
        yield client.get_executor(pure=False)


def build(parts: Sequence[Callable[[], Scene]], output: str | os.PathLike[str],
          design: TreeDesign, *, tiles: tuple[int, int] = (1, 1),
          executor: Executor | None = None, progress: Progress | None = None) -> None:
    """Build the tree of a city and write it to a file, whole or not at all.

    Memory holds the largest part, a few chunks, and some 50 bytes a Gaussian; beside the output
    there is a folder that takes as much space again until it is done.

    Parameters
    ----------
    parts : sequence of callable
        Each returns a part of the city, whenever it is asked.
    output : path-like
        The file.
    design : TreeDesign
        The tree's.
    tiles : tuple of int
        Copies of the city side by side, along its two longer sides.
    executor : Executor, optional
        Who builds chunks; threads here by default. See :func:`cluster`.
    progress : callable, optional
        Called with a stage, what of it is done, and all of it.

    Raises
    ------
    SceneError
        A part cannot be read, has no Gaussians, another antialiased flag than the others, or is
        moved beyond 1e12; or the file cannot be written.
    """
    if executor is None:
        with cluster() as pool:
            return build(parts, output, design, tiles=tiles, executor=pool, progress=progress)
    target = Path(output)
    check_writable(target)
    tell = progress or (lambda stage, done, total: None)
    try:
        folder = Path(tempfile.mkdtemp(dir=target.absolute().parent, prefix=f".{target.name[:64]}.",
                                       suffix=".chunks"))
    except OSError as error:
        raise SceneError(f"{target}: cannot be written ({error.strerror or error}): check the "
                         "folder and its permissions") from error
    try:
        _build(parts, target, design, tiles, executor, tell, folder)
    except OSError as error:
        raise SceneError(f"{target}: cannot be written ({error.strerror or error}): check the "
                         "folder and the free space") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _build(parts: Sequence[Callable[[], Scene]], target: Path, design: TreeDesign,
           tiles: tuple[int, int], executor: Executor, tell: Progress, folder: Path) -> None:
    points, counts, moves, coefficients, antialiased = _read_points(parts, tiles, folder, tell)
    tell("splitting", 0, 1)
    top = split(points, design, leaf_points=design.chunk_gaussians)
    del points
    (folder / "points").unlink()
    ends = np.flatnonzero(np.diff(top.first_child) == 0)
    # From left to right, and in each as they came.
    ends = ends[np.argsort(top.start[ends])]
    for end in ends:
        top.order[top.start[end]:top.end[end]].sort()
    tell("splitting", 1, 1)
    columns = SH_COLUMN + 3 * coefficients
    _scatter(parts, counts, moves, top, columns, coefficients, folder, tell)
    levels = np.searchsorted(top.level_start, ends, side="right") - 1
    pending = [
        executor.submit(build_chunk, str(folder), number, int(top.start[end]),
                        int(top.end[end] - top.start[end]), int(level), columns, design)
        for number, (end, level) in enumerate(zip(ends, levels, strict=True))]
    try:
        for done, _ in enumerate(as_completed(pending), 1):
            tell("building", done, len(pending))
        chunks = [each.result() for each in pending]
    except BaseException:
        for each in pending:
            each.cancel()
        raise
    (folder / "rows").unlink()
    _assemble(target, design, antialiased, top, ends, chunks, columns, folder, tell)


def _read_points(parts: Sequence[Callable[[], Scene]], tiles: tuple[int, int], folder: Path,
                 tell: Progress) -> tuple[Float32Array, list[int], Float32Array, int, bool]:
    """Centres and sizes of all copies; Gaussians of each part; moves of the copies; SH, flag."""
    if not parts:
        raise SceneError("parts must be at least one scene, not none")
    counts, flags, coefficients = list[int](), set[bool](), 1
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    path = folder / "points"
    with path.open("wb") as file:
        for number, part in enumerate(parts):
            scene = part()
            if not scene.gaussians:
                raise SceneError(f"part {number} must have at least one Gaussian, not none")
            counts.append(scene.gaussians)
            flags.add(scene.antialiased)
            coefficients = max(coefficients, scene.sh.shape[1])
            rows = rows_of(scene)
            points_of(rows, boxes(rows)).astype(_POINT, copy=False).tofile(file)
            low = np.minimum(low, scene.bbox_min)
            high = np.maximum(high, scene.bbox_max)
            tell("reading", number + 1, 2 * len(parts))
        if len(flags) > 1:
            raise SceneError("antialiased must be the same in all parts, not mixed: build them "
                             "apart, or say --antialiased or --no-antialiased for all")
        size = high - low
        across, along = np.argsort(size)[:-3:-1]
        moves = np.zeros((tiles[0] * tiles[1], 3))
        moves[:, across] = np.repeat(np.arange(tiles[0]), tiles[1]) * size[across]
        moves[:, along] = np.tile(np.arange(tiles[1]), tiles[0]) * size[along]
        # The codecs and scenes take none beyond, and float32 would come to its end.
        reach = float((high + moves).max())
        if reach > _FARTHEST:
            raise SceneError(f"copies must lie within {_FARTHEST:g} of the origin, not reach "
                             f"{reach:g}: make fewer")
        moves = moves.astype(np.float32)
        total = sum(counts)
        # Interior nodes are fewer than leaves.
        if 2 * total * len(moves) > _NODES_LIMIT:
            raise SceneError(f"parts must have at most {_NODES_LIMIT // 2:,} Gaussians, not "
                             f"{total * len(moves):,}: build the city in districts")
        file.flush()
        with path.open("rb") as first:
            for move in moves[1:]:
                for start in range(0, total, 1 << 20):
                    many = AXES * min(1 << 20, total - start)
                    block = np.fromfile(first, _POINT, many, offset=0).reshape(-1, AXES)
                    block[:, :3] += move
                    block.tofile(file)
                first.seek(0)
    points = np.memmap(path, _POINT, "r+", shape=(total * len(moves), AXES)).view(np.ndarray)
    return points, counts, moves, coefficients, flags.pop()


def _scatter(parts: Sequence[Callable[[], Scene]], counts: Sequence[int], moves: Float32Array,
             top: Cells, columns: int, coefficients: int, folder: Path, tell: Progress) -> None:
    """Write all Gaussians in the order of chunks."""
    total = sum(counts)
    place = np.empty(len(top.order), np.int32)
    place[top.order] = np.arange(len(place), dtype=np.int32)
    first = 0
    with (folder / "rows").open("wb") as file:
        for number, part in enumerate(parts):
            rows = rows_of(part(), coefficients)
            if len(rows) != counts[number]:
                raise SceneError(f"part {number} must stay as it is while it is read")
            centres = rows[:, :3].copy()
            for copy, move in enumerate(moves):
                start = copy * total + first
                places = place[start:start + len(rows)]
                by = np.argsort(places)
                places = places[by]
                rows[:, :3] = centres + move
                breaks = np.flatnonzero(np.diff(places) != 1) + 1
                for run in np.split(np.arange(len(places)), breaks):
                    file.seek(4 * columns * int(places[run[0]]))
                    rows[by[run]].astype("<f4", copy=False).tofile(file)
            first += counts[number]
            tell("reading", len(parts) + number + 1, 2 * len(parts))


def _merged_top(top: Cells, ends: Int64Array, chunks: Sequence[Chunk], columns: int
                ) -> tuple[Float32Array, Float32Array]:
    """Rows and boxes of the nodes above the chunks, and of their roots."""
    nodes = len(top.parent)
    rows, box = np.empty((nodes, columns), np.float32), np.empty((nodes, 6), np.float32)
    known = Moments.allocate(nodes)
    for end, chunk in zip(ends, chunks, strict=True):
        rows[end], box[end] = chunk.row, chunk.box
        known.weight[end], known.mean[end] = chunk.root.weight[0], chunk.root.mean[0]
        known.covariance[end] = chunk.root.covariance[0]
    merge(top.first_child, rows, box, known)
    return rows, box


class _Runs:
    """Where the nodes of a level come from, from left to right: from the top, from chunks."""

    def __init__(self, top: Cells, ends: Int64Array, chunks: Sequence[Chunk]) -> None:
        inner = np.flatnonzero(np.diff(top.first_child) > 0)
        inner_level = np.searchsorted(top.level_start, inner, side="right") - 1
        deepest = max(chunk.level + len(chunk.level_start) - 1 for chunk in chunks)
        self.levels: list[list[tuple[int, int, Chunk | None]]] = [[] for _ in range(deepest)]
        for node, level in zip(inner, inner_level, strict=True):
            self.levels[level].append((int(top.start[node]), int(node), None))
        for end, chunk in zip(ends, chunks, strict=True):
            for depth in range(len(chunk.level_start) - 1):
                self.levels[chunk.level + depth].append((int(top.start[end]), int(end), chunk))
        #: Number of the first node of each run, by level and by the node of the top.
        self.first: list[dict[int, int]] = []
        self.level_start = [0]
        for level, runs in enumerate(self.levels):
            runs.sort(key=lambda run: run[0])
            firsts, nodes = dict[int, int](), self.level_start[-1]
            for _, node, chunk in runs:
                firsts[node] = nodes
                nodes += 1 if chunk is None else self.count(chunk, level)
            self.first.append(firsts)
            self.level_start.append(nodes)

    @staticmethod
    def count(chunk: Chunk, level: int) -> int:
        depth = level - chunk.level
        return int(chunk.level_start[depth + 1] - chunk.level_start[depth])


def _assemble(target: Path, design: TreeDesign, antialiased: bool, top: Cells, ends: Int64Array,
              chunks: Sequence[Chunk], columns: int, folder: Path, tell: Progress) -> None:
    runs = _Runs(top, ends, chunks)
    nodes = runs.level_start[-1]
    top_rows, top_box = _merged_top(top, ends, chunks, columns)
    parent, first_child = _links(runs, top, folder)
    subtree, roots = partition(first_child, design.subtree_nodes)
    shapes = array_shapes(nodes, len(runs.levels), len(roots), columns)
    offsets, crcs = layout(shapes), dict[str, int]()
    small: dict[str, Any] = {
        "level_start": np.array(runs.level_start, np.int64), "parent": parent,
        "first_child": first_child, "subtree": subtree, "roots": roots}
    done, total = 0, nodes * (6 + columns)
    with atomic_file(target) as file:
        file.write(bytes(HEADER_BYTES))
        for name, array in small.items():
            file.seek(offsets[name])
            crcs[name] = _write(file, array.astype(ARRAYS[name], copy=False), 0)
        del small, parent, first_child, subtree
        for name, above in (("box", top_box), ("rows", top_rows)):
            file.seek(offsets[name])
            width, check = above.itemsize * above.shape[1], 0
            for level, items in enumerate(runs.levels):
                for _, node, chunk in items:
                    if chunk is None:
                        check = _write(file, above[node].astype(ARRAYS[name], copy=False), check)
                        continue
                    first = int(chunk.level_start[level - chunk.level])
                    check = _copy(chunk.path(folder, name), file, width * first,
                                  width * runs.count(chunk, level), check)
                    done += above.shape[1] * runs.count(chunk, level)
                    tell("writing", done, total)
            crcs[name] = check
        file.seek(0)
        file.write(header(shapes, crcs, antialiased, design))


def _links(runs: _Runs, top: Cells, folder: Path
           ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Parents and first children of all nodes."""
    nodes = runs.level_start[-1]
    parent, first_child = np.empty(nodes, np.int32), np.empty(nodes + 1, np.int32)
    first_child[nodes] = nodes
    for level, items in enumerate(runs.levels):
        for _, node, chunk in items:
            here = runs.first[level][node]
            above = int(top.parent[node])
            if chunk is None:
                parent[here] = runs.first[level - 1][above] if level else -1
                first_child[here] = runs.first[level + 1][int(top.first_child[node])]
                continue
            depth = level - chunk.level
            start, count = int(chunk.level_start[depth]), runs.count(chunk, level)
            last = depth + 2 == len(chunk.level_start)
            found = {
                name: np.fromfile(chunk.path(folder, name), "<i4", count, offset=4 * start)
                for name in ("parent", "first_child")}
            if depth:
                move = runs.first[level - 1][node] - int(chunk.level_start[depth - 1])
                parent[here:here + count] = found["parent"] + move
            else:
                parent[here] = runs.first[level - 1][above] if level else -1
            if last:
                # None has children: where those of the next would be, filled in below.
                first_child[here:here + count] = -1
            else:
                move = runs.first[level + 1][node] - int(chunk.level_start[depth + 1])
                first_child[here:here + count] = found["first_child"] + move
    # Leaves of a chunk that ends here point to where the children of the next node begin.
    for start in range(nodes - 1, -1, -(1 << 22)):
        begin = max(0, start + 1 - (1 << 22))
        block = first_child[begin:start + 2]
        block[:] = _next_known(block)
    return parent, first_child


def _next_known(values: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Replace each -1 by the value that follows; the last is known."""
    index = np.where(values >= 0, np.arange(len(values)), len(values) - 1)
    return values[np.minimum.accumulate(index[::-1])[::-1]]


def _write(file: BinaryIO, array: npt.NDArray[Any], before: int) -> int:
    """Write an array; returns the checksum, continued."""
    flat = np.ascontiguousarray(array).reshape(-1)
    for start in range(0, len(flat), _COPY):
        part = flat[start:start + _COPY].tobytes()
        file.write(part)
        before = zlib.crc32(part, before)
    return before


def _copy(source: Path, file: BinaryIO, offset: int, count: int, before: int) -> int:
    """Copy bytes of a file; returns the checksum, continued."""
    with source.open("rb") as stream:
        stream.seek(offset)
        while count:
            part = stream.read(min(count, _COPY))
            if not part:
                raise SceneError(f"{source}: chunk is cut short: check the free space")
            file.write(part)
            before = zlib.crc32(part, before)
            count -= len(part)
    return before


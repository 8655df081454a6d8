"""A level-of-detail tree: one Gaussian a node, numbered breadth-first; and the file it is kept in.

The file is mapped into memory, so that a tree may be larger than that: a header, then the arrays,
each on a page of its own. The header holds version, sizes and the checksum of every array.
"""

import json
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from splatforge.algos.voyager.merge import (
    SH_COLUMN,
    Moments,
    boxes,
    merge,
    moments,
    rows_of,
    scene_of,
)
from splatforge.algos.voyager.partition import partition
from splatforge.algos.voyager.split import AXES, Cells, split
from splatforge.designs.lod import TreeDesign
from splatforge.scenes import Scene, SceneError, check_regular_file
from splatforge.scenes.scene import SH_COEFFICIENTS

__all__ = ["ARRAYS", "HEADER_BYTES", "VERSION", "LodTree", "array_shapes", "grow", "header",
           "layout", "nodes_of", "points_of"]

_MAGIC = b"SPLATLOD"
#: Version of the file.
VERSION = 1
#: Bytes of the header, of which the arrays' pages are multiples.
HEADER_BYTES = 4096
_PAGE = 4096
_HEAD = struct.Struct("<8sIII")
#: Arrays of the file in their order: their types.
ARRAYS: Mapping[str, str] = {
    "level_start": "<i8", "parent": "<i4", "first_child": "<i4", "subtree": "<i4", "roots": "<i4",
    "box": "<f4", "rows": "<f4"}
# A search follows indices and believes boxes: damage is found when a file is opened, in arrays of
# up to this size; of a large city's the rest is for `lod info`.
_CHECKED_BYTES = 1 << 26

Float32Array = npt.NDArray[np.float32]
Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class LodTree:
    """A tree of Gaussians, each standing for those below it.

    Nodes are numbered breadth-first, from left to right: the children of a node lie side by side,
    behind those of the nodes before it, and a cut is an ascending array of numbers.

    Parameters
    ----------
    level_start : numpy.ndarray
        First node of each level, and how many nodes there are, shape [levels + 1], int64.
    parent : numpy.ndarray
        Shape [nodes], int32; -1 at the root.
    first_child : numpy.ndarray
        Children of node i are ``first_child[i]`` to ``first_child[i + 1]``, none at a leaf; shape
        [nodes + 1], int32.
    subtree, roots : numpy.ndarray
        Subtree of each node, shape [nodes], and the first node of each, shape [subtrees], int32:
        see :func:`splatforge.algos.voyager.partition.partition`.
    box : numpy.ndarray
        Lower and upper corner of the box that holds the leaves below a node to three standard
        deviations, shape [nodes, 6], float32: a parent's holds its children's, so that it is
        nowhere nearer to the eye than they are, and nowhere smaller.
    rows : numpy.ndarray
        Gaussians, see :func:`splatforge.algos.voyager.merge.rows_of`, shape [nodes, 11 + 3 K],
        float32; the leaves are those of the scene.
    antialiased : bool
        Flag of the scene.
    design : TreeDesign
        What it was built with.
    """

    level_start: Int64Array
    parent: Int32Array
    first_child: Int32Array
    subtree: Int32Array
    roots: Int32Array
    box: Float32Array
    rows: Float32Array
    antialiased: bool
    design: TreeDesign

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return len(self.parent)

    @property
    def levels(self) -> int:
        """Number of levels, the root's included."""
        return len(self.level_start) - 1

    @property
    def leaves(self) -> int:
        """Number of leaves: Gaussians of the scene."""
        return int(sum(np.count_nonzero(np.diff(self.first_child[start:start + (1 << 22) + 1]) == 0)
                       for start in range(0, self.nodes, 1 << 22)))

    @property
    def sh_degree(self) -> int:
        """Degree of the spherical harmonics, 0 to 3."""
        return SH_COEFFICIENTS.index((self.rows.shape[1] - SH_COLUMN) // 3)

    def overview(self, most: int) -> Int32Array:
        """The cut at the deepest level that has no more than ``most`` nodes, or the root."""
        ids = np.zeros(1, np.int32)
        for level in range(1, self.levels):
            first, end = (int(each) for each in self.level_start[level:level + 2])
            shallow = ids[self.first_child[ids] == self.first_child[ids + 1]]
            if len(shallow) + end - first > most:
                break
            ids = np.concatenate([shallow, np.arange(first, end, dtype=np.int32)])
        return ids

    def scene(self, ids: npt.ArrayLike) -> Scene:
        """The scene that nodes make, a cut's for one, in their order."""
        return scene_of(self.rows[np.asarray(ids)], self.antialiased)

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, verify: bool = False,
             progress: Callable[[float, float], None] | None = None) -> "LodTree":
        """Map a file that :func:`splatforge.algos.voyager.build.build` wrote.

        Parameters
        ----------
        path : path-like
            The file.
        verify : bool
            Whether to read all of it and compare the checksums. Without, that is done with arrays
            that have at most 64 MB.
        progress : callable, optional
            Called with the bytes verified so far and in all.

        Raises
        ------
        SceneError
            The file is missing, of another kind or version, cut short or damaged.
        """
        file = Path(path)
        check_regular_file(file, "level-of-detail tree")
        try:
            record = _read_header(file)
            names = [name for name in ARRAYS if verify or _bytes(
                name, record["arrays"][name]["shape"]) <= _CHECKED_BYTES]
            _verify(file, record["arrays"], names, progress if verify else None)
            arrays = {
                name: np.memmap(file, kind, "c", record["arrays"][name]["offset"],
                                tuple(record["arrays"][name]["shape"])).view(np.ndarray)
                for name, kind in ARRAYS.items()}
        except OSError as error:
            raise SceneError(f"{file}: file cannot be read ({error.strerror or error}): check it "
                             "and its permissions") from error
        return cls(**arrays, antialiased=record["antialiased"],
                   design=record["design"])


def points_of(rows: Float32Array, box: Float32Array) -> Float32Array:
    """What cells are split by: centres, and the longest edge of the box, shape [gaussians, 4]."""
    points = np.empty((len(rows), AXES), np.float32)
    points[:, :3] = rows[:, :3]
    points[:, 3] = (box[:, 3:] - box[:, :3]).max(axis=1)
    return points


def nodes_of(rows: Float32Array, design: TreeDesign, level: int = 0
             ) -> tuple[Cells, Float32Array, Float32Array, Moments]:
    """Build the tree of Gaussians: its cells; rows, boxes and moments of its nodes.

    Parameters
    ----------
    rows : numpy.ndarray
        Gaussians, shape [gaussians, 11 + 3 K], float32, at least one.
    design : TreeDesign
        The tree's.
    level : int
        Level of the root, if this is part of a tree.
    """
    box = boxes(rows)
    cells = split(points_of(rows, box), design, level=level)
    single = moments(rows)
    leaves = np.flatnonzero(np.diff(cells.first_child) == 0)
    gaussians = cells.order[cells.start[leaves]]
    # Of the nodes above, all is written by the merge.
    nodes = len(cells.parent)
    all_rows = np.empty((nodes, rows.shape[1]), np.float32)
    all_box, known = np.empty((nodes, 6), np.float32), Moments.allocate(nodes)
    all_rows[leaves], all_box[leaves] = rows[gaussians], box[gaussians]
    known.weight[leaves] = single.weight[gaussians]
    known.mean[leaves] = single.mean[gaussians]
    known.covariance[leaves] = single.covariance[gaussians]
    merge(cells.first_child, all_rows, all_box, known)
    return cells, all_rows, all_box, known


def grow(scene: Scene, design: TreeDesign) -> LodTree:
    """Build the tree of a scene in memory."""
    cells, rows, box, _ = nodes_of(rows_of(scene), design)
    subtree, roots = partition(cells.first_child, design.subtree_nodes)
    return LodTree(
        level_start=cells.level_start, parent=cells.parent, first_child=cells.first_child,
        subtree=subtree, roots=roots, box=box, rows=rows, antialiased=scene.antialiased,
        design=design)


def array_shapes(nodes: int, levels: int, subtrees: int, columns: int) -> dict[str, list[int]]:
    """Shapes of the arrays of a file."""
    return {"level_start": [levels + 1], "parent": [nodes], "first_child": [nodes + 1],
            "subtree": [nodes], "roots": [subtrees], "box": [nodes, 6], "rows": [nodes, columns]}


def _bytes(name: str, shape: Iterable[int]) -> int:
    return prod(shape) * np.dtype(ARRAYS[name]).itemsize


def layout(shapes: Mapping[str, list[int]]) -> dict[str, int]:
    """First byte of every array in the file."""
    offsets, offset = {}, HEADER_BYTES
    for name in ARRAYS:
        offsets[name] = offset
        offset += -(-_bytes(name, shapes[name]) // _PAGE) * _PAGE
    return offsets


def header(shapes: Mapping[str, list[int]], crcs: Mapping[str, int], antialiased: bool,
           design: TreeDesign) -> bytes:
    """The header of a file whose arrays have these shapes and checksums."""
    offsets = layout(shapes)
    text = json.dumps({
        "antialiased": antialiased, "design": asdict(design),
        "arrays": {name: {"shape": shapes[name], "offset": offsets[name], "crc32": crcs[name]}
                   for name in ARRAYS}}).encode()
    head = _HEAD.pack(_MAGIC, VERSION, len(text), zlib.crc32(text))
    return (head + text).ljust(HEADER_BYTES, b"\0")


def _crc(file: BinaryIO, offset: int, count: int, before: int = 0) -> int:
    """Checksum of bytes of a file."""
    file.seek(offset)
    while count:
        part = file.read(min(count, 1 << 24))
        if not part:
            break
        before = zlib.crc32(part, before)
        count -= len(part)
    return before


def _read_header(file: Path) -> dict[str, Any]:
    """The header, checked as far as it can be without the arrays."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        head = stream.read(HEADER_BYTES)
    if not head.startswith(_MAGIC):
        raise SceneError(f"{file}: magic must be {_MAGIC!r}, not {head[:8]!r}: build it with "
                         "`splatforge lod build`")
    if len(head) < HEADER_BYTES:
        raise SceneError(f"{file}: size must be at least {HEADER_BYTES} bytes, not {size}: the "
                         "file is cut short, copy or build it again")
    _, version, length, checksum = _HEAD.unpack_from(head)
    if version != VERSION:
        raise SceneError(f"{file}: version must be {VERSION}, not {version}: build it again")
    text = head[_HEAD.size:_HEAD.size + length]
    if len(text) != length or zlib.crc32(text) != checksum:
        raise SceneError(f"{file}: header does not have its checksum: the file is damaged, copy "
                         "or build it again")
    try:
        record = json.loads(text)
        _checked_arrays(record)
        known = {field.name for field in fields(TreeDesign)}
        record["design"] = TreeDesign(**{
            name: value for name, value in record["design"].items() if name in known})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise SceneError(f"{file}: header must be one that `splatforge lod build` writes "
                         f"({type(error).__name__}: {error}): build it again") from None
    last = record["arrays"]["rows"]
    wanted = last["offset"] + _bytes("rows", last["shape"])
    if size < wanted:
        raise SceneError(f"{file}: size must be {wanted:,} bytes, not {size:,}: the file is cut "
                         "short, copy or build it again")
    return record


def _checked_arrays(record: Any) -> None:
    """Raise unless a header is as :func:`header` makes it; the program's arrays follow from it."""
    arrays = record["arrays"]
    shapes = {name: arrays[name]["shape"] for name in ARRAYS}
    (nodes, columns), (levels,), (subtrees,) = (
        shapes[name] for name in ("rows", "level_start", "roots"))
    for number in (nodes, columns, levels, subtrees):
        if not isinstance(number, int) or isinstance(number, bool):
            raise TypeError(f"numbers must be whole, not {number!r}")
    if not (1 <= subtrees <= nodes < 1 << 31 and 2 <= levels <= nodes + 1
            and columns in {SH_COLUMN + 3 * each for each in SH_COEFFICIENTS}):
        raise ValueError(f"{nodes} nodes of {columns} columns in {levels - 1} levels and "
                         f"{subtrees} subtrees make no tree")
    wanted = array_shapes(nodes, levels - 1, subtrees, columns)
    if shapes != wanted:
        raise ValueError(f"shapes must be {wanted}, not {shapes}")
    offsets = {name: arrays[name]["offset"] for name in ARRAYS}
    if offsets != layout(shapes):
        raise ValueError(f"offsets must be {layout(shapes)}, not {offsets}")
    if not isinstance(record["antialiased"], bool):
        raise TypeError(f"antialiased must be true or false, not {record['antialiased']!r}")


def _verify(file: Path, arrays: Mapping[str, Any], names: list[str],
            progress: Callable[[float, float], None] | None) -> None:
    total = sum(_bytes(name, arrays[name]["shape"]) for name in names)
    done = 0
    with file.open("rb") as stream:
        for name in names:
            array = arrays[name]
            end = array["offset"] + _bytes(name, array["shape"])
            found = 0
            for start in range(array["offset"], end, 1 << 28):
                count = min(1 << 28, end - start)
                found = _crc(stream, start, count, found)
                done += count
                if progress is not None:
                    progress(done, total)
            if found != array.get("crc32"):
                raise SceneError(f"{file}: {name} does not have its checksum: the file is damaged, "
                                 "copy or build it again")


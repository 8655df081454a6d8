"""The INRIA PLY: one ``vertex`` element with a float property per trained parameter.

``x y z``, ``f_dc_0..2``, ``f_rest_*`` (channel-major: all red coefficients, then green, then
blue), ``opacity`` (logit), ``scale_0..2`` (logarithms), ``rot_0..3`` (w, x, y, z). Normals and
other properties are ignored. Layout of the reference implementation of Kerbl et al., "3D Gaussian
Splatting for Real-Time Radiance Field Rendering", ACM TOG 42(4), 2023.

The header is read here, bounded, and checked against the size of the file before plyfile, which
trusts declared counts, maps or parses the data.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import plyfile

from splatforge.scenes.atomic_file import atomic_file
from splatforge.scenes.quaternions import replace_zero_quats
from splatforge.scenes.scene import SH_COEFFICIENTS, Scene, SceneError
from splatforge.scenes.slots import FLAT_LOG_SCALE, OPAQUE_LOGIT, Slots, check_gaussians

_HEADER_LIMIT = 1 << 16
_TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}
_FORMATS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_REQUIRED = (
    ("x", "y", "z"),
    ("f_dc_0", "f_dc_1", "f_dc_2"),
    ("opacity",),
    ("scale_0", "scale_1", "scale_2"),
    ("rot_0", "rot_1", "rot_2", "rot_3"),
)
# The comment with which the Brush trainer marks scenes trained with the mip filter.
_MIP_COMMENT = "SplatRenderMode: mip"
_CHUNK = 1 << 14


@dataclass(frozen=True, kw_only=True)
class PlyElement:
    """An element of a PLY header: its name, count and property types in numpy's notation."""

    name: str
    count: int
    types: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class PlyHeader:
    """A PLY header that agrees with the size of its file."""

    elements: tuple[PlyElement, ...]
    comments: tuple[str, ...]

    def element(self, name: str) -> PlyElement | None:
        """Return the element of that name, or None."""
        return next((element for element in self.elements if element.name == name), None)


def read_ply_header(path: Path) -> PlyHeader:
    """Return the header of a PLY file, checked against the size of the file.

    Raises
    ------
    SceneError
        The header is not one, is longer than 64 KiB, has a list property, or declares more than
        the file can hold.
    """
    with path.open("rb") as file:
        head = file.read(_HEADER_LIMIT)
    if not head.startswith((b"ply\n", b"ply\r")):
        raise SceneError(f"{path}: magic must be 'ply', not {head[:4]!r}: this is not a PLY file")
    end = head.find(b"end_header")
    if end < 0:
        raise SceneError(
            f"{path}: end_header must come within the first {_HEADER_LIMIT} bytes: "
            "the header is truncated or damaged"
        )
    byte_order: str | None = None
    elements: list[PlyElement] = []
    comments: list[str] = []
    for line in head[:end].decode("latin-1").split("\n")[1:]:
        words = line.split()
        match words:
            case []:
                continue
            case ["comment" | "obj_info", *_]:
                comments.append(line.strip().partition(" ")[2])
            case ["format", name, _] if name in _FORMATS:
                byte_order = _FORMATS[name]
            case ["element", name, count] if count.isdecimal() and len(count) < 20:
                elements.append(PlyElement(name=name, count=int(count), types={}))
            case ["property", "list", *_]:
                raise SceneError(
                    f"{path}: {line.strip()[:60]!r} is a list property: "
                    "this is a mesh, not a trained Gaussian scene"
                )
            case ["property", kind, name] if (
                kind in _TYPES and elements and name not in elements[-1].types
            ):
                elements[-1].types[name] = _TYPES[kind]
            case _:
                raise SceneError(
                    f"{path}: header line {line.strip()[:60]!r} is not understood: "
                    "the header is damaged"
                )
    if byte_order is None:
        raise SceneError(f"{path}: format is missing in the header: the header is damaged")
    _check_size(path, elements, byte_order, head, end)
    return PlyHeader(elements=tuple(elements), comments=tuple(comments))


def _check_size(
    path: Path, elements: list[PlyElement], byte_order: str, head: bytes, end: int
) -> None:
    newline = head.find(b"\n", end)
    if newline < 0:
        raise SceneError(f"{path}: end_header is not followed by data: the file is truncated")
    available = path.stat().st_size - newline - 1
    needed = 0
    for element in elements:
        if byte_order:
            row = sum(np.dtype(kind).itemsize for kind in element.types.values())
        else:
            row = 2 * len(element.types)  # a digit and a separator for each value at least
        needed += element.count * row
    if needed > available + (byte_order == ""):
        declared = ", ".join(f"{element.name} {element.count}" for element in elements)
        raise SceneError(
            f"{path}: element counts ({declared[:120]}) need {needed} bytes of data, "
            f"but the file has {available}: the file is truncated or the header is damaged"
        )


def read_ply_elements(path: Path) -> dict[str, npt.NDArray[np.void]]:
    """Return the elements of a PLY file whose header has been checked, binary ones mapped."""
    try:
        with warnings.catch_warnings():
            # plyfile parses text with numpy, which warns of some malformed numbers.
            warnings.simplefilter("error")
            data = plyfile.PlyData.read(str(path), mmap="r")
    except (plyfile.PlyParseError, ValueError, IndexError, TypeError, Warning) as error:
        raise SceneError(
            f"{path}: data does not fit the header ({str(error)[:200]}): the file is damaged"
        ) from error
    return {element.name: element.data for element in data.elements}


class PlySource:
    """An INRIA PLY file; see :class:`splatforge.scenes.slots.Source`."""

    format = "ply"

    def __init__(self, path: Path, header: PlyHeader) -> None:
        self.path = path
        vertex = header.element("vertex")
        if vertex is None:
            raise SceneError(f"{path}: element vertex is missing: this is not a Gaussian scene")
        missing = [name for names in _REQUIRED for name in names if name not in vertex.types]
        if missing:
            raise SceneError(
                f"{path}: vertex property {missing[0]!r} is missing: "
                "this is a point cloud or a mesh, not a trained Gaussian scene"
            )
        check_gaussians(path, "element vertex", vertex.count)
        rest = [name for name in vertex.types if name.startswith("f_rest_")]
        coefficients = len(rest) // 3 + 1
        if (
            coefficients not in SH_COEFFICIENTS
            or len(rest) % 3
            or set(rest) != {f"f_rest_{i}" for i in range(len(rest))}
        ):
            raise SceneError(
                f"{path}: f_rest properties must be 0, 9, 24 or 45, numbered from 0, "
                f"not {len(rest)}: convert the scene to SH degree 3 or less"
            )
        self.gaussians = vertex.count
        self.sh_degree = SH_COEFFICIENTS.index(coefficients)
        self.antialiased = _MIP_COMMENT in header.comments
        self._names = [*(name for names in _REQUIRED for name in names)] + [
            f"f_rest_{i}" for i in range(len(rest))
        ]

    def read(self, slots: Slots) -> None:
        """Decode every Gaussian into ``slots``."""
        vertex = read_ply_elements(self.path)["vertex"]
        fields = vertex.dtype.fields
        assert fields is not None
        kinds = {fields[name][0].str for name in fields}
        native = np.dtype(np.float32).str
        order = {name: i for i, name in enumerate(fields)}
        columns = [order[name] for name in self._names]
        k = SH_COEFFICIENTS[self.sh_degree] - 1
        # Records are gathered a cache-sized chunk at a time: column by column over the whole file
        # would read every cache line of it sixty times.
        for start in range(0, self.gaussians, _CHUNK):
            chunk = vertex[start : start + _CHUNK]
            stop = start + len(chunk)
            if kinds == {native}:
                flat = np.ascontiguousarray(chunk).view(np.float32).reshape(len(chunk), -1)
                rows = flat[:, columns]
            else:
                rows = np.empty((len(chunk), len(columns)), np.float32)
                with np.errstate(over="ignore"):
                    for i, name in enumerate(self._names):
                        rows[:, i] = chunk[name]
            slots.means[start:stop] = rows[:, 0:3]
            slots.sh[start:stop, 0] = rows[:, 3:6]
            slots.opacity_logits[start:stop] = rows[:, 6]
            slots.log_scales[start:stop] = rows[:, 7:10]
            slots.quats[start:stop] = rows[:, 10:14]
            slots.sh[start:stop, 1 : k + 1] = rows[:, 14:].reshape(len(chunk), 3, k).swapaxes(1, 2)
        replace_zero_quats(slots.quats)
        # Exporters that go through 8-bit opacities or linear scales write the infinite logits of
        # exactly 0 and 1, and the infinite logarithm of a flat Gaussian; NaN stays an error.
        np.copyto(slots.opacity_logits, OPAQUE_LOGIT, where=np.isposinf(slots.opacity_logits))
        np.copyto(slots.opacity_logits, -OPAQUE_LOGIT, where=np.isneginf(slots.opacity_logits))
        np.copyto(slots.log_scales, FLAT_LOG_SCALE, where=np.isneginf(slots.log_scales))


def write_ply(scene: Scene, path: Path) -> None:
    """Write ``scene`` as a binary little-endian INRIA PLY; float32 values are kept exactly."""
    k = scene.sh.shape[1] - 1
    names = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
    names += [f"f_rest_{i}" for i in range(3 * k)]
    names += ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    lines = ["ply", "format binary_little_endian 1.0"]
    if scene.antialiased:
        lines.append(f"comment {_MIP_COMMENT}")
    lines.append(f"element vertex {scene.gaussians}")
    lines += [f"property float {name}" for name in names]
    lines.append("end_header\n")
    with atomic_file(path) as file:
        file.write("\n".join(lines).encode("ascii"))
        for start in range(0, scene.gaussians, _CHUNK):
            part = slice(start, start + _CHUNK)
            means = scene.means[part]
            rows = np.concatenate(
                [
                    means,
                    np.zeros_like(means),
                    scene.sh[part, 0],
                    scene.sh[part, 1:].swapaxes(1, 2).reshape(len(means), 3 * k),
                    scene.opacity_logits[part, None],
                    scene.log_scales[part],
                    scene.quats[part],
                ],
                axis=1,
            )
            file.write(rows.astype("<f4").tobytes())

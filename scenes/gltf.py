"""glTF and GLB with the extension KHR_gaussian_splatting.

A point primitive with ``POSITION`` and the attributes ``KHR_gaussian_splatting:ROTATION`` (x, y,
z, w), ``:SCALE`` (linear), ``:OPACITY`` (0 to 1) and ``:SH_DEGREE_l_COEF_n``. Early drafts of the
extension stored logarithms of the scales; as no linear scale is negative, a negative one tells
such a file. The compressed variant KHR_gaussian_splatting_compression_spz has a .spz file in a
buffer view instead. Source: the extension's README in github.com/KhronosGroup/glTF.

Coordinates are those of the file with the transforms of its nodes: +y is up by the rules of glTF.
splat-transform turns a scene by 180 degrees about z when it writes one, from the -y up of INRIA
PLY files, and the fox of the two formats differs by that turn.
"""

import base64
import binascii
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

from splatforge.scenes.json_fields import Fields, parse_json
from splatforge.scenes.quaternions import replace_zero_quats
from splatforge.scenes.regular_file import check_regular_file
from splatforge.scenes.scene import SH_COEFFICIENTS, Scene, SceneError
from splatforge.scenes.slots import FLAT_LOG_SCALE, Slots, check_gaussians, opacity_logits
from splatforge.scenes.spz import SpzSource
from splatforge.scenes.transform import transform

Float64Array = npt.NDArray[np.float64]

_EXTENSION = "KHR_gaussian_splatting"
_SPZ_EXTENSIONS = (
    "KHR_gaussian_splatting_compression_spz",
    "KHR_gaussian_splatting_compression_spz_2",
)
# A JSON text takes up to thirty times its size in memory; that of a capture has a few kilobytes.
_JSON_LIMIT = 1 << 23
_NODE_LIMIT = 4096
# Nodes may show one mesh many times; beyond this many Gaussians a file has a byte for each.
_FREE_GAUSSIANS = 1 << 18
# Component type -> numpy type and the divisor of its normalised form.
_COMPONENTS = {
    5120: ("i1", 127),
    5121: ("u1", 255),
    5122: ("<i2", 32767),
    5123: ("<u2", 65535),
    5126: ("<f4", None),
}
_WIDTHS = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}


class GltfSource:
    """A glTF or GLB file; see :class:`splatforge.scenes.slots.Source`."""

    format = "gltf"

    def __init__(self, path: Path) -> None:
        self.path = path
        text, self._binary = self._split()
        self._json = Fields(path, parse_json(path, text, "JSON chunk"))
        self._parts = [
            _Part(self, primitive, transform_of) for primitive, transform_of in self._primitives()
        ]
        if not self._parts:
            raise SceneError(
                f"{path}: meshes must have a primitive with the extension {_EXTENSION}: "
                "this is an ordinary glTF file, not a Gaussian scene"
            )
        self.gaussians = sum(part.gaussians for part in self._parts)
        check_gaussians(path, "accessor count", self.gaussians)
        if self.gaussians > max(path.stat().st_size, _FREE_GAUSSIANS):
            raise SceneError(
                f"{path}: accessor counts must fit the file, not {self.gaussians} Gaussians over "
                "all nodes: the file is damaged or hostile"
            )
        self.sh_degree = max(part.sh_degree for part in self._parts)
        flags = {part.antialiased for part in self._parts}
        if len(flags) > 1:
            raise SceneError(
                f"{path}: antialiased must be the same in all primitives: split the file"
            )
        self.antialiased = flags.pop()

    def read(self, slots: Slots) -> None:
        """Decode every Gaussian into ``slots``."""
        start = 0
        for part in self._parts:
            part.read(slots.part(start, start + part.gaussians))
            start += part.gaussians

    def _split(self) -> tuple[bytes, memoryview | None]:
        """Return the JSON text and, of a GLB, the binary chunk."""
        size = self.path.stat().st_size
        with self.path.open("rb") as file:
            head = file.read(20)
            if head[:4] != b"glTF":
                if size > _JSON_LIMIT:
                    raise SceneError(
                        f"{self.path}: JSON must be at most {_JSON_LIMIT} bytes, not {size}: "
                        "use a GLB"
                    )
                return head + file.read(), None
            if len(head) < 20:
                raise SceneError(
                    f"{self.path}: GLB header must be 20 bytes, not {len(head)}: truncated"
                )
            version, total, length, kind = struct.unpack("<II I4s", head[4:])
            if version != 2:
                raise SceneError(f"{self.path}: GLB version must be 2, not {version}: convert it")
            if total > size:
                raise SceneError(
                    f"{self.path}: GLB length must be at most the {size} bytes of the file, "
                    f"not {total}: the file is truncated"
                )
            if kind != b"JSON" or length > min(_JSON_LIMIT, total - 20):
                raise SceneError(
                    f"{self.path}: first GLB chunk must be JSON within the file, not {kind!r} of "
                    f"{length} bytes: the file is damaged"
                )
            text = file.read(length)
            chunk = file.read(8)
            if len(chunk) < 8:
                return text, None
            length, kind = struct.unpack("<I4s", chunk)
            if kind != b"BIN\0" or length > size - file.tell():
                raise SceneError(
                    f"{self.path}: second GLB chunk must be BIN within the file, not {kind!r} of "
                    f"{length} bytes: the file is truncated or damaged"
                )
            return text, memoryview(file.read(length))

    def _primitives(self) -> list[tuple[Fields, Float64Array]]:
        """Return the Gaussian primitives with the transform from each to the world."""
        meshes = [
            [
                primitive
                for primitive in mesh.objects("primitives")
                if "extensions" in primitive and _EXTENSION in primitive.object("extensions")
            ]
            for mesh in (self._json.objects("meshes") if "meshes" in self._json else [])
        ]
        if "nodes" not in self._json:
            return [(primitive, np.eye(4)) for mesh in meshes for primitive in mesh]
        nodes = self._json.objects("nodes")
        children = [
            self._indices(node, "children", len(nodes)) if "children" in node else []
            for node in nodes
        ]
        roots = self._roots(nodes, children)
        found: list[tuple[Fields, Float64Array]] = []
        pending = [(root, np.eye(4)) for root in reversed(roots)]
        seen = 0
        while pending:
            index, parent = pending.pop()
            seen += 1
            if seen > _NODE_LIMIT:
                raise SceneError(
                    f"{self.path}: nodes must be a tree of at most {_NODE_LIMIT} nodes: "
                    "the file is damaged or hostile"
                )
            node = nodes[index]
            matrix = parent @ _node_matrix(node)
            if "mesh" in node:
                mesh = meshes[node.integer("mesh", 0, len(meshes) - 1)] if meshes else []
                found += [(primitive, matrix) for primitive in mesh]
            pending += [(child, matrix) for child in reversed(children[index])]
        return found

    def _roots(self, nodes: list[Fields], children: list[list[int]]) -> list[int]:
        if "scenes" in self._json:
            scenes = self._json.objects("scenes")
            index = 0
            if "scene" in self._json:
                index = self._json.integer("scene", 0, len(scenes) - 1)
            if index < len(scenes) and "nodes" in scenes[index]:
                return self._indices(scenes[index], "nodes", len(nodes))
        inner = {child for indices in children for child in indices}
        return [i for i in range(len(nodes)) if i not in inner]

    def _indices(self, fields: Fields, key: str, count: int) -> list[int]:
        values = fields.array(key)
        for value in values:
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < count:
                raise SceneError(
                    f"{self.path}: {fields.name(key)} must be node numbers below {count}: "
                    "the file is damaged"
                )
        return values

    def view(self, index: int) -> tuple[memoryview, int]:
        """Return the bytes of a buffer view, checked against its buffer, and its stride or 0."""
        views = self._json.objects("bufferViews")
        if index >= len(views):
            raise SceneError(
                f"{self.path}: bufferView must be below {len(views)}, not {index}: "
                "the file is damaged"
            )
        view = views[index]
        buffer = self._buffer(view.integer("buffer"))
        offset = view.integer("byteOffset") if "byteOffset" in view else 0
        length = view.integer("byteLength")
        if offset + length > len(buffer):
            raise SceneError(
                f"{self.path}: {view.name('byteLength')} must end within the {len(buffer)} bytes "
                f"of its buffer, not at {offset + length}: the file is truncated or damaged"
            )
        stride = view.integer("byteStride", 4, 252) if "byteStride" in view else 0
        return buffer[offset : offset + length], stride

    def _buffer(self, index: int) -> memoryview:
        buffers = self._json.objects("buffers")
        if index >= len(buffers):
            raise SceneError(
                f"{self.path}: buffer must be below {len(buffers)}, not {index}: "
                "the file is damaged"
            )
        if "uri" not in buffers[index]:
            if index or self._binary is None:
                raise SceneError(
                    f"{self.path}: {buffers[index].name('uri')} is missing: the file is incomplete"
                )
            return self._binary
        uri = buffers[index].text("uri")
        if uri.startswith("data:"):
            try:
                return memoryview(base64.b64decode(uri.partition(",")[2], validate=True))
            except (binascii.Error, ValueError) as error:
                raise SceneError(
                    f"{self.path}: {buffers[index].name('uri')} is not base64 ({error}): "
                    "the file is damaged"
                ) from error
        if uri != Path(uri).name or uri in ("", ".", "..") or "\0" in uri:
            raise SceneError(
                f"{self.path}: {buffers[index].name('uri')} must name a file in the same folder, "
                f"not {uri[:60]!r}: convert the scene to GLB"
            )
        try:
            check_regular_file(self.path.parent / uri, "buffer")
            return memoryview((self.path.parent / uri).read_bytes())
        except (OSError, SceneError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise SceneError(
                f"{self.path}: {uri[:60]!r} cannot be read ({reason}): "
                "put it beside the .gltf file"
            ) from error

    def accessor(self, index: int, kind: str) -> Fields:
        """Return accessor ``index``, which must be of the type ``kind`` and within its view."""
        accessors = self._json.objects("accessors")
        if index >= len(accessors):
            raise SceneError(
                f"{self.path}: accessor must be below {len(accessors)}, not {index}: "
                "the file is damaged"
            )
        accessor = accessors[index]
        if "sparse" in accessor or "bufferView" not in accessor:
            raise SceneError(
                f"{self.path}: {accessor.name('bufferView')} must hold every value: "
                "sparse accessors are not supported, convert the scene"
            )
        if accessor.text("type") != kind:
            raise SceneError(
                f"{self.path}: {accessor.name('type')} must be {kind}, "
                f"not {accessor.text('type')[:20]!r}: the file is damaged"
            )
        component = accessor.integer("componentType")
        if component not in _COMPONENTS:
            raise SceneError(
                f"{self.path}: {accessor.name('componentType')} must be one of "
                f"{sorted(_COMPONENTS)}, not {component}: the file is damaged"
            )
        self.values(accessor, check_only=True)
        return accessor

    def values(self, accessor: Fields, *, check_only: bool = False) -> Float64Array:
        """Return the values of a checked accessor, normalised ones scaled, shape [N, width]."""
        name, divisor = _COMPONENTS[accessor.integer("componentType")]
        width, kind = _WIDTHS[accessor.text("type")], np.dtype(name)
        data, stride = self.view(accessor.integer("bufferView"))
        offset = accessor.integer("byteOffset") if "byteOffset" in accessor else 0
        count = accessor.integer("count", 1)
        row = width * kind.itemsize
        stride = stride or row
        if stride < row or offset + (count - 1) * stride + row > len(data):
            raise SceneError(
                f"{self.path}: {accessor.name('count')} must fit its buffer view of {len(data)} "
                f"bytes, not {count} values of {row} bytes from {offset} on: "
                "the file is truncated or damaged"
            )
        if check_only:
            return np.empty((0, width))
        raw = np.ndarray((count, width), kind, data, offset, (stride, kind.itemsize))
        if not accessor.boolean("normalized"):
            return raw.astype(np.float64)
        if divisor is None:
            raise SceneError(
                f"{self.path}: {accessor.name('normalized')} must be false for floats: "
                "the file is damaged"
            )
        return np.maximum(raw / divisor, -1.0)


class _Part:
    """One Gaussian primitive and its place in the world."""

    def __init__(self, source: GltfSource, primitive: Fields, matrix: Float64Array) -> None:
        self._source = source
        self._rotation, self._scale = _similarity(source.path, matrix)
        self._translation = matrix[:3, 3]
        extension = primitive.object("extensions").object(_EXTENSION)
        inner = extension.object("extensions") if "extensions" in extension else None
        self._spz: SpzSource | None = None
        for name in _SPZ_EXTENSIONS:
            if inner is not None and name in inner:
                data, _ = source.view(inner.object(name).integer("bufferView"))
                self._spz = SpzSource(source.path, bytes(data))
                self.gaussians = self._spz.gaussians
                self.sh_degree = self._spz.sh_degree
                self.antialiased = self._spz.antialiased
                return
        self.antialiased = False
        attributes = primitive.object("attributes")

        def attribute(name: str, kind: str) -> Fields:
            key = name if name == "POSITION" else f"{_EXTENSION}:{name}"
            return source.accessor(attributes.integer(key), kind)

        self._position = attribute("POSITION", "VEC3")
        self._rotations = attribute("ROTATION", "VEC4")
        self._scales = attribute("SCALE", "VEC3")
        self._opacity = attribute("OPACITY", "SCALAR")
        self._sh = [attribute("SH_DEGREE_0_COEF_0", "VEC3")]
        for degree in (1, 2, 3):
            if f"{_EXTENSION}:SH_DEGREE_{degree}_COEF_0" not in attributes:
                break
            self._sh += [
                attribute(f"SH_DEGREE_{degree}_COEF_{n}", "VEC3") for n in range(2 * degree + 1)
            ]
        self.gaussians = self._position.integer("count")
        self.sh_degree = SH_COEFFICIENTS.index(len(self._sh))
        for accessor in (self._rotations, self._scales, self._opacity, *self._sh):
            if accessor.integer("count") != self.gaussians:
                raise SceneError(
                    f"{source.path}: {accessor.name('count')} must be that of POSITION, "
                    f"{self.gaussians}, not {accessor.integer('count')}: the file is damaged"
                )

    def read(self, slots: Slots) -> None:
        if self._spz is not None:
            self._spz.read(slots)
        else:
            values = self._source.values
            scales = values(self._scales)
            with np.errstate(over="ignore", invalid="ignore"):  # the scene checks what comes out
                slots.means[:] = values(self._position)
                slots.log_scales[:] = (
                    scales
                    if (scales < 0).any()
                    else np.log(np.maximum(scales, np.exp(FLAT_LOG_SCALE)))
                )
                slots.quats[:] = values(self._rotations)[:, [3, 0, 1, 2]]
                for i, accessor in enumerate(self._sh):
                    slots.sh[:, i] = values(accessor)
            opacity = values(self._opacity)[:, 0]
            if not ((opacity >= 0) & (opacity <= 1)).all():
                first = int(np.argmax(~((opacity >= 0) & (opacity <= 1))))
                raise SceneError(
                    f"{self._source.path}: OPACITY must be from 0 to 1, not {opacity[first]:g} at "
                    f"Gaussian {first}: the file is damaged"
                )
            slots.opacity_logits[:] = opacity_logits(opacity)
            replace_zero_quats(slots.quats)
        if not (
            np.array_equal(self._rotation, np.eye(3))
            and self._scale == 1
            and not self._translation.any()
        ):
            self._place(slots)

    def _place(self, slots: Slots) -> None:
        try:
            moved = transform(
                Scene(
                    means=slots.means,
                    log_scales=slots.log_scales,
                    quats=slots.quats,
                    opacity_logits=slots.opacity_logits,
                    sh=slots.sh,
                ),
                self._rotation,
                self._translation,
                self._scale,
            )
        except SceneError as error:
            raise SceneError(f"{self._source.path}: {error}: the file is damaged") from error
        slots.means[:] = moved.means
        slots.log_scales[:] = moved.log_scales
        slots.quats[:] = moved.quats
        slots.sh[:] = moved.sh


def _node_matrix(node: Fields) -> Float64Array:
    if "matrix" in node:
        return node.numbers("matrix", (16,)).reshape(4, 4).T
    matrix = np.eye(4)
    if "rotation" in node:
        x, y, z, w = node.numbers("rotation", (4,))
        length = x * x + y * y + z * z + w * w
        if not 0.5 < length < 2:
            raise SceneError(
                f"{node.path}: {node.name('rotation')} must be a unit quaternion: "
                "the file is damaged"
            )
        s = 2 / length
        matrix[:3, :3] = [
            [1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w)],
            [s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w)],
            [s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y)],
        ]
    if "scale" in node:
        matrix[:3, :3] = matrix[:3, :3] * node.numbers("scale", (3,))
    if "translation" in node:
        matrix[:3, 3] = node.numbers("translation", (3,))
    return matrix


def _similarity(path: Path, matrix: Float64Array) -> tuple[Float64Array, float]:
    """Return the rotation and the scale of a matrix that must be a similarity."""
    linear = matrix[:3, :3]
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        scale = float(np.cbrt(np.linalg.det(linear)))
        rotation = linear / scale
        good = np.isfinite(matrix).all() and np.abs(rotation @ rotation.T - np.eye(3)).max() < 1e-4
    if not (good and 1e-9 < scale < 1e9):
        raise SceneError(
            f"{path}: node transform must be a rotation, a uniform positive scale and a "
            "translation: apply the transform in the exporter"
        )
    # To the nearest rotation: files round to float32.
    u, _, vt = np.linalg.svd(rotation)
    return u @ vt, 1.0 if abs(scale - 1) < 1e-6 else scale

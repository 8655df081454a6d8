"""The PlayCanvas compressed PLY: chunks of 256 Gaussians with bounds, 16 packed bytes each.

Element ``chunk`` holds the bounds of positions, log-scales and, in newer files, colours; element
``vertex`` four 32-bit words: position and scale as 11-10-11 bit fractions of the bounds, rotation
as the three smallest components in 10 bits each below the 2-bit index of the largest (w, x, y,
z), colour and opacity as 8-8-8-8. An optional element ``sh`` holds ``f_rest_*`` in bytes, channel
by channel. Source: the decompressor of PlayCanvas splat-transform.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from splatforge.scenes.ply import PlyHeader, read_ply_elements
from splatforge.scenes.quaternions import insert_largest
from splatforge.scenes.scene import SH_COEFFICIENTS, SceneError
from splatforge.scenes.slots import SH_C0, Slots, check_gaussians, opacity_logits

_CHUNK = 256
_BOUNDS = [
    f"{side}_{quantity}{axis}"
    for quantity in ("", "scale_")
    for side in ("min", "max")
    for axis in "xyz"
]
_COLOR_BOUNDS = [f"{side}_{channel}" for side in ("min", "max") for channel in "rgb"]
_PACKED = ("packed_position", "packed_rotation", "packed_scale", "packed_color")


class CompressedPlySource:
    """A PlayCanvas compressed PLY file; see :class:`splatforge.scenes.slots.Source`."""

    format = "compressed.ply"
    antialiased = False

    def __init__(self, path: Path, header: PlyHeader) -> None:
        self.path = path
        chunk, vertex = header.element("chunk"), header.element("vertex")
        if chunk is None or vertex is None:
            raise SceneError(
                f"{path}: elements chunk and vertex must both be there: the file is damaged"
            )
        for element, names, kind in ((chunk, _BOUNDS, "f4"), (vertex, _PACKED, "u4")):
            for name in names:
                if element.types.get(name) != kind:
                    raise SceneError(
                        f"{path}: {element.name} property {name!r} must be of the type {kind}: "
                        "this is not a PlayCanvas compressed PLY"
                    )
        check_gaussians(path, "element vertex", vertex.count)
        if chunk.count != -(-vertex.count // _CHUNK):
            raise SceneError(
                f"{path}: element chunk must have one row for each {_CHUNK} of {vertex.count} "
                f"Gaussians, not {chunk.count} rows: the file is damaged"
            )
        self._has_colors = all(chunk.types.get(name) == "f4" for name in _COLOR_BOUNDS)
        self._rest = 0
        sh = header.element("sh")
        if sh is not None:
            self._rest = len(sh.types)
            names = {f"f_rest_{i}": "u1" for i in range(self._rest)}
            if self._rest not in (9, 24, 45) or sh.types != names or sh.count != vertex.count:
                raise SceneError(
                    f"{path}: element sh must hold 9, 24 or 45 bytes f_rest_* for each of "
                    f"{vertex.count} Gaussians: the file is damaged"
                )
        self.gaussians = vertex.count
        self.sh_degree = SH_COEFFICIENTS.index(self._rest // 3 + 1)

    def read(self, slots: Slots) -> None:
        """Decode every Gaussian into ``slots``."""
        elements = read_ply_elements(self.path)
        chunk, vertex = elements["chunk"], elements["vertex"]
        rows = np.arange(self.gaussians) // _CHUNK

        def between(low: str, high: str, names: list[str], t: npt.NDArray) -> npt.NDArray:
            a = np.stack([chunk[low + name] for name in names], axis=1)[rows]
            b = np.stack([chunk[high + name] for name in names], axis=1)[rows]
            with np.errstate(over="ignore", invalid="ignore"):  # hostile bounds: checked later
                return a * (1 - t) + b * t

        slots.means[:] = between("min_", "max_", list("xyz"), _unpack_11_10_11(vertex, "position"))
        slots.log_scales[:] = between(
            "min_scale_", "max_scale_", list("xyz"), _unpack_11_10_11(vertex, "scale")
        )
        slots.quats[:] = _unpack_rotation(np.asarray(vertex["packed_rotation"]))
        packed = np.asarray(vertex["packed_color"])
        color = np.stack([packed >> 24 & 255, packed >> 16 & 255, packed >> 8 & 255], axis=1) / 255
        if self._has_colors:
            color = between("min_", "max_", list("rgb"), color)
        slots.sh[:, 0] = (color - 0.5) / SH_C0
        slots.opacity_logits[:] = opacity_logits((packed & 255) / 255)
        if self._rest:
            # The ends of the byte range stand for the ends of the interval, the others for the
            # middles of their bins.
            table = (np.arange(256) + 0.5) / 256
            table[[0, 255]] = 0, 1
            table = ((table - 0.5) * 8).astype(np.float32)
            bytes_ = elements["sh"].view(np.uint8).reshape(self.gaussians, 3, -1)
            slots.sh[:, 1 : 1 + self._rest // 3] = table[bytes_].swapaxes(1, 2)


def _unpack_11_10_11(vertex: npt.NDArray[np.void], name: str) -> npt.NDArray[np.float64]:
    word = np.asarray(vertex[f"packed_{name}"])
    return np.stack([(word >> 21) / 2047, (word >> 11 & 1023) / 1023, (word & 2047) / 2047], axis=1)


def _unpack_rotation(word: npt.NDArray[np.uint32]) -> npt.NDArray[np.float64]:
    small = np.stack([word >> 20 & 1023, word >> 10 & 1023, word & 1023], axis=1)
    small = (small / 1023 - 0.5) * np.sqrt(2)
    return insert_largest(small, (word >> 30).astype(np.intp))

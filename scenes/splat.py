"""The .splat file: 32 bytes per Gaussian and no header (antimatter15/splat).

Three float32 position, three float32 scale (linear), four bytes red, green, blue and opacity,
four bytes quaternion w, x, y, z as ``(byte - 128) / 128``; SH degree 0 only.
"""

from pathlib import Path

import numpy as np

from splatforge.scenes.atomic_file import atomic_file
from splatforge.scenes.quaternions import replace_zero_quats
from splatforge.scenes.scene import Scene, SceneError
from splatforge.scenes.slots import (
    FLAT_LOG_SCALE,
    SH_C0,
    Slots,
    check_gaussians,
    opacity_logits,
)

_RECORD = np.dtype(
    [("position", "<f4", 3), ("scale", "<f4", 3), ("color", "u1", 4), ("rotation", "u1", 4)]
)


class SplatSource:
    """A .splat file; see :class:`splatforge.scenes.slots.Source`."""

    format = "splat"
    sh_degree = 0
    antialiased = False

    def __init__(self, path: Path) -> None:
        self.path = path
        size = path.stat().st_size
        if size % _RECORD.itemsize:
            raise SceneError(
                f"{path}: size must be a multiple of {_RECORD.itemsize} bytes, not {size}: "
                "the file is truncated or no .splat file"
            )
        self.gaussians = size // _RECORD.itemsize
        check_gaussians(path, "number of records", self.gaussians)

    def read(self, slots: Slots) -> None:
        """Decode every Gaussian into ``slots``."""
        with self.path.open("rb") as file:
            records = np.fromfile(file, _RECORD, count=self.gaussians)
        if len(records) != self.gaussians:
            raise SceneError(f"{self.path}: size changed while reading: read it again")
        scale = records["scale"]
        # There is no magic number: a negative size is the sign of another kind of file.
        if (scale < 0).any():
            first = int(np.argmax((scale < 0).any(axis=1)))
            raise SceneError(
                f"{self.path}: scale must not be negative, not {scale[first]} at Gaussian {first}: "
                "the file is damaged or no .splat file"
            )
        slots.means[:] = records["position"]
        # A scale of exactly zero is a flat Gaussian: tiny enough to be flat, finite as a logarithm.
        slots.log_scales[:] = np.log(np.maximum(scale, np.exp(FLAT_LOG_SCALE)))
        slots.quats[:] = (records["rotation"].astype(np.float32) - 128) / 128
        replace_zero_quats(slots.quats)
        slots.sh[:, 0] = (records["color"][:, :3] / 255 - 0.5) / SH_C0
        slots.opacity_logits[:] = opacity_logits(records["color"][:, 3] / 255)


def write_splat(scene: Scene, path: Path) -> None:
    """Write ``scene`` as .splat, largest and most opaque Gaussians first, as viewers expect.

    Colours above SH degree 0 and outside [0, 1] are lost, and so is the antialiased flag: the
    format has no room for them.
    """
    opacity = 1 / (1 + np.exp(-scene.opacity_logits.astype(np.float64)))
    scale = np.exp(scene.log_scales.astype(np.float64))
    order = np.argsort(-opacity * scale.prod(axis=1), kind="stable")
    records = np.zeros(scene.gaussians, _RECORD)
    records["position"] = scene.means[order]
    records["scale"] = scale[order]
    color = np.concatenate([scene.sh[:, 0] * SH_C0 + 0.5, opacity[:, None]], axis=1)[order]
    records["color"] = np.clip(np.rint(color * 255), 0, 255)
    quats = scene.quats[order].astype(np.float64)
    quats /= np.linalg.norm(quats, axis=1, keepdims=True)
    records["rotation"] = np.clip(np.rint(quats * 128 + 128), 0, 255)
    with atomic_file(path) as file:
        file.write(records.tobytes())

"""What a reader promises before it reads, and the preallocated arrays that it reads into."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from splatforge.scenes.scene import SH_COEFFICIENTS, SceneError

Float32Array = npt.NDArray[np.float32]

#: Called with the number of Gaussians read so far and the number there are.
Progress = Callable[[int, int], None]

# Ten times the largest public captures; a header above it is damaged or hostile.
_GAUSSIANS_LIMIT = 1 << 27

# The value of the band-0 basis function, 1 / (2 sqrt(pi)).
SH_C0 = 0.28209479177387814

#: Logit that stands for an opacity of exactly 1, and negated for 0: finite, and 1e-6 away.
OPAQUE_LOGIT = np.float32(np.log((1 - 1e-6) / 1e-6))

#: Logarithm that stands for a scale of exactly 0: too small to see, and finite.
FLAT_LOG_SCALE = np.float32(np.log(1e-30))


@dataclass(frozen=True, kw_only=True)
class Slots:
    """Slices of the arrays of a scene that is being read; shapes as in ``Scene``."""

    means: Float32Array
    log_scales: Float32Array
    quats: Float32Array
    opacity_logits: Float32Array
    sh: Float32Array

    @classmethod
    def allocate(cls, gaussians: int, sh_degree: int) -> "Slots":
        """Return slots for ``gaussians`` Gaussians; SH above what a reader fills stays zero."""
        return cls(
            means=np.empty((gaussians, 3), np.float32),
            log_scales=np.empty((gaussians, 3), np.float32),
            quats=np.empty((gaussians, 4), np.float32),
            opacity_logits=np.empty(gaussians, np.float32),
            sh=np.zeros((gaussians, SH_COEFFICIENTS[sh_degree], 3), np.float32),
        )

    def part(self, start: int, stop: int) -> "Slots":
        """Return the slots of the Gaussians ``start`` to ``stop``."""
        return Slots(
            means=self.means[start:stop],
            log_scales=self.log_scales[start:stop],
            quats=self.quats[start:stop],
            opacity_logits=self.opacity_logits[start:stop],
            sh=self.sh[start:stop],
        )


class Source(Protocol):
    """A scene file whose header has been read and checked against the size of the file."""

    path: Path
    format: str
    gaussians: int
    sh_degree: int
    antialiased: bool

    def read(self, slots: Slots) -> None:
        """Decode every Gaussian into ``slots``."""
        ...


def check_gaussians(path: Path, field: str, gaussians: int) -> None:
    """Raise unless ``gaussians``, the value of the header's ``field``, is a sensible count."""
    if gaussians < 1:
        raise SceneError(f"{path}: {field} must be at least 1, not {gaussians}: the file is empty")
    if gaussians > _GAUSSIANS_LIMIT:
        raise SceneError(
            f"{path}: {field} must be at most {_GAUSSIANS_LIMIT}, not {gaussians}: "
            "the header is damaged"
        )


def opacity_logits(opacities: npt.ArrayLike) -> Float32Array:
    """Return the logits of ``opacities`` in [0, 1]; 0 and 1 stay finite, within 1e-6."""
    with np.errstate(divide="ignore"):
        values = np.asarray(opacities, dtype=np.float64)
        logits = np.log(values / (1 - values)).astype(np.float32)
    return np.clip(logits, -OPAQUE_LOGIT, OPAQUE_LOGIT)

"""The Gaussian scene: what every reader makes and every renderer takes."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]

#: SH coefficients per colour channel of degree 0, 1, 2, 3.
SH_COEFFICIENTS = (1, 4, 9, 16)

# Beyond these, the float32 covariance of a projected Gaussian overflows: a file that holds such
# values is damaged, and a renderer would turn it into NaN pixels.
_LIMITS = {
    "means": (-1e12, 1e12),
    "log_scales": (-np.inf, 30.0),
    "quats": (-np.inf, np.inf),
    "opacity_logits": (-np.inf, np.inf),
    "sh": (-1e6, 1e6),
}
_QUAT_LENGTH_LIMITS = (1e-9, 1e9)

_CHUNK = 1 << 20


class SceneError(ValueError):
    """A scene, a camera file or one of their fields is not what it must be.

    Every reader raises this and nothing else for a file it cannot accept; the message is
    ``<path>: <field> <what is wrong>: <what to do>``.
    """


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """A set of anisotropic 3D Gaussians with view-dependent colour, as a structure of arrays.

    The arrays are float32 and C-contiguous; an argument that already is both is kept without a
    copy. Values are stored as they are trained (Kerbl et al. 2023): scales as natural logarithms,
    opacities as logits, colours as real spherical harmonics with the 0.5 offset still to be added.

    Parameters
    ----------
    means : array_like
        Centres of shape [N, 3], in the scene's own units.
    log_scales : array_like
        Natural logarithm of the standard deviations along the principal axes, shape [N, 3].
    quats : array_like
        Rotations as quaternions in the order w, x, y, z, shape [N, 4]; any length but zero.
    opacity_logits : array_like
        Shape [N]; the opacity is ``1 / (1 + exp(-opacity_logit))``.
    sh : array_like
        Spherical-harmonics coefficients of shape [N, K, 3] with K in {1, 4, 9, 16}.
    antialiased : bool
        The scene was trained with the mip filter and asks for its opacity compensation.

    Raises
    ------
    SceneError
        A shape disagrees, a value is not finite, or a value is so large that its projection
        overflows float32.
    """

    means: Float32Array
    log_scales: Float32Array
    quats: Float32Array
    opacity_logits: Float32Array
    sh: Float32Array
    antialiased: bool = False

    def __post_init__(self) -> None:
        for name in ("means", "log_scales", "quats", "opacity_logits", "sh"):
            try:
                array = np.ascontiguousarray(getattr(self, name), dtype=np.float32)
            except (TypeError, ValueError) as error:
                raise SceneError(f"{name} must be an array of numbers: {error}") from error
            object.__setattr__(self, name, array)
        check_scene_arrays(self.means, self.log_scales, self.quats, self.opacity_logits, self.sh)

    @property
    def gaussians(self) -> int:
        """Number of Gaussians."""
        return len(self.means)

    @property
    def sh_degree(self) -> int:
        """Degree of the spherical harmonics, 0 to 3."""
        return SH_COEFFICIENTS.index(self.sh.shape[1])

    @property
    def bbox_min(self) -> Float32Array:
        """Smallest coordinate of the centres, shape [3]; zeros for an empty scene."""
        return self.means.min(axis=0) if self.gaussians else np.zeros(3, np.float32)

    @property
    def bbox_max(self) -> Float32Array:
        """Largest coordinate of the centres, shape [3]; zeros for an empty scene."""
        return self.means.max(axis=0) if self.gaussians else np.zeros(3, np.float32)

    def select(self, index: npt.ArrayLike | slice) -> "Scene":
        """Return the Gaussians that ``index`` (slice, mask or index array) picks, in its order."""
        pick = index if isinstance(index, slice) else np.asarray(index)
        arrays = {
            field.name: getattr(self, field.name)[pick]
            for field in fields(self)
            if field.name != "antialiased"
        }
        return Scene(**arrays, antialiased=self.antialiased)


def check_scene_arrays(
    means: Float32Array,
    log_scales: Float32Array,
    quats: Float32Array,
    opacity_logits: Float32Array,
    sh: Float32Array,
) -> None:
    """Raise ``SceneError`` unless the arrays, shaped as in ``Scene``, make a valid scene."""
    if means.ndim != 2 or means.shape[1] != 3:
        raise SceneError(f"means must have the shape (N, 3), not {means.shape}")
    n = len(means)
    shapes = {"log_scales": (n, 3), "quats": (n, 4), "opacity_logits": (n,)}
    for (name, shape), array in zip(
        shapes.items(), (log_scales, quats, opacity_logits), strict=True
    ):
        if array.shape != shape:
            raise SceneError(f"{name} must have the shape {shape}, not {array.shape}")
    if sh.ndim != 3 or len(sh) != n or sh.shape[1] not in SH_COEFFICIENTS or sh.shape[2] != 3:
        raise SceneError(
            f"sh must have the shape ({n}, K, 3) with K in {SH_COEFFICIENTS}, not {sh.shape}"
        )
    arrays = (means, log_scales, quats, opacity_logits, sh)
    for (name, (low, high)), array in zip(_LIMITS.items(), arrays, strict=True):
        _check_values(name, array, low, high)
    _check_quat_lengths(quats)


def valid_gaussians(
    means: Float32Array,
    log_scales: Float32Array,
    quats: Float32Array,
    opacity_logits: Float32Array,
    sh: Float32Array,
) -> npt.NDArray[np.bool_]:
    """Tell which Gaussians have only values that ``check_scene_arrays`` accepts, shape [N]."""
    good = np.ones(len(means), bool)
    arrays = (means, log_scales, quats, opacity_logits, sh)
    step = 1 << 16
    for start in range(0, len(means), step):
        part = slice(start, start + step)
        for (low, high), array in zip(_LIMITS.values(), arrays, strict=True):
            rows = array[part].reshape(len(good[part]), -1)
            good[part] &= (np.isfinite(rows) & (rows >= low) & (rows <= high)).all(axis=1)
        length = np.abs(quats[part]).max(axis=1)
        good[part] &= (length >= _QUAT_LENGTH_LIMITS[0]) & (length <= _QUAT_LENGTH_LIMITS[1])
    return good


def merge(scenes: Sequence[Scene]) -> Scene:
    """Return one scene with the Gaussians of all ``scenes``, in their order.

    A scene of a lower SH degree is padded with zero coefficients, which leaves its colours as
    they are.

    Raises
    ------
    SceneError
        There is no scene, or the antialiased flags differ: one flag cannot render both.
    """
    if not scenes:
        raise SceneError("scenes to merge must be at least one, not none")
    if len({scene.antialiased for scene in scenes}) > 1:
        raise SceneError("antialiased must be the same in all scenes to merge, not mixed")
    if len(scenes) == 1:
        return scenes[0]
    coefficients = max(scene.sh.shape[1] for scene in scenes)
    sh = np.zeros((sum(scene.gaussians for scene in scenes), coefficients, 3), np.float32)
    start = 0
    for scene in scenes:
        sh[start : start + scene.gaussians, : scene.sh.shape[1]] = scene.sh
        start += scene.gaussians
    return Scene(
        means=np.concatenate([scene.means for scene in scenes]),
        log_scales=np.concatenate([scene.log_scales for scene in scenes]),
        quats=np.concatenate([scene.quats for scene in scenes]),
        opacity_logits=np.concatenate([scene.opacity_logits for scene in scenes]),
        sh=sh,
        antialiased=scenes[0].antialiased,
    )


def _check_values(name: str, array: Float32Array, low: float, high: float) -> None:
    """Raise on a value that is not finite or outside [low, high], without a whole-array mask."""
    flat = array.reshape(-1)
    per_gaussian = max(1, flat.size // max(1, len(array)))
    for start in range(0, flat.size, _CHUNK):
        chunk = flat[start : start + _CHUNK]
        # NaN compares false, so one comparison of the extremes would let it pass: min and max
        # propagate NaN, which isfinite then sees.
        smallest, largest = chunk.min(), chunk.max()
        if np.isfinite(smallest) and np.isfinite(largest) and low <= smallest and largest <= high:
            continue
        bad = ~(np.isfinite(chunk) & (chunk >= low) & (chunk <= high))
        first = start + int(np.argmax(bad))
        value = float(flat[first])
        where = f"Gaussian {first // per_gaussian}"
        if not np.isfinite(value):
            raise SceneError(f"{name} must be finite, not {value} at {where}")
        rule = f"at most {high:g}" if low == -np.inf else f"between {low:g} and {high:g}"
        raise SceneError(f"{name} must be {rule}, not {value:g} at {where}")


def _check_quat_lengths(quats: Float32Array) -> None:
    low, high = _QUAT_LENGTH_LIMITS
    for start in range(0, len(quats), _CHUNK):
        # The largest component bounds the length within a factor of two and cannot overflow.
        length = np.abs(quats[start : start + _CHUNK]).max(axis=1)
        bad = (length < low) | (length > high)
        if bad.any():
            first = int(np.argmax(bad))
            raise SceneError(
                f"quats must have a length between {low:g} and {high:g}, "
                f"not {length[first]:g} at Gaussian {start + first}"
            )

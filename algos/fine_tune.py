"""Fine-tuning of a trained scene for an accelerator that draws it differently.

Self-distillation: the targets are the float reference's pictures of the scene as it was, the
parameters move until the accelerator's pictures (its order of blending, its quantization) come
near them. Neither photographs nor centres are needed or touched.

Source: the boundary-aware fine-tuning of StreamingGS (DAC 2025) and the cache-aware one of Lumina
(ISCA 2025) are both a photometric loss plus a penalty on scales; loss and step sizes are those of
Kerbl et al., "3D Gaussian Splatting for Real-Time Radiance Field Rendering", ACM TOG 42(4), 2023.
"""

import hashlib
import io
import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace
from math import inf, log10
from pathlib import Path

import numpy as np
import numpy.typing as npt

from splatforge.algos.adam import Adam
from splatforge.algos.gradient import Gradients, Order, gradients, trace
from splatforge.algos.photometric import PhotometricLoss
from splatforge.algos.quality import psnr_db
from splatforge.algos.reference import render
from splatforge.scenes import Camera, Scene, check_regular_file, check_writable
from splatforge.scenes.atomic_file import atomic_file

__all__ = [
    "FineTuned",
    "FineTuning",
    "Quality",
    "ScaleLoss",
    "compare",
    "fine_tune",
    "oversize_loss",
]

Float32Array = npt.NDArray[np.float32]
Int64Array = npt.NDArray[np.int64]

_PARAMETERS = ("log_scales", "quats", "opacity_logits", "sh")
# Higher bands of the SH move this much slower (Kerbl et al.).
_HIGHER_BANDS = 1 / 20

#: Takes the log scales [V, 3] of the Gaussians that a frame lists and what the frame's gradients
#: say of them; returns a loss and its derivatives by these log scales, [V, 3].
ScaleLoss = Callable[[Float32Array, Gradients], tuple[float, Float32Array]]


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """How a scene is fine-tuned.

    Parameters
    ----------
    iterations : int
        Steps, one view each, at least 1; the views come in random order, each once a round.
    scale_rate, rotation_rate, opacity_rate, sh_rate : float
        First step sizes of Adam, of log scales, unit quaternions, opacity logits and constant SH
        coefficients; those of the higher bands are a twentieth. The defaults are four times those
        of Kerbl et al., who have thirty times the steps to make.
    final_rate : float
        What the step sizes fall to by the end, evenly in their logarithm, as a share in (0, 1].
    dssim_weight : float
        Weight of D-SSIM against L1, in [0, 1].
    background : tuple of float
        Linear colour behind the scene.
    seed : int
        Of the order of views.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    iterations: int = 1000
    scale_rate: float = 0.02
    rotation_rate: float = 0.004
    opacity_rate: float = 0.1
    sh_rate: float = 0.01
    final_rate: float = 0.1
    dssim_weight: float = 0.2
    background: tuple[float, float, float] = (0.0, 0.0, 0.0)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise ValueError(f"Iterations must be at least 1, not {self.iterations!r}")
        for name in ("scale_rate", "rotation_rate", "opacity_rate", "sh_rate"):
            value = getattr(self, name)
            if not 0 <= value < inf:
                what = name.replace("_", " ").capitalize().replace("Sh ", "SH ")
                raise ValueError(f"{what} must be finite and not negative, not {value!r}")
        if not 0 < self.final_rate <= 1:
            raise ValueError(f"Final rate must be in (0, 1], not {self.final_rate!r}")
        if not 0 <= self.dssim_weight <= 1:
            raise ValueError(f"Weight of D-SSIM must be in [0, 1], not {self.dssim_weight!r}")


@dataclass(frozen=True, kw_only=True, eq=False)
class FineTuned:
    """What fine-tuning gives.

    Parameters
    ----------
    scene : Scene
        The scene with its parameters moved, centres as they were.
    losses : numpy.ndarray
        Photometric loss and scale loss of every step, shape [iterations, 2].
    """

    scene: Scene
    losses: npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Quality:
    """How close the pictures of a scene are to those of another, over several views.

    Parameters
    ----------
    psnr_db : tuple of float
        Of every view.
    rendered, late_gaussians : int
        Gaussians that blended into at least one pixel of a view, and those among them for which a
        deeper one had been blended before in at least one pixel; summed over the views.
    pixels, late_pixels : int
        The same, of pairs of a Gaussian and a pixel.
    """

    psnr_db: tuple[float, ...]
    rendered: int
    late_gaussians: int
    pixels: int
    late_pixels: int

    @property
    def overall_psnr_db(self) -> float:
        """Of the mean squared error over all views."""
        error = sum(10 ** (-0.1 * value) for value in self.psnr_db) / len(self.psnr_db)
        return -10 * log10(error) if error else inf

    @property
    def worst_psnr_db(self) -> float:
        """Of the worst view."""
        return min(self.psnr_db)

    @property
    def late_share(self) -> float:
        """Share of the rendered Gaussians that are late in at least one pixel."""
        return self.late_gaussians / max(self.rendered, 1)

    @property
    def late_pixel_share(self) -> float:
        """Share of the pairs that are late."""
        return self.late_pixels / max(self.pixels, 1)


def compare(
    scene: Scene,
    original: Scene,
    cameras: Sequence[Camera],
    *,
    order: Order | None = None,
    background: npt.ArrayLike = (0.0, 0.0, 0.0),
) -> Quality:
    """Compare pictures of ``scene``, blended in ``order``, with the reference's of ``original``.

    Parameters
    ----------
    scene, original : Scene
        Ours and the one that sets the standard.
    cameras : sequence of Camera
        Views, at least one.
    order : callable, optional
        Order of blending, see :data:`splatforge.algos.gradient.Order`; default: by depth.
    background : array_like
        Linear colour of shape [3].

    Raises
    ------
    ValueError
        If there is no view.
    """
    if not cameras:
        raise ValueError("Views to compare must be at least one, not none")
    psnr, counts = [], np.zeros(4, np.int64)
    for camera in cameras:
        drawn = trace(scene, camera, background=background, order=order)
        psnr.append(psnr_db(drawn.image, render(original, camera, background=background).image))
        by = gradients(drawn, np.zeros_like(drawn.image))
        counts += (
            np.count_nonzero(by.pixels), np.count_nonzero(by.late), by.pixels.sum(), by.late.sum()
        )  # fmt: skip
    rendered, late, pixels, late_pixels = counts.tolist()
    return Quality(
        psnr_db=tuple(psnr), rendered=rendered, late_gaussians=late, pixels=pixels,
        late_pixels=late_pixels,
    )  # fmt: skip


def oversize_loss(weight: float, threshold: float) -> ScaleLoss:
    """Mean over the rendered Gaussians of what their largest scale exceeds a threshold by.

    Large Gaussians are what makes pixels of one record of ids differ; Lumina constrains them in its
    cache-aware fine-tuning.

    Parameters
    ----------
    weight : float
        Not negative; loss per mean excess, in thresholds.
    threshold : float
        Standard deviation in scene units, positive.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """
    if not 0.0 <= weight < inf:
        raise ValueError(f"Scale weight must be finite and not negative, not {weight!r}")
    if not 0.0 < threshold < inf:
        raise ValueError(f"Scale threshold must be positive and finite, not {threshold!r}")

    def loss(log_scales: Float32Array, by: Gradients) -> tuple[float, Float32Array]:
        slopes = np.zeros_like(log_scales)
        rows = np.arange(len(log_scales))
        axis = log_scales.argmax(axis=1)
        scales = np.exp(log_scales[rows, axis].astype(np.float64)) / threshold
        large = (by.pixels > 0) & (scales > 1)
        share = weight / max(np.count_nonzero(by.pixels), 1)
        slopes[rows[large], axis[large]] = share * scales[large]
        return share * float((scales[large] - 1).sum()), slopes

    return loss


def fine_tune(
    scene: Scene,
    cameras: Sequence[Camera],
    settings: FineTuning | None = None,
    *,
    order: Order | None = None,
    scale_loss: ScaleLoss | None = None,
    quantize: Callable[[Scene], Scene] | None = None,
    quantize_every: int = 1,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 100,
    identity: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> FineTuned:
    """Move a scene's parameters until its pictures in ``order`` are those that it had by depth.

    Parameters
    ----------
    scene : Scene
        The trained scene; not changed.
    cameras : sequence of Camera
        Training views, at least one, of at least 11 x 11 pixels.
    settings : FineTuning, optional
        Steps, step sizes, weights, seed.
    order : callable, optional
        Order of blending, see :data:`splatforge.algos.gradient.Order`; default: by depth.
    scale_loss : callable, optional
        A penalty on scales, see :data:`ScaleLoss`.
    quantize : callable, optional
        What the accelerator keeps of a scene, Gaussian by Gaussian in their order, axis by axis:
        that is drawn, and derivatives by it move the parameters as they are (straight through).
    quantize_every : int
        Steps from one quantization to the next; between them what it changed stays added.
    checkpoint : path, optional
        Where the state is kept, whole or not at all. If the file exists, the work goes on from
        it, to the same result as without an interruption.
    checkpoint_every : int
        Steps between two checkpoints; the last step makes one, too.
    identity : str
        What else the result depends on, say the order and the penalty: a checkpoint of another
        identity is refused.
    progress : callable, optional
        Called after every step with steps done and steps in all.

    Returns
    -------
    FineTuned
        The scene and its losses; equal inputs give equal results on any number of threads.

    Raises
    ------
    ValueError
        If there is no view, or the checkpoint is damaged or of other inputs.
    """
    settings = settings or FineTuning()
    if not cameras:
        raise ValueError("Training views must be at least one, not none")
    if checkpoint_every < 1:
        raise ValueError(f"Steps between checkpoints must be at least 1, not {checkpoint_every!r}")
    if quantize_every < 1:
        raise ValueError(f"Steps between quantizations must be at least 1, not {quantize_every!r}")
    values = {name: getattr(scene, name).copy() for name in _PARAMETERS}
    # What the quantization changed when it was last asked.
    changes = {name: np.zeros_like(getattr(scene, name)) for name in ("means", *_PARAMETERS)}
    values["quats"] /= np.linalg.norm(values["quats"], axis=1, keepdims=True)
    adam = Adam.start(values)
    losses = np.zeros((settings.iterations, 2))
    done = 0
    key = ""
    if checkpoint is not None:
        key = _digest(scene, cameras, settings, f"{quantize_every} {identity}")
        if Path(checkpoint).exists():
            done = _read(Path(checkpoint), key, _state(values, adam, changes, losses))
        else:
            check_writable(checkpoint)
    targets: dict[int, PhotometricLoss] = {}
    views = _view_order(len(cameras), settings)
    rates = _rates(settings, scene)
    for step in range(done, settings.iterations):
        view = int(views[step])
        if view not in targets:
            frame = render(scene, cameras[view], background=settings.background)
            targets[view] = PhotometricLoss(frame.image, dssim_weight=settings.dssim_weight)
        tuned = replace(scene, **values)
        if quantize is not None:
            if step % quantize_every == 0:
                kept = quantize(tuned)
                for name, change in changes.items():
                    np.subtract(getattr(kept, name), getattr(tuned, name), out=change)
            else:
                changed = {name: getattr(tuned, name) + changes[name] for name in changes}
                kept = replace(scene, **changed)
            tuned = kept
        drawn = trace(tuned, cameras[view], background=settings.background, order=order)
        losses[step, 0], by_image = targets[view](drawn.image)
        by = gradients(drawn, by_image)
        slopes = {name: getattr(by, name) for name in _PARAMETERS}
        if scale_loss is not None:
            losses[step, 1], by_scales = scale_loss(values["log_scales"][by.ids], by)
            slopes["log_scales"] = slopes["log_scales"] + by_scales
        fade = settings.final_rate ** (step / settings.iterations)
        adam.step(values, by.ids, slopes, {name: rate * fade for name, rate in rates.items()})
        done = step + 1
        if checkpoint is not None and (
            done % checkpoint_every == 0 or done == settings.iterations
        ):
            _write(Path(checkpoint), key, done, _state(values, adam, changes, losses))
        if progress is not None:
            progress(done, settings.iterations)
    return FineTuned(scene=replace(scene, **values), losses=losses)


def _view_order(views: int, settings: FineTuning) -> Int64Array:
    """View of every step: rounds of all views, each in an order of its own."""
    rng = np.random.default_rng(settings.seed)
    rounds = -(-settings.iterations // views)
    return np.concatenate([rng.permutation(views) for _ in range(rounds)])


def _rates(settings: FineTuning, scene: Scene) -> dict[str, npt.NDArray[np.float64]]:
    """First step size per column of every parameter."""
    sh = np.full(scene.sh.shape[1:], settings.sh_rate)
    sh[1:] *= _HIGHER_BANDS
    return {
        "log_scales": np.array([settings.scale_rate]),
        "quats": np.array([settings.rotation_rate]),
        "opacity_logits": np.array([settings.opacity_rate]),
        "sh": sh,
    }


def _digest(
    scene: Scene, cameras: Sequence[Camera], settings: FineTuning, identity: str
) -> str:
    """Digest of all that a result depends on."""
    digest = hashlib.sha256(repr((astuple(settings), scene.antialiased, identity)).encode())
    for name in ("means", *_PARAMETERS):
        digest.update(getattr(scene, name).tobytes())
    for camera in cameras:
        size = camera.width, camera.height, camera.fx, camera.fy, camera.cx, camera.cy
        digest.update(repr((size, camera.near, camera.w2c.tolist())).encode())
    return digest.hexdigest()


def _state(
    values: dict[str, Float32Array], adam: Adam, changes: dict[str, Float32Array],
    losses: npt.NDArray[np.float64],
) -> dict[str, npt.NDArray]:  # fmt: skip
    """All that changes from step to step, by the names of a checkpoint; no copies."""
    state: dict[str, npt.NDArray] = {"steps": adam.steps, "losses": losses}
    for name in _PARAMETERS:
        state[name], state[f"first_{name}"] = values[name], adam.first[name]
        state[f"second_{name}"] = adam.second[name]
    return state | {f"change_{name}": change for name, change in changes.items()}


def _write(path: Path, key: str, done: int, state: dict[str, npt.NDArray]) -> None:
    with atomic_file(path) as file:
        np.savez(
            file, allow_pickle=False, key=np.frombuffer(key.encode(), np.uint8),
            done=np.array(done), **state,
        )  # fmt: skip


def _read(path: Path, key: str, state: dict[str, npt.NDArray]) -> int:
    """Fill in a checkpoint's state, in place; the number of steps that it has behind it."""
    check_regular_file(path, "checkpoint")
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            if stored["key"].tobytes() != key.encode():
                raise ValueError(
                    f"{path}: checkpoint is of another scene, other views or other settings:"
                    " remove it or name another file"
                )
            done = int(stored["done"])
            found = {name: stored[name] for name in state}
    except (OSError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: checkpoint is damaged ({error}): remove it") from error
    for name, array in state.items():
        if found[name].shape != array.shape or found[name].dtype != array.dtype:
            raise ValueError(f"{path}: checkpoint is damaged ({name}): remove it")
        array[...] = found[name]
    return done

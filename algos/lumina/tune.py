"""Cache-aware fine-tuning: a scene without Gaussians so large that a record says little of a pixel.

Source: Lumina, ISCA 2025: ``L_total = L_orig + alpha L_scale(S, theta)``, with L_scale on Gaussians
whose scale exceeds theta; sorting and look-ups have no part in the gradients, so that pictures are
drawn in the order of depth and without a cache.

What the paper leaves open is chosen here. The targets are the scene's own pictures (L_orig is that
of :mod:`splatforge.algos.fine_tune`), S is the largest standard deviation, theta a quantile of it
over the scene, and L_scale the mean over the rendered Gaussians of what exceeds theta, in thetas
(:func:`splatforge.algos.fine_tune.oversize_loss`).
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from splatforge.algos.fine_tune import FineTuned, FineTuning, fine_tune, oversize_loss
from splatforge.algos.lumina.frame import render_sequence_float
from splatforge.algos.quality import psnr_db
from splatforge.algos.reference import render
from splatforge.designs.lumina import LuminaDesign
from splatforge.scenes import Camera, Scene

__all__ = ["LARGE_SHARE", "SCALE_WEIGHT", "CacheQuality", "compare_cached", "scale_threshold",
           "tune"]

#: alpha of the paper, which does not say how much: loss per mean excess of theta.
SCALE_WEIGHT = 0.02
#: Share of the Gaussians that are larger than theta, which the paper does not say either.
LARGE_SHARE = 0.1


@dataclass(frozen=True, kw_only=True, eq=False)
class CacheQuality:
    """What a scene's pictures with the cache are worth; over the frames of a path but the first.

    Parameters
    ----------
    psnr_db : float
        With the cache, against the pictures of the original.
    uncached_psnr_db : float
        Without it, against the same.
    cache_psnr_db : float
        With it, against those without.
    hit_share : float
        Hits among the pixels.
    avoided_share : float
        Blended Gaussians that hits avoid.
    """

    psnr_db: float
    uncached_psnr_db: float
    cache_psnr_db: float
    hit_share: float
    avoided_share: float


def scale_threshold(scene: Scene, large_share: float) -> float:
    """Theta: the largest standard deviation that a share of the Gaussians exceeds.

    Raises
    ------
    ValueError
        If the share is not in (0, 1), or the scene is empty.
    """
    if not 0 < large_share < 1:
        raise ValueError(f"Share of large Gaussians must be in (0, 1), not {large_share!r}")
    if not scene.gaussians:
        raise ValueError("Scene to tune must have a Gaussian, not none")
    largest = scene.log_scales.max(axis=1).astype(np.float64)
    return float(np.exp(np.quantile(largest, 1 - large_share)))


def compare_cached(
    scene: Scene, original: Scene, cameras: Sequence[Camera], design: LuminaDesign
) -> CacheQuality:
    """Compare pictures of ``scene``, drawn by Lumina, with the reference's of ``original``.

    Raises
    ------
    ValueError
        If there are fewer than two frames: the first one only fills the cache.
    """
    if len(cameras) < 2:
        raise ValueError(f"Frames to compare must be at least two, not {len(cameras)}")
    errors, hits, blended, drawn = [], 0.0, 0, 0
    for number, frame in enumerate(render_sequence_float(scene, cameras, design)):
        if number == 0:
            continue
        want = render(original, cameras[number]).image
        errors.append([10 ** (-0.1 * psnr_db(*pair)) for pair in (
            (frame.image, want), (frame.uncached, want), (frame.image, frame.uncached))])
        hits += 0 if frame.visits is None else frame.visits.hit.sum() / want[..., 0].size
        blended += frame.blended
        drawn += frame.blended_cached
    with np.errstate(divide="ignore"):
        cached, uncached, cache = -10 * np.log10(np.mean(errors, axis=0))
    return CacheQuality(
        psnr_db=float(cached), uncached_psnr_db=float(uncached), cache_psnr_db=float(cache),
        hit_share=float(hits) / len(errors), avoided_share=1 - drawn / max(blended, 1))


def tune(
    scene: Scene,
    cameras: Sequence[Camera],
    settings: FineTuning | None = None,
    *,
    scale_weight: float = SCALE_WEIGHT,
    large_share: float = LARGE_SHARE,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 100,
    progress: Callable[[int, int], None] | None = None,
) -> FineTuned:
    """Fine-tune a scene for the radiance cache.

    Parameters
    ----------
    scene : Scene
        The trained scene.
    cameras : sequence of Camera
        Training views.
    settings : FineTuning, optional
        Steps and step sizes.
    scale_weight : float
        alpha: loss per mean excess of theta over the rendered Gaussians.
    large_share : float
        Share of the Gaussians that exceed theta, see :func:`scale_threshold`.
    checkpoint, checkpoint_every, progress
        As in :func:`splatforge.algos.fine_tune.fine_tune`.

    Returns
    -------
    FineTuned
        The scene and its losses.
    """
    threshold = scale_threshold(scene, large_share)
    return fine_tune(
        scene, cameras, settings, scale_loss=oversize_loss(scale_weight, threshold),
        checkpoint=checkpoint, checkpoint_every=checkpoint_every, progress=progress,
        identity=f"cache-aware {scale_weight!r} {threshold!r}")

"""Diffusion whose score is known exactly: mixtures of Gaussians, and steps from noise to data.

A level (alpha, sigma) makes x = alpha x_0 + sigma noise. A mixture of Gaussians stays one at every
level, so the noise that a perfectly trained network would predict is written down, not learned.
The steps are those of DDIM (Song et al., ICLR 2021, eq. 12 without its random part); on levels
(1 - t, t) the same formula is an Euler step of a rectified flow.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Denoiser", "GaussianMixture", "advance", "ddim_levels", "exact_denoiser",
           "flow_levels", "random_mixture", "sample"]

Array = npt.NDArray[np.float64]

#: Takes x [batch, dimension] and the number of a step, gives the noise in x.
Denoiser = Callable[[Array, int], Array]


@dataclass(frozen=True, kw_only=True, eq=False)
class GaussianMixture:
    """Round Gaussians, each with its weight.

    Parameters
    ----------
    means : array
        [modes, dimension].
    deviations : array
        Standard deviation of each mode in every direction, [modes].
    weights : array
        [modes], of sum 1.
    """

    means: Array
    deviations: Array
    weights: Array

    def __post_init__(self) -> None:
        modes = len(self.means)
        if self.deviations.shape != (modes,) or self.weights.shape != (modes,):
            raise ValueError(f"Deviations and weights must be one a mode, {modes}, not "
                             f"{self.deviations.shape} and {self.weights.shape}")
        if not (self.deviations > 0).all() or not (self.weights > 0).all():
            raise ValueError("Deviations and weights must be above zero")
        if abs(self.weights.sum() - 1) > 1e-9:
            raise ValueError(f"Weights must have sum 1, not {self.weights.sum()!r}")

    def _terms(self, x: Array, alpha: float, sigma: float) -> tuple[Array, Array]:
        """Log of each weighted density [batch, modes], and variances [modes]."""
        variance = (alpha * self.deviations) ** 2 + sigma**2
        distance = ((x**2).sum(1, keepdims=True) - 2 * alpha * x @ self.means.T
                    + alpha**2 * (self.means**2).sum(1))
        log = (np.log(self.weights) - 0.5 * x.shape[1] * np.log(2 * np.pi * variance)
               - 0.5 * distance / variance)
        return log, variance

    def log_density(self, x: Array, alpha: float = 1.0, sigma: float = 0.0) -> Array:
        """Log of the density of x [batch, dimension] at a level, [batch]."""
        log = self._terms(x, alpha, sigma)[0]
        top = log.max(-1)
        return top + np.log(np.exp(log - top[:, None]).sum(-1))

    def score(self, x: Array, alpha: float = 1.0, sigma: float = 0.0) -> Array:
        """Gradient of :meth:`log_density`, [batch, dimension]."""
        log, variance = self._terms(x, alpha, sigma)
        share = np.exp(log - log.max(-1, keepdims=True))
        pull = share / (share.sum(-1, keepdims=True) * variance)
        return alpha * pull @ self.means - pull.sum(1, keepdims=True) * x

    def noise(self, x: Array, alpha: float, sigma: float) -> Array:
        """The expected noise in x at a level: -sigma times the score."""
        return -sigma * self.score(x, alpha, sigma)

    def draw(self, generator: np.random.Generator, count: int) -> Array:
        """Data, [count, dimension]."""
        mode = generator.choice(len(self.weights), count, p=self.weights)
        return self.means[mode] + self.deviations[mode, None] * generator.standard_normal(
            (count, self.means.shape[1]))


def random_mixture(generator: np.random.Generator, *, modes: int = 12, dimension: int = 16
                   ) -> GaussianMixture:
    """Modes of unit variance over all coordinates together with their means."""
    weights = generator.dirichlet(np.full(modes, 4.0))
    return GaussianMixture(
        means=np.sqrt(0.9) * generator.standard_normal((modes, dimension)),
        deviations=generator.uniform(0.2, 0.4, modes), weights=weights)


def ddim_levels(steps: int) -> Array:
    """Levels [steps + 1, 2] of Stable Diffusion's schedule, evenly spaced; the last one is clean.

    Its betas are linear in their roots over 1,000 training steps.

    Raises
    ------
    ValueError
        If there are no steps, or more than in training.
    """
    if not 1 <= steps <= 1000:
        raise ValueError(f"Steps must be 1 to 1000, not {steps!r}")
    kept = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
    alpha = kept[np.linspace(999, 0, steps, endpoint=False).round().astype(int)]
    levels = np.stack([np.sqrt(alpha), np.sqrt(1 - alpha)], -1)
    return np.concatenate([levels, [[1.0, 0.0]]])


def flow_levels(steps: int) -> Array:
    """Levels [steps + 1, 2] of a rectified flow: noise to data in equal steps.

    Raises
    ------
    ValueError
        If there are no steps.
    """
    if steps < 1:
        raise ValueError(f"Steps must be at least 1, not {steps!r}")
    t = np.linspace(1, 0, steps + 1)
    t[0] = 1 - 1e-3  # alpha of 0 would leave no data to step to
    return np.stack([1 - t, t], -1)


def advance(x: Array, noise: Array, level: Array, following: Array) -> Array:
    """One step: the data that the noise says, and the noise, at the level that follows."""
    alpha, sigma = level
    return following[0] * (x - sigma * noise) / alpha + following[1] * noise


def exact_denoiser(mixture: GaussianMixture, levels: Array) -> Denoiser:
    """The noise of a mixture at each step."""
    return lambda x, step: mixture.noise(x, *levels[step])


def sample(denoise: Denoiser, x: Array, levels: Array) -> Array:
    """All steps one after the other."""
    for step in range(len(levels) - 1):
        x = advance(x, denoise(x, step), levels[step], levels[step + 1])
    return x

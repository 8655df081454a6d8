"""Reuse-then-predict run in full, where the noise is known exactly.

The error of sampling on ranks is the distance of its result from that of the same steps taken one
after the other, from the same start: root of the mean square over coordinates, of data whose
coordinates have variance 1. Beside it the same without reuse: a rank that waits for nothing and
predicts from the last latent that was sent, at its own step's level.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from splatforge.sim.systems.diffusion import (
    Denoiser,
    advance,
    ddim_levels,
    exact_denoiser,
    flow_levels,
    random_mixture,
    sample,
)

__all__ = ["Quality", "errors", "likeness", "reuse_then_predict", "unrelated_denoiser"]

Array = npt.NDArray[np.float64]
_MODES, _DIMENSION = 12, 16


def reuse_then_predict(denoise: Denoiser, x: Array, levels: Array, *, ranks: int, warm_up: int,
                       reuse: bool = True) -> tuple[Array, int]:
    """Sample as ParaStep's ranks do.

    Parameters
    ----------
    denoise : callable
        Gives the noise in x at a step.
    x : array
        Start, [batch, dimension].
    levels : array
        [steps + 1, 2].
    ranks, warm_up : int
        At least 1 and 0; steps that all ranks take in full first.
    reuse : bool
        Whether rank r reaches its step with the noise that it predicted a cycle ago; otherwise it
        takes the latent as it is.

    Returns
    -------
    x : array
        The result, [batch, dimension].
    calls : int
        Calls of the denoiser one after the other.

    Raises
    ------
    ValueError
        If ranks or warm-up are outside their ranges.
    """
    steps = len(levels) - 1
    if ranks < 1:
        raise ValueError(f"Ranks must be at least 1, not {ranks!r}")
    if not 0 <= warm_up <= steps:
        raise ValueError(f"Warm-up must be 0 to {steps} steps, not {warm_up!r}")
    cached: list[Array | None] = [None] * ranks
    calls = 0
    for step in range(warm_up):
        noise = denoise(x, step)
        cached = [noise] * ranks
        x = advance(x, noise, levels[step], levels[step + 1])
        calls += 1
    for first in range(warm_up, steps, ranks):
        cycle = range(first, min(first + ranks, steps))
        for rank, step in enumerate(cycle):
            there, old = x, cached[rank]
            if reuse and old is not None:
                for each in range(first, step):
                    there = advance(there, old, levels[each], levels[each + 1])
            cached[rank] = denoise(there, step)
        calls += 1
        for rank, step in enumerate(cycle):
            noise = cached[rank]
            assert noise is not None  # it was predicted above
            x = advance(x, noise, levels[step], levels[step + 1])
    return x, calls


def unrelated_denoiser(generator: np.random.Generator, levels: Array) -> Denoiser:
    """The exact noise of another mixture at every step, so that none says anything of the next."""
    mixtures = [random_mixture(generator, modes=_MODES, dimension=_DIMENSION)
                for _ in range(len(levels) - 1)]
    return lambda x, step: mixtures[step].noise(x, *levels[step])


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Errors of one setting.

    Parameters
    ----------
    ranks, warm_up : int
        The setting.
    reused, waited : array
        Error with reuse and without, by seed.
    """

    ranks: int
    warm_up: int
    reused: Array
    waited: Array


def _setting(seed: int, *, steps: int, unrelated: bool, schedule: str, batch: int
             ) -> tuple[Denoiser, Array, Array]:
    """Denoiser, levels and start of a seed."""
    schedules = {"ddim": ddim_levels, "flow": flow_levels}
    if schedule not in schedules:
        raise ValueError(f"Schedule must be one of {', '.join(schedules)}, not {schedule!r}")
    generator = np.random.default_rng(seed)
    levels = schedules[schedule](steps)
    if unrelated:
        denoise = unrelated_denoiser(generator, levels)
    else:
        mixture = random_mixture(generator, modes=_MODES, dimension=_DIMENSION)
        denoise = exact_denoiser(mixture, levels)
    return denoise, levels, generator.standard_normal((batch, _DIMENSION))


def errors(ranks: tuple[int, ...] = (2, 4, 8), warm_ups: tuple[int, ...] = (0, 5, 13), *,
           steps: int = 50, seeds: int = 10, seed: int = 0, unrelated: bool = False,
           schedule: str = "ddim", batch: int = 64) -> tuple[Quality, ...]:
    """Errors over ranks and warm-up.

    Parameters
    ----------
    ranks, warm_ups : tuple of int
        Settings: every one of the first with every one of the second.
    steps : int
        From noise to data.
    seeds, seed : int
        How many, each another mixture and other starts; the first.
    unrelated : bool
        The control: another mixture at each step.
    schedule : str
        ``ddim`` or ``flow``.
    batch : int
        Starts of a seed; the error is over all of them.
    """
    found: dict[tuple[int, int, bool], list[float]] = {}
    for each in range(seed, seed + seeds):
        denoise, levels, start = _setting(each, steps=steps, unrelated=unrelated,
                                          schedule=schedule, batch=batch)
        exact = sample(denoise, start, levels)
        for count in ranks:
            for warm_up in warm_ups:
                for reuse in (True, False):
                    x, _ = reuse_then_predict(denoise, start, levels, ranks=count,
                                              warm_up=warm_up, reuse=reuse)
                    found.setdefault((count, warm_up, reuse), []).append(
                        float(np.sqrt(((x - exact) ** 2).mean())))
    return tuple(
        Quality(ranks=count, warm_up=warm_up, reused=np.array(found[count, warm_up, True]),
                waited=np.array(found[count, warm_up, False]))
        for count in ranks for warm_up in warm_ups)


def likeness(*, steps: int = 50, seeds: int = 10, seed: int = 0, unrelated: bool = False,
             schedule: str = "ddim", batch: int = 64) -> float:
    """Mean cosine of the noise of adjacent steps, which reuse lives on."""
    cosines = []
    for each in range(seed, seed + seeds):
        denoise, levels, x = _setting(each, steps=steps, unrelated=unrelated, schedule=schedule,
                                      batch=batch)
        before = None
        for step in range(steps):
            noise = denoise(x, step)
            if before is not None:
                cosines.append(float(np.mean(
                    (noise * before).sum(-1)
                    / (np.linalg.norm(noise, axis=-1) * np.linalg.norm(before, axis=-1)))))
            before = noise
            x = advance(x, noise, levels[step], levels[step + 1])
    return float(np.mean(cosines))

"""ASTRAEA's selection of tokens and search of budgets, run on the small video denoiser.

A token's score is w_a LSE |change| + w_b exp(n): the log-sum-exp of its attention when it was last
computed, how far its input has moved since the step before, the number of steps in a row that it
was left out. Budgets of steps are found by evolution on some starts and judged on others. Beside
it, at no less computing: whole steps computed or left out, found by the same evolution; the same
share at every step; and keys and values left out with the tokens (as ToCa does). Two controls: a
score that is drawn at random, and a cache that hands each token what belongs to another.

What of the paper's order appears here: a searched budget is better than one share everywhere, and
that is better than leaving out keys. What does not: whole steps left out are better than tokens
left out, in 9 of 10 seeds where clips pan as a whole (37.1 against 35.5 dB) and in all ten where
one thing moves before a background that stands still (42.7 against 41.9 dB). There the half of the
tokens that change most carries 78 % of the change from step to step, against 65 %, and the gap is
half as wide; but a score that is told which tokens will change (:func:`informed_score`) does not
close it. It is not the choice that costs: tokens left out hand keys and values of other steps to
those computed, while a step left out reuses what belongs together.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import numpy.typing as npt

from splatforge.sim.systems.clips import TOKEN_WIDTH, TOKENS
from splatforge.sim.systems.video_denoiser import (
    BLOCKS,
    STEPS,
    BlockCache,
    Score,
    block,
    embed,
    full_run,
    normed,
    run_selected,
    shipped_weights,
    velocity,
)

__all__ = ["METHODS", "Evolution", "Judged", "busy_share", "informed_score", "judge",
           "lse_likeness", "psnr_db", "random_score", "search", "significance"]

Array = npt.NDArray[np.floating]

#: Best first, as the paper's ablation has them.
METHODS = ("astraea", "timestep_level", "fixed_share", "select_qk")
#: Weights of significance and penalty, as the paper has them.
_WEIGHT_CHANGE, _WEIGHT_SKIPPED = 1.0, 0.5
_LEVELS = np.linspace(0, 1, 11)


def significance(cache: BlockCache, change: Array) -> Array:
    """Scores of tokens, [batch, tokens]."""
    return (_WEIGHT_CHANGE * np.maximum(cache.lse, 0) * change
            + _WEIGHT_SKIPPED * np.exp(np.minimum(cache.skipped, 50)))


def random_score(seed: int) -> Score:
    """Scores that say nothing."""
    generator = np.random.default_rng(seed)
    return lambda _, change: generator.random(change.shape)


def informed_score(noise: Array, clips: str = "pan") -> Score:
    """A score that is told how each token will change: no choice can know more.

    Parameters
    ----------
    noise : array
        [batch, tokens, token width], of the run that it is for: one run alone, whose steps it
        counts, and which computes some tokens at each.
    clips : str
        What the network was trained on.

    Returns
    -------
    callable
        Scores are the change of a token's velocity in the full run since it was last computed,
        squared.
    """
    weights, tokens, last = shipped_weights(clips), noise, np.zeros_like(noise)
    changes = list[Array]()
    for step in range(STEPS):
        now = velocity(weights, tokens, np.full(len(noise), 1 - step / STEPS, np.float32))
        changes.append(((now - last) ** 2).sum(-1))
        last, tokens = now, tokens - now / np.float32(STEPS)
    calls = count(BLOCKS)  # the first step computes all and asks nobody

    def score(cache: BlockCache, _: Array) -> Array:
        step = next(calls) // BLOCKS
        back = np.arange(step)[:, None, None]
        return np.where(cache.skipped > back, np.stack(changes[1:step + 1][::-1]), 0).sum(0)
    return score


def starts(seed: int, batch: int) -> Array:
    """Noise, [batch, tokens, token width]."""
    return np.random.default_rng(seed).standard_normal((batch, TOKENS, TOKEN_WIDTH), np.float32)


def psnr_db(got: Array, wanted: Array) -> float:
    """Of clips, against those that all tokens give; the peak is the span of these."""
    error = float(((got - wanted) ** 2).mean())
    span = float(wanted.max() - wanted.min())
    return float(10 * np.log10(span**2 / max(error, 1e-20)))


@dataclass(frozen=True, kw_only=True)
class Evolution:
    """How long and how wide to search.

    Parameters
    ----------
    parents, children, generations : int
        Kept; made in a generation; generations. The paper has 50, 30 and 30.
    mutation : tuple of float
        Share of steps that mutate, in the first generation and in the last.
    prompts : int
        Starts that a budget is judged by.
    slack : float
        How far below the budget the mean share may lie, relative. The paper lets it lie above as
        well; here it does not, so that no method computes more than another.
    """

    parents: int = 16
    children: int = 12
    generations: int = 20
    mutation: tuple[float, float] = (0.1, 0.01)
    prompts: int = 2
    slack: float = 0.1

    def __post_init__(self) -> None:
        for name in ("parents", "children", "generations", "prompts"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name.capitalize()} must be at least 1, "
                                 f"not {getattr(self, name)!r}")
        if self.parents < 2:
            raise ValueError(f"Parents must be at least 2, not {self.parents!r}")


def _repaired(shares: Array, levels: Array, budget: float, slack: float,
              generator: np.random.Generator) -> Array:
    """Some shares moved a level up or down until their mean is within the budget."""
    index = np.abs(shares[:, None] - levels).argmin(1)
    index[0] = len(levels) - 1  # there is nothing cached yet
    top, bottom = budget * len(shares), (1 - slack) * budget * len(shares)
    while levels[index].sum() > top + 1e-9:
        may = np.flatnonzero(index[1:]) + 1
        index[generator.choice(may)] -= 1
    while levels[index].sum() < bottom - 1e-9:
        may = np.flatnonzero(index < len(levels) - 1)
        each = generator.choice(may)
        if levels[index].sum() + levels[index[each] + 1] - levels[index[each]] > top + 1e-9:
            break
        index[each] += 1
    return levels[index]


def search(error: Callable[[Array], float], budget: float, *, seed: int,
           evolution: Evolution | None = None, levels: Array = _LEVELS, steps: int = STEPS
           ) -> tuple[Array, list[float]]:
    """Shares of the steps whose error is least.

    Parameters
    ----------
    error : callable
        Takes shares [steps], gives what is to be made small.
    budget : float
        Highest mean share, in (1 / steps, 1].
    seed : int
        Of all choices.
    evolution : Evolution, optional
        How long and how wide.
    levels : array
        Shares that a step may have, ascending.
    steps : int
        Of the diffusion.

    Returns
    -------
    shares : array
        [steps].
    best : list of float
        The least error after the start and after every generation.

    Raises
    ------
    ValueError
        If the budget does not hold the first step, which is computed whole.
    """
    if not 1 / steps < budget <= 1:
        raise ValueError(f"Budget must be above 1 / {steps} and at most 1, not {budget!r}")
    how = evolution or Evolution()
    generator = np.random.default_rng(seed)

    def repaired(shares: Array) -> Array:
        return _repaired(shares, levels, budget, how.slack, generator)
    # Half of them hold whole steps alone: they are among what is searched, and rare by chance.
    parents = [repaired(generator.choice(levels if number % 2 else levels[[0, -1]], steps))
               for number in range(how.parents)]
    errors = [error(each) for each in parents]
    best = [min(errors)]
    for number in range(how.generations):
        progress = number / max(1, how.generations - 1)
        rate = how.mutation[0] * (how.mutation[1] / how.mutation[0]) ** progress
        for _ in range(how.children):
            one, other = (parents[each] for each in generator.choice(len(parents), 2, False))
            if generator.random() < 0.5:  # uniform crossover
                child = np.where(generator.random(steps) < 0.5, one, other)
            else:  # a block of steps
                first, last = np.sort(generator.integers(0, steps + 1, 2))
                child = one.copy()
                child[first:last] = other[first:last]
            child = np.where(generator.random(steps) < rate, generator.choice(levels, steps),
                             child)
            parents.append(repaired(child))
            errors.append(error(parents[-1]))
        kept = np.argsort(errors, kind="stable")[:how.parents]
        parents = [parents[each] for each in kept]
        errors = [errors[each] for each in kept]
        best.append(errors[0])
    return parents[int(np.argmin(errors))], best


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What the methods reach on starts that no search has seen.

    Parameters
    ----------
    psnr_db : mapping
        Method -> PSNR by seed.
    shares : mapping
        Method -> share of each step.
    """

    psnr_db: Mapping[str, Array]
    shares: Mapping[str, Array]

    def ordered(self, methods: Sequence[str] = METHODS) -> int:
        """Seeds in which each method is better than the next."""
        rows = np.stack([self.psnr_db[each] for each in methods])
        return int((np.diff(rows, axis=0) < 0).all(0).sum())

    def better(self, one: str, other: str) -> int:
        """Seeds in which a method is better than another."""
        return int((self.psnr_db[one] > self.psnr_db[other]).sum())


def judge(budget: float = 0.5, *, seeds: int = 10, seed: int = 0,
          evolution: Evolution | None = None, control: str = "none", batch: int = 2,
          methods: Sequence[str] = METHODS, clips: str = "pan") -> Judged:
    """Search budgets, then compare the methods.

    Parameters
    ----------
    budget : float
        Highest mean share of tokens.
    seeds, seed : int
        Of starts on which methods are compared, and the first; those of the search are others.
    evolution : Evolution, optional
        Of both searches.
    control : str
        ``none``; ``random``: a score drawn at random; ``foreign``: what is cached belongs to
        other tokens.
    batch : int
        Starts of a seed.
    methods : sequence of str
        Of :data:`METHODS`.
    clips : str
        What the network was trained on, as :func:`~.video_denoiser.shipped_weights` has it.

    Raises
    ------
    ValueError
        If control or clips are unknown, or the budget too small.
    """
    if control not in ("none", "random", "foreign"):
        raise ValueError(f"Control must be none, random or foreign, not {control!r}")
    how, weights = evolution or Evolution(), shipped_weights(clips)
    order = np.random.default_rng(0).permutation(TOKENS) if control == "foreign" else None

    def score(seed: int) -> Score:
        return random_score(seed) if control == "random" else significance

    def ran(noise: Array, shares: Array, seed: int, *, chosen_keys: bool = False) -> Array:
        return run_selected(weights, noise, [float(each) for each in shares], score(seed),
                            chosen_keys=chosen_keys, cache_order=order)
    seen = starts(10_000, how.prompts)
    whole = full_run(weights, seen)

    def error(shares: Array) -> float:
        return float(((ran(seen, shares, 0) - whole) ** 2).mean())
    shares: dict[str, Array] = {}
    if {"astraea", "select_qk"} & set(methods):
        shares["astraea"] = search(error, budget, seed=1, evolution=how)[0]
    if "timestep_level" in methods:
        shares["timestep_level"] = search(error, budget, seed=1, evolution=how,
                                          levels=np.array([0.0, 1.0]))[0]
    # One share at all steps behind the first, of the same sum.
    rest = (budget * STEPS - 1) / (STEPS - 1)
    shares["fixed_share"] = np.concatenate([[1.0], np.full(STEPS - 1, rest)])
    if "select_qk" in methods:
        shares["select_qk"] = shares["astraea"]
    found: dict[str, list[float]] = {method: [] for method in methods}
    for each in range(seed, seed + seeds):
        noise = starts(each, batch)
        wanted = full_run(weights, noise)
        for method in methods:
            got = ran(noise, shares[method], each + 1, chosen_keys=method == "select_qk")
            found[method].append(psnr_db(got, wanted))
    return Judged(psnr_db={method: np.array(each) for method, each in found.items()},
                  shares={method: shares[method] for method in methods})


def busy_share(clips: str = "pan", seeds: int = 10, batch: int = 2) -> float:
    """How much of a run's change falls to the half of the tokens that change most.

    Change is that of a token's velocity from a step to the next, squared and summed over steps: a
    token whose velocity stands still may be left out without error. Mean over starts; a half if all
    tokens change alike.
    """
    weights, found = shipped_weights(clips), []
    for seed in range(seeds):
        tokens = starts(seed, batch)
        last, total = None, np.zeros(tokens.shape[:2])
        for step in range(STEPS):
            now = velocity(weights, tokens, np.full(batch, 1 - step / STEPS, np.float32))
            if last is not None:
                total += ((now - last) ** 2).sum(-1)
            last, tokens = now, tokens - now / np.float32(STEPS)
        ordered = np.sort(total, 1)
        found.append(ordered[:, TOKENS // 2:].sum(1) / ordered.sum(1))
    return float(np.mean(found))


def lse_likeness(seeds: int = 10, batch: int = 2) -> float:
    """Cosine of the log-sum-exps of all tokens at adjacent steps, mean over steps and blocks."""
    weights, cosines = shipped_weights(), []
    for seed in range(seeds):
        tokens = starts(seed, batch)
        before: list[Array | None] = [None] * BLOCKS
        for step in range(STEPS):
            hidden, time = embed(weights, tokens, np.full(batch, 1 - step / STEPS, np.float32))
            for number in range(BLOCKS):
                added, lse = block(weights, number, hidden, time)
                last = before[number]
                if last is not None:
                    cosines.append(float(np.mean(
                        (lse * last).sum(-1)
                        / (np.linalg.norm(lse, axis=-1) * np.linalg.norm(last, axis=-1)))))
                before[number], hidden = lse, hidden + added
            tokens = tokens - normed(hidden) @ weights["out"] / np.float32(STEPS)
    return float(np.mean(cosines))

"""Gittins' rank of a job whose size is known as a distribution, and one server that follows it.

A job of age a has the rank ``inf over D of E[min(X - a, D) | X > a] / P(X - a <= D | X > a)``; the
one with the lowest is served. For one server with Poisson arrivals and sizes of a known
distribution no policy without more knowledge has a lower mean response time (Gittins 1979; Aalto,
Ayesta and Righter 2009). :func:`single_server` is that server, to hold the ranks to theory:
first come, first served must meet Pollaczek and Khinchine's formula, and no policy beats SRPT.
"""

import heapq
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

__all__ = ["Form", "gittins_rank", "pollaczek_khinchine", "rank_of_support", "single_server"]

#: Of the rank: as the paper has it, or as the authors' code computes it.
Form = Literal["paper", "code"]


def gittins_rank(samples: npt.NDArray[np.float64], attained: float, *, buckets: int = 10,
                 form: Form = "code") -> float:
    """Rank of a job by samples of its size, over equal steps up to the longest rest.

    Parameters
    ----------
    samples : ndarray
        Sizes, of shape [n].
    attained : float
        What it has had of it.
    buckets : int
        Steps, positive.
    form : str
        ``paper``: the work put in, of jobs that end and of those that do not. ``code``: the mean
        of the rests that end within the step alone, which ranks a job that may be long before
        where the paper's form does.

    Returns
    -------
    float
        The lower the sooner. Where all samples are used up, the longest of them: nothing is known
        but that it is a long one.

    Raises
    ------
    ValueError
        If there are no samples or no steps.
    """
    if not samples.size or buckets < 1:
        raise ValueError("Samples must hold one at least and buckets be positive, not "
                         f"{samples.size} and {buckets!r}")
    rest = samples[samples > attained] - attained
    if not rest.size:
        return float(samples.max())
    rest.sort()
    sums = np.cumsum(rest)
    steps = rest[-1] / buckets * np.arange(1, buckets + 1)
    # The last step ends at the longest rest, whatever rounding says.
    ended = np.searchsorted(rest, steps, side="right")
    ended[-1] = rest.size
    some = ended > 0
    ended, steps = ended[some], steps[some]
    done = sums[ended - 1]
    if form == "code":
        return float(np.min(done / ended / (ended / rest.size)))
    if form != "paper":
        raise ValueError(f"Form must be paper or code, not {form!r}")
    return float(np.min((done + (rest.size - ended) * steps) / ended))


def rank_of_support(sizes: Sequence[float], weights: Sequence[float], age: float) -> float:
    """The paper's rank of a distribution over few sizes, exact: a best step ends at one of them."""
    left = [(size - age, weight) for size, weight in zip(sizes, weights, strict=True)
            if size > age]
    rest = math.fsum(weight for _, weight in left)
    worked, ended, best = 0.0, 0.0, math.inf
    for size, weight in left:
        ended += weight
        worked += weight * size
        best = min(best, (worked + max(rest - ended, 0.0) * size) / ended)
    return best


def pollaczek_khinchine(sizes: Sequence[float], weights: Sequence[float], rate: float) -> float:
    """Mean response time of one server, first come, first served.

    Raises
    ------
    ValueError
        If it would never be done: the load is 1 or more.
    """
    mean = math.fsum(size * weight for size, weight in zip(sizes, weights, strict=True))
    square = math.fsum(size**2 * weight for size, weight in zip(sizes, weights, strict=True))
    if rate * mean >= 1:
        raise ValueError(f"Load must be below 1, not {rate * mean:g}")
    return mean + rate * square / (2 * (1 - rate * mean))


def single_server(policy: Literal["fcfs", "srpt", "gittins"], sizes: Sequence[float],
                  weights: Sequence[float], rate: float, *, jobs: int = 20_000, seed: int = 0
                  ) -> npt.NDArray[np.float64]:
    """Response times of one server that may put a job aside.

    Parameters
    ----------
    policy : str
        First come first served, shortest rest first (it knows the sizes), or Gittins' rank (it
        knows their distribution).
    sizes, weights : sequence of float
        Of the distribution, sizes ascending, weights of sum 1.
    rate : float
        Of the arrivals.
    jobs, seed : int
        How many; of what is drawn, which is the same for every policy.

    Returns
    -------
    ndarray
        Of shape [jobs], in the order of the arrivals.
    """
    rng = np.random.default_rng(seed)
    arrivals = np.cumsum(rng.exponential(1 / rate, jobs)).tolist()
    drawn = rng.choice(np.asarray(sizes, np.float64), size=jobs, p=weights).tolist()

    def rank(job: int, age: float) -> float:
        if policy == "fcfs":
            return float(job)
        if policy == "srpt":
            return drawn[job] - age
        return rank_of_support(sizes, weights, age)

    edges = {"gittins": list(sizes)}.get(policy, [])
    response = np.zeros(jobs)
    waiting: list[tuple[float, int, float]] = []
    now, following = 0.0, 0
    while following < jobs or waiting:
        if not waiting:
            now = max(now, arrivals[following])
        while following < jobs and arrivals[following] <= now:
            heapq.heappush(waiting, (rank(following, 0.0), following, 0.0))
            following += 1
        _, job, age = heapq.heappop(waiting)
        # Until it ends, until its rank jumps, or until another comes.
        stop = min([drawn[job], *(edge for edge in edges if edge > age)])
        until = now + stop - age
        if following < jobs and arrivals[following] < until:
            age += arrivals[following] - now
            now = arrivals[following]
        else:
            now, age = until, stop
        if age >= drawn[job]:
            response[job] = now - arrivals[job]
        else:
            heapq.heappush(waiting, (rank(job, age), job, age))
    return response

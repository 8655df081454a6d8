"""IGTCache: one cache for all jobs, which finds out how each data set is read (arXiv 2506.12370).

Of the paper the abstract is known: a tree of access streams, a hypothesis test for sequential,
random and skewed, and prefetching, eviction and space by pattern. All that makes a number here is
our design:

==============  ==================================================================================
sequential      reads ahead; what was read leaves first, and the latest of that first
random          nothing leaves once it is in, since nothing is better than anything else
skewed          LRU
space           to whom the next block brings most hits: of a random unit its rate over its blocks,
                of a skewed one the slope of its LRU curve, measured by stack distances
==============  ==================================================================================
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median

import numpy as np
import numpy.typing as npt

from splatforge.sim.costs import Sourced
from splatforge.sim.systems.access_traces import (
    Workload,
    make_workload,
    patterns_found,
    trace_workload,
)
from splatforge.sim.systems.block_cache import (
    BlockCache,
    Served,
    Store,
    lru_hits,
    stack_distances,
)
from splatforge.sim.systems.run import Curve, SystemRun
from splatforge.sim.systems.stream_tree import AccessStreamTree

__all__ = ["BASELINES", "allocate", "compare", "completion_gain", "hit_gain", "run", "serve",
           "worth_ahead"]

Floats = npt.NDArray[np.float64]

#: Caches that see one stream: their eviction.
BASELINES = ("lru", "2-random", "uniform")
#: Accesses between two looks at patterns and space, and those of a unit that a curve is of.
_STRETCH = 2000
_HISTORY = 8192
_MEMORY = 0.7
_NEXT_TO_NOTHING = 1e-12

NOT_COVERED = (
    "several requests of one job under way at once, other than by reading ahead",
    "writes, metadata, failures, blocks of several sizes",
    "the paper's own tests, windows and thresholds, which are not readable",
    "what classifying and moving space costs the cache's own machine",
)
ASSUMPTIONS = (
    "windows of 100 accesses, an error rate of 0.01, stretches of 2,000 accesses: our choice",
    "baselines read one block ahead inside a file; 2-random is the default of JuiceFS",
    "by default a store of 20 ms and 10 Gbit/s, blocks of 4 MiB, 5 ms of computing on each",
)


@dataclass(frozen=True)
class _Wish:
    """What a unit would do with space: hits for each block more, falling, and how many blocks."""

    slopes: Floats
    blocks: npt.NDArray[np.int64]


def _falling(sizes: npt.NDArray[np.int64], gains: Floats) -> _Wish:
    """Slopes of the upper concave hull of gains over sizes, from nought."""
    places = [(0, 0.0)]
    for size, gain in zip(sizes.tolist(), gains.tolist(), strict=True):
        while len(places) > 1 and (gain - places[-1][1]) * (places[-1][0] - places[-2][0]) \
                >= (places[-1][1] - places[-2][1]) * (size - places[-1][0]):
            places.pop()
        places.append((size, gain))
    steps = np.diff(np.array(places), axis=0)
    return _Wish(steps[:, 1] / steps[:, 0], steps[:, 0].astype(np.int64))


def allocate(capacity: int, wishes: list[_Wish]) -> list[int]:
    """Blocks for each unit, the steepest slope first.

    Parameters
    ----------
    capacity : int
        Blocks in all.
    wishes : list
        Of each unit; its slopes must not rise.
    """
    every = [(-slope, unit, place) for unit, wish in enumerate(wishes)
             for place, slope in enumerate(wish.slopes.tolist())]
    given = [0] * len(wishes)
    for slope, unit, place in sorted(every):
        if slope == 0 or capacity == 0:
            break
        more = min(capacity, int(wishes[unit].blocks[place]))
        given[unit] += more
        capacity -= more
    return given


def _shape(pattern: str, size: int, history: npt.NDArray[np.int64]) -> _Wish:
    """What a unit of `size` blocks would do with space, of each access to it."""
    if pattern == "sequential":
        # What comes again is worth what nobody else wants.
        again = _NEXT_TO_NOTHING if len(np.unique(history)) < len(history) else 0.0
        return _Wish(np.array([again]), np.array([size]))
    if pattern == "random":
        return _Wish(np.array([1 / size]), np.array([size]))
    sizes = np.unique(np.geomspace(1, size, 24).astype(np.int64))
    hits = lru_hits(stack_distances(history), sizes) / max(1, len(history))
    hull = _falling(sizes, hits)
    return _Wish(np.maximum(hull.slopes, _NEXT_TO_NOTHING), hull.blocks)


def _wish(shape: _Wish, rate: float, size: int, ahead: int) -> _Wish:
    """The same of a unit that is asked for at a rate; what it reads ahead comes before all."""
    first = min(2 * ahead + 1, size) if ahead else 0
    return _Wish(np.append(np.inf, shape.slopes * max(rate, _NEXT_TO_NOTHING)),
                 np.append(first, shape.blocks))


def worth_ahead(share: float, store: Store) -> int:
    """Blocks to read ahead where so many steps go to the next block, each on its own.

    The k-th is wanted with probability ``share**k``: it is worth the time it takes on the link as
    long as it saves more than that of waiting for a request.

    Parameters
    ----------
    share : float
        In [0, 1].
    store : Store
        Where blocks come from.
    """
    transfer_s = store.block_bytes / store.bytes_per_s
    if share >= 1:
        return 1 << 30
    if share <= 0 or not store.latency_s:
        return 0
    return int(math.log(transfer_s / (transfer_s + store.latency_s)) / math.log(share))


_EVICTION = {"sequential": "lru", "random": "uniform", "skewed": "lru", "unknown": "lru"}


def _aware(workload: Workload, capacity: int, store: Store, *, ahead: int, window: int,
           alpha: float, seed: int) -> tuple[Served, list[str]]:
    tree = AccessStreamTree(workload.paths, window=window, alpha=alpha)
    cache = BlockCache(workload.jobs, tree.nodes[0], tree.nodes[1], store, seed=seed)
    sizes = np.bincount(cache.unit)
    rates, history = np.zeros(tree.units), [np.zeros(0, np.int64)] * tree.units
    found, shapes = ["unknown"] * tree.units, [_shape("unknown", int(size), np.zeros(0, np.int64))
                                               for size in sizes]
    reads = [0] * tree.units
    # Before anything is known: in even parts.
    for unit in range(tree.units):
        cache.configure(unit, eviction="lru", quota=capacity // tree.units)
    while len(log := cache.serve(_STRETCH)):
        tree.record(log)
        asked = cache.unit[log]
        rates = _MEMORY * rates + (1 - _MEMORY) * np.bincount(
            asked, minlength=tree.units) / len(log)
        for unit in np.unique(asked).tolist():
            history[unit] = np.concatenate([history[unit], log[asked == unit]])[-_HISTORY:]
            found[unit] = pattern = tree.unit_pattern(unit)
            if pattern == "sequential" and not ahead:
                # To drop what was read gains nothing where nothing is read ahead.
                pattern = "skewed"
            shapes[unit] = _shape(pattern, int(sizes[unit]), history[unit])
            reads[unit] = ahead if pattern == "sequential" else min(
                ahead, worth_ahead(tree.next_share(unit), store))
        quotas = allocate(capacity, [
            _wish(shapes[unit], float(rates[unit]), int(sizes[unit]), reads[unit])
            for unit in range(tree.units)])
        for unit, quota in enumerate(quotas):
            dropped = found[unit] == "sequential" and ahead > 0
            cache.configure(unit, eviction="eager" if dropped else _EVICTION[found[unit]],
                            quota=quota, ahead=reads[unit], inside=not dropped)
    return cache.served(), found


def serve(workload: Workload, policy: str, cache: float, *, store: Store | None = None,
          ahead: int = 8, window: int = 100, alpha: float = 0.01, seed: int = 0
          ) -> tuple[Served, list[str]]:
    """Serve a workload.

    Parameters
    ----------
    workload : Workload
        What is asked for.
    policy : str
        ``igtcache``, or a cache that sees one stream: of :data:`BASELINES`.
    cache : float
        Capacity as a share of the different blocks asked for, in (0, 1].
    store : Store, optional
        Where blocks come from.
    ahead, window, alpha
        Blocks that a sequential unit reads ahead; as of
        :class:`~splatforge.sim.systems.stream_tree.AccessStreamTree`.
    seed : int
        Of 2-random.

    Returns
    -------
    served : Served
        What became of the jobs.
    found : list of str
        Pattern of each unit; none of a baseline.

    Raises
    ------
    ValueError
        If there is no such policy or a number is out of range.
    """
    if policy not in ("igtcache", *BASELINES):
        raise ValueError(f"Policy must be one of igtcache, {', '.join(BASELINES)}, not {policy!r}")
    if not 0 < cache <= 1 or ahead < 0:
        raise ValueError("Cache must be a share above 0 and up to 1 and ahead not negative, not "
                         f"{cache!r} and {ahead!r}")
    capacity, store = max(1, round(cache * workload.footprint)), store or Store()
    ahead = ahead if workload.stored else 0
    if policy == "igtcache":
        return _aware(workload, capacity, store, ahead=ahead, window=window, alpha=alpha, seed=seed)
    tree = AccessStreamTree(workload.paths)
    one = BlockCache(workload.jobs, tree.nodes[0] * 0, tree.nodes[1], store, seed=seed)
    one.configure(0, eviction=policy, quota=capacity, ahead=min(1, ahead))
    while len(one.serve(1 << 20)):
        pass
    return one.served(), []


def _load(mix: str, trace: str, seed: int, skew: float, compute_ms: float, latency_ms: float,
          rate_gbps: float, block_kib: int) -> tuple[Workload, Store]:
    store = Store(latency_s=latency_ms / 1e3, bytes_per_s=rate_gbps * 1e9 / 8,
                  block_bytes=block_kib * 1024)
    compute_s = compute_ms / 1e3
    return (trace_workload(trace, compute_s=compute_s) if trace else make_workload(
        mix, seed=seed, skew=skew, compute_s=compute_s)), store


def _metrics(served: Served) -> dict[str, float]:
    return {"hit_ratio": served.hit_ratio,
            "late_ratio": float(served.late.sum() / served.accesses.sum()),
            "fetched_over_accesses": served.fetched / float(served.accesses.sum()),
            "completion_s": served.mean_time_s}


def run(*, mix: str = "mixed", trace: str = "", cache: float = 0.4, ahead: int = 8,
        window: int = 100, alpha: float = 0.01, skew: float = 1.0, compute_ms: float = 5.0,
        latency_ms: float = 20.0, rate_gbps: float = 10.0, block_kib: int = 4096, seed: int = 0
        ) -> SystemRun:
    """Serve jobs by IGTCache and by what does not know patterns.

    Parameters
    ----------
    mix : str
        Jobs: mixed, shuffle+zipf, shuffle, zipf, loop or scan.
    trace : str
        Path of a block trace, in place of the jobs.
    cache : float
        Capacity as a share of the different blocks asked for.
    ahead, window, alpha, seed
        As of :func:`serve`.
    skew : float
        Exponent of Zipf's law, of jobs that are made.
    compute_ms : float
        On each block.
    latency_ms, rate_gbps, block_kib : float
        Of the store: of a request, Gbit/s of the link, KiB of a block.

    Raises
    ------
    ValueError
        If an option is out of range.
    """
    workload, store = _load(mix, trace, seed, skew, compute_ms, latency_ms, rate_gbps, block_kib)
    served, found = serve(workload, "igtcache", cache, store=store, ahead=ahead, window=window,
                          alpha=alpha, seed=seed)
    metrics = {**_metrics(served), "patterns_found": patterns_found(workload, found)}
    for pattern in ("sequential", "random", "skewed", "unknown"):
        metrics[f"units_{pattern}"] = found.count(pattern)
    for name in BASELINES:
        base, _ = serve(workload, name, cache, store=store, seed=seed)
        key = name.replace("-", "_")
        metrics[f"hit_ratio_{key}"] = base.hit_ratio
        metrics[f"completion_{key}_s"] = base.mean_time_s
        metrics[f"completion_saved_over_{key}"] = 1 - served.mean_time_s / base.mean_time_s
    shares = (0.1, 0.2, 0.4, 0.6, 0.8)
    curve = Curve(
        title="Hit ratio over capacity", x="cache over footprint", y="hit ratio", series={
            name: tuple((share, serve(workload, name, share, store=store, ahead=ahead, seed=seed
                                      )[0].hit_ratio)
                        for share in shares) for name in ("igtcache", *BASELINES)})
    known = () if workload.patterns[0] != "unknown" else (
        "patterns of a trace are not known: patterns_found says nothing",)
    return SystemRun(system="igtcache", metrics=metrics, curves=(curve,), not_covered=NOT_COVERED,
                     assumptions=(*ASSUMPTIONS, *known))


def compare(*, mix: str = "mixed", trace: str = "", cache: float = 0.4, skew: float = 1.0,
            compute_ms: float = 5.0, latency_ms: float = 20.0, rate_gbps: float = 10.0,
            block_kib: int = 4096, seed: int = 0) -> dict[str, SystemRun]:
    """IGTCache, LRU, 2-random and uniform on the same jobs; options as of :func:`run`."""
    workload, store = _load(mix, trace, seed, skew, compute_ms, latency_ms, rate_gbps, block_kib)
    return {name: SystemRun(
        system="igtcache", not_covered=NOT_COVERED, assumptions=ASSUMPTIONS,
        metrics=_metrics(serve(workload, name, cache, store=store, seed=seed)[0]))
        for name in ("igtcache", *BASELINES)}


def _gain(figure: Callable[[Served, Served], float], baseline: str, mixes: list[str],
          caches: list[float], seeds: int) -> Sourced:
    """Median over mixes, capacities and seeds, with the lowest and the highest as band."""
    every = []
    for mix in mixes:
        for seed in range(seeds):
            workload = make_workload(mix, seed=seed)
            one = partial(serve, workload, seed=seed)
            every += [figure(one("igtcache", cache=cache)[0], one(baseline, cache=cache)[0])
                      for cache in caches]
    return Sourced(max(0.0, median(every)), "1",
                   f"made jobs ({', '.join(mixes)}) over {baseline}, caches of "
                   f"{', '.join(f'{cache:g}' for cache in caches)} of the footprint",
                   max(0.0, min(every)), max(0.0, *every))


def hit_gain(mixes: list[str], caches: list[float], baseline: str = "2-random", seeds: int = 1
             ) -> Sourced:
    """Hit ratio gained over a baseline, as a share of the baseline's.

    Parameters
    ----------
    mixes : list of str
        Of :data:`~splatforge.sim.systems.access_traces.MIXES`.
    caches : list of float
        Capacities as shares of the footprint.
    baseline : str
        Of :data:`BASELINES`.
    seeds : int
        Workloads of each mix.
    """
    return _gain(lambda ours, base: ours.hit_ratio / base.hit_ratio - 1, baseline, mixes, caches,
                 seeds)


def completion_gain(mixes: list[str], caches: list[float], baseline: str = "2-random",
                    seeds: int = 1) -> Sourced:
    """Mean completion time of jobs saved, as a share of the baseline's; as :func:`hit_gain`."""
    return _gain(lambda ours, base: 1 - ours.mean_time_s / base.mean_time_s, baseline, mixes,
                 caches, seeds)

"""IGTCache: patterns at a stated error rate, a cache that is exact where theory is, and gains."""

import math
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splatforge.sim.systems import igtcache
from splatforge.sim.systems.access_traces import make_workload, read_trace, trace_workload
from splatforge.sim.systems.block_cache import BlockCache, Jobs, Store, lru_hits, stack_distances
from splatforge.sim.systems.stream_tree import AccessStreamTree, distinct_at_most, pattern_of

TRACES = Path(__file__).parents[2] / "shared" / "traces"
INSTANT = Store(latency_s=0.0, bytes_per_s=1e18)


def trace(name: str) -> Path:
    path = TRACES / name
    if not path.exists():
        pytest.skip(f"block trace {name} is not in ../shared/traces; traces are not committed")
    return path


# --- patterns ---


@pytest.mark.parametrize("items", [60, 5000, 10**6])
def test_uniform_draws_are_called_else_at_the_stated_rate(items: int) -> None:
    alpha, streams = 0.05, 1500
    rng = np.random.default_rng(items)
    wrong = sum(pattern_of(rng.integers(0, items, 100), items, alpha) != "random"
                for _ in range(streams))
    # Four standard deviations above; the gaps alone are exact at half the rate.
    spread = 4 * np.sqrt(alpha * (1 - alpha) / streams)
    assert alpha / 2 - spread < wrong / streams < alpha + spread


def test_patterns_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    counts = dict.fromkeys(("shuffle", "zipf", "scan", "back", "noisy"), 0)
    for _ in range(100):
        order = rng.permutation(2000)
        zipf = np.arange(1, 2001) ** -1.0
        counts["shuffle"] += pattern_of(order[:100], 2000) == "random"
        counts["zipf"] += pattern_of(
            order[rng.choice(2000, 100, p=zipf / zipf.sum())], 2000) == "skewed"
        start = rng.integers(0, 1900)
        counts["scan"] += pattern_of(np.arange(start, start + 100), 2000) == "sequential"
        counts["back"] += pattern_of(np.arange(start, start + 100)[::-1], 2000) == "sequential"
        noisy = np.arange(start, start + 100)
        noisy[rng.integers(0, 100, 15)] = rng.integers(0, 2000, 15)
        counts["noisy"] += pattern_of(noisy, 2000) == "sequential"
    assert min(counts.values()) >= 97, counts


def test_occupancy_is_exact() -> None:
    # Three draws of two: both the same with 1/4.
    assert distinct_at_most(3, 2) == pytest.approx([0, 0.25, 1, 1])
    rng = np.random.default_rng(1)
    seen = [len(np.unique(rng.integers(0, 300, 100))) for _ in range(4000)]
    assert np.mean(np.array(seen) <= 82) == pytest.approx(distinct_at_most(100, 300)[82], abs=0.03)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), length=st.integers(0, 300))
def test_tree_keeps_what_a_dictionary_keeps(seed: int, length: int) -> None:
    rng = np.random.default_rng(seed)
    paths = np.unique(rng.integers(0, 4, (30, 3)), axis=0)
    tree = AccessStreamTree(paths, window=5)
    leaves = rng.integers(0, len(paths), length)
    for part in np.array_split(leaves, 3):
        tree.record(part)
    seen: dict[tuple, list] = {}
    for leaf in leaves:
        for level in (1, 2):
            ring = seen.setdefault(tuple(paths[leaf, :level].tolist()), [])
            if not ring or ring[-1] != paths[leaf, level]:
                ring.append(int(paths[leaf, level]))
    for prefix, ring in seen.items():
        level = len(prefix) - 1
        row = np.flatnonzero((paths[:, :level + 1] == prefix).all(1))[0]
        children = np.unique(paths[(paths[:, :level + 1] == prefix).all(1), level + 1])
        wanted = "unknown" if len(ring) < 5 else pattern_of(
            np.searchsorted(children, ring[-5:]), len(children))
        assert tree.pattern(level, int(tree.nodes[level][row])) == wanted


# --- the cache ---


def one_job(blocks, *, eviction: str, quota: int, number: int | None = None, ahead: int = 0,
            store: Store = INSTANT, compute_s: float = 1.0, seed: int = 0):
    number = int(np.max(blocks)) + 1 if number is None else number
    nought = np.zeros(number, int)
    cache = BlockCache(Jobs(accesses=(np.asarray(blocks),), compute_s=(compute_s,)), nought, nought,
                       store, seed=seed)
    cache.configure(0, eviction=eviction, quota=quota, ahead=ahead)
    while len(cache.serve(777)):
        assert cache.used[0] <= quota
    return cache.served()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), quota=st.integers(1, 12))
def test_lru_is_lru(seed: int, quota: int) -> None:
    blocks = np.random.default_rng(seed).integers(0, 12, 400)
    held, hits = OrderedDict(), 0
    for block in blocks:
        hits += block in held
        held[block] = held.pop(block, None)
        if len(held) > quota:
            held.popitem(last=False)
    served = one_job(blocks, eviction="lru", quota=quota)
    assert int(served.hits[0]) == hits == lru_hits(stack_distances(blocks), [quota])[0]
    assert served.fetched == 400 - hits


def test_shuffled_epochs_as_theory_has_them() -> None:
    rng = np.random.default_rng(3)
    epochs = np.concatenate([rng.permutation(2000) for _ in range(6)])
    for share in (0.3, 0.5, 0.8):
        quota = int(2000 * share)
        later = 5 * 2000
        lru, two, uniform = (float(one_job(epochs, eviction=each, quota=quota).hits[0]) / later
                             for each in ("lru", "2-random", "uniform"))
        assert uniform == pytest.approx(share, abs=1e-9)
        assert lru == pytest.approx(share + (1 - share) * np.log(1 - share), abs=0.015)
        assert lru < two < uniform


def test_a_loop_defeats_lru_and_reading_ahead_hides_it() -> None:
    loop = np.tile(np.arange(500), 4)
    store = Store(latency_s=0.02)
    assert one_job(loop, eviction="lru", quota=400).hits[0] == 0
    # What was read last leaves first: all but one of the blocks stay.
    assert one_job(loop, eviction="eager", quota=400).hits[0] == pytest.approx(3 * 400, rel=0.02)
    far, near = (one_job(loop, eviction="eager", quota=40, ahead=each, store=store,
                         compute_s=5e-3) for each in (8, 1))
    assert far.hits[0] > 0.98 * len(loop)
    assert near.late[0] > 0.4 * len(loop)
    assert far.time_s[0] < near.time_s[0]
    # The link limits what reading ahead can do.
    slow = one_job(loop, eviction="eager", quota=40, ahead=8, compute_s=5e-3,
                   store=Store(latency_s=0.02, bytes_per_s=1e8))
    assert slow.time_s[0] >= slow.fetched * (4 << 20) / 1e8 - 1e-6


@pytest.mark.parametrize("eviction", ["lru", "2-random", "uniform", "eager"])
def test_time_moves_as_it_should(eviction: str) -> None:
    blocks = make_workload("zipf", items=500, length=3000).jobs.accesses[0]
    base = one_job(blocks, eviction=eviction, quota=100, store=Store(), compute_s=5e-3)
    for change in ({"store": Store(latency_s=0.01)}, {"store": Store(bytes_per_s=1e10)},
                   {"compute_s": 1e-3}, {"quota": 400}):
        faster = one_job(blocks, **({"eviction": eviction, "quota": 100, "store": Store(),
                                     "compute_s": 5e-3} | change))
        assert faster.time_s[0] < base.time_s[0]
    misses = 3000 - base.hits[0]
    assert base.time_s[0] == pytest.approx(
        3000 * 5e-3 + misses * (0.02 + (4 << 20) / 1.25e9))
    assert one_job(blocks, eviction=eviction, quota=0, store=Store()).hits[0] == 0


# --- the whole ---


SMALL = {"items": 1000, "length": 8000}


def test_gains_over_ten_seeds() -> None:
    for seed in range(10):
        workload = make_workload("mixed", seed=seed, **SMALL)
        ours, found = igtcache.serve(workload, "igtcache", 0.4, seed=seed)
        # All but a rare one: the test calls uniform draws something else in 1 of 100.
        assert sum(a == b for a, b in zip(found, workload.patterns, strict=True)) >= 4
        for name in igtcache.BASELINES:
            base, _ = igtcache.serve(workload, name, 0.4, seed=seed)
            assert ours.hit_ratio > base.hit_ratio
            assert ours.mean_time_s < base.mean_time_s


def test_where_it_must_not_gain() -> None:
    popular = make_workload("zipf", **SMALL)
    ours, base = (igtcache.serve(popular, each, 0.4)[0] for each in ("igtcache", "lru"))
    # What is skewed is LRU either way.
    assert ours.hit_ratio == pytest.approx(base.hit_ratio, abs=0.01)
    # Shuffles that nobody recognises are LRU as well.
    shuffled = make_workload("shuffle", **SMALL)
    blind, found = igtcache.serve(shuffled, "igtcache", 0.4, window=10**6)
    lru, _ = igtcache.serve(shuffled, "lru", 0.4)
    assert found == ["unknown"]
    assert blind.hit_ratio == pytest.approx(lru.hit_ratio, abs=0.005)
    assert igtcache.serve(shuffled, "igtcache", 0.4)[0].hit_ratio > 2 * lru.hit_ratio
    # Nor does anything gain where all fits.
    every = [igtcache.serve(shuffled, each, 1.0)[0].hit_ratio for each in ("igtcache", "lru")]
    assert every[0] == pytest.approx(every[1], abs=0.01)


def test_space_goes_where_it_brings_most() -> None:
    wish = igtcache._falling(np.array([1, 2, 4, 8]), np.array([4.0, 4.5, 8.0, 8.5]))
    assert (np.diff(wish.slopes) <= 0).all()
    assert int(wish.blocks.sum()) == 8
    given = igtcache.allocate(6, [wish, igtcache._Wish(np.array([2.0]), np.array([3]))])
    assert given == [3, 3] or sum(given) == 6
    assert igtcache.allocate(100, [wish]) == [8]
    store = Store()
    depths = [igtcache.worth_ahead(share, store) for share in (0.0, 0.1, 0.5, 0.9)]
    assert depths == sorted(depths)
    assert depths[0] == depths[1] == 0


def test_run_and_compare() -> None:
    run = igtcache.run(mix="shuffle")
    assert run.metrics["hit_ratio"] > run.metrics["hit_ratio_2_random"]
    assert run.metrics["patterns_found"] == 1
    assert len(run.curves[0].series["igtcache"]) == 5
    compared = igtcache.compare(mix="shuffle")
    assert compared["igtcache"].metrics["hit_ratio"] == run.metrics["hit_ratio"]
    assert set(compared) == {"igtcache", *igtcache.BASELINES}
    base = compared["lru"].metrics["completion_s"]
    for change in ({"latency_ms": 10.0}, {"rate_gbps": 40.0}, {"compute_ms": 2.0},
                   {"block_kib": 1024}, {"cache": 0.8}):
        faster = igtcache.compare(mix="shuffle", **change)["lru"].metrics["completion_s"]
        assert faster < base
    gain = igtcache.hit_gain(["shuffle"], [0.2, 0.6])
    assert 0 < gain.low < gain.high
    saved = igtcache.completion_gain(["shuffle"], [0.6])
    assert 0 < saved.value < 1


# --- traces ---


@pytest.mark.parametrize(("name", "pattern"), [("loop", "sequential"), ("scan", "sequential"),
                                               ("cs", "sequential")])
def test_traces_of_one_pattern(name: str, pattern: str) -> None:
    workload = trace_workload(trace(f"caffeine_lirs/{name}.trace.gz"), length=20_000)
    _, found = igtcache.serve(workload, "igtcache", 0.4)
    assert set(found) <= {pattern, "unknown"}
    assert pattern in found


def test_lru_on_a_trace_is_what_stack_distances_say() -> None:
    workload = trace_workload(trace("caffeine_lirs/2_pools.trace.gz"), length=20_000)
    blocks, quota = workload.jobs.accesses[0], round(0.4 * workload.footprint)
    assert one_job(blocks, eviction="lru", quota=quota).hits[0] \
        == lru_hits(stack_distances(blocks), [quota])[0]


def test_nothing_is_read_ahead_of_a_cache_of_keys() -> None:
    workload = trace_workload(trace("mooncake/conversation_trace.jsonl"), length=20_000)
    for policy in ("igtcache", "lru"):
        served, _ = igtcache.serve(workload, policy, 0.4)
        assert not served.late.any()
        assert served.fetched == served.accesses.sum() - served.hits.sum()


def test_read_trace(tmp_path) -> None:
    (tmp_path / "a.trace").write_text("3\n*\n1\n2\n*\n")
    assert read_trace(tmp_path / "a.trace").tolist() == [3, 1, 2]
    (tmp_path / "b.jsonl").write_text('{"hash_ids": [4, 5]}\n{"hash_ids": [4]}\n')
    assert read_trace(tmp_path / "b.jsonl").tolist() == [4, 5, 4]
    (tmp_path / "cloudphysics.trace").write_bytes(b"\1\0\0\0\2\1\0\0")
    assert read_trace(tmp_path / "cloudphysics.trace").tolist() == [1, 258]
    for name, text in (("c.trace", b"3\nx\n"), ("d.jsonl", b'{"ids": [1]}\n'), ("e.trace", b""),
                       ("f.trace.gz", b"no"), ("g.trace", b"-1\n")):
        (tmp_path / name).write_bytes(text)
        with pytest.raises(ValueError, match=rf"{name}: must (hold block numbers|be a whole)"):
            read_trace(tmp_path / name)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: igtcache.run(mix="all"), "Mix must be one of mixed, .* not 'all'"),
    (lambda: igtcache.run(cache=0.0), "Cache must be a share above 0 and up to 1"),
    (lambda: igtcache.serve(make_workload("zipf"), "fifo", 0.5), "Policy must be one of igtcache"),
    (lambda: make_workload("zipf", items=9), "Items must be at least 64"),
    (lambda: igtcache.run(skew=math.nan), "Items must be .* and the skew finite and not negative"),
    (lambda: pattern_of([1, 2], 3), "Children must be at least 4 accesses"),
    (lambda: pattern_of([1, 2, 3, 9], 9), "Children must be 0 to 8, not 1 to 9"),
    (lambda: AccessStreamTree([[0, 1], [0, 0]]), "Paths must be in lexicographic order"),
    (lambda: AccessStreamTree([[0, 0], [0, 0]]), "Paths must be in lexicographic order"),
    (lambda: Store(bytes_per_s=0), "Store must have a latency"),
])
def test_refuses(call, message) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        call()

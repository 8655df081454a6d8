"""eLLM: activations and KV cache of LLM serving in one elastic pool (arXiv 2506.15155).

A server that keeps activations and KV cache apart reserves, before the first request, what the
activations of its longest context take (vLLM's profile run, its issue 8185): the cache gets what is
left. eLLM maps chunks of physical memory to the one or the other as an iteration needs them.

:func:`capacity` is what follows from the sizes alone: the pools, the batch, the time of a step of
decoding. :func:`serve` serves requests iteration by iteration under one of :data:`POLICIES`:

===============  ===================================================================================
``static``       a reserve for the longest context; prompts whole (vLLM)
``chunked``      a reserve for a chunk; chunks of prompts beside decoding (vLLM, chunked prefill)
``elastic``      one pool; cache and activations of a batch are admitted together or not at all
``elastic_cpu``  the same, and what the device has no room for is prefilled to the host, layer by
                 layer, and fetched later; a controller says how much (:class:`.SloControl`)
===============  ===================================================================================
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from itertools import count as counting
from typing import Any

import numpy as np

from splatforge.sim.costs import Sourced
from splatforge.sim.systems.cards import DeviceCard, ModelCard, constant, device, model
from splatforge.sim.systems.elastic import CHUNK_BYTES, ElasticMemory, SloControl
from splatforge.sim.systems.links import Link
from splatforge.sim.systems.roofline import (
    End,
    Machine,
    banded,
    end_of,
)
from splatforge.sim.systems.run import Curve, SystemRun
from splatforge.sim.systems.serving import (
    Engine,
    Fcfs,
    PagedMemory,
    Request,
    RooflineTimes,
    Served,
    prefill_pairs,
)
from splatforge.sim.systems.workload import Workload, workload

__all__ = ["POLICIES", "Capacity", "Outcome", "Setting", "activation_bytes", "activation_share",
           "batch_ratio", "capacity", "compare", "goodput", "goodput_ratio",
           "isolation_loss", "prompts_below", "reserve_in_decode", "run", "serve"]

POLICIES = ("static", "chunked", "elastic", "elastic_cpu")
NOT_COVERED = (
    "sampling, tokenizing and the Python of the server between iterations",
    "where chunks lie: ranges are virtual, so best fit and BFC always find one",
    "several devices that split layers otherwise than tensor parallel",
    "reuse of prefixes between requests",
)
_SOURCE = "splatforge.sim.systems.ellm"
#: Iterations from one sample of the pool to the next.
_SAMPLED = 64
#: Points of a curve at most.
_DRAWN = 200


def activation_bytes(card: ModelCard, tokens: float, *, ranks: int = 1,
                     element_bytes: float = 2.0) -> float:
    """Peak of the activations of so many tokens in one batch, on one of `ranks` devices.

    The largest moment of a layer is its feed-forward part: what goes into the activation function
    (twice the width with a gate) and what comes out of it, split over the ranks, and three buffers
    of the model's width: residual, normed input, output.
    """
    inner = (3 if card.gated else 2) * card.ff / ranks
    return tokens * element_bytes * (inner + 3 * card.hidden)


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """Pools of both ways of keeping memory, in bytes, and what they hold.

    Parameters
    ----------
    weights, static_pool, elastic_pool : float
        Bytes of the weights; left for the KV cache with a reserve for the longest context, and
        without.
    static_batch, elastic_batch : int
        Sequences of the context that fit.
    static_tokens_per_s, elastic_tokens_per_s : float
        Rate of decoding with them.
    """

    weights: float
    static_pool: float
    elastic_pool: float
    static_batch: int
    elastic_batch: int
    static_tokens_per_s: float
    elastic_tokens_per_s: float

    @property
    def batch_ratio(self) -> float:
        """Elastic over static batch; infinite where elastic memory alone has room, NaN if none."""
        if not self.static_batch:
            return math.inf if self.elastic_batch else math.nan
        return self.elastic_batch / self.static_batch

    @property
    def isolation_loss(self) -> float:
        """Share of the elastic rate that is lost by keeping them apart."""
        if not self.elastic_tokens_per_s:
            return 0.0
        return 1 - self.static_tokens_per_s / self.elastic_tokens_per_s


def capacity(card: DeviceCard, network: ModelCard, *, context: int, longest: int,
             utilisation: float = 0.9, ranks: int = 1, end: End = "value") -> Capacity:
    """What fits with either way of keeping memory.

    Parameters
    ----------
    context : int
        Tokens of each sequence.
    longest : int
        Tokens of the longest context that the static server is ready for.
    utilisation : float
        Share of the device's memory that the server takes.
    ranks : int
        Devices that split every layer.

    Raises
    ------
    ValueError
        If the weights do not fit, or a number is out of range.
    """
    if not 0 < context <= longest:
        raise ValueError(f"Context must be 1 to the longest, {longest}, not {context!r}")
    setting = Setting(card=card, network=network, longest=longest, utilisation=utilisation,
                      ranks=ranks, end=end)
    weights, times = network.weight_bytes(), setting.times()
    sequence = context * network.kv_bytes_per_token()
    pools = (max(setting.pool - setting.activations(longest), 0.0), setting.pool)
    batches, rates = list[int](), list[float]()
    # In decoding every sequence of the elastic pool needs the activations of one token beside.
    for pool, own in zip(pools, (0.0, setting.activations(1)), strict=True):
        batch = math.floor(pool / (sequence + own))
        batches.append(batch)
        step_s = times.iteration_s(0, 0.0, 0, 0, batch, batch * context)
        rates.append(batch / step_s if batch else 0.0)
    return Capacity(weights=weights, static_pool=pools[0], elastic_pool=pools[1],
                    static_batch=batches[0], elastic_batch=batches[1],
                    static_tokens_per_s=rates[0], elastic_tokens_per_s=rates[1])


def batch_ratio(device_name: str = "a100_80gb", model_name: str = "llama3_8b",
                context: int = 131_072, longest: int = 262_144) -> Sourced:
    """Batch that fits with elastic over that with static memory.

    Raises
    ------
    ValueError
        If static memory has no room for one sequence.
    """
    found = capacity(device(device_name), model(model_name), context=context, longest=longest)
    if not found.static_batch:
        raise ValueError(f"{device_name} must have room for {model_name} with {context} tokens "
                         f"beside activations of {longest}")
    return Sourced.exact(found.batch_ratio, "1", _SOURCE)


def isolation_loss(device_name: str = "a100_80gb", model_name: str = "llama3_8b",
                   contexts: tuple[int, ...] = (8_192, 32_768, 65_536),
                   longest: int = 262_144) -> Sourced:
    """Share of the rate of decoding that static memory loses: the middle of contexts, and all."""
    found = [banded(lambda end, context=context: capacity(
        device(device_name), model(model_name), context=context, longest=longest, end=end
    ).isolation_loss, "1", _SOURCE) for context in contexts]
    middle = sorted(found, key=lambda each: each.value)[len(found) // 2]
    return replace(middle, low=min(each.low for each in found),
                   high=max(each.high for each in found))


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A server and its targets.

    Parameters
    ----------
    card : DeviceCard
        The device.
    network : ModelCard
        The model.
    longest : int
        Longest context, in tokens.
    utilisation : float
        Share of the device's memory that the server takes.
    chunk_tokens : int
        Budget of an iteration with chunks; 512 is vLLM 0.5's.
    host_bytes : float
        Memory of the host for caches.
    max_sequences : int
        Most that run at once; 256 is vLLM's.
    ranks : int
        Devices that split every layer; memory and reserves are those of all of them.
    ttft_scale, tpot_scale : float
        Targets in units of what an idle server takes: of the same prompt alone, of one sequence's
        step. The paper's targets are not known.
    ttft_floor_s : float
        No target for the first token is below.
    end : str
        Of the constants' bands.
    """

    card: DeviceCard
    network: ModelCard
    longest: int = 262_144
    utilisation: float = 0.9
    chunk_tokens: int = 512
    host_bytes: float = 128e9
    max_sequences: int = 256
    ranks: int = 1
    ttft_scale: float = 10.0
    tpot_scale: float = 10.0
    ttft_floor_s: float = 1.0
    end: End = "value"

    def __post_init__(self) -> None:
        for name in ("longest", "chunk_tokens", "max_sequences", "ranks", "ttft_scale",
                     "tpot_scale"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive and finite, "
                                 f"not {getattr(self, name)!r}")
        if not 0 < self.utilisation <= 1:
            raise ValueError(f"utilisation must be in (0, 1], not {self.utilisation!r}")
        if not 0 <= self.host_bytes < math.inf:
            raise ValueError(f"host_bytes must be non-negative and finite, "
                             f"not {self.host_bytes!r}")

    @property
    def pool(self) -> float:
        """Bytes beside the weights.

        Raises
        ------
        ValueError
            If there are none.
        """
        left = (self.ranks * self.utilisation * self.card.memory.value
                - self.network.weight_bytes())
        if left <= 0:
            raise ValueError(f"{self.network.title} must fit on {self.card.name}: its weights are "
                             f"{self.network.weight_bytes() / 2**30:.1f} GiB")
        return left

    def activations(self, tokens: int) -> float:
        """Bytes of the activations of a batch, on all devices."""
        return self.ranks * activation_bytes(self.network, tokens, ranks=self.ranks)

    def times(self) -> RooflineTimes:
        """How long iterations take."""
        link = Link.between(self.card, end=self.end) if self.ranks > 1 else None
        return RooflineTimes(Machine.of(self.card, end=self.end), self.network, ranks=self.ranks,
                             link=link)

    def memory(self, policy: str) -> PagedMemory | ElasticMemory:
        """Memory under a policy.

        Raises
        ------
        ValueError
            If the policy is not known, or leaves no room for a cache.
        """
        token = self.network.kv_bytes_per_token()
        block = max(int(CHUNK_BYTES // token), 1)
        if policy in ("static", "chunked"):
            reserve = self.longest if policy == "static" else self.chunk_tokens
            left = self.pool - self.activations(reserve)
            if left < block * token:
                raise ValueError(f"Longest context must leave room for a cache beside activations "
                                 f"of {self.activations(reserve) / 2**30:.1f} GiB, "
                                 f"not be {self.longest}")
            return PagedMemory(int(left // (block * token)), block)
        if policy not in POLICIES:
            raise ValueError(f"Policy must be one of {', '.join(POLICIES)}, not {policy!r}")
        return ElasticMemory(
            int(self.pool // CHUNK_BYTES), block_tokens=block,
            activation_bytes_per_token=self.activations(1),
            map_s=end_of(constant("memory.map").to("s"), self.end, rate=False),
            unmap_s=end_of(constant("memory.unmap").to("s"), self.end, rate=False),
            host_blocks=int(self.host_bytes // CHUNK_BYTES) if policy == "elastic_cpu" else 0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What a policy made of requests.

    Parameters
    ----------
    served : Served
        What the engine says.
    memory : PagedMemory or ElasticMemory
        As it was left.
    attained : float
        Share of all requests whose first token and whose tokens behind it were in time.
    metrics : dict
        Name -> value.
    pool : list of tuple
        Of an elastic pool, every so often (time, chunks by state, chunks on the host).
    """

    served: Served
    memory: PagedMemory | ElasticMemory
    attained: float
    metrics: dict[str, float]
    pool: list[tuple[float, dict[str, int], int]]


def serve(setting: Setting, policy: str, requests: list[Request]) -> Outcome:
    """Serve requests under a policy.

    Raises
    ------
    ValueError
        If the policy is not known or the model does not fit.
    """
    memory = setting.memory(policy)
    times = setting.times()

    def alone_s(tokens: int) -> float:
        return times.iteration_s(tokens, prefill_pairs(tokens), tokens, 1, 0, 0)

    step_s = setting.tpot_scale * times.iteration_s(0, 0.0, 0, 0, 1, 1)
    targets = {request.number: max(setting.ttft_floor_s,
                                   setting.ttft_scale * alone_s(request.input_tokens))
               for request in requests}
    control = None
    note: Callable[[float, float, list[Request]], None] | None = None
    pool = list[tuple[float, dict[str, int], int]]()
    if isinstance(memory, ElasticMemory):
        if memory.host_blocks:
            control = SloControl(memory=memory, tpot_s=step_s)
        iterations = counting()

        def watch(now_s: float, gap_s: float, fresh: list[Request]) -> None:
            if control is not None:
                control.note(gap_s, any(request.ttft_s > targets[request.number]
                                        for request in fresh))
            if next(iterations) % _SAMPLED == 0:
                pool.append((now_s, memory.states(), memory.host_used))

        note = watch
    engine = Engine(
        times, memory, Fcfs(), max_sequences=setting.max_sequences,
        max_batched_tokens=setting.longest,
        chunk_tokens=setting.chunk_tokens if policy == "chunked" else 0,
        host_bytes_per_s=setting.ranks * times.machine.pcie_bytes_per_s,
        token_bytes=setting.network.kv_bytes_per_token(), on_iteration=note)
    engine.add(requests)
    served = engine.run()
    done = served.requests
    met = sum(request.ttft_s <= targets[request.number] and request.tpot_s <= step_s
              for request in done)
    answered = sum(request.output_tokens for request in done)
    places = served.wasted_tokens
    metrics: dict[str, float] = {
        "requests": len(done), "refused": len(served.refused),
        "slo_attained": met / len(requests) if requests else 1.0,
        "goodput_per_s": met / served.end_s if served.end_s else 0.0,
        "output_tokens_per_s": answered / served.end_s if served.end_s else 0.0,
        "batch_mean": served.batch_steps / served.decode_steps if served.decode_steps else 0.0,
        "batch_largest": served.largest_batch, "preemptions": served.preemptions,
        "cache_tokens_wasted_mean": places / served.decode_steps if served.decode_steps else 0.0,
    }
    for name, values in (("ttft", [request.ttft_s for request in done]),
                         ("tpot", [request.tpot_s for request in done])):
        if values:
            metrics[f"{name}_mean_s"] = float(np.mean(values))
            for percent in (50, 90, 99):
                metrics[f"{name}_p{percent}_s"] = float(np.percentile(values, percent))
    if isinstance(memory, ElasticMemory):
        metrics |= {"chunks": memory.chunks, "chunks_inflated": memory.inflated,
                    "chunks_deflated": memory.deflated, "chunks_mapped": memory.mapped}
    return Outcome(served=served, memory=memory, metrics=metrics, pool=pool,
                   attained=metrics["slo_attained"])


def goodput(setting: Setting, policy: str, load: Workload, *, attained: float = 0.9,
            steps: int = 6, seed: int = 0) -> float:
    """Highest rate, in requests per second, at which a share of the requests is in time.

    Parameters
    ----------
    load : Workload
        Whose lengths the requests have; they come at random (Poisson), the same for every policy.
    attained : float
        Share that must be in time.
    steps : int
        Of a bisection of the logarithm of the rate: from a 32nd to twice what prompts one after
        the other take.
    seed : int
        Of the arrivals.
    """
    count = load.arrival_s.size
    times = setting.times()
    alone = np.mean([times.iteration_s(tokens, prefill_pairs(tokens), tokens, 1, 0, 0)
                     for tokens in load.input_tokens.tolist()])
    random = replace(load, arrival_s=np.cumsum(
        np.random.default_rng(seed).exponential(size=count)))
    low, high = 1 / (32 * float(alone)), 2 / float(alone)
    if serve(setting, policy, random.requests(load=low)).attained < attained:
        return 0.0
    for _ in range(steps):
        middle = math.sqrt(low * high)
        met = serve(setting, policy, random.requests(load=middle)).attained >= attained
        low, high = (middle, high) if met else (low, middle)
    return low


@cache
def _goodput(device_name: str, model_name: str, trace: str, policy: str, count: int,
             seed: int, scale: float) -> float:
    setting = Setting(card=device(device_name), network=model(model_name), ttft_scale=scale,
                      tpot_scale=scale)
    return goodput(setting, policy, workload(trace, seed=seed, count=count))


def goodput_ratio(over: str, device_name: str = "a100_80gb", model_name: str = "llama3_8b",
                  trace: str = "mooncake", count: int = 100, seed: int = 0,
                  scales: tuple[float, ...] = (5.0, 10.0, 20.0)) -> Sourced:
    """Goodput of eLLM over that of a policy; the band is that over targets.

    Parameters
    ----------
    over : str
        Of :data:`POLICIES`.
    scales : tuple of float
        Targets in units of what an idle server takes, first and second alike; the middle one is
        the value's.

    Raises
    ------
    ValueError
        If the policy meets its targets at no rate, or a name is not known.
    """
    found = []
    for scale in scales:
        ours, theirs = (_goodput(device_name, model_name, trace, policy, count, seed, scale)
                        for policy in ("elastic_cpu", over))
        if not theirs:
            raise ValueError(f"{over} meets its targets at no rate: ask for wider ones than "
                             f"{scale:g}")
        found.append(ours / theirs)
    return Sourced(found[len(found) // 2], "1", _SOURCE, min(found), max(found))


def activation_share(model_name: str, tokens: int, device_names: tuple[str, ...] = ("a100_80gb",),
                     ranks: int = 1) -> Sourced:
    """Share of a device's memory that the activations of a batch take.

    Parameters
    ----------
    device_names : tuple of str
        Devices that it may have been, the first for the value.
    """
    found = [activation_bytes(model(model_name), tokens, ranks=ranks) / device(name).memory.value
             for name in device_names]
    return Sourced(found[0], "1", _SOURCE, min(found), max(found))


def reserve_in_decode(batch: int = 256, longest: int = 262_144) -> Sourced:
    """Share of the reserve for the longest context that a step of decoding uses."""
    return Sourced.exact(batch / longest, "1", _SOURCE)


def prompts_below(tokens: int, trace: str = "sharegpt") -> Sourced:
    """Share of the prompts of a trace that are shorter."""
    from splatforge.sim.systems.workload import draw

    lengths = draw(trace, count=20_000).input_tokens
    return Sourced.exact(float(np.mean(lengths < tokens)), "1", _SOURCE)


def run(*, policy: str = "elastic_cpu", device_name: str = "a100_80gb",
        model_name: str = "llama3_8b", context: int = 131_072, longest: int = 262_144,
        trace: str = "azure_conv", traces: str = "", load: float = 1.0, count: int = 0,
        ranks: int = 1, host_gib: float = 128.0, chunk_tokens: int = 512,
        ttft_scale: float = 10.0, tpot_scale: float = 10.0, seed: int = 0) -> SystemRun:
    """Pools and batch of one context, and a trace served under one policy.

    Parameters
    ----------
    policy, device_name, model_name, trace : str
        Names.
    context, longest : int
        Tokens of the sequences of the batch, and of the longest context.
    traces : str
        Folder of the traces; without it requests are drawn from their statistics.
    load : float
        How much faster than in the trace requests come.
    count : int
        Requests; 0 for all.
    ranks, host_gib, chunk_tokens, ttft_scale, tpot_scale
        As in :class:`Setting`.
    """
    found = capacity(device(device_name), model(model_name), context=context, longest=longest,
                     ranks=ranks)
    gib = 2**30
    made = _served(
        policy, trace, traces, load, count, seed, device_name=device_name, model_name=model_name,
        longest=longest, ranks=ranks, host_gib=host_gib, chunk_tokens=chunk_tokens,
        ttft_scale=ttft_scale, tpot_scale=tpot_scale)
    return replace(
        made, metrics={
            "weights_gib": found.weights / gib,
            "static_pool_gib": found.static_pool / gib,
            "elastic_pool_gib": found.elastic_pool / gib,
            "static_batch": found.static_batch, "elastic_batch": found.elastic_batch,
            # Where static memory has no room there is no ratio.
            **({"batch_ratio": found.batch_ratio} if found.static_batch else {}),
            "static_decode_tokens_per_s": found.static_tokens_per_s,
            "elastic_decode_tokens_per_s": found.elastic_tokens_per_s,
            "isolation_loss": found.isolation_loss,
            **made.metrics},
        assumptions=(f"pools and batches: all sequences of {context:,} tokens",
                     *made.assumptions))


def _thin(samples: list[Any]) -> list[Any]:
    """At most so many of them as a plot can show."""
    return samples[::-(-len(samples) // _DRAWN) or 1]


def _served(policy: str, trace: str, traces: str, load: float, requests: int, seed: int, *,
            device_name: str, model_name: str, host_gib: float, **options: Any) -> SystemRun:
    """A trace served under a policy; other options as in :class:`Setting`."""
    if requests < 0 or seed < 0:
        raise ValueError(f"count and seed must be non-negative, not {requests!r} and {seed!r}")
    setting = Setting(card=device(device_name), network=model(model_name),
                      host_bytes=host_gib * 2**30, **options)
    coming = workload(trace, traces=traces, seed=seed, count=requests or None)
    outcome = serve(setting, policy, coming.requests(load=load, count=requests or None))
    samples, pool = _thin(outcome.served.samples), _thin(outcome.pool)
    curves = [Curve(title="sequences", x="s", y="sequences", series={
        "running": tuple((time, float(number)) for time, number, _ in samples),
        "waiting": tuple((time, float(number)) for time, _, number in samples)})]
    if pool:
        gib = CHUNK_BYTES / 2**30
        curves.append(Curve(title="memory", x="s", y="GiB", series={
            "caches": tuple((time, gib * each["kv_used"]) for time, each, _ in pool),
            "mapped for caches": tuple(
                (time, gib * each["kv_idle"]) for time, each, _ in pool),
            "mapped for activations": tuple(
                (time, gib * (each["act_idle"] + each["act_used"]))
                for time, each, _ in pool),
            "caches on the host": tuple((time, gib * host) for time, _, host in pool)}))
    return SystemRun(
        system="ellm", metrics=outcome.metrics, not_covered=NOT_COVERED, curves=tuple(curves),
        assumptions=(
            f"{model_name} on {setting.ranks} x {device_name}",
            f"{policy}, load {load:g}: {coming.name}, {coming.source}",
            (f"targets (ours): {setting.ttft_scale:g} and {setting.tpot_scale:g} times what an "
             "idle server takes")))


def compare(*, device_name: str = "a100_80gb", model_name: str = "llama3_8b",
            longest: int = 262_144, trace: str = "mooncake", traces: str = "", load: float = 0.1,
            count: int = 600, ranks: int = 1, host_gib: float = 128.0, chunk_tokens: int = 512,
            ttft_scale: float = 10.0, tpot_scale: float = 10.0, seed: int = 0
            ) -> dict[str, SystemRun]:
    """All policies under the same requests; options as those of :func:`run`."""
    return {policy: _served(
        policy, trace, traces, load, count, seed, device_name=device_name, model_name=model_name,
        longest=longest, ranks=ranks, host_gib=host_gib, chunk_tokens=chunk_tokens,
        ttft_scale=ttft_scale, tpot_scale=tpot_scale) for policy in POLICIES}

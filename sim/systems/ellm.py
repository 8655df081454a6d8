"""eLLM: activations and KV cache of LLM serving in one elastic pool (arXiv 2506.15155).

A server that keeps activations and KV cache apart reserves, before the first request, what the
activations of its longest context take (vLLM's profile run, its issue 8185): the cache gets what is
left. eLLM maps chunks of physical memory to the one or the other as an iteration needs them.

:func:`capacity` is what follows from the sizes alone: the pools, the batch, the time of a step of
decoding.
"""

import math
from dataclasses import dataclass, replace

from splatforge.sim.costs import Sourced
from splatforge.sim.systems.cards import DeviceCard, ModelCard, device, model
from splatforge.sim.systems.roofline import End, Machine, banded, decoder_layer, linear
from splatforge.sim.systems.run import Curve, SystemRun

__all__ = ["Capacity", "activation_bytes", "batch_ratio", "capacity", "compare", "decode_step_s",
           "isolation_loss", "run"]

NOT_COVERED = (
    "fragmentation inside kernels' own workspaces",
    "sampling, tokenizing and the Python of the server between iterations",
)
_SOURCE = "splatforge.sim.systems.ellm"


def activation_bytes(card: ModelCard, tokens: float, *, ranks: int = 1,
                     element_bytes: float = 2.0) -> float:
    """Peak of the activations of so many tokens in one batch, on one of `ranks` devices.

    The largest moment of a layer is its feed-forward part: what goes into the activation function
    (twice the width with a gate) and what comes out of it, split over the ranks, and three buffers
    of the model's width: residual, normed input, output.
    """
    inner = (3 if card.gated else 2) * card.ff / ranks
    return tokens * element_bytes * (inner + 3 * card.hidden)


def decode_step_s(machine: Machine, card: ModelCard, batch: float, context: float) -> float:
    """One token for each sequence of a batch, of `context` tokens each."""
    layer = machine.time_s(decoder_layer(card, 1, context, sequences=batch))
    return card.layers * layer + machine.time_s(linear("head", batch, card.hidden, card.vocab))


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
        """Elastic over static batch; 0 where nothing fits either way."""
        return self.elastic_batch / self.static_batch if self.static_batch else 0.0

    @property
    def isolation_loss(self) -> float:
        """Share of the elastic rate that is lost by keeping them apart."""
        if not self.elastic_tokens_per_s:
            return 0.0
        return 1 - self.static_tokens_per_s / self.elastic_tokens_per_s


def capacity(card: DeviceCard, network: ModelCard, *, context: int, longest: int,
             utilisation: float = 0.9, end: End = "value") -> Capacity:
    """What fits with either way of keeping memory.

    Parameters
    ----------
    context : int
        Tokens of each sequence.
    longest : int
        Tokens of the longest context that the static server is ready for.
    utilisation : float
        Share of the device's memory that the server takes.

    Raises
    ------
    ValueError
        If the weights do not fit, or a number is out of range.
    """
    if not 0 < context <= longest:
        raise ValueError(f"Context must be 1 to the longest, {longest}, not {context!r}")
    if not 0 < utilisation <= 1:
        raise ValueError(f"Utilisation must be in (0, 1], not {utilisation!r}")
    weights, usable = network.weight_bytes(), utilisation * card.memory.value
    if weights >= usable:
        raise ValueError(f"{network.title} must fit: {weights / 2**30:.1f} GiB of weights, "
                         f"{usable / 2**30:.1f} GiB on {card.name}")
    sequence = context * network.kv_bytes_per_token()
    machine = Machine.of(card, end=end)
    pools = (max(usable - weights - activation_bytes(network, longest), 0.0), usable - weights)
    batches, rates = list[int](), list[float]()
    # In decoding every sequence of the elastic pool needs the activations of one token beside.
    for pool, own in zip(pools, (0.0, activation_bytes(network, 1)), strict=True):
        batch = math.floor(pool / (sequence + own))
        batches.append(batch)
        rates.append(batch / decode_step_s(machine, network, batch, context) if batch else 0.0)
    return Capacity(weights=weights, static_pool=pools[0], elastic_pool=pools[1],
                    static_batch=batches[0], elastic_batch=batches[1],
                    static_tokens_per_s=rates[0], elastic_tokens_per_s=rates[1])


def batch_ratio(device_name: str = "a100_80gb", model_name: str = "llama3_8b",
                context: int = 131_072, longest: int = 262_144) -> Sourced:
    """Batch that fits with elastic over that with static memory."""
    found = capacity(device(device_name), model(model_name), context=context, longest=longest)
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


def run(*, device_name: str = "a100_80gb", model_name: str = "llama3_8b", context: int = 131_072,
        longest: int = 262_144, seed: int = 0) -> SystemRun:
    """Pools and batches of one context."""
    found = capacity(device(device_name), model(model_name), context=context, longest=longest)
    gib = 2**30
    return SystemRun(system="ellm", not_covered=NOT_COVERED, metrics={
        "weights_gib": found.weights / gib,
        "static_pool_gib": found.static_pool / gib,
        "elastic_pool_gib": found.elastic_pool / gib,
        "static_batch": found.static_batch, "elastic_batch": found.elastic_batch,
        "batch_ratio": found.batch_ratio,
        "static_decode_tokens_per_s": found.static_tokens_per_s,
        "elastic_decode_tokens_per_s": found.elastic_tokens_per_s,
        "isolation_loss": found.isolation_loss,
    }, assumptions=(f"{device_name}, {model_name}, all sequences of {context:,} tokens",))


def compare(*, device_name: str = "a100_80gb", model_name: str = "llama3_8b",
            longest: int = 262_144, seed: int = 0) -> dict[str, SystemRun]:
    """Static against elastic memory over contexts."""
    contexts = [2**power for power in range(11, 19) if 2**power <= longest]
    found = [capacity(device(device_name), model(model_name), context=context, longest=longest)
             for context in contexts]
    runs = dict[str, SystemRun]()
    for name in ("static", "elastic"):
        runs[name] = SystemRun(
            system="ellm", not_covered=NOT_COVERED,
            assumptions=(f"{device_name}, {model_name}, all sequences of one length",),
            metrics={f"batch_{context}": getattr(each, f"{name}_batch")
                     for context, each in zip(contexts, found, strict=True)},
            curves=(Curve(title="decoding", x="tokens of a sequence", y="tokens/s", series={
                name: tuple((float(context), getattr(each, f"{name}_tokens_per_s"))
                            for context, each in zip(contexts, found, strict=True))}),))
    return runs

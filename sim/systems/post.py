"""POST: a private GPT that verifies public drafts (arXiv 2505.15252, ICML 2025).

A client drafts with a public model in the clear; client and server verify the drafts in one secure
forward of the private model and sample on secret shares. What it gains is the tokens that a forward
brings, over what a forward of several tokens costs more than one of a single token.

Executed here: the exact sampler, the private protocol on shares, alignment by distillation of small
models. Computed: secure forwards over tokens and networks.
"""

import math
from dataclasses import replace
from functools import partial
from statistics import median

import numpy as np

from splatforge.sim.costs import Sourced
from splatforge.sim.systems.cards import model
from splatforge.sim.systems.distillation import acceptance, context_weights, distil, make_pair
from splatforge.sim.systems.private_sampling import sample_privately, sampling_traffic
from splatforge.sim.systems.roofline import ENDS, End, banded
from splatforge.sim.systems.run import Curve, SystemRun
from splatforge.sim.systems.secure_forward import NETWORKS, Network, forward_s, layer_s, traffic_s
from splatforge.sim.systems.speculative import expected_tokens, overlap, speculate

__all__ = ["compare", "decoder_layer", "latency_ratio", "run", "sampling_time", "speedup",
           "speedup_range"]

NOT_COVERED = (
    "trained pairs of models: acceptances are of a language made here",
    "additions and products on shares in either party's own memory",
    "the encoder of FLAN-T5, set-up, keys, and encrypted weights brought to the client",
    "a private division, which the naive protocol of the paper has and ours has not",
    "parties that do not follow the protocol",
)
ASSUMPTIONS = (
    "randomness is made by silent oblivious transfer, on as many cores as the paper's, in line",
    "a forward verifies the token before the drafts as well: one more than drafts",
    "the baseline, a token a forward, samples for nothing",
    "the delay of a network is one way; the fast end of bands has it there and back",
)
_SOURCE = "splatforge.sim.systems.secure_forward"
_CONTEXT = 128


def _network(name: str) -> Network:
    """A network by name, or of a rate in Mbit/s and a delay in ms, such as ``250/20``."""
    if name in NETWORKS:
        return NETWORKS[name]
    try:
        rate, delay = (float(part) for part in name.split("/"))
        return Network(name=f"{rate:g} Mbps, {delay:g} ms", bytes_per_s=rate * 1e6 / 8,
                       delay_s=delay / 1e3, least_delay_s=delay / 2e3)
    except ValueError:
        raise ValueError(f"Network must be one of {', '.join(NETWORKS)}, or a positive rate in "
                         f"Mbit/s and a delay in ms as 250/20, not {name!r}") from None


def _attended(private: str, context: int = _CONTEXT) -> tuple[int, int]:
    """Tokens that a layer attends to: the decoder's own, those of an encoder.

    FLAN-T5 has the prompt, `context`, in its encoder; of its answer half as many are there.
    """
    return (max(1, context // 2), context) if private == "flan_t5_xl" else (context, 0)


def latency_ratio(tokens: int, network: str = "lan", private: str = "flan_t5_xl") -> Sourced:
    """A layer of the private model's decoder for some tokens over that for one.

    Parameters
    ----------
    tokens : int
        Positive.
    network : str
        As of :func:`run`.
    private : str
        Model card. FLAN-T5 attends to half as many tokens of its own as of its encoder.

    Raises
    ------
    ValueError
        If tokens are not positive, or network or model are not known.
    """
    card, link = model(private), _network(network)
    context, cross = _attended(private)

    def ratio(delay_s: float, end: End) -> float:
        through = replace(link, delay_s=delay_s, least_delay_s=delay_s)
        many, one = (layer_s(card, each, context, through, cross_context=cross, end=end)
                     for each in (tokens, 1))
        return many / one
    # Waiting flattens it and computing steepens it: ends of the one with ends of the other.
    every = [ratio(delay_s, end) for delay_s in (link.delay_s, link.least_delay_s)
             for end in ENDS]
    return Sourced(every[0], "1", _SOURCE, min(every), max(every))


def decoder_layer(tokens: int, network: str = "lan", private: str = "vicuna_7b") -> Sourced:
    """Seconds of one decoder layer for some tokens; parameters as of :func:`latency_ratio`."""
    card, link = model(private), _network(network)
    context, cross = _attended(private)
    return banded(lambda end: layer_s(card, tokens, context, link, cross_context=cross, end=end),
                  "s", _SOURCE)


def sampling_time(draft_tokens: int, network: str = "lan", private: str = "vicuna_7b", *,
                  optimised: bool = True) -> Sourced:
    """Seconds of sampling behind one forward, of traffic counted on the vocabulary's size."""
    traffic = sampling_traffic(model(private).vocab, draft_tokens, optimised=optimised)
    link = _network(network)
    return banded(lambda end: traffic_s(traffic, link, end), "s",
                  f"{traffic.rounds} rounds, {traffic.size_bytes} bytes and {traffic.transfers} "
                  "oblivious transfers, counted")


def speedup(acceptance: float, cost: float, draft_tokens: int, points: list[str]) -> Sourced:
    """Tokens a forward over what it costs, drafts and sampling for nothing.

    Parameters
    ----------
    acceptance : float
        Of a draft, each on its own, in [0, 1].
    cost : float
        A forward of `draft_tokens` over one of a single token, positive.
    draft_tokens : int
        Drafts for each forward.
    points : list of str
        Claims that acceptance and cost were taken from.

    Raises
    ------
    ValueError
        If the cost is not positive, or acceptance or drafts are out of range.
    """
    if not cost > 0:
        raise ValueError(f"Cost must be positive, not {cost!r}")
    return replace(Sourced.exact(expected_tokens(acceptance, draft_tokens) / cost, "1",
                                 "expected tokens of independent drafts over the published cost"),
                   points=frozenset(points))


def speedup_range(acceptances: list[float], cost: float, draft_tokens: int, points: list[str]
                  ) -> Sourced:
    """The same of several acceptances: their median, and the lowest and the highest as band."""
    every = [speedup(each, cost, draft_tokens, points) for each in acceptances]
    values = [each.value for each in every]
    return replace(every[0], value=median(values), low=min(values), high=max(values))


def _protocol(private, public, draft_tokens: int, runs: int, seed: int, *, optimised: bool):
    """First tokens of private runs from one context each, with what they should be."""
    rng = np.random.default_rng(seed)
    size = private.shape[1]
    states = rng.choice(len(private), runs, p=context_weights(private))
    p = np.empty((runs, draft_tokens + 1, size))
    q = np.empty((runs, draft_tokens, size))
    drafts = np.empty((runs, draft_tokens), np.int64)
    ahead = states
    for place in range(draft_tokens):
        p[:, place], q[:, place] = private[ahead], public[ahead]
        uniform = rng.random((runs, 1))
        drafts[:, place] = np.minimum((q[:, place].cumsum(-1) < uniform).sum(-1), size - 1)
        ahead = (ahead * size + drafts[:, place]) % len(private)
    p[:, -1] = private[ahead]
    sample = sample_privately(p, q, drafts, seed=seed, optimised=optimised)
    first = np.where(sample.kept > 0, drafts[:, 0], sample.token)
    return sample, first, p[:, 0]


def run(*, network: str = "lan", private: str = "vicuna_7b", draft_tokens: int = 8,
        context: int = _CONTEXT, public_s: float = 0.01, aligned: bool = True,
        optimised: bool = True, runs: int = 1000, seed: int = 0) -> SystemRun:
    """Run the protocol on a small language, and compute what forwards and sampling take.

    Parameters
    ----------
    network : str
        ``lan`` (1 Gbps, 10 ms), ``wan`` (400 Mbps, 40 ms), or a rate in Mbit/s and a delay in ms,
        such as ``250/20``.
    private : str
        Model card of the private model.
    draft_tokens : int
        Drafts for each forward; 0 is a token a forward.
    context : int
        Tokens that are attended to; of FLAN-T5 those of its encoder, and half as many of its own.
    public_s : float
        Time of the public model for one draft, in seconds; by default about what reading a
        hundred million weights takes a CPU.
    aligned, optimised : bool
        Whether the public model was aligned, and which sampling is used.
    runs : int
        Of the protocol on shares, to be compared with the private distribution.
    seed : int
        Of language, texts, shares.

    Raises
    ------
    ValueError
        If an option is out of range.
    """
    card, link = model(private), _network(network)
    if draft_tokens < 0 or context < 1 or not 0 <= public_s < math.inf or runs < 1:
        raise ValueError("post: draft_tokens and public_s must not be negative, context and runs "
                         f"positive, not {draft_tokens!r}, {public_s!r}, {context!r}, {runs!r}")
    own, cross = _attended(private, context)

    def through_s(tokens: int, network: Network = link) -> float:
        return forward_s(card, tokens, own, network, cross_context=cross)
    one_s = through_s(1)
    if not draft_tokens:
        return SystemRun(system="post", not_covered=NOT_COVERED, assumptions=ASSUMPTIONS,
                         metrics={"forward_s": one_s, "token_s": one_s, "speedup": 1.0,
                                  "tokens_per_forward": 1.0})
    pair = make_pair(seed)
    before = pair.public.table()
    after = distil(pair.public, pair.private, tokens=100_000, top=8, seed=seed + 2).table()
    public = after if aligned else before
    text = speculate(pair.private, public, tokens=100_000, draft_tokens=draft_tokens, seed=seed)
    sample, first, wanted = _protocol(pair.private, public, draft_tokens, runs, seed,
                                      optimised=optimised)
    frequencies = np.bincount(first, minlength=wanted.shape[1]) / runs
    traffic = sampling_traffic(card.vocab, draft_tokens, optimised=optimised)
    forward, sampling = through_s(draft_tokens + 1), traffic_s(traffic, link)

    def sampling_s(drafts: int) -> float:
        return traffic_s(sampling_traffic(card.vocab, drafts, optimised=optimised), link)
    step_s = forward + sampling + draft_tokens * public_s
    token_s = step_s / text.tokens_per_forward
    lengths = (1, 2, 4, 8, 16, 32)
    return SystemRun(
        system="post", not_covered=NOT_COVERED, assumptions=ASSUMPTIONS,
        metrics={
            "acceptance_before": acceptance(pair.private, before),
            "acceptance_after": acceptance(pair.private, after),
            "acceptance_on_shares": float((sample.kept > 0).mean()),
            "acceptance_expected_of_these": float(overlap(
                wanted, public[_states(pair.private, runs, seed)]).mean()),
            "distance_on_shares": float(np.abs(frequencies - wanted.mean(0)).sum() / 2),
            "tokens_per_forward": text.tokens_per_forward,
            "tokens_per_forward_if_independent": expected_tokens(
                acceptance(pair.private, public), draft_tokens),
            "sampling_rounds": traffic.rounds, "sampling_bytes": traffic.size_bytes,
            "sampling_transfers": traffic.transfers, "sampling_s": sampling,
            "forward_s": forward, "forward_1_s": one_s, "forward_over_1": forward / one_s,
            "token_s": token_s, "speedup": one_s / token_s},
        curves=(
            Curve(title="Secure forward over tokens at once", x="tokens", y="over one token",
                  series={each.name: tuple(
                      (float(n), through_s(n, each) / through_s(1, each)) for n in lengths)
                      for each in {link.name: link, **{one.name: one for one in
                                                       NETWORKS.values()}}.values()}),
            Curve(title="Speed-up over drafts", x="drafts", y="x", series={
                name: tuple((float(n), expected_tokens(acceptance(pair.private, table), n) * one_s
                             / (through_s(n + 1) + sampling_s(n) + n * public_s))
                            for n in lengths)
                for name, table in (("aligned", after), ("not aligned", before))})))


def _states(private, runs: int, seed: int):
    """The contexts that :func:`_protocol` starts from."""
    return np.random.default_rng(seed).choice(len(private), runs, p=context_weights(private))


def compare(*, network: str = "lan", private: str = "vicuna_7b", draft_tokens: int = 8,
            context: int = _CONTEXT, seed: int = 0) -> dict[str, SystemRun]:
    """POST, without alignment, with naive sampling, and a token a forward; options as of `run`."""
    same = partial(run, network=network, private=private, context=context, seed=seed, runs=200)
    drafts = partial(same, draft_tokens=draft_tokens)
    return {"post": drafts(), "not aligned": drafts(aligned=False),
            "naive sampling": drafts(optimised=False), "a token a forward": same(draft_tokens=0)}

"""How long a secure forward of a decoder takes over the tokens that go through it at once.

Linear layers are a product under encryption (Nimbus: the client holds the encrypted weights, and
sends products back, packed in ciphertexts whatever token they belong to); all else is arithmetic on
secret shares, whose steps are counted by running them: :mod:`splatforge.sim.systems.secret_shares`.
Steps wait for one another, but all tokens take each step together: that is why several tokens cost
little more than one where the network is slow.

Functions are approximated as in BumbleBee: ``exp`` by six squarings of ``1 + x / 64``, activations
by a piecewise polynomial of degree four, reciprocals and roots by Newton from a first guess.

References
----------
Lu et al., BumbleBee, NDSS 2025; Li et al., Nimbus, NeurIPS 2024; abstracts and notes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from splatforge.sim.costs import Sourced
from splatforge.sim.systems.cards import ModelCard
from splatforge.sim.systems.roofline import End, end_of
from splatforge.sim.systems.secret_shares import (
    FRACTION_BITS,
    Channel,
    Shares,
    Traffic,
    TwoParties,
)

__all__ = ["NETWORKS", "Network", "Primitive", "Step", "decoder_steps", "forward_s", "layer_s",
           "primitives", "traffic_s"]

#: Slots of a ciphertext, and the bits of each of its two parts' coefficients.
SLOTS = 8192
COEFFICIENT_BITS = Sourced(
    150, "bit", "64 bits of a ring element, 64 of a weight in it, 12 to 14 of the sum and noise; "
    "between the bounds at 128-bit security for 4,096 and 8,192 slots, "
    "HomomorphicEncryption.org standard (2018), table 1", 109, 218)
#: Multiply-accumulates modulo a prime of 64 bits, of all cores.
MODULAR_PER_S = Sourced(
    16e9, "Hz", "estimate of ours, no measurement is behind it: 32 cores of 64 vCPU at 2.5 GHz, "
    "five cycles each; low: ten, high: two", 8e9, 40e9)
#: Correlated randomness.
TRANSFERS_PER_S = Sourced(
    8 * 9.5426e6, "Hz", "cryprot-ot 0.2.0, README: 9.5426 million silent random OT a second on a "
    "4-core VM, times 32 cores of 64 vCPU; low: that VM; high: 64 cores", 9.5426e6, 16 * 9.5426e6)
_LIMB_BITS = 60
_NEWTON = 3
_SQUARINGS = 6


@dataclass(frozen=True, kw_only=True)
class Network:
    """What lies between the parties.

    Parameters
    ----------
    name : str
        For people.
    bytes_per_s : float
        Each way.
    delay_s, least_delay_s : float
        Of a message; least if the published figure is of there and back.
    """

    name: str
    bytes_per_s: float
    delay_s: float
    least_delay_s: float

    def __post_init__(self) -> None:
        if not (self.bytes_per_s > 0 and 0 <= self.least_delay_s <= self.delay_s):
            raise ValueError(
                f"{self.name}: the rate must be positive and the delays not negative, the least "
                f"first, not {self.bytes_per_s!r} B/s, {self.least_delay_s!r} s, "
                f"{self.delay_s!r} s")


#: The two of the paper; that the delay is one way is our reading.
NETWORKS = {
    "lan": Network(name="1 Gbps, 10 ms", bytes_per_s=1e9 / 8, delay_s=10e-3, least_delay_s=5e-3),
    "wan": Network(name="400 Mbps, 40 ms", bytes_per_s=4e8 / 8, delay_s=40e-3,
                   least_delay_s=20e-3),
}


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a layer.

    Parameters
    ----------
    name : str
        For people.
    rounds : float
        Exchanges one behind the other.
    size_bytes : float
        Sent on the fuller direction.
    transfers : float
        Oblivious transfers.
    multiplies : float
        Multiply-accumulates under encryption.
    ciphertexts : float
        Sent, on top of `size_bytes`.
    """

    name: str
    rounds: float = 0.0
    size_bytes: float = 0.0
    transfers: float = 0.0
    multiplies: float = 0.0
    ciphertexts: float = 0.0


@dataclass(frozen=True)
class Primitive:
    """Rounds of a step on shares, and bytes (fuller direction) and transfers of one element."""

    rounds: float
    size_bytes: float
    transfers: float


@cache
def primitives() -> dict[str, Primitive]:
    """What steps on shares take, counted by taking them.

    Returns
    -------
    dict
        ``product``, ``truncate``, ``compare``, ``convert`` (a bit to a number).
    """
    number = 4096

    def counted(step: Callable[[TwoParties, Shares], object]) -> Primitive:
        channel = Channel()
        two = TwoParties(channel, 0)
        step(two, two.share(np.zeros(number, np.uint64)))
        traffic = channel.traffic
        return Primitive(traffic.rounds,
                         max(traffic.bytes_to_client, traffic.bytes_to_server) / number,
                         traffic.transfers / number)
    nothing = np.zeros(number, bool)
    return {
        "product": counted(lambda two, x: two.multiply(x, x)),
        "truncate": counted(lambda two, x: two.truncate(x, FRACTION_BITS)),
        "compare": counted(lambda two, x: two.negative(x)),
        "convert": counted(lambda two, x: two.to_sum(Shares(nothing, nothing))),
    }


def _step(name: str, elements: float, depth: dict[str, int], **more: float) -> Step:
    """Some primitives one behind the other on so many elements.

    Parameters
    ----------
    depth : dict
        Primitive -> times.
    more : float
        ``rounds``, ``multiplies`` and ``ciphertexts`` besides.
    """
    each = primitives()
    return Step(
        name=name,
        rounds=sum(times * each[kind].rounds for kind, times in depth.items())
        + more.get("rounds", 0.0),
        size_bytes=elements * sum(times * each[kind].size_bytes for kind, times in depth.items()),
        transfers=elements * sum(times * each[kind].transfers for kind, times in depth.items()),
        multiplies=more.get("multiplies", 0.0), ciphertexts=more.get("ciphertexts", 0.0))


#: A product in fixed point.
_FIXED = {"product": 1, "truncate": 1}


def _times(number: int, *parts: dict[str, int]) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in parts:
        for kind, times in part.items():
            total[kind] = total.get(kind, 0) + number * times
    return total


#: Place of the leading bit (a comparison with every power of two, side by side), then Newton.
_INVERSE = _times(1, {"compare": 1, "convert": 1}, _FIXED, _times(2 * _NEWTON, _FIXED))
_CHOOSE = _times(1, {"compare": 1, "convert": 1}, _FIXED)


def _linear(name: str, tokens: int, inputs: int, outputs: int) -> Step:
    """Known weights times shares."""
    return _step(name, tokens * outputs, {"truncate": 1}, rounds=1,
                 ciphertexts=math.ceil(tokens * outputs / SLOTS),
                 multiplies=2 * tokens * inputs * outputs)


def _product(name: str, tokens: int, context: int, heads: int, width: int, *, scores: bool
             ) -> Step:
    """Shares times shares, of all heads: two cross terms, operands there and products back."""
    there = tokens * heads * (width if scores else context)
    back = tokens * heads * (context if scores else width)
    return _step(name, back, {"truncate": 1}, rounds=2,
                 ciphertexts=math.ceil(there / SLOTS) + math.ceil(back / SLOTS),
                 multiplies=2 * 2 * tokens * heads * context * width)


def _attention(card: ModelCard, tokens: int, context: int, prefix: str = "") -> list[Step]:
    heads, width = card.heads, card.head_dim
    scores = tokens * heads * context
    deep = max(1, math.ceil(math.log2(context)))
    one = _step("", 1, _CHOOSE)
    return [
        _product(f"{prefix}scores", tokens, context, heads, width, scores=True),
        # A tree: each level halves what is left.
        Step(name=f"{prefix}maximum", rounds=deep * one.rounds,
             size_bytes=scores * one.size_bytes, transfers=scores * one.transfers),
        _step(f"{prefix}exp", scores, _times(1, _CHOOSE, _times(_SQUARINGS, _FIXED))),
        _step(f"{prefix}inverse", tokens * heads, _INVERSE),
        _step(f"{prefix}scale", scores, _FIXED),
        _product(f"{prefix}values", tokens, context, heads, width, scores=False),
        _linear(f"{prefix}output", tokens, heads * width, card.hidden),
    ]


def decoder_steps(card: ModelCard, tokens: int, context: int, *, cross_context: int = 0
                  ) -> tuple[Step, ...]:
    """Steps of one layer of a decoder.

    Parameters
    ----------
    card : ModelCard
        The network.
    tokens : int
        That go through at once, positive.
    context : int
        That they attend to.
    cross_context : int
        Tokens of an encoder that they attend to as well; 0 without one.

    Raises
    ------
    ValueError
        If a number is out of range.
    """
    if tokens < 1 or context < 1 or cross_context < 0:
        raise ValueError("Tokens and context must be positive and cross context not negative, not "
                         f"{tokens!r}, {context!r} and {cross_context!r}")
    hidden, ff = card.hidden, card.ff
    queries, kv = card.heads * card.head_dim, card.kv_heads * card.head_dim

    def norm(name: str) -> list[Step]:
        return [_step(f"{name} square", tokens * hidden, _FIXED),
                _step(f"{name} root", tokens, _INVERSE),
                _step(f"{name} scale", tokens * hidden, _FIXED)]
    steps = [*norm("norm"), _linear("qkv", tokens, hidden, queries + 2 * kv),
             *_attention(card, tokens, context)]
    if cross_context:
        steps += [*norm("cross norm"), _linear("cross q", tokens, hidden, queries),
                  *_attention(card, tokens, cross_context, "cross ")]
    up = _linear("up", tokens, hidden, (2 if card.gated else 1) * ff)
    pieces = _step("", tokens * ff, {"compare": 1, "convert": 1})
    # Two ends of the middle piece, compared side by side; powers two and four; the choice.
    curve = _step("", tokens * ff, _times(3, _FIXED))
    steps += [
        *norm("second norm"), up,
        Step(name="activation", rounds=pieces.rounds + curve.rounds,
             size_bytes=2 * pieces.size_bytes + curve.size_bytes,
             transfers=2 * pieces.transfers + curve.transfers)]
    if card.gated:
        steps.append(_step("gate", tokens * ff, _FIXED))
    return (*steps, _linear("down", tokens, ff, hidden))


def _seconds(network: Network, end: End, *, rounds: float, size_bytes: float, transfers: float,
             multiplies: float = 0.0, ciphertexts: float = 0.0) -> float:
    bits = end_of(COEFFICIENT_BITS, end, rate=False)
    delay_s = network.least_delay_s if end == "fast" else network.delay_s
    sent = size_bytes + ciphertexts * 2 * SLOTS * bits / 8
    limbs = math.ceil(bits / _LIMB_BITS)
    return (rounds * delay_s + sent / network.bytes_per_s
            + transfers / end_of(TRANSFERS_PER_S, end, rate=True)
            + limbs * multiplies / end_of(MODULAR_PER_S, end, rate=True))


def traffic_s(traffic: Traffic, network: Network, end: End = "value") -> float:
    """Seconds that what was counted takes: rounds, bytes, and making the randomness."""
    return _seconds(network, end, rounds=traffic.rounds, transfers=traffic.transfers,
                    size_bytes=max(traffic.bytes_to_client, traffic.bytes_to_server))


def layer_s(card: ModelCard, tokens: int, context: int, network: Network, *,
            cross_context: int = 0, end: End = "value") -> float:
    """Seconds of one layer; parameters as of :func:`decoder_steps`.

    Parameters
    ----------
    end : str
        ``value``, or all constants at their ``slow`` or ``fast`` end.
    """
    return sum(_seconds(network, end, rounds=each.rounds, size_bytes=each.size_bytes,
                        transfers=each.transfers, multiplies=each.multiplies,
                        ciphertexts=each.ciphertexts)
               for each in decoder_steps(card, tokens, context, cross_context=cross_context))


def forward_s(card: ModelCard, tokens: int, context: int, network: Network, *,
              cross_context: int = 0, end: End = "value") -> float:
    """Seconds of all layers, the last norm left out, and the matrix before the vocabulary."""
    head = _linear("head", tokens, card.hidden, card.vocab)
    return (card.layers * layer_s(card, tokens, context, network, cross_context=cross_context,
                                  end=end)
            + _seconds(network, end, rounds=head.rounds, size_bytes=head.size_bytes,
                       transfers=head.transfers, multiplies=head.multiplies,
                       ciphertexts=head.ciphertexts))

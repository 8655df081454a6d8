"""How long an operator takes: the longer of its arithmetic and its bytes, and its launches.

Rates are those of a card times what kernels reach of it (``efficiency`` in ``devices.toml``). The
band of a time has all constants at their slow or fast end at once (:func:`banded`).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, Self

from splatforge.sim.costs import Sourced
from splatforge.sim.systems.cards import DeviceCard, ModelCard, Precision, constant

__all__ = ["ENDS", "End", "Machine", "Operator", "attention", "banded", "decoder_layer",
           "elementwise", "end_of", "linear"]

End = Literal["value", "slow", "fast"]
#: As they are, and all at their slow or fast end.
ENDS: tuple[End, ...] = ("value", "slow", "fast")


@dataclass(frozen=True, kw_only=True)
class Operator:
    """Work of one or several kernels.

    Parameters
    ----------
    name : str
        For people.
    flop : float
        Multiplications and additions.
    size_bytes : float
        Read and written in device memory.
    launches : float
        Kernels.
    weight_bytes : float
        Of `size_bytes` those of weights: devices that share tokens read them all, each of them.
    """

    name: str
    flop: float = 0.0
    size_bytes: float = 0.0
    launches: float = 1.0
    weight_bytes: float = 0.0

    def __post_init__(self) -> None:
        for each in ("flop", "size_bytes", "launches", "weight_bytes"):
            if not getattr(self, each) >= 0:
                raise ValueError(f"{self.name}: {each} must be non-negative, "
                                 f"not {getattr(self, each)!r}")

    def __mul__(self, times: float) -> "Operator":
        """Run `times` times."""
        return Operator(name=self.name, flop=times * self.flop, launches=times * self.launches,
                        size_bytes=times * self.size_bytes, weight_bytes=times * self.weight_bytes)


def end_of(number: Sourced, end: End, *, rate: bool = True) -> float:
    """The value of a number, or the end at which all is slow or fast.

    Parameters
    ----------
    rate : bool
        Whether more of it is faster; a latency is none.
    """
    if end == "value":
        return number.value
    return number.high if (end == "fast") == rate else number.low


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Rates that kernels reach on a device.

    Parameters
    ----------
    flop_per_s, bytes_per_s : float
        Of matrices and of device memory.
    launch_s : float
        Of a kernel that nothing hides.
    pcie_bytes_per_s : float
        Copies between device and host.
    """

    flop_per_s: float
    bytes_per_s: float
    launch_s: float
    pcie_bytes_per_s: float

    @classmethod
    def of(cls, card: DeviceCard, precision: Precision = "fp16", end: End = "value") -> Self:
        """What is reached of a card."""
        def reached(rate: Sourced, name: str) -> float:
            return end_of(rate, end) * end_of(constant(f"efficiency.{name}"), end)
        return cls(
            flop_per_s=reached(card.peak(precision), "matrix"),
            bytes_per_s=reached(card.bandwidth, "memory"),
            launch_s=end_of(constant("overhead.launch").to("s"), end, rate=False),
            pcie_bytes_per_s=reached(card.pcie, "pcie"))

    def time_s(self, operators: Operator | Iterable[Operator]) -> float:
        """Seconds that operators take one after the other."""
        if isinstance(operators, Operator):
            operators = (operators,)
        return sum(max(each.flop / self.flop_per_s, each.size_bytes / self.bytes_per_s)
                   + each.launches * self.launch_s for each in operators)

    def bound_by(self, operator: Operator) -> str:
        """``compute``, ``memory`` or ``launch``: the largest of an operator's three times."""
        times = {"compute": operator.flop / self.flop_per_s,
                 "memory": operator.size_bytes / self.bytes_per_s,
                 "launch": operator.launches * self.launch_s}
        return max(times, key=times.__getitem__)


def banded(quantity: Callable[[End], float], unit: str, source: str) -> Sourced:
    """A number with the band that all constants at their slow and fast ends give.

    Parameters
    ----------
    quantity : callable
        Takes an end, returns the number in `unit`.
    """
    value, *ends = (quantity(end) for end in ENDS)
    return Sourced(value, unit, source, min(value, *ends), max(value, *ends))


def linear(name: str, tokens: float, inputs: float, outputs: float,
           element_bytes: float = 2.0) -> Operator:
    """A matrix of inputs x outputs applied to tokens; weights are read once."""
    weight_bytes = element_bytes * inputs * outputs
    return Operator(name=name, flop=2 * tokens * inputs * outputs, weight_bytes=weight_bytes,
                    size_bytes=weight_bytes + element_bytes * tokens * (inputs + outputs))


def attention(queries: float, keys: float, heads: int, kv_heads: int, head_dim: int, *,
              causal: bool = False, element_bytes: float = 2.0,
              name: str = "attention") -> Operator:
    """Fused attention of queries over keys: scores never leave the chip.

    Parameters
    ----------
    queries, keys : float
        Tokens; the queries are the last of the keys where `causal`.
    causal : bool
        Whether a query sees only the keys up to itself.
    """
    seen = keys - (queries - 1) / 2 if causal else keys
    return Operator(
        name=name, flop=4 * queries * seen * heads * head_dim,
        size_bytes=element_bytes * head_dim * (2 * queries * heads + 2 * keys * kv_heads))


def elementwise(name: str, tokens: float, width: float, *, passes: float = 2.0,
                element_bytes: float = 2.0) -> Operator:
    """A kernel that reads and writes `passes` tensors of tokens x width."""
    return Operator(name=name, flop=tokens * width * passes,
                    size_bytes=element_bytes * tokens * width * passes)


def decoder_layer(card: ModelCard, tokens: float, context: float, *, sequences: float = 1.0,
                  element_bytes: float = 2.0, causal: bool = True) -> tuple[Operator, ...]:
    """Operators of one layer of a decoder, or of an encoder.

    Parameters
    ----------
    tokens : float
        New tokens of each sequence; 1 in decoding.
    context : float
        Tokens that the last of them sees, itself included.
    sequences : float
        Sequences of these lengths, batched.
    causal : bool
        Whether a token sees only those up to itself; all see all in an encoder.
    """
    new, size = tokens * sequences, element_bytes
    queries, kv = card.heads * card.head_dim, card.kv_heads * card.head_dim
    up = 2 * card.ff if card.gated else card.ff
    one = attention(tokens, context, card.heads, card.kv_heads, card.head_dim, causal=causal,
                    element_bytes=size)
    return (
        elementwise("norm", new, card.hidden, element_bytes=size),
        linear("qkv", new, card.hidden, queries + 2 * kv, size),
        elementwise("rotate", new, queries + kv, element_bytes=size),
        Operator(name=one.name, flop=one.flop * sequences,
                 size_bytes=one.size_bytes * sequences),
        linear("output", new, queries, card.hidden, size),
        elementwise("add, norm", new, card.hidden, passes=4, element_bytes=size),
        linear("up", new, card.hidden, up, size),
        elementwise("activation", new, card.ff, passes=up / card.ff + 1, element_bytes=size),
        linear("down", new, card.ff, card.hidden, size),
        elementwise("add", new, card.hidden, passes=3, element_bytes=size),
    )

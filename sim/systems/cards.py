"""Cards: what a device gives and what a network asks, each number with who says so.

``devices.toml`` and ``models.toml`` beside this file hold them.
"""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from typing import Literal

from splatforge.sim.costs import Entry, Sourced, read_entries

__all__ = ["DeviceCard", "ModelCard", "Precision", "constant", "device", "devices", "model",
           "models"]

Precision = Literal["fp8", "fp16", "fp32"]

#: What a card holds, and its dimension; only the last two may be missing.
_UNITS = {"memory": "B", "bandwidth": "B/s", "fp16": "FLOP/s", "fp32": "FLOP/s", "pcie": "B/s",
          "fp8": "FLOP/s", "link": "B/s"}


@dataclass(frozen=True, kw_only=True)
class DeviceCard:
    """A GPU as its data sheet has it.

    Parameters
    ----------
    name : str
        Key in ``devices.toml``.
    memory : Sourced
        Device memory in bytes.
    bandwidth : Sourced
        Of that memory, B/s.
    fp16, fp32 : Sourced
        Peak rates in FLOP/s: matrices of 16 bits (FP16 or BF16, dense, summed in 32 bits), and
        FP32 outside the matrix units.
    pcie : Sourced
        To the host, one direction, B/s.
    fp8 : Sourced or None
        Matrices of 8 bits; ``None`` where there are none.
    link : Sourced or None
        To other devices, one direction, all links together, B/s; ``None`` where they meet over
        the host alone.
    """

    name: str
    memory: Sourced
    bandwidth: Sourced
    fp16: Sourced
    fp32: Sourced
    pcie: Sourced
    fp8: Sourced | None = None
    link: Sourced | None = None

    def peak(self, precision: Precision = "fp16") -> Sourced:
        """Peak rate in FLOP/s.

        Raises
        ------
        ValueError
            If the device does not have the precision.
        """
        rates = {"fp8": self.fp8, "fp16": self.fp16, "fp32": self.fp32}
        if rates.get(precision) is None:
            has = [name for name, rate in rates.items() if rate is not None]
            raise ValueError(f"{self.name}: precision must be {' or '.join(has)}, "
                             f"not {precision!r}")
        return rates[precision]  # pyright: ignore[reportReturnType]


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """A decoder of transformer layers as its configuration has it.

    Parameters
    ----------
    name, title, source : str
        Key in ``models.toml``; for people; who says so.
    layers, hidden, ff, heads, kv_heads, head_dim, vocab : int
        Layers, width, width of the feed-forward part, heads of queries, heads of keys and values,
        width of a head, tokens known.
    gated : bool
        Whether the feed-forward part has a gate: three matrices, not two.
    tied : bool
        Whether the first and the last matrix are one.
    """

    name: str
    title: str
    source: str
    layers: int
    hidden: int
    ff: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    gated: bool = True
    tied: bool = False

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if each.type is int and not (isinstance(value, int) and value > 0):
                raise ValueError(f"{self.name}: {each.name} must be a positive count, "
                                 f"not {value!r}")
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.name}: heads must be a multiple of kv_heads, "
                             f"not {self.heads} of {self.kv_heads}")

    @property
    def layer_parameters(self) -> int:
        """Weights of the matrices of a layer."""
        attention = self.hidden * self.head_dim * 2 * (self.heads + self.kv_heads)
        return attention + (3 if self.gated else 2) * self.hidden * self.ff

    @property
    def parameters(self) -> int:
        """Weights of all matrices and of the table of tokens; norms and biases left out."""
        return (self.layers * self.layer_parameters
                + (1 if self.tied else 2) * self.vocab * self.hidden)

    def weight_bytes(self, element_bytes: float = 2.0) -> float:
        """Bytes of the weights."""
        return self.parameters * element_bytes

    def kv_bytes_per_token(self, element_bytes: float = 2.0) -> float:
        """Bytes of the keys and values of a token, all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * element_bytes


def _named(kind: str, name: str, known: Mapping[str, object]) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"{kind} must be one of {', '.join(known)}, not {name!r}{hint}")


@cache
def _entries() -> dict[str, Entry]:
    text = files("splatforge.sim.systems").joinpath("devices.toml").read_text("utf-8")
    return read_entries("sim/systems/devices.toml", tomllib.loads(text))


def constant(name: str) -> Sourced:
    """A constant of ``devices.toml`` that is of no one device, such as ``efficiency.matrix``."""
    return _entries()[name].cost


@cache
def devices() -> dict[str, DeviceCard]:
    """All devices, by name."""
    parts = dict[str, dict[str, Sourced]]()
    for key, entry in _entries().items():
        kind, _, rest = key.partition(".")
        if kind == "device":
            name, part = rest.split(".")
            parts.setdefault(name, {})[part] = entry.cost.to(_UNITS[part])
    return {name: DeviceCard(name=name, **each) for name, each in parts.items()}


def device(name: str) -> DeviceCard:
    """The device of that name.

    Raises
    ------
    ValueError
        If there is none.
    """
    _named("Device", name, devices())
    return devices()[name]


@cache
def models() -> dict[str, ModelCard]:
    """All networks, by name."""
    text = files("splatforge.sim.systems").joinpath("models.toml").read_text("utf-8")
    return {name: ModelCard(name=name, **table) for name, table in tomllib.loads(text).items()}


def model(name: str) -> ModelCard:
    """The network of that name.

    Raises
    ------
    ValueError
        If there is none.
    """
    _named("Model", name, models())
    return models()[name]

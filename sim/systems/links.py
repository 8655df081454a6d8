"""Links between devices: a latency and a rate, and what collectives of many devices take.

Formulas of Thakur, Rabenseifner and Gropp, Optimization of Collective Communication Operations in
MPICH (2005), for `ranks` devices that each have one link of full rate to all others.
"""

import math
from dataclasses import dataclass
from typing import Self

from splatforge.sim.systems.cards import DeviceCard, constant
from splatforge.sim.systems.roofline import End, end_of

__all__ = ["Link"]


@dataclass(frozen=True, kw_only=True)
class Link:
    """A link of one device, the same for all.

    Parameters
    ----------
    latency_s : float
        Of a message, however small.
    bytes_per_s : float
        One direction.
    name : str
        For people.
    """

    latency_s: float
    bytes_per_s: float
    name: str = "link"

    def __post_init__(self) -> None:
        if not (self.latency_s >= 0 and self.bytes_per_s > 0):
            raise ValueError(f"{self.name}: latency must be non-negative and the rate positive, "
                             f"not {self.latency_s!r} s and {self.bytes_per_s!r} B/s")

    @classmethod
    def between(cls, card: DeviceCard, *, pcie: bool = False, end: End = "value") -> Self:
        """Link between two of a device: its own, or over the host where it has none.

        Parameters
        ----------
        pcie : bool
            Over the host in any case.
        """
        rate, kind = (card.pcie, "pcie") if pcie or card.link is None else (card.link, "link")
        return cls(latency_s=end_of(constant("overhead.link").to("s"), end, rate=False),
                   bytes_per_s=end_of(rate, end) * end_of(constant(f"efficiency.{kind}"), end),
                   name=f"{card.name} {kind}")

    def send_s(self, size_bytes: float) -> float:
        """One message to one other device."""
        return self.latency_s + size_bytes / self.bytes_per_s

    def broadcast_s(self, size_bytes: float, ranks: int) -> float:
        """All of a message to all ranks: a tree for short ones, scatter and ring for long ones."""
        if ranks <= 1:
            return 0.0
        tree = math.ceil(math.log2(ranks)) * self.send_s(size_bytes)
        ring = ((math.ceil(math.log2(ranks)) + ranks - 1) * self.latency_s
                + 2 * (ranks - 1) / ranks * size_bytes / self.bytes_per_s)
        return min(tree, ring)

    def all_gather_s(self, size_bytes: float, ranks: int) -> float:
        """Every rank ends with `size_bytes`, of which it had its part: a ring."""
        if ranks <= 1:
            return 0.0
        return (ranks - 1) * self.send_s(size_bytes / ranks)

    def reduce_scatter_s(self, size_bytes: float, ranks: int) -> float:
        """Every rank ends with its part of the sum of all their `size_bytes`: a ring."""
        return self.all_gather_s(size_bytes, ranks)

    def all_reduce_s(self, size_bytes: float, ranks: int) -> float:
        """Every rank ends with the sum of all their `size_bytes`: a ring."""
        return self.reduce_scatter_s(size_bytes, ranks) + self.all_gather_s(size_bytes, ranks)

    def all_to_all_s(self, size_bytes: float, ranks: int) -> float:
        """Every rank sends each other its part of `size_bytes`."""
        return self.all_gather_s(size_bytes, ranks)

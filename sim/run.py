"""What a cycle model says of one frame."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from splatforge.designs.shell import AcceleratorDesign
from splatforge.sim.dram import DramCounts
from splatforge.sim.timeline import Windows

__all__ = ["Run"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """What one frame took.

    Parameters
    ----------
    cycles : int
        From the accepted START write to the last write response.
    counters : Mapping
        The hardware's performance counters by name, as the design lists them.
    bytes_read, bytes_written : int
        Over the bus, over-fetch included.
    tile_ends : ndarray
        Cycle in which the array ended each tile, of shape [tiles]; int64.
    actions : Mapping
        What the model counts beside the hardware's counters, for the energy.
    dram : DramCounts or None
        What a banked memory did, up to the last posted write.
    windows : tuple of Windows
        What counters, and what is counted beside them, counted over the frame.
    commands, requests : ndarray or None
        Of a banked memory, where they were asked for: commands of shape [n, 5] as in
        :class:`splatforge.sim.dram.Replay`, and requests of shape [n, 3]: clock in which a request
        enters the queue of its channel, byte address, 1 for a write.
    """

    cycles: int
    counters: Mapping[str, int]
    bytes_read: int
    bytes_written: int
    tile_ends: np.ndarray
    actions: Mapping[str, int] = field(default_factory=dict)
    dram: DramCounts | None = None
    windows: tuple[Windows, ...] = ()
    commands: np.ndarray | None = None
    requests: np.ndarray | None = None

    @classmethod
    def of(cls, design: AcceleratorDesign, counters: Mapping[str, int], tile_ends: np.ndarray, *,
           cycles: int | None = None, **more: Any) -> Self:
        """A run from the counters of a design, among them its cycles if they are not given."""
        return cls(
            cycles=counters["cycles"] if cycles is None else cycles,
            counters=counters, tile_ends=tile_ends,
            bytes_read=sum(counters[name] for name in design.read_counters),
            bytes_written=sum(counters[name] for name in design.write_counters), **more)

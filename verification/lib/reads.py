"""A memory behind the read channels of a unit under test, with latencies and pauses drawn."""

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
from cocotb.triggers import RisingEdge

from splatforge.designs.shell import ShellDesign
from splatforge.hw.fetch import address_layout, beat_layout
from splatforge.verification.lib.stream import port

__all__ = ["ReadSide"]


class ReadSide:
    """Takes the bursts of a unit's ``o_address``, and answers them on ``i_beat`` in order.

    Between their beats come some of another ID, which are not the unit's.

    Parameters
    ----------
    dut :
        The unit.
    memory : Mapping
        Beats by address.
    rng : numpy.random.Generator
        Draws latencies and pauses.
    gap, stall : float
        Probability that no beat is sent, and that no address is taken, in a cycle.
    read_id : int
        Of the unit's bursts.
    outstanding_bursts, burst_beats : int
        How many of them may be in flight, and how long they may be.
    """

    def __init__(
        self, dut: Any, memory: Mapping[int, int], rng: np.random.Generator, gap: float,
        stall: float, *, read_id: int, outstanding_bursts: int, burst_beats: int = 256,
    ) -> None:
        self.dut, self.memory, self.rng, self.gap, self.stall = dut, memory, rng, gap, stall
        self.read_id, self.limit, self.longest = read_id, outstanding_bursts, burst_beats
        #: Address and beats of every burst that was asked for.
        self.bursts: list[tuple[int, int]] = []
        #: What is to come: from which cycle on, the word, whether it is the last of its burst.
        self.beats: deque[tuple[int, int, bool]] = deque()

    @property
    def asked(self) -> list[int]:
        """Address of every beat that was asked for."""
        return [address + 16 * n for address, beats in self.bursts for n in range(beats)]

    def pause(self, probability: float) -> bool:
        """Whether to sit out a cycle."""
        return bool(self.rng.random() < probability)

    async def serve(self) -> None:
        """Take bursts and answer them, in order; beats of others come between."""
        shell = ShellDesign()
        dut, address, beat = self.dut, port(self.dut, "o_address"), port(self.dut, "i_beat")
        layout, cycle, flying = beat_layout(shell), 0, 0
        while True:
            ready = not self.pause(self.stall)
            address.ready.value = int(ready)
            due = bool(self.beats) and self.beats[0][0] <= cycle and not self.pause(self.gap)
            beat.valid.value = int(due or self.pause(0.3))
            if due:
                _, word, last = self.beats.popleft()
                flying -= last
                beat.payload.value = layout.const(
                    {"id": self.read_id, "data": word, "last": last}).as_value().value
            else:
                beat.payload.value = layout.const({
                    "id": self.read_id ^ 3, "data": 0x55, "last": int(self.pause(0.5)),
                }).as_value().value
            await RisingEdge(dut.clk)
            cycle += 1
            assert beat.ready.value == 1, "a beat that was asked for has no room"
            if ready and address.valid.value == 1:
                burst = address_layout(shell).from_bits(int(address.payload.value))
                assert burst.id == self.read_id
                assert burst.address >> 12 == (burst.address + 16 * burst.length) >> 12
                assert burst.length < self.longest
                flying += 1
                assert flying <= self.limit
                at = cycle + int(self.rng.integers(1, 40))
                if self.beats:
                    at = max(at, self.beats[-1][0])
                self.bursts.append((burst.address, burst.length + 1))
                self.beats.extend(
                    (at, self.memory[burst.address + 16 * n], n == burst.length)
                    for n in range(burst.length + 1))

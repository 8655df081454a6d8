"""Lists in a memory, beside a unit that reads them page by page."""

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import numpy as np
from cocotb.triggers import RisingEdge

from splatforge.hw.fetch import address_layout, beat_layout
from splatforge.hw.lib.axi import READ_FEATURES
from splatforge.verification.lib.runner import TESTED_GSCORE
from splatforge.verification.lib.stream import port

__all__ = ["BASE", "ENTRY", "FIRST_PAGE", "LISTS", "SHELL", "ListMemory", "check_stop"]

LISTS, SHELL = TESTED_GSCORE.lists, TESTED_GSCORE.shell
ENTRY = LISTS.entry
#: Above 32 bits, a multiple of a page.
BASE, FIRST_PAGE = 0x12_3456_7000, 5


class ListMemory:
    """The memory behind ``o_address`` and ``i_beat`` of a unit, with latencies and pauses.

    Parameters
    ----------
    dut :
        The unit.
    rng : numpy.random.Generator
        Draws them.
    read_id : int
        ID of the unit's bursts.
    gap : float
        Probability that a beat that is due is not sent in a cycle.
    """

    def __init__(self, dut, rng: np.random.Generator, read_id: int, gap: float) -> None:
        self.dut, self.rng, self.read_id, self.gap = dut, rng, read_id, gap
        #: Beats that are asked for: from which cycle on, page, number in it, whether the last.
        self.beats: deque[tuple[int, int, int, bool]] = deque()
        self.cycle = self.bursts = 0

    def pause(self, probability: float) -> bool:
        """Whether to sit out a cycle."""
        return self.rng.random() < probability

    async def step(self, words: np.ndarray, *, address_ready: bool) -> None:
        """One cycle: the oldest beat that is due, others' between; a burst that is asked for.

        Parameters
        ----------
        words : ndarray
            Of the pages, two of a beat.
        address_ready : bool
            Whether a burst is taken.
        """
        beat, address = port(self.dut, "i_beat"), port(self.dut, "o_address")
        due = bool(self.beats) and self.beats[0][0] <= self.cycle and not self.pause(self.gap)
        if due:
            _, page, number, last = self.beats.popleft()
            low, high = words[page, 2 * number:2 * number + 2].tolist()
            fields: dict[int | str, int] = {
                "id": self.read_id, "data": low | high << 64, "last": int(last)}
        else:
            fields = {"id": READ_FEATURES, "data": 0x55, "last": int(self.pause(0.5))}
        beat.payload.value = beat_layout(SHELL).const(fields).as_value().value
        beat.valid.value = int(due or self.pause(0.5))
        address.ready.value = int(address_ready)
        await RisingEdge(self.dut.clk)
        self.cycle += 1

        assert beat.ready.value == 1, "a beat that was asked for has no room"
        if address_ready and address.valid.value == 1:
            burst = address_layout(SHELL).from_bits(int(address.payload.value))
            page, rest = divmod(burst.address - BASE, LISTS.page_bytes)
            assert (burst.id, rest) == (self.read_id, 0)
            self.bursts += 1
            at = self.cycle + int(self.rng.integers(1, 25))
            at = max(at, self.beats[-1][0]) if self.beats else at
            self.beats.extend((at, page, n, n == burst.length) for n in range(burst.length + 1))


class _Around(Protocol):
    """What stands around a unit in its testbench."""

    dut: Any
    memory: ListMemory

    def step(self) -> Awaitable[None]: ...


async def check_stop(around: _Around, begin: Callable[[Any], Awaitable[None]], cycles: int) -> None:
    """Nothing is read behind ``stop``, after so many cycles; what is in flight arrives."""
    dut, memory = around.dut, around.memory
    await begin(dut)
    for _ in range(cycles):
        await around.step()
    dut.stop.value = 1
    # The burst that waits for the bus still goes.
    for _ in range(2):
        await around.step()
    bursts = memory.bursts
    assert bursts
    for _ in range(120):
        await around.step()
    assert memory.bursts == bursts
    assert dut.idle.value == 1
    assert not memory.beats

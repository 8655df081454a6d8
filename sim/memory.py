"""The memory of fixed latency behind the AXI4 port, as the co-simulation's memory keeps time.

Cycle ``n`` is the ``n``-th rising edge after the START write, a transfer "at n" has valid and ready
before that edge. A read address is accepted at ``n`` if fewer bursts than the limit are
outstanding, an outstanding burst being one whose last beat was not taken at ``n - 1`` or earlier.
Beats leave in order of the addresses; with a rate of ``num / den`` beats per cycle, beat ``k`` is
taken at ``ceil(T_k / num)``, ``T_k = max((accepted + latency) num, T_{k-1} + den)``. Writes keep
the same rule for beats; the response of a burst is taken ``latency`` cycles after its last beat, in
order. Reads and writes do not disturb each other.
"""

import numba as nb
import numpy as np

from splatforge.designs.memory import MemoryTiming

__all__ = ["CLOCK", "LAST", "memory_constants", "new_port"]

#: Places in a port's state: time of the last beat in units of 1/num cycle, bursts so far, last
#: response taken.
CLOCK, LAST, RESPONSE = 0, 1, 2


def memory_constants(timing: MemoryTiming) -> tuple[int, ...]:
    """Latency, read num, read den, write num, write den, outstanding: what the kernels need."""
    return (
        timing.latency_cycles,
        timing.read_beats_per_cycle.numerator, timing.read_beats_per_cycle.denominator,
        timing.write_beats_per_cycle.numerator, timing.write_beats_per_cycle.denominator,
        timing.outstanding,
    )


def new_port(limit: int) -> tuple[np.ndarray, np.ndarray]:
    """State of one direction of the port, and the end of each burst still in its window."""
    return np.full(3, np.int64(-1) << 40), np.full(limit, np.int64(-1) << 40)


@nb.njit(inline="always")
def accept(window, bursts, earliest):
    """Cycle in which the next burst's address is accepted, if offered from `earliest` on."""
    return max(earliest, window[bursts % len(window)] + 1)


@nb.njit(inline="always")
def beat(state, ready, num, den):
    """Cycle in which the next beat is taken, if it is there from cycle `ready` on."""
    state[CLOCK] = max(ready * num, state[CLOCK] + den)
    return -(-state[CLOCK] // num)

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

__all__ = ["CLOCK", "RESPONSE", "memory_constants", "new_port"]

#: Places in a port's state: time of the last beat in units of 1/num cycle, last response taken.
CLOCK, RESPONSE = 0, 1


def memory_constants(timing: MemoryTiming) -> tuple[int, ...]:
    """Latency, read num, read den, write num, write den, outstanding: what the kernels need."""
    return (
        timing.latency_cycles,
        timing.read_beats_per_cycle.numerator, timing.read_beats_per_cycle.denominator,
        timing.write_beats_per_cycle.numerator, timing.write_beats_per_cycle.denominator,
        timing.outstanding,
    )


def new_port() -> np.ndarray:
    """State of one direction of the port before its first burst."""
    return np.full(2, np.int64(-1) << 40)


# Scalars only here: an array handed to an inlined function costs two atomic reference counts.
@nb.njit(inline="always")
def room(bursts, limit, ended, earliest):
    """First cycle from `earliest` on in which fewer than `limit` bursts are outstanding.

    `bursts` have begun so far; `ended` is the cycle in which the one that was `limit` before the
    next was over, whatever it is if there is none.
    """
    return max(earliest, ended + 1) if bursts >= limit else earliest


@nb.njit(inline="always")
def next_beat(clock, ready, num, den):
    """Time of the next beat in units of 1/num cycle, if it is there from cycle `ready` on."""
    return max(ready * num, clock + den)


@nb.njit(inline="always")
def cycle_of(clock, num):
    """Cycle in which the beat of time `clock` is taken."""
    # One beat a cycle is the common case, and a division is what costs most here.
    return clock if num == 1 else -(-clock // num)

"""Cycle model of :class:`splatforge.hw.fetch.Fetch`: when each splat of each tile arrives.

Requests are worked out as late as they are needed, each at the earliest cycle that all its
conditions allow; since each depends only on what came before it, the order of working out does not
matter, and an early stop can still cut short what has not been worked out.
"""

import numba as nb
import numpy as np

from splatforge.sim.memory import accept, beat

__all__ = ["LATENCY", "new_fetch"]

#: Cycles from the beat that completes a table entry to the tile's first burst address.
LATENCY = 4
#: Cycles from a tile's announcement until the array can take it.
TILE_LATENCY = 2
#: Cycles from a splat's arrival until the array can take it.
SPLAT_LATENCY = 2
#: Tiles that wait in the queue behind its output register.
TILE_QUEUE = 3
#: Later than any frame ends.
NEVER = np.int64(1) << 60

# Places in the unit's state.
(ASK_FREE, READY, TABLE_ASKED, TILE, REQUESTED, BURSTS, SPLAT_BURSTS, STALLED, LEFT, INDEX,
 SIZE) = range(11)


def new_fetch(first_cycle: int) -> np.ndarray:
    """State of the unit that may ask from `first_cycle` on."""
    state = np.zeros(SIZE, np.int64)
    state[ASK_FREE] = state[READY] = first_cycle
    return state


@nb.njit
def burst(state, asked, beats, memory, port, window, arrive, at):
    """Put a burst on the bus: asked for in cycle `asked`; arrivals go to ``arrive[at:]``."""
    latency, num, den = memory[0], memory[1], memory[2]
    accepted = accept(window, state[BURSTS], asked + 1)
    state[STALLED] += accepted - asked - 1
    last = np.int64(0)
    for k in range(beats):
        last = beat(port, accepted + latency, num, den)
        arrive[at + k] = last
    window[state[BURSTS] % len(window)] = last
    state[BURSTS] += 1
    state[ASK_FREE] = accepted
    return last


@nb.njit
def ask_table(state, from_cycle, limits, table_beats, next_beat, memory, port, window, table_time):
    """Ask for the next burst of the tile table if there is room; the earliest cycle after it."""
    burst_beats = limits[0]
    while state[TABLE_ASKED] < table_beats and state[TABLE_ASKED] - next_beat <= burst_beats:
        asked = max(from_cycle, state[ASK_FREE])
        beats = min(burst_beats, table_beats - state[TABLE_ASKED])
        burst(state, asked, beats, memory, port, window, table_time, state[TABLE_ASKED])
        state[TABLE_ASKED] += beats
        from_cycle = asked + 1
    return from_cycle


@nb.njit
def announce(state, count, first, earliest, limits, table_beats, memory, port, window, table_time):
    """Announce the next tile; returns the cycle of it.

    `earliest` is when the tile queue has room.
    """
    tile = state[TILE]
    seen = max(state[READY], table_time[tile >> 1] + 1)
    cycle = max(seen + 1, earliest)
    state[TILE] = tile + 1
    state[READY] = ask_table(
        state, cycle + 1, limits, table_beats, (tile + 1) >> 1, memory, port, window, table_time)
    state[LEFT] = count
    state[INDEX] = first
    if count == 0:
        state[READY] = cycle + 2
    return cycle


@nb.njit
def ask_splats(state, before, limits, memory, port, window, splat_window, taken, arrive):
    """Ask for the next burst of the current tile's splats, if that happens before `before`."""
    burst_beats, depth = limits[0], limits[1]
    beats = min(state[LEFT], burst_beats - state[INDEX] % burst_beats)
    requested = state[REQUESTED]
    asked = max(state[READY], state[ASK_FREE])
    # A whole burst must fit behind what has been requested and not yet taken.
    room = requested + burst_beats - depth - 1
    if room >= 0:
        asked = max(asked, taken[room])
    asked = max(asked, splat_window[state[SPLAT_BURSTS] % len(splat_window)] + 1)
    if asked >= before:
        return False
    last = burst(state, asked, beats, memory, port, window, arrive, requested)
    splat_window[state[SPLAT_BURSTS] % len(splat_window)] = last
    state[SPLAT_BURSTS] += 1
    state[REQUESTED] = requested + beats
    state[INDEX] += beats
    state[LEFT] -= beats
    state[READY] = asked + 1
    return True


def cycles(splats: int, latency: int) -> int:
    """Cycles from the first splat address to the last splat on the output, one tile, no stalls.

    For a list that the buffer holds and a memory of one beat per cycle.

    Raises
    ------
    ValueError
        If the number of splats is negative.
    """
    if splats < 0:
        raise ValueError(f"Number of splats must be non-negative, not {splats}")
    return 0 if splats == 0 else latency + splats - 1 + SPLAT_LATENCY + 1

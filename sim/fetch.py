"""Cycle model of :class:`splatforge.hw.fetch.Fetch`: when each splat of each tile arrives.

Requests are worked out as late as they are needed, each at the earliest cycle that all its
conditions allow; since each depends only on what came before it, the order of working out does not
matter, and an early stop can still cut short what has not been worked out.
"""

import numba as nb
import numpy as np

from splatforge.sim.memory import cycle_of, next_beat, room

__all__ = ["LATENCY", "new_fetch"]

#: Cycles from the beat that completes a table entry to the tile's first burst address.
LATENCY = 7
#: Cycles from a tile's announcement until the array can take it.
TILE_LATENCY = 2
#: Cycles from a splat's arrival until the array can take it.
SPLAT_LATENCY = 2
#: Cycles from the descriptor's last beat to the first cycle in which the table may be asked for.
DESCRIPTOR_LATENCY = 4
#: Tiles that wait in the queue behind its output register.
TILE_QUEUE = 3
#: Later than any frame ends.
NEVER = np.int64(1) << 60

# The unit's state is one array, since every array handed to a function in compiled code costs two
# atomic reference counts, and those would cost more than the model itself. First the scalars, then
# rings: the end of bursts on the bus and of splat bursts, arrivals of table beats, and for the
# splats when each one leaves the buffer (TAKEN) and when it arrives (ARRIVE, behind TAKEN).
(ASK_FREE, READY, TABLE_ASKED, TILE, REQUESTED, BURSTS, SPLAT_BURSTS, STALLED, LEFT, INDEX,
 CLOCK) = range(11)
BURST_RING = 2048
BURST_ENDS = 16
SPLAT_ENDS = BURST_ENDS + BURST_RING
TABLE_TIME = SPLAT_ENDS + BURST_RING
TABLE_RING = 1024
TAKEN = TABLE_TIME + TABLE_RING


@nb.njit(inline="always")
def splat_ring(buffer_splats):
    """Length of the rings of splats: all that is buffered, in flight, or just taken."""
    return 4 * buffer_splats


def new_fetch(buffer_splats: int) -> np.ndarray:
    """State of the unit before a frame."""
    state = np.zeros(TAKEN + 2 * splat_ring(buffer_splats), np.int64)
    state[CLOCK] = np.int64(-1) << 40
    return state


@nb.njit(inline="always")
def burst(state, asked, beats, memory, base, ring, at):
    """Put a burst on the bus, asked for in cycle `asked`; arrivals go to a ring at `base`."""
    latency, num, den = memory[0], memory[1], memory[2]
    bursts, limit = state[BURSTS], memory[5]
    ended = state[BURST_ENDS + ((bursts - limit) & (BURST_RING - 1))]
    accepted = room(bursts, limit, ended, asked + 1)
    state[STALLED] += accepted - asked - 1
    last = np.int64(0)
    clock = state[CLOCK]
    for k in range(beats):
        clock = next_beat(clock, accepted + latency, num, den)
        last = cycle_of(clock, num)
        state[base + ((at + k) & (ring - 1))] = last
    state[CLOCK] = clock
    state[BURST_ENDS + (state[BURSTS] & (BURST_RING - 1))] = last
    state[BURSTS] += 1
    state[ASK_FREE] = accepted
    return last


@nb.njit
def ask_table(state, from_cycle, limits, table_beats, next_beat, memory):
    """Ask for the next burst of the tile table if there is room; the earliest cycle after it."""
    burst_beats = limits[0]
    while state[TABLE_ASKED] < table_beats and state[TABLE_ASKED] - next_beat <= burst_beats:
        asked = max(from_cycle, state[ASK_FREE])
        beats = min(burst_beats, table_beats - state[TABLE_ASKED])
        burst(state, asked, beats, memory, TABLE_TIME, TABLE_RING, state[TABLE_ASKED])
        state[TABLE_ASKED] += beats
        from_cycle = asked + 1
    return from_cycle


@nb.njit
def start(state, limits, table_beats, memory):
    """Read the descriptor, asked for in cycle 0, then begin with the tile table."""
    described = burst(state, 0, 4, memory, TABLE_TIME, TABLE_RING, 0)
    state[ASK_FREE] = state[READY] = described + DESCRIPTOR_LATENCY
    ask_table(state, state[READY], limits, table_beats, 0, memory)


@nb.njit
def announce(state, count, first, earliest, limits, table_beats, memory):
    """Announce the next tile; returns the cycle of it.

    `earliest` is when the tile queue has room.
    """
    tile = state[TILE]
    seen = max(state[READY], state[TABLE_TIME + ((tile >> 1) & (TABLE_RING - 1))] + 2)
    cycle = max(seen + 2, earliest)
    state[TILE] = tile + 1
    state[READY] = ask_table(state, cycle + 2, limits, table_beats, (tile + 1) >> 1, memory)
    state[LEFT] = count
    state[INDEX] = first
    if count == 0:
        state[READY] = cycle + 3
    return cycle


@nb.njit
def ask_splats(state, before, limits, memory):
    """Ask for the next burst of the current tile's splats, if that happens before `before`."""
    burst_beats, depth = limits[0], limits[1]
    ring = splat_ring(depth)
    beats = min(state[LEFT], burst_beats - (state[INDEX] & (burst_beats - 1)))
    requested = state[REQUESTED]
    asked = max(state[READY], state[ASK_FREE])
    # A whole burst must fit behind what has been requested and not yet taken.
    needed = requested + burst_beats - depth - 1
    if needed >= 0:
        asked = max(asked, state[TAKEN + (needed & (ring - 1))] + 1)
    bursts, limit = state[SPLAT_BURSTS], limits[2]
    ended = state[SPLAT_ENDS + ((bursts - limit) & (BURST_RING - 1))]
    asked = room(bursts, limit, ended, asked)
    if asked >= before:
        return False
    last = burst(state, asked, beats, memory, TAKEN + ring, ring, requested)
    state[SPLAT_ENDS + (state[SPLAT_BURSTS] & (BURST_RING - 1))] = last
    for k in range(beats):
        state[TAKEN + ((requested + k) & (ring - 1))] = NEVER
    state[SPLAT_BURSTS] += 1
    state[REQUESTED] = requested + beats
    state[INDEX] += beats
    state[LEFT] -= beats
    state[READY] = asked + 1
    return True


@nb.njit(inline="always")
def last_arrival(state):
    """Cycle in which the last splat that was asked for arrives; 0 where none was."""
    return state[SPLAT_ENDS + ((state[SPLAT_BURSTS] - 1) & (BURST_RING - 1))]


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

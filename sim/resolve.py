"""Cycle model of :class:`splatforge.hw.resolve.Resolve`: when each tile is written."""

import numba as nb
import numpy as np

from splatforge.sim.memory import CLOCK, RESPONSE, cycle_of, next_beat, room

__all__ = ["LATENCY", "new_resolve", "write_tile"]

#: Cycles from a group of pixels to its first beat.
LATENCY = 4

# Places in the unit's state: bursts so far, address accepted last, beat taken last, beats written,
# cycles a beat waited, bytes written.
BURSTS, ADDRESS, BEAT, BEATS, STALLED, BYTES, SIZE = range(7)


def new_resolve() -> np.ndarray:
    """State of the unit before a frame."""
    return np.zeros(SIZE, np.int64)


@nb.njit
def write_tile(start, columns, rows, pixel_bytes, limit, memory, port, burst_ends, state, ends):
    """Write one tile that was handed over in cycle `start`.

    Parameters
    ----------
    start : int
        Cycle in which the unit takes the tile.
    columns, rows : int
        Pixels of the tile in the frame.
    pixel_bytes, limit : int
        Bytes of a pixel, and bursts that the unit may have in flight.
    burst_ends : ndarray
        Cycle of every write response so far.
    ends : ndarray
        Scratch of 64 cycles.

    Returns
    -------
    tuple of int
        Cycle in which the array has handed over its last group, and cycle in which the last beat
        begins.
    """
    latency, num, den = memory[0], memory[3], memory[4]
    groups = (columns + 3) // 4
    clock = port[CLOCK]
    load = start + 1
    begun = start
    group = 0
    for _ in range(rows):
        # The address: a register, then the bus.
        begin = max(start + 1, state[ADDRESS])
        begin = room(burst_ends, state[BURSTS], limit, begin)
        state[ADDRESS] = room(burst_ends, state[BURSTS], memory[5], begin + 1)
        left = columns
        taken = np.int64(0)
        for _ in range(groups):
            # Three stages behind the register that the array fills; they move as a whole when the
            # last one is empty or emptied.
            there = start + LATENCY + 1 if group == 0 else ends[(group - 1) & 63] + 1
            sent = load + 1
            if group >= 3:
                sent = max(sent, ends[(group - 3) & 63])
            pixels = min(4, left)
            for _ in range((pixels * pixel_bytes + 15) // 16):
                begun = max(max(there, begun + 1), max(state[BEAT], state[ADDRESS] + 1))
                clock = next_beat(clock, begun + 1, num, den)
                taken = cycle_of(clock, num)
                state[STALLED] += taken - begun - 1
                state[BEAT] = taken
                state[BEATS] += 1
            ends[group & 63] = begun
            state[BYTES] += pixels * pixel_bytes
            left -= 4
            group += 1
            if group < groups * rows:
                load = max(load + 1, sent)
        port[RESPONSE] = max(port[RESPONSE] + 1, taken + latency)
        burst_ends[state[BURSTS]] = port[RESPONSE]
        state[BURSTS] += 1
    port[CLOCK] = clock
    return load, begun


def cycles(beats: int) -> int:
    """Cycles from a tile's first group to its last beat, both counted, when nothing stalls.

    Raises
    ------
    ValueError
        If the number of beats is negative.
    """
    if beats < 0:
        raise ValueError(f"Number of beats must be non-negative, not {beats}")
    return 0 if beats == 0 else LATENCY + beats

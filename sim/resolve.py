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
def write_tile(start, columns, rows, pixel_bytes, limit, memory, port, burst_ends, state):
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

    Returns
    -------
    tuple of int
        Cycle in which the array has taken its last group out of its state, and cycle in which the
        last beat begins.
    """
    latency, num, den, bus_limit = memory[0], memory[3], memory[4], memory[5]
    groups = (columns + 3) // 4
    clock, response = port[CLOCK], port[RESPONSE]
    burst, address, beat = state[BURSTS], state[ADDRESS], state[BEAT]
    beats, stalled = np.int64(0), np.int64(0)
    # The array asks for a group, has it in a register, then in its output's, or in the one beside
    # that. It stops in the cycle after one in which both are taken.
    left_state = start + 2
    load = start + 3
    sent = before = start
    begun = start
    # When the last three groups were done with, the newest first.
    end_1 = end_2 = end_3 = start + 2 + LATENCY
    for row in range(rows):
        # The address: a register, then the bus.
        begin = room(burst, limit, burst_ends[max(0, burst - limit)], max(start + 1, address))
        address = room(burst, bus_limit, burst_ends[max(0, burst - bus_limit)], begin + 1)
        left = columns
        taken = np.int64(0)
        for group in range(groups):
            # Three stages behind the register that the array fills; they move as a whole when the
            # last one is empty or emptied.
            before, sent = sent, max(load, sent) + 1
            if row * groups + group >= 3:
                sent = max(sent, end_3)
            begun = max(begun, end_1)
            for _ in range((min(4, left) * pixel_bytes + 15) >> 4):
                begun = max(begun + 1, max(beat, address + 1))
                clock = next_beat(clock, begun + 1, num, den)
                taken = cycle_of(clock, num)
                stalled += taken - begun - 1
                beat = taken
                beats += 1
            end_3, end_2, end_1 = end_2, end_1, begun
            left -= 4
            if row * groups + group < groups * rows - 1:
                # The next group leaves the state when this one leaves the register behind it.
                left_state = load
                load = max(load, before) + 1
        response = max(response + 1, taken + latency)
        burst_ends[burst] = response
        burst += 1
    port[CLOCK], port[RESPONSE] = clock, response
    state[BURSTS], state[ADDRESS], state[BEAT] = burst, address, beat
    state[BEATS] += beats
    state[STALLED] += stalled
    state[BYTES] += columns * rows * pixel_bytes
    return left_state, begun


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

"""Cycle model of :class:`splatforge.hw.lib.nru_unit.NruUnit`: which fragment goes, and when.

All units of an array take a cycle together: what is one bit of each is a word of bit n for unit n,
so that those without work take no time. :func:`offers` tells what they show in a cycle,
:func:`step` what one cycle does. What happens to the fragments, whom they end and whose records
they complete, is known before.
"""

import numba as nb
import numpy as np
import numpy.typing as npt

from splatforge.designs.nru import UNIT_PIXELS, NruDesign
from splatforge.sim import blend

__all__ = ["COMPLETE", "ENTRIES", "HALF", "LATENCY", "STATE_LATENCY", "UNITS", "lowest",
           "new_units", "offers", "step"]

#: Cycles of a fragment from the queue until it is told whether its pixel has ended.
TOLD = 6 + blend.DEAD_LATENCY
#: Cycles from a transfer to an empty unit until it is told.
LATENCY = 1 + TOLD
#: Cycles from a transfer to an empty unit until the state shows it.
STATE_LATENCY = 7 + blend.LATENCY

#: Units that a word has bits for.
UNITS = 64

# Entries that a queue holds; half of the state that is blended; the cycle, its place in the ring of
# what is told, and when a fragment of any unit went last; then words of units whose queues hold
# something, have no room for two, have none.
DEPTH, HALF, NOW, PLACE, LAST, WAITING, NARROW, FULL, ENTRIES = range(9)
# Then by unit: what it is offered, entries of its queue, place of the oldest.
COUNTS, OLDEST, TOLD_RING = ENTRIES + UNITS, ENTRIES + 2 * UNITS, ENTRIES + 3 * UNITS
# Then a ring of the cycles that come, each with words of the units whose pixel 0, 1, ... has ended,
# of those whose record is complete with it, the half, and whether there is anything; then queues.
COMPLETE = UNIT_PIXELS
TOLD_HALF, TOLD_ANY, TOLD_SIZE = range(2 * UNIT_PIXELS, 2 * UNIT_PIXELS + 3)
QUEUES = TOLD_RING + TOLD * TOLD_SIZE

# The lowest bit that is set, times this, has the bit's number in its highest six: no two the same.
_PRODUCT = 0x03f79d71b4cb0a89
_LOWEST = np.zeros(UNITS, np.int64)
for _bit in range(UNITS):
    _LOWEST[(_PRODUCT << _bit & (1 << 64) - 1) >> 58] = _bit


def new_units(design: NruDesign, units: int) -> npt.NDArray[np.int64]:
    """State of so many units from reset.

    An entry of a queue is a number: four bits each of the places that are to go, of those that end
    their pixel, of those that complete its record; then two bits each of the places' pixels.
    """
    state = np.zeros(QUEUES + units * design.queue_entries, np.int64)
    state[[DEPTH, HALF, LAST]] = design.queue_entries, 1, -TOLD
    return state


@nb.njit(inline="always")
def lowest(word):
    """Number of the lowest bit that is set in a word, which has one."""
    return _LOWEST[((word & -word) * _PRODUCT) >> 58 & 63]


@nb.njit
def offers(state):
    """Units that take no entry, and that could not take two; what is told; whether any is busy.

    Parameters
    ----------
    state : ndarray
        From :func:`new_units`.

    Returns
    -------
    tuple
        Two words; where in the state it stands which pixels have ended and which records are
        complete; whether any unit is busy.
    """
    # The one that is told in this cycle is out.
    return (state[FULL], state[NARROW], TOLD_RING + TOLD_SIZE * state[PLACE],
            state[WAITING] != 0 or state[NOW] - state[LAST] < TOLD)


@nb.njit
def step(state, offered, begin):
    """One cycle.

    Parameters
    ----------
    state : ndarray
        From :func:`new_units`; has at `ENTRIES` and its number what a unit is offered.
    offered : int
        A word: units that an entry is offered to.
    begin : bool
        Another tile begins.
    """
    told, depth = TOLD_RING + TOLD_SIZE * state[PLACE], state[DEPTH]
    offered &= ~state[FULL]
    if state[told + TOLD_ANY]:
        for n in range(TOLD_SIZE):
            state[told + n] = 0
    state[told + TOLD_HALF] = state[HALF]
    left = state[WAITING]
    if left:
        state[LAST] = state[NOW]
    while left:
        unit = lowest(left)
        bit = left & -left
        left ^= bit
        # The depth is a power of two.
        at = QUEUES + unit * depth + state[OLDEST + unit]
        entry = state[at]
        place = lowest(entry)
        code = entry >> place
        pixel = entry >> (3 * UNIT_PIXELS + 2 * place) & 3
        if code & (1 << UNIT_PIXELS | 1 << 2 * UNIT_PIXELS):
            state[told + TOLD_ANY] = 1
            if code >> UNIT_PIXELS & 1:
                state[told + pixel] |= bit
            if code >> 2 * UNIT_PIXELS & 1:
                state[told + COMPLETE + pixel] |= bit
        entry &= entry - 1
        state[at] = entry
        if not entry & (1 << UNIT_PIXELS) - 1:
            state[OLDEST + unit] = state[OLDEST + unit] + 1 & depth - 1
            count = state[COUNTS + unit] - 1
            state[COUNTS + unit] = count
            state[FULL] &= ~bit
            if count == depth - 2:
                state[NARROW] &= ~bit
            if count == 0:
                state[WAITING] &= ~bit
    while offered:
        unit = lowest(offered)
        bit = offered & -offered
        offered ^= bit
        count = state[COUNTS + unit] + 1
        state[QUEUES + unit * depth + (state[OLDEST + unit] + count - 1 & depth - 1)] = (
            state[ENTRIES + unit])
        state[COUNTS + unit] = count
        state[WAITING] |= bit
        if count >= depth - 1:
            state[NARROW] |= bit
            if count == depth:
                state[FULL] |= bit
    state[NOW] += 1
    state[PLACE] = state[PLACE] + 1 if state[PLACE] + 1 < TOLD else 0
    if begin:
        state[HALF] = 1 - state[HALF]

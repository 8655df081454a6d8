"""Cycle model of :class:`splatforge.hw.lib.nru_unit.NruUnit`: which fragment goes, and when.

All units of an array take a cycle together: what is one bit of each is in words, bit n of word w of
unit 64 w + n, so that those without work take no time. :func:`offers` tells what they show in a
cycle, :func:`step` what one cycle does. What happens to the fragments, whom they end and whose
records they complete, is known before.
"""

import numba as nb
import numpy as np
import numpy.typing as npt

from splatforge.designs.nru import NruDesign
from splatforge.sim import blend

__all__ = ["COMPLETE", "COMPLETES", "ENDS", "ENTRIES", "HALF", "LATENCY", "OFFERED", "PIXEL",
           "PIXEL_WORDS", "STATE_LATENCY", "lowest", "new_units", "offers", "step", "words_of"]

#: Cycles of a fragment from the queue until it is told whether its pixel has ended.
TOLD = 6 + blend.DEAD_LATENCY
#: Cycles from a transfer to an empty unit until it is told.
LATENCY = 1 + TOLD
#: Cycles from a transfer to an empty unit until the state shows it.
STATE_LATENCY = 7 + blend.LATENCY

# What there is room for: units, the words of a bit of each, and those of a bit of each pixel. So
# many words are 128 units of two pixels, or 64 of eight.
_UNITS, _UNIT_WORDS = 128, 2
PIXEL_WORDS = 8

# Entries that a queue holds; pixels of a unit; words of a bit of each unit; half of the state that
# is blended; the cycle, its place in the ring of what is told, and when a fragment of any unit went
# last.
DEPTH, PIXELS, WORDS, HALF, NOW, PLACE, LAST = range(7)
# Then words of units whose queues hold something, have no room for two, have none, and of those
# that an entry is offered to.
WAITING, NARROW, FULL, OFFERED, ENTRIES = range(7, 7 + 5 * _UNIT_WORDS, _UNIT_WORDS)
# Then by unit: what it is offered, entries of its queue, place of the oldest.
COUNTS, OLDEST, TOLD_RING = ENTRIES + _UNITS, ENTRIES + 2 * _UNITS, ENTRIES + 3 * _UNITS
# Then a ring of the cycles that come, each with words of the units whose pixel 0, 1, ... has ended,
# of the first 64 by pixel, then of the others; of those whose record is complete with it; the half,
# and whether there is anything; then queues.
COMPLETE = PIXEL_WORDS
TOLD_HALF, TOLD_ANY, TOLD_SIZE = range(2 * PIXEL_WORDS, 2 * PIXEL_WORDS + 3)
QUEUES = TOLD_RING + TOLD * TOLD_SIZE

# An entry is a number. Its lowest bits are the places that are to go; from these on are those that
# end their pixel, those that complete its record, and three bits each of the places' pixels.
ENDS, COMPLETES, PIXEL = 8, 16, 24
_PLACES = (1 << ENDS) - 1

# The lowest bit that is set, times this, has the bit's number in its highest six: no two the same.
_PRODUCT = 0x03f79d71b4cb0a89
_LOWEST = np.zeros(64, np.int64)
for _bit in range(64):
    _LOWEST[(_PRODUCT << _bit & (1 << 64) - 1) >> 58] = _bit


def words_of(units: int) -> int:
    """Words that hold a bit of so many units."""
    return -(-units // 64)


def new_units(design: NruDesign, units: int) -> npt.NDArray[np.int64]:
    """State of so many units from reset."""
    state = np.zeros(QUEUES + units * design.queue_entries, np.int64)
    state[[DEPTH, PIXELS, WORDS]] = design.queue_entries, design.unit_pixels, words_of(units)
    state[[HALF, LAST]] = 1, -TOLD
    return state


@nb.njit(inline="always")
def lowest(word):
    """Number of the lowest bit that is set in a word, which has one."""
    return _LOWEST[((word & -word) * _PRODUCT) >> 58 & 63]


@nb.njit
def offers(state):
    """Whether a unit takes no entry, and one could not take two; what is told; whether one is busy.

    Parameters
    ----------
    state : ndarray
        From :func:`new_units`.

    Returns
    -------
    tuple
        Two flags; where in the state it stands which pixels have ended and which records are
        complete; whether any unit is busy.
    """
    full = narrow = waiting = np.int64(0)
    for word in range(state[WORDS]):
        full |= state[FULL + word]
        narrow |= state[NARROW + word]
        waiting |= state[WAITING + word]
    # The one that is told in this cycle is out.
    return (full != 0, narrow != 0, TOLD_RING + TOLD_SIZE * state[PLACE],
            waiting != 0 or state[NOW] - state[LAST] < TOLD)


@nb.njit
def step(state, begin):
    """One cycle.

    Parameters
    ----------
    state : ndarray
        From :func:`new_units`; has at `OFFERED` the units that an entry is offered to, which a
        cycle clears, and at `ENTRIES` and its number what a unit is offered.
    begin : bool
        Another tile begins.
    """
    told, depth = TOLD_RING + TOLD_SIZE * state[PLACE], state[DEPTH]
    if state[told + TOLD_ANY]:
        for n in range(TOLD_SIZE):
            state[told + n] = 0
    state[told + TOLD_HALF] = state[HALF]
    for word in range(state[WORDS]):
        offered = state[OFFERED + word] & ~state[FULL + word]
        state[OFFERED + word] = 0
        left = state[WAITING + word]
        if left:
            state[LAST] = state[NOW]
        while left:
            bit = left & -left
            unit = 64 * word + lowest(left)
            left ^= bit
            # The depth is a power of two.
            at = QUEUES + unit * depth + state[OLDEST + unit]
            entry = state[at]
            place = lowest(entry)
            code = entry >> place
            pixel = state[PIXELS] * word + (entry >> (PIXEL + 3 * place) & 7)
            if code & (1 << ENDS | 1 << COMPLETES):
                state[told + TOLD_ANY] = 1
                if code >> ENDS & 1:
                    state[told + pixel] |= bit
                if code >> COMPLETES & 1:
                    state[told + COMPLETE + pixel] |= bit
            entry &= entry - 1
            state[at] = entry
            if not entry & _PLACES:
                state[OLDEST + unit] = state[OLDEST + unit] + 1 & depth - 1
                count = state[COUNTS + unit] - 1
                state[COUNTS + unit] = count
                state[FULL + word] &= ~bit
                if count == depth - 2:
                    state[NARROW + word] &= ~bit
                if count == 0:
                    state[WAITING + word] &= ~bit
        while offered:
            bit = offered & -offered
            unit = 64 * word + lowest(offered)
            offered ^= bit
            count = state[COUNTS + unit] + 1
            state[QUEUES + unit * depth + (state[OLDEST + unit] + count - 1 & depth - 1)] = (
                state[ENTRIES + unit])
            state[COUNTS + unit] = count
            state[WAITING + word] |= bit
            if count >= depth - 1:
                state[NARROW + word] |= bit
                if count == depth:
                    state[FULL + word] |= bit
    state[NOW] += 1
    state[PLACE] = state[PLACE] + 1 if state[PLACE] + 1 < TOLD else 0
    if begin:
        state[HALF] = 1 - state[HALF]

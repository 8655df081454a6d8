"""Cycle model of :class:`splatforge.hw.lib.nru_unit.NruUnit`: which fragment goes, and when.

:func:`offers` tells what the unit shows in a cycle, :func:`step` what one cycle does. What happens
to the fragments, whom they end and whose records they complete, is known before.
"""

import numba as nb
import numpy as np
import numpy.typing as npt

from splatforge.designs.nru import UNIT_PIXELS, NruDesign
from splatforge.sim import blend

__all__ = ["LATENCY", "STATE_LATENCY", "new_nru_unit", "offers", "step"]

#: Cycles of a fragment from the queue until it is told whether its pixel has ended.
TOLD = 6 + blend.DEAD_LATENCY
#: Cycles from a transfer to an empty unit until it is told.
LATENCY = 1 + TOLD
#: Cycles from a transfer to an empty unit until the state shows it.
STATE_LATENCY = 7 + blend.LATENCY

# Entries that the queue holds, came and went; places of the first that have gone; half of the state
# that is blended; the cycle, its place in the ring of fragments, and when a fragment went last;
# then a ring of the queue, and one of fragments: (place in `told`, half) or -1.
DEPTH, CAME, WENT, GONE, HALF, NOW, PLACE, LAST = range(8)
QUEUE = 8


def new_nru_unit(design: NruDesign) -> npt.NDArray[np.int64]:
    """State of the unit from reset."""
    state = np.zeros(QUEUE + design.queue_entries + 2 * TOLD, np.int64)
    state[DEPTH], state[HALF], state[LAST] = design.queue_entries, 1, -TOLD
    state[QUEUE + design.queue_entries:] = -1
    return state


@nb.njit
def offers(states, told, unit):
    """Ready of the entries; masks of the ended and of the completed, and their half; busy.

    Parameters
    ----------
    states : ndarray
        Of all units, each from :func:`new_nru_unit`.
    told : ndarray
        Of every unit and fragment: its pixel, whether the pixel has ended, whether its record is
        complete with it, shape [units, entries, 4, 3]; int64.
    unit : int
        Whose.
    """
    count = states[unit, CAME] - states[unit, WENT]
    at = QUEUE + states[unit, DEPTH] + 2 * states[unit, PLACE]
    ended, complete, half = 0, 0, 0
    fragment = states[unit, at]
    if fragment >= 0:
        entry, place = fragment // UNIT_PIXELS, fragment % UNIT_PIXELS
        pixel = told[unit, entry, place, 0]
        ended = told[unit, entry, place, 1] << pixel
        complete = told[unit, entry, place, 2] << pixel
        half = states[unit, at + 1]
    # The one that is told in this cycle is out.
    busy = count > 0 or states[unit, NOW] - states[unit, LAST] < TOLD
    return count < states[unit, DEPTH], ended, complete, half, busy


@nb.njit
def step(states, masks, unit, entry, begin):
    """One cycle.

    Parameters
    ----------
    states : ndarray
        Of all units, each from :func:`new_nru_unit`.
    masks : ndarray
        Significant places of every unit's entries, shape [units, entries].
    unit : int
        Whose cycle.
    entry : int
        The entry that is offered, or -1.
    begin : bool
        Another tile begins.
    """
    depth = states[unit, DEPTH]
    count = states[unit, CAME] - states[unit, WENT]
    at = QUEUE + depth + 2 * states[unit, PLACE]
    states[unit, at] = -1
    if count > 0:
        # The depth is a power of two.
        head = states[unit, QUEUE + (states[unit, WENT] & depth - 1)]
        left = masks[unit, head] & ~states[unit, GONE]
        place = 0
        while not left >> place & 1:
            place += 1
        states[unit, at], states[unit, at + 1] = UNIT_PIXELS * head + place, states[unit, HALF]
        states[unit, GONE] |= 1 << place
        if left == 1 << place:
            states[unit, GONE] = 0
            states[unit, WENT] += 1
        states[unit, LAST] = states[unit, NOW]
    states[unit, NOW] += 1
    states[unit, PLACE] = states[unit, PLACE] + 1 if states[unit, PLACE] + 1 < TOLD else 0
    if entry >= 0 and count < depth:
        states[unit, QUEUE + (states[unit, CAME] & depth - 1)] = entry
        states[unit, CAME] += 1
    if begin:
        states[unit, HALF] = 1 - states[unit, HALF]

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
# that is blended; fragments on the way, and how many have gone in all; then a ring of the queue,
# and one of fragments: (place in `told`, half) or -1.
DEPTH, CAME, WENT, GONE, HALF, NOW = range(6)
QUEUE = 6


def new_nru_unit(design: NruDesign) -> npt.NDArray[np.int64]:
    """State of the unit from reset."""
    state = np.zeros(QUEUE + design.queue_entries + 2 * TOLD, np.int64)
    state[DEPTH], state[HALF] = design.queue_entries, 1
    state[QUEUE + design.queue_entries:] = -1
    return state


@nb.njit
def offers(state, told):
    """Ready of the entries; masks of the ended and of the completed, and their half; busy.

    Parameters
    ----------
    state : ndarray
        From :func:`new_nru_unit`.
    told : ndarray
        Of every fragment: its pixel, whether the pixel has ended, whether its record is complete
        with it, shape [entries, 4, 3]; int64.
    """
    count = state[CAME] - state[WENT]
    ring = QUEUE + state[DEPTH]
    at = ring + 2 * (state[NOW] % TOLD)
    ended, complete, half = 0, 0, 0
    if state[at] >= 0:
        pixel, ends, completes = told[state[at] // UNIT_PIXELS, state[at] % UNIT_PIXELS]
        ended, complete, half = ends << pixel, completes << pixel, state[at + 1]
    busy = count > 0
    # The one that is told in this cycle is out.
    for n in range(1, TOLD):
        busy = busy or state[ring + 2 * ((state[NOW] + n) % TOLD)] >= 0
    return count < state[DEPTH], ended, complete, half, busy


@nb.njit
def step(state, masks, entry, begin):
    """One cycle.

    Parameters
    ----------
    state : ndarray
        From :func:`new_nru_unit`.
    masks : ndarray
        Significant places of every entry.
    entry : int
        The entry that is offered, or -1.
    begin : bool
        Another tile begins.
    """
    depth = state[DEPTH]
    count = state[CAME] - state[WENT]
    at = QUEUE + depth + 2 * (state[NOW] % TOLD)
    state[at] = -1
    if count > 0:
        head = state[QUEUE + state[WENT] % depth]
        left = masks[head] & ~state[GONE]
        place = 0
        while not left >> place & 1:
            place += 1
        state[at], state[at + 1] = UNIT_PIXELS * head + place, state[HALF]
        state[GONE] |= 1 << place
        if left == 1 << place:
            state[GONE] = 0
            state[WENT] += 1
    state[NOW] += 1
    if entry >= 0 and count < depth:
        state[QUEUE + state[CAME] % depth] = entry
        state[CAME] += 1
    if begin:
        state[HALF] = 1 - state[HALF]

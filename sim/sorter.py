"""Cycle model of :mod:`splatforge.hw.lib.sorter`: when a chunk is taken, sorted and given.

Sorting takes as long as its passes, whatever the entries are. :func:`offers` tells what the sorter
shows in a cycle, :func:`step` what one cycle does.
"""

import numba as nb
import numpy as np
import numpy.typing as npt

from splatforge.algos.bsu import passes
from splatforge.designs.bsu import BsuDesign

__all__ = ["LOAD", "PHASE", "new_sorter", "offers", "sort_cycles", "step"]

LOAD, PAD, SORT, EMIT = range(4)
# The phase; entries taken of the chunk; cycles left of a phase that takes as long as it takes;
# passes, rows and cycles of each, and which cycle of its pass it is; entries read, and the places
# in the order of those in the two registers behind, or -1; the design's width and stages.
(PHASE, COUNT, LEFT, PASSES, ROWS, SPAN, CYCLE, READ, BEHIND, OUT, WIDTH, STAGES) = range(12)


def new_sorter(design: BsuDesign) -> npt.NDArray[np.int64]:
    """State of a sorter without a chunk."""
    state = np.zeros(STAGES + 1, np.int64)
    state[BEHIND] = state[OUT] = -1
    state[WIDTH], state[STAGES] = design.width, design.stages
    return state


@nb.njit
def _plan(state):
    """Passes of the chunk that has been taken."""
    used = (state[COUNT] + state[WIDTH] - 1) // state[WIDTH]
    row_levels = 0
    while 1 << row_levels < used:
        row_levels += 1
    levels = row_levels + state[STAGES]
    if used == 1:
        levels = 0
        while 1 << levels < state[COUNT]:
            levels += 1
    # A pass over rows for every level, one over columns for those that reach beyond a row.
    state[PASSES] = levels + row_levels
    state[ROWS] = 1 << row_levels
    state[SPAN] = state[ROWS] + state[STAGES] + 1
    # A cycle for each row that is all pads, and one to see the end of them.
    state[LEFT] = state[ROWS] - used + 1


def sort_cycles(design: BsuDesign, count: int) -> int:
    """Cycles from a chunk's last pair to its first entry on the output, of `count` entries."""
    rows = 1 << max(0, (count - 1).bit_length() - design.stages)
    pads = rows - -(-count // design.width)
    return 4 + pads + len(passes(design, count)) * (rows + design.stages + 1)


@nb.njit
def offers(state):
    """What is offered in this cycle.

    Returns
    -------
    ready, busy : bool
        A pair is taken; a row is read for a pass.
    place : int
        Place in the order of the entry that is offered, or -1.
    last : bool
        Whether it is the chunk's last.
    """
    busy = state[PHASE] == SORT and state[CYCLE] < state[ROWS]
    return state[PHASE] == LOAD, busy, state[OUT], state[OUT] == state[COUNT] - 1


@nb.njit
def step(state, entries, last, out_ready, drop):
    """One cycle.

    Parameters
    ----------
    state : ndarray
        From :func:`new_sorter`.
    entries : int
        Those of the pair that is offered, 1 or 2, or 0 for none.
    last : bool
        Whether it is the chunk's last pair.
    out_ready, drop : bool
        What is given is taken; the chunk is forgotten.
    """
    phase = state[PHASE]
    move = state[OUT] < 0 or out_ready
    emitted = state[OUT] >= 0 and out_ready and state[OUT] == state[COUNT] - 1
    read = np.int64(-1)
    if phase == EMIT and move and state[READ] < state[COUNT]:
        read = state[READ]
        state[READ] += 1
    if move:
        state[OUT] = state[BEHIND]
        state[BEHIND] = read

    if phase == LOAD:
        state[COUNT] += entries
        if last and entries:
            _plan(state)
            state[PHASE] = PAD
    elif drop or emitted:
        state[PHASE] = LOAD
        state[COUNT] = 0
        state[READ] = 0
        state[OUT] = state[BEHIND] = -1
    elif phase == PAD or phase == SORT:
        state[LEFT] -= 1
        state[CYCLE] += 1
        if state[CYCLE] == state[SPAN]:
            state[CYCLE] = 0
        if state[LEFT] == 0:
            if phase == PAD:
                state[LEFT] = state[PASSES] * state[SPAN]
                state[CYCLE] = 0
            state[PHASE] = SORT if state[LEFT] else EMIT

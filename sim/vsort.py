"""Cycle model of :class:`splatforge.hw.vsort.Vsort`: where each voxel is, and when it is given.

:func:`offers` tells what the unit shows in a cycle, :func:`step` what one cycle does. What is given
are places among all features in order: those of a voxel are a run of them.
"""

import numba as nb
import numpy as np
import numpy.typing as npt

from splatforge.designs.tokens import GROUP_TAG_BITS, FineKind
from splatforge.designs.vsort import VsortDesign
from splatforge.sim import sorter

__all__ = ["BUSY", "OUT_END", "OUT_PLACE", "OUT_TAG", "ROWS", "SORTED", "behind", "new_sorters",
           "new_vsort", "offers", "step"]

FEATURE, VOXEL_END = int(FineKind.FEATURE), int(FineKind.VOXEL_END)

# Tokens that fit in front of the sorters; how many wait, whether one is at the end of the queue and
# one in the register behind it; how many came and went. Features that are kept, the tag and the
# first place of the voxel that loads; the sorter that loads next and the one that gives; the
# output's register; what was put into the queue and taken out, and how many fit; counts.
(WAITING, WAITS, ENDS, SHOWN, CAME, WENT, COUNT, TAG, FIRST, BEGUN, LOAD, GIVE, OUT, OUT_END,
 OUT_TAG, OUT_PLACE, PUSHED, POPPED, DEPTH, BUSY, SORTED, ROWS) = range(22)
#: Then a ring of the queue: (end of a group, tag, place of the first feature); and one of tokens:
#: (kind, tag, place).
QUEUE = 22


def new_vsort(design: VsortDesign) -> npt.NDArray[np.int64]:
    """State of the unit before a frame; its sorters have states of their own."""
    depth = 2 * design.units
    state = np.zeros(QUEUE + 3 * (depth + design.waiting + 1), np.int64)
    state[DEPTH], state[WAITING] = depth, design.waiting
    return state


def new_sorters(design: VsortDesign) -> npt.NDArray[np.int64]:
    """States of the sorters, a row each."""
    return np.stack([sorter.new_sorter(design.sorter) for _ in range(design.units)])


@nb.njit
def _is_older(tag, oldest):
    return (tag - oldest) >> (GROUP_TAG_BITS - 1) & 1 != 0


@nb.njit
def _stale(state, oldest):
    """Whether what is kept is of a group that is over."""
    return state[COUNT] != 0 and _is_older(state[TAG], oldest)


@nb.njit
def _room(state, sorters):
    """Whether a sorter can load, and its voxel be queued."""
    return (sorters[state[LOAD], sorter.PHASE] == sorter.LOAD
            and state[PUSHED] - state[POPPED] < state[DEPTH])


@nb.njit
def _waiting(state, went):
    """Where the token stands that comes behind so many."""
    return QUEUE + 3 * (state[DEPTH] + went % (state[WAITING] + 1))


@nb.njit
def offers(state):
    """Whether a token is taken in this cycle, and one offered."""
    return state[WAITS] < state[WAITING] - 1, state[OUT] != 0


@nb.njit
def behind(state, oldest):
    """Whether something of a group before `oldest` is inside."""
    head = QUEUE + 3 * (state[POPPED] % state[DEPTH])
    return ((state[OUT] != 0 and _is_older(state[OUT_TAG], oldest))
            or (state[SHOWN] != 0 and _is_older(state[_waiting(state, state[WENT]) + 1], oldest))
            or (state[PUSHED] != state[POPPED] and _is_older(state[head + 1], oldest))
            or _stale(state, oldest))


@nb.njit
def _push(state, end, tag, first):
    at = QUEUE + 3 * (state[PUSHED] % state[DEPTH])
    state[at], state[at + 1], state[at + 2] = end, tag, first
    state[PUSHED] += 1


@nb.njit
def step(state, sorters, oldest, kind, tag, place, out_ready):
    """One cycle.

    Parameters
    ----------
    state, sorters : ndarray
        From :func:`new_vsort` and :func:`new_sorters`.
    oldest : int
        The oldest group that is wanted.
    kind : int
        Of the token that is offered, :class:`splatforge.designs.tokens.FineKind`, or -1 for none.
    tag, place : int
        Its group; of a feature the place that it has among all of them, in the order in which they
        come.
    out_ready : bool
        What is offered is taken.
    """
    units = len(sorters)
    load, give = state[LOAD], state[GIVE]
    came = kind >= 0 and state[WAITS] < state[WAITING] - 1
    if came:
        at = _waiting(state, state[CAME])
        state[at], state[at + 1], state[at + 2] = kind, tag, place
    room, stale = _room(state, sorters), _stale(state, oldest)
    first = _waiting(state, state[WENT])
    kind, tag, place = state[first], state[first + 1], state[first + 2]
    dead = _is_older(tag, oldest)
    leaves = state[SHOWN] != 0 and (dead or (room and not stale))
    taken = leaves and not dead
    feature = taken and kind == FEATURE
    whole = (taken and kind == VOXEL_END and state[COUNT] != 0) or (stale and room)
    sends = whole or (feature and state[COUNT] == 2)

    # What is given.
    head = QUEUE + 3 * (state[POPPED] % state[DEPTH])
    there = state[PUSHED] != state[POPPED]
    end, over = False, False
    if there:
        end = state[head] != 0
        over = _is_older(state[head + 1], oldest)
    move = not state[OUT] or out_ready
    _, _, sorted_place, ends = sorter.offers(sorters[give])
    goes = there and not over and move and (end or sorted_place >= 0)
    if move:
        state[OUT] = goes
    if goes:
        state[OUT_END], state[OUT_TAG] = end, state[head + 1]
        state[OUT_PLACE] = -1 if end else state[head + 2] + sorted_place
    gone = over or (goes and (end or ends))
    chosen = there and not end

    busy = False
    for number in range(units):
        reads = sorter.offers(sorters[number])[1]
        busy = busy or reads
        state[ROWS] += reads
        of = chosen and number == give
        sorter.step(
            sorters[number], state[COUNT] if sends and number == load else 0, whole,
            of and not over and move, of and over)
    state[BUSY] += busy
    state[SORTED] += whole
    if gone:
        state[POPPED] += 1
        if not end:
            state[GIVE] = 0 if give == units - 1 else give + 1

    # What comes.
    if whole:
        _push(state, 0, state[TAG], state[FIRST])
        state[COUNT] = state[BEGUN] = 0
        state[LOAD] = 0 if load == units - 1 else load + 1
    elif feature:
        if not state[BEGUN]:
            state[BEGUN], state[FIRST] = 1, place
        state[TAG] = tag
        state[COUNT] = 2 if state[COUNT] == 1 else 1
    elif taken and kind != VOXEL_END:
        _push(state, 1, tag, 0)

    # What comes in front has its two oldest in registers.
    moves = state[SHOWN] == 0 or leaves
    inner = state[WAITS] > 0 and (state[ENDS] == 0 or moves)
    state[CAME] += came
    state[WENT] += leaves
    state[WAITS] += came
    state[WAITS] -= inner
    if moves:
        state[SHOWN] = state[ENDS]
    state[ENDS] = inner or (state[ENDS] != 0 and not moves)

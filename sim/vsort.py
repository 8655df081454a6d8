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

# Tokens that fit in front of the sorters; how many wait, whether one is at the end of the queue,
# how many are in the two registers behind it, whether one is in that behind those, and whether its
# group is over; how many came and went. Features that are kept, the tag, whether its group is over,
# and the first place of the voxel that loads; the sorter that loads next, whether there is room in
# it, and the one that gives; the output's register; what was put into the queue and taken out, and
# how many fit; whether what was taken out last waits to be given, and whether its group is over;
# counts; where the queue goes on, where its oldest and what was taken out last stand. That a group
# is over is what was seen in the cycle before. Places of rings start over at their ends.
(WAITING, WAITS, ENDS, EARLY, SHOWN, LATE, CAME, WENT, COUNT, TAG, STALE, FIRST, BEGUN, LOAD, ROOM,
 GIVE, OUT, OUT_END, OUT_TAG, OUT_PLACE, PUSHED, POPPED, DEPTH, HEAD, HEAD_LATE, BUSY, SORTED,
 ROWS, PUSH_AT, POP_AT, HEAD_AT) = range(31)
#: Then a ring of the queue: (end of a group, tag, place of the first feature); and one of tokens:
#: (kind, tag, place).
QUEUE = 31


def new_vsort(design: VsortDesign) -> npt.NDArray[np.int64]:
    """State of the unit before a frame; its sorters have states of their own."""
    depth = 2 * design.units
    state = np.zeros(QUEUE + 3 * (depth + 1 + design.waiting + 3), np.int64)
    state[DEPTH], state[WAITING], state[ROOM] = depth, design.waiting, 1
    return state


def new_sorters(design: VsortDesign) -> npt.NDArray[np.int64]:
    """States of the sorters, a row each."""
    return np.stack([sorter.new_sorter(design.sorter) for _ in range(design.units)])


@nb.njit
def _is_older(tag, oldest):
    return (tag - oldest) >> (GROUP_TAG_BITS - 1) & 1 != 0


@nb.njit
def _queued(place):
    """Where a place of the queue stands."""
    return QUEUE + 3 * place


@nb.njit
def _waiting(state, behind):
    """Where the token stands that is so many, 0 or 1, behind the oldest."""
    place = state[WENT] + behind
    if place == state[WAITING] + 3:
        place = 0
    return QUEUE + 3 * (state[DEPTH] + 1 + place)


@nb.njit(inline="always")
def _on(state, place, size):
    """Go on by one in a ring."""
    state[place] = state[place] + 1 if state[place] + 1 < size else 0


@nb.njit
def offers(state):
    """Whether a token is taken in this cycle, and one offered."""
    return state[WAITS] < state[WAITING] - 1, state[OUT] != 0


@nb.njit
def behind(state, oldest):
    """Whether something of a group before `oldest` is inside."""
    return ((state[OUT] != 0 and _is_older(state[OUT_TAG], oldest))
            or (state[SHOWN] != 0 and _is_older(state[_waiting(state, 0) + 1], oldest))
            or (state[EARLY] != 0 and _is_older(
                state[_waiting(state, 1 if state[SHOWN] else 0) + 1], oldest))
            or (state[HEAD] != 0 and _is_older(state[_queued(state[HEAD_AT]) + 1], oldest))
            or (state[PUSHED] != state[POPPED] and _is_older(
                state[_queued(state[POP_AT]) + 1], oldest))
            or (state[COUNT] != 0 and _is_older(state[TAG], oldest)))


@nb.njit
def _push(state, end, tag, first):
    at = _queued(state[PUSH_AT])
    state[at], state[at + 1], state[at + 2] = end, tag, first
    state[PUSHED] += 1
    _on(state, PUSH_AT, state[DEPTH] + 1)


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
        at = QUEUE + 3 * (state[DEPTH] + 1 + state[CAME])
        state[at], state[at + 1], state[at + 2] = kind, tag, place
    room, stale = state[ROOM] != 0, state[STALE] != 0
    first = _waiting(state, 0)
    kind, tag, place = state[first], state[first + 1], state[first + 2]
    dead = state[LATE] != 0
    leaves = state[SHOWN] != 0 and (dead or (room and not stale))
    taken = leaves and not dead
    feature = taken and kind == FEATURE
    whole = (taken and kind == VOXEL_END and state[COUNT] != 0) or (stale and room)
    sends = whole or (feature and state[COUNT] == 2)
    pushes = whole or (taken and kind != FEATURE and kind != VOXEL_END)
    then = 0 if load == units - 1 else load + 1
    free = sorters[then if whole else load, sorter.PHASE] == sorter.LOAD
    state[ROOM] = (free and not (whole and units == 1)
                   and state[PUSHED] - state[POPPED] + pushes < state[DEPTH])
    state[STALE] = state[COUNT] != 0 and not whole and _is_older(state[TAG], oldest)

    # What is given.
    head = _queued(state[HEAD_AT])
    there = state[HEAD] != 0
    end, over = there and state[head] != 0, there and state[HEAD_LATE] != 0
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
    if gone and not end:
        state[GIVE] = 0 if give == units - 1 else give + 1
    if gone or not there:
        state[HEAD] = state[PUSHED] != state[POPPED]
        if state[HEAD]:
            state[POPPED] += 1
            state[HEAD_AT] = state[POP_AT]
            _on(state, POP_AT, state[DEPTH] + 1)
    state[HEAD_LATE] = state[HEAD] and _is_older(state[_queued(state[HEAD_AT]) + 1], oldest)

    # What comes.
    if whole:
        _push(state, 0, state[TAG], state[FIRST])
        state[COUNT] = state[BEGUN] = 0
        state[LOAD] = then
    elif feature:
        if not state[BEGUN]:
            state[BEGUN], state[FIRST] = 1, place
        state[TAG] = tag
        state[COUNT] = 2 if state[COUNT] == 1 else 1
    elif taken and kind != VOXEL_END:
        _push(state, 1, tag, 0)

    # What comes in front has its oldest in registers.
    moves = state[SHOWN] == 0 or leaves
    reads = state[EARLY] < 2
    inner = state[WAITS] > 0 and (state[ENDS] == 0 or reads)
    if came:
        _on(state, CAME, state[WAITING] + 3)
    if leaves:
        _on(state, WENT, state[WAITING] + 3)
    state[WAITS] += came
    state[WAITS] -= inner
    if moves:
        state[SHOWN] = state[EARLY] != 0
        state[EARLY] -= state[SHOWN]
    state[EARLY] += reads and state[ENDS] != 0
    state[ENDS] = inner or (state[ENDS] != 0 and not reads)
    state[LATE] = state[SHOWN] != 0 and _is_older(
        state[_waiting(state, 0) + 1], oldest)

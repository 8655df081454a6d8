"""Cycle model of :class:`splatforge.hw.setup.Setup`: when each splat goes to the array.

:func:`offers` tells what the unit shows in a cycle, :func:`step` what one cycle does. Groups are
numbered without end here, in the hardware by their last bits.
"""

import numba as nb
import numpy as np
import numpy.typing as npt

from splatforge.designs.setup import QUEUED_GROUPS

__all__ = ["OLDEST", "behind", "new_setup", "offers", "step"]

#: Stages of arithmetic, the output's register the last of them.
STAGES = 8
#: Groups that wait behind the one that is shown to the array.
WAITING = QUEUED_GROUPS - 1

# The oldest group that is wanted, and whether the array has it; groups that wait, and whether one
# is shown; the token in front of the arithmetic: whether there is one, its group, whether it is the
# group's end, its feature, tiles left.
# Where the last stage stands.
(OLDEST, TAKEN, LEVEL, SHOWN, HELD, TAG, END, PLACE, LEFT, LAST) = range(10)
#: Then a ring of stages, the last one first: whether it is taken, the group, whether it is the
#: group's end, the feature, the tile.
PIPE = 10


def new_setup() -> npt.NDArray[np.int64]:
    """State of the unit at the start of a frame."""
    state = np.zeros(PIPE + 5 * STAGES, np.int64)
    state[LAST] = PIPE
    return state


@nb.njit(inline="always")
def _token(state, dead, splat_ready, ended):
    """Whether the stages move, a tile is issued, which ones are left then, the token is gone."""
    at = state[LAST]
    move = not state[at] or state[at + 1] < state[OLDEST] or (
        ended if state[at + 2] else splat_ready)
    over = state[TAG] < state[OLDEST]
    wanted = state[LEFT]
    if state[TAKEN] and state[TAG] == state[OLDEST]:
        wanted &= ~dead
    end = state[END] != 0
    issue = state[HELD] != 0 and not over and (end or wanted != 0)
    rest = wanted & (wanted - 1)
    gone = state[HELD] == 0 or over or (not end and wanted == 0) or (
        move and (end or rest == 0))
    return move, issue, wanted, rest, gone


@nb.njit
def offers(state, dead, splat_ready, ended):
    """What is offered in this cycle.

    Parameters
    ----------
    state : ndarray
        From :func:`new_setup`.
    dead : int
        Mask of the tiles of the array's group that are over.
    splat_ready, ended : bool
        The array takes a splat; its group ends.

    Returns
    -------
    group_ready, token_ready, group, finish : bool
        A group is taken, a token is taken; a group is offered; the array's group has no more.
    place, tile : int
        Feature of the splat that is offered, or -1, and its tile.
    """
    at = state[LAST]
    last = state[at] != 0 and state[at + 1] >= state[OLDEST]
    end = state[at + 2] != 0
    place = state[at + 3] if last and not end else np.int64(-1)
    gone = _token(state, dead, splat_ready, ended)[4]
    return (state[LEVEL] < WAITING, gone, state[SHOWN] != 0, last and end, place, state[at + 4])


@nb.njit
def behind(state):
    """Whether something of a group before the oldest is inside."""
    found = state[HELD] != 0 and state[TAG] < state[OLDEST]
    for at in range(PIPE, PIPE + 5 * STAGES, 5):
        found = found or (state[at] != 0 and state[at + 1] < state[OLDEST])
    return found


@nb.njit
def step(state, group, tag, end, place, tiles, group_ready, splat_ready, dead, ended):
    """One cycle.

    Parameters
    ----------
    state : ndarray
        From :func:`new_setup`.
    group : bool
        A group is offered.
    tag : int
        Group of the token that is offered, or -1 for none.
    end : bool
        Whether it is the group's end.
    place, tiles : int
        Any number of the feature; mask of the tiles that it meets.
    group_ready, splat_ready : bool
        The array takes a group, a splat.
    dead : int
        Mask of the tiles of the array's group that are over.
    ended : bool
        The array's group ends.
    """
    move, issue, wanted, rest, gone = _token(state, dead, splat_ready, ended)
    if move:
        tile = np.int64(0)
        if issue and not state[END]:
            while not (wanted >> tile) & 1:
                tile += 1
        # What comes takes the place of what leaves; the stage in front of that is the last.
        at = state[LAST]
        state[at], state[at + 1], state[at + 2] = issue, state[TAG], state[END]
        state[at + 3], state[at + 4] = state[PLACE], tile
        state[LAST] = at + 5 if at + 5 < PIPE + 5 * STAGES else PIPE
    if gone:
        state[HELD] = tag >= 0
        if tag >= 0:
            state[TAG], state[END], state[PLACE], state[LEFT] = tag, end, place, tiles
    elif move and issue:
        state[LEFT] = rest
    # The queue of groups has its oldest in a register.
    group_taken = state[SHOWN] != 0 and group_ready
    pushed = group and state[LEVEL] < WAITING
    inner = state[LEVEL] > 0 and (not state[SHOWN] or group_ready)
    state[LEVEL] += pushed - inner
    state[SHOWN] = inner or (state[SHOWN] and not group_ready)
    if group_taken:
        state[TAKEN] = 1
    if ended:
        state[TAKEN] = 0
        state[OLDEST] += 1

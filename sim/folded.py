"""Cycle model of :class:`splatforge.hw.lib.folded.Folded`: rounds, and in which records begin.

No number that is computed is here; the schedule says how long that takes.
"""

import numba as nb
import numpy as np
import numpy.typing as npt

from splatforge.algos.schedule import Schedule

__all__ = ["FREED", "TAKEN", "is_busy", "is_stalled", "new_folded", "offers", "step"]

# Constants of the unit: cycles of a round, cycle of the results, cycle of the last address, beats
# of a record, beats of the buffer, records under way at most. Then the slot of the round; beats
# that came and that have been freed, and those up to the end of the last record that began; records
# under way; whether there was no room for one in this round; results in the register in front of
# the queue, in its memory, at its end, and offered; records whose beats have been freed, and whose
# results have been taken.
(INTERVAL, FINISH, LAST_READ, BEATS, DEPTH, MOST, SLOT, CAME, HEAD, TAIL, FLYING, HELD, DONE,
 QUEUED, SHOWN, RESULT, FREED, TAKEN, AGES) = range(19)
#: Then whether a record began in this round, and in those before.
VALID = AGES + 1


def new_folded(schedule: Schedule, beats: int, depth: int) -> npt.NDArray[np.int64]:
    """State in the cycle behind ``start``.

    Parameters
    ----------
    schedule : Schedule
        What happens when.
    beats, depth : int
        Beats of a record, and of the buffer.
    """
    ages = schedule.finish // schedule.interval + 1
    state = np.zeros(VALID + ages, np.int64)
    state[INTERVAL], state[FINISH] = schedule.interval, schedule.finish
    state[LAST_READ], state[BEATS], state[DEPTH] = schedule.last_read, beats, depth
    state[AGES], state[MOST] = ages, schedule.under_way
    return state


@nb.njit(inline="always")
def _is_ready(state):
    """Whether a record can begin in this cycle, if there is room for its results."""
    return state[SLOT] == 0 and state[CAME] - state[HEAD] >= state[BEATS]


@nb.njit(inline="always")
def _begins(state):
    """Whether a record begins in this cycle."""
    return _is_ready(state) and state[FLYING] < state[MOST]


@nb.njit(inline="always")
def _is_here(state, cycle):
    """Whether there is a record whose cycle it is."""
    if cycle == 0:
        return _begins(state)
    return (cycle % state[INTERVAL] == state[SLOT]
            and state[VALID + cycle // state[INTERVAL]] != 0)


@nb.njit
def offers(state):
    """Whether a beat is taken in this cycle, and whether results are offered."""
    return state[CAME] - state[TAIL] < state[DEPTH], state[RESULT] != 0


@nb.njit
def is_stalled(state):
    """Whether a record would have begun in this round, had there been room for its results."""
    if state[SLOT] == 0:
        return _is_ready(state) and state[FLYING] == state[MOST]
    return state[HELD] != 0


@nb.njit
def is_busy(state):
    """Whether a record is under way."""
    return state[FLYING] != 0


@nb.njit
def step(state, beat, taken):
    """One cycle; returns whether the beats of a record are freed in it.

    Parameters
    ----------
    state : ndarray
        From :func:`new_folded`.
    beat, taken : bool
        A beat is offered; results are taken if there are any.
    """
    ready, result = offers(state)
    due = _is_here(state, state[FINISH])
    freed = _is_here(state, state[LAST_READ])
    begins, held = _begins(state), is_stalled(state)
    goes = result and taken
    state[TAKEN] += goes
    state[FLYING] += begins
    state[FLYING] -= goes

    # The queue of results, whose oldest is in a register of its own.
    leaves = not result and state[SHOWN] != 0
    inner = state[QUEUED] > 0 and (state[SHOWN] == 0 or leaves)
    state[RESULT] = leaves or (result and not taken)
    state[QUEUED] += state[DONE]
    state[QUEUED] -= inner
    state[SHOWN] = inner or (state[SHOWN] != 0 and not leaves)
    state[DONE] = due

    state[HELD] = held
    if state[SLOT] == 0:
        state[VALID] = begins
    if due:
        state[VALID + state[AGES] - 1] = 0
    state[SLOT] += 1
    if state[SLOT] == state[INTERVAL]:
        state[SLOT] = 0
        state[HEAD] += state[BEATS] * state[VALID]
        for age in range(state[AGES] - 1, 0, -1):
            state[VALID + age] = state[VALID + age - 1]
        state[VALID] = 0
    state[CAME] += beat and ready
    if freed:
        state[TAIL] += state[BEATS]
        state[FREED] += 1
    return freed

"""Cycle model of :class:`splatforge.hw.lib.folded.Folded`: rounds, and in which records begin.

No number that is computed is here; the schedule says how long that takes.
"""

import numba as nb
import numpy as np
import numpy.typing as npt

from splatforge.algos.schedule import Schedule

__all__ = ["FREED", "TAKEN", "is_busy", "is_stalled", "new_folded", "offers", "step"]

# Constants of the unit: cycles of a round; of the cycle of the results and of that of the last
# address the slot, and how many rounds ago such a record began (-1: in this very cycle); beats of a
# record, beats of the buffer, records under way at most. Then the slot of the round; beats that
# came and that have been freed, and those up to the end of the last record that began; records
# under way; whether there was no room for one in this round; results in the register in front of
# the queue, in its memory, at its end, and offered; records whose beats have been freed, and whose
# results have been taken; rounds that are kept, and which of them is this one.
(INTERVAL, FINISH_SLOT, FINISH_AGE, READ_SLOT, READ_AGE, BEATS, DEPTH, MOST, SLOT, CAME, HEAD, TAIL,
 FLYING, HELD, DONE, QUEUED, SHOWN, RESULT, FREED, TAKEN, AGES, ROUND) = range(22)
#: Then a ring of rounds, this one and behind it those before: whether a record began.
VALID = ROUND + 1


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
    state[INTERVAL], state[BEATS], state[DEPTH] = schedule.interval, beats, depth
    state[AGES], state[MOST] = ages, schedule.under_way
    # Once here: a division in every cycle is what would cost most.
    for slot, age, cycle in ((FINISH_SLOT, FINISH_AGE, schedule.finish),
                             (READ_SLOT, READ_AGE, schedule.last_read)):
        state[slot] = cycle % schedule.interval
        state[age] = cycle // schedule.interval if cycle else -1
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
def _is_here(state, slot, age):
    """Whether there is a record that began so many rounds ago, and it is that slot of the round."""
    if age < 0:
        return _begins(state)
    return slot == state[SLOT] and state[_round(state, age)] != 0


@nb.njit(inline="always")
def _round(state, age):
    """Where it stands whether a record began so many rounds ago."""
    at = state[ROUND] + age
    return VALID + (at if at < state[AGES] else at - state[AGES])


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
    due = _is_here(state, state[FINISH_SLOT], state[FINISH_AGE])
    freed = _is_here(state, state[READ_SLOT], state[READ_AGE])
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
        state[VALID + state[ROUND]] = begins
    if due:
        state[_round(state, state[AGES] - 1)] = 0
    state[SLOT] += 1
    if state[SLOT] == state[INTERVAL]:
        state[SLOT] = 0
        state[HEAD] += state[BEATS] * state[VALID + state[ROUND]]
        # The oldest round is forgotten in favour of the one that begins.
        state[ROUND] = (state[ROUND] if state[ROUND] else state[AGES]) - 1
        state[VALID + state[ROUND]] = 0
    state[CAME] += beat and ready
    if freed:
        state[TAIL] += state[BEATS]
        state[FREED] += 1
    return freed

"""Cycle model of :mod:`splatforge.hw.lib.arbiter`: which unit has the bus.

Of both arbiters: :func:`grant` tells whose burst goes into the register in a cycle, :func:`step`
what one cycle does; of the write arbiter also who gives the beats and whose response comes.
"""

import numba as nb
import numpy as np
import numpy.typing as npt

__all__ = ["ADDRESS", "BEATS", "PORT", "VALID", "answered", "grant", "new_arbiter", "step",
           "writes"]

# The register: whether it holds a burst, whose, its address and beats; bursts that may lie between
# address and response, 0 where that is not limited; bursts accepted, with all beats, answered.
VALID, PORT, ADDRESS, BEATS, LIMIT, ACCEPTED, WRITTEN, ANSWERED = range(8)
#: Then a ring of whose the accepted bursts are.
RING = 8


def new_arbiter(outstanding: int = 0) -> npt.NDArray[np.int64]:
    """State at the start of a frame; `outstanding` of a write arbiter, 0 for a read arbiter."""
    state = np.zeros(RING + outstanding, np.int64)
    state[LIMIT] = outstanding
    return state


@nb.njit
def grant(state, ready, first, second, third, fourth=False):
    """The port whose burst is taken in this cycle, or -1.

    Parameters
    ----------
    state : ndarray
        From :func:`new_arbiter`.
    ready : bool
        The bus takes an address.
    first, second, third, fourth : bool
        The unit at this port asks.
    """
    move = not state[VALID] or ready
    if state[LIMIT]:
        move = move and state[ACCEPTED] - state[ANSWERED] < state[LIMIT] - 1
    if not move:
        return -1
    if first:
        return 0
    if second:
        return 1
    if third:
        return 2
    return 3 if fourth else -1


@nb.njit
def writes(state):
    """The port whose beats go to the bus in this cycle, or -1."""
    if state[ACCEPTED] == state[WRITTEN]:
        return -1
    return state[RING + state[WRITTEN] % state[LIMIT]]


@nb.njit
def answered(state):
    """The port that a response in this cycle is for."""
    return state[RING + state[ANSWERED] % state[LIMIT]]


@nb.njit
def step(state, ready, port, address, beats, last, response):
    """One cycle.

    Parameters
    ----------
    state : ndarray
        From :func:`new_arbiter`.
    ready : bool
        The bus takes an address.
    port, address, beats : int
        What :func:`grant` gave in this cycle, and that unit's burst.
    last, response : bool
        The last beat of a burst is taken, a response arrives; of a write arbiter.
    """
    if state[VALID] and ready:
        if state[LIMIT]:
            state[RING + state[ACCEPTED] % state[LIMIT]] = state[PORT]
            state[ACCEPTED] += 1
        state[VALID] = 0
    state[WRITTEN] += last
    state[ANSWERED] += response
    if port >= 0:
        state[VALID], state[PORT], state[ADDRESS], state[BEATS] = 1, port, address, beats

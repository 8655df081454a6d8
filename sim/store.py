"""Cycle model of :class:`splatforge.hw.lib.store.RecordStore`."""

import numba as nb
import numpy as np
import numpy.typing as npt

__all__ = ["ADDRESS_VALID", "IN_FLIGHT", "LEFT", "RECORDS", "new_store", "ready", "step"]

# Whether an address waits, beats left of the record, bursts begun and not answered, their limit,
# beats of a record, records so far.
ADDRESS_VALID, LEFT, IN_FLIGHT, LIMIT, RECORD_BEATS, RECORDS, SIZE = range(7)


def new_store(record_beats: int, outstanding: int) -> npt.NDArray[np.int64]:
    """State at the start of a frame."""
    state = np.zeros(SIZE, np.int64)
    state[LIMIT], state[RECORD_BEATS] = outstanding, record_beats
    return state


@nb.njit
def ready(state):
    """Whether a record is taken in this cycle, if there is one."""
    return (state[ADDRESS_VALID] == 0 and state[LEFT] == 0
            and state[IN_FLIGHT] < state[LIMIT])


@nb.njit
def step(state, record, address_ready, data_ready, response):
    """One cycle.

    Parameters
    ----------
    state : ndarray
        From :func:`new_store`.
    record : bool
        A record is offered.
    address_ready, data_ready, response : bool
        An address, a beat is taken; a response arrives.
    """
    came = record and ready(state)
    state[IN_FLIGHT] += came
    state[IN_FLIGHT] -= response
    if address_ready:
        state[ADDRESS_VALID] = 0
    if data_ready and state[LEFT] > 0:
        state[LEFT] -= 1
    if came:
        state[ADDRESS_VALID] = 1
        state[LEFT] = state[RECORD_BEATS]
        state[RECORDS] += 1

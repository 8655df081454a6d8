"""Finished tiles to the framebuffer, a cycle at a time: :mod:`splatforge.sim.resolve` in steps."""

import numba as nb
import numpy as np
import numpy.typing as npt

__all__ = ["ADDRESS", "ADDRESS_BEATS", "ADDRESS_VALID", "BEATS", "DATA_VALID", "ROW_LAST",
           "STALLED", "WRITING", "hand_over", "is_idle", "new_resolve", "step", "takes", "write"]

# Whether a tile is being written, since when, its columns; the address register and what is to come
# behind it; rows whose data are to come, whose address the bus has taken; bursts in flight; groups
# that the array has not asked its state for, that it still holds; whether one is asked for, the
# register behind the state, the one that waits for the output's, that itself, each stage and the
# data register are taken, the last beat of its row in it; pixels left of the row, beat of the
# group; parameters; counts.
(WRITING, STARTED, COLUMNS, ADDRESS_VALID, ADDRESS, ADDRESS_BEATS, ROW_ADDRESS, ADDRESS_ROWS,
 DATA_ROWS, GRANTED, IN_FLIGHT, TO_ASK, GROUPS_LEFT, ASKED, CHOSEN, WAITING, LOADED, STAGE_0,
 STAGE_1, STAGE_2, DATA_VALID, ROW_LAST, ROW_LEFT, BEAT, PIXEL_BYTES, PITCH, LIMIT, BEATS, STALLED,
 SIZE) = range(30)


def new_resolve(pixel_bytes: int, pitch_bytes: int, limit: int) -> npt.NDArray[np.int64]:
    """State of the unit at the start of a frame; `limit` bursts may be in flight."""
    state = np.zeros(SIZE, np.int64)
    state[PIXEL_BYTES], state[PITCH], state[LIMIT] = pixel_bytes, pitch_bytes, limit
    return state


@nb.njit
def hand_over(state, now, columns, rows, address):
    """Take a tile in this cycle, behind :func:`step`.

    Parameters
    ----------
    state : ndarray
        From :func:`new_resolve`.
    now : int
        The cycle.
    columns, rows : int
        Pixels of the tile in the frame.
    address : int
        Of its first pixel.
    """
    state[WRITING] = 1
    state[STARTED] = now
    state[COLUMNS] = state[ROW_LEFT] = columns
    state[ROW_ADDRESS] = address
    state[ADDRESS_ROWS] = state[DATA_ROWS] = rows
    state[GROUPS_LEFT] = state[TO_ASK] = rows * ((columns + 3) // 4)


@nb.njit
def takes(state, data_ready):
    """Whether a group of pixels is taken in this cycle, in which the bus takes a beat or not."""
    if not state[STAGE_2]:
        return True
    if not ((not state[DATA_VALID] or data_ready) and state[GRANTED] > 0):
        return False
    pixels = min(4, state[ROW_LEFT])
    return state[BEAT] + 1 == (pixels * state[PIXEL_BYTES] + 15) >> 4


@nb.njit
def is_idle(state):
    """Whether no burst is begun or in flight."""
    return not (state[ADDRESS_VALID] or state[DATA_VALID] or state[GRANTED] or state[IN_FLIGHT])


@nb.njit
def write(state, address_ready, data_ready, response, group):
    """One cycle of the unit by itself.

    Parameters
    ----------
    state : ndarray
        From :func:`new_resolve`.
    address_ready, data_ready, response : bool
        The bus takes an address, a beat; a response arrives.
    group : bool
        A group of pixels is offered; it goes in if :func:`takes` says so.

    Returns
    -------
    bool
        Whether the tile's last beat goes into the data register.
    """
    address_move = not state[ADDRESS_VALID] or address_ready
    begin = (state[WRITING] and address_move and state[ADDRESS_ROWS] > 0
             and state[IN_FLIGHT] < state[LIMIT])
    data_valid = state[DATA_VALID] != 0
    data_move = not data_valid or data_ready
    state[STALLED] += data_valid and not data_ready
    state[BEATS] += data_valid and data_ready
    begun = data_move and state[STAGE_2] and state[GRANTED] > 0
    shift = takes(state, data_ready)
    group_end = begun and shift
    row_end = group_end and state[ROW_LEFT] <= 4
    state[GRANTED] += state[ADDRESS_VALID] and address_ready
    if begin:
        state[ADDRESS_VALID] = 1
        state[ADDRESS] = state[ROW_ADDRESS]
        state[ADDRESS_BEATS] = (state[COLUMNS] * state[PIXEL_BYTES] + 15) >> 4
        state[ROW_ADDRESS] += state[PITCH]
        state[ADDRESS_ROWS] -= 1
    elif address_move:
        state[ADDRESS_VALID] = 0
    state[IN_FLIGHT] += begin
    state[IN_FLIGHT] -= response
    if data_move:
        state[DATA_VALID] = begun
    finished = False
    if begun:
        state[ROW_LAST] = row_end
        state[BEAT] = 0 if group_end else state[BEAT] + 1
        if group_end:
            state[ROW_LEFT] -= 4
        if row_end:
            state[ROW_LEFT] = state[COLUMNS]
            state[DATA_ROWS] -= 1
            state[GRANTED] -= 1
            if state[DATA_ROWS] == 0:
                state[WRITING] = 0
                finished = True
    if shift:
        state[STAGE_2], state[STAGE_1], state[STAGE_0] = state[STAGE_1], state[STAGE_0], group
    return finished


@nb.njit
def step(state, now, address_ready, data_ready, response):
    """One cycle.

    Parameters
    ----------
    state : ndarray
        From :func:`new_resolve`.
    now : int
        The cycle.
    address_ready, data_ready, response : bool
        The bus takes an address, a beat; a response arrives.

    Returns
    -------
    tuple of bool
        Whether the array has taken the last group of its tile out of its state, and the tile's
        last beat goes into the data register.
    """
    if not (state[WRITING] or state[DATA_VALID] or state[ADDRESS_VALID]):
        state[IN_FLIGHT] -= response
        return False, False
    transfer = state[LOADED] and takes(state, data_ready)
    stays = state[LOADED] and not transfer
    # The array stops in the cycle after one in which a group had to wait for the output's register.
    array_move = not state[WAITING]
    choose = array_move and state[ASKED]
    ask = array_move and state[TO_ASK] > 0 and now > state[STARTED]

    finished = write(state, address_ready, data_ready, response, state[LOADED] != 0)
    emptied = False
    if choose:
        state[GROUPS_LEFT] -= 1
        emptied = state[GROUPS_LEFT] == 0
    state[LOADED] = stays or state[WAITING] or state[CHOSEN]
    state[WAITING] = stays and (state[WAITING] or state[CHOSEN])
    if array_move:
        state[CHOSEN] = choose
        state[ASKED] = ask
        state[TO_ASK] -= ask
    return emptied, finished

"""Cycle model of :class:`splatforge.hw.radiance.Radiance`: who waits for whom.

Contents of the cache decide nothing here: of a walked pixel only its set counts, and whether its
record is that of the walked pixel before. :func:`offers` tells what the unit shows in a cycle,
:func:`step` what one cycle does, :func:`walks` what the pixels of a tile bring.
"""

import numba as nb
import numpy as np
import numpy.typing as npt

from splatforge.designs.fetch import TILE_PX
from splatforge.designs.radiance import BURST_BEATS, RadianceDesign

__all__ = ["LATENCY", "new_radiance", "offers", "step", "walks"]

#: Cycles from a look-up to its answer.
LATENCY = 5

# Parameters: sets of a bank, beats of a set, sets and bursts, tiles along a group's side, bursts in
# flight, whether the frame uses the cache and banks start empty, tiles along a row of the frame.
# Of what serves: whether its bank was loaded a cycle ago; whether the last pixel of a tile's walk
# has come; a look-up that waits, its pixel; stages one to four: taken, by a walked pixel, its set,
# its pixel, in the first whether its record is the one before's; the bank that serves, which are
# loaded; tiles of the group so far; tiles right of the group's left edge, below its upper edge.
# Of what saves and loads: at work, on which bank, saving, loading; banks that nothing was in,
# banks that have served; the next bank to save, to load; tiles as above of the group to load next;
# set to read next, addresses left, bursts whose beats may go, bursts in flight, a set that was
# read a cycle ago, one that was before, one that is kept, its beat, beat of the burst, address and
# data registers, last of a burst; set to ask for next, to fill next, its beat, bursts in flight,
# address register.
# Counts: look-ups, walked pixels, those that were passed over, cycles in which something waits for
# its bank, beats written.
(SETS, ROW_BEATS, BURST_SETS, BURSTS, SIDE, LIMIT, ENABLE, FLUSH, TILES_X, READY, OVER, WAITS,
 WAITS_PIXEL, TAKEN_1, WALKED_1, SET_1, PIXEL_1, SAME_1, TAKEN_2, WALKED_2, SET_2, PIXEL_2, TAKEN_3,
 WALKED_3, SET_3, PIXEL_3, TAKEN_4, WALKED_4, SET_4, PIXEL_4, SERVING, LOADED_0, LOADED_1, TILES,
 COLUMNS, ROWS, WORKING, BANK, SAVING, LOADING, FRESH, PENDING, SAVE_BANK, LOAD_BANK, LOAD_COLUMNS,
 LOAD_ROWS, SAVE_ROW, SAVE_LEFT, GRANTED, WRITES, ROW_COMING, ROW_HELD, ROW_KEPT, ROW_BEAT, BEAT,
 WRITE_ADDRESS, DATA, DATA_LAST, ASKED_ROW, LOAD_ROW, LOAD_BEAT, READS, ADDRESS, LOOKUPS, WALKED,
 PASSED, WAITED, BEATS, SIZE) = range(69)


def new_radiance(
    design: RadianceDesign, width: int, height: int, *, enable: bool = True, flush: bool = False
) -> npt.NDArray[np.int64]:
    """State of the unit in the cycle behind ``start``, of a frame of `width` x `height` pixels."""
    state = np.zeros(SIZE, np.int64)
    tiles_x, tiles_y = -(-width // TILE_PX), -(-height // TILE_PX)
    for place, value in (
            (SETS, design.sets), (ROW_BEATS, design.ways * design.entry_beats),
            (BURST_SETS, design.burst_sets), (BURSTS, design.bursts), (SIDE, design.group_tiles),
            (LIMIT, design.outstanding_bursts), (ENABLE, enable), (FLUSH, flush),
            (TILES_X, tiles_x), (COLUMNS, tiles_x), (ROWS, tiles_y)):
        state[place] = value
    if enable:
        state[FRESH] = 2
        state[LOAD_COLUMNS], state[LOAD_ROWS] = tiles_x, tiles_y
    return state


@nb.njit(inline="always")
def _goes(state):
    """Of the first stage: whether it moves on, and whether it enters the second."""
    wait = (state[TAKEN_1] and state[WALKED_1] and not state[SAME_1]
            and ((state[TAKEN_2] and state[WALKED_2] and state[SET_2] == state[SET_1])
                 or (state[TAKEN_3] and state[WALKED_3] and state[SET_3] == state[SET_1])
                 or (state[TAKEN_4] and state[WALKED_4] and state[SET_4] == state[SET_1])))
    return not wait, state[TAKEN_1] and not wait and not (state[WALKED_1] and state[SAME_1])


@nb.njit(inline="always")
def _serves(state):
    """Whether the look-up that waits goes on, and a walked pixel is taken."""
    ready = state[READY] != 0
    walking = state[OVER] or (state[TAKEN_1] and state[WALKED_1]) or (
        state[TAKEN_2] and state[WALKED_2]) or (state[TAKEN_3] and state[WALKED_3]) or (
        state[TAKEN_4] and state[WALKED_4])
    return (state[WAITS] and ready and not walking,
            ready and not state[OVER] and not state[WAITS] and _goes(state)[0])


@nb.njit
def offers(state):
    """What the unit shows in a cycle.

    Returns
    -------
    tuple of int
        Whether it takes a look-up and a walked pixel; the pixel that is answered, or -1; whether it
        offers a read address, a write address, a beat; whether the frame is over.
    """
    look, walk_ready = _serves(state)
    return (
        not state[WAITS] or look, walk_ready,
        state[PIXEL_4] if state[TAKEN_4] and not state[WALKED_4] else -1, state[ADDRESS] != 0,
        state[WRITE_ADDRESS] != 0, state[DATA] != 0,
        not state[ENABLE] or (
            state[ROWS] == 0 and state[PENDING] == 0 and not state[WORKING] and state[READS] == 0
            and state[WRITES] == 0 and not (state[ADDRESS] or state[WRITE_ADDRESS]
                                            or state[DATA])))


@nb.njit(inline="always")
def _next_group(state, columns, rows):
    """Columns and rows of tiles that are left from the next group on."""
    if columns > state[SIDE]:
        return columns - state[SIDE], rows
    return state[TILES_X], max(rows - state[SIDE], 0)


@nb.njit
def step(
    state, lookup, walked, same, last, address_ready, beat, beat_last, write_ready, data_ready,
    response,
):  # fmt: skip
    """One cycle.

    Parameters
    ----------
    state : ndarray
        From :func:`new_radiance`.
    lookup : int
        The pixel whose look-up is offered, or -1.
    walked : int
        Set of the walked pixel that is offered, any for a tile's end, or -1 for none.
    same, last : bool
        Its record is that of the walked pixel before, of the same tile; it is the tile's end.
    address_ready, beat, beat_last, write_ready, data_ready, response : bool
        A read address is taken; a beat of a bank arrives, the last of its burst; a write address
        and a beat are taken; a response arrives.
    """
    look, walk_ready = _serves(state)
    walk = walk_ready and walked >= 0
    go, issue = _goes(state)
    over = state[OVER] and not (
        state[TAKEN_1] or state[TAKEN_2] or state[TAKEN_3] or state[TAKEN_4])
    state[WAITED] += not state[READY] and (state[WAITS] or walked >= 0)
    ready = state[LOADED_0 + state[SERVING]] != 0

    # ---- Saving and loading, of what stood before the cycle.
    working, saving, loading = state[WORKING], state[SAVING], state[LOADING]
    save_row, held, kept = state[SAVE_ROW], state[ROW_HELD], state[ROW_KEPT]
    coming = state[ROW_COMING]
    grant = (working and saving and state[SAVE_LEFT] > 0 and not state[WRITE_ADDRESS]
             and state[WRITES] != state[LIMIT])
    move = not state[DATA] or data_ready
    put = move and kept and state[GRANTED] > 0
    row_end = put and state[ROW_BEAT] == state[ROW_BEATS] - 1
    burst_end = put and state[BEAT] == BURST_BEATS - 1
    read = working and saving and save_row != state[SETS] and not coming and not held
    keep = held and (not kept or row_end)
    ask = (working and loading and not state[FLUSH] and state[ASKED_ROW] != state[SETS]
           and (not saving or state[ASKED_ROW] + state[BURST_SETS] <= save_row)
           and not state[ADDRESS] and state[READS] != state[LIMIT])
    clear = (working and loading and state[FLUSH] and state[LOAD_ROW] != state[SETS]
             and (not saving or state[LOAD_ROW] < save_row))
    saved = not saving or (state[SAVE_LEFT] == 0 and state[GRANTED] == 0)
    end = working and saved and (not loading or state[LOAD_ROW] == state[SETS])
    more = state[LOAD_ROWS] != 0
    begin_load = more and (state[FRESH] > 0 or state[PENDING] > 0)
    begin_save = state[PENDING] > 0 and not (state[FRESH] > 0 and more)
    begin = not working and (begin_load or begin_save)
    state[BEATS] += state[DATA] and data_ready

    state[GRANTED] += grant
    state[GRANTED] -= burst_end
    state[WRITES] += grant
    state[WRITES] -= response
    if grant:
        state[WRITE_ADDRESS] = 1
        state[SAVE_LEFT] -= 1
    elif write_ready:
        state[WRITE_ADDRESS] = 0
    state[SAVE_ROW] += read
    state[ROW_COMING], state[ROW_HELD] = read, coming or (held and not keep)
    state[ROW_KEPT] = keep or (kept and not row_end)
    if move:
        state[DATA] = put
    if put:
        state[DATA_LAST] = burst_end
        state[BEAT] = 0 if burst_end else state[BEAT] + 1
        state[ROW_BEAT] = 0 if row_end else state[ROW_BEAT] + 1
    state[READS] += state[ADDRESS] and address_ready
    state[READS] -= beat and beat_last
    if ask:
        state[ADDRESS] = 1
        state[ASKED_ROW] += state[BURST_SETS]
    elif address_ready:
        state[ADDRESS] = 0
    if beat:
        state[LOAD_BEAT] += 1
        if state[LOAD_BEAT] == state[ROW_BEATS]:
            state[LOAD_BEAT] = 0
            state[LOAD_ROW] += 1
    elif clear:
        state[LOAD_ROW] += 1
    if begin:
        state[WORKING] = 1
        state[SAVING], state[LOADING] = begin_save, begin_load
        state[BANK] = state[SAVE_BANK] if begin_save else state[LOAD_BANK]
        state[SAVE_ROW] = state[ASKED_ROW] = state[LOAD_ROW] = 0
        state[SAVE_LEFT] = state[BURSTS]
        if begin_save:
            state[SAVE_BANK] ^= 1
            state[PENDING] -= 1
        else:
            state[FRESH] -= 1
        if begin_load:
            state[LOAD_BANK] ^= 1
            state[LOAD_COLUMNS], state[LOAD_ROWS] = _next_group(
                state, state[LOAD_COLUMNS], state[LOAD_ROWS])
    if end:
        state[WORKING] = 0
        if loading:
            state[LOADED_0 + state[BANK]] = 1

    # ---- The stages, the last first.
    state[TAKEN_4], state[WALKED_4] = state[TAKEN_3], state[WALKED_3]
    state[SET_4], state[PIXEL_4] = state[SET_3], state[PIXEL_3]
    state[TAKEN_3], state[WALKED_3] = state[TAKEN_2], state[WALKED_2]
    state[SET_3], state[PIXEL_3] = state[SET_2], state[PIXEL_2]
    state[PASSED] += state[TAKEN_1] and go and not issue
    state[TAKEN_2], state[WALKED_2] = issue, state[WALKED_1]
    state[SET_2], state[PIXEL_2] = state[SET_1], state[PIXEL_1]
    if go:
        state[TAKEN_1] = look or (walk and not last)
    if look:
        state[WALKED_1] = 0
        state[PIXEL_1] = state[WAITS_PIXEL]
        state[LOOKUPS] += 1
    elif walk:
        state[WALKED_1], state[SET_1], state[SAME_1] = 1, walked, same
        state[WALKED] += not last

    # ---- The tile's end.
    if over:
        state[OVER] = 0
        state[TILES] += 1
        if state[TILES] == min(state[COLUMNS], state[SIDE]) * min(state[ROWS], state[SIDE]):
            state[TILES] = 0
            ready = False
            state[LOADED_0 + state[SERVING]] = 0
            state[SERVING] ^= 1
            state[PENDING] += 1
            state[COLUMNS], state[ROWS] = _next_group(state, state[COLUMNS], state[ROWS])

    state[READY] = ready
    if walk and last:
        state[OVER] = 1
    if not state[WAITS] or look:
        state[WAITS], state[WAITS_PIXEL] = lookup >= 0, lookup


def walks(
    records: npt.NDArray[np.int32], complete: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Which pixels of tiles are passed over: the one with a record before has the same.

    Parameters
    ----------
    records : ndarray
        Ids as records keep them, or any that are equal where these are, shape [tiles, 256, k].
    complete : ndarray
        Which are complete, shape [tiles, 256].
    """
    same = np.zeros(complete.shape, bool)
    for tile, whole in enumerate(complete):
        pixels = np.flatnonzero(whole)
        ids = records[tile, pixels]
        same[tile, pixels[1:]] = (ids[1:] == ids[:-1]).all(-1)
    return same

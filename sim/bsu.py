"""Cycle model of :class:`splatforge.hw.bsu.Bsu`: where each chunk is, and when it is given.

:func:`offers` tells what the unit shows in a cycle, :func:`step` what one cycle does. A chunk is a
run of the sorted entries of its tile: what is given are their places.
"""

import numba as nb
import numpy as np
import numpy.typing as npt

from splatforge.designs.bsu import BsuDesign
from splatforge.sim import list_reader, sorter

__all__ = ["BUSY", "CHUNKS", "ENTRIES", "OUT_PLACE", "OUT_TILE", "ROWS", "behind",
           "new_bsu", "new_sorters", "offers", "step"]

# The chunk that waits for the reader: whether there is one, first page, entries, tile, place of its
# first entry; whether a chunk is in the midst of coming, and whether it, or the next, is dropped;
# whether an entry is kept for the next and is the last of its chunk; the sorter that loads next and
# the one that gives; the output's register; chunks given to the reader and read; counts; whether it
# is known that the chunk which comes, or comes next, is dropped or not.
(WAITS, PAGE, COUNT, TILE, PLACE, BEGUN, DROPPING, KEPT, ALONE, LOAD, GIVE, OUT, OUT_PLACE,
 OUT_TILE, PUSHED, POPPED, BUSY, ROWS, CHUNKS, ENTRIES, DECIDED) = range(21)
#: Then a ring of chunks at the reader (tile, place).
RING = 21
CHUNKS_AHEAD = 1024
#: Then of each sorter whether it holds a chunk, its tile, the place of its first entry, whether the
#: tile is over.
SORTERS = RING + 2 * CHUNKS_AHEAD


def new_bsu(design: BsuDesign) -> npt.NDArray[np.int64]:
    """State of the unit before a frame; its reader and its sorters have states of their own."""
    return np.zeros(SORTERS + 4 * design.units, np.int64)


def new_sorters(design: BsuDesign) -> npt.NDArray[np.int64]:
    """States of the sorters, a row each."""
    return np.stack([sorter.new_sorter(design) for _ in range(design.units)])


@nb.njit
def offers(state):
    """Whether a chunk is taken in this cycle, and an entry offered."""
    return state[WAITS] == 0, state[OUT] != 0


@nb.njit
def behind(state, oldest):
    """Whether a chunk of a tile before `oldest` is being read."""
    at = RING + 2 * (state[POPPED] % CHUNKS_AHEAD)
    return state[PUSHED] != state[POPPED] and (state[at] - oldest) & 8 != 0


@nb.njit
def step(
    state, reader, sorters, reader_limits, chunk, stop, oldest, address_ready, beat, entry_ready,
):
    """One cycle; whether a chunk has been read or dropped.

    Parameters
    ----------
    state, reader, sorters : ndarray
        From :func:`new_bsu`, :func:`splatforge.sim.list_reader.new_list_reader` and
        :func:`new_sorters`.
    reader_limits : tuple of int
        From :func:`splatforge.sim.list_reader.limits_of`.
    chunk : tuple of int
        The chunk that is offered: its entries or 0 for none, first page, tile, place of its first
        entry among all that are sorted.
    stop : bool
        Nothing more is asked for.
    oldest : int
        The oldest tile that is wanted.
    address_ready : bool
        The bus takes an address.
    beat : tuple
        A beat for the reader: any number of it or -1 for none, the link if it is the first of its
        page, whether it is the last of its burst.
    entry_ready : bool
        What is offered is taken.
    """
    units = len(sorters)
    waits = state[WAITS] != 0
    dead = waits and (state[TILE] - oldest) & 8 != 0
    reader_ready = reader[list_reader.HELD] == 0

    # Pairs.
    pair = reader[list_reader.PAIR] != 0
    at = RING + 2 * (state[POPPED] % CHUNKS_AHEAD)
    kept, alone = state[KEPT] != 0, state[ALONE] != 0
    decided, drops = state[DECIDED] != 0, state[DROPPING] != 0
    load, give = state[LOAD], state[GIVE]
    room = sorters[load, sorter.PHASE] == sorter.LOAD
    last = reader[list_reader.PAIR_LAST] != 0
    valid = reader[list_reader.PAIR_VALID]
    two = valid == 3
    keeps = not kept and not two and not last
    pair_ready = not alone and decided and (drops or keeps or room)
    taken = pair and pair_ready
    ended = taken and last
    given = alone or (pair and decided and not drops and not keeps)
    packed_last = alone or (last and not (kept and two))
    packed = 2 if not alone and (kept or two) else 1

    # What is given.
    of = SORTERS + 4 * give
    move = not state[OUT] or entry_ready
    over = state[of + 3] != 0
    _, _, place, ends = sorter.offers(sorters[give])
    goes = place >= 0 and move and not over
    if move:
        state[OUT] = 0
    if goes:
        state[OUT] = 1
        state[OUT_PLACE] = state[of + 2] + place
        state[OUT_TILE] = state[of + 1]
    rows = 0
    for number in range(units):
        rows += sorter.offers(sorters[number])[1]
        sorter.step(
            sorters[number], packed if given and number == load else 0, packed_last,
            number == give and move and not over, number == give and over)
    state[BUSY] += rows > 0
    state[ROWS] += rows
    forget = over or (goes and ends)
    for number in range(units):
        at_sorter = SORTERS + 4 * number
        state[at_sorter + 3] = (
            state[at_sorter] != 0 and (state[at_sorter + 1] - oldest) & 8 != 0
            and not (forget and number == give))
    if forget:
        state[of] = 0
        state[GIVE] = 0 if give == units - 1 else give + 1
    if given and room and packed_last:
        # The chunk of the entry that was kept has left the ring.
        of_chunk = RING + 2 * ((state[POPPED] - alone) % CHUNKS_AHEAD)
        into = SORTERS + 4 * load
        state[into] = 1
        state[into + 1] = state[of_chunk]
        state[into + 2] = state[of_chunk + 1]
        state[LOAD] = 0 if load == units - 1 else load + 1
        state[CHUNKS] += 1
    if alone and room:
        state[KEPT] = state[ALONE] = 0
    if ended:
        state[DECIDED] = 0
    elif not state[BEGUN] and not taken:
        state[DECIDED] = state[PUSHED] != state[POPPED]
        state[DROPPING] = (state[at] - oldest) & 8 != 0
    if taken:
        state[BEGUN] = not last
        if not drops:
            state[ENTRIES] += 2 if two else 1
            state[KEPT] = keeps or (kept and two)
            state[ALONE] = kept and two and last
    state[POPPED] += ended

    # The chunk that waits.
    list_reader.step(
        reader, reader_limits, state[COUNT] if waits and not dead else 0, state[PAGE],
        state[TILE] & 15, stop, address_ready, beat[0], beat[1], beat[2], pair_ready)
    dropped = dead and not ended
    if not waits:
        if chunk[0] > 0:
            state[WAITS] = 1
            state[COUNT], state[PAGE], state[TILE], state[PLACE] = chunk
    elif dropped:
        state[WAITS] = 0
    elif not dead and reader_ready:
        state[WAITS] = 0
        into = RING + 2 * (state[PUSHED] % CHUNKS_AHEAD)
        state[into], state[into + 1] = state[TILE], state[PLACE]
        state[PUSHED] += 1
    return ended or dropped

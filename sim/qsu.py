"""Cycle model of :class:`splatforge.hw.qsu.Qsu`: which list it looks at, and what it waits for.

:func:`offers` tells what the unit shows in a cycle, :func:`step` what one cycle does. Entries are
the numbers that they are: their keys decide which bucket they go to.
"""

import numba as nb
import numpy as np
import numpy.typing as npt

from splatforge.designs.lists import ListsDesign
from splatforge.designs.qsu import QsuDesign
from splatforge.sim import list_reader

__all__ = ["AT", "BUSY", "CHUNK", "COUNT", "ENTRY", "ENTRY_LIST", "FIRST", "PAGE", "PARTITIONS",
           "STALLED", "STATE", "TILE", "limits_of", "new_qsu", "offers", "step"]

# What the unit is at, the value of STATE.
(WAIT, QUERY, ANSWER, ANNOUNCE, TELL, DECIDE, CHUNK, RELEASE, CLEAR, READ, PARTITION, FLUSH,
 SETTLE, NEXT, POP, DONE) = range(16)

# Scalars of the state: what it is at, the tile, tiles of the frame; the list that is looked at, and
# what is known of it; whether the tile was partitioned, the level, the bucket, the level's first
# list; chunks given and not yet read, keys of the list less one, bits to shift; the pair that is
# taken apart: which entries wait, whether it is the last, both entries; the two stages behind it:
# whether taken, by which entry, its distance or its list, whether it is the last; counts; whether
# the tile was partitioned and is over, as of a cycle ago.
(STATE, TILE, TILES, AT, PAGE, COUNT, LOW, HIGH, INSIDE, LEVEL, BUCKET, FIRST, UNREAD, SPAN, SHIFT,
 WAITS, HELD_LAST, HELD_0, HELD_1, VALID, WORD, DISTANCE, LAST, ENTRY_VALID, ENTRY, ENTRY_LIST,
 ENTRY_LAST, PARTITIONS, BUSY, STALLED, DEAD) = range(31)
#: Then the stack.
STACK = 31


def new_qsu(design: QsuDesign, lists: ListsDesign, tiles: int) -> npt.NDArray[np.int64]:
    """State of the unit before a frame of so many tiles; its reader has a state of its own."""
    state = np.zeros(STACK + design.levels(lists), np.int64)
    state[TILES] = tiles
    state[FIRST] = lists.tiles
    return state


def limits_of(design: QsuDesign, lists: ListsDesign) -> tuple[int, int, int, int]:
    """What :func:`step` takes as ``limits``."""
    return (design.chunk, design.buckets.bit_length() - 1, lists.tiles,
            (1 << lists.entry.key_bits) - 1)


@nb.njit
def _older(tile, oldest):
    """Whether the tags of two tiles say that the first lies before the second."""
    return (tile - oldest) & 8 != 0


@nb.njit
def offers(state):
    """What is offered in this cycle, and whether an answer is taken.

    Returns
    -------
    tuple of bool
        A tile, a chunk, a query, whether an answer is taken, a range to clear, one to flush, an
        entry, whether pages are released, whether all is done.
    """
    at = state[STATE]
    return (
        at == TELL, at == CHUNK, at == QUERY, at == ANSWER,
        at == CLEAR, at == FLUSH, state[ENTRY_VALID] != 0, at == RELEASE and state[UNREAD] == 0,
        at == DONE)


@nb.njit
def _partition(state, limits, pair, valid, last, words, entry_ready):
    """Take pairs apart; whether the last entry goes, and whether the pair is taken."""
    buckets, keys = limits[1], limits[3]
    move = not state[ENTRY_VALID] or entry_ready
    waits = state[WAITS]
    pair_ready = waits == 0 or (move and waits != 3)
    ended = state[ENTRY_VALID] != 0 and entry_ready and state[ENTRY_LAST] != 0
    if move:
        state[ENTRY_VALID] = state[VALID]
        state[ENTRY] = state[WORD]
        state[ENTRY_LAST] = state[LAST]
        state[ENTRY_LIST] = state[FIRST] + (
            (state[DISTANCE] >> state[SHIFT]) & ((1 << buckets) - 1))
        state[VALID] = waits != 0
        chosen = state[HELD_0] if waits & 1 else state[HELD_1]
        state[WORD] = chosen
        state[DISTANCE] = (chosen & keys) - state[LOW]
        state[LAST] = state[HELD_LAST] != 0 and waits != 3
        state[WAITS] = waits & 2 if waits & 1 else 0
    taken = pair and pair_ready
    state[BUSY] += taken
    state[STALLED] += pair and not pair_ready
    if taken:
        state[WAITS] = valid
        state[HELD_LAST] = last
        state[HELD_0], state[HELD_1] = words
    return ended, pair_ready


@nb.njit
def step(
    state, reader, limits, reader_limits, start, stop, oldest, tile_ready, chunk_ready, loaded,
    query_ready, answer, range_ready, entry_ready, lists_idle, address_ready, beat, words, behind,
):
    """One cycle.

    Parameters
    ----------
    state, reader : ndarray
        From :func:`new_qsu` and :func:`splatforge.sim.list_reader.new_list_reader`.
    limits, reader_limits : tuple of int
        From both functions ``limits_of``.
    start, stop : bool
        The unit's inputs.
    oldest : int
        The oldest tile that is wanted.
    tile_ready, chunk_ready, query_ready, range_ready, entry_ready : bool
        What is offered is taken.
    loaded : bool
        A chunk has been read.
    answer : tuple
        Whether there is one, first page, entries, least and greatest key.
    lists_idle : bool
        All that the lists were given is in memory.
    address_ready : bool
        The bus takes an address.
    beat : tuple
        A beat for the reader: any number of it or -1 for none, the link if it is the first of its
        page, whether it is the last of its burst.
    words : tuple of int
        Both words of the beat whose pair the reader offers.
    behind : bool
        Something of a tile before `oldest` is on its way.
    """
    chunk, bucket_bits, tiles, _ = limits
    at = state[STATE]
    buckets = np.int64(1) << bucket_bits
    dead = state[DEAD] != 0
    state[DEAD] = state[INSIDE] != 0 and _older(state[TILE], oldest)
    sent = at == CHUNK and chunk_ready
    reads = at == READ
    pair = reader[list_reader.PAIR] != 0
    list_ready = reader[list_reader.HELD] == 0
    ended, pair_ready = _partition(
        state, limits, pair, reader[list_reader.PAIR_VALID], reader[list_reader.PAIR_LAST], words,
        entry_ready)
    list_reader.step(
        reader, reader_limits, state[COUNT] if reads else 0, state[PAGE], state[TILE] & 15, stop,
        address_ready, beat[0], beat[1], beat[2], pair_ready)
    read = state[UNREAD] == 0
    state[UNREAD] += sent
    state[UNREAD] -= loaded

    if at == WAIT:
        if start:
            state[STATE] = QUERY
    elif at == QUERY:
        if query_ready:
            state[STATE] = ANSWER
    elif at == ANSWER:
        if answer[0]:
            state[PAGE], state[COUNT], state[LOW], state[HIGH] = answer[1:]
            state[STATE] = DECIDE if state[INSIDE] else ANNOUNCE
    elif at == ANNOUNCE:
        if not _older(state[TILE], oldest) and not behind:
            state[STATE] = TELL
    elif at == TELL:
        if tile_ready:
            state[STATE] = DECIDE
    elif at == DECIDE:
        state[SPAN] = state[HIGH] - state[LOW]
        if dead or state[COUNT] == 0:
            state[STATE] = NEXT
        elif state[COUNT] <= chunk:
            state[STATE] = CHUNK
        elif state[INSIDE]:
            state[STACK + state[LEVEL]] = state[BUCKET]
            state[LEVEL] += 1
            state[FIRST] += buckets
            state[STATE] = CLEAR
        else:
            state[STATE] = RELEASE
    elif at == CHUNK:
        if chunk_ready:
            state[STATE] = NEXT
    elif at == RELEASE:
        if read:
            state[INSIDE] = 1
            state[STATE] = CLEAR
    elif at == CLEAR:
        state[SHIFT] = 0
        while state[SPAN] >> state[SHIFT] >= buckets:
            state[SHIFT] += 1
        if range_ready:
            state[STATE] = READ
    elif at == READ:
        if list_ready:
            state[PARTITIONS] += 1
            state[STATE] = PARTITION
    elif at == PARTITION:
        if ended:
            state[STATE] = FLUSH
    elif at == FLUSH:
        if range_ready:
            state[STATE] = SETTLE
    elif at == SETTLE:
        state[BUCKET] = 0
        state[AT] = state[FIRST]
        if lists_idle:
            state[STATE] = QUERY
    elif at == NEXT:
        bucket = state[BUCKET]
        state[BUCKET] += 1
        if state[INSIDE] and not dead and bucket != buckets - 1:
            state[AT] += 1
            state[STATE] = QUERY
        elif state[INSIDE] and not dead and state[LEVEL]:
            state[LEVEL] -= 1
            state[FIRST] -= buckets
            state[STATE] = POP
        else:
            state[INSIDE] = state[LEVEL] = 0
            state[FIRST] = tiles
            state[TILE] += 1
            state[AT] = state[TILE]
            state[STATE] = DONE if state[TILE] == state[TILES] else QUERY
    elif at == POP:
        state[BUCKET] = state[STACK + state[LEVEL]]
        state[AT] = state[FIRST] + state[BUCKET]
        state[STATE] = NEXT


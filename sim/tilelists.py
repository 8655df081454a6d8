"""Cycle model of :class:`splatforge.hw.tilelists.Tilelists`: bursts, tiles and entries.

:func:`offers` tells what the unit shows in a cycle, :func:`step` what one cycle does.
"""

import numba as nb
import numpy as np
import numpy.typing as npt

from splatforge.designs.fetch import TILE_PX
from splatforge.designs.tilelists import BEAT_IDS, TilelistsDesign

__all__ = ["LATENCY", "beats_of", "new_tilelists", "offers", "step"]

#: Cycles from the beat that brings a tile's table entry to its list's first address.
LATENCY = 9
#: Tiles whose lists may wait to be taken apart.
NAMES = 8
_ENTRIES_OF_A_BEAT = 2

#: States of the tiles, in order.
SIZE_STATE, BEGIN, WAIT, ROUND, SUM, JUDGE, ANNOUNCE, AIM, ASK, NEXT, END = range(11)

# Parameters: beats of a burst and of the buffer, bursts in flight, tiles, beats of lists. The state
# of the tiles, the tile, whether its entry is the upper half of a beat, beats left of its list,
# where it is, beats of its next burst; beats of the table to ask for; beats reserved in both
# buffers, their levels and output registers; bursts of lists in flight; the address register,
# whether it is a list's, its beats; bursts in flight, as a count of those begun and ended; tiles
# that wait to be taken apart, pushed and popped, their level and output register; the tile that is
# taken apart, whether there is one, entries left, place in the beat; the entry's register, its
# tile, its place in the list; whether a list was too long; counts of beats; whether a burst of the
# table was due, and there was room for one of a list, a cycle ago; beats of lists in registers.
(BURST, BUFFER, LIMIT, TILES, BEATS, STATE, TILE, ODD, LIST_LEFT, LIST_INDEX, LIST_LENGTH,
 TABLE_LEFT, TABLE_RESERVED, TABLE_LEVEL, TABLE_OUT, LIST_RESERVED, LIST_LEVEL, LIST_OUT,
 LIST_FLYING, ADDRESS, ADDRESS_LIST, ADDRESS_BEATS, BEGUN, ENDED, PUSHED, POPPED, NAMES_LEVEL,
 NAMES_OUT, ACTIVE, LEFT, PLACE, NOW, ENTRY, ENTRY_TILE, ENTRY_PLACE, OVERLONG, TABLE_BEATS,
 LIST_BEATS, TABLE_DUE, LIST_ROOM, LIST_AHEAD, SIZE) = range(42)
#: Then a ring of whose bursts are in flight, and one of tiles that wait.
OWNERS = SIZE
_RING = 128
WAITING = OWNERS + _RING


def new_tilelists(
    design: TilelistsDesign, width: int, height: int, list_beats: int
) -> npt.NDArray[np.int64]:
    """State of the unit in the cycle behind ``start``, of a frame of `width` x `height` pixels."""
    state = np.zeros(WAITING + NAMES + 1, np.int64)
    state[BURST], state[BUFFER] = design.burst_beats, design.buffer_beats
    state[LIMIT], state[BEATS] = design.outstanding_bursts, list_beats
    state[LIST_ROOM] = 1
    state[TILES] = -(-width // TILE_PX) * -(-height // TILE_PX)
    return state


def beats_of(counts: npt.NDArray[np.int64]) -> int:
    """Beats that are read of a frame: table and lists, all of them."""
    return -(-len(counts) // _ENTRIES_OF_A_BEAT) + int((-(-counts // BEAT_IDS)).sum())


@nb.njit
def offers(state):
    """What the unit shows in a cycle: a tile, an entry or -1 for none, whether an address."""
    return (state[TILE] if state[STATE] == ANNOUNCE else -1,
            state[ENTRY_PLACE] if state[ENTRY] else -1, state[ADDRESS] != 0)


@nb.njit
def step(
    state, first, count, oldest, behind, tile_ready, entry_ready, address_ready, beat, beat_last,
    stop=False,
):  # fmt: skip
    """One cycle.

    Parameters
    ----------
    state : ndarray
        From :func:`new_tilelists`.
    first, count : ndarray
        First beat and entries of every tile's list.
    oldest : int
        The oldest tile that is still wanted.
    behind, tile_ready, entry_ready, address_ready : bool
        Something of a tile before that is on its way; a tile, an entry, an address is taken.
    beat, beat_last : bool
        A beat of the unit's arrives, the last of its burst.
    stop : bool
        Nothing more is asked for.
    """
    now, old_tile = state[STATE], state[TILE]
    list_owns = state[OWNERS + state[ENDED] % _RING] != 0
    table_beat, list_beat = beat and not list_owns, beat and list_owns
    state[TABLE_BEATS] += table_beat
    state[LIST_BEATS] += list_beat

    # ---- Entries.
    dead = state[NOW] < oldest
    there = state[ACTIVE] and state[LIST_AHEAD] > 0
    emit = there and not dead and (not state[ENTRY] or entry_ready)
    drop = there and dead
    list_taken = drop or (emit and (state[PLACE] == BEAT_IDS - 1 or state[LEFT] == 1))
    list_comes = state[LIST_OUT] != 0 and state[LIST_AHEAD] < 2
    head = state[WAITING + state[POPPED] % (NAMES + 1)]
    old = ((state[ACTIVE] and dead) or (state[NAMES_OUT] and head < oldest)
           or (state[ENTRY] and state[ENTRY_TILE] < oldest))
    load = not state[ACTIVE] and state[NAMES_OUT]
    if entry_ready:
        state[ENTRY] = 0
    if emit:
        state[ENTRY], state[ENTRY_TILE] = 1, state[NOW]
        state[ENTRY_PLACE] = count[state[NOW]] - state[LEFT]
    if emit or drop:
        gone = BEAT_IDS - state[PLACE] if drop else 1
        state[PLACE] = 0 if list_taken else state[PLACE] + 1
        state[LEFT] -= gone
        state[ACTIVE] = state[LEFT] > 0
    elif load:
        state[ACTIVE], state[NOW], state[LEFT] = 1, head, count[head]

    # ---- Bursts.
    table_length = min(state[TABLE_LEFT], state[BURST])
    table_ask = state[TABLE_DUE] != 0 and not state[ADDRESS] and not stop
    list_length = state[LIST_LENGTH]
    list_ask = (now == ASK and state[LIST_ROOM] != 0 and not state[TABLE_DUE]
                and not state[ADDRESS] and not stop)
    state[TABLE_DUE] = state[TABLE_LEFT] > 0 and state[TABLE_RESERVED] <= state[BURST]
    state[LIST_ROOM] = (state[LIST_RESERVED] <= state[BUFFER] - state[BURST]
                        and state[LIST_FLYING] != state[LIMIT])
    table_taken = now == WAIT and state[TABLE_OUT] and state[ODD]
    names_room = state[NAMES_LEVEL] < NAMES - 1
    if address_ready:
        state[ADDRESS] = 0
    if table_ask or list_ask:
        state[ADDRESS], state[ADDRESS_LIST] = 1, list_ask
        state[ADDRESS_BEATS] = list_length if list_ask else table_length
        state[OWNERS + state[BEGUN] % _RING] = list_ask
        state[BEGUN] += 1
    if table_ask:
        state[TABLE_LEFT] -= table_length
        state[TABLE_RESERVED] += table_length
    state[TABLE_RESERVED] -= table_taken
    if list_ask:
        state[LIST_RESERVED] += list_length
        state[LIST_FLYING] += 1
    state[LIST_RESERVED] -= list_comes
    state[LIST_FLYING] -= beat_last and list_owns
    state[ENDED] += beat_last

    # ---- Tiles.
    push = False
    if now == SIZE_STATE:
        state[STATE] = BEGIN
    elif now == BEGIN:
        state[TABLE_LEFT] = (state[TILES] + 1) >> 1
        state[STATE] = WAIT
    elif now == WAIT and state[TABLE_OUT]:
        state[ODD] ^= 1
        state[STATE] = ROUND
    elif now == ROUND:
        state[LIST_LEFT] = (count[old_tile] + BEAT_IDS - 1) // BEAT_IDS
        state[LIST_INDEX] = first[old_tile]
        state[STATE] = SUM
    elif now == SUM:
        state[STATE] = JUDGE
    elif now == JUDGE:
        if state[LIST_INDEX] + state[LIST_LEFT] > state[BEATS]:
            state[OVERLONG] = 1
            state[STATE] = END
        elif old_tile < oldest + NAMES and not old and not behind and names_room:
            state[STATE] = ANNOUNCE
    elif now == ANNOUNCE and tile_ready:
        push = count[old_tile] > 0
        state[STATE] = AIM if push else NEXT
        if push:
            state[WAITING + state[PUSHED] % (NAMES + 1)] = old_tile
            state[PUSHED] += 1
    elif now == AIM:
        state[LIST_LENGTH] = min(
            state[LIST_LEFT], state[BURST] - state[LIST_INDEX] % state[BURST])
        state[STATE] = ASK
    elif now == ASK and list_ask:
        state[LIST_INDEX] += list_length
        state[LIST_LEFT] -= list_length
        state[STATE] = AIM if state[LIST_LEFT] else NEXT
    elif now == NEXT:
        state[TILE] += 1
        state[STATE] = END if state[TILE] == state[TILES] else WAIT

    # ---- Three buffers with their oldest word in a register.
    inner = state[NAMES_LEVEL] > 0 and (not state[NAMES_OUT] or load)
    state[NAMES_LEVEL] += push - inner
    state[NAMES_OUT] = inner or (state[NAMES_OUT] and not load)
    state[POPPED] += load
    inner = state[TABLE_LEVEL] > 0 and (not state[TABLE_OUT] or table_taken)
    state[TABLE_LEVEL] += table_beat - inner
    state[TABLE_OUT] = inner or (state[TABLE_OUT] and not table_taken)
    inner = state[LIST_LEVEL] > 0 and (not state[LIST_OUT] or list_comes)
    state[LIST_LEVEL] += list_beat - inner
    state[LIST_OUT] = inner or (state[LIST_OUT] and not list_comes)
    state[LIST_AHEAD] += list_comes - list_taken

"""Cycle model of :class:`splatforge.hw.lists.Lists`: what it holds, and when it moves.

:func:`offers` tells what the unit shows in a cycle, :func:`step` what one cycle does. The state
holds the lists too, with entries as the numbers that they are: links and counts decide what is
written and read, and when.
"""

import numba as nb
import numpy as np
import numpy.typing as npt

from splatforge.designs.lists import ListsDesign

__all__ = [
    "ANSWER", "ANSWER_COUNT", "ANSWER_HIGH", "ANSWER_LOW", "ANSWER_PAGE", "FREE", "OVERFLOW",
    "SLOT_BEATS", "SLOT_HALVES", "TILE_BEATS", "TILE_HALVES", "beat", "cycles", "idle", "limits_of",
    "new_lists", "offers", "step",
]

#: Where an operation is selected, and the four registers that it goes through.
STAGES = 5

#: What is done with a list.
NOTHING, APPEND, CLEAR, FLUSH, QUERY = range(5)

# Scalars of the state: the query that is not yet answered, whether it still waits for its turn, its
# list; lists that are left of a range, the next, whether it is flushed; the three stages before the
# last: what is done, with which list, and the entry; of the last whether it queries and whether it
# writes a beat; the answer that is offered, and that in the last stage; next free page, the first
# number that is none, the mark, whether a page was wanted where there was none; least and greatest
# key of the tiles' lists; beats not yet answered, levels of the queues of addresses and of beats,
# whether their output registers hold something; beats pushed, taken of each queue; beats and
# flushed halves of beats, of tiles' lists and of the others.
(ASKING, ASKED, ASKED_LIST, LEFT, AT, FLUSHING,
 DO_1, LIST_1, ENTRY_1, DO_2, LIST_2, ENTRY_2, DO_3, LIST_3, ENTRY_3, QUERY_4, PUSH_4, BUSY_4,
 ANSWER, ANSWER_PAGE, ANSWER_COUNT, ANSWER_LOW, ANSWER_HIGH,
 PAGE_4, COUNT_4, LOW_4, HIGH_4,
 FREE, BOUND, MARK, OVERFLOW, OVERFLOW_4, LEAST, GREATEST,
 UNANSWERED, ADDRESSES, ADDRESSES_OUT, BEATS, BEATS_OUT, PUSHED, ADDRESSES_POPPED, BEATS_POPPED,
 TILE_BEATS, TILE_HALVES, SLOT_BEATS, SLOT_HALVES) = range(46)
#: Then a ring of beats (page, place in it, lower and upper word, whether it is half); behind it of
#: each list slots, first page, page, next page, waiting entry; behind them the further lists' keys.
RING = 46


def new_lists(design: ListsDesign, first_page: int, limit: int) -> npt.NDArray[np.int64]:
    """State of the unit behind the start of a frame; all lists are empty."""
    state = np.zeros(
        RING + 5 * design.waiting_beats + 5 * design.lists + 2 * design.slots, np.int64)
    least = (1 << design.entry.key_bits) - 1
    state[LEAST] = least
    state[-2 * design.slots::2] = least
    state[BOUND] = min(limit, design.pages)
    state[FREE] = min(first_page, state[BOUND])
    return state


def limits_of(design: ListsDesign) -> tuple[int, int, int, int, int]:
    """What the functions below take as ``limits``."""
    return (design.waiting_beats, design.page_slots, design.tiles, design.slots,
            (1 << design.entry.key_bits) - 1)


@nb.njit
def offers(state, limits, stop):
    """What is taken in this cycle, and what is offered.

    Returns
    -------
    tuple of bool
        Whether an entry is taken, a range and a query; whether an address is offered, a beat and an
        answer.
    """
    room = state[UNANSWERED] <= limits[0] - STAGES
    return (
        not state[ASKED] and not state[LEFT] and room and not stop, not state[LEFT] and not stop,
        not state[ASKING], state[ADDRESSES_OUT] != 0, state[BEATS_OUT] != 0, state[ANSWER] != 0)


@nb.njit
def beat(state, limits, address):
    """The beat whose address is offered, or the one that is offered itself.

    Returns
    -------
    tuple
        Page, place in it, lower word, upper word, and whether only the lower one is written.
    """
    popped = state[ADDRESSES_POPPED] if address else state[BEATS_POPPED]
    at = RING + 5 * (popped % limits[0])
    return state[at], state[at + 1], state[at + 2], state[at + 3], state[at + 4] != 0


@nb.njit
def idle(state):
    """Whether nothing is under way."""
    return not (state[LEFT] or state[UNANSWERED] or state[DO_1] or state[DO_2] or state[DO_3]
                or state[BUSY_4])


@nb.njit(inline="always")
def _work(state, limits):
    """What the third stage does; returns whether a beat comes of it."""
    waiting, page_slots, tiles, further, keys = limits
    do, number, entry = state[DO_3], state[LIST_3], state[ENTRY_3]
    at = RING + 5 * waiting + 5 * number
    pair = RING + 5 * waiting + 5 * (tiles + further) + 2 * (number - tiles)
    bound = state[BOUND]
    slots = state[at]
    emit = False
    low = high = np.int64(0)
    if do == APPEND:
        key = entry & keys
        slot = slots % page_slots
        if slot == 0:
            if slots == 0:
                state[at + 1] = state[at + 2] = state[FREE]
                state[FREE] = min(state[FREE] + 1, bound)
            else:
                state[at + 2] = state[at + 3]
            state[at + 3] = state[FREE]
            state[FREE] = min(state[FREE] + 1, bound)
            emit, low, high = True, state[at + 3], entry
            state[at] = slots + 2
        else:
            if slot % 2:
                emit, low, high = True, state[at + 4], entry
            else:
                state[at + 4] = entry
            state[at] = slots + 1
        if number >= tiles:
            state[pair] = min(state[pair], key)
            state[pair + 1] = max(state[pair + 1], key)
        else:
            state[LEAST] = min(state[LEAST], key)
            state[GREATEST] = max(state[GREATEST], key)
    elif do == CLEAR:
        state[at:at + 5] = 0
        if number >= tiles:
            state[pair], state[pair + 1] = keys, 0
    elif do == FLUSH:
        emit, low = slots % 2 != 0, state[at + 4]
    elif do == QUERY:
        state[PAGE_4] = state[at + 1]
        state[COUNT_4] = slots - (slots + page_slots - 1) // page_slots
        if number >= tiles:
            state[LOW_4], state[HIGH_4] = state[pair], state[pair + 1]
        else:
            state[LOW_4], state[HIGH_4] = state[LEAST], state[GREATEST]
    page = state[at + 2]
    state[OVERFLOW_4] = emit and page == bound
    push = emit and page != bound
    if push:
        # The ring has a place: beats were counted before they were worked out.
        ring = RING + 5 * (state[PUSHED] % waiting)
        state[PUSHED] += 1
        state[ring], state[ring + 1] = page, slots % page_slots // 2
        state[ring + 2], state[ring + 3], state[ring + 4] = low, high, do == FLUSH
        if number < tiles:
            state[TILE_HALVES if do == FLUSH else TILE_BEATS] += 1
        else:
            state[SLOT_HALVES if do == FLUSH else SLOT_BEATS] += 1
    return push


@nb.njit
def step(state, limits, number, entry, first, count, flush, query, mark, release, stop,
         address_ready, beat_ready, answer_ready, response):
    """One cycle.

    Parameters
    ----------
    state : ndarray
        From :func:`new_lists`.
    limits : tuple of int
        From :func:`limits_of`.
    number, entry : int
        The list that an entry is offered for, or -1 for none, and the entry.
    first, count, flush : int
        The range that is offered: its first list, or -1 for none, its lists, whether to flush them.
    query : int
        The list that is asked about, or -1.
    mark, release, stop : bool
        The inputs of those names.
    address_ready, beat_ready, answer_ready : bool
        The bus takes an address and a beat; the answer is taken.
    response : bool
        A beat's response arrives.
    """
    entry_ready, range_ready, query_ready, address, beat, answer = offers(state, limits, stop)
    room = state[UNANSWERED] <= limits[0] - STAGES

    # Behind the last stage: the answer and the queues.
    if answer and answer_ready:
        state[ANSWER] = state[ASKING] = 0
    if state[QUERY_4]:
        state[ANSWER] = 1
        for field in range(ANSWER_HIGH + 1 - ANSWER_PAGE):
            state[ANSWER_PAGE + field] = state[PAGE_4 + field]
    push = state[PUSH_4]
    taken = address and address_ready
    inner = state[ADDRESSES] > 0 and (not address or taken)
    state[ADDRESSES] += push
    state[ADDRESSES] -= inner
    state[ADDRESSES_OUT] = inner or (address and not taken)
    state[ADDRESSES_POPPED] += taken
    taken = beat and beat_ready
    inner = state[BEATS] > 0 and (not beat or taken)
    state[BEATS] += push
    state[BEATS] -= inner
    state[BEATS_OUT] = inner or (beat and not taken)
    state[BEATS_POPPED] += taken
    state[UNANSWERED] += push
    state[UNANSWERED] -= response
    state[OVERFLOW] |= state[OVERFLOW_4]

    # The third stage works, the others move.
    free = state[FREE]
    state[PUSH_4] = _work(state, limits)
    state[BUSY_4] = state[DO_3] != NOTHING
    state[QUERY_4] = state[DO_3] == QUERY
    if release:
        state[FREE] = state[MARK]
    if mark:
        state[MARK] = free
    state[DO_3], state[LIST_3], state[ENTRY_3] = state[DO_2], state[LIST_2], state[ENTRY_2]
    state[DO_2], state[LIST_2], state[ENTRY_2] = state[DO_1], state[LIST_1], state[ENTRY_1]
    state[DO_1] = NOTHING
    if state[ASKED]:
        if room:
            state[DO_1], state[LIST_1], state[ASKED] = QUERY, state[ASKED_LIST], 0
    elif state[LEFT]:
        if room and not stop:
            state[DO_1], state[LIST_1] = FLUSH if state[FLUSHING] else CLEAR, state[AT]
            state[AT] += 1
            state[LEFT] -= 1
    elif entry_ready and number >= 0:
        state[DO_1], state[LIST_1], state[ENTRY_1] = APPEND, number, entry

    if query_ready and query >= 0:
        state[ASKING] = state[ASKED] = 1
        state[ASKED_LIST] = query
    if stop:
        state[LEFT] = 0
    elif range_ready and first >= 0:
        state[AT], state[LEFT], state[FLUSHING] = first, count, flush


def cycles(design: ListsDesign, lists: npt.ArrayLike, latency_cycles: int = 1) -> int:
    """Cycles from the first entry's transfer to the last beat's, both counted.

    Entries wait at the input; the bus takes every address and beat, and answers after a while.

    Parameters
    ----------
    design : ListsDesign
        The unit, its lists empty.
    lists : array_like of int
        The list of each entry; at least one entry.
    latency_cycles : int
        From a beat's transfer to its response.
    """
    state, limits = new_lists(design, 0, design.pages), limits_of(design)
    numbers = np.asarray(lists, np.int64)
    answers: list[int] = []
    cycle = sent = last = 0
    while sent < len(numbers) or not idle(state):
        ready, _, _, _, beat, _ = offers(state, limits, False)
        number = numbers[sent] if sent < len(numbers) else -1
        step(state, limits, number, 0, -1, 0, 0, -1, False, False, False, True, True, False,
             cycle in answers)
        if beat:
            answers.append(cycle + latency_cycles)
            last = cycle
        sent += ready and number >= 0
        cycle += 1
    return last + 1

"""Cycle model of :class:`splatforge.hw.lib.list_reader.ListReader`: who waits for whom.

:func:`offers` tells what the reader shows in a cycle, :func:`step` what one cycle does.
"""

import numba as nb
import numpy as np
import numpy.typing as npt

from splatforge.designs.lists import ListsDesign

__all__ = ["ADDRESS", "ADDRESS_BEATS", "ADDRESS_PAGE", "IN_FLIGHT", "PAIR_LAST", "PAIR_PLACE",
           "PAIR_TAG", "PAIR_VALID", "limits_of", "new_list_reader", "offers", "step"]

# Scalars of the state: whether a list is held, the next page of it known and which, entries of it
# not yet asked for, its tag; the address that waits for the bus, its page and beats; beats asked
# for that have not left the buffer, pages whose first beat has not come, bursts in flight, whether
# a burst is in its midst; levels of the two queues, whether their output registers hold something,
# what was pushed and popped; the beat behind the buffer, and whether it is the last of its burst;
# whether the next to leave is the first of its page; the pair that is offered: whether there is
# one, the place of its beat, which entries it has, whether it is its list's last, the list's tag;
# the same of one that waits behind it; whether there is room for a page, as of a cycle ago.
(HELD, KNOWN, PAGE, LEFT, TAG, ADDRESS, ADDRESS_PAGE, ADDRESS_BEATS,
 RESERVED, AWAITED, IN_FLIGHT, MIDDLE,
 BEATS, BEATS_OUT, BEATS_PUSHED, BEATS_POPPED, BURSTS, BURSTS_OUT, BURSTS_PUSHED, BURSTS_POPPED,
 FULL, FULL_PLACE, FULL_END, FIRST,
 PAIR, PAIR_PLACE, PAIR_VALID, PAIR_LAST, PAIR_TAG,
 WAITS, WAITS_PLACE, WAITS_VALID, WAITS_LAST, WAITS_TAG, ROOM) = range(35)
#: Then a ring of beats (place, last of its burst), and behind it one of bursts (upper half of the
#: last beat in use, last of its list, tag).
RING = 35


def new_list_reader(design: ListsDesign) -> npt.NDArray[np.int64]:
    """State of the reader behind reset."""
    state = np.zeros(RING + 2 * design.buffer_beats + 3 * design.outstanding_pages, np.int64)
    state[FIRST] = 1
    return state


def limits_of(design: ListsDesign) -> tuple[int, int, int]:
    """What the functions below take as ``limits``."""
    return design.buffer_beats, design.outstanding_pages, design.page_entries


@nb.njit
def offers(state, limits):
    """Whether a list is taken in this cycle, an address offered, and a pair.

    What they are stands in the state.
    """
    return state[HELD] == 0, state[ADDRESS] != 0, state[PAIR] != 0


@nb.njit
def step(state, limits, count, page, tag, stop, address_ready, beat, link, end, pair_ready):
    """One cycle.

    Parameters
    ----------
    state : ndarray
        From :func:`new_list_reader`.
    limits : tuple of int
        From :func:`limits_of`.
    count, page, tag : int
        The list that is offered: its entries or 0 for none, its first page, its tag.
    stop : bool
        Nothing more is asked for.
    address_ready : bool
        The bus takes an address.
    beat, link : int
        A beat with this reader's ID arrives: any number of it, or -1 for none, and the link if it
        is the first of its page.
    end : bool
        It is the last of its burst.
    pair_ready : bool
        A pair is taken.
    """
    buffer, outstanding, page_entries = limits
    page_beats = (page_entries + 1) // 2

    # Pairs leave; one that finds the output taken waits.
    free = not state[PAIR] or pair_ready
    move = not state[WAITS]
    fill = move or not state[FULL]
    take = fill and state[BEATS_OUT] != 0
    ends = False
    at = PAIR
    if move:
        if not free:
            at = WAITS
        if state[FULL]:
            of = RING + 2 * buffer + 3 * (state[BURSTS_POPPED] % outstanding)
            ends = state[FULL_END] != 0
            state[at + 1] = state[FULL_PLACE]
            state[at + 2] = (0 if state[FIRST] else 1) + (2 if not ends or state[of] else 0)
            state[at + 3] = ends and state[of + 1] != 0
            state[at + 4] = state[of + 2]
            state[FIRST] = ends
        state[at] = state[FULL]
    elif free:
        for field in range(5):
            state[PAIR + field] = state[WAITS + field]
        state[WAITS] = 0
    if fill:
        at = RING + 2 * (state[BEATS_POPPED] % buffer)
        state[FULL] = take
        state[FULL_PLACE] = state[at]
        state[FULL_END] = state[at + 1]

    # Pages are asked for.
    ask = (state[HELD] != 0 and state[KNOWN] != 0 and not state[ADDRESS] and not stop
           and state[ROOM] and state[BURSTS] < outstanding - 1)
    state[ROOM] = state[RESERVED] <= buffer - page_beats
    ready = not state[HELD]
    here = beat >= 0 and state[IN_FLIGHT] > 0
    linked = here and not state[MIDDLE]
    went = state[ADDRESS] != 0 and address_ready
    if went:
        state[ADDRESS] = 0
    state[RESERVED] -= take
    if ask:
        more = state[LEFT] > page_entries
        beats = page_beats if more else state[LEFT] // 2 + 1
        at = RING + 2 * buffer + 3 * (state[BURSTS_PUSHED] % outstanding)
        state[at] = more or state[LEFT] % 2 != 0
        state[at + 1] = not more
        state[at + 2] = state[TAG]
        state[BURSTS_PUSHED] += 1
        state[ADDRESS] = 1
        state[ADDRESS_PAGE] = state[PAGE]
        state[ADDRESS_BEATS] = beats
        state[RESERVED] += beats
        state[HELD] = more
        state[KNOWN] = 0
        state[LEFT] -= page_entries
    elif linked and not state[KNOWN] and state[AWAITED] == 1:
        state[KNOWN] = 1
        state[PAGE] = link
    state[AWAITED] += ask
    state[AWAITED] -= linked
    if ready and count > 0:
        state[HELD] = state[KNOWN] = 1
        state[PAGE] = page
        state[LEFT] = count
        state[TAG] = tag

    # Beats come.
    if here:
        at = RING + 2 * (state[BEATS_PUSHED] % buffer)
        state[at] = beat
        state[at + 1] = end
        state[BEATS_PUSHED] += 1
        state[MIDDLE] = not end
    state[IN_FLIGHT] += went
    state[IN_FLIGHT] -= here and end

    # Both queues have their oldest word in a register of its own.
    inner = state[BEATS] > 0 and (not state[BEATS_OUT] or take)
    state[BEATS] += here
    state[BEATS] -= inner
    state[BEATS_OUT] = inner or (state[BEATS_OUT] != 0 and not take)
    state[BEATS_POPPED] += take
    inner = state[BURSTS] > 0 and (not state[BURSTS_OUT] or ends)
    state[BURSTS] += ask
    state[BURSTS] -= inner
    state[BURSTS_OUT] = inner or (state[BURSTS_OUT] != 0 and not ends)
    state[BURSTS_POPPED] += ends

"""Cycle model of :class:`splatforge.hw.vru.Vru`: it steps what decides when an entry moves.

No number that is computed is here, only who waits for whom: the tags, the two queues and the
pipeline. :func:`offers` tells what the unit shows in a cycle, :func:`step` what one cycle does.
"""

from collections.abc import Sequence

import numba as nb
import numpy as np
import numpy.typing as npt

from splatforge.designs.memory import MemoryTiming
from splatforge.designs.vru import VruDesign

__all__ = ["behind", "cycles", "new_vru", "offers", "step"]

#: Stages of arithmetic, the output's register among them, behind the cache's data.
STAGES = 8

# Scalars of the state: the entry at the tags, the two behind it; whether the former's tile is over,
# as of a cycle ago; cycles until the tags are cleared; whether an address waits for the bus;
# records asked for and put in place, and whether one more may be, as of a cycle ago; levels of the
# two queues and whether their output registers hold something; whether one and two entries wait
# behind the queue; the oldest tile that is wanted; counts.
(TAG_VALID, TAG_PLACE, TAG_FEATURE, TAG_TILE, EARLY_VALID, EARLY_PLACE, EARLY_FEATURE, EARLY_TILE,
 FIRST_VALID, FIRST_PLACE, FIRST_FEATURE, FIRST_TILE, TAG_DEAD, CLEARING, ADDRESS, ASKED, PLACED,
 ROOM, WAITING, WAITING_OUT, WAITING_PUSHED, WAITING_POPPED, WAITS, FOLLOWS, ARRIVED, ARRIVED_OUT,
 OLDEST, HITS, MISSES) = range(29)
#: Then for each stage, and for what waits behind the last, whether it is taken, by which entry, of
#: which tile.
PIPE = 29
OUT = PIPE + 3 * (STAGES + 1)
#: Then a ring of what waits (entry, tile, miss), and behind it the tags.
RING = OUT + 3
#: Entries that wait behind the queue.
AHEAD = 2


def new_vru(design: VruDesign) -> npt.NDArray[np.int64]:
    """State of the unit at the start of a frame."""
    state = np.zeros(
        RING + 3 * (design.waiting + AHEAD) + design.cache_features, np.int64)
    state[-design.cache_features:] = -1
    state[CLEARING] = design.cache_features
    return state


@nb.njit(inline="always")
def _looks_up(state, limits):
    """Of the entry at the tags: whether it is dropped, has a hit, and may go on."""
    waiting, lines = limits[0], limits[2]
    dead = state[TAG_DEAD] != 0
    line = RING + 3 * (waiting + AHEAD) + state[TAG_FEATURE] % lines
    hit = state[line] == state[TAG_FEATURE]
    room = state[WAITING] < waiting - 1
    free = state[ADDRESS] == 0 and state[ROOM] != 0
    return dead, hit, dead or (room and (hit or free))


@nb.njit
def offers(state, limits):
    """Whether an entry is taken in this cycle, and the place of the splat that is offered or -1."""
    go = True
    if state[TAG_VALID]:
        _, _, go = _looks_up(state, limits)
    ready = state[CLEARING] == 0 and go
    last = OUT if state[OUT] else OUT - 3
    splat = np.int64(-1)
    if state[last] and state[last + 2] >= state[OLDEST]:
        splat = state[last + 1]
    return ready, splat


@nb.njit
def behind(state, limits):
    """Whether an entry of a tile before the oldest waits for its feature."""
    at = RING + 3 * (state[WAITING_POPPED] % (limits[0] + AHEAD))
    return state[WAITS] != 0 and state[at + 1] < state[OLDEST]


@nb.njit
def step(state, limits, place, feature, tile, address_ready, pair, splat_ready, tile_taken, skip):
    """One cycle.

    Parameters
    ----------
    state : ndarray
        From :func:`new_vru`.
    limits : tuple of int
        ``waiting``, ``outstanding_features`` and ``cache_features`` of the design.
    place, feature, tile : int
        The entry that is offered: any number of it, or -1 for none, its feature's, its tile's.
    address_ready, pair, splat_ready : bool
        The bus takes an address; the second beat of a record arrives; the array takes a splat.
    tile_taken : int
        The tile that the array takes, or -1.
    skip : bool
        The array's tile ends.
    """
    waiting, outstanding, lines = limits[0], limits[1], limits[2]
    ring = waiting + AHEAD
    ready, splat = offers(state, limits)
    last = OUT - 3
    move = not state[OUT]
    wait = splat >= 0 and not splat_ready
    if move and wait:
        state[OUT + 1], state[OUT + 2] = state[last + 1], state[last + 2]
    state[OUT] = wait

    # The cache's data, and the pipeline.
    at = RING + 3 * (state[WAITING_POPPED] % ring)
    miss = state[at + 2]
    take = move and state[WAITS] and (not miss or state[ARRIVED_OUT])
    if move:
        for slot in range(last, PIPE, -3):
            state[slot] = state[slot - 3]
            state[slot + 1] = state[slot - 2]
            state[slot + 2] = state[slot - 1]
        state[PIPE] = take
        state[PIPE + 1] = state[at]
        state[PIPE + 2] = state[at + 1]
    arrived_taken = take and miss != 0

    # The tags.
    push = False
    fetch = False
    go = True
    if state[TAG_VALID]:
        dead, hit, go = _looks_up(state, limits)
        push = go and not dead
        fetch = push and not hit
        if push:
            at = RING + 3 * (state[WAITING_PUSHED] % ring)
            state[at] = state[TAG_PLACE]
            state[at + 1] = state[TAG_TILE]
            state[at + 2] = fetch
            state[WAITING_PUSHED] += 1
            state[HITS] += hit
    if fetch:
        state[RING + 3 * ring + state[TAG_FEATURE] % lines] = state[TAG_FEATURE]
        state[MISSES] += 1
    if go:
        for field in range(8):
            state[TAG_VALID + field] = state[TAG_VALID + 4 + field]
        state[FIRST_VALID] = ready and place >= 0
        state[FIRST_PLACE] = place
        state[FIRST_FEATURE] = feature
        state[FIRST_TILE] = tile
    state[TAG_DEAD] = state[TAG_TILE] < state[OLDEST]
    if state[CLEARING]:
        state[CLEARING] -= 1
    state[ROOM] = state[ASKED] - state[PLACED] < outstanding
    if address_ready:
        state[ADDRESS] = 0
    if fetch:
        state[ADDRESS] = 1
        state[ASKED] += 1
    state[PLACED] += arrived_taken

    # Both queues have their oldest word in a register of its own; entries of one go on from there.
    shown = state[WAITING_OUT] != 0
    inner = state[WAITING] > 0 and (not shown or not state[FOLLOWS])
    state[WAITING] += push - inner
    state[WAITING_OUT] = inner or (shown and state[FOLLOWS] != 0)
    if take or not state[WAITS]:
        state[WAITS] = state[FOLLOWS] or shown
        state[FOLLOWS] = 0
    else:
        state[FOLLOWS] = state[FOLLOWS] or shown
    state[WAITING_POPPED] += take
    inner = state[ARRIVED] > 0 and (not state[ARRIVED_OUT] or arrived_taken)
    state[ARRIVED] += pair - inner
    state[ARRIVED_OUT] = inner or (state[ARRIVED_OUT] and not arrived_taken)

    if tile_taken >= 0:
        state[OLDEST] = tile_taken
    elif skip:
        state[OLDEST] += 1


def cycles(
    design: VruDesign, features: Sequence[int], timing: MemoryTiming = MemoryTiming()  # noqa: B008
) -> int:
    """Cycles from the first entry's transfer to the last splat's, both counted, of one tile.

    Entries wait at the input and the array takes every splat; the memory is alone.

    Parameters
    ----------
    design : VruDesign
        The unit, its tags cleared.
    features : sequence of int
        Number of each entry's feature.
    timing : MemoryTiming
        The memory.
    """
    state = new_vru(design)
    state[CLEARING] = 0
    limits = (design.waiting, design.outstanding_features, design.cache_features)
    num, den = timing.read_beats_per_cycle.numerator, timing.read_beats_per_cycle.denominator
    ends: list[int] = []
    clock = -den
    sent = taken = cycle = 0
    while taken < len(features):
        ready, splat = offers(state, limits)
        place = sent if sent < len(features) else -1
        flying = sum(end >= cycle for end in ends)
        accepted = bool(state[ADDRESS]) and flying < timing.outstanding
        pair = cycle in ends
        step(state, limits, place, features[place], 0, flying < timing.outstanding, pair, True,
             -1, False)
        if accepted:
            for _ in range(2):
                clock = max((cycle + timing.latency_cycles) * num, clock + den)
            ends.append(-(-clock // num))
        sent += ready and place >= 0
        taken += splat >= 0
        cycle += 1
    return cycle

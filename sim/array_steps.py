"""The rendering array a cycle at a time, for what feeds it one cycle at a time.

The same unit as :mod:`splatforge.sim.array`, whose latencies these are; there each event is worked
out from those that it waits for, which needs to know beforehand when splats arrive.
"""

import numba as nb
import numpy as np
import numpy.typing as npt

from splatforge.sim.array import DEAD_DELAY
from splatforge.sim.fetch import NEVER

__all__ = ["BLOCKED", "BUSY", "IN_TILE", "PLACE", "SKIPPED", "STARVED", "STOPPED", "dead_tiles",
           "new_array", "step", "take"]

# Scalars of the state: tiles of a group, 1 where tiles come alone, and blocks of each; whether one
# is being blended and a splat held; splats taken; the splat's tile, and blocks that it still wants;
# blocks known to die; cycles in which the next and the last block are seen dead; counts; tiles that
# are seen dead, and the cycle from which on that has to be looked at again.
(TILES, BLOCKS, IN_TILE, HOLDING, PLACE, TILE, PENDING, KNOWN, NEXT_DEAD, ALL_DEAD,
 BUSY, STARVED, SKIPPED, STOPPED, BLOCKED, DEAD_MASK, LOOK_AGAIN) = range(17)
#: Then of each tile its splats that were taken and its blocks that are dead; and of each of its
#: blocks the splat that ends it, and the cycle in which it is seen dead.
OF_TILES = 17


@nb.njit(inline="always")
def _at(state, tile):
    """Where a tile's part of the state begins."""
    return OF_TILES + tile * (2 + 2 * state[BLOCKS])


def new_array(blocks: int, tiles: int = 1) -> npt.NDArray[np.int64]:
    """State of the array at the start of a frame, with so many `tiles` in a group."""
    state = np.zeros(OF_TILES + tiles * (2 + 2 * blocks), np.int64)
    state[TILES], state[BLOCKS] = tiles, blocks
    state[NEXT_DEAD] = state[ALL_DEAD] = NEVER
    return state


@nb.njit
def take(state, ends, block_masks):
    """Take a tile or a group in this cycle, behind :func:`step`.

    Parameters
    ----------
    state : ndarray
        From :func:`new_array`.
    ends : ndarray
        For each of its tiles the row of the workload's ``ends``; of those outside of the frame
        all -1.
    block_masks : ndarray
        Subtiles of each block.
    """
    blocks = state[BLOCKS]
    state[IN_TILE] = 1
    state[HOLDING] = state[PLACE] = state[KNOWN] = 0
    state[NEXT_DEAD] = state[ALL_DEAD] = NEVER
    state[LOOK_AGAIN] = 0
    for tile in range(state[TILES]):
        at = _at(state, tile)
        state[at] = state[at + 1] = 0
        for block in range(blocks):
            # A block ends with its last subtile; outside of the frame it has ended.
            end = np.int64(-1)
            for subtile in range(16):
                if (block_masks[block] >> subtile) & 1:
                    end = max(end, ends[tile, subtile])
            state[at + 2 + block] = end
            state[at + 2 + blocks + block] = NEVER
            if end < 0:
                state[at + 1] |= np.int64(1) << block
                state[KNOWN] += 1


@nb.njit
def dead_tiles(state, now):
    """Mask of the group's tiles without a live pixel, as the array shows it in this cycle."""
    if now < state[LOOK_AGAIN]:
        return state[DEAD_MASK]
    blocks = state[BLOCKS]
    mask, again = np.int64(0), NEVER
    for tile in range(state[TILES]):
        at = _at(state, tile)
        dead = True
        for block in range(blocks):
            # What the choice of a block sees a cycle later.
            seen = state[at + 2 + blocks + block] - 1
            if state[at + 2 + block] >= 0 and seen > now:
                dead = False
                again = min(again, seen)
        if dead:
            mask |= np.int64(1) << tile
    state[DEAD_MASK], state[LOOK_AGAIN] = mask, again
    return mask


@nb.njit
def step(state, now, splat_valid, tile, subtiles, no_more, blocks_of):
    """One cycle.

    Parameters
    ----------
    state : ndarray
        From :func:`new_array`.
    now : int
        The cycle.
    splat_valid : bool
        A splat is offered.
    tile, subtiles : int
        Its tile in the group, and its mask.
    no_more : bool
        Behind the splats that were taken there are no more.
    blocks_of : ndarray
        Blocks of each mask of subtiles.

    Returns
    -------
    tuple of bool
        Whether the splat is taken, the rest skipped, and the tile or group ends.
    """
    if not state[IN_TILE]:
        return False, False, False
    blocks = state[BLOCKS]
    if now >= state[NEXT_DEAD]:
        next_dead = NEVER
        for number in range(state[TILES]):
            at = _at(state, number)
            for block in range(blocks):
                if state[at + 2 + blocks + block] <= now:
                    state[at + 1] |= np.int64(1) << block
                else:
                    next_dead = min(next_dead, state[at + 2 + blocks + block])
        state[NEXT_DEAD] = next_dead
    holding = state[HOLDING] != 0
    waits = not holding
    if holding:
        at = _at(state, state[TILE])
        live = state[PENDING] & ~state[at + 1]
        if live == 0:
            state[SKIPPED] += 1
            if state[PENDING] != 0 and now == state[ALL_DEAD] and no_more:
                state[STOPPED] += 1
            holding = False
        else:
            state[BUSY] += 1
            lowest = live & -live
            block = 0
            while lowest >> block != 1:
                block += 1
            if state[at + 2 + block] == state[at] - 1:
                state[at + 2 + blocks + block] = now + DEAD_DELAY
                state[NEXT_DEAD] = min(state[NEXT_DEAD], now + DEAD_DELAY)
                state[LOOK_AGAIN] = min(state[LOOK_AGAIN], now + DEAD_DELAY - 1)
                state[KNOWN] += 1
                if state[KNOWN] == state[TILES] * blocks:
                    all_dead = np.int64(0)
                    for number in range(state[TILES]):
                        other = _at(state, number)
                        for place in range(blocks):
                            if state[other + 2 + place] >= 0:
                                all_dead = max(all_dead, state[other + 2 + blocks + place])
                    state[ALL_DEAD] = all_dead
            state[PENDING] = live ^ lowest
            holding = live != lowest
    taken = skip = end = False
    if not holding:
        if no_more:
            end = True
        elif state[ALL_DEAD] <= now:
            skip = end = True
            state[STOPPED] += 1
        elif splat_valid:
            taken = holding = True
            state[TILE] = tile
            state[PENDING] = np.int64(blocks_of[subtiles])
            state[PLACE] += 1
            state[_at(state, tile)] += 1
        elif waits:
            state[STARVED] += 1
    state[HOLDING] = holding
    if end:
        state[IN_TILE] = 0
    return taken, skip, end

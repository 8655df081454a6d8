"""The rendering array a cycle at a time, for what feeds it one cycle at a time.

The same unit as :mod:`splatforge.sim.array`, whose latencies these are; there each event is worked
out from those that it waits for, which needs to know beforehand when splats arrive.
"""

import numba as nb
import numpy as np
import numpy.typing as npt

from splatforge.sim.array import DEAD_DELAY
from splatforge.sim.fetch import NEVER

__all__ = ["BLOCKED", "BUSY", "IN_TILE", "PLACE", "SKIPPED", "STARVED", "STOPPED", "new_array",
           "step", "take"]

# Scalars of the state: whether a tile is being blended and a splat of it held; splats of the tile,
# those taken, the tile's first; blocks that the splat still wants, that are dead and known to die;
# cycles in which the next and the last block are seen dead; counts.
(IN_TILE, HOLDING, COUNT, PLACE, FIRST, PENDING, DEAD, KNOWN, NEXT_DEAD, ALL_DEAD,
 BUSY, STARVED, SKIPPED, STOPPED, BLOCKED) = range(15)
#: Then of each block the splat that ends it, and the cycle in which it is seen dead.
BLOCKS = 15


def new_array(blocks: int) -> npt.NDArray[np.int64]:
    """State of the array at the start of a frame."""
    state = np.zeros(BLOCKS + 2 * blocks, np.int64)
    state[NEXT_DEAD] = state[ALL_DEAD] = NEVER
    return state


@nb.njit
def take(state, first, count, ends, block_masks):
    """Take a tile in this cycle, behind :func:`step`.

    Parameters
    ----------
    state : ndarray
        From :func:`new_array`.
    first, count : int
        Its splats in the workload.
    ends : ndarray
        Of the workload, those of this tile.
    block_masks : ndarray
        Subtiles of each block.
    """
    blocks = len(block_masks)
    state[IN_TILE] = 1
    state[HOLDING] = 0
    state[FIRST] = first
    state[COUNT] = count
    state[PLACE] = state[DEAD] = state[KNOWN] = 0
    state[NEXT_DEAD] = state[ALL_DEAD] = NEVER
    for block in range(blocks):
        # A block ends with its last subtile; outside of the frame it has ended.
        end = np.int64(-1)
        for subtile in range(16):
            if (block_masks[block] >> subtile) & 1:
                end = max(end, ends[subtile])
        state[BLOCKS + block] = end
        state[BLOCKS + blocks + block] = NEVER
        if end < 0:
            state[DEAD] |= np.int64(1) << block
            state[KNOWN] += 1


@nb.njit
def step(state, now, splat_valid, subtiles, blocks_of):
    """One cycle.

    Parameters
    ----------
    state : ndarray
        From :func:`new_array`.
    now : int
        The cycle.
    splat_valid : bool
        A splat of the tile is offered.
    subtiles, blocks_of : ndarray
        Of the workload, and blocks of each mask of subtiles.

    Returns
    -------
    tuple of bool
        Whether the splat is taken, the rest of the tile skipped, and the tile ends.
    """
    if not state[IN_TILE]:
        return False, False, False
    blocks = (len(state) - BLOCKS) // 2
    dead_at = BLOCKS + blocks
    place = state[PLACE]
    if now >= state[NEXT_DEAD]:
        dead = state[DEAD]
        next_dead = NEVER
        for block in range(blocks):
            if state[dead_at + block] <= now:
                dead |= np.int64(1) << block
            else:
                next_dead = min(next_dead, state[dead_at + block])
        state[DEAD] = dead
        state[NEXT_DEAD] = next_dead
    holding = state[HOLDING] != 0
    waits = not holding
    if holding:
        live = state[PENDING] & ~state[DEAD]
        if live == 0:
            state[SKIPPED] += 1
            if state[PENDING] != 0 and now == state[ALL_DEAD] and place == state[COUNT]:
                state[STOPPED] += 1
            holding = False
        else:
            state[BUSY] += 1
            lowest = live & -live
            block = 0
            while lowest >> block != 1:
                block += 1
            if state[BLOCKS + block] == place - 1:
                state[dead_at + block] = now + DEAD_DELAY
                state[NEXT_DEAD] = min(state[NEXT_DEAD], now + DEAD_DELAY)
                state[KNOWN] += 1
                if state[KNOWN] == blocks:
                    all_dead = np.int64(0)
                    for other in range(blocks):
                        if state[BLOCKS + other] >= 0:
                            all_dead = max(all_dead, state[dead_at + other])
                    state[ALL_DEAD] = all_dead
            state[PENDING] = live ^ lowest
            holding = live != lowest
    taken = skip = end = False
    if not holding:
        if place == state[COUNT]:
            end = True
        elif state[ALL_DEAD] <= now:
            skip = end = True
            state[STOPPED] += 1
        elif splat_valid:
            taken = holding = True
            state[PENDING] = np.int64(blocks_of[subtiles[state[FIRST] + place]])
            state[PLACE] = place + 1
        elif waits:
            state[STARVED] += 1
    state[HOLDING] = holding
    if end:
        state[IN_TILE] = 0
    return taken, skip, end

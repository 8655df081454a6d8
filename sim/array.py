"""Cycle model of :class:`splatforge.hw.array.Array`: which block is issued in which cycle."""

from functools import cache

import numba as nb
import numpy as np

from splatforge.designs.fetch import SUBTILES
from splatforge.sim import alpha, blend
from splatforge.sim.fetch import LEFT, NEVER, READY, REQUESTED, TAKEN, ask_splats, splat_ring

__all__ = ["DEAD_DELAY", "EMPTY_DELAY", "ISSUE", "LATENCY", "blend_tile", "block_tables"]

#: Registers between the choice of a block and the lanes.
ISSUE = 2
#: Cycles from the issue of a block until it is known that all its pixels have ended: registers, the
#: pipeline, the flag, the choice of the next block.
DEAD_DELAY = ISSUE + alpha.LATENCY + blend.DEAD_LATENCY + 2
#: Cycles from the end of a tile until it is offered for writing: registers, the pipeline, a count.
EMPTY_DELAY = ISSUE + alpha.LATENCY + blend.LATENCY + 1
#: Cycles from the issue of a tile's last block until its first pixels can leave.
LATENCY = EMPTY_DELAY + 4

# Places in the counts that :func:`blend_tile` adds to.
BUSY, STARVED, SKIPPED, STOPPED, DROPPED, COUNTS = range(6)


@cache
def block_tables(block_subtiles: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Blocks of every mask of subtiles, and how many blocks every mask of blocks has."""
    masks = np.arange(1 << SUBTILES)
    blocks_of = np.zeros(len(masks), np.uint16)
    for block, subtiles in enumerate(block_subtiles):
        blocks_of |= ((masks & subtiles) != 0).astype(np.uint16) << np.uint16(block)
    popcount = sum((masks >> bit & 1 for bit in range(SUBTILES)), np.zeros(len(masks), np.int64))
    return blocks_of, popcount


@nb.njit
def blend_tile(
    start, first, count, subtiles, ends, block_masks, blocks_of, position, advance,
    fetch, limits, memory, block_ends, dead_at, popcount, counts,
):
    """Blend one tile that the array took in cycle `start`.

    Parameters
    ----------
    start : int
        Cycle in which the tile is taken.
    first, count : int
        Its records.
    subtiles, ends : ndarray
        Of the workload; `ends` those of this tile.
    block_masks, blocks_of : ndarray
        Subtiles of each block, and blocks of each mask of subtiles, of shape [65536].
    position : int
        Place of the tile's first splat in the stream of requested splats.
    advance : int
        Cycle from which the buffer's output register may move on.

    Returns
    -------
    tuple of int
        Cycle in which the tile ends, position and advance for the next tile.
    """
    blocks = len(block_masks)
    dead, known, all_dead = 0, 0, NEVER
    next_dead = NEVER
    next_end = np.int64(count)
    for block in range(blocks):
        # A block ends with the last of its subtiles; outside of the frame it has ended already.
        end = -1
        for subtile in range(16):
            if (block_masks[block] >> subtile) & 1:
                end = max(end, ends[subtile])
        block_ends[block] = end
        dead_at[block] = NEVER
        if end < 0:
            dead |= 1 << block
            known += 1
        else:
            next_end = min(next_end, end)
    ring = splat_ring(limits[1]) - 1
    arrive = TAKEN + ring + 1
    free = start + 1
    requested = fetch[REQUESTED]
    issues, starved, skipped = np.int64(0), np.int64(0), np.int64(0)
    for place in range(count):
        while position >= requested:
            ask_splats(fetch, NEVER, limits, memory)
            requested = fetch[REQUESTED]
        moved = max(fetch[arrive + (position & ring)] + 1, advance)
        load = max(moved + 1, free)
        if all_dead <= load:
            # The rest of the list is dropped: what was asked for before, and nothing more.
            while fetch[LEFT] > 0 and ask_splats(fetch, all_dead, limits, memory):
                pass
            stop = position + count - place
            if fetch[LEFT] > 0:
                stop = fetch[REQUESTED]
                fetch[LEFT] = 0
                fetch[READY] = all_dead + 1
            fetch[TAKEN + (position & ring)] = min(moved + 1, all_dead + 1)
            for dropped in range(position + 1, stop):
                fetch[TAKEN + (dropped & ring)] = all_dead + 1
            counts[DROPPED] += stop - position
            counts[STOPPED] += 1
            if all_dead > free:
                starved += all_dead - free - (place > 0)
            counts[BUSY] += issues
            counts[STARVED] += starved
            counts[SKIPPED] += skipped
            return all_dead, stop, all_dead + 1
        fetch[TAKEN + (position & ring)] = moved + 1
        if load > free:
            # The record before, if any, was issued or passed over in the first of these cycles.
            starved += load - free - (place > 0)
        advance = load
        position += 1

        pending = np.int64(blocks_of[subtiles[first + place]])
        if place < next_end:
            # No block ends with this record. While none is marked as ended either, the record
            # costs a cycle for each of its blocks.
            live = pending & ~dead
            issued = popcount[live]
            if load + max(1, issued) < next_dead:
                issues += issued
                skipped += live == 0
                free = load + max(1, issued)
                continue
        cycle = load + 1
        while True:
            if cycle >= next_dead:
                next_dead = NEVER
                for block in range(blocks):
                    if dead_at[block] <= cycle:
                        dead |= 1 << block
                    else:
                        next_dead = min(next_dead, dead_at[block])
            live = pending & ~dead
            if live == 0:
                skipped += 1
                if pending != 0 and cycle == all_dead and place == count - 1:
                    # The tile ends in the middle of its last record, not with its list.
                    counts[STOPPED] += 1
                break
            issues += 1
            lowest = live & -live
            block = 0
            while lowest >> block != 1:
                block += 1
            if block_ends[block] == place:
                next_end = count
                for other in range(blocks):
                    if block_ends[other] > place:
                        next_end = min(next_end, block_ends[other])
                dead_at[block] = cycle + DEAD_DELAY
                next_dead = min(next_dead, dead_at[block])
                known += 1
                if known == blocks:
                    all_dead = 0
                    for other in range(blocks):
                        if block_ends[other] >= 0:
                            all_dead = max(all_dead, dead_at[other])
            pending = live ^ lowest
            if pending == 0:
                break
            cycle += 1
        free = cycle
    counts[BUSY] += issues
    counts[STARVED] += starved
    counts[SKIPPED] += skipped
    return free, position, advance

"""Cycle model of :class:`splatforge.hw.array.Array`: which block is issued in which cycle."""

import numba as nb

from splatforge.sim import alpha, blend
from splatforge.sim.fetch import LEFT, NEVER, READY, REQUESTED, ask_splats

__all__ = ["DEAD_DELAY", "EMPTY_DELAY", "LATENCY", "blend_tile"]

#: Cycles from the issue of a block until it is known that all its pixels have ended: a register,
#: the pipeline, the flag.
DEAD_DELAY = 1 + alpha.LATENCY + blend.DEAD_LATENCY + 1
#: Cycles from the end of a tile until it is offered for writing: a register, the pipeline, a count.
EMPTY_DELAY = 1 + alpha.LATENCY + blend.LATENCY + 1
#: Cycles from the issue of a tile's last block until its first pixels can leave.
LATENCY = EMPTY_DELAY + 2

# Places in the counts that :func:`blend_tile` adds to.
BUSY, STARVED, SKIPPED, STOPPED, DROPPED, COUNTS = range(6)


@nb.njit
def blend_tile(
    start, first, count, subtiles, ends, block_masks, position, advance,
    fetch, limits, memory, port, window, splat_window, taken, arrive, block_ends, dead_at, counts,
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
    block_masks : ndarray
        Subtiles of each block.
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
    free = start + 1
    busy = False
    for place in range(count):
        while position >= fetch[REQUESTED]:
            ask_splats(fetch, NEVER, limits, memory, port, window, splat_window, taken, arrive)
        moved = max(arrive[position] + 1, advance)
        load = max(moved + 1, free)
        if all_dead <= load:
            # The rest of the list is dropped: what was asked for before, and nothing more.
            while fetch[LEFT] > 0 and ask_splats(
                fetch, all_dead, limits, memory, port, window, splat_window, taken, arrive
            ):
                pass
            stop = position + count - place
            if fetch[LEFT] > 0:
                stop = fetch[REQUESTED]
                fetch[LEFT] = 0
                fetch[READY] = all_dead + 1
            taken[position] = min(moved + 1, all_dead + 1)
            for dropped in range(position + 1, stop):
                taken[dropped] = all_dead + 1
            counts[DROPPED] += stop - position
            counts[STOPPED] += 1
            if all_dead > free:
                counts[STARVED] += all_dead - free - busy
            return all_dead, stop, all_dead + 1
        taken[position] = moved + 1
        if load > free:
            counts[STARVED] += load - free - busy
        advance = load
        position += 1

        mask = subtiles[first + place]
        pending = 0
        for block in range(blocks):
            if mask & block_masks[block]:
                pending |= 1 << block
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
                counts[SKIPPED] += 1
                busy = False
                break
            counts[BUSY] += 1
            lowest = live & -live
            block = 0
            while lowest >> block != 1:
                block += 1
            if block_ends[block] == place:
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
                busy = True
                break
            cycle += 1
        free = cycle
        if free == all_dead and place == count - 1:
            counts[STOPPED] += 1
    return free, position, advance

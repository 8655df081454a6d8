"""The raster core behind a banked memory, cycle by cycle.

:mod:`splatforge.sim.raster` works out each event from those that it waits for, out of the order of
time; that needs a memory in which a later request cannot delay an earlier one. In a DRAM it can, so
here every unit takes one cycle at a time. Both models follow the same units and share their
latencies.
"""

import numba as nb
import numpy as np
import numpy.typing as npt

from splatforge.algos.compiled import source_digest
from splatforge.sim import alpha as alpha_model
from splatforge.sim import array as array_model
from splatforge.sim import blend as blend_model
from splatforge.sim import dram as dram_model
from splatforge.sim import fetch as fetch_model

__all__ = ["step_frame"]

# Places in the counts of a frame.
(CYCLES, BUSY, STARVED, SKIPPED, BLOCKED, SPLATS, AR_STALLED, BEATS, W_STALLED, DROPPED,
 STOPPED, HUNG, COUNTS) = range(13)
#: Cycles without any transfer behind which a frame is given up: a model that hangs is a bug.
IDLE_LIMIT = 1_000_000
DESCRIPTOR, TABLE, SPLAT = range(3)
WAIT, ANNOUNCE, ASK, END = range(4)
KINDS = 1024


def _compile_frame(digest: str):
    """Kernel of a whole frame, for the sources that `digest` stands for."""
    @nb.njit(cache=True)
    def kernel(
        starts, subtiles, ends, width, height, block_masks, blocks_of, limits, pixel_bytes,
        addresses, m, counts, tile_ends,
    ):
        digest  # noqa: B018 - a part of the key under which numba keeps this kernel
        burst_beats, depth, read_limit, write_limit = limits
        descriptor_address, table_address, splat_address, frame_address, pitch = addresses
        tiles = len(starts) - 1
        tiles_x = (width + 15) // 16
        table_beats = (tiles + 1) // 2
        blocks = len(block_masks)
        never = dram_model.NEVER
        outstanding_limit = m[dram_model.OUTSTANDING]
        num, den = m[dram_model.NUM], m[dram_model.DEN]
        kinds = np.zeros(KINDS, np.int64)
        kind_head = kind_tail = np.int64(0)

        # The bus address register, and what was asked for.
        ar_valid, ar_address, ar_beats, ar_kind = True, descriptor_address, np.int64(4), DESCRIPTOR
        fetch_start = never
        word = np.int64(0)
        table_asked = table_arrived = table_next = np.int64(0)
        state, tile_number, tile_taken = WAIT, np.int64(0), np.int64(0)
        index = left = np.int64(0)
        requested = taken = arrived = outstanding = np.int64(0)
        splat_valid = False
        tile_end = np.int64(0)
        # The queue of tiles and its output register: numbers of tiles.
        queued_first = queued_last = np.int64(0)
        offered, offer = False, np.int64(0)
        # The array.
        in_tile, holding = False, False
        tile, count, place, first = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
        pending, known = np.int64(0), np.int64(0)
        block_ends = np.zeros(blocks, np.int64)
        dead_at = np.zeros(blocks, np.int64)
        dead, next_dead, all_dead = np.int64(0), never, never
        emptied = np.full(tiles, never)
        # Handing over and writing.
        handed, ended = np.int64(0), np.int64(0)
        written = np.int64(-1)
        writing, started = False, np.int64(0)
        columns = rows = np.int64(0)
        aw_valid, aw_address, aw_beats = False, np.int64(0), np.int64(0)
        row_address = np.int64(0)
        address_rows = data_rows = granted = in_flight = np.int64(0)
        groups_left, loaded = np.int64(0), False
        stage_0 = stage_1 = stage_2 = False
        row_left = beat = np.int64(0)
        w_valid = False
        responses = np.int64(0)
        total = np.int64(0)
        for number in range(tiles):
            total += min(16, height - (number // tiles_x) * 16)
        quiet = np.int64(0)

        now = np.int64(1)
        while responses < total:
            moved = False
            # ---- The bus as it is before this edge.
            # Looked up here, since a call costs two atomic reference counts for every array.
            ar_ready = m[dram_model.R_COUNT] < outstanding_limit
            aw_ready = m[dram_model.W_COUNT] < outstanding_limit
            w_ready = w_valid and dram_model.may_write_beat(m)
            r_valid = m[dram_model.R_DUE] <= now
            b_head = m[dram_model.B_HEAD]
            b_valid = (b_head != m[dram_model.W_HEAD] and
                       m[dram_model.B_TIME + (b_head & (dram_model.BURSTS - 1))] <= now)

            # ---- Asking: the tile table first, then the splats of the current tile.
            ask_free = not ar_valid or ar_ready
            counts[AR_STALLED] += ar_valid and not ar_ready
            if ar_valid and ar_ready:
                moved = True
                dram_model.read(m, now, ar_address, ar_beats)
                kinds[kind_tail & (KINDS - 1)] = ar_kind
                kind_tail += 1
            running = now >= fetch_start
            table_ask = (running and ask_free and table_asked < table_beats
                         and table_asked - (table_next >> 1) <= burst_beats)

            # ---- The array: one block of the record it holds, or the next record, or the end.
            skip = False
            take_splat = False
            tile_ends_here = False
            if in_tile:
                if now >= next_dead:
                    next_dead = never
                    for block in range(blocks):
                        if dead_at[block] <= now:
                            dead |= np.int64(1) << block
                        else:
                            next_dead = min(next_dead, dead_at[block])
                waits = not holding
                if holding:
                    live = pending & ~dead
                    if live == 0:
                        counts[SKIPPED] += 1
                        if pending != 0 and now == all_dead and place == count:
                            counts[STOPPED] += 1
                        holding = False
                    else:
                        counts[BUSY] += 1
                        lowest = live & -live
                        block = 0
                        while lowest >> block != 1:
                            block += 1
                        if block_ends[block] == place - 1:
                            dead_at[block] = now + array_model.DEAD_DELAY
                            next_dead = min(next_dead, dead_at[block])
                            known += 1
                            if known == blocks:
                                all_dead = np.int64(0)
                                for other in range(blocks):
                                    if block_ends[other] >= 0:
                                        all_dead = max(all_dead, dead_at[other])
                        pending = live ^ lowest
                        holding = pending != 0
                if not holding:
                    if place == count:
                        tile_ends_here = True
                    elif all_dead <= now:
                        skip = tile_ends_here = True
                        counts[STOPPED] += 1
                    elif splat_valid:
                        take_splat = True
                    elif waits:
                        counts[STARVED] += 1

            # ---- Tiles: into the queue, into its output register, into the array.
            take_tile = False
            if offered and not in_tile:
                if tile_taken < 2 or emptied[tile_taken - 2] < now:
                    take_tile = True
                else:
                    counts[BLOCKED] += 1
            move_tile = queued_last > queued_first and (not offered or take_tile)
            push_tile = False
            skip_here = skip and tile_number + 1 == tile_taken
            splat_ask = False
            length = np.int64(0)
            next_state = state
            if running:
                if state == WAIT:
                    if table_arrived > table_next >> 1:
                        next_state = ANNOUNCE
                elif state == ANNOUNCE:
                    if queued_last - queued_first < fetch_model.TILE_QUEUE:
                        push_tile = True
                        next_state = ASK
                elif state == ASK:
                    length = min(left, burst_beats - (index & (burst_beats - 1)))
                    splat_ask = (ask_free and not table_ask and not skip_here and left > 0
                                 and requested - taken <= depth - burst_beats
                                 and outstanding < read_limit)
                    if skip_here or left == 0 or (splat_ask and left == length):
                        next_state = END if tile_number + 1 == tiles else WAIT

            # ---- Read data.
            came_table = came_splat = False
            if r_valid:
                moved = True
                kind = kinds[kind_head & (KINDS - 1)]
                last = dram_model.take_beat(m)
                kind_head += last
                if kind == DESCRIPTOR:
                    word += 1
                    if word == 4:
                        fetch_start = now + fetch_model.DESCRIPTOR_LATENCY
                elif kind == TABLE:
                    came_table = True
                else:
                    came_splat = True
                    counts[SPLATS] += 1
                    outstanding -= last

            # ---- Writing: addresses ahead, groups through three stages, beats.
            hand_over = (not writing and handed < ended and now > written
                         and now >= tile_ends[handed] + array_model.EMPTY_DELAY
                         and (handed == 0 or now > emptied[handed - 1]))
            if b_valid:
                moved = True
                m[dram_model.B_HEAD] += 1
                m[dram_model.W_COUNT] -= 1
                responses += 1
            aw_move = not aw_valid or aw_ready
            if aw_valid and aw_ready:
                moved = True
                dram_model.write(m, aw_address, aw_beats)
            begin = writing and aw_move and address_rows > 0 and in_flight < write_limit
            w_move = not w_valid or w_ready
            counts[W_STALLED] += w_valid and not w_ready
            if w_ready:
                moved = True
                counts[BEATS] += 1
                dram_model.write_beat(m, now)
            beat_begin = w_move and stage_2 and granted > 0
            group_end = row_end = False
            if beat_begin:
                pixels = min(4, row_left)
                group_end = beat + 1 == (pixels * pixel_bytes + 15) >> 4
                row_end = group_end and row_left <= 4
            shift = not stage_2 or group_end
            transfer = loaded and shift
            load = groups_left > 0 and now > started and (not loaded or transfer)

            # ---- The edge.
            granted += aw_valid and aw_ready
            if begin:
                aw_valid, aw_address = True, row_address
                aw_beats = (columns * pixel_bytes + 15) >> 4
                row_address += pitch
                address_rows -= 1
            elif aw_move:
                aw_valid = False
            in_flight += begin
            in_flight -= b_valid
            if w_move:
                w_valid = beat_begin
            if beat_begin:
                beat = 0 if group_end else beat + 1
                if group_end:
                    row_left -= 4
                if row_end:
                    row_left = columns
                    data_rows -= 1
                    granted -= 1
                    if data_rows == 0:
                        writing = False
                        written = now
            if shift:
                stage_2, stage_1, stage_0 = stage_1, stage_0, transfer
            if load:
                groups_left -= 1
                if groups_left == 0:
                    emptied[handed - 1] = now
            loaded = load or (loaded and not transfer)
            if hand_over:
                moved = writing = True
                started = now
                columns = min(16, width - (handed % tiles_x) * 16)
                rows = min(16, height - (handed // tiles_x) * 16)
                row_address = (frame_address + (handed // tiles_x) * 16 * pitch
                               + (handed % tiles_x) * 16 * pixel_bytes)
                address_rows = data_rows = rows
                row_left = columns
                groups_left = rows * ((columns + 3) // 4)
                handed += 1

            consumed = taken - splat_valid
            advance = not splat_valid or take_splat
            if take_tile:
                tile_end = consumed + starts[offer + 1] - starts[offer]
            if advance:
                splat_valid = arrived > taken
                taken += splat_valid
            if skip:
                stop_at = requested if skip_here else tile_end
                counts[DROPPED] += stop_at - consumed
                taken = stop_at
                splat_valid = False
            arrived += came_splat
            table_arrived += came_table

            if take_splat:
                pending = np.int64(blocks_of[subtiles[first + place]])
                place += 1
                holding = True
            if tile_ends_here:
                moved = True
                in_tile = False
                tile_ends[tile] = now
                ended += 1
            if take_tile:
                moved = in_tile = True
                holding = False
                tile = offer
                count = starts[tile + 1] - starts[tile]
                first = starts[tile]
                place = np.int64(0)
                dead = known = np.int64(0)
                next_dead = all_dead = never
                for block in range(blocks):
                    # A block ends with its last subtile; outside of the frame it has ended.
                    end = np.int64(-1)
                    for subtile in range(16):
                        if (block_masks[block] >> subtile) & 1:
                            end = max(end, ends[tile, subtile])
                    block_ends[block] = end
                    dead_at[block] = never
                    if end < 0:
                        dead |= np.int64(1) << block
                        known += 1
                tile_taken += 1
            if move_tile:
                offer = queued_first
                queued_first += 1
            offered = move_tile or (offered and not take_tile)
            if push_tile:
                index = starts[queued_last]
                left = starts[queued_last + 1] - starts[queued_last]
                queued_last += 1
                table_next += 1
            if state == ASK and next_state != ASK:
                tile_number += 1
            state = next_state

            if table_ask:
                ar_valid, ar_kind = True, TABLE
                ar_address = table_address + (table_asked << 4)
                ar_beats = min(burst_beats, table_beats - table_asked)
                table_asked += ar_beats
            elif splat_ask:
                ar_valid, ar_kind = True, SPLAT
                ar_address = splat_address + (index << 4)
                ar_beats = length
                requested += length
                index += length
                left -= length
                outstanding += 1
            elif ar_ready:
                ar_valid = False

            counts[CYCLES] = now
            quiet = 0 if moved else quiet + 1
            if quiet > IDLE_LIMIT:
                counts[HUNG] = 1
                return
            if (m[dram_model.R_NEXT] < m[dram_model.R_TAIL]
                    or m[dram_model.NEXT] * den <= (now + 1) * num):
                dram_model.advance(m, now)
            now += 1
        # Posted writes are still on their way into the array.
        while not dram_model.idle(m):
            dram_model.advance(m, now)
            now += 1
        m[dram_model.CLOCK] = now * num // den + 1

    return kernel


_frame_kernel = _compile_frame(source_digest(
    alpha_model, array_model, blend_model, dram_model, fetch_model))


def step_frame(
    starts: npt.NDArray[np.int64], subtiles: npt.NDArray, ends: npt.NDArray,
    size: tuple[int, int], block_masks: npt.NDArray[np.int64], blocks_of: npt.NDArray,
    limits: tuple[int, int, int, int], pixel_bytes: int, addresses: tuple[int, ...],
    memory: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Step one frame to its last write response, and the memory until it is idle.

    Parameters
    ----------
    starts, subtiles, ends : ndarray
        Of the workload.
    size : tuple of int
        Width and height in pixels.
    block_masks, blocks_of : ndarray
        Subtiles of each block, and blocks of each mask of subtiles.
    limits : tuple of int
        Beats of a read burst, splats of the buffer, read and write bursts in flight.
    pixel_bytes : int
        Of the framebuffer.
    addresses : tuple of int
        Descriptor, tile table, records, framebuffer, and the framebuffer's pitch.
    memory : ndarray
        From :func:`splatforge.sim.dram.new_banked`; changed in place.

    Returns
    -------
    counts : ndarray
        Of shape [COUNTS].
    tile_ends : ndarray
        Cycle in which the array ended each tile, of shape [tiles].

    Raises
    ------
    RuntimeError
        If nothing moves any more: an error in this model.
    """
    counts = np.zeros(COUNTS, np.int64)
    tile_ends = np.zeros(len(starts) - 1, np.int64)
    _frame_kernel(starts, subtiles, ends, *size, block_masks, blocks_of, limits, pixel_bytes,
                  addresses, memory, counts, tile_ends)
    if counts[HUNG]:
        raise RuntimeError(f"The model of the frame must move, it stands since cycle "
                           f"{counts[CYCLES] - IDLE_LIMIT}")
    return counts, tile_ends

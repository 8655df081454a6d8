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
from splatforge.sim import array_steps, resolve_steps, timeline
from splatforge.sim import blend as blend_model
from splatforge.sim import dram as dram_model
from splatforge.sim import fetch as fetch_model

__all__ = ["LOOKED", "step_frame"]

# Places in the counts of a frame.
(CYCLES, BUSY, STARVED, SKIPPED, BLOCKED, SPLATS, AR_STALLED, BEATS, W_STALLED, DROPPED,
 STOPPED, HUNG, COUNTS) = range(13)
#: What is looked at over the frame, in the order of the looks' columns.
LOOKED = ("array_busy", "array_starved", "array_skipped", "array_blocked", "fetch_busy",
          "fetch_stalled", "resolve_busy", "resolve_stalled")
#: Cycles without any transfer behind which a frame is given up: a model that hangs is a bug.
IDLE_LIMIT = 1_000_000
DESCRIPTOR, TABLE, SPLAT = range(3)
WAIT, SUM, ANNOUNCE, AIM, ASK, END = range(6)
KINDS = 1024


def _compile_frame(digest: str):
    """Kernel of a whole frame, for the sources that `digest` stands for."""
    # Without numba's runtime, which counts references to every array that a function is given. The
    # kernel allocates nothing.
    @nb.njit(cache=True, _nrt=False)  # pyright: ignore[reportCallIssue]
    def kernel(
        starts, subtiles, ends, width, height, block_masks, blocks_of, limits, pixel_bytes,
        addresses, array, resolve, m, counts, tile_ends, looks, kinds, emptied,
    ):
        digest  # noqa: B018 - a part of the key under which numba keeps this kernel
        burst_beats, depth, read_limit, _ = limits
        descriptor_address, table_address, splat_address, frame_address, pitch = addresses
        tiles = len(starts) - 1
        tiles_x = (width + 15) // 16
        table_beats = (tiles + 1) // 2
        never = dram_model.NEVER
        outstanding_limit = m[dram_model.OUTSTANDING]
        num, den = m[dram_model.NUM], m[dram_model.DEN]
        kind_head = kind_tail = np.int64(0)

        # The bus address register, and what was asked for.
        ar_valid, ar_address, ar_beats, ar_kind = True, descriptor_address, np.int64(4), DESCRIPTOR
        fetch_start = never
        word = np.int64(0)
        table_asked = table_arrived = table_arrived_before = np.int64(0)
        table_next = table_next_before = np.int64(0)
        state, tile_number, tile_taken = WAIT, np.int64(0), np.int64(0)
        index = left = np.int64(0)
        requested = taken = taken_before = arrived = outstanding = np.int64(0)
        splat_valid = False
        tile_end = np.int64(0)
        # The queue of tiles and its output register: numbers of tiles.
        queued_first = queued_last = np.int64(0)
        offered, offer = False, np.int64(0)
        # The array, handing over and writing.
        tile = np.int64(0)
        handed, ended = np.int64(0), np.int64(0)
        written = np.int64(-1)
        responses = np.int64(0)
        total = np.int64(0)
        for number in range(tiles):
            total += min(16, height - (number // tiles_x) * 16)
        quiet = np.int64(0)

        now = np.int64(1)
        while responses < total:
            moved = False
            # ---- The bus as it is before this edge.
            ar_ready = m[dram_model.R_COUNT] < outstanding_limit
            aw_ready = m[dram_model.W_COUNT] < outstanding_limit
            w_ready = resolve[resolve_steps.DATA_VALID] != 0 and dram_model.may_write_beat(m)
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
                         and table_asked - (table_next_before >> 1) <= burst_beats)

            # ---- The array: one block of the record it holds, or the next record, or the end.
            in_tile = array[array_steps.IN_TILE] != 0
            record = starts[tile] + array[array_steps.PLACE]
            no_more = record == starts[tile + 1]
            take_splat, skip, tile_ends_here = array_steps.step(
                array, now, splat_valid, 0, np.uint16(0) if no_more else subtiles[record], no_more,
                blocks_of)

            # ---- Tiles: into the queue, into its output register, into the array.
            take_tile = False
            if offered and not in_tile:
                if tile_taken < 2 or emptied[tile_taken - 2] < now:
                    take_tile = True
                else:
                    array[array_steps.BLOCKED] += 1
            move_tile = queued_last > queued_first and (not offered or take_tile)
            push_tile = False
            skip_here = skip and tile_number + 1 == tile_taken
            splat_ask = False
            length = np.int64(0)
            next_state = state
            if running:
                if state == WAIT:
                    if table_arrived_before > table_next >> 1:
                        next_state = SUM
                elif state == SUM:
                    next_state = ANNOUNCE
                elif state == ANNOUNCE:
                    if queued_last - queued_first < fetch_model.TILE_QUEUE:
                        push_tile = True
                        next_state = AIM
                elif state == AIM:
                    next_state = ASK
                elif state == ASK:
                    length = min(left, burst_beats - (index & (burst_beats - 1)))
                    splat_ask = (ask_free and not table_ask and not skip_here and left > 0
                                 and requested - taken_before <= depth - burst_beats
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

            # ---- Writing.
            writing = resolve[resolve_steps.WRITING] != 0
            hand_over = (not writing and handed < ended and now > written
                         and now >= tile_ends[handed] + array_model.EMPTY_DELAY
                         and (handed == 0 or now > emptied[handed - 1]))
            if b_valid:
                moved = True
                m[dram_model.B_HEAD] += 1
                m[dram_model.W_COUNT] -= 1
                responses += 1
            if resolve[resolve_steps.ADDRESS_VALID] and aw_ready:
                moved = True
                dram_model.write(m, resolve[resolve_steps.ADDRESS],
                                 resolve[resolve_steps.ADDRESS_BEATS])
            if w_ready:
                moved = True
                dram_model.write_beat(m, now)

            # ---- The edge.
            group_out, tile_out = resolve_steps.step(resolve, now, aw_ready, w_ready, b_valid)
            if group_out:
                emptied[handed - 1] = now
            if tile_out:
                written = now
            if hand_over:
                moved = True
                column, row = handed % tiles_x * 16, handed // tiles_x * 16
                resolve_steps.hand_over(
                    resolve, now, min(16, width - column), min(16, height - row),
                    frame_address + row * pitch + column * pixel_bytes)
                handed += 1

            taken_before, table_arrived_before = taken, table_arrived
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

            if tile_ends_here:
                moved = True
                tile_ends[tile] = now
                ended += 1
            if take_tile:
                moved = True
                tile = offer
                array_steps.take(array, ends[tile:tile + 1], block_masks)
                tile_taken += 1
            if move_tile:
                offer = queued_first
                queued_first += 1
            offered = move_tile or (offered and not take_tile)
            table_next_before = table_next
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
            if now >= looks[0, timeline.NEXT]:
                look = looks[0, timeline.ROW]
                looks[look, 0] = now
                looks[look, 1] = array[array_steps.BUSY]
                looks[look, 2] = array[array_steps.STARVED]
                looks[look, 3] = array[array_steps.SKIPPED]
                looks[look, 4] = array[array_steps.BLOCKED]
                looks[look, 5], looks[look, 6] = counts[SPLATS], counts[AR_STALLED]
                looks[look, 7] = resolve[resolve_steps.BEATS]
                looks[look, 8] = resolve[resolve_steps.STALLED]
                timeline.close(looks)
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
        for place, source in ((BUSY, array_steps.BUSY), (STARVED, array_steps.STARVED),
                              (SKIPPED, array_steps.SKIPPED), (STOPPED, array_steps.STOPPED),
                              (BLOCKED, array_steps.BLOCKED)):
            counts[place] = array[source]
        counts[BEATS] = resolve[resolve_steps.BEATS]
        counts[W_STALLED] = resolve[resolve_steps.STALLED]

    return kernel


_frame_kernel = _compile_frame(source_digest(
    alpha_model, array_model, array_steps, blend_model, dram_model, fetch_model, resolve_steps,
    timeline))


def step_frame(
    starts: npt.NDArray[np.int64], subtiles: npt.NDArray, ends: npt.NDArray,
    size: tuple[int, int], block_masks: npt.NDArray[np.int64], blocks_of: npt.NDArray,
    limits: tuple[int, int, int, int], pixel_bytes: int, addresses: tuple[int, ...],
    memory: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
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
    looks : ndarray
        At :data:`LOOKED`, as :func:`splatforge.sim.timeline.new_looks` says.

    Raises
    ------
    RuntimeError
        If nothing moves any more: an error in this model.
    """
    counts = np.zeros(COUNTS, np.int64)
    tile_ends = np.zeros(len(starts) - 1, np.int64)
    looks = timeline.new_looks(len(LOOKED))
    _frame_kernel(starts, subtiles, ends, *size, block_masks, blocks_of, limits, pixel_bytes,
                  addresses, array_steps.new_array(len(block_masks)),
                  resolve_steps.new_resolve(pixel_bytes, addresses[-1], limits[-1]), memory,
                  counts, tile_ends, looks, np.zeros(KINDS, np.int64),
                  np.full(len(starts) - 1, dram_model.NEVER))
    if counts[HUNG]:
        raise RuntimeError(f"The model of the frame must move, it stands since cycle "
                           f"{counts[CYCLES] - IDLE_LIMIT}")
    return counts, tile_ends, looks

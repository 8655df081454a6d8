"""Cycle model of GSCore: a workload and a memory in, cycles and counters out.

Every unit takes one cycle at a time, since in the second pass all of them wait for each other and
for one memory. What the units compute is not here: how many tiles a Gaussian walks, which of them
it meets, and what ends a tile comes from the bit-true model's workload; keys decide what goes
where.
"""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import Any

import numba as nb
import numpy as np

from splatforge.algos.compiled import source_digest
from splatforge.algos.gscore import GscoreWorkload, lay_out, workspace_pages
from splatforge.designs.ccu import CAMERA_BEATS
from splatforge.designs.feature import FEATURE_BYTES
from splatforge.designs.gscore import COUNTERS, WRITES_IN_FLIGHT, GscoreDesign
from splatforge.designs.memory import BankedMemory, Memory, MemoryTiming
from splatforge.designs.resolve import PixelFormat
from splatforge.designs.shell import DESCRIPTOR_BYTES
from splatforge.sim import (
    arbiter,
    array_steps,
    bsu,
    bus,
    ccu,
    dram,
    folded,
    list_reader,
    lists,
    qsu,
    resolve_steps,
    sorter,
    store,
    timeline,
    vru,
)
from splatforge.sim import array as array_model
from splatforge.sim.dram import count, logged_commands, logged_requests
from splatforge.sim.run import Run
from splatforge.sim.timeline import Windows

__all__ = ["simulate"]

# Counts of a frame that no unit keeps.
(CYCLES, PROJECTING, READ_STALLED, PARTITION, CHUNK, FEATURE, RECORD, LISTS_BUSY, LISTS_STALLED,
 BUCKETED, WRITTEN, HUNG, ANSWERED, COUNTS) = range(14)
#: What is looked at over the frame, in the order of the looks' columns.
LOOKED = ("ccu_busy", "ccu_stalled", "lists_busy", "lists_stalled", "qsu_busy", "qsu_stalled",
          "bsu_busy", "array_busy", "array_starved", "array_skipped", "array_blocked",
          "resolve_busy", "resolve_stalled", "read_beats", "read_stalled")
#: Cycles without any transfer behind which a frame is given up: a model that hangs is a bug.
IDLE_LIMIT = 1_000_000
#: Seconds from one look at a frame that is under way to the next.
WATCH_S = 0.2
# What a burst reads.
OF_DESCRIPTOR, OF_GAUSSIANS, OF_LIST, OF_CHUNK, OF_FEATURE = range(5)
#: Bursts that may be outstanding.
BURSTS = 1024
# Where the frame is.
CLEAR, PROJECT, FLUSH, SETTLE, TURN, RENDER = range(6)


def _compile_frame(digest: str):
    """Kernel of a whole frame, for the sources that `digest` stands for."""
    # Without numba's runtime, which counts references to every array that a function is given: two
    # atomic additions each, two thirds of the time. The kernel allocates nothing.
    @nb.njit(cache=True, nogil=True, _nrt=False)  # pyright: ignore[reportCallIssue]
    def kernel(
        m, banked, size, addresses, pixel_bytes, walked, entry_starts, entry_places, entry_tiles,
        entries, sorted_features, starts, subtiles, ends, block_masks, blocks_of, limits, of_ccu,
        of_store, of_lists, of_qsu, qsu_reader, of_bsu, bsu_reader, sorters, of_vru, of_array,
        of_resolve, reads, writes, words, counts, tile_ends, looks, kinds, emptied,
    ):
        digest  # noqa: B018 - a part of the key under which numba keeps this kernel
        lists_limits, qsu_limits, reader_limits, vru_limits, page_bytes = limits
        descriptor_address, workspace_address, frame_address, pitch = addresses
        width, height = size
        tiles_x = (width + 15) // 16
        tiles = len(starts) - 1
        page_beats = page_bytes // 16
        asked = served = np.int64(0)
        beat_of_burst = np.int64(0)
        at = np.int64(-1)
        describing = True
        begin = np.int64(1) << 60
        came = np.int64(0)
        second = False
        # Tiles on their way to the array, and the one at its door.
        queued_first = queued_last = tile_taken = np.int64(0)
        offered, offer = False, np.int64(0)
        tile = np.int64(0)
        handed = ended = np.int64(0)
        written = np.int64(-1)
        chunk_tile, chunk_place = np.int64(-1), np.int64(0)
        feature_asked = np.int64(0)
        total = responses = read_beats = np.int64(0)
        for number in range(tiles):
            total += min(16, height - number // tiles_x * 16)
        still = np.int64(0)
        # The cycle of the framebuffer's last response; from the second behind it on nothing more is
        # asked for, and counters stand behind the cycle in which all units are quiet.
        last_response, settled = np.int64(-1), np.int64(-1)
        quiet = False

        now = np.int64(1)
        while not quiet:
            moved = False
            stop = last_response >= 0 and now >= last_response + 2
            quiet = (stop and served == asked and reads[arbiter.VALID] == 0
                     and of_vru[vru.ADDRESS] == 0 and bsu_reader[list_reader.ADDRESS] == 0
                     and qsu_reader[list_reader.ADDRESS] == 0 and lists.idle(of_lists))
            if last_response >= 0 and settled < 0 and bus.idle(m, banked):
                settled = now
            # ---- The bus as it is before this edge.
            read_ready, write_ready = bus.may_read(m, banked), bus.may_write(m, banked)
            owner = arbiter.writes(writes)
            _, _, _, list_address, list_beat, _ = lists.offers(of_lists, lists_limits, stop)
            data_valid = (
                (owner == 0 and of_resolve[resolve_steps.DATA_VALID] != 0)
                or (owner == 1 and list_beat) or (owner == 2 and of_store[store.LEFT] > 0))
            data_taken = bus.may_write_beat(m, banked, now, data_valid)
            response = bus.respond(m, banked, now)
            answered = np.int64(-1)
            if response:
                answered = arbiter.answered(writes)
                counts[ANSWERED] = now
            if describing:
                if read_ready:
                    bus.read(m, banked, now, descriptor_address, 4)
                    kinds[asked % BURSTS, 0] = OF_DESCRIPTOR
                    asked += 1
                    describing = False
                else:
                    counts[READ_STALLED] += 1
            address_taken = reads[arbiter.VALID] != 0 and read_ready
            counts[READ_STALLED] += reads[arbiter.VALID] != 0 and not read_ready
            if address_taken:
                moved = True
                bus.read(m, banked, now, reads[arbiter.ADDRESS], reads[arbiter.BEATS])
                port = reads[arbiter.PORT]
                kind = OF_FEATURE if port == 0 else OF_CHUNK if port == 1 else (
                    OF_LIST if second else OF_GAUSSIANS)
                kinds[asked % BURSTS, 0] = kind
                kinds[asked % BURSTS, 1] = (reads[arbiter.ADDRESS] - workspace_address) // 16
                asked += 1
            if writes[arbiter.VALID] and write_ready:
                moved = True
                bus.write(m, banked, writes[arbiter.ADDRESS], writes[arbiter.BEATS])

            # ---- Read data.
            kind, place = np.int64(-1), np.int64(0)
            last = False
            got = bus.read_beat(m, banked, now)
            if got >= 0:
                moved = True
                read_beats += 1
                last = got == 1
                kind = kinds[served % BURSTS, 0]
                place = kinds[served % BURSTS, 1] + beat_of_burst
                beat_of_burst = 0 if last else beat_of_burst + 1
                served += last
                if kind == OF_DESCRIPTOR:
                    came += 1
                    if came == 4:
                        begin = now + 2
                elif kind == OF_LIST:
                    counts[PARTITION] += 1
                elif kind == OF_CHUNK:
                    counts[CHUNK] += 1
                elif kind == OF_FEATURE:
                    counts[FEATURE] += 1
            page, in_page = place // page_beats, place % page_beats
            link = words[page, 2 * in_page] if kind == OF_LIST or kind == OF_CHUNK else np.int64(0)

            if now >= begin:
                if at < 0:
                    at = CLEAR
                # ---- What the units show.
                _, feature_out, ccu_entry = ccu.offers(of_ccu)
                store_ready = store.ready(of_store)
                entry_ready, range_ready, query_ready, _, _, answer = lists.offers(
                    of_lists, lists_limits, stop)
                (tile_out, chunk_out, query_out, takes_answer, clears, flushes, qsu_entry, releases,
                 _) = qsu.offers(of_qsu)
                chunk_ready, bsu_entry = bsu.offers(of_bsu)
                vru_ready, splat = vru.offers(of_vru, vru_limits)
                oldest = of_vru[vru.OLDEST]
                lists_idle = lists.idle(of_lists)
                behind = bsu.behind(of_bsu, oldest) or vru.behind(of_vru, vru_limits)

                # ---- Whose bursts go on.
                third = (qsu_reader[list_reader.ADDRESS] != 0 if second
                         else of_ccu[ccu.ADDRESS_BEATS] != 0)
                port = arbiter.grant(
                    reads, read_ready, of_vru[vru.ADDRESS] != 0,
                    bsu_reader[list_reader.ADDRESS] != 0, third)
                burst_address, burst_beats = np.int64(0), np.int64(0)
                if port == 0:
                    burst_address = workspace_address + feature_asked * FEATURE_BYTES
                    burst_beats = FEATURE_BYTES // 16
                elif port == 1:
                    burst_address = (
                        workspace_address + bsu_reader[list_reader.ADDRESS_PAGE] * page_bytes)
                    burst_beats = bsu_reader[list_reader.ADDRESS_BEATS]
                elif port == 2 and second:
                    burst_address = (
                        workspace_address + qsu_reader[list_reader.ADDRESS_PAGE] * page_bytes)
                    burst_beats = qsu_reader[list_reader.ADDRESS_BEATS]
                elif port == 2:
                    burst_address = of_ccu[ccu.ADDRESS] * 16
                    burst_beats = of_ccu[ccu.ADDRESS_BEATS]
                write_port = arbiter.grant(
                    writes, write_ready, of_resolve[resolve_steps.ADDRESS_VALID] != 0,
                    list_address, of_store[store.ADDRESS_VALID] != 0)
                write_address, write_beats = np.int64(0), np.int64(1)
                if write_port == 0:
                    write_address = of_resolve[resolve_steps.ADDRESS]
                    write_beats = of_resolve[resolve_steps.ADDRESS_BEATS]
                elif write_port == 1:
                    in_ring = lists.beat(of_lists, lists_limits, True)
                    write_address = workspace_address + in_ring[0] * page_bytes + in_ring[1] * 16
                elif write_port == 2:
                    # Records go one behind the other; the last that was taken is on its way.
                    write_address = workspace_address + (
                        of_store[store.RECORDS] - 1) * FEATURE_BYTES
                    write_beats = FEATURE_BYTES // 16
                write_last = False
                if data_taken:
                    moved = True
                    bus.write_beat(m, banked, now)
                    if owner == 0:
                        write_last = of_resolve[resolve_steps.ROW_LAST] != 0
                    elif owner == 1:
                        counts[LISTS_BUSY] += 1
                        write_last = True
                        page_to, beat_to, low, high, half = lists.beat(
                            of_lists, lists_limits, False)
                        words[page_to, 2 * beat_to] = low
                        if not half:
                            words[page_to, 2 * beat_to + 1] = high
                    else:
                        counts[RECORD] += 1
                        write_last = of_store[store.LEFT] == 1

                # ---- The array, its tiles, and the framebuffer.
                in_tile = of_array[array_steps.IN_TILE] != 0
                record = starts[tile] + of_array[array_steps.PLACE]
                no_more = record == starts[tile + 1]
                take_splat, skip, tile_ends_here = array_steps.step(
                    of_array, now, splat >= 0, 0, np.uint16(0) if no_more else subtiles[record],
                    no_more, blocks_of)
                take_tile = False
                if offered and not in_tile:
                    if tile_taken < 2 or emptied[tile_taken - 2] < now:
                        take_tile = True
                    else:
                        of_array[array_steps.BLOCKED] += 1
                move_tile = queued_last > queued_first and (not offered or take_tile)
                writing = of_resolve[resolve_steps.WRITING] != 0
                hand_over = (not writing and handed < ended and now > written
                             and now >= tile_ends[handed] + array_model.EMPTY_DELAY
                             and (handed == 0 or now > emptied[handed - 1]))
                group_out, row_out = resolve_steps.step(
                    of_resolve, now, write_port == 0, data_taken and owner == 0, answered == 0)
                if group_out:
                    emptied[handed - 1] = now
                if row_out:
                    written = now
                if hand_over:
                    column, row = handed % tiles_x * 16, handed // tiles_x * 16
                    resolve_steps.hand_over(
                        of_resolve, now, min(16, width - column), min(16, height - row),
                        frame_address + row * pitch + column * pixel_bytes)
                    handed += 1
                responses += answered == 0
                counts[WRITTEN] = responses
                if tile_ends_here:
                    tile_ends[tile] = now
                    ended += 1
                if take_tile:
                    tile = offer
                    array_steps.take(of_array, ends[tile:tile + 1], block_masks)
                    tile_taken += 1
                if move_tile:
                    offer = queued_first
                    queued_first += 1
                offered = move_tile or (offered and not take_tile)
                queued_last += tile_out

                # ---- Features.
                misses, number = of_vru[vru.MISSES], of_vru[vru.TAG_FEATURE]
                entry_place = of_bsu[bsu.OUT_PLACE] if bsu_entry else np.int64(-1)
                vru.step(
                    of_vru, vru_limits, entry_place,
                    sorted_features[entry_place] if bsu_entry else np.int64(-1),
                    of_bsu[bsu.OUT_TILE], port == 0, kind == OF_FEATURE and last, take_splat,
                    tile if take_tile else np.int64(-1), skip)
                if of_vru[vru.MISSES] > misses:
                    feature_asked = number

                # ---- Chunks.
                chunk = (np.int64(0), np.int64(0), np.int64(0), np.int64(0))
                if chunk_out:
                    if of_qsu[qsu.TILE] != chunk_tile:
                        chunk_tile = of_qsu[qsu.TILE]
                        chunk_place = starts[chunk_tile]
                    chunk = (of_qsu[qsu.COUNT], of_qsu[qsu.PAGE], chunk_tile, chunk_place)
                    if chunk_ready:
                        chunk_place += of_qsu[qsu.COUNT]
                loaded = bsu.step(
                    of_bsu, bsu_reader, sorters, reader_limits, chunk, stop, oldest, port == 1,
                    (place if kind == OF_CHUNK else np.int64(-1), link, last), vru_ready)

                # ---- Lists, and what goes into them.
                list_number, entry = np.int64(-1), np.int64(0)
                if second:
                    if qsu_entry:
                        counts[BUCKETED] += entry_ready
                        list_number, entry = of_qsu[qsu.ENTRY_LIST], of_qsu[qsu.ENTRY]
                elif ccu_entry:
                    list_number = np.int64(entry_tiles[of_ccu[ccu.ENTRY] - 1])
                    entry = entries[of_ccu[ccu.ENTRY] - 1]
                counts[LISTS_STALLED] += list_number >= 0 and not entry_ready
                first_list, range_lists, flush = np.int64(-1), np.int64(0), np.int64(0)
                if second:
                    if clears or flushes:
                        first_list = of_qsu[qsu.FIRST]
                        range_lists = np.int64(1) << qsu_limits[1]
                        flush = np.int64(flushes)
                elif at == CLEAR or at == FLUSH:
                    first_list, range_lists, flush = np.int64(0), tiles, np.int64(at == FLUSH)
                query = of_qsu[qsu.AT] if query_out else np.int64(-1)
                known = (answer, of_lists[lists.ANSWER_PAGE], of_lists[lists.ANSWER_COUNT],
                         of_lists[lists.ANSWER_LOW], of_lists[lists.ANSWER_HIGH])
                lists.step(
                    of_lists, lists_limits, list_number, entry, first_list, range_lists, flush,
                    query, at == TURN, second and releases, stop, write_port == 1,
                    data_taken and owner == 1, takes_answer, answered == 1)
                pair = qsu_reader[list_reader.PAIR_PLACE]
                qsu.step(
                    of_qsu, qsu_reader, qsu_limits, reader_limits, at == TURN, stop, oldest, True,
                    chunk_ready, loaded, query_ready, known, second and range_ready,
                    second and entry_ready, lists_idle, port == 2 and second,
                    (place if kind == OF_LIST else np.int64(-1), link, last),
                    (words[pair // page_beats, 2 * (pair % page_beats)],
                     words[pair // page_beats, 2 * (pair % page_beats) + 1]), behind)

                # ---- The first pass.
                done = ccu.is_done(of_ccu)
                store_idle = of_store[store.IN_FLIGHT] == 0
                store.step(of_store, feature_out, write_port == 2, data_taken and owner == 2,
                           answered == 2)
                ccu.step(
                    of_ccu, walked, entry_starts, entry_places, stop, port == 2 and not second,
                    kind == OF_GAUSSIANS, last, store_ready, not second and entry_ready)

                # ---- From pass to pass.
                if at == CLEAR:
                    if range_ready:
                        at = PROJECT
                elif at == PROJECT:
                    if done:
                        at = FLUSH
                elif at == FLUSH:
                    if range_ready:
                        at = SETTLE
                elif at == SETTLE:
                    if lists_idle and store_idle:
                        at = TURN
                elif at == TURN:
                    at = RENDER
                    second = True
                    counts[PROJECTING] = now
                arbiter.step(reads, read_ready, port, burst_address, burst_beats, False, False)
                arbiter.step(writes, write_ready, write_port, write_address, write_beats,
                             write_last, response)

            if last_response < 0:
                counts[CYCLES] = now
                if responses == total:
                    last_response = now
            if now >= looks[0, timeline.NEXT]:
                look = looks[0, timeline.ROW]
                looks[look, 0] = now
                looks[look, 1], looks[look, 2] = of_ccu[ccu.BUSY], of_ccu[ccu.STALLED]
                looks[look, 3], looks[look, 4] = counts[LISTS_BUSY], counts[LISTS_STALLED]
                looks[look, 5], looks[look, 6] = of_qsu[qsu.BUSY], of_qsu[qsu.STALLED]
                looks[look, 7] = of_bsu[bsu.BUSY]
                looks[look, 8] = of_array[array_steps.BUSY]
                looks[look, 9] = of_array[array_steps.STARVED]
                looks[look, 10] = of_array[array_steps.SKIPPED]
                looks[look, 11] = of_array[array_steps.BLOCKED]
                looks[look, 12] = of_resolve[resolve_steps.BEATS]
                looks[look, 13] = of_resolve[resolve_steps.STALLED]
                looks[look, 14], looks[look, 15] = read_beats, counts[READ_STALLED]
                timeline.close(looks)
            still = 0 if moved else still + 1
            if still > IDLE_LIMIT:
                counts[HUNG] = 1
                return
            if settled < 0:
                bus.advance(m, banked, now)
            now += 1
        bus.settle(m, banked, now if settled < 0 else settled)

    return kernel


_frame_kernel = _compile_frame(source_digest(
    arbiter, array_model, array_steps, bsu, bus, ccu, dram, folded, list_reader, lists, qsu,
    resolve_steps, sorter, store, timeline, vru))


def _watch(arguments: tuple[Any, ...], tell: Callable[[], None]) -> None:
    """Run the kernel beside this thread, which can be interrupted, and tell how far it is."""
    done = Future[None]()

    def run() -> None:
        try:
            done.set_result(_frame_kernel(*arguments))
        except BaseException as error:
            done.set_exception(error)

    Thread(target=run, daemon=True).start()
    while True:
        try:
            return done.result(WATCH_S)
        except TimeoutError:
            tell()


def simulate(
    workload: GscoreWorkload,
    design: GscoreDesign,
    timing: Memory = MemoryTiming(),  # noqa: B008
    pixel_format: PixelFormat = PixelFormat.RGBA8,
    *,
    log: bool = False,
    progress: Callable[[float], None] | None = None,
) -> Run:
    """Step one frame to its last write response, and on until nothing is in flight.

    The counter of cycles stands still behind the framebuffer's last response, the others do not, as
    in hardware: of a tile that ends early, lists may still be on their way to memory, and
    :attr:`~splatforge.sim.run.Run.cycles` end with theirs.

    Parameters
    ----------
    workload : GscoreWorkload
        What happened, from :func:`splatforge.algos.gscore.render`.
    design : GscoreDesign
        Speeds, buffers, limits. The formats are the workload's.
    timing : MemoryTiming or BankedMemory
        The memory.
    pixel_format : PixelFormat
        Of the framebuffer.
    log : bool
        Whether to keep commands and requests of a banked memory.
    progress : callable, optional
        Called from time to time with the share of the frame that is done: half of it when all
        Gaussians are projected, the rest with its rows.

    Returns
    -------
    Run
        Cycles and counters.

    Raises
    ------
    RuntimeError
        If nothing moves any more: an error in this model.
    """
    array, first = workload.array, workload.ccu
    tiles = array.tiles
    pages = workspace_pages(design, array.gaussians, np.diff(array.starts))
    place = lay_out(
        design, array.width, array.gaussians, array.sh_degree, pages, pixel_format)
    # A command for each access, a few for each row, and refreshes.
    accesses = 8 * len(workload.entries) + 20 * array.gaussians + array.width * array.height
    room = 4 * accesses + 100_000 if log else 0
    m, banked = bus.new_bus(timing, commands=room, requests=room)
    lists_design = design.lists
    feature_pages = -(-array.gaussians * FEATURE_BYTES // lists_design.page_bytes)
    of_ccu = ccu.new_ccu(
        design.ccu, array.gaussians, array.sh_degree, camera_address=place.camera_address,
        scene_address=place.scene_address, shell=design.shell)
    of_store = store.new_store(FEATURE_BYTES // 16, design.outstanding_records)
    of_lists = lists.new_lists(lists_design, feature_pages, pages)
    of_qsu = qsu.new_qsu(design.qsu, lists_design, tiles)
    of_bsu = bsu.new_bsu(design.bsu)
    of_vru = vru.new_vru(design.vru)
    block_masks = np.array(design.array.block_subtiles(), np.int64)
    of_array = array_steps.new_array(len(block_masks))
    of_resolve = resolve_steps.new_resolve(
        pixel_format.size_bytes, place.pitch_bytes, design.resolve.outstanding_bursts)
    counts = np.zeros(COUNTS, np.int64)
    tile_ends = np.zeros(tiles, np.int64)
    looks = timeline.new_looks(len(LOOKED))
    blocks_of, _ = array_model.block_tables(design.array.block_subtiles())
    features = design.ccu.entry.decode(workload.entries)["feature"]
    rows = sum(min(16, array.height - tile // array.tiles_x * 16) for tile in range(tiles))
    arguments = (
        m, banked, (array.width, array.height),
        (place.descriptor_address, place.workspace_address, place.frame_address,
         place.pitch_bytes), pixel_format.size_bytes,
        first.walked, ccu.starts_of(first), first.places, first.tiles,
        first.entries.view(np.int64), features, array.starts, array.subtiles, array.ends,
        block_masks, blocks_of,
        (lists.limits_of(lists_design), qsu.limits_of(design.qsu, lists_design),
         list_reader.limits_of(lists_design),
         (design.vru.waiting, design.vru.outstanding_features, design.vru.cache_features),
         lists_design.page_bytes),
        of_ccu, of_store, of_lists, of_qsu, list_reader.new_list_reader(lists_design), of_bsu,
        list_reader.new_list_reader(lists_design), bsu.new_sorters(design.bsu), of_vru, of_array,
        of_resolve, arbiter.new_arbiter(), arbiter.new_arbiter(WRITES_IN_FLIGHT),
        np.zeros((pages + 1, lists_design.page_slots), np.int64), counts, tile_ends, looks,
        np.zeros((BURSTS, 2), np.int64), np.full(tiles, np.int64(1) << 60))
    if progress is None:
        _frame_kernel(*arguments)
    else:
        _watch(arguments, lambda: progress(
            of_ccu[ccu.PROJECTED] / max(1, array.gaussians) / 2 + counts[WRITTEN] / rows / 2))
    if counts[HUNG]:
        raise RuntimeError(f"The model of the frame must move, it stands since cycle "
                           f"{counts[CYCLES] - IDLE_LIMIT}")
    beat_bytes = design.shell.data_bytes
    half = beat_bytes // 2
    values = {
        "cycles": counts[CYCLES], "projecting": counts[PROJECTING],
        "ccu_busy": of_ccu[ccu.BUSY], "ccu_stalled": of_ccu[ccu.STALLED],
        "lists_busy": counts[LISTS_BUSY], "lists_stalled": counts[LISTS_STALLED],
        "qsu_busy": of_qsu[qsu.BUSY], "qsu_stalled": of_qsu[qsu.STALLED],
        "bsu_busy": of_bsu[bsu.BUSY],
        "array_busy": of_array[array_steps.BUSY], "array_starved": of_array[array_steps.STARVED],
        "array_skipped": of_array[array_steps.SKIPPED],
        "array_blocked": of_array[array_steps.BLOCKED],
        "resolve_busy": of_resolve[resolve_steps.BEATS],
        "resolve_stalled": of_resolve[resolve_steps.STALLED],
        "read_stalled": counts[READ_STALLED],
        "descriptor_bytes": DESCRIPTOR_BYTES + CAMERA_BEATS * beat_bytes,
        "gaussian_bytes": beat_bytes * of_ccu[ccu.BUSY],
        "partition_bytes": beat_bytes * counts[PARTITION],
        "chunk_bytes": beat_bytes * counts[CHUNK], "feature_bytes": beat_bytes * counts[FEATURE],
        "feature_written_bytes": beat_bytes * counts[RECORD],
        "list_written_bytes": (
            beat_bytes * of_lists[lists.TILE_BEATS] + half * of_lists[lists.TILE_HALVES]),
        "bucket_written_bytes": (
            beat_bytes * of_lists[lists.SLOT_BEATS] + half * of_lists[lists.SLOT_HALVES]),
        "pixel_bytes": array.width * array.height * pixel_format.size_bytes,
        "gaussians": of_ccu[ccu.PROJECTED], "visible": of_ccu[ccu.VISIBLE],
        "pairs": of_ccu[ccu.PAIRS], "partitions": of_qsu[qsu.PARTITIONS],
        "chunks_sorted": of_bsu[bsu.CHUNKS], "entries_sorted": of_bsu[bsu.ENTRIES],
        "feature_hits": of_vru[vru.HITS], "feature_misses": of_vru[vru.MISSES],
        "tiles": tiles, "tiles_stopped": of_array[array_steps.STOPPED],
    }
    run_counters = {name: int(values[name]) for name, _, _ in COUNTERS}
    read_beats = sum(run_counters[name] for name in design.read_counters) // beat_bytes
    return Run.of(
        design, run_counters, tile_ends, cycles=int(counts[ANSWERED]),
        windows=(Windows.of_looks(LOOKED, looks, {**run_counters, "read_beats": read_beats}),),
        actions={"rows_sorted": int(of_bsu[bsu.ROWS]), "bucket_entries": int(counts[BUCKETED])},
        dram=count(timing.dram, m) if isinstance(timing, BankedMemory) else None,
        commands=logged_commands(m) if log and banked else None,
        requests=logged_requests(m) if log and banked else None)

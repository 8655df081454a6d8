"""Cycle model of Lumina's LuminCore: a workload and a memory in, cycles and counters out.

Every unit takes one cycle at a time, since all of them wait for each other and for one memory. What
the units compute is not here: which splats are significant, what ends a pixel and what the cache
finds comes from the bit-true model's workload.
"""

from typing import Any

import numba as nb
import numpy as np

from splatforge.algos.compiled import source_digest
from splatforge.algos.lumina.render import LuminaInput, LuminaWorkload, lay_out
from splatforge.algos.nru import significant_fixed
from splatforge.designs.feature import FEATURE_BYTES
from splatforge.designs.fetch import TILE_PX
from splatforge.designs.lumina import COUNTERS, LuminaDesign
from splatforge.designs.memory import BankedMemory, Memory, MemoryTiming
from splatforge.designs.nru import RECORD_ID_BITS
from splatforge.designs.radiance import BURST_BEATS
from splatforge.designs.resolve import PixelFormat
from splatforge.designs.shell import DESCRIPTOR_BYTES
from splatforge.sim import (
    arbiter,
    bus,
    dram,
    nru,
    nru_unit,
    radiance,
    resolve_steps,
    tilelists,
    timeline,
    vru,
)
from splatforge.sim.dram import count, logged_commands, logged_requests
from splatforge.sim.run import Run
from splatforge.sim.timeline import Windows

__all__ = ["simulate"]

# Counts of a frame that no unit keeps.
(CYCLES, BYPASSED, FEATURE_BEATS, BANK_BEATS, LOCKSTEP, REMAPPED, STALLED, STARVED, HUNG,
 ENTRIES_TAKEN, ENTRIES_WAITED, SPLATS_TAKEN, SPLATS_WAITED, COUNTS) = range(14)
#: What is looked at over the frame, in the order of the looks' columns. Lists are busy in cycles in
#: which an entry leaves them, features when a splat does, the cache when it takes a look-up or a
#: pixel that was walked; they are stalled when one is there and is not taken.
LOOKED = ("issued", "stalled", "starved", "resolve_busy", "resolve_stalled", "read_beats",
          "tilelists_busy", "tilelists_stalled", "vru_busy", "vru_stalled", "radiance_busy",
          "radiance_stalled")
#: Cycles without any transfer behind which a frame is given up: a model that hangs is a bug.
IDLE_LIMIT = 1_000_000
# What a burst reads: of the units in the order of their ports.
OF_FEATURES, OF_LISTS, OF_BANKS, OF_DESCRIPTOR = range(4)
#: Bursts that may be outstanding.
BURSTS = 1024
#: Tiles that wait for the array behind the one at its door.
TILES_AHEAD = 7
_BURST_BYTES = 16 * BURST_BEATS


def _compile_frame(digest: str):
    """Kernel of a whole frame, for the sources that `digest` stands for."""
    # Without numba's runtime, which counts references to every array that a function is given. The
    # kernel allocates nothing.
    @nb.njit(cache=True, nogil=True, _nrt=False)  # pyright: ignore[reportCallIssue]
    def kernel(
        m, banked, addresses, tile_addresses, pitch, lists, ids, work, hit, sets, same, vru_limits,
        of_tilelists, of_vru, of_nru, of_radiance, of_resolve, reads, writes, counts, tile_ends,
        looks, burst_kinds,
    ):
        digest  # noqa: B018 - a part of the key under which numba keeps this kernel
        (descriptor_address, table_address, list_address, feature_address,
         cache_address) = addresses
        first_beat, tile_counts = lists
        tiles = len(tile_counts)
        asked = served = np.int64(0)
        describing = True
        begin = np.int64(1) << 60
        came = np.int64(0)
        # Tiles on their way to the array, and the one at its door.
        queued_first = queued_last = tile_taken = np.int64(0)
        offered, offer = False, np.int64(0)
        # Of bursts in the units' address registers.
        feature = list_burst = np.int64(0)
        loads = saves = read_beats = np.int64(0)
        handed = ended = np.int64(0)
        written = np.int64(-1)
        still = np.int64(0)
        # The cycle in which the frame is over; from the next on nothing more is asked for.
        over, settled, quiet = np.int64(-1), np.int64(-1), False

        now = np.int64(1)
        while not quiet:
            moved = False
            stop = bool(over >= 0 and now > over)
            # The counts of tiles follow a tile's end by two registers.
            if (over < 0 and handed == tiles and of_resolve[resolve_steps.WRITING] == 0
                    and now > written + 1 and resolve_steps.is_idle(of_resolve)
                    and radiance.offers(of_radiance)[6]):
                over = now
                counts[CYCLES] = now - 1
            quiet = (
                stop and served == asked and reads[arbiter.VALID] == 0
                and of_vru[vru.ADDRESS] == 0 and of_tilelists[tilelists.ADDRESS] == 0)
            if over >= 0 and settled < 0 and bus.idle(m, banked):
                settled = now
            # ---- The bus as it is before this edge.
            read_ready, write_ready = bus.may_read(m, banked), bus.may_write(m, banked)
            owner = arbiter.writes(writes)
            data_valid = (
                (owner == 0 and of_resolve[resolve_steps.DATA_VALID] != 0)
                or (owner == 1 and of_radiance[radiance.DATA] != 0))
            data_taken = bus.may_write_beat(m, banked, now, data_valid)
            response = bus.respond(m, banked, now)
            answered = arbiter.answered(writes) if response else np.int64(-1)
            if describing and read_ready:
                bus.read(m, banked, now, descriptor_address, 4)
                burst_kinds[asked % BURSTS] = OF_DESCRIPTOR
                asked += 1
                describing = False
            if reads[arbiter.VALID] and read_ready:
                moved = True
                bus.read(m, banked, now, reads[arbiter.ADDRESS], reads[arbiter.BEATS])
                burst_kinds[asked % BURSTS] = reads[arbiter.PORT]
                asked += 1
            if writes[arbiter.VALID] and write_ready:
                moved = True
                bus.write(m, banked, writes[arbiter.ADDRESS], writes[arbiter.BEATS])
            write_last = False
            if data_taken:
                moved = True
                bus.write_beat(m, banked, now)
                if owner == 0:
                    write_last = of_resolve[resolve_steps.ROW_LAST] != 0
                else:
                    write_last = of_radiance[radiance.DATA_LAST] != 0
            kind, last = np.int64(-1), False
            got = bus.read_beat(m, banked, now)
            if got >= 0:
                moved = True
                read_beats += 1
                last = got == 1
                kind = burst_kinds[served % BURSTS]
                served += last
                if kind == OF_DESCRIPTOR:
                    came += 1
                    if came == 4:
                        begin = now + 2
                counts[FEATURE_BEATS] += kind == OF_FEATURES
                counts[BANK_BEATS] += kind == OF_BANKS

            if now >= begin:
                # ---- What the units show.
                tile_out, entry, list_ask = tilelists.offers(of_tilelists)
                entry_ready, splat = vru.offers(of_vru, vru_limits)
                oldest = of_vru[vru.OLDEST]
                behind = vru.behind(of_vru, vru_limits)
                look_ready, walk_ready, answer, bank_ask, bank_write, _, _ = radiance.offers(
                    of_radiance)
                pixels_taken = data_taken and owner == 0
                group_ready = resolve_steps.takes(of_resolve, pixels_taken)
                tile_ready = of_resolve[resolve_steps.WRITING] == 0 and not stop
                shown = nru.offers(of_nru, walk_ready, group_ready)
                counts[BYPASSED] += shown.bypassed
                counts[LOCKSTEP] += shown.lockstep
                counts[REMAPPED] += shown.remapped
                counts[STALLED] += shown.stalled
                counts[STARVED] += shown.starved
                if entry >= 0:
                    counts[ENTRIES_TAKEN if entry_ready else ENTRIES_WAITED] += 1
                if splat >= 0:
                    counts[SPLATS_TAKEN if shown.splat_ready else SPLATS_WAITED] += 1

                # ---- Whose bursts go on.
                port = arbiter.grant(
                    reads, read_ready, of_vru[vru.ADDRESS] != 0, list_ask, bank_ask)
                address, beats = feature_address + feature * FEATURE_BYTES, np.int64(
                    FEATURE_BYTES // 16)
                if port == 1:
                    address, beats = list_burst, of_tilelists[tilelists.ADDRESS_BEATS]
                elif port == 2:
                    address, beats = cache_address + loads * _BURST_BYTES, np.int64(BURST_BEATS)
                    loads += 1
                write_port = arbiter.grant(
                    writes, write_ready, of_resolve[resolve_steps.ADDRESS_VALID] != 0, bank_write,
                    False)
                write_address = of_resolve[resolve_steps.ADDRESS]
                write_beats = of_resolve[resolve_steps.ADDRESS_BEATS]
                if write_port == 1:
                    write_address = cache_address + saves * _BURST_BYTES
                    write_beats = np.int64(BURST_BEATS)
                    saves += 1

                # ---- The array between features, cache and framebuffer.
                take_tile = offered and shown.tile_ready
                move_tile = queued_last > queued_first and (not offered or take_tile)
                queue_ready = queued_last - queued_first < TILES_AHEAD
                tile_now = of_nru.registers[nru.TILE]
                leaving = of_nru.registers[nru.LEAVING]
                found = answer >= 0 and hit[tile_now, answer]
                walked, walk_same = np.int64(-1), False
                if shown.walk == nru.LAST_PIXEL:
                    walked = 0
                elif shown.walk >= 0:
                    walked = sets[leaving, shown.walk]
                    walk_same = same[leaving, shown.walk]
                moved = (moved or shown.lockstep or shown.remapped or shown.group
                         or shown.walk >= 0)
                ending = of_nru.registers[nru.PHASE] == nru.END
                nru.step(of_nru, work, nru.Inputs(
                    bool(offered), bool(splat >= 0), look_ready, answer, found, walk_ready,
                    tile_ready, group_ready))
                if ending and of_nru.registers[nru.PHASE] != nru.END:
                    tile_ends[ended] = now
                    ended += 1
                radiance.step(
                    of_radiance, shown.lookup, walked, walk_same, shown.walk == nru.LAST_PIXEL,
                    port == 2, kind == OF_BANKS, last, write_port == 1,
                    data_taken and owner == 1, answered == 1)
                if resolve_steps.write(
                        of_resolve, write_port == 0, pixels_taken, answered == 0, shown.group):
                    written = now
                if shown.tile and tile_ready:
                    resolve_steps.hand_over(
                        of_resolve, now, work.columns[handed], work.rows[handed],
                        tile_addresses[handed])
                    handed += 1

                # ---- Features, then lists.
                misses, number = of_vru[vru.MISSES], of_vru[vru.TAG_FEATURE]
                place, wanted, entry_tile = np.int64(-1), np.int64(-1), np.int64(0)
                if entry >= 0:
                    entry_tile = of_tilelists[tilelists.ENTRY_TILE]
                    place = work.starts[entry_tile] + entry
                    wanted = ids[place]
                vru.step(
                    of_vru, vru_limits, place, wanted, entry_tile, port == 0,
                    kind == OF_FEATURES and last, shown.splat_ready,
                    offer if take_tile else np.int64(-1), shown.skip)
                if of_vru[vru.MISSES] > misses:
                    feature = number
                if take_tile:
                    tile_taken += 1
                if move_tile:
                    offer = queued_first
                    queued_first += 1
                offered = move_tile or (offered and not take_tile)
                queued_last += tile_out >= 0 and queue_ready
                begun = of_tilelists[tilelists.BEGUN]
                in_lists = of_tilelists[tilelists.LIST_INDEX]
                in_table = (of_tilelists[tilelists.TILES] + 1) // 2 - of_tilelists[
                    tilelists.TABLE_LEFT]
                tilelists.step(
                    of_tilelists, first_beat, tile_counts, oldest, behind, queue_ready,
                    entry_ready, port == 1, kind == OF_LISTS, kind == OF_LISTS and last, stop)
                if of_tilelists[tilelists.BEGUN] > begun:
                    list_burst = (list_address + 16 * in_lists
                                  if of_tilelists[tilelists.ADDRESS_LIST]
                                  else table_address + 16 * in_table)
                arbiter.step(reads, read_ready, port, address, beats, False, False)
                arbiter.step(
                    writes, write_ready, write_port, write_address, write_beats, write_last,
                    response)

            if now >= looks[0, timeline.NEXT]:
                look = looks[0, timeline.ROW]
                looks[look, 0] = now
                looks[look, 1] = counts[LOCKSTEP] + counts[REMAPPED]
                looks[look, 2], looks[look, 3] = counts[STALLED], counts[STARVED]
                looks[look, 4] = of_resolve[resolve_steps.BEATS]
                looks[look, 5] = of_resolve[resolve_steps.STALLED]
                looks[look, 6] = read_beats
                looks[look, 7], looks[look, 8] = counts[ENTRIES_TAKEN], counts[ENTRIES_WAITED]
                looks[look, 9], looks[look, 10] = counts[SPLATS_TAKEN], counts[SPLATS_WAITED]
                looks[look, 11] = of_radiance[radiance.LOOKUPS] + of_radiance[radiance.WALKED]
                looks[look, 12] = of_radiance[radiance.WAITED]
                timeline.close(looks)
            still = 0 if moved else still + 1
            if still > IDLE_LIMIT:
                counts[CYCLES] = now
                counts[HUNG] = 1
                return
            if settled < 0:
                bus.advance(m, banked, now)
            now += 1
        bus.settle(m, banked, now if settled < 0 else settled)

    return kernel


_frame_kernel = _compile_frame(source_digest(
    arbiter, bus, dram, nru, nru_unit, radiance, resolve_steps, tilelists, timeline, vru))


def _tile_addresses(
    workload: LuminaWorkload, frame_address: int, pitch_bytes: int, pixel_bytes: int
) -> np.ndarray:
    """Address of every tile's first pixel."""
    tiles_x = -(-workload.width // TILE_PX)
    x, y = workload.tiles % tiles_x, workload.tiles // tiles_x
    return frame_address + TILE_PX * (y * pitch_bytes + x * pixel_bytes)


def _cached(workload: LuminaWorkload) -> tuple[np.ndarray, np.ndarray]:
    """Set of every pixel's record, and whether it is the same as that of the one walked before."""
    if workload.visits is None:
        none = np.zeros(workload.nru.ends.shape, np.int64)
        return none, none.astype(bool)
    records = workload.nru.ids & ((1 << RECORD_ID_BITS) - 1)
    return (workload.visits.sets.astype(np.int64),
            radiance.walks(records, workload.nru.complete >= 0))


def simulate(
    frame: LuminaInput,
    workload: LuminaWorkload,
    design: LuminaDesign,
    timing: Memory = MemoryTiming(),  # noqa: B008
    pixel_format: PixelFormat = PixelFormat.RGBA8,
    *,
    log: bool = False,
) -> Run:
    """Step one frame until it is over, and on until nothing is in flight.

    The frame is over when its pixels and, with the cache, its banks are written.

    Parameters
    ----------
    frame : LuminaInput
        What is in memory; where it lies decides which bursts are cut.
    workload : LuminaWorkload
        What happened, from :func:`splatforge.algos.lumina.render.render`.
    design : LuminaDesign
        Speeds, buffers, limits. The formats are the workload's.
    timing : MemoryTiming or BankedMemory
        The memory.
    pixel_format : PixelFormat
        Of the framebuffer.
    log : bool
        Whether to keep commands and requests of a banked memory.

    Returns
    -------
    Run
        Cycles and counters.

    Raises
    ------
    RuntimeError
        If nothing moves any more: an error in this model.
    """
    width, height, tiles = workload.width, workload.height, workload.tiles
    place = lay_out(design, width, height, frame.gaussians, pixel_format)
    tile_counts = np.diff(workload.starts)
    # Lists begin at multiples of 16 beats of four ids.
    beats = -(-tile_counts // 64) * 16
    first_beat = np.cumsum(beats) - beats
    tiles_x = -(-width // TILE_PX)
    columns = np.minimum(TILE_PX, width - tiles % tiles_x * TILE_PX)
    rows = np.minimum(TILE_PX, height - tiles // tiles_x * TILE_PX)
    work = nru.work_of(
        design.nru, workload.nru, columns, rows, workload.starts,
        significant_fixed(design.nru, design.splat, workload.splats))
    sets, same = _cached(workload)
    accesses = (len(workload.ids) * 3 + 2 * len(workload.groups) * design.radiance.image_bytes // 16
                + width * height)
    room = 4 * accesses + 100_000 if log else 0
    m, banked = bus.new_bus(timing, commands=room, requests=room)
    of_tilelists = tilelists.new_tilelists(design.tilelists, width, height, int(beats.sum()))
    of_radiance = radiance.new_radiance(
        design.radiance, width, height, enable=design.caching, flush=frame.flush)
    of_resolve = resolve_steps.new_resolve(
        pixel_format.size_bytes, place.pitch_bytes, design.resolve.outstanding_bursts)
    counts = np.zeros(COUNTS, np.int64)
    tile_ends = np.zeros(len(tiles), np.int64)
    looks = timeline.new_looks(len(LOOKED))
    of_vru = vru.new_vru(design.vru)
    arguments: tuple[Any, ...] = (
        m, banked,
        (place.descriptor_address, place.table_address, place.list_address, place.feature_address,
         place.cache_address),
        _tile_addresses(workload, place.frame_address, place.pitch_bytes, pixel_format.size_bytes),
        place.pitch_bytes, (first_beat, tile_counts), workload.ids.astype(np.int64), work,
        workload.hit, sets, same,
        (design.vru.waiting, design.vru.outstanding_features, design.vru.cache_features),
        of_tilelists, of_vru,
        nru.new_nru(design.nru, design.caching, design.remapping), of_radiance, of_resolve,
        arbiter.new_arbiter(),
        arbiter.new_arbiter(
            design.resolve.outstanding_bursts + design.radiance.outstanding_bursts + 2),
        counts, tile_ends, looks, np.zeros(BURSTS, np.int64))
    _frame_kernel(*arguments)
    if counts[HUNG]:
        raise RuntimeError(f"The model of the frame must move, it stands since cycle "
                           f"{counts[CYCLES] - IDLE_LIMIT}")
    beat_bytes = design.shell.data_bytes
    values = {
        "cycles": counts[CYCLES], "lookups": of_radiance[radiance.LOOKUPS], "hits": workload.hits,
        "bypassed": counts[BYPASSED], "descriptor_bytes": DESCRIPTOR_BYTES,
        "table_bytes": beat_bytes * of_tilelists[tilelists.TABLE_BEATS],
        "list_bytes": beat_bytes * of_tilelists[tilelists.LIST_BEATS],
        "feature_bytes": beat_bytes * counts[FEATURE_BEATS],
        "cache_read_bytes": beat_bytes * counts[BANK_BEATS],
        "cache_written_bytes": beat_bytes * of_radiance[radiance.BEATS],
        "pixel_bytes": width * height * pixel_format.size_bytes,
    }
    run_counters = {name: int(values[name]) for name, _, _ in COUNTERS}
    last = {
        **run_counters, "issued": int(counts[LOCKSTEP] + counts[REMAPPED]),
        "stalled": int(counts[STALLED]), "starved": int(counts[STARVED]),
        "resolve_busy": int(of_resolve[resolve_steps.BEATS]),
        "resolve_stalled": int(of_resolve[resolve_steps.STALLED]),
        "tilelists_busy": int(counts[ENTRIES_TAKEN]),
        "tilelists_stalled": int(counts[ENTRIES_WAITED]),
        "vru_busy": int(counts[SPLATS_TAKEN]), "vru_stalled": int(counts[SPLATS_WAITED]),
        "radiance_busy": int(of_radiance[radiance.LOOKUPS] + of_radiance[radiance.WALKED]),
        "radiance_stalled": int(of_radiance[radiance.WAITED]),
        "read_beats": sum(run_counters[name] for name in design.read_counters) // beat_bytes}
    return Run.of(
        design, run_counters, tile_ends, windows=(Windows.of_looks(LOOKED, looks, last),),
        actions={
            **{name: int(counts[place]) for name, place in (
                ("lockstep", LOCKSTEP), ("remapped", REMAPPED), ("stalled", STALLED),
                ("starved", STARVED))},
            "issued": int(counts[LOCKSTEP] + counts[REMAPPED]),
            "tiles": len(tiles),
            "entries": int(of_vru[vru.HITS] + of_vru[vru.MISSES]),
            "feature_misses": int(of_vru[vru.MISSES])},
        dram=count(timing.dram, m) if isinstance(timing, BankedMemory) else None,
        commands=logged_commands(m) if log and banked else None,
        requests=logged_requests(m) if log and banked else None)

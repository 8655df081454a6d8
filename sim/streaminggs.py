"""Cycle model of StreamingGS: a workload and a memory in, cycles and counters out.

Every unit takes one cycle at a time, since all of them wait for each other and for one memory. What
the units compute is not here: which voxels a group meets, which Gaussians pass, in which order they
are blended and what ends a tile comes from the bit-true model's workload.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numba as nb
import numpy as np

from splatforge.algos.compiled import source_digest
from splatforge.algos.streaminggs.render import StreaminggsInput, StreaminggsWorkload, lay_out
from splatforge.designs.memory import BankedMemory, Memory, MemoryTiming
from splatforge.designs.resolve import PixelFormat
from splatforge.designs.shell import DESCRIPTOR_BYTES
from splatforge.designs.streaminggs import COUNTERS, StreaminggsDesign
from splatforge.designs.tokens import FineKind, SurvivorKind
from splatforge.designs.vsu import DIGITS
from splatforge.sim import (
    arbiter,
    array_steps,
    bus,
    cfu,
    dram,
    ffu,
    folded,
    resolve_steps,
    setup,
    sorter,
    timeline,
    vsort,
    vsu,
)
from splatforge.sim import array as array_model
from splatforge.sim.dram import count, logged_commands, logged_requests
from splatforge.sim.run import Run
from splatforge.sim.timeline import Windows

__all__ = ["busiest", "busy_cycles", "simulate"]

# Counts of a frame that no unit keeps.
CYCLES, SORTING, READ_STALLED, VOXEL_BEATS, COARSE_BEATS, SPLATS, HUNG, COUNTS = range(8)
#: What is looked at over the frame, in the order of the looks' columns.
LOOKED = ("vsu_busy", "vsu_stalled", "gaussians", "cfu_stalled", "gaussians_projected",
          "ffu_stalled", "vsort_busy", "array_busy", "array_starved", "array_skipped",
          "array_blocked", "resolve_busy", "resolve_stalled", "read_beats", "read_stalled")
#: Cycles without any transfer behind which a frame is given up: a model that hangs is a bug.
IDLE_LIMIT = 1_000_000
# What a burst reads.
OF_DESCRIPTOR, OF_VOXELS, OF_COARSE, OF_FINE = range(4)
#: Bursts that may be outstanding.
BURSTS = 1024
_GAUSSIAN, _VOXEL_END, _GROUP_END = (
    int(kind) for kind in (SurvivorKind.GAUSSIAN, SurvivorKind.VOXEL_END, SurvivorKind.GROUP_END))
_FEATURE, _FINE_VOXEL_END, _FINE_GROUP_END = (
    int(kind) for kind in (FineKind.FEATURE, FineKind.VOXEL_END, FineKind.GROUP_END))


def _compile_frame(digest: str):
    """Kernel of a whole frame, for the sources that `digest` stands for."""
    # Without numba's runtime, which counts references to every array that a function is given: two
    # atomic additions each, three quarters of the time. The kernel allocates nothing.
    @nb.njit(cache=True, nogil=True, _nrt=False)  # pyright: ignore[reportCallIssue]
    def kernel(
        m, banked, size, addresses, pixel_bytes, visible, rows, group_starts, visits, survivors,
        features, tiles, ends, block_masks, blocks_of, of_vsu, of_cfu, of_ffu, of_vsort, sorters,
        of_setup, of_array, of_resolve, reads, burst_kinds, emptied, counts, group_ends,
        looks,
    ):
        digest  # noqa: B018 - a part of the key under which numba keeps this kernel
        visit_groups, visit_prefixes, visit_addresses, visit_starts, passed, firsts, ranks = visits
        kinds, groups, places, kept, numbers = survivors
        met, splat_firsts, subtiles = features
        tile_numbers, tile_groups = tiles
        descriptor_address, frame_address, pitch = addresses
        width, height = size
        tiles_x = (width + 15) // 16
        asked = served = np.int64(0)
        describing = True
        begin = np.int64(1) << 60
        came = np.int64(0)
        announced = False
        # Groups that the array took, that ended, whose state is free again; tiles handed over, and
        # the cycle in which the last of them had left the array, the framebuffer's unit.
        taken = ended = np.int64(0)
        handed = np.int64(0)
        left = written = np.int64(-1)
        total = responses = read_beats = np.int64(0)
        for number in tile_numbers:
            total += min(16, height - number // tiles_x * 16)
        still = np.int64(0)
        # The cycle of the last response; from the second behind it on nothing more is asked for,
        # and the last cycle that is counted is that in which all units are quiet.
        last_response, settled, quiet = np.int64(-1), np.int64(-1), False

        now = np.int64(1)
        while not quiet:
            moved = False
            stop = last_response >= 0 and now >= last_response + 2
            quiet = (
                stop and served == asked and reads[arbiter.VALID] == 0 and vsu.is_idle(of_vsu)
                and cfu.is_idle(of_cfu) and ffu.is_idle(of_ffu))
            if last_response >= 0 and settled < 0 and bus.idle(m, banked):
                settled = now
            # ---- The bus as it is before this edge.
            read_ready, write_ready = bus.may_read(m, banked), bus.may_write(m, banked)
            data_taken = bus.may_write_beat(
                m, banked, now, of_resolve[resolve_steps.DATA_VALID] != 0)
            response = bus.respond(m, banked, now)
            if describing:
                if read_ready:
                    bus.read(m, banked, now, descriptor_address, 4)
                    burst_kinds[asked % BURSTS] = OF_DESCRIPTOR
                    asked += 1
                    describing = False
                else:
                    counts[READ_STALLED] += 1
            if reads[arbiter.VALID]:
                if read_ready:
                    moved = True
                    bus.read(m, banked, now, reads[arbiter.ADDRESS], reads[arbiter.BEATS])
                    burst_kinds[asked % BURSTS] = OF_FINE - reads[arbiter.PORT] % OF_FINE
                    asked += 1
                else:
                    counts[READ_STALLED] += 1
            if of_resolve[resolve_steps.ADDRESS_VALID] and write_ready:
                moved = True
                bus.write(m, banked, of_resolve[resolve_steps.ADDRESS],
                          of_resolve[resolve_steps.ADDRESS_BEATS])
            if data_taken:
                moved = True
                bus.write_beat(m, banked, now)
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
                counts[VOXEL_BEATS] += kind == OF_VOXELS
                counts[COARSE_BEATS] += kind == OF_COARSE

            if now >= begin:
                # ---- What the units show, from the framebuffer backward.
                oldest = of_setup[setup.OLDEST]
                in_group = of_array[array_steps.IN_TILE] != 0
                dead = array_steps.dead_tiles(of_array, now)
                _, _, part, no_more, place, tile = setup.offers(of_setup, dead, False, False)
                mask = np.uint16(0)
                if place >= 0:
                    # A feature's splats stand together, tile after tile.
                    at = splat_firsts[place]
                    for other in range(tile):
                        at += (met[place] >> other) & 1
                    mask = subtiles[at]
                take_splat, _, ends_here = array_steps.step(
                    of_array, now, place >= 0, tile, mask, no_more, blocks_of)
                counts[SPLATS] += take_splat
                take_group = False
                if part and not in_group:
                    if taken < 2 or emptied[taken - 2] < now:
                        take_group = True
                    else:
                        of_array[array_steps.BLOCKED] += 1
                group_ready, sorted_ready, _, _, _, _ = setup.offers(
                    of_setup, dead, take_splat, ends_here)
                fine_ready, sorted_out = vsort.offers(of_vsort)
                fine_beats, fine_out = ffu.offers(of_ffu)
                voxel_ready, coarse_beats, token = cfu.offers(of_cfu)
                voxel_beats, group_out, voxel_out = vsu.offers(of_vsu)
                others_behind = vsu.is_asking(of_vsu) and (
                    cfu.behind(of_cfu, visit_groups, oldest) or ffu.behind(of_ffu, groups, oldest)
                    or vsort.behind(of_vsort, oldest) or setup.behind(of_setup))
                if group_out and not announced:
                    announced = True
                    counts[SORTING] = now
                survivor = np.int64(-1)
                if token:
                    # Of a visit: the voxel, its Gaussians, its end; or the end of the group alone.
                    survivor = firsts[of_cfu[cfu.TOKEN_VISIT]]
                    if token - 1 == _GAUSSIAN:
                        survivor += 1 + ranks[of_cfu[cfu.TOKEN_GAUSSIAN]]
                    elif token - 1 == _VOXEL_END:
                        survivor = firsts[of_cfu[cfu.TOKEN_VISIT] + 1] - 1
                survivor_ready = survivor >= 0 and ffu.takes(of_ffu, kinds, places)
                visit = np.int64(-1)
                if voxel_out:
                    group = of_vsu[vsu.TOKEN]
                    visit = group + (group_starts[group + 1] if of_vsu[vsu.TOKEN_END]
                                     else of_vsu[vsu.TOKEN_AT])

                # ---- Whose bursts go on: those of codebooks behind all others.
                patient = ffu.is_patient(of_ffu)
                port = arbiter.grant(
                    reads, read_ready, fine_beats > 0 and not patient, coarse_beats > 0,
                    voxel_beats > 0, fine_beats > 0 and patient)
                address, beats = np.int64(0), np.int64(0)
                if port == 0 or port == 3:
                    address, beats = of_ffu[ffu.ADDRESS] * 16, fine_beats
                elif port == 1:
                    address, beats = of_cfu[cfu.ADDRESS] * 16, coarse_beats
                elif port == 2:
                    address, beats = of_vsu[vsu.ADDRESS] * 16, voxel_beats

                # ---- The framebuffer.
                hand_over = (
                    of_resolve[resolve_steps.WRITING] == 0 and handed < len(tile_groups)
                    and tile_groups[handed] < ended and now > written and now > left
                    and now >= group_ends[tile_groups[handed]] + array_model.EMPTY_DELAY)
                tile_out, row_out = resolve_steps.step(
                    of_resolve, now, write_ready, data_taken, response)
                if tile_out:
                    left = now
                    of = tile_groups[handed - 1]
                    if handed == len(tile_groups) or tile_groups[handed] != of:
                        emptied[of] = now
                if row_out:
                    written = now
                if hand_over:
                    column = tile_numbers[handed] % tiles_x * 16
                    row = tile_numbers[handed] // tiles_x * 16
                    resolve_steps.hand_over(
                        of_resolve, now, min(16, width - column), min(16, height - row),
                        frame_address + row * pitch + column * pixel_bytes)
                    handed += 1
                responses += response

                # ---- The edge: splats, features in order, features, survivors, voxels.
                if ends_here:
                    group_ends[ended] = now
                    ended += 1
                if take_group:
                    array_steps.take(of_array, ends[taken], block_masks)
                    taken += 1
                tag, is_end, number, tiles_met = np.int64(-1), False, np.int64(0), np.int64(0)
                if sorted_out:
                    tag, is_end = of_vsort[vsort.OUT_TAG], of_vsort[vsort.OUT_END] != 0
                    if not is_end:
                        number = of_vsort[vsort.OUT_PLACE]
                        tiles_met = met[number]
                setup.step(of_setup, group_out, tag, is_end, number, tiles_met, take_group,
                           take_splat, dead, ends_here)
                fine_kind, fine_tag, fine_number = np.int64(-1), np.int64(0), np.int64(0)
                if fine_out >= 0:
                    fine_tag, fine_number = groups[fine_out], numbers[fine_out]
                    fine_kind = (
                        _FEATURE if kinds[fine_out] == _GAUSSIAN
                        else _FINE_VOXEL_END if kinds[fine_out] == _VOXEL_END
                        else _FINE_GROUP_END)
                vsort.step(of_vsort, sorters, oldest, fine_kind, fine_tag, fine_number,
                           sorted_ready)
                ffu.step(of_ffu, kinds, groups, places, kept, survivor, oldest, stop,
                         port == 0 or port == 3, kind == OF_FINE, last, fine_ready)
                cfu.step(of_cfu, visit_groups, visit_prefixes, visit_addresses, visit_starts,
                         passed, visit, stop, port == 1, kind == OF_COARSE, last, oldest,
                         survivor_ready)
                vsu.step(of_vsu, visible, rows, stop, port == 2, kind == OF_VOXELS, last, oldest,
                         others_behind, group_ready, voxel_ready)
                arbiter.step(reads, read_ready, port, address, beats, False, False)

            if last_response < 0:
                counts[CYCLES] = now
                if responses == total:
                    last_response = now
            if now >= looks[0, timeline.NEXT]:
                look = looks[0, timeline.ROW]
                looks[look, 0] = now
                looks[look, 1], looks[look, 2] = of_vsu[vsu.BUSY], of_vsu[vsu.STALLED]
                looks[look, 3], looks[look, 4] = of_cfu[cfu.GIVEN], of_cfu[cfu.STALLED]
                looks[look, 5], looks[look, 6] = of_ffu[ffu.PROJECTED], of_ffu[ffu.STALLED]
                looks[look, 7] = of_vsort[vsort.BUSY]
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
    arbiter, array_model, array_steps, bus, cfu, dram, ffu, folded, resolve_steps, setup, sorter,
    timeline, vsort, vsu))


def busy_cycles(design: StreaminggsDesign, counters: Mapping[str, int]) -> dict[str, int]:
    """Cycles that every unit needed for what it did in a frame, had nothing made it wait.

    The frame cannot take less than the busiest. Of a unit that works on several things in turn this
    is the sum, of one that works on them at once the largest.

    Parameters
    ----------
    design : StreaminggsDesign
        Speeds.
    counters : Mapping
        Performance counters by name, of the hardware or of :func:`simulate`.

    Returns
    -------
    dict
        Of the voxel sorting unit the table, a record every ``interval`` cycles, the passes of the
        sort and the rows of the scan; of the coarse filters the Gaussians, or the voxels where
        these take longer; of the fine filter a Gaussian every ``interval`` cycles; of the sorters
        cycles in which any of them makes a pass; of the setup a splat a cycle; of the array blocks
        that are issued and splats passed over; of the writer beats of pixels; of the bus beats
        that are read.
    """
    beats = sum(counters[name] for name in design.read_counters) // design.shell.data_bytes
    return {
        "vsu": (design.vsu.interval * counters["voxels"] + DIGITS * counters["voxels_visible"]
                + counters["vsu_busy"]),
        "cfu": max(-(-counters["gaussians"] // design.cfu.units),
                   design.cfu.interval * counters["voxels_loaded"] if design.cfu.filters else 0),
        "ffu": design.ffu.interval * counters["gaussians_projected"],
        "vsort": counters["vsort_busy"], "setup": counters["splats"],
        "array": counters["array_busy"] + counters["array_skipped"],
        "resolve": counters["resolve_busy"], "bus": beats,
    }


def busiest(design: StreaminggsDesign, counters: Mapping[str, int]) -> dict[str, Any]:
    """The unit that was busy for longest, see :func:`busy_cycles`, and how much longer it all took.

    Returns
    -------
    dict
        ``name``, ``busy_cycles``, and ``ratio`` of the counters' cycles to these.
    """
    name, busy = max(busy_cycles(design, counters).items(), key=lambda item: item[1])
    return {"name": name, "busy_cycles": busy, "ratio": counters["cycles"] / busy}


def _survivors(
    workload: StreaminggsWorkload, group_of: np.ndarray
) -> tuple[tuple[np.ndarray, ...], np.ndarray, np.ndarray]:
    """Tokens between the filters as if no group ended early; those of visits, ranks of Gaussians.

    Of a voxel the voxel itself, the Gaussians that pass, its end; of the end of a group that alone.
    """
    visits = workload.visits
    is_end = np.diff(workload.cfu.starts) == 0
    passed = np.bincount(workload.visit, minlength=len(is_end))
    firsts = np.concatenate([[0], np.cumsum(np.where(is_end, 1, 2 + passed))]).astype(np.int64)
    rank = np.arange(len(workload.visit)) - (np.cumsum(passed) - passed)[workload.visit]
    ranks = np.zeros(int(workload.cfu.starts[-1]), np.int64)
    ranks[workload.cfu.starts[workload.visit] + workload.number] = rank
    kinds = np.full(firsts[-1], _GAUSSIAN, np.int64)
    kinds[firsts[:-1]] = np.where(is_end, _GROUP_END, int(SurvivorKind.VOXEL))
    kinds[firsts[1:][~is_end] - 1] = _VOXEL_END
    gaussians = firsts[workload.visit] + 1 + rank
    places, kept = np.zeros(len(kinds), np.int64), kinds >= _VOXEL_END
    # The fine half begins with the beat behind the coarse one.
    places[gaussians] = (
        visits.addresses + (visits.counts + 1) // 2)[workload.visit] + workload.number
    kept[gaussians] = workload.kept
    numbers = np.cumsum(kept & (kinds == _GAUSSIAN)) - 1
    groups = np.repeat(group_of, np.diff(firsts))
    return (kinds, groups, places, kept, numbers), firsts, ranks


def _features(workload: StreaminggsWorkload, side: int) -> tuple[np.ndarray, ...]:
    """Of every feature in order the tiles that it meets, and its splats' subtiles together."""
    spans = workload.spans[workload.order]
    met = np.zeros(len(spans), np.int64)
    for tile in range(side * side):
        x, y = tile % side, tile // side
        inside = ((spans[:, 0] <= x) & (x <= spans[:, 2]) & (spans[:, 1] <= y)
                  & (y <= spans[:, 3]))
        met |= inside.astype(np.int64) << tile
    # Tiles of a group ascend with their numbers in the frame: row after row.
    by_feature = np.argsort(workload.splat_places, kind="stable")
    splats = np.bincount(workload.splat_places, minlength=len(spans))
    return met, np.cumsum(splats) - splats, workload.array.subtiles[by_feature]


def _tiles(workload: StreaminggsWorkload, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tiles as they leave the array, the group of each, and of each group its tiles' ends."""
    array, columns = workload.array, workload.vsu.columns
    tile = np.arange(array.tiles)
    x, y = tile % array.tiles_x, tile // array.tiles_x
    group = y // side * columns + x // side
    order = np.lexsort((x, y, group))
    ends = np.full((columns * workload.vsu.rows, side * side, array.ends.shape[1]), -1, np.int32)
    ends[group, y % side * side + x % side] = array.ends
    return order.astype(np.int64), group[order].astype(np.int64), ends


# Many hardware points ask for the same workload one after another.
@lru_cache(maxsize=2)
def _prepared(workload: StreaminggsWorkload, side: int, voxels: int) -> tuple[Any, ...]:
    """What the kernel reads of a workload, whatever the hardware: it writes to none of it.

    Which voxels of the table are visible, group of every visit, tokens between the filters,
    features, tiles.
    """
    group_of = np.repeat(np.arange(workload.vsu.columns * workload.vsu.rows),
                         np.diff(workload.vsu.starts) + 1)
    visible = np.zeros(voxels, bool)
    visible[workload.vsu.ids] = True
    return (visible, group_of, _survivors(workload, group_of), _features(workload, side),
            _tiles(workload, side))


def simulate(
    frame: StreaminggsInput,
    workload: StreaminggsWorkload,
    design: StreaminggsDesign,
    timing: Memory = MemoryTiming(),  # noqa: B008
    pixel_format: PixelFormat = PixelFormat.RGBA8,
    *,
    load_codebooks: bool = True,
    log: bool = False,
) -> Run:
    """Step one frame to its last write response, and on until nothing is in flight.

    What arrives behind the last response is counted, as in hardware, but for its cycles.

    Parameters
    ----------
    frame : StreaminggsInput
        What is in memory; where it lies decides which bursts are cut.
    workload : StreaminggsWorkload
        What happened, from :func:`splatforge.algos.streaminggs.render.render`.
    design : StreaminggsDesign
        Speeds, buffers, limits. The formats are the workload's.
    timing : MemoryTiming or BankedMemory
        The memory.
    pixel_format : PixelFormat
        Of the framebuffer.
    load_codebooks : bool
        Whether the frame loads its codebooks, or finds those of an earlier one on chip.
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
    array, side = workload.array, design.array.side
    place = lay_out(frame, pixel_format)
    groups = workload.vsu.columns * workload.vsu.rows
    accesses = (len(frame.stored.table) + len(frame.stored.codebook_beats) + len(workload.kept)
                + len(workload.cfu.passed) + array.width * array.height)
    room = 4 * accesses + 100_000 if log else 0
    m, banked = bus.new_bus(timing, commands=room, requests=room)
    visible, group_of, (survivors, firsts, ranks), features, (tiles, tile_groups, ends) = _prepared(
        workload, side, len(frame.stored.table))
    of_vsu = vsu.new_vsu(
        design.vsu, len(frame.stored.table), groups, camera_address=place.camera_address,
        voxel_address=place.voxel_address, shell=design.shell)
    of_cfu = cfu.new_cfu(design.cfu, design.shell, scene_address=place.scene_address)
    of_ffu = ffu.new_ffu(
        design.ffu, load=load_codebooks, codebook_address=place.codebook_address,
        scene_address=place.scene_address, sh_degree=frame.stored.sh_degree, shell=design.shell)
    of_vsort, of_setup = vsort.new_vsort(design.vsort), setup.new_setup()
    block_masks = np.array(design.array.block_subtiles(), np.int64)
    of_array = array_steps.new_array(len(block_masks), side * side)
    of_resolve = resolve_steps.new_resolve(
        pixel_format.size_bytes, place.pitch_bytes, design.resolve.outstanding_bursts)
    blocks_of, _ = array_model.block_tables(design.array.block_subtiles())
    counts = np.zeros(COUNTS, np.int64)
    group_ends = np.zeros(groups, np.int64)
    looks = timeline.new_looks(len(LOOKED))
    visits = workload.visits
    arguments: tuple[Any, ...] = (
        m, banked, (array.width, array.height),
        (place.descriptor_address, place.frame_address, place.pitch_bytes),
        pixel_format.size_bytes, visible, vsu.rows_of(design.vsu, workload.vsu),
        workload.vsu.starts.astype(np.int64),
        (group_of, visits.prefixes, visits.addresses, workload.cfu.starts, workload.cfu.passed,
         firsts, ranks),
        survivors, features, (tiles, tile_groups), ends, block_masks, blocks_of,
        of_vsu, of_cfu, of_ffu, of_vsort, vsort.new_sorters(design.vsort), of_setup, of_array,
        of_resolve, arbiter.new_arbiter(), np.zeros(BURSTS, np.int64),
        np.full(groups, np.int64(1) << 60), counts, group_ends, looks)
    _frame_kernel(*arguments)
    if counts[HUNG]:
        raise RuntimeError(f"The model of the frame must move, it stands since cycle "
                           f"{counts[CYCLES] - IDLE_LIMIT}")
    beat_bytes = design.shell.data_bytes
    values = {
        "cycles": counts[CYCLES], "sorting": counts[SORTING],
        "vsu_busy": of_vsu[vsu.BUSY], "vsu_stalled": of_vsu[vsu.STALLED],
        "cfu_stalled": of_cfu[cfu.STALLED], "ffu_stalled": of_ffu[ffu.STALLED],
        "vsort_busy": of_vsort[vsort.BUSY],
        "array_busy": of_array[array_steps.BUSY], "array_starved": of_array[array_steps.STARVED],
        "array_skipped": of_array[array_steps.SKIPPED],
        "array_blocked": of_array[array_steps.BLOCKED],
        "resolve_busy": of_resolve[resolve_steps.BEATS],
        "resolve_stalled": of_resolve[resolve_steps.STALLED],
        "read_stalled": counts[READ_STALLED], "descriptor_bytes": DESCRIPTOR_BYTES,
        "voxel_bytes": beat_bytes * counts[VOXEL_BEATS],
        "codebook_bytes": beat_bytes * of_ffu[ffu.CODED],
        "coarse_bytes": beat_bytes * counts[COARSE_BEATS],
        "fine_bytes": beat_bytes * of_ffu[ffu.BUSY],
        "pixel_bytes": array.width * array.height * pixel_format.size_bytes,
        "voxels": of_vsu[vsu.STREAMED], "voxels_visible": of_vsu[vsu.VISIBLE],
        "voxels_loaded": of_vsu[vsu.HITS],
        "gaussians": of_cfu[cfu.GIVEN], "gaussians_passed": of_cfu[cfu.PASSED],
        "gaussians_projected": of_ffu[ffu.PROJECTED], "gaussians_kept": of_ffu[ffu.KEPT],
        "voxels_sorted": of_vsort[vsort.SORTED], "splats": counts[SPLATS],
        "groups": groups, "groups_stopped": of_array[array_steps.STOPPED],
    }
    run_counters = {name: int(values[name]) for name, _, _ in COUNTERS}
    read_beats = sum(run_counters[name] for name in design.read_counters) // beat_bytes
    return Run.of(
        design, run_counters, group_ends,
        windows=(Windows.of_looks(LOOKED, looks, {**run_counters, "read_beats": read_beats}),),
        actions={"rows_sorted": int(of_vsort[vsort.ROWS]), "sh_degree": frame.stored.sh_degree},
        dram=count(timing.dram, m) if isinstance(timing, BankedMemory) else None,
        commands=logged_commands(m) if log and banked else None,
        requests=logged_requests(m) if log and banked else None)

"""Cycle model of the raster core: a workload and a memory in, cycles and counters out.

The model follows the same events as the hardware, one at a time, and works out each one's cycle
from the events that it waits for; nothing is stepped, nothing is fitted. It reads the workload of
the bit-true model and never the hardware.
"""

from dataclasses import replace

import numba as nb
import numpy as np

from splatforge.algos.array import Workload
from splatforge.algos.compiled import source_digest
from splatforge.algos.fetch import lay_out
from splatforge.designs.memory import BankedMemory, Memory, MemoryTiming
from splatforge.designs.raster import COUNTERS, RasterDesign
from splatforge.designs.resolve import PixelFormat
from splatforge.designs.shell import DESCRIPTOR_BYTES
from splatforge.sim import alpha as alpha_model
from splatforge.sim import array as array_model
from splatforge.sim import blend as blend_model
from splatforge.sim import fetch as fetch_model
from splatforge.sim import memory as memory_model
from splatforge.sim import raster_banked
from splatforge.sim import resolve as resolve_model
from splatforge.sim.dram import (
    count,
    logged_commands,
    logged_requests,
    new_banked,
)
from splatforge.sim.memory import RESPONSE, memory_constants, new_port
from splatforge.sim.run import Run
from splatforge.sim.timeline import Windows

__all__ = ["simulate"]

#: What is looked at when a unit is done with a tile: counters by unit, in the order of the columns
#: behind the cycle. That of the fetch unit is when the tile's last splat has arrived.
_LOOKED = (("fetch_busy", "fetch_stalled"),
           ("array_busy", "array_starved", "array_skipped", "array_blocked"),
           ("resolve_busy", "resolve_stalled"))


def _compile_frame(digest: str):
    """Kernel of a whole frame, for the sources that `digest` stands for."""
    @nb.njit(cache=True)
    def kernel(
        starts, subtiles, ends, width, height, block_masks, limits, pixel_bytes, memory,
        write_port, fetch, resolve, blocks_of, popcount, counts, tile_ends, looks,
    ):
        digest  # noqa: B018 - a part of the key under which numba keeps this kernel
        tiles = len(starts) - 1
        tiles_x = (width + 15) // 16
        table_beats = (tiles + 1) // 2
        write_ends = np.zeros(16 * tiles, np.int64)
        block_ends = np.zeros(len(block_masks), np.int64)
        dead_at = np.zeros(len(block_masks), np.int64)
        announced = np.zeros(tiles, np.int64)
        queued = np.zeros(tiles, np.int64)
        begun = np.zeros(tiles, np.int64)
        emptied = np.zeros(tiles, np.int64)

        fetch_model.start(fetch, limits, table_beats, memory)
        position = np.int64(0)
        advance = np.int64(0)
        end = np.int64(-1)
        written = np.int64(-1)
        blocked = np.int64(0)
        for tile in range(tiles):
            count = starts[tile + 1] - starts[tile]
            room = np.int64(0)
            if tile >= fetch_model.TILE_QUEUE:
                room = queued[tile - fetch_model.TILE_QUEUE] + 1
            announced[tile] = fetch_model.announce(
                fetch, count, starts[tile], room, limits, table_beats, memory)
            queued[tile] = announced[tile] + 1
            if tile:
                queued[tile] = max(queued[tile], begun[tile - 1])
            ready = max(queued[tile] + 1, end + 1)
            begun[tile] = ready
            if tile >= 2:
                begun[tile] = max(ready, emptied[tile - 2] + 1)
                blocked += begun[tile] - ready
            end, position, advance = array_model.blend_tile(
                begun[tile], starts[tile], count, subtiles, ends[tile], block_masks, blocks_of,
                position, advance, fetch, limits, memory, block_ends, dead_at, popcount, counts)
            tile_ends[tile] = end
            hand_over = end + array_model.EMPTY_DELAY
            if tile:
                hand_over = max(hand_over, max(emptied[tile - 1], written) + 1)
            columns = min(16, width - (tile % tiles_x) * 16)
            rows = min(16, height - (tile // tiles_x) * 16)
            emptied[tile], written = resolve_model.write_tile(
                hand_over, columns, rows, pixel_bytes, limits[3], memory, write_port, write_ends,
                resolve)
            looks[tile, 0] = fetch_model.last_arrival(fetch)
            looks[tile, 1] = fetch[fetch_model.REQUESTED]
            looks[tile, 2] = fetch[fetch_model.STALLED]
            looks[tile, 3] = end
            looks[tile, 4] = counts[array_model.BUSY]
            looks[tile, 5] = counts[array_model.STARVED]
            looks[tile, 6] = counts[array_model.SKIPPED]
            looks[tile, 7] = blocked
            looks[tile, 8] = written
            looks[tile, 9] = resolve[resolve_model.BEATS]
            looks[tile, 10] = resolve[resolve_model.STALLED]
        return blocked

    return kernel


_frame_kernel = _compile_frame(source_digest(
    alpha_model, array_model, blend_model, fetch_model, memory_model, resolve_model))


def simulate(
    workload: Workload,
    design: RasterDesign,
    timing: Memory = MemoryTiming(),  # noqa: B008
    pixel_format: PixelFormat = PixelFormat.RGBA8,
    *,
    log: bool = False,
) -> Run:
    """Work out the cycles of one frame.

    Parameters
    ----------
    workload : Workload
        What happened, from :func:`splatforge.algos.raster.render`.
    design : RasterDesign
        Lanes, buffers, limits. The formats are the workload's.
    timing : MemoryTiming or BankedMemory
        The memory.
    pixel_format : PixelFormat
        Of the framebuffer.
    log : bool
        Whether to keep commands and requests of a banked memory.

    Returns
    -------
    Run
        Cycles and counters. Against the RTL: see the frame matrix; the error is a handful of
        cycles.
    """
    limits = (design.fetch.burst_beats, design.fetch.buffer_splats,
              design.fetch.outstanding_bursts, design.resolve.outstanding_bursts)
    if isinstance(timing, BankedMemory):
        return _simulate_banked(workload, design, timing, pixel_format, limits, log)
    tiles = workload.tiles
    counts = np.zeros(array_model.COUNTS, np.int64)
    tile_ends = np.zeros(tiles, np.int64)
    looks = np.zeros((tiles, len(_LOOKED) + sum(map(len, _LOOKED))), np.int64)
    write_port = new_port()
    fetch = fetch_model.new_fetch(design.fetch.buffer_splats)
    resolve = resolve_model.new_resolve()
    blocked = _frame_kernel(
        workload.starts, workload.subtiles, workload.ends, workload.width, workload.height,
        np.array(design.array.block_subtiles(), np.int64), limits, pixel_format.size_bytes,
        memory_constants(timing), write_port, fetch, resolve,
        *array_model.block_tables(design.array.block_subtiles()), counts, tile_ends, looks,
    )
    run = _run(
        design, tiles, tile_ends, cycles=write_port[RESPONSE],
        busy=counts[array_model.BUSY], starved=counts[array_model.STARVED],
        skipped=counts[array_model.SKIPPED], blocked=int(blocked),
        splats=fetch[fetch_model.REQUESTED], fetch_stalled=fetch[fetch_model.STALLED],
        beats=resolve[resolve_model.BEATS], resolve_stalled=resolve[resolve_model.STALLED],
        dropped=counts[array_model.DROPPED], stopped=counts[array_model.STOPPED],
        pixel_bytes=workload.width * workload.height * pixel_format.size_bytes)
    windows, column = list[Windows](), 0
    for names in _LOOKED:
        behind = column + 1 + len(names)
        windows.append(Windows.of(
            names, looks[:, column], looks[:, column + 1:behind], run.counters))
        column = behind
    return replace(run, windows=tuple(windows))


def _run(design: RasterDesign, tiles: int, tile_ends: np.ndarray, **seen: int) -> Run:
    """A run from what was counted."""
    beat_bytes = design.shell.data_bytes
    values = {
        "cycles": seen["cycles"],
        "array_busy": seen["busy"],
        "array_starved": seen["starved"],
        "array_skipped": seen["skipped"],
        "array_blocked": seen["blocked"],
        "fetch_busy": seen["splats"],
        "fetch_stalled": seen["fetch_stalled"],
        "resolve_busy": seen["beats"],
        "resolve_stalled": seen["resolve_stalled"],
        "descriptor_bytes": DESCRIPTOR_BYTES,
        "table_bytes": beat_bytes * ((tiles + 1) // 2),
        "splat_bytes": beat_bytes * seen["splats"],
        "overfetch_bytes": beat_bytes * seen["dropped"],
        "pixel_bytes": seen["pixel_bytes"],
        "tiles": tiles,
        "tiles_stopped": seen["stopped"],
    }
    return Run.of(design, {name: int(values[name]) for name, _, _ in COUNTERS}, tile_ends)


def _simulate_banked(
    workload: Workload, design: RasterDesign, memory: BankedMemory, pixel_format: PixelFormat,
    limits: tuple[int, int, int, int], log: bool,
) -> Run:
    place = lay_out(workload.width, workload.height, int(workload.starts[-1]), pixel_format)
    # A command for each access, a few for each row, and refreshes: three an access are plenty.
    accesses = 2 * int(workload.starts[-1]) + workload.width * workload.height
    room = 4 * accesses + 100_000 if log else 0
    state = new_banked(memory, commands=room, requests=room)
    blocks_of, _ = array_model.block_tables(design.array.block_subtiles())
    counts, tile_ends, looks = raster_banked.step_frame(
        workload.starts, workload.subtiles, workload.ends, (workload.width, workload.height),
        np.array(design.array.block_subtiles(), np.int64), blocks_of, limits,
        pixel_format.size_bytes,
        (place.descriptor_address, place.table_address, place.splat_address, place.frame_address,
         place.pitch_bytes), state)
    run = _run(
        design, workload.tiles, tile_ends, cycles=counts[raster_banked.CYCLES],
        busy=counts[raster_banked.BUSY], starved=counts[raster_banked.STARVED],
        skipped=counts[raster_banked.SKIPPED], blocked=counts[raster_banked.BLOCKED],
        splats=counts[raster_banked.SPLATS], fetch_stalled=counts[raster_banked.AR_STALLED],
        beats=counts[raster_banked.BEATS], resolve_stalled=counts[raster_banked.W_STALLED],
        dropped=counts[raster_banked.DROPPED], stopped=counts[raster_banked.STOPPED],
        pixel_bytes=workload.width * workload.height * pixel_format.size_bytes)
    return replace(
        run, dram=count(memory.dram, state),
        windows=(Windows.of_looks(raster_banked.LOOKED, looks, run.counters),),
        commands=logged_commands(state) if log else None,
        requests=logged_requests(state) if log else None)

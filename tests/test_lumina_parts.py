"""The array of Lumina and its cache, wired as they stand in the accelerator."""

import sys
from collections import deque
from pathlib import Path

import numpy as np
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from splatforge.algos.lumina.render import cached_state
from splatforge.algos.lumina.sharing import group_order
from splatforge.algos.nru import SPLAT_FIELDS, nru_fixed
from splatforge.algos.radiance import Banks, Outcome, radiance_fixed
from splatforge.algos.resolve import resolve_fixed
from splatforge.designs.fetch import TILE_PX
from splatforge.designs.resolve import PixelFormat
from splatforge.hw.array import PIXELS_PER_GROUP
from splatforge.hw.nru import Nru
from splatforge.hw.radiance import Radiance
from splatforge.verification.lib.runner import TESTED_LUMINA
from splatforge.verification.lib.tiles import BACKGROUND, Tiles

sys.path.insert(0, str(Path(__file__).parent))
import streams

DESIGN = TESTED_LUMINA
NRU, RADIANCE = DESIGN.nru, DESIGN.radiance
BASE = 0x4_0000_0000
#: Splats of tiles in four groups of up to four; a frame of 3 x 3 tiles for the cache.
COUNTS = (40, 5, 30, 16, 70, 1, 33, 48, 0)
WIDTH = HEIGHT = 3 * TILE_PX


class Caching(wiring.Component):
    """Array and cache: splats in, pixels out, banks in memory."""

    def __init__(self):
        self.nru = Nru(NRU, DESIGN.splat, RADIANCE.record_ids, DESIGN.resolve)
        self.radiance = Radiance(RADIANCE, DESIGN.shell)
        nru, radiance = self.nru.signature.members, self.radiance.signature.members
        super().__init__({
            **{name: nru[name] for name in ("i_tile", "i_splat", "o_tile", "o", "skip")},
            **{name: radiance[name] for name in (
                "o_address", "i_beat", "o_write_address", "o_write_data", "i_response", "done",
                "idle")},
            "start": In(1), "flush": In(1), "remapping": In(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.nru, m.submodules.radiance = nru, radiance = self.nru, self.radiance
        for name in ("i_tile", "i_splat", "o_tile", "o"):
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(nru, name))
        for name in ("o_address", "i_beat", "o_write_address", "o_write_data"):
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(radiance, name))
        wiring.connect(m, nru.o_lookup, radiance.i_lookup)
        wiring.connect(m, radiance.o_answer, nru.i_answer)
        wiring.connect(m, nru.o_walk, radiance.i_walk)
        m.d.comb += [
            self.skip.eq(nru.skip), nru.caching.eq(1), nru.remapping.eq(self.remapping),
            *(nru.background[c].eq(BACKGROUND[c]) for c in range(3)),
            radiance.enable.eq(1), radiance.start.eq(self.start), radiance.flush.eq(self.flush),
            radiance.width.eq(WIDTH), radiance.height.eq(HEIGHT), radiance.cache_address.eq(BASE),
            radiance.i_response.eq(self.i_response), self.done.eq(radiance.done),
            self.idle.eq(radiance.idle)]
        return m


def blended(tiles, ids):
    """State and records of the pixels of every tile, those outside of it left as they are."""
    return [nru_fixed(
        NRU, DESIGN.splat, RADIANCE.record_ids, columns, rows, np.array([0]), np.array([0]),
        np.array([0, last - first]), ids[first:last], tiles.splats[first:last])
        for (columns, rows), first, last in
        zip(tiles.size, tiles.starts[:-1], tiles.starts[1:], strict=True)]


class Frame:
    """Tiles with the ids of a frame, and what must come of them and of the banks."""

    def __init__(self, tiles, ids, banks):
        frames = blended(tiles, ids)
        state = np.concatenate([one.state for one in frames])
        complete = np.concatenate([one.complete for one in frames]) >= 0
        records = np.concatenate([one.ids for one in frames])
        final = resolve_fixed(
            NRU.blend, DESIGN.resolve, state, BACKGROUND, PixelFormat.RGBA8)[..., :3]
        _, starts = group_order(WIDTH, HEIGHT, RADIANCE.group_tiles)
        self.visits, self.banks = radiance_fixed(RADIANCE, banks, starts, records, complete, final)
        out = np.where(
            self.visits.hit[..., None], cached_state(NRU.blend, self.visits.colors), state)
        self.complete = complete
        self.groups = []
        for tile, (columns, rows) in enumerate(tiles.size):
            for y in range(rows):
                row = out[tile, TILE_PX * y:TILE_PX * y + columns].tolist()
                self.groups += [[tuple(pixel) for pixel in row[first:first + PIXELS_PER_GROUP]]
                                for first in range(0, columns, PIXELS_PER_GROUP)]


async def play(ctx, dut, tiles, ids, memory, flush, remapping):
    """A frame; returns the groups of pixels that came."""
    tile_layout, splat_layout = dut.i_tile.payload.shape(), dut.i_splat.payload.shape()
    sent, taken, place = 0, -1, 0
    beats, words, bursts, responses, groups = deque(), deque(), deque(), deque(), []
    for name, value in (("start", 1), ("flush", flush), ("remapping", remapping)):
        ctx.set(getattr(dut, name), value)
    for port in (dut.o, dut.o_tile, dut.o_address, dut.o_write_address, dut.o_write_data):
        ctx.set(port.ready, 1)
    await ctx.tick()
    ctx.set(dut.start, 0)
    for cycle in range(20_000):
        ctx.set(dut.i_tile.valid, sent < len(COUNTS))
        if sent < len(COUNTS):
            columns, rows = tiles.size[sent]
            ctx.set(dut.i_tile.payload, tile_layout.const(
                {"columns": columns, "rows": rows, "splats": COUNTS[sent]}))
        more = taken >= 0 and bool(place < tiles.starts[taken + 1])
        ctx.set(dut.i_splat.valid, more)
        if more:
            ctx.set(dut.i_splat.payload, splat_layout.const({
                "splat": dict(zip(SPLAT_FIELDS, tiles.splats[place].tolist(), strict=True)),
                "id": int(ids[place])}))
        due = bool(beats) and beats[0][0] <= cycle
        ctx.set(dut.i_beat.valid, due)
        if due:
            _, word, last = beats.popleft()
            ctx.set(dut.i_beat.payload, {"id": 2, "data": word, "last": last})
        response = bool(responses) and responses[0] <= cycle
        if response:
            responses.popleft()
        ctx.set(dut.i_response, response)
        (_, _, tile_taken, splat_taken, skip, valid, group, address_valid, address, write_valid,
         write, data_valid, data, done) = await ctx.tick().sample(
            dut.i_tile.ready, dut.i_splat.ready, dut.skip, dut.o.valid, dut.o.payload,
            dut.o_address.valid, dut.o_address.payload, dut.o_write_address.valid,
            dut.o_write_address.payload, dut.o_write_data.valid, dut.o_write_data.payload,
            dut.done)
        if sent < len(COUNTS) and tile_taken:
            taken, place, sent = sent, tiles.starts[sent], sent + 1
        elif more and splat_taken:
            place += 1
        if skip:
            place = tiles.starts[taken + 1]
        if valid:
            groups.append([(*pixel.color, pixel.transmittance) for pixel in group])
        if address_valid:
            beats.extend((cycle + 9, memory[address.address + 16 * n], n == 15)
                         for n in range(16))
        if write_valid:
            bursts.append(write.address)
        if data_valid:
            words.append(data.data)
        while bursts and len(words) >= 16:
            first = bursts.popleft()
            memory.update((first + 16 * n, words.popleft()) for n in range(16))
            responses.append(cycle + 5)
        if done:
            return groups
    raise AssertionError("not done")


def test_array_and_cache():
    """Two frames, the second with some other Gaussians, banks through memory; passes or none."""
    dut = Caching()
    bench, memory = streams.Bench(dut), {}
    tiles = Tiles(DESIGN, 3, COUNTS, False)
    rng = np.random.default_rng(4)
    # Few Gaussians: records of different tiles are the same, lists are not.
    ids = tiles.ids & 3
    other = np.where(rng.random(len(ids)) < 0.1, ids + 8, ids).astype(np.int32)
    banks, hits = Banks.empty(RADIANCE, 4), []
    for number, numbers in enumerate((ids, other)):
        frame = Frame(tiles, numbers, banks)
        banks = Banks.from_images(RADIANCE, frame.banks.images(RADIANCE))
        seen = []

        async def scenario(ctx, numbers=numbers, number=number, seen=seen):
            seen += await play(ctx, dut, tiles, numbers, memory, number == 0, number == 0)

        bench.play(scenario)
        for got, expected in zip(seen, frame.groups, strict=True):
            assert got[:len(expected)] == expected
        words = [memory[BASE + 16 * n] for n in range(4 * RADIANCE.image_bytes // 16)]
        assert b"".join(word.to_bytes(16, "little") for word in words) == (
            frame.banks.images(RADIANCE).tobytes())
        hits.append(frame.visits.hit.sum() / frame.complete.sum())
        assert (frame.visits.outcome >= Outcome.FILLED).any()
    assert 0 < hits[0] < hits[1] < 1

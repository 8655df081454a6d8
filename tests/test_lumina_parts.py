"""The units of Lumina around its array, wired as they stand in the accelerator."""

import sys
from collections import deque
from pathlib import Path

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from splatforge.algos.fetch import decode_splats
from splatforge.algos.lumina.render import cached_state
from splatforge.algos.lumina.sharing import group_order
from splatforge.algos.nru import SPLAT_FIELDS, nru_fixed
from splatforge.algos.radiance import Banks, Outcome, radiance_fixed
from splatforge.algos.records import encode_record
from splatforge.algos.resolve import resolve_fixed
from splatforge.algos.vru import vru_fixed
from splatforge.designs.fetch import TILE_PX
from splatforge.designs.resolve import PixelFormat
from splatforge.hw.array import PIXELS_PER_GROUP
from splatforge.hw.nru import Nru
from splatforge.hw.radiance import Radiance
from splatforge.hw.vru import Vru
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


#: Bits of a number that go with a splat.
NUMBER_BITS = 18
FEATURES = 24


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


class Drawing(wiring.Component):
    """Features and array: tiles and entries in, pixels out."""

    def __init__(self):
        self.vru = Vru(DESIGN.vru, DESIGN.shell, placed=True, number_bits=NUMBER_BITS)
        self.nru = Nru(NRU, DESIGN.splat, RADIANCE.record_ids, DESIGN.resolve)
        vru, nru = self.vru.signature.members, self.nru.signature.members
        super().__init__({
            **{name: vru[name] for name in (
                "i_tile", "i_entry", "o_address", "i_beat", "oldest", "behind", "idle")},
            **{name: nru[name] for name in ("o_tile", "o")},
            "start": In(1), "remapping": In(1), "skips": Out(8)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.vru, m.submodules.nru = vru, nru = self.vru, self.nru
        for name in ("i_tile", "i_entry", "o_address", "i_beat"):
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(vru, name))
        for name in ("o_tile", "o"):
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(nru, name))
        wiring.connect(m, vru.o_tile, nru.i_tile)
        wiring.connect(m, vru.o_splat, nru.i_splat)
        m.d.comb += [
            vru.start.eq(self.start), vru.feature_address.eq(BASE), vru.skip.eq(nru.skip),
            nru.remapping.eq(self.remapping), self.oldest.eq(vru.oldest),
            self.behind.eq(vru.behind), self.idle.eq(vru.idle)]
        m.d.sync += self.skips.eq(self.skips + nru.skip)
        return m


@pytest.mark.parametrize("remapping", [True, False])
def test_features_and_array(remapping):
    """Every tile lies at the frame's first pixels; some end before their lists have come."""
    rng = np.random.default_rng(8)
    fmt, side = DESIGN.vru.feature, NRU.tile_px
    raw = {name: np.zeros(FEATURES, np.int64) for name, _, _ in fmt.fields()}
    for name in ("mean_x", "mean_y"):
        raw[name] = fmt.mean.quantize(rng.uniform(-1, side + 1, FEATURES))
    for name in "ac":
        raw[name] = fmt.slope.quantize(rng.uniform(0.1, 1.2, FEATURES))
    raw["log_opacity"] = rng.integers(0, 300, FEATURES)
    # Every third one is flat and opaque.
    flat = np.arange(FEATURES) % 3 == 0
    for name in ("a", "c", "log_opacity"):
        raw[name][flat] = 0
    for name in ("red", "green", "blue"):
        raw[name] = rng.integers(0, 300, FEATURES)
    records = encode_record("Feature", fmt.fields(), 4, raw)
    splats = decode_splats(DESIGN.splat, vru_fixed(
        DESIGN.vru, records, np.full(FEATURES, 15), np.zeros(FEATURES, int),
        np.zeros(FEATURES, int)))
    splats = np.stack([splats[name] for name in SPLAT_FIELDS], axis=1).astype(np.int32)
    counts = (30, 0, 120, 1, 90, 7, 0, 33, 64, 150, 5, 16, 100, 2, 80, 12, 40, 9)
    starts = np.concatenate([[0], np.cumsum(counts)])
    numbers = rng.integers(0, FEATURES, starts[-1])
    # Some lists have nothing that is flat: they are drawn to their ends.
    for tile in range(0, len(counts), 4):
        mine = slice(starts[tile], starts[tile + 1])
        numbers[mine] += flat[numbers[mine]]
    sizes = [(int(x), int(y)) for x, y in rng.integers(1, side + 1, (len(counts), 2))]
    expected = []
    for (columns, rows), first, last in zip(sizes, starts[:-1], starts[1:], strict=True):
        mine = numbers[first:last].astype(np.int32)
        state = nru_fixed(
            NRU, DESIGN.splat, RADIANCE.record_ids, columns, rows, np.array([0]), np.array([0]),
            np.array([0, last - first]), mine, splats[mine]).state[0]
        for y in range(rows):
            row = state[TILE_PX * y:TILE_PX * y + columns].tolist()
            expected += [[tuple(pixel) for pixel in row[at:at + PIXELS_PER_GROUP]]
                         for at in range(0, columns, PIXELS_PER_GROUP)]
    dut, groups, skipped = Drawing(), [], []

    async def scenario(ctx):
        tile_layout, entry_layout = dut.i_tile.payload.shape(), dut.i_entry.payload.shape()
        tile_of = np.repeat(np.arange(len(counts)), counts)
        announced = sent = oldest = 0
        beats = deque()
        ctx.set(dut.remapping, remapping)
        ctx.set(dut.start, 1)
        for port in (dut.o, dut.o_tile, dut.o_address):
            ctx.set(port.ready, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        tile_shown = entry_shown = False
        for cycle in range(10_000):
            # What is of a tile that is over is not sent; the next tiles are told ahead.
            while not entry_shown and sent < len(numbers) and tile_of[sent] < oldest:
                sent += 1
            tile_shown = tile_shown or (
                announced < min(len(counts), oldest + 8) and not ctx.get(dut.behind))
            ctx.set(dut.i_tile.valid, tile_shown)
            if tile_shown:
                columns, rows = sizes[announced]
                ctx.set(dut.i_tile.payload, tile_layout.const({
                    "tile": announced % 16, "columns": columns, "rows": rows,
                    "splats": counts[announced]}))
            entry_shown = sent < len(numbers) and bool(tile_of[sent] < announced)
            ctx.set(dut.i_entry.valid, entry_shown)
            if entry_shown:
                ctx.set(dut.i_entry.payload, entry_layout.const({
                    "feature": int(numbers[sent]), "subtiles": 15,
                    "tile": int(tile_of[sent]) % 16}))
            due = bool(beats) and beats[0][0] <= cycle
            ctx.set(dut.i_beat.valid, due)
            if due:
                _, word, last = beats.popleft()
                ctx.set(dut.i_beat.payload, {"id": 3, "data": word, "last": last})
            (_, _, tile_taken, entry_taken, address_valid, address, now, valid, group
             ) = await ctx.tick().sample(
                dut.i_tile.ready, dut.i_entry.ready, dut.o_address.valid, dut.o_address.p.address,
                dut.oldest, dut.o.valid, dut.o.payload)
            if tile_shown and tile_taken:
                announced, tile_shown = announced + 1, False
            if entry_shown and entry_taken:
                sent, entry_shown = sent + 1, False
            oldest += (now - oldest) % 16
            if address_valid:
                record = records[(address - BASE) // 32]
                beats.extend((cycle + 9, int(record[2 * half]) | int(record[2 * half + 1]) << 64,
                              half == 1) for half in range(2))
            if valid:
                groups.append([(*pixel.color, pixel.transmittance) for pixel in group])
                if len(groups) == len(expected):
                    skipped.append(ctx.get(dut.skips))
                    return
        raise AssertionError("not done")

    streams.Bench(dut).play(scenario)
    for got, want in zip(groups, expected, strict=True):
        assert got[:len(want)] == want
    assert 0 < skipped[0] < len(counts)

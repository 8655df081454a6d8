"""The array of neural rendering units: a plain walk over pixels, and RTL against both models."""

import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splatforge.algos.alpha import alpha_fixed, forms_fixed
from splatforge.algos.blend import blend_fixed, start_raw
from splatforge.algos.nru import OUTSIDE, SPLAT_FIELDS, nru_fixed, significant_fixed
from splatforge.designs.fetch import SplatFormat
from splatforge.designs.lumina import LuminaDesign
from splatforge.designs.nru import NruDesign
from splatforge.hw.nru import Nru
from splatforge.sim import nru as model
from splatforge.verification.lib.runner import TESTED_LUMINA
from splatforge.verification.lib.tiles import BACKGROUND, Tiles

sys.path.insert(0, str(Path(__file__).parent))
import streams

DESIGN, SPLAT = NruDesign(), SplatFormat()


def splats(rng, count):
    """Random splats about a tile, most of them seen somewhere on it."""
    def uniform(field, low, high):
        return field.quantize(rng.uniform(low, high, count))

    raw = {
        "u0": uniform(SPLAT.u0, -6, 3), "v0": uniform(SPLAT.v0, -6, 3),
        "a": uniform(SPLAT.a, 0.05, 0.5), "b": uniform(SPLAT.b, -0.2, 0.2),
        "c": uniform(SPLAT.c, 0.05, 0.5), "log_opacity": uniform(SPLAT.log_opacity, 0, 5),
        **{name: uniform(SPLAT.color, 0, 1) for name in ("red", "green", "blue")}}
    return np.stack([raw[name] for name in SPLAT_FIELDS], axis=1).astype(np.int32)


@pytest.mark.parametrize("record_ids", [1, 5, 8])
def test_blends_as_a_plain_walk(record_ids):
    """Three tiles of a frame of 28x23 pixels: whole, cut on the right, cut on both sides."""
    rng = np.random.default_rng(record_ids)
    tile_x, tile_y, width, height = np.array([0, 1, 1]), np.array([0, 0, 1]), 28, 23
    starts = np.array([0, 60, 60, 260])
    rows = splats(rng, 260)
    # What is opaque ends pixels.
    rows[100:, 5] //= 8
    ids = rng.integers(0, 1 << 20, 260).astype(np.int32)
    frame = nru_fixed(DESIGN, SPLAT, record_ids, width, height, tile_x, tile_y, starts, ids, rows)
    significant = significant_fixed(DESIGN, SPLAT, rows)
    y, x = np.divmod(np.arange(256), 16)
    for tile in range(3):
        inside = (16 * tile_x[tile] + x < width) & (16 * tile_y[tile] + y < height)
        state = start_raw(DESIGN.blend, 256)
        length = starts[tile + 1] - starts[tile]
        live, ends = inside.copy(), np.where(inside, length, OUTSIDE)
        records, complete = [[] for _ in range(256)], np.full(256, -1)
        for place, at in enumerate(range(starts[tile], starts[tile + 1])):
            fields = dict(zip(SPLAT_FIELDS, rows[at].tolist(), strict=True))
            u, v = forms_fixed(DESIGN.alpha, SPLAT, fields, x, y)
            alpha = alpha_fixed(DESIGN.alpha, u, v, np.full(256, fields["log_opacity"]))
            bits, whole = (np.unpackbits(each[at].view(np.uint8), bitorder="little")
                           for each in (frame.significant, significant))
            np.testing.assert_array_equal(bits, alpha.significant & live)
            np.testing.assert_array_equal(whole, alpha.significant)
            color = np.array([fields[name] for name in SPLAT_FIELDS[6:]])
            behind = blend_fixed(DESIGN.alpha, DESIGN.blend, state,
                                 np.where(live & alpha.significant, alpha.alpha, 0),
                                 np.broadcast_to(color, (256, 3)))
            ended = live & (behind.product < DESIGN.blend.stop)
            ends[ended] = place
            for pixel in np.flatnonzero(live & alpha.significant & ~ended):
                records[pixel].append(ids[at])
                if len(records[pixel]) == record_ids:
                    complete[pixel] = place
            live &= ~ended
            state = behind
        np.testing.assert_array_equal(frame.ends[tile], ends)
        np.testing.assert_array_equal(frame.complete[tile], complete)
        assert frame.blended[tile].tolist() == [len(record) for record in records]
        for pixel, record in enumerate(records):
            want = (record + [0] * record_ids)[:record_ids]
            assert frame.ids[tile, pixel].tolist() == want
        np.testing.assert_array_equal(frame.state[tile, inside, :3], state.accumulator[inside])
        np.testing.assert_array_equal(frame.state[tile, :, 3], state.transmittance)
        assert not frame.state[tile, ~inside, :3].any()
    assert ((frame.ends[2] >= 0) & (frame.ends[2] < 200)).sum() > 20
    assert (frame.ends[1, :12] == 0).all()


def test_an_element_for_every_pixel():
    assert DESIGN.units == 64
    assert DESIGN.array.lanes == 256
    assert DESIGN.array.blocks == 1
    for pixels, units_x in ((2, 16), (4, 8), (8, 4)):
        design = NruDesign(unit_pixels=pixels)
        assert (design.units_x, design.units) == (units_x, 8 * units_x)
        assert design.units * pixels == 256
        LuminaDesign(nru=design).check_frames()


@pytest.mark.parametrize("side", [2, 4, 8])
@pytest.mark.parametrize("pixels", [2, 4, 8])
def test_neighbours_are_of_different_units(pixels, side):
    """Every pixel of a tile is of one unit; the model's words have it where the hardware does."""
    design = NruDesign(side=side, unit_pixels=pixels)
    dut = Nru(design)
    dut._MustUse__used = True  # Amaranth warns of one that is not elaborated
    unit_of = np.full((design.tile_px, design.tile_px), -1)
    state = model.new_nru(design, True, True).registers
    for unit in range(design.units):
        for pixel in range(pixels):
            x, y = dut._place(unit, pixel)
            assert unit_of[y, x] == -1
            unit_of[y, x] = unit
            number = y * design.tile_px + x
            assert model._number.py_func(side, design.units_x, unit, pixel) == number
            assert model._unit.py_func(side, design.units_x, number) == (unit, pixel)
            word, place = model._place.py_func(state, number)
            assert (word // pixels, word % pixels, place) == (unit // 64, pixel, unit % 64)
    assert (unit_of[1:] != unit_of[:-1]).all()
    assert (unit_of[:, 1:] != unit_of[:, :-1]).all() or design.units_x == 1


@given(st.sampled_from([2, 4, 8]), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_the_unit_with_most_pixels(pixels, share, seed):
    design = NruDesign(unit_pixels=pixels)
    v = model.new_nru(design, True, True).registers
    live = np.random.default_rng(seed).random((design.units, pixels)) < share
    for unit, pixel in np.argwhere(live).tolist():
        v[model.LIVE + pixels * (unit // 64) + pixel] |= np.uint64(1 << unit % 64).astype(np.int64)
    assert model._most.py_func(v, model.LIVE) == live.sum(axis=1).max()
    for word in range(v[model.UNIT_WORDS]):
        units = np.flatnonzero(live[64 * word:64 * word + 64].any(axis=1)).tolist()
        found = int(model._any.py_func(v, model.LIVE + pixels * word)) & (1 << 64) - 1
        assert found == sum(1 << unit for unit in units)


def small(pixels, side=TESTED_LUMINA.nru.side):
    """Everything short: queues fill up, chunks are many.

    Four units of four pixels, eight of two, or two of eight, which have pixels side by side.
    """
    return replace(
        TESTED_LUMINA, nru=replace(TESTED_LUMINA.nru, unit_pixels=pixels, side=side))


RECORD_IDS = TESTED_LUMINA.radiance.record_ids
#: Lists: none, one, whole chunks, several; the longest is opaque and ends its pixels early.
COUNTS = (40, 5, 0, 16, 70, 1, 33, 48, 0, 90, 17)


@cache
def bench(design):
    return streams.Bench(Nru(design, SPLAT, RECORD_IDS, TESTED_LUMINA.resolve))


class Play:
    """The array amid sources, a cache and sinks, beside its model in every cycle."""

    def __init__(self, design, tiles, remapping, gap, stall, delay, seed):
        self.design, self.tiles, self.remapping = design, tiles, remapping
        self.gap, self.stall, self.delay = gap, stall, delay
        self.rng = np.random.default_rng(seed)
        self.counted = dict.fromkeys(
            ("lockstep", "remapped", "stalled", "starved", "bypassed", "skip"), 0)
        self.walk, self.groups, self.sizes = [], [], []
        self.lookups = [{} for _ in tiles.counts]
        self.cycles = 0

    def out(self, probability):
        return bool(self.rng.random() < probability)

    async def play(self, ctx):
        dut, tiles = bench(self.design).dut, self.tiles
        state = model.new_nru(self.design, tiles.caching, self.remapping)
        tile_layout, splat_layout = dut.i_tile.payload.shape(), dut.i_splat.payload.shape()
        answers = []
        sent, taken, place = 0, -1, 0
        tile_shown = splat_shown = False
        walked = looked = ended = 0
        ctx.set(dut.caching, tiles.caching)
        ctx.set(dut.remapping, self.remapping)
        ctx.set(dut.background, list(BACKGROUND))
        names = tuple(self.counted)
        for cycle in range(30_000):
            if len(self.groups) == len(tiles.groups) and walked == len(tiles.walk):
                self.cycles = cycle
                break
            # What comes in.
            tile_shown = sent < len(tiles.counts) and (tile_shown or not self.out(self.gap))
            ctx.set(dut.i_tile.valid, int(tile_shown))
            if tile_shown:
                columns, rows = tiles.size[sent]
                ctx.set(dut.i_tile.payload, tile_layout.const(
                    {"columns": columns, "rows": rows, "splats": tiles.counts[sent]}))
            left = taken >= 0 and bool(place < tiles.starts[taken + 1])
            splat_shown = left and (splat_shown or not self.out(self.gap))
            ctx.set(dut.i_splat.valid, int(splat_shown))
            if splat_shown:
                ctx.set(dut.i_splat.payload, splat_layout.const({
                    "splat": dict(zip(SPLAT_FIELDS, tiles.splats[place].tolist(), strict=True)),
                    "id": int(tiles.ids[place])}))
            due = [each for each in answers if each[0] <= cycle]
            answer = due[self.rng.integers(len(due))] if due else None
            ctx.set(dut.i_answer.valid, answer is not None)
            number, hit = -1, False
            if answer is not None:
                answers.remove(answer)
                _, tile, number = answer
                hit, color = tiles.answer(tile, number)
                ctx.set(dut.i_answer.payload, {"pixel": number, "hit": hit, "color": color})
            lookup_ready, walk_ready, tile_ready, ready = (
                not self.out(self.stall) for _ in range(4))
            for port, value in ((dut.o_lookup, lookup_ready), (dut.o_walk, walk_ready),
                                (dut.o_tile, tile_ready), (dut.o, ready)):
                ctx.set(port.ready, value)
            shown = model.offers(state, walk_ready, ready)
            model.step(state, tiles.work, model.Inputs(
                tile_shown, splat_shown, lookup_ready, number, hit, walk_ready, tile_ready, ready))
            (_, _, tile_taken, splat_taken, *seen) = await ctx.tick().sample(
                dut.i_tile.ready, dut.i_splat.ready,
                *(getattr(dut, name) for name in names),
                dut.o_lookup.valid, dut.o_lookup.payload, dut.o_walk.valid, dut.o_walk.payload,
                dut.o_tile.valid, dut.o_tile.payload, dut.o.valid, dut.o.payload)
            counts, rest = seen[:len(names)], seen[len(names):]
            lookup_valid, lookup, walk_valid, walk, out_valid, out, valid, group = rest
            got = model.Offers(
                tile_taken, splat_taken, counts[5], lookup.pixel if lookup_valid else -1,
                (256 if walk.last else walk.pixel) if walk_valid else -1,
                walk.hit if walk_valid and not walk.last else 0, out_valid, valid, *counts[:5])
            assert got == shown, cycle
            for name, value in zip(names, counts, strict=True):
                self.counted[name] += value
            # What came out.
            if tile_shown and tile_taken:
                taken, place, sent, tile_shown = sent, tiles.starts[sent], sent + 1, False
                splat_shown = False
            elif splat_shown and splat_taken:
                place, splat_shown = place + 1, False
            if counts[5]:
                assert not (splat_shown and splat_taken)
                place, splat_shown = tiles.starts[taken + 1], False
            if lookup_valid and lookup_ready:
                # Of the tile behind the last whose walk is over.
                looked = ended
                assert lookup.pixel not in self.lookups[looked]
                self.lookups[looked][lookup.pixel] = tuple(lookup.record)
                answers.append((cycle + 1 + int(self.rng.integers(self.delay + 1)), looked,
                                lookup.pixel))
            if walk_valid and walk_ready:
                walked += 1
                if walk.last:
                    self.walk.append((ended, "end"))
                    ended += 1
                else:
                    self.walk.append((ended, walk.pixel, tuple(walk.record), walk.hit,
                                      tuple(walk.color)))
            if out_valid and tile_ready:
                self.sizes.append((out.columns, out.rows))
            if valid and ready:
                self.groups.append([(*pixel.color, pixel.transmittance) for pixel in group][
                    :len(tiles.groups[len(self.groups)])])
        else:
            raise AssertionError("not done")


@pytest.mark.parametrize(("design", "caching", "remapping", "gap", "stall", "delay"), [
    (small(4), True, True, 0.0, 0.0, 0), (small(4), True, True, 0.3, 0.4, 40),
    (small(4), False, True, 0.0, 0.5, 0), (small(4), True, False, 0.0, 0.0, 5),
    (small(2), True, True, 0.1, 0.2, 20), (small(8), True, True, 0.1, 0.2, 20),
    *(pytest.param(small(pixels, 4), True, True, 0.1, 0.2, 20, marks=pytest.mark.matrix)
      for pixels in (2, 8))])
def test_rtl_against_both_models(design, caching, remapping, gap, stall, delay):
    """Pixels, records, look-ups and walk are those of the integers, cycles those of the model."""
    tiles = Tiles(design, 3, COUNTS, caching)
    play = Play(design.nru, tiles, remapping, gap, stall, delay, 5)
    bench(design.nru).play(play.play)
    assert play.groups == tiles.groups
    assert play.sizes == tiles.size
    assert play.walk == tiles.walk
    assert play.lookups == tiles.lookups
    assert (play.counted["remapped"] > 0) == remapping
    if caching:
        inside = sum(columns * rows for columns, rows in tiles.size)
        assert play.counted["bypassed"] == inside - tiles.complete.sum() > 0
        assert tiles.hit.any()
    assert play.counted["skip"] > 0


def ideal_cycles(design, tiles, remapping):
    """Cycles of the model amid an environment that never waits, and how often it issued."""
    state = model.new_nru(design.nru, tiles.caching, remapping)
    # Look-ups are answered in order, four cycles later.
    answers, ended, walked, groups, issued = [], 0, 0, 0, [0, 0]
    place, taken = 0, -1
    for cycle in range(100_000):
        if groups == len(tiles.groups) and walked == len(tiles.walk):
            return cycle, issued
        left = taken >= 0 and bool(place < tiles.starts[taken + 1])
        number, hit = -1, False
        if answers and answers[0][0] <= cycle:
            _, tile, number = answers.pop(0)
            hit, _ = tiles.answer(tile, number)
        shown = model.offers(state, True, True)
        more = taken + 1 < len(tiles.counts)
        model.step(state, tiles.work, model.Inputs(more, left, True, number, hit, True, True, True))
        if shown.lookup >= 0:
            answers.append((cycle + 4, ended, shown.lookup))
        walked += shown.walk >= 0
        ended += shown.walk == 256
        groups += shown.group
        issued[0] += shown.lockstep
        issued[1] += shown.remapped
        place += left and shown.splat_ready
        if more and shown.tile_ready:
            taken, place = taken + 1, tiles.starts[taken + 1]
        if shown.skip:
            place = tiles.starts[taken + 1]
    raise AssertionError("not done")


@pytest.mark.parametrize("pixels", [2, 4, 8])
def test_passes_are_worth_it(pixels):
    """A whole array: where few pixels are left, several splats a cycle end a chunk earlier.

    The buffer still takes a splat a cycle, and a unit's back end a fragment: a list of chunks is
    over by a part of the last one earlier.
    """
    design = LuminaDesign(nru=NruDesign(unit_pixels=pixels))
    tiles = Tiles(design, 4, (1500, 30), caching=False)
    # Of every unit one pixel alone goes on to the end of the first list.
    ends = tiles.work.ends
    ends[0, :, 1:] = np.minimum(ends[0, :, 1:], 100)
    ends[0, :, 0] = 1500
    slow, (lockstep, none) = ideal_cycles(design, tiles, remapping=False)
    assert none == 0
    assert lockstep == 1500 + 30
    fast, (lockstep, remapped) = ideal_cycles(design, tiles, remapping=True)
    # The first chunk finds out on its way; the others are passes from their first splat on.
    assert lockstep < 300 + 30
    assert pixels * remapped >= 1500 - lockstep + 30 > pixels * (remapped - 3)
    assert 100 < slow - fast < design.nru.chunk_splats


def test_constants_of_the_model():
    assert (model.LATENCY, model.SETTLE) == (Nru.latency, Nru.settle)


@pytest.mark.parametrize(("wrong", "message"), [
    ({"side": 3}, "Side must be 2, 4 or 8 units, not 3"),
    ({"chunk_splats": 12}, "Chunk must have a power of two from 8 to 4096 splats, not 12"),
    ({"chunk_splats": 4}, "Chunk must have a power of two from 8 to 4096 splats, not 4")])
def test_other_arrays_are_refused(wrong, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        NruDesign(**wrong)


@pytest.mark.rtl
@pytest.mark.parametrize("pixels", [
    4, *(pytest.param(pixels, marks=pytest.mark.matrix) for pixels in (2, 8))])
def test_verilog_against_fixed(run_testbench, pixels):
    run_testbench("nru", seed=7, design=small(pixels))

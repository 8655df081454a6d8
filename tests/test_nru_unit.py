"""A neural rendering unit: RTL against blending in integers, and every cycle against the model."""

import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from splatforge.algos.alpha import alpha_fixed
from splatforge.algos.blend import blend_fixed, start_raw
from splatforge.algos.fixed import round_shift
from splatforge.designs.nru import NruDesign
from splatforge.hw.lib.nru_unit import NruUnit, entry_layout
from splatforge.sim import nru_unit as model

sys.path.insert(0, str(Path(__file__).parent))
import streams

#: By pixels of a unit.
DESIGNS = {pixels: NruDesign(queue_entries=4, unit_pixels=pixels) for pixels in (2, 4, 8)}
DESIGN = DESIGNS[4]
RECORD_IDS = 3
ALPHA, BLEND = DESIGN.alpha, DESIGN.blend


def test_queues_of_other_depths_are_refused():
    for wrong in (0, 1, 3, 128):
        with pytest.raises(ValueError, match=(
                f"^Queue must have a power of two from 2 to 64 entries, not {wrong}$")):
            NruDesign(queue_entries=wrong)
    assert DESIGN.exponent_bits == 13


def test_units_of_other_pixels_are_refused():
    for wrong in (1, 3, 16):
        with pytest.raises(ValueError, match=(
                f"^Pixels of a unit, unit_pixels, must be 2, 4 or 8, not {wrong}$")):
            NruDesign(unit_pixels=wrong)
    with pytest.raises(ValueError, match=(
            r"^Chunk must have a power of two from 16 to 4096 splats for units of 8 pixels, "
            r"not 8$")):
        NruDesign(unit_pixels=8, chunk_splats=8)


@cache
def bench(pixels):
    return streams.Bench(NruUnit(DESIGNS[pixels], RECORD_IDS))


def exponents(rng, count, opaque):
    """Raw exponents within the cut-off, and their alphas."""
    while True:
        u, v = rng.integers(-11000, 11000, (2, count))
        lo = rng.integers(0, 100 if opaque else 1000, count)
        if opaque:
            u, v = u // 12, v // 12
        drop = ALPHA.form_sum.frac_bits - ALPHA.form.frac_bits
        u, v = (ALPHA.form.saturate(round_shift(each, drop)) for each in (u, v))
        p = round_shift(u * u + v * v, 2 * ALPHA.form.frac_bits - ALPHA.exponent.frac_bits)
        p = p + (lo << (ALPHA.exponent.frac_bits - ALPHA.log_opacity.frac_bits))
        alpha = alpha_fixed(ALPHA, u << drop, v << drop, lo)
        if alpha.significant.sum() >= 1:
            keep = np.flatnonzero(alpha.significant)
            keep = keep[rng.integers(0, len(keep), count)]
            return p[keep], alpha.alpha[keep]


class Tile:
    """Entries of a tile, and what must come of them."""

    def __init__(self, rng, entries, pixels=4, opaque=False, remapped=0.3):
        self.pixels = pixels
        self.fields, self.told, self.masks, self.entries = [], [], [], []
        state = [start_raw(BLEND, 1) for _ in range(pixels)]
        self.records = [[] for _ in range(pixels)]
        for _ in range(entries):
            again = rng.random() < remapped
            mask, pixel = int(rng.integers(1, 1 << pixels)), int(rng.integers(0, pixels))
            p, alpha = exponents(rng, pixels, opaque)
            colors = rng.integers(0, BLEND.color.raw_max + 1, (pixels, 3))
            ids = rng.integers(0, 1 << 18, pixels)
            self.masks.append(mask)
            self.fields.append({
                "p": p.tolist(), "mask": mask, "remapped": int(again), "pixel": pixel,
                "splat": [{"color": colors[n].tolist(), "id": int(ids[n])}
                          for n in range(pixels)]})
            told = np.zeros((pixels, 3), np.int64)
            for place in range(pixels):
                if not mask >> place & 1:
                    continue
                source, at = (place, pixel) if again else (0, place)
                state[at] = blend_fixed(
                    ALPHA, BLEND, state[at], alpha[place:place + 1], colors[source:source + 1])
                ended = int(state[at].product[0] < BLEND.stop)
                if not ended:
                    self.records[at].append(int(ids[source]))
                told[place] = at, ended, not ended and len(self.records[at]) == RECORD_IDS
            self.told.append(told)
            # As the model has it.
            self.entries.append(sum(
                1 << place | int(told[place, 1]) << model.ENDS + place
                | int(told[place, 2]) << model.COMPLETES + place
                | int(told[place, 0]) << model.PIXEL + 3 * place
                for place in range(pixels) if mask >> place & 1))
        self.state = [(one.accumulator[0].tolist(), int(one.transmittance[0])) for one in state]


def offers(state):
    """What a single unit shows: ready, pixels ended and complete, their half, busy."""
    full, narrow, told, busy = model.offers(state)
    # It is narrow before it is full.
    assert narrow or not full
    ended, complete = (
        sum(int(state[told + n + pixel]) << pixel for pixel in range(model.PIXEL_WORDS))
        for n in (0, model.COMPLETE))
    return not full, ended, complete, state[told + model.TOLD_HALF], busy


def step(state, entries, offered, begin):
    """A cycle of a single unit, to which an entry is offered, or none where that is -1."""
    state[model.ENTRIES] = entries[offered]
    state[model.OFFERED] = offered >= 0
    model.step(state, begin)


def play(tiles, gap, seed):
    """Run tiles through the unit beside the model; what pixels and records they leave."""
    rng, pixels = np.random.default_rng(seed), tiles[0].pixels
    entries = [entry for tile in tiles for entry in tile.entries]
    fields = [field for tile in tiles for field in tile.fields]
    ends = np.cumsum([len(tile.masks) for tile in tiles])
    design = DESIGNS[pixels]
    dut, layout = bench(pixels).dut, entry_layout(design)
    seen = []

    async def scenario(ctx):
        state = model.new_units(design, 1)
        at, tile, begun, shown, rest = 0, -1, False, False, 0
        # Slots of the tile before are read while the next one is blended.
        pending = []
        for _ in range(20_000):
            ready, ended, complete, half, busy = offers(state)
            begin = False
            over = begun and at == ends[tile] and not (busy or shown or pending)
            if tile < 0 or over:
                if begun:
                    # The colour is there so many cycles behind the last word.
                    rest += 1
                if tile < 0 or rest > model.STATE_LATENCY - model.LATENCY:
                    if tile >= 0:
                        pending = [(tile, pixels * (tile & 1) + n) for n in range(pixels)]
                    tile += 1
                    rest = 0
                    begun = tile < len(tiles)
                    begin = begun
                    if tile > len(tiles):
                        return
            offered = -1
            if begun and not begin and at < ends[tile] and (shown or rng.random() >= gap):
                offered, shown = at, True
                ctx.set(dut.i.payload, layout.const(fields[at]))
            elif not begun and not pending:
                return
            ctx.set(dut.i.valid, offered >= 0)
            ctx.set(dut.begin, begin)
            got = (ctx.get(dut.i.ready), ctx.get(dut.ended), ctx.get(dut.complete),
                   ctx.get(dut.busy))
            assert got == (ready, ended, complete, busy)
            if ended | complete:
                assert ctx.get(dut.half) == half
            assert ctx.get(dut.current) == state[model.HALF]
            if pending and not begin:
                of, slot = pending.pop(0)
                ctx.set(dut.read_slot, slot)
                pixel = ctx.get(dut.state)
                record = tiles[of].records[slot % pixels][:RECORD_IDS]
                seen.append((of, slot % pixels))
                assert (list(pixel.color), pixel.transmittance) == tiles[of].state[slot % pixels]
                assert list(ctx.get(dut.record))[:len(record)] == record
            await ctx.tick()
            step(state, entries, offered, begin)
            if offered >= 0 and ready:
                at, shown = at + 1, False
        raise AssertionError("the unit does not come to an end")

    bench(pixels).play(scenario)
    assert seen == [(tile, pixel) for tile in range(len(tiles)) for pixel in range(pixels)]


@pytest.mark.parametrize(("gap", "seed", "pixels"), [
    (0.0, 1, 4), (0.6, 1, 4), (0.0, 2, 4), (0.6, 2, 4), (0.3, 1, 2), (0.3, 1, 8)])
def test_blends_and_records(gap, seed, pixels):
    rng = np.random.default_rng(seed)
    tiles = [Tile(rng, int(entries), pixels, opaque=number % 2 == 1)
             for number, entries in enumerate([10, 24, 0, 2, 12, 1, 20])]
    play(tiles, gap, seed)
    ended = [told for tile in tiles for told in tile.told if told[:, 1].any()]
    assert len(ended) > 5
    # Some pixels were never touched, some records not complete, some more than that.
    lengths = [len(record) for tile in tiles for record in tile.records]
    assert min(lengths) == 0
    assert any(0 < length < RECORD_IDS for length in lengths)
    assert max(lengths) > RECORD_IDS


@pytest.mark.parametrize("pixels", [2, 4, 8])
def test_one_fragment_a_cycle(pixels):
    """Lockstep and remapped alike: as many cycles as there are fragments, and the latency."""
    rng = np.random.default_rng(3)
    for remapped in (0.0, 1.0):
        tile = Tile(rng, 20, pixels, remapped=remapped)
        fragments = sum(mask.bit_count() for mask in tile.masks)
        state = model.new_units(DESIGNS[pixels], 1)
        step(state, tile.entries, -1, True)
        at, cycle, last = 0, 0, 0
        while at < 20 or offers(state)[4]:
            ready = offers(state)[0]
            step(state, tile.entries, at if at < 20 else -1, False)
            at += at < 20 and ready
            cycle += 1
            last = cycle
        assert last == fragments + model.LATENCY - 1
    play([tile], 0.0, 1)
    assert (model.LATENCY, model.STATE_LATENCY) == (NruUnit.latency, NruUnit.state_latency)

"""The unit in front of the array: setup against float, RTL against both models."""

import re
import sys
from collections import deque
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from splatforge.algos.array import array_fixed
from splatforge.algos.fetch import SplatLists, decode_splats
from splatforge.algos.records import encode_record
from splatforge.algos.splat_setup import slope_fixed
from splatforge.algos.vru import REGION_SUBTILES, vru_fixed
from splatforge.designs.array import ArrayDesign
from splatforge.designs.entry import EntryFormat
from splatforge.designs.feature import FeatureFormat
from splatforge.designs.fetch import TILE_PX, SplatFormat
from splatforge.designs.fixed import Fixed
from splatforge.designs.gscore import GscoreDesign
from splatforge.designs.memory import MemoryTiming
from splatforge.designs.shell import ShellDesign
from splatforge.designs.vru import VruDesign
from splatforge.hw.array import Array
from splatforge.hw.lib.axi import READ_FEATURES
from splatforge.hw.vru import Vru
from splatforge.sim import vru as model

sys.path.insert(0, str(Path(__file__).parent))
import streams

DESIGN, SHELL = VruDesign(), ShellDesign()
#: Everything fills up, and features of the tests chase each other out of the cache.
SMALL = VruDesign(cache_features=8, waiting=8, outstanding_features=4)
BASE = 0x12_3456_7000
WIDTH = 16 * 5 - 3


def features(count, seed, extreme=False):
    """Records of Gaussians in and around a frame, or of any bits at all."""
    rng = np.random.default_rng(seed)
    fmt = DESIGN.feature
    raw = {name: rng.integers(-(1 << width - 1) if signed else 0, 1 << width - signed, count)
           for name, width, signed in fmt.fields()}
    if not extreme:
        raw["mean_x"] = fmt.mean.quantize(rng.uniform(-400, 1600, count))
        raw["mean_y"] = fmt.mean.quantize(rng.uniform(-400, 1200, count))
        for name in "abc":
            slope = 1.551 * 10 ** rng.uniform(-4, 0, count)
            sign = rng.choice([-1, 1], count) if name == "b" else 1
            raw[name] = np.where(rng.random(count) < 0.02, 0, fmt.slope.quantize(slope * sign))
    return encode_record("Feature", fmt.fields(), 4, raw), raw


def test_slopes_are_rounded_to_half_a_unit():
    """Every exponent, both signs, the ends of the fraction; zero whatever its fraction."""
    fmt, slope = DESIGN.feature.slope, DESIGN.slope
    fraction = np.array([0, 1, 2, (1 << 16) - 1, 1 << 16, (1 << 17) - 1])
    words = (np.arange(256)[:, None] << 17 | fraction).reshape(-1)
    words = np.concatenate([words, words | fmt.sign_bit])
    raw = slope_fixed(DESIGN.setup, words)
    exact = fmt.to_float(words)
    inside = np.abs(exact) < 2
    error = np.abs(slope.to_float(raw) - exact)
    assert error[inside].max() <= slope.resolution / 2
    assert error[np.abs(exact) >= 2**-7][: 5].max() == 0
    np.testing.assert_array_equal(
        raw[~inside], np.where(words[~inside] & fmt.sign_bit, -slope.raw_max, slope.raw_max))
    assert not raw[(words >> 17 & 255) == 0].any()


@pytest.mark.parametrize("seed", [1, 2])
def test_setup_against_float(seed):
    """Half a unit, and what the slopes lose over the distance; what saturates is out of reach."""
    rng = np.random.default_rng(seed)
    count = 20_000
    records, raw = features(count, seed)
    tile_x, tile_y = rng.integers(0, 120, (2, count))
    regions = rng.integers(0, 16, count)
    got = decode_splats(
        DESIGN.splat, vru_fixed(DESIGN, records, regions, tile_x, tile_y))
    fmt = DESIGN.feature
    dx = TILE_PX * tile_x + 0.5 - fmt.mean.to_float(raw["mean_x"])
    dy = TILE_PX * tile_y + 0.5 - fmt.mean.to_float(raw["mean_y"])
    a, b, c = (fmt.slope.to_float(raw[name]) for name in "abc")
    lost = DESIGN.slope.resolution / 2
    for name, exact, reach in (
        ("u0", a * dx + b * dy, np.abs(dx) + np.abs(dy)), ("v0", c * dy, np.abs(dy)),
        ("a", a, 1), ("b", b, 1), ("c", c, 1),
    ):
        target = getattr(DESIGN.splat, name)
        bound = target.resolution / 2 + lost * reach + 1e-12
        low, high = target.to_float(target.raw_min), target.to_float(target.raw_max)
        error = np.abs(target.to_float(got[name]) - np.clip(exact, low, high))
        assert (error <= bound).all(), name
        assert error.max() > target.resolution / 3
    for name in ("log_opacity", "red", "green", "blue"):
        np.testing.assert_array_equal(got[name], raw[name])
    np.testing.assert_array_equal(got["subtiles"], np.array(REGION_SUBTILES)[regions])


def test_regions_are_quarters_of_the_tile():
    assert REGION_SUBTILES[0] == 0
    assert REGION_SUBTILES[15] == 0xFFFF
    assert [REGION_SUBTILES[1 << n] for n in range(4)] == [0x0033, 0x00CC, 0x3300, 0xCC00]


@cache
def bench(design, placed=False):
    return streams.Bench(
        Vru(design, SHELL, placed=True, number_bits=18) if placed else Vru(design, SHELL))


def frame(seed, counts=(9, 0, 30, 1, 0, 0, 40, 3, 12, 5, 0, 7, 25, 2, 17), numbers=24):
    """Lists of tiles, five side by side: for each entry (feature, regions, tile)."""
    rng = np.random.default_rng(seed)
    return [(int(rng.integers(numbers)), int(rng.integers(16)), tile)
            for tile, count in enumerate(counts) for _ in range(count)], counts


class Play:
    """The unit between a memory, a sorter and an array, beside its model, cycle by cycle."""

    def __init__(self, design, seed, *, gap=0.0, stall=0.0, latency=9, early=False, extreme=False,
                 counts=None, placed=False):
        self.design, self.early, self.latency, self.placed = design, early, latency, placed
        self.rng = np.random.default_rng(seed)
        self.gap, self.stall = gap, stall
        self.records, _ = features(24, seed, extreme)
        self.entries, self.counts = frame(seed, *(() if counts is None else (counts,)))
        self.state = model.new_vru(design)
        self.limits = design.waiting, design.outstanding_features, design.cache_features
        self.splats, self.tiles, self.asked = [], [], []
        self.behind = 0

    def out(self, probability):
        return self.rng.random() < probability

    async def play(self, ctx):
        dut = bench(self.design, self.placed).dut
        beats = deque()
        entry_layout, tile_layout = dut.i_entry.payload.shape(), dut.i_tile.payload.shape()
        sent = announced = wanted = left = 0
        current = -1
        shown = None
        if not self.placed:
            ctx.set(dut.width, WIDTH)
        ctx.set(dut.feature_address, BASE)
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        for cycle in range(20_000):
            if (announced == len(self.counts) == current + 1 and not left and not beats
                    and sent == len(self.entries)
                    and not self.state[model.TAG_VALID] and not self.state[model.EARLY_VALID]
                    and not self.state[model.FIRST_VALID]
                    and not self.state[model.ADDRESS]):
                break
            # A tile is announced before its entries, at most eight beyond the oldest.
            oldest = int(self.state[model.OLDEST])
            tile_valid = announced < min(len(self.counts), oldest + 8)
            ctx.set(dut.i_tile.valid, tile_valid)
            if tile_valid:
                ctx.set(dut.i_tile.payload, tile_layout.const({
                    "tile": announced % 16, "columns": 16, "rows": 16,
                    "splats": self.counts[announced],
                    **({"x": announced // 3, "y": announced % 3} if self.placed else {})}))
            offered = -1
            if sent < len(self.entries) and self.entries[sent][2] < announced:
                if shown == sent or not self.out(self.gap):
                    offered = shown = sent
            ctx.set(dut.i_entry.valid, offered >= 0)
            feature, regions, tile = self.entries[offered] if offered >= 0 else (0, 0, 0)
            ctx.set(dut.i_entry.payload, entry_layout.const({
                "feature": feature, "subtiles": regions, "tile": tile % 16}))
            address_ready = not self.out(self.stall)
            ctx.set(dut.o_address.ready, address_ready)
            due = bool(beats) and beats[0][0] <= cycle and not self.out(self.gap)
            ctx.set(dut.i_beat.valid, due)
            last = False
            if due:
                _, word, last = beats.popleft()
                ctx.set(dut.i_beat.payload, {"id": READ_FEATURES, "data": word, "last": last})
            # The array: takes a tile when it has none, some of its splats, ends it.
            tile_ready = not left and not self.out(self.stall)
            skip = bool(left) and not wanted
            splat_ready = bool(left) and bool(wanted) and not self.out(self.stall)
            ctx.set(dut.o_tile.ready, tile_ready)
            ctx.set(dut.o_splat.ready, splat_ready)
            ctx.set(dut.skip, skip)
            ready, splat = model.offers(self.state, self.limits)
            behind = model.behind(self.state, self.limits)
            before = self.state.copy()
            _, _, *seen = await ctx.tick().sample(
                dut.i_tile.ready, dut.o_tile.valid, dut.o_tile.p.splats, dut.i_entry.ready,
                dut.o_splat.valid, dut.o_splat.payload.as_value(), dut.o_address.valid,
                dut.o_address.p.address, dut.oldest, dut.hit, dut.miss, dut.i_beat.ready,
                dut.behind)
            (tile_taken, tile_shown, tile_splats, entry_ready, splat_valid, word, address_valid,
             address, oldest_seen, hit, miss, beat_ready, behind_seen) = seen
            self.behind += behind
            assert beat_ready
            taken = -1
            if tile_shown and tile_ready:
                current += 1
                taken = current
                left = int(tile_splats)
                assert left == self.counts[current]
                wanted = int(self.rng.integers(left + 1)) if self.early else left
            model.step(self.state, self.limits, offered, feature, tile, address_ready, last,
                       splat_ready, taken, skip)
            # The model shows what the unit shows.
            assert (entry_ready, splat_valid, address_valid, oldest_seen, behind_seen) == (
                ready, splat >= 0, before[model.ADDRESS], before[model.OLDEST] % 16,
                behind), cycle
            assert hit == self.state[model.HITS] - before[model.HITS]
            assert miss == self.state[model.MISSES] - before[model.MISSES]
            announced += bool(tile_valid and tile_taken)
            sent += bool(offered >= 0 and entry_ready)
            if splat_valid and splat_ready:
                self.splats.append((splat, word))
                left, wanted = left - 1, wanted - 1
            if skip:
                left = 0
            if address_valid and address_ready:
                number, rest = divmod(address - BASE, 32)
                assert rest == 0
                self.asked.append(number)
                low, high = (int(self.records[number, 2 * n]) | int(self.records[number, 2 * n + 1])
                             << 64 for n in range(2))
                at = cycle + self.latency
                beats.extend([(at, low, False), (at, high, True)])
        else:
            raise AssertionError("not done")
        ctx.set(dut.i_beat.valid, 0)
        ctx.set(dut.i_entry.valid, 0)
        for _ in range(4):
            await ctx.tick()
        assert ctx.get(dut.idle)


@pytest.mark.parametrize("design", [DESIGN, SMALL], ids=["default", "small"])
@pytest.mark.parametrize(("gap", "stall", "early", "extreme"), [
    (0.0, 0.0, False, True), (0.3, 0.0, False, False), (0.0, 0.4, False, False),
    (0.3, 0.3, True, False), (0.0, 0.0, True, True)])
def test_rtl_against_both_models(design, gap, stall, early, extreme):
    if design is DESIGN:
        # Clearing 4096 tags takes the simulator its time.
        design = VruDesign(cache_features=32)
    play = Play(design, 5, gap=gap, stall=stall, early=early, extreme=extreme)
    bench(design, False).play(play.play)
    places = [place for place, _ in play.splats]
    of_tile = [play.entries[place][2] for place in places]
    if early:
        # Of every tile the first entries.
        for tile, count in enumerate(play.counts):
            first = sum(play.counts[:tile])
            got = [place for place, of in zip(places, of_tile, strict=True) if of == tile]
            assert got == list(range(first, first + len(got)))
            assert len(got) <= count
        assert len(places) < len(play.entries)
        assert play.behind
    else:
        assert places == list(range(len(play.entries)))
    chosen = [play.entries[place] for place in places]
    tiles = np.array([tile for _, _, tile in chosen])
    expected = vru_fixed(
        design, play.records[[feature for feature, _, _ in chosen]],
        np.array([regions for _, regions, _ in chosen]), tiles % 5, tiles // 5)
    assert [word for _, word in play.splats] == [
        int(low) | int(high) << 64 for low, high in expected]
    # A feature is asked for once if the cache holds all, and again if another took its place.
    if design is SMALL:
        assert len(play.asked) > len(set(play.asked))
    else:
        assert len(play.asked) == len(set(play.asked))


def test_numbered_splats_of_placed_tiles():
    """Tiles in columns, numbers of more bits than the cache looks at; cycles are the same."""
    design = replace(SMALL, entry=EntryFormat(feature_bits=28, depth_bits=1))
    play = Play(design, 6, gap=0.2, stall=0.2, early=True, placed=True)
    bench(design, True).play(play.play)
    chosen = [play.entries[place] for place, _ in play.splats]
    tiles = np.array([tile for _, _, tile in chosen])
    expected = vru_fixed(
        design, play.records[[feature for feature, _, _ in chosen]],
        np.array([regions for _, regions, _ in chosen]), tiles // 3, tiles % 3)
    assert [word for _, word in play.splats] == [
        int(low) | int(high) << 64 | feature << design.splat.width
        for (low, high), (feature, _, _) in zip(expected, chosen, strict=True)]
    assert max(feature for feature, _, _ in chosen) > SMALL.cache_features


@pytest.mark.parametrize("latency", [1, 30])
@pytest.mark.parametrize("numbers", [
    [3], [1, 1, 1, 1], list(range(12)), [0, 8, 0, 8, 1, 1, 9, 2, 3, 4, 5, 6, 7, 0]])
def test_cycles_match_rtl(numbers, latency):
    dut = bench(SMALL).dut
    seen = []

    async def scenario(ctx):
        entry_layout = dut.i_entry.payload.shape()
        beats, sent = deque(), 0
        for name, value in (("start", 1), ("width", 16), ("feature_address", BASE)):
            ctx.set(getattr(dut, name), value)
        await ctx.tick()
        ctx.set(dut.start, 0)
        for _ in range(SMALL.cache_features):
            await ctx.tick()
        ctx.set(dut.o_address.ready, 1)
        ctx.set(dut.o_splat.ready, 1)
        for cycle in range(3000):
            ctx.set(dut.i_entry.valid, sent < len(numbers))
            if sent < len(numbers):
                ctx.set(dut.i_entry.payload, entry_layout.const(
                    {"feature": numbers[sent], "subtiles": 15, "tile": 0}))
            due = bool(beats) and beats[0][0] <= cycle
            ctx.set(dut.i_beat.valid, due)
            if due:
                ctx.set(dut.i_beat.p.last, beats.popleft()[1])
                ctx.set(dut.i_beat.p.id, READ_FEATURES)
            _, _, ready, asked, splat = await ctx.tick().sample(
                dut.i_entry.ready, dut.o_address.valid, dut.o_splat.valid)
            sent += bool(ready and sent < len(numbers))
            if asked:
                beats.extend([(cycle + latency, False), (cycle + latency, True)])
            if splat:
                seen.append(cycle)
                if len(seen) == len(numbers):
                    return

    bench(SMALL).play(scenario)
    timing = MemoryTiming(latency_cycles=latency)
    assert model.cycles(SMALL, numbers, timing) == seen[-1] + 1
    if numbers == [1, 1, 1, 1]:
        # Hits come one a cycle.
        assert np.diff(seen).tolist() == [1, 1, 1]


def test_latency_of_a_hit():
    cycles = {n: model.cycles(SMALL, [1] * n, MemoryTiming(latency_cycles=1)) for n in (40, 41)}
    assert cycles[41] - cycles[40] == 1
    state = model.new_vru(SMALL)
    state[model.CLEARING] = 0
    limits = SMALL.waiting, SMALL.outstanding_features, SMALL.cache_features
    state[-SMALL.cache_features + 1] = 1
    for cycle in range(20):
        if model.offers(state, limits)[1] >= 0:
            break
        model.step(state, limits, 0 if cycle == 0 else -1, 1, 0, True, False, True, -1, False)
    assert cycle == Vru.latency


@pytest.mark.parametrize(("change", "message"), [
    ({"cache_features": 3}, "Cached features must be a power of two from 2 to 65536, not 3"),
    ({"waiting": 2}, "Waiting entries must be a power of two from 4 to 1024, not 2"),
    ({"outstanding_features": 512},
     "Outstanding features must be a power of two from 1 to 256, not 512"),
    ({"entry": EntryFormat(feature_bits=8, depth_bits=8)},
     "Cached features must be fewer than 256, the numbers that there are, not 4096"),
    ({"entry": EntryFormat(subtile_bits=5)},
     "Entries must tell the four 8x8 regions of a tile, not 5"),
    ({"slope": Fixed(int_bits=2, frac_bits=24)},
     "Slope must be signed and hold 1.551, SQ(2,f), not UQ(2,24)"),
    ({"slope": Fixed(int_bits=2, frac_bits=11, signed=True)},
     "Slope must be finer than the splat's, not SQ(2,11)"),
    ({"splat": SplatFormat(color=Fixed(int_bits=2, frac_bits=7))},
     "Features must hold opacity and colour in the splat's formats"),
    ({"feature": FeatureFormat(mean=Fixed(int_bits=15, frac_bits=0, signed=True)),
      "splat": SplatFormat(a=Fixed(int_bits=1, frac_bits=3), b=Fixed(
          int_bits=2, frac_bits=3, signed=True), c=Fixed(int_bits=1, frac_bits=3)),
      "slope": Fixed(int_bits=2, frac_bits=8, signed=True)},
     "Slope times distance must be finer than the splat's forms, not SQ(2,8)"),
])
def test_wrong_designs_are_refused(change, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        VruDesign(**change)


def test_frames_must_fit_the_means():
    with pytest.raises(ValueError, match=re.escape(
            "Means of features must reach 65520 pixels, the longest side, not SQ(15,12)")):
        GscoreDesign(shell=ShellDesign(max_side=65520))


@pytest.mark.rtl
def test_verilog_against_fixed(run_testbench):
    run_testbench("vru", seed=7)


class Rendering(wiring.Component):
    """The unit with the array behind it, as they stand in the accelerator."""

    def __init__(self, design, array):
        self.vru, self.array = Vru(design, SHELL), Array(array, design.splat)
        members, behind = self.vru.signature.members, self.array.signature.members
        outer = {name: members[name] for name in ("i_tile", "i_entry", "i_beat", "o_address")}
        super().__init__(outer | {name: behind[name] for name in ("o", "o_tile")} | {
            "start": In(1), "oldest": Out(4), "stopped": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.vru, m.submodules.array = vru, array = self.vru, self.array
        for name in ("i_tile", "i_entry", "i_beat", "o_address"):
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(vru, name))
        for name in ("o", "o_tile"):
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(array, name))
        wiring.connect(m, vru.o_tile, array.i_tile)
        wiring.connect(m, vru.o_splat, array.i_splat)
        m.d.comb += [
            vru.skip.eq(array.skip), vru.start.eq(self.start), vru.width.eq(48),
            vru.feature_address.eq(BASE), self.oldest.eq(vru.oldest),
            self.stopped.eq(array.stopped)]
        return m


def test_pixels_behind_the_array():
    """Six tiles with lists that opaque splats cut short, to the last pixel."""
    rng = np.random.default_rng(9)
    array, fmt = ArrayDesign(lanes=16), DESIGN.feature
    count, tiles = 16, 6
    raw = {name: np.zeros(count, np.int64) for name, _, _ in fmt.fields()}
    raw["mean_x"] = fmt.mean.quantize(rng.uniform(0, 48, count))
    raw["mean_y"] = fmt.mean.quantize(rng.uniform(0, 32, count))
    for name in "ac":
        raw[name] = fmt.slope.quantize(rng.uniform(0.01, 0.5, count))
    # Every third one is flat and opaque.
    flat = np.arange(count) % 3 == 0
    for name in "ac":
        raw[name][flat] = 0
    raw["log_opacity"] = np.where(flat, 0, rng.integers(0, 200, count))
    for name in ("red", "green", "blue"):
        raw[name] = rng.integers(0, 300, count)
    records = encode_record("Feature", fmt.fields(), 4, raw)
    counts = [14, 0, 20, 3, 12, 16]
    tile = np.repeat(np.arange(tiles), counts)
    feature, regions = rng.integers(count, size=len(tile)), rng.integers(1, 16, len(tile))
    regions[rng.random(len(tile)) < 0.6] = 15
    starts = np.concatenate([[0], np.cumsum(counts)])
    state, work = array_fixed(array, DESIGN.splat, SplatLists(
        width=48, height=32, starts=starts,
        records=vru_fixed(DESIGN, records[feature], regions, tile % 3, tile // 3),
        pairs=np.diff(starts), places=np.zeros(len(tile), np.int32), gaussians=count,
        gaussians_visible=count, sh_degree=0))
    # Some lists end early, some do not.
    assert 0 < (work.records_reached < np.diff(starts)).sum() < tiles
    dut = Rendering(SMALL, array)
    groups, beats, stopped = [], deque(), []

    async def scenario(ctx):
        tile_layout, entry_layout = dut.i_tile.payload.shape(), dut.i_entry.payload.shape()
        announced = sent = taken = 0
        ctx.set(dut.start, 1)
        await ctx.tick()
        for name, value in (("o_address", 1), ("o", 1), ("o_tile", 1)):
            ctx.set(getattr(dut, name).ready, value)
        ctx.set(dut.start, 0)
        for cycle in range(4000):
            ctx.set(dut.i_tile.valid, announced < tiles)
            if announced < tiles:
                ctx.set(dut.i_tile.payload, tile_layout.const({
                    "tile": announced, "columns": 16, "rows": 16, "splats": counts[announced]}))
            ready = sent < len(tile) and tile[sent] < announced
            ctx.set(dut.i_entry.valid, int(ready))
            if ready:
                ctx.set(dut.i_entry.payload, entry_layout.const({
                    "feature": int(feature[sent]), "subtiles": int(regions[sent]),
                    "tile": int(tile[sent])}))
            due = bool(beats) and beats[0][0] <= cycle
            ctx.set(dut.i_beat.valid, due)
            if due:
                _, word, last = beats.popleft()
                ctx.set(dut.i_beat.payload, {"id": READ_FEATURES, "data": word, "last": last})
            _, _, tile_taken, entry_taken, valid, group, asked, address, ended = (
                await ctx.tick().sample(
                    dut.i_tile.ready, dut.i_entry.ready, dut.o.valid, dut.o.payload.as_value(),
                    dut.o_address.valid, dut.o_address.p.address, dut.stopped))
            announced += bool(tile_taken and announced < tiles)
            sent += bool(ready and entry_taken)
            if ended:
                stopped.append(cycle)
            if asked:
                for half in range(2):
                    low, high = (int(word) for word in records[
                        (address - BASE) // 32, 2 * half:2 * half + 2])
                    beats.append((cycle + 12, low | high << 64, half == 1))
            if valid:
                groups.append(group)
                taken += 1
                if taken == tiles * 64:
                    return
        raise AssertionError("not done")

    streams.Bench(dut).play(scenario)
    layout = dut.o.payload.shape()
    got = np.zeros_like(state)
    for place, word in enumerate(groups):
        here, group = divmod(place, 64)
        y, x = here // 3 * 16 + group // 4, here % 3 * 16 + group % 4 * 4
        for k, pixel in enumerate(streams.unpack(layout, word)):
            got[y, x + k] = [*pixel.color, pixel.transmittance]
    np.testing.assert_array_equal(got, state)
    assert len(stopped) == (work.records_reached < np.diff(starts)).sum()

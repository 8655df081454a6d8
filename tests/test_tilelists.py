"""Tile lists of numbers: their order, and RTL against both models."""

import re
import sys
from collections import deque
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from splatforge.algos.lumina.sharing import group_order
from splatforge.algos.tilelists import tilelists_fixed
from splatforge.designs.entry import EntryFormat
from splatforge.designs.tilelists import TilelistsDesign
from splatforge.hw.lib.axi import READ_BANKS, READ_TABLE
from splatforge.hw.tilelists import Tilelists
from splatforge.sim import tilelists as model
from splatforge.verification.lib.number_lists import NumberLists

sys.path.insert(0, str(Path(__file__).parent))
import streams

#: Everything fills up.
SMALL = TilelistsDesign(buffer_beats=16, burst_beats=4, outstanding_bursts=2)
SHAPES = [(37, 70, 2, SMALL), (150, 33, 4, TilelistsDesign()), (16, 16, 1, TilelistsDesign())]


@pytest.mark.parametrize(("change", "message"), [
    ({"entry": EntryFormat(feature_bits=33, depth_bits=1)},
     "Numbers must fit words of 32 bits, not 33"),
    ({"burst_beats": 32}, "Burst must be 4, 8 or 16 beats, not 32"),
    ({"buffer_beats": 16}, "List buffer must be a power of two from 32 to 4096 beats, not 16"),
    ({"outstanding_bursts": 0}, "Outstanding bursts must be 1 to 64, not 0"),
])
def test_wrong_designs_are_refused(change, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        TilelistsDesign(**change)


@pytest.mark.parametrize("side", [1, 2, 4])
def test_order_is_that_of_the_groups(side):
    design = TilelistsDesign()
    lists = NumberLists(design, np.random.default_rng(side), 150, 100, side)
    tiles, _ = group_order(150, 100, side)
    np.testing.assert_array_equal(10 * lists.listed.y + lists.listed.x, tiles)
    assert lists.listed.columns.min() == 150 % 16
    with pytest.raises(ValueError, match=r"^A list reaches beyond the words that there are$"):
        tilelists_fixed(design, 150, 100, lists.table, np.zeros(64, np.uint32), side)


@cache
def bench(design, side):
    return streams.Bench(Tilelists(design, side=side))


class Play:
    """The unit between a memory and an array that takes tiles, ends some, and takes entries."""

    def __init__(self, design, side, lists, seed, *, gap=0.0, stall=0.0, latency=7, early=False):
        self.design, self.side, self.lists = design, side, lists
        self.latency, self.early = latency, early
        self.rng = np.random.default_rng(seed)
        self.gap, self.stall = gap, stall
        self.state = model.new_tilelists(design, lists.width, lists.height, lists.list_beats)
        self.entries = [[] for _ in range(lists.tiles)]
        self.cycles = 0

    def out(self, probability):
        return bool(self.rng.random() < probability)

    async def play(self, ctx):
        lists, dut = self.lists, bench(self.design, self.side).dut
        tile_layout, entry_layout = dut.o_tile.payload.shape(), dut.o_entry.payload.shape()
        expected = [[streams.pack(entry_layout, one) for one in lists.entries(tile)]
                    for tile in range(lists.tiles)]
        beats, waiting = deque(), deque()
        # The array: the tile it is at, splats that it wants of it and has had.
        oldest = announced = table_beats = list_beats = 0
        wanted = -1
        for name, value in (("start", 1), ("width", lists.width), ("height", lists.height),
                            ("table_address", lists.table_address),
                            ("list_address", lists.list_address),
                            ("list_beats", lists.list_beats)):
            ctx.set(getattr(dut, name), value)
        await ctx.tick()
        ctx.set(dut.start, 0)
        for cycle in range(20_000):
            tile_ready = len(waiting) < 8 and not self.out(self.stall)
            entry_ready, address_ready = (not self.out(self.stall) for _ in range(2))
            behind = self.out(0.1)
            due = bool(beats) and beats[0][0] <= cycle and not self.out(self.gap)
            ctx.set(dut.i_beat.valid, due or self.out(0.2))
            last = False
            if due:
                _, word, last = beats.popleft()
                ctx.set(dut.i_beat.payload, {"id": READ_TABLE, "data": word, "last": last})
            else:
                ctx.set(dut.i_beat.payload, {"id": READ_BANKS, "data": 0x55, "last": 1})
            for port, ready in (("o_tile", tile_ready), ("o_entry", entry_ready),
                                ("o_address", address_ready)):
                ctx.set(getattr(dut, port).ready, ready)
            ctx.set(dut.oldest, oldest % 16)
            ctx.set(dut.behind, behind)
            shown = model.offers(self.state)
            now = self.state[model.ENTRY_TILE]
            model.step(self.state, lists.first, lists.counts, oldest, behind, tile_ready,
                       entry_ready, address_ready, due, last)
            (_, _, tile_valid, tile, entry_valid, entry, address_valid, address, beat_ready,
             overlong, table_beat, list_beat, idle) = await ctx.tick().sample(
                dut.o_tile.valid, dut.o_tile.payload.as_value(), dut.o_entry.valid,
                dut.o_entry.payload.as_value(), dut.o_address.valid, dut.o_address.payload,
                dut.i_beat.ready, dut.overlong, dut.table_beat, dut.list_beat, dut.idle)
            assert (tile_valid, entry_valid, address_valid) == (
                shown[0] >= 0, shown[1] >= 0, shown[2]), cycle
            assert beat_ready
            assert not overlong
            table_beats += table_beat
            list_beats += list_beat
            if tile_valid:
                assert shown[0] == announced
                assert tile == streams.pack(tile_layout, lists.tile_fields(announced))
                if tile_ready:
                    waiting.append(announced)
                    announced += 1
            if entry_valid:
                assert entry == expected[now][shown[1]]
                if entry_ready and now >= oldest:
                    self.entries[now].append(shown[1])
            if address_valid and address_ready:
                assert address.id == READ_TABLE
                assert address.length < self.design.burst_beats
                assert address.address >> 12 == (address.address + 16 * address.length) >> 12
                when = max(cycle + self.latency, beats[-1][0] if beats else 0)
                beats.extend((when, lists.memory[address.address + 16 * n], n == address.length)
                             for n in range(address.length + 1))
            # The array's tile is over, or it takes one.
            if wanted >= 0 and len(self.entries[oldest]) >= wanted:
                if wanted < lists.counts[oldest]:
                    oldest += 1
                wanted = -1
            elif wanted < 0 and waiting:
                oldest = waiting.popleft()
                count = int(lists.counts[oldest])
                wanted = int(self.rng.integers(count + 1)) if self.early else count
            if self.state[model.STATE] == model.END and wanted < 0 and not waiting and idle:
                break
        else:
            raise AssertionError("not done")
        self.cycles = cycle
        assert (table_beats, list_beats) == (
            self.state[model.TABLE_BEATS], self.state[model.LIST_BEATS])
        assert table_beats + list_beats == lists.listed.beats == model.beats_of(lists.counts)


@pytest.mark.parametrize(
    ("width", "height", "side", "design"), SHAPES, ids=["small", "wide", "one"])
@pytest.mark.parametrize(("gap", "stall", "early"), [
    (0.0, 0.0, False), (0.3, 0.3, False), (0.1, 0.2, True)])
def test_rtl_against_both_models(width, height, side, design, gap, stall, early):
    lists = NumberLists(design, np.random.default_rng(width), width, height, side, (
        (5, ) if width == 16 else (0, 3, 1, 0, 0, 70, 9, 17, 4)))
    play = Play(design, side, lists, 3, gap=gap, stall=stall, early=early)
    bench(design, side).play(play.play)
    for tile, places in enumerate(play.entries):
        assert places == list(range(len(places)))
        if not early:
            assert len(places) == lists.counts[tile]


def test_latency_and_throughput():
    """The table's beat, nine cycles, an address; entries come one a cycle."""
    design = TilelistsDesign()
    lists = NumberLists(design, np.random.default_rng(1), 16, 16, 1, (128,))
    seen = {}

    async def scenario(ctx):
        dut, beats = bench(design, 1).dut, deque()
        for name, value in (("start", 1), ("width", 16), ("height", 16), ("list_beats", 32),
                            ("table_address", lists.table_address),
                            ("list_address", lists.list_address)):
            ctx.set(getattr(dut, name), value)
        for port in (dut.o_tile, dut.o_entry, dut.o_address):
            ctx.set(port.ready, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        for cycle in range(250):
            due = bool(beats) and beats[0][0] <= cycle
            ctx.set(dut.i_beat.valid, due)
            if due:
                _, word, last = beats.popleft()
                ctx.set(dut.i_beat.payload, {"id": READ_TABLE, "data": word, "last": last})
                seen.setdefault("table", cycle)
            _, _, address_valid, address, entry = await ctx.tick().sample(
                dut.o_address.valid, dut.o_address.payload, dut.o_entry.valid)
            if address_valid:
                seen["address"] = [*seen.get("address", []), cycle]
                beats.extend((cycle + 4, lists.memory[address.address + 16 * n],
                              n == address.length) for n in range(address.length + 1))
            if entry:
                seen["entries"] = [*seen.get("entries", []), cycle]

    bench(design, 1).play(scenario)
    assert seen["address"][1] - seen["table"] == Tilelists.latency == model.LATENCY
    assert np.diff(seen["entries"]).tolist() == [1] * 127


@pytest.mark.parametrize("beyond", [1, 40])
def test_overlong_lists_are_refused(beyond):
    lists = NumberLists(SMALL, np.random.default_rng(5), 40, 40, 2)
    beats = int((lists.first + -(-lists.counts // 4)).max()) - beyond

    async def scenario(ctx):
        dut, flying = bench(SMALL, 2).dut, deque()
        for name, value in (("start", 1), ("width", 40), ("height", 40), ("list_beats", beats),
                            ("table_address", lists.table_address),
                            ("list_address", lists.list_address)):
            ctx.set(getattr(dut, name), value)
        for port in (dut.o_tile, dut.o_entry, dut.o_address):
            ctx.set(port.ready, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        oldest = 0
        for cycle in range(4000):
            due = bool(flying) and flying[0][0] <= cycle
            ctx.set(dut.i_beat.valid, due)
            if due:
                _, word, last = flying.popleft()
                ctx.set(dut.i_beat.payload, {"id": READ_TABLE, "data": word, "last": last})
            ctx.set(dut.oldest, oldest)
            _, _, address_valid, address, overlong, tile_valid, tile, idle = (
                await ctx.tick().sample(
                    dut.o_address.valid, dut.o_address.payload, dut.overlong, dut.o_tile.valid,
                    dut.o_tile.p.tile, dut.idle))
            if tile_valid:
                oldest = tile
            if address_valid:
                # Nothing beyond what there is.
                end = address.address + 16 * (address.length + 1)
                assert end <= lists.table_address + 4096 or end <= lists.list_address + 16 * beats
                flying.extend((cycle + 4, lists.memory[address.address + 16 * n],
                               n == address.length) for n in range(address.length + 1))
            if overlong and idle:
                return
        raise AssertionError("not found")

    bench(SMALL, 2).play(scenario)


@pytest.mark.rtl
def test_verilog_against_fixed(run_testbench):
    run_testbench("tilelists", seed=7)

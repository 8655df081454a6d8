"""Testbench of the array of neural rendering units, amid lists, a cache and a framebuffer."""

import random
from typing import Any

import cocotb
from cocotb.triggers import RisingEdge

from splatforge.algos.nru import SPLAT_FIELDS
from splatforge.designs.nru import RECORD_ID_BITS
from splatforge.hw.array import Array, tile_layout
from splatforge.hw.nru import answer_layout, lookup_layout, walk_layout
from splatforge.hw.vru import numbered_splat_layout
from splatforge.verification.lib.runner import TESTED_LUMINA
from splatforge.verification.lib.stream import (
    check_silence,
    check_stream,
    pauses,
    port,
    sink,
    source,
    start,
)
from splatforge.verification.lib.tiles import BACKGROUND, Tiles

NRU, K = TESTED_LUMINA.nru, TESTED_LUMINA.radiance.record_ids
#: Splats of the tiles: none, one, a chunk, more than both chunks.
COUNTS = (40, 5, 0, 16, 70, 1, 33, 48, 0, 90, 17, 32)


class Lists:
    """Sends the splats of each tile behind it, and drops what is left of them on ``skip``."""

    def __init__(self, dut, tiles: Tiles, pause) -> None:
        self.dut, self.tiles, self.pause = dut, tiles, pause
        layout: Any = numbered_splat_layout(TESTED_LUMINA.splat, RECORD_ID_BITS)
        self.words = [
            layout.const({"splat": dict(zip(SPLAT_FIELDS, row, strict=True)), "id": owner})
            .as_value().value
            for row, owner in zip(tiles.splats.tolist(), tiles.ids.tolist(), strict=True)]
        self.left: list[int] = []
        self.skipped = 0

    def begin(self, tile: int) -> None:
        """Tile `tile` has been taken."""
        assert not self.left, "a tile was taken before its predecessor's splats"
        self.left = self.words[self.tiles.starts[tile]:self.tiles.starts[tile + 1]]

    async def run(self) -> None:
        """Offer splats for ever."""
        stream = port(self.dut, "i_splat")
        offered = False
        while True:
            if self.left and (offered or not next(self.pause)):
                stream.payload.value = self.left[0]
                offered = True
            stream.valid.value = int(offered)
            await RisingEdge(self.dut.clk)
            skip = self.dut.skip.value == 1
            if offered and stream.ready.value == 1:
                assert not skip, "a splat was taken in the cycle of a skip"
                self.left.pop(0)
                offered = False
            if skip:
                assert self.left, "there is nothing to skip"
                self.left.clear()
                self.skipped += 1
                offered = False


class Cache:
    """Answers look-ups in any order, and sees the walks.

    Parameters
    ----------
    dut :
        The array.
    tiles : Tiles
        What pixels find.
    rng : random.Random
        Draws latencies.
    longest : int
        Longest latency.
    """

    def __init__(self, dut, tiles: Tiles, rng: random.Random, longest: int) -> None:
        self.dut, self.tiles, self.rng, self.longest = dut, tiles, rng, longest
        self.lookups: list[dict[int, tuple[int, ...]]] = [{} for _ in tiles.counts]
        self.walk: list[tuple] = []
        self.ended = 0

    async def run(self, stall: float) -> None:
        """Serve for ever."""
        dut, rng = self.dut, self.rng
        lookup, answer, walk = (port(dut, name) for name in ("o_lookup", "i_answer", "o_walk"))
        layouts: tuple[Any, Any] = lookup_layout(K), walk_layout(K)
        answers: list[tuple[int, int, int]] = []
        cycle = 0
        while True:
            look, take = rng.random() >= stall, rng.random() >= stall
            lookup.ready.value, walk.ready.value = int(look), int(take)
            due = [each for each in answers if each[0] <= cycle]
            answer.valid.value = int(bool(due))
            if due:
                chosen = rng.choice(due)
                answers.remove(chosen)
                hit, color = self.tiles.answer(*chosen[1:])
                answer.payload.value = answer_layout().const(
                    {"pixel": chosen[2], "hit": hit, "color": color}).as_value().value
            await RisingEdge(dut.clk)
            cycle += 1
            assert answer.ready.value == 1
            if look and lookup.valid.value == 1:
                asks = layouts[0].from_bits(int(lookup.payload.value))
                # Of the tile behind the last one whose walk is over, and once.
                assert asks.pixel not in self.lookups[self.ended]
                self.lookups[self.ended][asks.pixel] = tuple(asks.record)
                answers.append((cycle + rng.randint(0, self.longest), self.ended, asks.pixel))
            if take and walk.valid.value == 1:
                pixel = layouts[1].from_bits(int(walk.payload.value))
                if pixel.last:
                    self.walk.append((self.ended, "end"))
                    self.ended += 1
                else:
                    self.walk.append((self.ended, pixel.pixel, tuple(pixel.record), pixel.hit,
                                      tuple(pixel.color)))


@cocotb.test(timeout_time=300, timeout_unit="us")
@cocotb.parametrize(
    seed=[1, 2], gap=[0.0, 0.4], stall=[0.0, 0.5],
    mode=[(True, True), (True, False), (False, True)])
async def against_model(dut, seed: int, gap: float, stall: float, mode: tuple[bool, bool]) -> None:
    """Pixels, look-ups and walks are the bit-true model's, remapped or not."""
    caching, remapping = mode
    tiles = Tiles(TESTED_LUMINA, cocotb.RANDOM_SEED + seed, COUNTS, caching)
    rng = random.Random(f"{cocotb.RANDOM_SEED} {seed}")
    dut.caching.value, dut.remapping.value = int(caching), int(remapping)
    background: Any = TESTED_LUMINA.resolve.background.width
    dut.background.value = sum(
        channel << n * background for n, channel in enumerate(BACKGROUND))
    await start(dut, inputs=["i_tile", "i_splat", "i_answer"],
                outputs=["o_lookup", "o_walk", "o_tile", "o"])
    words = [tile_layout().const({"columns": columns, "rows": rows, "splats": count})
             .as_value().value
             for (columns, rows), count in zip(tiles.size, tiles.counts, strict=True)]
    lists = Lists(dut, tiles, pauses(rng, gap))
    cache = Cache(dut, tiles, rng, 30 if stall else 0)
    remapped = 0

    async def count() -> None:
        nonlocal remapped
        while True:
            await RisingEdge(dut.clk)
            remapped += dut.remapped.value == 1

    cocotb.start_soon(lists.run())
    cocotb.start_soon(cache.run(stall))
    cocotb.start_soon(count())
    cocotb.start_soon(source(
        dut.clk, port(dut, "i_tile"), words, pauses(rng, gap), sent=lists.begin))
    cocotb.start_soon(check_stream(
        dut.clk, port(dut, "i_splat"), released=lambda: dut.skip.value == 1))
    announced = cocotb.start_soon(
        sink(dut.clk, port(dut, "o_tile"), len(words), pauses(rng, stall)))
    came = await sink(dut.clk, port(dut, "o"), len(tiles.groups), pauses(rng, stall))
    group: Any = Array.group_layout(NRU.array)
    for place, (word, expected) in enumerate(zip(came, tiles.groups, strict=True)):
        pixels = [(*pixel.color, pixel.transmittance) for pixel in group.from_bits(word)]
        assert pixels[:len(expected)] == expected, f"group {place}"
    assert [(word & 31, word >> 5) for word in await announced] == tiles.size
    while len(cache.walk) < len(tiles.walk):
        await RisingEdge(dut.clk)
    assert cache.walk == tiles.walk
    assert cache.lookups == tiles.lookups
    assert (remapped > 0) == remapping
    assert lists.skipped
    await check_silence(dut.clk, port(dut, "o_tile"), port(dut, "o"))
    assert len(cache.walk) == len(tiles.walk)

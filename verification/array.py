"""Testbench of the rendering array: Verilog against the bit-true model."""

import random
from collections.abc import Iterator
from typing import Any

import cocotb
import numpy as np
import numpy.typing as npt
from cocotb.triggers import RisingEdge

from splatforge.algos.array import array_fixed
from splatforge.algos.fetch import SplatLists
from splatforge.designs.fetch import TILE_PX
from splatforge.hw.array import PIXELS_PER_GROUP, Array, tile_layout
from splatforge.verification.lib.lists import random_lists
from splatforge.verification.lib.runner import TESTED
from splatforge.verification.lib.stream import (
    check_silence,
    check_stream,
    pauses,
    port,
    sink,
    source,
    start,
)

ARRAY = TESTED.array


def sizes(lists: SplatLists) -> list[tuple[int, int]]:
    """Columns and rows of every tile that lie in the frame."""
    return [(min(TILE_PX, lists.width - TILE_PX * x), min(TILE_PX, lists.height - TILE_PX * y))
            for y in range(lists.tiles_y) for x in range(lists.tiles_x)]


class Feeder:
    """Sends each tile's records behind the tile, and drops what is left of them on ``skip``."""

    def __init__(self, dut, lists: SplatLists, pause: Iterator[bool]) -> None:
        self.dut, self.pause = dut, pause
        words = [int(low) | int(high) << 64 for low, high in lists.records.tolist()]
        self.lists = [words[first:last] for first, last in
                      zip(lists.starts[:-1].tolist(), lists.starts[1:].tolist(), strict=True)]
        self.left: list[int] = []
        #: Records that each tile took.
        self.took: list[int] = []

    def begin(self, tile: int) -> None:
        """Tile `tile` has been taken."""
        assert not self.left, "a tile was taken before its predecessor's records"
        self.left = list(self.lists[tile])
        self.took.append(0)

    async def run(self) -> None:
        """Offer records for ever."""
        stream = port(self.dut, "i_splat")
        offered = False
        while True:
            if self.left and (offered or not next(self.pause)):
                stream.payload.value = self.left[0]
                offered = True
            stream.valid.value = int(offered)
            await RisingEdge(self.dut.clk)
            if offered and stream.ready.value == 1:
                self.left.pop(0)
                self.took[-1] += 1
                offered = False
            if self.dut.skip.value == 1:
                self.left.clear()
                offered = False


class Watch:
    """The outputs that the counters count, and ``skip``."""

    def __init__(self, dut) -> None:
        self.dut = dut
        self.cycles: dict[str, int] = dict.fromkeys(
            ("busy", "starved", "skipped", "blocked", "stopped", "skip"), 0)

    async def run(self) -> None:
        """Count for ever."""
        signals = {name: getattr(self.dut, name) for name in self.cycles}
        while True:
            await RisingEdge(self.dut.clk)
            seen = {name: int(signal.value) for name, signal in signals.items()}
            for name, value in seen.items():
                self.cycles[name] += value
            assert seen["busy"] + seen["starved"] + seen["skipped"] + seen["blocked"] <= 1
            assert seen["stopped"] >= seen["skip"]


def pixels(lists: SplatLists, groups: list[int]) -> npt.NDArray[np.int64]:
    """State of every pixel of the frame, from the groups in the order in which they came."""
    state = np.full((lists.height, lists.width, 4), -1, np.int64)
    group = Array.group_layout(ARRAY)
    words = iter(groups)
    for tile, (columns, rows) in enumerate(sizes(lists)):
        across = -(-columns // PIXELS_PER_GROUP)
        y0, x0 = (TILE_PX * each for each in divmod(tile, lists.tiles_x))
        for place in range(across * rows):
            row, column = divmod(place, across)
            pixels_here: Any = group.from_bits(next(words))
            for number, pixel in enumerate(pixels_here):
                x = PIXELS_PER_GROUP * column + number
                if x < columns:
                    state[y0 + row, x0 + x] = *pixel.color, pixel.transmittance
    return state


@cocotb.test(timeout_time=300, timeout_unit="us")
@cocotb.parametrize(seed=[1, 2, 3], stall=[0.0, 0.6], gap=[0.0, 0.4])
async def against_model(dut, seed: int, stall: float, gap: float) -> None:
    """Every pixel's state matches the model; tiles that end early say so."""
    lists = random_lists(cocotb.RANDOM_SEED + seed, tiles_x=4, tiles_y=2, longest=60)
    state, workload = array_fixed(ARRAY, TESTED.fetch.splat, lists)
    layout = tile_layout()
    tiles = [layout.const({"columns": columns, "rows": rows, "splats": int(count)})
             .as_value().value for (columns, rows), count in
             zip(sizes(lists), np.diff(lists.starts), strict=True)]
    await start(dut, inputs=["i_tile", "i_splat"], outputs=["o_tile", "o"])
    rng = random.Random(f"{cocotb.RANDOM_SEED} {seed}")
    watch = Watch(dut)
    cocotb.start_soon(watch.run())
    feeder = Feeder(dut, lists, pauses(rng, gap))
    cocotb.start_soon(feeder.run())
    cocotb.start_soon(source(
        dut.clk, port(dut, "i_tile"), tiles, pauses(rng, gap), sent=feeder.begin))
    cocotb.start_soon(check_stream(
        dut.clk, port(dut, "i_splat"), released=lambda: dut.skip.value == 1))
    groups = sum(-(-columns // PIXELS_PER_GROUP) * rows for columns, rows in sizes(lists))
    # Each output stalls on its own.
    announced = cocotb.start_soon(
        sink(dut.clk, port(dut, "o_tile"), len(lists.pairs), pauses(rng, stall)))
    words = await sink(dut.clk, port(dut, "o"), groups, pauses(rng, stall))
    assert [(word & 31, word >> 5) for word in await announced] == sizes(lists)
    assert np.array_equal(pixels(lists, words), state)
    await check_silence(dut.clk, port(dut, "o_tile"), port(dut, "o"))

    # The tiles that end early are the model's, but for those whose list ends meanwhile.
    count = np.diff(lists.starts)
    took = np.array(feeder.took)
    assert (took >= workload.records_reached).all()
    early = workload.ends.max(axis=1) < count
    assert (took == count)[~early].all()
    assert watch.cycles["skip"] == (took < count).sum() > 0
    assert watch.cycles["skip"] <= watch.cycles["stopped"] <= early.sum()
    # One record is taken in a cycle, one block is issued in a cycle; none is issued twice.
    assert workload.evaluations.sum() // ARRAY.lanes <= watch.cycles["busy"]
    assert watch.cycles["busy"] <= took.sum() * ARRAY.blocks

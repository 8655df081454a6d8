"""Testbench of the rendering array: Verilog against the bit-true model."""

import random
from collections.abc import Iterator

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
        self.skips = 0

    def begin(self, tile: int) -> None:
        """Tile `tile` has been taken."""
        assert not self.left, "a tile was taken before its predecessor's records"
        self.left = list(self.lists[tile])

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
                offered = False
            if self.dut.skip.value == 1:
                self.skips += 1
                self.left.clear()
                offered = False


async def collect(dut, lists: SplatLists, pause: Iterator[bool]) -> npt.NDArray[np.int64]:
    """State of every pixel, as it comes out."""
    state = np.full((lists.height, lists.width, 4), -1, np.int64)
    group = Array.group_layout(ARRAY)
    for tile, (columns, rows) in enumerate(sizes(lists)):
        word, = await sink(dut.clk, port(dut, "o_tile"), 1, pause)
        assert (word & 31, word >> 5) == (columns, rows)
        across = -(-columns // PIXELS_PER_GROUP)
        words = await sink(dut.clk, port(dut, "o"), across * rows, pause)
        y0, x0 = (TILE_PX * each for each in divmod(tile, lists.tiles_x))
        for place, bits in enumerate(words):
            row, column = divmod(place, across)
            for number, pixel in enumerate(group.from_bits(bits)):
                x = PIXELS_PER_GROUP * column + number
                if x < columns:
                    state[y0 + row, x0 + x] = *pixel.color, pixel.transmittance
    return state


@cocotb.test(timeout_time=5, timeout_unit="ms")
@cocotb.parametrize(stall=[0.0, 0.6], gap=[0.0, 0.4])
async def against_model(dut, stall: float, gap: float) -> None:
    """Every pixel's state matches the model; tiles that end early say so."""
    lists = random_lists(cocotb.RANDOM_SEED, tiles_x=4, tiles_y=2, longest=60)
    state, workload = array_fixed(ARRAY, TESTED.fetch.splat, lists)
    layout = tile_layout()
    tiles = [layout.const({"columns": columns, "rows": rows, "splats": int(count)})
             .as_value().value for (columns, rows), count in
             zip(sizes(lists), np.diff(lists.starts), strict=True)]
    await start(dut, inputs=["i_tile", "i_splat"], outputs=["o_tile", "o"])
    rng = random.Random(cocotb.RANDOM_SEED)
    feeder = Feeder(dut, lists, pauses(rng, gap))
    cocotb.start_soon(feeder.run())
    cocotb.start_soon(source(
        dut.clk, port(dut, "i_tile"), tiles, pauses(rng, gap), sent=feeder.begin))
    cocotb.start_soon(check_stream(
        dut.clk, port(dut, "i_splat"), released=lambda: dut.skip.value == 1))
    got = await collect(dut, lists, pauses(rng, stall))
    assert np.array_equal(got, state)
    early = (workload.records_reached < np.diff(lists.starts)).sum()
    assert 0 < feeder.skips <= early

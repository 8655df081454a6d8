"""Testbench of the blending unit: Verilog against the bit-true model."""

import random
from typing import Any

import cocotb
import numpy as np
from amaranth.lib import data
from cocotb.triggers import ClockCycles

from splatforge.algos.blend import BlendState, blend_fixed, start_raw
from splatforge.hw.blend import Blend
from splatforge.verification.lib.runner import TESTED
from splatforge.verification.lib.stream import (
    check_silence,
    pauses,
    port,
    sink,
    source,
    start,
)

ARRAY = TESTED.array
SLOTS = 2 * ARRAY.blocks
LANE = np.arange(ARRAY.lanes)


def capped() -> int:
    """What one fragment of the largest opacity leaves of a pixel's transmittance."""
    state = start_raw(ARRAY.blend, 1)
    return int(blend_fixed(ARRAY.alpha, ARRAY.blend, state, [ARRAY.alpha.alpha_cap],
                           np.zeros((1, 3))).product[0])


def fragments(rng: np.random.Generator, count: int) -> list[dict[Any, Any]]:
    """Blocks of fragments over few slots; the corners of opacity, colour and edge come first."""
    cap, bright = ARRAY.alpha.alpha_cap, ARRAY.blend.color.raw_max
    columns, rows = (1 << ARRAY.block_width) - 1, (1 << ARRAY.block_height) - 1
    # Behind one fragment of the cap, the last weaker one that is still blended, and the first that
    # ends the pixel: one unit of alpha apart.
    steps = np.arange(cap)
    left = start_raw(ARRAY.blend, cap)._replace(product=np.full(cap, capped()))
    lives = blend_fixed(
        ARRAY.alpha, ARRAY.blend, left, steps, np.zeros((cap, 3))).product >= ARRAY.blend.stop
    limit = int(steps[lives].max())
    corners = [(cap, 0, 1), (cap, 0, 0), (0, 0, 0), (cap, 0, 0), (1, SLOTS - 1, 1), (1, 0, 1),
               (cap, 0, 0), (0, SLOTS - 1, 0), (cap, 1, 1), (limit, 1, 0), (1, 1, 0), (cap, 1, 1),
               (limit + 1, 1, 0), (1, 1, 0)]
    made = [{"alpha": [alpha] * ARRAY.lanes, "color": [bright, 0, bright], "slot": slot,
             "first": first, "columns": columns, "rows": rows} for alpha, slot, first in corners]
    # Which half a block was last blended in: in the other one it starts anew.
    half = {slot % ARRAY.blocks: slot // ARRAY.blocks for slot in (0, 1, SLOTS - 1)}
    while len(made) < count:
        slot = int(rng.integers(SLOTS)) if rng.random() < 0.3 else int(rng.integers(3))
        block = slot % ARRAY.blocks
        first = half.get(block) != slot // ARRAY.blocks or rng.random() < 0.03
        half[block] = slot // ARRAY.blocks
        alpha = rng.integers(0, cap + 1, ARRAY.lanes) >> rng.integers(0, 10)
        made.append({
            "alpha": np.where(rng.random(ARRAY.lanes) < 0.3, 0, alpha).tolist(),
            "color": rng.integers(0, bright + 1, 3).tolist(), "slot": slot, "first": int(first),
            "columns": int(rng.integers(columns + 1)), "rows": int(rng.integers(rows + 1))})
    return made


class Model:
    """State of every slot, fragment by fragment."""

    def __init__(self) -> None:
        self.slots: dict[int, BlendState] = {}

    def blend(self, fragment: dict[str, Any]) -> int:
        """Blend one block and return whether all its pixels have ended."""
        slot = fragment["slot"]
        if fragment["first"]:
            inside = (fragment["columns"] >> LANE % ARRAY.block_width
                      & fragment["rows"] >> LANE // ARRAY.block_width & 1)
            state = start_raw(ARRAY.blend, ARRAY.lanes)
            self.slots[slot] = state._replace(product=state.product * inside)
        self.slots[slot] = blend_fixed(
            ARRAY.alpha, ARRAY.blend, self.slots[slot], np.array(fragment["alpha"]),
            np.tile(fragment["color"], (ARRAY.lanes, 1)))
        return int((self.slots[slot].product < ARRAY.blend.stop).all())


@cocotb.test(timeout_time=300, timeout_unit="us")
@cocotb.parametrize(seed=[1, 2], stall=[0.0, 0.4], gap=[0.0, 0.4])
async def against_model(dut, seed: int, stall: float, gap: float) -> None:
    """Every end and, behind them all, every pixel's state match the model."""
    rng = np.random.default_rng([cocotb.RANDOM_SEED, seed])
    rows = fragments(rng, 600)
    model = Model()
    ended = data.StructLayout({"slot": range(SLOTS), "dead": 1})
    want = [ended.const({"slot": row["slot"], "dead": model.blend(row)}).as_value().value
            for row in rows]
    layout = Blend.fragments_layout(ARRAY)
    words = [layout.const(row).as_value().value for row in rows]

    dut.read_slot.value = 0
    dut.read_enable.value = 1
    await start(dut, inputs=["i"], outputs=["o"])
    python_rng = random.Random(int(rng.integers(2**31)))
    cocotb.start_soon(source(dut.clk, port(dut, "i"), words, pauses(python_rng, gap)))
    assert await sink(dut.clk, port(dut, "o"), len(words), pauses(python_rng, stall)) == want

    await check_silence(dut.clk, port(dut, "o"), cycles=Blend.latency)
    state = data.ArrayLayout(Blend.state_layout(ARRAY), ARRAY.lanes)
    for slot, pixels in model.slots.items():
        dut.read_slot.value = slot
        await ClockCycles(dut.clk, 2)
        got = state.from_bits(int(dut.state.value))
        assert [list(pixel.color) for pixel in got] == pixels.accumulator.tolist()
        assert [pixel.transmittance for pixel in got] == pixels.transmittance.tolist()

"""Testbench of the alpha evaluation, also by a table: Verilog against the bit-true models."""

import itertools
import random
from typing import cast

import cocotb
import numpy as np
import numpy.typing as npt

from splatforge.algos.alpha import alpha_fixed, forms_fixed
from splatforge.algos.falloff import falloff_fixed
from splatforge.designs.falloff import FalloffDesign
from splatforge.designs.fetch import SUBTILE_PX
from splatforge.hw.alpha import Alpha
from splatforge.verification.lib.runner import TESTED, TESTED_VOYAGER
from splatforge.verification.lib.stream import (
    check_silence,
    pauses,
    port,
    sink,
    source,
    start,
)

ARRAY = TESTED.array
FALLOFF = cast(FalloffDesign, TESTED_VOYAGER.array.alpha)
SPLAT = TESTED.fetch.splat
FORMS = ("u0", "v0", "a", "b", "c")


def columns(rng: np.random.Generator, count: int) -> dict[str, npt.NDArray[np.int64]]:
    """Raw inputs of `count` blocks: every corner of the forms first, then what is often seen."""
    corners = list(itertools.product(*(
        (getattr(SPLAT, name).raw_min, getattr(SPLAT, name).raw_max) for name in FORMS)))
    values = {}
    for number, name in enumerate(FORMS):
        fmt = getattr(SPLAT, name)
        scale = 10.0 ** rng.uniform(-2, 0, count)
        span = 3.0 if name in ("u0", "v0") else 1.5
        low = 0.0 if fmt.raw_min == 0 else -span
        values[name] = fmt.quantize(rng.uniform(low, span, count) * scale)
        values[name][:len(corners)] = [corner[number] for corner in corners]
    top = SPLAT.log_opacity.raw_max
    values["log_opacity"] = rng.integers(0, top + 1, count) * rng.integers(0, 2, count)
    values["log_opacity"][:4] = 0, top, 0, top
    values["block"] = rng.integers(0, ARRAY.blocks, count)
    reach = 1 << ARRAY.lanes // SUBTILE_PX**2
    values["reach"] = rng.integers(0, reach, count) | rng.integers(0, reach, count)
    values["carry"] = rng.integers(0, 2, count)
    return values


def expected(values: dict[str, npt.NDArray[np.int64]], unit: str) -> list[int]:
    """Payloads that `unit` must send."""
    lane = np.arange(ARRAY.lanes)
    within_x, within_y = lane % ARRAY.block_width, lane // ARRAY.block_width
    subtile = (within_y // SUBTILE_PX * (ARRAY.block_width // SUBTILE_PX)
               + within_x // SUBTILE_PX)
    block = values["block"][:, None]
    u, v = forms_fixed(
        ARRAY.alpha, SPLAT, {name: values[name][:, None] for name in FORMS},
        block % ARRAY.blocks_x * ARRAY.block_width + within_x,
        block // ARRAY.blocks_x * ARRAY.block_height + within_y)
    opacity = values["log_opacity"][:, None]
    alpha = (falloff_fixed(FALLOFF, u, v, opacity) if unit == "falloff"
             else alpha_fixed(ARRAY.alpha, u, v, opacity)).alpha
    alpha = np.where(values["reach"][:, None] >> subtile & 1, alpha, 0)
    layout = Alpha.block_layout(ARRAY, 1)
    return [layout.const({"alpha": row.tolist(), "carry": int(carry)}).as_value().value
            for row, carry in zip(alpha, values["carry"], strict=True)]


@cocotb.test(timeout_time=300, timeout_unit="us")
@cocotb.parametrize(seed=[1, 2], stall=[0.0, 0.4], gap=[0.0, 0.4])
async def against_model(dut, seed: int, stall: float, gap: float) -> None:
    """Every payload matches the model, with and without gaps and back-pressure."""
    rng = np.random.default_rng([cocotb.RANDOM_SEED, seed])
    values = columns(rng, 600)
    layout = Alpha.splat_layout(ARRAY, SPLAT, 1)
    words = [layout.const({name: int(raw[n]) for name, raw in values.items()}).as_value().value
             for n in range(600)]
    want = expected(values, dut._name)
    assert sum(word != 0 for word in want) > 300
    await start(dut, inputs=["i"], outputs=["o"])
    python_rng = random.Random(int(rng.integers(2**31)))
    cocotb.start_soon(source(dut.clk, port(dut, "i"), words, pauses(python_rng, gap)))
    assert await sink(dut.clk, port(dut, "o"), len(words), pauses(python_rng, stall)) == want
    await check_silence(dut.clk, port(dut, "o"))

"""Alpha by a table: the table against the exponential, integers against reals, RTL against both."""

import math
import re
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numba as nb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splatforge.algos.alpha import alpha_fixed, forms_fixed
from splatforge.algos.falloff import (
    _falloff_kernel,
    exponentials,
    falloff_constants,
    falloff_fixed,
    falloff_float,
    opacities,
    step_of,
)
from splatforge.designs.alpha import AlphaDesign
from splatforge.designs.array import ArrayDesign
from splatforge.designs.falloff import FalloffDesign
from splatforge.designs.fetch import SUBTILE_PX
from splatforge.designs.fixed import Fixed
from splatforge.hw.falloff import Falloff, FalloffLane
from splatforge.sim import falloff as model

sys.path.insert(0, str(Path(__file__).parent))
import streams
import test_alpha
from test_alpha import FORMS, SPLAT

DESIGN = FalloffDesign()
DESIGNS = [
    DESIGN, FalloffDesign(interpolated=True), FalloffDesign(table_entries=8),
    FalloffDesign(table_entries=16, interpolated=True), FalloffDesign(table_entries=512),
    # Coarser here, finer there: nothing may rest on the default widths.
    FalloffDesign(
        form=Fixed(int_bits=3, frac_bits=11, signed=True),
        form_sum=Fixed(int_bits=8, frac_bits=13, signed=True),
        exponent=Fixed(int_bits=6, frac_bits=9), alpha=Fixed(int_bits=0, frac_bits=12),
        table_entries=32, table=Fixed(int_bits=1, frac_bits=15),
        opacity=Fixed(int_bits=1, frac_bits=13), interpolated=True)]


@pytest.mark.parametrize(("values", "message"), [
    ({"table_entries": 4}, "Table entries must be at least 8, one for each octave, not 4"),
    ({"table_entries": 48}, "Table entries must be a power of two from 2 to 512, not 48"),
    ({"table_entries": 1024}, "Table entries must be a power of two from 2 to 512, not 1024"),
    ({"opacity": Fixed(int_bits=0, frac_bits=14)},
     "Opacity must be unsigned and hold one, not UQ(0,14)"),
    ({"opacity": Fixed(int_bits=1, frac_bits=14, signed=True)},
     "Opacity must be unsigned and hold one, not SQ(1,14)"),
    ({"log_opacity": Fixed(int_bits=4, frac_bits=7)},
     "Log opacity must be below 8, not UQ(4,7)"),
    ({"table": Fixed(int_bits=1, frac_bits=12)},
     "Alpha must not be finer than the table, not UQ(0,14)"),
])
def test_parameters_are_checked(values, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        FalloffDesign(**values)


def table_bound(design):
    """Most that the table of real numbers is off by from the exponential, absolute.

    Flat, half of the first step's fall. A chord above a convex curve is off by at most an eighth of
    its squared step times the second derivative, which is at most one.
    """
    step = step_of(design)
    return step**2 / 8 if design.interpolated else -math.expm1(-step) / 2


@pytest.mark.parametrize("design", DESIGNS)
def test_table_against_exp(design):
    """The domain is that of what survives the test, [-ln 255, 0]."""
    exponent = np.linspace(0, math.log(255), 200_001)
    off = falloff_float(exponent, design) - np.exp(-exponent)
    bound = table_bound(design)
    assert np.abs(off).max() <= bound * (1 + 1e-9)
    # Not by more than is said, and not by much less: curvature falls by so much in the first step.
    assert np.abs(off).max() >= math.exp(-step_of(design)) * bound
    # Relative to the exponential it is the same in every step.
    relative = np.abs(off) * np.exp(exponent)
    assert relative.max() <= bound * math.exp(step_of(design))


def test_step_is_that_of_64_entries_down_to_ln_255():
    assert step_of(DESIGN) == pytest.approx(math.log(255) / 64, rel=1e-3)
    assert step_of(DESIGN) * 64 >= math.log(255)


@pytest.mark.parametrize("design", DESIGNS)
def test_integers_against_exp(design):
    """Rounding of the entries and, interpolated, of what is between them."""
    exponent = np.arange(design.cutoff + 1) * design.exponent.resolution * math.log(2)
    off = design.table.to_float(exponentials(design)) - np.exp(-exponent)
    rounding = design.table.resolution * (1.0 if design.interpolated else 0.5)
    assert np.abs(off).max() <= table_bound(design) + rounding
    lo = design.log_opacity.to_float(np.arange(design.log_opacity.raw_max + 1))
    assert np.abs(design.opacity.to_float(opacities(design)) - np.exp2(-lo)).max() \
        <= design.opacity.resolution


@st.composite
def fragments(draw):
    """A design, forms from within the visible range to beyond what they hold, a log opacity."""
    design = draw(st.sampled_from(DESIGNS))
    form = st.integers(design.form_sum.raw_min, design.form_sum.raw_max) | st.integers(
        -3 << design.form_sum.frac_bits, 3 << design.form_sum.frac_bits)
    return design, draw(form), draw(form), draw(st.integers(0, design.log_opacity.raw_max))


@given(fragments())
def test_skipped_if_and_only_if_above_the_threshold(fragment):
    """E > ln(255 o) of the forms as they are rounded; E < 0 cannot be: it is a sum of squares."""
    design, u, v, lo = fragment
    drop = design.form_sum.frac_bits - design.form.frac_bits
    half = (1 << drop) >> 1
    u_form, v_form = (int(design.form.saturate((each + half) >> drop)) for each in (u, v))
    down = 2 * design.form.frac_bits - design.exponent.frac_bits
    exponent = (u_form**2 + v_form**2 + (1 << down >> 1)) >> down
    nats = exponent * design.exponent.resolution * math.log(2)
    threshold = math.log(255) - lo * design.log_opacity.resolution * math.log(2)
    got = falloff_fixed(design, u, v, lo)
    assert exponent >= 0
    assert bool(got.significant) == (nats <= threshold)
    # The same as where alpha's whole exponent is compared with the cut-off.
    plain = AlphaDesign(**{name: getattr(design, name) for name in (
        "form", "form_sum", "exponent", "log_opacity", "alpha", "table")})
    assert got.significant == alpha_fixed(plain, u, v, lo).significant
    assert (got.alpha == 0) | got.significant


@given(fragments())
def test_alpha_against_exp(fragment):
    """Off by the table, and by the rounding of table, opacity and product, and by nothing else."""
    design, u, v, lo = fragment
    got = falloff_fixed(design, u, v, lo)
    if not got.significant:
        return
    drop = design.form_sum.frac_bits - design.form.frac_bits
    u_form, v_form = (design.form.to_float(design.form.saturate((each + (1 << drop >> 1)) >> drop))
                      for each in (u, v))
    opacity = 2.0 ** -(lo * design.log_opacity.resolution)
    want = min(0.99, opacity * np.exp2(-(u_form**2 + v_form**2)))
    off = abs(design.alpha.to_float(got.alpha) - want)
    # Half a unit of the exponent is so much of an exponential that is at most one.
    rounding = (design.exponent.resolution * math.log(2) / 2 + 1.5 * design.table.resolution
                + design.opacity.resolution + design.alpha.resolution)
    assert off <= opacity * table_bound(design) + rounding


def test_corners():
    top = DESIGN.log_opacity.raw_max
    # The first step's middle is below the cap; interpolated it is one at the mean.
    assert falloff_fixed(DESIGN, 0, 0, 0).alpha == pytest.approx(
        DESIGN.alpha.quantize(1 + math.expm1(-step_of(DESIGN)) / 2), abs=1)
    assert falloff_fixed(DESIGNS[1], 0, 0, 0).alpha == DESIGN.alpha_cap
    assert falloff_fixed(DESIGN, 0, 0, top).significant
    # Beyond the octaves of the table nothing is significant.
    assert not falloff_fixed(DESIGN, DESIGN.form_sum.raw_max, 0, 0).significant


@nb.njit
def _each(k, table, u, v, lo):
    out = np.empty(len(u), np.int64)
    for n in range(len(u)):
        out[n] = _falloff_kernel(k, table, u[n], v[n], lo[n])
    return out


@pytest.mark.parametrize("design", DESIGNS)
def test_kernel_is_the_scalar_of_it(design):
    rng = np.random.default_rng(1)
    u, v = (rng.integers(-3 << design.form_sum.frac_bits, 3 << design.form_sum.frac_bits, 5000)
            for _ in range(2))
    lo = rng.integers(0, design.log_opacity.raw_max + 1, 5000)
    got = _each(falloff_constants(design), exponentials(design), u, v, lo)
    want = falloff_fixed(design, u, v, lo)
    assert np.array_equal(got, np.where(want.significant, want.alpha, -1))


def expected(array, rows):
    """Alphas of every lane of every block, from the bit-true model."""
    pixel = np.arange(array.lanes)
    within_x, within_y = pixel % array.block_width, pixel // array.block_width
    subtile = (within_y // SUBTILE_PX * (array.block_width // SUBTILE_PX)
               + within_x // SUBTILE_PX)
    out = []
    for *forms, lo, block, reach in rows:
        u, v = forms_fixed(
            array.alpha, SPLAT, dict(zip(FORMS, forms, strict=True)),
            block % array.blocks_x * array.block_width + within_x,
            block // array.blocks_x * array.block_height + within_y)
        alpha = falloff_fixed(array.alpha, u, v, lo).alpha
        out.append(np.where(reach >> subtile & 1, alpha, 0).tolist())
    return out


@cache
def bench(array):
    return streams.Bench(Falloff(array, SPLAT, carry_width=10))


def send(array, rows, gap=0.0, stall=0.0, seed=1):
    layout = Falloff.splat_layout(array, SPLAT, 10)
    names = (*FORMS, "log_opacity", "block", "reach")
    words = [streams.pack(layout, {**dict(zip(names, row, strict=True)), "carry": number})
             for number, row in enumerate(rows)]
    dut = bench(array).dut
    source, sink = streams.Source(dut.i, words, gap), streams.Sink(dut.o, len(rows), stall)
    bench(array).run([source], [sink], seed=seed)
    blocks = [streams.unpack(Falloff.block_layout(array, 10), word) for word in sink.words]
    return dut, source, sink, blocks


@pytest.mark.parametrize(("gap", "stall"), [(0.0, 0.0), (0.3, 0.3)])
def test_rtl_against_fixed(gap, stall):
    array = ArrayDesign(lanes=16, alpha=DESIGN)
    rows = test_alpha.splats(array, 200, 3)
    want = expected(array, rows)
    assert (np.array(want[50:]) > 0).mean() > 0.1
    dut, source, sink, blocks = send(array, rows, gap, stall, seed=4)
    assert [block.carry for block in blocks] == list(range(len(rows)))
    assert [list(block.alpha) for block in blocks] == want
    if gap == stall == 0:
        first = source.sent[0].cycle
        assert sink.received[0].cycle - first == dut.latency == model.LATENCY
        assert sink.received[-1].cycle - first + 1 == model.cycles(len(rows))


@pytest.mark.parametrize("alpha", [DESIGNS[1], DESIGNS[3], DESIGNS[5]],
                         ids=["interpolated", "16", "formats"])
def test_rtl_against_fixed_of_other_tables(alpha):
    array = ArrayDesign(lanes=16, alpha=alpha)
    rows = test_alpha.splats(array, 110, 5)
    _, _, _, blocks = send(array, rows)
    assert [list(block.alpha) for block in blocks] == expected(array, rows)


def test_an_opacity_below_one_of_255_is_never_significant():
    """Finer logarithms hold such opacities: the bound that they leave is below zero."""
    alpha = FalloffDesign(log_opacity=Fixed(int_bits=3, frac_bits=8))
    array, top = ArrayDesign(lanes=16, alpha=alpha), alpha.log_opacity.raw_max
    assert top << (alpha.exponent.frac_bits - alpha.log_opacity.frac_bits) > alpha.cutoff + 1
    rows = [[0] * 5 + [lo, 0, 1] for lo in range(top - 4, top + 1)]
    splat = replace(SPLAT, log_opacity=alpha.log_opacity, color=Fixed(int_bits=2, frac_bits=6))
    layout = Falloff.splat_layout(array, splat, 10)
    names = (*FORMS, "log_opacity", "block", "reach")
    bench = streams.Bench(Falloff(array, splat, carry_width=10))
    source = streams.Source(bench.dut.i, [
        streams.pack(layout, {**dict(zip(names, row, strict=True)), "carry": 0})
        for row in rows], 0.0)
    sink = streams.Sink(bench.dut.o, len(rows), 0.0)
    bench.run([source], [sink], seed=1)
    want = expected(array, rows)
    assert [any(alphas) for alphas in want] == [True] * 4 + [False]
    assert [list(streams.unpack(Falloff.block_layout(array, 10), word).alpha)
            for word in sink.words] == want


def test_nothing_is_looked_up_for_what_is_skipped():
    """A lane reads its table once for a fragment that is significant, and for no other."""
    from amaranth.sim import Simulator

    rng = np.random.default_rng(2)
    lane = FalloffLane(DESIGN)
    significant = rng.integers(0, 2, 60)
    looks = []

    async def drive(ctx):
        ctx.set(lane.enable, 1)
        for wanted in significant:
            # The square of u is zero, and the test the sign of what is given.
            ctx.set(lane.test, -1 if wanted else 0)
            ctx.set(lane.reach, 1)
            looks.append(ctx.get(lane.looks))
            await ctx.tick()
        looks.append(ctx.get(lane.looks))

    simulator = Simulator(lane)
    simulator.add_clock(1e-8)
    simulator.add_testbench(drive)
    simulator.run()
    # One stage behind the test.
    assert looks[1:] == significant.tolist()
    assert looks[0] == 0


@pytest.mark.rtl
def test_verilog_against_fixed(run_testbench):
    run_testbench("falloff", seed=7)

import sys
from functools import cache
from pathlib import Path

import numba as nb
import numpy as np
import pytest
from amaranth.hdl import Value

from splatforge.algos.blend import (
    BlendState,
    _add_kernel,
    _product_kernel,
    blend_constants,
    blend_fixed,
    blend_float,
    start_raw,
)
from splatforge.designs.alpha import AlphaDesign
from splatforge.designs.array import ArrayDesign
from splatforge.designs.blend import BlendDesign
from splatforge.designs.fixed import Fixed
from splatforge.hw.blend import Blend
from splatforge.sim import blend as model

sys.path.insert(0, str(Path(__file__).parent))
import streams

ALPHA, BLEND = AlphaDesign(), BlendDesign()
OTHER = BlendDesign(
    transmittance=Fixed(int_bits=1, frac_bits=20), color=Fixed(int_bits=2, frac_bits=6),
    accumulator=Fixed(int_bits=4, frac_bits=16),
)


def start_float(pixels):
    """Untouched pixels."""
    return BlendState(np.ones(pixels), np.ones(pixels), np.zeros((pixels, 3)))


def test_number_of_blocks_must_not_be_negative():
    with pytest.raises(ValueError, match="Number of blocks must be non-negative, not -1"):
        model.cycles(-1)


def test_float_is_the_reference_rule():
    state = blend_float(start_float(2), [0.75, 0.0], [[1.0, 0.5, 0.0]] * 2)
    assert state.transmittance.tolist() == [0.25, 1.0]
    assert state.accumulator.tolist() == [[0.75, 0.375, 0.0], [0.0, 0.0, 0.0]]
    # A fragment that would take T below 1e-4 is not blended, and nothing is behind it.
    for _ in range(3):
        state = blend_float(state, [0.99, 0.0], [[1.0, 1.0, 1.0]] * 2)
    assert state.transmittance[0] == pytest.approx(0.0025)
    assert state.product[0] < 1e-4
    again = blend_float(state, [0.5, 0.0], [[1.0, 1.0, 1.0]] * 2)
    np.testing.assert_array_equal(again.accumulator, state.accumulator)


@pytest.mark.parametrize("blend", [BLEND, OTHER], ids=["default", "other"])
def test_fixed_against_float_of_one_fragment(blend):
    rng = np.random.default_rng(1)
    count = 100_000
    before = rng.integers(blend.stop, blend.one + 1, count)
    accumulator = rng.integers(0, blend.one, (count, 3))
    alpha = rng.integers(0, ALPHA.alpha_cap + 1, count)
    color = rng.integers(0, blend.color.raw_max + 1, (count, 3))
    # As many again that land around the end of the pixel.
    half = count // 2
    alpha[half:] = ALPHA.alpha_cap - rng.integers(0, 200, half)
    before[half:] = rng.integers(blend.stop, 200 * blend.stop, half)
    fixed = blend_fixed(ALPHA, blend, BlendState(before, before, accumulator), alpha, color)
    t = blend.transmittance
    state = BlendState(t.to_float(before), t.to_float(before),
                       blend.accumulator.to_float(accumulator))
    exact = blend_float(state, ALPHA.alpha.to_float(alpha), blend.color.to_float(color))

    # The product is rounded once, by half a unit.
    product = t.to_float(fixed.product)
    assert np.abs(product - exact.product).max() <= t.resolution / 2
    # The end of a pixel: 1e-4 is met by the next raw value above it, so the two may differ where
    # the exact product is within one and a half units of 1e-4, and nowhere else.
    ended, ended_exact = fixed.product < blend.stop, exact.product < 1e-4
    flipped = ended != ended_exact
    band = np.abs(exact.product - 1e-4) <= 1.5 * t.resolution
    assert not (flipped & ~band).any()
    assert 0 < flipped.sum() < band.sum() / 2
    # Elsewhere T is the product, and the weight errs by the product's rounding, times the colour;
    # weight times colour is rounded once, by half a unit of the accumulator.
    same = ~flipped
    error = np.abs(t.to_float(fixed.transmittance) - exact.transmittance)[same]
    assert error.max() <= t.resolution / 2
    error = np.abs(blend.accumulator.to_float(fixed.accumulator) - exact.accumulator)
    bound = blend.color.to_float(color) * t.resolution / 2 + blend.accumulator.resolution / 2
    assert (error <= bound)[same].all()


def test_fixed_against_float_of_a_list():
    """Errors along a list of fragments.

    With ``e`` the error of the product and ``r`` half a unit of T, a fragment leaves at most
    ``(1 - alpha) e + r``, and its weight, the difference of two products, is off by at most
    ``alpha e + r``: a list's error grows by a unit a fragment at most and never runs away.
    """
    rng = np.random.default_rng(2)
    pixels = 2000
    fixed, exact = start_raw(BLEND, pixels), start_float(pixels)
    error, color_error = np.zeros(pixels), np.zeros((pixels, 3))
    half, color_half = BLEND.transmittance.resolution / 2, BLEND.accumulator.resolution / 2
    same = np.ones(pixels, bool)
    for _ in range(60):
        alpha = rng.integers(0, ALPHA.alpha_cap + 1, pixels) >> rng.integers(0, 8, pixels)
        color = rng.integers(0, BLEND.color.raw_max + 1, (pixels, 3))
        share = ALPHA.alpha.to_float(alpha)
        value = BLEND.color.to_float(color)
        color_error += value * (share * error + half)[:, None] + color_half
        error = (1 - share) * error + half
        fixed = blend_fixed(ALPHA, BLEND, fixed, alpha, color)
        exact = blend_float(exact, share, value)
        flipped = (fixed.product < BLEND.stop) != (exact.product < 1e-4)
        # Every difference in when a pixel ends is a true crossing of the limit.
        distance = np.abs(exact.product - 1e-4)
        assert (distance <= error + BLEND.transmittance.resolution)[same & flipped].all()
        same &= ~flipped
    assert same.mean() > 0.9
    ended = exact.product < 1e-4
    assert 0.2 < ended.mean() < 1
    t = BLEND.transmittance.to_float(fixed.transmittance)
    # An ended pixel's T is older than its product and errs by no more than was allowed since.
    assert (np.abs(t - exact.transmittance)[same] <= 60 * half).all()
    assert (np.abs(t - exact.transmittance)[same & ~ended] <= error[same & ~ended]).all()
    got = BLEND.accumulator.to_float(fixed.accumulator)
    assert (np.abs(got - exact.accumulator) <= color_error)[same].all()


def test_weights_and_transmittance_sum_to_one():
    """White over white is white: the weights telescope, so nothing is lost to rounding."""
    rng = np.random.default_rng(3)
    state = start_raw(BLEND, 500)
    white = np.full((500, 3), 1 << BLEND.color.frac_bits)
    shift = BLEND.accumulator.frac_bits - BLEND.transmittance.frac_bits
    for _ in range(100):
        alpha = rng.integers(0, ALPHA.alpha_cap + 1, 500) >> rng.integers(0, 12, 500)
        state = blend_fixed(ALPHA, BLEND, state, alpha, white)
        total = (state.transmittance << shift)[:, None] + state.accumulator
        assert (total == BLEND.one << shift).all()


@pytest.mark.parametrize("alpha", [1, 2, 64, 1000, 8192, 16220])
def test_accumulator_never_overflows(alpha):
    """The brightest colour until nothing changes any more, in ever so small steps."""
    state = start_raw(BLEND, 1)
    color = np.full((1, 3), BLEND.color.raw_max)
    while True:
        after = blend_fixed(ALPHA, BLEND, state, np.array([alpha]), color)
        if after.product == state.product:
            break
        state = after
    assert state.accumulator.max() <= BLEND.accumulator.raw_max
    assert state.accumulator.max() >= 0.9 * BLEND.color.raw_max * 2 ** (
        BLEND.accumulator.frac_bits - BLEND.color.frac_bits) * (
            1 - BLEND.transmittance.to_float(state.transmittance[0]))


@nb.njit
def _each(constants, alpha_frac, before, alpha, color):
    product, added = np.empty(len(before), np.int64), np.empty(len(before), np.int64)
    for k in range(len(before)):
        product[k] = _product_kernel(alpha_frac, before[k], alpha[k])
        added[k] = _add_kernel(constants, before[k] - product[k], color[k])
    return product, added


@pytest.mark.parametrize("blend", [BLEND, OTHER], ids=["default", "other"])
def test_kernel_is_fixed(blend):
    rng = np.random.default_rng(4)
    before = rng.integers(0, blend.one + 1, 20_000)
    alpha = rng.integers(0, ALPHA.alpha_cap + 1, 20_000)
    color = rng.integers(0, blend.color.raw_max + 1, 20_000)
    product, added = _each(blend_constants(blend), ALPHA.alpha.frac_bits, before, alpha, color)
    zero = np.zeros((20_000, 3), np.int64)
    want = blend_fixed(ALPHA, blend, BlendState(before, before, zero), alpha,
                       np.stack([color] * 3, axis=1))
    np.testing.assert_array_equal(product, want.product)
    blended = product >= blend.stop
    np.testing.assert_array_equal(np.where(blended, added, 0), want.accumulator[:, 0])


def fragments(array, count, seed):
    """Blocks of fragments: corners first, then random ones over few slots."""
    lanes, slots = array.lanes, 2 * array.blocks
    cap, bright = array.alpha.alpha_cap, array.blend.color.raw_max
    full = {"columns": (1 << array.block_width) - 1, "rows": (1 << array.block_height) - 1}
    none = [0] * 3

    def row(alpha, color, slot, first, **inside):
        return {"alpha": alpha, "color": color, "slot": slot, "first": first, **full, **inside}

    # T from one to the limit: 0.99 leaves 1312 units; 16209 of 16384 more leaves 14 units, the
    # last that is blended; 0.99 twice leaves 13 and ends the pixel, which nothing changes later.
    ends = [cap, 16209, cap, 0] * (lanes // 4)
    rows = [
        row([cap] * lanes, [bright] * 3, 0, 1),
        row(ends, [bright, 0, 1], 0, 0),
        row([0] * lanes, [bright] * 3, 0, 0),
        row([cap] * lanes, [bright] * 3, 0, 0),
        row([1] * lanes, [bright] * 3, 0, 0),
        # Another tile takes the slot: everything starts anew, in the next cycle.
        row([1] * lanes, [bright] * 3, 0, 1),
        row([0] * lanes, none, slots - 1, 1),
        row([cap] * lanes, [bright] * 3, slots - 1, 0, columns=0),
        # Pixels outside of the frame have ended from the start.
        row([cap] * lanes, [bright] * 3, 1, 1, columns=0),
        row([cap] * lanes, [bright] * 3, 2, 1, rows=0),
        row([cap] * lanes, [bright] * 3, 3, 1, columns=1, rows=1),
        row([cap] * lanes, [bright] * 3, 3, 0, columns=1, rows=1),
        row([cap] * lanes, [bright] * 3, 3, 0, columns=1, rows=1),
        row([1] * lanes, [bright, 0, bright], 3, 1, columns=1, rows=1),
    ]
    rng = np.random.default_rng(seed)
    # Which half a block was last blended in: in the other one it starts anew.
    half = {entry["slot"] % array.blocks: entry["slot"] // array.blocks for entry in rows}
    while len(rows) < count:
        slot = int(rng.integers(slots)) if rng.random() < 0.2 else int(rng.integers(4))
        block = slot % array.blocks
        first = half.get(block) != slot // array.blocks or rng.random() < 0.03
        half[block] = slot // array.blocks
        alpha = rng.integers(0, cap + 1, lanes) >> rng.integers(0, 10)
        alpha = np.where(rng.random(lanes) < 0.3, 0, alpha)
        rows.append(row(
            alpha.tolist(), rng.integers(0, bright + 1, 3).tolist(), slot, int(first),
            columns=int(rng.integers(1, full["columns"] + 1)) if first else full["columns"],
            rows=int(rng.integers(1, full["rows"] + 1)) if first else full["rows"]))
    return rows


class Expected:
    """The state of every slot behind every fragment, from the bit-true model."""

    def __init__(self, array, rows):
        self.dead, self.states = [], []
        slots: dict[int, BlendState] = {}
        for entry in rows:
            slot = entry["slot"]
            if entry["first"]:
                state = start_raw(array.blend, array.lanes)
                lane = np.arange(array.lanes)
                inside = ((entry["columns"] >> lane % array.block_width)
                          & (entry["rows"] >> lane // array.block_width) & 1)
                slots[slot] = state._replace(product=state.product * inside)
            color = np.tile(entry["color"], (array.lanes, 1))
            slots[slot] = blend_fixed(
                array.alpha, array.blend, slots[slot], np.array(entry["alpha"]), color)
            self.dead.append((slot, int((slots[slot].product < array.blend.stop).all())))
            self.states.append(dict(slots))


@cache
def bench(array):
    return streams.Bench(Blend(array))


def send(array, rows, gap=0.0, stall=0.0, seed=1, look=None, tail=0):
    """Send `rows`; `look` gives the slot to read in each cycle."""
    dut = bench(array).dut
    layout = Blend.fragments_layout(array)
    source = streams.Source(dut.i, [streams.pack(layout, entry) for entry in rows], gap)
    sink = streams.Sink(dut.o, len(rows), stall)

    def drive(ctx, cycle):
        if look is not None:
            ctx.set(dut.read_slot, look(cycle))
            ctx.set(dut.read_enable, 1)

    watch = {"slot": dut.read_slot, "state": Value.cast(dut.state)}
    trace = bench(array).run([source], [sink], seed=seed, tail=tail, drive=drive, watch=watch)
    got = [streams.unpack(dut.o.payload.shape(), word) for word in sink.words]
    return dut, source, sink, [(each.slot, each.dead) for each in got], trace


def assert_state(dut, word, state, early=None):
    """Colour of `state`, and T of it or of the state `early`."""
    pixels = streams.unpack(dut.state.shape(), word)
    assert [list(pixel.color) for pixel in pixels] == state.accumulator.tolist()
    assert [pixel.transmittance for pixel in pixels] == (early or state).transmittance.tolist()


@pytest.mark.parametrize(("gap", "stall"), [(0.0, 0.0), (0.4, 0.0), (0.0, 0.4), (0.3, 0.3)])
def test_rtl_against_fixed(gap, stall):
    array = ArrayDesign(lanes=16)
    rows = fragments(array, 250, 5)
    want = Expected(array, rows)
    slots = 2 * array.blocks
    dut, _, _, ended, trace = send(
        array, rows, gap, stall, seed=6, look=lambda cycle: cycle % slots, tail=slots + 10)
    assert ended == want.dead
    assert {dead for _, dead in ended} == {0, 1}
    # Behind the last fragment, every slot that was touched.
    seen = set()
    for slot, word in list(zip(trace["slot"][:-1], trace["state"][1:], strict=True))[-slots:]:
        if slot in want.states[-1]:
            assert_state(dut, word, want.states[-1][slot])
            seen.add(slot)
    assert seen == set(want.states[-1])


def test_rtl_against_fixed_of_other_formats():
    array = ArrayDesign(lanes=16, blend=OTHER)
    rows = fragments(array, 120, 7)
    want = Expected(array, rows)
    dut, _, _, ended, trace = send(array, rows, look=lambda cycle: 0, tail=10)
    assert ended == want.dead
    assert_state(dut, trace["state"][-1], want.states[-1][0])


def test_state_shows_after_the_latency():
    """In every cycle: the colour of all fragments of `latency` cycles ago or more, T likewise."""
    array = ArrayDesign(lanes=16)
    rows = fragments(array, 150, 8)
    want = Expected(array, rows)
    dut, source, _, _, trace = send(array, rows, gap=0.2, look=lambda cycle: 0, tail=10)
    assert dut.latency == model.LATENCY
    sent = [transfer.cycle for transfer in source.sent]
    changed = 0
    for cycle, word in enumerate(trace["state"]):
        behind = sum(each <= cycle - dut.latency for each in sent)
        early = sum(each <= cycle - dut.dead_latency for each in sent)
        if behind:
            assert_state(dut, word, want.states[behind - 1][0], want.states[early - 1][0])
            changed += cycle and word != trace["state"][cycle - 1]
    assert changed > 20


@pytest.mark.parametrize("count", [1, 2, 7, 50])
def test_cycles_match_rtl(count):
    array = ArrayDesign(lanes=16)
    # The same block in consecutive cycles.
    rows = [{**entry, "slot": 0, "first": int(number == 0)}
            for number, entry in enumerate(fragments(array, count, 9)[:count])]
    dut, source, sink, _, _ = send(array, rows)
    first = source.sent[0].cycle
    assert sink.received[0].cycle - first == dut.dead_latency == model.DEAD_LATENCY
    assert sink.received[-1].cycle - first + 1 == model.cycles(count)
    assert model.cycles(0) == 0


@pytest.mark.rtl
def test_verilog_against_fixed(run_testbench):
    run_testbench("blend", seed=7)

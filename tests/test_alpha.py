import itertools
import math
import re
import sys
from functools import cache
from pathlib import Path

import numba as nb
import numpy as np
import pytest

from splatforge.algos.alpha import (
    _alpha_kernel,
    alpha_constants,
    alpha_fixed,
    alpha_float,
    exp2_table,
    forms_fixed,
)
from splatforge.designs.alpha import AlphaDesign
from splatforge.designs.array import ArrayDesign
from splatforge.designs.fetch import SUBTILE_PX, SplatFormat
from splatforge.designs.fixed import Fixed
from splatforge.hw.alpha import Alpha
from splatforge.sim import alpha as model

sys.path.insert(0, str(Path(__file__).parent))
import streams

DESIGN = AlphaDesign()
SPLAT = SplatFormat()
FORMS = ("u0", "v0", "a", "b", "c")
#: Coarser here, finer there: nothing may rest on the default widths.
OTHER = AlphaDesign(
    form=Fixed(int_bits=3, frac_bits=11, signed=True),
    form_sum=Fixed(int_bits=8, frac_bits=13, signed=True),
    exponent=Fixed(int_bits=6, frac_bits=9),
    alpha=Fixed(int_bits=0, frac_bits=12),
    table_entries=16,
    table=Fixed(int_bits=1, frac_bits=14),
)


def test_carry_width_must_be_positive():
    with pytest.raises(ValueError, match=re.escape("Carry width must be positive, not 0")):
        streams.construct(Alpha, carry_width=0)


def test_number_of_blocks_must_not_be_negative():
    with pytest.raises(ValueError, match="Number of blocks must be non-negative, not -1"):
        model.cycles(-1)


def test_float_is_the_reference_rule():
    u, v, lo = np.array([0.0, 0.0, 2.0, 2.7, 3.0]), np.array([0.0, 1.0, 2.0, 0.8, 0.0]), 0.01
    got = alpha_float(u, v, lo)
    assert got.alpha[0] == 0.99
    assert got.alpha[1] == pytest.approx(2**-1.01)
    assert got.significant.tolist() == [True, True, False, True, False]
    assert got.alpha[[2, 4]].tolist() == [0.0, 0.0]
    edge = math.sqrt(math.log2(255))
    assert alpha_float(edge - 1e-9, 0, 0).significant
    assert not alpha_float(edge + 1e-9, 0, 0).significant


def exponent_error(design, radius):
    """Largest error of the raw exponent, in units of one, at ``radius = sqrt(u^2 + v^2)``.

    Each form is rounded by at most ``h = 2^-(f+1)`` with ``f`` the fraction bits of `form`. By
    Cauchy-Schwarz ``|2 (u du + v dv)| <= 2 radius sqrt(2) h``; the squares of the errors add
    ``2 h^2``; the sum of squares is rounded by half a unit of the exponent. The opacity's logarithm
    is exact: both models get the same raw integer.
    """
    h = design.form.resolution / 2
    return 2 * math.sqrt(2) * h * radius + 2 * h * h + design.exponent.resolution / 2


def alpha_error(design, alpha, radius, octave):
    """Largest error of alpha where the fragment is significant.

    - An error ``dp`` of the exponent is a factor of at most ``2^dp``.
    - Interpolation of a convex function with steps of ``s``: ``s^2 / 8`` times the largest second
      derivative, ``ln(2)^2`` on [0, 1); each entry is rounded by half a unit of the table, and so
      is every mean of two entries. Both shrink by ``2^-octave`` when the value is shifted.
    - One rounding to half a unit of alpha; the cap is 0.99 rounded down, by less than one unit.
    """
    table = (math.log(2) / design.table_entries) ** 2 / 8 + design.table.resolution / 2
    error = alpha * (2 ** exponent_error(design, radius) - 1)
    error = error + table * 2.0**-octave + design.alpha.resolution / 2
    return np.where(alpha >= 0.99 - error, np.maximum(error, design.alpha.resolution), error)


def fragments(design, count, seed):
    """Raw forms and opacities, half of them anywhere, half around the contour of 1/255."""
    rng = np.random.default_rng(seed)
    lo = rng.integers(0, design.log_opacity.raw_max + 1, count)
    value = design.log_opacity.to_float(lo)
    # The radius at which alpha is 1/255, and a band of 1 % around it.
    edge = np.sqrt(np.maximum(math.log2(255) - value, 0))
    radius = np.where(rng.random(count) < 0.5, edge * rng.uniform(0.99, 1.01, count),
                      rng.uniform(0, 6, count))
    angle = rng.uniform(0, 2 * math.pi, count)
    u = design.form_sum.quantize(radius * np.cos(angle))
    v = design.form_sum.quantize(radius * np.sin(angle))
    return u, v, lo


@pytest.mark.parametrize("design", [DESIGN, OTHER], ids=["default", "other"])
def test_fixed_against_float(design):
    u, v, lo = fragments(design, 200_000, 1)
    fixed = alpha_fixed(design, u, v, lo)
    u, v = design.form_sum.to_float(u), design.form_sum.to_float(v)
    value = design.log_opacity.to_float(lo)
    exact = alpha_float(u, v, value)
    radius = np.hypot(u, v)
    exponent = radius**2 + value

    # Decisions: the same away from the contour, by more than the error of the exponent.
    band = exponent_error(design, radius)
    flipped = fixed.significant != exact.significant
    distance = np.abs(exponent - math.log2(255))
    assert (distance[flipped] <= band[flipped]).all()
    inside = int((distance <= band).sum())
    assert inside > 5_000
    assert flipped.sum() < inside / 2
    # The cut-off is the grid's value below log2(255), so the exponent that is still rounded to it
    # reaches half a unit further. About that point, rounding half up favours no side: as many
    # cross inward as outward, to five sigma.
    nominal = (design.cutoff + 0.5) * design.exponent.resolution
    assert abs(nominal - math.log2(255)) <= design.exponent.resolution / 2
    crossed = fixed.significant != (exponent <= nominal)
    inward = int((crossed & fixed.significant).sum())
    assert abs(2 * inward - crossed.sum()) <= 5 * math.sqrt(crossed.sum())

    # Values, where both see the fragment.
    both = fixed.significant & exact.significant
    alpha = design.alpha.to_float(fixed.alpha)[both]
    error = np.abs(alpha - exact.alpha[both])
    octave = np.floor(np.maximum(exponent[both] - band[both], 0))
    assert (error <= alpha_error(design, exact.alpha[both], radius[both], octave)).all()
    assert alpha.max() == design.alpha.to_float(design.alpha_cap)
    assert (fixed.alpha[~fixed.significant] == 0).all()
    assert (fixed.alpha[fixed.significant] > 0).all()
    if design == DESIGN:
        # The figure that `alpha_fixed` states, from the same bound over all radii.
        radii = np.linspace(0, math.sqrt(math.log2(255)), 1000)
        bound = max(alpha_error(design, 2.0 ** -(r * r), r, 0) for r in radii)
        assert bound <= 7.9e-4
        assert error.max() <= bound


def test_corners_of_fixed():
    step = DESIGN.form_sum.frac_bits - DESIGN.form.frac_bits
    top = DESIGN.log_opacity.raw_max
    # Full opacity at the centre is capped; u^2 of 45^2 and 51^2 rounds to 2 and 3 units, and
    # with the largest opacity logarithm, 8184 units, that is the cut-off of 8186 and one above.
    assert alpha_fixed(DESIGN, 0, 0, 0).alpha == DESIGN.alpha_cap
    assert DESIGN.cutoff == 8186
    assert alpha_fixed(DESIGN, 45 << step, 0, top).significant
    assert not alpha_fixed(DESIGN, 51 << step, 0, top).significant
    # What saturates is insignificant, on either side.
    wide = DESIGN.form_sum
    for u, v in itertools.product((wide.raw_min, 0, wide.raw_max), repeat=2):
        assert alpha_fixed(DESIGN, u, v, 0).significant == (u == v == 0)


def test_table_falls_from_one_to_a_half():
    table = exp2_table(DESIGN)
    assert (table[0], table[-1]) == (1 << 16, 1 << 15)
    assert (np.diff(table) < 0).all()


@nb.njit
def _each(constants, table, u, v, lo):
    out = np.empty(len(u), np.int64)
    for k in range(len(u)):
        out[k] = _alpha_kernel(constants, table, u[k], v[k], lo[k])
    return out


@pytest.mark.parametrize("design", [DESIGN, OTHER], ids=["default", "other"])
def test_kernel_is_fixed(design):
    u, v, lo = fragments(design, 50_000, 2)
    wide = design.form_sum
    u[:4], v[:4] = (wide.raw_min, wide.raw_max, 0, 0), (0, 0, wide.raw_min, wide.raw_max)
    want = alpha_fixed(design, u, v, lo)
    got = _each(alpha_constants(design), exp2_table(design), u, v, lo)
    np.testing.assert_array_equal(got, np.where(want.significant, want.alpha, -1))


def test_forms_by_hand():
    # One unit of a field is two of the sum.
    fields = {"u0": 3, "v0": -5, "a": 7, "b": -11, "c": 13}
    u, v = forms_fixed(DESIGN, SPLAT, fields, np.array([0, 15, 0, 15]), np.array([0, 0, 15, 15]))
    assert u.tolist() == [6, 216, -324, -114]
    assert v.tolist() == [-10, -10, 380, 380]


def test_no_form_leaves_the_sum():
    """The extremes of every field at the far corner of the tile; the hardware would wrap."""
    for top in (False, True):
        fields = {name: getattr(SPLAT, name).raw_max if top else getattr(SPLAT, name).raw_min
                  for name in FORMS}
        for x, y in ((0, 0), (15, 15)):
            for form in forms_fixed(DESIGN, SPLAT, fields, x, y):
                assert DESIGN.form_sum.raw_min <= form <= DESIGN.form_sum.raw_max


def splats(array, count, seed):
    """Records with the corners of every field in front, then ones that are often seen."""
    blocks, subtiles = array.blocks, array.lanes // SUBTILE_PX**2
    reach = (1 << subtiles) - 1
    rows = []
    ends = [(getattr(SPLAT, name).raw_min, getattr(SPLAT, name).raw_max) for name in FORMS]
    for number, corner in enumerate(itertools.product(*ends)):
        rows.append([*corner, (0, SPLAT.log_opacity.raw_max)[number % 2],
                     (0, blocks - 1)[number // 2 % 2], reach])
    zero = [0] * 5
    # The cap; the cut-off and one unit above it; in reach and out of it, one block twice running.
    rows += [[*zero, 0, 0, reach], [*zero, 0, 0, 0], [*zero, SPLAT.log_opacity.raw_max, 0, reach]]
    rows += [[u0, 0, 0, 0, 0, SPLAT.log_opacity.raw_max, 0, reach] for u0 in (90, 102, -90, -102)]
    rng = np.random.default_rng(seed)
    while len(rows) < count:
        # Forms within the visible range at a pixel of the block, slopes from flat to steep.
        block = int(rng.integers(blocks))
        x = block % array.blocks_x * array.block_width + rng.integers(array.block_width)
        y = block // array.blocks_x * array.block_height + rng.integers(array.block_height)
        a, b, c = rng.uniform(0, 1.5), rng.uniform(-1.5, 1.5), rng.uniform(0, 1.5)
        a, b, c = np.array([a, b, c]) * 10.0 ** rng.uniform(-2, 0)
        u, v = rng.uniform(-3, 3, 2)
        values = {"u0": u - a * x - b * y, "v0": v - c * y, "a": a, "b": b, "c": c}
        rows.append([*(int(getattr(SPLAT, name).quantize(values[name])) for name in FORMS),
                     int(rng.integers(SPLAT.log_opacity.raw_max + 1) ** rng.integers(2)),
                     block, int(rng.integers(1, reach + 1))])
    return rows


def expected(array, rows):
    """Alphas of every lane of every block, from the bit-true model."""
    pixel = np.arange(array.lanes)
    within_x, within_y = pixel % array.block_width, pixel // array.block_width
    subtile = (within_y // SUBTILE_PX * (array.block_width // SUBTILE_PX)
               + within_x // SUBTILE_PX)
    out = []
    for *forms, lo, block, reach in rows:
        x = block % array.blocks_x * array.block_width + within_x
        y = block // array.blocks_x * array.block_height + within_y
        u, v = forms_fixed(array.alpha, SPLAT, dict(zip(FORMS, forms, strict=True)), x, y)
        alpha = alpha_fixed(array.alpha, u, v, lo).alpha
        out.append(np.where(reach >> subtile & 1, alpha, 0).tolist())
    return out


@cache
def bench(array):
    return streams.Bench(Alpha(array, SPLAT, carry_width=10))


def send(array, rows, gap=0.0, stall=0.0, seed=1):
    dut = bench(array).dut
    layout = Alpha.splat_layout(array, SPLAT, 10)
    names = (*FORMS, "log_opacity", "block", "reach")
    words = [
        streams.pack(layout, {**dict(zip(names, row, strict=True)), "carry": number})
        for number, row in enumerate(rows)]
    source = streams.Source(dut.i, words, gap)
    sink = streams.Sink(dut.o, len(rows), stall)
    bench(array).run([source], [sink], seed=seed)
    blocks = [streams.unpack(Alpha.block_layout(array, 10), word) for word in sink.words]
    return dut, source, sink, blocks


@pytest.mark.parametrize(("gap", "stall"), [(0.0, 0.0), (0.4, 0.0), (0.0, 0.4), (0.3, 0.3)])
def test_rtl_against_fixed(gap, stall):
    array = ArrayDesign(lanes=16)
    rows = splats(array, 260, 3)
    want = expected(array, rows)
    visible = np.array(want)
    assert (visible[50:] > 0).mean() > 0.1
    _, _, _, blocks = send(array, rows, gap, stall, seed=4)
    assert [block.carry for block in blocks] == list(range(len(rows)))
    assert [list(block.alpha) for block in blocks] == want


@pytest.mark.parametrize("array", [
    ArrayDesign(lanes=32), ArrayDesign(lanes=16, alpha=OTHER)], ids=["two subtiles", "formats"])
def test_rtl_against_fixed_of_other_designs(array):
    rows = splats(array, 150, 5)
    _, _, _, blocks = send(array, rows)
    assert [list(block.alpha) for block in blocks] == expected(array, rows)


@pytest.mark.parametrize("count", [1, 2, 7, 50])
def test_cycles_match_rtl(count):
    array = ArrayDesign(lanes=16)
    dut, source, sink, _ = send(array, splats(array, 50, 6)[:count])
    first = source.sent[0].cycle
    assert sink.received[0].cycle - first == dut.latency == model.LATENCY
    assert sink.received[-1].cycle - first + 1 == model.cycles(count)
    assert model.cycles(0) == 0


@pytest.mark.rtl
def test_verilog_against_fixed(run_testbench):
    run_testbench("alpha", seed=7)

"""Sourced numbers, the committed cost tables, and what a file may not say."""

import math
import os
import tomllib
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splatforge.sim import cacti
from splatforge.sim.cacti import configuration, parse
from splatforge.sim.costs import (
    LIBRARIES,
    CostTable,
    Entry,
    Sourced,
    default_costs,
    read_entries,
)

TABLE = default_costs()
EVENTS = ("multiply_18x14", "add_20", "shift_16", "register_bit_clock", "sram_read_128b_4KiB",
          "sram_write_64b_32KiB", "dram_read_byte", "dram_write_byte")
ITEMS = ("multiply_18x14", "add_20", "shift_16", "register_bit", "sram_128b_4KiB")
GOOD = """
[energy.add_20]
value = 2.0
unit = "pJ"
low = 1.0
high = 3.0
source = "someone, 2020"
"""


def sourced(value: float, unit: str = "pJ", spread: float = 2.0) -> Sourced:
    return Sourced(value, unit, "test", value / spread, value * spread)


# --- numbers ---


@pytest.mark.parametrize(("unit", "other", "factor"), [
    ("pJ", "J", 1e-12), ("pJ/bit", "pJ/B", 8.0), ("mW", "J/s", 1e-3), ("um^2", "mm^2", 1e-6),
    ("MHz", "1/s", 1e6), ("GB/s", "bit/s", 8e9), ("ms", "s", 1e-3), ("m", "mm", 1e3),
    ("pJ/bit^2", "J/bit^2", 1e-12), ("Mbps", "bit/s", 1e6), ("FLOP/s", "TFLOP/s", 1e-12),
])
def test_units_convert(unit: str, other: str, factor: float) -> None:
    converted = sourced(3.0, unit).to(other)
    assert converted.value == pytest.approx(3.0 * factor, rel=1e-12)
    assert converted.low == pytest.approx(1.5 * factor, rel=1e-12)


@pytest.mark.parametrize("unit", ["furlong", "pJ/fortnight", "xJ", "p1", "J^-2", ""])
def test_unknown_unit(unit: str) -> None:
    with pytest.raises(ValueError, match="Unit must"):
        sourced(1.0, unit)


def test_dimensions_are_checked() -> None:
    with pytest.raises(ValueError, match="Unit must be one of J, not 'um\\^2'"):
        sourced(1.0).to("um^2")
    with pytest.raises(ValueError, match="Unit must be one of"):
        sourced(1.0) + sourced(1.0, "W")
    with pytest.raises(ValueError, match="Source must"):
        Sourced(1.0, "pJ", " ", 1.0, 1.0)
    with pytest.raises(ValueError, match="Divisor must be above zero"):
        sourced(1.0) / Sourced(1.0, "s", "test", 0.0, 1.0)


def test_points_follow_the_number() -> None:
    """What was calibrated on whose figure is known of everything computed from it."""
    read = read_entries("t.toml", tomllib.loads(GOOD + 'calibrated_on = ["paper.point"]'))
    ours, other = read["energy.add_20"].cost, Sourced(1, "s", "b", 1, 1, frozenset({"q.r"}))
    assert ours.points == {"paper.point"}
    assert ours.to("J").points == (ours * 2.0).points == (ours + ours).points == ours.points
    assert (ours * other).points == (ours / other).points == {"paper.point", "q.r"}
    assert (ours + Sourced(1, "pJ", "b", 1, 1, frozenset({"q.r"}))).points == {"paper.point", "q.r"}


@pytest.mark.parametrize("points", ['"paper.point"', "[1]", "{}"])
def test_calibrated_on_is_a_list_of_ids(points: str) -> None:
    with pytest.raises(ValueError, match="calibrated_on must be a list of ids of claims"):
        read_entries("t.toml", tomllib.loads(GOOD + f"calibrated_on = {points}"))


@pytest.mark.parametrize(("value", "low", "high", "rule"), [
    (1.0, 1.5, 2.0, "hold"), (1.0, 0.5, 0.9, "hold"), (1.0, -1.0, 2.0, "hold"),
    (math.nan, 0.0, 1.0, "finite"), (1.0, 0.0, math.inf, "finite"),
])
def test_interval_must_hold_the_value(value: float, low: float, high: float, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        Sourced(value, "pJ", "test", low, high)


def test_arithmetic_by_hand() -> None:
    power, time = Sourced(2, "W", "a", 1, 3), Sourced(5, "ms", "b", 4, 6)
    energy = (power * time).to("mJ")
    assert (energy.value, energy.low, energy.high) == pytest.approx((10, 4, 18))
    assert energy.source == "a; b"
    back = (energy / time).to("W")
    assert (back.value, back.low, back.high) == pytest.approx((2, 4 / 6, 18 / 4))
    total = Sourced(1, "nJ", "a", 1, 2) + Sourced(500, "pJ", "a", 100, 900)
    assert (total.value, total.unit, total.low, total.high, total.source) == \
        pytest.approx((1.5, "nJ", 1.1, 2.9, "a"))
    assert str(Sourced(0.123456, "pJ", "a", 0.1, 1)) == "0.12 pJ [0.1, 1]"
    assert str(Sourced.exact(2, "1", "a")) == "2 [2, 2]"
    assert str(Sourced(6347, "um^2", "a", 3811, 9280)) == "6300 um^2 [3800, 9300]"


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(1, 10))
def test_products_and_sums_hold_their_value(a: float, b: float, spread: float) -> None:
    left, right = sourced(a, "pJ/bit", spread), sourced(b, "bit", spread)
    for result in (left * right, left * b, b * left, left + left, right.to("B")):
        assert result.low <= result.value <= result.high
    assert (left * right).to("pJ").value == pytest.approx(a * b, rel=1e-9)


# --- the committed tables ---


@pytest.mark.parametrize("name", ["costs.toml", "sram.toml", "devices.toml", "paths.toml"])
def test_committed_entries_say_who_says_so(name: str) -> None:
    tree = tomllib.loads(files("splatforge.sim").joinpath(name).read_text())
    for key in ("energy_hp", "energy_lp", "delay_hp", "delay_lp", "area"):
        tree.get("scaling", {}).pop(key, None)
    tree.pop("rtl", None)
    for key in ("points", "interpolation", "width_interpolation", "source"):
        tree.get("sram", {}).pop(key, None)
    entries = read_entries(name, tree)
    assert entries
    for entry in entries.values():
        assert len(entry.cost.source) > 20, entry.name
        if entry.cost.low < entry.cost.high and not entry.name.startswith("published."):
            assert entry.interval, f"{entry.name}: whose interval?"


@pytest.mark.parametrize("node", [7, 22, 28, 45, 65, 130])
def test_band_holds_the_value_at_every_node(node: int) -> None:
    costs = [TABLE.energy_of(event, node_nm=node) for event in EVENTS]
    costs += [TABLE.area_of(item, node_nm=node) for item in ITEMS]
    for cost in costs:
        assert 0 < cost.low <= cost.value <= cost.high
        assert cost.unit in ("pJ", "um^2")


def test_horowitz_is_met_at_45_nm() -> None:
    def energy(event: str) -> float:
        return TABLE.energy_of(event, node_nm=45).value

    assert energy("multiply_8x8") == pytest.approx(0.2, rel=0.05)
    assert energy("multiply_32x32") == pytest.approx(3.1, rel=0.05)
    assert energy("add_8") == pytest.approx(0.03, rel=0.15)
    assert energy("add_32") == pytest.approx(0.1, rel=0.15)


#: What the sources of costs.toml print, brought to the unit of each entry: value, low, high. Gate
#: model: multiplier 1.1435 pJ (0.4864 + 0.6571 mW at 1 ns) to 12.683 pJ, adder 0.02154 to 0.21 pJ,
#: brought from 40 to 45 nm.
TO_45 = TABLE.scale("energy", 40, 45).value
SOURCES = {
    "energy.multiply": ((0.2 / 64 + 3.1 / 1024) / 2, 1.1435 / 1024 * TO_45, 12.683 / 1024 * TO_45),
    "energy.add": ((0.03 / 8 + 0.1 / 32) / 2, 0.02154 / 32 * TO_45, 0.21 / 32 * TO_45),
    "energy.shift": (0.417 / 160, 0.417 / 160, 0.67 / 160),
    # 9.0 fJ; 6.6 fJ; 0.00193 mW for 6 ns.
    "energy.register_bit_clock": (9.0e-3, 6.6e-3, 6 * 0.00193),
    "energy.lpddr3": (math.sqrt(6 * 20), 6, 20),
    "energy.lpddr4": (8, 4, 2.33 / 18.1e9 / 8 * 1e12),
    "energy.lpddr5": ((3 + 6) / 2, 3, 8),
    "area.multiply": (4595 / 1024, 3312.6 / 1024, 6351.3 / 1024),
    "area.add": (200.3 / 32, 129.05 / 32, 280 / 32),
    "area.shift": (374.4 / 160, 250 / 160, 374.4 / 160),
    "area.register_bit": (5.98, 4.31, 7.98),
}


@pytest.mark.parametrize("name", SOURCES)
def test_entries_are_what_their_sources_print(name: str) -> None:
    cost = TABLE.entry(name).cost
    tolerance = 0.15 if name == "energy.add" else 0.02
    assert (cost.value, cost.low, cost.high) == pytest.approx(SOURCES[name], rel=tolerance)


def test_every_law_has_its_source_here() -> None:
    assert set(SOURCES) == {name for name, entry in TABLE.entries.items()
                            if name.startswith(("energy.", "area.")) and entry.kind != "measured"}


def test_foundry_macros_give_the_upper_ends_of_the_sram() -> None:
    """IHP SG13G2 against CACTI at 90 nm, 64 bit; the points were run as `configuration` says."""
    size_kib = np.array([2, 4, 8, 16])
    foundry_pj = np.array([49.634, 68.897, 91.827, 122.394])
    cacti_pj = np.array([6.921, 11.437, 20.752, 28.604])
    energy = foundry_pj * TABLE.scale("energy", 130, 90).value / cacti_pj
    area = np.array([93181, 491634]) * TABLE.scale("area", 130, 90).value \
        / np.array([26899, 193483])
    assert energy.max() == pytest.approx(TABLE.sram.energy_model.high, rel=0.01)
    assert area.max() == pytest.approx(TABLE.sram.area_model.high, rel=0.01)
    assert size_kib[energy.argmin()] == 16
    entries = tomllib.loads(files("splatforge.sim").joinpath("sram.toml").read_text())["sram"]
    assert f"{energy.min():.1f} to {energy.max():.1f} times" in entries["energy_model"]["interval"]
    assert f"{area.min():.2f} to {area.max():.2f} times" in entries["area_model"]["interval"]


def test_foundry_macros_leak_what_the_sram_does() -> None:
    """IHP SG13G2 at 130 nm and 1.2 V against itrs-lstp at 90 nm, 64 bit, 256 to 2048 words."""
    foundry_uw = np.array([198.0155, 396.0310, 792.0620, 1584.1239]) / 1e3
    cacti_uw = np.array([0.2463, 0.4130, 0.9130, 1.7166])
    assert (abs(foundry_uw / cacti_uw - 0.9) < 0.1).all()
    text = files("splatforge.sim").joinpath("sram.toml").read_text()
    assert "0.20 to 1.58 uW at 130 nm" in text
    assert "0.25 to 1.72 uW at" in text
    ratios = [point[4] / point[3] for point in TABLE.sram.points.values()]
    assert f"{min(ratios):.0f} to {max(ratios):.0f} times as much" in text


def test_leakage_is_not_scaled() -> None:
    """A node without macros has those of the nearest; the cells, not the rule, say how wide."""
    near, far = (TABLE.energy_of("sram_leakage_64b_8KiB", node_nm=node) for node in (22, 16))
    assert far == near
    assert near.to("pJ").value == pytest.approx(TABLE.sram.points[22, 8192, 64][3])
    assert near.high == pytest.approx(TABLE.sram.points[22, 8192, 64][4])


@pytest.mark.parametrize(("event", "node", "pj"), [
    ("sram_read_64b_32KiB", 22, 3.79), ("sram_read_64b_32KiB", 32, 8.26),
    ("sram_read_64b_1KiB", 45, 1.67), ("sram_read_128b_4KiB", 65, 8.16),
    ("sram_read_256b_64KiB", 32, 29.6), ("sram_write_128b_4KiB", 45, 11.9),
])
def test_cacti_points(event: str, node: int, pj: float) -> None:
    assert TABLE.energy_of(event, node_nm=node).value == pytest.approx(pj, rel=2e-3)


def test_interpolation_error_is_the_stated_one() -> None:
    assert 0.2 < TABLE.sram.interpolation_error() <= TABLE.sram.interpolation
    assert 0.2 < TABLE.sram.interpolation_error(2) <= TABLE.sram.width_interpolation


def test_sram_interpolates_between_its_neighbours() -> None:
    small, middle, large = (TABLE.energy_of(f"sram_read_128b_{size}B", node_nm=28)
                            for size in (4096, 6000, 8192))
    assert small.value < middle.value < large.value
    assert middle.high / middle.value > large.high / large.value
    both = TABLE.energy_of("sram_read_144b_6000B", node_nm=28)
    assert both.high / both.value == pytest.approx(
        middle.high / middle.value * (1 + TABLE.sram.width_interpolation))
    narrow, odd, wide = (TABLE.energy_of(f"sram_read_{bits}b_8KiB", node_nm=28).value
                         for bits in (64, 80, 96))
    assert narrow < odd < wide


def test_other_nodes_start_from_the_nearest_macro() -> None:
    near = TABLE.energy_of("sram_read_64b_8KiB", node_nm=22)
    far = TABLE.energy_of("sram_read_64b_8KiB", node_nm=16)
    assert far.value == pytest.approx(near.value * TABLE.scale("energy", 22, 16).value)


def test_areas_of_macros() -> None:
    """As CACTI has them; at other nodes they scale as an area, and their interval is the area's."""
    macro = TABLE.area_of("sram_64b_32KiB", node_nm=22)
    assert macro.value == pytest.approx(26695)
    assert macro.high == pytest.approx(1.52 * macro.value)
    assert macro.low == macro.value
    assert TABLE.area_of("sram_64b_32KiB", node_nm=16).value == pytest.approx(
        macro.value * TABLE.scale("area", 22, 16).value)


def test_the_nearest_macro_is_nearest_in_the_logarithm() -> None:
    """38.2 nm is nearer to 45 than to 32: 1.18 and 1.19 times; the differences say the opposite."""
    assert 45 / 38.2 < 38.2 / 32
    assert 45 - 38.2 > 38.2 - 32
    assert TABLE.energy_of("sram_read_64b_8KiB", node_nm=38.2).value == pytest.approx(
        TABLE.energy_of("sram_read_64b_8KiB", node_nm=45).value
        * TABLE.scale("energy", 45, 38.2).value)


def test_a_shifter_has_a_level_for_every_bit_of_its_distance() -> None:
    at = TABLE.entry("energy.shift").node_nm
    assert at is not None
    for bits, levels in ((1, 1), (2, 1), (3, 2), (16, 4), (17, 5), (18, 5)):
        assert TABLE.energy_of(f"shift_{bits}", node_nm=at).value == pytest.approx(
            bits * levels * TABLE.entry("energy.shift").cost.value)


def test_interval_of_a_measured_block_holds_every_library() -> None:
    """The last library's value; what the others say at the node widens its interval."""
    entries = dict(TABLE.entries)
    for library, value in zip(LIBRARIES, (90.0, 1.0, 10.0), strict=True):
        name = f"measured.{library}.blend.evaluation"
        entries[name] = Entry(name=name, node_nm=28,
                              cost=Sourced(value, "pJ", "test", value / 2, value * 2))
    event = replace(TABLE, entries=entries).energy_of("blend_evaluation", node_nm=28)
    assert (event.value, event.low, event.high) == (10, 1, 90)


def test_a_library_measured_again_is_the_one_in_use(tmp_path) -> None:
    first = LIBRARIES[0]
    path = tmp_path / "mine.toml"
    path.write_text(GOOD.replace("energy.add_20", f"measured.{first}.alpha.evaluation"))
    table = CostTable.load(path)
    assert table.libraries == (*LIBRARIES[1:], first)
    assert table.energy_of("alpha_evaluation", node_nm=28).value == 2


@pytest.mark.parametrize("quantity", ["energy", "area"])
def test_scaling(quantity: str) -> None:
    assert TABLE.scale(quantity, 28, 28).high == 1.0
    down, up = TABLE.scale(quantity, 45, 28), TABLE.scale(quantity, 28, 45)
    assert down.value * up.value == pytest.approx(1.0)
    assert down.value < 1
    chain = TABLE.scale(quantity, 45, 32).value * TABLE.scale(quantity, 32, 28).value
    assert chain == pytest.approx(down.value)
    spreads = [(cost := TABLE.scale(quantity, 45, node)).high / cost.low for node in (40, 28, 10)]
    assert spreads == sorted(spreads)


def test_scaling_by_hand() -> None:
    # Stillmaker and Baas 2017, high-performance family at 0.9 V: 0.4571 / 0.6989 from 45 to 32 nm.
    def polynomial(a: float, b: float, c: float) -> float:
        return a * 0.81 + b * 0.9 + c

    ratio = polynomial(0.8367, -0.4341, 0.1701) / polynomial(1.018, -0.3107, 0.1539)
    assert TABLE.scale("energy", 45, 32).value == pytest.approx(ratio)
    assert TABLE.scale("area", 45, 32).value == pytest.approx(0.072 / 0.16)
    # 28 nm lies between 32 and 20 nm, at this part of the way in the logarithm.
    part = math.log(32 / 28) / math.log(32 / 20)
    at_32, at_20 = polynomial(0.8367, -0.4341, 0.1701), polynomial(0.373, -0.1582, 0.04104)
    assert TABLE.scale("energy", 32, 28).value == pytest.approx((at_20 / at_32) ** part)
    assert TABLE.scale("area", 32, 28).value == pytest.approx((0.033 / 0.072) ** part)


def test_scaling_admits_what_the_rule_missed() -> None:
    """The step that was measured, 130 to 45 nm: its error is in the interval, whole."""
    energy, area = TABLE.scale("energy", 130, 45), TABLE.scale("area", 130, 45)
    # LP family at 0.8 V, the largest of the ratios: 0.69302 / 2.12624.
    largest = (1.103 * 0.64 - 0.362 * 0.8 + 0.2767) / (7.171 * 0.64 - 6.709 * 0.8 + 2.904)
    assert energy.high == pytest.approx(1.71 * largest)
    assert (area.low, area.value, area.high) == pytest.approx((0.61 * 0.16, 0.16, 1.29 * 0.16))


@given(st.integers(1, 64), st.integers(1, 64))
def test_wider_never_costs_less(n: int, m: int) -> None:
    for name, wider in ((f"multiply_{n}x{m}", f"multiply_{n}x{m + 1}"),
                        (f"add_{n}", f"add_{n + 1}"), (f"shift_{n}", f"shift_{n + 1}")):
        assert TABLE.energy_of(name, node_nm=28).value < TABLE.energy_of(wider, node_nm=28).value
        assert TABLE.area_of(name, node_nm=28).value < TABLE.area_of(wider, node_nm=28).value


def test_dram_choice() -> None:
    lpddr4 = TABLE.energy_of("dram_read_byte", node_nm=28)
    lpddr5 = TABLE.energy_of("dram_read_byte", node_nm=28, dram="lpddr5")
    assert lpddr4.value == pytest.approx(64.0)
    assert lpddr5.value < lpddr4.value
    assert TABLE.energy_of("dram_write_byte", node_nm=7).value == pytest.approx(64.0)


@pytest.mark.parametrize(("event", "message"), [
    ("multiply_18x0", "at least 1 bit"), ("add_0", "at least 1 bit"), ("shift_0", "at least 1"),
    ("multiply_18", "of the form"), ("divide_3x3", "of the form"),
    ("sram_read_64b_1B", "size in bytes must be"), ("sram_read_1024b_4KiB", "width in bits must"),
    ("sram_read_512b_512B", "CACTI finds no organisation"),
])
def test_events_that_have_no_cost(event: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TABLE.energy_of(event, node_nm=28)


def test_requests_outside_the_tables() -> None:
    with pytest.raises(ValueError, match="Node must be 7 to 130 nm, not 5"):
        TABLE.energy_of("add_20", node_nm=5)
    with pytest.raises(ValueError, match="energy, delay or area, not 'speed'"):
        TABLE.scale("speed", 45, 28)
    with pytest.raises(ValueError, match=r"'energy\.hbm9' must be in the table"):
        TABLE.energy_of("dram_read_byte", node_nm=28, dram="hbm9")
    with pytest.raises(ValueError, match="SRAM node must be one of"):
        TABLE.sram.cost("read", size_bytes=4096, width_bits=128, node_nm=29)
    with pytest.raises(ValueError, match="Area name must be of the form"):
        TABLE.area_of("dram_read_byte", node_nm=28)


# --- files of a user ---


def load(tmp_path, text: str) -> CostTable:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return CostTable.load(path)


def test_measured_entry_displaces_the_estimate(tmp_path) -> None:
    table = load(tmp_path, """
[energy.multiply_18x14]
value = 0.9
unit = "pJ"
low = 0.8
high = 1.0
node_nm = 28
kind = "measured"
confidence = "high"
source = "synthesis of the array, 28 nm"

[area.multiply_18x14]
value = 0.001
unit = "mm^2"
low = 0.001
high = 0.001
node_nm = 28
kind = "measured"
source = "synthesis of the array, 28 nm"
""")
    assert table.energy_of("multiply_18x14", node_nm=28).value == 0.9
    assert table.area_of("multiply_18x14", node_nm=28).value == pytest.approx(1000)
    assert table.energy_of("multiply_18x14", node_nm=45).value > 1.0
    assert table.energy_of("multiply_18x15", node_nm=28) == \
        TABLE.energy_of("multiply_18x15", node_nm=28)
    entry = Entry(name="energy.add_20", cost=Sourced.exact(7, "pJ", "test"))
    other = replace(table, entries={**table.entries, entry.name: entry})
    assert other.energy_of("add_20", node_nm=28).value == 7
    assert table.energy_of("add_20", node_nm=28).value < 1


@pytest.mark.parametrize(("old", "new", "message"), [
    ('source = "someone, 2020"', "", r"mine.toml: energy.add_20.source is missing"),
    ('source = "someone, 2020"', 'source = ""', r"mine.toml: energy.add_20: Source must"),
    ('unit = "pJ"', "", r"energy.add_20.unit is missing"),
    ('unit = "pJ"', 'unit = "calorie"', r"mine.toml: energy.add_20: Unit must"),
    ('unit = "pJ"', "unit = 3", r"energy.add_20.unit must be text, not 3"),
    ("low = 1.0", "low = 2.5", r"mine.toml: energy.add_20: Interval must"),
    ("high = 3.0", "high = 1.5", r"energy.add_20: Interval must"),
    ("high = 3.0", "", r"energy.add_20.high is missing"),
    ("value = 2.0", 'value = "two"', r"energy.add_20.value must be a number, not 'two'"),
    ("value = 2.0", "value = true", r"energy.add_20.value must be a number"),
    ("value = 2.0", "value = nan", r"must be finite"),
    ("low = 1.0", "low = 1.0\nnode_mm = 28", r"add_20.node_mm is unknown: did you mean .node_nm."),
    ("low = 1.0", "low = 1.0\nnode_nm = 0", r"energy.add_20.node_nm must be positive"),
    ("low = 1.0", "low = 1.0\nsupply_v = -1", r"energy.add_20.supply_v must be positive, not -1"),
    ("low = 1.0", 'low = 1.0\nkind = "guess"', r"energy.add_20.kind must be measured or"),
    ("low = 1.0", 'low = 1.0\nconfidence = "sure"', r"energy.add_20.confidence must be high or"),
    ("low = 1.0", "low = 1.0\nlow = 1.0", r"mine.toml: not TOML"),
    (GOOD, "energy = 3", r"mine.toml: energy must be a table, not 3"),
    (GOOD, "scaling = 3", r"mine.toml: scaling must be a table, not 3"),
    (GOOD, "sram = 3", r"mine.toml: sram must be a table, not 3"),
    (GOOD, '[sram]\nsource = "x"', r"mine.toml: sram.points is missing"),
    (GOOD, "[scaling]\narea = 3", r"scaling.area must be node -> coefficients, not 3"),
    (GOOD, '[scaling.area]\nten = [1.0]', r"scaling.area must be node -> coefficients"),
    (GOOD, "[scaling.area]\n28 = [-0.1]", r"scaling.area of 28 nm must be 1 coefficient.*above ze"),
    (GOOD, "[scaling.area]\n28 = [1, 2]", r"scaling.area of 28 nm must be 1 coefficient"),
    (GOOD, "[scaling.energy_lp]\n28 = [1, 2]", r"energy_lp of 28 nm must be 3 coefficient"),
    (GOOD, "[scaling.energy_hp]\n28 = [1, -2, 0.9]", r"energy_hp of 28 nm .* at 0.8 to 1 V, not"),
    (GOOD, "[scaling.energy_hp]\n-28 = [1, 0, 0]", r"scaling.energy_hp of -28 nm must be"),
    ("energy.add_20", "energy.lpddr4", r"mine.toml: energy.lpddr4.unit must be one of pJ/bit, not"),
    ("energy.add_20", "energy.multiply", r"energy.multiply.unit must be one of pJ/bit\^2, not"),
    ("energy.add_20", "area.register_bit", r"area.register_bit.unit must be one of um\^2, not"),
    ("energy.add_20", "area.my_unit", r"area.my_unit.unit must be one of um\^2, not 'pJ'"),
    ('unit = "pJ"', 'unit = "um^2"', r"energy.add_20.unit must be one of pJ, not 'um\^2'"),
    ("energy.add_20", "energy.register_bit_clok",
     r"energy.register_bit_clok is the cost of nothing: did you mean 'energy.register_bit_clock'"),
    ("energy.add_20", "energy.gscore_bus_leakage",
     r"energy.gscore_bus_leakage is the cost of nothing: did you mean 'energy.gscore_bsu_leakage'"),
    ("energy.add_20", "scaling.suply", r"scaling.suply is the cost of nothing: .*scaling.supply"),
    ("energy.add_20", "enregy.add", r"enregy.add is the cost of nothing: .*'energy.add'"),
    ('energy.add_20]\nvalue = 2.0\nunit = "pJ"', 'scaling.check_area]\nvalue = 2.0\nunit = "1"',
     r"mine.toml: scaling.check_area.node_nm is missing"),
])
def test_files_are_refused_by_field(tmp_path, old: str, new: str, message: str) -> None:
    assert load(tmp_path, GOOD).entries["energy.add_20"].cost.value == 2
    text = GOOD.replace(old, new)
    assert text != GOOD
    with pytest.raises(ValueError, match=message):
        load(tmp_path, text)


def test_costs_of_ones_own(tmp_path) -> None:
    """A DRAM, a unit and a measured event that the committed files do not have."""
    table = load(tmp_path, GOOD.replace("add_20", "hbm2").replace('"pJ"', '"pJ/bit"'))
    assert table.energy_of("dram_read_byte", node_nm=28, dram="hbm2").value == 16
    table = load(tmp_path, GOOD.replace("energy.add_20", "area.my_unit").replace("pJ", "um^2"))
    assert table.area_of("my_unit", node_nm=28).value == 2
    table = load(tmp_path, GOOD.replace("add_20", "gscore_bsu_leakage"))
    assert table.energy_of("gscore_bsu_leakage", node_nm=7).value == 2
    table = load(tmp_path, GOOD.replace("add_20", "alpha_evaluation"))
    assert table.energy_of("alpha_evaluation", node_nm=28).value == 2


SRAM = """
[sram]
source = "foundry compiler"
interpolation = 0.1
points = [
  [28, 1024, 64, 1.0, 2.0, 1000.0, 0.5, 5.0],
  [28, 2048, 64, 2.0, 4.0, 2000.0, 1.0, 8.0],
]
energy_model = { value = 1.0, unit = "1", low = 1.0, high = 1.0, source = "foundry compiler" }
area_model = { value = 1.0, unit = "1", low = 1.0, high = 1.0, source = "foundry compiler" }
"""


def test_sram_table_of_a_user(tmp_path) -> None:
    table = load(tmp_path, SRAM)
    cost = table.energy_of("sram_read_64b_1024B", node_nm=28)
    assert (cost.value, cost.low, cost.source) == (pytest.approx(1.0), pytest.approx(1.0),
                                                   "foundry compiler")
    assert table.area_of("sram_64b_2KiB", node_nm=28).value == pytest.approx(2000)
    leakage = table.energy_of("sram_leakage_64b_2KiB", node_nm=28)
    assert (leakage.value, leakage.low, leakage.high) == pytest.approx((1.0, 1.0, 8.0))
    between = table.energy_of("sram_leakage_64b_1448B", node_nm=28)
    assert (between.value, between.low, between.high) == pytest.approx(
        (math.sqrt(0.5), math.sqrt(0.5) / 1.1, 1.1 * math.sqrt(40)), rel=1e-3)
    between = table.energy_of("sram_write_64b_1448B", node_nm=28)
    assert between.value == pytest.approx(math.sqrt(8), rel=1e-3)
    assert between.high == pytest.approx(1.1 * between.value)


@pytest.mark.parametrize(("old", "new", "message"), [
    ("2.0, 4.0, 2000.0", "2.0, 4.0", "sram.points must be rows of eight"),
    ("2.0, 4.0, 2000.0", "0.0, 4.0, 2000.0", "sram.points must be rows of eight"),
    ("1.0, 8.0]", "1.0, 0.8]",
     r"points of \(28, 2048, 64\) must have an upper end of the leakage of at least 1, not 0\.8"),
    ("28, 2048", "28, 1024", r"each macro once, not \(28, 1024, 64\) twice"),
    ("interpolation = 0.1", 'interpolation = "small"', "sram.interpolation must be"),
    ("interpolation = 0.1", "interpolation = 0.1\nwidth_interpolation = -1",
     "sram.width_interpolation must be a relative error, not -1"),
    ("5.0],", "5.0],\n  [28, 512, 64, 0.8, 1.0, 500.0, 0.25, 3.0],",
     r"sram.interpolation must be at least 0\.265, the error at its own points, not 0\.1"),
    ("5.0],", ("5.0],\n  [28, 1024, 32, 0.6, 1.0, 800.0, 0.5, 5.0],"
               "\n  [28, 1024, 128, 2.5, 4.0, 1250.0, 0.5, 5.0],"),
     r"width_interpolation must be at least 0\.225, the error at its own points, not 0\.1"),
    ("low = 1.0, high = 1.0, source", "low = 1.0, source", "sram.energy_model.high is missing"),
])
def test_sram_tables_are_refused_by_field(tmp_path, old: str, new: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(tmp_path, SRAM.replace(old, new, 1))


# --- CACTI ---


def test_cacti_output() -> None:
    output = """
    Total dynamic read energy per access (nJ): 0.00378646
    Total dynamic write energy per access (nJ): 0.00310424
    Total leakage power of a bank (mW): 0.0005
    Total gate leakage power of a bank (mW): 0.0049
    Cache height x width (mm): 0.1 x 0.267
"""
    assert parse(output) == pytest.approx((3.78646, 3.10424, 26700.0, 5.4))
    assert parse("ERROR: no valid data array organizations found") is None
    config = configuration(node_nm=22, size_bytes=32768, width_bits=64, cell="itrs-lstp")
    assert "-size (bytes) 32768\n" in config
    assert "-technology (u) 0.022\n" in config
    assert "-block size (bytes) 8\n" in config


#: Prints what CACTI does for the macro of its input: 1 pJ for every 1000 bytes, 2 where the cells
#: are not itrs-lstp; none below 256 bytes.
FAKE = """#!/bin/sh
size=$(sed -n 's/^-size (bytes) //p' "$2")
test "$size" -ge 256 || exit 0
factor=1; grep -q 'Data array cell type - "itrs-lstp"' "$2" || factor=2
echo "Total dynamic read energy per access (nJ): $((size * factor))e-6"
echo "Total dynamic write energy per access (nJ): $((size * factor * 2))e-6"
echo "Total leakage power of a bank (mW): $((size * factor))e-7"
echo "Total gate leakage power of a bank (mW): $((size * factor))e-7"
echo "Cache height x width (mm): 0.1 x 0.2"
"""


def regenerate(monkeypatch, binary: Path) -> None:
    monkeypatch.setattr(cacti, "NODES_NM", (22,))
    monkeypatch.setattr(cacti, "SIZES_BYTES", (128, 1000))
    monkeypatch.setattr(cacti, "WIDTHS_BITS", (64,))
    monkeypatch.setattr("sys.argv", ["cacti", "--cacti", str(binary)])
    cacti._main()


def test_points_are_regenerated(monkeypatch, tmp_path, capsys) -> None:
    binary = tmp_path / "cacti"
    binary.write_text(FAKE)
    binary.chmod(0o755)
    regenerate(monkeypatch, binary)
    assert capsys.readouterr().out.splitlines() == [
        "# cell types, read energy over itrs-lstp: 1.000 to 2.000",
        "points = [", "  [22, 1000, 64, 1, 2, 20000, 0.2, 0.4],", "]"]


@pytest.mark.parametrize(("script", "message"), [
    (None, "--cacti must be a program that runs, not "),
    ("#!/bin/sh\n", "found none: is it CACTI 7, beside its tech_params?"),
])
def test_what_is_no_cacti(monkeypatch, tmp_path, capsys, script, message) -> None:
    binary = tmp_path / "cacti"
    if script:
        binary.write_text(script)
        binary.chmod(0o755)
    with pytest.raises(SystemExit):
        regenerate(monkeypatch, binary)
    assert message in capsys.readouterr().err


@pytest.mark.matrix
def test_committed_points_come_out_again() -> None:
    """Where SPLATFORGE_CACTI names the binary: five macros, to the last digit of the table."""
    if not (binary := os.environ.get("SPLATFORGE_CACTI")):
        pytest.skip("SPLATFORGE_CACTI does not name a CACTI 7")
    for node, size, width in ((22, 32768, 64), (32, 32768, 64), (28, 4096, 128), (45, 512, 32),
                              (65, 524288, 256)):
        point = cacti._run(Path(binary), configuration(
            node_nm=node, size_bytes=size, width_bits=width, cell="itrs-lstp"))
        assert point == pytest.approx(TABLE.sram.points[node, size, width][:4], rel=5e-4)


# --- delays ---


def test_delay_scales_by_the_rule() -> None:
    """A path at 130 nm and 1.2 V at 45 nm: the polynomials by hand, the families as its ends."""
    def law(coefficients, volts):
        a, b, c, d = coefficients
        return ((a * volts + b) * volts + c) * volts + d

    there = law((-76.65, 334.9, -493.4, 275.8), 1.2)
    got = TABLE.scale("delay", 130, 45, supply_v=1.2)
    assert got.value == pytest.approx(law((-501.6, 1567, -1619, 566.1), 0.9) / there)
    # Low: the best supply, and what one pair of libraries does better than the rule.
    assert got.low == pytest.approx(0.62 * law((-501.6, 1567, -1619, 566.1), 1.0) / there)
    assert got.high == pytest.approx(law((-285.7, 1239, -1795, 898.8), 0.8) / there)


def test_a_newer_node_is_not_slower_without_a_word() -> None:
    """The fits of 20 nm are 1.13 times as slow as those of 32 nm at their nominal 0.9 V."""
    nodes = (130, 90, 65, 45, 40, 32, 28, 22, 20, 16, 14, 12, 10, 7)
    clocks = {node: TABLE.clock("raster", node_nm=node) for node in nodes}
    for place, node in enumerate(nodes):
        slower = any(clocks[node].value < clocks[older].value for older in nodes[:place])
        assert slower == ("times as slow as at 32 nm" in clocks[node].source), node
        assert slower == (node in (28, 22, 20)), node
    step = TABLE.scale("delay", 32, 20)
    assert step.value == pytest.approx(9.47 / 8.36, rel=1e-3)
    assert step.low < 1 < step.high
    assert "fits have logic at 20 nm 1.1 times as slow as at 32 nm" in step.source
    assert "as slow as" not in TABLE.scale("delay", 32, 16).source


def test_clock_is_that_of_the_slowest_unit() -> None:
    paths = {key: entry.cost.value for key, entry in TABLE.entries.items()
             if key.startswith("path.raster.")}
    own = TABLE.clock("raster", node_nm=28)
    longest = max(paths.values())
    factor = TABLE.scale("delay", 130, 28, supply_v=1.2)
    assert own.value == pytest.approx(1e9 / (longest * factor.value))
    assert own.low == pytest.approx(1e9 / (1.4 * longest * factor.high), rel=1e-3)
    assert own.high == pytest.approx(1e9 / (longest * factor.low))
    assert "Stillmaker" in own.source
    assert max(paths, key=paths.__getitem__).rpartition(".")[2] in own.source
    # A unit that is slower is what the clock follows.
    slow = replace(TABLE.entries["path.raster.fetch"], cost=Sourced.exact(1, "us", "test"))
    slower = replace(TABLE, entries={**TABLE.entries, "path.raster.fetch": slow})
    assert slower.clock("raster", node_nm=28).value == pytest.approx(1e6 / factor.value)
    with pytest.raises(ValueError, match="Critical paths of icarus must be in the table"):
        TABLE.clock("icarus", node_nm=28)

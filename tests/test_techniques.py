"""GSCore's claims: ratios, powers and areas from counted runs, and that the runs still hold."""

import json
import math
import statistics
from itertools import product

import pytest

from splatforge.claims import read_claims, techniques
from splatforge.claims.frames import RECIPES, workload
from splatforge.claims.techniques import CLOCK_HZ, FRAMES, VARIANTS
from splatforge.designs.gscore import COUNTERS, PRESETS, PUBLISHED, GscoreDesign
from splatforge.sim.area import area_of_units
from splatforge.sim.costs import default_costs, two_digits
from splatforge.sim.gpu import devices, gpu_frame
from splatforge.sim.parts import gscore_inventory

RUNS = json.loads(techniques._TABLE.read_text("utf-8"))


def cycles(name, variant):
    return RUNS[name][variant]["counters"]["cycles"]


def test_published_configuration_is_the_default():
    """What is published stands there; what is not is as in the default."""
    assert GscoreDesign() == PUBLISHED == PRESETS["published"]
    assert PRESETS["large"].lists.tiles >= 160 * 90
    assert {PRESETS[name].ccu.obb_ratio > 0 for name in ("aabb", "aabb-whole-tiles")} == {False}
    assert {PRESETS[name].ccu.subtiles for name in ("whole-tiles", "aabb-whole-tiles")} == {False}


def test_runs_are_whole():
    assert tuple(RUNS) == FRAMES
    for name, variants in RUNS.items():
        assert tuple(variants) == VARIANTS
        for counted in variants.values():
            assert list(counted["counters"]) == [counter for counter, _, _ in COUNTERS]
            assert counted["pixels"] == RECIPES[name].width * RECIPES[name].height
        # A technique takes away work; what is left is the same scene.
        assert len({counted["counters"]["gaussians"] for counted in variants.values()}) == 1
        pairs = [variants[variant]["counters"]["pairs"] for variant in VARIANTS]
        assert pairs[0] == pairs[2] == pairs[4] < pairs[1] == pairs[3]
        # A memory whose timing is in ns takes more cycles of a faster clock, and no more time.
        clocks = [variants[variant]["clock_hz"] for variant in VARIANTS]
        assert clocks == [CLOCK_HZ] * 4 + [1e9]
        assert 1 <= cycles(name, "assumed") / cycles(name, "published") < 1e9 / CLOCK_HZ
        assert cycles(name, "published") < min(cycles(name, "aabb"), cycles(name, "whole-tiles"))


def test_clock_is_at_most_what_synthesis_supports():
    """Of both accelerators, at the nodes of both papers; no claim computes with another."""
    table = default_costs()
    supported = min(table.clock(design, node_nm=node).value
                    for design in ("gscore", "streaminggs") for node in (28, 32))
    assert 0.8 * supported < CLOCK_HZ <= supported
    for claim in read_claims():
        assert claim.arguments.get("clock_hz", 0) <= supported, claim.id


def test_gains_by_hand():
    frames = ("fox_800x800", "angel_800x800")
    both = techniques.gain("aabb-whole-tiles", "published", frames)
    ratios = [cycles(name, "aabb-whole-tiles") / cycles(name, "published") for name in frames]
    assert both.value == pytest.approx(sum(ratios) / 2)
    assert both.scatter == pytest.approx((min(ratios), max(ratios)))
    assert (both.low, both.high) == both.scatter  # two frames say no more
    six = techniques.gain("aabb-whole-tiles", "whole-tiles", FRAMES)
    ratios = [cycles(name, "aabb-whole-tiles") / cycles(name, "whole-tiles") for name in FRAMES]
    half = 2.570581836 * statistics.stdev(ratios) / math.sqrt(6)
    assert six.high == pytest.approx(six.value + half)
    assert six.high < max(ratios)
    beyond = techniques.gain_beyond("whole-tiles", "published", frames[:1])
    assert beyond.value == pytest.approx(
        cycles("fox_800x800", "whole-tiles") / cycles("fox_800x800", "published") - 1)


def test_speedup_and_saving_by_hand():
    """The whole frame of the GPU; a millisecond is 700,000 cycles."""
    name, device = "fox_800x800", devices()["xavier_nx"]
    gpu = gpu_frame(workload(name), device)
    assert gpu.stages[0].name == "preprocess"
    ours = techniques.speedup("xavier_nx", [name])
    assert ours.value == pytest.approx(gpu.time.value / cycles(name, "published") * CLOCK_HZ)
    assert ours.points == gpu.time.points
    # The clock, and what it would be at the paper's, are said with it.
    assumed = two_digits(gpu.time.value / cycles(name, "assumed") * 1e9)
    assert "counted by the cycle model at 700 MHz" in ours.source
    assert f"at the 1000 MHz that the paper assumes: {assumed} [" in ours.source
    saving = techniques.energy_saving("xavier_nx", [name], 28)
    joules = gpu.energy.value / saving.value
    watts = techniques.chip_power(28, [name]).value
    dram = joules - watts * cycles(name, "published") / CLOCK_HZ
    # What is not the chip's is the memory's: a few pJ for each bit that it moved.
    counted = RUNS[name]["published"]["dram"]
    bits = 8 * counted["access_bytes"] * (counted["reads"] + counted["writes"])
    assert 2 < 1e12 * dram / bits < 40


def test_units_add_up_to_the_chip():
    """Powers of all units with the memories', and areas with the macros', are the chip's."""
    frames = ["fox_800x800"]
    own = ("ccu", "lists", "qsu", "bsu", "vru")
    powers = sum(techniques.unit_power(unit, 1, 28, frames).value for unit in own)
    rest = techniques.chip_power(28, frames).value - powers
    array = rest - techniques.memory_power(28, frames).value
    assert 0 < array < rest
    assert techniques.unit_power("bsu", 4, 28, frames).value == pytest.approx(
        techniques.unit_power("bsu", 1, 28, frames).value / 4)
    inventory = gscore_inventory(PUBLISHED, default_costs())
    macros = {unit: {item: count for item, count in items.items() if item.startswith("sram")}
              for unit, items in inventory.items()}
    others = {unit: items for unit, items in inventory.items() if unit not in own}
    by_hand = (
        sum(techniques.unit_area(unit, 1, 28).value for unit in own)
        + area_of_units(macros, node_nm=28).area_mm2 + area_of_units(others, node_nm=28).area_mm2)
    assert techniques.chip_area(28).value == pytest.approx(by_hand)
    share = techniques.memory_share(28)
    assert share.low < share.value < share.high
    assert share.value * techniques.chip_area(28).value == pytest.approx(
        area_of_units(macros, node_nm=28).area_mm2)
    # 128 KB of features less the bits that are always zero, lists' memory, tags, sorters, queues.
    assert 170 < techniques.memory_bytes().value / 1024 < 272


@pytest.mark.parametrize(("function", "arguments", "message"), [
    (techniques.gain, ("aabb", "published", []), "Frames must hold at least one name, not 0"),
    (techniques.gain, ("aabb", "published", ["gone"]), "Frame must be one of fox_800x800.*'gone'"),
    (techniques.gain, ("obb", "published", ["fox_800x800"]), "Variant must be one of .*'obb'"),
    (techniques.speedup, ("gone", ["fox_800x800"]), "GPU must be one of .* not 'gone'"),
    (techniques.unit_area, ("gsu", 1, 28), "Unit must be one of ccu, .* not 'gsu'"),
    (techniques.unit_power, ("gsu", 1, 28, ["fox_800x800"]), "Unit must be one of ccu.*'gsu'"),
])
def test_what_is_not_there_is_named(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments)


@pytest.mark.parametrize(("name", "variant"), [
    pytest.param(name, variant, marks=[pytest.mark.matrix] if place else [])
    for place, (name, variant) in enumerate(product(FRAMES, VARIANTS))])
def test_runs_are_those_of_the_models(name, variant, shared_scene):
    """The committed counts are what the models say today."""
    folder = shared_scene(RECIPES[name].captures[0]).parent
    assert techniques.count(name, variant, folder) == RUNS[name][variant]

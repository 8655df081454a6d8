"""What stands in StreamingGS's units is what stands in the RTL, and a frame's total by hand."""

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from splatforge.algos import streaminggs
from splatforge.algos.cfu import cfu_schedule
from splatforge.algos.ffu import ffu_schedule
from splatforge.algos.vsu import vsu_schedule
from splatforge.designs.array import ArrayDesign
from splatforge.designs.cfu import CfuDesign
from splatforge.designs.ffu import FfuDesign
from splatforge.designs.gscore import PRESETS as GSCORE_PRESETS
from splatforge.designs.streaminggs import PRESETS, PartitionDesign, StreaminggsDesign
from splatforge.designs.vsort import VsortDesign
from splatforge.designs.vsu import VsuDesign
from splatforge.scenes import default_camera, resolve
from splatforge.sim.costs import LIBRARIES, Sourced, default_costs
from splatforge.sim.parts import (
    Macro,
    _streaminggs_actions,
    streaminggs_events,
    streaminggs_inventory,
    streaminggs_parts,
)
from splatforge.sim.simulate import clock_of, not_mapped, simulate
from splatforge.sim.streaminggs import simulate as simulate_streaminggs
from splatforge.synth.actions import _own_events
from splatforge.verification.lib.ports import record_own_units

sys.path.insert(0, str(Path(__file__).parent))

from by_hand import (
    ADD,
    BY_OPERATORS,
    MULTIPLY,
    REGISTER,
    check_measured,
    check_scaled,
    entries_of,
    shift,
    sram,
)
from standing import standing

DESIGN = StreaminggsDesign()
OWN = ("cfu", "ffu", "setup", "vsort", "vsu")
CLOCK = Sourced.exact(200e6, "Hz", "test")
#: Designs that are not the default in what the parts depend on.
OTHERS = {
    "one-tile": StreaminggsDesign(
        vsu=VsuDesign(group_tiles=1, voxels=8192, scan_width=8),
        cfu=CfuDesign(group_tiles=1, units=4, queue=256), ffu=FfuDesign(group_tiles=1, interval=8),
        vsort=VsortDesign(units=1), array=ArrayDesign(group_tiles=1)),
    "unfiltered": replace(DESIGN, cfu=CfuDesign(filters=False, units=1)),
}


@pytest.mark.parametrize(("name", "other"), [
    *((name, "") for name in OWN), *(
        pytest.param(name, other, marks=pytest.mark.matrix) if name == "ffu" else (name, other)
        for name, other in (("vsu", "one-tile"), ("cfu", "one-tile"), ("ffu", "one-tile"),
                            ("vsort", "one-tile"), ("cfu", "unfiltered")))])
def test_parts_are_those_of_the_rtl(name, other):
    """Every macro to the bit; flip-flops within a fifth."""
    design = OTHERS.get(other, DESIGN)
    flip_flops, memories = standing(name, design)
    part = streaminggs_parts(design)[name]
    assert sorted((each.words, each.bits) for each in part.memories.values()) == memories
    assert part.register_bits == pytest.approx(flip_flops, rel=0.2)


def test_codebooks_are_macros():
    part = streaminggs_parts(DESIGN)["ffu"]
    books = DESIGN.ffu.codebooks
    bits = sum(macro.words * macro.bits for name, macro in part.memories.items()
               if name in [book for book, _, _ in books.codebooks()])
    assert bits == 8 * books.size_bytes == 8 * 245_760


def test_wide_and_deep_memories_take_several_macros():
    wide = Macro(128, 1056)
    assert (wide.slices, wide.banks, wide.item) == (3, 1, "sram_352b_5632B")
    deep = Macro(65536, 152)
    assert (deep.slices, deep.banks, deep.item) == (1, 3, "sram_152b_415074B")
    table = default_costs()
    assert table.area_of(deep.item, node_nm=28).value > 0


def events_of(workload, design, run, table=None):
    return streaminggs_events(
        design, run, pixels=64 * 48, significant=int(workload.array.significant.sum()),
        clock_hz=1e9, table=table or default_costs())


@pytest.fixture(scope="module")
def frame():
    """A frame of the default scene, as it was run."""
    scene = resolve("default")
    scene = scene.select(np.linspace(0, scene.gaussians - 1, 3000).astype(np.int64))
    view = default_camera(scene, 64, 48)
    packed = streaminggs.prepare(scene, view, DESIGN)
    workload = streaminggs.render(packed, DESIGN).workload
    return scene, view, workload, simulate_streaminggs(packed, workload, DESIGN)


def test_a_frame_by_hand(frame):
    """Counts times the numbers of the files, at 65 nm, where the SRAM needs no scaling."""
    scene, view, workload, run = frame
    c = run.counters
    done = simulate("streaminggs", DESIGN, scene, [view], node_nm=65, gpus=(), clock=CLOCK,
                    table=BY_OPERATORS, rival=False)
    (report,) = done.energies
    clock = {name: streaminggs_parts(DESIGN)[name].register_bits * run.cycles * REGISTER
             for name in OWN}
    # What leaks in a microsecond, of which a frame has cycles / 200: cells if known, and macros.
    cells = entries_of("paths.toml")["energy"]
    for name in OWN:
        known = cells.get(f"streaminggs_{name}_leakage", {"value": 0})["value"]
        clock[name] += run.cycles / 200 * (known + sum(
            each.slices * sram(each.words, each.bits // each.slices, slice(6, 7)).sum()
            for each in streaminggs_parts(DESIGN)[name].memories.values()))

    # Arithmetic in FP(8,17) and binary32, as in GSCore's projection; a reciprocal or logarithm has
    # two narrow products and sums, which are compared roughly below.
    product = 18 * 18 * MULTIPLY + (10 + 27) * ADD
    wide = 24 * 24 * MULTIPLY + (10 + 33) * ADD
    total = (25 + 9 + 9 + 21 + 10 + 27) * ADD + 2 * shift(21)
    wide_total = (31 + 9 + 9 + 27 + 10 + 33) * ADD + 2 * shift(27)

    def graph(plan):
        placed = Counter()
        fixed = 0
        for unit in plan.units:
            placed[unit.kind] += len(unit.placed)
            if unit.kind == "to_fixed":
                bits = max(each.to.width for each in unit.placed)
                fixed += len(unit.placed) * (shift(bits) + (bits + 10) * ADD)
        known = (
            placed["multiply"] * product + placed["add"] * total + placed["compare"] * 26 * ADD
            + placed["wide_multiply"] * wide + placed["wide_add"] * wide_total
            + placed["narrow"] * 33 * ADD + fixed)
        return known, placed["reciprocal"] + placed["log2"]

    def rest_of(unit, known, tables):
        """What is left of a unit's energy is that of its tables."""
        left = report.units[unit][0] * 1e12 - known
        assert 0.5 < left / (tables * 2 * 14 * 12 * MULTIPLY) < 2, unit

    # Voxels: the table, three passes over the visible ones, rows of sixteen for every group.
    of_voxel, tables = graph(vsu_schedule(DESIGN.vsu))
    voxels, kept, hits, rows = (
        c[name] for name in ("voxels", "voxels_visible", "voxels_loaded", "vsu_busy"))
    # Of four rectangles every side, moved and cut; at a hit of three of them.
    keep = (4 * 19 + 16 * (20 + 13) + 6 * 10 + 9 * 13 + 6 * 3 + 2 * 20) * ADD
    keep += 3 * 10 * 8 * MULTIPLY
    prefix = (12 * 8 + 3 * 10) * ADD
    orders, counts, banks = sram(4096, 12), sram(128, 13), sram(256, 44)
    records, places = sram(2048, 242), sram(4096, 53)
    rest_of("vsu", (
        voxels * (of_voxel + keep) + hits * prefix
        + (3 * (2 * kept + 128) * 13 + 64 * rows * 8) * ADD
        + voxels * (2 * sum(sram(128, 128)) + sum(sram(128, 120)) + sum(sram(29, 236)))
        + hits * records[0] + kept * records[1] + 3 * kept * places[0] + kept * places[1]
        + 2 * kept * sum(orders) + 3 * (2 * kept + 128) * counts[0]
        + 3 * (2 * kept + 256) * counts[1] + 16 * rows * banks[0] + kept * banks[1]
        + (hits + c["groups"]) * (sum(sram(7, 238)) + sum(sram(7, 186)))
        + clock["vsu"]), voxels * tables)

    # Coarse filters: 9 products of 18x16, and as below.
    of_visit, tables = graph(cfu_schedule(DESIGN.cfu))
    given, entering = c["gaussians"], hits + c["groups"]
    parts = streaminggs_parts(DESIGN)["cfu"].operators
    filters = {name: parts[name] for name in ("multiply_18x16", "add_35", "shift_36")}
    assert filters == {"multiply_18x16": 18, "add_35": 18, "shift_36": 2}
    only_filters = Counter(parts)
    for unit in cfu_schedule(DESIGN.cfu).units:
        assert unit.kind != "log2"
    events = events_of(workload, DESIGN, run, BY_OPERATORS)["cfu"]
    assert events["multiply_18x16"] == 9 * given
    assert events["shift_36"] == given
    assert only_filters["add_35"] / 2 * given == events["add_35"]
    memories = (
        run.cycles * sum(sram(10, 152)) + entering * (sum(sram(64, 192)) + 2 * sum(sram(63, 186)))
        + c["coarse_bytes"] / 16 * sum(sram(255, 128))
        + c["gaussians_passed"] * sum(sram(256, 80)) + hits * sum(sram(10, 282)))
    # Of a Gaussian beside the forms: products of 18x18, of 18x12 and two squares, some twenty sums.
    form = given * (9 * 18 * 16 * MULTIPLY + 9 * 35 * ADD)
    other = given * (7 * 18 * 18 * MULTIPLY + 18 * 12 * MULTIPLY + 2 * 19 * 19 * MULTIPLY
                     + 20 * 24 * ADD)
    known = form + other + hits * of_visit + memories + clock["cfu"]
    assert report.units["cfu"][0] == pytest.approx(known * 1e-12, rel=0.05)

    # The fine filter: an entry of every codebook, two beats of a record and more.
    of_gaussian, tables = graph(ffu_schedule(DESIGN.ffu))
    seen, beats = c["gaussians_projected"], c["fine_bytes"] / 16
    ends = c["voxels_sorted"] + c["groups"]
    tokens = c["gaussians_passed"] + c["voxels_sorted"] + ends
    books = {"rotation": [(4096, 64), (1024, 64)], "ratios": [(1024, 32)], "opacity": [(256, 32)],
             "color": [(2048, 48), (512, 48)], "sh1": [(1024, 144)] * 2, "sh2": [(1024, 240)] * 2,
             "sh3": [(1024, 336)] * 2}
    entries = [each for of in books.values() for each in of]
    reads = sum(sram(*each)[0] for each in entries)
    writes = sum(each[0] * sram(*each)[1] for each in entries)
    finish = (4 * 18 + 4 * 22 + 4 * DESIGN.ffu.feature.mean.width + 12 * 21) * ADD
    read_beats = len(ffu_schedule(DESIGN.ffu).reads)
    rest_of("ffu", (
        seen * (of_gaussian + finish + reads + read_beats * 3 * sum(sram(256, 352))) + writes
        + tokens * sum(sram(255, 135)) + beats * sum(sram(256, 120))
        + (seen + ends) * sum(sram(127, 31)) + seen * sum(sram(50, 331)) + clock["ffu"]),
        seen * tables)

    vsort = (run.actions["rows_sorted"] * (32 * 30 * ADD + 16 * sum(sram(16, 29))) + clock["vsort"]
             + c["gaussians_kept"] * sum(sram(512, 212))
             + (c["gaussians_kept"] + ends) * sum(sram(511, 239)))
    setup = c["splats"] * (
        3 * shift(26) + 3 * 26 * 28 * MULTIPLY
        + (3 * 26 + 2 * 28 + 55 + 19 + 18 + 13 + 13 + 14 + 26 * 21) * ADD) + clock["setup"]
    memory = (run.bytes_read + run.bytes_written) * 64.0
    for name, by_hand in (("vsort", vsort), ("setup", setup), ("memory", memory)):
        assert report.units[name][0] == pytest.approx(by_hand * 1e-12, rel=1e-3), name

    # Array, resolve and registers: the measured blocks; of four tiles the state is four times.
    costs = entries_of(f"energy_{LIBRARIES[-1]}.toml")["measured"][LIBRARIES[-1]]
    law = entries_of("costs.toml")["scaling"]["energy_hp"]
    scale = np.polyval(law["65"], 0.9) / np.polyval(
        law["130"], costs["alpha"]["evaluation"]["supply_v"])
    issued, significant = 64 * c["array_busy"], int(workload.array.significant.sum())
    actions = [
        (issued, "alpha", "evaluation"), (significant, "alpha", "significant"),
        (issued, "blend", "evaluation"), (significant, "blend", "significant"),
        (c["array_busy"], "array", "block"), (64 * 48, "resolve", "pixel"),
        (run.cycles, "registers", "cycle")]
    measured = sum(count * costs[block][what]["value"] for count, block, what in actions)
    # 31 counters of 40 bits, and copies of them, of which those of 16 were measured.
    # Colours of four pixels of four tiles, twice, are macros in every lane.
    more = {"registers": (2 * 31 - 16) * 40 + 64 * 8,
            "blend": 3 * 2 * 256 * (2 * 18 + 3 * 21) - 64 * 3 * 32 * 21}
    read, write = sram(32, 21)
    state = (3 * (significant + 64 * 48) * read + 3 * significant * write
             + 64 * 3 * sram(32, 21, slice(6, 7)).sum() * run.cycles / 200)
    leakage = 0
    for name in ("alpha", "blend", "array", "resolve", "registers"):
        block = costs[name]
        measured += (run.cycles * (block["flip_flops"]["value"] + more.get(name, 0))
                     * block["flip_flop_cycle"]["value"])
        leakage += block["leakage"]["value"] * run.cycles / 200
    rest = sum(report.units[name][0] for name in ("array", "resolve", "shell"))
    assert rest == pytest.approx((measured * scale + leakage + state) * 1e-12, rel=1e-3)
    assert report.energy_j == pytest.approx(
        1e-12 * (vsort + setup + memory + measured * scale + leakage + state)
        + sum(report.units[name][0] for name in ("vsu", "cfu", "ffu")), rel=1e-3)
    assert report.low_j < 0.8 * report.energy_j < 1.2 * report.energy_j < report.high_j


def test_measured_units_by_hand(frame):
    """Actions, clock and leakage by the file's numbers; memories as by the operators."""
    scene, view, _, run = frame
    c = run.counters
    actions = {
        "vsu": {"voxel": c["voxels"], "row": c["vsu_busy"], "cycle": run.cycles},
        "cfu": {"gaussian": c["gaussians"], "cycle": run.cycles},
        "ffu": {"gaussian": c["gaussians_projected"]}, "vsort": {"row": c["vsort_busy"]},
        "setup": {"splat": c["splats"]}}
    by_gates, by_operators = (
        simulate("streaminggs", DESIGN, scene, [view], node_nm=65, gpus=(), table=table,
                 clock=CLOCK, rival=False).energies[0]
        for table in (default_costs(), BY_OPERATORS))
    check_measured("streaminggs", by_gates, by_operators, actions, run.cycles)


@pytest.mark.parametrize("other", OTHERS)
def test_other_parameters_take_as_much_more_as_the_laws_say(frame, other):
    *_, workload, run = frame
    check_scaled("streaminggs", *(
        events_of(workload, design, run, table) for table in (default_costs(), BY_OPERATORS)
        for design in (OTHERS[other], DESIGN)))


@pytest.mark.rtl
@pytest.mark.matrix
def test_counts_at_the_ports_are_those_of_the_model(frame):
    """Of every action that is priced, in a frame of the whole RTL."""
    scene, view, _, run = frame
    assert not run.counters["groups_stopped"]
    recording = record_own_units(DESIGN, scene, view)
    counted = {unit: {action: int(events.sum()) for action, events in _own_events(trace).items()}
               for unit, trace in recording.traces.items()}
    # A record is a little longer than the frame.
    expected = _streaminggs_actions(run)
    for unit in ("cfu", "vsu"):
        cycles = counted[unit].pop("cycle")
        assert cycles == pytest.approx(expected[unit].pop("cycle"), rel=0.01)
    assert counted == expected
    assert all(count > 0 for counts in counted.values() for count in counts.values())


def test_rows_are_sorted_as_often_as_voxels_need(frame):
    run = frame[-1]
    assert run.actions["rows_sorted"] >= run.counters["vsort_busy"] > 0
    # From one row and a level of it up to 16 rows of 12 passes.
    assert run.counters["voxels_sorted"] <= run.actions["rows_sorted"]
    assert run.actions["rows_sorted"] <= run.counters["voxels_sorted"] * 16 * 12


def test_every_event_and_item_is_priced(frame):
    """In units that add up, at any node, with any preset."""
    *_, workload, run = frame
    table = default_costs()
    for design in (*PRESETS.values(), *OTHERS.values()):
        inventory = streaminggs_inventory(design, table)
        events = events_of(workload, design, run)
        assert set(events) - set(inventory) == {"memory"}
        assert set(inventory) == set(OWN) | {"array", "resolve", "shell"}
        for node in (7, 32, 130):
            for unit, items in inventory.items():
                assert all(table.area_of(item, node_nm=node).value > 0 for item in items), unit
                assert all(table.energy_of(event, node_nm=node).value > 0 or not count
                           for event, count in events[unit].items()), unit


def test_presets():
    """What is published stands there."""
    published = PRESETS["published"]
    assert {published.vsu.group_tiles, published.cfu.group_tiles, published.ffu.group_tiles,
            published.array.group_tiles} == {1}
    assert published.array.lanes == 64
    assert published.ffu.codebooks.size_bytes <= 250 * 1024


def test_gscore_stands_beside_it(frame):
    """The same frame behind the same memory, each at its own clock; at the assumed one cycles."""
    scene, view, _, run = frame
    record = simulate("streaminggs", DESIGN, scene, [view], gpus=("orin_nx_16gb",)).record()
    assert list(record["baselines"]) == ["orin_nx_16gb", "gscore"]
    theirs = record["baselines"]["gscore"]
    published = GSCORE_PRESETS["published"]
    alone = simulate("gscore", published, scene, [view], gpus=())
    assert theirs["cycles"] == alone.cycles
    assert theirs["energy_j"] == pytest.approx(alone.energies[0].energy_j)
    assert theirs["time_s"] == pytest.approx(alone.cycles / alone.clock.value)
    assert theirs["speedup"] == pytest.approx(theirs["time_s"] / record["time_s"])
    low, high = theirs["speedup_band"]
    assert low <= theirs["speedup"] <= high
    # One library and one rule for both clocks: slow together, fast together.
    slow = theirs["time_band_s"][1] * record["clock_band_hz"][0] / record["cycles"]
    fast = theirs["time_band_s"][0] * record["clock_band_hz"][1] / record["cycles"]
    assert [low, high] == pytest.approx(sorted([slow, fast, theirs["speedup"]])[::2])
    orin = record["baselines"]["orin_nx_16gb"]
    assert orin["speedup_band"][0] == pytest.approx(
        orin["time_band_s"][0] * record["clock_band_hz"][0] / record["cycles"])
    assert record["assumed"]["speedup"]["gscore"] == pytest.approx(theirs["cycles"] / run.cycles)
    assert theirs["energy_saving"] == pytest.approx(theirs["energy_j"] / record["energy_j"])
    assert record["bytes"]["coarse"] == run.counters["coarse_bytes"]
    assert sum(record["bytes"].values()) == record["bytes_read"] + record["bytes_written"]
    stages = {stage["name"]: stage["busy"] for stage in record["stages"]}
    assert stages["cfu"] == round(run.counters["gaussians"] / 2)
    assert stages["ffu"] == 4 * run.counters["gaussians_projected"]
    units = record["units"]
    for figure in ("energy_j", "area_mm2"):
        known = [unit[figure] for unit in units.values() if unit[figure] is not None]
        assert sum(known) == pytest.approx(record[figure])


def test_what_was_mapped_is_the_default():
    """How a scene is cut is in no RTL; all else that differs is named with what was mapped."""
    assert not_mapped(StreaminggsDesign()) == {}
    assert not_mapped(StreaminggsDesign(partition=PartitionDesign(voxel_size=2.0))) == {}
    assert not_mapped(PRESETS["city"]) == {"vsu.voxels": (65536, StreaminggsDesign().vsu.voxels)}
    others = not_mapped(PRESETS["published"])
    assert {"cfu.units", "vsu.prefixes", "array.group_tiles"} <= set(others)
    clock = clock_of(PRESETS["city"], default_costs(), 28)
    assert clock.value == default_costs().clock("streaminggs", node_nm=28).value
    assert "not mapped: vsu.voxels 65536 instead of" in clock.source

"""What stands in GSCore's units is what stands in the RTL, and a frame's total by hand."""

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from splatforge.algos import gscore
from splatforge.algos.ccu import ccu_schedule
from splatforge.designs.array import ArrayDesign
from splatforge.designs.bsu import BsuDesign
from splatforge.designs.ccu import CcuDesign
from splatforge.designs.gscore import PRESETS, GscoreDesign
from splatforge.designs.vru import VruDesign
from splatforge.scenes import default_camera, resolve
from splatforge.sim.costs import LIBRARIES, Sourced, default_costs
from splatforge.sim.gscore import simulate as simulate_gscore
from splatforge.sim.parts import (
    _gscore_actions,
    gscore_events,
    gscore_inventory,
    gscore_parts,
)
from splatforge.sim.simulate import simulate
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

DESIGN = GscoreDesign()
CLOCK = Sourced.exact(200e6, "Hz", "test")
OWN = ("bsu", "ccu", "lists", "qsu", "vru")
#: Presets and designs that are not the default in what the parts depend on.
OTHERS = {
    "aabb": PRESETS["aabb"],
    "wide": GscoreDesign(
        ccu=CcuDesign(interval=64, buffer_beats=128), bsu=BsuDesign(chunk=1024, width=32, units=2),
        vru=VruDesign(cache_features=1024, waiting=64)),
}


@pytest.mark.parametrize(("name", "other"), [
    *((name, "") for name in OWN), ("ccu", "aabb"), ("ccu", "wide"), ("bsu", "wide"),
    ("vru", "wide")])
def test_parts_are_those_of_the_rtl(name, other):
    """Every macro to the bit; flip-flops within a fifth."""
    design = OTHERS.get(other, DESIGN)
    flip_flops, memories = standing(name, design)
    part = gscore_parts(design)[name]
    assert sorted((each.words, each.bits) for each in part.memories.values()) == memories
    assert part.register_bits == pytest.approx(flip_flops, rel=0.2)


def events_of(workload, design, run, table=None):
    return gscore_events(
        design, run, pixels=64 * 48, significant=int(workload.array.significant.sum()),
        walked=int(workload.ccu.walked.sum()), clock_hz=1e9, table=table or default_costs())


@pytest.fixture(scope="module")
def frame():
    """A frame of the default scene, as it was run."""
    scene = resolve("default")
    scene = scene.select(np.linspace(0, scene.gaussians - 1, 3000).astype(np.int64))
    view = default_camera(scene, 64, 48)
    workload = gscore.render(gscore.prepare(scene, view, DESIGN), DESIGN).workload
    return scene, view, workload, simulate_gscore(workload, DESIGN)


def test_a_frame_by_hand(frame):
    """Counts times the numbers of the files, at 65 nm, where the SRAM needs no scaling."""
    scene, view, workload, run = frame
    c = run.counters
    done = simulate("gscore", DESIGN, scene, [view], node_nm=65, gpus=(), table=BY_OPERATORS,
                    clock=CLOCK)
    (report,) = done.energies
    registers = {name: gscore_parts(DESIGN)[name].register_bits for name in OWN}
    clock = {name: bits * run.cycles * REGISTER for name, bits in registers.items()}
    # What leaks in a microsecond, of which a frame has cycles / 200: cells and macros.
    macros = {
        "ccu": [(512, 128), (14, 377)], "lists": [(4096, 138), (256, 236), (63, 36), (63, 107)],
        "qsu": [(255, 107)], "bsu": [(255, 107), *64 * [(16, 53)]],
        "vru": [(4096, 13), (4096, 172), (255, 21), (64, 172)]}
    cells = entries_of("paths.toml")["energy"]
    for name in OWN:
        clock[name] += run.cycles / 200 * (
            cells[f"gscore_{name}_leakage"]["value"]
            + sum(sram(*each, slice(6, 7)).sum() for each in macros[name]))

    # The CCU: FP(8,17) and binary32; sums of two words compare, align, add, normalise, round.
    product = 18 * 18 * MULTIPLY + (10 + 27) * ADD
    wide = 24 * 24 * MULTIPLY + (10 + 33) * ADD
    total = (25 + 9 + 9 + 21 + 10 + 27) * ADD + 2 * shift(21)
    wide_total = (31 + 9 + 9 + 27 + 10 + 33) * ADD + 2 * shift(27)
    placed = Counter()
    for unit in ccu_schedule(DESIGN.ccu).units:
        placed[unit.kind] += len(unit.placed)
    per_gaussian = (
        placed["multiply"] * product + placed["add"] * total + placed["compare"] * 26 * ADD
        + placed["wide_multiply"] * wide + placed["wide_add"] * wide_total
        + placed["narrow"] * 33 * ADD + placed["to_fixed"] * (shift(28) + (28 + 10) * ADD))
    # Box: six at 18 bits, two of 19, six of 21 and of 36, five products 21 x 14.
    box = (6 * 18 + 2 * 19 + 6 * 21 + 6 * 36) * ADD + 5 * 21 * 14 * MULTIPLY
    walked = int(workload.ccu.walked.sum())
    per_tile = ((2 + 4 + 8) * 21 + (2 + 8 + 16) * 36) * ADD
    read, write = sram(512, 128)
    tables = report.units["ccu"][0] * 1e12 - (
        c["gaussians"] * (per_gaussian + box) + walked * per_tile
        + c["ccu_busy"] * (read + write) + c["gaussians"] * sum(sram(14, 377)) + clock["ccu"])
    # What is left are seven reciprocals and two logarithms by two narrow products each.
    assert placed["reciprocal"] == 7
    assert placed["log2"] == 2
    assert 0.5 < tables / (c["gaussians"] * 9 * 2 * 14 * 12 * MULTIPLY) < 2

    tiles, slots = sram(4096, 138), sram(256, 236)
    appended, parts = c["pairs"] + run.actions["bucket_entries"], 8 * c["partitions"]
    assert run.actions["bucket_entries"] > 0
    lists = (
        appended * (2 * 49 + 25 + 20) * ADD + clock["lists"]
        + (c["pairs"] + 2 * c["tiles"]) * tiles[0] + (c["pairs"] + c["tiles"]) * tiles[1]
        + (run.actions["bucket_entries"] + 2 * parts) * slots[0]
        + (run.actions["bucket_entries"] + parts) * slots[1]
        + c["lists_busy"] * (sum(sram(63, 36)) + sum(sram(63, 107))))
    reader = sum(sram(255, 107))
    qsu = (run.actions["bucket_entries"] * (49 * ADD + shift(49)) + clock["qsu"]
           + c["partition_bytes"] / 16 * reader)
    bsu = (run.actions["rows_sorted"] * (32 * 54 * ADD + 16 * sum(sram(16, 53)))
           + clock["bsu"] + c["chunk_bytes"] / 16 * reader)
    seen = c["feature_hits"] + c["feature_misses"]
    tags, features = sram(4096, 13), sram(4096, 172)
    vru = (
        seen * (3 * shift(26) + 3 * 26 * 28 * MULTIPLY
                + (3 * 26 + 2 * 28 + 55 + 19 + 18 + 13 + 13 + 14) * ADD) + clock["vru"]
        + seen * (tags[0] + features[0] + sum(sram(255, 21)))
        + (c["feature_misses"] + 4096) * tags[1]
        + c["feature_misses"] * (features[1] + sum(sram(64, 172))))
    memory = (run.bytes_read + run.bytes_written) * 64.0
    for name, by_hand in (("lists", lists), ("qsu", qsu), ("bsu", bsu), ("vru", vru),
                          ("memory", memory)):
        assert report.units[name][0] == pytest.approx(by_hand * 1e-12, rel=1e-3), name

    # Array, resolve and registers: the measured blocks.
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
    # 35 counters of 40 bits, and copies of them, of which those of 16 were measured.
    glue = {"registers": (2 * 35 - 16) * 40 + 64 * 8}
    leakage = 0
    for name in ("alpha", "blend", "array", "resolve", "registers"):
        block = costs[name]
        measured += (run.cycles * (block["flip_flops"]["value"] + glue.get(name, 0))
                     * block["flip_flop_cycle"]["value"])
        leakage += block["leakage"]["value"] * run.cycles / 200
    rest = sum(report.units[name][0] for name in ("array", "resolve", "shell"))
    assert rest == pytest.approx((measured * scale + leakage) * 1e-12, rel=1e-3)
    assert report.energy_j == pytest.approx(
        1e-12 * (lists + qsu + bsu + vru + memory + measured * scale + leakage)
        + report.units["ccu"][0], rel=1e-3)
    assert report.low_j < 0.8 * report.energy_j < 1.2 * report.energy_j < report.high_j


def test_measured_units_by_hand(frame):
    """Actions, clock and leakage by the file's numbers; memories as by the operators."""
    scene, view, workload, run = frame
    c, bucketed = run.counters, run.actions["bucket_entries"]
    actions = {
        "ccu": {"gaussian": c["gaussians"], "pair": len(workload.ccu.tiles)},
        "lists": {"pair": len(workload.ccu.tiles), "bucketed": bucketed},
        "qsu": {"entry": bucketed, "tile": 4 * 3},
        "bsu": {"entry": len(workload.entries), "row": c["bsu_busy"]},
        "vru": {"entry": c["feature_hits"] + c["feature_misses"]}}
    by_gates, by_operators = (
        simulate("gscore", DESIGN, scene, [view], node_nm=65, gpus=(), table=table,
                 clock=CLOCK).energies[0]
        for table in (default_costs(), BY_OPERATORS))
    check_measured("gscore", by_gates, by_operators, actions, run.cycles)


@pytest.mark.parametrize("other", OTHERS)
def test_other_parameters_take_as_much_more_as_the_laws_say(frame, other):
    *_, workload, run = frame
    check_scaled("gscore", *(
        events_of(workload, design, run, table) for table in (default_costs(), BY_OPERATORS)
        for design in (OTHERS[other], DESIGN)))


@pytest.mark.rtl
@pytest.mark.matrix
def test_counts_at_the_ports_are_those_of_the_model(frame):
    """Of every action that is priced, in a frame of the whole RTL."""
    scene, view, _, run = frame
    recording = record_own_units(DESIGN, scene, view)
    assert recording.run.cycles == pytest.approx(run.cycles, rel=0.01)
    counted = {unit: {action: int(events.sum()) for action, events in _own_events(trace).items()}
               for unit, trace in recording.traces.items()}
    assert counted == _gscore_actions(run)
    assert all(count > 0 for counts in counted.values() for count in counts.values())


def test_rows_are_sorted_as_often_as_chunks_need(frame):
    """No tile of this frame ends early: every list is sorted whole."""
    *_, workload, run = frame
    assert run.counters["tiles_stopped"] == 0
    assert run.counters["entries_sorted"] == len(workload.entries)
    assert run.actions["rows_sorted"] >= run.counters["bsu_busy"]
    # From 17 to 256 entries take 5 levels of rows and one of columns to 8 and 4.
    chunks = run.counters["chunks_sorted"]
    assert chunks * 2 * 6 <= run.actions["rows_sorted"] <= chunks * 16 * 12


def test_every_event_and_item_is_priced(frame):
    """In units that add up, at any node, with any preset."""
    *_, workload, run = frame
    table = default_costs()
    for design in (*PRESETS.values(), *OTHERS.values()):
        inventory = gscore_inventory(design, table)
        events = events_of(workload, design, run)
        assert set(events) - set(inventory) == {"memory"}
        assert set(inventory) == set(OWN) | {"array", "resolve", "shell"}
        for node in (7, 28, 130):
            for unit, items in inventory.items():
                assert all(table.area_of(item, node_nm=node).value > 0 for item in items), unit
                assert all(table.energy_of(event, node_nm=node).value > 0 or not count
                           for event, count in events[unit].items()), unit
    # Banks of a memory of more than a kilobit are macros; so small a chunk is flip-flops.
    assert gscore_inventory(DESIGN, table)["bsu"]["sram_53b_256B"] == 4 * 16
    tiny = replace(DESIGN, bsu=BsuDesign(chunk=16, width=4), qsu=replace(DESIGN.qsu, chunk=16))
    assert not [item for item in gscore_parts(tiny)["bsu"].macros if "53b" in item]


def test_synthesised_areas_follow_the_parameters():
    """One unit of what was synthesised; less of it without oriented boxes, more with wide sorters.

    Without the entries the laws alone, whose area they replace.
    """
    table = default_costs()
    inventory = gscore_inventory(DESIGN, table)
    laws = replace(table, entries={name: entry for name, entry in table.entries.items()
                                   if not name.startswith("area.gscore_")})
    by_law = gscore_inventory(DESIGN, laws)
    for name in OWN:
        assert inventory[name][f"gscore_{name}"] == 1
        assert by_law[name]["register_bit"] == gscore_parts(DESIGN)[name].register_bits
        assert {item for item in inventory[name] if item.startswith("sram_")} == {
            item for item in by_law[name] if item.startswith("sram_")}
        cost = table.area_of(f"gscore_{name}", node_nm=130)
        assert cost.value == table.entry(f"area.gscore_{name}").cost.value
    assert gscore_inventory(OTHERS["aabb"], table)["ccu"]["gscore_ccu"] < 0.97
    assert gscore_inventory(OTHERS["wide"], table)["ccu"]["gscore_ccu"] < 0.8
    assert gscore_inventory(replace(DESIGN, bsu=BsuDesign(units=8)), table)["bsu"][
        "gscore_bsu"] == pytest.approx(2, rel=0.05)


def test_units_of_a_simulation_add_up(frame):
    scene, view, *_ = frame
    shares = []
    done = simulate("gscore", DESIGN, scene, [view, view], progress=shares.append)
    record = done.record()
    units = record["units"]
    for figure in ("energy_j", "area_mm2"):
        known = [unit[figure] for unit in units.values() if unit[figure] is not None]
        assert sum(known) == pytest.approx(record[figure])
        for end in (0, 1):
            band = figure.replace("_", "_band_")
            ends = [unit[band][end] for unit in units.values() if unit[band] is not None]
            assert sum(ends) == pytest.approx(record[band][end])
    assert units["memory"]["area_mm2"] is None
    assert shares == sorted(shares)
    assert shares[-1] == 2
    assert {stage["name"]: stage["stall"] for stage in record["stages"]}["bsu"] == 0
    assert record["gpu_stages"] == ["preprocess", "duplicate", "sort", "rasterize", "write"]
    assert [stage["name"] for stage in record["gpu"][0][0]["stages"]] == record["gpu_stages"]


def test_other_formats_fall_back_on_operators(frame):
    *_, workload, run = frame
    array = ArrayDesign()
    coarse = replace(DESIGN, array=replace(array, alpha=replace(array.alpha, table_entries=32)))
    events = events_of(workload, coarse, run)
    assert "register_bit_clock" in events["array"]
    assert "alpha_evaluation" not in events["array"]
    assert "shell" not in events

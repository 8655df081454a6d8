"""Lumina whole: a GPU that sorts and projects, LuminCore that draws, both beside the GPU alone."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from splatforge.algos.lumina.render import prepare_sequence, render
from splatforge.designs.lumina import PRESETS, LuminaDesign
from splatforge.designs.nru import NruDesign
from splatforge.designs.radiance import RadianceDesign
from splatforge.designs.sharing import SharingDesign
from splatforge.hw.lib.nru_unit import entry_layout
from splatforge.scenes import head_jitter
from splatforge.sim.costs import default_costs
from splatforge.sim.energy import energy_of_units
from splatforge.sim.parts import lumina_events, lumina_inventory, lumina_parts
from splatforge.sim.simulate import simulate

sys.path.insert(0, str(Path(__file__).parent))
from by_hand import BY_OPERATORS, check_measured, check_scaled
from gaussians import camera, random_scene

SCENE = random_scene(400, 5, sh_degree=1)
VIEW = camera(70, 83)
DESIGN = LuminaDesign(sharing=SharingDesign(window=3, margin_px=2),
                      radiance=RadianceDesign(record_ids=2, sets=64, ways=2))
FRAMES = 5
PATH = head_jitter(VIEW, frames=FRAMES, seed=3, median_turn_deg=0.1).cameras


@pytest.fixture(scope="module")
def simulation():
    return simulate("lumina", DESIGN, SCENE, PATH, gpus=("agx_xavier",))


@pytest.fixture(scope="module")
def record(simulation):
    return json.loads(json.dumps(simulation.record()))


def test_counts_are_those_of_the_workload(simulation):
    banks = None
    for frame, counts in zip(
            prepare_sequence(SCENE, PATH, DESIGN), simulation.counts, strict=True):
        picture = render(frame, DESIGN, banks=banks)
        banks, work = picture.banks, picture.workload
        totals = counts.totals()
        assert totals["evaluations"] == totals["live"] == work.evaluations
        assert totals["blended"] == work.blended
        assert totals["significant"] == work.significant
        assert totals["pairs"] == len(work.ids)
        # Raster order: the tile at its place in the frame.
        assert counts.pairs[work.tiles].tolist() == np.diff(work.starts).tolist()


def test_cycles_of_tiles_lie_where_the_tiles_are(simulation):
    """Tiles end group by group: 4x4 of the six rows of five, then the column, then below."""
    for number, run in enumerate(simulation.runs):
        cycles = simulation.tile_cycles(number).reshape(6, 5)
        assert cycles.sum() == run.tile_ends[-1]
        groups = np.concatenate([part.ravel() for part in (
            cycles[:4, :4], cycles[:4, 4:], cycles[4:, :4], cycles[4:, 4:])])
        assert groups.cumsum().tolist() == run.tile_ends.tolist()


def test_without_the_cache_all_that_is_significant_counts():
    design = PRESETS["sharing"]
    simulated = simulate("lumina", design, SCENE, PATH[:1], gpus=())
    frame = next(iter(prepare_sequence(SCENE, PATH[:1], design)))
    work = render(frame, design).workload
    assert simulated.counts[0].totals()["significant"] == work.significant_uncached
    assert simulated.systems == ()


def test_times_of_the_system_add_up(simulation, record):
    """Two windows of 3 and 2 frames: figures are of the second, whose sort ran beside a frame."""
    system = record["systems"]["agx_xavier"]
    assert (system["windows"], system["first_frame"], system["frames"]) == (2, 3, FRAMES)
    done = system["accelerated"]
    assert done["time_s"] == pytest.approx(done["waited_s"] + done["refresh_s"] + done["draw_s"])
    clock = record["clock_hz"]
    assert done["draw_s"] == pytest.approx(sum(record["frame_cycles"][3:]) / clock)
    beside = record["frame_cycles"][2] / clock
    assert done["waited_s"] == pytest.approx(max(0.0, system["sort_s"][1] - beside))
    assert done["speedup"] == pytest.approx(system["gpu"]["time_s"] / done["time_s"])
    assert len(done["frame_times_s"]) == FRAMES
    assert sum(done["frame_times_s"][3:]) == pytest.approx(done["time_s"])
    # The first window's sort is waited for whole.
    assert done["frame_times_s"][0] == pytest.approx(
        system["sort_s"][0] + record["frame_cycles"][0] / clock
        + done["refresh_s"] / 2, rel=0.02)
    alone = system["gpu_alone"]
    assert alone["waited_s"] == pytest.approx(system["sort_s"][1])
    assert alone["energy_j"] == pytest.approx(
        simulation.systems[0].device.power.value * alone["time_s"])


def test_the_array_is_a_stage(simulation, record):
    """Busy where it issues, one splat or four; stalled where it waits for splats."""
    (stage,) = record["stages"]
    done = [run.actions for run in simulation.runs]
    assert stage == {"name": "nru", "busy": sum(a["lockstep"] + a["remapped"] for a in done),
                     "stall": sum(a["starved"] for a in done)}
    stood = sum(a["stalled"] + a["starved"] for a in done)
    assert record["utilisation"] == stage["busy"] / (stage["busy"] + stood)


def test_energy_of_the_system_is_that_of_both(simulation, record):
    system = simulation.systems[0]
    power = system.device.power.value
    gpu_s = system.sorts[1][1].time.value + sum(
        run.time.value for run in system.refreshes[3:])
    own_j = sum(report.energy_j for report in simulation.energies[3:])
    assert system.energy.value == pytest.approx(power * gpu_s + own_j)
    done = record["systems"]["agx_xavier"]["accelerated"]
    low, high = done["energy_band_j"]
    assert low < done["energy_j"] < high


def test_a_turn_that_is_too_fast_is_not_sorted_ahead():
    """Every frame is a window of its own, and waits for its whole sort."""
    path = head_jitter(VIEW, frames=2, seed=3, median_turn_deg=20.0).cameras
    system = simulate(
        "lumina", DESIGN, SCENE, path, gpus=("agx_xavier",)).record()["systems"]["agx_xavier"]
    assert system["windows"] == 2
    assert system["accelerated"]["waited_s"] == system["sort_s"][1]


def events_of(simulation, design, table, clock_hz=200e6):
    """Of the second frame, as if it had been of another design."""
    return lumina_events(
        design, simulation.runs[1], pixels=70 * 83, clock_hz=clock_hz, table=table,
        fragments=simulation.counts[1].totals()["significant"])


def test_measured_units_by_hand(simulation):
    """Actions, clock and leakage by the file's numbers; memories as by the operators."""
    run = simulation.runs[1]
    c, done = run.counters, run.actions
    actions = {
        "tilelists": {"tile": 5 * 6, "beat": c["list_bytes"] // 16},
        "nru": {"lockstep": done["lockstep"], "remapped": done["remapped"]},
        "radiance": {"walked": c["lookups"] + 5 * 6, "saved": c["cache_written_bytes"] // 16,
                     "cycle": run.cycles}}
    by_gates, by_operators = (
        energy_of_units(events_of(simulation, LuminaDesign(), table), node_nm=65, table=table)
        for table in (default_costs(), BY_OPERATORS))
    check_measured("lumina", by_gates, by_operators, actions, run.cycles, others=("vru",),
                   absent=("remapped",))


def test_vru_costs_what_was_measured_of_it_in_gscore(simulation):
    """As many entries; its setup is the same."""
    events = events_of(simulation, LuminaDesign(), default_costs())["vru"]
    assert events["vru_entry"] == pytest.approx(simulation.runs[1].actions["entries"])
    assert "register_bit_clock" not in events


def test_other_parameters_take_as_much_more_as_the_laws_say(simulation):
    check_scaled("lumina", *(
        events_of(simulation, design, table) for table in (default_costs(), BY_OPERATORS)
        for design in (DESIGN, LuminaDesign())))


def test_energy_by_hand(simulation):
    """A few rows of a frame from counts and costs by operators; every unit has a price."""
    run, table = simulation.runs[1], BY_OPERATORS
    clock_hz = simulation.clock.value
    events = events_of(simulation, DESIGN, default_costs(), clock_hz)
    assert set(events) == {"tilelists", "vru", "nru", "radiance", "resolve", "shell", "memory"}
    report = energy_of_units(events, node_nm=28, table=default_costs())
    assert report.energy_j == simulation.energies[1].energy_j
    events = events_of(simulation, DESIGN, table, clock_hz)
    report = energy_of_units(events, node_nm=28, table=table)
    issued = run.actions["lockstep"] + run.actions["remapped"]
    form = DESIGN.nru.alpha.form.width
    # A square for every pixel that is tested, and of v for every row in four generators.
    squares = 256 * issued + 4 * 16 * issued
    assert events["nru"][f"multiply_{form}x{form}"] == squares
    row = next(row for row in report.rows if row.event == f"multiply_{form}x{form}")
    cost = table.energy_of(row.event, node_nm=28)
    assert row.energy.to("J").value == pytest.approx(squares * cost.to("J").value)
    bits = lumina_parts(DESIGN)["nru"].register_bits
    assert events["nru"]["register_bit_clock"] == bits * run.cycles
    # A look-up compares the tags of its set twice, in its own turn and in the walk.
    assert events["radiance"][f"add_{16 * 2}"] == 2 * 2 * run.counters["lookups"]


def test_memories_are_those_of_the_paper():
    """Banks of 52 KB of tags and colours, and a bit beside each entry; twice."""
    banks = [macro for name, macro in lumina_parts(LuminaDesign())["radiance"].memories.items()
             if name.startswith("rows")]
    assert len(banks) == 2
    assert sum(macro.words * macro.bits for macro in banks) == 2 * (8 * 53248 + 4096)


@pytest.mark.parametrize("pixels", [2, 4, 8])
def test_queues_are_those_of_the_units(pixels):
    """As many as there are units, as wide as the hardware's; the buffer is as large as ever."""
    # Of eight entries those of two pixels are flip-flops.
    design = LuminaDesign(nru=NruDesign(unit_pixels=pixels, queue_entries=16))
    memories = lumina_parts(design)["nru"].memories
    queues, rows = ([macro for name, macro in memories.items() if name.startswith(prefix)]
                    for prefix in ("queue", "splats"))
    assert len(queues) * pixels == 256
    assert {macro.bits for macro in queues} == {entry_layout(design.nru).size}
    assert len(rows) == pixels
    assert sum(macro.words for macro in rows) == 2 * design.nru.chunk_splats


def test_units_that_share_less_have_more_logic(simulation):
    """Back ends are what there is more of; a frame's events are priced with any number of them."""
    table, logic = default_costs(), []
    for pixels in (2, 4, 8):
        design = LuminaDesign(nru=NruDesign(unit_pixels=pixels))
        logic.append(lumina_inventory(design, table)["nru"]["lumina_nru"])
        events = events_of(simulation, design, table)["nru"]
        assert energy_of_units({"nru": events}, node_nm=28, table=table).energy_j > 0
    assert logic[0] > logic[1] == 1 > logic[2]


def test_area_grows_with_the_parameters():
    table = default_costs()
    small = lumina_inventory(DESIGN, table)
    large = lumina_inventory(LuminaDesign(), table)
    assert set(small) == set(large) == {
        "tilelists", "vru", "nru", "radiance", "resolve", "shell"}
    assert small["radiance"] != large["radiance"]

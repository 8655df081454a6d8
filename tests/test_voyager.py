"""Voyager's client: GSCore's lists and order, its own alpha."""

import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from splatforge.algos import gscore
from splatforge.algos.falloff import falloff_float
from splatforge.algos.quality import psnr_db
from splatforge.algos.voyager import prepare, render, render_float
from splatforge.algos.voyager.build import build
from splatforge.algos.voyager.search import Search
from splatforge.algos.voyager.tree import LodTree
from splatforge.designs.array import ArrayDesign
from splatforge.designs.dram import PRESETS as DRAMS
from splatforge.designs.falloff import FalloffDesign
from splatforge.designs.gscore import GscoreDesign
from splatforge.designs.lod import SearchDesign, TreeDesign
from splatforge.designs.memory import BankedMemory, MemoryTiming
from splatforge.designs.voyager import PRESETS, VoyagerDesign
from splatforge.scenes import Camera, default_camera, load, resolve
from splatforge.sim.area import area_of_units
from splatforge.sim.costs import default_costs
from splatforge.sim.parts import gscore_inventory
from splatforge.sim.simulate import ASSUMED_CLOCK, clock_of
from splatforge.sim.simulate import simulate as run_models
from splatforge.sim.voyager import simulate
from splatforge.verification.cosim import cosim
from splatforge.verification.lib.frame import Stall

DESIGN = VoyagerDesign()
#: Fewer lanes are built sooner.
SMALL = PRESETS["16-lane"]


@pytest.fixture(scope="module")
def scene():
    return resolve("default")


def draw(scene, view, design):
    return render(prepare(scene, view, design), design)


def test_alpha_must_be_a_falloff():
    with pytest.raises(ValueError, match=re.escape(
            "Alpha of the array must be a FalloffDesign, not a AlphaDesign")):
        VoyagerDesign(array=ArrayDesign())


@pytest.mark.parametrize("preset", PRESETS)
def test_frame_is_near_the_float_one(preset, scene):
    design, view = PRESETS[preset], default_camera(scene, 96, 70)
    got, want = draw(scene, view, design), render_float(scene, view, design)
    assert psnr_db(got.image, want.image) >= 50
    t = design.array.blend.transmittance.to_float(got.state[..., 3])
    assert np.abs(t - want.transmittance).mean() < 2e-3


def test_more_entries_are_nearer_to_the_exponential(scene):
    """Twice the entries, half the error, 6 dB; interpolated, a quarter of it, 12 dB."""
    view = default_camera(scene, 96, 70)
    exact = gscore.render_float(scene, view, GscoreDesign()).image

    def loss(**falloff):
        alpha = FalloffDesign(**falloff)
        return psnr_db(render_float(
            scene, view, replace(DESIGN, array=ArrayDesign(alpha=alpha))).image, exact)

    flat = [loss(table_entries=entries) for entries in (16, 32, 64, 128)]
    assert np.all(np.abs(np.diff(flat) - 6.02) < 1.5)
    assert flat[2] >= 50
    lines = [loss(table_entries=entries, interpolated=True) for entries in (8, 16, 32)]
    assert np.all(np.abs(np.diff(lines) - 12.04) < 2)


def test_what_is_significant_is_gscores(scene):
    """The same lists, the same fragments up to where a pixel ends by another alpha."""
    view = default_camera(scene, 64, 48)
    ours, theirs = (draw(scene, view, each).workload for each in (DESIGN, GscoreDesign()))
    assert np.array_equal(ours.entries, theirs.entries)
    ours, theirs = ours.array, theirs.array
    assert np.array_equal(ours.subtiles, theirs.subtiles)
    unended = (ours.pixels_stopped == 0) & (theirs.pixels_stopped == 0)
    assert unended.any()
    assert np.array_equal(ours.significant[unended], theirs.significant[unended])


def test_gscores_float_is_a_table_without_end(scene):
    """The float form's table, with very many entries, is the exponential of GSCore's."""
    view = default_camera(scene, 48, 32)
    many = replace(DESIGN, array=ArrayDesign(
        alpha=FalloffDesign(table_entries=512, interpolated=True)))
    got, want = (gscore.render_float(scene, view, each).image for each in (many, GscoreDesign()))
    assert psnr_db(got, want) > 100
    assert falloff_float(0.0, many.array.alpha) == 1


def test_lanes_change_cycles_but_no_pixel(scene):
    view = default_camera(scene, 64, 48)
    few, many = (draw(scene, view, each) for each in (SMALL, DESIGN))
    assert np.array_equal(few.state, many.state)
    runs = [simulate(each.workload, design, MemoryTiming())
            for each, design in ((few, SMALL), (many, DESIGN))]
    assert runs[0].counters["array_busy"] > runs[1].counters["array_busy"]


def test_clock_and_area_are_of_its_own_gates():
    """Of its own paths, and of an array that was synthesised; the other units are GSCore's RTL."""
    table = default_costs()
    clock = clock_of(DESIGN, table, 28)
    assert clock != ASSUMED_CLOCK
    assert "IHP SG13G2" in clock.source
    ours, theirs = (area_of_units(gscore_inventory(each, table), node_nm=28, table=table).units
                    for each in (DESIGN, GscoreDesign()))
    assert set(ours) == set(theirs)
    for name, each in theirs.items():
        # But for the number of the core in its registers.
        if name != "array":
            assert ours[name].value == pytest.approx(each.value, rel=2e-3)
    assert gscore_inventory(DESIGN, table)["array"] == {"voyager_array": 1}


@pytest.mark.rtl
def test_verilog_of_small_frames(run_testbench):
    run_testbench("voyager", seed=1)


def check(result):
    """Pixels and state of the bit-true model, cycles and counters of the cycle model."""
    assert result.pixels_differing == 0
    for frame in result.frames:
        assert frame.state_pixels_differing == 0
        assert frame.rtl_cycles == frame.model_cycles
        assert frame.rtl_counters == frame.model_counters
        assert frame.rtl_dram == frame.model_dram


@pytest.mark.rtl
def test_two_frames_of_the_default_scene(scene):
    """Back to back, without a reset between."""
    cameras = [default_camera(scene, *size) for size in ((64, 48), (75, 33))]
    result = cosim("voyager", SMALL, scene, cameras)
    check(result)
    assert result.psnr_db_vs_float >= 45
    assert result.psnr_db_vs_float_non_background >= 45
    assert result.frames[0].rtl_counters["partitions"] > 0


@pytest.mark.rtl
@pytest.mark.matrix
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_stalls_change_no_pixel(seed, scene):
    result = cosim("voyager", SMALL, scene, [default_camera(scene, 64, 48)],
                   stall=Stall.every_channel(0.3, seed))
    assert result.pixels_differing == 0
    assert result.frames[0].state_pixels_differing == 0


@pytest.mark.rtl
@pytest.mark.matrix
@pytest.mark.parametrize("memory", [
    MemoryTiming(latency_cycles=400), MemoryTiming(latency_cycles=10, outstanding=4),
    BankedMemory(dram=DRAMS["lpddr4-3200"], clock_hz=1e9)], ids=["far", "near", "lpddr4"])
def test_cycles_before_other_memories(memory, scene):
    check(cosim("voyager", SMALL, scene, [default_camera(scene, 64, 48)], timing=memory))


@pytest.mark.rtl
@pytest.mark.matrix
@pytest.mark.parametrize("name", ["inari_fox_50k.ply", "fourth_st_131k_sh3.spz"])
@pytest.mark.parametrize("memory", [
    MemoryTiming(), BankedMemory(dram=DRAMS["lpddr4-3200"], clock_hz=1e9)], ids=["fixed", "banked"])
def test_real_captures(name, memory, shared_scene):
    scene = resolve(shared_scene(name))
    result = cosim("voyager", DESIGN, scene, [default_camera(scene, 320, 240)], timing=memory)
    check(result)
    assert result.psnr_db_vs_float >= 45
    assert result.psnr_db_vs_float_non_background >= 45


def test_energy_is_of_its_own_gates(scene):
    """Of an array that was measured; what blends in it is the raster core's."""
    view = default_camera(scene, 64, 48)
    done = run_models("voyager", DESIGN, scene, [view], gpus=())
    assert not done.record()["clock_assumed"]
    (report,) = done.energies
    events = {row.event for row in report.rows if row.unit == "array"}
    assert {"falloff_evaluation", "falloff_significant", "blend_evaluation", "falloffarray_block",
            "falloff_flip_flop_cycle", "falloff_leakage"} <= events
    assert not [event for event in events if event.startswith(("add_", "multiply_", "alpha_"))]


def test_a_library_without_lookups_prices_their_operators(scene):
    """As a table of one's own of the raster core alone says nothing of them."""
    known = default_costs()
    table = replace(known, entries={name: entry for name, entry in known.entries.items()
                                    if ".falloff" not in name})
    done = run_models("voyager", DESIGN, scene, [default_camera(scene, 32, 16)], gpus=(),
                      table=table)
    assert done.energies[0].units["array"][0] > 0
    assert done.areas.units["array"].value > 0


@pytest.fixture(scope="module")
def cut(shared_scene, tmp_path_factory):
    """Of a city of five million Gaussians what a view at 320x240 takes of its tree."""
    parts = [shared_scene(f"semarang_city_{part}_sh3.sog") for part in range(10)]
    path = tmp_path_factory.mktemp("city") / "city.lod"
    build([partial(load, part) for part in parts], path, TreeDesign())
    tree = LodTree.open(path)
    view = Camera.look_at((0, -40, -150), (0, 0, 0), (0, -1, 0), width=320, height=240, fx=253)
    return tree.scene(Search(tree, SearchDesign(tau_px=48)).full(view).ids), view


@pytest.mark.rtl
@pytest.mark.matrix
@pytest.mark.parametrize("memory", [
    MemoryTiming(), BankedMemory(dram=DRAMS["lpddr4-3200"], clock_hz=1e9)], ids=["fixed", "banked"])
def test_a_cut_of_a_city(cut, memory):
    scene, view = cut
    assert scene.gaussians > 40_000
    result = cosim("voyager", SMALL, scene, [view], timing=memory)
    check(result)
    assert result.frames[0].rtl_counters["visible"] > 9_000

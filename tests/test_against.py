"""StreamingGS's claims: ratios, energies and areas from counted runs, and that the runs hold."""

import json
import math
import os
from dataclasses import replace

import pytest

from splatforge.claims import against, evaluate, frames, read_claims
from splatforge.claims.against import CITIES, FRAMES, UNFILTERED
from splatforge.claims.frames import RECIPES, workload
from splatforge.claims.techniques import CLOCK_HZ
from splatforge.designs.streaminggs import COUNTERS, PUBLISHED, StreaminggsDesign
from splatforge.sim.area import area_of_units
from splatforge.sim.costs import default_costs
from splatforge.sim.gpu import devices, gpu_frame
from splatforge.sim.parts import streaminggs_inventory

RUNS = json.loads(against._TABLE.read_text("utf-8"))
GSCORE = json.loads(against._TABLE.with_name("gscore_runs.json").read_text("utf-8"))
TUNED = json.loads(against._TUNED.read_text("utf-8"))
NAMES = [(name, variant) for name in FRAMES if name in RUNS for variant in against.variants(name)]


def cycles(name, variant):
    return RUNS[name][variant]["counters"]["cycles"]


def test_runs_are_whole():
    """Every frame that is there with all its variants, and no claim of another."""
    claimed = {name for claim in read_claims() if claim.call.startswith("splatforge.claims.against")
               for name in claim.arguments.get("frames", ())}
    assert claimed <= set(RUNS)
    assert [(name, variant) for name, of in RUNS.items() for variant in of] == NAMES
    for name, of in RUNS.items():
        for variant, counted in of.items():
            assert counted["pixels"] == RECIPES[name].width * RECIPES[name].height
            assert counted["clock_hz"] == CLOCK_HZ
            if variant != "gscore":
                assert list(counted["counters"]) == [counter for counter, _, _ in COUNTERS]
                assert counted["counters"]["pixel_bytes"] == 4 * counted["pixels"]
        published = of["published"]["counters"]
        assert published["gaussians"] > published["gaussians_passed"]
        if "default" in of:
            # A group of four tiles loads a voxel once where its tiles do so up to four times.
            assert of["default"]["counters"]["gaussians"] < published["gaussians"]
        if name in UNFILTERED:
            every = of["unfiltered"]["counters"]
            assert every["gaussians"] == every["gaussians_passed"]
            # What is kept is the same, but for what is under way where a group ends.
            assert every["gaussians_kept"] == pytest.approx(published["gaussians_kept"], rel=0.01)


def test_designs_of_variants():
    assert against.design_of("fox_800x800", "published") == PUBLISHED
    assert against.design_of("fox_800x800", "default") == StreaminggsDesign()
    assert not against.design_of("fox_800x800", "unfiltered").cfu.filters
    city = against.design_of(CITIES[0], "published")
    assert replace(city, vsu=PUBLISHED.vsu) == PUBLISHED
    assert city.vsu.voxels == 65536


def test_ratios_by_hand():
    """A millisecond is 700,000 cycles."""
    name, device = "fox_800x800", devices()["orin_nx_16gb"]
    gpu = gpu_frame(workload(name), device)
    ours = against.speedup("orin_nx_16gb", [name])
    assert ours.value == pytest.approx(gpu.time.value / cycles(name, "published") * CLOCK_HZ)
    assert ours.points == gpu.time.points
    each = [against.speedup("orin_nx_16gb", [name]) for name in RUNS]
    mean = against.speedup("orin_nx_16gb", list(RUNS))
    assert mean.value == pytest.approx(sum(one.value for one in each) / len(each))
    highest = against.speedup("orin_nx_16gb", list(RUNS), highest=True)
    assert highest.value == max(one.value for one in each)
    theirs = GSCORE[name]["published"]["counters"]["cycles"]
    assert against.speedup_over_gscore([name]).value == theirs / cycles(name, "published")
    assert against.speedup_over_gscore([name], "default").value == (
        theirs / cycles(name, "default"))
    assert against.slowdown([name]).value == (
        cycles(name, "published") / cycles(name, "unfiltered"))
    assert against.frame_rate([name]).value == pytest.approx(
        CLOCK_HZ / cycles(name, "published"))
    assert "at 700 MHz, which synthesis" in against.frame_rate([name]).source
    assert against.frame_rate(list(RUNS)).value == min(
        against.frame_rate([name]).value for name in RUNS)


def test_energies_by_hand():
    """What both spend is what their simulations say."""
    for name in RUNS:
        gpu = gpu_frame(workload(name), devices()["orin_nx_16gb"])
        saving = against.energy_saving("orin_nx_16gb", [name], 32)
        joules = gpu.energy.value / saving.value
        over = against.energy_over_gscore([name], 32)
        assert over.low <= over.value <= over.high
        theirs = over.value * joules
        assert 0 < joules < gpu.energy.value
        # What is not the chip's is the memory's: a few pJ for each bit that it moved.
        counted = RUNS[name]["published"]["dram"]
        bits = 8 * counted["access_bytes"] * (counted["reads"] + counted["writes"])
        assert joules > 2e-12 * bits
        assert 0.1 < theirs / joules < 10


def test_the_chip_is_its_units():
    table = default_costs()
    by_hand = area_of_units(streaminggs_inventory(PUBLISHED, table), node_nm=32).area_mm2
    assert against.chip_area(32).value == pytest.approx(by_hand)
    assert against.codebook_memory().value == 245_760


def test_savings_of_codebooks_by_hand():
    """16 bytes for 55 numbers of four, and what is read in vain; less of whole voxel loads."""
    for name in RUNS:
        counted = RUNS[name]["published"]["counters"]
        fine, plain = counted["fine_bytes"], 220 * counted["gaussians_projected"]
        saving = against.quantization_saving([name], coarse=False)
        assert saving.value == pytest.approx(1 - fine / plain)
        assert saving.value <= 1 - 16 / 220 + 1e-9
        whole = (plain - fine) / (plain + counted["coarse_bytes"])
        assert 0.3 < whole < saving.value
        assert against.quantization_saving([name], coarse=True).value == pytest.approx(whole)
    assert len({against.quantization_saving([name], coarse=True).value for name in RUNS}) > 1


def test_reasons_for_energy_and_area():
    """What the notes of the claims say."""
    claims = {claim.id: claim for claim in read_claims()}
    arguments = claims["streaminggs.energy_saving"].arguments
    saving = against.energy_saving(**arguments)
    for name in arguments["frames"]:
        report = against._energy(name, "published", 32)
        memory = report.units["memory"][0]
        assert 0.65 < memory / report.energy_j < 0.75
        assert f"{name} {memory / report.energy_j:.0%}" in saving.source
        gpu = gpu_frame(workload(name), devices()["orin_nx_16gb"]).energy.value
        assert memory > gpu / 62.9
    for name, most in (("area", 0.4), ("raster_area", 0.45)):
        claim = claims[f"gscore.{name}"]
        assert 0.25 < evaluate(claims=[claim])[0].ours.value / claim.value < most
    assert against.coarse_parameters().value == 4


def test_reasons_for_the_city():
    """What the note of its claim says."""
    note = next(claim.note for claim in read_claims()
                if claim.id == "streaminggs.speedup_over_gscore_city")
    ours, theirs = (RUNS[CITIES[0]][variant]["counters"] for variant in ("published", "gscore"))
    read = sum(count for name, count in ours.items() if name.endswith("_bytes"))
    for said in (f"{ours['gaussians'] / 1e6:.0f} million coarse halves",
                 f"{ours['gaussians'] / ours['gaussians_kept']:.0f} for one that is kept",
                 f"{100 * ours['coarse_bytes'] / read:.0f} % of what is read",
                 f"{theirs['gaussians'] / 1e6:.2f} million Gaussians",
                 f"{100 * theirs['projecting'] / theirs['cycles']:.0f} % of its frame"):
        assert said in note


def test_products():
    """Nine of three forms; half sides, two reaches, a limit; squares of three reaches and two."""
    assert against.coarse_products().value == 9 + 4 + 5 + 1
    assert 100 < against.fine_products().value < 427


def test_tuning_by_hand():
    one = against.psnr_loss(["fox"], 27)
    differs = 10 ** (-TUNED["fox"]["psnr_db_after"] / 10)
    assert one.value == pytest.approx(
        27 + 10 * math.log10(10 ** (-27 / 10) + differs), rel=1e-6)
    late = against.cross_boundary(list(TUNED))
    shares = [each["cross_boundary_share_after"] for each in TUNED.values()]
    assert late.value == pytest.approx(sum(shares) / len(shares))
    assert (late.low, late.high) == (min(shares), max(shares))
    for record in TUNED.values():
        assert record["quantized"]
        assert record["psnr_db_after"] > record["psnr_db_before"]


def test_intermediate_share_by_hand():
    """What is left of the bytes of all stages but for 59 numbers a Gaussian and the pixels."""
    name = "city_above_980x545"
    share = frames.intermediate_share("orin_nx_16gb", [name])
    work = workload(name)
    run = gpu_frame(work, devices()["orin_nx_16gb"])
    pixels = run.part("write").traffic_bytes
    outside = (59 * 4 * work.gaussians_visible
               + 12 * (work.gaussians - work.gaussians_visible) + pixels)
    assert share.value == pytest.approx(1 - outside / run.traffic_bytes)


@pytest.mark.parametrize(("function", "arguments", "message"), [
    (against.slowdown, ([],), "Frames must hold at least one name, not 0"),
    (against.frame_rate, ([],), "Frames must hold at least one name, not 0"),
    (against.slowdown, (["gone"],), "Frame must be one of fox_800x800.*'gone'"),
    (against.speedup_over_gscore, (["fox_800x800"], "gone"), "Variant must be one of .*'gone'"),
    (against.speedup, ("gone", ["fox_800x800"]), "GPU must be one of .* not 'gone'"),
    (against.cross_boundary, (["gone"],), "Scene must be one of fox.*'gone'"),
])
def test_what_is_not_there_is_named(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments)


def marks_of(name, variant):
    """One is quick; all other frames take minutes, a city's ten and 11 GB for each variant."""
    if name in CITIES:
        return [pytest.mark.matrix, pytest.mark.skipif(
            not os.environ.get("SPLATFORGE_CITY"),
            reason="a city takes ten minutes and 11 GB: SPLATFORGE_CITY=1 counts it")]
    return [] if (name, variant) == ("fox_800x800", "default") else [pytest.mark.matrix]


@pytest.mark.parametrize(("name", "variant"), [
    pytest.param(name, variant, marks=marks_of(name, variant)) for name, variant in NAMES])
def test_counts_are_those_of_the_model(name, variant, shared_scene):
    folder = shared_scene(RECIPES[name].captures[0]).parent
    assert json.loads(json.dumps(against.count(name, variant, folder))) == RUNS[name][variant]

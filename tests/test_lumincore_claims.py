"""Claims of Lumina's whole system: figures from counted frames by hand, and that counts hold."""

import json
import math

import pytest

from splatforge.claims import lumincore, read_claims
from splatforge.claims.frames import RECIPES
from splatforge.claims.lumincore import FRAMES, VARIANTS
from splatforge.designs.dram import PRESETS as DRAMS
from splatforge.designs.lumina import COUNTERS, PRESETS, LuminaDesign
from splatforge.designs.sharing import SharingDesign
from splatforge.sim.area import area_of_units
from splatforge.sim.costs import default_costs
from splatforge.sim.gpu import FrameWork, devices, gpu_frame
from splatforge.sim.parts import lumina_inventory
from splatforge.sim.sharing import SortWork, Walk, rasterize, refresh, sort

RUNS = json.loads(lumincore._TABLE.read_text("utf-8"))
NAMES = [(name, variant) for name in RUNS for variant in VARIANTS]
XAVIER = devices()["agx_xavier"]
WINDOW = SharingDesign().window


def counted(name, variant):
    return RUNS[name]["variants"][variant]


def cycles(name, variant):
    return counted(name, variant)["counters"]["cycles"]


def test_runs_are_whole():
    """All variants of every frame, and no claim of another; lists are shared by a window."""
    claimed = {name for claim in read_claims() if claim.call.startswith(lumincore.__name__)
               for name in claim.arguments.get("frames", ())}
    assert claimed <= set(RUNS) <= set(FRAMES)
    for name, run in RUNS.items():
        pixels = RECIPES[name].width * RECIPES[name].height
        assert run["gpu"]["pixels"] == [pixels] * WINDOW
        assert tuple(run["variants"]) == VARIANTS
        for variant, of in run["variants"].items():
            assert list(of["counters"]) == [counter for counter, _, _ in COUNTERS]
            assert of["counters"]["pixel_bytes"] == [4 * pixels] * WINDOW
            shared = variant in ("default", "sharing")
            assert of["work"]["first"] == [not shared or n == 0 for n in range(WINDOW)]
            assert of["work"]["beside"] == [int(shared)] * WINDOW
            assert (of["cycles_before"] > 0) == shared
            assert any(of["counters"]["hits"]) == PRESETS[variant].caching
            assert of["walk"]["lookups"] == of["counters"]["lookups"]
        # Without the cache the same is tested, and more; lists that are shared hold more.
        for with_cache, without in (("default", "sharing"), ("caching", "plain")):
            one, other = run["variants"][with_cache], run["variants"][without]
            assert one["sort"] == other["sort"]
            assert sum(one["work"]["evaluations"]) < sum(other["work"]["evaluations"])
            assert sum(one["work"]["fragments"]) < sum(other["work"]["fragments"])
            assert min(other["work"]["psnr_db"]) > max(one["work"]["psnr_db"])
        assert min(counted(name, "sharing")["sort"]["pairs"]) > max(
            counted(name, "plain")["sort"]["pairs"])


def test_runs_are_of_the_parameters():
    """Whoever changes a parameter counts anew: python -m splatforge.claims.lumincore."""
    for name, variant in NAMES:
        assert counted(name, variant)["digest"] == lumincore.digest(variant), (name, variant)
    assert len({lumincore.digest(variant) for variant in VARIANTS}) == len(VARIANTS)


def test_the_clock_is_one_that_synthesis_supports():
    claims = [claim for claim in read_claims() if claim.call.startswith(lumincore.__name__)]
    nodes = {claim.arguments["node_nm"] for claim in claims if "node_nm" in claim.arguments}
    assert nodes == {12}
    for run in RUNS.values():
        assert run["clock_hz"] <= default_costs().clock("lumina", node_nm=12).value


def rows(columns):
    return [dict(zip(columns, values, strict=True))
            for values in zip(*columns.values(), strict=True)]


def by_hand(name, variant):
    """Seconds of the reference, of a variant with the accelerator, and without."""
    of, clock_hz = counted(name, variant), RUNS[name]["clock_hz"]
    works = [SortWork(**work) for work in rows(of["sort"])]
    reference = sum(gpu_frame(FrameWork(**row), XAVIER).time.value
                    for row in rows(RUNS[name]["gpu"]))
    firsts = [n for n, first in enumerate(of["work"]["first"]) if first]
    sorts = [sort(works[n], XAVIER).time.value for n in firsts]
    hidden = [of["cycles_before"] / clock_hz if n == 0 else 0 for n in firsts]
    with_it = (sum(refresh(work, XAVIER).time.value for work in works)
               + sum(of["counters"]["cycles"]) / clock_hz
               + sum(max(0, time - beside) for time, beside in zip(sorts, hidden, strict=True)))
    alone = sum(sorts) + sum(
        refresh(work, XAVIER, features=False).time.value
        + rasterize(Walk(**done), PRESETS[variant].radiance, XAVIER).time.value
        for work, done in zip(works, rows(of["walk"]), strict=True))
    return reference, with_it, alone


@pytest.mark.parametrize("variant", VARIANTS)
def test_speedups_by_hand(variant):
    name = next(iter(RUNS))
    reference, with_it, alone = by_hand(name, variant)
    ours = lumincore.speedup("agx_xavier", [name], variant)
    assert ours.value == pytest.approx(reference / with_it)
    assert ours.low <= ours.value <= ours.high
    assert lumincore.speedup("agx_xavier", [name], variant, alone=True).value == pytest.approx(
        reference / alone)
    default = by_hand(name, "default")
    assert f"default {default[0] / default[2]:.2f}x" in ours.source


def test_rates_and_energies_by_hand():
    each = []
    for name in RUNS:
        _, with_it, _ = by_hand(name, "default")
        rate = lumincore.frame_rate("agx_xavier", [name])
        assert rate.value == pytest.approx(WINDOW / with_it)
        each.append(rate.value)
        saving = lumincore.energy_saving("agx_xavier", [name], 12)
        assert lumincore.energy_saved("agx_xavier", [name], 12).value == pytest.approx(
            1 - 1 / saving.value)
        reports = lumincore._energies(name, "default", 12)
        works = [SortWork(**work) for work in rows(counted(name, "default")["sort"])]
        gpu = sum(refresh(work, XAVIER).energy.value for work in works) + sort(
            works[0], XAVIER).energy.value
        theirs = sum(gpu_frame(FrameWork(**row), XAVIER).energy.value
                     for row in rows(RUNS[name]["gpu"]))
        own = sum(report.energy_j for report in reports)
        assert saving.value == pytest.approx(theirs / (gpu + own))
        # A few pJ for every bit that the memory moved are the least of it.
        moved = sum(row["access_bytes"] * (row["reads"] + row["writes"])
                    for row in rows(counted(name, "default")["dram"]))
        assert own > 2e-12 * 8 * moved
    assert lumincore.frame_rate("agx_xavier", list(RUNS)).value == pytest.approx(
        sum(each) / len(each))


def test_losses_by_hand():
    """The cache costs most of it; of sharing alone the first frame, which lies farthest off."""
    for name in RUNS:
        psnr = counted(name, "default")["work"]["psnr_db"]
        error = sum(10 ** (-value / 10) for value in psnr) / len(psnr)
        loss = lumincore.psnr_loss([name], 26.3).value
        assert loss == pytest.approx(10 * math.log10(1 + error * 10 ** 2.63))
        assert lumincore.psnr_loss([name], 33.5).value > loss
        assert lumincore.psnr_loss([name], 26.3, "sharing").value < loss / 3
        shared = counted(name, "sharing")["work"]["psnr_db"]
        assert shared[0] < min(shared[1:]) - 10
        assert lumincore.psnr_loss([name], 33.5, "plain").value < 0.005


def test_reasons():
    """What the notes of the claims say."""
    shorter, faster, issued, pairs, own, rates, losses, shares = ([] for _ in range(8))
    gpu = lumincore._device("agx_xavier")
    for name in RUNS:
        of, without = counted(name, "default"), counted(name, "sharing")
        moved = [of["counters"][f"cache_{way}_bytes"] for way in ("read", "written")]
        assert moved == [[13 * 13 * 65536] * WINDOW] * 2
        assert f"{2 * 13 * 13 * 65536 / DRAMS[lumincore.MEMORY].peak_bytes_per_s:.2g}" == "0.00087"
        shorter.append((sum(cycles(name, "default")) - sum(cycles(name, "sharing"))) / WINDOW / 1e6)
        issued.append(sum(of["actions"]["issued"]) / WINDOW / 1e6)
        faster.append(lumincore.speedup("agx_xavier", [name], "sharing").value)
        pairs.append(sum(without["sort"]["pairs"]) / sum(
            counted(name, "plain")["sort"]["pairs"]))
        own.append(1e3 * sum(each.energy_j for each in lumincore._energies(
            name, "default", 12)) / WINDOW)
        shares.append(lumincore._accelerated(name, "default", gpu).gpu_energy.value
                      / lumincore._joules(name, "default", gpu, 12).value)
        rates.append(WINDOW / by_hand(name, "default")[0])
        losses.append(lumincore.psnr_loss([name], 26.3, "sharing").value)
        assert lumincore.speedup("agx_xavier", [name], "sharing", alone=True).value < 1

    def ends(values, digits):
        return [round(end, digits) for end in (min(values), max(values))]
    assert ends(shorter, 2) == [0.77, 0.94]
    assert ends(issued, 2) == [0.24, 0.82]
    assert ends(faster, 1) == [3.4, 7.3]
    assert ends(pairs, 1) == [1.2, 1.6]
    assert ends(own, 1) == [2.2, 3.2]
    assert ends(shares, 2) == [0.73, 0.87]
    assert ends(rates, 0) == [69, 293]
    assert ends(losses, 2) == [0.02, 0.26]


def test_parts_by_hand():
    table, design = default_costs(), LuminaDesign()
    area = area_of_units(lumina_inventory(design, table), node_nm=12)
    assert lumincore.chip_area(12).value == pytest.approx(area.area_mm2)
    assert "radiance" in lumincore.chip_area(12).source
    records = design.vru.cache_features * sum(
        width for _, width, _ in design.setup.feature.fields()) / 8
    chunks = 2 * design.nru.chunk_splats * (design.splat.width + 18) / 8
    assert records + chunks < lumincore.feature_buffer().value < 1.5 * records + chunks
    banks = 2 * design.radiance.sets * (4 * (80 + 24 + 1) + 3) / 8
    assert lumincore.memory_bytes().value > lumincore.feature_buffer().value + banks
    nru = design.nru
    state = 3 * nru.blend.accumulator.width + nru.blend.transmittance.width
    assert lumincore.output_buffer().value == 512 * state / 8
    entry = 4 * (nru.exponent_bits + 3 * nru.blend.color.width + 18 + 1) + 3
    assert lumincore.queue().value == nru.queue_entries * entry / 8


@pytest.mark.parametrize(("function", "arguments", "message"), [
    (lumincore.speedup, ("agx_xavier", []), "Frames must hold at least one name, not 0"),
    (lumincore.frame_rate, ("agx_xavier", ["gone"]), "Frame must be one of fox_800x800.*'gone'"),
    (lumincore.speedup, ("gone", ["fox_800x800"]), "GPU must be one of .* not 'gone'"),
    (lumincore.psnr_loss, (["fox_800x800"], 30, "gone"), "Variant must be one of .*'gone'")])
def test_what_is_not_there_is_named(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments)


@pytest.mark.matrix
@pytest.mark.parametrize("name", RUNS)
def test_counts_are_those_of_the_model(name, shared_scene, shared_cameras):
    """Another machine's last digits may differ in what was measured of pictures, in no count."""
    got = json.loads(json.dumps(lumincore.count(
        name, shared_scene(RECIPES[name].captures[0]).parent,
        shared_cameras(lumincore.TRACE).parent)))
    for variant in VARIANTS:
        psnr = got["variants"][variant]["work"].pop("psnr_db")
        want = dict(counted(name, variant)["work"])
        assert psnr == pytest.approx(want.pop("psnr_db"), abs=0.01)
        of = dict(counted(name, variant))
        of["work"] = want
        assert got["variants"][variant] == of
    assert got["gpu"] == RUNS[name]["gpu"]

"""GPU rooflines: by hand, monotone, inside their bands, and beside what was published."""

import json
import math
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splatforge.sim.gpu import (
    FrameWork,
    compare,
    devices,
    gpu_frame,
    published_checks,
)

#: Counted by the reference renderer: a drone capture of a city district, 4,972,767 Gaussians of
#: SH degree 3, eye (0, -40, -150), at the largest resolution of GBU's Mip-NeRF 360 frames.
CITY = FrameWork(gaussians=4_972_767, gaussians_visible=1_588_777, sh_degree=3, pairs=7_001_478,
                 pairs_reached=5_022_269, pixels=1_027_125, tiles=4_056, evaluations=811_770_664,
                 significant=49_363_459)
ORIN = devices()["orin_nx_16gb"]
XAVIER = devices()["agx_xavier"]


@pytest.mark.parametrize(("name", "tflops", "gb_per_s"), [
    ("orin_nx_16gb", 1.88, 102.4), ("agx_orin_64gb", 5.32, 204.8), ("agx_xavier", 1.41, 136.5),
    ("xavier_nx", 0.845, 59.7),
])
def test_devices(name: str, tflops: float, gb_per_s: float) -> None:
    device = devices()[name]
    assert device.peak.to("TFLOP/s").value == pytest.approx(tflops, rel=5e-3)
    assert device.bandwidth.to("GB/s").value == gb_per_s
    assert device.power.low < device.power.value <= device.power.high


def test_stages_by_hand() -> None:
    """Orin NX: 102.4 GB/s x 0.65 and 1024 x 2 x 918 MHz x 0.145 FLOP/s."""
    run = gpu_frame(CITY, ORIN)
    bandwidth, peak = 102.4e9 * 0.65, 1024 * 2 * 918e6 * 0.145
    preprocess = 1_588_777 * (59 * 4 + 75) + (4_972_767 - 1_588_777) * 40 + 4_972_767 * 8
    sort = 7_001_478 * (12 + 8 * 24 + 8) + 4_972_767 * 8 + 1_588_777 * 20 + 4_056 * 16
    slots = 5_022_269 * 256
    flop = slots * 13 + 49_363_459 * 3.2 * 9
    times = {"preprocess": preprocess / bandwidth, "sort": sort / bandwidth,
             "rasterize": flop / peak, "write": 1_027_125 * 20 / bandwidth}
    assert [stage.name for stage in run.stages] == list(times)
    for stage in run.stages:
        assert stage.time.value == pytest.approx(times[stage.name], rel=1e-9)
    assert run.time.value == pytest.approx(sum(times.values()))
    assert run.energy.value == pytest.approx(15 * sum(times.values()))
    assert run.energy.unit == "J"
    assert run.traffic_bytes == pytest.approx(
        preprocess + sort + 5_022_269 * 40 + 1_027_125 * 20)
    assert [stage.bound_by for stage in run.stages] == ["memory", "memory", "compute", "memory"]
    assert sum(run.shares.values()) == pytest.approx(1)


def test_roofline_points_lie_under_the_roof() -> None:
    for device in devices().values():
        for stage in gpu_frame(CITY, device).stages:
            roof = min(device.peak.value,
                       stage.intensity * device.bandwidth.to("B/s").value)
            assert stage.rate <= roof * (1 + 1e-9)
    stages = {stage.name: stage for stage in gpu_frame(CITY, ORIN).stages}
    assert 1 < stages["preprocess"].intensity < 3.4  # 1.69 to 3.39 FLOP/B in RoofGS (2608.15785)
    assert stages["sort"].intensity == 0
    assert stages["rasterize"].intensity > 50


def test_record_is_json() -> None:
    run = gpu_frame(CITY, ORIN)
    record = json.loads(json.dumps(run.record()))
    assert sum(stage["time_s"] for stage in record["stages"]) == pytest.approx(record["time_s"])
    assert sum(stage["bytes"] for stage in record["stages"]) == record["traffic_bytes"]
    rasterize = record["stages"][2]
    assert rasterize["flop_per_s"] == pytest.approx(rasterize["flop"] / rasterize["time_s"])
    assert rasterize["flop_per_s"] == pytest.approx(0.145 * record["peak_flop_per_s"])


def test_beside_published_figures() -> None:
    """A substitute scene of the papers' size: frame rates and stage split, nothing fitted to it."""
    orin = {check.name: check for check in published_checks(gpu_frame(CITY, ORIN))}
    assert set(orin) == {"fps", "share preprocess", "share sort", "share rasterize"}
    assert all(check.setting == "substitute" for check in orin.values())
    for check in orin.values():
        assert check.inside, check
    assert abs(orin["fps"].error) < 0.3
    for name, device in devices().items():
        checks = {check.name: check for check in published_checks(gpu_frame(CITY, device))}
        run = gpu_frame(CITY, device)
        if name != "agx_orin_64gb":  # published at 2560x1440 only
            published = checks["fps"].published
            assert 1 / run.time.high <= published.high
            assert 1 / run.time.low >= published.low
            assert 0.5 < checks["fps"].ours / published.value < 2


def test_a_device_without_published_rate_is_compared_by_split_alone() -> None:
    names = [check.name for check in
             published_checks(gpu_frame(CITY, replace(ORIN, name="mine")))]
    assert "fps" not in names
    assert len(names) == 3


def test_published_check_outside_its_interval() -> None:
    small = replace(CITY, evaluations=0, significant=0, pairs_reached=0)
    checks = {check.name: check for check in published_checks(gpu_frame(small, ORIN))}
    assert not checks["share rasterize"].inside
    assert checks["share rasterize"].error == -1


@st.composite
def works(draw: st.DrawFn) -> FrameWork:
    gaussians = draw(st.integers(0, 10**7))
    pairs = draw(st.integers(0, 10**8))
    reached = draw(st.integers(0, pairs))
    evaluations = draw(st.integers(0, 256 * reached))
    tiles = draw(st.integers(0, 10**5))
    return FrameWork(gaussians=gaussians, gaussians_visible=draw(st.integers(0, gaussians)),
                     sh_degree=draw(st.integers(0, 3)), pairs=pairs, pairs_reached=reached,
                     pixels=draw(st.integers(0, 256 * tiles)), tiles=tiles,
                     evaluations=evaluations, significant=draw(st.integers(0, evaluations)))


@given(works(), st.sampled_from(sorted(devices())))
def test_band_holds_the_value(work: FrameWork, name: str) -> None:
    run = gpu_frame(work, devices()[name])
    for quantity in (run.time, run.energy, *(stage.time for stage in run.stages)):
        assert 0 <= quantity.low <= quantity.value <= quantity.high
    assert all(0 <= share <= 1 for share in run.shares.values())


@given(works(), st.sampled_from(
    ["gaussians", "gaussians_visible", "sh_degree", "pairs", "pairs_reached", "evaluations",
     "significant", "pixels", "tiles"]), st.integers(1, 10**6))
def test_more_work_is_never_faster(work: FrameWork, name: str, extra: int) -> None:
    try:
        more = replace(work, **{name: getattr(work, name) + extra})
    except ValueError:
        return  # contradicts another count
    for device in (ORIN, XAVIER):
        less, busier = gpu_frame(work, device).time, gpu_frame(more, device).time
        slack = 1 + 1e-12
        assert busier.value * slack >= less.value
        assert busier.low * slack >= less.low
        assert busier.high * slack >= less.high


@given(works())
def test_a_faster_device_is_never_slower(work: FrameWork) -> None:
    doubled = replace(ORIN, clock=ORIN.clock * 2, bandwidth=ORIN.bandwidth * 2)
    assert gpu_frame(work, doubled).time.value == \
        pytest.approx(gpu_frame(work, ORIN).time.value / 2)


def test_empty_frame() -> None:
    nothing = FrameWork(**{field.name: 0 for field in fields(FrameWork)})
    run = gpu_frame(nothing, ORIN)
    assert run.time.value == 0
    assert run.shares == dict.fromkeys(run.shares, 0.0)
    assert math.isinf(run.stages[0].intensity)
    assert run.stages[0].rate == 0
    assert next(check.name for check in published_checks(run)) == "share preprocess"


@pytest.mark.parametrize(("changes", "message"), [
    ({"gaussians": -1}, "gaussians must be non-negative, not -1"),
    ({"sh_degree": 4}, "SH degree must be 0 to 3, not 4"),
    ({"gaussians_visible": 5_000_000}, "gaussians_visible must be at most gaussians"),
    ({"pairs_reached": 8_000_000}, "pairs_reached must be at most pairs"),
    ({"pixels": 256 * 4_056 + 1}, "pixels must be at most 256 x tiles"),
    ({"evaluations": 256 * 5_022_269 + 1}, "evaluations must be at most 256 x pairs_reached"),
    ({"significant": 811_770_665}, "significant must be at most evaluations"),
])
def test_contradicting_counts(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CITY, **changes)


def test_compare_by_hand() -> None:
    run = gpu_frame(CITY, ORIN)
    baselines = compare(time_s=0.005, energy_j=0.01, energy_band_j=(0.005, 0.02),
                        gpu_runs=[run, gpu_frame(CITY, XAVIER)])
    assert list(baselines) == ["orin_nx_16gb", "agx_xavier"]
    orin = baselines["orin_nx_16gb"]
    assert orin["time_s"] == run.time.value
    assert orin["speedup"] == pytest.approx(run.time.value / 0.005)
    assert orin["energy_saving"] == pytest.approx(run.time.value * 15 / 0.01)
    assert orin["speedup_band"] == pytest.approx([run.time.low / 0.005, run.time.high / 0.005])
    assert orin["energy_saving_band"] == \
        pytest.approx([run.energy.low / 0.02, run.energy.high / 0.005])
    plain = compare(time_s=0.005, energy_j=0.01, gpu_runs=[run])["orin_nx_16gb"]
    assert plain["energy_saving_band"] == pytest.approx([run.energy.low / 0.01,
                                                         run.energy.high / 0.01])


def test_part_of_a_frame() -> None:
    whole = gpu_frame(CITY, ORIN)
    part = whole.part("rasterize", "write")
    assert part.time.value == pytest.approx(sum(stage.time.value for stage in whole.stages[2:]))
    speedups = [compare(time_s=1.0, energy_j=1.0, gpu_runs=[run])["orin_nx_16gb"]["speedup"]
                for run in (part, whole)]
    assert speedups == [part.time.value, whole.time.value]
    with pytest.raises(ValueError, match="Stage must be preprocess, sort, rasterize, write, not"):
        whole.part("shade")


@pytest.mark.parametrize(("arguments", "message"), [
    ({"time_s": 0.0, "energy_j": 1.0}, "Time in s must be above zero, not 0.0"),
    ({"time_s": 1.0, "energy_j": math.inf}, "Energy in J must be above zero, not inf"),
    ({"time_s": 1.0, "energy_j": 1.0, "energy_band_j": (0.0, 1.0)}, "Low end of the energy"),
])
def test_compare_needs_a_run(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compare(gpu_runs=[], **arguments)


def test_statistics_of_a_real_frame(shared_scene) -> None:
    from splatforge.algos.reference import render
    from splatforge.scenes import default_camera, load

    scene = load(shared_scene("inari_fox_50k.ply"))
    camera = default_camera(scene, 320, 240)
    statistics = render(scene, camera, statistics=True).statistics
    assert statistics is not None
    work = FrameWork.from_statistics(statistics, gaussians=scene.gaussians,
                                     gaussians_visible=scene.gaussians,
                                     sh_degree=scene.sh_degree, pixels=320 * 240)
    assert work.tiles == 20 * 15
    assert work.pairs == int(np.sum(statistics.pairs))
    assert 0 < work.significant <= work.evaluations <= 256 * work.pairs_reached
    assert gpu_frame(work, ORIN).time.value < gpu_frame(CITY, ORIN).time.value

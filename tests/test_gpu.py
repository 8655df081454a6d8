"""GPU rooflines: by hand, monotone, inside their bands."""

import json
import math
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splatforge.algos.reference import render
from splatforge.designs.raster import RasterDesign
from splatforge.scenes import default_camera, load, resolve
from splatforge.sim.gpu import (
    FALLOFFS,
    FrameWork,
    _constants,
    compare,
    devices,
    gpu_frame,
    read_devices,
)
from splatforge.sim.simulate import simulate

#: Counted by the reference renderer: a drone capture of a city district, 4,972,767 Gaussians of
#: SH degree 3, eye (0, -40, -150), at the largest resolution of GBU's Mip-NeRF 360 frames.
CITY = FrameWork(gaussians=4_972_767, gaussians_visible=1_588_777, sh_degree=3, pairs=7_347_969,
                 pairs_reached=5_164_624, pixels=1_027_125, tiles=4_056, evaluations=824_286_419,
                 significant=49_395_051, warp_steps=32_802_078, warp_blends=4_498_312)
ORIN = devices()["orin_nx_16gb"]
XAVIER = devices()["agx_xavier"]


@pytest.mark.parametrize(("name", "tflops", "gb_per_s"), [
    ("orin_nx_16gb", 1.88, 102.4), ("agx_orin_64gb", 5.32, 204.8), ("agx_xavier", 1.41, 136.5),
    ("xavier_nx", 0.845, 59.7), ("orin_nano_8gb", 1.28, 68.2), ("rtx_3090", 35.6, 936),
    ("rtx_a6000", 38.7, 768),
])
def test_devices(name: str, tflops: float, gb_per_s: float) -> None:
    device = devices()[name]
    assert device.peak.to("TFLOP/s").value == pytest.approx(tflops, rel=5e-3)
    assert device.bandwidth.to("GB/s").value == gb_per_s
    assert 0 < device.power.low <= device.power.value <= device.power.high
    # Volta has 64 lanes a multiprocessor, Ampere of these boards 128.
    assert device.cores.value / device.sms.value == (64 if "xavier" in name else 128)


def test_issue_rate_is_the_published_utilisation() -> None:
    """29 % of the lanes of Xavier NX, which is what the constant was calibrated on."""
    device = devices()["xavier_nx"]
    assert device.issued.value == pytest.approx(0.29 * 384 * 1.1e9)
    assert device.issued.points == {"flicker.xavier_nx_fp_utilisation",
                                    "flicker.xavier_nx_sm_utilisation"}


def test_a_warp_takes_lanes_or_issue_slots() -> None:
    """16 lanes a scheduler take two cycles, the integers go beside; with 32 they have turns."""
    assert XAVIER.issued.value == pytest.approx(0.29 * 512 * 1377e6)
    assert XAVIER.issued.high == pytest.approx(XAVIER.issued.value / 0.85, rel=5e-3)
    assert ORIN.issued.value == pytest.approx(0.29 * 1024 / 1.36 * 918e6)
    assert ORIN.issued.low == pytest.approx(0.29 * 0.85 * 1024 / 1.62 * 918e6, rel=5e-3)
    assert ORIN.issued.high == pytest.approx(0.29 / 0.85 * 1024 / 1.23 * 918e6, rel=5e-3)
    # Per multiprocessor and cycle Ampere does 2 / 1.36 of what Volta does.
    per_cycle = [each.issued.value / (each.sms.value * each.clock.to("Hz").value)
                 for each in (ORIN, XAVIER)]
    assert per_cycle[0] / per_cycle[1] == pytest.approx(2 / 1.36)


def test_devices_come_in_the_published_order() -> None:
    """On Mip-NeRF 360: 134 FPS on A6000 (Kerbl), 12.8 on Orin NX (GBU), 5 on Xavier NX (FLICKER).

    What is published of Orin NX (2 to 9, 7 to 17) and of AGX Xavier (5 to 21, below 10) overlaps:
    it leaves their order open, and so do our bands.
    """
    times = {name: gpu_frame(CITY, device).time for name, device in devices().items()}
    order = ["rtx_a6000", "agx_orin_64gb", "orin_nx_16gb", "xavier_nx"]
    values = [times[name].value for name in order]
    assert values == sorted(values)
    assert times["orin_nx_16gb"].value < times["orin_nano_8gb"].value
    orin, xavier = times["orin_nx_16gb"], times["agx_xavier"]
    assert 0.85 < orin.value / xavier.value < 1.2
    assert orin.low < xavier.value < orin.high
    orin, xavier = (gpu_frame(CITY, device).part("rasterize").time for device in (ORIN, XAVIER))
    assert orin.value / xavier.value == pytest.approx(1377 / 918 * 1.36 / 2)


#: What the sources of devices.toml print: value, low, high.
CONSTANTS = {
    # 29 % of the lanes; times 85 %; over 85 %.
    "efficiency.busy": (0.29, 0.29 * 0.85, 0.29 / 0.85),
    # A copy on Jetson Nano; a copy and streaming reads on AGX Orin.
    "efficiency.memory": (16.5 / 25.6, 107 / 204.8, 152.8 / 204.8),
    # 36 for 100; three and eight for the 13 FLOP of an evaluation.
    "architecture.integers": (36 / 100, 3 / 13, 8 / 13),
    "architecture.schedulers": (4, 4, 4),
    "device.orin_nx_16gb.power": (15, 10, 25), "device.agx_orin_64gb.power": (60, 15, 60),
    "device.agx_xavier.power": (30, 10, 30), "device.xavier_nx.power": (20, 10, 20),
    "device.orin_nano_8gb.power": (15, 7, 15), "device.rtx_3090.power": (350, 350, 350),
    "device.xavier_nx.bandwidth": (59.7, 51.2, 59.7),
    "device.rtx_3090.clock": (1695, 1395, 1695),
    "device.rtx_a6000.clock": (1800, 1410, 1800), "device.rtx_a6000.power": (300, 300, 300),
    # 400 to 800 FLOP less 16 coefficients of three fused multiply-adds and a basis of five.
    "work.geometry_flop": ((400 + 800) / 2 - 16 * 11, 400 - 16 * 11, 800 - 16 * 11),
    "work.color_flop": (2 * 3 + 5, 2 * 3, 2 * 3 + 5),
    "work.culled_bytes": (4 * (3 + 3 + 4), 4 * 3, 4 * (3 + 3 + 4)),
    "work.preprocess_write_bytes": (4 + 3 + 4 + 8 + 24 + 16 + 12 + 4,) * 3,
    "work.pair_bytes": (8 + 4,) * 3,
    "work.radix_passes_more": (0, 0, 2),
    "work.histogram_bytes": (8,) * 3,
    "work.radix_extra_bytes": (0, 0, 8),
    "work.evaluate_flop": (8 + 4 + 1, 8 + 4, 8 + 4 + 6),
    # One MUL less, none, one more; an entry beside three others' in its bank, and a half.
    "work.exponential_flop": (1 + 1, 1, 6 + 1),
    "work.lookup_flop": (1 + 1 + 1 + 1, 1 + 1 + 1, 1 + 1 + 3.5 + 1),
    "work.blend_flop": (5 + 4, 5 + 4, 7 + 4),
    "work.reached_bytes": (4 + 8 + 16 + 12, 4 + 8 + 16, 4 + 8 + 16 + 12),
    "work.pixel_bytes": (12 + 4 + 4, 12, 12 + 4 + 4),
}


def test_constants_are_what_their_sources_print() -> None:
    entries = _constants()
    for name, printed in CONSTANTS.items():
        cost = entries[name].cost
        assert (cost.value, cost.low, cost.high) == pytest.approx(printed, rel=0.01), name
    spread = {name for name, entry in entries.items() if entry.cost.low < entry.cost.high}
    assert spread <= set(CONSTANTS)
    # Eight passes over 64 bits are two more than the key of a frame of 4,056 tiles needs.
    assert -(-(32 + 12) // 8) + 2 == 8


@pytest.mark.parametrize(("share", "bound_by"), [(0.9, "memory"), (1.1, "compute")])
def test_a_stage_takes_the_longer_of_both(share: float, bound_by: str) -> None:
    """Preprocessing of one Gaussian, at a bandwidth that makes its compute this share."""
    work = FrameWork(gaussians=1000, gaussians_visible=1000, sh_degree=3, pairs=0,
                     pairs_reached=0, pixels=0, tiles=0, evaluations=0, significant=0,
                     warp_steps=0, warp_blends=0)
    stage = gpu_frame(work, ORIN).stages[0]
    compute_s = stage.flop.value / ORIN.issued.value
    memory_s = stage.traffic.to("B").value / (0.65 * 102.4e9)
    slower = replace(ORIN, bandwidth=ORIN.bandwidth * (memory_s / compute_s * share))
    stage = gpu_frame(work, slower).stages[0]
    assert stage.bound_by == bound_by
    assert stage.time.value == pytest.approx(max(compute_s, compute_s / share))
    # Either end of the band is the longer of both at that end as well.
    compute = stage.flop / ORIN.issued
    memory = stage.traffic / (_constants()["efficiency.memory"].cost * slower.bandwidth)
    assert stage.time.low == pytest.approx(max(compute.low, memory.low))
    assert stage.time.high == pytest.approx(max(compute.high, memory.high))
    assert min(compute.low, memory.low) < stage.time.low


def test_filtered_exponentials_are_those_of_warps_that_blend() -> None:
    """By hand; what a warp skips saves it two operations, and a table needs more than it saves."""
    work = FrameWork(gaussians=10, gaussians_visible=10, sh_degree=0, pairs=100, pairs_reached=100,
                     pixels=512, tiles=2, evaluations=20_000, significant=3000, warp_steps=700,
                     warp_blends=200)
    flop = {falloff: gpu_frame(work, ORIN, falloff).part("rasterize").stages[0].flop
            for falloff in FALLOFFS}
    assert flop["exp"].value == 32 * (700 * 13 + 200 * 9)
    assert flop["filtered"].value == 32 * (700 * 11 + 200 * (9 + 2))
    assert flop["table"].value == 32 * (700 * 11 + 200 * (9 + 4))
    # Where the exponential is six instructions it is the dearest at the test, and the table pays.
    assert flop["exp"].high > flop["filtered"].high > flop["table"].high
    # Nothing else changes, and the same exponentials are taken if every warp blends.
    assert gpu_frame(work, ORIN, "table").stages[:3] == gpu_frame(work, ORIN).stages[:3]
    every = replace(work, warp_blends=700)
    assert gpu_frame(every, ORIN, "filtered").part("rasterize").stages[0].flop.value \
        == gpu_frame(every, ORIN).part("rasterize").stages[0].flop.value
    with pytest.raises(ValueError, match=r"^Falloff must be one of exp, .*, table, not 'lut'$"):
        gpu_frame(work, ORIN, "lut")


def test_stages_by_hand() -> None:
    """Orin NX: 102.4 GB/s x 0.65, and 8 multiprocessors x 128 / 1.36 x 918 MHz x 0.29 FLOP/s."""
    run = gpu_frame(CITY, ORIN)
    bandwidth, issued = 102.4e9 * 0.65, 8 * 128 / 1.36 * 918e6 * 0.29
    preprocess = 1_588_777 * (59 * 4 + 75) + (4_972_767 - 1_588_777) * 40 + 4_972_767 * 8
    duplicate = 7_347_969 * 12 + 4_972_767 * 8 + 1_588_777 * 20
    # 32 bits of depth and 12 of 4,056 tiles are six passes; keys are read before and behind them.
    sort = 7_347_969 * (8 + 6 * 24 + 8) + 4_056 * 16
    flop = 32 * (32_802_078 * 13 + 4_498_312 * 9)
    times = {"preprocess": preprocess / bandwidth, "duplicate": duplicate / bandwidth,
             "sort": sort / bandwidth, "rasterize": flop / issued,
             "write": 1_027_125 * 20 / bandwidth}
    assert [stage.name for stage in run.stages] == list(times)
    for stage in run.stages:
        assert stage.time.value == pytest.approx(times[stage.name], rel=1e-9)
    assert run.time.value == pytest.approx(sum(times.values()))
    assert run.energy.value == pytest.approx(15 * sum(times.values()))
    assert run.energy.unit == "J"
    assert run.traffic_bytes == pytest.approx(
        preprocess + duplicate + sort + 5_164_624 * 40 + 1_027_125 * 20)
    assert [stage.bound_by for stage in run.stages] == \
        ["memory", "memory", "memory", "compute", "memory"]
    assert run.time.points == {
        "flicker.xavier_nx_fp_utilisation", "flicker.xavier_nx_sm_utilisation",
        "roofgs.preprocess_flop"}


def test_shares() -> None:
    run = gpu_frame(CITY, ORIN)
    stages = {stage.name: stage.time for stage in run.stages}
    share = run.share("duplicate", "sort")
    part = stages["duplicate"] + stages["sort"]
    rest = stages["preprocess"] + stages["rasterize"] + stages["write"]
    assert share.value == pytest.approx(part.value / run.time.value)
    assert share.low == pytest.approx(part.low / (part.low + rest.high))
    assert share.high == pytest.approx(part.high / (part.high + rest.low))
    assert share.points == run.time.points
    assert run.share(*stages).value == run.share(*stages).low == 1
    with pytest.raises(ValueError, match="Stage must be preprocess, duplicate, sort"):
        run.share("shade")


@pytest.mark.parametrize(("tiles", "passes"), [
    (0, 4), (1, 5), (255, 5), (256, 6), (65_535, 6), (65_536, 7)])
def test_radix_passes_follow_the_key(tiles: int, passes: int) -> None:
    work = replace(CITY, tiles=tiles, pixels=0)
    sort = {stage.name: stage for stage in gpu_frame(work, ORIN).stages}["sort"]
    assert sort.traffic.to("B").value == CITY.pairs * (passes * 24 + 16) + tiles * 16


def test_color_costs_by_degree() -> None:
    flops = [gpu_frame(replace(CITY, sh_degree=degree), ORIN).stages[0].flop.value
             for degree in range(4)]
    assert [flop / CITY.gaussians_visible for flop in flops] == \
        pytest.approx([424 + 11, 424 + 44, 424 + 99, 600])


def test_masked_lanes() -> None:
    assert CITY.masked == pytest.approx(1 - 49_395_051 / (32 * 4_498_312))
    assert replace(CITY, significant=0, warp_blends=0).masked == 0


def test_roofline_points_lie_under_the_roof() -> None:
    for device in devices().values():
        for stage in gpu_frame(CITY, device).stages:
            roof = min(device.peak.value,
                       stage.intensity * device.bandwidth.to("B/s").value)
            assert stage.rate <= roof * (1 + 1e-9)
    stages = {stage.name: stage for stage in gpu_frame(CITY, ORIN).stages}
    assert 1 < stages["preprocess"].intensity < 3.4  # 1.69 to 3.39 FLOP/B in RoofGS (2608.15785)
    assert stages["sort"].intensity == stages["duplicate"].intensity == 0
    assert stages["rasterize"].intensity > 50


def test_record_is_json() -> None:
    run = gpu_frame(CITY, ORIN)
    record = json.loads(json.dumps(run.record()))
    assert sum(stage["time_s"] for stage in record["stages"]) == pytest.approx(record["time_s"])
    assert sum(stage["bytes"] for stage in record["stages"]) == record["traffic_bytes"]
    rasterize = record["stages"][3]
    assert rasterize["flop_per_s"] == pytest.approx(rasterize["flop"] / rasterize["time_s"])
    assert rasterize["flop_per_s"] == pytest.approx(
        0.29 / 2 / 1.36 * record["peak_flop_per_s"])


@st.composite
def works(draw: st.DrawFn) -> FrameWork:
    gaussians = draw(st.integers(0, 10**7))
    pairs = draw(st.integers(0, 10**8))
    reached = draw(st.integers(0, pairs))
    steps = draw(st.integers(0, 8 * reached))
    blends = draw(st.integers(0, steps))
    evaluations = draw(st.integers(0, 32 * steps))
    tiles = draw(st.integers(0, 10**5))
    significant = draw(st.integers(0, min(evaluations, 32 * blends)))
    return FrameWork(gaussians=gaussians, gaussians_visible=draw(st.integers(0, gaussians)),
                     sh_degree=draw(st.integers(0, 3)), pairs=pairs, pairs_reached=reached,
                     pixels=draw(st.integers(0, 256 * tiles)), tiles=tiles,
                     evaluations=evaluations, significant=significant,
                     warp_steps=steps, warp_blends=blends)


@given(works(), st.sampled_from(sorted(devices())))
def test_band_holds_the_value(work: FrameWork, name: str) -> None:
    run = gpu_frame(work, devices()[name])
    for quantity in (run.time, run.energy, *(stage.time for stage in run.stages)):
        assert 0 <= quantity.low <= quantity.value <= quantity.high
    if run.time.value:
        shares = [run.share(stage.name) for stage in run.stages]
        assert all(0 <= share.low <= share.high <= 1 for share in shares)
        assert sum(share.value for share in shares) == pytest.approx(1)


@given(works(), st.sampled_from(
    ["gaussians", "gaussians_visible", "sh_degree", "pairs", "pairs_reached", "evaluations",
     "significant", "pixels", "tiles", "warp_steps", "warp_blends"]), st.integers(1, 10**6))
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
    with pytest.raises(ValueError, match="Frame must take time to be shared"):
        run.share("sort")
    assert math.isinf(run.stages[0].intensity)
    assert run.stages[0].rate == 0


@pytest.mark.parametrize(("changes", "message"), [
    ({"gaussians": -1}, "gaussians must be non-negative, not -1"),
    ({"sh_degree": 4}, "SH degree must be 0 to 3, not 4"),
    ({"gaussians_visible": 5_000_000}, "gaussians_visible must be at most gaussians"),
    ({"pairs_reached": 8_000_000}, "pairs_reached must be at most pairs"),
    ({"pixels": 256 * 4_056 + 1}, "pixels must be at most 256 x tiles"),
    ({"evaluations": 256 * 5_164_624 + 1}, "evaluations must be at most 256 x pairs_reached"),
    ({"significant": 824_286_420}, "significant must be at most evaluations"),
    ({"warp_steps": 8 * 5_164_624 + 1}, "warp_steps must be at most 8 x pairs_reached"),
    ({"warp_steps": 20_000_000}, "evaluations must be at most 32 x warp_steps"),
    ({"warp_blends": 32_802_079}, "warp_blends must be at most warp_steps"),
    ({"warp_blends": 1_000_000}, "significant must be at most 32 x warp_blends"),
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
    banded = compare(time_s=0.005, energy_j=0.01, time_band_s=(0.004, 0.01), gpu_runs=[run])
    assert banded["orin_nx_16gb"]["speedup_band"] == \
        pytest.approx([run.time.low / 0.01, run.time.high / 0.004])
    plain = compare(time_s=0.005, energy_j=0.01, gpu_runs=[run])["orin_nx_16gb"]
    assert plain["energy_saving_band"] == pytest.approx([run.energy.low / 0.01,
                                                         run.energy.high / 0.01])


def test_part_of_a_frame() -> None:
    whole = gpu_frame(CITY, ORIN)
    part = whole.part("rasterize", "write")
    assert part.time.value == pytest.approx(sum(stage.time.value for stage in whole.stages[3:]))
    speedups = [compare(time_s=1.0, energy_j=1.0, gpu_runs=[run])["orin_nx_16gb"]["speedup"]
                for run in (part, whole)]
    assert speedups == [part.time.value, whole.time.value]
    with pytest.raises(ValueError, match="duplicate, sort, rasterize, write, not 'shade'"):
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


def test_time_follows_what_is_drawn_and_on_what() -> None:
    """More pixels or Gaussians take longer; a clock or a bandwidth helps the stages it binds."""
    scene = resolve("default")

    def work(of, width: int, height: int) -> FrameWork:
        frame = render(of, default_camera(of, width, height), statistics=True)
        assert frame.statistics is not None
        return FrameWork.from_statistics(
            frame.statistics, gaussians=of.gaussians,
            gaussians_visible=of.gaussians, sh_degree=of.sh_degree, pixels=width * height)

    small, large = work(scene, 96, 72), work(scene, 192, 144)
    half = work(scene.select(np.arange(0, scene.gaussians, 2)), 192, 144)
    for device in devices().values():
        first, second = gpu_frame(small, device).time, gpu_frame(large, device).time
        assert first.value < second.value < 4.5 * first.value
        assert gpu_frame(half, device).time.value < second.value
        run = gpu_frame(large, device)
        clock, wide = (gpu_frame(large, replace(device, **{name: getattr(device, name) * 2}))
                       for name in ("clock", "bandwidth"))
        for base, fast, broad in zip(run.stages, clock.stages, wide.stages, strict=True):
            assert fast.time.value <= base.time.value * (1 + 1e-12)
            assert broad.time.value <= base.time.value * (1 + 1e-12)
            assert (base if base.bound_by == "memory" else broad).time.value == pytest.approx(
                (fast if base.bound_by == "memory" else base).time.value)


CARD = """
[device.handheld.sms]
value = 4
unit = "1"
low = 4
high = 4
source = "its data sheet"

[device.handheld.cores]
value = 512
unit = "1"
low = 512
high = 512
source = "its data sheet"

[device.handheld.clock]
value = 1.5
unit = "GHz"
low = 1.2
high = 1.5
source = "its data sheet"

[device.handheld.bandwidth]
value = 88
unit = "GB/s"
low = 88
high = 88
source = "its data sheet"

[device.handheld.power]
value = 15
unit = "W"
low = 10
high = 15
source = "its data sheet"
"""


def test_a_card_of_ones_own(tmp_path) -> None:
    """It runs what the committed ones run, and stands beside an accelerator."""
    path = tmp_path / "cards.toml"
    path.write_text(CARD)
    (device,) = read_devices(path).values()
    assert (device.name, device.peak.to("TFLOP/s").value) == ("handheld", pytest.approx(1.536))
    scene = resolve("default").select(np.arange(500))
    record = simulate("raster", RasterDesign(), scene, [default_camera(scene, 32, 32)],
                      gpus=[device, "orin_nx_16gb"]).record()
    assert list(record["baselines"]) == ["handheld", "orin_nx_16gb"]
    assert record["baselines"]["handheld"]["speedup"] > 0


@pytest.mark.parametrize(("old", "new", "message"), [
    ("[device.handheld.sms]", "[device.handheld.smms]", "smms must be device.NAME with one of sms"),
    ("[device.handheld.sms]", "[gpu.handheld.sms]", "gpu.handheld.sms must be device.NAME"),
    ('unit = "GHz"', 'unit = "V"', "clock.unit must be one of Hz, not 'V'"),
    ("low = 10\n", "low = 0\n", "power.low must be above zero"),
    ('source = "its data sheet"', 'source = ""', "handheld.sms: Source must say"),
    ("[device.handheld.power]", "[device.other.power]", "device.handheld.power is missing"),
    ("[device.handheld.power]", "[device.handheld.power", "cards.toml: not TOML"),
])
def test_cards_are_refused_by_field(tmp_path, old: str, new: str, message: str) -> None:
    assert old in CARD
    path = tmp_path / "cards.toml"
    path.write_text(CARD.replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        read_devices(path)

"""Co-simulation of frames: what it reports, and that it sees what is wrong."""

import gc
import json
import math
import threading
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from splatforge import cli
from splatforge.algos import reference
from splatforge.algos.quality import psnr_db
from splatforge.designs.memory import MemoryTiming
from splatforge.designs.raster import COUNTERS, PRESETS
from splatforge.scenes import Camera, Scene, default_camera, resolve
from splatforge.verification import cosim as cosim_module
from splatforge.verification.cosim import cosim
from splatforge.verification.lib.build import Binary
from splatforge.verification.lib.frame import SimulationError, Stall, Waves, build_frame

pytestmark = pytest.mark.rtl

DESIGN = PRESETS["16-lane"]
TIMING = MemoryTiming(latency_cycles=20)
#: Keys of `splatforge cosim --json`, DESIGN.md.
KEYS = {
    "design", "scene", "frames", "pixels", "pixels_differing", "psnr_db_vs_float", "memory",
    "rtl_cycles", "model_cycles", "cycle_error", "rtl_bytes_read", "rtl_bytes_written",
    "model_bytes_read", "model_bytes_written", "build_s", "simulate_s", "wall_s",
}


@pytest.fixture(scope="module")
def scene():
    full = resolve("default")
    return Scene(
        means=full.means[::20], log_scales=full.log_scales[::20], quats=full.quats[::20],
        opacity_logits=full.opacity_logits[::20], sh=full.sh[::20])


@pytest.fixture(scope="module")
def cameras(scene):
    return [default_camera(scene, 50, 35), default_camera(scene, 33, 40),
            default_camera(scene, 20, 20)]


@pytest.fixture(scope="module")
def pictures():
    """Of the frames of `result`."""
    return []


@pytest.fixture(scope="module")
def result(scene, cameras, pictures):
    return cosim("raster", DESIGN, scene, cameras, scene_name="thin", timing=TIMING,
                 background=(0.2, 0.4, 0.6), pictures=pictures.append)


def test_rtl_equals_every_model(result, pictures, scene, cameras):
    result.check()
    assert result.pixels_differing == 0
    assert result.cycle_error <= 0.01
    assert result.psnr_db_vs_float >= 45
    assert result.psnr_db_vs_float_non_background >= 45
    assert [each.number for each in pictures] == [0, 1, 2]
    for frame, each, camera in zip(result.frames, pictures, cameras, strict=True):
        assert frame.pixels_differing == frame.state_pixels_differing == 0
        assert each.rtl.shape == (camera.height, camera.width, 4)
        # The figures again, from the pictures themselves.
        exact = reference.render(scene, camera, background=(0.2, 0.4, 0.6))
        assert np.array_equal(each.exact, exact.image)
        shown = each.rtl[..., :3] / 255
        assert frame.psnr_db_vs_float == pytest.approx(psnr_db(shown, exact.image), abs=1e-3)
        mask = exact.transmittance < 1 - 1 / 255
        assert 0 < mask.sum()
        # Of the raster core the algorithm is the reference's.
        assert frame.psnr_db_vs_reference == frame.psnr_db_vs_float
        assert frame.psnr_db_vs_float_non_background == pytest.approx(
            psnr_db(shown, exact.image, mask), abs=1e-3)
    psnr = [frame.psnr_db_vs_float for frame in result.frames]
    assert result.psnr_db_vs_float == min(psnr)
    assert result.worst is pictures[psnr.index(min(psnr))]


@pytest.mark.parametrize("wrong", range(3))
@pytest.mark.parametrize("sign", [1, -1])
def test_figures_of_many_frames_are_those_of_the_worst(result, wrong, sign):
    """Neither the mean, nor the sum in which errors of either sign cancel."""
    cycles = [frame.rtl_cycles for frame in result.frames]
    off = [(sign if number == wrong else -sign) * (100 if number == wrong else 1)
           for number in range(3)]
    frames = tuple(
        replace(frame, model_cycles=frame.rtl_cycles + miss,
                psnr_db_vs_float=frame.psnr_db_vs_float - abs(miss) / 10,
                psnr_db_vs_float_non_background=50 - abs(miss) / 10)
        for frame, miss in zip(result.frames, off, strict=True))
    many = replace(result, frames=frames)
    assert many.cycle_error == 100 / cycles[wrong]
    assert many.to_json()["cycle_error"] == 100 / cycles[wrong]
    assert many.psnr_db_vs_float == result.frames[wrong].psnr_db_vs_float - 10
    assert many.psnr_db_vs_float_non_background == 40
    assert many.to_json()["model_cycles"] == sum(cycles) + sum(off)


def test_json_has_the_keys_of_the_command(result, cameras):
    figures = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert figures.keys() >= KEYS
    assert figures["design"] == "raster"
    assert figures["scene"] == "thin"
    assert figures["frames"] == 3
    assert figures["pixels"] == sum(camera.width * camera.height for camera in cameras)
    assert figures["memory"] == {
        "name": "fixed", "latency_cycles": 20, "read_beats_per_cycle": 1.0,
        "write_beats_per_cycle": 1.0,
        "outstanding": 32}
    assert figures["rtl_cycles"] == sum(frame.rtl_cycles for frame in result.frames)
    assert figures["rtl_bytes_written"] == figures["model_bytes_written"] == 4 * figures["pixels"]
    assert figures["rtl_bytes_read"] == figures["model_bytes_read"] > 0
    assert figures["simulate_s"] > 0
    assert figures["wall_s"] >= figures["simulate_s"]
    assert figures["counters"].keys() == {name for name, _, _ in COUNTERS}
    assert figures["counters"]["cycles"]["rtl"] == figures["rtl_cycles"]
    assert len(figures["per_frame"]) == 3
    assert figures["per_frame"][0]["difference"] is None


@pytest.mark.parametrize("processes", [2, 3, 20])
def test_frames_in_many_processes_are_the_same(result, pictures, scene, cameras, processes):
    told, others = [], []
    other = cosim(
        "raster", DESIGN, scene, cameras, scene_name="thin", timing=TIMING,
        background=(0.2, 0.4, 0.6), processes=processes, pictures=others.append,
        progress=lambda stage, done, total: told.append((stage, done, total)))
    for one, two in zip(result.frames, other.frames, strict=True):
        assert one.to_json() == two.to_json()
        assert one.rtl_counters == two.rtl_counters
    for one, two in zip(pictures, others, strict=True):
        assert one.number == two.number
        assert np.array_equal(one.rtl, two.rtl)
    assert {stage for stage, _, _ in told} == {"build", "prepare", "simulate"}
    assert told[-1][0] == "simulate"
    assert all(0 <= done <= total for _, done, total in told)
    assert told[-1][1] == told[-1][2]


def test_stalls_change_cycles_and_no_pixel(result, pictures, scene, cameras):
    stalled = cosim(
        "raster", DESIGN, scene, cameras[:1], timing=TIMING, background=(0.2, 0.4, 0.6),
        stall=Stall.every_channel(0.5, 3), state=False)
    stalled.check()
    assert stalled.frames[0].state_pixels_differing is None
    assert stalled.frames[0].rtl_cycles > result.frames[0].rtl_cycles
    assert np.array_equal(stalled.worst.rtl, pictures[0].rtl)


def test_a_frame_without_anything_in_it(scene):
    away = Camera.look_at((0, 0, 1e6), (0, 0, 2e6), (0, 1, 0), width=17, height=9)
    empty = cosim("raster", DESIGN, scene, [away], timing=TIMING)
    empty.check()
    assert empty.frames[0].psnr_db_vs_float == math.inf
    assert empty.psnr_db_vs_float_non_background is None
    figures = json.loads(json.dumps(empty.to_json(), allow_nan=False))
    assert figures["psnr_db_vs_float"] is figures["psnr_db_vs_reference"] is None
    assert figures["psnr_db_vs_float_non_background"] is None


@pytest.mark.parametrize("state", [True, False])
def test_wrong_pixels_are_reported(scene, cameras, monkeypatch, state):
    """The Verilog of one table of powers under the models of another."""
    alpha = replace(DESIGN.array.alpha, table_entries=16)
    other = replace(DESIGN, array=replace(DESIGN.array, alpha=alpha))
    monkeypatch.setattr(
        cosim_module, "build_frame", lambda design, **options: build_frame(DESIGN, **options))
    wrong = cosim("raster", other, scene, cameras[:1], timing=TIMING, state=state)
    frame = wrong.frames[0]
    assert 0 < wrong.pixels_differing <= frame.pixels
    assert frame.pixels_differing <= frame.pixels
    found = frame.difference
    assert found.expected != found.got
    assert found.tile == found.y // 16 * 4 + found.x // 16
    if found.pixel_format == "RGBA8":
        assert tuple(wrong.worst.rtl[found.y, found.x]) == found.got
    message = (rf"^Frame 0: {wrong.pixels_differing} of 1750 pixels differ from the bit-true "
               rf"model; the first: {found.pixel_format} pixel \({found.x}, {found.y}\) of tile "
               rf"{found.tile} must be \(.*\), not \(.*\)$")
    with pytest.raises(SimulationError, match=message):
        wrong.check()
    assert wrong.to_json()["per_frame"][0]["difference"]["x"] == found.x


def test_a_wrong_cache_is_reported(result):
    """What is saved, and what no timing changes of it."""
    first, *others = result.frames
    kept = replace(result, frames=(replace(first, cache_bytes_differing=0), *others))
    kept.check()
    spoilt = replace(result, frames=(
        replace(first, cache_bytes_differing=2), replace(others[0], cache_bytes_differing=3)))
    with pytest.raises(SimulationError, match=(
            r"^Frame 0: 2 bytes of the saved cache differ from the bit-true model$")):
        spoilt.check()
    assert spoilt.to_json()["cache_bytes_differing"] == 3
    counters = {"cycles": 10, "lookups": 5, "hits": 2, "bypassed": 1_000}
    off = replace(result, frames=(replace(
        first, cache_bytes_differing=0, rtl_counters=counters,
        model_counters={**counters, "hits": 3}),))
    with pytest.raises(SimulationError, match=r"^Frame 0: hits must be 3, not 2$"):
        off.check()
    assert cli._cache_lines(result.to_json()) == []
    totals = {name: {"rtl": count, "model": count} for name, count in counters.items()}
    assert cli._cache_lines({"cache_bytes_differing": 0, "counters": totals}) == [
        ("cache", "2 of 5 look-ups hit, 1,000 pixels blend too little to ask"),
        ("saved cache", "0 bytes differ from the bit-true model, worst frame")]


def test_errors_of_a_frame_are_reported(scene, cameras, monkeypatch):
    real = cosim_module.stream_frames

    def stray(*arguments, **options):
        for run in real(*arguments, **options):
            bytes_ = run.frame.copy()
            bytes_[-1] ^= 255
            yield replace(run, frame=bytes_)

    monkeypatch.setattr(cosim_module, "stream_frames", stray)
    with pytest.raises(SimulationError, match=r"^Frame 0: 1 bytes outside of the picture"):
        cosim("raster", DESIGN, scene, cameras[:1], timing=TIMING, state=False)
    monkeypatch.setattr(
        cosim_module, "stream_frames", lambda *arguments, **options: (
            replace(run, error=6) for run in real(*arguments, **options)))
    with pytest.raises(SimulationError, match=r"^Frame 0 ended with the error READ$"):
        cosim("raster", DESIGN, scene, cameras[:1], timing=TIMING, state=False)


def test_errors_behind_the_last_frame_are_reported(scene, cameras, monkeypatch):
    """Broken rules of the bus are known when the harness ends, each in its own process."""
    real = cosim_module.stream_frames

    def breaks(*arguments, **options):
        yield from real(*arguments, **options)
        raise SimulationError("AW changed before AWREADY")

    monkeypatch.setattr(cosim_module, "stream_frames", breaks)
    with pytest.raises(SimulationError, match=r"^AW changed"):
        cosim("raster", DESIGN, scene, cameras, timing=TIMING, processes=2)


def test_an_error_in_the_middle_ends_the_rest(scene, cameras, monkeypatch):
    """Of two simulations one fails at its second frame: the other does not go on for ever."""
    real = cosim_module.stream_frames
    started = []

    def breaks(binary, frames, **options):
        started.append(options)
        for number, run in enumerate(real(binary, frames, **options)):
            yield run
            if len(started) == 2 and options is started[1] and number == 0:
                raise SimulationError("it broke")

    monkeypatch.setattr(cosim_module, "stream_frames", breaks)
    with pytest.raises(SimulationError, match=r"^it broke$"):
        cosim("raster", DESIGN, scene, cameras * 5, timing=TIMING, processes=2)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_long_path_takes_the_memory_of_a_few_frames(scene, cameras, monkeypatch, processes):
    """Of frames that are over, the figures and the pictures of the worst are all that is kept."""
    alive, most = weakref.WeakSet(), []
    expect, compare = cosim_module._expect, cosim_module._compare

    def count(made):
        alive.add(made)
        most.append(len(alive))
        return made

    def compared(number, expected, runs):
        for run in runs:
            count(run)
        frame, pictures = compare(number, expected, runs)
        count(pictures)
        return frame, pictures

    # Else it depends on how long the binary takes to be found.
    monkeypatch.setattr(cosim_module, "MODELED_BYTES", 0)
    monkeypatch.setattr(cosim_module, "_expect", lambda *arguments: count(expect(*arguments)))
    monkeypatch.setattr(cosim_module, "_compare", compared)
    many = cosim("raster", DESIGN, scene, cameras * 6, timing=TIMING, processes=processes)
    assert len(many.frames) == 18
    gc.collect()
    assert set(alive) == {many.worst}
    # Frames in flight, two runs of each, the pictures of one and of the worst.
    assert max(most) <= 12
    assert max(most[:4 * 6]) >= max(most[4 * 6:])
    numbers = [frame.psnr_db_vs_float for frame in many.frames]
    assert many.worst.number == numbers.index(min(numbers)) < 3


@pytest.mark.parametrize(("limit", "modeled"), [(1 << 28, 9), (0, 3)])
def test_frames_are_modeled_while_the_simulation_is_built(
    scene, cameras, monkeypatch, limit, modeled
):
    made, enough = [], threading.Event()
    expect, compare, build = cosim_module._expect, cosim_module._compare, cosim_module.build_frame
    first = []

    def counted(*arguments):
        made.append(expect(*arguments))
        if len(made) == modeled:
            enough.set()
        return made[-1]

    def compared(*arguments):
        first.append(len(made))
        return compare(*arguments)

    def slow(*arguments, **options):
        assert enough.wait(60), f"{len(made)} frames are modeled while nothing is built"
        return build(*arguments, **options)

    monkeypatch.setattr(cosim_module, "MODELED_BYTES", limit)
    monkeypatch.setattr(cosim_module, "_expect", counted)
    monkeypatch.setattr(cosim_module, "_compare", compared)
    monkeypatch.setattr(cosim_module, "build_frame", slow)
    result = cosim("raster", DESIGN, scene, cameras * 3, timing=TIMING)
    assert result.pixels_differing == 0
    assert len(result.frames) == 9
    assert first[0] == modeled


@pytest.mark.parametrize(("options", "message"), [
    ({"design_name": "lumin"},
     r"^Design must be one of \['gscore', .*'streaminggs', 'voyager'\], not 'lumin'$"),
    ({"cameras": []}, r"^Cameras must be at least one, not none$"),
    ({"processes": 0}, r"^Processes must be at least 1, not 0$"),
    ({"keep_codebooks": True},
     r"^Codebooks must be kept of streaminggs, not of raster, which has none$"),
    ({"waves": Waves(path=Path("/dev/null/a.vcd"))},
     r"^/dev/null/a\.vcd: cannot be written \(Not a directory\)"),
])
def test_arguments_are_checked(scene, cameras, options, message):
    arguments = {"design_name": "raster", "design": DESIGN, "scene": scene, "cameras": cameras}
    with pytest.raises(ValueError, match=message):
        cosim(**{**arguments, **options})


@pytest.mark.matrix
def test_waves_of_a_window(scene, cameras, tmp_path):
    waves = Waves(path=tmp_path / "frame.vcd", first_cycle=100, last_cycle=140)
    cosim("raster", DESIGN, scene, cameras[-1:], timing=TIMING, waves=waves, state=False)
    times = [int(line[1:]) for line in waves.path.read_text().splitlines()
             if line.startswith("#")]
    assert times == list(range(200, 280))


def test_a_harness_that_fails_says_why(tmp_path, scene, cameras, monkeypatch):
    script = tmp_path / "simulate"
    script.write_text("#!/bin/sh\necho it broke; exit 3\n")
    script.chmod(0o755)
    monkeypatch.setattr(
        cosim_module, "build_frame",
        lambda design, **options: Binary(path=script, build_s=0.0, cached=True))
    with pytest.raises(SimulationError, match=r"^The simulation ended with code 3: it broke$"):
        cosim("raster", DESIGN, scene, cameras[:1])


def test_one_whole_frame_of_the_default_scene():
    """The design and the frame that the report shows."""
    scene = resolve("default")
    whole = cosim(
        "raster", PRESETS["64-lane"], scene, [default_camera(scene, 320, 240)],
        scene_name="default")
    whole.check()
    assert whole.cycle_error <= 0.01
    assert whole.psnr_db_vs_float >= 45
    assert whole.psnr_db_vs_float_non_background >= 45
    counters = whole.counters()
    for name in ("splat_bytes", "table_bytes", "pixel_bytes", "overfetch_bytes"):
        assert counters[name]["rtl"] == counters[name]["model"]

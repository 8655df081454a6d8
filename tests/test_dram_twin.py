"""The DRAM behind the RTL is the model's: command by command, on random streams and on frames."""

import subprocess
from dataclasses import replace
from pathlib import Path

import numba as nb
import numpy as np
import pytest

from splatforge.algos import raster
from splatforge.algos.fetch import pack
from splatforge.designs.dram import PRESETS, PagePolicy, Refresh
from splatforge.designs.memory import BankedMemory, MemoryTiming
from splatforge.designs.raster import PRESETS as RASTERS
from splatforge.scenes import Scene, default_camera, resolve
from splatforge.sim import dram as model
from splatforge.sim.dram_gates import violations
from splatforge.sim.raster import simulate
from splatforge.verification.cosim import cosim
from splatforge.verification.lib.build import compiler
from splatforge.verification.lib.frame import HARNESS, Stall, build_frame, run_frames

pytestmark = pytest.mark.rtl

DRIVER = Path(__file__).parent / "data" / "drive_dram.cpp"


def two_ranks(dram):
    """The same memory with two ranks on each channel and half of the rows."""
    fields = []
    for name, bits in dram.mapping.fields:
        fields += [("rank", 1), (name, bits - 1)] if name == "row" else [(name, bits)]
    org = dram.organization
    return replace(dram, organization=replace(org, ranks=2, rows=org.rows // 2),
                   mapping=replace(dram.mapping, fields=tuple(fields)))


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    path = tmp_path_factory.mktemp("dram") / "drive_dram"
    subprocess.run([compiler(), "-std=gnu++17", "-O1", "-Wall", "-Wextra", "-Werror",
                    f"-I{HARNESS.parent}", str(DRIVER), "-o", str(path)], check=True)
    return path


@nb.njit
def _drive(m, bursts, beats_at, responses_at):
    """What tests/data/drive_dram.cpp does."""
    reads = writes = beats = responses = 0
    total_beats, total_responses = len(beats_at), len(responses_at)
    now = 1
    while beats < total_beats or responses < total_responses:
        while reads < len(bursts) and bursts[reads, 1]:
            reads += 1
        while writes < len(bursts) and not bursts[writes, 1]:
            writes += 1
        may_read = m[model.R_COUNT] < m[model.OUTSTANDING]
        may_write = m[model.W_COUNT] < m[model.OUTSTANDING]
        may_write_beat = model.may_write_beat(m)
        beat = m[model.R_DUE] <= now
        head = m[model.B_HEAD]
        response = (head != m[model.W_HEAD]
                    and m[model.B_TIME + (head & (model.BURSTS - 1))] <= now)
        if may_read and reads < len(bursts) and bursts[reads, 0] <= now:
            model.read(m, now, bursts[reads, 2], bursts[reads, 3])
            reads += 1
        if beat:
            model.take_beat(m)
            beats_at[beats] = now
            beats += 1
        if may_write and writes < len(bursts) and bursts[writes, 0] <= now:
            model.write(m, bursts[writes, 2], bursts[writes, 3])
            writes += 1
        if may_write_beat:
            model.write_beat(m, now)
        if response:
            m[model.B_HEAD] += 1
            m[model.W_COUNT] -= 1
            responses_at[responses] = now
            responses += 1
        if m[model.R_NEXT] < m[model.R_TAIL] or m[model.NEXT] * m[model.DEN] <= (
                now + 1) * m[model.NUM]:
            model.advance(m, now)
        now += 1


def bursts_of(dram, seed, count=600):
    """Bursts of any kind: near each other and far, read and written, in crowds and alone."""
    rng = np.random.default_rng(seed)
    beats = rng.integers(1, 17, count)
    far = rng.integers(0, dram.organization.size_bytes // 4096, count) * 4096
    near = rng.integers(0, 8, count) * 4096
    inside = rng.integers(0, 256 - beats) * 16
    address = np.where(rng.random(count) < 0.5, far, near) + inside
    cycle = np.cumsum(np.where(rng.random(count) < 0.9, rng.integers(0, 8, count),
                               rng.integers(0, 3000, count)))
    write = rng.random(count) < rng.choice([0.1, 0.5, 0.9])
    return np.stack([cycle, write, address, beats], 1).astype(np.int64)


CASES = [
    pytest.param(variant(PRESETS[name]), replace(controller, refresh=refresh, page_policy=policy),
                 clock_hz, id=f"{name}-{variant.__name__}-{refresh.value}-{policy.value}")
    for name, clock_hz in (("lpddr3-1600", 1e9), ("lpddr4-3200", 7.3e8), ("lpddr5-6400", 1e8))
    for controller in [PRESETS[name].controller]
    for variant, refresh, policy in (
        (replace, Refresh.ALL_BANK, PagePolicy.OPEN),
        (two_ranks, Refresh.PER_BANK, PagePolicy.CLOSED),
        (two_ranks, Refresh.ALL_BANK, PagePolicy.OPEN),
        (replace, Refresh.PER_BANK, PagePolicy.OPEN),
    )
]


@pytest.mark.parametrize(("dram", "controller", "clock_hz"), CASES)
def test_random_bursts_command_by_command(driver, tmp_path, dram, controller, clock_hz):
    # A small window and few bursts at a time in one of two.
    for seed in (1, 2):
        if seed == 2:
            controller = replace(controller, queue_depth=8, window=3, write_high=6, write_low=1,
                                 outstanding=5, frontend_ns=0)
        memory = BankedMemory(dram=replace(dram, controller=controller), clock_hz=clock_hz)
        bursts = bursts_of(dram, seed)
        lines = [*map(str, model.banked_constants(memory).tolist()), str(len(bursts)),
                 *(" ".join(map(str, burst)) for burst in bursts.tolist())]
        (tmp_path / "input").write_text("\n".join(lines))
        out = subprocess.run([driver, tmp_path / "input", tmp_path / "log"], check=True,
                             capture_output=True, text=True, timeout=60).stdout.split()
        log = np.fromfile(tmp_path / "log", np.int64).reshape(-1, 5)
        state = model.new_banked(memory, commands=100_000, requests=100_000)
        reads = bursts[bursts[:, 1] == 0, 3].sum()
        beats_at = np.zeros(reads, np.int64)
        responses_at = np.zeros((bursts[:, 1] == 1).sum(), np.int64)
        _drive(state, bursts, beats_at, responses_at)
        kinds, cycles = np.array(out[::2]), np.array(out[1::2], np.int64)
        assert np.array_equal(cycles[kinds == "R"], beats_at)
        assert np.array_equal(cycles[kinds == "B"], responses_at)
        mine = model.logged_commands(state)
        assert np.array_equal(mine, log)
        assert len(log) > 1000
        assert violations(memory.dram, log) == []
        requests = model.logged_requests(state)
        blocks = {(address // dram.organization.access_bytes, write)
                  for _, address, write in requests.tolist()}
        for _, write, address, count in bursts.tolist():
            assert (address // dram.organization.access_bytes, write) in blocks
            assert ((address + 16 * count - 1) // dram.organization.access_bytes, write) in blocks


# Frames ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def thin():
    full = resolve("default")
    return Scene(
        means=full.means[::20], log_scales=full.log_scales[::20], quats=full.quats[::20],
        opacity_logits=full.opacity_logits[::20], sh=full.sh[::20])


def packed(scene, design, width, height):
    camera = default_camera(scene, width, height)
    lists = raster.prepare(scene, camera, design)
    return raster.render(lists, design), pack(lists, resolve=design.resolve)


@pytest.mark.parametrize("clock_hz", [1e9, 2.5e8])
@pytest.mark.parametrize("name", list(PRESETS))
def test_a_frame_command_by_command(thin, name, clock_hz):
    """Two frames of one harness: the second starts like the first."""
    design = RASTERS["16-lane"]
    frame, image = packed(thin, design, 50, 35)
    memory = BankedMemory(dram=PRESETS[name], clock_hz=clock_hz)
    run = simulate(frame.workload, design, memory, log=True)
    binary = build_frame(design).path
    for rtl in run_frames(binary, [image, image], timing=memory, log=True):
        assert np.array_equal(rtl.pixels, frame.pixels(image.pixel_format))
        assert rtl.cycles == run.cycles
        assert rtl.counters == run.counters
        assert rtl.dram == run.dram
        assert np.array_equal(rtl.commands, run.commands)
        assert violations(memory.dram, rtl.commands) == []
    read = sum(rtl.read_bytes)
    assert 32 * run.dram.reads >= read
    assert len(run.requests) == run.dram.reads + run.dram.writes


def test_a_slow_memory_shows(thin):
    """A quarter of one channel and few queues: the array waits, and still equals the RTL."""
    design = RASTERS["16-lane"]
    frame, image = packed(thin, design, 50, 35)
    dram = PRESETS["lpddr3-1600"]
    slow = replace(
        dram, organization=replace(dram.organization, channels=1),
        mapping=replace(dram.mapping, fields=(("column", 7), ("bank", 3), ("row", 15))),
        controller=replace(dram.controller, queue_depth=4, window=2, write_high=3, write_low=1,
                           outstanding=2, page_policy=PagePolicy.CLOSED))
    memory = BankedMemory(dram=slow, clock_hz=4e9)
    run = simulate(frame.workload, design, memory)
    assert run.counters["array_starved"] > 1000
    assert run.cycles > 1.2 * simulate(frame.workload, design).cycles
    rtl, = run_frames(build_frame(design).path, [image], timing=memory)
    assert rtl.cycles == run.cycles
    assert rtl.counters == run.counters
    assert rtl.dram == run.dram


def test_stalls_change_no_pixel(thin):
    design = RASTERS["16-lane"]
    frame, image = packed(thin, design, 50, 35)
    memory = BankedMemory(dram=PRESETS["lpddr5-6400"], clock_hz=1e9)
    rtl, = run_frames(build_frame(design).path, [image], timing=memory, log=True,
                      stall=Stall.every_channel(0.3, 5))
    assert np.array_equal(rtl.pixels, frame.pixels(image.pixel_format))
    assert rtl.cycles > simulate(frame.workload, design, memory).cycles
    assert violations(memory.dram, rtl.commands) == []


def test_random_order_needs_a_fixed_latency(thin):
    memory = BankedMemory(dram=PRESETS["lpddr5-6400"], clock_hz=1e9)
    with pytest.raises(ValueError, match=r"^Read data in random order must come from a memory of "):
        run_frames(Path("none"), [], timing=memory, interleave=True)


def test_cosim_and_both_models_say_the_same(thin):
    design = RASTERS["16-lane"]
    memory = BankedMemory(dram=PRESETS["lpddr4-3200"], clock_hz=1e9)
    result = cosim("raster", design, thin, [default_camera(thin, 50, 35)], timing=memory)
    result.check()
    record = result.to_json()
    assert record["cycle_error"] == 0
    both = record["per_frame"][0]["dram"]
    assert both["rtl"] == both["model"]
    assert record["memory"]["name"] == "lpddr4-3200"
    assert record["memory"]["reads"] == both["rtl"]["reads"]


@pytest.mark.matrix
@pytest.mark.parametrize("lanes", ["16-lane", "64-lane"])
@pytest.mark.parametrize("scene_name", [
    "default", "inari_fox_50k.ply", "fourth_st_131k_sh3.spz"])
def test_whole_frames_stay_within_one_percent(shared_scene, scene_name, lanes):
    design = RASTERS[lanes]
    scene = resolve(scene_name if scene_name == "default" else shared_scene(scene_name))
    frame, image = packed(scene, design, 320, 240)
    binary = build_frame(design).path
    for dram in PRESETS.values():
        memory = BankedMemory(dram=dram, clock_hz=1e9)
        run = simulate(frame.workload, design, memory, log=True)
        rtl, = run_frames(binary, [image], timing=memory, log=True)
        assert abs(run.cycles - rtl.cycles) <= 0.01 * rtl.cycles
        assert violations(dram, rtl.commands) == []
        if run.cycles == rtl.cycles:
            assert np.array_equal(rtl.commands, run.commands)
        for name in ("reads", "writes"):
            assert getattr(run.dram, name) == pytest.approx(getattr(rtl.dram, name), rel=0.01)
        # The memory matters: what a fixed latency says is another number.
        assert simulate(frame.workload, design, MemoryTiming()).cycles != run.cycles

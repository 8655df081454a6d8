"""What the units did over a frame: windows that add up to the counters, and the trace of them."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splatforge.cli import main
from splatforge.designs.accelerators import ACCELERATORS
from splatforge.designs.dram import PRESETS
from splatforge.designs.memory import BankedMemory, MemoryTiming
from splatforge.report.records import UnitTrack
from splatforge.report.trace import chrome_trace
from splatforge.scenes import save
from splatforge.sim import timeline
from splatforge.sim.simulate import DESIGNS, MODELS, simulate
from splatforge.sim.timeline import Windows

sys.path.insert(0, str(Path(__file__).parent))
from gaussians import camera, random_scene

SIZE = 70, 40


def simulated(name, timing=None, frames=1):
    views = [camera(*SIZE)] * frames
    return simulate(name, ACCELERATORS[name].design, random_scene(150, 1), views,
                    timing=timing or MemoryTiming(), gpus=(), rival=False)


@pytest.mark.parametrize("name", DESIGNS)
def test_windows_add_up_to_the_counters(name):
    """Of every unit that a result has; no window has more than it is long."""
    run = simulated(name)
    counters = {**run.runs[0].counters, **run.runs[0].actions}
    tracks = {track.unit: track for track in run.tracks(0)}
    stages = MODELS[name].stages
    assert set(tracks) >= {unit for unit, _, _ in stages}
    cycles_of = MODELS[name].cycles_of(run.parameters)
    for unit, busy, stall in stages:
        track = tracks[unit]
        assert (track.edges[0], track.edges[-1]) == (0, run.runs[0].cycles)
        assert (np.diff(track.edges) > 0).all()
        assert track.states["busy"].sum() == pytest.approx(
            counters[busy] * cycles_of.get(unit, 1))
        if stall is not None:
            state = "starved" if stall.endswith("starved") else "stalled"
            assert track.states[state].sum() == counters[stall]
    for track in tracks.values():
        lengths = np.diff(track.edges)
        for state in track.states.values():
            assert (state >= 0).all()
            assert (state[:-1] <= lengths[:-1]).all()
            # What was under way behind the last response counts to the last window.
            assert state[-1] <= lengths[-1] + 64
    array = tracks.get("array")
    if array is not None:
        spent = np.sum(list(array.states.values()), axis=0)
        assert (spent[:-1] <= np.diff(array.edges)[:-1]).all()
        assert len(array.edges) > 4


def test_units_of_lumina_are_all_there():
    """In the order in which a splat goes through them; what they counted is of this frame."""
    run = simulated("lumina")
    counters, actions = run.runs[0].counters, run.runs[0].actions
    tracks = {track.unit: track for track in run.tracks(0)}
    assert list(tracks) == ["tilelists", "vru", "nru", "radiance", "resolve", "reads"]
    busy = {unit: int(track.states["busy"].sum()) for unit, track in tracks.items()}
    # Entries of tiles that are over are dropped on the way, those that are left become splats.
    assert 0 < busy["vru"] <= actions["entries"] <= busy["tilelists"]
    assert counters["lookups"] > 0
    assert counters["lookups"] <= busy["radiance"] <= counters["lookups"] + SIZE[0] * SIZE[1]
    for unit in ("tilelists", "vru", "radiance"):
        track = tracks[unit]
        assert (track.states["busy"] + track.states["stalled"] <= np.diff(track.edges) + (
            np.arange(len(track.edges) - 1) == len(track.edges) - 2) * 64).all(), unit


def test_windows_of_a_banked_memory_add_up():
    run = simulated("raster", BankedMemory(dram=PRESETS["lpddr4-3200"], clock_hz=1e9))
    for track in run.tracks(0):
        counters = run.runs[0].counters
        assert track.states["busy"].sum() == counters[f"{track.unit}_busy"]
        spent = np.sum(list(track.states.values()), axis=0)
        assert (spent <= np.diff(track.edges)).all()


@given(st.integers(1, 60_000), st.integers(0, 2**32 - 1))
def test_looks_are_thinned_out_evenly(cycles, seed):
    """A counter that steps at random: whatever the length, windows are even and add up."""
    counted = np.cumsum(np.random.default_rng(seed).integers(0, 2, cycles))
    looks = timeline.new_looks(1)
    for now in range(timeline.FIRST_INTERVAL, cycles + 1, timeline.FIRST_INTERVAL):
        if now >= looks[0, timeline.NEXT]:
            row = looks[0, timeline.ROW]
            looks[row, 0], looks[row, 1] = now, counted[now - 1]
            timeline.close.py_func(looks)
    last = {"cycles": cycles, "steps": int(counted[-1])}
    windows = Windows.of_looks(("steps",), looks, last)
    assert len(set(np.diff(windows.edges)[:-1])) <= 1
    assert len(windows.edges) <= timeline.WINDOWS + 1
    if cycles > timeline.WINDOWS * timeline.FIRST_INTERVAL:
        assert len(windows.edges) > timeline.WINDOWS // 2
    ends = np.concatenate([[0], counted])
    assert np.array_equal(windows.counts["steps"], np.diff(ends[windows.edges]))


def test_looks_in_one_cycle_are_one():
    windows = Windows.of(("a",), np.array([0, 3, 3, 9, 12]), np.array([[1], [2], [4], [5], [7]]),
                         {"cycles": 9, "a": 8})
    assert windows.edges.tolist() == [0, 3, 9]
    assert windows.counts["a"].tolist() == [4, 4]


def test_trace_is_one_that_viewers_load():
    """Chrome's Trace Event Format: names of processes and threads, whole events, counters."""
    run = simulated("raster", frames=2)
    frames = [[UnitTrack.of(track) for track in run.tracks(frame)] for frame in range(2)]
    cycles = [each.cycles for each in run.runs]
    tiles = [run.tile_spans(frame) for frame in range(2)]
    trace = chrome_trace("raster on a scene", frames, cycles, 2e8, tiles=tiles)
    events = json.loads(json.dumps(trace, allow_nan=False))["traceEvents"]
    names = {event["tid"]: event["args"]["name"] for event in events
             if event["ph"] == "M" and event["name"] == "thread_name"}
    assert {"frames", "array", "fetch", "resolve", "tiles"} <= set(names.values())
    assert {event["ph"] for event in events} == {"M", "X", "C"}
    ends_us = sum(cycles) / 2e8 * 1e6
    for unit in ("array", "fetch", "resolve", "tiles", "frames"):
        own = [event for event in events
               if event["ph"] == "X" and names[event["tid"]] == unit]
        begun = np.array([event["ts"] for event in own])
        durations = np.array([event["dur"] for event in own])
        assert (durations > 0).all()
        assert (begun[1:] >= (begun + durations)[:-1] - 1e-6).all(), unit
        assert begun[0] >= 0
        assert begun[-1] + durations[-1] <= ends_us + 1e-6
    busy = sum(event["args"]["busy cycles"] for event in events
               if event["ph"] == "X" and names[event["tid"]] == "array")
    assert busy == sum(each.counters["array_busy"] for each in run.runs)
    shares = [share for event in events if event["ph"] == "C"
              for share in event["args"].values()]
    assert 0 <= min(shares) <= max(shares) <= 100.0001
    assert len([event for event in events if event.get("cat") == "tile"]) == 2 * 15


@pytest.mark.parametrize("clock_hz", [736_242_541.6, 1e9, 333_333_333.3])
def test_perfetto_drops_no_slice(clock_hz):
    """As its importer reads: nanoseconds by rounding, and what crosses an end is dropped."""
    run = simulated("raster", frames=2)
    trace = chrome_trace(
        "raster on a scene",
        [[UnitTrack.of(track) for track in run.tracks(frame)] for frame in range(2)],
        [each.cycles for each in run.runs], clock_hz,
        tiles=[run.tile_spans(frame) for frame in range(2)])
    ended_ns: dict[int, int] = {}
    dropped, read = [], 0
    for event in json.loads(json.dumps(trace))["traceEvents"]:
        if event["ph"] != "X":
            continue
        read += 1
        begun_ns, duration_ns = (math.floor(1000 * event[key] + 0.5) for key in ("ts", "dur"))
        assert duration_ns > 0
        if begun_ns < ended_ns.get(event["tid"], 0):
            dropped.append(event)
        ended_ns[event["tid"]] = begun_ns + duration_ns
    assert read > 40
    assert not dropped, f"{len(dropped)} of {read} slices"


def test_trace_of_the_command(tmp_path, capsys):
    """All of it or nothing; a comparison has no one trace."""
    save(random_scene(150, 1), tmp_path / "a.ply")
    said = ["--scene", str(tmp_path / "a.ply"), "--size", "70x40"]
    trace = tmp_path / "new" / "trace.json"
    assert main(["simulate", "raster", *said, "--trace", str(trace), "--json",
                 str(tmp_path / "a.json")]) == 0
    figures = json.loads((tmp_path / "a.json").read_text("utf-8"))
    read = json.loads(trace.read_text("utf-8"))
    assert read["otherData"] == {"clock_hz": figures["clock_hz"], "cycles": figures["cycles"]}
    assert list(trace.parent.iterdir()) == [trace]
    assert main(["report", *said, "--compare", "raster,gscore", "--trace", str(trace)]) == 2
    assert "--trace must come with one design" in capsys.readouterr().err


def test_refused_clock():
    with pytest.raises(ValueError, match=r"^Clock must be positive, not 0 Hz$"):
        chrome_trace("a", [], [], 0)


@pytest.mark.parametrize("name", ["lumina", "streaminggs"])
def test_tiles_end_where_the_array_ends_them(name):
    run = simulated(name)
    spans = run.tile_spans(0)
    assert sorted(end for _, _, end in spans) == sorted(run.runs[0].tile_ends.tolist())
    assert len({text for text, _, _ in spans}) == len(spans)

"""Sweeps: workloads are shared where that changes nothing; what is done is kept, and done once."""

import os
import re
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splatforge import cli
from splatforge.cli import _setting, main
from splatforge.designs.accelerators import ACCELERATORS
from splatforge.designs.array import ArrayDesign
from splatforge.designs.dram import PRESETS as DRAMS
from splatforge.designs.memory import BankedMemory, MemoryTiming
from splatforge.designs.raster import RasterDesign
from splatforge.scenes import default_camera, resolve
from splatforge.scenes.scene import SceneError
from splatforge.sim import sweep as sweeping
from splatforge.sim.costs import CostTable
from splatforge.sim.pareto import front, fronts_apart
from splatforge.sim.reading import agrees, value_at, watch
from splatforge.sim.simulate import clock_of, simulate
from splatforge.sim.sweep import Point, View, scene_digest, sweep
from splatforge.sim.sweep_cache import SweepCache
from splatforge.sim.sweep_file import read
from splatforge.sim.sweep_results import Results

FILE = """
scenes = ["default"]
sizes = ["32x16"]

[[designs]]
name = "raster"

[designs.grid]
"array.lanes" = [16, 32, 64]
"memory.latency_cycles" = [50, 100]

[designs.each]
"array.alpha.table_entries" = [16]
"""


@pytest.fixture(scope="module")
def view():
    scene = resolve("default")
    return View(scene=("default",), digest=scene_digest(scene),
                cameras=(default_camera(scene, 32, 16),))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "raster.toml"
    path.write_text(FILE)
    return path


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Workloads, shared by the tests: what one of them computed the next one finds."""
    return tmp_path_factory.mktemp("cache")


def figures(row):
    """What must not depend on who computed a point, or when."""
    return {name: value for name, value in row.items() if name not in ("spent_s", "workload_made")}


# ---- What is read -------------------------------------------------------------------------------


def test_a_watched_design_behaves_as_the_design_and_tells_what_was_read():
    design = RasterDesign()
    watched, reads = watch(design)
    assert isinstance(watched, RasterDesign)
    assert watched.array.lanes == 64
    assert reads == {"array": ArrayDesign, "array.lanes": 64}
    assert watched == design
    assert design == watched
    assert "shell.max_side" in reads


def test_a_property_is_read_as_the_fields_that_it_is_made_of():
    watched, reads = watch(ArrayDesign())
    assert watched.blocks == 4
    assert reads == {"lanes": 64}


def test_a_cache_keyed_by_designs_does_not_hide_what_is_read():
    from functools import lru_cache

    @lru_cache
    def blocks(array):
        return array.blocks

    for _ in range(2):
        watched, reads = watch(ArrayDesign())
        assert blocks(watched) == 4
        assert "lanes" in reads


def test_what_is_pickled_of_a_watched_design_is_all_read():
    import pickle

    watched, reads = watch(RasterDesign())
    assert type(pickle.loads(pickle.dumps(watched))) is RasterDesign
    assert {"array.lanes", "fetch.burst_beats", "shell.data_bits"} <= reads.keys()


def test_agreement_is_about_what_was_read_alone():
    watched, reads = watch(RasterDesign())
    _ = watched.array.alpha.table_entries
    assert agrees(RasterDesign(array=ArrayDesign(lanes=16)), reads)
    other = replace(RasterDesign().array.alpha, table_entries=32)
    assert not agrees(RasterDesign(array=ArrayDesign(alpha=other)), reads)
    assert value_at(RasterDesign(), "array.nothing") is None


@pytest.mark.parametrize("name", ["raster", "gscore"])
def test_what_an_algorithm_does_not_read_changes_no_workload(name, view):
    """The derivation is right: turn what was not read, and the workload is the same."""
    design = ACCELERATORS[name].design
    watched, reads = watch(design)
    model = sweeping.MODELS[name]
    scene = resolve("default")

    def run(design):
        (work,) = model.work(scene, view.cameras, design, (0.0, 0.0, 0.0))
        return work

    before = run(watched)
    assert "array.lanes" not in reads
    assert "array.alpha.table_entries" in reads
    other = replace(design, array=replace(design.array, lanes=16),
                    resolve=replace(design.resolve, outstanding_bursts=1))
    assert agrees(other, reads)
    after = run(other)
    np.testing.assert_array_equal(before.picture.image, after.picture.image)
    for field in vars(before.counts):
        np.testing.assert_array_equal(getattr(before.counts, field), getattr(after.counts, field))


# ---- Points -------------------------------------------------------------------------------------


def forget():
    """All that is remembered from one point to the next: whoever is asked then begins anew."""
    from splatforge.sim import parts, streaminggs

    for each in (parts._folded, parts._evaluated, parts.gscore_parts, parts.streaminggs_parts,
                 streaminggs._prepared):
        each.cache_clear()


def alone(point):
    """Every figure of a point by the functions behind `splatforge simulate`, nothing reused."""
    forget()
    memory = point.memory
    if isinstance(memory, str):
        supported = clock_of(point.design, CostTable.load(), point.node_nm)
        memory = BankedMemory(dram=DRAMS[memory], clock_hz=supported.value)
    record = simulate(
        point.name, point.design, resolve(*point.view.scene), point.view.cameras, timing=memory,
        node_nm=point.node_nm, gpus=(), rival=False, table=CostTable.load()).record()
    names = ("cycles", "clock_hz", "time_s", "energy_j", "area_mm2", "bytes_read",
             "bytes_written", "counters")
    (energy_low_j, energy_high_j), (area_low_mm2, area_high_mm2) = (
        record["energy_band_j"], record["area_band_mm2"])
    return {**{name: record[name] for name in names},
            "energy_low_j": energy_low_j, "energy_high_j": energy_high_j,
            "area_low_mm2": area_low_mm2, "area_high_mm2": area_high_mm2}


STREAMINGGS = """
[[designs]]
name = "streaminggs"

[designs.grid]
"cfu.units" = [1, 4]
"array.lanes" = [16, 256]

[[designs]]
name = "streaminggs"
[designs.zip]
"ffu.interval" = [2, 8]
"vsort.units" = [4, 1]
"vsort.waiting" = [4, 512]
node_nm = [45, 28]
memory = ["fixed", "lpddr4-3200"]
"""


@pytest.mark.parametrize(("text", "workloads"), [(FILE, 2), (STREAMINGGS, 1)],
                         ids=["raster", "streaminggs"])
def test_a_point_is_what_simulate_says(text, workloads, view, file, tmp_path, cache):
    """Reuse equals computing anew: every figure of every point, to the last bit."""
    file.write_text(text)
    points = read(file).points([view])
    forget()
    rows = sweep(points, tmp_path / "out", cache=cache)
    assert {row["error"] for row in rows} == {None}
    assert len({row["workload"] for row in rows}) == workloads
    for point, row in zip(points, rows, strict=True):
        for name, value in alone(point).items():
            assert row[name] == value, name
    assert len({(row["cycles"], row["energy_j"], row["area_mm2"]) for row in rows}) == len(points)


def test_every_figure_of_a_row_is_compared(view, file, tmp_path, cache):
    """Columns that the test above leaves out are what was asked for, or no figure of a model."""
    points = read(file).points([view])[:1]
    (row,) = sweep(points, tmp_path / "out", cache=cache)
    left = row.keys() - alone(points[0]).keys() - points[0].row().keys()
    assert left == {"key", "status", "error", "psnr_db", "lane_um2", "workload", "workload_made",
                    "spent_s"}


LOOKED_AT = "array.alpha.table_entries", "array.alpha.alpha"


@given(st.lists(st.tuples(st.sampled_from(["raster", "gscore"]), st.sampled_from([16, 32, 64]),
                          st.sampled_from([16, 64]), st.booleans()), max_size=40), st.data())
@settings(max_examples=60, deadline=None)
def test_every_point_is_handed_out_once_and_its_workload_computed_once(view, drawn, data):
    """Whatever the order in which tasks end, and whichever points fail."""
    points = []
    for number, (name, entries, lanes, fails) in enumerate(drawn):
        design = ACCELERATORS[name].design
        alpha = replace(design.array.alpha, table_entries=entries)
        points.append((f"{number}", Point(
            view=view, name=name, preset="", turned="fails" if fails else "",
            design=replace(design, array=replace(design.array, lanes=lanes, alpha=alpha)))))
    queue = sweeping._Queue(points)
    pending, seen, computing, computed = [], [], set(), set()
    while queue.ready or pending:
        while queue.ready:
            task = queue.ready.pop(0)
            pending.append(task)
            workloads = {(point.name, point.design.array.alpha) for _, point in task}
            assert len(workloads) == 1
            (workload,) = workloads
            if workload not in computed:
                assert len(task) == 1
                assert workload not in computing, "two workers compute the same"
                computing.add(workload)
        task = pending.pop(data.draw(st.integers(0, len(pending) - 1)))
        seen += [key for key, _ in task]
        fails = all(point.turned for _, point in task)
        _, point = task[0]
        workload = point.name, point.design.array.alpha
        computing.discard(workload)
        if not fails:
            computed.add(workload)
        queue.finished(task, sweeping.Outcome(rows=[], work_paths=() if fails else LOOKED_AT,
                                              run_paths=() if fails else ("array.lanes",)))
    assert sorted(seen) == sorted(key for key, _ in points)


def test_workloads_are_computed_once(view, file, tmp_path, monkeypatch):
    model = sweeping.MODELS["raster"]
    calls = []

    def counted(*arguments):
        calls.append(arguments[2])
        return model.work(*arguments)

    monkeypatch.setitem(sweeping.MODELS, "raster", replace(model, work=counted))
    points = read(file).points([view])
    for folder in ("first", "second"):
        rows = sweep(points, tmp_path / folder, cache=tmp_path / "cache")
        assert len(calls) == 2, "two tables of exponentials, two workloads, whoever asks"
    assert not any(row["workload_made"] for row in rows)


def test_a_damaged_workload_is_computed_anew(view, file, tmp_path, monkeypatch):
    points = read(file).points([view])[:1]
    before = sweep(points, tmp_path / "first", cache=tmp_path / "cache")
    for path in (tmp_path / "cache").rglob("*.pickle"):
        path.write_bytes(path.read_bytes()[:-7])
    monkeypatch.setattr(SweepCache, "_recent", type(SweepCache._recent)())
    after = sweep(points, tmp_path / "second", cache=tmp_path / "cache")
    assert after[0]["workload_made"]
    assert figures(before[0]) == figures(after[0])


def test_the_cache_forgets_what_was_not_used_for_longest(tmp_path):
    store = SweepCache(tmp_path, limit_bytes=250)
    for number in range(3):
        store.get(f"{number}", ArrayDesign(), lambda _: bytes(60))
        os.utime(next((tmp_path / f"{number}").glob("*.pickle")), (number, number))
    store.trim()
    left = [len(list((tmp_path / f"{number}").glob("*.pickle"))) for number in range(3)]
    assert left == [0, 1, 1]


def test_an_impossible_design_is_a_failed_point_and_the_sweep_goes_on(view, file, tmp_path, cache):
    file.write_text(FILE.replace("[16, 32, 64]", "[16, 17, 64]"))
    points = read(file).points([view])
    rows = sweep(points, tmp_path / "out", cache=cache)
    failed = [row for row in rows if row["status"] == "failed"]
    assert len(failed) == 4
    for row in failed:
        assert "Lanes must be 16, 32, 64, 128 or 256, not 17" in row["error"]
        assert row["array.lanes"] == 17
    assert sum(row["status"] == "done" for row in rows) == 8


def test_a_point_that_fails_in_a_model_is_recorded(view, file, tmp_path, cache, monkeypatch):
    model = sweeping.MODELS["raster"]

    def run(work, design, timing, *more):
        if timing.latency_cycles == 50:
            raise RuntimeError("The model of the frame must move")
        return model.run(work, design, timing, *more)

    monkeypatch.setitem(sweeping.MODELS, "raster", replace(model, run=run))
    monkeypatch.setattr(sweeping, "_runs", type(sweeping._runs)())
    rows = sweep(read(file).points([view]), tmp_path / "out", cache=cache)
    for row in rows:
        hung = row["memory.latency_cycles"] == 50
        assert row["status"] == ("failed" if hung else "done")
        assert row["error"] == ("RuntimeError: The model of the frame must move" if hung else None)


def test_a_worker_that_sees_another_scene_says_so(view, file, tmp_path, cache):
    other = replace(view, digest="0" * 64)
    with pytest.raises(SceneError, match="every worker must see the same files"):
        sweep(read(file).points([other]), tmp_path / "out", cache=cache)


# ---- Results ------------------------------------------------------------------------------------


def test_nothing_finished_is_computed_again(view, file, tmp_path, cache, monkeypatch):
    points = read(file).points([view])
    first = sweep(points[:5], tmp_path / "out", cache=cache)
    seen = []
    real = sweeping.evaluate

    def evaluate(points, *more):
        seen.extend(points)
        return real(points, *more)

    monkeypatch.setattr(sweeping, "evaluate", evaluate)
    rows = sweep(points, tmp_path / "out", cache=cache)
    assert len(seen) == len(points) - 5
    assert rows[:5] == first
    seen.clear()
    assert sweep(points, tmp_path / "out", cache=cache) == rows
    assert not seen


def test_results_are_read_by_whatever_reads_parquet(view, file, tmp_path, cache):
    sweep(read(file).points([view]), tmp_path / "out", cache=cache)
    table = pq.read_table(tmp_path / "out")
    assert table.num_rows == 12
    assert {"cycles", "array.lanes", "memory.latency_cycles"} <= set(table.column_names)


BESIDE = """
sizes = ["32x16"]
[[designs]]
name = "raster"
[designs.set]
"array.lanes" = 32
[designs.grid]
memory = ["fixed", "lpddr4-3200"]
node_nm = [28, 16]
clock_mhz = [300, 450.5]
"""


def test_memory_node_and_clock_are_columns_and_said(tmp_path, cache, monkeypatch, capsys):
    """What is turned beside the design is read back by its name, and said in a table."""
    monkeypatch.setenv("SPLATFORGE_CACHE", str(cache))
    file = tmp_path / "beside.toml"
    file.write_text(BESIDE)
    assert main(["sweep", str(file), "--processes", "1", "--pareto", "time,energy"]) == 0
    table = pq.read_table(tmp_path / "beside.sweep")
    assert len(table.column_names) == len(set(table.column_names))
    names = "memory", "node_nm", "clock_mhz", "array.lanes"
    assert sorted(zip(*(table[name].to_pylist() for name in names), strict=True)) == sorted(
        (memory, node, clock, 32) for memory in ("fixed", "lpddr4-3200") for node in (28.0, 16.0)
        for clock in (300.0, 450.5))
    said = " ".join(capsys.readouterr().out.split())
    assert "node_nm 16" in said


def test_a_point_is_named_by_all_that_is_not_usual():
    usual = {"preset": "default", "memory": "fixed", "node_nm": 28.0}
    assert _setting(usual) == "default"
    assert _setting(usual | {"array.lanes": 16, "preset": "published", "cfu.units": None}) == (
        "published, array.lanes 16")
    assert _setting(usual | {"array.lanes": 16, "memory": "lpddr4-3200", "node_nm": 7.0}) == (
        "array.lanes 16, memory lpddr4-3200, node_nm 7")


def test_a_folder_has_the_columns_of_all_its_sweeps(view, file, tmp_path, cache):
    """What a later sweep turns for the first time is not left out by whoever reads the folder."""
    folder = tmp_path / "out"
    narrow = FILE.replace('"memory.latency_cycles" = [50, 100]', "clock_mhz = [300]").partition(
        "[designs.each]")[0]
    for text in (narrow, FILE):
        file.write_text(text)
        sweep(read(file).points([view]), folder, cache=cache)
    table = pq.read_table(folder)
    assert table.num_rows == 15
    assert table["clock_mhz"].to_pylist().count(300.0) == 3
    assert table["memory.latency_cycles"].to_pylist().count(50) == 6
    assert table["counters"].null_count == 0
    before = parts_of(folder)
    file.write_text(narrow.replace("[300]", "[300, 301]"))
    sweep(read(file).points([view]), folder, cache=cache)
    assert before.items() <= parts_of(folder).items(), "with no new column files stay as they are"


def test_columns_of_two_kinds_hold_both(tmp_path):
    with Results(tmp_path) as results:
        for key, value in (("a", 1), ("b", 2.5), ("c", "UQ(1,2)"), ("d", True)):
            results._schema = None
            results.append([{"key": key, "a.b": value, "counters": {"x": 1}}])
    assert pq.read_table(tmp_path).sort_by("key")["a.b"].to_pylist() == [
        "1.0", "2.5", "UQ(1,2)", "True"]


def test_an_interrupted_sweep_says_how_it_goes_on(file, tmp_path, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(sweeping, "sweep", interrupted)
    assert main(["sweep", str(file), "-o", str(tmp_path / "out"), "--processes", "1"]) == 130
    assert "out keeps what is done; the same command goes on" in capsys.readouterr().err


def test_progress_is_lines_where_no_terminal_watches(monkeypatch, capsys):
    monkeypatch.setattr(cli, "_LINE_S", 0.0)
    with cli._countdown("working out") as tell:
        for done in (2, 2, 4):
            tell(done, 6)
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"working out: 4 of 6, some \d+ s left", line)


def test_an_interrupted_write_leaves_nothing(view, tmp_path, monkeypatch):
    import pyarrow.parquet

    def full(table, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with Results(tmp_path / "out") as results:
        monkeypatch.setattr(pyarrow.parquet, "write_table", full)
        with pytest.raises(SceneError, match="No space left on device"):
            results.append([{"key": "a"}])
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]


@contextmanager
def full_disk(room_bytes):
    """No file may grow beyond so many bytes: what is written then fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_a_full_disk_ends_a_sweep_in_one_line_and_it_goes_on(view, file, tmp_path, cache):
    points, out = read(file).points([view]), tmp_path / "out"
    whole = sweep(points, tmp_path / "whole", cache=cache)
    sweep(points[:5], out, cache=cache)
    before = parts_of(out)
    with full_disk(4000), pytest.raises(SceneError, match=(
            r"^\S*out/part-\d{6}-\w+\.parquet: cannot be written \(File too large\): .*space$")):
        sweep(points, out, cache=cache)
    assert parts_of(out) == before
    assert sorted(path.name for path in out.iterdir()) == sorted([".lock", *before])
    rows = sweep(points, out, cache=cache)
    assert before.items() <= parts_of(out).items()
    assert list(map(figures, rows)) == list(map(figures, whole))
    written = keys_of(out)
    assert sorted(written) == sorted(row["key"] for row in rows)


def test_a_full_disk_leaves_no_half_of_a_workload(view, file, tmp_path):
    points = read(file).points([view])[:1]
    sweep(points, tmp_path / "first", cache=tmp_path / "first_cache")
    with full_disk(4000), pytest.raises(SceneError, match=r"pickle: cannot be written \(File too"):
        sweep(points, tmp_path / "out", cache=tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.pickle"))
    assert not list((tmp_path / "cache").rglob(".*.part"))
    assert not parts_of(tmp_path / "out")


def test_a_damaged_file_of_results_is_named(tmp_path):
    with Results(tmp_path) as results:
        results.append([{"key": "a"}])
    (path,) = tmp_path.glob("part-*.parquet")
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(SceneError, match=rf"{path.name}: cannot be read .*delete it"):
        Results(tmp_path).keys()


def test_one_sweep_at_a_time_writes_to_a_folder(tmp_path):
    with Results(tmp_path), pytest.raises(SceneError, match="another sweep writes to it"):
        Results(tmp_path).__enter__()
    with Results(tmp_path):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written_to(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(SceneError, match="cannot be written"):
        Results(tmp_path / "out")


def test_a_folder_that_is_a_file(file):
    with pytest.raises(SceneError, match="cannot be written"):
        Results(file)


# ---- The file -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("old", "new", "message"), [
    ('"array.lanes"', '"array.lane"', r"'lane' is no parameter; raster.array has lanes, alpha"),
    ('"array.lanes"', '"arr.lanes"', r"'arr' is no parameter; raster has array, fetch, .*memory"),
    ('"memory.latency_cycles"', '"memory.latency"', r"memory has latency_cycles, "),
    ("[16, 32, 64]", '["many"]', r"designs\[0\].grid.array.lanes must be of type int, not 'many'"),
    ("[16, 32, 64]", "[]", r"must be a list of values, one at least"),
    ('name = "raster"', 'name = "rasta"', r"designs\[0\].name must be one of gscore, "),
    ('name = "raster"', 'name = "raster"\npreset = "x"', r"preset must be one of default, 16-lane"),
    ("[designs.grid]", "[designs.gird]", r"designs\[0\].gird is no field; there are name, "),
    ('"32x16"', '"32 x 16"', r"sizes must be such as 640x480"),
    ("scenes = ", "scene = ", r"scene is no field; there are scenes, sizes"),
    ("[[designs]]", "[designs", r"not TOML"),
    ('"array.lanes"', "array.lanes",
     r'grid.array must stand in quotes, with all of its dots: "array.lanes" = \[...\]'),
    ('scenes = ["default"]', 'scenes = "default"', r"scenes must be a list of strings or lists"),
    ('"array.lanes"', '"array.alpha"', r"made of parameters; turn one of array.alpha.form,"),
])
def test_a_wrong_file_is_told_by_file_field_and_names(file, old, new, message):
    file.write_text(FILE.replace(old, new))
    with pytest.raises(ValueError, match=message) as caught:
        read(file)
    assert str(caught.value).startswith(f"{file}: ")


def test_fields_that_must_agree_are_turned_together(file, view):
    file.write_text("""
[[designs]]
name = "streaminggs"
grid = {"vsu.group_tiles, cfu.group_tiles, ffu.group_tiles, array.group_tiles" = [1, 4]}
zip = {"cfu.units" = [1, 2], "ffu.interval" = [2, 4]}
set = {memory = "lpddr4-3200", clock_mhz = 500}
""")
    points = read(file).points([view])
    assert [(point.design.vsu.group_tiles, point.design.cfu.units, point.design.ffu.interval)
            for point in points] == [(1, 1, 2), (1, 2, 4), (4, 1, 2), (4, 2, 4)]
    assert {(point.memory, point.clock_hz) for point in points} == {("lpddr4-3200", 5e8)}


@pytest.mark.parametrize("path", sorted(Path(__file__).parents[1].glob("examples/sweeps/*.toml")),
                         ids=lambda path: path.name)
def test_examples_are_sweeps_of_designs_that_can_be(path, view):
    points = read(path).points([view])
    assert len(points) >= 8
    assert not [point.error for point in points if point.design is None]


# ---- Fronts -------------------------------------------------------------------------------------


@given(st.lists(st.tuples(*[st.integers(0, 5)] * 3), min_size=1, max_size=40))
@settings(max_examples=50, deadline=None)
def test_the_front_is_what_no_other_beats(costs):
    def beats(one, other):
        return one != other and all(a <= b for a, b in zip(one, other, strict=True))

    assert front(costs).tolist() == [not any(beats(one, own) for one in costs) for own in costs]


def test_points_are_compared_with_their_kind():
    costs = [[1, 1], [2, 2], [3, 1], [9, 9]]
    assert fronts_apart(costs, ["a", "a", "b", "b"]).tolist() == [True, False, True, False]
    assert fronts_apart([], []).tolist() == []


def test_a_front_is_over_one_scene_and_one_part_of_a_frame(tmp_path, cache, monkeypatch, capsys):
    """A small picture does not beat a large one, nor an array a whole accelerator."""
    import json

    monkeypatch.setenv("SPLATFORGE_CACHE", str(cache))
    file, record = tmp_path / "kinds.toml", tmp_path / "kinds.json"
    plot = tmp_path / "kinds.html"
    file.write_text('sizes = ["32x16", "64x32"]\n'
                    '[[designs]]\nname = "raster"\n[[designs]]\nname = "lumina"\n'
                    '[[designs]]\nname = "gscore"\n')
    assert main(["sweep", str(file), "--processes", "1", "--pareto", "time,energy", "--json",
                 str(record), "--plot", str(plot)]) == 0
    said = json.loads(record.read_text())
    on = {(row["design"], row["width"]) for row in said["rows"] if row["key"] in said["front"]}
    assert on == {("raster", 32), ("raster", 64), ("gscore", 32), ("gscore", 64)}
    page = plot.read_text()
    assert "6 points at 32x16, 64x32" in page
    assert "default, 64x32: stages preprocess to write" in page
    assert "default, 64x32: stages rasterize to write" in page


def test_a_point_without_a_figure_is_on_no_front():
    assert front([[np.nan, 0.0], [1.0, 1.0]]).tolist() == [False, True]
    with pytest.raises(ValueError, match="must be of shape"):
        front([1.0])


# ---- Workers ------------------------------------------------------------------------------------


def command(file, out, *more):
    return [sys.executable, "-m", "splatforge", "sweep", str(file), "-o", str(out), *more]


def parts_of(out):
    return {path.name: path.read_bytes() for path in out.glob("part-*.parquet")}


def keys_of(out):
    """Of all rows that were written, one behind another."""
    return [row["key"] for table in Results(out)._tables(["key"]) for row in table.to_pylist()]


def workers_of(process):
    """Processes that were started by one, which are not gone."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == process and state != "Z":
            found.append(int(path.parent.name))
    return found


@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_sweep_goes_on(processes, file, view, tmp_path, cache, monkeypatch):
    """SIGKILL in mid-sweep: what is in the folder stays as it is, and only the rest is computed."""
    file.write_text(FILE.replace("[50, 100]", str(list(range(10, 250)))))
    out, said = tmp_path / "out", tmp_path / "said"
    environment = {**os.environ, "SPLATFORGE_CACHE": str(cache)}
    with said.open("wb") as stderr:
        child = subprocess.Popen(command(file, out, "--processes", str(processes)),
                                 env=environment, stdout=subprocess.DEVNULL, stderr=stderr)
    deadline = time.monotonic() + 300
    while len(list(out.glob("part-*.parquet"))) < 3:
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    workers = workers_of(child.pid)
    assert len(workers) >= processes - 1
    child.send_signal(signal.SIGKILL)
    child.wait()
    before = parts_of(out)
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline, "workers must end with the sweep"
        time.sleep(0.02)
    assert "resource_tracker" not in said.read_text(), "nobody can mend what it warns of"
    points = read(file).points([view])[:60]
    known = Results(out).keys()
    assert known
    assert len(known) < len(read(file).points([view]))
    rows = sweep(points, out, cache=cache)
    assert {row["status"] for row in rows} == {"done"}
    after = parts_of(out)
    assert before.items() <= after.items()
    written = keys_of(out)
    assert len(written) == len(set(written))
    assert known <= set(written)


def test_processes_and_dask_say_what_one_thread_says(file, view, tmp_path, cache):
    from distributed import LocalCluster

    from splatforge.algos.voyager.build import cluster

    points = read(file).points([view])
    here = sweep(points, tmp_path / "here", cache=cache)
    with sweeping.processes(2) as pool:
        beside = sweep(points, tmp_path / "beside", executor=pool, window=4, cache=cache)
    with (LocalCluster(n_workers=1, threads_per_worker=2, processes=False,
                       dashboard_address=None) as workers,
          cluster(workers.scheduler_address) as pool):
        far = sweep(points, tmp_path / "far", executor=pool, window=8, cache=cache)
    assert list(map(figures, here)) == list(map(figures, beside)) == list(map(figures, far))


def test_a_scheduler_that_does_not_answer(file, tmp_path, monkeypatch, capsys):
    from splatforge.algos.voyager import build

    monkeypatch.setattr(build, "_ANSWER_S", 0.5)
    assert main(["sweep", str(file), "-o", str(tmp_path / "out"),
                 "--scheduler", "tcp://127.0.0.1:1"]) == 2
    assert "Scheduler must be a Dask scheduler that answers" in capsys.readouterr().err


def test_the_command_says_the_front_and_draws_it(file, tmp_path, cache, monkeypatch, capsys):
    import json

    monkeypatch.setenv("SPLATFORGE_CACHE", str(cache))
    record, plot = tmp_path / "sweep.json", tmp_path / "sweep.svg"
    assert main(["sweep", str(file), "-o", str(tmp_path / "out"), "--processes", "1",
                 "--pareto", "time,area", "--json", str(record), "--plot", str(plot)]) == 0
    said = json.loads(record.read_text())
    assert (said["points"], said["done"], said["failed"], said["workloads"]) == (12, 12, 0, 2)
    assert 1 <= len(said["front"]) < 12
    assert "12 points of 2 workloads done, 0 failed" in capsys.readouterr().out
    assert plot.read_text().startswith("<svg")
    assert main(["sweep", str(file), "--pareto", "size"]) == 2
    assert "--pareto must name some of time, energy, area, psnr, lane" in capsys.readouterr().err


def test_keys_know_a_memory_from_another(view):
    point = Point(view=view, name="raster", preset="default", design=RasterDesign())
    keys = {point.key(), replace(point, memory=MemoryTiming(latency_cycles=7)).key(),
            replace(point, clock_hz=1e9).key(), replace(point, node_nm=45).key(),
            replace(point, view=replace(view, background=(1.0, 0.0, 0.0))).key(), point.key("x")}
    assert len(keys) == 6

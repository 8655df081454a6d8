"""The command line: figures, files, one line for an error, nothing slow before the help."""

import inspect
import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image

from splatforge import cli, scenes
from splatforge.cli import main
from splatforge.designs.raster import RasterDesign
from splatforge.sim.costs import default_costs, two_digits

sys.path.insert(0, str(Path(__file__).parent))
from cells import tiny_library


def run(capsys, *arguments) -> tuple[int, str, str]:
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def figures(capsys, *arguments) -> dict:
    status, out, err = run(capsys, *arguments, "--json", "-")
    assert status == 0, err
    return json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def refusal(capsys, *arguments) -> str:
    """The one line of an error."""
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, ""), err
    assert err.startswith("splatforge: ")
    assert err.count("\n") == 1
    return err.removeprefix("splatforge: ").rstrip("\n")


@pytest.fixture(scope="module")
def scene_file(tmp_path_factory) -> Path:
    """A small scene that a default camera sees."""
    rng = np.random.default_rng(5)
    count = 400
    scene = scenes.Scene(
        means=rng.normal(0, 0.5, (count, 3)), log_scales=rng.uniform(-4, -2.5, (count, 3)),
        quats=rng.normal(size=(count, 4)), opacity_logits=rng.uniform(0, 3, count),
        sh=rng.normal(0, 0.5, (count, 4, 3)),
    )
    path = tmp_path_factory.mktemp("scene") / "small.ply"
    scenes.save(scene, path)
    return path


# Help and errors ------------------------------------------------------------------------------


def test_help_comes_at_once():
    """Start-up imports nothing heavy: that, not a time, is what can be relied on."""
    code = (
        "import sys; from splatforge.cli import main; main(['render', '--help'])\n"
        "heavy = {'numpy', 'numba', 'PIL', 'amaranth', 'altair', 'skimage', 'scipy', 'jinja2'}\n"
        "sys.exit(str(sorted(heavy & set(sys.modules))) if heavy & set(sys.modules) else 0)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "--against" in result.stdout


@pytest.mark.parametrize("arguments", [[], ["scenes"]])
def test_no_verb_shows_the_help(capsys, arguments):
    status, out, err = run(capsys, *arguments)
    assert status == 2
    assert "Commands" in out + err
    assert "splatforge: " not in err


def test_version(capsys):
    assert re.fullmatch(r"splatforge \d+\.\d+\.\d+\n", run(capsys, "--version")[1])


def test_usage_errors_are_one_line(capsys, scene_file):
    assert "No such command 'rander'" in refusal(capsys, "rander")
    assert "--scene" in refusal(capsys, "render")
    assert "--scene" in refusal(capsys, "render", "--scene")
    assert "WIDTHxHEIGHT" in refusal(capsys, "render", "--scene", scene_file, "--size", "10by10")
    assert "WIDTHxHEIGHT" in refusal(capsys, "render", "--scene", scene_file, "--size", "0x10")
    assert "R,G,B" in refusal(capsys, "render", "--scene", scene_file, "--background", "1,2")
    assert "R,G,B" in refusal(capsys, "render", "--scene", scene_file, "--background", "0,0,2")
    assert "1" in refusal(capsys, "render", "--scene", scene_file, "--frames", "0")


def test_scene_errors_are_one_line(capsys, tmp_path):
    assert "missing.ply" in refusal(capsys, "render", "--scene", tmp_path / "missing.ply")
    bad = tmp_path / "bad.ply"
    bad.write_bytes(b"ply\nformat binary_little_endian 1.0\nelement vertex 10\nend_header\n")
    assert "bad.ply" in refusal(capsys, "render", "--scene", bad)


def test_traceback_on_request(tmp_path):
    with pytest.raises(ValueError, match=r"missing\.ply"):
        main(["--traceback", "render", "--scene", str(tmp_path / "missing.ply")])


def test_bugs_are_not_hidden(monkeypatch, scene_file):
    monkeypatch.setattr(cli, "_scene", lambda *_: {}["bug"])
    with pytest.raises(KeyError):
        main(["render", "--scene", str(scene_file)])


@pytest.mark.parametrize(("error", "message"), [
    (MemoryError("12 GiB"), "not enough memory: 12 GiB"),
    (PermissionError(13, "Permission denied", "/x"), "/x: Permission denied"),
    (RuntimeError("two\nlines"), "two lines"),
    (ValueError(), "ValueError"),
])
def test_errors_of_the_machine(capsys, monkeypatch, scene_file, error, message):
    def fail(names, antialiased):
        raise error

    monkeypatch.setattr(cli, "_scene", fail)
    assert refusal(capsys, "render", "--scene", scene_file) == message


def test_interruption(capsys, monkeypatch, scene_file):
    def interrupt(names, antialiased):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_scene", interrupt)
    status, _, err = run(capsys, "render", "--scene", scene_file)
    assert (status, err) == (130, "splatforge: interrupted\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_second_signal_does_not_interrupt_the_clearing_up(
        capsys, monkeypatch, scene_file, number):
    """The first one counts; handlers are those of before behind it."""
    # A busy machine may take longer than the seconds that a user is given.
    monkeypatch.setattr(cli, "_PATIENCE_S", 600.0)
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    cleared = []

    def interrupt(*_):
        try:
            os.kill(os.getpid(), number)
            time.sleep(30)
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.05)
            cleared.append(True)

    monkeypatch.setattr(cli, "_scene", interrupt)
    assert run(capsys, "render", "--scene", scene_file) == (
        128 + number, "", "splatforge: interrupted\n")
    assert cleared == [True]
    assert before == [
        signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]


def test_a_signal_that_another_thread_gets(capsys, monkeypatch, scene_file):
    """It does not interrupt what the main thread waits for: it is repeated until that hears it."""
    begun, done = threading.Event(), threading.Event()

    def get() -> None:
        begun.wait()
        time.sleep(0.3)
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        done.wait(60)

    def wait(*_) -> None:
        begun.set()
        done.wait(60)

    monkeypatch.setattr(cli, "_scene", wait)
    thread = threading.Thread(target=get)
    thread.start()
    before = time.monotonic()
    assert run(capsys, "render", "--scene", scene_file)[0] == 130
    assert time.monotonic() - before < 30
    done.set()
    thread.join()


def test_a_signal_in_a_place_that_swallows_it(capsys, monkeypatch, scene_file):
    """Out of a finalizer no exception comes: it is raised behind it."""
    class Deaf:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)

    def drop(*_):
        Deaf()
        time.sleep(60)

    monkeypatch.setattr(cli, "_scene", drop)
    before = time.monotonic()
    assert run(capsys, "render", "--scene", scene_file) == (130, "", "splatforge: interrupted\n")
    assert time.monotonic() - before < 30


def test_an_error_that_an_interruption_comes_to(capsys, monkeypatch, scene_file):
    def fail(*_):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        finally:
            raise RuntimeError("the work has ended")

    monkeypatch.setattr(cli, "_scene", fail)
    assert run(capsys, "render", "--scene", scene_file) == (143, "", "splatforge: interrupted\n")


def test_nohup_is_obeyed(monkeypatch, scene_file):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    monkeypatch.setattr(cli, "_scene", lambda *_: os.kill(os.getpid(), signal.SIGHUP) or 1 / 0)
    try:
        with pytest.raises(ZeroDivisionError):
            main(["render", "--scene", str(scene_file)])
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_thread_has_no_say_in_signals():
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(main, ["scenes", "list"]).result() == 0


def test_interruption_of_the_process(scene_file, tmp_path):
    """Ctrl-C in the middle of the work: one line and 130, and no half-written picture."""
    with subprocess.Popen(
        [sys.executable, "-m", "splatforge", "render", "--scene", str(scene_file), "--frames",
         "100000", "--size", "32x32", "-o", "frame.png"], cwd=tmp_path, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    ) as process:
        deadline = time.monotonic() + 300
        while not list(tmp_path.glob("frame_*.png")) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "splatforge: interrupted\n")


def test_a_closed_pipe_is_no_error(scene_file, tmp_path):
    read, write = os.pipe()
    os.close(read)
    result = subprocess.run(
        [sys.executable, "-m", "splatforge", "scenes", "list"], stdout=write, cwd=tmp_path,
        stderr=subprocess.PIPE, text=True, check=False,
    )
    os.close(write)
    assert (result.returncode, result.stderr) == (1, "")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_closed_stream_is_no_error(tmp_path, closed):
    script = f'exec "$0" -m splatforge scenes list {closed}'
    result = subprocess.run(["sh", "-c", script, sys.executable], cwd=tmp_path, text=True,
                            capture_output=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert ("default" in result.stdout) == (closed == "2>&-")


# What verbs share -----------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "taken"), [
    (["--scene", "a", "b", "--size", "1x1"], ["a", "b"]),
    (["--scene", "a", "--scene", "b"], ["a", "b"]),
    (["--scene=a", "--scene", "b", "c"], ["a", "b", "c"]),
    (["--scene", "raster"], ["raster"]),
])
def test_scene_takes_many_values(capsys, monkeypatch, given, taken):
    seen = []

    def note(names, antialiased):
        seen.extend(names)
        raise ValueError("seen")

    monkeypatch.setattr(cli, "_scene", note)
    assert refusal(capsys, "render", *given) == "seen"
    assert seen == taken


@pytest.fixture
def no_hang():
    """Fail, instead of waiting for ever, where a pipe is opened."""
    def late(*_):
        raise AssertionError("the command waits for a pipe")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


INPUTS = {
    "--scene": (["render"], "a.ply"),
    "--camera": (["render", "--scene", "default"], "a.json"),
    "--camera of COLMAP": (["render", "--scene", "default"], "images.txt"),
    "--trajectory": (["render", "--scene", "default"], "a.csv"),
    "--against": (["render", "--scene", "default"], "a.png"),
    "--against of floats": (["render", "--scene", "default"], "a.npy"),
    "--config": (["simulate", "raster", "--scene", "default"], "a.toml"),
    "--costs": (["simulate", "raster", "--scene", "default", "--size", "16x16"], "a.toml"),
    "--gpu-cards": (["simulate", "raster", "--scene", "default", "--size", "16x16"], "a.toml"),
    "--liberty": (["energy", "raster", "--scene", "default"], "a.lib"),
}


@pytest.mark.parametrize("option", INPUTS)
def test_what_is_no_file_is_refused(capsys, tmp_path, no_hang, option):
    """A pipe would never end, a device neither; a folder and nothing have their own words."""
    before, name = INPUTS[option]
    option = option.partition(" ")[0]
    path = tmp_path / name
    assert f"{path}: " in (line := refusal(capsys, *before, option, path))
    assert "file is missing" in line
    os.mkfifo(path)
    assert f"{path}: path is not a regular file" in refusal(capsys, *before, option, path)
    path.unlink()
    path.symlink_to("/dev/zero")
    assert f"{path}: path is not a regular file" in refusal(capsys, *before, option, path)
    path.unlink()
    path.mkdir()
    line = refusal(capsys, *before, option, path)
    assert f"{path}: " in line
    assert "folder" in line


@pytest.mark.parametrize("option", ["--config", "--costs"])
def test_bytes_that_are_no_text_are_no_toml(capsys, tmp_path, option):
    before, name = INPUTS[option]
    (tmp_path / name).write_bytes(b"\xff\xfe[")
    assert f"{tmp_path / name}: not TOML: " in refusal(
        capsys, *before, option, tmp_path / name)


def test_an_output_that_is_no_file_is_kept(capsys, tmp_path, scene_file):
    """A pipe or a device is not replaced by a file of its name."""
    os.mkfifo(tmp_path / "a.png")
    line = refusal(capsys, "render", "--scene", scene_file, "--size", "16x16", "-o",
                   tmp_path / "a.png")
    assert f"{tmp_path / 'a.png'}: cannot be written (not a regular file)" in line
    assert stat.S_ISFIFO((tmp_path / "a.png").stat().st_mode)


def test_json_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "new" / "figures.json"
    cli._write_json({"psnr_db": float("inf"), "a": np.float32(1.5)}, str(path))
    assert json.loads(path.read_text()) == {"psnr_db": None, "a": 1.5}
    monkeypatch.setattr(os, "replace", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli._write_json({"a": 2}, str(path))
    assert json.loads(path.read_text())["a"] == 1.5


def test_every_option_is_declared_once():
    """But those that are not the same in two verbs."""
    source = Path(cli.__file__).read_text("utf-8")
    declared = re.findall(r'typer\.Option\(\s*((?:"-[^"]*",?\s*)+)', source)
    names = [name for each in declared for name in re.findall(r'"(-[^"/]*)', each)]
    assert len(names) > 40
    assert {name for name in names if names.count(name) > 1} == {
        "-o", "--output", "--seed", "--against", "--design", "--liberty", "--size", "--unit",
        # Of a tree, not of a scene; a way with defaults of its own, and one or several speeds; a
        # network that is modeled, and one that is held back.
        "--antialiased", "--trajectory", "--frames", "--speed", "--bandwidth-mbps", "--latency-ms",
        # Of a sweep: in place of its file's scenes, fronts, cells of a lane, points on a cluster.
        "--scene", "--plot", "--library", "--scheduler"}


def test_groups_of_options():
    """Their fields stand where the group does, and come back as one."""
    seen = []

    @cli.grouped
    def verb(first: int, parameters: cli.DesignOptions, drawn: cli.ViewOptions, last: int = 3):
        """What it does."""
        seen.append((first, parameters, drawn, last))

    names = list(inspect.signature(verb).parameters)
    assert names == ["first", "preset", "config", "scene", "size", "camera", "antialiased", "last"]
    assert inspect.signature(verb).parameters["scene"].default is inspect.Parameter.empty
    assert (verb.__name__, verb.__doc__) == ("verb", "What it does.")
    app = typer.Typer()
    app.command()(verb)
    app(["7", "--scene", "a", "--preset", "64-lane", "--scene", "b", "--size", "4x2"],
        standalone_mode=False)
    assert seen == [(7, cli.DesignOptions(preset="64-lane"),
                     cli.ViewOptions(scene=["a", "b"], size=(4, 2)), 3)]


def test_config_changes_the_design(tmp_path):
    path = tmp_path / "d.toml"
    path.write_text('[array]\nlanes = 16\n[array.alpha]\ntable_entries = 32\nform = "SQ(3,11)"\n')
    design = cli._design("raster", "64-lane", path)
    assert design.array.lanes == 16
    assert design.array.alpha.table_entries == 32
    assert str(design.array.alpha.form) == "SQ(3,11)"
    assert design.fetch == cli._design("raster", None, None).fetch


@pytest.mark.parametrize(("text", "message"), [
    ("[aray]\nlanes = 16", r"d\.toml: aray is no parameter; the nearest is array$"),
    ("[array]\nlane = 16", r"d\.toml: array\.lane is no parameter; the nearest is lanes$"),
    ("[array]\nlanes = 17", r"d\.toml: array: Lanes must be 16, 32, 64, 128 or 256, not 17$"),
    ("[array]\nlanes = 16.0", r"d\.toml: array\.lanes must be of type int, not 16\.0$"),
    ("array = 16", r"d\.toml: array must be a table, not 16$"),
    ('[array.alpha]\nform = "3.10"', r"form must be such as UQ\(1,16\), not '3\.10'$"),
    ("[array", r"d\.toml: not TOML: "),
    ("[array]\nlanes = 16\nlanes = 32", r"d\.toml: not TOML: "),
])
def test_config_errors(tmp_path, text, message):
    path = tmp_path / "d.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        cli._design("raster", None, path)


def test_unknown_design_and_preset():
    message = r"^Design must be one of raster, gscore, streaminggs, lumina, voyager, not 'rester'$"
    with pytest.raises(ValueError, match=message):
        cli._design("rester", None, None)
    with pytest.raises(ValueError, match=r"^Preset must be one of 16-lane, .*, not '63-lane'$"):
        cli._design("raster", "63-lane", None)


@pytest.mark.parametrize("rate", ["fast", "1/0", "0", "3/2"])
def test_memory_rates(rate):
    with pytest.raises(ValueError, match=r"Memory rate must be|Beats per cycle must be"):
        cli.MemoryOptions(memory_rate=rate).timing(RasterDesign())
    with pytest.raises(ValueError, match=r"Memory rate must be|Beats per cycle must be"):
        cli.MemoryOptions(memory_rate="1/2", memory_write_rate=rate).timing(RasterDesign())


@pytest.mark.parametrize(("option", "value"), [
    ("--memory-latency", 5), ("--memory-rate", "1/2"), ("--memory-write-rate", "1/2"),
    ("--memory-outstanding", 4)])
def test_banked_memories_have_timing_of_their_own(capsys, scene_file, option, value):
    name = "lpddr4-3200"
    line = refusal(capsys, "simulate", "raster", "--scene", scene_file, "--memory", name, option,
                   value)
    assert line == f"{option} must come with a fixed memory, not with {name}, which has its own"


# render ---------------------------------------------------------------------------------------


def test_render(capsys, tmp_path, scene_file):
    picture, floats = tmp_path / "out" / "a.png", tmp_path / "a.npy"
    record = figures(capsys, "render", "--scene", scene_file, "--size", "48x40", "-o", picture)
    assert (record["width"], record["height"], record["output"]) == (48, 40, str(picture))
    assert record["render_ms"] >= sum(record["stages_ms"].values()) * 0.5 > 0
    with Image.open(picture) as image:
        assert image.size == (48, 40)
        assert np.asarray(image).std() > 5
    record = figures(capsys, "render", "--scene", scene_file, "--size", "48x40", "-o", floats,
                     "--against", picture)
    assert record["psnr_db"] > 50
    assert record["ssim"] > 0.99
    assert np.load(floats).dtype == np.float32
    record = figures(capsys, "render", "--scene", scene_file, "--size", "48x40", "-o", picture,
                     "--against", floats)
    assert record["psnr_db"] is None
    lit = figures(capsys, "render", "--scene", scene_file, "--size", "48x40", "-o", picture,
                  "--background", "1,1,1", "--against", floats)
    assert lit["psnr_db"] < 20


@pytest.mark.parametrize("content", [
    b"", b"\x93NUMPY\x01\x00\x10\x00{'descr': 3", b"PK\x03\x04" + bytes(40), b"\x80\x04K\x01."])
def test_floats_that_are_damaged(capsys, tmp_path, scene_file, content):
    (tmp_path / "a.npy").write_bytes(content)
    assert "a.npy: cannot be read as .npy" in refusal(
        capsys, "render", "--scene", scene_file, "--against", tmp_path / "a.npy")


def test_the_antialiased_flag(capsys, tmp_path, scene_file):
    """The command line has the last word, for every verb that draws."""
    scene = scenes.load(scene_file)
    scenes.save(replace(scene, antialiased=True), tmp_path / "soft.ply")
    base = ["render", "--size", "48x40", "-o", tmp_path / "a.npy", "--scene"]
    seen = {}
    for path in (scene_file, tmp_path / "soft.ply"):
        for option in ([], ["--antialiased"], ["--no-antialiased"]):
            flag = option == ["--antialiased"] or (not option and path != scene_file)
            assert figures(capsys, *base, path, *option)["antialiased"] is flag
            picture = np.load(tmp_path / "a.npy")
            assert np.array_equal(seen.setdefault(flag, picture), picture)
    assert (seen[True] != seen[False]).any()
    soft = run(capsys, *base, scene_file, "--antialiased")[1]
    assert re.search(r"^antialiased +yes$", soft, re.MULTILINE)
    assert re.search(r"^antialiased +no$", run(capsys, *base, scene_file)[1], re.MULTILINE)
    assert "antialiased must be the same" in refusal(
        capsys, *base, scene_file, tmp_path / "soft.ply")
    assert figures(
        capsys, *base, scene_file, tmp_path / "soft.ply", "--no-antialiased")["gaussians"] == 800
    base = ["simulate", "raster", "--size", "48x40", "--scene", scene_file]
    hard, soft = (figures(capsys, *base, *option)["workload"] for option in ([], ["--antialiased"]))
    assert soft["significant"] < hard["significant"]


@pytest.mark.parametrize("verb", ["cosim raster", "report", "simulate raster", "render"])
def test_the_antialiased_flag_reaches_the_scene(capsys, monkeypatch, scene_file, verb):
    asked = []

    def note(*names, **options):
        asked.append(options["antialiased"])
        raise ValueError("seen")

    monkeypatch.setattr(scenes, "resolve", note)
    for option in ([], ["--antialiased"], ["--no-antialiased"]):
        assert refusal(capsys, *verb.split(), "--scene", scene_file, *option) == "seen"
    assert asked == [None, True, False]


def test_render_merges_scenes(capsys, tmp_path, scene_file):
    record = figures(capsys, "render", "--scene", scene_file, scene_file, "--size", "32x32", "-o",
                     tmp_path / "a.png")
    assert record["gaussians"] == 800


def test_render_statistics(capsys, tmp_path, scene_file):
    counts, heat = tmp_path / "t.json", tmp_path / "t.png"
    figures(capsys, "render", "--scene", scene_file, "--size", "50x20", "-o", tmp_path / "a.png",
            "--statistics", counts, "--statistics", heat)
    data = json.loads(counts.read_text())
    assert (data["tiles_x"], data["tiles_y"], data["tile_px"]) == (4, 2, 16)
    assert np.shape(data["pairs"]) == (2, 4)
    assert np.sum(data["significant"]) == data["totals"]["significant"] > 0
    with Image.open(heat) as image:
        assert image.size == (64, 32)


def test_render_as_an_accelerator(capsys, tmp_path, scene_file):
    base = ["render", "--scene", scene_file, "--size", "48x40", "-o", tmp_path / "a.npy"]
    exact = figures(capsys, *base)
    assert "design" not in exact
    want = np.load(tmp_path / "a.npy")
    for design in ("raster", "gscore"):
        record = figures(capsys, *base, "--design", design)
        assert (record["design"], record["width"]) == (design, 48)
        assert "stages_ms" not in record
        got = np.load(tmp_path / "a.npy")
        assert 0 < np.abs(got - want).mean() < 2e-3
        assert 45 < record["psnr_db_vs_reference"] < 90
    streamed = figures(capsys, *base, "--design", "streaminggs")
    assert 20 < streamed["psnr_db_vs_reference"] < record["psnr_db_vs_reference"]
    # Frames of a path go on from one another.
    path = [*base, "--design", "lumina", "--trajectory", "head-jitter", "--frames", 4]
    plain, shared, cached = (figures(capsys, *path, "--preset", preset)["psnr_db_vs_reference"]
                             for preset in ("plain", "sharing", "caching"))
    assert 45 < shared < plain
    assert 20 < cached < plain
    config = tmp_path / "a.toml"
    config.write_text("[array.alpha]\ntable_entries = 2\n")
    coarse = figures(capsys, *base, "--design", "gscore", "--preset", "aabb", "--config", config)
    assert coarse["psnr_db_vs_reference"] < record["psnr_db_vs_reference"] - 3


def test_render_refusals(capsys, tmp_path, scene_file):
    base = ["render", "--scene", scene_file, "--size", "32x32"]
    assert "extension must be" in refusal(capsys, *base, "-o", tmp_path / "a.bmp")
    assert "extension must be" in refusal(capsys, *base, "--statistics", tmp_path / "a.txt")
    assert "must come with --design" in refusal(capsys, *base, "--preset", "aabb")
    assert "Design must be one of raster, gscore, streaminggs, lumina, voyager" in refusal(
        capsys, *base, "--design", "lumin")
    assert "must come without --design" in refusal(
        capsys, *base, "--design", "gscore", "--statistics", tmp_path / "a.json")
    text = tmp_path / "text.png"
    text.write_text("no picture")
    assert "must be a picture" in refusal(capsys, *base, "--against", text)
    assert "none.png" in refusal(capsys, *base, "--against", tmp_path / "none.png")
    small = tmp_path / "small.png"
    Image.new("RGB", (8, 8)).save(small)
    out = tmp_path / "a.png"
    assert "size must be 32x32" in refusal(capsys, *base, "--against", small, "-o", out)
    np.save(tmp_path / "a.npy", np.zeros((4, 4)))
    assert "must be floats" in refusal(capsys, *base, "--against", tmp_path / "a.npy")
    (tmp_path / "file").write_text("")
    assert "file" in refusal(capsys, *base, "-o", tmp_path / "file" / "a.png")


def test_examples_of_the_help_run(capsys, tmp_path, monkeypatch):
    """Those that take seconds; tests/test_docs.py parses all of them."""
    monkeypatch.chdir(tmp_path)
    for line in (
        "scenes list", "scenes info default", "scenes convert default default.ply",
        "scenes make object --gaussians 20000",
        "render --scene default --size 640x480 -o frame.png",
        "verilog raster --preset 64-lane -o build/raster",
        "simulate raster --scene default --size 320x240 --preset 64-lane",
    ):
        status, out, err = run(capsys, *line.split())
        assert (status, err) == (0, ""), line
        assert out
    assert {path.name for path in tmp_path.iterdir()} == {
        "build", "default.ply", "frame.png", "object.ply"}


# scenes ---------------------------------------------------------------------------------------


def test_scenes_list(capsys):
    names = {scene["name"] for scene in figures(capsys, "scenes", "list")["scenes"]}
    assert {"default", "object", "city"} <= names


def test_scenes_info(capsys, scene_file):
    record = figures(capsys, "scenes", "info", scene_file)
    scene = scenes.load(scene_file)
    assert (record["gaussians"], record["sh_degree"], record["format"]) == (400, 1, "ply")
    assert record["size_bytes"] == scene_file.stat().st_size
    assert record["load_s"] > 0
    assert record["bbox_min"] == scene.bbox_min.tolist()
    assert record["bbox_max"] == scene.bbox_max.tolist()
    merged = figures(capsys, "scenes", "info", scene_file, "default")
    assert merged["gaussians"] == 400 + figures(capsys, "scenes", "info", "default")["gaussians"]
    assert merged["format"] == "ply+generated"


def test_scenes_convert(capsys, tmp_path, scene_file):
    target = tmp_path / "a.spz"
    record = figures(capsys, "scenes", "convert", scene_file, scene_file, target)
    assert (record["gaussians"], record["output"]) == (800, str(target))
    assert scenes.load(target).gaussians == 800
    assert "not one name" in refusal(capsys, "scenes", "convert", scene_file)
    assert "a.obj" in refusal(capsys, "scenes", "convert", scene_file, tmp_path / "a.obj")


def test_scenes_make(capsys, tmp_path):
    assert "100000000" in refusal(capsys, "scenes", "make", "city", "--gaussians", 10**10)
    record = figures(capsys, "scenes", "make", "object", "--gaussians", 1000, "--seed", 3, "-o",
                     tmp_path / "new" / "o.ply")
    assert record["gaussians"] == 1000
    first = (tmp_path / "new" / "o.ply").read_bytes()
    figures(capsys, "scenes", "make", "object", "--gaussians", 1000, "--seed", 3, "-o",
            tmp_path / "p.ply")
    assert (tmp_path / "p.ply").read_bytes() == first
    figures(capsys, "scenes", "make", "city", "--gaussians", 5000, "--levels", 2, "-o",
            tmp_path / "c.ply")
    assert scenes.load(tmp_path / "c.ply").gaussians == 5000
    assert scenes.load(tmp_path / "c_lod1.ply").gaussians == 1250
    assert "object or city" in refusal(capsys, "scenes", "make", "sea")
    assert "Levels must be 1" in refusal(capsys, "scenes", "make", "object", "--levels", 2)


def test_scenes_tune(capsys, tmp_path, scene_file):
    target, state = tmp_path / "new" / "tuned.ply", tmp_path / "state.npz"
    options = ("--size", "48x40", "--views", 12, "--voxel-size", 0.4, "--boundary-weight", 0,
               "--checkpoint", state)
    record = figures(capsys, "scenes", "tune", scene_file, "-o", target, "--steps", 80, *options)
    assert record["output"] == str(target)
    assert (record["gaussians"], record["steps"], record["views"]) == (400, 80, 12)
    assert record["voxel_size"] == pytest.approx(0.4, rel=0.1)
    assert record["psnr_db_after"] > record["psnr_db_before"]
    assert record["psnr_db_after"] >= record["psnr_db_worst_after"]
    assert 0 < record["cross_boundary_pixel_share_after"] < record["cross_boundary_share_after"] < 1
    tuned, original = scenes.load(target), scenes.load(scene_file)
    np.testing.assert_array_equal(tuned.means, original.means)
    assert np.abs(tuned.log_scales - original.log_scales).max() > 0.01
    # All steps are done: the second run reads them, and writes the same scene.
    again = tmp_path / "again.ply"
    figures(capsys, "scenes", "tune", scene_file, "-o", again, "--steps", 80, *options)
    assert again.read_bytes() == target.read_bytes()
    through = figures(capsys, "scenes", "tune", scene_file, "-o", again, "--steps", 3,
                      *options[:-2], "--quantized")
    assert (record["quantized"], through["quantized"]) == (False, True)
    assert through["psnr_db_before"] != record["psnr_db_before"]
    assert "other settings" in refusal(
        capsys, "scenes", "tune", scene_file, "-o", again, "--steps", 81, *options)
    assert "extension" in refusal(capsys, "scenes", "tune", scene_file, "-o", tmp_path / "a.png")


def test_scenes_get(capsys, tmp_path, monkeypatch, scene_file):
    monkeypatch.setenv("SPLATFORGE_CACHE", str(tmp_path))
    assert "url and sha256" in refusal(capsys, "scenes", "get", "a.ply", "--url", "file:///a")
    assert "nothing" in refusal(capsys, "scenes", "get", "nothing")
    (tmp_path / "kept.ply").write_bytes(scene_file.read_bytes())
    record = figures(capsys, "scenes", "get", "kept")
    assert record["output"] == str(tmp_path / "kept.ply")
    assert record["size_bytes"] == scene_file.stat().st_size
    # One line on standard output, which a script can take for the file.
    assert run(capsys, "scenes", "get", "kept") == (0, f"{tmp_path / 'kept.ply'}\n", "")


# Cameras --------------------------------------------------------------------------------------


def pictures_of(folder: Path, stem: str) -> list[np.ndarray]:
    return [np.asarray(Image.open(path).copy()) for path in sorted(folder.glob(f"{stem}_*.png"))]


@pytest.mark.parametrize("name", ["orbit", "fly-through", "head-jitter"])
def test_trajectories(capsys, tmp_path, scene_file, name):
    record = figures(capsys, "render", "--scene", scene_file, "--size", "32x24", "--trajectory",
                     name, "--frames", 3, "-o", tmp_path / "f.png")
    assert record["frames"] == len(record["output"]) == 3
    first, second, third = pictures_of(tmp_path, "f")
    assert (first != second).any()
    assert (second != third).any()
    assert min(picture.std() for picture in (first, second, third)) > 5


def write_cameras(path: Path, count: int) -> None:
    """Cameras in INRIA's cameras.json form, around the scene of the tests."""
    path.write_text(json.dumps([
        {"id": number, "img_name": str(number), "width": 64, "height": 48, "fx": 50.0, "fy": 50.0,
         "position": [0.1 * number, 0.0, -3.0], "rotation": np.eye(3).tolist()}
        for number in range(count)
    ]))


def test_cameras_of_a_file(capsys, tmp_path, scene_file):
    path = tmp_path / "cameras.json"
    write_cameras(path, 3)
    base = ["render", "--scene", scene_file, "--camera", path, "-o", tmp_path / "c.png"]
    assert figures(capsys, *base)["width"] == 64
    record = figures(capsys, *base, "--frames", 3, "--size", "32x24")
    assert (record["width"], record["frames"]) == (32, 3)
    first, _, third = pictures_of(tmp_path, "c")
    assert (first != third).any()
    assert "at most 3" in refusal(capsys, *base, "--frames", 4)
    figures(capsys, *base, "--trajectory", "fly-through", "--frames", 3)
    assert "none.json" in refusal(capsys, *base[:3], "--camera", tmp_path / "none.json")


def test_distortion_is_said_on_stderr(capsys, tmp_path, scene_file):
    """One line, and the figures on standard output stay JSON."""
    path = tmp_path / "transforms.json"
    pose = np.diag([1.0, -1, -1, 1])
    pose[2, 3] = -3
    path.write_text(json.dumps({
        "w": 64, "h": 48, "fl_x": 50, "k1": 0.1,
        "frames": 2 * [{"transform_matrix": pose.tolist()}]}))
    status, out, err = run(capsys, "render", "--scene", scene_file, "--camera", path, "-o",
                           tmp_path / "a.png", "--json", "-")
    assert (status, json.loads(out)["width"]) == (0, 64)
    assert err == (f"splatforge: warning: {path}: lens distortion (k1 0.1) is left out, since a "
                   "splatting camera is a pinhole: undistort the images to compare with them\n")


def test_head_motion(capsys, tmp_path, scene_file, shared_cameras):
    trace = shared_cameras("eyenavgs_user101_truck.csv.gz")
    base = ["render", "--scene", scene_file, "--size", "32x24", "--trajectory", trace, "-o",
            tmp_path / "h.png", "--frames"]
    figures(capsys, *base, 30)
    motion = pictures_of(tmp_path, "h")
    assert (motion[0] != motion[-1]).any()
    assert "Frames must be at most" in refusal(capsys, *base, 10_000_000)


def test_unknown_trajectory(capsys, tmp_path, scene_file):
    base = ["render", "--scene", scene_file, "--trajectory"]
    assert "Trajectory must be" in refusal(capsys, *base, "spiral")
    assert "none.csv" in refusal(capsys, *base, tmp_path / "none.csv")


# verilog --------------------------------------------------------------------------------------


def test_verilog_refusals(capsys, tmp_path):
    assert "Design must be one of" in refusal(capsys, "verilog", "rester", "-o", tmp_path)
    assert "Preset must be one of" in refusal(
        capsys, "verilog", "raster", "--preset", "big", "-o", tmp_path)


def test_verilog(capsys, tmp_path):
    record = figures(capsys, "verilog", "raster", "--preset", "16-lane", "-o", tmp_path)
    assert {Path(name).name for name in record["files"]} == {path.name for path in
                                                             tmp_path.iterdir()}
    assert (tmp_path / "raster.v").read_text().count("endmodule") > 5
    assert json.loads((tmp_path / "registers.json").read_text())


# simulate, cosim, report ----------------------------------------------------------------------

SIMULATE_KEYS = {
    "design", "scene", "frames", "cycles", "clock_hz", "time_s", "fps", "bytes_read",
    "bytes_written", "energy_j", "energy_band_j", "area_mm2", "utilisation", "stages", "baselines"}
COSIM_KEYS = {
    "design", "scene", "frames", "pixels", "pixels_differing", "psnr_db_vs_float", "memory",
    "rtl_cycles", "model_cycles", "cycle_error", "rtl_bytes_read", "rtl_bytes_written",
    "model_bytes_read", "model_bytes_written", "build_s", "simulate_s", "wall_s"}


def test_simulate(capsys, scene_file):
    base = ["simulate", "raster", "--scene", scene_file, "--size", "64x48"]
    record = figures(capsys, *base)
    assert set(record) >= SIMULATE_KEYS
    assert record["time_s"] == pytest.approx(record["cycles"] / record["clock_hz"])
    # The clock is what synthesis supports; what others assume stands beside it.
    supported = default_costs().clock("raster", node_nm=28)
    assert record["clock_hz"] == supported.value < 1e9
    assert record["clock_band_hz"] == [supported.low, supported.high]
    # People get the band; a clock that was asked for has none.
    ends = (1e3 * record["cycles"] / each for each in reversed(record["clock_band_hz"]))
    assert f" ms, {' to '.join(map(two_digits, ends))}, at " in run(capsys, *base)[1]
    assert " ms at 50 MHz, " in run(capsys, *base, "--clock-mhz", 50)[1]
    assert record["clock_assumed"] is False is record["baselines"]["agx_xavier"]["clock_assumed"]
    assert (record["clock_warning"], record["clock_not_mapped"]) == (None, {})
    assert record["clock_source"].endswith("; of the default parameters")
    assumed = record["assumed"]
    assert assumed["time_s"] == pytest.approx(record["cycles"] / 1e9)
    assert assumed["speedup"]["orin_nx_16gb"] == pytest.approx(
        record["baselines"]["orin_nx_16gb"]["speedup"] * assumed["clock_hz"] / record["clock_hz"])
    assert record["energy_band_j"][0] < record["energy_j"] < record["energy_band_j"][1]
    assert {stage["name"] for stage in record["stages"]} == {"fetch", "array", "resolve"}
    slow = figures(capsys, *base, "--clock-mhz", 50, "--memory-latency", 1000)
    assert slow["clock_hz"] == 5e7
    assert slow["cycles"] > record["cycles"]
    assert slow["clock_assumed"] is False
    fast = figures(capsys, *base, "--clock-mhz", 5000)
    assert fast["clock_assumed"] is True is fast["baselines"]["agx_xavier"]["clock_assumed"]
    assert fast["clock_supported_hz"] == supported.value
    _, out, err = run(capsys, *base, "--clock-mhz", 5000)
    said = f"no synthesis supports 5,000 MHz, {5e9 / supported.value:.3g} times the "
    assert said in err
    assert said in " ".join(out.split())
    assert "our energy, at an assumed clock" in " ".join(out.split())
    narrow = figures(capsys, *base, "--preset", "16-lane")
    # Its clock is that of other lanes, and says so.
    assert narrow["clock_not_mapped"] == {"array.lanes": {"asked": "16", "mapped": "64"}}
    assert "those asked for were not mapped: array.lanes 16 instead of 64" in narrow["clock_source"]
    assert narrow["cycles"] > record["cycles"]
    assert narrow["bytes_read"] == pytest.approx(record["bytes_read"], rel=0.3)
    twice = figures(capsys, *base, "--frames", 2)
    assert twice["cycles"] == 2 * record["cycles"]


def test_simulate_gscore(capsys, scene_file):
    """The same figures; all that a GPU does stands beside, and the lack of a technique shows."""
    base = ["simulate", "gscore", "--scene", scene_file, "--size", "64x48"]
    record = figures(capsys, *base)
    assert set(record) >= SIMULATE_KEYS
    assert [stage["name"] for stage in record["stages"]] == [
        "ccu", "lists", "qsu", "bsu", "array", "resolve"]
    assert record["counters"]["gaussians"] == record["counters"]["gaussian_bytes"] // 96
    coarse = figures(capsys, *base, "--preset", "aabb-whole-tiles")
    assert coarse["counters"]["array_busy"] > record["counters"]["array_busy"]
    # The published configuration stands before the published memory, unless another is asked for.
    published = figures(capsys, *base, "--preset", "published")
    assert published["memory"]["name"] == published["energy"][0]["dram"] == "lpddr4-3200"
    fixed = figures(capsys, *base, "--preset", "published", "--memory", "fixed")
    assert fixed["cycles"] == record["cycles"] != published["cycles"]
    status, out, _ = run(capsys, *base)
    assert status == 0
    for words in ("of ccu", "of memory", "for preprocess, duplicate, sort, rasterize, write:"):
        assert words in out


def test_simulate_streaminggs(capsys, scene_file):
    """The same figures; GSCore stands beside it."""
    base = ["simulate", "streaminggs", "--scene", scene_file, "--size", "64x48"]
    record = figures(capsys, *base)
    assert set(record) >= SIMULATE_KEYS
    assert [stage["name"] for stage in record["stages"]] == [
        "vsu", "cfu", "ffu", "vsort", "array", "resolve"]
    assert record["baselines"]["gscore"]["cycles"] > 0
    busiest = record["busiest"]
    assert busiest["ratio"] == record["cycles"] / busiest["busy_cycles"] > 1
    published = figures(capsys, *base, "--preset", "published")
    assert published["memory"]["name"] == published["energy"][0]["dram"] == "lpddr4-3200"
    assert published["counters"]["groups"] == 12 > record["counters"]["groups"] == 4
    status, out, _ = run(capsys, *base)
    assert status == 0
    for words in ("of cfu", "of memory", "codebook", "gscore", " cycles at ", "busiest unit"):
        assert words in out


def test_simulate_banked_memory(capsys, tmp_path, scene_file):
    base = ["simulate", "raster", "--scene", scene_file, "--size", "64x48"]
    for name in ("lpddr3-1600", "lpddr4-3200", "lpddr5-6400"):
        record = figures(capsys, *base, "--memory", name)
        memory = record["memory"]
        assert memory["name"] == name
        assert 0 < memory["row_hit_rate"] < 1
        assert memory["share_of_peak"] == pytest.approx(
            memory["bytes_per_s"] / memory["peak_bytes_per_s"])
        dram = [row for row in record["energy"][0]["rows"] if row["component"] == "dram"]
        assert sum(row["energy_j"] for row in dram) == pytest.approx(memory["energy_j"])
        assert record["energy"][0]["dram"] == name
        # Cycles of another clock are no time at the assumed one.
        assert (record["assumed"]["time_s"], record["assumed"]["speedup"]) == (None, {})
        assert "--clock-mhz 1000" in record["assumed"]["note"]
    slower = figures(capsys, *base, "--memory", name, "--clock-mhz", 100)
    assert slower["memory"]["accelerator_clock_hz"] == 1e8
    assert slower["cycles"] < record["cycles"]
    # A memory in ns takes fewer of slower cycles: the band of a clock holds the time from outside.
    assert record["time_s"] < slower["time_s"] < record["cycles"] / 1e8
    status, out, _ = run(capsys, *base, "--memory", name)
    assert status == 0
    for words in ("row hits", "bandwidth", "DRAM energy", "as cited"):
        assert words in out
    trace = tmp_path / "requests.dramsim3"
    record = figures(capsys, *base, "--memory", name, "--memory-trace", trace)
    lines = trace.read_text().splitlines()
    assert len(lines) == record["memory"]["reads"] + record["memory"]["writes"]
    assert sum(" WRITE " in line for line in lines) == record["memory"]["writes"]


@pytest.mark.parametrize("verb", ["simulate", pytest.param("cosim", marks=pytest.mark.rtl)])
def test_saturated_colors_are_counted(capsys, tmp_path, scene_file, verb):
    """A scene with colours up to 40: a word in the text, a number in the JSON."""
    scene = scenes.load(scene_file)
    scenes.save(replace(scene, sh=20 * scene.sh), tmp_path / "bright.ply")
    base = [verb, "raster", "--size", "40x24", "--scene"]
    record = figures(capsys, *base, scene_file)
    assert record["gaussians_saturated"] == 0
    assert "saturated" not in run(capsys, *base, scene_file)[1]
    record = figures(capsys, *base, tmp_path / "bright.ply", "--frames", 2)
    assert 20 < record["gaussians_saturated"] < 400
    assert 3.9 < record["color_max"] < 4
    status, out, _ = run(capsys, *base, tmp_path / "bright.ply")
    assert status == 0
    assert re.search(rf"^saturated +{record['gaussians_saturated']} Gaussians have a colour above "
                     r"3\.9\d+ and are drawn as 3\.9\d+$", out, re.MULTILINE)


def test_simulate_beside_gpus_of_the_user(capsys, scene_file, tmp_path):
    """A card is a device like ours: twice of everything of Orin NX takes half of the time."""
    path = tmp_path / "cards.toml"
    parts = {"sms": (16, "1"), "cores": (2048, "1"), "clock": (918, "MHz"),
             "bandwidth": (204.8, "GB/s"), "power": (15, "W")}
    path.write_text("".join(
        f'[device.wide.{part}]\nvalue = {value}\nlow = {value}\nhigh = {value}\nunit = "{unit}"\n'
        'source = "a user"\n' for part, (value, unit) in parts.items()))
    base = ["simulate", "raster", "--scene", scene_file, "--size", "64x48", "--gpu-cards", path]
    record = figures(capsys, *base, "--gpu", "wide", "--gpu", "orin_nx_16gb")
    wide, orin = (record["baselines"][name] for name in ("wide", "orin_nx_16gb"))
    assert wide["time_s"] == pytest.approx(orin["time_s"] / 2)
    assert list(figures(capsys, *base)["baselines"]) == ["wide"]
    assert "GPU must be one of " in refusal(capsys, *base, "--gpu", "narrow")
    path.write_text(path.read_text().replace("wide.power", "wide.watts"))
    assert "watts must be device.NAME" in refusal(capsys, *base)


def test_simulate_with_costs_of_the_user(capsys, scene_file, tmp_path):
    base = ["simulate", "raster", "--scene", str(scene_file), "--size", "64x48"]
    table = tmp_path / "mine.toml"
    table.write_text('[energy.lpddr4]\nvalue = 1\nunit = "pJ/bit"\nlow = 1\nhigh = 1\n'
                     'source = "a user"\n')
    ours, mine = figures(capsys, *base), figures(capsys, *base, "--costs", str(table))
    moved = 8 * (ours["bytes_read"] + ours["bytes_written"])
    assert ours["energy_j"] - mine["energy_j"] == pytest.approx(7e-12 * moved)
    table.write_text("[energy.lpddr4]\nvalue = 1\n")
    assert main([*base, "--costs", str(table)]) == 2
    assert "energy.lpddr4.unit is missing" in capsys.readouterr().err


def test_energy_refusals(capsys, scene_file, tmp_path):
    base = ["energy", "raster", "--scene", str(scene_file), "--size", "64x48"]
    assert main([*base, "--liberty", str(tmp_path / "none.lib")]) == 2
    assert "none.lib: Liberty file is missing" in capsys.readouterr().err
    assert main([*base, "-o", "table.json"]) == 2
    assert ".toml" in capsys.readouterr().err
    for words in (["--unit", "array"], ["--cycles", "2000"]):
        assert main([*base, *words]) == 2
        assert "--unit and --cycles are of designs other than raster" in capsys.readouterr().err
    assert main(["energy", "voyager", *base[2:], "--unit", "array"]) == 2
    assert "--unit is not of voyager" in capsys.readouterr().err
    assert main(["energy", "gscore", *base[2:], "--unit", "array"]) == 2
    assert "must be one of bsu, ccu, lists, qsu, vru, not 'array'" in " ".join(
        capsys.readouterr().err.split())


@pytest.mark.rtl
@pytest.mark.matrix
def test_energy(capsys, scene_file, tmp_path):
    """The library that anybody can install, from the scene to a table that simulate takes."""
    if not Path("/usr/share/qflow/tech/osu018/osu018_stdcells.lib").exists():
        pytest.skip("needs Debian's qflow-tech-osu018")
    table = tmp_path / "osu018.toml"
    record = figures(capsys, "energy", "raster", "--scene", scene_file, "--size", "48x32",
                     "--preset", "16-lane", "-o", table)
    assert (record["library"], record["node_nm"]) == ("osu018", 180)
    assert set(record["blocks"]) == {"alpha", "blend", "array", "fetch", "resolve", "registers"}
    assert record["blocks"]["blend"]["instances"] == 16
    assert 0.001 < record["activity"]["array"] < 0.3
    assert min(record["cycles_compared"].values()) > record["cycles"]
    evaluation = sum(record["blocks"]["alpha"]["actions_fj"]["evaluation"].values())
    assert 1e3 < evaluation < 1e6
    assert "[measured.osu018.alpha.evaluation]" in table.read_text()


@pytest.mark.rtl
@pytest.mark.matrix
def test_energy_of_a_unit_of_gscore(capsys, scene_file, tmp_path):
    """2000 cycles of the unit that keeps lists, of a frame of the whole RTL."""
    if not Path("/usr/share/qflow/tech/osu018/osu018_stdcells.lib").exists():
        pytest.skip("needs Debian's qflow-tech-osu018")
    table = tmp_path / "osu018.toml"
    record = figures(capsys, "energy", "gscore", "--scene", scene_file, "--size", "32x32",
                     "--unit", "lists", "--cycles", "2000", "-o", table)
    (block,) = record["blocks"].values()
    assert set(record["blocks"]) == {"lists"}
    assert (block["instances"], set(block["actions_fj"])) == (1, {"pair", "bucketed"})
    assert block["counts"]["pair"] > 0
    # Start, the lead, and all stretches but what does not fill the last.
    assert 6000 < record["cycles_compared"]["lists"] <= 8000
    assert 1500 < block["cycles"] == record["cycles"]
    written = tomllib.loads(table.read_text("utf-8"))["measured"]["osu018"]["lists"]
    for action, parts_fj in block["actions_fj"].items():
        assert written[action]["value"] == pytest.approx(
            sum(parts_fj.values()) / 1e3, rel=1e-3)
    # Of a frame's other units it says nothing.
    status, _, err = run(capsys, "simulate", "gscore", "--scene", scene_file, "--size", "32x32",
                         "--costs", table)
    assert (status, "measured.osu018.alpha.flip_flops" in err) == (2, True)


@pytest.mark.parametrize("design", ["raster", "gscore"])
def test_a_table_without_the_core_s_blocks(capsys, scene_file, tmp_path, design):
    """What a table of one unit does not say is named, not looked for in operators.

    Of these nothing is known at its node, and an error would speak of that.
    """
    table = tmp_path / "unit.toml"
    written = (Path(cli.__file__).parents[1] / "sim/energy_gscore_sg13g2.toml").read_text("utf-8")
    table.write_text("\n".join(
        entry for entry in re.split(r"\n(?=\[)", written)
        if entry.startswith("[measured.sg13g2.lists.")).replace("sg13g2", "own").replace(
            "node_nm = 130", "node_nm = 180"), "utf-8")
    status, _, err = run(capsys, "simulate", design, "--scene", scene_file, "--size", "32x32",
                         "--costs", table)
    assert (status, "measured.own.alpha.flip_flops" in err) == (2, True)


SYNTH_KEYS = {"cells", "area_um2", "path_ns", "luts", "dsps", "fmax_mhz"}


def test_synth(capsys, tmp_path):
    path = tmp_path / "tiny.lib"
    path.write_text(tiny_library())
    base = ["synth", "raster", "--preset", "16-lane", "--unit", "registers", "--liberty", path,
            "--library-node-nm", "45"]
    record = figures(capsys, *base)
    assert {"design", "library", "node_nm", "units"} <= set(record)
    assert (record["design"], record["library"], record["node_nm"]) == ("raster", "tiny", 45)
    assert set(record["units"]["registers"]) >= SYNTH_KEYS
    assert record["units"]["registers"]["cells"] > 1000
    assert record["units"]["registers"]["luts"] is None
    before = tmp_path / "before.json"
    record["units"]["registers"]["cells"] += 1
    before.write_text(json.dumps(record))
    status, out, _ = run(capsys, *base, "--against", before)
    assert status == 0
    assert "pre-layout" in out
    assert re.search(r"registers cells +[\d,]+ -> ", out)
    assert "1 figures differ" in out


def test_synth_refusals(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("PDK_ROOT", str(tmp_path))
    base = ["synth", "raster", "--unit", "registers"]
    assert "pip install ciel" in refusal(capsys, *base, "--library", "sky130hd")
    assert "FPGA must be ecp5" in refusal(capsys, *base, "--fpga", "ice40")
    assert "Design must be one of raster, gscore" in refusal(capsys, "synth", "rester")
    assert "none.lib: Liberty file is missing" in refusal(capsys, *base, "--liberty", "none.lib")
    monkeypatch.setattr("splatforge.synth.library.DEFAULT", "sky130hd")
    assert "No cell library: pass --liberty FILE, or install one" in refusal(capsys, *base)


def test_simulate_refusals(capsys, scene_file):
    base = ["simulate", "raster", "--scene", scene_file]
    assert "Memory must be one of fixed, lpddr3-1600" in refusal(capsys, *base, "--memory", "ddr2")
    assert "a trace needs --memory with banks" in refusal(
        capsys, *base, "--memory-trace", "x.ramulator")
    assert "extension must be .ramulator or .dramsim3" in refusal(
        capsys, *base, "--memory", "lpddr3-1600", "--memory-trace", "x.trace")
    assert "Memory rate" in refusal(capsys, *base, "--memory-rate", "often")
    assert "Design must be" in refusal(capsys, "simulate", "rester", "--scene", scene_file)
    assert "d.toml" in refusal(capsys, *base, "--config", "d.toml")


@pytest.mark.rtl
def test_cosim(capsys, tmp_path, scene_file):
    picture = tmp_path / "rtl.png"
    base = ["cosim", "raster", "--scene", scene_file, "--size", "40x24"]
    record = figures(capsys, *base, "-o", picture)
    assert set(record) >= COSIM_KEYS
    assert record["pixels_differing"] == 0
    assert record["pixels"] == 960
    assert record["psnr_db_vs_float"] > 45
    assert record["cycle_error"] <= 0.01
    assert record["memory"]["latency_cycles"] == 100
    with Image.open(picture) as image:
        assert np.asarray(image).std() > 5
    status, out, _ = run(capsys, *base, "--stall", 0.2, "--frames", 2)
    assert status == 0
    assert re.search(r"pixels differing +0 of 1,920", out)
    assert "not in the cycle model" in out


@pytest.mark.rtl
def test_cosim_that_differs_fails(capsys, monkeypatch, scene_file):
    """One wrong pixel: the figures are still shown, then one line says which."""
    from splatforge.algos.raster import RasterFrame

    pixels = RasterFrame.pixels

    def wrong(self, pixel_format):
        values = pixels(self, pixel_format).copy()
        values[3, 5, 1] ^= 1
        return values

    monkeypatch.setattr(RasterFrame, "pixels", wrong)
    status, out, err = run(capsys, "cosim", "raster", "--scene", scene_file, "--size", "40x24")
    assert status == 2
    assert re.search(r"pixels differing +1 of 960", out)
    assert re.fullmatch(r"splatforge: Frame 0: 1 of 960 .* pixel \(5, 3\) .*\n", err)


def test_cosim_refusals(capsys, tmp_path, scene_file):
    base = ["cosim", "raster", "--scene", scene_file]
    assert "Stall must be" in refusal(capsys, *base, "--stall", 1)
    assert "FIRST:LAST" in refusal(capsys, *base, "--waves-cycles", "all")
    assert "Waves must end" in refusal(
        capsys, *base, "--waves", tmp_path / "a.vcd", "--waves-cycles", "5:5")
    assert "extension" in refusal(capsys, *base, "-o", tmp_path / "a.npy")


@pytest.mark.parametrize(("verb", "option", "name"), [
    ("cosim raster", "--waves", "a.vcd"), ("cosim raster", "-o", "a.png"),
    ("cosim raster", "--json", "a.json"), ("simulate raster", "--json", "a.json"),
    ("simulate raster --memory lpddr3-1600", "--memory-trace", "a.ramulator"),
    ("report", "-o", "a.html"), ("report", "--json", "a.json"), ("energy raster", "-o", "a.toml"),
    ("render", "-o", "a.png"), ("render", "--statistics", "a.json"), ("render", "--json", "a.json"),
])
def test_outputs_are_refused_before_the_work(
        capsys, tmp_path, monkeypatch, scene_file, verb, option, name):
    """A file where a folder must be, a folder or a pipe where the file must be."""
    def too_late(*_):
        raise AssertionError("the scene is loaded already")

    monkeypatch.setattr(cli, "_scene", too_late)
    base = [*verb.split(), "--scene", scene_file, option]
    (tmp_path / "file").write_text("")
    line = refusal(capsys, *base, tmp_path / "file" / "deep" / name)
    assert f"{tmp_path / 'file' / 'deep' / name}: cannot be written (Not a directory)" in line
    path = tmp_path / name
    path.mkdir()
    assert f"{path}: cannot be written (is a folder)" in refusal(capsys, *base, path)
    path.rmdir()
    os.mkfifo(path)
    assert f"{path}: cannot be written (not a regular file)" in refusal(capsys, *base, path)
    path.unlink()
    if os.geteuid():
        (tmp_path / "locked").mkdir(mode=0o500)
        assert "cannot be written (Permission denied)" in refusal(
            capsys, *base, tmp_path / "locked" / name)
    if verb != "energy raster":  # which looks for a cell library before it loads the scene
        with pytest.raises(AssertionError, match="loaded already"):
            main([*map(str, base), str(tmp_path / "new" / name)])
    assert {each.name for each in tmp_path.iterdir()} <= {"file", "locked"}


@pytest.mark.parametrize("name", ["waves", "a.VCD", "a.vcd.gz", "a.fsdb"])
def test_waves_of_an_unknown_kind_are_refused(capsys, tmp_path, name, scene_file):
    line = refusal(capsys, "cosim", "raster", "--scene", scene_file, "--waves", tmp_path / name)
    assert f"{name}: waves must end in .fst or .vcd, not in " in line


@pytest.mark.rtl
def test_waves(capsys, tmp_path, scene_file):
    """Blanks and line ends in the name of a folder; a file that was there before is replaced."""
    folder = tmp_path / "two words\nand a line"
    base = ["cosim", "raster", "--preset", "16-lane", "--scene", scene_file, "--size", "16x16",
            "--waves", folder / "a b.vcd", "--waves-cycles"]
    figures(capsys, *base, "30:36")
    short = (folder / "a b.vcd").read_text()
    figures(capsys, *base, "30:39")
    times = re.findall(r"^#(\d+)$", (folder / "a b.vcd").read_text(), re.MULTILINE)
    assert times == [str(time) for time in range(60, 78)]
    assert len(re.findall(r"^#", short, re.MULTILINE)) == 12
    assert {path.name for path in folder.iterdir()} == {"a b.vcd", "a b.gtkw", "a b.sucl"}
    assert (folder / "a b.vcd").stat().st_mode & 0o777 == 0o666 & ~current_umask()
    status, out, _ = run(capsys, *base, "10000000:20000000")
    assert (status, "none: they were to begin in cycle 10,000,000" in out) == (0, True)


def current_umask() -> int:
    os.umask(mask := os.umask(0))
    return mask


def test_a_missing_compiler_is_one_line(capsys, tmp_path, monkeypatch, scene_file):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SPLATFORGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CXX", raising=False)
    line = refusal(capsys, "cosim", "raster", "--scene", scene_file, "--size", "40x24")
    assert "apt install g++" in line


@pytest.mark.rtl
def test_report(capsys, tmp_path, scene_file):
    page, data = tmp_path / "new" / "index.html", tmp_path / "report.json"
    status, out, err = run(capsys, "report", "--scene", scene_file, "--size", "40x24", "--frames",
                           2, "-o", page, "--json", data)
    assert (status, err) == (0, "")
    assert str(page) in out
    record = json.loads(data.read_text())
    assert record["cosim"]["pixels_differing"] == 0
    assert record["cosim"]["model_cycles"] == record["simulate"]["cycles"]
    assert sum(part["cycles"] for part in record["breakdown"]) == record["simulate"]["cycles"]
    assert sum(part["energy_j"] for part in record["energy"]) == pytest.approx(
        record["simulate"]["energy_j"])
    assert np.shape(record["tiles"]["counts"]["cycles"]) == (2, 3)
    assert {machine["name"] for machine in record["machines"]} >= {"raster, 64 lanes"}
    text = page.read_text("utf-8")
    assert "2 frames" in text
    assert f"{record['cosim']['rtl_cycles']:,}" in text


@pytest.mark.rtl
def test_report_of_an_empty_frame(capsys, tmp_path, scene_file):
    """A camera that looks away: equal pictures, no point on the roofline, still a page."""
    away = tmp_path / "away.json"
    away.write_text(json.dumps([
        {"id": 0, "img_name": "0", "width": 40, "height": 24, "fx": 30.0, "fy": 30.0,
         "position": [0.0, 0.0, -9.0], "rotation": [[-1, 0, 0], [0, 1, 0], [0, 0, -1]]}]))
    record = figures(capsys, "report", "--scene", scene_file, "--camera", away, "-o",
                     tmp_path / "index.html")
    assert record["cosim"]["psnr_db_vs_float"] is None
    assert record["cosim"]["pixels_differing"] == 0
    assert record["machines"] == []
    assert "Roofline" not in (tmp_path / "index.html").read_text("utf-8")

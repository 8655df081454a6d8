"""The command line: figures, files, one line for an error, nothing slow before the help."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from splatforge import cli, scenes
from splatforge.cli import main


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
    monkeypatch.setattr(cli, "_scene", lambda names: {}["bug"])
    with pytest.raises(KeyError):
        main(["render", "--scene", str(scene_file)])


@pytest.mark.parametrize(("error", "message"), [
    (MemoryError("12 GiB"), "not enough memory: 12 GiB"),
    (PermissionError(13, "Permission denied", "/x"), "/x: Permission denied"),
    (RuntimeError("two\nlines"), "two lines"),
    (ValueError(), "ValueError"),
])
def test_errors_of_the_machine(capsys, monkeypatch, scene_file, error, message):
    def fail(names):
        raise error

    monkeypatch.setattr(cli, "_scene", fail)
    assert refusal(capsys, "render", "--scene", scene_file) == message


def test_interruption(capsys, monkeypatch, scene_file):
    def interrupt(names):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_scene", interrupt)
    status, _, err = run(capsys, "render", "--scene", scene_file)
    assert (status, err) == (130, "splatforge: interrupted\n")


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


# What verbs share -----------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "taken"), [
    (["--scene", "a", "b", "--size", "1x1"], ["a", "b"]),
    (["--scene", "a", "--scene", "b"], ["a", "b"]),
    (["--scene=a", "--scene", "b", "c"], ["a", "b", "c"]),
    (["--scene", "raster"], ["raster"]),
])
def test_scene_takes_many_values(capsys, monkeypatch, given, taken):
    seen = []

    def note(names):
        seen.extend(names)
        raise ValueError("seen")

    monkeypatch.setattr(cli, "_scene", note)
    assert refusal(capsys, "render", *given) == "seen"
    assert seen == taken


def test_json_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "new" / "figures.json"
    cli._write_json({"psnr_db": float("inf"), "a": np.float32(1.5)}, str(path))
    assert json.loads(path.read_text()) == {"psnr_db": None, "a": 1.5}
    monkeypatch.setattr(os, "replace", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli._write_json({"a": 2}, str(path))
    assert json.loads(path.read_text())["a"] == 1.5


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
    with pytest.raises(ValueError, match=r"^Design must be one of raster, not 'rester'$"):
        cli._design("rester", None, None)
    with pytest.raises(ValueError, match=r"^Preset must be one of 16-lane, .*, not '63-lane'$"):
        cli._design("raster", "63-lane", None)


@pytest.mark.parametrize("rate", ["fast", "1/0", "0", "3/2"])
def test_memory_rates(rate):
    with pytest.raises(ValueError, match=r"Memory rate must be|Beats per cycle must be"):
        cli._memory(100, rate, "1", 32)
    with pytest.raises(ValueError, match=r"Memory rate must be|Beats per cycle must be"):
        cli._memory(100, "1/2", rate, 32)


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


def test_render_refusals(capsys, tmp_path, scene_file):
    base = ["render", "--scene", scene_file, "--size", "32x32"]
    assert "extension must be" in refusal(capsys, *base, "-o", tmp_path / "a.bmp")
    assert "extension must be" in refusal(capsys, *base, "--statistics", tmp_path / "a.txt")
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


# verilog --------------------------------------------------------------------------------------


def test_verilog_refusals(capsys, tmp_path):
    assert "Design must be one of" in refusal(capsys, "verilog", "rester", "-o", tmp_path)
    assert "Preset must be one of" in refusal(
        capsys, "verilog", "raster", "--preset", "big", "-o", tmp_path)

"""`splatforge lod`: from a scene to a tree, cuts and figures."""

import json

import pytest

from splatforge import scenes
from splatforge.cli import main


def run(capsys, *arguments) -> tuple[int, str, str]:
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def figures(capsys, *arguments) -> dict:
    status, out, err = run(capsys, *arguments, "--json", "-")
    assert status == 0, err
    return json.loads(out)


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    """A small city's tree, and its scene."""
    folder = tmp_path_factory.mktemp("city")
    assert main(["scenes", "make", "city", "--gaussians", "6000", "-o", str(folder / "a.ply")]) == 0
    assert main(["lod", "build", str(folder / "a.ply"), "-o", str(folder / "city.lod"),
                 "--chunk-gaussians", "1000", "--subtree-nodes", "64"]) == 0
    return folder


def test_build_and_info_agree(city, capsys):
    built = figures(capsys, "lod", "build", city / "a.ply", "-o", city / "two.lod", "--tiles",
                    "2x1", "--fan-out", "3")
    said = figures(capsys, "lod", "info", city / "two.lod")
    assert built["gaussians"] == said["gaussians"] == 12_000
    assert built["nodes"] == said["nodes"] > 12_000
    assert said["fan_out"] == 3
    assert said["size_bytes"] == (city / "two.lod").stat().st_size
    assert said["sh_degree"] == 3
    assert said["subtree_nodes_mean"] <= said["subtree_nodes_most"] == 512
    status, out, _ = run(capsys, "lod", "info", city / "city.lod")
    assert status == 0
    assert "6,000 of SH degree 3" in out


def test_searches_of_a_path_agree(city, capsys):
    walked = figures(capsys, "lod", "search", city / "city.lod", "--frames", 70, "--tau-px", 60)
    assert walked["identical"] is True
    assert walked["frames"] == 70
    assert 1 >= walked["unchanged"]["1"] >= walked["unchanged"]["64"] > 0.9
    driven = figures(capsys, "lod", "search", city / "city.lod", "--frames", 70, "--tau-px", 60,
                     "--trajectory", "drive")
    assert driven["unchanged"]["64"] < walked["unchanged"]["64"]
    assert driven["temporal"]["visited"] > walked["temporal"]["visited"]
    status, out, _ = run(capsys, "lod", "search", city / "city.lod", "--trajectory", "head-jitter",
                         "--frames", "5", "--window-frames", "2")
    assert status == 0
    assert "the same" in out
    assert "2 frames ahead" in out


def test_a_cut_is_a_scene(city, capsys):
    command = ("lod", "cut", city / "city.lod", "-o", city / "cut.ply", "--tau-px")
    coarse, fine = figures(capsys, *command, 40), figures(capsys, *command, 0.01)
    assert coarse["gaussians"] < fine["gaussians"] == 6000
    assert scenes.load(city / "cut.ply").gaussians == 6000


def test_errors_are_one_line(city, capsys):
    (city / "short.lod").write_bytes((city / "city.lod").read_bytes()[:-1])
    for arguments, message in (
            (("info", city / "short.lod"), "the file is cut short"),
            (("search", city / "a.ply"), "build it with `splatforge lod build`"),
            (("search", city / "city.lod", "--trajectory", "fly"), "Trajectory must be orbit"),
            (("build", city / "a.ply", "-o", city / "a.tree"), "extension must be .lod"),
            (("build", city / "gone.ply", "-o", city / "gone.lod"), "scene file is missing"),
            (("cut", city / "city.lod", "-o", city / "cut.sog"), ".ply")):
        status, out, err = run(capsys, "lod", *arguments)
        assert (status, out) == (2, ""), err
        assert err.count("\n") == 1
        assert message in err
    assert not (city / "gone.lod").exists()
    assert not [path for path in city.iterdir() if path.name.startswith(".")]

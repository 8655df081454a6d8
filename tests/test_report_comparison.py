"""The page of several designs: what it says, what it refuses, and that a browser draws it."""

import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from splatforge import report
from splatforge.cli import main
from splatforge.scenes import save
from splatforge.sim import sweep

sys.path.insert(0, str(Path(__file__).parent))
from gaussians import random_scene
from test_report import Tags, browse, framed, needs_chromium

NAMES = "raster", "gscore", "lumina"
PLOTS = {"cycles", "energy", "traffic", "area", "roofline", "front_time_s_energy_j",
         "front_time_s_area_mm2", "front_time_s_psnr_db", "front_energy_j_area_mm2"}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Page and record of three designs on a small scene, as the command writes them."""
    folder = tmp_path_factory.mktemp("compared")
    page, data = folder / "new" / "index.html", folder / "index.json"
    save(random_scene(200, 1), folder / "a.ply")
    assert main(["report", "--scene", str(folder / "a.ply"), "--size", "64x40", "--compare",
                 ",".join(NAMES), "-o", str(page), "--json", str(data)]) == 0
    return page, json.loads(data.read_text("utf-8"))


def drawn_specs(page: Path) -> dict:
    return {each["key"]: each["spec"] for each in json.loads(
        re.search(r'id="specs">(.*?)</script>', page.read_text("utf-8"))[1])}


def test_bars_are_the_figures(written):
    """What is drawn of a design adds up to what its models say."""
    page, data = written
    specs = drawn_specs(page)
    assert set(specs) == PLOTS
    for each in data["designs"]:
        simulated = each["simulate"]
        for key, whole in (
                ("cycles", simulated["cycles"]), ("energy", simulated["energy_j"]),
                ("traffic", simulated["bytes_read"] + simulated["bytes_written"])):
            values = specs[key].get("layer", [specs[key]])[0]["data"]["values"]
            total = sum(value["value"] for value in values if value["design"] == each["name"])
            assert total == pytest.approx(whole), (each["name"], key)
        boxes = sum(value["area"] for value in specs["area"]["data"]["values"]
                    if value["design"] == each["name"])
        assert boxes == pytest.approx(simulated["area_mm2"])
    assert [each["name"] for each in data["designs"]] == list(NAMES)
    assert any(data["fronts"].values())
    # A design has the same colour under its roof as in the fronts.
    roofs = specs["roofline"]["layer"][0]["encoding"]["color"]["scale"]
    fronts = specs["front_time_s_energy_j"]["encoding"]["color"]["scale"]
    assert [name.partition(",")[0] for name in roofs["domain"][:3]] == list(NAMES)
    assert fronts["domain"] == list(NAMES)
    assert roofs["range"][:3] == fronts["range"]


def test_page_loads_nothing_and_says_the_figures(written):
    page, data = written
    tags = Tags(page.read_text("utf-8"))
    for tag, attributes in tags.tags:
        for name in ("src", "href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, value)
    for each in data["designs"]:
        assert f"{each['simulate']['cycles']:,}" in tags.text
    assert "3 designs on a.ply" in tags.text


@needs_chromium
@pytest.mark.parametrize("width", [1280, 390])
def test_browser_draws_every_plot(written, tmp_path, width):
    """Nothing on the console, nothing wider than the page; the choice changes the picture."""
    page, _ = written
    wide, inside, drawn, changed = framed(
        tmp_path, width,
        'for (const each of page.querySelectorAll("details")) each.open = true;'
        'const choice = page.querySelector(".choose"); const image = '
        'page.querySelector(".compare img.over"); const before = image.src;'
        'choice.value = "lumina"; choice.dispatchEvent(new Event("change"));',
        '[...page.querySelectorAll(".chart.drawn")].filter((chart) => chart.querySelector('
        '"svg path[aria-label], canvas")).length, image.src !== before && '
        'image.alt.includes("lumina") ? 1 : 0', page=page)
    assert wide <= inside == width
    assert (drawn, changed) == (len(PLOTS), 1)


@needs_chromium
def test_browser_reports_a_broken_plot(written, tmp_path):
    path = tmp_path / "index.html"
    path.write_text(written[0].read_text("utf-8").replace(
        '"band": 0.7', '"band": {"signal": "1 +"}'), "utf-8")
    run = browse(path, tmp_path / "profile", "--dump-dom", "--window-size=1280,2000")
    assert "CONSOLE" in run.stderr


def test_comparison_of_an_empty_frame(tmp_path):
    """A camera that sees nothing: equal pictures, no point under a roof, still a page."""
    save(random_scene(200, 1), tmp_path / "a.ply")
    (tmp_path / "away.json").write_text(json.dumps([
        {"id": 0, "img_name": "0", "width": 40, "height": 24, "fx": 30.0, "fy": 30.0,
         "position": [0.0, 0.0, -9.0], "rotation": [[-1, 0, 0], [0, 1, 0], [0, 0, -1]]}]))
    page = tmp_path / "index.html"
    assert main(["report", "--scene", str(tmp_path / "a.ply"), "--camera",
                 str(tmp_path / "away.json"), "--compare", "raster,raster:16-lane",
                 "-o", str(page), "--json", str(tmp_path / "a.json")]) == 0
    data = json.loads((tmp_path / "a.json").read_text("utf-8"))
    assert [each["psnr_db"] for each in data["designs"]] == [None, None]
    specs = drawn_specs(page)
    assert "roofline" not in specs
    assert {"cycles", "energy", "traffic", "area"} <= set(specs)


def test_points_of_a_sweep_stand_in_the_fronts(tmp_path, capsys, monkeypatch):
    """Those of the same frames, and no others; whether a point is on the front counts all."""
    save(random_scene(200, 1), tmp_path / "a.ply")
    asked = tmp_path / "lanes.toml"
    asked.write_text(
        f'scenes = ["{tmp_path / "a.ply"}"]\nsizes = ["64x40", "32x32"]\n'
        '[[designs]]\nname = "raster"\n[designs.grid]\n"array.lanes" = [16, 32, 128]\n')
    folder, page = tmp_path / "lanes.sweep", tmp_path / "index.html"
    assert main(["sweep", str(asked), "-o", str(folder), "--processes", "1"]) == 0
    said = ["report", "--scene", str(tmp_path / "a.ply"), "--compare", "raster,raster:16-lane",
            "--swept", str(folder), "-o", str(page), "--size"]
    assert main([*said, "64x40", "--json", str(tmp_path / "a.json")]) == 0
    data = json.loads((tmp_path / "a.json").read_text("utf-8"))
    assert len(data["points"]) == 3
    points = drawn_specs(page)["front_time_s_area_mm2"]["data"]["values"]
    assert [point["design"] for point in points] == ["raster", "raster:16-lane"] + [
        "raster, swept"] * 3
    by_lanes = {point["parameters"]: point for point in points[2:]}
    assert len(by_lanes) == 3
    # The point of 16 lanes is the preset: both or neither are on the front.
    assert points[1]["front"] == next(
        point["front"] for name, point in by_lanes.items() if "16" in name)
    assert points[1]["x"] == pytest.approx(next(
        point["x"] for name, point in by_lanes.items() if "16" in name))
    capsys.readouterr()
    assert main([*said, "48x48"]) == 2
    assert "must hold a finished point" in capsys.readouterr().err
    monkeypatch.setattr(sweep, "program_digest", lambda: "of other models")
    assert main([*said, "64x40"]) == 2
    assert "lanes.sweep: was made by another version of this program" in capsys.readouterr().err
    assert main(["report", "--scene", "default", "--compare", "raster,gscore", "-o",
                 str(tmp_path / "page")]) == 2
    assert "page: extension must be .html or .htm, not ''" in capsys.readouterr().err
    assert main(["report", "--scene", "default", "--swept", str(folder)]) == 2
    assert "--swept must come with --compare" in capsys.readouterr().err


def test_a_front_of_a_comparison_is_over_one_part_of_a_frame(written):
    """An array alone is faster than a whole accelerator, which it does not beat."""
    _, data = written
    times = {each["name"]: each["simulate"]["time_s"] for each in data["designs"]}
    assert times["raster"] < times["gscore"]
    assert data["fronts"]["gscore"]


def test_refused_comparisons(written):
    _, data = written
    picture = np.zeros((4, 4, 3), np.float32)
    entries = [report.compared(each["name"], each["simulate"], picture, None)
               for each in data["designs"]]
    values = {"command": "", "versions": {}, "scene": {}, "scene_name": "a", "frames": 1,
              "frame": 0, "fronts": dict.fromkeys(NAMES, True)}
    with pytest.raises(ValueError, match=r"^Designs must be two or more of different names"):
        report.Comparison(**values, reference=picture, designs=entries[:1])
    with pytest.raises(ValueError, match=r"^Pictures must be of one shape"):
        report.Comparison(**values, reference=picture[:2], designs=entries)
    equal = report.Comparison(**values, reference=picture, designs=entries)
    assert "∞" in Tags(report.comparison_html(equal)).text
    assert math.isfinite(equal.difference_gain(entries[0]))


@pytest.mark.parametrize(("names", "message"), [
    ("raster", "two or more"), ("raster,raster", "each once"), ("raster,nobody", "nobody"),
    ("raster,gscore:nobody", "nobody"),
])
def test_refused_names(capsys, names, message):
    assert main(["report", "--scene", "default", "--compare", names]) == 2
    assert message in capsys.readouterr().err

"""Plots of sweeps: a curve for each parameter, on any screen; and the cells of a lane."""

import json
import re
import sys
from pathlib import Path

import pytest

from splatforge.cli import main
from splatforge.report.sweep import fronts, grid, page, together, turned

sys.path.insert(0, str(Path(__file__).parent))
from cells import tiny_library
from test_report import browse, needs_chromium

FORMATS = "array.alpha.alpha", "array.blend.color, fetch.splat.color"


def row(design, name, value, area_mm2, psnr_db, **more):
    values = {} if name else {FORMATS[0]: "UQ(0,14)", FORMATS[1]: "UQ(2,8)"}
    return {"design": design, "scene": "default", "turned": name, "value": value, "values": values,
            "front": not name, "parameters": f"{name} {value}", "area_mm2": area_mm2,
            "view": "default, 32x16", "psnr_db": psnr_db, "time_s": area_mm2 / 7} | more


ROWS = [row(design, *given) for design in ("raster", "voyager") for given in (
    ("", "", 3.0, 70.0), (FORMATS[0], "UQ(0,6)", 2.0, 40.0), (FORMATS[0], "UQ(0,10)", 2.5, 60.0),
    (FORMATS[1], "UQ(2,4)", 2.8, 50.0))]


def test_a_curve_for_each_parameter_of_each_design():
    groups = turned(ROWS, "area_mm2")
    assert [(heading, [chart["title"] for chart in charts]) for heading, charts in groups] == [
        (design, ["alpha.alpha", "blend.color"]) for design in ("raster", "voyager")]
    alpha = groups[0][1][0]
    points = json.dumps(alpha)
    for value in ("UQ(0,6)", "UQ(0,10)", "UQ(0,14)"):
        assert points.count(f'"value": "{value}"') == 1, "what is not turned is on the curve, too"
    assert "UQ(2,4)" not in points
    domains = {tuple(layer["encoding"]["y"]["scale"]["domain"])
               for _, charts in groups[:1] for chart in charts for layer in chart["layer"]}
    assert domains == {(35.5, 74.5)}, "curves of a design have one scale"
    ranks = re.findall(r'"value": "(UQ[^"]+)"[^}]*"rank": (\d)', points)
    assert ranks == [("UQ(0,6)", "0"), ("UQ(0,10)", "1"), ("UQ(0,14)", "2")], "a curve goes by bits"


def test_scenes_have_colours_where_there_are_some():
    groups = turned([*ROWS, row("raster", FORMATS[0], "UQ(0,6)", 2.0, 45.0, scene="fox.ply")],
                    "area_mm2")
    colours = [[layer["encoding"].get("color", {}).get("field") for layer in chart["layer"]]
               for chart in (groups[0][1][0], groups[1][1][0])]
    assert colours == [["scene", "scene", None, None], [None] * 4]


def test_points_without_a_figure_are_left_out():
    groups = turned([*ROWS, row("raster", FORMATS[0], "UQ(0,4)", 1.0, float("inf"))], "area_mm2")
    assert "UQ(0,4)" not in json.dumps(groups)
    with pytest.raises(ValueError, match="Figures must be two at least, not time_s"):
        fronts(ROWS, ["time_s"])


def test_one_picture_of_all():
    spec = grid(turned(ROWS, "area_mm2"))
    assert [(each["title"], len(each["concat"])) for each in spec["vconcat"]] == [
        ("raster", 2), ("voyager", 2)]
    assert len(grid(fronts(ROWS, ["time_s", "area_mm2", "psnr_db"]))["concat"]) == 3


def test_frames_of_a_kind_have_charts_of_their_own():
    rows = [*ROWS, row("raster", "", "", 1.0, 60.0, view="fox.ply, 64x48")]
    groups = fronts(rows, ["time_s", "area_mm2", "psnr_db"])
    assert [(heading, len(charts)) for heading, charts in groups] == [
        ("default, 32x16", 3), ("fox.ply, 64x48", 3)]
    assert [len(charts[0]["data"]["values"]) for _, charts in groups] == [8, 1]


def test_a_design_has_one_colour_and_one_value_its_own_tick():
    rows = [row("raster", "", "", 1.0, 68.79), row("raster", "", "", 2.0, 68.79),
            row("gscore", "", "", 1.0, 60.0, view="b"), row("gscore", "", "", 2.0, 65.0, view="b")]
    (_, (first,)), (_, (second,)) = fronts(rows, ["area_mm2", "psnr_db"])
    for chart, name in ((first, "raster"), (second, "gscore")):
        color = chart["encoding"]["color"]
        assert color["scale"]["domain"] == ["raster", "gscore"]
        assert color["legend"]["values"] == [name]
    assert first["encoding"]["y"]["scale"] == {
        "domain": pytest.approx([65.3505, 72.2295]), "nice": False}
    assert second["encoding"]["y"]["scale"] == {"zero": False, "padding": 10}


def test_marks_that_would_cover_each_other_are_one():
    """However many there are in a place, one mark says how many and which, and a front is seen."""
    def at(x, y, name, design="a", on=False):
        return {"design": design, "front": on, "parameters": name, "x": x, "y": y}

    near = [at(1.0 + 1e-4 * number, 1.0, f"lanes {number}") for number in range(9)]
    made = together([at(1.0, 1.0, "best", on=True), *near, at(1.0, 1.0, "", design="b"),
                     at(2.0, 3.0, "far")], "x", "y")
    assert [(each["design"], each["count"]) for each in made] == [
        ("a", 9), ("b", 1), ("a", 1), ("a", 1)]
    assert made[0]["parameters"] == "lanes 0 | lanes 1 | lanes 2 | lanes 3 | 5 more"
    assert (made[-1]["parameters"], made[-1]["front"]) == ("best", True)
    assert sum(each["count"] for each in made) == 12
    assert together([], "x", "y") == []


def test_what_pointing_says_has_the_units_of_the_axis():
    """A field is called time_s; what is drawn of it is in ms."""
    (_, charts), = fronts(ROWS, ["time_s", "area_mm2"])
    said = {each["field"]: each.get("title") for each in charts[0]["encoding"]["tooltip"]}
    assert said["time_s"] == "time of the frames, ms"
    assert said["area_mm2"] == "area, mm²"


@needs_chromium
def test_every_chart_is_drawn_and_none_is_wider_than_a_phone(tmp_path):
    groups = turned(ROWS, "area_mm2") + fronts(ROWS, ["time_s", "area_mm2", "psnr_db"])
    (tmp_path / "plot.html").write_text(page(groups, "A <sweep>", "Eight points."), "utf-8")
    frame = tmp_path / "frame.html"
    frame.write_text(
        '<!doctype html><body><iframe src="plot.html" width="390" height="3000"></iframe><script>'
        'addEventListener("load", () => setTimeout(() => { const page = '
        'document.querySelector("iframe").contentDocument, all = page.documentElement;'
        'const wide = [...page.querySelectorAll("svg")].filter((e) => e.clientWidth > 366).length;'
        'document.title = [all.scrollWidth, page.querySelectorAll(".chart.drawn").length, '
        'page.querySelectorAll("svg").length, wide].join(" ");}, 4000));</script>', "utf-8")
    run = browse(frame, tmp_path / "profile", "--dump-dom", "--allow-file-access-from-files")
    assert "CONSOLE" not in run.stderr
    found = re.search(r"<title>([\d ]+)</title>", run.stdout)
    assert found, run.stdout[-500:]
    assert found[1] == "390 7 7 0"


def test_the_cells_of_a_lane_are_a_column(tmp_path, monkeypatch):
    from splatforge.synth import lane, library
    from splatforge.synth.netlist import gate_level

    path = tmp_path / "tiny.lib"
    path.write_text(tiny_library())
    tiny = library.read_library([path], node_nm=45)
    monkeypatch.setenv("SPLATFORGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(lane, "_library", lambda name: tiny)
    file = tmp_path / "formats.toml"
    file.write_text("""
sizes = ["16x16"]
[[designs]]
name = "raster"
set = {"array.lanes" = 256}
each = {"array.lanes" = [128], "array.blend.accumulator" = ["UQ(3,14)"]}
""")
    record, plot = tmp_path / "formats.json", tmp_path / "formats.html"
    assert main(["sweep", str(file), "--processes", "1", "--library", "tiny",
                 "--pareto", "lane,psnr", "--json", str(record), "--plot", str(plot)]) == 0
    usual, half, narrow = json.loads(record.read_text())["rows"]
    # Half the lanes, twice the pixels in each.
    assert narrow["lane_um2"] < usual["lane_um2"] < half["lane_um2"]
    from splatforge.designs.array import ArrayDesign
    from splatforge.designs.raster import RasterDesign

    design = RasterDesign(array=ArrayDesign(lanes=256))
    parts = [gate_level(part, design, tiny, flatten=True, banks=False)
             for part in ("alpha_lane", "blend_lane")]
    assert all(part.cached for part in parts)
    assert not any(part.macros for part in parts)
    assert usual["lane_um2"] == sum(part.area_um2 for part in parts)
    drawn = plot.read_text()
    assert "cells of a lane" in drawn
    # What was not turned is on the curve by its value.
    assert '"value": "UQ(3,18)"' in drawn
    assert '"value": "256"' in drawn

"""The page: what it says, that it needs nothing, and that a browser draws all of it."""

import dataclasses
import html.parser
import itertools
import json
import math
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from splatforge import report
from splatforge.report import pictures, plots
from splatforge.report.records import plain

#: Everything that is drawn of :func:`record`.
PLOTS = {"stages", "timeline", "breakdown", "roofline", "energy", "unit_energy", "unit_area",
         "tiles_pairs", "tiles_evaluations"}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="needs chromium to draw the page: apt install chromium")


def entry(name: str, status: str, **changes) -> dict[str, object]:
    """One claim as `splatforge claims --json` has it."""
    return {
        "id": f"some.{name}", "paper": "some", "title": "Some <paper>", "quantity": name,
        "unit": "x", "relation": "equal", "published": 3.25, "ours": 3.0, "ours_band": [2.5, 4.0],
        "status": status, "reason": "why", "repeats": None, "setting_note": "", "source": "key",
        "read_in": "page 7"} | changes


def claimed() -> tuple[report.SystemClaims, ...]:
    """Two systems: one of two claims, one of forty."""
    long = "a quantity whose name is long, on a device of which nobody knows the name either"
    return report.by_system([
        entry("speed", "predicted"),
        entry("share", "no model yet", published=[10, 12345], unit="%", ours=None, ours_band=None,
              relation="at most", reason="", repeats="some.speed"),
        *(entry(f"{long}, {number}", "not reproduced", paper="other", ours_band=[3.0, 3.0],
                setting_note="another") for number in range(40)),
        entry("elsewhere", "predicted", paper="gscore"),
    ], {"some": "a system", "other": "another system", "empty": "one without claims"})


def record(**changes) -> report.Report:
    rng = np.random.default_rng(1)
    reference = rng.random((48, 80, 3), np.float32)
    rendered = np.clip(reference + rng.normal(0, 0.001, reference.shape), 0, 1).astype(np.float32)
    values = {
        "command": "splatforge report --scene 'a<b>.ply'",
        "versions": {"splatforge": "0.1.0"},
        "scene": {"gaussians": 1234567, "sh_degree": 3, "bbox_min": [-1.0, 0.0, 2.5]},
        "cosim": {
            "design": "raster", "scene": "a<b>.ply", "frames": 1, "pixels": 3840,
            "pixels_differing": 0, "psnr_db_vs_float": 51.234, "rtl_cycles": 10_000,
            "memory": {"latency_cycles": 100, "read_beats_per_cycle": 1.0},
            "model_cycles": 9_990, "cycle_error": 0.001, "rtl_bytes_read": 40_000,
            "rtl_bytes_written": 15_360, "model_bytes_read": 40_000, "model_bytes_written": 15_360,
        },
        "simulate": {
            "cycles": 9_990, "clock_hz": 2e8, "time_s": 4.995e-5, "fps": 20_020.0,
            "energy_j": 3e-6, "energy_band_j": [2e-6, 5e-6], "area_mm2": 1.25,
            "area_band_mm2": [0.81, 2.04],
            "units": {
                "array": {"energy_j": 2.5e-6, "energy_band_j": [2e-6, 4e-6], "area_mm2": 0.75,
                          "area_band_mm2": [0.5, 1.25]},
                "memory": {"energy_j": 5e-7, "energy_band_j": [4e-7, 6e-7], "area_mm2": None,
                           "area_band_mm2": None}},
            "bytes": {"list": 30_000, "feature_written": 10_000, "empty": 0},
        },
        "design": {"array": {"lanes": 64}},
        "rendered": rendered,
        "reference": reference,
        "stages": [report.Stage(name="array", busy_cycles=7_000, stall_cycles=1_000),
                   report.Stage(name="fetch", busy_cycles=4_000, stall_cycles=0)],
        "breakdown": [report.Share(name="evaluating", cycles=7_000),
                      report.Share(name="start and drain", cycles=2_990)],
        "energy": [report.EnergyPart(name="DRAM", energy_j=2e-6, low_j=1.5e-6, high_j=3e-6,
                                     source="8 pJ/bit"),
                   report.EnergyPart(name="array", energy_j=1e-6, low_j=0.5e-6, high_j=2e-6)],
        "machines": [report.Machine(name="raster", peak_evaluations_per_s=1.28e10,
                                    peak_bytes_per_s=3.2e9, evaluations_per_byte=8.0,
                                    evaluations_per_s=9e9),
                     report.Machine(name="GPU", peak_evaluations_per_s=6e10,
                                    peak_bytes_per_s=1e11, evaluations_per_byte=3.0,
                                    evaluations_per_s=2e10)],
        "baselines": [report.Baseline(name="GPU", time_s=1e-3, energy_j=1e-2, speedup=20.0,
                                      energy_saving=3333.0, source="roofline")],
        "tiles": report.TileGrid(tile_px=16, counts={
            "pairs": np.arange(15).reshape(3, 5), "evaluations": np.ones((3, 5), np.int64)}),
        "tracks": [
            report.UnitTrack(unit="array", edges=[0, 4_000, 9_000, 9_990], states={
                "busy": [2_000.0, 4_000.0, 980.0], "starved": [1_000.0, 0.0, 0.0]}),
            report.UnitTrack(unit="fetch", edges=[0, 5_000, 9_990], states={
                "busy": [4_000.0, 0.0], "stalled": [0.0, 1_000.0]})],
        "unit_energies": [
            report.UnitEnergy(unit="array", kind="arithmetic", energy_j=2e-6),
            report.UnitEnergy(unit="array", kind="registers", energy_j=5e-7),
            report.UnitEnergy(unit="memory", kind="DRAM", energy_j=5e-7)],
        "unit_areas": [
            report.UnitArea(unit="array", area_mm2=0.75, low_mm2=0.5, high_mm2=1.25),
            report.UnitArea(unit="fetch", area_mm2=0.25, low_mm2=0.2, high_mm2=0.5)],
        "sources": {"DRAM": "8 pJ/bit"},
        "notes": ["The clock is assumed."],
        "systems": claimed(),
    }
    return report.Report(**(values | changes))


class Tags(html.parser.HTMLParser):
    """Elements of a page with their attributes, and its text outside scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.inside = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = tag

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside not in ("script", "style"):
            self.text += data


@pytest.fixture(scope="module")
def page() -> str:
    return report.html(record())


def test_page_says_the_figures(page):
    text = Tags(page).text
    for figure in ("51.2 dB", "10,000", "9,990", "0.100%", "55.4 kB", "50 µs", "200 MHz", "3 µJ",
                   "2 µJ to 5 µJ", "1.2 mm²", "0.81 to 2 mm² from", "of 3,840",
                   "1,234,567", "array.lanes", "20 \u00d7",
                   "The clock is assumed.", "8 pJ/bit", "splatforge report --scene 'a<b>.ply'"):
        assert figure in text, figure


def test_timeline_stacks_what_the_units_did(page):
    """Heights are shares of a window's cycles, from one band to the next."""
    spec = next(each["spec"] for each in json.loads(
        re.search(r'id="specs">(.*?)</script>', page)[1]) if each["key"] == "timeline")
    for track in record().tracks:
        values = [value for value in spec["layer"][1]["data"]["values"]
                  if value["unit"] == track.unit]
        cycles = sum((value["high"] - value["low"]) / 0.84 * (value["to"] - value["from"])
                     for value in values)
        assert cycles == pytest.approx(sum(map(sum, track.states.values())), rel=1e-3)
        assert {value["state"] for value in values} <= set(track.states)
    text = "".join(Tags(page).text.split())
    assert "array69.9%--10.0%20.1%3" in text


@pytest.mark.parametrize(("edges", "states"), [
    ([0], {}), ([0, 0], {}), ([3, 2], {}), ([0, 5], {"busy": []}),
])
def test_refused_tracks(edges, states):
    with pytest.raises(ValueError, match=r"^Track .* of array$"):
        report.UnitTrack(unit="array", edges=edges, states=states)


def test_every_count_of_the_tiles_has_a_map(page):
    """The numbers of the drawing are those of the tiles, and the table has their sums."""
    specs = {each["key"]: each["spec"] for each in json.loads(
        re.search(r'id="specs">(.*?)</script>', page)[1])}
    grid = record().tiles
    for name, counts in grid.counts.items():
        drawn = np.zeros_like(counts)
        for value in specs[f"tiles_{name}"]["data"]["values"]:
            drawn[value["row"], value["column"]] = value["count"]
        assert np.array_equal(drawn, counts), name
    assert "151057.0141" in "".join(Tags(page).text.split())


def test_energy_and_area_by_unit(page):
    text = "".join(Tags(page).text.split())
    for row in ("array 2 µJ 500 nJ - 2.5 µJ memory - - 500 nJ 500 nJ",
                "fetch 0.25 mm² 0.2 to 0.5 mm² 25.0%"):
        assert row.replace(" ", "") in text, row


def test_units_and_streams_are_listed(page):
    """What is not known is a dash; what is nothing is left out."""
    text = "".join(Tags(page).text.split())
    for row in ("array 2.5 µJ 2 µJ to 4 µJ 0.75 mm² 0.5 to 1.2 mm²",
                "memory 500 nJ 400 nJ to 600 nJ - -",
                "list 30,000 75.0%", "feature written 10,000 25.0%"):
        assert row.replace(" ", "") in text, row
    assert "empty" not in text
    bare = Tags(report.html(record(simulate={"cycles": 1}))).text
    assert "By unit" not in bare
    assert "by stream" not in bare


def test_claims_of_systems_are_listed(page):
    text = "".join(Tags(page).text.split())
    for said in ("system predicted not reproduced no model yet all some 1 - 1 2 other - 40 - 40",
                 "some: a system Some <paper>. 2 of 2 claims shown",
                 "speed 3.25 x 3 x 2.5 to 4 x predicted why page 7",
                 "share ≤ 10 to 12,345 % - - no model yet repeats some.speed page 7",
                 "name either, 39 another 3.25 x 3 x - not reproduced why page 7"):
        assert "".join(said.split()) in text, said
    assert "elsewhere" not in text
    assert "one without claims" not in Tags(page).text
    rows = [attributes["data-status"] for tag, attributes in Tags(page).tags
            if tag == "tr" and "data-status" in attributes]
    assert rows == ["predicted", "no model yet", *["not reproduced"] * 40]
    assert "Published figures" not in Tags(report.html(record(systems=()))).text


@pytest.mark.parametrize(("scene", "title"), [
    ("default", "raster on default"), ("/a/b/fox.ply", "raster on fox.ply"),
    ("a/1.sog a/2.sog a/3.sog", "raster on 1.sog and 2 more"),
])
def test_title_is_short(scene, title):
    cosim = record().cosim | {"scene": scene}
    assert f"<h1>{title}</h1>" in report.html(record(cosim=cosim))


def test_page_loads_nothing(page):
    """No element names another address, and the policy in the page forbids what a script might."""
    for tag, attributes in Tags(page).tags:
        for name in ("src", "href", "data", "poster", "action"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, value)
    assert "default-src 'none'" in page
    assert "@import" not in page
    assert not re.search(r"url\((?!data:)", page.split("</style>")[0])


def test_scene_names_are_escaped(page):
    assert "<b>" not in page.split("<script", maxsplit=1)[0]


def test_page_is_accessible(page):
    tags = Tags(page).tags
    assert all(attributes.get("alt") for tag, attributes in tags if tag == "img")
    charts = [a for tag, a in tags if "chart" in (a.get("class") or "").split()]
    assert len(charts) == len(PLOTS)
    assert all(attributes.get("aria-label") for attributes in charts)
    assert all(attributes.get("aria-label") for tag, attributes in tags if tag == "input")
    assert ("html", {"lang": "en"}) in tags
    levels = [int(tag[1]) for tag, _ in tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_colors_stand_out(page):
    """WCAG 2.1: 4.5 to 1 for text, 3 to 1 for graphics, on white."""
    css = dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", page))
    for name in ("ink", "soft", "blue", "green", "red"):
        assert 1.05 / (luminance(css[name]) + 0.05) >= 4.5, name
    for color in plots.COLORS:
        assert 1.05 / (luminance(color) + 0.05) >= 3, color


def test_a_difference_is_shown_as_bad():
    cosim = record().cosim | {"pixels_differing": 7, "model_bytes_read": 1}
    page = report.html(record(cosim=cosim))
    assert page.count('class="card bad"') == 2
    assert "something else" in Tags(page).text
    assert 'class="card bad"' not in report.html(record())


def test_fetches_behind_an_early_stop_may_differ():
    behind = {"overfetch_bytes": {"rtl": 320, "model": 160}}
    cosim = record().cosim | {"model_bytes_read": 39_840, "counters": behind}
    page = report.html(record(cosim=cosim))
    assert "160 B other, all behind early stops" in Tags(page).text
    assert 'class="card bad"' not in page
    cosim["model_bytes_read"] = 39_841
    assert 'class="card bad"' in report.html(record(cosim=cosim))


@pytest.mark.parametrize(("design", "other"), [
    ("raster", "the float reference"), ("streaminggs", "the design's algorithm in float")])
def test_page_says_which_float_it_compares_with(design, other):
    page = Tags(report.html(record(cosim=record().cosim | {"design": design})))
    assert f"RTL against {other}, worst frame" in page.text
    assert f"right of it {other}." in page.text
    assert f"RTL | {other}" in page.text
    assert f"The frame rendered by {other}." in [a.get("alt") for _, a in page.tags]


def test_a_cache_and_a_gpu_beside():
    """Of a design that caches what it finds, of one that leaves a part to a GPU whole frames."""
    def system(time_s):
        return {"time_s": time_s, "waited_s": 0.0, "refresh_s": 0.25 * time_s,
                "draw_s": 0.75 * time_s, "energy_j": 2 * time_s, "speedup": 0.04 / time_s,
                "energy_saving": 0.6 / (2 * time_s)}

    cosim = record().cosim | {
        "design": "lumina", "psnr_db_vs_float_same_hits": 58.26, "cache_bytes_differing": 0,
        "counters": {"lookups": {"rtl": 4000, "model": 4000}, "hits": {"rtl": 1234, "model": 1}}}
    simulate = record().simulate | {"systems": {"agx_xavier": {
        "frames": 10, "first_frame": 6, "gpu": {"time_s": 0.04, "energy_j": 0.6},
        "accelerated": system(0.01), "gpu_alone": system(0.02)}}}
    page = report.html(record(cosim=cosim, simulate=simulate))
    text = "".join(Tags(page).text.split())
    for said in ("worst frame; 58.3 dB with the same hits of the cache",
                 "cache hits 30.9% 1,234 of 4,000 look-ups; of the saved cache 0 bytes differ",
                 "agx_xavier, reference 10 ms - - - 150 mJ 1 \u00d7 1 \u00d7",
                 "agx_xavier with the accelerator 2.5 ms 0 s 625 µs 1.88 ms 5 mJ 4 \u00d7 30",
                 "agx_xavier alone 5 ms 0 s - 3.75 ms 10 mJ 2 \u00d7 15"):
        assert said.replace(" ", "") in text, said
    assert 'class="card bad"' not in page
    assert 'class="card bad"' in report.html(record(cosim=cosim | {"cache_bytes_differing": 2}))
    plain_page = Tags(report.html(record())).text
    assert "cache hits" not in plain_page
    assert "a GPU's part" not in plain_page


def test_equal_pictures_and_empty_sections():
    reference = record().reference
    cosim = record().cosim | {"psnr_db_vs_float": math.inf, "frames": 2}
    bare = record(
        rendered=reference, cosim=cosim, simulate={}, stages=(), breakdown=(), energy=(),
        machines=(), baselines=(), tiles=None, tracks=(),
        unit_energies=(), unit_areas=(), sources={}, notes=(), systems=(), frame=1)
    page = Tags(report.html(bare))
    assert "∞ dB" in page.text
    assert "frame 1" in page.text
    assert not [a for _, a in page.tags if "chart" in (a.get("class") or "").split()]
    assert bare.difference_gain == 256


def test_json_holds_what_the_page_shows():
    data = record().to_json()
    text = json.dumps(data, allow_nan=False)
    assert json.loads(text) == data
    assert data["cosim"]["rtl_cycles"] == 10_000
    assert data["stages"][0] == {"name": "array", "busy_cycles": 7_000, "stall_cycles": 1_000}
    assert data["tiles"]["counts"]["pairs"][2] == [10, 11, 12, 13, 14]
    assert data["difference"]["gain"] == record().difference_gain
    assert data["energy"][0]["source"] == "8 pJ/bit"
    shown = {field.name for field in dataclasses.fields(report.Report)} - {"rendered", "reference"}
    assert shown <= set(data)


def test_plain_data():
    value = {"a": np.float32(0.5), 2: (math.nan, math.inf), "n": None, "p": report.Share, "b": True}
    assert plain(value) == {"a": 0.5, "2": [None, None], "n": None, "p": str(report.Share),
                            "b": True}


def test_difference_gain_never_clips():
    reference = np.full((2, 2, 3), 0.25, np.float32)
    for step, gain in ((0.3, 2), (0.75, 1), (0.001, 256), (0.01, 64)):
        rendered = reference.copy()
        rendered[0, 0, 0] += step
        assert record(rendered=rendered, reference=reference).difference_gain == gain


@pytest.mark.parametrize(("make", "message"), [
    (lambda: record(rendered=np.zeros((4, 4, 3))), r"^Pictures must be two of one shape"),
    (lambda: record(rendered=np.zeros((4, 4)), reference=np.zeros((4, 4))), r"^Pictures must be"),
    (lambda: report.Stage(name="a", busy_cycles=-1, stall_cycles=0), "^Stage cycles must not"),
    (lambda: report.Stage(name="a", busy_cycles=0, stall_cycles=-1), "^Stage cycles must not"),
    (lambda: report.EnergyPart(name="a", energy_j=3, low_j=1, high_j=2), "^Energy must lie in"),
    (lambda: report.EnergyPart(name="a", energy_j=1, low_j=-1, high_j=2), "^Energy must lie in"),
    (lambda: report.Machine(name="a", peak_evaluations_per_s=1, peak_bytes_per_s=0,
                            evaluations_per_byte=1, evaluations_per_s=1),
     r"^Machine peak_bytes_per_s must be positive and finite, not 0$"),
    (lambda: report.TileGrid(tile_px=16, counts={}), "^Tile counts must share one shape"),
    (lambda: report.TileGrid(tile_px=16, counts={"a": np.zeros((1, 2)), "b": np.zeros((2, 1))}),
     "^Tile counts must share one shape"),
])
def test_refused_records(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(("value", "text"), [
    (0, "0 J"), (1.5e-6, "1.5 µJ"), (999.6, "1 kJ"), (999.4, "999 J"), (-2e3, "-2 kJ"),
    (1e-18, "0.001 fJ"), (math.inf, "∞"), (math.nan, "unknown"), (1, "1 J"), (1000, "1 kJ"),
])
def test_si_prefixes(value, text):
    assert plots.si(value, "J") == text


@pytest.mark.parametrize(("value", "text"), [(1371.2, "1,371"), (13.84, "13.8"), (0.25, "0.25")])
def test_ratios(value, text):
    assert plots.ratio(value) == text


def test_pictures_survive_png(tmp_path):
    pixels = np.random.default_rng(2).integers(0, 256, (5, 7, 3), np.uint8)
    path = tmp_path / "a.png"
    path.write_bytes(pictures.png(pixels))
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image), pixels)
    assert pictures.to_bytes([[[-1, 0.5, 2]]]).tolist() == [[[0, 128, 255]]]


def test_heat_map_spans_its_colors():
    colors = pictures.heat_map([[0, 5], [10, 10]], 2)
    assert colors.shape == (4, 4, 3)
    assert tuple(colors[0, 0]) == pictures.HEAT[0]
    assert tuple(colors[0, 2]) == pictures.HEAT[4]
    assert tuple(colors[3, 3]) == pictures.HEAT[-1]
    assert (pictures.heat_map(np.zeros((1, 1))) == pictures.HEAT[0]).all()


def test_write_is_all_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / "new" / "index.html"
    assert report.write(record(), path) == path
    before = path.read_text("utf-8")
    monkeypatch.setattr("splatforge.report.page.html", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        report.write(record(), path)
    assert path.read_text("utf-8") == before
    assert list(path.parent.iterdir()) == [path]


def browse(page, profile, *options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
         "--no-first-run", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--hide-scrollbars", f"--user-data-dir={profile}",
         "--virtual-time-budget=10000", "--enable-logging=stderr", *options, page.as_uri()],
        capture_output=True, text=True, timeout=120, check=False,
    )


def test_marks_of_a_roofline_in_one_place_are_rings():
    """Two GPUs that reach the same on the same frame are both to be seen."""
    machines = [report.Machine(
        name=name, peak_evaluations_per_s=1e11, peak_bytes_per_s=1e10, evaluations_per_byte=3.0,
        evaluations_per_s=rate) for name, rate in (("one", 1e10), ("two", 1.01e10), ("far", 2e10))]
    spec = plots.roofline(machines).spec
    assert {point["machine"]: point["size"] for point in spec["layer"][1]["data"]["values"]} == {
        "one": 220, "two": 110, "far": 110}
    assert spec["layer"][1]["encoding"]["size"]["field"] == "size"


@needs_chromium
@pytest.mark.parametrize("width", [1280, 500])
def test_browser_draws_every_plot(tmp_path, width):
    path = report.write(record(), tmp_path / "index.html")
    run = browse(path, tmp_path / "profile", "--dump-dom", f"--window-size={width},2000")
    assert run.returncode == 0, run.stderr[-2000:]
    console = [line for line in run.stderr.splitlines() if "CONSOLE" in line]
    assert not console
    found = re.findall(r'<div class="chart([^"]*)" id="chart-(\w+)"', run.stdout)
    assert {key for _, key in found} == PLOTS
    assert all("drawn" in classes.split() for classes, _ in found)
    body = run.stdout.split("<body>")[1]
    for _, key in found:
        chart = body.split(f'id="chart-{key}"')[1].split("</figure>")[0]
        marks = len(re.findall(r'<path aria-label="', chart)) + chart.count("<canvas")
        assert marks >= 2, f"{key} has {marks} marks"
    timeline = body.split('id="chart-timeline"')[1].split("</figure>")[0]
    assert all(f">{state}</text>" in timeline for state in ("busy", "stalled", "starved", "idle"))


@needs_chromium
def test_browser_reports_a_broken_plot(tmp_path):
    """The test above can fail: a page whose plot is broken says so on the console."""
    path = tmp_path / "index.html"
    broken = report.html(record()).replace('"band": 0.72', '"band": {"signal": "1 +"}')
    path.write_text(broken, "utf-8")
    run = browse(path, tmp_path / "profile", "--dump-dom", "--window-size=1280,2000")
    assert "CONSOLE" in run.stderr
    assert "could not be drawn" in run.stdout


@needs_chromium
def test_nothing_is_wider_than_a_phone(tmp_path):
    """In a frame of 390 pixels the page does not scroll sideways, with all its claims unfolded."""
    found = framed(tmp_path, 390, "for (const each of page.querySelectorAll('details')) "
                                  "each.open = true;")
    assert found[0] <= found[1] == 390


def framed(folder, width: int, script: str, result: str = "0", page=None) -> list[int]:
    """Widths of the page, of its frame, and a result, after a script has run on `page`."""
    if page is None:
        report.write(record(), folder / "index.html")
    else:
        shutil.copy(page, folder / "index.html")
    frame = folder / "frame.html"
    frame.write_text(
        f'<!doctype html><body><iframe src="index.html" width="{width}" height="3000"></iframe>'
        '<script>addEventListener("load", () => setTimeout(() => { const page = '
        f'document.querySelector("iframe").contentDocument; {script} '
        'const all = page.documentElement;'
        f'document.title = [all.scrollWidth, all.clientWidth, {result}].join(" ");'
        '}, 3000));</script>', "utf-8")
    run = browse(frame, folder / "profile", "--dump-dom", "--allow-file-access-from-files")
    assert "CONSOLE" not in run.stderr
    found = re.search(r"<title>([\d ]+)</title>", run.stdout)
    assert found, run.stdout[-500:]
    return [int(each) for each in found[1].split()]


@needs_chromium
def test_slider_moves_the_edge_by_key_and_by_finger(tmp_path):
    """A range input: the arrow keys are the browser's, a finger may still scroll the page."""
    wide, inside, share, focused, scrolls = framed(
        tmp_path, 390,
        'const input = page.querySelector(".compare input"); input.focus(); input.stepUp(20);'
        'input.dispatchEvent(new Event("input"));',
        'parseFloat(page.querySelector(".compare").style.getPropertyValue("--share")),'
        'page.activeElement === input ? 1 : 0,'
        'getComputedStyle(input).touchAction === "pan-y" ? 1 : 0')
    assert wide <= inside == 390
    assert (share, focused, scrolls) == (60, 1, 1)


@needs_chromium
def test_claims_are_filtered_by_status(tmp_path):
    """A box that is cleared hides its claims; what is shown is counted and fits the page."""
    wide, inside, shown, text = framed(
        tmp_path, 1280,
        'const box = page.querySelector("input[value=\'not reproduced\']"); box.click();',
        '[...page.querySelectorAll(".system tbody tr")].filter((row) => row.checkVisibility())'
        '.length, page.querySelector("#claims-other .shown").textContent === "0 of 40" ? 1 : 0')
    assert wide <= inside == 1280
    assert (shown, text) == (2, 1)

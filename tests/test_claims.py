"""Claims: how they are read, what status they get, and that the committed ones still hold."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from splatforge.claims import computed, frames, ledger, parts
from splatforge.claims.claim import (
    TAGS,
    Claim,
    ClaimError,
    parse_claims,
    read_claims,
    source_names,
)
from splatforge.claims.computed import keep, kept
from splatforge.claims.ledger import Row, accept, committed, evaluate, record, worse
from splatforge.claims.status import STATUSES, band_width, status
from splatforge.cli import main
from splatforge.designs.dram import PRESETS
from splatforge.scenes import default_camera, load, resolve
from splatforge.sim.area import area
from splatforge.sim.client import count_frame
from splatforge.sim.costs import Sourced, default_costs
from splatforge.sim.dram_energy import dram_costs
from splatforge.sim.gpu import devices, gpu_frame
from splatforge.sim.systems.run import SYSTEMS

NAMES = {"papers": {"some": "Some paper"}, "sources": {"key": "somewhere"}}
GOOD = """
[some.thing]
quantity = "a thing"
value = 4.0
unit = "x"
tag = "P"
source = "key"
"""
PAPERS = Path(__file__).parents[2] / "shared" / "papers"


def parse(text: str) -> Claim:
    (claim,) = parse_claims({"file": text}, NAMES)
    return claim


def claim(value=4.0, **changes) -> Claim:
    base = parse(GOOD)
    low, high = (value, value) if not isinstance(value, tuple) else value
    middle = None if isinstance(value, tuple) else value
    return replace(base, **{"value": middle, "low": low, "high": high, **changes})


def ours(value: float, low: float | None = None, high: float | None = None,
         points: tuple[str, ...] = ()) -> Sourced:
    return Sourced(value, "1", "test", value if low is None else low,
                   value if high is None else high, frozenset(points))


# --- reading ---


def test_a_claim() -> None:
    read = parse(GOOD)
    assert (read.id, read.paper, read.file) == ("some.thing", "some", "file")
    assert (read.value, read.low, read.high) == (4, 4, 4)
    assert (read.relation, read.tolerance, read.setting) == ("equal", 0.1, "same")
    assert read.confidence == "high"
    assert read.published == "4 x"
    interval = parse(GOOD.replace("4.0", "[2, 9]") + 'relation = "at most"')
    assert (interval.value, interval.low, interval.high) == (None, 2, 9)
    assert interval.published == "<= 2 to 9 x"
    assert parse(GOOD + "low = 3.5\nhigh = 4.5").low == 3.5
    assert parse(GOOD.replace("4.0", "1570804")).published == "1,570,804 x"
    assert parse(GOOD.replace("4.0", "[0.25, 12.5]")).published == "0.25 to 12.5 x"


@pytest.mark.parametrize(("change", "message"), [
    (("quantity", "quantty"), r"file\.toml: some\.thing\.quantty is unknown: .* 'quantity'"),
    (('source = "key"\n', ""), r"some\.thing\.source is missing: every claim states it"),
    (('source = "key"', 'source = "keys"'), "source must be in sources.toml, such as 'key', not"),
    (('source = "key"', 'source = ""'), r"some\.thing\.source must be text, not ''"),
    (("[some.thing]", "[other.thing]"), "paper must be in sources.toml, such as 'some', not"),
    (('tag = "P"', 'tag = "Z"'), r"some\.thing\.tag must be P, A, .*, not 'Z'"),
    (('tag = "P"', 'tag = "R"'), "confidence is missing: what is recalled says how well"),
    (('tag = "P"', 'tag = "P"\nconfidence = "so so"'), "confidence must be high, good"),
    (('tag = "P"', 'tag = "P"\nrelation = "about"'), "relation must be equal, at most"),
    (('tag = "P"', 'tag = "P"\nsetting = "other"'), "setting must be same, substitute"),
    (('tag = "P"', 'tag = "P"\nsetting = "substitute"'), "setting_note is missing"),
    (('tag = "P"', 'tag = "P"\ntolerance = 0.2'), "tolerance_reason is missing: a tolerance"),
    (('tag = "P"', 'tag = "P"\ntolerance = -1'), "tolerance must be non-negative, not -1"),
    (('tag = "P"', 'tag = "P"\ntolerance = "a"'), "tolerance must be a finite number"),
    (('tag = "P"', 'tag = "P"\narguments = { a = 1 }'), "arguments must be a table beside a call"),
    (('tag = "P"', 'tag = "P"\nconflicts = "a"'), "conflicts must be a list of ids, not 'a'"),
    (('tag = "P"', 'tag = "P"\nconflicts = ["some.gone"]'), "must name claims, not 'some.gone'"),
    (('tag = "P"', 'tag = "P"\nrepeats = "some.gone"'), "must name a claim that repeats none"),
    (('tag = "P"', 'tag = "P"\nrepeats = "some.thing"'), "must name a claim that repeats none"),
    (("4.0", "nan"), r"value must be a finite number, not nan"),
    (("4.0", "true"), r"value must be a finite number, not True"),
    (("4.0", "[1, 2, 3]"), r"value must be a number or \[lowest, highest\]"),
    (("4.0", "[3, 2]"), r"interval must hold the value, not \[3, 2\]"),
    (("4.0", "4.0\nlow = 5"), r"interval must hold the value, not \[5, 4\]"),
    (("[some.thing]", "[some.thing"), "file.toml: not TOML"),
    (("[some.thing]", "some = 1\n[x]"), "file.toml: some must be tables of claims, not 1"),
    (("[some.thing]", "[some]\nthing = 1\n[x]"), "some.thing must be a table, not 1"),
])
def test_malformed(change, message) -> None:
    with pytest.raises(ClaimError, match=message):
        parse(GOOD.replace(*change))


def test_a_claim_stands_in_one_file() -> None:
    with pytest.raises(ClaimError, match=r"b\.toml: some\.thing must stand in one file, not in a"):
        parse_claims({"a": GOOD, "b": GOOD}, NAMES)


@pytest.mark.parametrize(("call", "arguments", "message"), [
    ("os.system", {}, "call must be a function of splatforge.claims, splatforge.sim"),
    ("splatforge.hw.alpha.Alpha", {}, "call must be a function of splatforge"),
    ("splatforge.claims.frames.nothing", {}, "call must name a function that exists, not"),
    ("splatforge.claims.gone.peak", {}, "call must name a function that exists, not"),
    ("splatforge.claims.frames.peak", {"device": "orin_nx_16gb"}, "arguments must fit .*per_lane"),
    ("splatforge.claims.frames.peak", {"device": "orin_nx_16gb", "per_lane": 1},
     "some.thing: Unit must be one of FLOP/s, not '1'"),
    ("splatforge.claims.frames.significant", {"workloads": ["gone"]},
     "some.thing: Workload must be one of fox_800x800.* not 'gone'"),
    ("splatforge.claims.frames.significant", {"workloads": []}, "must hold at least one name"),
    ("splatforge.claims.frames.frame_rate", {"device": "x", "workloads": ["fox_800x800"]},
     "GPU must be one of orin_nx_16gb.* not 'x'"),
])
def test_calls_that_fail(call, arguments, message) -> None:
    with pytest.raises(ClaimError, match=message):
        claim(call=call, arguments=arguments).compute()


def test_units_of_papers() -> None:
    share = claim(unit="%", call="splatforge.claims.frames.significant",
                  arguments={"workloads": ["fox_800x800"]}).compute()
    assert share.value == pytest.approx(100 * 3379398 / 37522691)
    terabytes = claim(unit="TFLOP/s", call="splatforge.claims.frames.peak",
                      arguments={"device": "orin_nx_16gb", "per_lane": 1}).compute()
    assert terabytes.value == pytest.approx(1.88, rel=1e-3)
    kilobytes = claim(unit="KB", call="splatforge.claims.frames.parameter_bytes",
                      arguments={"sh_degree": 3}).compute()
    assert kilobytes.value == 236 / 1024


# --- statuses ---


@pytest.mark.parametrize(("published", "got", "expected"), [
    (claim(), None, "no model yet"),
    (claim(missing="a scene"), ours(4), "not comparable"),
    (claim(missing="a scene"), None, "not comparable"),
    (claim(), ours(4, points=("some.thing",)), "not comparable"),
    (claim(identity="its parameter"), ours(4), "not comparable"),
    (claim(identity="its parameter"), ours(5), "not reproduced"),
    (claim(), ours(4.39), "predicted"),
    (claim(), ours(4.41), "not reproduced"),
    (claim(), ours(3.59), "not reproduced"),
    (claim(), ours(4, 3, 6), "predicted"),
    (claim(), ours(4, points=("other.thing",)), "predicted"),
    (claim(), ours(4, points=("some.other", "other.thing")), "one-constant"),
    (claim(), ours(4, points=("some.other", "some.third")), "consistent"),
    (claim(), ours(4, points=("something.else",)), "predicted"),
    (claim(setting="substitute"), ours(4), "consistent"),
    (claim(), ours(5, 4, 8), "consistent"),
    (claim(), ours(5, 4.01, 8), "not reproduced"),
    (claim(), ours(5, 3.9, 8), "unconstrained"),
    (claim(), ours(4, 0, 5), "unconstrained"),
    (claim((2.0, 9.0)), ours(4), "unconstrained"),
    (claim((3.0, 6.0)), ours(4), "predicted"),
    (claim((3.0, 6.0)), ours(6.7), "not reproduced"),
    (claim((3.0, 6.0)), ours(7, 5.9, 9), "consistent"),
    (claim(low=3, high=5.9), ours(5.8), "predicted"),
    (claim(relation="at most"), ours(1), "predicted"),
    (claim(relation="at most"), ours(5), "not reproduced"),
    (claim(relation="at most"), ours(5, 3.9, 6), "consistent"),
    (claim(relation="at least"), ours(50), "predicted"),
    (claim(relation="at least"), ours(3), "not reproduced"),
    (claim(-4.0), ours(0), "not reproduced"),
    (claim((-4.0, -3.0)), ours(0, 0, 0), "not reproduced"),
    (claim(-0.1, tolerance=1.5), ours(0), "predicted"),
    (claim(tolerance=0.5), ours(5.9), "predicted"),
    # A share of the whole: a tenth of what is left of it, where that is less.
    (claim(99.0, unit="%"), ours(99.09), "predicted"),
    (claim(99.0, unit="%"), ours(98.8), "not reproduced"),
    (claim(99.0, unit="%"), ours(99.2), "not reproduced"),
    (claim((40.0, 90.0), unit="%"), ours(91.1), "not reproduced"),
    (claim((10.0, 15.0), unit="%"), ours(9.1), "predicted"),
    (claim(90.0, unit="%", relation="at least"), ours(88), "not reproduced"),
    # What is gained is no share of a whole.
    (claim(150.0, unit="%"), ours(160), "predicted"),
])
def test_status(published, got, expected) -> None:
    assert status(published, got)[0] == expected


def test_nothing_is_predicted_by_what_it_was_told(rows) -> None:
    """Peaks of the data sheet, sizes that were taken over: what agrees by construction says so."""
    by_id = {row.claim.id: row for row in rows}
    for name in ("streaminggs.orin_nx_fp16", "gbu.orin_nx_fp32", "lumina.xavier_fp16",
                 "axis.parameter_bytes", "lumina.cache_size", "lumina.dram_peak",
                 "lumina.record_registers", "streaminggs.parameters", "streaminggs.codebook_sram"):
        assert by_id[name].status == "not comparable"
        assert by_id[name].reason.startswith("an identity: ")
        assert by_id[name].ratio == pytest.approx(1, rel=0.05)
    # Of GPU-side systems some numbers follow from sizes and data sheets alone.
    predicted = [row for row in rows if row.status == "predicted"]
    assert predicted
    assert {row.claim.paper for row in predicted} <= set(SYSTEMS)
    assert {row.claim.setting for row in predicted} == {"same"}
    # What was calibrated on a point of the same paper hangs on it.
    assert not any(point.split(".")[0] == row.claim.paper
                   for row in predicted for point in row.ours.points)


def test_reasons_name_the_substitute() -> None:
    assert status(claim(), ours(9))[1] == "outside our band"
    assert status(claim(setting="substitute"), ours(9))[1] == "outside our band, on a substitute"


def test_reasons_have_two_digits() -> None:
    assert status(claim(), ours(4, 1, 123))[1] == "band 120x wide"
    assert status(claim(), ours(4, 0, 5))[1] == "band infx wide"


def test_width() -> None:
    assert band_width(claim(), ours(4, 2, 6)) == 3
    assert band_width(claim((2.0, 9.0)), ours(4, 2, 6)) == 4.5
    assert band_width(claim((-4.0, -2.0)), ours(4)) == 2
    assert math.isinf(band_width(claim((-1.0, 1.0)), ours(0)))
    assert band_width(claim((2.0, 9.0), relation="at most"), ours(4)) == 1
    # What a share leaves of the whole.
    assert band_width(claim(unit="%"), ours(94, 50, 99)) == 50
    assert band_width(claim(unit="%"), ours(4, 2, 6)) == 3
    assert math.isinf(band_width(claim(unit="%"), ours(99, 98, 100)))
    assert band_width(claim(unit="%"), ours(200, 150, 300)) == 2


def row(name: str, each: str) -> Row:
    return Row(claim=replace(claim(), id=name), ours=None, status=each, reason="why")


def test_worse() -> None:
    before = {"a": "consistent", "b": "predicted", "c": "no model yet", "e": "predicted"}
    rows = [row("a", "unconstrained"), row("b", "predicted"), row("c", "not reproduced"),
            row("d", "predicted")]
    assert worse(rows, before) == [
        "a is unconstrained (why), was consistent", "d is predicted and not committed: accept it",
        "e is gone, was predicted"]
    assert worse(rows[1:3], before, whole=False) == []


def test_what_repeats_is_not_counted() -> None:
    rows = [row("a", "predicted"), row("b", "predicted"), row("c", "not reproduced")]
    rows[1] = replace(rows[1], claim=replace(rows[1].claim, repeats="a"))
    counts = record(rows)["counts"]
    assert (counts["predicted"], counts["not reproduced"]) == (1, 1)


def test_accepted_statuses_are_read_back(tmp_path) -> None:
    path = tmp_path / "committed.json"
    accept([row("b", "predicted"), row("a", "no model yet")], path)
    assert committed(path) == {"a": "no model yet", "b": "predicted"}
    assert list(committed(path)) == ["a", "b"]


@pytest.mark.parametrize(("text", "message"), [
    ("{", "not JSON"), ("[]", "must be an object of ids"), ('{"a": "fine"}', "a must be one of"),
])
def test_committed_file_is_checked(tmp_path, text, message) -> None:
    (path := tmp_path / "c.json").write_text(text)
    with pytest.raises(ClaimError, match=message):
        committed(path)


# --- the committed claims ---


@pytest.fixture(scope="module")
def rows() -> tuple[Row, ...]:
    return evaluate()


def test_no_status_is_worse_than_committed(rows) -> None:
    assert worse(rows, committed()) == []


def test_what_is_kept_is_what_is_computed(rows) -> None:
    """The page shows the one; where they part, `splatforge claims --accept` is due."""
    stale = []
    for before, now in zip(
            kept(), [each for each in rows if each.claim.paper in SYSTEMS], strict=True):
        assert before.claim == now.claim
        ends = [None if each.ours is None else
                (each.ours.value, each.ours.low, each.ours.high) for each in (before, now)]
        if before.status != now.status or ends[0] != (
                ends[1] and pytest.approx(ends[1], rel=1e-3)):
            stale.append((now.claim.id, ends))
    assert not stale


def test_computed_values_are_read_back(tmp_path) -> None:
    path = tmp_path / "computed.json"
    before = kept()
    keep([*before, row("other", "predicted")], path)
    assert path.read_text() == computed.COMPUTED.read_text()
    assert [each.ours for each in kept(path)] == [each.ours for each in before]
    values = json.loads(path.read_text())
    name, value = values.popitem()
    for text, message in (
            (json.dumps(values), rf"computed\.json: {name} has no value there: run `splatforge "),
            (json.dumps(values | {name: value | {"low": -1}}), r"must hold values of claims: "),
            (json.dumps(values | {name: value, "ellm.decode_speedup": value}),
             r"ellm\.decode_speedup has a value there"),
            ("{", "must hold values of claims: JSONDecodeError"), ("[]", "must hold values of")):
        path.write_text(text)
        with pytest.raises(ClaimError, match=message):
            kept(path)


def test_every_system_is_there() -> None:
    papers = {each.paper for each in read_claims()}
    assert {"streaminggs", "lumina", "voyager", "gscore", "ellm", "hermes", "igtcache", "astraea",
            "post", "livevlm", "parastep"} <= papers
    assert papers == set(source_names()["papers"]) - {"nvidia"}


def test_sources_are_used() -> None:
    assert set(source_names()["sources"]) == {each.source for each in read_claims()}


def test_constants_were_calibrated_on_claims(rows) -> None:
    """Every point that a constant names is a claim, so that its own status can know."""
    ids = {each.id for each in read_claims()}
    points = set[str]().union(*(each.ours.points for each in rows if each.ours is not None))
    assert "flicker.xavier_nx_fp_utilisation" in points
    assert points <= ids
    entries = default_costs().entries.values()
    assert {point for entry in entries for point in entry.cost.points} <= ids
    calibrated = next(each for each in rows if each.claim.id == "flicker.xavier_nx_fp_utilisation")
    assert calibrated.status == "not comparable"


def test_record(rows) -> None:
    made = json.loads(json.dumps(record(rows)))
    assert list(made["counts"]) == list(STATUSES)
    assert len(made["claims"]) == len(rows)
    counted = [each for each in made["claims"] if each["repeats"] is None]
    assert sum(made["counts"].values()) == len(counted) < len(rows)
    by_id = {each["id"]: each for each in made["claims"]}
    headline = by_id["astraea.headline"]
    assert by_id[headline["repeats"]]["repeats"] is None
    assert headline["status"] in STATUSES
    rate = by_id["gbu.orin_nx_fps"]
    assert rate["published"] == 12.8
    assert rate["unit"] == "FPS"
    assert rate["ratio"] == pytest.approx(rate["ours"] / 12.8)
    assert rate["ours_band"][0] < rate["ours"] < rate["ours_band"][1]
    assert rate["status"] in STATUSES
    assert by_id["gbu.orin_nx_fps_range"]["published"] == [7, 17]
    assert next(each for each in by_id.values() if each["status"] == "no model yet")["ours"] is None


def test_ratio_of_an_interval() -> None:
    def ratio(value: float) -> float | None:
        return Row(claim=claim((2.0, 4.0)), ours=ours(value), status="", reason="").ratio
    assert (ratio(1), ratio(3), ratio(8)) == (0.5, 1, 2)
    assert Row(claim=claim(0.0), ours=ours(1), status="", reason="").ratio is None


def test_unknown_paper() -> None:
    with pytest.raises(ClaimError, match=r"Paper must be one of .*gpu.*, not 'nobody'"):
        evaluate(["nobody"])


def test_a_file_is_a_paper_too() -> None:
    seen = list[tuple[int, int]]()
    chosen = evaluate(["roofgs"], progress=lambda done, total: seen.append((done, total)))
    assert {each.claim.paper for each in chosen} == {"roofgs"}
    assert {each.claim.file for each in chosen} == {"gpu", "rivals"}
    assert seen[-1] == (len(chosen), len(chosen))
    of_file = evaluate(["voyager"])
    assert {each.claim.paper for each in of_file} == {"voyager", "nebula"}
    assert {each.claim.file for each in of_file} == {"voyager"}


def numbers(text: str) -> set[float]:
    found = set()
    for match in re.finditer(r"(?:\d[\d,]*)?\.?\d+", text):
        for part in (match[0].replace(",", ""), *match[0].split(",")):
            if part.strip("."):
                found.add(float(part))
    # One mantissa or several with a common power of ten: 1.7/1.7 times 10 to the fifth.
    powers = "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"
    for several, exponent in re.findall(rf"([\d./]+)\u00d710([{powers}])", text):
        found |= {round(float(each) * 10 ** powers.index(exponent), 6)
                  for each in several.split("/")}
    # Millions, or two with a dash (U+2013) between them.
    for several in re.findall(r"([\d.]+(?:\u2013[\d.]+)?)\+? M\b", text):
        found |= {round(float(each) * 1e6, 6) for each in several.split("\u2013")}
    return found


def test_arguments_that_are_published_points_are_these_points():
    known = {claim.id: claim for claim in read_claims()}
    found = 0
    for claim in known.values():
        numbers = {number for name, given in claim.arguments.items() if name != "points"
                   for number in (given if isinstance(given, list | tuple) else [given])}
        for point in claim.arguments.get("points", ()):
            assert known[point].value in numbers, (claim.id, point)
            found += 1
    assert found >= 7


def test_values_are_the_dossiers() -> None:
    """No figure of the claims that the dossiers do not have, but for what is marked as ours."""
    if not PAPERS.is_dir():
        pytest.skip("the dossiers are not at hand: ../shared/papers")
    files = ["accelerators.md", "gpu-systems.md", "peers.md", "published/astraea_table.csv",
             "published/hermes_points.json"]
    known = numbers("\n".join((PAPERS / name).read_text("utf-8") for name in files))
    for each in read_claims():
        # The paper that brought 3DGS is in no dossier.
        if each.source not in ("arithmetic", "K-tab"):
            assert {round(abs(each.low), 6), round(abs(each.high), 6)} <= known, each.id


# --- the calls ---


def test_every_tag_says_how_well() -> None:
    assert set(TAGS) == set("PAQHLIR")
    assert [tag for tag, (_, confidence) in TAGS.items() if not confidence] == ["R"]


CITY = ["city_street_980x545", "city_above_980x545"]


def test_frames_by_hand() -> None:
    runs = [gpu_frame(frames.workload(name), devices()["agx_xavier"]) for name in CITY]
    rate = frames.frame_rate("agx_xavier", CITY)
    assert rate.value == pytest.approx(np.mean([1 / run.time.value for run in runs]))
    assert rate.low == pytest.approx(np.mean([1 / run.time.high for run in runs]))
    assert rate.high == pytest.approx(np.mean([1 / run.time.low for run in runs]))
    assert rate.scatter == tuple(sorted(1 / run.time.value for run in runs))
    assert rate.points == runs[0].time.points
    share = frames.stage_share("agx_xavier", CITY, ["sort"])
    assert share.value == pytest.approx(np.mean([run.share("sort").value for run in runs]))
    moved = frames.traffic("agx_xavier", CITY, 60)
    assert moved.value == pytest.approx(60 * np.mean([run.traffic_bytes for run in runs]))
    parts_ = [frames.traffic_share("agx_xavier", CITY, [stage.name]) for stage in runs[0].stages]
    assert sum(each.value for each in parts_) == pytest.approx(1)
    needed = frames.bandwidth("agx_xavier", CITY, 90).to("1")
    assert needed.value == pytest.approx(
        90 * np.mean([run.traffic_bytes for run in runs]) / 136.5e9)


def test_work_by_hand() -> None:
    first, second = (frames.workload(name) for name in CITY)
    assert frames.iterated(CITY).low == pytest.approx(
        min(each.evaluations / each.pixels for each in (first, second)))
    masked = frames.masked(CITY)
    assert masked.value == pytest.approx((first.masked + second.masked) / 2)
    assert {masked.low, masked.high} == {first.masked, second.masked}


def test_a_gaussian() -> None:
    assert [frames.parameters(degree).value for degree in (0, 3)] == [14, 59]
    assert frames.parameter_bytes(3).to("B").value == 236
    assert frames.preprocess_flop(3).value == 600
    assert frames.preprocess_intensity(3).to("FLOP/B").value == pytest.approx(600 / 236)
    assert frames.utilisation("xavier_nx").to("1").value == pytest.approx(0.29)
    assert frames.utilisation("orin_nx_16gb").to("1").value == pytest.approx(0.29 / 1.36)


def test_duplicates_by_hand() -> None:
    from splatforge.algos.bin_tiles import bin_tiles
    from splatforge.algos.project import project

    scene = resolve("default")
    camera = default_camera(scene, 64, 48)
    projected = project(scene, camera)
    assert frames.duplicates("default", 64, 48, 16).value == 1
    coarse = len(bin_tiles(projected, 64, 48).entries)
    fine = 0
    for mean, radius in zip(projected.mean_px.astype(float), projected.radius_px, strict=True):
        inside = [sum(at - radius < 4 * (tile + 1) and at + radius > 4 * tile
                      for tile in range(tiles)) for at, tiles in zip(mean, (16, 12), strict=True)]
        fine += inside[0] * inside[1]
    assert frames.duplicates("default", 64, 48, 4).value == pytest.approx(fine / coarse)


def test_areas() -> None:
    macro = default_costs().area_of("sram_128b_4KiB", node_nm=22)
    assert parts.sram_area(3, 4096, 128, 22).value == pytest.approx(3 * macro.value / 1e6)
    scaled = parts.scaled_area(2.0, 28, 28)
    assert (scaled.value, scaled.low, scaled.high) == (2, 2, 2)
    assert parts.scaled_area(2.0, 28, 16).to("mm^2").value == pytest.approx(
        2 * default_costs().scale("area", 28, 16).value)


def test_lanes() -> None:
    """The synthesised array; half of its lanes are half as large."""
    by_hand = area({"raster_array": 1}, node_nm=28)
    whole = parts.array_area(64, 28)
    assert whole.to("mm^2").value == pytest.approx(by_hand.area_mm2)
    assert (whole.low, whole.high) == pytest.approx(by_hand.band_mm2)
    assert parts.array_area(32, 28).value == pytest.approx(whole.value / 2)
    # A lane of an array of 16 holds the state of four times as many pixels.
    assert parts.array_area(1, 28, built=16).value > parts.array_area(1, 28).value


def test_power_of_lanes_by_hand() -> None:
    table = default_costs()

    def pj(event: str) -> float:
        return table.energy_of(event, node_nm=28).value

    def measured(block: str, what: str) -> float:
        return table.measured(block, what).cost.value

    share = frames.significant(CITY).value
    cycle = pj("alpha_evaluation") + pj("blend_evaluation")
    cycle += share * (pj("alpha_significant") + pj("blend_significant"))
    for block in ("alpha", "blend"):
        lanes = measured(block, "instances")
        cycle += measured(block, "flip_flops") / lanes * pj(f"{block}_flip_flop_cycle")
        cycle += pj(f"{block}_leakage") / lanes * 1e6 / 500e6
    power = parts.array_power(64, 28, 500e6, CITY)
    assert power.value == pytest.approx(64 * cycle * 1e-12 * 500e6)
    assert power.low < power.value < power.high
    assert parts.array_power(1, 28, 500e6, CITY).to("W").value == pytest.approx(power.value / 64)


def test_random_dram_access_by_hand() -> None:
    dram = PRESETS["lpddr4-3200"]
    costs = dram_costs(dram)
    row = costs["dram_activate"].value / 32
    byte = (costs["dram_read"].value + costs["dram_io_read"].value) / 32
    ratio = parts.random_over_streaming("lpddr4-3200")
    # Every access opens a row, and standby lasts longer; a stream opens one for 64 accesses.
    assert (row + byte) / byte < ratio.value < (2 * row + byte) / byte
    assert ratio.low < ratio.value < ratio.high
    over = parts.dram_over_sram("lpddr4-3200", 4096, 128, 22)
    sram = default_costs().energy_of("sram_read_128b_4KiB", node_nm=22).value / 16
    assert (row + byte) / sram < over.value < (2 * row + byte) / sram
    with pytest.raises(ValueError, match=r"Memory must be one of lpddr3-1600.* not 'ddr9'"):
        parts.random_over_streaming("ddr9")


def test_dram_peak() -> None:
    assert parts.dram_peak("lpddr3-1600").to("GB/s").value == 25.6
    with pytest.raises(ValueError, match=r"Memory must be one of lpddr3-1600.* not 'ddr9'"):
        parts.dram_peak("ddr9")


def recount(name: str, shared_scene) -> None:
    recipe = frames.RECIPES[name]
    scene = load(*(shared_scene(file) for file in recipe.captures))
    assert count_frame(scene, recipe.camera(scene)) == frames.workload(name)


def test_workloads_are_what_is_counted(shared_scene) -> None:
    assert set(frames._table()) == set(frames.RECIPES)
    recount("fox_800x800", shared_scene)


@pytest.mark.matrix
@pytest.mark.parametrize("name", [name for name in frames.RECIPES if name != "fox_800x800"])
def test_workloads_are_what_is_counted_everywhere(name, shared_scene) -> None:
    recount(name, shared_scene)


def test_count_all_writes_what_is_read(shared_scene, monkeypatch) -> None:
    one = {"fox_800x800": frames.RECIPES["fox_800x800"]}
    monkeypatch.setattr(frames, "RECIPES", one)
    text = frames.count_all(shared_scene("inari_fox_50k.ply").parent)
    assert json.loads(text) == {"fox_800x800": frames._table()["fox_800x800"]}


# --- the verb ---


def test_verb(capsys, tmp_path) -> None:
    target = tmp_path / "claims.json"
    assert main(["claims", "--paper", "roofgs", "--json", str(target)]) == 0
    shown = capsys.readouterr()
    assert "roofgs.preprocess_intensity" in shown.out
    assert "roofgs.fps_before" in shown.out  # a paper's claims are all listed
    assert not shown.err
    assert {each["paper"] for each in json.loads(target.read_text())["claims"]} == {"roofgs"}


def test_verb_lists_what_is_computed(capsys, monkeypatch) -> None:
    known = [each for each in read_claims() if each.paper == "roofgs"]
    monkeypatch.setattr(ledger, "read_claims", lambda: known)
    monkeypatch.setattr("splatforge.claims.committed", lambda: {
        each.claim.id: each.status for each in evaluate()})
    assert main(["claims"]) == 0
    out = capsys.readouterr().out
    assert "roofgs.fps_before" not in out
    assert "--all lists the 2 that nothing of ours computes as well" in out
    assert main(["claims", "--all"]) == 0
    assert "roofgs.fps_before" in capsys.readouterr().out


def test_verb_fails_when_a_status_is_worse(capsys, monkeypatch) -> None:
    better = committed() | {"roofgs.preprocess_intensity": "predicted"}
    monkeypatch.setattr("splatforge.claims.committed", lambda: better)
    assert main(["claims", "--paper", "roofgs", "--json", "-"]) == 1
    shown = capsys.readouterr()
    assert re.fullmatch(r"splatforge: roofgs\.preprocess_intensity is unconstrained \(band "
                        r"2\.5x wide\), was predicted\n", shown.err)
    assert "counts" in json.loads(shown.out)


def test_verb_accepts(monkeypatch, tmp_path, capsys) -> None:
    known = [each for each in read_claims() if each.paper == "roofgs"]
    monkeypatch.setattr(ledger, "read_claims", lambda: known)
    written = list[Row]()
    monkeypatch.setattr("splatforge.claims.accept", written.extend)
    monkeypatch.setattr("splatforge.claims.keep", written.extend)
    assert main(["claims", "--accept"]) == 0
    assert [each.claim for each in written] == 2 * known
    assert main(["claims", "--accept", "--paper", "roofgs"]) == 2
    assert "Statuses must be accepted for all papers at once" in capsys.readouterr().err

"""Claims of Voyager and Nebula about a stream, and that what they are computed of still holds."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from splatforge.algos.voyager.city import TreeCity
from splatforge.algos.voyager.tree import grow
from splatforge.claims import lod, streamed
from splatforge.designs.lod import SearchDesign, TreeDesign
from splatforge.designs.streaming import StreamingDesign
from splatforge.scenes import travel
from splatforge.sim.streaming import measure

sys.path.insert(0, str(Path(__file__).parent))
from toy_city import ToyCity

RUNS = json.loads(streamed._TABLE.read_text("utf-8"))


def test_counts_are_whole():
    assert set(RUNS["runs"]) == {f"{name}_{tau}" for tau in streamed.TAUS for name in lod.PATHS}
    assert tuple(RUNS["video"]) == lod.PATHS
    assert set(RUNS["speeds"]) == {str(tau) for tau in streamed.TAUS}
    for run in RUNS["runs"].values():
        rate, start = run["bytes_per_s"], run["start_bytes"]
        assert rate["streaming"] < rate["cuts_coded"] < rate["cuts"] / 6
        assert start["streaming"] < start["cuts_coded"] < start["cuts"]
        assert run["visited"] < run["visited_first"] <= RUNS["nodes"]
        assert run["cut"] <= run["held"] <= RUNS["nodes"]
        assert run["work"]["gaussians_visible"] <= run["work"]["gaussians"] < RUNS["nodes"]
        assert 30 < run["psnr_db"]["coded_vs_full"] <= run["psnr_db"]["coded_vs_exact"] + 0.5
    for name in lod.PATHS:
        # The coarser, the fewer.
        cuts = [RUNS["runs"][f"{name}_{tau}"]["cut"] for tau in streamed.TAUS]
        assert cuts == sorted(cuts, reverse=True)
    assert set(RUNS["psnr_db_of_all"]) == set(RUNS["runs"])
    for name, video in RUNS["video"].items():
        assert 0 < video["h265"]["bytes_per_s"] < video["h264"]["bytes_per_s"]
        # Below 6 px a stream's frames are no worse than the video's, below 24 px they are.
        fine, coarse = (RUNS["psnr_db_of_all"][f"{name}_{tau}"] for tau in (6, 24))
        assert coarse["coded"] < coarse["exact"] < video["h265"]["psnr_db"]
        assert video["h264"]["psnr_db"] < fine["coded"] < fine["exact"]


def test_figures_by_hand():
    run, video = RUNS["runs"]["walk_24"], RUNS["video"]["walk"]
    stream = run["bytes_per_s"]["streaming"]
    one = (["walk"], [24])
    assert streamed.reduction(*one, "cuts").value == run["bytes_per_s"]["cuts"] / stream
    assert streamed.reduction(*one, "h265").value == video["h265"]["bytes_per_s"] / stream
    raw = streamed.reduction(*one, "video_raw").value
    assert raw == pytest.approx(1280 * 720 * 3 * 90 / stream)
    runs = [RUNS["runs"][f"{name}_24"]["bytes_per_s"] for name in ("walk", "drive")]
    both = streamed.reduction(["walk", "drive"], [24], "cuts")
    assert both.value == pytest.approx(
        sum(each["cuts"] for each in runs) / sum(each["streaming"] for each in runs))
    assert both.scatter == pytest.approx(
        sorted(each["cuts"] / each["streaming"] for each in runs))
    loss = streamed.psnr_loss(*one, 27).value
    error = 10 ** -2.7 + 10 ** (-run["psnr_db"]["coded_vs_exact"] / 10)
    assert loss == pytest.approx(27 + 10 * np.log10(error))
    assert streamed.raw_rate(1920, 1080, 60).to("Mbps").value == pytest.approx(2985.984)


def test_new_gaussians_go_with_the_way():
    """Twice the speed, twice as many a second, from a slow walk to 160 km/h."""
    for points in RUNS["speeds"].values():
        assert [each["speed"] for each in points] == pytest.approx(streamed.SPEEDS)
        of_metre = [each["gaussians_per_unit"] for each in points]
        assert max(of_metre) < 1.12 * min(of_metre)
        for each in points:
            assert each["gaussians_per_s"] == pytest.approx(
                each["gaussians_per_unit"] * each["speed"])
        # The slower, the more of a cut stays.
        shares = [each["unchanged"] for each in points]
        assert shares == sorted(shares, reverse=True)


def test_speedups_are_those_of_the_best_path():
    every = [streamed.speedup([name], [tau], "agx_orin_64gb", "cloud")
             for tau in streamed.TAUS for name in lod.PATHS]
    best = streamed.speedup(lod.PATHS, streamed.TAUS, "agx_orin_64gb", "cloud")
    assert best.value == max(each.value for each in every)
    assert 1 < best.low <= best.value <= best.high
    # A search on the device takes time, and a saving of time is one of energy.
    here = streamed.speedup(lod.PATHS, streamed.TAUS, "agx_orin_64gb", "device")
    assert 1 < here.value < best.value
    saved = streamed.energy_saving(lod.PATHS, streamed.TAUS, "agx_orin_64gb", "device")
    assert saved.value == pytest.approx(1 - 1 / here.value)


def test_speeds_are_of_the_citys_own_ways(monkeypatch):
    tree = grow(ToyCity().all, TreeDesign())
    first, up = TreeCity(tree, SearchDesign()).view()
    asked = []

    def straight(speed, frames):
        asked.append((speed, frames))
        return travel(first.resized(64, 48), up, frames=33, speed=4 * speed).cameras

    monkeypatch.setattr(streamed, "straight", straight)
    points = streamed.count_speeds(tree, 2.0)
    assert asked == [(speed, 129) for speed in streamed.SPEEDS]
    assert [each["speed"] for each in points] == pytest.approx(
        [4 * speed for speed in streamed.SPEEDS])
    assert points[-1]["gaussians_per_s"] > points[4]["gaussians_per_s"] > 0


@pytest.mark.parametrize(("call", "arguments", "message"), [
    ("reduction", (["run"], [6], "cuts"), "Run must be one of .*, not 'run_6'"),
    ("reduction", (["walk"], [12], "h265"), "Run must be one of .*, not 'walk_12'"),
    ("reduction", (["walk"], [24], "letters"), "Way must be one of cuts, .*, not 'letters'"),
    ("speedup", (["walk"], [24], "abacus", "cloud"), "GPU must be one of .*, not 'abacus'"),
    ("speedup", (["walk"], [24], "agx_orin_64gb", "moon"), "Search must be one of cloud, device")])
def test_arguments_are_checked(call, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(streamed, call)(*arguments)


def test_the_stream_that_is_counted_is_the_one_that_is_sent(monkeypatch):
    """A small city: all but the first delta is byte for byte that of a client that began."""
    tree = grow(ToyCity().all, TreeDesign())
    first, up = TreeCity(tree, SearchDesign()).view()
    way = travel(first.resized(64, 48), up, frames=streamed._FRAMES, speed=180.0).cameras
    monkeypatch.setattr(streamed, "path", lambda name, cameras: way)
    codec = TreeCity(tree, SearchDesign()).codec(StreamingDesign(sh1=(3,), sh2=(3,), sh3=(3,)))
    counted = streamed.count(tree, codec, "walk", None, 2.0)
    run = measure(TreeCity(tree, SearchDesign(tau_px=2.0)), codec, way, window=4, rate_hz=90.0)
    searches = run.searches[1:len(run.searches) - 1]
    assert counted["gaussians_per_s"] > 0
    assert counted["gaussians_per_s"] * len(searches) * 4 / 90 == pytest.approx(
        sum(each.gaussians for each in searches))
    air = [each.size_bytes + 52 * -(-each.size_bytes // 1448) for each in searches]
    assert counted["bytes_per_s"]["streaming"] * len(searches) * 4 / 90 == pytest.approx(sum(air))
    assert counted["visited_first"] == run.searches[0].change.visited

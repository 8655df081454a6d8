"""The two processes: killed in mid-stream, and the same pictures all the same."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from splatforge import scenes
from splatforge.algos import reference
from splatforge.algos.voyager.city import TreeCity, stream_path
from splatforge.algos.voyager.tree import grow
from splatforge.cli import CutOptions, WayOptions, main
from splatforge.designs.lod import SearchDesign, TreeDesign
from splatforge.designs.streaming import StreamingDesign

sys.path.insert(0, str(Path(__file__).parent))
from toy_city import ToyCity

CLI = [sys.executable, "-m", "splatforge", "cloud"]
WAY = {"frames": 40, "speed": 20.0, "rate_hz": 10.0, "size": (64, 48)}


@pytest.fixture(scope="module")
def city_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("city") / "city.ply"
    scenes.save(ToyCity().all, path)
    return path


class Process:
    """A cloud in a process of its own, ended with the block."""

    def __init__(self, city, port, *options):
        self.arguments = [*CLI, "serve", str(city), "--port", str(port), *options]

    def __enter__(self):
        self.process = subprocess.Popen(self.arguments, stderr=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        line = self.process.stderr.readline()
        found = re.search(r"at 127\.0\.0\.1:(\d+)", line)
        assert found, line + self.process.stderr.read()
        self.port = int(found[1])
        return self

    def __exit__(self, *error):
        self.process.kill()
        self.process.communicate()


def view(port, figures, *options):
    return subprocess.Popen(
        [*CLI, "view", "--connect", f"127.0.0.1:{port}", "--size", "64x48", "--speed", "20",
         "--rate-hz", "10", "--frames", "40", "--timeout-s", "60", "--json", str(figures),
         *options], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def wanted(city_file):
    """Pictures of the run within a process."""
    tree = grow(scenes.load(city_file), TreeDesign())
    city = TreeCity(tree, SearchDesign())
    codec = city.codec(StreamingDesign())
    way = WayOptions(**WAY).cameras(city.welcome(codec))
    return [reference.render(frame.client.scene(), frame.camera).image
            for frame in stream_path(city, codec, way, 4)]


def test_either_end_is_killed(city_file, tmp_path):
    """One stream over a slow link; another client and then the cloud are killed with SIGKILL."""
    slow = ("--bandwidth-mbps", "20", "--latency-ms", "5")
    figures = tmp_path / "view.json"
    with Process(city_file, 0, *slow) as first:
        port = first.port
        victim = view(port, tmp_path / "none.json", "--paced")
        client = view(port, figures, "--paced", "-o", str(tmp_path / "frame.npy"))
        while not (tmp_path / "frame_0008.npy").exists():
            assert client.poll() is None, client.stderr.read()
            time.sleep(0.02)
        victim.kill()
        victim.communicate()
    assert not (tmp_path / "frame_0039.npy").exists()
    with Process(city_file, port, *slow, "--clients", "1", "--json", str(tmp_path / "c.json")
                 ) as second:
        _, complaints = client.communicate(timeout=100)
        assert client.returncode == 0, complaints
        second.process.communicate(timeout=20)
        assert second.process.returncode == 0
    record = json.loads(figures.read_text())
    # One that a busy machine leaves without a word for too long begins anew.
    assert record["connections"] >= 2
    assert record["frames"] == 40
    served = json.loads((tmp_path / "c.json").read_text())
    assert served["clients_finished"] == 1
    for number, image in enumerate(wanted(city_file)):
        assert np.array_equal(np.load(tmp_path / f"frame_{number:04d}.npy"), image)


def test_a_signal_ends_the_cloud_in_good_order(city_file, tmp_path):
    with Process(city_file, 0) as cloud:
        cloud.process.send_signal(signal.SIGTERM)
        _, complaints = cloud.process.communicate(timeout=20)
        assert cloud.process.returncode == 128 + signal.SIGTERM
        assert "Traceback" not in complaints


@pytest.mark.parametrize(("arguments", "message"), [
    (["view", "--connect", "127.0.0.1:9", "--timeout-s", "0.2"], "no cloud answers within 0.2 s"),
    (["view", "--connect", "nowhere"], "Address must be HOST:PORT, not 'nowhere'"),
    (["view", "--connect", "a:99999"], "Address must be HOST:PORT"),
    (["serve", "gone.lod"], "gone.lod: "),
    (["serve", "a.lod", "b.lod"], "City must be one .lod file or scenes, not a.lod b.lod")])
def test_what_is_wrong_is_said_in_a_line(capsys, arguments, message):
    assert main(["cloud", *arguments]) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith("splatforge: ")
    assert complaint.count("\n") == 1
    assert message in complaint


def test_a_path_is_measured(city_file, tmp_path, capsys):
    figures = tmp_path / "figures.json"
    assert main(["cloud", "measure", str(city_file), "--frames", "17", "--size", "32x24",
                 "--no-video", "--json", str(figures)]) == 0
    record = json.loads(figures.read_text())
    ways = record["down_on_air"]
    assert set(ways) == {"streaming", "cuts", "cuts_coded", "all_gaussians", "video_raw"}
    assert record["start_bytes"] < ways["streaming"]["start_bytes"]
    assert ways["streaming"]["total_bytes"] < record["on_air_bytes"]
    assert ways["streaming"]["bytes_per_s"] > record["bytes_per_s"]
    assert ways["all_gaussians"]["bytes_per_s"] is None
    assert ways["video_raw"]["total_bytes"] == 17 * (32 * 24 * 3 + 2 * 52)
    shown = capsys.readouterr().out
    line = next(line for line in shown.splitlines() if line.startswith("all gaussians"))
    assert "in all" in line
    assert "a second" not in line


def test_a_way_has_a_name(city_file):
    city = CutOptions(tau_px=20.0).city([str(city_file)])
    welcome = city.welcome(city.codec(StreamingDesign(sh1=(2,), sh2=(2,), sh3=(2,))))
    assert city.design.tau_px == welcome.tau_px == 20
    for name in ("travel", "orbit", "head-jitter"):
        assert len(WayOptions(**WAY, trajectory=name).cameras(welcome)) == 40
    way = WayOptions(**WAY).cameras(welcome)
    step = np.diff([camera.position for camera in way], axis=0)
    assert np.allclose(np.linalg.norm(step, axis=1), 2.0)
    assert np.abs(step @ welcome.up).max() < 1e-6
    with pytest.raises(ValueError, match="Trajectory must be travel, orbit"):
        WayOptions(**WAY, trajectory="jump").cameras(welcome)


def test_the_loop_has_clients_and_a_network(city_file, tmp_path, capsys):
    """Our RTL as the client, which takes longer than a GPU; a network that stands still."""
    records = []
    for client in ("voyager", "agx_orin_64gb"):
        figures = tmp_path / "figures.json"
        assert main(["cloud", "measure", str(city_file), "--frames", "17", "--size", "32x24",
                     "--tau-px", "20", "--no-video", "--client", client, "--drawn", "2",
                     "--outage-s", "0.02:0.12", "--json", str(figures)]) == 0
        records.append(json.loads(figures.read_text()))
    for record in records:
        assert record["motion_to_photon_s"] == pytest.approx(record["render_s"] + 5.6e-3)
        assert record["client_fps"] == pytest.approx(1 / record["render_s"])
        assert record["client_j"] > 0
        assert record["stale_frames"] > 0
        assert record["cut_age_worst_s"] > 7 / 90
        assert record["psnr_db_vs_full_cut"] <= record["psnr_db_vs_uncoded"]
        assert record["search_modeled_s"][0] == pytest.approx(
            50e-9 * record["search_visited"][0])
        assert record["drawn"] == [0, 16]
    assert records[0]["render_s"] != records[1]["render_s"]
    for name, value in (("--client", "phone"), ("--network", "tin cans")):
        assert main(["cloud", "measure", str(city_file), name, value]) == 2
        complaint = capsys.readouterr().err.splitlines()[-1]
        assert f"{name[2:].capitalize()} must be one of" in complaint


def test_speeds_make_a_curve(city_file, tmp_path):
    figures, plot = tmp_path / "speeds.json", tmp_path / "speeds.svg"
    assert main(["cloud", "speeds", str(city_file), "--speed", "50", "--speed", "0", "--speed",
                 "200", "--frames", "33", "--size", "64x48", "--tau-px", "4",
                 "-o", str(plot), "--json", str(figures)]) == 0
    points = json.loads(figures.read_text())["points"]
    assert [each["speed"] for each in points] == pytest.approx([0, 50, 200])
    assert points[0]["gaussians_per_s"] == 0 < points[1]["gaussians_per_s"]
    assert points[1]["gaussians_per_s"] < points[2]["gaussians_per_s"]
    assert "<svg" in plot.read_text()

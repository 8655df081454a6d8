"""Generated scenes: deterministic, like the captures, and found by name."""

import contextlib
import functools
import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from splatforge.scenes import (
    GENERATED,
    SceneError,
    catalog,
    get,
    load,
    make_city,
    make_default,
    make_object,
    resolve,
    save,
    statistics,
)
from splatforge.scenes.cache import cache_folder
from splatforge.scenes.generate_city import merge_neighbours

sys.path.insert(0, os.path.dirname(__file__))
from scene_files import small_scene

ARRAYS = ("means", "log_scales", "quats", "opacity_logits", "sh")


def digest(scene) -> str:
    return hashlib.sha256(b"".join(getattr(scene, name).tobytes() for name in ARRAYS)).hexdigest()


@pytest.mark.parametrize("make", [make_object, lambda n, seed: make_city(n, seed)[0]])
def test_the_same_seed_gives_the_same_bytes(make):
    assert digest(make(6000, 5)) == digest(make(6000, 5))
    assert digest(make(6000, 5)) != digest(make(6000, 6))


def test_bytes_do_not_depend_on_the_process_or_its_threads():
    program = (
        "import hashlib\n"
        "from splatforge.scenes import make_city, make_object\n"
        "scenes = [make_object(5000, 2), *make_city(6000, 2, levels=3)]\n"
        f"arrays = [getattr(s, n) for s in scenes for n in {ARRAYS!r}]\n"
        "print(hashlib.sha256(b''.join(a.tobytes() for a in arrays)).hexdigest())\n"
    )
    digests = set()
    for threads in ("1", "4"):
        names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS")
        environment = {**os.environ, **dict.fromkeys(names, threads), "PYTHONHASHSEED": threads}
        run = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, check=True
        )
        digests.add(run.stdout)
    assert len(digests) == 1


# Like the captures: the distance of the generated quantiles from the captures' mean quantiles is
# below the distance of the captures themselves from it, or below this where they hardly differ.
FLOOR = {"opacity": 0.02, "log_size": 0.15, "log_stretch": 0.05, "log_flatness": 0.05}
SH_FLOOR = 0.005


@pytest.mark.parametrize("profile", ["object", "city"])
def test_statistics_are_those_of_the_captures(profile):
    scene = make_object(30_000, 4) if profile == "object" else make_city(60_000, 4)[0]
    ours = statistics.measure(scene)
    captures = statistics.captures(profile)
    assert set(ours) == {"opacity", "log_size", "log_stretch", "log_flatness"} | {
        f"sh_energy_{degree}" for degree in (1, 2, 3)
    }
    for quantity, values in ours.items():
        mean = statistics.quantiles(profile, quantity)
        spread = [
            statistics.distance(table[quantity], mean)
            for table in captures.values()
            if quantity in table
        ]
        bound = max(float(np.median(spread)), FLOOR.get(quantity, SH_FLOOR))
        assert statistics.distance(values, mean) < bound, quantity


def test_the_table_can_tell_a_scene_that_is_not_like_the_captures():
    """The naive scene that people benchmark with: uniform opacities, one size, no shine."""
    random = np.random.default_rng(0)
    n = 5000
    naive = small_scene(
        n,
        3,
        means=random.uniform(-1, 1, (n, 3)),
        log_scales=np.full((n, 3), np.log(0.05)),
        opacity_logits=np.full(n, 3.0),
        sh=np.zeros((n, 16, 3)),
    )
    ours = statistics.measure(naive)
    for quantity in ("opacity", "log_stretch", "log_flatness", "sh_energy_2"):
        mean = statistics.quantiles("object", quantity)
        floor = FLOOR.get(quantity, SH_FLOOR)
        assert statistics.distance(ours[quantity], mean) > 2 * floor


@pytest.mark.parametrize(
    ("profile", "name"),
    [
        ("object", "inari_fox_50k.ply"),
        ("object", "fourth_st_131k_sh3.spz"),
        ("object", "statue_massa_59k.sog"),
        ("city", "semarang_city_9_sh3.sog"),
    ],
)
def test_the_table_was_measured_from_the_captures(shared_scene, profile, name):
    measured = statistics.measure(load(shared_scene(name)))
    table = statistics.captures(profile)[name]
    assert set(measured) == set(table)
    for quantity, values in measured.items():
        assert np.allclose(values, table[quantity], atol=2e-5), quantity


def test_measure_folder_writes_the_form_of_the_table(tmp_path, monkeypatch):
    scene = small_scene(100)
    save(scene, tmp_path / "a.ply")
    monkeypatch.setattr(statistics, "_PROFILES", {"object": ("a.ply",)})
    table = json.loads(statistics.measure_folder(tmp_path))
    assert np.allclose(table["levels"], statistics.LEVELS, atol=1e-4)
    expected = statistics.measure(scene)["opacity"]
    assert np.allclose(table["profiles"]["object"]["a.ply"]["opacity"], expected, atol=1e-5)


def test_the_default_scene_is_what_its_generator_makes(tmp_path):
    make_default(tmp_path / "again.spz")
    again, committed = load(tmp_path / "again.spz"), resolve("default")
    assert committed.gaussians == catalog.DEFAULT_GAUSSIANS
    assert committed.sh_degree == 3
    assert catalog.DEFAULT.stat().st_size <= 700_000
    # Bit for bit on one machine; exponentials of another may round differently, which moves a
    # quantised value by one step at most, and seldom.
    assert np.abs(again.means - committed.means).max() <= 2.0**-19
    for name, step in (("log_scales", 1 / 16), ("sh", 1 / 8)):
        gap = np.abs(getattr(again, name) - getattr(committed, name))
        assert gap.max() <= step + 1e-6
        assert np.mean(gap > 0) < 1e-3
    for name in ("quats", "opacity_logits"):
        assert np.mean(getattr(again, name) != getattr(committed, name)) < 1e-3


def test_object_stands_on_its_floor_with_y_down():
    scene = make_object(5000, 0)
    assert scene.bbox_min[1] == pytest.approx(-1.54, abs=0.05)
    assert abs(scene.bbox_max[0] - 1.2) < 0.05
    assert scene.sh_degree == 3


def test_city_grows_with_its_gaussians():
    small, large = make_city(5000, 0)[0], make_city(40_000, 0)[0]
    assert small.gaussians == 5000
    assert large.bbox_max[0] > 1.5 * small.bbox_max[0]


def test_levels_of_detail_keep_the_scene():
    levels = make_city(8192, 1, levels=4)
    assert [level.gaussians for level in levels] == [8192, 2048, 512, 128]
    fine = levels[0]
    for level in levels[1:]:
        assert np.all(level.bbox_min >= fine.bbox_min - 1e-3)
        assert np.all(level.bbox_max <= fine.bbox_max + 1e-3)
        assert np.allclose(np.median(level.means, 0), np.median(fine.means, 0), atol=25)
        # Fewer Gaussians, each larger.
        assert np.median(level.log_scales) > np.median(fine.log_scales)


def test_merged_neighbours_have_their_mean_and_covariance():
    scene = small_scene(
        4,
        1,
        log_scales=np.full((4, 3), -3.0),
        opacity_logits=np.full(4, 1.0),
        quats=np.tile([1.0, 0, 0, 0], (4, 1)),
    )
    merged = merge_neighbours(scene)
    assert merged.gaussians == 1
    assert np.allclose(merged.means[0], scene.means.mean(axis=0), atol=1e-5)
    assert np.allclose(merged.sh[0], scene.sh.mean(axis=0), atol=1e-5)
    expected = np.cov(scene.means.T, bias=True) + np.exp(-6) * np.eye(3)
    variances = np.sort(np.exp(2 * merged.log_scales[0]))
    assert np.allclose(variances, np.linalg.eigvalsh(expected), rtol=1e-3)


def test_a_last_group_that_is_not_full():
    assert merge_neighbours(small_scene(9, 0)).gaussians == 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make_object(999, 0), "Object gaussians must be at least 1000"),
        (lambda: make_city(4999, 0), "City gaussians must be at least 5000"),
        (lambda: make_city(5000, 0, levels=0), "City levels must be 1 to 8"),
        (lambda: make_city(5000, 0, levels=8), "City levels must be 1 to 8"),
    ],
)
def test_wrong_sizes_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# Names.


def test_names_and_files_resolve_and_merge(tmp_path, monkeypatch):
    monkeypatch.setenv("SPLATFORGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(GENERATED, "small", lambda: small_scene(7))
    save(small_scene(5), tmp_path / "a.ply")
    assert resolve("small").gaussians == 7
    assert resolve(tmp_path / "a.ply").gaussians == 5
    assert resolve("small", tmp_path / "a.ply").gaussians == 12
    assert resolve(tmp_path / "a.ply", str(tmp_path / "a.ply")).gaussians == 10
    with pytest.raises(SceneError, match="scene must be a file or one of default, object, city"):
        resolve("moon")
    with pytest.raises(SceneError, match=r"none.ply: scene file is missing"):
        resolve(tmp_path / "none.ply")
    with pytest.raises(SceneError, match="not nothing"):
        resolve()


def test_generated_names_are_what_they_say():
    assert {"default", "object", "city"} <= set(GENERATED)
    assert resolve("default").gaussians == catalog.DEFAULT_GAUSSIANS


@contextlib.contextmanager
def served(folder):
    """A web server on the loopback that serves a folder; yields its address and its log."""
    seen = []

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            seen.append(self.path)

    handler = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_get_fetches_checks_and_keeps(tmp_path, monkeypatch):
    (tmp_path / "web").mkdir()
    save(small_scene(6), tmp_path / "web" / "scan.spz")
    data = (tmp_path / "web" / "scan.spz").read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    cache = tmp_path / "cache"
    monkeypatch.setenv("SPLATFORGE_CACHE", str(cache))
    with served(tmp_path / "web") as (address, seen):
        url = f"{address}/scan.spz"
        path = get("mine.spz", url=url, sha256=sha256)
        assert path == cache / "mine.spz"
        assert path.read_bytes() == data
        get("mine.spz", url=url, sha256=sha256)
        assert len(seen) == 1
        with pytest.raises(SceneError, match="cannot be fetched"):
            get("other.spz", url=url, sha256="0" * 64)
        with pytest.raises(SceneError, match="cannot be fetched"):
            get("other.spz", url=f"{address}/none.spz", sha256=sha256)
        with pytest.raises(SceneError, match=r" \.\.\.\): check the network"):
            get("other.spz", url="nowhere://" + "some words " * 40, sha256=sha256)
        capture = catalog.Capture(url=url, sha256=sha256, licence="MIT", what="a scan")
        monkeypatch.setitem(catalog.CAPTURES, "scan", capture)
        assert resolve("scan").gaussians == 6
    # No network any more: what is in the cache folder is found.
    assert get("scan") == cache / "scan.spz"
    assert get("mine.spz") == cache / "mine.spz"
    assert get("mine") == cache / "mine.spz"
    assert resolve("mine.spz").gaussians == 6
    assert resolve("scan").gaussians == 6
    assert sorted(path.name for path in cache.iterdir()) == ["mine.spz", "scan.spz"]


@pytest.mark.parametrize(
    ("name", "arguments", "match"),
    [
        ("moon", {}, "name must be a capture of the catalog"),
        ("a.spz", {"url": "http://127.0.0.1/a"}, "url and sha256 must be given together"),
        ("a.spz", {"url": "http://127.0.0.1/a", "sha256": "12"}, "must be 64 hexadecimal digits"),
        ("../a.spz", {"url": "http://127.0.0.1/a", "sha256": "0" * 64}, "name must be a file name"),
        ("a", {"url": "http://127.0.0.1/a", "sha256": "0" * 64}, "name must be a file name"),
        ("a.spz", {"url": "nowhere://a", "sha256": "0" * 64}, "cannot be fetched"),
    ],
)
def test_get_refuses(tmp_path, name, arguments, match):
    with pytest.raises(SceneError, match=match):
        get(name, folder=tmp_path, **arguments)


@pytest.mark.parametrize(
    ("name", "file"),
    [("statue_massa", "statue_massa_59k.sog"), ("statue_trumpet", "statue_trumpet_89k.sog")],
)
def test_the_catalog_has_the_checksums_of_the_captures(shared_scene, name, file):
    data = shared_scene(file).read_bytes()
    assert catalog.CAPTURES[name].sha256 == hashlib.sha256(data).hexdigest()


def test_cache_folder_is_the_users_unless_told(monkeypatch, tmp_path):
    monkeypatch.setenv("SPLATFORGE_CACHE", str(tmp_path / "told"))
    assert cache_folder() == tmp_path / "told"
    assert cache_folder(tmp_path) == tmp_path
    (tmp_path / "told").mkdir()
    (tmp_path / "told" / "scan.ply").write_bytes(b"ply")
    assert get("scan") == get("scan.ply") == tmp_path / "told" / "scan.ply"
    monkeypatch.delenv("SPLATFORGE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "splatforge"

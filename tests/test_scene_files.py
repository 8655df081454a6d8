"""Readers and writers: what comes back, what real pairs say, and one clear error for each fault."""

import errno
import gzip
import json
import os
import struct
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from splatforge.scenes import SceneError, load, open_scene, resolve, save, transform
from splatforge.scenes import files as scene_files_module
from splatforge.scenes.spz import write_spz

sys.path.insert(0, str(Path(__file__).parent))
from scene_files import (
    glb,
    gltf_parts,
    small_scene,
    sog_members,
    webp,
    write_ascii_ply,
    write_compressed_ply,
    write_every_format,
    write_sog,
)

FORMATS = [
    *("ply.ply", "splat.splat", "spz3.spz", "spz2.spz", "ascii.ply", "packed.compressed.ply"),
    *("sog1.sog", "sog2.sog", "khr.glb"),
]


@pytest.fixture(scope="session")
def every(tmp_path_factory) -> dict[str, Path]:
    return write_every_format(tmp_path_factory.mktemp("formats"))


def opacity(scene):
    return 1 / (1 + np.exp(-scene.opacity_logits.astype(np.float64)))


def turn_deg(a, b):
    """Angle between the rotations of two scenes, in degrees."""
    a, b = (s.quats / np.linalg.norm(s.quats, axis=1, keepdims=True) for s in (a, b))
    return np.degrees(2 * np.arccos(np.clip(np.abs((a * b).sum(axis=1)), 0, 1)))


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("antialiased", [False, True])
def test_ply_round_trip_is_exact(tmp_path, degree, antialiased):
    scene = small_scene(300, degree, antialiased=antialiased)
    save(scene, tmp_path / "a.ply")
    again = load(tmp_path / "a.ply")
    for name in ("means", "log_scales", "quats", "opacity_logits", "sh"):
        assert np.array_equal(getattr(again, name), getattr(scene, name)), name
    assert again.antialiased is antialiased


def test_ply_f_rest_is_channel_major(tmp_path):
    scene = small_scene(5, 1)
    save(scene, tmp_path / "a.ply")
    data = (tmp_path / "a.ply").read_bytes()
    start = data.index(b"end_header\n") + 11
    record = np.frombuffer(data, "<f4", 26, start)  # x y z nx ny nz dc*3 rest*9 opacity ...
    assert np.array_equal(record[9:18], scene.sh[0, 1:].T.reshape(-1))


def test_ply_of_doubles_big_endian_and_extra_elements(tmp_path):
    scene = small_scene(20, 0)
    names = "opacity x y z f_dc_0 f_dc_1 f_dc_2 scale_0 scale_1 scale_2 rot_0 rot_1 rot_2 rot_3"
    rows = np.concatenate(
        [scene.opacity_logits[:, None], scene.means, scene.sh[:, 0], scene.log_scales, scene.quats],
        axis=1,
    )
    head = ["ply", "format binary_big_endian 1.0", "element camera 2", "property uchar id"]
    head += ["element vertex 20", *(f"property double {name}" for name in names.split())]
    path = tmp_path / "a.ply"
    path.write_bytes(
        "\r\n".join([*head, "end_header", ""]).encode() + b"ab" + rows.astype(">f8").tobytes()
    )
    assert np.array_equal(load(path).means, scene.means)


def test_ply_with_infinite_logits_is_opaque_and_flat(tmp_path):
    scene = small_scene(5, 0)
    path = write_ascii_ply(tmp_path / "a.ply", scene)
    lines = path.read_text().split("\n")
    first = lines.index("end_header") + 1
    words = lines[first].split()
    words[6], words[7] = "inf", "-inf"
    lines[first] = " ".join(words)
    path.write_text("\n".join(lines))
    again = load(path)
    assert opacity(again)[0] == pytest.approx(1, abs=1e-5)
    assert np.exp(again.log_scales[0, 0]) < 1e-20


@pytest.mark.parametrize("version", [2, 3])
def test_spz_round_trip_within_its_steps(tmp_path, version):
    scene = small_scene(500, antialiased=True)
    save(scene, tmp_path / "a.spz", spz_version=version)
    again = load(tmp_path / "a.spz")
    assert again.antialiased
    assert np.abs(again.means - scene.means).max() <= 2.0**-21
    assert np.abs(again.log_scales - scene.log_scales).max() <= 1 / 32 + 1e-6
    assert np.abs(again.sh[:, 1:] - scene.sh[:, 1:]).max() <= 1 / 256 + 1e-6
    assert np.abs(again.sh[:, 0] - scene.sh[:, 0]).max() <= 0.5 / 255 / 0.15 + 1e-6
    assert np.abs(opacity(again) - opacity(scene)).max() <= 0.5 / 255 + 1e-5
    # Version 3 keeps nine bits of components below 0.71: 0.14 degrees a step.
    assert turn_deg(again, scene).max() < (0.3 if version == 3 else 12)
    assert np.median(turn_deg(again, scene)) < (0.15 if version == 3 else 0.8)


def test_spz_of_the_same_scene_is_the_same_file(tmp_path):
    for name in ("a.spz", "b.spz"):
        save(small_scene(), tmp_path / name)
    assert (tmp_path / "a.spz").read_bytes() == (tmp_path / "b.spz").read_bytes()


def test_spz_keeps_the_bits_of_sh_it_is_told(tmp_path):
    scene = small_scene()
    write_spz(scene, tmp_path / "a.spz", sh_bits=(5, 4))
    again = load(tmp_path / "a.spz")
    assert np.array_equal(again.sh[:, 1:4] * 16, np.rint(again.sh[:, 1:4] * 16))
    assert np.array_equal(again.sh[:, 4:] * 8, np.rint(again.sh[:, 4:] * 8))
    assert np.abs(again.sh[:, 4:] - scene.sh[:, 4:]).max() <= 1 / 16 + 1e-6


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def _spz(count: int, degree: int = 0, version: int = 3, bits: int = 12, flags: int = 0, extra=b""):
    body = b"\1" * (count * (20 + 3 * ((degree + 1) ** 2 - 1)))
    head = struct.pack("<4sIIBBBB", b"NGSP", version, count, degree, bits, flags, 0)
    return _gzip(head + body + extra)


def test_spz_decodes_known_bytes(tmp_path):
    """By hand from the format's own source: fixed point with sign, x y z w and its index."""
    head = struct.pack("<4sIIBBBB", b"NGSP", 3, 1, 0, 12, 1, 0)
    position = (-4096).to_bytes(3, "little", signed=True) + (2048).to_bytes(3, "little") + bytes(3)
    # Index 2 (z) is left out; x = +0.5, y = -0.25, w = 0 in units of sqrt(1/2) / 511.
    step = np.sqrt(0.5) / 511
    x, y = round(0.5 / step), round(0.25 / step)
    word = 2 << 30 | x << 20 | (1 << 9 | y) << 10 | 0
    body = position + bytes([255, 0, 255, 128, 160, 0, 96]) + struct.pack("<I", word)
    (tmp_path / "a.spz").write_bytes(_gzip(head + body))
    scene = load(tmp_path / "a.spz")
    assert scene.antialiased
    assert np.array_equal(scene.means[0], [-1, 0.5, 0])
    assert np.array_equal(scene.log_scales[0], [0, -10, -4])
    assert np.allclose(scene.sh[0, 0], [-0.5 / 0.15, 0.5 / 0.15, (128 / 255 - 0.5) / 0.15])
    z = np.sqrt(1 - 0.5**2 - 0.25**2)
    assert np.allclose(scene.quats[0], [0, 0.5, -0.25, z], atol=2e-3)


def test_splat_round_trip_within_its_steps(tmp_path):
    scene = small_scene(200, 0, sh=np.random.default_rng(1).uniform(-1.7, 1.7, (200, 1, 3)))
    save(scene, tmp_path / "a.splat")
    again = load(tmp_path / "a.splat")
    order = np.argsort(scene.means[:, 0])
    scene, again = scene.select(order), again.select(np.argsort(again.means[:, 0]))
    assert np.array_equal(scene.means, again.means)
    assert np.allclose(scene.log_scales, again.log_scales, atol=1e-5)
    assert np.abs(opacity(scene) - opacity(again)).max() <= 0.5 / 255 + 1e-5
    assert np.abs(scene.sh - again.sh).max() <= 0.5 / 255 / 0.282 + 1e-5
    assert turn_deg(scene, again).max() < 1.5


def test_splat_quaternion_bytes_reach_from_minus_one(tmp_path):
    """Byte 0 is -1, byte 128 is 0, byte 255 is 127/128: asymmetric as two's complement is."""
    record = np.zeros(3, np.dtype([("f", "<f4", 6), ("color", "u1", 4), ("rotation", "u1", 4)]))
    record["f"][:, 3:] = 1
    record["rotation"] = [(0, 128, 128, 128), (128, 0, 255, 1), (127, 129, 0, 255)]
    (tmp_path / "a.splat").write_bytes(record.tobytes())
    assert load(tmp_path / "a.splat").quats.tolist() == [
        [-1, 0, 0, 0], [0, -1, 127 / 128, -127 / 128], [-1 / 128, 1 / 128, -1, 127 / 128]]


def test_splat_writes_a_quaternion_of_minus_one(tmp_path):
    quats = np.eye(4, dtype=np.float32)[[0, 0, 3]] * np.array([[-1], [1], [-1]], np.float32)
    save(small_scene(3, 0, quats=quats), tmp_path / "a.splat")
    rotation = np.frombuffer((tmp_path / "a.splat").read_bytes(), np.uint8).reshape(3, 32)[:, 28:]
    assert sorted(map(tuple, rotation.tolist())) == [
        (0, 128, 128, 128), (128, 128, 128, 0), (255, 128, 128, 128)]


def test_splat_puts_the_most_visible_first(tmp_path):
    scene = small_scene(50, 0)
    save(scene, tmp_path / "a.splat")
    again = load(tmp_path / "a.splat")
    visible = opacity(again) * np.exp(again.log_scales.sum(axis=1))
    assert visible[0] > 10 * visible[-1]


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("colors", [True, False])
def test_compressed_ply(tmp_path, degree, colors):
    scene = small_scene(600, degree)
    again = load(write_compressed_ply(tmp_path / "a.compressed.ply", scene, colors=colors))
    assert again.sh_degree == degree
    assert np.abs(again.means - scene.means).max() < 4.2 / 1023
    assert np.abs(again.log_scales - scene.log_scales).max() < 4.2 / 1023
    assert np.abs(opacity(again) - opacity(scene)).max() <= 0.5 / 255 + 1e-5
    assert turn_deg(again, scene).max() < 0.3
    if degree:
        assert np.abs(again.sh[:, 1:] - scene.sh[:, 1:]).max() <= 8 / 256
    assert np.abs(again.sh[:, 0] - scene.sh[:, 0]).max() < 0.03


def test_compressed_ply_sh_bytes(tmp_path):
    """The ends of the byte range are the ends of [-4, 4], the others the middles of their bins."""
    scene = small_scene(3, 1)
    path = write_compressed_ply(tmp_path / "a.ply", scene)
    values = [0, 1, 2, 127, 128, 129, 253, 254, 255]
    path.write_bytes(path.read_bytes()[:-27] + bytes(values * 3))
    want = [-4, -4 + 1.5 / 32, -4 + 2.5 / 32, -0.5 / 32, 0.5 / 32, 1.5 / 32, 4 - 2.5 / 32,
            4 - 1.5 / 32, 4]
    # Channel by channel in the file.
    assert load(path).sh[:, 1:].swapaxes(1, 2).reshape(3, 9).tolist() == [want] * 3


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_sog(tmp_path, version, degree):
    scene = small_scene(40, degree)
    again = load(write_sog(tmp_path / "a.sog", scene, version))
    assert again.sh_degree == degree
    assert np.abs(again.means - scene.means).max() < 1e-4
    assert np.abs(again.log_scales - scene.log_scales).max() < 8 / 255
    assert np.abs(opacity(again) - opacity(scene)).max() < 0.011
    assert np.abs(again.sh[:, 0] - scene.sh[:, 0]).max() < 4 / 255
    assert turn_deg(again, scene).max() < 1.0
    # 30 palette entries, given out in turn.
    assert np.array_equal(again.sh[0, 1:], again.sh[30, 1:])
    if degree:
        assert not np.array_equal(again.sh[0, 1:], again.sh[1, 1:])


def test_sog_unbundled_and_null_codebook(tmp_path):
    scene = small_scene()
    members = sog_members(scene)
    meta = json.loads(members["meta.json"])
    meta["scales"]["codebook"][0] = None
    members["meta.json"] = json.dumps(meta).encode()
    for name, data in members.items():
        (tmp_path / name).write_bytes(data)
    again = load(tmp_path / "meta.json")
    assert np.abs(again.log_scales - scene.log_scales).max() < 8 / 255


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_glb(tmp_path, degree):
    scene = small_scene(30, degree)
    path = tmp_path / "a.glb"
    path.write_bytes(glb(*gltf_parts(scene)))
    again = load(path)
    assert np.array_equal(again.means, scene.means)
    assert np.array_equal(again.sh, scene.sh)
    assert np.allclose(again.log_scales, scene.log_scales, atol=1e-5)
    assert np.allclose(again.opacity_logits, scene.opacity_logits, atol=1e-4)
    assert np.array_equal(again.quats, scene.quats)


def test_gltf_of_the_draft_has_logarithms(tmp_path):
    scene = small_scene(10, 0)
    description, binary = gltf_parts(scene)
    view = description["bufferViews"][2]
    at, end = view["byteOffset"], view["byteOffset"] + view["byteLength"]
    binary = binary[:at] + scene.log_scales.astype("<f4").tobytes() + binary[end:]
    (tmp_path / "a.glb").write_bytes(glb(description, binary))
    assert np.array_equal(load(tmp_path / "a.glb").log_scales, scene.log_scales)


def test_gltf_nodes_place_the_scene(tmp_path):
    scene = small_scene(10, 3)
    description, binary = gltf_parts(scene)
    half = np.sqrt(0.5)
    description["nodes"] = [
        {"children": [1, 2], "scale": [2, 2, 2]},
        {"mesh": 0, "rotation": [0, 0, half, half], "translation": [1, 0, 0]},
        {"mesh": 0, "matrix": np.eye(4).T.reshape(-1).tolist()},
    ]
    (tmp_path / "a.glb").write_bytes(glb(description, binary))
    again = load(tmp_path / "a.glb")
    quarter = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    first = transform(scene, quarter, (2, 0, 0), 2.0)
    assert again.gaussians == 20
    assert np.allclose(again.means[:10], first.means, atol=1e-5)
    assert np.allclose(again.sh[:10], first.sh, atol=1e-5)
    assert np.allclose(again.means[10:], 2 * scene.means, atol=1e-5)


def test_gltf_quantised_and_strided_accessors(tmp_path):
    description, binary = gltf_parts(small_scene(4, 0))
    raw = np.array([[127, 0, 0, 0], [0, 127, 0, 0], [0, 0, -128, 0], [0, 0, 0, 127]], "i1")
    padded = np.concatenate([raw, np.zeros_like(raw)], axis=1).tobytes()
    description["bufferViews"].append(
        {"buffer": 0, "byteOffset": len(binary), "byteLength": len(padded), "byteStride": 8}
    )
    description["accessors"][1] = {
        "bufferView": len(description["bufferViews"]) - 1,
        "componentType": 5120,
        "normalized": True,
        "count": 4,
        "type": "VEC4",
    }
    (tmp_path / "a.glb").write_bytes(glb(description, binary + padded))
    expected = [[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, -1], [1, 0, 0, 0]]
    assert np.array_equal(load(tmp_path / "a.glb").quats, expected)


def test_gltf_text_with_its_buffer_inside_and_beside(tmp_path):
    import base64

    scene = small_scene(6, 1)
    description, binary = gltf_parts(scene)
    inside = "data:application/octet-stream;base64," + base64.b64encode(binary).decode()
    (tmp_path / "data.bin").write_bytes(binary)
    for name, uri in (("a.gltf", inside), ("b.gltf", "data.bin")):
        description["buffers"][0]["uri"] = uri
        (tmp_path / name).write_text(json.dumps(description))
        assert np.array_equal(load(tmp_path / name).means, scene.means)


def test_gltf_with_spz_inside(tmp_path):
    scene = small_scene(25, 2)
    save(scene, tmp_path / "a.spz")
    data = (tmp_path / "a.spz").read_bytes()
    description, _ = gltf_parts(scene)
    description["bufferViews"] = [{"buffer": 0, "byteLength": len(data)}]
    description["buffers"] = [{"byteLength": len(data)}]
    primitive = description["meshes"][0]["primitives"][0]
    primitive["extensions"]["KHR_gaussian_splatting"]["extensions"] = {
        "KHR_gaussian_splatting_compression_spz": {"bufferView": 0}
    }
    (tmp_path / "a.glb").write_bytes(glb(description, data))
    assert np.array_equal(load(tmp_path / "a.glb").sh, load(tmp_path / "a.spz").sh)


def test_files_of_different_formats_merge(every):
    calls = []
    paths = [every["ply.ply"], every["ascii.ply"], every["sog2.sog"]]
    scene = load(*paths, progress=lambda done, total: calls.append((done, total)))
    assert scene.gaussians == 120
    assert scene.sh_degree == 3
    assert not scene.sh[40:80, 1:].any()
    assert calls == [(40, 120), (80, 120), (120, 120)]
    assert np.array_equal(scene.means[40:80], load(paths[1]).means)


def test_drop_non_finite_leaves_those_out(tmp_path):
    scene = small_scene(50)
    save(scene, tmp_path / "a.ply")
    data = bytearray((tmp_path / "a.ply").read_bytes())
    start = data.index(b"end_header\n") + 11
    rows = np.frombuffer(data, "<f4", offset=start).reshape(50, -1)
    rows[3, 0], rows[7, 20], rows[9, 54] = np.nan, np.inf, np.nan
    (tmp_path / "a.ply").write_bytes(data)
    with pytest.raises(SceneError, match=r"means must be finite, not nan at Gaussian 3.*drop_non"):
        load(tmp_path / "a.ply")
    again = load(tmp_path / "a.ply", drop_non_finite=True)
    kept = np.delete(np.arange(50), [3, 7, 9])
    assert np.array_equal(again.sh, scene.sh[kept])
    rows[:] = np.nan
    (tmp_path / "a.ply").write_bytes(data)
    with pytest.raises(SceneError, match="nowhere finite"):
        load(tmp_path / "a.ply", drop_non_finite=True)


# Faults. Each message names the path, the field and what to do.


def _id(value) -> str:
    """Readable names, the same in every process, for parameters that are whole files."""
    return value if isinstance(value, str) else "file"


def refused(path: Path, match: str) -> None:
    with pytest.raises(SceneError, match=match) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert len(message) < 500


def test_paths_that_are_no_scene_file(tmp_path, every):
    refused(tmp_path / "none.ply", "file is missing")
    refused(tmp_path, "is a folder")
    (tmp_path / "empty.ply").touch()
    refused(tmp_path / "empty.ply", "size is 0 bytes")
    (tmp_path / "a.obj").write_text("v 0 0 0")
    refused(tmp_path / "a.obj", "extension must be one of .ply, .splat")
    os.mkfifo(tmp_path / "pipe.ply")
    refused(tmp_path / "pipe.ply", "not a regular file")
    with pytest.raises(SceneError, match="at least one scene file"):
        load()


@pytest.mark.parametrize("suffix", [".ply", ".spz", ".sog", ".glb", ".splat"])
def test_a_png_by_another_name(tmp_path, suffix):
    path = tmp_path / f"image{suffix}"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(56))
    refused(path, "content is a PNG image")


def test_wrong_magic(tmp_path):
    for suffix in (".ply", ".spz", ".sog", ".glb"):
        (tmp_path / f"a{suffix}").write_bytes(b"junk" * 20)
        refused(tmp_path / f"a{suffix}", "magic must be")
    (tmp_path / "a.gltf").write_bytes(b"junk" * 20)
    refused(tmp_path / "a.gltf", "JSON chunk is not JSON")
    (tmp_path / "lfs.ply").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    refused(tmp_path / "lfs.ply", "git lfs pull")
    (tmp_path / "b.ply").write_bytes(b"plymouth rock\nend_header\n")
    refused(tmp_path / "b.ply", "this is not a PLY file")


@pytest.mark.parametrize("name", FORMATS)
def test_every_truncation_is_refused(tmp_path, every, name):
    data = every[name].read_bytes()
    path = tmp_path / every[name].name
    middle = len(data) // 2 - 1
    for size in sorted({1, 5, 12, 19, 30, 100, middle, len(data) - 33, len(data) - 2}):
        if name == "ascii.ply" and size == len(data) - 2:
            continue  # only a digit of the last number is gone
        path.write_bytes(data[:size])
        with pytest.raises(SceneError, match=str(path)):
            load(path)


HUGE = 10**12


def _ply_head(*lines: str, data: bytes = b"") -> bytes:
    return "\n".join(["ply", *lines, "end_header", ""]).encode() + data


GAUSSIAN = [
    f"property float {name}"
    for name in "x y z f_dc_0 f_dc_1 f_dc_2 opacity scale_0 scale_1 scale_2 "
    "rot_0 rot_1 rot_2 rot_3".split()
]
BINARY = "format binary_little_endian 1.0"


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (_ply_head(BINARY, f"element vertex {HUGE}", *GAUSSIAN), "need 56000000000000 bytes"),
        (_ply_head("format ascii 1.0", f"element vertex {HUGE}", *GAUSSIAN), "need 28000000000000"),
        (_ply_head(BINARY, f"element junk {HUGE}", "element vertex 0", *GAUSSIAN), "at least 1"),
        (_ply_head(BINARY, f"element vertex {10**30}", *GAUSSIAN), "not understood"),
        (_ply_head(BINARY, "element vertex -5", *GAUSSIAN), "not understood"),
        (_ply_head(BINARY, "element vertex 0", *GAUSSIAN), "element vertex must be at least 1"),
        (_ply_head(BINARY, "element vertex 1", *GAUSSIAN[:6]), "need 24 bytes"),
        (_ply_head(BINARY, "element vertex 1", *GAUSSIAN[:6], data=bytes(24)), "'opacity' is miss"),
        (_ply_head(BINARY, "element face 0"), "element vertex is missing"),
        (_ply_head("element vertex 1", *GAUSSIAN), "format is missing"),
        (_ply_head(BINARY, "element vertex 1", "property list uchar int i"), "is a list property"),
        (_ply_head(BINARY, "property float x"), "not understood"),
        (_ply_head(BINARY, "element vertex 1", *GAUSSIAN, "property blob y"), "not understood"),
        (_ply_head(BINARY, "element vertex 1", *GAUSSIAN, GAUSSIAN[0]), "not understood"),
        (
            _ply_head(
                BINARY, "element vertex 1", *GAUSSIAN, "property float f_rest_0", data=bytes(60)
            ),
            "f_rest properties must be 0, 9, 24 or 45",
        ),
        (b"ply\n" + b"comment " + b"x" * 100_000, "end_header must come within"),
        (b"ply\nformat ascii 1.0\nend_header", "not followed by data"),
        (
            _ply_head(
                "format ascii 1.0", "element vertex 1", *GAUSSIAN, data=b"1 2 x" + b" 1" * 11
            ),
            "data does not fit the header",
        ),
        (
            _ply_head(BINARY, "element chunk 1", "element vertex 1", *GAUSSIAN, data=bytes(56)),
            "chunk property 'min_x' must be of the type f4",
        ),
        (_ply_head(BINARY, "element chunk 1", data=bytes(9)), "elements chunk and vertex must"),
    ],
    ids=_id,
)
def test_ply_faults(tmp_path, data, match):
    (tmp_path / "a.ply").write_bytes(data)
    refused(tmp_path / "a.ply", match)


def test_compressed_ply_faults(tmp_path):
    path = write_compressed_ply(tmp_path / "a.ply", small_scene(300))
    data = path.read_bytes()
    path.write_bytes(data.replace(b"element chunk 2", b"element chunk 1"))
    refused(path, "must have one row for each 256 of 300")
    path.write_bytes(data.replace(b"element sh 300", b"element sh 299"))
    refused(path, "element sh must hold")


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (_spz(3, version=7), "version must be 1, 2 or 3, not 7"),
        (_spz(0), "numPoints must be at least 1"),
        (_gzip(struct.pack("<4sIIBBBB", b"NGSP", 3, 2**32 - 1, 3, 12, 0, 0)), "at most"),
        (_gzip(struct.pack("<4sIIBBBB", b"NGSP", 3, 10**8, 3, 12, 0, 0)), "must fit the"),
        (_gzip(struct.pack("<4sIIBBBB", b"NGSP", 3, 10**6, 3, 12, 0, 0)), "must fit the"),
        (_spz(3, degree=4), "shDegree must be 0 to 3, not 4"),
        (_spz(3, bits=24), "fractionalBits must be 0 to 23, not 24"),
        (_spz(3, extra=b"more"), "must end after 76 bytes, but goes on"),
        (_spz(3, extra=bytes(1 << 24)), "goes on"),
        (_gzip(b"NOPE" + bytes(40)), "magic must be"),
        (_gzip(b"NGSP"), "break off after 4"),
        (b"\x1f\x8b" + b"\7" * 60, "gzip stream is damaged"),
        (b"NGSP" + struct.pack("<I", 4) + bytes(60), "not 4: convert it"),
        (_spz(3)[:-4], "break off"),
    ],
    ids=_id,
)
def test_spz_faults(tmp_path, data, match):
    (tmp_path / "a.spz").write_bytes(data)
    refused(tmp_path / "a.spz", match)


def test_spz_extensions_are_skipped(tmp_path):
    (tmp_path / "a.spz").write_bytes(_spz(3, flags=2, extra=b"anything"))
    assert load(tmp_path / "a.spz").gaussians == 3


def test_spz_version_1_has_half_positions(tmp_path):
    head = struct.pack("<4sIIBBBB", b"NGSP", 1, 1, 0, 12, 0, 0)
    body = np.array([1.5, -2, 0.25], "<f2").tobytes() + bytes(10)
    (tmp_path / "a.spz").write_bytes(_gzip(head + body))
    assert np.array_equal(load(tmp_path / "a.spz").means, [[1.5, -2, 0.25]])


def test_splat_faults(tmp_path):
    path = tmp_path / "a.splat"
    path.write_bytes(bytes(33))
    refused(path, "size must be a multiple of 32")
    record = np.zeros(4, np.dtype([("f", "<f4", 6), ("b", "u1", 8)]))
    record["f"][2, 4] = -1
    path.write_bytes(record.tobytes())
    refused(path, "scale must not be negative, not .* at Gaussian 2")
    record["f"][2, 4], record["f"][1, 0] = 1, np.nan
    path.write_bytes(record.tobytes())
    refused(path, "means must be finite")


NOISE = webp(np.random.default_rng(0).integers(0, 256, (8, 8, 4)))


def _meta(**changes):
    meta = json.loads(sog_members(small_scene())["meta.json"])
    for key, value in changes.items():
        *outer, last = key.split("__")
        target = meta
        for name in outer:
            target = target[name]
        if value is ...:
            del target[last]
        else:
            target[last] = value
    return {"meta.json": json.dumps(meta).encode()}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"meta.json": b"{"}, "meta.json is not JSON"),
        ({"meta.json": b"[" * 100_000}, "not JSON .nested too deeply"),
        ({"meta.json": b"[1]"}, "must be a JSON object"),
        ({"meta.json": b" " * (1 << 21)}, "must be at most 1048576 bytes"),
        (_meta(version=3), "version must be a whole number from 1 to 2, not 3"),
        (_meta(count="many"), "count must be a whole number"),
        (_meta(count=HUGE), "count must be at most"),
        (_meta(count=10**8), "count must fit the file"),
        (_meta(count=0), "count must be at least 1"),
        (_meta(count=65), "must have a pixel for each of 65"),
        (_meta(count=True), "count must be a whole number"),
        (_meta(antialias="yes"), "antialias must be true or false"),
        (_meta(means=...), "means is missing"),
        (_meta(means=[1]), "means must be a JSON object"),
        (_meta(means__mins=[0, 0]), r"means.mins must be finite numbers of the shape \(3,\)"),
        (_meta(means__mins=[0, 0, "x"]), "means.mins must be finite"),
        (_meta(means__maxs=[0, 0, 1e999]), "means.maxs must be finite"),
        (_meta(means__maxs=[0, 0, 10**400]), "means.maxs must be finite"),
        (_meta(means__maxs=[0, 0, 800.0]), "means must be finite, not inf"),
        (_meta(means__files=["means_l.webp"]), "means.files must be 2 strings"),
        (_meta(quats__files=["../../x"]), "is missing in the zip"),
        (_meta(scales__codebook=[1.0] * 255), "scales.codebook must be finite numbers"),
        (_meta(scales__codebook=[1e300] * 256), "log_scales must be finite"),
        (_meta(shN__bands=4), "shN.bands must be a whole number from 1 to 3"),
        (_meta(shN__bands=2), "must be 512 x 1 to 1024 pixels, not 960 x 1"),
        (_meta(shN__count=3), "shN label must be below 3, not 3 at Gaussian 3"),
        ({"quats.webp": b"RIFF"}, "is not a WebP image"),
        ({"quats.webp": webp(np.zeros((8, 8, 4)))}, "quats tag must be 252 to 255, not 0"),
        ({"quats.webp": webp(np.zeros((2, 2, 4)))}, "must have a pixel for each of 40"),
        ({"quats.webp": webp(np.zeros((400, 400, 4)))}, "must have a pixel for each of 40"),
        ({"quats.webp": NOISE[: len(NOISE) // 2]}, "cannot be decoded"),
    ],
    ids=_id,
)
def test_sog_faults(tmp_path, changes, match):
    refused(write_sog(tmp_path / "a.sog", small_scene(), **changes), match)


@pytest.mark.parametrize("entries", [29, 30])
def test_sog_labels_end_at_the_palette(tmp_path, entries):
    """Labels 0 to 29: a palette of 30 holds them, one of 29 does not."""
    path = write_sog(tmp_path / "a.sog", small_scene(), **_meta(shN__count=entries))
    if entries == 29:
        refused(path, "shN label must be below 29, not 29 at Gaussian 29")
    else:
        assert load(path).gaussians == 40


def test_sog_version_1_palette_is_the_plane(tmp_path):
    """64 entries to a row of centroids: label 64 is behind one row."""
    labels = np.full((8, 8, 4), 255, np.uint8)
    labels[..., :3] = 0
    labels[0, 3, 0] = 63
    member = {"shN_labels.webp": webp(labels)}
    assert load(write_sog(tmp_path / "a.sog", small_scene(), 1, **member)).gaussians == 40
    labels[0, 3, 0] = 64
    member = {"shN_labels.webp": webp(labels)}
    refused(write_sog(tmp_path / "b.sog", small_scene(), 1, **member),
            "shN label must be below 64, not 64 at Gaussian 3")


def test_pipes_beside_a_scene_file(tmp_path):
    for name, data in sog_members(small_scene()).items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "quats.webp").unlink()
    os.mkfifo(tmp_path / "quats.webp")
    refused(tmp_path / "meta.json", "'quats.webp' cannot be read .*not a regular file")
    description, binary = gltf_parts(small_scene())
    description["buffers"] = [{"byteLength": len(binary), "uri": "pipe.bin"}]
    os.mkfifo(tmp_path / "pipe.bin")
    (tmp_path / "a.gltf").write_text(json.dumps(description))
    refused(tmp_path / "a.gltf", "'pipe.bin' cannot be read .*not a regular file")


def test_sog_version_1_faults(tmp_path):
    def write(**changes):
        members = sog_members(small_scene(), 1)
        meta = json.loads(members["meta.json"])
        meta["means"] |= changes
        return write_sog(
            tmp_path / "a.sog", small_scene(), 1, **{"meta.json": json.dumps(meta).encode()}
        )

    refused(write(shape=[]), "means.shape must begin with a whole number")
    refused(write(shape=["x"]), "means.shape must begin")
    narrow = {"shN_centroids.webp": webp(np.zeros((1, 64, 3)))}
    refused(write_sog(tmp_path / "b.sog", small_scene(), 1, **narrow), "width must be one of")


def test_sog_zip_faults(tmp_path):
    path = tmp_path / "a.sog"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other", b"x")
    refused(path, "'meta.json' is missing in the zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("meta.json", b"{}")
    refused(path, "must be stored or deflated")
    data = write_sog(path, small_scene()).read_bytes()
    path.write_bytes(data[:-30] + b"\xff" * 30)
    refused(path, "zip archive is damaged")


def test_sog_zip_bomb_is_not_inflated(tmp_path):
    path = tmp_path / "a.sog"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sog_members(small_scene()).items():
            big = name == "quats.webp"
            archive.writestr(name, data + bytes(1 << 27) if big else data)
    refused(path, "must be at most")


def test_unbundled_sog_faults(tmp_path):
    for name, data in sog_members(small_scene()).items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "quats.webp").unlink()
    refused(tmp_path / "meta.json", "'quats.webp' cannot be read")
    (tmp_path / "meta.json").write_bytes(_meta(means__files=["../x", "y"])["meta.json"])
    refused(tmp_path / "meta.json", "must be a plain name")


def _gltf(**changes):
    description, binary = gltf_parts(small_scene(10, 1))
    for key, value in changes.items():
        target, names = description, [int(n) if n.isdigit() else n for n in key.split("__")]
        for name in names[:-1]:
            target = target[name]
        if value is ...:
            del target[names[-1]]
        else:
            target[names[-1]] = value
    return glb(description, binary)


OK = _gltf()


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (OK[:16], "GLB header must be 20 bytes"),
        (b"glTF" + struct.pack("<I", 1) + OK[8:], "GLB version must be 2, not 1"),
        (OK[:8] + struct.pack("<I", 2**31) + OK[12:], "GLB length must be at most"),
        (OK[:12] + struct.pack("<I", 2**31) + OK[16:], "first GLB chunk must be JSON"),
        (OK[:20] + b"!" + OK[21:], "JSON chunk is not JSON"),
        (_gltf(meshes=[]), "must have a primitive with the extension"),
        (_gltf(meshes__0__primitives=5), "primitives must be an array"),
        (_gltf(accessors__0__bufferView=99), "bufferView must be below"),
        (_gltf(accessors__0__bufferView=-1), "bufferView must be a whole number"),
        (_gltf(accessors__0__count=HUGE), "count must fit its buffer view"),
        (_gltf(accessors__0__count=9), "count must be that of POSITION, 9"),
        (_gltf(accessors__0__byteOffset=-12), "byteOffset must be a whole number"),
        (_gltf(accessors__0__byteOffset=8), "must fit its buffer view"),
        (_gltf(accessors__0__type="VEC4"), "type must be VEC3"),
        (_gltf(accessors__0__componentType=7), "componentType must be one of"),
        (_gltf(accessors__0__normalized=True), "normalized must be false for floats"),
        (_gltf(accessors__0__sparse={"count": 1}), "sparse accessors are not supported"),
        (_gltf(bufferViews__0__byteLength=HUGE), "must end within"),
        (_gltf(bufferViews__0__byteOffset=-4), "byteOffset must be a whole number"),
        (_gltf(bufferViews__0__byteStride=4), "must fit its buffer view"),
        (_gltf(bufferViews__0__buffer=3), "buffer must be below 1"),
        (_gltf(buffers__0__uri="../secret"), "must name a file in the same folder"),
        (_gltf(buffers__0__uri="none.bin"), "cannot be read"),
        (_gltf(buffers__0__uri="data:;base64,!"), "is not base64"),
        (_gltf(buffers=[{}, {}], bufferViews__0__buffer=1), "uri is missing"),
        (_gltf(meshes__0__primitives__0__attributes__POSITION=99), "accessor must be below"),
        (_gltf(nodes__0__mesh=5), "mesh must be a whole number from 0 to 0"),
        (_gltf(nodes__0__children=[0]), "tree of at most"),
        (_gltf(nodes__0__children=[7]), "must be node numbers below 1"),
        (_gltf(nodes__0__scale=[1, 2, 1]), "must be a rotation, a uniform"),
        (_gltf(nodes__0__scale=[0, 0, 0]), "must be a rotation, a uniform"),
        (_gltf(nodes__0__rotation=[0, 0, 0, 0]), "must be a unit quaternion"),
        (_gltf(nodes__0__matrix=[1] * 15), "matrix must be finite numbers"),
        (_gltf(nodes__0__translation=[1e200, 0, 0]), "means must be"),
        (_gltf(scenes__0__nodes="x"), "nodes must be an array"),
    ],
    ids=_id,
)
def test_gltf_faults(tmp_path, data, match):
    (tmp_path / "a.glb").write_bytes(data)
    refused(tmp_path / "a.glb", match)


def test_gltf_opacity_out_of_range(tmp_path):
    description, binary = gltf_parts(small_scene(10, 0))
    at = description["bufferViews"][3]["byteOffset"]
    binary = binary[:at] + struct.pack("<f", 1.5) + binary[at + 4 :]
    (tmp_path / "a.glb").write_bytes(glb(description, binary))
    refused(tmp_path / "a.glb", "OPACITY must be from 0 to 1, not 1.5 at Gaussian 0")


def test_gltf_of_many_instances_is_bounded(tmp_path):
    description, binary = gltf_parts(small_scene(2000, 0))
    description["nodes"] = [{"mesh": 0}] * 600
    description["scenes"][0]["nodes"] = list(range(600))
    (tmp_path / "a.glb").write_bytes(glb(description, binary))
    refused(tmp_path / "a.glb", "must fit the file")


def test_mixed_flags_do_not_merge(tmp_path):
    save(small_scene(), tmp_path / "a.spz")
    save(small_scene(antialiased=True), tmp_path / "b.spz")
    with pytest.raises(SceneError, match=r"a.spz: antialiased must be the same"):
        load(tmp_path / "a.spz", tmp_path / "b.spz")


def test_an_antialiased_flag_that_is_given(tmp_path):
    """It stands whatever the files say, and files that differ merge under it."""
    for name, flag in (("a.ply", True), ("b.ply", False)):
        save(small_scene(20, 0, antialiased=flag), tmp_path / name)
    a, b = tmp_path / "a.ply", tmp_path / "b.ply"
    for flag in (True, False):
        assert load(a, antialiased=flag).antialiased is flag
        assert load(b, antialiased=flag).antialiased is flag
        merged = resolve(a, b, antialiased=flag)
        assert (merged.gaussians, merged.antialiased) == (40, flag)
        assert resolve("default", a, b, antialiased=flag).antialiased is flag
        assert resolve("default", antialiased=flag).antialiased is flag
    with pytest.raises(SceneError, match="antialiased must be the same in all files"):
        resolve(a, b)


def test_a_scene_beyond_memory_is_one_line(every, monkeypatch):
    def full(*_):
        raise MemoryError

    monkeypatch.setattr(scene_files_module.Slots, "allocate", full)
    refused(every["ply.ply"], "40 Gaussians of SH degree 3 need 0.0 GiB of memory")


def test_memory_that_ends_while_reading_is_one_line(every, monkeypatch):
    def full(*_):
        raise MemoryError

    monkeypatch.setattr(scene_files_module.SplatSource, "read", full)
    refused(every["splat.splat"], "of memory")


def test_an_unreadable_file_is_one_line(every, monkeypatch):
    def denied(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(scene_files_module.SplatSource, "read", denied)
    refused(every["splat.splat"], "Permission denied")


def test_interrupts_pass_through(every, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(scene_files_module.SplatSource, "read", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load(every["splat.splat"])


# Writing.


@pytest.mark.parametrize("name", ["a.sog", "a.glb", "a", "a.compressed.ply"])
def test_formats_that_cannot_be_written(tmp_path, name):
    with pytest.raises(SceneError, match="extension must be one of"):
        save(small_scene(), tmp_path / name)


def test_an_empty_scene_is_not_written(tmp_path):
    empty = small_scene().select(slice(0, 0))
    with pytest.raises(SceneError, match="at least one Gaussian"):
        save(empty, tmp_path / "a.ply")
    with pytest.raises(SceneError, match="gaussians must be at least 1"):
        write_spz(empty, tmp_path / "a.spz")


@pytest.mark.parametrize(
    ("arguments", "match"), [({"version": 4}, "version must be"), ({"sh_bits": (9, 4)}, "sh_bits")]
)
def test_spz_writer_refuses(tmp_path, arguments, match):
    with pytest.raises(SceneError, match=match):
        write_spz(small_scene(), tmp_path / "a.spz", **arguments)


def test_spz_refuses_a_scene_that_is_too_wide(tmp_path):
    with pytest.raises(SceneError, match="means must be within 4194304"):
        save(small_scene(means=np.full((40, 3), 1e8)), tmp_path / "a.spz")


@pytest.mark.parametrize("widest", [1e-3, 1.0, 63.999, 2.0**21])
def test_spz_spends_its_position_bits_on_the_scene(tmp_path, widest):
    means = np.random.default_rng(0).uniform(-widest, widest, (40, 3)).astype(np.float32)
    means[0, 0] = -widest
    save(small_scene(means=means), tmp_path / "a.spz")
    step = max(widest * 2.0**-22, 2.0**-23)
    assert np.abs(load(tmp_path / "a.spz").means - means).max() <= step


@pytest.mark.parametrize("suffix", [".ply", ".splat", ".spz"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"old")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SceneError, match=r"cannot be written .No space left on device"):
        save(small_scene(), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(SceneError, match="No such file or directory"):
        save(small_scene(), tmp_path / "none" / "a.ply")


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save(small_scene(), tmp_path / "a.ply")
    assert list(tmp_path.iterdir()) == []


# Real captures.


@pytest.mark.parametrize(
    ("name", "gaussians", "degree", "antialiased"),
    [
        ("inari_fox_50k.ply", 50_000, 0, False),
        ("inari_fox_50k_khr.glb", 50_000, 0, False),
        ("plant_114k.splat", 113_648, 0, False),
        ("fourth_st_131k_sh3.spz", 131_199, 3, True),
        ("playbot_lod4_8k_sh2.sog", 8_406, 2, False),
        ("statue_angel_71k.compressed.ply", 71_377, 0, False),
        ("tnt_train_first1000_sh3.ply", 1_000, 3, False),
        ("semarang_city_9_sh3.sog", 252_828, 3, False),
    ],
)
def test_captures(shared_scene, name, gaussians, degree, antialiased):
    scene = load(shared_scene(name))
    assert (scene.gaussians, scene.sh_degree) == (gaussians, degree)
    assert scene.antialiased is antialiased


def test_the_fox_is_the_same_in_ply_and_glb(shared_scene):
    ply = load(shared_scene("inari_fox_50k.ply"))
    turned = transform(load(shared_scene("inari_fox_50k_khr.glb")), np.diag([-1.0, -1, 1]))
    assert np.array_equal(ply.means, turned.means)
    assert np.array_equal(ply.sh, turned.sh)
    assert np.allclose(ply.log_scales, turned.log_scales, atol=1e-5)
    assert np.allclose(opacity(ply), opacity(turned), atol=1e-6)
    assert turn_deg(ply, turned).max() < 0.1


def test_the_angel_is_the_same_in_sog_and_compressed_ply(shared_scene):
    """Two exports of one scene, 18 Gaussians apart, one turned by 180 degrees about z."""
    sog = load(shared_scene("statue_angel_71k.sog"))
    ply = load(shared_scene("statue_angel_71k.compressed.ply"))
    ply = transform(ply, np.diag([-1.0, -1, 1]))
    assert np.allclose(sog.bbox_max, ply.bbox_max, atol=1e-3)
    cells = {tuple(cell): i for i, cell in enumerate(np.rint(ply.means * 2000).astype(int))}
    pairs = [
        (i, cells[tuple(cell)])
        for i, cell in enumerate(np.rint(sog.means * 2000).astype(int))
        if tuple(cell) in cells
    ]
    assert len(pairs) > 15_000
    a, b = (
        scene.select(index)
        for scene, index in zip((sog, ply), zip(*pairs, strict=True), strict=True)
    )
    assert np.mean((np.abs(a.sh - b.sh) < 0.02).all(axis=(1, 2))) > 0.9
    assert np.mean((np.abs(a.log_scales - b.log_scales) < 0.08).all(axis=1)) > 0.9
    assert np.mean(turn_deg(a, b) < 1.5) > 0.9
    assert np.mean(np.abs(opacity(a) - opacity(b)) < 0.01) > 0.9


@pytest.mark.parametrize("version", [2, 3])
def test_spz_of_a_capture_round_trips(shared_scene, tmp_path, version):
    scene = load(shared_scene("fourth_st_131k_sh3.spz")).select(slice(0, 20_000))
    save(scene, tmp_path / "a.spz", spz_version=version)
    again = load(tmp_path / "a.spz")
    assert np.array_equal(again.sh, scene.sh)
    assert np.array_equal(again.log_scales, scene.log_scales)
    assert np.array_equal(again.means, scene.means)
    assert np.allclose(opacity(again), opacity(scene), atol=1e-6)


def test_reading_raises_no_warning(every):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in every.values():
            load(path)
            assert open_scene(path).gaussians == 40

"""Damaged files of every format: a scene or one SceneError, whatever was changed."""

import struct
import sys
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from splatforge.scenes import Scene, SceneError, load, load_cameras

sys.path.insert(0, str(Path(__file__).parent))
from scene_files import small_scene, sog_members, write_every_format

QUICK = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
NAMES = [
    *("ply.ply", "splat.splat", "spz3.spz", "spz2.spz", "ascii.ply", "packed.compressed.ply"),
    *("sog1.sog", "sog2.sog", "khr.glb"),
]
SPECIAL = [b"\0", b"\xff", b"\xff\xff\xff\xff", b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\xff" * 8]

mutations = st.lists(
    st.one_of(
        st.tuples(st.just("byte"), st.floats(0, 1), st.integers(0, 255)),
        st.tuples(st.just("special"), st.floats(0, 1), st.sampled_from(SPECIAL)),
        st.tuples(st.just("cut"), st.floats(0, 1), st.integers(1, 64)),
        st.tuples(st.just("double"), st.floats(0, 1), st.integers(1, 64)),
        st.tuples(st.just("digit"), st.floats(0, 1), st.sampled_from(list('0123456789-.e[]{}"'))),
        st.tuples(st.just("truncate"), st.floats(0, 1), st.just(0)),
    ),
    min_size=1,
    max_size=6,
)


def mutate(data: bytes, steps) -> bytes:
    for kind, where, what in steps:
        at = min(int(where * len(data)), len(data) - 1)
        if at < 0:
            break
        match kind:
            case "byte":
                data = data[:at] + bytes([what]) + data[at + 1 :]
            case "special":
                data = data[:at] + what + data[at + len(what) :]
            case "cut":
                data = data[:at] + data[at + what :]
            case "double":
                data = data[: at + what] + data[at:]
            case "digit":
                # In texts, a change of a digit goes deeper than one of any byte.
                digits = [i for i in range(at, min(at + 400, len(data))) if 48 <= data[i] < 58]
                if digits:
                    data = data[: digits[0]] + what.encode() + data[digits[0] + 1 :]
            case _:
                data = data[:at]
    return data


@pytest.fixture(scope="module")
def valid(tmp_path_factory) -> dict[str, bytes]:
    paths = write_every_format(tmp_path_factory.mktemp("valid"))
    return {name: path.read_bytes() for name, path in paths.items()}


def check(path: Path) -> None:
    """Load ``path``: a valid scene, or one line that names it."""
    try:
        outcome = load(path)
    except SceneError as error:
        outcome = str(error)
    if isinstance(outcome, Scene):
        assert np.isfinite(outcome.means).all()
    else:
        assert outcome.startswith(f"{path}: ")
        assert "\n" not in outcome


@pytest.mark.parametrize("name", NAMES)
@QUICK
@given(steps=mutations)
def test_mutated_files(tmp_path, valid, name, steps):
    path = tmp_path / name
    path.write_bytes(mutate(valid[name], steps))
    check(path)


@QUICK
@given(steps=mutations)
@pytest.mark.parametrize("name", ["spz2.spz", "spz3.spz"])
def test_mutated_spz_contents(tmp_path, valid, name, steps):
    """Behind the checksum of gzip, where a flipped byte in the file seldom gets."""
    content = zlib.decompress(valid[name], 31)
    path = tmp_path / name
    stream = zlib.compressobj(1, zlib.DEFLATED, 31)
    path.write_bytes(stream.compress(mutate(content, steps)) + stream.flush())
    check(path)


MEMBERS = {version: sog_members(small_scene(), version) for version in (1, 2)}


@QUICK
@given(
    version=st.sampled_from([1, 2]),
    member=st.sampled_from(sorted(MEMBERS[2])),
    steps=mutations,
    drop=st.booleans(),
)
def test_mutated_sog_members(tmp_path, version, member, steps, drop):
    path = tmp_path / "a.sog"
    members = dict(MEMBERS[version])
    members[member] = mutate(members[member], steps)
    if drop and len(steps) == 1:
        del members[member]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    check(path)


@QUICK
@given(data=st.binary(max_size=200), name=st.sampled_from(NAMES))
def test_any_bytes(tmp_path, data, name):
    path = tmp_path / name
    path.write_bytes(data)
    check(path)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["means_l.webp", "../x", "KHR_gaussian_splatting"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                "version count means scales quats sh0 shN files mins maxs codebook bands frames w "
                "h transform_matrix fl_x meshes primitives attributes extensions nodes rotation "
                "position accessors bufferViews buffers KHR_gaussian_splatting POSITION fx fy "
                "width height".split()
            ),
            inner,
            max_size=8,
        )
    ),
    max_leaves=20,
)


@QUICK
@given(value=json_values, kind=st.sampled_from(["sog", "gltf", "glb"]))
def test_any_json(tmp_path, value, kind):
    import json

    text = json.dumps(value).encode()
    path = tmp_path / f"a.{kind}"
    if kind == "sog":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("meta.json", text)
    elif kind == "gltf":
        path.write_bytes(text)
    else:
        head = struct.pack("<4sIII4s", b"glTF", 2, 20 + len(text), len(text), b"JSON")
        path.write_bytes(head + text)
    check(path)


@QUICK
@given(value=json_values)
def test_any_json_of_cameras(tmp_path, value):
    import json

    path = tmp_path / "transforms.json"
    path.write_text(json.dumps(value))
    try:
        outcome = load_cameras(path).name
    except SceneError as error:
        outcome = str(error)
    assert outcome.startswith((f"{path}: ", "transforms"))


@pytest.mark.parametrize("name", ["ply.ply", "spz3.spz", "sog2.sog", "khr.glb"])
def test_no_header_makes_memory_grow(tmp_path, valid, name):
    """Every 4-byte word of the beginning made huge: at most a few MiB are ever taken."""
    data = valid[name]
    if name == "spz3.spz":
        data = zlib.decompress(data, 31)
    path = tmp_path / name
    load_once = tmp_path / f"warm-{name}"
    load_once.write_bytes(valid[name])
    load(load_once)
    for at in range(0, 64):
        for word in (b"\xff\xff\xff\x7f", b"\x00\x00\x00\x10", b"\x00\x00\x00\x03", b"9999"):
            changed = data[:at] + word + data[at + 4 :]
            if name == "spz3.spz":
                stream = zlib.compressobj(1, zlib.DEFLATED, 31)
                changed = stream.compress(changed) + stream.flush()
            path.write_bytes(changed)
            tracemalloc.start()
            check(path)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert peak < 16 << 20

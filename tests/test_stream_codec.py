"""Gaussians there and back: within half a step, alike in any company, and the codec itself."""

import re
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splatforge.algos import reference
from splatforge.algos.quality import psnr_db
from splatforge.algos.voyager.codec import Codec, fit_codec
from splatforge.algos.voyager.wire import WireError, pack_ids, unpack_ids
from splatforge.designs.streaming import LinkDesign, StreamingDesign
from splatforge.scenes import default_camera, load

sys.path.insert(0, str(Path(__file__).parent))
from gaussians import camera, random_scene

SMALL = StreamingDesign(sh1=(5,), sh2=(5, 4), sh3=(5,))


def unit(quats):
    return quats / np.linalg.norm(quats.astype(np.float64), axis=1, keepdims=True)


@pytest.mark.parametrize("degree", [0, 1, 3])
@pytest.mark.parametrize("bits", [8, 13, 16, 20])
def test_numbers_come_back_within_half_a_step(degree, bits):
    scene = random_scene(150, bits, sh_degree=degree)
    design = replace(SMALL, position_bits=bits, scale_bits=bits, rotation_bits=bits,
                     opacity_bits=bits, color_bits=bits)
    codec = fit_codec(scene, design)
    data = codec.encode(scene)
    assert len(data) == codec.size_bytes(150)
    back = codec.decode(data, 150)
    for name, array, got in (("position", scene.means, back.means),
                             ("scale", scene.log_scales, back.log_scales),
                             ("color", scene.sh[:, 0], back.sh[:, 0])):
        low, high = codec.ranges[name]
        step = (high - low) / ((1 << bits) - 1)
        assert (np.abs(got - array.astype(float)) <= 0.5001 * step + 1e-6 * np.abs(array)).all()
    opacity = [1 / (1 + np.exp(-s.opacity_logits.astype(float))) for s in (scene, back)]
    assert np.abs(opacity[1] - opacity[0]).max() <= 0.5001 * 2.0**-bits + 1e-6
    cosine = np.abs((unit(scene.quats) * unit(back.quats)).sum(axis=1))
    # Half a step in three components, and what follows in the fourth, which is at least a half.
    assert (2 * np.arccos(np.minimum(cosine, 1))).max() <= 4 * 2.0**-bits * 2**0.5 + 1e-4
    # What has been coded codes to itself.
    assert codec.encode(back) == data


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), picked=st.lists(st.integers(0, 79), unique=True))
def test_company_does_not_matter(seed, picked):
    scene = random_scene(80, seed % 3, sh_degree=3)
    codec = CODECS[seed % 3]
    alone = codec.decode(codec.encode(scene.select(np.array(picked, int))), len(picked))
    among = codec.decode(codec.encode(scene), 80).select(np.array(picked, int))
    for name in ("means", "log_scales", "quats", "opacity_logits", "sh"):
        assert np.array_equal(getattr(alone, name), getattr(among, name))


CODECS = [fit_codec(random_scene(80, seed, sh_degree=3), SMALL) for seed in range(3)]


def test_what_is_flat_or_all_alike_is_coded():
    scene = random_scene(5, 1, sh_degree=1)
    flat = replace(scene, means=np.ones((5, 3)), log_scales=np.full((5, 3), -np.float32(1e9)),
                   quats=np.tile([-2.0, 0, 0, 0], (5, 1)), opacity_logits=[-200.0, 200, 0, 1, -1])
    codec = fit_codec(flat, SMALL)
    back = codec.decode(codec.encode(flat), 5)
    assert (back.means == 1).all()
    assert (back.log_scales == -30).all()
    assert np.allclose(back.quats, [1, 0, 0, 0], atol=1e-4)
    assert np.isfinite(back.opacity_logits).all()
    empty = fit_codec(scene.select(slice(0)), SMALL)
    assert empty.decode(empty.encode(scene.select(slice(0))), 0).gaussians == 0


def test_the_codec_travels():
    codec = CODECS[1]
    data = codec.to_bytes()
    again = Codec.from_bytes(data, StreamingDesign())
    assert again.to_bytes() == data
    assert again.digest() == codec.digest() != CODECS[0].digest()
    scene = random_scene(80, 1, sh_degree=3)
    assert again.encode(scene) == codec.encode(scene)
    for end in (0, 5, 12, len(data) - 1):
        with pytest.raises(WireError, match="Codec must have"):
            Codec.from_bytes(data[:end], StreamingDesign())
    with pytest.raises(WireError, match="Codec must end at"):
        Codec.from_bytes(data + b"x", StreamingDesign())


@settings(max_examples=80, deadline=None)
@given(place=st.integers(0, 250), value=st.integers(0, 255))
def test_a_damaged_codec_is_refused_or_decodes(place, value):
    data = bytearray(CODECS[0].to_bytes())
    data[place] = value
    try:
        codec = Codec.from_bytes(bytes(data), StreamingDesign())
    except WireError:
        return
    with suppress(WireError):  # what cannot be drawn
        codec.decode(bytes(k % 251 for k in range(codec.size_bytes(9))), 9)


@settings(max_examples=100, deadline=None)
@given(ids=st.sets(st.one_of(st.integers(0, 300), st.integers(0, 2**35 - 1))))
def test_ids_come_back(ids):
    array = np.array(sorted(ids), np.int64)
    data = pack_ids(array)
    assert unpack_ids(data, len(ids)).tolist() == array.tolist()
    with pytest.raises(WireError, match="Ids must be"):
        unpack_ids(data, len(ids) + 1)
    if len(data) > 1:
        with pytest.raises(WireError, match="Ids must be"):
            unpack_ids(data[:-1], len(ids))


def test_dense_ids_take_a_byte_each():
    assert len(pack_ids(np.arange(0, 5000, 3))) == 1667
    for wrong in ([2, 1], [1, 1], [-1, 2], [2**35]):
        with pytest.raises(WireError, match="ascend from 0"):
            pack_ids(np.array(wrong))
    with pytest.raises(WireError, match="at most 5 bytes, not 6"):
        unpack_ids(b"\x80\x80\x80\x80\x80\x01", 1)


@pytest.mark.parametrize(("changes", "message"), [
    ({"reuse_window": -1}, "Streaming reuse_window must be 0 to 65535, not -1"),
    ({"position_bits": 25}, "Streaming position_bits must be 8 to 24, not 25"),
    ({"sh2": ()}, "Streaming sh2 must be one to four of 1 to 14 bits, not ()"),
    ({"sh3": (15,)}, "Streaming sh3 must be one to four of 1 to 14 bits, not (15,)"),
    ({"log_messages": 0}, "Streaming log_messages must be 1 to 4096, not 0"),
    ({"entropy": "magic"}, "Streaming entropy must be one of none, zlib, not 'magic'")])
def test_designs_are_checked(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        StreamingDesign(**changes)


@pytest.mark.parametrize(("changes", "message"), [
    ({"bandwidth_mbps": 0}, "Link bandwidth_mbps must be positive, not 0"),
    ({"latency_ms": -1}, "Link latency_ms must be 0 to 10000, not -1"),
    ({"burst_bytes": 3}, "Link burst_bytes must be 1024 to 1073741824, not 3")])
def test_links_are_checked(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        LinkDesign(**changes)


def test_a_gaussian_takes_34_bytes_of_236():
    assert StreamingDesign().gaussian_bits(3) == 267


def test_more_bits_are_nearer_to_the_picture():
    scene = random_scene(400, 9, sh_degree=3)
    view = camera(96, 80)
    exact = reference.render(scene, view).image
    quality = []
    for position, stages in ((8, (2,)), (12, (5,)), (16, (7, 6))):
        design = StreamingDesign(position_bits=position, sh1=stages, sh2=stages, sh3=stages)
        codec = fit_codec(scene, design)
        coded = codec.decode(codec.encode(scene), scene.gaussians)
        quality.append(psnr_db(reference.render(coded, view).image, exact))
    assert quality == sorted(quality)
    assert quality[2] - quality[0] > 6


@pytest.mark.matrix
def test_what_coding_a_capture_costs(shared_scene):
    scene = load(shared_scene("fourth_st_131k_sh3.spz"))
    codec = fit_codec(scene, StreamingDesign())
    coded = codec.decode(codec.encode(scene), scene.gaussians)
    view = default_camera(scene, 320, 240)
    exact = reference.render(scene, view).image
    assert psnr_db(reference.render(coded, view).image, exact) > 38

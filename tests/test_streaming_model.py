"""Bytes of a path beside what else could be sent, and the loop through a network in time."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from splatforge.algos.quality import psnr_db
from splatforge.algos.reference import render
from splatforge.algos.voyager.city import Searched, search_pose
from splatforge.algos.voyager.codec import fit_codec
from splatforge.algos.voyager.table import ManagementTable
from splatforge.designs.streaming import LinkDesign, LoopDesign, StreamingDesign
from splatforge.sim.streaming import (
    POSE_BYTES,
    Measured,
    OnAir,
    Painter,
    Search,
    artefacts,
    gaussian_bytes,
    measure,
    on_air,
    remote_latencies_s,
    simulate_loop,
    speed_point,
    spread,
)
from splatforge.sim.video import encode_video, raw_video_rate

sys.path.insert(0, str(Path(__file__).parent))
from toy_city import ToyCity, street

CITY = ToyCity(300)
CODEC = fit_codec(CITY.all, StreamingDesign(reuse_window=8, sh1=(3,), sh2=(3,), sh3=(3,)))
PATH = street(25)


def codec_of(city):
    return fit_codec(city.all, CODEC.design)


RUN = measure(CITY, CODEC, PATH, window=4, rate_hz=20.0)


def test_counts_are_those_of_the_path():
    assert [each.frame for each in RUN.searches] == [0, 4, 8, 12, 16, 20, 24]
    assert RUN.speed == pytest.approx(0.15 * 20)
    assert RUN.duration_s == pytest.approx(6 * 4 / 20)
    assert RUN.start_bytes == 24 + len(CODEC.to_bytes()) + RUN.searches[0].size_bytes
    late = RUN.searches[1:]
    assert RUN.bytes_per_s == pytest.approx(sum(each.size_bytes for each in late) / 1.2)
    assert RUN.gaussians_per_s == pytest.approx(sum(each.gaussians for each in late) / 1.2)
    assert RUN.up_bytes_per_s == pytest.approx(176 * 5)
    # The table behind each delta, which the client has a window later.
    table = ManagementTable(8)
    for each in RUN.searches:
        cut = CITY.cut(search_pose(PATH, each.frame, 4))
        assert np.array_equal(RUN.cut(each.frame), cut)
        assert each.cut == len(cut)
        table.advance(each.frame, cut)
        assert each.held == len(table.ids)
    assert len({each.held for each in RUN.searches}) > 3
    assert 0.8 < RUN.unchanged < 1
    for there in (-1, *(each.frame for each in RUN.searches)):
        for wanted in (each.frame for each in RUN.searches if each.frame >= there):
            lacks = np.setdiff1d(RUN.cut(wanted), RUN.cut(there)) if there >= 0 else RUN.cut(wanted)
            assert RUN.lacking(wanted, there) == pytest.approx(len(lacks) / len(RUN.cut(wanted)))
    assert [gaussian_bytes(degree) for degree in range(4)] == [56, 92, 152, 236]


def test_ways_are_compared_on_air():
    """All with headers of messages and packets; what begins a way is no part of its rate."""
    sizes = RUN.messages()
    assert sizes["streaming"][0] == RUN.start_bytes
    assert sizes["streaming"][1:] == [each.size_bytes for each in RUN.searches[1:]]
    assert sizes["cuts"] == [24 + 236 * each.cut for each in RUN.searches]
    setup = [RUN.setup_bytes, *[0] * 6]
    bits = CODEC.design.gaussian_bits(3)
    assert sizes["cuts_coded"] == [24 + more + -(-each.cut * bits // 8)
                                   for more, each in zip(setup, RUN.searches, strict=True)]
    design = LoopDesign(loss=0.2)
    taken = {name: on_air(each, RUN.duration_s, design) for name, each in sizes.items()}
    for name, each in taken.items():
        packets = [-(-size // 1448) for size in sizes[name]]
        air = [(size + 52 * count) / 0.8 for size, count in zip(sizes[name], packets, strict=True)]
        assert each.start_bytes == pytest.approx(air[0])
        assert each.total_bytes == pytest.approx(sum(air))
        assert each.bytes_per_s == pytest.approx(sum(air[1:]) / 1.2)
    # The loop's network carries the same, and the poses.
    loop = simulate_loop(RUN, design, 0.01)
    assert loop.on_air_bytes == pytest.approx(
        taken["streaming"].total_bytes + 7 * design.on_air_bytes(POSE_BYTES))
    # What is streamed is less than cuts that are coded alike, and these less than plain ones.
    rates = [taken[name].bytes_per_s for name in ("streaming", "cuts_coded", "cuts")]
    assert 5 * rates[0] < rates[1] < rates[2] / 7
    # All at once has no rate.
    assert on_air([1448.0], 0, LoopDesign()) == OnAir(
        start_bytes=1500.0, total_bytes=1500.0, bytes_per_s=None)


def test_whoever_stands_still_is_sent_no_gaussians():
    still = measure(CITY, CODEC, [PATH[0]] * 13, window=4, rate_hz=20.0)
    assert still.gaussians_per_s == still.speed == 0
    assert still.unchanged == 1
    assert 0 < still.bytes_per_s < RUN.bytes_per_s


def test_a_fast_network_is_never_late():
    loop = simulate_loop(RUN, LoopDesign(), np.linspace(0.01, 0.02, 25))
    assert not loop.stale.any()
    assert not loop.missing.any()
    assert loop.used.tolist() == loop.due.tolist()
    # Nothing of the network in it, and what is drawn is one to two windows old.
    assert loop.motion_to_photon_s == pytest.approx(np.linspace(0.0156, 0.0256, 25))
    assert loop.cut_age_s.tolist() == pytest.approx(
        [(number - due) / 20 for number, due in enumerate(loop.due)])
    assert artefacts(CITY, PATH, RUN, loop) == []


def test_times_by_hand():
    """Three deltas of a hundred packets over 1.2 Mbps, one after another."""
    changes = [Searched(left=np.arange(*left), entered=np.arange(*entered), visited=10, time_s=0.0)
               for left, entered in (((0, 0), (0, 10)), ((0, 5), (10, 15)), ((5, 10), (15, 20)))]
    run = Measured(
        rate_hz=1.0, window=1, frames=4, speed=0.0, setup_bytes=0, raw_gaussian_bytes=236,
        coded_gaussian_bits=267, searches=tuple(
            Search(frame=frame, change=change, cut=10, gaussians=0, size_bytes=144_800, held=10)
            for frame, change in enumerate(changes)))
    link = LinkDesign(bandwidth_mbps=1.2, latency_ms=100)
    free = LinkDesign(bandwidth_mbps=float("inf"))
    design = LoopDesign(down=link, up=free, search_ns_per_node=1e7)
    loop = simulate_loop(run, design, 0.0)
    # A search takes 0.1 s, a delta 150,000 * 8 / 1.2e6 = 1 s and 0.1 s.
    assert loop.start_s == pytest.approx(1.2)
    assert loop.arrived_s.tolist() == pytest.approx([0, 2.2, 3.2])
    assert loop.search_age_s == pytest.approx(1.2)
    assert loop.due.tolist() == [0, 0, 1, 2]
    assert loop.used.tolist() == [0, 0, 0, 1]
    assert loop.missing.tolist() == pytest.approx([0, 0, 0.5, 0.5])
    assert loop.on_air_bytes == 3 * 150_000 + 3 * (POSE_BYTES + 52)
    assert loop.network_j == pytest.approx(100e-9 * loop.on_air_bytes)
    lossy = simulate_loop(run, LoopDesign(down=link, up=free, loss=0.5), 0.0)
    assert lossy.on_air_bytes == 2 * loop.on_air_bytes
    # While nothing goes through, what is on its way waits.
    stopped = simulate_loop(run, design, 0.0, outages=[(1.5, 4.5)])
    assert stopped.arrived_s.tolist() == pytest.approx([0, 5.2, 6.2])
    assert stopped.used.tolist() == [0, 0, 0, 0]
    assert stopped.cut_age_s.tolist() == [0, 1, 2, 3]
    assert loop.search_s.tolist() == pytest.approx([0.1] * 3)


def test_a_stall_shows():
    loop = simulate_loop(RUN, LoopDesign(), 0.0, outages=[(0.25, 0.7)])
    assert loop.stale.any()
    assert not loop.stale[-1]
    assert loop.missing[loop.stale].max() > 0
    assert not loop.missing[~loop.stale].any()
    broken = artefacts(CITY, PATH, RUN, loop)
    assert [number for number, _ in broken] == np.flatnonzero(loop.stale).tolist()
    assert min(db for _, db in broken) < 60
    few = artefacts(CITY, PATH, RUN, loop, most=2)
    assert few == [broken[0], broken[-1]]
    # The latency is the client's own; that of a video holds all of the stall.
    assert loop.motion_to_photon_s == pytest.approx(0.0056)
    still = remote_latencies_s([100.0] * 25, 20.0, LoopDesign(), 0.01)
    stuck = remote_latencies_s([100.0] * 25, 20.0, LoopDesign(), 0.01, outages=[(0.25, 0.7)])
    assert still.max() < 0.05
    assert stuck.max() == pytest.approx(still.max() + 0.45, abs=0.03)
    assert stuck[:5] == pytest.approx(still[:5])
    assert stuck[-1] == pytest.approx(still[-1])


def test_a_video_waits_for_the_network():
    design = LoopDesign(up=LinkDesign(bandwidth_mbps=8, latency_ms=20),
                        down=LinkDesign(bandwidth_mbps=8, latency_ms=20))
    # 176 and 1,448 bytes with 52 each; rendering, coding and display are 26.7 ms.
    assert remote_latencies_s([1448], 90, design, 0.0111) == pytest.approx(
        0.04 + 228e-6 + 1.5e-3 + 26.7e-3)
    # Frames of 15 ms on the line at 10 ms each: they queue.
    queued = remote_latencies_s([14480] * 3, 100, design, 0.0111)
    assert np.diff(queued) == pytest.approx(0.005)


def test_quality_is_that_of_the_frames_own_pose():
    painter = Painter(CITY, [0, 7, 24])
    measure(CITY, CODEC, PATH, window=4, rate_hz=20.0, seen=painter.take)
    seen = painter.pictures()
    assert seen.numbers == [0, 7, 24]
    for place, number in enumerate(seen.numbers):
        own = render(CITY.scene(CITY.cut(PATH[number])), PATH[number]).image
        assert np.array_equal(seen.full[place], own)
    assert np.array_equal(seen.exact[0], seen.full[0])
    # The last frame draws a cut of frame 20, at the pose that was expected of frame 24.
    late = render(CITY.scene(RUN.cut(20)), PATH[24]).image
    assert np.array_equal(seen.exact[2], late)
    assert seen.worst_db("coded", "full") == min(
        psnr_db(*pair) for pair in zip(seen.coded, seen.full, strict=True))


def test_new_gaussians_go_with_the_way():
    """A city that is alike all along asks for so many a metre, whatever the speed."""
    city = ToyCity(3000)
    points = [speed_point(city, street(33, step), window=4, rate_hz=20.0, reuse_window=8)
              for step in (0.0, 0.1, 0.2, 0.4)]
    assert [each.speed for each in points] == pytest.approx([0, 2, 4, 8])
    assert points[0].gaussians_per_s == 0
    assert points[0].gaussians_per_unit is None
    per_unit = [each.gaussians_per_unit for each in points[1:]]
    assert max(per_unit) < 1.25 * min(per_unit)
    assert all(each.searches == 7 for each in points)
    run = measure(city, codec_of(city), street(33, 0.2), window=4, rate_hz=20.0)
    # The stream searches once more, for a frame behind the last.
    assert [each.frame for each in run.searches[1:8]] == list(range(4, 32, 4))
    assert points[2].gaussians_per_s == pytest.approx(
        20 / 28 * sum(each.gaussians for each in run.searches[1:8]))
    with pytest.raises(ValueError, match="Frames must be at least two windows and one, 9, not 8"):
        speed_point(city, street(8), window=4, rate_hz=20.0, reuse_window=8)


def test_frames_are_spread():
    assert spread(25, 3) == [0, 12, 24]
    assert spread(25, 1) == [24]
    assert spread(2, 9) == [0, 1]


def test_videos_are_smaller_than_frames():
    painter = Painter(CITY, range(9))
    measure(CITY, CODEC, PATH[:9], window=4, rate_hz=20.0, seen=painter.take)
    seen = painter.pictures()
    exact = seen.exact
    assert seen.coded.shape == exact.shape == (9, 48, 64, 3)
    assert 0 < np.abs(seen.coded - exact).mean() < 0.05
    pytest.importorskip("imageio_ffmpeg")
    frames = np.rint(np.clip(exact, 0, 1) * 255).astype(np.uint8)
    for encoder in ("h264", "h265"):
        usual = encode_video(frames, encoder, rate_hz=20)
        fine = encode_video(frames, encoder, rate_hz=20, crf=8)
        assert usual.size_bytes < fine.size_bytes < frames.nbytes
        alone = encode_video(frames[:1], encoder, rate_hz=20)
        assert usual.first_bytes == alone.first_bytes == alone.size_bytes < usual.size_bytes
        assert 20 < usual.psnr_db < fine.psnr_db
    assert raw_video_rate(1920, 1080, 60) == pytest.approx(2.986e9, rel=1e-3)


@pytest.mark.parametrize(("frames", "options", "message"), [
    (np.zeros((1, 4, 4, 3)), {}, "Frames must be 8-bit RGB, not float64"),
    (np.zeros((1, 5, 4, 3), np.uint8), {}, "even width and height, not 4x5"),
    (np.zeros((1, 4, 4, 3), np.uint8), {"crf": 60}, "Constant rate factor must be 0 to 51, not 60"),
    (np.zeros((1, 4, 4, 3), np.uint8), {"encoder": "av2"}, "Encoder must be one of h264, h265")])
def test_videos_are_checked(frames, options, message):
    with pytest.raises(ValueError, match=message):
        encode_video(frames, options.pop("encoder", "h264"), rate_hz=30, **options)


@pytest.mark.parametrize(("changes", "message"), [
    ({"loss": 0.95}, "Loop loss must be 0 to 0.9, not 0.95"),
    ({"packet_bytes": 0}, "Loop packets must have 1 to 65535 bytes"),
    ({"display_ms": -1}, "Loop display_ms must be 0 to 1e9, not -1")])
def test_loops_are_checked(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        LoopDesign(**changes)

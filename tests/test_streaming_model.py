"""Bytes of a path beside what else could be sent, and the loop through a network in time."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from splatforge.algos.voyager.codec import fit_codec
from splatforge.algos.voyager.table import ManagementTable
from splatforge.designs.streaming import LinkDesign, LoopDesign, StreamingDesign
from splatforge.sim.streaming import (
    POSE_BYTES,
    Measured,
    OnAir,
    Search,
    artefacts,
    gaussian_bytes,
    measure,
    on_air,
    pictures,
    remote_latency_s,
    simulate_loop,
)
from splatforge.sim.video import encode_video, raw_video_rate

sys.path.insert(0, str(Path(__file__).parent))
from toy_city import ToyCity, street

CITY = ToyCity(300)
CODEC = fit_codec(CITY.all, StreamingDesign(reuse_window=8, sh1=(3,), sh2=(3,), sh3=(3,)))
PATH = street(25)
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
        table.advance(each.frame, each.cut)
        assert each.held == len(table.ids)
    assert len({each.held for each in RUN.searches}) > 3
    assert 0.8 < RUN.unchanged < 1
    assert [gaussian_bytes(degree) for degree in range(4)] == [56, 92, 152, 236]


def test_ways_are_compared_on_air():
    """All with headers of messages and packets; what begins a way is no part of its rate."""
    sizes = RUN.messages()
    assert sizes["streaming"][0] == RUN.start_bytes
    assert sizes["streaming"][1:] == [each.size_bytes for each in RUN.searches[1:]]
    assert sizes["cuts"] == [24 + 236 * len(each.cut) for each in RUN.searches]
    setup = [RUN.setup_bytes, *[0] * 6]
    bits = CODEC.design.gaussian_bits(3)
    assert sizes["cuts_coded"] == [24 + more + -(-len(each.cut) * bits // 8)
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
    loop = simulate_loop(RUN, design)
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
    loop = simulate_loop(RUN, LoopDesign())
    assert not loop.stale.any()
    assert not loop.missing.any()
    assert loop.used.tolist() == loop.due.tolist()
    assert loop.motion_to_photon_s == pytest.approx(16.7e-3)
    assert artefacts(CITY, CODEC, PATH, RUN, loop) == []


def test_times_by_hand():
    """Three deltas of a hundred packets over 1.2 Mbps, one after another."""
    cuts = [np.arange(10), np.arange(5, 15), np.arange(10, 20)]
    run = Measured(
        rate_hz=1.0, window=1, frames=4, speed=0.0, setup_bytes=0, raw_gaussian_bytes=236,
        coded_gaussian_bits=267, searches=tuple(
            Search(frame=frame, cut=cut, gaussians=0, size_bytes=144_800, held=10)
            for frame, cut in enumerate(cuts)))
    link = LinkDesign(bandwidth_mbps=1.2, latency_ms=100)
    free = LinkDesign(bandwidth_mbps=float("inf"))
    design = LoopDesign(down=link, up=free, search_ns_per_node=1e7)
    loop = simulate_loop(run, design)
    # A search takes 0.1 s, a delta 150,000 * 8 / 1.2e6 = 1 s and 0.1 s.
    assert loop.start_s == pytest.approx(1.2)
    assert loop.arrived_s.tolist() == pytest.approx([0, 2.2, 3.2])
    assert loop.search_age_s == pytest.approx(1.2)
    assert loop.due.tolist() == [0, 0, 1, 2]
    assert loop.used.tolist() == [0, 0, 0, 1]
    assert loop.missing.tolist() == pytest.approx([0, 0, 0.5, 0.5])
    assert loop.on_air_bytes == 3 * 150_000 + 3 * (POSE_BYTES + 52)
    assert loop.network_j == pytest.approx(100e-9 * loop.on_air_bytes)
    lossy = simulate_loop(run, LoopDesign(down=link, up=free, loss=0.5))
    assert lossy.on_air_bytes == 2 * loop.on_air_bytes
    # While nothing goes through, what is on its way waits.
    stopped = simulate_loop(run, design, outages=[(1.5, 4.5)])
    assert stopped.arrived_s.tolist() == pytest.approx([0, 5.2, 6.2])
    assert stopped.used.tolist() == [0, 0, 0, 0]
    with pytest.raises(ValueError, match="Visited must hold 3 counts, not 2"):
        simulate_loop(run, design, visited=[1, 2])


def test_a_stall_shows():
    loop = simulate_loop(RUN, LoopDesign(), outages=[(0.25, 0.7)])
    assert loop.stale.any()
    assert not loop.stale[-1]
    assert loop.missing[loop.stale].max() > 0
    assert not loop.missing[~loop.stale].any()
    broken = artefacts(CITY, CODEC, PATH, RUN, loop)
    assert [number for number, _ in broken] == np.flatnonzero(loop.stale).tolist()
    assert min(db for _, db in broken) < 60


def test_a_video_waits_for_the_network():
    design = LoopDesign(up=LinkDesign(bandwidth_mbps=8, latency_ms=20),
                        down=LinkDesign(bandwidth_mbps=8, latency_ms=20))
    # 176 and 1,448 bytes with 52 each; rendering, coding and display are 26.7 ms.
    assert remote_latency_s(1448, design) == pytest.approx(0.04 + 228e-6 + 1.5e-3 + 26.7e-3)


def test_videos_are_smaller_than_frames():
    coded, exact = pictures(CITY, CODEC, PATH[:9], 4)
    assert coded.shape == exact.shape == (9, 48, 64, 3)
    assert 0 < np.abs(coded - exact).mean() < 0.05
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
    ({"render_ms": -1}, "Loop render_ms must be 0 to 1e9, not -1")])
def test_loops_are_checked(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        LoopDesign(**changes)

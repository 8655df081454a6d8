"""Whole frames of the raster core in every situation that a bus and a driver can bring about.

Pixels never change, error codes are right, nothing hangs, and the next frame is fine.
"""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from splatforge.algos import raster
from splatforge.algos.fetch import SplatLists, encode_splats, pack
from splatforge.designs.memory import MemoryTiming
from splatforge.designs.raster import DESCRIPTOR_FIELDS, PRESETS
from splatforge.designs.resolve import PixelFormat
from splatforge.designs.shell import (
    IRQ_DONE,
    IRQ_ERROR,
    STATUS_DONE,
    STATUS_ERROR,
    FrameError,
    ShellDesign,
)
from splatforge.scenes import Camera, Scene, default_camera, resolve
from splatforge.sim.array import DEAD_DELAY
from splatforge.sim.raster import simulate
from splatforge.verification.lib.frame import (
    DECERR,
    SLVERR,
    BusFault,
    FrameJob,
    Stall,
    build_frame,
    run_frames,
)
from splatforge.verification.lib.lists import random_lists

pytestmark = pytest.mark.rtl

DESIGN = PRESETS["16-lane"]
BACKGROUND = (0.2, 0.5, 0.9)
#: Short latencies make short runs where time does not matter.
QUICK = MemoryTiming(latency_cycles=7)
SEEDS = (1, 2, 3)
SMALL = {"tiles_x": 3, "tiles_y": 2, "longest": 60}


@pytest.fixture(scope="module")
def scene():
    return resolve("default")


@pytest.fixture(scope="module")
def thin(scene):
    """Every twentieth Gaussian."""
    return Scene(
        means=scene.means[::20], log_scales=scene.log_scales[::20], quats=scene.quats[::20],
        opacity_logits=scene.opacity_logits[::20], sh=scene.sh[::20])


@pytest.fixture(scope="module")
def binary():
    return build_frame(DESIGN).path


class Golden:
    """A packed frame and what it must look like."""

    def __init__(self, lists, pixel_format=PixelFormat.RGBA8, design=DESIGN):
        self.lists = lists
        self.design = design
        self.frame = raster.render(lists, design, BACKGROUND)
        self.image = pack(lists, background=BACKGROUND, pixel_format=pixel_format)

    def check(self, run):
        assert run.frame_error is FrameError.NONE
        assert run.status == STATUS_DONE
        assert run.irq_status == IRQ_DONE
        assert run.irq
        assert run.irq_cleared
        expected = self.frame.pixels(self.image.pixel_format)
        assert np.array_equal(run.pixels, expected)
        assert run.stray_bytes == 0
        # What the core counts is what was seen on the bus.
        counters = run.counters
        assert counters["cycles"] == run.cycles
        assert counters["descriptor_bytes"] == run.read_bytes[0] == 64
        assert counters["table_bytes"] == run.read_bytes[1]
        assert counters["splat_bytes"] == run.read_bytes[2]
        assert counters["pixel_bytes"] == run.written_bytes == expected.nbytes
        assert counters["resolve_busy"] == run.write_beats
        assert counters["resolve_stalled"] == run.w_waits
        assert counters["fetch_stalled"] == run.ar_waits
        assert counters["tiles"] == self.lists.tiles_x * self.lists.tiles_y
        # A tile's end is known a few cycles after the record that caused it was taken.
        taken = counters["splat_bytes"] - counters["overfetch_bytes"]
        assert 16 * self.frame.workload.records_reached.sum() <= taken <= 16 * self.lists.splats

    def check_cycles(self, run, timing):
        """Cycles within 1 %, busy and stall within 5 %, bytes equal; DESIGN.md's own bounds."""
        model = simulate(self.frame.workload, self.design, timing, self.image.pixel_format)
        assert abs(model.cycles - run.cycles) <= 0.01 * run.cycles
        for name, value in model.counters.items():
            got = run.counters[name]
            if name.endswith(("bytes", "tiles", "tiles_stopped")):
                assert value == got, name
            else:
                assert abs(value - got) <= max(0.05 * got, 0.001 * run.cycles), name


def golden(scene, width, height, pixel_format=PixelFormat.RGBA8, design=DESIGN):
    lists = raster.prepare(scene, default_camera(scene, width, height), design)
    return Golden(lists, pixel_format, design)


@pytest.fixture(scope="module")
def small(thin):
    """A frame of a few thousand cycles, with partial tiles on both sides."""
    frame = golden(thin, 75, 53)
    assert (frame.frame.workload.records_reached > 0).any()
    return frame


@pytest.mark.parametrize("pixel_format", PixelFormat)
def test_odd_size(binary, scene, pixel_format):
    frame = golden(scene, 333, 217, pixel_format)
    workload = frame.frame.workload
    assert (workload.records_reached < np.diff(workload.starts)).any(), "no tile stops early"
    run, = run_frames(binary, [frame.image])
    frame.check(run)
    frame.check_cycles(run, MemoryTiming())


@pytest.mark.parametrize(("width", "height"), [(1, 1), (16, 16), (17, 1), (1, 33), (31, 40)])
@pytest.mark.parametrize("pixel_format", PixelFormat)
def test_sizes_around_a_tile(binary, thin, width, height, pixel_format):
    frame = golden(thin, width, height, pixel_format)
    run, = run_frames(binary, [frame.image], timing=QUICK)
    frame.check(run)
    frame.check_cycles(run, QUICK)


@pytest.mark.parametrize("pixel_format", PixelFormat)
def test_empty_frame(binary, thin, pixel_format):
    away = Camera.look_at((0, 0, 1e6), (0, 0, 2e6), (0, 1, 0), width=50, height=35)
    frame = Golden(raster.prepare(thin, away, DESIGN), pixel_format)
    assert frame.lists.splats == 0
    run, = run_frames(binary, [frame.image])
    frame.check(run)
    frame.check_cycles(run, MemoryTiming())
    if pixel_format is PixelFormat.RGBA8:
        assert (run.pixels == run.pixels[0, 0]).all()


def test_frames_back_to_back_without_reset(binary, thin, small):
    other = golden(thin, 40, 90, PixelFormat.STATE)
    first, second, again = run_frames(binary, [small.image, other.image, small.image])
    small.check(first)
    other.check(second)
    small.check(again)
    assert again.counters == first.counters


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("interleave", [False, True])
def test_stalls_on_all_five_channels(binary, thin, small, seed, interleave):
    other = golden(thin, 20, 37, PixelFormat.RGBA16)
    probability = (0.1, 0.4, 0.8)[SEEDS.index(seed)]
    for run, frame in zip(run_frames(
            binary, [small.image, other.image, small.image], timing=QUICK,
            stall=Stall.every_channel(probability, seed), interleave=interleave),
            (small, other, small), strict=True):
        frame.check(run)


@pytest.mark.parametrize("channel", ["ar", "r", "aw", "w", "b"])
def test_one_channel_stalls_nearly_always(binary, small, channel):
    run, = run_frames(binary, [small.image], timing=QUICK, stall=Stall(**{channel: 0.97}))
    small.check(run)


@pytest.mark.parametrize("timing", [
    MemoryTiming(latency_cycles=1),
    MemoryTiming(latency_cycles=700),
    MemoryTiming(outstanding=1),
    MemoryTiming(read_beats_per_cycle=Fraction(1, 3), write_beats_per_cycle=Fraction(1, 4)),
    MemoryTiming(latency_cycles=40, read_beats_per_cycle=Fraction(2, 3),
                 write_beats_per_cycle=Fraction(3, 5), outstanding=4),
], ids=str)
def test_cycles_follow_the_memory(binary, small, timing):
    run, = run_frames(binary, [small.image], timing=timing)
    small.check(run)
    small.check_cycles(run, timing)


def opaque_list(count, last_mask):
    """One tile of 4x4 pixels; its second record hides all behind, its last has a mask."""
    record = dict.fromkeys(("u0", "v0", "a", "b", "c", "log_opacity"), 0)
    record |= {"red": 900, "green": 500, "blue": 100, "subtiles": 0xFFFF}
    fields = {name: np.full(count, value) for name, value in record.items()}
    fields["subtiles"][-1] = last_mask
    return SplatLists(
        width=4, height=4, starts=np.array([0, count]),
        records=encode_splats(DESIGN.fetch.splat, fields), pairs=np.array([count]),
        places=np.arange(count, dtype=np.int32), gaussians=count, gaussians_visible=count,
        sh_degree=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_records_of_random_bits(binary, seed):
    frames = [Golden(random_lists(10 * seed + n, **SMALL), PixelFormat.STATE) for n in range(4)]
    assert sum(int(f.frame.workload.significant.sum()) for f in frames) > 1000
    assert sum(int(f.frame.workload.pixels_stopped.sum()) for f in frames) > 100
    for run, frame in zip(run_frames(
            binary, [frame.image for frame in frames], timing=QUICK,
            stall=Stall.every_channel(0.2, seed)), frames, strict=True):
        frame.check(run)


@pytest.mark.parametrize("mask", [0xFFFF, 0], ids=["touches", "touches nothing"])
def test_a_tile_that_dies_around_its_last_record(binary, mask):
    """Whether a tile stopped before its list did, for lists that end just then."""
    last = DEAD_DELAY + 1
    lists = [opaque_list(last + 1 + late, mask) for late in range(-4, 5)]
    frames = [Golden(each) for each in lists]
    stopped = []
    for run, frame in zip(
            run_frames(binary, [frame.image for frame in frames]), frames, strict=True):
        frame.check(run)
        model = simulate(frame.frame.workload, DESIGN)
        assert run.counters == model.counters
        stopped.append(run.counters["tiles_stopped"])
    # The record that is in the array when its tile dies is one too many if it touches anything.
    assert stopped == [0, 0, 0, 0, int(mask != 0), 1, 1, 1, 1]


FAULTS = {
    "descriptor": BusFault(read_id=0, beat=2),
    "last descriptor beat": BusFault(read_id=0, beat=3),
    "table": BusFault(read_id=1),
    "splat": BusFault(read_id=2, burst=3, beat=5),
    "first splat": BusFault(read_id=2),
    "pixel": BusFault(write=True, burst=40),
    "first pixel": BusFault(write=True),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("response", [SLVERR, DECERR])
@pytest.mark.parametrize("stall", [0.0, 0.3])
def test_bus_errors_end_the_frame(binary, small, fault, response, stall):
    faulty = replace(FAULTS[fault], response=response)
    bad, good = run_frames(
        binary, [FrameJob(image=small.image, faults=(faulty,)), small.image], timing=QUICK,
        stall=Stall.every_channel(stall, 5))
    assert bad.frame_error is (FrameError.WRITE if faulty.write else FrameError.READ)
    assert bad.status == STATUS_DONE | STATUS_ERROR
    assert bad.irq_status == IRQ_DONE | IRQ_ERROR
    assert bad.irq_cleared
    small.check(good)


def test_the_last_write_of_a_frame_may_fail(binary, small):
    last = small.lists.tiles_x * small.lists.height - 1
    bad, good = run_frames(binary, [
        FrameJob(image=small.image, faults=(BusFault(write=True, burst=last),)), small.image])
    assert bad.frame_error is FrameError.WRITE
    small.check(good)


def test_a_frame_beyond_the_memory(binary, small):
    short = FrameJob(image=small.image, frame_bytes=small.image.frame_bytes // 2)
    bad, good = run_frames(binary, [short, small.image])
    assert bad.frame_error is FrameError.WRITE
    small.check(good)


def moments(seed, count, cycles):
    """Cycles at which to interrupt a frame: its first ones, and random ones."""
    rng = np.random.default_rng(seed)
    return [0, 1, 2, 5, 12, *sorted(rng.integers(10, cycles, count).tolist())]


#: Cycles in which a frame ends on demand: what can be in flight arrives, a latency later, and the
#: driver writes and reads a register. Splats are asked for as far as the buffer has room.
DRAIN_CYCLES = (
    DESIGN.fetch.buffer_splats + 2 * DESIGN.fetch.burst_beats + 2 * QUICK.latency_cycles + 40)


def check_in_time(ended, moment, stall):
    """What is outstanding is drained; the rest of the frame is not waited for."""
    if stall == Stall():
        assert ended.ended_after <= moment + DRAIN_CYCLES


def check_abort(binary, small, moment, stall):
    ended, good = run_frames(
        binary, [FrameJob(image=small.image, abort_at=moment), small.image], timing=QUICK,
        stall=stall)
    if ended.injected and ended.error:
        assert ended.frame_error is FrameError.ABORTED
        assert ended.status == STATUS_DONE | STATUS_ERROR
        assert ended.irq_status == IRQ_DONE | IRQ_ERROR
        check_in_time(ended, moment, stall)
    else:
        small.check(ended)
    small.check(good)
    return bool(ended.error)


def check_reset(binary, small, moment, stall):
    ended, good = run_frames(
        binary, [FrameJob(image=small.image, reset_at=moment), small.image], timing=QUICK,
        stall=stall)
    if ended.was_reset:
        assert ended.status == 0
        assert ended.frame_error is FrameError.NONE
        assert ended.irq_status == 0
        assert not ended.irq
        assert set(ended.counters.values()) == {0}
        check_in_time(ended, moment, stall)
    else:
        small.check(ended)
    small.check(good)
    return ended.was_reset


@pytest.mark.parametrize("check", [check_abort, check_reset])
def test_abort_and_reset_in_mid_frame(binary, small, check):
    cycles = simulate(small.frame.workload, DESIGN, QUICK).cycles
    assert cycles > 10 * DRAIN_CYCLES
    stopped = [check(binary, small, moment, Stall()) for moment in moments(1, 5, cycles)]
    assert all(stopped[:-1])


@pytest.mark.matrix
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("check", [check_abort, check_reset])
def test_abort_and_reset_at_many_cycles_under_stalls(binary, small, check, seed):
    cycles = simulate(small.frame.workload, DESIGN, QUICK).cycles
    stall = Stall.every_channel((0.0, 0.2, 0.6)[SEEDS.index(seed)], seed)
    stopped = [check(binary, small, moment, stall) for moment in moments(seed, 40, 2 * cycles)]
    assert sum(stopped) > 20


def test_snapshot_shows_the_counters_of_a_running_frame(binary, small):
    plain, = run_frames(binary, [small.image])
    run, = run_frames(binary, [FrameJob(image=small.image, snapshot_at=plain.cycles // 2)])
    small.check(run)
    assert run.counters == plain.counters
    assert run.injected
    assert abs(run.snapshot["cycles"] - plain.cycles // 2) < 10
    for name, value in run.snapshot.items():
        assert value <= run.counters[name], name
    assert 0 < run.snapshot["array_busy"] < run.counters["array_busy"]


def test_a_driver_that_polls(binary, small):
    run, = run_frames(binary, [FrameJob(image=small.image, irq_enable=0)])
    assert not run.irq
    assert run.irq_status == IRQ_DONE
    assert np.array_equal(run.pixels, small.frame.pixels(PixelFormat.RGBA8))


def with_fields(image, **values):
    """`image` with other values in its descriptor."""
    (address, content), *rest = image.segments
    descriptor = bytearray(content.tobytes())
    for name, offset, size in DESCRIPTOR_FIELDS:
        if name in values:
            descriptor[offset:offset + size] = values[name].to_bytes(size, "little")
    return replace(
        image, segments=((address, np.frombuffer(bytes(descriptor), np.uint8)), *rest))


SIDE = ShellDesign().max_side
BAD = [
    ({"version": 0}, FrameError.VERSION),
    ({"version": 2}, FrameError.VERSION),
    ({"version": 1 << 31 | 1}, FrameError.VERSION),
    ({"width": 0}, FrameError.SIZE),
    ({"height": 0}, FrameError.SIZE),
    ({"width": SIDE + 1}, FrameError.SIZE),
    ({"height": 65535}, FrameError.SIZE),
    ({"pixel_format": 3}, FrameError.FORMAT),
    ({"pixel_format": 255}, FrameError.FORMAT),
    ({"table_address": 0x10000080}, FrameError.ALIGNMENT),
    ({"splat_address": 0x10000410}, FrameError.ALIGNMENT),
    ({"frame_address": 0x10040010}, FrameError.ALIGNMENT),
    ({"pitch_bytes": 12}, FrameError.ALIGNMENT),
    ({"pitch_bytes": 336}, FrameError.ALIGNMENT),
    # Four tiles, where a row of 75 pixels needs 300 bytes: rows would overlap.
    ({"pitch_bytes": 256}, FrameError.SIZE),
    ({"pitch_bytes": 0}, FrameError.SIZE),
    ({"width": 81}, FrameError.SIZE),
    ({"pitch_bytes": 512, "pixel_format": 1}, FrameError.SIZE),
    ({"pitch_bytes": 1024, "pixel_format": 2}, FrameError.SIZE),
    ({"width": SIDE}, FrameError.SIZE),
    ({"frame_address": 1 << 41}, FrameError.ALIGNMENT),
    ({"table_address": 1 << 63}, FrameError.ALIGNMENT),
    ({"splats": 0}, FrameError.LIST),
]


@pytest.mark.parametrize(("fields", "error"), BAD, ids=str)
@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_bad_descriptors(binary, small, fields, error, stall):
    bad, good = run_frames(
        binary, [with_fields(small.image, **fields), small.image], timing=QUICK,
        stall=Stall.every_channel(stall, 9))
    assert bad.frame_error is error
    assert bad.status == STATUS_DONE | STATUS_ERROR
    assert bad.irq_status == IRQ_DONE | IRQ_ERROR
    assert bad.written_bytes == 0 or error is FrameError.LIST
    small.check(good)


@pytest.mark.parametrize("pixel_format", PixelFormat)
@pytest.mark.parametrize("width", [64, 65, 80])
def test_the_pitch_that_just_covers_a_row(binary, thin, width, pixel_format):
    """Nothing between rows where the width is whole tiles, and a pitch of two rows."""
    frame = golden(thin, width, 5, pixel_format)
    assert frame.image.pitch_bytes == -(-width // 16) * 16 * pixel_format.size_bytes
    wide = 2 * frame.image.pitch_bytes
    far = replace(with_fields(frame.image, pitch_bytes=wide), pitch_bytes=wide)
    for run in run_frames(binary, [frame.image, far], timing=QUICK):
        frame.check(run)


def test_a_descriptor_that_is_not_aligned(binary, small):
    (address, content), *rest = small.image.segments
    moved = replace(small.image, segments=((address + 16, content), *rest),
                    descriptor_address=address + 16)
    bad, good = run_frames(binary, [moved, small.image])
    assert bad.frame_error is FrameError.ALIGNMENT
    assert sum(bad.read_bytes) == 0
    small.check(good)


def test_a_descriptor_that_is_not_there(binary, small):
    nowhere = replace(small.image, descriptor_address=0x7F00_0000_00)
    bad, good = run_frames(binary, [nowhere, small.image])
    assert bad.frame_error is FrameError.READ
    small.check(good)


@pytest.mark.parametrize("tile", [0, 3, -1])
@pytest.mark.parametrize(("first", "count"), [
    (None, 1 << 20), (None, 0xFFFF_FFFF), (0xFFFF_FFFF, 1), (0xFFFF_FFF0, 0x20),
])
def test_overlong_lists(binary, small, tile, first, count):
    descriptor, (address, content), *rest = small.image.segments
    table = np.frombuffer(content.tobytes(), "<u4").copy()
    entries = table[: 2 * small.lists.tiles_x * small.lists.tiles_y].reshape(-1, 2)
    entries[tile] = entries[tile, 0] if first is None else first, count
    image = replace(small.image, segments=(descriptor, (address, table.view(np.uint8)), *rest))
    bad, good = run_frames(binary, [image, small.image], timing=QUICK)
    assert bad.frame_error is FrameError.LIST
    small.check(good)


@pytest.mark.matrix
@pytest.mark.parametrize("lanes", [16, 32, 64, 128, 256])
@pytest.mark.parametrize("pixel_format", PixelFormat)
def test_every_number_of_lanes(scene, thin, lanes, pixel_format):
    design = PRESETS[f"{lanes}-lane"]
    binary = build_frame(design).path
    frames = [golden(scene, 333, 217, pixel_format, design),
              golden(thin, 75, 53, pixel_format, design),
              Golden(random_lists(lanes, **SMALL), pixel_format, design)]
    for run, frame in zip(
            run_frames(binary, [frame.image for frame in frames]), frames, strict=True):
        frame.check(run)
        frame.check_cycles(run, MemoryTiming())
    for seed in SEEDS:
        for run, frame in zip(run_frames(
                binary, [frame.image for frame in frames], timing=QUICK, interleave=True,
                stall=Stall.every_channel(0.3, seed)), frames, strict=True):
            frame.check(run)


CAPTURES = ["inari_fox_50k.ply", "fourth_st_131k_sh3.spz", "playbot_lod0_500k_sh2.sog",
            "plant_114k.splat", "statue_massa_59k.sog", "statue_angel_71k.compressed.ply"]


@pytest.mark.matrix
@pytest.mark.parametrize("name", CAPTURES)
@pytest.mark.parametrize("lanes", [16, 64])
def test_real_captures(shared_scene, name, lanes):
    scene = resolve(shared_scene(name))
    design = PRESETS[f"{lanes}-lane"]
    frame = golden(scene, 320, 240, design=design)
    timings = MemoryTiming(), MemoryTiming(latency_cycles=400)
    for timing in timings:
        run, = run_frames(build_frame(design).path, [frame.image], timing=timing)
        frame.check(run)
        frame.check_cycles(run, timing)
    run, = run_frames(
        build_frame(design).path, [frame.image], stall=Stall.every_channel(0.2, 1),
        interleave=True)
    frame.check(run)


@pytest.mark.matrix
def test_a_held_out_configuration(scene):
    """One that no figure of the model was looked at with."""
    design = replace(
        PRESETS["32-lane"],
        fetch=replace(DESIGN.fetch, buffer_splats=64, burst_beats=8, outstanding_bursts=5),
        resolve=replace(DESIGN.resolve, outstanding_bursts=3))
    timing = MemoryTiming(
        latency_cycles=173, read_beats_per_cycle=Fraction(3, 4),
        write_beats_per_cycle=Fraction(2, 5), outstanding=6)
    frame = golden(scene, 411, 307, design=design)
    run, = run_frames(build_frame(design).path, [frame.image], timing=timing)
    frame.check(run)
    frame.check_cycles(run, timing)

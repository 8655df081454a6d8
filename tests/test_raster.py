import math
import re
import sys
from dataclasses import replace
from fractions import Fraction
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from splatforge.algos import reference
from splatforge.algos.bin_tiles import bin_tiles
from splatforge.algos.fetch import decode_splats, pack
from splatforge.algos.project import project
from splatforge.algos.quality import psnr_db
from splatforge.algos.raster import prepare, render
from splatforge.designs.array import ArrayDesign
from splatforge.designs.fetch import FetchDesign
from splatforge.designs.memory import MemoryTiming
from splatforge.designs.raster import COUNTERS, RasterDesign
from splatforge.designs.resolve import PixelFormat, ResolveDesign
from splatforge.designs.shell import (
    CONTROL_START,
    COUNTER_BASE,
    HEAD_REGISTERS,
    STATUS_BUSY,
    STATUS_DONE,
)
from splatforge.hw.lib.axi import READ_DESCRIPTOR
from splatforge.hw.raster import Raster
from splatforge.scenes import Scene, default_camera, load
from splatforge.scenes import resolve as resolve_scene
from splatforge.sim import array as array_model
from splatforge.sim import fetch as fetch_model
from splatforge.sim.raster import simulate

sys.path.insert(0, str(Path(__file__).parent))
import streams
from axi_memory import ReadPort, WritePort
from gaussians import camera, random_scene
from splats import join, random_lists, splats

DESIGN = RasterDesign()
SPLAT = DESIGN.fetch.splat
OFFSET = {register.name: register.offset for register in HEAD_REGISTERS}


@pytest.mark.parametrize(("width", "height"), [(0, 8), (8, 0), (65, 8), (8, 65)])
def test_frame_must_fit_the_design(width, height):
    design = replace(DESIGN, shell=replace(DESIGN.shell, max_side=64))
    view = camera(8, 8)
    object.__setattr__(view, "width", width)
    object.__setattr__(view, "height", height)
    message = re.escape(f"Frame must be 1x1 to 64x64 pixels, not {width}x{height}")
    with pytest.raises(ValueError, match=f"^{message}$"):
        prepare(random_scene(3, 1), view, design)


def pairs(scene, view):
    """Every (tile, place, Gaussian) of the 3-sigma lists, with its alpha at the tile's pixels."""
    projected = project(scene, view)
    tiles = bin_tiles(projected, view.width, view.height)
    y, x = np.divmod(np.arange(256), 16)
    for tile in range(len(tiles.starts) - 1):
        row, column = divmod(tile, tiles.tiles_x)
        px, py = 16 * column + x, 16 * row + y
        inside = (px < view.width) & (py < view.height)
        for place, pair in enumerate(range(tiles.starts[tile], tiles.starts[tile + 1])):
            g = tiles.entries[pair]
            dx, dy = px + 0.5 - projected.mean_px[g, 0], py + 0.5 - projected.mean_px[g, 1]
            a, b, c = projected.conic[g].astype(np.float64)
            power = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
            alpha = float(projected.opacity[g]) * np.exp(-power)
            yield tile, place, g, np.where(inside, alpha, 0.0), power, projected


@pytest.mark.parametrize(("seed", "needles"), [(1, False), (2, False), (3, True), (4, True)])
def test_nothing_that_is_drawn_is_left_out(seed, needles):
    """Brute force over all pixels: what reaches 1/255 anywhere has a record, and its subtile."""
    view = camera(53, 37)
    scene = random_scene(250, seed, needles=needles)
    lists = prepare(scene, view, DESIGN)
    masks = decode_splats(SPLAT, lists.records)["subtiles"]
    found = {}
    for tile in range(len(lists.pairs)):
        for at in range(lists.starts[tile], lists.starts[tile + 1]):
            found[tile, int(lists.places[at])] = int(masks[at])
    y, x = np.divmod(np.arange(256), 16)
    subtile = y // 4 * 4 + x // 4
    bits = spare = reached = 0
    counts = np.zeros(len(lists.pairs), int)
    for tile, place, _, alpha, _, _ in pairs(scene, view):
        counts[tile] += 1
        # The mask is worked out in float64 as here; the reference's float32 may differ by 1e-6.
        seen = set(subtile[alpha >= (1 + 1e-9) / 255].tolist())
        reached += len(seen)
        mask = found.get((tile, place), 0)
        here = {number for number in range(16) if mask >> number & 1}
        assert seen <= here
        bits += len(here)
        spare += len(here - seen)
    np.testing.assert_array_equal(lists.pairs, counts)
    assert reached > 500
    # A subtile is listed in vain only if the contour of 1/255 passes between its pixels.
    assert spare <= 0.15 * bits
    assert (lists.gaussians, lists.sh_degree) == (250, 0)
    assert lists.gaussians_visible <= 250
    assert (masks > 0).all()


@pytest.mark.parametrize("needles", [False, True])
def test_records_hold_the_float_forms(needles):
    """Each field is rounded by half a unit, so a form errs by that of its start and 15 slopes."""
    view = camera(53, 37)
    scene = random_scene(250, 5, needles=needles)
    lists = prepare(scene, view, DESIGN)
    fields = decode_splats(SPLAT, lists.records)
    at = {(tile, int(lists.places[k])): k for tile in range(len(lists.pairs))
          for k in range(lists.starts[tile], lists.starts[tile + 1])}
    y, x = np.divmod(np.arange(256), 16)
    checked = 0
    for tile, place, g, alpha, power, projected in pairs(scene, view):
        k = at.get((tile, place))
        if k is None or not (alpha >= 1 / 255).any():
            continue
        value = {name: float(getattr(SPLAT, name).to_float(fields[name][k]))
                 for name in ("u0", "v0", "a", "b", "c", "log_opacity")}
        u = value["u0"] + value["a"] * x + value["b"] * y
        v = value["v0"] + value["c"] * y
        want = power * math.log2(math.e)
        u_error = (SPLAT.u0.resolution + 15 * (SPLAT.a.resolution + SPLAT.b.resolution)) / 2
        v_error = (SPLAT.v0.resolution + 15 * SPLAT.c.resolution) / 2
        radius = np.sqrt(want)
        # (|(u, v)| + |error|)^2, and what the float32 conic loses where its terms cancel.
        error = math.hypot(u_error, v_error)
        bound = 2 * radius * error + error**2 + 1e-4 * (1 + want)
        seen = alpha >= 1 / 255
        assert (np.abs(u * u + v * v - want) <= bound)[seen].all()
        opacity = float(projected.opacity[g])
        # 2^-8 and what is above the largest logarithm that fits come to it.
        top = SPLAT.log_opacity.to_float(SPLAT.log_opacity.raw_max)
        error = abs(value["log_opacity"] - min(-math.log2(opacity), top))
        assert error <= SPLAT.log_opacity.resolution / 2
        color = [SPLAT.color.to_float(fields[name][k]) for name in ("red", "green", "blue")]
        want_color = np.clip(projected.color[g], 0, SPLAT.color.to_float(SPLAT.color.raw_max))
        assert np.abs(color - want_color).max() <= SPLAT.color.resolution / 2 + 1e-6
        checked += 1
    assert checked > 150


def test_empty_view_is_the_background():
    scene = random_scene(20, 6)
    behind = replace(camera(37, 21), w2c=np.diag([-1.0, 1.0, -1.0, 1.0]))
    lists = prepare(scene, behind, DESIGN)
    assert lists.splats == 0
    frame = render(lists, DESIGN, (1.0, 0.5, 0.0))
    assert frame.background == (256, 128, 0)
    assert (frame.pixels(PixelFormat.RGBA8) == [255, 128, 0, 255]).all()
    assert (frame.pixels(PixelFormat.STATE) == [0, 0, 0, DESIGN.array.blend.one]).all()
    assert (frame.image == np.float32([1.0, 0.5, 0.0])).all()
    empty = Scene(**{name: getattr(scene, name)[:0] for name in (
        "means", "log_scales", "quats", "opacity_logits", "sh")})
    assert prepare(empty, camera(37, 21), DESIGN).splats == 0


def test_colors_beyond_the_format_are_counted():
    """Those with a record, each once, by any channel; the last that rounds to the top is none."""
    top, half = SPLAT.color.to_float(SPLAT.color.raw_max), SPLAT.color.resolution / 2
    colors = np.ones((8, 3))
    colors[1, 0], colors[2, 1], colors[3, 2] = 9, 4.5, top + 1.01 * half
    colors[4] = top + 0.99 * half
    colors[5:] = 100  # transparent, behind the camera, and beside the image
    means = np.tile((0.0, 0, 2), (8, 1))
    means[:5, 0] = np.linspace(-0.6, 0.6, 5)
    means[6, 2], means[7, 0] = -2, 50
    scene = Scene(
        means=means, log_scales=np.full((8, 3), -2.5), quats=np.tile((1, 0, 0, 0), (8, 1)),
        opacity_logits=np.where(np.arange(8) == 5, -9.0, 2.0),
        sh=((colors - 0.5) / 0.28209479177387814)[:, None])
    lists = prepare(scene, camera(60, 40), DESIGN)
    assert lists.splats > 8, "no Gaussian has more than one record"
    assert lists.gaussians_saturated == 3
    assert render(lists, DESIGN).workload.gaussians_saturated == 3
    fields = decode_splats(SPLAT, lists.records)
    assert max(fields[name].max() for name in ("red", "green", "blue")) == SPLAT.color.raw_max


def test_pixels_are_the_image():
    """Integers are the image at the accumulator's precision, rounded by half a unit."""
    lists = prepare(random_scene(200, 7), camera(70, 50), DESIGN)
    frame = render(lists, DESIGN, (0.25, 1.0, 0.5))
    for kind, top in ((PixelFormat.RGBA8, 255), (PixelFormat.RGBA16, 65535)):
        pixels = frame.pixels(kind)[..., :3] / top
        assert np.abs(pixels - np.clip(frame.image, 0, 1)).max() <= 0.5 / top + 1e-6
    assert 0.3 < (frame.state[..., 3] < DESIGN.array.blend.one).mean()


CAPTURES = (
    "inari_fox_50k.ply", "plant_114k.splat", "fourth_st_131k_sh3.spz", "playbot_lod3_31k_sh2.sog",
    "tarot_115k.splat", "statue_massa_59k.sog", "statue_angel_71k.sog", "statue_trumpet_89k.sog")


def assert_quality(scene):
    """At least 45 dB against the float reference, overall and where the scene is."""
    view = default_camera(scene, 222, 167)
    frame = render(prepare(scene, view, DESIGN), DESIGN)
    want = reference.render(scene, view)
    drawn = want.transmittance < 1 - 1 / 255
    assert drawn.mean() > 0.05
    for got in (frame.pixels(PixelFormat.RGBA8)[..., :3] / 255, frame.image):
        assert psnr_db(got.astype(np.float32), want.image) >= 45
        assert psnr_db(got.astype(np.float32), want.image, drawn) >= 45
    t = DESIGN.array.blend.transmittance.to_float(frame.state[..., 3])
    assert np.abs(t - want.transmittance).mean() < 2e-3


def test_quality_on_the_default_scene():
    assert_quality(resolve_scene("default"))


@pytest.mark.parametrize("name", CAPTURES)
def test_quality_on_captures(shared_scene, name):
    assert_quality(load(shared_scene(name)))


# ---- The cycle model.

@cache
def workload(seed=8, width=149, height=101, longest=120):
    lists = random_lists(width, height, seed, longest=longest, opaque=(0.0, 0.2))
    return render(lists, DESIGN).workload


def with_lanes(lanes):
    return replace(DESIGN, array=ArrayDesign(lanes=lanes))


@pytest.mark.parametrize("kind", list(PixelFormat), ids=lambda kind: kind.name)
@pytest.mark.parametrize("lanes", [16, 64, 256])
def test_counters_are_consistent(kind, lanes):
    work, design = workload(), with_lanes(lanes)
    timing = MemoryTiming(latency_cycles=40, read_beats_per_cycle=Fraction(3, 4))
    run = simulate(work, design, timing, kind)
    c = run.counters
    assert tuple(c) == tuple(name for name, _, _ in COUNTERS)
    assert run.cycles == c["cycles"]
    assert c["array_busy"] + c["array_starved"] + c["array_skipped"] + c["array_blocked"] <= (
        run.cycles)
    assert c["fetch_busy"] <= run.cycles
    assert c["resolve_busy"] + c["resolve_stalled"] <= run.cycles
    assert c["pixel_bytes"] == 149 * 101 * kind.size_bytes == run.bytes_written
    assert c["descriptor_bytes"] == 64
    assert c["table_bytes"] == 16 * math.ceil(work.tiles / 2)
    assert c["splat_bytes"] == 16 * c["fetch_busy"]
    assert run.bytes_read == c["descriptor_bytes"] + c["table_bytes"] + c["splat_bytes"]
    # What is read is consumed or dropped, and at least what the pixels need is consumed.
    consumed = c["splat_bytes"] // 16 - c["overfetch_bytes"] // 16
    assert work.records_reached.sum() <= consumed <= work.starts[-1]
    assert 0 < c["overfetch_bytes"] <= c["splat_bytes"]
    assert c["tiles"] == work.tiles
    assert 0 < c["tiles_stopped"] <= (work.ends.max(axis=1) < np.diff(work.starts)).sum()
    # Every block with a live pixel that a record touches is issued.
    tile = np.repeat(np.arange(work.tiles), np.diff(work.starts))
    place = np.arange(len(work.subtiles)) - work.starts[tile]
    least = late = 0
    for mask in design.array.block_subtiles():
        inside = [number for number in range(16) if mask >> number & 1]
        end = work.ends[:, inside].max(axis=1)
        least += ((work.subtiles & mask != 0) & (place <= end[tile])).sum()
        late += (end < np.diff(work.starts) - 1).sum()
    # Until it is known that a block has ended it may be issued in every cycle.
    assert least <= c["array_busy"] <= least + late * array_model.DEAD_DELAY
    assert (np.diff(run.tile_ends) > 0).all()
    assert run.tile_ends[-1] < run.cycles
    again = simulate(work, design, timing, kind)
    assert again.counters == c


def test_without_early_stops_all_is_counted_exactly():
    rng = np.random.default_rng(9)
    tiles = []
    for count in (30, 0, 70, 5):
        tile = splats(count, rng)
        tile["log_opacity"] = np.full(count, 800)
        tiles.append(tile)
    work = render(join(32, 32, tiles), DESIGN).workload
    assert work.pixels_stopped.sum() == 0
    for lanes in (16, 32, 64, 128, 256):
        c = simulate(work, with_lanes(lanes)).counters
        blocks = sum((work.subtiles & mask != 0).sum()
                     for mask in ArrayDesign(lanes=lanes).block_subtiles())
        assert c["array_busy"] == blocks
        assert c["array_skipped"] == (work.subtiles == 0).sum()
        assert c["splat_bytes"] == 16 * 105
        assert c["overfetch_bytes"] == c["tiles_stopped"] == 0


def test_slower_memories_are_never_faster():
    work = workload()
    latency = [simulate(work, DESIGN, MemoryTiming(latency_cycles=n)).cycles
               for n in (1, 5, 20, 50, 100, 200, 500, 2000)]
    assert latency == sorted(latency)
    # The frame's descriptor, table and last response wait for the memory one after the other.
    assert latency[-1] - latency[-2] >= 3 * 1500
    for way in ("read", "write"):
        rates = [simulate(work, DESIGN, MemoryTiming(**{
            f"{way}_beats_per_cycle": Fraction(n, 16)})).cycles for n in (16, 12, 8, 4, 2, 1)]
        assert rates == sorted(rates)
        assert rates[-1] > rates[0]
    outstanding = [simulate(work, DESIGN, MemoryTiming(outstanding=n)).cycles
                   for n in (64, 16, 8, 4, 2, 1)]
    assert outstanding == sorted(outstanding)


def test_bandwidth_is_a_floor():
    work = workload()
    for n in (1, 3):
        rate = Fraction(n, 16)
        run = simulate(work, DESIGN, MemoryTiming(read_beats_per_cycle=rate))
        # What an early stop of the last tile drops may still arrive behind the last pixel.
        needed = run.bytes_read - run.counters["overfetch_bytes"]
        assert run.cycles >= needed / 16 / rate
        run = simulate(work, DESIGN, MemoryTiming(write_beats_per_cycle=rate))
        assert run.cycles >= run.counters["resolve_busy"] / rate


def test_more_lanes_are_never_slower():
    """A wider block costs no more issues; ends are known later, hence the one per cent."""
    for work in (workload(), workload(10, 64, 64, 300)):
        cycles = [simulate(work, with_lanes(lanes)).cycles for lanes in (16, 32, 64, 128, 256)]
        assert all(more <= 1.01 * fewer for fewer, more in pairwise(cycles))
        assert cycles[-1] < cycles[0]


def test_bigger_buffers_are_never_slower():
    work = workload()
    for field, sizes in (("buffer_splats", (32, 64, 256, 1024)), ("outstanding_bursts", (1, 2, 8))):
        cycles = [simulate(work, replace(DESIGN, fetch=FetchDesign(**{field: size}))).cycles
                  for size in sizes]
        assert all(more <= 1.001 * fewer for fewer, more in pairwise(cycles))
        assert cycles[-1] < cycles[0]


# ---- The RTL behind a memory, in Amaranth's own simulator.

@cache
def bench(design):
    return streams.Bench(Raster(design))


class Driver:
    """Registers on one side, memory on the other; counts cycles from the accepted START."""

    def __init__(self, dut, timing):
        self.dut, self.timing = dut, timing
        self.cycle = 0
        self.started: int | None = None
        self.over: int | None = None
        self.first = {}

    def place(self, image):
        self.bytes = {}
        for address, content in image.segments:
            for number in range(0, len(content), 16):
                self.bytes[address + number] = int.from_bytes(
                    bytes(content[number:number + 16]), "little")
        self.frame = np.full(image.frame_bytes, 0xA5, np.uint8)
        self.frame_address = image.frame_address
        self.reads, self.writes = ReadPort(self.timing), WritePort(self.timing)

    async def tick(self, ctx, **inputs):
        """One rising edge with memory and registers; returns the register bus's outputs."""
        dut, cycle = self.dut, self.cycle
        for name in ("awvalid", "wvalid", "arvalid", "bready", "rready", "awaddr", "wdata",
                     "wstrb", "araddr"):
            ctx.set(getattr(dut, f"s_axil_{name}"), inputs.get(name, 0))
        ar_ready, aw_ready = self.reads.ready(), self.writes.ready()
        ctx.set(dut.m_axi_arready, ar_ready)
        ctx.set(dut.m_axi_awready, aw_ready)
        beat = self.reads.take(cycle)
        ctx.set(dut.m_axi_rvalid, beat is not None)
        if beat is not None:
            (read_id, address), number, last = beat
            self.first.setdefault(("r", read_id), cycle)
            self.first["last", read_id] = cycle
            ctx.set(dut.m_axi_rid, read_id)
            ctx.set(dut.m_axi_rdata, self.bytes[address + 16 * number])
            ctx.set(dut.m_axi_rlast, last)
        answer = self.writes.answer(cycle)
        ctx.set(dut.m_axi_bvalid, answer)
        if answer:
            self.over = cycle
        w_valid = ctx.get(dut.m_axi_wvalid)
        w_ready = self.writes.beat_ready(cycle, bool(w_valid))
        ctx.set(dut.m_axi_wready, w_ready)
        if w_valid and w_ready:
            address, last = self.writes.take(cycle)
            assert ctx.get(dut.m_axi_wlast) == last
            data, strobe = ctx.get(dut.m_axi_wdata), ctx.get(dut.m_axi_wstrb)
            for byte in range(16):
                if strobe >> byte & 1:
                    self.frame[address - self.frame_address + byte] = data >> 8 * byte & 0xFF
        if aw_ready and ctx.get(dut.m_axi_awvalid):
            self.writes.accept(ctx.get(dut.m_axi_awaddr), ctx.get(dut.m_axi_awlen) + 1)
        if ar_ready and ctx.get(dut.m_axi_arvalid):
            read_id = ctx.get(dut.m_axi_arid)
            self.first.setdefault(("ar", read_id), cycle)
            self.reads.accept(cycle, ctx.get(dut.m_axi_arlen) + 1,
                              (read_id, ctx.get(dut.m_axi_araddr)))
        seen = {name: ctx.get(getattr(dut, f"s_axil_{name}")) for name in (
            "awready", "wready", "arready", "bvalid", "rvalid", "rdata", "bresp", "rresp")}
        await ctx.tick()
        self.cycle += 1
        return seen

    async def write(self, ctx, offset, value):
        """Write a register; returns the cycle in which it was accepted."""
        offered = {"awvalid": 1, "awaddr": offset, "wvalid": 1, "wdata": value, "wstrb": 15}
        accepted = None
        for _ in range(20):
            seen = await self.tick(ctx, bready=1, **(offered if accepted is None else {}))
            if accepted is None and seen["awready"]:
                assert seen["wready"]
                accepted = self.cycle - 1
            if seen["bvalid"]:
                assert seen["bresp"] == 0
                return accepted
        raise AssertionError("no answer to a write")

    async def read(self, ctx, offset):
        asked = False
        for _ in range(20):
            seen = await self.tick(ctx, rready=1, arvalid=not asked, araddr=offset)
            asked = asked or bool(seen["arready"])
            if seen["rvalid"]:
                assert seen["rresp"] == 0
                return seen["rdata"]
        raise AssertionError("no answer to a read")


def run_frame(design, image, timing):
    """One frame from reset: the framebuffer, the counters, and the driver for its times."""
    dut = bench(design).dut
    driver = Driver(dut, timing)
    driver.place(image)
    counters = {}

    async def scenario(ctx):
        address = image.descriptor_address
        await driver.write(ctx, OFFSET["DESCRIPTOR_LOW"], address & 0xFFFF_FFFF)
        await driver.write(ctx, OFFSET["DESCRIPTOR_HIGH"], address >> 32)
        await driver.write(ctx, OFFSET["IRQ_ENABLE"], 1)
        driver.started = await driver.write(ctx, OFFSET["CONTROL"], CONTROL_START)
        for _ in range(30_000):
            if ctx.get(dut.irq):
                break
            await driver.tick(ctx)
        else:
            raise AssertionError("the frame does not end")
        status = await driver.read(ctx, OFFSET["STATUS"])
        assert status == STATUS_DONE
        assert not status & STATUS_BUSY
        for number, (name, _, _) in enumerate(COUNTERS):
            low = await driver.read(ctx, COUNTER_BASE + 8 * number)
            high = await driver.read(ctx, COUNTER_BASE + 8 * number + 4)
            counters[name] = low | high << 32

    bench(design).play(scenario)
    return image.pixels(driver.frame), counters, driver


SMALL = RasterDesign(
    array=ArrayDesign(lanes=16), resolve=ResolveDesign(outstanding_bursts=3),
    fetch=FetchDesign(buffer_splats=32, burst_beats=4, outstanding_bursts=6))


@pytest.mark.parametrize(("kind", "timing"), [
    (PixelFormat.RGBA8, MemoryTiming(latency_cycles=1)),
    (PixelFormat.RGBA16, MemoryTiming(latency_cycles=60, outstanding=2)),
    (PixelFormat.STATE, MemoryTiming(
        latency_cycles=13, read_beats_per_cycle=Fraction(2, 5),
        write_beats_per_cycle=Fraction(3, 7), outstanding=3)),
], ids=["RGBA8", "RGBA16", "STATE"])
def test_rtl_against_both_models(kind, timing):
    """Pixels equal to the bit-true model, cycles and every counter to the cycle model."""
    lists = random_lists(37, 21, 11, longest=35, opaque=(0.1, 0.4))
    frame = render(lists, SMALL, (0.2, 0.5, 1.0))
    image = pack(lists, background=(0.2, 0.5, 1.0), pixel_format=kind, resolve=SMALL.resolve)
    pixels, counters, driver = run_frame(SMALL, image, timing)
    np.testing.assert_array_equal(pixels, frame.pixels(kind))
    run = simulate(frame.workload, SMALL, timing, kind)
    assert driver.over - driver.started == run.cycles
    assert counters == dict(run.counters)
    assert counters["tiles_stopped"] > 0
    # Around the descriptor: START to its address, and its last beat to the table's address.
    first = driver.first
    start = first["ar", READ_DESCRIPTOR] - driver.started
    start += first["ar", 1] - first["last", READ_DESCRIPTOR]
    # Each address spends a cycle in a register on its way to the bus.
    assert start == Raster.latency == 2 + fetch_model.DESCRIPTOR_LATENCY


def test_rtl_of_many_short_lists():
    """Two bursts a tile and a slow memory: the limit of bursts in flight decides."""
    rng = np.random.default_rng(12)
    lists = join(192, 4, [splats(6, rng) for _ in range(12)])
    timing = MemoryTiming(latency_cycles=100)
    pixels, counters, driver = run_frame(SMALL, pack(lists), timing)
    frame = render(lists, SMALL)
    np.testing.assert_array_equal(pixels, frame.pixels(PixelFormat.RGBA8))
    run = simulate(frame.workload, SMALL, timing)
    assert driver.over - driver.started == run.cycles
    assert counters == dict(run.counters)


@pytest.mark.rtl
def test_verilog_against_fixed(run_testbench):
    run_testbench("raster", seed=7)

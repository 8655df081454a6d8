import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from splatforge.algos.resolve import resolve_fixed, resolve_float
from splatforge.designs.blend import BlendDesign
from splatforge.designs.fetch import TILE_PX
from splatforge.designs.fixed import Fixed
from splatforge.designs.resolve import PixelFormat, ResolveDesign
from splatforge.hw.resolve import Resolve
from splatforge.sim import resolve as model

sys.path.insert(0, str(Path(__file__).parent))
import streams

BLEND, DESIGN = BlendDesign(), ResolveDesign()
OTHER = BlendDesign(transmittance=Fixed(int_bits=1, frac_bits=20),
                    accumulator=Fixed(int_bits=4, frac_bits=16))
CANARY = 0xA5


def states(blend, shape, seed):
    """Raw pixel states: corners first, then accumulators up to the largest that can occur."""
    rng = np.random.default_rng(seed)
    t = rng.integers(0, blend.one + 1, shape)
    bright = rng.random((*shape, 3)) * rng.choice([0.5, 1.0, 2.0], (*shape, 1))
    color = blend.accumulator.quantize(bright * (1 - blend.transmittance.to_float(t))[..., None])
    state = np.concatenate([color, t[..., None]], axis=-1)
    flat = state.reshape(-1, 4)
    top = blend.accumulator.raw_max
    flat[:4] = [[0, 0, 0, 0], [0, 0, 0, blend.one], [top, top, top, 0], [top, 0, 1, blend.one]]
    return state


def test_number_of_beats_must_not_be_negative():
    with pytest.raises(ValueError, match="Number of beats must be non-negative, not -1"):
        model.cycles(-1)


@pytest.mark.parametrize("blend", [BLEND, OTHER], ids=["default", "other"])
@pytest.mark.parametrize(("kind", "top"), [(PixelFormat.RGBA8, 255), (PixelFormat.RGBA16, 65535)])
def test_fixed_against_float(blend, kind, top):
    """Sums and products are exact: the only error is the rounding to the pixel, by half a unit."""
    state = states(blend, (20_000,), 1)
    for background in ((0, 0, 0), (256, 128, 1), (511, 300, 256)):
        pixels = resolve_fixed(blend, DESIGN, state, background, kind)
        want = resolve_float(
            blend.accumulator.to_float(state[..., :3]), blend.transmittance.to_float(state[..., 3]),
            DESIGN.background.to_float(background))
        assert pixels.dtype == (np.uint8 if top == 255 else np.uint16)
        assert (pixels[..., 3] == top).all()
        error = np.abs(pixels[..., :3] / top - want)
        assert error.max() <= 0.5 / top + 1e-12
        assert pixels.max() == top


def test_state_is_the_state():
    state = states(BLEND, (100,), 2)
    pixels = resolve_fixed(BLEND, DESIGN, state, (256, 256, 256), PixelFormat.STATE)
    assert pixels.dtype == np.uint32
    np.testing.assert_array_equal(pixels, state)


def test_pixels_by_hand():
    half, one = BLEND.one // 2, BLEND.one
    unit = 1 << BLEND.accumulator.frac_bits
    state = np.array([[unit // 2, 0, unit * 2, half], [0, 0, 0, one]])
    got = resolve_fixed(BLEND, DESIGN, state, (256, 128, 0), PixelFormat.RGBA8)
    # 1/2 + 1/2; 1/2 of 1/2 is 63.75 of 255; above one saturates; nothing over the background.
    assert got.tolist() == [[255, 64, 255, 255], [255, 128, 0, 255]]


class Frame(NamedTuple):
    """A frame as the array hands it over."""

    state: np.ndarray
    kind: PixelFormat
    background: tuple[int, int, int]
    address: int = 0x1_2340_0000

    @property
    def height(self):
        return self.state.shape[0]

    @property
    def width(self):
        return self.state.shape[1]

    @property
    def pitch(self):
        row = TILE_PX * self.kind.size_bytes
        # One tile more than needed: nothing may rest on rows that touch.
        return -(-self.width * self.kind.size_bytes // row) * row + row

    def tiles(self, side=1):
        """Tiles of groups of `side` tiles a side, group after group."""
        step = side * TILE_PX
        for group_y in range(0, self.height, step):
            for group_x in range(0, self.width, step):
                for y in range(group_y, min(group_y + step, self.height), TILE_PX):
                    for x in range(group_x, min(group_x + step, self.width), TILE_PX):
                        yield self.state[y:y + TILE_PX, x:x + TILE_PX]


@cache
def bench(blend, design, side=1):
    return streams.Bench(Resolve(blend, design, side=side))


class Memory:
    """Takes bursts and beats, answers each burst some cycles after its last beat."""

    def __init__(self, dut, answer):
        self.dut, self.answer = dut, answer
        self.pending: list[int] = []
        self.responses: list[int] = []

    def drive(self, ctx, cycle):
        ready = bool(self.pending) and self.pending[0] <= cycle
        if ready:
            self.pending.pop(0)
            self.responses.append(cycle)
        ctx.set(self.dut.i_response, ready)


def write(frame, *, blend=BLEND, design=DESIGN, side=1, gap=0.0, stall=0.0, seed=1, answer=3,
          tail=12):
    """Send a frame through the unit: its bursts, its beats, and what was seen meanwhile."""
    dut = bench(blend, design, side).dut
    tile_layout = dut.i_tile.payload.shape()
    group_layout = dut.i.payload.shape()
    tiles, groups, beats, bursts = [], [], 0, 0
    for tile in frame.tiles(side):
        rows, columns = tile.shape[:2]
        tiles.append(streams.pack(tile_layout, {"columns": columns, "rows": rows}))
        bursts += rows
        for row in tile:
            beats += -(-columns * frame.kind.size_bytes // 16)
            for x in range(0, columns, 4):
                # Behind the frame's edge anything may come.
                four = np.full((4, 4), 12345)
                four[:min(4, columns - x)] = row[x:x + 4]
                groups.append(streams.pack(group_layout, [
                    {"color": pixel[:3].tolist(), "transmittance": int(pixel[3])}
                    for pixel in four]))
    # In cycle 0 the frame is started.
    sources = [streams.Source(dut.i_tile, tiles, gap, after=1),
               streams.Source(dut.i, groups, gap, after=2)]
    address = streams.Sink(dut.o_address, bursts, stall)
    beat = streams.Sink(dut.o_data, beats, stall)
    memory = Memory(dut, answer)
    taken = 0

    def drive(ctx, cycle):
        nonlocal taken
        if cycle == 0:
            ctx.set(dut.width, frame.width)
            ctx.set(dut.height, frame.height)
            ctx.set(dut.pixel_format, int(frame.kind))
            for channel in range(3):
                ctx.set(dut.background[channel], frame.background[channel])
            ctx.set(dut.frame_address, frame.address)
            ctx.set(dut.pitch_bytes, frame.pitch)
        ctx.set(dut.start, cycle == 0)
        for transfer in beat.received[taken:]:
            if streams.unpack(dut.o_data.payload.shape(), transfer.word).last:
                memory.pending.append(transfer.cycle + answer)
        taken = len(beat.received)
        memory.drive(ctx, cycle)

    watch = {"done": dut.done, "idle": dut.idle}
    trace = bench(blend, design, side).run(
        sources, [address, beat], seed=seed, tail=tail + answer, drive=drive, watch=watch,
        limit=40_000)
    return dut, sources, address, beat, memory, trace


def framebuffer(frame, dut, address, beat):
    """Bytes behind `frame.address` after all bursts; checks each burst on the way."""
    got = np.full(frame.pitch * frame.height, CANARY, np.uint8)
    written = np.zeros(len(got), bool)
    beats = iter(streams.unpack(dut.o_data.payload.shape(), word) for word in beat.words)
    bursts = 0
    for word in address.words:
        burst = streams.unpack(dut.o_address.payload.shape(), word)
        assert burst.address // 4096 == (burst.address + 16 * burst.length + 15) // 4096
        for number in range(burst.length + 1):
            each = next(beats)
            assert each.last == (number == burst.length)
            at = burst.address - frame.address + 16 * number
            strobes = [each.strobe >> byte & 1 for byte in range(16)]
            assert any(strobes)
            for byte in range(16):
                if strobes[byte]:
                    assert not written[at + byte], "a byte is written once"
                    written[at + byte] = True
                    got[at + byte] = each.data >> 8 * byte & 0xFF
        bursts += 1
    assert next(beats, None) is None
    return got, bursts


@pytest.mark.parametrize("kind", list(PixelFormat), ids=lambda kind: kind.name)
@pytest.mark.parametrize(("gap", "stall"), [(0.0, 0.0), (0.4, 0.0), (0.0, 0.4), (0.3, 0.3)])
def test_rtl_against_fixed(kind, gap, stall):
    frame = Frame(states(BLEND, (19, 37), 3), kind, (256, 100, 511))
    dut, _, address, beat, _, trace = write(frame, gap=gap, stall=stall, seed=4)
    got, bursts = framebuffer(frame, dut, address, beat)
    want = np.full((frame.height, frame.pitch), CANARY, np.uint8)
    pixels = resolve_fixed(BLEND, DESIGN, frame.state, frame.background, kind)
    row_bytes = frame.width * kind.size_bytes
    want[:, :row_bytes] = pixels.view(np.uint8).reshape(frame.height, row_bytes)
    np.testing.assert_array_equal(got.reshape(want.shape), want)
    assert bursts == 3 * frame.height
    # Done once the last response has come, and not before.
    assert trace["done"][-1] == trace["idle"][-1] == 1
    assert sum(trace["done"]) <= 12 + 3


@pytest.mark.parametrize(("width", "height"), [(1, 1), (3, 2), (4, 16), (17, 1), (16, 33)])
def test_rtl_of_other_sizes(width, height):
    for kind in PixelFormat:
        frame = Frame(states(BLEND, (max(height, 2), max(width, 2)), 5)[:height, :width], kind,
                      (1, 2, 3))
        dut, _, address, beat, _, _ = write(frame, stall=0.2)
        got, _ = framebuffer(frame, dut, address, beat)
        pixels = resolve_fixed(BLEND, DESIGN, frame.state, frame.background, kind)
        row_bytes = width * kind.size_bytes
        rows = got.reshape(height, frame.pitch)
        np.testing.assert_array_equal(
            rows[:, :row_bytes], pixels.view(np.uint8).reshape(height, row_bytes))
        assert (rows[:, row_bytes:] == CANARY).all()


@pytest.mark.parametrize(("side", "width", "height"), [
    (2, 37, 53), (2, 64, 32), (2, 5, 3), (4, 70, 90)])
def test_rtl_of_groups(side, width, height):
    frame = Frame(states(BLEND, (height, width), 7), PixelFormat.RGBA8, (1, 2, 3))
    dut, _, address, beat, _, trace = write(frame, side=side, stall=0.1)
    got, _ = framebuffer(frame, dut, address, beat)
    pixels = resolve_fixed(BLEND, DESIGN, frame.state, frame.background, PixelFormat.RGBA8)
    rows = got.reshape(height, frame.pitch)
    np.testing.assert_array_equal(
        rows[:, :4 * width], pixels.view(np.uint8).reshape(height, 4 * width))
    assert (rows[:, 4 * width:] == CANARY).all()
    assert trace["done"][-1] == 1
    assert sum(trace["done"]) <= 12 + 3


def test_rtl_of_other_formats():
    frame = Frame(states(OTHER, (5, 7), 6), PixelFormat.RGBA16, (40000, 1, 65535))
    design = ResolveDesign(background=Fixed(int_bits=1, frac_bits=15))
    dut, _, address, beat, _, _ = write(frame, blend=OTHER, design=design)
    got, _ = framebuffer(frame, dut, address, beat)
    pixels = resolve_fixed(OTHER, design, frame.state, frame.background, PixelFormat.RGBA16)
    np.testing.assert_array_equal(
        got.reshape(5, -1)[:, :56], pixels.view(np.uint8).reshape(5, 56))


@pytest.mark.parametrize("limit", [1, 3])
def test_bursts_in_flight_are_limited(limit):
    frame = Frame(states(BLEND, (16, 32), 7), PixelFormat.RGBA8, (0, 0, 0))
    design = ResolveDesign(outstanding_bursts=limit)
    dut, _, address, beat, memory, _ = write(frame, design=design, answer=30)
    got, _ = framebuffer(frame, dut, address, beat)
    pixels = resolve_fixed(BLEND, design, frame.state, frame.background, PixelFormat.RGBA8)
    np.testing.assert_array_equal(
        got.reshape(16, -1)[:, :128], pixels.view(np.uint8).reshape(16, 128))
    taken = [transfer.cycle for transfer in address.received]
    most = max(
        sum(cycle <= now for cycle in taken) - sum(cycle < now for cycle in memory.responses)
        for now in taken)
    assert most == limit


def test_data_follows_its_address():
    """No beat is offered before the bus has taken the address of its burst."""
    frame = Frame(states(BLEND, (16, 16), 8), PixelFormat.RGBA8, (0, 0, 0))
    _, _, address, beat, _, _ = write(frame, stall=0.7, seed=9)
    # Four beats a row.
    began = [transfer.cycle for transfer in beat.received[::4]]
    assert len(began) == len(address.received) == 16
    assert all(data > taken.cycle for data, taken in zip(began, address.received, strict=True))


@pytest.mark.parametrize("kind", list(PixelFormat), ids=lambda kind: kind.name)
@pytest.mark.parametrize(("columns", "rows"), [(16, 16), (16, 1), (7, 3), (1, 1)])
def test_cycles_match_rtl(kind, columns, rows):
    frame = Frame(states(BLEND, (max(rows, 2), max(columns, 2)), 10)[:rows, :columns], kind,
                  (0, 0, 0))
    dut, (_, groups), _, beat, _, _ = write(frame)
    # The array hands a group over in the cycle after the tile at the earliest.
    first = groups.sent[0].cycle
    assert beat.received[0].cycle - first == dut.latency == model.LATENCY
    assert beat.received[-1].cycle - first + 1 == model.cycles(len(beat.received))
    assert model.cycles(0) == 0


def test_stop_begins_no_burst():
    frame = Frame(states(BLEND, (16, 16), 11), PixelFormat.RGBA8, (0, 0, 0))
    dut = bench(BLEND, DESIGN).dut
    tile = streams.pack(dut.i_tile.payload.shape(), {"columns": 16, "rows": 16})
    offered = []

    async def scenario(ctx):
        ctx.set(dut.width, 16)
        ctx.set(dut.height, 16)
        ctx.set(dut.pitch_bytes, frame.pitch)
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        ctx.set(dut.i_tile.payload, streams.unpack(dut.i_tile.payload.shape(), tile))
        ctx.set(dut.i_tile.valid, 1)
        ctx.set(dut.o_address.ready, 1)
        await ctx.tick().repeat(5)
        ctx.set(dut.stop, 1)
        await ctx.tick()
        # The bus takes what is offered at once, so nothing is offered any more.
        for _ in range(20):
            _, _, valid = await ctx.tick().sample(dut.o_address.valid)
            offered.append(int(valid))
        # Bursts are in flight whose data and responses have not come.
        assert not ctx.get(dut.idle)

    bench(BLEND, DESIGN).play(scenario)
    assert offered == [0] * 20


@pytest.mark.rtl
def test_verilog_against_fixed(run_testbench):
    run_testbench("resolve", seed=7)


import re
import sys
from collections import deque
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splatforge.algos.fetch import (
    SplatLists,
    decode_splats,
    encode_splats,
    fetch_fixed,
    pack,
)
from splatforge.designs.fetch import SUBTILES, FetchDesign, SplatFormat
from splatforge.designs.fixed import Fixed
from splatforge.designs.resolve import PixelFormat
from splatforge.designs.shell import DESCRIPTOR_BYTES, ShellDesign
from splatforge.hw.fetch import Fetch
from splatforge.hw.lib.axi import READ_SPLATS, READ_TABLE
from splatforge.sim import fetch as model

sys.path.insert(0, str(Path(__file__).parent))
import streams

SPLAT, SHELL = SplatFormat(), ShellDesign()
#: Fields that straddle the words in other places, the signs of two of them swapped.
OTHER = SplatFormat(
    u0=Fixed(int_bits=7, frac_bits=10, signed=True), a=Fixed(int_bits=2, frac_bits=9, signed=True),
    b=Fixed(int_bits=2, frac_bits=8))
TABLE, SPLATS = 0x1_2000_0100, 0x1_2000_4F00


def lists(counts, width=None, height=None, seed=1):
    """Lists of random records: `counts` of the tiles of a frame."""
    counts = np.asarray(counts, np.int64)
    rng = np.random.default_rng(seed)
    total = int(counts.sum())
    return SplatLists(
        width=width or 16 * len(counts), height=height or 16,
        starts=np.concatenate([[0], np.cumsum(counts)]),
        records=rng.integers(0, 1 << 64, (total, 2), np.uint64, endpoint=False),
        pairs=counts, places=np.concatenate([np.arange(n) for n in counts]).astype(np.int32),
        gaussians=total, gaussians_visible=total, sh_degree=0)


@st.composite
def fields(draw, splat):
    count = draw(st.integers(0, 5))
    out = {}
    for name, width, signed in splat.fields():
        low = -(1 << (width - 1)) if signed else 0
        values = st.lists(st.integers(low, low + (1 << width) - 1), min_size=count, max_size=count)
        out[name] = np.array(draw(values), np.int64)
    return out


@pytest.mark.parametrize("splat", [SPLAT, OTHER], ids=["default", "other"])
def test_records_keep_their_fields(splat):
    @given(fields(splat))
    @settings(max_examples=50, deadline=None)
    def check(values):
        decoded = decode_splats(splat, encode_splats(splat, values))
        assert list(decoded) == list(values)
        for name, raw in values.items():
            np.testing.assert_array_equal(decoded[name], raw, err_msg=name)

    check()


def test_record_by_hand():
    """u0 from bit 0, then v0, a and so on upward; the mask of the subtiles ends the record."""
    values = {name: np.array([0]) for name, _, _ in SPLAT.fields()}
    offset = 0
    for name, width, _ in SPLAT.fields():
        words = encode_splats(SPLAT, {**values, name: np.array([1])})[0]
        assert int(words[0]) + (int(words[1]) << 64) == 1 << offset, name
        offset += width
    values["u0"] = np.array([-1])
    assert int(encode_splats(SPLAT, values)[0, 0]) == (1 << SPLAT.u0.width) - 1


@pytest.mark.parametrize(("name", "raw", "message"), [
    ("u0", 1 << 17, "Splat u0 must be -131072 to 131071, not 131072 to 131072"),
    ("u0", -(1 << 17) - 1, "Splat u0 must be -131072 to 131071, not -131073 to -131073"),
    ("subtiles", 1 << 16, "Splat subtiles must be 0 to 65535, not 65536 to 65536"),
    ("c", -1, "Splat c must be 0 to 4095, not -1 to -1"),
])
def test_fields_must_fit(name, raw, message):
    values = {each: np.array([0]) for each, _, _ in SPLAT.fields()}
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        encode_splats(SPLAT, {**values, name: np.array([raw])})


def test_packed_frame_by_hand():
    frame = lists([3, 0, 2, 1, 0, 40], width=37, height=21)
    assert (frame.tiles_x, frame.tiles_y, frame.splats) == (3, 2, 46)
    image = pack(frame, background=(1.0, 0.5, 0.0), pixel_format=PixelFormat.RGBA16,
                 base_address=0x8_1234_5600)
    (at, descriptor), (table_at, table), (splats_at, splats) = image.segments
    assert at == image.descriptor_address == 0x8_1234_5600
    assert (table_at, splats_at) == (0x8_1234_5700, 0x8_1234_5800)
    assert image.frame_address == 0x8_1234_6000
    assert image.pitch_bytes == 3 * 16 * 8
    assert image.frame_bytes == 21 * image.pitch_bytes
    assert bytes(descriptor) == bytes.fromhex(
        "01000000 2500 1500 01 00 0001 8000 0000"
        "0057341208000000 0058341208000000 0060341208000000"
        "80010000 2e000000") + bytes(16)
    assert len(descriptor) == DESCRIPTOR_BYTES
    assert table.view("<u4").reshape(-1, 2).tolist() == [
        [0, 3], [3, 0], [3, 2], [5, 1], [6, 0], [6, 40]]
    assert bytes(splats) == frame.records.astype("<u8").tobytes()


@pytest.mark.parametrize("kind", list(PixelFormat), ids=lambda kind: kind.name)
def test_segments_are_aligned_and_apart(kind):
    for counts in ([0], [0] * 7, [1], [5] * 9, [300, 1, 0]):
        image = pack(lists(counts), pixel_format=kind, base_address=0)
        ends = 0
        for address, content in image.segments:
            assert address >= ends
            assert address % 256 == 0
            assert len(content) % 16 == 0
            ends = address + len(content)
        assert image.frame_address >= ends
        assert image.frame_address % (16 * kind.size_bytes) == 0
        assert image.pitch_bytes % (16 * kind.size_bytes) == 0


@pytest.mark.parametrize("kind", list(PixelFormat), ids=lambda kind: kind.name)
def test_a_pitch_that_does_not_cover_a_row(kind):
    image = pack(lists([0] * 3, width=37), pixel_format=kind)
    row = 37 * kind.size_bytes
    assert replace(image, pitch_bytes=row).frame_bytes == row * image.height
    with pytest.raises(
            ValueError, match=rf"^Pitch must be at least {row} bytes, .*, not {row - 1}$"):
        replace(image, pitch_bytes=row - 1)


@pytest.mark.parametrize("kind", list(PixelFormat), ids=lambda kind: kind.name)
def test_pixels_are_cut_out_of_the_framebuffer(kind):
    image = pack(lists([0] * 3, width=37), pixel_format=kind)
    content = np.arange(image.frame_bytes, dtype=np.uint64).astype(np.uint8)
    pixels = image.pixels(content.tobytes())
    size = kind.size_bytes // 4
    assert pixels.shape == (16, 37, 4)
    assert pixels.dtype.itemsize == size
    for y, x, c in ((0, 0, 0), (0, 36, 3), (15, 5, 1)):
        at = y * image.pitch_bytes + (4 * x + c) * size
        assert pixels[y, x, c] == int.from_bytes(content[at:at + size].tobytes(), "little")


def test_pack_refuses():
    frame = lists([1])
    with pytest.raises(ValueError, match="Base address must be a multiple of 256, not 0x80"):
        pack(frame, base_address=0x80)
    for background in ((0.0, 1.5, 0.0), (0.0, 0.0, -0.1), (float("nan"), 0.0, 0.0)):
        message = re.escape(f"Background must be in [0, 1], not {background!r}")
        with pytest.raises(ValueError, match=f"^{message}$"):
            pack(frame, background=background)
    many = SplatLists(
        width=16, height=16, starts=np.array([0, 1 << 32]),
        records=np.broadcast_to(np.zeros((1, 2), np.uint64), (1 << 32, 2)),
        pairs=np.array([1 << 32]), places=np.zeros(0, np.int32), gaussians=1, gaussians_visible=1,
        sh_degree=0)
    message = re.escape("A frame must have fewer than 2^32 splats, not 4294967296")
    with pytest.raises(ValueError, match=f"^{message}$"):
        pack(many)


@given(st.lists(st.integers(0, 100), min_size=1, max_size=40), st.sampled_from([4, 8, 16]),
       st.integers(0, 15), st.integers(0, 15))
@settings(deadline=None)
def test_bursts_cover_everything_once_within_pages(counts, beats, table_page, splat_page):
    design = FetchDesign(burst_beats=beats)
    frame = lists(counts)
    splats, table = [], []
    for tile, first, count, kind in fetch_fixed(design, SHELL, frame):
        assert 1 <= count <= beats
        # Wherever lists may start, at multiples of 256 bytes.
        start = (256 * table_page if kind == READ_TABLE else 256 * splat_page) + 16 * first
        assert start // 4096 == (start + 16 * count - 1) // 4096
        if kind == READ_TABLE:
            assert tile == -1
            table += range(first, first + count)
        else:
            assert kind == READ_SPLATS
            assert frame.starts[tile] <= first
            assert first + count <= frame.starts[tile + 1]
            splats += range(first, first + count)
    assert splats == list(range(frame.splats))
    assert table == list(range(-(-len(counts) // 2)))


@cache
def bench(design):
    return streams.Bench(Fetch(design, SHELL))


class Memory:
    """Answers read bursts after `latency` cycles, IDs in any order, beats with random pauses."""

    def __init__(self, dut, frame, address, *, latency, pause, seed):
        self.dut, self.address, self.latency, self.pause = dut, address, latency, pause
        self.rng = np.random.default_rng(seed)
        table = np.zeros((-(-len(frame.pairs) // 2), 4), np.uint64)
        entries = np.stack([frame.starts[:-1], frame.pairs], axis=1).astype(np.uint64)
        table.reshape(-1, 2)[:len(entries)] = entries
        self.content = {
            READ_TABLE: [sum(int(word) << 32 * n for n, word in enumerate(row)) for row in table],
            READ_SPLATS: [int(low) | int(high) << 64 for low, high in frame.records]}
        self.base = {READ_TABLE: TABLE, READ_SPLATS: SPLATS}
        self.queues = {READ_TABLE: deque(), READ_SPLATS: deque()}
        self.bursts = []
        #: Cycle in which each beat was taken, by ID.
        self.beats = {READ_TABLE: [], READ_SPLATS: []}

    def drive(self, ctx, cycle):
        layout = self.dut.o_address.payload.shape()
        for transfer in self.address.received[len(self.bursts):]:
            burst = streams.unpack(layout, transfer.word)
            first, rest = divmod(burst.address - self.base[burst.id], 16)
            assert rest == 0
            count = burst.length + 1
            self.bursts.append((burst.id, first, count, transfer.cycle))
            for number in range(count):
                self.queues[burst.id].append(
                    (transfer.cycle + self.latency, first + number, number == count - 1))
        due = [queue for queue in self.queues.items() if queue[1] and queue[1][0][0] <= cycle]
        valid = bool(due) and self.rng.random() >= self.pause
        ctx.set(self.dut.i_beat.valid, valid)
        if valid:
            # Data of different IDs may be interleaved and reordered.
            kind, queue = due[self.rng.integers(len(due))] if self.pause else due[0]
            _, place, last = queue.popleft()
            ctx.set(self.dut.i_beat.payload,
                    {"id": kind, "data": self.content[kind][place], "last": last})
            self.beats[kind].append(cycle)

    @property
    def quiet(self):
        return not any(self.queues.values())


def fetch(frame, *, design=FetchDesign(), stall=0.0, latency=5, pause=0.0, seed=1):  # noqa: B008
    """Run a whole frame without early stops."""
    dut = bench(design).dut
    address = streams.Sink(
        dut.o_address, len(fetch_fixed(design, SHELL, frame)), stall)
    tiles = streams.Sink(dut.o_tile, len(frame.pairs), stall)
    out = streams.Sink(dut.o_splat, frame.splats, stall)
    memory = Memory(dut, frame, address, latency=latency, pause=pause, seed=seed)

    def drive(ctx, cycle):
        if cycle == 0:
            begin(ctx, dut, frame)
        ctx.set(dut.start, cycle == 0)
        memory.drive(ctx, cycle)

    trace = bench(design).run(
        sinks=[address, tiles, out], seed=seed, drive=drive, tail=6, limit=60_000,
        watch={"idle": dut.idle, "dropped": dut.dropped, "overlong": dut.overlong})
    assert memory.quiet
    return dut, tiles, out, memory, trace


def begin(ctx, dut, frame, splats=None):
    ctx.set(dut.width, frame.width)
    ctx.set(dut.height, frame.height)
    ctx.set(dut.table_address, TABLE)
    ctx.set(dut.splat_address, SPLATS)
    ctx.set(dut.splats, frame.splats if splats is None else splats)


def expected_tiles(frame):
    """(columns, rows, splats) of every tile."""
    out = []
    for tile, count in enumerate(frame.pairs):
        row, column = divmod(tile, frame.tiles_x)
        out.append((min(16, frame.width - 16 * column), min(16, frame.height - 16 * row), count))
    return out


SMALL = FetchDesign(buffer_splats=16, burst_beats=4, outstanding_bursts=2)


@pytest.mark.parametrize("design", [FetchDesign(), SMALL], ids=["default", "small"])
@pytest.mark.parametrize(("stall", "pause"), [(0.0, 0.0), (0.4, 0.0), (0.0, 0.4), (0.3, 0.3)])
def test_rtl_against_fixed(design, stall, pause):
    # An odd number of tiles, empty ones, lists that straddle burst boundaries in every way.
    counts = np.random.default_rng(2).integers(0, 45, 35)
    counts[[0, 3, 4, 5, 20, 34]] = 0
    counts[[7, 8]] = 16, 32
    frame = lists(counts, width=16 * 7 - 3, height=16 * 5 - 11)
    dut, tiles, out, memory, trace = fetch(
        frame, design=design, stall=stall, pause=pause, seed=3)
    layout = dut.o_tile.payload.shape()
    got = [streams.unpack(layout, word) for word in tiles.words]
    assert [(each.columns, each.rows, each.splats) for each in got] == expected_tiles(frame)
    assert out.words == memory.content[READ_SPLATS]
    # The bursts of each kind, in order; how the two kinds take turns is a matter of time.
    for kind in (READ_TABLE, READ_SPLATS):
        assert [burst[1:3] for burst in memory.bursts if burst[0] == kind] == [
            (first, count) for _, first, count, each in fetch_fixed(design, SHELL, frame)
            if each == kind]
    assert trace["idle"][-1] == 1
    assert not any(trace["dropped"])
    assert not any(trace["overlong"])


def test_requests_stay_within_the_buffers():
    frame = lists([200, 0, 130], seed=4)
    _, _, out, memory, _ = fetch(frame, design=SMALL, stall=0.6, seed=5)
    taken = [transfer.cycle for transfer in out.received]
    flying = most = 0
    for _, first, count, cycle in (each for each in memory.bursts if each[0] == READ_SPLATS):
        # The output register holds one more than the buffer.
        behind = first + count - sum(each < cycle for each in taken)
        most = max(most, behind)
        arrived = sum(each < cycle for each in memory.beats[READ_SPLATS])
        flying = max(flying, -(-(first + count - arrived) // SMALL.burst_beats))
    assert most <= SMALL.buffer_splats + 1
    assert flying <= SMALL.outstanding_bursts + 1


class Consumer:
    """Plays the array: takes a tile, some of its splats, then skips the rest in one cycle."""

    def __init__(self, dut, frame, memory, seed, pace):
        self.dut, self.frame, self.memory, self.pace = dut, frame, memory, pace
        self.rng = np.random.default_rng(seed)
        self.taken: list[list[int]] = []
        self.dropped = 0

    async def play(self, ctx):
        dut = self.dut
        left = wanted = 0
        skip = False
        begin(ctx, dut, self.frame)
        for cycle in range(20_000):
            ctx.set(dut.start, cycle == 0)
            tile_ready = left == 0 and self.rng.random() < self.pace
            # A stop is known at any time once the tile has begun, mid-list or before its first.
            skip = left > 0 and wanted == 0 and self.rng.random() < self.pace
            splat_ready = left > 0 and wanted > 0 and self.rng.random() < self.pace
            ctx.set(dut.o_tile.ready, tile_ready)
            ctx.set(dut.o_splat.ready, splat_ready)
            ctx.set(dut.skip, skip)
            address_ready = self.rng.random() < 0.7
            ctx.set(dut.o_address.ready, address_ready)
            self.memory.drive(ctx, cycle)
            _, _, valid, word, tile, count, address, burst, dropped, idle = await ctx.tick().sample(
                dut.o_splat.valid, dut.o_splat.payload.as_value(), dut.o_tile.valid,
                dut.o_tile.p.splats, dut.o_address.valid, dut.o_address.payload.as_value(),
                dut.dropped, dut.idle)
            if address and address_ready:
                self.memory.address.received.append(streams.Transfer(cycle, burst))
            if tile and tile_ready:
                self.taken.append([])
                left = int(count)
                wanted = left if self.rng.random() < 0.4 else int(self.rng.integers(left + 1))
            if valid and splat_ready:
                self.taken[-1].append(int(word))
                left -= 1
                wanted -= 1
            if skip:
                self.dropped += int(dropped)
                left = wanted = 0
            else:
                assert not dropped
            if (len(self.taken) == len(self.frame.pairs) and left == 0 and idle
                    and self.memory.quiet):
                return
        raise AssertionError("not done after 20000 cycles")


@pytest.mark.parametrize("design", [FetchDesign(buffer_splats=32), SMALL], ids=["32", "small"])
@pytest.mark.parametrize(("pace", "pause", "latency"), [
    (1.0, 0.0, 1), (1.0, 0.0, 30), (0.3, 0.3, 5), (1.0, 0.4, 12)])
def test_rtl_skips_the_rest_of_a_list(design, pace, pause, latency):
    counts = np.random.default_rng(6).integers(0, 90, 40)
    counts[[2, 3, 11]] = 0
    frame = lists(counts, width=160, height=64, seed=7)
    dut = bench(design).dut
    address = streams.Sink(dut.o_address, 0)
    memory = Memory(dut, frame, address, latency=latency, pause=pause, seed=8)
    consumer = Consumer(dut, frame, memory, 9, pace)
    bench(design).play(consumer.play)
    content = memory.content[READ_SPLATS]
    # Of every tile the first records, as many as were wanted, whatever was cut off before.
    for tile, words in enumerate(consumer.taken):
        start = int(frame.starts[tile])
        assert words == content[start:start + len(words)]
    assert sum(map(len, consumer.taken)) < frame.splats
    # What was read is what was taken and what was dropped; something was not even asked for.
    read = sum(count for kind, _, count, _ in memory.bursts if kind == READ_SPLATS)
    assert read == sum(map(len, consumer.taken)) + consumer.dropped
    assert consumer.dropped > 0
    assert read < frame.splats


def test_overlong_list_is_reported_and_not_read():
    frame = lists([10, 20, 5])
    dut = bench(FetchDesign()).dut
    address = streams.Sink(dut.o_address, 0)
    memory = Memory(dut, frame, address, latency=3, pause=0.0, seed=1)
    seen = {}

    async def scenario(ctx):
        begin(ctx, dut, frame, splats=29)
        ctx.set(dut.o_address.ready, 1)
        ctx.set(dut.o_tile.ready, 1)
        ctx.set(dut.o_splat.ready, 1)
        for cycle in range(80):
            ctx.set(dut.start, cycle == 0)
            memory.drive(ctx, cycle)
            _, _, valid, word = await ctx.tick().sample(
                dut.o_address.valid, dut.o_address.payload.as_value())
            if valid:
                address.received.append(streams.Transfer(cycle, word))
        seen["overlong"], seen["idle"] = ctx.get(dut.overlong), ctx.get(dut.idle)

    bench(FetchDesign()).play(scenario)
    # The first tile fits; the second, 10 + 20 > 29, does not, and nothing behind it is asked for.
    assert seen == {"overlong": 1, "idle": 1}
    assert [burst[1:3] for burst in memory.bursts if burst[0] == READ_SPLATS] == [(0, 10)]


def test_stop_asks_for_nothing_more():
    frame = lists([300])
    dut = bench(SMALL).dut
    address = streams.Sink(dut.o_address, 0)
    memory = Memory(dut, frame, address, latency=10, pause=0.0, seed=1)
    asked = []

    async def scenario(ctx):
        begin(ctx, dut, frame)
        ctx.set(dut.o_address.ready, 1)
        ctx.set(dut.o_tile.ready, 1)
        ctx.set(dut.o_splat.ready, 1)
        for cycle in range(120):
            ctx.set(dut.start, cycle == 0)
            ctx.set(dut.stop, cycle >= 60)
            memory.drive(ctx, cycle)
            _, _, valid, word = await ctx.tick().sample(
                dut.o_address.valid, dut.o_address.payload.as_value())
            if valid:
                address.received.append(streams.Transfer(cycle, word))
                asked.append(cycle)
        assert ctx.get(dut.idle)

    bench(SMALL).play(scenario)
    assert asked[-1] <= 60
    assert sum(count for kind, _, count, _ in memory.bursts if kind == READ_SPLATS) < 300


@pytest.mark.parametrize(
    ("count", "latency"), [(1, 1), (1, 9), (5, 9), (16, 9), (17, 20), (200, 40)])
def test_cycles_match_rtl(count, latency):
    frame = lists([count])
    dut, _, out, memory, _ = fetch(frame, latency=latency)
    table = memory.beats[READ_TABLE][0]
    bursts = [cycle for kind, _, _, cycle in memory.bursts if kind == READ_SPLATS]
    assert bursts[0] - table == dut.latency == model.LATENCY
    assert out.received[0].cycle - memory.beats[READ_SPLATS][0] == model.SPLAT_LATENCY
    assert out.received[-1].cycle - bursts[0] + 1 == model.cycles(count, latency)
    # One burst in every cycle while nothing stalls.
    assert bursts == list(range(bursts[0], bursts[0] + len(bursts)))
    assert model.cycles(0, latency) == 0


def test_number_of_splats_must_not_be_negative():
    with pytest.raises(ValueError, match="Number of splats must be non-negative, not -1"):
        model.cycles(-1, 5)


def test_subtiles_are_sixteen():
    assert SPLAT.fields()[-1] == ("subtiles", SUBTILES, False)


@pytest.mark.rtl
def test_verilog_against_fixed(run_testbench):
    run_testbench("fetch", seed=7)

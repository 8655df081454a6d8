"""The harness of whole frames, on a copying engine that can break every rule of the bus."""

import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from vcd.reader import TokenKind, tokenize

from splatforge.algos.fetch import MemoryImage
from splatforge.designs import shell
from splatforge.designs.memory import MemoryTiming
from splatforge.designs.raster import DESCRIPTOR_FIELDS
from splatforge.designs.resolve import PixelFormat
from splatforge.designs.shell import FrameError
from splatforge.verification.lib.build import BuildError, build
from splatforge.verification.lib.frame import (
    CANARY,
    DECERR,
    HARNESS,
    SLVERR,
    BusFault,
    FrameJob,
    SimulationError,
    Stall,
    Waves,
    run_frames,
    stream_frames,
)

pytestmark = pytest.mark.rtl

ENGINE = Path(__file__).parent / "data" / "copy_engine.v"
SHORT = MemoryTiming(latency_cycles=5)


@pytest.fixture(scope="module")
def engine():
    return build(ENGINE.read_text(), "raster", [HARNESS]).path


def image(beats, seed=1, bug=0, source=0x4000):
    """A frame of one row that the engine copies from `source`."""
    content = np.random.default_rng(seed).integers(0, 256, 16 * beats, dtype=np.uint8)
    descriptor = bytearray(shell.DESCRIPTOR_BYTES)
    for value, name in ((bug, "version"), (0x2000, "table_address"), (source, "splat_address"),
                        (0x100000, "frame_address"), (beats, "splats")):
        _, offset, size = next(f for f in DESCRIPTOR_FIELDS if f[0] == name)
        descriptor[offset:offset + size] = value.to_bytes(size, "little")
    packed = MemoryImage(
        segments=((0x1000, np.frombuffer(bytes(descriptor), np.uint8)),
                  (0x2000, np.zeros(16, np.uint8)), (source, content)),
        descriptor_address=0x1000, frame_address=0x100000, width=4 * beats, height=1,
        pixel_format=PixelFormat.RGBA8, pitch_bytes=16 * beats)
    return packed, content


@pytest.mark.parametrize("timing", [
    MemoryTiming(),
    MemoryTiming(latency_cycles=1, outstanding=1),
    MemoryTiming(latency_cycles=20, read_beats_per_cycle=Fraction(2, 3),
                 write_beats_per_cycle=Fraction(3, 4), outstanding=2),
])
@pytest.mark.parametrize(("stall", "interleave"), [
    (Stall(), False), (Stall.every_channel(0.4, 1), False), (Stall.every_channel(0.4, 2), True),
])
def test_two_frames_are_copied(engine, timing, stall, interleave):
    (first, first_bytes), (second, second_bytes) = image(64), image(300, seed=2)
    runs = run_frames(
        engine, [first, second], timing=timing, stall=stall, interleave=interleave)
    for run, content in zip(runs, (first_bytes, second_bytes), strict=True):
        assert np.array_equal(run.frame, content)
        assert run.status == shell.STATUS_DONE
        assert run.frame_error is FrameError.NONE
        assert run.irq
        assert run.irq_cleared
        assert run.hang is None
        beats = len(content) // 16
        assert run.read_bytes == (64, 4 * beats, 16 * beats, 0)
        assert run.read_bursts == (1, beats // 4, beats // 4, 0)
        assert run.write_beats == beats
        assert run.write_bursts == beats // 4
        assert run.written_bytes == len(content)
        # The engine counts from the cycle behind START to the one behind the last response.
        assert run.cycles == run.counters["cycles"] - 1
        assert run.stray_bytes == 0


def test_frames_come_when_they_are_asked_for(engine, tmp_path):
    """The next is looked at when the one before has been used; nothing of that is kept."""
    taken = []

    def frames():
        for seed in range(4):
            taken.append(seed)
            yield image(64 + 4 * seed, seed=seed)[0]

    stream = stream_frames(engine, frames(), timing=SHORT, folder=tmp_path)
    assert not taken
    for seed, run in enumerate(stream):
        assert taken == list(range(seed + 1))
        assert np.array_equal(run.frame, image(64 + 4 * seed, seed=seed)[1])
        assert {path.name for path in tmp_path.iterdir()} == {"results"}
    assert seed == 3


def test_frames_that_nobody_asks_for_any_more(engine, tmp_path):
    stream = stream_frames(engine, (image(64)[0] for _ in range(3)), folder=tmp_path)
    next(stream)
    stream.close()
    with pytest.raises(StopIteration):
        next(stream)


def test_an_error_of_the_frames_is_passed_on(engine):
    def frames():
        yield image(64)[0]
        raise ArithmeticError("no second frame")

    stream = stream_frames(engine, frames())
    next(stream)
    with pytest.raises(ArithmeticError, match="no second frame"):
        next(stream)


def test_a_workspace_is_written_and_read_back(engine):
    """The engine copies in place: what it reads is there, and nothing overtakes anything."""
    packed, content = image(64, source=0x100000)
    descriptor, table, (address, _) = packed.segments
    run, = run_frames(engine, [replace(packed, segments=(descriptor, table))])
    assert (run.frame == CANARY).all()
    # The source lies in the workspace, which holds anything before the frame.
    elsewhere, _ = image(64)
    moved = replace(elsewhere, segments=elsewhere.segments[:2], workspace_address=0x4000,
                    workspace_bytes=1024)
    run, = run_frames(engine, [moved])
    assert (run.frame == CANARY).all()
    assert address == packed.frame_address
    assert len(content) == 1024


def test_a_workspace_goes_from_frame_to_frame(engine):
    """What a frame goes on with is loaded, and what it leaves is returned."""
    packed, content = image(64)
    given = replace(packed, workspace_address=0x4000, workspace_bytes=1024)
    # The engine writes where it always does.
    left = replace(packed, frame_address=0x200000, workspace_address=0x100000,
                   workspace_bytes=1040)
    first, second, third = run_frames(engine, [
        FrameJob(image=given, keep_workspace=True), FrameJob(image=left, keep_workspace=True),
        FrameJob(image=packed, keep_workspace=True)])
    assert np.array_equal(first.frame, content)
    assert np.array_equal(first.workspace, content)
    assert np.array_equal(second.workspace, [*content, *[CANARY] * 16])
    assert (second.frame == CANARY).all()
    assert third.workspace.size == 0


@pytest.mark.parametrize(("bursts", "message"), [
    # The engine reads a few bursts ahead: what it writes is still being read ...
    (1, "AW at 0x100000 overlaps a burst at 0x100000 that is in flight"),
    # ... or what it reads has been written and not been answered.
    (8, "AR at 0x100000 overlaps a burst at 0x100000 that is in flight"),
])
def test_bursts_that_overtake_each_other_are_seen(engine, bursts, message):
    packed, _ = image(64, source=0x100000 - 64 * bursts)
    descriptor, table, (address, content) = packed.segments
    behind = replace(
        packed, segments=(descriptor, table, (address, content[:64 * bursts])))
    with pytest.raises(SimulationError, match=message):
        run_frames(engine, [behind], timing=SHORT, stall=Stall(b=0.95))


def sampled(path):
    """Value of every port before each rising edge, as {name: {edge: value}}."""
    names, values, edges = {}, {}, {}
    edge = -1
    with path.open("rb") as file:
        for token in tokenize(file):
            if token.kind is TokenKind.VAR:
                names.setdefault(token.var.id_code, token.var.reference)
            elif token.kind is TokenKind.CHANGE_TIME:
                if token.time_change % 2:
                    # Changes from here on belong to the state behind the edge.
                    for name, value in values.items():
                        edges.setdefault(name, {})[edge] = value
                else:
                    edge = token.time_change // 2
            elif token.kind is TokenKind.CHANGE_SCALAR:
                values[names[token.scalar_change.id_code]] = int(token.scalar_change.value)
            elif token.kind is TokenKind.CHANGE_VECTOR:
                value = token.vector_change.value
                values[names[token.vector_change.id_code]] = value
    return edges


@pytest.mark.parametrize("timing", [
    MemoryTiming(latency_cycles=1),
    MemoryTiming(latency_cycles=17, outstanding=3),
    MemoryTiming(latency_cycles=9, read_beats_per_cycle=Fraction(2, 3),
                 write_beats_per_cycle=Fraction(3, 5), outstanding=2),
    MemoryTiming(latency_cycles=30, read_beats_per_cycle=Fraction(1, 4),
                 write_beats_per_cycle=Fraction(1, 2)),
], ids=str)
def test_memory_keeps_the_documented_time(tmp_path, timing):
    waves = Waves(path=tmp_path / "copy.vcd", last_cycle=5000)
    binary = build(ENGINE.read_text(), "raster", [HARNESS], trace=waves.kind).path
    packed, _ = image(64)
    run, = run_frames(binary, [packed], timing=timing, waves=waves)
    edges = sampled(waves.path)

    def taken(channel):
        valid, ready = edges[f"m_axi_{channel}valid"], edges[f"m_axi_{channel}ready"]
        return [n for n in valid if valid[n] and ready[n]]

    def waited(channel):
        return [n for n, valid in edges[f"m_axi_{channel}valid"].items()
                if valid and not edges[f"m_axi_{channel}ready"][n]]

    # A naive reading of designs/memory.py, burst by burst.
    latency, limit = timing.latency_cycles, timing.outstanding
    period = 1 / timing.read_beats_per_cycle
    addresses, beats = taken("ar"), taken("r")
    lengths = [edges["m_axi_arlen"][n] + 1 for n in addresses]
    due, place, ends = Fraction(0), 0, []
    for address, length in zip(addresses, lengths, strict=True):
        for _ in range(length):
            due = max(Fraction(address + latency), due + period)
            assert beats[place] == -(-due.numerator // due.denominator)
            place += 1
        ends.append(beats[place - 1])
    assert place == len(beats) == sum(run.read_bytes) // 16
    for number in range(limit, len(addresses)):
        assert addresses[number] > ends[number - limit]
    for n in waited("ar"):
        started = sum(address < n for address in addresses)
        assert started - sum(end < n for end in ends) == limit

    period = 1 / timing.write_beats_per_cycle
    addresses, beats, responses = taken("aw"), taken("w"), taken("b")
    valid = edges["m_axi_wvalid"]
    due, place = Fraction(0), 0
    for number, address in enumerate(addresses):
        for _ in range(4):
            earliest = max(address, beats[place - 1] if place else 0) + 1
            available = next(n for n in valid if n >= earliest and valid[n])
            due = max(Fraction(available), due + period)
            assert beats[place] == -(-due.numerator // due.denominator)
            place += 1
        assert responses[number] == beats[place - 1] + latency
    assert place == len(beats) == run.write_beats
    for number in range(limit, len(addresses)):
        assert addresses[number] > responses[number - limit]


def test_fst_waves_or_one_clear_line(tmp_path):
    waves = Waves(path=tmp_path / "copy.fst", first_cycle=10, last_cycle=50)
    try:
        binary = build(ENGINE.read_text(), "raster", [HARNESS], trace=waves.kind).path
    except BuildError as error:
        if "need the headers of zlib and lz4" not in str(error):
            raise
        pytest.skip(str(error))
    packed, content = image(64)
    run, = run_frames(binary, [packed], waves=waves)
    assert np.array_equal(run.frame, content)
    # The header block: type 0, 329 bytes; then the first and the last time.
    header = waves.path.read_bytes()[:25]
    assert header[:9] == bytes([0]) + (329).to_bytes(8, "big")
    assert int.from_bytes(header[9:17], "big") == 20
    assert int.from_bytes(header[17:25], "big") == 99


BROKEN = {
    1: "AWVALID fell before AWREADY",
    2: "AW changed before AWREADY",
    3: "AR changed before ARREADY",
    4: "ARVALID fell before ARREADY",
    5: "W changed before WREADY",
    6: "WVALID fell before WREADY",
    7: "WLAST is 1 at beat 3 of 4",
    8: "AR burst of 4 beats at 0x4fe0 crosses 4 KiB",
    9: "the frame ended with 0 reads and 1 writes outstanding",
    10: "frame 0: the bus fell silent after",
    11: "AR of size 3 and burst 1, not full beats in INCR",
    12: "a read address without a frame",
    14: "WLAST is 0 at beat 4 of 4",
    15: "AR at 0x4004, not a whole beat",
}


@pytest.mark.parametrize("bug", BROKEN, ids=BROKEN.get)
def test_broken_rules_are_seen(engine, bug):
    packed, _ = image(300, bug=bug)
    with pytest.raises(SimulationError, match=re.escape(BROKEN[bug])):
        run_frames(engine, [packed], timing=SHORT, stall=Stall.every_channel(0.5, 1))


def test_a_wrong_byte_is_seen(engine):
    packed, content = image(64, bug=13)
    run, = run_frames(engine, [packed], timing=SHORT)
    assert np.flatnonzero(run.frame != content).tolist() == [4 * 16 + 2 * 16]


def test_a_frame_that_takes_too_long_is_given_up(engine):
    packed, _ = image(300)
    with pytest.raises(SimulationError, match=r"^frame 0: the frame has not ended after 4\d\d "):
        run_frames(engine, [packed], watchdog_cycles=400)


@pytest.mark.parametrize("response", [SLVERR, DECERR])
@pytest.mark.parametrize(("fault", "error"), [
    (BusFault(read_id=0, beat=3), FrameError.READ),
    (BusFault(read_id=2, burst=5, beat=1), FrameError.READ),
    (BusFault(write=True, burst=7), FrameError.WRITE),
])
def test_faults_answer_one_access(engine, fault, error, response):
    packed, content = image(64)
    faulty = FrameJob(image=packed, faults=(replace(fault, response=response),))
    bad, good = run_frames(engine, [faulty, packed], timing=SHORT)
    assert bad.frame_error is error
    assert bad.irq_status == shell.IRQ_DONE | shell.IRQ_ERROR
    assert good.frame_error is FrameError.NONE
    assert np.array_equal(good.frame, content)


def test_memory_outside_of_every_segment_answers_with_an_error(engine):
    packed, _ = image(64)
    no_table = replace(packed, segments=packed.segments[::2])
    run, = run_frames(engine, [no_table], timing=SHORT)
    assert run.frame_error is FrameError.READ
    small = FrameJob(image=packed, frame_bytes=16 * 60)
    run, = run_frames(engine, [small], timing=SHORT)
    assert run.frame_error is FrameError.WRITE
    read_only = replace(packed, segments=(*packed.segments, (0x100000, np.zeros(1024, np.uint8))))
    run, = run_frames(engine, [read_only], timing=SHORT)
    assert run.frame_error is FrameError.WRITE


def test_status_is_polled_without_interrupts(engine):
    packed, content = image(64)
    run, = run_frames(engine, [FrameJob(image=packed, irq_enable=0)], timing=SHORT)
    assert np.array_equal(run.frame, content)
    assert not run.irq
    assert run.irq_status == shell.IRQ_DONE


def test_progress_and_bytes_outside_of_the_pixels(engine):
    packed, _ = image(300)
    told = []
    narrow = replace(packed, width=packed.width - 8)
    run, *_ = run_frames(
        engine, [narrow] * 40, timing=MemoryTiming(latency_cycles=100, outstanding=1),
        progress=told.append)
    assert run.stray_bytes == pytest.approx(32, abs=2)
    assert told
    assert told == sorted(told)


@pytest.mark.parametrize("value", [-0.1, 1.0])
def test_stall_must_be_a_probability(value):
    message = rf"^Stall must be at least 0 and below 1, not {value}$"
    with pytest.raises(ValueError, match=message):
        Stall(w=value)


def test_waves_must_end_after_they_begin():
    with pytest.raises(ValueError, match=r"^Waves must end after they begin, not 7 to 7$"):
        Waves(path=Path("x.vcd"), first_cycle=7, last_cycle=7)


@pytest.mark.parametrize("name", ["x", "x.gtkw", "x.VCD"])
def test_waves_are_of_a_kind_that_the_name_says(name):
    with pytest.raises(ValueError, match=rf"^{name}: waves must end in \.fst or \.vcd, not in '"):
        Waves(path=Path(name))


def test_waves_need_a_binary_built_for_them(engine, tmp_path):
    packed, _ = image(64)
    with pytest.raises(SimulationError, match="built without waves"):
        run_frames(engine, [packed], waves=Waves(path=tmp_path / "x.vcd"))
    assert not list(tmp_path.iterdir())


def test_harness_has_the_constants_of_the_register_map():
    text = HARNESS.read_text()
    constants = {name: int(value, 0) for name, value in
                 re.findall(r"\b([A-Z_]+) = (0x[0-9A-F]+|\d+)[,;]", text)}
    for register in shell.HEAD_REGISTERS:
        if register.name in constants:
            assert constants[register.name] == register.offset
    assert {"CONTROL", "STATUS", "ERROR", "IRQ_STATUS", "IRQ_ENABLE", "DESCRIPTOR_LOW",
            "DESCRIPTOR_HIGH"} <= constants.keys()
    assert constants["COUNTER_BASE"] == shell.COUNTER_BASE
    for name in ("START", "ABORT", "RESET", "SNAPSHOT"):
        assert constants[name] == getattr(shell, f"CONTROL_{name}")
    assert constants["BUSY"] == shell.STATUS_BUSY

"""Testbench of the unit that sorts voxels, amid a memory and what takes groups and voxels."""

from collections import deque
from copy import copy
from functools import cache

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, RisingEdge

from splatforge.algos.vsu import VsuFrame, pack_stream_camera, vsu_fixed
from splatforge.designs.tokens import GROUP_TAG_BITS, GROUPS_AHEAD
from splatforge.hw.fetch import address_layout, beat_layout
from splatforge.hw.lib.axi import READ_SPLATS, READ_VOXELS
from splatforge.hw.lib.tokens import group_layout, voxel_token_layout
from splatforge.scenes import Camera
from splatforge.verification.lib.runner import TESTED_STREAMINGGS
from splatforge.verification.lib.stream import port, start

VSU, SHELL = TESTED_STREAMINGGS.vsu, TESTED_STREAMINGGS.shell
#: Above 32 bits; the table in the middle of a burst, and across a page.
CAMERA, TABLE = 0x9_8765_4300, 0x12_3456_7FD0
WIDTH, HEIGHT = 149, 101


class Frame:
    """Voxels around what a camera sees, and what must come of them.

    Parameters
    ----------
    seed : int
        Draws the voxels.
    count : int
        How many.
    """

    def __init__(self, seed: int, count: int) -> None:
        rng = np.random.default_rng(seed)
        view = Camera.look_at((0.1, -0.2, -0.4), (0.1, 0.1, 3), (0.1, -1, 0.2), width=WIDTH,
                              height=HEIGHT, fov_x_deg=60)
        depth = rng.uniform(-1, 6, count)
        size = 2.0 ** rng.integers(-4, 0, count)
        center = np.stack([*(rng.uniform(-1, 1, (2, count)) * np.maximum(depth, 0.5)), depth], 1)
        table = np.zeros((count, 8), np.uint32)
        table[:, :3] = (center - 1.5 * size[:, None]).astype(np.float32).view(np.uint32)
        table[:, 3] = size.astype(np.float32).view(np.uint32)
        table[:, 4] = rng.integers(0, 1 << 32, count, dtype=np.uint32)
        # Any path and octaves; now and then a voxel of nothing.
        table[:, 5] = rng.integers(0, 1 << 27, count) & ~0x300
        table[::9, 5] &= 0xFFFFFC00
        # A grid so small that many are equally far.
        table[:, 6] = rng.integers(0, 1 << 30, count) & 0x00701C07
        table[:, 7] = np.stack([size * rng.uniform(0.2, 0.87, count), size / 32], 1).astype(
            np.float16).view(np.uint32)[:, 0]
        camera = pack_stream_camera(
            VSU.floating, view, rng.integers(0, 64, 3), antialiased=seed % 2 == 1,
            weights=rng.integers(1, 256, 3).tolist(), child_weights=(2, 4, 1))
        self.count = count
        self.expected: VsuFrame = vsu_fixed(VSU, table, camera, WIDTH, HEIGHT)
        self.camera = sum(int(word) << 32 * n for n, word in enumerate(camera))
        #: Beats by address, in the order in which they are to be read.
        self.memory = {
            base + 16 * n: int.from_bytes(beat.astype("<u4").tobytes(), "little")
            for base, words in ((CAMERA, camera), (TABLE, table.reshape(-1)))
            for n, beat in enumerate(words.reshape(-1, 4))}

    def voxels(self, group: int) -> list[list[int]]:
        """Fields of the voxels that must come of a group."""
        frame = self.expected
        of = slice(frame.starts[group], frame.starts[group + 1])
        return [[*map(int, frame.d[:, n]), int(frame.size[n]), int(frame.count[n]),
                 int(frame.address[n]), int(prefix)] for n, prefix in zip(
                     frame.places[of], frame.prefixes[of], strict=True)]


frame = cache(Frame)


class Around:
    """What stands around the unit.

    Parameters
    ----------
    dut :
        The unit.
    frame : Frame
        What is read and must come.
    seed : int
        Draws latencies and pauses.
    gap, stall : float
        Probability that nothing is sent, and that nothing is taken, in a cycle.
    early : bool
        Whether groups are over before their end, and something of them lingers elsewhere.
    """

    def __init__(self, dut, frame: Frame, seed: int, gap: float, stall: float, early: bool) -> None:
        self.dut, self.frame, self.gap, self.stall, self.early = dut, frame, gap, stall, early
        self.rng = np.random.default_rng([cocotb.RANDOM_SEED, seed])
        groups = frame.expected.columns * frame.expected.rows
        self.given: list[list[list[int]]] = [[] for _ in range(groups)]
        self.ended = [False] * groups
        self.announced = self.oldest = self.cycle = self.bursts = 0
        self.asked: list[int] = []
        self.beats: deque[tuple[int, int, bool]] = deque()

    def pause(self, probability: float) -> bool:
        """Whether to sit out a cycle."""
        return bool(self.rng.random() < probability)

    def _group_of(self, tag: int) -> int:
        """The group of a tag: one of the last that were announced."""
        back = (self.announced - 1 - tag) % (1 << GROUP_TAG_BITS)
        return self.announced - 1 - back

    async def step(self) -> None:
        """One cycle."""
        dut = self.dut
        ready = {name: not self.pause(self.stall) for name in ("address", "group", "voxel")}
        for name, value in ready.items():
            port(dut, f"o_{name}").ready.value = int(value)
        lingers = self.early and self.pause(0.2)
        dut.oldest.value = self.oldest % (1 << GROUP_TAG_BITS)
        dut.others_behind.value = int(lingers)
        beat = port(dut, "i_beat")
        due = bool(self.beats) and self.beats[0][0] <= self.cycle and not self.pause(self.gap)
        # Beats of others come between.
        fields: dict[int | str, int] = {
            "id": READ_SPLATS, "data": 0x55, "last": int(self.pause(0.5))}
        if due:
            _, word, last = self.beats.popleft()
            self.bursts -= last
            fields = {"id": READ_VOXELS, "data": word, "last": int(last)}
        beat.payload.value = beat_layout(SHELL).const(fields).as_value().value
        beat.valid.value = int(due or self.pause(0.3))
        await RisingEdge(dut.clk)
        self.cycle += 1

        def taken(name: str) -> int | None:
            stream = port(dut, f"o_{name}")
            return int(stream.payload.value) if ready[name] and stream.valid.value == 1 else None

        assert beat.ready.value == 1, "a beat that was asked for has no room"
        if (word := taken("address")) is not None:
            burst = address_layout(SHELL).from_bits(word)
            assert burst.id == READ_VOXELS
            assert burst.address >> 12 == (burst.address + 16 * burst.length) >> 12
            self.bursts += 1
            assert self.bursts <= VSU.outstanding_bursts
            at = self.cycle + int(self.rng.integers(1, 40))
            at = max(at, self.beats[-1][0]) if self.beats else at
            for n in range(burst.length + 1):
                self.asked.append(burst.address + 16 * n)
                self.beats.append((at, self.frame.memory[self.asked[-1]], n == burst.length))
        if (word := taken("voxel")) is not None:
            self._see(voxel_token_layout(VSU.floating).from_bits(word))
        if (word := taken("group")) is not None:
            group = group_layout(VSU.group_tiles).from_bits(word)
            row, column = divmod(self.announced, self.frame.expected.columns)
            px = VSU.group_px
            assert [group.tag, group.columns, group.rows, group.x, group.y] == [
                self.announced % (1 << GROUP_TAG_BITS), min(px, WIDTH - px * column),
                min(px, HEIGHT - px * row), VSU.group_tiles * column, VSU.group_tiles * row]
            assert self.announced - self.oldest <= GROUPS_AHEAD
            self.announced += 1
        # The array: a group is over when its end has come, or at any time.
        if self.oldest < self.announced and (
                self.ended[self.oldest] or (self.early and self.pause(0.02))):
            self.oldest += 1

    def _see(self, token) -> None:
        """A voxel of a group, or its end."""
        number = self._group_of(token.tag)
        columns = self.frame.expected.columns
        assert token.row * columns + token.column == number
        assert not self.ended[number]
        if token.last:
            self.ended[number] = True
            return
        voxel = token.voxel
        self.given[number].append([
            voxel.d_x, voxel.d_y, voxel.d_z, voxel.size, voxel.count, voxel.address,
            token.prefix])


async def begin(dut, frame: Frame) -> None:
    """Reset, then start a frame."""
    dut.stop.value = dut.start.value = dut.oldest.value = dut.others_behind.value = 0
    dut.width.value, dut.height.value, dut.voxels.value = WIDTH, HEIGHT, frame.count
    dut.camera_address.value, dut.voxel_address.value = CAMERA, TABLE
    await start(dut, inputs=["i_beat"], outputs=["o_address", "o_group", "o_voxel"])
    dut.start.value = 1
    await RisingEdge(dut.clk)
    dut.start.value = 0


@cocotb.test(timeout_time=1, timeout_unit="ms")
@cocotb.parametrize(seed=[1, 2], gap=[0.0, 0.4], stall=[0.0, 0.6], early=[False, True])
async def whole_frames(dut, seed: int, gap: float, stall: float, early: bool) -> None:
    """Groups and their voxels, all or as many as were wanted, equal to the bit-true model's.

    Counts of the frame before are still in their memories.
    """
    here = frame(seed, 150)
    around = Around(dut, here, seed, gap, stall, early)
    await begin(dut, here)
    while dut.done.value == 0:
        await around.step()
    assert around.asked == list(here.memory)
    assert int(dut.camera.value) == here.camera
    assert (dut.idle.value, dut.loaded.value, dut.overflow.value) == (1, 1, 0)
    assert around.announced == len(around.given)
    assert 40 < len(here.expected.ids) < 128
    short = 0
    for number, given in enumerate(around.given):
        expected = here.voxels(number)
        short += not around.ended[number]
        assert given == expected[:len(given)]
        assert len(given) == len(expected) or not around.ended[number]
    assert early or not short


@cocotb.test(timeout_time=100, timeout_unit="us")
async def nothing_to_sort(dut) -> None:
    """A table without voxels: every group ends at once."""
    here = frame(3, 0)
    around = Around(dut, here, 3, 0.0, 0.3, False)
    await begin(dut, here)
    while dut.done.value == 0:
        await around.step()
    assert all(around.ended)
    assert not any(around.given)


@cocotb.test(timeout_time=100, timeout_unit="us")
async def too_many(dut) -> None:
    """More that are visible than are kept: no group is announced."""
    here = frame(1, 150)
    # The table three times.
    beats = [word for address, word in here.memory.items() if address >= TABLE]
    here = copy(here)
    here.memory = here.memory | {TABLE + 16 * n: word for n, word in enumerate(3 * beats)}
    here.count = 450
    around = Around(dut, here, 1, 0.0, 0.0, False)
    await begin(dut, here)
    while dut.overflow.value == 0:
        await around.step()
    for _ in range(4000):
        await around.step()
    assert around.announced == 0
    assert (dut.done.value, dut.idle.value, dut.overflow.value) == (0, 1, 1)


@cocotb.test(timeout_time=100, timeout_unit="us")
@cocotb.parametrize(cycles=[3, 40, 200])
async def stop(dut, cycles: int) -> None:
    """Nothing is asked for behind ``stop``; what is in flight arrives."""
    here = frame(1, 150)
    around = Around(dut, here, 1, 0.0, 0.0, False)
    await begin(dut, here)
    for _ in range(cycles):
        await around.step()
    dut.stop.value = 1
    # The burst that waits for the bus still goes.
    for _ in range(2):
        await around.step()
    asked = len(around.asked)
    assert 0 < asked < len(here.memory)
    for _ in range(150):
        await around.step()
    assert len(around.asked) == asked
    assert (dut.idle.value, dut.done.value) == (1, 0)
    assert not around.beats
    await ClockCycles(dut.clk, 2)

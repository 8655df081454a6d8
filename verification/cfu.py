"""Testbench of the coarse filters, amid what gives them voxels, a memory and what takes tokens."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, RisingEdge

from splatforge.algos import floating
from splatforge.algos.cfu import Visits, cfu_fixed
from splatforge.algos.streaminggs.partition import camera_cell, partition
from splatforge.algos.vsu import pack_stream_camera
from splatforge.designs.floating import BINARY32
from splatforge.designs.streaminggs import PartitionDesign
from splatforge.designs.tokens import GROUPS_AHEAD, SurvivorKind
from splatforge.hw.lib.axi import READ_COARSE
from splatforge.hw.lib.tokens import survivor_layout, voxel_token_layout
from splatforge.scenes import Camera, Scene
from splatforge.verification.lib.reads import ReadSide
from splatforge.verification.lib.runner import TESTED_STREAMINGGS
from splatforge.verification.lib.stream import port, start

CFU, SHELL = TESTED_STREAMINGGS.cfu, TESTED_STREAMINGGS.shell
#: Above 32 bits, in the middle of a burst.
SCENE = 0x12_3456_7FD0
WIDTH, HEIGHT, COUNT, GROUPS = 149, 101, 300, 9
#: Number of the first group.
FIRST_TAG = 29


def _scene(rng: np.random.Generator) -> Scene:
    """Gaussians of all sizes around what a camera at the origin sees."""
    depth = rng.uniform(-0.5, 6, COUNT)
    scales = rng.uniform(-6, -3, (COUNT, 3)) + rng.choice([0, 0, 0, 2, 4], (COUNT, 1))
    return Scene(
        means=np.stack([*(rng.uniform(-1, 1, (2, COUNT)) * depth), depth], axis=1).astype(
            np.float32),
        log_scales=scales.astype(np.float32),
        quats=rng.normal(size=(COUNT, 4)).astype(np.float32),
        opacity_logits=rng.uniform(-2, 5, COUNT).astype(np.float32),
        sh=np.zeros((COUNT, 1, 3), np.float32), antialiased=False)


class Frame:
    """Voxels for some groups, what is in memory, and the tokens that must come.

    Parameters
    ----------
    seed : int
        Draws the scene and the groups' voxels.
    """

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        cut = partition(_scene(rng), PartitionDesign(occupied_cells=12, sparsest=4, capacity=100))
        view = Camera.look_at((0.1, -0.2, -0.4), (0.1, 0.1, 3), (0.1, -1, 0.2), width=WIDTH,
                              height=HEIGHT, fov_x_deg=60)
        camera, fmt = cut.stored_camera(view), CFU.floating
        self.record = pack_stream_camera(fmt, camera, camera_cell(cut, view), antialiased=False)
        corner = floating.subtract(
            BINARY32, BINARY32.quantize(cut.base), BINARY32.quantize(camera.position))
        edge = BINARY32.quantize(cut.size)
        words = floating.narrow(fmt, np.concatenate([corner, edge[:, None]], axis=1), BINARY32)
        columns = -(-WIDTH // CFU.group_px)
        group = []
        for number in range(GROUPS):
            share = (0.0, 0.4, 1.0)[rng.integers(3)] if number else 1.0
            chosen = np.flatnonzero(rng.random(cut.voxels) < share)
            group += [(number, voxel) for voxel in (*chosen, -1)]
        self.group, voxel = np.array(group).T
        there = voxel >= 0
        self.visits = Visits(
            tags=(self.group + FIRST_TAG) % 32, columns=self.group % columns,
            rows=self.group // columns, words=words[voxel],
            counts=np.where(there, cut.counts_of_voxels[voxel], 0),
            # Of some all, of others the first.
            prefixes=np.where(there, np.minimum(
                rng.integers(1, 150, len(voxel)), cut.counts_of_voxels[voxel]), 0),
            addresses=cut.coarse_beats[:-1][voxel])
        beats = cut.beats()
        self.frame = cfu_fixed(CFU, self.visits, beats, self.record)
        self.places, self.scales = self.frame.coarse(beats, np.arange(self.frame.starts[-1]))
        self.memory = {SCENE + 16 * n: int.from_bytes(beat.astype("<u4").tobytes(), "little")
                       for n, beat in enumerate(beats)}

    def visit(self, number: int) -> int:
        """Payload of a voxel or of the end of a group."""
        visits = self.visits
        words = dict(zip(("d_x", "d_y", "d_z", "size"), visits.words[number].tolist(), strict=True))
        return voxel_token_layout(CFU.floating).const({
            "tag": int(visits.tags[number]), "column": int(visits.columns[number]),
            "row": int(visits.rows[number]), "last": int(visits.counts[number] == 0),
            "prefix": int(visits.prefixes[number]), "voxel": words | {
                "count": int(visits.counts[number]),
                "address": int(visits.addresses[number])}}).as_value().value

    def tokens(self, number: int) -> Iterator[int]:
        """Payloads of the tokens of a voxel, or of the end of a group."""
        visits, layout = self.visits, survivor_layout(CFU.floating)
        tag, count = int(visits.tags[number]), int(visits.counts[number])

        def token(kind: SurvivorKind, **body: object) -> int:
            fields: Any = {"kind": kind, "tag": tag} | ({"body": body} if body else {})
            return layout.const(fields).as_value().value

        survivors = self.frame.survivors(number)
        if count == 0:
            yield token(SurvivorKind.GROUP_END)
        elif len(survivors):
            words = dict(zip(("d_x", "d_y", "d_z", "size"), visits.words[number].tolist(),
                             strict=True))
            yield token(SurvivorKind.VOXEL, voxel=words | {
                "address": int(visits.addresses[number]) + (count + 1) // 2,
                "column": int(visits.columns[number]), "row": int(visits.rows[number])})
            for index in survivors.tolist():
                at = self.frame.starts[number] + index
                place = self.places[at].tolist()
                yield token(SurvivorKind.GAUSSIAN, gaussian={
                    "index": index, "q_x": place[0], "q_y": place[1], "q_z": place[2],
                    "scale": int(self.scales[at])})
            yield token(SurvivorKind.VOXEL_END)


frame = cache(Frame)


class Surroundings(ReadSide):
    """What stands around the unit.

    Parameters
    ----------
    dut :
        The unit.
    frame : Frame
        What is given and read.
    rng : numpy.random.Generator
        Draws latencies and pauses.
    gap, stall : float
        Probability that nothing is sent, and that nothing is taken, in a cycle.
    """

    def __init__(
        self, dut, frame: Frame, rng: np.random.Generator, gap: float, stall: float
    ) -> None:
        super().__init__(dut, frame.memory, rng, gap, stall, read_id=READ_COARSE,
                         outstanding_bursts=CFU.outstanding_bursts)
        self.frame = frame
        self.tokens: list[int] = []
        #: Visits that were taken; the oldest group that is wanted.
        self.sent, self.oldest = 0, 0

    async def send(self) -> None:
        """Give voxels, of groups at most six ahead."""
        dut, voxel, frame = self.dut, port(self.dut, "i_voxel"), self.frame
        for number in range(len(frame.group)):
            while frame.group[number] > self.oldest + GROUPS_AHEAD or self.pause(self.gap):
                voxel.valid.value = 0
                await RisingEdge(dut.clk)
            voxel.valid.value = 1
            voxel.payload.value = frame.visit(number)
            await RisingEdge(dut.clk)
            while voxel.ready.value != 1:
                await RisingEdge(dut.clk)
            self.sent = number + 1
        voxel.valid.value = 0

    async def take(self) -> None:
        """Take tokens; a group is over with its end."""
        dut, token, layout = self.dut, port(self.dut, "o_token"), survivor_layout(CFU.floating)
        while True:
            ready = not self.pause(self.stall)
            token.ready.value = int(ready)
            dut.oldest.value = (self.oldest + FIRST_TAG) % 32
            await RisingEdge(dut.clk)
            if ready and token.valid.value == 1:
                self.tokens.append(int(token.payload.value))
                got = layout.from_bits(self.tokens[-1])
                # A group may have been ended from elsewhere in the very cycle of its end.
                if (got.kind == SurvivorKind.GROUP_END
                        and got.tag == (self.oldest + FIRST_TAG) % 32):
                    self.oldest += 1


async def begin(dut, frame: Frame) -> None:
    """Reset, then start a frame."""
    dut.stop.value = dut.start.value = 0
    dut.scene_address.value, dut.oldest.value = SCENE, FIRST_TAG
    dut.camera.value = sum(word << 32 * n for n, word in enumerate(frame.record.tolist()))
    await start(dut, inputs=["i_voxel", "i_beat"], outputs=["o_address", "o_token"])
    dut.start.value = 1
    await RisingEdge(dut.clk)
    dut.start.value = 0


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(seed=[1, 2, 3], gap=[0.0, 0.4], stall=[0.0, 0.7])
async def whole_frames(dut, seed: int, gap: float, stall: float) -> None:
    """Tokens and reads of a frame, equal to the bit-true model's."""
    here = frame(seed)
    around = Surroundings(
        dut, here, np.random.default_rng([cocotb.RANDOM_SEED, seed]), gap, stall)
    await begin(dut, here)
    for each in (around.send, around.serve, around.take):
        cocotb.start_soon(each())
    expected = [token for n in range(len(here.group)) for token in here.tokens(n)]
    while len(around.tokens) < len(expected):
        await RisingEdge(dut.clk)
        # Nothing of a group before the oldest: that one has ended behind all of its voxels.
        assert dut.behind.value == 0
    assert around.tokens == expected
    assert around.asked == [
        SCENE + 16 * (int(first) + n)
        for first, count in zip(here.visits.addresses, here.visits.prefixes, strict=True)
        for n in range((int(count) + 1) // 2)]
    passed = here.frame.passed
    assert 0.02 < passed.mean() < 0.7
    await ClockCycles(dut.clk, 50)
    assert len(around.tokens) == len(expected)
    assert dut.idle.value == 1


@cocotb.test(timeout_time=1, timeout_unit="ms")
@cocotb.parametrize(seed=[1, 2], stall=[0.0, 0.6])
async def groups_that_are_over(dut, seed: int, stall: float) -> None:
    """Behind a group that is cut short, the others are whole; what is dropped is no longer told."""
    here = frame(seed)
    rng = np.random.default_rng([cocotb.RANDOM_SEED, seed])
    around = Surroundings(dut, here, rng, 0.1, stall)
    await begin(dut, here)
    for each in (around.send, around.serve, around.take):
        cocotb.start_soon(each())
    over: dict[int, int] = {}
    while around.oldest < GROUPS:
        await RisingEdge(dut.clk)
        if (rng.random() < 0.02 and dut.behind.value == 0
                and around.oldest < min(here.group[max(around.sent - 1, 0)], GROUPS - 1)):
            over[around.oldest] = len(around.tokens)
            around.oldest += 1
    await ClockCycles(dut.clk, 300)
    layout = survivor_layout(CFU.floating)
    for number in range(GROUPS):
        tag = (number + FIRST_TAG) % 32
        mine = [token for token in around.tokens if layout.from_bits(token).tag == tag]
        visits = np.flatnonzero(here.group == number).tolist()
        whole = [token for visit in visits for token in here.tokens(visit)]
        if number not in over:
            assert mine == whole
            continue
        # In order, and with an end for each voxel that began.
        rest = iter(whole)
        assert all(token in rest for token in mine if (
            layout.from_bits(token).kind != SurvivorKind.VOXEL_END))
        kinds = [layout.from_bits(token).kind for token in mine]
        assert kinds.count(SurvivorKind.VOXEL) == kinds.count(SurvivorKind.VOXEL_END)
    assert over
    assert dut.behind.value == 0
    assert dut.idle.value == 1


@cocotb.test(timeout_time=100, timeout_unit="us")
@cocotb.parametrize(cycles=[3, 40, 150])
async def stop(dut, cycles: int) -> None:
    """Nothing is asked for behind ``stop``; what is in flight arrives."""
    here = frame(3)
    around = Surroundings(dut, here, np.random.default_rng(cocotb.RANDOM_SEED), 0.0, 0.0)
    await begin(dut, here)
    for each in (around.send, around.serve, around.take):
        cocotb.start_soon(each())
    await ClockCycles(dut.clk, cycles)
    dut.stop.value = 1
    # The burst that waits for the bus still goes.
    await ClockCycles(dut.clk, 2)
    asked = len(around.asked)
    beats = int(((here.visits.prefixes + 1) // 2).sum())
    assert 0 < asked < beats
    await ClockCycles(dut.clk, 200)
    assert len(around.asked) == asked
    assert dut.idle.value == 1
    assert not around.beats

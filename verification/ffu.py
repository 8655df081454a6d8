"""Testbench of the fine filter, amid a memory, what sends survivors and what takes features."""

from functools import cache
from itertools import accumulate

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, RisingEdge

from splatforge.designs.tokens import GROUP_TAG_BITS, GROUPS_AHEAD, SurvivorKind
from splatforge.hw.lib.axi import READ_FINE
from splatforge.hw.lib.tokens import survivor_layout
from splatforge.verification.lib.fine import Survivors, survivor_fields
from splatforge.verification.lib.reads import ReadSide
from splatforge.verification.lib.runner import TESTED_STREAMINGGS
from splatforge.verification.lib.stream import port, start

FFU, SHELL = TESTED_STREAMINGGS.ffu, TESTED_STREAMINGGS.shell
#: Above 32 bits; the scene shortly before a page ends.
CODEBOOKS, SCENE = 0x9_8765_4300, 0x12_3456_7F80


@cache
def survivors(seed: int) -> Survivors:
    """Tokens, memory, and what must come."""
    return Survivors(FFU, seed, groups=8, sh_degree=seed)


class Surroundings(ReadSide):
    """What stands around the unit.

    Parameters
    ----------
    dut :
        The unit.
    scene : Survivors
        What is sent, read and must come.
    rng : numpy.random.Generator
        Draws latencies, pauses and ends.
    gap, stall : float
        Probability that nothing is sent, and that nothing is taken, in a cycle.
    skip : float
        Probability that the oldest group ends in a cycle, wherever it is.
    """

    def __init__(
        self, dut, scene: Survivors, rng: np.random.Generator, gap: float, stall: float,
        skip: float,
    ) -> None:
        super().__init__(
            dut, scene.memory(CODEBOOKS, SCENE), rng, gap, stall, read_id=READ_FINE,
            outstanding_bursts=FFU.outstanding_bursts, burst_beats=FFU.burst_beats)
        self.scene, self.skip = scene, skip
        self.tokens: list[int] = []
        self.given, self.announced, self.oldest = 0, -1, 0
        #: Groups that ended before their last token had come.
        self.skipped: set[int] = set()

    async def send(self) -> None:
        """Send tokens; a group begins only when nothing of one that is over lingers."""
        dut, token = self.dut, port(self.dut, "i_token")
        layout, tags = survivor_layout(FFU.floating), self.scene.tokens["tag"].tolist()
        offered = late = False
        while self.given < len(tags):
            tag = tags[self.given]
            if not offered and not self.pause(self.gap):
                offered = tag <= self.announced or (tag - self.oldest <= GROUPS_AHEAD and not late)
                if offered:
                    self.announced = max(self.announced, tag)
                    token.payload.value = layout.const(
                        survivor_fields(self.scene.tokens, self.given)).as_value().value
            token.valid.value = int(offered)
            await RisingEdge(dut.clk)
            late = dut.behind.value == 1
            if offered and token.ready.value == 1:
                self.given, offered = self.given + 1, False
        token.valid.value = 0

    async def take(self) -> None:
        """Take tokens; a group is over behind its end, or before."""
        dut, token = self.dut, port(self.dut, "o_token")
        ends = {word: number for number, word in self.scene.leaving.items()
                if self.scene.tokens["kind"][number] == SurvivorKind.GROUP_END}
        while True:
            ready = not self.pause(self.stall)
            token.ready.value = int(ready)
            dut.oldest.value = self.oldest % (1 << GROUP_TAG_BITS)
            await RisingEdge(dut.clk)
            if ready and token.valid.value == 1:
                self.tokens.append(int(token.payload.value))
                number = ends.get(self.tokens[-1])
                if number is not None and self.scene.tokens["tag"][number] == self.oldest:
                    self.oldest += 1
            if self.oldest <= self.announced and self.pause(self.skip):
                self.skipped.add(self.oldest)
                self.oldest += 1


async def begin(dut, scene: Survivors) -> None:
    """Reset, then start a frame."""
    for name in ("stop", "start", "load", "oldest"):
        getattr(dut, name).value = 0
    dut.sh_degree.value = scene.sh_degree
    dut.width.value, dut.height.value = scene.width, scene.height
    dut.codebook_address.value, dut.scene_address.value = CODEBOOKS, SCENE
    dut.camera.value = sum(int(word) << 32 * n for n, word in enumerate(scene.camera))
    await start(dut, inputs=["i_beat", "i_token"], outputs=["o_address", "o_token"])
    dut.start.value = dut.load.value = 1
    await RisingEdge(dut.clk)
    dut.start.value = dut.load.value = 0


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(seed=[1, 2, 3], gap=[0.0, 0.4], stall=[0.0, 0.7], skip=[0.0, 0.008])
async def whole_frames(dut, seed: int, gap: float, stall: float, skip: float) -> None:
    """Tokens and reads of a frame, equal to the bit-true model's; none of groups that ended."""
    scene = survivors(seed)
    around = Surroundings(
        dut, scene, np.random.default_rng([cocotb.RANDOM_SEED, seed]), gap, stall, skip)
    await begin(dut, scene)
    for each in (around.serve, around.send, around.take):
        cocotb.start_soon(each())
    groups = int(scene.tokens["tag"][-1]) + 1
    while around.oldest < groups or around.given < len(scene.tokens["tag"]):
        await RisingEdge(dut.clk)
    await ClockCycles(dut.clk, 400)
    assert dut.idle.value == 1
    assert dut.behind.value == 0
    # All of the groups that were not cut short, and of the others no more than there is, in order.
    tags = {word: int(scene.tokens["tag"][number]) for number, word in scene.leaving.items()}
    rest = iter(scene.leaving.values())
    assert all(word in rest for word in around.tokens)
    assert [word for word in around.tokens if tags[word] not in around.skipped] == [
        word for word in scene.leaving.values() if tags[word] not in around.skipped]
    assert skip or not around.skipped
    # Codebooks once, and then indices: without an end ahead of time those of all Gaussians.
    lengths = [beats for _, beats in around.bursts]
    books = list(accumulate(lengths)).index(
        FFU.codebooks.loaded_beats(scene.sh_degree)) + 1
    read = around.asked
    codebook_beats = read[:sum(lengths[:books])]
    assert codebook_beats == [CODEBOOKS + 16 * n for n in range(len(codebook_beats))]
    wanted = scene.expected.places[scene.tokens["kind"] == SurvivorKind.GAUSSIAN]
    indices = [SCENE + 16 * int(place) for place in wanted]
    if skip:
        rest = iter(indices)
        assert all(address in rest for address in read[len(codebook_beats):])
    else:
        assert read[len(codebook_beats):] == indices
        # Some are dropped, and some are not.
        assert 20 < len(around.tokens) < len(scene.tokens["tag"]) - 20


@cocotb.test(timeout_time=100, timeout_unit="us")
@cocotb.parametrize(cycles=[3, 60, 250])
async def stop(dut, cycles: int) -> None:
    """Nothing is asked for behind ``stop``; what is in flight arrives."""
    scene = survivors(1)
    around = Surroundings(dut, scene, np.random.default_rng(cocotb.RANDOM_SEED), 0.0, 0.0, 0.0)
    await begin(dut, scene)
    for each in (around.serve, around.send, around.take):
        cocotb.start_soon(each())
    await ClockCycles(dut.clk, cycles)
    dut.stop.value = 1
    # The burst that waits for the bus still goes.
    await ClockCycles(dut.clk, 2)
    asked = len(around.asked)
    assert 0 < asked
    await ClockCycles(dut.clk, 150)
    assert len(around.asked) == asked
    assert dut.idle.value == 1
    assert not around.beats

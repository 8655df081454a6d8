"""Testbench of the sorting unit, amid groups of voxels and an array that ends groups."""

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from splatforge.algos.vsort import vsort_fixed
from splatforge.designs.tokens import GROUP_TAG_BITS, GROUPS_AHEAD, FineKind
from splatforge.hw.lib.tokens import fine_token_layout
from splatforge.hw.vsort import kept_layout, sorted_token_layout
from splatforge.verification.lib.runner import TESTED_STREAMINGGS
from splatforge.verification.lib.stream import port, start

VSORT, FFU = TESTED_STREAMINGGS.vsort, TESTED_STREAMINGGS.ffu
GROUPS = 20
#: Features of the voxels of the first groups: none at all, none and one, full ones, every number.
CORNERS = ((), (0, 1, 0), (VSORT.capacity, VSORT.capacity), tuple(range(VSORT.capacity + 1)), ())


class Around:
    """What stands around the unit, and what it is given.

    Parameters
    ----------
    dut :
        The unit.
    seed : int
        Draws voxels and pauses.
    gap, stall : float
        Probability that nothing is sent, and that nothing is taken, in a cycle.
    early : bool
        Whether groups end before their last feature.
    """

    def __init__(self, dut, seed: int, gap: float, stall: float, early: bool) -> None:
        self.dut, self.gap, self.stall, self.early = dut, gap, stall, early
        self.rng = np.random.default_rng([cocotb.RANDOM_SEED, seed])
        counts = [*CORNERS, *(tuple(self.rng.integers(0, VSORT.capacity + 1, voxels).tolist())
                              for voxels in self.rng.integers(0, 5, GROUPS - len(CORNERS)))]
        #: Group and payload of everything that is sent.
        self.tokens: list[tuple[int, int]] = []
        #: Of every group what must come, and what came.
        self.expected: list[list[int]] = [[] for _ in range(GROUPS)]
        self.given: list[list[int]] = [[] for _ in range(GROUPS)]
        for group, voxels in enumerate(counts):
            for count in voxels:
                kept = [int(self.rng.integers(1 << 62)) for _ in range(count)]
                depth = self.rng.integers(0, 1 << FFU.depth_bits, count)
                depth[self.rng.random(count) < 0.3] = depth[:1]
                for word, far in zip(kept, depth.tolist(), strict=True):
                    self._add(group, FineKind.FEATURE, word, far)
                self._add(group, FineKind.VOXEL_END, 0, 0)
                self.expected[group] += [kept[n] for n in vsort_fixed(VSORT, depth)]
            self._add(group, FineKind.GROUP_END, 0, 0)
        self.sent = self.oldest = 0

    def _add(self, group: int, kind: FineKind, kept: int, depth: int) -> None:
        layout = fine_token_layout(FFU)
        word = layout.const({"kind": int(kind), "tag": group % (1 << GROUP_TAG_BITS),
                             "depth": depth}).as_value().value
        # What is kept lies in the token as it does in the memory, around the depth.
        at = 0
        for name, field in kept_layout(FFU):
            bits = kept >> at & ((1 << field.width) - 1)
            word |= bits << layout[name].offset
            at += field.width
        self.tokens.append((group, word))

    def pause(self, probability: float) -> bool:
        """Whether to sit out a cycle."""
        return self.rng.random() < probability

    @property
    def done(self) -> bool:
        """Whether everything was sent, and every group is over."""
        return self.oldest == GROUPS and self.sent == len(self.tokens)

    async def step(self) -> None:
        """One cycle."""
        dut = self.dut
        token, out = port(dut, "i_token"), port(dut, "o_token")
        out_ready = not self.pause(self.stall)
        out.ready.value = int(out_ready)
        dut.oldest.value = self.oldest % (1 << GROUP_TAG_BITS)
        if token.valid.value == 0 and self.sent < len(self.tokens) and not self.pause(self.gap):
            group, word = self.tokens[self.sent]
            # The next group is announced only while nothing of those that are over is inside.
            if group <= self.oldest or (
                    group <= self.oldest + GROUPS_AHEAD and dut.behind.value == 0):
                token.payload.value, token.valid.value = word, 1
        await RisingEdge(dut.clk)
        if token.valid.value == 1 and token.ready.value == 1:
            self.sent += 1
            token.valid.value = 0
        if out_ready and out.valid.value == 1:
            got = sorted_token_layout(FFU).from_bits(int(out.payload.value))
            half = 1 << (GROUP_TAG_BITS - 1)
            group = self.oldest + (got.tag - self.oldest + half) % (2 * half) - half
            if got.end:
                self.oldest += group == self.oldest
            else:
                self.given[group].append(got.kept.as_value().value)
        elif (self.early and self.oldest < GROUPS and self.given[self.oldest]
                and dut.behind.value == 0 and self.pause(0.03)):
            self.oldest += 1


@cocotb.test(timeout_time=500, timeout_unit="us")
@cocotb.parametrize(seed=[1, 2], gap=[0.0, 0.4], stall=[0.0, 0.4], early=[False, True])
async def whole_frames(dut, seed: int, gap: float, stall: float, early: bool) -> None:
    """Of every group the first features in order, as many as were wanted, equal to the model's."""
    around = Around(dut, seed, gap, stall, early)
    dut.oldest.value = 0
    await start(dut, inputs=["i_token"], outputs=["o_token"])
    voxels = 0
    while not around.done:
        await around.step()
        voxels += int(dut.sorted.value)
    short = 0
    for group, (expected, given) in enumerate(zip(around.expected, around.given, strict=True)):
        assert given == expected[:len(given)], f"group {group}"
        short += len(given) < len(expected)
    assert bool(short) == early
    assert voxels
    for _ in range(600):
        await around.step()
    assert port(dut, "o_token").valid.value == 0, "more was sent than there is"
    assert dut.behind.value == 0

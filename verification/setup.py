"""Testbench of the unit in front of StreamingGS's array, amid sorted features and groups."""

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from splatforge.algos.setup import setup_fixed
from splatforge.designs.tokens import GROUP_TAG_BITS, GROUPS_AHEAD
from splatforge.hw.array import group_splat_layout, part_layout
from splatforge.hw.lib.tokens import group_layout
from splatforge.hw.vsort import sorted_token_layout
from splatforge.verification.lib.runner import TESTED_STREAMINGGS
from splatforge.verification.lib.stream import port, start

SETUP, FFU = TESTED_STREAMINGGS.setup, TESTED_STREAMINGGS.ffu
SIDE = FFU.group_tiles
GROUPS, ACROSS = 20, 4
#: Features of the first groups.
CORNERS = (0, 1, 0, 0, 40)


class Around:
    """What stands around the unit, and what it is given.

    Parameters
    ----------
    dut :
        The unit.
    seed : int
        Draws features and pauses.
    gap, stall : float
        Probability that nothing is sent, and that nothing is taken, in a cycle.
    early : bool
        Whether tiles and groups end before their last splat.
    """

    def __init__(self, dut, seed: int, gap: float, stall: float, early: bool) -> None:
        self.dut, self.gap, self.stall, self.early = dut, gap, stall, early
        self.rng = np.random.default_rng([cocotb.RANDOM_SEED, seed])
        counts = [*CORNERS, *self.rng.integers(0, 25, GROUPS - len(CORNERS)).tolist()]
        owner = np.repeat(np.arange(GROUPS), counts)
        raw = {name: self.rng.integers(-(1 << width - 1) if signed else 0, 1 << width - signed,
                                       len(owner))
               for name, width, signed in SETUP.feature.fields()}
        for axis in "xy":
            raw[f"mean_{axis}"] = SETUP.feature.mean.quantize(
                self.rng.uniform(-90, 300, len(owner)))
        extents = self.rng.integers(0, 1 << 10, (2, len(owner)))
        first = self.rng.integers(0, SIDE, (2, len(owner)))
        last = np.maximum(first, self.rng.integers(0, SIDE, (2, len(owner))))
        #: Group and payload of every token; of every group the splats that must come, and those
        #: that came: tile, record.
        self.tokens: list[tuple[int, int]] = []
        self.expected: list[list[tuple[int, int]]] = [[] for _ in range(GROUPS)]
        self.given: list[list[tuple[int, int]]] = [[] for _ in range(GROUPS)]
        for group, count in enumerate(counts):
            begin = len(self.tokens) - group
            for n in range(begin, begin + count):
                kept = {"feature": {name: int(values[n]) for name, values in raw.items()}}
                for k, axis in enumerate("xy"):
                    kept |= {
                        f"extent_{axis}": int(extents[k, n]), f"first_{axis}": int(first[k, n]),
                        f"last_{axis}": int(last[k, n])}
                self._add(group, {"kept": kept})
                for tile in range(SIDE * SIDE):
                    x, y = tile % SIDE, tile // SIDE
                    if first[0, n] <= x <= last[0, n] and first[1, n] <= y <= last[1, n]:
                        record = setup_fixed(
                            SETUP, FFU, {name: values[[n]] for name, values in raw.items()},
                            extents[0, [n]], extents[1, [n]],
                            group % ACROSS * SIDE + x, group // ACROSS * SIDE + y)[0]
                        self.expected[group].append(
                            (tile, int(record[0]) | int(record[1]) << 64))
            self._add(group, {"end": 1})
        self.sent = self.announced = self.ended = 0
        #: What the array has of its group: that it has one, tiles that are over.
        self.taken = False
        self.dead = 0

    def _add(self, group: int, fields: dict) -> None:
        word = sorted_token_layout(FFU).const(
            {"tag": group % (1 << GROUP_TAG_BITS), **fields}).as_value().value
        self.tokens.append((group, word))

    def pause(self, probability: float) -> bool:
        """Whether to sit out a cycle."""
        return self.rng.random() < probability

    @property
    def done(self) -> bool:
        """Whether everything was sent, and every group is over."""
        return self.ended == GROUPS and self.sent == len(self.tokens)

    async def step(self) -> None:
        """One cycle."""
        dut = self.dut
        group, token = port(dut, "i_group"), port(dut, "i_token")
        splat, part = port(dut, "o_splat"), port(dut, "o_group")
        ends = self.taken and (
            (dut.finish.value == 1 and not self.pause(self.stall))
            or (self.early and self.pause(0.03)))
        splat_ready = self.taken and not ends and not self.pause(self.stall)
        part_ready = not self.taken and not self.pause(self.stall)
        splat.ready.value, part.ready.value = int(splat_ready), int(part_ready)
        dut.ended.value, dut.dead.value = int(ends), self.dead
        # Nothing of a group that is over is here or still to come.
        late = self.sent < len(self.tokens) and self.tokens[self.sent][0] < self.ended
        if (group.valid.value == 0 and self.announced < GROUPS and dut.behind.value == 0
                and not late and self.announced <= self.ended + GROUPS_AHEAD
                and not self.pause(self.gap)):
            pixels = 16 * SIDE
            group.payload.value = group_layout(SIDE).const({
                "tag": self.announced % (1 << GROUP_TAG_BITS), "columns": pixels - self.announced,
                "rows": pixels, "x": self.announced % ACROSS * SIDE,
                "y": self.announced // ACROSS * SIDE}).as_value().value
            group.valid.value = 1
        if (token.valid.value == 0 and self.sent < len(self.tokens)
                and self.tokens[self.sent][0] < self.announced and not self.pause(self.gap)):
            token.payload.value, token.valid.value = self.tokens[self.sent][1], 1
        await RisingEdge(dut.clk)
        if group.valid.value == 1 and group.ready.value == 1:
            self.announced += 1
            group.valid.value = 0
        if token.valid.value == 1 and token.ready.value == 1:
            self.sent += 1
            token.valid.value = 0
        if splat_ready and splat.valid.value == 1:
            got = group_splat_layout(SETUP.splat, SIDE).from_bits(int(splat.payload.value))
            self.given[self.ended].append((got.tile, got.splat.as_value().value))
        if self.taken and self.early and self.pause(0.05):
            self.dead |= 1 << int(self.rng.integers(SIDE * SIDE))
        if part_ready and part.valid.value == 1:
            got = part_layout(SIDE).from_bits(int(part.payload.value))
            assert got.columns == 16 * SIDE - self.ended
            self.taken, self.dead = True, 0
        if ends:
            self.taken, self.ended = False, self.ended + 1


def is_part(given: list, expected: list) -> bool:
    """Whether `given` is `expected`, some left out."""
    rest = iter(expected)
    return all(each in rest for each in given)


@cocotb.test(timeout_time=300, timeout_unit="us")
@cocotb.parametrize(seed=[1, 2], gap=[0.0, 0.4], stall=[0.0, 0.4], early=[False, True])
async def whole_frames(dut, seed: int, gap: float, stall: float, early: bool) -> None:
    """Of every group the splats in order, as many as were wanted, equal to the model's."""
    around = Around(dut, seed, gap, stall, early)
    dut.dead.value = dut.ended.value = port(dut, "o_splat").ready.value = 0
    await start(dut, inputs=["i_group", "i_token"], outputs=["o_group"])
    while not around.done:
        await around.step()
    short = 0
    for number, (expected, given) in enumerate(zip(around.expected, around.given, strict=True)):
        assert is_part(given, expected), f"group {number}"
        short += len(given) < len(expected)
    assert bool(short) == early
    for _ in range(40):
        await around.step()
    assert port(dut, "o_splat").valid.value == 0, "more was sent than there is"
    assert dut.behind.value == 0

"""Features of voxels in order of depth: against a plain sort, RTL against both models."""

import re
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from splatforge.algos.vsort import vsort_fixed
from splatforge.designs.ffu import FfuDesign
from splatforge.designs.tokens import GROUPS_AHEAD, FineKind
from splatforge.designs.vsort import VsortDesign
from splatforge.hw.vsort import Vsort
from splatforge.sim import sorter
from splatforge.sim import vsort as model

sys.path.insert(0, str(Path(__file__).parent))
import streams

DESIGN = VsortDesign()
#: Full soon; many features are equally deep.
SMALL = VsortDesign(capacity=16, width=4, units=2, waiting=8, depth_bits=8)
SMALL_FFU = FfuDesign(depth_bits=8)


@pytest.mark.parametrize("design", [DESIGN, SMALL, VsortDesign(capacity=2, width=2, units=1)])
@pytest.mark.parametrize("seed", [1, 2])
def test_order_is_stable(design, seed):
    rng = np.random.default_rng(seed)
    for count in {0, 1, 2, design.capacity // 2 + 1, design.capacity - 1, design.capacity}:
        depth = rng.integers(0, min(1 << design.depth_bits, 2 * count + 1), count)
        depth[rng.random(count) < 0.3] = (1 << design.depth_bits) - 1
        np.testing.assert_array_equal(
            vsort_fixed(design, depth), np.argsort(depth, kind="stable"))


@pytest.mark.parametrize(("depth", "message"), [
    (np.zeros(17, np.int64), "Entry feature must be 0 to 15, not 0 to 16"),
    (np.array([256]), "Entry depth must be 0 to 255, not 256 to 256"),
])
def test_what_does_not_fit_is_refused(depth, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        vsort_fixed(SMALL, depth)


@pytest.mark.parametrize(("change", "message"), [
    ({"depth_bits": 0}, "Depth must have 1 bit or more, not 0"),
    ({"width": 12}, "Width of a sorter must be a power of two from 2 to 64, not 12"),
    ({"capacity": 512}, "Chunk must be a power of two from 16 to 256, not 512"),
    ({"units": 0}, "Sorters must be 1 to 16, not 0"),
    ({"waiting": 2}, "Waiting tokens must be a power of two from 4 to 4096, not 2"),
])
def test_wrong_designs_are_refused(change, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        VsortDesign(**change)


@cache
def bench():
    return streams.Bench(Vsort(SMALL, SMALL_FFU))


class Play:
    """The unit beside both models, cycle by cycle, amid groups of voxels and what blends them.

    With ``early``, a group is over at any time behind its first feature; from then on what is left
    of it may come or not.
    """

    def __init__(self, groups=24, *, gap=0.0, stall=0.0, seed=1, early=False):
        self.rng = np.random.default_rng(seed)
        self.gap, self.stall, self.early, self.groups = gap, stall, early, groups
        self.depth, self.tokens = [], []
        #: Places of the features of each group in order.
        self.order = [[] for _ in range(groups)]
        for group in range(groups):
            for _ in range(self.rng.integers(0, 7)):
                count = int(self.rng.choice([0, 1, 2, 3, 5, 8, 15, SMALL.capacity]))
                first, depth = len(self.depth), self.rng.integers(0, 1 << 8, count)
                self.depth += depth.tolist()
                self.order[group] += (first + vsort_fixed(SMALL, depth)).tolist()
                self.tokens += [(FineKind.FEATURE, group, first + n) for n in range(count)]
                self.tokens.append((FineKind.VOXEL_END, group, 0))
            self.tokens.append((FineKind.GROUP_END, group, 0))
        #: The same, all together: what the model's places are places of.
        self.places = [place for group in self.order for place in group]
        self.given = [[] for _ in range(groups)]
        self.behind = 0

    def out(self, probability):
        return self.rng.random() < probability

    async def play(self, ctx):
        dut = bench().dut
        state, sorters = model.new_vsort(SMALL), model.new_sorters(SMALL)
        layout = dut.i_token.payload.shape()
        oldest, at, shown, held = 0, 0, False, None
        counts = np.zeros(2, np.int64)
        for cycle in range(50_000):
            if oldest == self.groups and at == len(self.tokens):
                self.counts = counts.tolist()
                return
            out_ready = not self.out(self.stall)
            ctx.set(dut.o_token.ready, out_ready)
            ctx.set(dut.oldest, oldest & 31)
            behind = bool(model.behind(state, oldest))
            # A unit before this one may have dropped what belongs to a group that is over.
            while not shown and at < len(self.tokens) and self.tokens[at][1] < oldest and self.out(
                    0.5):
                at += 1
            kind, group, place = -1, 0, 0
            if at < len(self.tokens) and (shown or (
                    self.tokens[at][1] <= oldest + GROUPS_AHEAD and not behind
                    and not self.out(self.gap))):
                kind, group, place = self.tokens[at]
                shown = True
                fields = {"kind": int(kind), "tag": group & 31}
                if kind == FineKind.FEATURE:
                    fields |= {"depth": self.depth[place], "extent_x": place, "first_y": place & 1}
                ctx.set(dut.i_token.payload, layout.const(fields))
            ctx.set(dut.i_token.valid, kind >= 0)

            ready, valid = model.offers(state)
            end, tag, sorted_place = (
                int(state[n]) for n in (model.OUT_END, model.OUT_TAG, model.OUT_PLACE))
            before = state[[model.BUSY, model.SORTED]]
            model.step(state, sorters, oldest, int(kind), group, place, out_ready)
            _, _, *seen = await ctx.tick().sample(
                dut.i_token.ready, dut.o_token.valid, dut.behind, dut.busy, dut.sorted,
                dut.o_token.payload.as_value())
            word = seen.pop()
            now = state[[model.BUSY, model.SORTED]]
            counts += now - before
            assert seen == [ready, valid, behind, *(now - before)], cycle
            self.behind += behind
            assert held in (None, word)
            held = word if valid and not out_ready else None
            if ready and kind >= 0:
                at, shown = at + 1, False
            if valid:
                got = streams.unpack(dut.o_token.payload.shape(), word)
                assert (got.end, got.tag) == (end, tag & 31), cycle
                if not end:
                    place = self.places[sorted_place]
                    assert (got.kept.extent_x, got.kept.first_y) == (place, place & 1), cycle
                    if out_ready:
                        self.given[tag].append(place)
                elif out_ready and tag == oldest:
                    oldest += 1
            if self.early and oldest < self.groups and self.given[oldest] and self.out(0.05):
                oldest += 1
        raise AssertionError("not done")


@pytest.mark.parametrize("pace", [(0.0, 0.0), (0.5, 0.0), (0.2, 0.5)])
def test_voxels_against_both_models(pace):
    play = Play(gap=pace[0], stall=pace[1])
    bench().play(play.play)
    assert play.given == play.order
    assert play.counts[0]


@pytest.mark.parametrize("seed", range(4))
def test_groups_that_are_over_are_dropped(seed):
    play = Play(gap=0.1, stall=0.3, seed=seed, early=True)
    bench().play(play.play)
    for given, order in zip(play.given, play.order, strict=True):
        assert given == order[:len(given)]
    assert sum(map(len, play.given)) < len(play.places)
    assert play.behind


@pytest.mark.parametrize(("count", "interval", "most"), [
    (256, 1, 1.6), (64, 4, 4.2), (8, 4, 4.7), (1, 4, 8.3)])
def test_pace(count, interval, most):
    """Two sorters keep up with a fine filter of four cycles a Gaussian, and an end of voxel."""
    state, sorters = model.new_vsort(DESIGN), model.new_sorters(DESIGN)
    tokens = [token for _ in range(20) for token in (
        *[(int(FineKind.FEATURE), 0, 0)] * count, (int(FineKind.VOXEL_END), 0, 0))]
    at = given = cycle = 0
    while given < 20 * count:
        token = tokens[at] if at < len(tokens) and cycle % interval == 0 else (-1, 0, 0)
        ready, valid = model.offers(state)
        model.step(state, sorters, 0, *token, True)
        at += ready and token[0] >= 0
        given += valid
        cycle += 1
    assert cycle <= most * 20 * count + sorter.sort_cycles(DESIGN.sorter, count) + count


@pytest.mark.rtl
def test_verilog_against_fixed(run_testbench):
    run_testbench("vsort", seed=7)

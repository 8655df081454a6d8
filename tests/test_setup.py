"""From features to splats of a group's tiles: against float, RTL against both models."""

import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from splatforge.algos.setup import setup_fixed, subtiles_met
from splatforge.designs.ffu import FfuDesign
from splatforge.designs.setup import QUEUED_GROUPS, SetupDesign
from splatforge.designs.tokens import GROUPS_AHEAD
from splatforge.hw.setup import Setup
from splatforge.hw.vsort import sorted_token_layout
from splatforge.sim import setup as model

sys.path.insert(0, str(Path(__file__).parent))
import streams

DESIGN, FFU = SetupDesign(), FfuDesign()
SIDE = FFU.group_tiles
#: Groups side by side.
ACROSS = 3


def features(rng, count):
    """Raw fields of any features in and around a frame of some groups, and their boxes."""
    fmt = DESIGN.feature
    raw = {name: rng.integers(-(1 << width - 1) if signed else 0, 1 << width - signed, count)
           for name, width, signed in fmt.fields()}
    for name in ("mean_x", "mean_y"):
        raw[name] = fmt.mean.quantize(rng.uniform(-60, 250, count))
    for name in "abc":
        slope = 1.551 * 10 ** rng.uniform(-3, 0, count)
        raw[name] = fmt.slope.quantize(slope * (rng.choice([-1, 1], count) if name == "b" else 1))
    extents = rng.integers(0, 1 << 9, (2, count))
    extents[:, rng.random(count) < 0.1] = FFU.extent.raw_max
    return raw, extents


def test_subtiles_are_those_with_a_pixel_in_the_box():
    """No centre within a box of real numbers is lost, whatever is rounded on the way."""
    rng = np.random.default_rng(3)
    mean, reach = rng.uniform(-40, 80, 4000), 10 ** rng.uniform(-2, 2, 4000)
    mean[::7] = np.round(mean[::7] * 16) / 16
    unit = 1 << FFU.extent.frac_bits
    raw = DESIGN.feature.mean.quantize(mean)
    down = DESIGN.feature.mean.frac_bits - FFU.extent.frac_bits
    position = (raw + (1 << (down - 1))) >> down
    exact = raw / (1 << DESIGN.feature.mean.frac_bits)
    mask = subtiles_met(FFU, position, np.ceil(reach * unit).astype(np.int64), 2)
    centers = 32 + 0.5 + np.arange(16)
    inside = (np.abs(centers - exact[:, None]) <= reach[:, None]).reshape(-1, 4, 4).any(axis=2)
    said = (mask[:, None] >> np.arange(4)) & 1
    assert (said >= inside).all()
    # And hardly more: what is said beyond is within an eighth and a sixteenth of a pixel.
    first, last = centers[::4], centers[3::4]
    apart = np.maximum(first - exact[:, None], exact[:, None] - last)
    assert (apart[said == 1] <= np.broadcast_to(reach[:, None], said.shape)[said == 1]
            + 0.1876).all()


@cache
def bench():
    return streams.Bench(Setup(DESIGN, FFU))


class Play:
    """The unit beside both models, cycle by cycle, amid sorted features and an array."""

    def __init__(self, groups=20, *, gap=0.0, stall=0.0, seed=1, early=False):
        self.rng = rng = np.random.default_rng(seed)
        self.gap, self.stall, self.early, self.groups = gap, stall, early, groups
        counts = rng.integers(0, 30, groups)
        counts[rng.random(groups) < 0.2] = 0
        self.owner = np.repeat(np.arange(groups), counts)
        total = len(self.owner)
        self.raw, self.extents = features(rng, total)
        first = rng.integers(0, SIDE, (2, total))
        self.first, self.last = first, np.maximum(first, rng.integers(0, SIDE, (2, total)))
        #: Group, feature or -1 for its end.
        self.tokens = sorted([(group, 0, n) for n, group in enumerate(self.owner.tolist())]
                             + [(group, 1, -1) for group in range(groups)])
        self.given, self.behind, self.pruned = [], 0, 0

    def out(self, probability):
        return self.rng.random() < probability

    def tiles(self, place):
        return sum(1 << (y * SIDE + x)
                   for y in range(self.first[1, place], self.last[1, place] + 1)
                   for x in range(self.first[0, place], self.last[0, place] + 1))

    async def play(self, ctx):
        dut = bench().dut
        state = model.new_setup()
        token_layout = sorted_token_layout(FFU)
        announced = at = ended = 0
        shown = group_shown = False
        dead, in_array, held = 0, False, {}
        for cycle in range(50_000):
            if ended == self.groups and at == len(self.tokens) and not model.behind(state):
                return
            splat_ready = in_array and not self.out(self.stall)
            group_ready = not in_array and not self.out(self.stall)
            behind = bool(model.behind(state))
            finish = model.offers(state, dead, splat_ready, False)[3]
            # The array's group ends with its last splat, or at any time.
            ends = in_array and ((finish and not self.out(self.stall))
                                 or (self.early and self.out(0.03)))
            splat_ready = splat_ready and not ends
            ctx.set(dut.o_splat.ready, splat_ready)
            ctx.set(dut.o_group.ready, group_ready)
            ctx.set(dut.dead, dead)
            ctx.set(dut.ended, ends)
            group = announced < self.groups and (group_shown or (
                announced <= ended + GROUPS_AHEAD and not behind and not self.out(self.gap)
                and (at == len(self.tokens) or self.tokens[at][0] >= ended)))
            if group:
                group_shown = True
                ctx.set(dut.i_group.payload, dut.i_group.payload.shape().const({
                    "tag": announced & 31, "columns": announced + 1, "rows": 32,
                    "x": announced % ACROSS * SIDE, "y": announced // ACROSS * SIDE}))
            ctx.set(dut.i_group.valid, group)
            tag, end, feature, tiles = -1, False, -1, 0
            if at < len(self.tokens) and (shown or (
                    self.tokens[at][0] < announced and not self.out(self.gap))):
                shown = True
                tag, end, feature = self.tokens[at]
                fields = {"end": end, "tag": tag & 31}
                if not end:
                    tiles = self.tiles(feature)
                    fields["kept"] = {
                        "feature": {name: int(raw[feature]) for name, raw in self.raw.items()},
                        **{f"extent_{axis}": int(self.extents[k, feature])
                           for k, axis in enumerate("xy")},
                        **{f"{name}_{axis}": int(span[k, feature])
                           for name, span in (("first", self.first), ("last", self.last))
                           for k, axis in enumerate("xy")}}
                ctx.set(dut.i_token.payload, token_layout.const(fields))
            ctx.set(dut.i_token.valid, tag >= 0)

            want = model.offers(state, dead, splat_ready, ends)
            oldest = int(state[model.OLDEST])
            model.step(state, group, tag, end, feature, tiles, group_ready, splat_ready, dead, ends)
            _, _, *seen = await ctx.tick().sample(
                dut.i_group.ready, dut.i_token.ready, dut.o_group.valid, dut.finish,
                dut.o_splat.valid, dut.o_splat.payload.as_value(), dut.o_group.payload.as_value(),
                dut.oldest, dut.behind)
            assert seen[:5] == [*want[:4], want[4] >= 0], cycle
            assert seen[7:] == [oldest & 31, behind], cycle
            self.behind += behind
            for name, here, ready, word in (("splat", seen[4], splat_ready or ends, seen[5]),
                                            ("group", seen[2], group_ready, seen[6])):
                assert name not in held or (here and held[name] == word)
                held = {key: value for key, value in held.items() if key != name}
                if here and not ready:
                    held[name] = word
            if want[4] >= 0 and splat_ready:
                got = streams.unpack(dut.o_splat.payload.shape(), seen[5])
                assert got.tile == want[5]
                self.given.append((int(want[4]), got.tile, got.splat.as_value().value))
            if want[0] and group:
                announced, group_shown = announced + 1, False
            if want[1] and tag >= 0:
                at, shown = at + 1, False
            if want[2] and group_ready:
                in_array, dead = True, 0
            elif in_array and self.early and self.out(0.1):
                dead |= 1 << int(self.rng.integers(SIDE * SIDE))
            if ends:
                in_array, ended = False, ended + 1
        raise AssertionError("not done")

    def check(self):
        """Splats are those of the bit-true model, in order; return those that were not given."""
        all_of = [(n, tile) for n in range(len(self.owner))
                  for tile in range(SIDE * SIDE) if self.tiles(n) >> tile & 1]
        place, tile = np.array(all_of).T
        group = self.owner[place]
        records = setup_fixed(
            DESIGN, FFU, {name: raw[place] for name, raw in self.raw.items()},
            *self.extents[:, place], group % ACROSS * SIDE + tile % SIDE,
            group // ACROSS * SIDE + tile // SIDE)
        want = {key: int(low) | int(high) << 64
                for key, (low, high) in zip(all_of, records, strict=True)}
        keys = [(n, tile) for n, tile, _ in self.given]
        assert keys == sorted(set(keys))
        for n, tile, word in self.given:
            assert word == want[n, tile], (n, tile)
        return len(all_of) - len(keys)


@pytest.mark.parametrize("pace", [(0.0, 0.0), (0.5, 0.0), (0.2, 0.5)])
def test_features_against_both_models(pace):
    play = Play(gap=pace[0], stall=pace[1])
    bench().play(play.play)
    assert play.check() == 0


def test_groups_wait_for_room():
    """More groups than there is room for, though none is announced so far ahead, come in order."""
    async def play(ctx):
        dut, state = bench().dut, model.new_setup()
        offered, taken = 0, []
        ctx.set(dut.i_token.valid, 0)
        ctx.set(dut.ended, 0)
        for cycle in range(60):
            more, ready = offered < QUEUED_GROUPS + 4, cycle >= 30
            ctx.set(dut.i_group.payload, dut.i_group.payload.shape().const({
                "tag": offered, "columns": offered + 1, "rows": 32}))
            ctx.set(dut.i_group.valid, more)
            ctx.set(dut.o_group.ready, ready)
            group_ready, _, shown, _, _, _ = model.offers(state, 0, False, False)
            model.step(state, more, -1, False, -1, 0, ready, False, 0, False)
            _, _, *seen, columns = await ctx.tick().sample(
                dut.i_group.ready, dut.o_group.valid, dut.o_group.p.columns)
            assert seen == [group_ready, shown], cycle
            offered += more and group_ready
            if shown and ready:
                taken.append(columns)
            if cycle == 29:
                assert offered == QUEUED_GROUPS
        assert taken == list(range(1, QUEUED_GROUPS + 5))

    bench().play(play)


@pytest.mark.parametrize("seed", range(3))
def test_groups_and_tiles_that_are_over_are_dropped(seed):
    play = Play(gap=0.1, stall=0.3, seed=seed, early=True)
    bench().play(play.play)
    assert play.check() > 0
    assert play.behind


@pytest.mark.rtl
def test_verilog_against_fixed(run_testbench):
    run_testbench("setup", seed=3)

"""The list reader: every entry once and in order, burst by burst and cycle by cycle as modelled."""

import sys
from collections import deque
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from splatforge.algos.lists import ListPages
from splatforge.designs.entry import EntryFormat
from splatforge.designs.lists import ListsDesign
from splatforge.hw.lib.list_reader import ListReader
from splatforge.sim import list_reader as model
from splatforge.verification.formal import prove

sys.path.insert(0, str(Path(__file__).parent))
import streams

DESIGN = ListsDesign()
#: Short pages, and room for two of them.
SMALL = ListsDesign(
    entry=EntryFormat(feature_bits=9, depth_bits=7, subtile_bits=4), tiles=64, slots=4,
    page_bytes=64, page_bits=9, waiting_beats=8, buffer_beats=8, outstanding_pages=2)
BASE, ID, OTHER = 0x12_3456_7000, 2, 1


@cache
def bench(design):
    return streams.Bench(ListReader(ID, design))


def filled(design, counts, seed):
    """Lists with so many entries each, their pages interleaved."""
    rng = np.random.default_rng(seed)
    lists = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    pages = ListPages(design, first_page=3)
    pages.append(lists, rng.integers(0, 1 << design.entry.width, len(lists), np.uint64))
    pages.flush(0, len(counts))
    return pages


class Play:
    """The reader between a memory and a consumer, beside its model, cycle by cycle."""

    def __init__(self, design, counts, *, gap=0.0, stall=0.0, latency=9, seed=1, stop_at=None):
        self.design, self.counts, self.latency = design, counts, latency
        self.gap, self.stall, self.stop_at = gap, stall, stop_at
        self.rng = np.random.default_rng(seed)
        self.pages = filled(design, counts, seed)
        self.state = model.new_list_reader(design)
        self.limits = model.limits_of(design)
        #: (page, beats) of every burst; (tag, entries, last) of every pair; when it came.
        self.bursts, self.pairs, self.times = [], [], []

    def out(self, probability):
        return self.rng.random() < probability

    async def play(self, ctx):
        dut, design, state = bench(self.design).dut, self.design, self.state
        words = self.pages.words
        listed, pair_layout = dut.i_list.payload.shape(), dut.o_pair.payload.shape()
        beats, sent, place = deque(), 0, 0
        shown, held, of_place = False, None, {}
        quiet = 0
        ctx.set(dut.base_address, BASE)
        for cycle in range(30_000):
            stop = self.stop_at is not None and cycle >= self.stop_at
            ctx.set(dut.stop, stop)
            done = sent == len(self.counts) and not state[model.HELD]
            quiet = quiet + 1 if (stop or done) and not beats and not state[model.PAIR] else 0
            if quiet == 8:
                break
            shown = sent < len(self.counts) and (shown or not self.out(self.gap))
            head, count, tag = 0, 0, sent % 16
            if shown:
                head, count, _, _ = self.pages.query(sent)
                ctx.set(dut.i_list.payload, listed.const(
                    {"page": head, "count": count, "tag": tag}))
            ctx.set(dut.i_list.valid, shown)
            address_ready, pair_ready = not self.out(self.stall), not self.out(self.stall)
            ctx.set(dut.o_address.ready, address_ready)
            ctx.set(dut.o_pair.ready, pair_ready)
            beat, link, last = -1, 0, False
            if beats and beats[0][0] <= cycle and not self.out(self.gap):
                _, page, at, last = beats.popleft()
                low, high = (int(word) for word in words[page, 2 * at:2 * at + 2])
                ctx.set(dut.i_beat.payload, {"id": ID, "data": low | high << 64, "last": last})
                beat, link = place, low
                of_place[place] = page, at
                place += 1
            else:
                # Another's, or of the same ID while none of its own is in flight.
                own = self.out(0.5) and not state[model.IN_FLIGHT]
                ctx.set(dut.i_beat.payload, {
                    "id": ID if own else OTHER, "data": 0x1234, "last": self.out(0.5)})
            ctx.set(dut.i_beat.valid, beat >= 0 or self.out(0.5))
            list_ready, address, pair = model.offers(state, self.limits)
            before = state.copy()
            _, _, *seen = await ctx.tick().sample(
                dut.i_list.ready, dut.o_address.valid, dut.o_address.payload.as_value(),
                dut.o_pair.valid, dut.o_pair.payload.as_value(), dut.i_beat.ready, dut.idle)
            model.step(state, self.limits, count, head, tag, stop, address_ready, beat, link, last,
                       pair_ready)
            assert (seen[0], seen[1], seen[3], seen[5]) == (list_ready, address, pair, 1), cycle
            assert seen[6] == (not address and not before[model.IN_FLIGHT])
            if address:
                burst = streams.unpack(dut.o_address.payload.shape(), seen[2])
                page, rest = divmod(burst.address - BASE, design.page_bytes)
                assert (burst.id, rest, page, burst.length + 1) == (
                    ID, 0, before[model.ADDRESS_PAGE], before[model.ADDRESS_BEATS])
                assert not stop or before[model.ADDRESS], "asked for behind stop"
                if address_ready:
                    self.bursts.append((page, burst.length + 1))
                    at = cycle + self.latency
                    beats.extend((at, page, n, n == burst.length) for n in range(burst.length + 1))
            if pair:
                got = streams.unpack(pair_layout, seen[4])
                assert (got.valid, got.last, got.tag) == tuple(
                    before[[model.PAIR_VALID, model.PAIR_LAST, model.PAIR_TAG]])
                assert held is None or seen[4] == held
                page, at = of_place[before[model.PAIR_PLACE]]
                entries = [got.entries[n] for n in range(2) if got.valid >> n & 1]
                assert entries == [int(words[page, 2 * at + n]) for n in range(2)
                                   if got.valid >> n & 1]
                if pair_ready:
                    self.pairs.append((got.tag, entries, got.last))
                    self.times.append(cycle)
            held = seen[4] if pair and not pair_ready else None
            if shown and list_ready:
                sent, shown = sent + 1, False
        else:
            raise AssertionError("not done")
        assert ctx.get(dut.idle)
        ctx.set(dut.i_beat.valid, 0)


#: Lengths around those of a page of 7 entries, and of two.
CORNERS = (1, 2, 3, 6, 7, 8, 9, 13, 14, 15, 16, 1, 1, 1, 40, 21, 1, 5)


@pytest.mark.parametrize(("gap", "stall", "latency"), [
    (0.0, 0.0, 1), (0.0, 0.0, 30), (0.4, 0.0, 9), (0.0, 0.5, 9), (0.4, 0.5, 5)])
@pytest.mark.parametrize("seed", [1, 2])
def test_lists_come_whole_and_in_order(gap, stall, latency, seed):
    play = Play(SMALL, CORNERS, gap=gap, stall=stall, latency=latency, seed=seed)
    bench(SMALL).play(play.play)
    check_whole(play)


def check_whole(play):
    """Every burst and every entry of all lists."""
    expected, got = [], []
    for at in range(len(play.counts)):
        head, count, _, _ = play.pages.query(at)
        expected += play.pages.bursts(head, count)
        entries = []
        while True:
            tag, pair, last = play.pairs.pop(0)
            assert tag == at % 16
            entries += pair
            if last:
                break
        got.append(entries)
        assert entries == play.pages.read(head, count).tolist()
    assert not play.pairs
    assert play.bursts == expected


def test_long_pages():
    """The default design: pages of 127 entries, lists of none but one to three pages."""
    play = Play(DESIGN, (127, 128, 1, 300, 254, 126, 5), latency=40, seed=3)
    bench(DESIGN).play(play.play)
    check_whole(play)


def test_the_links_hide_behind_long_pages():
    """A long list comes without a pause: the next page is asked for while one arrives."""
    play = Play(DESIGN, (1000,), latency=40)
    bench(DESIGN).play(play.play)
    assert np.diff(play.times).tolist() == [1] * (len(play.times) - 1)
    # So do short lists: the first page of the next is asked for before the end of this one.
    play = Play(DESIGN, (60,) * 12, latency=40)
    bench(DESIGN).play(play.play)
    assert np.diff(play.times).tolist() == [1] * (len(play.times) - 1)


def test_latencies():
    play = Play(SMALL, (1,), latency=1)
    bench(SMALL).play(play.play)
    # The list is taken in cycle 0: address in 2, beat in 3, pair in 7.
    assert play.times == [7]
    play = Play(SMALL, (8,), latency=1)
    bench(SMALL).play(play.play)
    # The first beat in 3, the next page's address in 5, its beat behind the first page's last.
    assert play.times == [7, 8, 9, 10, 11]


@pytest.mark.parametrize("stop_at", [1, 2, 3, 20, 37, 60])
def test_nothing_is_asked_for_behind_stop(stop_at):
    play = Play(SMALL, CORNERS, gap=0.2, stall=0.3, stop_at=stop_at)
    bench(SMALL).play(play.play)
    expected = [burst for at in range(len(CORNERS))
                for burst in play.pages.bursts(*play.pages.query(at)[:2])]
    assert len(play.bursts) < len(expected)
    assert play.bursts == expected[:len(play.bursts)]
    assert sum(beats for _, beats in play.bursts) == len(play.pairs)


@pytest.mark.rtl
def test_stalled_streams_keep_their_payload(tmp_path):
    proof = prove("list_reader", ListReader(ID, SMALL), tmp_path)
    assert proof.holds, proof.log
    assert set(proof.outputs) == {"o_address", "o_pair"}

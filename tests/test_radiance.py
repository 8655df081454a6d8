"""The radiance cache against a slow one of dicts and lists, its bytes in memory, and its RTL."""

import re
import sys
from collections import deque
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from splatforge.algos.radiance import Banks, Outcome, radiance_fixed, record_keys
from splatforge.designs.radiance import RadianceDesign
from splatforge.hw.lib.axi import READ_BANKS, READ_FEATURES
from splatforge.hw.radiance import Radiance
from splatforge.sim import radiance as model
from splatforge.verification.lib.records import RecordedFrame, record_pool

sys.path.insert(0, str(Path(__file__).parent))
import streams

GEOMETRIES = [
    {}, {"record_ids": 1, "sets": 16, "ways": 1}, {"record_ids": 2, "sets": 16, "ways": 2},
    {"record_ids": 3, "sets": 128, "ways": 8}, {"record_ids": 6, "sets": 1024, "ways": 8},
    {"record_ids": 7, "sets": 16, "ways": 4}, {"record_ids": 8, "sets": 16384, "ways": 2},
    {"record_ids": 4, "sets": 64, "ways": 1}]


@pytest.mark.parametrize(("wrong", "message"), [
    ({"record_ids": 0}, "Ids of a record must be 1 to 8, not 0"),
    ({"record_ids": 9}, "Ids of a record must be 1 to 8, not 9"),
    ({"sets": 8}, "Sets must be a power of two from 16 to 16384, not 8"),
    ({"sets": 1000}, "Sets must be a power of two from 16 to 16384, not 1000"),
    ({"ways": 3}, "Ways must be 1, 2, 4 or 8, not 3"),
    ({"group_tiles": 3}, "Tiles of a group's side must be 1, 2 or 4, not 3"),
    ({"outstanding_bursts": 0}, "Outstanding bursts must be 1 to 64, not 0")])
def test_errors(wrong, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        RadianceDesign(**wrong)


def test_the_papers_geometry():
    design = RadianceDesign()
    assert design.capacity_bytes == 52 * 1024
    assert design.tag_bits == 80
    assert design.image_bytes == 65536


class Slow:
    """One bank: a list of ways for every set, each None or [tag, color]; a dict of the nodes."""

    def __init__(self, design):
        self.design = design
        self.ways = {}
        self.nodes = {}

    def key(self, ids):
        """The string of bits of the module's docstring, as text."""
        bits = self.design.index_bits
        string, number = "", 0
        while len(string) < bits:
            for one in ids:
                string += f"{one >> 2 * number & 1}{one >> 2 * number + 1 & 1}"
            number += 1
        string += "0" * (-len(string) % bits)
        index = 0
        for first in range(0, len(string), bits):
            index ^= int(string[first:first + bits][::-1], 2)
        return index, tuple(one >> 2 & 0xFFFF for one in ids)

    def find(self, index, tag):
        for way, entry in enumerate(self.ways.get(index, [])):
            if entry is not None and entry[0] == tag:
                return way
        return None

    def path(self, way):
        """(first way, ways, whether `way` is in the upper half) from the root downward."""
        first, count = 0, self.design.ways
        while count > 1:
            upper = way >= first + count // 2
            yield first, count, upper
            count //= 2
            first += count * upper

    def touch(self, index, way):
        for first, count, upper in self.path(way):
            self.nodes[index, first, count] = not upper

    def victim(self, index):
        return next(way for way in range(self.design.ways) if all(
            self.nodes.get((index, first, count), False) == upper
            for first, count, upper in self.path(way)))

    def tile(self, records, colors):
        """(hit colour or None, outcome) of every pixel."""
        found = []
        for record in records:
            way = None if record is None else self.find(*self.key(record))
            found.append(None if way is None else self.ways[self.key(record)[0]][way][1])
        outcomes = []
        for record, color, hit in zip(records, colors, found, strict=True):
            if record is None:
                outcomes.append(Outcome.BYPASSED)
                continue
            index, tag = self.key(record)
            entries = self.ways.setdefault(index, [None] * self.design.ways)
            way = self.find(index, tag)
            if way is not None:
                outcomes.append(Outcome.TOUCHED)
            elif hit is not None:
                outcomes.append(Outcome.GONE)
                continue
            else:
                free = None in entries
                outcomes.append(Outcome.FILLED if free else Outcome.REPLACED)
                way = entries.index(None) if free else self.victim(index)
                entries[way] = [tag, color]
            self.touch(index, way)
        return found, outcomes

    def image(self):
        """Bytes in memory, entry after entry."""
        design, image = self.design, b""
        for index in range(design.sets):
            entries = self.ways.get(index, [None] * design.ways)
            for way, entry in enumerate(entries):
                word = 0
                if entry is not None:
                    tag, color = entry
                    for place, part in enumerate(tag):
                        word |= part << 16 * place
                    for channel in range(3):
                        word |= int(color[channel]) << design.tag_bits + 8 * channel
                    word |= 1 << design.tag_bits + 24
                if way == 0:
                    for node in range(design.ways - 1):
                        level = (node + 1).bit_length() - 1
                        count = design.ways >> level
                        first = (node + 1 - (1 << level)) * count
                        bit = self.nodes.get((index, first, count), False)
                        word |= bit << design.tag_bits + 25 + node
                image += word.to_bytes(16 * design.entry_beats, "little")
        return image


def frame(rng, design, tiles, pool, share=0.8):
    """Records of pixels, drawn from a pool so that they come again, and their colours."""
    ids = pool[rng.integers(0, len(pool), (tiles, 256))]
    return (ids.astype(np.int32), rng.random((tiles, 256)) < share,
            rng.integers(0, 256, (tiles, 256, 3)).astype(np.uint8))


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_is_the_slow_cache(geometry):
    """Two groups, three frames; ids of 18 bits, so that few keys are shared by chance."""
    design = RadianceDesign(**geometry)
    rng = np.random.default_rng(design.sets + design.ways)
    # Most lowest bits are zero: few sets, that replace what they hold.
    pool = rng.integers(0, 1 << 18, (1500, design.record_ids))
    pool[:, 1:] &= ~3
    banks = Banks.empty(design, 2)
    slow = [Slow(design), Slow(design)]
    seen = set()
    for _ in range(3):
        ids, complete, final = frame(rng, design, 5, pool)
        visits, banks = radiance_fixed(
            design, banks, np.array([0, 3, 5]), ids, complete, final)
        for tile in range(5):
            records = [tuple(map(int, one)) if whole else None
                       for one, whole in zip(ids[tile], complete[tile], strict=True)]
            found, outcomes = slow[tile >= 3].tile(records, [tuple(c) for c in final[tile]])
            assert visits.outcome[tile].tolist() == outcomes
            assert visits.hit[tile].tolist() == [color is not None for color in found]
            for pixel in np.flatnonzero(visits.hit[tile]):
                assert tuple(visits.colors[tile, pixel]) == found[pixel]
            for pixel in np.flatnonzero(complete[tile]):
                assert visits.sets[tile, pixel] == slow[0].key(records[pixel])[0]
            seen |= set(outcomes)
        images = banks.images(design)
        assert images.shape == (2, design.image_bytes)
        assert [image.tobytes() for image in images] == [one.image() for one in slow]
        # What comes back from memory goes on as if it had stayed, but for ids that it forgets.
        back = Banks.from_images(design, images)
        for name in ("tags", "colors", "valid", "recency"):
            np.testing.assert_array_equal(getattr(back, name), getattr(banks, name))
        banks = back
    assert seen == set(Outcome)


def test_bank_from_any_bytes():
    """Junk in entries that are not valid is not kept; what is valid is."""
    design = RadianceDesign(sets=16, record_ids=7, ways=8)
    junk = np.random.default_rng(1).integers(0, 256, (3, design.image_bytes)).astype(np.uint8)
    banks = Banks.from_images(design, junk)
    images = banks.images(design)
    entries = [array.reshape(3, 16, 8, -1) for array in (junk, images)]
    bits = np.unpackbits(entries[1], axis=-1, bitorder="little")
    assert not bits[..., design.entry_bits:].any()
    assert not bits[:, :, 1:, design.tag_bits + 25:].any()
    assert (bits[..., design.tag_bits + 24] == banks.valid).all()
    assert 0 < banks.valid.mean() < 1
    assert not bits[~banks.valid][:, :design.tag_bits + 25].any()
    before = np.unpackbits(entries[0], axis=-1, bitorder="little")
    used = design.tag_bits + 25
    np.testing.assert_array_equal(bits[banks.valid][:, :used], before[banks.valid][:, :used])
    np.testing.assert_array_equal(Banks.from_images(design, images).images(design), images)


def test_index_of_five_ids_is_their_lowest_bits():
    sets, tags = record_keys(RadianceDesign(), [1, 2, 3, 0, 4 * 0xABCD + 2])
    assert sets == 0b10_00_11_10_01
    assert tags.tolist() == [0, 0xABCD]


def test_false_hits_are_those_of_other_ids():
    """Ids that differ above bit 17 share a key, and so do those that the XOR folds together."""
    design = RadianceDesign()
    starts, complete = np.array([0, 1]), np.zeros((1, 256), bool)
    complete[0, :2] = True
    ids = np.zeros((1, 256, 5), np.int32)
    ids[0, 0] = 1, 2, 3, 4, 5
    ids[0, 1] = 10, 20, 30, 40, 50
    final = np.zeros((1, 256, 3), np.uint8)
    _, banks = radiance_fixed(design, Banks.empty(design, 1), starts, ids, complete, final)
    ids[0, 1, 2] += 1 << 18
    visits, _ = radiance_fixed(design, banks, starts, ids, complete, final)
    assert visits.hit[0, :3].tolist() == [True, True, False]
    assert visits.false_hit[0, :3].tolist() == [False, True, False]
    back = Banks.from_images(design, banks.images(design))
    visits, _ = radiance_fixed(design, back, starts, ids, complete, final)
    assert not visits.false_hit.any()
    folded = RadianceDesign(record_ids=6)
    first, second = [1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1]
    (one, tag), (other, same) = (record_keys(folded, ids) for ids in (first, second))
    assert one == other == 1
    assert (tag == same).all()


def test_groups_do_not_share():
    design = RadianceDesign(sets=16, ways=1)
    rng = np.random.default_rng(3)
    ids, complete, final = frame(rng, design, 4, rng.integers(0, 1 << 18, (50, 5)))
    both, banks = radiance_fixed(
        design, Banks.empty(design, 2), np.array([0, 2, 4]), ids, complete, final)
    alone, bank = radiance_fixed(
        design, Banks.empty(design, 1), np.array([0, 2]), ids[2:], complete[2:], final[2:])
    np.testing.assert_array_equal(both.outcome[2:], alone.outcome)
    np.testing.assert_array_equal(banks.images(design)[1:], bank.images(design))


BASE = 0x12_3456_7F00


@cache
def bench(design):
    return streams.Bench(Radiance(design))


class Play:
    """A frame through the unit between an array and a memory, beside its model, cycle by cycle.

    The array walks a tile when all its pixels are answered, and looks the next one's up then.
    """

    def __init__(self, design, frame, memory, seed, *, gap=0.0, stall=0.0, latency=7):
        self.design, self.frame, self.memory, self.latency = design, frame, memory, latency
        self.rng = np.random.default_rng(seed)
        self.gap, self.stall = gap, stall
        self.state = model.new_radiance(design, frame.width, frame.height, flush=frame.flush)
        self.fills, self.last_walk, self.cycles = 0, [], 0

    def out(self, probability):
        return bool(self.rng.random() < probability)

    async def play(self, ctx):
        frame, dut = self.frame, bench(self.design).dut
        lookup, walk = dut.i_lookup.payload.shape(), dut.i_walk.payload.shape()
        answer = dut.o_answer.payload.shape()
        lookups, walks = frame.lookups(self.rng), frame.walk()
        unanswered = frame.complete.sum(1)
        same = model.walks(frame.ids, frame.complete)
        asked = answered = walked = written = 0
        asking = walking = False
        beats, bursts, responses, words = deque(), deque(), deque(), deque()
        loaded, saved = [], []
        for name, value in (
                ("start", 1), ("enable", 1), ("flush", frame.flush), ("width", frame.width),
                ("height", frame.height), ("cache_address", BASE)):
            ctx.set(getattr(dut, name), value)
        ctx.set(dut.o_answer.ready, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        for cycle in range(60_000):
            tile, pixel = lookups[asked] if asked < len(lookups) else (frame.tiles, -1)
            at, place = walks[walked] if walked < len(walks) else (frame.tiles, -1)
            if not asking and tile == at < frame.tiles and not self.out(self.gap):
                asking = True
                ctx.set(dut.i_lookup.payload, lookup.const(frame.lookup_fields(tile, pixel)))
            if (not walking and at < frame.tiles and not unanswered[at]
                    and not self.out(self.gap)):
                walking = True
                ctx.set(dut.i_walk.payload, walk.const(frame.walk_fields(at, place)))
            ctx.set(dut.i_lookup.valid, asking)
            ctx.set(dut.i_walk.valid, walking)
            address_ready, write_ready, data_ready = (not self.out(self.stall) for _ in range(3))
            for port, ready in (("o_address", address_ready), ("o_write_address", write_ready),
                                ("o_write_data", data_ready)):
                ctx.set(getattr(dut, port).ready, ready)
            due = bool(beats) and beats[0][0] <= cycle and not self.out(self.gap)
            last = False
            ctx.set(dut.i_beat.valid, due or self.out(0.2))
            if due:
                _, word, last = beats.popleft()
                ctx.set(dut.i_beat.payload, {"id": READ_BANKS, "data": word, "last": last})
            else:
                ctx.set(dut.i_beat.payload, {"id": READ_FEATURES, "data": 0x55, "last": 1})
            response = bool(responses) and responses[0] <= cycle
            if response:
                responses.popleft()
            ctx.set(dut.i_response, response)
            shown = model.offers(self.state)
            before = self.state.copy()
            model.step(
                self.state, pixel if asking else -1,
                (0 if place < 0 else int(frame.sets[at, place])) if walking else -1,
                walking and place >= 0 and bool(same[at, place]), place < 0, address_ready, due,
                last, write_ready, data_ready, response)
            (_, _, look_ready, walk_ready, address_valid, address, write_valid, write_address,
             data_valid, data, answer_valid, word, hit, fill, wait, done, beat_ready, idle
             ) = await ctx.tick().sample(
                dut.i_lookup.ready, dut.i_walk.ready, dut.o_address.valid, dut.o_address.payload,
                dut.o_write_address.valid, dut.o_write_address.payload, dut.o_write_data.valid,
                dut.o_write_data.payload, dut.o_answer.valid, dut.o_answer.payload.as_value(),
                dut.hit, dut.fill, dut.wait, dut.done, dut.i_beat.ready, dut.idle)
            # The model shows what the unit shows.
            number = -1 if not answer_valid else int(streams.unpack(answer, word).pixel)
            assert (look_ready, walk_ready, number, address_valid, write_valid, data_valid,
                    done) == shown, cycle
            assert wait == self.state[model.WAITED] - before[model.WAITED]
            assert beat_ready
            self.fills += fill
            if answer_valid:
                one = lookups[answered]
                assert word == streams.pack(answer, frame.answer_fields(*one)), one
                assert hit == frame.visits.hit[one]
                unanswered[one[0]] -= 1
                answered += 1
            if asking and look_ready:
                asked, asking = asked + 1, False
            if walking and walk_ready:
                walked, walking = walked + 1, False
                self.last_walk.append(cycle)
            if address_valid and address_ready:
                assert (address.id, address.length) == (READ_BANKS, 15)
                loaded.append(address.address)
                when = max(cycle + self.latency, beats[-1][0] if beats else 0)
                beats.extend((when, self.memory.get(address.address + 16 * n, 0), n == 15)
                             for n in range(16))
            if write_valid and write_ready:
                assert write_address.length == 15
                saved.append(write_address.address)
                bursts.append(write_address.address)
            if data_valid and data_ready:
                written += 1
                assert (data.strobe, data.last) == (0xFFFF, written % 16 == 0)
                words.append(data.data)
            while bursts and len(words) >= 16:
                first = bursts.popleft()
                for n in range(16):
                    self.memory[first + 16 * n] = words.popleft()
                responses.append(cycle + self.latency)
            if done:
                break
        else:
            raise AssertionError("not done")
        assert idle
        assert (answered, walked) == (len(lookups), len(walks))
        self.cycles = cycle
        addresses = [
            BASE + 256 * n for n in range((len(frame.starts) - 1) * self.design.bursts)]
        assert saved == addresses
        assert loaded == ([] if frame.flush else addresses)


def in_memory(memory, design, groups):
    """Images of the banks, shape [groups, bytes]."""
    words = [memory[BASE + 16 * n] for n in range(groups * design.image_bytes // 16)]
    return np.frombuffer(b"".join(int(w).to_bytes(16, "little") for w in words), np.uint8).reshape(
        groups, -1)


@pytest.mark.parametrize(("geometry", "width", "height"), [
    ({"sets": 16, "group_tiles": 2}, 37, 33),
    ({"sets": 16, "record_ids": 1, "ways": 1, "group_tiles": 1}, 20, 20),
    ({"sets": 32, "record_ids": 8, "ways": 8, "group_tiles": 4}, 19, 14),
    ({"sets": 16, "record_ids": 7, "ways": 2, "group_tiles": 1, "outstanding_bursts": 1}, 33, 14),
], ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else None)
def test_rtl_against_both_models(geometry, width, height):
    """Frames in a row: answers and every byte of the banks; each cycle as the model's."""
    design = RadianceDesign(**geometry)
    rng = np.random.default_rng(width)
    pool = record_pool(rng, design.record_ids, 300)
    memory, images = {}, None
    for number, (gap, stall) in enumerate([(0.0, 0.0), (0.3, 0.4)]):
        frame = RecordedFrame(design, rng, pool, width, height, images)
        play = Play(design, frame, memory, number, gap=gap, stall=stall)
        bench(design).play(play.play)
        images = in_memory(memory, design, len(frame.starts) - 1)
        np.testing.assert_array_equal(images, frame.images)
        outcomes = frame.visits.outcome
        assert play.fills == (outcomes >= Outcome.FILLED).sum()
        assert play.state[model.WALKED] == frame.complete.sum() == play.state[model.LOOKUPS]
        assert 0 < play.state[model.PASSED] < frame.complete.sum()
    assert frame.visits.hit.any()
    assert (outcomes == Outcome.REPLACED).any()
    assert model.LATENCY == Radiance.latency


@pytest.mark.rtl
def test_verilog_against_fixed(run_testbench):
    run_testbench("radiance", seed=7)

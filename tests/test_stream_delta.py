"""Both tables stay alike, whatever the network does; bytes that are wrong are refused."""

import struct
import sys
import zlib
from contextlib import suppress
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from splatforge.algos.voyager import delta as delta_module
from splatforge.algos.voyager.codec import fit_codec
from splatforge.algos.voyager.delta import ClientStream, CloudStream, DivergedError
from splatforge.algos.voyager.table import Change, ManagementTable, check_cut
from splatforge.algos.voyager.wire import Decoder, Kind, WireError, encode
from splatforge.designs.streaming import StreamingDesign

sys.path.insert(0, str(Path(__file__).parent))
from gaussians import random_scene

NODES = 200
SCENE = random_scene(NODES, 3, sh_degree=3)
DESIGN = StreamingDesign(reuse_window=6, sh1=(3,), sh2=(3,), sh3=(3, 2), log_messages=5)
CODEC = fit_codec(SCENE, DESIGN)


def cloud_stream(codec=CODEC):
    return CloudStream(codec, SCENE.select, 7)


def message(data):
    found = Decoder().feed(data)
    assert len(found) == 1
    return found[0]


def decoded(data):
    """Messages of bytes that end with them."""
    decoder = Decoder()
    found = decoder.feed(data)
    decoder.end()
    return found


def contents(table):
    """All of a table, as one that goes on leaves it."""
    return table.frame, table.ids.tolist(), table.last.tolist(), table.digest()


def coded(ids, codec=CODEC):
    """What a client must hold of ids."""
    ids = np.asarray(ids)
    return codec.decode(codec.encode(SCENE.select(ids)), len(ids))


def same_scene(a, b):
    return all(np.array_equal(getattr(a, name), getattr(b, name))
               for name in ("means", "log_scales", "quats", "opacity_logits", "sh"))


# The table -------------------------------------------------------------------------------------


def whole_digest(frame, cut, last):
    """The digest of all that is held, in Python's numbers."""
    below = 2**64 - 1

    def mixed(value):
        value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & below
        value = (value ^ value >> 27) * 0x94D049BB133111EB & below
        return value ^ value >> 31

    sums = [sum(mixed(mixed(key + start & below)
                      + 0x3C6EF372FE94F82B * (1 if key in cut else at + 2) & below)
                for key, at in last.items()) & below
            for start in (0x6A09E667F3BCC908, 0xBB67AE8584CAA73B)]
    data = struct.pack("<qqQQ", frame, len(last), *sums)
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "little")


class NaiveTable:
    """A dictionary, and the rule in its own words."""

    def __init__(self, window):
        self.window, self.last, self.cut = window, {}, set()

    def advance(self, frame, cut):
        left, entered = self.cut - cut, cut - self.cut
        new = cut - set(self.last)
        self.last |= dict.fromkeys(cut, frame)
        self.last = {key: at for key, at in self.last.items() if frame - at <= self.window}
        self.cut = cut
        return left, entered, new


@settings(max_examples=80, deadline=None)
@given(window=st.integers(0, 5), steps=st.lists(
    st.tuples(st.integers(1, 4), st.sets(st.integers(0, 12))), max_size=12))
def test_table_is_the_naive_one(window, steps):
    table, naive, frame = ManagementTable(window), NaiveTable(window), -1
    for gap, cut in steps:
        frame += gap
        change = table.advance(frame, check_cut(np.array(sorted(cut), np.int64)))
        left, entered, new = naive.advance(frame, cut)
        assert change.left.tolist() == sorted(left)
        assert change.entered.tolist() == sorted(entered)
        assert change.new.tolist() == sorted(new)
        assert dict(zip(table.ids.tolist(), table.last.tolist(), strict=True)) == naive.last
        assert table.ids.tolist() == sorted(naive.last)
        assert table.cut.tolist() == sorted(cut)
        assert table.held == len(naive.last)
        # What is added and taken away makes the same as all of it.
        assert table.digest() == change.digest() == whole_digest(frame, cut, naive.last)


def test_a_gaussian_goes_one_frame_behind_the_window():
    for gap, held in ((6, [1, 2]), (7, [2])):
        table = ManagementTable(6)
        table.advance(10, np.array([1, 2]))
        table.advance(10 + gap, np.array([2]))
        assert table.ids.tolist() == held


def test_frames_go_forward():
    table = ManagementTable(6)
    table.advance(3, np.array([1]))
    with pytest.raises(ValueError, match="Frame must come after 3, not be 3"):
        table.advance(3, np.array([2]))
    assert table.ids.tolist() == [1]


@pytest.mark.parametrize(("cut", "text"), [
    ([2, 1], "ascending"), ([1, 1], "each once"), ([-1, 4], "from 0 upward"),
    ([0.5], "whole numbers"), ([[1]], "of shape")])
def test_cuts_are_checked(cut, text):
    with pytest.raises(ValueError, match=text):
        check_cut(cut)


def test_digests_tell_tables_apart():
    """Other frames, ids, frames of last use; in the cut and out of it."""
    def after(*steps):
        table = ManagementTable(6)
        for frame, cut in steps:
            table.advance(frame, np.array(cut, np.int64))
        return table.digest()
    tables = [(), ((3, [1, 2]),), ((4, [1, 2]),), ((3, [1, 3]),), ((3, [1]),), ((3, []),),
              ((2, [1, 2]), (3, [1])), ((1, [1, 2]), (3, [1])), ((2, [1, 2]), (3, [2]))]
    assert len({after(*each) for each in tables}) == len(tables)
    # Another way to the same.
    assert after((2, [2, 7]), (3, [1, 2]), (9, [1, 2])) == after((9, [1, 2]))


def test_a_change_must_fit_the_cut():
    table = ManagementTable(6)
    table.advance(3, np.array([1, 5000]))
    before = contents(table)
    for left, entered, text in (([2], [], "leave the cut that are not in it"),
                                ([1, 9000], [], "leave the cut that are not in it"),
                                ([], [5000], "enter the cut that are in it")):
        change = Change(left=np.array(left, np.int64), entered=np.array(entered, np.int64))
        with pytest.raises(ValueError, match=text):
            table.plan(4, change)
    table.plan(4, Change(left=np.array([1]), entered=np.array([7])))
    assert contents(table) == before


# Both ends over a bad network ------------------------------------------------------------------


class BadNetwork(RuleBasedStateMachine):
    """Loses, doubles and reorders messages of both directions."""

    @initialize(seed=st.integers(0, 2**16))
    def begin(self, seed):
        self.random = np.random.default_rng(seed)
        self.cloud = cloud_stream()
        self.client = ClientStream(CODEC, NODES)
        self.frame = 0
        self.cut = np.sort(self.random.choice(NODES, 30, replace=False))
        self.down, self.up = [], []
        # What the client may come to, and the frames of deltas, as it may want one of these.
        self.until, self.frames = 0, [0]
        # What the cloud's table was behind each delta.
        self.known = {0: contents(self.cloud.table)}

    def note(self, sents):
        for sent in sents:
            self.known.setdefault(sent.sequence, contents(self.cloud.table))
            self.down.append(sent.data)
            self.frames.append(sent.frame)

    def take(self, action, *arguments):
        """Up to the frame that is wanted; what would lead past it is refused, and lost."""
        with suppress(DivergedError):
            action(*arguments, self.until)

    @rule(place=st.integers(0, 1000))
    def want(self, place):
        later = [frame for frame in self.frames if frame >= self.until]
        self.until = later[place % len(later)]
        self.take(self.client.catch_up)

    @rule(frames=st.integers(1, 4), changed=st.integers(0, 12), empty=st.booleans())
    def move(self, frames, changed, empty):
        self.frame += frames
        flip = self.random.choice(NODES, changed, replace=False)
        self.cut = np.setxor1d(self.cut, flip)
        cut = self.cut[:0] if empty and changed > 10 else self.cut
        self.note([self.cloud.advance(self.frame, cut)])

    @precondition(lambda self: self.down)
    @rule(place=st.integers(0, 1000), again=st.booleans())
    def deliver(self, place, again):
        place %= len(self.down)
        data = self.down[place] if again else self.down.pop(place)
        self.take(self.client.receive, message(data))

    @precondition(lambda self: self.down)
    @rule(place=st.integers(0, 1000))
    def lose(self, place):
        self.down.pop(place % len(self.down))

    @rule()
    def ask(self):
        self.up.append(self.client.position)

    @precondition(lambda self: self.up)
    @rule(place=st.integers(0, 1000), again=st.booleans())
    def answer(self, place, again):
        place %= len(self.up)
        position = self.up[place] if again else self.up.pop(place)
        self.note(self.cloud.resync(*position))

    @rule()
    def acknowledge(self):
        self.cloud.acknowledge(self.client.sequence)

    @invariant()
    def never_apart(self):
        if not hasattr(self, "cloud"):
            return
        assert not self.client.lost
        assert self.client.table.frame <= self.until
        assert contents(self.client.table) == self.known[self.client.sequence]
        cut = self.client.table.cut
        assert same_scene(self.client.scene(), coded(cut))
        assert self.client._slots.held == len(self.client.table.ids)

    def teardown(self):
        if not hasattr(self, "cloud"):
            return
        # A network that works for a while brings them together.
        self.client.catch_up()
        for _ in range(3):
            for sent in self.cloud.resync(*self.client.position):
                self.known.setdefault(sent.sequence, contents(self.cloud.table))
                self.client.receive(message(sent.data))
        assert contents(self.client.table) == contents(self.cloud.table)
        self.until = self.client.table.frame
        self.never_apart()


TestBadNetwork = BadNetwork.TestCase
TestBadNetwork.settings = settings(
    max_examples=30, stateful_step_count=40, deadline=None,
    suppress_health_check=[HealthCheck.too_slow])


def streamed(cuts, codec=CODEC):
    """A cloud and a client behind some cuts, and the deltas of these."""
    cloud, client = cloud_stream(codec), ClientStream(codec, NODES)
    sents = [cloud.advance(frame, np.array(cut)) for frame, cut in enumerate(cuts)]
    for sent in sents:
        assert client.receive(message(sent.data)) == 1
    return cloud, client, sents


def test_a_client_whose_table_is_damaged_begins_anew():
    cloud, client, _ = streamed([[1, 2, 3], [2, 3, 4]])
    client.table._sums += np.uint64(1)
    sent = cloud.advance(2, np.array([2, 3, 5]))
    before = client.table
    with pytest.raises(DivergedError, match="Delta 3 does not fit the table"):
        client.receive(message(sent.data))
    assert client.lost
    assert client.gap
    assert client.table is before
    key, = cloud.resync(*client.position)
    assert key.key
    assert key.gaussians == 3
    # Asked twice, no other is made.
    assert cloud.resync(*client.position) == [key]
    assert client.receive(message(key.data)) == 1
    assert not client.gap
    assert contents(client.table) == contents(cloud.table)
    assert same_scene(client.scene(), coded([2, 3, 5]))


def test_what_was_held_is_not_sent_again():
    _, client, sents = streamed([[1, 2, 3], [3], [1, 2, 3, 4]])
    assert [sent.gaussians for sent in sents] == [3, 0, 1]
    assert client.gaussians == 4
    assert client.table.cut.tolist() == [1, 2, 3, 4]


def test_what_has_been_acknowledged_is_not_kept():
    cloud, client, sents = streamed([[1], [2], [3]])
    assert cloud.resync(1, sents[0].digest) == sents[1:]
    cloud.acknowledge(2)
    assert cloud.resync(2, sents[1].digest) == sents[2:]
    assert [each.key for each in cloud.resync(1, sents[0].digest)] == [True]
    assert client.sequence == 3


# Bytes that are wrong --------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["zlib", "none"])
def delta(request):
    """A delta that a client can apply, the client before it, and its codec."""
    codec = replace(CODEC, design=replace(DESIGN, entropy=request.param))
    _, _, sents = streamed([range(0, 60), range(20, 100, 2)], codec)
    return codec, sents


def client_before(codec, sents):
    client = ClientStream(codec, NODES)
    client.receive(message(sents[0].data))
    return client


@settings(max_examples=150, deadline=None)
@given(place=st.integers(0, 10**6), flip=st.integers(1, 255))
def test_a_damaged_byte_is_found(delta, place, flip):
    _, sents = delta
    data = bytearray(sents[1].data)
    data[place % len(data)] ^= flip
    # A length that is damaged waits for bytes that never come: the end finds that.
    with pytest.raises(WireError):
        decoded(bytes(data))


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 10**6))
def test_a_message_cut_short_is_found(delta, place):
    _, sents = delta
    decoder = Decoder()
    assert decoder.feed(sents[1].data[:1 + place % (len(sents[1].data) - 1)]) == []
    with pytest.raises(WireError, match="must not end after"):
        decoder.end()


@settings(max_examples=200, deadline=None)
@given(edits=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1,
                      max_size=4), cut=st.one_of(st.none(), st.integers(0, 10**6)))
def test_a_forged_delta_is_refused_or_changes_gaussians_alone(delta, edits, cut):
    """With a right CRC: whatever else is wrong is found, and nothing has changed then."""
    codec, sents = delta
    payload = bytearray(message(sents[1].data).payload)
    for place, flip in edits:
        # The first hundred bytes are hit as often as all others.
        payload[place % (len(payload) if place % 2 else 100)] ^= flip
    payload = bytes(payload[:None if cut is None else cut % len(payload)])
    forged = message(encode(Kind.DELTA, payload, stream=7, sequence=2))
    client = client_before(codec, sents)
    before, scene = contents(client.table), client.scene()
    try:
        client.receive(forged)
    except (WireError, DivergedError):
        assert contents(client.table) == before
        assert same_scene(client.scene(), scene)
        assert client.sequence == 1
    else:
        # Ids and frames are what the digest says; the numbers of a Gaussian may be others.
        assert client.table.cut.tolist() == list(range(20, 100, 2))


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=300))
def test_noise_is_refused(data):
    with pytest.raises(WireError):
        decoded(data + bytes(24))


def test_a_bomb_does_not_go_off():
    payload = bytearray(message(streamed([[1, 2]])[2][0].data).payload)
    packed = zlib.compress(bytes(1 << 26))
    frame, *counts, flags, digest = struct.unpack("<IIIIIIIHQ", payload[:38])

    def bomb(*counts):
        head = struct.pack("<IIIIIIIHQ", frame, *counts, flags, digest)
        return message(encode(Kind.DELTA, head + packed, sequence=1))
    with pytest.raises(WireError, match="must be unpacked to"):
        ClientStream(CODEC, NODES).receive(bomb(*counts))
    # One that says how large it is is not unpacked: its counts do not make so much.
    left, entered, gaussians, left_bytes, entered_bytes, body_bytes = counts
    for dishonest, text in (
        ((left, entered, gaussians, left_bytes, entered_bytes, 1 << 26), "that its counts make"),
        ((left, entered, 1 << 20, left_bytes, entered_bytes, 1 << 26), "at most 2 Gaussians"),
        ((left, 1 << 20, 1 << 20, left_bytes, 1 << 20, 1 << 26), "at most 200 ids"),
        ((1 << 20, entered, gaussians, 1 << 20, entered_bytes, 1 << 26), "at most 200 ids"),
        ((left, entered, gaussians, left_bytes, 1 << 25, body_bytes), "2 to 10 bytes of ids"),
        ((left, entered, gaussians, 1, entered_bytes, body_bytes + 1), "0 to 0 bytes of ids"),
    ):
        client = ClientStream(CODEC, NODES)
        with pytest.raises(WireError, match=text):
            client.receive(bomb(*dishonest))
        assert not client._waiting


def test_what_waits_is_bounded():
    """Deltas behind one that is missing: so many, and so many bytes of them."""
    cloud, client, _ = streamed([[1]])
    sents = [cloud.advance(frame, np.arange(frame, 100)) for frame in range(1, 30)]
    for sent in sents[1:]:
        assert client.receive(message(sent.data)) == 0
    assert len(client._waiting) == delta_module._WAITING
    one = len(message(sents[1].data).payload)
    few = ClientStream(CODEC, NODES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delta_module, "_WAITING_BYTES", 2 * one)
        for sent in sents[1:]:
            few.receive(message(sent.data))
        assert sum(len(each.data) for each in few._waiting.values()) <= 2 * one
        assert few._waiting
    # The one that is missing is taken however many wait for it.
    assert client.receive(message(sents[0].data)) == 1 + delta_module._WAITING
    assert same_scene(client.scene(), coded(client.table.cut))


def test_a_cloud_that_cannot_read_its_city_keeps_its_tables():
    cloud, client, _ = streamed([[1, 2, 3]])
    cloud.acknowledge(1)
    attributes, before = cloud._attributes, contents(cloud.table)

    def broken(ids):
        raise OSError("the disk is gone")
    cloud._attributes = broken
    for fails in (lambda: cloud.advance(1, np.array([2, 5])), lambda: cloud.resync(1, 5)):
        with pytest.raises(OSError, match="the disk is gone"):
            fails()
        assert (contents(cloud.table), cloud.sequence, cloud._base[0]) == (before, 1, 1)
    cloud._attributes = attributes
    client.receive(message(cloud.advance(1, np.array([2, 5])).data))
    assert contents(client.table) == contents(cloud.table)


@pytest.mark.parametrize(("change", "text"), [
    ({0: 0x00}, "begin with b'SFVS'"), ({4: 9}, "version 2, not 9"), ({5: 99}, "kind"),
    ({6: 1}, "zero behind its kind"), ({19: 0xff}, "DELTA must have at most")])
def test_headers_are_refused_in_words(change, text):
    data = bytearray(streamed([[1, 2]])[2][0].data)
    for place, value in change.items():
        data[place] = value
    with pytest.raises(WireError, match=text):
        Decoder().feed(bytes(data))


def test_pieces_of_a_stream_come_together():
    sents = streamed([[1, 2], [2, 3], [3, 4]])[2]
    stream = b"".join(sent.data for sent in sents)
    decoder, found = Decoder(Kind.DELTA), []
    for place in range(0, len(stream), 7):
        found += decoder.feed(stream[place:place + 7])
    decoder.end()
    assert [each.sequence for each in found] == [1, 2, 3]
    with pytest.raises(WireError, match="due here"):
        Decoder(Kind.POSE).feed(stream)

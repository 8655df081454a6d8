"""Secret shares: they compute right, say nothing, count all; and sample the private model."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, chisquare

from splatforge.sim.systems import private_sampling
from splatforge.sim.systems.private_sampling import sample_privately, sampling_traffic
from splatforge.sim.systems.secret_shares import Channel, Shares, TwoParties, to_ring
from splatforge.sim.systems.speculative import overlap

LEAST_P = 1e-4
WORDS = st.lists(st.integers(-2**63, 2**63 - 1), min_size=1, max_size=20)


def ring(numbers) -> np.ndarray:
    return np.array(numbers, np.int64).view(np.uint64)


def both(shares: Shares) -> np.ndarray:
    return (shares.client + shares.server).view(np.int64)


@settings(max_examples=60, deadline=None)
@given(numbers=WORDS, factor=st.integers(-2**40, 2**40), seed=st.integers(0, 2**32))
def test_arithmetic(numbers, factor: int, seed: int) -> None:
    channel = Channel()
    two = TwoParties(channel, seed)
    x = two.share(ring(numbers))
    assert channel.traffic.rounds == 0
    assert (both(x) == numbers).all()
    product = two.multiply(x, two.share(ring([factor])))
    assert channel.traffic.rounds == 1
    assert (both(product) == ring(numbers).view(np.int64) * factor).all()
    negative = two.negative(x)
    assert ((negative.client ^ negative.server) == (np.array(numbers) < 0)).all()
    assert channel.traffic.rounds == 8
    assert (both(two.to_sum(negative)) == (np.array(numbers) < 0)).all()
    assert (two.open_sum(x) == ring(numbers)).all()


@settings(max_examples=40, deadline=None)
@given(numbers=st.lists(st.integers(-2**62, 2**62 - 1), min_size=1, max_size=9),
       bits=st.integers(1, 40), seed=st.integers(0, 2**32))
def test_truncation_is_off_by_one_at_most(numbers, bits: int, seed: int) -> None:
    two = TwoParties(Channel(), seed)
    got = both(two.truncate(two.share(ring(numbers)), bits))
    assert set((got - (np.array(numbers) >> bits)).tolist()) <= {-1, 0}


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 6), length=st.integers(1, 9), seed=st.integers(0, 2**32))
def test_pick_and_prefix(rows: int, length: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    table, index = rng.integers(0, 2**62, (rows, length)), rng.integers(0, length, rows)
    two = TwoParties(Channel(), seed)
    got = both(two.pick(two.share(ring(table)), index))
    assert (got == table[np.arange(rows), index]).all()
    bits = rng.random((rows, length)) < 0.3
    mask = rng.random((rows, length)) < 0.5
    ored = two.prefix_or(Shares(bits ^ mask, mask))
    assert ((ored.client ^ ored.server) == np.logical_or.accumulate(bits, -1)).all()


def bytes_of(messages: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(messages), np.uint8)


def test_what_a_party_sees_is_noise_whatever_the_secret() -> None:
    for secret in (0, 1, -(2**62)):
        channel = Channel(keep=True)
        two = TwoParties(channel, 11)
        x = two.share(ring([secret] * 3000))
        two.to_sum(two.negative(two.multiply(x, x)))
        two.pick(Shares(x.client.reshape(-1, 10), x.server.reshape(-1, 10)), np.zeros(300, int))
        for seen in (channel.to_client, channel.to_server):
            # The shifts of `pick` are below ten: words, not bytes, are uniform there.
            seen = [each for each in seen if len(each) != 1200]
            counts = np.bincount(bytes_of(seen), minlength=256)
            assert chisquare(counts).pvalue > LEAST_P


def test_all_is_counted_as_sent() -> None:
    channel = Channel(keep=True)
    rows = np.full((3, 5, 7), 1 / 7)
    sample_privately(rows, rows[:, 1:], np.zeros((3, 4), int), seed=0, channel=channel)
    traffic = channel.traffic
    assert traffic.rounds == len(channel.to_client) == len(channel.to_server)
    assert traffic.bytes_to_client == sum(map(len, channel.to_client))
    assert traffic.bytes_to_server == sum(map(len, channel.to_server))
    assert traffic.size_bytes == traffic.bytes_to_client + traffic.bytes_to_server


def draws(runs: int, seed: int, *, optimised: bool, drafts: int = 3, vocabulary: int = 6):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(vocabulary), drafts + 1)
    q = rng.dirichlet(np.ones(vocabulary), drafts)
    drawn = np.stack([rng.choice(vocabulary, runs, p=each) for each in q], axis=1)
    sample = sample_privately(
        np.broadcast_to(p, (runs, *p.shape)), np.broadcast_to(q, (runs, *q.shape)), drawn,
        seed=seed, optimised=optimised)
    return p, q, drawn, sample


@pytest.mark.parametrize(("optimised", "runs"), [(True, 8000), (False, 3000)])
def test_samples_the_private_distribution(optimised: bool, runs: int) -> None:
    p, q, drawn, sample = draws(runs, 5, optimised=optimised)
    kept = overlap(p[:-1], q)
    # How many drafts were kept: place by place, among the runs that came there.
    for place in range(3):
        there = sample.kept >= place
        assert binomtest(int((sample.kept > place).sum()), int(there.sum()),
                         float(kept[place])).pvalue > LEAST_P
    # The token of every place, whether a draft that was kept or drawn anew.
    for place in range(4):
        here = sample.kept >= place
        tokens = np.where(sample.kept > place, drawn[:, min(place, 2)], sample.token)[here]
        counts = np.bincount(tokens, minlength=6)
        assert chisquare(counts, p[place] * counts.sum()).pvalue > LEAST_P
    assert chisquare(np.bincount(drawn[:, 0], minlength=6), p[0] * runs).pvalue < 1e-12


def test_a_protocol_that_draws_from_the_whole_is_seen(monkeypatch) -> None:
    monkeypatch.setattr(private_sampling, "_residual", lambda parties, p, q: p)
    p, _, drawn, sample = draws(8000, 5, optimised=True)
    first = np.where(sample.kept > 0, drawn[:, 0], sample.token)
    assert chisquare(np.bincount(first, minlength=6), p[0] * 8000).pvalue < 1e-12


def test_traffic_grows_as_it_should() -> None:
    small, wide = sampling_traffic(500, 8), sampling_traffic(5000, 8)
    assert wide.rounds == small.rounds
    assert 8 < wide.size_bytes / small.size_bytes < 11
    naive = sampling_traffic(5000, 8, optimised=False)
    # All nine positions, against picking from eight and working on one.
    assert 5 < naive.transfers / wide.transfers < 20
    assert naive.size_bytes > 5 * wide.size_bytes
    assert naive.rounds > wide.rounds
    more = sampling_traffic(500, 16)
    assert small.rounds < more.rounds <= small.rounds + 1
    assert sampling_traffic(500, 16, optimised=False).transfers \
        > 1.8 * sampling_traffic(500, 8, optimised=False).transfers


def test_refuses() -> None:
    rows = np.full((1, 2, 4), 0.25)
    with pytest.raises(ValueError, match=r"^p, q and drafts must be \[runs, drafts \+ 1, voc"):
        sample_privately(rows, rows, np.zeros((1, 2), int), seed=0)
    with pytest.raises(ValueError, match=r"^Drafts must be tokens below 4, not 4"):
        sample_privately(rows, rows[:, 1:], np.full((1, 1), 4), seed=0)
    with pytest.raises(ValueError, match=r"^Vocabulary and draft tokens must be positive"):
        sampling_traffic(0, 1)
    with pytest.raises(ValueError, match=r"^Values must be below 2\^35"):
        to_ring([2.0**36])

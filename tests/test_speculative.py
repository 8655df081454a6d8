"""Speculative sampling: what comes out is distributed as the model that verifies."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, chisquare

from splatforge.sim.systems.speculative import expected_tokens, overlap, speculate

#: One in ten thousand runs of a true sampler falls below; seeds are fixed, so none does.
LEAST_P = 1e-4


def rows(seed: int, contexts: int, vocabulary: int, spread: float = 0.7) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(vocabulary, spread), contexts)


@pytest.mark.parametrize("draft_tokens", [0, 1, 4, 9])
def test_output_follows_the_verifier(draft_tokens: int) -> None:
    p, q = rows(1, 1, 12), rows(2, 1, 12)
    done = speculate(p, q, tokens=60_000, draft_tokens=draft_tokens, seed=3)
    counts = np.bincount(done.tokens, minlength=12)
    assert chisquare(counts, p[0] * counts.sum()).pvalue > LEAST_P
    # The same counts are no sample of the drafting one.
    assert chisquare(counts, q[0] * counts.sum()).pvalue < 1e-12


def test_pairs_of_a_language_with_memory_follow_it() -> None:
    p, q = rows(4, 6, 6), rows(5, 6, 6)
    text = speculate(p, q, tokens=120_000, draft_tokens=3, seed=6).tokens
    for before in range(6):
        counts = np.bincount(text[1:][text[:-1] == before], minlength=6)
        assert chisquare(counts, p[before] * counts.sum()).pvalue > LEAST_P


def test_a_test_that_keeps_too_much_is_seen() -> None:
    """Without the draw from the residual the output is no sample of `p`: the test can fail."""
    p, q = rows(1, 1, 12)[0], rows(2, 1, 12)[0]
    rng = np.random.default_rng(7)
    drafts = rng.choice(12, 60_000, p=q)
    kept = rng.random(60_000) * q[drafts] <= p[drafts]
    wrong = np.where(kept, drafts, rng.choice(12, 60_000, p=p))
    assert chisquare(np.bincount(wrong, minlength=12), p * 60_000).pvalue < 1e-12


def test_acceptance_is_the_overlap() -> None:
    p, q = rows(8, 1, 20), rows(9, 1, 20)
    wanted = float(overlap(p, q)[0])
    assert wanted == pytest.approx(1 - np.abs(p - q).sum() / 2)
    done = speculate(p, q, tokens=60_000, draft_tokens=5, seed=10)
    tested = int(np.minimum(done.kept + 1, 5).sum())
    assert binomtest(int(done.kept.sum()), tested, wanted).pvalue > LEAST_P
    assert done.tokens_per_forward == pytest.approx(expected_tokens(wanted, 5), rel=0.02)


def test_corners() -> None:
    same = rows(1, 1, 5)
    done = speculate(same, same, tokens=1000, draft_tokens=3, seed=0)
    assert (done.kept == 3).all()
    assert done.acceptance == 1
    left, right = np.array([[0.5, 0.5, 0, 0]]), np.array([[0, 0, 0.5, 0.5]])
    done = speculate(left, right, tokens=1000, draft_tokens=3, seed=0)
    assert not done.kept.any()
    assert done.tokens.max() == 1


@given(acceptance=st.floats(0, 1), drafts=st.integers(0, 40))
def test_expected_tokens(acceptance: float, drafts: int) -> None:
    got = expected_tokens(acceptance, drafts)
    assert 1 <= got <= drafts + 1
    assert got <= expected_tokens(acceptance, drafts + 1)
    if acceptance < 0.999:
        assert got == pytest.approx((1 - acceptance**(drafts + 1)) / (1 - acceptance))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), drafts=st.integers(0, 6), order=st.integers(0, 2))
def test_any_language(seed: int, drafts: int, order: int) -> None:
    p, q = rows(seed, 4**order, 4), rows(seed + 1, 4**order, 4)
    done = speculate(p, q, tokens=200, draft_tokens=drafts, seed=seed)
    assert done.tokens.min() >= 0
    assert done.tokens.max() < 4
    assert 0 <= done.kept.min() <= done.kept.max() <= drafts
    # The last forward may bring more than the text still wanted.
    assert 200 <= int((done.kept + 1).sum()) <= 200 + drafts


@pytest.mark.parametrize(("change", "message"), [
    ({"p": [[0.5, 0.6]]}, "^p must sum to 1, not miss it by 0.1"),
    ({"q": [[-0.5, 1.5]]}, "^q must be finite and not negative"),
    ({"p": [0.5, 0.5]}, "^p and q must be tables of one shape"),
    ({"p": np.full((3, 2), 0.5), "q": np.full((3, 2), 0.5)}, r"^Rows must be a power of the"),
    ({"tokens": 0}, r"^Tokens must be positive"),
])
def test_refuses(change, message) -> None:
    good = {"p": [[0.5, 0.5]], "q": [[0.5, 0.5]], "tokens": 1, "draft_tokens": 1, "seed": 0}
    with pytest.raises(ValueError, match=message):
        speculate(**(good | change))
    with pytest.raises(ValueError, match=r"^Acceptance must be in \[0, 1\], not 1.1"):
        expected_tokens(1.1, 2)

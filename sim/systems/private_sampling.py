"""Speculative sampling of a private distribution on secret shares.

The parties hold shares of the private model's distributions; the client alone knows its drafts and
what they were drawn from. It learns the tokens that come out, both learn how many drafts were kept,
and nobody learns anything else.

The optimised protocol first picks ``p(x)`` obliviously and then tests ``r q(x) > p(x)`` once a
draft; only the position behind the last kept draft is sampled. The naive one tests and samples all
tokens of the vocabulary at all positions and picks from that. Neither divides: products take the
place of quotients in both, so that what a private division costs is not in the naive one.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from splatforge.sim.systems.secret_shares import (
    FRACTION_BITS,
    Channel,
    Shares,
    Traffic,
    TwoParties,
    to_ring,
)
from splatforge.sim.systems.speculative import check_distributions

__all__ = ["PrivateSample", "sample_privately", "sampling_traffic"]

_SCALE = 1 << FRACTION_BITS


@dataclass(frozen=True, kw_only=True)
class PrivateSample:
    """What came out.

    Parameters
    ----------
    kept : numpy.ndarray
        Of shape [runs], int64: drafts kept.
    token : numpy.ndarray
        Of shape [runs], int64: the token behind them.
    traffic : Traffic
        Of all runs, side by side: rounds are those of one.
    """

    kept: npt.NDArray[np.int64]
    token: npt.NDArray[np.int64]
    traffic: Traffic


def _positive_part(parties: TwoParties, x: Shares) -> Shares:
    return parties.multiply(x, parties.to_sum(~parties.negative(x)))


def _above(parties: TwoParties, weights: Shares) -> Shares:
    """Bits, whether the running sum exceeds a uniform part of the total."""
    part = parties.random((*weights.client.shape[:-1], 1))
    limit = parties.multiply(part, weights.total())
    return parties.negative(
        Shares(limit.client, limit.server) - weights.cumulative().times(_SCALE))


def _first_set(bits: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Place of the first set bit along the last axis; the length where there is none."""
    return np.where(bits.any(-1), bits.argmax(-1), bits.shape[-1])


def _residual(parties: TwoParties, p: Shares, q: npt.NDArray[np.uint64]) -> Shares:
    """``[p - q]_+``; `q` is the client's, nought behind the last draft."""
    return _positive_part(parties, p - parties.of_client(q))


def _optimised(parties: TwoParties, p: Shares, q: npt.NDArray[np.uint64],
               drafts: npt.NDArray[np.int64]) -> tuple[npt.NDArray, npt.NDArray]:
    picked = parties.pick(p[:, :-1], drafts)
    mine = np.take_along_axis(q[:, :-1], drafts[..., None], -1)[..., 0]
    drawn = parties.multiply(parties.random(drafts.shape), parties.of_client(mine))
    rejected = parties.prefix_or(parties.negative(picked.times(_SCALE) - drawn))
    # These bits never fall along the positions: they say how many were kept, and no more.
    kept = _first_set(parties.open_bits(rejected))
    run = np.arange(len(kept))
    above = _above(parties, _residual(parties, p[run, kept], q[run, kept]))
    # Nor do these along the tokens.
    return kept, _first_set(parties.open_bits_to_client(above))


def _naive(parties: TwoParties, p: Shares, q: npt.NDArray[np.uint64],
           drafts: npt.NDArray[np.int64]) -> tuple[npt.NDArray, npt.NDArray]:
    ahead = p[:, :-1]
    drawn = parties.multiply(parties.random((*drafts.shape, 1)), parties.of_client(q[:, :-1]))
    all_rejected = parties.to_sum(parties.negative(ahead.times(_SCALE) - drawn))
    picked = parties.pick(all_rejected, drafts)
    # 0 or 1 as a number; one less is negative where it was kept.
    kept_bits = parties.negative(picked.plus(np.full(drafts.shape, 2**64 - 1, np.uint64)))
    kept = _first_set(parties.open_bits(parties.prefix_or(~kept_bits)))
    above = _above(parties, _residual(parties, p, q))
    # The token is how many running sums are not above.
    tokens = parties.to_sum(~above).total()[..., 0]
    run = np.arange(len(kept))
    token = parties.open_sum_to_client(tokens[run, kept])
    return kept, token.astype(np.int64)


def sample_privately(p: npt.ArrayLike, q: npt.ArrayLike, drafts: npt.ArrayLike, *, seed: int,
                     optimised: bool = True, channel: Channel | None = None) -> PrivateSample:
    """Verify drafts against a private distribution and sample behind those that were kept.

    Parameters
    ----------
    p : array_like
        Of shape [runs, drafts + 1, vocabulary]: the private distributions at every position, which
        a secure forward would leave in shares.
    q : array_like
        Of shape [runs, drafts, vocabulary]: what the drafts were drawn from, the client's own.
    drafts : array_like
        Of shape [runs, drafts], the client's own.
    seed : int
        Of all randomness.
    optimised : bool
        Whether to run the optimised protocol.
    channel : Channel, optional
        Where the parties talk; a new one by default.

    Raises
    ------
    ValueError
        If shapes do not fit or a draft is no token.

    Notes
    -----
    Probabilities are rounded to 2^-28; what comes out follows them as rounded.
    """
    rows, own = check_distributions("p", p), check_distributions("q", q)
    drawn = np.asarray(drafts, np.int64)
    if rows.ndim != 3 or own.shape != (rows.shape[0], rows.shape[1] - 1, rows.shape[2]) \
            or drawn.shape != own.shape[:2] or drawn.shape[1] < 1:
        raise ValueError("p, q and drafts must be [runs, drafts + 1, vocabulary], "
                         "[runs, drafts, vocabulary] and [runs, drafts], not "
                         f"{rows.shape}, {own.shape} and {drawn.shape}")
    if drawn.size and not (0 <= drawn.min() and drawn.max() < rows.shape[2]):
        raise ValueError(f"Drafts must be tokens below {rows.shape[2]}, not {drawn.max()}")
    talk = Channel() if channel is None else channel
    parties = TwoParties(talk, seed)
    before = talk.traffic
    behind = np.concatenate([to_ring(own), np.zeros_like(rows[:, :1], np.uint64)], axis=1)
    kept, token = (_optimised if optimised else _naive)(
        parties, parties.share(to_ring(rows)), behind, drawn)
    return PrivateSample(kept=kept, token=token, traffic=talk.traffic - before)


def sampling_traffic(vocabulary: int, draft_tokens: int, *, optimised: bool = True) -> Traffic:
    """What one run takes, counted by running it on some distributions: it does not depend on them.

    Parameters
    ----------
    vocabulary, draft_tokens : int
        Positive.
    optimised : bool
        As of :func:`sample_privately`.

    Raises
    ------
    ValueError
        If a number is not positive.
    """
    if vocabulary < 1 or draft_tokens < 1:
        raise ValueError("Vocabulary and draft tokens must be positive, not "
                         f"{vocabulary!r} and {draft_tokens!r}")
    rows = np.full((1, draft_tokens + 1, vocabulary), 1 / vocabulary)
    return sample_privately(rows, rows[:, 1:], np.zeros((1, draft_tokens), np.int64), seed=0,
                            optimised=optimised).traffic

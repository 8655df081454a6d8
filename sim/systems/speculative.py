"""Speculative sampling: drafts of one distribution, verified so that the output follows another.

Token ``x`` drafted from ``q`` is kept with probability ``min(1, p(x) / q(x))``; the first one that
is not is drawn anew from ``[p - q]_+`` normalised, and behind drafts that were all kept comes one
more of ``p``. What comes out is distributed as ``p``, whatever ``q`` is: only the speed depends on
it. The test is ``r q(x) <= p(x)``, a product and no quotient, as in the secure protocol.

References
----------
Leviathan, Kalman, Matias: "Fast Inference from Transformers via Speculative Decoding", ICML 2023.
"""

from dataclasses import dataclass

import numba as nb
import numpy as np
import numpy.typing as npt

__all__ = ["Speculation", "check_distributions", "expected_tokens", "overlap", "speculate"]

#: How far from 1 a distribution may sum.
_SUM_ERROR = 1e-6


@dataclass(frozen=True, kw_only=True)
class Speculation:
    """What speculative sampling did.

    Parameters
    ----------
    tokens : numpy.ndarray
        Of shape [tokens], int64: the text.
    kept : numpy.ndarray
        Of shape [forwards], int64: drafts kept by each forward of the verifying model, 0 to
        `draft_tokens`.
    draft_tokens : int
        Drafts for each forward.
    """

    tokens: npt.NDArray[np.int64]
    kept: npt.NDArray[np.int64]
    draft_tokens: int

    @property
    def tokens_per_forward(self) -> float:
        """Mean tokens that a forward of the verifying model brings, 1 to `draft_tokens` + 1."""
        return float(self.kept.mean()) + 1

    @property
    def acceptance(self) -> float:
        """Drafts kept over drafts tested; those behind a rejected one are not tested."""
        tested = np.minimum(self.kept + 1, self.draft_tokens)
        return float(self.kept.sum() / tested.sum())


def check_distributions(name: str, rows: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The rows as float64.

    Parameters
    ----------
    name : str
        What an error calls them.
    rows : array_like
        Of shape [..., tokens], each a distribution over tokens.

    Raises
    ------
    ValueError
        If one is negative, not finite, or does not sum to 1 within 1e-6.
    """
    rows = np.asarray(rows, np.float64)
    if rows.ndim < 1 or rows.shape[-1] < 1:
        raise ValueError(f"{name} must hold distributions over tokens, not shape {rows.shape}")
    if not np.isfinite(rows).all() or (rows < 0).any():
        raise ValueError(f"{name} must be finite and not negative")
    worst = np.abs(rows.sum(-1) - 1).max(initial=0)
    if worst > _SUM_ERROR:
        raise ValueError(f"{name} must sum to 1, not miss it by {worst:.3g}")
    return rows


def overlap(p: npt.ArrayLike, q: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Probability that a draft of `q` is kept: one minus the total variation distance.

    Parameters
    ----------
    p, q : array_like
        Distributions of shape [..., tokens].

    Returns
    -------
    numpy.ndarray
        Of shape [...], in [0, 1].
    """
    return np.minimum(check_distributions("p", p), check_distributions("q", q)).sum(-1)


def expected_tokens(acceptance: float, draft_tokens: int) -> float:
    """Tokens that a forward brings if each draft is kept with the same probability on its own.

    Parameters
    ----------
    acceptance : float
        In [0, 1].
    draft_tokens : int
        Drafts for each forward, not negative.

    Raises
    ------
    ValueError
        If either is out of range.
    """
    if not 0 <= acceptance <= 1:
        raise ValueError(f"Acceptance must be in [0, 1], not {acceptance!r}")
    if draft_tokens < 0:
        raise ValueError(f"Draft tokens must not be negative, not {draft_tokens!r}")
    return float(sum(acceptance**kept for kept in range(draft_tokens + 1)))


@nb.njit(cache=True)
def _draw(weights, total, uniform):
    """First index at which the running sum of the weights exceeds `uniform` of the total."""
    limit, running, last = uniform * total, 0.0, 0
    for token in range(weights.shape[0]):
        if weights[token] > 0:
            last = token
            running += weights[token]
            if running > limit:
                return token
    return last  # rounding at the very end


@nb.njit(cache=True)
def _speculate_kernel(p, q, start, drafts, uniforms, tokens, kept):
    """Fill `tokens` (and a little more is not drawn); return the number of forwards."""
    states, vocabulary = p.shape
    residual = np.empty(vocabulary)
    proposal = np.empty(drafts, np.int64)
    state, done, forwards, number = start, 0, 0, 0
    while done < tokens.shape[0]:
        ahead = state
        for place in range(drafts):
            proposal[place] = _draw(q[ahead], 1.0, uniforms[number])
            number += 1
            ahead = (ahead * vocabulary + proposal[place]) % states
        good, last = 0, -1
        while good < drafts:
            token = proposal[good]
            if uniforms[number] * q[state, token] > p[state, token]:
                total = 0.0
                for each in range(vocabulary):
                    residual[each] = max(0.0, p[state, each] - q[state, each])
                    total += residual[each]
                last = _draw(residual, total, uniforms[number + 1])
                break
            number += 1
            if done < tokens.shape[0]:
                tokens[done] = token
            done += 1
            state = (state * vocabulary + token) % states
            good += 1
        if last < 0:
            last = _draw(p[state], 1.0, uniforms[number])
        number += 2
        if done < tokens.shape[0]:
            tokens[done] = last
        done += 1
        state = (state * vocabulary + last) % states
        kept[forwards] = good
        forwards += 1
    return forwards


def speculate(p: npt.ArrayLike, q: npt.ArrayLike, *, tokens: int, draft_tokens: int, seed: int,
              start: int = 0) -> Speculation:
    """Sample a text of a Markov language by drafts of another.

    Parameters
    ----------
    p, q : array_like
        Of shape [vocabulary**order, vocabulary]: distributions of the next token, behind every
        context of `order` tokens, of the model that verifies and the one that drafts. The context
        is the number whose digits in base `vocabulary` are its tokens, the latest last; one row
        alone is a language without memory.
    tokens : int
        Length of the text, positive.
    draft_tokens : int
        Drafts for each forward, not negative.
    seed : int
        Of numpy's default generator.
    start : int
        Context before the text.

    Raises
    ------
    ValueError
        If the shapes differ or the rows are no power of the vocabulary, or a number is out of
        range.
    """
    p, q = check_distributions("p", p), check_distributions("q", q)
    if p.ndim != 2 or p.shape != q.shape:
        raise ValueError(f"p and q must be tables of one shape, not {p.shape} and {q.shape}")
    states, vocabulary = p.shape
    power = 1
    while power < states and vocabulary > 1:
        power *= vocabulary
    if power != states:
        raise ValueError(f"Rows must be a power of the vocabulary {vocabulary}, not {states}")
    if tokens < 1 or draft_tokens < 0 or not 0 <= start < states:
        raise ValueError("Tokens must be positive, draft tokens not negative and start a row, "
                         f"not {tokens!r}, {draft_tokens!r}, {start!r}")
    # A forward brings a token at least and takes two uniforms more than twice the drafts at most.
    uniforms = np.random.default_rng(seed).random(tokens * (2 * draft_tokens + 2))
    text, kept = np.empty(tokens, np.int64), np.empty(tokens, np.int64)
    forwards = _speculate_kernel(p, q, start, draft_tokens, uniforms, text, kept)
    return Speculation(tokens=text, kept=kept[:forwards].copy(), draft_tokens=draft_tokens)

"""Alignment of a small public model with a private one, on a language made here.

The private model knows the two last tokens: a table of next-token distributions behind every pair.
The public one is log-linear, ``softmax(A[last] + B[before])``: it cannot hold all of that table.
Before alignment it is trained on a general language of which the private one is a specialisation;
alignment goes on with the private model's largest probabilities along texts that the private model
writes, by cross entropy.

These are models with the structure of the problem (a private one that knows more, a public one of
less capacity that saw something else), not language models of the paper: acceptances say how
alignment acts, not what a pair of trained models reaches.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from splatforge.sim.systems.speculative import check_distributions, overlap, speculate

__all__ = ["LogLinear", "Pair", "acceptance", "context_weights", "distil", "make_pair"]

Table = npt.NDArray[np.float64]

_RATE = 0.05
_DECAY = (0.9, 0.999)


def _softmax(logits: Table) -> Table:
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


@dataclass(frozen=True)
class LogLinear:
    """A public model.

    Parameters
    ----------
    last, before : numpy.ndarray
        Of shape [vocabulary, vocabulary]: what the last token and the one before add to the logits.
    """

    last: Table
    before: Table

    def table(self) -> Table:
        """Distributions of shape [vocabulary**2, vocabulary] behind pairs, the latest last."""
        size = len(self.last)
        return _softmax(self.before[:, None] + self.last[None]).reshape(size * size, size)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A private and a public model before alignment.

    Parameters
    ----------
    private, general : numpy.ndarray
        Of shape [vocabulary**2, vocabulary]: the private language, and the one that the public
        model was trained on.
    public : LogLinear
        As trained on that.
    """

    private: Table
    general: Table
    public: LogLinear


def context_weights(table: npt.ArrayLike) -> Table:
    """How often each pair of tokens comes in a long text: the stationary distribution.

    Parameters
    ----------
    table : array_like
        Of shape [vocabulary**2, vocabulary].
    """
    rows = check_distributions("Table", table)
    size = rows.shape[1]
    weights = np.full(size * size, 1 / size**2)
    for _ in range(10_000):
        # Behind (a, b) with token t comes (b, t).
        new = (weights[:, None] * rows).reshape(size, size, size).sum(0).reshape(-1)
        done = np.abs(new - weights).sum() < 1e-12
        weights = new
        if done:
            break
    return weights


def acceptance(private: npt.ArrayLike, public: npt.ArrayLike) -> float:
    """Probability that a draft is kept, over the contexts of a text of the private language."""
    return float(context_weights(private) @ overlap(private, public))


def distil(model: LogLinear, teacher: npt.ArrayLike, *, tokens: int, top: int, seed: int,
           passes: int = 60) -> LogLinear:
    """Train a model on the largest probabilities of a teacher along texts of the teacher's.

    Parameters
    ----------
    model : LogLinear
        Where to start.
    teacher : array_like
        Of shape [vocabulary**2, vocabulary].
    tokens : int
        Length of the text, positive.
    top : int
        Probabilities kept for a context, 1 to the vocabulary; what is left out is spread evenly.
    seed : int
        Of the text.
    passes : int
        Steps of Adam over all contexts of the text at once.

    Returns
    -------
    LogLinear
        The trained model; the first is not changed.

    Raises
    ------
    ValueError
        If a number is out of range.
    """
    rows = check_distributions("Teacher", teacher)
    size = rows.shape[1]
    if tokens < 1 or not 1 <= top <= size or passes < 0:
        raise ValueError(f"Tokens must be positive, top 1 to {size} and passes not negative, "
                         f"not {tokens!r}, {top!r}, {passes!r}")
    text = speculate(rows, rows, tokens=tokens + 2, draft_tokens=0, seed=seed).tokens
    seen = np.bincount(text[:-2] * size + text[1:-1], minlength=size * size) / tokens
    order = np.argsort(rows, axis=-1)[:, ::-1]
    kept = np.zeros_like(rows)
    np.put_along_axis(kept, order[:, :top],
                      np.take_along_axis(rows, order[:, :top], -1), axis=-1)
    left = 1 - kept.sum(-1, keepdims=True)
    target = kept + np.where(kept == 0, left / max(1, size - top), 0.0)
    target /= target.sum(-1, keepdims=True)
    weights = [model.last.copy(), model.before.copy()]
    first, second = ([np.zeros_like(each) for each in weights] for _ in range(2))
    for step in range(1, passes + 1):
        error = (seen[:, None] * (LogLinear(*weights).table() - target)).reshape(size, size, size)
        # Per context, not per text: rare tokens learn as fast as others.
        for place, gradient in enumerate((error.sum(0), error.sum(1))):
            first[place] += (1 - _DECAY[0]) * (gradient - first[place])
            second[place] += (1 - _DECAY[1]) * (gradient**2 - second[place])
            scale = np.sqrt(second[place] / (1 - _DECAY[1]**step)) + 1e-8
            weights[place] -= _RATE * first[place] / (1 - _DECAY[0]**step) / scale
    return LogLinear(*weights)


def make_pair(seed: int, *, vocabulary: int = 24, special: float = 1.0) -> Pair:
    """A general language, a private one that departs from it, and a public model of the general.

    Parameters
    ----------
    seed : int
        Of the languages and of the public model's training text.
    vocabulary : int
        Tokens, at least 2.
    special : float
        Standard deviation of what the private language's logits add to the general ones, not
        negative; how sharp both are: theirs have one of 1.5 by the last token, 1.0 by the one
        before and 0.5 by the pair.

    Raises
    ------
    ValueError
        If a number is out of range.
    """
    if vocabulary < 2 or not special >= 0:
        raise ValueError("Vocabulary must be at least 2 and special not negative, not "
                         f"{vocabulary!r}, {special!r}")
    rng = np.random.default_rng(seed)
    size = vocabulary

    def logits(last: float, before: float, pair: float) -> Table:
        return (rng.normal(0, last, (1, size, size)) + rng.normal(0, before, (size, 1, size))
                + rng.normal(0, pair, (size, size, size))).reshape(size * size, size)
    general = logits(1.5, 1.0, 0.5)
    departs = special * logits(0.7, 0.5, 0.5)
    rows = _softmax(general)
    blank = LogLinear(np.zeros((size, size)), np.zeros((size, size)))
    public = distil(blank, rows, tokens=200_000, top=size, seed=seed + 1, passes=120)
    return Pair(private=_softmax(general + departs), general=rows, public=public)

"""A small diffusion transformer over tokens of video, with tokens chosen and the rest cached.

It predicts the velocity of a flow x_t = (1 - t) x_0 + t noise, is trained on the clips of
:mod:`splatforge.sim.systems.clips` (:mod:`splatforge.sim.systems.denoiser_training`) and shipped
with its weights. A block is what a large one is: adaptive norm, attention of all heads, adaptive
norm, feed-forward part, each added to its input. What ASTRAEA does to a block is done here as its
authors say it: chosen tokens ask (Q) all tokens (K, V), the others take what the block added to
them when they were last chosen.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
import numpy.typing as npt

from splatforge.sim.systems.clips import TOKEN_WIDTH, TOKENS

__all__ = ["BLOCKS", "HEADS", "SHIPPED", "STEPS", "WIDTH", "BlockCache", "Score", "block", "embed",
           "full_run", "modulation", "run_selected", "shipped_weights", "start_weights", "velocity"]

Array = npt.NDArray[np.floating]
Weights = Mapping[str, Array]

#: Of the network: width, heads, blocks, width of the feed-forward part.
WIDTH, HEADS, BLOCKS, FEED_FORWARD = 48, 3, 3, 144
#: Steps of the flow from noise to clip.
STEPS = 30
_TIME_WIDTH = 32
_HEAD = WIDTH // HEADS


def start_weights(generator: np.random.Generator) -> dict[str, Array]:
    """Weights before training."""
    def matrix(inputs: int, outputs: int, gain: float = 1.0) -> Array:
        return (gain / np.sqrt(inputs) * generator.standard_normal((inputs, outputs))
                ).astype(np.float32)
    weights: dict[str, Array] = {
        "embed": matrix(TOKEN_WIDTH, WIDTH), "position": matrix(TOKENS, WIDTH),
        "time": matrix(_TIME_WIDTH, WIDTH), "out": matrix(WIDTH, TOKEN_WIDTH, 0.1)}
    for number in range(BLOCKS):
        weights |= {
            f"{number}.modulate": matrix(WIDTH, 4 * WIDTH, 0.1),
            f"{number}.qkv": matrix(WIDTH, 3 * WIDTH), f"{number}.mix": matrix(WIDTH, WIDTH, 0.5),
            f"{number}.up": matrix(WIDTH, FEED_FORWARD),
            f"{number}.down": matrix(FEED_FORWARD, WIDTH, 0.5)}
    return weights


#: Clips that a network was trained on -> the file of its weights.
SHIPPED = {"pan": "video_denoiser.npz", "still": "still_denoiser.npz"}


@cache
def shipped_weights(clips: str = "pan") -> Weights:
    """The trained weights, as 32-bit floats.

    Parameters
    ----------
    clips : str
        ``pan``: a window that pans over photographs; ``still``: one thing that moves before a
        background that stands still.

    Raises
    ------
    ValueError
        If no network was trained on such clips.
    """
    if clips not in SHIPPED:
        raise ValueError(f"Clips must be one of {', '.join(SHIPPED)}, not {clips!r}")
    with files("splatforge.sim.systems").joinpath(SHIPPED[clips]).open("rb") as file, \
            np.load(file) as stored:
        return {name: stored[name].astype(np.float32) for name in stored.files}


def time_features(t: Array) -> Array:
    """[batch] in [0, 1] as [batch, features]."""
    angles = np.asarray(t)[:, None] * (2.0 ** np.arange(_TIME_WIDTH // 2) * 0.5 / 8)
    return np.concatenate([np.cos(angles), np.sin(angles)], 1)


def silu(x: Array) -> Array:
    """X times its logistic function."""
    return x / (1 + np.exp(-x))


def normed(x: Array) -> Array:
    """Each token of mean 0 and variance 1."""
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred * centred).mean(-1, keepdims=True) + 1e-5)


def embed(weights: Weights, tokens: Array, t: Array) -> tuple[Array, Array]:
    """Hidden tokens [batch, tokens, width] and embedding of the time [batch, width]."""
    time = silu(time_features(t).astype(tokens.dtype) @ weights["time"])
    return tokens @ weights["embed"] + weights["position"], time


def modulation(weights: Weights, number: int, time: Array) -> tuple[Array, ...]:
    """Scale and shift of both norms of a block, each [batch, 1, width]."""
    return tuple(np.split((time @ weights[f"{number}.modulate"])[:, None], 4, axis=-1))


def _heads(x: Array) -> Array:
    """[batch, tokens, width] as [batch, heads, tokens, head]."""
    return x.reshape(*x.shape[:2], HEADS, _HEAD).transpose(0, 2, 1, 3)


def _rows(x: Array, chosen: npt.NDArray[np.intp] | None) -> Array:
    """The chosen tokens [batch, count] of [batch, tokens, ...], or all."""
    return x if chosen is None else np.take_along_axis(x, chosen[..., None], 1)


def _with_rows(x: Array, chosen: npt.NDArray[np.intp], rows: Array) -> Array:
    """A copy with the chosen tokens replaced."""
    copy = x.copy()
    np.put_along_axis(copy, chosen[..., None], rows, 1)
    return copy


def block(weights: Weights, number: int, hidden: Array, time: Array,
          chosen: npt.NDArray[np.intp] | None = None, *, chosen_keys: bool = False
          ) -> tuple[Array, Array]:
    """What a block adds to the chosen tokens, and the log-sum-exp of their attention.

    Parameters
    ----------
    weights : mapping
        Of the network.
    number : int
        Block.
    hidden : array
        [batch, tokens, width].
    time : array
        [batch, width].
    chosen : array, optional
        Tokens that ask, [batch, count]; all by default.
    chosen_keys : bool
        Whether they ask each other alone: keys and values of the rest are left out.

    Returns
    -------
    added : array
        [batch, count, width].
    lse : array
        Mean over heads, [batch, count].
    """
    scale1, shift1, scale2, shift2 = modulation(weights, number, time)
    queries = _rows(hidden, chosen)
    asking = normed(queries) * (1 + scale1) + shift1
    known = asking if chosen is None or chosen_keys else normed(hidden) * (1 + scale1) + shift1
    qkv = weights[f"{number}.qkv"]
    q = _heads(asking @ qkv[:, :WIDTH])
    k, v = (_heads(part) for part in np.split(known @ qkv[:, WIDTH:], 2, axis=-1))
    scores = q @ k.transpose(0, 1, 3, 2) / np.float32(np.sqrt(_HEAD))
    top = scores.max(-1, keepdims=True)
    powers = np.exp(scores - top)
    total = powers.sum(-1, keepdims=True)
    mixed = (powers @ v / total).transpose(0, 2, 1, 3).reshape(queries.shape)
    first = mixed @ weights[f"{number}.mix"]
    inner = normed(queries + first) * (1 + scale2) + shift2
    second = silu(inner @ weights[f"{number}.up"]) @ weights[f"{number}.down"]
    return first + second, (top + np.log(total))[..., 0].mean(1)


def velocity(weights: Weights, tokens: Array, t: Array) -> Array:
    """The velocity at tokens [batch, tokens, token width] and times [batch]."""
    hidden, time = embed(weights, tokens, t)
    for number in range(BLOCKS):
        hidden = hidden + block(weights, number, hidden, time)[0]
    return normed(hidden) @ weights["out"]


@dataclass(kw_only=True)
class BlockCache:
    """What is kept of a block between steps.

    Parameters
    ----------
    result : array
        Its output for each token when that was last chosen, [batch, tokens, width].
    lse : array
        Of each token's attention then, [batch, tokens].
    hidden : array
        Its input at the step before, [batch, tokens, width].
    skipped : array
        Steps in a row that a token was not chosen, [batch, tokens].
    """

    result: Array
    lse: Array
    hidden: Array
    skipped: npt.NDArray[np.int64]


#: Takes a block's cache and the change of its input [batch, tokens], gives scores of tokens.
Score = Callable[[BlockCache, Array], Array]


def run_selected(weights: Weights, noise: Array, shares: Sequence[float], score: Score, *,
                 chosen_keys: bool = False, cache_order: npt.NDArray[np.intp] | None = None
                 ) -> Array:
    """From noise to clips with a share of the tokens computed at each step.

    Parameters
    ----------
    weights : mapping
        Of the network.
    noise : array
        [batch, tokens, token width].
    shares : sequence of float
        Of tokens at each step, in [0, 1]; the first step computes all, whatever its share.
    score : callable
        Tokens of the highest score are computed.
    chosen_keys : bool
        Whether keys and values of tokens that are not chosen are left out.
    cache_order : array, optional
        Permutation of tokens: a token that is not chosen takes what is kept of another. For
        controls, in which what is cached has nothing to do with what it stands for.
    """
    tokens, batch = noise, len(noise)
    kept: list[BlockCache] = []
    for step, share in enumerate(shares):
        t = np.full(batch, 1 - step / len(shares), noise.dtype)
        hidden, time = embed(weights, tokens, t)
        count = round(share * TOKENS)
        for number in range(BLOCKS):
            if step == 0:
                added, lse = block(weights, number, hidden, time)
                result = hidden + added
                kept.append(BlockCache(result=result, lse=lse, hidden=hidden,
                                       skipped=np.zeros((batch, TOKENS), np.int64)))
            else:
                now = kept[number]
                change = np.sqrt(((hidden - now.hidden) ** 2).sum(-1))
                now.hidden, now.skipped = hidden, now.skipped + 1
                # What is kept is the next block's input as well: it is never written into.
                result = now.result if cache_order is None else now.result[:, cache_order]
                if count:
                    chosen = np.argpartition(-score(now, change), count - 1, 1)[:, :count]
                    added, lse = block(weights, number, hidden, time, chosen,
                                       chosen_keys=chosen_keys)
                    new = _rows(hidden, chosen) + added
                    result, now.result = (_with_rows(each, chosen, new)
                                          for each in (result, now.result))
                    np.put_along_axis(now.lse, chosen, lse, 1)
                    np.put_along_axis(now.skipped, chosen, 0, 1)
            hidden = result
        tokens = tokens - normed(hidden) @ weights["out"] / np.float32(len(shares))
    return tokens


def full_run(weights: Weights, noise: Array, steps: int = STEPS) -> Array:
    """From noise to clips with all tokens at every step."""
    tokens = noise
    for step in range(steps):
        t = np.full(len(noise), 1 - step / steps, noise.dtype)
        tokens = tokens - velocity(weights, tokens, t) / np.float32(steps)
    return tokens

"""Training of the small video denoisers: their gradient by hand, and Adam.

``python -m splatforge.sim.systems.denoiser_training FILE [STEPS [SEED [CLIPS]]]`` writes the
weights that are shipped: 4,000 steps, seed 0, clips that ``pan`` (a quarter of an hour on a core);
1,200 steps, seed 0, ``still`` ones, from the weights of the other (five minutes).
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from splatforge.scenes.atomic_file import atomic_file
from splatforge.sim.systems.clips import clip_batch, still_clip_batch
from splatforge.sim.systems.video_denoiser import (
    BLOCKS,
    HEADS,
    WIDTH,
    Array,
    Weights,
    modulation,
    normed,
    shipped_weights,
    silu,
    start_weights,
    time_features,
    velocity,
)

__all__ = ["Clips", "held_out_loss", "loss_and_gradient", "train"]

#: Takes a generator and how many, gives clips.
Clips = Callable[[np.random.Generator, int], Array]

_HEAD = WIDTH // HEADS
_BATCH, _RATE, _BETA1, _BETA2 = 32, 2e-3, 0.9, 0.99


def _silu_slope(x: Array) -> Array:
    logistic = 1 / (1 + np.exp(-x))
    return logistic * (1 + x * (1 - logistic))


def _normed_back(x: Array, slope: Array) -> Array:
    """Gradient through :func:`normed`."""
    centred = x - x.mean(-1, keepdims=True)
    width = 1 / np.sqrt((centred * centred).mean(-1, keepdims=True) + 1e-5)
    unit = centred * width
    return width * (slope - slope.mean(-1, keepdims=True)
                    - unit * (slope * unit).mean(-1, keepdims=True))


def _outer(inputs: Array, slope: Array) -> Array:
    """Gradient of a matrix, summed over batch and tokens."""
    return inputs.reshape(-1, inputs.shape[-1]).T @ slope.reshape(-1, slope.shape[-1])


def _split(x: Array) -> Array:
    return x.reshape(*x.shape[:2], HEADS, _HEAD).transpose(0, 2, 1, 3)


def _join(x: Array) -> Array:
    return x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], WIDTH)


def loss_and_gradient(weights: Weights, clips: Array, noise: Array, t: Array
                      ) -> tuple[float, dict[str, Array]]:
    """Mean squared error of the velocity, and its gradient.

    Parameters
    ----------
    weights : mapping
        Of the network.
    clips, noise : array
        [batch, tokens, token width].
    t : array
        [batch], in [0, 1].
    """
    tokens = (1 - t)[:, None, None] * clips + t[:, None, None] * noise
    features = time_features(t).astype(tokens.dtype)
    raw_time = features @ weights["time"]
    time = silu(raw_time)
    hidden = tokens @ weights["embed"] + weights["position"]
    root = tokens.dtype.type(np.sqrt(_HEAD))
    kept = []
    for number in range(BLOCKS):
        scale1, shift1, scale2, shift2 = modulation(weights, number, time)
        asking = normed(hidden) * (1 + scale1) + shift1
        q, k, v = (_split(part) for part in
                   np.split(asking @ weights[f"{number}.qkv"], 3, axis=-1))
        scores = q @ k.transpose(0, 1, 3, 2) / root
        powers = np.exp(scores - scores.max(-1, keepdims=True))
        share = powers / powers.sum(-1, keepdims=True)
        mixed = _join(share @ v)
        middle = hidden + mixed @ weights[f"{number}.mix"]
        inner = normed(middle) * (1 + scale2) + shift2
        raised = inner @ weights[f"{number}.up"]
        kept.append((hidden, asking, q, k, v, share, mixed, middle, inner, raised, scale1, scale2))
        hidden = middle + silu(raised) @ weights[f"{number}.down"]
    last = normed(hidden)
    error = last @ weights["out"] - (noise - clips)
    gradient = {}
    slope = 2 * error / error.size
    gradient["out"] = _outer(last, slope)
    slope = _normed_back(hidden, slope @ weights["out"].T)
    time_slope = np.zeros_like(time)
    for number in reversed(range(BLOCKS)):
        before, asking, q, k, v, share, mixed, middle, inner, raised, scale1, scale2 = kept[number]
        gradient[f"{number}.down"] = _outer(silu(raised), slope)
        raised_slope = slope @ weights[f"{number}.down"].T * _silu_slope(raised)
        gradient[f"{number}.up"] = _outer(inner, raised_slope)
        inner_slope = raised_slope @ weights[f"{number}.up"].T
        slope = slope + _normed_back(middle, inner_slope * (1 + scale2))
        gradient[f"{number}.mix"] = _outer(mixed, slope)
        mixed_slope = _split(slope @ weights[f"{number}.mix"].T)
        share_slope = mixed_slope @ v.transpose(0, 1, 3, 2)
        scores_slope = share * (share_slope - (share_slope * share).sum(-1, keepdims=True)) / root
        qkv_slope = np.concatenate([
            _join(scores_slope @ k), _join(scores_slope.transpose(0, 1, 3, 2) @ q),
            _join(share.transpose(0, 1, 3, 2) @ mixed_slope)], -1)
        gradient[f"{number}.qkv"] = _outer(asking, qkv_slope)
        asking_slope = qkv_slope @ weights[f"{number}.qkv"].T
        modulate_slope = np.concatenate([
            (asking_slope * normed(before)).sum(1), asking_slope.sum(1),
            (inner_slope * normed(middle)).sum(1), inner_slope.sum(1)], -1)
        gradient[f"{number}.modulate"] = time.T @ modulate_slope
        time_slope += modulate_slope @ weights[f"{number}.modulate"].T
        slope = slope + _normed_back(before, asking_slope * (1 + scale1))
    gradient["embed"] = _outer(tokens, slope)
    gradient["position"] = slope.sum(0)
    gradient["time"] = features.T @ (time_slope * _silu_slope(raw_time))
    return float((error * error).mean()), gradient


def train(steps: int, seed: int, progress: Callable[[int, float], None] | None = None, *,
          clips_of: Clips = clip_batch, start: Weights | None = None) -> dict[str, Array]:
    """Weights after `steps` of Adam, whose rate falls along a cosine.

    Parameters
    ----------
    steps, seed : int
        Batches; of weights, clips, noise and times.
    progress : callable, optional
        Called every hundred steps with the step and the mean loss of those hundred.
    clips_of : callable
        What is learnt.
    start : mapping, optional
        Weights to begin with; random ones by default.
    """
    generator = np.random.default_rng(seed)
    weights = start_weights(generator) if start is None else dict(start)
    first = {name: np.zeros_like(each) for name, each in weights.items()}
    second = {name: np.zeros_like(each) for name, each in weights.items()}
    losses = []
    for step in range(steps):
        clips = clips_of(generator, _BATCH)
        noise = generator.standard_normal(clips.shape, np.float32)
        t = generator.random(_BATCH, np.float32)
        loss, gradient = loss_and_gradient(weights, clips, noise, t)
        losses.append(loss)
        rate = _RATE * min(1, (step + 1) / 100) * 0.5 * (1 + np.cos(np.pi * step / steps))
        for name, each in gradient.items():
            first[name] += (1 - _BETA1) * (each - first[name])
            second[name] += (1 - _BETA2) * (each * each - second[name])
            weights[name] = (weights[name] - rate * first[name] / (1 - _BETA1 ** (step + 1))
                             / (np.sqrt(second[name] / (1 - _BETA2 ** (step + 1))) + 1e-8)
                             ).astype(np.float32)
        if progress is not None and step % 100 == 99:
            progress(step + 1, float(np.mean(losses[-100:])))
    return weights


def held_out_loss(weights: Weights, seed: int, batch: int = 256, clips_of: Clips = clip_batch
                  ) -> float:
    """Mean squared error of the velocity on other clips."""
    generator = np.random.default_rng(seed)
    clips = clips_of(generator, batch)
    noise = generator.standard_normal(clips.shape, np.float32)
    t = generator.random(batch, np.float32)
    tokens = (1 - t)[:, None, None] * clips + t[:, None, None] * noise
    return float(((velocity(weights, tokens, t) - (noise - clips)) ** 2).mean())


if __name__ == "__main__":
    given = (*sys.argv[2:], *("4000", "0", "pan")[len(sys.argv) - 2:])
    count, first_seed, still = int(given[0]), int(given[1]), given[2] == "still"
    kind = still_clip_batch if still else clip_batch
    trained = train(count, first_seed, lambda step, loss: print(step, f"{loss:.4f}", flush=True),
                    clips_of=kind, start=shipped_weights() if still else None)
    print("held out", held_out_loss(trained, first_seed + 1, clips_of=kind))
    with atomic_file(Path(sys.argv[1])) as output:
        np.savez_compressed(output, allow_pickle=False, **{
            name: each.astype(np.float16) for name, each in trained.items()})

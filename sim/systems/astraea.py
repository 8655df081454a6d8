"""ASTRAEA (ICLR 2026, arXiv 2506.05096): video diffusion that computes some tokens of each step.

Each block computes the tokens whose score is highest, as queries over keys and values of all; the
others take what the block gave them before. How many a step computes is searched by evolution.

Operations and bytes are those of the layers of each model (:mod:`splatforge.sim.systems
.video_models`), times are a roofline's. What several devices take adds the exchange of Ulysses and
what does not run in parallel: the text encoder and the decoder. Whether the method does what its
authors say is run in full on a small denoiser (:mod:`splatforge.sim.systems.token_selection`).
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cache

from splatforge.sim.costs import Sourced
from splatforge.sim.systems.cards import device as card_of
from splatforge.sim.systems.links import Link
from splatforge.sim.systems.roofline import End, Machine, banded
from splatforge.sim.systems.run import Curve, SystemRun
from splatforge.sim.systems.tally import Tally
from splatforge.sim.systems.token_selection import (
    METHODS,
    Evolution,
    busy_share,
    judge,
    lse_likeness,
)
from splatforge.sim.systems.video_denoiser import SHIPPED
from splatforge.sim.systems.video_models import (
    VIDEO_MODELS,
    VideoModel,
    cache_bytes,
    call_tally,
    decoder_tally,
    text_tally,
    video_model,
)

__all__ = ["BROADCAST", "NOT_COVERED", "added_memory", "broadcast_flops", "compare", "flops",
           "latency", "memory", "run", "scaling", "selection_share", "sparse_flops", "speedup",
           "toca_flops"]

NOT_COVERED = (
    ("kernels that are not fused reach the same share of the bandwidth, copies between layouts and "
    "casts to wider numbers are left out: times of originals are too short, ratios less so"),
    "time of the baselines' own kernels (PAB, ToCa, SVG, Delta-DiT): only their operations",
    "HunyuanVideo's decoder, which works on overlapping tiles",
    "memory but for the cache: it is taken from the original's published figure",
    ("quality of the trained video models: PSNR is that of a small denoiser trained on short "
     "clips, on which whole steps left out are better than tokens left out"),
)
_ASSUMPTIONS = (
    "the residual that a block adds is cached, for both halves of guidance",
    "one choice of tokens for all heads of a block, by that block's own scores",
    "no step may exceed its share, and the mean share never exceeds the budget",
    "devices share a sample by Ulysses; text encoder and decoder run on one",
)
_SOURCE = "layers of the released configurations"
_PERCENT = "share of tokens"


def _name(model: str) -> str:
    """The model's name among the claims."""
    return f"astraea.{model}"


# --- operations ----------------------------------------------------------------------------------


def _all_calls(model: VideoModel, net: Tally) -> float:
    return net.flop * model.calls


def flops(model: str, share: float = 1.0) -> Sourced:
    """Operations of all calls of the denoiser with a share of the tokens computed."""
    shape = video_model(model)
    net = call_tally(shape, share, "original" if share == 1 else "astraea")
    return Sourced.exact(_all_calls(shape, net), "FLOP", _SOURCE)


def sparse_flops(model: str, sparsity: float = 0.7) -> Sourced:
    """Operations where a share of self-attention is left out at every step (SVG, SVG2)."""
    shape = video_model(model)
    net = call_tally(shape, method="sparse", density=1 - sparsity)
    return Sourced.exact(_all_calls(shape, net), "FLOP", _SOURCE)


#: Share of the steps at which PAB may take a block's output from before: its published default for
#: Open-Sora, time steps 450 to 930 of 1,000; all steps where none is published.
BROADCAST: Mapping[str, float] = {"opensora_2s": 0.48, "opensora_4s": 0.48}


def broadcast_flops(model: str, self_every: int, cross_every: int, frame_every: int = 0
                    ) -> Sourced:
    """Operations where attention is computed every so many steps (PAB).

    Parameters
    ----------
    model : str
        Video model.
    self_every, cross_every, frame_every : int
        Steps between two computations of attention among tokens, to the text, along frames; the
        last as the first where it is 0.
    """
    shape = video_model(model)
    window = BROADCAST.get(model, 1.0)

    def often(every: int) -> float:
        return 1 - window * (1 - 1 / every)
    net = call_tally(shape, self_attention=often(self_every), cross_attention=often(cross_every),
                     frame_attention=often(frame_every or self_every))
    return Sourced.exact(_all_calls(shape, net), "FLOP", _SOURCE)


def toca_flops(model: str, every: int, cached: float) -> Sourced:
    """Operations where all is computed every so many steps, between them some tokens (ToCa).

    Parameters
    ----------
    every : int
        Steps between two that compute all.
    cached : float
        Share of tokens that the others leave out, as queries and as keys.
    """
    shape = video_model(model)
    whole = _all_calls(shape, call_tally(shape))
    some = _all_calls(shape, call_tally(shape, 1 - cached, "select_qk"))
    return Sourced.exact((whole + (every - 1) * some) / every, "FLOP", _SOURCE)


# --- time ----------------------------------------------------------------------------------------


@cache
def _calls_s(model: str, share: float, device: str, end: End, selection: bool = True,
             gpus: int = 1) -> float:
    """All calls of the denoiser; devices share out tokens, but each launches every kernel."""
    shape, machine = video_model(model), Machine.of(card_of(device), end=end)
    net = call_tally(shape, share, "original" if share == 1 else "astraea", selection=selection)
    launches_s = net.launches * machine.launch_s
    return shape.calls * ((machine.time_s(net.operators) - launches_s) / gpus + launches_s)


@cache
def _around_s(model: str, device: str, end: End) -> float:
    """Text encoder and decoder; of HunyuanVideo the text encoder alone."""
    shape, machine = video_model(model), Machine.of(card_of(device), end=end)
    time_s = machine.time_s(text_tally(shape).operators)
    return time_s if shape.joint else time_s + machine.time_s(decoder_tally(shape).operators)


def _exchange_s(shape: VideoModel, share: float, gpus: int, link: Link) -> float:
    """What Ulysses sends in all calls: keys and values of all tokens, queries and results of some.

    Where blocks attend within frames and along them by turns, tokens change hands between blocks
    instead, once.
    """
    own = 2.0 * shape.tokens / gpus * shape.width
    if shape.split:
        each = link.all_to_all_s(own, gpus)
    else:
        each = 2 * link.all_to_all_s(own, gpus) + 2 * link.all_to_all_s(own * share, gpus)
    return shape.calls * shape.blocks * each


def _slower(model: str, device: str, end: End, original_s: float) -> float:
    """By how much calls take longer than on the roofline, where all of it is to take a given time.

    Text encoder, decoder and links stay as they are: what is left out of the model (copies, casts,
    kernels that are not fused) lies in the calls.
    """
    if not original_s:
        return 1.0
    around = _around_s(model, device, end)
    if not around < original_s < math.inf:
        raise ValueError(f"original_s must be 0 or above the {around:.3g} s of text encoder and "
                         f"decoder, not {original_s!r}")
    return (original_s - around) / _calls_s(model, 1.0, device, end)


def _whole_s(model: str, share: float, device: str, gpus: int, end: End, *,
             original_s: float = 0.0, whole_steps: bool = False) -> float:
    shape = video_model(model)
    calls = (share * _calls_s(model, 1.0, device, end, gpus=gpus) if whole_steps
             else _calls_s(model, share, device, end, gpus=gpus))
    calls *= _slower(model, device, end, original_s)
    exchange = 0.0
    if gpus > 1:
        exchange = _exchange_s(shape, 1.0 if whole_steps else share, gpus,
                               Link.between(card_of(device), end=end))
        exchange *= share if whole_steps else 1.0
    return calls + exchange + _around_s(model, device, end)


def _check(share: float, gpus: int = 1, model: str = "") -> None:
    if not 0 < share <= 1:
        raise ValueError(f"Share must be in (0, 1], not {share!r}")
    if gpus < 1:
        raise ValueError(f"GPUs must be at least 1, not {gpus!r}")
    if model:
        shape = video_model(model)
        # Blocks that attend within frames and along them deal out frames and places instead.
        most = shape.frames if shape.split else shape.heads
        if gpus > most:
            what = "frames" if shape.split else "heads, which Ulysses deals out"
            raise ValueError(f"GPUs must be at most {most} for {model}, as many as it has {what}, "
                             f"not {gpus!r}")


def latency(model: str, share: float = 1.0, *, device: str = "a100_80gb", gpus: int = 1,
            whole_steps: bool = False, original_s: float = 0.0) -> Sourced:
    """Time of a video, in s.

    Parameters
    ----------
    model, device : str
        What runs on what.
    share : float
        Mean share of tokens computed.
    gpus : int
        Devices.
    whole_steps : bool
        Whether the share is one of steps that compute all tokens.
    original_s : float
        Published time with all tokens on one such device, which the calls are then calibrated on;
        text encoder, decoder and links are not. 0 for none.

    Raises
    ------
    ValueError
        If a number is out of range, or model or device are not known.
    """
    _check(share, gpus, model)
    ours = banded(lambda end: _whole_s(model, share, device, gpus, end, original_s=original_s,
                                       whole_steps=whole_steps), "s", f"{_SOURCE} on a roofline")
    return replace(ours, points=_points(model, original_s))


def _points(model: str, original_s: float) -> frozenset[str]:
    return frozenset({f"{_name(model)}_original_lat_a100_s"} if original_s else ())


def speedup(model: str, share: float, *, device: str = "a100_80gb") -> Sourced:
    """Time with all tokens over time with a share of them."""
    _check(share)
    return banded(lambda end: _whole_s(model, 1.0, device, 1, end)
                  / _whole_s(model, share, device, 1, end), "1", f"{_SOURCE} on a roofline")


def scaling(model: str, gpus: int, share: float = 0.5, *, device: str = "a100_80gb",
            original_s: float = 0.0) -> Sourced:
    """Time with all tokens on one device over time with a share of them on several.

    Parameters
    ----------
    original_s : float
        As :func:`latency` takes it.

    Raises
    ------
    ValueError
        If a number is out of range, or model or device are not known.
    """
    _check(share, gpus, model)
    ours = banded(lambda end: _whole_s(model, 1.0, device, 1, end, original_s=original_s)
                  / _whole_s(model, share, device, gpus, end, original_s=original_s), "1",
                  f"{_SOURCE} on a roofline, links by their profile")
    return replace(ours, points=_points(model, original_s))


def selection_share(model: str, share: float = 0.5, *, device: str = "a100_80gb") -> Sourced:
    """Share of the time that choosing tokens takes."""
    _check(share)

    def part(end: End) -> float:
        return 1 - _calls_s(model, share, device, end, False) / _calls_s(model, share, device, end)
    return banded(part, "1", f"{_SOURCE} on a roofline")


def added_memory(model: str) -> Sourced:
    """Memory of the cache of every block, in GB."""
    return Sourced.exact(cache_bytes(video_model(model)) / 1e9, "GB", _SOURCE)


def memory(model: str, original_gb: float) -> Sourced:
    """Memory with the cache of every block, in GB.

    Parameters
    ----------
    original_gb : float
        Published figure without it, which stands for weights, activations and all else.
    """
    base = replace(Sourced.exact(original_gb, "GB", "ASTRAEA's project page, original"),
                   points=frozenset({f"{_name(model)}_original_mem_gb"}))
    return base + added_memory(model)


def lse_cosine() -> Sourced:
    """Cosine of log-sum-exps at adjacent steps, on the small denoiser."""
    return Sourced.exact(lse_likeness(), "1", "small video denoiser, ten seeds")


# --- the system ----------------------------------------------------------------------------------


def _metrics(model: str, share: float, device: str, gpus: int) -> dict[str, float]:
    shape = video_model(model)
    whole = _whole_s(model, share, device, gpus, "value")
    return {
        "latency_s": whole,
        "speedup": _whole_s(model, 1.0, device, 1, "value") / whole,
        "pflop": flops(model, share).value / 1e15,
        "serial_s": _around_s(model, device, "value"),
        "exchange_s": 0.0 if gpus == 1 else _exchange_s(
            shape, share, gpus, Link.between(card_of(device))),
        "cache_gb": cache_bytes(shape) / 1e9 if share < 1 else 0.0,
    }


def run(*, model: str = "wan_4s", share: float = 0.5, device: str = "a100_80gb", gpus: int = 1,
        seeds: int = 10, generations: int = 20, clips: str = "pan", seed: int = 0) -> SystemRun:
    """A share of the tokens of a video model, and the method in full on a small denoiser.

    Parameters
    ----------
    model : str
        Of :data:`~splatforge.sim.systems.video_models.VIDEO_MODELS`.
    share : float
        Of the tokens, mean over the steps.
    device : str
        In ``devices.toml``.
    gpus : int
        Devices.
    seeds, seed : int
        Of the small denoiser: how many, of which 0 leaves it out, and the first.
    generations : int
        Of the search there.
    clips : str
        What it was trained on: ``pan``, a window that pans over photographs, or ``still``, a
        thing that moves before a background that stands still.
    """
    _check(share, gpus, model)
    if clips not in SHIPPED:
        raise ValueError(f"astraea: clips must be one of {', '.join(SHIPPED)}, not {clips!r}")
    if seeds < 0 or seed < 0:
        raise ValueError(f"astraea: seeds and seed must be non-negative, not {seeds!r}, {seed!r}")
    metrics = _metrics(model, share, device, gpus)
    metrics["selection_share"] = selection_share(model, share, device=device).value
    shares = [each / 10 for each in range(3, 11)]
    original = _whole_s(model, 1.0, device, 1, "value")
    curves = [Curve(
        title=f"{VIDEO_MODELS[model].title} on {device}", x=f"{_PERCENT} (1)", y="speedup",
        series={f"{count} GPUs": tuple(
            (each, original / _whole_s(model, each, device, count, "value")) for each in shares)
            for count in sorted({1, 2, 8, gpus})})]
    if seeds:
        judged = judge(share, seeds=seeds, seed=seed, clips=clips,
                       evolution=Evolution(generations=generations))
        for method in METHODS:
            metrics[f"small_{method}_psnr_db"] = float(judged.psnr_db[method].mean())
        metrics["small_ordered_seeds"] = judged.ordered()
        metrics["small_busy_share"] = busy_share(clips)
        curves.append(Curve(
            title="PSNR of the small denoiser against all tokens computed", x="seed", y="PSNR (dB)",
            series={method: tuple((float(seed + number), float(psnr)) for number, psnr in
                                  enumerate(judged.psnr_db[method])) for method in METHODS}))
        curves.append(Curve(
            title="Share of the tokens that the small denoiser computes", x="step", y="share",
            series={method: tuple((float(step), float(each)) for step, each in
                                  enumerate(judged.shares[method])) for method in METHODS[:3]}))
    return SystemRun(system="astraea", metrics=metrics, not_covered=NOT_COVERED,
                     assumptions=_ASSUMPTIONS, curves=tuple(curves))


def compare(*, model: str = "wan_4s", share: float = 0.5, device: str = "a100_80gb", gpus: int = 1
            ) -> dict[str, SystemRun]:
    """ASTRAEA, all tokens, and whole steps left out.

    Parameters
    ----------
    model, share, device, gpus
        As :func:`run` takes them.
    """
    _check(share, gpus, model)
    steps = latency(model, share, device=device, gpus=gpus, whole_steps=True).value
    original = _metrics(model, 1.0, device, gpus)
    found = {
        "original": original,
        "astraea": _metrics(model, share, device, gpus),
        "timestep_level": original | {
            "latency_s": steps, "speedup": _whole_s(model, 1.0, device, 1, "value") / steps,
            "pflop": share * original["pflop"], "exchange_s": share * original["exchange_s"]},
    }
    return {name: SystemRun(system="astraea", metrics=each, not_covered=NOT_COVERED,
                            assumptions=_ASSUMPTIONS) for name, each in found.items()}

"""LiveVLM: a bounded KV cache for video that streams in (arXiv 2505.15269; v2 by its notes).

Clips of frames are encoded and go through the language model with the cache as context; the cache
is then cut to its budget by the attention of the clip's last tokens. A question is answered by the
pages that it matches. Baselines: all frames at once (one-shot), the last tokens alone (FIFO), and
ReKV, which keeps a window on the device and all else on the host, and brings frames back for each
question.

Executed here: what a compressed cache still knows (:mod:`splatforge.sim.systems.streaming_kv`).
Computed from cards: memory, time to the first token, frames a second, frames that fit.
"""

import math
from dataclasses import dataclass, replace
from itertools import product

from splatforge.sim.costs import Sourced
from splatforge.sim.systems.cards import DeviceCard, ModelCard, device, model
from splatforge.sim.systems.roofline import (
    ENDS,
    End,
    Machine,
    Operator,
    decoder_layer,
    end_of,
    linear,
)
from splatforge.sim.systems.run import Curve, SystemRun
from splatforge.sim.systems.streaming_kv import POLICIES, Policy, make_video, quality

__all__ = ["SYSTEMS", "System", "compare", "memory_bytes", "memory_ratio", "most_frames", "run",
           "stream_fps", "ttft_ratio", "ttft_s"]

#: Vision encoder and tokens of a frame behind its pooling.
SIGLIP = model("siglip_so400m")
PATCHES, FRAME_TOKENS = 729, 196
#: Defaults of the code, as the notes have them.
BUDGET, CLIP_FRAMES, RETRIEVE, PAGE, SCORING = 12_000, 32, 0.4, 16, 16
#: ReKV's: window in tokens, frames cached on the device, frames that a question brings back.
WINDOW, CACHED_FRAMES, FETCHED_FRAMES = 15_000, 128, 64
QUESTION_TOKENS = 32
_ELEMENT = 2.0
_LOGIT = 4.0

NOT_COVERED = (
    "accuracy of a trained model: needles in made keys stand for it",
    "positions of retrieved tokens, which LiveVLM assigns anew",
    "slack of the allocator, the Python between kernels, decoding of the video",
    "Dispider and other baselines whose networks are not readable",
)
ASSUMPTIONS = (
    "ReKV brings back all its frames over PCI Express",
    "one-shot has logits of all tokens in FP32, streaming ones of the last token alone",
    "streaming baselines prefill clips of as many frames as LiveVLM",
)


@dataclass(frozen=True, kw_only=True)
class System:
    """What a way of keeping a video holds and does, in tokens.

    Parameters
    ----------
    policy : Policy
        Which tokens are kept, for the needles.
    held : int or None
        On the device between clips, at most; ``None`` is all.
    looked_at : float
        Share of what is held that a question attends to.
    fetched : int
        From the host for a question.
    at_once : bool
        Whether all frames go through in one pass, when the question comes.
    scores : bool
        Whether the last tokens of a clip score what is held.
    """

    policy: Policy
    held: int | None
    looked_at: float = 1.0
    fetched: int = 0
    at_once: bool = False
    scores: bool = False


SYSTEMS = {
    "livevlm": System(policy=POLICIES["livevlm"], held=BUDGET, looked_at=RETRIEVE, scores=True),
    "rekv": System(policy=POLICIES["rekv"], held=WINDOW + CACHED_FRAMES * FRAME_TOKENS,
                   looked_at=0.0, fetched=FETCHED_FRAMES * FRAME_TOKENS),
    "fifo": System(policy=POLICIES["fifo"], held=BUDGET),
    "one-shot": System(policy=POLICIES["one-shot"], held=None, at_once=True),
}


def _system(name: str) -> System:
    if name not in SYSTEMS:
        raise ValueError(f"Baseline must be one of {', '.join(SYSTEMS)}, not {name!r}")
    return SYSTEMS[name]


def _held(system: System, frames: float) -> float:
    tokens = frames * FRAME_TOKENS
    return tokens if system.held is None else min(tokens, system.held)


def memory_bytes(system: System, card: ModelCard, frames: float,
                 question: float = QUESTION_TOKENS) -> float:
    """Most device memory over a stream of so many frames, with its question, in bytes."""
    # A question goes through with the frames, or behind the last clip: the larger of the two.
    passed = (FRAME_TOKENS * frames + question if system.at_once
              else max(FRAME_TOKENS * min(frames, CLIP_FRAMES), question))
    weights = card.weight_bytes(_ELEMENT) + SIGLIP.weight_bytes(_ELEMENT)
    # The largest moment of a layer: its feed-forward part, and three of the model's width.
    activations = passed * _ELEMENT * (3 * card.ff + 3 * card.hidden)
    logits = (passed if system.at_once else 1) * card.vocab * _LOGIT
    # The first token of a clip looks at all that is held, so nothing leaves before the clip came.
    tokens = _held(system, frames) + (question if system.at_once else passed)
    return weights + tokens * card.kv_bytes_per_token(_ELEMENT) + activations + logits


def most_frames(system: System, card: ModelCard, memory: float,
                question: float = QUESTION_TOKENS) -> int | None:
    """Frames of a stream before memory runs out; ``None`` if it never does, 0 if at once.

    Parameters
    ----------
    memory : float
        Of the device, in bytes.
    question : float
        Tokens of the question.
    """
    if memory_bytes(system, card, 1e12 if not system.at_once else 1, question) <= memory \
            and not (system.at_once or system.held is None):
        return None
    low, high = 0, 1
    while memory_bytes(system, card, high, question) <= memory:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if memory_bytes(system, card, middle, question) <= memory \
            else (low, middle)
    return low


def _encode_s(machine: Machine, frames: float) -> float:
    """All frames through the vision encoder, batched; patches of a frame see each other."""
    layer = decoder_layer(SIGLIP, PATCHES, PATCHES, sequences=frames, causal=False)
    return SIGLIP.layers * machine.time_s(layer)


def _prefill_s(machine: Machine, card: ModelCard, tokens: float, context: float) -> float:
    return card.layers * machine.time_s(decoder_layer(card, tokens, context + tokens)) \
        + machine.time_s(linear("head", 1, card.hidden, card.vocab))


def _keys_bytes(card: ModelCard, tokens: float) -> float:
    """Of all layers."""
    return card.kv_bytes_per_token(_ELEMENT) / 2 * tokens


def clip_s(system: System, machine: Machine, card: ModelCard, frames: float = CLIP_FRAMES
           ) -> float:
    """A clip that streams in, with a cache that is full: encoding, prefill, scoring."""
    held, tokens = float(system.held or 0), frames * FRAME_TOKENS
    total = _encode_s(machine, frames) + _prefill_s(machine, card, tokens, held)
    if system.scores:
        seen = held + tokens
        total += machine.time_s(Operator(
            name="score", flop=card.layers * 2 * SCORING * seen * card.heads * card.head_dim,
            size_bytes=_keys_bytes(card, seen), launches=3 * card.layers))
    if system.fetched:
        # What leaves the window goes to the host, beside computing.
        total = max(total, tokens * card.kv_bytes_per_token(_ELEMENT) / machine.pcie_bytes_per_s)
    return total


def stream_fps(system: System, machine: Machine, card: ModelCard) -> float:
    """Frames a second that a stream may bring, 0 for what does not stream."""
    return 0.0 if system.at_once else CLIP_FRAMES / clip_s(system, machine, card)


def ttft_s(system: System, machine: Machine, card: ModelCard, frames: float,
           question: float = QUESTION_TOKENS) -> float:
    """From a question, behind so many frames, to its first token, in seconds."""
    if system.at_once:
        tokens = frames * FRAME_TOKENS
        return _encode_s(machine, frames) + _prefill_s(machine, card, tokens + question, 0)
    held = _held(system, frames)
    total, context = 0.0, held * system.looked_at
    if system.looked_at < 1:
        # Pages or frames are matched by a mean of their keys; then those are gathered.
        stored = frames * FRAME_TOKENS if system.fetched else held
        group = FRAME_TOKENS if system.fetched else PAGE
        fetched = min(system.fetched, frames * FRAME_TOKENS)
        context += fetched
        total += machine.time_s((
            Operator(name="match", size_bytes=_keys_bytes(card, stored / group),
                     flop=card.layers * 2 * question * stored / group * card.heads * card.head_dim,
                     launches=2 * card.layers),
            Operator(name="gather", size_bytes=2 * context * card.kv_bytes_per_token(_ELEMENT),
                     launches=2 * card.layers)))
        total += fetched * card.kv_bytes_per_token(_ELEMENT) / machine.pcie_bytes_per_s
    return total + _prefill_s(machine, card, question, context)


def memory_ratio(baseline: str = "rekv", frames: int = 256, network: str = "qwen2_7b") -> Sourced:
    """Peak memory of a baseline over LiveVLM's, of tensors alone.

    Parameters
    ----------
    baseline : str
        Of :data:`SYSTEMS`.
    frames : int
        Length of the stream.
    network : str
        Model card.
    """
    card = model(network)
    ratio = memory_bytes(_system(baseline), card, frames) \
        / memory_bytes(SYSTEMS["livevlm"], card, frames)
    return Sourced.exact(ratio, "1", "sizes of weights, caches, activations and logits")


def _machine(card: DeviceCard, device_end: End, host_end: End) -> Machine:
    """Rates of the device at one end and of the host's link at another."""
    own, host = Machine.of(card, end=device_end), Machine.of(card, end=host_end)
    return Machine(flop_per_s=own.flop_per_s, bytes_per_s=own.bytes_per_s, launch_s=own.launch_s,
                   pcie_bytes_per_s=host.pcie_bytes_per_s)


def ttft_ratio(baseline: str = "rekv", frames: int = 256, gpu: str = "rtx_4090d",
               network: str = "qwen2_7b") -> Sourced:
    """Time to the first token of a baseline over LiveVLM's.

    Parameters
    ----------
    baseline, frames, network
        As of :func:`memory_ratio`.
    gpu : str
        Device card.
    """
    other, card = _system(baseline), model(network)

    def ratio(ends: tuple[End, End]) -> float:
        machine = _machine(device(gpu), *ends)
        return ttft_s(other, machine, card, frames) \
            / ttft_s(SYSTEMS["livevlm"], machine, card, frames)
    value, *rest = (ratio(ends) for ends in product(ENDS, ENDS))
    return Sourced(value, "1", f"roofline of {gpu}, matrices and memory at one end and PCI Express "
                   "at another", min(value, *rest), max(value, *rest))


def _systems(budget: int, retrieve: float) -> dict[str, System]:
    """All, with LiveVLM's and FIFO's budget and LiveVLM's share of pages."""
    if budget < 1:
        raise ValueError(f"livevlm: budget must be positive, not {budget!r}")
    ours = SYSTEMS["livevlm"]
    return SYSTEMS | {
        "livevlm": replace(ours, held=budget, looked_at=retrieve,
                           policy=replace(ours.policy, retrieve=retrieve)),
        "fifo": replace(SYSTEMS["fifo"], held=budget)}


def _needles(system: System, budget: int, frames: int, seed: int, *, salient: bool = True
             ) -> float:
    """Share of questions answered rightly, of a small stream with the same share of tokens kept."""
    length, tokens = min(frames, 256), 16
    share = min(1.0, budget / (frames * FRAME_TOKENS))
    video = make_video(seed, frames=length, frame_tokens=tokens, needles=min(16, length * tokens),
                       salient=salient)
    return quality(video, system.policy, max(1, math.ceil(share * length * tokens)))[0]


def _assumed(question: int) -> tuple[str, ...]:
    return (f"questions of {question} tokens", *ASSUMPTIONS)


def _metrics(system: System, budget: int, gpu: str, network: str, frames: int, question: int,
             seed: int) -> dict[str, float]:
    card, board = model(network), device(gpu)
    machine = Machine.of(board)
    metrics = {
        "memory_bytes": memory_bytes(system, card, frames, question),
        "ttft_s": ttft_s(system, machine, card, frames, question),
        "stream_fps": stream_fps(system, machine, card),
        "needles_found": _needles(system, budget, frames, seed)}
    fits = most_frames(system, card, end_of(board.memory, "value"), question)
    if fits is not None:
        metrics["frames_that_fit"] = fits
    return metrics


def _check(frames: int, question: int) -> None:
    if frames < 1 or question < 1:
        raise ValueError("livevlm: frames and question must be positive, not "
                         f"{frames!r} and {question!r}")


def run(*, gpu: str = "rtx_4090d", network: str = "qwen2_7b", frames: int = 256,
        question: int = QUESTION_TOKENS, budget: int = BUDGET, retrieve: float = RETRIEVE,
        seed: int = 0) -> SystemRun:
    """Memory, times and needles of LiveVLM.

    Parameters
    ----------
    gpu, network : str
        Device and model card.
    frames : int
        Of the stream before the question.
    question : int
        Its tokens.
    budget : int
        Tokens that LiveVLM and FIFO keep.
    retrieve : float
        Share of them, in pages, that LiveVLM looks at for a question, in (0, 1].
    seed : int
        Of the needles.

    Raises
    ------
    ValueError
        If an option is out of range.
    """
    _check(frames, question)
    systems = _systems(budget, retrieve)
    card, machine, ours = model(network), Machine.of(device(gpu)), systems["livevlm"]
    metrics = _metrics(ours, budget, gpu, network, frames, question, seed)
    without = replace(ours, scores=False)
    whole = clip_s(ours, machine, card)
    metrics |= {
        "scoring_share": 1 - clip_s(without, machine, card) / whole,
        "needles_found_not_salient": _needles(
            ours, budget, frames, seed, salient=False),
        "memory_growth_to_100k_frames": memory_bytes(ours, card, 100_000, question)
        / memory_bytes(ours, card, frames, question)}
    for name, other in systems.items():
        if name != "livevlm":
            key = name.replace("-", "_")
            metrics[f"memory_{key}_over_ours"] = memory_bytes(
                other, card, frames, question) / metrics["memory_bytes"]
            metrics[f"ttft_{key}_over_ours"] = ttft_s(
                other, machine, card, frames, question) / metrics["ttft_s"]
    lengths = (16, 32, 64, 128, 256, 512, 1024)
    return SystemRun(
        system="livevlm", metrics=metrics, not_covered=NOT_COVERED, assumptions=_assumed(question),
        curves=(
            Curve(title="Memory over frames", x="frames", y="GiB", series={
                name: tuple((float(each), memory_bytes(system, card, each, question) / 2**30)
                            for each in lengths) for name, system in systems.items()}),
            Curve(title="Time to the first token over frames", x="frames", y="s", series={
                name: tuple((float(each), ttft_s(system, machine, card, each, question))
                            for each in lengths) for name, system in systems.items()})))


def compare(*, gpu: str = "rtx_4090d", network: str = "qwen2_7b", frames: int = 256,
            question: int = QUESTION_TOKENS, budget: int = BUDGET, retrieve: float = RETRIEVE,
            seed: int = 0) -> dict[str, SystemRun]:
    """LiveVLM, ReKV, FIFO and one-shot on one stream; options as of :func:`run`."""
    _check(frames, question)
    return {name: SystemRun(
        system="livevlm", not_covered=NOT_COVERED, assumptions=_assumed(question),
        metrics=_metrics(system, budget, gpu, network, frames, question, seed))
        for name, system in _systems(budget, retrieve).items()}

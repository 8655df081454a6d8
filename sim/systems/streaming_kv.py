"""What a compressed cache of keys and values still knows: attention over planted needles.

A video is a stream of tokens in frames: a key is that of its scene, which changes slowly, and a
direction of its own. Needles are tokens whose own direction a question asks for, and whose value is
the answer. A salient needle also holds what the stream's own queries look for, as an object that
the following frames refer to; a needle that is not salient looks like any other token until it is
asked for.

A policy keeps at most so many tokens (or all), frame by frame, and answers a question by attention
over what it keeps or retrieves of that. The answer is right if the nearest value of the code book
is the needle's.

LiveVLM's policy (v2, as its notes and the defaults of its code have it): a clip of frames comes in,
all tokens are scored by the mean attention of the clip's last tokens; the best stay, then the best
of every bucket of time and place, so that what stays is spread; the last frames stay in any case.
A question is answered by the pages that it matches best.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["POLICIES", "Policy", "Video", "answered", "compress", "make_video", "quality"]

Array = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]

_WIDTH = 64
_SCENE_FRAMES = 16
#: Strengths: of a key's scene, of what is its own, of what the stream looks for in a salient one;
#: of a question, of what the stream's queries look for.
_SCENE, _OWN, _SALIENT, _QUESTION, _LOOK = 1.0, 3.0, 1.5, 8.0, 16.0
#: Tokens that score a clip, and a page of those that are retrieved.
_SCORING = 16
_PAGE = 16


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What is kept, and what of that is looked at.

    Parameters
    ----------
    keeps : str
        ``all`` tokens, the ``latest``, or what has ``attention``.
    retrieve : float
        Share of pages that a question is answered by, in (0, 1].
    scatter : float
        Share of the kept tokens that is spread over buckets, where attention chooses.
    recent_frames : int
        Frames that stay in any case, where attention chooses.
    clip_frames : int
        Frames that come in at once.
    """

    keeps: str
    retrieve: float = 1.0
    scatter: float = 0.5
    recent_frames: int = 2
    clip_frames: int = 32

    def __post_init__(self) -> None:
        if self.keeps not in ("all", "latest", "attention"):
            raise ValueError(f"Keeps must be all, latest or attention, not {self.keeps!r}")
        if not (0 < self.retrieve <= 1 and 0 <= self.scatter <= 1):
            raise ValueError("Retrieve must be in (0, 1] and scatter in [0, 1], not "
                             f"{self.retrieve!r} and {self.scatter!r}")


#: One-shot attention over all; all kept on the host, retrieved (ReKV); the last (FIFO); LiveVLM
#: without and with retrieval.
POLICIES = {
    "one-shot": Policy(keeps="all"),
    "rekv": Policy(keeps="all", retrieve=0.25),
    "fifo": Policy(keeps="latest"),
    "livevlm without retrieval": Policy(keeps="attention"),
    "livevlm": Policy(keeps="attention", retrieve=0.4),
}


@dataclass(frozen=True, kw_only=True)
class Video:
    """A stream with needles.

    Parameters
    ----------
    keys, queries, values : numpy.ndarray
        Of shape [tokens, width].
    frame_tokens : int
        Tokens of a frame.
    needles : numpy.ndarray
        Of shape [needles]: their tokens, in order.
    questions : numpy.ndarray
        Of shape [needles, width].
    """

    keys: Array
    queries: Array
    values: Array
    frame_tokens: int
    needles: Places
    questions: Array

    @property
    def frames(self) -> int:
        """Length."""
        return len(self.keys) // self.frame_tokens


def make_video(seed: int, *, frames: int = 256, frame_tokens: int = 16, needles: int = 16,
               salient: bool = True, latest: float = 1.0) -> Video:
    """A video with needles at random places.

    Parameters
    ----------
    seed : int
        Of all of it.
    frames, frame_tokens, needles : int
        Positive; no more needles than tokens.
    salient : bool
        Whether the stream's own queries look for the needles.
    latest : float
        Share of the stream, from its end, that holds them, in (0, 1].

    Raises
    ------
    ValueError
        If a number is out of range.
    """
    tokens = frames * frame_tokens
    first = int(tokens * (1 - latest))
    if min(frames, frame_tokens, needles) < 1 or not 0 < latest <= 1 or needles > tokens - first:
        raise ValueError("Frames, frame tokens and needles must be positive, the latest share in "
                         f"(0, 1] and hold the needles, not {frames!r}, {frame_tokens!r}, "
                         f"{needles!r} and {latest!r}")
    rng = np.random.default_rng(seed)

    def directions(number: int) -> Array:
        drawn = rng.normal(size=(number, _WIDTH))
        return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    look = directions(1)[0]
    scene = np.repeat(directions(-(-frames // _SCENE_FRAMES)), _SCENE_FRAMES, axis=0)[:frames]
    own = directions(tokens)
    keys = np.repeat(_SCENE * scene, frame_tokens, axis=0) + _OWN * own
    places = np.sort(first + rng.choice(tokens - first, needles, replace=False))
    if salient:
        keys[places] += _SALIENT * look
    queries = _LOOK * look + np.repeat(_QUESTION / 2 * scene, frame_tokens, axis=0) \
        + directions(tokens)
    return Video(keys=keys, queries=queries, values=directions(tokens), frame_tokens=frame_tokens,
                 needles=places, questions=_QUESTION * own[places])


def _softmax(scores: Array) -> Array:
    shifted = np.exp(scores - scores.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def compress(video: Video, held: Places, budget: int, policy: Policy) -> Places:
    """Of the tokens held, those that stay.

    Parameters
    ----------
    video : Video
        The stream.
    held : numpy.ndarray
        Tokens, rising; the last of them came last.
    budget : int
        Tokens that may stay.
    policy : Policy
        By which.
    """
    if policy.keeps == "all" or len(held) <= budget:
        return held
    if policy.keeps == "latest":
        return held[len(held) - budget:]
    look = video.queries[held[-_SCORING:]]
    score = _softmax(look @ video.keys[held].T / np.sqrt(_WIDTH)).mean(0)
    stays = np.zeros(len(held), bool)
    recent = min(budget, policy.recent_frames * video.frame_tokens)
    stays[len(held) - recent:] = True
    order = np.argsort(-score, kind="stable")

    def keep(candidates: Places, room: int) -> None:
        stays[candidates[~stays[candidates]][:max(0, room)]] = True
    keep(order, round((budget - recent) * (1 - policy.scatter)))
    # As many buckets of time as there is room for, at every place in the frame.
    room = budget - int(stays.sum())
    spans = max(1, room // video.frame_tokens)
    frame, place = np.divmod(held, video.frame_tokens)
    bucket = (frame * spans // (int(frame[-1]) + 1)) * video.frame_tokens + place
    _, best = np.unique(bucket[order], return_index=True)
    # The first of every bucket in the order of scores, the best of these first.
    keep(order[np.sort(best)], room)
    keep(order, budget - int(stays.sum()))
    return held[stays]


def answered(video: Video, held: Places, retrieve: float = 1.0) -> npt.NDArray[np.bool_]:
    """Whether each question gets its needle's answer of the tokens held.

    Parameters
    ----------
    video : Video
        The stream.
    held : numpy.ndarray
        Tokens, rising, at least one.
    retrieve : float
        Share of pages that are looked at: those whose keys match the question best.
    """
    pages = np.arange(len(held)) // _PAGE
    number = int(pages[-1]) + 1
    right = np.zeros(len(video.needles), bool)
    for needle, question in enumerate(video.questions):
        score = video.keys[held] @ question / np.sqrt(_WIDTH)
        best = np.full(number, -np.inf)
        np.maximum.at(best, pages, score)
        chosen = np.argsort(-best, kind="stable")[:max(1, round(retrieve * number))]
        seen = np.isin(pages, chosen)
        answer = _softmax(score[seen]) @ video.values[held[seen]]
        # The code book: the answers of all questions.
        right[needle] = (video.values[video.needles] @ answer).argmax() == needle
    return right


def quality(video: Video, policy: Policy, budget: int) -> tuple[float, float]:
    """Share of questions answered rightly at the end of the stream, and of needles still held.

    Parameters
    ----------
    video : Video
        The stream.
    policy : Policy
        What is kept.
    budget : int
        Tokens that are kept, positive; ``all`` keeps all.

    Raises
    ------
    ValueError
        If the budget is not positive.
    """
    if budget < 1:
        raise ValueError(f"Budget must be positive, not {budget!r}")
    held = np.zeros(0, np.int64)
    step = policy.clip_frames * video.frame_tokens
    for start in range(0, len(video.keys), step):
        came = np.arange(start, min(start + step, len(video.keys)))
        held = compress(video, np.concatenate([held, came]), budget, policy)
    return (float(answered(video, held, policy.retrieve).mean()),
            float(np.isin(video.needles, held).mean()))

"""Accesses to blocks: jobs that are made here, and block traces of others.

Made jobs stand for what the store of a cluster sees: pre-processing reads a data set once from end
to end, training reads one over and over (in order, or shuffled anew each epoch, single files or
files of several blocks), inference asks for what is popular.
"""

import gzip
import json
import lzma
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from splatforge.scenes import check_regular_file
from splatforge.sim.systems.block_cache import Jobs

__all__ = ["KINDS", "MIXES", "Workload", "make_workload", "patterns_found", "read_trace",
           "trace_workload"]

Integers = npt.NDArray[np.int64]

#: Pattern that each kind of job should be found to have.
KINDS = {"scan": "sequential", "loop": "sequential", "shuffle": "random", "video": "random",
         "zipf": "skewed"}
MIXES = {"mixed": ("scan", "loop", "shuffle", "video", "zipf"), "shuffle+zipf": ("shuffle", "zipf"),
         "shuffle": ("shuffle",), "zipf": ("zipf",), "loop": ("loop",), "scan": ("scan",)}

_COMPUTE_S = 5e-3
#: Widest span of addresses that is taken as it is.
_WIDEST = 1 << 22


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Blocks and the jobs that ask for them.

    Parameters
    ----------
    name : str
        For people.
    paths : numpy.ndarray
        Of shape [blocks, 3]: unit, file in it, block in that.
    jobs : Jobs
        Rows of the paths that each asks for.
    patterns : tuple of str
        Pattern of each unit, ``unknown`` where nobody says.
    footprint : int
        Different blocks that are asked for.
    stored : bool
        Whether all blocks are in the store from the first, so that they may be read ahead; blocks
        of a KV cache are not before they were computed.
    """

    name: str
    paths: Integers
    jobs: Jobs
    patterns: tuple[str, ...]
    footprint: int
    stored: bool = True


def _accesses(kind: str, items: int, length: int, skew: float, rng: np.random.Generator
              ) -> tuple[int, int, Integers]:
    """Files, blocks of each, and which block of all in what order."""
    if kind == "scan":
        return -(-length // 64), 64, np.arange(length)
    epochs = -(-length // items)
    if kind == "loop":
        return -(-items // 64), 64, np.tile(np.arange(items), epochs)[:length]
    if kind == "shuffle":
        return items, 1, np.concatenate([rng.permutation(items) for _ in range(epochs)])[:length]
    if kind == "video":
        files = max(1, items // 4)
        order = np.concatenate([rng.permutation(files) for _ in range(-(-length // (4 * files)))])
        return files, 4, (order[:, None] * 4 + np.arange(4)).reshape(-1)[:length]
    popularity = np.arange(1, items + 1) ** -skew
    return items, 1, rng.permutation(items)[
        rng.choice(items, length, p=popularity / popularity.sum())]


def make_workload(mix: str = "mixed", *, items: int = 3000, length: int = 12_000,
                  skew: float = 1.0, compute_s: float = _COMPUTE_S, seed: int = 0) -> Workload:
    """Jobs side by side, each with a unit of its own.

    Parameters
    ----------
    mix : str
        Of :data:`MIXES`.
    items : int
        Blocks of a data set (a scan has `length`), at least 64.
    length : int
        Accesses of each job, at least `items`.
    skew : float
        Exponent of Zipf's law.
    compute_s : float
        On each block.
    seed : int
        Of orders and draws.

    Raises
    ------
    ValueError
        If there is no such mix or a number is out of range.
    """
    if mix not in MIXES:
        raise ValueError(f"Mix must be one of {', '.join(MIXES)}, not {mix!r}")
    if not 64 <= items <= length or not 0 <= skew < math.inf:
        raise ValueError("Items must be at least 64 and at most the length, and the skew finite "
                         f"and not negative, not {items!r}, {length!r} and {skew!r}")
    rng = np.random.default_rng(seed)
    paths, accesses, start = [], [], 0
    for unit, kind in enumerate(MIXES[mix]):
        files, each, order = _accesses(kind, items, length, skew, rng)
        number = np.arange(files * each)
        paths.append(np.stack([np.full_like(number, unit), number // each, number % each], axis=1))
        accesses.append(order + start)
        start += len(number)
    return Workload(
        name=mix, paths=np.concatenate(paths), patterns=tuple(KINDS[kind] for kind in MIXES[mix]),
        jobs=Jobs(accesses=tuple(accesses), compute_s=(compute_s,) * len(accesses)),
        footprint=sum(len(np.unique(order)) for order in accesses))


def read_trace(path: Path | str) -> Integers:
    """Block numbers of a trace, in order.

    Parameters
    ----------
    path : Path or str
        ``.trace`` of a number a line, ``*`` apart (LIRS), ``.jsonl`` with ``hash_ids`` (Mooncake),
        or little-endian words of 32 bits (CloudPhysics, its name has ``cloudphysics``); packed or
        not by gzip or xz.

    Raises
    ------
    ValueError
        If the file holds something else.
    """
    path = Path(path)
    check_regular_file(path, "a trace")
    opened = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    try:
        with opened(path, "rb") as file:
            text = file.read()
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError) as error:
        raise ValueError(f"{path}: must be a whole packed file: {error}") from None
    try:
        if ".jsonl" in path.name:
            lists = [json.loads(line)["hash_ids"] for line in text.splitlines() if line.strip()]
            blocks = np.array([each for one in lists for each in one], np.int64)
        elif "cloudphysics" in path.name:
            blocks = np.frombuffer(text, "<u4").astype(np.int64)
        else:
            blocks = np.array([int(word) for word in text.split() if word != b"*"], np.int64)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: must hold block numbers: {error}") from None
    if not len(blocks) or blocks.min() < 0:
        raise ValueError(f"{path}: must hold block numbers that are not negative, at least one")
    return blocks


def trace_workload(path: Path | str, *, region_blocks: int = 4096, length: int = 200_000,
                   compute_s: float = _COMPUTE_S) -> Workload:
    """A trace as one job; stretches of addresses are its units, of one file each.

    Parameters
    ----------
    path : Path or str
        As of :func:`read_trace`.
    region_blocks : int
        Blocks of a unit, positive.
    length : int
        Accesses that are taken, from the first.
    compute_s : float
        On each block.

    Raises
    ------
    ValueError
        As :func:`read_trace`.
    """
    if region_blocks < 1 or length < 1:
        raise ValueError(f"Region and length must be positive, not {region_blocks!r} and "
                         f"{length!r}")
    blocks = read_trace(path)[:length]
    blocks = blocks - blocks.min()
    if blocks.max() >= _WIDEST:
        # Too wide a span: blocks that nobody asks for are left out.
        _, blocks = np.unique(blocks, return_inverse=True)
    number = np.arange(int(blocks.max()) + 1)
    unit = number // region_blocks
    return Workload(
        name=Path(path).name, paths=np.stack([unit, unit * 0, number % region_blocks], axis=1),
        jobs=Jobs(accesses=(blocks,), compute_s=(compute_s,)),
        patterns=("unknown",) * (int(unit[-1]) + 1), footprint=len(np.unique(blocks)),
        stored=".jsonl" not in Path(path).name)


def patterns_found(workload: Workload, found: Sequence[str]) -> float:
    """Share of units whose pattern was found, of those of which it is known."""
    known = [(wanted, got) for wanted, got in zip(workload.patterns, found, strict=True)
             if wanted != "unknown"]
    return sum(wanted == got for wanted, got in known) / max(1, len(known))

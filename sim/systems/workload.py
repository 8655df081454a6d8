"""Requests of published traces, or drawn from their statistics, which ``workloads.json`` holds.

Of every trace the file keeps 65 quantiles of both lengths and of the gaps between arrivals, the
rank correlation of the lengths, and the rate. What it does not keep is how the rate changes over
minutes.
"""

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from splatforge.scenes import check_regular_file
from splatforge.sim.systems.serving import Request

__all__ = ["TRACES", "Workload", "draw", "read_trace", "statistics", "workload"]

#: Name -> file below the folder of traces.
TRACES = {
    "azure_code": "azure2023/AzureLLMInferenceTrace_code.csv",
    "azure_conv": "azure2023/AzureLLMInferenceTrace_conv.csv",
    "mooncake": "mooncake/conversation_trace.jsonl",
    "sharegpt": "llmservingsim/sharegpt_llama31_8b_300_sps10_lengths.csv",
}
#: Levels of the quantiles, closer to each other towards both ends, where lengths go far.
_LEVELS = (1 - np.cos(np.linspace(0, np.pi, 65))) / 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Workload:
    """When requests come and how long they are.

    Parameters
    ----------
    name, source : str
        Which, and whether it was read or drawn.
    arrival_s : ndarray
        From 0 on, ascending, of shape [n].
    input_tokens, output_tokens : ndarray
        At least 1, int64, of shape [n].
    """

    name: str
    source: str
    arrival_s: npt.NDArray[np.float64]
    input_tokens: npt.NDArray[np.int64]
    output_tokens: npt.NDArray[np.int64]

    def requests(self, *, load: float = 1.0, count: int | None = None) -> list[Request]:
        """Fresh requests, the first `count` of them, coming `load` times as fast.

        Raises
        ------
        ValueError
            If the load is not positive.
        """
        if not (load > 0 and math.isfinite(load)):
            raise ValueError(f"Load must be positive, not {load!r}")
        return [Request(arrival_s=arrival / load, input_tokens=given, output_tokens=answer,
                        number=number)
                for number, (arrival, given, answer) in enumerate(zip(
                    self.arrival_s[:count].tolist(), self.input_tokens[:count].tolist(),
                    self.output_tokens[:count].tolist(), strict=True))]


def _rows(path: Path) -> list[tuple[float, int, int]]:
    """(second, tokens in, tokens out) of a trace."""
    found = list[tuple[float, int, int]]()
    with path.open(encoding="utf-8", newline="") as file:
        if path.suffix == ".jsonl":
            for line in file:
                row = json.loads(line)
                found.append((row["timestamp"] / 1000, row["input_length"], row["output_length"]))
            return found
        for row in csv.DictReader(file):
            if "TIMESTAMP" in row:
                # Seven digits of a second: one more than Python reads.
                when = datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp()
                found.append((when, int(row["ContextTokens"]), int(row["GeneratedTokens"])))
            else:
                found.append((int(row["arrival_time_ns"]) / 1e9, int(row["input_toks"]),
                              int(row["output_toks"])))
    return found


def read_trace(name: str, folder: Path) -> Workload:
    """A published trace.

    Parameters
    ----------
    name : str
        Of :data:`TRACES`.
    folder : Path
        That holds them.

    Raises
    ------
    ValueError
        If the trace is not known or there, or a line is malformed; the message names the file.
    """
    if name not in TRACES:
        raise ValueError(f"Trace must be one of {', '.join(TRACES)}, not {name!r}")
    path = folder / TRACES[name]
    check_regular_file(path, "trace")
    try:
        rows = sorted(_rows(path))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a trace of arrivals and lengths: {error!r}") from None
    if not rows:
        raise ValueError(f"{path}: trace must hold a request")
    arrival, given, answer = (np.array(column) for column in zip(*rows, strict=True))
    return Workload(name=name, source=f"trace {TRACES[name]}", arrival_s=arrival - arrival[0],
                    input_tokens=np.maximum(given, 1).astype(np.int64),
                    output_tokens=np.maximum(answer, 1).astype(np.int64))


def statistics(trace: Workload) -> dict[str, Any]:
    """What ``workloads.json`` keeps of a trace."""
    from scipy.stats import rankdata

    gaps = np.diff(trace.arrival_s)
    rank = np.corrcoef(rankdata(trace.input_tokens), rankdata(trace.output_tokens))[0, 1]
    return {
        "requests": int(trace.arrival_s.size),
        "rate_per_s": round(float(1 / gaps.mean()), 6),
        "gap_variation": round(float(gaps.std() / gaps.mean()), 4),
        "rank_correlation": round(float(rank), 4),
        "input_mean": round(float(trace.input_tokens.mean()), 2),
        "output_mean": round(float(trace.output_tokens.mean()), 2),
        "input_quantiles": [int(each) for each in np.quantile(trace.input_tokens, _LEVELS)],
        "output_quantiles": [int(each) for each in np.quantile(trace.output_tokens, _LEVELS)],
        "gap_quantiles_s": [float(f"{each:.4g}") for each in np.quantile(gaps, _LEVELS)],
    }


@cache
def _committed() -> Mapping[str, Any]:
    text = files("splatforge.sim.systems").joinpath("workloads.json").read_text("utf-8")
    return json.loads(text)


def draw(name: str, *, seed: int = 0, count: int | None = None) -> Workload:
    """Requests drawn from the statistics of a trace, as many as it had, or `count`.

    Raises
    ------
    ValueError
        If the trace is not known.
    """
    from scipy.stats import norm

    if name not in _committed():
        raise ValueError(f"Trace must be one of {', '.join(_committed())}, not {name!r}")
    known = _committed()[name]
    size: int = known["requests"] if count is None else count
    rng = np.random.default_rng([seed, *name.encode()])
    # Gauss's copula with the rank correlation of the trace.
    rho = 2 * math.sin(math.pi / 6 * known["rank_correlation"])
    first, second = rng.standard_normal((2, size))
    second = rho * first + math.sqrt(1 - rho**2) * second
    lengths = [np.maximum(np.rint(np.interp(norm.cdf(each), _LEVELS, known[f"{kind}_quantiles"])),
                          1).astype(np.int64)
               for each, kind in ((first, "input"), (second, "output"))]
    quantiles = np.array(known["gap_quantiles_s"])
    # Straight lines between quantiles have a longer mean than what they are of: the rate is kept.
    mean_s = float(np.diff(_LEVELS) @ (quantiles[1:] + quantiles[:-1])) / 2
    gaps = np.interp(rng.random(size), _LEVELS, quantiles) / (known["rate_per_s"] * mean_s)
    return Workload(name=name, source=f"drawn from the statistics of {known['source']}",
                    arrival_s=np.cumsum(gaps) - gaps[0], input_tokens=lengths[0],
                    output_tokens=lengths[1])


def workload(name: str, *, traces: str | None = None, seed: int = 0,
             count: int | None = None) -> Workload:
    """The trace, where a folder holds it, or requests drawn from its statistics."""
    if traces:
        return read_trace(name, Path(traces))
    return draw(name, seed=seed, count=count)

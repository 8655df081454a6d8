"""PDGraphs: applications of language models as graphs of stages with distributions (Hermes).

A stage asks the model for some answers side by side, or takes its time elsewhere (a container, a
search, another network); what comes next is drawn. ``applications.json`` holds, of the samples that
the authors publish for nine applications (NephrenCake/Hermes, ``pdgraphs.json``), five quantiles of
every quantity, what follows how often, and for what depends on an earlier stage the rank
correlation with it, where that is above 0.5.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from splatforge.scenes import check_regular_file

__all__ = ["MIX", "Application", "Quantity", "Stage", "Visit", "applications", "demands",
           "distil", "walk"]

#: Weights of the applications in the paper's evaluation.
MIX = {"got_docmerge": 2, "langchain_mapreduce": 16, "hugginggpt": 10, "code_feedback": 16,
       "factool_code": 16, "factool_kbqa": 16, "react_alfw": 16, "factool_math": 4,
       "react_fever": 4}
#: Seconds of service per token in and out, as the authors' code counts demand.
SERVICE_IN_S, SERVICE_OUT_S = 0.0001, 0.06
#: Stages of a walk at most, as there.
_LONGEST = 50
_CORRELATED = 0.5
_QUANTITIES = {"input_len": "input", "output_len": "output", "parallelism": "width",
               "exec_time": "time"}


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A distribution, and what it hangs on.

    Parameters
    ----------
    quantiles : tuple of float
        Equally spaced, from the least to the most.
    follows : tuple of str, optional
        Stage and quantity that it is correlated with.
    rank_correlation : float
        With that.
    """

    quantiles: tuple[float, ...]
    follows: tuple[str, str] | None = None
    rank_correlation: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage.

    Parameters
    ----------
    kind : str
        ``llm`` or where it runs: ``docker``, ``search``, ``dnn``.
    following : mapping
        Stage that comes next, or ``end``, -> probability.
    quantities : mapping
        ``input``, ``output`` (tokens) and ``width`` (answers side by side), or ``time`` (s).
    """

    kind: str
    following: Mapping[str, float]
    quantities: Mapping[str, Quantity]


@dataclass(frozen=True, kw_only=True)
class Application:
    """A graph of stages.

    Parameters
    ----------
    name, first : str
        Of the application; of its first stage.
    stages : mapping
        By name.
    """

    name: str
    first: str
    stages: Mapping[str, Stage]


@dataclass(frozen=True, kw_only=True)
class Visit:
    """One stage as it comes out.

    Parameters
    ----------
    stage, kind : str
        Which.
    input_tokens, output_tokens : tuple of int
        Of each answer; empty outside the model.
    time_s : float
        Outside the model.
    latent : mapping
        Quantity -> standard normal number that it was drawn with.
    """

    stage: str
    kind: str
    input_tokens: tuple[int, ...]
    output_tokens: tuple[int, ...]
    time_s: float
    latent: Mapping[str, float]

    @property
    def demand_s(self) -> float:
        """Service, in the seconds that the authors count with."""
        return (SERVICE_IN_S * sum(self.input_tokens) + SERVICE_OUT_S * sum(self.output_tokens)
                + self.time_s)


def distil(samples: Mapping[str, Any], points: int = 5) -> dict[str, Any]:
    """What ``applications.json`` keeps of the authors' samples.

    Parameters
    ----------
    samples : mapping
        Application -> stage -> ``type``, ``next`` and samples of the same runs in the same places.
    points : int
        Quantiles of each quantity.
    """
    from scipy.stats import rankdata

    kept = dict[str, Any]()
    levels = np.linspace(0, 1, points)
    for name, stages in samples.items():
        before = dict[tuple[str, str], Sequence[float]]()
        out = dict[str, Any]()
        for stage, table in stages.items():
            if table["type"] in ("start", "end"):
                continue
            following = {each: table["next"].count(each) / len(table["next"])
                         for each in dict.fromkeys(table["next"])}
            quantities = dict[str, Any]()
            for key, short in _QUANTITIES.items():
                values = table.get(key)
                if values is None:
                    continue
                entry: dict[str, Any] = {
                    "quantiles": [round(float(each), 3) for each in np.quantile(values, levels)]}
                best = 0.0
                for (earlier, other), theirs in before.items():
                    if earlier == stage or len(set(theirs)) == 1 or len(set(values)) == 1 or (
                            len(theirs) != len(values)):
                        continue
                    rank = float(np.corrcoef(rankdata(theirs), rankdata(values))[0, 1])
                    if abs(rank) > max(_CORRELATED, abs(best)):
                        best = rank
                        entry |= {"follows": [earlier, other], "rank_correlation": round(rank, 3)}
                quantities[short] = entry
                before[stage, short] = values
            out[stage] = {"kind": table["type"], "following": following, "quantities": quantities}
        kept[name] = {"first": stages["start"]["next"][0], "stages": out}
    return kept


def _parse(tree: Mapping[str, Any]) -> dict[str, Application]:
    return {name: Application(name=name, first=app["first"], stages={
        stage: Stage(kind=table["kind"], following=table["following"], quantities={
            key: Quantity(
                quantiles=tuple(entry["quantiles"]),
                follows=tuple(entry["follows"]) if "follows" in entry else None,
                rank_correlation=entry.get("rank_correlation", 0.0))
            for key, entry in table["quantities"].items()})
        for stage, table in app["stages"].items()}) for name, app in tree.items()}


@cache
def applications(traces: str = "") -> dict[str, Application]:
    """The nine applications: committed, or of the samples in a folder of traces.

    Raises
    ------
    ValueError
        If the file is not there or holds something else.
    """
    if not traces:
        text = files("splatforge.sim.systems").joinpath("applications.json").read_text("utf-8")
        return _parse(json.loads(text)["applications"])
    path = Path(traces) / "hermes" / "pdgraphs.json"
    check_regular_file(path, "PDGraphs")
    try:
        return _parse(distil(json.loads(path.read_text("utf-8")), points=10))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not PDGraphs: {error!r}") from None


def _at(quantity: Quantity, latent: float) -> float:
    """The value at a standard normal number."""
    place = 0.5 * math.erfc(-latent / math.sqrt(2)) * (len(quantity.quantiles) - 1)
    low = min(int(place), len(quantity.quantiles) - 2)
    left, right = quantity.quantiles[low], quantity.quantiles[low + 1]
    return left + (place - low) * (right - left)


def _copula(rank_correlation: float) -> float:
    return 2 * math.sin(math.pi / 6 * rank_correlation)


def visit(app: Application, stage: str, seen: Mapping[tuple[str, str], float],
          rng: np.random.Generator) -> Visit:
    """Draw a stage, given what earlier ones were drawn with."""
    table, latent = app.stages[stage], dict[str, float]()
    values = dict[str, float]()
    for key, quantity in table.quantities.items():
        z = float(rng.standard_normal())
        if quantity.follows is not None and quantity.follows in seen:
            rho = _copula(quantity.rank_correlation)
            z = rho * seen[quantity.follows] + math.sqrt(max(1 - rho**2, 0.0)) * z
        latent[key] = z
        values[key] = _at(quantity, z)
    if table.kind != "llm":
        return Visit(stage=stage, kind=table.kind, input_tokens=(), output_tokens=(),
                     time_s=values["time"], latent=latent)
    width = max(round(values["width"]), 1)
    given, answers = [max(round(values["input"]), 1)], [max(round(values["output"]), 1)]
    # Answers side by side: each has lengths of its own.
    for _ in range(width - 1):
        given.append(max(round(_at(table.quantities["input"], rng.standard_normal())), 1))
        answers.append(max(round(_at(table.quantities["output"], rng.standard_normal())), 1))
    return Visit(stage=stage, kind="llm", input_tokens=tuple(given), output_tokens=tuple(answers),
                 time_s=0.0, latent=latent)


def walk(app: Application, rng: np.random.Generator) -> Iterator[Visit]:
    """Draw an application from its first stage to its end."""
    seen, stage = dict[tuple[str, str], float](), app.first
    for _ in range(_LONGEST):
        made = visit(app, stage, seen, rng)
        seen |= {(stage, key): z for key, z in made.latent.items()}
        yield made
        following = app.stages[stage].following
        stage = str(rng.choice(list(following), p=list(following.values())))
        if stage == "end":
            return


def demands(app: Application, stage: str, seen: Mapping[tuple[str, str], float],
            rng: np.random.Generator, count: int = 1000) -> npt.NDArray[np.float64]:
    """Service of walks from a stage to the end, by Monte Carlo, in seconds.

    Parameters
    ----------
    stage : str
        Where they begin.
    seen : mapping
        (stage, quantity) -> standard normal number, of stages that are over: what is known of this
        one application.
    count : int
        Walks.

    Returns
    -------
    ndarray
        Of shape [count].
    """
    from scipy.special import ndtr

    names = list(app.stages)
    ends = len(names)
    place = np.full(count, names.index(stage))
    total = np.zeros(count)
    latents = {key: np.full(count, z) for key, z in seen.items()}

    def values(quantity: Quantity, z: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        levels = np.linspace(0, 1, len(quantity.quantiles))
        return np.interp(ndtr(z), levels, quantity.quantiles)

    for _ in range(_LONGEST):
        if (place == ends).all():
            break
        for number, name in enumerate(names):
            here = np.flatnonzero(place == number)
            if not here.size:
                continue
            table, drawn = app.stages[name], dict[str, npt.NDArray[np.float64]]()
            for key, quantity in table.quantities.items():
                z = rng.standard_normal(here.size)
                if quantity.follows is not None and quantity.follows in latents:
                    rho = _copula(quantity.rank_correlation)
                    z = rho * latents[quantity.follows][here] + math.sqrt(max(1 - rho**2, 0)) * z
                latents.setdefault((name, key), np.zeros(count))[here] = z
                drawn[key] = values(quantity, z)
            if table.kind == "llm":
                one = SERVICE_IN_S * drawn["input"] + SERVICE_OUT_S * drawn["output"]
                width = np.maximum(np.rint(drawn["width"]), 1)
                # The first answer's lengths are those of the stage; the others' have their mean.
                other = sum(rate * float(np.mean(values(
                    table.quantities[key], rng.standard_normal(64)))) for rate, key in (
                        (SERVICE_IN_S, "input"), (SERVICE_OUT_S, "output")))
                total[here] += one + (width - 1) * other
            else:
                total[here] += drawn["time"]
            following = [ends if each == "end" else names.index(each) for each in table.following]
            place[here] = rng.choice(following, size=here.size, p=list(table.following.values()))
    return total

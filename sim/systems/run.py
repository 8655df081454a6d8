"""What a model of a system says, and which systems there are.

A module of :data:`SYSTEMS` has ``run(**options) -> SystemRun``, whose keyword parameters all have
defaults, and may have ``compare(**options) -> dict[str, SystemRun]``: the system and what it is
compared with, by name.
"""

import difflib
import importlib
import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

__all__ = ["SYSTEMS", "Curve", "SystemRun", "compare_system", "options_of", "run_system", "system"]

#: Name, which is that of its paper among the claims, to (module, what it is).
SYSTEMS: dict[str, tuple[str, str]] = {
    "ellm": ("splatforge.sim.systems.ellm",
             "elastic memory for activations and KV cache in LLM serving"),
    "hermes": ("splatforge.sim.systems.hermes",
               "applications of language models scheduled by Gittins' rank"),
    "igtcache": ("splatforge.sim.systems.igtcache",
                 "a cache that finds out how each data set is read"),
    "livevlm": ("splatforge.sim.systems.livevlm",
                "a bounded KV cache for video that streams in"),
    "post": ("splatforge.sim.systems.post",
             "a private GPT that verifies public drafts"),
    "astraea": ("splatforge.sim.systems.astraea",
                "video diffusion that computes some tokens of each step"),
    "parastep": ("splatforge.sim.systems.parastep",
                 "steps of a diffusion on several devices, by reuse of noise"),
}


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One figure: series of points over one abscissa.

    Parameters
    ----------
    title, x, y : str
        Heading; the axes, with their units.
    series : mapping
        Name -> points (x, y).
    """

    title: str
    x: str
    y: str
    series: Mapping[str, tuple[tuple[float, float], ...]]


@dataclass(frozen=True, kw_only=True)
class SystemRun:
    """What a model says.

    Parameters
    ----------
    system : str
        Key in :data:`SYSTEMS`.
    metrics : mapping
        Name, which ends with its unit where it has one, -> value.
    not_covered : tuple of str
        What the model leaves out, a phrase each.
    assumptions : tuple of str
        What was chosen where the paper is silent, and which inputs were used.
    curves : tuple of Curve
        For plots.

    Raises
    ------
    ValueError
        If a metric is not finite, or nothing is said of what is left out.
    """

    system: str
    metrics: Mapping[str, float]
    not_covered: tuple[str, ...]
    assumptions: tuple[str, ...] = ()
    curves: tuple[Curve, ...] = ()

    def __post_init__(self) -> None:
        for name, value in self.metrics.items():
            if not math.isfinite(value):
                raise ValueError(f"{self.system}: {name} must be finite, not {value!r}")
        if not self.not_covered:
            raise ValueError(f"{self.system}: a model must say what it does not cover")


def system(name: str) -> ModuleType:
    """The module of a system.

    Raises
    ------
    ValueError
        If there is none of that name.
    """
    if name not in SYSTEMS:
        near = difflib.get_close_matches(name, SYSTEMS, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"System must be one of {', '.join(SYSTEMS)}, not {name!r}{hint}")
    return importlib.import_module(SYSTEMS[name][0])


def options_of(name: str, verb: str = "run") -> dict[str, Any]:
    """Options that a system takes, with their defaults.

    Raises
    ------
    ValueError
        If there is no such system, or it has no such verb.
    """
    function = getattr(system(name), verb, None)
    if function is None:
        raise ValueError(f"{name} has nothing to {verb}")
    return {each.name: each.default for each in inspect.signature(function).parameters.values()}


def _typed(name: str, key: str, text: object, default: Any) -> object:
    """An option as its default's type has it."""
    if not isinstance(text, str) or isinstance(default, str) or default is None:
        return text
    wanted = type(default)
    try:
        if wanted is bool:
            return {"true": True, "false": False}[text.lower()]
        if wanted is tuple:
            kind = type(default[0])
            return tuple(kind(part) for part in text.split(","))
        return wanted(text)
    except (KeyError, ValueError):
        kinds = {bool: "true or false", int: "a whole number", float: "a number",
                 tuple: "values between commas"}
        raise ValueError(f"{name}: {key} must be {kinds.get(wanted, wanted.__name__)}, "
                         f"not {text!r}") from None


def _checked(name: str, verb: str, options: Mapping[str, object]) -> dict[str, Any]:
    known = options_of(name, verb)
    for key in options:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ValueError(f"{name}: option must be one of {', '.join(known)}, "
                             f"not {key!r}{hint}")
    return {key: _typed(name, key, value, known[key]) for key, value in options.items()}


def run_system(name: str, **options: object) -> SystemRun:
    """Run a system; options that are text become what their defaults are.

    Raises
    ------
    ValueError
        If there is no such system or option, or the model refuses a value.
    """
    return system(name).run(**_checked(name, "run", options))


def compare_system(name: str, **options: object) -> dict[str, SystemRun]:
    """The system and its baselines under the same load, by name.

    Raises
    ------
    ValueError
        As :func:`run_system`; also if the system has no baselines to compare with.
    """
    checked = _checked(name, "compare", options)
    return system(name).compare(**checked)

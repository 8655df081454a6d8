"""Published numbers: what a claim is, and how it is read from the tables beside this file.

A table ``[paper.name]`` of a TOML file is one claim, ``paper.name`` its id. Several files may hold
claims of one paper; ``sources.toml`` says what papers and sources the keys stand for.

=================  ================================================================================
``quantity``       what was measured
``value``          the number as its source has it, or [lowest, highest]
``low``, ``high``  interval that the source gives to a single value
``unit``           ``x``, ``%``, ``FPS``, ``dB``, ``mm^2`` and so on; ``KB`` are 1024 bytes
``tag``            how it was read: a key of :data:`TAGS`
``source``         where: a key of ``sources.toml``
``confidence``     how well it is known, where the tag does not say (R) or says otherwise
``relation``       ``equal`` (default), ``at most`` or ``at least``
``tolerance``      relative, fixed before comparing; 0.10, more needs ``tolerance_reason``
``setting``        ``same`` or ``substitute``; with a substitute ``setting_note`` says which
``identity``       what ours took from the paper itself: that they agree predicts nothing
``missing``        what there is no way to compare without
``call``           the function of ours that computes the number, with ``arguments``
``conflicts``      ids of other claims about the same quantity
``repeats``        id of the claim that has the same measurement in other words, such as the latency
                   behind a speedup: what repeats has a status of its own and is in no count
``note``           what to know
=================  ================================================================================
"""

import difflib
import importlib
import inspect
import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files
from typing import Any

from splatforge.sim.costs import Sourced

__all__ = ["TAGS", "Claim", "ClaimError", "parse_claims", "read_claims", "source_names"]

#: How a number was read, and how well it is known by that.
TAGS: dict[str, tuple[str, str]] = {
    "P": ("the paper's own text, or its authors' artifact", "high"),
    "A": ("abstract or project page", "high"),
    "Q": ("notes that quote the paper by page or section", "good"),
    "H": ("a person's notes in own words", "medium"),
    "L": ("machine-written reviews of the paper", "medium"),
    "I": ("arithmetic from other entries", "check"),
    "R": ("recalled, not read", ""),
}
CONFIDENCES = ("high", "good", "medium", "low", "check")
RELATIONS = ("equal", "at most", "at least")
SETTINGS = ("same", "substitute")

_TEXTS = ("quantity", "unit", "tag", "source", "confidence", "relation", "tolerance_reason",
          "setting", "setting_note", "identity", "missing", "call", "repeats", "note")
_KNOWN = (*_TEXTS, "value", "low", "high", "tolerance", "arguments", "conflicts")
_REQUIRED = ("quantity", "value", "unit", "tag", "source")
_TOLERANCE = 0.10
# Units of papers that the cost tables do not know: unit there, and how many of ours make one.
_UNITS = {"x": ("1", 1.0), "%": ("1", 0.01), "FPS": ("Hz", 1.0), "KB": ("B", 1024.0),
          "dB": ("1", 1.0), "min": ("s", 60.0)}
_LAYERS = ("claims", "sim", "algos", "scenes", "designs")


class ClaimError(ValueError):
    """A claim is malformed or cannot be computed; the message names it and what to do."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One published number.

    Parameters
    ----------
    id, paper, file : str
        ``paper.name``; the paper's key; the table that holds it, without ``.toml``.
    low, high : float
        Published interval, both ends the value where the source gives none.
    value : float or None
        The published value; ``None`` where the source gives an interval alone.
    quantity, unit, tag, source, confidence, relation, tolerance, tolerance_reason, setting, \
    setting_note, identity, missing, call, arguments, conflicts, repeats, note
        As the module docstring says.
    """

    id: str
    paper: str
    file: str
    quantity: str
    value: float | None
    low: float
    high: float
    unit: str
    tag: str
    source: str
    confidence: str
    relation: str = "equal"
    tolerance: float = _TOLERANCE
    tolerance_reason: str = ""
    setting: str = "same"
    setting_note: str = ""
    identity: str = ""
    missing: str = ""
    call: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    conflicts: tuple[str, ...] = ()
    repeats: str = ""
    note: str = ""

    @property
    def published(self) -> str:
        """The number for people, with its unit."""
        sign = {"equal": "", "at most": "<= ", "at least": ">= "}[self.relation]
        ends = (self.low, self.high) if self.value is None else (self.value,)
        number = " to ".join(f"{end:,.0f}" if end.is_integer() else f"{end:.6g}" for end in ends)
        return sign + number + ("" if self.unit == "1" else f" {self.unit}")

    def compute(self) -> Sourced:
        """Ours, in the unit of the claim.

        Raises
        ------
        ClaimError
            If the call is not a function of our library, does not take the arguments, fails, or
            returns another dimension.
        """
        module, _, name = self.call.rpartition(".")
        layer = module.split(".")[1:2]
        if not module.startswith("splatforge.") or layer[0] not in _LAYERS:
            raise ClaimError(f"{self.id}: call must be a function of splatforge."
                             f"{', splatforge.'.join(_LAYERS)}, not {self.call!r}")
        try:
            function = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise ClaimError(f"{self.id}: call must name a function that exists, not "
                             f"{self.call!r}: {error}") from None
        try:
            inspect.signature(function).bind(**self.arguments)
        except TypeError as error:
            raise ClaimError(f"{self.id}: arguments must fit {self.call}: {error}") from None
        unit, factor = _UNITS.get(self.unit, (self.unit, 1.0))
        try:
            ours = function(**self.arguments).to(unit)
            return ours if factor == 1.0 else replace(ours * (1 / factor), unit="1")
        except ValueError as error:
            raise ClaimError(f"{self.id}: {error}") from error


def _one_of(where: str, key: str, text: str, allowed: Iterable[str]) -> None:
    if text not in allowed:
        raise ClaimError(f"{where}.{key} must be {', '.join(allowed)}, not {text!r}")


def _number(where: str, key: str, number: object) -> float:
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        raise ClaimError(f"{where}.{key} must be a finite number, not {number!r}")
    return float(number)


def _interval(where: str, table: Mapping[str, Any]) -> tuple[float | None, float, float]:
    value = table["value"]
    if isinstance(value, list):
        if len(value) != 2 or "low" in table or "high" in table:
            raise ClaimError(f"{where}.value must be a number or [lowest, highest] without low and "
                             f"high, not {value!r}")
        middle, low, high = None, *(_number(where, "value", each) for each in value)
    else:
        middle = _number(where, "value", value)
        low, high = (_number(where, key, table.get(key, value)) for key in ("low", "high"))
    if not low <= (low if middle is None else middle) <= high:
        raise ClaimError(f"{where}: interval must hold the value, not [{low:g}, {high:g}]")
    return middle, low, high


def _parse_claim(where: str, file: str, paper: str, name: str, table: Mapping[str, Any],
                 names: Mapping[str, Mapping[str, str]]) -> Claim:
    where = f"{where}: {paper}.{name}"
    for key in table:
        if key not in _KNOWN:
            near = difflib.get_close_matches(key, _KNOWN, n=1, cutoff=0.0)[0]
            raise ClaimError(f"{where}.{key} is unknown: did you mean {near!r}?")
    for key in _REQUIRED:
        if key not in table:
            raise ClaimError(f"{where}.{key} is missing: every claim states it")
    texts = {key: table[key] for key in _TEXTS if key in table}
    for key, text in texts.items():
        if not isinstance(text, str) or not text.strip():
            raise ClaimError(f"{where}.{key} must be text, not {text!r}")
    _one_of(where, "tag", texts["tag"], TAGS)
    _one_of(where, "relation", texts.setdefault("relation", "equal"), RELATIONS)
    _one_of(where, "setting", texts.setdefault("setting", "same"), SETTINGS)
    for key, known in (("source", "sources"), ("paper", "papers")):
        text = paper if key == "paper" else texts["source"]
        if text not in names[known]:
            near = difflib.get_close_matches(text, names[known], n=1, cutoff=0.0)
            hint = f", such as {near[0]!r}" if near else ""
            raise ClaimError(f"{where}: {key} must be in sources.toml{hint}, not {text!r}")
    texts.setdefault("confidence", TAGS[texts["tag"]][1])
    if not texts["confidence"]:
        raise ClaimError(f"{where}.confidence is missing: what is recalled says how well")
    _one_of(where, "confidence", texts["confidence"], CONFIDENCES)
    if texts["setting"] == "substitute" and "setting_note" not in texts:
        raise ClaimError(f"{where}.setting_note is missing: a substitute says which")
    tolerance = _number(where, "tolerance", table.get("tolerance", _TOLERANCE))
    if tolerance < 0:
        raise ClaimError(f"{where}.tolerance must be non-negative, not {tolerance!r}")
    if tolerance > _TOLERANCE and "tolerance_reason" not in texts:
        raise ClaimError(f"{where}.tolerance_reason is missing: a tolerance above 0.10 needs one")
    arguments, conflicts = table.get("arguments", {}), table.get("conflicts", [])
    if not isinstance(arguments, Mapping) or (arguments and "call" not in texts):
        raise ClaimError(f"{where}.arguments must be a table beside a call, not {arguments!r}")
    if not isinstance(conflicts, list) or not all(isinstance(each, str) for each in conflicts):
        raise ClaimError(f"{where}.conflicts must be a list of ids, not {conflicts!r}")
    value, low, high = _interval(where, table)
    return Claim(id=f"{paper}.{name}", paper=paper, file=file, value=value, low=low, high=high,
                 tolerance=tolerance, arguments=arguments, conflicts=tuple(conflicts), **texts)


def source_names(text: str | None = None) -> dict[str, dict[str, str]]:
    """Papers and sources by key, of ``sources.toml`` or of the text of another."""
    if text is None:
        text = files("splatforge.claims").joinpath("sources.toml").read_text("utf-8")
    tree = tomllib.loads(text)
    return {kind: dict(tree[kind]) for kind in ("papers", "sources")}


def parse_claims(texts: Mapping[str, str], names: Mapping[str, Mapping[str, str]]
                 ) -> tuple[Claim, ...]:
    """Claims of the texts of TOML files.

    Parameters
    ----------
    texts : mapping
        File name without ``.toml`` -> its text.
    names : mapping
        As :func:`source_names` returns.

    Raises
    ------
    ClaimError
        If a file is no TOML, a claim is malformed, has no source, is there twice, or names another
        that is not.
    """
    claims = dict[str, Claim]()
    for file, text in texts.items():
        where = f"{file}.toml"
        try:
            tree = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ClaimError(f"{where}: not TOML: {error}") from None
        for paper, tables in tree.items():
            if not isinstance(tables, Mapping):
                raise ClaimError(f"{where}: {paper} must be tables of claims, not {tables!r}")
            for name, table in tables.items():
                if not isinstance(table, Mapping):
                    raise ClaimError(f"{where}: {paper}.{name} must be a table, not {table!r}")
                claim = _parse_claim(where, file, paper, name, table, names)
                if claim.id in claims:
                    raise ClaimError(f"{where}: {claim.id} must stand in one file, not in "
                                     f"{claims[claim.id].file}.toml as well")
                claims[claim.id] = claim
    for claim in claims.values():
        for other in claim.conflicts:
            if other not in claims:
                raise ClaimError(f"{claim.file}.toml: {claim.id}.conflicts must name claims, "
                                 f"not {other!r}")
        if claim.repeats and (claim.repeats not in claims or claims[claim.repeats].repeats):
            raise ClaimError(f"{claim.file}.toml: {claim.id}.repeats must name a claim that "
                             f"repeats none, not {claim.repeats!r}")
    return tuple(claims.values())


def read_claims() -> tuple[Claim, ...]:
    """All claims of the committed files."""
    folder = files("splatforge.claims")
    texts = {entry.name.removesuffix(".toml"): entry.read_text("utf-8")
             for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
             if entry.name.endswith(".toml") and entry.name != "sources.toml"}
    return parse_claims(texts, source_names())

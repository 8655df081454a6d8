"""What was published of each GPU-side system and what its model says, as the page shows it."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from splatforge.report.records import PublishedClaim, SystemClaims

__all__ = ["by_system", "statuses"]


def by_system(entries: Iterable[Mapping[str, Any]], about: Mapping[str, str]
              ) -> tuple[SystemClaims, ...]:
    """Claims by system, in the order of `about`.

    Parameters
    ----------
    entries : iterable of mapping
        As ``splatforge claims --json`` writes them under ``claims``; those of other papers are
        left out.
    about : mapping
        Key of the system's paper -> what the system is.
    """
    by_paper = {name: list[Mapping[str, Any]]() for name in about}
    for entry in entries:
        if entry["paper"] in by_paper:
            by_paper[entry["paper"]].append(entry)
    return tuple(
        SystemClaims(name=name, about=about[name], paper=claims[0]["title"] or name,
                     claims=tuple(map(_claim, claims)))
        for name, claims in by_paper.items() if claims)


def _claim(entry: Mapping[str, Any]) -> PublishedClaim:
    unit = "" if entry["unit"] == "1" else f" {entry['unit']}"
    sign = {"equal": "", "at most": "≤ ", "at least": "≥ "}[entry["relation"]]
    published, ours, band = entry["published"], entry["ours"], entry["ours_band"]
    number = _span(published) if isinstance(published, list) else _number(published)
    reasons = [entry["reason"], *([f"repeats {entry['repeats']}"] if entry["repeats"] else [])]
    return PublishedClaim(
        id=entry["id"], quantity=entry["quantity"], published=sign + number + unit,
        computed="" if ours is None else _number(ours) + unit,
        band="" if band is None or band[0] == band[1] else _span(band) + unit,
        status=entry["status"], reason="; ".join(filter(None, reasons)),
        setting=entry["setting_note"], source=entry["read_in"] or entry["source"])


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _span(ends: Iterable[float]) -> str:
    return " to ".join(map(_number, ends))


def statuses(shown: Iterable[SystemClaims]) -> Iterator[tuple[str, int]]:
    """Every status that there is, and how many claims have it, in the order of first sight."""
    counts = dict[str, int]()
    for system in shown:
        for claim in system.claims:
            counts[claim.status] = counts.get(claim.status, 0) + 1
    yield from sorted(counts.items(), key=lambda entry: _ORDER.get(entry[0], len(_ORDER)))


#: Best first, as the claims have them.
_ORDER = {name: place for place, name in enumerate((
    "predicted", "one-constant", "consistent", "unconstrained", "not comparable",
    "not reproduced", "no model yet"))}

"""All claims with what ours says, beside the statuses that were committed."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from splatforge.claims.claim import Claim, ClaimError, read_claims, source_names
from splatforge.claims.status import STATUSES, band_width, status
from splatforge.scenes.atomic_file import atomic_file
from splatforge.sim.costs import Sourced

__all__ = ["Row", "accept", "committed", "evaluate", "record", "worse"]

#: Statuses that a change may not make worse.
COMMITTED = Path(str(files("splatforge.claims"))) / "committed.json"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A claim and what became of it.

    Parameters
    ----------
    claim : Claim
        The published number.
    ours : Sourced or None
        What its call gave, in the claim's unit.
    status, reason : str
        As :func:`splatforge.claims.status.status` says.
    """

    claim: Claim
    ours: Sourced | None
    status: str
    reason: str

    @property
    def ratio(self) -> float | None:
        """Ours over the published value; over the nearer end of an interval, 1 inside it."""
        if self.ours is None:
            return None
        value, claim = self.ours.value, self.claim
        target = claim.value
        if target is None:
            target = min(max(value, claim.low), claim.high)
        return value / target if target else None


def evaluate(papers: Sequence[str] = (), *, claims: Iterable[Claim] | None = None,
             progress: Callable[[int, int], None] | None = None) -> tuple[Row, ...]:
    """Compute every claim, or those of some papers.

    Parameters
    ----------
    papers : sequence of str
        Keys of papers, or names of the files that hold claims, such as ``gpu``; empty for all.
    claims : iterable of Claim, optional
        The committed ones by default.
    progress : callable, optional
        Called with (done, total).

    Raises
    ------
    ClaimError
        If a paper is unknown or a call fails.
    """
    known = tuple(read_claims() if claims is None else claims)
    names = {name for claim in known for name in (claim.paper, claim.file)}
    for paper in papers:
        if paper not in names:
            raise ClaimError(f"Paper must be one of {', '.join(sorted(names))}, not {paper!r}")
    chosen = [claim for claim in known
              if not papers or claim.paper in papers or claim.file in papers]
    rows = list[Row]()
    for number, claim in enumerate(chosen):
        ours = claim.compute() if claim.call else None
        rows.append(Row(claim=claim, ours=ours, **dict(zip(
            ("status", "reason"), status(claim, ours), strict=True))))
        if progress is not None:
            progress(number + 1, len(chosen))
    return tuple(rows)


def record(rows: Iterable[Row]) -> dict[str, Any]:
    """The rows for ``--json``: ``claims``, and ``counts`` of every status without what repeats."""
    rows = tuple(rows)
    names = source_names()
    entries = []
    for row in rows:
        claim, ours = row.claim, row.ours
        entries.append({
            "id": claim.id, "paper": claim.paper, "title": names["papers"].get(claim.paper),
            "quantity": claim.quantity, "unit": claim.unit, "relation": claim.relation,
            "published": claim.value if claim.value is not None else [claim.low, claim.high],
            "published_band": [claim.low, claim.high],
            "ours": None if ours is None else ours.value,
            "ours_band": None if ours is None else [ours.low, ours.high],
            "ours_scatter": ours and ours.scatter and list(ours.scatter),
            "ours_source": ours and ours.source,
            "ratio": row.ratio, "status": row.status, "reason": row.reason,
            "band_width": None if ours is None else band_width(claim, ours),
            "tolerance": claim.tolerance, "tolerance_reason": claim.tolerance_reason,
            "setting": claim.setting, "setting_note": claim.setting_note,
            "missing": claim.missing, "identity": claim.identity, "tag": claim.tag,
            "source": claim.source,
            "read_in": names["sources"].get(claim.source), "confidence": claim.confidence,
            "conflicts": list(claim.conflicts), "repeats": claim.repeats or None,
            "note": claim.note,
            "call": claim.call or None, "arguments": dict(claim.arguments),
            "calibrated_on": [] if ours is None else sorted(ours.points),
        })
    return {"claims": entries,
            "counts": {name: sum(row.status == name and not row.claim.repeats for row in rows)
                       for name in STATUSES}}


def committed(path: Path = COMMITTED) -> dict[str, str]:
    """The committed status of every claim.

    Raises
    ------
    ClaimError
        If the file is not a JSON object of ids and statuses.
    """
    try:
        statuses = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ClaimError(f"{path}: not JSON: {error}") from None
    if not isinstance(statuses, dict):
        raise ClaimError(f"{path}: must be an object of ids and statuses, not {statuses!r}")
    for name, each in statuses.items():
        if each not in STATUSES:
            raise ClaimError(f"{path}: {name} must be one of {', '.join(STATUSES)}, not {each!r}")
    return statuses


def worse(rows: Iterable[Row], statuses: Mapping[str, str], *, whole: bool = True) -> list[str]:
    """What is worse than committed, a line each: a status, a claim that went, one not committed.

    Parameters
    ----------
    rows : iterable of Row
        What :func:`evaluate` gave.
    statuses : mapping
        What :func:`committed` gave.
    whole : bool
        Whether `rows` are all claims, so that what is not among them has gone.
    """
    rows = tuple(rows)
    lines = list[str]()
    for row in rows:
        before = statuses.get(row.claim.id)
        if before is None:
            lines.append(f"{row.claim.id} is {row.status} and not committed: accept it")
        elif STATUSES.index(row.status) > STATUSES.index(before):
            lines.append(f"{row.claim.id} is {row.status} ({row.reason}), was {before}")
    if whole:
        there = {row.claim.id for row in rows}
        lines += [f"{name} is gone, was {before}" for name, before in statuses.items()
                  if name not in there]
    return lines


def accept(rows: Iterable[Row], path: Path = COMMITTED) -> None:
    """Commit the statuses of all claims, sorted by id."""
    statuses = {row.claim.id: row.status for row in rows}
    with atomic_file(path) as file:
        file.write((json.dumps(statuses, indent=1, sort_keys=True) + "\n").encode())

"""What the calls of the claims on the seven GPU-side systems gave when they were last accepted.

They take a minute or more, so that a page that shows them reads them here; a test computes all of
them again. Values are stored, statuses are not: those follow from the values as ever.
"""

import json
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

from splatforge.claims.claim import ClaimError, read_claims
from splatforge.claims.ledger import Row
from splatforge.claims.status import status
from splatforge.scenes.atomic_file import atomic_file
from splatforge.sim.costs import Sourced
from splatforge.sim.systems.run import SYSTEMS

__all__ = ["keep", "kept"]

COMPUTED = Path(str(files("splatforge.claims"))) / "computed.json"


def keep(rows: Iterable[Row], path: Path = COMPUTED) -> None:
    """Write what was computed for the seven systems; other rows are left out."""
    values = {
        row.claim.id: {
            "value": row.ours.value, "unit": row.ours.unit, "low": row.ours.low,
            "high": row.ours.high, "scatter": row.ours.scatter and list(row.ours.scatter),
            "source": row.ours.source, "points": sorted(row.ours.points)}
        for row in rows if row.ours is not None and row.claim.paper in SYSTEMS}
    with atomic_file(path) as file:
        file.write((json.dumps(values, indent=1, sort_keys=True) + "\n").encode())


def kept(path: Path = COMPUTED) -> tuple[Row, ...]:
    """Every claim on the seven systems with what was computed for it.

    Raises
    ------
    ClaimError
        If the file holds no such values, or not one for every claim that has a call.
    """
    try:
        values = json.loads(path.read_text("utf-8"))
        ours = {name: Sourced(
            value["value"], value["unit"], value["source"], value["low"], value["high"],
            frozenset(value["points"]), value["scatter"] and tuple(value["scatter"]))
            for name, value in values.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ClaimError(f"{path}: must hold values of claims: {error!r}; "
                         "`splatforge claims --accept` writes it") from None
    rows = list[Row]()
    for claim in read_claims():
        if claim.paper not in SYSTEMS:
            continue
        if (claim.id in ours) != bool(claim.call):
            raise ClaimError(f"{path}: {claim.id} has {'no' if claim.call else 'a'} value there: "
                             "run `splatforge claims --accept`")
        value = ours.get(claim.id)
        said, reason = status(claim, value)
        rows.append(Row(claim=claim, ours=value, status=said, reason=reason))
    return tuple(rows)

"""How a number of ours stands to a published one: computed, never typed."""

import math

from splatforge.claims.claim import Claim
from splatforge.sim.costs import Sourced, two_digits

__all__ = ["STATUSES", "band_width", "status"]

#: Best first.
STATUSES = ("predicted", "one-constant", "consistent", "unconstrained", "not comparable",
            "not reproduced", "no model yet")

_WIDEST = 2.0


def band_width(claim: Claim, ours: Sourced) -> float:
    """Ratio of the ends of our band or of the published interval, the wider; at least 1.

    A share of a whole is as uncertain as what is left of the whole, where that is more: that a
    saving lies between 50 and 99 % says of what remains no more than a factor of fifty.
    """
    def ratio(low: float, high: float) -> float:
        return 1.0 if low == high else high / low if low > 0 else math.inf
    widths = [ratio(ours.low, ours.high)]
    if claim.unit == "%" and ours.high <= 100:
        widths.append(ratio(100 - ours.high, 100 - ours.low))
    if claim.relation == "equal":
        ends = sorted((abs(claim.low), abs(claim.high)))
        widths.append(ratio(*ends) if claim.low * claim.high > 0 else
                      ratio(0.0, 1.0) if claim.low != claim.high else 1.0)
    return max(widths)


def _meets(claim: Claim, low: float, high: float, tolerance: float = 0.0) -> bool:
    """Whether [low, high] meets the published interval, which a tolerance widens.

    The tolerance of a share is one of what it leaves of the whole, where that is less: 99 % with a
    tolerance of a tenth are 98.9 to 99.1 %, as 1 % left are 0.9 to 1.1 %.
    """
    share = claim.unit == "%" and 0 <= claim.low and claim.high <= 100

    def slack(end: float) -> float:
        return tolerance * (min(end, 100 - end) if share else abs(end))
    bottom, top = claim.low - slack(claim.low), claim.high + slack(claim.high)
    if claim.relation == "at most":
        bottom = -math.inf
    elif claim.relation == "at least":
        top = math.inf
    return low <= top and high >= bottom


def status(claim: Claim, ours: Sourced | None) -> tuple[str, str]:
    """Status of a claim, and why.

    Parameters
    ----------
    claim : Claim
        The published number.
    ours : Sourced or None
        What its call gave, in the unit of the claim; ``None`` without a call.

    Returns
    -------
    status : str
        One of :data:`STATUSES`:

        * ``no model yet``: nothing of ours computes it;
        * ``not comparable``: something is missing (:attr:`Claim.missing`), or a constant behind
          ours was calibrated on this very point, or is this very figure (:attr:`Claim.identity`);
        * ``predicted``: same setting, our value within the tolerance, bands at most 2x wide, no
          constant behind it calibrated on a point of this paper;
        * ``one-constant``: the same with exactly one such point;
        * ``consistent``: the published value lies in our band, which the intervals of the sources
          fix before any comparison (a published interval meets it), both at most 2x wide; or our
          value is within the tolerance and the statuses above do not apply. A substitute setting
          gets no better than this: that numbers of two scenes agree predicts nothing;
        * ``unconstrained``: the same with a wider band;
        * ``not reproduced``: anything else.
    reason : str
        One phrase.
    """
    if claim.missing:
        return "not comparable", claim.missing
    if ours is None:
        return "no model yet", ""
    if claim.id in ours.points:
        return "not comparable", "a constant of ours was calibrated on this point"
    width = band_width(claim, ours)
    near = _meets(claim, ours.value, ours.value, claim.tolerance)
    if claim.identity and near:
        return "not comparable", f"an identity: {claim.identity}"
    if near and width <= _WIDEST and claim.setting == "same":
        fitted = sorted(point for point in ours.points if point.split(".")[0] == claim.paper)
        if not fitted:
            return "predicted", "nothing fitted to this paper"
        if len(fitted) == 1:
            return "one-constant", f"calibrated on {fitted[0]}"
    if not (near or _meets(claim, ours.low, ours.high)):
        on = ", on a substitute" if claim.setting == "substitute" else ""
        return "not reproduced", f"outside our band{on}"
    if width <= _WIDEST:
        return "consistent", f"band {two_digits(width)}x wide"
    return "unconstrained", f"band {two_digits(width)}x wide"

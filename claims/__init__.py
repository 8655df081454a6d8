"""Every published number with its source, and what our models say beside it."""

from splatforge.claims.claim import Claim, ClaimError, read_claims
from splatforge.claims.computed import keep, kept
from splatforge.claims.ledger import Row, accept, committed, evaluate, record, worse
from splatforge.claims.status import STATUSES, status

__all__ = ["STATUSES", "Claim", "ClaimError", "Row", "accept", "committed", "evaluate",
           "keep", "kept", "read_claims", "record", "status", "worse"]

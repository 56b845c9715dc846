"""Stored claims judged once more: the newest rule on the cells that they have."""

import dataclasses

from procpre_interp.claims.claim import Claim
from procpre_interp.claims.judge import judge
from procpre_interp.claims.judged import JudgedClaim, StoredClaim
from procpre_interp.claims.looks import past

KEPT = ("task", "limit", "threshold", "protocol", "cost", "tables", "seeds", "version")
"""What a rule does not change."""


def judged_again(claim: Claim, stored: StoredClaim) -> JudgedClaim:
    """The verdict of the newest rule; the one until now is kept as an earlier one.

    Raises `ValueError` where the claim was declared anew since, so that its cells are of another version, and where
    replicates that were planned are missing: a verdict on the others would depend on which runs failed.
    """
    if stored.primary.missing:
        raise ValueError(f"{claim.name}: {stored.primary.missing}; --run computes the others and judges the claim")
    if stored.version != claim.version:
        raise ValueError(
            f"{claim.name} is declared anew, as version {claim.version}, and its cells are of version "
            f"{stored.version}: --run computes those that it needs"
        )
    judged = judge(claim, stored.cells, quick=stored.quick, task=stored.task)
    kept = {name: getattr(stored, name) for name in KEPT}
    return dataclasses.replace(judged, **kept, earlier=past(stored, stored.protocol, stored.version).earlier)

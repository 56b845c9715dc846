"""Version 1 of the rule: bootstrap intervals and sign-flip tests of a number of replicates that was fixed in advance.

Claims that were judged by it keep their verdicts, and this is how to come to them again from their cells. It is not
used for new ones: over replicates with two modes the intervals cover less than they say (45 % at n = 6 where a tenth
breaks through), and a look before the last replicate was never allowed for.

- `supported`: the 95 % interval of the contrast over replicates lies wholly on the predicted side of the margin, and
  the sign-flip test against the margin has p of at most 0.05;
- `refuted`: likewise on the other side;
- `undecided`: neither, or the run was `--quick`, or a planned run of the contrast diverged, failed or is not there, or
  the replicates are so few that no result could have been significant (`smallest_p`).

Replicates that differ by no more than a test set resolves (`resampling.ALIKE`) show no spread, and a bootstrap of them
would be certain: they are judged by what as many replicates can miss (`resampling.constant_bounds`). That something is
not enough is predicted as `within` the margin and tested for equivalence (two one-sided tests, 90 % interval).
"""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from procpre_interp.claims.claim import Contrast, Verdict
from procpre_interp.claims.compared import contrast_limits, contrast_values, missing_replicates
from procpre_interp.claims.judged import ContrastResult
from procpre_interp.claims.measures import Measure
from procpre_interp.claims.unjudged import explained, unjudged
from procpre_interp.stats.confidence_sequence import Limits
from procpre_interp.stats.decisions import EquivalenceDecision
from procpre_interp.stats.power import detectable_effect
from procpre_interp.stats.resampling import TWO_TESTS_LEVEL, IntervalMethod, are_alike, constant_bounds
from procpre_interp.stats.summary import (
    ALPHA,
    LEVEL,
    Interval,
    bootstrap_interval,
    decide,
    equivalence_test,
    sign_flip_test,
    unseen_share,
)


def judge_contrast(
    contrast: Contrast,
    table: pd.DataFrame,
    *,
    planned: pd.DataFrame | None = None,
    quick: bool = False,
    about: Measure | None = None,
    limits: Mapping[str, Limits] | None = None,
) -> ContrastResult:
    """One contrast, not adjusted for others. `limits` changes nothing: this rule has no use for them."""
    values = contrast_values(contrast, table)
    n, margin = len(values), float(contrast.margin)
    missing = missing_replicates(contrast, table, planned, n)
    range_of = contrast_limits(contrast, table)  # version 1 knew no others
    reach = math.inf if range_of is None else max(-range_of.low, range_of.high)
    # Without a known range the margin says which differences are small.
    alike = are_alike(values, reach if math.isfinite(reach) else margin)
    interval = contrast_interval(values, reach if alike else None)
    row = unjudged(contrast, interval, IntervalMethod.BOOTSTRAP, missing=missing, about=about)
    if contrast.predicted is None:
        return row
    inside = outside = False
    if n:
        row, inside, outside = _tested(row, values, reach if alike else None)
    if quick:
        reason = "quick: a smoke test, never evidence"
    elif missing:
        reason = missing
    elif row.smallest_p > ALPHA:
        reason = str(decide(1.0, row.smallest_p, n=n))
    elif alike and not (inside or outside):
        unseen = f"an outcome that occurs in up to {unseen_share(n):.0%} of replicates can go unseen"
        reason = f"all replicates are alike, and with n = {n} {unseen}"
    else:
        verdict = Verdict.SUPPORTED if inside else Verdict.REFUTED if outside else Verdict.UNDECIDED
        return explained(row, contrast, verdict)
    return replace(row, verdict=Verdict.UNDECIDED, reason=reason)


def _tested(row: ContrastResult, values: np.ndarray, alike_within: float | None) -> tuple[ContrastResult, bool, bool]:
    """The contrast with p, its smallest, bounds and detectable distance; and whether all lies on the predicted side, or
    on the other.

    Either takes both: an interval wholly on that side, and p of at most 0.05. For `within` the predicted side has the
    two one-sided tests; the other one the 95 % interval and the two-sided test against the nearer margin.
    """
    margin, n = row.margin, len(values)
    row = replace(row, detectable=detectable_effect(n, float(np.std(values, ddof=1)) if n > 1 else math.nan))
    if row.predicted == "within":
        test = equivalence_test(values, margin, bounds=contrast_interval(values, alike_within, level=TWO_TESTS_LEVEL))
        p = max(sign_flip_test(inside, one_sided=True).p for inside in (values + margin, margin - values))
        beyond = sign_flip_test(values - math.copysign(margin, test.estimate))
        outside = (row.low >= margin or row.high <= -margin) and beyond.p <= ALPHA
        if outside:  # so the 95 % interval, which the row has, and this test are what says it
            row = replace(row, p=beyond.p, smallest_p=beyond.smallest_p)
        else:
            row = replace(row, low=test.low, high=test.high, level=TWO_TESTS_LEVEL, p=p, smallest_p=test.smallest_p)
        return row, test.decision == EquivalenceDecision.EQUIVALENT and p <= ALPHA, outside
    test = sign_flip_test(values - margin)
    sign = 1 if row.predicted == "above" else -1
    near, far = sorted((sign * (row.low - margin), sign * (row.high - margin)))
    decided = test.p <= ALPHA
    return replace(row, p=test.p, smallest_p=test.smallest_p), near > 0 and decided, far <= 0 and decided


def contrast_interval(values: np.ndarray, alike_within: float | None, *, level: float = LEVEL) -> Interval:
    """The bootstrap interval of a contrast's mean, or, of replicates that are alike, what its range leaves open."""
    if alike_within is None:
        return bootstrap_interval(values, level=level)
    estimate, n = float(values.mean()), len(values)
    low, high = constant_bounds(estimate, n, alike_within, level=level)
    return Interval(estimate=estimate, low=low, high=high, n=n)

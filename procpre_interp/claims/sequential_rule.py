"""Version 2 of the rule: confidence sequences, which hold whenever one looks, so that replicates may be added.

- `supported`: the 95 % sequence of the contrast over replicates, in the order of their seeds, lies wholly on the
  predicted side of the margin (for `within`: the 90 % one, which is two one-sided tests at 5 %);
- `refuted`: the 95 % sequence lies wholly on the other side;
- `undecided`: neither, or the run was `--quick`, or a planned run of the contrast diverged, failed or is not there, or
  the margin is beyond the range of the outcome.

Outcomes with a known range (accuracies, shares, times up to the limit, what a claim gives limits for) have the betting
sequence, which holds for any distribution; others that of a t mixture, which wants nearly normal ones
(`stats.t_sequence`). p is valid at every n, and at most 0.05 just where the sequence has left the margin behind.

Whatever the sequence says, nothing is decided with fewer than `FEWEST` replicates, and nothing is called `within` with
fewer than `FEWEST_WITHIN`. Beside a contrast of accuracies stand the counts of breakthroughs with exact bounds and,
for a pair of conditions, Boschloo's exact test: they decide nothing, and show what a verdict rests on.
"""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from procpre_interp.claims.claim import Contrast, Verdict
from procpre_interp.claims.compared import compared_values, contrast_limits, contrast_values, missing_replicates
from procpre_interp.claims.judged import ContrastResult
from procpre_interp.claims.measures import Measure
from procpre_interp.claims.unjudged import explained, unjudged
from procpre_interp.stats.breakthroughs import boschloo_p, count_breakthroughs
from procpre_interp.stats.confidence_sequence import (
    FEWEST,
    FEWEST_WITHIN,
    Limits,
    method_for,
    sequence_interval,
    sequential_test,
)
from procpre_interp.stats.power import detectable_in_sequence
from procpre_interp.stats.resampling import TWO_TESTS_LEVEL, are_alike
from procpre_interp.stats.summary import ALPHA, decide


def judge_contrast(
    contrast: Contrast,
    table: pd.DataFrame,
    *,
    planned: pd.DataFrame | None = None,
    quick: bool = False,
    about: Measure | None = None,
    limits: Mapping[str, Limits] | None = None,
) -> ContrastResult:
    """One contrast, not adjusted for others. `limits`: those of further measures (`Claim.limits`)."""
    values = contrast_values(contrast, table)
    missing = missing_replicates(contrast, table, planned, len(values))
    range_of = contrast_limits(contrast, table, limits)
    # Replicates without any spread say nothing of one whose range is not known.
    alike = range_of is None and are_alike(values, float(contrast.margin))
    interval = sequence_interval(values, range_of)
    if alike:
        interval = replace(interval, low=math.nan, high=math.nan)
    row = unjudged(contrast, interval, method_for(range_of), missing=missing, about=about)
    if range_of is not None:
        row = replace(row, range_low=float(range_of.low), range_high=float(range_of.high))
    row = _with_breakthroughs(row, contrast, table)
    if contrast.predicted is None:
        return row
    inside = outside = False
    beyond = _beyond_range(row)
    if len(values) and not alike and not beyond:
        row, inside, outside = _tested(row, values, range_of)
    reason = "quick: a smoke test, never evidence" if quick else missing or beyond or _too_few(row, inside=inside)
    if not reason and alike:
        reason = "all replicates are alike, and without a range of the measure that says nothing of others"
    elif not reason and row.low > row.high:
        reason = "no mean is left in the interval: the replicates do not have the same one"
    if reason:
        return replace(row, verdict=Verdict.UNDECIDED, reason=reason)
    verdict = Verdict.SUPPORTED if inside else Verdict.REFUTED if outside else Verdict.UNDECIDED
    return explained(row, contrast, verdict)


def _tested(row: ContrastResult, values: np.ndarray, limits: Limits | None) -> tuple[ContrastResult, bool, bool]:
    """The contrast with p, its smallest, bounds and, where it is taken to be normal and has one margin, its detectable
    distance; and whether all lies on the predicted side, or on the other."""
    margin, n = row.margin, len(values)
    if row.predicted == "within":
        outside = row.low >= margin or row.high <= -margin
        if outside:  # so the 95 % interval, which the row has, and this test are what says it
            beyond = sequential_test(values, math.copysign(margin, row.estimate), limits)
            return replace(row, p=beyond.p, smallest_p=beyond.smallest_p), False, True
        interval = sequence_interval(values, limits, level=TWO_TESTS_LEVEL)
        p, smallest = (_within_p(each, margin, limits) for each in (values, np.zeros(n)))
        row = replace(row, low=interval.low, high=interval.high, level=TWO_TESTS_LEVEL, p=p, smallest_p=smallest)
        return row, -margin < row.low and row.high < margin, False
    if limits is None and n > 1:
        row = replace(row, detectable=detectable_in_sequence(n, float(np.std(values, ddof=1))))
    test = sequential_test(values, margin, limits)
    sign = 1 if row.predicted == "above" else -1
    near, far = sorted((sign * (row.low - margin), sign * (row.high - margin)))
    return replace(row, p=test.p, smallest_p=test.smallest_p), near > 0, far <= 0


def _within_p(values: np.ndarray, margin: float, limits: Limits | None) -> float:
    """The larger p of the two one-sided tests. No values give less than those that are all 0, halfway."""
    return max(sequential_test(values, -margin, limits).above, sequential_test(values, margin, limits).below)


def _beyond_range(row: ContrastResult) -> str:
    """Why no replicates could tell its values from the margin; "" if some can."""
    margins = (-row.margin, row.margin) if row.predicted == "within" else (row.margin,)
    limits = row.limits
    if limits is None or all(limits.low < margin < limits.high for margin in margins):
        return ""
    sign = "+-" if row.predicted == "within" else ""
    return f"its margin, {sign}{row.margin:.4g}, is not within its range, {limits.low:.4g} to {limits.high:.4g}"


def _too_few(row: ContrastResult, *, inside: bool) -> str:
    """Why so few replicates decide nothing; "" if they may."""
    if row.n < FEWEST:
        return f"n = {row.n}; no verdict rests on fewer than {FEWEST} replicates"
    if not math.isnan(row.smallest_p) and row.smallest_p > ALPHA:
        return str(decide(1.0, row.smallest_p, n=row.n))
    if row.predicted == "within" and inside and row.n < FEWEST_WITHIN:
        return f"n = {row.n}; nothing is called as good as zero with fewer than {FEWEST_WITHIN} replicates"
    return ""


def _with_breakthroughs(row: ContrastResult, contrast: Contrast, table: pd.DataFrame) -> ContrastResult:
    """The contrast with the breakthroughs of its conditions in the replicates that it compares."""
    replicates = compared_values(contrast, table).index
    if contrast.measure != "accuracy" or "breakthrough_step" not in table or not len(replicates):
        return row
    rows = table.loc[table["replicate"].isin(list(replicates))]
    counts = [
        count_breakthroughs(name, rows.loc[rows["condition"] == name, "breakthrough_step"].notna().to_numpy())
        for name in contrast.weights
    ]
    p = boschloo_p(counts[0], counts[1]) if sorted(contrast.weights.values()) == [-1, 1] else math.nan
    return replace(row, breakthroughs=tuple(counts), breakthrough_p=p)

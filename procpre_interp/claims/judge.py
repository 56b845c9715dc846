"""Claims: what was predicted, what was measured, and the verdict that follows. Tables in, verdicts out; no torch.

A claim names one primary contrast and its margin before the runs. Its verdict is computed:

- `supported`: the 95 % interval of the contrast over replicates lies wholly on the predicted side of the margin, and
  the sign-flip test against the margin has p of at most 0.05;
- `refuted`: likewise on the other side;
- `undecided`: neither, or the run was `--quick`, or a planned run of the contrast diverged, failed or is not there, or
  the replicates are so few that no result could have been significant (`smallest_p`).

Replicates that differ by no more than a test set resolves (`resampling.ALIKE`) show no spread, and a bootstrap of them
would be certain: they are judged by what as many replicates can miss (`resampling.constant_bounds`).

That something is *not* enough is predicted as `within` the margin and tested for equivalence. Not significant is never
support. With few replicates the intervals cover less than 95 % (`stats.interval_note`), and so do the verdicts; and
an outcome that occurs in one replicate in three can go unseen (`stats.unseen_share`).
"""

import math
from dataclasses import asdict, replace

import numpy as np
import pandas as pd

from procpre_interp.claims.claim import Claim, Contrast, Verdict, formula
from procpre_interp.claims.compared import contrast_reach, contrast_values, missing_replicates, trained
from procpre_interp.claims.judged import ContrastResult, JudgedClaim, LogRank
from procpre_interp.claims.measures import Measure, measure_of
from procpre_interp.core.environment import now
from procpre_interp.stats.decisions import Decision, EquivalenceDecision, decision_text
from procpre_interp.stats.power import detectable_effect
from procpre_interp.stats.resampling import are_alike, constant_bounds
from procpre_interp.stats.summary import (
    ALPHA,
    LEVEL,
    Interval,
    bootstrap_interval,
    decide,
    decide_tests,
    effect_sizes,
    equivalence_test,
    permuted_log_rank,
    replicate_matrix,
    sign_flip_test,
    summarise_conditions,
    unseen_share,
)


def judge(
    claim: Claim, table: pd.DataFrame, *, planned: pd.DataFrame | None = None, quick: bool = False
) -> JudgedClaim:
    """The claim with its verdict and every number behind it.

    `table` has one row per condition and replicate, as `sweep.results` gives it; `planned` the cells that there should
    be (condition, replicate): with one of a contrast's missing, its verdict is undecided. Default: those of the table.
    """
    contrasts = judge_contrasts(claim, table, planned=planned, quick=quick)
    there = trained(table.loc[table["status"] != "failed"])
    compared = {"none"} < set(there["condition"])
    first = contrasts[0]
    assert first.verdict is not None  # `Claim` refuses a primary contrast that predicts nothing
    return JudgedClaim(
        name=claim.name,
        claim=claim.claim,
        prediction=claim.prediction,
        margin=claim.margin,
        refuted_by=claim.refuted_by,
        page=claim.page,
        verdict=first.verdict,
        reason=first.reason,
        quick=quick,
        created=now(),
        seeds=tuple(sorted(int(seed) for seed in (table if planned is None else planned)["replicate"].unique())),
        contrasts=contrasts,
        log_rank=log_rank(claim.primary, there),
        conditions=summarise_conditions(there),
        effects=effect_sizes(there) if compared else pd.DataFrame(),
    )


def judge_contrasts(
    claim: Claim, table: pd.DataFrame, *, planned: pd.DataFrame | None = None, quick: bool = False
) -> tuple[ContrastResult, ...]:
    """All contrasts, the primary one first.

    p is that of the two-sided sign-flip test against the margin; for `within` that of the larger of the two one-sided
    tests, and the bounds are those of the 90 % interval that belongs to them. A secondary contrast is decided only
    where its p, adjusted for the number of secondary ones (Holm), is at most 0.05. `detectable` is the distance from
    the margin that so many replicates, spread like these, would have found in 80 % of studies.
    """
    rows = [
        judge_contrast(each, table, planned=planned, quick=quick, about=claim.measure_of(each))
        for each in claim.contrasts
    ]
    rows[0] = replace(rows[0], primary=True)
    tested = [index for index, row in enumerate(rows) if not math.isnan(row.p)]
    if tested:
        columns = ["p", "smallest_p", "n", "primary"]
        tests = pd.DataFrame([[getattr(rows[i], column) for column in columns] for i in tested], columns=columns)
        for index, test in zip(tested, decide_tests(tests).to_dict("records")):
            adjusted = replace(
                rows[index],
                p_holm=float(test["p_holm"]),
                smallest_p_holm=float(test["smallest_p_holm"]),
                decision=Decision(test["decision"]),
                undecided_reason=test["undecided_reason"],
            )
            significant = adjusted.decision == Decision.SIGNIFICANT
            rows[index] = adjusted if significant or not adjusted.is_decided else _left_open(adjusted)
    return tuple(rows)


def _left_open(row: ContrastResult) -> ContrastResult:
    """A contrast that its interval would decide, and its adjusted test does not."""
    untestable = row.decision == Decision.UNDECIDED
    reason = decision_text(row.decision, row.undecided_reason) if untestable else f"adjusted p = {row.p_holm:.3g}"
    return replace(row, verdict=Verdict.UNDECIDED, reason=reason)


def judge_contrast(
    contrast: Contrast,
    table: pd.DataFrame,
    *,
    planned: pd.DataFrame | None = None,
    quick: bool = False,
    about: Measure | None = None,
) -> ContrastResult:
    """One contrast, not adjusted for others. `about`: how people read its measure (default: `measure_of`)."""
    values = contrast_values(contrast, table)
    n, margin = len(values), float(contrast.margin)
    missing = missing_replicates(contrast, table, planned, n)
    reach = contrast_reach(contrast, table)
    # Without a known range the margin says which differences are small.
    alike = are_alike(values, reach if math.isfinite(reach) else margin)
    interval = contrast_interval(values, reach if alike else None)
    row = ContrastResult(
        contrast=contrast.name,
        formula=formula(contrast),
        weights=dict(contrast.weights),
        measure=contrast.measure,
        about=about or measure_of(contrast.measure),
        predicted=contrast.predicted,
        margin=margin,
        estimate=interval.estimate,
        low=interval.low,
        high=interval.high,
        n=interval.n,
        missing=missing,
        p=math.nan,
        smallest_p=math.nan,
        detectable=math.nan,
        verdict=None,
        reason="not predicted",
    )
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
        return replace(row, verdict=verdict, reason=explain(verdict, contrast))
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
        test = equivalence_test(values, margin, bounds=contrast_interval(values, alike_within, level=1 - 2 * ALPHA))
        p = max(sign_flip_test(inside, one_sided=True).p for inside in (values + margin, margin - values))
        beyond = sign_flip_test(values - math.copysign(margin, test.estimate))
        outside = (row.low >= margin or row.high <= -margin) and beyond.p <= ALPHA
        if outside:  # so the 95 % interval, which the row has, and this test are what says it
            row = replace(row, p=beyond.p, smallest_p=beyond.smallest_p)
        else:
            row = replace(row, low=test.low, high=test.high, p=p, smallest_p=test.smallest_p)
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


def log_rank(contrast: Contrast, table: pd.DataFrame) -> LogRank | None:
    """The permuted log-rank test of time to breakthrough where the contrast is one condition against another."""
    if sorted(contrast.weights.values()) != [-1, 1]:
        return None
    first, second = sorted(contrast.weights, key=lambda name: -contrast.weights[name])
    times, limits = (replicate_matrix(table, value) for value in ("breakthrough_step", "limit"))
    if not {first, second} <= set(limits):
        return None
    pairs = limits[[first, second]].dropna().index
    if pairs.empty:
        return None
    arrays = [frame.loc[pairs, name].to_numpy(dtype=float) for name in (first, second) for frame in (times, limits)]
    return LogRank(sooner=first, than=second, **asdict(permuted_log_rank(*arrays)))


def explain(verdict: Verdict, contrast: Contrast) -> str:
    """Why, in words."""
    assert contrast.predicted is not None  # what is not predicted has no verdict
    level = "90 %" if contrast.predicted == "within" else "95 %"
    side = {
        "above": f"above {contrast.margin:+.3g}",
        "below": f"below {contrast.margin:+.3g}",
        "within": f"within +-{contrast.margin:.3g}",
    }[contrast.predicted]
    return {
        Verdict.SUPPORTED: f"the {level} interval lies wholly {side}",
        Verdict.REFUTED: f"the {level} interval lies wholly outside of what was predicted ({side})",
        Verdict.UNDECIDED: f"the {level} interval crosses the margin (predicted: {side})",
    }[verdict]

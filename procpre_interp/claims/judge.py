"""Claims: what was predicted, what was measured, and the verdict that follows. Tables in, verdicts out; no torch.

A claim names one primary contrast and its margin before the runs. Its verdict is computed by a rule, whose version is
kept with it: `sequential_rule` for what is judged now, `bootstrap_rule` for what was judged before there was another.
That something is *not* enough is predicted as `within` the margin and tested for equivalence. Not significant is never
support.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace

import pandas as pd

from procpre_interp.claims import bootstrap_rule, sequential_rule
from procpre_interp.claims.claim import Claim, Contrast, Verdict
from procpre_interp.claims.compared import trained
from procpre_interp.claims.fairness import hold_back, is_on_text
from procpre_interp.claims.judged import ContrastResult, JudgedClaim, LogRank
from procpre_interp.core.environment import now
from procpre_interp.stats.decisions import Decision, decision_text
from procpre_interp.stats.summary import (
    decide_tests,
    effect_sizes,
    permuted_log_rank,
    replicate_matrix,
    summarise_conditions,
)

RULES: Mapping[int, Callable[..., ContrastResult]] = {
    1: bootstrap_rule.judge_contrast,
    2: sequential_rule.judge_contrast,
}
"""Version -> how it judges one contrast."""
RULE = 2
"""Version of the rule for claims that are judged now."""


def judge(
    claim: Claim,
    table: pd.DataFrame,
    *,
    planned: pd.DataFrame | None = None,
    quick: bool = False,
    task: str | None = None,
) -> JudgedClaim:
    """The claim with its verdict and every number behind it.

    `table` has one row per condition and replicate, as `sweep.results` gives it; `planned` the cells that there should
    be (condition, replicate): with one of a contrast's missing, its verdict is undecided. Default: those of the table.
    `task` is the name of phase 2's: on text, what lacks its controls is undecided too (`fairness`).
    """
    contrasts = judge_contrasts(claim, table, planned=planned, quick=quick, task=task)
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
        # On text no accuracy is a breakthrough.
        log_rank=None if is_on_text(task, there) else log_rank(claim.primary, there),
        conditions=summarise_conditions(there),
        effects=effect_sizes(there) if compared else pd.DataFrame(),
        rule_version=RULE,
    )


def judge_contrasts(
    claim: Claim,
    table: pd.DataFrame,
    *,
    planned: pd.DataFrame | None = None,
    quick: bool = False,
    task: str | None = None,
    rule_version: int = RULE,
) -> tuple[ContrastResult, ...]:
    """All contrasts, the primary one first. `table`, `planned` and `task` are those of `judge`.

    p is two-sided against the margin; for `within` that of the larger of the two one-sided tests, and the bounds are
    those of the 90 % interval that belongs to them. A secondary contrast is decided only where its p, adjusted for the
    number of secondary ones that predict (Holm), is at most 0.05: each is read by itself, so that no error among them
    is wanted, where e-BH bounds only the share of errors. One without data counts as well, with p = 1, so that what is
    decided now stays so when it gets some. p-values of sequences stay valid at any stopping time of their own, so that
    Holm holds too where some contrasts were stopped before others. The primary one is left undecided where the claim's
    premise is not supported.
    """
    rows = [
        RULES[rule_version](
            each, table, planned=planned, quick=quick, about=claim.measure_of(each), limits=claim.limits
        )
        for each in claim.contrasts
    ]
    rows[0] = replace(rows[0], primary=True)
    predicted = [index for index, row in enumerate(rows) if row.predicted is not None]
    columns = ["p", "smallest_p", "n", "primary"]
    tests = pd.DataFrame([[getattr(rows[i], column) for column in columns] for i in predicted], columns=columns)
    for index, test in zip(predicted, decide_tests(tests.fillna(1.0)).to_dict("records")):
        if not math.isnan(rows[index].p):
            adjusted = replace(
                rows[index],
                p_holm=float(test["p_holm"]),
                smallest_p_holm=float(test["smallest_p_holm"]),
                decision=Decision(test["decision"]),
                undecided_reason=test["undecided_reason"],
            )
            significant = adjusted.decision == Decision.SIGNIFICANT
            rows[index] = adjusted if significant or not adjusted.is_decided else _left_open(adjusted)
    rows = list(hold_back(rows, table, task))
    premise = next((row for row in rows if row.contrast == claim.premise), None)
    if rows[0].is_decided and premise is not None and premise.verdict != Verdict.SUPPORTED:
        reason = f"its premise, {premise.contrast}, is {premise.verdict}"
        rows[0] = replace(rows[0], verdict=Verdict.UNDECIDED, reason=reason)
    return tuple(rows)


def _left_open(row: ContrastResult) -> ContrastResult:
    """A contrast that its interval would decide, and its adjusted test does not."""
    untestable = row.decision == Decision.UNDECIDED
    reason = decision_text(row.decision, row.undecided_reason) if untestable else f"adjusted p = {row.p_holm:.3g}"
    return replace(row, verdict=Verdict.UNDECIDED, reason=reason)


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

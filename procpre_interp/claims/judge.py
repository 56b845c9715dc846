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
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from procpre_interp.claims.claim import Claim, Contrast, Verdict, formula
from procpre_interp.core import atomic_files
from procpre_interp.core.environment import now
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
    restricted_time,
    sign_flip_test,
    summarise_conditions,
    unseen_share,
)

OBSERVED = "observed"
"""Column that is true of rows that were measured on runs, and are none themselves."""


def trained(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that are runs; those that were measured on runs were neither trained nor tested."""
    return table.loc[~table[OBSERVED].fillna(False).astype(bool)] if OBSERVED in table else table


def judge(
    claim: Claim, table: pd.DataFrame, *, planned: pd.DataFrame | None = None, quick: bool = False
) -> dict[str, Any]:
    """The claim with its verdict and every number behind it, as plain values for JSON.

    `table` has one row per condition and replicate, as `sweep.results` gives it; `planned` the cells that there should
    be (condition, replicate): with one of a contrast's missing, its verdict is undecided. Default: those of the table.
    """
    contrasts = judge_contrasts([claim.primary, *claim.secondary], table, planned=planned, quick=quick)
    first = contrasts.iloc[0]
    there = trained(table.loc[table["status"] != "failed"])
    compared = {"none"} < set(there["condition"])
    found = {
        **{key: value for key, value in asdict(claim).items() if isinstance(value, str)},
        "verdict": first["verdict"],
        "reason": first["reason"],
        "quick": quick,
        "created": now(),
        "seeds": sorted(int(seed) for seed in (table if planned is None else planned)["replicate"].unique()),
        "contrasts": contrasts.to_dict("records"),
        "log_rank": log_rank(claim.primary, there),
        "conditions": summarise_conditions(there).to_dict("records"),
        "effects": effect_sizes(there).to_dict("records") if compared else [],
    }
    return atomic_files.plain(found)


def judge_contrasts(
    contrasts: Sequence[Contrast],
    table: pd.DataFrame,
    *,
    planned: pd.DataFrame | None = None,
    quick: bool = False,
) -> pd.DataFrame:
    """One row per contrast, the first being the primary one: estimate, bounds, tests, verdict and why.

    p is that of the two-sided sign-flip test against the margin; for `within` that of the larger of the two one-sided
    tests, and the bounds are those of the 90 % interval that belongs to them. A secondary contrast is decided only
    where its p, adjusted for the number of secondary ones (Holm), is at most 0.05. `detectable` is the distance from
    the margin that so many replicates, spread like these, would have found in 80 % of studies.
    """
    rows = [judge_contrast(each, table, planned=planned, quick=quick) for each in contrasts]
    frame = pd.DataFrame(rows).assign(primary=[index == 0 for index in range(len(rows))])
    tested = frame.loc[frame["p"].notna()]
    if tested.empty:
        return frame
    decided = decide_tests(tested.assign(family="claim"))
    frame = frame.join(decided[["p_holm", "smallest_p_holm", "decision"]])
    open_ones = (frame["decision"] != "significant") & frame["verdict"].isin(["supported", "refuted"])
    frame.loc[open_ones, "reason"] = [
        decision if str(decision).startswith("undecided") else f"adjusted p = {p:.3g}"
        for decision, p in frame.loc[open_ones, ["decision", "p_holm"]].itertuples(index=False)
    ]
    frame.loc[open_ones, "verdict"] = "undecided"
    return frame


def judge_contrast(
    contrast: Contrast, table: pd.DataFrame, *, planned: pd.DataFrame | None = None, quick: bool = False
) -> dict[str, Any]:
    """The row of one contrast, not adjusted for others."""
    values = contrast_values(contrast, table)
    n, margin = len(values), float(contrast.margin)
    missing = missing_replicates(contrast, table, planned, n)
    reach = contrast_reach(contrast, table)
    # Without a known range the margin says which differences are small.
    alike = are_alike(values, reach if math.isfinite(reach) else margin)
    interval = contrast_interval(values, reach if alike else None)
    row: dict[str, Any] = {
        "contrast": contrast.name,
        "formula": formula(contrast),
        "weights": dict(contrast.weights),
        "measure": contrast.measure,
        "predicted": contrast.predicted or "",
        "margin": margin,
        **{key: getattr(interval, key) for key in ("estimate", "low", "high", "n")},
        "missing": missing,
        "p": math.nan,
        "smallest_p": math.nan,
        "detectable": math.nan,
    }
    if contrast.predicted is None:
        return {**row, "verdict": "", "reason": "not predicted"}
    inside = outside = False
    if n:
        tests, inside, outside = _tests(contrast, values, interval, reach if alike else None)
        row |= tests
    if quick:
        reason = "quick: a smoke test, never evidence"
    elif missing:
        reason = missing
    elif row["smallest_p"] > ALPHA:
        reason = decide(1.0, row["smallest_p"], n=n)
    elif alike and not (inside or outside):
        unseen = f"an outcome that occurs in up to {unseen_share(n):.0%} of replicates can go unseen"
        reason = f"all replicates are alike, and with n = {n} {unseen}"
    else:
        verdict: Verdict = "supported" if inside else "refuted" if outside else "undecided"
        return {**row, "verdict": verdict, "reason": explain(verdict, contrast)}
    return {**row, "verdict": "undecided", "reason": reason}


def _tests(
    contrast: Contrast, values: np.ndarray, interval: Interval, alike_within: float | None
) -> tuple[dict[str, float], bool, bool]:
    """p, its smallest, bounds and detectable distance; and whether all lies on the predicted side, or on the other.

    Either takes both: an interval wholly on that side, and p of at most 0.05. For `within` the predicted side has the
    two one-sided tests; the other one the 95 % interval and the two-sided test against the nearer margin.
    """
    margin, n = float(contrast.margin), len(values)
    row = {"detectable": detectable_effect(n, float(np.std(values, ddof=1)) if n > 1 else math.nan)}
    if contrast.predicted == "within":
        test = equivalence_test(values, margin, bounds=contrast_interval(values, alike_within, level=1 - 2 * ALPHA))
        p = max(sign_flip_test(inside, one_sided=True).p for inside in (values + margin, margin - values))
        beyond = sign_flip_test(values - math.copysign(margin, test.estimate))
        row |= {"low": test.low, "high": test.high, "p": p, "smallest_p": test.smallest_p}
        outside = (interval.low >= margin or interval.high <= -margin) and beyond.p <= ALPHA
        if outside:  # so these are the test and the bounds that say it
            row |= {"low": interval.low, "high": interval.high, "p": beyond.p, "smallest_p": beyond.smallest_p}
        return row, test.decision == "equivalent" and p <= ALPHA, outside
    test = sign_flip_test(values - margin)
    sign = 1 if contrast.predicted == "above" else -1
    near, far = sorted((sign * (interval.low - margin), sign * (interval.high - margin)))
    decided = test.p <= ALPHA
    return row | {"p": test.p, "smallest_p": test.smallest_p}, near > 0 and decided, far <= 0 and decided


def contrast_interval(values: np.ndarray, alike_within: float | None, *, level: float = LEVEL) -> Interval:
    """The bootstrap interval of a contrast's mean, or, of replicates that are alike, what its range leaves open."""
    if alike_within is None:
        return bootstrap_interval(values, level=level)
    estimate, n = float(values.mean()), len(values)
    low, high = constant_bounds(estimate, n, alike_within, level=level)
    return Interval(estimate=estimate, low=low, high=high, n=n)


def contrast_reach(contrast: Contrast, table: pd.DataFrame) -> float:
    """The largest value that the contrast could have, of a measure whose range is known; otherwise infinite."""
    weights = np.array([float(weight) for weight in contrast.weights.values()])
    signed = max(weights.clip(min=0).sum(), -weights.clip(max=0).sum())
    limit = np.fmax.reduce(table["limit"].to_numpy(dtype=float), initial=-math.inf) if "limit" in table else math.inf
    ranges = {"accuracy": 1.0, "exact_match": 1.0, "restricted_time_steps": limit}
    return float(signed * ranges.get(contrast.measure, math.inf))


def contrast_values(contrast: Contrast, table: pd.DataFrame) -> np.ndarray:
    """The contrast in each replicate that has finished runs of all its conditions."""
    weights = np.array([float(weight) for weight in contrast.weights.values()])
    return compared_values(contrast, table).to_numpy(dtype=float) @ weights


def compared_values(contrast: Contrast, table: pd.DataFrame) -> pd.DataFrame:
    """What a contrast weighs: its measure, replicates x conditions, where all its conditions have finished runs."""
    names = list(contrast.weights)
    rows = table.loc[table["condition"].isin(names) & (table["status"] == "finished")]
    if contrast.measure == "restricted_time_steps":
        rows = rows.assign(restricted_time_steps=restricted_time(rows))
    if rows.empty or contrast.measure not in rows:  # no replicate was observed yet
        return pd.DataFrame(columns=names)
    return replicate_matrix(rows, contrast.measure).reindex(columns=names).dropna()


def missing_replicates(contrast: Contrast, table: pd.DataFrame, planned: pd.DataFrame | None, n: int) -> str:
    """What is not there of the replicates that were planned with all conditions of the contrast; "" if nothing is
    missing.

    A verdict on some of the replicates would depend on when one looked, or on which runs failed.
    """
    names, planned = list(contrast.weights), table if planned is None else planned
    if unplanned := sorted(set(names) - set(planned["condition"])):
        raise ValueError(f"contrast {contrast.name!r} wants {unplanned}, which no cell was planned for")
    cells = planned.loc[planned["condition"].isin(names)].groupby("replicate")["condition"].nunique()
    wanted = int((cells == len(names)).sum())
    if n >= wanted:
        return ""
    rows = table.loc[table["condition"].isin(names)]
    counts = {status: int((rows["status"] == status).sum()) for status in ("diverged", "failed")}
    lost = ", ".join(f"{count} runs {status}" for status, count in counts.items() if count)
    return f"{n} of {wanted} planned replicates are complete" + (f" ({lost})" if lost else "")


def log_rank(contrast: Contrast, table: pd.DataFrame) -> dict[str, Any] | None:
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
    return {"sooner": first, "than": second, **asdict(permuted_log_rank(*arrays))}


def explain(verdict: Verdict, contrast: Contrast) -> str:
    """Why, in words."""
    level = "90 %" if contrast.predicted == "within" else "95 %"
    side = {
        "above": f"above {contrast.margin:+.3g}",
        "below": f"below {contrast.margin:+.3g}",
        "within": f"within +-{contrast.margin:.3g}",
    }[str(contrast.predicted)]
    return {
        "supported": f"the {level} interval lies wholly {side}",
        "refuted": f"the {level} interval lies wholly outside of what was predicted ({side})",
        "undecided": f"the {level} interval crosses the margin (predicted: {side})",
    }[verdict]

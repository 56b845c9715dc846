"""Statistics over replicates: intervals, time to breakthrough, survival, tests. Tables in, tables out.

A replicate is a fresh pair of seeds carried through all conditions. It is the unit of everything here:
resampled whole, across all conditions at once, so that comparisons stay paired. One replicate is an
observation, not a result: its interval is undefined (NaN), and `interval_note` says so.
"""

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.special import ndtri

from procpre_interp.resampling import (
    LEVEL,
    Interval,
    PermutationTest,
    binomial_bounds,
    bootstrap_interval,
    holm,
    interval_note,
    replicate_bootstrap,
    sign_flip_test,
)
from procpre_interp.seeding import numpy_stream

__all__ = [
    "LEVEL",
    "Interval",
    "PermutationTest",
    "binomial_bounds",
    "bootstrap_interval",
    "holm",
    "interval_note",
    "mean_curve",
    "replicate_bootstrap",
    "replicate_matrix",
    "restricted_time",
    "sign_flip_test",
    "summarise_conditions",
    "survival_curve",
    "time_to_breakthrough",
]


def time_to_breakthrough(history: pd.DataFrame, threshold: float) -> int | None:
    """Step of the first validation evaluation with accuracy at or above the threshold; None without one."""
    above = (history["split"] == "validation") & (history["accuracy"] >= threshold)
    steps = history.loc[above, "step"].to_numpy()
    return int(steps.min()) if len(steps) else None


def restricted_time(table: pd.DataFrame) -> Float[np.ndarray, " run"]:
    """Steps to breakthrough, at most the limit: a run without breakthrough counts the limit.

    Its mean is the restricted mean time, the area under the survival curve. Where limits differ, the smallest
    counts for all: up to there every run was observed.
    """
    return np.fmin(table["breakthrough_step"].to_numpy(dtype=float), table["limit"].to_numpy().min())


def survival_curve(table: pd.DataFrame) -> pd.DataFrame:
    """Kaplan-Meier: the share of replicates still without breakthrough, one row a condition and step.

    Runs without breakthrough are censored at their limit. Bounds: Greenwood's variance on the log-log scale,
    NaN where the curve is 0 or 1, or rests on one replicate.
    """
    curves = []
    for condition, rows in table.groupby("condition", sort=False):
        broke = rows["breakthrough_step"].notna().to_numpy()
        times = rows["breakthrough_step"].fillna(rows["limit"]).to_numpy(dtype=float)
        steps = np.unique([0.0, *times])
        at_risk = (times >= steps[:, None]).sum(axis=1)
        events = ((times == steps[:, None]) & broke).sum(axis=1)
        survival = np.cumprod(1 - events / at_risk)
        with np.errstate(divide="ignore", invalid="ignore"):
            variance = np.cumsum(events / (at_risk * (at_risk - events)))
            width = ndtri((1 + LEVEL) / 2) * np.sqrt(variance) / np.abs(np.log(survival))
            bounds = survival ** np.exp([width, -width])
        bounds[:, (survival <= 0) | (survival >= 1) | (len(rows) < 2)] = np.nan
        curve = {"step": steps, "at_risk": at_risk, "events": events, "survival": survival}
        curve |= {"low": bounds[0], "high": bounds[1], "n": len(rows)}
        curves.append(pd.DataFrame(curve).assign(condition=condition))
    return _condition_first(pd.concat(curves, ignore_index=True))


def mean_curve(
    history: pd.DataFrame, value: str = "accuracy", *, generator: np.random.Generator | None = None
) -> pd.DataFrame:
    """Mean over replicates of a validation quantity at each step, with bounds; one row a condition and step.

    A run that ended early keeps its last value, so that the mean is over the same replicates at every step.
    """
    curves = []
    for condition, rows in history[history["split"] == "validation"].groupby("condition", sort=False):
        matrix = rows.pivot(index="replicate", columns="step", values=value).ffill(axis=1)
        curve = replicate_bootstrap(matrix, n_resamples=2_000, generator=generator)
        curve = curve.rename(columns={"estimate": "mean"}).rename_axis("step").reset_index()
        curves.append(curve.assign(condition=condition))
    if not curves:
        return pd.DataFrame(columns=["condition", "step", "mean", "low", "high", "n"])
    return _condition_first(pd.concat(curves, ignore_index=True))


def summarise_conditions(
    table: pd.DataFrame, *, baseline: str = "none", generator: np.random.Generator | None = None
) -> pd.DataFrame:
    """One row a condition of a table with one row a condition and replicate.

    Accuracy (share of answer tokens) and its gain over the baseline, paired; share of replicates that broke
    through (exact binomial bounds: a bootstrap of 5 successes in 5 would claim certainty); restricted mean
    time to breakthrough in steps, and the steps saved against the baseline; mean seconds of a run. Diverged
    runs have no accuracy: they are counted in `diverged`, and as no breakthrough. Raises `ValueError` for a
    table without rows.
    """
    if table.empty:
        raise ValueError("the table has no rows: no run of this experiment is finished")
    generator = generator or numpy_stream(0, "bootstrap")
    conditions = list(dict.fromkeys(table["condition"]))
    accuracy = replicate_matrix(table, "accuracy")
    times = replicate_matrix(table.assign(time=restricted_time(table)), "time")
    measures = {"accuracy": accuracy, "time": times}
    if baseline in conditions:
        measures["gain"] = accuracy.sub(accuracy[baseline], axis=0)
        measures["saved"] = -times.sub(times[baseline], axis=0)
    groups = table.groupby("condition", sort=False)
    summary = pd.DataFrame({"label": groups["label"].first(), "n": groups.size()}).loc[conditions]
    summary["diverged"] = (table["status"] == "diverged").groupby(table["condition"]).sum()
    for name in ("accuracy", "gain", "time", "saved"):
        bounds = replicate_bootstrap(measures[name], generator=generator) if name in measures else None
        for column, source in (("mean", "estimate"), ("low", "low"), ("high", "high")):
            summary[f"{name}_{column}"] = np.nan if bounds is None else bounds[source]
    summary.loc[summary.index == baseline, [c for c in summary if c.startswith(("gain", "saved"))]] = np.nan
    broke = groups["breakthrough_step"].count().loc[conditions]
    summary["breakthrough_share"] = broke / summary["n"]
    low, high = binomial_bounds(broke.to_numpy(), summary["n"].to_numpy())
    summary["breakthrough_low"], summary["breakthrough_high"] = low, high
    for name in ("seconds", "phase1_seconds"):
        summary[name] = groups[name].mean() if name in table else np.nan
    return summary.reset_index()


def replicate_matrix(table: pd.DataFrame, value: str) -> pd.DataFrame:
    """Replicates x conditions; NaN where a cell is missing. Raises `ValueError` when a cell occurs twice."""
    twice = table.duplicated(["condition", "replicate"])
    if twice.any():
        cells = table.loc[twice, ["condition", "replicate"]].to_records(index=False).tolist()
        raise ValueError(f"more than one row for (condition, replicate) {cells[:3]}; keep one each")
    matrix = table.pivot(index="replicate", columns="condition", values=value)
    return matrix.loc[:, list(dict.fromkeys(table["condition"]))]


def _condition_first(table: pd.DataFrame) -> pd.DataFrame:
    return table.loc[:, ["condition", *(column for column in table if column != "condition")]]

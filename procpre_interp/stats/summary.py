"""Statistics over replicates: summaries, decisions, variance decomposition. Tables in, tables out.

A replicate is a fresh pair of seeds carried through all conditions. It is the unit of everything here:
resampled whole, across all conditions at once, so that comparisons stay paired. One replicate is an
observation, not a result: its interval is undefined (NaN), and `interval_note` says so.
"""

import numpy as np
import pandas as pd

from procpre_interp.core.seeding import numpy_stream
from procpre_interp.stats.baselines import baselines, changes
from procpre_interp.stats.decisions import Decided, Decision, EquivalenceDecision
from procpre_interp.stats.power import detectable_effect
from procpre_interp.stats.resampling import (
    ALPHA,
    LEVEL,
    Interval,
    binomial_bounds,
    bootstrap_interval,
    interval_note,
    intervals_note,
    paired_gains,
    replicate_bootstrap,
    replicate_matrix,
    unseen_share,
)
from procpre_interp.stats.significance import (
    Equivalence,
    PermutationTest,
    decide,
    equivalence_test,
    holm,
    sign_flip_test,
)
from procpre_interp.stats.survival import (
    effect_sizes,
    permuted_log_rank,
    restricted_time,
    survival_curve,
    time_to_breakthrough,
)
from procpre_interp.stats.variance import two_way_bootstrap, variance_components

__all__ = [
    "ALPHA",
    "LEVEL",
    "Decided",
    "Decision",
    "Equivalence",
    "EquivalenceDecision",
    "Interval",
    "PermutationTest",
    "binomial_bounds",
    "bootstrap_interval",
    "decide",
    "decide_tests",
    "detectable_effect",
    "effect_sizes",
    "equivalence_test",
    "holm",
    "interval_note",
    "intervals_note",
    "mean_curve",
    "paired_gains",
    "permuted_log_rank",
    "replicate_bootstrap",
    "replicate_matrix",
    "restricted_time",
    "sign_flip_test",
    "summarise_conditions",
    "survival_curve",
    "time_to_breakthrough",
    "two_way_bootstrap",
    "unseen_share",
    "variance_components",
]


CHAIN_MEANS = ("phase2_accuracy", "total_tokens", "total_seconds", "total_teraflops")
"""Columns of tables whose phase 2 is followed by another phase or has phase 1 in the middle, summarised by means."""


def mean_curve(
    history: pd.DataFrame, value: str = "accuracy", *, generator: np.random.Generator | None = None
) -> pd.DataFrame:
    """Mean over replicates of a validation quantity at each step, with bounds; one row per condition and step.

    A run that ended early keeps its last value, so that the mean is over the same replicates at every step.
    """
    curves = []
    for condition, rows in history[history["split"] == "validation"].groupby("condition", sort=False):
        matrix = rows.pivot(index="replicate", columns="step", values=value).ffill(axis=1)
        curve = replicate_bootstrap(matrix, n_resamples=2_000, generator=generator)
        curve = curve.rename(columns={"estimate": "mean"}).rename_axis("step").reset_index()
        curve.insert(0, "condition", condition)
        curves.append(curve)
    if not curves:
        return pd.DataFrame(columns=["condition", "step", "mean", "low", "high", "n"])
    return pd.concat(curves, ignore_index=True)


def summarise_conditions(
    table: pd.DataFrame, *, baseline: str = "none", generator: np.random.Generator | None = None
) -> pd.DataFrame:
    """One row per condition of a table with one row per condition and replicate.

    Accuracy (share of answer tokens) and its gain over the baseline (`baselines.baselines`), paired; share of
    replicates that broke through (exact binomial bounds: a bootstrap of 5 successes in 5 would claim certainty);
    restricted mean time to breakthrough in steps, and the steps saved against the baseline; mean seconds and, where it
    was counted, mean compute of a run, and what longer chains of phases took (`CHAIN_MEANS`). Of runs on text, the mean
    number of epochs, the test loss, and its change against the baseline, paired. Diverged runs have no accuracy: they
    are counted in `n`, in `diverged`, and as no breakthrough, but neither in `accuracy_n`, the number of accuracies,
    nor in `gain_n`, that of pairs. Raises `ValueError` for a table without rows.
    """
    if table.empty:
        raise ValueError("the table has no rows: no run of this experiment is finished")
    generator = generator or numpy_stream(0, "bootstrap")
    conditions = list(dict.fromkeys(table["condition"]))
    accuracy = replicate_matrix(table, "accuracy")
    times = replicate_matrix(table.assign(time=restricted_time(table)), "time")
    measures, bases = {"accuracy": accuracy, "time": times}, baselines(table, baseline)
    if bases:
        measures["gain"] = changes(accuracy, bases)
        measures["saved"] = -changes(times, bases)
    on_text = "epochs" in table and "loss_nats" in table
    if on_text:
        measures["loss"] = replicate_matrix(table, "loss_nats")
        if bases:
            measures["loss_change"] = changes(measures["loss"], bases)
    groups = table.groupby("condition", sort=False)
    summary = pd.DataFrame({"label": groups["label"].first(), "n": groups.size()}).loc[conditions]
    summary["diverged"] = (table["status"] == "diverged").groupby(table["condition"]).sum()
    for name in ("accuracy", "gain", "time", "saved", *(["loss", "loss_change"] if on_text else [])):
        bounds = replicate_bootstrap(measures[name], generator=generator) if name in measures else None
        for column, source in (("mean", "estimate"), ("low", "low"), ("high", "high")):
            summary[f"{name}_{column}"] = np.nan if bounds is None else bounds[source]
    for name in ("accuracy", "gain"):
        known = measures[name].notna().sum() if name in measures else pd.Series(dtype=int)
        summary[f"{name}_n"] = known.reindex(conditions, fill_value=0)
    broke = groups["breakthrough_step"].count().loc[conditions]
    summary["breakthrough_share"] = broke / summary["n"]
    low, high = binomial_bounds(broke.to_numpy(), summary["n"].to_numpy())
    summary["breakthrough_low"], summary["breakthrough_high"] = low, high
    for name in ("seconds", "phase1_seconds"):
        summary[name] = groups[name].mean() if name in table else np.nan
    if "teraflops" in table and table["teraflops"].notna().to_numpy().any():
        for name in ("teraflops", "phase1_teraflops"):
            summary[name] = groups[name].mean() if name in table else np.nan
    for name in ("epochs", *CHAIN_MEANS):
        if name in table:
            summary[name] = groups[name].mean()
    return summary.reset_index()


def decide_tests(tests: pd.DataFrame, *, alpha: float | int = ALPHA) -> pd.DataFrame:
    """The tests with `p_holm`, `smallest_p_holm`, `decision` (a `Decision`) and `undecided_reason` ("" for the others):
    Holm's adjustment within each family.

    `tests` has columns p and smallest_p, and may have n, family (a map, a ladder; without it all are one family) and
    primary: the one contrast of a family that was named before the runs, which is decided by itself and adjusts
    nothing. An adjusted p grows with every p of its family, so Holm's adjustment of the smallest ones is the smallest
    that the adjusted one could have been.
    """
    given = [column for column in ("p", "smallest_p", "family", "primary", "n") if column in tests]
    if given[:2] != ["p", "smallest_p"] or tests[given].isna().to_numpy().any():
        raise ValueError(f"tests with columns {list(tests)}, or NaN in {given}; give p and smallest_p of every test")
    family = tests["family"].to_numpy() if "family" in tests else np.zeros(len(tests))
    primary = tests["primary"].to_numpy(dtype=bool) if "primary" in tests else np.zeros(len(tests), dtype=bool)
    plain = tests[["p", "smallest_p"]].to_numpy(dtype=float)
    if ((plain < 0) | (plain > 1)).any():
        raise ValueError(f"p and smallest_p {plain.tolist()}; each is a probability, from 0 to 1")
    adjusted = plain.copy()
    for name in dict.fromkeys(family):
        inside = family == name
        named, rest = int((inside & primary).sum()), inside & ~primary
        if named > 1:
            raise ValueError(f"{named} primary contrasts in family {name!r}; name one, before the runs")
        adjusted[rest] = np.column_stack([holm(column) for column in plain[rest].T])
    raised = (adjusted[:, 1] > plain[:, 1]).tolist()
    sizes = tests["n"].tolist() if "n" in tests else [None] * len(tests)
    rows = zip(*adjusted.T.tolist(), sizes, raised)
    decided = [decide(p, smallest, alpha, n=n, adjusted=more) for p, smallest, n, more in rows]
    return tests.assign(
        p_holm=adjusted[:, 0],
        smallest_p_holm=adjusted[:, 1],
        decision=[each.decision for each in decided],
        undecided_reason=[each.reason for each in decided],
    )

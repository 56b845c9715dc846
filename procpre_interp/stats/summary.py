"""Statistics over replicates: summaries, decisions, variance decomposition. Tables in, tables out.

A replicate is a fresh pair of seeds carried through all conditions. It is the unit of everything here:
resampled whole, across all conditions at once, so that comparisons stay paired. One replicate is an
observation, not a result: its interval is undefined (NaN), and `interval_note` says so.
"""

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.special import nctdtrinc, stdtrit

from procpre_interp.stats.resampling import (
    ALPHA,
    LEVEL,
    MAX_EXACT_FLIPS,
    N_RESAMPLES,
    Equivalence,
    Interval,
    PermutationTest,
    binomial_bounds,
    bootstrap_interval,
    decide,
    equivalence_test,
    holm,
    interval_note,
    intervals_note,
    paired_gains,
    percentile_tail,
    replicate_bootstrap,
    replicate_matrix,
    sign_flip_test,
    unseen_share,
)
from procpre_interp.core.seeding import numpy_stream
from procpre_interp.stats.survival import (
    effect_sizes,
    permuted_log_rank,
    restricted_time,
    survival_curve,
    time_to_breakthrough,
)

__all__ = [
    "ALPHA",
    "LEVEL",
    "Equivalence",
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

POWER = 0.8
"""Share of studies in which a detectable effect is found."""

MAX_SIMULATED_POWER = 12
"""Replicates up to which the sign-flip test's power is simulated; with more, Student's is the same within 2 %."""


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
        curve.insert(0, "condition", condition)
        curves.append(curve)
    if not curves:
        return pd.DataFrame(columns=["condition", "step", "mean", "low", "high", "n"])
    return pd.concat(curves, ignore_index=True)


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


def decide_tests(tests: pd.DataFrame, *, alpha: float | int = ALPHA) -> pd.DataFrame:
    """The tests with `p_holm`, `smallest_p_holm` and `decision`: Holm's adjustment within each family.

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
    decisions = [decide(p, smallest, alpha, n=n, adjusted=more) for p, smallest, n, more in rows]
    return tests.assign(p_holm=adjusted[:, 0], smallest_p_holm=adjusted[:, 1], decision=decisions)


def detectable_effect(
    n: int,
    std: float | int,
    *,
    alpha: float | int = ALPHA,
    power: float | int = POWER,
    n_resamples: int = 2_000,
    generator: np.random.Generator | None = None,
) -> float:
    """The mean paired difference that `sign_flip_test` on n replicates finds with the given power.

    `std` is the standard deviation of paired differences (with ddof 1), whose unit the effect has; the differences are
    taken to be normal. Infinite where the smallest p that n can give exceeds alpha (in a family, hand over alpha
    divided by its size); NaN where it does not but `std` is 0 or NaN, since no observed spread is no known spread.

    Up to 12 replicates the test itself is simulated: with few, Student's power promises too much. With differences
    d + z_i, the test rejects in favour of d > 0 just when d exceeds the k-th largest mean of -z over the 2^n - 1 sets
    of replicates, where k = floor(alpha 2^n / 2): flipping a set gives a larger mean if its own sum is negative. So
    the effect is a quantile of these thresholds. Beyond 12 it is that of the paired t test (noncentral t) at the level
    k / 2^(n - 1) that the exact test has.
    """
    if n < 1 or not 0 < alpha < 1 or not alpha < power < 1:
        raise ValueError(f"{n=}, {alpha=}, {power=}; n must be at least 1, and 0 < alpha < power < 1")
    if std < 0 or np.isinf(std):
        raise ValueError(f"{std=}; give the standard deviation of the paired differences, which is finite and not < 0")
    # Beyond 16 replicates the test draws its sign patterns, and 1 / (their number) is its smallest p.
    patterns = min(2 ** (n - 1), N_RESAMPLES + 1) if 2**n > MAX_EXACT_FLIPS else 2 ** (n - 1)
    k = int(alpha * patterns + 1e-9)
    if k < 1:
        return float("inf")
    if std == 0 or np.isnan(std):
        return float("nan")
    if n > MAX_SIMULATED_POWER:
        critical = stdtrit(n - 1, 1 - k / patterns / 2)
        return float(std * nctdtrinc(n - 1, 1 - power, critical) / np.sqrt(n))
    generator = generator or numpy_stream(0, "detectable effect", n)
    sums, sizes = np.zeros((n_resamples, 1)), np.zeros(1)
    for value in generator.normal(size=(n, n_resamples, 1)):
        sums, sizes = np.hstack([sums, sums + value]), np.append(sizes, sizes + 1)
    means = sums[:, 1:] / sizes[1:]
    return float(std * np.quantile(np.partition(means, -k, axis=1)[:, -k], power))


def variance_components(values: Float[np.ndarray, "*batch row column"]) -> Float[np.ndarray, "*batch component"]:
    """Variance of row effects, of column effects, and residual, of crossed values without replication.

    Method of moments: (MS_row - MS_residual) / columns, (MS_column - MS_residual) / rows and MS_residual, which holds
    the interaction too. Unbiased, and so negative at times.
    """
    rows, columns = values.shape[-2:]
    row, column = values.mean(axis=-1, keepdims=True), values.mean(axis=-2, keepdims=True)
    left = values - row - column + values.mean(axis=(-2, -1), keepdims=True)
    residual = (left**2).sum(axis=(-2, -1)) / ((rows - 1) * (columns - 1))
    by_row = row.var(axis=(-2, -1), ddof=1) - residual / columns
    return np.stack([by_row, column.var(axis=(-2, -1), ddof=1) - residual / rows, residual], axis=-1)


def two_way_bootstrap(
    values: pd.DataFrame, *, n_resamples: int = N_RESAMPLES, generator: np.random.Generator | None = None
) -> pd.DataFrame:
    """Components of variance over crossed seeds: one row each for phase-1 seed, phase-2 seed and residual.

    `values` has a row a phase-1 seed, a column a phase-2 seed. `variance` is that of `variance_components`, and 0 with
    the flag `negative` where its estimate is below; `share` is its share of their sum. Rows and columns are resampled
    independently (the pigeonhole bootstrap). A resample repeats seeds, which shrinks mean squares; each is corrected
    so that its components are on average those of the data. Bounds are expanded percentiles, cut off at 0: with 5 to
    12 seeds a side and normal effects they covered 91 to 100 % in our simulations.
    Source: Owen 2007, The pigeonhole bootstrap; Brennan 2007, Unbiased estimates of variance components with bootstrap
    procedures (the correction).
    """
    matrix = values.to_numpy(dtype=float)
    rows, columns = matrix.shape
    if min(rows, columns) < 2 or not np.isfinite(matrix).all():
        gaps = int((~np.isfinite(matrix)).sum())
        raise ValueError(f"{rows} x {columns} seeds with {gaps} gaps; run every cell of at least 2 x 2 seeds")
    generator = generator or numpy_stream(0, "two-way bootstrap")
    drawn_rows = generator.integers(rows, size=(n_resamples, rows, 1))
    drawn_columns = generator.integers(columns, size=(n_resamples, 1, columns))
    by_row, by_column, residual = variance_components(matrix[drawn_rows, drawn_columns]).T
    residual = residual * rows * columns / ((rows - 1) * (columns - 1))
    by_row = by_row * rows / (rows - 1) - residual / columns
    by_column = by_column * columns / (columns - 1) - residual / rows
    found, levels = variance_components(matrix), [rows, columns, min(rows, columns)]
    parts = zip((by_row, by_column, residual), map(percentile_tail, levels))
    bounds = [np.quantile(drawn, [tail, 1 - tail]) for drawn, tail in parts]
    variance = np.maximum(found, 0.0)
    low, high = np.maximum(bounds, 0.0).T
    table = {"component": ["phase-1 seed", "phase-2 seed", "residual"], "variance": variance, "low": low, "high": high}
    table["share"] = variance / variance.sum() if variance.sum() > 0 else np.full(3, np.nan)
    return pd.DataFrame(table | {"n": levels, "negative": found < 0})

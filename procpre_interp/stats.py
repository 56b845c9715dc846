"""Statistics over replicates: intervals, time to breakthrough, survival, tests. Tables in, tables out.

A replicate is a fresh pair of seeds carried through all conditions. It is the unit of everything here:
resampled whole, across all conditions at once, so that comparisons stay paired. One replicate is an
observation, not a result: its interval is undefined (NaN), and `interval_note` says so.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.special import betaincinv, ndtr, ndtri, stdtrit  # scipy.stats takes three times as long to import

from procpre_interp.seeding import numpy_stream

LEVEL = 0.95
"""Coverage of every interval."""

N_RESAMPLES = 10_000
"""Bootstrap resamples: the bounds' own Monte-Carlo error is then well below the width of the interval."""

MAX_EXACT_FLIPS = 1 << 16
"""Sign patterns up to which a permutation test enumerates them all (16 replicates)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """An estimate over n replicates with its bounds; NaN bounds where n < 2."""

    estimate: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PermutationTest:
    """A p-value, with the smallest that this n could have given: undecidable when that exceeds alpha."""

    statistic: float
    p: float
    smallest_p: float
    n: int
    exact: bool


def interval_note(n: int) -> str:
    """What the intervals over n replicates are, in words for a caption."""
    if n < 2:
        return f"n = {n} replicate: no interval, so an observation and not a result"
    kind = f"n = {n} replicates; {100 * LEVEL:.0f} % bootstrap interval over replicates"
    return f"{kind} (with n < 5 at most their range, so it covers less)" if n < 5 else kind


def percentile_tail(n: int, level: float = LEVEL) -> float:
    """Probability left beyond each bound of the bootstrap distribution of n replicates.

    The plain percentile interval, tail (1 - level) / 2, is too narrow when n is small: it divides by n, not
    n - 1, and knows no t. The expanded tail Phi(-sqrt(n / (n - 1)) t_{n-1}) makes up for both.
    Source: Hesterberg 2015, What Teachers Should Know About the Bootstrap, section 5.3.
    """
    if n < 2:
        return float("nan")
    return float(ndtr(np.sqrt(n / (n - 1)) * stdtrit(n - 1, (1 - level) / 2)))


def bootstrap_interval(
    values: Float[np.ndarray, " replicate"],
    statistic: Callable[..., np.ndarray] = np.mean,
    *,
    n_resamples: int = N_RESAMPLES,
    generator: np.random.Generator | None = None,
) -> Interval:
    """Expanded percentile interval of `statistic(values, axis=-1)` over one value a replicate."""
    n = len(values)
    estimate = float(statistic(values, axis=-1)) if n else float("nan")
    if n < 2:
        return Interval(estimate=estimate, low=float("nan"), high=float("nan"), n=n)
    generator = generator or numpy_stream(0, "bootstrap")
    resampled = statistic(values[generator.integers(n, size=(n_resamples, n))], axis=-1)
    tail = percentile_tail(n)
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Interval(estimate=estimate, low=float(low), high=float(high), n=n)


def drawn_means(
    weights: Float[np.ndarray, "resample replicate"], values: Float[np.ndarray, "replicate column"]
) -> Float[np.ndarray, "resample column"]:
    """Mean of each column when replicate i is drawn `weights[:, i]` times; NaN values are left out."""
    present = ~np.isnan(values)
    total, count = weights @ np.where(present, values, 0.0), weights @ present.astype(float)
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def replicate_bootstrap(
    values: pd.DataFrame,
    statistic: Callable[[np.ndarray, np.ndarray], np.ndarray] = drawn_means,
    *,
    n_resamples: int = N_RESAMPLES,
    generator: np.random.Generator | None = None,
) -> pd.DataFrame:
    """Estimate, low, high and n of each column of a replicates x columns table (conditions, or steps).

    Whole replicates are drawn, the same ones for every column. The statistic is a function of how often each
    was drawn and of the values, column by column, as `drawn_means` is.
    """
    matrix = values.to_numpy(dtype=float)
    replicates = len(matrix)
    generator = generator or numpy_stream(0, "bootstrap")
    draws = generator.multinomial(replicates, np.full(replicates, 1 / replicates), size=n_resamples).astype(
        float
    )
    resampled = statistic(draws, matrix)
    counts = (~np.isnan(matrix)).sum(axis=0)
    bounds = np.full((2, matrix.shape[1]), np.nan)
    for n in np.unique(counts[counts > 1]):
        tail, same = percentile_tail(int(n)), counts == n
        bounds[:, same] = np.nanquantile(resampled[:, same], [tail, 1 - tail], axis=0)
    estimate = statistic(np.ones((1, replicates)), matrix)[0]
    table = {"estimate": estimate, "low": bounds[0], "high": bounds[1], "n": counts}
    return pd.DataFrame(table, index=values.columns)


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
    runs have no accuracy: they are counted in `diverged`, and as no breakthrough.
    """
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


def binomial_bounds(
    successes: Int[np.ndarray, " case"], n: Int[np.ndarray, " case"]
) -> tuple[Float[np.ndarray, " case"], Float[np.ndarray, " case"]]:
    """Exact (Clopper-Pearson) bounds of the share that `successes` of n estimate."""
    tail = (1 - LEVEL) / 2
    low = betaincinv(np.maximum(successes, 1), n - successes + 1, tail)
    high = betaincinv(successes + 1, np.maximum(n - successes, 1), 1 - tail)
    return np.where(successes == 0, 0.0, low), np.where(successes == n, 1.0, high)


def replicate_matrix(table: pd.DataFrame, value: str) -> pd.DataFrame:
    """Replicates x conditions; NaN where a cell is missing. Raises `ValueError` when a cell occurs twice."""
    twice = table.duplicated(["condition", "replicate"])
    if twice.any():
        cells = table.loc[twice, ["condition", "replicate"]].to_records(index=False).tolist()
        raise ValueError(f"more than one row for (condition, replicate) {cells[:3]}; keep one each")
    matrix = table.pivot(index="replicate", columns="condition", values=value)
    return matrix.loc[:, list(dict.fromkeys(table["condition"]))]


def sign_flip_test(
    differences: Float[np.ndarray, " replicate"],
    *,
    generator: np.random.Generator | None = None,
    n_resamples: int = N_RESAMPLES,
) -> PermutationTest:
    """Two-sided paired permutation test of a mean difference of zero: signs of whole replicates flip.

    All 2^n patterns up to 16 replicates, else `n_resamples` random ones with the observed among them. Raises
    `ValueError` for NaN: drop incomplete pairs first.
    """
    n = len(differences)
    if n == 0 or np.isnan(differences).any():
        raise ValueError(
            f"{n} differences, {np.isnan(differences).sum()} of them NaN; give complete pairs only"
        )
    exact = 2**n <= MAX_EXACT_FLIPS
    if exact:
        flips = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    else:
        generator = generator or numpy_stream(0, "sign flips")
        flips = np.vstack([np.ones(n), generator.choice([-1, 1], size=(n_resamples, n))])
    means = np.abs(flips @ differences) / n
    observed, slack = abs(float(differences.mean())), 1e-12 * float(np.abs(differences).max())
    share = float((means >= observed - slack).mean())
    # The largest attainable mean has all signs alike; zeros may then take either.
    smallest = min(1.0, 2.0 ** (1 - int((differences != 0).sum())))
    smallest = smallest if exact else max(smallest, 1 / len(flips))
    statistic = float(differences.mean())
    return PermutationTest(statistic=statistic, p=share, smallest_p=smallest, n=n, exact=exact)


def holm(p_values: Float[np.ndarray, " test"]) -> Float[np.ndarray, " test"]:
    """Holm's adjusted p-values: max over j <= i of (m - j) p_(j), j from 0, in order of size; at most 1."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1))
    result = np.empty_like(p_values)
    result[order] = np.minimum(adjusted, 1.0)
    return result


def _condition_first(table: pd.DataFrame) -> pd.DataFrame:
    return table.loc[:, ["condition", *(column for column in table if column != "condition")]]

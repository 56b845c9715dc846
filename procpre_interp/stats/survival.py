"""Time to breakthrough: restricted mean, Kaplan-Meier, permuted log-rank test, and the effect sizes of conditions."""

import numpy as np
import pandas as pd
from jaxtyping import Float, Real

from procpre_interp.core.messages import unknown_name
from procpre_interp.core.seeding import numpy_stream
from procpre_interp.stats.baselines import baselines, changes
from procpre_interp.stats.resampling import LEVEL, N_RESAMPLES, constant_bounds, replicate_bootstrap, replicate_matrix
from procpre_interp.stats.significance import MAX_EXACT_FLIPS, PermutationTest


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
    """Kaplan-Meier: the share of replicates still without breakthrough, one row per condition and step.

    Runs without breakthrough are censored at their limit. Bounds: Greenwood's variance on the log-log scale,
    NaN where the curve is 0 or 1, or rests on one replicate.
    """
    from scipy.special import ndtri

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
        curve = {"condition": condition, "step": steps, "at_risk": at_risk, "events": events, "survival": survival}
        curve |= {"low": bounds[0], "high": bounds[1], "n": len(rows)}
        curves.append(pd.DataFrame(curve))
    return pd.concat(curves, ignore_index=True)


def effect_sizes(
    table: pd.DataFrame, *, baseline: str = "none", generator: np.random.Generator | None = None
) -> pd.DataFrame:
    """Differences from the baseline, paired by replicate: one row per condition and measure, with 95 % bounds.

    Which one that is, `baselines.baselines` says. `table` has one row per condition and replicate. The measures:
    `restricted_time_steps` (negative: sooner) and `breakthrough_share`, both up to the smallest limit of the table, and
    `accuracy`, where a diverged run has none and its pair is left out; `n` counts the pairs. Whole replicates are
    resampled, the same for all rows of the result.

    Where all pairs differ by the same amount (`constant`), the bounds are those of `resampling.constant_bounds`, with
    the range of the measure (limit, 1, 1).

    Raises `ValueError` for an empty table, an unknown baseline, or one that shares no replicate with another condition.
    """
    if table.empty or not (table["limit"] > 0).to_numpy().all():
        raise ValueError(f"{len(table)} rows, limits {table['limit'].unique()}; give runs with a limit above 0 steps")
    conditions = list(dict.fromkeys(table["condition"]))
    if baseline not in conditions:
        raise unknown_name("baseline condition", baseline, conditions)
    limit = float(table["limit"].to_numpy().min())
    measured = table.assign(
        restricted_time_steps=restricted_time(table),
        breakthrough_share=(table["breakthrough_step"] <= limit).astype(float),
    )
    ranges = {"restricted_time_steps": limit, "breakthrough_share": 1.0, "accuracy": 1.0}
    matrices = {measure: replicate_matrix(measured, measure) for measure in ranges}
    bases = baselines(table, baseline)
    joint = pd.concat({name: changes(matrix, bases) for name, matrix in matrices.items()}, axis=1).dropna(how="all")
    if joint.empty:
        raise ValueError(
            f"no replicate has {baseline!r} and another condition; finish runs of both with the same seeds"
        )
    bounds = replicate_bootstrap(joint, generator=generator)
    rows = []
    for condition, base in bases.items():
        for measure, reach in ranges.items():
            bound = bounds.loc[(measure, condition)]
            estimate, low, high = (float(bound[key]) for key in ("estimate", "low", "high"))
            n, pairs = int(bound["n"]), joint[measure, condition].dropna().to_numpy()
            constant = n > 1 and bool(np.ptp(pairs) <= 1e-12 * reach)
            if constant:
                low, high = constant_bounds(estimate, n, reach)
            rows.append(
                {
                    "condition": condition,
                    "baseline": base,
                    "measure": measure,
                    "estimate": estimate,
                    "low": low,
                    "high": high,
                    "n": n,
                    "constant": constant,
                }
            )
    return pd.DataFrame(rows)


def permuted_log_rank(
    times_a: Real[np.ndarray, " run_a"],
    limits_a: Real[np.ndarray, " limit_a"],
    times_b: Real[np.ndarray, " run_b"],
    limits_b: Real[np.ndarray, " limit_b"],
    *,
    n_resamples: int = N_RESAMPLES,
    generator: np.random.Generator | None = None,
) -> PermutationTest:
    """Two-sided log-rank test of a against b, permuted: the two runs of a replicate exchange their conditions.

    Entry i of each array is replicate i; a time is the step of breakthrough, NaN for none up to the limit. The
    statistic is (observed - expected breakthroughs of a) / sqrt(hypergeometric variance), positive where a is sooner;
    0 where the variance is. Where the limits of a pair differ, both count up to the smaller one: only then are the two
    exchangeable without an effect.

    Exchanging equal runs changes nothing. All 2^k exchanges of the k other pairs up to k = 16, else `n_resamples`
    random ones with the observed among them. The smallest p is the share of exchanges with the most extreme statistic,
    2 / 2^k without further ties, and 1 where nothing broke through. scipy.stats.logrank has this statistic for two
    independent samples and a normal reference, which needs more replicates than we have.
    Source: Peto & Peto 1972 for the statistic.
    """
    times, limit = _checked_pairs(times_a, limits_a, times_b, limits_b)
    broke = times <= limit
    ends = np.where(broke, times, limit)[..., None]
    steps = np.unique(ends[broke])
    at_risk, events = (ends >= steps).astype(float), ((ends == steps) & broke[..., None]).astype(float)
    differs = ((at_risk[0] != at_risk[1]) | (events[0] != events[1])).any(axis=-1)
    k = int(differs.sum())
    exact = 2**k <= MAX_EXACT_FLIPS
    if exact:
        swaps = (np.arange(2**k)[:, None] >> np.arange(k)) & 1
    else:
        generator = generator or numpy_stream(0, "log-rank exchanges")
        swaps = np.vstack([np.zeros((1, k), dtype=int), generator.integers(2, size=(n_resamples, k))])
    in_a = at_risk[0].sum(axis=0) + swaps @ (at_risk[1] - at_risk[0])[differs]
    observed = events[0].sum() + swaps @ (events[1] - events[0])[differs].sum(axis=-1)
    # At risk and breaking through in both together: no exchange changes these.
    both, total = at_risk.sum(axis=(0, 1)), events.sum(axis=(0, 1))
    excess = observed - in_a @ (total / both)
    variance = (in_a * (both - in_a)) @ (total * (both - total) / (both**2 * np.maximum(both - 1, 1)))
    z = np.divide(excess, np.sqrt(variance), out=np.zeros_like(excess), where=variance > 0)
    extremes, slack = np.abs(z), 1e-9
    smallest = float((extremes >= extremes.max() - slack).mean()) if exact else max(2.0 ** (1 - k), 1 / len(swaps))
    p = float((extremes >= extremes[0] - slack).mean())
    return PermutationTest(statistic=float(z[0]), p=p, smallest_p=smallest, n=times.shape[1], exact=exact)


def _checked_pairs(
    times_a: np.ndarray, limits_a: np.ndarray, times_b: np.ndarray, limits_b: np.ndarray
) -> tuple[Float[np.ndarray, "condition replicate"], Float[np.ndarray, " replicate"]]:
    """Times of both conditions, and the smaller limit of each replicate."""
    sizes = [len(array) for array in (times_a, limits_a, times_b, limits_b)]
    if len(set(sizes)) > 1 or sizes[0] == 0:
        raise ValueError(f"{sizes} times and limits of a and b; give one each a replicate, of one replicate or more")
    times, limits = np.array([times_a, times_b], dtype=float), np.array([limits_a, limits_b], dtype=float)
    if not (np.isfinite(limits) & (limits > 0)).all():
        raise ValueError(f"limits {limits.tolist()}; a limit is a number of steps above 0: leave incomplete pairs out")
    if ((times < 0) | (times > limits)).any():
        raise ValueError(f"times {times.tolist()}; a time is from 0 to the run's limit, or NaN without breakthrough")
    return times, limits.min(axis=0)

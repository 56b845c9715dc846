"""Noise dose-response: how much noise on a component's transferred weights halves the gain of the transfer."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from procpre_interp.core.seeding import numpy_stream
from procpre_interp.stats.resampling import (
    drawn_means,
    percentile_tail,
    replicate_bootstrap,
    resampled_bounds,
    resamples,
)

SLOPES = (0.3, 10.0)
"""Bounds of the fitted slope."""

REACH = 4
"""The fitted half dose lies between the smallest dose / 4 and the largest x 4."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HalfDose:
    """The half dose of one component, in units of the tensor's std; NaN where there is none."""

    component: str
    half_dose: float = np.nan
    low: float = np.nan
    high: float = np.nan
    slope: float = np.nan
    n: int
    """Replicates with all doses."""
    unbounded: float = np.nan
    """Probability of a resample without a gain, or whose fit is at a bound."""
    beyond: bool = False
    """Whether the half dose lies outside of the doses measured."""
    problem: str = ""
    """Why there is no half dose, or only a rough one."""
    detail: str = ""
    """The number behind the problem, in words."""

    @property
    def said(self) -> str:
        """The problem with its number."""
        return f"{self.problem}: {self.detail}" if self.detail else self.problem


def half_dose(
    table: pd.DataFrame, *, generator: np.random.Generator | None = None, n_resamples: int = 1000
) -> pd.DataFrame:
    """The noise at which half of a transfer's gain is left: one row per component, with the columns of `HalfDose`.

    `table` has columns component, noise_std (0: undamaged), replicate, value, and baseline: the value without any
    transfer in the same replicate. Fitted by least squares to the means over replicates:

        (mean value(d) - mean baseline) / (mean value(0) - mean baseline) = 1 / (1 + (d / half_dose)^slope)

    The 95 % interval resamples whole replicates, the same for all components: all distinct resamples up to n = 8, so
    that no seed moves it. A resample without a gain could have any half dose: it counts as the lower bound of the fit
    for `low` and as the upper one for `high`. `unbounded` is the probability of a resample without a gain, or whose fit
    is at a bound. `beyond` marks an estimate that lies outside of the doses measured. Without a gain in the means, or
    with a single dose above 0, the half dose is NaN and `problem` says why.

    Replicates that miss a dose of a component are left out of its row; n counts the rest. Raises `ValueError` for a
    component without dose 0 or without any above it, and for a replicate with two baselines.
    """
    values = _matrix(table)
    components = list(dict.fromkeys(table["component"]))
    some = np.any([values[component].notna().to_numpy().all(axis=1) for component in components], axis=0)
    values = values.loc[some] if some.any() else values
    replicates = len(values)
    generator = generator or numpy_stream(0, "half dose")
    draws, probability = resamples(replicates, n_resamples=n_resamples, generator=generator)
    weights = np.vstack([np.ones(replicates), draws])
    rows = []
    for component in components:
        complete = values[component].copy()
        missing = np.isnan(complete.to_numpy(dtype=float)).any(axis=1)
        complete.loc[missing] = np.nan
        found = HalfDose(component=component, n=int((~missing).sum()))
        if found.n == 0:
            rows.append(dataclasses.replace(found, problem="no replicate with all doses and a baseline"))
            continue
        if complete.shape[1] < 4:  # the baseline, dose 0 and one above it
            rows.append(dataclasses.replace(found, problem="a single dose, of which there is no curve"))
            continue
        baseline, intact, *damaged = drawn_means(weights, complete.to_numpy(dtype=float)).T
        # Drawn without a single complete replicate: no resample of this component.
        drawn = ~np.isnan(intact)
        gain, doses = (intact - baseline)[drawn], complete.columns.to_numpy(dtype=float)[2:]
        has_gain = gain > 0
        retained = (np.array(damaged)[:, drawn] - baseline[drawn])[:, has_gain] / gain[has_gain]
        bounds = doses.min() / REACH, doses.max() * REACH
        halves, slopes = (np.full(len(gain), np.nan) for _ in range(2))
        halves[has_gain], slopes[has_gain] = fit_half_dose(doses, retained.T)
        lows, highs = (np.where(has_gain, halves, bound)[1:] for bound in bounds)
        share = probability[drawn[1:]]
        unbounded = float(np.average((lows <= bounds[0]) | (highs >= bounds[1]), weights=share))
        found = dataclasses.replace(found, unbounded=unbounded)
        if not has_gain[0]:
            detail = f"the mean gain of the undamaged transfer is {gain[0]:.3g}"
            rows.append(dataclasses.replace(found, problem="no gain to halve", detail=detail))
            continue
        found = dataclasses.replace(found, half_dose=float(halves[0]), slope=float(slopes[0]))
        if not doses.min() <= halves[0] <= doses.max():
            problem = f"beyond the doses measured, which are from {doses.min():.3g} to {doses.max():.3g}"
            found = dataclasses.replace(found, beyond=True, problem=problem)
        if found.n > 1:
            ends = resampled_bounds(np.column_stack([lows, highs]), share, percentile_tail(found.n))
            found = dataclasses.replace(found, low=float(ends[0, 0]), high=float(ends[1, 1]))
        rows.append(found)
    return pd.DataFrame([dataclasses.asdict(row) for row in rows])


def dose_means(table: pd.DataFrame, *, generator: np.random.Generator | None = None) -> pd.DataFrame:
    """Mean value with 95 % bounds over replicates, one row per component and dose, and the mean `baseline` beside
    it."""
    values = _matrix(table)
    means = replicate_bootstrap(values, generator=generator).rename(columns={"estimate": "mean"})
    means = means.rename_axis(["component", "noise_std"]).reset_index()
    is_baseline = means["noise_std"] < 0
    baselines = means.loc[is_baseline].set_index("component")["mean"]
    means = means.loc[~is_baseline].reset_index(drop=True)
    return means.assign(baseline=means["component"].map(baselines))


def fit_half_dose(
    doses: Float[np.ndarray, " dose"], retained: Float[np.ndarray, "curve dose"], *, n_steps: int = 50
) -> tuple[Float[np.ndarray, " curve"], Float[np.ndarray, " curve"]]:
    """Half dose and slope of the least-squares fit of 1 / (1 + (d / half_dose)^slope) to each curve, doses above 0.

    The best point of a grid over the logarithms of both, then damped Gauss-Newton steps (Levenberg-Marquardt) within
    the bounds, each kept only where it fits better.
    """
    log_doses = np.log(doses)
    low = np.array([log_doses.min() - np.log(REACH), np.log(SLOPES[0])])
    high = np.array([log_doses.max() + np.log(REACH), np.log(SLOPES[1])])
    axes = [np.linspace(*bounds) for bounds in zip(low, high, (64, 24))]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    curves = _curve(log_doses, grid)
    # |r - f|^2 without |r|^2, which is the same for all points of the grid.
    best = grid[np.argmin((curves**2).sum(axis=1) - 2 * retained @ curves.T, axis=1)]
    damping = np.full(len(best), 1e-3)
    for _ in range(n_steps):
        curve = _curve(log_doses, best)
        left = retained - curve
        by_log_half = curve * (1 - curve) * np.exp(best[:, 1:])
        jacobian = np.stack([by_log_half, by_log_half * (best[:, :1] - log_doses)], axis=-1)
        downhill = np.einsum("cdp,cd->cp", jacobian, left)
        # A parameter that is held by its bound leaves the step to the other.
        held = ((best <= low) & (downhill < 0)) | ((best >= high) & (downhill > 0))
        jacobian = np.where(held[:, None], 0.0, jacobian)
        normal = np.einsum("cdp,cdq->cpq", jacobian, jacobian)
        normal += np.eye(2) * (damping[:, None] * np.einsum("cpp->cp", normal) + 1e-15)[:, None]
        step = np.linalg.solve(normal, np.where(held, 0.0, downhill)[..., None])[..., 0]
        moved = np.clip(best + np.clip(step, -1, 1), low, high)
        better = ((retained - _curve(log_doses, moved)) ** 2).sum(axis=1) < (left**2).sum(axis=1)
        best = np.where(better[:, None], moved, best)
        damping = np.clip(np.where(better, damping / 5, damping * 5), 1e-9, 1e9)
    half, slope = np.exp(best).T
    # exp(log(x)) may miss a bound by a rounding error, and bounds are told by comparison.
    half = np.where(best[:, 0] <= low[0], doses.min() / REACH, half)
    return np.where(best[:, 0] >= high[0], doses.max() * REACH, half), slope


def _curve(
    log_doses: Float[np.ndarray, " dose"], point: Float[np.ndarray, "*batch 2"]
) -> Float[np.ndarray, "*batch dose"]:
    """1 / (1 + (d / half_dose)^slope) at (log half dose, log slope)."""
    from scipy.special import expit

    return expit(np.exp(point[..., 1:]) * (point[..., :1] - log_doses))


def _matrix(table: pd.DataFrame) -> pd.DataFrame:
    """Replicates x (component, dose), doses ascending, after a first column of dose -1: the baseline."""
    columns = ["component", "noise_std", "replicate", "value", "baseline"]
    if table.empty or not set(columns) <= set(table.columns):
        raise ValueError(f"{len(table)} rows with columns {list(table)}; give {', '.join(columns)}")
    if table.duplicated(columns[:3]).any():
        raise ValueError("more than one row for a component, dose and replicate; keep one each")
    if not (table["noise_std"] >= 0).to_numpy().all():
        raise ValueError(f"noise_std {table['noise_std'].min()}; a dose is 0 or more")
    baselines = table.groupby("replicate")["baseline"]
    if (baselines.nunique(dropna=False) > 1).to_numpy().any():
        raise ValueError("a replicate with two baselines; give the value without any transfer, which is one")
    parts = {}
    for component in dict.fromkeys(table["component"]):
        part = table.loc[table["component"] == component].pivot(index="replicate", columns="noise_std", values="value")
        doses = part.columns.to_numpy(dtype=float)
        if doses[0] != 0 or len(doses) < 2:
            raise ValueError(f"{component}: doses {doses.tolist()}; give 0 (undamaged) and others above it")
        part.insert(0, -1.0, baselines.first())
        parts[component] = part
    return pd.concat(parts, axis=1).sort_index()

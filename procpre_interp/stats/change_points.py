"""When a measurement changes in training: level changes of a series, and when it stays above a threshold."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Real

Series = Real[np.ndarray, " _"] | Sequence[float | int]
"""Numbers in order."""
RESOLUTION = 1e-7
"""Share of a series' largest magnitude below which a residual counts as rounding and not as noise: that of float32."""


def change_points(x: Series, y: Series, *, max_changes: int = 3) -> pd.DataFrame:
    """Steps at which the level of a series changes: step_before, step, level_before, level_after, one row per change.

    `x` are the steps, `y` the values. For every number of changes m up to `max_changes` the best piecewise-constant
    fit is found by dynamic programming, and that m is taken which has the least

        n log(RSS / n) + n p log(n) / (n - p - 1),  p = 2 m + 2

    for n points: the Bayesian information criterion with McQuarrie's small-sample correction. The p parameters are
    m + 1 levels, m places and the variance. On independent noise fewer than 1 series in 10 shows a change, whatever
    its length; with BIC itself most series of 10 points do. So fewer than 6 points show none. Noise that is correlated
    from step to step shows more.

    Every point counts alike: only the order of the steps matters, not their spacing. A change lies after the last
    step of the old level, `step_before`, and at or before the first of the new one, `step`.

    Raises `ValueError` unless x and y have one length, x increases and all are finite.

    Source: Auger and Lawrence 1989 (segmentation); McQuarrie 1999 (the correction; there without the variance among
    the parameters).
    """
    steps, values = _series(x, y)
    if max_changes < 0:
        raise ValueError(f"max_changes={max_changes}; max_changes must be at least 0")
    n = len(steps)
    # n - p - 1 must be positive.
    allowed = [m for m in range(max_changes + 1) if n - (2 * m + 2) - 1 > 0]
    if not allowed or allowed[-1] == 0:
        return _table([], steps, values)
    starts, rss = _segmentations(values, allowed[-1])
    parameters = 2 * np.array(allowed) + 2
    floor = n * (RESOLUTION * np.abs(values).max()) ** 2
    if rss[0] <= floor:
        return _table([], steps, values)
    fit = n * np.log(np.maximum(rss, floor) / n)
    criterion = fit + n * parameters * np.log(n) / (n - parameters - 1)
    return _table(starts[int(np.argmin(criterion))], steps, values)


def formation_step(x: Series, y: Series, *, threshold: float | int) -> float:
    """First step from which the series stays at or above `threshold` to its end; NaN if it ends below (censored).

    Raises `ValueError` unless x and y have one length of at least 1, x increases and all are finite.
    """
    steps, values = _series(x, y)
    below = np.flatnonzero(values < threshold)
    first = int(below[-1]) + 1 if len(below) else 0
    return float(steps[first]) if first < len(steps) else float("nan")


def _series(x: Series, y: Series) -> tuple[Float[np.ndarray, " point"], Float[np.ndarray, " point"]]:
    """Both as numbers, checked."""
    steps, values = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if steps.ndim != 1 or steps.shape != values.shape or not len(steps):
        raise ValueError(
            f"x of shape {steps.shape}, y of shape {values.shape}; give as many steps as values, one or more"
        )
    if not np.isfinite(steps).all() or not np.isfinite(values).all():
        raise ValueError("a series has a step or value that is not finite; leave such points out")
    if (np.diff(steps) <= 0).any():
        place = int(np.argmax(np.diff(steps) <= 0))
        raise ValueError(f"x goes from {steps[place]:g} to {steps[place + 1]:g}; sort the series, one value per step")
    return steps, values


def _segmentations(
    values: Float[np.ndarray, " point"], max_changes: int
) -> tuple[list[Int[np.ndarray, " change"]], Float[np.ndarray, " n_changes"]]:
    """The best fit for each number of changes, starting at 0: where the best fit's new levels start, and its residual
    sum of squares."""
    n = len(values)
    centred = values - values.mean()
    sums, squares = (np.concatenate([[0.0], np.cumsum(power)]) for power in (centred, centred**2))
    # Of the first j points with m changes: best[m, j] is the residual sum of squares, start[m, j] where the last level
    # starts.
    best = np.full((max_changes + 1, n + 1), np.inf)
    start = np.zeros((max_changes + 1, n + 1), dtype=int)
    for end in range(1, n + 1):
        begin = np.arange(end)
        within = squares[end] - squares[:end] - (sums[end] - sums[:end]) ** 2 / (end - begin)
        within = np.maximum(within, 0.0)
        best[0, end] = within[0]
        totals = best[:-1, :end] + within
        start[1:, end] = np.argmin(totals, axis=1)
        best[1:, end] = totals.min(axis=1)
    starts = []
    for m in range(max_changes + 1):
        places = np.zeros(m, dtype=int)
        end = n
        for change in range(m, 0, -1):
            end = places[change - 1] = start[change, end]
        starts.append(places)
    return starts, best[:, n]


def _table(
    starts: Int[np.ndarray, " change"] | list[int],
    steps: Float[np.ndarray, " point"],
    values: Float[np.ndarray, " point"],
) -> pd.DataFrame:
    """The rows of `change_points`."""
    edges = [0, *(int(start) for start in starts), len(steps)]
    levels = [values[begin:end].mean() for begin, end in pairwise(edges)]
    inner = np.array(edges[1:-1], dtype=int)
    columns = {"step_before": steps[inner - 1], "step": steps[inner]}
    return pd.DataFrame({**columns, "level_before": levels[:-1], "level_after": levels[1:]}, dtype=float)

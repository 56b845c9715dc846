"""Variance between and within seeds of both phases."""

import numpy as np
import pandas as pd
from jaxtyping import Float

from procpre_interp.core.seeding import numpy_stream
from procpre_interp.stats.resampling import N_RESAMPLES, percentile_tail


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

    `values` has a row per phase-1 seed, a column per phase-2 seed. `variance` is that of `variance_components`, and 0
    with the flag `negative` where its estimate is below; `share` is its share of their sum. Rows and columns are
    resampled independently (the pigeonhole bootstrap). A resample repeats seeds, which shrinks mean squares; each is
    corrected so that its components are on average those of the data. Bounds are expanded percentiles, cut off at 0:
    with 5 to 12 seeds a side and normal effects they covered 91 to 100 % in our simulations. Source: Owen 2007, The
    pigeonhole bootstrap; Brennan 2007, Unbiased estimates of variance components with bootstrap procedures (the
    correction).
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

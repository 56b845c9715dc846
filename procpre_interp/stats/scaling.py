"""How a gain changes with the size of the model, within the sizes that were measured."""

import numpy as np
import pandas as pd

from procpre_interp.core.seeding import numpy_stream
from procpre_interp.stats.resampling import replicate_bootstrap

FEWEST_SIZES = 4
"""Sizes that a trend is fitted to at least: with three, one odd one decides."""


def gain_trend(gains: pd.DataFrame, *, generator: np.random.Generator | None = None) -> pd.DataFrame:
    """Gains at each size, the line that is fitted to them, and its slope, with intervals, as one table.

    `gains` has a row per replicate and a column per size, named by the number of parameters; a replicate without all
    sizes is left out. In each replicate g = a + b log10(parameters) is fitted by least squares; whole replicates are
    then resampled, so that what one has in common at all sizes does not count as a trend. Rows, by `kind`: measured and
    fitted, one per size, and slope, the change of the gain for ten times the parameters (`n_parameters` is NaN).
    Columns: kind, n_parameters, estimate, low, high, n.

    Raises `ValueError` for fewer than four sizes, or where no replicate has all of them.
    """
    numbered = gains.set_axis([float(column) for column in gains.columns], axis=1).sort_index(axis=1)
    sizes = numbered.columns.to_numpy(dtype=float)
    if len(set(sizes)) < FEWEST_SIZES:
        raise ValueError(f"{len(set(sizes))} sizes; a trend wants at least {FEWEST_SIZES}")
    whole = numbered.dropna()
    if whole.empty:
        raise ValueError("no replicate has all sizes, so there is no trend yet; the same command goes on from here")
    decades = np.log10(sizes)
    centred = decades - decades.mean()
    values = whole.to_numpy(dtype=float)
    slopes = values @ centred / (centred @ centred)
    fitted = values.mean(1, keepdims=True) + np.outer(slopes, centred)
    columns = [("measured", size) for size in sizes] + [("fitted", size) for size in sizes] + [("slope", np.nan)]
    matrix = pd.DataFrame(np.column_stack([values, fitted, slopes]), index=whole.index)
    bounds = replicate_bootstrap(matrix, generator=generator or numpy_stream(0, "scaling")).reset_index(drop=True)
    return pd.concat([pd.DataFrame(columns, columns=["kind", "n_parameters"]), bounds], axis=1)


def describe_trend(trend: pd.DataFrame, *, unit: str) -> str:
    """What a `gain_trend` says, and what it does not: one sentence on the measured sizes, one on all others."""
    slope = trend.loc[trend["kind"] == "slope"].iloc[0]
    sizes = trend.loc[trend["kind"] == "measured", "n_parameters"]
    n, change = int(slope["n"]), f"{slope['estimate']:+.3f}"
    if not np.isnan(slope["low"]):
        change += f" [{slope['low']:+.3f}, {slope['high']:+.3f}]"
    return (
        f"From {sizes.min():,.0f} to {sizes.max():,.0f} parameters the gain changes by {change} "
        f"{unit} for each factor of ten (n = {n}). Nothing is said of models outside of these sizes."
    )

"""What a contrast compares: its cells, their values in each replicate, and what is missing of them."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from procpre_interp.claims.claim import Contrast
from procpre_interp.stats.confidence_sequence import Limits
from procpre_interp.stats.summary import replicate_matrix, restricted_time

OBSERVED = "observed"
"""Column that is true of rows that were measured on runs, and are none themselves."""


def trained(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that are runs; those that were measured on runs were neither trained nor tested."""
    return table.loc[~table[OBSERVED].fillna(False).astype(bool)] if OBSERVED in table else table


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


def contrast_limits(
    contrast: Contrast, table: pd.DataFrame, limits: Mapping[str, Limits] | None = None
) -> Limits | None:
    """Smallest and largest value that the contrast could have; None for a measure whose range is not known.

    Accuracies and answers right are shares, times to breakthrough at most the limit; `limits` are those of further
    measures.
    """
    of_measure = dict(limits or {}).get(contrast.measure)
    if contrast.measure in ("accuracy", "exact_match", "answers_right"):
        of_measure = Limits(low=0, high=1)
    elif contrast.measure == "restricted_time_steps" and "limit" in table:
        steps = table["limit"].to_numpy(dtype=float)
        known = steps[np.isfinite(steps)]
        of_measure = Limits(low=0, high=float(known.max())) if len(known) else None
    if of_measure is None:
        return None
    weights = np.array([float(weight) for weight in contrast.weights.values()])
    more, less = weights.clip(min=0).sum(), -weights.clip(max=0).sum()
    low, high = more * of_measure.low - less * of_measure.high, more * of_measure.high - less * of_measure.low
    return Limits(low=float(low), high=float(high))

"""How much of a transfer's gain something cheaper recovers, with its interval. Tables in, tables out; no torch."""

import numpy as np
import pandas as pd
from jaxtyping import Float

from procpre_interp.stats.baselines import BASELINE
from procpre_interp.stats.resampling import drawn_means, paired_gains, replicate_bootstrap

FULL = "intact"
"""Condition whose gain counts as 1: the real transfer."""


def recovered_shares(table: pd.DataFrame, *, full: str = FULL, baseline: str = BASELINE) -> pd.DataFrame:
    """Share of the full transfer's gain in accuracy that each condition has: condition, label, estimate, low, high, n.

    A ratio of mean gains over the baseline, over the replicates that have the condition, the baseline and the full
    transfer; whole replicates are drawn, for gain and full gain together. It may be above 1, or below 0. Rows in the
    order of the table, without baseline and full transfer. Raises `ValueError` where one of these has no finished run,
    or the full transfer gains nothing, of which there are no shares.
    """
    there = set(table.loc[table["status"] == "finished", "condition"])
    missing = [name for name in (baseline, full) if name not in there]
    if missing:
        raise ValueError(
            f"shares of a gain need finished runs of {full!r} and {baseline!r}; no {missing[0]!r} is there"
        )
    gains = paired_gains(table, baseline).dropna(subset=full)
    whole = gains.pop(full).to_numpy(dtype=float)
    if not len(whole) or not whole.mean() > 0:
        raise ValueError(f"{full!r} gains nothing over {baseline!r}: there is nothing to have a share of")

    def ratio(
        weights: Float[np.ndarray, "resample replicate"], values: Float[np.ndarray, "replicate column"]
    ) -> Float[np.ndarray, "resample column"]:
        same = np.where(np.isnan(values), np.nan, whole[:, None])
        bottom = drawn_means(weights, same)
        return np.divide(drawn_means(weights, values), bottom, out=np.full_like(bottom, np.nan), where=bottom != 0)

    labels = dict(zip(table["condition"], table["label"]))
    found = replicate_bootstrap(gains, ratio).rename_axis("condition").reset_index()
    found.insert(1, "label", [labels[name] for name in found["condition"]])
    return found

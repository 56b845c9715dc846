"""Results on text: the test loss of each condition, and how far it lies below that of no pretraining."""

import numpy as np
import pandas as pd

from procpre_interp.core.seeding import numpy_stream
from procpre_interp.stats.baselines import baselines, changes
from procpre_interp.stats.resampling import replicate_bootstrap, replicate_matrix

MEANS = (
    *("bits_per_byte", "perplexity", "answers_right", "epochs", "tokens", "phase1_teraflops", "teraflops"),
    *("total_tokens", "total_teraflops"),
)
"""What is averaged over replicates, where the table has it."""


def summarise_losses(
    table: pd.DataFrame, *, baseline: str = "none", generator: np.random.Generator | None = None
) -> pd.DataFrame:
    """One row per condition of a table with one row per condition and replicate, in the table's order.

    Loss in nats per token on the test set, and its gain, which is how far it lies below that of its baseline
    (`baselines.baselines`) in the same replicate: above 0 is better. Diverged runs have neither, and are counted in
    `diverged`: `n` is the number of losses, `gain_n` that of pairs. The mean perplexity is that of the mean loss.
    Raises `ValueError` for a table without rows.
    """
    if table.empty:
        raise ValueError("the table has no rows: no run of this experiment is finished")
    generator = generator or numpy_stream(0, "bootstrap")
    losses = replicate_matrix(table, "loss_nats")
    measures = {"loss_nats": losses}
    if bases := baselines(table, baseline):
        measures["gain"] = -changes(losses, bases)
    groups = table.groupby("condition", sort=False)
    summary = pd.DataFrame({"label": groups["label"].first(), "n": groups["loss_nats"].count()})
    summary["diverged"] = (table["status"] == "diverged").groupby(table["condition"]).sum()
    for name in ("loss_nats", "gain"):
        bounds = replicate_bootstrap(measures[name], generator=generator) if name in measures else None
        for column, source in (("mean", "estimate"), ("low", "low"), ("high", "high")):
            summary[f"{name}_{column}"] = np.nan if bounds is None else bounds[source]
    known = measures["gain"].notna().sum() if "gain" in measures else pd.Series(dtype=int)
    summary["gain_n"] = known.reindex(summary.index, fill_value=0)
    for name in MEANS:
        if name in table:
            summary[name] = groups[name].mean()
    if "perplexity" in table:
        summary["perplexity"] = np.exp(summary["loss_nats_mean"])
    return summary.reset_index()

"""What phase 1 saves: tokens and compute that a condition needs until its loss is the final one of no pretraining.

Substitutive: where the validation curve of a condition first reaches the final validation loss of its own replicate's
baseline, whose budget is counted in the same way, up to where *its* curve first has that loss. So a baseline that
overfits, or whose curve is noisy, saves nothing against itself. Additive: the difference of the test losses once both
have had all their tokens, and what phase 1 costs beside them.

Between two evaluations the loss is interpolated linearly in the logarithm of the tokens: losses on text fall about as a
power of them, and a chord in plain tokens lies above such a curve, so that it gives too many. On byte models of which
every tenth evaluation was kept, it gave 1.0 and 1.4 % too many (constant rate, cosine), and the logarithm .1 and .5 %;
the scatter, 3 %, was the same. From step 0, of which there is no logarithm, it is linear in tokens.

A schedule that ends at zero is laid out over all tokens. So a run that was planned for fewer would have reached the
loss sooner than this curve does, and what is saved is estimated too low.

A run that never reaches the loss, or diverged, is counted with its whole budget, or the baseline's where that is
larger: it saves nothing, and the mean is that of a restricted saving, which is at least the true one. How many did
reach it stands beside it.

Intervals are those of the bootstrap over whole replicates, the same for every condition, as in all tables that
describe conditions: savings are skewed and, with runs that never get there, partly constant, for which the t mixture of
`t_sequence` is not made, and it says nothing before n = 6. A verdict that may be looked at as replicates come in needs
a sequence: a claim has the shares of `replicate_savings` as a measure, and there the rule of claims chooses it.
"""

import math

import numpy as np
import pandas as pd
from jaxtyping import Float

from procpre_interp.core.messages import unknown_name
from procpre_interp.stats.baselines import baselines
from procpre_interp.stats.resampling import constant_bounds, replicate_bootstrap, replicate_matrix
from procpre_interp.stats.rows import named_rows

SPENT = {"tokens_saved": "phase1_tokens_share", "compute_saved": "phase1_compute_share"}
"""What of phase 1 is counted against a share."""
SHARES = {
    "semantic_saved": "tokens of phase 2",
    "tokens_saved": "tokens of both phases",
    "compute_saved": "compute of both phases",
}
"""What is saved, as shares of the baseline's budget; the last two have phase 1 counted against it."""
MEASURES = (*SHARES, "loss_change_nats", "phase1_tokens_share", "phase1_compute_share")
"""Columns of `replicate_savings` that `summarise_savings` takes means of."""
ROWS = ("condition", "label", "replicate", "reached", "target_loss_nats", "tokens_needed", "baseline_tokens", *MEASURES)
"""Columns of `replicate_savings`."""


def tokens_to_loss(
    tokens: Float[np.ndarray, " evaluation"], loss_nats: Float[np.ndarray, " evaluation"], target: float | int
) -> float:
    """Tokens at which a curve first comes down to the target, interpolated; NaN where it never does."""
    below = np.flatnonzero(loss_nats <= target)
    if not len(below):
        return math.nan
    after = int(below[0])
    if after == 0:
        return float(tokens[0])
    (start, end), (high, low) = tokens[after - 1 : after + 1], loss_nats[after - 1 : after + 1]
    if low == target:  # which a power would miss by a rounding error
        return float(end)
    share = float((high - target) / (high - low))
    return float(start + share * (end - start) if start <= 0 else start * (end / start) ** share)


def replicate_savings(table: pd.DataFrame, curves: pd.DataFrame, *, baseline: str = "none") -> pd.DataFrame:
    """One row per condition with pretraining and replicate: what it saves of the budget of its baseline
    (`baselines.baselines`) in that replicate.

    `table` has one row per cell (see `store.cells`); `curves` one row per evaluation: condition, replicate, split,
    tokens and loss_nats. A replicate without a finished baseline is left out, or with one that ended no better than it
    began, and so is a cell without a curve.
    `reached` is whether the loss was; `tokens_needed` the tokens until then, or what is counted where it was not.
    Raises `ValueError` for an unknown baseline.
    """
    if baseline not in set(table["condition"]):
        raise unknown_name("baseline condition", baseline, list(dict.fromkeys(table["condition"])))
    seen = curves.loc[curves["split"] == "validation"]
    if "task_length" in seen:  # evaluations of a curriculum are of easier tasks
        seen = seen.loc[seen["task_length"].isna()]
    drawn = {
        key: (rows["tokens"].to_numpy(dtype=float), rows["loss_nats"].to_numpy(dtype=float))
        for key, rows in seen.groupby(["condition", "replicate"])
    }
    budgets = table.reindex(columns=list(dict.fromkeys([*table, "phase1_tokens", "phase1_teraflops", "teraflops"])))
    compared, cells = baselines(table, baseline), {(row.condition, row.replicate): row for row in named_rows(budgets)}
    rows = []
    for row in named_rows(budgets.loc[budgets["condition"].isin(list(compared))]):
        key = compared[row.condition], row.replicate
        base, curve, base_curve = cells.get(key), drawn.get((row.condition, row.replicate)), drawn.get(key)
        if base is None or base.status != "finished" or curve is None or base_curve is None:
            continue
        target = float(base_curve[1][-1])
        budget = tokens_to_loss(*base_curve, target)
        if budget <= 0:  # it ended no better than it began, so there is nothing to save
            continue
        found = tokens_to_loss(*curve, target) if row.status == "finished" else math.nan
        needed = max(float(row.tokens), budget) if math.isnan(found) else found
        # All of a run's tokens cost the same: sequences have one length.
        compute, base_compute = row.teraflops * needed / row.tokens, base.teraflops * budget / base.tokens
        rows.append(
            {
                "condition": row.condition,
                "label": row.label,
                "replicate": row.replicate,
                "reached": not math.isnan(found),
                "target_loss_nats": target,
                "tokens_needed": needed,
                "baseline_tokens": budget,
                "semantic_saved": 1 - needed / budget,
                "tokens_saved": 1 - (needed + row.phase1_tokens) / budget,
                "compute_saved": 1 - (compute + row.phase1_teraflops) / base_compute,
                "loss_change_nats": row.loss_nats - base.loss_nats if row.status == "finished" else math.nan,
                "phase1_tokens_share": row.phase1_tokens / budget,
                "phase1_compute_share": row.phase1_teraflops / base_compute,
            }
        )
    return pd.DataFrame(rows, columns=list(ROWS))


def summarise_savings(savings: pd.DataFrame) -> pd.DataFrame:
    """One row per condition of `replicate_savings`: label, n, how many `reached` the loss, and of each of `MEASURES`
    the mean over replicates with its 95 % bounds, as `NAME_mean`, `NAME_low` and `NAME_high`."""
    groups = savings.groupby("condition", sort=False)
    summary = pd.DataFrame({"label": groups["label"].first(), "n": groups.size(), "reached": groups["reached"].sum()})
    for name in MEASURES:
        matrix = replicate_matrix(savings, name)
        bounds = replicate_bootstrap(matrix) if len(matrix) else pd.DataFrame(columns=["estimate", "low", "high"])
        if name in SHARES:
            spent = replicate_matrix(savings, SPENT[name]) if name in SPENT else 0.0 * matrix
            bounds = _with_constant_bounds(bounds, matrix, spent)
        for column, source in (("mean", "estimate"), ("low", "low"), ("high", "high")):
            summary[f"{name}_{column}"] = bounds[source]
    return summary.reset_index()


def _with_constant_bounds(bounds: pd.DataFrame, matrix: pd.DataFrame, spent: pd.DataFrame) -> pd.DataFrame:
    """The bounds; where all replicates are alike, as when none reached the loss, those of `constant_bounds`: others may
    save, or lose, a whole budget, apart from what all of them `spent` on phase 1."""
    changed = bounds.astype({"low": float, "high": float})
    for name in matrix:
        saved = (matrix[name] + spent[name]).dropna().to_numpy(dtype=float)
        if len(saved) > 1 and np.ptp(saved) <= 1e-9:
            limits = np.array(constant_bounds(float(saved[0]), len(saved), 1.0))
            changed.loc[name, ["low", "high"]] = limits - float(spent[name].to_numpy(dtype=float).mean())
    return changed

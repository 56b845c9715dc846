"""Hidden progress: what changes inside a model before its accuracy does, and by how many steps."""

import math
from collections.abc import Iterable

import numpy as np
import pandas as pd

from procpre_interp.analysis.over_training import PLACE, over_training
from procpre_interp.data.semantic.text import text_of
from procpre_interp.pipeline.execute import load_task
from procpre_interp.probe.plateau import plateau_table
from procpre_interp.stats.change_points import change_points
from procpre_interp.store.store import Run, RunStore

CURVE = ["run", "replicate", "phase", "task", "measure", "layer", "head"]
"""What names one curve of a measure."""


def hidden_progress(runs: Iterable[Run], store: RunStore, *, n_sequences: int = 128) -> pd.DataFrame:
    """The measures of `plateau_table` at every kept checkpoint (`over_training`), with breakthrough_step: that of the
    run, on phase 2 (or of a run without parents), NaN without one.

    The loss on text falls smoothly, and no accuracy is a breakthrough: there it is the `half_loss_step`.
    """
    opened = list(runs)
    found = over_training(
        opened,
        store,
        lambda model, batch, task: plateau_table(model, batch),
        label="hidden progress",
        n_sequences=n_sequences,
    )
    broke = pd.Series({run.id: _breakthrough(run) for run in opened}, dtype=float)
    last = found.groupby("run")["phase"].transform("max")
    steps = pd.Series(broke.reindex(found["run"]).to_numpy(), found.index).where(found["phase"] == last)
    columns = [*PLACE, "measure", "layer", "head", "value", "reference", "breakthrough_step"]
    return found.assign(breakthrough_step=steps).loc[:, columns]


def half_loss_step(history: pd.DataFrame) -> float:
    """The first evaluation at which half of the fall of the validation loss was made, from the first to the lowest; NaN
    where it never fell."""
    curve = history.loc[history["split"] == "validation"].sort_values("step")
    loss = curve["loss_nats"].to_numpy(dtype=float)
    if not len(loss) or not np.nanmin(loss) < loss[0]:
        return math.nan
    return float(curve["step"].to_numpy()[np.argmax(loss <= (loss[0] + np.nanmin(loss)) / 2)])


def _breakthrough(run: Run) -> float | None:
    return run.summary["breakthrough_step"] if text_of(load_task(run)) is None else half_loss_step(run.history())


def lead_times(table: pd.DataFrame) -> pd.DataFrame:
    """How long before the breakthrough each measure began to change: one row per curve of the phase that broke through.

    Columns: those of `CURVE`; step_before and step, the kept checkpoints between which the level of the measure changed
    first (`change_points`), NaN where it never did; level_before and level_after; breakthrough_step; and lead_steps,
    breakthrough_step - step. A change can only be placed between two kept checkpoints, and its lead is the smaller of
    what is possible: a measure that changes in the same interval as the accuracy has a lead of about zero. Checkpoints
    without a value are left out. Raises `ValueError` where no run broke through.
    """
    rows = table.dropna(subset=["breakthrough_step"])
    if rows.empty:
        raise ValueError("none of these runs broke through, so that nothing leads")
    found = []
    for _, curve in rows.groupby(CURVE, sort=False, dropna=False):
        known = curve.dropna(subset=["value"]).sort_values("step")
        if known.empty:
            continue
        changes = change_points(known["step"].to_numpy(), known["value"].to_numpy())
        first = changes.iloc[0].to_dict() if len(changes) else dict.fromkeys(changes.columns, math.nan)
        broke = float(known["breakthrough_step"].iloc[0])
        found.append(
            {**known.iloc[0][CURVE].to_dict(), **first, "breakthrough_step": broke, "lead_steps": broke - first["step"]}
        )
    return pd.DataFrame(found)

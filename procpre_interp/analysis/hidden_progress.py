"""Hidden progress: what changes inside a model before its accuracy does, and by how many steps."""

import math
from collections.abc import Iterable

import pandas as pd

from procpre_interp.analysis.over_training import PLACE, over_training
from procpre_interp.probe.plateau import plateau_table
from procpre_interp.stats.change_points import change_points
from procpre_interp.store.store import Run, RunStore

CURVE = ["run", "replicate", "phase", "task", "measure", "layer", "head"]
"""What names one curve of a measure."""


def hidden_progress(runs: Iterable[Run], store: RunStore, *, n_sequences: int = 128) -> pd.DataFrame:
    """The measures of `plateau_table` at every kept checkpoint (`over_training`), with breakthrough_step: that of the
    run, on phase 2 (or of a run without parents), NaN without one."""
    opened = list(runs)
    found = over_training(
        opened,
        store,
        lambda model, batch, task: plateau_table(model, batch),
        label="hidden progress",
        n_sequences=n_sequences,
    )
    broke = pd.Series({run.id: run.summary["breakthrough_step"] for run in opened}, dtype=float)
    last = found.groupby("run")["phase"].transform("max")
    steps = pd.Series(broke.reindex(found["run"]).to_numpy(), found.index).where(found["phase"] == last)
    columns = [*PLACE, "measure", "layer", "head", "value", "reference", "breakthrough_step"]
    return found.assign(breakthrough_step=steps).loc[:, columns]


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

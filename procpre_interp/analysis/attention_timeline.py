"""Developmental timelines: what each head attends to at every kept checkpoint of both phases, and when that forms."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import pandas as pd

from procpre_interp.analysis.over_training import over_training
from procpre_interp.core.messages import unknown_name
from procpre_interp.data.task import Batch, Task
from procpre_interp.model import HookedTransformer
from procpre_interp.probe.attention import attention_scores
from procpre_interp.probe.targets import TARGETS, targets_of
from procpre_interp.stats.change_points import change_points, formation_step
from procpre_interp.store.store import Run, RunStore

COLUMNS = ["run", "replicate", "phase", "task", "step", "axis_step", "layer", "head", "score", "value", "uniform"]
"""Columns of a timeline."""
HEAD = ["run", "replicate", "phase", "task", "layer", "head", "score"]
"""What names one curve of a timeline."""


def timeline(
    run: Run, store: RunStore, *, n_sequences: int = 128, targets: Iterable[str] | None = None
) -> pd.DataFrame:
    """Attention scores at every kept checkpoint of a run and of its parent, one row per checkpoint, head and score.

    Columns: run, replicate, phase, task, step, axis_step, as `over_training` gives them; layer, head, score, value,
    uniform, as `probe.attention.attention_scores` does. `targets` are names in `probe.targets.TARGETS`, of which each
    phase has those that its task has; by default all.

    Raises `ValueError` for an unknown target, and for a run that keeps no weights.
    """
    return timelines([run], store, n_sequences=n_sequences, targets=targets)


def timelines(
    runs: Iterable[Run], store: RunStore, *, n_sequences: int = 128, targets: Iterable[str] | None = None
) -> pd.DataFrame:
    """The timelines of several runs, one below the other, as `timeline` has them. A shared parent is measured once.

    Raises `ValueError` for no runs, an unknown target, and a run that keeps no weights.
    """
    names = list(TARGETS if targets is None else targets)
    for name in names:
        if name not in TARGETS:
            raise unknown_name("target", name, list(TARGETS))

    def measure(model: HookedTransformer, batch: Batch, task: Task) -> pd.DataFrame:
        chosen = [name for name in targets_of(task) if name in names]
        return attention_scores(model, batch, task, targets=chosen)

    table = over_training(runs, store, measure, label="attention timeline", n_sequences=n_sequences)
    return table.loc[:, COLUMNS]


def formation(table: pd.DataFrame, score: str, threshold: float | int) -> pd.DataFrame:
    """When each head's score reaches a threshold for good: one row per run, phase, layer and head of a timeline.

    `formation_step` is the first checkpoint of the phase from which the score stays at or above `threshold` to the
    phase's end, and `axis_step` the same on the common axis; both are NaN where it ends below (censored). The score was
    reached after `step_before`, the checkpoint before, which is NaN where the first one is above already. `final` is
    the value at the last checkpoint, and `uniform` that of even attention there. `strongest` marks the head with the
    largest `final` of each run and phase. Checkpoints without a value (a diverged model's) are left out, and a head
    without any has no row.

    Raises `ValueError` for a score that the table does not have.
    """
    formed = []
    for place, curve in _curves(table, score):
        steps = curve["step"].to_numpy()
        step = formation_step(steps, curve["value"].to_numpy(), threshold=threshold)
        last = curve.iloc[-1].to_dict()
        formed.append(
            {
                **place,
                "threshold": float(threshold),
                "step_before": float(max(steps[steps < step], default=math.nan)),
                "formation_step": step,
                "axis_step": step + float(last["axis_step"] - last["step"]),
                "final": float(last["value"]),
                "uniform": float(last["uniform"]),
            }
        )
    columns = [*HEAD, "threshold", "step_before", "formation_step", "axis_step", "final", "uniform"]
    heads = pd.DataFrame(formed, columns=columns)
    # Of equal ones the first, in the order of layers and heads that the timeline has.
    ranks = heads.groupby(["run", "phase"])["final"].rank(method="first", ascending=False)
    return heads.assign(strongest=ranks == 1)


def score_changes(table: pd.DataFrame, score: str, *, max_changes: int = 3) -> pd.DataFrame:
    """When the level of each head's score changes: one row per change, none for a head whose score stays.

    Columns run, replicate, phase, task, layer, head, score, those of `change_points` (step_before, step, level_before,
    level_after) and axis_step, the step on the common axis. Changes are found within a phase, whose sequences are
    others than the next one's. Raises `ValueError` for a score that the table does not have.
    """
    tables = []
    for place, curve in _curves(table, score):
        found = change_points(curve["step"].to_numpy(), curve["value"].to_numpy(), max_changes=max_changes)
        start = int(curve["axis_step"].iloc[0]) - int(curve["step"].iloc[0])
        named = pd.DataFrame(place, index=found.index)
        tables.append(named.join(found).assign(axis_step=found["step"] + start))
    return pd.concat(tables, ignore_index=True)


def _curves(table: pd.DataFrame, score: str) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Each head's score over the steps of a phase that have a value, and what names it."""
    rows = table.loc[table["score"] == score]
    if rows.empty:
        raise unknown_name("score of the timeline", score, list(dict.fromkeys(table["score"])))
    for _, curve in rows.dropna(subset=["value"]).groupby(HEAD, sort=False):
        yield curve.iloc[0][HEAD].to_dict(), curve.sort_values("step")

"""One measurement at every kept checkpoint of runs and of the phase 1 that they come from."""

from collections.abc import Callable, Iterable
from itertools import groupby

import pandas as pd

from procpre_interp.core.seeding import stream
from procpre_interp.data.task import Batch, Task
from procpre_interp.model import HookedTransformer
from procpre_interp.pipeline.lineage import kept_steps
from procpre_interp.store.store import Run, RunStore
from procpre_interp.train.process import run_threads

PLACE = ["run", "replicate", "phase", "task", "step", "axis_step"]
"""Columns that say of what checkpoint a row is."""

Measure = Callable[[HookedTransformer, Batch, Task], pd.DataFrame]


def over_training(
    runs: Iterable[Run], store: RunStore, measure: Measure, *, label: str, n_sequences: int = 128
) -> pd.DataFrame:
    """What `measure` gives at every kept checkpoint of each run and of the phases before it, behind the columns of
    `PLACE`.

    A phase before it is shown up to the checkpoint that it gave, as it was before any damage, and bears the id of the
    run itself. A run without parents is phase 1 alone. `replicate` is the run's seed, `step` that of the phase, and
    `axis_step` puts all phases on one axis, where each starts at the last step of the one before: that step occurs
    twice, before and after the transfer.

    Each phase is measured on `n_sequences` fresh sequences of its own task, drawn from the stream `label`, the same at
    all its checkpoints and in every condition of a replicate. A shared parent is measured once.

    Raises `ValueError` for no runs, and for a run that keeps no weights.
    """
    measured: dict[tuple[str, tuple[int | None, ...], int], pd.DataFrame] = {}
    tables = []
    for run in {run.id: run for run in runs}.values():
        replicate, start = run.seed, 0
        for phase, group in groupby(kept_steps(run, store), key=lambda moment: moment.phase):
            found = list(group)
            known = found[0].source.id, tuple(moment.step for moment in found), replicate
            if known not in measured:
                task = found[0].task
                task.prepare()
                # Not `held_out`: no score is made of these, and telling splits apart takes seconds.
                batch = task.probe_batch(n_sequences, generator=stream(replicate, label, task.stream_label))
                with run_threads(1):  # whose number changes last bits
                    parts = [
                        measure(moment.model(store), batch, task).assign(step=moment.step, task=task.name)
                        for moment in found
                    ]
                measured[known] = pd.concat(parts, ignore_index=True)
            table = measured[known]
            labels = {"run": run.id, "replicate": replicate, "phase": phase}
            start -= found[0].source.first_step
            table = table.assign(**labels, axis_step=table["step"] + start)
            tables.append(table[[*PLACE, *table.columns.drop(PLACE)]])
            start += found[-1].step or 0
    if not tables:
        raise ValueError("no runs to measure over training; give at least one")
    return pd.concat(tables, ignore_index=True)

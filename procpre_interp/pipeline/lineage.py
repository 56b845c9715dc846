"""The models that a two-phase run passed through, each with the task that it does or is about to do."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from procpre_interp.data import Task
from procpre_interp.model import HookedTransformer
from procpre_interp.pipeline.execute import fresh_model, load_model, run_config, transplant_into
from procpre_interp.store.store import Run, RunStore
from procpre_interp.train import Trainer

StageName = Literal["phase1_fresh", "phase1", "fresh", "transplanted", "finished"]
STAGES: dict[StageName, str] = {
    "phase1_fresh": "before phase 1",
    "phase1": "after phase 1",
    "fresh": "before phase 2, without transfer",
    "transplanted": "before phase 2, transplanted",
    "finished": "after phase 2",
}
"""Stage -> description, in the order in which the models come about."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A model on its way, and its task: phase 1's up to `phase1`, phase 2's from `fresh` on."""

    name: StageName
    model: HookedTransformer
    task: Task


def over_runs(
    runs: Iterable[Run],
    store: RunStore,
    measure: Callable[[HookedTransformer, Task], pd.DataFrame],
    *,
    stage: StageName = "finished",
) -> pd.DataFrame:
    """A measurement on one stage of many runs, one table below the other: run, replicate and stage first.

    `measure` is called with each model and its task: `lambda model, task: weight_table(model)`. Raises `ValueError` for
    no runs, and for a stage that a run does not have.
    """
    tables = []
    for run in runs:
        found = stages(run, store)
        check_stage(run, found, stage)
        table = measure(found[stage].model, found[stage].task)
        place = {"run": run.id, "replicate": run.seed, "stage": stage}
        tables.append(pd.DataFrame(place, index=table.index).join(table))
    if not tables:
        raise ValueError("no runs to measure; give at least one")
    return pd.concat(tables, ignore_index=True)


def check_stage(run: Run, found: dict[StageName, Stage], stage: StageName) -> None:
    """Raise `ValueError` where a run's stages lack one."""
    if stage not in found:
        raise ValueError(f"run {run.id} has no parents, so no stage {stage!r}; there are: {', '.join(found)}")


def stages(run: Run, store: RunStore) -> dict[StageName, Stage]:
    """The stages of a run; without parents there is neither a phase 1 nor a transplant.

    Of several parents the first is phase 1. Fresh and transplanted models are made again from the config, bit for bit,
    and are what training began with, but for interventions on initial weights (`starting_model`). Raises `ValueError`
    for a parent that is missing or damaged.
    """
    config = run_config(run)
    found = [Stage("fresh", fresh_model(config), config.task), Stage("finished", load_model(run), config.task)]
    if config.parents:
        parent = store.open(config.parents[0].run)
        before = run_config(parent)
        transplanted = fresh_model(config)
        transplant_into(transplanted, config, store, stored=True)
        found += [
            Stage("phase1_fresh", fresh_model(before), before.task),
            Stage("phase1", load_model(parent, config.parents[0].step), before.task),
            Stage("transplanted", transplanted, config.task),
        ]
    named = {stage.name: stage for stage in found}
    return {name: named[name] for name in STAGES if name in named}


def starting_model(run: Run, store: RunStore) -> HookedTransformer:
    """The model as it was before the first step: after transfer and interventions on initial weights.

    Raises `ValueError` for a parent that is missing or damaged.
    """
    config = run_config(run)
    model = fresh_model(config)
    fresh = model.flat.detach().clone()
    transplant_into(model, config, store, stored=True)
    if config.train.interventions:  # which change the weights when the trainer is made
        Trainer(model, config.task, config.train, seed=config.seed, fresh=fresh)
    return model

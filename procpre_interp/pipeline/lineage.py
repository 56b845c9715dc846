"""The models that a run passed through: what names each of them, how it is had again, and on which task it is measured.

A `Moment` is a name and costs nothing; a `Subject` is a loaded model. `over_runs` is for notebooks and scripts.
"""

import dataclasses
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from procpre_interp.data import Task
from procpre_interp.model import HookedTransformer
from procpre_interp.pipeline.config import RunConfig
from procpre_interp.pipeline.execute import (
    before_transfer,
    fresh_model,
    load_model,
    load_task,
    run_config,
    transplant_into,
)
from procpre_interp.store.ancestry import Link, ancestry, chain_of, parent_before, phase_before
from procpre_interp.store.run import parents_of
from procpre_interp.store.store import Run, RunStore
from procpre_interp.train.interventions.apply import change_initial_weights

StageName = Literal["phase1_fresh", "phase1", "fresh", "transplanted", "finished"]
STAGES: dict[StageName, str] = {
    "phase1_fresh": "before phase 1",
    "phase1": "after phase 1",
    "fresh": "before phase 2, without transfer",
    "transplanted": "before phase 2, transplanted",
    "finished": "after phase 2",
}
"""Stage -> description for a run of phase 2, in the order in which the models come about."""
OF_PHASE1: tuple[StageName, ...] = ("phase1_fresh", "phase1")
"""Stages of the phase before a run's own: of its first parent, or of the phase 1 that was inserted before it."""
WITHOUT_PARENTS: tuple[StageName, ...] = ("fresh", "finished")
"""Stages of a run from scratch."""


class NoWeights(ValueError):
    """A run that keeps no weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """A model in the making of a run, by name: at a stage, or with the weights of a kept step. Nothing is loaded.

    Fresh and transplanted models are made again from the config, bit for bit, and are what training began with, but
    for interventions on initial weights (`starting_model`).
    """

    run: Run
    """The run that comes of it."""
    source: Run
    """Whose config and weights make the model: those of an ancestor, or of the run itself."""
    stage: StageName
    """Stage; that of a kept step is the end of its training, `phase1` or `finished`."""
    step: int | None = None
    """Kept step of `source`. Default: what the stage itself stands for."""
    phase: int = 1
    """Which of the phases that led to the run it belongs to, in the order in which they were trained, from 1. A run
    without parents is phase 1 alone; a phase 2 that goes on after an insertion is the third."""

    @property
    def task(self) -> Task:
        """What the model does or is about to do: the task of `source`."""
        return load_task(self.source)

    @property
    def label(self) -> str:
        """What tells it from the run's other moments: in the explorer's address, too."""
        return self.stage if self.step is None else f"phase {self.phase}, step {self.step:,}"

    @property
    def when(self) -> str:
        """The stage or the step in words, such as "after phase 2"."""
        if self.step is not None:
            return f"step {self.step}"
        return self._in_words if parents_of(self.run) or self.stage != "finished" else "after training"

    @property
    def title(self) -> str:
        """What people read where there are several runs: "run 1234abcd after 595 steps"."""
        when = self._in_words if self.step is None else f"after {self.step:,} steps"
        return f"run {self.source.id[:8]} {when}"

    @property
    def _in_words(self) -> str:
        """The stage in words, with its own phase in place of the usual one."""
        before, _, after = STAGES[self.stage].partition("phase ")
        phase = self.phase if self.stage in OF_PHASE1 else max(2, self.phase)
        return f"{before}phase {phase}{after[1:]}"

    @property
    def untrained(self) -> "Moment":
        """The same model before any training or transfer."""
        stage: StageName = "phase1_fresh" if self.stage in OF_PHASE1 else "fresh"
        return dataclasses.replace(self, stage=stage, step=None)

    def model(self, store: RunStore) -> HookedTransformer:
        """The model. Raises `ValueError` for a parent that is missing or damaged, and for weights that are not kept."""
        if self.stage in ("phase1", "finished"):
            given = parent_before(self.run).get("step") if self.stage == "phase1" else None
            return load_model(self.source, given if self.step is None else self.step)
        config = run_config(self.source)
        model = fresh_model(config)
        if self.stage == "transplanted":
            transplant_into(model, config, store, stored=True)
        return model

    def load(self, store: RunStore, task: Task | None = None) -> "Subject":
        """The model with its own task, or with another one."""
        label = self.run.id if self.step is None else f"{self.source.id}@{self.step}"
        return Subject(label=label, model=self.model(store), task=self.task if task is None else task, moment=self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """A loaded model to be measured, and its task."""

    label: str
    """Its run in tables, which are grouped by it: RUN, RUN@STEP, or the end of a folder's path."""
    model: HookedTransformer
    task: Task
    moment: Moment | None
    """Which model of which run it is; None for a model from elsewhere."""


def parse_run(name: str, store: RunStore) -> tuple[Run, int | None]:
    """The run and the step that RUN or RUN@STEP names; RUN is whatever `RunStore.open` takes.

    Raises `ValueError` for an unknown run, and for what is no step. Whether the step was kept is not asked.
    """
    run_id, at, step = name.partition("@")
    run = store.open(run_id)
    if at and not (step.isascii() and step.isdecimal()):
        raise ValueError(f"{name}: after @ comes a step, one of {run.steps}")
    return run, int(step) if at else None


def moment_named(name: str, store: RunStore, *, stage: StageName = "finished") -> Moment:
    """The moment of RUN at a stage, or of RUN@STEP.

    Raises `ValueError` for an unknown run, a stage that it does not have, and for a step with any stage but finished.
    """
    run, step = parse_run(name, store)
    found = at_stage(run, store, stage)
    if step is None:
        return found
    if stage != "finished":
        raise ValueError(f"{name} with --stage {stage}; a step is one of the run's own training, of stage finished")
    return dataclasses.replace(found, step=step)


def at_stage(run: Run, store: RunStore, stage: StageName) -> Moment:
    """A run's moment at a stage. Raises `ValueError` for one that it does not have, and for a parent that is gone."""
    if not parents_of(run) and stage not in WITHOUT_PARENTS:
        there = ", ".join(WITHOUT_PARENTS)
        raise ValueError(f"run {run.id} has no parents, so no stage {stage!r}; there are: {there}")
    source = phase_before(run, store) if stage in OF_PHASE1 else run
    if not _is_known(source, stage):
        raise ValueError(f"run {source.id} was imported: only its weights are known, so no stage {stage!r}")
    own = chain_of(run, store, whole=False)[-1].phase
    return Moment(run=run, source=source, stage=stage, phase=own - 1 if stage in OF_PHASE1 else own)


def stages(run: Run, store: RunStore) -> dict[StageName, Moment]:
    """The stages of a run; without parents there is neither a phase 1 nor a transplant.

    Of several parents the first is phase 1, unless the run goes on with its training after another phase, which is the
    second then; of an imported model nothing is known before its weights. Raises
    `ValueError` for a parent that is missing or damaged.
    """
    first = phase_before(run, store) if parents_of(run) else None
    sources = {stage: first if stage in OF_PHASE1 else run for stage in STAGES}
    there = STAGES if first else WITHOUT_PARENTS
    return {stage: at_stage(run, store, stage) for stage in there if _is_known(sources[stage] or run, stage)}


def kept_steps(run: Run, store: RunStore) -> list[Moment]:
    """The kept steps of a run's model in order: those of all phases that led to it, each up to the step that it gave,
    then its own.

    As they were before any damage. Raises `ValueError` for a parent that is missing or damaged, and where any keeps no
    weights.
    """
    return [moment for each in chain_of(run, store) for moment in _kept(each, run)]


def moments(run: Run, store: RunStore) -> list[Moment]:
    """What can be looked at of a run's model in order: the kept steps of all phases, and the transplanted model.

    That stands before the run's own steps where the first of these, the same model, was not kept. What cannot be had (a
    parent that is gone, or keeps no weights) is left out. Raises `ValueError` for a run that keeps no weights itself.
    """
    *earlier, last = chain_of(run, store, whole=False)
    own = _kept(last, run)
    if not parents_of(run) or not earlier:
        return own
    found: list[Moment] = []
    for each in reversed(earlier):
        try:
            found = _kept(each, run) + found
        except NoWeights:
            break
    if not found:
        return own
    return found + ([] if run.first_step in run.steps else [at_stage(run, store, "transplanted")]) + own


def ancestors_of(config: RunConfig, store: RunStore) -> list[RunConfig]:
    """Configs of the runs that a config's weights come from, as far as they are there and this code can read them.

    Raises `ValueError` for a parent of its own that is missing or damaged.
    """
    runs, _ = ancestry([store.open(parent.run, verify=False) for parent in config.parents], store)
    found = []
    for run in runs:
        with suppress(ValueError):  # such as one that has a plugin that is not loaded
            found.append(run_config(run))
    return found


def table_of(subjects: Iterable[Subject], measure: Callable[[Subject], pd.DataFrame]) -> pd.DataFrame:
    """A measurement on several models, one table below the other: run, replicate and stage first.

    Raises `ValueError` for no models.
    """
    tables = []
    for subject in subjects:
        table, moment = measure(subject).reset_index(drop=True), subject.moment
        replicate, stage = (0, None) if moment is None else (moment.run.seed, moment.stage)
        place = {"run": subject.label, "replicate": replicate, "stage": stage}
        tables.append(pd.DataFrame(place, index=table.index).join(table))
    if not tables:
        raise ValueError("no runs to measure; give at least one")
    return pd.concat(tables, ignore_index=True)


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
    subjects = (at_stage(run, store, stage).load(store) for run in runs)
    return table_of(subjects, lambda subject: measure(subject.model, subject.task))


def starting_model(run: Run, store: RunStore) -> HookedTransformer:
    """The model as it was before the first step: after transfer and interventions on initial weights.

    Raises `ValueError` for a parent that is missing or damaged.
    """
    config = run_config(run)
    model = fresh_model(config)
    fresh = before_transfer(model, config, store, stored=True)
    transplant_into(model, config, store, stored=True)
    change_initial_weights(model, config.task, config.train, seed=config.seed, fresh=fresh)
    return model


def _is_known(source: Run, stage: StageName) -> bool:
    """Whether there is such a model: none but the imported weights where these were not made here."""
    return "imported" not in source.config or stage in ("finished", "phase1")


def _kept(link: Link, run: Run) -> list[Moment]:
    """Kept steps of a phase that led to the run. Raises `NoWeights` for none."""
    stage: StageName = "finished" if link.source is run else "phase1"
    steps = [step for step in link.source.steps if link.last is None or step <= link.last]
    if not steps:
        raise NoWeights(f"run {link.source.id} keeps no weights, so there is no model to look into")
    return [Moment(run=run, source=link.source, stage=stage, step=step, phase=link.phase) for step in steps]

"""The models that a run passed through: what names each of them, how it is had again, and on which task it is measured.

A `Moment` is a name and costs nothing; a `Subject` is a loaded model. `over_runs` is for notebooks and scripts.
"""

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from procpre_interp.core.schema import ParentFields
from procpre_interp.data import Task
from procpre_interp.model import HookedTransformer
from procpre_interp.pipeline.execute import fresh_model, load_model, load_task, run_config, transplant_into
from procpre_interp.store.store import DamagedRun, Run, RunStore, UnknownRun
from procpre_interp.train.interventions.apply import change_initial_weights

StageName = Literal["phase1_fresh", "phase1", "fresh", "transplanted", "finished"]
STAGES: dict[StageName, str] = {
    "phase1_fresh": "before phase 1",
    "phase1": "after phase 1",
    "fresh": "before phase 2, without transfer",
    "transplanted": "before phase 2, transplanted",
    "finished": "after phase 2",
}
"""Stage -> description, in the order in which the models come about."""
OF_PHASE1: tuple[StageName, ...] = ("phase1_fresh", "phase1")
"""Stages of a run's first parent."""
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
    """Whose config and weights make the model: those of the first parent in phase 1, otherwise of the run itself."""
    stage: StageName
    """Stage; that of a kept step is the end of its training, `phase1` or `finished`."""
    step: int | None = None
    """Kept step of `source`. Default: what the stage itself stands for."""

    @property
    def phase(self) -> int:
        """1 or 2; a run without parents is phase 1 alone."""
        return 1 if self.stage in OF_PHASE1 or not _parents(self.run) else 2

    @property
    def task(self) -> Task:
        """What the model does or is about to do: phase 1's task up to `phase1`, phase 2's from `fresh` on."""
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
        return STAGES[self.stage] if _parents(self.run) or self.stage != "finished" else "after training"

    @property
    def title(self) -> str:
        """What people read where there are several runs: "run 1234abcd after 595 steps"."""
        when = STAGES[self.stage] if self.step is None else f"after {self.step:,} steps"
        return f"run {self.source.id[:8]} {when}"

    @property
    def untrained(self) -> "Moment":
        """The same model before any training or transfer."""
        stage: StageName = "phase1_fresh" if self.stage in OF_PHASE1 else "fresh"
        return dataclasses.replace(self, stage=stage, step=None)

    @property
    def start(self) -> "Moment":
        """What the training that it belongs to began with: the transplanted model where there is a transfer."""
        return dataclasses.replace(self, stage="transplanted", step=None) if self.phase == 2 else self.untrained

    def model(self, store: RunStore) -> HookedTransformer:
        """The model. Raises `ValueError` for a parent that is missing or damaged, and for weights that are not kept."""
        if self.stage in ("phase1", "finished"):
            given = _parents(self.run)[0].get("step") if self.stage == "phase1" else None
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
    if not _parents(run) and stage not in WITHOUT_PARENTS:
        there = ", ".join(WITHOUT_PARENTS)
        raise ValueError(f"run {run.id} has no parents, so no stage {stage!r}; there are: {there}")
    source = _first_parent(run, store) if stage in OF_PHASE1 else run
    if not _is_known(source, stage):
        raise ValueError(f"run {source.id} was imported: only its weights are known, so no stage {stage!r}")
    return Moment(run=run, source=source, stage=stage)


def stages(run: Run, store: RunStore) -> dict[StageName, Moment]:
    """The stages of a run; without parents there is neither a phase 1 nor a transplant.

    Of several parents the first is phase 1; of an imported model nothing is known before its weights. Raises
    `ValueError` for a parent that is missing or damaged.
    """
    first = _first_parent(run, store) if _parents(run) else None
    sources = {stage: first if stage in OF_PHASE1 else run for stage in STAGES}
    there = STAGES if first else WITHOUT_PARENTS
    return {stage: at_stage(run, store, stage) for stage in there if _is_known(sources[stage] or run, stage)}


def kept_steps(run: Run, store: RunStore) -> list[Moment]:
    """The kept steps of a run's model in order: those of its first parent up to the one that it gave, then its own.

    As they were before any damage; what that parent had of parents is not shown. Raises `ValueError` for a parent that
    is missing or damaged, and where either keeps no weights.
    """
    first = _steps_of_phase1(run, store) if _parents(run) else []
    return first + _own_steps(run)


def moments(run: Run, store: RunStore) -> list[Moment]:
    """What can be looked at of a run's model in order: its kept steps, and the transplanted model.

    That stands between the phases where the run's step 0, the same model, was not kept. What cannot be had (a parent
    that is gone, or keeps no weights) is left out. Raises `ValueError` for a run that keeps no weights itself.
    """
    own = _own_steps(run)
    if not _parents(run):
        return own
    try:
        first = _steps_of_phase1(run, store)
    except (UnknownRun, DamagedRun, NoWeights):
        return own
    return first + ([] if 0 in run.steps else [at_stage(run, store, "transplanted")]) + own


def table_of(subjects: Iterable[Subject], measure: Callable[[Subject], pd.DataFrame]) -> pd.DataFrame:
    """A measurement on several models, one table below the other: run, replicate and stage first.

    Raises `ValueError` for no models.
    """
    tables = []
    for subject in subjects:
        table, moment = measure(subject), subject.moment
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
    fresh = model.flat.detach().clone()
    transplant_into(model, config, store, stored=True)
    change_initial_weights(model, config.task, config.train, seed=config.seed, fresh=fresh)
    return model


def _parents(run: Run) -> list[ParentFields]:
    """The run's parents as its config has them: read without the task, whose plugin may not be loaded."""
    return run.config.get("parents") or []


def _is_known(source: Run, stage: StageName) -> bool:
    """Whether there is such a model: none but the imported weights where these were not made here."""
    return "imported" not in source.config or stage in ("finished", "phase1")


def _first_parent(run: Run, store: RunStore) -> Run:
    return store.open(_parents(run)[0]["run"], verify=False)


def _own_steps(run: Run) -> list[Moment]:
    return [Moment(run=run, source=run, stage="finished", step=step) for step in _steps(run, None)]


def _steps_of_phase1(run: Run, store: RunStore) -> list[Moment]:
    parent = _first_parent(run, store)
    steps = _steps(parent, _parents(run)[0].get("step"))
    return [Moment(run=run, source=parent, stage="phase1", step=step) for step in steps]


def _steps(run: Run, last: int | None) -> list[int]:
    """The kept steps up to `last`, by default all."""
    steps = [step for step in run.steps if last is None or step <= last]
    if not steps:
        raise NoWeights(f"run {run.id} keeps no weights, so there is no model to look into")
    return steps

"""Fair sweeps: every arm is tuned with the same trials on seeds of their own, and confirmed on others.

A trial is a learning rate and a factor on the initial weights. An arm takes the trial whose validation loss at the end
of training, averaged over the tuning seeds, is lowest; test data are not looked at. Trials and choices are a table of
the store, NAME-tuning-HASH. Everything is a run, so that the same call goes on after an interruption.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

from procpre_interp.engine.engines import ONE_WORKER, Engine
from procpre_interp.stats.baselines import BASELINE
from procpre_interp.stats.rows import named_rows
from procpre_interp.store.outcomes import whole_runs
from procpre_interp.store.run import Run
from procpre_interp.store.store import RunStore
from procpre_interp.sweep.config import Condition, Sweep
from procpre_interp.sweep.fair_arms import Arm, arms_of
from procpre_interp.sweep.plan import Plan, Show, results, run_sweep, say_nothing
from procpre_interp.train.interventions import Scaled

TRIAL_COLUMNS = (
    *("arm", "label", "replicate", "run", "status", "learning_rate", "initial_scale", "validation_loss_nats"),
)
"""Columns of a table of trials, which gets `chosen` beside them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One way to train an arm."""

    arm: Arm
    learning_rate: float
    initial_scale: float

    def condition(self, sweep: Sweep, name: str, label: str) -> Condition:
        """The arm, trained in this way."""
        condition, scaled = self.arm.condition, (Scaled(factor=self.initial_scale),)
        return dataclasses.replace(
            condition,
            name=name,
            label=label,
            task=None if condition.task == sweep.task else condition.task,
            train=dataclasses.replace(condition.train or sweep.train, learning_rate=self.learning_rate),
            # Without a scale it is the run that other sweeps have.
            interventions=condition.interventions + (scaled if self.initial_scale != 1 else ()),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuned:
    """What tuning a fair sweep gave."""

    sweep: Sweep
    """The fair sweep."""
    planned: Plan
    """The runs of the trials."""
    trials: pd.DataFrame
    """One row per arm, trial and tuning seed that is finished: arm, label, replicate, run, status, learning_rate,
    initial_scale, validation_loss_nats (infinite for a diverged run) and chosen, whether the arm goes on with it."""
    problems: dict[str, str]
    """Those of runs that failed, by id."""
    confirming: Sweep | None
    """The sweep of all arms as they were tuned; None while a trial is missing."""

    @property
    def table_name(self) -> str:
        """Name of the table of trials."""
        return self.planned.table_name

    @property
    def progress(self) -> str:
        """How many trials are finished, in a line."""
        return f"{len(self.trials)} of {len(self.planned.cells) + self.planned.deferred} trials are finished"

    @property
    def failures(self) -> list[str]:
        """Why runs failed, or cannot be."""
        cells = self.planned.cells
        return [*self.problems.values(), *cells.loc[cells["problem"] != "", "problem"]]


@dataclass(frozen=True, kw_only=True, slots=True)
class FairResults:
    """What a fair sweep gave."""

    tuned: Tuned
    planned: Plan | None = None
    """The runs that confirm; None while a trial is missing."""
    table: pd.DataFrame = dataclasses.field(default_factory=pd.DataFrame)
    """`with_arms` of their cells."""
    problems: dict[str, str] = dataclasses.field(default_factory=dict)


def run_fair(
    sweep: Sweep,
    store: RunStore,
    *,
    engine: Engine = ONE_WORKER,
    show: Show = say_nothing,
    may_start: Callable[[], bool] = lambda: True,
) -> FairResults:
    """Tune what is not tuned yet, keep the choices, and confirm; as `run_sweep` does it."""
    tuned = tune(sweep, store, engine=engine, show=show, may_start=may_start)
    if tuned.confirming is None:
        return FairResults(tuned=tuned, problems=tuned.problems)
    planned, problems = run_sweep(tuned.confirming, store, engine=engine, show=show, may_start=may_start)
    table = with_arms(results(planned, store, problems), tuned, store)
    return FairResults(tuned=tuned, planned=planned, table=table, problems=problems)


def tune(
    sweep: Sweep,
    store: RunStore,
    *,
    engine: Engine = ONE_WORKER,
    show: Show = say_nothing,
    may_start: Callable[[], bool] = lambda: True,
) -> Tuned:
    """Compute the trials that are missing, and choose; with all of them there, the table of trials is kept."""
    planned, problems = run_sweep(tuning_sweep(sweep), store, engine=engine, show=show, may_start=may_start)
    tuned = tuned_by(sweep, planned, store, problems)
    if tuned.confirming is not None:
        store.write_table(tuned.table_name, tuned.trials, {"title": f"Tuning of {sweep.title or sweep.name}"})
    return tuned


def tuning_sweep(sweep: Sweep) -> Sweep:
    """All trials of all arms, on the tuning seeds."""
    assert sweep.fair is not None
    tried = [trial.condition(sweep, name, name) for name, trial in trials_of(sweep).items()]
    # A condition of fewer replicates is tuned on as many seeds as the others.
    conditions = tuple(dataclasses.replace(each, replicates=None) for each in tried)
    # `none` is a condition of every sweep, and its trials have names of their own.
    untuned = Condition(name=BASELINE, replicates=0)
    trials = _with_arms_as(sweep, (untuned, *conditions))
    return dataclasses.replace(
        trials,
        name=f"{sweep.name}-tuning",
        title=f"Tuning of {sweep.title or sweep.name}",
        replicates=sweep.fair.tuning_replicates,
        first_seed=sweep.fair.first_tuning_seed,
    )


def trials_of(sweep: Sweep) -> dict[str, Trial]:
    """Every trial of every arm, by its name."""
    fair = sweep.fair
    assert fair is not None
    trials = itertools.product(arms_of(sweep).arms, fair.learning_rates, fair.initial_scales)
    return {
        f"{arm.condition.name}, lr {rate:g}, scale {scale:g}": Trial(arm=arm, learning_rate=rate, initial_scale=scale)
        for arm, rate, scale in trials
    }


def tuned_by(sweep: Sweep, planned: Plan, store: RunStore, problems: Mapping[str, str]) -> Tuned:
    """What the trials that are finished say.

    Raises `ValueError` where all trials of an arm diverged.
    """
    named = trials_of(sweep)
    # Where one phase diverges, or a part of one, there is none of those that follow.
    chained = "chain" in planned.cells
    parts = {cell.run: cell.chain if chained else (*cell.phase1_run, cell.run) for cell in named_rows(planned.cells)}
    whole = whole_runs(itertools.chain(*parts.values()), store)
    ended = {run: _ended([whole[part] for part in chain if part in whole], run) for run, chain in parts.items()}
    rows = [
        {
            "arm": named[cell.condition].arm.condition.name,
            "label": cell.condition,
            "replicate": cell.replicate,
            "run": run.id,
            "status": run.summary["status"],
            "learning_rate": named[cell.condition].learning_rate,
            "initial_scale": named[cell.condition].initial_scale,
            "validation_loss_nats": final_validation_loss(run),
        }
        for cell in named_rows(planned.cells)
        if (run := ended[cell.run]) is not None
    ]
    trials = pd.DataFrame(rows, columns=[*TRIAL_COLUMNS])
    if len(trials) < len(planned.cells) or planned.deferred:
        untold = trials.assign(chosen=False)
        return Tuned(sweep=sweep, planned=planned, trials=untold, problems=dict(problems), confirming=None)
    losses = {
        str(label): rows["validation_loss_nats"].to_numpy() for label, rows in trials.groupby("label", sort=False)
    }
    means = {label: float(each.mean()) for label, each in losses.items()}
    best: dict[str, str] = {}
    for label, loss in means.items():
        arm = named[label].arm.condition.name
        if arm not in best or loss < means[best[arm]]:
            best[arm] = label
    for arm, label in best.items():
        if math.isinf(means[label]):
            raise ValueError(
                f"fair: every trial of {arm!r} diverged, or its phase 1 did; give smaller learning rates or "
                "initial_scales"
            )
    trials = trials.assign(chosen=trials["label"].isin(list(best.values())))
    confirming = confirming_sweep(sweep, {arm: named[label] for arm, label in best.items()})
    return Tuned(sweep=sweep, planned=planned, trials=trials, problems=dict(problems), confirming=confirming)


def _ended(parts: Iterable[Run], last: str) -> Run | None:
    """The run with which a trial ended: the first that diverged, or the last; None while there is neither."""
    return next((run for run in parts if run.summary["status"] == "diverged" or run.id == last), None)


def final_validation_loss(run: Run) -> float:
    """The last validation loss of a run, nats; infinite where it diverged."""
    history = run.history()
    losses = history.loc[history["split"] == "validation", "loss_nats"].to_numpy(dtype=float)
    return float(losses[-1]) if run.summary["status"] == "finished" else math.inf


def confirming_sweep(sweep: Sweep, chosen: Mapping[str, Trial]) -> Sweep:
    """All arms, each trained as its trial was, on the sweep's own seeds."""
    arms = [arm.condition for arm in arms_of(sweep).arms]
    return _with_arms_as(
        sweep, tuple(chosen[each.name].condition(sweep, each.name, each.label or each.name) for each in arms)
    )


def _with_arms_as(sweep: Sweep, conditions: tuple[Condition, ...]) -> Sweep:
    """A sweep of these conditions with the pretrainings of all arms."""
    return dataclasses.replace(sweep, phase1=arms_of(sweep).phase1, conditions=conditions, grids=(), fair=None)


def choices(trials: pd.DataFrame) -> pd.DataFrame:
    """One row per arm: learning_rate, initial_scale, validation_loss_nats (mean), the number of trials, and at_edge,
    which numbers are the smallest or the largest that were tried, so that a better one may lie beyond."""
    rows = []
    for arm, of_arm in trials.groupby("arm", sort=False):
        chosen = of_arm.loc[of_arm["chosen"]]
        tried = {name: sorted(set(of_arm[name])) for name in ("learning_rate", "initial_scale")}
        value = {name: float(chosen[name].iloc[0]) for name in tried}
        edges = [name for name in tried if len(tried[name]) > 1 and value[name] in (tried[name][0], tried[name][-1])]
        loss, n = float(chosen["validation_loss_nats"].mean()), of_arm["label"].nunique()
        rows.append({"arm": arm, **value, "validation_loss_nats": loss, "trials": n, "at_edge": " ".join(edges)})
    return pd.DataFrame(rows)


def with_arms(table: pd.DataFrame, tuned: Tuned, store: RunStore) -> pd.DataFrame:
    """A table of cells of the confirming sweep with what each arm is, how it was tuned, and whether phase 1 was learnt.

    A pretraining without a gate, which natural text and shuffled sequences have none of, counts as learnt.
    """
    if table.empty:
        return table
    arms = {each.condition.name: each for each in arms_of(tuned.sweep).arms}
    chosen = choices(tuned.trials).set_index("arm")
    learnt = _learnt(table, arms, tuned.sweep, store)
    return table.assign(
        arm=[str(arms[name].kind) for name in table["condition"]],
        control_of=[arms[name].control_of for name in table["condition"]],
        fresh_arm=[arms[name].fresh for name in table["condition"]],
        learning_rate=chosen["learning_rate"].reindex(table["condition"]).to_numpy(),
        initial_scale=chosen["initial_scale"].reindex(table["condition"]).to_numpy(),
        phase1_learnt=learnt,
    )


def _learnt(table: pd.DataFrame, arms: Mapping[str, Arm], sweep: Sweep, store: RunStore) -> list[bool]:
    """Whether each cell's runs of phase 1 passed their gates by their test accuracy; one that is not finished does."""
    assert sweep.fair is not None
    gates = {gate.phase1: gate.accuracy for gate in sweep.fair.gates}
    gated = [
        [
            (run, gates[source.phase1])
            for source, run in zip(arms[name].condition.sources, runs)
            if source.phase1 in gates
        ]
        for name, runs in zip(table["condition"], table["phase1_run"])
    ]
    whole = whole_runs((run for runs in gated for run, _ in runs), store)
    return [all(run not in whole or whole[run].accuracy >= gate for run, gate in runs) for runs in gated]

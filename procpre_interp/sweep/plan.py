"""Sweeps: one config describes a grid of transfers; its replicates are runs that share their phase-1 parents."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import pandas as pd

from procpre_interp.core.selectors import name_heads, orders_of
from procpre_interp.engine.processes import Event, execute_all
from procpre_interp.engine.stacks import execute_in_stacks
from procpre_interp.pipeline.config import Parent, RunConfig
from procpre_interp.stats.rows import named_rows
from procpre_interp.store.cells import check_cells
from procpre_interp.store.outcomes import cell_results, is_whole
from procpre_interp.store.store import RunStore
from procpre_interp.sweep.config import Pretraining, Source, Sweep, map_conditions, refuse_shared
from procpre_interp.sweep.maps import Map
from procpre_interp.sweep.ranked_heads import HeadOrders, ordered_heads


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One condition in one replicate."""

    condition: str
    label: str
    replicate: int
    phase1_run: tuple[str, ...]
    """Ids of the runs that weights come from."""
    run: str = ""
    """Id; empty for a cell that cannot be a run."""
    problem: str = ""
    """Why it cannot."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """All runs of a sweep, and which run is which condition of which replicate."""

    sweep: Sweep
    configs: dict[str, RunConfig]
    """Run id -> config: parents before children, the first replicate first."""
    cells: pd.DataFrame
    """One row per cell: condition, label, replicate, phase1_run (tuple of ids; may be empty), run, problem.

    A cell that cannot be a run, such as one with more heads than there are, has a problem and no run.
    """
    deferred: int
    """Cells that are not planned yet, since they name heads by the entropy of a parent that is not finished."""

    @property
    def table_name(self) -> str:
        """Name of the stored result: the same for the same runs."""
        runs = json.dumps(sorted(self.cells["run"]))
        return f"{self.sweep.name}-{hashlib.sha256(runs.encode()).hexdigest()[:8]}"

    @property
    def labels(self) -> dict[str, str]:
        """What to call each run while it works."""
        names = {run: f"seed {config.seed} phase 1: {config.task.name}" for run, config in self.configs.items()}
        for cell in named_rows(self.cells.loc[self.cells["run"] != ""]):
            names[str(cell.run)] = f"seed {cell.replicate} phase 2: {cell.label}"
        return names


Show = Callable[[Plan], AbstractContextManager[Callable[[Event], None]]]
"""What shows the events of a plan's runs."""


def plan(sweep: Sweep, store: RunStore | None = None, orders: HeadOrders | None = None) -> Plan:
    """The runs of all replicates. Heads by entropy are measured on the store's finished parents, once in `orders`.

    Raises `ValueError` for a fair sweep, whose arms are not known before they were tuned (`sweep.fair`).
    """
    if sweep.fair is not None:
        raise ValueError(f"sweep {sweep.name!r} is fair, so its arms are tuned first; use sweep.fair.run_fair")
    orders = {} if orders is None else orders
    configs: dict[str, RunConfig] = {}
    rows: list[Cell] = []
    deferred = 0
    for seed in sweep.seeds:
        parents = {each.name: pretraining_run(each, seed) for each in sweep.phase1}
        ids = {name: config.run_id for name, config in parents.items()}
        for condition in sweep.of_replicate(seed):
            configs |= {ids[source.phase1]: parents[source.phase1] for source in condition.sources}
            cell = Cell(
                condition=condition.name,
                label=condition.label or condition.name,
                replicate=seed,
                phase1_run=tuple(ids[source.phase1] for source in condition.sources),
            )
            try:
                taken = [_parent(source, ids[source.phase1], store, orders) for source in condition.sources]
                if None not in taken:
                    refuse_shared(condition, [parent.selector for parent in taken if parent is not None], sweep.model)
            except ValueError as problem:
                rows.append(dataclasses.replace(cell, problem=str(problem)))
                continue
            if None in taken:
                deferred += 1
                continue
            train = condition.train or sweep.train
            child = RunConfig(
                task=condition.task or sweep.task,
                seed=seed,
                model=sweep.model,
                train=dataclasses.replace(train, interventions=train.interventions + condition.interventions),
                parents=tuple(parent for parent in taken if parent is not None),
                transfer=condition.transfer,
            )
            run_id = child.run_id
            configs[run_id] = child
            rows.append(dataclasses.replace(cell, run=run_id))
    return Plan(sweep=sweep, configs=configs, cells=cells_frame(rows), deferred=deferred)


def cells_frame(cells: Sequence[Cell]) -> pd.DataFrame:
    """Planned cells as a table."""
    columns = [each.name for each in dataclasses.fields(Cell)]
    return pd.DataFrame([[getattr(cell, name) for name in columns] for cell in cells], columns=columns)


def say_nothing(planned: Plan) -> AbstractContextManager[Callable[[Event], None]]:
    """Shows nothing of a plan's runs."""
    return nullcontext(lambda event: None)


def pretraining_run(each: Pretraining, seed: int) -> RunConfig:
    """The phase-1 run of a replicate."""
    return RunConfig(task=each.task, seed=seed, model=each.model, train=each.train)


def _parent(source: Source, run_id: str, store: RunStore | None, orders: HeadOrders) -> Parent | None:
    """The parent of a run; none where its heads are to be ordered and it is not finished."""
    missing = {(run_id, source.step, order) for order in orders_of(source.selector)} - set(orders)
    if missing:
        if store is None or not is_whole(store, run_id):
            return None
        run = store.open(run_id)
        for _, step, order in sorted(missing, key=lambda key: key[2]):
            ordered_heads(run, order, step, orders)
    selector = name_heads(source.selector, lambda order: orders[run_id, source.step, order])
    return Parent(run=run_id, selector=selector, step=source.step, ablation=source.ablation)


def run_sweep(
    sweep: Sweep,
    store: RunStore,
    *,
    workers: int = 1,
    stack: int | None = None,
    show: Show = say_nothing,
    may_start: Callable[[], bool] = lambda: True,
) -> tuple[Plan, dict[str, str]]:
    """Compute what is missing; the plan, and the problems of runs that failed, by id.

    Runs are executed by `workers` processes or, with `stack`, in this one, where up to that many of one shape and of
    kernel stacked (`sweep.stacked.stacked_sweep`) are one computation.
    `show(plan)` gives what is told the events. Cells that name heads by entropy are planned once their parents are
    finished, so that it may be called twice.
    """
    problems: dict[str, str] = {}
    orders: HeadOrders = {}
    planned = plan(sweep, store, orders)
    while True:
        todo = {run: config for run, config in planned.configs.items() if run not in problems}
        with show(planned) as on_event:
            if stack is None:
                problems |= execute_all(todo, store, workers=workers, on_event=on_event, may_start=may_start)
            else:
                problems |= execute_in_stacks(todo, store, stack=stack, on_event=on_event, may_start=may_start)
        before = planned.deferred
        if before:
            planned = plan(sweep, store, orders)
        # Deferred cells whose parents failed, or were not started, stay deferred.
        if planned.deferred == before:
            return planned, problems


def results(planned: Plan, store: RunStore, problems: Mapping[str, str] | None = None) -> pd.DataFrame:
    """One row per cell that is finished, diverged or failed: condition, replicate, runs, and what came out
    (`scores`)."""
    table = cell_results(planned.cells, store, problems or {})
    if len(table):
        check_cells(table)
    return table


def map_table(planned: Plan, table: pd.DataFrame, each: Map) -> pd.DataFrame:
    """The rows of a table of `results` that a transfer map is made of, with their `coalition`."""
    parts = []
    for seed in planned.sweep.seeds:
        named = {condition.name: coalition for coalition, condition in map_conditions(each, seed).items()}
        rows = table.loc[(table["replicate"] == seed) & table["condition"].isin(list(named))]
        parts.append(rows.assign(coalition=rows["condition"].map(named)))
    return pd.concat(parts, ignore_index=True)

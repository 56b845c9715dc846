"""Sweeps: one config describes a grid of transfers; its replicates are runs that share their phase-1 parents."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import pandas as pd

from procpre_interp.core.selectors import name_heads, orders_of
from procpre_interp.data.semantic.read_once import corpora_read_once
from procpre_interp.engine.engines import ONE_WORKER, Engine
from procpre_interp.engine.events import Event
from procpre_interp.pipeline.config import Parent, RunConfig
from procpre_interp.stats.rows import named_rows
from procpre_interp.store.cells import check_cells
from procpre_interp.store.outcomes import cell_results, is_whole
from procpre_interp.store.store import RunStore
from procpre_interp.sweep.chains import Beginning, Role, beginning, fresh_arms, last_part, later_runs
from procpre_interp.sweep.config import Condition, Source, Sweep, map_conditions, refuse_shared
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
    """Id of the run of its last phase; empty for a cell that cannot be a run."""
    phase2_run: str = ""
    """Id of the run with which phase 2 ended, where another phase follows."""
    chain: tuple[str, ...] = ()
    """Ids of the runs of all phases, in the order in which they are trained."""
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

    A cell that cannot be a run, such as one with more heads than there are, has a problem and no run. Where any cell
    has more than phase 1 and then phase 2, there are the columns phase2_run and chain, too.
    """
    roles: dict[str, Role]
    """Run id -> what it is."""
    waiting: pd.DataFrame
    """Further cells, with the same columns, that have no run yet, since they rank the heads of a parent that is not
    finished, or has no weights."""
    light: frozenset[str] = frozenset()
    """Those parents that are there, but as copies without weights (`store.archive`)."""

    @property
    def all_cells(self) -> pd.DataFrame:
        """The cells, and those that have no run yet."""
        # Joined with no rows, the columns would lose their types.
        return pd.concat([self.cells, self.waiting], ignore_index=True) if self.deferred else self.cells

    @property
    def deferred(self) -> int:
        """Number of cells that have no run yet."""
        return len(self.waiting)

    @property
    def table_name(self) -> str:
        """Name of the stored result: the same for the same runs."""
        runs = json.dumps(sorted(self.cells["run"]))
        return f"{self.sweep.name}-{hashlib.sha256(runs.encode()).hexdigest()[:8]}"

    @property
    def labels(self) -> dict[str, str]:
        """What to call each run while it works."""
        return {
            run: f"seed {self.configs[run].seed} phase {role.phase}: {role.text}" for run, role in self.roles.items()
        }


Show = Callable[[Plan], AbstractContextManager[Callable[[Event], None]]]
"""What shows the events of a plan's runs."""


@corpora_read_once()
def plan(sweep: Sweep, store: RunStore | None = None, orders: HeadOrders | None = None) -> Plan:
    """The runs of all replicates. Heads by entropy are measured on the store's finished parents, once in `orders`.

    Raises `ValueError` for a fair sweep, whose arms are not known before they were tuned (`sweep.fair`).
    """
    if sweep.fair is not None:
        raise ValueError(f"sweep {sweep.name!r} is fair, so its arms are tuned first; use sweep.fair.run_fair")
    orders = {} if orders is None else orders
    configs: dict[str, RunConfig] = {}
    roles: dict[str, Role] = {}
    rows: list[Cell] = []
    light: set[str] = set()
    waiting: list[Cell] = []

    def enter(run: str, config: RunConfig, role: Role) -> None:
        roles[run] = role
        if run not in configs or config.train.keep_optimiser:  # which some condition may want and others not
            configs[run] = config

    for seed in sweep.seeds:
        known: dict[Hashable, Beginning] = {}
        for condition in sweep.of_replicate(seed):
            before = _beginning(sweep, condition, seed, known)
            for run, config in before.runs.items():
                enter(run, config, before.role(run))
            label = condition.label or condition.name
            phase1 = tuple(before.ids[source.phase1] for source in condition.sources)
            cell = Cell(condition=condition.name, label=label, replicate=seed, phase1_run=phase1)
            try:
                taken = [_parent(source, run, store, orders, light) for source, run in zip(condition.sources, phase1)]
                parents = [parent for parent in taken if parent is not None]
                if len(parents) < len(taken):
                    waiting.append(cell)
                    continue
                refuse_shared(condition, [parent.selector for parent in parents], sweep.model)
                runs = later_runs(sweep, condition, before, last_part(sweep, condition, seed, before, parents))
            except ValueError as problem:
                rows.append(dataclasses.replace(cell, problem=str(problem)))
                continue
            for phase, (run, config) in enumerate(runs.items(), 2):
                enter(run, config, Role(phase, label))
            phase2, *rest = runs
            chain = (*before.runs, *runs)
            rows.append(
                dataclasses.replace(cell, run=[phase2, *rest][-1], phase2_run=phase2 if rest else "", chain=chain)
            )
    return Plan(
        sweep=sweep,
        configs=configs,
        cells=cells_frame(rows),
        roles=roles,
        waiting=cells_frame(waiting),
        light=frozenset(light),
    )


def _beginning(sweep: Sweep, condition: Condition, seed: int, known: dict[Hashable, Beginning]) -> Beginning:
    """What comes before the last part of a condition's phase 2; most conditions of a replicate have the same."""
    names = frozenset(source.phase1 for source in condition.sources)
    own = (condition.insert, condition.task, condition.train, condition.interventions) if condition.insert else ()
    if (names, own) not in known:
        known[names, own] = beginning(sweep, condition, seed)
    return known[names, own]


def cells_frame(cells: Sequence[Cell]) -> pd.DataFrame:
    """Planned cells as a table."""
    columns = [each.name for each in dataclasses.fields(Cell)]
    table = pd.DataFrame([[getattr(cell, name) for name in columns] for cell in cells], columns=columns)
    if all(len(cell.chain) <= len({*cell.phase1_run}) + 1 for cell in cells):
        return table.drop(columns=["phase2_run", "chain"])
    return table


def say_nothing(planned: Plan) -> AbstractContextManager[Callable[[Event], None]]:
    """Shows nothing of a plan's runs."""
    return nullcontext(lambda event: None)


def _parent(source: Source, run_id: str, store: RunStore | None, orders: HeadOrders, light: set[str]) -> Parent | None:
    """The parent of a run; none where its heads are to be ranked and it is not finished, or a copy without weights,
    which is added to `light`."""
    missing = {(run_id, source.step, order) for order in orders_of(source.selector)} - set(orders)
    if missing:
        if store is None or not is_whole(store, run_id):
            return None
        run = store.open(run_id)
        if run.lacks_weights(source.step):
            light.add(run_id)
            return None
        for _, step, order in sorted(missing, key=lambda key: key[2]):
            ordered_heads(run, order, step, orders)
    selector = name_heads(source.selector, lambda order: orders[run_id, source.step, order])
    return Parent(run=run_id, selector=selector, step=source.step, ablation=source.ablation)


def run_sweep(
    sweep: Sweep,
    store: RunStore,
    *,
    engine: Engine = ONE_WORKER,
    show: Show = say_nothing,
    may_start: Callable[[], bool] = lambda: True,
    whole: Collection[str] = (),
) -> tuple[Plan, dict[str, str]]:
    """Compute what is missing; the plan, and the problems of runs that failed, by id.

    `show(plan)` gives what is told the events. Cells that rank heads are planned once their parents are finished, so
    that it may be called twice. Runs of the conditions in `whole`, and their parents, must have their weights.
    """
    problems: dict[str, str] = {}
    orders: HeadOrders = {}
    planned = plan(sweep, store, orders)
    while True:
        todo = {run: config for run, config in planned.configs.items() if run not in problems}
        with show(planned) as on_event:
            needed = planned.light | _runs_of(planned, whole)
            problems |= engine.execute(todo, store, on_event=on_event, may_start=may_start, whole=needed)
        before = planned.deferred
        if before:
            planned = plan(sweep, store, orders)
        # Deferred cells whose parents failed, or were not started, stay deferred.
        if planned.deferred == before:
            return planned, problems


def _runs_of(planned: Plan, conditions: Collection[str]) -> set[str]:
    """The runs of conditions, and those that their weights come from."""
    cells = planned.cells.loc[planned.cells["condition"].isin(list(conditions))]
    return {run for cell in named_rows(cells) for run in (cell.run, *cell.phase1_run) if run}


def results(planned: Plan, store: RunStore, problems: Mapping[str, str] | None = None) -> pd.DataFrame:
    """One row per cell that is finished, diverged or failed: condition, replicate, runs, and what came out
    (`scores`). Where conditions end on several tasks, `fresh_arm` says with which each of them compares."""
    table = cell_results(planned.cells, store, problems or {})
    if len(table):
        if any(each.task is not None or each.then is not None for each in planned.sweep.conditions):
            fresh = fresh_arms(planned.sweep)
            table["fresh_arm"] = [fresh[name] for name in table["condition"]]
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

"""The work of `procpre-interp sweep`: runs, tables, transfer maps and the report."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from procpre_interp.claims.text import map_effects_table, map_interactions_table
from procpre_interp.commands._conditions import print_results
from procpre_interp.commands._fair import describe_fair_size, print_tuning
from procpre_interp.commands._run_one import read_config
from procpre_interp.commands._text_defaults import with_sweep_defaults
from procpre_interp.commands.sweep import SweepCommand
from procpre_interp.core.atomic_files import write_text
from procpre_interp.core.config import from_dict, to_yaml
from procpre_interp.core.messages import unknown_name
from procpre_interp.core.terminal import time_limit
from procpre_interp.core.text_table import print_table, stdout_console
from procpre_interp.data.semantic.text import text_of
from procpre_interp.engine.engines import Engine, Stacked, chosen_engine
from procpre_interp.engine.mirror import mirrored
from procpre_interp.engine.stacks import STACK
from procpre_interp.stats.coalitions import coverage
from procpre_interp.stats.interactions import are_known, interaction_table
from procpre_interp.stats.rows import named_rows
from procpre_interp.stats.transfer_map import OUTCOMES, transfer_map
from procpre_interp.store.about import About, StoredMap
from procpre_interp.store.outcomes import cost_of
from procpre_interp.store.store import RunStore
from procpre_interp.sweep.config import Sweep
from procpre_interp.sweep.fair import Tuned, run_fair
from procpre_interp.sweep.live_table import live_table
from procpre_interp.sweep.plan import Plan, map_table, plan, results, run_sweep
from procpre_interp.sweep.size import describe_size
from procpre_interp.sweep.stacked import stacked_sweep
from procpre_interp.train import TrainConfig
from procpre_interp.train.process import check_device
from procpre_interp.views.html_report import conditions_report

CHAINS = (
    "Accuracy, gain and breakthrough are those of the last phase; a phase 2 with phase 1 in the middle counts as one. "
    "All phases: every run of the chain, each once."
)


def run(command: SweepCommand, path: Path) -> int:
    """Run what is missing of the sweep in `path`, print tables, write the report.

    Exit code 1 where a run failed or nothing is finished.
    """
    may_start = time_limit(command.minutes)
    if command.outcome is not None and command.outcome not in OUTCOMES:
        raise unknown_name("outcome", command.outcome, list(OUTCOMES))
    fields = read_config(path)
    if command.replicates is not None:
        fields["replicates"] = command.replicates
    sweep = with_sweep_defaults(from_dict(Sweep, fields, str(command.config)), fields)
    outcome = command.outcome or ("accuracy" if text_of(sweep.task) is None else "loss_nats")
    last = (sweep.then[-1] if sweep.then else sweep).train
    if outcome == "area" and (last.target_accuracy, last.patience) != (None, None):
        raise ValueError(
            "--outcome area compares runs of one length, and those of this sweep may end early (target_accuracy, "
            "patience); restricted_time_steps and breakthrough_share allow for that"
        )
    store = RunStore(command.out)
    if command.engine != "stacked":
        engine = chosen_engine(command)
    else:
        if command.device is not None:
            check_device(command.device)
        sweep, engine = stacked_sweep(sweep, command.device), Stacked(command.stack or STACK)
    if command.count:
        print(describe_size(plan(sweep, store), store) if sweep.fair is None else describe_fair_size(sweep, store))
        return 0
    with mirrored(engine, command.mirror, store) as engine:
        return _run(command, sweep, store, engine, outcome, may_start)


def _run(
    command: SweepCommand, sweep: Sweep, store: RunStore, engine: Engine, outcome: str, may_start: Callable[[], bool]
) -> int:
    given = {"engine": engine, "show": live_table(store, engine.at_once), "may_start": may_start}
    if sweep.fair is None:
        planned, problems = run_sweep(sweep, store, **given)
        table, tuned = results(planned, store, problems), None
    else:
        found = run_fair(sweep, store, **given)
        print_tuning(found.tuned)
        if found.planned is None:
            return 1
        planned, problems, table, tuned = found.planned, found.problems, found.table, found.tuned
    if table.empty or "finished" not in set(table["status"]):
        print("no cell is finished; the same command goes on from here")
        return 1
    finished = table.loc[table["status"] != "failed"]
    about = dataclasses.replace(metadata(planned, store), maps=maps(planned, finished, outcome))
    if tuned is not None:
        about = with_tuning(about, sweep, tuned, finished, store)
    store.write_table(planned.table_name, finished, about.plain())
    report = conditions_report(store, planned.table_name, command.out / f"{sweep.name}.html")
    print_results(finished, about)
    for each in about.maps:
        if each.problem:
            print(f"\n{each.title}: {each.problem}")
            continue
        rows = map_effects_table(each.effects)
        title = f"\n{each.title}\n{each.coverage}"
        print_table(stdout_console(), rows.to_dict("list"), title, left=["Method", "Player", "Decision"])
        if len(each.interactions):
            shown = map_interactions_table(each.interactions)
            print_table(stdout_console(), shown.to_dict("list"), "\nShapley interactions", left=["Pair", "Decision"])
    if command.results is not None:
        write_effects(about.maps, sweep.name, command.results)
    for run, problem in problems.items():
        print(f"failed: {planned.labels.get(run, run)}: {problem}")
    for row in named_rows(planned.cells.loc[planned.cells["problem"] != ""]):
        print(f"failed: seed {row.replicate} phase 2: {row.label}: {row.problem}")
    missing = len(planned.cells) - len(table) + planned.deferred
    print(f"\n{len(finished)} cells finished, {len(table) - len(finished)} failed, {missing} not computed yet")
    print(f"report: {report}   table: {planned.table_name} in {command.out}")
    return 1 if len(finished) < len(table) else 0


def write_effects(maps: Sequence[StoredMap], name: str, folder: Path) -> None:
    """The effects of each map and the interactions of its players as CSV; of several maps, the second has a 2."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, each in enumerate(maps, 1):
        stem = name if index == 1 else f"{name}_{index}"
        for kind, table in (("map", each.effects), ("interactions", each.interactions)):
            if len(table):
                write_text(folder / f"{stem}_{kind}.csv", table.to_csv(index=False, float_format="%.6g"))


def metadata(planned: Plan, store: RunStore) -> About:
    """What a reader of the table must know."""
    sweep = planned.sweep
    phases = [f"Phase 1, {each.name}: {each.task.name}, {training(each.train)}." for each in sweep.phase1]
    later = [f"Phase {i}: {each.task.name}, {training(each.train)}." for i, each in enumerate((sweep, *sweep.then), 2)]
    return dataclasses.replace(
        sweep.about,
        protocol=" ".join([*phases, *later]),
        note=CHAINS if "chain" in planned.cells else "",
        config=to_yaml(sweep),
        cost=cost_of(planned.configs, store),
    )


def with_tuning(about: About, sweep: Sweep, tuned: Tuned, table: pd.DataFrame, store: RunStore) -> About:
    """The metadata of a fair sweep's table: its own file, how arms were tuned, which phase 1 was not learnt, and the
    cost of all its runs."""
    assert sweep.fair is not None
    seeds, missed = sweep.fair.tuning_seeds, table.loc[~table["phase1_learnt"].astype(bool)]
    spoken = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"
    protocol = (
        f"In place of lr {sweep.train.learning_rate:g} each arm has the best of {sweep.fair.n_trials} trials of "
        f"learning rate and initial scale on {spoken}, by validation loss (table {tuned.table_name})."
    )
    said = [
        f"Phase 1 missed its gate in {len(rows)} runs of {label}, which therefore say little of it."
        for label, rows in missed.groupby("label", sort=False)
    ]
    return dataclasses.replace(
        about,
        protocol=f"{about.protocol} {protocol}",
        config=to_yaml(sweep),
        note=" ".join([*filter(None, [about.note]), *said]),
        cost=cost_of({*tuned.planned.configs, *runs_of(table)}, store),
    )


def runs_of(table: pd.DataFrame) -> set[str]:
    """The runs of a table of cells, their parents, and those of all their phases."""
    named = [table[name] for name in ("phase1_run", "chain") if name in table]
    return {*table["run"], *(run for column in named for runs in column for run in runs)}


def training(train: TrainConfig) -> str:
    """A phase's training in a few words."""
    return f"{train.steps:,} steps of batch {train.batch_size}, lr {train.learning_rate:g}, {train.schedule}"


def maps(planned: Plan, table: pd.DataFrame, outcome: str) -> tuple[StoredMap, ...]:
    """Every transfer map of the sweep: its title and its effects, one row per method and player, or what it lacks."""
    found = []
    for each in planned.sweep.filled_maps:
        effects, together, problem = pd.DataFrame(), pd.DataFrame(), ""
        rows, sampling = map_table(planned, table, each), each.sampling
        try:
            effects = transfer_map(rows, each.players, each.methods, outcome, sampling=sampling)
            if are_known(each.players, each.methods, sampling):
                together = interaction_table(rows, each.players, outcome, sampling=sampling)
        except ValueError as lacking:  # no complete replicate: what else there is can be reported all the same
            problem = str(lacking)
        title = f"Transfer map of {each.phase1}: {', '.join(each.players)}"
        said = coverage(each.players, each.methods, replicate=planned.sweep.first_seed, sampling=sampling)
        found.append(StoredMap(title=title, effects=effects, problem=problem, interactions=together, coverage=said))
    return tuple(found)

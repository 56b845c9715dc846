"""The paper's diagnostic table: which procedural task, transferred how, helps which algorithmic skill?

    python experiments/table1.py [--replicates 3] [--out runs] [--workers 2] [--minutes 90] [--quick]

Seven starts of phase 2 (none, identity, set, stack, Dyck, Dyck shuffle, ECA) x five transfers (full, attention,
attention + LN, MLP, MLP + LN), and the attention of set with the MLP of ECA (no LN, as the paper's components have
none), x four downstream tasks: 128 cells a replicate, on cheap budgets. All cells of one replicate come before those of
the next; stopped by Ctrl-C or `--minutes`, the same command goes on from there.

This is a screening, whose cells are not comparable with the paper's: `experiments/table1_paper.py` has them in the
paper's own setting. Whatever is transferred, token embeddings are averaged and positions carried where the parent's
context is long enough. The paper does so in full transfer only, so that its comparison of components is one of
embeddings as well. Answers are scored whole: the paper's mask leaves out the first digit of a sum.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import tyro

from procpre_interp.claims.contrast_text import bounds_text
from procpre_interp.claims.text import claims_table, describe_cost
from procpre_interp.core.atomic_files import plain, write_text
from procpre_interp.core.terminal import (
    check_workers,
    default_store,
    run_script,
    time_limit,
    usable_cores,
)
from procpre_interp.core.text_table import print_table, stdout_console
from procpre_interp.engine.processes import execute_all
from procpre_interp.stats.paper_comparison import (
    CHEAP_DIFFERS,
    MARGIN,
    MIN_REPLICATES,
    best_condition,
    compare_tasks,
    lead,
)
from procpre_interp.stats.rows import named_rows
from procpre_interp.stats.summary import interval_note
from procpre_interp.store.cells import with_run_text
from procpre_interp.store.outcomes import cell_results, cost_of
from procpre_interp.store.store import RunStore
from procpre_interp.study.diagnostic_table import DOWNSTREAM, PROTOCOL, SELECTORS, Plan, plan
from procpre_interp.study.paper_table import PAPER
from procpre_interp.study.protocols import PROCEDURAL
from procpre_interp.sweep.live_table import table_of_runs

NO_VERDICT = "quick: no verdict"

NAMES = {
    "none": "none",
    "identity": "identity",
    "set": "set",
    "stack": "stack",
    "dyck": "Dyck",
    "dyck_shuffle": "Dyck shuffle",
    "eca": "ECA",
    "set+eca": "set + ECA",
}
"""Starts of phase 2."""


def results(planned: Plan, store: RunStore, problems: Mapping[str, str]) -> pd.DataFrame:
    """One row per cell that is finished, diverged or failed. Shares in 0 to 1, times in steps and seconds."""
    columns = [*planned.cells, "status", "accuracy", "exact_match", "breakthrough_step", "limit", "phase1_accuracy"]
    columns += ["seconds", "phase1_seconds", "tokens", "positions_carried", "problem"]
    found = cell_results(planned.cells, store, problems).reindex(columns=columns)
    return found.astype({"accuracy": float, "exact_match": float})


def summarise(table: pd.DataFrame, *, quick: bool = False) -> pd.DataFrame:
    """One row per task, start and transfer: accuracy, gain over none, the paper's number, verdict (`compare_tasks`)."""
    claimed = {(task, *start): number for start, row in PAPER.items() for task, number in zip(DOWNSTREAM, row)}
    summary = compare_tasks(table, claimed)
    return summary.assign(verdict=NO_VERDICT) if quick else summary


def accuracies(table: pd.DataFrame, task: str) -> pd.DataFrame:
    """Replicates x (start, transfer) on one downstream task; NaN where a cell is missing, diverged or failed."""
    return table.loc[table["task"] == task].pivot(index="replicate", columns=["phase1", "transfer"], values="accuracy")


def matches(table: pd.DataFrame) -> pd.DataFrame:
    """The best start of each downstream task, and how far it leads the runner-up. One row per task and transfer.

    Transfer is `full`, or `mean` of the five, which no choice of the best transfer flatters. See `best_condition`.
    """
    rows = []
    for task in dict.fromkeys(table["task"]):
        for transfer in ("full", "mean"):
            by_start = compare_starts(table, task, transfer)
            if by_start.shape[1] >= 2 and len(by_start):
                found = best_condition(by_start)
                rows.append(
                    {
                        "task": task,
                        "transfer": transfer,
                        "best": found.best,
                        "runner_up": found.runner_up,
                        "n": found.n,
                        "lead_mean": found.mean,
                        "lead_low": found.low,
                        "lead_high": found.high,
                        "answer": found.answer,
                    }
                )
    return pd.DataFrame(rows)


def compare_starts(table: pd.DataFrame, task: str, transfer: str) -> pd.DataFrame:
    """Replicates x starts (none included, the assembly not), in the replicates that have all those with any result."""
    accuracy = accuracies(table, task)
    chosen = {}
    for start in ("none", *PROCEDURAL):
        wanted = [""] if start == "none" else SELECTORS if transfer == "mean" else [transfer]
        columns = [(start, how) for how in wanted]
        if all(column in accuracy for column in columns):
            chosen[start] = accuracy[columns].mean(axis=1, skipna=False)
    return pd.DataFrame(chosen).dropna(axis=1, how="all").dropna()


def conclusions(table: pd.DataFrame) -> list[str]:
    """The task-to-skill matches that the paper names, computed, in sentences."""
    found = matches(table)
    lines = []
    for row in named_rows(found):
        how = "full transfer" if row.transfer == "full" else "mean of the five transfers"
        points = bounds_text(row.lead_mean, row.lead_low, row.lead_high, 100, "+.1f")
        ahead = f"{NAMES[row.best]}, {points} points over {NAMES[row.runner_up]}"
        lines.append(f"{row.task}, {how}: highest {ahead} -> {NAMES.get(row.answer, row.answer)}")
    for start, task in (("dyck", "haystack"), ("eca", "reversed_addition")):
        by_start = compare_starts(table, task, "full")
        if start in by_start and by_start.shape[1] >= 2 and len(by_start):
            rival = str(by_start.drop(columns=start).mean().idxmax())
            row = lead(by_start, start, rival)
            told = {start: "holds", rival: "does not hold"}.get(row.answer, row.answer)
            ahead = f"{bounds_text(row.mean, row.low, row.high, 100, '+.1f')} points against {NAMES[rival]}"
            lines.append(f"the paper's {NAMES[start]} for {task}, full transfer, in this setting: {ahead} -> {told}")
    return [*lines, f"one task best everywhere, full transfer? {one_best(found)}"]


def one_best(found: pd.DataFrame) -> str:
    """`yes` when one start is decided best on every downstream task, `no` when two tasks have different ones."""
    full = found.loc[found["transfer"] == "full"] if len(found) else found
    decided = {row["task"]: NAMES[row["answer"]] for row in full.to_dict("records") if row["answer"] in NAMES}
    if len(set(decided.values())) > 1:
        return "no: " + ", ".join(f"{best} on {task}" for task, best in decided.items())
    if len(decided) == len(DOWNSTREAM):
        return f"yes: {decided[DOWNSTREAM[0]]}"
    return f"undecided: a best one is decided on {len(decided)} of {len(DOWNSTREAM)} tasks"


@dataclass(frozen=True, kw_only=True)
class Table1:
    """The paper's diagnostic table: procedural tasks x transfers x downstream tasks, beside the paper's numbers."""

    replicates: int | None = None
    """Replicates: seeds of both phases, from 1000. Default: 3, the fewest for a verdict, or 1 with --quick."""
    out: Path = field(default_factory=default_store)
    """Folder of the runs."""
    workers: int = field(default_factory=usable_cores)
    """Processes of one thread each. Does not change the numbers."""
    minutes: float | None = None
    """Stop starting runs after this many minutes; those under way are finished. Default: no limit."""
    quick: bool = False
    """A few cells of a few steps, to see that everything works; never a verdict."""
    results: Path | None = None
    """Folder of the CSV tables. Default: experiments/results, or with --quick the folder of the runs."""


def main(command: Table1) -> int:
    """Run what is missing, store and print the tables. Exit code 1 where a run failed or nothing is finished."""
    check_workers(command.workers)
    may_start = time_limit(command.minutes)
    replicates = command.replicates if command.replicates is not None else 1 if command.quick else MIN_REPLICATES
    planned, store = plan(replicates=replicates, quick=command.quick), RunStore(command.out)
    called = [label(cell) for cell in planned.cells.to_dict("records")]
    cells = planned.cells.assign(condition=called, label=called)
    with table_of_runs(planned.configs, cells, labels(planned), store, command.workers) as progress:
        problems = execute_all(planned.configs, store, workers=command.workers, on_event=progress, may_start=may_start)
    table = results(planned, store, problems)
    if table.empty:
        print("no cell is finished yet; the same command goes on from here")
        return 1
    summary = summarise(table, quick=command.quick)
    spent = cost_of(planned.configs, store)
    about = {"title": "The diagnostic table", "protocol": PROTOCOL, "margin": MARGIN, "cost": spent}
    about |= {"summary": plain(summary.to_dict("records"))}
    store.write_table("table1-quick" if command.quick else "table1", table, about)
    folder = command.results or (command.out if command.quick else Path(__file__).parent / "results")
    folder.mkdir(parents=True, exist_ok=True)
    paper = {"claimed": "paper", "claimed_gain": "paper_gain"}
    for name, frame in {"cells": table, "summary": summary, "matches": matches(table)}.items():
        if not (command.quick and name == "matches"):
            write_text(
                folder / f"table1_{name}.csv", with_run_text(frame).round(4).rename(columns=paper).to_csv(index=False)
            )
    print_tables(table, summary, quick=command.quick)
    counts = f"{len(table)} of {len(planned.cells)} cells, {(table['status'] == 'failed').sum()} failed"
    print(f"\n{counts}. Cost: {describe_cost(spent)}. Tables: {folder}")
    return 1 if problems else 0


def labels(planned: Plan) -> dict[str, str]:
    """What to call each run while it works."""
    names = {run: f"seed {config.seed} phase 1: {config.task.name}" for run, config in planned.configs.items()}
    for cell in planned.cells.to_dict("records"):
        names[cell["run"]] = f"seed {cell['replicate']} {label(cell)}"
    return names


def label(cell: Mapping[str, Any]) -> str:
    """What to call a cell in every replicate."""
    return f"{cell['task']}: {NAMES[cell['phase1']]} {cell['transfer']}".strip()


def print_tables(table: pd.DataFrame, summary: pd.DataFrame, *, quick: bool) -> None:
    """One table a downstream task, then those cells for which the paper has a number, then what follows from it."""
    console = stdout_console()
    for task, rows in summary.groupby("task", sort=False):
        title = f"\n{task}, accuracy in %"
        for start, transfer in (("none", ""), ("set+eca", "attention+MLP")):
            for row in rows.loc[(rows["phase1"] == start) & (rows["transfer"] == transfer)].to_dict("records"):
                title += f"; {NAMES[start]} {transfer}".rstrip() + f" {shown_cell(row)}"
        print_table(console, grid(rows).to_dict("list"), title, left=["Phase 1"])
    titles = {"task": "Task", "start": "Phase 1", "transfer": "Transfer"}
    beside = claims_table(summary.assign(start=[NAMES[start] for start in summary["phase1"]]), titles)
    print_table(
        console, beside.to_dict("list"), "\nGains over none, beside the paper's", left=[*titles.values(), "Verdict"]
    )
    lines = [
        f"Intervals (of the cell with the fewest): {interval_note(int(summary['n'].to_numpy().min()))}.",
        f"Gains of up to {100 * MARGIN:.0f} points count as none. No cell is comparable with the paper's: "
        f"{CHEAP_DIFFERS} (`experiments/table1_paper.py` has the paper's own setting).  *: position embeddings fresh, "
        "since the parent's context is too short.",
        PROTOCOL,
        *([NO_VERDICT] if quick else conclusions(table)),
    ]
    for row in table.loc[table["status"] == "failed"].to_dict("records"):
        lines.append(f"failed: {row['replicate']} {row['task']} {row['phase1']} {row['transfer']}: {row['problem']}")
    for line in lines:
        console.print(f"\n{line}")


def grid(rows: pd.DataFrame) -> pd.DataFrame:
    """Tasks of phase 1 x transfers, on one downstream task, as text."""
    single = rows.loc[rows["transfer"].isin(list(SELECTORS))]
    cells = {(row["phase1"], row["transfer"]): shown_cell(row) for row in single.to_dict("records")}
    fresh = set(single.loc[~single["positions_carried"], "phase1"])
    lines = []
    for start in dict.fromkeys(single["phase1"]):
        name = NAMES[start] + (" *" if start in fresh else "")
        lines.append({"Phase 1": name, **{how: cells.get((start, how), "") for how in SELECTORS}})
    return pd.DataFrame(lines, columns=["Phase 1", *SELECTORS])


def shown_cell(row: Mapping[str, Any]) -> str:
    """Accuracy with its interval, and what else happened."""
    lost = [f"{row[status]} {status}" for status in ("failed", "diverged") if row[status]]
    bounds = row["accuracy_mean"], row["accuracy_low"], row["accuracy_high"]
    return " ".join([bounds_text(*bounds, 100, ".1f"), *lost]).strip()


if __name__ == "__main__":
    sys.exit(run_script("table1", lambda: main(tyro.cli(Table1))))

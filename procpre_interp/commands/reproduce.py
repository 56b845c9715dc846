"""`procpre-interp reproduce`: replicates x conditions on haystack, a table beside the paper's numbers, a report."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from procpre_interp.commands.options import default_store, parse
from procpre_interp.engine import execute_all
from procpre_interp.progress import RunProgress
from procpre_interp.report import reproduce_report
from procpre_interp.reproduce import (
    FIRST_CONFIRMATION_SEED,
    PROTOCOLS,
    Plan,
    ProtocolName,
    cost,
    plan,
    results,
)
from procpre_interp.runs import RunStore
from procpre_interp.stats import summarise_conditions


@dataclass(frozen=True, kw_only=True)
class Reproduce:
    """Does pretraining on Dyck brackets teach a tiny transformer to find a needle in a haystack?

    A replicate is a fresh seed of both phases, carried through all conditions: no pretraining, Dyck, Dyck with its
    weights shuffled, attention or MLP alone, Dyck with its sequences shuffled. Prints accuracy and time to breakthrough
    with intervals beside the paper's numbers, and writes one HTML report. Stopped with Ctrl-C or killed, it goes on
    where it was when the same command is given again.
    """

    out: Path = field(default_factory=default_store)
    """Folder of the runs and of reproduce.html."""
    quick: bool = False
    """Three conditions and one replicate: a smoke test of the claim, never evidence for it."""
    replicates: int | None = None
    """Replicates; none: 6, or 1 with --quick."""
    protocol: ProtocolName = "cheap"
    """cheap: minutes a run. paper: the paper's phase 2, an hour or more a replicate."""
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    """Processes of one thread each. Does not change the numbers."""
    first_seed: int = FIRST_CONFIRMATION_SEED
    """Seed of the first replicate; 0-99 were used for tuning, from 1000 on they confirm."""


def main(arguments: list[str]) -> int:
    """Run what is missing, print the table, write the report. Exit code 1 where a run failed."""
    command = parse(Reproduce, "reproduce", arguments)
    if command.workers < 1:
        raise ValueError(f"workers={command.workers}; there must be at least 1")
    replicates = command.replicates if command.replicates is not None else (1 if command.quick else 6)
    planned = plan(
        PROTOCOLS[command.protocol], replicates=replicates, quick=command.quick, first_seed=command.first_seed
    )
    store = RunStore(command.out)
    with RunProgress(labels(planned)) as progress:
        problems = execute_all(planned.configs, store, workers=command.workers, on_event=progress)
    table = results(planned, store)
    if table.empty:
        return 1
    spent = cost(planned, store)
    store.write_table(planned.table_name, table, metadata(planned, spent))
    report = command.out / "reproduce.html"
    reproduce_report(store, planned.table_name, report)
    print_results(planned, table, spent)
    print(f"\nreport: {report}   table: {planned.table_name} in {command.out}")
    return 1 if problems else 0


def labels(planned: Plan) -> dict[str, str]:
    """What to call each run while it works."""
    names = {run: f"seed {config.seed} phase 1: {config.task.name}" for run, config in planned.configs.items()}
    for cell in planned.cells.to_dict("records"):
        names[cell["run"]] = f"seed {cell['replicate']} phase 2: {cell['label']}"
    return names


def metadata(planned: Plan, spent: dict[str, float]) -> dict:
    """What a reader of the table must know."""
    first = next(iter(planned.configs[run] for run in planned.cells["run"]))
    return {
        "title": "Dyck pretraining and needle in a haystack",
        "protocol": planned.protocol.text,
        "protocol_name": planned.protocol.name,
        "task": first.task.name,
        "limit": first.train.steps,
        "threshold": first.task.breakthrough_accuracy,
        "paper": {c.name: c.paper_accuracy for c in planned.conditions if c.paper_accuracy is not None},
        "paper_notes": {c.name: c.paper_note for c in planned.conditions if c.paper_note},
        "cost": spent,
    }


def print_results(planned: Plan, table: pd.DataFrame, spent: dict[str, float]) -> None:
    """The table of conditions, the protocol and the cost, on stdout."""
    console = Console(highlight=False, markup=False)
    shown = Table(title="Needle in a haystack, test accuracy", box=None, pad_edge=False, title_justify="left")
    shown.add_column("condition", overflow="fold")
    for column in ("n", "accuracy %", "95 % interval", "paper %", "broke through", "steps to breakthrough"):
        shown.add_column(column, justify="right")
    paper = {c.name: c.paper_accuracy for c in planned.conditions}
    labels = {c.name: c.label for c in planned.conditions}
    for row in summarise_conditions(table).to_dict("records"):
        number = paper[row["condition"]]
        shown.add_row(
            labels[row["condition"]],
            str(row["n"]),
            f"{100 * row['accuracy_mean']:.1f}",
            interval(100 * row["accuracy_low"], 100 * row["accuracy_high"], ".1f"),
            "" if number is None else f"{100 * number:.1f}",
            f"{round(row['breakthrough_share'] * row['n'])}/{row['n']}",
            f"{row['time_mean']:.0f} {interval(row['time_low'], row['time_high'], '.0f')}",
        )
    console.print(shown)
    limit = int(table["limit"].iloc[0])
    console.print(
        f"\nIntervals: 95 % bootstrap over replicates. Steps to breakthrough: mean of the first evaluation at or above "
        f"50 %, counted as {limit} where it never came (restricted mean)."
    )
    if len(planned.seeds) == 1:
        console.print("One replicate: no interval, and no evidence. Use more with --replicates.")
    console.print(planned.protocol.text)
    console.print(
        f"Cost: {spent['runs']:.0f} runs, {spent['cpu_seconds'] / 60:.1f} CPU-minutes, "
        f"{spent['tokens'] / 1e6:.0f} M tokens."
    )


def interval(low: float, high: float, form: str) -> str:
    """An interval in brackets, or a dash where there is none."""
    return "-" if low != low else f"[{low:{form}}, {high:{form}}]"

"""`procpre-interp reproduce`: replicates x conditions on haystack, a table beside the paper's numbers, a report."""

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from procpre_interp.commands.options import default_store, parse, print_frame, stdout_console
from procpre_interp.describe import conditions_table, describe_cost, explain_columns
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
from procpre_interp.stats import interval_note, summarise_conditions


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
    workers: int = field(default_factory=usable_cores)
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
    if (note := next(iter(planned.configs.values())).kernel_note) is not None:
        print(note, file=sys.stderr)
    with RunProgress(labels(planned)) as progress:
        problems = execute_all(planned.configs, store, workers=command.workers, on_event=progress)
    table = results(planned, store)
    if table.empty:
        return 1
    about = metadata(planned, cost(planned, store))
    store.write_table(planned.table_name, table, about)
    report = reproduce_report(store, planned.table_name, command.out / "reproduce.html")
    print_results(table, about)
    print(f"\nreport: {report}   table: {planned.table_name} in {command.out}")
    return 1 if problems else 0


def labels(planned: Plan) -> dict[str, str]:
    """What to call each run while it works."""
    names = {run: f"seed {config.seed} phase 1: {config.task.name}" for run, config in planned.configs.items()}
    for cell in planned.cells.to_dict("records"):
        names[cell["run"]] = f"seed {cell['replicate']} phase 2: {cell['label']}"
    return names


def metadata(planned: Plan, spent: dict[str, float | int]) -> dict:
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


def print_results(table: pd.DataFrame, about: dict) -> None:
    """The table of conditions, what its columns mean, the protocol and the cost, on stdout."""
    summary = summarise_conditions(table)
    rows = conditions_table(summary, about)
    console = stdout_console()
    print_frame(console, rows, about["title"], left=["Condition"])
    fewest = int(summary["n"].to_numpy().min())
    for line in (f"Intervals: {interval_note(fewest)}.", explain_columns(about), about["protocol"]):
        console.print(f"\n{line}")
    console.print(f"\nCost: {describe_cost(about['cost'])}.")

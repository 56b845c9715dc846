"""`procpre-interp reproduce`: replicates x conditions on haystack, a table beside the paper's numbers, a report."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from procpre_interp.commands.options import parse
from procpre_interp.describe import conditions_table, describe_cost, explain_columns
from procpre_interp.engine import execute_all
from procpre_interp.outcomes import cost_of
from procpre_interp.progress import RunProgress
from procpre_interp.report import conditions_report
from procpre_interp.reproduce import PAPER, PAPER_NOTES, PROTOCOLS, Protocol, ProtocolName, reproduction
from procpre_interp.runs import RunStore
from procpre_interp.stats import interval_note, summarise_conditions
from procpre_interp.sweep import FIRST_CONFIRMATION_SEED, Plan, plan, results
from procpre_interp.terminal import check_workers, default_store, print_frame, stdout_console, usable_cores


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
    check_workers(command.workers)
    replicates = command.replicates if command.replicates is not None else (1 if command.quick else 6)
    protocol = PROTOCOLS[command.protocol]
    planned = plan(reproduction(protocol, replicates=replicates, quick=command.quick, first_seed=command.first_seed))
    store = RunStore(command.out)
    if (note := next(iter(planned.configs.values())).kernel_note) is not None:
        print(note, file=sys.stderr)
    with RunProgress(planned.labels) as progress:
        problems = execute_all(planned.configs, store, workers=command.workers, on_event=progress)
    table = results(planned, store)
    if table.empty:
        return 1
    about = metadata(planned, protocol, cost_of(planned.configs, store))
    store.write_table(planned.table_name, table, about)
    report = conditions_report(store, planned.table_name, command.out / "reproduce.html")
    print_results(table, about)
    print(f"\nreport: {report}   table: {planned.table_name} in {command.out}")
    return 1 if problems else 0


def metadata(planned: Plan, protocol: Protocol, spent: dict[str, float | int]) -> dict:
    """What a reader of the table must know."""
    sweep, shown = planned.sweep, set(planned.cells["condition"])
    return {
        "title": sweep.title,
        "protocol": protocol.text,
        "protocol_name": protocol.name,
        **sweep.about,
        "paper": {name: share for name, share in PAPER.items() if name in shown},
        "paper_notes": {name: note for name, note in PAPER_NOTES.items() if name in shown},
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

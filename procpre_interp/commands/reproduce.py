"""`procpre-interp reproduce`: replicates x conditions on haystack, a table beside the paper's numbers, a report.

What is slow to import is imported after the first sentence.
"""

import math
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from procpre_interp.commands._options import parse
from procpre_interp.core.environment import check_workers, default_store, usable_cores
from procpre_interp.core.startup import quick_imports
from procpre_interp.core.streams import announce

RUNS = {"quick": 5, "cheap": 8, "paper": 8}
"""Runs of a replicate, phase 1 included."""
CPU_MINUTES = {"quick": 6, "cheap": 8, "paper": 25}
"""What a replicate takes with the native kernel, as measured."""


@dataclass(frozen=True, kw_only=True)
class Reproduce:
    """Does pretraining on Dyck brackets teach a tiny transformer to find a needle in a haystack?

    A replicate is a fresh seed of both phases, carried through all conditions: no pretraining, Dyck, Dyck with its
    weights shuffled, attention or MLP alone, Dyck with its sequences shuffled. Prints accuracy and time to breakthrough
    with intervals beside the paper's numbers, and writes one HTML report. Stopped by Ctrl-C or killed, it resumes
    where it was when the same command is given again.
    """

    out: Path = field(default_factory=default_store)
    """Folder of the runs and of reproduce.html."""
    quick: bool = False
    """A demonstration in minutes, not evidence: four conditions of one seed in the paper's phase 2, ended soon after
    the breakthrough."""
    replicates: int | None = None
    """Replicates. Default: 6, or 1 with --quick."""
    protocol: Literal["cheap", "paper"] | None = None
    """cheap: minutes per run. paper: the paper's phase 2, an hour or more per replicate. Default: cheap; --quick has
    its own."""
    workers: int = field(default_factory=usable_cores)
    """Processes of one thread each. Does not change the numbers."""
    first_seed: int | None = None
    """Seed of the first replicate; 0-99 were used for tuning, from 1000 on they confirm. Default: 1000, or 2000 with
    --quick."""


def main(arguments: list[str]) -> int:
    """Run what is missing, print the table, write the report. Exit code 1 where a run failed."""
    command = parse(Reproduce, "reproduce", arguments)
    check_workers(command.workers)
    if command.quick and command.protocol is not None:
        raise ValueError(f"--quick has a protocol of its own; leave out --protocol {command.protocol}, or --quick")
    replicates = command.replicates if command.replicates is not None else (1 if command.quick else 6)
    if replicates < 1:
        raise ValueError(f"replicates={replicates}; there must be at least 1")
    announce(opening(command, replicates))
    return run(command, replicates)


def opening(command: Reproduce, replicates: int) -> str:
    """What will be done, in how many runs, how long it takes about, and where it goes."""
    name = "quick" if command.quick else command.protocol or "cheap"
    minutes = math.ceil(CPU_MINUTES[name] * replicates / min(command.workers, usable_cores()))
    takes = f"{minutes} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours"
    seeds = "one seed" if replicates == 1 else f"{replicates} seeds"
    conditions = "four conditions" if command.quick else "six conditions"
    return (
        "Does pretraining on Dyck brackets teach a tiny transformer to find a needle in a haystack? "
        f"{RUNS[name] * replicates} runs ({seeds}, {conditions}), about {takes} on {command.workers} "
        f"core{'s' if command.workers > 1 else ''}; runs that are in {command.out} already are not repeated. "
        f"The report will be {command.out / 'reproduce.html'}. "
        "Ctrl-C saves everything, and the same command goes on from there. "
        "Loading PyTorch and, the first time, compiling the training kernel takes up to a minute ..."
    )


def run(command: Reproduce, replicates: int) -> int:
    """The same, after the first sentence."""
    with quick_imports():
        from procpre_interp.commands._conditions import print_results
        from procpre_interp.engine.processes import execute_all
        from procpre_interp.store.outcomes import cost_of
        from procpre_interp.store.store import RunStore
        from procpre_interp.study.protocols import PROTOCOLS, QUICK, QUICK_SEED, metadata, reproduction
        from procpre_interp.sweep.config import FIRST_CONFIRMATION_SEED
        from procpre_interp.sweep.live_table import live_table
        from procpre_interp.sweep.plan import plan, results
        from procpre_interp.views.html_report import conditions_report

    protocol = QUICK if command.quick else PROTOCOLS[command.protocol or "cheap"]
    first_seed = QUICK_SEED if command.quick else FIRST_CONFIRMATION_SEED
    if command.first_seed is not None:
        first_seed = command.first_seed
    sweep = reproduction(protocol, replicates=replicates, quick=command.quick, first_seed=first_seed)
    planned, store = plan(sweep), RunStore(command.out)
    if (note := next(iter(planned.configs.values())).kernel_note) is not None:
        print(note, file=sys.stderr)
    with live_table(store, command.workers)(planned) as progress:
        problems = execute_all(planned.configs, store, workers=command.workers, on_event=progress)
    table = results(planned, store)
    if table.empty:
        return 1
    about = metadata(planned, protocol, table, cost_of(planned.configs, store))
    store.write_table(planned.table_name, table, about.plain())
    report = conditions_report(store, planned.table_name, command.out / "reproduce.html")
    print_results(table, about)
    print(f"\nreport: {report}   table: {planned.table_name} in {command.out}")
    return 1 if problems else 0

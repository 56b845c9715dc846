"""`procpre-interp reproduce`: replicates x conditions on haystack, a table beside the paper's numbers, a report.

What is slow to import is imported after the first sentence.
"""

import dataclasses
import math
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from procpre_interp.commands._options import parse
from procpre_interp.core.environment import default_store, usable_cores
from procpre_interp.core.startup import quick_imports
from procpre_interp.core.streams import announce
from procpre_interp.engine.options import EngineOptions

Kind = Literal["quick", "headline", "all"]
"""Which conditions: four of one seed, no pretraining and Dyck, or all six."""
RUNS: dict[Kind, int] = {"quick": 5, "headline": 3, "all": 8}
"""Runs of a replicate, phase 1 included."""
CPU_MINUTES: dict[Kind, float] = {"quick": 4, "headline": 5, "all": 15}
"""What a replicate takes with the native kernel, by measured times of a step; --protocol cheap takes a third."""
USUAL_REPLICATES = 15
"""What decided the headline on seeds from 3000, of which full transfer broke through in 12, and no fresh model."""


@dataclass(frozen=True, kw_only=True)
class Reproduce(EngineOptions):
    """Does pretraining on Dyck brackets teach a tiny transformer to find a needle in a haystack?

    A replicate is a fresh seed of both phases, carried through all conditions. In the paper's phase 2, no pretraining
    is compared with full transfer of a model of Dyck, and replicates are added until an interval that holds at every
    look decides whether accuracy gains more than a quarter of what the paper reports. Prints accuracy and time to
    breakthrough with intervals, and writes one HTML report. Stopped by Ctrl-C or killed, it resumes where it was when
    the same command is given again.
    """

    out: Path = field(default_factory=default_store)
    """Folder of the runs and of reproduce.html."""
    quick: bool = False
    """A demonstration in minutes, not evidence: four conditions of one seed in the paper's phase 2, ended soon after
    the breakthrough."""
    replicates: int | None = None
    """Replicates. Default: as many as decide; 6 with --protocol cheap, 1 with --quick."""
    most_replicates: int = 40
    """Replicates after which the headline is left undecided."""
    protocol: Literal["paper", "cheap"] | None = None
    """paper: the paper's phase 2. cheap: a smaller batch and a higher learning rate, where full transfer breaks
    through in half of the seeds alone: for screening many conditions. Default: paper; --quick has its own."""
    every_condition: bool = False
    """Also shuffled weights, attention or MLP alone, and shuffled sequences, with as many replicates. Default: only
    with --protocol cheap."""
    to_the_end: bool = False
    """Train runs that broke through to the last step, so that accuracies can be compared with the paper's. Default:
    they end at an accuracy of 90 %, in a fifth of the time; those of --protocol cheap are always trained to the end."""
    first_seed: int | None = None
    """Seed of the first replicate; 0-99 were used for tuning, from 1000 on they confirm. Default: 3000, 1000 with
    --protocol cheap, 2000 with --quick."""

    @property
    def kind(self) -> Kind:
        """Which conditions are asked for."""
        return "quick" if self.quick else "all" if self.every_condition or self.protocol == "cheap" else "headline"

    @property
    def fixed_replicates(self) -> int | None:
        """How many replicates there will be; None for as many as decide."""
        return self.replicates or (1 if self.quick else 6 if self.protocol == "cheap" else None)


def main(arguments: list[str]) -> int:
    """Run what is missing, print the table, write the report. Exit code 1 where a run failed."""
    command = parse(Reproduce, "reproduce", arguments)
    command.check()
    own = {"protocol": command.protocol, "every-condition": command.every_condition, "to-the-end": command.to_the_end}
    for flag, given in own.items():
        if command.quick and given:
            raise ValueError(f"--quick has a protocol and conditions of its own; leave out --{flag}, or --quick")
    if command.fixed_replicates and command.most_replicates != Reproduce.most_replicates:
        raise ValueError(
            f"--most-replicates is for as many as decide, and here there are {command.fixed_replicates}; leave it out, "
            "or --replicates, --quick or --protocol cheap"
        )
    for name in ("replicates", "most_replicates"):
        if getattr(command, name) is not None and getattr(command, name) < 1:
            raise ValueError(f"{name}={getattr(command, name)}; there must be at least 1")
    announce(opening(command))
    return run(command)


def opening(command: Reproduce) -> str:
    """What will be done, in how many runs, how long it takes about, and where it goes."""
    fixed = command.fixed_replicates
    replicates = fixed or USUAL_REPLICATES
    here = {"processes": command.workers, "serial": 1}.get(command.engine)
    minutes = math.ceil(CPU_MINUTES[command.kind] * replicates / min(here or 1, usable_cores()))
    takes = f"{minutes} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours"
    cores = f"on {here} core{'s' if here > 1 else ''}" if here else "of one core, on a cluster"
    seeds = "one seed" if fixed == 1 else f"{replicates} seeds" if fixed else f"{replicates} seeds decide as a rule"
    conditions = {"quick": "four conditions", "headline": "two conditions", "all": "six conditions"}[command.kind]
    return (
        "Does pretraining on Dyck brackets teach a tiny transformer to find a needle in a haystack? "
        f"{RUNS[command.kind] * replicates} runs ({seeds}, {conditions}), about {takes} {cores}; "
        f"runs that are in {command.out} already are not repeated. "
        f"The report will be {command.out / 'reproduce.html'}. "
        "Ctrl-C saves everything, and the same command goes on from there. "
        "Loading PyTorch and, the first time, compiling the training kernel takes up to a minute ..."
    )


def run(command: Reproduce) -> int:
    """The same, after the first sentence."""
    with quick_imports():
        from procpre_interp.commands._conditions import print_results
        from procpre_interp.engine.engines import chosen_engine
        from procpre_interp.engine.mirror import mirrored
        from procpre_interp.store.outcomes import cost_of
        from procpre_interp.store.store import RunStore
        from procpre_interp.study import headline
        from procpre_interp.study.protocols import (
            FIRST_SEEDS,
            HEADLINE_CONDITIONS,
            QUICK_CONDITIONS,
            metadata,
            reproduction,
        )
        from procpre_interp.sweep.live_table import live_table
        from procpre_interp.sweep.plan import plan
        from procpre_interp.views.html_report import conditions_report

    name = command.protocol or "paper"
    protocol = headline.chosen_protocol(name, quick=command.quick, to_the_end=command.to_the_end)
    first_seed = FIRST_SEEDS[protocol.name] if command.first_seed is None else command.first_seed
    most = command.fixed_replicates or command.most_replicates
    names = {"quick": QUICK_CONDITIONS, "headline": HEADLINE_CONDITIONS, "all": None}[command.kind]
    sweep = reproduction(protocol, replicates=most, conditions=names, first_seed=first_seed)
    store = RunStore(command.out)
    first = plan(dataclasses.replace(sweep, replicates=1))
    if (note := next(iter(first.configs.values())).kernel_note) is not None:
        print(note, file=sys.stderr)
    finding = ""
    with mirrored(chosen_engine(command), command.mirror, store) as engine:
        shown = live_table(store, engine.at_once)
        if command.fixed_replicates:
            computed = headline.compute(sweep, store, engine=engine, show=shown)
        else:
            last = headline.compute_until_decided(sweep, store, engine=engine, show=shown)
            if last is None:
                return 1
            computed, finding = last.computed, headline.headline_finding(last.contrasts[0])
        table, planned = computed.table, computed.planned
        if len(table):
            table = table.loc[table["status"] != "failed"]
        if table.empty:
            return 1
        about = metadata(planned, protocol, table, cost_of(planned.configs, store))
        about = dataclasses.replace(about, note=" ".join(filter(None, (finding, about.note))))
        store.write_table(planned.table_name, table, about.plain())
        report = conditions_report(store, planned.table_name, command.out / "reproduce.html")
        print_results(table, about)
        print(f"\nreport: {report}   table: {planned.table_name} in {command.out}")
        return int(len(table) < len(computed.cells))

"""Which fresh initialisation learns haystack best? The baseline that procedural pretraining has to beat.

    python experiments/search_baseline.py [--out runs] [--workers 2] [--quick]

Phase 1 was tuned and the baseline never: so here learning rate and scales of a fresh model are, on seeds from 0, by
successive halving under the paper's phase 2. Options are scored by their validation loss, mean over training; test data
are not looked at. Runs that are there already are not computed again, so that the same command goes on after an
interruption; all of it is 464,000 steps of batch 1000, 3.7 CPU-hours where it was measured. What is
found goes into experiments/results/tuned_baseline.json, where the claim tuned_baseline reads it.
"""

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from procpre_interp.core.environment import now
from procpre_interp.core.terminal import check_workers, default_store, run_script, usable_cores
from procpre_interp.core.text_table import stdout_console
from procpre_interp.engine.engines import Processes
from procpre_interp.stats.successive_halving import successive_halving
from procpre_interp.store.outcomes import cost_of
from procpre_interp.store.store import RunStore
from procpre_interp.study.protocols import PROTOCOLS, haystack_sweep
from procpre_interp.study.smoke_test import few_steps
from procpre_interp.study.tuned_baseline import FILE, Rung, TunedBaseline, grid, progress, write_baseline
from procpre_interp.sweep.live_table import live_table
from procpre_interp.sweep.plan import run_sweep

OPTIONS = grid(
    learning_rate=(3e-4, 1e-3, 3e-3, 1e-2), matrices=(1.0, 3.0, 10.0), last_norm=(1.0, 3.0), embeddings=(1.0, 3.0)
)
"""Dyck's matrices are 4 to 30 times as large as fresh ones, its last gains 3.6 times, and its embeddings twice."""
RUNGS = (
    Rung(seeds=1, stop_after=2_000, kept=16),
    Rung(seeds=2, stop_after=4_000, kept=4),
    Rung(seeds=6, stop_after=10_000, kept=1),
)
"""Dyck's full transfer breaks through at step 1,500 to 1,800."""
QUICK = (Rung(seeds=1, stop_after=10, kept=2), Rung(seeds=1, stop_after=20, kept=1))


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """Tune a fresh initialisation by successive halving."""

    out: Path = field(default_factory=default_store)
    """Folder of the runs; those that it has are not computed again."""
    workers: int = field(default_factory=usable_cores)
    """Processes of one thread each. Does not change the numbers."""
    quick: bool = False
    """Four options and a few steps, to see that everything works: what it finds means nothing."""
    results: Path | None = None
    """The file to write. Default: experiments/results/tuned_baseline.json, or with --quick one in the folder of the
    runs."""


def search(asked: SearchOptions) -> int:
    """Search and write."""
    check_workers(asked.workers)
    store, console = RunStore(asked.out), stdout_console()
    protocol, options, rungs = PROTOCOLS["paper"], OPTIONS, RUNGS
    if asked.quick:
        protocol = dataclasses.replace(protocol, phase2=few_steps(protocol.phase2))
        options, rungs = dict(list(OPTIONS.items())[-4:]), QUICK
    runs = set[str]()

    def score(labels: list[str], round_: int) -> list[float]:
        rung = rungs[round_]
        train = rung.train(protocol)
        conditions = tuple(options[label].condition(label, train) for label in labels)
        budget = dataclasses.replace(protocol, phase2=train)
        sweep = haystack_sweep("baseline", conditions, protocol=budget, replicates=rung.seeds, first_seed=0)
        planned, problems = run_sweep(
            sweep, store, engine=Processes(asked.workers), show=live_table(store, asked.workers)
        )
        if problems:
            raise ValueError(f"a run failed: {next(iter(problems.values()))}")
        cells = planned.cells.loc[planned.cells["condition"].isin(labels)]
        runs.update(cells["run"])
        opened = [store.open(run) for run in cells["run"]]
        scores = [progress(run.history(), diverged=run.summary["status"] == "diverged") for run in opened]
        means = cells.assign(score=scores).groupby("condition")["score"].mean()
        found = [float(means[label]) for label in labels]
        for label, value in sorted(zip(labels, found), key=lambda pair: -pair[1]):
            console.print(f"{value:.4f}  {label}")
        return found

    found = successive_halving(list(options), score, kept=[rung.kept for rung in rungs[:-1]])
    about: dict[str, object] = {"created": now(), "protocol": protocol.text, "quick": asked.quick}
    about |= {"rungs": [dataclasses.asdict(rung) for rung in rungs], "cost": cost_of(runs, store)}
    path = asked.results or (asked.out / FILE.name if asked.quick else FILE)
    write_baseline(TunedBaseline(options=options, search=found, about=about), path)
    console.print(f"Best: {found.best}. Written: {path}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The script's command line."""

    def work() -> int:
        return search(tyro.cli(SearchOptions, description=__doc__, args=arguments))

    return run_script("search_baseline", work)


if __name__ == "__main__":
    sys.exit(main())

"""How long it takes until something happens: imports, commands, and a sweep's worker up to its first step.

    python experiments/bench_startup.py [--runs 5000] [--repeats 7] [--record]

Each measurement is a fresh process, the interpreter's own start included; the measurements take turns, so that a busy
moment of the machine hits all alike. `import torch` is what nothing here can do without. A worker is measured from
the moment that it is spawned to the report of its first step; `procpre-interp runs` lists a made-up store. Prints
medians and minima, of which the latter are what a quiet machine would reach. `--record` writes them into BENCHMARKS.md.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import tyro
from bench_explorer import make_store

from procpre_interp.core.children import child_environment
from procpre_interp.views.benchmarks import record

IMPORTS = ("torch", "procpre_interp.pipeline.execute", "procpre_interp.sweep.plan", "procpre_interp.probe")
COMMANDS = ("--help", "runs --help", "train --help", "tasks")

WORKER = """
if __name__ == "__main__":  # the worker imports this file as well
    import tempfile, time
    from procpre_interp import TASKS, RunConfig, RunStore, TrainConfig
    from procpre_interp.engine.events import Event
    from procpre_interp.engine.processes import execute_all

    train = TrainConfig(steps=2, batch_size=250, evaluate_every=2, checkpoints=1, threads=1)
    config = RunConfig(task=TASKS.build("haystack"), train=train).resolve()
    started = time.perf_counter()

    def tell(event: Event) -> None:
        if event.kind == "progress" and event.step == 1:
            print(time.perf_counter() - started)

    with tempfile.TemporaryDirectory() as folder:
        assert not execute_all({config.run_id: config}, RunStore(folder), workers=1, on_event=tell)
"""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """How long is the start?"""

    runs: int = 5000
    """Runs in the list."""
    repeats: int = 7
    """Measurements of each."""
    record: bool = False
    """Write the table into BENCHMARKS.md."""


def python(*arguments: str) -> str:
    """Run a fresh interpreter, and return what it prints."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=child_environment()).stdout


def timed(*arguments: str) -> float:
    started = time.perf_counter()
    python(*arguments)
    return time.perf_counter() - started


def measurements(store: Path, worker: Path, runs: int) -> dict[str, Callable[[], float]]:
    """What is measured, and how: seconds."""

    def importing(name: str) -> Callable[[], float]:
        return lambda: timed("-c", f"import {name}")

    def command(text: str) -> Callable[[], float]:
        return lambda: timed("-m", "procpre_interp.cli", *text.split())

    found = {f"import {name}": importing(name) for name in IMPORTS}
    found |= {f"procpre-interp {text}": command(text) for text in COMMANDS}
    found[f"procpre-interp runs, {runs:,} runs"] = command(f"runs --store {store}")
    found["worker, from spawn to its first step of haystack"] = lambda: float(python(str(worker)))
    return found


def main(bench: Bench) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        store, worker = Path(folder) / "store", Path(folder) / "worker.py"
        make_store(store, bench.runs)
        worker.write_text(WORKER)
        measured = measurements(store, worker, bench.runs)
        for measure in measured.values():  # files into memory, the kernel compiled
            measure()
        turns = [{name: measure() for name, measure in measured.items()} for _ in range(bench.repeats)]
    rows = []
    for name in measured:
        seconds = [turn[name] for turn in turns]
        rows.append({"What": name, "Median, s": f"{statistics.median(seconds):.2f}", "Least, s": f"{min(seconds):.2f}"})
        print(f"{name:52} median {rows[-1]['Median, s']} s, least {rows[-1]['Least, s']} s")
    if bench.record:
        record(__file__, pd.DataFrame(rows))


if __name__ == "__main__":
    main(tyro.cli(Bench, description=__doc__))

"""What Ray costs against worker processes, on a sweep of short runs.

    python experiments/bench_engines.py [--cells 60] [--steps 250] [--rounds 3] [--workers 2] [--record]

Cells are phase-2 runs on haystack of about two seconds each, without parents. Each round computes the same cells with
both engines, in turns, into stores of their own. The time of a round runs from the first cell's start to the end of the
last one; what comes before (starting worker processes; with Ray, only the first time) is given apart. `--record` writes
the table into BENCHMARKS.md.
"""

import dataclasses
import json
import statistics
import tempfile
import time
from datetime import datetime
from pathlib import Path

import pandas as pd
import tyro

from procpre_interp.engine.engines import Engine, Processes, Ray
from procpre_interp.pipeline.config import RunConfig
from procpre_interp.store.store import RunStore
from procpre_interp.study.protocols import PROTOCOLS, haystack_sweep
from procpre_interp.sweep.plan import plan
from procpre_interp.views.benchmarks import record as record_table


def main(cells: int = 60, steps: int = 250, rounds: int = 3, workers: int = 2, record: bool = False) -> None:
    """Time the engines, and print a row for each."""
    cheap = PROTOCOLS["cheap"]
    protocol = dataclasses.replace(cheap, phase2=dataclasses.replace(cheap.phase2, steps=steps))
    configs = plan(haystack_sweep("bench", (), protocol=protocol, replicates=cells, first_seed=0)).configs
    engines: dict[str, Engine] = {"processes": Processes(workers), "ray": Ray(workers=workers)}
    for engine in engines.values():  # kernels are compiled, and Ray is started
        timed(engine, dict(list(configs.items())[:workers]))
    starts: dict[str, list[float]] = {name: [] for name in engines}
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for number in range(rounds):
        for name in sorted(engines, reverse=number % 2 == 1):  # neither is always the first
            before, during = timed(engines[name], configs)
            starts[name].append(before)
            seconds[name].append(during)
            print(f"round {number + 1}, {name}: {before:.1f} s to start, then {during:.1f} s", flush=True)
    ratios = [ray / local for ray, local in zip(seconds["ray"], seconds["processes"])]
    rows = [
        {
            "Engine": name,
            "to start, s": f"{statistics.median(starts[name]):.1f}",
            "sweep, s": f"{statistics.median(seconds[name]):.1f} (least {min(seconds[name]):.1f})",
            "a cell, s": f"{workers * statistics.median(seconds[name]) / cells:.2f}",
            "/ processes": "1" if name == "processes" else f"{statistics.median(ratios):.3f}",
        }
        for name in engines
    ]
    print(f"{cells} cells of {steps} steps, {workers} workers, {rounds} rounds, medians")
    table = pd.DataFrame(rows)
    print(table.to_string(index=False))
    if record:
        record_table(__file__, table.assign(Cells=f"{cells} of {steps} steps, {workers} workers, {rounds} rounds"))


def timed(engine: Engine, configs: dict[str, RunConfig]) -> tuple[float, float]:
    """Seconds until the first run starts, as it says itself, and from there to the end of all."""
    with tempfile.TemporaryDirectory() as folder:
        called = time.time()
        problems = engine.execute(configs, RunStore(folder))
        ended = time.time()
        if problems:
            raise SystemExit(next(iter(problems.values())))
        told = [json.loads(path.read_text()) for path in Path(folder).glob("runs/*/environment.json")]
    began = min(datetime.fromisoformat(each["started"]).timestamp() for each in told)
    return began - called, ended - began


if __name__ == "__main__":
    tyro.cli(main)

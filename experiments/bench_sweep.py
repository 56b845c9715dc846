"""How long a sweep takes as a user meets it: 60 phase-2 runs from given parents, start-up included.

    python experiments/bench_sweep.py [--workers 2] [--record]

Haystack, 2,000 steps of batch 250, nine transfers and no pretraining x six replicates. The parents are trained first, a
few steps each, and not timed; the sweep is then one `procpre-interp sweep` command in a process of its own. `--record`
writes its time into BENCHMARKS.md.
"""

import dataclasses
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import tyro

from procpre_interp.core.children import child_environment
from procpre_interp.core.config import to_yaml
from procpre_interp.engine.processes import execute_all
from procpre_interp.store.store import RunStore
from procpre_interp.study.protocols import PROTOCOLS, haystack_sweep
from procpre_interp.sweep.config import Grid
from procpre_interp.sweep.plan import plan
from procpre_interp.views.benchmarks import record as record_table

SELECTORS = ("attn", "mlp", "ln", "attn+ln", "mlp+ln", "all", "blocks.0", "blocks.1", "blocks.0.attn")


def main(workers: int = 2, steps: int = 2000, replicates: int = 6, record: bool = False) -> None:
    """Make the parents, time the sweep, and print runs and seconds."""
    cheap = PROTOCOLS["cheap"]
    protocol = dataclasses.replace(
        cheap,
        phase1=dataclasses.replace(cheap.phase1, steps=20, evaluate_every=20),
        phase2=dataclasses.replace(cheap.phase2, steps=steps),
    )
    grid = Grid(phase1=("dyck",), selector=SELECTORS)
    sweep = haystack_sweep("bench", (), protocol=protocol, grids=(grid,), replicates=replicates, first_seed=0)
    with tempfile.TemporaryDirectory() as folder:
        store = RunStore(Path(folder) / "runs")
        planned = plan(sweep)
        parents = {run: config for run, config in planned.configs.items() if config.task != sweep.task}
        execute_all(parents, store, workers=workers)
        config = Path(folder) / "sweep.yaml"
        config.write_text(to_yaml(sweep))
        command = [sys.executable, "-m", "procpre_interp.cli", "sweep", str(config), "--out", str(store.path)]
        started = time.perf_counter()
        environment = child_environment()
        subprocess.run([*command, "--workers", str(workers)], check=True, stdout=subprocess.DEVNULL, env=environment)
        seconds = time.perf_counter() - started
        runs = len(set(planned.cells["run"]))
    print(f"{runs} runs of {steps} steps, {workers} workers: {seconds:.0f} s, {seconds / runs:.1f} s a run")
    if record:
        row = {"What": f"{runs} runs of {steps:,} steps of batch {protocol.phase2.batch_size}, {workers} workers"}
        record_table(__file__, pd.DataFrame([row | {"s": f"{seconds:.0f}", "s a run": f"{seconds / runs:.1f}"}]))


if __name__ == "__main__":
    tyro.cli(main)

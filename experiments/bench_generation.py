"""How fast the tasks are generated: tokens per second on one core.

    python experiments/bench_generation.py [--rows 4096] [--turns 21] [--record]

Counted as in training, rows times width (a haystack batch is 1000 x 63), and without the padding beside it.
Seconds are the processor's, which on one thread are those of the clock unless others use the core too. The
tasks take turns, so that a busy moment of the machine hits all alike; the median over the turns counts, and
the best is what an idle machine would reach. The last line is JSON: medians by task.
`--record` writes them into BENCHMARKS.md.
"""

import json
import statistics
import time

import pandas as pd
import torch
import tyro
from rich.console import Console
from rich.table import Table

from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS, Task
from procpre_interp.views.benchmarks import record as record_table

READS_FILES = {"text"}
"""Windows of a token file are copied, not generated."""

GOALS = {"haystack": 40e6, "dyck": 9e6}
OTHER_GOAL = 2e6
"""Tokens per second to reach."""


def tasks() -> dict[str, Task]:
    """Every task with its defaults; those made of others with Dyck (and set) in them."""
    required = {
        "mixture": {"tasks": [{"name": "set"}, {"name": "dyck"}]},
        "shuffled": {"task": {"name": "dyck"}},
    }
    return {name: TASKS.build(name, **required.get(name, {})) for name in TASKS if name not in READS_FILES}


def measure(rows: int, turns: int) -> dict[str, tuple[list[float], float]]:
    """Tokens per second of each task in each turn, and the share of them that are no padding."""
    rates: dict[str, list[float]] = {name: [] for name in tasks()}
    real_share: dict[str, float] = {}
    for turn in range(-1, turns):  # the first turn warms up
        for name, task in tasks().items():
            generator = stream(turn + 1, "benchmark", name)
            start = time.process_time()
            batch = task.batch(rows, generator=generator)
            seconds = time.process_time() - start
            real_share[name] = batch.lengths.sum().item() / batch.tokens.numel()
            if turn >= 0:
                rates[name].append(batch.tokens.numel() / seconds)
    return {name: (rates[name], real_share[name]) for name in rates}


def main(rows: int = 4096, turns: int = 21, record: bool = False) -> None:
    """Measure `turns` times with `rows` sequences drawn at once, and print the rates."""
    torch.set_num_threads(1)

    measured = measure(rows, turns)
    table = Table(title=f"Generation, one thread, {rows} sequences at a time; million tokens per second")
    for column in ("task", "median", "best", "without padding: median", "best", "goal", ""):
        table.add_column(column, justify="left" if column == "task" else "right")
    for name, (rates, real) in measured.items():
        goal, median, best = GOALS.get(name, OTHER_GOAL), statistics.median(rates), max(rates)
        speeds = [f"{rate / 1e6:.1f}" for rate in (median, best, real * median, real * best)]
        table.add_row(name, *speeds, f"{goal / 1e6:.0f}", "reached" if median >= goal else "missed")
    Console(width=110).print(table)
    if record:
        speeds = {name: (statistics.median(rates) / 1e6, real) for name, (rates, real) in measured.items()}
        cells = [
            {"Task": name, "Million tokens a second": f"{speed:.0f}", "without padding": f"{real * speed:.0f}"}
            for name, (speed, real) in sorted(speeds.items(), key=lambda each: -each[1][0])
        ]
        record_table(__file__, pd.DataFrame(cells))
    print(json.dumps({name: round(statistics.median(rates)) for name, (rates, _) in measured.items()}))


if __name__ == "__main__":
    tyro.cli(main)

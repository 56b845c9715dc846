"""What stacked runs cost on a CPU: a step of R runs, one after the other and as one computation, interleaved.

    python experiments/bench_stacked.py [--runs 8] [--steps 15] [--record]

One thread. Every variant trains the same R seeds on their own batches, data included: the torch kernel and, where there
is one, the native kernel run by run, and a `StackedTrainer` of all of them. Prints median and least milliseconds of a
step of all R runs, and the ratios to the torch kernel's. The goal is at most twice its time: stacks are made for
GPUs, and on a CPU they need only be right and bearable. `--record` writes the table into BENCHMARKS.md.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import pandas as pd
import tyro

from procpre_interp.data import TASKS, Task
from procpre_interp.model import HookedTransformer, ModelConfig
from procpre_interp.train import StackedTrainer, TrainConfig, Trainer
from procpre_interp.train.process import run_threads
from procpre_interp.views.benchmarks import record

GOAL = 2.0
"""Largest ratio of a stack's step to those of single runs of the torch kernel."""
WARM_UP = 3
"""Steps that are not counted."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What do stacked runs cost on a CPU?"""

    runs: int = 8
    """Runs of the stack."""
    steps: int = 15
    """Steps of each variant."""
    record: bool = False
    """Write the table into BENCHMARKS.md."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A task, a shape, and sequences per step."""

    title: str
    task: Task
    model: ModelConfig
    batch_size: int


def settings() -> list[Setting]:
    """Those of the table."""
    haystack, dyck = TASKS.build("haystack"), TASKS.build("dyck", k=16, length=128)
    return [
        Setting(
            title="haystack, batch 250 x 63, d_model 16",
            task=haystack,
            model=ModelConfig(n_layers=2, n_heads=4, d_model=16, n_ctx=haystack.model_n_ctx, d_vocab=haystack.d_vocab),
            batch_size=250,
        ),
        Setting(
            title="16-Dyck, batch 32 x 128, d_model 16, tied",
            task=dyck,
            model=ModelConfig(n_layers=2, n_heads=4, d_model=16, n_ctx=128, d_vocab=dyck.d_vocab, tied=True),
            batch_size=32,
        ),
        Setting(
            title="16-Dyck, batch 16 x 128, d_model 64",
            task=dyck,
            model=ModelConfig(n_layers=2, n_heads=4, d_model=64, n_ctx=128, d_vocab=dyck.d_vocab),
            batch_size=16,
        ),
    ]


def trainers(setting: Setting, runs: int, train: TrainConfig) -> list[Trainer]:
    """A run of each seed."""
    return [
        Trainer(HookedTransformer.from_seed(setting.model, seed), setting.task, train, seed=seed)
        for seed in range(runs)
    ]


def measure(setting: Setting, bench: Bench) -> dict[str, list[float]]:
    """Milliseconds of each step of all runs, by variant."""
    torch_kernel = TrainConfig(batch_size=setting.batch_size, evaluate_examples=16, kernel="torch")
    singles = {"torch": trainers(setting, bench.runs, torch_kernel)}
    native = dataclasses.replace(torch_kernel, kernel="native")
    if native.why_torch(setting.model) is None:
        singles["native"] = trainers(setting, bench.runs, native)
    stacked = StackedTrainer(trainers(setting, bench.runs, dataclasses.replace(torch_kernel, kernel="stacked")))

    def one_by_one(group: list[Trainer]) -> Callable[[], None]:
        def step() -> None:
            for trainer in group:
                trainer.take_step()

        return step

    def together() -> None:
        stacked.take_step()
        stacked.settle()

    times: dict[str, list[float]] = {name: [] for name in (*singles, "stacked")}
    with ExitStack() as held:
        held.enter_context(run_threads(1))
        held.enter_context(stacked.joined())
        steps = {name: one_by_one(group) for name, group in singles.items()} | {"stacked": together}
        for _ in range(WARM_UP + bench.steps):
            for name, step in steps.items():
                started = time.perf_counter()
                step()
                times[name].append(1000 * (time.perf_counter() - started))
    return {name: found[WARM_UP:] for name, found in times.items()}


def main(bench: Bench) -> None:
    """Measure and print."""
    rows = []
    for setting in settings():
        times = measure(setting, bench)
        row = {"Setting": setting.title, "Runs": str(bench.runs)}
        for name in ("torch", "native", "stacked"):
            numbers = times.get(name)
            ms = None if numbers is None else (statistics.median(numbers), min(numbers))
            row[f"{name}, ms"] = "" if ms is None else f"{ms[0]:.0f} (least {ms[1]:.0f})"
        ratio, least = (over(times["stacked"]) / over(times["torch"]) for over in (statistics.median, min))
        row["stacked / torch"] = f"{ratio:.2f} (least {least:.2f})"
        outcome = "reached" if ratio <= GOAL else "missed"
        print(", ".join(f"{name} {value}" for name, value in row.items()), f"(goal {GOAL:g}: {outcome})")
        rows.append(row)
    if bench.record:
        record(__file__, pd.DataFrame(rows))


if __name__ == "__main__":
    main(tyro.cli(Bench, description=__doc__))

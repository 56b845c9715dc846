"""What an intervention costs a training step: plain, and with the entropy penalty on all heads, interleaved.

    python experiments/bench_interventions.py [--steps 30] [--record]

Haystack, batch 1000 x 63, 2 layers, d_model 16, two threads; each kernel's steps in turn. Prints median and least
milliseconds a step, and the ratio of medians. `--record` writes them into BENCHMARKS.md.
"""

import dataclasses
import statistics
import time
from dataclasses import dataclass
from typing import Literal

import pandas as pd
import tyro

from procpre_interp.data import TASKS
from procpre_interp.model import HookedTransformer, ModelConfig
from procpre_interp.train import TrainConfig, Trainer
from procpre_interp.train.interventions import EntropyPenalty
from procpre_interp.train.process import run_threads
from procpre_interp.views.benchmarks import record


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What does an intervention cost?"""

    steps: int = 30
    """Steps of each variant."""
    threads: int = 2
    """CPU threads."""
    record: bool = False
    """Write the table into BENCHMARKS.md."""


def main(bench: Bench) -> None:
    """Measure and print."""
    task = TASKS.build("haystack")
    shape = ModelConfig(n_layers=2, n_heads=4, d_model=16, n_ctx=task.model_n_ctx, d_vocab=task.d_vocab)
    kernels: tuple[Literal["torch", "native"], ...] = ("torch", "native")
    rows = []
    for kernel in kernels:
        plain = TrainConfig(kernel=kernel, threads=bench.threads, evaluate_examples=16)
        penalised = dataclasses.replace(plain, interventions=(EntropyPenalty(target=0.5),))
        configs = {"plain": plain, "entropy penalty": penalised}
        trainers = {
            name: Trainer(HookedTransformer.from_seed(shape, 0), task, config, seed=0)
            for name, config in configs.items()
        }
        seconds: dict[str, list[float]] = {name: [] for name in trainers}
        for _ in range(bench.steps + 3):
            for name, trainer in trainers.items():
                started = time.perf_counter()
                with run_threads(trainer.torch_threads):
                    trainer.take_step()
                seconds[name].append(time.perf_counter() - started)
        medians = {name: statistics.median(times[3:]) for name, times in seconds.items()}
        for name, times in seconds.items():
            ms, ratio = (1e3 * medians[name], 1e3 * min(times)), medians[name] / medians["plain"]
            print(f"{kernel:7} {name:16} median {ms[0]:7.1f} ms, least {ms[1]:7.1f} ms, {ratio:.2f} x")
            rows.append({"Kernel": kernel, "Step": name, "ms": f"{ms[0]:.1f}", "x plain": f"{ratio:.2f}"})
    if bench.record:
        record(__file__, pd.DataFrame(rows))


if __name__ == "__main__":
    main(tyro.cli(Bench, description=__doc__))

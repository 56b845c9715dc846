"""Memory, operations and cost of training at the sizes of the paper's large models, and how far the count is right.

    python experiments/bench_large.py [--measure 3] [--processes 8] [--record]

Counted from the shape: weights, gradients and moments in float32, what the forward pass keeps for the backward one
(`model.training_memory`), and floating-point operations per token (`model.flops`, three times the forward pass).
Micro-batches of one sequence of 1024 tokens in bfloat16, as on a GPU. Measured, in a process for each size: the highest
memory of a step in float32 on this machine, with shorter sequences, next to what is counted for the same, and the
operations per second that it reaches. The sizes that are not measured have no such entries. Cost is that of a billion
tokens on GPUs that reach `--teraflops` at `--price` an hour, both assumed and not measured.
"""

import multiprocessing
import resource
import sys
import time
from dataclasses import dataclass

import pandas as pd
import torch
import tyro
from training_work import every_token

from procpre_interp.core.terminal import run_script
from procpre_interp.core.text_table import stdout_console
from procpre_interp.model import HookedTransformer, ModelConfig
from procpre_interp.model.flops import parameter_count, training_flops
from procpre_interp.model.training_memory import training_memory
from procpre_interp.train.loss import backward
from procpre_interp.train.optimiser import FlatAdamW
from procpre_interp.train.process import run_threads
from procpre_interp.views.benchmarks import record
from procpre_interp.views.markdown import markdown_table


def gpt2(n_layers: int, n_heads: int, d_model: int) -> ModelConfig:
    """A shape with the context and the vocabulary of GPT-2."""
    return ModelConfig(n_layers=n_layers, n_heads=n_heads, d_model=d_model, n_ctx=1024, d_vocab=50257, tied=True)


SHAPES = {
    "8 layers, d_model 256": gpt2(8, 4, 256),
    "8 layers, d_model 512": gpt2(8, 8, 512),
    "GPT-2 small, 124M": gpt2(12, 12, 768),
    "GPT-2 medium, 350M": gpt2(24, 16, 1024),
    "1.3B": gpt2(24, 16, 2048),
}
"""Shapes from small to large: the first can be measured on a laptop."""
GB = 1e9


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Memory, operations and cost of large models."""

    measure: int = 3
    """How many of the sizes, from the smallest on, are measured."""
    length: int = 128
    """Tokens of the sequence that is measured."""
    processes: int = 8
    """Processes that share the weights (FSDP2) in the column for several."""
    teraflops: float = 400.0
    """Floating-point operations per second and GPU that cost is counted with, in 10^12: 40 % of an H100's dense
    bfloat16."""
    price: float = 2.5
    """Price of an hour of one GPU, in dollars."""
    record: bool = False
    """Write the table into BENCHMARKS.md."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a step took."""

    bytes: int
    """Highest memory of the process less what it had before the model was made."""
    seconds: float


def measured(config: ModelConfig, length: int) -> Measured:
    """Two steps on one sequence in float32, on one thread; the time is that of the second."""
    with run_threads(1):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        model = HookedTransformer(config, generator=torch.Generator())
        every = torch.ones(model.flat.shape, dtype=torch.bool)
        optimiser = FlatAdamW(model.flat, model.flat_grad, weight_decay=0.0, decay=~every)
        batch = every_token(1, length, config.d_vocab)
        seconds = 0.0
        for _ in range(2):
            started = time.perf_counter()
            backward(model, batch, max_tokens=length)
            optimiser.step(1e-3)
            seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Measured(bytes=(after - before) * 1024, seconds=seconds)


def row_of(name: str, config: ModelConfig, found: Measured | None, bench: Bench) -> dict[str, str]:
    """A row of the table."""
    micro = {"rows": 1, "length": config.n_ctx, "precision": "bfloat16"}
    one = training_memory(config, **micro)
    flops = training_flops(config, config.n_ctx, 1)
    hours = flops * 1e9 / (bench.teraflops * 1e12) / 3600
    row = {
        "Model": name,
        "Parameters, M": f"{parameter_count(config) / 1e6:,.0f}",
        "Weights, gradients, optimiser, GB": f"{(one.total - one.activations) / GB:.1f}",
        "Activations of a sequence, GB": f"{one.activations / GB:.2f}",
        "with gradient checkpointing, GB": f"{training_memory(config, **micro, recompute=True).activations / GB:.2f}",
        f"All, per process of {bench.processes}, GB": (
            f"{training_memory(config, **micro, processes=bench.processes).total / GB:.1f}"
        ),
        "GFLOP per token": f"{flops / 1e9:.2f}",
        "GPU hours per billion tokens": f"{hours:.1f}",
        "$ per billion tokens": f"{hours * bench.price:,.0f}",
    }
    if found is None:
        return row | {"Counted / measured memory here, GB": "", "GFLOP/s here": ""}
    counted = training_memory(config, rows=1, length=bench.length).total
    speed = training_flops(config, bench.length, bench.length) / found.seconds
    return row | {
        "Counted / measured memory here, GB": f"{counted / GB:.2f} / {found.bytes / GB:.2f}",
        "GFLOP/s here": f"{speed / 1e9:.0f}",
    }


def main(bench: Bench) -> int:
    """Measure, and print or record the table."""
    context, rows = multiprocessing.get_context("spawn"), []
    for number, (name, config) in enumerate(SHAPES.items()):
        found = None
        if number < bench.measure:
            with context.Pool(1) as pool:  # a process of its own, since a process's highest memory never falls
                found = pool.apply(measured, (config, bench.length))
        rows.append(row_of(name, config, found, bench))
    table = pd.DataFrame(rows)
    stdout_console().print(markdown_table(table), markup=False, soft_wrap=True)
    if bench.record:
        print(f"written: {record(__file__, table)}")
    return 0


if __name__ == "__main__":
    sys.exit(run_script("bench_large", lambda: main(tyro.cli(Bench, description=__doc__))))

"""How long it takes to score many copies of a model that differ in their weights: this package against Hugging Face.

    python experiments/bench_evaluation.py [--copies 500] [--examples 1000] [--threads 2] [--one-by-one 20] [--record]

Copies of a tiny haystack model with Gaussian noise on all weights. Hugging Face scores a few of them one after another,
logits of everything; blocks of both are interleaved, and the time of all copies is extrapolated from those few.
`--record` writes both into BENCHMARKS.md.
"""

import statistics
import time

import pandas as pd
import torch
import torch.nn.functional as F
import tyro

from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS, Batch
from procpre_interp.model import HookedTransformer, ModelConfig
from procpre_interp.model.huggingface import to_huggingface
from procpre_interp.train import evaluate_copies
from procpre_interp.train.process import run_threads
from procpre_interp.views.benchmarks import record as record_table


@torch.no_grad()
def huggingface_losses(model: torch.nn.Module, batch: Batch) -> float:
    """Mean loss of one copy, in nats."""
    logits = model(input_ids=batch.tokens, use_cache=False).logits
    return F.cross_entropy(logits[batch.loss_mask], batch.targets[batch.loss_mask]).item()


def main(copies: int = 500, examples: int = 1000, threads: int = 2, one_by_one: int = 20, record: bool = False) -> None:
    """Score, compare the losses, and print both times."""
    task = TASKS.build("haystack")
    config = ModelConfig(n_layers=2, n_heads=4, d_model=16, n_ctx=task.model_n_ctx, d_vocab=task.d_vocab)
    model, generator = HookedTransformer.from_seed(config, 0), stream(0, "bench")
    batch = task.batch(examples, generator=generator)
    noisy = [model.flat.detach() + 0.1 * torch.randn(model.flat.shape, generator=generator) for _ in range(copies)]
    blocks = [range(start, copies, one_by_one) for start in range(one_by_one)]
    ours, theirs = [], []
    with run_threads(threads):
        evaluate_copies(model, noisy[:1], batch, threads=threads)  # the kernel is compiled
        for i, block in enumerate(blocks):
            started = time.perf_counter()
            table = evaluate_copies(model, (noisy[j] for j in block), batch, threads=threads)
            ours.append(time.perf_counter() - started)
            single = HookedTransformer.from_seed(config, 0)
            with torch.no_grad():
                single.flat.copy_(noisy[i])
            other = to_huggingface(single)
            started = time.perf_counter()
            loss = huggingface_losses(other, batch)
            theirs.append(time.perf_counter() - started)
            if abs(loss - float(table["loss_nats"].iloc[0])) > 1e-4:
                raise ValueError(f"copy {i}: {loss} and {table['loss_nats'].iloc[0]} nats differ")
    one, total = statistics.median(theirs), sum(ours)
    print(f"{copies} copies, {examples} examples, {threads} threads: {total:.1f} s, {1000 * total / copies:.1f} ms one")
    print(f"Hugging Face, one after another: {1000 * one:.0f} ms, median of {one_by_one}; all {copies * one:.0f} s")
    print(f"ratio {copies * one / total:.1f}")
    if record:
        row = {"What": f"{copies} copies of a haystack model, {examples} examples, {threads} threads"}
        row |= {"Ours, s": f"{total:.1f}", "Hugging Face, one after another, s": f"{copies * one:.0f}"}
        record_table(__file__, pd.DataFrame([row | {"Ratio": f"{copies * one / total:.1f}"}]))


if __name__ == "__main__":
    tyro.cli(main)

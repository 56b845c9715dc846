"""How fast a GPU trains: tiny models, and GPT-2 small on text, beside other people's ways to do the same work.

    python experiments/bench_cuda.py [--repeats 5] [--compile] [--record]
    python experiments/bench_cuda.py --device cpu --quick

Haystack, 2 layers, d_model 16, batch 1000: steps per second of one run and, all runs together, of 8, 64 and 512 in a
stack, their data included, and of Hugging Face's GPT-2 in bfloat16 on a batch that lies on the device already. Text:
tokens per second of GPT-2 small's shape, sequences of 1024 tokens, all scored, in bfloat16, by this package and by a
compact GPT in the manner of nanoGPT (fused projections, all logits at once). Medians, one variant after the other, as
nobody else is expected to use the GPU. `--compile` compiles both models of text with torch.compile. `--record` writes
the table into BENCHMARKS.md. Without a GPU nothing is measured; the second command tries the script itself out.
"""

import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

import pandas as pd
import torch
import torch.nn.functional as F
import tyro
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from training_work import every_token

from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS, Batch
from procpre_interp.model import HookedTransformer, ModelConfig
from procpre_interp.model.huggingface import to_huggingface
from procpre_interp.train import StackedTrainer, TrainConfig, Trainer
from procpre_interp.train.process import run_threads
from procpre_interp.views.benchmarks import record

Precision = Literal["float32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
STACKS = (8, 64, 512)
"""Runs of a stack."""
Steps = Callable[[], None]
"""Takes as many steps as one measurement has."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """How fast does a GPU train?"""

    device: str = "cuda"
    """Device: cuda, or cpu to try the script out."""
    quick: bool = False
    """Tiny sizes, of no interest but that the script runs."""
    steps: int = 20
    """Steps of one measurement."""
    repeats: int = 5
    """Measurements of each variant."""
    compile: bool = False
    """Compile the two models of text."""
    record: bool = False
    """Write the table into BENCHMARKS.md."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to do the work."""

    work: str
    """Variants of one work are compared with each other."""
    name: str
    tokens: int
    """Tokens of a run's step."""
    make: Callable[[ExitStack], Steps]
    """Makes the models and data, which are let go when the stack is closed."""
    runs: int = 1
    """Runs that take a step together."""


class Attention(nn.Module):
    """Causal attention with one product for queries, keys and values."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.qkv = nn.Linear(config.d_model, 3 * config.d_model)
        self.out = nn.Linear(config.d_model, config.d_model)

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        q, k, v = rearrange(self.qkv(x), "b t (three h d) -> three b h t d", three=3, h=self.n_heads)
        z = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(rearrange(z, "b h t d -> b t (h d)"))


class PlainBlock(nn.Module):
    """Attention and MLP, each behind a LayerNorm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(config.d_model), nn.LayerNorm(config.d_model)
        self.attention = Attention(config)
        self.mlp = nn.Sequential(
            nn.Linear(config.d_model, config.d_hidden),
            nn.GELU(approximate="tanh"),
            nn.Linear(config.d_hidden, config.d_model),
        )

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        x = x + self.attention(self.ln1(x))
        return x + self.mlp(self.ln2(x))


class PlainGPT(nn.Module):
    """GPT-2 as one writes it for speed: no hooks, tied embeddings, all logits."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.tokens = nn.Embedding(config.d_vocab, config.d_model)
        self.positions = nn.Embedding(config.n_ctx, config.d_model)
        self.blocks = nn.Sequential(*(PlainBlock(config) for _ in range(config.n_layers)))
        self.ln_final = nn.LayerNorm(config.d_model)

    def forward(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_vocab"]:
        x = self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]
        return F.linear(self.ln_final(self.blocks(x)), self.tokens.weight)


def plain_steps(logits_of: Callable[[Tensor], Tensor], model: nn.Module, batch: Batch, n: int) -> Steps:
    """The usual loop in bfloat16: logits of everything, loss where it is scored, clipping, AdamW."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-3, fused=True)
    tokens, targets = batch.tokens.long(), batch.targets.masked_fill(~batch.loss_mask, -100).long()

    def take() -> None:
        for _ in range(n):
            with torch.autocast(tokens.device.type, torch.bfloat16):
                logits = logits_of(tokens)
                loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()

    return take


def own_trainer(
    model: ModelConfig,
    bench: Bench,
    *,
    batch_size: int,
    precision: Precision,
    kernel: Literal["torch", "stacked"] = "torch",
    seed: int = 0,
) -> Trainer:
    """A run of this package on haystack, each batch in one piece."""
    train = TrainConfig(
        batch_size=batch_size,
        evaluate_examples=1,
        warmup_steps=0,
        precision=precision,
        kernel=kernel,
        device=bench.device,
        micro_batch_tokens=2**30 if kernel == "torch" else None,
    )
    return Trainer(HookedTransformer.from_seed(model, seed).to(bench.device), TASKS.build("haystack"), train, seed=seed)


def own_steps(trainer: Trainer, n: int) -> Steps:
    def take() -> None:
        for _ in range(n):
            trainer.take_step()

    return take


def haystack_variants(bench: Bench) -> list[Variant]:
    """The paper's phase 2."""
    task, size = TASKS.build("haystack"), 16 if bench.quick else 1000
    config = ModelConfig(n_layers=2, n_heads=4, d_model=16, n_ctx=task.model_n_ctx, d_vocab=task.d_vocab)
    work, tokens = f"haystack, batch {size} x {task.n_ctx}, 2 layers, d_model 16", size * task.n_ctx

    def theirs(held: ExitStack) -> Steps:
        batch = task.batch(size, generator=stream(0, "bench")).to(bench.device)
        model = to_huggingface(HookedTransformer.from_seed(config, 0))
        torch.nn.Module.to(model, bench.device).train()
        return plain_steps(lambda x: model(input_ids=x, use_cache=False).logits, model, batch, bench.steps)

    def ours(precision: Precision) -> Variant:
        def make(held: ExitStack) -> Steps:
            trainer = own_trainer(config, bench, batch_size=size, precision=precision)
            held.enter_context(run_threads(1))
            held.enter_context(trainer.prefetch)
            return own_steps(trainer, bench.steps)

        return Variant(work=work, name=f"one run, {precision}", tokens=tokens, make=make)

    def stacked(runs: int, precision: Precision) -> Variant:
        def make(held: ExitStack) -> Steps:
            trainers = [
                own_trainer(config, bench, batch_size=size, precision=precision, kernel="stacked", seed=seed)
                for seed in range(runs)
            ]
            together = StackedTrainer(trainers)
            held.enter_context(run_threads(1))
            held.enter_context(together.joined())

            def take() -> None:
                for _ in range(bench.steps):
                    together.take_step()
                together.settle()

            return take

        name = f"{runs} runs in a stack, {precision}"
        return Variant(work=work, name=name, tokens=tokens, make=make, runs=runs)

    sizes = (2, 4) if bench.quick else STACKS
    stacks = [stacked(runs, precision) for runs in sizes for precision in PRECISIONS]
    found = [Variant(work=work, name="Hugging Face, bfloat16", tokens=tokens, make=theirs)]
    return [*found, *map(ours, PRECISIONS), *stacks]


def text_variants(bench: Bench) -> list[Variant]:
    """GPT-2 small."""
    config = ModelConfig(n_layers=12, n_heads=12, d_model=768, n_ctx=1024, d_vocab=50257, tied=True)
    if bench.quick:
        config = ModelConfig(n_layers=2, n_heads=2, d_model=32, n_ctx=64, d_vocab=101, tied=True)
    rows = 2 if bench.quick else 16
    batch = every_token(rows, config.n_ctx, config.d_vocab)
    work = f"text, {rows} x {config.n_ctx}, {config.n_layers} layers, d_model {config.d_model}, bfloat16"
    tokens, how = rows * config.n_ctx, ", compiled" if bench.compile else ""

    def by_hand(held: ExitStack) -> Steps:
        model = PlainGPT(config).to(bench.device)
        called = torch.compile(model) if bench.compile else model
        return plain_steps(called, model, batch.to(bench.device), bench.steps)

    def ours(held: ExitStack) -> Steps:
        trainer = own_trainer(config, bench, batch_size=rows, precision="bfloat16")
        trainer.stream.batch = lambda index: batch
        if bench.compile:
            trainer.model.final = torch.compile(trainer.model.final)
        return own_steps(trainer, bench.steps)

    return [
        Variant(work=work, name=f"written by hand{how}", tokens=tokens, make=by_hand),
        Variant(work=work, name=f"this package{how}", tokens=tokens, make=ours),
    ]


def steps_per_second(variant: Variant, bench: Bench) -> float:
    """Steps of all its runs per second, median; those that are still under way on the device are waited for."""
    wait = torch.cuda.synchronize if bench.device.startswith("cuda") else lambda: None
    with ExitStack() as held:
        take, taken = variant.make(held), []
        take()  # memory, and kernels that are chosen or compiled at their first use
        for _ in range(bench.repeats):
            wait()
            started = time.perf_counter()
            take()
            wait()
            taken.append(time.perf_counter() - started)
    return bench.steps * variant.runs / statistics.median(taken)


def measure(variants: list[Variant], bench: Bench) -> pd.DataFrame:
    """A row per variant; the first is what the others are compared with."""
    rates = [steps_per_second(variant, bench) for variant in variants]
    rows = []
    for variant, rate in zip(variants, rates):
        row = {"Work": variant.work, "Variant": variant.name, "Steps a second": f"{rate:,.1f}"}
        row |= {"Million tokens a second": f"{rate * variant.tokens / 1e6:,.2f}", "Ratio": f"{rate / rates[0]:.2f}"}
        rows.append(row)
    return pd.DataFrame(rows)


def main(bench: Bench) -> None:
    """Measure and print."""
    if bench.device.startswith("cuda") and not torch.cuda.is_available():
        print("no GPU: torch.cuda.is_available() is False, so nothing was measured")
        return
    if bench.record and not bench.device.startswith("cuda"):
        raise ValueError(f"--record with --device {bench.device}; the table is of a GPU")
    tables = [measure(make(bench), bench) for make in (haystack_variants, text_variants)]
    table = pd.concat(tables, ignore_index=True)
    if bench.device.startswith("cuda"):
        table.insert(0, "GPU", torch.cuda.get_device_name())
    print(table.to_string(index=False))
    if bench.record:
        record(__file__, table)


if __name__ == "__main__":
    main(tyro.cli(Bench, description=__doc__))

"""How long a training step takes: this package against Hugging Face and TransformerLens, on the same work.

    python experiments/bench_training.py [--repeats 9] [--threads 2] [--only d16 d64 d256]

A step is forward, masked cross-entropy, backward, clipping and AdamW, on a batch that exists already; all three start
from the same weights, and the first loss of each is compared. Variants are interleaved, since the machine's own speed
drifts; believe the ratios. The last line is JSON: medians in ms by setting and variant.
"""

import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
import tyro
from rich.console import Console
from rich.table import Table

from procpre_interp.data import TASKS, Batch
from procpre_interp.model import HookedTransformer, ModelConfig
from procpre_interp.model.checkpoint import to_bridge, to_huggingface
from procpre_interp.seeding import stream
from procpre_interp.train import TrainConfig, Trainer
from procpre_interp.train.process import run_threads

Step = Callable[[], float]
"""Takes one training step and returns its loss, in nats."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A model, a batch, and how this package trains it."""

    title: str
    model: ModelConfig
    batch: Batch
    precision: str = "float32"


def settings() -> dict[str, Setting]:
    """The three that the README reports."""
    haystack = TASKS.build("haystack")
    return {
        "d16": Setting(
            title="haystack, batch 1000 x 63, 2 layers, d_model 16",
            model=ModelConfig(n_layers=2, n_heads=4, d_model=16, n_ctx=haystack.model_n_ctx, d_vocab=haystack.d_vocab),
            batch=haystack.batch(1000, generator=stream(0, "bench")),
        ),
        "d64": Setting(
            title="every token, batch 32 x 128, 2 layers, d_model 64, vocabulary 2048",
            model=ModelConfig(n_layers=2, n_heads=4, d_model=64, n_ctx=128, d_vocab=2048),
            batch=every_token(32, 128, 2048),
        ),
        "d256": Setting(
            title="every token, batch 8 x 256, 4 layers, d_model 256, vocabulary 4096; ours bfloat16",
            model=ModelConfig(n_layers=4, n_heads=4, d_model=256, n_ctx=256, d_vocab=4096),
            batch=every_token(8, 256, 4096),
            precision="bfloat16",
        ),
    }


def every_token(rows: int, width: int, d_vocab: int) -> Batch:
    """Random tokens, every next one scored: for the time, what they say does not matter."""
    tokens = torch.randint(0, d_vocab, (rows, width), generator=stream(0, "bench", d_vocab))
    return Batch.from_sequences(tokens, torch.full((rows,), width), 0, pad=0)


def ours(setting: Setting) -> Step:
    """The training loop's own step."""
    train = TrainConfig(batch_size=len(setting.batch), evaluate_examples=1, warmup_steps=0, clip_norm=1.0)
    train = replace(train, precision=setting.precision)  # type: ignore[arg-type]
    task = TASKS.build("dyck", k=1, length=4)  # the trainer wants one; its batches are never read
    trainer = Trainer(fresh(setting), task, train, seed=0)
    trainer.stream.batch = lambda index: setting.batch

    def step() -> float:
        before = trainer.state.train_loss
        trainer.take_step()
        return trainer.state.train_loss - before

    return step


def fresh(setting: Setting) -> HookedTransformer:
    return HookedTransformer.from_seed(setting.model, 0)


def plain(model: torch.nn.Module, logits_of: Callable[[torch.Tensor], torch.Tensor], batch: Batch) -> Step:
    """The usual loop: logits of everything, loss where it is scored."""
    model.train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-3)

    def step() -> float:
        logits = logits_of(batch.tokens)
        targets = batch.targets.masked_fill(~batch.loss_mask, -100)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        return loss.item()

    return step


def huggingface(setting: Setting) -> Step:
    """GPT2LMHeadModel with scaled_dot_product_attention, as the paper's authors train."""
    model = to_huggingface(fresh(setting))
    assert model.config._attn_implementation == "sdpa"
    return plain(model, lambda tokens: model(input_ids=tokens, use_cache=False).logits, setting.batch)


def transformer_lens(setting: Setting) -> Step:
    """TransformerBridge.boot_native's forward as it is."""
    bridge = to_bridge(fresh(setting))
    return plain(bridge, lambda tokens: bridge(tokens, return_type="logits"), setting.batch)


VARIANTS = {"huggingface": huggingface, "transformer_lens": transformer_lens, "torch": ours}


def measure(key: str, repeats: int, threads: int) -> dict[str, list[float]]:
    """Times of `repeats` steps of each variant, in ms, in turn. Raises `ValueError` when their work differs."""
    setting = settings()[key]
    tolerance = 1e-4 if setting.precision == "float32" else 0.02
    with run_threads(threads):
        steps = {name: build(setting) for name, build in VARIANTS.items()}
        losses = {name: step() for name, step in steps.items()}
        if max(losses.values()) - min(losses.values()) > tolerance:
            raise ValueError(f"the variants' first losses differ: {losses}")
        times: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(repeats):
            for name, step in steps.items():
                started = time.perf_counter()
                step()
                times[name].append(1000 * (time.perf_counter() - started))
    return times


def main(repeats: int = 9, threads: int = 2, only: tuple[str, ...] = ("d16", "d64", "d256")) -> None:
    """Measure each setting in a process of its own, print a table, and as the last line JSON.

    In one process the second setting would inherit what the first made the allocator keep.
    """
    console = Console(highlight=False, markup=False)
    medians: dict[str, dict[str, float]] = {}
    for key in only:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            times = pool.apply(measure, (key, repeats, threads))
        table = Table(title=f"{key}: {settings()[key].title}", title_justify="left", box=None)
        for column in ("variant", "median ms", "min ms", "x Hugging Face: medians", "minima"):
            table.add_column(column, justify="left" if column == "variant" else "right")
        medians[key] = {name: round(statistics.median(values), 2) for name, values in times.items()}
        for name, values in times.items():
            ratio = medians[key]["huggingface"] / medians[key][name]
            best = min(times["huggingface"]) / min(values)
            table.add_row(name, f"{medians[key][name]:.1f}", f"{min(values):.1f}", f"{ratio:.2f}", f"{best:.2f}")
        console.print(table)
    print(json.dumps(medians))


if __name__ == "__main__":
    tyro.cli(main)

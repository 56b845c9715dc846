"""How long a training step takes: this package against Hugging Face and TransformerLens, on the same work.

    python experiments/bench_training.py [--repeats 9] [--threads 2] [--only d16 text64] [--before COMMIT] [--record]

A step is forward, masked cross-entropy, backward, clipping and AdamW, on a batch that exists already; all variants
start from the same weights, and the first loss of each is compared. Variants are interleaved, since the machine's own
speed drifts; believe the ratios. This package has two kernels, `torch` and `native`. In `native x2` two processes of
one thread each take a step at the same time, as a sweep's workers do; its time is half of what both need, so its ratio
is that of the sum of their throughput.

The share of the peak is useful operations a second (see `useful_flops`) over the rate of multiply-adds in registers
alone, as many at once as there are threads: no product can be faster. Beside it stands the best rate of a 1024 x 1024
float32 product of torch, as both were measured in between. The last line is JSON: the times and these two rates.
`--before` compares the native kernel with that of another commit, compiled from its sources, as long as it takes the
same arguments. `--record` writes the medians into BENCHMARKS.md; it takes all settings.
"""

import ctypes
import io
import json
import multiprocessing
import random
import statistics
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal, get_args

import pandas as pd
import torch
import torch.nn.functional as F
import tyro
from rich.console import Console
from rich.table import Table
from training_work import USUAL, Key, Setting, settings, useful_flops

from procpre_interp.core.children import safe_spawn
from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS, Batch
from procpre_interp.model import HookedTransformer
from procpre_interp.model.bridge import to_bridge
from procpre_interp.model.huggingface import to_huggingface
from procpre_interp.train import TrainConfig, Trainer
from procpre_interp.train.native import NativeStep
from procpre_interp.train.native.build import compile_kernel
from procpre_interp.train.native.step import kernel_shape
from procpre_interp.train.process import run_threads
from procpre_interp.views.benchmarks import record as record_table

Step = Callable[[], float]
"""Takes one training step and returns its loss, in nats."""

Results = dict[Key, dict[str, dict[str, float]]]
"""Setting -> variant -> median_ms and min_ms."""

TITLES = {
    "huggingface": "Hugging Face, ms",
    "transformer_lens": "TransformerLens, ms",
    "torch": "torch kernel, ms",
    "native": "native kernel, ms",
    "native x2": "native in two processes, ms a batch",
    "before": "native kernel before, ms",
    "before x2": "before in two processes, ms a batch",
}
"""Variant -> what its column is called in BENCHMARKS.md."""

GOALS: tuple[tuple[Key, str, str, float], ...] = (
    ("d16", "native", "huggingface", 14.0),
    ("d16", "native", "torch", 3.0),
    ("d16", "native x2", "huggingface", 18.0),
    ("d16", "native x2", "before x2", 1.5),
    ("dyck", "native", "huggingface", 2.5),
    ("text64", "native", "huggingface", 3.0),
    ("text128", "native", "huggingface", 3.0),
    ("text256", "native", "huggingface", 2.5),
)
"""Setting, variant, the variant that it is compared with, and how many times as fast it should be (medians)."""
TOGETHER = 4
"""Steps that two processes take without waiting for each other, as a sweep's workers do."""
SPAWN = multiprocessing.get_context("spawn")


def ours(setting: Setting, kernel: Literal["torch", "native"], threads: int, library: Path | None = None) -> Step:
    """The training loop's own step, with a native kernel of another commit where `library` is one."""
    train = TrainConfig(batch_size=len(setting.batch), evaluate_examples=1, warmup_steps=0, precision=setting.precision)
    train = replace(train, kernel=kernel, threads=threads)
    task = TASKS.build("dyck", k=1, length=4)  # the trainer wants one; its batches are never read
    trainer = Trainer(HookedTransformer.from_seed(setting.model, 0), task, train, seed=0)
    trainer.stream.batch = lambda index: setting.batch
    if library is not None:
        trainer.native = NativeStep(trainer.model, threads=threads, library=library)

    def step() -> float:
        before = trainer.state.train_loss
        with run_threads(trainer.torch_threads):
            trainer.take_step()
        return trainer.state.train_loss - before

    return step


def kernel_of(commit: str, setting: Setting, folder: Path) -> Path:
    """The native kernel of a commit of this repository, compiled for the setting into the folder."""
    here = Path(__file__).parents[1]
    sources = "procpre_interp/train/native"
    archive = subprocess.run(["git", "archive", commit, sources], cwd=here, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    library = folder / "before.so"
    compile_kernel(kernel_shape(setting.model), library, source=folder / sources / "kernel.cpp")
    return library


def two_processes(setting: Setting, library: Path | None = None) -> Step:
    """`TOGETHER` native steps in each of two processes at once, one thread each; returns the first's first loss."""
    pipes = [SPAWN.Pipe() for _ in range(2)]
    for _, there in pipes:
        SPAWN.Process(target=serve_steps, args=(setting, there, library), daemon=True).start()

    def step() -> float:
        for here, _ in pipes:
            here.send("step")
        losses = [here.recv() for here, _ in pipes]
        return losses[0]

    return step


def serve_steps(setting: Setting, asked: Connection, library: Path | None) -> None:
    """`TOGETHER` steps for each message, until the other end is closed."""
    with run_threads(1), suppress(EOFError):
        step = ours(setting, "native", 1, library)
        while asked.recv():
            first, *_ = [step() for _ in range(TOGETHER)]
            asked.send(first)


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
    model = to_huggingface(HookedTransformer.from_seed(setting.model, 0))
    assert model.config._attn_implementation == "sdpa"
    return plain(model, lambda tokens: model(input_ids=tokens, use_cache=False).logits, setting.batch)


def transformer_lens(setting: Setting) -> Step:
    """TransformerBridge.boot_native's forward as it is."""
    bridge = to_bridge(HookedTransformer.from_seed(setting.model, 0))
    return plain(bridge, lambda tokens: bridge(tokens, return_type="logits"), setting.batch)


VARIANTS: dict[str, Callable[[Setting, int], Step]] = {
    "huggingface": lambda setting, threads: huggingface(setting),
    "transformer_lens": lambda setting, threads: transformer_lens(setting),
    "torch": lambda setting, threads: ours(setting, "torch", threads),
    "native": lambda setting, threads: ours(setting, "native", threads),
    "native x2": lambda setting, threads: two_processes(setting),
}


def peak_gflops(kernel: NativeStep, repeats: int = 1_000_000) -> float:
    """Rate of multiply-adds in registers on one thread."""
    kernel.library.kernel_peak.restype = ctypes.c_double
    started = time.perf_counter()
    operations = kernel.library.kernel_peak(ctypes.c_int64(repeats))
    return operations / (time.perf_counter() - started) / 1e9


def measure(
    key: Key, repeats: int, threads: int, before: str | None
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Times of `repeats` steps of each variant, in ms, in turn; and the two peaks, in GFLOP/s."""
    setting = settings()[key]
    tolerance = 1e-4 if setting.precision == "float32" else 0.02
    with run_threads(threads), tempfile.TemporaryDirectory() as folder:
        steps = {name: VARIANTS[name](setting, threads) for name in setting.variants}
        if before is not None and "native" in steps:
            library = kernel_of(before, setting, Path(folder))
            steps["before"] = ours(setting, "native", threads, library)
            if "native x2" in steps:
                steps["before x2"] = two_processes(setting, library)
        losses = {name: step() for name, step in steps.items()}
        if max(losses.values()) - min(losses.values()) > tolerance:
            raise ValueError(f"the variants' first losses differ: {losses}")
        square = torch.rand(1024, 1024, generator=stream(0, "bench"))
        tiny = replace(setting.model, n_layers=1, n_heads=4, d_model=16, d_mlp=None)
        registers = NativeStep(HookedTransformer.from_seed(tiny, 0), threads=1)
        times: dict[str, list[float]] = {name: [] for name in steps}
        products, rates = [], []
        shuffled = random.Random(0)
        for _ in range(repeats):
            for name in shuffled.sample(list(steps), len(steps)):
                steps[name]()  # what the others left in caches, and their waiting threads, would count otherwise
                times[name].append(milliseconds(steps[name]) / (2 * TOGETHER if name.endswith("x2") else 1))
            products.append(milliseconds(lambda: square @ square))
            rates.append(peak_gflops(registers))
    return times, {"peak_gflops": max(rates) * threads, "product_gflops": 2 * 1024**3 / min(products) / 1e6}


def milliseconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return 1000 * (time.perf_counter() - started)


def main(
    repeats: int = 9,
    threads: int = 2,
    only: tuple[Key, ...] = get_args(Key),
    before: str | None = None,
    record: bool = False,
) -> None:
    """Measure each setting in a process of its own, where the allocator keeps nothing of another's."""
    if record and set(only) != set(settings()):
        raise ValueError("--record writes one table of all settings, so it takes all of them")
    console = Console(highlight=False, markup=False)
    results: Results = {}
    peaks: dict[Key, dict[str, float]] = {}
    for key in only:
        setting = settings()[key]
        with safe_spawn(), ProcessPoolExecutor(1, mp_context=SPAWN) as pool:
            times, peaks[key] = pool.submit(measure, key, repeats, setting.threads or threads, before).result()
        results[key] = {
            name: {"median_ms": round(statistics.median(values), 2), "min_ms": round(min(values), 2)}
            for name, values in times.items()
        }
        flops = useful_flops(setting.model, setting.batch)
        console.print(results_table(key, setting, results[key], flops, peaks[key]))
    for key, name, other, goal in (each for each in GOALS if {each[1], each[2]} <= set(results.get(each[0], ()))):
        ratio = results[key][other]["median_ms"] / results[key][name]["median_ms"]
        outcome = "reached" if ratio >= goal else "missed"
        console.print(f"{key}: {name} is {ratio:.1f} x {other} (goal {goal:g}: {outcome})")
    if record:
        record_table(__file__, recorded_table(results, peaks, threads))
    print(
        json.dumps(
            {key: found | {name: round(rate, 1) for name, rate in peaks[key].items()} for key, found in results.items()}
        )
    )


def recorded_table(results: Results, peaks: Mapping[Key, Mapping[str, float]], threads: int) -> pd.DataFrame:
    """One row per setting: median milliseconds of each variant, and the fastest of ours beside Hugging Face."""
    rows = []
    for key, found in results.items():
        setting, medians = settings()[key], {name: ms["median_ms"] for name, ms in found.items()}
        fastest = min((set(medians) & set(TITLES)) - {*USUAL[:2], "before", "before x2"}, key=medians.__getitem__)
        rate = useful_flops(setting.model, setting.batch) / medians[fastest] / 1e6
        row = {"Setting": setting.title, "Threads": str(setting.threads or threads)}
        row |= {title: f"{medians[name]:.1f}" if name in medians else "" for name, title in TITLES.items()}
        row["Fastest of ours"] = f"{fastest}, {medians['huggingface'] / medians[fastest]:.1f} x Hugging Face"
        peak = {"% of multiply-adds in registers": f"{100 * rate / peaks[key]['peak_gflops']:.0f}"}
        peak["% of torch's product"] = f"{100 * rate / peaks[key]['product_gflops']:.0f}"
        rows.append(row | peak)
    return pd.DataFrame(rows)


def results_table(
    key: str, setting: Setting, results: dict[str, dict[str, float]], flops: float, peaks: Mapping[str, float]
) -> Table:
    """One row per variant; the share of the peak for the native kernel."""
    peak, product = peaks["peak_gflops"], peaks["product_gflops"]
    title = f"{key}: {setting.title}; torch's product {product:.0f} GFLOP/s"
    table = Table(title=title, title_justify="left", box=None)
    for column in ("variant", "median ms", "min ms", "x Hugging Face: medians", "minima", f"% of {peak:.0f} GFLOP/s"):
        table.add_column(column, justify="left" if column == "variant" else "right")
    for name, ms in results.items():
        ratios = [results["huggingface"][key] / ms[key] for key in ("median_ms", "min_ms")]
        share = f"{100 * flops / ms['median_ms'] / 1e6 / peak:.0f}" if name in ("torch", "native", "native x2") else ""
        table.add_row(name, *(f"{t:.1f}" for t in ms.values()), *(f"{ratio:.2f}" for ratio in ratios), share)
    return table


if __name__ == "__main__":
    tyro.cli(main)

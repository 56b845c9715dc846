"""What text costs: packing and reading as a share of a training step, memory against size of the corpus, start-up, and
whole training beside Hugging Face.

    python experiments/bench_text.py [--repeats 15] [--gigabytes 0.1 2] [--record]

Packing python-stdlib and reading windows of it take turns with training steps on one thread, so that a busy moment of
the machine hits all alike; seconds are the processor's, and medians count. Packing is set against one pass: what a
token costs to be packed over what it costs to be trained on. Memory is the peak of a process that packs a corpus made
on the fly, and of another that trains on it, above what each had after its imports. Start-up is what a fresh process
takes from the config to the first batch, its imports not counted. Whole training is steps with their data and an
evaluation, ours and that of GPT2LMHeadModel with torch's fused AdamW and DataLoader over the same token file, in turns.
`--record` writes the table into BENCHMARKS.md.
"""

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import tyro
from torch.utils.data import DataLoader, Dataset, Subset

from procpre_interp.core.children import child_environment
from procpre_interp.data import TASKS
from procpre_interp.data.corpus import build_corpus
from procpre_interp.data.documents import corpus_hash
from procpre_interp.data.semantic.text import Text
from procpre_interp.data.stream import TaskStream
from procpre_interp.data.token_file import TokenFile, build_token_file
from procpre_interp.model import HookedTransformer, ModelConfig
from procpre_interp.model.huggingface import to_huggingface
from procpre_interp.train import TrainConfig, Trainer
from procpre_interp.train.process import run_threads
from procpre_interp.views.benchmarks import record as record_table

TOKENIZERS = ("byte", "bpe:4096")
WIDTHS = {"byte": 64, "bpe:4096": 128}
"""d_model of the two settings on text with which BENCHMARKS.md measures a step."""
BATCH, LENGTH = 16, 128
STEPS, EXAMPLES = 20, 64
"""Steps between evaluations of whole training, and the windows that are scored then."""
PACK_EVERY = 5
"""Turns of which one packs the corpus anew; BPE is trained then, which takes seconds."""
SHARE_GOAL = 3.0
"""Percent of a step."""

PACK = """
import json, resource, sys, time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from procpre_interp.data.corpus import CORPORA, Corpus
from procpre_interp.data.semantic.text import Text
from procpre_interp.data.stream import TaskStream

@CORPORA.register("made-up")
@dataclass(frozen=True, kw_only=True, slots=True)
class MadeUp(Corpus):
    gigabytes: str

    def files(self):
        return []

    def documents(self, contents, skipped):
        list(contents)
        words = " ".join(str(i * i % 99991) for i in range(20_000))
        for i in range(int(float(self.gigabytes) * 1e9 / 4000)):
            start = i * 7919 % (len(words) - 4000)
            yield f"{i} {words[start : start + 4000]}"

def peak():
    if not Path("/proc/self/status").exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    # ru_maxrss counts what the process that started this one held, too, so that nothing would be seen to grow.
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024

corpus, tokenizer, length = sys.argv[1:]
before, started = peak(), time.perf_counter()
task = Text(corpus=corpus, tokenizer=tokenizer, length=int(length)).resolve()
stream = TaskStream(task, seed=0, split="train", size=16)
stream.batch(0)
seconds = time.perf_counter() - started
for index in range(1, 4):
    stream.batch(index * stream.batches_per_block)
print(json.dumps({"seconds": seconds, "peak_mb": peak() - before}))
"""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What does text cost?"""

    repeats: int = 15
    """Turns of the interleaved measurements; at most 3 processes are started for a start-up."""
    gigabytes: tuple[float, ...] = (0.1, 2.0)
    """Sizes of the corpora made on the fly."""
    record: bool = False
    """Write the table into BENCHMARKS.md."""


def wall_seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def cpu_seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def shares(tokenizer: str, repeats: int, folder: Path) -> tuple[float, float]:
    """Packing and reading, each in percent of a training step."""
    task = TASKS.build("text", corpus="python-stdlib", tokenizer=tokenizer, length=LENGTH).resolve()
    assert isinstance(task, Text)
    d_model = WIDTHS[tokenizer]
    shape = ModelConfig(n_layers=2, n_heads=4, d_model=d_model, n_ctx=LENGTH, d_vocab=task.d_vocab)
    train = TrainConfig(batch_size=BATCH, evaluate_examples=BATCH, threads=1)
    trainer = Trainer(HookedTransformer.from_seed(shape, 0), task, train, seed=0)
    batches = TaskStream(task, seed=0, split="train", size=BATCH)
    corpus = build_corpus("python-stdlib")
    n_tokens = sum(size.tokens for size in task._open().splits.values())

    def pack(turn: int) -> None:
        os.environ["PROCPRE_CACHE"] = str(folder / f"{tokenizer}-{turn}".replace(":", "-"))
        build_token_file(corpus, corpus_hash(corpus), tokenizer)

    packing, reading, steps = [], [], []
    cache = os.environ["PROCPRE_CACHE"]
    for turn in range(-1, repeats):  # the first one warms up
        read = cpu_seconds(lambda turn=turn: batches.draw(turn + 2)) / batches.batches_per_block
        step = cpu_seconds(lambda: [trainer.take_step() for _ in range(10)]) / 10
        if turn < 0:
            continue
        reading.append(read)
        steps.append(step)
        if turn % PACK_EVERY == 0:
            packing.append(cpu_seconds(lambda turn=turn: pack(turn)) / n_tokens)
            os.environ["PROCPRE_CACHE"] = cache
    percent = 100 / statistics.median(steps)
    return percent * statistics.median(packing) * BATCH * LENGTH, percent * statistics.median(reading)


class Windows(Dataset[torch.Tensor]):
    """The token file as Hugging Face's users would read it: one window after another, mapped into memory."""

    def __init__(self, token_file: TokenFile, split: str) -> None:
        self.tokens = token_file.tokens(split)

    def __len__(self) -> int:
        return len(self.tokens) // LENGTH

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(self.tokens[index * LENGTH : (index + 1) * LENGTH].astype(np.int64))


def ours(task: Text, shape: ModelConfig, threads: int) -> Callable[[], None]:
    """`STEPS` steps and an evaluation of our trainer."""
    train = TrainConfig(batch_size=BATCH, evaluate_examples=EXAMPLES, threads=threads, warmup_steps=0)
    trainer = Trainer(HookedTransformer.from_seed(shape, 0), task, train, seed=0)

    def work() -> None:
        with run_threads(trainer.torch_threads), trainer.prefetch:
            for _ in range(STEPS):
                trainer.take_step()
            trainer.evaluate()

    return work


def theirs(task: Text, shape: ModelConfig, threads: int) -> Callable[[], None]:
    """The same of Hugging Face's model, as its examples train it: PyTorch's loader and optimiser."""
    model = to_huggingface(HookedTransformer.from_seed(shape, 0))
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    token_file = task._open()
    batches = itertools.cycle(DataLoader(Windows(token_file, "train"), batch_size=BATCH, shuffle=True, drop_last=True))
    examples = DataLoader(Subset(Windows(token_file, "validation"), range(EXAMPLES)), batch_size=BATCH)

    def loss(tokens: torch.Tensor) -> torch.Tensor:
        return model(input_ids=tokens, labels=tokens, use_cache=False).loss

    def work() -> None:
        with run_threads(threads):
            for _ in range(STEPS):
                loss(next(batches)).backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimiser.step()
                optimiser.zero_grad()
            with torch.no_grad():
                statistics.fmean(float(loss(tokens)) for tokens in examples)

    return work


def training(tokenizer: str, threads: int, repeats: int) -> str:
    """Milliseconds a step of both, data and evaluation included, in turns."""
    task = TASKS.build("text", corpus="python-stdlib", tokenizer=tokenizer, length=LENGTH).resolve()
    assert isinstance(task, Text)
    shape = ModelConfig(n_layers=2, n_heads=4, d_model=WIDTHS[tokenizer], n_ctx=LENGTH, d_vocab=task.d_vocab)
    sides = [side(task, shape, threads) for side in (ours, theirs)]
    times = [[1000 * wall_seconds(side) / STEPS for side in sides] for _ in range(repeats + 1)][1:]
    (our, their), (our_least, their_least) = ([f(column) for column in zip(*times)] for f in (statistics.median, min))
    return (
        f"{our:.1f} ms a step, Hugging Face {their:.1f}: {their / our:.1f} x; of the least ones "
        f"{their_least / our_least:.1f} x"
    )


def process(corpus: str, tokenizer: str, cache: Path) -> dict[str, float]:
    """Seconds to the first batch, and peak memory, of a fresh process."""
    command = [sys.executable, "-c", PACK, corpus, tokenizer, str(LENGTH)]
    environment = child_environment(PROCPRE_CACHE=str(cache))
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)


def main(bench: Bench) -> None:
    """Measure and print."""
    os.environ["RAYON_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    rows: list[dict[str, str]] = []

    def enter(what: str, measured: str, goal: str = "") -> None:
        rows.append({"What": what, "Measured": measured, "Goal": goal})
        print(f"{what}: {measured}{f' (goal: {goal})' if goal else ''}", flush=True)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cache = folder / "cache"
        os.environ["PROCPRE_CACHE"] = str(cache)
        for tokenizer in TOKENIZERS:
            packing, reading = shares(tokenizer, bench.repeats, folder)
            setting = f"{tokenizer}, batch {BATCH} x {LENGTH}, 2 layers, d_model {WIDTHS[tokenizer]}, one thread"
            enter(f"reading, {setting}", f"{reading:.2f} % of a step", f"{SHARE_GOAL:.0f} %")
            enter(f"packing for one pass, {setting}", f"{packing:.2f} % of a step", f"{SHARE_GOAL:.0f} %")
        for tokenizer in TOKENIZERS:
            turns = [process("python-stdlib", tokenizer, cache)["seconds"] for _ in range(min(bench.repeats, 3))]
            median = f"{statistics.median(turns):.2f} s, least {min(turns):.2f} s"
            enter(f"start-up from the cache, python-stdlib, {tokenizer}", median, "1 s")
        for tokenizer, threads in itertools.product(TOKENIZERS, (1, 2)):
            setting = f"{tokenizer}, batch {BATCH} x {LENGTH}, 2 layers, d_model {WIDTHS[tokenizer]}, {threads} threads"
            enter(f"training, data and evaluation included, {setting}", training(tokenizer, threads, bench.repeats))
        for size in bench.gigabytes:
            packed, opened = (process(f"made-up:{size:g}", "byte", folder / f"{size:g}") for _ in range(2))
            enter(f"memory to pack {size:g} GB, byte", f"{packed['peak_mb']:.0f} MB", "1,000 MB")
            enter(f"memory to read {size:g} GB, byte", f"{opened['peak_mb']:.0f} MB", "1,000 MB")
            enter(f"start-up from the cache, {size:g} GB, byte", f"{opened['seconds']:.2f} s")
    if bench.record:
        record_table(__file__, pd.DataFrame(rows))


if __name__ == "__main__":
    main(tyro.cli(Bench, description=__doc__))

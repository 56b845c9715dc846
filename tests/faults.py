"""Processes that are killed as by kill -9, at moments of a seed: the work that they do, and who kills them.

They are forked from a server that has loaded the package already, so that a kill costs a fraction of a second.
"""

import dataclasses
import hashlib
import multiprocessing
import os
import random
import signal
import stat
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from procpre_interp.data import TASKS
from procpre_interp.data.tokenizer_files import TokenizerFiles
from procpre_interp.engine import processes
from procpre_interp.model import HookedTransformer, ModelConfig
from procpre_interp.pipeline.config import Architecture, Parent, RunConfig
from procpre_interp.pipeline.execute import execute
from procpre_interp.pipeline.pretrained_folder import write_pretrained
from procpre_interp.store.store import RunStore
from procpre_interp.train import TrainConfig
from tests.small_draws import SMALL, set_draws

ROOT = Path(__file__).resolve().parents[1]
KILLS = int(os.environ.get("PROCPRE_KILLS", "3"))
"""Kills of each kind; `make test-faults` has 50."""
_CHANGES = {"os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir", "fcntl.flock"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT

_TRAIN = TrainConfig(
    steps=12, batch_size=4, warmup_steps=2, evaluate_every=4, evaluate_examples=16, checkpoints=3, save_seconds=0.0
)
_SHAPE = Architecture(n_layers=1, n_heads=2, d_model=8, n_ctx=64)
PARENT = RunConfig(
    task=TASKS.build("haystack"), seed=1, model=_SHAPE, train=dataclasses.replace(_TRAIN, keep_optimiser=True)
)
CHILDREN = [
    dataclasses.replace(PARENT, seed=seed, parents=(Parent(run=PARENT.run_id, selector=selector),))
    for seed, selector in ((2, "attn"), (3, "mlp"))
]


# Work


def train(store: Path) -> None:
    execute(PARENT, RunStore(store))


def sweep(store: Path, worker_dies_at: int | None = None) -> None:
    """A parent and its children, by a worker process of this one."""
    context = multiprocessing.get_context("fork")

    def begin(connection: Connection, *rest: Any) -> None:
        # A forked process has this one's end of the pipe too, and would never see that this one is gone.
        for name in os.listdir("/proc/self/fd"):
            with suppress(OSError):
                if int(name) != connection.fileno() and stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                    os.close(int(name))
        if worker_dies_at is not None:
            die_at(worker_dies_at)
        processes.work(connection, rest[0], rest[1])

    # In place of spawned ones, which load everything anew.
    processes.start = begin
    processes.multiprocessing.get_context = lambda method: context  # pyright: ignore[reportAttributeAccessIssue]
    configs = {config.run_id: config for config in (PARENT, *CHILDREN)}
    processes.execute_all(configs, RunStore(store), workers=1)


def seal(store: Path) -> None:
    """A run of many files that take no time to compute."""
    with RunStore(store).claim("sealed") as partial:
        if partial is None:
            return
        partial.write_config("seed: 1")
        partial.write_json("environment.json", {})
        partial.write_table("history", pd.DataFrame({"step": range(1000), "split": "train", "loss_nats": 1.0}))
        for step in range(10):
            partial.weights_path(step).write_bytes(bytes([step]) * 2**16)
        partial.resume_path.write_bytes(b"state")
        partial.finish({"accuracy": 1.0})


def pack(corpus: Path) -> None:
    """The token file of a corpus, with a tokenizer of its own, in the cache."""
    TASKS.build("text", corpus=f"files:{corpus}", tokenizer="bpe:300", length=16).resolve()


def export(folder: Path) -> None:
    """A model as a folder, unless it is there."""
    if not folder.exists():
        config = ModelConfig(n_layers=2, n_heads=2, d_model=8, n_ctx=16, d_vocab=32)
        write_pretrained(HookedTransformer.from_seed(config, 1, "faults"), TokenizerFiles(texts={}), "A card.", folder)


# Kills


def die_at(change: int) -> Callable[[], int]:
    """Kill this process just before it changes files for the n-th time; the number of changes so far."""
    changes = 0

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal changes
        if event in _CHANGES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITES):
            changes += 1
            if changes == change:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    return lambda: changes


def _child(connection: Connection, cache: Path, change: int, work: Callable[..., None], arguments: tuple) -> None:
    os.setsid()
    os.environ["PROCPRE_CACHE"] = str(cache)
    torch.set_num_threads(1)
    set_draws(*SMALL)
    connection.send("ready")
    changes = die_at(change)
    work(*arguments)
    connection.send(changes())


class Killer:
    """Starts work and kills it: half of the times at a moment, and half just before a change of files."""

    def __init__(self, cache: Path, *, seed: int) -> None:
        self.cache, self.random = cache, random.Random(seed)
        self.context = multiprocessing.get_context("forkserver")
        # Else each export would import for seconds, in which most kills would come.
        self.context.set_forkserver_preload(["tests.faults", "transformers.models.gpt2.modeling_gpt2"])
        self.seconds, self.changes = 0.0, 0

    def run(self, work: Callable[..., None], *arguments: Any) -> None:
        """The work to its end, which tells how long it takes and how often it changes files."""
        process, ours = self._start(work, arguments, 0)
        started = time.monotonic()
        changes = ours.recv()
        self.seconds, self.changes = max(self.seconds, time.monotonic() - started), max(self.changes, changes)
        self._end(process)
        assert process.exitcode == 0

    def kill(self, work: Callable[..., None], *arguments: Any) -> bool:
        """Whether the work was killed, before it had ended."""
        by_change = self.changes > 0 and self.random.random() < 0.5  # a driver of workers changes no files
        process, ours = self._start(work, arguments, self.random.randint(1, self.changes) if by_change else 0)
        if not by_change:
            ours.poll(self.random.uniform(0, self.seconds))
            process.kill()
        self._end(process)
        assert process.exitcode in (0, -signal.SIGKILL), f"exit code {process.exitcode}"
        return process.exitcode != 0

    def _start(self, work: Callable[..., None], arguments: tuple, change: int) -> tuple[Any, Connection]:
        ours, theirs = self.context.Pipe()
        path = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = f"{ROOT}{os.pathsep}{path or ''}"  # for the server, which this may start
        process = self.context.Process(target=_child, args=(theirs, self.cache, change, work, arguments))
        process.start()
        os.environ.pop("PYTHONPATH") if path is None else os.environ.update(PYTHONPATH=path)
        theirs.close()
        assert ours.recv() == "ready"
        return process, ours

    def _end(self, process: Any) -> None:
        """Wait for the process and for its own, which save their state when they see that it is gone."""
        process.join(60)
        deadline = time.monotonic() + 60
        with suppress(ProcessLookupError):
            while time.monotonic() < deadline:
                os.killpg(process.pid, 0)
                time.sleep(0.02)
        assert process.exitcode is not None


# Results


def files(folder: Path) -> dict[str, str]:
    """SHA-256 of each file below a folder, by its path there."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def results(store: RunStore) -> dict[str, object]:
    """All that is in the finished runs of a store, but for when and where: by run and file, column or field."""
    found: dict[str, object] = {}
    for run_id in store.query()["run"]:
        run = store.open(run_id)
        content: dict[str, object] = dict(files(run.folder))
        for name in ("manifest.json", "summary.json", "history.parquet", "environment.json"):
            del content[name]
        history = run.history()
        content |= {column: history[column].tolist() for column in history if column != "seconds"}
        content |= {key: value for key, value in run.summary.items() if key not in ("created", "seconds")}
        found |= {f"{run_id} {name}": str(value) for name, value in content.items()}
    return found

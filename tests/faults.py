"""Processes to which something happens at moments of a seed: the work that they do, and who kills or harms them.

They are forked from a server that has loaded the package already, so that a kill costs a fraction of a second.
"""

import dataclasses
import errno
import hashlib
import multiprocessing
import os
import random
import shutil
import signal
import stat
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_file

from procpre_interp.data import TASKS
from procpre_interp.data.tokenizer_files import TokenizerFiles
from procpre_interp.engine import processes
from procpre_interp.model import HookedTransformer, ModelConfig
from procpre_interp.pipeline.config import Architecture, Parent, RunConfig
from procpre_interp.pipeline.execute import execute
from procpre_interp.pipeline.pretrained_folder import write_pretrained
from procpre_interp.pipeline.stacked import Listener, execute_stacked
from procpre_interp.store.store import RunStore, UnknownRun
from procpre_interp.train import TrainConfig
from procpre_interp.train.native.build import KernelShape, build
from tests.small_draws import SMALL, set_draws

ROOT = Path(__file__).resolve().parents[1]
KILLS = int(os.environ.get("PROCPRE_KILLS", "3"))
"""Kills of each kind; `make test-faults` has 50."""
REFUSALS = (OSError, UnknownRun)
"""What is said where files cannot be had: an error of the system, or that a parent is gone."""
_MAKES = {"os.rename", "os.link", "os.mkdir"}
CLOSE: dict[str, float] = {"rtol": 1e-4, "atol": 1e-5}
_CHANGES = {*_MAKES, "os.remove", "os.rmdir", "fcntl.flock"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT

_TRAIN = TrainConfig(
    steps=12, batch_size=4, warmup_steps=2, evaluate_every=4, evaluate_examples=16, checkpoints=3, save_seconds=0.0
)
_SHAPE = Architecture(n_layers=1, n_heads=2, d_model=8, n_ctx=64)
PARENT = RunConfig(
    task=TASKS.build("haystack"), seed=1, model=_SHAPE, train=dataclasses.replace(_TRAIN, keep_optimiser=True)
)
NATIVE = dataclasses.replace(
    PARENT,
    model=dataclasses.replace(_SHAPE, d_model=16),
    train=dataclasses.replace(PARENT.train, kernel="native"),
)
"""Of the smallest shape that the native kernel has."""
CHILDREN = [
    dataclasses.replace(PARENT, seed=seed, parents=(Parent(run=PARENT.run_id, selector=selector),))
    for seed, selector in ((2, "attn"), (3, "mlp"))
]


# Work


def train(store: Path) -> None:
    execute(PARENT, RunStore(store))


def train_natively(store: Path) -> None:
    execute(NATIVE, RunStore(store))


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
            at_change(worker_dies_at, die)
        processes.work(connection, rest[0], rest[1])

    # In place of spawned ones, which load everything anew.
    processes.start = begin
    processes.multiprocessing.get_context = lambda method: context  # pyright: ignore[reportAttributeAccessIssue]
    configs = {config.run_id: config for config in (PARENT, *CHILDREN)}
    processes.execute_all(configs, RunStore(store), workers=1)


def stack(store: Path) -> None:
    """The parent, and its children as one computation."""

    def fail(run: str, error: Exception) -> None:
        raise error

    execute(PARENT, RunStore(store))
    stacked = [dataclasses.replace(child, train=dataclasses.replace(_TRAIN, kernel="stacked")) for child in CHILDREN]
    execute_stacked({run.run_id: run for run in stacked}, RunStore(store), listener=Listener(on_failed=fail))


def seal(store: Path, run: str = "sealed") -> None:
    """A run of many files that take no time to compute."""
    with RunStore(store).claim(run) as partial:
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


def compile_kernel(compiler: Path) -> None:
    """The library of the native kernel, in the cache."""
    os.environ["CXX"] = str(compiler)
    build(KernelShape(n_heads=2, d_model=16, d_mlp=64, tokens=256), "plain")


def export(folder: Path) -> None:
    """A model as a folder, unless it is there."""
    if not folder.exists():
        config = ModelConfig(n_layers=2, n_heads=2, d_model=8, n_ctx=16, d_vocab=32)
        write_pretrained(HookedTransformer.from_seed(config, 1, "faults"), TokenizerFiles(texts={}), "A card.", folder)


# Harm


def at_change(change: int, act: Callable[[str], None]) -> Callable[[], int]:
    """Act just before this process changes files for the n-th time, and before each change from then on, of which it is
    given the event; the number of changes so far."""
    changes, acting = 0, False

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal changes, acting
        if acting:  # what it changes itself
            return
        if event in _CHANGES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITES):
            changes += 1
            if 0 < change <= changes:
                acting = True
                try:
                    act(event)
                finally:
                    acting = False

    sys.addaudithook(count)
    return lambda: changes


def die(event: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def be_full(event: str) -> None:
    """No room for a new name."""
    if event in _MAKES or event == "open":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def be_read_only(event: str) -> None:
    if event != "fcntl.flock":
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))


class Once:
    """What happens to a folder, once."""

    def __init__(self, harm: Callable[[Path], None], folder: Path) -> None:
        self.harm, self.folder, self.done = harm, folder, False

    def __call__(self, event: str) -> None:
        if not self.done:
            self.done = True
            self.harm(self.folder)


def remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def jump_ahead(folder: Path) -> None:
    _jump(folder, 1e8)


def jump_back(folder: Path) -> None:
    _jump(folder, -1e8)


def _jump(folder: Path, seconds: float) -> None:
    """Three years pass, or are taken back: for this process, and for what is there by the clock of a file server."""
    real = time.time
    time.time = lambda: real() + seconds
    for path in folder.rglob("*"):
        os.utime(path, (path.stat().st_mtime + seconds,) * 2)


HARM: dict[str, Callable[[str], None]] = {
    "nothing": lambda event: None,
    "killed": die,
    "full": be_full,
    "read-only": be_read_only,
}
HARM_ONCE: dict[str, Callable[[Path], None]] = {
    "removed": remove,
    "clock ahead": jump_ahead,
    "clock back": jump_back,
}


def _child(
    connection: Connection, cache: Path, change: int, harm: str, work: Callable[..., None], arguments: tuple
) -> None:
    os.setsid()
    os.environ["PROCPRE_CACHE"] = str(cache)
    torch.set_num_threads(1)
    set_draws(*SMALL)
    connection.send("ready")
    changes = at_change(change, HARM[harm] if harm in HARM else Once(HARM_ONCE[harm], arguments[0]))
    try:
        work(*arguments)
    except Exception as problem:
        connection.send(problem)
        if isinstance(problem, REFUSALS):
            return
        raise
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
        process, ours = self._start(work, arguments)
        started = time.monotonic()
        changes = ours.recv()
        if isinstance(changes, Exception):
            raise changes
        self.seconds, self.changes = max(self.seconds, time.monotonic() - started), max(self.changes, changes)
        self._end(process)
        assert process.exitcode == 0

    def kill(self, work: Callable[..., None], *arguments: Any) -> bool:
        """Whether the work was killed, before it had ended."""
        by_change = self.changes > 0 and self.random.random() < 0.5  # a driver of workers changes no files
        process, ours = self._start(work, arguments, change=self.random.randint(1, self.changes) if by_change else 0)
        if not by_change:
            ours.poll(self.random.uniform(0, self.seconds))
            process.kill()
        self._end(process)
        assert process.exitcode in (0, -signal.SIGKILL), f"exit code {process.exitcode}"
        return process.exitcode != 0

    def run_all(self, works: Sequence[tuple[Callable[..., None], tuple]]) -> None:
        """All works to their ends, at once."""
        begun = [self._start(work, arguments) for work, arguments in works]
        problems = [ours.recv() for _, ours in begun]
        for process, _ in begun:
            self._end(process)
        assert [problem for problem in problems if not isinstance(problem, int)] == []

    def harm(self, harm: str, change: int, work: Callable[..., None], *arguments: Any) -> Exception | None:
        """What the work says where this happens to it before the n-th change of files; None if it ended all the same.

        Raises whatever is none of `REFUSALS`.
        """
        process, ours = self._start(work, arguments, change=change, harm=harm)
        found = ours.recv()
        self._end(process)
        if isinstance(found, REFUSALS):
            return found
        if isinstance(found, Exception):
            raise found
        return None

    def _start(
        self, work: Callable[..., None], arguments: tuple, *, change: int = 0, harm: str = "killed"
    ) -> tuple[Any, Connection]:
        ours, theirs = self.context.Pipe()
        path = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = f"{ROOT}{os.pathsep}{path or ''}"  # for the server, which this may start
        process = self.context.Process(target=_child, args=(theirs, self.cache, change, harm, work, arguments))
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


# What must hold


def check_listed(where: Path) -> None:
    """What is listed as finished is whole, and the rest is not listed so."""
    store = RunStore(where)
    table = store.query()
    assert set(table["status"]) <= {"finished", "interrupted"}, table[["run", "status", "problem"]].to_dict("records")
    for run in table["run"][table["status"] == "finished"]:
        store.open(run)


def check_clean(where: Path) -> None:
    """No lock, no state, no temporary file."""
    store = RunStore(where)
    assert set(store.query()["status"]) == {"finished"}
    assert os.listdir(where / "partial") == []
    for run in store.query()["run"]:
        opened = store.open(run)
        assert set(files(opened.folder)) == {*opened.manifest, "manifest.json"}
    assert sorted(os.listdir(where / "runs")) == sorted(store.query()["run"])


def assert_same(found: RunStore, expected: RunStore) -> None:
    """The same runs, bit for bit."""
    was, is_now = results(expected), results(found)
    differ = {name: (was.get(name), is_now.get(name)) for name in was.keys() | is_now.keys()}
    differ = {name: values for name, values in differ.items() if values[0] != values[1]}
    assert not differ, differ


def assert_close(found: RunStore, expected: RunStore) -> None:
    """The same runs, but for the last bits of their weights and losses."""
    assert set(found.query()["run"]) == set(expected.query()["run"])
    for was in map(expected.open, expected.query()["run"]):
        is_now = found.open(was.id)
        assert is_now.config == was.config
        assert is_now.manifest.keys() == was.manifest.keys()
        columns = ["step", "split", "loss_nats", "accuracy"]
        pd.testing.assert_frame_equal(is_now.history()[columns], was.history()[columns], rtol=1e-5)
        for name in was.manifest:
            if name.startswith("weights/"):
                torch.testing.assert_close(load_file(is_now.folder / name), load_file(was.folder / name), **CLOSE)

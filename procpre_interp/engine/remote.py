"""Runs on other machines: what Ray and Slurm have in common. Only the store, a folder that all share, connects them; or
a URL, from which each node fetches into a folder of its own what it needs.

A task is small: the config of one run. Its parents are read from the store, and its results are written there. Runs
are named by their content and locked while they are written, so that one that is computed twice does no harm.
"""

import hashlib
import importlib
import os
import pickle
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from procpre_interp.core import plugins
from procpre_interp.core.atomic_files import cache_folder
from procpre_interp.data import prefetch
from procpre_interp.engine.events import Event, failure
from procpre_interp.engine.known_runs import known_runs, ready_runs
from procpre_interp.engine.processes import perform, plugin_problem
from procpre_interp.pipeline import tracking
from procpre_interp.pipeline.config import RunConfig
from procpre_interp.store.remote_copy import DamagedCopy, RemoteCopy
from procpre_interp.store.run import parents_of
from procpre_interp.store.store import DamagedRun, RunStore
from procpre_interp.train import Interrupted

RETRIES = 3
"""How often a run goes on after the worker or the node that had it was lost."""
REPORT_SECONDS = 1.0
"""Seconds between two progress messages of a task."""
POLL_SECONDS = 0.25
"""Longest time for which the driver waits for what happens."""
SEEN_SECONDS = 60.0
"""How long a file system that machines share may take to show one of them what another wrote (NFS: its cache)."""


@dataclass(frozen=True, slots=True)
class Task:
    """One run, as it travels."""

    run: str
    config: bytes
    """The pickled config, which can be read once the plugins are loaded."""
    plugins: tuple[plugins.Plugin, ...]
    store: Path
    parents: tuple[str, ...]
    """Runs of the store that it starts from."""
    steps: int
    """Largest number of steps."""
    threads: int
    """CPUs that it needs."""
    on_gpu: bool
    """Whether it needs a GPU."""
    tracker: str | None
    """Tool to which its history goes, too."""
    url: str | None = None
    """Where its parents come from, and it goes; None where all nodes share the store."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A run whose worker or node is gone."""

    run: str
    problem: str


@runtime_checkable
class Cluster(Protocol):
    """Where tasks are computed."""

    def room(self) -> int:
        """Tasks that it takes at once, with those that wait there for a place."""
        ...

    def submit(self, task: Task) -> None: ...

    def events(self, seconds: float) -> Iterable[Event | Lost]:
        """What happened to its tasks within this time."""
        ...

    def recall(self, runs: Iterable[str]) -> None:
        """Forget tasks; those that had started after all save their state."""
        ...

    def stop(self, runs: Iterable[str]) -> None:
        """Have tasks save their state, and wait until they have."""
        ...


def execute_remotely(
    configs: Mapping[str, RunConfig],
    store: RunStore,
    cluster: Cluster,
    *,
    on_event: Callable[[Event], None] = lambda event: None,
    may_start: Callable[[], bool] = lambda: True,
    whole: Collection[str] = (),
    url: str | None = None,
) -> dict[str, str]:
    """Execute runs as `processes.execute_all` does, on a cluster. One whose worker or node is lost goes on elsewhere
    from the state that it saved last, `RETRIES` times at most; with a `url`, through which all of it goes then, from
    the beginning."""
    copy = RemoteCopy(url) if url is not None else None
    done, problems = known_runs(configs, store, on_event, whole)
    waiting = [run for run in configs if run not in done and run not in problems]
    submitted: set[str] = set()
    begun: set[str] = set()
    losses: Counter[str] = Counter()
    try:
        while waiting or submitted:
            if not may_start():
                waiting.clear()
                cluster.recall(submitted - begun)
                submitted &= begun
            room = cluster.room() - len(submitted)
            for run in ready_runs(waiting, configs, done, problems):
                if run in problems:
                    waiting.remove(run)
                    on_event(Event(run, "skipped", problem=problems[run]))
                elif room <= 0:
                    break
                else:
                    waiting.remove(run)
                    submitted.add(run)
                    cluster.submit(task_of(run, configs[run], store, copy.full_url if copy else None))
                    room -= 1
            for told in cluster.events(POLL_SECONDS):
                if told.run not in submitted:  # progress that comes after the end
                    continue
                event = told
                if isinstance(event, Lost) and losses[event.run] < RETRIES:
                    losses[event.run] += 1
                    begun.discard(event.run)
                    submitted.remove(event.run)
                    waiting.insert(0, event.run)
                    text = f"{event.problem}; it goes on elsewhere (retry {losses[event.run]} of {RETRIES})"
                    on_event(Event(event.run, "note", problem=text))
                    continue
                if isinstance(event, Lost):
                    text = f"{event.problem}, {RETRIES + 1} times; the same command goes on from there"
                    event = Event(event.run, "failed", problem=text)
                elif event.kind == "finished":
                    event = _confirmed(event, store, copy)
                begun.add(event.run)
                if event.kind in ("finished", "failed"):
                    submitted.remove(event.run)
                if event.kind == "finished":
                    done.add(event.run)
                elif event.kind == "failed":
                    problems[event.run] = event.problem or "unknown"
                on_event(event)
    except KeyboardInterrupt:
        for run in sorted(submitted & begun):
            on_event(Event(run, "stopping"))
        cluster.stop(submitted)
        raise Interrupted from None
    finally:
        cluster.recall(submitted)
    return problems


def task_of(run: str, config: RunConfig, store: RunStore, url: str | None = None) -> Task:
    """What a node needs to know of a run."""
    # What `auto` becomes was decided here, and is part of the run's id: a node that cannot do it says so.
    resolved = config.resolve()
    return Task(
        run=run,
        config=pickle.dumps(resolved),
        plugins=plugins.loaded(),
        store=store.path.resolve(),
        parents=tuple(parent.run for parent in config.parents),
        steps=resolved.train.last_step,
        threads=max(1, resolved.train.threads),
        on_gpu=resolved.train.device.startswith("cuda"),
        tracker=os.environ.get(tracking.VARIABLE),
        url=url,
    )


def compute(task: Task, tell: Callable[[Event], None]) -> Event | None:
    """Compute a run on a node: the event that ends it, or None where it was stopped, with its state saved."""
    os.environ.setdefault(prefetch.VARIABLE, "0")  # the node's other cores have tasks of their own
    if task.tracker is not None:
        os.environ[tracking.VARIABLE] = task.tracker
    if (problem := plugin_problem(task.plugins)) is not None:
        return failure(task.run, problem)
    try:
        if task.url is not None:
            return _compute_apart(task, RemoteCopy(task.url), tell)
        store = RunStore(task.store)
        for parent in task.parents:
            is_seen(store, parent)  # of one that is not, the run itself complains
        config: RunConfig = pickle.loads(task.config)
        return perform(task.run, config, task.store, tell, pause_seconds=REPORT_SECONDS)
    except KeyboardInterrupt:
        return None
    except Exception as error:
        return failure(task.run, error)


def _compute_apart(task: Task, copy: RemoteCopy, tell: Callable[[Event], None]) -> Event:
    """Compute a run in a folder of this node alone: its ancestors come from the URL, and it goes there."""
    if copy.has(task.run):
        return Event(task.run, "finished")
    store = RunStore(node_folder(copy.url))
    ancestors = list(task.parents)
    for run in ancestors:
        with suppress(FileNotFoundError):  # of a parent that is missing, the run itself complains
            try:
                copy.fetch(run, store, timeout_seconds=None)
            except DamagedCopy:
                copy.discard(run)  # who has it sends it again
                raise
            ancestors += {parent["run"] for parent in parents_of(store.open(run, verify=False))} - {*ancestors}
    config: RunConfig = pickle.loads(task.config)
    outcome = perform(task.run, config, store.path, tell, pause_seconds=REPORT_SECONDS)
    if outcome.kind == "finished":
        copy.send(store.open(task.run))
        store.delete(task.run)  # a node's cache is small; a child fetches it again
    return outcome


def node_folder(url: str) -> Path:
    """Where a node keeps the parents of runs that come from a URL, and computes its own."""
    return cache_folder() / "mirrors" / hashlib.sha256(url.encode()).hexdigest()[:16]


def is_seen(store: RunStore, run: str, *, whole: bool = False) -> bool:
    """Whether a run is finished in the store as this machine sees it, soon at least. Raises `DamagedRun`."""
    limit = time.monotonic() + SEEN_SECONDS
    while not (finished := store.is_finished(run, whole=whole)) and time.monotonic() < limit:
        time.sleep(POLL_SECONDS)
    return finished


def _confirmed(event: Event, store: RunStore, copy: RemoteCopy | None) -> Event:
    """The event, if the run has indeed come to the store."""
    try:
        if copy is not None:
            copy.fetch(event.run, store)
        if is_seen(store, event.run, whole=True):
            return event
    except (DamagedRun, DamagedCopy, OSError) as problem:
        return failure(event.run, problem)
    where = f"a node has finished it, but not in {store.path.resolve()} as it is seen here"
    return Event(event.run, "failed", problem=f"{where}: give a folder that all nodes share (--out, --store)")


def needed(package: str, extra: str) -> Any:
    """The package of an engine. Raises `ValueError` where it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError:
        raise ValueError(
            f"--engine {extra} needs the package {package}: pip install 'procpre-interp[{extra}]'"
        ) from None

"""Many runs at once: single-thread worker processes that live through the sweep, parents before children."""

import multiprocessing
import multiprocessing.connection
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from procpre_interp.pipeline import RunConfig, execute
from procpre_interp.runs import RunStore
from procpre_interp.train import Interrupted, TrainConfig, TrainState

PROGRESS_SECONDS = 0.25
"""Seconds between two progress messages of a worker."""
ORPHAN_SECONDS = 15.0
"""Seconds that a worker has to save its state when the main process was killed."""


@dataclass(frozen=True, slots=True)
class Event:
    """What happened to a run of the sweep."""

    run: str
    kind: Literal["started", "progress", "finished", "failed", "skipped"]
    step: int = 0
    steps: int = 0
    """At most."""
    loss_nats: float | None = None
    """Training loss since the last evaluation."""
    accuracy: float | None = None
    """Validation token accuracy at the last evaluation, share."""
    seconds: float = 0.0
    problem: str | None = None
    """Why it failed, or was skipped."""


def progress_event(run: str, state: TrainState, train: TrainConfig) -> Event:
    """The event that a training state makes."""
    accuracy = next((row["accuracy"] for row in reversed(state.history) if "accuracy" in row), None)
    return Event(run, "progress", state.step, train.steps, state.mean_train_loss, accuracy, state.seconds)


def execute_all(
    configs: Mapping[str, RunConfig],
    store: RunStore,
    *,
    workers: int,
    on_event: Callable[[Event], None] = lambda event: None,
) -> dict[str, str]:
    """Execute runs, given by id, and return the problems of those that failed, by id; finished ones are not repeated.

    A run starts when those of its parents that are in the sweep have finished, in the order given. A failed run fails
    its descendants and nothing else. Raises `Interrupted` after Ctrl-C, once every worker has saved its state.
    """
    context = multiprocessing.get_context("spawn")
    stop, events = context.Event(), context.Queue()
    problems: dict[str, str] = {}
    done = {run for run in configs if store.is_finished(run)}
    for run in done:
        on_event(Event(run, "finished"))
    waiting = [run for run in configs if run not in done]
    if not waiting:
        return problems
    running: dict[Future[None], str] = {}
    pool = ProcessPoolExecutor(
        max_workers=min(workers, len(waiting)),
        mp_context=context,
        initializer=_start_worker,
        initargs=(stop, events),
    )
    try:
        while waiting or running:
            for run in _ready(waiting, configs, done, problems):
                if run in problems:
                    waiting.remove(run)
                    on_event(Event(run, "skipped", problem=problems[run]))
                elif len(running) < workers:
                    waiting.remove(run)
                    running[pool.submit(_work, run, configs[run], store.path)] = run
            finished, _ = wait(running, timeout=PROGRESS_SECONDS, return_when=FIRST_COMPLETED)
            _drain(events, on_event)
            for future in finished:
                run = running.pop(future)
                if (problem := _problem(future)) is None:
                    done.add(run)
                    on_event(Event(run, "finished"))
                else:
                    problems[run] = problem
                    on_event(Event(run, "failed", problem=problem))
    except KeyboardInterrupt:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
        raise Interrupted from None
    except BrokenProcessPool:
        raise OSError("a worker process was killed (out of memory?); the same command goes on from there") from None
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
        _drain(events, on_event)
        events.close()
    return problems


def _ready(waiting: list[str], configs: Mapping[str, RunConfig], done: set[str], problems: dict[str, str]) -> list[str]:
    """The waiting runs that can start, or that never can, whose problem is then entered."""
    ready = []
    for run in waiting:
        parents = [parent.run for parent in configs[run].parents if parent.run in configs]
        if failed := [parent for parent in parents if parent in problems]:
            problems[run] = f"its parent {failed[0]} failed"
        if failed or all(parent in done for parent in parents):
            ready.append(run)
    return ready


def _problem(future: Future[None]) -> str | None:
    error = future.exception()
    if error is None:
        return None
    if isinstance(error, BrokenProcessPool):
        raise error
    if isinstance(error, KeyboardInterrupt):
        raise KeyboardInterrupt
    return f"{type(error).__name__}: {error}" if not isinstance(error, (ValueError, OSError)) else str(error)


def _drain(events: Any, on_event: Callable[[Event], None]) -> None:
    while True:
        try:
            on_event(events.get_nowait())
        except queue.Empty:
            return


class _Worker:
    """What a worker process was given at its start; processes share nothing else."""

    stop: Any = None
    events: Any = None


def _start_worker(stop: Any, events: Any) -> None:
    # Ctrl-C reaches the whole process group; only the main process acts on it, and asks the workers to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _Worker.stop, _Worker.events = stop, events
    threading.Thread(target=_follow_parent, args=(stop,), daemon=True).start()


def _follow_parent(stop: Any) -> None:
    """End this process when the main one was killed, after some time to save what it is at."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    if not stop.is_set():
        stop.set()
    time.sleep(ORPHAN_SECONDS)
    os._exit(1)


def _work(run: str, config: RunConfig, store_path: Path) -> None:
    """Execute one run in this worker and report on it."""
    last = 0.0

    def report(state: TrainState, train: TrainConfig) -> None:
        nonlocal last
        if time.monotonic() - last > PROGRESS_SECONDS or state.step == 1:
            _Worker.events.put(progress_event(run, state, train))
            last = time.monotonic()

    def waiting(seconds: float) -> None:
        if _Worker.stop.is_set():
            raise Interrupted

    _Worker.events.put(Event(run, "started", steps=config.train.steps))
    execute(config, RunStore(store_path), on_step=report, should_stop=_Worker.stop.is_set, waiting=waiting)

"""Many runs at once: single-thread worker processes that live through the sweep, parents before children."""

import multiprocessing
import multiprocessing.connection
import signal
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from procpre_interp.core import plugins
from procpre_interp.core.children import safe_spawn
from procpre_interp.engine.events import Event, failure, finished_event, progress_event
from procpre_interp.engine.known_runs import known_runs, ready_runs
from procpre_interp.engine.start import start
from procpre_interp.pipeline.config import RunConfig
from procpre_interp.pipeline.execute import execute
from procpre_interp.store.store import RunStore
from procpre_interp.store.unfinished import saved_step
from procpre_interp.train import Interrupted, TrainConfig, TrainState
from procpre_interp.train.process import ignored_interrupts, run_threads

PROGRESS_SECONDS = 0.25
"""Seconds between two progress messages of a worker."""
SAVE_SECONDS = 60.0
"""Seconds that a worker has to save its state when it is asked to stop; then it is killed."""


def execute_all(
    configs: Mapping[str, RunConfig],
    store: RunStore,
    *,
    workers: int,
    on_event: Callable[[Event], None] = lambda event: None,
    may_start: Callable[[], bool] = lambda: True,
    whole: Collection[str] = (),
) -> dict[str, str]:
    """Execute runs, given by id, and return the problems of those that failed, by id; finished ones are not repeated.

    A run starts when those of its parents that are in the sweep have finished, in the order given; of those in `whole`
    the weights are needed, too (`known_runs`). Once `may_start()` is false no further run starts, and those under way
    are finished. A failed run fails its descendants and nothing else, and so does one whose worker was killed. Raises
    `Interrupted` after Ctrl-C, once every worker has saved its state.
    """
    done, problems = known_runs(configs, store, on_event, whole)
    waiting = [run for run in configs if run not in done and run not in problems]
    team: list[_Worker] = []
    try:
        while waiting or any(worker.run for worker in team):
            if not may_start():
                waiting.clear()
            for run in ready_runs(waiting, configs, done, problems):
                if run in problems:
                    waiting.remove(run)
                    on_event(Event(run, "skipped", problem=problems[run]))
                elif (worker := _idle(team, workers, store.path)) is None:
                    break
                else:
                    waiting.remove(run)
                    worker.start(run, configs[run])
            for event in _events(team):
                on_event(event)
                if event.kind == "finished":
                    done.add(event.run)
                elif event.kind == "failed":
                    problems[event.run] = event.problem or "unknown"
    except KeyboardInterrupt:
        for worker in team:
            if worker.run is not None:
                on_event(Event(worker.run, "stopping"))
        raise Interrupted from None
    finally:
        for worker in team:
            worker.ask_to_stop()
        for worker in team:
            worker.join()
    return problems


def _idle(team: list["_Worker"], workers: int, store_path: Path) -> "_Worker | None":
    """A worker without work, engaged now if the team is not complete."""
    for worker in team:
        if worker.run is None:
            return worker
    if len(team) >= workers:
        return None
    team.append(_Worker(store_path, workers))
    return team[-1]


def _events(team: list["_Worker"]) -> Iterator[Event]:
    """What the workers report within `PROGRESS_SECONDS`; a dead one leaves the team, and its run has failed."""
    for ready in multiprocessing.connection.wait([worker.connection for worker in team], PROGRESS_SECONDS):
        worker = next(worker for worker in team if worker.connection is ready)
        try:
            event = worker.connection.recv()
        except (EOFError, OSError):
            team.remove(worker)
            worker.join()
            if worker.run is not None:
                yield Event(worker.run, "failed", problem=_why_gone(worker))
            continue
        worker.has_spoken = True
        if event.kind in ("finished", "failed"):
            worker.run = None
        yield event


def _why_gone(worker: "_Worker") -> str:
    """Why a worker's process has ended that nobody asked to."""
    code = worker.process.exitcode
    if code is not None and code < 0:
        return f"its worker process was killed (signal {-code}; out of memory?); the same command goes on from there"
    if not worker.has_spoken:
        # Python gives each worker the main script to import, and a worker that then starts workers of its own dies.
        return (
            f"its worker process could not start (exit code {code}). Guard the script that starts the runs with "
            '`if __name__ == "__main__":` and run it from a file'
        )
    return f"its worker process ended with exit code {code}; the same command goes on from there"


class _Worker:
    """A process, and this side of the pipe to it: configs go there, events come back, "stop" ends it."""

    def __init__(self, store_path: Path, workers: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.run: str | None = None
        self.has_spoken = False
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=start, args=(theirs, store_path, plugins.loaded(), workers), daemon=True)
        # The terminal sends Ctrl-C to all processes: the main one asks the others to stop.
        with ignored_interrupts(), safe_spawn():
            self.process.start()
        theirs.close()  # so that the pipe ends when the process does

    def start(self, run: str, config: RunConfig) -> None:
        self.run = run
        with suppress(OSError):  # it has died since its last run, as the pipe's end tells
            self.connection.send(run)
            self.connection.send(config)

    def ask_to_stop(self) -> None:
        with suppress(OSError):  # it is gone
            self.connection.send("stop")

    def join(self) -> None:
        """Wait until the process has ended, reading what it still writes, so that it does not wait for us."""
        limit = time.monotonic() + SAVE_SECONDS
        try:
            while self.connection.poll(max(0.0, limit - time.monotonic())):
                self.connection.recv()
            self.process.kill()
        except (EOFError, OSError):
            pass
        self.process.join()
        self.connection.close()


def work(connection: Connection, store_path: Path, needed: tuple[plugins.Plugin, ...]) -> None:
    """A worker's life: runs come through the pipe until it says "stop", or ends because the main process is gone.

    `needed` are the plugins of the main process: without them a config in the pipe could not be read.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where the main process could not have it inherited

    def tell(event: Event) -> None:
        with suppress(OSError):  # the main process is gone; the pipe's end tells
            connection.send(event)

    while True:
        try:
            if (run := connection.recv()) == "stop":
                return
            problem = plugin_problem(needed)
            config: Any = connection.recv() if problem is None else connection.recv_bytes()
        except EOFError:
            return
        if problem is not None:
            outcome = failure(run, problem)
        else:
            try:
                outcome = perform(run, config, store_path, tell, asked_to_stop=connection.poll)
            except Interrupted:
                return
        tell(outcome)


def plugin_problem(needed: tuple[plugins.Plugin, ...]) -> Exception | None:
    """Load the plugins, and say what is wrong with one."""
    try:
        for plugin in needed:
            plugins.load_plugin(plugin.source, expected=plugin)
    except (ValueError, OSError) as problem:
        return problem
    return None


def perform(
    run: str,
    config: RunConfig,
    store_path: Path,
    tell: Callable[[Event], None],
    *,
    asked_to_stop: Callable[[], bool] = lambda: False,
    pause_seconds: float = PROGRESS_SECONDS,
) -> Event:
    """Execute one run here, telling its progress at most once per `pause_seconds`; the event that ends it.

    Raises `Interrupted` once `asked_to_stop()` is true, with the state saved.
    """
    last = 0.0

    def report(state: TrainState, train: TrainConfig) -> None:
        nonlocal last
        if time.monotonic() - last > pause_seconds or state.step == 1 or state.status is not None:
            tell(progress_event(run, state, train))
            last = time.monotonic()

    def waiting(seconds: float) -> None:
        if asked_to_stop():
            raise Interrupted

    def note(text: str) -> None:
        tell(Event(run, "note", problem=text))

    saved = saved_step(store_path / "partial" / run) or 0
    tell(Event(run, "started", saved, config.train.last_step))
    try:
        # Data and tests too: threads of several workers on the same cores mostly wait for one another.
        with run_threads(1):
            store = RunStore(store_path)
            return finished_event(
                execute(
                    config, store, whole=True, on_step=report, should_stop=asked_to_stop, waiting=waiting, on_note=note
                )
            )
    except Exception as error:
        return failure(run, error)

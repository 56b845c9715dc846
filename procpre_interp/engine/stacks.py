"""Many runs in one process, those of one shape as one computation: what a GPU needs to be busy with tiny models."""

import time
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence

from procpre_interp.engine.events import Event, failure, finished_event, progress_event
from procpre_interp.engine.known_runs import known_runs, ready_runs
from procpre_interp.engine.processes import PROGRESS_SECONDS
from procpre_interp.pipeline.config import RunConfig, model_config
from procpre_interp.pipeline.stacked import Listener, execute_alone, execute_stacked
from procpre_interp.store.store import RunStore
from procpre_interp.store.unfinished import saved_step
from procpre_interp.train import Interrupted, TrainConfig, TrainState
from procpre_interp.train.stacked import stacking_key

STACK = 64
"""Runs of a stack at most, by default."""


def execute_in_stacks(
    configs: Mapping[str, RunConfig],
    store: RunStore,
    *,
    stack: int = STACK,
    on_event: Callable[[Event], None] = lambda event: None,
    may_start: Callable[[], bool] = lambda: True,
    whole: Collection[str] = (),
) -> dict[str, str]:
    """Execute runs as `execute_all` does, but here, and up to `stack` runs of kernel stacked and one shape at once.

    Runs with children go first, since more of those can then share a stack; runs of other kernels are executed one
    after the other. Returns the problems of those that failed, by id. Raises `Interrupted` after Ctrl-C, with all
    states saved.
    """
    done, problems = known_runs(configs, store, on_event, whole)
    waiting = [run for run in configs if run not in done and run not in problems]
    keys = {run: _key(run, configs[run]) for run in waiting}

    def tell(event: Event) -> None:
        if event.kind == "finished":
            done.add(event.run)
        elif event.kind == "failed":
            problems[event.run] = event.problem or "unknown"
        on_event(event)

    while waiting and may_start():
        ready = []
        for run in ready_runs(waiting, configs, done, problems):
            if run in problems:
                waiting.remove(run)
                on_event(Event(run, "skipped", problem=problems[run]))
            else:
                ready.append(run)
        if not ready:
            continue
        group = _group(ready, configs, waiting, keys, stack)
        waiting = [run for run in waiting if run not in group]
        _execute({run: configs[run] for run in group}, store, tell)
    return problems


def _key(run: str, config: RunConfig) -> Hashable:
    """Runs with one key can share a stack; that of a run of another kernel is its own."""
    resolved = config.resolve()
    if resolved.train.kernel != "stacked":
        return run
    return stacking_key(model_config(resolved), resolved.task, resolved.train)


def _group(
    ready: Sequence[str],
    configs: Mapping[str, RunConfig],
    waiting: Sequence[str],
    keys: Mapping[str, Hashable],
    stack: int,
) -> list[str]:
    """The next runs: of the shape of the first one that others wait for, or of the first one."""
    parents = {parent.run for run in waiting for parent in configs[run].parents}
    ordered = sorted(ready, key=lambda run: run not in parents)
    return [run for run in ordered if keys[run] == keys[ordered[0]]][:stack]


def _execute(configs: Mapping[str, RunConfig], store: RunStore, tell: Callable[[Event], None]) -> None:
    """One stack, or one run of another kernel."""
    last = dict.fromkeys(configs, 0.0)
    at_work = set(configs)

    def report(run: str, state: TrainState, train: TrainConfig) -> None:
        if time.monotonic() - last[run] > PROGRESS_SECONDS or state.step == 1 or state.status is not None:
            tell(progress_event(run, state, train))
            last[run] = time.monotonic()

    def finished(run: str) -> None:
        at_work.discard(run)
        tell(finished_event(store.open(run, verify=False)))

    def failed(run: str, error: Exception) -> None:
        at_work.discard(run)
        tell(failure(run, error))

    for run, config in configs.items():
        saved = saved_step(store.path / "partial" / run) or 0
        tell(Event(run, "started", saved, config.train.last_step))
    listener = Listener(
        on_step=report,
        on_note=lambda run, text: tell(Event(run, "note", problem=text)),
        on_finished=finished,
        on_failed=failed,
    )
    stacked = next(iter(configs.values())).train.kernel == "stacked"
    try:
        (execute_stacked if stacked else execute_alone)(configs, store, listener=listener)
    except KeyboardInterrupt:
        for run in sorted(at_work):
            tell(Event(run, "stopping"))
        raise Interrupted from None
    except Exception as error:  # of the whole computation: the device's memory, say
        for run in sorted(at_work):
            failed(run, error)

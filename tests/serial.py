"""The engine without its processes: to start one takes longer than the few steps of the runs that it is started for."""

from collections.abc import Callable, Collection, Mapping

from procpre_interp.engine.events import Event
from procpre_interp.engine.known_runs import light_parents
from procpre_interp.pipeline.config import RunConfig
from procpre_interp.pipeline.execute import execute
from procpre_interp.store.store import RunStore


def execute_here(
    configs: Mapping[str, RunConfig],
    store: RunStore,
    *,
    workers: int,
    on_event: Callable[[Event], None] = lambda event: None,
    may_start: Callable[[], bool] = lambda: True,
    whole: Collection[str] = (),
) -> dict[str, str]:
    """`execute_all`, one run after the other, for runs that come after their parents."""
    problems: dict[str, str] = {}
    again = light_parents(configs, store, whole)
    for run, config in configs.items():
        if may_start():
            on_event(Event(run, "started", 0, config.train.last_step))
            try:
                execute(config, store, whole=run in again)
                on_event(Event(run, "finished"))
            except ValueError as problem:
                problems[run] = str(problem)
                on_event(Event(run, "failed", problem=problems[run]))
    return problems

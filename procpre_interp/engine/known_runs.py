"""Which runs of a plan are there already, which can start, and which never can."""

import functools
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress

from procpre_interp.engine.events import Event
from procpre_interp.pipeline.config import RunConfig
from procpre_interp.store.run import OPTIMISER, Run, UnknownRun
from procpre_interp.store.store import DamagedRun, RunStore


def known_runs(
    configs: Mapping[str, RunConfig],
    store: RunStore,
    on_event: Callable[[Event], None],
    whole: Collection[str] = (),
) -> tuple[set[str], dict[str, str]]:
    """The runs that are finished, and the problems of those that are there but damaged, which is told.

    A light copy counts as finished, unless its weights are needed (`light_parents`).
    """
    done, problems = set(), {}
    again = set(light_parents(configs, store, whole))
    for run in configs:
        try:
            if run in again:
                on_event(Event(run, "note", problem="here without its weights, which are needed; computed again"))
            elif store.is_finished(run):
                done.add(run)
                on_event(Event(run, "finished"))
        except DamagedRun as damage:
            problems[run] = str(damage)
            on_event(Event(run, "failed", problem=problems[run]))
    return done, problems


def light_parents(configs: Mapping[str, RunConfig], store: RunStore, whole: Collection[str] = ()) -> list[str]:
    """The runs of which there is only a copy without weights (`store.archive`), though a run that is not finished takes
    weights from them, or they are in `whole`; and the ancestors that these in turn take weights from.

    `configs` have parents before their children. A run that diverged has no weights to take, and is left as it is.
    """
    there = {run for run in configs if _is_there(run, store)}

    @functools.cache
    def light(run: str) -> Run | None:
        """The copy of a parent, once for all of its children; None where there is no copy that could be needed."""
        with suppress(UnknownRun, DamagedRun):
            found = store.open(run, verify=False) if run in there else None
            return found if found and found.is_light and found.summary["status"] == "finished" else None
        return None

    def lacks(run: str, step: int | None = None, *, optimiser: bool = False) -> bool:
        copy = light(run)
        return copy is not None and (copy.lacks_weights(step) or (optimiser and OPTIMISER not in copy.manifest))

    needed = {run for run in whole if lacks(run)}
    for run, config in reversed(list(configs.items())):
        if run in needed or run not in there:
            carries = config.optimiser == "carried"
            needed |= {each.run for each in config.parents if lacks(each.run, each.step, optimiser=carries)}
    return [run for run in configs if run in needed]


def _is_there(run: str, store: RunStore) -> bool:
    with suppress(DamagedRun):
        return store.is_finished(run)
    return True  # and its damage is told where it is met


def ready_runs(
    waiting: list[str], configs: Mapping[str, RunConfig], done: set[str], problems: dict[str, str]
) -> Iterator[str]:
    """The waiting runs that can start, or that never can, whose problem is then entered; one at a time, since of many
    thousands only the first few are wanted. What is `waiting` may change meanwhile."""
    for run in list(waiting):
        parents = [parent.run for parent in configs[run].parents if parent.run in configs]
        if failed := [parent for parent in parents if parent in problems]:
            problems[run] = f"its parent {failed[0]} failed"
        if failed or all(parent in done for parent in parents):
            yield run

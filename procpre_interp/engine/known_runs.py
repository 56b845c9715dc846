"""Which runs of a plan are there already, which can start, and which never can."""

from collections.abc import Callable, Mapping
from contextlib import suppress

from procpre_interp.engine.events import Event
from procpre_interp.pipeline.config import Parent, RunConfig
from procpre_interp.store.run import OPTIMISER, UnknownRun
from procpre_interp.store.store import DamagedRun, RunStore


def known_runs(
    configs: Mapping[str, RunConfig], store: RunStore, on_event: Callable[[Event], None]
) -> tuple[set[str], dict[str, str]]:
    """The runs that are finished, and the problems of those that are there but damaged, which is told.

    A light copy (`store.archive`) whose weights are needed is removed, and so is to be computed again.
    """
    for run in light_parents(configs, store):
        on_event(Event(run, "note", problem=f"run {run} is here without its weights, so it is computed again"))
        store.delete(run)
    done, problems = set(), {}
    for run in configs:
        try:
            if store.is_finished(run):
                done.add(run)
                on_event(Event(run, "finished"))
        except DamagedRun as damage:
            problems[run] = str(damage)
            on_event(Event(run, "failed", problem=problems[run]))
    return done, problems


def light_parents(configs: Mapping[str, RunConfig], store: RunStore) -> list[str]:
    """Those of the runs, given parents before children, that are copies without the weights that a run needs which is
    still to be computed. Where one of them is computed again, so is whatever its own weights come from."""
    needed: set[str] = set()
    for run, config in reversed(list(configs.items())):
        if run in needed or not _is_there(run, store):
            carries = config.optimiser == "carried"
            own = (parent for parent in config.parents if parent.run in configs)
            needed |= {parent.run for parent in own if _lacks_weights(parent, store, carries=carries)}
    return [run for run in configs if run in needed]


def _is_there(run: str, store: RunStore) -> bool:
    with suppress(DamagedRun):
        return store.is_finished(run)
    return True  # and its damage is told where it is met


def _lacks_weights(parent: Parent, store: RunStore, *, carries: bool) -> bool:
    """Whether a parent is a copy without the weights that are taken from it, or without the optimiser's state."""
    try:
        if not store.is_finished(parent.run):  # which is told sooner than by a failure to open it
            return False
        run = store.open(parent.run, verify=False)
    except (UnknownRun, DamagedRun):
        return False
    step = run.summary.get("steps") if parent.step is None else parent.step
    return run.is_light and (step not in run.steps or (carries and OPTIMISER not in run.manifest))


def ready_runs(
    waiting: list[str], configs: Mapping[str, RunConfig], done: set[str], problems: dict[str, str]
) -> list[str]:
    """The waiting runs that can start, or that never can, whose problem is then entered."""
    ready = []
    for run in waiting:
        parents = [parent.run for parent in configs[run].parents if parent.run in configs]
        if failed := [parent for parent in parents if parent in problems]:
            problems[run] = f"its parent {failed[0]} failed"
        if failed or all(parent in done for parent in parents):
            ready.append(run)
    return ready

"""The phases that led to a run, read from stored configs alone: no task is built, whose plugin may not be loaded."""

from collections.abc import Sequence
from dataclasses import dataclass

from procpre_interp.core.schema import ParentFields
from procpre_interp.store.run import parents_of
from procpre_interp.store.store import DamagedRun, Run, RunStore, UnknownRun


@dataclass(frozen=True, slots=True)
class Link:
    """A phase in the making of a run."""

    source: Run
    phase: int
    """Its number in the order in which they were trained, from 1."""
    last: int | None
    """The step that the next phase began with; None for its last one."""


def parent_before(run: Run) -> ParentFields:
    """The parent that the phase before a run's own was trained in: the first, or, where the run goes on with that one's
    training after an inserted phase, the second."""
    parents = parents_of(run)
    return parents[1 if run.first_step and len(parents) > 1 else 0]


def phase_before(run: Run, store: RunStore) -> Run:
    """The run of the phase before a run's own. Raises `ValueError` where it is missing or damaged."""
    return store.open(parent_before(run)["run"], verify=False)


def chain_of(run: Run, store: RunStore, *, whole: bool = True) -> list[Link]:
    """The phases that led to a run, the first one first, and the run itself.

    Raises `ValueError` for a parent that is missing or damaged, or, unless `whole`, begins after it; and for parents
    that lead back to a run, as no store has them that was not tampered with.
    """
    found: list[tuple[Run, int | None]] = [(run, None)]
    missing = 0
    while parents_of(oldest := found[0][0]):
        given = parent_before(oldest)
        if given["run"] in {each.id for each, _ in found}:
            raise DamagedRun(oldest.folder, f"its parents lead back to run {given['run']}")
        try:
            found.insert(0, (store.open(given["run"], verify=False), given.get("step")))
        except (UnknownRun, DamagedRun):
            if whole:
                raise
            missing = 1
            break
    return [Link(source, phase, last) for phase, (source, last) in enumerate(found, 1 + missing)]


def ancestry(runs: Sequence[Run], store: RunStore) -> tuple[list[Run], list[str]]:
    """The runs and all their ancestors, each once; then a line for each that is missing or damaged."""
    found, problems = {run.id: run for run in runs}, []
    waiting = list(runs)
    while waiting:
        for entry in parents_of(waiting.pop(0)):
            if entry["run"] not in found:
                try:
                    parent = store.open(entry["run"], verify=False)
                except (UnknownRun, DamagedRun) as problem:
                    problems.append(str(problem))
                else:
                    found[parent.id] = parent
                    waiting.append(parent)
    return list(found.values()), list(dict.fromkeys(problems))

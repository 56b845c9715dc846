"""Models of stored runs for the pages that look into them; the only module of the app, but those pages, with torch."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import streamlit as st

from procpre_interp.core import plugins
from procpre_interp.data import Task
from procpre_interp.model import HookedTransformer
from procpre_interp.pipeline.execute import load_model, load_task
from procpre_interp.pipeline.lineage import STAGES, StageName, check_stage, stages
from procpre_interp.store.store import Run, RunStore
from procpre_interp.train.process import run_threads
from procpre_interp.views.exhibits.attention import Moment, moments

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Subject:
    """A model, its task, and what tells it from every other one: store, run, and step or stage."""

    key: tuple[str, ...]
    name: str
    """What people read: "run 1234abcd after 595 steps"."""
    model: HookedTransformer
    find_task: Callable[[], Task]
    """Text comes from the cache: a config could name any folder. Raises `MissingPlugin`, which stops nothing else."""

    @property
    def task(self) -> Task:
        return self.find_task()


def moment(chosen: Moment, store: RunStore) -> Subject:
    """The model of a run at a moment of its making."""
    return subject_at(chosen.run, store, "transplanted") if chosen.step is None else subject(chosen.run, chosen.step)


def choose_moment(run: Run, store: RunStore, key: str = "at", *, start: Literal["first", "last"] = "last") -> Subject:
    """The model at a kept step of either phase, by a slider whose label is part of the URL. At first the last one, or
    the first of the run's own steps."""
    found = {each.label: each for each in moments(run, store)}
    if len(found) == 1:
        (label,) = found
        st.caption(f"Kept: {label}.")
        return moment(found[label], store)
    own = [label for label in found if found[label].run.id == run.id]
    wanted, usual = st.query_params.get(key), own[0 if start == "first" else -1]
    if st.session_state.get(key) not in found:  # another run's
        st.session_state[key] = wanted if wanted in found else usual
    label = st.select_slider("Moment, over both phases", list(found), key=key)
    st.query_params[key] = label
    return moment(found[label], store)


def subject(run: Run, step: int | None = None) -> Subject:
    """A finished run's model with the weights of a kept step, by default the last."""
    return _at_step(run.folder, str(run.summary.get("created")), run, step)


def subject_at(run: Run, store: RunStore, stage: StageName) -> Subject:
    """A run's model at a stage of its making. Raises `ValueError` where the run has no such stage."""
    return _at_stage(run.folder, str(run.summary.get("created")), stage, run, store)


@st.cache_resource(max_entries=64, show_spinner="Loading a model")
def _at_step(folder: Path, created: str, _run: Run, step: int | None) -> Subject:
    plugins.load_named()
    model, number = load_model(_run, step), _run.steps[-1] if step is None else step
    key = (str(folder), created, str(number))
    return Subject(key, f"run {_run.id[:8]} after {number:,} steps", model, lambda: load_task(_run).from_cache())


@st.cache_resource(max_entries=16, show_spinner="Loading a model")
def _at_stage(folder: Path, created: str, stage: StageName, _run: Run, _store: RunStore) -> Subject:
    plugins.load_named()
    found = stages(_run, _store)
    check_stage(_run, found, stage)
    key = (str(folder), created, stage)
    return Subject(
        key, f"run {_run.id[:8]} {STAGES[stage]}", found[stage].model, lambda: found[stage].task.from_cache()
    )


def measure_model(function: Callable[..., T], found: Subject, *arguments: Any, **options: Any) -> T:
    """`function(model, *arguments, **options)`, computed once for the same subject and arguments."""
    return _once(function, found.key, arguments, options, lambda: function(found.model, *arguments, **options))


def compare(function: Callable[..., T], first: Subject, second: Subject, *arguments: Any, **options: Any) -> T:
    """`function(first model, second model, *arguments, **options)`, computed once for the same ones."""
    key = (*first.key, *second.key, *(repr(argument) for argument in arguments))  # a task is not hashed by streamlit
    return _once(function, key, (), options, lambda: function(first.model, second.model, *arguments, **options))


def measure(function: Callable[..., T], found: Subject, *arguments: Any, **options: Any) -> T:
    """`function(model, task, *arguments, **options)`, computed once for the same subject and arguments."""
    task = found.task
    return _once(function, found.key, arguments, options, lambda: function(found.model, task, *arguments, **options))


def _once(function: Callable[..., T], key: tuple[str, ...], arguments: Any, options: Any, work: Callable[[], T]) -> T:
    return _measure(f"{function.__module__}.{function.__qualname__}", key, arguments, options, work)


@st.cache_data(max_entries=512, show_spinner=False)
def _measure(name: str, key: tuple[str, ...], arguments: Any, options: Any, _work: Callable[[], T]) -> T:
    with run_threads(1):  # whose number changes last bits
        return _work()

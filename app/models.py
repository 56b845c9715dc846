"""Models of stored runs for the pages that look into them; the only module of the app, but those pages, with torch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import streamlit as st

from procpre_interp.core import plugins
from procpre_interp.data import Task
from procpre_interp.model import HookedTransformer
from procpre_interp.pipeline.lineage import Moment, moments
from procpre_interp.store.store import Run, RunStore
from procpre_interp.train.process import run_threads

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Shown:
    """A moment with its model in memory."""

    moment: Moment
    model: HookedTransformer

    @property
    def name(self) -> str:
        """What people read: "run 1234abcd after 595 steps"."""
        return self.moment.title

    @property
    def key(self) -> tuple[str, ...]:
        """What tells it from every other one."""
        return _key(self.moment)

    @property
    def task(self) -> Task:
        """Its task; text comes from the cache, since a config could name any folder. Raises `MissingPlugin`."""
        return self.moment.task.from_cache()


def choose_moment(run: Run, store: RunStore, key: str = "at", *, start: Literal["first", "last"] = "last") -> Shown:
    """The model at a kept step of any phase, by a slider whose label is part of the URL. At first the last one, or
    the first of the run's own steps."""
    found = {each.label: each for each in moments(run, store)}
    if len(found) == 1:
        (label,) = found
        st.caption(f"Kept: {label}.")
        return show(found[label], store)
    own = [label for label in found if found[label].source.id == run.id]
    wanted, usual = st.query_params.get(key), own[0 if start == "first" else -1]
    if st.session_state.get(key) not in found:  # another run's
        st.session_state[key] = wanted if wanted in found else usual
    label = st.select_slider("Moment, over all phases", list(found), key=key)
    st.query_params[key] = label
    return show(found[label], store)


def show(moment: Moment, store: RunStore) -> Shown:
    """A moment with its model. Raises `ValueError` for a parent that is missing or damaged."""
    return Shown(moment, _load(_key(moment), moment, store))


def _key(moment: Moment) -> tuple[str, ...]:
    """Store, run, and step or stage: a parent's weights are the same, whichever child they are looked at for."""
    at = moment.stage if moment.step is None else str(moment.step)
    return str(moment.source.folder), str(moment.source.summary.get("created")), at


@st.cache_resource(max_entries=64, show_spinner="Loading a model")
def _load(key: tuple[str, ...], _moment: Moment, _store: RunStore) -> HookedTransformer:
    plugins.load_named()
    return _moment.model(_store)


def measure_model(function: Callable[..., T], found: Shown, *arguments: Any, **options: Any) -> T:
    """`function(model, *arguments, **options)`, computed once for the same model and arguments."""
    return _once(function, found.key, arguments, options, lambda: function(found.model, *arguments, **options))


def compare(function: Callable[..., T], first: Shown, second: Shown, *arguments: Any, **options: Any) -> T:
    """`function(first model, second model, *arguments, **options)`, computed once for the same ones."""
    key = (*first.key, *second.key, *(repr(argument) for argument in arguments))  # a task is not hashed by streamlit
    return _once(function, key, (), options, lambda: function(first.model, second.model, *arguments, **options))


def measure(function: Callable[..., T], found: Shown, *arguments: Any, **options: Any) -> T:
    """`function(model, task, *arguments, **options)`, computed once for the same model and arguments."""
    task = found.task
    return _once(function, found.key, arguments, options, lambda: function(found.model, task, *arguments, **options))


def _once(function: Callable[..., T], key: tuple[str, ...], arguments: Any, options: Any, work: Callable[[], T]) -> T:
    return _measure(f"{function.__module__}.{function.__qualname__}", key, arguments, options, work)


@st.cache_data(max_entries=512, show_spinner=False)
def _measure(name: str, key: tuple[str, ...], arguments: Any, options: Any, _work: Callable[[], T]) -> T:
    with run_threads(1):  # whose number changes last bits
        return _work()

"""Results that are computed once for all sessions, and long computations one by one, with a way to stop them."""

from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any, TypeVar

import streamlit as st
from markup import escaped

from procpre_interp.store.store import Run, RunStore

T = TypeVar("T")

Item = TypeVar("Item")


def cached(function: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """`function(*arguments, **options)`, computed once for the same function and arguments, in all sessions.

    Runs count by their id and time, stores by their path: give what else the result depends on as an argument, and
    results that may be rewritten by `results`.
    """
    return _compute(function, arguments, options)


@st.cache_data(
    max_entries=512,
    show_spinner=False,
    hash_funcs={
        FunctionType: lambda function: f"{function.__module__}.{function.__qualname__}",
        Run: lambda run: (str(run.folder), run.summary.get("created")),
        RunStore: lambda store: str(store.path.resolve()),
    },
)
def _compute(function: Callable[..., T], arguments: tuple[Any, ...], options: dict[str, object]) -> T:
    return function(*arguments, **options)


def each(
    label: str,
    items: Sequence[Item],
    compute: Callable[[Item], T],
    *,
    key: str,
    name: Callable[[Item], str] = str,
) -> list[T]:
    """`compute(item)` of each item in turn, with a progress bar and a button that cancels: for what takes seconds.

    After a cancel the results so far come back, fewer than items, with a button to go on. `compute` must keep its
    results (`cached`, `models.measure`): they are asked for again at every rerun, and whichever widget is used ends the
    loop after the item at work. `key` names all that the results depend on (run, seed), as each key has its own cancel.
    `name` says which item is at work.
    """
    stopped, finished = f"{key}_stopped", f"{key}_finished"  # in the session; the buttons have keys of their own
    n, so_far = len(items), st.session_state.get(finished, 0)
    if st.session_state.get(stopped, False):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.warning(f"{label}: cancelled after {so_far:,} of {n:,}. What was computed is kept.")
            st.button("Continue", key=f"{key}_continue", on_click=st.session_state.update, args=({stopped: False},))
        return [compute(item) for item in items[:so_far]]
    place, found = st.empty(), []
    bar = None
    if so_far < n:  # what this session has seen finished comes from the cache, too fast for a bar
        with place.container():
            st.button("Cancel", key=f"{key}_cancel", on_click=st.session_state.update, args=({stopped: True},))
            bar = st.progress(0.0, label)
    for index, item in enumerate(items):
        if bar is not None:
            # Every call to streamlit is where a click on "Cancel" takes effect.
            bar.progress(index / n, escaped(f"{label}: {name(item)} ({index + 1:,} of {n:,})"))
        try:
            found.append(compute(item))
        except Exception:
            place.empty()
            raise
        st.session_state[finished] = max(len(found), st.session_state.get(finished, 0))
    place.empty()
    return found

"""Widgets whose choice is part of the URL."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import streamlit as st
from listings import list_models, list_runs, open_run
from markup import quoted
from stores import stop_when_empty

from procpre_interp.store.store import Run, RunStore


def choose(label: str, options: Sequence[str] | Mapping[str, str], key: str) -> str:
    """A select box whose choice is always part of the URL, as `?key=choice`. An unknown one there is named.

    Options may be a mapping from value to what people read: then the value stands in the URL, where the widgets' own
    `bind="query-params"` has the text.
    """
    wanted = st.query_params.get(key)
    names = dict(options) if isinstance(options, Mapping) else {option: option for option in options}
    values = list(names)
    forget(key, lambda value: value in values)
    if wanted is not None and wanted not in names:
        st.warning(f"There is no {label.lower()} {quoted(wanted)} here; this is {quoted(values[0])}.")
    index = values.index(wanted) if wanted in names else 0
    chosen = st.selectbox(label, values, index=index, format_func=lambda value: names[value], key=key)
    st.query_params[key] = chosen
    return chosen


def choose_many(
    label: str,
    options: Mapping[str, str],
    key: str,
    *,
    start: Sequence[str] | None = None,
    free: bool = False,
    at_most: int | None = None,
) -> list[str]:
    """Several of the options (value -> what to call it), part of the URL as `?key=a&key=b`; at first `start`, or all.

    With `free` anything else may be typed, or stand in the URL.
    """
    wanted = [value for value in st.query_params.get_all(key) if free or value in options][:at_most]
    values = list(options)
    forget(key, lambda value: isinstance(value, list) and (free or set(value) <= set(values)))
    first = wanted or (values if start is None else list(start))
    chosen = st.multiselect(
        label,
        [*values, *(value for value in wanted if value not in options)],
        default=None if key in st.session_state else first,
        format_func=lambda value: options.get(value, value),
        key=key,
        accept_new_options=free,
        max_selections=at_most,
        # What is typed is an id or its beginning: as letters in any place they would match runs that nobody means, and
        # Enter would take all of them.
        filter_mode="prefix" if free else "fuzzy",
        select_all=not free,
    )
    st.query_params[key] = chosen
    return chosen


def forget(key: str, fits: Callable[[Any], bool]) -> None:
    """Drop a widget's value that does not fit: another page, or other options, had a widget of this key."""
    if key in st.session_state and not fits(st.session_state[key]):
        del st.session_state[key]


def is_another(key: str, value: str) -> bool:
    """Whether the value that other widgets depend on has changed since the page was last drawn, as kept at `key`."""
    before = st.session_state.setdefault(key, value)
    st.session_state[key] = value
    return before != value


def tabs(titles: Mapping[str, str], key: str = "tab") -> tuple[str, Any]:
    """Tabs (name -> title) of which only the open one is computed; part of the URL. Returns its name and place."""
    places = st.tabs(list(titles.values()), key=key, bind="query-params")
    for name, place in zip(titles, places):
        if place.open:
            return name, place
    return next(iter(titles)), places[0]


def choose_run(store: RunStore, label: str = "Run", key: str = "run", *, beside: Run | None = None) -> Run:
    """A run that keeps weights, part of the URL as its id or the beginning of one.

    At first one that was pretrained and keeps several steps, or, `beside` another run, one of the same task.
    """
    names = list_models(store.path)
    stop_when_empty(names, "runs with kept weights", "procpre-interp train --task haystack --train.checkpoints 12")
    wanted = st.query_params.get(key, "")
    if wanted and wanted not in names and len(found := [name for name in names if name.startswith(wanted)]) == 1:
        st.query_params[key] = found[0]
    if not wanted and beside is not None:
        tasks = dict(list_runs(store.path)[["run", "task"]].itertuples(index=False, name=None))
        alike = [run for run in names if run != beside.id and tasks.get(run) == beside.summary.get("task")]
        st.query_params[key] = (alike or list(names))[0]
    return open_run(store, choose(label, names, key))


def choose_number(label: str, low: int, high: int, key: str, *, start: int | None = None) -> int:
    """A whole number from low to high, part of the URL; an impossible one there becomes the nearest."""
    wanted = st.query_params.get(key, "")
    try:
        value = min(max(int(wanted[:12]), low), high)
    except ValueError:
        value = low if start is None else start
    forget(key, lambda value: isinstance(value, int))
    if key in st.session_state:
        st.session_state[key] = min(max(int(st.session_state[key]), low), high)
        chosen = st.number_input(label, low, high, key=key, step=1)
    else:
        chosen = st.number_input(label, low, high, value, key=key, step=1)
    st.query_params[key] = str(chosen)
    return int(chosen)

"""What the pages share: the store or the demo, cached results, selections in the URL, and how figures show."""

import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence, Sized
from pathlib import Path
from types import FunctionType
from typing import Any, TypeVar

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from procpre_interp.claims.files import Unreadable
from procpre_interp.claims.judged import StoredClaim
from procpre_interp.store.store import Run, RunStore
from procpre_interp.views.exhibits import Answer, Exhibit
from procpre_interp.views.exhibits.claims import load_claims
from procpre_interp.views.exhibits.results import Kind, Results, catalogue, load_results
from procpre_interp.views.exhibits.runs import conditions, with_weights

T = TypeVar("T")
Item = TypeVar("Item")

DEMO = Path(__file__).resolve().parent / "demo"
"""The small result that comes with the package."""

FILL = "procpre-interp reproduce --out {store} --quick"
"""The command that fills an empty store."""

LIST_SECONDS = 10
"""How long a list of runs or tables is kept before the folder is read again."""

SHARES = {
    name: st.column_config.NumberColumn(f"{name.replace('_', ' ')}, %", format="percent")
    for name in ("accuracy", "exact_match", "phase1_accuracy")
}
"""How columns of shares show, so that they have the unit of the figures."""

TO_IMAGE = {"format": "png", "scale": 2}


def own_store() -> RunStore:
    """The folder that this explorer was started on: `-- --store PATH` on the command line, else PROCPRE_STORE, else
    `runs`. Raises `ValueError` when the path is no folder."""
    arguments = sys.argv[1:]
    given = arguments[arguments.index("--store") + 1] if "--store" in arguments[:-1] else None
    return RunStore(given or os.environ.get("PROCPRE_STORE", "runs"))


def choose_store() -> None:
    """The switch between the own store and the demo, at the top of every page and part of the URL as `?demo=`; none
    while the own store holds nothing, so that there is the demo alone.

    At first the own store, unless `-- --demo` stands on the command line, or PROCPRE_DEMO in the environment.
    """
    if is_empty(own_store()):
        return
    first = "--demo" in sys.argv[1:] or os.environ.get("PROCPRE_DEMO", "") not in ("", "0")
    help = "Real runs of five replicates that come with the package, in place of your own store"
    st.toggle("Show the demo", first, key="demo", bind="query-params", help=help)


def open_page(title: str, about: str = "") -> RunStore:
    """The page's title and the store that it shows: the demo, marked as one, where it was chosen or the own store holds
    nothing."""
    st.title(title)
    if about:
        st.markdown(about)
    store = own_store()
    empty = is_empty(store)
    if not empty and not st.session_state.get("demo", False):
        return store
    own = quoted(str(store.path.resolve()), 300)
    if not empty:
        st.info(
            f"**Demo**, a small result that comes with the package: real runs, five replicates. The switch above goes "
            f"back to {own}.",
            icon=":material/science:",
        )
        return RunStore(DEMO)
    st.info(
        f"**Demo.** {own} holds no runs yet, so this is a small result that comes with the package: real runs, five "
        "replicates. This fills the folder with your own, in a few minutes:",
        icon=":material/science:",
    )
    st.code(FILL.format(store=shlex.quote(str(store.path))), language="bash", wrap_lines=True)
    return RunStore(DEMO)


def show_answer(answer: Answer) -> None:
    """What the page says first: green where the data decide it, blue where they do not."""
    if answer.decided:
        st.success(worded(answer.text), icon=":material/lightbulb:")
    else:
        st.info(worded(answer.text), icon=":material/help:")


def is_empty(store: RunStore) -> bool:
    """Whether the store holds neither runs, finished or not, nor tables."""
    return not any(any(path.glob("[!.]*")) for path in (store.path / name for name in ("runs", "partial", "tables")))


def stop_when_empty(found: Sized, what: str, command: str) -> None:
    """End the page with the command that makes what was not found."""
    if len(found) == 0:
        st.info(f"No {what} here yet. This makes them:")
        st.code(command, language="bash", wrap_lines=True)
        st.stop()


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
    default: dict[str, Any] = {} if key in st.session_state else {"default": first}
    chosen = st.multiselect(
        label,
        [*values, *(value for value in wanted if value not in options)],
        **default,
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


def quoted(text: str, at_most: int = 60) -> str:
    """Text from an address or a file as code, so that it cannot become markup or a link."""
    return f"`{' '.join(text.replace('`', '').split())[:at_most]}`"


def escaped(text: str) -> str:
    """Text from a file as it stands, for where markdown would be read: in one line, nothing of it becomes markup.

    Escaped is what begins markup wherever it stands; the end of a link's text; a colon or an at sign that would begin a
    directive or a link; and what begins a list, a heading or a rule where it stands first. An address that begins with
    "www." still becomes a link to what it says.
    """
    return re.sub(r"^(\d*)([#+=.)-])", r"\1\\\2", _escape(" ".join(text.split())))


def _escape(text: str) -> str:
    return re.sub(r"[\\`*_~$<>|]|\](?=[(\[:])|[:@](?=\S)", r"\\\g<0>", text)


def worded(text: str) -> str:
    """A sentence of the library, in which a file's text may stand: its `commands` as code, all else as it stands."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # a backtick without its partner is no markup
        return escaped(text)
    return "".join(f"`{part}`" if index % 2 else _escape(part) for index, part in enumerate(parts))


def tabs(titles: Mapping[str, str], key: str = "tab") -> tuple[str, Any]:
    """Tabs (name -> title) of which only the open one is computed; part of the URL. Returns its name and place."""
    places = st.tabs(list(titles.values()), key=key, bind="query-params")
    for name, place in zip(titles, places):
        if place.open:
            return name, place
    return next(iter(titles)), places[0]


def show(exhibit: Exhibit, *, key: str = "", on_click: Callable[[Any], None] | None = None) -> None:
    """The figure, how to read it, and its downloads. `on_click` is told the custom data of a marker that was clicked.

    `key` tells two figures of one name on one page apart.
    """
    name = f"{exhibit.name}_{key}" if key else exhibit.name

    def tell() -> None:
        points = st.session_state[name]["selection"]["points"]
        if points and on_click is not None:
            on_click(points[0].get("customdata"))

    st.plotly_chart(
        on_a_page(exhibit.figure),
        width=exhibit.figure.layout.width or "stretch",  # pyright: ignore[reportAttributeAccessIssue]
        key=name,
        on_select=tell if on_click else "ignore",
        selection_mode="points",
        config={"displaylogo": False, "toImageButtonOptions": TO_IMAGE | {"filename": exhibit.name}},
        alt=f"{exhibit.title}. {exhibit.reading}",
    )
    st.caption(worded(f"How to read: {exhibit.reading}"))
    for note in exhibit.notes:
        st.caption(worded(note))
    with st.popover("Download", key=f"{name}_downloads"):
        download(exhibit.table, exhibit.name, "Numbers (CSV)", key=f"{name}_csv")
        st.download_button(
            "Figure (HTML)",
            lambda: exhibit.figure.to_html(include_plotlyjs=True).encode(),
            f"{exhibit.name}.html",
            "text/html",
            key=f"{name}_html",
            on_click="ignore",
        )
        st.caption("Figure as PNG: the camera above the figure.")


def on_a_page(figure: go.Figure) -> go.Figure:
    """A copy whose colour bars have the ink of the page, light or dark: the figure's own grey, which has to do on both,
    is dim on either."""
    shown = go.Figure(figure)
    shown.layout.font.color = None  # pyright: ignore[reportAttributeAccessIssue]
    return shown


def download(table: pd.DataFrame, name: str, label: str = "", *, key: str | None = None) -> None:
    """A button that downloads a table as CSV; it is made when the button is clicked."""
    st.download_button(
        label or f"{name}.csv",
        lambda: table.to_csv(index=False).encode(),
        f"{name}.csv",
        "text/csv",
        key=key or f"{name}_csv",
        on_click="ignore",
    )


def show_table(
    table: pd.DataFrame, name: str, columns: Mapping[str, Any] | None = None, *, row_height: int | None = None
) -> None:
    """A table and its download; `columns` says how some of them show."""
    look: dict[str, Any] = {"hide_index": True, "column_config": columns, "row_height": row_height}
    st.dataframe(table, placeholder="", alt=name, key=f"{name}_table", **look)
    download(table, name)


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
def _compute(function: Callable[..., T], arguments: tuple[Any, ...], options: dict[str, Any]) -> T:
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
    show_progress = so_far < n  # what this session has seen finished comes from the cache, too fast for a bar
    if show_progress:
        with place.container():
            st.button("Cancel", key=f"{key}_cancel", on_click=st.session_state.update, args=({stopped: True},))
            bar = st.progress(0.0, label)
    for index, item in enumerate(items):
        if show_progress:
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


def results(store: RunStore, name: str) -> Results:
    """A stored table of conditions with its summary and evaluations; read again when it was rewritten."""
    path = store.path / "tables" / f"{name}.parquet"
    return _results(store.path, name, path.stat().st_mtime_ns if path.is_file() else 0)


@st.cache_data(max_entries=16, show_spinner="Reading results")
def _results(path: Path, name: str, version: int) -> Results:
    return load_results(RunStore(path), name)


@st.cache_data(ttl=LIST_SECONDS, show_spinner="Reading the list of runs")
def list_runs(path: Path) -> pd.DataFrame:
    """One row per run of the store."""
    return RunStore(path).query()


def list_results(path: Path, kind: Kind = "conditions") -> list[str]:
    """Names of the stored tables that can show this: reproductions first, then the newest."""
    return [name for name, kinds in _catalogue(path).items() if kind in kinds]


@st.cache_data(ttl=LIST_SECONDS, show_spinner="Reading the list of results")
def _catalogue(path: Path) -> dict[str, set[Kind]]:
    return catalogue(RunStore(path))


@st.cache_data(ttl=LIST_SECONDS, show_spinner="Reading claims")
def list_claims(path: Path) -> tuple[dict[str, StoredClaim], list[Unreadable]]:
    """All judged claims by name, and the files that cannot be read."""
    return load_claims(RunStore(path))


@st.cache_data(ttl=LIST_SECONDS, show_spinner=False)
def list_conditions(path: Path) -> dict[str, str]:
    """Run -> what the store's tables call its condition."""
    return conditions(RunStore(path))


@st.cache_data(ttl=LIST_SECONDS, show_spinner=False)
def list_models(path: Path) -> dict[str, str]:
    """Runs that keep weights: run -> what to call it."""
    return with_weights(list_runs(path), RunStore(path))


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


def open_run(store: RunStore, run_id: str) -> Run:
    """A finished run; each file's content is checked when it is read. Raises `UnknownRun`, or `DamagedRun`."""
    return store.open(run_id, verify=False)

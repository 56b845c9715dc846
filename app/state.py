"""What the pages share: the store, its cached tables, and selections that live in the URL."""

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import streamlit as st

from procpre_interp.runs import Run, RunStore, Table, load_histories
from procpre_interp.stats import summarise_conditions

FILL = "procpre-interp reproduce --out {store} --quick"
"""The command that fills an empty store."""

LIST_SECONDS = 10
"""How long a list of runs or tables is kept before the folder is read again."""


def store() -> RunStore:
    """The store of this explorer: `-- --store PATH` on the command line, else PROCPRE_STORE, else `runs`.

    Ends the page with one line when the path is no folder.
    """
    arguments = sys.argv[1:]
    given = arguments[arguments.index("--store") + 1] if "--store" in arguments[:-1] else None
    try:
        return RunStore(given or os.environ.get("PROCPRE_STORE", "runs"))
    except ValueError as problem:
        st.error(str(problem))
        st.stop()


def stop_when_empty(found: Sequence[object] | pd.DataFrame, what: str) -> None:
    """End the page with the command that fills the store, when nothing was found."""
    if len(found) == 0:
        path = store().path
        st.info(f"No {what} in {path.resolve()} yet. This fills it, in a few minutes:")
        st.code(FILL.format(store=shlex.quote(str(path))), language="bash", wrap_lines=True)
        st.stop()


def choose(label: str, options: Sequence[str], key: str) -> str:
    """A select box whose choice is part of the URL, as `?key=choice`. An unknown one there is named."""
    wanted = st.query_params.get(key)
    if wanted is not None and wanted not in options:
        quoted = wanted.replace("`", "")[:60]  # as code: what an address says is not to become a link
        st.warning(f"There is no {label.lower()} `{quoted}` here; this is `{options[0]}`.")
    index = options.index(wanted) if wanted in options else 0
    chosen = st.selectbox(label, options, index=index, key=key)
    st.query_params[key] = chosen
    return chosen


def choose_many(label: str, options: Mapping[str, str], key: str) -> list[str]:
    """Several of the options (value -> what to call it), part of the URL as `?key=a&key=b`; all at first."""
    wanted = [value for value in st.query_params.get_all(key) if value in options]
    values = list(options)
    chosen = st.multiselect(label, values, default=wanted or values, format_func=lambda v: options[v], key=key)
    st.query_params[key] = chosen
    return chosen


def keep(table: pd.DataFrame, column: str, values: Sequence[str]) -> pd.DataFrame:
    """The rows whose column has one of the values."""
    return table.loc[table[column].isin(values)]


@st.cache_data(ttl=LIST_SECONDS, show_spinner="Reading the list of runs")
def list_runs(path: Path) -> pd.DataFrame:
    """One row a run of the store."""
    return RunStore(path).query()


@st.cache_data(ttl=LIST_SECONDS, show_spinner=False)
def list_tables(path: Path, prefix: str) -> list[str]:
    """Names of the stored tables, newest first."""
    return RunStore(path).tables(prefix)


@st.cache_data(max_entries=256, show_spinner=False)
def read_run(path: Path, run_id: str, created: str) -> Run:
    """A run; `created` tells a run from an earlier one of the same id."""
    return RunStore(path).open(run_id, verify=False)


@st.cache_data(max_entries=16, show_spinner="Reading results")
def read_results(path: Path, name: str, version: int) -> tuple[Table, pd.DataFrame, pd.DataFrame, list[str]]:
    """An experiment's table, its summary by condition, its runs' evaluations, and what is wrong with them.

    `version` (the file's time) makes a rewritten table a new entry of the cache.
    """
    store = RunStore(path)
    table = store.read_table(name)
    histories, problems = load_histories(store, table.frame)
    return table, summarise_conditions(table.frame), histories, problems


def modified(path: Path, name: str) -> int:
    """Modification time of a stored table in nanoseconds."""
    return (path / "tables" / f"{name}.parquet").stat().st_mtime_ns

"""What a store holds (runs, results, claims, models), kept for some seconds before its folder is read again."""

from pathlib import Path

import pandas as pd
import streamlit as st

from procpre_interp.claims.files import Unreadable
from procpre_interp.claims.judged import StoredClaim
from procpre_interp.store.store import Run, RunStore
from procpre_interp.views.exhibits import where
from procpre_interp.views.exhibits.claims import load_claims, load_earlier
from procpre_interp.views.exhibits.results import Kind, Results, catalogue, load_results
from procpre_interp.views.exhibits.runs import conditions, with_weights

LIST_SECONDS = 10
"""How long a list of runs or tables is kept before the folder is read again."""


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


@st.cache_data(ttl=LIST_SECONDS, show_spinner="Reading transfer maps")
def list_maps(path: Path) -> list[str]:
    """Names of the stored tables with transfer maps: those of layers first, then of heads, matrices and components."""
    return where.first_shown(RunStore(path), list_results(path, "maps"))


@st.cache_data(ttl=LIST_SECONDS, show_spinner="Reading the list of results")
def _catalogue(path: Path) -> dict[str, set[Kind]]:
    return catalogue(RunStore(path))


@st.cache_data(ttl=LIST_SECONDS, show_spinner="Reading claims")
def list_claims(path: Path) -> tuple[dict[str, StoredClaim], list[Unreadable]]:
    """All judged claims by name, and the files that cannot be read."""
    return load_claims(RunStore(path))


@st.cache_data(show_spinner=False)
def list_earlier() -> dict[str, StoredClaim]:
    """What claims had found before they were judged anew, by name."""
    return load_earlier()


@st.cache_data(ttl=LIST_SECONDS, show_spinner=False)
def list_conditions(path: Path) -> dict[str, str]:
    """Run -> what the store's tables call its condition."""
    return conditions(RunStore(path))


@st.cache_data(ttl=LIST_SECONDS, show_spinner=False)
def list_models(path: Path) -> dict[str, str]:
    """Runs that keep weights: run -> what to call it."""
    return with_weights(list_runs(path), RunStore(path))


def open_run(store: RunStore, run_id: str) -> Run:
    """A finished run; each file's content is checked when it is read. Raises `UnknownRun`, or `DamagedRun`."""
    return store.open(run_id, verify=False)

"""The store that a page shows: the one that the explorer was started on, or the demo."""

import os
import shlex
import sys
from collections.abc import Sized
from pathlib import Path

import streamlit as st
from markup import quoted

from procpre_interp.store.store import RunStore

DEMO = Path(__file__).resolve().parent / "demo"
"""The small result that comes with the package."""

FILL = "procpre-interp reproduce --out {store} --quick"
"""The command that fills an empty store."""


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


def is_empty(store: RunStore) -> bool:
    """Whether the store holds neither runs, finished or not, nor tables."""
    return not any(any(path.glob("[!.]*")) for path in (store.path / name for name in ("runs", "partial", "tables")))


def stop_when_empty(found: Sized, what: str, command: str) -> None:
    """End the page with the command that makes what was not found."""
    if len(found) == 0:
        st.info(f"No {what} here yet. This makes them:")
        st.code(command, language="bash", wrap_lines=True)
        st.stop()

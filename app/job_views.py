"""What the page "Run something" says of a job: how long it will take, how far it is, and where its results are."""

from collections.abc import Mapping, Sequence
from typing import Any

import display
import listings
import markup
import streamlit as st

from procpre_interp.jobs import Job, Option
from procpre_interp.store.store import RunStore
from procpre_interp.views.exhibits import run_progress
from procpre_interp.views.exhibits import runs as exhibits

MOST_LINKS = 6
RESULTS = {
    "reproduce": "questions/did_transfer_help.py",
    "sweep": "questions/did_transfer_help.py",
    "claim": "questions/do_the_claims_hold.py",
}
"""The page that shows what a form's command makes, where it is more than a run."""

SIZES = {"steps": "Steps", "batch_size": "Sequences per step", "n_layers": "Layers", "d_model": "Width"}
"""What the time of a run depends on -> the option that gives it."""


def ask_all(options: Sequence[Option], store: RunStore, key: str) -> dict[str, Any]:
    """Controls for options, in two columns: label -> value."""
    columns, values = st.columns(2), {}
    for index, option in enumerate(options):
        with columns[index % 2]:
            values[option.label] = ask(option, store, f"{key}_{index}")
    return values


def ask(option: Option, store: RunStore, key: str) -> Any:
    """A control for an option."""
    if option.kind == "switch":
        return st.checkbox(option.label, key=key)
    if option.kind == "choice":
        index = option.choices.index(str(option.default)) if option.default in option.choices else 0
        return st.selectbox(
            option.label,
            option.choices,
            index=index,
            key=key,
            format_func=lambda choice: choice or "(default)",
            accept_new_options=option.is_open,
        )
    if option.kind == "parts":
        return " ".join(st.multiselect(option.label, option.choices, key=key))
    if option.kind == "runs":
        return choose_runs(option.label, store, key)
    if option.kind in ("word", "pairs", "folder"):
        return st.text_input(option.label, str(option.default or ""), key=key)
    least, default = (int, float)[option.kind == "float"](option.least), option.default
    shape = {"format": "%g", "step": 1e-4} if option.kind == "float" else {"step": 1}
    return st.number_input(option.label, min_value=least, value=default, key=key, **shape)  # pyright: ignore


def choose_runs(label: str, store: RunStore, key: str) -> str:
    """Ids of finished runs that keep weights, separated by blanks, chosen from a list."""
    names = listings.list_models(store.path)
    if not names:
        st.info("No finished run keeps weights yet: train one first.")
    return " ".join(st.multiselect(label, list(names), format_func=lambda run: names[run], key=key))


def how_long(values: Mapping[str, Any], store: RunStore) -> str:
    """How long the run of a form will take, as far as that is known."""
    sizes = {name: int(values[label] or 0) for name, label in SIZES.items()}
    found = run_progress.estimate(listings.list_runs(store.path), store, task=values["Task"], **sizes)
    if found is None:
        return f"Time unknown: no run of {values['Task']} of this shape is in the store to go by."
    return (
        f"About {minutes(found.seconds)} of training, at the speed of run {found.run[:8]}, and up to a minute to start."
    )


def minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} minutes"


def show_progress(job: Job, store: RunStore) -> None:
    """What a running job is at: its runs, how far they are, their curves, and the time left."""
    rows = run_progress.being_written(listings.list_runs(store.path), store)
    if not rows:
        listings.list_runs.clear()  # a run that has just begun is not in a list that is kept for a while
        if not job.log():
            st.info("Starting: Python imports what it needs, which takes up to half a minute.")
    for row in rows:
        if not row.saved:
            st.info(
                f"{row.run[:8]} {row.task}: nothing saved yet. A model of a new shape is compiled first, for up to a "
                f"minute; then {row.steps:,} steps follow."
            )
            continue
        left = "" if row.seconds_left is None else f", about {minutes(row.seconds_left)} left"
        st.progress(row.share, f"{row.run[:8]} {row.task}: step {row.saved:,} of {row.steps:,}{left}")
        if row.curve is not None:
            display.show(row.curve, key=f"live_{row.run}")


def show_results(job: Job, store: RunStore) -> None:
    """Links to what a job has made."""
    if job.name in RESULTS and job.state == "finished":
        st.page_link(RESULTS[job.name], label="Look at the result", icon=":material/insights:")
    listed = listings.list_runs(store.path)
    made, names = run_progress.finished_between(listed, job.started, job.ended), exhibits.names(listed)
    for run in made[:MOST_LINKS]:
        label = markup.escaped(f"Look into run {names[run]}")
        st.page_link("questions/runs.py", label=label, query_params={"run": run}, icon=":material/search:")
    if len(made) > MOST_LINKS:
        st.caption(f"These are the newest of {len(made):,} runs that were finished meanwhile.")
    elif not made:
        st.caption("No run was finished meanwhile: it stopped before, or the store had what it asked for.")

"""Runs: what is in the store, how runs differ, where their weights come from, and what is damaged."""

import details
import display
import listings
import markup
import pandas as pd
import selections
import stores
import streamlit as st

from procpre_interp.store.run import DamagedRun, UnknownRun
from procpre_interp.views.exhibits import run_details, run_progress
from procpre_interp.views.exhibits import runs as exhibits

COLUMNS = {
    "accuracy": st.column_config.NumberColumn("accuracy, test", format="percent", help="Share of answer tokens"),
    "loss_nats": st.column_config.NumberColumn("loss, nats", format="%.3f"),
    "breakthrough_step": st.column_config.NumberColumn("breakthrough, step"),
    "seconds": st.column_config.NumberColumn(format="%.0f"),
    "seed": st.column_config.NumberColumn(format="%d"),
}
# Pages that look into the model of a run.
LOOKS = {
    "questions/where_does_attention_look.py": "Where does attention look?",
    "questions/which_circuit.py": "Which circuit?",
    "questions/how_do_weights_move.py": "How do weights move?",
}


def delete(ids: list[str]) -> None:
    try:
        for run_id in ids:
            store.delete(run_id)
    except (ValueError, OSError) as problem:  # nothing above this catches it
        st.session_state["not_deleted"] = str(problem)
    listings.list_runs.clear()


@st.dialog("Delete for good?")
def ask_and_delete(ids: list[str]) -> None:
    for run_id in ids:
        st.text(exhibits.deletion(everything, run_id, store))
    st.caption("Repeating the command of a deleted run computes it again.")
    if st.button("Delete", type="primary", icon=":material/delete_forever:", on_click=delete, args=(ids,)):
        st.rerun()


def choose_runs(shown: pd.DataFrame) -> list[str]:
    """Ids, beginnings of ids or "latest", from rows ticked or from the box below the list; part of the URL."""
    place = st.container()
    chosen = selections.choose_many(
        f"Runs to look into, at most {run_details.MOST_COMPARED}: tick rows above, or type an id or its beginning",
        dict(zip(shown["run"], shown["run"])),
        "run",
        start=[],
        free=True,
        at_most=run_details.MOST_COMPARED,
    )
    rows = {run_id: row for row, run_id in enumerate(shown["run"])}

    def take_ticks() -> None:
        ticked = [shown["run"][row] for row in st.session_state["list"]["selection"]["rows"]]
        hidden = [run_id for run_id in chosen if run_id not in rows]
        st.session_state["run"] = [*hidden, *ticked][: run_details.MOST_COMPARED]

    ticks = {"rows": [rows[run_id] for run_id in chosen if run_id in rows], "columns": [], "cells": []}
    st.session_state["list"] = {"selection": ticks}
    with place:
        st.dataframe(
            shown, hide_index=True, column_config=COLUMNS, placeholder="", key="list", on_select=take_ticks, alt="runs"
        )
        display.download(shown, "runs")
    return chosen


store = stores.open_page("Runs", "Filter the list, then tick rows to look into one run or to compare several.")
everything = listings.list_runs(store.path)
listed = exhibits.listing(everything, listings.list_conditions(store.path))
names = exhibits.names(listed)
display.show_answer(exhibits.answer(listed))
if "not_deleted" in st.session_state:
    st.error(markup.quoted(st.session_state.pop("not_deleted"), 500))
for title, found in run_progress.troubles(everything, store):
    with st.expander(title, icon=":material/warning:", expanded=len(found) <= 3):
        st.dataframe(found, hide_index=True, placeholder="")

filters = {}
with st.container(horizontal=True):
    filters["text"] = st.text_input("Search", key="search", bind="query-params", placeholder="id, task, condition")
    for column in ("status", "task", "phase", "seed"):
        values = sorted(listed[column].dropna().unique())
        key = f"only_{column}"  # as other pages choose a task or a seed of their own
        filters[column] = st.multiselect(column.capitalize(), values, key=key, bind="query-params")

runs, ids = [], []
for wanted in choose_runs(exhibits.keep(listed, **filters)):
    try:
        runs.append(listings.open_run(store, wanted))
        ids.append(runs[-1].id)
    except (UnknownRun, DamagedRun) as problem:
        st.error(markup.quoted(str(problem), 500))
        ids += [wanted] if wanted in names else []
for run in runs:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(markup.escaped(names.get(run.id) or run.id))
        for page, label in LOOKS.items() if run.steps else ():
            st.page_link(page, label=label, query_params={"run": run.id})
        if not run.steps:
            st.caption("It kept no weights, so there is no model to open.")
if runs:
    tab, place = selections.tabs({name.lower(): name for name in details.TABS})
    with place:
        details.show(tab, runs, store, everything)
if ids and store.path == stores.DEMO:
    st.caption("The demo's runs cannot be deleted.")
elif ids and st.button(f"Delete {', '.join(ids)}", icon=":material/delete:"):
    ask_and_delete(ids)

"""Runs: what is in the store, what it was computed with, and what is damaged."""

import state
import streamlit as st
import yaml

from procpre_interp.plots.curves import learning_curves

FIRST = ["run", "status", "task", "seed", "accuracy", "loss_nats", "breakthrough_step", "steps", "seconds"]

st.title("Runs")
path = state.store().path
runs = state.list_runs(path)
state.stop_when_empty(runs, "runs")

damaged = state.keep(runs, "status", ["damaged"])
for run_id, problem in zip(damaged["run"], damaged["problem"]):
    st.error(f"{run_id} is damaged and not used: {problem}.")

filters = st.columns(2)
for column, place in zip(("status", "task"), filters):
    if column in runs:
        choices = sorted({str(value) for value in runs[column] if isinstance(value, str)})
        with place:
            chosen = state.choose(column.capitalize(), ["all", *choices], column)
        runs = runs if chosen == "all" else state.keep(runs, column, [chosen])

first = [column for column in FIRST if column in runs]
rest = [column for column in runs if column not in first]
st.dataframe(
    runs.loc[:, first + rest],
    hide_index=True,
    width="stretch",
    column_config={
        "accuracy": st.column_config.NumberColumn(format="percent", help="Share of answer tokens, test set"),
        "loss_nats": st.column_config.NumberColumn("loss, nats", format="%.3f"),
        "breakthrough_step": st.column_config.NumberColumn("breakthrough, step"),
        "seconds": st.column_config.NumberColumn("seconds", format="%.0f"),
    },
)
st.caption(f"{len(runs)} runs, newest first. A diverged run is a finished result.")

finished = state.keep(runs, "status", ["finished", "diverged"])
created = dict(zip(finished["run"], finished["created"]))
if not created:
    st.info("No finished run among these.")
    st.stop()
run_id = state.choose("Run", list(created), "run")
try:
    run = state.read_run(path, run_id, created[run_id])
    history = run.history()
except (ValueError, OSError) as problem:
    st.error(str(problem))
    st.stop()

curves, config, environment = st.tabs(["Curves", "Config", "Environment"])
with curves:
    label = f"{run.summary.get('task', run.id)}, seed {run.summary.get('seed', '?')}"
    history = history.assign(condition=run.id, label=label, replicate=0)
    for value, title in (("accuracy", "Accuracy"), ("loss_nats", "Loss")):
        if value in history and history[value].notna().to_numpy().any():
            figure = learning_curves(history, value, title=title)
            st.plotly_chart(figure, width="stretch", key=f"run_{value}")
    st.caption("How to read: one line is one run. Compare conditions over replicates under Did transfer help?")
with config:
    st.code(yaml.safe_dump(run.config, sort_keys=False), language="yaml")
with environment:
    st.code(yaml.safe_dump(run.environment, sort_keys=False), language="yaml")

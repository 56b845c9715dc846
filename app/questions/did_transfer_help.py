"""Did transfer help? Accuracy and time to breakthrough by condition, beside the paper's numbers."""

import state
import streamlit as st

from procpre_interp.describe import READING_SURVIVAL, conditions_table, describe_cost, explain_columns
from procpre_interp.plots.curves import accuracy_by_condition, learning_curves, survival_curves
from procpre_interp.stats import interval_note

st.title("Did transfer help?")
path = state.store().path
names = state.list_tables(path, "reproduce-")
state.stop_when_empty(names, "results")
name = state.choose("Experiment", names, "experiment")
try:
    stored, summary, histories, problems = state.read_results(path, name, state.modified(path, name))
except (ValueError, OSError) as problem:
    st.error(str(problem))
    st.stop()
about = stored.metadata

st.subheader(about.get("title", name))
st.text(about.get("protocol", ""))
for problem in problems:
    st.warning(f"Left out of the curves: {problem}")
if (summary["n"] < 2).to_numpy().any():
    st.warning("One replicate is an observation, not a result. Repeat with `--replicates 5` or more.")

conditions = dict(zip(summary["condition"], summary["label"]))
shown = state.choose_many("Conditions", conditions, "condition")
if not shown:
    st.info("Choose at least one condition.")
    st.stop()
summary, table, histories = (state.keep(part, "condition", shown) for part in (summary, stored.frame, histories))

accuracy, curves, survival, cost = st.tabs(["Accuracy", "Learning curves", "Time to breakthrough", "Cost"])
with accuracy:
    figure = accuracy_by_condition(summary, table=table, paper=about.get("paper"))
    st.plotly_chart(figure, width="stretch", key="accuracy")
    st.caption("How to read: transfer helped where the interval of the gain, in the table, lies wholly above 0.")
    st.dataframe(conditions_table(summary, about), hide_index=True, width="stretch")
    n = int(summary["n"].to_numpy().min())
    st.caption(f"Intervals: {interval_note(n)}. {explain_columns(about)}")
    for condition, note in about.get("paper_notes", {}).items():
        if condition in shown:
            st.caption(f"{conditions[condition]}: {note}.")
with curves:
    quantities = {"accuracy": "Accuracy", "exact_match": "Exact match", "loss_nats": "Loss"}
    quantities = {value: title for value, title in quantities.items() if value in histories}
    if not quantities:
        st.info("None of these runs can be read.")
    else:
        value = state.choose("Quantity", list(quantities), "quantity")
        threshold = None if value == "loss_nats" else about.get("threshold")
        figure = learning_curves(histories, value, threshold=threshold, title=quantities[value])
        st.plotly_chart(figure, width="stretch", key="curves")
        st.caption("How to read: a jump is the breakthrough; the dotted line is the threshold that defines it.")
with survival:
    st.plotly_chart(survival_curves(table), width="stretch", key="survival")
    st.caption(f"How to read: {READING_SURVIVAL}")
with cost:
    st.text(describe_cost(about.get("cost", {})))
    st.dataframe(table, hide_index=True, width="stretch")
    st.caption("One row a condition and replicate: the runs behind every number above. Details are under Runs.")

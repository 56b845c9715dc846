"""Did transfer help? Accuracy and time to breakthrough by condition, next to the paper's numbers."""

import state
import streamlit as st

from procpre_interp.claims.text import conditions_table, describe_cost, explain_columns
from procpre_interp.stats.summary import intervals_note
from procpre_interp.views.exhibits import results as exhibits

store = state.open_page("Did transfer help?")
names = state.list_results(store.path)
state.stop_when_empty(names, "results", state.FILL.format(store=store.path))
found = state.results(store, state.choose("Experiment", names, "experiment"))
st.subheader(state.escaped(found.title))
st.markdown(state.worded(found.about.protocol))
if found.about.demo:
    st.caption(state.escaped(found.about.demo))

if (found.summary["n"] < 2).to_numpy().any():
    st.warning("One replicate is an observation, not a result. Repeat with `--replicates 5` or more.")
else:
    state.show_answer(exhibits.answer(found))

if found.about.note:
    st.caption(state.worded(found.about.note))

shown = state.choose_many("Conditions", found.labels, "condition")
if not shown:
    st.info("Choose at least one condition.")
    st.stop()
kept = found.keep(shown)

TABS = {"accuracy": "Accuracy", "curves": "Learning curves", "survival": "Time to breakthrough", "cost": "Cost"}
tab, place = state.tabs(TABS)
with place:
    if tab == "accuracy":
        state.show(exhibits.accuracy(kept))
        st.dataframe(conditions_table(kept.summary, kept.about), hide_index=True, width="stretch")
        note = intervals_note(kept.summary["n"], "under Broke through")
        st.caption(state.escaped(f"Intervals: {note}. {explain_columns(kept.about)}"))
    elif tab == "curves":
        for problem in kept.problems:
            st.warning(state.escaped(f"Left out of the curves: {problem}"))
        if kept.quantities:
            state.show(exhibits.learning(kept, state.choose("Quantity", kept.quantities, "quantity")))
        else:
            st.info("None of these runs can be read.")
    elif tab == "survival":
        state.show(exhibits.survival(kept))
    else:
        st.text(describe_cost(kept.about.cost))
        st.dataframe(kept.table, hide_index=True, width="stretch", column_config=state.SHARES)
        st.caption("One row per condition and replicate: the runs behind every number above. Details are under Runs.")

"""Did transfer help? Accuracy and time to breakthrough by condition, next to the paper's numbers; on text, the loss."""

import display
import listings
import markup
import selections
import stores
import streamlit as st

from procpre_interp.claims.text import conditions_table, describe_cost
from procpre_interp.views.exhibits import results as exhibits
from procpre_interp.views.exhibits import savings, text_results

store = stores.open_page("Did transfer help?")
names = listings.list_results(store.path)
stores.stop_when_empty(names, "results", stores.FILL.format(store=store.path))
found = listings.results(store, selections.choose("Experiment", names, "experiment"))
st.subheader(markup.escaped(found.title))
st.markdown(markup.worded(found.about.protocol))
if found.about.demo:
    st.caption(markup.escaped(found.about.demo))

if found.is_observation:
    st.warning("One replicate is an observation, not a result. Repeat with `--replicates 5` or more.")
else:
    display.show_answer(text_results.answer_of(found))

if found.about.note:
    st.caption(markup.worded(found.about.note))

if selections.is_another("condition_of", found.name):  # another experiment may have more of them
    st.session_state.pop("condition", None)
    st.query_params.pop("condition", None)
shown = selections.choose_many("Conditions", found.labels, "condition")
if not shown:
    st.info("Choose at least one condition.")
    st.stop()
kept = found.keep(shown)

TABS = (
    {"loss": "Loss", "curves": "Learning curves", "savings": "Savings", "cost": "Cost"}
    if found.on_text
    else {"accuracy": "Accuracy", "curves": "Learning curves", "survival": "Time to breakthrough", "cost": "Cost"}
)
tab, place = selections.tabs(TABS)
with place:
    if tab == "accuracy":
        display.show(exhibits.accuracy(kept))
        st.dataframe(conditions_table(kept.summary, kept.about), hide_index=True, width="stretch")
        st.caption(markup.escaped(exhibits.explained(kept)))
    elif tab == "loss":
        display.show(text_results.losses(found, shown))
        st.dataframe(text_results.losses_table(found, shown), hide_index=True, width="stretch")
        st.caption(text_results.explained(found))
    elif tab == "curves":
        for problem in kept.problems:
            st.warning(markup.escaped(f"Left out of the curves: {problem}"))
        if not kept.quantities:
            st.info("None of these runs can be read.")
        elif found.on_text:
            left, right = st.columns(2)
            with left:
                quantity = selections.choose("Quantity", text_results.quantities(kept), "quantity")
            with right:
                along = selections.choose("Against", text_results.progress(kept), "along")
            display.show(text_results.learning(kept, quantity, along))
        else:
            display.show(exhibits.learning(kept, selections.choose("Quantity", kept.quantities, "quantity")))
    elif tab == "savings":
        try:
            saved = savings.savings(kept)
        except ValueError as problem:  # such as a table from before the tokens of phase 1 were counted
            st.info(markup.escaped(f"{problem}. The command procpre-interp savings counts what an older table lacks."))
            st.stop()
        display.show(savings.by_condition(saved))
        st.dataframe(savings.as_text(saved), hide_index=True, width="stretch")
        st.caption(markup.escaped(saved.note))
        display.show(savings.against_spent(saved))
    elif tab == "survival":
        display.show(exhibits.survival(kept))
    else:
        st.text(describe_cost(kept.about.cost))
        st.dataframe(kept.table, hide_index=True, width="stretch", column_config=display.SHARES)
        st.caption("One row per condition and replicate: the runs behind every number above. Details are under Runs.")

"""How do weights move? Two models of any runs and moments: spectra, drift, and likeness of representations."""

import display
import models
import selections
import stores
import streamlit as st

from procpre_interp.views.exhibits import inside, weights

TABS = {"drift": "How far they moved", "spectra": "Singular values", "cka": "Likeness"}

store = stores.open_page(
    "How do weights move?",
    "Two models, at any moment of any run: by default one run before and after phase 2.",
)
left, right = st.columns(2)
with left:
    before = models.choose_moment(selections.choose_run(store), store, start="first")
with right:
    # The same run at first: what its own training changed.
    after = models.choose_moment(selections.choose_run(store, "Other run", "other"), store, "other_at")
of = f"{before.name} to {after.name}"

tab, place = selections.tabs(TABS)
with place:
    if tab == "drift":
        exhibit = models.compare(weights.drift, before, after, of=of)
        display.show_answer(inside.most_moved(exhibit))
        display.show(exhibit)
    elif tab == "spectra":
        for column, side, subject in zip(st.columns(2), ("before", "after"), (before, after)):
            with column:
                exhibit = models.measure_model(weights.spectra, subject, of=subject.name)
                display.show_answer(inside.steepest(exhibit, subject.name))
                display.show(exhibit, key=side)
    else:
        tasks = {subject.task.name: subject.task for subject in (before, after)}
        task = tasks[selections.choose("Sequences of", list(tasks), "task")]
        exhibit = models.compare(weights.likeness, before, after, task, names=(before.name, after.name))
        display.show_answer(inside.likeness(exhibit))
        display.show(exhibit)

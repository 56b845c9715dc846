"""Which circuit? A live patch on one pair, patches over many pairs, edges as a graph, and what circuits carry alone."""

from collections.abc import Sequence

import display
import models
import selections
import stores
import streamlit as st

from procpre_interp.views.exhibits import circuits, inside

TABS = {"pair": "One pair, live", "pairs": "Many pairs", "graph": "Edges", "faithfulness": "Faithfulness"}

store = stores.open_page(
    "Which circuit?",
    "Two sequences differ in one cause. An activation of the clean run is put into the corrupted one: does the answer "
    "come back?",
)
left, right = st.columns(2)
with left:
    run = selections.choose_run(store)
with right:
    subject = models.choose_moment(run, store)
cause = selections.choose("Cause", circuits.causes(subject.task), "cause")
config = subject.model.config


def show_live_patch(site: str) -> None:
    """A pair, the effect of every patch on it, and one patch looked at."""
    number = selections.choose_number("Pair", 0, circuits.PAIRS - 1, "pair")
    pair = circuits.one_pair(subject.task, cause, number)
    tokens = circuits.pair_table(subject.task, pair)
    shown = tokens.set_index("position").replace({True: "≠", False: ""}).astype(str).T
    st.dataframe(shown, alt="the pair, token by token")
    length = pair.clean.shape[1]

    def take(place: Sequence[int | None]) -> None:
        layer, head, position = (int(number or 0) for number in place)
        st.session_state.update(layer=layer, head=head, position=position, everywhere=False)

    exhibit = models.measure(circuits.effects_on_pair, subject, cause, number, site)
    display.show_answer(inside.strongest_patch(exhibit))
    display.show(exhibit, on_click=take)
    st.caption("Click a cell, or choose the place here.")
    places = st.columns(4, vertical_alignment="bottom")
    with places[0]:
        layer = selections.choose_number("Layer", 0, config.n_layers - 1, "layer", start=config.n_layers - 1)
    head = None
    if site in circuits.HEAD_SITES:
        with places[1]:
            head = selections.choose_number("Head", 0, config.n_heads - 1, "head")
    with places[2]:
        position = selections.choose_number("Position", 0, length - 1, "position", start=length - 1)
    with places[3]:
        everywhere = st.toggle("All positions", key="everywhere", bind="query-params")
    where = (layer, None if everywhere else position, head)
    display.show(models.measure(circuits.live_patch, subject, cause, number, site, *where))


tab, place = selections.tabs(TABS)
with place:
    if tab in ("pair", "pairs"):
        site = selections.choose("Activation", circuits.SITES, "site")
        if tab == "pair":
            show_live_patch(site)
        else:
            by_position = st.toggle("By position", key="by_position", bind="query-params")
            exhibit = models.measure(circuits.effects, subject, cause, site, by_position=by_position)
            display.show_answer(inside.strongest_patch(exhibit))
            display.show(exhibit)
    elif tab == "graph":
        n_edges = selections.choose_number("Edges", 1, 100, "edges", start=25)
        exhibit = models.measure(circuits.graph, subject, cause, n_edges=n_edges)
        display.show_answer(inside.strongest_edge(exhibit))
        display.show(exhibit)
    else:
        with st.spinner("Measuring circuits of growing size"):
            exhibit = models.measure(circuits.faithfulness, subject, cause)
        display.show_answer(inside.smallest_circuit(exhibit))
        display.show(exhibit)

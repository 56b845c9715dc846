"""Where does it live? Transfer maps over the model, and the curves and runs behind each part."""

import computed
import display
import listings
import markup
import selections
import stores
import streamlit as st

from procpre_interp.views.exhibits import pairs, where

SWEEP = "procpre-interp sweep layer_components --out {store}"

store = stores.open_page(
    "Where does it live?",
    "A sweep transfers each part of a pretrained model alone, then all parts but that one, and trains again, "
    "in replicates.",
)
names = listings.list_maps(store.path)
stores.stop_when_empty(names, "transfer maps", SWEEP.format(store=store.path))
sweep = listings.results(store, selections.choose("Experiment", names, "experiment"))
maps = where.maps(sweep)
chosen = maps[where.by_priority(maps)[0]]
if len(maps) > 1:
    titles = {str(index): maps[index].title for index in where.by_priority(maps)}
    chosen = maps[int(selections.choose("Map", titles, "map"))]
st.subheader(markup.escaped(sweep.title))
if sweep.about.demo:
    st.caption(markup.escaped(sweep.about.demo))

left, right = st.columns(2)
with left:
    outcome = selections.choose("Outcome", chosen.outcomes, "outcome")
with right:
    methods = {name: where.METHOD_NAMES.get(name, name) for name in reversed(chosen.methods)}
    method = selections.choose("Method", methods, "method")
table = computed.cached(where.effects, chosen, outcome)
shown = table.loc[table["method"] == method]
display.show_answer(where.answer(shown))
st.caption(markup.escaped(chosen.coverage))

TABS = {"map": "Map", "bars": "All methods", "table": "Table"}
tab, place = selections.tabs(TABS)
with place:
    if tab == "map":
        display.show(where.heatmap(shown), on_click=lambda player: st.session_state.update(part=player))
        together = computed.cached(pairs.interactions, chosen, outcome)
        if together is not None:
            display.show(pairs.heatmap(together, table))
    elif tab == "bars":
        display.show(where.bars(table))
    else:
        display.show_table(where.as_text(table), "effects")

st.subheader("What is behind a part")
st.caption("Click a cell of the map, or choose here.")
part = selections.choose("Part", chosen.players, "part")
if sweep.quantities:
    quantity = selections.choose("Quantity", sweep.quantities, "quantity")
    display.show(where.curves(sweep, chosen, part, quantity))
else:
    st.info("None of these runs can be read.")
with st.expander("The runs behind these curves"):
    display.show_table(where.runs_behind(chosen, part), "runs_behind", display.SHARES)
    st.page_link("questions/runs.py", label="Look into runs", icon=":material/search:")
if not chosen.is_fine:
    st.caption(
        "This map has no single heads or matrices. `procpre-interp sweep head_map` and `sweep matrix_map` make such "
        "maps, and `sweep layer_components` one of each layer's attention and MLP; `--count` says how many runs they "
        "take."
    )

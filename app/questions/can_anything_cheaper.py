"""Can anything cheaper do the same? Recipes without phase 1, and interventions, beside the real transfer."""

import state
import streamlit as st

from procpre_interp.exhibits import cheaper
from procpre_interp.exhibits.damage import origin

TABS = {"shares": "Share of the gain", "entropy": "Entropy and breakthrough", "search": "The search"}

store = state.open_page(
    "Can anything cheaper do the same?",
    "Initial weights from a few numbers, attention made sharp by force, parts that are taken away again: "
    "how much of the gain of procedural pretraining do they recover?",
)
claims, problems = state.list_claims(store.path)
for problem in problems:
    if any(name in problem for name in cheaper.CLAIMS):  # another result stands in for it below
        st.warning(state.quoted(problem, 300))
found = {name: claims[name] for name in cheaper.CLAIMS if name in claims}
tab, place = state.tabs(TABS)
with place:
    if tab == "search":
        search = cheaper.load_search()
        state.stop_when_empty(search or [], "searches over recipes", "python experiments/search_initialisation.py")
        state.show(state.cached(cheaper.search, search))
    else:
        state.stop_when_empty(found, "cheaper recipes", f"procpre-interp claims {' '.join(cheaper.CLAIMS)} --run")
        name = state.choose("Claim", {name: str(claim["claim"]) for name, claim in found.items()}, "recipes")
        judged = found[name]
        st.success(state.escaped(state.cached(cheaper.answer, judged)), icon=":material/lightbulb:")
        if tab == "shares":
            state.show(state.cached(cheaper.shares, judged))
        elif cheaper.has_entropies(judged):
            state.show(state.cached(cheaper.entropy_and_breakthrough, judged))
        else:
            st.info("Attention was not measured on the runs of this claim.")
        st.caption(state.escaped(origin(judged)))

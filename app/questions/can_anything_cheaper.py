"""Can anything cheaper do the same? Recipes without phase 1, and interventions, next to the real transfer."""

import computed
import display
import listings
import markup
import selections
import stores
import streamlit as st

from procpre_interp.claims.judged import StoredClaim
from procpre_interp.claims.text import claim_title
from procpre_interp.views.exhibits import cheaper
from procpre_interp.views.exhibits.damage import origin

TABS = {"shares": "Share of the gain", "entropy": "Entropy and breakthrough", "search": "The search"}

store = stores.open_page(
    "Can anything cheaper do the same?",
    "Initial weights from a few numbers, attention made sharp by force, parts that are taken away again: "
    "how much of the gain of procedural pretraining do they recover?",
)
claims, problems = listings.list_claims(store.path)
found = cheaper.cheaper_claims(claims)
for each in problems:
    if each.name in found:  # another result stands in for it below
        st.warning(markup.quoted(each.problem, 300))


def show_claim(judged: StoredClaim, tab: str) -> None:
    """What a claim's recipes recover, or their attention; and what was measured before it was judged anew."""
    display.show_answer(computed.cached(cheaper.answer, judged))
    exhibit = cheaper.shares if tab == "shares" else cheaper.entropy_and_breakthrough
    display.show(computed.cached(exhibit, judged))
    st.caption(markup.worded(origin(judged)))
    before = listings.list_earlier().get(judged.name)
    if before is not None and (tab == "shares" or cheaper.has_entropies(before)):
        display.head_earlier(before)
        display.show(computed.cached(exhibit, before), key="earlier")


def show_sweep(name: str) -> None:
    """What the conditions of a stored experiment recover of the gain of one of them."""
    results = listings.results(store, name)
    transfers = {key: label for key, label in results.labels.items() if key != cheaper.BASELINE}
    full = selections.choose("The real transfer, which counts as 100 %", transfers, "full")
    display.show_answer(cheaper.answer_of(results, full))
    display.show(cheaper.shares_of(results, full), key="sweep")


tab, place = selections.tabs(TABS)
with place:
    if tab == "search":
        search = cheaper.load_search()
        stores.stop_when_empty(
            [] if search is None else [search], "searches over recipes", "python experiments/search_initialisation.py"
        )
        assert search is not None
        display.show_answer(cheaper.search_answer(search))
        display.show(computed.cached(cheaper.search, search))
    else:
        # In the second tab those alone whose attention was measured; each tab has a choice of its own in the URL.
        shown = {name: claim for name, claim in found.items() if tab == "shares" or cheaper.has_entropies(claim)}
        sweeps = [name for name in listings.list_results(store.path) if tab == "shares" and name not in found]
        offered = {name: claim_title(claim) for name, claim in shown.items()} | {name: name for name in sweeps}
        stores.stop_when_empty(offered, "cheaper recipes", "procpre-interp claims --run")
        name = selections.choose("Claim or experiment", offered, "recipes" if tab == "shares" else "measured")
        if name in found:
            show_claim(found[name], tab)
        else:
            show_sweep(name)

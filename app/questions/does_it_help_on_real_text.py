"""Does it help on real text? Claims and fair sweeps on language, code and mathematics, transfers by their controls."""

import computed
import display
import listings
import markup
import pandas as pd
import selections
import stores
import streamlit as st

from procpre_interp.claims.fairness import edge_note
from procpre_interp.claims.judged import StoredClaim
from procpre_interp.claims.text import claim_title
from procpre_interp.views.exhibits import claims as verdicts
from procpre_interp.views.exhibits import real_text
from procpre_interp.views.exhibits.damage import origin

TABS = {"claims": "Claims", "sweeps": "Fair sweeps"}

store = stores.open_page(
    "Does it help on real text?",
    "English, code and mathematics after procedural data: against a fresh model, its scales alone, natural text and "
    "shuffled sequences, all tuned alike.",
)
claims, problems = listings.list_claims(store.path)
found = real_text.text_claims(claims)
for each in problems:
    if each.name in found:  # another result stands in for it below
        st.warning(markup.quoted(each.problem, 300))


def show_tuning(cells: pd.DataFrame) -> None:
    """What each arm goes on with after its trials."""
    st.markdown("What each arm was tuned to:")
    display.show_table(real_text.tuned(cells), "tuned")


def show_claim(judged: StoredClaim) -> None:
    """A claim's verdict, its arms, its contrasts."""
    display.show_answer(real_text.answer(judged))
    st.caption(markup.worded(origin(judged)))
    if real_text.is_fair(judged.cells):
        display.show(computed.cached(real_text.arms, judged))
        show_tuning(judged.cells)
        if note := edge_note(judged.tables):
            st.caption(markup.worded(note))
    display.show(verdicts.contrasts(judged))


tab, place = selections.tabs(TABS)
with place:
    if tab == "claims":
        if not found:
            st.info("No claim on real text is judged yet, here or among the results of the package. This judges one.")
            st.code(
                "procpre-interp claims union_helps_language --run --until-decided", language="bash", wrap_lines=True
            )
            st.stop()
        offered = {name: claim_title(claim) for name, claim in found.items()}
        show_claim(found[selections.choose("Claim", offered, "claim")])
    else:
        names = listings.list_results(store.path, "fair")
        stores.stop_when_empty(names, "fair sweeps", "procpre-interp sweep fair_text")
        results = listings.results(store, selections.choose("Sweep", names, "sweep"))
        display.show(computed.cached(real_text.arms_of_results, results))
        show_tuning(results.table)

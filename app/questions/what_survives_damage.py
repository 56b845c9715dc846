"""What survives damage? Shuffled and noised weights, and the signatures of transfers that failed."""

from collections.abc import Callable, Sequence

import computed
import display
import listings
import markup
import selections
import stores
import streamlit as st

from procpre_interp.analysis.diagnosis import explain_signatures
from procpre_interp.claims.judged import StoredClaim
from procpre_interp.claims.text import claim_title
from procpre_interp.views.exhibits import Exhibit, damage

TABS = {"ladder": "Shuffled weights", "noise": "Noise", "failures": "Why transfers fail"}

store = stores.open_page(
    "What survives damage?",
    "Weights are damaged in one property before they are transferred: what must stay for the gain to stay?",
)
claims, problems = listings.list_claims(store.path)


def show_claim(found: dict[str, StoredClaim], key: str, *exhibits: Callable[[StoredClaim], Exhibit]) -> None:
    """One of the claims: its exhibits and where its numbers are from; without any, the command that makes them. Then
    the same of what was measured before it was judged anew, which may be of more conditions."""
    stores.stop_when_empty(found, "damaged weights", "procpre-interp claims --run")
    name = next(iter(found))
    if len(found) > 1:
        name = selections.choose("Claim", {name: claim_title(claim) for name, claim in found.items()}, key)
    for each in problems:
        if each.name == name:  # another result stands in for it below
            st.warning(markup.quoted(each.problem, 300))
    judged = found[name]
    display.show_answer(damage.answer(judged))
    st.caption(markup.worded(damage.origin(judged)))
    show_measured(judged, exhibits)
    before = listings.list_earlier().get(name)
    if before is not None:
        display.head_earlier(before)
        show_measured(before, exhibits, key="earlier")


def show_measured(judged: StoredClaim, exhibits: Sequence[Callable[[StoredClaim], Exhibit]], *, key: str = "") -> None:
    """The exhibits of a claim, and what its controls keep."""
    for exhibit in exhibits:
        display.show(computed.cached(exhibit, judged), key=key)
    show_kept(judged)


def show_kept(judged: StoredClaim) -> None:
    """What each control keeps of the weights."""
    table = damage.kept(judged)
    if len(table):
        st.markdown("What each control keeps of the transferred weights, from the least to the most:")
        st.table(table.set_index("Control"))


def show_failures() -> None:
    names = listings.list_results(store.path)
    stores.stop_when_empty(names, "results", stores.FILL.format(store=store.path))
    found = listings.results(store, selections.choose("Experiment", names, "experiment"))
    runs, problems = damage.transferred_runs(found, store)
    if not runs:
        st.info(f"None of the {len(problems):,} runs with pretraining in this table can be opened.")
        return
    by_condition, findings = computed.cached(damage.diagnosis, found, store, listings.list_runs(store.path))
    display.show_answer(damage.failures_answer(findings))
    display.show_table(by_condition, "signatures")
    st.caption(
        "One row per condition and what is seen there; one run may show several. Scores are means of these runs."
    )
    for line in explain_signatures(findings["signature"]):
        st.caption(markup.escaped(line))
    label = selections.choose("Condition", list(dict.fromkeys(findings["label"])), "condition")
    for row in findings.loc[findings["label"] == label].to_dict("records"):
        with st.expander(markup.escaped(f"Seed {row['replicate']}, run {row['run'][:8]}: {row['signature']}")):
            for sentence in (row["finding"], row["remedy"]):
                st.markdown(markup.worded(sentence))
            st.caption(markup.escaped(row["numbers"]))
    display.download(findings, "findings")
    if problems:
        st.caption(f"Left out because they cannot be opened: {len(problems):,} runs.")


tab, place = selections.tabs(TABS)
with place:
    if tab == "ladder":
        show_claim(damage.damage_claims(claims), "control", damage.controls)
        sweeps = listings.list_results(store.path, "damage")
        if sweeps:
            name = selections.choose("Sweep with damage", sweeps, "sweep")
            display.show(damage.controls_of(listings.results(store, name)), key="sweep")
    elif tab == "noise":
        show_claim(damage.noise_claims(claims), "noise", damage.noise, damage.noise_on_finished)
    else:
        show_failures()

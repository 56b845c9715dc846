"""What survives damage? Shuffled and noised weights, and the signatures of transfers that failed."""

from collections.abc import Callable

import state
import streamlit as st

from procpre_interp.analysis.diagnosis import explain_signatures
from procpre_interp.claims.judged import StoredClaim
from procpre_interp.claims.text import claim_title
from procpre_interp.views.exhibits import Exhibit, damage

TABS = {"ladder": "Shuffled weights", "noise": "Noise", "failures": "Why transfers fail"}

store = state.open_page(
    "What survives damage?",
    "Weights are damaged in one property before they are transferred: what must stay for the gain to stay?",
)
claims, problems = state.list_claims(store.path)


def show_claim(found: dict[str, StoredClaim], key: str, *exhibits: Callable[[StoredClaim], Exhibit]) -> StoredClaim:
    """One of the claims: its exhibits and where its numbers are from; without any, the command that makes them."""
    state.stop_when_empty(found, "damaged weights", "procpre-interp claims --run")
    name = next(iter(found))
    if len(found) > 1:
        name = state.choose("Claim", {name: claim_title(claim) for name, claim in found.items()}, key)
    for each in problems:
        if each.name == name:  # another result stands in for it below
            st.warning(state.quoted(each.problem, 300))
    judged = found[name]
    state.show_answer(damage.answer(judged))
    st.caption(state.worded(damage.origin(judged)))
    for exhibit in exhibits:
        state.show(state.cached(exhibit, judged))
    return judged


def show_kept(judged: StoredClaim) -> None:
    """What each control keeps of the weights."""
    table = damage.kept(judged)
    if len(table):
        st.markdown("What each control keeps of the transferred weights, from the least to the most:")
        st.table(table.set_index("Control"))


def show_failures() -> None:
    names = state.list_results(store.path)
    state.stop_when_empty(names, "results", state.FILL.format(store=store.path))
    found = state.results(store, state.choose("Experiment", names, "experiment"))
    runs, problems = damage.transferred_runs(found, store)
    if not runs:
        st.info(f"None of the {len(problems):,} runs with pretraining in this table can be opened.")
        return
    by_condition, findings = state.cached(damage.diagnosis, found, store, state.list_runs(store.path))
    state.show_answer(damage.failures_answer(findings))
    state.show_table(by_condition, "signatures")
    st.caption(
        "One row per condition and what is seen there; one run may show several. Scores are means of these runs."
    )
    for line in explain_signatures(findings["signature"]):
        st.caption(state.escaped(line))
    label = state.choose("Condition", list(dict.fromkeys(findings["label"])), "condition")
    for row in findings.loc[findings["label"] == label].to_dict("records"):
        with st.expander(state.escaped(f"Seed {row['replicate']}, run {row['run'][:8]}: {row['signature']}")):
            for sentence in (row["finding"], row["remedy"]):
                st.markdown(state.worded(sentence))
            st.caption(state.escaped(row["numbers"]))
    state.download(findings, "findings")
    if problems:
        st.caption(f"Left out, as they cannot be opened: {len(problems):,} runs.")


tab, place = state.tabs(TABS)
with place:
    if tab == "ladder":
        show_kept(show_claim(damage.damage_claims(claims), "control", damage.controls))
        sweeps = state.list_results(store.path, "damage")
        if sweeps:
            name = state.choose("Sweep with damage", sweeps, "sweep")
            state.show(damage.controls_of(state.results(store, name)), key="sweep")
    elif tab == "noise":
        show_claim(damage.noise_claims(claims), "noise", damage.noise, damage.noise_on_finished)
    else:
        show_failures()

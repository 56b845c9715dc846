"""Do the claims hold? Verdicts as computed, the contrasts and replicates behind them, and the paper's numbers."""

import shlex

import state
import streamlit as st

from procpre_interp.claims.text import claim_title, describe_evidence
from procpre_interp.views.exhibits import claims as exhibits

COLUMNS = {"Claim": st.column_config.TextColumn(width=300), "Verdict": st.column_config.TextColumn(width=80)}
WIDE = {"Contrast": st.column_config.TextColumn(width=200), "Why": st.column_config.TextColumn(width=300)}
TABS = {"contrasts": "Contrasts", "replicates": "Replicates", "runs": "Runs"}

store = state.open_page(
    "Do the claims hold?",
    "Each claim was written down, with a margin, before its runs; the verdict is computed.",
)
claims, problems = state.list_claims(store.path)
for problem in problems:
    st.warning(state.quoted(problem.problem, 300))
state.stop_when_empty(claims, "claims", "procpre-interp claims --run")
state.show_answer(exhibits.answer(claims))
# Rows high enough for three lines: streamlit then breaks the long sentences.
state.show_table(exhibits.overview(claims), "claims", COLUMNS, row_height=78)

name = state.choose("Claim", {name: claim_title(claim) for name, claim in claims.items()}, "claim")
claim = claims[name]
contrasts = [row.contrast for row in claim.contrasts]
if st.session_state.setdefault("contrast_of", name) != name:  # another claim has other contrasts
    st.session_state["contrast_of"] = name
    if st.query_params.get("contrast") not in contrasts:
        st.query_params.pop("contrast", None)
if claim.quick:
    st.warning("A smoke test of one replicate and a few steps: no evidence.")
st.subheader(state.escaped(claim_title(claim)))
st.text(describe_evidence(claim))
st.caption(state.escaped(f"Margin, the smallest difference that counts: {claim.margin} Refuted by: {claim.refuted_by}"))
st.caption(state.escaped(f"What it cannot say: {exhibits.cannot_say(claim)}"))
if claim.protocol:
    with st.expander("Protocol"):
        st.markdown(state.worded(claim.protocol))
tab, place = state.tabs(TABS)
with place:
    if tab == "contrasts":
        state.show(exhibits.contrasts(claim))
        state.show_table(exhibits.rows_of(claim), "contrast_list", WIDE, row_height=56)
    elif tab == "replicates":
        contrast = state.choose("Contrast", contrasts, "contrast")
        st.text(exhibits.describe_contrast(claim, contrast))
        if reason := exhibits.why_no_replicates(claim, contrast):
            st.info(state.escaped(reason))
        else:
            state.show(exhibits.replicates(claim, contrast))
        if exhibits.was_trained(claim, contrast):
            state.show(exhibits.survival(claim, contrast))
    else:
        state.show_table(claim.cells, name, state.SHARES)
        st.caption("One row per condition and replicate. Runs that this store holds open under Runs.")
st.caption("This computes what the claim still needs, and judges it again:")
own = shlex.quote(str(state.own_store().path))  # never the demo
st.code(f"{exhibits.command(name)} --store {own}", language="bash", wrap_lines=True)

st.subheader("Beside the paper's numbers")
summary, source = exhibits.load_beside(store)
st.caption(
    f"Procedural tasks x transfers x algorithmic skills, from {state.escaped(source)}; "
    "`python experiments/table1.py` makes it."
)
tasks = list(dict.fromkeys(summary.loc[summary["paper_gain"].notna(), "task"]))
shown = state.choose("Skill", tasks, "task")
state.show(exhibits.beside_the_paper(summary.loc[summary["task"] == shown]))

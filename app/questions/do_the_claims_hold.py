"""Do the claims hold? Verdicts as computed, the contrasts and replicates behind them, and the paper's numbers."""

import state
import streamlit as st

from procpre_interp.describe import contrasts_table, describe_claim
from procpre_interp.exhibits import claims as exhibits

TABS = {"contrasts": "Contrasts", "replicates": "Replicates", "runs": "Runs"}

store = state.open_page(
    "Do the claims hold?",
    "Each claim was written down, with a margin, before its runs; the verdict is computed.",
)
claims, problems = state.list_claims(store.path)
for problem in problems:
    st.warning(state.quoted(problem, 300))
state.stop_when_empty(list(claims), "claims", "procpre-interp claims --run")
table = exhibits.overview(claims)
verdicts = table["Verdict"].str.removesuffix(" (quick)").value_counts()
st.success(", ".join(f"{n} {verdict}" for verdict, n in verdicts.items()) + ".", icon=":material/lightbulb:")
state.show_table(table, "claims")

name = state.choose("Claim", {name: f"{name}: {claim['verdict']}" for name, claim in claims.items()}, "claim")
claim = claims[name]
if claim["quick"]:
    st.warning("A smoke test of one replicate and a few steps: no evidence.")
st.subheader(state.escaped(claim["claim"]))
st.text(describe_claim(claim))
st.caption(state.escaped(f"Margin: {claim['margin']} Refuted by: {claim['refuted_by']}"))
tab, place = state.tabs(TABS)
with place:
    if tab == "contrasts":
        state.show(exhibits.contrasts(claim))
        st.dataframe(contrasts_table(claim), hide_index=True, alt="contrasts")
    elif tab == "replicates":
        contrast = state.choose("Contrast", [row["contrast"] for row in claim["contrasts"]], "contrast")
        state.show(exhibits.replicates(claim, contrast))
        if exhibits.was_trained(claim, contrast):
            state.show(exhibits.survival(claim, contrast))
    else:
        state.show_table(claim["cells"], name)
        st.caption("One row a condition and replicate. Runs that this store holds open under Runs.")
st.caption("This computes what the claim still needs, and judges it again:")
st.code(f"{exhibits.command(name)} --store {store.path}", language="bash", wrap_lines=True)

st.subheader("Beside the paper's numbers")
summary, source = exhibits.load_beside(store)
st.caption(
    f"Procedural tasks x transfers x algorithmic skills, from {source}; `python experiments/table1.py` makes it."
)
tasks = list(dict.fromkeys(summary.loc[summary["paper_gain"].notna(), "task"]))
shown = state.choose("Skill", tasks, "task")
state.show(exhibits.beside_the_paper(summary.loc[summary["task"] == shown]))

"""Do the claims hold? Verdicts as computed, the contrasts and replicates behind them, and the paper's numbers."""

import shlex

import display
import listings
import markup
import selections
import stores
import streamlit as st

from procpre_interp.claims.text import claim_title, describe_evidence
from procpre_interp.views.exhibits import claims as exhibits

COLUMNS = {"Claim": st.column_config.TextColumn(width=300), "Verdict": st.column_config.TextColumn(width=80)}
WIDE = {"Contrast": st.column_config.TextColumn(width=200), "Why": st.column_config.TextColumn(width=300)}
TABS = {"contrasts": "Contrasts", "replicates": "Replicates", "runs": "Runs"}

store = stores.open_page(
    "Do the claims hold?",
    "Each claim was written down, with a margin, before its runs; the verdict is computed.",
)
claims, problems = listings.list_claims(store.path)
for problem in problems:
    st.warning(markup.quoted(problem.problem, 300))
stores.stop_when_empty(claims, "claims", "procpre-interp claims --run")
display.show_answer(exhibits.answer(claims))
# Rows high enough for three lines: streamlit then breaks the long sentences.
display.show_table(exhibits.overview(claims), "claims", COLUMNS, row_height=78)

name = selections.choose("Claim", {name: claim_title(claim) for name, claim in claims.items()}, "claim")
claim = claims[name]
contrasts = [row.contrast for row in claim.contrasts]
# Another claim has other contrasts.
if selections.is_another("contrast_of", name) and st.query_params.get("contrast") not in contrasts:
    st.query_params.pop("contrast", None)
if claim.quick:
    st.warning("A smoke test of one replicate and a few steps: not evidence.")
st.subheader(markup.escaped(claim_title(claim)))
st.text(describe_evidence(claim))
st.caption(
    markup.escaped(f"Margin, the smallest difference that counts: {claim.margin} Refuted by: {claim.refuted_by}")
)
st.caption(markup.escaped(f"What it cannot say: {exhibits.cannot_say(claim)}"))
if claim.protocol:
    with st.expander("Protocol"):
        st.markdown(markup.worded(claim.protocol))
tab, place = selections.tabs(TABS)
with place:
    if tab == "contrasts":
        display.show(exhibits.contrasts(claim))
        display.show_table(exhibits.rows_of(claim), "contrast_list", WIDE, row_height=56)
    elif tab == "replicates":
        contrast = selections.choose("Contrast", contrasts, "contrast")
        st.text(exhibits.describe_contrast(claim, contrast))
        if reason := exhibits.why_no_replicates(claim, contrast):
            st.info(markup.escaped(reason))
        else:
            display.show(exhibits.replicates(claim, contrast))
            if (sequence := exhibits.sequence(claim, contrast)) is not None:
                display.show(sequence)
        if exhibits.was_trained(claim, contrast):
            display.show(exhibits.survival(claim, contrast))
    else:
        display.show_table(claim.cells, name, display.SHARES)
        st.caption("One row per condition and replicate. Runs that this store holds open under Runs.")
st.caption("This computes what the claim still needs, and judges it again:")
own = shlex.quote(str(stores.own_store().path))  # never the demo
st.code(f"{exhibits.command(name)} --store {own}", language="bash", wrap_lines=True)

st.subheader("Beside the paper's numbers")
summary, source = exhibits.load_beside(store)
st.caption(
    f"Procedural tasks x transfers x algorithmic skills, from {markup.escaped(source)}; "
    "`python experiments/table1_paper.py` makes it in the paper's own setting, `table1.py` on cheap budgets."
)
tasks = list(dict.fromkeys(summary.loc[summary["paper_gain"].notna(), "task"]))
shown = selections.choose("Skill", tasks, "task")
display.show(exhibits.beside_the_paper(summary.loc[summary["task"] == shown]))

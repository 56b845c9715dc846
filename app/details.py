"""What the page of runs shows of the runs that were chosen."""

from collections.abc import Sequence

import computed
import display
import markup
import pandas as pd
import selections
import streamlit as st
import yaml

from procpre_interp.analysis.diagnosis import diagnose_all
from procpre_interp.analysis.diagnosis.diagnose import describe_numbers
from procpre_interp.store.ancestry import ancestry
from procpre_interp.store.differences import config_differences, lineage
from procpre_interp.store.run import Run
from procpre_interp.store.store import RunStore
from procpre_interp.views.exhibits import run_details
from procpre_interp.views.exhibits import runs as exhibits

TABS = ("Curves", "Numbers", "Config", "Lineage", "Environment", "Diagnosis", "Files")
SIZES = {"bytes": st.column_config.NumberColumn("size", format="bytes")}


def show(tab: str, runs: Sequence[Run], store: RunStore, everything: pd.DataFrame) -> None:
    """One of `TABS` on some runs; `everything` is the store's list."""
    if tab == "curves":
        found, problems = run_details.histories(runs, store)
        for problem in problems:
            st.warning(markup.quoted(problem, 500))
        if known := run_details.measured(found):
            titles = {name: run_details.QUANTITIES[name] for name in known}
            display.show(run_details.curves(found, selections.choose("Quantity", titles, "quantity")))
        display.download(found, "history")
    elif tab == "numbers":
        display.show_table(run_details.numbers(runs), "numbers")
    elif tab == "config" and len(runs) == 1:
        st.code(yaml.safe_dump(runs[0].config, sort_keys=False), language="yaml")
    elif tab == "config":
        display.show_table(config_differences({run.id: run.config for run in runs}), "config_differences")
        st.caption("How to read: the fields in which the configs differ; all others are the same.")
    elif tab == "lineage":
        relatives, problems = ancestry(runs, store)
        for problem in problems:
            st.warning(markup.quoted(problem, 500))
        display.show_table(lineage(relatives), "lineage")
        names = exhibits.names(everything)
        below = [child for run in runs for child in exhibits.children(everything, run.id, store)]
        for title, ids in (("Ancestors", [run.id for run in relatives[len(runs) :]]), ("Trained from these", below)):
            st.caption(f"{title}: {len(ids)}{', the first 12 of them' if len(ids) > 12 else ''}")
            for run_id in ids[:12]:
                label = markup.quoted(names.get(run_id, run_id), 200)
                st.page_link("questions/runs.py", label=label, query_params={"run": run_id, "tab": "Lineage"})
    elif tab == "environment":
        display.show_table(config_differences({run.id: run.environment for run in runs}), "environment")
        st.caption("Of one run: what it was computed with. Of several: in what they differ.")
    elif tab == "diagnosis":
        for finding in computed.cached(diagnose_all, runs, store, everything):
            st.markdown(markup.worded(f"{finding.run[:8]}, {finding.signature}: {finding.sentence} {finding.remedy}"))
            st.caption(markup.escaped(describe_numbers(finding.numbers)))
    else:
        display.show_table(run_details.stored_files(runs), "files", SIZES)
        st.code("\n".join(str(run.folder) for run in runs), language=None)

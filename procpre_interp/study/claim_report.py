"""The report of a judged claim: one HTML file with its verdict, figures and runs."""

from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from procpre_interp.claims.judged import JudgedClaim
from procpre_interp.claims.text import claim_title, contrasts_table, describe_claim
from procpre_interp.views.exhibits.claims import as_read, sequence_table
from procpre_interp.views.html_page import Section, write_report
from procpre_interp.views.plots.sequence import sequence_figure


def claim_report(table: pd.DataFrame, judged: JudgedClaim, figure: go.Figure | str, path: Path) -> Path:
    """The claim, its verdict, the contrasts, the primary one from look to look, the conditions, every cell."""
    steps = sequence_table(judged.primary, table)
    sequence = [sequence_figure(steps, as_read(judged.primary), title=claim_title(judged))] if len(steps) else []
    sections = [
        Section(title="Claim", blocks=[judged.claim, f"Predicted: {judged.prediction}", f"Margin: {judged.margin}"]),
        Section(title="Verdict", blocks=[describe_claim(judged), contrasts_table(judged), *sequence]),
        Section(title="Conditions", blocks=[figure]),
        Section(title="Protocol", blocks=[judged.protocol]),
        Section(title="Every run", blocks=[table]),
    ]
    if len(judged.looks):
        sections.insert(2, Section(title="Looks", blocks=[judged.looks]))
    return write_report(path, claim_title(judged), sections)

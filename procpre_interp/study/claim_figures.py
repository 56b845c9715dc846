"""Figures of claims: every condition's gain, or what was measured of it, with replicates as dots."""

from collections.abc import Callable, Iterable

import pandas as pd
import plotly.graph_objects as go

from procpre_interp.claims.judged import JudgedClaim
from procpre_interp.claims.measures import measure_of
from procpre_interp.claims.text import claim_title
from procpre_interp.stats.summary import paired_gains, replicate_bootstrap, replicate_matrix
from procpre_interp.views.plots.ladder import ladder

Figure = Callable[[pd.DataFrame, JudgedClaim], go.Figure]
"""Draws a figure from the sweep's table and the judged claim."""


def gains(table: pd.DataFrame, baseline: str = "none") -> pd.DataFrame:
    """Gain in accuracy over the baseline, paired by replicate, one row per condition: label, estimate, low, high, n."""
    paired = paired_gains(table, baseline)
    bounds = replicate_bootstrap(paired)
    return bounds.assign(label=_labels(table, bounds.index)).rename_axis("condition").reset_index()


def gains_figure(table: pd.DataFrame, judged: JudgedClaim, **references: float) -> go.Figure:
    """Every condition's gain over no pretraining, replicates as dots, with the margin of the primary contrast."""
    effects = gains(table).drop(columns="condition")  # whose colours would say nothing here
    effects[["estimate", "low", "high"]] *= 100
    dots = 100 * paired_gains(table)
    dots = dots.melt(value_name="value", ignore_index=False)
    dots = dots.assign(label=_labels(table, dots["condition"]))
    lines = {"no pretraining": 0.0, "margin": judged.primary.margin, **references}
    shown = {name: 100 * value for name, value in lines.items()}
    axis = "Gain over no pretraining (percentage points)"
    return ladder(effects, dots=dots, references=shown, x=axis, title=claim_title(judged))


def gains_beside_intact(table: pd.DataFrame, judged: JudgedClaim) -> go.Figure:
    """The same, with the gain of the condition `intact` as a line."""
    effects = gains(table).set_index("condition")
    return gains_figure(table, judged, intact=float(effects.loc["intact", "estimate"]))


def measure_figure(measure: str, axis: str) -> Figure:
    """A figure of one measure: every condition that has it, as a mean with its interval, replicates as dots, in
    the unit in which the claim is read."""

    def figure(table: pd.DataFrame, judged: JudgedClaim) -> go.Figure:
        rows = table.loc[(table["status"] == "finished") & table[measure].notna()]
        of_claim = (row.about for row in judged.contrasts if row.measure == measure)
        scale = next(of_claim, measure_of(measure)).scale
        means = replicate_bootstrap(replicate_matrix(rows, measure))
        means[["estimate", "low", "high"]] *= scale
        effects = means.assign(label=_labels(rows, means.index)).rename_axis("condition").reset_index()
        dots = rows[["label"]].assign(value=scale * rows[measure])
        return ladder(effects.drop(columns="condition"), dots=dots, x=axis, title=claim_title(judged))

    return figure


def _labels(table: pd.DataFrame, conditions: Iterable[str]) -> list[str]:
    labels = dict(zip(table["condition"], table["label"]))
    return [labels[name] for name in conditions]

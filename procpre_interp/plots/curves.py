"""Curves over training, survival curves, and accuracies with their intervals, by condition."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from procpre_interp.plots.theme import add_band, condition_colours, error_bars, fewest, lay_out, translucent
from procpre_interp.stats import interval_note, mean_curve, survival_curve

AXES = {
    "accuracy": "Validation accuracy (share of answer tokens)",
    "exact_match": "Validation exact match (share of sequences)",
    "loss_nats": "Validation loss (nats a scored token)",
}
"""Axis titles of the quantities that a history holds."""


def learning_curves(
    history: pd.DataFrame, value: str = "accuracy", *, threshold: float | None = None, title: str = ""
) -> go.Figure:
    """Mean over replicates against steps, its interval as a band, and a thin line for each replicate.

    `history` has one row an evaluation, with columns condition, replicate, split, step and, if wanted, label.
    """
    curves = mean_curve(history, value)
    labels, colours = _labels(history), condition_colours(history["condition"])
    figure = go.Figure()
    for condition, curve in _groups(curves, "condition"):
        colour, steps = colours[condition], curve["step"].to_numpy()
        same = {"legendgroup": condition, "name": labels[condition]}
        low, high = curve["low"].to_numpy(), curve["high"].to_numpy()
        add_band(figure, steps, low, high, colour, **same)
        if (curve["n"] > 1).to_numpy().any():
            x, y = _one_line(history, condition, value)
            thin = {"color": translucent(colour, 0.35), "width": 1}
            figure.add_scatter(x=x, y=y, mode="lines", line=thin, hoverinfo="skip", showlegend=False, **same)
        line = {"color": colour, "width": 2.5}
        hover = "step %{x:,}: %{y:.3f}"
        figure.add_scatter(x=steps, y=curve["mean"].to_numpy(), mode="lines", line=line, hovertemplate=hover, **same)
    if threshold is not None:
        figure.add_hline(threshold, line={"dash": "dot", "width": 1, "color": "#888888"})
    n = fewest(curves)
    caption = interval_note(n) if n < 2 else f"thick: mean, thin: replicates; {interval_note(n)}"
    lay_out(figure, title=title or "Learning", caption=caption, x="Step", y=AXES.get(value, value))
    if value != "loss_nats":
        figure.update_yaxes(range=[-0.02, 1.02], tickformat=".0%")
    return figure


def survival_curves(table: pd.DataFrame) -> go.Figure:
    """Kaplan-Meier curves: the share of replicates that have not broken through, against steps.

    `table` has one row a condition and replicate: breakthrough_step (NaN: none), limit and, if wanted, label.
    """
    labels, colours = _labels(table), condition_colours(table["condition"])
    curves = survival_curve(table)
    figure = go.Figure()
    for condition, curve in _groups(curves, "condition"):
        figure.add_scatter(
            x=curve["step"].to_numpy(),
            y=curve["survival"].to_numpy(),
            customdata=curve[["at_risk", "low", "high"]].to_numpy(),
            mode="lines+markers",
            line={"color": colours[condition], "width": 2.5, "shape": "hv"},
            marker={"size": 6},
            name=labels[condition],
            hovertemplate="step %{x:,}: %{y:.0%} [%{customdata[1]:.0%}, %{customdata[2]:.0%}] of "
            "%{customdata[0]} at risk",
        )
    n = fewest(curves)
    caption = f"Kaplan-Meier, n = {n} replicate{'s' * (n != 1)}; a line at 100 % to the end never broke through"
    y = "Replicates without breakthrough (share)"
    lay_out(figure, title="Time to breakthrough", caption=caption, x="Step", y=y)
    figure.update_xaxes(rangemode="tozero")
    return figure.update_yaxes(range=[-0.02, 1.05], tickformat=".0%")


def accuracy_by_condition(
    summary: pd.DataFrame, *, table: pd.DataFrame | None = None, paper: Mapping[str, float] | None = None
) -> go.Figure:
    """Mean accuracy of each condition with its interval, replicates as faint dots, the paper's as diamonds.

    `summary` is that of `stats.summarise_conditions`, `table` what it was made from; `paper` maps a condition
    to the accuracy that the paper reports, as a share.
    """
    labels, colours = _labels(summary), condition_colours(summary["condition"])
    mean = summary["accuracy_mean"].to_numpy()
    figure = go.Figure()
    if table is not None:
        figure.add_scatter(
            x=table["accuracy"].to_numpy(),
            y=[labels[name] for name in table["condition"]],
            mode="markers",
            marker={"color": [translucent(colours[name], 0.4) for name in table["condition"]], "size": 7},
            name="one replicate",
        )
    figure.add_scatter(
        x=mean,
        y=[labels[name] for name in summary["condition"]],
        mode="markers",
        marker={"color": [colours[name] for name in summary["condition"]], "size": 12},
        error_x=error_bars(mean, summary["accuracy_low"].to_numpy(), summary["accuracy_high"].to_numpy()),
        name="mean and interval",
    )
    reported = {name: share for name, share in (paper or {}).items() if name in labels}
    if reported:
        figure.add_scatter(
            x=list(reported.values()),
            y=[labels[name] for name in reported],
            mode="markers",
            marker={"symbol": "diamond-open", "size": 13, "color": "#B8A11F", "line": {"width": 2}},
            name="the paper",
        )
    figure.update_traces(hovertemplate="%{y}: %{x:.1%}")
    caption = interval_note(fewest(summary))
    x, height = "Test accuracy (share of answer tokens)", 230 + 40 * len(summary)
    lay_out(figure, title="Accuracy", caption=caption, x=x, y="", height=height)
    figure.update_xaxes(range=[-0.02, 1.02], tickformat=".0%")
    order = [labels[name] for name in summary["condition"]]
    return figure.update_yaxes(categoryorder="array", categoryarray=order[::-1])


def _labels(table: pd.DataFrame) -> dict[str, str]:
    """Condition -> label, in order of appearance; the condition itself where there is no label."""
    label = "label" if "label" in table else "condition"
    return dict(zip(table["condition"], table[label].fillna(table["condition"])))


def _groups(table: pd.DataFrame, column: str) -> Iterator[tuple[Any, pd.DataFrame]]:
    for name in dict.fromkeys(table[column]):
        yield name, table.loc[table[column] == name]


def _one_line(history: pd.DataFrame, condition: str, value: str) -> tuple[np.ndarray, np.ndarray]:
    """All replicates of a condition as one line with gaps: one trace instead of one a replicate."""
    rows = history.loc[(history["condition"] == condition) & (history["split"] == "validation")]
    gap = np.full((1, 2), np.nan)
    parts = [part for _, run in _groups(rows, "replicate") for part in (run[["step", value]].to_numpy(float), gap)]
    points = np.concatenate(parts)
    return points[:, 0], points[:, 1]

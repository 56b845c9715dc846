"""Curves over training, survival curves, and accuracies with their intervals, by condition."""

import html
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from procpre_interp.stats.summary import intervals_note, mean_curve, survival_curve
from procpre_interp.views.plots.theme import (
    add_band,
    condition_colours,
    error_bars,
    lay_out,
    translucent,
    with_n,
    wrapped,
)

AXES = {
    "accuracy": "Validation accuracy (% of answer tokens)",
    "exact_match": "Validation exact match (% of sequences)",
    "loss_nats": "Validation loss (nats per scored token)",
    "bits_per_byte": "Validation loss (bits per byte)",
    "perplexity": "Validation perplexity (per token)",
}
"""Axis titles of the quantities that a history holds."""

SHARES = ("accuracy", "exact_match")
"""Quantities from 0 to 1."""

PROGRESS = {
    "step": "Step",
    "tokens": "Tokens of phase 2",
    "teraflops": "Compute of phase 1 and phase 2 (10¹² floating-point operations)",
}
"""Columns that learning can be drawn against, and their axis titles."""

LEFT_OUT = 0.2
"""Share of training whose losses need not fit on the axis, so that the differences at the end can be seen."""

SCORES = {
    "accuracy": "Test accuracy (% of answer tokens)",
    "loss_nats": "Test loss (nats per token)",
    "bits_per_byte": "Test loss (bits per byte)",
    "perplexity": "Test perplexity (per token)",
}
"""Axis titles of scores of finished runs."""

ROW_WIDTH = 24
"""Letters in a line of a row's name."""


def learning_curves(
    history: pd.DataFrame,
    value: str = "accuracy",
    *,
    along: str = "step",
    threshold: float | None = None,
    title: str = "",
    x_title: str = "",
) -> go.Figure:
    """Mean over replicates against one of `PROGRESS`, its interval as a band, and a thin line for each replicate.

    `history` has one row per evaluation: columns condition, replicate, split, step, that of `along` and, if wanted,
    label. Replicates are averaged step by step, and each mean stands at their mean progress. `x_title` is by default
    that of `PROGRESS`.
    """
    history = history.loc[history["split"] == "validation"]
    curves = mean_curve(history, value)
    colours, counts = condition_colours(history["condition"]), _counts(curves)
    labels = _with_n(_labels(history), counts)
    figure = go.Figure()
    for condition, curve in _groups(curves, "condition"):
        rows = history.loc[history["condition"] == condition]
        colour, progress = colours[condition], rows.groupby("step")[along].mean().to_numpy()
        same = {"legendgroup": condition, "name": labels[condition]}
        low, high = curve["low"].to_numpy(), curve["high"].to_numpy()
        add_band(figure, progress, low, high, colour, **same)
        if (curve["n"] > 1).to_numpy().any():
            x, y = _one_line(rows, along, value)
            thin = {"color": translucent(colour, 0.35), "width": 1}
            figure.add_scatter(x=x, y=y, mode="lines", line=thin, hoverinfo="skip", showlegend=False, **same)
        line = {"color": colour, "width": 2.5}
        hover = f"{along} %{{x:{',' if along == 'step' else ',.4s'}}}: %{{y:.3f}}"
        mean = curve["mean"].to_numpy()
        figure.add_scatter(x=progress, y=mean, mode="lines", line=line, hovertemplate=hover, **same)
    if threshold is not None:
        figure.add_hline(threshold, line={"dash": "dot", "width": 1, "color": "#888888"})
    note = intervals_note(counts.values(), "in the legend")
    caption = note if max(counts.values(), default=0) < 2 else f"thick: mean, thin: replicates; {note}"
    lay_out(figure, title=title or "Learning", caption=caption, x=x_title or PROGRESS[along], y=AXES.get(value, value))
    if value in SHARES:
        figure.update_yaxes(range=[-0.02, 1.02], tickformat=".0%")
    return figure


def from_the_steep_part(figure: go.Figure, history: pd.DataFrame, value: str) -> go.Figure:
    """The curves of a loss with an axis that begins after the first `LEFT_OUT` of the steps; returns the figure."""
    later = history.loc[history["step"] >= LEFT_OUT * history["step"].max(), value].dropna().to_numpy(dtype=float)
    finite = later[np.isfinite(later)]
    if len(finite):
        margin = 0.05 * np.ptp(finite) or 0.1
        figure.update_yaxes(range=[finite.min() - margin, finite.max() + margin])
    return figure


def survival_curves(table: pd.DataFrame, *, title: str = "") -> go.Figure:
    """Kaplan-Meier curves: the share of replicates that have not broken through, against steps.

    `table` has one row per condition and replicate: breakthrough_step (NaN: none), limit and, if wanted, label. Curves
    that coincide are drawn into one another, from wide to narrow, so that each is seen.
    """
    known, colours = _labels(table), condition_colours(table["condition"])
    curves = survival_curve(table)
    counts = _counts(curves)
    labels = _with_n(known, counts)
    alike = coinciding(curves)
    figure = go.Figure()
    for condition, curve in _groups(curves, "condition"):
        group = next(names for names in alike if condition in names)
        below = len(group) - 1 - group.index(condition)  # curves that are drawn later, into this one
        figure.add_scatter(
            x=curve["step"].to_numpy(),
            y=curve["survival"].to_numpy(),
            customdata=curve[["at_risk", "low", "high"]].to_numpy(),
            mode="lines+markers",
            line={"color": colours[condition], "width": 2.5 + 5 * below, "shape": "hv"},
            marker={"size": 6 + 5 * below},
            name=labels[condition],
            hovertemplate="step %{x:,}: %{y:.0%} [%{customdata[1]:.0%}, %{customdata[2]:.0%}] of "
            "%{customdata[0]} at risk",
        )
    n = min(counts.values())
    shared = "" if max(counts.values()) > n else f", n = {n} replicate{'s' * (n != 1)}"
    caption = f"Kaplan-Meier{shared}; a line at 100 % to the end never broke through"
    for group in [names for names in alike if len(names) > 1]:
        caption += f"; {len(group)} conditions lie on one line: {', '.join(known[name] for name in group)}"
    y = "Replicates without breakthrough (%)"
    lay_out(figure, title=title or "Time to breakthrough", caption=caption, x="Step", y=y)
    figure.update_xaxes(rangemode="tozero")
    return figure.update_yaxes(range=[-0.02, 1.05], tickformat=".0%")


def coinciding(curves: pd.DataFrame) -> list[list[str]]:
    """The conditions of a table of `survival_curve`, in groups that have the same curve."""
    groups: dict[tuple[tuple[float, float], ...], list[str]] = {}
    for condition, curve in _groups(curves, "condition"):
        drops = curve.loc[curve["survival"].diff().fillna(1) != 0]
        points = [*drops[["step", "survival"]].to_numpy().tolist(), curve[["step", "survival"]].iloc[-1].tolist()]
        groups.setdefault(tuple(map(tuple, points)), []).append(condition)
    return list(groups.values())


def accuracy_by_condition(
    summary: pd.DataFrame,
    *,
    table: pd.DataFrame | None = None,
    paper: Mapping[str, float] | None = None,
    title: str = "",
) -> go.Figure:
    """`score_by_condition` of the accuracy, with the paper's as diamonds.

    `summary` is that of `stats.summarise_conditions`; `paper` maps a condition to the accuracy that the paper reports,
    as a share.
    """
    summary = summary.assign(n=summary["accuracy_n"])  # diverged runs have none
    figure = score_by_condition(summary, "accuracy", table=table, title=title or "Accuracy")
    labels = _rows(summary)
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
    return figure.update_xaxes(range=[-0.02, 1.02], tickformat=".0%")


def score_by_condition(
    summary: pd.DataFrame, value: str, *, table: pd.DataFrame | None = None, title: str = ""
) -> go.Figure:
    """Mean of one of `SCORES` in each condition with its interval, replicates as faint dots.

    `summary` has one row per condition, with n and the mean, low and high of the score; `table` is what it was made
    from.
    """
    labels, colours = _rows(summary), condition_colours(summary["condition"])
    mean = summary[f"{value}_mean"].to_numpy()
    figure = go.Figure()
    if table is not None:
        figure.add_scatter(
            x=table[value].to_numpy(),
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
        error_x=error_bars(mean, summary[f"{value}_low"].to_numpy(), summary[f"{value}_high"].to_numpy()),
        name="mean and interval",
    )
    figure.update_traces(hovertemplate="%{y}: %{x:.4g}")
    height = 230 + 40 * len(summary)
    lay_out(figure, title=title, caption=intervals_note(summary["n"]), x=SCORES[value], y="", height=height)
    return figure.update_yaxes(categoryorder="array", categoryarray=list(labels.values())[::-1])


def _rows(summary: pd.DataFrame) -> dict[str, str]:
    """Condition -> the name of its row, broken into lines, with its n where these differ."""
    known = _labels(summary)
    names = with_n((known[name] for name in summary["condition"]), summary["n"])
    return dict(zip(summary["condition"], (wrapped(name, ROW_WIDTH) for name in names)))


def _labels(table: pd.DataFrame) -> dict[str, str]:
    """Condition -> label, markup escaped, in order of appearance; the condition itself where there is no label."""
    label = "label" if "label" in table else "condition"
    names = table[label].fillna(table["condition"])
    return {condition: html.escape(str(name), quote=False) for condition, name in zip(table["condition"], names)}


def _counts(curves: pd.DataFrame) -> dict[str, int]:
    """The smallest n of each condition's curve."""
    return {str(name): int(curve["n"].to_numpy().min()) for name, curve in _groups(curves, "condition")}


def _with_n(labels: Mapping[str, str], counts: Mapping[str, int]) -> dict[str, str]:
    """Names of the conditions that are drawn, with the n of each where they differ."""
    return dict(zip(counts, with_n((labels[name] for name in counts), counts.values())))


def _groups(table: pd.DataFrame, column: str) -> Iterator[tuple[Any, pd.DataFrame]]:
    for name in dict.fromkeys(table[column]):
        yield name, table.loc[table[column] == name]


def _one_line(rows: pd.DataFrame, along: str, value: str) -> tuple[np.ndarray, np.ndarray]:
    """All replicates of a condition as one line with gaps: one trace instead of one per replicate."""
    gap = np.full((1, 2), np.nan)
    parts = [part for _, run in _groups(rows, "replicate") for part in (run[[along, value]].to_numpy(float), gap)]
    points = np.concatenate(parts)
    return points[:, 0], points[:, 1]

"""What phase 1 saves and what it costs, by condition, as shares of the baseline's budget."""

import html

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from procpre_interp.stats.savings import SHARES
from procpre_interp.stats.summary import intervals_note
from procpre_interp.views.plots.axes import require
from procpre_interp.views.plots.theme import OTHERS, condition_colours, error_bars, lay_out, with_n, wrapped

SYMBOLS = dict(zip(SHARES, ("circle-open", "square", "diamond")))
SHADES = dict(zip(SHARES, OTHERS))
ROW_WIDTH = 24
"""Letters in a line of a row's name."""


def savings_by_condition(summary: pd.DataFrame, *, title: str = "") -> go.Figure:
    """Each share of `stats.savings.SHARES` with its interval, one row per condition of `summarise_savings`."""
    require(summary, ["condition", "label", "n", *(f"{name}_mean" for name in SHARES)], "savings")
    names = with_n((html.escape(str(label), quote=False) for label in summary["label"]), summary["n"])
    labels = [wrapped(name, ROW_WIDTH) for name in names]
    figure = go.Figure()
    for name, said in SHARES.items():
        mean, low, high = (summary[f"{name}_{part}"].to_numpy(dtype=float) for part in ("mean", "low", "high"))
        figure.add_scatter(
            x=mean,
            y=labels,
            mode="markers",
            marker={"symbol": SYMBOLS[name], "size": 11, "color": SHADES[name], "line": {"width": 2}},
            error_x=error_bars(mean, low, high),
            name=said,
            hovertemplate="%{y}: %{x:.1%}",
        )
    figure.add_vline(0, line={"dash": "dot", "width": 1, "color": "#888888"})
    x = "Saved until the final loss of no pretraining (% of its budget)"
    height = 230 + 50 * len(summary)
    lay_out(figure, title=title or "Savings", caption=intervals_note(summary["n"]), x=x, y="", height=height)
    figure.update_xaxes(tickformat=".0%")
    return figure.update_yaxes(type="category", categoryorder="array", categoryarray=labels[::-1])


def saved_against_spent(summary: pd.DataFrame, *, title: str = "") -> go.Figure:
    """Tokens of phase 2 saved against the tokens of phase 1, one marker per condition of `summarise_savings`, with the
    line on which one is the other: above it, phase 1 saves more tokens than it takes."""
    require(summary, ["condition", "label", "n", "semantic_saved_mean", "phase1_tokens_share_mean"], "savings")
    colours = condition_colours(summary["condition"])
    spent = summary["phase1_tokens_share_mean"].to_numpy(dtype=float)
    saved, low, high = (summary[f"semantic_saved_{part}"].to_numpy(dtype=float) for part in ("mean", "low", "high"))
    names = with_n((html.escape(str(label), quote=False) for label in summary["label"]), summary["n"])
    figure = go.Figure()
    for i, (condition, name) in enumerate(zip(summary["condition"], names)):
        figure.add_scatter(
            x=spent[i : i + 1],
            y=saved[i : i + 1],
            mode="markers",
            marker={"size": 11, "color": colours[condition]},
            error_y=error_bars(saved[i : i + 1], low[i : i + 1], high[i : i + 1]),
            name=name,
            hovertemplate="phase 1 %{x:.1%}, saved %{y:.1%}",
        )
    end = max(0.01, float(np.nan_to_num(spent).max()))
    dash = {"dash": "dash", "width": 1, "color": "#888888"}
    figure.add_scatter(x=[0, end], y=[0, end], mode="lines", line=dash, name="as much as phase 1 takes")
    x = "Tokens of phase 1 (% of the budget of no pretraining)"
    y = "Tokens of phase 2 saved (% of that budget)"
    lay_out(figure, title=title or "Saved and spent", caption=intervals_note(summary["n"], "in the legend"), x=x, y=y)
    figure.update_yaxes(tickformat=".0%")
    return figure.update_xaxes(tickformat=".0%", rangemode="tozero")

"""What figures ask of their tables, and the axes that they share: nothing twice, and labels that can be read."""

import html
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

MAX_PRINTED = 200
"""Cells up to which a heat map prints its numbers; beyond it they are in the hover text alone."""

MAX_TICKS = 48
"""Positions that label an axis, or the axes of panels side by side; of longer sequences every k-th does."""


def require(table: pd.DataFrame, columns: Sequence[str], what: str) -> None:
    """Raises `ValueError` for a table that has no rows, or lacks a column that the figure draws."""
    if table.empty:
        raise ValueError(f"the table of {what} has no rows: there is nothing to draw")
    missing = [column for column in columns if column not in table]
    if missing:
        raise ValueError(f"the table of {what} has columns {list(table)}; it lacks {missing}")


def refuse_twice(rows: pd.DataFrame, keys: list[str]) -> None:
    """Raises `ValueError` for two rows in one place: a cell drawn twice would show the second alone."""
    twice = rows.duplicated(keys)
    if twice.any():
        where = ", ".join(f"{key} {value}" for key, value in rows.loc[twice, keys].iloc[0].items())
        raise ValueError(f"two values for {where}; a figure shows one run or condition: select it first")


def visible(token: str) -> str:
    """A token as plotly shows it: markup escaped, and a mark where there would be nothing to see."""
    return html.escape(token.replace(" ", "␣").replace("\n", "⏎"), quote=False) or "∅"


def ticks(labels: Sequence[str], at_most: int = MAX_TICKS) -> dict[str, Any]:
    """Labels of an axis whose cells stand at 0, 1, ...: all of them, or every k-th."""
    shown = list(range(0, len(labels), -(-len(labels) // at_most)))
    return {"tickvals": shown, "ticktext": [labels[index] for index in shown]}


def log_axis(largest: int) -> dict[str, Any]:
    """A logarithmic axis for counts from 0 to `largest`, each drawn at count + 1 and labelled with the count."""
    counts = [0, *(10**power for power in range(len(str(largest))) if 10**power <= largest)]
    room = float(np.log10(largest + 1)) * 0.03 or 0.1
    return {
        "type": "log",
        "tickvals": [count + 1 for count in counts],
        "ticktext": [f"{count:,}" for count in counts],
        "range": [-room, float(np.log10(largest + 1)) + room],
    }


def add_click_targets(figure: go.Figure, name: Callable[[Any, Any], str] | None = None, *, size: int = 30) -> go.Figure:
    """A transparent marker of so many pixels on each cell of the heat maps; returns the figure.

    Plotly selects markers, but no cells of a heat map. A marker shows its cell's hover text and has it as `customdata`:
    the heat map's own, or `name(x, y)` and the number. Cells without a number have none.
    """
    heatmaps: list[Any] = list(figure.select_traces({"type": "heatmap"}))
    for trace in heatmaps:
        rows, columns = np.nonzero(np.isfinite(np.asarray(trace.z, dtype=float)))
        x, y = np.asarray(trace.x, dtype=object)[columns], np.asarray(trace.y, dtype=object)[rows]
        if name is None:
            hover = np.asarray(trace.customdata, dtype=object)[rows, columns]
        else:
            values = np.asarray(trace.z, dtype=float)[rows, columns]
            hover = [f"{name(*place)}: {value:.3g}" for *place, value in zip(x, y, values)]
        figure.add_scatter(
            x=x,
            y=y,
            mode="markers",
            marker={"size": size, "symbol": "square", "color": "#888888", "opacity": 0},
            selected={"marker": {"opacity": 0.35}},
            unselected={"marker": {"opacity": 0}},
            customdata=hover,
            hovertemplate="%{customdata}<extra></extra>",
            showlegend=False,
            xaxis=trace.xaxis,
            yaxis=trace.yaxis,
        )
    return figure

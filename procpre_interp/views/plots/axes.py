"""What figures ask of their tables, and the axes that they share: nothing twice, and labels that can be read."""

import html
import math
from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float

from procpre_interp.views.plots.theme import wrapped

MAX_PRINTED = 200
"""Cells up to which a heat map prints its numbers; beyond it they are in the hover text alone."""

HOVER_TEXT = "%{hovertext}<extra></extra>"
"""Shows the hover text of a cell, and no name of its trace."""

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


class Panel(TypedDict):
    """Where a trace or a line stands in a figure of several panels."""

    row: int
    col: int


class Ticks(TypedDict):
    """Labels of an axis, and where they stand."""

    tickvals: Sequence[float | int]
    ticktext: list[str]


class LogTicks(Ticks):
    """Labels of a logarithmic axis."""

    type: str


class LogAxis(LogTicks):
    """A logarithmic axis with its ends."""

    range: list[float]


def ticks(labels: Sequence[str], at_most: int = MAX_TICKS) -> Ticks:
    """Labels of an axis whose cells stand at 0, 1, ...: all of them, or every k-th."""
    shown = list(range(0, len(labels), -(-len(labels) // at_most)))
    return {"tickvals": shown, "ticktext": [labels[index] for index in shown]}


def colour_axis(scale: Sequence[Any], low: float, high: float, title: str) -> dict[str, object]:
    """The colours of heat maps with `coloraxis="coloraxis"`, for `update_layout(coloraxis=...)`.

    A page's theme colours the labels of an axis, but not those of a trace's own bar, which would be dim on dark. The
    bar lies below the plot, where it takes nothing from the width of a phone.
    """
    place = {"orientation": "h", "yref": "container", "y": 0.0, "yanchor": "bottom", "x": 0.5, "len": 1.0, "nticks": 4}
    bar = {"title": {"text": wrapped(title, 16), "side": "right"}, "thickness": 12, **place}
    return {"colorscale": scale, "cmin": low, "cmax": high, "colorbar": bar}


def add_cells(
    figure: go.Figure, values: Float[np.ndarray, "row column"], *, printed: str = "", gap: int = 2, **trace: Any
) -> None:
    """Add a heat map of the figure's `colour_axis`, whose cells stand at 0, 1, ... and show their `hovertext`.

    `printed` is the template of what a cell prints, where there are at most `MAX_PRINTED`; `gap` the pixels between
    cells; `trace` what else plotly's trace has.
    """
    n_rows, n_columns = values.shape
    place = {"x": list(range(n_columns)), "y": list(range(n_rows)), "xgap": gap, "ygap": gap, "coloraxis": "coloraxis"}
    words = {"texttemplate": printed if values.size <= MAX_PRINTED else None, "hovertemplate": HOVER_TEXT}
    figure.add_heatmap(z=values, **(place | words | trace))


def label_cells(figure: go.Figure, rows: Sequence[str], columns: Sequence[str]) -> None:
    """Name the rows of `add_cells`, the first one on top, and as many columns as there is room for.

    Numbers are names too: without labels plotly would read them as a scale.
    """
    bare = {"showgrid": False, "zeroline": False}
    figure.update_xaxes(**ticks(columns), **bare).update_yaxes(**ticks(rows, len(rows)), **bare, autorange="reversed")


def log_axis(largest: int) -> LogAxis:
    """A logarithmic axis for counts from 0 to `largest`, each drawn at count + 1 and labelled with the count."""
    counts = [0, *(10**power for power in range(len(str(largest))) if 10**power <= largest)]
    # 0 and 1 stand so close to one another on a long axis that their labels would overlap.
    counts = [count for count in counts if count != 1 or largest < 1000]
    room = float(np.log10(largest + 1)) * 0.03 or 0.1
    return {
        "type": "log",
        "tickvals": [count + 1 for count in counts],
        "ticktext": [f"{count:,}" for count in counts],
        "range": [-room, float(np.log10(largest + 1)) + room],
    }


def log_ticks(low: float, high: float) -> LogTicks:
    """Labels of a logarithmic axis: powers of ten where it has two or more of them, otherwise 1, 2 and 5 times those.

    Raises `ValueError` for a bound that is not above 0.
    """
    if low <= 0:
        raise ValueError(f"low={low}; a logarithmic axis starts above 0")
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    tens = [10.0**power for power in powers if low <= 10.0**power <= high]
    fine = [times * 10.0**power for power in powers for times in (1, 2, 5) if low <= times * 10.0**power <= high]
    step = -(-len(tens) // 5) or 1  # at most five labels
    shown = tens[::step] if len(tens) >= 2 else fine or [low]
    return {"type": "log", "tickvals": shown, "ticktext": [f"{value:.2g}" for value in shown]}


def add_click_targets(figure: go.Figure) -> go.Figure:
    """A transparent bar over the whole of each cell of the heat maps; returns the figure.

    Plotly selects bars and markers, but no cells of a heat map. Cells must stand at 0, 1, ... on both axes. A bar shows
    its cell's `hovertext` and has its cell's `customdata`, which is what a page is told of a click. Cells without a
    number have none.
    """
    heatmaps: list[Any] = list(figure.select_traces({"type": "heatmap"}))
    for trace in heatmaps:
        shape = np.asarray(trace.z).shape
        cells = [(row, column) for row, column in np.ndindex(shape) if np.isfinite(trace.z[row][column])]
        figure.add_bar(
            x=[column for _, column in cells],
            y=[1] * len(cells),
            base=[row - 0.5 for row, _ in cells],
            width=1,
            marker={"color": "#888888", "opacity": 0, "line": {"width": 0}},
            selected={"marker": {"opacity": 0.35}},
            unselected={"marker": {"opacity": 0}},
            customdata=[trace.customdata[row][column] for row, column in cells],
            hovertext=[trace.hovertext[row][column] for row, column in cells],
            hovertemplate=HOVER_TEXT,
            showlegend=False,
            xaxis=trace.xaxis,
            yaxis=trace.yaxis,
        )
        figure.update_xaxes(range=[-0.5, shape[1] - 0.5]).update_yaxes(range=[shape[0] - 0.5, -0.5])
    return figure.update_layout(barmode="overlay", bargap=0)

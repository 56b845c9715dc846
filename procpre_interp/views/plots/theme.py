"""How every figure looks: a fixed colour for each component and condition, readable on light and on dark."""

import textwrap
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float, Real

COMPONENT_COLOURS = {
    "attn": "#4477AA",
    "mlp": "#EE7733",
    "ln": "#009988",
    "embed": "#AA3377",
    "pos": "#B8A11F",
    "unembed": "#CC6699",
    "all": "#228833",
}
"""The same in every figure of the project. Paul Tol's schemes, told apart by colour-blind readers."""

CONDITION_COLOURS = {
    "none": "#888888",
    "dyck_full": COMPONENT_COLOURS["all"],
    "attention_ln": COMPONENT_COLOURS["attn"],
    "mlp_ln": COMPONENT_COLOURS["mlp"],
    "dyck_shuffled_weights": "#DD4455",
    "shuffled_sequences": "#7755CC",
}
"""A transfer of one component has that component's colour; grey is no pretraining."""

OTHERS = ["#33BBEE", "#99772E", "#BB4488", "#667722", "#55AAAA", "#AA6655"]
"""Colours of conditions without one of their own, in alphabetical order."""

TITLE_WIDTH, CAPTION_WIDTH, X_WIDTH, Y_WIDTH = 46, 58, 34, 28
"""Letters in a line of a figure's title, caption and axis titles: what a screen of 400 pixels has room for."""

TITLE_LINE, CAPTION_LINE, PANEL_LINE = 20, 16, 17
"""Pixels of a line of a title, of a caption, and of the titles of panels."""

GRID = "rgba(128, 128, 128, 0.25)"
TRANSPARENT = "rgba(0, 0, 0, 0)"


def condition_colours(conditions: Iterable[str]) -> dict[str, str]:
    """A colour for each condition: its own, or the next of `OTHERS`."""
    conditions = list(dict.fromkeys(conditions))
    others = sorted(name for name in conditions if name not in CONDITION_COLOURS)
    free = {name: OTHERS[index % len(OTHERS)] for index, name in enumerate(others)}
    return {name: CONDITION_COLOURS.get(name) or free[name] for name in conditions}


def translucent(colour: str, opacity: float) -> str:
    """A `#RRGGBB` colour as rgba."""
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {opacity})"


def error_bars(
    estimate: Float[np.ndarray, " row"], low: Float[np.ndarray, " row"], high: Float[np.ndarray, " row"]
) -> dict[str, object]:
    """An interval around each point, for `error_x`; none where a bound is NaN."""
    lengths = {"array": np.nan_to_num(high - estimate), "arrayminus": np.nan_to_num(estimate - low)}
    return {**lengths, "color": "#888888"}


def add_band(
    figure: go.Figure,
    x: Real[np.ndarray, " point"],
    low: Float[np.ndarray, " point"],
    high: Float[np.ndarray, " point"],
    colour: str,
    **trace: Any,
) -> None:
    """Draw the area between two curves; nothing where a bound is NaN. `trace`: name and legend group."""
    if np.isnan(low).any():
        return
    figure.add_scatter(
        x=np.concatenate([x, x[::-1]]),
        y=np.concatenate([high, low[::-1]]),
        mode="lines",
        fill="toself",
        fillcolor=translucent(colour, 0.18),
        line_width=0,
        hoverinfo="skip",
        showlegend=False,
        **trace,
    )


def with_n(labels: Iterable[str], counts: Iterable[int]) -> list[str]:
    """Names of rows, with the n of each where they differ (`intervals_note` says the one that all have)."""
    sizes = [int(n) for n in counts]
    if len(set(sizes)) < 2:
        return list(labels)
    blank = "\u00a0"  # no line may break within the brackets
    return [f"{label} (n{blank}={blank}{n})" for label, n in zip(labels, sizes, strict=True)]


def fewest(table: pd.DataFrame) -> int:
    """The smallest n of a table, which the caption owes to the reader; 0 for an empty one."""
    return int(table["n"].to_numpy().min()) if len(table) else 0


def wrapped(text: str, width: int = TITLE_WIDTH) -> str:
    """The text in lines of at most `width` characters, as plotly never breaks a line itself. A longer word stays
    whole, and lines that are broken already stay broken. Markup must be escaped."""
    lines = (textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False) for line in text.split("<br>"))
    return "<br>".join(part for line in lines for part in line or [""])


def lay_out(
    figure: go.Figure, *, title: str, caption: str, x: str, y: str, height: int = 420, headings: int = 0
) -> go.Figure:
    """Give the figure its title, caption (n and kind of interval), and axis titles with units; returns it.

    Backgrounds are transparent and the grid grey, so that the page around decides between light and dark. Titles begin
    at the left edge and are broken into lines, so that a phone shows all of them; `height` is that of a figure whose
    title and caption have one line each, which longer ones add to. `headings` is how many lines the titles of panels
    have, which stand in the margin above the plot too.
    """
    heading, note = wrapped(title, TITLE_WIDTH), wrapped(caption, CAPTION_WIDTH)
    more = TITLE_LINE * heading.count("<br>") + CAPTION_LINE * note.count("<br>") + PANEL_LINE * headings
    figure.update_layout(
        title={
            "text": heading,
            "font": {"size": 15},
            "subtitle": {"text": note, "font": {"size": 12, "color": "#888888"}},
            "x": 0,
            "xref": "container",
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "pad": {"t": 12, "l": 4},
        },
        paper_bgcolor=TRANSPARENT,
        plot_bgcolor=TRANSPARENT,
        font={"size": 13, "color": "#777777"},
        margin={"l": 60, "r": 20, "t": 72 + more, "b": 90},
        height=height + more,
        hovermode="closest",
        legend={"orientation": "h", "yref": "container", "y": 0.01, "yanchor": "bottom", "x": 0},
        modebar={"bgcolor": TRANSPARENT, "color": GRID, "activecolor": "#888888"},
    )
    for update, name, width in ((figure.update_xaxes, x, X_WIDTH), (figure.update_yaxes, y, Y_WIDTH)):
        named = {"text": wrapped(name, width), "font": {"size": 13}}
        update(title=named, gridcolor=GRID, zerolinecolor=GRID, automargin=True)
    return figure

"""How every figure looks: a fixed colour for each component and condition, readable on light and on dark."""

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
"""For conditions without a colour of their own, in alphabetical order."""

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
) -> dict[str, Any]:
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


def fewest(table: pd.DataFrame) -> int:
    """The smallest n of a table, which the caption owes to the reader; 0 for an empty one."""
    return int(table["n"].to_numpy().min()) if len(table) else 0


def lay_out(figure: go.Figure, *, title: str, caption: str, x: str, y: str, height: int = 420) -> go.Figure:
    """Give the figure its title, caption (n and kind of interval), and axis titles with units; returns it.

    Backgrounds are transparent and the grid grey, so that the page around decides between light and dark.
    """
    figure.update_layout(
        title={
            "text": title,
            "subtitle": {"text": caption, "font": {"size": 12, "color": "#888888"}},
            "x": 0,
            "xref": "paper",
            "y": 0.97,
            "yanchor": "top",
        },
        paper_bgcolor=TRANSPARENT,
        plot_bgcolor=TRANSPARENT,
        font={"size": 13, "color": "#777777"},
        margin={"l": 60, "r": 20, "t": 80, "b": 90},
        height=height,
        hovermode="closest",
        legend={"orientation": "h", "yref": "container", "y": 0.01, "yanchor": "bottom", "x": 0},
        modebar={"bgcolor": TRANSPARENT, "color": GRID, "activecolor": "#888888"},
    )
    figure.update_xaxes(title=x, gridcolor=GRID, zerolinecolor=GRID, automargin=True)
    figure.update_yaxes(title=y, gridcolor=GRID, zerolinecolor=GRID, automargin=True)
    return figure

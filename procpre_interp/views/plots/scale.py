"""The gain by the size of the model, with the fitted line within the sizes that were measured."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float

from procpre_interp.stats.summary import intervals_note
from procpre_interp.views.plots.axes import log_ticks, require
from procpre_interp.views.plots.theme import OTHERS, add_band, error_bars, lay_out


def gain_by_size(trends: pd.DataFrame, *, unit: str, title: str = "") -> go.Figure:
    """Gains of `stats.scaling.gain_trend` with their intervals, and the line with its own; a colour per `measure`."""
    require(trends, ["measure", "kind", "n_parameters", "estimate", "low", "high", "n"], "trend")
    figure, measured = go.Figure(), trends.loc[trends["kind"] == "measured"]
    for colour, (measure, rows) in zip(OTHERS, trends.groupby("measure", sort=False)):
        points, line = (_columns(rows.loc[rows["kind"] == kind]) for kind in ("measured", "fitted"))
        sizes, estimate, low, high = points
        figure.add_scatter(
            x=sizes,
            y=estimate,
            mode="markers",
            marker={"size": 10, "color": colour},
            error_y=error_bars(estimate, low, high),
            name=str(measure),
            legendgroup=str(measure),
            hovertemplate="%{x:,.0f} parameters: %{y:.3f}",
        )
        x, y, low, high = line
        figure.add_scatter(
            x=x, y=y, mode="lines", line={"color": colour}, legendgroup=str(measure), showlegend=False, hoverinfo="skip"
        )
        add_band(figure, x, low, high, colour, legendgroup=str(measure))
    figure.add_hline(0, line={"dash": "dot", "width": 1, "color": "#888888"})
    caption = f"{intervals_note(measured['n'])} Lines are fitted to the measured sizes, and end with them."
    lay_out(figure, title=title or "Gain by size", caption=caption, x="Parameters", y=f"Gain ({unit})")
    low, high = (float(bound) for bound in (measured["n_parameters"].min(), measured["n_parameters"].max()))
    return figure.update_xaxes(**log_ticks(low, high))


def _columns(rows: pd.DataFrame) -> list[Float[np.ndarray, " size"]]:
    return [rows[name].to_numpy(dtype=float) for name in ("n_parameters", "estimate", "low", "high")]

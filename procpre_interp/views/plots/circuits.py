"""What circuits of growing size carry."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from procpre_interp.views.plots.axes import log_axis, refuse_twice, require
from procpre_interp.views.plots.patching import gap_note
from procpre_interp.views.plots.theme import (
    OTHERS,
    add_band,
    lay_out,
)

SEARCH_COLOURS = {"top": OTHERS[0], "greedy": OTHERS[2], "random": "#888888"}
"""How the edges of a circuit were chosen."""


PANELS = {
    "faithfulness": "Faithfulness:<br>the circuit alone",
    "completeness": "Completeness:<br>all edges but those",
}


def faithfulness_curve(table: pd.DataFrame, *, title: str = "") -> go.Figure:
    """Faithfulness of circuits of growing size, and their completeness: one panel each, one curve per search.

    `table` is that of `patch.circuit_curve`: search, n_edges, draw, faithfulness and, if wanted, completeness. Of
    several draws, which are random circuits, it shows the median and the 5th to the 95th percentile. A circuit of m
    edges stands at m + 1, so that the empty one has a place. Where there are no shares (see `gap_note`), one panel has
    the metric itself.
    """
    require(table, ["search", "n_edges", "draw", "faithfulness"], "circuits")
    refuse_twice(table, ["search", "n_edges", "draw"])
    without_shares = gap_note(table)
    shown = {"value": "The circuit alone"} if without_shares else PANELS
    panels = [measure for measure in shown if measure in table]
    headings = [shown[measure] for measure in panels]
    figure = make_subplots(cols=len(panels), shared_yaxes=True, horizontal_spacing=0.04, subplot_titles=headings)
    n_draws = 0
    for search in dict.fromkeys(table["search"]):
        rows = table.loc[table["search"] == search]
        sizes = np.unique(rows["n_edges"].to_numpy(int))
        by_size = [rows.loc[rows["n_edges"] == size] for size in sizes]
        n = min(len(draws) for draws in by_size)
        n_draws = n if n > 1 else n_draws
        colour = SEARCH_COLOURS.get(search, OTHERS[4])
        for column, measure in enumerate(panels, 1):
            values = [np.quantile(draws[measure].to_numpy(float), [0.05, 0.5, 0.95]) for draws in by_size]
            low, middle, high = np.transpose(values)
            trace = {"name": f"{search}, median" if n > 1 else search, "legendgroup": search, "row": 1, "col": column}
            if n > 1:
                add_band(figure, sizes + 1, low, high, colour, **trace)
            figure.add_scatter(
                x=sizes + 1,
                y=middle,
                mode="lines+markers",
                line={"color": colour, "width": 2.5},
                marker={"size": 5},
                customdata=np.column_stack([sizes, low, high]),
                hovertemplate="%{customdata[0]:,} edges: %{y:.3f}"
                + (" [%{customdata[1]:.3f}, %{customdata[2]:.3f}]" if n > 1 else ""),
                showlegend=column == 1,
                **trace,
            )
    caption = "the model is not told from chance" if without_shares else "1: the whole model, 0: no edge"
    caption += f"; n = {n_draws} random circuits a size, band: 5th to 95th percentile" if n_draws else ""
    y = "Metric" if without_shares else "Share of the metric"
    lay_out(figure, title=title or "What circuits carry", caption=caption, x="Edges in the circuit", y=y, headings=2)
    for level in () if without_shares else (0, 1):
        figure.add_hline(level, line={"dash": "dot", "width": 1, "color": "#888888"})
    figure.update_annotations(font_size=12)
    figure.update_xaxes(**log_axis(int(table["n_edges"].to_numpy().max())))
    figure.update_yaxes(title="").update_yaxes(title=y, col=1)
    return figure

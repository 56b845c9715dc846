"""A contrast from replicate to replicate: its estimate and its confidence sequence against n, with the margin."""

import html

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from procpre_interp.claims.judged import ContrastResult
from procpre_interp.stats.confidence_sequence import FEWEST
from procpre_interp.stats.resampling import interval_note
from procpre_interp.views.plots.axes import require
from procpre_interp.views.plots.claims import SIDE, axis_span, margin_lines, predicted_sides
from procpre_interp.views.plots.theme import add_band, lay_out, translucent

ESTIMATE = "#4477AA"


def sequence_figure(steps: pd.DataFrame, contrast: ContrastResult, *, title: str = "") -> go.Figure:
    """Estimate and bounds after each replicate, the predicted side as an area, and the margin as a line.

    `steps` is that of `looks.sequence_of`, in the unit of the contrast's numbers.
    """
    require(steps, ["n", "replicate", "estimate", "low", "high"], "steps of a sequence")
    predicted = contrast.predicted or ""
    numbers = steps[["estimate", "low", "high"]].to_numpy(dtype=float)
    lines = margin_lines(predicted, contrast.margin)
    bottom, top = axis_span(np.append(numbers, lines))
    figure = go.Figure()
    for low, high in predicted_sides(predicted, contrast.margin, bottom, top):
        figure.add_hrect(low, high, fillcolor=translucent(SIDE, 0.12), line_width=0)
    for margin in lines:
        figure.add_hline(margin, line={"dash": "dot", "width": 1.5, "color": SIDE})
    n = steps["n"].to_numpy()
    looked = np.isfinite(numbers[:, 1])  # a t mixture begins later
    add_band(figure, n[looked], numbers[looked, 1], numbers[looked, 2], ESTIMATE, name="interval")
    figure.add_scatter(
        x=n,
        y=numbers[:, 0],
        mode="lines+markers",
        line={"color": ESTIMATE, "width": 2.5},
        name="mean so far",
        customdata=steps[["low", "high", "replicate"]].to_numpy(dtype=float),
        hovertemplate="n = %{x} (seed %{customdata[2]:.0f}): %{y:+.4g} [%{customdata[0]:+.4g}, %{customdata[1]:+.4g}]",
    )
    figure.add_vline(FEWEST - 0.5, line={"dash": "dot", "width": 1, "color": "#888888"})
    caption = f"{interval_note(contrast.n, contrast.interval, contrast.level)}; no verdict left of n = {FEWEST}"
    heading = html.escape(title or contrast.contrast, quote=False)
    lay_out(figure, title=heading, caption=caption, x="Replicates", y=contrast.about.titled("the contrast"))
    return figure.update_yaxes(range=[bottom, top])

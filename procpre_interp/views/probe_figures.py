"""Figures of probes, by the names that these declare."""

from collections.abc import Callable

import pandas as pd
import plotly.graph_objects as go

from procpre_interp.core.messages import unknown_name
from procpre_interp.probe.base import Declared
from procpre_interp.views.plots.attention import score_heatmap, timeline_figure
from procpre_interp.views.plots.measures import SYMBOLS, measure_dots
from procpre_interp.views.plots.weights import cka_heatmap, drift_figure, spectrum_figure


def _heatmaps(table: pd.DataFrame) -> list[go.Figure]:
    """One of each score."""
    first = _first(table)
    return [score_heatmap(first, score) for score in dict.fromkeys(first["score"])]


def _first(table: pd.DataFrame) -> pd.DataFrame:
    """The first run's rows: an average of spectra is none."""
    return table.loc[table["run"] == table["run"].iloc[0]]


FIGURES: dict[str, Callable[[pd.DataFrame], list[go.Figure]]] = {
    "score_heatmap": _heatmaps,
    "spectrum_figure": lambda table: [spectrum_figure(_first(table))],
    "drift_figure": lambda table: [drift_figure(_first(table))],
    "cka_heatmap": lambda table: [cka_heatmap(_first(table))],
    "timeline_figure": lambda table: [timeline_figure(table, str(table["score"].iloc[0]))],
}
"""Name of a function of `views.plots` -> its figures of a table of one run or several; without `measure_dots`, which
draws any table."""


def figures_of(probe: type[Declared], table: pd.DataFrame) -> list[go.Figure]:
    """The figures of a probe's table. Raises `ValueError` for a figure of an unknown name."""
    figure = probe.figure
    if callable(figure):
        return [figure(table)]
    if figure == "measure_dots":
        values = probe.dots or probe.values[: len(SYMBOLS)]
        return [measure_dots(table, probe.keys, values, title=probe.name)]
    if figure not in FIGURES:
        raise unknown_name(f"figure of probe {probe.name}", figure, ["measure_dots", *FIGURES])
    return FIGURES[figure](table)

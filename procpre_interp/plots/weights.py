"""Weights without data: spectra of every matrix, how far training moved them, and likeness of representations."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from procpre_interp.plots.attention import SEQUENTIAL
from procpre_interp.plots.axes import MAX_PRINTED, refuse_twice, require
from procpre_interp.plots.heatmaps import player_colours
from procpre_interp.plots.ladder import DASHES
from procpre_interp.plots.theme import COMPONENT_COLOURS, OTHERS, lay_out, translucent
from procpre_interp.registry import unknown_name

PANELS_A_ROW = 4

DRIFT = {
    "relative_change": "Relative change",
    "cosine": "Cosine, before and after",
    "in_subspace": "Share within top directions",
    "turned_in_subspace": "The same, growth apart",
}
"""Columns of a drift table that have a panel, and its title."""


def spectrum_figure(spectra: pd.DataFrame, *, matrices: Sequence[str] | None = None, title: str = "") -> go.Figure:
    """Singular values against their index on a logarithmic axis: a panel a kind of matrix, a line a matrix.

    `spectra` is that of `probe.weights.spectra`: layer, head, matrix, index, singular_value. Lines of one layer, those
    of its heads, share a colour. `matrices` are the kinds that are shown, by default all. Values of 0, which a
    logarithm does not have, are left out.
    """
    require(spectra, ["layer", "head", "matrix", "index", "singular_value"], "spectra")
    refuse_twice(spectra, ["layer", "head", "matrix", "index"])
    kinds = [str(kind) for kind in spectra["matrix"].unique()]
    for name in matrices or ():
        if name not in kinds:
            raise unknown_name("matrix", name, kinds)
    kinds = kinds if matrices is None else list(dict.fromkeys(matrices))
    n_columns = min(len(kinds), PANELS_A_ROW)
    cells = [divmod(place, n_columns) for place in range(len(kinds))]
    n_rows = cells[-1][0] + 1
    figure = make_subplots(
        rows=n_rows,
        cols=n_columns,
        specs=[[{} if (row, column) in cells else None for column in range(n_columns)] for row in range(n_rows)],
        subplot_titles=kinds,
        horizontal_spacing=0.06,
        vertical_spacing=60 / (240 * n_rows),
    )
    rows = spectra.sort_values(["layer", "head", "index"])
    layers = dict.fromkeys(None if pd.isna(layer) else int(layer) for layer in rows["layer"])
    named = set()
    for layer in layers:
        of_layer = rows.loc[rows["layer"].isna() if layer is None else rows["layer"] == layer]
        for kind, (row, column) in zip(kinds, cells):
            lines = of_layer.loc[of_layer["matrix"] == kind]
            if len(lines):
                _add_lines(figure, lines, layer, showlegend=layer not in named, row=row + 1, col=column + 1)
                named.add(layer)
    caption = "a line a matrix, of every head its own; one model"
    lay_out(figure, title=title or "Singular values", caption=caption, x="Index", y="", height=240 * n_rows + 200)
    figure.update_layout(margin_t=110)
    figure.update_xaxes(title_standoff=4)
    return figure.update_yaxes(type="log", exponentformat="power").update_yaxes(title="Singular value", col=1)


def drift_figure(drift: pd.DataFrame, *, title: str = "") -> go.Figure:
    """How far each matrix moved, and in which directions: a panel a measure, a row a kind of matrix of a layer.

    `drift` is that of `probe.weights.drift`: component, layer, head, matrix, relative_change, cosine, in_subspace,
    expected and, if wanted, turned_in_subspace. A point is a matrix, of heads each head's. Open diamonds are what a
    change without preferred direction would have within the top directions.
    """
    require(drift, ["component", "layer", "head", "matrix", *list(DRIFT)[:3], "expected"], "drifts")
    refuse_twice(drift, ["component", "matrix"])
    measures = [measure for measure in DRIFT if measure in drift]
    table = drift.sort_values("layer", kind="stable")
    names = [
        matrix if pd.isna(layer) else f"layer {layer} {matrix}"
        for layer, matrix in zip(table["layer"], table["matrix"])
    ]
    lines = list(dict.fromkeys(names))
    heights = [lines.index(name) for name in names]
    colours = player_colours(table["component"])
    points = [translucent(colours[component], 0.6) for component in table["component"]]
    hover = [f"{component} {matrix}" for component, matrix in zip(table["component"], table["matrix"])]
    headings = [DRIFT[measure] for measure in measures]
    figure = make_subplots(cols=len(measures), shared_yaxes=True, horizontal_spacing=0.03, subplot_titles=headings)
    for column, measure in enumerate(measures, 1):
        same = {"y": heights, "mode": "markers", "text": hover, "row": 1, "col": column}
        if "subspace" in measure:
            figure.add_scatter(
                x=table["expected"].to_numpy(float),
                marker={"symbol": "diamond-open", "size": 9, "color": "#888888"},
                hovertemplate="%{text}, no preferred direction: %{x:.3g}",
                name="no preferred direction",
                legendgroup="expected",
                showlegend=measure == "in_subspace",
                **same,
            )
        figure.add_scatter(
            x=table[measure].to_numpy(float),
            marker={"size": 9, "color": points},
            hovertemplate="%{text}: %{x:.3g}",
            name="a matrix",
            legendgroup="matrix",
            showlegend=column == 1,
            **same,
        )
    n = int(table["relative_change"].isna().to_numpy().sum())
    caption = "a point a matrix, of heads each head's; two models, no interval"
    caption += f"; {n} without a point: their shapes differ, or they were 0" if n else ""
    lay_out(figure, title=title or "Drift of the weights", caption=caption, x="", y="", height=230 + 24 * len(lines))
    figure.update_layout(margin_t=110)
    figure.update_xaxes(rangemode="tozero")
    ticks = {"tickvals": list(range(len(lines))), "ticktext": lines}
    return figure.update_yaxes(**ticks, range=[len(lines) - 0.5, -0.5], zeroline=False)


def cka_heatmap(
    table: pd.DataFrame, *, first: str = "first model", second: str = "second model", title: str = ""
) -> go.Figure:
    """Linear CKA of each site of one model with each of another: one model's sites down, the other's across.

    `table` has columns site, other, cka and, if wanted, n (tokens). Colours go from 0, which unrelated representations
    have in the mean, to 1; a value below 0 has the colour of 0, and NaN none.
    """
    require(table, ["site", "other", "cka"], "CKA")
    refuse_twice(table, ["site", "other"])
    sites, others = (list(dict.fromkeys(table[column])) for column in ("site", "other"))
    colour = np.full((len(sites), len(others)), np.nan)
    for pair in table.to_dict("records"):
        colour[sites.index(pair["site"]), others.index(pair["other"])] = pair["cka"]
    figure = go.Figure()
    figure.add_heatmap(
        x=others,
        y=sites,
        z=colour,
        zmin=0,
        zmax=1,
        colorscale=SEQUENTIAL,
        hovertemplate="%{y}, %{x}: %{z:.3f}<extra></extra>",
        texttemplate="%{z:.2f}" if colour.size <= MAX_PRINTED else None,
        xgap=2,
        ygap=2,
        colorbar={"title": {"text": "CKA", "side": "right"}},
    )
    n = f"n = {int(table['n'].to_numpy().min()):,} tokens; " if "n" in table else ""
    height, caption = max(400, 220 + 36 * len(sites)), f"linear CKA; {n}no interval"
    axes = {"x": f"Site of the {second}", "y": f"Site of the {first}"}
    lay_out(figure, title=title or "Likeness of representations", caption=caption, **axes, height=height)
    figure.update_xaxes(type="category", showgrid=False)
    return figure.update_yaxes(type="category", showgrid=False, autorange="reversed")


def _add_lines(figure: go.Figure, rows: pd.DataFrame, layer: int | None, **trace: int | bool) -> None:
    """The spectra of one kind of matrix in one layer, as one trace with gaps between heads."""
    numbers = rows[["head", "index", "singular_value"]].to_numpy(float, na_value=np.nan)
    # Where the index starts again, so does another head's line.
    starts = np.flatnonzero(np.diff(numbers[:, 1], prepend=-1) <= 0)
    numbers = np.insert(numbers, starts, np.nan, axis=0)
    name = "no layer" if layer is None else f"layer {layer}"
    names = [name if np.isnan(head) else f"L{layer}H{head:.0f}" for head in numbers[:, 0].tolist()]
    colour = COMPONENT_COLOURS["embed"] if layer is None else OTHERS[layer % len(OTHERS)]
    dash = DASHES[0 if layer is None else layer // len(OTHERS) % len(DASHES)]
    figure.add_scatter(
        x=numbers[:, 1],
        y=np.where(numbers[:, 2] > 0, numbers[:, 2], np.nan),
        mode="lines",
        line={"color": colour, "width": 1.5, "dash": dash},
        text=names,
        hovertemplate="%{text}, index %{x}: %{y:.3g}",
        name=name,
        legendgroup=name,
        **trace,
    )

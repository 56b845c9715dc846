"""Weights without data: spectra of every matrix, how far training moved them, and likeness of representations."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float
from plotly.subplots import make_subplots

from procpre_interp.core.messages import unknown_name
from procpre_interp.core.selectors import place
from procpre_interp.views.plots.attention import SEQUENTIAL
from procpre_interp.views.plots.axes import (
    Panel,
    add_cells,
    colour_axis,
    label_cells,
    log_ticks,
    refuse_twice,
    require,
    ticks,
)
from procpre_interp.views.plots.heatmaps import player_colours
from procpre_interp.views.plots.ladder import DASHES
from procpre_interp.views.plots.theme import COMPONENT_COLOURS, OTHERS, lay_out, translucent

PANELS_A_ROW = 2
"""Largest number that a phone has room for."""

DRIFT = {
    "relative_change": "Change relative to<br>the size before",
    "cosine": "Cosine with before<br>(1: only scaled)",
    "in_subspace": "Share of the change<br>in top directions",
    "turned_in_subspace": "The same, without<br>growth or shrinking",
}
"""Columns of a drift table that have a panel, and its title."""

MATRICES = {
    "W_Q": "queries",
    "W_K": "keys",
    "W_V": "values",
    "W_O": "heads' output",
    "QK": "what is matched",
    "OV": "what is moved",
    "W_in": "into the MLP",
    "W_out": "out of the MLP",
    "W_E": "tokens in",
    "W_pos": "positions",
    "W_U": "tokens out",
}
"""What a matrix is for, in the title of its panel."""

KINDS = {
    "attn": "attention",
    "mlp": "MLP",
    "embed": "token embedding",
    "pos": "position embedding",
    "unembed": "unembedding",
}
"""Components in the legend, by key of `COMPONENT_COLOURS`."""


def spectrum_figure(spectra: pd.DataFrame, *, matrices: Sequence[str] | None = None, title: str = "") -> go.Figure:
    """Singular values against their index on a logarithmic axis: a panel per kind of matrix, a line per matrix.

    `spectra` is that of `probe.weights.spectra`: layer, head, matrix, index, singular_value and, if wanted, rounding.
    Lines of one layer, those of its heads, share a colour. `matrices` are the kinds that are shown, by default all.
    Values at or below `rounding`, which are nothing but rounding errors, and 0, which has no logarithm, are left out.
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
        subplot_titles=[f"{kind}: {MATRICES[kind]}" if kind in MATRICES else kind for kind in kinds],
        horizontal_spacing=0.14,
        vertical_spacing=80 / (230 * n_rows),
    )
    rows = spectra.loc[spectra["matrix"].isin(kinds)].sort_values(["layer", "head", "index"])
    floor = rows["rounding"].to_numpy(float) if "rounding" in rows else 0.0
    rows = rows.assign(singular_value=rows["singular_value"].where(rows["singular_value"] > floor))
    layers = dict.fromkeys(None if pd.isna(layer) else int(layer) for layer in rows["layer"])
    named = set()
    for layer in layers:
        of_layer = rows.loc[rows["layer"].isna() if layer is None else rows["layer"] == layer]
        for kind, (row, column) in zip(kinds, cells):
            lines = of_layer.loc[of_layer["matrix"] == kind]
            if len(lines):
                _add_lines(figure, lines, layer, showlegend=layer not in named, row=row + 1, col=column + 1)
                named.add(layer)
    for kind, (row, column) in zip(kinds, cells):
        above = rows.loc[(rows["matrix"] == kind) & (rows["singular_value"] > 0), "singular_value"].to_numpy(float)
        if len(above):
            figure.update_yaxes(row=row + 1, col=column + 1, **log_ticks(float(above.min()), float(above.max())))
    hidden = int(rows["singular_value"].isna().to_numpy().sum())
    caption = "one line per matrix, or per head; one model"
    caption += f"; {hidden} values, mere rounding, are left out" if hidden else ""
    heading = title or "Singular values"
    lay_out(figure, title=heading, caption=caption, x="Index", y="", height=230 * n_rows + 170, headings=1)
    figure.update_annotations(font_size=12)
    figure.update_xaxes(title_standoff=14)
    figure.update_yaxes(type="log").update_yaxes(title="Singular value", col=1)
    return figure


def drift_figure(drift: pd.DataFrame, *, title: str = "") -> go.Figure:
    """How far each matrix moved, and in which directions: a panel per measure, a row per kind of matrix of a layer.

    `drift` is that of `probe.weights.drift`: component, layer, head, matrix, relative_change, cosine, in_subspace,
    expected and, if wanted, turned_in_subspace. A point is a matrix of a layer, or of one head, in the colour of its
    component. Open diamonds are what a change without preferred direction would have within the top directions.
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
    kind = [_component(component) for component in table["component"]]
    per_row = min(len(measures), PANELS_A_ROW)
    n_rows = -(-len(measures) // per_row)
    inner = (30 + 22 * len(lines)) * n_rows
    figure = make_subplots(
        rows=n_rows,
        cols=per_row,
        shared_yaxes=True,
        horizontal_spacing=0.05,
        vertical_spacing=80 / inner if n_rows > 1 else 0,
        subplot_titles=[DRIFT[measure] for measure in measures],
    )
    for index, measure in enumerate(measures):
        where: Panel = {"row": index // per_row + 1, "col": index % per_row + 1}
        if "subspace" in measure:
            figure.add_scatter(
                x=table["expected"].to_numpy(float),
                y=heights,
                mode="markers",
                marker={"symbol": "diamond-open", "size": 9, "color": "#888888"},
                text=hover,
                hovertemplate="%{text}, no preferred direction: %{x:.3g}",
                name="no preferred direction",
                legendgroup="expected",
                showlegend=measure == "in_subspace",
                **where,
            )
        for component in dict.fromkeys(kind):
            chosen = [row for row, own in enumerate(kind) if own == component]
            figure.add_scatter(
                x=table[measure].to_numpy(float)[chosen],
                y=[heights[row] for row in chosen],
                mode="markers",
                marker={"size": 9, "color": [points[row] for row in chosen]},
                text=[hover[row] for row in chosen],
                hovertemplate="%{text}: %{x:.3g}",
                name=KINDS.get(component, component),
                legendgroup=component,
                showlegend=index == 0,
                **where,
            )
        # A point on the edge of an axis would be cut in half.
        drawn = [table[measure].to_numpy(float)] + [table["expected"].to_numpy(float)] * ("subspace" in measure)
        low, high = min(0.0, *map(_least, drawn)), max(0.0, *map(_most, drawn))
        room = 0.06 * ((high - low) or 1.0)
        figure.update_xaxes(range=[low - room, high + room], nticks=4, **where)
    n = int(table["relative_change"].isna().to_numpy().sum())
    caption = "one point per matrix, and per head where a matrix has heads; two models, no interval"
    caption += f"; {n} without a point: their shapes differ, or they were 0" if n else ""
    lay_out(figure, title=title or "Drift of the weights", caption=caption, x="", y="", height=inner + 200, headings=2)
    figure.update_annotations(font_size=12)
    figure.update_yaxes(**ticks(lines, len(lines)), range=[len(lines) - 0.5, -0.5], zeroline=False)
    return figure


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
    hover = [[f"{site}, {other}: {value:.3f}" for other, value in zip(others, row)] for site, row in zip(sites, colour)]
    add_cells(figure, colour, printed="%{z:.2f}", hovertext=hover)
    n = f"n = {int(table['n'].to_numpy().min()):,} tokens; " if "n" in table else ""
    blank = "; blank: all tokens are alike there, or all but one" if table["cka"].isna().to_numpy().any() else ""
    height, caption = max(460, 320 + 36 * len(sites)), f"linear CKA; {n}no interval{blank}"
    x, y = f"Site of the {second}", f"Site of the {first}"
    lay_out(figure, title=title or "Likeness of representations", caption=caption, x=x, y=y, height=height)
    figure.update_layout(coloraxis=colour_axis(SEQUENTIAL, 0.0, 1.0, "Linear CKA"))
    label_cells(figure, sites, others)
    return figure


def _component(player: str) -> str:
    """The kind of component, a key of `KINDS`, that "blocks.0.attn.head.1" or the like is; itself, where it is none."""
    return place(player).component or player


def _least(values: Float[np.ndarray, " row"]) -> float:
    return float(np.nanmin(values, initial=np.inf))


def _most(values: Float[np.ndarray, " row"]) -> float:
    return float(np.nanmax(values, initial=-np.inf))


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
        mode="lines+markers",  # of a matrix of rank 1 there is a single point
        marker={"size": 4},
        line={"color": colour, "width": 1.5, "dash": dash},
        text=names,
        hovertemplate="%{text}, index %{x}: %{y:.3g}",
        name=name,
        legendgroup=name,
        **trace,
    )

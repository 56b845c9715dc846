"""Attention scores of all heads, attention patterns of one sequence, and the scores over training."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float
from plotly.subplots import make_subplots

from procpre_interp.core.messages import unknown_name
from procpre_interp.views.plots.axes import (
    MAX_TICKS,
    add_cells,
    colour_axis,
    label_cells,
    log_axis,
    refuse_twice,
    require,
    ticks,
    visible,
)
from procpre_interp.views.plots.heatmaps import DIVERGING
from procpre_interp.views.plots.ladder import DASHES
from procpre_interp.views.plots.theme import GRID, OTHERS, add_band, lay_out

SEQUENTIAL = [[0, "#F2F2F2"], [0.5, "#67A9CF"], [1, "#2166AC"]]
"""White to blue: the upper half of `DIVERGING`."""

RANGE = ["mean", "min", "max"]
"""What a cell or a curve over replicates shows."""

GAP = 0.03
"""Gap between the panels of two phases, as a share of the figure's width."""

TITLE_HEIGHT = 34
"""Pixels between one row of patterns and the next."""


def score_heatmap(table: pd.DataFrame, score: str, *, title: str = "") -> go.Figure:
    """One attention score of every head as the colour of its cell: head across, layer down.

    `table` has columns layer, head, score, value and, if wanted, uniform (the score of attention to all alike),
    n_queries, and replicate or run, over which the figure shows means. Colours go from the uniform score to 1 where
    all values are shares; a score below it has the colour of a uniform head. Scores of either sign are centred on 0.
    A cell's custom data are its layer and head.
    """
    rows = _rows_of(table, score)
    unit = _unit(rows)
    refuse_twice(rows, [*unit, "layer", "head"])
    # A score that no query has is NaN: its cells stay empty, but stay.
    place = {"index": "layer", "columns": "head", "values": "value", "dropna": False}
    how = {name: rows.pivot_table(**place, aggfunc=name) for name in RANGE}
    mean, low, high = (how[name].to_numpy(float) for name in RANGE)
    uniform = rows["uniform"].to_numpy(float) if "uniform" in rows else np.array([np.nan])
    colours, about = _colours(mean, float(uniform.mean()))
    n = int(rows.groupby(["layer", "head"]).size().to_numpy().min())
    notes = [f"mean over n = {n} {unit[0]}s, no interval" if unit and n > 1 else "", about]
    notes.insert(1, f"n = {rows['n_queries'].to_numpy().min():,} queries a head" if "n_queries" in rows else "")
    layers, heads = how["mean"].index.tolist(), how["mean"].columns.tolist()
    hover = [
        [
            f"L{layer}H{head}: {mean[i, j]:.3g}" + (f" [{low[i, j]:.3g}, {high[i, j]:.3g}]" if n > 1 else "")
            for j, head in enumerate(heads)
        ]
        for i, layer in enumerate(layers)
    ]
    figure = go.Figure()
    where = [[[int(layer), int(head)] for head in heads] for layer in layers]
    add_cells(figure, mean, printed="%{z:.2f}", customdata=where, hovertext=hover)
    caption, height = "; ".join(filter(None, notes)), 280 + 40 * len(mean)
    lay_out(figure, title=title or in_words(score), caption=caption, x="Head", y="Layer", height=height)
    figure.update_layout(coloraxis=colour_axis(*colours, in_words(score)))
    label_cells(figure, [str(layer) for layer in layers], [str(head) for head in heads])
    return figure


def pattern_figure(
    table: pd.DataFrame,
    tokens: Sequence[str],
    *,
    layer: int | None = None,
    head: int | None = None,
    title: str = "",
) -> go.Figure:
    """Attention pattern of one sequence: key across, query down; one heat map a head, layers below one another.

    `table` has columns layer, head, query, key, weight; `tokens` names the positions, and two positions with the same
    token stay apart. `layer` and `head` select some of the heads.
    """
    require(table, ["layer", "head", "query", "key", "weight"], "attention patterns")
    rows = table
    for column, wanted in (("layer", layer), ("head", head)):
        there = sorted(int(number) for number in rows[column].unique())
        if wanted is not None and wanted not in there:
            raise ValueError(f"no {column} {wanted} among the patterns; there are {there}")
        rows = rows if wanted is None else rows.loc[rows[column] == wanted]
    length = int(rows[["query", "key"]].to_numpy().max()) + 1
    if len(tokens) < length:
        raise ValueError(
            f"{len(tokens)} tokens, and a pattern over {length} positions; give a name for each, as "
            "token_names(task, tokens) does"
        )
    refuse_twice(rows, ["layer", "head", "query", "key"])
    layers, heads = (sorted(int(number) for number in rows[column].unique()) for column in ("layer", "head"))
    one = len(layers) * len(heads) == 1
    names = [f"L{own_layer}H{own_head}" for own_layer in layers for own_head in heads]
    panel = 500 if one else max(130, 760 // len(heads))
    inner = panel * len(layers) + TITLE_HEIGHT * (len(layers) - 1)
    figure = make_subplots(
        rows=len(layers),
        cols=len(heads),
        subplot_titles=None if one else names,
        horizontal_spacing=0.25 / (3 + len(heads)) / len(heads) ** 0.5,
        vertical_spacing=TITLE_HEIGHT / inner,
        shared_xaxes=True,
        shared_yaxes=True,
    )
    labels = [visible(token) for token in tokens[:length]]
    pairs = [[f"{query} {labels[query]} → {key} {labels[key]}" for key in range(length)] for query in range(length)]
    for own_layer, own_head in dict.fromkeys(map(tuple, rows[["layer", "head"]].to_numpy(int).tolist())):
        weights = rows.loc[(rows["layer"] == own_layer) & (rows["head"] == own_head)]
        pattern = np.full((length, length), np.nan)
        pattern[weights["query"].to_numpy(int), weights["key"].to_numpy(int)] = weights["weight"].to_numpy(float)
        add_cells(
            figure,
            pattern,
            gap=0,
            customdata=pairs,
            hovertemplate="%{customdata}: %{z:.3f}",
            name=f"L{own_layer}H{own_head}",
            row=layers.index(own_layer) + 1,
            col=heads.index(own_head) + 1,
        )
    heading = title or (f"Attention pattern of {names[0]}" if one else "Attention patterns")
    caption = "one sequence; a row is a query and sums to 1"
    lay_out(figure, title=heading, caption=caption, x="", y="", height=inner + 220, headings=0 if one else 1)
    figure.update_layout(coloraxis=colour_axis(SEQUENTIAL, 0.0, 1.0, "Attention weight"))
    axis = {**ticks(labels, max(1, MAX_TICKS // len(heads))), "showgrid": False, "zeroline": False}
    figure.update_xaxes(**axis, tickangle=0 if length * len(heads) <= 12 else -90).update_yaxes(
        **axis, autorange="reversed"
    )
    figure.update_xaxes(title="Key", row=len(layers)).update_yaxes(title="Query", col=1)
    return figure


def timeline_figure(table: pd.DataFrame, score: str, *, highlight: int = 6, title: str = "") -> go.Figure:
    """One attention score over training: a curve per head, a panel per phase, steps on a logarithmic axis.

    `table` has columns phase, step (of the phase), layer, head, score, value and, if wanted, uniform and replicate or
    run. Curves are means over replicates, the bands their range. The `highlight` heads that move the most are
    coloured, all others thin and grey. Step s stands at s + 1, so that step 0 has a place.
    """
    rows = _rows_of(table, score, ["phase", "step"])
    refuse_twice(rows, [*_unit(rows), "phase", "step", "layer", "head"])
    rows = rows.assign(name=[f"L{layer}H{head}" for layer, head in rows[["layer", "head"]].to_numpy(int)])
    rows = rows.sort_values(["layer", "head", "phase", "step"])
    found = rows.groupby(["name", "phase", "step"], sort=False)["value"].agg([*RANGE, "size"]).reset_index()
    curves = {name: found.loc[found["name"] == name] for name in dict.fromkeys(found["name"])}
    moved = pd.Series({name: np.ptp(curve["mean"].to_numpy(float)) for name, curve in curves.items()})
    most = set(moved.nlargest(highlight).index)
    shown = [name for name in curves if name in most]
    phases, n = sorted(int(phase) for phase in found["phase"].unique()), int(found["size"].to_numpy().min())
    headings = [f"Phase {phase}" for phase in phases]
    figure = make_subplots(cols=len(phases), shared_yaxes=True, horizontal_spacing=GAP, subplot_titles=headings)
    for column, phase in enumerate(phases, 1):
        # Grey ones first: what is coloured lies above them.
        for name in [*(name for name in curves if name not in most), *shown]:
            curve = curves[name].loc[curves[name]["phase"] == phase]
            rank = shown.index(name) if name in most else None
            legend = {"name": name, "legendgroup": name, "showlegend": column == 1 and rank is not None}
            _add_head(figure, curve, rank, **legend, row=1, col=column)
        if "uniform" in rows:
            level = rows.loc[rows["phase"] == phase].groupby("step")["uniform"].mean().dropna()
            figure.add_scatter(
                x=level.index.to_numpy(float) + 1,
                y=level.to_numpy(float),
                mode="lines",
                line={"color": "#888888", "width": 1.5, "dash": "dash"},
                name="uniform attention",
                legendgroup="uniform",
                showlegend=column == 1,
                row=1,
                col=column,
            )
    notes = [f"n = {n} replicate{'s' * (n != 1)}", "mean, band: lowest to highest" if n > 1 else ""]
    notes.append(f"coloured: the {len(shown)} heads that move the most" if len(shown) < len(curves) else "")
    caption = "; ".join(filter(None, notes))
    lay_out(
        figure, title=title or in_words(score), caption=caption, x="Step of the phase", y=in_words(score), headings=1
    )
    figure.update_layout(legend_traceorder="normal")
    for column, phase in enumerate(phases, 1):
        steps = found.loc[found["phase"] == phase, "step"].to_numpy(int)
        figure.update_xaxes(row=1, col=column, **log_axis(int(steps.max())))
        if column > 1:
            figure.update_yaxes(title="", row=1, col=column)
            edge = (column - 1) * (1 + GAP) / len(phases) - GAP / 2
            line = {"width": 1, "dash": "dot", "color": "#888888"}
            figure.add_shape(type="line", xref="paper", yref="paper", x0=edge, x1=edge, y0=0, y1=1.1, line=line)
    return figure


def in_words(name: str) -> str:
    """A column's or score's name as the title of an axis: "Previous token"."""
    words = name.replace("_", " ")
    return words[:1].upper() + words[1:]


def _rows_of(table: pd.DataFrame, score: str, more: Sequence[str] = ()) -> pd.DataFrame:
    """The rows of one score."""
    require(table, ["layer", "head", "score", "value", *more], "attention scores")
    rows = table.loc[table["score"] == score]
    if rows.empty:
        raise unknown_name("score", score, [str(name) for name in table["score"].unique()])
    return rows


def _unit(rows: pd.DataFrame) -> list[str]:
    """The column over which means are taken, if the table has one."""
    return [column for column in ("replicate", "run") if column in rows][:1]


def _colours(
    values: Float[np.ndarray, "layer head"], uniform: float
) -> tuple[tuple[list[list[Any]], float, float], str]:
    """Colour scale of a heat map of scores, its lowest and highest value and, for the caption, where it starts."""
    low, high = float(np.nanmin(values, initial=0.0)), float(np.nanmax(values, initial=0.0))
    if low < 0:
        reach = max(-low, high)
        return (DIVERGING, -reach, reach), ""
    if high <= 1 and 0 <= uniform < 1:
        about = f"colours start at uniform attention, {uniform:.3g}"
        return (SEQUENTIAL, uniform, 1.0), about
    return (SEQUENTIAL, 0.0, max(high, 1.0)), ""


def _add_head(figure: go.Figure, curve: pd.DataFrame, rank: int | None, **trace: Any) -> None:
    """One head's curve in one phase; without a rank it is thin and grey. `trace`: name, legend and panel."""
    step, low, high = (curve[column].to_numpy(float) for column in ("step", "min", "max"))
    colour, dash = (GRID, 0) if rank is None else (OTHERS[rank % len(OTHERS)], rank // len(OTHERS))
    if rank is not None and len(curve) and curve["size"].to_numpy().min() > 1:
        add_band(figure, step + 1, low, high, colour, **{key: trace[key] for key in trace if key != "showlegend"})
    figure.add_scatter(
        x=step + 1,
        y=curve["mean"].to_numpy(float),
        mode="lines+markers" if len(curve) == 1 else "lines",
        line={"color": colour, "width": 1 if rank is None else 2.5, "dash": DASHES[dash % len(DASHES)]},
        customdata=np.column_stack([step, low, high]),
        hovertemplate="step %{customdata[0]:,}: %{y:.3f} [%{customdata[1]:.3f}, %{customdata[2]:.3f}]",
        **trace,
    )

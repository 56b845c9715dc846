"""Claims as figures: contrasts with their margins, the pairs behind one of them, and gains beside reported ones."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float
from plotly.subplots import make_subplots

from procpre_interp.claims.claim import Verdict
from procpre_interp.claims.judged import ContrastResult
from procpre_interp.stats.paper_comparison import Agreement
from procpre_interp.stats.resampling import interval_methods
from procpre_interp.stats.rows import named_rows
from procpre_interp.stats.summary import interval_note, intervals_note
from procpre_interp.views.plots.axes import Panel, Ticks, require
from procpre_interp.views.plots.theme import (
    X_WIDTH,
    condition_colours,
    error_bars,
    lay_out,
    translucent,
    with_n,
    wrapped,
)

VERDICTS: dict[str, tuple[str, str]] = {
    Verdict.SUPPORTED: ("#228833", "circle"),
    Verdict.REFUTED: ("#CC3311", "x"),
    Verdict.UNDECIDED: ("#888888", "circle-open"),
    "not predicted": ("#888888", "diamond-open"),
}
"""Colour and symbol of each."""

COMPARISONS: dict[str, tuple[str, str]] = {
    Agreement.AGREES: VERDICTS[Verdict.SUPPORTED],
    Agreement.DISAGREES: VERDICTS[Verdict.REFUTED],
    Agreement.UNDECIDED: VERDICTS[Verdict.UNDECIDED],
    Agreement.TOO_FEW: ("#888888", "square-open"),
    Agreement.NOT_COMPARABLE: ("#888888", "circle-open"),
    Agreement.NOT_LEARNT: ("#888888", "x-open"),
}
"""The same for `paper_comparison.effect_verdict`."""

SIDE = "#228833"
PAPER = "#B8A11F"
GREY = "#888888"
WIDTH = 24
"""Letters in a line of a row's name."""
HALF = 20
"""Letters in a line of the axis title of one of two panels side by side."""
MANY = 6
"""Conditions up to which each has a colour of its own; more are told apart by the sign of their weights."""
WEIGHED = {"weighed +": "#4477AA", "weighed -": "#EE7733"}
ROW, LINE, FOOT = 30, 15, 86
"""Pixels of a row with one line, of each further line, and below a panel, where its axis is."""


def contrast_forest(contrasts: pd.DataFrame, *, title: str = "") -> go.Figure:
    """Contrasts as points with their intervals, and what was predicted of each: the margin, and the side as an area.

    Columns contrast, axis (title with unit; a panel for each), predicted (above, below, within or empty), margin,
    estimate, low, high, n and verdict ("" if not predicted). Rows from the top down in the order of the table.
    """
    require(contrasts, ["contrast", "axis", "predicted", "margin", "estimate", "low", "high", "n", "verdict"], "claims")
    figure, panels = _panels(contrasts, "axis")
    for index, (_, rows) in enumerate(panels, start=1):
        place: Panel = {"row": index, "col": 1}
        margins = [each for row in named_rows(rows) for each in margin_lines(row.predicted, row.margin)]
        left, right = axis_span(np.append(rows[["estimate", "low", "high"]].to_numpy(dtype=float), margins))
        _add_predictions(figure, rows, left, right, place)
        verdicts = rows["verdict"].replace("", "not predicted")
        for verdict in [name for name in VERDICTS if name in set(verdicts)]:
            _add_estimates(figure, rows.loc[verdicts == verdict], verdict, VERDICTS[verdict], "estimate", place)
        figure.update_xaxes(range=[left, right], **place)
    note = intervals_note(contrasts["n"], methods=interval_methods(contrasts))
    if (contrasts["predicted"] == "within").to_numpy().any():
        note += "; within: 90 %, or 95 % where that lies wholly outside"
    return _finish(figure, panels, title=title or "Contrasts", caption=note)


def paired_values(
    pairs: pd.DataFrame, contrast: ContrastResult, *, labels: dict[str, str] | None = None, title: str = ""
) -> go.Figure:
    """What a contrast weighs in each replicate (left), and its value there beside margin and mean (right).

    `pairs` has one row per replicate: columns replicate, value and one per condition, in the unit of the contrast's
    numbers. `title` is the contrast's name unless given.
    """
    names = list(contrast.weights)
    require(pairs, ["replicate", "value", *names], "pairs")
    rows = [html.escape(f"seed {replicate}", quote=False) for replicate in pairs["replicate"]]
    figure = make_subplots(cols=2, shared_yaxes=True, horizontal_spacing=0.06)
    if len(names) == 2:  # which belong together
        both = np.column_stack([pairs[names].to_numpy(dtype=float), np.full(len(pairs), np.nan)])
        line = {"mode": "lines", "line": {"color": GREY, "width": 1}, "hoverinfo": "skip", "showlegend": False}
        figure.add_scatter(x=both.ravel(), y=[row for row in rows for _ in range(3)], **line, row=1, col=1)
    for name, look in _looks(contrast.weights, labels or {}).items():
        figure.add_scatter(x=pairs[name].to_numpy(dtype=float), y=rows, mode="markers", **look, row=1, col=1)
    margin, predicted = contrast.margin, contrast.predicted or ""
    bounds = np.array([[contrast.estimate, contrast.low, contrast.high]])
    left, right = axis_span(
        np.append(pairs["value"].to_numpy(dtype=float), [*bounds.ravel(), *margin_lines(predicted, margin)])
    )
    # Nothing else is in the panel yet, and plotly would leave them out.
    right_panel: dict[str, Any] = {"row": 1, "col": 2, "exclude_empty_subplots": False}
    for low, high in predicted_sides(predicted, margin, left, right):
        figure.add_vrect(low, high, fillcolor=translucent(SIDE, 0.12), line_width=0, **right_panel)
    for value in margin_lines(predicted, margin):
        figure.add_vline(value, line={"dash": "dot", "width": 1.5, "color": SIDE}, **right_panel)
    values = pairs["value"].to_numpy(dtype=float)
    marker = {"color": GREY, "size": 10}
    dots = {"mode": "markers", "marker": marker, "name": "contrast", "hovertemplate": "%{y}: %{x:+.4g}"}
    figure.add_scatter(x=values, y=rows, **dots, row=1, col=2)
    mean = {"mode": "markers", "marker": {"color": GREY, "size": 13, "symbol": "diamond"}, "name": "mean and interval"}
    mean |= {"error_x": error_bars(*bounds.T), "hovertemplate": "mean: %{x:+.4g}"}
    figure.add_scatter(x=bounds[:, 0], y=["mean"], **mean, row=1, col=2)
    figure.update_yaxes(categoryorder="array", categoryarray=["mean", *rows[::-1]])
    height = 250 + 24 * (len(rows) + 1) + 10 * min(len(names), MANY)
    heading, caption = (
        html.escape(title or contrast.contrast, quote=False),
        interval_note(len(pairs), contrast.interval, contrast.level),
    )
    lay_out(figure, title=heading, caption=caption, x="", y="", height=height)
    titles = contrast.about.level_axis, contrast.about.titled("the contrast")
    level, measure = (wrapped(html.escape(text, quote=False), HALF) for text in titles)
    figure.update_xaxes(title=level, row=1, col=1)
    return figure.update_xaxes(title=measure, range=[left, right], row=1, col=2)


def gains_beside(summary: pd.DataFrame, *, title: str = "") -> go.Figure:
    """Measured gains with their intervals beside claimed ones, a panel per task, in percentage points; up to a row's
    margin there is no effect.

    `summary` is that of `paper_comparison.compare_tasks` with a column label; rows without a claimed gain are left out.
    """
    require(
        summary,
        ["task", "label", "gain_mean", "gain_low", "gain_high", "n", "claimed_gain", "margin", "verdict"],
        "gains",
    )
    rows = summary.loc[summary["claimed_gain"].notna()]
    named = {"label": "contrast", "gain_mean": "estimate", "gain_low": "low", "gain_high": "high"}
    rows = rows.rename(columns=named).reset_index(drop=True)
    require(rows, ["contrast"], "gains beside claimed ones")
    shares = ["estimate", "low", "high", "claimed_gain"]
    rows[shares] = 100 * rows[shares].astype(float)
    figure, panels = _panels(rows, "task")
    left, right = axis_span(rows[["estimate", "low", "high", "claimed_gain"]].to_numpy(dtype=float))
    for index, (_, of_task) in enumerate(panels, start=1):
        place: dict[str, Any] = {"row": index, "col": 1}
        band = {"fillcolor": translucent(GREY, 0.2), "line_width": 0, "exclude_empty_subplots": False}
        for y, half in zip(of_task["y"], 100 * of_task["margin"].astype(float)):
            figure.add_shape(type="rect", x0=-half, x1=half, y0=y - 0.5, y1=y + 0.5, layer="below", **band, **place)
        for verdict in [name for name in COMPARISONS if name in set(of_task["verdict"])]:
            found = of_task.loc[of_task["verdict"] == verdict]
            _add_estimates(figure, found, verdict, COMPARISONS[verdict], "gain", place)
        marker = {"symbol": "diamond-open", "size": 13, "color": PAPER, "line": {"width": 2}}
        paper = {"mode": "markers", "marker": marker, "name": "the paper", "legendgroup": "the paper"}
        x, y = of_task["claimed_gain"].to_numpy(dtype=float), of_task["y"].to_numpy()
        figure.add_scatter(x=x, y=y, **paper, hovertemplate="the paper: %{x:+.1f}", showlegend=index == 1, **place)
        figure.update_xaxes(range=[left, right], **place)
    panels = [(f"{task}: gain over no pretraining (percentage points)", part) for task, part in panels]
    return _finish(figure, panels, title=title or "Gains beside the paper's", caption=intervals_note(rows["n"]))


def _looks(weights: Mapping[str, float | int], labels: dict[str, str]) -> dict[str, dict[str, object]]:
    """Colour, name and hover text of each condition's points; of many conditions a legend entry for each sign."""
    colours, seen = condition_colours(weights), set[str]()
    looks: dict[str, dict[str, object]] = {}
    for name, weight in weights.items():
        label = html.escape(str(labels.get(name, name)), quote=False)
        group = label if len(weights) <= MANY else "weighed -" if weight < 0 else "weighed +"
        looks[name] = {
            "marker": {"color": colours[name] if group == label else WEIGHED[group], "size": 10},
            "name": group,
            "legendgroup": group if len(weights) > MANY else name,
            "showlegend": len(weights) <= MANY or group not in seen,
            "text": label,
            "hovertemplate": "%{text}<br>%{y}: %{x:.4g}<extra></extra>",
        }
        seen.add(group)
    return looks


def _panels(table: pd.DataFrame, by: str) -> tuple[go.Figure, list[tuple[str, pd.DataFrame]]]:
    """A figure with a panel for each value of a column, as high as its rows, which get a place `y` and a `name`."""
    names = with_n((html.escape(name, quote=False) for name in table["contrast"]), table["n"])
    table = table.assign(name=[wrapped(name, WIDTH) for name in names])
    panels = []
    for panel in dict.fromkeys(table[by]):
        rows = table.loc[table[by] == panel]
        panels.append((str(panel), rows.assign(y=np.arange(len(rows)))))
    heights = [_height(rows) for _, rows in panels]
    between = FOOT / (sum(heights) + FOOT * (len(panels) - 1))
    figure = make_subplots(rows=len(panels), row_heights=heights, vertical_spacing=between if len(panels) > 1 else 0)
    return figure, panels


def _height(rows: pd.DataFrame) -> int:
    """Pixels of a panel: all its rows are as high as the one with the most lines."""
    return (ROW + LINE * max(name.count("<br>") for name in rows["name"])) * len(rows)


def _finish(figure: go.Figure, panels: Sequence[tuple[str, pd.DataFrame]], *, title: str, caption: str) -> go.Figure:
    """Titles, names of rows, and a legend that has each name once."""
    height = 190 + sum(_height(rows) for _, rows in panels) + FOOT * len(panels)
    lay_out(figure, title=html.escape(title, quote=False), caption=caption, x="", y="", height=height)
    figure.update_layout(margin_b=FOOT + 40)
    for index, (axis, rows) in enumerate(panels, start=1):
        figure.update_xaxes(title=wrapped(html.escape(axis, quote=False), X_WIDTH), row=index, col=1)
        names: Ticks = {"tickvals": rows["y"].tolist(), "ticktext": rows["name"].tolist()}
        figure.update_yaxes(range=[len(rows) - 0.5, -0.5], zeroline=False, **names, row=index, col=1)
    seen: set[str] = set()
    traces: list[Any] = list(figure.select_traces())
    for trace in traces:
        trace.showlegend = trace.name not in seen
        seen.add(trace.name)
    return figure


def _add_estimates(
    figure: go.Figure, rows: pd.DataFrame, name: str, look: tuple[str, str], what: str, place: Mapping[str, Any]
) -> None:
    """One trace of points with intervals."""
    colour, symbol = look
    numbers = rows[["estimate", "low", "high", "n"]].to_numpy(dtype=float)
    figure.add_scatter(
        x=numbers[:, 0],
        y=rows["y"].to_numpy(),
        mode="markers",
        marker={"color": colour, "symbol": symbol, "size": 12, "line": {"width": 2, "color": colour}},
        error_x=error_bars(*numbers[:, :3].T) | {"color": colour},
        name=name,
        legendgroup=name,
        customdata=numbers[:, 1:],
        text=rows["name"].tolist(),
        hovertemplate=f"%{{text}}<br>{what} %{{x:+.4g}} [%{{customdata[0]:+.4g}}, %{{customdata[1]:+.4g}}], "
        "n = %{customdata[2]}",
        **place,
    )


def _add_predictions(
    figure: go.Figure, rows: pd.DataFrame, left: float, right: float, place: Mapping[str, Any]
) -> None:
    """The predicted side of each row as an area, and its margin as a line, one trace each."""
    area_x, area_y, line_x, line_y = [], [], [], []
    for row in named_rows(rows):
        low_y, high_y = row.y - 0.38, row.y + 0.38
        for low, high in predicted_sides(row.predicted, row.margin, left, right):
            area_x += [low, high, high, low, low, None]
            area_y += [low_y, low_y, high_y, high_y, low_y, None]
        for margin in margin_lines(row.predicted, row.margin):
            line_x += [margin, margin, None]
            line_y += [low_y, high_y, None]
    if not area_x:
        return
    same = {"mode": "lines", "hoverinfo": "skip", **place}
    colour = translucent(SIDE, 0.14)
    area = {"name": "predicted", "legendgroup": "predicted", "fill": "toself", "fillcolor": colour, "line_width": 0}
    figure.add_scatter(x=area_x, y=area_y, **area, **same)
    line = {"dash": "dot", "width": 1.5, "color": SIDE}
    figure.add_scatter(x=line_x, y=line_y, name="margin", legendgroup="margin", line=line, **same)


def predicted_sides(predicted: str, margin: float, left: float, right: float) -> list[tuple[float, float]]:
    """Ends of the range in which the prediction holds, left and right."""
    known = {"above": (margin, right), "below": (left, margin), "within": (-margin, margin)}
    return [known[predicted]] if predicted in known else []


def margin_lines(predicted: str, margin: float) -> list[float]:
    """Where the margin of a prediction is drawn."""
    return {"above": [margin], "below": [margin], "within": [-margin, margin]}.get(predicted, [])


def axis_span(numbers: Float[np.ndarray, "..."]) -> tuple[float, float]:
    """Ends of an axis that has all numbers and 0 in it."""
    known = np.append(numbers[np.isfinite(numbers)], 0.0)
    room = 0.08 * float(np.ptp(known)) or 0.1
    return float(known.min()) - room, float(known.max()) + room

"""Effects of activation patches as heat maps over layers, heads and positions."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from procpre_interp.core.messages import unknown_name
from procpre_interp.views.plots.axes import (
    add_cells,
    colour_axis,
    label_cells,
    refuse_twice,
    require,
    visible,
)
from procpre_interp.views.plots.heatmaps import DIVERGING
from procpre_interp.views.plots.theme import OTHERS, lay_out, wrapped

VALUES = {"share": "Share of the gap", "effect": "Change of the {metric}"}
"""What the colours can show, in words."""

RUNS = {"denoise": "corrupted runs", "noise": "clean runs"}
"""The runs that a patch changes, by direction."""

REPLACEMENTS = {
    "other": "the pair's other run's",
    "zero": "zero",
    "mean": "the mean over pairs",
    "resample": "another pair's",
}
"""What comes in, in words."""

RUN_COLOURS = {"clean": "#4477AA", "corrupted": "#888888", "patched": "#CC6677"}


def gap_note(table: pd.DataFrame) -> str:
    """Why a table has no shares; "" where its gap is told from chance, or where it has no columns of `patch.Gap`."""
    if "gap_told" not in table or table["gap_told"].iloc[0]:
        return ""
    gap, low, high, n = (table[column].iloc[0] for column in ("gap", "gap_low", "gap_high", "n_pairs"))
    words = _words(str(table["metric"].iloc[0]))
    if n < 2:
        return f"A single pair has no interval, so effects are in {words}: its two runs are {gap:+.3g} apart."
    return (
        f"At chance: over {n:,} pairs the two runs are {gap:+.3g} [{low:+.3g}, {high:+.3g}] apart, and the clean one "
        f"prefers the answer in {table['answer_preferred'].iloc[0]:.0%}; so effects are in {words}, not shares."
    )


def patch_heatmap(
    table: pd.DataFrame, site: str, *, value: str = "share", tokens: Sequence[str] | None = None, title: str = ""
) -> go.Figure:
    """Effect of each patch of a site as the colour of its cell, centred on 0.

    `table` is that of `patch.activation_patching` (site, layer, head, position, metric, direction, replacement, value,
    effect, share, n_pairs). With positions they are across, and layers, or layers and heads, down; without, heads are
    across and layers down. `value` is what the colours show: "share", 1 where a patch alone makes the metric that of
    the other run, or "effect", in the metric's unit; effects too where there are no shares (see `gap_note`). `tokens`
    label the positions; equal ones stay apart. A cell's custom data are its layer, head and position, None for what it
    lacks.
    """
    without_shares = gap_note(table)
    value = "effect" if without_shares and value == "share" else value
    keys, setting = ["layer", "head", "position"], ["metric", "direction", "replacement"]
    require(table, ["site", *keys, *setting, "value", "effect", "share", "n_pairs"], "patches")
    if value not in VALUES:
        raise unknown_name("value of a patch", value, list(VALUES))
    rows = table.loc[table["site"] == site]
    if rows.empty:
        raise unknown_name("site", site, [str(name) for name in table["site"].unique()])
    refuse_twice(rows, [*setting, *keys])
    metric, direction, replacement = (_only(rows, column) for column in setting)
    with_heads, by_position = (bool(rows[column].notna().to_numpy().any()) for column in keys[1:])
    places = [tuple(None if pd.isna(number) else int(number) for number in row) for row in rows[keys].to_numpy(object)]
    down = [(layer, head if by_position else None) for layer, head, _ in places]
    across = [position if by_position else head for _, head, position in places]
    lines = sorted(set(down), key=lambda line: [_order(number) for number in line])
    columns = sorted(set(across), key=_order)
    last = max((position for *_, position in places if position is not None), default=-1)
    if tokens is not None and len(tokens) <= last:
        raise ValueError(f"{len(tokens)} tokens, and patches at positions up to {last}; give a token for each")
    shape = len(lines), len(columns)
    colour = np.full(shape, np.nan)
    hover, where = (np.full(shape, None, dtype=object) for _ in range(2))
    for place, line, column, patch in zip(places, down, across, rows.to_dict("records")):
        spot = lines.index(line), columns.index(column)
        colour[spot] = patch[value]
        numbers = "" if without_shares else f"share {patch['share']:+.3g}, "
        numbers += f"effect {patch['effect']:+.3g}, {_words(metric)} {patch['value']:.3g}"
        hover[spot], where[spot] = f"{_name(place, tokens)}: {numbers}", list(place)
    reach = float(np.nanmax(np.abs(colour), initial=0.0)) or 1.0
    figure = go.Figure()
    add_cells(figure, colour, printed="%{z:+.2f}", gap=1, customdata=where, hovertext=hover)
    incoming, n = REPLACEMENTS.get(replacement, replacement), int(rows["n_pairs"].to_numpy().min())
    caption = f"{RUNS.get(direction, direction)}, each activation replaced by {incoming}; {_words(metric)}; "
    x = "Position" if by_position else "Head" if with_heads else ""
    y = "Layer and head" if by_position and with_heads else "Layer"
    height = max(380, 260 + 26 * len(lines))
    unsure = "not told from chance" if without_shares and n > 1 else "no interval"
    caption += f"n = {n:,} pair{'s' * (n != 1)}, {unsure}"
    lay_out(figure, title=title or f"Patching {site}", caption=caption, x=x, y=y, height=height)
    figure.update_layout(coloraxis=colour_axis(DIVERGING, -reach, reach, VALUES[value].format(metric=_words(metric))))
    labels = ["all" if column is None else str(column) for column in columns]
    if by_position and tokens is not None:
        labels = ["all" if column is None else visible(tokens[column]) for column in columns]
    names = [str(layer) if head is None else f"L{layer}H{head}" for layer, head in lines]
    label_cells(figure, names, labels)
    return figure


def _order(number: int | None) -> tuple[bool, int]:
    """Sort key: numbers first, then what has none."""
    return number is None, number or 0


def _name(place: tuple[int | None, ...], tokens: Sequence[str] | None) -> str:
    """ "L0H2, position 7 (a)", without what the place lacks."""
    layer, head, position = place
    text = f"L{layer}" if head is None else f"L{layer}H{head}"
    if position is None:
        return text
    return f"{text}, position {position}" + ("" if tokens is None else f" ({visible(tokens[position])})")


def _words(metric: str) -> str:
    return "loss in nats" if metric == "loss" else metric.replace("_", " ")


def _only(rows: pd.DataFrame, column: str) -> str:
    """The one value of a column."""
    values = [str(value) for value in rows[column].unique()]
    if len(values) != 1:
        raise ValueError(f"patches with {column} {values}; a figure shows one: select it first")
    return values[0]


def probability_bars(table: pd.DataFrame, *, title: str = "") -> go.Figure:
    """Probabilities of some next tokens in several runs: a group per token, a bar per run.

    `table` has columns run, token, probability and, if wanted, role: what the token is ("clean answer"), or "".
    """
    require(table, ["run", "token", "probability"], "probabilities")
    refuse_twice(table, ["run", "token"])
    roles = table["role"] if "role" in table else pd.Series("", index=table.index)
    labels = {
        token: wrapped(f"{visible(token)}<br>{role}" if role else visible(token), 10)
        for token, role in zip(table["token"], roles)
    }
    figure = go.Figure()
    for run in dict.fromkeys(table["run"]):
        rows = table.loc[table["run"] == run]
        values = rows["probability"].to_numpy(dtype=float)
        figure.add_bar(
            x=[labels[token] for token in rows["token"]],
            y=values,
            name=run,
            marker={"color": RUN_COLOURS.get(run, OTHERS[0])},
            text=[f"{value:.2f}" for value in values],
            hovertemplate="%{x}: %{y:.4f}",
        )
    lay_out(figure, title=title, caption="one pair, no interval", x="Next token", y="Probability")
    # Tokens that are numbers are names all the same.
    figure.update_xaxes(type="category", tickangle=0)
    return figure.update_layout(barmode="group").update_yaxes(range=[0, 1.05])

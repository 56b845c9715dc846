"""Transfer maps: effects of players as a heat map over the model, and as points with intervals."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from procpre_interp.core.selectors import place
from procpre_interp.stats.resampling import interval_methods
from procpre_interp.stats.summary import Decision, intervals_note
from procpre_interp.stats.transfer_map import OUTCOMES, Outcome
from procpre_interp.views.plots.axes import add_cells, colour_axis, label_cells, ticks
from procpre_interp.views.plots.theme import COMPONENT_COLOURS, OTHERS, error_bars, lay_out, with_n

METHODS = {
    "add_one_in": ("circle", "this alone, against nothing"),
    "leave_one_out": ("diamond-open", "all, against all but this"),
    "shapley": ("square", "Shapley value"),
}
"""Marker, and name in words, of each method of a transfer map."""

DIVERGING = [[0, "#B2182B"], [0.25, "#EF8A62"], [0.5, "#F2F2F2"], [0.75, "#67A9CF"], [1, "#2166AC"]]
"""Red below 0, blue above: ColorBrewer's RdBu, told apart by colour-blind readers."""

ALL_LAYERS = "all layers"

MOST_BOUNDED = 3
"""Columns up to which each cell has room for its interval; beyond it the hover text alone has it."""

COLUMN_PIXELS = 170
"""Width of a column of such a heat map, which would fill the page otherwise."""


def transfer_heatmap(effects: pd.DataFrame, *, title: str = "") -> go.Figure:
    """Effect of each player as the colour of its cell: layer across, component, head and matrix down.

    `effects` is that of `transfer_map`, with one method and one outcome. Shares are in percentage points. An estimate
    is bold where its decision is "significant"; its interval stands below it where there is room. A cell's custom data
    is its player.
    """
    method, outcome = _only(effects, "method"), _only(effects, "outcome")
    about = OUTCOMES[outcome]
    places = [place(player) for player in effects["player"]]
    layers = sorted({spot.layer for spot in places if spot.layer is not None})
    columns = [f"layer {layer}" for layer in layers]
    columns += [ALL_LAYERS] if any(spot.layer is None for spot in places) else []
    names = [_row(player) for player in effects["player"]]
    rows = list(dict.fromkeys(names))
    colour = np.full((len(rows), len(columns)), np.nan)
    text = np.full(colour.shape, "", dtype=object)
    hover, who = (np.full(colour.shape, "", dtype=object) for _ in range(2))
    bounded = len(columns) <= MOST_BOUNDED
    for name, spot, effect in zip(names, places, effects.to_dict("records")):
        column = ALL_LAYERS if spot.layer is None else f"layer {spot.layer}"
        cell = rows.index(name), columns.index(column)
        if text[cell]:
            raise ValueError(f"two effects for {name}, {column}; give one method, one outcome, and each player once")
        values = [about.scale * float(effect[bound]) for bound in ("estimate", "low", "high")]
        number, low, high = (effect_text(value, about) for value in values)
        interval = "no interval" if np.isnan(values[1:]).any() else f"[{low}, {high}]"
        colour[cell], who[cell] = values[0], effect["player"]
        text[cell] = f"<b>{number}</b>" if effect.get("decision") == Decision.SIGNIFICANT else number
        text[cell] += f"<br>{interval}" if bounded else ""
        hover[cell] = f"{effect['player']}: {number} {interval}, n = {effect['n']}"
    reach = float(np.nanmax(np.abs(colour), initial=0.0)) or 1.0
    figure = go.Figure()
    add_cells(figure, colour, text=text, texttemplate="%{text}", customdata=who, hovertext=hover)
    note = intervals_note(effects["n"], "when you hover over a cell", interval_methods(effects))
    caption = f"{_in_words(method)}; bold: decided by its adjusted test; {note}"
    heading = title or f"Effect on {about.description}"
    height = max(400, 200 + (44 if bounded else 36) * len(rows))
    lay_out(figure, title=heading, caption=caption, x="", y="", height=height)
    if bounded:
        figure.update_layout(width=240 + COLUMN_PIXELS * len(columns))
    figure.update_layout(coloraxis=colour_axis(DIVERGING, -reach, reach, f"Effect ({about.effect_unit})"))
    label_cells(figure, rows, columns)
    return figure


def transfer_bars(effects: pd.DataFrame, *, title: str = "") -> go.Figure:
    """Effect of each player as a point with its interval: one row per player, one marker per method.

    `effects` is that of `transfer_map`, with one outcome. Shares are in percentage points.
    """
    about = OUTCOMES[_only(effects, "outcome")]
    players, methods = list(dict.fromkeys(effects["player"])), list(dict.fromkeys(effects["method"]))
    colours = player_colours(players)
    figure = go.Figure()
    for index, method in enumerate(methods):
        rows = effects.loc[effects["method"] == method]
        estimate = about.scale * rows["estimate"].to_numpy(dtype=float)
        bounds = rows[["low", "high", "n"]].to_numpy(dtype=float) * [about.scale, about.scale, 1.0]
        shift = 0.22 * (index - (len(methods) - 1) / 2)
        symbol, name = METHODS.get(method, ("circle", method))
        figure.add_scatter(
            x=estimate,
            y=np.array([players.index(player) for player in rows["player"]]) + shift,
            mode="markers",
            marker={"symbol": symbol, "size": 11, "color": [colours[player] for player in rows["player"]]},
            error_x=error_bars(estimate, bounds[:, 0], bounds[:, 1]),
            name=name,
            text=rows["player"].tolist(),
            customdata=bounds,
            hovertemplate="%{text}: %{x:.3g} [%{customdata[0]:.3g}, %{customdata[1]:.3g}], n = %{customdata[2]}",
        )
    figure.add_vline(0, line={"width": 1, "color": "#888888"})
    height = 230 + 22 * len(players) * (1 + len(methods))
    counts = effects.groupby("player")["n"]
    varied = (counts.nunique() > 1).to_numpy().any()  # by method too: then a row has several
    given = "when you hover over a point" if varied else "for each row"
    note = intervals_note(effects["n"], given, interval_methods(effects))
    heading = title or f"Effect on {about.description}"
    lay_out(figure, title=heading, caption=note, x=f"Effect ({about.effect_unit})", y="", height=height)
    names = players if varied else with_n(players, counts.first().loc[players])
    figure.update_yaxes(range=[len(players) - 0.5, -0.5], **ticks(names, len(players)))
    return figure


def player_colours(players: Iterable[str]) -> dict[str, str]:
    """The colour of each player's component; the next of `OTHERS` for one without."""
    colours: dict[str, str] = {}
    free = 0
    for player in dict.fromkeys(players):
        component = place(player).component or ""
        component = "ln" if component.startswith("ln") else component
        if component in COMPONENT_COLOURS:
            colours[player] = COMPONENT_COLOURS[component]
        else:
            colours[player] = OTHERS[free % len(OTHERS)]
            free += 1
    return colours


def _row(player: str) -> str:
    """What a player is apart from its layer: "attn head 2 W_V"."""
    spot = place(player)
    if spot.layer is None and spot.component is None:
        return player
    head = None if spot.head is None else f"head {spot.head}"
    return " ".join(part for part in (spot.component, head, spot.matrix) if part) or "block"


def _only(effects: pd.DataFrame, column: str) -> str:
    """The one value of a column."""
    values = list(dict.fromkeys(effects[column]))
    if len(values) != 1:
        raise ValueError(f"effects with {column} {values}; a figure shows one: select it first")
    return values[0]


def _in_words(method: str) -> str:
    return METHODS.get(method, ("", method))[1]


def effect_text(value: float, about: Outcome) -> str:
    """An effect in the unit that people read: signed, points to one decimal, others to three, as differences of losses
    need, to two from 10 on, and whole where it has hundreds; a dash for NaN."""
    if np.isnan(value):
        return "-"
    size = abs(value)
    return f"{value:{'+.1f' if about.is_share else '+,.0f' if size >= 100 else '+.2f' if size >= 10 else '+.3f'}}"

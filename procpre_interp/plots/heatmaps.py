"""Transfer maps: effects of players as a heat map over the model, and as points with intervals."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from procpre_interp.plots.axes import colour_axis, fit_to_phone, ticks
from procpre_interp.plots.theme import COMPONENT_COLOURS, OTHERS, error_bars, fewest, lay_out
from procpre_interp.stats import interval_note
from procpre_interp.transfer_map import OUTCOMES, place

METHODS = {
    "add_one_in": ("circle", "this alone, against nothing"),
    "leave_one_out": ("diamond-open", "all, against all but this"),
    "shapley": ("square", "Shapley value"),
}
"""Marker, and name in words, of each method of a transfer map."""

DIVERGING = [[0, "#B2182B"], [0.25, "#EF8A62"], [0.5, "#F2F2F2"], [0.75, "#67A9CF"], [1, "#2166AC"]]
"""Red below 0, blue above: ColorBrewer's RdBu, told apart by colour-blind readers."""

ALL_LAYERS = "all layers"


def transfer_heatmap(effects: pd.DataFrame, *, title: str = "") -> go.Figure:
    """Effect of each player as the colour of its cell: layer across, component, head and matrix down.

    `effects` is that of `transfer_map`, with one method and one outcome. Estimates in brackets have an interval that
    includes 0, or none. A cell's custom data is its player.
    """
    method, outcome = _only(effects, "method"), _only(effects, "outcome")
    places = [place(player) for player in effects["player"]]
    layers = sorted({spot["layer"] for spot in places if spot["layer"] is not None})
    columns = [f"layer {layer}" for layer in layers]
    columns += [ALL_LAYERS] if any(spot["layer"] is None for spot in places) else []
    names = [_row(player) for player in effects["player"]]
    rows = list(dict.fromkeys(names))
    colour = np.full((len(rows), len(columns)), np.nan)
    text = np.full(colour.shape, "", dtype=object)
    hover, who = (np.full(colour.shape, "", dtype=object) for _ in range(2))
    for name, spot, effect in zip(names, places, effects.to_dict("records")):
        column = ALL_LAYERS if spot["layer"] is None else f"layer {spot['layer']}"
        cell = rows.index(name), columns.index(column)
        if text[cell]:
            raise ValueError(f"two effects for {name}, {column}; give one method, one outcome, and each player once")
        estimate, low, high = (float(effect[bound]) for bound in ("estimate", "low", "high"))
        colour[cell], number = estimate, _number(estimate)
        who[cell] = effect["player"]
        text[cell] = number if low > 0 or high < 0 else f"({number})"
        hover[cell] = f"{effect['player']}: {number} [{_number(low)}, {_number(high)}], n = {effect['n']}"
    reach = float(np.nanmax(np.abs(colour), initial=0.0)) or 1.0
    figure = go.Figure()
    figure.add_heatmap(
        x=list(range(len(columns))),
        y=list(range(len(rows))),
        z=colour,
        text=text,
        texttemplate="%{text}",
        customdata=who,
        hovertext=hover,
        hovertemplate="%{hovertext}<extra></extra>",
        xgap=2,
        ygap=2,
        coloraxis="coloraxis",
    )
    caption = f"{_in_words(method)}; (brackets): not told from 0; {interval_note(fewest(effects))}"
    heading = title or f"Effect on {OUTCOMES[outcome].description}"
    lay_out(figure, title=heading, caption=caption, x="", y="", height=280 + 36 * len(rows))
    figure.update_layout(coloraxis=colour_axis(DIVERGING, -reach, reach, f"Effect ({OUTCOMES[outcome].unit})"))
    figure.update_xaxes(**ticks(columns), showgrid=False, zeroline=False)
    figure.update_yaxes(**ticks(rows, len(rows)), showgrid=False, zeroline=False, autorange="reversed")
    return fit_to_phone(figure)


def transfer_bars(effects: pd.DataFrame, *, title: str = "") -> go.Figure:
    """Effect of each player as a point with its interval: one row a player, one marker a method.

    `effects` is that of `transfer_map`, with one outcome.
    """
    outcome = _only(effects, "outcome")
    players, methods = list(dict.fromkeys(effects["player"])), list(dict.fromkeys(effects["method"]))
    colours = player_colours(players)
    figure = go.Figure()
    for index, method in enumerate(methods):
        rows = effects.loc[effects["method"] == method]
        estimate = rows["estimate"].to_numpy(dtype=float)
        bounds = rows[["low", "high", "n"]].to_numpy(dtype=float)
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
    about = OUTCOMES[outcome]
    caption, height = interval_note(fewest(effects)), 230 + 22 * len(players) * (1 + len(methods))
    heading = title or f"Effect on {about.description}"
    lay_out(figure, title=heading, caption=caption, x=f"Effect ({about.unit})", y="", height=height)
    figure.update_yaxes(range=[len(players) - 0.5, -0.5], **ticks(players, len(players)))
    return fit_to_phone(figure)


def player_colours(players: Iterable[str]) -> dict[str, str]:
    """The colour of each player's component; the next of `OTHERS` for one without."""
    colours: dict[str, str] = {}
    free = 0
    for player in dict.fromkeys(players):
        component = place(player)["component"] or ""
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
    if spot["layer"] is None and spot["component"] is None:
        return player
    head = None if spot["head"] is None else f"head {spot['head']}"
    return " ".join(part for part in (spot["component"], head, spot["matrix"]) if part) or "block"


def _only(effects: pd.DataFrame, column: str) -> str:
    """The one value of a column."""
    values = list(dict.fromkeys(effects[column]))
    if len(values) != 1:
        raise ValueError(f"effects with {column} {values}; a figure shows one: select it first")
    return values[0]


def _in_words(method: str) -> str:
    return METHODS.get(method, ("", method))[1]


def _number(value: float) -> str:
    """Signed, to two decimals, or whole where it has hundreds; a dash for NaN."""
    if np.isnan(value):
        return "-"
    return f"{value:+,.0f}" if abs(value) >= 100 else f"{value:+.2f}"

"""Interactions of a transfer map's players: what two are worth together beyond what they are worth apart."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from procpre_interp.core.selectors import place
from procpre_interp.stats.decisions import Decision
from procpre_interp.stats.resampling import interval_methods
from procpre_interp.stats.summary import intervals_note
from procpre_interp.stats.transfer_map import OUTCOMES
from procpre_interp.views.plots.axes import add_cells, colour_axis, label_cells
from procpre_interp.views.plots.heatmaps import DIVERGING, effect_text
from procpre_interp.views.plots.theme import lay_out

CELL_PIXELS = 74
"""Width and height of a cell of up to `MOST_LARGE` players; others fill the page."""
MOST_LARGE = 8


def interaction_heatmap(interactions: pd.DataFrame, values: pd.DataFrame, *, title: str = "") -> go.Figure:
    """The interaction of each pair of players as the colour of its cell, and on the diagonal the Shapley value of each.

    `interactions` is that of `interaction_table`, `values` that of `transfer_map` for the same players and outcome (the
    rows of other methods are left out; without any of Shapley values the diagonal is empty). Shares are in percentage
    points. A number is bold where its decision is "significant".
    """
    (outcome,) = dict.fromkeys(interactions["outcome"])
    about = OUTCOMES[outcome]
    players = list(dict.fromkeys([*interactions["player"], *interactions["other"]]))
    colour = np.full((len(players), len(players)), np.nan)
    text, hover = (np.full(colour.shape, "", dtype=object) for _ in range(2))
    single = values.loc[values["method"] == "shapley"].to_dict("records")
    rows = [*interactions.to_dict("records"), *({**row, "other": row["player"]} for row in single)]
    for row in rows:
        numbers = [about.scale * float(row[bound]) for bound in ("estimate", "low", "high")]
        number, low, high = (effect_text(value, about) for value in numbers)
        who = row["player"] if row["player"] == row["other"] else f"{row['player']} with {row['other']}"
        interval = "no interval" if np.isnan(numbers[1:]).any() else f"[{low}, {high}]"
        for cell in {(row["player"], row["other"]), (row["other"], row["player"])}:
            index = tuple(players.index(name) for name in cell)
            colour[index] = numbers[0]
            text[index] = f"<b>{number}</b>" if row["decision"] == Decision.SIGNIFICANT else number
            hover[index] = f"{who}: {number} {interval}, n = {row['n']}"
    reach = float(np.nanmax(np.abs(colour), initial=0.0)) or 1.0
    figure = go.Figure()
    add_cells(figure, colour, text=text, printed="%{text}", hovertext=hover)
    note = intervals_note(interactions["n"], "when you hover over a cell", interval_methods(interactions))
    caption = f"Diagonal: Shapley values; elsewhere: Shapley interactions; bold: decided by its adjusted test; {note}"
    heading = title or f"Pairs of parts: {about.description}"
    size = max(400, 260 + CELL_PIXELS * min(len(players), MOST_LARGE))
    lay_out(figure, title=heading, caption=caption, x="", y="", height=size)
    if len(players) <= MOST_LARGE:
        figure.update_layout(width=max(560, 260 + CELL_PIXELS * len(players)))
    figure.update_layout(coloraxis=colour_axis(DIVERGING, -reach, reach, f"Effect ({about.effect_unit})"))
    names = short_names(players)
    label_cells(figure, names, names)
    return figure


def short_names(players: Sequence[str]) -> list[str]:
    """Players as labels of an axis: "0 attn 2 W_V" for `blocks.0.attn.head.2.W_V`, others as they are."""
    names = []
    for player in players:
        spot = place(player)
        parts = [str(part) for part in spot if part is not None]
        names.append(" ".join(parts) if spot.layer is not None and spot.component else player)
    return names

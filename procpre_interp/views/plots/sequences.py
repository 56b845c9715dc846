"""Generated sequences: tokens coloured by role, brackets that are open, and the rows of a cellular automaton."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Int

from procpre_interp.views.plots.axes import require, visible
from procpre_interp.views.plots.theme import GRID, OTHERS, lay_out

ROLES = {
    "opens": "#4477AA",
    "closes": "#CC6677",
    "prompt symbol": "#4477AA",
    "answer symbol": "#CC6677",
    "key": "#4477AA",
    "value": "#DDCC77",
    "query": "#117733",
    "digit": "#4477AA",
    "answer digit": "#CC6677",
    "sign": "#999933",
    "stop": "#882255",
    "separator": "#999933",
    "step": "#117733",
    "cells": "#44AA99",
    "text": "#44AA99",
    "token": "#88CCEE",
    "padding": "#BBBBBB",
}
"""The colour of each role, everywhere."""

MOST_LABELLED = 48
"""Positions up to which tokens are written into their cells; beyond it they are in the hover text alone."""


def token_grid(table: pd.DataFrame, *, title: str = "", caption: str = "") -> go.Figure:
    """Sequences below one another, a cell a token, its colour the role; a dot marks a token that is scored.

    `table` has columns sequence, position, token, role, scored (whether the token is predicted and scored).
    """
    require(table, ["sequence", "position", "token", "role", "scored"], "tokens")
    roles = [*[role for role in ROLES if role in set(table["role"])], *sorted(set(table["role"]) - set(ROLES))]
    colours = {role: ROLES.get(role, OTHERS[index % len(OTHERS)]) for index, role in enumerate(roles)}
    n_rows, n_columns = (int(table[column].to_numpy().max()) + 1 for column in ("sequence", "position"))
    at = table["sequence"].to_numpy(int), table["position"].to_numpy(int)
    z, text, hover = np.full((n_rows, n_columns), np.nan), *(np.full((n_rows, n_columns), "", object) for _ in range(2))
    names = [visible(token) for token in table["token"]]
    z[at] = [roles.index(role) for role in table["role"]]
    text[at] = names
    scored = table["scored"].to_numpy(bool)
    hover[at] = [
        f"position {position}: {name}, {role}{', scored' if is_scored else ''}"
        for position, name, role, is_scored in zip(at[1], names, table["role"], scored)
    ]
    steps = [[edge, colours[role]] for i, role in enumerate(roles) for edge in (i / len(roles), (i + 1) / len(roles))]
    figure = go.Figure()
    figure.add_heatmap(
        z=z,
        zmin=-0.5,
        zmax=len(roles) - 0.5,
        colorscale=steps,
        showscale=False,
        text=text,
        texttemplate="%{text}" if n_columns <= MOST_LABELLED else None,
        textfont={"color": "#000000", "size": 11},
        customdata=hover,
        hovertemplate="%{customdata}<extra></extra>",
        xgap=1 if n_columns <= MOST_LABELLED else 0,  # of narrow cells a gap would take the most
        ygap=4,
        opacity=0.85,
    )
    for role in roles:
        marker = {"symbol": "square", "size": 12, "color": colours[role]}
        figure.add_scatter(x=[None], y=[None], mode="markers", marker=marker, name=role)
    size, edge = (4, 0.5) if n_columns > MOST_LABELLED else (6, 1)
    dots = {"size": size, "color": "#222222", "line": {"width": edge, "color": "#EEEEEE"}}
    figure.add_scatter(
        x=at[1][scored],
        y=at[0][scored] + 0.36,
        mode="markers",
        marker=dots,
        name="scored",
        hoverinfo="skip",
    )
    lay_out(figure, title=title, caption=caption, x="Position", y="Sequence", height=230 + 38 * n_rows)
    figure.update_xaxes(showgrid=False, zeroline=False)
    figure.update_yaxes(showgrid=False, zeroline=False, range=[n_rows - 0.5, -0.5], dtick=1)
    return _line_up(figure, n_columns)


def depth_figure(table: pd.DataFrame, *, title: str = "") -> go.Figure:
    """Brackets that are open after each token: a line per sequence. Columns sequence, position, depth."""
    require(table, ["sequence", "position", "depth"], "depths")
    figure = go.Figure()
    for index, sequence in enumerate(dict.fromkeys(table["sequence"])):
        rows = table.loc[table["sequence"] == sequence]
        figure.add_scatter(
            x=rows["position"].to_numpy(),
            y=rows["depth"].to_numpy(),
            mode="lines",
            line={"shape": "hv", "color": OTHERS[index % len(OTHERS)]},
            name=f"sequence {sequence}",
            hovertemplate="position %{x}: %{y} open",
        )
    n = table["sequence"].nunique()
    caption = f"n = {n} generated sequence{'s' * (n != 1)}"
    lay_out(figure, title=title, caption=caption, x="Position", y="Open brackets", height=340)
    return _line_up(figure, int(table["position"].to_numpy().max()) + 1)


def automaton_figure(
    cells: Int[np.ndarray, "row cell"], n_states: int = 2, *, title: str = "", caption: str = ""
) -> go.Figure:
    """Rows of an automaton from the top down: state 0 is light, the highest dark."""
    figure = go.Figure()
    figure.add_heatmap(
        z=cells,
        zmin=0,
        zmax=n_states - 1,
        colorscale=[[0, "#EEEEEE"], [1, "#225588"]],
        showscale=False,
        xgap=1,
        ygap=1,
        hovertemplate="row %{y}, cell %{x}: %{z}<extra></extra>",
    )
    height = 190 + max(160, 16 * len(cells))
    lay_out(figure, title=title, caption=caption, x="Cell", y="Row (time)", height=height)
    figure.update_xaxes(showgrid=False, zeroline=False, gridcolor=GRID)
    return figure.update_yaxes(showgrid=False, zeroline=False, autorange="reversed")


def _line_up(figure: go.Figure, n_positions: int) -> go.Figure:
    """Position p at the same distance from the left edge in every figure of so many positions, one below another."""
    figure.update_layout(margin={"l": 60, "r": 20})
    return figure.update_xaxes(range=[-0.5, n_positions - 0.5]).update_yaxes(automargin=False)

"""The drawing of a circuit: components as marks by layer and head, its edges as arrows between them."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float

from procpre_interp.core.selectors import head_term, place
from procpre_interp.views.plots.axes import refuse_twice, require
from procpre_interp.views.plots.theme import (
    COMPONENT_COLOURS,
    GRID,
    lay_out,
    translucent,
)

SIGNS = {"positive score": "#4393C3", "negative score": "#D6604D"}
"""Colours of edges with a positive and with a negative score."""

ENTRIES = {"q": (-0.24, "#8866BB"), "k": (0.0, "#99772E"), "v": (0.24, "#117733")}
"""Where edges enter a head below it, in widths of a head from its middle, and the colour of that entry."""

ENTRY_NAMES = {"q": "into queries", "k": "into keys", "v": "into values"}
"""Entries in the legend."""

BELOW_HEAD, BELOW_NODE = 0.45, 0.3
"""How far below its component an entry stands, and an edge without an entry ends; a layer is two units high."""

WIDEST = 7.0
"""Pixels of the strongest edge."""

POINTS = 21
"""Points that an edge is drawn through."""

KINDS = {"embed": "embed", "attn": "head", "mlp": "MLP", "unembed": "logits"}
"""Components in the legend, by key of `COMPONENT_COLOURS`."""


class _Node(NamedTuple):
    """A component of a circuit's graph."""

    name: str
    """Its name as a writer, without q, k or v."""
    component: str
    """Key of `COMPONENT_COLOURS`."""
    layer: int
    """-1 for the embedding and the logits."""
    head: int | None


def circuit_graph(edges: pd.DataFrame, *, n: int = 40, title: str = "") -> go.Figure:
    """The `n` edges of largest |score| between a model's components, from the embedding below to the logits on top.

    `edges` has columns writer, reader, score. A band is a layer: its heads stand beside one another, its MLP to their
    right and above them, since it reads what they write. Edges are arrows from writer to reader; widths are
    proportional to |score|, colours are its sign. An edge enters a head at one of three marks below it: q, k or v.
    Components without any of these edges are faint, and edges of score 0 are not drawn.

    Raises `ValueError` for a name that is no component, an edge that is there twice, and n below 1.
    """
    require(edges, ["writer", "reader", "score"], "edges")
    refuse_twice(edges, ["writer", "reader"])
    if n < 1:
        raise ValueError(f"n={n} edges; n must be at least 1")
    nodes = {name: _node(name) for name in dict.fromkeys([*edges["writer"], *edges["reader"]])}
    spots = _places(set(nodes.values()))
    there = edges.loc[edges["score"].abs() > 0]
    strongest = there.sort_values("score", key=abs, ascending=False, kind="stable").head(n).to_dict("records")
    figure = go.Figure()
    # The weakest first: the strongest lies on top.
    for edge in reversed(strongest):
        _add_edge(figure, edge, abs(edge["score"] / strongest[0]["score"]), *_path(edge, nodes, spots))
    for sign, colour in SIGNS.items():
        figure.add_scatter(x=[None], y=[None], mode="lines", line={"color": colour, "width": 3}, name=sign)
    _add_entries(figure, sorted({edge["reader"] for edge in strongest}), nodes, spots)
    _add_nodes(figure, spots, {nodes[edge[end]] for edge in strongest for end in ("writer", "reader")})
    layers = sorted({node.layer for node in spots if node.component in ("attn", "mlp")})
    for layer in layers:
        figure.add_hrect(2 * layer - 0.66, 2 * layer + 1.3, fillcolor=GRID, opacity=0.3, line_width=0, layer="below")
    shown = f"the {len(strongest)} strongest of {len(edges):,} edges" if len(strongest) < len(edges) else "all edges"
    caption = f"{shown}; width: |score|; a shaded band is a layer"
    lay_out(figure, title=title or "Circuit", caption=caption, x="", y="", height=360 + 140 * len(layers))
    marks = {"tickvals": [2 * layer + 0.3 for layer in layers], "ticktext": [f"layer {layer}" for layer in layers]}
    figure.update_yaxes(**marks, showgrid=False, zeroline=False)
    figure.update_xaxes(showgrid=False, zeroline=False, showticklabels=False)
    return figure


def _node(name: str) -> _Node:
    """What writes or reads under this name."""
    if name in ("embed", "logits"):
        return _Node(name, "embed" if name == "embed" else "unembed", -1, None)
    spot = place(name)
    if spot.layer is not None and spot.component == "mlp" and spot.head is spot.matrix is None:
        return _Node(name, "mlp", spot.layer, None)
    if spot.layer is not None and spot.component == "attn" and spot.head is not None and spot.matrix in (None, *"qkv"):
        return _Node(head_term(spot.layer, spot.head), "attn", spot.layer, spot.head)
    raise ValueError(f"{name!r} is no end of an edge; write embed, logits, blocks.0.mlp or blocks.0.attn.head.1 (.q)")


def _places(nodes: set[_Node]) -> dict[_Node, tuple[float, float]]:
    """Where each component stands: two units of height a layer, one of width a head."""
    width = max((node.head + 1 for node in nodes if node.head is not None), default=1)
    middle, top = (width - 1) / 2, 2 * max(node.layer for node in nodes) + 2
    fixed = {"embed": (middle, -1.4), "unembed": (middle, top + 0.4)}
    spots = {}
    for node in sorted(nodes, key=lambda node: (node.layer, node.component, node.head or 0)):
        x, y = (width + 0.25, 2.0 * node.layer + 1) if node.head is None else (float(node.head), 2.0 * node.layer)
        spots[node] = fixed.get(node.component, (x, y))
    return spots


def _end(reader: str, node: _Node, spots: dict[_Node, tuple[float, float]]) -> tuple[float, float]:
    """Where edges to a reader end: at its entry, or below the component."""
    x, y = spots[node]
    shift, _ = ENTRIES.get(reader.rpartition(".")[2], (None, ""))
    return (x, y - BELOW_NODE) if shift is None else (x + shift, y - BELOW_HEAD)


def _path(
    edge: dict[str, Any], nodes: dict[str, _Node], spots: dict[_Node, tuple[float, float]]
) -> tuple[Float[np.ndarray, " point"], Float[np.ndarray, " point"]]:
    """x and y along an edge: a cubic Bezier curve that leaves its writer upwards and reaches its reader from below;
    long ones bend, so as not to run through what lies between."""
    (x0, y0), (x1, y1) = spots[nodes[edge["writer"]]], _end(edge["reader"], nodes[edge["reader"]], spots)
    y0 += 0.15
    bend = 0.2 * max(0.0, y1 - y0 - 1) * (1 if x1 >= x0 else -1)
    rise = (y1 - y0) / 2
    corners = np.array([[x0, y0], [x0 + bend, y0 + rise], [x1 + bend, y1 - rise], [x1, y1]])
    t = np.linspace(0, 1, POINTS)
    weights = np.stack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])
    x, y = corners.T @ weights
    return x, y


def _add_edge(
    figure: go.Figure,
    edge: dict[str, Any],
    strength: float,
    x: Float[np.ndarray, " point"],
    y: Float[np.ndarray, " point"],
) -> None:
    """One edge as an arrow, with its numbers wherever it is pointed at; `strength` is 1 for the strongest."""
    colour, width = translucent(list(SIGNS.values())[int(edge["score"] < 0)], 0.75), max(0.75, WIDEST * strength)
    # The points between have no size: what looks like a node on an edge would be taken for one.
    head = {"symbol": "arrow", "angleref": "previous", "size": [0] * (POINTS - 1) + [7 + 1.5 * width]}
    figure.add_scatter(
        x=x,
        y=y,
        mode="lines+markers",
        line={"color": colour, "width": width},
        marker={"color": colour, "opacity": 1, "line": {"width": 0}, **head},
        hovertemplate=f"{edge['writer']} → {edge['reader']}: {edge['score']:+.3g}<extra></extra>",
        showlegend=False,
        name=f"{edge['writer']} → {edge['reader']}",
    )


def _add_entries(
    figure: go.Figure, readers: list[str], nodes: dict[str, _Node], spots: dict[_Node, tuple[float, float]]
) -> None:
    """The marks below heads where edges enter them, one trace per entry, and thin lines from there to the heads."""
    entered = [name for name in readers if name.rpartition(".")[2] in ENTRIES]
    stalks = [(_end(name, nodes[name], spots), spots[nodes[name]], (None, None)) for name in entered]
    x, y = ([point[axis] for stalk in stalks for point in stalk] for axis in (0, 1))
    thin = {"color": "#888888", "width": 1}
    figure.add_scatter(x=x, y=y, mode="lines", line=thin, hoverinfo="skip", showlegend=False, name="entries")
    for entry, (_, colour) in ENTRIES.items():
        ends = [_end(name, nodes[name], spots) for name in readers if name.endswith(f".{entry}")]
        if ends:
            figure.add_scatter(
                x=[x for x, _ in ends],
                y=[y for _, y in ends],
                mode="markers+text",
                marker={"size": 13, "symbol": "square", "color": colour},
                text=entry,
                textfont={"size": 10, "color": "#FFFFFF"},
                hoverinfo="skip",
                name=f"{entry}: {ENTRY_NAMES[entry]}",
            )


def _add_nodes(figure: go.Figure, spots: dict[_Node, tuple[float, float]], used: set[_Node]) -> None:
    """The components, one trace per kind; faint those that no edge reaches."""
    for component, label in KINDS.items():
        # Those with edges first, since the legend looks like the first.
        nodes = sorted((node for node in spots if node.component == component), key=lambda node: node not in used)
        if not nodes:
            continue
        fill = {"color": COMPONENT_COLOURS[component], "opacity": [1.0 if node in used else 0.25 for node in nodes]}
        figure.add_scatter(
            x=[spots[node][0] for node in nodes],
            y=[spots[node][1] for node in nodes],
            mode="markers+text",
            marker={"size": 32, "symbol": "square" if component == "mlp" else "circle", **fill},
            text=[label if node.head is None else f"H{node.head}" for node in nodes],
            textfont={"size": 9, "color": "#FFFFFF"},
            customdata=[node.name for node in nodes],
            hovertemplate="%{customdata}<extra></extra>",
            name=label,
        )

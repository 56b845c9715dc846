"""Patches, circuits and weights: the figure says what its table says."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from procpre_interp.patch.graph import Graph
from procpre_interp.probe.weights import drift, spectra
from procpre_interp.views.plots.circuit_graph import SIGNS, circuit_graph
from procpre_interp.views.plots.circuits import SEARCH_COLOURS, faithfulness_curve
from procpre_interp.views.plots.patching import patch_heatmap
from procpre_interp.views.plots.theme import COMPONENT_COLOURS, OTHERS, translucent
from procpre_interp.views.plots.weights import DRIFT, KINDS, cka_heatmap, drift_figure, spectrum_figure
from tests.figures import (
    axis_titles,
    cells,
    check_plain,
    colour_range,
    colour_title,
    headings,
    hovers,
    subtitle,
    unbroken,
)
from tests.models import TINY, random_model
from tests.results import NAN


def patches(*, heads: int = 0, positions: int = 0, **columns) -> pd.DataFrame:
    """Patches of two layers in any order, whose share tells layer, head and position: l.hp, negative in layer 1."""
    rows = [
        {
            "site": "z" if heads else "resid_pre",
            "layer": layer,
            "head": head if heads else None,
            "position": position if positions else None,
            "metric": "logit_difference",
            "direction": "denoise",
            "replacement": "other",
            "value": 2.0,
            "effect": 4.0 + head,
            "share": (1 - 2 * layer) * (layer + head / 10 + position / 1000),
            "n_pairs": 1200,
        }
        for layer in (1, 0)
        for head in reversed(range(heads or 1))
        for position in reversed(range(positions or 1))
    ]
    return pd.DataFrame(rows).astype({"head": "Int64", "position": "Int64"}).assign(**columns)


def test_a_residual_patch_has_layers_down_and_positions_across():
    figure = patch_heatmap(patches(positions=12), "resid_pre")
    shown = cells(figure)
    assert list(shown.index) == ["0", "1"]
    assert list(shown.columns) == [str(p) for p in range(12)]  # as numbers: 10 comes behind 9
    np.testing.assert_allclose(shown, [[p / 1000 for p in range(12)], [-1 - p / 1000 for p in range(12)]])
    assert axis_titles(figure) == ("Position", "Layer")
    assert colour_range(figure) == (-1.011, 1.011)
    assert hovers(figure).loc["1", "11"] == "L1, position 11: share -1.01, effect +4, logit difference 2"
    wanted = "corrupted runs, each activation replaced by the pair's other run's; logit difference; n = 1,200 pairs"
    assert subtitle(figure) == f"{wanted}, no interval"
    assert colour_title(figure) == "Share of the gap"


def test_a_head_patch_has_heads_across_or_down():
    figure = patch_heatmap(patches(heads=3), "z", value="effect")
    assert cells(figure).to_dict("index") == {layer: {"0": 4, "1": 5, "2": 6} for layer in "01"}
    assert axis_titles(figure) == ("Head", "Layer")
    assert colour_title(figure) == "Change of the logit difference"
    figure = patch_heatmap(patches(heads=2, positions=3), "z")
    assert list(cells(figure).index) == ["L0H0", "L0H1", "L1H0", "L1H1"]
    np.testing.assert_allclose(cells(figure).loc["L1H1"], [-1.1, -1.101, -1.102])
    assert axis_titles(figure) == ("Position", "Layer and head")
    assert hovers(figure).loc["L0H1", "2"].startswith("L0H1, position 2: share +0.102, effect +5")


def test_a_patch_of_a_whole_site_is_one_column():
    figure = patch_heatmap(patches(direction="noise", replacement="mean", metric="loss"), "resid_pre")
    assert cells(figure)["all"].to_dict() == {"0": 0, "1": -1}
    assert subtitle(figure).startswith("clean runs, each activation replaced by the mean over pairs; loss in nats; ")
    both = pd.concat([patches(), patches(positions=2)])
    assert list(cells(patch_heatmap(both, "resid_pre"))) == ["0", "1", "all"]


def test_tokens_label_positions():
    figure = patch_heatmap(patches(positions=3), "resid_pre", tokens=["a", "&", "a"])
    assert list(cells(figure)) == ["a", "&amp;", "a"]
    assert hovers(figure).iloc[0, 2].startswith("L0, position 2 (a): ")
    with pytest.raises(ValueError, match="2 tokens, and patches at positions up to 2"):
        patch_heatmap(patches(positions=3), "resid_pre", tokens=["a", "b"])


def test_no_line_of_a_grid_runs_through_a_row():
    for figure in (patch_heatmap(patches(heads=2, positions=2), "z"), patch_heatmap(patches(), "resid_pre")):
        for axis in (figure.layout.xaxis, figure.layout.yaxis):
            assert (axis.showgrid, axis.zeroline) == (False, False)
        assert not figure.layout.shapes


def test_an_undefined_share_is_a_gap():
    figure = patch_heatmap(patches(positions=2, share=NAN), "resid_pre")
    assert cells(figure).isna().all(axis=None)
    assert colour_range(figure) == (-1, 1)


def test_patches_that_cannot_be_drawn():
    with pytest.raises(ValueError, match="unknown site 'resid_pro'. Did you mean 'resid_pre'"):
        patch_heatmap(patches(), "resid_pro")
    with pytest.raises(ValueError, match="unknown value of a patch 'value'.* There are: effect, share"):
        patch_heatmap(patches(), "resid_pre", value="value")
    with pytest.raises(ValueError, match="patches with metric .'logit_difference', 'loss'.; a figure shows one"):
        patch_heatmap(pd.concat([patches(), patches(metric="loss")]), "resid_pre")
    with pytest.raises(ValueError, match="two values for .*layer 1, head <NA>"):
        patch_heatmap(pd.concat([patches(), patches()]), "resid_pre")
    with pytest.raises(ValueError, match="the table of patches has no rows"):
        patch_heatmap(patches().head(0), "resid_pre")


EDGES = pd.DataFrame(
    [
        ("embed", "blocks.0.attn.head.0.q", 0.1),
        ("embed", "blocks.0.attn.head.0.v", -0.2),
        ("embed", "blocks.0.attn.head.1.k", 0.0),
        ("blocks.0.attn.head.0", "blocks.0.mlp", 0.4),
        ("blocks.0.mlp", "blocks.1.mlp", NAN),
        ("blocks.0.mlp", "logits", -0.8),
    ],
    columns=["writer", "reader", "score"],
)


def drawn_edges(figure: go.Figure) -> dict:
    return {trace.name: trace for trace in figure.data if " → " in (trace.name or "")}


def drawn_nodes(figure: go.Figure) -> dict:
    """Name -> (x, y, opacity, colour)."""
    return {
        name: (x, y, opacity, trace.marker.color)
        for trace in figure.data
        if trace.mode == "markers+text" and trace.customdata is not None
        for name, x, y, opacity in zip(trace.customdata, trace.x, trace.y, trace.marker.opacity)
    }


def test_the_strongest_edges_are_drawn_by_width_and_sign():
    figure = circuit_graph(EDGES, n=3)
    edges = drawn_edges(figure)
    # The strongest is drawn last, on top.
    assert list(edges) == [
        "embed → blocks.0.attn.head.0.v",
        "blocks.0.attn.head.0 → blocks.0.mlp",
        "blocks.0.mlp → logits",
    ]
    widths = [trace.line.width for trace in edges.values()]
    np.testing.assert_allclose(np.divide(widths, widths[2]), [0.25, 0.5, 1])
    above, below = (translucent(colour, 0.75) for colour in SIGNS.values())
    assert [trace.line.color for trace in edges.values()] == [below, above, below]
    assert edges["blocks.0.mlp → logits"].hovertemplate.startswith("blocks.0.mlp → logits: -0.8<")
    assert subtitle(figure).startswith("the 3 strongest of 6 edges; width: |score|; ")


def test_components_stand_by_layer():
    figure = circuit_graph(EDGES, n=3)
    nodes = drawn_nodes(figure)
    order = ["embed", "blocks.0.attn.head.0", "blocks.0.mlp", "blocks.1.mlp", "logits"]
    heights = [nodes[name][1] for name in order]
    assert heights == sorted(set(heights))
    first, second, mlp = (nodes[f"blocks.0.{part}"] for part in ("attn.head.0", "attn.head.1", "mlp"))
    assert first[1] == second[1]
    assert first[0] < second[0] < mlp[0]
    assert [nodes[name][3] for name in ("embed", "blocks.0.attn.head.0", "blocks.0.mlp", "logits")] == [
        COMPONENT_COLOURS[name] for name in ("embed", "attn", "mlp", "unembed")
    ]
    # Nothing reaches these two with an edge that is drawn.
    faint = {name for name, (*_, opacity, _) in nodes.items() if opacity < 1}
    assert faint == {"blocks.0.attn.head.1", "blocks.1.mlp"}
    # Each layer is a band with its label, and holds its heads and its MLP.
    bands = [(band.y0, band.y1) for band in figure.layout.shapes]
    assert list(figure.layout.yaxis.ticktext) == ["layer 0", "layer 1"]
    for (low, high), label, layer in zip(bands, figure.layout.yaxis.tickvals, (0, 1), strict=True):
        inside = {name for name, (_, y, *_) in nodes.items() if low < y < high}
        assert inside == {name for name in nodes if name.startswith(f"blocks.{layer}.")}
        assert low < label < high
    assert bands[0][1] < bands[1][0]


def drawn_entries(figure: go.Figure) -> dict:
    """Mark of an entry -> its places."""
    return {
        trace.text: list(zip(trace.x, trace.y))
        for trace in figure.data
        if trace.mode == "markers+text" and trace.customdata is None
    }


def test_edges_are_arrows_from_their_writer_to_an_entry_of_their_reader():
    figure = circuit_graph(EDGES)
    nodes, edges, entries = drawn_nodes(figure), drawn_edges(figure), drawn_entries(figure)
    assert len(edges) == 4  # neither the 0 nor the NaN
    for name, trace in edges.items():
        writer, reader = name.split(" → ")
        start, end = nodes[writer], nodes[reader.removesuffix(".q").removesuffix(".v")]
        assert trace.x[0] == pytest.approx(start[0])
        assert trace.x[-1] == pytest.approx(end[0], abs=0.3)
        assert start[1] < trace.y[0] < trace.y[10] < trace.y[-1] < end[1]
        # A head at the end alone: a mark on the way would look like a node.
        assert (trace.marker.symbol, trace.marker.angleref) == ("arrow", "previous")
        assert max(trace.marker.size[:-1]) == 0 < trace.marker.size[-1]
    assert set(entries) == {"q", "v"}
    for entry in "qv":
        trace = edges[f"embed → blocks.0.attn.head.0.{entry}"]
        assert entries[entry] == [pytest.approx((trace.x[-1], trace.y[-1]))]
    (q, _), (v, _) = entries["q"][0], entries["v"][0]
    assert q < nodes["blocks.0.attn.head.0"][0] < v
    named = {trace.name: trace.marker.color for trace in figure.data if trace.text in ("q", "v")}
    assert list(named) == ["q: into queries", "v: into values"]
    assert len(set(named.values())) == 2


def test_the_graph_of_a_model_has_all_its_components():
    graph = Graph(TINY)
    table = pd.DataFrame(graph.edges, columns=["writer", "reader"]).assign(score=0.5)
    figure = circuit_graph(table, n=1000)
    assert set(drawn_nodes(figure)) == {*graph.writers, "logits"}
    assert len(drawn_edges(figure)) == len(graph.edges)
    spots = {spot[:2] for spot in drawn_nodes(figure).values()}
    assert len(spots) == len(graph.writers) + 1
    assert subtitle(figure).startswith("all edges; ")
    assert not drawn_edges(circuit_graph(table.assign(score=0.0)))


def test_circuits_that_cannot_be_drawn():
    with pytest.raises(ValueError, match="n=0 edges; n must be at least 1"):
        circuit_graph(EDGES, n=0)
    with pytest.raises(ValueError, match="'blocks.0.attn' is no end of an edge; write embed, logits, "):
        circuit_graph(EDGES.assign(reader="blocks.0.attn").head(1))
    with pytest.raises(ValueError, match="two values for writer embed, reader blocks.0.attn.head.0.q"):
        circuit_graph(pd.concat([EDGES, EDGES]))
    with pytest.raises(ValueError, match="the table of edges has no rows"):
        circuit_graph(EDGES.head(0))


def curves() -> pd.DataFrame:
    rows = [{"search": "top", "n_edges": n, "draw": None, "faithfulness": n / 100} for n in (100, 10, 0)]
    rows += [
        {"search": "random", "n_edges": n, "draw": draw, "faithfulness": n / 1000 + draw / 100}
        for n in (0, 10, 100)
        for draw in range(21)
    ]
    return pd.DataFrame(rows).astype({"draw": "Int64"}).assign(completeness=lambda table: 1 - table["faithfulness"])


def test_faithfulness_has_medians_and_bands_of_random_circuits():
    figure = faithfulness_curve(curves())
    lines = [trace for trace in figure.data if trace.fill is None]
    assert [(line.name, line.xaxis) for line in lines] == [
        ("top", "x"),
        ("top", "x2"),
        ("random, median", "x"),
        ("random, median", "x2"),
    ]
    assert {tuple(line.x) for line in lines} == {(1, 11, 101)}
    np.testing.assert_allclose(lines[0].y, [0, 0.1, 1])
    np.testing.assert_allclose(lines[1].y, [1, 0.9, 0])
    np.testing.assert_allclose(lines[2].y, [0.1, 0.11, 0.2])
    assert [line.line.color for line in lines[::2]] == [SEARCH_COLOURS["top"], SEARCH_COLOURS["random"]]
    bands = [trace for trace in figure.data if trace.fill == "toself"]
    assert [band.xaxis for band in bands] == ["x", "x2"]
    # Draws 1 and 19 of 0 to 20.
    np.testing.assert_allclose(bands[0].y, [0.19, 0.2, 0.29, 0.11, 0.02, 0.01])
    assert subtitle(figure).endswith("n = 21 random circuits a size, band: 5th to 95th percentile")
    assert axis_titles(figure) == ("Edges in the circuit", "Share of the metric")
    assert list(figure.layout.xaxis2.ticktext) == ["0", "1", "10", "100"]
    assert [heading.split(":")[0] for heading in headings(figure)] == ["Faithfulness", "Completeness"]


def test_faithfulness_alone():
    figure = faithfulness_curve(curves().query("search == 'top'").drop(columns="completeness"))
    (line,) = figure.data
    assert line.name == "top"
    assert "random" not in subtitle(figure)
    with pytest.raises(ValueError, match="two values for search top, n_edges 100"):
        faithfulness_curve(pd.concat([curves(), curves()]))
    with pytest.raises(ValueError, match="the table of circuits has no rows"):
        faithfulness_curve(curves().head(0))


def test_spectra_have_a_panel_a_kind_and_a_line_a_head():
    table = spectra(random_model())
    figure = spectrum_figure(table.sample(frac=1, random_state=0), matrices=["W_V", "W_E"])
    assert headings(figure) == ["W_V: values", "W_E: tokens in"]
    (first, second), (embed,) = ([trace for trace in figure.data if trace.xaxis == axis] for axis in ("x", "x2"))
    assert [trace.name for trace in (first, second, embed)] == ["layer 0", "layer 1", "no layer"]
    assert [trace.line.color for trace in (first, second, embed)] == [*OTHERS[:2], COMPONENT_COLOURS["embed"]]
    for layer, trace in enumerate((first, second)):
        expected = []
        for head in range(TINY.n_heads):
            rows = table.query(f"matrix == 'W_V' and layer == {layer} and head == {head}")
            expected += [NAN] * (head > 0) + rows["singular_value"].tolist()
        np.testing.assert_allclose(trace.y, expected)
        assert trace.text[-1] == f"L{layer}H{TINY.n_heads - 1}"
    np.testing.assert_allclose(embed.y, table.query("matrix == 'W_E'")["singular_value"])
    assert list(embed.x) == list(range(len(embed.y)))
    assert figure.layout.yaxis.type == figure.layout.yaxis2.type == "log"
    assert axis_titles(figure) == ("Index", "Singular value")


def test_singular_values_that_are_rounding_are_not_drawn():
    model = random_model()
    # The embedding of a default transfer: every row is the mean of the parent's, so the rank is 1.
    model.W_E.data[:] = model.W_E.data.mean(0)
    table = spectra(model)
    of_embedding = table.query("matrix == 'W_E'")
    eps, longer = np.finfo(np.float32).eps, max(model.W_E.shape)
    np.testing.assert_allclose(of_embedding["rounding"], of_embedding["singular_value"].iloc[0] * longer * eps)
    figure = spectrum_figure(table, matrices=["W_Q", "W_E"])
    (embed,) = (trace for trace in figure.data if trace.xaxis == "x2")
    assert np.isfinite(embed.y).tolist() == [True] + [False] * (len(embed.y) - 1)
    assert "markers" in embed.mode  # a line through one point would not be seen
    assert f"; {len(embed.y) - 1} values, mere rounding, are left out" in subtitle(figure)
    lowest = min(np.nanmin(trace.y) for trace in figure.data)
    for axis in (figure.layout.yaxis, figure.layout.yaxis2):
        assert lowest / 10 < min(axis.tickvals) <= max(axis.tickvals) < 100
    # Without it, all but 0 is drawn.
    assert "rounding" not in subtitle(spectrum_figure(table.drop(columns="rounding"), matrices=["W_Q"]))


def test_no_point_of_a_drift_is_cut_in_half():
    before = random_model()
    figure = drift_figure(drift(before, random_model(seed=1)).assign(in_subspace=0.0, expected=0.0))
    for trace in figure.data:
        low, high = figure.layout[f"xaxis{trace.xaxis[1:]}"].range
        room = 0.05 * (high - low)
        assert low + room < np.nanmin(trace.x)
        assert np.nanmax(trace.x) < high - room


def test_spectra_of_all_matrices_fill_a_grid():
    table = spectra(random_model())
    figure = spectrum_figure(table)
    kinds = list(dict.fromkeys(table["matrix"]))
    assert [heading.split(":")[0] for heading in headings(figure)] == kinds
    legend = [trace.name for trace in figure.data if trace.showlegend]
    assert sorted(legend) == ["layer 0", "layer 1", "no layer"]
    with pytest.raises(ValueError, match="unknown matrix 'W_q'"):
        spectrum_figure(table, matrices=["W_q"])
    with pytest.raises(ValueError, match="the table of spectra has no rows"):
        spectrum_figure(table.head(0))


def test_heads_of_one_dimension_are_points_apart():
    rows = [{"layer": 0, "head": i, "matrix": "W_Q", "index": 0, "singular_value": i} for i in range(3)]
    (trace,) = spectrum_figure(pd.DataFrame(rows)).data
    # 0 has no logarithm.
    np.testing.assert_array_equal(trace.y, [NAN, NAN, 1, NAN, 2])


def test_drift_has_a_row_a_kind_of_matrix():
    table = drift(random_model(), random_model(seed=1))
    figure = drift_figure(table)
    assert headings(figure) == [unbroken(title) for title in DRIFT.values()]
    names = list(figure.layout.yaxis.ticktext)
    assert names[0] == "layer 0 W_Q"
    assert set(names[-3:]) == {"W_E", "W_pos", "W_U"}
    for column, measure in enumerate(DRIFT):
        axis = f"x{column + 1}" if column else "x"
        traces = [trace for trace in figure.data if trace.xaxis == axis and trace.name != "no preferred direction"]
        assert [trace.name for trace in traces] == list(KINDS.values())
        points = [(text, x, y) for trace in traces for text, x, y in zip(trace.text, trace.x, trace.y)]
        found = {(text, round(x, 9)) for text, x, _ in points}
        rows = table.to_dict("records")
        assert found == {(f"{row['component']} {row['matrix']}", round(row[measure], 9)) for row in rows}
        for text, _, y in points:
            assert names[int(y)].split()[-1] == text.split()[-1]
    expected = [trace for trace in figure.data if trace.name == "no preferred direction"]
    assert [trace.xaxis for trace in expected] == ["x3", "x4"]
    np.testing.assert_allclose(sorted(expected[0].x), sorted(table["expected"]))
    colours = {
        text: colour
        for trace in figure.data
        if trace.xaxis == "x"
        for text, colour in zip(trace.text, trace.marker.color)
    }
    assert colours["blocks.1.attn.head.2 OV"] == translucent(COMPONENT_COLOURS["attn"], 0.6)
    assert colours["blocks.0.mlp W_in"] == translucent(COMPONENT_COLOURS["mlp"], 0.6)


def test_drift_says_what_has_no_point():
    table = drift(random_model(), random_model(seed=1)).drop(columns="turned_in_subspace")
    table.loc[table["matrix"] == "W_E", "relative_change"] = NAN
    figure = drift_figure(table)
    assert "; 1 without a point" in subtitle(figure)
    assert len(figure.layout.annotations) == 3
    with pytest.raises(ValueError, match="two values for component"):
        drift_figure(pd.concat([table, table]))
    with pytest.raises(ValueError, match="the table of drifts has no rows"):
        drift_figure(table.head(0))


def likeness(**columns) -> pd.DataFrame:
    table = {"site": ["a", "a", "b", "b"], "other": ["a", "c", "a", "c"], "cka": [1, 0.2, -0.01, NAN], "n": 4096}
    return pd.DataFrame(table | columns)


def test_cka_has_one_models_sites_down():
    figure = cka_heatmap(likeness(), first="fresh", second="transferred")
    pd.testing.assert_frame_equal(cells(figure), pd.DataFrame([[1, 0.2], [-0.01, NAN]], list("ab"), list("ac")))
    assert colour_range(figure) == (0, 1)
    assert axis_titles(figure) == ("Site of the transferred", "Site of the fresh")
    blank = "blank: all tokens are alike there, or all but one"
    assert subtitle(figure) == f"linear CKA; n = 4,096 tokens; no interval; {blank}"
    with pytest.raises(ValueError, match="two values for site b, other a"):
        cka_heatmap(likeness(other="a").tail(2))
    with pytest.raises(ValueError, match="the table of CKA has no rows"):
        cka_heatmap(likeness().head(0))


def test_figures_are_plain_and_leave_the_templates_alone():
    check_plain(
        lambda: patch_heatmap(patches(heads=2, positions=2), "z"),
        lambda: circuit_graph(EDGES),
        lambda: faithfulness_curve(curves()),
        lambda: spectrum_figure(spectra(random_model())),
        lambda: drift_figure(drift(random_model(), random_model(seed=1))),
        lambda: cka_heatmap(likeness()),
    )

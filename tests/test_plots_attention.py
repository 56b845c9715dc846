"""Attention scores, patterns and timelines: each head in its place, axes and colours that the table asks for."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from procpre_interp.probe.attention import attention_pattern
from procpre_interp.views.plots.attention import SEQUENTIAL, pattern_figure, score_heatmap, timeline_figure
from procpre_interp.views.plots.axes import log_axis
from procpre_interp.views.plots.heatmaps import DIVERGING
from procpre_interp.views.plots.theme import GRID, OTHERS
from tests.figures import axis_titles, cells, check_plain, colour_range, colour_title, hovers, subtitle
from tests.models import TINY, random_model, random_tokens
from tests.results import NAN


def scores(**columns) -> pd.DataFrame:
    """Two layers of three heads, of which the table has the last first."""
    table = {
        "layer": [1, 1, 1, 0, 0, 0],
        "head": [2, 1, 0, 2, 1, 0],
        "score": "previous_token",
        "value": [0.9, 0.3, 0.05, 0.5, 0.2, 0.1],
        "uniform": 0.125,
        "n_queries": 1200,
    }
    return pd.DataFrame(table | columns)


def test_the_heat_map_has_heads_across_and_layers_down():
    figure = score_heatmap(scores(), "previous_token")
    assert cells(figure).to_dict("index") == {
        "0": {"0": 0.1, "1": 0.2, "2": 0.5},
        "1": {"0": 0.05, "1": 0.3, "2": 0.9},
    }
    assert axis_titles(figure) == ("Head", "Layer")
    assert figure.layout.title.text == colour_title(figure) == "Previous token"
    assert subtitle(figure) == "n = 1,200 queries a head; colours start at uniform attention, 0.125"
    assert figure.data[0].texttemplate == "%{z:.2f}"


@pytest.mark.parametrize(
    ("columns", "scale", "low", "high"),
    [
        ({}, SEQUENTIAL, 0.125, 1),
        ({"uniform": NAN}, SEQUENTIAL, 0, 1),
        ({"uniform": 1.0}, SEQUENTIAL, 0, 1),  # relative entropy, of which a uniform head has the most
        ({"value": [2.5, 0, 0, 0, 0, 0], "uniform": 3.0}, SEQUENTIAL, 0, 2.5),
        ({"value": [0.2, -0.6, 0, 0, 0, 0]}, DIVERGING, -0.6, 0.6),
        ({"value": NAN}, SEQUENTIAL, 0.125, 1),
    ],
)
def test_colours_start_where_the_score_does(columns: dict, scale: list, low: float, high: float):
    figure = score_heatmap(scores(**columns), "previous_token")
    assert [list(step) for step in figure.layout.coloraxis.colorscale] == scale
    assert colour_range(figure) == (pytest.approx(low), pytest.approx(high))
    assert {trace.coloraxis for trace in figure.data} == {"coloraxis"}


def test_a_score_without_queries_keeps_its_cells():
    table = scores(value=[NAN, 0.3, 0.05, NAN, 0.2, 0.1])
    np.testing.assert_array_equal(cells(score_heatmap(table, "previous_token")), [[0.1, 0.2, NAN], [0.05, 0.3, NAN]])


def test_replicates_are_averaged_and_counted():
    table = pd.concat([scores(replicate=0), scores(replicate=1, value=[0.7, 0.3, 0.05, 0.5, 0.2, 0.3])])
    figure = score_heatmap(table, "previous_token")
    np.testing.assert_allclose(cells(figure), [[0.2, 0.2, 0.5], [0.05, 0.3, 0.8]])
    assert hovers(figure).loc["1", "2"] == "L1H2: 0.8 [0.7, 0.9]"
    assert list(figure.data[0].customdata[1][2]) == [1, 2]  # what a click on the cell selects
    assert subtitle(figure).startswith("mean over n = 2 replicates, no interval; ")


def test_many_heads_print_no_numbers():
    table = pd.DataFrame([{"layer": i, "head": j, "score": "a", "value": 0.5} for i in range(15) for j in range(14)])
    figure = score_heatmap(table, "a", title="Own")
    assert figure.data[0].texttemplate is None
    assert list(cells(figure)) == [str(head) for head in range(14)]
    assert figure.layout.title.text == "Own"


def test_scores_that_are_not_there():
    with pytest.raises(
        ValueError, match="unknown score 'previous'. Did you mean 'previous_token'\\? There are: previous"
    ):
        score_heatmap(scores(), "previous")
    with pytest.raises(ValueError, match="the table of attention scores has no rows"):
        score_heatmap(scores().head(0), "previous_token")
    with pytest.raises(ValueError, match="it lacks .'value'."):
        score_heatmap(scores().drop(columns="value"), "previous_token")
    with pytest.raises(ValueError, match="two values for layer 1, head 2; .* select it first"):
        score_heatmap(pd.concat([scores(), scores()]), "previous_token")


def pattern(n_layers: int = 2, n_heads: int = 3, length: int = 4) -> pd.DataFrame:
    """Weights that tell layer, head, query and key: 0.lhqk."""
    rows = [
        {"layer": i, "head": j, "query": q, "key": k, "weight": (1000 * i + 100 * j + 10 * q + k) / 10_000}
        for i in range(n_layers)
        for j in range(n_heads)
        for q in range(length)
        for k in range(q + 1)
    ]
    return pd.DataFrame(rows).sample(frac=1, random_state=0)


def test_patterns_stand_in_a_grid():
    figure = pattern_figure(pattern(), ["a", "b", "a", "a"])
    assert len(figure.data) == 6
    panels = {trace.name: trace for trace in figure.data}
    titles = {note.text: (note.x, note.y) for note in figure.layout.annotations}
    assert list(titles) == ["L0H0", "L0H1", "L0H2", "L1H0", "L1H1", "L1H2"]
    for i in range(2):
        for j in range(3):
            panel = panels[f"L{i}H{j}"]
            expected = [
                [(1000 * i + 100 * j + 10 * q + k) / 10_000 if k <= q else NAN for k in range(4)] for q in range(4)
            ]
            np.testing.assert_allclose(panel.z, expected)
            axis = figure.layout[f"xaxis{panel.xaxis[1:]}"]
            x, y = titles[panel.name]
            assert axis.domain[0] < x < axis.domain[1]
            assert figure.layout[f"yaxis{panel.yaxis[1:]}"].domain[1] == pytest.approx(y)
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (0, 1)
    assert {trace.coloraxis for trace in figure.data} == {"coloraxis"}


def test_equal_tokens_stay_apart():
    figure = pattern_figure(pattern(), ["a", "<b>", " ", "a"], layer=1, head=2)
    shown = cells(figure)
    assert list(shown.columns) == list(shown.index) == ["a", "&lt;b&gt;", "␣", "a"]
    assert shown.iloc[3, 0] == pytest.approx(0.123)
    assert np.isnan(shown.iloc[0, 3])
    assert figure.data[0].customdata[3][0] == "3 a → 0 a"
    assert figure.layout.title.text == "Attention pattern of L1H2"
    assert axis_titles(figure) == ("Key", "Query")


def test_long_sequences_label_every_kth_token():
    tokens = [str(i) for i in range(60)]
    one = pattern_figure(pattern(1, 1, 60), tokens)
    assert list(one.layout.xaxis.tickvals) == list(range(0, 60, 2))
    row = pattern_figure(pattern(1, 4, 60), tokens)
    assert list(row.layout.xaxis4.tickvals) == list(range(0, 60, 5))
    assert list(row.layout.xaxis4.ticktext) == [str(i) for i in range(0, 60, 5)]


def test_a_layer_or_a_head_can_be_selected():
    assert {trace.name for trace in pattern_figure(pattern(), list("abcd"), layer=1).data} == {"L1H0", "L1H1", "L1H2"}
    assert {trace.name for trace in pattern_figure(pattern(), list("abcd"), head=2).data} == {"L0H2", "L1H2"}


def test_patterns_that_cannot_be_drawn():
    with pytest.raises(ValueError, match="3 tokens, and a pattern over 4 positions"):
        pattern_figure(pattern(), list("abc"))
    with pytest.raises(ValueError, match="no layer 2 among the patterns; there are .0, 1."):
        pattern_figure(pattern(), list("abcd"), layer=2)
    with pytest.raises(ValueError, match="two values for layer"):
        pattern_figure(pd.concat([pattern(), pattern()]), list("abcd"))
    with pytest.raises(ValueError, match="no rows"):
        pattern_figure(pattern().head(0), list("abcd"))


def test_the_pattern_of_a_model_can_be_drawn_as_it_is():
    model, tokens = random_model(), random_tokens(batch=1)[0]
    figure = pattern_figure(attention_pattern(model, tokens), [str(int(token)) for token in tokens])
    _, cache = model.run_with_cache(tokens[None])
    panels = {trace.name: trace for trace in figure.data}
    for layer in range(TINY.n_layers):
        for head in range(TINY.n_heads):
            expected = cache[f"blocks.{layer}.attn.hook_pattern"][0, head].detach().numpy()
            np.testing.assert_allclose(np.nan_to_num(panels[f"L{layer}H{head}"].z), expected, atol=1e-6)


STEPS = {1: [0, 10, 1000], 2: [0, 5, 50, 500]}


def timeline(replicates: int = 3, **columns) -> pd.DataFrame:
    """Head h of layer l moves by (l + 1) (h + 1) / 10 in phase 1, and stands in phase 2."""
    rows = [
        {
            "run": f"r{replicate}",
            "replicate": replicate,
            "phase": phase,
            "step": step,
            "axis_step": step + 1000 * (phase - 1),
            "layer": layer,
            "head": head,
            "score": "induction",
            "value": (layer + 1) * (head + 1) / 10 * (step / 1000 if phase == 1 else 1) + 0.01 * replicate,
            "uniform": 0.1 * phase,
        }
        for replicate in range(replicates)
        for phase in (2, 1)
        for step in STEPS[phase][::-1]
        for layer in range(2)
        for head in range(2)
    ]
    return pd.DataFrame(rows).assign(**columns)


def lines(figure: go.Figure, name: str) -> list:
    return [trace for trace in figure.data if trace.name == name and trace.fill is None]


def test_a_timeline_has_a_panel_a_phase_and_a_curve_a_head():
    figure = timeline_figure(timeline(), "induction", highlight=3)
    first, second = lines(figure, "L1H1")
    assert (first.xaxis, second.xaxis) == ("x", "x2")
    # Step s stands at s + 1.
    assert list(first.x) == [1, 11, 1001]
    assert list(second.x) == [1, 6, 51, 501]
    np.testing.assert_allclose(first.y, [0.01, 0.014, 0.41])
    np.testing.assert_allclose(second.y, [0.41] * 4)
    np.testing.assert_allclose(first.customdata, [[0, 0, 0.02], [10, 0.004, 0.024], [1000, 0.4, 0.42]], atol=1e-12)
    assert (first.showlegend, second.showlegend) == (True, False)
    assert figure.layout.yaxis2.matches == "y"
    assert figure.layout.xaxis.type == figure.layout.xaxis2.type == "log"
    # On a long axis 1 stands too close to 0 for a label.
    assert list(figure.layout.xaxis.ticktext) == ["0", "10", "100", "1,000"]
    assert list(figure.layout.xaxis2.ticktext) == ["0", "1", "10", "100"]
    assert [note.text for note in figure.layout.annotations] == ["Phase 1", "Phase 2"]
    assert axis_titles(figure) == ("Step of the phase", "Induction")
    assert not figure.layout.yaxis2.title.text
    (edge,) = figure.layout.shapes
    assert figure.layout.xaxis.domain[1] < edge.x0 == edge.x1 < figure.layout.xaxis2.domain[0]


def test_the_heads_that_move_most_have_colour():
    figure = timeline_figure(timeline(), "induction", highlight=2)
    colours = {name: lines(figure, name)[0].line.color for name in ("L0H0", "L0H1", "L1H0", "L1H1")}
    # L0H1 and L1H0 move alike: the first is taken.
    assert colours == {"L0H0": GRID, "L0H1": OTHERS[0], "L1H0": GRID, "L1H1": OTHERS[1]}
    order = [trace.name for trace in figure.data if trace.xaxis == "x" and trace.fill is None]
    assert order == ["L0H0", "L1H0", "L0H1", "L1H1", "uniform attention"]
    bands = [trace for trace in figure.data if trace.fill == "toself"]
    assert [(band.name, band.xaxis) for band in bands] == [(n, x) for x in ("x", "x2") for n in ("L0H1", "L1H1")]
    np.testing.assert_allclose(bands[0].y[:3] - bands[0].y[:2:-1], 0.02)
    legend = [trace.name for trace in figure.data if trace.showlegend]
    assert legend == ["L0H1", "L1H1", "uniform attention"]
    assert (
        subtitle(figure) == "n = 3 replicates; mean, band: lowest to highest; coloured: the 2 heads that move the most"
    )


def test_uniform_attention_is_dashed_in_each_phase():
    first, second = lines(timeline_figure(timeline(), "induction"), "uniform attention")
    np.testing.assert_allclose([*first.y, *second.y], [0.1] * 3 + [0.2] * 4)
    assert {first.line.dash, second.line.dash} == {"dash"}
    assert not lines(timeline_figure(timeline().drop(columns="uniform"), "induction"), "uniform attention")


def test_more_heads_than_colours_differ_in_dash():
    table = timeline()
    wide = pd.concat([table.assign(layer=table["layer"] + 2 * k) for k in range(4)])
    figure = timeline_figure(wide, "induction", highlight=16)
    looks = {(trace.line.color, trace.line.dash) for trace in figure.data if trace.showlegend}
    assert len(looks) == 17


def test_one_replicate_of_one_phase():
    figure = timeline_figure(timeline(1).query("phase == 1"), "induction")
    assert not [trace for trace in figure.data if trace.fill]
    assert not figure.layout.shapes
    assert subtitle(figure) == "n = 1 replicate"


def test_two_conditions_are_not_averaged():
    with pytest.raises(ValueError, match="two values for replicate 0, phase 2, step 500, layer 0, head 0"):
        timeline_figure(pd.concat([timeline(), timeline(run="other")]), "induction")
    with pytest.raises(ValueError, match="unknown score"):
        timeline_figure(timeline(), "previous_token")


@pytest.mark.parametrize(("largest", "labels"), [(0, ["0"]), (1, ["0", "1"]), (9, ["0", "1"]), (10, ["0", "1", "10"])])
def test_the_axis_of_counts_reaches_to_the_largest(largest: int, labels: list[str]):
    axis = log_axis(largest)
    assert axis["ticktext"] == labels
    assert axis["tickvals"] == [int(label) + 1 for label in labels]
    assert axis["range"][0] < 0
    assert axis["range"][1] > np.log10(largest + 1)


def test_figures_are_plain_and_leave_the_templates_alone():
    check_plain(
        lambda: score_heatmap(scores(), "previous_token"),
        lambda: pattern_figure(pattern(), list("abcd")),
        lambda: timeline_figure(timeline(), "induction"),
    )

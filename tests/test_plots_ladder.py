"""Transfer maps, ladders and dose-response curves: the figure says what its table says."""

import numpy as np
import pandas as pd
import pytest

from procpre_interp.stats.half_dose import dose_means, half_dose
from procpre_interp.stats.transfer_map import transfer_map
from procpre_interp.views.plots.heatmaps import ALL_LAYERS, METHODS, player_colours, transfer_bars, transfer_heatmap
from procpre_interp.views.plots.ladder import dose_response, ladder
from procpre_interp.views.plots.theme import COMPONENT_COLOURS, CONDITION_COLOURS, OTHERS
from tests.figures import cells, check_plain, colour_range, colour_title, hovers, subtitle
from tests.results import NAN

PLAYERS = ["blocks.0.attn", "blocks.1.attn", "blocks.1.mlp", "pos"]


def effects(**columns) -> pd.DataFrame:
    table = {
        "method": "shapley",
        "player": PLAYERS,
        "outcome": "accuracy",
        "estimate": [0.4, -0.1, 0.02, 0.2],
        "low": [0.3, -0.2, -0.01, NAN],
        "high": [0.5, -0.05, 0.06, NAN],
        "n": [6, 6, 5, 6],
        "decision": ["significant", "significant", "not significant", "undecided"],
    }
    return pd.DataFrame(table | columns)


def test_the_heat_map_puts_each_player_in_its_place():
    figure = transfer_heatmap(effects())
    shown, hover, (trace,) = cells(figure), hovers(figure), figure.data
    assert list(shown.columns) == ["layer 0", "layer 1", ALL_LAYERS]
    assert list(shown.index) == ["attn", "mlp", "pos"]
    np.testing.assert_array_equal(shown, [[40.0, -10.0, NAN], [NAN, 2.0, NAN], [NAN, NAN, 20.0]])
    # Bold where the decision of the adjusted test says so; the interval stands below, in the unit of the axis.
    assert trace.text.tolist() == [
        ["<b>+40.0</b><br>[+30.0, +50.0]", "<b>-10.0</b><br>[-20.0, -5.0]", ""],
        ["", "+2.0<br>[-1.0, +6.0]", ""],
        ["", "", "+20.0<br>no interval"],
    ]
    assert hover.loc["attn", "layer 0"] == "blocks.0.attn: +40.0 [+30.0, +50.0], n = 6"
    assert hover.loc["pos", ALL_LAYERS] == "pos: +20.0 no interval, n = 6"
    assert (trace.customdata[0][0], trace.customdata[2][2]) == ("blocks.0.attn", "pos")
    assert colour_range(figure) == (-40.0, 40.0)
    caption = "Shapley value; bold: decided by its adjusted test; n is given when you hover over a cell"
    assert caption in subtitle(figure)
    assert colour_title(figure) == "Effect (percentage points)"
    assert figure.layout.title.text == "Effect on accuracy"


def test_a_heat_map_of_few_columns_is_as_wide_as_they_need_and_one_of_many_fills_the_page():
    few = transfer_heatmap(effects().head(1).assign(player="attn"))
    assert few.layout.width < 500
    layers = pd.concat([effects().head(1).assign(player=f"blocks.{layer}.attn") for layer in range(4)])
    many = transfer_heatmap(layers)
    assert many.layout.width is None
    assert many.data[0].text.tolist() == [["<b>+40.0</b>"] * 4]


@pytest.mark.parametrize(
    ("players", "rows", "columns"),
    [
        (["blocks.0", "blocks.1"], ["block"], ["layer 0", "layer 1"]),
        (["blocks.0.attn.head.1.W_V", "attn.head.0"], ["attn head 1 W_V", "attn head 0"], ["layer 0", ALL_LAYERS]),
        (["blocks.10.mlp.W_in", "blocks.2.mlp.W_in"], ["mlp W_in"], ["layer 2", "layer 10"]),
        (["attn+ln", "mlp"], ["attn+ln", "mlp"], [ALL_LAYERS]),
    ],
)
def test_rows_and_columns(players: list[str], rows: list[str], columns: list[str]):
    table = effects().head(2).assign(player=players)
    shown = cells(transfer_heatmap(table))
    assert (list(shown.index), list(shown.columns)) == (rows, columns)
    assert shown.count().sum() == 2


def test_steps_are_written_whole():
    table = effects(outcome="restricted_time_steps", estimate=[-1234.5, -99.0, 0.0, NAN])
    figure = transfer_heatmap(table, title="Steps")
    (trace,) = figure.data
    assert trace.text[0][0].startswith("<b>-1,234</b><br>")
    assert trace.text[0][1].startswith("<b>-99.00</b><br>")
    assert colour_range(figure)[1] == 1234.5
    assert colour_title(figure) == "Effect (steps)"


def test_a_heat_map_shows_one_map():
    with pytest.raises(ValueError, match="a figure shows one: select it first"):
        transfer_heatmap(effects(method=["shapley", "add_one_in"] * 2))
    with pytest.raises(ValueError, match="outcome .'accuracy', 'area'."):
        transfer_bars(effects(outcome=["accuracy", "area"] * 2))
    with pytest.raises(ValueError, match="two effects for attn, layer 0"):
        transfer_heatmap(effects(player=["blocks.0.attn"] * 4))


def test_bars_have_a_row_a_player_and_a_marker_a_method():
    table = pd.concat([effects(), effects(method="add_one_in", estimate=[0.1, 0.2, 0.3, 0.4])])
    figure = transfer_bars(table)
    shapley, alone = figure.data
    assert [trace.name for trace in figure.data] == [METHODS["shapley"][1], METHODS["add_one_in"][1]]
    assert [trace.marker.symbol for trace in figure.data] == ["square", "circle"]
    np.testing.assert_allclose(shapley.x, [40, -10, 2, 20])
    np.testing.assert_allclose(alone.x, [10, 20, 30, 40])
    np.testing.assert_allclose(np.round(np.asarray(shapley.y)), range(4))
    assert (np.asarray(alone.y) > np.asarray(shapley.y)).all()
    np.testing.assert_allclose(shapley.error_x.array, [10, 5, 4, 0], atol=1e-9)
    np.testing.assert_allclose(shapley.error_x.arrayminus, [10, 10, 3, 0], atol=1e-9)
    attn, mlp, pos = (COMPONENT_COLOURS[name] for name in ("attn", "mlp", "pos"))
    assert list(shapley.marker.color) == [attn, attn, mlp, pos]
    assert list(figure.layout.yaxis.ticktext) == [
        f"{name} (n\u00a0=\u00a0{n})" for name, n in zip(PLAYERS, [6, 6, 5, 6])
    ]
    assert tuple(figure.layout.yaxis.range) == (3.5, -0.5)
    assert figure.layout.xaxis.title.text == "Effect (percentage points)"
    assert "n is given for each row" in subtitle(figure)


def test_colours_of_players():
    colours = player_colours(["ln_final", "blocks.1", "attn.head.0", "blocks.0", "attn+mlp", "blocks.0.ln2"])
    assert colours == {
        "ln_final": COMPONENT_COLOURS["ln"],
        "blocks.1": OTHERS[0],
        "attn.head.0": COMPONENT_COLOURS["attn"],
        "blocks.0": OTHERS[1],
        "attn+mlp": OTHERS[2],
        "blocks.0.ln2": COMPONENT_COLOURS["ln"],
    }


def test_a_map_can_be_drawn_as_it_is():
    rows = [
        {"coalition": name, "replicate": i, "status": "finished", "accuracy": value + i / 100}
        for i in range(3)
        for name, value in {(): 0.1, ("attn",): 0.5, ("pos",): 0.1, ("attn", "pos"): 0.9}.items()
    ]
    found = transfer_map(pd.DataFrame(rows), ["attn", "pos"], ["add_one_in", "shapley"])
    assert len(transfer_bars(found).data) == 2
    np.testing.assert_allclose(cells(transfer_heatmap(found[found["method"] == "shapley"])), [[60.0], [20.0]])


def rungs(**columns) -> pd.DataFrame:
    table = {
        "label": ["trained", "shuffled", "Gaussian"],
        "estimate": [0.9, 0.5, 0.1],
        "low": [0.8, 0.3, NAN],
        "high": [0.95, 0.6, NAN],
        "n": [8, 8, 1],
    }
    return pd.DataFrame(table | columns)


def test_a_ladder_shows_conditions_replicates_and_references():
    dots = pd.DataFrame({"label": ["trained", "trained", "shuffled", "elsewhere"], "value": [0.85, 0.95, 0.5, 0.3]})
    table = rungs(condition=["dyck_full", "dyck_shuffled_weights", "gaussian"])
    figure = ladder(table, dots=dots, references={"no transfer": 0.11, "paper": 1}, title="Ladder")
    replicates, points, *references = figure.data
    trained, shuffled, gaussian = (
        f"{name} (n\u00a0=\u00a0{n})" for name, n in (("trained", 8), ("shuffled", 8), ("Gaussian", 1))
    )
    assert list(zip(replicates.y, replicates.x)) == [(trained, 0.85), (trained, 0.95), (shuffled, 0.5)]
    assert list(points.y) == [trained, shuffled, gaussian]
    np.testing.assert_allclose(points.x, [0.9, 0.5, 0.1])
    np.testing.assert_allclose(points.error_x.array, [0.05, 0.1, 0], atol=1e-9)
    np.testing.assert_allclose(points.error_x.arrayminus, [0.1, 0.2, 0], atol=1e-9)
    assert list(points.marker.color)[:2] == [CONDITION_COLOURS[name] for name in table["condition"][:2]]
    assert [(line.x0, line.line.dash) for line in figure.layout.shapes] == [(0.11, "dot"), (1, "dash")]
    # Named in the legend, where they cannot be printed over one another.
    assert [(line.name, line.line.dash) for line in references] == [("no transfer", "dot"), ("paper", "dash")]
    assert not figure.layout.annotations
    # The first of the table stands on top.
    assert list(figure.layout.yaxis.categoryarray) == [gaussian, shuffled, trained]
    assert "n = 1: no interval" in subtitle(figure)


def test_a_ladder_without_conditions_has_one_colour():
    figure = ladder(rungs(n=8), x="Loss (nats per scored token)")
    (points,) = figure.data
    assert set(points.marker.color) == {COMPONENT_COLOURS["all"]}
    assert figure.layout.xaxis.title.text == "Loss (nats per scored token)"
    assert not figure.layout.shapes
    assert "n = 8 replicates" in subtitle(figure)


def doses() -> pd.DataFrame:
    rows = [
        {
            "component": component,
            "noise_std": dose,
            "replicate": replicate,
            "value": 0.1 + gain / (1 + dose**2) + 0.01 * replicate,
            "baseline": 0.1,
        }
        for component, gain in (("blocks.0.attn", 0.8), ("blocks.1.attn", 0.4), ("mlp", -0.2))
        for dose in (0.0, 0.5, 1.0, 4.0)
        for replicate in range(3)
    ]
    return pd.DataFrame(rows)


def test_dose_response_draws_means_bands_and_half_doses():
    table = doses()
    means, fits = dose_means(table), half_dose(table, n_resamples=50)
    figure = dose_response(means, fits)
    curves = [trace for trace in figure.data if trace.showlegend is None]
    assert [trace.legendgroup for trace in curves] == ["blocks.0.attn", "blocks.1.attn", "mlp"]
    # Dose 0 stands one step to the left of the smallest dose.
    assert list(curves[0].x) == [0.25, 0.5, 1, 4]
    np.testing.assert_allclose(curves[0].y, [0.91, 0.75, 0.51, 0.11 + 0.8 / 17])
    assert list(figure.layout.xaxis.tickvals) == [0.25, 0.5, 1, 4]
    assert list(figure.layout.xaxis.ticktext) == ["0", "0.5", "1", "4"]
    assert figure.layout.xaxis.type == "log"
    attn, mlp = COMPONENT_COLOURS["attn"], COMPONENT_COLOURS["mlp"]
    assert [(trace.line.color, trace.line.dash) for trace in curves] == [
        (attn, "solid"),
        (attn, "dot"),
        (mlp, "solid"),
    ]
    assert [trace.marker.color for trace in curves] == [attn, attn, mlp]
    bands = [trace for trace in figure.data if trace.fill == "toself"]
    assert [band.mode for band in bands] == ["lines"] * 3  # plotly marks the points of a short line otherwise
    np.testing.assert_allclose(bands[0].y[:4] - bands[0].y[:3:-1], 0.02)
    marks = [trace for trace in figure.data if trace.line.dash == "dash"]
    assert [trace.legendgroup for trace in marks] == ["blocks.0.attn", "blocks.1.attn"]
    np.testing.assert_allclose(marks[0].x, [fits["half_dose"][0]] * 2)
    low, high = (float(fits[bound][0]) for bound in ("low", "high"))
    assert curves[0].name == f"blocks.0.attn: half dose {fits['half_dose'][0]:.2g} [{low:.2g}, {high:.2g}]"
    assert curves[2].name == "mlp: no gain to halve"
    assert [(line.y0, line.line.dash) for line in figure.layout.shapes] == [(pytest.approx(0.1), "dot")]
    assert "dashed: half of the gain is left; n = 3 replicates" in subtitle(figure)
    assert figure.layout.yaxis.title.text == "Test accuracy (% of answer<br>tokens)"
    assert figure.layout.yaxis.tickformat == ".0%"


@pytest.mark.parametrize(
    ("half", "low", "high", "said"),
    [
        (9.0, NAN, NAN, "mlp: half dose above 4"),
        (16.0, 5.0, 16.0, "mlp: half dose above 4"),
        (16.0, 1.5, 16.0, "mlp: half dose above 4 [1.5, above 4]"),
        (0.2, 0.125, 0.4, "mlp: half dose below 0.5"),
        (1.0, 0.7, 6.0, "mlp: half dose 1 [0.7, above 4]"),
    ],
)
def test_a_half_dose_beyond_the_doses_is_said_as_its_side_and_stays_off_the_axis(half, low, high, said):
    fits = pd.DataFrame({"component": ["mlp"], "half_dose": half, "low": low, "high": high, "beyond": half != 1.0})
    means = dose_means(doses().query("component == 'mlp'"))
    figure = dose_response(means, fits.assign(problem="beyond", slope=1.0, unbounded=0.0, n=3))
    assert {trace.name for trace in figure.data} == {said}
    drawn = np.concatenate([np.asarray(trace.x, dtype=float) for trace in figure.data])
    assert drawn.max() <= 4


def test_one_replicate_has_no_band():
    means = dose_means(doses().query("replicate == 0")).drop(columns="baseline")
    figure = dose_response(means)
    assert len(figure.data) == 3
    assert not figure.layout.shapes
    assert "no interval" in subtitle(figure)
    assert "dashed" not in subtitle(figure)


def test_figures_are_plain_and_leave_the_templates_alone():
    check_plain(
        lambda: transfer_heatmap(effects()),
        lambda: transfer_bars(effects()),
        lambda: ladder(rungs()),
        lambda: dose_response(dose_means(doses())),
    )

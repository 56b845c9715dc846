"""Figures of claims: where points, margins and predicted sides are."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from procpre_interp.claims.measures import Measure
from procpre_interp.stats.resampling import IntervalMethod
from procpre_interp.views.plots.claims import contrast_forest, gains_beside, paired_values
from procpre_interp.views.plots.sequence import sequence_figure
from tests.judged import contrast_result

ROWS = pd.DataFrame(
    {
        "contrast": ["a <b>over</b> b", "c over d", "e near f"],
        "axis": ["accuracy", "accuracy", "steps"],
        "predicted": ["above", "", "within"],
        "margin": [0.2, 0.0, 100.0],
        "estimate": [0.5, -0.1, 20.0],
        "low": [0.3, -0.2, -50.0],
        "high": [0.7, 0.05, 90.0],
        "n": [6, 6, 4],
        "verdict": ["supported", "", "supported"],
    }
)


PAIRS = pd.DataFrame({"replicate": [7, 8], "attn": [0.9, 0.8], "none": [0.1, 0.3], "value": [0.8, 0.5]})
CONTRAST = contrast_result(
    contrast="attention over none", estimate=0.65, low=0.5, high=0.8, weights={"attn": 1, "none": -1}
)


def named(figure, name: str) -> list:
    return [trace for trace in figure.data if trace.name == name]


def test_estimates_stand_where_they_are_and_names_are_escaped():
    figure = contrast_forest(ROWS)
    first, second = named(figure, "supported")
    assert (list(first.x), list(second.x)) == ([0.5], [20.0])
    assert (first.error_x.array[0], first.error_x.arrayminus[0]) == pytest.approx((0.2, 0.2))
    (open_,) = named(figure, "not predicted")
    assert list(open_.x) == [-0.1]
    assert figure.layout.yaxis.ticktext[0].replace("<br>", " ") == "a &lt;b&gt;over&lt;/b&gt; b (n\u00a0=\u00a06)"
    assert figure.layout.xaxis.title.text == "accuracy"
    assert figure.layout.xaxis2.title.text == "steps"
    assert "n is given for each row" in figure.layout.title.subtitle.text
    assert figure.layout.yaxis2.ticktext[0].endswith("(n\u00a0=\u00a04)")


def test_the_predicted_side_begins_at_the_margin():
    figure = contrast_forest(ROWS)
    above, within = named(figure, "predicted")
    assert min(x for x in above.x if x is not None) == 0.2
    assert max(x for x in above.x if x is not None) == figure.layout.xaxis.range[1]
    assert {x for x in within.x if x is not None} == {-100.0, 100.0}
    margins = [{x for x in trace.x if x is not None} for trace in named(figure, "margin")]
    assert margins == [{0.2}, {-100.0, 100.0}]


def test_both_margins_of_within_and_the_whole_of_each_interval_are_on_the_axis():
    figure = contrast_forest(ROWS)
    left, right = figure.layout.xaxis2.range
    assert left < -100 < 100 < right
    left, right = figure.layout.xaxis.range
    assert left < -0.2 < 0.7 < right
    alone = contrast_forest(ROWS.iloc[[1]].assign(margin=50.0))
    assert named(alone, "predicted") + named(alone, "margin") == []
    assert alone.layout.xaxis.range[1] < 1  # a margin that nothing was predicted of is not on it


def test_a_contrast_without_replicates_has_its_row_and_no_point():
    empty = ROWS.iloc[[0]].assign(estimate=np.nan, low=np.nan, high=np.nan, n=0, verdict="undecided")
    figure = contrast_forest(empty)
    assert list(named(figure, "margin")[0].x)[:2] == [0.2, 0.2]
    assert np.isnan(named(figure, "undecided")[0].x).all()
    assert "no interval" in figure.layout.title.subtitle.text


def test_each_name_is_in_the_legend_once():
    shown = [trace.name for trace in contrast_forest(ROWS).data if trace.showlegend]
    assert sorted(shown) == sorted({"supported", "not predicted", "predicted", "margin"})


def test_pairs_belong_together():
    figure = paired_values(PAIRS, CONTRAST)
    (attention,) = named(figure, "attn")
    assert (list(attention.x), list(attention.y)) == ([0.9, 0.8], ["seed 7", "seed 8"])
    lines = np.array(figure.data[0].x, dtype=float).reshape(2, 3)
    np.testing.assert_allclose(lines[:, :2], [[0.9, 0.1], [0.8, 0.3]])
    assert list(named(figure, "contrast")[0].x) == [0.8, 0.5]
    assert list(named(figure, "mean and interval")[0].x) == [0.65]
    sides = [(shape.x0, shape.x1) for shape in figure.layout.shapes if shape.type == "rect"]
    assert sides == [(0.2, figure.layout.xaxis2.range[1])]
    lines = [(shape.x0, shape.xref) for shape in figure.layout.shapes if shape.type == "line"]
    assert lines == [(0.2, "x2")]


def test_labels_and_titles_of_pairs_are_escaped():
    contrast = dataclasses.replace(CONTRAST, contrast="<b>x", about=Measure("<i>y", unit="<i>z"))
    figure = paired_values(PAIRS, contrast, labels={"attn": "<a href='x'>"})
    assert figure.layout.title.text == "&lt;b&gt;x"
    assert figure.layout.xaxis.title.text == "&lt;i&gt;y"
    assert figure.layout.xaxis2.title.text.replace("<br>", " ") == "the contrast (&lt;i&gt;z)"
    (attention,) = named(figure, "&lt;a href='x'&gt;")
    assert attention.text == attention.name


def test_many_conditions_are_told_apart_by_the_sign_of_their_weights():
    weights = {f"c{index}": 1 if index < 3 else -1 for index in range(8)}
    pairs = pd.DataFrame({"replicate": [0], "value": [0.5]} | {name: [0.1] for name in weights})
    figure = paired_values(pairs, dataclasses.replace(CONTRAST, weights=weights))
    assert [len(named(figure, name)) for name in ("weighed +", "weighed -")] == [3, 5]
    legend = [trace.name for trace in figure.data if trace.showlegend is not False]
    assert sorted(legend) == ["contrast", "mean and interval", "weighed +", "weighed -"]
    assert len({trace.marker.color for trace in figure.data if trace.name == "weighed +"}) == 1


def test_ours_and_the_papers_stand_in_one_row():
    summary = pd.DataFrame(
        {
            "task": ["haystack", "haystack", "sorting"],
            "label": ["Dyck", "set", "set"],
            "gain_mean": [0.4, 0.0, -0.7],
            "gain_low": [0.1, -0.1, -0.8],
            "gain_high": [0.6, 0.1, -0.6],
            "n": [3, 3, 3],
            "claimed_gain": [0.85, np.nan, 0.1],
            "margin": [0.2, 0.02, 0.03],
            "verdict": ["agrees", "", "disagrees"],
        }
    )
    figure = gains_beside(summary)
    assert [list(trace.x) for trace in named(figure, "the paper")] == [[85.0], [10.0]]
    assert [list(trace.x) for trace in named(figure, "disagrees")] == [[-70.0]]
    bands = [(shape.x0, shape.x1, shape.y0, shape.y1) for shape in figure.layout.shapes]
    assert bands == [(-20.0, 20.0, -0.5, 0.5), (-3.0, 3.0, -0.5, 0.5)]  # each row has its own
    assert "percentage points" in figure.layout.xaxis.title.text
    with pytest.raises(ValueError, match="no rows"):
        gains_beside(summary.assign(claimed_gain=np.nan))


def test_a_sequence_is_drawn_from_replicate_to_replicate():
    steps = pd.DataFrame({"n": [1, 2, 3], "replicate": [7, 8, 9], "estimate": [0.8, 0.5, 0.6]})
    steps = steps.assign(low=[-0.9, -0.5, -0.3], high=[1.0, 1.0, 0.95])
    figure = sequence_figure(steps, dataclasses.replace(CONTRAST, interval=IntervalMethod.BETTING, n=3))
    (mean,) = named(figure, "mean so far")
    assert (list(mean.x), list(mean.y)) == ([1, 2, 3], [0.8, 0.5, 0.6])
    (band,) = named(figure, "interval")
    assert (min(band.y), max(band.y)) == (-0.9, 1.0)
    lines = [shape for shape in figure.layout.shapes if shape.type == "line"]
    assert lines[0].y0 == 0.2
    assert lines[1].x0 == 5.5
    (side,) = [shape for shape in figure.layout.shapes if shape.type == "rect"]
    assert (side.y0, side.y1) == (0.2, figure.layout.yaxis.range[1])
    assert "betting confidence sequence" in figure.layout.title.subtitle.text.replace("<br>", " ")
    # A t mixture begins with the sixth replicate.
    late = steps.assign(low=[np.nan, np.nan, -0.3], high=[np.nan, np.nan, 0.95])
    (band,) = named(sequence_figure(late, CONTRAST), "interval")
    assert set(band.x) == {3}

"""Figures: what is drawn, in which colour, and what the caption admits."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from procpre_interp.stats.summary import summarise_conditions, survival_curve
from procpre_interp.views.plots.curves import accuracy_by_condition, coinciding, learning_curves, survival_curves
from procpre_interp.views.plots.theme import (
    CAPTION_WIDTH,
    CONDITION_COLOURS,
    OTHERS,
    TITLE_WIDTH,
    X_WIDTH,
    condition_colours,
    lay_out,
    translucent,
)
from tests.figures import check_plain, subtitle
from tests.results import NAN, reproduce_table


def histories(replicates: int = 3) -> pd.DataFrame:
    """Evaluations of two conditions at three steps."""
    rows = [
        {
            "condition": condition,
            "label": f"<{condition}>",
            "replicate": replicate,
            "step": step,
            "split": split,
            "accuracy": reach * step / 100 + 0.01 * replicate if split == "validation" else np.nan,
            "loss_nats": 3 - step / 100,
        }
        for condition, reach in (("none", 0.1), ("dyck_full", 0.9))
        for replicate in range(replicates)
        for step in (0, 50, 100)
        for split in ("train", "validation")
    ]
    return pd.DataFrame(rows)


def traces(figure: go.Figure, **properties: object) -> list:
    return [trace for trace in figure.data if all(trace[key] == value for key, value in properties.items())]


def test_learning_curves_draw_mean_band_and_replicates():
    figure = learning_curves(histories(), threshold=0.5)
    means = [trace for trace in figure.data if trace.showlegend is None]
    assert [trace.name for trace in means] == ["&lt;none&gt;", "&lt;dyck_full&gt;"]
    assert means[1].line.color == CONDITION_COLOURS["dyck_full"]
    np.testing.assert_allclose(means[1].y, [0.01, 0.46, 0.91])
    assert len(traces(figure, fill="toself")) == 2
    thin = traces(figure, showlegend=False, fill=None)
    assert len(thin) == 2
    np.testing.assert_allclose(np.asarray(thin[1].y, float)[4:7], [0.01, 0.46, 0.91])
    assert "n = 3 replicates" in subtitle(figure)
    assert figure.layout.yaxis.title.text == "Validation accuracy (% of<br>answer tokens)"
    assert len(figure.layout.shapes) == 1


def test_one_replicate_has_no_band_and_says_so():
    figure = learning_curves(histories(1), "loss_nats")
    assert len(figure.data) == 2
    assert "no interval" in subtitle(figure)
    assert figure.layout.yaxis.title.text == "Validation loss (nats per<br>scored token)"


def test_survival_curves_are_steps():
    figure = survival_curves(reproduce_table(label=["none", "Dyck"] * 3))
    none, dyck = figure.data
    assert list(none.y) == [1, 1]
    assert list(dyck.x) == [0, 1000, 2000, 4000]
    np.testing.assert_allclose(dyck.y, [1, 2 / 3, 1 / 3, 1 / 3])
    assert dyck.line.shape == "hv"


def test_curves_that_coincide_are_all_seen_and_named():
    table = pd.concat(
        [reproduce_table(), reproduce_table(condition=["other", "third"] * 3, label=["Other", "Third"] * 3)]
    )
    table = table.assign(breakthrough_step=[NAN, 1000.0, NAN, 2000.0, NAN, NAN, NAN, 1000.0, NAN, 2000.0, NAN, 3000.0])
    none, dyck, other, third = survival_curves(table).data
    assert none.line.width >= other.line.width + 4  # drawn first, so its edges stay visible on both sides
    assert dyck.line.width == third.line.width == other.line.width
    assert coinciding(survival_curve(table)) == [["none", "other"], ["dyck_full"], ["third"]]
    assert "2 conditions lie on one line: no pretraining, Other" in subtitle(survival_curves(table))
    assert "lie on one line" not in subtitle(survival_curves(reproduce_table()))


def test_titles_are_broken_into_lines_that_a_narrow_screen_can_show():
    title = "Claim: a sentence that is much too long for four hundred pixels - undecided"
    caption, label = "a caption that is too long as well, with n = 6 replicates and their interval", "a very " * 8
    figure = lay_out(go.Figure(), title=title, caption=caption, x=label, y=label)
    short = lay_out(go.Figure(), title="Short", caption="short", x="x", y="y")
    texts = {TITLE_WIDTH: figure.layout.title.text, CAPTION_WIDTH: figure.layout.title.subtitle.text}
    texts |= {X_WIDTH: figure.layout.xaxis.title.text}
    for width, text in texts.items():
        assert max(map(len, text.split("<br>"))) <= width
    assert figure.layout.title.text.replace("<br>", " ") == title
    assert (figure.layout.title.xref, figure.layout.title.x) == ("container", 0)
    # The plot keeps its height: further lines are room of their own.
    assert figure.layout.height - figure.layout.margin.t == short.layout.height - short.layout.margin.t
    assert figure.layout.margin.t > short.layout.margin.t


def test_the_n_of_each_row_is_given_where_they_differ():
    table = reproduce_table().iloc[:5]
    figure = accuracy_by_condition(summarise_conditions(table), table=table)
    assert set(figure.data[1].y) == {"no pretraining (n\u00a0=\u00a03)", "Dyck (n\u00a0=\u00a02)"}
    assert "n is given for each row" in subtitle(figure)
    same = accuracy_by_condition(summarise_conditions(reproduce_table()))
    assert set(same.data[0].y) == {"no pretraining", "Dyck"}
    assert "n = 3 replicates" in subtitle(same)


def test_accuracy_shows_interval_replicates_and_the_paper():
    table = reproduce_table()
    figure = accuracy_by_condition(
        summarise_conditions(table), table=table, paper={"none": 0.113, "not in the table": 0.5}
    )
    replicates, means, paper = figure.data
    assert len(replicates.x) == 6
    np.testing.assert_allclose(means.error_x.array, [0.01, 0.3], atol=1e-9)
    assert (list(paper.x), list(paper.y)) == ([0.113], ["no pretraining"])
    assert paper.marker.symbol == "diamond-open"


def test_every_condition_has_one_colour():
    colours = condition_colours(["zeta", "none", "alpha", "none"])
    assert colours == {"zeta": OTHERS[1], "none": CONDITION_COLOURS["none"], "alpha": OTHERS[0]}
    assert len(set(CONDITION_COLOURS.values()) | set(OTHERS)) == len(CONDITION_COLOURS) + len(OTHERS)
    assert translucent("#FF8000", 0.5) == "rgba(255, 128, 0, 0.5)"


def test_figures_are_plain_and_leave_the_templates_alone():
    check_plain(lambda: learning_curves(histories()), lambda: survival_curves(reproduce_table()))

"""Axes, lines of text and targets of clicks that figures share."""

import numpy as np
import plotly.graph_objects as go
import pytest

from procpre_interp.views.plots.axes import MAX_PRINTED, add_cells, add_click_targets, label_cells, log_ticks
from procpre_interp.views.plots.theme import CAPTION_WIDTH, PANEL_LINE, TITLE_WIDTH, lay_out, wrapped
from tests.figures import subtitle, unbroken


def test_a_line_is_broken_between_words_and_stays_broken():
    assert wrapped("one two three", 7) == "one two<br>three"
    assert wrapped("one<br>two", 20) == "one<br>two"
    assert wrapped("extraordinarily long-lived", 5) == "extraordinarily<br>long-lived"
    assert wrapped("") == ""
    once = wrapped("a title " * 20)
    assert max(map(len, once.split("<br>"))) <= TITLE_WIDTH
    assert wrapped(once) == once


def test_a_title_has_room_for_its_lines_and_takes_none_from_the_plot():
    def laid_out(title: str, caption: str, headings: int = 0) -> go.Figure:
        return lay_out(go.Figure(), title=title, caption=caption, x="", y="", height=400, headings=headings)

    short, long = laid_out("short", "n = 1"), laid_out("a long title " * 8, "a long caption " * 12)
    assert max(map(len, long.layout.title.subtitle.text.split("<br>"))) <= CAPTION_WIDTH
    assert (unbroken(long.layout.title.text), subtitle(long)) == (
        ("a long title " * 8).strip(),
        ("a long caption " * 12).strip(),
    )
    assert long.layout.margin.t > short.layout.margin.t
    plots = {figure.layout.height - figure.layout.margin.t for figure in (short, long)}
    assert len(plots) == 1
    assert long.layout.title.xref == "container"
    panels = laid_out("short", "n = 1", headings=2)
    assert panels.layout.margin.t == short.layout.margin.t + 2 * PANEL_LINE
    assert panels.layout.height - panels.layout.margin.t in plots


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0.01, 5.0, ["0.01", "0.1", "1"]),
        (0.08, 0.24, ["0.1", "0.2"]),
        (1e-8, 10.0, ["1e-08", "1e-06", "0.0001", "0.01", "1"]),
        (3.0, 3.0, ["3"]),
    ],
)
def test_a_logarithmic_axis_has_a_few_labels(low: float, high: float, labels: list[str]):
    axis = log_ticks(low, high)
    assert axis["ticktext"] == labels
    assert all(low <= value <= high for value in axis["tickvals"])
    with pytest.raises(ValueError, match="starts above 0"):
        log_ticks(0.0, 1.0)


def test_a_target_covers_its_cell_and_carries_its_data():
    figure = go.Figure()
    names = [[[row, column] for column in range(3)] for row in range(2)]
    z = [[1, np.nan, 3], [4, 5, 6]]
    figure.add_heatmap(z=z, x=[0, 1, 2], y=[0, 1], customdata=names, hovertext=[["a", "b", "c"], ["d", "e", "f"]])
    _, bars = add_click_targets(figure).data
    assert bars.marker.opacity == 0
    covered = {
        (x, base): (place, text) for x, base, place, text in zip(bars.x, bars.base, bars.customdata, bars.hovertext)
    }
    assert covered[2, -0.5] == ([0, 2], "c")
    assert covered[1, 0.5] == ([1, 1], "e")
    assert len(covered) == 5  # the cell without a number has none
    assert (bars.width, set(bars.y), figure.layout.bargap) == (1, {1}, 0)
    assert (list(figure.layout.xaxis.range), list(figure.layout.yaxis.range)) == ([-0.5, 2.5], [1.5, -0.5])


def test_cells_print_their_numbers_where_there_is_room():
    small, large = go.Figure(), go.Figure()
    add_cells(small, np.zeros((2, 3)), printed="%{z}", hovertext=[["a"] * 3] * 2)
    add_cells(large, np.zeros((MAX_PRINTED, 2)), printed="%{z}")
    label_cells(small, ["top", "bottom"], ["0", "1", "2"])
    assert [figure.data[0].texttemplate for figure in (small, large)] == ["%{z}", None]
    assert (list(small.layout.yaxis.ticktext), small.layout.yaxis.autorange) == (["top", "bottom"], "reversed")
    assert small.data[0].coloraxis == "coloraxis"

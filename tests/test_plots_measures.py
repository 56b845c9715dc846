"""Measurements as points."""

import numpy as np
import pandas as pd
import pytest

from procpre_interp.views.plots.measures import MOST_ROWS, measure_dots


def test_one_row_a_place_and_one_marker_a_number():
    table = pd.DataFrame(
        {
            "component": ["embed", "head", "head", "embed", "head", "head"],
            "head": pd.array([None, 0, 1, None, 0, 1], dtype="Int64"),
            "run": ["a"] * 3 + ["b"] * 3,
            "value": [1.0, 2.0, 3.0, 3.0, 4.0, 5.0],
            "chance": 0.5,
        }
    )
    figure = measure_dots(table, ["component", "head"], ["value", "chance"], title="Where")
    assert [trace.name for trace in figure.data] == ["value", "chance"]
    assert list(figure.data[0].y) == ["embed", "head 0", "head 1"]
    assert figure.data[0].x.tolist() == [2, 3, 4]
    assert figure.data[1].x.tolist() == [0.5] * 3
    assert len({trace.marker.symbol for trace in figure.data}) == 2
    assert "mean of up to 2 rows" in figure.layout.title.subtitle.text
    assert list(figure.layout.yaxis.categoryarray) == ["head 1", "head 0", "embed"]


def test_what_does_not_fit_is_said():
    table = pd.DataFrame({"place": [str(i) for i in range(MOST_ROWS + 3)], "value": np.arange(MOST_ROWS + 3.0)})
    figure = measure_dots(table, ["place"], ["value"])
    assert len(figure.data[0].x) == MOST_ROWS
    assert "3 more places are in the table" in figure.layout.title.subtitle.text


def test_mistakes_are_explained():
    table = pd.DataFrame({"place": ["a"], **{name: [1.0] for name in "uvwxyz"}})
    with pytest.raises(ValueError, match="6 numbers in one figure"):
        measure_dots(table, ["place"], list("uvwxyz"))
    with pytest.raises(ValueError, match="value"):
        measure_dots(table, ["place"], ["value"])
    with pytest.raises(ValueError, match="no"):
        measure_dots(table.head(0), ["place"], ["u"])

"""Any measurement as points: one row per place, such as a component or a site, one marker per number."""

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from procpre_interp.views.plots.axes import require
from procpre_interp.views.plots.theme import OTHERS, lay_out

SYMBOLS = ("circle", "diamond-open", "square-open", "x-thin-open", "triangle-up-open")
MOST_ROWS = 60
"""Places that can be told apart in one figure."""


def measure_dots(
    table: pd.DataFrame, places: Sequence[str], values: Sequence[str], *, x: str = "", title: str = ""
) -> go.Figure:
    """The numeric columns `values` of a table, one marker each, in a row for each combination of the columns `places`.

    Of several runs and draws the means are shown, and how many rows there are at most behind one. At most the first
    `MOST_ROWS` places, in the order of the table. Raises `ValueError` for an empty table, a column that it does not
    have, or more values than markers.
    """
    require(table, [*places, *values], "measurements")
    if len(values) > len(SYMBOLS):
        raise ValueError(f"{len(values)} numbers in one figure; choose at most {len(SYMBOLS)}")
    groups = table.groupby(list(places), sort=False, dropna=False, as_index=False)
    means = groups.agg(dict.fromkeys(values, "mean")).head(MOST_ROWS)
    labels = [" ".join(str(part) for part in row if not pd.isna(part)) for row in means[list(places)].to_numpy()]
    figure = go.Figure()
    for index, value in enumerate(values):
        figure.add_scatter(
            x=means[value].to_numpy(dtype=float),
            y=labels,
            mode="markers",
            marker={"symbol": SYMBOLS[index], "size": 10, "color": OTHERS[index], "line": {"width": 2}},
            name=value.replace("_", " "),
            hovertemplate="%{y}: %{x:.4g}",
        )
    n, hidden = max(len(rows) for _, rows in groups), len(groups) - len(means)
    caption = f"mean of up to {n} rows, no interval" if n > 1 else "one value per place"
    caption += f"; {hidden} more places are in the table" if hidden else ""
    axis = x or ", ".join(value.replace("_", " ") for value in values)
    lay_out(figure, title=title, caption=caption, x=axis, y="", height=230 + 24 * len(labels))
    return figure.update_yaxes(type="category", categoryorder="array", categoryarray=labels[::-1])

"""What a reader sees of a figure, whichever way it is drawn."""

import json
from collections.abc import Callable, Iterable

import pandas as pd
import plotly.graph_objects as go
import plotly.io as pio


def unbroken(text: str) -> str:
    """A title as one line."""
    return text.replace("<br>", " ")


def subtitle(figure: go.Figure) -> str:
    """The caption below the title, as one line."""
    return unbroken(figure.layout.title.subtitle.text)  # type: ignore[union-attr]


def headings(figure: go.Figure) -> list[str]:
    """The titles of the panels, each as one line."""
    return [unbroken(note.text) for note in figure.layout.annotations]  # type: ignore[union-attr]


def colour_title(figure: go.Figure) -> str:
    """What the colours of a heat map are, as one line."""
    return unbroken(figure.layout.coloraxis.colorbar.title.text)  # type: ignore[union-attr]


def colour_range(figure: go.Figure) -> tuple[float, float]:
    """The values of the first and of the last colour of a heat map."""
    return figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax  # type: ignore[union-attr]


def cells(figure: go.Figure) -> pd.DataFrame:
    """The numbers of a heat map as they stand: rows from the top, columns from the left, under the labels there."""
    return _grid(figure, "z")


def hovers(figure: go.Figure) -> pd.DataFrame:
    """What is said of each cell of a heat map when one hovers over it."""
    return _grid(figure, "hovertext")


def _grid(figure: go.Figure, field: str) -> pd.DataFrame:
    (cells,) = (trace for trace in figure.data if trace.type == "heatmap")
    x, y = figure.layout.xaxis, figure.layout.yaxis  # type: ignore[union-attr]
    table = pd.DataFrame(cells[field], index=labels(y, cells.y), columns=labels(x, cells.x))
    return table if y.autorange == "reversed" else table[::-1]


def labels(axis: go.layout.XAxis | go.layout.YAxis, places: Iterable[object]) -> list[str]:
    """What an axis calls these places, each of which has a label: of its own, or itself."""
    own = {} if axis.ticktext is None else dict(zip(axis.tickvals, axis.ticktext))
    return [own[place] if own else str(place) for place in places]


def axis_titles(figure: go.Figure) -> tuple[str, str]:
    """Those of the horizontal and of the vertical axis, each as one line."""
    x, y = figure.layout.xaxis, figure.layout.yaxis  # type: ignore[union-attr]
    return unbroken(x.title.text), unbroken(y.title.text)


def check_plain(*draw: Callable[[], go.Figure]) -> None:
    """Drawing leaves plotly's global templates alone, and what is drawn can be sent to a browser."""
    before = pio.templates.default, list(pio.templates)
    for each in draw:
        assert json.loads(each().to_json())["data"]
    assert (pio.templates.default, list(pio.templates)) == before

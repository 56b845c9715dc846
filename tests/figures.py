"""What a reader sees of a figure, whichever way it is drawn."""

import plotly.graph_objects as go


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

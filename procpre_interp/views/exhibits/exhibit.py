"""An exhibit: a figure, one sentence on how to read it, and the numbers that it draws; and the answer above it."""

import re
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go

_NAME = re.compile(r"[a-z0-9_]+")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a page says first: a few sentences computed from its data."""

    text: str
    decided: bool
    """Whether the data decide the question, by the rule that the sentences name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Exhibit:
    """What a page, a report and a notebook show of one result."""

    name: str
    """Short and unique on a page: the key of the chart and the name of downloaded files. [a-z0-9_]."""
    figure: go.Figure
    """Its title asks the question and gives the verdict, its caption n and the kind of interval, its axes the units."""
    reading: str
    """One sentence on how to read it."""
    table: pd.DataFrame
    """The numbers that are drawn, one row per observation, to be downloaded."""
    notes: tuple[str, ...] = ()
    """What else a reader must know, a sentence or two each."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"exhibit name {self.name!r}; it names files: use a-z, 0-9 and _")

    @property
    def title(self) -> str:
        """The title of the figure, in one line."""
        layout: Any = self.figure.layout
        return str(layout.title.text or self.name).replace("<br>", " ")

    def _ipython_display_(self) -> None:
        """The figure and the sentences below it, as a notebook shows them."""
        from IPython.display import Markdown, display

        display(self.figure, Markdown("  \n".join([f"*How to read:* {self.reading}", *self.notes])))

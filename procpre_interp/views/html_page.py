"""One HTML file that opens without a network, from sections of paragraphs, tables and figures."""

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from procpre_interp.core.atomic_files import write_text
from procpre_interp.store.cells import is_missing
from procpre_interp.views.exhibits import Exhibit

STYLE = """
:root { color-scheme: light dark; --ink: light-dark(#1d1d1f, #e6e6e6); --quiet: light-dark(#666, #a0a0a0);
  --line: light-dark(#ddd, #3a3a3a); --warn: light-dark(#fff3d6, #4a3a12); }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: light-dark(#fff, #161618);
  max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; line-height: 1.2; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .8rem .35rem 0; text-align: left; border-bottom: 1px solid var(--line);
  vertical-align: top; }
td { white-space: nowrap; }
td.long { white-space: normal; min-width: 12rem; max-width: 34rem; overflow-wrap: anywhere; }
code { font-size: .9em; }
th { color: var(--quiet); font-weight: 600; }
.reading { color: var(--quiet); font-size: .9rem; margin: .2rem 0 1.2rem; }
.warning { background: var(--warn); padding: .5rem .8rem; border-radius: .3rem; }
.infolayer text, .xtick text, .ytick text { fill: var(--ink) !important; }
"""

LONG = 30
"""Letters of a cell beyond which its column is broken into lines."""

Block = str | pd.DataFrame | go.Figure | Exhibit
"""What a section shows: a paragraph, a table, a figure, or a figure with the sentences that belong to it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Caution:
    """A paragraph that the reader must not miss."""

    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A heading and what stands below it."""

    title: str
    blocks: Sequence[Block | Caution]


def write_report(path: str | Path, title: str, sections: Sequence[Section]) -> Path:
    """Write one HTML file that opens without a network; all text is escaped. Returns its path."""
    body, n_figures = [f"<h1>{html.escape(title)}</h1>"], 0
    for section in sections:
        body.append(f"<h2>{html.escape(section.title)}</h2>")
        for block in section.blocks:
            body.append(_html(block, n_figures))
            n_figures += isinstance(block, (go.Figure, Exhibit))
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>\n<body>\n"
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page + "\n".join(body) + "\n</body></html>\n")
    return path


def _html(block: Block | Caution, n_figures: int) -> str:
    """One block; the first figure brings plotly's script. `n_figures`: how many stand above it."""
    if isinstance(block, go.Figure):
        config = {"displaylogo": False, "responsive": True}
        return block.to_html(
            full_html=False, include_plotlyjs=n_figures == 0, div_id=f"figure-{n_figures}", config=config
        )
    if isinstance(block, Exhibit):
        said = "<br>".join(_text(line) for line in (f"How to read: {block.reading}", *block.notes))
        return f'{_html(block.figure, n_figures)}\n<p class="reading">{said}</p>'
    if isinstance(block, pd.DataFrame):
        return f'<div class="scroll">{_table(block)}</div>'
    if isinstance(block, Caution):
        return f'<p class="warning">{_text(block.text)}</p>'
    return f"<p>{_text(block)}</p>"


def _text(text: str) -> str:
    """Escaped text, in which `commands` are code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


def _table(frame: pd.DataFrame) -> str:
    """A table whose long columns are broken into lines, and whose short ones are not."""
    columns = [[cell_text(value) for value in frame[name]] for name in frame]
    marks = [' class="long"' if max(map(len, column), default=0) > LONG else "" for column in columns]
    head = "".join(f"<th>{html.escape(str(name))}</th>" for name in frame)
    rows = ["".join(f"<td{mark}>{_text(cell)}</td>" for mark, cell in zip(marks, row)) for row in zip(*columns)]
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"


def cell_text(value: Any) -> str:
    """A value as text; nothing for one that is missing."""
    if is_missing(value):
        return ""
    return _number(value) if isinstance(value, float) else str(value)


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.4g}"

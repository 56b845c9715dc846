"""Tables of text on stdout: columns of strings, laid out for the width of the terminal."""

import sys
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from rich.console import Console

TextColumns: TypeAlias = Mapping[str, Sequence[str]]
"""A table of strings by column; of a data frame of strings, `frame.to_dict("list")`."""

WRAPPED = 40
"""Characters of a cell from which on it is wrapped."""
GAP = 2
"""Columns of the terminal between two columns of a table."""


def stdout_console() -> Console:
    """A console for tables on stdout; into a file or a pipe a line may be as long as it wants."""
    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 200)


def fitting(table: TextColumns, width: int, optional: Sequence[str]) -> TextColumns:
    """A table without those of the `optional` columns, in this order, for which there is no room.

    Cells of more than `WRAPPED` characters are wrapped, so that they count no more than that.
    """
    needs = {column: text_width({column: cells}) for column, cells in table.items()}
    dropped: set[str] = set()
    for column in (name for name in optional if name in needs):
        if sum(need for name, need in needs.items() if name not in dropped) - GAP <= width:
            break
        dropped.add(column)
    return {column: cells for column, cells in table.items() if column not in dropped}


def text_width(table: TextColumns) -> int:
    """Columns of the terminal that a table takes, with the gap after it."""
    return sum(min(WRAPPED, _widest(column, cells)) + GAP for column, cells in table.items())


def print_table(console: Console, table: TextColumns, title: str, *, left: Sequence[str]) -> None:
    """Print a table; the columns named in `left` are text, the others numbers."""
    if not title and _needs_no_wrapping(table, console.width):
        # As below, a hundred times as fast: rich takes seconds for thousands of rows.
        header, *rows = _lines(table, left)
        console.print(header, style="bold", soft_wrap=True)
        console.file.write("".join(f"{row}\n" for row in rows))
        return
    from rich.table import Table

    shown = Table(title=title, box=None, pad_edge=False, title_justify="left")
    for column in table:
        shown.add_column(column, justify="left" if column in left else "right", overflow="fold")
    for row in zip(*table.values()):
        shown.add_row(*row)
    console.print(shown)


def _needs_no_wrapping(table: TextColumns, width: int) -> bool:
    """Whether every cell is one line of characters that are one column wide each, and there is room for all of them."""
    needed = sum(_widest(column, cells) + GAP for column, cells in table.items()) - GAP
    texts = ("".join([column, *cells]) for column, cells in table.items())
    return 0 < needed <= width and all(text.isascii() and text.isprintable() for text in texts)


def _lines(table: TextColumns, left: Sequence[str]) -> list[str]:
    padded = []
    for column, cells in table.items():
        widest = _widest(column, cells)
        pad = str.ljust if column in left else str.rjust
        padded.append([pad(text, widest) for text in (column, *cells)])
    return [(" " * GAP).join(row) for row in zip(*padded)]


def _widest(column: str, cells: Sequence[str]) -> int:
    return max(len(column), max(map(len, cells), default=0))

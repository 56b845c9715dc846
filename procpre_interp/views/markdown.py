"""Markdown pages with generated tables: what stands between two markers is made anew, the rest is kept.

<!-- table: claims dyck_teaches_recall attention_carries_the_gain -->
| Claim | ... |
<!-- end -->
"""

import re
from collections.abc import Callable

import pandas as pd

_BLOCK = re.compile(r"(<!-- table: ([^>\n]*?) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill(page: str, make: Callable[[str], str | None]) -> str:
    """The page with every marked block as `make` gives it from the marker's words; None leaves a block as it is."""

    def block(found: re.Match[str]) -> str:
        made = make(found[2])
        return found[0] if made is None else f"{found[1]}{made}{found[3]}"

    return _BLOCK.sub(block, page)


def markers(page: str) -> list[str]:
    """The words of each marker of a page, in order."""
    return [found[2] for found in _BLOCK.finditer(page)]


def markdown_table(table: pd.DataFrame) -> str:
    """A table of text as Markdown, one line per row; `|` inside a cell is escaped."""
    rows = [list(table.columns), ["---"] * len(table.columns), *table.astype(str).to_numpy().tolist()]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n" for row in rows)

"""Rows of a table by attribute."""

from collections.abc import Iterable
from typing import Any

import pandas as pd


def named_rows(table: pd.DataFrame) -> Iterable[Any]:
    """The rows as named tuples, a column being an attribute: `row.accuracy`. What it holds, the table's schema says."""
    return table.itertuples(index=False)

"""How runs, stored tables and models show themselves in a notebook: HTML without colours of its own."""

import html
from collections.abc import Iterable, Mapping
from typing import Any


def fields_html(title: str, fields: Mapping[str, Any]) -> str:
    """A title and one row per field; all text is escaped, and empty values are left out."""
    rows = "".join(
        f'<tr><th style="text-align:left;padding-right:1em">{_text(name)}</th>'
        f'<td style="text-align:left">{_text(value)}</td></tr>'
        for name, value in fields.items()
        if value not in (None, "", [], ())
    )
    return f"<div><b>{_text(title)}</b><table>{rows}</table></div>"


def table_html(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A plain table; all text is escaped."""
    head = "".join(f'<th style="text-align:left">{_text(column)}</th>' for column in columns)
    body = "".join(f"<tr>{''.join(f'<td>{_text(value)}</td>' for value in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return html.escape(str(value))

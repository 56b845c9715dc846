"""How a page shows answers, figures and tables, with their downloads."""

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st
from markup import worded

from procpre_interp.claims.judged import StoredClaim
from procpre_interp.views.exhibits import Answer, Exhibit
from procpre_interp.views.exhibits.claims import about_earlier

SHARES = {
    name: st.column_config.NumberColumn(f"{name.replace('_', ' ')}, %", format="percent")
    for name in ("accuracy", "exact_match", "phase1_accuracy", "answers_right")
}
"""How columns of shares show, so that they have the unit of the figures."""

TO_IMAGE = {"format": "png", "scale": 2}


def show_answer(answer: Answer) -> None:
    """What the page says first: green where the data decide it, blue where they do not."""
    if answer.decided:
        st.success(worded(answer.text), icon=":material/lightbulb:")
    else:
        st.info(worded(answer.text), icon=":material/help:")


def show(exhibit: Exhibit, *, key: str = "", on_click: Callable[[Any], None] | None = None) -> None:
    """The figure, how to read it, and its downloads. `on_click` is told the custom data of a marker that was clicked.

    `key` tells two figures of one name on one page apart.
    """
    name = f"{exhibit.name}_{key}" if key else exhibit.name

    def tell() -> None:
        points = st.session_state[name]["selection"]["points"]
        if points and on_click is not None:
            on_click(points[0].get("customdata"))

    st.plotly_chart(
        on_a_page(exhibit.figure),
        width=exhibit.figure.layout.width or "stretch",  # pyright: ignore[reportAttributeAccessIssue]
        key=name,
        on_select=tell if on_click else "ignore",
        selection_mode="points",
        config={"displaylogo": False, "toImageButtonOptions": TO_IMAGE | {"filename": exhibit.name}},
        alt=f"{exhibit.title}. {exhibit.reading}",
    )
    st.caption(worded(f"How to read: {exhibit.reading}"))
    for note in exhibit.notes:
        st.caption(worded(note))
    with st.popover("Download", key=f"{name}_downloads"):
        download(exhibit.table, exhibit.name, "Numbers (CSV)", key=f"{name}_csv")
        st.download_button(
            "Figure (HTML)",
            lambda: exhibit.figure.to_html(include_plotlyjs=True).encode(),
            f"{exhibit.name}.html",
            "text/html",
            key=f"{name}_html",
            on_click="ignore",
        )
        st.caption("Figure as PNG: the camera above the figure.")


def head_earlier(before: StoredClaim) -> None:
    """The heading of what a claim had measured before it was judged anew."""
    st.subheader("Before it was judged anew", divider="gray")
    st.caption(worded(about_earlier(before)))


def on_a_page(figure: go.Figure) -> go.Figure:
    """A copy whose colour bars have the ink of the page, light or dark: the figure's own grey, which has to do on both,
    is dim on either."""
    shown = go.Figure(figure)
    shown.layout.font.color = None  # pyright: ignore[reportAttributeAccessIssue]
    return shown


def download(table: pd.DataFrame, name: str, label: str = "", *, key: str | None = None) -> None:
    """A button that downloads a table as CSV; it is made when the button is clicked."""
    st.download_button(
        label or f"{name}.csv",
        lambda: table.to_csv(index=False).encode(),
        f"{name}.csv",
        "text/csv",
        key=key or f"{name}_csv",
        on_click="ignore",
    )


def show_table(
    table: pd.DataFrame, name: str, columns: Mapping[str, Any] | None = None, *, row_height: int | None = None
) -> None:
    """A table and its download; `columns` says how some of them show."""
    st.dataframe(
        table,
        hide_index=True,
        column_config=columns,
        row_height=row_height,
        placeholder="",
        alt=name,
        key=f"{name}_table",
    )
    download(table, name)

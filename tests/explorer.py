"""Pages of the explorer under streamlit's AppTest."""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

APP = Path(__file__).resolve().parents[1] / "app"
DEMO = APP / "demo"
PAGES = sorted(f"questions/{path.name}" for path in (APP / "questions").glob("*.py"))


def open_page(
    monkeypatch: pytest.MonkeyPatch, store: Path, page: str, *, arguments: Sequence[str] = (), **query: str | list[str]
) -> AppTest:
    """A page on a store, with an address that has these parameters; no page shows a traceback."""
    monkeypatch.setenv("PROCPRE_STORE", str(store))
    monkeypatch.setattr(sys, "argv", ["main.py", *arguments])
    monkeypatch.syspath_prepend(APP)  # as `streamlit run` does
    app = AppTest.from_file(str(APP / "main.py"), default_timeout=60)
    for key, value in query.items():
        app.query_params[key] = value
    return check(app.switch_page(page).run())


def check(app: AppTest) -> AppTest:
    """The page, which shows no traceback."""
    assert [exception.message for exception in app.exception] == []
    return app


def charts(app: AppTest) -> list:
    """The figures of a page."""
    return list(app.get("plotly_chart"))


def title(app: AppTest, index: int) -> str:
    """The title of a figure, in one line."""
    return json.loads(charts(app)[index].proto.spec)["layout"]["title"]["text"].replace("<br>", " ")


def said(app: AppTest) -> str:
    """All that a page says in errors, warnings, notes, captions and text, a line each, as a reader sees it."""
    kinds = (app.error, app.warning, app.info, app.success, app.caption, app.markdown)
    markdown = [seen(str(element.value)) for kind in kinds for element in kind]
    return "\n".join([*markdown, *(str(element.value) for element in app.text)])


def seen(markdown: str) -> str:
    """Markdown without the backslashes that keep a sign as it stands."""
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", markdown)

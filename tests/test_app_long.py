"""Long computations of the explorer: progress, cancel, and what was done is kept."""

import pytest
from streamlit.testing.v1 import AppTest

from tests.explorer import APP, check, said

computed: list[int] = []
"""What was really computed, in order."""
stop_at: list[int] = []
"""Items at which the script ends, as where a click interrupts it."""


def square(item: int) -> int:
    computed.append(item)
    return item**2


def page() -> None:
    """Squares of 0 to 4, one by one."""
    import importlib

    import streamlit as st

    from tests import test_app_long as here

    computed = importlib.import_module("computed")  # of the app's folder

    def compute(item: int) -> int:
        if item in here.stop_at:
            st.stop()
        if item == 99:
            raise ValueError("99 has no square here")
        return computed.cached(here.square, item)

    items = [*range(5), *st.session_state.get("more", [])]
    st.text(str(computed.each("Squares", items, compute, key="squares", name=lambda item: f"number {item}")))


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> AppTest:
    import streamlit as st

    monkeypatch.syspath_prepend(APP)
    computed.clear()
    stop_at.clear()
    st.cache_data.clear()
    return AppTest.from_function(page, default_timeout=20)


def buttons(app: AppTest) -> list[str]:
    return [button.label for button in app.button]


def test_all_items_in_order_and_nothing_left_of_the_progress(app: AppTest):
    check(app.run())
    assert app.text[0].value == "[0, 1, 4, 9, 16]"
    assert computed == [0, 1, 2, 3, 4]
    assert not buttons(app)
    assert not app.get("progress")


def test_a_second_look_computes_nothing(app: AppTest):
    app.run()
    check(app.run())
    assert app.text[0].value == "[0, 1, 4, 9, 16]"
    assert computed == [0, 1, 2, 3, 4]


def test_while_it_runs_there_is_progress_and_a_cancel(app: AppTest):
    stop_at.append(3)
    check(app.run())
    assert buttons(app) == ["Cancel"]
    bar = app.get("progress")[0].proto
    assert (bar.value, bar.text) == (60, "Squares: number 3 (4 of 5)")
    assert not app.text


def test_cancel_keeps_what_was_done_and_continue_goes_on(app: AppTest):
    stop_at.append(3)
    app.run()
    check(app.button(key="squares_cancel").click().run())
    assert app.text[0].value == "[0, 1, 4]"
    assert "Squares: cancelled after 3 of 5. What was computed is kept." in said(app)
    assert buttons(app) == ["Continue"]
    assert computed == [0, 1, 2]
    check(app.run())  # any other widget: still cancelled
    assert app.text[0].value == "[0, 1, 4]"
    stop_at.clear()
    check(app.button(key="squares_continue").click().run())
    assert app.text[0].value == "[0, 1, 4, 9, 16]"
    assert computed == [0, 1, 2, 3, 4]
    assert not buttons(app)


def test_an_interruption_by_another_widget_goes_on_by_itself(app: AppTest):
    stop_at.append(2)
    app.run()
    stop_at.clear()
    check(app.run())
    assert app.text[0].value == "[0, 1, 4, 9, 16]"
    assert computed == [0, 1, 2, 3, 4]


def test_a_failure_leaves_no_bar_behind(app: AppTest):
    app.session_state["more"] = [99]
    app.run()
    assert app.exception[0].message == "99 has no square here"
    assert not buttons(app)
    assert not app.get("progress")
    assert computed == [0, 1, 2, 3, 4]

"""The page "What was generated?"."""

import pytest

from procpre_interp.data import TASKS
from tests.explorer import charts, check, open_page, said, seen

PAGE = "questions/what_was_generated.py"
FIGURES = {"dyck": 3, "dyck_shuffle": 3, "eca": 3, "neural_ca": 3, "shuffled": 1}


@pytest.mark.parametrize("name", list(TASKS))
def test_every_task_from_the_address(monkeypatch, tmp_path, name):
    app = open_page(monkeypatch, tmp_path, PAGE, task=name)
    assert not app.error
    assert len(charts(app)) == FIGURES.get(name, 2)
    assert len(app.metric) == 9


def test_fields_come_from_the_address_and_stay_with_their_task(monkeypatch, tmp_path):
    app = open_page(monkeypatch, tmp_path, PAGE, task="dyck", dyck_k="3", dyck_length="10", n="2", seed="7")
    assert app.metric[0].value == "7"
    text = app.code[-1].value
    assert len(text.splitlines()) == 2
    again = open_page(monkeypatch, tmp_path, PAGE, task="dyck", dyck_k="3", dyck_length="10", n="2", seed="7")
    assert again.code[-1].value == text
    check(app.selectbox(key="task").set_value("sort").run())
    assert app.number_input(key="sort_length").value == 20


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"task": "set", "set_length": "3", "set_min_length": "9"}, "min_length=9 exceeds length=3"),
        ({"task": "sort", "sort_vocab": "1"}, "vocab must be at least 2"),
        ({"task": "dyck", "dyck_length": "9000"}, "more than a page can show"),
    ],
)
def test_a_bad_value_is_a_line_and_the_controls_stay(monkeypatch, tmp_path, query, expected):
    app = open_page(monkeypatch, tmp_path, PAGE, **query)
    assert expected in seen(app.error[0].value)
    assert app.number_input(key=f"{query['task']}_length").value


def test_nonsense_in_the_address(monkeypatch, tmp_path):
    app = open_page(monkeypatch, tmp_path, PAGE, task="os.system", seed="x", n="1e9", dyck_k="NaN")
    assert "`os.system`" in said(app)
    assert not app.error

"""The page "How do weights move?" on the demo."""

from tests.explorer import charts, open_page, said, title
from tests.figures import unbroken

PAGE = "questions/how_do_weights_move.py"


def test_by_default_what_phase_2_changed(monkeypatch, tmp_path):
    app = open_page(monkeypatch, tmp_path, PAGE)
    assert (
        unbroken(title(app, 0))
        == "How far matrices moved: run f00f7121 after 0 steps to run f00f7121 after 5,000 steps"
    )


def test_two_runs_from_the_address(monkeypatch, tmp_path):
    query = {"other": "9643c1a212deed14", "other_at": "phase 1, step 488"}
    app = open_page(monkeypatch, tmp_path, PAGE, **query)
    assert "run 9643c1a2 after 488 steps" in unbroken(title(app, 0))
    assert "embed.W_E is left out" in said(app)


def test_spectra_and_likeness(monkeypatch, tmp_path):
    assert len(charts(open_page(monkeypatch, tmp_path, PAGE, tab="Singular values"))) == 2
    assert len(charts(open_page(monkeypatch, tmp_path, PAGE, tab="Likeness"))) == 1


def test_a_model_that_does_not_know_the_tokens_is_a_line(monkeypatch, tmp_path):
    app = open_page(monkeypatch, tmp_path, PAGE, tab="Likeness", other="9643c1a212deed14", task="haystack")
    assert "has no place for haystack" in app.error[0].value

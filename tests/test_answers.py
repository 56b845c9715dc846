"""The report with the explorer's answers: the same figures as on its pages, in one file that fetches nothing."""

import re
import shutil
from pathlib import Path

import pytest

from procpre_interp.cli import main
from procpre_interp.store.store import RunStore
from procpre_interp.views.exhibits import real_text, results, where
from procpre_interp.views.exhibits.claims import about_earlier, load_claims, load_earlier
from procpre_interp.views.full_report import answers_report
from tests.explorer import DEMO
from tests.results import fill
from tests.test_app_real_text import CELLS as FAIR_CELLS
from tests.test_report import Page

QUESTIONS = [
    "What this is about",
    "Did transfer help?",
    "Where does it live?",
    "What survives damage?",
    "Can anything cheaper do the same?",
    "Does it help on real text?",
    "Do the claims hold?",
]
INSIDE = ["What was generated?", "Where does attention look?", "Which circuit?", "How do weights move?"]


def headings(path: Path) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", path.read_text(encoding="utf-8"))


def test_every_question_of_the_demo(tmp_path):
    path = answers_report(RunStore(DEMO), tmp_path / "answers.html")
    page = Page(path)
    place = QUESTIONS.index("Where does it live?")  # of two sweeps
    assert headings(path) == [*QUESTIONS[:place], QUESTIONS[place], *QUESTIONS[place:], *INSIDE]
    assert page.fetched == []
    assert page.figures > 25
    store = RunStore(DEMO)
    assert results.answer(results.load_results(store)).text in page.text
    (found,) = where.maps(results.load_results(store, "components-8f8b2195"))
    table = where.effects(found)
    assert where.answer(table.loc[table["method"] == "shapley"]).text in page.text
    assert "Of run f00f7121 alone: observations, not results." in page.text
    before = load_earlier()
    shown = ["shuffling_weights_destroys_it", "noise_dose_response", "closed_form_initialisation", "needed_only_early"]
    assert [name for name in shown if about_earlier(before[name]).replace("`", "") not in page.text] == []


@pytest.fixture
def few_claims(monkeypatch):
    """The figure of one claim instead of all that come with the package, which are most of a report's time."""
    monkeypatch.setattr("procpre_interp.views.full_report.MOST_CLAIMS", 1)


@pytest.mark.usefixtures("few_claims")
def test_another_run(tmp_path):
    """In a store that has nothing else than it and the table of conditions."""
    store = RunStore(tmp_path / "demo")
    shutil.copytree(DEMO / "runs" / "a7272db288a5207c", store.path / "runs" / "a7272db288a5207c")
    shutil.copytree(DEMO / "tables", store.path / "tables", ignore=shutil.ignore_patterns("components-*"))
    other = answers_report(store, tmp_path / "other.html", run="a7272db288a5207c")
    assert headings(other)[-4:] == INSIDE
    assert "Of run a7272db2 alone" in Page(other).text
    with pytest.raises(ValueError, match="no run 'nonsense'"):
        answers_report(store, tmp_path / "none.html", run="nonsense")


@pytest.mark.usefixtures("few_claims")
def test_a_store_that_can_answer_less(tmp_path):
    store = RunStore(tmp_path / "runs")
    fill(store, replicates=1)
    store.delete(store.query()["run"].iloc[0])
    path = answers_report(store, tmp_path / "less.html", run=None)
    assert headings(path) == [*QUESTIONS[:2], *QUESTIONS[3:]]
    assert "One replicate: an observation" in Page(path).text
    with pytest.raises(ValueError, match="no result of `procpre-interp reproduce`"):
        answers_report(RunStore(tmp_path / "empty"), tmp_path / "x.html")


@pytest.mark.usefixtures("few_claims")
def test_claims_and_sweeps_on_real_text(tmp_path):
    store = RunStore(tmp_path / "runs")
    fill(store, replicates=1)
    store.write_table("fair-1", FAIR_CELLS.assign(label=FAIR_CELLS["condition"]), {"title": "Does a help?"})
    path = answers_report(store, tmp_path / "text.html", run=None)
    text = Page(path).text
    known, _ = load_claims(store)
    on_text = real_text.text_claims(known)
    assert "union_helps_language" in on_text
    assert [name for name, judged in on_text.items() if real_text.answer(judged).text not in text] == []
    assert "Does a help? Below the fresh model: a" in path.read_text(encoding="utf-8")


def test_the_command(tmp_path, monkeypatch, capsys):
    asked = []

    def write(store, path, *, run):
        asked.append((store.path, path, run))
        return path

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("procpre_interp.commands.report.answers_report", write)
    assert main(["report", "--demo", "--no-models", "--out", "demo.html"]) == 0
    assert main(["report", "--demo", "--look-into", "f00f"]) == 0
    assert capsys.readouterr().out == "report: demo.html\nreport: report.html\n"
    assert asked == [(DEMO, Path("demo.html"), None), (DEMO, Path("report.html"), "f00f")]
    assert main(["report", "--store", "none"]) == 2
    assert "--demo" in capsys.readouterr().err

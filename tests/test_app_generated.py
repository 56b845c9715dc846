"""The page "What was generated?"."""

import json

import pytest

from procpre_interp.data import TASKS
from procpre_interp.data.token_file import packed_texts
from procpre_interp.views.exhibits.sequences import complexities, fields
from tests.explorer import charts, check, open_page, said, seen, title

PAGE = "questions/what_was_generated.py"
FIGURES = {"dyck": 3, "dyck_shuffle": 3, "eca": 3, "neural_ca": 3, "shuffled": 1}


@pytest.mark.parametrize("name", list(TASKS))
def test_every_task_from_the_address(monkeypatch, tmp_path, name):
    app = open_page(monkeypatch, tmp_path, PAGE, task=name)
    if name == "metamath":  # its database is fetched by a command, and by no page
        (problem,) = app.error
        assert "procpre-interp corpora set-mm --fetch brings it" in problem.value
        return
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


def test_the_complexity_of_all_tasks_next_to_one_another(monkeypatch, tmp_path):
    app = open_page(monkeypatch, tmp_path, PAGE, tab="Complexity of all")
    assert len(charts(app)) == 1
    table = complexities().table
    assert {"queue", "multi_hop", "neural_ca", "linear_rnn"} <= set(table["task"])
    assert table["loss_area"].is_monotonic_increasing
    assert table["task"].iloc[-1] in title(app, 0)


def test_corpora_that_are_here_have_a_sample_and_others_a_command(monkeypatch, tmp_path):
    monkeypatch.setenv("PROCPRE_CACHE", str(tmp_path / "cache"))
    app = open_page(monkeypatch, tmp_path, PAGE, tab="Corpora of real text", of_corpus="python-stdlib")
    table = app.dataframe[0].value.set_index("Corpus")
    assert table.loc["python-stdlib", ["Here", "Licence"]].tolist() == ["in place", "PSF-2.0"]
    assert table.loc["set-mm", "Here"] == "to be fetched"
    assert "Licence: PSF-2.0. Source: this Python's standard library" in said(app)
    assert "feature" in app.code[-1].value
    check(app.selectbox(key="of_corpus").set_value("set-mm").run())
    assert app.code[-1].value == "procpre-interp corpora set-mm --fetch"


def test_only_corpora_that_are_here_can_be_read_and_no_path(monkeypatch, tmp_path):
    monkeypatch.setenv("PROCPRE_CACHE", str(tmp_path / "cache"))
    (corpus,) = (field for field in fields("text") if field.name == "corpus")
    assert corpus.choices[0] == corpus.default == "python-stdlib"
    assert not {"set-mm", "wikipedia-leads", "deepmind-math", "files"} & set(corpus.choices)


def test_what_was_packed_is_listed_by_tokenizer(monkeypatch, tmp_path):
    monkeypatch.setenv("PROCPRE_CACHE", str(tmp_path))
    for number, (corpus, tokens) in enumerate([("a", 10), ("a", 20), ("b", 5)]):
        folder = tmp_path / "tokens" / str(number)
        folder.mkdir(parents=True)
        meta = {"corpus": corpus, "tokenizer": "byte", "splits": {"train": {"tokens": tokens}}}
        (folder / "meta.json").write_text(json.dumps(meta))
    (tmp_path / "tokens" / "broken").mkdir()
    (tmp_path / "tokens" / "broken" / "meta.json").write_text("{")
    assert [(each.tokenizer, each.tokens) for each in packed_texts("a")] == [("byte", 20)]

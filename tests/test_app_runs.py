"""The page of runs: filter, compare, delete; nothing outside of the store is ever touched."""

from pathlib import Path

import pytest

from procpre_interp.store.store import RunStore
from tests.explorer import charts, check, open_page, said
from tests.results import fill

PAGE = "questions/runs.py"


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    made = RunStore(tmp_path / "runs")
    fill(made, replicates=2)
    return made


def ids(store: RunStore) -> list[str]:
    return store.query()["run"].tolist()


def test_the_list_can_be_searched_from_the_address(monkeypatch, store):
    app = open_page(monkeypatch, store.path, PAGE)
    assert len(app.dataframe[0].value) == 6
    app = open_page(monkeypatch, store.path, PAGE, search="shuffled")
    assert len(app.dataframe[0].value) == 2
    app = open_page(monkeypatch, store.path, PAGE, only_seed="1001")
    assert set(app.dataframe[0].value["seed"]) == {1001}


def test_one_run_and_two_runs(monkeypatch, store):
    first, second = ids(store)[:2]
    app = open_page(monkeypatch, store.path, PAGE, run=first[:8])
    assert len(charts(app)) == 1
    app = open_page(monkeypatch, store.path, PAGE, run=[first, second], tab="Config")
    assert app.multiselect(key="run").value == [first, second]
    table = app.dataframe[1].value
    assert {first, second} <= set(table)
    assert len(table) < 20


@pytest.mark.parametrize("tab", ["Numbers", "Lineage", "Environment", "Diagnosis", "Files"])
def test_the_other_tabs(monkeypatch, tmp_path, tab):
    app = open_page(monkeypatch, tmp_path, PAGE, run="f00f71212a994232", tab=tab)
    assert not app.error
    assert (len(app.dataframe) > 1) == (tab != "Diagnosis")
    assert ("no failure signature" in said(app)) == (tab == "Diagnosis")


def test_delete_asks_and_takes_away_that_run_alone(monkeypatch, store):
    first, second, *_ = before = ids(store)
    app = open_page(monkeypatch, store.path, PAGE, run=first)
    (button,) = [each for each in app.button if each.label.startswith("Delete")]
    check(button.click().run())
    assert ids(store) == before
    assert f"Run {first} (finished)" in said(app)
    (sure,) = [each for each in app.button if each.label == "Delete"]
    check(sure.click().run())
    assert set(ids(store)) == set(before) - {first}
    assert second in ids(store)


def test_a_question_that_is_not_answered_deletes_nothing(monkeypatch, store):
    before = ids(store)
    app = open_page(monkeypatch, store.path, PAGE, run=before[0])
    (button,) = [each for each in app.button if each.label.startswith("Delete")]
    check(button.click().run())
    check(app.multiselect(key="run").set_value([]).run())
    assert ids(store) == before


def test_the_demo_cannot_be_deleted(monkeypatch, tmp_path):
    app = open_page(monkeypatch, tmp_path, PAGE, run="f00f71212a994232")
    assert "cannot be deleted" in said(app)
    assert not [each for each in app.button if each.label.startswith("Delete")]


@pytest.mark.parametrize("run", ["../../etc", "..", "/etc", "nonsense", "runs/../x"])
def test_ids_that_leave_the_folder_are_a_line(monkeypatch, store, run):
    app = open_page(monkeypatch, store.path, PAGE, run=run)
    assert ("no run 'nonsense'" if run == "nonsense" else "no name of a run") in app.error[0].value
    assert not [each for each in app.button if each.label.startswith("Delete")]


def test_a_link_out_of_the_store_is_never_followed(monkeypatch, store, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("keep me")
    (store.path / "runs" / "linked0000000000").symlink_to(outside)
    app = open_page(monkeypatch, store.path, PAGE, run="linked0000000000")
    for label in ("Delete linked0000000000", "Delete"):
        for each in [each for each in app.button if each.label == label]:
            check(each.click().run())
    assert (outside / "precious").read_text() == "keep me"


def test_a_damaged_run_can_be_deleted(monkeypatch, store):
    broken = ids(store)[0]
    (store.path / "runs" / broken / "manifest.json").unlink()
    app = open_page(monkeypatch, store.path, PAGE, run=broken)
    assert "damaged" in app.error[0].value
    (button,) = [each for each in app.button if each.label.startswith("Delete")]
    check(button.click().run())
    (sure,) = [each for each in app.button if each.label == "Delete"]
    check(sure.click().run())
    assert broken not in ids(store)


def test_from_a_run_to_its_model_in_one_click(monkeypatch, tmp_path):
    runs = ["f00f71212a994232", "01274ba918921944"]
    app = open_page(monkeypatch, tmp_path, PAGE, run=runs)
    links = [(each.proto.page, each.proto.query_string) for each in app.get("page_link")]
    pages = ("where_does_attention_look", "which_circuit", "how_do_weights_move")
    assert links == [(page, f"run={runs[0]}") for page in pages]
    assert "It kept no weights" in said(app)

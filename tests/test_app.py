"""The explorer on an empty, a filled and a damaged store: no page ever shows a traceback."""

import subprocess
import sys
from pathlib import Path

import pytest

from procpre_interp.runs import RunStore
from tests.explorer import APP, PAGES, check, open_page
from tests.results import TABLE, fill

TRANSFER = "questions/did_transfer_help.py"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("filled")
    fill(RunStore(path), replicates=2)
    return path


@pytest.mark.parametrize("page", PAGES)
def test_an_empty_store_shows_the_command_that_fills_it(monkeypatch, tmp_path: Path, page: str):
    app = open_page(monkeypatch, tmp_path / "none", page)
    assert [code.value for code in app.code] == [f"procpre-interp reproduce --out {tmp_path / 'none'} --quick"]
    assert not app.get("plotly_chart")


@pytest.mark.parametrize("page", PAGES)
def test_a_store_that_is_a_file_is_one_line(monkeypatch, tmp_path: Path, page: str):
    (tmp_path / "file").touch()
    app = open_page(monkeypatch, tmp_path / "file", page)
    assert "a run store is a folder" in app.error[0].value


def test_did_transfer_help(monkeypatch, filled: Path):
    app = open_page(monkeypatch, filled, TRANSFER)
    assert app.title[0].value == "Did transfer help?"
    assert len(app.get("plotly_chart")) == 3
    assert app.dataframe[0].value["Condition"].tolist()[:2] == ["no pretraining", "Dyck, full transfer"]
    assert app.dataframe[0].value["Paper %"].tolist() == ["11.3", "96.9", ""]
    assert not app.warning
    assert app.query_params["experiment"] == TABLE
    check(app.multiselect(key="condition").set_value(["none"]).run())
    assert app.dataframe[0].value["Condition"].tolist() == ["no pretraining"]
    assert app.query_params["condition"] == "none"
    check(app.selectbox(key="quantity").set_value("loss_nats").run())
    assert app.query_params["quantity"] == "loss_nats"
    check(app.multiselect(key="condition").set_value([]).run())
    assert "at least one condition" in app.info[0].value


def test_one_replicate_is_called_an_observation(monkeypatch, tmp_path: Path):
    fill(RunStore(tmp_path), replicates=1)
    app = open_page(monkeypatch, tmp_path, TRANSFER)
    assert "an observation, not a result" in app.warning[0].value


def test_selections_come_from_the_address(monkeypatch, filled: Path):
    app = open_page(monkeypatch, filled, TRANSFER, condition="dyck_full", quantity="loss_nats")
    assert app.multiselect(key="condition").value == ["dyck_full"]
    assert app.selectbox(key="quantity").value == "loss_nats"


def test_runs(monkeypatch, filled: Path):
    app = open_page(monkeypatch, filled, PAGES[1])
    assert len(app.dataframe[0].value) == 6
    assert len(app.get("plotly_chart")) == 2
    assert "task:" in app.code[0].value
    last = app.selectbox(key="run").options[-1]
    check(app.selectbox(key="run").set_value(last).run())
    assert app.query_params["run"] == last
    check(app.selectbox(key="status").set_value("finished").run())
    assert len(app.dataframe[0].value) == 6


def test_a_filter_that_excludes_the_chosen_run(monkeypatch, tmp_path: Path):
    store = RunStore(tmp_path)
    fill(store, replicates=1)
    diverged = store.path / "runs" / "d1verged"
    with store.claim(diverged.name) as partial:
        assert partial is not None
        partial.write_config("seed: 1")
        partial.write_json("environment.json", {})
        partial.write_table("history", store.open("latest").history().drop(columns="accuracy"))
        partial.finish({"status": "diverged", "task": "haystack"})
    app = open_page(monkeypatch, tmp_path, PAGES[1])
    check(app.selectbox(key="run").set_value(app.selectbox(key="run").options[-1]).run())
    check(app.selectbox(key="status").set_value("diverged").run())
    assert app.selectbox(key="run").value == diverged.name
    assert app.query_params["run"] == diverged.name
    assert len(app.get("plotly_chart")) == 1
    check(app.selectbox(key="status").set_value("all").run())


def test_an_unknown_run_in_the_address_is_named(monkeypatch, filled: Path):
    for unknown in ("nonsense", "../../etc"):
        app = open_page(monkeypatch, filled, PAGES[1], run=unknown)
        assert f"There is no run `{unknown}`" in app.warning[0].value


def test_a_damaged_store(monkeypatch, tmp_path: Path):
    store = RunStore(tmp_path)
    fill(store, replicates=1)
    first, second, third = store.read_table(TABLE).frame["run"]
    (tmp_path / "runs" / first / "history.parquet").write_bytes(b"cut")
    history = tmp_path / "runs" / second / "history.parquet"
    history.write_bytes(bytes(history.stat().st_size))
    with store.claim("going0n"):
        app = open_page(monkeypatch, tmp_path, PAGES[1], run=second)
    assert f"{first} is damaged" in app.error[0].value
    assert f"run {second} is damaged: the content of history.parquet" in app.error[1].value
    app = open_page(monkeypatch, tmp_path, TRANSFER)
    assert [run in warning.value for run, warning in zip((first, second), app.warning)] == [True, True]
    assert len(app.get("plotly_chart")) == 3
    (tmp_path / "tables" / f"{TABLE}.parquet").write_bytes(b"no table")
    app = open_page(monkeypatch, tmp_path, TRANSFER)
    assert f"table {TABLE} is damaged" in app.error[0].value
    for run in (first, second, third):
        store.delete(run)


def test_pages_do_not_load_torch(filled: Path):
    code = f"""
import os, sys
os.environ["PROCPRE_STORE"] = {str(filled)!r}
sys.path.insert(0, {str(APP)!r})
from streamlit.testing.v1 import AppTest
app = AppTest.from_file({str(APP / "main.py")!r}, default_timeout=60)
for page in {PAGES!r}:
    assert not app.switch_page(page).run().exception
print(sorted({{"torch", "transformers", "transformer_lens"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

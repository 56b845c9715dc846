"""The explorer on an empty, a filled and a damaged store: no page ever shows a traceback."""

import ast
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from procpre_interp.cli import main
from procpre_interp.core import checksums
from procpre_interp.store.run import OWN_FILES
from procpre_interp.store.store import RunStore
from tests.explorer import APP, DEMO, PAGES, charts, check, open_page, said, title
from tests.results import TABLE, fill

TRANSFER = "questions/did_transfer_help.py"
RUN_A_MODEL = {"what_was_generated", "where_does_attention_look", "which_circuit", "how_do_weights_move"}
NO_FIGURE = tuple(f"questions/{name}.py" for name in ("does_it_help_on_real_text", "run_something", "runs"))
"""Pages of lists; and that on text, of which the demo has no claim."""
OF_ONE_RUN = {*RUN_A_MODEL, "runs", "run_something"}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("filled")
    fill(RunStore(path), replicates=2)
    return path


@pytest.mark.parametrize("page", PAGES)
def test_an_empty_store_shows_the_demo_and_the_command_that_fills_it(monkeypatch, tmp_path: Path, page: str):
    """Each page answers first, and shows no backtick."""
    app = open_page(monkeypatch, tmp_path / "none", page)
    assert f"procpre-interp reproduce --out {tmp_path / 'none'} --quick" in [code.value for code in app.code]
    assert "**Demo.**" in said(app)
    assert not app.error
    assert charts(app) or page in NO_FIGURE
    assert not (tmp_path / "none").exists()
    answers = [each.value for each in (*app.success, *app.info) if not each.value.startswith("**Demo.**")]
    assert answers
    assert all(each.rstrip().endswith((".", "?")) for each in answers)
    assert not [each.value for each in app.text if "`" in each.value]
    kinds = (app.error, app.warning, app.info, app.success, app.caption, app.markdown)
    for text in [str(each.value) for kind in kinds for each in kind]:
        assert "\\`" not in text
        assert text.count("`") % 2 == 0


def test_no_page_has_a_sentence_on_its_own_which_streamlit_would_show():
    for page in PAGES:
        first, *rest = ast.parse((APP / page).read_text(encoding="utf-8")).body
        assert isinstance(first, ast.Expr)
        assert isinstance(first.value, ast.Constant), page
        shown = [node for node in rest if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)]
        assert not [node.lineno for node in shown], page


@pytest.mark.parametrize("page", PAGES)
def test_a_filled_store_shows_no_demo(monkeypatch, filled: Path, page: str):
    app = open_page(monkeypatch, filled, page)
    assert "**Demo.**" not in said(app)
    # The weights of these runs are made up.
    assert all("no safetensors file" in error.value for error in app.error)
    assert Path(page).stem in RUN_A_MODEL or not app.error


@pytest.mark.parametrize("page", PAGES)
def test_a_store_that_is_a_file_is_one_line(monkeypatch, tmp_path: Path, page: str):
    (tmp_path / "file").touch()
    app = open_page(monkeypatch, tmp_path / "file", page)
    assert "a run store is a folder" in app.error[0].value


@pytest.mark.parametrize("page", PAGES)
def test_a_damaged_store(monkeypatch, tmp_path: Path, page: str):
    store = RunStore(tmp_path)
    fill(store, replicates=1)
    first, second, third = store.read_table(TABLE).frame["run"]
    (tmp_path / "runs" / first / "history.parquet").write_bytes(b"cut")
    history = tmp_path / "runs" / second / "history.parquet"
    history.write_bytes(bytes(history.stat().st_size))
    (tmp_path / "runs" / third / "manifest.json").unlink()
    (tmp_path / "tables" / f"{TABLE}.parquet").write_bytes(b"no table")
    with store.claim("going0n"):
        open_page(monkeypatch, tmp_path, page)
    # Pages that look at no one run are the same whatever run the address names.
    runs = (first, second, third, "../../etc", "nonsense") if Path(page).stem in OF_ONE_RUN else ("../../etc",)
    for run in runs:
        open_page(monkeypatch, tmp_path, page, run=run, experiment=TABLE, claim=run)


@pytest.mark.parametrize("page", PAGES)
def test_an_address_may_say_anything(monkeypatch, filled: Path, page: str):
    nonsense = {"run": "../../../etc/passwd", "experiment": "../x", "claim": "<script>", "tab": "[a](b)", "seed": "-1"}
    nonsense |= {"step": "NaN", "condition": "**", "layer": "99", "head": "x", "task": "os.system", "n": "1e99"}
    app = open_page(monkeypatch, filled, page, **nonsense)
    assert "root:" not in said(app)


RESULTS = {
    TRANSFER: ("Accuracy", "Learning curves", "Time to breakthrough"),
    "questions/where_does_it_live.py": ("Map", "All methods"),
    "questions/what_survives_damage.py": ("Shuffled weights", "Noise"),
    "questions/can_anything_cheaper.py": ("Share of the gain", "Entropy and breakthrough", "The search"),
    "questions/do_the_claims_hold.py": ("Contrasts", "Replicates"),
}
"""Tabs with figures of the pages of results."""


@pytest.mark.parametrize(("page", "tab"), [(page, tab) for page, names in RESULTS.items() for tab in names])
def test_titles_ask_and_give_the_verdict_in_one_unit(monkeypatch, tmp_path: Path, page: str, tab: str):
    app = open_page(monkeypatch, tmp_path / "none", page, tab=tab)
    text = said(app)
    assert charts(app)
    for index, chart in enumerate(charts(app)):
        asked, _, verdict = title(app, index).rpartition("? ")
        claim = title(app, index).startswith("Claim: ")
        assert (asked and verdict) or claim, title(app, index)
        layout = json.loads(chart.proto.spec)["layout"]
        axes = " ".join(str(value.get("title", "")) for name, value in layout.items() if "axis" in name)
        assert "share" not in axes.replace("share of the largest", "").replace("share of what", "")
        if claim:
            assert any(title(app, index).endswith(f" - {name}") for name in ("supported", "refuted", "undecided"))
    assert "share of answer tokens" not in text.replace("Accuracy: share of answer tokens on the test set", "")
    assert "for sure" not in text


def test_the_demo_does_not_vanish_with_the_first_run(monkeypatch, filled: Path):
    app = open_page(monkeypatch, filled, TRANSFER)
    assert not app.toggle(key="demo").value
    check(app.toggle(key="demo").set_value(True).run())
    assert "**Demo**" in said(app)
    assert "reproduce-cacb0e48" in app.selectbox(key="experiment").options
    check(app.switch_page("questions/runs.py").run())
    assert "**Demo**" in said(app)
    assert "cannot be deleted" in said(
        check(open_page(monkeypatch, filled, "questions/runs.py", demo="true", run="f00f"))
    )
    check(app.toggle(key="demo").set_value(False).run())
    assert "**Demo**" not in said(app)


@pytest.mark.parametrize("page", PAGES)
def test_the_demo_can_be_chosen_on_every_page_and_stands_in_the_address(monkeypatch, filled: Path, page: str):
    app = open_page(monkeypatch, filled, page, demo="true")
    assert "**Demo**" in said(app)
    assert not app.error
    assert app.toggle(key="demo").value


@pytest.mark.parametrize("way", ["command line", "environment"])
def test_an_explorer_may_begin_with_the_demo(monkeypatch, filled: Path, way: str):
    if way == "environment":
        monkeypatch.setenv("PROCPRE_DEMO", "1")
        app = open_page(monkeypatch, filled, TRANSFER)
    else:
        app = open_page(monkeypatch, filled, TRANSFER, arguments=["--store", str(filled), "--demo"])
    assert "**Demo**" in said(app)
    check(app.toggle(key="demo").set_value(False).run())
    assert "**Demo**" not in said(app)
    # An address that says so goes before how the explorer was started.
    monkeypatch.setenv("PROCPRE_DEMO", "1")
    assert "**Demo**" not in said(open_page(monkeypatch, filled, TRANSFER, demo="false"))


def test_the_command_hands_the_demo_on(monkeypatch):
    started = []
    monkeypatch.setattr(
        subprocess, "run", lambda command, **_: started.append(command) or SimpleNamespace(returncode=0)
    )
    assert main(["app", "--demo", "--headless"]) == 0
    assert main(["app", "--headless"]) == 0
    shown = [command[command.index("--") + 1 :] for command in started]
    assert [("--demo" in arguments) for arguments in shown] == [True, False]


def test_did_transfer_help(monkeypatch, filled: Path):
    app = open_page(monkeypatch, filled, TRANSFER)
    assert app.title[0].value == "Did transfer help?"
    assert len(charts(app)) == 1
    assert app.dataframe[0].value["Condition"].tolist()[:2] == ["no pretraining", "Dyck, full transfer"]
    assert app.dataframe[0].value["Paper %"].tolist() == ["11.3", "96.9", ""]
    assert not app.warning
    assert app.query_params["experiment"] == TABLE
    check(app.multiselect(key="condition").set_value(["none"]).run())
    assert app.dataframe[0].value["Condition"].tolist() == ["no pretraining"]
    assert app.query_params["condition"] == "none"
    check(app.multiselect(key="condition").set_value([]).run())
    assert "at least one condition" in app.info[0].value


def test_learning_curves(monkeypatch, filled: Path):
    app = open_page(monkeypatch, filled, TRANSFER, tab="Learning curves")
    assert len(charts(app)) == 1
    check(app.selectbox(key="quantity").set_value("loss_nats").run())
    assert "nats" in charts(app)[0].proto.spec


@pytest.mark.parametrize("tab", ["Time to breakthrough", "Cost"])
def test_the_other_tabs(monkeypatch, filled: Path, tab: str):
    app = open_page(monkeypatch, filled, TRANSFER, tab=tab)
    assert len(charts(app)) + len(app.dataframe) == 1


def test_one_replicate_is_called_an_observation(monkeypatch, tmp_path: Path):
    fill(RunStore(tmp_path), replicates=1)
    app = open_page(monkeypatch, tmp_path, TRANSFER)
    assert "an observation, not a result" in app.warning[0].value


def test_selections_come_from_the_address(monkeypatch, filled: Path):
    query = {"condition": "dyck_full", "quantity": "loss_nats", "tab": "Learning curves"}
    app = open_page(monkeypatch, filled, TRANSFER, **query)
    assert app.multiselect(key="condition").value == ["dyck_full"]
    assert app.selectbox(key="quantity").value == "loss_nats"


def test_an_unknown_experiment_in_the_address_is_named(monkeypatch, filled: Path):
    app = open_page(monkeypatch, filled, TRANSFER, experiment="../../x")
    assert "There is no experiment `../../x` here" in app.warning[0].value
    assert len(charts(app)) == 1


def test_runs_that_cannot_be_read_are_left_out_and_said(monkeypatch, tmp_path: Path):
    store = RunStore(tmp_path)
    fill(store, replicates=1)
    first, second, third = store.read_table(TABLE).frame["run"]
    history = tmp_path / "runs" / second / "history.parquet"
    history.write_bytes(bytes(history.stat().st_size))
    store.delete(first)
    app = open_page(monkeypatch, tmp_path, TRANSFER, tab="Learning curves")
    warnings = [warning.value for warning in app.warning if "Left out" in warning.value]
    assert [run in warning for run, warning in zip((first, second), warnings)] == [True, True]
    assert len(charts(app)) == 1
    (tmp_path / "tables" / f"{TABLE}.parquet").write_bytes(b"no table")
    app = open_page(monkeypatch, tmp_path, TRANSFER)
    assert f"table {TABLE} is damaged" in app.error[0].value
    store.delete(third)


def test_no_code_runs_from_a_loaded_run(monkeypatch, tmp_path: Path):
    """A config that would run a command, sealed as if it were whole."""
    store, touched = RunStore(tmp_path), tmp_path / "touched"
    fill(store, replicates=1)
    run = store.open("latest", verify=False)
    config = f"task: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{touched}']]\n"
    (run.folder / "config.yaml").write_text(config)
    checksums.seal(run.folder, OWN_FILES)
    for page in PAGES:
        app = open_page(monkeypatch, tmp_path, page, run=run.id)
        assert not app.exception
    with pytest.raises(ValueError, match=r"damaged: config\.yaml cannot be read \(could not determine a constructor"):
        store.open(run.id)
    assert not touched.exists()


def test_pages_of_tables_do_not_load_torch():
    pages = [page for page in PAGES if Path(page).stem not in RUN_A_MODEL]
    assert len(pages) == len(PAGES) - len(RUN_A_MODEL)
    code = f"""
import os, sys
os.environ["PROCPRE_STORE"] = {str(DEMO)!r}
sys.path.insert(0, {str(APP)!r})
from streamlit.testing.v1 import AppTest
app = AppTest.from_file({str(APP / "main.py")!r}, default_timeout=60)
for page in {pages!r}:
    assert not app.switch_page(page).run().exception
print(sorted({{"torch", "transformers", "transformer_lens"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def tour(n: int) -> list[int]:
    """A closed walk along each of the n (n - 1) ordered pairs of n places once (Hierholzer's algorithm)."""
    left = {place: [other for other in range(n) if other != place] for place in range(n)}
    path, walk = [0], []
    while path:
        if left[path[-1]]:
            path.append(left[path[-1]].pop())
        else:
            walk.append(path.pop())
    return walk[::-1]


def test_every_page_after_every_other_one(monkeypatch, tmp_path: Path):
    """Widgets of one key hold values of other kinds on other pages."""
    first, *rest = tour(len(PAGES))
    assert len(set(zip([first, *rest], rest))) == len(rest) == len(PAGES) * (len(PAGES) - 1)
    app = open_page(monkeypatch, tmp_path / "none", PAGES[first])
    for page in rest:
        check(app.switch_page(PAGES[page]).run())

"""What the explorer, the report and a notebook show of conditions: the same exhibits."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from procpre_interp.claims.text import conditions_table
from procpre_interp.core.terminal import beside_package
from procpre_interp.stats.summary import summarise_conditions
from procpre_interp.store.store import RunStore, UnknownRun
from procpre_interp.views.exhibits import Answer, Exhibit
from procpre_interp.views.exhibits.results import accuracy, answer, learning, load_results, survival
from tests.figures import subtitle
from tests.results import LABELS, TABLE, fill


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    store = RunStore(tmp_path_factory.mktemp("store"))
    fill(store, replicates=3)
    return store


def test_the_newest_reproduction_with_all_that_belongs_to_it(store: RunStore):
    results = load_results(store)
    assert results.name == TABLE
    assert results.title == "Dyck pretraining & needle in a haystack"
    assert results.labels == LABELS
    assert set(results.histories["run"]) == set(results.table["run"])
    assert results.problems == ()


def test_kept_conditions_have_the_gains_that_they_had(store: RunStore):
    results = load_results(store)
    kept = results.keep(["dyck_full"])
    assert set(kept.table["condition"]) == set(kept.histories["condition"]) == {"dyck_full"}
    gain = results.summary.set_index("condition")["gain_mean"]
    assert kept.summary["gain_mean"].tolist() == [gain["dyck_full"]]


def test_the_answer_names_whose_interval_is_above_zero(store: RunStore):
    results = load_results(store)
    rows = {"condition": ["none", "up", "unsure"], "label": ["no", "Up", "Unsure"], "n": 4, "gain_n": 3}
    rows |= {"gain_mean": [np.nan, 0.5, 0.2], "gain_low": [np.nan, 0.4, -0.1], "gain_high": [np.nan, 0.6, 0.7]}
    one = results.__class__(**{**fields(results), "summary": pd.DataFrame(rows)})
    rule = (
        "The rule: the 95 % interval of the gain, in brackets, lies above 0 (gained), below it (lost) or has 0 in it."
    )
    assert answer(one) == Answer(
        "Gained over no pretraining: Up (+50.0 [+40.0, +60.0] points, n = 3). "
        f"Open: Unsure (+20.0 [-10.0, +70.0] points, n = 3). {rule}",
        decided=True,
    )
    none = results.__class__(**{**fields(results), "summary": one.summary.iloc[[0, 2]]})
    assert answer(none).text.startswith("No condition gained over no pretraining. Open: Unsure")
    assert not answer(none).decided
    worse = one.summary.assign(gain_mean=-0.3, gain_low=-0.4, gain_high=-0.2)
    lost = results.__class__(**{**fields(results), "summary": worse})
    assert "Lost: Up (-30.0 [-40.0, -20.0] points, n = 3), Unsure" in answer(lost).text


def test_gains_are_counted_by_pairs_and_accuracies_by_runs_that_have_one(store: RunStore):
    results = load_results(store)
    lost = (results.table["condition"] == "none") & (results.table["replicate"] == 1000)
    table = results.table.assign(
        status=results.table["status"].where(~lost, "diverged"), accuracy=results.table["accuracy"].where(~lost)
    )
    found = results.__class__(**{**fields(results), "table": table, "summary": summarise_conditions(table)})
    counts = found.summary.set_index("condition")[["n", "accuracy_n", "gain_n"]]
    assert counts.loc["none"].tolist() == [3, 2, 0]
    assert counts.loc["dyck_full"].tolist() == [3, 3, 2]
    assert "points, n = 2)" in answer(found).text
    assert "n = 3" not in answer(found).text
    assert subtitle(accuracy(found).figure).startswith("n is given for each row")
    shown = conditions_table(found.summary, found.about).set_index("Condition")
    assert shown.loc["Dyck, full transfer", "Pairs"] == "2"
    assert "Pairs" not in conditions_table(results.summary, results.about)


def fields(results) -> dict:
    return {name: getattr(results, name) for name in results.__slots__}


def test_exhibits_say_how_to_read_them_and_hold_their_numbers(store: RunStore):
    results = load_results(store)
    exhibits = [accuracy(results), survival(results), learning(results), learning(results, "loss_nats")]
    assert [exhibit.name for exhibit in exhibits] == ["accuracy", "survival", "learning_accuracy", "learning_loss_nats"]
    for exhibit in exhibits:
        assert exhibit.figure.data
        assert exhibit.reading.endswith(".")
        assert len(exhibit.table)
    assert accuracy(results).notes == (
        "Dyck, weights <shuffled> within each tensor: the paper: accuracy drops dramatically.",
    )
    dashed = [shape for shape in learning(results).figure.layout.shapes if shape.line.dash == "dot"]
    assert [shape.y0 for shape in dashed] == [0.5]
    assert "dotted line" in learning(results).reading
    loss = learning(results, "loss_nats")
    assert not loss.figure.layout.shapes
    assert "dotted" not in loss.reading


def test_a_quantity_that_no_run_has(store: RunStore):
    with pytest.raises(ValueError, match="evaluations of perplexity"):
        learning(load_results(store), "perplexity")


def test_what_was_observed_of_models_is_no_run(tmp_path: Path):
    store = RunStore(tmp_path)
    fill(store, replicates=2)
    stored = store.read_table(TABLE)
    observed = stored.frame.iloc[:1].assign(condition="seen", run="", observed=True)
    table = pd.concat([stored.frame.assign(observed=False), observed], ignore_index=True)
    store.write_table("claim-x", table, {"claim": "Something holds."})
    results = load_results(store, "claim-x")
    assert "seen" not in results.labels
    assert results.title == "Something holds."


def test_a_missing_run_is_said(tmp_path: Path):
    store = RunStore(tmp_path)
    fill(store, replicates=2)
    gone = str(store.read_table(TABLE).frame["run"].iloc[0])
    store.delete(gone)
    problems = load_results(store, TABLE).problems
    assert len(problems) == 1
    assert gone in problems[0]


def test_tables_that_are_not_there_or_no_results(tmp_path: Path):
    store = RunStore(tmp_path)
    with pytest.raises(ValueError, match="no result of `procpre-interp reproduce`"):
        load_results(store)
    with pytest.raises(UnknownRun):
        load_results(store, "reproduce-none")
    store.write_table("table1", pd.DataFrame({"replicate": [0]}), {})
    with pytest.raises(ValueError, match=r"table1 has no conditions \(it lacks breakthrough_step, condition"):
        load_results(store, "table1")


def test_a_name_that_could_be_no_file():
    with pytest.raises(ValueError, match=r"\.\./x"):
        Exhibit(name="../x", figure=accuracy_figure(), reading="", table=pd.DataFrame())


def accuracy_figure():
    import plotly.graph_objects as go

    return go.Figure()


def test_the_demo_is_small_and_whole():
    path = beside_package("app") / "demo"
    demo = RunStore(path)
    assert sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) <= 1_000_000
    runs = demo.query()
    assert set(runs["status"]) == {"finished"}
    for run in runs["run"]:
        demo.open(run)  # every file's content is compared with the manifest
    results = load_results(demo)
    assert results.problems == ()
    assert "first 5 of 6" in results.about.demo
    assert (results.summary["n"] == 5).all()

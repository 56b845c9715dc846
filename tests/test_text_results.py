"""What "Did transfer help?" shows where phase 2 was text: losses, tokens and compute."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from procpre_interp.stats.losses import summarise_losses
from procpre_interp.store.about import About
from procpre_interp.store.store import RunStore
from procpre_interp.views.exhibits.results import Results, load_results
from procpre_interp.views.exhibits.text_results import (
    answer,
    answer_of,
    explained,
    learning,
    losses,
    losses_table,
    progress,
    quantities,
)
from procpre_interp.views.exhibits.where import curves, maps
from procpre_interp.views.full_report import answers_report
from procpre_interp.views.html_report import conditions_report
from tests.explorer import DEMO, charts, check, open_page, said, title
from tests.figures import axis_titles
from tests.results import fill_text
from tests.test_exhibits_where import sweep
from tests.test_report import Page

PAGE = "questions/did_transfer_help.py"


def results(table: pd.DataFrame, histories: pd.DataFrame | None = None) -> Results:
    return Results(
        name="text",
        table=table,
        about=About(),
        summary=table.drop_duplicates("condition")[["condition", "label"]],
        histories=pd.DataFrame(columns=["run", "step", "split"]) if histories is None else histories,
        problems=(),
    )


def cells() -> pd.DataFrame:
    """Three replicates: the transfer lowers the loss by .1, .2, .3; the other changes it by +.1, 0, -.1."""
    conditions = {"none": (0.0, 0.0, 0.0), "helps": (0.1, 0.2, 0.3), "open": (-0.1, 0.0, 0.1)}
    rows = [
        {"condition": name, "label": name.upper(), "replicate": i, "run": f"{name}{i}", "status": "finished"}
        | {"loss_nats": 2.0 + i - gain, "perplexity": 9.0, "bits_per_byte": 1.5, "tokens": 1000, "epochs": 0.5}
        | {"teraflops": 4.0, "phase1_teraflops": 0.0 if name == "none" else 2.0}
        for name, gains in conditions.items()
        for i, gain in enumerate(gains)
    ]
    return pd.DataFrame(rows)


def test_gains_are_paired_and_perplexity_is_that_of_the_mean_loss():
    found = summarise_losses(cells()).set_index("condition")
    assert found["loss_nats_mean"].tolist() == pytest.approx([3.0, 2.8, 3.0])
    assert np.isnan(found.loc["none", "gain_mean"])
    # Between replicates the loss differs by 1, so only pairs tell.
    assert found.loc["helps", ["gain_mean", "gain_low", "gain_high"]].tolist() == pytest.approx([0.2, 0.1, 0.3])
    assert found.loc["open", "gain_mean"] == pytest.approx(0)
    assert found["perplexity"].tolist() == pytest.approx(np.exp([3.0, 2.8, 3.0]).tolist())


def test_a_diverged_run_is_counted_and_has_no_loss():
    table = cells()
    table.loc[table["run"] == "helps0", ["status", "loss_nats"]] = ["diverged", np.nan]
    found = summarise_losses(table).set_index("condition")
    assert found.loc["helps", ["n", "diverged", "gain_n"]].tolist() == [2, 1, 2]
    assert found.loc["helps", "gain_mean"] == pytest.approx(0.25)
    assert "1" in losses_table(results(table), ["helps"])["Diverged"].tolist()


def test_gains_are_counted_by_pairs():
    table = cells()
    table.loc[table["run"] == "none0", ["status", "loss_nats"]] = ["diverged", np.nan]
    found = summarise_losses(table).set_index("condition")
    assert found["n"].tolist() == [2, 3, 3]
    assert found["gain_n"].tolist() == [0, 2, 2]
    assert "HELPS (gain +0.250 [+0.200, +0.300], n = 2)" in answer(results(table)).text
    assert losses_table(results(table), ["helps"])["Pairs"].tolist() == ["2"]


def test_the_answer_says_whose_loss_is_lower():
    found = answer(results(cells()))
    assert found.decided
    assert found.text.startswith(
        "Lower loss than no pretraining: HELPS (gain +0.200 [+0.100, +0.300], n = 3). Open: OPEN ("
    )
    alone = answer(results(cells().query("condition != 'helps'")))
    assert not alone.decided
    assert alone.text.startswith("No condition lowered the loss. Open: OPEN")


def test_kept_conditions_have_the_gains_that_they_had():
    found = results(cells())
    assert losses(found, ["helps"]).title.endswith("It lowered the loss in 1 of 1 conditions")
    (row,) = losses_table(found, ["helps"]).to_dict("records")
    assert row == {
        "Condition": "HELPS",
        "Loss, nats per token": "2.800 [1.900, 3.700]",
        "Gain, nats": "+0.200 [+0.100, +0.300]",
        "Bits per byte": "1.500",
        "Perplexity": "16.44",
        "Million tokens": "0.001",
        "Epochs": "0.5",
        "Compute": "2 + 4",
    }


def evaluations() -> pd.DataFrame:
    steps = [(step, run) for run in ("none0", "helps0") for step in (0, 50, 100)]
    return pd.DataFrame(
        {
            "condition": [run[:-1] for _, run in steps],
            "replicate": 0,
            "run": [run for _, run in steps],
            "split": "validation",
            "step": [step for step, _ in steps],
            "tokens": [step * 10 for step, _ in steps],
            "loss_nats": [9.0 if step == 0 else 3 - step / 100 for step, _ in steps],
            "bits_per_byte": 1.0,
        }
    )


def test_compute_counts_phase_1_and_grows_with_the_tokens():
    table = cells().query("replicate == 0 and condition != 'open'")
    found = results(table, evaluations())
    assert list(quantities(found)) == ["loss_nats", "bits_per_byte"]
    assert list(progress(found)) == ["tokens", "teraflops", "step"]
    drawn = {trace.name: list(trace.x) for trace in learning(found, along="teraflops").figure.data}
    assert drawn == {"none": [0, 2, 4], "helps": [2, 4, 6]}
    tokens = learning(found).figure
    assert list(tokens.data[0].x) == [0, 500, 1000]
    low, high = tokens.layout.yaxis.range
    assert low < 2 < 2.5 < high < 9
    older = results(table.assign(phase1_teraflops=np.nan), evaluations())
    assert list(progress(older)) == ["tokens", "step"]


@pytest.mark.parametrize(
    ("chain", "has_compute"),
    [
        (lambda run: (run,), True),
        (lambda run: (f"before {run}", run), False),  # the third phase
        (lambda run: (run,) if run == "none0" else ("start", "p", run), False),  # phase 1 in the middle of phase 2
    ],
    ids=["elsewhere", "then", "inserted"],
)
def test_longer_chains_of_phases(chain, has_compute: bool):
    table = cells().query("replicate == 0 and condition != 'open'")
    table = table.assign(
        chain=table["run"].map(chain),
        phase1_run=[() if name == "none" or has_compute else ("p",) for name in table["condition"]],
        total_tokens=9e6,
        total_teraflops=11.0,
    )
    found = results(table, evaluations())
    assert ("teraflops" in progress(found)) == has_compute
    assert progress(found)["tokens"] == "Tokens of the last phase"
    drawn = learning(found)
    assert axis_titles(drawn.figure)[0] == "Tokens of the last phase"
    assert "tokens of the last phase it saves" in drawn.reading
    shown = losses_table(found, ["helps"]).loc[0]
    assert shown[["Million tokens, all phases", "Compute, all phases"]].tolist() == ["9", "11"]
    assert not {"Million tokens", "Compute"} & set(shown.index)
    assert "the last phase went through" in explained(found)
    assert "phase 2" not in explained(found)
    if not has_compute:
        with pytest.raises(ValueError, match="cannot be drawn against teraflops"):
            learning(found, along="teraflops")


@pytest.mark.parametrize("quantity", ["loss_nats", "bits_per_byte", "perplexity", "accuracy"])
def test_on_text_nothing_breaks_through(quantity: str):
    found = results(cells(), evaluations().assign(perplexity=9.0, accuracy=0.3))
    (map_of_text,) = maps(sweep(on_text=True))
    behind = curves(sweep(on_text=True), map_of_text, "attn", quantity)
    for exhibit in (learning(found, quantity), behind):
        said = exhibit.title + exhibit.reading
        assert "breakthrough" not in said
        assert "broke" not in said
        assert f"A curve that lies {'higher' if quantity == 'accuracy' else 'lower'}" in said
        assert not exhibit.figure.layout.shapes


def test_a_table_says_itself_that_it_is_of_text():
    """Its runs may be in no store, as those of the demo's map."""
    assert results(cells()).on_text
    assert answer_of(results(cells())).text.startswith("Lower loss than no pretraining: HELPS")
    assert not results(cells().assign(epochs=np.nan)).on_text
    demo = load_results(RunStore(DEMO), "text_map-051d9423")
    assert demo.histories.empty
    assert demo.on_text


def as_answers(store: RunStore, table_name: str, path: Path) -> Path:
    return answers_report(store, path, table=table_name, run=None)


@pytest.mark.parametrize("with_runs", [True, False])
@pytest.mark.parametrize("write", [conditions_report, as_answers])
def test_a_report_on_text_is_by_the_loss(store: Path, tmp_path: Path, write, with_runs: bool, monkeypatch):
    monkeypatch.setattr("procpre_interp.views.full_report.MOST_CLAIMS", 1)
    there = RunStore(store if with_runs else tmp_path / "alone")
    if not with_runs:
        shutil.copytree(store / "tables", there.path / "tables")
    page = Page(write(there, "text-1234abcd", tmp_path / "report.html")).text
    assert "Lower loss than no pretraining: Sort" in page.split("How to read this report")[0]
    words = page.split("How to read this report")[1][:4000]
    assert "How far the test loss of a condition lies below" in words
    assert "Its test loss is the result" in words
    for by_accuracy in ("Accuracy of a condition minus", "Its test accuracy", "over no pretraining: ", "at chance"):
        assert by_accuracy not in page.split("Do the claims hold?")[0], by_accuracy


def test_an_evaluation_that_no_run_has():
    with pytest.raises(ValueError, match="evaluations of exact_match"):
        learning(results(cells(), evaluations()), "exact_match")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store")
    fill_text(RunStore(path))
    return path


def test_the_page_shows_losses(monkeypatch, store: Path):
    app = open_page(monkeypatch, store, PAGE)
    assert "lowered the loss in 1 of 1 conditions" in title(app, 0)
    assert "Lower loss than no pretraining: Sort" in said(app)
    assert [tab.label for tab in app.tabs] == ["Loss", "Learning curves", "Savings", "Cost"]
    assert "Broke through" not in app.dataframe[0].value


def test_the_page_shows_curves_over_tokens_and_compute(monkeypatch, store: Path):
    app = open_page(monkeypatch, store, PAGE, tab="Learning curves")
    assert len(charts(app)) == 1
    assert list(app.selectbox(key="along").options) == ["Tokens of phase 2", "Compute, phase 1 included", "Steps"]
    app.selectbox(key="along").set_value("teraflops").run()
    assert not app.exception
    app.selectbox(key="quantity").set_value("perplexity").run()
    assert title(app, 0) == "Perplexity over training, by condition"


def test_another_experiment_is_shown_with_all_its_conditions(monkeypatch, tmp_path: Path):
    """Those that were chosen of a smaller one would leave out some of a larger one, which nothing would say."""
    there = RunStore(tmp_path)
    for name, shown in (("large-1", cells()), ("small-1", cells().query("condition != 'open'"))):
        there.write_table(
            name, shown.assign(accuracy=0.3, breakthrough_step=np.nan, limit=100, seconds=1.0), {"title": name}
        )
    app = open_page(monkeypatch, tmp_path, PAGE, experiment="small-1")
    check(app.selectbox(key="experiment").set_value("large-1").run())
    assert app.multiselect(key="condition").value == ["none", "helps", "open"]
    check(app.multiselect(key="condition").set_value(["helps"]).run())
    assert app.query_params["condition"] == "helps"
    check(app.selectbox(key="experiment").set_value("small-1").run())
    assert app.multiselect(key="condition").value == ["none", "helps"]
    named = open_page(monkeypatch, tmp_path, PAGE, experiment="large-1", condition=["open", "none"])
    assert set(named.multiselect(key="condition").value) == {"open", "none"}


def test_the_page_shows_what_is_saved(monkeypatch, store: Path):
    app = open_page(monkeypatch, store, PAGE, tab="Savings")
    assert not app.exception
    assert len(charts(app)) == 2
    (table,) = app.dataframe
    assert table.value["Condition"].tolist() == ["Sort"]
    assert "phase 1" in said(app)

"""What "Did transfer help?" shows where phase 2 was text: losses, tokens and compute."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from procpre_interp.stats.losses import summarise_losses
from procpre_interp.store.about import About
from procpre_interp.store.store import RunStore
from procpre_interp.views.exhibits.results import Results
from procpre_interp.views.exhibits.text_results import answer, learning, losses, losses_table, progress, quantities
from tests.explorer import charts, open_page, said, title
from tests.results import fill_text

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
    assert found.loc["helps", ["n", "diverged"]].tolist() == [2, 1]
    assert found.loc["helps", "gain_mean"] == pytest.approx(0.25)
    assert "1" in losses_table(results(table), ["helps"])["Diverged"].tolist()


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


def test_the_page_shows_what_is_saved(monkeypatch, store: Path):
    app = open_page(monkeypatch, store, PAGE, tab="Savings")
    assert not app.exception
    assert len(charts(app)) == 2
    (table,) = app.dataframe
    assert table.value["Condition"].tolist() == ["Sort"]
    assert "phase 1" in said(app)

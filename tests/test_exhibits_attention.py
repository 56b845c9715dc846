"""Attention as exhibits: numbers of a tiny model, moments of the demo's runs."""

import pandas as pd
import pytest
import torch

from procpre_interp.data import TASKS
from procpre_interp.model import ModelConfig
from procpre_interp.pipeline.execute import load_model, load_task
from procpre_interp.pipeline.lineage import moments
from procpre_interp.probe import attention_scores
from procpre_interp.probe.targets import targets_of
from procpre_interp.store.store import RunStore
from procpre_interp.views.exhibits import attention
from tests.explorer import DEMO
from tests.formal import database
from tests.models import random_model

STORE = RunStore(DEMO)
TASK = TASKS.build("haystack", max_pairs=4)
MODEL = random_model(ModelConfig(n_layers=2, n_heads=3, d_model=12, n_ctx=TASK.n_ctx, d_vocab=TASK.d_vocab))


def test_a_cell_is_the_score_of_its_head():
    exhibit = attention.scores(MODEL, TASK, "value", n=16)
    expected = attention_scores(MODEL, attention.sample(TASK, 0, 16), TASK)
    row = expected.query("layer == 1 and head == 2 and score == 'value'").iloc[0]
    heat, targets = exhibit.figure.data
    assert heat.z[1][2] == pytest.approx(row["value"])
    assert [list(place) for place in targets.customdata] == [[layer, head] for layer in (0, 1) for head in (0, 1, 2)]
    assert "16 generated sequences" in exhibit.notes[0]


def test_the_scores_of_a_task_come_first():
    assert set(list(attention.score_names(TASK))[:3]) == {"key", "value", "own_key"}
    with pytest.raises(ValueError, match="no score 'nose' on haystack"):
        attention.scores(MODEL, TASK, "nose")


def test_a_pattern_names_its_tokens_and_sums_to_one():
    table = attention.pattern(MODEL, TASK, [135, 12, 165], 1, 2).table
    assert set(zip(table["layer"], table["head"])) == {(1, 2)}
    assert table.groupby("query")["weight"].sum().tolist() == pytest.approx([1, 1, 1], abs=1e-5)
    assert table.iloc[-1][["query_token", "key_token"]].tolist() == ["k7?", "k7?"]
    assert set(attention.pattern(MODEL, TASK, torch.tensor([135, 12])).table["layer"]) == {0, 1}
    with pytest.raises(ValueError, match="no head 9"):
        attention.pattern(MODEL, TASK, [135], 1, 9)
    with pytest.raises(ValueError, match="token ids 0 to 255"):
        attention.pattern(MODEL, TASK, [300])


def test_moments_go_through_both_phases():
    run = STORE.open("f00f71212a994232")
    labels = [each.label for each in moments(run, STORE)]
    phase1 = [f"phase 1, step {step}" for step in ("0", "488", "4,256", "20,000")]
    assert labels == phase1 + [f"phase 2, step {step}" for step in ("0", "595", "1,157", "5,000")]
    parent = STORE.open("9643c1a212deed14")
    assert [each.label for each in moments(parent, STORE)] == phase1


def test_the_transplanted_model_stands_in_for_a_step_0_that_was_not_kept(monkeypatch):
    run = STORE.open("f00f71212a994232", verify=False)
    del run.manifest["weights/step_00000000.safetensors"]
    found = moments(run, STORE)
    assert [each.label for each in found[3:6]] == ["phase 1, step 20,000", "transplanted", "phase 2, step 595"]
    assert found[4].step is None


def test_development_is_that_of_one_run():
    run = STORE.open("f00f71212a994232")
    exhibit = attention.development(run, STORE, "value", n=8)
    assert set(exhibit.table["phase"]) == {2}
    assert set(exhibit.table["step"]) == set(run.steps)
    assert "an observation" in exhibit.notes[0]


def test_one_line_from_a_stored_run():
    run = STORE.open("f00f71212a994232")
    model, task = load_model(run), load_task(run)
    best = attention.scores(model, task, "value", n=32).table.query("score == 'value'")["value"].max()
    assert best > 0.5
    assert attention.sequence(task, 0, 3).tolist() == attention.sequence(task, 0, 3).tolist()


def test_the_head_that_stands_out():
    rows = [
        ("value", 0, 0, 0.30, 0.05),
        ("value", 0, 1, 0.90, 0.05),
        ("own_key", 0, 0, 0.99, 0.05),  # a job of the task, but none that finds the answer
        ("previous_token", 0, 0, 1.00, 0.05),
        ("entropy_relative", 0, 0, 0.10, 1.0),
        ("entropy_relative", 0, 1, 0.95, 1.0),
        ("key", 0, 0, float("nan"), float("nan")),
    ]
    table = pd.DataFrame(rows, columns=["score", "layer", "head", "value", "uniform"])
    assert attention.standing_out(table, TASK) == attention.Look("value", 0, 1)
    # The more of attention is on one token, the further below even attention the entropy is.
    assert attention.standing_out(table, TASK, "entropy_relative") == attention.Look("entropy_relative", 0, 0)
    assert attention.standing_out(table, TASK, "key") == attention.Look("key", 0, 0)
    # A task without such a job: of all targets the one with the largest lead.
    assert attention.standing_out(table, TASKS.build("addition")) == attention.Look("previous_token", 0, 0)


@pytest.mark.parametrize("name", [name for name in TASKS if name not in ("mixture", "noisy", "shuffled", "text")])
def test_every_task_opens_on_a_score_that_it_has(name, tmp_path):
    task = TASKS.build(name, **({"database": database(tmp_path)} if name == "metamath" else {}))
    model = random_model(ModelConfig(n_layers=1, n_heads=2, d_model=8, n_ctx=task.model_n_ctx, d_vocab=task.d_vocab))
    table = attention.score_table(model, task, n=4)
    look = attention.standing_out(table, task)
    assert look.score in attention.score_names(task)
    jobs = [target.name for target in targets_of(task).values() if target.finds_answer]
    assert look.score in jobs or not jobs
    exhibit = attention.scored(table, task, look.score)
    assert "`" not in exhibit.reading
    grid = attention.score_grid(table, task)
    assert grid["of"].tolist() == ["even attention", "L0H0", "L0H1"]
    assert len(grid.columns) == 1 + table["score"].nunique()

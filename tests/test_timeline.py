"""Timelines of tiny runs of two phases, measured again by hand; when heads form."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from procpre_interp.analysis.attention_timeline import formation, score_changes, timeline, timelines
from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS
from procpre_interp.pipeline.config import Architecture, Parent, RunConfig
from procpre_interp.pipeline.execute import execute, load_model, load_task
from procpre_interp.probe.attention import attention_scores
from procpre_interp.store.store import RunStore
from procpre_interp.train import TrainConfig

SHAPE = Architecture(n_layers=1, n_heads=2, d_model=8)
TRAIN = TrainConfig(
    steps=10,
    batch_size=8,
    learning_rate=1e-2,
    warmup_steps=2,
    evaluate_every=10,
    evaluate_examples=16,
    checkpoints=5,
)
PHASE1 = RunConfig(task=TASKS.build("dyck", k=2, length=24), seed=3, model=SHAPE, train=TRAIN)
PHASE2 = RunConfig(
    task=TASKS.build("haystack", max_pairs=4),
    seed=4,
    model=dataclasses.replace(SHAPE, n_ctx=24),
    train=dataclasses.replace(TRAIN, steps=7),
)
LAST_ONLY = dataclasses.replace(PHASE1, train=dataclasses.replace(TRAIN, checkpoints=1))
CHILD_OF_LAST = dataclasses.replace(PHASE2, parents=(Parent(run=LAST_ONLY.run_id),))
STEPS1, STEPS2 = [0, 1, 2, 3, 6, 10], [0, 1, 2, 3, 4, 7]
COLUMNS = ["run", "replicate", "phase", "task", "step", "axis_step", "layer", "head", "score", "value", "uniform"]


def child(**parent) -> RunConfig:
    return dataclasses.replace(PHASE2, parents=(Parent(run=PHASE1.run_id, **parent),))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = RunStore(tmp_path_factory.mktemp("store"))
    with pytest.MonkeyPatch.context() as patch:
        # Each of the runs would otherwise draw a million tokens for its ten steps, and again for its test.
        patch.setattr("procpre_interp.data.stream.BLOCK_TOKENS", 2**12)
        patch.setattr("procpre_interp.pipeline.execute.TEST_EXAMPLES", 50)
        for config in (PHASE1, child(), child(selector="attn", step=3), PHASE2, LAST_ONLY, CHILD_OF_LAST):
            execute(config, store)
    return store


@pytest.fixture(scope="module")
def table(store):
    return timeline(store.open(child().run_id), store, n_sequences=20)


def test_both_phases_on_one_axis(table):
    assert table.columns.tolist() == COLUMNS
    assert set(table["run"]) == {child().run_id}
    assert set(table["replicate"]) == {4}
    points = table[["phase", "task", "step", "axis_step"]].drop_duplicates().to_numpy().tolist()
    first = [[1, "dyck", step, step] for step in STEPS1]
    assert points == first + [[2, "haystack", step, 10 + step] for step in STEPS2]
    scores = table.groupby("phase")["score"].unique()
    assert "stack_top" in scores[1]
    assert "value" not in scores[1]
    assert "value" in scores[2]
    assert "stack_top" not in scores[2]
    assert not table.duplicated(["phase", "step", "layer", "head", "score"]).any()


def test_the_values_are_those_of_the_checkpoints(store, table):
    for config, phase, step in ((PHASE1, 1, 2), (PHASE1, 1, 10), (child(), 2, 0), (child(), 2, 7)):
        run = store.open(config.run_id)
        task = load_task(run)
        batch = task.batch(20, generator=stream(4, "attention timeline", task.name))
        again = attention_scores(load_model(run, step), batch, task)
        rows = table.loc[(table["phase"] == phase) & (table["step"] == step)].reset_index(drop=True)
        columns = ["layer", "head", "score", "value", "uniform"]
        pd.testing.assert_frame_equal(rows[columns], again[columns])


def test_a_run_without_parents_has_one_phase(store):
    table = timeline(store.open(PHASE1.run_id), store, n_sequences=4, targets=["induction"])
    assert set(table["phase"]) == {1}
    assert table["axis_step"].equals(table["step"])
    assert set(table["score"]) == {"entropy_bits", "entropy_relative", "distance", "induction"}


def test_phase_1_ends_with_the_checkpoint_that_was_transferred(store):
    table = timeline(store.open(child(selector="attn", step=3).run_id), store, n_sequences=4)
    first = table.loc[table["phase"] == 1]
    assert first["step"].unique().tolist() == [0, 1, 2, 3]
    assert table.loc[table["phase"] == 2, "axis_step"].unique().tolist() == [3 + step for step in STEPS2]


def test_a_parent_that_kept_its_last_weights_alone_is_a_point(store):
    table = timeline(store.open(CHILD_OF_LAST.run_id), store, n_sequences=4)
    assert table.loc[table["phase"] == 1, ["step", "axis_step"]].drop_duplicates().to_numpy().tolist() == [[10, 10]]
    assert table.loc[table["phase"] == 2, "axis_step"].min() == 10


def test_conditions_of_a_replicate_see_the_same_sequences(store, table):
    """The run from scratch and the child share the seed, the task, and so what even attention scores."""
    runs = [store.open(config.run_id) for config in (child(), PHASE2, child())]
    both = timelines(runs, store, n_sequences=20)
    assert both.loc[both["run"] == child().run_id].reset_index(drop=True).equals(table)
    scratch = both.loc[both["run"] == PHASE2.run_id]
    assert set(scratch["phase"]) == {1}
    columns = ["step", "layer", "head", "score", "uniform"]
    second = table.loc[(table["phase"] == 2), columns].reset_index(drop=True)
    assert scratch[columns].reset_index(drop=True).equals(second)


def test_targets_of_either_phase_may_be_named(store):
    run = store.open(child().run_id)
    table = timeline(run, store, n_sequences=4, targets=["stack_top", "value"])
    targets = table.loc[~table["score"].isin(["entropy_bits", "entropy_relative", "distance"])]
    assert targets.groupby("phase")["score"].unique().map(list).to_dict() == {1: ["stack_top"], 2: ["value"]}
    with pytest.raises(ValueError, match="unknown target 'stack_tip'"):
        timeline(run, store, targets=["stack_tip"])
    with pytest.raises(ValueError, match="no runs"):
        timelines([], store)


def curve(values: list[float], *, head: int, phase: int = 2, run: str = "a") -> pd.DataFrame:
    steps = [0, 1, 4, 16][: len(values)]
    axis = [100 * (phase - 1) + step for step in steps]
    place = {"run": run, "replicate": 0, "phase": phase, "task": "haystack", "layer": 0, "head": head}
    return pd.DataFrame({**place, "step": steps, "axis_step": axis, "score": "value", "value": values, "uniform": 0.1})


def test_formation_by_hand():
    table = pd.concat(
        [
            curve([0.1, 0.6, 0.2, 0.7], head=0),
            curve([0.1, 0.5, 0.6, 0.9], head=1),
            curve([0.8, 0.8, 0.8, 0.4], head=2),
            curve([0.8, 0.9, 0.8, 0.9], head=0, phase=1),
            curve([0.2, 0.9, np.nan, np.nan], head=0, run="b"),
            curve([np.nan] * 4, head=1, run="b"),
            curve([0.3] * 4, head=0).assign(score="distance"),
        ]
    ).sample(frac=1, random_state=0)
    formed = formation(table, "value", 0.5).sort_values(["run", "phase", "head"]).reset_index(drop=True)
    assert formed["head"].tolist() == [0, 0, 1, 2, 0]
    assert formed["formation_step"].tolist() == pytest.approx([0, 16, 1, np.nan, 1], nan_ok=True)
    assert formed["axis_step"].tolist() == pytest.approx([0, 116, 101, np.nan, 101], nan_ok=True)
    assert formed["step_before"].tolist() == pytest.approx([np.nan, 4, 0, np.nan, 0], nan_ok=True)
    assert formed["final"].tolist() == [0.9, 0.7, 0.9, 0.4, 0.9]
    assert formed["strongest"].tolist() == [True, False, True, False, True]
    assert set(formed["threshold"]) == {0.5}
    with pytest.raises(ValueError, match="'values'.*Did you mean 'value'"):
        formation(table, "values", 0.5)


def test_of_equally_strong_heads_the_first_is_the_strongest():
    formed = formation(pd.concat([curve([0.1, 0.4], head=0), curve([0.2, 0.4], head=1)]), "value", 0.3)
    assert formed["strongest"].tolist() == [True, False]


def test_formation_of_a_timeline_has_a_row_a_head_and_phase(table):
    formed = formation(table, "previous_token", 0)
    assert len(formed) == 2 * 2
    assert formed["formation_step"].tolist() == [0] * 4
    assert formed.groupby("phase")["strongest"].sum().tolist() == [1, 1]
    last = table.loc[(table["score"] == "previous_token") & (table["step"] == 7)]
    assert formed.loc[formed["phase"] == 2, "final"].tolist() == last["value"].tolist()


def test_changes_of_level_by_hand():
    steps = np.unique(np.round(np.geomspace(1, 2000, 24)).astype(int))
    step_up = np.where(steps >= 400, 0.8, 0.1) + 0.001 * np.sin(steps)
    frames = []
    for head, values in ((0, step_up), (1, np.full(len(steps), 0.3))):
        place = {"run": "r", "replicate": 1, "phase": 2, "task": "haystack", "layer": 0, "head": head, "score": "value"}
        frames.append(pd.DataFrame({**place, "step": steps, "axis_step": steps + 500, "value": values, "uniform": 0.1}))
    changes = score_changes(pd.concat(frames), "value")
    first = int(steps[steps >= 400][0])
    assert changes[["head", "step", "axis_step"]].to_numpy().tolist() == [[0, first, first + 500]]
    assert changes.iloc[0][["level_before", "level_after"]].tolist() == pytest.approx([0.1, 0.8], abs=0.01)
    with pytest.raises(ValueError, match="unknown score of the timeline 'key'"):
        score_changes(pd.concat(frames), "key")


def test_changes_of_a_timeline_lie_within_its_phases(table):
    changes = score_changes(table, "entropy_relative")
    ends = table.groupby("phase")["axis_step"].agg(["min", "max"])
    for row in changes.itertuples():
        assert ends.loc[row.phase, "min"] <= row.axis_step <= ends.loc[row.phase, "max"]

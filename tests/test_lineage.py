"""The stages of a two-phase run, and what is observed on them."""

import dataclasses

import pandas as pd
import pytest
import torch

from procpre_interp.data import TASKS
from procpre_interp.pipeline.config import Architecture, Parent, RunConfig
from procpre_interp.pipeline.execute import execute, load_model
from procpre_interp.pipeline.lineage import over_runs, stages, starting_model
from procpre_interp.probe import weight_table
from procpre_interp.store.store import RunStore
from procpre_interp.study.observation import Observation, entropy_observation, observe
from procpre_interp.train import TrainConfig
from procpre_interp.train.closed_form import TensorScale
from procpre_interp.train.interventions import Rate

TRAIN = TrainConfig(steps=4, batch_size=8, warmup_steps=1, evaluate_every=2, evaluate_examples=8, checkpoints=3)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> RunStore:
    return RunStore(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def two_phases(store):
    before = RunConfig(task=TASKS.build("dyck", k=3, length=64), seed=7, train=TRAIN, model=Architecture(tied=True))
    parent = execute(before, store)
    after = RunConfig(
        task=TASKS.build("haystack"), seed=7, train=TRAIN, parents=(Parent(run=parent.id, selector="attn"),)
    )
    return parent, execute(after, store)


def test_the_stages_are_what_training_began_and_ended_with(store, two_phases):
    parent, run = two_phases
    found = stages(run, store)
    assert list(found) == ["phase1_fresh", "phase1", "fresh", "transplanted", "finished"]
    kept = {
        "phase1_fresh": load_model(parent, 0),
        "phase1": load_model(parent),
        "transplanted": load_model(run, 0),
        "finished": load_model(run, 4),
    }
    for name, model in kept.items():
        assert torch.equal(found[name].model.flat, model.flat), name
    assert [stage.task.name for stage in found.values()] == ["dyck", "dyck", "haystack", "haystack", "haystack"]
    taken, fresh = found["transplanted"].model, found["fresh"].model
    assert torch.equal(taken.W_Q, found["phase1"].model.W_Q)
    assert torch.equal(taken.W_in, fresh.W_in)
    assert not torch.equal(taken.W_Q, fresh.W_Q)


def test_a_run_without_parents_has_no_transplant(store, two_phases):
    parent, _ = two_phases
    found = stages(parent, store)
    assert list(found) == ["fresh", "finished"]
    assert torch.equal(found["fresh"].model.flat, load_model(parent, 0).flat)


def test_a_measurement_on_many_runs(store, two_phases):
    parent, run = two_phases
    table = over_runs([run, parent], store, lambda model, task: weight_table(model).assign(task=task.name))
    assert list(table)[:3] == ["run", "replicate", "stage"]
    assert table.groupby("run")["task"].first().to_dict() == {run.id: "haystack", parent.id: "dyck"}
    before = over_runs([run], store, lambda model, task: weight_table(model), stage="transplanted")
    taken = before.loc[before["matrix"] == "W_Q", "frobenius"].tolist()
    assert taken == weight_table(load_model(parent)).query("matrix == 'W_Q'")["frobenius"].tolist()
    with pytest.raises(ValueError, match="no stage 'phase1'"):
        over_runs([parent], store, lambda model, task: weight_table(model), stage="phase1")
    with pytest.raises(ValueError, match="no runs"):
        over_runs([], store, lambda model, task: weight_table(model))


def test_a_parent_that_is_gone(two_phases, tmp_path):
    _, run = two_phases
    with pytest.raises(ValueError, match="no run"):
        stages(run, RunStore(tmp_path))


def test_observations_become_columns_and_rows(store, two_phases):
    parent, run = two_phases
    cells = [("none", 7, parent.id), ("attn", 7, run.id), ("none", 8, parent.id)]
    table = pd.DataFrame(cells, columns=["condition", "replicate", "run"]).assign(status="finished", accuracy=0.5)
    planned = table[["condition", "replicate"]].assign(run="")
    planned.loc[len(planned)] = ["attn", 8, ""]
    seen = []

    def measure(runs, store):
        seen.append(set(runs))
        return {"attn": {"depth": 2}, "before": {"depth": 1.0}}

    observation = Observation(needs=("none", "attn"), conditions={"before": "before training"}, measure=measure)
    observed, wanted = observe(observation, table, planned, store)
    # Replicate 8 lacks a run: it is planned, and not measured.
    assert seen == [{"none", "attn"}]
    assert observed["observed"].tolist() == [False, False, False, True]
    assert observed.query("condition == 'attn'")["depth"].tolist() == [2]
    assert observed.query("condition == 'none'")["depth"].isna().all()
    assert observed.iloc[3][["condition", "label", "replicate", "depth", "status"]].tolist() == [
        "before",
        "before training",
        7,
        1.0,
        "finished",
    ]
    assert wanted.query("condition == 'before'")["replicate"].tolist() == [7, 8]


def test_interventions_on_initial_weights_are_part_of_what_training_began_with(store, two_phases):
    parent, _ = two_phases
    scaled = TensorScale(rms=(("pos_embed.W_pos", 0.5), ("blocks.0.attn.b_Q", 0.1)))
    frozen = Rate(selector="all", learning_rate_factor=0.0)
    run = execute(
        RunConfig(
            task=TASKS.build("haystack"),
            seed=7,
            train=dataclasses.replace(TRAIN, interventions=(scaled, frozen)),
            parents=(Parent(run=parent.id, selector="attn"),),
        ),
        store,
    )
    model = starting_model(run, store)
    assert torch.equal(model.flat, load_model(run, 0).flat)
    assert torch.equal(model.flat, load_model(run).flat)
    assert not torch.equal(model.flat, stages(run, store)["transplanted"].model.flat)
    table = pd.DataFrame([{"condition": "a", "replicate": 7, "run": run.id, "status": "finished"}])
    found, _ = observe(entropy_observation("a"), table, table.assign(phase1_run=[()] * len(table)), store)
    assert found.loc[0, "entropy_start"] == found.loc[0, "entropy_relative"] < 1.0

"""The stages of a two-phase run, and what is observed on them."""

import dataclasses
from collections.abc import Iterator

import pandas as pd
import pytest
import torch

from procpre_interp.data import TASKS
from procpre_interp.pipeline.config import Architecture, Parent, RunConfig
from procpre_interp.pipeline.execute import execute, load_model
from procpre_interp.pipeline.lineage import (
    at_stage,
    kept_steps,
    moment_named,
    moments,
    over_runs,
    parse_run,
    stages,
    starting_model,
)
from procpre_interp.probe import weight_table
from procpre_interp.store.store import RunStore
from procpre_interp.study.observation import Observation, entropy_observation, observe
from procpre_interp.train import TrainConfig
from procpre_interp.train.closed_form import Initialisation, TensorScale
from procpre_interp.train.interventions import INTERVENTIONS, Intervention, MatchedEntropy, Rate, Rescaled, Scaled

TRAIN = TrainConfig(steps=4, batch_size=8, warmup_steps=1, evaluate_every=2, evaluate_examples=8, checkpoints=3)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Iterator[RunStore]:
    with pytest.MonkeyPatch.context() as patch:
        # Each of the runs would otherwise draw a million tokens for its few steps, and again for its test.
        patch.setattr("procpre_interp.data.stream.BLOCK_TOKENS", 2**12)
        patch.setattr("procpre_interp.pipeline.execute.TEST_EXAMPLES", 50)
        yield RunStore(tmp_path_factory.mktemp("store"))


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
        assert torch.equal(found[name].model(store).flat, model.flat), name
    assert [stage.task.name for stage in found.values()] == ["dyck", "dyck", "haystack", "haystack", "haystack"]
    taken, fresh = found["transplanted"].model(store), found["fresh"].model(store)
    assert torch.equal(taken.W_Q, found["phase1"].model(store).W_Q)
    assert torch.equal(taken.W_in, fresh.W_in)
    assert not torch.equal(taken.W_Q, fresh.W_Q)


def test_a_run_without_parents_has_no_transplant(store, two_phases):
    parent, _ = two_phases
    found = stages(parent, store)
    assert list(found) == ["fresh", "finished"]
    assert torch.equal(found["fresh"].model(store).flat, load_model(parent, 0).flat)


def test_a_measurement_on_many_runs(store, two_phases):
    parent, run = two_phases
    table = over_runs([run, parent], store, lambda model, task: weight_table(model).assign(task=task.name))
    assert list(table)[:3] == ["run", "replicate", "stage"]
    assert table.groupby("run")["task"].first().to_dict() == {run.id: "haystack", parent.id: "dyck"}
    # Labels of rows that a measurement left standing twice are no rows to be paired.
    twice = over_runs([run], store, lambda model, task: pd.concat([weight_table(model)] * 2))
    assert len(twice) == 2 * len(weight_table(load_model(run)))
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


def test_a_moment_is_a_name_for_a_model(store, two_phases):
    parent, run = two_phases
    found = stages(run, store)
    assert [each.phase for each in found.values()] == [1, 1, 2, 2, 2]
    assert {each.source.id for each in found.values() if each.phase == 1} == {parent.id}
    assert [found[name].untrained.stage for name in ("phase1", "transplanted")] == ["phase1_fresh", "fresh"]
    own = moment_named(f"{run.id[:8]}@2", store)
    assert (own.label, own.when) == ("phase 2, step 2", "step 2")
    assert own.title == f"run {run.id[:8]} after 2 steps"
    assert own.load(store).label == f"{run.id}@2"
    assert torch.equal(own.model(store).flat, load_model(run, 2).flat)
    said = [at_stage(each, store, "finished").when for each in (run, parent)]
    assert said == ["after phase 2", "after training"]
    assert found["transplanted"].title == f"run {run.id[:8]} before phase 2, transplanted"
    assert found["finished"].load(store, TASKS.build("dyck")).task.name == "dyck"


def test_a_run_and_a_step_are_named_in_one_way(store, two_phases):
    parent, run = two_phases
    named = {run.id[:8]: (run.id, None), f"{parent.id}@0": (parent.id, 0)}
    for name, (run_id, step) in named.items():
        found, at = parse_run(name, store)
        assert (found.id, at) == (run_id, step)
    for name in ("@x", "@", "@-1", "@²", "@1@2"):
        with pytest.raises(ValueError, match=r"after @ comes a step, one of \[0, "):
            parse_run(f"{run.id}{name}", store)
    with pytest.raises(ValueError, match="no run"):
        parse_run("nothing@0", store)
    with pytest.raises(ValueError, match="of stage finished"):
        moment_named(f"{run.id}@0", store, stage="phase1")
    with pytest.raises(ValueError, match=r"no stage 'phase1'; there are: fresh, finished"):
        moment_named(parent.id, store, stage="phase1")


def test_the_phase_1_of_a_run_ends_with_the_step_that_it_took(store, two_phases, tmp_path):
    parent, _ = two_phases
    config = RunConfig(task=TASKS.build("haystack"), seed=7, train=TRAIN, parents=(Parent(run=parent.id, step=2),))
    early = execute(config, store)
    for found in (moments(early, store), kept_steps(early, store)):
        assert [each.step for each in found if each.phase == 1] == [step for step in parent.steps if step <= 2]
        assert [each.step for each in found if each.phase == 2] == early.steps
    assert torch.equal(at_stage(early, store, "phase1").model(store).flat, load_model(parent, 2).flat)
    # A list of what can be looked at goes on without a parent that is gone; a timeline would miss its first phase.
    assert [each.label for each in moments(early, RunStore(tmp_path))] == [f"phase 2, step {i}" for i in early.steps]
    with pytest.raises(ValueError, match="no run"):
        kept_steps(early, RunStore(tmp_path))


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
    # By parts a replicate without one of the runs is measured as far as it goes.
    seen.clear()
    whole = Observation(needs=("none", "attn", "mlp"), conditions={}, measure=measure)
    assert "depth" not in observe(whole, table, planned, store)[0]
    by_parts = dataclasses.replace(whole, parts={"attn": ("attn", "none"), "mlp": ("mlp", "none")})
    observed, _ = observe(
        dataclasses.replace(by_parts, conditions={"before": "before training"}), table, planned, store
    )
    assert seen == [{"none", "attn"}]
    assert observed.query("condition == 'attn'")["depth"].tolist() == [2]


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
    assert not torch.equal(model.flat, stages(run, store)["transplanted"].model(store).flat)
    table = pd.DataFrame([{"condition": "a", "replicate": 7, "run": run.id, "status": "finished"}])
    found, _ = observe(entropy_observation("a"), table, table.assign(phase1_run=[()] * len(table)), store)
    assert found.loc[0, "entropy_start"] == found.loc[0, "entropy_relative"] < 1.0


CHANGE_WEIGHTS = [name for name in INTERVENTIONS if INTERVENTIONS[name].initialise is not Intervention.initialise]


def intervention_of(name: str, parent) -> Intervention:
    """One that changes the weights of a child of this parent."""
    kind = INTERVENTIONS[name]
    if issubclass(kind, Initialisation):
        return kind.fit([load_model(parent)])
    if kind is Rescaled:
        return Rescaled(selector="attn", per="row")
    if kind is Scaled:
        return Scaled(factor=2.0)
    assert kind is MatchedEntropy
    return MatchedEntropy(selector="blocks.0.attn.head.0", pattern="transferred", entropy="fresh")


@pytest.mark.parametrize("name", CHANGE_WEIGHTS)
def test_the_starting_weights_are_what_the_trainer_begins_with(name, store, two_phases):
    """After every intervention that changes initial weights."""
    parent, _ = two_phases
    train = dataclasses.replace(TRAIN, steps=1, interventions=(intervention_of(name, parent),))
    parents = (Parent(run=parent.id, selector="attn"),)
    run = execute(RunConfig(task=TASKS.build("haystack"), seed=7, train=train, parents=parents), store)
    start = starting_model(run, store).flat
    assert torch.equal(start, load_model(run, 0).flat)
    assert not torch.equal(start, at_stage(run, store, "transplanted").model(store).flat)

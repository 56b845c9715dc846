"""The second part of a training, and the optimiser's state that goes from run to run."""

import dataclasses
from collections.abc import Iterator

import pandas as pd
import pytest
import torch
import yaml

from procpre_interp.ablate import Noise
from procpre_interp.analysis.over_training import over_training
from procpre_interp.data import TASKS
from procpre_interp.pipeline.config import Architecture, Parent, RunConfig
from procpre_interp.pipeline.continuation import PARTS, carried_moments, kept_state
from procpre_interp.pipeline.execute import execute, fresh_model, load_model
from procpre_interp.pipeline.lineage import at_stage, kept_steps, moments
from procpre_interp.store.differences import lineage
from procpre_interp.store.store import DamagedRun, RunStore
from procpre_interp.train import Interrupted, TrainConfig
from procpre_interp.train.closed_form import TensorScale
from procpre_interp.train.interventions import Rate, Rewind
from procpre_interp.transfer import TransferConfig

SHAPE = Architecture(n_layers=2, n_heads=2, d_model=8, n_ctx=64)
TRAIN = TrainConfig(
    steps=8, batch_size=8, learning_rate=1e-2, warmup_steps=3, evaluate_every=2, evaluate_examples=16, checkpoints=4
)
WHOLE = RunConfig(task=TASKS.build("haystack"), seed=5, model=SHAPE, train=TRAIN)
RETAIN = TransferConfig(token_embedding="retain", unembedding="retain")
INSERTED = RunConfig(
    task=TASKS.build("dyck", k=2, length=32),
    seed=5,
    model=dataclasses.replace(SHAPE, tied=True),
    train=dataclasses.replace(TRAIN, steps=3, keep_optimiser=True, schedule="constant"),
    transfer=TransferConfig(token_embedding="fresh", unembedding="fresh"),
)


def first_part(whole: RunConfig = WHOLE, stop: int = 5) -> RunConfig:
    train = dataclasses.replace(whole.train, stop_after=stop, keep_optimiser=True)
    return dataclasses.replace(whole, train=train)


def rest(whole: RunConfig = WHOLE, start: int = 5, **fields) -> RunConfig:
    fields = {
        "parents": (Parent(run=first_part(whole, start).run_id),),
        "transfer": RETAIN,
        "optimiser": "carried",
        **fields,
    }
    return dataclasses.replace(whole, train=dataclasses.replace(whole.train, start_at=start), **fields)


def inserted(optimiser="carried") -> RunConfig:
    return dataclasses.replace(INSERTED, parents=(Parent(run=first_part().run_id),), optimiser=optimiser)


def after_insertion(optimiser="carried", selector="attn") -> RunConfig:
    """Dyck's attention and positions, everything else as it was before."""
    return rest(
        parents=(Parent(run=first_part().run_id), Parent(run=inserted(optimiser).run_id, selector=selector)),
        transfer=dataclasses.replace(RETAIN, overlap="later_wins", positions_parent=1),
        optimiser=optimiser,
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Iterator[RunStore]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("procpre_interp.data.stream.BLOCK_TOKENS", 2**12)
        patch.setattr("procpre_interp.pipeline.execute.TEST_EXAMPLES", 50)
        store = RunStore(tmp_path_factory.mktemp("store"))
        for config in (WHOLE, first_part(), inserted(), after_insertion()):
            execute(config, store)
        yield store


@pytest.mark.parametrize("kernel", ["auto", "torch", "stacked"])
@pytest.mark.parametrize("start", [1, 5])
def test_two_parts_of_a_training_are_the_whole_bit_for_bit(kernel, start, store):
    whole = dataclasses.replace(WHOLE, train=dataclasses.replace(TRAIN, kernel=kernel))
    execute(first_part(whole, start), store)
    once, twice = execute(whole, store), execute(rest(whole, start), store)
    assert torch.equal(load_model(twice).flat, load_model(once).flat)
    assert twice.summary["loss_nats"] == once.summary["loss_nats"]
    histories = [run.history().query(f"split == 'validation' and step > {start}") for run in (once, twice)]
    scores = [table[["step", "loss_nats", "accuracy"]].reset_index(drop=True) for table in histories]
    assert len(scores[0])
    assert scores[0].equals(scores[1])
    assert twice.history()["step"].min() == start == min(twice.steps)


def test_an_insertion_of_no_steps_is_the_whole_training(store):
    """What is put back and what goes through is then the same, whoever gives it."""
    one = first_part().run_id
    config = rest(
        parents=(Parent(run=one), Parent(run=one)),
        transfer=dataclasses.replace(RETAIN, overlap="later_wins", positions_parent=1),
    )
    assert torch.equal(load_model(execute(config, store)).flat, load_model(store.open(WHOLE.run_id)).flat)


def test_a_fresh_optimiser_is_another_run(store):
    config = rest(optimiser="fresh")
    assert config.run_id != rest().run_id
    fresh = execute(config, store)
    assert torch.equal(load_model(fresh, 5).flat, load_model(store.open(first_part().run_id)).flat)
    assert not torch.equal(load_model(fresh).flat, load_model(store.open(WHOLE.run_id)).flat)


def test_each_weight_comes_from_its_parent_and_its_moments_with_it(store):
    run = store.open(after_insertion().run_id)
    start, part, phase1 = load_model(run, 5), *(load_model(store.open(c.run_id)) for c in (first_part(), inserted()))
    for name in ("W_Q", "W_pos"):
        assert torch.equal(getattr(start, name), getattr(phase1, name)), name
    for name in ("W_in", "W_E", "W_U"):
        assert torch.equal(getattr(start, name), getattr(part, name)), name
    config = after_insertion().resolve()
    model = fresh_model(config)
    moments = carried_moments(config, model, store)
    kept = [kept_state(store.open(parent.run))[0] for parent in config.parents]
    for part in PARTS:
        for name, (offset, shape) in model.slices.items():
            found = moments[part][offset : offset + shape.numel()].view(shape)
            comes_from = kept["attn" in name or "pos" in name]
            assert torch.equal(found, comes_from[part][name]), (part, name)
    # Five steps of the first part, and three more with what went through.
    assert set(moments["step"].tolist()) == {5.0, 8.0}
    assert kept[1]["step"]["embed.W_E"].unique().tolist() == [3.0]


def test_moments_of_what_is_not_carried_are_fresh(store):
    config = dataclasses.replace(
        WHOLE, parents=(Parent(run=inserted().run_id, selector="mlp"),), optimiser="carried"
    ).resolve()
    model = fresh_model(config)
    moments = carried_moments(config, model, store)
    for name, (offset, shape) in model.slices.items():
        is_carried = "mlp" in name or "pos" in name  # embeddings are averaged
        assert bool(moments["exp_avg_sq"][offset : offset + shape.numel()].any()) is is_carried, name


def test_what_is_frozen_keeps_its_bits_whatever_its_momentum_was(store):
    frozen = dataclasses.replace(TRAIN, steps=2, freeze="mlp")
    config = dataclasses.replace(
        WHOLE, train=frozen, parents=(Parent(run=first_part().run_id),), transfer=RETAIN, optimiser="carried"
    )
    before, after = load_model(store.open(first_part().run_id)), load_model(execute(config, store))
    assert torch.equal(after.W_in, before.W_in)
    assert not torch.equal(after.W_Q, before.W_Q)


@pytest.mark.parametrize("config", [inserted(), after_insertion(), rest()], ids=["inserted", "after", "rest"])
def test_each_part_of_a_chain_goes_on_bit_for_bit(config, store, tmp_path):
    whole, partial, steps = execute(config, store), RunStore(tmp_path), []
    for parent in (first_part(), inserted()):
        execute(parent, partial)
    if config == inserted():
        partial.delete(config.run_id)
    with pytest.raises(Interrupted):
        execute(config, partial, on_step=lambda s, t: steps.append(s.step), should_stop=lambda: len(steps) == 2)
    run = execute(config, partial, on_step=lambda s, t: steps.append(s.step))
    assert steps == list(range(config.train.start_at + 1, config.train.last_step + 1))
    assert torch.equal(load_model(run).flat, load_model(whole).flat)
    assert run.history().drop(columns="seconds").equals(whole.history().drop(columns="seconds"))
    if config.train.keep_optimiser:
        assert run.read("optimiser.safetensors") == whole.read("optimiser.safetensors")


def test_a_run_that_ends_before_its_first_step_keeps_its_weights(store):
    train = dataclasses.replace(TRAIN, target_accuracy=1e-9, checkpoints=1)
    parent = inserted()
    config = dataclasses.replace(parent, train=train, parents=(Parent(run=parent.run_id),), transfer=RETAIN)
    run = execute(config, store)
    assert (run.summary["steps"], run.steps) == (0, [0])
    assert torch.equal(load_model(run).flat, load_model(store.open(parent.run_id)).flat)


def test_defaults_and_what_is_kept_name_no_other_run():
    assert first_part().run_id == dataclasses.replace(WHOLE, train=dataclasses.replace(TRAIN, stop_after=5)).run_id
    alone = dataclasses.replace(WHOLE, optimiser="carried")  # without parents there is nothing to carry
    assert alone.run_id == WHOLE.run_id
    same = dataclasses.replace(rest(), transfer=dataclasses.replace(RETAIN, positions_parent=0))
    assert same.run_id == rest().run_id


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: dataclasses.replace(TRAIN, start_at=8), "start_at=8; it must be from 0 to below the last step, 8"),
        (lambda: dataclasses.replace(TRAIN, start_at=2, curriculum=True), "start_at=2 with a curriculum"),
        (
            lambda: dataclasses.replace(TRAIN, start_at=2, interventions=(TensorScale(selector="attn", rms=()),)),
            "start_at=2 with tensor_scale, which takes the weights at the start",
        ),
        (
            lambda: dataclasses.replace(TRAIN, start_at=2, interventions=(Rewind(selector="attn", steps=(3,)),)),
            "start_at=2 with rewind",
        ),
        (
            lambda: dataclasses.replace(WHOLE, train=dataclasses.replace(TRAIN, start_at=2)),
            "start_at=2 without parents",
        ),
        (
            lambda: rest(parents=(Parent(run="a", ablation=Noise(noise_std=1.0)),)),
            "optimiser=carried with damaged weights of run a",
        ),
        (lambda: rest(parents=(Parent(run="a", step=2),)), "optimiser=carried with the weights of step 2 of run a"),
    ],
)
def test_what_cannot_be_is_one_line(make, text):
    with pytest.raises(ValueError, match=text):
        make()


def test_a_rate_by_step_is_no_hindrance():
    dataclasses.replace(TRAIN, start_at=2, interventions=(Rate(selector="attn", learning_rate_factor=0.5),))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"parents": (Parent(run=WHOLE.run_id),)}, "start_at=5, but run .* ended at step 8"),
        ({"seed": 6}, "has seed 5, and this run 6; the batches would be others"),
        ({"task": TASKS.build("sorting")}, "has task .*haystack"),
        ({"train": dataclasses.replace(rest().train, batch_size=4)}, "has train.batch_size 8, and this run 4"),
        (
            {"parents": (Parent(run=WHOLE.run_id),), "train": TRAIN},
            "keeps no optimiser state to be carried on",
        ),
        (
            {"transfer": dataclasses.replace(RETAIN, positions_parent=1)},
            "positions_parent=1; there are 1 parents, counted from 0",
        ),
    ],
)
def test_what_the_store_does_not_have_is_one_line(change, text, store):
    config = dataclasses.replace(rest(), **change)
    with pytest.raises(ValueError, match=text):
        execute(config, store)
    assert config.run_id not in set(store.query()["run"])


def test_a_stack_has_one_number_of_steps_per_run(store):
    config = after_insertion()
    with pytest.raises(ValueError, match=r"parts have taken \[5, 8\] steps; the stacked kernel"):
        execute(dataclasses.replace(config, train=dataclasses.replace(config.train, kernel="stacked")), store)


def test_a_file_of_another_origin_is_no_state(store, tmp_path):
    run = store.open(first_part().run_id)
    other = RunStore(tmp_path)
    with other.claim(run.id) as partial:
        assert partial is not None
        partial.write_config((run.folder / "config.yaml").read_text())
        partial.write_json("environment.json", {})
        partial.write_table("history", run.history())
        partial.write_optimiser(run.weights_path().read_bytes())
        opened = partial.finish(run.summary)
    with pytest.raises(ValueError, match=r"optimiser.safetensors is no state of an optimiser"):
        kept_state(opened)


def test_the_moments_of_a_chain_are_those_of_all_its_phases(store):
    run = store.open(after_insertion().run_id)
    first, phase1 = (store.open(each.run_id) for each in (first_part(), inserted()))
    found = kept_steps(run, store)
    assert found == moments(run, store)  # it kept the step from which it went on
    places = [(1, first.id, step) for step in first.steps] + [(2, phase1.id, step) for step in phase1.steps]
    places += [(3, run.id, step) for step in run.steps]
    assert [(each.phase, each.source.id, each.step) for each in found] == places
    for each in found:
        assert torch.equal(each.model(store).flat, load_model(each.source, each.step).flat)
    stage = {name: at_stage(run, store, name) for name in ("phase1", "transplanted", "finished")}
    assert torch.equal(stage["phase1"].model(store).flat, load_model(phase1).flat)
    assert torch.equal(stage["transplanted"].model(store).flat, load_model(run, 5).flat)
    assert [each.when for each in stage.values()] == ["after phase 2", "before phase 3, transplanted", "after phase 3"]


def test_all_phases_of_a_chain_are_on_one_axis(store):
    run = store.open(after_insertion().run_id)
    table = over_training([run], store, lambda model, batch, task: pd.DataFrame({"value": [0.0]}), label="x")
    ends = table.groupby("phase")["axis_step"].agg(["min", "max"])
    # Five steps of phase 2, three of phase 1, and three of phase 2.
    assert ends.to_numpy().tolist() == [[0, 5], [5, 8], [8, 11]]


def test_a_chain_with_a_cycle_is_damage(store, tmp_path):
    run, other = store.open(inserted().run_id), RunStore(tmp_path)
    for name, parent in ((run.id, "b" * 16), ("b" * 16, run.id)):
        with other.claim(name) as partial:
            assert partial is not None
            partial.write_config(yaml.safe_dump({**run.config, "parents": [{"run": parent}]}))
            partial.write_json("environment.json", {})
            partial.write_table("history", run.history())
            partial.finish(run.summary)
    with pytest.raises(DamagedRun, match=f"its parents lead back to run {run.id}"):
        kept_steps(other.open(run.id), other)


def test_the_lineage_says_whose_state_it_is_and_from_where_it_goes_on(store):
    runs = [store.open(config.run_id) for config in (after_insertion(), WHOLE)]
    table = lineage(runs)
    assert table["goes on from step"].tolist() == ["5", "5", ""]
    assert table["optimiser"].tolist() == ["carried", "carried", "fresh"]
    assert {"optimiser", "goes on from step"}.isdisjoint(lineage(runs[1:]))
    whole, untrained = (
        dataclasses.replace(runs[1], config={**runs[1].config, "parents": [{"run": "a" * 16, **step}]})
        for step in ({}, {"step": 0})
    )
    assert lineage([whole, untrained])["step"].tolist() == ["final", "0"]
    assert "goes on from step 5 of the first of them" in str(runs[0])
    assert "with their optimiser's state" in str(runs[0])

"""Runs end to end: what is part of a run's identity, what is computed once, what is refused."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from procpre_interp import load_history, load_model
from procpre_interp.ablate import ABLATIONS, ShuffleWithinTensors
from procpre_interp.core.config import from_yaml, to_dict, to_yaml
from procpre_interp.data import TASKS
from procpre_interp.model import save_weights
from procpre_interp.pipeline.config import Architecture, Parent, RunConfig
from procpre_interp.pipeline.execute import execute, load_donor, load_task
from procpre_interp.pipeline.lineage import at_stage, starting_model
from procpre_interp.store.store import DamagedRun, RunStore
from procpre_interp.train import Interrupted, TrainConfig, evaluate, summarise
from procpre_interp.transfer import TransferConfig
from tests import small_draws

ROOT = Path(__file__).parents[1]
SHAPE = Architecture(n_layers=2, n_heads=2, d_model=8)
TRAIN = TrainConfig(steps=12, batch_size=8, learning_rate=1e-2, warmup_steps=2, evaluate_every=4, evaluate_examples=32)
PHASE1 = RunConfig(
    task=TASKS.build("dyck", k=2, length=64), seed=3, model=dataclasses.replace(SHAPE, tied=True), train=TRAIN
)
PHASE2 = RunConfig(task=TASKS.build("haystack"), seed=3, model=dataclasses.replace(SHAPE, n_ctx=64), train=TRAIN)


def child(**parent) -> RunConfig:
    return dataclasses.replace(PHASE2, parents=(Parent(run=PHASE1.run_id, **parent),))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = RunStore(tmp_path_factory.mktemp("store"))
    execute(dataclasses.replace(PHASE1, train=dataclasses.replace(TRAIN, checkpoints=2)), store)
    execute(PHASE1, store)
    return store


def test_a_run_is_whole(store):
    run = store.open(PHASE1.run_id)
    assert run.summary["status"] == "finished"
    assert run.summary["steps"] == run.steps[-1] == 12
    assert from_yaml(RunConfig, (run.folder / "config.yaml").read_text()).run_id == run.id
    history = load_history(run)
    assert history.loc[history.split == "validation", "step"].tolist() == [0, 4, 8, 12]
    assert set(history.run) == {run.id}
    model = load_model(run)
    assert not model.training
    batch = TASKS.build("dyck", k=2, length=64).batch(50, generator=torch.Generator())
    assert model(batch.tokens).shape == (50, 64, 5)
    assert load_task(run) == PHASE1.task
    examples = run.examples()
    assert summarise(examples)["accuracy"] == pytest.approx(run.summary["accuracy"])
    assert len(examples) == small_draws.SMALL[1]
    environment = json.loads((run.folder / "environment.json").read_text())
    assert environment["threads"] == 1
    assert environment["packages"]["torch"]
    assert run.summary["kernel"] == environment["kernel"] == "torch"
    assert "d_model=8" in environment["kernel_note"]


def test_how_much_users_draw_at_once_is_part_of_every_stored_number():
    assert small_draws.LARGE == (2**20, 4000)


def test_the_stored_weights_give_the_stored_score(store):
    run = store.open(PHASE1.run_id)
    from procpre_interp.pipeline.execute import TEST_EXAMPLES, held_out

    batch = held_out(PHASE1.task, "test", seed=3, n=TEST_EXAMPLES)
    assert summarise(evaluate(load_model(run), batch))["loss_nats"] == pytest.approx(run.summary["loss_nats"])


def test_a_finished_run_is_opened_not_repeated(store):
    def never(state, train):
        raise AssertionError("computed again")

    assert execute(PHASE1, store, on_step=never).id == PHASE1.run_id


def test_identity_is_what_changes_the_numbers():
    same = [
        dataclasses.replace(PHASE1, train=dataclasses.replace(TRAIN, save_seconds=1.0)),
        dataclasses.replace(PHASE1, train=dataclasses.replace(TRAIN, micro_batch_tokens=2**14)),  # what it resolves to
        dataclasses.replace(PHASE1, transfer=TransferConfig(positions="fresh")),  # no parents, no effect
        dataclasses.replace(PHASE1, model=dataclasses.replace(PHASE1.model, d_mlp=32, n_ctx=64)),  # the defaults
        from_yaml(RunConfig, to_yaml(PHASE1)),
    ]
    assert child(selector="attn + ln").run_id == child(selector="attn,ln").run_id
    assert {config.run_id for config in same} == {PHASE1.run_id}
    other = [
        dataclasses.replace(PHASE1, seed=4),
        dataclasses.replace(PHASE1, train=dataclasses.replace(TRAIN, threads=2)),
        dataclasses.replace(PHASE1, train=dataclasses.replace(TRAIN, evaluate_every=6)),
        dataclasses.replace(PHASE1, train=dataclasses.replace(TRAIN, learning_rate=2e-2)),
        dataclasses.replace(PHASE1, task=TASKS.build("dyck", k=3, length=64)),
        child(),
        child(selector="attn"),
        child(ablation=ShuffleWithinTensors()),
        dataclasses.replace(child(), transfer=TransferConfig(positions="fresh")),
    ]
    assert len({config.run_id for config in [PHASE1, *other]}) == len(other) + 1


def test_conditions_of_a_replicate_share_data_and_fresh_weights(store):
    fresh = execute(dataclasses.replace(PHASE2, train=dataclasses.replace(TRAIN, checkpoints=2)), store)
    attention = execute(
        dataclasses.replace(child(selector="attn"), train=dataclasses.replace(TRAIN, checkpoints=2)), store
    )
    one, other = (dict(load_model(run, step=0).named_parameters()) for run in (fresh, attention))
    assert torch.equal(one["blocks.0.mlp.W_in"], other["blocks.0.mlp.W_in"])
    parent = dict(load_model(store.open(PHASE1.run_id)).named_parameters())
    assert torch.equal(other["blocks.0.attn.W_Q"], parent["blocks.0.attn.W_Q"])
    assert not torch.equal(one["blocks.0.attn.W_Q"], other["blocks.0.attn.W_Q"])
    assert torch.equal(other["pos_embed.W_pos"], parent["pos_embed.W_pos"][:64])
    assert attention.summary["positions_carried"] is True
    assert attention.summary["parents"] == (PHASE1.run_id,)
    same = ["example", "length", "n_scored"]
    assert fresh.examples()[same].equals(attention.examples()[same])


def test_damage_comes_from_the_childs_seed_and_spares_the_parent(store):
    parent = Parent(run=PHASE1.run_id, ablation=ShuffleWithinTensors())
    intact = load_donor(Parent(run=PHASE1.run_id), store, seed=3).weights
    damaged = load_donor(parent, store, seed=3).weights
    again = load_donor(parent, store, seed=3).weights
    other = load_donor(parent, store, seed=4).weights
    name = "blocks.0.mlp.W_in"
    assert torch.equal(damaged[name], again[name])
    assert not torch.equal(damaged[name], other[name])
    assert not torch.equal(damaged[name], intact[name])
    assert torch.equal(damaged["pos_embed.W_pos"], intact["pos_embed.W_pos"])
    store.open(PHASE1.run_id)  # its hashes still hold


@pytest.mark.parametrize("name", list(ABLATIONS))
def test_each_damaged_parent_has_a_draw_of_its_own(name, store):
    """Parents of one run, damaged alike: only the first has the numbers that an only parent has."""
    dose = {"noise": {"noise_std": 0.5}, "low_rank_mlp": {"rank": 2}, "without_strongest": {"share": 0.25}}.get(
        name, {}
    )
    damaged = Parent(run=PHASE1.run_id, ablation=ABLATIONS.build(name, **dose))
    config = dataclasses.replace(PHASE2, parents=(damaged, dataclasses.replace(damaged, selector="mlp"))).resolve()
    assert [parent.place for parent in config.parents] == [0, 1]
    first, second = (load_donor(parent, store, seed=3).weights for parent in config.parents)
    alone = load_donor(damaged, store, seed=3).weights
    assert all(torch.equal(first[key], alone[key]) for key in alone)
    other_seed = load_donor(damaged, store, seed=4).weights
    draws = any(not torch.equal(alone[key], other_seed[key]) for key in alone)
    assert draws == any(not torch.equal(first[key], second[key]) for key in alone)


def test_noise_on_two_parents_is_independent(store):
    noises = {part: ABLATIONS.build("noise", noise_std=1.0, selector=part) for part in ("attn", "mlp")}
    parents = tuple(Parent(run=PHASE1.run_id, selector=part, ablation=noise) for part, noise in noises.items())
    intact = load_donor(Parent(run=PHASE1.run_id), store, seed=3).weights
    resolved = dataclasses.replace(PHASE2, parents=parents).resolve().parents
    first, second = (load_donor(parent, store, seed=3).weights for parent in resolved)
    a = (first["blocks.0.attn.W_Q"] - intact["blocks.0.attn.W_Q"]).flatten()
    b = (second["blocks.0.mlp.W_in"] - intact["blocks.0.mlp.W_in"]).flatten()
    n = min(len(a), len(b))
    assert abs(float(torch.corrcoef(torch.stack([a[:n], b[:n]]))[0, 1])) < 0.4


def test_a_second_damaged_parent_renames_the_run_and_nothing_else_does():
    """Runs stored before parents had draws of their own keep their ids, but for those whose numbers are now others."""
    noise = ABLATIONS.build("noise", noise_std=1.0)
    plain, damaged = Parent(run="a" * 16, selector="attn"), Parent(run="b" * 16, selector="mlp", ablation=noise)

    def hashed(*parents: Parent) -> str:
        return json.dumps(to_dict(dataclasses.replace(PHASE2, parents=parents).resolve(), hashed_only=True))

    assert "place" not in hashed(damaged, plain)
    assert "place" not in hashed(plain, plain)
    assert "overlap" not in hashed(plain, plain)
    assert hashed(plain, damaged).count('"place": 1') == 1
    later = TransferConfig(overlap="later_wins")
    assert dataclasses.replace(child(), transfer=later).run_id == child().run_id


def test_overlapping_parents_are_refused_before_the_store_knows_of_the_run(store, tmp_path):
    parents = tuple(Parent(run=PHASE1.run_id, selector=selector) for selector in ("attn+ln", "mlp+ln"))
    config = dataclasses.replace(PHASE2, parents=parents)
    with pytest.raises(ValueError, match=r"parent 0 \(attn\+ln\) and parent 1 \(mlp\+ln\) both give ln;"):
        execute(config, store)
    assert not store.is_finished(config.run_id)
    assert not (store.path / "partial" / config.run_id).exists()
    asked = dataclasses.replace(config, transfer=TransferConfig(overlap="later_wins"))
    assert asked.run_id != config.run_id
    run = execute(asked, store)
    assert at_stage(run, store, "transplanted").model(store).flat.shape == load_model(run).flat.shape


def test_a_stored_run_whose_parents_overlap_still_opens(store):
    """As one from before overlaps were refused: its config asks for no order."""
    parents = tuple(Parent(run=PHASE1.run_id, selector="attn") for _ in range(2))
    config = dataclasses.replace(PHASE2, parents=parents)
    asked = execute(dataclasses.replace(config, transfer=TransferConfig(overlap="later_wins")), store)
    with store.claim(config.run_id) as partial:
        assert partial is not None
        partial.write_config(to_yaml(config.resolve()))
        partial.write_json("environment.json", {})
        save_weights(load_model(asked), partial.weights_path(12))
        partial.finish(asked.summary)
    run = store.open(config.run_id)
    assert execute(config, store).id == run.id
    found = at_stage(run, store, "transplanted").model(store)
    assert torch.equal(found.flat, at_stage(asked, store, "transplanted").model(store).flat)
    assert torch.equal(starting_model(run, store).flat, found.flat)


def test_a_checkpoint_can_be_a_parent(store):
    early = dataclasses.replace(PHASE1, train=dataclasses.replace(TRAIN, checkpoints=2))
    weights = load_donor(Parent(run=early.run_id, step=1), store, seed=0).weights
    assert not torch.equal(
        weights["embed.W_E"], load_donor(Parent(run=early.run_id), store, seed=0).weights["embed.W_E"]
    )
    with pytest.raises(ValueError, match=r"keeps no weights of step 5; there are: \[0, 1, 12\]"):
        load_donor(Parent(run=early.run_id, step=5), store, seed=0)


def test_a_diverged_run_is_a_finished_result(tmp_path):
    store = RunStore(tmp_path)
    wild = dataclasses.replace(TRAIN, learning_rate=1e5, clip_norm=None, warmup_steps=0, steps=100)
    config = dataclasses.replace(PHASE2, train=wild)
    run = execute(config, store)
    assert run.summary["status"] == "diverged"
    assert run.summary["accuracy"] is None
    assert store.is_finished(config.run_id)
    with pytest.raises(ValueError, match="diverged; a parent must have finished"):
        execute(dataclasses.replace(PHASE2, parents=(Parent(run=run.id),)), store)


def test_missing_and_damaged_parents_are_refused(tmp_path):
    store = RunStore(tmp_path)
    with pytest.raises(ValueError, match=f"no run '{PHASE1.run_id}'"):
        execute(child(), store)
    run = execute(PHASE1, store)
    path = run.weights_path()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedRun, match="weights/step_00000012.safetensors"):
        execute(child(), store)


def test_too_long_for_the_context_is_refused_before_any_work():
    with pytest.raises(ValueError, match="sequences of 63 tokens are longer than the context n_ctx=32"):
        dataclasses.replace(PHASE2, model=dataclasses.replace(SHAPE, n_ctx=32))


def test_an_unknown_device_is_one_line(tmp_path):
    config = dataclasses.replace(PHASE2, train=dataclasses.replace(TRAIN, device="cuda:77"))
    with pytest.raises(ValueError, match="device 'cuda:77' cannot be used"):
        execute(config, RunStore(tmp_path))


def test_an_interrupted_run_ends_bit_identical(tmp_path, store):
    whole = execute(child(), store)
    partial = RunStore(tmp_path)
    execute(PHASE1, partial)
    steps = []
    with pytest.raises(Interrupted):
        execute(child(), partial, on_step=lambda s, t: steps.append(s.step), should_stop=lambda: len(steps) == 5)
    assert partial.query(status="interrupted")["run"].tolist() == [child().run_id]
    run = execute(child(), partial, on_step=lambda s, t: steps.append(s.step))
    assert steps[5] == 6
    assert torch.equal(load_model(run).flat, load_model(whole).flat)
    assert run.history().drop(columns="seconds").equals(whole.history().drop(columns="seconds"))
    assert run.examples().equals(whole.examples())


def test_the_machines_of_all_sittings_are_kept(tmp_path, store, monkeypatch):
    alone = execute(child(), store)
    assert "earlier" not in alone.environment
    moved, steps = RunStore(tmp_path), []
    execute(PHASE1, moved)
    for cpu, most in (("A", 3), ("A", 5), ("B", 7), ("C", 100)):
        monkeypatch.setattr("procpre_interp.core.environment._cpu_model", lambda cpu=cpu: cpu)
        with contextlib.suppress(Interrupted):
            execute(
                child(),
                moved,
                on_step=lambda s, t: steps.append(s.step),
                should_stop=lambda most=most: len(steps) >= most,
            )
    run = moved.open(child().run_id)
    assert run.environment["cpu"] == "C"
    earlier = run.environment["earlier"]
    assert [sitting["cpu"] for sitting in earlier] == ["A", "B"]
    assert {**earlier[0], "cpu": "C"} == {name: run.environment[name] for name in earlier[0]}


VICTIM = """
import sys
from tests.small_draws import SMALL, set_draws
set_draws(*SMALL)
from procpre_interp.pipeline.execute import RunConfig, execute
from procpre_interp.core.config import from_yaml
from procpre_interp.store.store import RunStore
print("ready", flush=True)
execute(from_yaml(RunConfig, open(sys.argv[1]).read()), RunStore(sys.argv[2]))
"""


def test_kill_9_loses_no_more_than_the_last_saved_state(tmp_path):
    train = dataclasses.replace(TRAIN, steps=200, save_seconds=0.0, evaluate_every=100)
    config = dataclasses.replace(PHASE2, train=train)
    expected = execute(config, RunStore(tmp_path / "whole"))
    killed = RunStore(tmp_path / "killed")
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    command = [sys.executable, "-c", VICTIM, str(tmp_path / "config.yaml"), str(killed.path)]
    victim = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=ROOT)
    saved = killed.path / "partial" / config.run_id / "resume.safetensors"
    limit = time.monotonic() + 60
    while not saved.exists() and time.monotonic() < limit:
        time.sleep(0.005)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert saved.exists()
    assert killed.query()["status"].tolist() == ["interrupted"]
    first_steps = []
    run = execute(config, killed, on_step=lambda s, t: first_steps.append(s.step))
    assert first_steps[0] > 1, "nothing was resumed"
    assert torch.equal(load_model(run).flat, load_model(expected).flat)


def test_two_processes_that_want_the_same_run_compute_it_once(tmp_path):
    train = dataclasses.replace(TRAIN, steps=50, evaluate_every=50)
    config = dataclasses.replace(PHASE2, train=train)
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    command = [sys.executable, "-c", VICTIM, str(tmp_path / "config.yaml"), str(tmp_path / "store")]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    table = RunStore(tmp_path / "store").query()
    assert table["status"].tolist() == ["finished"]


def test_a_run_that_is_stopped_says_up_to_where_it_was_seen(tmp_path, monkeypatch):
    stopped = dataclasses.replace(PHASE2, train=dataclasses.replace(TRAIN, stop_after=7))
    same = dataclasses.replace(PHASE2, train=dataclasses.replace(TRAIN, stop_after=TRAIN.steps))
    assert same.run_id == PHASE2.run_id != stopped.run_id
    assert "stop_after" not in to_yaml(PHASE2)
    run = execute(stopped, RunStore(tmp_path))
    assert (run.summary["steps"], run.summary["breakthrough_limit"], run.steps) == (7, 7, [7])
    diverging = dataclasses.replace(stopped.train, learning_rate=1e6, clip_norm=None, warmup_steps=0, evaluate_every=1)
    run = execute(dataclasses.replace(stopped, train=diverging), RunStore(tmp_path))
    assert (run.summary["status"], run.summary["breakthrough_limit"]) == ("diverged", 7)
    # Ended at the breakthrough, it was seen to the end: others that go on are not cut off where it stopped.
    easy = dataclasses.replace(PHASE1, train=dataclasses.replace(TRAIN, stop_after=11, target_accuracy=0.01))
    monkeypatch.setattr(type(easy.task), "breakthrough_accuracy", 0.01)
    run = execute(easy, RunStore(tmp_path))
    assert run.summary["steps"] == run.summary["breakthrough_step"] < run.summary["breakthrough_limit"] == 11

"""Training with the native kernel: the same course as with torch, and everything that a run promises."""

import dataclasses

import pandas as pd
import pytest
import torch

from procpre_interp.data import TASKS, Task
from procpre_interp.model import HookedTransformer, ModelConfig, flat_mask
from procpre_interp.pipeline.config import Architecture, RunConfig
from procpre_interp.pipeline.execute import execute, held_out, load_model
from procpre_interp.store.store import RunStore
from procpre_interp.train import Interrupted, TrainConfig, Trainer, evaluate, native

pytestmark = pytest.mark.usefixtures("a_compiler")

TRAIN = TrainConfig(
    steps=50,
    batch_size=16,
    learning_rate=5e-3,
    warmup_steps=5,
    evaluate_every=10,
    evaluate_examples=16,
    kernel="native",
)
DYCK = TASKS.build("dyck", k=4, length=24)
HAYSTACK = TASKS.build("haystack")


def fresh(task: Task, *, tied: bool = False, d_model: int = 16) -> HookedTransformer:
    config = ModelConfig(
        n_layers=2, n_heads=4, d_model=d_model, n_ctx=task.model_n_ctx, d_vocab=task.d_vocab, tied=tied
    )
    return HookedTransformer.from_seed(config, 0)


def losses(task: Task, train: TrainConfig, *, tied: bool) -> list[float]:
    """Training loss of each step, in nats."""
    trainer, seen = Trainer(fresh(task, tied=tied), task, train, seed=0), []
    for _ in range(train.steps):
        before = trainer.state.train_loss
        trainer.take_step()
        seen.append(trainer.state.train_loss - before)
    return seen


@pytest.mark.parametrize(("task", "tied"), [(HAYSTACK, False), (DYCK, True)], ids=["one answer", "every token, tied"])
def test_fifty_steps_agree_with_torch(task, tied):
    native = losses(task, TRAIN, tied=tied)
    plain = losses(task, dataclasses.replace(TRAIN, kernel="torch"), tied=tied)
    assert native == pytest.approx(plain, abs=1e-4)
    assert native[-1] < native[0]


def test_two_threads_repeat_their_bits():
    train = dataclasses.replace(TRAIN, threads=2)
    assert losses(DYCK, train, tied=True) == losses(DYCK, train, tied=True)


def test_frozen_components_keep_their_bits():
    model = fresh(DYCK)
    before, frozen = model.flat.clone(), flat_mask(model, "blocks.0.attn.head.1 + mlp")
    Trainer(model, DYCK, dataclasses.replace(TRAIN, freeze="blocks.0.attn.head.1 + mlp"), seed=0).run()
    assert torch.equal(model.flat[frozen], before[frozen])
    assert (model.flat[~frozen] != before[~frozen]).float().mean() > 0.9


def test_a_cache_sees_the_weights_without_a_copy():
    model = fresh(DYCK)
    home = model.flat.data_ptr()
    tokens = DYCK.batch(2, generator=torch.Generator()).tokens
    _, before = model.run_with_cache(tokens)
    Trainer(model, DYCK, dataclasses.replace(TRAIN, steps=3), seed=0).run()
    _, after = model.run_with_cache(tokens)
    assert model.flat.data_ptr() == home
    assert not torch.equal(before["pattern", 1], after["pattern", 1])


def test_a_stopped_run_goes_on_bit_for_bit(tmp_path):
    whole = fresh(DYCK)
    Trainer(whole, DYCK, TRAIN, seed=0).run()
    parts, stopped = fresh(DYCK), tmp_path / "state"
    trainer = Trainer(parts, DYCK, TRAIN, seed=0, state_path=stopped, should_stop=lambda: trainer.state.step >= 17)
    with pytest.raises(Interrupted):
        trainer.run()
    again = fresh(DYCK)
    Trainer(again, DYCK, TRAIN, seed=0, state_path=stopped).run()
    assert torch.equal(again.flat, whole.flat)


def test_divergence_is_noticed():
    model = fresh(DYCK)
    state = Trainer(model, DYCK, dataclasses.replace(TRAIN, learning_rate=1e30, clip_norm=None), seed=0).run()
    assert state.status == "diverged"


def config(**train: object) -> RunConfig:
    short = dataclasses.replace(TRAIN, steps=4, kernel="auto")
    return RunConfig(task=DYCK, model=Architecture(), train=dataclasses.replace(short, **train))


def test_the_kernel_is_part_of_the_identity(tmp_path):
    run = execute(config(), RunStore(tmp_path))
    assert run.summary["kernel"] == run.config["train"]["kernel"] == run.environment["kernel"] == "native"
    assert run.environment["kernel_note"] is None
    assert config().run_id == config(kernel="native").run_id != config(kernel="torch").run_id
    # What the native kernel ignores is no part of it.
    assert config().run_id == config(micro_batch_tokens=64).run_id
    assert config(kernel="torch").run_id != config(kernel="torch", micro_batch_tokens=64).run_id
    resolved = config().resolve()
    assert resolved == resolved.resolve()


def test_versions_of_the_kernel_are_runs_of_their_own(tmp_path, monkeypatch):
    """A stored run keeps the id of the version that computed it, and opens; the same command makes another one now."""
    store = RunStore(tmp_path)
    with monkeypatch.context() as before:
        before.setattr(native, "VERSION", None)
        old = execute(config(), store)
        torch_id = config(kernel="torch").run_id
    assert "kernel_version" not in old.config["train"]
    new = execute(config(), store)
    assert new.config["train"]["kernel_version"] == native.VERSION
    assert new.id != old.id == store.open(old.id).id
    assert load_model(old).flat.isfinite().all()
    assert config(kernel_version=native.VERSION).run_id == new.id
    assert config(kernel="torch").run_id == torch_id
    for wrong in ({"kernel_version": 1}, {"kernel": "torch", "kernel_version": 2}):
        with pytest.raises(ValueError, match="cannot be had: only the native kernel has versions"):
            execute(config(**wrong), store)


def test_the_kernel_evaluates_and_tests_its_runs(tmp_path, monkeypatch):
    """The scores in history and table of examples are those of torch within rounding, and torch is not asked."""
    asked = []
    monkeypatch.setattr(HookedTransformer, "forward", lambda *_, **__: asked.append("torch"))
    run = execute(config(), RunStore(tmp_path))
    assert not asked
    monkeypatch.undo()
    examples = run.examples()
    expected = evaluate(load_model(run), held_out(DYCK, "test", seed=0, n=len(examples)))
    pd.testing.assert_frame_equal(examples[expected.columns], expected, rtol=1e-4, check_dtype=False)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model": Architecture(d_model=48)}, "d_model=48"),
        ({"model": Architecture(d_mlp=50)}, "d_mlp=50"),
        ({"train": dataclasses.replace(TRAIN, kernel="auto", precision="bfloat16")}, "precision=bfloat16"),
        ({"train": dataclasses.replace(TRAIN, kernel="auto", device="cuda")}, "device=cuda"),
    ],
)
def test_auto_falls_back_to_torch_and_says_why(change, reason):
    wanted = dataclasses.replace(config(), **change)
    assert wanted.resolve().train.kernel == "torch"
    note = wanted.kernel_note
    assert note is not None
    assert note.startswith("kernel: torch, since ")
    assert reason in note
    assert "\n" not in note
    assert config().kernel_note is None


def test_without_a_compiler(tmp_path, monkeypatch):
    store = RunStore(tmp_path)
    finished = execute(config(), store)
    resolved = config().resolve()
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "no-such-compiler" in (config().kernel_note or "")
    assert config().resolve().train.kernel == "torch"
    # What was computed elsewhere opens; what was not is refused before the store knows of it.
    assert execute(resolved, store).id == finished.id
    with pytest.raises(ValueError, match="kernel=native cannot be had: no C\\+\\+ compiler.*use kernel=auto or torch"):
        execute(config(kernel="native", batch_size=3), store)
    assert len(store.query()) == 1
    assert load_model(finished).flat.isfinite().all()


def test_a_run_is_stopped_after_some_steps_of_its_schedule():
    whole, stopped = fresh(DYCK), fresh(DYCK)
    at = []
    whole_run = Trainer(whole, DYCK, TRAIN, seed=0)
    whole_run.on_step = lambda state: at.append(whole.flat.clone()) if state.step == 15 else None
    whole_run.run()
    state = Trainer(stopped, DYCK, dataclasses.replace(TRAIN, stop_after=15), seed=0).run()
    assert state.step == 15
    assert torch.equal(stopped.flat, at[0])

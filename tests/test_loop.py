"""The training loop: it learns as stored, resumes bit for bit, and ends when it should."""

import dataclasses
import errno
import math
import os
import re
import signal

import pytest
import torch
import torch.nn.functional as F

from procpre_interp.core.config import content_hash
from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS
from procpre_interp.model import HookedTransformer, ModelConfig, flat_mask
from procpre_interp.model.huggingface import to_huggingface
from procpre_interp.train import Interrupted, TrainConfig, Trainer
from procpre_interp.train.interventions import EntropyPenalty, Rate
from procpre_interp.train.loop import next_length

TASK = TASKS.build("dyck", k=2, length=8)
SMALL = TrainConfig(
    steps=30, batch_size=16, learning_rate=1e-2, warmup_steps=5, evaluate_every=10, evaluate_examples=64
)


def fresh_model(task=TASK) -> HookedTransformer:
    config = ModelConfig(n_layers=2, n_heads=2, d_model=8, n_ctx=task.n_ctx, d_vocab=task.d_vocab)
    return HookedTransformer.from_seed(config, 0)


def trainer(config=SMALL, model=None, task=TASK, **kwargs) -> Trainer:
    return Trainer(model or fresh_model(task), task, config, seed=0, **kwargs)


GOLDEN_VALIDATION_LOSS = [1.6127, 1.3843, 1.2108, 1.1648]
"""Nats at steps 0, 10, 20, 30, as this code gave them when it was written and its gradients were checked."""


@pytest.mark.usefixtures("large_draws")
def test_golden_curve():
    state = trainer().run()
    table = state.table()
    losses = table.loc[table.split == "validation", "loss_nats"].tolist()
    assert losses == pytest.approx(GOLDEN_VALIDATION_LOSS, abs=2e-3)
    assert losses[0] == pytest.approx(math.log(TASK.d_vocab), abs=0.01)
    assert table.loc[table.split == "train", "step"].tolist() == [10, 20, 30]
    assert table.loc[table.split == "train", "tokens"].tolist() == [10 * 16 * 8, 20 * 16 * 8, 30 * 16 * 8]
    assert (state.status, state.stop_reason, state.step) == ("finished", "step limit", 30)


def test_thirty_steps_are_those_of_a_plain_loop_over_hugging_face():
    """The same batches through GPT2LMHeadModel, torch's AdamW and clip, written out: the loss curves agree."""
    config = dataclasses.replace(SMALL, weight_decay=0.1)
    model = to_huggingface(fresh_model()).train()
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2]
    vectors = [p for name, p in model.named_parameters() if p.ndim != 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=1e-2)
    mine = trainer(config)
    for step in range(30):
        batch = mine.stream.batch(step)
        logits = model(input_ids=batch.tokens).logits
        expected = F.cross_entropy(logits[batch.loss_mask], batch.targets[batch.loss_mask])
        optimiser.zero_grad()
        expected.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        rate = (step + 1) / 5 if step < 5 else (1 + math.cos(math.pi * (step - 5) / 25)) / 2
        for group in optimiser.param_groups:
            group["lr"] = 1e-2 * rate
        optimiser.step()
        before = mine.state.train_loss
        mine.take_step()
        assert mine.state.train_loss - before == pytest.approx(expected.item(), abs=1e-4), step


@pytest.mark.parametrize("stop_at", [1, 10, 17, 29])
def test_a_resumed_run_ends_bit_identical(tmp_path, stop_at):
    whole = fresh_model()
    expected = trainer(model=whole).run()
    path = tmp_path / "resume.safetensors"
    steps = []
    first = trainer(state_path=path, on_step=lambda s: steps.append(s.step), should_stop=lambda: len(steps) == stop_at)
    with pytest.raises(Interrupted):
        first.run()
    model = fresh_model()
    with torch.no_grad():
        model.flat.add_(1.0)  # the state, not the model that is passed, must decide
    second = trainer(model=model, state_path=path)
    assert second.state.step == stop_at
    state = second.run()
    assert torch.equal(model.flat, whole.flat)
    columns = ["step", "split", "loss_nats", "tokens"]
    assert state.table()[columns].equals(expected.table()[columns])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_step_and_saves(tmp_path, number):
    path = tmp_path / "resume.safetensors"
    handler = signal.getsignal(number)

    def send(state):
        if state.step == 7:
            os.kill(os.getpid(), number)

    with pytest.raises(Interrupted):
        trainer(state_path=path, on_step=send).run()
    assert signal.getsignal(number) is handler
    assert trainer(state_path=path).state.step in (7, 8)  # Python runs the handler at the next opportunity


def test_state_is_saved_while_running(tmp_path):
    path = tmp_path / "resume.safetensors"
    config = dataclasses.replace(SMALL, save_seconds=0.0)
    seen = []
    trainer(config, state_path=path, on_step=lambda s: seen.append(path.exists())).run()
    assert seen[0] is False
    assert all(seen[1:])


@pytest.mark.parametrize("error", [errno.EIO, errno.EMFILE, errno.EACCES, errno.ESTALE])
def test_a_state_that_cannot_be_read_now_is_kept(error, tmp_path, monkeypatch):
    path = tmp_path / "resume.safetensors"
    with pytest.raises(Interrupted):
        trainer(state_path=path, should_stop=lambda: True).run()

    def unreadable(path):
        raise OSError(error, os.strerror(error), str(path))

    with monkeypatch.context() as patched:
        patched.setattr("procpre_interp.train.state.read_regular", unreadable)
        with pytest.raises(OSError, match="and stays as it is; repeat the command"):
            trainer(state_path=path)
    assert trainer(state_path=path).state.step == 1


def test_a_damaged_state_starts_the_run_over_and_a_foreign_one_is_refused(tmp_path):
    path = tmp_path / "resume.safetensors"
    path.write_bytes(b"nonsense")
    notes: list[str] = []
    assert trainer(state_path=path, on_note=notes.append).state.step == 0
    (note,) = notes
    assert re.fullmatch(r"the saved state cannot be used \(resume.safetensors is not .*\): the run starts over", note)
    assert not path.exists()
    assert trainer(state_path=path, on_note=notes.append).state.step == 0
    assert notes == [note]
    other = TASKS.build("dyck", k=3, length=8)
    wrong = trainer(task=other, state_path=path)
    wrong.save()
    with pytest.raises(ValueError, match="state of another model"):
        trainer(state_path=path)


def test_a_diverging_run_ends_as_diverged():
    config = dataclasses.replace(SMALL, learning_rate=1e4, warmup_steps=0, clip_norm=None, steps=200)
    state = trainer(config).run()
    assert state.status == "diverged"
    assert state.step < 200
    assert re.fullmatch(rf"(training|validation) loss .* at step {state.step}", state.stop_reason)


def test_not_a_number_ends_at_once():
    model = fresh_model()
    with torch.no_grad():
        model.blocks[0].mlp.W_in[0, 0] = torch.nan
    state = trainer(model=model).run()
    assert (state.status, state.step) == ("diverged", 0)


def test_patience_and_target_stop_early():
    still = dataclasses.replace(SMALL, freeze="all", patience=2, steps=1000)
    state = trainer(still).run()
    assert (state.step, state.status) == (20, "finished")
    assert "2 evaluations" in state.stop_reason
    easy = dataclasses.replace(SMALL, target_accuracy=0.3, steps=1000)
    state = trainer(easy).run()
    assert state.step < 1000
    assert "accuracy 0.3 reached" in state.stop_reason


@pytest.mark.parametrize("stop_at", [None, 5])
def test_a_run_that_is_stopped_is_the_beginning_of_the_whole_one(tmp_path, stop_at):
    """`stop_after` leaves the schedule as it is, also where the run is resumed."""
    config = dataclasses.replace(SMALL, checkpoints=3)
    limited = dataclasses.replace(config, stop_after=10)
    at_ten, kept, path = [], [], tmp_path / "resume.safetensors"
    whole = fresh_model()
    trainer(config, whole, on_step=lambda state: at_ten.append(whole.flat.clone()) if state.step == 10 else None).run()
    if stop_at is not None:
        first = trainer(limited, state_path=path)
        first.should_stop = lambda: first.state.step == stop_at
        with pytest.raises(Interrupted):
            first.run()
    model = fresh_model()
    state = trainer(limited, model, state_path=path, keep=kept.append).run()
    assert torch.equal(model.flat, at_ten[0])
    assert (state.status, state.step, state.stop_reason) == ("finished", 10, "step limit")
    assert kept[-1] == 10
    assert set(kept) <= {0, 1, 3, 10}
    assert state.history[-1]["step"] == 10


def test_a_curriculum_is_stopped_in_mid_course():
    config = dataclasses.replace(SMALL, curriculum=True, stop_after=4)
    state = trainer(config).run()
    assert (state.status, state.step) == ("finished", 4)
    assert state.length is not None


def test_a_limit_beyond_the_last_step_is_none():
    model = fresh_model().config
    for limit in (None, SMALL.steps, SMALL.steps + 1):
        assert dataclasses.replace(SMALL, stop_after=limit).resolve(model) == SMALL.resolve(model)
    assert dataclasses.replace(SMALL, stop_after=1).resolve(model).last_step == 1
    # What happens after the end would silently never happen.
    with pytest.raises(ValueError, match="10"):
        trainer(dataclasses.replace(SMALL, stop_after=10, interventions=(Rate(selector="mlp", from_step=10),)))


def test_freezing_keeps_bits():
    model = fresh_model()
    before = model.flat.clone()
    frozen = flat_mask(model, "attn + blocks.1.ln2")
    trainer(dataclasses.replace(SMALL, freeze="attn + blocks.1.ln2"), model=model).run()
    assert torch.equal(model.flat[frozen], before[frozen])
    assert (model.flat[~frozen] != before[~frozen]).float().mean() > 0.9


def test_what_decays():
    """With the gradient clipped away, decay is all that moves the weights."""
    for decay in ("all", "matrices"):
        model = fresh_model()
        before = model.flat.clone()
        config = dataclasses.replace(SMALL, steps=1, decay=decay, weight_decay=0.5, clip_norm=1e-12, warmup_steps=0)
        trainer(config, model=model).run()
        gains = flat_mask(model, "ln")
        # Adam still takes a step of up to lr, so only large weights tell: the gains are 1.
        assert (before[gains] == 1).sum() > 0
        moved = model.flat[gains & (before == 1)] - 1
        assert (moved.abs() > 4e-3).all() == (decay == "all")


def test_curriculum_goes_through_the_lengths():
    task = TASKS.build("identity", vocab=3, length=6, min_length=2)
    lengths, length = [], next_length(task, 0)
    while length is not None:
        lengths.append(length)
        length = next_length(task, length)
    assert lengths == [2, 4]
    config = dataclasses.replace(
        SMALL,
        steps=3000,
        curriculum=True,
        learning_rate=2e-2,
        evaluate_every=50,
        target_accuracy=0.9,
        batch_size=64,
    )
    state = trainer(config, task=task).run()
    table = state.table()
    lengths = table.loc[table.split == "validation", "task_length"]
    assert lengths.iloc[0] == 2
    assert state.length is None or state.length > 2
    assert lengths.dropna().is_monotonic_increasing
    with pytest.raises(ValueError, match="no length"):
        trainer(dataclasses.replace(SMALL, curriculum=True), task=TASKS.build("haystack"))


def test_kept_steps_are_log_spaced():
    assert TrainConfig(steps=1000).kept_steps == {1000}
    assert TrainConfig(steps=1000, checkpoints=4).kept_steps == {0, 1, 10, 100, 1000}
    assert TrainConfig(steps=3, checkpoints=10).kept_steps == {0, 1, 2, 3}
    assert TrainConfig(steps=5000, stop_after=1000, start_at=10, checkpoints=4).kept_steps == {10, 100, 1000}
    kept = []
    trainer(dataclasses.replace(SMALL, checkpoints=3), keep=kept.append).run()
    assert kept == [0, 1, 5, 30]


def test_the_thread_count_is_the_runs_and_then_as_before():
    before = torch.get_num_threads()
    seen = []
    trainer(dataclasses.replace(SMALL, threads=3), on_step=lambda s: seen.append(torch.get_num_threads())).run()
    assert set(seen) == {3}
    assert torch.get_num_threads() == before


def test_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    trainer().run()
    assert torch.equal(torch.get_rng_state(), before)


def test_bfloat16_trains_and_keeps_float32_weights():
    model = fresh_model()
    state = trainer(dataclasses.replace(SMALL, precision="bfloat16"), model=model).run()
    assert model.flat.dtype == torch.float32
    last = state.table().query("split == 'validation'").loss_nats.iloc[-1]
    assert last == pytest.approx(GOLDEN_VALIDATION_LOSS[-1], abs=0.05)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0),
        ("batch_size", -1),
        ("learning_rate", 0.0),
        ("learning_rate", math.nan),
        ("warmup_steps", -1),
        ("clip_norm", 0.0),
        ("target_accuracy", 1.5),
        ("patience", 0),
        ("beta2", 1.0),
        ("device", "abacus"),
    ],
)
def test_bad_values_name_the_field(field, value):
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(SMALL, **{field: value})


def trained(recompute: bool) -> HookedTransformer:
    """A model after three steps, with a penalty that hooks the attention."""
    penalty = EntropyPenalty(target=0.3, n_sequences=4)
    config = dataclasses.replace(SMALL, steps=3, kernel="torch", recompute=recompute, interventions=(penalty,))
    model = fresh_model()
    trainer(config, model).run()
    return model


def kept_bytes(model: HookedTransformer) -> int:
    """Bytes of the tensors that a forward pass keeps for the backward one."""
    kept: dict[int, int] = {}

    def keep(x: torch.Tensor) -> torch.Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        loss = model(TASK.batch(64, generator=stream(0, "recompute")).tokens).sum()
    assert loss.requires_grad
    return sum(kept.values())


def test_recomputing_activations_changes_no_bit_and_keeps_less():
    plain, again = trained(False), trained(True)
    assert torch.equal(plain.flat, again.flat)
    assert kept_bytes(again) < kept_bytes(plain) / 2
    assert content_hash(SMALL) == content_hash(dataclasses.replace(SMALL, recompute=True))

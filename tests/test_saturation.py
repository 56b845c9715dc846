"""Weights beyond float32: saturated attention is said once, and an overflow is no finite loss."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS, Batch
from procpre_interp.model import HookedTransformer, ModelConfig
from procpre_interp.pipeline.execute import execute
from procpre_interp.store.store import RunStore
from procpre_interp.train import TrainConfig, Trainer
from procpre_interp.train.evaluate import evaluate
from procpre_interp.train.loss import backward
from procpre_interp.train.native import NativeStep
from procpre_interp.train.native.overflow import LARGEST_WEIGHT, may_overflow, overflows
from procpre_interp.train.saturation import SATURATED_SCORE, largest_score, saturation_note, score_bound
from tests.test_pipeline import PHASE2, TRAIN

TASK = TASKS.build("haystack")
BATCH = TASK.batch(8, generator=stream(0, "test"))


def model(scale: float = 1.0, part: str = "", *, d_head: int = 16) -> HookedTransformer:
    config = ModelConfig(n_layers=2, n_heads=16 // d_head, d_model=16, n_ctx=TASK.n_ctx, d_vocab=TASK.d_vocab)
    made = HookedTransformer.from_seed(config, 0, TASK.stream_label)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if part in name:
                parameter.mul_(scale)
    return made


def gradients(made: HookedTransformer) -> Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in made.parameters()]).double()


@pytest.mark.parametrize("d_head", [4, 16])
def test_beyond_the_score_that_is_said_gradients_are_off_and_losses_are_not(d_head: int):
    """Only torch with narrow heads has the gradient all the same, on some processors (`train.saturation`)."""
    errors = {}
    for scale in (10, 300):
        made = model(scale, d_head=d_head)
        exact = model(scale, d_head=d_head).double()
        logits = exact(BATCH.tokens)[BATCH.loss_mask]
        true_loss = torch.nn.functional.cross_entropy(logits, BATCH.targets[BATCH.loss_mask])
        true_loss.backward()
        for kernel in ("torch", "native"):
            made.flat_grad.zero_()
            native = NativeStep(made, threads=1) if kernel == "native" else None
            loss = native.backward(BATCH) if native else backward(made, BATCH, max_tokens=8192, autocast=False).item()
            assert loss == pytest.approx(true_loss.item(), rel=1e-5)
            error = (gradients(made) - gradients(exact)).norm() / gradients(exact).norm()
            errors[scale, kernel] = float(error)
        assert (largest_score(made, BATCH.tokens) > SATURATED_SCORE) == (scale == 300)
    assert max(errors[10, "torch"], errors[10, "native"]) < 1e-3
    assert errors[300, "native"] > 0.02, errors
    if d_head == 16:
        assert errors[300, "torch"] > 0.02, errors


@pytest.mark.parametrize("part", ["", "W_Q", "ln1.w", "b_"])
@pytest.mark.parametrize("scale", [1.0, 30.0, 1000.0])
def test_no_score_exceeds_the_bound(part: str, scale: float):
    made = model(scale, part)
    with torch.no_grad():
        made.blocks[0].attn.b_Q += scale
        made.blocks[1].ln1.b += scale
    assert 0 < largest_score(made, BATCH.tokens) <= score_bound(made) * (1 + 1e-5)


def test_an_ordinary_model_is_not_run_to_know(monkeypatch):
    made = model()
    monkeypatch.setattr(made, "run_with_hooks", None)
    assert saturation_note(made, BATCH.tokens) is None


@pytest.mark.parametrize("kernel", ["torch", "native", "stacked"])
def test_a_run_says_once_that_its_attention_is_saturated(kernel: str):
    notes: list[str] = []
    config = TrainConfig(steps=6, batch_size=4, evaluate_every=2, evaluate_examples=8, kernel=kernel, warmup_steps=0)
    Trainer(model(300), TASK, config, seed=1, on_note=notes.append).run()
    assert len(notes) == 1
    assert "the loss can be trusted, but from scores of 1e+05 on the gradient in float32 cannot" in notes[0]
    Trainer(model(), TASK, config, seed=1, on_note=notes.append).run()
    assert len(notes) == 1


def test_the_note_reaches_who_executes_a_run(tmp_path):
    notes: list[str] = []
    wild = dataclasses.replace(PHASE2, model=dataclasses.replace(PHASE2.model, init_std=100.0), train=TRAIN)
    execute(wild, RunStore(tmp_path), on_note=notes.append)
    assert sum("attention is saturated" in note for note in notes) == 1


@pytest.mark.parametrize("part", ["W_E", "W_pos", "W_V", "W_O", "W_in", "W_out", "W_Q", "W_U"])
def test_what_overflows_in_torch_overflows_in_the_native_kernel(part: str):
    made = model(1e30, part)
    native = NativeStep(made, threads=1)
    finite = math.isfinite(backward(made, BATCH, max_tokens=8192, autocast=False).item())
    assert math.isfinite(native.backward(BATCH)) == finite == (part in ("W_Q", "W_U"))
    scores, by_torch = evaluate(made, BATCH, native=native), evaluate(made, BATCH)
    assert scores.loss_nats.isna().tolist() == by_torch.loss_nats.isna().tolist()
    assert scores.n_correct.tolist() == by_torch.n_correct.tolist()


def test_copies_of_a_model_that_overflow_have_no_loss():
    made = model()
    native = NativeStep(made, threads=1)
    loss, correct = native.score(BATCH, model(1e30, "W_E").flat)
    assert loss.isnan().all()
    assert not correct.any()
    assert native.score(BATCH)[0].isfinite().all()


def test_a_run_that_overflows_has_diverged():
    config = TrainConfig(steps=6, batch_size=4, evaluate_every=2, evaluate_examples=8, kernel="native")
    assert Trainer(model(1e30, "W_E"), TASK, config, seed=1).run().status == "diverged"


def test_no_model_overflows_whose_weights_are_small_enough():
    """The worst that weights of that size can do, at the kernel's largest width."""
    config = ModelConfig(n_layers=4, n_heads=4, d_model=256, n_ctx=8, d_vocab=8)
    made = HookedTransformer.from_seed(config, 0, "test")
    tokens = torch.arange(16).reshape(2, 8) % 8
    batch = Batch(tokens, tokens, torch.ones(2, 8, dtype=torch.bool), torch.full((2,), 8))
    with torch.no_grad():
        made.flat.fill_(LARGEST_WEIGHT)
        made.flat.mul_(torch.where(torch.arange(len(made.flat)) % 7 == 3, -1.0, 1.0))
    assert not may_overflow(made.flat)
    assert not overflows(made, made.flat, batch)[0].any()

"""Micro-batches are exactly the batch, and their loss and gradient that of the whole."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from procpre_interp.core.seeding import stream
from procpre_interp.data.task import Batch
from procpre_interp.model import HookedTransformer, ModelConfig
from procpre_interp.train.evaluate import evaluate, summarise
from procpre_interp.train.loss import UNSCORED, backward, micro_batches, scored_positions

D_VOCAB = 11


def random_batch(rows: int, width: int, density: float, seed: int) -> Batch:
    """Random tokens, each next token scored with probability `density`; the last column never."""
    generator = stream(seed, "random batch")
    tokens = torch.randint(0, D_VOCAB, (rows, width), generator=generator)
    targets = torch.cat([tokens[:, 1:], torch.zeros(rows, 1, dtype=torch.int64)], 1)
    mask = torch.rand(rows, width, generator=generator) < density
    mask[:, -1] = False
    return Batch(tokens, targets, mask, torch.full((rows,), width))


# The strategy gives arguments, not tensors: Hypothesis does not like torch at work while it draws.
batches = st.fixed_dictionaries(
    {
        "rows": st.integers(1, 12),
        "width": st.integers(2, 9),
        "density": st.sampled_from([0.0, 0.1, 0.4, 0.9, 1.0]),
        "seed": st.integers(0, 10**6),
    }
)


@given(arguments=batches, max_tokens=st.integers(1, 100))
@settings(max_examples=100, deadline=None)
def test_every_scored_target_is_read_exactly_once(arguments, max_tokens):
    batch = random_batch(**arguments)
    seen = torch.zeros_like(batch.targets)
    for micro in micro_batches(batch, max_tokens):
        width = micro.tokens.shape[1]
        assert len(micro.rows) == 1 or micro.tokens.numel() <= max_tokens
        positions = torch.arange(width).expand(len(micro.rows), -1) if micro.positions is None else micro.positions
        scored = micro.targets != UNSCORED
        rows = micro.rows[:, None].expand_as(positions)
        assert (micro.targets[scored] == batch.targets[rows[scored], positions[scored]]).all()
        assert (micro.tokens == batch.tokens[micro.rows, :width]).all()
        seen.index_put_((rows[scored], positions[scored]), torch.tensor(1), accumulate=True)
    assert (seen == batch.loss_mask).all()


@given(arguments=batches)
@settings(max_examples=50, deadline=None)
def test_scored_positions_against_a_plain_loop(arguments):
    batch = random_batch(**arguments)
    positions, scored = scored_positions(batch.loss_mask)
    for mask, row, real in zip(batch.loss_mask.tolist(), positions.tolist(), scored.tolist()):
        expected = [t for t, is_scored in enumerate(mask) if is_scored]
        assert row[: len(expected)] == expected
        assert real == [True] * len(expected) + [False] * (len(row) - len(expected))
        assert set(row[len(expected) :]) <= {expected[-1] if expected else 0}


@given(arguments=batches, max_tokens=st.integers(1, 60))
@settings(max_examples=30, deadline=None)
def test_loss_and_gradient_are_those_of_the_whole_batch_at_once(arguments, max_tokens):
    batch = random_batch(**arguments)
    config = ModelConfig(n_layers=2, n_heads=2, d_model=8, n_ctx=9, d_vocab=D_VOCAB)
    model = HookedTransformer(config, generator=stream(0, "model")).double()
    loss = backward(model, batch, max_tokens=max_tokens)
    gradient = model.flat_grad.clone()
    model.zero_grad()
    if not batch.loss_mask.any():
        assert loss == 0
        assert not gradient.any()
        return
    expected = F.cross_entropy(model(batch.tokens)[batch.loss_mask].float(), batch.targets[batch.loss_mask])
    expected.backward()
    torch.testing.assert_close(loss.item(), expected.item(), rtol=1e-5, atol=0)
    torch.testing.assert_close(gradient, model.flat_grad, rtol=1e-5, atol=1e-7)


def test_gradients_of_two_batches_add_up():
    config = ModelConfig(n_layers=1, n_heads=1, d_model=4, n_ctx=9, d_vocab=D_VOCAB)
    model = HookedTransformer(config, generator=stream(0, "model"))
    batch = random_batch(4, 6, 0.5, seed=3)
    backward(model, batch, max_tokens=100)
    once = model.flat_grad.clone()
    backward(model, batch, max_tokens=100)
    torch.testing.assert_close(model.flat_grad, 2 * once)


def test_padding_costs_nothing_after_sorting():
    batch = random_batch(8, 9, 0.0, seed=0)
    for row in range(8):
        batch.loss_mask[row, row] = True
    micros = list(micro_batches(batch, max_tokens=12))
    assert len(micros) >= 3
    assert sum(micro.tokens.numel() for micro in micros) < 50  # 36 needed, 72 uncut


def test_a_uniform_guess_has_log_d_vocab_nats():
    config = ModelConfig(n_layers=1, n_heads=1, d_model=4, n_ctx=9, d_vocab=D_VOCAB)
    model = HookedTransformer(config, generator=stream(0, "model"))
    with torch.no_grad():
        model.W_U.zero_()
    loss = backward(model, random_batch(4, 6, 0.5, seed=3), max_tokens=100)
    assert loss.item() == pytest.approx(torch.tensor(float(D_VOCAB)).log().item())


@pytest.mark.parametrize(("dtype", "digits"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_a_loss_is_summed_in_the_model_s_own_precision(dtype, digits):
    """Many micro-batches against a loop in double precision, in training and in evaluation."""
    config = ModelConfig(n_layers=1, n_heads=1, d_model=4, n_ctx=9, d_vocab=D_VOCAB)
    model = HookedTransformer(config, generator=stream(0, "model")).to(dtype)
    batch = random_batch(64, 9, 0.5, seed=3)
    log_probs = copy.deepcopy(model).double()(batch.tokens).log_softmax(-1)
    expected = -log_probs.gather(2, batch.targets[..., None].long())[batch.loss_mask].mean().item()
    loss = backward(model, batch, max_tokens=9)
    assert loss.dtype == dtype
    assert loss.item() == pytest.approx(expected, rel=digits)
    assert summarise(evaluate(model, batch, max_tokens=9))["loss_nats"] == pytest.approx(expected, rel=digits)

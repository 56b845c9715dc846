"""Masked heads against plain loops and every mask in turn; learned masks on models whose heads are known."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch

from procpre_interp.core.seeding import stream
from procpre_interp.data.task import Batch
from procpre_interp.model import HookedTransformer, ModelConfig
from procpre_interp.patch.masking import mask_scores, mean_z
from procpre_interp.patch.pruning import (
    FIRST_LOG_ALPHA,
    head_masks,
    head_names,
    head_test,
    open_probability,
    prune_heads,
    sample_gates,
)
from tests.models import TINY, random_model, random_tokens

NEEDED = [(0, 1), (1, 2)]
EVERY_MASK = torch.tensor(list(itertools.product([False, True], repeat=6))).unflatten(1, (2, 3))
FAST = {"steps": 120, "learning_rate": 0.2, "batch_rows": 16}


def some_batch(n: int = 24, *, seed: int = 0) -> Batch:
    """Sequences of 4 to 9 tokens, scored from somewhere on; one of them nowhere."""
    tokens = random_tokens(TINY, batch=n, length=9, seed=seed)
    lengths = torch.randint(4, 10, (n,), generator=stream(seed, "lengths"))
    first = torch.randint(0, 3, (n,), generator=stream(seed, "first"))
    first[0] = 99
    return Batch.from_sequences(tokens, lengths, first, pad=0)


def model_of_two_heads() -> HookedTransformer:
    """Only the heads of `NEEDED` write anything."""
    model = random_model(std=0.5)
    with torch.no_grad():
        for layer, head in itertools.product(range(2), range(3)):
            model.get_parameter(f"blocks.{layer}.attn.W_O")[head] *= 2 if (layer, head) in NEEDED else 0
    return model


def mask_of(*heads: tuple[int, int]) -> torch.Tensor:
    mask = torch.zeros(1, 2, 3, dtype=torch.bool)
    for layer, head in heads:
        mask[0, layer, head] = True
    return mask


def rows_of(batch: Batch) -> list[list[int]]:
    """The scored positions of each sequence."""
    return [[t for t, scored in enumerate(row) if scored] for row in batch.loss_mask.tolist()]


def test_the_mean_is_that_of_a_loop_whatever_the_blocks():
    model, batch = random_model(), some_batch()
    _, cache = model.run_with_cache(batch.tokens)
    for layer, head in itertools.product(range(2), range(3)):
        values = [
            cache["z", layer][i, t, head].detach().double()
            for i, scored in enumerate(rows_of(batch))
            for t in range(max(scored, default=-1) + 1)
        ]
        for max_bytes in (1, None):
            mean = mean_z(model, batch, max_bytes=max_bytes)[layer, head]
            torch.testing.assert_close(mean.double(), sum(values) / len(values), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("sparse", [False, True])
def test_scores_are_those_of_a_hook_that_puts_the_mean(sparse: bool):
    model, batch = random_model(), some_batch()
    if sparse:  # one scored position a sequence, which the last layer computes alone
        last = (batch.lengths - 2)[:, None] == torch.arange(batch.tokens.shape[1])
        batch = Batch(batch.tokens, batch.targets, last & batch.loss_mask, batch.lengths)
    masks = torch.cat([mask_of(), mask_of((0, 1), (1, 0)), mask_of((0, 0), (1, 0), (1, 2))])
    means = mean_z(model, batch)
    full = model(batch.tokens).detach().double().log_softmax(-1)
    for max_bytes in (1, None):
        table = mask_scores(model, batch, masks, max_bytes=max_bytes)
        for mask, row in zip(masks, table.to_dict("records")):

            def put_mean(z, hook, mask=mask):
                layer = int(hook.name.split(".")[1])
                for head in range(3):
                    if not mask[layer, head]:
                        z[:, :, head] = means[layer, head]
                return z

            points = [(f"blocks.{layer}.attn.hook_z", put_mean) for layer in range(2)]
            masked = model.run_with_hooks(batch.tokens, fwd_hooks=points).detach().double().log_softmax(-1)
            kl, loss, hits = [], [], []
            for i, scored in enumerate(rows_of(batch)):
                for t in scored:
                    p, q, target = full[i, t], masked[i, t], int(batch.targets[i, t])
                    kl.append(sum(float(a.exp() * (a - b)) for a, b in zip(p, q)))
                    loss.append(-float(q[target]))
                    hits.append(int(q.argmax()) == target)
            assert row["kl_nats"] == pytest.approx(np.mean(kl), rel=1e-4)
            assert row["loss_nats"] == pytest.approx(np.mean(loss), rel=1e-5)
            assert row["accuracy"] == pytest.approx(np.mean(hits))
            assert (row["n_kept"], row["n_scored"]) == (int(mask.sum()), len(kl))


def test_all_heads_are_the_model_and_heads_that_write_nothing_are_not_missed():
    model, batch = model_of_two_heads(), some_batch()
    masks = torch.cat([~mask_of(), mask_of(*NEEDED), mask_of(NEEDED[0]), mask_of(NEEDED[1])])
    kl = mask_scores(model, batch, masks)["kl_nats"]
    assert kl[0] == pytest.approx(0, abs=1e-7)
    assert kl[1] == pytest.approx(0, abs=1e-6)
    assert kl[2:].min() > 0.03
    other = mask_scores(model, batch, mask_of(), means=torch.zeros(2, 3, 4))["kl_nats"][0]
    assert other != pytest.approx(mask_scores(model, batch, mask_of())["kl_nats"][0], rel=0.01)


def test_gates_are_open_as_often_as_they_should_be():
    u = (torch.arange(20_000) + 0.5) / 20_000
    for log_alpha in (-2.0, 0.0, 0.7, 3.0):
        shape = (20_000, 1, 1)
        gates = sample_gates(torch.full(shape, log_alpha), u.reshape(shape))
        expected = float(open_probability(torch.tensor(log_alpha)))
        assert float((gates > 0).float().mean()) == pytest.approx(expected, abs=1e-4)
        # The law is symmetric: a gate is 1 as often as the gate of -log_alpha is 0.
        closed = 1 - float(open_probability(torch.tensor(-log_alpha)))
        assert float((gates == 1).float().mean()) == pytest.approx(closed, abs=1e-4)
    assert float(open_probability(torch.tensor(FIRST_LOG_ALPHA))) == pytest.approx(0.97, abs=0.005)


def test_the_heads_that_write_are_kept_and_no_others():
    model, batch = model_of_two_heads(), some_batch()
    table = prune_heads(model, batch, sparsities=(0.003, 0.02, 20), generator=stream(0, "prune"), **FAST)
    assert head_masks(table).tolist() == torch.cat([mask_of(*NEEDED), mask_of(*NEEDED), mask_of()]).tolist()
    assert len(table) == 3 * 6
    kept = table[table["kept"] & (table["sparsity"] == 0.02)]
    assert list(zip(kept["layer"], kept["head"])) == NEEDED
    assert table.groupby("sparsity")["n_kept"].unique().map(list).tolist() == [[2], [2], [0]]
    assert (table["kept"] == (table["log_alpha"] > 0)).all()
    assert table["open_probability"].between(0, 1).all()
    assert table["gate"].between(0, 1).all()


def test_the_learned_mask_is_nearly_the_best_of_all():
    model, batch = random_model(std=0.4), some_batch(48)
    prices = [0.001, 0.01, 0.03, 0.1, 0.3]
    scores = mask_scores(model, batch, EVERY_MASK)
    table = prune_heads(model, batch, sparsities=prices, generator=stream(0, "prune"), steps=200, learning_rate=0.2)
    masks, n_kept = head_masks(table), []
    for price, mask in zip(prices, masks):
        objective = scores["kl_nats"] + price * scores["n_kept"]
        own = int((mask == EVERY_MASK).flatten(1).all(1).nonzero())
        assert objective[own] <= objective.min() + price
        assert objective[own] < objective.median()
        n_kept.append(int(mask.sum()))
    assert n_kept == sorted(n_kept, reverse=True)
    assert len(set(n_kept)) > 2


def test_a_sparsity_does_not_depend_on_the_others_nor_on_the_blocks():
    model, batch = random_model(), some_batch()
    options = {"steps": 5, "batch_rows": 7}
    both = prune_heads(model, batch, sparsities=(0.01, 0.1), generator=stream(0, "prune"), **options)
    for max_bytes in (1, None):
        alone = prune_heads(
            model, batch, sparsities=(0.1,), generator=stream(0, "prune"), max_bytes=max_bytes, **options
        )
        expected = both[both["sparsity"] == 0.1].reset_index(drop=True)
        pd.testing.assert_frame_equal(alone, expected, rtol=1e-3)
    again = prune_heads(model, batch, sparsities=(0.01, 0.1), generator=stream(0, "prune"), **options)
    pd.testing.assert_frame_equal(both, again)
    other = prune_heads(model, batch, sparsities=(0.01, 0.1), generator=stream(1, "prune"), **options)
    assert (other["log_alpha"] != both["log_alpha"]).any()


def test_the_first_step_goes_down_the_slope_of_each_gate():
    # Adam's first step is the learning rate, against the sign of the gradient: the price alone, or the KL as well.
    model, batch = model_of_two_heads(), some_batch()
    table = prune_heads(model, batch, sparsities=(1e-4,), steps=1, learning_rate=0.5, generator=stream(0, "prune"))
    step = (table["log_alpha"] - FIRST_LOG_ALPHA).to_numpy().reshape(2, 3)
    expected = [[0.5 if (layer, head) in NEEDED else -0.5 for head in range(3)] for layer in range(2)]
    np.testing.assert_allclose(step, expected, rtol=0.05)


def test_the_model_stays_as_it_is():
    model, batch = random_model(), some_batch()
    before = model.flat.clone()
    prune_heads(model, batch, sparsities=(0.1,), steps=2, generator=stream(0, "prune"))
    assert torch.equal(model.flat, before)
    for parameter in model.parameters():
        assert parameter.requires_grad
        assert parameter.grad is None or not parameter.grad.any()
    assert not any(point.fwd_hooks for point in model.hook_dict.values())


def test_learned_masks_beat_random_ones_on_other_sequences():
    model = model_of_two_heads()
    table = head_test(
        model,
        some_batch(),
        some_batch(seed=1),
        sparsities=(0.003, 0.02, 20),
        n_random=19,
        generator=stream(0, "test"),
        **FAST,
    )
    assert table["mask"].tolist() == ["learned"] * 3 + ["always_kept"]
    assert table["n_kept"].tolist() == [2, 2, 0, 2]
    names = "blocks.0.attn.head.1+blocks.1.attn.head.2"
    assert table["heads"].tolist() == [names, names, "", names]
    assert np.isnan(table["sparsity"][3])
    found, empty = table.iloc[1], table.iloc[2]
    assert found["kl_nats"] == pytest.approx(0, abs=1e-6)
    assert found["accuracy"] == found["full_accuracy"]
    assert found["loss_nats"] == pytest.approx(found["full_loss_nats"], abs=1e-5)
    assert found["random_kl_nats_low"] <= found["random_kl_nats_mean"] <= found["random_kl_nats_high"]
    assert found["random_kl_nats_mean"] > 0.05
    assert 1 / 20 <= found["p"] <= 0.3  # a fifteenth of the pairs of heads are these two
    assert empty["random_kl_nats_low"] == empty["random_kl_nats_high"] == empty["kl_nats"] > 0.05
    assert empty["p"] == 1


def test_another_model_is_scored_with_its_own_means():
    model, other = model_of_two_heads(), random_model(seed=5)
    test_batch = some_batch(seed=1)
    table = head_test(
        model,
        some_batch(),
        test_batch,
        test_model=other,
        sparsities=(0.02,),
        n_random=3,
        generator=stream(0, "test"),
        **FAST,
    )
    expected = mask_scores(other, test_batch, mask_of(*NEEDED)).iloc[0]
    for name in ("n_kept", "kl_nats", "loss_nats", "accuracy"):
        assert table[name].tolist() == pytest.approx([expected[name]] * 2, rel=1e-5)


def test_nothing_is_always_kept_where_nothing_is_kept():
    table = head_test(
        random_model(),
        some_batch(),
        some_batch(seed=1),
        sparsities=(50,),
        n_random=2,
        generator=stream(0, "test"),
        **FAST,
    )
    assert table["n_kept"].tolist() == [0, 0]


def test_names_of_heads():
    assert head_names(mask_of((1, 0), (0, 2))[0]) == ["blocks.0.attn.head.2", "blocks.1.attn.head.0"]


def test_errors():
    model, batch, generator = random_model(), some_batch(), stream(0, "prune")
    for sparsities in ((), (-0.1,), (0.1, 0.1)):
        with pytest.raises(ValueError, match="sparsities="):
            prune_heads(model, batch, sparsities=sparsities, generator=generator)
    with pytest.raises(ValueError, match="steps=0"):
        prune_heads(model, batch, steps=0, generator=generator)
    with pytest.raises(ValueError, match="batch_rows=0"):
        prune_heads(model, batch, batch_rows=0, generator=generator)
    with pytest.raises(ValueError, match="n_random=0"):
        head_test(model, batch, batch, n_random=0, generator=generator)
    with pytest.raises(ValueError, match=r"masks of shape \(3, 3\)"):
        mask_scores(model, batch, torch.ones(1, 3, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="no position is scored"):
        mean_z(model, batch[:1])
    larger = HookedTransformer(ModelConfig(n_layers=2, n_heads=2, d_model=8, n_ctx=10, d_vocab=11), generator=generator)
    with pytest.raises(ValueError, match="test_model has 2 layers of 2 heads"):
        head_test(model, batch, batch, test_model=larger, steps=1, sparsities=(0.1,), generator=generator)

"""Scores against a plain loop over examples."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from procpre_interp.core.seeding import stream
from procpre_interp.model import HookedTransformer, ModelConfig
from procpre_interp.train import evaluate, evaluate_copies, summarise
from tests.test_loss import D_VOCAB, batches, random_batch

CONFIG = ModelConfig(n_layers=2, n_heads=2, d_model=8, n_ctx=9, d_vocab=D_VOCAB, init_std=0.5)
MODEL = HookedTransformer(CONFIG, generator=stream(0, "model"))


@given(arguments=batches, max_tokens=st.integers(1, 60))
@settings(max_examples=40, deadline=None)
def test_against_a_plain_loop(arguments, max_tokens):
    batch = random_batch(**arguments)
    table = evaluate(MODEL, batch, max_tokens=max_tokens)
    log_probs = MODEL(batch.tokens).log_softmax(-1)
    rows = iter(table.to_dict("records"))
    total_loss, total_correct, total, matches, n_rows = 0.0, 0, 0, 0, 0
    for i in range(len(batch)):
        scored = [t for t in range(batch.tokens.shape[1]) if batch.loss_mask[i, t]]
        if not scored:
            continue
        row = next(rows)
        losses = [-log_probs[i, t, batch.targets[i, t]].item() for t in scored]
        correct = sum(int(log_probs[i, t].argmax() == batch.targets[i, t]) for t in scored)
        assert (row["example"], row["n_scored"], row["n_correct"]) == (i, len(scored), correct)
        assert row["loss_nats"] == pytest.approx(sum(losses) / len(losses), rel=1e-4)
        assert row["exact_match"] == (correct == len(scored))
        total_loss, total_correct, total = (
            total_loss + sum(losses),
            total_correct + correct,
            total + len(scored),
        )
        matches, n_rows = matches + row["exact_match"], n_rows + 1
    assert next(rows, None) is None
    if n_rows:
        scores = summarise(table)
        assert scores["loss_nats"] == pytest.approx(total_loss / total, rel=1e-4)
        assert scores["accuracy"] == pytest.approx(total_correct / total)
        assert scores["exact_match"] == pytest.approx(matches / n_rows)


def test_perfect_and_hopeless():
    from procpre_interp.data.task import Batch

    model = HookedTransformer(CONFIG, generator=stream(0, "model"))
    with torch.no_grad():
        model.ln_final.w.zero_()
        model.ln_final.b.fill_(1.0)
        model.W_U.zero_()
        model.W_U[:, 3] = 10.0
    tokens = torch.full((2, 4), 3)
    mask = torch.tensor([[False, True, True, False]] * 2)
    targets = torch.tensor([[3, 3, 3, 0], [3, 3, 5, 0]])
    table = evaluate(model, Batch(tokens, targets, mask, torch.tensor([4, 4])))
    assert table.exact_match.tolist() == [True, False]
    assert table.n_correct.tolist() == [2, 1]
    assert table.loss_nats.tolist() == pytest.approx([0.0, 40.0], abs=1e-4)
    assert summarise(table) == pytest.approx({"loss_nats": 20.0, "accuracy": 0.75, "exact_match": 0.5})
    assert math.isclose(table.loss_nats[1], 80 / 2, abs_tol=1e-4)


@pytest.mark.parametrize("d_model", [8, 16], ids=["torch", "native"])
def test_copies_are_scored_as_models_of_their_own(d_model):
    config = ModelConfig(n_layers=2, n_heads=2, d_model=d_model, n_ctx=9, d_vocab=D_VOCAB, init_std=0.5)
    models = [HookedTransformer(config, generator=stream(seed, "copies")) for seed in range(3)]
    batch = random_batch(rows=12, width=9, density=0.2, seed=5)
    before = models[0].flat.clone()
    table = evaluate_copies(models[0], (model.flat for model in models), batch)
    assert table["copy"].tolist() == [0, 1, 2]
    for model, row in zip(models, table.to_dict("records")):
        expected = summarise(evaluate(model, batch))
        assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    assert torch.equal(models[0].flat, before)
    assert evaluate_copies(models[0], [], batch).empty

"""Labels against plain loops; logistic regression at its optimum; probes of labels that were planted."""

import dataclasses
from collections import Counter

import pytest
import torch
import torch.nn.functional as F

from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS, Batch
from procpre_interp.data.vocab import HaystackVocab
from procpre_interp.model import HookedTransformer, ModelConfig
from procpre_interp.probe.labels import LABELS, labels_for, position_labels
from procpre_interp.probe.linear import affordable_labels, fit_logistic_regression, linear_probe
from procpre_interp.probe.representation import residual_sites
from tests.models import random_model


def batch_of(name: str, n: int = 20, **params) -> tuple[Batch, object]:
    task = TASKS.build(name, **params)
    return task.batch(n, generator=stream(0, "batch", name)), task


@pytest.mark.parametrize(("name", "params"), [("dyck", {"k": 3, "length": 24}), ("dyck_shuffle", {"length": 40})])
def test_depth_and_top_against_a_list_as_stack(name, params):
    batch, task = batch_of(name, **params)
    depth = position_labels(batch, task, "stack_depth", deepest=4)
    top = position_labels(batch, task, "top_type") if name == "dyck" else None
    for i, sequence in enumerate(batch.tokens.tolist()):
        stack = []
        for t, token in enumerate(sequence):
            if token < task.k:
                stack.append(token)
            else:
                stack.remove(token - task.k) if top is None else stack.pop()
            assert depth[i, t] == min(len(stack), 4)
            if top is not None:
                assert top[i, t] == (stack[-1] if stack else -1)
    assert depth.max() == 4


def test_labels_of_a_haystack_by_hand():
    key, twin, value = HaystackVocab.FIRST_KEY, HaystackVocab.FIRST_KEY + HaystackVocab.TWIN_OFFSET, 1
    tokens = torch.tensor(
        [[key + 7, value + 90, key + 2, value + 5, twin + 2, value + 5, 0], [key + 4, value, twin + 4, value, 0, 0, 0]]
    )
    batch = Batch.from_sequences(tokens, torch.tensor([6, 4]), torch.tensor([4, 2]), 0)
    task = TASKS.build("haystack", max_pairs=2)
    expected = {
        "key": [[-1, 7, -1, 2, -1, -1, -1], [-1, 4, -1, -1, -1, -1, -1]],
        "matched_key": [[-1, -1, -1, -1, 2, -1, -1], [-1, -1, 4, -1, -1, -1, -1]],
        "matched_value": [[-1, -1, -1, -1, 5, -1, -1], [-1, -1, 0, -1, -1, -1, -1]],
        "next_token": [[-1, -1, -1, -1, value + 5, -1, -1], [-1, -1, value, -1, -1, -1, -1]],
        "previous_token": [[-1, *tokens[0, :5].tolist(), -1], [-1, *tokens[1, :3].tolist(), -1, -1, -1]],
    }
    assert labels_for(task) == sorted(expected)
    for name, labels in expected.items():
        assert position_labels(batch, task, name).tolist() == labels


@pytest.mark.parametrize("name", ["haystack", "identity", "dyck", "dyck_shuffle", "addition"])
def test_labels_lie_at_real_tokens_and_count_from_0(name):
    batch, task = batch_of(name)
    assert {"next_token", "previous_token"} <= set(labels_for(task)) <= set(LABELS)
    real = torch.arange(batch.tokens.shape[1]) < batch.lengths[:, None]
    for label in labels_for(task):
        labels = position_labels(batch, task, label)
        assert labels.shape == batch.tokens.shape
        assert (labels >= -1).all()
        assert (labels[~real] == -1).all()
        assert labels.max() >= 1


def test_a_label_for_another_task_says_what_there_is():
    batch, task = batch_of("dyck_shuffle")
    with pytest.raises(ValueError, match=r"top_type is not defined for .* dyck_shuffle; .* next_token.* stack_depth"):
        position_labels(batch, task, "top_type")
    with pytest.raises(ValueError, match=r"unknown probe label 'stack_dept'. Did you mean 'stack_depth'"):
        position_labels(batch, task, "stack_dept")
    with pytest.raises(ValueError, match=r"deepest=0; deepest must be at least 1"):
        position_labels(batch, task, "stack_depth", deepest=0)


def test_logistic_regression_is_at_its_optimum():
    x = torch.randn(60, 4, generator=stream(0, "x"))
    y = (x[:, :3] + torch.randn(60, 3, generator=stream(0, "noise"))).argmax(1)
    fit = fit_logistic_regression(x, y, 3, l2=0.02)
    weights, bias = (w.clone().requires_grad_() for w in (fit.weights[:-1], fit.weights[-1]))

    def objective() -> torch.Tensor:
        return F.cross_entropy(x.double() @ weights + bias, y) + 0.01 * (weights**2).sum()

    best = objective()
    best.backward()
    assert fit.converged
    assert max(weights.grad.abs().max(), bias.grad.abs().max()) < 1e-4
    with torch.no_grad():
        for w in (weights, bias):
            w += 0.05
            assert objective() > best if w is weights else torch.isclose(objective(), best)  # biases may shift together
            w -= 0.05
            w[..., 0] += 0.05
            assert objective() > best
            w[..., 0] -= 0.05


def test_without_features_the_bias_gives_the_frequencies():
    y = torch.tensor([0, 1, 1, 2, 2, 2, 2, 2])
    fit = fit_logistic_regression(torch.zeros(8, 2), y, 3)
    assert fit.weights[-1].softmax(0).tolist() == pytest.approx([1 / 8, 2 / 8, 5 / 8], abs=1e-4)
    assert fit.weights[:2].abs().max() < 1e-9
    assert [fit.accuracy(torch.ones(1, 2), torch.tensor([each])) for each in range(3)] == [0, 0, 1]


def test_one_step_is_not_enough():
    x = torch.randn(30, 3, generator=stream(0, "x"))
    y = (x[:, 0] > 0).long()
    assert not fit_logistic_regression(x, y, 2, max_iterations=1).converged
    model, batch = random_model(WIDE), random_batch()
    labels = batch.tokens % 2
    for steps, converged in ((1, False), (2000, True)):
        table = linear_probe(
            model, batch, labels, sites=["resid_pre.0"], generator=stream(0, "probe"), max_iterations=steps
        )
        assert table["converged"].tolist() == [converged]


def test_correlated_features_and_rare_classes_take_few_steps():
    # As on text: directions whose spread differs by powers of ten, and classes as frequent as words are.
    frequency = 1 / torch.arange(1, 41)
    y = torch.multinomial(frequency, 1500, replacement=True, generator=stream(0, "y"))
    x = torch.randn(40, 24, generator=stream(0, "means"))[y] + torch.randn(1500, 24, generator=stream(0, "noise"))
    x = x * torch.logspace(0, -3, 24) @ torch.linalg.qr(torch.randn(24, 24, generator=stream(0, "turn")))[0]
    assert fit_logistic_regression(x, y, 40, max_iterations=120).converged


def test_labels_of_text_are_cut_to_what_can_be_afforded(monkeypatch):
    labels = torch.multinomial(1 / torch.arange(1, 31), 600, replacement=True, generator=stream(0, "labels"))
    labels = labels.view(30, 20) - 1
    assert torch.equal(affordable_labels(labels, generator=stream(0, "cut")), labels)
    monkeypatch.setattr("procpre_interp.probe.linear.MOST_CLASSES", 5)
    monkeypatch.setattr("procpre_interp.probe.linear.MOST_NUMBERS", 1000)
    few = affordable_labels(labels, generator=stream(0, "cut"))
    counts = Counter(labels[labels >= 0].tolist())
    assert sorted(counts[each] for each in few[few >= 0].unique().tolist()) == sorted(counts.values())[-5:]
    assert (few >= 0).sum() == 200
    assert torch.equal(few[few >= 0], labels[few >= 0])


WIDE = ModelConfig(n_layers=1, n_heads=2, d_model=16, n_ctx=12, d_vocab=193)
"""Far more tokens than dimensions: a label at random for each token cannot be read off linearly."""


def random_batch(n: int = 120) -> Batch:
    tokens = torch.randint(193, (n, 12), generator=stream(0, "tokens"))
    return Batch.from_sequences(tokens, torch.full((n,), 12), 0, 0)


def test_a_planted_label_is_found_and_neither_the_control_nor_the_untrained_model_has_it():
    model, untrained, batch = random_model(WIDE), random_model(WIDE, seed=1), random_batch()
    with torch.no_grad():  # so that resid_pre.0 is the token's embedding
        model.W_pos.zero_()
        untrained.W_pos.zero_()
    scores = model.W_E @ torch.randn(16, generator=stream(0, "direction"))
    labels = (scores > scores.median()).long()[batch.tokens]
    table = linear_probe(model, batch, labels, generator=stream(0, "probe"), untrained=untrained)
    assert table["site"].tolist() == residual_sites(1)
    row = table.iloc[0]
    assert row["accuracy"] > 0.95
    assert row["control"] < 0.8
    assert row["untrained"] < 0.8
    assert 0.45 < row["majority"] < 0.6
    assert (table["selectivity"] == table["accuracy"] - table["control"]).all()
    assert table["converged"].all()
    without = linear_probe(model, batch, labels, generator=stream(0, "probe"))
    assert without["untrained"].isna().all()
    assert without.drop(columns="untrained").equals(table.drop(columns="untrained"))
    last = linear_probe(model, batch, labels, generator=stream(0, "probe"), sites=["resid_post.0"])
    assert last.iloc[0].drop("untrained").equals(table.iloc[2].drop("untrained"))


def test_a_label_that_nothing_carries_is_not_found():
    model, batch = random_model(WIDE), random_batch()
    labels = torch.randint(2, batch.tokens.shape, generator=stream(0, "coins"))
    row = linear_probe(model, batch, labels, generator=stream(0, "probe"), sites=["resid_post.0"]).iloc[0]
    assert row["n_test"] == 30 * 12
    assert 0.4 < row["accuracy"] < 0.6


def previous_token_model() -> HookedTransformer:
    """Head 0 attends to the token before and copies it into dimensions 23 to 33; all else writes nothing.

    Tokens are one-hot in dimensions 0 to 10, positions in 11 to 22, so that LayerNorm scales all alike.
    """
    config = ModelConfig(n_layers=1, n_heads=3, d_model=36, n_ctx=12, d_vocab=11)
    model = random_model(config)
    attn = model.blocks[0].attn
    with torch.no_grad():
        model.flat.zero_()
        for layernorm in (model.blocks[0].ln1, model.blocks[0].ln2, model.ln_final):
            layernorm.w.fill_(1.0)
        model.W_E[:, :11] = torch.eye(11)
        model.W_pos[:, 11:23] = torch.eye(12)
        attn.W_Q[0, 11:23] = 10 * torch.eye(12)
        attn.W_K[0, 11:22, 1:] = torch.eye(11)
        attn.W_V[0, :11, :11] = torch.eye(11)
        attn.W_O[0, :11, 23:34] = torch.eye(11)
    return model


def test_a_previous_token_head_is_found_where_it_writes():
    tokens = torch.randint(11, (60, 12), generator=stream(0, "tokens"))
    batch = Batch.from_sequences(tokens, torch.full((60,), 12), 0, 0)
    labels = position_labels(batch, TASKS.build("identity"), "previous_token")
    sites = ["resid_pre.0", "z.0.0", "z.0.1", "resid_mid.0"]
    table = linear_probe(previous_token_model(), batch, labels, generator=stream(0, "probe"), sites=sites)
    accuracy = dict(zip(sites, table["accuracy"]))
    assert accuracy["z.0.0"] == accuracy["resid_mid.0"] == 1
    assert max(accuracy["resid_pre.0"], accuracy["z.0.1"]) < 0.3
    assert set(table["n_train"]) == {45 * 11}
    assert set(table["n_classes"]) == {11}
    assert table["converged"].all()


def test_whole_sequences_are_held_out():
    """Sequences with 1, 2, 4 and 8 labels: what is tested on tells which."""
    model, batch = random_model(WIDE), random_batch(5)
    labels = torch.where(torch.arange(12) < torch.tensor([1, 2, 4, 8, 0])[:, None], torch.arange(12) % 2, -1)
    tested = set()
    for seed in range(12):
        table = linear_probe(model, batch, labels, generator=stream(seed, "probe"), sites=["resid_pre.0"], l2=1)
        row = table.iloc[0]
        assert row["n_train"] + row["n_test"] == 15
        tested.add(int(row["n_test"]))
    assert tested == {1, 2, 4, 8}


def test_padding_is_not_probed_and_unknown_classes_count_as_wrong():
    model, batch = random_model(WIDE), random_batch(4)
    batch = dataclasses.replace(batch, lengths=torch.tensor([12, 12, 12, 6]))
    labels = torch.arange(12).remainder(2).repeat(4, 1)
    labels[:, 0] = torch.arange(4) + 2  # each sequence has a class of its own
    row = linear_probe(model, batch, labels, generator=stream(0, "probe"), sites=["resid_pre.0"]).iloc[0]
    assert row["n_train"] + row["n_test"] == 42
    assert row["n_classes"] == 5
    assert row["accuracy"] < 1
    positions_only = random_model(WIDE)
    with torch.no_grad():
        positions_only.W_E.zero_()
    row = linear_probe(positions_only, batch, labels, generator=stream(0, "probe"), sites=["resid_pre.0"]).iloc[0]
    assert row["accuracy"] == pytest.approx(1 - 1 / row["n_test"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda labels: labels[:, :-1], "labels of shape .* for tokens of shape"),
        (lambda labels: torch.zeros_like(labels), "1 class in training; a probe needs at least 2"),
        (lambda labels: torch.where(torch.arange(4)[:, None] == 1, labels, -1), "1 sequences have labels"),
    ],
)
def test_labels_that_cannot_be_probed_are_refused(change, message):
    batch = random_batch(4)
    with pytest.raises(ValueError, match=message):
        linear_probe(random_model(WIDE), batch, change(batch.tokens % 2), generator=stream(0, "probe"))


def test_the_test_share_is_a_share():
    batch = random_batch(4)
    with pytest.raises(ValueError, match="test_share=1; it must lie between 0 and 1"):
        linear_probe(random_model(WIDE), batch, batch.tokens % 2, generator=stream(0, "probe"), test_share=1)

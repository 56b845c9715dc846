"""What neurons respond to, against variances that are added up in a loop and neurons that were made to respond."""

import math

import numpy as np
import pytest
import torch

from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS
from procpre_interp.model import HookedTransformer, ModelConfig
from procpre_interp.probe import PROBES, Probed, neuron_responses, neurons, response_labels
from procpre_interp.probe.neurons import explained_share, neuron_table

TASK = TASKS.build("dyck", k=2, length=16)
CONFIG = ModelConfig(n_layers=2, n_heads=2, d_model=16, n_ctx=TASK.n_ctx, d_vocab=TASK.d_vocab)


def fresh() -> HookedTransformer:
    return HookedTransformer(CONFIG, generator=stream(0, "neurons"))


@pytest.fixture
def batch():
    return TASK.batch(40, generator=stream(1, "neurons"))


def loop(x: np.ndarray, classes: np.ndarray) -> float:
    """Epsilon squared by its definition."""
    x, classes = x[classes >= 0].astype(float), classes[classes >= 0]
    groups = [x[classes == each] for each in sorted(set(classes.tolist()))]
    within = sum(((each - each.mean()) ** 2).sum() for each in groups)
    return 1 - (within / (len(x) - len(groups))) / (((x - x.mean()) ** 2).sum() / (len(x) - 1))


def test_every_share_is_what_a_loop_says(batch):
    model, labels = fresh(), response_labels(batch, TASK)
    assert list(labels) == ["token", "position", "next_token", "previous_token", "stack_depth", "top_type"]
    table = neuron_responses(model, batch, labels, generator=stream(2, "neurons"))
    assert len(table) == len(labels) * CONFIG.n_layers * CONFIG.d_hidden
    _, cache = model.run_with_cache(batch.tokens)
    real = torch.arange(TASK.n_ctx) < batch.lengths[:, None]
    for row in table.sample(60, random_state=0).itertuples():
        values = cache[f"blocks.{row.layer}.mlp.hook_post"][..., row.neuron][real].numpy()
        inputs = cache[f"blocks.{row.layer}.mlp.hook_pre"][..., row.neuron][real]
        assert row.explained == pytest.approx(loop(values, labels[row.label][real].numpy()), abs=1e-5)
        assert row.active == pytest.approx((inputs > 0).double().mean().item())


def test_labels_that_say_nothing_explain_nothing_on_average():
    generator = stream(3, "neurons")
    x = torch.randn(400, 2000, generator=generator, dtype=torch.float64)
    for n_classes in (2, 50):
        classes = torch.randint(n_classes, (400,), generator=generator)
        found = explained_share(x, classes)
        assert abs(found.mean().item()) < 4 * found.std().item() / math.sqrt(2000)
        assert found.std() < 0.05


def test_a_neuron_that_is_its_label_is_explained_and_one_that_never_changes_is_not():
    classes = torch.tensor([0, 0, 1, 1, 2, 2, -1])
    x = torch.stack([classes.double() ** 2, torch.full((7,), 0.3), torch.full((7,), 0.3) + 1e-9 * torch.rand(7)], 1)
    found = explained_share(x, classes)
    assert found[0].item() == pytest.approx(1)
    assert found[1:].isnan().all()
    for one_each_or_one in (torch.arange(7), torch.zeros(7, dtype=torch.long), torch.full((7,), -1)):
        assert explained_share(x, one_each_or_one).isnan().all()


def test_a_neuron_made_to_respond_to_a_token_is_the_largest_of_its_layer(batch):
    model = fresh()
    with torch.no_grad():
        direction = torch.zeros(CONFIG.d_model)
        direction[:2] = torch.tensor([1.0, -1.0])  # which the LayerNorm leaves
        model.W_E[0] -= 30 * direction
        model.W_E[1] += 30 * direction
        model.W_pos.mul_(100)  # what the others respond to
        model.W_pos[:, :2] = 0
        model.blocks[0].attn.W_O.zero_()
        model.blocks[0].mlp.W_in[:2] = 0
        model.blocks[0].mlp.W_in[:, 5] = 10 * direction
    table = neuron_table(
        neuron_responses(model, batch, response_labels(batch, TASK), generator=stream(2, "neurons"))
    ).set_index(["label", "layer"])
    assert table.loc[("token", 0), "neuron"] == 5
    assert table.loc[("token", 0), "largest"] > 0.9
    assert table.loc[("token", 0), "mostly"] == 1 / CONFIG.d_hidden
    assert table.loc[("position", 0), "mostly"] > 0.5


def test_long_batches_are_read_at_some_positions(batch, monkeypatch):
    model, labels = fresh(), response_labels(batch, TASK)
    whole = neuron_responses(model, batch, labels, generator=stream(2, "neurons"))
    monkeypatch.setattr(neurons, "MOST_POSITIONS", 300)
    some, again, other = (
        neuron_responses(model, batch, labels, generator=stream(seed, "neurons")) for seed in (2, 2, 3)
    )
    assert some.equals(again)
    assert not some.equals(other)
    assert not some.equals(whole)
    told = whole["label"] == "token"
    assert np.corrcoef(some["explained"][told], whole["explained"][told])[0, 1] > 0.9


def test_the_probe_compares_with_a_fresh_model_where_there_is_one():
    model = fresh()
    probe = PROBES["neurons"]()
    other = HookedTransformer(CONFIG, generator=stream(5, "neurons"))
    beside = probe.measure(Probed(model=model, task=TASK, reference=other, sequences=20))
    of_other = probe.measure(Probed(model=other, task=TASK, sequences=20))
    assert beside["untrained"].equals(of_other["explained"].rename("untrained"))
    assert not beside["explained"].equals(of_other["explained"])
    alone = probe.measure(Probed(model=model, task=TASK, sequences=20))
    assert alone["explained"].equals(beside["explained"])
    probe.check(alone)
    assert alone["untrained"].isna().all()

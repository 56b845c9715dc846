"""Damage to finished models: copies in order, and their scores against damaging and evaluating one by one."""

import pytest
import torch

from procpre_interp.ablate import Noise, ShuffleHeads, ShuffleWithinTensors, copy_labels, damaged_copies
from procpre_interp.analysis.damaged_models import damage_table
from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS
from procpre_interp.model import HookedTransformer, ModelConfig, with_weights
from procpre_interp.pipeline.config import Architecture, RunConfig
from procpre_interp.pipeline.execute import execute, held_out, load_model
from procpre_interp.store.store import RunStore
from procpre_interp.train import TrainConfig, evaluate, summarise

CONFIG = ModelConfig(n_layers=2, n_heads=2, d_model=16, n_ctx=100, d_vocab=193)
DAMAGE = [Noise(noise_std=0.0), Noise(noise_std=0.5), Noise(noise_std=1.0), ShuffleWithinTensors(selector="attn")]


def test_copies_are_those_that_their_labels_name():
    model = HookedTransformer(CONFIG, generator=stream(0, "model"))
    before = model.flat.detach().clone()
    copies = list(damaged_copies(model, DAMAGE, n_draws=2, seed=3))
    labels = copy_labels(DAMAGE, n_draws=2)
    assert len(copies) == len(labels) == 8
    assert labels["ablation"].tolist() == ["noise"] * 6 + ["shuffle_within_tensors"] * 2
    assert labels["noise_std"].tolist()[:6] == [0, 0, 0.5, 0.5, 1, 1]
    assert labels["draw"].tolist() == [0, 1] * 4
    assert torch.equal(model.flat, before)
    assert torch.equal(copies[0], before)
    # Doses are paired: the same direction, twice as far; draws are not.
    half, whole = copies[2] - before, copies[4] - before
    assert torch.allclose(2 * half, whole, atol=1e-5)
    assert not torch.allclose(copies[2], copies[3])
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    expected = DAMAGE[3].apply(weights, CONFIG, generator=stream(3, "damage", "shuffle_within_tensors", 1))
    assert torch.equal(copies[7], with_weights(model, expected).flat)


def test_scores_are_those_of_one_after_another(tmp_path):
    train = TrainConfig(steps=10, batch_size=16, warmup_steps=2, evaluate_examples=16)
    config = RunConfig(task=TASKS.build("haystack"), seed=5, model=Architecture(), train=train)
    run = execute(config, RunStore(tmp_path))
    damage = [*DAMAGE, ShuffleHeads(selector="attn")]
    table = damage_table(run, damage, n_draws=2, n_examples=200)
    assert set(table["run"]) == {run.id}
    batch = held_out(config.task, "test", seed=5, n=200)
    model = load_model(run)
    copies = damaged_copies(load_model(run), damage, n_draws=2, seed=5)
    for row, flat in zip(table.to_dict("records"), copies):
        with torch.no_grad():
            model.flat.copy_(flat)
        expected = summarise(evaluate(model, batch))
        assert row["accuracy"] == pytest.approx(expected["accuracy"])
        assert row["loss_nats"] == pytest.approx(expected["loss_nats"], rel=1e-4)
    heads = table.loc[table["ablation"] == "shuffle_heads", "loss_nats"]
    intact = table.loc[table["noise_std"] == 0, "loss_nats"]
    assert heads.tolist() == pytest.approx(intact.tolist(), rel=1e-5)  # the function is the same

"""What a shuffle keeps and destroys."""

import pytest
import torch

from procpre_interp.ablate import ABLATIONS, ShuffleWithinTensors
from procpre_interp.model import HookedTransformer, ModelConfig, select
from procpre_interp.seeding import stream

CONFIG = ModelConfig(n_layers=2, n_heads=2, d_model=8, n_ctx=5, d_vocab=7)


@pytest.fixture
def weights():
    model = HookedTransformer(CONFIG, generator=stream(0, "model"))
    with torch.no_grad():  # biases and gains are constant in a fresh model, and a shuffle of those shows nothing
        model.flat.copy_(torch.randn(model.flat.shape, generator=stream(0, "values")))
    return {name: p.detach() for name, p in model.named_parameters()}


def test_values_stay_and_places_do_not(weights):
    before = {name: tensor.clone() for name, tensor in weights.items()}
    shuffled = ShuffleWithinTensors().apply(weights, CONFIG, generator=stream(0, "shuffle"))
    chosen = {piece.parameter for piece in select(CONFIG, "blocks + ln_final")}
    for name, tensor in shuffled.items():
        assert torch.equal(weights[name], before[name]), "the input was changed"
        assert torch.equal(tensor.flatten().sort().values, before[name].flatten().sort().values)
        assert torch.equal(tensor, before[name]) == (name not in chosen), name


def test_one_head_is_shuffled_within_itself(weights):
    ablation = ShuffleWithinTensors(selector="blocks.1.attn.head.0")
    shuffled = ablation.apply(weights, CONFIG, generator=stream(0, "shuffle"))
    changed = {name for name in weights if not torch.equal(shuffled[name], weights[name])}
    assert changed == {f"blocks.1.attn.{leaf}" for leaf in ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V")}
    for name in changed:
        assert torch.equal(shuffled[name][1], weights[name][1])
        assert torch.equal(shuffled[name][0].flatten().sort().values, weights[name][0].flatten().sort().values)


def test_the_order_is_uniform(weights):
    """Each value of a 4-entry bias lands on each place equally often: chi-square over 2,000 shuffles."""
    ablation = ShuffleWithinTensors(selector="blocks.0.attn.head.0.b_Q")
    generator = stream(0, "many")
    bias = weights["blocks.0.attn.b_Q"][0]
    counts = torch.zeros(4, 4)
    for _ in range(2000):
        shuffled = ablation.apply(weights, CONFIG, generator=generator)["blocks.0.attn.b_Q"][0]
        counts[torch.arange(4), (shuffled[:, None] == bias).int().argmax(1)] += 1
    assert ((counts - 500) ** 2 / 500).sum() < 27.9  # 9 degrees of freedom, p = .001


@pytest.mark.parametrize("name", list(ABLATIONS))
def test_registered_ablations_depend_on_the_generator_alone(name, weights):
    ablation = ABLATIONS.build(name)
    once, again, other = (ablation.apply(weights, CONFIG, generator=stream(seed, "shuffle")) for seed in (0, 0, 1))
    assert all(torch.equal(once[key], again[key]) for key in weights)
    assert any(not torch.equal(once[key], other[key]) for key in weights)

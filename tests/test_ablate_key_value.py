"""MLPs as key-value memories: what stays of keys, values and their pairing, against plain loops."""

import pytest
import torch

from procpre_interp.ablate import KeysOnly, LowRankMlp, UnpairNeurons, ValuesOnly
from procpre_interp.core.seeding import stream
from procpre_interp.model import HookedTransformer, select
from tests.test_ablate import CONFIG, logits, weights_of


def test_an_mlp_as_a_memory_of_keys_and_values():
    weights = weights_of(CONFIG)
    fresh = {name: p.detach() for name, p in HookedTransformer(CONFIG, generator=stream(0, "d")).named_parameters()}
    for ablation, renewed in ((KeysOnly(), ("W_out", "b_out")), (ValuesOnly(), ("W_in", "b_in"))):
        damaged = ablation.apply(weights, CONFIG, generator=stream(0, "d"))
        for name, tensor in damaged.items():
            is_fresh = name.rpartition(".")[2] in renewed
            assert torch.equal(tensor, (fresh if is_fresh else weights)[name]), name


def test_unpairing_is_undone_by_moving_the_keys_likewise():
    weights = weights_of(CONFIG)
    damaged = UnpairNeurons(selector="blocks.1.mlp").apply(weights, CONFIG, generator=stream(0, "d"))
    old, new = (each["blocks.1.mlp.W_out"] for each in (weights, damaged))
    order = [next(i for i, row in enumerate(old) if torch.equal(row, moved)) for moved in new]
    assert sorted(order) == list(range(len(old))) != order
    damaged["blocks.1.mlp.W_in"] = damaged["blocks.1.mlp.W_in"][:, order]
    damaged["blocks.1.mlp.b_in"] = damaged["blocks.1.mlp.b_in"][order]
    outputs = [logits(each, CONFIG) for each in (weights, damaged)]
    assert torch.allclose(*outputs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("selector", ["mlp", "mlp.W_in", "blocks.1.mlp.W_out"])
def test_the_rank_of_mlps(selector):
    weights = weights_of(CONFIG)
    cut = {piece.parameter for piece in select(CONFIG, selector)}
    damaged = LowRankMlp(rank=3, selector=selector).apply(weights, CONFIG, generator=stream(0, "d"))
    for name in (f"blocks.{layer}.mlp.{leaf}" for layer in range(2) for leaf in ("W_in", "W_out")):
        assert torch.linalg.matrix_rank(damaged[name], rtol=1e-5) == (3 if name in cut else 16)
    whole = LowRankMlp(rank=16).apply(weights, CONFIG, generator=stream(0, "d"))
    assert all(torch.equal(whole[name], weights[name]) for name in weights)

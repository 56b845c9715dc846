"""Transfer: what is selected comes from the parent, and nothing else does."""

import dataclasses
import itertools
import re

import pytest
import torch

from procpre_interp.core.seeding import stream
from procpre_interp.model import HookedTransformer, ModelConfig, select
from procpre_interp.transfer import Donor, TransferConfig, positions_carried, transplant

PARENT = ModelConfig(n_layers=2, n_heads=2, d_model=8, n_ctx=12, d_vocab=9, tied=True)
CHILD = dataclasses.replace(PARENT, n_ctx=10, d_vocab=13, tied=False)


def weights_of(config: ModelConfig, seed: int) -> dict[str, torch.Tensor]:
    model = HookedTransformer(config, generator=stream(0, "model"))
    with torch.no_grad():
        model.flat.copy_(torch.randn(model.flat.shape, generator=stream(seed, "values")))
    return {name: p.detach() for name, p in model.named_parameters()}


@pytest.fixture
def fresh():
    return weights_of(CHILD, 0)


@pytest.fixture
def donor():
    return Donor(weights_of(PARENT, 1), PARENT, "all")


@pytest.mark.parametrize(
    "selector", ["attn", "mlp+ln", "blocks.1", "blocks.0.attn.head.1", "attn.W_V", "all", "all-mlp"]
)
def test_exactly_the_selected_weights_are_the_parents(selector, fresh, donor):
    everything_fresh = TransferConfig(token_embedding="fresh", unembedding="fresh", positions="fresh")
    weights = transplant(fresh, CHILD, [dataclasses.replace(donor, selector=selector)], everything_fresh)
    expected = {name: tensor.clone() for name, tensor in fresh.items()}
    for piece in select(CHILD, selector):
        if "embed" not in piece.parameter:
            expected[piece.parameter][piece.index] = donor.weights[piece.parameter][piece.index]
    for name, tensor in weights.items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("tied", [False, True])
def test_transferring_everything_is_the_parent(tied):
    config = dataclasses.replace(PARENT, tied=tied)
    parent = weights_of(config, 1)
    transfer = TransferConfig(token_embedding="retain", unembedding="retain", positions="carry")
    weights = transplant(weights_of(config, 0), config, [Donor(parent, config, "all")], transfer)
    assert weights.keys() == parent.keys()
    assert all(torch.equal(weights[name], parent[name]) for name in parent)


def test_without_parents_nothing_changes_and_inputs_are_never_written(fresh, donor):
    before = {name: tensor.clone() for name, tensor in fresh.items()}
    alone = transplant(fresh, CHILD, [], TransferConfig())
    transplant(fresh, CHILD, [donor], TransferConfig())
    assert all(torch.equal(fresh[name], before[name]) and torch.equal(alone[name], before[name]) for name in fresh)


def test_embedding_strategies_by_hand(fresh, donor):
    parent_rows, fresh_rows = donor.weights["embed.W_E"], fresh["embed.W_E"]
    mean = parent_rows.mean(0)
    expected = {
        "fresh": fresh_rows,
        "average": mean.expand(13, 8),
        "partial": torch.cat([parent_rows, fresh_rows[9:]]),
    }
    for rows, columns in itertools.product(expected, repeat=2):
        transfer = TransferConfig(token_embedding=rows, unembedding=columns)
        weights = transplant(fresh, CHILD, [donor], transfer)
        torch.testing.assert_close(weights["embed.W_E"], expected[rows])
        wanted = fresh["unembed.W_U"].T if columns == "fresh" else expected[columns]
        if columns == "partial":
            wanted = torch.cat([parent_rows, fresh["unembed.W_U"].T[9:]])
        torch.testing.assert_close(weights["unembed.W_U"].T, wanted)
        assert weights["unembed.W_U"].is_contiguous()


def test_positions_carry_only_when_long_enough(fresh, donor):
    weights = transplant(fresh, CHILD, [donor], TransferConfig())
    assert torch.equal(weights["pos_embed.W_pos"], donor.weights["pos_embed.W_pos"][:10])
    assert positions_carried(CHILD, [donor], TransferConfig())
    longer = dataclasses.replace(CHILD, n_ctx=13)
    long_fresh = weights_of(longer, 0)
    weights = transplant(long_fresh, longer, [donor], TransferConfig())
    assert torch.equal(weights["pos_embed.W_pos"], long_fresh["pos_embed.W_pos"])
    assert not positions_carried(longer, [donor], TransferConfig())
    assert not positions_carried(CHILD, [donor], TransferConfig(positions="fresh"))
    assert not positions_carried(CHILD, [], TransferConfig())


def test_an_assembly_takes_from_each_parent(fresh, donor):
    """The later parent's stand where they overlap, if that is asked for."""
    other = Donor(weights_of(PARENT, 2), PARENT, "mlp + blocks.0.attn.head.0")
    donors = [dataclasses.replace(donor, selector="attn"), other]
    weights = transplant(fresh, CHILD, donors, TransferConfig(embedding_parent=1, overlap="later_wins"))
    assert torch.equal(weights["blocks.1.attn.W_Q"], donor.weights["blocks.1.attn.W_Q"])
    assert torch.equal(weights["blocks.0.attn.W_Q"][0], other.weights["blocks.0.attn.W_Q"][0])
    assert torch.equal(weights["blocks.0.attn.W_Q"][1], donor.weights["blocks.0.attn.W_Q"][1])
    assert torch.equal(weights["blocks.1.mlp.W_in"], other.weights["blocks.1.mlp.W_in"])
    assert torch.equal(weights["blocks.1.ln1.w"], fresh["blocks.1.ln1.w"])
    torch.testing.assert_close(weights["embed.W_E"][3], other.weights["embed.W_E"].mean(0))


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        ("attn", "attn", "attn"),
        ("attn+ln", "mlp+ln", "ln"),
        ("all", "blocks.1", "blocks.1"),
        ("all", "all", "blocks+ln"),
        ("attn.W_V", "blocks.0.attn.head.1", "blocks.0.attn.head.1.W_V"),
        ("blocks.0.attn.head.0+blocks.0.attn.head.1", "attn.b_Q+mlp.b_in", "blocks.0.attn.b_Q"),
        ("attn+mlp", "blocks.0-blocks.0.ln", "blocks.0.attn+blocks.0.mlp"),
    ],
)
def test_weights_that_two_parents_give_are_refused_by_name(first, second, shared, fresh, donor):
    donors = [dataclasses.replace(donor, selector=selector) for selector in (first, "none", second)]
    with pytest.raises(ValueError, match=rf"both give {re.escape(shared)};.*later_wins"):
        transplant(fresh, CHILD, donors, TransferConfig())
    transplant(fresh, CHILD, donors, TransferConfig(overlap="later_wins"))


@pytest.mark.parametrize(("first", "second"), [("attn", "mlp"), ("all-mlp", "mlp"), ("blocks.0", "blocks.1+ln_final")])
def test_parents_that_share_nothing_make_an_assembly(first, second, fresh, donor):
    donors = [dataclasses.replace(donor, selector=selector) for selector in (first, second)]
    assert transplant(fresh, CHILD, donors, TransferConfig()).keys() == fresh.keys()


def test_mistakes_are_explained(fresh, donor):
    with pytest.raises(ValueError, match="takes nothing but embeddings"):
        transplant(fresh, CHILD, [dataclasses.replace(donor, selector="embed + pos")], TransferConfig())
    with pytest.raises(ValueError, match="retain keeps every embedding.*9 token ids and the model 13"):
        transplant(fresh, CHILD, [donor], TransferConfig(token_embedding="retain"))
    with pytest.raises(ValueError, match="embedding_parent=1; there are 1 parents"):
        transplant(fresh, CHILD, [donor], TransferConfig(embedding_parent=1))
    deeper = dataclasses.replace(PARENT, n_layers=3)
    with pytest.raises(ValueError, match="missing in the model"):
        transplant(fresh, CHILD, [Donor(weights_of(deeper, 1), deeper, "attn")], TransferConfig())
    wider = dataclasses.replace(PARENT, d_mlp=5)
    with pytest.raises(ValueError, match=r"blocks.0.mlp.W_in is of shape \(8, 5\) in the parent"):
        transplant(fresh, CHILD, [Donor(weights_of(wider, 1), wider, "mlp")], TransferConfig())
    tied = dataclasses.replace(CHILD, tied=True)
    with pytest.raises(ValueError, match="must be equal"):
        transplant(weights_of(tied, 0), tied, [donor], TransferConfig(unembedding="fresh"))
    with pytest.raises(ValueError, match="Did you mean 'attn'"):
        transplant(fresh, CHILD, [dataclasses.replace(donor, selector="atn")], TransferConfig())

"""Transfer to deeper and wider models: which weights go where, and what the larger model computes."""

import dataclasses
from pathlib import Path

import pytest
import torch
from einops import rearrange

from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS
from procpre_interp.model import HookedTransformer, ModelConfig, with_weights
from procpre_interp.pipeline.config import Architecture, Parent, RunConfig
from procpre_interp.pipeline.execute import execute, load_model
from procpre_interp.store.store import RunStore
from procpre_interp.train import TrainConfig
from procpre_interp.transfer import LAYERS, WIDTHS, Donor, TransferConfig, transplant
from tests.test_transfer import weights_of

PARENT = ModelConfig(n_layers=2, n_heads=2, d_model=8, n_ctx=12, d_vocab=9)
DEEP = dataclasses.replace(PARENT, n_layers=5)
WIDE = dataclasses.replace(PARENT, n_heads=6, d_model=24)
KEEP = TransferConfig(token_embedding="retain", unembedding="retain", positions="carry")
FRESH = TransferConfig(token_embedding="fresh", unembedding="fresh", positions="fresh")
TOKENS = torch.randint(9, (3, 12), generator=stream(0, "tokens"))


def grown(
    config: ModelConfig, parent: ModelConfig = PARENT, selector: str = "all", **strategies
) -> dict[str, torch.Tensor]:
    donor = Donor(weights_of(parent, 1), parent, selector)
    transfer = dataclasses.replace(FRESH if strategies.get("width") == "corner" else KEEP, **strategies)
    return transplant(weights_of(config, 0), config, [donor], transfer)


def logits(config: ModelConfig, weights: dict[str, torch.Tensor]) -> torch.Tensor:
    return with_weights(HookedTransformer.from_seed(config, 0), weights)(TOKENS).detach()


@pytest.mark.parametrize(
    ("layers", "n_layers", "expected"),
    [
        ("first", 5, [0, 1, None, None, None]),
        ("first", 1, [0]),
        ("tile", 5, [0, 1, 0, 1, 0]),
        ("interleave", 5, [0, 0, 0, 1, 1]),
        ("interleave", 1, [0]),
        ("identity", 5, [0, None, None, 1, None]),
    ],
)
def test_each_layer_is_the_one_that_is_said(layers, n_layers, expected):
    config = dataclasses.replace(PARENT, n_layers=n_layers)
    parent, fresh, made = weights_of(PARENT, 1), weights_of(config, 0), grown(config, layers=layers)
    for layer, source in enumerate(expected):
        for name in (name for name in made if name.startswith(f"blocks.{layer}.")):
            kind = name.split(".", 2)[2]
            silent = layers == "identity" and source is None
            if silent and kind in ("attn.W_O", "attn.b_O", "mlp.W_out", "mlp.b_out"):
                assert not made[name].any(), name
            elif source is None and not silent:
                assert torch.equal(made[name], fresh[name]), name
            elif not silent:
                assert torch.equal(made[name], parent[f"blocks.{source}.{kind}"]), name
    assert torch.equal(made["ln_final.w"], parent["ln_final.w"])


def test_added_layers_that_write_nothing_change_nothing():
    parent = logits(PARENT, weights_of(PARENT, 1))
    torch.testing.assert_close(logits(DEEP, grown(DEEP, layers="identity")), parent)
    for layers in ("tile", "interleave"):
        assert not torch.allclose(logits(DEEP, grown(DEEP, layers=layers)), parent, atol=0.1)


def test_what_a_shallow_parent_has_not_is_not_its_to_give():
    """It had made the other parent's layers fresh again; a stored transfer is made as it was."""
    shallow = dataclasses.replace(PARENT, n_layers=1)
    whole, part = Donor(weights_of(PARENT, 1), PARENT, "all"), Donor(weights_of(shallow, 2), shallow, "attn")
    later = dataclasses.replace(KEEP, layers="first", overlap="later_wins")
    with pytest.raises(ValueError, match=r"'attn' speaks of blocks.1.attn.*another parent gives; select the layers"):
        transplant(weights_of(PARENT, 0), PARENT, [whole, part], later)
    made = transplant(weights_of(PARENT, 0), PARENT, [whole, part], later, stored=True)
    torch.testing.assert_close(made["blocks.0.attn.W_Q"], part.weights["blocks.0.attn.W_Q"])
    torch.testing.assert_close(made["blocks.1.attn.W_Q"], weights_of(PARENT, 0)["blocks.1.attn.W_Q"])
    second = dataclasses.replace(whole, selector="blocks.1.attn")
    made = transplant(weights_of(PARENT, 0), PARENT, [part, second], dataclasses.replace(KEEP, layers="first"))
    torch.testing.assert_close(made["blocks.1.attn.W_Q"], whole.weights["blocks.1.attn.W_Q"])


@pytest.mark.parametrize("width", ["tile", "block_diagonal"])
def test_a_wider_tied_model_needs_no_unembedding(width):
    tied = dataclasses.replace(WIDE, tied=True)
    made = grown(tied, width=width, token_embedding="fresh", unembedding="fresh")
    assert "unembed.W_U" not in made
    untied = grown(WIDE, width=width)
    torch.testing.assert_close(made["blocks.1.mlp.W_in"], untied["blocks.1.mlp.W_in"])


@pytest.mark.parametrize("width", ["tile", "block_diagonal"])
@pytest.mark.parametrize("tied", [False, True])
def test_copies_of_the_stream_compute_what_the_parent_does(width, tied):
    parent = dataclasses.replace(PARENT, tied=tied)
    expected = logits(parent, weights_of(parent, 1))
    torch.testing.assert_close(logits(WIDE, grown(WIDE, parent, width=width)), expected, atol=1e-4, rtol=1e-4)
    deep = dataclasses.replace(WIDE, n_layers=5)
    made = grown(deep, parent, width=width, layers="identity")
    torch.testing.assert_close(logits(deep, made), expected, atol=1e-4, rtol=1e-4)


def test_nothing_goes_between_the_blocks_of_a_block_diagonal_model():
    """Each copy of heads and neurons reads one copy of the stream, and writes to the same."""
    made = grown(WIDE, width="block_diagonal")
    for name in ("attn.W_Q", "attn.W_O", "mlp.W_in", "mlp.W_out"):
        matrix = made[f"blocks.1.{name}"]
        if name == "attn.W_Q":
            matrix = rearrange(matrix, "head model dim -> model (head dim)")
        if name == "attn.W_O":
            matrix = rearrange(matrix, "head dim model -> (head dim) model")
        rows, columns = (size // 3 for size in matrix.shape)
        for row in range(3):
            for column in range(3):
                block = matrix[row * rows : (row + 1) * rows, column * columns : (column + 1) * columns]
                assert block.any() == (row == column), (name, row, column)


def test_a_corner_is_the_parents_and_the_rest_is_fresh():
    config = dataclasses.replace(PARENT, n_heads=4, d_model=16, d_mlp=40)
    parent, fresh, made = weights_of(PARENT, 1), weights_of(config, 0), grown(config, width="corner")
    for name, tensor in made.items():
        expected = fresh[name].clone()
        if "embed" not in name:
            expected[tuple(map(slice, parent[name].shape))] = parent[name]
        assert torch.equal(tensor, expected), name


def test_selectors_speak_of_the_models_layers_and_heads():
    fresh, made = weights_of(DEEP, 0), grown(DEEP, selector="blocks.4.attn", layers="tile")
    for name, tensor in made.items():
        if not name.startswith("blocks.4.attn") and "embed" not in name:
            assert torch.equal(tensor, fresh[name]), name
    assert torch.equal(made["blocks.4.attn.W_Q"], weights_of(PARENT, 1)["blocks.0.attn.W_Q"])
    fresh, made = weights_of(WIDE, 0), grown(WIDE, selector="blocks.0.attn.head.5", width="tile")
    changed = [
        head for head in range(6) if not torch.equal(made["blocks.0.attn.W_Q"][head], fresh["blocks.0.attn.W_Q"][head])
    ]
    assert changed == [5]


@pytest.mark.parametrize("layers", ["same", *LAYERS])
@pytest.mark.parametrize("width", ["same", *WIDTHS])
def test_to_the_same_shape_every_strategy_is_the_transfer_itself(layers, width):
    expected = (
        grown(PARENT)
        if width != "corner"
        else transplant(weights_of(PARENT, 0), PARENT, [Donor(weights_of(PARENT, 1), PARENT, "all")], FRESH)
    )
    made = grown(PARENT, layers=layers, width=width)
    assert all(torch.equal(made[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("config", "strategies", "message"),
    [
        (DEEP, {"width": "tile"}, "n_layers is 2 in the parent and 5 in the model: say which become which"),
        (WIDE, {"layers": "tile"}, "width=same wants the model's sizes equal"),
        (dataclasses.replace(PARENT, n_layers=1), {"layers": "identity"}, "identity adds layers"),
        (dataclasses.replace(PARENT, n_heads=2, d_model=24), {"width": "tile"}, "the same multiple .* d_head 4 and 12"),
        (dataclasses.replace(WIDE, d_mlp=64), {"width": "block_diagonal"}, "d_mlp 32 and 64"),
        (dataclasses.replace(PARENT, n_heads=1, d_model=4), {"width": "corner"}, "at least as large"),
    ],
)
def test_shapes_that_do_not_fit_are_one_line(config, strategies, message):
    with pytest.raises(ValueError, match=message):
        grown(config, **strategies)


def test_a_corner_has_no_embeddings():
    with pytest.raises(ValueError, match="set token_embedding, unembedding and positions to fresh"):
        transplant(
            weights_of(WIDE, 0),
            WIDE,
            [Donor(weights_of(PARENT, 1), PARENT, "all")],
            dataclasses.replace(KEEP, width="corner"),
        )


def test_a_small_phase_1_warms_up_a_larger_phase_2(tmp_path: Path):
    store, train = RunStore(tmp_path), TrainConfig(steps=2, batch_size=4, evaluate_examples=4, kernel="torch")
    small, large = Architecture(n_layers=1, n_heads=2, d_model=8), Architecture(n_layers=2, n_heads=4, d_model=16)
    first = execute(RunConfig(task=TASKS.build("set", length=8), model=small, train=train), store)
    config = RunConfig(
        task=TASKS.build("set", length=8),
        model=large,
        train=train,
        parents=(Parent(run=first.id),),
        transfer=dataclasses.replace(KEEP, layers="identity", width="tile"),
    )
    run = execute(config, store)
    assert run.config["transfer"] == {
        "version": 1,
        "layers": "identity",
        "token_embedding": "retain",
        "unembedding": "retain",
        "width": "tile",
    }
    assert load_model(run).config.n_layers == 2
    with pytest.raises(ValueError, match="say with the transfer's layers and width"):
        execute(dataclasses.replace(config, transfer=FRESH), store)


def test_a_selector_of_layers_that_the_parent_has_not_wants_to_be_told():
    """They would have stayed fresh without a word; a selector of layers that both have says enough."""
    fresh, donor = weights_of(DEEP, 0), weights_of(PARENT, 1)
    for selector in ("all", "attn", "ln", "mlp-blocks.0"):
        with pytest.raises(ValueError, match=r"the parent has 2 layers: say which layers become which"):
            transplant(fresh, DEEP, [Donor(donor, PARENT, selector)], FRESH)
    made = transplant(fresh, DEEP, [Donor(donor, PARENT, "blocks.0.attn")], FRESH)
    assert torch.equal(made["blocks.0.attn.W_Q"], donor["blocks.0.attn.W_Q"])
    stored = transplant(fresh, DEEP, [Donor(donor, PARENT, "all")], FRESH, stored=True)
    first = transplant(fresh, DEEP, [Donor(donor, PARENT, "all")], dataclasses.replace(FRESH, layers="first"))
    for name, tensor in first.items():
        assert torch.equal(stored[name], tensor), name

"""Every ablation over the registry: what it keeps and destroys, and what all have in common."""

import math
import re

import pytest
import torch

from procpre_interp.ablate import ABLATIONS, LADDER, Ablation
from procpre_interp.core.config import from_dict, from_yaml, to_dict, to_yaml
from procpre_interp.core.seeding import stream
from procpre_interp.model import HookedTransformer, ModelConfig, select
from procpre_interp.pipeline.config import Parent
from tests.models import random_model, random_tokens

CONFIG = ModelConfig(n_layers=2, n_heads=4, d_model=16, n_ctx=9, d_vocab=11)
TIED = ModelConfig(n_layers=2, n_heads=4, d_model=16, n_ctx=9, d_vocab=11, tied=True)
PER_HEAD = ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V")

DOSES = {"noise": {"noise_std": 0.5}, "low_rank_mlp": {"rank": 2}, "without_strongest": {"share": 0.25}}
"""Fields without a default."""
NOTHING_RANDOM = {"signs_only", "flat_spectrum", "reversed_spectrum", "low_rank", "low_rank_mlp", "without_strongest"}

KEEPS = {
    "layer_norms_only": {"layer_norms"},
    "norms_only": {"norms"},
    "gaussian": set(),
    "row_norms_only": {"norms", "row_norms"},
    "random_singular_vectors": {"layer_norms", "biases", "norms", "spectrum"},
    "shuffle_within_layers": {"pooled_values"},
    "shuffle_within_tensors": {"norms", "pooled_values", "tensor_values"},
    "shuffle_within_columns": {"layer_norms", "biases", "norms", "pooled_values", "tensor_values", "column_values"},
    "shuffle_within_rows": {
        *("layer_norms", "biases", "norms", "row_norms", "pooled_values", "tensor_values", "row_values"),
    },
    "shuffle_across_heads": {"layer_norms", "norms", "pooled_values", "tensor_values", "values_over_heads"},
    "magnitudes_only": {"norms", "row_norms", "magnitudes"},
    "signs_only": {"signs"},
    "flat_spectrum": {"layer_norms", "biases", "norms", "singular_vectors"},
    "reversed_spectrum": {"layer_norms", "biases", "norms", "singular_vectors", "spectrum"},
    "low_rank": {"layer_norms", "biases", "singular_vectors"},
    "sign_flips": {"norms", "row_norms", "magnitudes"},
    "shuffle_neurons": {
        *("layer_norms", "norms", "pooled_values", "tensor_values", "values_over_heads", "spectrum", "function"),
    },
    "shuffle_heads": {"layer_norms", "norms", "pooled_values", "tensor_values", "values_over_heads", "function"},
    "keys_only": {"layer_norms", "values_over_heads"},
    "values_only": {"layer_norms", "values_over_heads"},
    "unpair_neurons": {
        *("layer_norms", "biases", "norms", "pooled_values", "tensor_values", "column_values", "values_over_heads"),
        "spectrum",
    },
    "low_rank_mlp": {"layer_norms", "biases", "singular_vectors", "values_over_heads"},
    "without_strongest": {"layer_norms", "biases", "singular_vectors"},
    "noise": set(),
}
"""Everything that each keeps. What is not listed, it must destroy."""


def build(name, **fields):
    return ABLATIONS.build(name, **DOSES.get(name, {}), **fields)


def weights_of(config):
    return {name: p.detach() for name, p in random_model(config).named_parameters()}


def logits(weights, config):
    model = HookedTransformer(config, generator=stream(0, "model")).double()
    model.load_state_dict({name: tensor.double() for name, tensor in weights.items()}, strict=False)
    return model(random_tokens(config)).detach()


def leaf(name):
    return name.rpartition(".")[2]


def in_blocks(weights, prefix):
    return {name: tensor for name, tensor in weights.items() if "blocks." in name and leaf(name).startswith(prefix)}


def same(before, after, of):
    return all(torch.equal(of(before[name]), of(after[name])) for name in before)


def close(before, after, of):
    return all(torch.allclose(of(before[name]), of(after[name]), rtol=1e-5, atol=1e-6) for name in before)


def pooled(weights):
    """Sorted values of each fused tensor of GPT-2, as plain lists."""
    pools = {}
    for name, tensor in in_blocks(weights, ("W_", "b_")).items():
        stored = name.replace("W_Q", "W_QKV").replace("W_K", "W_QKV").replace("W_V", "W_QKV")
        stored = stored.replace("b_Q", "b_QKV").replace("b_K", "b_QKV").replace("b_V", "b_QKV")
        pools.setdefault(stored, []).extend(tensor.flatten().tolist())
    assert len(pools) == 2 * 8
    return {name: sorted(values) for name, values in pools.items()}


def vectors_fit(before, after):
    """In the basis of the old singular vectors the new matrix is diagonal."""
    for name, matrix in in_blocks(before, "W_").items():
        left, _, right = torch.linalg.svd(matrix.double(), full_matrices=False)
        inner = left.mT @ after[name].double() @ right.mT
        diagonal = torch.diag_embed(inner.diagonal(dim1=-2, dim2=-1))
        rebuilt = left @ diagonal @ right
        if not torch.allclose(rebuilt, after[name].double(), atol=1e-5):
            return False
    return True


def kept(invariant, before, after, config):
    matrices, damaged = in_blocks(before, "W_"), in_blocks(after, "W_")
    if invariant == "layer_norms":
        norms = {name: tensor for name, tensor in before.items() if leaf(name) in ("w", "b")}
        return same(norms, after, lambda x: x)
    if invariant == "biases":
        return same(in_blocks(before, "b_"), after, lambda x: x)
    if invariant == "norms":
        return close(in_blocks(before, ("W_", "b_")), after, lambda x: x.flatten().norm())
    if invariant == "row_norms":
        return close(matrices, damaged, lambda x: x.norm(dim=-1))
    if invariant == "pooled_values":
        return pooled(before) == pooled(after)
    if invariant == "tensor_values":
        return same(in_blocks(before, ("W_", "b_")), after, lambda x: x.flatten().sort().values)
    if invariant == "row_values":
        return same(matrices, damaged, lambda x: x.sort(-1).values)
    if invariant == "column_values":
        return same(matrices, damaged, lambda x: x.sort(-2).values)
    if invariant == "values_over_heads":
        per_head = {name: tensor for name, tensor in before.items() if leaf(name) in PER_HEAD}
        return same(per_head, after, lambda x: x.sort(0).values)
    if invariant == "magnitudes":
        return same(matrices, damaged, torch.abs)
    if invariant == "signs":
        return same(matrices, damaged, torch.sign)
    if invariant == "spectrum":
        return close(matrices, damaged, torch.linalg.svdvals)
    if invariant == "singular_vectors":
        return vectors_fit(before, after)
    assert invariant == "function"
    return torch.allclose(logits(before, config), logits(after, config), rtol=1e-10, atol=1e-10)


def test_the_table_and_the_ladder_name_every_ablation():
    assert set(KEEPS) == set(ABLATIONS)
    assert sorted(LADDER) == sorted(set(ABLATIONS) - set(DOSES))
    for name in ABLATIONS:
        for text in (ABLATIONS[name].keeps, ABLATIONS[name].destroys):
            assert text
            assert "\n" not in text


@pytest.mark.parametrize("config", [CONFIG, TIED], ids=["untied", "tied"])
@pytest.mark.parametrize("name", list(KEEPS))
def test_it_keeps_what_it_says_and_nothing_else(name, config):
    weights = weights_of(config)
    damaged = build(name).apply(weights, config, generator=stream(0, "damage"))
    found = {what for what in set().union(*KEEPS.values()) if kept(what, weights, damaged, config)}
    assert found == KEEPS[name]


SELECTORS = (
    "blocks + ln_final",
    "all",
    "attn",
    "blocks.1.mlp",
    "attn.head.0 + attn.head.2",
    "blocks.1.attn.head.3.W_V",
    "mlp.W_out",
    "ln",
    "ln.w",
)
MLP_ONLY = {"shuffle_neurons", "keys_only", "values_only", "unpair_neurons", "low_rank_mlp"}
REFUSED = {
    "ln": {name for name, what in KEEPS.items() if "layer_norms" in what},
    "blocks.1.mlp": {"shuffle_heads", "shuffle_across_heads"},
    "attn": MLP_ONLY,
    "attn.head.0 + attn.head.2": MLP_ONLY,
    "blocks.1.attn.head.3.W_V": {"shuffle_heads", "shuffle_across_heads", *MLP_ONLY},
    "mlp.W_out": {"shuffle_heads", "shuffle_across_heads", "shuffle_neurons", "values_only"},
}
REFUSED["ln.w"] = REFUSED["ln"] | {"sign_flips", "magnitudes_only", "row_norms_only"}
"""Selectors with nothing that the ablation can damage, or only a part of what it must move together."""


@pytest.mark.parametrize("config", [CONFIG, TIED], ids=["untied", "tied"])
@pytest.mark.parametrize("selector", SELECTORS)
@pytest.mark.parametrize("name", list(ABLATIONS))
def test_pure_repeatable_and_within_the_selector(name, selector, config):
    weights = weights_of(config)
    before = {key: tensor.clone() for key, tensor in weights.items()}
    ablation = build(name, selector=selector)
    if name in REFUSED.get(selector, ()):
        with pytest.raises(ValueError, match=re.escape(f"selector {selector!r}") + ".* (name|add) "):
            ablation.apply(weights, config, generator=stream(0, "damage"))
        return
    backwards = dict(reversed(weights.items()))
    once = ablation.apply(weights, config, generator=stream(0, "damage"))
    again = ablation.apply(backwards, config, generator=stream(0, "damage"))
    other = ablation.apply(weights, config, generator=stream(1, "damage"))
    assert list(once) == list(weights)
    assert same(before, weights, lambda x: x), "the input was changed"
    assert same(once, again, lambda x: x), "the result depends on more than the generator"
    constant = (name, selector) == ("norms_only", "ln.w")
    assert same(once, other, lambda x: x) == (name in NOTHING_RANDOM or constant)

    spared = {key: torch.ones_like(tensor, dtype=torch.bool) for key, tensor in weights.items()}
    for piece in select(config, selector):
        spared[piece.parameter][piece.index] = False
    assert all(torch.equal(once[key][spared[key]], before[key][spared[key]]) for key in weights)
    assert not same(once, before, lambda x: x)
    assert all(tensor.isfinite().all() for tensor in once.values())


@pytest.mark.parametrize("name", list(ABLATIONS))
def test_dtype_stays_and_gradients_are_left_behind(name):
    weights = {key: p.bfloat16().requires_grad_() for key, p in weights_of(CONFIG).items()}
    damaged = build(name).apply(weights, CONFIG, generator=stream(0, "damage"))
    for key, tensor in damaged.items():
        assert (tensor.dtype, tensor.shape, tensor.requires_grad) == (torch.bfloat16, weights[key].shape, False)


@pytest.mark.parametrize("name", list(ABLATIONS))
def test_yaml_round_trip(name):
    for ablation in (build(name), build(name, selector="attn - blocks.0")):
        assert from_dict(Ablation, to_dict(ablation)) == ablation
        parent = Parent(run="0123", ablation=ablation)
        assert from_yaml(Parent, to_yaml(parent)) == parent


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        *(("noise", {"noise_std": value}) for value in (-0.1, math.inf, math.nan)),
        *(("low_rank_mlp", {"rank": value}) for value in (0, -1)),
        *((name, {"share": value}) for name in ("low_rank", "without_strongest") for value in (0, 1.1, math.nan)),
        *(("sign_flips", {"share": value}) for value in (-0.1, 1.1, math.nan)),
    ],
)
def test_doses_out_of_range_are_refused(name, fields):
    (field,) = fields
    with pytest.raises(ValueError, match=f"{field}=.*; {field} must be"):
        ABLATIONS.build(name, **fields)

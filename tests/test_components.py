"""The component map: every weight is somewhere, and selectors mean what they say."""

import dataclasses
import re

import pytest
import torch

from procpre_interp.model import (
    WeightSlice,
    flat_mask,
    matrix_parameters,
    parameter_names,
    select,
    to_huggingface,
)
from tests.models import TINY, random_model

TIED = dataclasses.replace(TINY, tied=True)


@pytest.fixture(params=[TINY, TIED], ids=["untied", "tied"])
def model(request):
    return random_model(request.param)


def test_names_are_those_of_the_model(model):
    assert parameter_names(model.config) == [name for name, _ in model.named_parameters()]


@pytest.mark.parametrize(
    "parts",
    [
        ["embed", "pos", "unembed", "ln", "attn", "mlp"],
        ["embed", "pos", "unembed", "ln_final", "blocks"],
        ["embed", "pos", "unembed", "ln_final", "blocks.0", "blocks.1"],
        ["all-blocks", "ln1", "ln2", "mlp", "attn.b_O", "attn.head.0", "attn.head.1", "attn.head.2"],
        ["all-blocks", "blocks.0", *(f"blocks.1.{part}" for part in ("ln", "attn", "mlp"))],
    ],
)
def test_parts_cover_every_weight_exactly_once(model, parts):
    if model.config.tied:
        parts = [part for part in parts if part != "unembed"]
    count = sum(flat_mask(model, part).int() for part in parts)
    assert torch.equal(count, torch.ones_like(model.flat, dtype=torch.int32))


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("blocks.1.mlp", [f"blocks.1.mlp.{leaf}" for leaf in ("W_in", "b_in", "W_out", "b_out")]),
        ("blocks.0.ln", [f"blocks.0.ln{i}.{leaf}" for i in (1, 2) for leaf in "wb"]),
        ("ln_final", ["ln_final.w", "ln_final.b"]),
        ("attn.W_V", ["blocks.0.attn.W_V", "blocks.1.attn.W_V"]),
        ("mlp.W_in - blocks.0", ["blocks.1.mlp.W_in"]),
        ("pos", ["pos_embed.W_pos"]),
        ("embed.W_E, ln_final.w", ["embed.W_E", "ln_final.w"]),
        ("unembed", ["unembed.W_U"]),
        ("blocks.0.attn.head.0+blocks.0.attn.head.1+blocks.0.attn.head.2-attn.W_O", 
         [f"blocks.0.attn.{leaf}" for leaf in ("W_Q", "W_K", "W_V", "b_Q", "b_K", "b_V")]),
    ],
)  # fmt: skip
def test_whole_parameters(selector, expected):
    assert select(TINY, selector) == [WeightSlice(name) for name in expected]


def test_a_head_has_its_rows_of_seven_parameters():
    parts = select(TINY, "blocks.1.attn.head.2")
    leaves = ["W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V"]
    assert parts == [WeightSlice(f"blocks.1.attn.{leaf}", (2,)) for leaf in leaves]
    assert select(TINY, "blocks.1.attn.head.2.W_V") == [WeightSlice("blocks.1.attn.W_V", (2,))]
    assert select(TINY, "attn.head.0.b_Q") == [WeightSlice(f"blocks.{layer}.attn.b_Q", (0,)) for layer in (0, 1)]


def test_terms_apply_left_to_right():
    assert select(TINY, "attn-blocks.0+blocks.0.attn.b_O") == [
        WeightSlice("blocks.0.attn.b_O"),
        *select(TINY, "blocks.1.attn"),
    ]
    assert select(TINY, "blocks.0.attn.b_O+attn-blocks.0") == select(TINY, "blocks.1.attn")
    assert select(TINY, " attn +mlp, ln1") == select(TINY, "ln1,mlp,attn,attn")
    without_head = select(TINY, "blocks.0.attn.W_Q - blocks.0.attn.head.1")
    assert without_head == [WeightSlice("blocks.0.attn.W_Q", (0,)), WeightSlice("blocks.0.attn.W_Q", (2,))]


def test_tied_embeddings_are_one_parameter():
    assert select(TIED, "embed") == select(TIED, "unembed") == select(TIED, "embed+unembed")
    assert select(TIED, "unembed") == [WeightSlice("embed.W_E")]


def test_an_index_reads_and_writes(model):
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    for part in select(model.config, "attn.head.1 + mlp.b_in"):
        assert weights[part.parameter][part.index].numel() > 0
        weights[part.parameter][part.index] = 7.0
    changed = torch.cat([(weights[name] == 7.0).flatten() for name, _ in model.named_parameters()])
    assert torch.equal(changed, flat_mask(model, "attn.head.1 + mlp.b_in"))


def test_matrices_are_what_hugging_face_stores_with_two_axes(model):
    matrices = set(matrix_parameters(model.config))
    n_theirs = sum(p.numel() for p in to_huggingface(model).parameters() if p.ndim >= 2)
    assert sum(p.numel() for name, p in model.named_parameters() if name in matrices) == n_theirs
    assert {name.rpartition(".")[2][:2] for name in matrices} == {"W_"}


@pytest.mark.parametrize(
    ("selector", "says"),
    [
        ("atn", "unknown component 'atn'. Did you mean 'attn'?"),
        ("attn + blocks.5", "blocks.L for L in 0..1"),
        ("blocks.0.attn.head.3", "attn.head.H for H in 0..2"),
        ("blocks.1.mlp.W_on", "Did you mean 'blocks.1.mlp.W_in'?"),
        ("blocks.0.head.1", "Did you mean 'blocks.0.attn.head.1'?"),
        ("blocks.0.attn.head.1.b_O", "unknown component"),
        ("attn - attn", "selects nothing"),
        ("", "lacks a term"),
        ("- attn", "lacks a term"),
        ("attn +", "lacks a term"),
        ("attn,,mlp", "lacks a term"),
    ],
)
def test_errors_say_what_there_is(selector, says):
    with pytest.raises(ValueError, match=re.escape(says)) as error:
        select(TINY, selector)
    assert "\n" not in str(error.value)


def test_tied_models_have_no_unembed_parameter():
    with pytest.raises(ValueError, match=r"unknown component 'unembed\.W_U'"):
        select(TIED, "unembed.W_U")

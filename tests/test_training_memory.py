"""Memory of training counted from the shape, against what torch keeps."""

import dataclasses
from typing import Literal

import pytest
import torch

from procpre_interp.core.seeding import stream
from procpre_interp.model import HookedTransformer, ModelConfig
from procpre_interp.model.flops import parameter_count
from procpre_interp.model.training_memory import activation_bytes, training_memory
from procpre_interp.train.loss import summed_loss_nats

# Heads too wide for narrow attention, which keeps other things.
SHAPES = (
    ModelConfig(n_layers=2, n_heads=2, d_model=64, n_ctx=40, d_vocab=101, tied=True),
    ModelConfig(n_layers=3, n_heads=2, d_model=96, n_ctx=24, d_vocab=57, d_mlp=80),
)
GPT2_SMALL = ModelConfig(n_layers=12, n_heads=12, d_model=768, n_ctx=1024, d_vocab=50257, tied=True)


def kept_bytes(config: ModelConfig, rows: int, *, precision: str, recompute: bool) -> int:
    """Bytes of the memory, other than the parameters', that autograd holds on to."""
    model = HookedTransformer(config, generator=stream(0, "memory"))
    model.recompute = recompute
    own, kept = model.flat.untyped_storage().data_ptr(), {}

    def note(x: torch.Tensor) -> torch.Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() != own:
            kept[storage.data_ptr()] = storage  # held, so that no address is used twice
        return x

    tokens = torch.zeros(rows, config.n_ctx, dtype=torch.int64)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            final = model.final(tokens)
        dtype = torch.bfloat16 if precision == "bfloat16" else None
        summed_loss_nats(final, model.W_U, torch.zeros_like(tokens), dtype=dtype)
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("config", SHAPES)
def test_activations_are_those_that_torch_keeps(config: ModelConfig, precision: Literal["float32", "bfloat16"]):
    found = kept_bytes(config, 3, precision=precision, recompute=False)
    counted = activation_bytes(config, rows=3, length=config.n_ctx, precision=precision, fused=precision == "float32")
    assert counted == found


def test_gradient_checkpointing_keeps_the_stream_and_one_block():
    config, tokens = SHAPES[0], 3 * SHAPES[0].n_ctx
    fewer = dataclasses.replace(config, n_layers=config.n_layers - 1)
    block = activation_bytes(config, rows=3, length=config.n_ctx) - activation_bytes(fewer, rows=3, length=config.n_ctx)
    counted = activation_bytes(config, rows=3, length=config.n_ctx, recompute=True)
    # The block's come back in the backward pass, when what went into it is there.
    found = kept_bytes(config, 3, precision="float32", recompute=True) + block - 4 * config.d_model * tokens
    assert counted == found


def test_processes_share_what_is_kept_of_weights():
    alone = training_memory(GPT2_SMALL, rows=1, length=1024)
    assert alone.weights == alone.gradients == alone.moments // 2 == 4 * parameter_count(GPT2_SMALL)
    shared = training_memory(GPT2_SMALL, rows=1, length=1024, processes=8)
    assert shared.moments == alone.moments // 8
    assert shared.activations == alone.activations
    assert alone.weights // 8 < shared.weights < alone.weights

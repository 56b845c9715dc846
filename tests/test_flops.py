"""Compute counted from the shape, against torch's own count of what is done."""

import dataclasses

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS
from procpre_interp.model import HookedTransformer, ModelConfig
from procpre_interp.model.flops import forward_flops, parameter_count, training_flops
from procpre_interp.pipeline.config import Architecture, RunConfig
from procpre_interp.pipeline.execute import execute, fresh_model
from procpre_interp.store.outcomes import cost_of, scores
from procpre_interp.store.store import RunStore
from procpre_interp.train import TrainConfig

# Fused attention is a single operation, which torch counts on GPUs alone.
SHAPES = (
    ModelConfig(n_layers=2, n_heads=4, d_model=16, n_ctx=63, d_vocab=91),
    ModelConfig(n_layers=3, n_heads=2, d_model=32, n_ctx=40, d_vocab=257, d_mlp=48, tied=True),
)


@pytest.mark.parametrize("config", SHAPES)
def test_the_forward_pass_takes_what_torch_counts(config):
    model = HookedTransformer(config, generator=stream(0, "flops"))
    tokens = torch.zeros(2, config.n_ctx, dtype=torch.int64)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(tokens)
    assert counter.get_total_flops() == forward_flops(config, config.n_ctx) * tokens.numel()


@pytest.mark.parametrize("config", SHAPES)
def test_the_backward_pass_takes_twice_as_much(config):
    model = HookedTransformer(config, generator=stream(0, "flops"))
    tokens = torch.zeros(2, config.n_ctx, dtype=torch.int64)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(tokens).sum().backward()
    # An embedding has no gradient of its input, and none is counted for looking it up.
    assert counter.get_total_flops() == training_flops(config, config.n_ctx, tokens.numel())


def test_a_run_says_what_it_took(tmp_path):
    config = RunConfig(
        task=TASKS.build("haystack"), train=TrainConfig(steps=3, batch_size=10, warmup_steps=1, evaluate_every=3)
    )
    store = RunStore(tmp_path)
    run = execute(config, store)
    wanted = training_flops(fresh_model(config).config, 63, run.summary["tokens"]) / 1e12
    assert run.summary["teraflops"] == pytest.approx(wanted)
    assert scores(run, [run, run])["phase1_teraflops"] == pytest.approx(2 * wanted)
    assert cost_of([run.id], store)["teraflops"] == pytest.approx(wanted)


def test_the_scale_of_fresh_weights_is_part_of_a_run():
    task = TASKS.build("haystack")
    plain, wide = (RunConfig(task=task, model=Architecture(init_std=std)) for std in (0.02, 0.1))
    assert plain.run_id == RunConfig(task=task).run_id != wide.run_id
    small, large = (fresh_model(config).blocks[0].attn.W_Q for config in (plain, wide))
    assert torch.allclose(5 * small, large)
    with pytest.raises(ValueError, match="init_std=0.0; init_std must be above 0"):
        dataclasses.replace(plain, model=Architecture(init_std=0.0))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("d_mlp", [None, 5])
def test_parameters_are_those_of_the_model(tied: bool, d_mlp: int | None):
    shape = ModelConfig(n_layers=3, n_heads=2, d_model=8, d_mlp=d_mlp, n_ctx=16, d_vocab=11, tied=tied)
    assert parameter_count(shape) == HookedTransformer.from_seed(shape, 0).flat.numel()

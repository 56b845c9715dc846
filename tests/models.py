"""Models that several test files use."""

import dataclasses

import torch

from procpre_interp.data.counterfactual import Pairs
from procpre_interp.model import HookedTransformer, ModelConfig
from procpre_interp.seeding import stream

TINY = ModelConfig(n_layers=2, n_heads=3, d_model=12, n_ctx=10, d_vocab=11)


def random_model(config: ModelConfig = TINY, *, seed: int = 0, std: float = 0.3) -> HookedTransformer:
    """A model with no parameter at a special value: biases that are not zero, gains that are not one."""
    model = HookedTransformer(config, generator=stream(seed, "init"))
    noise = torch.randn(model.flat.shape, generator=stream(seed, "noise"))
    with torch.no_grad():
        model.flat.add_(std * noise)
    return model


def random_tokens(config: ModelConfig = TINY, *, batch: int = 3, length: int = 7, seed: int = 0) -> torch.Tensor:
    return torch.randint(config.d_vocab, (batch, length), generator=stream(seed, "tokens"))


@torch.no_grad()
def told_apart(model: HookedTransformer, pairs: Pairs) -> Pairs:
    """The same sequences with answers that this model prefers in each clean run, so that it has a gap to share out."""
    rows = torch.arange(len(pairs))
    clean, corrupted = (model(tokens)[rows, pairs.positions] for tokens in (pairs.clean, pairs.corrupted))
    rise = clean - corrupted
    return dataclasses.replace(pairs, answers=rise.argmax(-1), wrong=rise.argmin(-1))

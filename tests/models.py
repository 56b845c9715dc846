"""Models that several test files use."""

import torch

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

"""Models that several test files use."""

import dataclasses

import torch

from procpre_interp.core.seeding import stream
from procpre_interp.data.counterfactual import Pairs
from procpre_interp.model import HookedTransformer, ModelConfig

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
    """The same sequences, three times over, with answers that this model prefers in each clean run, and there more than
    in the corrupted one: so many pairs, all alike, tell it from chance.
    """
    rows = torch.arange(len(pairs))
    clean, corrupted = (model(tokens)[rows, pairs.positions] for tokens in (pairs.clean, pairs.corrupted))
    # What speaks for each token as the answer and each other one as the wrong one: both must.
    more = [x[:, :, None] - x[:, None, :] for x in (clean, clean - corrupted)]
    best, width = torch.minimum(*more).flatten(1).argmax(1), clean.shape[1]
    chosen = dataclasses.replace(pairs, answers=best // width, wrong=best % width)
    return Pairs(**{each.name: torch.cat([getattr(chosen, each.name)] * 3) for each in dataclasses.fields(Pairs)})

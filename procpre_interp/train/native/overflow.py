"""Sequences on which activations overflow: the kernel's LayerNorm gives zeros there, and a finite loss, torch NaN."""

import copy

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from procpre_interp.data.task import Batch
from procpre_interp.model import HookedTransformer
from procpre_interp.model.hits import hits

LARGEST_WEIGHT = 1e3
"""Size of parameters up to which activations of the kernel's widths stay below 1e17, and their squares are finite."""
ROWS = 64
"""Sequences that torch is given at a time."""


def may_overflow(flat: Float[Tensor, " n_parameters"]) -> bool:
    """Whether parameters are so large that activations could overflow: never in a training that goes well."""
    low, high = flat.aminmax()
    return bool(torch.maximum(-low, high) > LARGEST_WEIGHT)


@torch.no_grad()
def overflows(
    model: HookedTransformer, flat: Float[Tensor, " n_parameters"], batch: Batch
) -> tuple[Bool[Tensor, " batch"], Int[Tensor, " batch"]]:
    """Whether torch's loss of each sequence, with these parameters, is not finite, and the number of its `hits`: an
    infinite logit has no loss, and may be the largest all the same."""
    if flat.data_ptr() != model.flat.data_ptr():
        model = copy.deepcopy(model)
        model.flat.copy_(flat)
    width = min(batch.tokens.shape[1], model.config.n_ctx)
    found = torch.zeros(len(batch), dtype=torch.bool)
    correct = torch.zeros(len(batch), dtype=torch.int64)
    for start in range(0, len(batch), ROWS):
        rows = slice(start, start + ROWS)
        mask = batch.loss_mask[rows, :width]
        targets = batch.targets[rows, :width].where(mask, 0)
        logits = model(batch.tokens[rows, :width])
        loss = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
        found[rows] = ~loss.where(mask, 0.0).sum(1).isfinite()
        correct[rows] = (hits(logits, targets) & mask).sum(1)
    return found, correct

"""When a prediction is right: one rule for evaluation, native kernel, lens, masks and linear probes."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def hits(logits: Float[Tensor, "*place d_vocab"], targets: Int[Tensor, "*place"]) -> Bool[Tensor, "*place"]:
    """Whether the target's logit is strictly larger than every other one.

    A tie is no hit, whichever ids tie, so a model that gives all tokens the same logit has accuracy 0. (The largest
    logit's index would give the tie to the lowest id, and the number of larger logits to every token at once.) NaN is
    neither a hit nor smaller than one. The native kernel counts by the same rule, `is_hit` in kernel.cpp.
    """
    own = torch.gather(logits, -1, targets[..., None])
    return (logits < own).sum(-1) == logits.shape[-1] - 1

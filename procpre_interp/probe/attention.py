"""Probes of attention patterns, from token ids alone."""

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from procpre_interp.data.task import Batch
from procpre_interp.model import HookedTransformer


def row_entropy_bits(pattern: Float[Tensor, "*row key_pos"]) -> Float[Tensor, "*row"]:
    """Shannon entropy of each attention row, in bits; a weight of 0 counts nothing."""
    return -torch.xlogy(pattern, pattern).sum(-1) / torch.log(torch.tensor(2.0, device=pattern.device))


@torch.no_grad()
def attention_entropy(model: HookedTransformer, batch: Batch, *, max_sequences: int = 64) -> pd.DataFrame:
    """Entropy of each head's attention, one row a head: layer, head, entropy_bits, entropy_relative, n_rows.

    `entropy_bits` is the mean over all queries at real tokens. `entropy_relative` is the mean of each row's entropy
    over log2(i + 1), the most that a causal row of i + 1 choices can have; the first row, which has no choice, is left
    out of it. `max_sequences` are held at once, which bounds the memory and not the numbers.
    """
    layers = range(model.config.n_layers)
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in layers]
    shape = (model.config.n_layers, model.config.n_heads)
    bits, relative = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
    n_rows = n_choices = 0
    for start in range(0, len(batch), max_sequences):
        part = batch[slice(start, start + max_sequences)].to(model.flat.device)
        _, cache = model.run_with_cache(part.tokens, names_filter=names)
        t = torch.arange(part.tokens.shape[1], device=part.tokens.device)
        real = t < part.lengths[:, None]
        most = torch.log2(t + 1.0)
        for layer, name in enumerate(names):
            entropy = row_entropy_bits(cache[name]).double()
            bits[layer] += (entropy * real[:, None]).sum((0, 2)).cpu()
            share = (entropy[..., 1:] / most[1:]) * real[:, None, 1:]
            relative[layer] += share.sum((0, 2)).cpu()
        n_rows += int(real.sum())
        n_choices += int(real[:, 1:].sum())
    rows = [
        {
            "layer": layer,
            "head": head,
            "entropy_bits": float(bits[layer, head] / n_rows),
            "entropy_relative": float(relative[layer, head] / n_choices),
            "n_rows": n_rows,
        }
        for layer in layers
        for head in range(model.config.n_heads)
    ]
    return pd.DataFrame(rows)

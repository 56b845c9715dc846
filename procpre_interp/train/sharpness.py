"""Attention entropy that can be differentiated, and heads scaled to have a given one; no other head is made."""

from collections.abc import Sequence

import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from procpre_interp.data.task import Batch
from procpre_interp.model import HookedTransformer, ModelConfig, select

Heads = Sequence[tuple[int, int]]
"""Layer and head."""

MOST_DOUBLINGS = 20.0
"""Factors on a head's scores lie between 2^-20 and 2^20: fresh queries and keys are both tens of times smaller than
trained ones, and have no biases."""
BISECTIONS = 40


def heads_of(config: ModelConfig, selector: str) -> list[tuple[int, int]]:
    """The heads of which a selector names query weights, by layer. Raises `ValueError` where it names none."""
    heads = []
    for part in select(config, selector):
        if part.parameter.endswith(".attn.W_Q"):
            layer = int(part.parameter.split(".")[1])
            heads += [(layer, head) for head in (part.index or range(config.n_heads))]
    if not heads:
        raise ValueError(f"selector {selector!r} names no head; name some by attn, blocks.1.attn or attn.head.2")
    return heads


def relative_entropy(model: HookedTransformer, batch: Batch, heads: Heads) -> Float[Tensor, " head"]:
    """Entropy of each head's attention rows over log(i + 1), the most that row i can have; mean over rows.

    0 (one key) to 1 (even), in the order of `heads`. Rows of real tokens count, but for the first of a sequence, which
    has no choice: the `entropy_relative` of `probe.attention_scores`. Gradients reach all that the heads read.
    """
    batch = batch.to(model.flat.device)
    tokens = batch.tokens[:, : int(batch.lengths.max())]
    wanted: dict[int, list[int]] = {}
    for layer, head in heads:
        wanted.setdefault(layer, []).append(head)
    resid = model.embed(tokens) + model.pos_embed(tokens)
    found: dict[tuple[int, int], Float[Tensor, ""]] = {}
    for layer in range(max(wanted) + 1):
        if layer in wanted:
            values = _layer_entropy(_scores(model, layer, resid, wanted[layer]), batch.lengths)
            found |= {(layer, head): value for head, value in zip(wanted[layer], values)}
        if layer < max(wanted):
            resid = model.block(layer)(resid)
    return torch.stack([found[place] for place in heads])


@torch.no_grad()
def match_entropy(model: HookedTransformer, batch: Batch, heads: Heads, wanted: Float[Tensor, " head"]) -> None:
    """Scale queries and keys of each head alike, so that its `relative_entropy` is the wanted one, layer after layer.

    Entropy falls as scores grow, so the factor is found by bisection of its logarithm; where no factor within
    `MOST_DOUBLINGS` does it, it is the nearest, and whoever calls this must look at what came out.
    """
    batch = batch.to(model.flat.device)
    tokens = batch.tokens[:, : int(batch.lengths.max())]
    resid = model.embed(tokens) + model.pos_embed(tokens)
    for layer in range(max(layer for layer, _ in heads) + 1):
        block = model.block(layer)
        own = [(index, head) for index, (place, head) in enumerate(heads) if place == layer]
        if own:
            indices, numbers = map(list, zip(*own))
            scores = _scores(model, layer, resid, numbers)
            low = torch.full((len(own),), -MOST_DOUBLINGS, device=scores.device)
            high = -low
            for _ in range(BISECTIONS):
                middle = (low + high) / 2
                too_even = _layer_entropy(scores * 2 ** middle[:, None, None], batch.lengths) > wanted[indices]
                low, high = torch.where(too_even, middle, low), torch.where(too_even, high, middle)
            factor = 2 ** ((low + high) / 4)  # the square root: half of it on queries, half on keys
            for matrix, bias in ((block.attn.W_Q, block.attn.b_Q), (block.attn.W_K, block.attn.b_K)):
                matrix[numbers] *= factor[:, None, None]
                bias[numbers] *= factor[:, None]
        resid = block(resid)


def _scores(
    model: HookedTransformer, layer: int, resid: Float[Tensor, "batch pos d_model"], heads: list[int]
) -> Float[Tensor, "batch head query key"]:
    """Scores of some heads of a layer, -inf where causality hides the key."""
    block = model.block(layer)
    x, attn = block.ln1(resid), block.attn
    shapes = "batch pos d_model, head d_model d_head -> batch head pos d_head"
    q = einsum(x, attn.W_Q[heads], shapes) + attn.b_Q[heads][:, None]
    k = einsum(x, attn.W_K[heads], shapes) + attn.b_K[heads][:, None]
    hidden = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
    return (q * q.shape[-1] ** -0.5 @ k.mT).masked_fill(hidden, -torch.inf)


def _layer_entropy(
    scores: Float[Tensor, "batch head query key"], lengths: Int[Tensor, " batch"]
) -> Float[Tensor, " head"]:
    # Row 0 has one choice and no entropy, so it is left out before it can divide 0 by 0.
    scores = scores[:, :, 1:]
    log_pattern = scores.log_softmax(-1)
    pattern = log_pattern.exp()
    entropy = -(pattern * log_pattern.masked_fill(pattern == 0, 0.0)).sum(-1)
    query = torch.arange(1, scores.shape[2] + 1, device=scores.device)
    real = (query < lengths[:, None]).float()
    relative = entropy / torch.log(query + 1.0)
    return einsum(relative, real, "batch head query, batch query -> head") / real.sum().clamp_min(1)

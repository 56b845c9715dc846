"""Attention so saturated that no gradient through it can be trusted in float32.

A score of size s is known to about s 2^-24, and so is the logarithm of the attention that it gives. Measured against
double precision on models of 2 layers whose weights were scaled, with torch's kernels as with the native one: the
gradient is off by up to 2 % of its size at scores of 1e5, by 1 to 100 % at 1e7, and is noise at 1e9. The loss agrees to
1e-4 throughout. There is one exception: with heads of width 4, on a processor without AVX-512, torch's gradient was
right to 3e-5 at all sizes from 5e7 to 3e12, where the native kernel's was off by 20 % and more.
"""

import math
from collections.abc import Callable

import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from procpre_interp.model import HookedTransformer

SATURATED_SCORE = 1e5
"""Size of an attention score (after division by sqrt(d_head)) from which gradients are off by percents."""
SEQUENCES = 16
"""Sequences that are looked at."""


@torch.no_grad()
def saturation_note(model: HookedTransformer, tokens: Int[Tensor, "batch pos"]) -> str | None:
    """One line for the user where attention is saturated on these sequences; otherwise None.

    The model is run only where its weights allow for such scores, so that this costs next to nothing.
    """
    if not score_bound(model) > SATURATED_SCORE:
        return None
    score = largest_score(model, tokens[:SEQUENCES, : model.config.n_ctx])
    if not score > SATURATED_SCORE:
        return None
    return (
        f"attention is saturated (a score of {score:.1g}): the loss can be trusted, but from scores of "
        f"{SATURATED_SCORE:.0e} on the gradient in float32 cannot, whatever the kernel"
    )


@torch.no_grad()
def score_bound(model: HookedTransformer) -> float:
    """A size that no attention score of the model exceeds, whatever it reads: from its weights alone."""
    weights, config, sizes = dict(model.named_parameters()), model.config, []
    for layer in range(config.n_layers):
        gain, bias = weights[f"blocks.{layer}.ln1.w"], weights[f"blocks.{layer}.ln1.b"]
        norms = []
        for letter in "QK":
            weight, shift = weights[f"blocks.{layer}.attn.W_{letter}"], weights[f"blocks.{layer}.attn.b_{letter}"]
            # LayerNorm's output before gain and bias is at most sqrt(d_model) long.
            scaled = einsum(gain, weight, "d_model, head d_model d_head -> head d_model d_head")
            constant = einsum(bias, weight, "d_model, head d_model d_head -> head d_head") + shift
            norms.append(math.sqrt(len(gain)) * scaled.flatten(1).norm(dim=1) + constant.norm(dim=1))
        sizes.append((norms[0] * norms[1]).amax() * (config.d_model // config.n_heads) ** -0.5)
    return float(torch.stack(sizes).amax()) if sizes else 0.0


@torch.no_grad()
def largest_score(model: HookedTransformer, tokens: Int[Tensor, "batch pos"]) -> float:
    """Size of the largest finite attention score on these sequences."""
    largest = [0.0]

    def look(scores: Float[Tensor, "batch head_index query_pos key_pos"], hook: object) -> None:
        sizes = scores.float().abs()
        largest.append(float(sizes.masked_fill(~sizes.isfinite(), 0.0).amax()))

    points: list[tuple[str | Callable, Callable]] = [
        (f"blocks.{layer}.attn.hook_attn_scores", look) for layer in range(model.config.n_layers)
    ]
    model.run_with_hooks(tokens, fwd_hooks=points)
    return max(largest)

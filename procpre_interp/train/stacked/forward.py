"""The forward pass of R models of one shape as one: parameters and activations have a leading axis for the model.

The same function as `HookedTransformer.final`, in plain batched products; nothing can be hooked. Written out, because
`torch.func.vmap` over the model takes 1.3 times as long on a CPU and cannot use `narrow_attention`.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from procpre_interp.model import ModelConfig
from procpre_interp.model.narrow import is_narrow, narrow_attention

Parameters = Mapping[str, Float[Tensor, "model ..."]]
"""Parameters by name, those of all models in one tensor."""


def final(
    parameters: Parameters,
    config: ModelConfig,
    tokens: Int[Tensor, "model row pos"],
    positions: Int[Tensor, "model row n_read"] | None = None,
) -> Float[Tensor, "model place d_model"]:
    """What each model's unembedding reads of its sequences: at every position, or only at `positions`.

    The places are the sequences' positions, row after row. As in `HookedTransformer.final`, what only `positions` need
    is computed there alone.
    """
    n_models, n_rows, length = tokens.shape
    W_E = parameters["embed.W_E"]
    # One table of all models' embeddings: model r finds its own from row r * d_vocab on.
    first = W_E.shape[1] * torch.arange(n_models, device=tokens.device, dtype=tokens.dtype)
    embed = F.embedding(tokens + first[:, None, None], W_E.flatten(0, 1))
    x = (embed + parameters["pos_embed.W_pos"][:, None, :length]).flatten(1, 2)
    for layer in range(config.n_layers):
        own = {
            name.removeprefix(f"blocks.{layer}."): parameter
            for name, parameter in parameters.items()
            if name.startswith(f"blocks.{layer}.")
        }
        x = _block(own, config, x, n_rows, positions if layer == config.n_layers - 1 else None)
    return _layer_norm(x, parameters, "ln_final", config.ln_eps)


def _block(
    parameters: Parameters,
    config: ModelConfig,
    x: Float[Tensor, "model place d_model"],
    n_rows: int,
    positions: Int[Tensor, "model row n_read"] | None,
) -> Float[Tensor, "model read d_model"]:
    """The residual stream after a layer."""
    normalised = _layer_norm(x, parameters, "ln1", config.ln_eps)
    read = None if positions is None else positions.flatten(0, 1)
    if read is None:
        q, k, v = _project(normalised, parameters, "QKV", n_rows)
    else:
        (q,) = _project(_at(normalised, read), parameters, "Q", n_rows)
        k, v = _project(normalised, parameters, "KV", n_rows)
        x = _at(x, read)
    z = _attend(q, k, v, read).reshape(x.shape)
    # Sums with the residual stream stay out of the products, which autocast would make in bfloat16.
    x = x + _linear(z, parameters["attn.W_O"].flatten(1, 2), parameters["attn.b_O"])
    normalised = _layer_norm(x, parameters, "ln2", config.ln_eps)
    post = F.gelu(_linear(normalised, parameters["mlp.W_in"], parameters["mlp.b_in"]), approximate="tanh")
    return x + _linear(post, parameters["mlp.W_out"], parameters["mlp.b_out"])


def _layer_norm(
    x: Float[Tensor, "model place d_model"], parameters: Parameters, name: str, eps: float
) -> Float[Tensor, "model place d_model"]:
    normalised = F.layer_norm(x, x.shape[-1:], eps=eps)
    return torch.addcmul(parameters[f"{name}.b"][:, None], normalised, parameters[f"{name}.w"][:, None])


def _linear(
    x: Float[Tensor, "model place d_in"], weight: Float[Tensor, "model d_in d_out"], bias: Float[Tensor, "model d_out"]
) -> Float[Tensor, "model place d_out"]:
    return torch.baddbmm(bias[:, None], x, weight)


def _project(
    x: Float[Tensor, "model place d_model"], parameters: Parameters, letters: str, n_rows: int
) -> tuple[Float[Tensor, "sequence pos head d_head"], ...]:
    """Projections of one input as one product, by sequence: those of the first model, of the second one, ..."""
    weights = torch.cat([parameters[f"attn.W_{letter}"] for letter in letters], 1)
    biases = torch.cat([parameters[f"attn.b_{letter}"] for letter in letters], 1)
    together = _linear(x, weights.transpose(1, 2).flatten(2), biases.flatten(1))
    heads, d_head = weights.shape[1] // len(letters), weights.shape[3]
    return together.view(len(x) * n_rows, -1, len(letters), heads, d_head).unbind(2)


def _at(
    x: Float[Tensor, "model place d_model"], positions: Int[Tensor, "sequence n_read"]
) -> Float[Tensor, "model read d_model"]:
    """The places of each sequence that its positions name."""
    length = x.shape[0] * x.shape[1] // len(positions)
    rows = positions + length * torch.arange(len(positions), device=x.device).unsqueeze(1)
    return x.flatten(0, 1).index_select(0, rows.flatten()).unflatten(0, (len(x), -1))


def _attend(
    q: Float[Tensor, "sequence n_read head d_head"],
    k: Float[Tensor, "sequence pos head d_head"],
    v: Float[Tensor, "sequence pos head d_head"],
    positions: Int[Tensor, "sequence n_read"] | None,
) -> Float[Tensor, "sequence n_read head d_head"]:
    """Causal attention: no parameter has a part in it, so all models' sequences are one batch."""
    if positions is None and is_narrow(q):
        return narrow_attention(q, k, v)
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    if positions is None:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)
    seen = (torch.arange(k.shape[2], device=k.device) <= positions[:, :, None]).unsqueeze(1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2)

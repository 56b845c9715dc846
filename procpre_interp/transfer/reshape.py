"""Transfer to another shape: a small parent's weights as those of a deeper or a wider model.

Depth and width are apart, and each has its strategies; what they keep is said at `LAYERS` and `WIDTHS`. Parent and
model have one shape afterwards, so that selectors speak of the model's layers and heads.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

from procpre_interp.model import ModelConfig, Weights

LayerStrategy = Literal["same", "first", "tile", "interleave", "identity"]
WidthStrategy = Literal["same", "corner", "tile", "block_diagonal"]

EMBEDDINGS = ("embed.W_E", "pos_embed.W_pos", "unembed.W_U")
_WRITES = ("attn.W_O", "attn.b_O", "mlp.W_out", "mlp.b_out")
"""What a block writes into the residual stream with."""
_AXES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("attn.W_Q", "attn.W_K", "attn.W_V"), ("n_heads", "d_model", "d_head")),
    **dict.fromkeys(("attn.b_Q", "attn.b_K", "attn.b_V"), ("n_heads", "d_head")),
    "attn.W_O": ("n_heads", "d_head", "d_model"),
    "mlp.W_in": ("d_model", "d_hidden"),
    "mlp.b_in": ("d_hidden",),
    "mlp.W_out": ("d_hidden", "d_model"),
    "embed.W_E": ("d_vocab", "d_model"),
    "pos_embed.W_pos": ("n_ctx", "d_model"),
    "unembed.W_U": ("d_model", "d_vocab"),
}
"""Axes of each parameter; any other has d_model alone."""
_GROWS = ("n_heads", "d_model", "d_hidden")
"""Axes that a wider model has more of. A head stays as wide as it is, and with it the scale of attention."""
_SUMS = ("attn.W_Q", "attn.W_K", "attn.W_V", "attn.W_O", "mlp.W_in", "mlp.W_out", "unembed.W_U")
"""Matrices, whose product sums over an axis that grows."""


def _first(parent: int, model: int) -> list[int | None]:
    return [layer if layer < parent else None for layer in range(model)]


def _tiled(parent: int, model: int) -> list[int | None]:
    return [layer % parent for layer in range(model)]


def _interleaved(parent: int, model: int) -> list[int | None]:
    return [layer * parent // model for layer in range(model)]


LAYERS: Mapping[LayerStrategy, Callable[[int, int], list[int | None]]] = {
    "first": _first,
    "tile": _tiled,
    "interleave": _interleaved,
    "identity": _interleaved,
}
"""Which layer of the parent each layer of the model is made of; None for one that stays fresh.

- `first`: layer by layer as far as both go; what is beyond stays fresh.
- `tile`: the parent's stack unrolled, all of its layers over and over, 0 1 0 1. Source: stacking, Gong and others 2019.
- `interleave`: each of the parent's layers several times in a row, 0 0 1 1. Source: Chang and others 2018.
- `identity`: the same, but of the layers made of one only the first writes into the residual stream, so that the
  deeper model computes what the parent does. The others keep the layers, and not what they compute together.
"""


def _corner(tensor: Tensor, fresh: Tensor, axes: tuple[str, ...], copies: int, sums: bool) -> Tensor:
    new = fresh.clone()
    new[tuple(map(slice, tensor.shape))] = tensor
    return new


def _tile(tensor: Tensor, fresh: Tensor, axes: tuple[str, ...], copies: int, sums: bool) -> Tensor:
    new = tensor.repeat([copies if axis in _GROWS else 1 for axis in axes])
    return new / copies if sums else new


def _block_diagonal(tensor: Tensor, fresh: Tensor, axes: tuple[str, ...], copies: int, sums: bool) -> Tensor:
    grown = [place for place, axis in enumerate(axes) if axis in _GROWS]
    if len(grown) < 2:
        return _tile(tensor, fresh, axes, copies, sums)
    new = torch.zeros_like(fresh)
    for copy in range(copies):
        index = [slice(None)] * tensor.ndim
        for place in grown:
            size = tensor.shape[place]
            index[place] = slice(copy * size, (copy + 1) * size)
        new[tuple(index)] = tensor
    return new


WIDTHS: Mapping[WidthStrategy, Callable[[Tensor, Tensor, tuple[str, ...], int, bool], Tensor]] = {
    "corner": _corner,
    "tile": _tile,
    "block_diagonal": _block_diagonal,
}
"""How a parameter becomes one of a wider model.

- `corner`: the parent's numbers lie in the corner of a fresh tensor: its heads, dimensions and neurons come first. What
  it computes is not kept, since fresh dimensions are read and normalised with the others.
- `tile`: the residual stream holds `copies` of the parent's, each read by and written to by all copies of heads and
  neurons, each matrix divided by their number. Source: Samragh and others 2024.
- `block_diagonal`: each copy of the residual stream has heads and neurons of its own, and nothing goes between them.

With the last two the wider model computes what the parent does, as long as the copies in the stream are alike. Where
it is tied, its logits are `copies` times the parent's.
"""


def reshaped(
    weights: Weights,
    parent: ModelConfig,
    fresh: Weights,
    model: ModelConfig,
    *,
    layers: LayerStrategy,
    width: WidthStrategy,
) -> tuple[Weights, ModelConfig]:
    """The parent's weights in the model's shape, and that shape, with the parent's vocabulary, context and eps.

    Layers that are made of none of the parent's are left out; with `corner` the embeddings are as they were, since
    there are no fresh ones for the parent's tokens. Raises `ValueError` where the shapes do not allow what is asked
    for, be it `same`.
    """
    copies = _copies(parent, model, width)
    if layers == "same" and parent.n_layers != model.n_layers:
        raise ValueError(
            f"n_layers is {parent.n_layers} in the parent and {model.n_layers} in the model: say which "
            f"become which, layers={' or '.join(LAYERS)}"
        )
    if layers == "identity" and parent.n_layers > model.n_layers:
        raise ValueError(
            f"layers=identity adds layers, and the parent's {parent.n_layers} are more than the model's "
            f"{model.n_layers}"
        )
    if parent.tied and not model.tied:
        # The parent's one matrix has two parts to play, of which the unembedding sums over the stream's copies.
        weights = {**weights, "unembed.W_U": weights["embed.W_E"].T}
        parent = dataclasses.replace(parent, tied=False)
    sources = LAYERS["first" if layers == "same" else layers](parent.n_layers, model.n_layers)

    def widened(name: str, target: str) -> Tensor:
        if width == "same" or (width == "corner" and name in EMBEDDINGS):
            return weights[name].clone()
        kind = name.split(".", 2)[2] if name.startswith("blocks.") else name
        # An unembedding that a tied model has none of is repeated, for which nothing fresh is needed.
        return WIDTHS[width](
            weights[name], fresh.get(target, weights[name]), _AXES.get(kind, ("d_model",)), copies, kind in _SUMS
        )

    made = {name: widened(name, name) for name in weights if not name.startswith("blocks.")}
    for layer, source in enumerate(sources):
        for target in (name for name in fresh if name.startswith(f"blocks.{layer}.")):
            kind = target.split(".", 2)[2]
            if source is None:  # not the parent's to give: it stays what it is, fresh or another parent's
                continue
            if layers == "identity" and kind in _WRITES and sources.index(source) != layer:
                made[target] = torch.zeros_like(fresh[target])
            else:
                made[target] = widened(f"blocks.{source}.{kind}", target)
    shape = dataclasses.replace(
        model, n_ctx=parent.n_ctx, d_vocab=parent.d_vocab, tied=parent.tied, ln_eps=parent.ln_eps
    )
    return made, shape


def _copies(parent: ModelConfig, model: ModelConfig, width: WidthStrategy) -> int:
    """How many times the parent is in the model's width. Raises `ValueError` where it does not fit."""
    sizes = [(name, getattr(parent, name), getattr(model, name)) for name in (*_GROWS, "d_head")]
    told = ", ".join(f"{name.replace('d_hidden', 'd_mlp')} {here} and {there}" for name, here, there in sizes)
    if width == "same":
        fits = all(here == there for _, here, there in sizes)
        wanted = f"equal; else say how it grows, width={' or '.join(WIDTHS)}"
    elif width == "corner":
        fits, wanted = (
            all(here <= there for _, here, there in sizes) and parent.d_head == model.d_head,
            ("at least as large, and d_head equal"),
        )
    else:
        copies = model.d_model // parent.d_model
        fits = copies > 0 and all(there == here * (copies if name != "d_head" else 1) for name, here, there in sizes)
        wanted = "the same multiple of the parent's, and d_head equal"
    if not fits:
        raise ValueError(f"width={width} wants the model's sizes {wanted}; parent and model have {told}")
    return model.d_model // parent.d_model

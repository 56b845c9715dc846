"""The walk over selected weights that ablations share: always in the order of the parameters, not of a dictionary."""

from collections.abc import Callable, Iterable

from torch import Tensor

from procpre_interp.model import ModelConfig, Weights, WeightSlice, select
from procpre_interp.model.components import PER_HEAD


def leaf(piece: WeightSlice) -> str:
    """The last part of the parameter's name: W_Q, b_in, w."""
    return piece.parameter.rpartition(".")[2]


def copies(weights: Weights) -> Weights:
    return {name: tensor.detach().clone() for name, tensor in weights.items()}


def edited(weights: Weights, pieces: Iterable[WeightSlice], change: Callable[[WeightSlice, Tensor], Tensor]) -> Weights:
    """New weights: each piece has become `change(piece, values)`.

    `change` gets and gives float64 on the CPU, so that a result depends on neither device nor dtype but for its
    last rounding.
    """
    damaged = copies(weights)
    for piece in pieces:
        place = damaged[piece.parameter][piece.index]
        place.copy_(change(piece, place.cpu().double()))
    return damaged


def matrices(config: ModelConfig, selector: str) -> list[WeightSlice]:
    """The selected W_*: the last two axes are a matrix `x @ W`, and an axis before them counts heads.

    Raises:
        ValueError: there is no matrix among the selected weights.
    """
    chosen = [piece for piece in select(config, selector) if leaf(piece).startswith("W_")]
    if not chosen:
        raise ValueError(
            f"selector {selector!r} names no matrix, and vectors have no rows, columns or spectrum; add 'attn', say"
        )
    return chosen


def without_gains(config: ModelConfig, selector: str) -> list[WeightSlice]:
    """The selected weights but LayerNorm gains, whose sign and size say how a dimension is scaled.

    Raises:
        ValueError: there is nothing else among the selected weights.
    """
    chosen = [piece for piece in select(config, selector) if leaf(piece) != "w"]
    if not chosen:
        raise ValueError(f"selector {selector!r} names LayerNorm gains alone, which stay as they are; add 'attn', say")
    return chosen


def selected_heads(config: ModelConfig, selector: str) -> dict[str, list[int]]:
    """Which heads are selected of each parameter that has heads; parameters with none are left out."""
    heads: dict[str, list[int]] = {}
    for piece in select(config, selector):
        if leaf(piece) in PER_HEAD:
            heads.setdefault(piece.parameter, []).extend(piece.index or range(config.n_heads))
    return heads

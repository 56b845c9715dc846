"""Shuffles: the values of the weights stay, their places do not."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from procpre_interp.ablate.ablation import ABLATIONS, Ablation
from procpre_interp.ablate.pieces import copies, edited, leaf, matrices, selected_heads
from procpre_interp.model import ModelConfig, Weights, WeightSlice, select


@ABLATIONS.register("shuffle_within_layers")
@dataclass(frozen=True, kw_only=True, slots=True)
class ShuffleWithinLayers(Ablation):
    """The papers' shuffle: a layer's W_Q, W_K, W_V are one pool, b_Q, b_K, b_V another, each other tensor its own.

    GPT-2 stores queries, keys and values as one matrix (c_attn) with one bias: shuffled as stored, their scales are
    pooled, which `shuffle_within_tensors` keeps apart. Of a tensor's heads only the selected ones are in its pool.
    Source: P1, rescaling experiment.
    """

    keeps: ClassVar[str] = "values of each tensor, those of q, k and v as one bag"
    destroys: ClassVar[str] = "places; the scales of q, k and v apart; heads, neurons, spectra"

    def apply(self, weights: Weights, config: ModelConfig, *, generator: Generator) -> Weights:
        pools: dict[str, list[WeightSlice]] = {}
        for piece in select(config, self.selector):
            fused = leaf(piece) in ("W_Q", "W_K", "W_V", "b_Q", "b_K", "b_V")
            pools.setdefault(piece.parameter[:-1] if fused else piece.parameter, []).append(piece)
        return _shuffled(weights, pools.values(), generator)


@ABLATIONS.register("shuffle_within_tensors")
@dataclass(frozen=True, kw_only=True, slots=True)
class ShuffleWithinTensors(Ablation):
    """Each tensor's values in a uniformly random order.

    Keeps each tensor's distribution of values: mean, scale, outliers. Destroys rows, columns, heads, neurons and the
    spectrum's shape. W_Q, W_K and W_V are tensors of their own here, so their scales stay apart; the papers shuffle
    GPT-2's fused matrix, which pools them (`shuffle_within_layers`). A head selected alone is shuffled within itself.
    Source: P1, rescaling experiment.
    """

    keeps: ClassVar[str] = "values of each tensor: mean, scale, outliers"
    destroys: ClassVar[str] = "places: rows, columns, heads, neurons, spectra"

    def apply(self, weights: Weights, config: ModelConfig, *, generator: Generator) -> Weights:
        return _shuffled(weights, [[piece] for piece in select(config, self.selector)], generator)


@ABLATIONS.register("shuffle_within_rows")
@dataclass(frozen=True, kw_only=True, slots=True)
class ShuffleWithinRows(Ablation):
    """Each row of each matrix (of each head's, in attention) in a random order of its own.

    A row holds what one input dimension sends: its values stay, so the scale of every input does; which output they
    go to does not. Biases and LayerNorms have no rows and stay unchanged.
    """

    keeps: ClassVar[str] = "values of each row: what each input dimension sends; biases, LayerNorms"
    destroys: ClassVar[str] = "which output each value goes to: columns, spectra"

    def apply(self, weights: Weights, config: ModelConfig, *, generator: Generator) -> Weights:
        pieces = matrices(config, self.selector)
        return edited(weights, pieces, lambda _, values: _shuffled_along(-1, values, generator))


@ABLATIONS.register("shuffle_within_columns")
@dataclass(frozen=True, kw_only=True, slots=True)
class ShuffleWithinColumns(Ablation):
    """Each column of each matrix (of each head's, in attention) in a random order of its own.

    A column holds what one output dimension reads: its values stay, so the scale of every output does; which input
    they read does not. Biases and LayerNorms have no columns and stay unchanged.
    """

    keeps: ClassVar[str] = "values of each column: what each output dimension reads; biases, LayerNorms"
    destroys: ClassVar[str] = "which input each value reads: rows, spectra"

    def apply(self, weights: Weights, config: ModelConfig, *, generator: Generator) -> Weights:
        pieces = matrices(config, self.selector)
        return edited(weights, pieces, lambda _, values: _shuffled_along(-2, values, generator))


@ABLATIONS.register("shuffle_across_heads")
@dataclass(frozen=True, kw_only=True, slots=True)
class ShuffleAcrossHeads(Ablation):
    """Values are dealt out anew among a layer's heads, separately at each place within a head.

    Keeps what is common to the heads: the distribution over them at every place of W_Q, W_K, W_V, W_O and their
    biases. Destroys each head as a unit. Only selected heads exchange; what has no heads (MLPs, LayerNorms, b_O)
    stays unchanged. `shuffle_heads` moves whole heads instead, which changes no output.
    """

    keeps: ClassVar[str] = "at each place, the heads' values as a bag; MLPs, LayerNorms"
    destroys: ClassVar[str] = "heads as units: which values belong together"

    def apply(self, weights: Weights, config: ModelConfig, *, generator: Generator) -> Weights:
        heads = selected_heads(config, self.selector)
        if max(map(len, heads.values()), default=0) < 2:
            raise ValueError(
                f"selector {self.selector!r} names no two heads of one tensor, and one alone has none to exchange "
                "values with; name 'attn', say"
            )
        damaged = copies(weights)
        for parameter, chosen in heads.items():
            damaged[parameter][chosen] = _shuffled_along(0, damaged[parameter][chosen], generator)
        return damaged


def _shuffled(weights: Weights, pools: Iterable[list[WeightSlice]], generator: Generator) -> Weights:
    """New weights: the values of each pool of pieces in a uniformly random order."""
    damaged = copies(weights)
    for pool in pools:
        places = [damaged[piece.parameter][piece.index] for piece in pool]
        values = torch.cat([place.flatten() for place in places])
        order = torch.randperm(values.numel(), generator=generator).to(values.device)
        for place, shuffled in zip(places, values[order].split([place.numel() for place in places])):
            place.copy_(shuffled.view(place.shape))
    return damaged


def _shuffled_along(axis: int, values: Float[Tensor, "*places"], generator: Generator) -> Float[Tensor, "*places"]:
    """Every line along the axis in an order of its own, uniformly random."""
    # In float32 two of some thousand draws would often tie, and ties keep their order.
    order = torch.rand(values.shape, generator=generator, dtype=torch.float64).argsort(axis)
    return values.gather(axis, order.to(values.device))

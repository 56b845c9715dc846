"""Shuffles: the values of the weights stay, their places do not."""

from dataclasses import dataclass

import torch
from torch import Generator

from procpre_interp.ablate.ablation import ABLATIONS, Ablation
from procpre_interp.model import ModelConfig, Weights, select


@ABLATIONS.register("shuffle_within_tensors")
@dataclass(frozen=True, kw_only=True, slots=True)
class ShuffleWithinTensors(Ablation):
    """Each tensor's values in a uniformly random order.

    Keeps each tensor's distribution of values: mean, scale, outliers. Destroys rows, columns, heads, neurons and the
    spectrum's shape. W_Q, W_K and W_V are tensors of their own here, so their scales stay apart; the papers shuffle
    GPT-2's fused matrix, which pools them. Source: P1, rescaling experiment.
    """

    def apply(self, weights: Weights, config: ModelConfig, *, generator: Generator) -> Weights:
        damaged = {name: tensor.clone() for name, tensor in weights.items()}
        for piece in select(config, self.selector):
            values = damaged[piece.parameter][piece.index]
            order = torch.randperm(values.numel(), generator=generator).to(values.device)
            damaged[piece.parameter][piece.index] = values.flatten()[order].view(values.shape)
        return damaged

"""Normal numbers in place of the weights, or on top of them."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from procpre_interp.ablate.ablation import ABLATIONS, Ablation
from procpre_interp.ablate.pieces import copies, edited
from procpre_interp.model import ModelConfig, Weights, WeightSlice, select


@ABLATIONS.register("gaussian")
@dataclass(frozen=True, kw_only=True, slots=True)
class Gaussian(Ablation):
    """Each tensor drawn anew from the normal distribution with its mean and (population) standard deviation.

    These two numbers are kept up to sampling; outliers and all places are destroyed. A head selected alone has its own
    mean and standard deviation. A constant tensor, such as a fresh bias, stays as it is.
    """

    keeps: ClassVar[str] = "mean and standard deviation of each tensor"
    destroys: ClassVar[str] = "all else: outliers, places, heads, neurons, spectra"

    def apply(self, weights: Weights, config: ModelConfig, *, generator: Generator) -> Weights:
        def drawn(_: WeightSlice, values: Tensor) -> Tensor:
            return values.mean() + values.std(correction=0) * _normal(values.shape, generator)

        return edited(weights, select(config, self.selector), drawn)


@ABLATIONS.register("noise")
@dataclass(frozen=True, kw_only=True, slots=True)
class Noise(Ablation):
    """Independent normal noise added to each weight: W + noise_std * std(W) * N(0, 1).

    std(W) is that of the whole tensor, all its heads, whichever part is selected: so the dose on a head is the same,
    damaged alone or with others. One generator gives one direction, which `noise_std` only scales: doses are paired.
    A constant tensor, such as a fresh bias, gets no noise. Source: P1, Gaussian noise on pretrained weights.
    """

    keeps: ClassVar[str] = "every weight, up to noise of the given size"
    destroys: ClassVar[str] = "what is finer than the noise"

    noise_std: float
    """Standard deviation of the noise, in standard deviations of the tensor; 0 changes nothing."""

    def __post_init__(self) -> None:
        if not 0 <= self.noise_std < math.inf:
            raise ValueError(f"noise_std={self.noise_std}; noise_std must be at least 0, and finite")

    def apply(self, weights: Weights, config: ModelConfig, *, generator: Generator) -> Weights:
        pieces = select(config, self.selector)
        if self.noise_std == 0:  # adding 0 would turn -0 into 0
            return copies(weights)

        def noised(piece: WeightSlice, values: Tensor) -> Tensor:
            unit = weights[piece.parameter].detach().cpu().double().std(correction=0)
            return values + self.noise_std * unit * _normal(values.shape, generator)

        return edited(weights, pieces, noised)


def _normal(shape: torch.Size, generator: Generator) -> Float[Tensor, "..."]:
    return torch.randn(shape, generator=generator, dtype=torch.float64)

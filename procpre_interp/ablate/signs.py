"""Magnitudes without signs, and signs without magnitudes.

Where signs are drawn, LayerNorm gains keep theirs: an initialisation has them positive, so a coin there would be damage
that no fresh model has.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from procpre_interp.ablate.ablation import ABLATIONS, Ablation
from procpre_interp.ablate.pieces import edited, without_gains
from procpre_interp.model import ModelConfig, Weights, WeightSlice, select


@ABLATIONS.register("sign_flips")
@dataclass(frozen=True, kw_only=True, slots=True)
class SignFlips(Ablation):
    """Each weight changes its sign with probability `share`, independently.

    Keeps every magnitude in its place, and the sign of all but about that share. A dose: at 0.5 the signs tell nothing
    more, which is the rung `magnitudes_only`; at 1 each weight is negated. LayerNorm gains keep their signs.
    """

    keeps: ClassVar[str] = "each magnitude in its place, and most signs"
    destroys: ClassVar[str] = "a share of the signs"

    share: float = 0.1
    """Probability of a flip; 0 changes nothing."""

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"share={self.share}; share must be between 0 and 1")

    def apply(self, weights: Weights, config: ModelConfig, *, generator: Generator) -> Weights:
        def flipped(_: WeightSlice, values: Tensor) -> Tensor:
            return values * _signs(values.shape, self.share, generator)

        return edited(weights, without_gains(config, self.selector), flipped)


@ABLATIONS.register("magnitudes_only")
@dataclass(frozen=True, kw_only=True, slots=True)
class MagnitudesOnly(Ablation):
    """Each weight keeps its magnitude and its place, and gets the sign of a fair coin, as in a fresh initialisation.

    Keeps magnitudes: scales of rows, columns and heads, outliers, sparsity. Destroys all signs, so directions and
    spectra. LayerNorm gains keep their signs.
    """

    keeps: ClassVar[str] = "each magnitude in its place"
    destroys: ClassVar[str] = "all signs, so directions and spectra"

    def apply(self, weights: Weights, config: ModelConfig, *, generator: Generator) -> Weights:
        def tossed(_: WeightSlice, values: Tensor) -> Tensor:
            return values.abs() * _signs(values.shape, 0.5, generator)

        return edited(weights, without_gains(config, self.selector), tossed)


@ABLATIONS.register("signs_only")
@dataclass(frozen=True, kw_only=True, slots=True)
class SignsOnly(Ablation):
    """Each weight keeps its sign and its place, and gets the mean magnitude of its tensor: the complement.

    Destroys magnitudes: outliers, and the scales of rows, columns and heads. Nothing is random. A weight of exactly 0
    has no sign and stays 0. A head selected alone has its own mean magnitude.
    """

    keeps: ClassVar[str] = "each sign in its place, and each tensor's mean magnitude"
    destroys: ClassVar[str] = "magnitudes: outliers, scales of rows, columns and heads"

    def apply(self, weights: Weights, config: ModelConfig, *, generator: Generator) -> Weights:
        pieces = select(config, self.selector)
        return edited(weights, pieces, lambda _, values: values.sign() * values.abs().mean())


def _signs(shape: torch.Size, share: float, generator: Generator) -> Float[Tensor, "..."]:
    """1 or -1, the latter with probability `share`."""
    return 1.0 - 2.0 * (torch.rand(shape, generator=generator, dtype=torch.float64) < share).double()

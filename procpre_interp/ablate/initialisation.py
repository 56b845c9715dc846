"""A fresh model with one property of the trained one: its LayerNorms, or the norms of its tensors or of their rows."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from procpre_interp.ablate.ablation import ABLATIONS, Ablation
from procpre_interp.ablate.pieces import edited, without_gains
from procpre_interp.model import HookedTransformer, ModelConfig, Weights, WeightSlice, select


@ABLATIONS.register("layer_norms_only")
@dataclass(frozen=True, kw_only=True, slots=True)
class LayerNormsOnly(Ablation):
    """LayerNorm gains and biases stay; every other selected weight is that of a fresh model.

    Destroys all matrices and biases: GPT-2's initialisation, with zero biases. One generator gives one fresh model,
    whatever is selected of it.
    """

    keeps: ClassVar[str] = "LayerNorm gains and biases"
    destroys: ClassVar[str] = "all matrices and biases: freshly initialised"

    def apply(self, weights: Weights, config: ModelConfig, *, generator: Generator) -> Weights:
        norms = {piece.parameter for piece in select(config, "ln")}
        pieces = [piece for piece in select(config, self.selector) if piece.parameter not in norms]
        if not pieces:
            raise ValueError(f"selector {self.selector!r} names LayerNorms alone, which stay; add 'attn' or 'mlp', say")
        fresh = fresh_weights(config, generator)
        return edited(weights, pieces, lambda piece, _: fresh[piece.parameter][piece.index].double())


@ABLATIONS.register("norms_only")
@dataclass(frozen=True, kw_only=True, slots=True)
class NormsOnly(Ablation):
    """Each tensor is that of a fresh model, rescaled to the Frobenius norm that it had.

    Keeps one number per tensor (a head, where one is selected alone). So matrices are normal numbers, and LayerNorm
    gains are constant. A fresh bias is zero and cannot be rescaled: biases are normal numbers too.
    """

    keeps: ClassVar[str] = "Frobenius norm of each tensor"
    destroys: ClassVar[str] = "all else: freshly initialised"

    def apply(self, weights: Weights, config: ModelConfig, *, generator: Generator) -> Weights:
        fresh = fresh_weights(config, generator)

        def rescaled(piece: WeightSlice, values: Tensor) -> Tensor:
            direction = _direction(fresh, piece, generator)
            return direction * (torch.linalg.vector_norm(values) / torch.linalg.vector_norm(direction))

        return edited(weights, select(config, self.selector), rescaled)


@ABLATIONS.register("row_norms_only")
@dataclass(frozen=True, kw_only=True, slots=True)
class RowNormsOnly(Ablation):
    """Each row of each tensor is that of a fresh model, rescaled to the norm that it had.

    Keeps how much each input dimension sends through each matrix (of each head, in attention), and LayerNorm gains,
    which are the same of a diagonal matrix. A bias is one row (of each head, in attention), so it keeps one number, and
    as a fresh one is zero, it is normal numbers otherwise. Destroys where everything is sent: all directions.
    """

    keeps: ClassVar[str] = "norm of each row: how much each input dimension sends; LayerNorm gains"
    destroys: ClassVar[str] = "all else: freshly initialised"

    def apply(self, weights: Weights, config: ModelConfig, *, generator: Generator) -> Weights:
        fresh = fresh_weights(config, generator)

        def rescaled(piece: WeightSlice, values: Tensor) -> Tensor:
            direction = _direction(fresh, piece, generator)
            wanted, own = (torch.linalg.vector_norm(each, dim=-1, keepdim=True) for each in (values, direction))
            return direction * (wanted / own)

        return edited(weights, without_gains(config, self.selector), rescaled)


def fresh_weights(config: ModelConfig, generator: Generator) -> Weights:
    """A fresh model's weights."""
    model = HookedTransformer(config, generator=generator)
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def _direction(fresh: Weights, piece: WeightSlice, generator: Generator) -> Tensor:
    """The fresh weights of a piece or, where they are zero and have no direction, as in a bias, normal numbers."""
    values = fresh[piece.parameter][piece.index].double()
    return values if values.any() else torch.randn(values.shape, generator=generator, dtype=torch.float64)

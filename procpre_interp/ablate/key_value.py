"""Controls of MLPs as key-value memories: the keys alone, the values alone, both without their pairing, and few
directions of each.

An MLP is a sum over neurons of gelu(x . key + b) value: a neuron's key is its column of W_in with its entry of b_in,
its value is its row of W_out. b_out is what no neuron chooses, and counts with the values. Whatever is no MLP stays
unchanged. `shuffle_neurons` is the control: it moves each pair of key and value as one, which changes no output.

Source: Geva et al. 2021, "Transformer Feed-Forward Layers Are Key-Value Memories".
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator

from procpre_interp.ablate.ablation import ABLATIONS, Ablation
from procpre_interp.ablate.initialisation import fresh_weights
from procpre_interp.ablate.pieces import copies, edited
from procpre_interp.ablate.spectrum import strongest, with_spectra
from procpre_interp.model import ModelConfig, Weights, WeightSlice, select


@ABLATIONS.register("keys_only")
@dataclass(frozen=True, kw_only=True, slots=True)
class KeysOnly(Ablation):
    """W_in and b_in stay, W_out and b_out are those of a fresh model: what neurons respond to, not what they write."""

    keeps: ClassVar[str] = "keys of the MLPs: what each neuron responds to; all that is no MLP"
    destroys: ClassVar[str] = "values of the MLPs: what each neuron writes, freshly initialised"

    def apply(self, weights: Weights, config: ModelConfig, *, generator: Generator) -> Weights:
        return _with_fresh(weights, config, self.selector, "mlp.values", generator)


@ABLATIONS.register("values_only")
@dataclass(frozen=True, kw_only=True, slots=True)
class ValuesOnly(Ablation):
    """W_out and b_out stay, W_in and b_in are those of a fresh model: what neurons write, not what they respond to."""

    keeps: ClassVar[str] = "values of the MLPs: what each neuron writes; all that is no MLP"
    destroys: ClassVar[str] = "keys of the MLPs: what each neuron responds to, freshly initialised"

    def apply(self, weights: Weights, config: ModelConfig, *, generator: Generator) -> Weights:
        return _with_fresh(weights, config, self.selector, "mlp.keys", generator)


@ABLATIONS.register("unpair_neurons")
@dataclass(frozen=True, kw_only=True, slots=True)
class UnpairNeurons(Ablation):
    """The rows of each W_out in a uniformly random order, so that each neuron writes what another one should.

    Keeps every key and every value as a unit, and both spectra. To move keys in place of values is the same function.
    """

    keeps: ClassVar[str] = "keys and values of the MLPs, each as a whole; all that is no MLP"
    destroys: ClassVar[str] = "which key has which value"

    def apply(self, weights: Weights, config: ModelConfig, *, generator: Generator) -> Weights:
        damaged = copies(weights)
        for piece in _of_mlps(config, self.selector, "mlp.W_out"):
            order = torch.randperm(config.d_hidden, generator=generator)
            damaged[piece.parameter] = damaged[piece.parameter][order.to(damaged[piece.parameter].device)]
        return damaged


@ABLATIONS.register("low_rank_mlp")
@dataclass(frozen=True, kw_only=True, slots=True)
class LowRankMlp(Ablation):
    """Each W_in and W_out cut to its `rank` strongest singular directions; `low_rank` cuts every matrix to a share.

    To cut one of them alone, select it: mlp.W_in, blocks.1.mlp.W_out. Nothing is random.
    """

    keeps: ClassVar[str] = "strongest singular directions of the MLPs' matrices; biases; all that is no MLP"
    destroys: ClassVar[str] = "weak singular directions of the MLPs' matrices"

    rank: int
    """Directions of each matrix that stay, at least 1; min(rows, columns) or more changes nothing."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank={self.rank}; rank must be at least 1")

    def apply(self, weights: Weights, config: ModelConfig, *, generator: Generator) -> Weights:
        pieces = _of_mlps(config, self.selector, "mlp.W_in + mlp.W_out")
        return with_spectra(weights, pieces, lambda s: strongest(s, self.rank))


def _with_fresh(weights: Weights, config: ModelConfig, selector: str, part: str, generator: Generator) -> Weights:
    pieces, fresh = _of_mlps(config, selector, part), fresh_weights(config, generator)
    return edited(weights, pieces, lambda piece, _: fresh[piece.parameter][piece.index].double())


def _of_mlps(config: ModelConfig, selector: str, part: str) -> list[WeightSlice]:
    """The selected weights of a part of the MLPs. Raises `ValueError` where there are none."""
    wanted = select(config, part)
    chosen = [piece for piece in select(config, selector) if piece in wanted]
    if not chosen:
        raise ValueError(f"selector {selector!r} names nothing of {part}; name 'mlp' or 'blocks.0.mlp', say")
    return chosen

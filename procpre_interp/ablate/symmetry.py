"""Shuffles that a transformer is blind to, of whole heads and whole neurons.

They test the method: a score that changes after one has a fault.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator

from procpre_interp.ablate.ablation import ABLATIONS, Ablation
from procpre_interp.ablate.pieces import copies, selected_heads
from procpre_interp.model import ModelConfig, Weights, select
from procpre_interp.model.components import PER_HEAD


@ABLATIONS.register("shuffle_heads")
@dataclass(frozen=True, kw_only=True, slots=True)
class ShuffleHeads(Ablation):
    """A layer's selected heads in a uniformly random order, each with all its weights: the function stays.

    Heads are summed, so their order matters to nothing but their numbers and the rounding of that sum. Everything
    that is no head stays unchanged.
    """

    keeps: ClassVar[str] = "the function; each head as a unit"
    destroys: ClassVar[str] = "the numbering of heads"

    def apply(self, weights: Weights, config: ModelConfig, *, generator: Generator) -> Weights:
        heads = selected_heads(config, self.selector)
        damaged, moved = copies(weights), False
        for layer in range(config.n_layers):
            parameters = [f"blocks.{layer}.attn.{leaf}" for leaf in PER_HEAD]
            chosen, *others = (heads.get(parameter, []) for parameter in parameters)
            if any(other != chosen for other in others):
                raise ValueError(
                    f"selector {self.selector!r} names some weights of a head in layer {layer} and not others; moving "
                    "these alone would change the function, so name whole heads: 'attn', 'attn.head.0 + attn.head.1'"
                )
            if len(chosen) < 2:
                continue
            moved = True
            order = torch.randperm(len(chosen), generator=generator)
            sources = [chosen[i] for i in order.tolist()]
            for parameter in parameters:
                damaged[parameter][chosen] = damaged[parameter][sources]
        if not moved:
            raise ValueError(f"selector {self.selector!r} names no two heads of one layer; name 'attn', say")
        return damaged


@ABLATIONS.register("shuffle_neurons")
@dataclass(frozen=True, kw_only=True, slots=True)
class ShuffleNeurons(Ablation):
    """A layer's MLP neurons in a uniformly random order, each with its column of W_in, entry of b_in and row of W_out.

    Neurons are summed, so the function stays but for the rounding of that sum. Everything that is no neuron stays
    unchanged.
    """

    keeps: ClassVar[str] = "the function; each neuron as a unit"
    destroys: ClassVar[str] = "the numbering of neurons"

    def apply(self, weights: Weights, config: ModelConfig, *, generator: Generator) -> Weights:
        chosen = {piece.parameter for piece in select(config, self.selector)}
        damaged, moved = copies(weights), False
        for layer in range(config.n_layers):
            w_in, b_in, w_out = parameters = [f"blocks.{layer}.mlp.{leaf}" for leaf in ("W_in", "b_in", "W_out")]
            if chosen.isdisjoint(parameters):
                continue
            if not chosen.issuperset(parameters):
                raise ValueError(
                    f"selector {self.selector!r} names some of {', '.join(parameters)} and not others; moving these "
                    "alone would change the function, so name 'mlp' or nothing of it"
                )
            moved = True
            order = torch.randperm(config.d_hidden, generator=generator).to(damaged[w_in].device)
            damaged[w_in] = damaged[w_in][:, order]
            damaged[b_in] = damaged[b_in][order]
            damaged[w_out] = damaged[w_out][order]
        if not moved:
            raise ValueError(f"selector {self.selector!r} names no neurons; name 'mlp' or 'blocks.0.mlp', say")
        return damaged

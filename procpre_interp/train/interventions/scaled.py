"""Initial weights that are all larger, or all smaller."""

import math
from dataclasses import dataclass

import torch

from procpre_interp.model import HookedTransformer, flat_mask
from procpre_interp.train.interventions.base import INTERVENTIONS, Initial, Intervention


@INTERVENTIONS.register("scaled")
@dataclass(frozen=True, kw_only=True, slots=True)
class Scaled(Intervention):
    """Initial weights times a factor, be they fresh or transferred: so that every arm can be tuned over its scale.

    A fresh model becomes that of `init_std` times the factor, whose biases are zero. It is done after the transfer, and
    in the order of the run's interventions: behind one that sets sizes, the factor is on those.

    Changes: initial values of the selected weights. Holds fixed: their directions, learning rates and decay, all other
    weights, data.
    """

    selector: str = "all-ln"
    """Which weights. Default: all but the LayerNorms, whose gains are 1 in a fresh model of any `init_std`."""
    factor: float
    """Factor on them."""

    def check(self, model: HookedTransformer, n_steps: int) -> None:
        flat_mask(model, self.selector)
        if not 0 < self.factor < math.inf:
            raise ValueError(f"factor={self.factor}; a factor on initial weights must be a positive number")

    def initialise(self, model: HookedTransformer, initial: Initial) -> None:
        mask = flat_mask(model, self.selector).to(model.flat.device)
        with torch.no_grad():
            model.flat.copy_(torch.where(mask, model.flat * self.factor, model.flat))

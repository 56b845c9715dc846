"""Setting components back during training."""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from procpre_interp.model import HookedTransformer, flat_mask
from procpre_interp.train.interventions.base import INTERVENTIONS, Initial, Intervention


@INTERVENTIONS.register("rewind")
@dataclass(frozen=True, kw_only=True, slots=True)
class Rewind(Intervention):
    """Sets components back to their initial values at chosen steps of training: are they needed only early?

    to start: back to the transferred values (phase 2 has to work on them anew). to fresh: to values that were never
    trained, so that the component counts as transferred only up to the first of these steps. Changes: the selected
    weights, just before those steps, and their first moment in the optimiser, which starts at zero again. Holds fixed:
    their second moment, all other weights and moments, data, learning rates.

    Source: lottery-ticket rewinding (Frankle et al., arXiv 1903.01611), here of components.
    """

    to: Literal["start", "fresh"] = "fresh"
    """Values after the transfer, or those before it."""
    steps: tuple[int, ...]
    """Optimiser steps done before each rewinding, such as (0, 500); one that the run does not reach never happens."""

    def check(self, model: HookedTransformer, n_steps: int) -> None:
        flat_mask(model, self.selector)
        if not self.steps or min(self.steps) < 0 or len(set(self.steps)) < len(self.steps):
            raise ValueError(f"steps={self.steps}; give distinct steps from 0 on")

    def weights_before(self, step: int, initial: Initial) -> Float[Tensor, " n_parameters"] | None:
        if step not in self.steps:
            return None
        return initial.fresh if self.to == "fresh" else initial.start

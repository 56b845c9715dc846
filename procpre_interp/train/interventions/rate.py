"""Another learning rate or decay for some components in a window of steps."""

from dataclasses import dataclass

from procpre_interp.model import HookedTransformer, flat_mask
from procpre_interp.train.interventions.base import INTERVENTIONS, Intervention, check_window, in_window


@INTERVENTIONS.register("rate")
@dataclass(frozen=True, kw_only=True, slots=True)
class Rate(Intervention):
    """Another learning rate or decay for components, in a window of steps.

    Changes: the selected weights' updates, times `learning_rate_factor` (0: frozen in the window), and their decay,
    times `decay_factor` beside that (decay is a share of the weight times its learning rate). Holds fixed: initial
    weights, data, everything else's rate; the moments of the optimiser go on, so that a freeze that ends finds them
    warm.
    """

    learning_rate_factor: float = 1.0
    """Factor on the learning rate; 0 freezes."""
    decay_factor: float = 1.0
    """Factor on the weight decay."""
    from_step: int = 0
    """First step with these factors."""
    to_step: int | None = None
    """First step without them again. Default: never."""

    def check(self, model: HookedTransformer, n_steps: int) -> None:
        flat_mask(model, self.selector)
        check_window(self.from_step, self.to_step, n_steps)
        if not (self.learning_rate_factor >= 0 and self.decay_factor >= 0):
            raise ValueError(f"{self.learning_rate_factor=}, {self.decay_factor=}; factors must not be negative")

    def rate(self, step: int) -> tuple[float, float]:
        if not in_window(step, self.from_step, self.to_step):
            return 1.0, 1.0
        return self.learning_rate_factor, self.decay_factor

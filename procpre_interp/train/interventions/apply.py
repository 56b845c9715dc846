"""The interventions of one run: done to its initial weights, then asked at each step, for model and optimiser."""

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from procpre_interp.data.stream import TaskStream
from procpre_interp.data.task import Batch, Task
from procpre_interp.model import HookedTransformer, flat_mask, torch_defaults
from procpre_interp.train.interventions.base import Factors, Initial, Intervention
from procpre_interp.train.optimiser import FlatAdamW
from procpre_interp.train.process import run_threads
from procpre_interp.train.settings import TrainConfig


@torch_defaults()
def change_initial_weights(
    model: HookedTransformer,
    task: Task,
    config: TrainConfig,
    *,
    seed: int,
    fresh: Float[Tensor, " n_parameters"] | None = None,
) -> Initial:
    """Change a model's initial weights in place, as the interventions of a config ask; the weights as they are then.

    `fresh` are the weights before the transfer, by default those of `model`. Raises `ValueError` for an intervention
    that cannot be done to this run.
    """

    initial = before_interventions(model, task, seed=seed, fresh=fresh)
    with run_threads(config.threads):  # whose number changes the last bits of spectra
        for intervention in config.interventions:
            intervention.check(model, config.last_step)
            intervention.initialise(model, initial)
    return dataclasses.replace(initial, start=model.flat.detach().clone())


def before_interventions(
    model: HookedTransformer, task: Task, *, seed: int, fresh: Float[Tensor, " n_parameters"] | None = None
) -> Initial:
    """The weights that a run starts from while nothing is done to them yet."""

    def examples(n: int) -> Batch:
        return TaskStream(task, seed=seed, split="train", size=n).batch(0)

    start = model.flat.detach().clone()
    fresh = start if fresh is None else fresh.to(start.device)
    return Initial(fresh=fresh, start=start, examples=examples, seed=seed)


class Interventions:
    """What a config has done to a run. Changes the initial weights of `model` at once; make it before any step.

    Raises `ValueError` for one that cannot be done to this run.
    """

    def __init__(
        self,
        model: HookedTransformer,
        task: Task,
        config: TrainConfig,
        *,
        seed: int,
        fresh: Float[Tensor, " n_parameters"] | None = None,
    ) -> None:
        self.model, self.each = model, config.interventions
        before = before_interventions(model, task, seed=seed, fresh=fresh)
        self.initial = change_initial_weights(model, task, config, seed=seed, fresh=fresh)
        self.factors = [each.factors(model, before) for each in self.each]
        self.masks = [flat_mask(model, each.selector).to(self.initial.start.device) for each in self.each]
        self._rates: tuple[tuple[float, float], ...] = ()
        self._scales: Factors | None = None

    @property
    def may_penalise(self) -> bool:
        """Whether any of them adds to the loss, at whatever step."""
        return any(type(intervention).penalty is not Intervention.penalty for intervention in self.each)

    def set_weights(self, step: int, optimiser: FlatAdamW) -> None:
        """What happens to weights before this step."""
        for intervention, mask in zip(self.each, self.masks):
            values = intervention.weights_before(step, self.initial)
            if values is not None:
                optimiser.assign(mask, values)

    def scales(self, step: int) -> Factors | None:
        """Factors on the learning rate of each parameter and on its decay; None if all are 1."""
        rates = tuple(intervention.rate(step) for intervention in self.each)
        if rates != self._rates:
            self._rates, self._scales = rates, None
            if any(rate != (1.0, 1.0) for rate in rates) or any(own is not None for own in self.factors):
                self._scales = self._scales_at(rates)
        return self._scales

    def _scales_at(self, rates: Sequence[tuple[float, float]]) -> Factors:
        scales = torch.ones_like(self.initial.start), torch.ones_like(self.initial.start)
        for mask, factors, own in zip(self.masks, rates, self.factors):
            for i, (scale, factor) in enumerate(zip(scales, factors)):
                scale[mask] *= factor if own is None else factor * own[i][mask]
        return scales

    def backward(self, batch: Batch, step: int) -> None:
        """Add the gradients of all penalties to those of the parameters."""
        for intervention in self.each:
            penalty = intervention.penalty(self.model, batch, step)
            if penalty is not None:
                penalty.backward()

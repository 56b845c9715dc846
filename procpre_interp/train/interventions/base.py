"""What a training run may have done to it: initial weights, weights at chosen steps, learning rates, and its loss.

An intervention is a frozen dataclass, part of the run's identity with its name and version. Its docstring says what it
holds fixed and what it changes. It is a function of its fields, the step and the two vectors of initial weights, so
that an interrupted run goes on bit for bit. All of them work with every kernel; in a
stack, a penalty takes a pass of its own model alone.
"""

import abc
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from procpre_interp.core.registry import Registry
from procpre_interp.core.selectors import canonical_selector
from procpre_interp.data.task import Batch
from procpre_interp.model import HookedTransformer, flat_mask

Factors = tuple[Float[Tensor, " n_parameters"], Float[Tensor, " n_parameters"]]
"""Factors on the learning rate of each parameter, and on its decay beside that."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Initial:
    """The weights that a run starts from, before and after the transfer, and data to measure them on."""

    fresh: Float[Tensor, " n_parameters"]
    """Weights before the transfer: fresh ones, drawn from the seed, or, where the run is the rest of a training
    (`start_at`), those that its first part ended with."""
    start: Float[Tensor, " n_parameters"]
    """Weights after the transfer; the same vector where there is none."""
    examples: Callable[[int], Batch]
    """n sequences to train on of the run's task and seed, the same in every condition of a replicate."""
    seed: int
    """Seed of the run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Intervention(abc.ABC):
    """Something done to a training run. Subclasses override what they need; `INTERVENTIONS.register(name)` enters them.

    Steps count from 0: what happens before step t happens when t optimiser steps are done. A window is
    from_step <= t < to_step.
    """

    registry: ClassVar["Registry[Intervention]"]
    name: ClassVar[str]
    version: ClassVar[int] = 1
    of_transfer: ClassVar[bool] = False
    """Whether it compares weights before and after a transfer, and so is done where there is one: with phase 1 in the
    middle of phase 2, as its second part begins. What else changes initial weights is done before the first part."""

    selector: str
    """Which components, as everywhere: attn, mlp, ln, blocks.0.attn.head.2, ..."""

    @property
    def is_divided(self) -> bool:
        """Whether it both changes initial weights and does something in training, so that no part of it has both."""
        own = type(self)
        acts = own.rate, own.factors, own.penalty
        return self.is_initial and acts != (Intervention.rate, Intervention.factors, Intervention.penalty)

    @property
    def is_initial(self) -> bool:
        """Whether it changes the weights that a training begins with, whatever they are."""
        return not self.of_transfer and type(self).initialise is not Intervention.initialise

    @property
    def starts_over(self) -> bool:
        """Whether it changes or goes back to initial weights, so that the second part of a training cannot have it."""
        return self.is_initial or type(self).weights_before is not Intervention.weights_before

    @property
    def begins_at(self) -> int:
        """The first step at which it does anything: that of its window, where it has one."""
        return getattr(self, "from_step", 0)

    @property
    def draws(self) -> bool:
        """Whether it draws random numbers."""
        return False

    def canonical(self, place: int) -> "Intervention":
        """The same intervention with its selector in canonical spelling; before it come `place` of its name that draw
        random numbers, if it draws any."""
        return dataclasses.replace(self, selector=canonical_selector(self.selector))

    def check(self, model: HookedTransformer, n_steps: int) -> None:
        """Raise `ValueError` where this cannot be done to a run of so many steps."""
        flat_mask(model, self.selector)

    def initialise(self, model: HookedTransformer, initial: Initial) -> None:
        """Change the initial weights in place."""
        return

    def weights_before(self, step: int, initial: Initial) -> Float[Tensor, " n_parameters"] | None:
        """What the selected weights are set to before this step; None if nothing happens to them."""
        return None

    def rate(self, step: int) -> tuple[float, float]:
        """Factors on the selected weights' learning rate and on their decay at this step."""
        return 1.0, 1.0

    def factors(self, model: HookedTransformer, initial: Initial) -> Factors | None:
        """Factors that each selected weight has of its own at all steps, on top of `rate`; None for no such factors.

        `initial` are the weights before anything was done to them.
        """
        return None

    def penalty(self, model: HookedTransformer, batch: Batch, step: int) -> Float[Tensor, ""] | None:
        """What is added to the loss at this step, in nats; None for nothing."""
        return None


INTERVENTIONS: Registry[Intervention] = Registry("intervention")
Intervention.registry = INTERVENTIONS


def check_window(from_step: int, to_step: int | None, n_steps: int) -> None:
    if from_step < 0 or (to_step is not None and to_step <= from_step):
        raise ValueError(f"from_step={from_step}, to_step={to_step}; a window is 0 <= from_step < to_step")
    if from_step >= n_steps:
        raise ValueError(f"from_step={from_step}; the run has only {n_steps} steps, so nothing would happen")


def in_window(step: int, from_step: int, to_step: int | None) -> bool:
    return from_step <= step and (to_step is None or step < to_step)

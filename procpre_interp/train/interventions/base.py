"""What a training run may have done to it: initial weights, weights at chosen steps, learning rates, and its loss.

An intervention is a frozen dataclass, part of the run's identity with its name and version. Its docstring says what it
holds fixed and what it changes. It is a function of its fields, the step and the two vectors of initial weights, so
that an interrupted run goes on bit for bit. All of them work with either kernel.
"""

import abc
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from procpre_interp.data.task import Batch
from procpre_interp.model import HookedTransformer, canonical_selector, flat_mask
from procpre_interp.core.registry import Registry
from procpre_interp.train.sharpness import heads_of, match_entropy, relative_entropy

EXAMPLES = 256
"""Sequences that an entropy is matched on."""
TOLERANCE = 0.02
"""Of a matched entropy, over its maximum."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Initial:
    """The weights that a run starts from, before and after the transfer, and data to measure them on."""

    fresh: Float[Tensor, " n_parameters"]
    """Before any transfer: drawn from the seed."""
    start: Float[Tensor, " n_parameters"]
    """After the transfer; the same vector where there is none."""
    examples: Callable[[int], Batch]
    """The first n training sequences of the run's task and seed, the same in every condition of a replicate."""
    seed: int
    """Of the run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Intervention(abc.ABC):
    """Something done to a training run. Subclasses override what they need; `INTERVENTIONS.register(name)` enters them.

    Steps count from 0: what happens before step t happens when t optimiser steps are done. A window is
    from_step <= t < to_step.
    """

    registry: ClassVar["Registry[Intervention]"]
    name: ClassVar[str]
    version: ClassVar[int] = 1

    selector: str
    """Which components, as everywhere: attn, mlp, ln, blocks.0.attn.head.2, ..."""

    def canonical(self) -> "Intervention":
        """With its selector spelt in the one way that names a run."""
        return dataclasses.replace(self, selector=canonical_selector(self.selector))

    def check(self, model: HookedTransformer, n_steps: int) -> None:
        """Raise `ValueError` where this cannot be done to a run of so many steps."""
        flat_mask(model, self.selector)

    def initialise(self, model: HookedTransformer, initial: Initial) -> None:
        """Change the initial weights in place."""
        return

    def weights_before(self, step: int, initial: Initial) -> Float[Tensor, " n_parameters"] | None:
        """What the selected weights are set to before this step; None: nothing happens to them."""
        return None

    def rate(self, step: int) -> tuple[float, float]:
        """Factors on the selected weights' learning rate and on their decay at this step."""
        return 1.0, 1.0

    def penalty(self, model: HookedTransformer, batch: Batch, step: int) -> Float[Tensor, ""] | None:
        """What is added to the loss at this step, in nats; None: nothing."""
        return None


INTERVENTIONS: Registry[Intervention] = Registry("intervention")
Intervention.registry = INTERVENTIONS


def _check_window(from_step: int, to_step: int | None, n_steps: int) -> None:
    if from_step < 0 or (to_step is not None and to_step <= from_step):
        raise ValueError(f"from_step={from_step}, to_step={to_step}; a window is 0 <= from_step < to_step")
    if from_step >= n_steps:
        raise ValueError(f"from_step={from_step}; the run has only {n_steps} steps, so nothing would happen")


def _in_window(step: int, from_step: int, to_step: int | None) -> bool:
    return from_step <= step and (to_step is None or step < to_step)


@INTERVENTIONS.register("entropy_penalty")
@dataclass(frozen=True, kw_only=True, slots=True)
class EntropyPenalty(Intervention):
    """Adds a penalty on attention entropy to the loss: weight x mean over the selected heads of (entropy - target)^2.

    Changes: how sharp the heads' attention is while they train, towards the target, or, without one, towards 0 (the
    penalty is then weight x mean entropy). Holds fixed: initial weights, data and learning rates; what the heads attend
    to is left to the loss. Entropy is that of the probes: of each row over the most that it can have, mean over the
    rows of real tokens but the first, 0 (one key) to 1 (even). It is estimated from the first `n_sequences` of each
    batch, another sample at every step, and only patterns of the selected heads are made for it.

    Source: P2's third mechanism asks whether entropy carries the gain; the form of the penalty is our choice.
    """

    selector: str = "attn"
    """Heads: attn, or some such as blocks.1.attn.head.2. What is in it beside heads has no effect."""
    weight: float = 1.0
    """Of the penalty, beside a loss in nats."""
    target: float | None = None
    """Entropy aimed at, 0 to 1; none: as low as can be."""
    from_step: int = 0
    """First step with the penalty."""
    to_step: int | None = None
    """First step without it again; none: to the end."""
    schedule: Literal["constant", "linear"] = "constant"
    """Of the weight within the window; linear: falling to 0 at its end."""
    n_sequences: int = 64
    """Sequences of the batch that it is estimated from."""

    def check(self, model: HookedTransformer, n_steps: int) -> None:
        heads_of(model.config, self.selector)
        _check_window(self.from_step, self.to_step, n_steps)
        if not self.weight > 0 or self.n_sequences < 1:
            raise ValueError(f"weight={self.weight}, n_sequences={self.n_sequences}; both must be positive")
        if self.target is not None and not 0 <= self.target <= 1:
            raise ValueError(f"target={self.target}; an entropy over its maximum is in [0, 1]")
        if self.schedule == "linear" and self.to_step is None:
            raise ValueError("schedule=linear needs to_step, where the weight is 0")

    def penalty(self, model: HookedTransformer, batch: Batch, step: int) -> Float[Tensor, ""] | None:
        if not _in_window(step, self.from_step, self.to_step):
            return None
        weight = self.weight
        if self.schedule == "linear" and self.to_step is not None:
            weight *= 1 - (step - self.from_step) / (self.to_step - self.from_step)
        entropy = relative_entropy(model, batch[: self.n_sequences], heads_of(model.config, self.selector))
        return weight * (entropy if self.target is None else (entropy - self.target).square()).mean()


@INTERVENTIONS.register("matched_entropy")
@dataclass(frozen=True, kw_only=True, slots=True)
class MatchedEntropy(Intervention):
    """Heads with the query and key weights of one model, scaled so that their entropy is that of another.

    pattern fresh, entropy transferred: what the transferred heads attend to is destroyed, and how sharply they do it is
    kept. pattern transferred, entropy fresh: the reverse. Changes, before the first step: W_Q, b_Q, W_K and b_K of the
    selected heads, by the choice of `pattern`, and then all four by one factor a head, layer after layer, so that its
    mean entropy on `EXAMPLES` training sequences is that of the same head in the other model. Holds fixed: all other
    weights, data and training. So the scale of queries and keys goes with the entropy, as it must: between two patterns
    of one scale, entropy is not free. Raises `ValueError` where no factor on the scores from 2^-20 to 2^20 comes within
    `TOLERANCE`.

    Source: P2's third mechanism asks for it; the procedure is our choice. Version 1 scaled queries alone, whose factors
    were up to a thousand.
    """

    version: ClassVar[int] = 2

    selector: str = "attn"
    """Heads: attn, or some such as blocks.1.attn.head.2. What is in it beside heads has no effect."""
    pattern: Literal["fresh", "transferred"] = "fresh"
    """Whose query and key weights."""
    entropy: Literal["fresh", "transferred"] = "transferred"
    """Whose entropy, measured before anything is changed."""

    def check(self, model: HookedTransformer, n_steps: int) -> None:
        heads_of(model.config, self.selector)

    def initialise(self, model: HookedTransformer, initial: Initial) -> None:
        heads, vectors = heads_of(model.config, self.selector), {"fresh": initial.fresh, "transferred": initial.start}
        own, batch = model.flat.detach().clone(), initial.examples(EXAMPLES)
        with torch.no_grad():
            model.flat.copy_(vectors[self.entropy])
            wanted = relative_entropy(model, batch, heads)
            names = [f"blocks.{layer}.attn.head.{head}.{name}" for layer, head in heads for name in _QUERY_KEY]
            mask = flat_mask(model, "+".join(names)).to(own.device)
            model.flat.copy_(torch.where(mask, vectors[self.pattern], own))
        match_entropy(model, batch, heads, wanted)
        with torch.no_grad():
            missed = (relative_entropy(model, batch, heads) - wanted).abs()
        if float(missed.max()) > TOLERANCE:
            worst = int(missed.argmax())
            layer, head = heads[worst]
            raise ValueError(
                f"no factor on the {self.pattern} scores of L{layer}H{head} gives it an entropy of "
                f"{wanted[worst]:.3f} (off by {missed[worst]:.3f} at the nearest); match other heads, or embeddings "
                "that differ"
            )


_QUERY_KEY = ("W_Q", "W_K", "b_Q", "b_K")


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
    """On the learning rate; 0: frozen."""
    decay_factor: float = 1.0
    """On the weight decay."""
    from_step: int = 0
    """First step with these factors."""
    to_step: int | None = None
    """First step without them again; none: to the end."""

    def check(self, model: HookedTransformer, n_steps: int) -> None:
        flat_mask(model, self.selector)
        _check_window(self.from_step, self.to_step, n_steps)
        if not (self.learning_rate_factor >= 0 and self.decay_factor >= 0):
            raise ValueError(f"{self.learning_rate_factor=}, {self.decay_factor=}; factors must not be negative")

    def rate(self, step: int) -> tuple[float, float]:
        if not _in_window(step, self.from_step, self.to_step):
            return 1.0, 1.0
        return self.learning_rate_factor, self.decay_factor

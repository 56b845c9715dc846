"""Interventions on the entropy of attention."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from procpre_interp.core.selectors import head_term
from procpre_interp.data.task import Batch
from procpre_interp.model import HookedTransformer, flat_mask
from procpre_interp.train.interventions.base import INTERVENTIONS, Initial, Intervention, check_window, in_window
from procpre_interp.train.sharpness import heads_of, match_entropy, relative_entropy

EXAMPLES = 256
"""Sequences that an entropy is matched on."""
TOLERANCE = 0.02
"""Largest error of a matched entropy, as a share of its maximum."""


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
    """Weight of the penalty, relative to a loss in nats."""
    target: float | None = None
    """Target entropy, 0 to 1. Default: as low as possible."""
    from_step: int = 0
    """First step with the penalty."""
    to_step: int | None = None
    """First step without it again. Default: never."""
    schedule: Literal["constant", "linear"] = "constant"
    """Course of the weight within the window; linear falls to 0 at its end."""
    n_sequences: int = 64
    """Sequences of the batch that it is estimated from."""

    def check(self, model: HookedTransformer, n_steps: int) -> None:
        heads_of(model.config, self.selector)
        check_window(self.from_step, self.to_step, n_steps)
        if not self.weight > 0 or self.n_sequences < 1:
            raise ValueError(f"weight={self.weight}, n_sequences={self.n_sequences}; both must be positive")
        if self.target is not None and not 0 <= self.target <= 1:
            raise ValueError(f"target={self.target}; an entropy over its maximum is in [0, 1]")
        if self.schedule == "linear" and self.to_step is None:
            raise ValueError("schedule=linear needs to_step, where the weight is 0")

    def penalty(self, model: HookedTransformer, batch: Batch, step: int) -> Float[Tensor, ""] | None:
        if not in_window(step, self.from_step, self.to_step):
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
    selected heads, by the choice of `pattern`, and then all four by one factor per head, layer after layer, so that its
    mean entropy on `EXAMPLES` training sequences is that of the same head in the other model. Holds fixed: all other
    weights, data and training. So the scale of queries and keys goes with the entropy, as it must: between two patterns
    of one scale, entropy is not free. Raises `ValueError` where no factor on the scores from 2^-20 to 2^20 comes within
    `TOLERANCE`.

    Source: P2's third mechanism asks for it; the procedure is our choice. Version 1 scaled queries alone, whose factors
    were up to a thousand.
    """

    version: ClassVar[int] = 2
    of_transfer: ClassVar[bool] = True

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
            names = [f"{head_term(layer, head)}.{name}" for layer, head in heads for name in _QUERY_KEY]
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

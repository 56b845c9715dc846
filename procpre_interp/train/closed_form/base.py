"""Initial weights without training: a few numbers, fitted on phase-1 models, in place of phase 1 itself.

Each is an intervention on the weights before the first step, a function of its numbers and of the fresh draw, whose
directions stand wherever the recipe leaves one open; several of them are one recipe, done in the order that they are
listed in. `fit` gives the numbers as means over models; they are fields,
and so part of a run's identity. What phase 1 did beyond these numbers is gone: that is the question.
"""

import abc
import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from procpre_interp.core.messages import unknown_name
from procpre_interp.core.seeding import stream
from procpre_interp.model import HookedTransformer, flat_mask, torch_defaults
from procpre_interp.train.interventions import Initial, Intervention

PerHead = tuple[tuple[float, ...], ...]
"""Layers x heads."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Initialisation(Intervention):
    """A closed-form initialisation: subclasses say how numbers are `fit`, and `write` them."""

    selector: str = "all"
    """Which weights may be changed: whatever else it would write is left as it is."""
    place: int = 0
    """Which of the independent draws of its kind this one has. `TrainConfig.resolve` counts those of one name that
    draw, from 0; runs stored before it did so have one draw for all of them."""

    @classmethod
    @abc.abstractmethod
    def fit(cls, models: Sequence[HookedTransformer]) -> "Initialisation":
        """The recipe with its numbers as means over these models, which are of one shape."""

    @abc.abstractmethod
    def write(self, model: HookedTransformer, generator: Generator) -> None:
        """Change the model's fresh weights in place."""

    def canonical(self, place: int) -> "Intervention":
        return dataclasses.replace(Intervention.canonical(self, place), place=place)

    @torch_defaults()
    def initialise(self, model: HookedTransformer, initial: Initial) -> None:
        with torch.no_grad():
            before = model.flat.clone()
            place = (self.place,) if self.place else ()  # the first one's stream is that of an only one
            self.write(model, stream(initial.seed, "closed form", self.name, *place))
            chosen = flat_mask(model, self.selector).to(before.device)
            model.flat.copy_(torch.where(chosen, model.flat, before))


def root_mean_square(tensor: Tensor) -> float:
    return float(tensor.detach().double().square().mean().sqrt())


def rounded(x: Tensor | float) -> float:
    """Four digits: more would say nothing, and a run's config is read by people."""
    return float(f"{float(x):.4g}")


def mean_of(values: Sequence[float]) -> float:
    return rounded(float(np.mean(values)))


def check_names(model: HookedTransformer, names: Iterable[str]) -> None:
    known = dict(model.named_parameters())
    for name in names:
        if name not in known:
            raise unknown_name("tensor", name, list(known))

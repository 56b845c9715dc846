"""Ablations of weights: what is damaged, how, and what that keeps."""

import abc
from dataclasses import dataclass
from typing import ClassVar

from torch import Generator

from procpre_interp.core.registry import Registry
from procpre_interp.model import ModelConfig, Weights


@dataclass(frozen=True, kw_only=True, slots=True)
class Ablation(abc.ABC):
    """Weights in, damaged weights out.

    Subclasses set `keeps` and `destroys`, add their fields and `apply`; `ABLATIONS.register(name)` enters them.
    """

    registry: ClassVar["Registry[Ablation]"]
    name: ClassVar[str]
    version: ClassVar[int] = 1
    keeps: ClassVar[str]
    """What the damage leaves, in one line for tables."""
    destroys: ClassVar[str]
    """What it takes away, in one line for tables."""

    selector: str = "blocks+ln_final"
    """Which weights are damaged; the others keep their values."""

    @abc.abstractmethod
    def apply(self, weights: Weights, config: ModelConfig, *, generator: Generator) -> Weights:
        """New weights; those given are not changed.

        Raises:
            ValueError: the selector matches nothing, or nothing that this ablation can damage.
        """


ABLATIONS: Registry[Ablation] = Registry("ablation")
Ablation.registry = ABLATIONS

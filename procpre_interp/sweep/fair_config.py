"""What makes a sweep fair: trials that every arm is tuned with, seeds for that alone, and gates of phase 1."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from procpre_interp.data import Task

Control = Literal["scales", "natural text", "shuffled sequences"]
"""A fresh model of a transfer's scales; a phase 1 of as much natural text; one of its own sequences, shuffled."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gate:
    """When a pretraining counts as learnt."""

    phase1: str
    """Name of the pretraining."""
    accuracy: float
    """Test accuracy from which on it is (share, 0 to 1), set before the runs; 0 where there is nothing to learn."""

    def __post_init__(self) -> None:
        if not 0 <= self.accuracy <= 1:
            raise ValueError(f"gate of {self.phase1!r}: accuracy={self.accuracy}; it is a share and must be in 0 to 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class Fair:
    """Control arms of every transfer, and one tuning for all arms.

    Every transfer of the sweep gets the arms of `controls` beside it. Each arm, these included, has one trial per
    learning rate and initial scale on each tuning seed, and goes on with what had the lowest validation loss, averaged
    over them; the sweep's own seeds confirm.
    """

    learning_rates: tuple[float, ...]
    """Peak learning rates of phase 2 to try."""
    initial_scales: tuple[float, ...]
    """Factors on the initial weights, transferred or fresh, to try (`Scaled`); 1 leaves them as they are."""
    tuning_replicates: int
    """Number of replicates that arms are tuned on."""
    first_tuning_seed: int = 0
    """Seed of the first of these; none of them may be one that the sweep confirms on."""
    gates: tuple[Gate, ...]
    """When each pretraining counts as learnt; every one that a transfer takes weights from needs its gate."""
    controls: tuple[Control, ...] = get_args(Control)
    """Arms that every transfer gets beside it. A claim on text is left undecided without all of them."""
    natural_text: Task | None = None
    """The text that stands in for phase 1 in the arm of that name. Default: that of phase 2, in the order that phase 2
    has not (random windows where that walks through its text, or the other way round)."""

    def __post_init__(self) -> None:
        for name in ("learning_rates", "initial_scales"):
            _refuse_twice(name, getattr(self, name))
            if not all(0 < value < math.inf for value in getattr(self, name)):
                raise ValueError(f"fair: {name}={list(getattr(self, name))}; each must be a positive number")
        if self.tuning_replicates < 1:
            raise ValueError(f"fair: tuning_replicates={self.tuning_replicates}; there must be at least 1")
        _refuse_twice("gates", [gate.phase1 for gate in self.gates])
        _refuse_twice("controls", self.controls)

    @property
    def tuning_seeds(self) -> range:
        """One per replicate that arms are tuned on."""
        return range(self.first_tuning_seed, self.first_tuning_seed + self.tuning_replicates)

    @property
    def n_trials(self) -> int:
        """Number of trials that every arm has on each tuning seed."""
        return len(self.learning_rates) * len(self.initial_scales)


def _refuse_twice(name: str, values: Sequence[object]) -> None:
    if not values:
        raise ValueError(f"fair: {name} is empty; give at least one")
    if len(set(values)) < len(values):
        raise ValueError(f"fair: {name} has one entry twice: {list(values)}")

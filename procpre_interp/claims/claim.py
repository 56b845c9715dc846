"""A claim: a sentence that can fail, the contrast that decides it, and its margin, all named before the runs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["supported", "refuted", "undecided"]
Predicted = Literal["above", "below", "within"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Contrast:
    """A weighted sum of conditions within a replicate, and what is predicted of its mean over replicates."""

    name: str
    """What people read."""
    weights: Mapping[str, float | int]
    """Condition -> weight; {"attention": 1, "none": -1} is a gain."""
    predicted: Predicted | None = None
    """Above the margin, below it, or within +-margin. Default: reported, not predicted."""
    margin: float | int = 0.0
    """The smallest effect that matters, in the unit of the measure, fixed before the runs."""
    measure: str = "accuracy"
    """Column of the table: accuracy on the test set (share), restricted_time_steps (steps to breakthrough, at most the
    limit), or what an observation measured."""

    def __post_init__(self) -> None:
        if not self.weights or not all(math.isfinite(weight) for weight in self.weights.values()):
            raise ValueError(f"contrast {self.name!r} has weights {dict(self.weights)}; give each condition a number")
        if self.predicted == "within" and not self.margin > 0:
            raise ValueError(f"contrast {self.name!r}: margin={self.margin}; within needs a margin above 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A sentence that can fail, with the contrast that decides it."""

    name: str
    """Name of its script and of its stored table."""
    claim: str
    """The sentence."""
    prediction: str
    """What should be seen if it holds."""
    margin: str
    """Why the margin is what it is."""
    refuted_by: str
    """What should be seen if it does not."""
    primary: Contrast
    """The one contrast, named before the runs, that gives the verdict."""
    secondary: Sequence[Contrast] = ()
    """Other contrasts, which are decided after an adjustment for their number (Holm)."""

    def __post_init__(self) -> None:
        if self.primary.predicted is None:
            raise ValueError(f"claim {self.name!r}: the primary contrast predicts nothing, so nothing could refute it")


def formula(contrast: Contrast) -> str:
    """The contrast as arithmetic: "attention - none"."""
    parts = []
    for name, weight in contrast.weights.items():
        size = "" if abs(weight) == 1 else f"{abs(weight):.4g} "
        parts.append(f"{'-' if weight < 0 else '+'} {size}{name}")
    return " ".join(parts).removeprefix("+ ")

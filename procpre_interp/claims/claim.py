"""A claim: a sentence that can fail, the contrast that decides it, and its margin, all named before the runs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from procpre_interp.claims.measures import Measure, measure_of
from procpre_interp.stats.confidence_sequence import Limits

Predicted = Literal["above", "below", "within"]
Page = Literal["do_the_claims_hold", "what_survives_damage", "can_anything_cheaper", "does_it_help_on_real_text"]
"""Page of the explorer, by the name of its script."""


class Verdict(StrEnum):
    """What the data say of a prediction."""

    SUPPORTED = "supported"
    REFUTED = "refuted"
    UNDECIDED = "undecided"


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
    version: int = 1
    """Raised when the claim is declared anew. Stored verdicts say which declaration they are on, and stay readable."""
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
    premise: str | None = None
    """Name of a secondary contrast without which the primary one says nothing, as a share of a gain where there is no
    gain: unless it is supported, the verdict is undecided."""
    limits: Mapping[str, Limits] = field(default_factory=dict)
    """Smallest and largest value of measures that `compared.contrast_limits` does not know, where runs may differ in
    kind (as those that broke through do from others), so that an interval has to allow for any distribution. A measure
    without limits is taken to be nearly normal. Set before the runs, like the margin."""
    page: Page = "do_the_claims_hold"
    """Page of the explorer that shows its figures. Every claim is also on the default one."""
    measures: Mapping[str, Measure] = field(default_factory=dict)
    """Measures of its contrasts -> name, unit and scale as people read them. Default: those of `measures.MEASURES`, and
    for any other the column's name without a unit."""

    def __post_init__(self) -> None:
        if self.primary.predicted is None:
            raise ValueError(f"claim {self.name!r}: the primary contrast predicts nothing, so nothing could refute it")
        if self.premise not in {None, *(each.name for each in self.secondary if each.predicted)}:
            raise ValueError(f"claim {self.name!r}: premise={self.premise!r} is no secondary contrast that predicts")
        unused = {*self.measures, *self.limits} - {contrast.measure for contrast in self.contrasts}
        if unused:
            raise ValueError(f"claim {self.name!r}: no contrast has the measure {min(unused)!r}; take it out")

    @property
    def contrasts(self) -> tuple[Contrast, ...]:
        """All contrasts, the primary one first."""
        return self.primary, *self.secondary

    def measure_of(self, contrast: Contrast) -> Measure:
        """How people read the measure of one of its contrasts."""
        return self.measures.get(contrast.measure) or measure_of(contrast.measure)


def formula(contrast: Contrast) -> str:
    """The contrast as arithmetic: "attention - none"."""
    parts = []
    for name, weight in contrast.weights.items():
        size = "" if abs(weight) == 1 else f"{abs(weight):.4g} "
        parts.append(f"{'-' if weight < 0 else '+'} {size}{name}")
    return " ".join(parts).removeprefix("+ ")

"""Exact statistics of breakthrough counts: what stands beside a verdict on accuracies that have two modes."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from procpre_interp.stats.resampling import binomial_bounds


@dataclass(frozen=True, kw_only=True, slots=True)
class BreakthroughCount:
    """How many of n runs of a condition broke through, with the exact 95 % bounds (Clopper-Pearson) of their share."""

    condition: str
    broke: int
    n: int
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.condition} {self.broke} of {self.n} [{100 * self.low:.0f}, {100 * self.high:.0f}] %"


def count_breakthroughs(condition: str, broke: Bool[np.ndarray, " run"]) -> BreakthroughCount:
    """The count of one condition's runs, one or more."""
    successes, n = int(broke.sum()), len(broke)
    low, high = (float(bound[0]) for bound in binomial_bounds(np.array([successes]), np.array([n])))
    return BreakthroughCount(condition=condition, broke=successes, n=n, low=low, high=high)


def boschloo_p(first: BreakthroughCount, second: BreakthroughCount) -> float:
    """Two-sided p of Boschloo's exact test that both conditions break through equally often.

    Unconditional: runs of one condition are a sample of their own, and their number of successes is not fixed. It takes
    runs of the same seed to be independent. Source: Boschloo 1970.
    """
    from scipy.stats import boschloo_exact  # takes three times as long to import as all else of scipy that we need

    failed = [first.n - first.broke, second.n - second.broke]
    if not any(failed) or not (first.broke or second.broke):
        return 1.0  # the statistic is undefined: nothing differs
    return float(boschloo_exact([[first.broke, second.broke], failed]).pvalue)

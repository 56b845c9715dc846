"""Confidence sequences over replicates: intervals and p-values that hold at every n, so that one may look and stop."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from procpre_interp.stats import betting, t_sequence
from procpre_interp.stats.resampling import LEVEL, Interval, IntervalMethod

FEWEST = 6
"""Replicates below which nothing is decided, whatever an interval says."""
FEWEST_WITHIN = 14
"""Replicates below which nothing is called as good as zero: an outcome that occurs in 19 % of replicates is missed by
14 of them with probability 0.05."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Smallest and largest value that an outcome could have."""

    low: float | int
    high: float | int

    def __post_init__(self) -> None:
        if not -math.inf < self.low < self.high < math.inf:
            raise ValueError(f"limits {self.low} and {self.high}; give the smallest and the largest value")


@dataclass(frozen=True, kw_only=True, slots=True)
class SequentialTest:
    """p-values of a mean against a value, valid at every n, and the smallest that n replicates could have given."""

    above: float
    """p of "not above it": one-sided."""
    below: float
    """p of "not below it": one-sided."""
    smallest_above: float
    smallest_below: float

    @property
    def p(self) -> float:
        """Two-sided p."""
        return min(1.0, 2 * min(self.above, self.below))

    @property
    def smallest_p(self) -> float:
        """The smallest two-sided p that n replicates could have given."""
        return min(1.0, 2 * min(self.smallest_above, self.smallest_below))


def method_for(limits: Limits | None) -> IntervalMethod:
    """Betting for outcomes with a known range, Student's mixture for others."""
    return IntervalMethod.T_MIXTURE if limits is None else IntervalMethod.BETTING


def bounds_by_n(
    values: Float[np.ndarray, " replicate"], limits: Limits | None, *, level: float | int = LEVEL
) -> tuple[Float[np.ndarray, " replicate"], Float[np.ndarray, " replicate"]]:
    """Bounds of the mean after each replicate, which hold for all n together with probability `level`."""
    tail = (1 - level) / 2
    if limits is None:
        return t_sequence.t_bounds(values, tail)
    size = limits.high - limits.low
    low, high = betting.betting_bounds(_scaled(values, limits), tail)
    return limits.low + size * low, limits.low + size * high


def sequence_interval(
    values: Float[np.ndarray, " replicate"], limits: Limits | None, *, level: float | int = LEVEL
) -> Interval:
    """Mean and bounds after the last replicate; NaN without any."""
    if not len(values):
        return Interval(estimate=float("nan"), low=float("nan"), high=float("nan"), n=0)
    low, high = (float(bound[-1]) for bound in bounds_by_n(values, limits, level=level))
    return Interval(estimate=float(values.mean()), low=low, high=high, n=len(values))


def sequential_test(
    values: Float[np.ndarray, " replicate"], mean: float | int, limits: Limits | None
) -> SequentialTest:
    """The mean of the replicates, in their order, against `mean`: the largest evidence up to the last one counts.

    A one-sided p is at most (1 - level) / 2 just where the bound of `bounds_by_n` on that side lies beyond `mean`.
    """
    n = len(values)
    if limits is None:
        factor = t_sequence.log_bayes_factor(values, mean) + np.log(2)  # a side each, of a symmetric mixture
        running = values.cumsum() / np.arange(1, n + 1)
        above, below = (np.where(side, factor, -np.inf) for side in (running > mean, running < mean))
        most = [t_sequence.largest_log_bayes_factor(n) + float(np.log(2))] * 2
    else:
        scaled, at = _scaled(values, limits), (float(mean) - limits.low) / (limits.high - limits.low)
        if not 0 < at < 1:
            raise ValueError(f"{mean=} is not between the limits {limits.low:g} and {limits.high:g} of the outcome")
        above, below = betting.log_capital(scaled, at), betting.log_capital(1 - scaled, 1 - at)
        most = [betting.largest_log_capital(n, side) for side in (at, 1 - at)]
    p = [float(np.exp(-max(evidence.max(), 0.0))) for evidence in (above, below)]
    smallest = [float(np.exp(-max(evidence, 0.0))) for evidence in most]
    return SequentialTest(above=p[0], below=p[1], smallest_above=smallest[0], smallest_below=smallest[1])


def _scaled(values: Float[np.ndarray, " replicate"], limits: Limits) -> Float[np.ndarray, " replicate"]:
    """Values as shares of their range; a rounding error beyond it is taken off."""
    scaled = (values - limits.low) / (limits.high - limits.low)
    if not ((scaled > -1e-6) & (scaled < 1 + 1e-6)).all():
        raise ValueError(
            f"values from {values.min():g} to {values.max():g} are outside of their range, {limits.low:g} to "
            f"{limits.high:g}; correct the range"
        )
    return scaled.clip(0.0, 1.0)

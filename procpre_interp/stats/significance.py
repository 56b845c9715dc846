"""Tests over paired replicates: sign flips, equivalence within a margin, Holm's correction, and what a p decides."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from procpre_interp.core.seeding import numpy_stream
from procpre_interp.stats.decisions import Decided, Decision, EquivalenceDecision
from procpre_interp.stats.resampling import ALPHA, N_RESAMPLES, Interval, bootstrap_interval

MAX_EXACT_FLIPS = 1 << 16
"""Sign patterns up to which a permutation test enumerates them all (16 replicates)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PermutationTest:
    """A p-value, with the smallest that this n could have given: undecidable when that exceeds alpha."""

    statistic: float
    p: float
    smallest_p: float
    n: int
    exact: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Equivalence:
    """A mean difference with its 1 - 2 alpha interval, and whether that lies within +-margin."""

    estimate: float
    low: float
    high: float
    n: int
    margin: float
    smallest_p: float
    decision: EquivalenceDecision
    reason: str = ""
    """Why it is undecided."""


def sign_flip_test(
    differences: Float[np.ndarray, " replicate"],
    *,
    one_sided: bool = False,
    generator: np.random.Generator | None = None,
    n_resamples: int = N_RESAMPLES,
) -> PermutationTest:
    """Paired permutation test of a mean difference of zero: signs of whole replicates flip.

    Two-sided, or `one_sided`: that the mean is above zero. p is the share of patterns whose mean is at least as extreme
    as the observed one, which is among them. All 2^n patterns up to 16 replicates, else `n_resamples` random ones.
    Raises `ValueError` for NaN: drop incomplete pairs first.
    """
    n = len(differences)
    if n == 0 or np.isnan(differences).any():
        raise ValueError(f"{n} differences, {np.isnan(differences).sum()} of them NaN; give complete pairs only")
    exact = 2**n <= MAX_EXACT_FLIPS
    if exact:
        flips = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    else:
        generator = generator or numpy_stream(0, "sign flips")
        flips = np.vstack([np.ones(n), generator.choice([-1, 1], size=(n_resamples, n))])
    means, statistic = flips @ differences / n, float(differences.mean())
    slack = 1e-12 * float(np.abs(differences).max())
    extreme = means >= statistic - slack if one_sided else np.abs(means) >= abs(statistic) - slack
    share = float(extreme.mean())
    # The largest attainable mean has all signs alike; zeros may then take either.
    sides = 1 if one_sided else 2
    smallest = min(1.0, sides * 2.0 ** -int((differences != 0).sum()))
    smallest = smallest if exact else max(smallest, 1 / len(flips))
    return PermutationTest(statistic=statistic, p=share, smallest_p=smallest, n=n, exact=exact)


def decide(
    p: float | int,
    smallest_p: float | int,
    alpha: float | int = ALPHA,
    *,
    n: int | None = None,
    adjusted: bool = False,
) -> Decided:
    """What a test says at level alpha: significant, not significant, or undecided where no result could be significant.

    `n`, and whether both p are `adjusted`, only complete the reason: "n = 4 can give no p below 0.125".
    """
    if not (0 <= p <= 1 and 0 <= smallest_p <= 1 and 0 < alpha < 1):
        raise ValueError(f"{p=}, {smallest_p=}, {alpha=}; all are probabilities, and alpha is neither 0 nor 1")
    if smallest_p > alpha:
        data, kind = "these data" if n is None else f"n = {n}", "adjusted p" if adjusted else "p"
        return Decided(Decision.UNDECIDED, f"{data} can give no {kind} below {smallest_p:.3g}")
    return Decided(Decision.SIGNIFICANT if p <= alpha else Decision.NOT_SIGNIFICANT)


def equivalence_test(
    differences: Float[np.ndarray, " replicate"],
    margin: float | int,
    *,
    alpha: float | int = ALPHA,
    bounds: Interval | None = None,
    generator: np.random.Generator | None = None,
) -> Equivalence:
    """Whether paired differences are as good as zero: equivalent, not equivalent (wholly outside) or undecided.

    Two one-sided tests at alpha, which is to say that the 1 - 2 alpha interval lies wholly within +-margin, a margin
    fixed before the runs; that interval is `bounds`, or a bootstrap one. The smallest p is that of one one-sided
    sign-flip test, 2^-n: with fewer replicates than 5 nothing is decided at 0.05, however narrow their range.
    Differences that are all alike give a bootstrap interval without width: it speaks of replicates like these, and not
    of a rare other outcome, for which `constant_bounds` allows.
    Source: Schuirmann 1987 (two one-sided tests).
    """
    n = len(differences)
    if n == 0 or not np.isfinite(differences).all():
        raise ValueError(f"{n} differences {differences.tolist()}; give complete pairs only, one or more")
    if not (0 < margin < np.inf and 0 < alpha < 0.5):
        raise ValueError(f"{margin=}, {alpha=}; the margin must be above 0 and finite, alpha between 0 and 0.5")
    bounds = bounds or bootstrap_interval(differences, level=1 - 2 * alpha, generator=generator)
    low, high, smallest = bounds.low, bounds.high, 2.0**-n
    decision, reason = EquivalenceDecision.UNDECIDED, ""
    if smallest > alpha:
        reason = decide(1, smallest, alpha, n=n).reason
    elif -margin < low and high < margin:
        decision = EquivalenceDecision.EQUIVALENT
    elif low >= margin or high <= -margin:
        decision = EquivalenceDecision.NOT_EQUIVALENT
    else:
        reason = "the interval crosses the margin"
    return Equivalence(
        estimate=bounds.estimate,
        low=low,
        high=high,
        n=n,
        margin=float(margin),
        smallest_p=smallest,
        decision=decision,
        reason=reason,
    )


def holm(p_values: Float[np.ndarray, " test"]) -> Float[np.ndarray, " test"]:
    """Holm's adjusted p-values: max over j <= i of (m - j) p_(j), j from 0, in order of size; at most 1."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1))
    result = np.empty_like(p_values)
    result[order] = np.minimum(adjusted, 1.0)
    return result

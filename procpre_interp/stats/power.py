"""Power: the smallest effect that a number of replicates would have found."""

from functools import cache

import numpy as np

from procpre_interp.core.seeding import numpy_stream
from procpre_interp.stats.resampling import ALPHA, N_RESAMPLES
from procpre_interp.stats.significance import MAX_EXACT_FLIPS
from procpre_interp.stats.t_sequence import FIRST_LOOK, t_bounds

POWER = 0.8
"""Share of studies in which a detectable effect is found."""
MAX_SIMULATED_POWER = 12
"""Replicates up to which the sign-flip test's power is simulated; with more, Student's is the same within 2 %."""
STUDIES = 4_000
"""Simulated studies behind the power of a sequence."""


def detectable_effect(
    n: int,
    std: float | int,
    *,
    alpha: float | int = ALPHA,
    power: float | int = POWER,
    n_resamples: int = 2_000,
    generator: np.random.Generator | None = None,
) -> float:
    """The mean paired difference that `sign_flip_test` on n replicates finds with the given power.

    `std` is the standard deviation of paired differences (with ddof 1), whose unit the effect has; the differences are
    taken to be normal. Infinite where the smallest p that n can give exceeds alpha (in a family, hand over alpha
    divided by its size); NaN where it does not but `std` is 0 or NaN, since no observed spread is no known spread.

    Up to 12 replicates the test itself is simulated: with few, Student's power promises too much. With differences
    d + z_i, the test rejects in favour of d > 0 just when d exceeds the k-th largest mean of -z over the 2^n - 1 sets
    of replicates, where k = floor(alpha 2^n / 2): flipping a set gives a larger mean if its own sum is negative. So
    the effect is a quantile of these thresholds. Beyond 12 it is that of the paired t test (noncentral t) at the level
    k / 2^(n - 1) that the exact test has.
    """
    if n < 1 or not 0 < alpha < 1 or not alpha < power < 1:
        raise ValueError(f"{n=}, {alpha=}, {power=}; n must be at least 1, and 0 < alpha < power < 1")
    if std < 0 or np.isinf(std):
        raise ValueError(f"{std=}; give the standard deviation of the paired differences, which is finite and not < 0")
    # Beyond 16 replicates the test draws its sign patterns, and 1 / (their number) is its smallest p.
    patterns = min(2 ** (n - 1), N_RESAMPLES + 1) if 2**n > MAX_EXACT_FLIPS else 2 ** (n - 1)
    k = int(alpha * patterns + 1e-9)
    if k < 1:
        return float("inf")
    if std == 0 or np.isnan(std):
        return float("nan")
    if n > MAX_SIMULATED_POWER:
        from scipy.special import nctdtrinc, stdtrit

        critical = stdtrit(n - 1, 1 - k / patterns / 2)
        return float(std * nctdtrinc(n - 1, 1 - power, critical) / np.sqrt(n))
    generator = generator or numpy_stream(0, "detectable effect", n)
    sums, sizes = np.zeros((n_resamples, 1)), np.zeros(1)
    for value in generator.normal(size=(n, n_resamples, 1)):
        sums, sizes = np.hstack([sums, sums + value]), np.append(sizes, sizes + 1)
    means = sums[:, 1:] / sizes[1:]
    return float(std * np.quantile(np.partition(means, -k, axis=1)[:, -k], power))


def detectable_in_sequence(n: int, std: float | int) -> float:
    """The distance of a mean from its margin that `t_sequence` has found after n replicates in `POWER` of studies.

    `std` is the standard deviation of the replicates (ddof 1), which are taken to be normal; the distance has its unit.
    A study looks after each replicate and stops once the margin lies outside of the two-sided sequence of level
    1 - `ALPHA`, on the side of the mean. Infinite before the first look, NaN where `std` is 0 or NaN.
    """
    if n < 1 or std < 0 or np.isinf(std):
        raise ValueError(f"{n=}, {std=}; n must be at least 1, and the standard deviation finite and not < 0")
    if n < FIRST_LOOK:
        return float("inf")
    return float(std) * _standard_distance(n) if std > 0 else float("nan")


@cache
def _standard_distance(n: int) -> float:
    """`detectable_in_sequence` of replicates with a standard deviation of 1.

    With a mean of d the lower bounds lie d higher than without one, so that a study finds each d above its threshold,
    which is minus its highest lower bound without one; the distance is a quantile of these thresholds.
    """
    noise = numpy_stream(0, "detectable in sequence", n).normal(size=(STUDIES, n))
    lower, _ = t_bounds(noise, ALPHA / 2)
    return float(np.quantile(-lower[:, -1], POWER))

"""Betting confidence sequences: bounds of the mean of bounded outcomes that hold at every n, whatever they look like.

A gambler who bets on outcomes x in [0, 1] against the mean m starts with 1 and has

    K_n(m) = prod_i (1 + f (x_i / m - 1))        betting a fraction f on "above m"

after n of them. If the mean is m, no strategy makes money on average, so that K ever reaches 1 / alpha with a
probability of at most alpha (Ville). Means at which it does are rejected; a second gambler with 1 - x and 1 - m rejects
from above. What neither has rejected so far is an interval that covers the mean at all n together: one may look after
every replicate, and stop when one likes.

The bets are a mixture that is fixed in advance: two thirds of the capital bet all they have (f = 1), the rest is spread
over smaller fractions. Outcomes that either break through or do not are so far apart that all is close to the best bet,
and never ruinous while no accuracy is 0; the smaller ones let the bounds close in on the mean as n grows, which f = 1
alone does not (it stops at the geometric mean). In simulated studies on two modes (.09 and .93, margin 21.4 points) it
decided earlier than evenly spread fractions, predictable plug-in bets and aGRAPA at nearly all success probabilities.
K falls with m for every f, so that the bounds are roots and need no grid of candidate means.

A difference of two conditions is taken as one outcome in [-1, 1]. Treating the conditions one by one gains nothing
without the assumption that they are independent, which runs of the same seed are not: if all of one break through and
none of the other, the least favourable pair of means is rejected just as slowly as the difference.

Sources: Waudby-Smith and Ramdas 2024, Estimating means of bounded random variables by betting (hedged capital, running
intersection); Orabona and Jun 2024, Tight concentrations and confidence sequences from the regret of universal
portfolio (bets as a mixture). We differ in the mixture.
"""

import numpy as np
from jaxtyping import Float

FRACTIONS = np.arange(1, 21) / 20
"""Shares of the capital that are bet."""
WEIGHTS = np.append(np.full(19, 1 / 3 / 19), 2 / 3)
"""Share of the initial capital that each of them has."""
TOLERANCE = 1e-9
"""Error of a bound, as a share of the range of the outcomes."""


def log_capital(
    values: Float[np.ndarray, "*study replicate"], mean: Float[np.ndarray, "*study 1"] | float | int
) -> Float[np.ndarray, "*study replicate"]:
    """Logarithm of the capital after each replicate, betting that the mean of values in [0, 1] is above `mean`.

    For bets on "below", hand over 1 - values and 1 - mean.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(values == 0, 0.0, values / np.asarray(mean, dtype=float))[..., None]
        growth = np.log(1 - FRACTIONS + FRACTIONS * ratio)
    return np.logaddexp.reduce(growth.cumsum(axis=-2) + np.log(WEIGHTS), axis=-1)


def betting_bounds(
    values: Float[np.ndarray, " replicate"], tail: float | int
) -> tuple[Float[np.ndarray, " replicate"], Float[np.ndarray, " replicate"]]:
    """Bounds of the mean of values in [0, 1] after each replicate, each of which errs at any n with probability `tail`.

    They never move apart: what was rejected at one n stays rejected. Raises `ValueError` for values outside of [0, 1].
    """
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"values from {values.min()} to {values.max()}; scale them to their range, from 0 to 1")
    return lower_bounds(values, tail), 1 - lower_bounds(1 - values, tail)


def lower_bounds(values: Float[np.ndarray, " replicate"], tail: float | int) -> Float[np.ndarray, " replicate"]:
    """Largest mean below which the capital has reached 1 / tail, up to each replicate; 0 where it has not.

    The roots for all n together, by bisection.
    """
    n = np.arange(1, len(values) + 1)
    seen = (n <= n[:, None])[..., None]
    # At the mean of what was seen no fixed fraction has made money.
    left, right = np.zeros(len(values)), values.cumsum() / n
    while (right - left).max(initial=0.0) > TOLERANCE:
        middle = (left + right) / 2
        with np.errstate(divide="ignore"):
            ratio = (values / np.maximum(middle, TOLERANCE)[:, None])[..., None]
            growth = np.log(1 - FRACTIONS + FRACTIONS * ratio)
        capital = np.logaddexp.reduce(np.where(seen, growth, 0.0).sum(axis=1) + np.log(WEIGHTS), axis=-1)
        rejected = capital >= -np.log(tail)
        left, right = np.where(rejected, middle, left), np.where(rejected, right, middle)
    return np.maximum.accumulate(left)


def largest_log_capital(n: int, mean: float | int) -> float:
    """`log_capital` after n replicates that are all 1: no data give more."""
    return float(np.logaddexp.reduce(n * np.log(1 - FRACTIONS + FRACTIONS / mean) + np.log(WEIGHTS)))

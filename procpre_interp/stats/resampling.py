"""Resampling over replicates: bootstrap intervals, exact binomial bounds, permutation tests, Holm."""

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.special import betaincinv, ndtr, stdtrit  # scipy.stats takes three times as long to import

from procpre_interp.core.seeding import numpy_stream
from procpre_interp.stats.decisions import Decided, Decision, EquivalenceDecision

LEVEL = 0.95
"""Coverage of every interval."""

ALPHA = 0.05
"""Level of every test."""

N_RESAMPLES = 10_000
"""Bootstrap resamples: the bounds' own Monte-Carlo error is then well below the width of the interval."""

ENUMERATED = 10
"""Distinct resamples per random one up to which all of them are taken instead, which leaves no Monte-Carlo error."""

COLUMN_NUMBERS = 1 << 20
"""Resampled numbers at a time, so that many columns (the steps of a curve) do not fill the memory."""

ALIKE = 0.002
"""Largest spread of replicates that counts as none, as a share of the measure's range: 8 of 4,000 test sequences."""

MAX_EXACT_FLIPS = 1 << 16
"""Sign patterns up to which a permutation test enumerates them all (16 replicates)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """An estimate over n replicates with its bounds; NaN bounds where n < 2."""

    estimate: float
    low: float
    high: float
    n: int


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


def interval_note(n: int) -> str:
    """What the intervals over n replicates are, in words for a caption."""
    if n < 2:
        return f"n = {n} replicate: no interval, so an observation and not a result"
    kind = f"n = {n} replicates; {100 * LEVEL:.0f} % bootstrap interval over replicates"
    return f"{kind} (with n < 5 at most their range, so it covers less)" if n < 5 else kind


def intervals_note(counts: Iterable[int], given: str = "for each row") -> str:
    """`interval_note` for a figure or table whose rows rest on these numbers of replicates; where they differ, it says
    where the reader finds them."""
    sizes = sorted({int(n) for n in counts})
    if len(sizes) < 2:
        return interval_note(sizes[0] if sizes else 0)
    least = sizes[0]
    limits = {2: "; n = 1: no interval", 5: "; n < 5: at most their range, so it covers less"}
    short = next((text for limit, text in limits.items() if least < limit), "")
    return f"n is given {given}; {100 * LEVEL:.0f} % bootstrap interval over replicates{short}"


def percentile_tail(n: int, level: float = LEVEL) -> float:
    """Probability left beyond each bound of the bootstrap distribution of n replicates.

    The plain percentile interval, tail (1 - level) / 2, is too narrow when n is small: it divides by n, not
    n - 1, and knows no t. The expanded tail Phi(-sqrt(n / (n - 1)) t_{n-1}) makes up for both.
    Source: Hesterberg 2015, What Teachers Should Know About the Bootstrap (the expanded percentile interval).
    """
    if n < 2:
        return float("nan")
    return float(ndtr(np.sqrt(n / (n - 1)) * stdtrit(n - 1, (1 - level) / 2)))


def bootstrap_interval(
    values: Float[np.ndarray, " replicate"],
    statistic: Callable[..., np.ndarray] = np.mean,
    *,
    level: float = LEVEL,
    n_resamples: int = N_RESAMPLES,
    generator: np.random.Generator | None = None,
) -> Interval:
    """Expanded percentile interval of `statistic(values, axis=-1)` over one value per replicate.

    Exact up to n = 10 (see `resamples`), so that no seed moves it.
    """
    n = len(values)
    estimate = float(statistic(values, axis=-1)) if n else float("nan")
    if n < 2:
        return Interval(estimate=estimate, low=float("nan"), high=float("nan"), n=n)
    counts, probability = resamples(n, n_resamples=n_resamples, generator=generator)
    drawn = np.repeat(np.tile(np.arange(n), len(counts)), counts.ravel()).reshape(-1, n)
    resampled = statistic(values[drawn], axis=-1)
    low, high = resampled_bounds(resampled[:, None], probability, percentile_tail(n, level))[:, 0].tolist()
    return Interval(estimate=estimate, low=low, high=high, n=n)


def resamples(
    n: int, *, n_resamples: int = N_RESAMPLES, generator: np.random.Generator | None = None
) -> tuple[Int[np.ndarray, "resample replicate"], Float[np.ndarray, " resample"]]:
    """How often each of n replicates is in a resample, and that resample's probability.

    All C(2n - 1, n) distinct resamples, with their multinomial probabilities n! / (n^n prod_i counts_i!), where these
    are at most `ENUMERATED` x `n_resamples`: with the default number up to n = 10. Beyond, `n_resamples` random ones,
    equally probable. Source: Fisher and Hall 1991, Bootstrap algorithms for small samples.
    """
    n_distinct = math.comb(2 * n - 1, n)
    if n_distinct > ENUMERATED * n_resamples:
        generator = generator or numpy_stream(0, "bootstrap")
        drawn = generator.multinomial(n, np.full(n, 1 / n), size=n_resamples)
        return drawn, np.full(n_resamples, 1 / n_resamples)
    # n stars and n - 1 bars in a row: the stars between two bars are how often a replicate is drawn.
    bars = np.array(list(itertools.combinations(range(2 * n - 1), n - 1)), dtype=np.int64).reshape(n_distinct, n - 1)
    counts = np.diff(bars, axis=1, prepend=-1, append=2 * n - 1) - 1
    factorials = np.array([math.factorial(count) for count in range(n + 1)], dtype=float)
    return counts, factorials[n] / float(n) ** n / factorials[counts].prod(axis=1)


def resampled_bounds(
    resampled: Float[np.ndarray, "resample column"], probability: Float[np.ndarray, " resample"], tail: float
) -> Float[np.ndarray, "2 column"]:
    """Per column the values beyond which probability `tail` is left, below and above; NaN values are left out."""
    if (probability == probability[0]).all():
        return np.nanquantile(resampled, [tail, 1 - tail], axis=0)
    columns = np.ascontiguousarray(resampled.T)
    order = columns.argsort(axis=1)  # NaN last
    below, rows = probability[order].cumsum(axis=1), np.arange(len(columns))
    last = np.maximum((~np.isnan(columns)).sum(axis=1) - 1, 0)
    total = below[rows, last]
    low = [np.searchsorted(cdf, tail * whole) for cdf, whole in zip(below, total)]
    high = [np.searchsorted(cdf, (1 - tail) * whole, side="right") for cdf, whole in zip(below, total)]
    # With two replicates the tail is 1e-72, and 1 - tail is 1.
    return np.stack([columns[rows, order[rows, np.minimum(place, last)]] for place in (low, high)])


def drawn_means(
    weights: Float[np.ndarray, "resample replicate"], values: Float[np.ndarray, "replicate column"]
) -> Float[np.ndarray, "resample column"]:
    """Mean of each column when replicate i is drawn `weights[:, i]` times; NaN values are left out."""
    present = ~np.isnan(values)
    total, count = weights @ np.where(present, values, 0.0), weights @ present.astype(float)
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def replicate_matrix(table: pd.DataFrame, value: str) -> pd.DataFrame:
    """Replicates x conditions; NaN where a cell is missing. Raises `ValueError` when a cell occurs twice."""
    twice = table.duplicated(["condition", "replicate"])
    if twice.any():
        cells = table.loc[twice, ["condition", "replicate"]].to_records(index=False).tolist()
        raise ValueError(f"more than one row for (condition, replicate) {cells[:3]}; keep one each")
    matrix = table.pivot(index="replicate", columns="condition", values=value)
    return matrix.loc[:, list(dict.fromkeys(table["condition"]))]


def paired_gains(table: pd.DataFrame, baseline: str = "none") -> pd.DataFrame:
    """Gain in accuracy of finished runs over the baseline's, within replicates: replicates x conditions but that."""
    accuracy = replicate_matrix(table.loc[table["status"] == "finished"], "accuracy")
    return accuracy.drop(columns=baseline).sub(accuracy[baseline], axis=0)


def replicate_bootstrap(
    values: pd.DataFrame,
    statistic: Callable[[np.ndarray, np.ndarray], np.ndarray] = drawn_means,
    *,
    n_resamples: int = N_RESAMPLES,
    generator: np.random.Generator | None = None,
) -> pd.DataFrame:
    """Estimate, low, high and n of each column of a replicates x columns table (conditions, or steps).

    Whole replicates are drawn, the same ones for every column: all distinct draws up to 10 replicates (see
    `resamples`). The statistic is a function of how often each was drawn and of the values, column by column, as
    `drawn_means` is.
    """
    matrix = values.to_numpy(dtype=float)
    replicates = len(matrix)
    draws, probability = resamples(replicates, n_resamples=n_resamples, generator=generator)
    draws = draws.astype(float)
    counts = (~np.isnan(matrix)).sum(axis=0)
    bounds = np.full((2, matrix.shape[1]), np.nan)
    for n in np.unique(counts[counts > 1]):
        same = np.flatnonzero(counts == n)
        for columns in np.array_split(same, 1 + len(same) * len(draws) // COLUMN_NUMBERS):
            resampled = statistic(draws, matrix[:, columns])
            bounds[:, columns] = resampled_bounds(resampled, probability, percentile_tail(int(n)))
    estimate = statistic(np.ones((1, replicates)), matrix)[0]
    table = {"estimate": estimate, "low": bounds[0], "high": bounds[1], "n": counts}
    return pd.DataFrame(table, index=values.columns)


def binomial_bounds(
    successes: Int[np.ndarray, " case"], n: Int[np.ndarray, " case"]
) -> tuple[Float[np.ndarray, " case"], Float[np.ndarray, " case"]]:
    """Exact (Clopper-Pearson) bounds of the share that `successes` of n estimate."""
    tail = (1 - LEVEL) / 2
    low = betaincinv(np.maximum(successes, 1), n - successes + 1, tail)
    high = betaincinv(successes + 1, np.maximum(n - successes, 1), 1 - tail)
    return np.where(successes == 0, 0.0, low), np.where(successes == n, 1.0, high)


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


def constant_bounds(
    value: float | int, n: int, reach: float | int, *, level: float | int = LEVEL
) -> tuple[float, float]:
    """Bounds of a mean of which n >= 2 observations are all `value`, for which a bootstrap would claim certainty.

    Such are then a share of at least q = ((1 - level) / 2)^(1 / n) of all replicates (the exact binomial bound), and
    the rest may be up to `reach` from 0: the bounds are q value -+ (1 - q) reach, at most reach. NaN for an infinite
    one.
    """
    if not np.isfinite(reach):
        return float("nan"), float("nan")
    share = ((1 - level) / 2) ** (1 / n)
    middle, width = share * value, (1 - share) * reach
    return float(max(middle - width, -reach)), float(min(middle + width, reach))


def are_alike(values: Float[np.ndarray, " replicate"], scale: float | int) -> bool:
    """Whether two or more replicates differ by no more than `ALIKE` of this scale, the range of their measure."""
    return len(values) > 1 and bool(np.ptp(values) <= max(ALIKE * scale, 1e-12))


def unseen_share(n: int) -> float:
    """Largest share of replicates whose outcome n replicates miss altogether with probability 0.05 (the rule of three).

    Where runs either break through or do not, a bootstrap of n alike ones says nothing of the rest.
    """
    return 1 - ALPHA ** (1 / n)


def holm(p_values: Float[np.ndarray, " test"]) -> Float[np.ndarray, " test"]:
    """Holm's adjusted p-values: max over j <= i of (m - j) p_(j), j from 0, in order of size; at most 1."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1))
    result = np.empty_like(p_values)
    result[order] = np.minimum(adjusted, 1.0)
    return result

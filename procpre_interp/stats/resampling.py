"""Intervals over replicates: bootstrap, exact binomial, and how far n replicates that are all alike can be trusted."""

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from procpre_interp.core.seeding import numpy_stream
from procpre_interp.stats.baselines import baselines, changes

LEVEL = 0.95
"""Coverage of every interval."""

ALPHA = 0.05
"""Level of every test."""

TWO_TESTS_LEVEL = 1 - 2 * ALPHA
"""Coverage of the interval that two one-sided tests belong to."""

N_RESAMPLES = 10_000
"""Bootstrap resamples: the bounds' own Monte-Carlo error is then well below the width of the interval."""

ENUMERATED = 10
"""Distinct resamples per random one up to which all of them are taken instead, which leaves no Monte-Carlo error."""

COLUMN_NUMBERS = 1 << 20
"""Resampled numbers at a time, so that many columns (the steps of a curve) do not fill the memory."""

ALIKE = 0.002
"""Largest spread of replicates that counts as none, as a share of the measure's range: 8 of 4,000 test sequences."""


class IntervalMethod(StrEnum):
    """How an interval over replicates is made."""

    BOOTSTRAP = "bootstrap"
    BETTING = "betting"
    """`stats.betting`: bounded outcomes, any distribution, any number of looks."""
    T_MIXTURE = "t mixture"
    """`stats.t_sequence`: outcomes without a range, nearly normal, any number of looks."""


INTERVALS: dict[IntervalMethod, str] = {
    IntervalMethod.BOOTSTRAP: "bootstrap interval",
    IntervalMethod.BETTING: "betting confidence sequence",
    IntervalMethod.T_MIXTURE: "t-mixture confidence sequence",
}
"""What captions call it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """An estimate over n replicates with its bounds; NaN bounds where n < 2."""

    estimate: float
    low: float
    high: float
    n: int


def interval_note(n: int, method: IntervalMethod = IntervalMethod.BOOTSTRAP, level: float = LEVEL) -> str:
    """What the intervals over n replicates are, in words for a caption."""
    said = f"{100 * level:.0f} % {INTERVALS[method]} over replicates"
    if method != IntervalMethod.BOOTSTRAP:
        return f"n = {n} replicate{'s' * (n != 1)}; {said}, which holds at every n"
    if n < 2:
        return f"n = {n} replicate: no interval, so an observation and not a result"
    kind = f"n = {n} replicates; {said}"
    return f"{kind} (with n < 5 at most their range, so it covers less)" if n < 5 else kind


def intervals_note(
    counts: Iterable[int], given: str = "for each row", methods: Iterable[str] = (IntervalMethod.BOOTSTRAP,)
) -> str:
    """`interval_note` for a figure or table whose rows rest on these numbers of replicates; where they differ, it says
    where the reader finds them."""
    sizes, kinds = sorted({int(n) for n in counts}), [IntervalMethod(method) for method in dict.fromkeys(methods)]
    if len(sizes) < 2 and len(kinds) < 2:
        return interval_note(sizes[0] if sizes else 0, kinds[0] if kinds else IntervalMethod.BOOTSTRAP)
    names = " or ".join(INTERVALS[kind] for kind in kinds)
    least = sizes[0] if IntervalMethod.BOOTSTRAP in kinds else math.inf
    limits = {2: "; n = 1: no interval", 5: "; n < 5: at most their range, so it covers less"}
    short = next((text for limit, text in limits.items() if least < limit), "")
    n = f"n is given {given}" if len(sizes) > 1 else f"n = {sizes[0]} replicates"
    return f"{n}; {100 * LEVEL:.0f} % {names} over replicates{short}"


def interval_methods(table: pd.DataFrame) -> list[str]:
    """How the intervals of a table's rows are made; tables that do not say are older, and have the bootstrap."""
    return table["interval"].tolist() if "interval" in table else [IntervalMethod.BOOTSTRAP]


def percentile_tail(n: int, level: float = LEVEL) -> float:
    """Probability left beyond each bound of the bootstrap distribution of n replicates.

    The plain percentile interval, tail (1 - level) / 2, is too narrow when n is small: it divides by n, not
    n - 1, and knows no t. The expanded tail Phi(-sqrt(n / (n - 1)) t_{n-1}) makes up for both.
    Source: Hesterberg 2015, What Teachers Should Know About the Bootstrap (the expanded percentile interval).
    """
    if n < 2:
        return float("nan")
    from scipy.special import ndtr, stdtrit  # scipy.stats takes three times as long to import

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
    """Gain in accuracy of finished runs over the baseline's (`baselines.baselines`), within replicates: replicates x
    conditions but that."""
    finished = table.loc[table["status"] == "finished"]
    return changes(replicate_matrix(finished, "accuracy"), baselines(finished, baseline))


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
    from scipy.special import betaincinv

    tail = (1 - LEVEL) / 2
    low = betaincinv(np.maximum(successes, 1), n - successes + 1, tail)
    high = betaincinv(successes + 1, np.maximum(n - successes, 1), 1 - tail)
    return np.where(successes == 0, 0.0, low), np.where(successes == n, 1.0, high)


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

"""Looks at a claim: what was seen of its contrasts, when, and how a sequence went from one replicate to the next."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from procpre_interp.claims.claim import Contrast
from procpre_interp.claims.compared import compared_values
from procpre_interp.claims.judge import RULE
from procpre_interp.claims.judged import ContrastResult, EarlierVerdict, StoredClaim
from procpre_interp.stats.confidence_sequence import bounds_by_n
from procpre_interp.stats.resampling import IntervalMethod

LOOK = ["contrast", "n", "estimate", "low", "high", "verdict"]
"""What is seen in a look; `time` says when."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Past:
    """What there was of a claim before it is judged again."""

    looks: pd.DataFrame = field(default_factory=pd.DataFrame)
    """Looks at the same claim, as it is declared now, by the same rule, in the same store."""
    earlier: tuple[EarlierVerdict, ...] = ()
    """Verdicts by another rule, under another protocol, or on an older declaration."""
    replicates: Mapping[str, int] = field(default_factory=dict)
    """Condition -> how many replicates it was judged with, as it is declared now; also by others."""


def with_looks(earlier: pd.DataFrame, contrasts: Sequence[ContrastResult], time: str) -> pd.DataFrame:
    """The looks that were taken before and those that are new: what was seen already keeps its time."""
    seen = {_alike(row) for row in earlier[LOOK].to_numpy().tolist()} if len(earlier) else set()
    rows = [[row.contrast, row.n, *_rounded(row), str(row.verdict)] for row in contrasts if row.verdict is not None]
    new = pd.DataFrame([row for row in rows if _alike(row) not in seen], columns=LOOK).assign(time=time)
    return pd.concat([earlier, new], ignore_index=True) if len(earlier) else new


def _rounded(row: ContrastResult) -> list[float | None]:
    """Estimate and bounds to nine digits, so that a look is the same one after it was stored; None where there is
    none."""
    return [None if np.isnan(value) else float(f"{value:.9g}") for value in (row.estimate, row.low, row.high)]


def _alike(look: Sequence[object]) -> tuple[object, ...]:
    """A look as it compares with others: in a table, a bound that is not there is NaN, which equals nothing."""
    return tuple(None if isinstance(value, float) and np.isnan(value) else value for value in look)


def sequence_of(row: ContrastResult, cells: pd.DataFrame) -> pd.DataFrame:
    """Estimate and bounds after each replicate of a contrast, in the order of seeds: n, replicate, estimate, low, high.

    No rows for a bootstrap interval, which holds at one n alone.
    """
    columns = ["n", "replicate", "estimate", "low", "high"]
    if row.interval == IntervalMethod.BOOTSTRAP or not row.n:
        return pd.DataFrame(columns=columns)
    values = compared_values(Contrast(name=row.contrast, weights=row.weights, measure=row.measure), cells)
    found = values.to_numpy(dtype=float) @ np.array([float(weight) for weight in row.weights.values()])
    low, high = bounds_by_n(found, row.limits, level=row.level)
    n = np.arange(1, len(found) + 1)
    return pd.DataFrame(
        {"n": n, "replicate": values.index, "estimate": found.cumsum() / n, "low": low, "high": high}, columns=columns
    )


def past(before: StoredClaim | None, protocol: str, version: int) -> Past:
    """The past of a claim that is now judged, by this version of its declaration, under this protocol, by the newest
    rule."""
    if before is None:
        return Past()
    if (before.rule_version, before.protocol, before.version) == (RULE, protocol, version):
        # Looks at runs that come with the package were taken by others.
        looks = before.looks if before.source == "store" else pd.DataFrame()
        replicates = before.cells.groupby("condition")["replicate"].nunique().to_dict()
        return Past(looks=looks, earlier=before.earlier, replicates=replicates)
    first = before.primary
    verdict = EarlierVerdict(
        rule_version=before.rule_version,
        verdict=before.verdict,
        reason=before.reason,
        estimate=first.estimate,
        low=first.low,
        high=first.high,
        n=first.n,
        interval=first.interval,
        protocol=before.protocol,
        created=before.created,
        version=before.version,
    )
    return Past(earlier=(*before.earlier, verdict))

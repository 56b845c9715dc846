"""A claim with its verdict and every number behind it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import pandas as pd

from procpre_interp.claims.claim import Page, Predicted, Verdict
from procpre_interp.claims.measures import Measure
from procpre_interp.stats.breakthroughs import BreakthroughCount
from procpre_interp.stats.confidence_sequence import Limits
from procpre_interp.stats.decisions import Decision
from procpre_interp.stats.resampling import LEVEL, IntervalMethod

Place = Literal["bundled", "store"]
"""Where a claim file is: among the results that come with the package, or in a store."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ContrastResult:
    """What was measured of a contrast, and what follows. Numbers are in the unit of the cells, NaN where they lack."""

    contrast: str
    """Its name."""
    formula: str
    """Itself as arithmetic."""
    weights: Mapping[str, float | int]
    """Condition -> weight; empty for files that are older than these."""
    measure: str
    """Column of the cells."""
    about: Measure
    """How people read the measure."""
    predicted: Predicted | None
    margin: float
    estimate: float
    low: float
    high: float
    n: int
    missing: str
    """What is not there of the replicates that were planned; "" if nothing is missing."""
    p: float
    """p of the sign-flip test against the margin."""
    smallest_p: float
    """The smallest that these replicates could have given."""
    detectable: float
    """Distance from the margin that 80 % of studies find which have as many replicates of the same spread, before any
    adjustment for other contrasts. Of sequences only where differences are taken to be normal, and not for `within`,
    whose power is another; the bootstrap's is of a fixed n. Otherwise NaN."""
    verdict: Verdict | None
    """None for a contrast that was not predicted."""
    reason: str
    """Why it has this verdict."""
    primary: bool = False
    """Whether it was named before the runs to decide the claim."""
    p_holm: float = math.nan
    """p, adjusted for the number of secondary contrasts."""
    smallest_p_holm: float = math.nan
    decision: Decision | None = None
    """What the adjusted test says; None where nothing was tested."""
    undecided_reason: str = ""
    """Why that test decides nothing."""
    interval: IntervalMethod = IntervalMethod.BOOTSTRAP
    """How its interval is made."""
    level: float = LEVEL
    """Coverage of its interval: two one-sided tests at 5 % belong to one of 90 %."""
    range_low: float = math.nan
    """Smallest value that it could have; NaN where no range is known."""
    range_high: float = math.nan
    """Largest value that it could have."""
    breakthroughs: tuple[BreakthroughCount, ...] = ()
    """Runs of each of its conditions that broke through in the replicates that count, for a contrast of accuracies."""
    breakthrough_p: float = math.nan
    """p of Boschloo's exact test on these counts, for a pair of conditions."""

    @property
    def limits(self) -> Limits | None:
        """The range of its values, where it is known."""
        return None if math.isnan(self.range_low) else Limits(low=self.range_low, high=self.range_high)

    @property
    def is_decided(self) -> bool:
        """Whether it is supported or refuted."""
        return self.verdict in (Verdict.SUPPORTED, Verdict.REFUTED)


@dataclass(frozen=True, kw_only=True, slots=True)
class EarlierVerdict:
    """A verdict that a claim had before: by another rule, on runs of another protocol, or as it was declared then."""

    rule_version: int
    verdict: Verdict
    reason: str
    estimate: float
    low: float
    high: float
    n: int
    interval: IntervalMethod
    protocol: str
    created: str
    version: int = 1
    """Version of the declaration that it was on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LogRank:
    """The permuted log-rank test of time to breakthrough, one condition against another (`permuted_log_rank`)."""

    sooner: str
    than: str
    statistic: float
    p: float
    smallest_p: float
    n: int
    exact: bool


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class JudgedClaim:
    """A claim with its verdict."""

    name: str
    claim: str
    prediction: str
    margin: str
    refuted_by: str
    page: Page
    verdict: Verdict
    reason: str
    """Why it has this verdict."""
    quick: bool
    """Whether it was a smoke test, which is no evidence."""
    created: str
    seeds: tuple[int, ...]
    """Replicates that were planned, ascending."""
    contrasts: tuple[ContrastResult, ...]
    """The primary one first."""
    log_rank: LogRank | None
    conditions: pd.DataFrame
    """`summarise_conditions` of its cells."""
    effects: pd.DataFrame
    """`effect_sizes` of its cells; no rows where nothing is compared with no pretraining."""
    task: str | None = None
    """Task of phase 2."""
    limit: int | None = None
    """Last step of phase 2."""
    threshold: float | None = None
    """Accuracy that counts as a breakthrough, share."""
    protocol: str = ""
    """How the runs were trained, in words."""
    cost: Mapping[str, float | int] = field(default_factory=dict)
    """`outcomes.cost_of` its runs."""
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    """What else was computed from cells and runs."""
    rule_version: int = 1
    """Version of the rule that gave its verdict (`judge.RULES`)."""
    looks: pd.DataFrame = field(default_factory=pd.DataFrame)
    """Every look at a predicted contrast: contrast, n, estimate, low, high, verdict, time."""
    earlier: tuple[EarlierVerdict, ...] = ()
    """Its verdicts before this one, the oldest first."""
    version: int = 1
    """Version of the declaration that it was judged by."""

    @property
    def primary(self) -> ContrastResult:
        """The contrast that decides."""
        return self.contrasts[0]

    @property
    def is_decided(self) -> bool:
        """Whether it is supported or refuted."""
        return self.verdict != Verdict.UNDECIDED


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class StoredClaim(JudgedClaim):
    """A judged claim that was read from its file."""

    source: Place
    cells: pd.DataFrame
    """The rows that it was judged on."""


def interval_level(row: ContrastResult) -> str:
    """Level of the interval that a contrast has, as text."""
    return f"{100 * row.level:.0f} %"

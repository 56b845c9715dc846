"""Ours beside the paper's numbers: do measured gains agree with reported ones in direction? And which one leads?

A verdict is computed from intervals over replicates and a margin that was fixed before the runs; it is never written by
hand. By which intervals, from how many replicates on, is a `ComparisonRule`.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum

import pandas as pd

from procpre_interp.stats.confidence_sequence import FEWEST, FEWEST_WITHIN, Limits, sequence_interval
from procpre_interp.stats.resampling import IntervalMethod
from procpre_interp.stats.rows import named_rows
from procpre_interp.stats.summary import replicate_bootstrap, replicate_matrix

MIN_REPLICATES = 3
"""Fewer give no verdict by `SCREENING`, and name no leader."""
MARGIN = 0.02
"""Smallest gain that counts as one, share of answer tokens: within +-2 percentage points there is no effect.

Chosen before the runs, since the paper gives no intervals.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparisonRule:
    """What a verdict on a cell beside a reported number rests on."""

    interval: IntervalMethod
    fewest: int
    """Replicates below which there is no verdict."""
    fewest_without: int
    """Replicates below which it is not said that there is no effect."""
    margin: float = MARGIN
    share: float = 0.0
    """A cell's margin is at least this share of the reported gain."""

    def margin_of(self, claimed_gain: float) -> float:
        """The smallest gain that counts as one in a cell with this reported gain, NaN where there is none."""
        return self.margin if math.isnan(claimed_gain) else max(self.margin, self.share * abs(claimed_gain))


SCREENING = ComparisonRule(interval=IntervalMethod.BOOTSTRAP, fewest=MIN_REPLICATES, fewest_without=MIN_REPLICATES)
"""Bootstrap intervals, which cover less than they say with few replicates (`interval_note`), and so do the verdicts."""
SEQUENTIAL = ComparisonRule(interval=IntervalMethod.BETTING, fewest=FEWEST, fewest_without=FEWEST_WITHIN, share=0.25)
"""Betting confidence sequences, which hold at every n. A gain is one from a quarter of the reported one on, as in the
claims: two points of outcomes that spread over the whole scale would take hundreds of replicates."""


CHEAP_DIFFERS = "cheap budgets; embeddings averaged and positions carried in every transfer"
"""How the table of `experiments/table1.py` differs from the paper's."""


class Agreement(StrEnum):
    """What a comparison with a reported number, or of two conditions, says."""

    AGREES = "agrees"
    DISAGREES = "disagrees"
    UNDECIDED = "undecided"
    TOO_FEW = "too few replicates"
    NOT_COMPARABLE = "not comparable"
    NOT_LEARNT = "phase 1 not learnt"


@dataclass(frozen=True, kw_only=True, slots=True)
class Lead:
    """How far one condition leads another, paired by replicate."""

    best: str
    runner_up: str
    n: int
    mean: float
    low: float
    high: float
    leader: str | None
    """The one that is decided to lead, as the interval excludes zero; null where neither is."""

    @property
    def answer(self) -> str:
        """The leader, or why there is none."""
        return self.leader or (Agreement.TOO_FEW if self.n < MIN_REPLICATES else Agreement.UNDECIDED)


def effect_verdict(
    low: float, high: float, n: int, claimed: float, *, margin: float, rule: ComparisonRule = SCREENING
) -> Agreement | None:
    """Whether the interval of a measured effect agrees with the claimed effect in its direction.

    Effects fall into three regions: below -margin, no effect (-margin to +margin), above +margin. agrees: the whole
    interval lies in the region of the claimed effect. disagrees: it lies wholly outside of it. undecided: it does
    neither. The claim's own uncertainty is taken to be none. None without a claim (NaN).
    """
    if math.isnan(claimed):
        return None
    if n < rule.fewest:
        return Agreement.TOO_FEW
    if low > high:  # no mean is left in the sequence: the replicates do not have the same one
        return Agreement.UNDECIDED
    if claimed > margin:
        inside, outside = low > margin, high <= margin
    elif claimed < -margin:
        inside, outside = high < -margin, low >= -margin
    else:
        inside, outside = low >= -margin and high <= margin, low > margin or high < -margin
        inside &= n >= rule.fewest_without
    return Agreement.AGREES if inside else Agreement.DISAGREES if outside else Agreement.UNDECIDED


def compare_gains(
    table: pd.DataFrame,
    claimed: Mapping[str, float],
    *,
    rule: ComparisonRule = SCREENING,
    baseline: str = "none",
) -> pd.DataFrame:
    """Accuracies and gains over the baseline, paired by replicate, beside claimed accuracies; one row per condition.

    `table` has columns condition, replicate, status and accuracy (NaN where a run diverged or failed, which is
    counted). The verdict compares gains, since a gain outlives a change of budget better than an accuracy; `n` counts
    the replicates that have both run and baseline. The baseline has no gain of its own (NaN).
    """
    accuracy = replicate_matrix(table, "accuracy")
    gains = accuracy.sub(accuracy.get(baseline, math.nan), axis=0)
    accuracies = _bounds(accuracy, rule, Limits(low=0, high=1))
    measured = _bounds(gains, rule, Limits(low=-1, high=1))
    rows = []
    for condition in map(str, accuracy):
        reached, gain = accuracies.loc[condition], measured.loc[condition]
        number, of_baseline = claimed.get(condition, math.nan), condition == baseline
        mean, low, high = (math.nan if of_baseline else float(gain[key]) for key in ("estimate", "low", "high"))
        claimed_gain = math.nan if of_baseline else number - claimed.get(baseline, math.nan)
        margin = rule.margin_of(claimed_gain)
        n, statuses = int(gain["n"]), table.loc[table["condition"] == condition, "status"].tolist()
        rows.append(
            {
                "condition": condition,
                "n": n,
                "accuracy_mean": reached["estimate"],
                "accuracy_low": reached["low"],
                "accuracy_high": reached["high"],
                "gain_mean": mean,
                "gain_low": low,
                "gain_high": high,
                "diverged": statuses.count("diverged"),
                "failed": statuses.count("failed"),
                "claimed": number,
                "claimed_gain": claimed_gain,
                "margin": margin,
                "verdict": effect_verdict(low, high, n, claimed_gain, margin=margin, rule=rule) or "",
            }
        )
    return pd.DataFrame(rows)


def _bounds(values: pd.DataFrame, rule: ComparisonRule, limits: Limits) -> pd.DataFrame:
    """Estimate, low, high and n of each column of replicates x conditions, by the rule's kind of interval."""
    if rule.interval == IntervalMethod.BOOTSTRAP:
        return replicate_bootstrap(values)
    found = [asdict(sequence_interval(values[name].dropna().to_numpy(dtype=float), limits)) for name in values]
    return pd.DataFrame(found, index=values.columns)


def compare_tasks(
    table: pd.DataFrame, claimed: Mapping[tuple[str, str, str], float], *, rule: ComparisonRule = SCREENING
) -> pd.DataFrame:
    """Accuracies and gains over none beside claimed accuracies: one row per (task, phase1, transfer), as `claimed` has.

    `table` has these columns and those of `compare_gains`, which compares the starts of each task; the baseline is the
    start "none" with transfer "". Whether position embeddings were carried over is told too.

    `table` may say in `differs` in what the setting of a cell differs from the claim's ("" where it does not): such a
    cell is not comparable, whatever its interval. And in `phase1_learnt` whether a replicate's phase 1 was learnt:
    those that missed are counted and left out, and where fewer than the rule wants are left the cell says nothing
    about the claim; where none is, its numbers are those of the replicates that missed.
    """
    parts = []
    for task, rows in table.groupby("task", sort=False):
        cells = rows.assign(condition=rows["phase1"] + "/" + rows["transfer"])
        learnt = cells["phase1_learnt"].astype(bool).tolist() if "phase1_learnt" in cells else [True] * len(cells)
        passed = Counter(name for name, is_learnt in zip(cells["condition"], learnt) if is_learnt)
        missed = Counter(name for name, is_learnt in zip(cells["condition"], learnt) if not is_learnt)
        cells = cells.loc[[ok or not passed[name] for name, ok in zip(cells["condition"], learnt)]]
        of_task = {f"{start}/{transfer}": value for (name, start, transfer), value in claimed.items() if name == task}
        part = compare_gains(cells, of_task, rule=rule, baseline="none/")
        named = cells.drop_duplicates("condition")[["task", "phase1", "transfer", "condition"]]
        carried = {row.condition for row in named_rows(cells) if row.positions_carried is True}
        named["positions_carried"] = [condition in carried for condition in named["condition"]]
        found = named.merge(part, on="condition")
        names, differing = found["condition"].tolist(), _differing(cells)
        found["missed"] = [missed[name] for name in names]
        found["differs"] = [differing[name] for name in names]
        found["verdict"] = [
            _in_its_setting(verdict, differing[name], missed[name], passed[name], rule)
            for verdict, name in zip(found["verdict"], names)
        ]
        parts.append(found.drop(columns="condition"))
    return pd.concat(parts, ignore_index=True)


def of_older_version(summary: pd.DataFrame) -> pd.DataFrame:
    """A stored summary with verdicts that say what they may: one that does not tell in what its setting differs was
    made by cheap budgets and with averaged embeddings throughout, so that none of its cells is comparable. And one
    without margins had the same everywhere."""
    if "margin" not in summary:
        summary = summary.assign(margin=MARGIN)
    if "differs" in summary:
        return summary
    judged = summary["verdict"].isin(list(Agreement))
    return summary.assign(verdict=summary["verdict"].mask(judged, str(Agreement.NOT_COMPARABLE)), differs=CHEAP_DIFFERS)


def _differing(cells: pd.DataFrame) -> dict[str, str]:
    """Condition -> in what its setting differs from the claim's."""
    if "differs" not in cells:
        return dict.fromkeys(cells["condition"], "")
    return {row.condition: row.differs or "" for row in named_rows(cells)}


def _in_its_setting(verdict: str, differs: str, missed: int, learnt: int, rule: ComparisonRule) -> str:
    """The verdict on a comparison, given its setting and how many replicates learnt phase 1."""
    if not verdict:
        return ""
    if differs:
        return Agreement.NOT_COMPARABLE
    return Agreement.NOT_LEARNT if missed and learnt < rule.fewest else verdict


def lead(conditions: pd.DataFrame, first: str, second: str) -> Lead:
    """How far one condition leads another, paired by replicate, and which of them that decides for.

    `conditions` has a row per replicate, a column per condition. Decided when the interval of the mean difference
    excludes zero, and there are enough replicates.
    """
    bound = replicate_bootstrap((conditions[first] - conditions[second]).to_frame("lead")).loc["lead"]
    n, mean, low, high = int(bound["n"]), *(float(bound[key]) for key in ("estimate", "low", "high"))
    decided = None if n < MIN_REPLICATES else first if low > 0 else second if high < 0 else None
    return Lead(best=first, runner_up=second, n=n, mean=mean, low=low, high=high, leader=decided)


def best_condition(conditions: pd.DataFrame) -> Lead:
    """The condition with the highest mean and its lead over the runner-up, in the replicates that have all of them.

    Both are chosen on the replicates that the interval is made of, which makes it narrower than it should be. Raises
    `ValueError` for fewer than two conditions, or without such a replicate.
    """
    complete = conditions.dropna()
    if complete.shape[1] < 2 or complete.empty:
        raise ValueError(
            f"{complete.shape[::-1]} conditions and complete replicates; a best one needs at least 2 and 1"
        )
    first, second = map(str, complete.mean().sort_values(ascending=False, kind="stable").index[:2])
    return lead(complete, first, second)

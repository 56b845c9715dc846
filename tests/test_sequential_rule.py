"""Version 2 of the rule: confidence sequences, gates on the number of replicates, and what stands beside a verdict."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from procpre_interp.claims.claim import Claim, Contrast
from procpre_interp.claims.claim_json import claim_from_json, claim_to_json
from procpre_interp.claims.judge import judge, judge_contrasts
from procpre_interp.claims.looks import sequence_of
from procpre_interp.claims.sequential_rule import judge_contrast
from procpre_interp.claims.text import describe_evidence
from procpre_interp.core.seeding import numpy_stream
from procpre_interp.stats.confidence_sequence import FEWEST, FEWEST_WITHIN, Limits
from procpre_interp.stats.resampling import IntervalMethod
from tests.judged import ABOVE, BELOW, CLAIM_FIELDS, MANY, NAN, SMALL, WITHIN
from tests.judged import gains_table as table


@pytest.mark.parametrize(
    ("contrast", "gain", "verdict"),
    [
        (ABOVE, 0.5, "supported"),
        (ABOVE, 0.2, "undecided"),
        (ABOVE, 0.1, "refuted"),
        (ABOVE, -0.5, "refuted"),
        (BELOW, -0.5, "supported"),
        (BELOW, -0.2, "undecided"),
        (BELOW, 0.5, "refuted"),
        (WITHIN, 0.0, "supported"),
        (WITHIN, 0.1, "supported"),
        (WITHIN, 0.2, "undecided"),
        (WITHIN, 0.5, "refuted"),
        (WITHIN, -0.5, "refuted"),
    ],
)
def test_the_sequence_decides(contrast, gain, verdict):
    row = judge_contrast(contrast, table(gain + MANY))
    assert row.verdict == verdict, row
    assert row.estimate == pytest.approx(gain)
    assert (row.n, row.interval) == (40, IntervalMethod.BETTING)
    assert (row.range_low, row.range_high) == (-1, 1)
    assert row.low < gain < row.high
    assert (row.p <= 0.05) == (verdict != "undecided")
    assert row.smallest_p <= row.p
    assert math.isnan(row.detectable)


def first_decided(contrast: Contrast, gains: np.ndarray, **options) -> int:
    """Number of replicates with which a contrast is first decided; later ones must not undo it."""
    decided = [judge_contrast(contrast, table(gains[:n]), **options).is_decided for n in range(1, len(gains) + 1)]
    assert decided == sorted(decided)
    return decided.index(True) + 1


def test_all_or_nothing_is_decided_by_few_replicates():
    gain = Contrast(name="gain", weights={"a": 1, "none": -1}, predicted="above", margin=0.214)
    assert first_decided(gain, np.full(20, 0.84)) == 10
    assert first_decided(gain, np.zeros(20)) == 17
    same = Contrast(name="same", weights={"a": 1, "none": -1}, predicted="within", margin=0.214)
    assert first_decided(same, np.zeros(20)) == 14


def test_a_look_at_more_replicates_never_moves_the_bounds_apart():
    gains = np.where(numpy_stream(5, "rule").random(30) < 0.5, 0.84, 0.0)
    rows = [judge_contrast(ABOVE, table(gains[:n])) for n in range(1, 31)]
    assert (np.diff([row.low for row in rows]) >= 0).all()
    assert (np.diff([row.high for row in rows]) <= 0).all()


def test_no_verdict_rests_on_few_replicates():
    """Even where the sequence has left the margin behind."""
    low_margin = Contrast(name="x", weights=ABOVE.weights, predicted="above", margin=-0.5)
    for n in range(1, 9):
        row = judge_contrast(low_margin, table(np.full(n, 0.8)))
        assert row.verdict == ("supported" if n >= FEWEST else "undecided")
        if n < FEWEST:
            assert row.reason == f"n = {n}; no verdict rests on fewer than 6 replicates"
    assert judge_contrast(low_margin, table(np.full(5, 0.8))).low > -0.5
    wide = Contrast(name="x", weights=ABOVE.weights, predicted="within", margin=0.6)
    for n in (8, FEWEST_WITHIN - 1, FEWEST_WITHIN):
        row = judge_contrast(wide, table(np.zeros(n)))
        assert row.high < 0.6
        assert row.verdict == ("supported" if n >= FEWEST_WITHIN else "undecided")
    assert "with fewer than 14 replicates" in judge_contrast(wide, table(np.zeros(8))).reason
    narrow = Contrast(name="x", weights=ABOVE.weights, predicted="within", margin=0.1)
    assert judge_contrast(narrow, table(np.full(8, 1.0))).verdict == "refuted", "outside is not within"


def test_too_few_to_be_significant_says_so():
    row = judge_contrast(WITHIN, table(SMALL))
    assert row.verdict == "undecided"
    assert row.reason == f"undecided: n = 6 can give no p below {row.smallest_p:.3g}"
    assert row.smallest_p > 0.05


def test_quick_diverged_and_missing_runs_decide_nothing():
    clear = table(0.5 + MANY)
    assert judge_contrast(ABOVE, clear, quick=True).verdict == "undecided"
    diverged = clear.assign(status=["finished"] * 79 + ["diverged"])
    row = judge_contrast(ABOVE, diverged)
    assert (row.verdict, row.n) == ("undecided", 39)
    assert row.reason == "39 of 40 planned replicates are complete (1 runs diverged)"
    missing = judge_contrast(ABOVE, clear.iloc[:-1], planned=clear)
    assert (missing.verdict, missing.reason) == ("undecided", "39 of 40 planned replicates are complete")
    nothing = judge_contrast(ABOVE, clear.loc[clear["condition"] == "none"], planned=clear)
    assert (nothing.n, nothing.verdict, math.isnan(nothing.low)) == (0, "undecided", True)


def test_outcomes_without_a_range_have_the_t_mixture():
    loss = Contrast(name="loss", weights=ABOVE.weights, predicted="below", margin=-0.1, measure="loss_nats")
    rows = table(MANY[:12])
    rows["loss_nats"] = np.where(rows["condition"] == "a", 1.0, 1.3) + numpy_stream(6, "loss").normal(
        0, 0.02, len(rows)
    )
    row = judge_contrast(loss, rows)
    assert (row.verdict, row.interval) == ("supported", IntervalMethod.T_MIXTURE)
    assert math.isnan(row.range_low)
    assert row.limits is None
    same = Contrast(name="same", weights=ABOVE.weights, predicted="within", margin=0.4, measure="loss_nats")
    assert (
        judge_contrast(same, rows).reason == "n = 12; nothing is called as good as zero with fewer than 14 replicates"
    )
    alike = judge_contrast(loss, rows.assign(loss_nats=1.0))
    assert (alike.verdict, math.isnan(alike.low)) == ("undecided", True)
    assert alike.reason.startswith("all replicates are alike")


def test_a_claim_gives_the_range_of_its_own_measures():
    rows = table(0.5 + MANY).assign(grip=lambda cells: cells["accuracy"])
    grip = Contrast(name="grip", weights=ABOVE.weights, predicted="above", margin=0.2, measure="grip")
    plain, ranged = (
        judge_contrasts(Claim(**CLAIM_FIELDS, primary=grip, limits=limits), rows)[0]
        for limits in ({}, {"grip": Limits(low=0, high=1)})
    )
    assert (plain.interval, ranged.interval) == (IntervalMethod.T_MIXTURE, IntervalMethod.BETTING)
    assert (ranged.range_low, ranged.range_high) == (-1, 1)
    with pytest.raises(ValueError, match="no contrast has the measure 'grip'"):
        Claim(**CLAIM_FIELDS, primary=ABOVE, limits={"grip": Limits(low=0, high=1)})
    with pytest.raises(ValueError, match="give the smallest and the largest value"):
        Limits(low=1, high=1)


def test_a_contrast_ranges_as_far_as_its_weights():
    three = Contrast(name="x", weights={"a": 2, "none": -0.5})
    row = judge_contrast(three, table(MANY))
    assert (row.range_low, row.range_high) == (-0.5, 2)
    time = Contrast(name="t", weights={"none": 1, "a": -1}, measure="restricted_time_steps")
    row = judge_contrast(time, table(MANY))
    assert (row.range_low, row.range_high, row.interval) == (-5000, 5000, IntervalMethod.BETTING)


def test_replicates_that_drift_decide_nothing():
    """They can reject every mean."""
    drifting = np.concatenate([np.full(40, 1.0), np.full(200, -1.0)])
    row = judge_contrast(ABOVE, table(drifting))
    assert row.low > row.high
    assert (row.verdict, row.reason) == (
        "undecided",
        "no mean is left in the interval: the replicates do not have the same one",
    )


def test_breakthroughs_stand_beside_a_verdict_on_accuracy():
    gains = [0.84] * 5 + [0.0] * 5
    rows = table(gains)
    broke = (rows["condition"] == "a") & (rows["accuracy"] > 0.5)
    rows["breakthrough_step"] = np.where(broke, 1500.0, NAN)
    row = judge_contrast(ABOVE, rows)
    first, second = row.breakthroughs
    assert (str(first), str(second)) == ("a 5 of 10 [19, 81] %", "none 0 of 10 [0, 31] %")
    assert row.breakthrough_p == pytest.approx(0.0139, abs=2e-3)
    few = judge_contrast(ABOVE, rows.loc[rows["replicate"] < 1004])
    assert [(each.broke, each.n) for each in few.breakthroughs] == [(4, 4), (0, 4)]
    nothing = judge_contrast(ABOVE, table(gains))
    assert nothing.breakthrough_p == 1
    three = judge_contrast(Contrast(name="i", weights={"a": 1, "none": -0.5}), rows)
    assert (len(three.breakthroughs), math.isnan(three.breakthrough_p)) == (2, True)
    time = Contrast(name="t", weights=ABOVE.weights, measure="restricted_time_steps")
    assert judge_contrast(time, rows).breakthroughs == ()


def test_a_judged_claim_says_by_which_rule_and_interval():
    judged = judge(Claim(**CLAIM_FIELDS, primary=ABOVE), table(0.5 + MANY))
    assert (judged.rule_version, judged.primary.interval) == (2, "betting")


def test_contrasts_without_data_count_in_the_family():
    """What is decided now stays so when they get some."""
    first = Contrast(name="first", weights={"a": 1, "none": -1}, predicted="above", margin=0.3)
    others = [Contrast(name=str(i), weights={"b": 1, "none": -1}, predicted="above", margin=0.3) for i in range(2)]
    free = Contrast(name="free", weights={"b": 1, "none": -1})
    claim = Claim(**CLAIM_FIELDS, primary=ABOVE, secondary=(first, *others, free))
    rows = table(0.5 + MANY)
    later = rows.loc[rows["condition"] == "a"].assign(condition="b", accuracy=NAN, status="failed")
    _, row, *without = judge_contrasts(claim, pd.concat([rows, later]))
    assert row.p_holm == pytest.approx(min(1.0, 3 * row.p))
    whole = judge_contrasts(claim, pd.concat([rows, later.assign(accuracy=rows["accuracy"], status="finished")]))
    assert whole[1].p_holm == pytest.approx(row.p_holm)
    assert all(math.isnan(each.p_holm) for each in without)


@pytest.mark.parametrize(("missing", "verdict"), [(0, "refuted"), (2, "undecided")])
def test_an_interval_has_the_level_that_is_said(missing, verdict):
    """`within`, wholly outside: the 95 % interval, whether or not something else leaves it open."""
    rows = table(0.7 + MANY[:14])
    planned = rows[["condition", "replicate"]]
    there = rows.loc[rows["replicate"] < 1014 - missing]
    judged = judge(Claim(**CLAIM_FIELDS, primary=WITHIN), there, planned=planned)
    row = judged.primary
    assert (row.verdict, row.level) == (verdict, 0.95)
    assert "(95 % interval; " in describe_evidence(judged)
    assert "90 %" not in describe_evidence(judged)
    last = sequence_of(row, there).iloc[-1]
    assert tuple(last[["low", "high"]]) == pytest.approx((row.low, row.high))
    again = claim_from_json(json.loads(json.dumps(claim_to_json(judged))))
    assert again.primary.level == 0.95


def test_an_interval_of_two_tests_is_one_of_90_percent():
    rows = table(MANY)
    judged = judge(Claim(**CLAIM_FIELDS, primary=WITHIN), rows)
    assert (judged.verdict, judged.primary.level) == ("supported", pytest.approx(0.9))
    said = describe_evidence(judged)
    assert "90 % interval, as two one-sided tests at 5 % want it" in said
    assert "n = 40 replicates; 90 % betting confidence sequence" in said
    assert "95 %" not in said.split("Broke through")[0]
    assert "level" not in claim_to_json(judged)["contrasts"][0], "as in files that are older"


@pytest.mark.parametrize("contrast", [ABOVE, BELOW, WITHIN])
def test_a_margin_that_no_replicates_could_tell_decides_nothing(contrast):
    """As one of 500 steps in a smoke test of 20."""
    steps = Contrast(
        name="t", weights=contrast.weights, predicted=contrast.predicted, margin=500, measure="restricted_time_steps"
    )
    rows = table(MANY[:8], limit=20, breakthrough_step=10.0)
    for quick in (True, False):
        row = judge_contrast(steps, rows, quick=quick)
        assert row.verdict == "undecided"
    sign = "+-" if contrast.predicted == "within" else ""
    assert row.reason == f"its margin, {sign}500, is not within its range, -20 to 20"
    assert math.isnan(row.p)

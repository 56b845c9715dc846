"""Version 1 of the rule, by which the stored claims were judged: bootstrap intervals and sign-flip tests."""

import math

import numpy as np
import pandas as pd
import pytest

from procpre_interp.claims.bootstrap_rule import judge_contrast
from procpre_interp.claims.claim import Contrast
from tests.judged import ABOVE, BELOW, NAN, SMALL, WITHIN
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
        (WITHIN, 0.15, "supported"),
        (WITHIN, 0.2, "undecided"),
        (WITHIN, 0.5, "refuted"),
        (WITHIN, -0.5, "refuted"),
    ],
)
def test_the_interval_decides(contrast, gain, verdict):
    row = judge_contrast(contrast, table(gain + SMALL))
    assert row.verdict == verdict, row
    assert row.estimate == pytest.approx(gain)
    assert row.n == 6
    assert row.low < gain < row.high


def test_not_significant_is_not_support_of_equality():
    wide = judge_contrast(WITHIN, table([-0.6, 0.6, -0.5, 0.5, -0.4, 0.4]))
    assert wide.verdict == "undecided"
    assert "crosses the margin" in wide.reason


@pytest.mark.parametrize(("contrast", "fewest"), [(ABOVE, 6), (WITHIN, 5)])
def test_too_few_replicates_decide_nothing(contrast, fewest):
    gain = 0.5 if contrast is ABOVE else 0.0
    for n in range(1, 8):
        row = judge_contrast(contrast, table(gain + np.linspace(-0.01, 0.01, n)))
        assert row.verdict == ("supported" if n >= fewest else "undecided")
        if n < fewest:
            assert f"n = {n} can give no p below" in row.reason
            assert row.smallest_p > 0.05


def test_quick_and_diverged_runs_decide_nothing():
    clear = table(0.5 + SMALL)
    assert judge_contrast(ABOVE, clear, quick=True).verdict == "undecided"
    diverged = clear.assign(status=["finished"] * 11 + ["diverged"])
    row = judge_contrast(ABOVE, diverged)
    assert (row.verdict, row.n) == ("undecided", 5)
    assert row.reason == "5 of 6 planned replicates are complete (1 runs diverged)"
    # A diverged run of a condition that the contrast does not name changes nothing.
    other = table([0.5], condition="b", status="diverged")
    both = pd.concat([clear, other.loc[other["condition"] == "b"]]).assign(limit=5000)
    assert judge_contrast(ABOVE, both).verdict == "supported"


def test_what_was_planned_and_is_not_there_leaves_it_undecided():
    clear = table(0.5 + np.linspace(-0.02, 0.02, 7))
    rows = clear.loc[~((clear["replicate"] == 1003) & (clear["condition"] == "a"))]
    found = judge_contrast(ABOVE, rows, planned=clear)
    assert (found.n, found.verdict) == (6, "undecided")
    assert found.reason == "6 of 7 planned replicates are complete"
    # A condition that was planned for fewer replicates is complete with these.
    assert judge_contrast(ABOVE, rows, planned=rows).verdict == "supported"
    failed = rows.copy()
    failed.loc[failed["replicate"] == 1006, ["status", "accuracy"]] = ["failed", NAN]
    found = judge_contrast(ABOVE, failed, planned=clear)
    assert found.reason == "5 of 7 planned replicates are complete (2 runs failed)"
    nothing = judge_contrast(ABOVE, clear.loc[clear["condition"] == "none"], planned=clear)
    assert (nothing.n, nothing.verdict) == (0, "undecided")


def test_an_interval_without_a_significant_test_decides_nothing():
    row = judge_contrast(ABOVE, table([0.78, 0.80, 0.75, 0.77, 0.79, 0.15]))
    assert row.low > 0.2
    assert row.p > 0.05
    assert row.verdict == "undecided"


def test_replicates_that_are_all_alike_decide_nothing():
    row = judge_contrast(ABOVE, table([0.5] * 8))
    assert row.verdict == "undecided"
    assert "alike" in row.reason


@pytest.mark.parametrize("margin", [0.02, 0.2, 0.38])
def test_a_difference_that_no_test_set_resolves_changes_no_verdict(margin):
    """Six gains of 0, and five of 0 and one of 0.001: both are judged by what six replicates can miss."""
    within = Contrast(name="x", weights=WITHIN.weights, predicted="within", margin=margin)
    rows = [judge_contrast(within, table([0.0] * 5 + [last])) for last in (0.0, 0.001)]
    assert [row.verdict for row in rows] == ["undecided"] * 2
    for row in rows:
        assert "with n = 6 an outcome that occurs in up to 39% of replicates can go unseen" in row.reason
        assert (row.low, row.high) == pytest.approx((-0.393, 0.393), abs=1e-3)
    # Twenty that are alike leave less open.
    many = [judge_contrast(WITHIN, table([0.0] * 19 + [last])) for last in (0.0, 0.001)]
    assert [row.verdict for row in many] == ["supported"] * 2
    assert many[0].high == pytest.approx(1 - 0.05 ** (1 / 20))
    # Of a measure whose range is not known nothing can be said.
    unknown = table([0.0] * 20).assign(entropy=0.5)
    row = judge_contrast(
        Contrast(name="x", weights=WITHIN.weights, predicted="within", margin=1, measure="entropy"), unknown
    )
    assert (row.verdict, math.isnan(row.low)) == ("undecided", True)


def test_a_contrast_reaches_as_far_as_its_weights():
    doubled = Contrast(name="x", weights={"a": 2, "none": -2}, predicted="within", margin=0.3)
    assert judge_contrast(doubled, table([0.0] * 20)).high == pytest.approx(2 * (1 - 0.05 ** (1 / 20)))

"""Statistics against hand arithmetic and scipy."""

import itertools

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from procpre_interp import stats
from procpre_interp.resampling import percentile_tail
from procpre_interp.seeding import numpy_stream
from tests.results import NAN, reproduce_table


def test_summary_by_hand():
    summary = stats.summarise_conditions(reproduce_table()).set_index("condition")
    none, dyck = summary.loc["none"], summary.loc["dyck_full"]
    assert list(summary.index) == ["none", "dyck_full"]
    assert (dyck["n"], dyck["diverged"], dyck["label"]) == (3, 0, "Dyck")
    assert dyck["accuracy_mean"] == pytest.approx(0.6)
    assert dyck["gain_mean"] == pytest.approx(0.6 - 0.11)
    assert dyck["time_mean"] == pytest.approx((1000 + 2000 + 4000) / 3)
    assert dyck["saved_mean"] == pytest.approx(4000 - 7000 / 3)
    assert (none["time_mean"], none["time_low"], none["time_high"]) == (4000, 4000, 4000)
    assert np.isnan(none["gain_mean"])
    assert dyck["breakthrough_share"] == pytest.approx(2 / 3)
    # Clopper-Pearson for 0 of 3: 1 - (alpha / 2)^(1 / 3).
    assert none["breakthrough_high"] == pytest.approx(1 - 0.025 ** (1 / 3))
    # With three replicates the interval is their range: resamples of one replicate only reach its ends.
    assert (dyck["accuracy_low"], dyck["accuracy_high"]) == pytest.approx((0.1, 0.9))
    assert (dyck["gain_low"], dyck["gain_high"]) == pytest.approx((-0.01, 0.8))
    assert dyck["phase1_seconds"] == pytest.approx(30)


@pytest.mark.parametrize("n", [1, 2, 10])
def test_binomial_bounds_agree_with_scipy(n: int):
    successes = np.arange(n + 1)
    low, high = stats.binomial_bounds(successes, np.full(n + 1, n))
    for k in successes:
        theirs = scipy.stats.binomtest(int(k), n).proportion_ci(0.95, method="exact")
        assert (low[k], high[k]) == pytest.approx((theirs.low, theirs.high))


def test_one_replicate_has_no_interval():
    one = stats.summarise_conditions(reproduce_table().query("replicate == 0")).set_index("condition")
    assert one.loc["dyck_full", "accuracy_mean"] == 0.9
    assert one.loc[["dyck_full"], ["accuracy_low", "accuracy_high", "gain_low", "time_high"]].isna().to_numpy().all()
    assert "no interval" in stats.interval_note(1)
    assert "covers less" in stats.interval_note(3)
    assert stats.interval_note(10) == "n = 10 replicates; 95 % bootstrap interval over replicates"


def test_a_diverged_run_counts_as_no_breakthrough_and_is_shown():
    table = reproduce_table(
        status=["finished", "diverged"] + ["finished"] * 4,
        accuracy=[0.10, NAN, 0.12, 0.80, 0.11, 0.10],
        breakthrough_step=[NAN, NAN, NAN, 2000.0, NAN, NAN],
    )
    dyck = stats.summarise_conditions(table).set_index("condition").loc["dyck_full"]
    assert (dyck["diverged"], dyck["n"]) == (1, 3)
    assert dyck["accuracy_mean"] == pytest.approx(0.45)
    assert dyck["time_mean"] == pytest.approx((4000 + 2000 + 4000) / 3)


def test_a_table_without_the_baseline_has_no_gain():
    summary = stats.summarise_conditions(reproduce_table().query("condition == 'dyck_full'"))
    assert summary["gain_mean"].isna().all()


def test_an_empty_table_is_refused():
    with pytest.raises(ValueError, match="no run of this experiment is finished"):
        stats.summarise_conditions(reproduce_table().head(0))


def test_a_cell_that_occurs_twice_is_refused():
    table = pd.concat([reproduce_table(), reproduce_table().head(1)])
    with pytest.raises(ValueError, match=r"more than one row for \(condition, replicate\) \[\('none', 0\)\]"):
        stats.summarise_conditions(table)


@pytest.mark.parametrize("n", [5, 12])
def test_bootstrap_agrees_with_scipy_at_the_expanded_level(n: int):
    values = numpy_stream(1, "values", n).normal(size=n)
    ours = stats.bootstrap_interval(values)
    level = 1 - 2 * percentile_tail(n)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, confidence_level=level, n_resamples=20_000, method="percentile", rng=2
    ).confidence_interval
    spread = values.std() / np.sqrt(n)
    assert ours.estimate == values.mean()
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.15 * spread)
    joint = stats.replicate_bootstrap(pd.DataFrame({"a": values, "b": 2 * values}))
    assert joint.loc["a", "low"] == pytest.approx(theirs.low, abs=0.15 * spread)
    # The same replicates are drawn in both columns.
    assert joint.loc["b", "low"] == pytest.approx(2 * joint.loc["a", "low"])


def test_bootstrap_is_reproducible_and_takes_other_statistics():
    values = np.array([1.0, 2.0, 3.0, 10.0, 11.0])
    assert stats.bootstrap_interval(values) == stats.bootstrap_interval(values)
    median = stats.bootstrap_interval(values, np.median)
    assert (median.estimate, median.n) == (3.0, 5)
    assert 1 <= median.low < 3 < median.high <= 11


def test_the_expanded_tail_gives_student_s_interval_for_normal_data():
    # The bootstrap distribution of a mean has deviation s sqrt((n - 1) / n) / sqrt(n), with s the sample's.
    n = 8
    reach = -scipy.stats.norm.ppf(percentile_tail(n)) * np.sqrt((n - 1) / n)
    assert reach == pytest.approx(scipy.stats.t.ppf(0.975, n - 1))


def test_intervals_over_few_replicates_cover():
    """Expanded intervals of 8 normal values hold the mean in about 95 % of samples (plain ones in 90 %)."""
    generator = numpy_stream(3, "coverage")
    samples = pd.DataFrame(generator.normal(size=(8, 400)))
    bounds = stats.replicate_bootstrap(samples, n_resamples=2_000)
    covered = ((bounds["low"] <= 0) & (bounds["high"] >= 0)).mean()
    assert 0.92 < covered < 0.98


def test_time_to_breakthrough_is_the_first_validation_at_the_threshold():
    history = pd.DataFrame(
        {
            "step": [0, 50, 50, 100, 150, 200],
            "split": ["validation", "train", "validation", "validation", "validation", "validation"],
            "accuracy": [0.1, 0.9, 0.4, 0.5, 0.3, 0.9],
        }
    )
    assert stats.time_to_breakthrough(history, 0.5) == 100
    assert stats.time_to_breakthrough(history, 0.95) is None


def test_restricted_time_stops_at_the_smallest_limit():
    table = pd.DataFrame({"breakthrough_step": [500.0, 3000.0, NAN], "limit": [4000, 4000, 2000]})
    assert stats.restricted_time(table).tolist() == [500, 2000, 2000]


def test_kaplan_meier_by_hand_and_with_scipy():
    table = pd.DataFrame(
        {
            "condition": "dyck_full",
            "breakthrough_step": [100.0, 200.0, 200.0, NAN, 300.0, NAN],
            "limit": [400, 400, 400, 200, 400, 400],
        }
    )
    curve = stats.survival_curve(table)
    # At 200 five are at risk (the run censored there included) and two break through.
    assert curve["survival"].tolist() == pytest.approx([1, 5 / 6, 5 / 6 * 3 / 5, 5 / 6 * 3 / 5 / 2, 1 / 4])
    assert curve["at_risk"].tolist() == [6, 6, 5, 2, 1]
    censored = scipy.stats.CensoredData(uncensored=[100, 200, 200, 300], right=[200, 400])
    theirs = scipy.stats.ecdf(censored).sf
    interval = theirs.confidence_interval(0.95, method="log-log")
    assert curve["survival"][1:].tolist() == pytest.approx(theirs.probabilities)
    assert curve["low"][1:].tolist() == pytest.approx(interval.low.probabilities)
    assert curve["high"][1:].tolist() == pytest.approx(interval.high.probabilities)


def test_restricted_mean_time_is_the_area_under_the_survival_curve():
    table = reproduce_table()
    curve = stats.survival_curve(table).query("condition == 'dyck_full'")
    area = float((np.diff(curve["step"]) * curve["survival"].to_numpy()[:-1]).sum())
    summary = stats.summarise_conditions(table).set_index("condition")
    assert area == pytest.approx(summary.loc["dyck_full", "time_mean"])


def test_a_curve_keeps_the_last_value_of_a_run_that_ended():
    history = pd.DataFrame(
        {
            "condition": "dyck_full",
            "replicate": [0, 0, 0, 1, 1],
            "step": [0, 50, 100, 0, 50],
            "split": "validation",
            "accuracy": [0.0, 0.2, 0.4, 0.2, 0.6],
        }
    )
    curve = stats.mean_curve(history)
    assert curve["mean"].tolist() == pytest.approx([0.1, 0.4, 0.5])
    assert curve["n"].tolist() == [2, 2, 2]
    assert stats.mean_curve(history.head(0)).empty


@pytest.mark.parametrize("differences", [[1.0, 2.0, 3.0], [0.5, -0.2, 0.9, 0.4, 0.0], [0.3], [0.0, 0.0]])
def test_sign_flips_by_enumeration(differences: list[float]):
    test = stats.sign_flip_test(np.array(differences))
    means = [abs(np.dot(signs, differences)) for signs in itertools.product([1, -1], repeat=len(differences))]
    assert test.exact
    assert test.p == pytest.approx(np.mean(np.array(means) >= abs(sum(differences)) - 1e-12))
    assert test.smallest_p == pytest.approx(np.mean(np.array(means) >= sum(map(abs, differences)) - 1e-12))
    assert test.smallest_p <= test.p


def test_sign_flips_agree_with_scipy_when_sampled():
    differences = numpy_stream(5, "differences").normal(0.3, 1, size=20)
    ours = stats.sign_flip_test(differences)
    theirs = scipy.stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=20_000, rng=1
    )
    assert not ours.exact
    assert ours.smallest_p == pytest.approx(1 / 10_001)
    assert ours.p == pytest.approx(theirs.pvalue, abs=0.02)
    with pytest.raises(ValueError, match="complete pairs"):
        stats.sign_flip_test(np.array([0.1, NAN]))


def test_holm_by_hand():
    adjusted = stats.holm(np.array([0.04, 0.01, 0.03, 0.005]))
    assert adjusted.tolist() == pytest.approx([0.06, 0.03, 0.06, 0.02])
    assert stats.holm(np.array([0.9, 0.8])).tolist() == [1.0, 1.0]

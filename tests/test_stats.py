"""Statistics against hand arithmetic and scipy."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from procpre_interp.core.seeding import numpy_stream
from procpre_interp.stats import summary as stats
from procpre_interp.stats.decisions import Decided, Decision, EquivalenceDecision, stored_decision
from procpre_interp.stats.resampling import percentile_tail, resampled_bounds, resamples
from procpre_interp.stats.transfer_map import transfer_map
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


@pytest.mark.parametrize("statistic", [np.mean, np.median])
def test_bounds_of_few_replicates_are_those_of_all_resamples(statistic):
    """Every one of the n^n draws, written out."""
    for values in (np.array([1.0, 2.0, 3.5, 11.0]), np.array([0.09, 0.09, 0.93, 0.09, 0.91])):
        n = len(values)
        drawn = np.sort([float(statistic([values[i] for i in draw])) for draw in itertools.product(range(n), repeat=n)])
        tail = percentile_tail(n)
        low, high = drawn[int(np.ceil(tail * n**n)) - 1], drawn[-int(np.ceil(tail * n**n))]
        found = stats.bootstrap_interval(values, statistic)
        assert (found.low, found.high) == pytest.approx((low, high))


def test_resamples_are_all_there_up_to_ten_replicates():
    for n in (1, 2, 6, 10):
        counts, probability = resamples(n)
        assert len(np.unique(counts, axis=0)) == len(counts) == math.comb(2 * n - 1, n)
        assert (counts.sum(axis=1) == n).all()
        assert probability.sum() == pytest.approx(1)
        assert probability @ counts == pytest.approx(np.ones(n))
    assert [len(resamples(n)[0]) for n in (10, 11)] == [92_378, 10_000]


def test_a_column_with_gaps_has_the_bounds_of_what_is_there():
    counts, probability = resamples(3)
    resampled = np.array([[1.0, NAN], [2.0, NAN], [3.0, 5.0], *[[4.0, NAN]] * 7])
    low, high = resampled_bounds(resampled, probability, 0.05)
    assert len(counts) == len(resampled)
    assert (low[1], high[1]) == (5, 5)
    assert np.isnan(resampled_bounds(resampled * NAN, probability, 0.05)).all()


def bimodal(n: int) -> pd.DataFrame:
    """Replicates of which two break through, and a baseline."""
    broke = np.arange(n) < 2
    rows = {"condition": ["none"] * n + ["a"] * n, "replicate": [*range(n)] * 2, "status": "finished", "limit": 5000}
    rows |= {"accuracy": [*np.linspace(0.08, 0.1, n), *np.where(broke, 0.93, 0.09)], "seconds": 1.0}
    rows |= {"breakthrough_step": [NAN] * n + np.where(broke, 1000.0, NAN).tolist(), "label": "x"}
    return pd.DataFrame(rows)


@pytest.mark.parametrize("n", [4, 10])
def test_no_seed_moves_the_bounds_of_up_to_ten_replicates(n: int):
    table = bimodal(n)
    gains = stats.paired_gains(table)
    coalitions = table.assign(coalition=table["condition"].map({"none": (), "a": ("attn",)}))
    found = []
    for seed in range(2):
        one = {"generator": numpy_stream(seed, "any")}
        interval = stats.bootstrap_interval(gains["a"].to_numpy(), **one)
        many = [stats.replicate_bootstrap(gains, **one), stats.effect_sizes(table, **one)]
        many += [stats.summarise_conditions(table, **one), transfer_map(coalitions, ["attn"], ["add_one_in"])]
        found.append((interval, [frame.to_csv() for frame in many]))
    assert found[0] == found[1]


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


def test_a_decision_says_what_n_could_have_shown():
    significant, undecided = Decided(Decision.SIGNIFICANT), Decision.UNDECIDED
    assert stats.decide(0.04, 0.01) == significant
    assert stats.decide(0.05, 0.05) == significant
    assert stats.decide(0.06, 0.05) == Decided(Decision.NOT_SIGNIFICANT)
    assert stats.decide(0.125, 0.125, n=4) == Decided(undecided, "n = 4 can give no p below 0.125")
    assert stats.decide(0.125, 0.125) == Decided(undecided, "these data can give no p below 0.125")
    assert stats.decide(0.125, 0.125, 0.2) == significant
    assert str(stats.decide(0.125, 0.125, n=4)) == "undecided: n = 4 can give no p below 0.125"
    assert str(significant) == "significant"


@pytest.mark.parametrize("decided", [Decided(Decision.SIGNIFICANT), Decided(Decision.UNDECIDED, "n = 4: too few")])
def test_a_decision_of_an_older_file_is_taken_apart(decided: Decided):
    """They had the reason in the same text."""
    assert stored_decision(str(decided)) == (decided.decision, decided.reason)
    assert stored_decision(decided.decision, decided.reason) == (decided.decision, decided.reason)
    assert stored_decision(None) == (None, "")
    with pytest.raises(ValueError, match="decision 'perhaps' is none of significant, not significant, undecided"):
        stored_decision("perhaps")


@pytest.mark.parametrize(
    ("p", "smallest_p", "alpha"), [(1.1, 0.1, 0.05), (NAN, 0.1, 0.05), (0.5, -0.1, 0.05), (1, 1, 0)]
)
def test_a_decision_refuses_what_is_no_probability(p: float, smallest_p: float, alpha: float):
    with pytest.raises(ValueError, match="probabilities, and alpha is neither 0 nor 1"):
        stats.decide(p, smallest_p, alpha)


def test_holm_in_families_by_hand():
    tests = pd.DataFrame(
        {
            "family": ["map", "ladder", "map", "map", "ladder"],
            "primary": [False, False, False, True, False],
            "p": [0.03, 0.02, 0.04, 0.04, 0.5],
            "smallest_p": [0.01, 0.0625, 0.02, 0.01, 0.0625],
            "n": [8, 5, 8, 8, 5],
        },
        index=[3, 3, 1, 0, 7],
    )
    decided = stats.decide_tests(tests)
    # The primary contrast is by itself; the map's others are two, the ladder's are two.
    assert decided["p_holm"].tolist() == pytest.approx([0.06, 0.04, 0.06, 0.04, 0.5])
    assert decided["smallest_p_holm"].tolist() == pytest.approx([0.02, 0.125, 0.02, 0.01, 0.125])
    expected = ["not significant", "undecided", "not significant", "significant", "undecided"]
    assert decided["decision"].tolist() == expected
    too_few = "n = 5 can give no adjusted p below 0.125"
    assert decided["undecided_reason"].tolist() == ["", too_few, "", "", too_few]
    assert decided[tests.columns.tolist()].equals(tests)
    alone = stats.decide_tests(pd.DataFrame({"p": [0.25], "smallest_p": [0.125]}))
    assert alone["decision"].tolist() == [Decision.UNDECIDED]
    assert alone["undecided_reason"].tolist() == ["these data can give no p below 0.125"]


def test_no_result_of_a_family_gives_less_than_the_smallest_adjusted_p():
    """All combinations of what three tests could give."""
    attainable = [np.array([0.125, 0.5, 1.0]), np.array([0.03125, 0.25, 1.0]), np.array([0.0625, 1.0])]
    adjusted = np.array([stats.holm(np.array(p)) for p in itertools.product(*attainable)])
    smallest = stats.holm(np.array([p.min() for p in attainable]))
    assert adjusted.min(axis=0).tolist() == smallest.tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"p": [0.1, NAN]}, "or NaN in"),
        ({"p": [0.1, 1.2]}, "from 0 to 1"),
        ({"family": ["map", None]}, "or NaN in"),
        ({"primary": [True, True], "family": "map"}, "2 primary contrasts in family 'map'; name one"),
    ],
)
def test_families_that_are_refused(change: dict, message: str):
    tests = pd.DataFrame({"p": [0.1, 0.2], "smallest_p": [0.1, 0.1]})
    with pytest.raises(ValueError, match=message):
        stats.decide_tests(tests.assign(**change))
    with pytest.raises(ValueError, match="give p and smallest_p of every test"):
        stats.decide_tests(tests[["p"]])


def test_detectable_effect_by_hand():
    # Four pairs can give no p below 1 / 8, five none below 1 / 16, and Holm over 20 asks for more than ten.
    assert stats.detectable_effect(4, 1.0) == stats.detectable_effect(5, 1) == np.inf
    assert stats.detectable_effect(9, 1.0, alpha=0.05 / 20) == np.inf
    # Sampled sign patterns stop at 1 / 10001, however many replicates.
    assert stats.detectable_effect(40, 1.0, alpha=0.00009) == np.inf
    assert np.isfinite(stats.detectable_effect(5, 1.0, alpha=0.0625))
    # With six, only differences of one sign are significant: Phi(d)^6 = 0.8.
    by_hand = scipy.stats.norm.ppf(0.8 ** (1 / 6))
    assert stats.detectable_effect(6, 2.0) == pytest.approx(2 * by_hand, rel=0.03)
    assert np.isnan(stats.detectable_effect(6, 0))
    assert np.isnan(stats.detectable_effect(6, NAN))
    assert stats.detectable_effect(1, NAN) == np.inf


def test_detectable_effect_is_student_s_with_more_replicates():
    n = 10
    power_of = scipy.stats.nct(n - 1, stats.detectable_effect(n, 1.0) * np.sqrt(n))
    assert power_of.sf(scipy.stats.t.ppf(0.975, n - 1)) == pytest.approx(0.8, abs=0.03)
    power_of = scipy.stats.nct(29, stats.detectable_effect(30, 5.0, power=0.9) / 5 * np.sqrt(30))
    assert power_of.sf(scipy.stats.t.ppf(0.975, 29)) == pytest.approx(0.9, abs=0.002)


def test_the_detectable_effect_is_detected():
    effect = stats.detectable_effect(7, 1.0)
    samples = numpy_stream(7, "power").normal(effect, 1, size=(500, 7))
    found = [stats.sign_flip_test(sample).p <= 0.05 for sample in samples]
    assert np.mean(found) == pytest.approx(0.8, abs=0.05)


@pytest.mark.parametrize(
    ("n", "std", "options"),
    [(0, 1.0, {}), (5, -1.0, {}), (9, np.inf, {}), (5, 1.0, {"alpha": 0}), (5, 1.0, {"power": 1})],
)
def test_detectable_effects_that_are_refused(n: int, std: float, options: dict):
    with pytest.raises(ValueError, match="n must be at least 1|finite and not < 0"):
        stats.detectable_effect(n, std, **options)


def test_sign_flips_and_holm_keep_their_level():
    """Three tests without an effect on eight replicates, correlated as conditions with one baseline are."""
    generator = numpy_stream(8, "null")
    samples = generator.normal(size=(300, 8, 3)) + generator.normal(size=(300, 8, 1))
    p = np.array([[stats.sign_flip_test(column).p for column in sample.T] for sample in samples])
    # Of 256 sign patterns, 12 are the most that 5 % allows.
    assert (p <= 0.05).mean() == pytest.approx(12 / 256, abs=0.02)
    tests = pd.DataFrame({"p": p.ravel(), "smallest_p": 2 / 256, "family": np.repeat(np.arange(300), 3)})
    erred = (stats.decide_tests(tests)["decision"] == "significant").groupby(tests["family"]).any()
    assert 0.01 < erred.mean() < 0.07


def crossed(rows: int, columns: int, generator: np.random.Generator) -> np.ndarray:
    """Values with variance 4 of rows, 1 of columns, 0.25 residual."""
    by_row, by_column = generator.normal(0, 2, size=(rows, 1)), generator.normal(0, 1, size=(1, columns))
    return by_row + by_column + generator.normal(0, 0.5, size=(rows, columns))


def test_variance_components_by_hand():
    # Row means 2 and 6, column means 3 and 5, residuals +-1: MS = 16, 4 and 4.
    found = stats.variance_components(np.array([[2.0, 2.0], [4.0, 8.0]]))
    assert found.tolist() == pytest.approx([(16 - 4) / 2, 0, 4])
    table = stats.two_way_bootstrap(pd.DataFrame([[1.0, 3.0], [3.0, 1.0]]))
    # Only interaction: MS = 0, 0 and 4, so both main components are -2.
    assert table["component"].tolist() == ["phase-1 seed", "phase-2 seed", "residual"]
    assert table["variance"].tolist() == [0, 0, 4]
    assert table["share"].tolist() == [0, 0, 1]
    assert table["negative"].tolist() == [True, True, False]
    assert (table["low"] >= 0).all()


def test_variance_components_agree_with_plain_loops_and_are_unbiased():
    generator = numpy_stream(11, "crossed")
    values = np.array([crossed(4, 5, generator) for _ in range(3000)])
    found = stats.variance_components(values)
    assert found.mean(axis=0).tolist() == pytest.approx([4, 1, 0.25], rel=0.06)
    first, grand = values[0], values[0].mean()
    left = [(first[i, j] - first[i].mean() - first[:, j].mean() + grand) ** 2 for i in range(4) for j in range(5)]
    residual = sum(left) / 12
    by_row = (5 * sum((row.mean() - grand) ** 2 for row in first) / 3 - residual) / 5
    by_column = (4 * sum((column.mean() - grand) ** 2 for column in first.T) / 4 - residual) / 4
    assert found[0].tolist() == pytest.approx([by_row, by_column, residual])


def test_pigeonhole_bounds_hold_the_components():
    """Nearly always with 8 x 8 seeds; swapping the seeds' roles swaps the rows of the table."""
    generator = numpy_stream(12, "crossed")
    truth, held = np.array([4, 1, 0.25]), []
    for _ in range(40):
        table = stats.two_way_bootstrap(pd.DataFrame(crossed(8, 8, generator)), n_resamples=400)
        held.append((table["low"] <= truth) & (truth <= table["high"]))
    assert (np.mean(held, axis=0) >= 0.85).all()
    values = pd.DataFrame(crossed(6, 4, generator))
    one, other = stats.two_way_bootstrap(values), stats.two_way_bootstrap(values.T)
    assert one["n"].tolist() == [6, 4, 4]
    assert one["variance"].tolist() == pytest.approx(other["variance"][[1, 0, 2]].tolist())
    assert one["high"].tolist() == pytest.approx(other["high"][[1, 0, 2]].tolist(), rel=0.15)
    assert one.equals(stats.two_way_bootstrap(values))


def test_resampled_components_are_those_of_the_data_on_average(monkeypatch: pytest.MonkeyPatch):
    """Every resample of 3 x 3 seeds once, the correction against exact enumeration."""
    values = crossed(3, 3, numpy_stream(13, "crossed"))
    draws = np.array(list(itertools.product(range(3), repeat=3)))
    rows, columns = np.repeat(draws, 27, axis=0)[:, :, None], np.tile(draws, (27, 1))[:, None, :]

    class Enumerate:
        def __init__(self) -> None:
            self.drawn = [rows, columns]

        def integers(self, *_, **__) -> np.ndarray:
            return self.drawn.pop(0)

    means = []
    quantile = np.quantile
    monkeypatch.setattr(np, "quantile", lambda drawn, q: means.append(drawn.mean()) or quantile(drawn, q))
    monkeypatch.setattr("procpre_interp.stats.variance.numpy_stream", lambda *_: Enumerate())
    stats.two_way_bootstrap(pd.DataFrame(values))
    assert means == pytest.approx(stats.variance_components(values).tolist())


@pytest.mark.parametrize("values", [[[1.0, 2.0]], [[1.0], [2.0]], [[1.0, NAN], [2.0, 3.0]]])
def test_incomplete_crossings_are_refused(values: list):
    with pytest.raises(ValueError, match="run every cell of at least 2 x 2 seeds"):
        stats.two_way_bootstrap(pd.DataFrame(values))


def test_crossed_values_without_variance_have_no_shares():
    assert stats.two_way_bootstrap(pd.DataFrame(np.ones((3, 3))))["share"].isna().all()


@pytest.mark.parametrize(
    ("values", "p"), [([1, -1], 0.75), ([-1] * 5, 1), ([1] * 5, 1 / 32), ([0] * 4, 1), ([0.3, -0.1, 0.2], 0.25)]
)
def test_a_one_sided_p_counts_the_observed_pattern(values: list, p: float):
    """The share of sign patterns with a mean of at least the observed one, by a loop."""
    flips = itertools.product((1, -1), repeat=len(values))
    means = [np.mean([sign * value for sign, value in zip(signs, values)]) for signs in flips]
    assert np.mean(np.array(means) >= np.mean(values) - 1e-12) == p
    assert stats.sign_flip_test(np.array(values, dtype=float), one_sided=True).p == p


def test_equivalence_is_an_interval_within_the_margin():
    near = np.array([0.01, -0.02, 0.0, 0.015, -0.005, 0.002])
    test = stats.equivalence_test(near, 0.05)
    assert (test.decision, test.n, test.smallest_p, test.margin) == ("equivalent", 6, 1 / 64, 0.05)
    assert test.estimate == near.mean()
    assert -0.05 < test.low < test.estimate < test.high < 0.05
    # The 90 % interval is narrower than the 95 % one, by Student's ratio or so.
    wide = stats.bootstrap_interval(near)
    assert wide.low < test.low < test.high < wide.high
    assert stats.equivalence_test(near + 0.2, 0.05).decision == "not equivalent"
    assert stats.equivalence_test(near - 0.2, 0.05).decision == "not equivalent"
    for values, margin, reason in (
        (near + 0.05, 0.05, "the interval crosses the margin"),
        (near[:4], 1, "n = 4 can give no p below 0.0625"),
        (near[:1], 1, "n = 1 can give no p below 0.5"),
    ):
        test = stats.equivalence_test(values, margin)
        assert (test.decision, test.reason) == (EquivalenceDecision.UNDECIDED, reason)
    assert np.isnan(test.low)


def test_equivalence_keeps_its_level():
    """A difference that is just the margin is called equivalent in about 5 % of studies."""
    samples = numpy_stream(14, "margin").normal(1.0, 0.5, size=(150, 8))
    found = [stats.equivalence_test(sample, 1).decision == "equivalent" for sample in samples]
    assert 0.01 < np.mean(found) < 0.1


@pytest.mark.parametrize(
    ("differences", "margin", "alpha"),
    [([], 0.1, 0.05), ([0.1, NAN], 0.1, 0.05), ([0.1, 0.2], 0, 0.05), ([0.1, 0.2], NAN, 0.05), ([0.1, 0.2], 1, 0.5)],
)
def test_equivalence_tests_that_are_refused(differences: list, margin: float, alpha: float):
    with pytest.raises(ValueError, match="complete pairs|above 0 and finite"):
        stats.equivalence_test(np.array(differences, dtype=float), margin, alpha=alpha)

"""Confidence sequences: against a reference implementation, an integral, and what simulated studies decide."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.integrate
import scipy.stats

from procpre_interp.claims.claim import Contrast
from procpre_interp.claims.compared import contrast_values
from procpre_interp.claims.sequential_rule import judge_contrast
from procpre_interp.core.seeding import numpy_stream
from procpre_interp.stats.betting import FRACTIONS, WEIGHTS, betting_bounds, largest_log_capital, log_capital
from procpre_interp.stats.confidence_sequence import (
    FEWEST,
    FEWEST_WITHIN,
    Limits,
    bounds_by_n,
    sequence_interval,
    sequential_test,
)
from procpre_interp.stats.power import POWER, detectable_effect, detectable_in_sequence
from procpre_interp.stats.resampling import bootstrap_interval
from procpre_interp.stats.t_sequence import FIRST_LOOK, SCALE, largest_log_bayes_factor, log_bayes_factor, t_bounds
from tests.judged import ABOVE, WITHIN, gains_table

MARGIN = 0.214
"""The claims' margin on accuracy."""
LOW, HIGH = 0.09, 0.93
"""Accuracies of a run that did not break through and of one that did."""
SHARES = [0.1, 0.25, (MARGIN / (HIGH - LOW)), 0.5, 0.75, 0.9]
"""Success probabilities; at the third the mean is at the margin."""
MOST = 60
DIFFERENCES = Limits(low=-1, high=1)

GOLDEN_VALUES = np.array([0.92, 0.5, 0.91, 0.52, 0.08, 0.93, 0.49, 0.9, 0.5, 0.92, 1.0, 0.0])
GOLDEN_LOOKS = np.array([1, 5, 6, 10, 11, 12])
GOLDEN: dict[float, tuple[list[float], list[float]]] = {
    0.3: (
        [2.7222222, 6.3116046, 18.348696, 416.81644, 1365.4924, 25.909308],
        [0.26190476, 0.11830984, 0.083978851, 0.04945666, 0.041134442, 0.043768208],
    ),
    0.75: (
        [1.1888889, 0.21488104, 0.24090599, 0.19810478, 0.22953588, 0.11294835],
        [0.43333333, 1.7473494, 0.71275731, 0.56707383, 0.23414143, 0.46644926],
    ),
}
"""Mean -> capital on "above" and on "below" after so many replicates, by
`diversified_betting_mart(x, m, ..., trunc_scale=1, theta=1 or 0)` of confseq 0.0.11 with our fractions (f / m,
f / (1 - m)) and weights: the Python part of its source distribution, since the compiled one asks for Boost."""
GOLDEN_BOUNDS = (
    [0.019, 0.0955, 0.201, 0.254, 0.254, 0.2615, 0.286, 0.3305, 0.346, 0.3815, 0.4165, 0.4165],
    [0.9985, 0.972, 0.959, 0.924, 0.874, 0.874, 0.8585, 0.8585, 0.843, 0.843, 0.843, 0.843],
)
"""`cs_from_martingale(x, mart, breaks=2000, alpha=.05, running_intersection=True)` of the same: on a grid of .0005."""


def test_capital_and_bounds_are_those_of_the_reference_implementation():
    assert WEIGHTS.sum() == pytest.approx(1)
    for mean, (above, below) in GOLDEN.items():
        assert np.exp(log_capital(GOLDEN_VALUES, mean))[GOLDEN_LOOKS - 1] == pytest.approx(above, rel=1e-6)
        assert np.exp(log_capital(1 - GOLDEN_VALUES, 1 - mean))[GOLDEN_LOOKS - 1] == pytest.approx(below, rel=1e-6)
    for ours, theirs in zip(betting_bounds(GOLDEN_VALUES, 0.025), GOLDEN_BOUNDS, strict=True):
        assert ours == pytest.approx(theirs, abs=6e-4)


def test_capital_by_hand():
    """One replicate: a fraction f is multiplied by x / m, the rest is kept."""
    (capital,) = np.exp(log_capital(np.array([0.9]), 0.6))
    assert capital == pytest.approx(1 + (WEIGHTS @ FRACTIONS) * 0.5)
    for n in (1, 7):
        assert largest_log_capital(n, 0.6) == pytest.approx(log_capital(np.ones(n), 0.6)[-1])


def test_bounds_stand_where_a_test_just_rejects():
    for name, values, limits in (
        ("bimodal", np.where(numpy_stream(1, "sequence").random(25) < 0.5, 0.84, 0.0), DIFFERENCES),
        ("normal", numpy_stream(2, "sequence").normal(0.3, 0.2, 25), None),
    ):
        low, high = bounds_by_n(values, limits)
        assert (np.diff(low[FIRST_LOOK:]) >= 0).all()
        assert (np.diff(high[FIRST_LOOK:]) <= 0).all()
        for n in (FIRST_LOOK, 12, 25):
            for bound, inside in ((low[n - 1], 1), (high[n - 1], -1)):
                found = [sequential_test(values[:n], bound + inside * side * 1e-5, limits).p for side in (-1, 1)]
                assert found[0] < 0.05 < found[1], (name, n)
        interval = sequence_interval(values, limits)
        assert (interval.low, interval.high, interval.n) == (low[-1], high[-1], 25)
        assert interval.estimate == values.mean()


def test_no_data_give_less_than_the_smallest_p():
    for n in (3, 8, 20):
        for values in (np.full(n, 1.0), np.full(n, -1.0)):
            test = sequential_test(values, MARGIN, DIFFERENCES)
            assert min(test.above, test.below) == pytest.approx(
                test.smallest_above if values[0] > 0 else test.smallest_below
            )
        assert test.smallest_p <= test.p * (1 + 1e-9)
    nearly_alike = 5 + 1e-9 * np.arange(8)
    test = sequential_test(nearly_alike, 0.0, None)
    assert test.smallest_p * (1 - 1e-9) <= test.p < 1e-8
    assert (
        sequential_test(nearly_alike[:5], 0.0, None).p == sequential_test(nearly_alike[:5], 0.0, None).smallest_p == 1
    )


def test_the_bayes_factor_is_the_integral_over_effects():
    values = numpy_stream(3, "sequence").normal(0.4, 1.0, 9)
    for mean in (0.0, 0.4, -2.0):
        n = len(values)
        t = (values.mean() - mean) / (values.std(ddof=1) / np.sqrt(n))
        under = scipy.stats.t.pdf(t, n - 1)

        def weighed(effect: float, t: float = t, n: int = n) -> float:
            return scipy.stats.nct.pdf(t, n - 1, effect * np.sqrt(n)) * scipy.stats.norm.pdf(effect, scale=SCALE)

        integral, _ = scipy.integrate.quad(weighed, -8, 8, points=[-1, 0, 1], limit=200)
        assert log_bayes_factor(values, mean)[-1] == pytest.approx(np.log(integral / under), abs=1e-4)
    assert largest_log_bayes_factor(9) == pytest.approx(log_bayes_factor(5 + 1e-9 * np.arange(9), 0.0)[-1], abs=1e-4)


def studies(share: float, n: int, *, seed: int = 0) -> np.ndarray:
    """Paired differences of many studies: one condition breaks through with this probability, the other never does."""
    generator = numpy_stream(seed, "studies", f"{share:.4f}")
    broke = generator.random((n, MOST)) < share
    noise = generator.normal(0, 0.01, (2, n, MOST))
    return np.where(broke, HIGH, LOW) + noise[0] - LOW - noise[1]


def crossed(values: np.ndarray, mean: float, threshold: float, *, first: int) -> np.ndarray:
    """First n at which each study rejects means of at most `mean`; infinite where it never does."""
    capital = np.maximum.accumulate(log_capital((values + 1) / 2, (mean + 1) / 2), axis=-1)
    over = capital[:, first - 1 :] >= np.log(threshold)
    return np.where(over.any(axis=-1), over.argmax(axis=-1) + first, np.inf)


def simulate(share: float, n_studies: int, *, seed: int = 0) -> None:
    """Coverage at all n together, and verdicts of studies that stop when they are decided."""
    values, mean = studies(share, n_studies, seed=seed), share * (HIGH - LOW)
    missed = np.isfinite([crossed(sign * values, sign * mean, 40, first=3) for sign in (1, -1)]).any(axis=0)
    assert missed.mean() <= 0.05
    above = crossed(values, MARGIN, 40, first=FEWEST)
    below = crossed(-values, -MARGIN, 40, first=FEWEST)
    # At the margin itself either verdict is false.
    at_margin = abs(mean - MARGIN) < 1e-9
    false = np.isfinite(np.minimum(above, below)) if at_margin else above < below if mean < MARGIN else below < above
    assert false.mean() <= 0.05
    # Within: both one-sided tests at 5 %; outside: the two-sided one.
    within = np.maximum(
        crossed(-values, -MARGIN, 20, first=FEWEST_WITHIN), crossed(values, -MARGIN, 20, first=FEWEST_WITHIN)
    )
    outside = np.minimum(above, crossed(-values, MARGIN, 40, first=FEWEST))
    false = within < outside if mean >= MARGIN - 1e-9 else outside < within
    assert false.mean() <= 0.05


@pytest.mark.parametrize("share", SHARES)
def test_bimodal_studies_are_covered_and_rarely_decided_wrongly(share: float):
    """n = 3 to 60, looked at after each replicate, 2,000 studies."""
    simulate(share, 2_000)


@pytest.mark.slow
@pytest.mark.parametrize("share", [*np.linspace(0.05, 0.95, 19), SHARES[2]])
def test_many_bimodal_studies_are_covered_and_rarely_decided_wrongly(share: float):
    for part in range(10):
        simulate(share, 2_000, seed=1 + part)


@pytest.mark.parametrize("share", SHARES[::2])
def test_what_is_simulated_is_how_claims_are_judged(share: float):
    for values in studies(share, 6, seed=7):
        for n in (FEWEST - 1, FEWEST, 10, FEWEST_WITHIN - 1, FEWEST_WITHIN, 25, MOST):
            table, seen = gains_table(values[:n]), values[None, :n]
            above = crossed(seen, MARGIN, 40, first=1)[0] <= n
            below = crossed(-seen, -MARGIN, 40, first=1)[0] <= n
            within = all(crossed(sign * seen, -MARGIN, 20, first=1)[0] <= n for sign in (1, -1))
            outside = above or crossed(-seen, MARGIN, 40, first=1)[0] <= n
            expected = (
                (ABOVE, "supported" if above else "refuted" if below else "undecided"),
                (WITHIN, "refuted" if outside else "supported" if within and n >= FEWEST_WITHIN else "undecided"),
            )
            for contrast, verdict in expected:
                judged = judge_contrast(replace(contrast, margin=MARGIN), table)
                assert judged.verdict == (verdict if n >= FEWEST else "undecided")


def test_where_both_conditions_break_through_at_times_means_are_covered():
    """n = 3 to 60, two independent conditions of which either is in two modes."""
    for first, second in ((0.5, 0.25), (0.9, 0.75), (0.25, 0.25)):
        values = studies(first, 1_000, seed=1) - studies(second, 1_000, seed=2)
        mean = (first - second) * (HIGH - LOW)
        missed = np.isfinite([crossed(sign * values, sign * mean, 40, first=3) for sign in (1, -1)]).any(axis=0)
        assert missed.mean() <= 0.05


@pytest.mark.parametrize(("share", "most"), [(0.0, 17), (0.05, 25), (0.5, 34), (0.75, 16), (1.0, 10)])
def test_half_of_the_studies_are_decided_by_then(share: float, most: int):
    values = studies(share, 2_000)
    decided = np.minimum(crossed(values, MARGIN, 40, first=FEWEST), crossed(-values, -MARGIN, 40, first=FEWEST))
    assert np.median(decided) <= most


def test_a_bootstrap_misses_the_mode_that_it_has_not_seen():
    """Why verdicts on accuracy no longer rest on one: at n = 6 a tenth of successes is covered by half."""
    values, mean = studies(0.1, 300)[:, :6], 0.1 * (HIGH - LOW)
    bounds = [bootstrap_interval(study) for study in values]
    assert np.mean([each.low <= mean <= each.high for each in bounds]) < 0.6


def covered(values: np.ndarray) -> float:
    """Share of studies whose t sequence has 0 in it at every n."""
    return float((log_bayes_factor(values, 0.0) < np.log(20)).all(axis=-1).mean())


def stored_losses() -> list[np.ndarray]:
    folder = Path(__file__).resolve().parents[1] / "experiments" / "results" / "earlier"
    contrasts = json.loads((folder / "length_matters.json").read_bytes())["contrasts"]
    cells = pd.read_csv(folder / "length_matters.csv")
    named = [Contrast(name="x", weights=row["weights"], measure=row["measure"]) for row in contrasts]
    return [contrast_values(each, cells) for each in named if each.measure == "loss_nats"]


def test_losses_like_the_stored_ones_are_covered():
    """Drawn from a kernel estimate of the stored replicates, looked at from n = 6 to 60."""
    pools = stored_losses()
    assert len(pools) == 10
    for index, pool in enumerate(pools):
        kernel = scipy.stats.gaussian_kde(pool, "silverman")
        generator = numpy_stream(index, "losses")
        drawn = generator.choice(pool, (2_000, MOST)) + generator.normal(
            0, kernel.factor * pool.std(ddof=1), (2_000, MOST)
        )
        assert covered(drawn - pool.mean()) >= 0.95, index


def test_normal_outcomes_are_covered_and_decided():
    generator = numpy_stream(4, "normal")
    assert covered(generator.normal(size=(2_000, MOST))) >= 0.95
    # An effect of two standard deviations is found with ten replicates, as a rule.
    found = log_bayes_factor(generator.normal(2, 1, (500, 10)), 0.0)[:, -1] >= np.log(20)
    assert found.mean() > 0.8


def test_what_is_out_of_range_is_refused():
    with pytest.raises(ValueError, match="outside of their range, 0 to 1; correct the range"):
        sequence_interval(np.array([0.5, 1.2]), Limits(low=0, high=1))
    with pytest.raises(ValueError, match="is not between the limits -1 and 1"):
        sequential_test(np.array([0.5]), 1.0, DIFFERENCES)
    with pytest.raises(ValueError, match="scale them to their range"):
        betting_bounds(np.array([-0.1]), 0.025)
    assert np.isnan(sequence_interval(np.array([]), None).low)


def test_what_a_sequence_could_have_shown_is_shown():
    """Simulated by itself: looks after each replicate, until the margin is outside of the 95 % sequence."""
    n, std = 9, 0.05
    distance = detectable_in_sequence(n, std)
    studies = numpy_stream(3, "power of a sequence").normal(0.02 + distance, std, size=(1_000, n))
    found = [t_bounds(study, 0.025)[0][-1] > 0.02 for study in studies]
    assert np.mean(found) == pytest.approx(POWER, abs=0.04)
    # Sequences pay for looking, and replicates help.
    assert distance > detectable_effect(n, std)
    assert distance > detectable_in_sequence(12, std)
    assert detectable_in_sequence(5, std) == math.inf
    assert math.isnan(detectable_in_sequence(9, 0))
    with pytest.raises(ValueError, match="not < 0"):
        detectable_in_sequence(9, -1.0)
    # Of an equivalence it would be the power to refute it.
    losses = gains_table(numpy_stream(4, "losses").normal(0.02, std, size=n)).assign(loss_nats=lambda t: t["accuracy"])
    above, within = (judge_contrast(replace(each, measure="loss_nats"), losses).detectable for each in (ABOVE, WITHIN))
    assert above > 0
    assert math.isnan(within)

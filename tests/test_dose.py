"""Half doses of known curves, and what is said where there is none."""

import numpy as np
import pandas as pd
import pytest
import scipy.optimize

from procpre_interp.core.seeding import numpy_stream
from procpre_interp.stats.half_dose import REACH, SLOPES, dose_means, fit_half_dose, half_dose
from tests.results import NAN

DOSES = (0.0, 0.1, 0.3, 1.0, 3.0)


def curve(dose: np.ndarray | float, half: float, slope: float) -> np.ndarray | float:
    return 1 / (1 + (dose / half) ** slope)


def measured(
    halves: dict[str, float], *, replicates: int = 8, seed: int = 0, noise: float = 0.0, gain: float = 0.8
) -> pd.DataFrame:
    """Curves of slope 2 over baselines that differ between replicates; gains differ too, and values have noise."""
    generator = numpy_stream(seed, "doses")
    rows = []
    for replicate in range(replicates):
        baseline, own = 0.1 + 0.02 * generator.normal(), gain + 2 * noise * generator.normal()
        for component, half in halves.items():
            for dose in DOSES:
                value = baseline + own * float(curve(dose, half, 2.0)) + noise * generator.normal()
                rows.append((component, dose, replicate, value, baseline))
    return pd.DataFrame(rows, columns=["component", "noise_std", "replicate", "value", "baseline"])


def test_a_curve_without_noise_is_recovered():
    fits = half_dose(measured({"attn": 0.5, "mlp": 2.0}), n_resamples=50)
    assert fits["component"].tolist() == ["attn", "mlp"]
    np.testing.assert_allclose(fits["half_dose"], [0.5, 2.0], rtol=1e-5)
    np.testing.assert_allclose(fits[["low", "high"]], [[0.5, 0.5], [2.0, 2.0]], rtol=1e-5)
    np.testing.assert_allclose(fits["slope"], 2.0, rtol=1e-5)
    assert fits["n"].tolist() == [8, 8]
    assert fits["unbounded"].tolist() == [0, 0]
    assert not fits["beyond"].any()
    assert fits["problem"].tolist() == ["", ""]


def test_the_fit_is_the_least_squares_one():
    """Against scipy from several starts, on noisy curves: some steep, some flat, some that end at a bound."""
    generator = numpy_stream(1, "curves")
    doses = np.array(DOSES[1:])
    half, slope = np.exp(generator.uniform(np.log([0.03, 0.4]), np.log([10, 8]), size=(25, 2))).T
    retained = curve(doses, half[:, None], slope[:, None]) + generator.normal(0, 0.05, size=(25, 4))
    low, high = np.array([0.1 / REACH, SLOPES[0]]), np.array([3.0 * REACH, SLOPES[1]])
    for values, *found in zip(retained, *fit_half_dose(doses, retained)):
        errors = []
        for start in ([0.05, 1.0], [0.5, 1.0], [0.5, 5.0], [8.0, 1.0], [8.0, 5.0]):
            fit = scipy.optimize.least_squares(
                lambda p, values=values: curve(doses, *np.exp(p)) - values,
                np.log(start),
                bounds=(np.log(low), np.log(high)),
                xtol=1e-12,
                ftol=1e-12,
                gtol=1e-12,
            )
            errors.append(2 * fit.cost)
        assert ((curve(doses, *found) - values) ** 2).sum() <= min(errors) + 1e-9
        assert (low - 1e-9 <= found).all()
        assert (found <= high + 1e-9).all()


def test_the_interval_covers_a_known_half_dose():
    """About as often as it says."""
    fits = pd.concat([half_dose(measured({"attn": 0.5}, seed=seed, noise=0.05), n_resamples=200) for seed in range(40)])
    assert abs(fits["half_dose"].median() - 0.5) < 0.02
    covered = ((fits["low"] <= 0.5) & (fits["high"] >= 0.5)).mean()
    assert 0.87 <= covered <= 1
    assert (fits["high"] - fits["low"]).between(0.005, 0.5).all()
    assert ((fits["low"] < fits["half_dose"]) & (fits["half_dose"] < fits["high"])).all()


def test_more_noise_gives_a_wider_interval():
    little, much = (half_dose(measured({"attn": 0.5}, noise=noise)).loc[0] for noise in (0.02, 0.1))
    assert much["high"] - much["low"] > 2 * (little["high"] - little["low"])


def test_the_fit_is_to_the_means_and_not_a_mean_of_fits():
    table = measured({"attn": 0.5}, replicates=2)
    table["value"] = table["baseline"] + np.where(table["replicate"] == 0, 0.9, 0.1) * curve(
        table["noise_std"].to_numpy(), np.where(table["replicate"] == 0, 0.3, 3.0), 2.0
    )
    doses = np.array(DOSES[1:])
    means = 0.9 * curve(doses, 0.3, 2.0) + 0.1 * curve(doses, 3.0, 2.0)
    expected, _ = fit_half_dose(doses, means[None])
    fit = half_dose(table).loc[0]
    assert fit["half_dose"] == pytest.approx(float(expected[0]))
    # With two replicates the interval is their range.
    assert (fit["low"], fit["high"]) == pytest.approx((0.3, 3.0), rel=1e-4)


def test_without_a_gain_there_is_no_half_dose():
    table = measured({"attn": 0.5}, gain=-0.01)
    fit = half_dose(table).loc[0]
    assert fit[["half_dose", "low", "high", "slope"]].isna().all()
    assert fit["problem"] == "no gain to halve"
    assert fit["detail"] == "the mean gain of the undamaged transfer is -0.01"
    assert (fit["unbounded"], fit["n"]) == (1, 8)


def test_an_uncertain_gain_has_the_widest_interval():
    """The mean gain is above 0, but not in a good part of the resamples."""
    table = measured({"attn": 0.5}, noise=0.0)
    gains = np.array([0.5, -0.4, 0.5, -0.4, 0.5, -0.4, 0.5, -0.4])[table["replicate"]]
    table["value"] = table["baseline"] + gains * curve(table["noise_std"].to_numpy(), 0.5, 2.0)
    fit = half_dose(table).loc[0]
    assert fit["half_dose"] == pytest.approx(0.5, rel=1e-4)
    assert (fit["low"], fit["high"]) == pytest.approx((0.1 / REACH, 3.0 * REACH))
    assert 0.2 < fit["unbounded"] < 0.6
    assert fit["problem"] == ""


@pytest.mark.parametrize(("half", "bound"), [(1e9, 3.0 * REACH), (1e-9, 0.1 / REACH)])
def test_half_doses_beyond_the_fit_s_reach_are_at_its_bound(half: float, bound: float):
    fit = half_dose(measured({"attn": half})).loc[0]
    assert (fit["half_dose"], fit["low"], fit["high"]) == pytest.approx((bound, bound, bound))
    assert fit["beyond"]
    assert fit["unbounded"] == 1
    assert fit["problem"] == "beyond the doses measured, which are from 0.1 to 3"


def test_a_half_dose_between_the_doses_and_the_reach_is_marked():
    fit = half_dose(measured({"attn": 6.0})).loc[0]
    assert fit["half_dose"] == pytest.approx(6, rel=1e-3)
    assert fit["beyond"]
    assert fit["unbounded"] == 0


def test_the_same_replicates_are_drawn_for_all_components():
    table = measured({"attn": 0.5}, noise=0.05)
    fits = half_dose(pd.concat([table, table.assign(component="copy")])).drop(columns="component")
    pd.testing.assert_series_equal(fits.loc[0], fits.loc[1], check_names=False)
    alone = half_dose(table).drop(columns="component")
    pd.testing.assert_frame_equal(fits.head(1), alone)
    other = half_dose(table, generator=numpy_stream(9, "other")).loc[0]
    assert other["half_dose"] == alone.loc[0, "half_dose"]
    # Six replicates have 462 distinct resamples, all of which are taken: no seed moves the bounds.
    assert other["low"] == alone.loc[0, "low"]


def test_replicates_without_a_dose_are_left_out_of_their_component():
    table = measured({"attn": 0.5, "mlp": 2.0}, noise=0.05)
    gap = (table["component"] == "attn") & (table["noise_std"] == 1) & (table["replicate"] == 3)
    without = table[(table["component"] == "mlp") | (table["replicate"] != 3)]
    expected = half_dose(without)
    assert expected["n"].tolist() == [7, 8]
    for some in (table[~gap], table.assign(value=table["value"].mask(gap))):
        pd.testing.assert_frame_equal(half_dose(some), expected)
    lost = half_dose(table.assign(baseline=NAN)).loc[0]
    assert (lost["n"], lost["problem"]) == (0, "no replicate with all doses and a baseline")
    assert np.isnan(lost["half_dose"])


def test_one_replicate_has_no_interval():
    fit = half_dose(measured({"attn": 0.5}, replicates=1)).loc[0]
    assert fit["half_dose"] == pytest.approx(0.5, rel=1e-4)
    assert fit[["low", "high"]].isna().all()
    assert fit["n"] == 1


def test_dose_means_by_hand():
    table = measured({"attn": 0.5, "mlp": 2.0}, replicates=3, noise=0.05)
    table = table[(table["component"] == "attn") | (table["noise_std"] != 1)]
    means = dose_means(table)
    assert list(means) == ["component", "noise_std", "mean", "low", "high", "n", "baseline"]
    assert means["component"].tolist() == ["attn"] * 5 + ["mlp"] * 4
    assert means["noise_std"].tolist() == [*DOSES, 0, 0.1, 0.3, 3]
    for _, row in means.iterrows():
        cell = table[(table["component"] == row["component"]) & (table["noise_std"] == row["noise_std"])]
        assert row["mean"] == pytest.approx(cell["value"].mean())
        # With three replicates the interval is their range.
        assert (row["low"], row["high"]) == pytest.approx((cell["value"].min(), cell["value"].max()))
        assert row["n"] == 3
    np.testing.assert_allclose(means["baseline"], table.groupby("replicate")["baseline"].first().mean())


TABLE = measured({"attn": 0.5}, replicates=2)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (TABLE.head(0), "0 rows"),
        (TABLE.drop(columns="baseline"), "give component, noise_std, replicate, value, baseline"),
        (TABLE[TABLE["noise_std"] > 0], "give 0 .undamaged. and others above it"),
        (TABLE[TABLE["noise_std"] == 0], "attn: doses .0.0.; give 0"),
        (TABLE.assign(noise_std=TABLE["noise_std"] - 1), "noise_std -1.0; a dose is 0 or more"),
        (pd.concat([TABLE, TABLE]), "more than one row"),
        (TABLE.assign(baseline=TABLE["noise_std"]), "a replicate with two baselines"),
    ],
)
def test_tables_without_a_dose_response_are_refused(table: pd.DataFrame, message: str):
    for function in (half_dose, dose_means):
        with pytest.raises(ValueError, match=message):
            function(table)


def test_a_single_dose_has_a_mean_and_no_half_dose():
    table = TABLE[TABLE["noise_std"] < 0.2]
    assert sorted(table["noise_std"].unique()) == [0.0, 0.1]
    (row,) = half_dose(table).to_dict("records")
    assert (row["problem"], row["n"]) == ("a single dose, of which there is no curve", 2)
    assert np.isnan([row[name] for name in ("half_dose", "low", "high", "slope")]).all()
    assert dose_means(table)["noise_std"].tolist() == [0.0, 0.1]

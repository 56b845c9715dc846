"""Log-rank test and effect sizes against hand arithmetic, enumeration and scipy."""

import itertools

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from procpre_interp.core.seeding import numpy_stream
from procpre_interp.stats import summary as stats
from procpre_interp.stats.survival import effect_sizes, permuted_log_rank
from tests.results import NAN, reproduce_table


def log_rank(a: list[tuple[float, bool]], b: list[tuple[float, bool]]) -> float:
    """The statistic by plain loops over (end, broke through)."""
    excess = variance = 0.0
    for step in {end for end, broke in a + b if broke}:
        in_a = sum(end >= step for end, _ in a)
        both = in_a + sum(end >= step for end, _ in b)
        total = sum(broke and end == step for end, broke in a + b)
        excess += sum(broke and end == step for end, broke in a) - total * in_a / both
        if both > 1:
            variance += in_a * (both - in_a) * total * (both - total) / (both**2 * (both - 1))
    return excess / variance**0.5 if variance else 0.0


def runs(times: np.ndarray, limits: np.ndarray) -> list[tuple[float, bool]]:
    """(end, broke through) of each run."""
    return [(limit, False) if np.isnan(time) else (time, True) for time, limit in zip(times, limits)]


def test_log_rank_by_hand():
    # Step 1: one of two each at risk, a breaks through: 1 - 1/2, variance 1/4. Step 2: only b is at risk.
    test = permuted_log_rank(np.array([1.0]), np.array([9]), np.array([2]), np.array([9]))
    assert test.statistic == pytest.approx(0.5 / 0.25**0.5)
    assert (test.p, test.smallest_p, test.n, test.exact) == (1, 1, 1, True)


@pytest.mark.parametrize("n", [3, 8])
def test_the_statistic_is_scipy_s(n: int):
    generator = numpy_stream(2, "untied", n)
    times, limits = generator.uniform(0, 150, size=(2, n)), generator.uniform(60, 140, size=n)
    times = np.where(times <= limits, times, NAN)
    ours = permuted_log_rank(times[0], limits, times[1], limits)
    samples = [scipy.stats.CensoredData(uncensored=row[~np.isnan(row)], right=limits[np.isnan(row)]) for row in times]
    assert ours.statistic == pytest.approx(scipy.stats.logrank(*samples).statistic)
    swapped = permuted_log_rank(times[1], limits, times[0], limits)
    assert swapped.statistic == pytest.approx(-ours.statistic)
    assert (swapped.p, swapped.smallest_p) == (ours.p, ours.smallest_p)


@pytest.mark.parametrize("seed", range(6))
def test_log_rank_by_enumeration_with_ties(seed: int):
    """Steps of a coarse grid, some pairs alike, limits that differ between replicates."""
    generator = numpy_stream(seed, "ties")
    n = 6
    times = generator.integers(1, 6, size=(2, n)).astype(float) * 10
    limits = generator.choice([30.0, 40.0], size=n)
    times[times > limits] = NAN
    test = permuted_log_rank(times[0], limits, times[1], limits)
    a, b = runs(times[0], limits), runs(times[1], limits)
    statistics = np.abs(
        [
            log_rank(
                [(y if swap else x) for x, y, swap in zip(a, b, swaps)],
                [(x if swap else y) for x, y, swap in zip(a, b, swaps)],
            )
            for swaps in itertools.product([False, True], repeat=n)
        ]
    )
    assert test.statistic == pytest.approx(log_rank(a, b))
    assert test.p == pytest.approx((statistics >= statistics[0] - 1e-9).mean())
    assert test.smallest_p == pytest.approx((statistics >= statistics.max() - 1e-9).mean())
    assert 2**-5 <= test.smallest_p <= test.p


def test_the_smallest_p_of_a_clear_case_is_two_in_two_to_the_n():
    fast, slow, limits = np.arange(1.0, 6), np.full(5, NAN), np.full(5, 100)
    clear = permuted_log_rank(fast, limits, slow, limits)
    assert clear.statistic > 0
    assert clear.p == clear.smallest_p == 2 / 2**5
    assert str(stats.decide(clear.p, clear.smallest_p, n=clear.n)) == "undecided: n = 5 can give no p below 0.0625"
    # Pairs without breakthrough add replicates, and nothing that exchanges.
    padded = permuted_log_rank(np.append(fast, [NAN] * 20), np.full(25, 100), np.full(25, NAN), np.full(25, 100))
    assert (padded.p, padded.smallest_p, padded.n, padded.exact) == (2 / 2**5, 2 / 2**5, 25, True)
    nothing = permuted_log_rank(slow, limits, slow, limits)
    assert (nothing.statistic, nothing.p, nothing.smallest_p) == (0, 1, 1)


def test_runs_of_a_pair_count_up_to_the_smaller_limit():
    one = permuted_log_rank(np.array([10.0, 90.0]), np.array([100, 100]), np.array([NAN, 20.0]), np.array([50, 50]))
    other = permuted_log_rank(np.array([10.0, NAN]), np.array([50, 50]), np.array([NAN, 20.0]), np.array([50, 50]))
    assert one == other


def test_many_replicates_are_sampled_reproducibly():
    generator = numpy_stream(3, "many")
    times, limits = generator.permutation(np.arange(1.0, 41)).reshape(2, 20), np.full(20, 100)
    test = permuted_log_rank(times[0], limits, times[1], limits, n_resamples=999)
    assert not test.exact
    assert test.smallest_p == pytest.approx(1 / 1000)
    assert test == permuted_log_rank(times[0], limits, times[1], limits, n_resamples=999)
    # The normal reference holds for so many, pairs being independent here.
    assert test.p == pytest.approx(2 * scipy.stats.norm.sf(abs(test.statistic)), abs=0.06)


def test_log_rank_keeps_its_level():
    """Without an effect, p is at most alpha in a share alpha of studies, or fewer; pairs share their luck."""
    generator = numpy_stream(4, "null")
    p = []
    for _ in range(400):
        times = generator.exponential(50, size=(2, 6)) + generator.exponential(50, size=6)
        times[times > 150] = NAN
        p.append(permuted_log_rank(times[0], np.full(6, 150), times[1], np.full(6, 150)).p)
    for level in (0.05, 0.25):
        assert (np.array(p) <= level).mean() <= level + 0.035
    assert (np.array(p) <= 0.25).mean() >= 0.18


GOOD = {"times_a": [1.0], "limits_a": [9], "times_b": [NAN], "limits_b": [9]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"times_b": [1.0, 2.0]}, "give one each a replicate"),
        ({name: [] for name in GOOD}, "give one each a replicate"),
        ({"limits_a": [NAN]}, "a number of steps above 0"),
        ({"limits_b": [0]}, "a number of steps above 0"),
        ({"times_a": [-1.0]}, "from 0 to the run's limit"),
        ({"times_b": [10.0]}, "from 0 to the run's limit"),
    ],
)
def test_log_rank_tests_that_are_refused(change: dict, message: str):
    with pytest.raises(ValueError, match=message):
        permuted_log_rank(**{name: np.array(values) for name, values in (GOOD | change).items()})


def test_effect_sizes_by_hand():
    effects = effect_sizes(reproduce_table()).set_index("measure")
    assert effects.index.tolist() == ["restricted_time_steps", "breakthrough_share", "accuracy"]
    assert set(effects["condition"]) == {"dyck_full"}
    assert set(effects["baseline"]) == {"none"}
    assert effects["estimate"].tolist() == pytest.approx([(-3000 - 2000 + 0) / 3, 2 / 3, 0.6 - 0.11])
    assert effects["n"].tolist() == [3, 3, 3]
    # Three replicates: the interval is their range.
    assert effects.loc["restricted_time_steps", ["low", "high"]].tolist() == pytest.approx([-3000, 0])
    assert effects.loc["accuracy", ["low", "high"]].tolist() == pytest.approx([-0.01, 0.8])
    assert not effects["constant"].any()
    summary = stats.summarise_conditions(reproduce_table()).set_index("condition").loc["dyck_full"]
    assert effects.loc["accuracy", "estimate"] == pytest.approx(summary["gain_mean"])
    assert effects.loc["restricted_time_steps", "estimate"] == pytest.approx(-summary["saved_mean"])


def test_time_and_share_count_up_to_the_smallest_limit():
    table = reproduce_table(limit=[4000] * 5 + [1500])
    effects = effect_sizes(table).set_index("measure")["estimate"]
    assert effects["restricted_time_steps"] == pytest.approx(-500 / 3)
    assert effects["breakthrough_share"] == pytest.approx(1 / 3)


def test_the_same_replicates_are_drawn_for_all_conditions():
    table = pd.concat([reproduce_table(), reproduce_table().query("condition == 'dyck_full'").assign(condition="copy")])
    effects = effect_sizes(table).set_index(["condition", "measure"])
    assert effects.loc["copy"].equals(effects.loc["dyck_full"])
    flipped = effect_sizes(table, baseline="dyck_full").set_index(["condition", "measure"])
    bounds = flipped.loc["none", ["low", "high"]].to_numpy()
    assert bounds == pytest.approx(-effects.loc["copy", ["high", "low"]].to_numpy())


def test_pairs_that_all_agree_are_no_certainty():
    n = 5
    table = pd.DataFrame(
        {
            "condition": ["none", "dyck_full", "head"] * n,
            "replicate": np.repeat(np.arange(n), 3),
            "breakthrough_step": [NAN, 1000.0, NAN] * n,
            "limit": 4000,
            "accuracy": np.linspace(0.1, 0.9, 3 * n) ** 2,
        }
    )
    effects = effect_sizes(table).set_index(["condition", "measure"])
    q = 0.025 ** (1 / n)
    share = effects.loc[("dyck_full", "breakthrough_share")]
    assert share["constant"]
    assert (share["estimate"], share["low"], share["high"]) == pytest.approx((1, 2 * q - 1, 1))
    none = effects.loc[("head", "restricted_time_steps")]
    assert (none["estimate"], none["low"], none["high"]) == pytest.approx((0, -4000 * (1 - q), 4000 * (1 - q)))
    saved = effects.loc[("dyck_full", "restricted_time_steps")]
    assert (saved["low"], saved["high"]) == pytest.approx((-3000 * q - 4000 * (1 - q), -3000 * q + 4000 * (1 - q)))
    assert not effects.loc[("dyck_full", "accuracy"), "constant"]


def test_incomplete_pairs_are_left_out():
    table = reproduce_table(accuracy=[0.10, NAN, 0.12, 0.80, 0.11, 0.10]).drop(index=4)
    effects = effect_sizes(table).set_index("measure")
    assert effects["n"].tolist() == [2, 2, 1]
    assert effects.loc["accuracy", "estimate"] == pytest.approx(0.68)
    assert np.isnan(effects.loc["accuracy", "low"])


def test_tables_that_have_no_effects_are_refused():
    table = reproduce_table()
    with pytest.raises(ValueError, match="0 rows, limits"):
        effect_sizes(table.head(0))
    with pytest.raises(ValueError, match="a limit above 0 steps"):
        effect_sizes(reproduce_table(limit=NAN))
    with pytest.raises(ValueError, match="unknown baseline condition 'non'. Did you mean 'none'?"):
        effect_sizes(table, baseline="non")
    for alone in (table.query("condition == 'none'"), table.iloc[[0, 3]]):
        with pytest.raises(ValueError, match="no replicate has 'none' and another condition"):
            effect_sizes(alone)
    with pytest.raises(ValueError, match="more than one row"):
        effect_sizes(pd.concat([table, table]))

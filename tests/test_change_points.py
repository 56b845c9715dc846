"""Change points against brute force and on synthetic series; formation steps by hand."""

import itertools
import math

import numpy as np
import pytest

from procpre_interp.core.seeding import numpy_stream
from procpre_interp.stats.change_points import _segmentations, change_points, formation_step

STEPS = np.array([0, 1, 2, 4, 8, 15, 30, 60, 120, 240, 480, 1000])


def test_a_noiseless_step_between_two_checkpoints():
    table = change_points(STEPS, [0.1] * 5 + [0.9] * 7)
    assert table.columns.tolist() == ["step_before", "step", "level_before", "level_after"]
    assert len(table) == 1
    assert table.iloc[0].tolist() == pytest.approx([8, 15, 0.1, 0.9])


def test_rounding_is_no_second_change():
    for place in range(2, 200, 7):
        values = np.where(np.arange(200) < place, 0.1, 7.7)
        assert change_points(range(200), values)["step"].tolist() == [place]


def test_two_changes_there_and_back_and_no_more_than_allowed():
    values = [0.0] * 8 + [1.0] * 8 + [0.25] * 8
    table = change_points(range(24), values)
    assert table["step"].tolist() == [8, 16]
    assert table["level_before"].tolist() == pytest.approx([0, 1])
    assert table["level_after"].tolist() == pytest.approx([1, 0.25])
    assert change_points(range(24), values, max_changes=1)["step"].tolist() == [8]
    assert change_points(range(24), values, max_changes=0).empty


def test_the_segmentation_is_the_best_of_all():
    values = numpy_stream(0, "segments").normal(size=9)
    starts, rss = _segmentations(values, 3)
    for m in range(4):
        every = {}
        for places in itertools.combinations(range(1, 9), m):
            edges = [0, *places, 9]
            pieces = [values[a:b].tolist() for a, b in itertools.pairwise(edges)]
            every[places] = sum(sum((v - sum(piece) / len(piece)) ** 2 for v in piece) for piece in pieces)
        best = min(every, key=lambda places: every[places])
        assert tuple(starts[m]) == best
        assert rss[m] == pytest.approx(every[best])


def test_the_criterion_by_hand():
    """10 points, so that one change costs 40 ln 10 / 5 - 20 ln 10 / 7 and must lower 10 ln RSS by more."""
    price = 40 / 5 * math.log(10) - 20 / 7 * math.log(10)
    ratio = math.exp(price / 10)  # of the residual sums, without and with the change
    for factor, found in ((0.98, 0), (1.02, 1)):
        # Alternating noise of variance 1 around -jump / 2 and jump / 2: RSS is 10, and 10 + 10 jump^2 / 4 in all.
        jump = 2 * math.sqrt(factor * ratio - 1)
        values = np.array([1, -1, 1, -1, 0] * 2) * math.sqrt(10 / 8) + np.repeat([-jump / 2, jump / 2], 5)
        assert len(change_points(range(10), values, max_changes=1)) == found


@pytest.mark.parametrize("value", [0.0, 0.3, -1e6])
def test_a_constant_series_changes_nowhere(value: float):
    assert change_points(STEPS, [value] * 12).empty
    rounding = [value * (1 + 1e-8 * (i % 3)) for i in range(12)]
    assert change_points(STEPS, rounding).empty


@pytest.mark.parametrize("n", [6, 8, 12, 20, 40, 100])
def test_pure_noise_rarely_changes(n: int):
    rng = numpy_stream(1, "noise", n)
    found = sum(not change_points(range(n), 0.3 + 0.01 * rng.normal(size=n)).empty for _ in range(150))
    assert found / 150 < 0.12


@pytest.mark.parametrize("n", [10, 20, 40])
def test_a_change_of_five_standard_deviations_is_found(n: int):
    rng = numpy_stream(2, "step", n)
    found = 0
    for _ in range(50):
        table = change_points(range(n), rng.normal(size=n) + np.where(np.arange(n) >= n // 2, 5.0, 0.0))
        found += (table["step"].sub(n // 2).abs() <= 1).any()
    assert found >= 48


def test_neither_the_spacing_of_steps_nor_the_scale_of_values_matters():
    values = numpy_stream(3, "scale").normal(size=12) + np.repeat([0, 6], [4, 8])
    table = change_points(STEPS, values)
    assert table["step"].tolist() == [8]
    moved = change_points(STEPS**2 + 7, 1000 - 3 * values)
    assert moved["step"].tolist() == [8**2 + 7]
    assert moved["level_before"].tolist() == pytest.approx((1000 - 3 * table["level_before"]).tolist())


def test_few_points_show_nothing():
    assert change_points([3], [0.5]).empty
    assert change_points([0, 1, 2, 3, 4], [0, 0, 0, 1, 1]).empty
    assert len(change_points([0, 1, 2, 3, 4, 5], [0, 0, 0, 1, 1, 1])) == 1


def test_a_series_forms_when_it_stays():
    assert formation_step(STEPS[:5], [0, 0.6, 0.4, 0.5, 0.9], threshold=0.5) == 4
    assert formation_step([5, 10], [1, 1], threshold=1) == 5
    assert math.isnan(formation_step([5, 10], [1, 0.4], threshold=0.5))
    assert formation_step([5, 10], [0.4, 1], threshold=0.5) == 10


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([1, 2], [1.0], "as many steps as values"),
        ([], [], "one or more"),
        ([1, 1], [0.0, 1.0], "from 1 to 1; sort the series"),
        ([2, 1], [0.0, 1.0], "from 2 to 1"),
        ([1, 2], [0.0, math.nan], "not finite"),
    ],
)
def test_what_is_no_series_is_refused(x, y, message):
    with pytest.raises(ValueError, match=message):
        change_points(x, y)
    with pytest.raises(ValueError, match=message):
        formation_step(x, y, threshold=0.5)


def test_a_negative_number_of_changes_is_refused():
    with pytest.raises(ValueError, match="max_changes=-1"):
        change_points([1, 2], [0, 1], max_changes=-1)

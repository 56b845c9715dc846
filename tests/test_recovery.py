"""Shares of a gain: against arithmetic, and the coverage of their intervals."""

import numpy as np
import pandas as pd
import pytest

from procpre_interp.core.seeding import numpy_stream
from procpre_interp.stats.recovered_share import recovered_shares


def table(**accuracies) -> pd.DataFrame:
    rows = [
        {"condition": name, "label": name.upper(), "replicate": seed, "status": "finished", "accuracy": value}
        for name, values in accuracies.items()
        for seed, value in enumerate(values)
        if value is not None
    ]
    return pd.DataFrame(rows)


def test_a_share_is_a_ratio_of_mean_gains():
    found = recovered_shares(table(none=[0.1, 0.2], half=[0.3, 0.55], intact=[0.7, 0.8], worse=[0.0, 0.0]))
    assert found["condition"].tolist() == ["half", "worse"]
    assert found["label"].tolist() == ["HALF", "WORSE"]
    assert found["estimate"].tolist() == pytest.approx([0.55 / 1.2, -0.3 / 1.2])
    assert found["n"].tolist() == [2, 2]


def test_only_replicates_that_have_all_three_count():
    found = recovered_shares(
        table(none=[0.0, 0.0, 0.0], some=[0.4, None, 0.1], intact=[0.8, 0.1, 0.4]).query("replicate != 9")
    )
    assert found.loc[0, "estimate"] == pytest.approx(0.5 / 1.2)
    assert found.loc[0, "n"] == 2
    lacking = recovered_shares(table(none=[0.0, 0.0, 0.0], some=[0.4, 0.9, 0.1], intact=[0.8, None, 0.4]))
    assert lacking.loc[0, "estimate"] == pytest.approx(0.5 / 1.2)


def test_numerator_and_denominator_are_drawn_together():
    """A condition that always has half of each replicate's gain has no spread, however the gains differ."""
    gains = np.array([0.2, 0.9, 0.5, 0.7])
    found = recovered_shares(table(none=[0.0] * 4, half=gains / 2, intact=gains))
    assert found.loc[0, ["low", "high"]].tolist() == pytest.approx([0.5, 0.5])


def test_intervals_cover_the_share():
    generator = numpy_stream(0, "coverage")
    covered = 0
    for _ in range(100):
        none, full = generator.normal(0.1, 0.01, 8), generator.normal(0.9, 0.05, 8)
        part = none + 0.4 * 0.8 + generator.normal(0, 0.1, 8)
        row = recovered_shares(table(none=none, part=part, intact=full)).iloc[0]
        covered += row["low"] <= 0.4 <= row["high"]
    assert covered >= 90


@pytest.mark.parametrize(
    ("accuracies", "words"),
    [
        ({"none": [0.1], "a": [0.2]}, "no 'intact' is there"),
        ({"intact": [0.1], "a": [0.2]}, "no 'none' is there"),
        ({"none": [0.3], "intact": [0.1], "a": [0.2]}, "gains nothing"),
    ],
)
def test_without_a_gain_there_are_no_shares(accuracies, words):
    with pytest.raises(ValueError, match=words):
        recovered_shares(table(**accuracies))

"""The trend of a gain over sizes: exact lines, what replicates share, and what is not said."""

import numpy as np
import pandas as pd
import pytest

from procpre_interp.core.seeding import numpy_stream
from procpre_interp.stats.scaling import describe_trend, gain_trend
from procpre_interp.views.plots.scale import gain_by_size

SIZES = [1e4, 1e5, 1e6, 1e7]


def rows(trend: pd.DataFrame, kind: str) -> pd.DataFrame:
    return trend.loc[trend["kind"] == kind].reset_index(drop=True)


def test_a_line_is_found_and_what_a_replicate_adds_everywhere_is_no_trend():
    shared = numpy_stream(0, "scaling").normal(0, 5, 6)
    line = 0.3 - 0.02 * np.log10(SIZES)
    trend = gain_trend(pd.DataFrame(shared[:, None] + line, columns=SIZES))
    slope = rows(trend, "slope").iloc[0]
    assert slope[["estimate", "low", "high"]].tolist() == pytest.approx([-0.02] * 3)
    assert slope["n"] == 6
    for kind in ("measured", "fitted"):
        assert rows(trend, kind)["n_parameters"].tolist() == SIZES
        assert rows(trend, kind)["estimate"].tolist() == pytest.approx((shared.mean() + line).tolist())
        assert (rows(trend, kind)["high"] - rows(trend, kind)["low"]).min() > 1


def test_sizes_that_were_read_as_text_are_numbers():
    sizes = [50_000, 100_000, 500_000, 1_000_000]
    gains = pd.DataFrame(numpy_stream(0, "text").normal(0, 1, (6, 4)), columns=sizes)
    pd.testing.assert_frame_equal(gain_trend(gains.rename(columns=str)), gain_trend(gains))
    pd.testing.assert_frame_equal(gain_trend(gains[sizes[::-1]]), gain_trend(gains))


def test_intervals_cover_the_slope():
    generator, covered = numpy_stream(0, "coverage"), 0
    for _ in range(100):
        gains = 0.1 + 0.05 * np.log10(SIZES) + generator.normal(0, 0.03, (8, 4))
        slope = rows(gain_trend(pd.DataFrame(gains, columns=SIZES)), "slope").iloc[0]
        covered += slope["low"] <= 0.05 <= slope["high"]
    assert covered >= 88


def test_only_replicates_with_all_sizes_count():
    gains = pd.DataFrame([[1.0, 2, 3, 4], [1, 2, 3, np.nan], [3, 4, 5, 6]], columns=SIZES)
    assert rows(gain_trend(gains), "measured")["n"].tolist() == [2] * 4
    with pytest.raises(ValueError, match="3 sizes; a trend wants at least 4"):
        gain_trend(gains.iloc[:, :3])
    with pytest.raises(ValueError, match="no replicate has all sizes"):
        gain_trend(gains.iloc[1:2])


def test_nothing_is_said_of_sizes_that_were_not_measured():
    trend = gain_trend(pd.DataFrame([[0.1, 0.2, 0.3, 0.4]] * 3, columns=SIZES))
    assert describe_trend(trend, unit="nats per byte") == (
        "From 10,000 to 10,000,000 parameters the gain changes by +0.100 [+0.100, +0.100] nats per byte for each "
        "factor of ten (n = 3). Nothing is said of models outside of these sizes."
    )
    single = gain_trend(pd.DataFrame([[0.1, 0.2, 0.3, 0.4]], columns=SIZES))
    assert "changes by +0.100 nats per byte for each factor of ten (n = 1)" in describe_trend(
        single, unit="nats per byte"
    )
    figure = gain_by_size(trend.assign(measure="over a fresh model"), unit="nats per byte")
    assert all(SIZES[0] <= x <= SIZES[-1] for trace in figure.data for x in trace.x)
    assert "end with them" in figure.layout.title.subtitle.text.replace("<br>", " ")

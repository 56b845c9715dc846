"""A contrast as measured, before its verdict, and the sentence that says why it has one: the same for every rule."""

import math
from dataclasses import replace

from procpre_interp.claims.claim import Contrast, Verdict, formula
from procpre_interp.claims.judged import ContrastResult, interval_level
from procpre_interp.claims.measures import Measure, measure_of
from procpre_interp.stats.resampling import Interval, IntervalMethod


def unjudged(
    contrast: Contrast, interval: Interval, method: IntervalMethod, *, missing: str, about: Measure | None
) -> ContrastResult:
    """The contrast with its interval and without a test. `about`: how people read its measure (default:
    `measure_of`)."""
    return ContrastResult(
        contrast=contrast.name,
        formula=formula(contrast),
        weights=dict(contrast.weights),
        measure=contrast.measure,
        about=about or measure_of(contrast.measure),
        predicted=contrast.predicted,
        margin=float(contrast.margin),
        estimate=interval.estimate,
        low=interval.low,
        high=interval.high,
        n=interval.n,
        missing=missing,
        p=math.nan,
        smallest_p=math.nan,
        detectable=math.nan,
        verdict=None,
        reason="not predicted",
        interval=method,
    )


def explained(row: ContrastResult, contrast: Contrast, verdict: Verdict) -> ContrastResult:
    """The contrast with its verdict, and why, in words."""
    assert contrast.predicted is not None  # what is not predicted has no verdict
    row = replace(row, verdict=verdict)
    level = interval_level(row)
    side = {
        "above": f"above {contrast.margin:+.3g}",
        "below": f"below {contrast.margin:+.3g}",
        "within": f"within +-{contrast.margin:.3g}",
    }[contrast.predicted]
    reason = {
        Verdict.SUPPORTED: f"the {level} interval lies wholly {side}",
        Verdict.REFUTED: f"the {level} interval lies wholly outside of what was predicted ({side})",
        Verdict.UNDECIDED: f"the {level} interval crosses the margin (predicted: {side})",
    }[verdict]
    return replace(row, reason=reason)

"""One contrast as text: its estimate with its interval, what was predicted, why it has its verdict."""

import math

from procpre_interp.claims.claim import Verdict
from procpre_interp.claims.judged import ContrastResult, interval_level
from procpre_interp.stats.confidence_sequence import FEWEST
from procpre_interp.stats.resampling import IntervalMethod
from procpre_interp.stats.summary import ALPHA


def bounds_text(mean: float | int, low: float | int, high: float | int, scale: float | int, form: str) -> str:
    """A mean with its interval in brackets, "95.3 [93.0, 97.1]"; the mean alone where there is none."""
    mean, low, high = (scale * value for value in (mean, low, high))
    if math.isnan(mean):
        return ""
    return f"{mean:{form}}" if math.isnan(low) else f"{mean:{form}} [{low:{form}}, {high:{form}}]"


def number(value: float | None, form: str) -> str:
    """A number as text; empty where there is none."""
    return "" if value is None or math.isnan(value) else f"{value:{form}}"


def contrast_estimate(row: ContrastResult) -> str:
    """The estimate of a contrast with its interval, accuracies in points; empty where no replicate is complete."""
    about = row.about
    if math.isnan(row.estimate):
        return ""
    return f"{bounds_text(row.estimate, row.low, row.high, about.scale, f'+{about.form}')} {about.unit}".strip()


def predicted(row: ContrastResult) -> str:
    """What was predicted of a contrast: "above +21.4"; empty for one that was only to be reported."""
    about = row.about
    margin = about.scale * row.margin
    form = about.form if about.unit in ("points", "steps") else ".3g" if 0 < abs(margin) < 0.01 else ".2f"
    if row.predicted is None:
        return ""
    return f"within +-{margin:{form}}" if row.predicted == "within" else f"{row.predicted} {margin:+{form}}"


def interval_kind(row: ContrastResult) -> str:
    """Level and method of the interval of a contrast: "95 % betting"."""
    return f"{interval_level(row)} {row.interval}"


def detectable(row: ContrastResult) -> str:
    """The distance from its margin that 80 % of studies of this size find, with its unit; empty where it is unknown."""
    about = row.about
    return "" if math.isnan(row.detectable) else f"{about.scale * row.detectable:{about.form}} {about.unit}".strip()


def broke_through(row: ContrastResult) -> str:
    """How many runs of each of its conditions broke through, with exact bounds; empty where none are counted."""
    return "; ".join(map(str, row.breakthroughs))


def why(row: ContrastResult, *, quick: bool = False) -> str:
    """Why a contrast has its verdict, in the unit of its estimate. What was stored as the reason has that of the cells,
    and is shown where it names no margin."""
    level = interval_level(row)
    side = f"{predicted(row)} {row.about.unit}".strip()
    if row.verdict == Verdict.SUPPORTED:
        return f"the {level} interval lies wholly {side}"
    if row.verdict == Verdict.REFUTED:
        return f"the {level} interval lies wholly outside of what was predicted ({side})"
    margins = {"above": [1.0], "below": [1.0], "within": [-1.0, 1.0]}.get(row.predicted or "", [])
    crosses = any(row.low <= sign * row.margin <= row.high for sign in margins)
    untested = quick or row.missing or math.isnan(row.smallest_p) or row.smallest_p > ALPHA
    if row.interval != IntervalMethod.BOOTSTRAP:
        untested = untested or row.n < FEWEST or not row.low <= row.high
    if crosses and not untested:
        return f"the {level} interval crosses the margin (predicted: {side})"
    if not untested and row.p > ALPHA:
        return f"p = {row.p:.3g} is above {ALPHA}, though the {level} interval does not cross the margin ({side})"
    return row.reason

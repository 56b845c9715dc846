"""Results as text for people: tables of strings and sentences, the same in the report and in the app."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from procpre_interp.claims.measures import measure_of
from procpre_interp.stats.summary import ALPHA, interval_note, unseen_share

READING_SURVIVAL = (
    "A curve that falls early and to 0 % means that every replicate learned soon. Where it ends above 0 %, "
    "the rest had not broken through when training stopped (censored at the limit)."
)


def question_title(asked: str, verdict: str) -> str:
    """Title of a figure: what is asked, then what its data say. A sentence that is no question is called a claim, so
    that a title asserts nothing that is open or refuted."""
    asked = " ".join(asked.split()).rstrip(".")
    return f"{asked} {verdict[:1].upper()}{verdict[1:]}" if asked.endswith("?") else f"Claim: {asked} - {verdict}"


def claim_title(claim: Mapping[str, Any]) -> str:
    """`question_title` of a judged claim."""
    return question_title(str(claim["claim"]), "a smoke test, no evidence" if claim.get("quick") else claim["verdict"])


def conditions_table(summary: pd.DataFrame, about: Mapping[str, Any]) -> pd.DataFrame:
    """The summary of conditions as text: percentages and steps, each with its interval in brackets."""
    paper, rows = about.get("paper") or {}, []
    for row in summary.to_dict("records"):
        reported = paper.get(row["condition"])
        share = {key: 100 * row[f"breakthrough_{key}"] for key in ("low", "high")}
        broke = round(row["breakthrough_share"] * row["n"])
        rows.append(
            {
                "Condition": row["label"],
                "Accuracy %": estimate(row, "accuracy", 100, ".1f"),
                **({"Paper %": "" if reported is None else f"{100 * reported:.1f}"} if paper else {}),
                "Gain, points": estimate(row, "gain", 100, "+.1f"),
                "Broke through": f"{broke} of {row['n']} [{share['low']:.0f}, {share['high']:.0f}] %",
                "Steps to breakthrough": estimate(row, "time", 1, ",.0f"),
                "Seconds": f"{row['phase1_seconds']:.0f} + {row['seconds']:.0f}",
            }
        )
        if summary["diverged"].to_numpy().any():
            rows[-1]["Diverged"] = str(row["diverged"])
    return pd.DataFrame(rows)


def explain_columns(about: Mapping[str, Any]) -> str:
    """What the columns of `conditions_table` mean, for the line below it."""
    threshold, most = about.get("threshold"), about.get("limit")
    reach = "the task's threshold" if threshold is None else f"{100 * threshold:.0f} %"
    limit = "the limit" if most is None else f"{most:,}"
    return (
        "Accuracy: share of answer tokens on the test set. Gain: over no pretraining, within replicates. "
        f"Broke through: validation accuracy reached {reach}, with the exact binomial interval of the share. "
        f"Steps to breakthrough: mean, a run without one counted as {limit} (restricted mean). "
        "Seconds: phase 1 + phase 2, a run."
    )


def estimate(row: Mapping[str, Any], name: str, scale: float | int, form: str) -> str:
    """A mean with its interval in brackets, "95.3 [93.0, 97.1]"; the mean alone where there is none."""
    mean, low, high = (scale * row[f"{name}_{key}"] for key in ("mean", "low", "high"))
    if math.isnan(mean):
        return ""
    return f"{mean:{form}}" if math.isnan(low) else f"{mean:{form}} [{low:{form}}, {high:{form}}]"


def claims_table(summary: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """Gains beside the claimed ones as text, where there is a claim; `names` are the columns that say whose."""
    lines = []
    for row in summary.loc[summary["claimed"].notna()].to_dict("records"):
        line = {title: row[column] for column, title in names.items()}
        line |= {"Accuracy %": estimate(row, "accuracy", 100, ".1f"), "Paper %": f"{100 * row['claimed']:.1f}"}
        claimed_gain = "" if math.isnan(row["claimed_gain"]) else f"{100 * row['claimed_gain']:+.1f}"
        line |= {"Gain, points": estimate(row, "gain", 100, "+.1f"), "Paper": claimed_gain}
        lines.append(line | {"n": str(row["n"]), "Verdict": row["verdict"]})
    return pd.DataFrame(lines)


def verdicts_table(claims: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Judged claims as text, one row per claim: the verdict and the primary contrast behind it."""
    lines = []
    for claim in claims:
        first = claim["contrasts"][0]
        lines.append(
            {
                "Claim": claim["claim"],
                "Verdict": claim["verdict"] + (" (quick)" if claim["quick"] else ""),
                "Primary contrast": first["contrast"],
                "Estimate": contrast_estimate(first),
                "Predicted": predicted(first),
                "n": str(first["n"]),
            }
        )
    return pd.DataFrame(lines, columns=["Claim", "Verdict", "Primary contrast", "Estimate", "Predicted", "n"])


def contrasts_table(claim: Mapping[str, Any]) -> pd.DataFrame:
    """All contrasts of a judged claim as text, the primary one first."""
    lines = []
    for row in claim["contrasts"]:
        lines.append(
            {
                "Contrast": row["contrast"] + (" (primary)" if row["primary"] else ""),
                "Estimate": contrast_estimate(row),
                "Predicted": predicted(row),
                "n": str(row["n"]),
                "p": number(row.get("p"), ".3g"),
                "smallest p": number(row.get("smallest_p"), ".3g"),
                "p, Holm": number(row.get("p_holm"), ".3g"),
                "Detectable": detectable(row),
                "Verdict": row["verdict"],
            }
        )
    return pd.DataFrame(lines)


def map_effects_table(effects: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """A transfer map as text, one row per method and player; shares in points."""
    shares = ("accuracy", "area", "breakthrough_share")
    lines = []
    for row in effects:
        scale, form, unit = (100.0, "+.1f", ", points") if row["outcome"] in shares else (1.0, "+,.4g", "")
        lines.append(
            {
                "Method": row["method"].replace("_", " "),
                "Player": row["player"],
                f"Effect on {row['outcome'].replace('_', ' ')}{unit}": with_bounds(row, scale, form),
                "n": str(row["n"]),
                "p, Holm": number(row["p_holm"], ".3g"),
                "smallest": number(row["smallest_p_holm"], ".3g"),
                "Decision": row["decision"],
            }
        )
    return pd.DataFrame(lines)


def contrast_estimate(row: Mapping[str, Any]) -> str:
    """The estimate of a contrast with its interval, accuracies in points."""
    about = measure_of(row["measure"])
    return f"{with_bounds(row, about.scale, f'+{about.form}')} {about.unit}".strip()


def with_bounds(row: Mapping[str, Any], scale: float | int, form: str) -> str:
    """Estimate, low and high of a row, of which null is NaN, as `estimate` shows them."""
    values = {"mean": row["estimate"], "low": row["low"], "high": row["high"]}
    known = {f"value_{key}": math.nan if value is None else float(value) for key, value in values.items()}
    return estimate(known, "value", scale, form)


def predicted(row: Mapping[str, Any]) -> str:
    """What was predicted of a contrast: "above +21.4"; empty for one that was only to be reported."""
    about = measure_of(row["measure"])
    margin = about.scale * row["margin"]
    form = about.form if about.unit in ("points", "steps") else ".2f"
    sides = {
        "above": f"above {margin:+{form}}",
        "below": f"below {margin:+{form}}",
        "within": f"within +-{margin:{form}}",
    }
    return sides.get(row["predicted"], "")


def detectable(row: Mapping[str, Any]) -> str:
    """The distance from its margin that 80 % of studies of this size find, with its unit; empty where it is unknown."""
    about = measure_of(row["measure"])
    distance = row.get("detectable")
    return (
        ""
        if distance is None or math.isnan(distance)
        else f"{about.scale * distance:{about.form}} {about.unit}".strip()
    )


def why(row: Mapping[str, Any], *, quick: bool = False) -> str:
    """Why a contrast has its verdict, in the unit of its estimate. What was stored as the reason has that of the cells,
    and is shown where it names no margin."""
    level = "90 %" if row["predicted"] == "within" else "95 %"
    side = f"{predicted(row)} {measure_of(row['measure']).unit}".strip()
    if row["verdict"] == "supported":
        return f"the {level} interval lies wholly {side}"
    if row["verdict"] == "refuted":
        return f"the {level} interval lies wholly outside of what was predicted ({side})"
    margins = {"above": [1.0], "below": [1.0], "within": [-1.0, 1.0]}.get(row["predicted"], [])
    low, high = (math.nan if row[key] is None else row[key] for key in ("low", "high"))
    crosses = any(low <= sign * row["margin"] <= high for sign in margins)
    untested = quick or row.get("missing") or row["smallest_p"] is None or row["smallest_p"] > ALPHA
    if crosses and not untested:
        return f"the {level} interval crosses the margin (predicted: {side})"
    if not untested and row["p"] > ALPHA:
        return f"p = {row['p']:.3g} is above {ALPHA}, though the {level} interval does not cross the margin ({side})"
    return str(row["reason"])


def number(value: float | None, form: str) -> str:
    """A number as text; empty where there is none."""
    return "" if value is None or math.isnan(value) else f"{value:{form}}"


def describe_claim(claim: Mapping[str, Any]) -> str:
    """A judged claim in a few sentences."""
    return f"{claim['name']}: {claim['verdict'].upper()}. {claim['claim']}\n{describe_evidence(claim)}"


def describe_evidence(claim: Mapping[str, Any]) -> str:
    """What a judged claim rests on, in a few sentences: for below its name, sentence and verdict."""
    first, seeds, log_rank = claim["contrasts"][0], claim["seeds"], claim["log_rank"]
    bounds = (
        "90 % interval, as two one-sided tests at 5 % want it" if first["predicted"] == "within" else "95 % interval"
    )
    lines = [
        f"Predicted: {claim['prediction']}",
        f"Measured: {first['contrast']}, {contrast_estimate(first)} ({bounds}; {why(first, quick=claim['quick'])}).",
        f"{interval_note(first['n'])}; seeds {seeds[0]} to {seeds[-1]}.",
    ]
    if first["p"] is not None:
        lines.append(
            f"p = {first['p']:.3g} against the margin; with n = {first['n']} it cannot be below "
            f"{first['smallest_p']:.3g}."
        )
        if first["detectable"] is not None:
            lines[-1] += (
                f" A study of this size finds a difference of {detectable(first)} from the margin with a probability "
                "of 80 %."
            )
        lines[-1] += (
            f" With n = {first['n']}, an outcome that occurs in up to {100 * unseen_share(first['n']):.0f} % of "
            "replicates can go unseen."
        )
    if log_rank is not None:
        lines.append(
            f"Log-rank test of time to breakthrough, {log_rank['sooner']} against {log_rank['than']}: p = "
            f"{log_rank['p']:.3g} (at best {log_rank['smallest_p']:.3g})."
        )
    return "\n".join(lines)


def describe_cost(cost: Mapping[str, Any]) -> str:
    """Cost of an experiment in words: runs, CPU-minutes, tokens; other entries as they are."""
    known = {
        "runs": lambda value: f"{value:,.0f} runs",
        "cpu_seconds": lambda value: f"{value / 60:,.1f} CPU-minutes",
        "tokens": lambda value: f"{value / 1e6:,.1f} million tokens",
    }
    return ", ".join(known[key](value) if key in known else f"{key} {value}" for key, value in cost.items())

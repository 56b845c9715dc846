"""Results as text for people: tables of strings and sentences, the same in the report and in the app."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from procpre_interp.claims.contrast_text import (
    bounds_text,
    broke_through,
    contrast_estimate,
    detectable,
    interval_kind,
    number,
    predicted,
    why,
)
from procpre_interp.claims.fairness import edge_note
from procpre_interp.claims.judged import JudgedClaim, interval_level
from procpre_interp.stats.decisions import decision_text
from procpre_interp.stats.resampling import LEVEL, IntervalMethod
from procpre_interp.stats.rows import named_rows
from procpre_interp.stats.summary import interval_note, intervals_note, unseen_share
from procpre_interp.stats.transfer_map import OUTCOMES
from procpre_interp.store.about import About

READING_SURVIVAL = (
    "A curve that falls early and to 0 % means that every replicate learned soon. Where it ends above 0 %, "
    "the rest had not broken through when training stopped (censored at the limit)."
)


def question_title(asked: str, verdict: str) -> str:
    """Title of a figure: what is asked, then what its data say. A sentence that is no question is called a claim, so
    that a title asserts nothing that is open or refuted."""
    asked = " ".join(asked.split()).rstrip(".")
    return f"{asked} {verdict[:1].upper()}{verdict[1:]}" if asked.endswith("?") else f"Claim: {asked} - {verdict}"


def claim_title(claim: JudgedClaim) -> str:
    """`question_title` of a judged claim."""
    return question_title(claim.claim, "a smoke test, no evidence" if claim.quick else claim.verdict)


def conditions_table(summary: pd.DataFrame, about: About) -> pd.DataFrame:
    """The summary of conditions as text: percentages and steps, each with its interval in brackets."""
    rows, diverged = [], (summary["diverged"] > 0).to_numpy().any()
    compared = summary.loc[summary["gain_mean"].notna()]
    fewer = (compared["gain_n"] < compared["n"]).to_numpy().any()
    for row in named_rows(summary):
        reported = about.paper.get(row.condition)
        broke = round(row.breakthrough_share * row.n)
        within = f"[{100 * row.breakthrough_low:.0f}, {100 * row.breakthrough_high:.0f}] %"
        line = {
            "Condition": row.label,
            "Accuracy %": bounds_text(row.accuracy_mean, row.accuracy_low, row.accuracy_high, 100, ".1f"),
            **({"Paper %": "" if reported is None else f"{100 * reported:.1f}"} if about.paper else {}),
            "Gain, points": bounds_text(row.gain_mean, row.gain_low, row.gain_high, 100, "+.1f"),
            **({"Pairs": str(row.gain_n or "")} if fewer else {}),
            **(_losses(row) if "loss_mean" in summary else {}),
            "Broke through": f"{broke} of {row.n} {within}",
            "Steps to breakthrough": bounds_text(row.time_mean, row.time_low, row.time_high, 1, ",.0f"),
            **({"Epochs of text": f"{row.epochs:.3g}"} if "epochs" in summary else {}),
            **chain_columns(row, summary),
        }
        rows.append(line | ({"Diverged": str(row.diverged)} if diverged else {}))
    return pd.DataFrame(rows)


def chain_columns(row: Any, summary: pd.DataFrame) -> dict[str, str]:
    """What a condition took: seconds, and compute where it was counted, of both phases; of longer chains of phases
    accuracy at the end of phase 2, and tokens, compute and seconds of all phases together."""
    if "total_tokens" not in summary:
        compute = {"TeraFLOPs": f"{row.phase1_teraflops:.3g} + {row.teraflops:.3g}"} if "teraflops" in summary else {}
        return {"Seconds": f"{row.phase1_seconds:.0f} + {row.seconds:.0f}", **compute}
    followed = summary["phase2_accuracy"].notna().to_numpy().any()
    return {
        **({"After phase 2, %": bounds_text(row.phase2_accuracy, math.nan, math.nan, 100, ".1f")} if followed else {}),
        "Million tokens, all phases": f"{row.total_tokens / 1e6:,.3g}",
        "TeraFLOPs, all phases": number(row.total_teraflops, ",.3g"),
        "Seconds, all phases": f"{row.total_seconds:,.0f}",
    }


def _losses(row: Any) -> dict[str, str]:
    """The test loss of a condition on text, and what it changes."""
    change = bounds_text(row.loss_change_mean, row.loss_change_low, row.loss_change_high, 1, "+.4f")
    return {"Loss, nats": bounds_text(row.loss_mean, row.loss_low, row.loss_high, 1, ".4f"), "Change, nats": change}


def explain_intervals(summary: pd.DataFrame) -> str:
    """What the intervals of `conditions_table` are, for the line below it."""
    return f"Intervals: {intervals_note(summary['n'], 'under Broke through')}."


def explain_columns(about: About) -> str:
    """What the columns of `conditions_table` mean, for the line below it."""
    reach = "the task's threshold" if about.threshold is None else f"{100 * about.threshold:.0f} %"
    limit = "the limit" if about.limit is None else f"{about.limit:,}"
    return (
        "Accuracy: share of answer tokens on the test set. Gain: over no pretraining, within replicates. "
        "Pairs, where runs diverged: how many replicates have both. "
        f"Broke through: validation accuracy reached {reach}, with the exact binomial interval of the share. "
        f"Steps to breakthrough: mean, a run without one counted as {limit} (restricted mean). "
        "Seconds, and teraFLOPs where they are counted: phase 1 + phase 2, or all phases together, a run."
    )


def claims_table(summary: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """Gains beside the claimed ones as text, where there is a claim; `names` are the columns that say whose."""
    rows = summary.loc[summary["claimed"].notna()]
    lines = rows[list(names)].rename(columns=dict(names)).reset_index(drop=True)
    about = [
        {
            "Accuracy %": bounds_text(row.accuracy_mean, row.accuracy_low, row.accuracy_high, 100, ".1f"),
            "Paper %": f"{100 * row.claimed:.1f}",
            "Gain, points": bounds_text(row.gain_mean, row.gain_low, row.gain_high, 100, "+.1f"),
            "Paper": "" if math.isnan(row.claimed_gain) else f"{100 * row.claimed_gain:+.1f}",
            "n": str(row.n),
            "Verdict": row.verdict,
        }
        for row in named_rows(rows)
    ]
    return lines.join(pd.DataFrame(about))


def verdicts_table(claims: Sequence[JudgedClaim]) -> pd.DataFrame:
    """Judged claims as text, one row per claim: the verdict and the primary contrast behind it."""
    lines = [
        {
            "Claim": claim.claim,
            "Verdict": claim.verdict + (" (quick)" if claim.quick else ""),
            "Primary contrast": claim.primary.contrast,
            "Estimate": contrast_estimate(claim.primary),
            "Predicted": predicted(claim.primary),
            "n": str(claim.primary.n),
            "Interval": interval_kind(claim.primary),
        }
        for claim in claims
    ]
    columns = ["Claim", "Verdict", "Primary contrast", "Estimate", "Predicted", "n", "Interval"]
    return pd.DataFrame(lines, columns=columns)


def contrasts_table(claim: JudgedClaim) -> pd.DataFrame:
    """All contrasts of a judged claim as text, the primary one first."""
    table = pd.DataFrame(
        [
            {
                "Contrast": row.contrast + (" (primary)" if row.primary else ""),
                "Estimate": contrast_estimate(row),
                "Predicted": predicted(row),
                "n": str(row.n),
                "Interval": interval_kind(row),
                "p": number(row.p, ".3g"),
                "smallest p": number(row.smallest_p, ".3g"),
                "p, Holm": number(row.p_holm, ".3g"),
                "Detectable": detectable(row),
                "Broke through": broke_through(row),
                "p, exact": number(row.breakthrough_p, ".3g"),
                "Verdict": row.verdict or "",
            }
            for row in claim.contrasts
        ]
    )
    # Which of these there are depends on the rule.
    empty = [name for name in ("Detectable", "Broke through", "p, exact") if set(table[name]) == {""}]
    return table.drop(columns=empty)


def map_effects_table(effects: pd.DataFrame) -> pd.DataFrame:
    """A transfer map as text, one row per method and player; shares in points."""
    numbers = [name for name in ("estimate", "low", "high", "p_holm", "smallest_p_holm") if name in effects]
    lines = []
    for row in named_rows(effects.astype(dict.fromkeys(numbers, float))):
        lines.append(
            {
                "Method": row.method.replace("_", " "),
                "Player": row.player,
                **_effect(row, "Effect on"),
                "n": str(row.n),
                "p, Holm": number(row.p_holm, ".3g"),
                "smallest": number(row.smallest_p_holm, ".3g"),
                # Tables of older versions have the reason in the decision itself.
                "Decision": decision_text(row.decision, getattr(row, "undecided_reason", "")),
            }
        )
    return pd.DataFrame(lines)


def map_interactions_table(table: pd.DataFrame) -> pd.DataFrame:
    """The interactions of a transfer map as text, one row per pair; shares in points."""
    lines = []
    for row in named_rows(table):
        lines.append(
            {
                "Pair": f"{row.player} with {row.other}",
                **_effect(row, "Interaction,"),
                "n": str(row.n),
                "p, Holm": number(row.p_holm, ".3g"),
                "Decision": decision_text(row.decision, row.undecided_reason),
            }
        )
    return pd.DataFrame(lines)


def _effect(row: Any, what: str) -> dict[str, str]:
    """The column of an effect with its bounds, by its title; shares in points."""
    about = OUTCOMES[row.outcome]
    unit, form = (", points", "+.1f") if about.is_share else ("", "+,.4g")
    title = f"{what} {row.outcome.replace('_', ' ')}{unit}"
    return {title: bounds_text(row.estimate, row.low, row.high, about.scale, form)}


def describe_claim(claim: JudgedClaim) -> str:
    """A judged claim in a few sentences."""
    return f"{claim.name}: {claim.verdict.upper()}. {claim.claim}\n{describe_evidence(claim)}"


def describe_evidence(claim: JudgedClaim) -> str:
    """What a judged claim rests on, in a few sentences: for below its name, sentence and verdict."""
    first, log_rank = claim.primary, claim.log_rank
    bounds = f"{interval_level(first)} interval"
    if first.level < LEVEL:
        bounds += ", as two one-sided tests at 5 % want it"
    lines = [
        f"Predicted: {claim.prediction}",
        f"Measured: {first.contrast}, {contrast_estimate(first)} ({bounds}; {why(first, quick=claim.quick)}).",
        f"{interval_note(first.n, first.interval, first.level)}; seeds {claim.seeds[0]} to {claim.seeds[-1]}.",
    ]
    if not math.isnan(first.p):
        lines.append(
            f"p = {first.p:.3g} against the margin; with n = {first.n} it cannot be below {first.smallest_p:.3g}."
        )
        if not math.isnan(first.detectable):
            lines[-1] += (
                f" A study of this size finds a difference of {detectable(first)} from the margin with a probability "
                "of 80 %."
            )
        if first.interval == IntervalMethod.BOOTSTRAP:
            lines[-1] += (
                f" With n = {first.n}, an outcome that occurs in up to {100 * unseen_share(first.n):.0f} % of "
                "replicates can go unseen."
            )
    if first.breakthroughs:
        exact = "" if math.isnan(first.breakthrough_p) else f"; Boschloo's exact test: p = {first.breakthrough_p:.3g}"
        lines.append(f"Broke through, with exact 95 % intervals: {broke_through(first)}{exact}.")
    if log_rank is not None and log_rank.smallest_p < 1:
        lines.append(
            f"Log-rank test of time to breakthrough, {log_rank.sooner} against {log_rank.than}: p = "
            f"{log_rank.p:.3g} (at best {log_rank.smallest_p:.3g})."
        )
    if note := edge_note(claim.tables):
        lines.append(note)
    lines += [
        f"Earlier: {each.verdict} by version {each.rule_version} of the rule, n = {each.n}, {each.interval} interval"
        + ("." if each.version == claim.version else f", on version {each.version} of its declaration.")
        for each in claim.earlier
    ]
    return "\n".join(lines)


def describe_cost(cost: Mapping[str, float | int]) -> str:
    """Cost of an experiment in words: runs, CPU-minutes, tokens; other entries as they are."""
    known: dict[str, Callable[[float], str]] = {
        "runs": lambda value: f"{value:,.0f} runs",
        "cpu_seconds": lambda value: f"{value / 60:,.1f} CPU-minutes",
        "tokens": lambda value: f"{value / 1e6:,.1f} million tokens",
        "teraflops": lambda value: f"{value:,.3g} teraFLOPs",
    }
    return ", ".join(known[key](value) if key in known else f"{key} {value}" for key, value in cost.items())

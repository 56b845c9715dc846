"""The page of findings as Markdown: tables made from claim files and stored results, between hand-written conclusions.

A page marks where its tables belong (`views.markdown`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from procpre_interp.claims.contrast_text import (
    bounds_text,
    broke_through,
    contrast_estimate,
    detectable,
    number,
    predicted,
)
from procpre_interp.claims.judged import JudgedClaim, interval_level
from procpre_interp.claims.text import claims_table, conditions_table, map_interactions_table
from procpre_interp.core.messages import unknown_name
from procpre_interp.stats.decisions import Decision
from procpre_interp.stats.map_outcomes import OUTCOMES
from procpre_interp.stats.paper_comparison import of_older_version
from procpre_interp.stats.resampling import IntervalMethod
from procpre_interp.stats.rows import named_rows
from procpre_interp.stats.summary import summarise_conditions
from procpre_interp.store.about import About
from procpre_interp.views.markdown import fill, markdown_table

_METHODS = {"add_one_in": "added alone", "leave_one_out": "taken from everything", "shapley": "Shapley value"}
_SHORT = ["Condition", "Accuracy %", "Paper %", "Gain, points", "Broke through", "Steps to breakthrough"]


def refresh(page: str, claims: Mapping[str, JudgedClaim], results: Path, about: About) -> str:
    """The page with every marked table made anew from the claims and from the CSV files in `results`.

    `about` is what `conditions_table` has to know of the reproduction: the paper's accuracies, limit and threshold.
    Raises `ValueError` for a marker that asks for something else, or for a claim that is not there.
    """
    makers = {
        "claims": lambda names: verdicts(names, claims),
        "reproduce": lambda _: reproduction(results / "reproduce_paper.csv", about),
        "reproduce_cheap": lambda _: reproduction(results / "reproduce_cheap.csv", about),
        "table1": lambda _: table1(results / "table1_summary.csv"),
        "table1_paper": lambda _: table1(results / "table1_paper_summary.csv"),
        "map": lambda names: transfer_map(results / f"{' '.join(names)}_map.csv"),
        "interactions": lambda names: interactions(results / f"{' '.join(names)}_interactions.csv"),
    }

    def make(marker: str) -> str:
        kind, *names = marker.split()
        if kind not in makers:
            raise unknown_name("table of findings", kind, list(makers))
        return markdown_table(makers[kind](names))

    return fill(page, make)


def verdicts(names: Sequence[str], claims: Mapping[str, JudgedClaim]) -> pd.DataFrame:
    """One row per claim, linked to its script: the primary contrast, what was predicted of it, n and the verdict; and
    where any claim has them, the distance from the margin that a sequence finds in 80 % of studies of this size, and
    how many runs broke through, with exact bounds and, of a pair, the p of Boschloo's test."""
    rows = []
    for name in names:
        if name not in claims:
            raise unknown_name("claim", name, list(claims))
        claim, first = claims[name], claims[name].primary
        # 95 % bootstrap intervals go without saying: until version 2 of the rule there were no others.
        said = [level for level in [interval_level(first)] if level != "95 %"]
        said += [method for method in [first.interval] if method != IntervalMethod.BOOTSTRAP]
        exact = number(first.breakthrough_p, ".1g")
        estimate = contrast_estimate(first)  # empty without a complete replicate
        rows.append(
            {
                "Claim": f"[{claim.claim}]({name}.py)",
                "Primary contrast": first.contrast,
                "Estimate": estimate + (f" ({', '.join(said)})" if estimate and said else ""),
                "Predicted": predicted(first),
                # The bootstrap's is of a fixed n, and another number.
                "Detectable": detectable(first) if first.interval == IntervalMethod.T_MIXTURE else "",
                "Broke through": broke_through(first) + (f"; p = {exact}" if exact else ""),
                "n": first.n,
                "Verdict": f"**{claim.verdict}**" if claim.is_decided else str(claim.verdict),
            }
        )
    table = pd.DataFrame(rows)
    return table.drop(columns=[name for name in ("Detectable", "Broke through") if not any(table[name])])


def reproduction(cells: Path, about: About) -> pd.DataFrame:
    """The conditions of the reproduction beside the paper's numbers."""
    return conditions_table(summarise_conditions(pd.read_csv(cells)), about).loc[:, _SHORT]


def table1(summary: Path) -> pd.DataFrame:
    """Gains on the diagnostic tasks beside the paper's, where it gives a number."""
    rows = of_older_version(pd.read_csv(summary, keep_default_na=False, na_values=[""]))
    rows = rows.rename(columns={"paper": "claimed", "paper_gain": "claimed_gain"}).fillna(
        {"transfer": "", "verdict": ""}
    )
    named = zip(rows["phase1"], rows["transfer"])
    rows["start"] = [f"{phase1}, {transfer}" if transfer else phase1 for phase1, transfer in named]
    return claims_table(rows, {"task": "Task", "start": "Phase 1, transfer"})


def transfer_map(effects: Path) -> pd.DataFrame:
    """Effects on accuracy in points, or on the outcome that the file has: a row per player, a column per method, what
    is decided in bold."""
    table = pd.read_csv(effects)
    outcome = "accuracy" if "accuracy" in set(table["outcome"]) else table["outcome"].iloc[0]
    table = table.loc[table["outcome"] == outcome]
    scale, form = OUTCOMES[outcome].scale, "+.1f" if OUTCOMES[outcome].is_share else "+.3f"
    text = [
        f"**{shown}**" if row.decision == Decision.SIGNIFICANT else shown
        for row in named_rows(table)
        for shown in [bounds_text(row.estimate, row.low, row.high, scale, form)]
    ]
    wide = table.assign(text=text).pivot(index="player", columns="method", values="text")
    return (
        wide.loc[list(dict.fromkeys(table["player"])), list(_METHODS)]
        .rename(columns=_METHODS)
        .rename_axis("Player")
        .reset_index()
    )


def interactions(pairs_of_players: Path) -> pd.DataFrame:
    """Shapley interactions of a map, a row per pair."""
    table = pd.read_csv(pairs_of_players, dtype={"undecided_reason": "str"})
    return map_interactions_table(table.fillna({"undecided_reason": ""}))

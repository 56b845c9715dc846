"""What a claim on text needs before it is decided: the control arms of a fair sweep, and a phase 1 that was learnt.

On text a gain is soon had: from the sizes of the weights, from any further text, or from a learning rate that suited
one arm better. So a contrast with a transfer is left undecided, whatever its interval says, unless each of its
transfers stands beside a fresh model, a fresh one of its scales, natural text of its budget and its own sequences
shuffled, all of them tuned alike (`sweep.fair`), and its phase 1 passed its gate in every replicate.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from procpre_interp.claims.claim import Verdict
from procpre_interp.claims.judged import ContrastResult

TEXT = "text"
"""Name of the task that predicts real text."""
FRESH, TRANSFER = "fresh", "transfer"
CONTROLS = ("scales", "natural text", "shuffled sequences")
"""Arms that belong to a transfer, as the column `arm` has them."""
TUNING = "tuning"
"""Name of a claim's table of what its arms were tuned to, `sweep.fair.choices`."""


def is_on_text(task: str | None, table: pd.DataFrame) -> bool:
    """Whether runs were trained on real text: by the name of their task, or, where that is made of text (noisy, a
    mixture), by the epochs that only runs on text have."""
    return task == TEXT or ("epochs" in table and bool(table["epochs"].notna().to_numpy().any()))


def hold_back(contrasts: Sequence[ContrastResult], table: pd.DataFrame, task: str | None) -> tuple[ContrastResult, ...]:
    """The contrasts of a claim, those on text undecided that lack what they need."""
    held = []
    for row in contrasts:
        lacking = unfair(row, table, task) if row.is_decided else ""
        held.append(replace(row, verdict=Verdict.UNDECIDED, reason=lacking) if lacking else row)
    return tuple(held)


def unfair(row: ContrastResult, table: pd.DataFrame, task: str | None) -> str:
    """Why a contrast of these cells cannot be decided, whatever its interval says; "" if it can, as all that are not on
    text."""
    return what_it_lacks(list(row.weights), table) if is_on_text(task, table) else ""


def what_it_lacks(conditions: Sequence[str], table: pd.DataFrame) -> str:
    """Why a contrast of these conditions cannot be decided on this table of a text; "" if it can."""
    if "arm" not in table or "phase1_learnt" not in table:
        return f"on text it needs the arms of a fair sweep ({', '.join((FRESH, *CONTROLS))}), and its sweep has none"
    finished = table.loc[table["status"] == "finished"]
    named = table.loc[table["condition"].isin(list(conditions))]
    if named["arm"].isna().any():  # what is observed of several runs, whichever these are
        named = table
    transfers = [
        *named.loc[named["arm"] == TRANSFER, "condition"],
        *named.loc[named["control_of"].fillna("") != "", "control_of"],
    ]
    for transfer in dict.fromkeys(transfers):
        rows = finished.loc[finished["condition"] == transfer]
        of_it = finished.loc[finished["control_of"] == transfer]
        fresh = finished["arm"] == FRESH
        if "fresh_arm" in table:  # not so in tables of sweeps on one text, before there were others
            fresh = finished["condition"].isin(set(rows["fresh_arm"]))
        arms = {FRESH: finished.loc[fresh]}
        arms |= {arm: of_it.loc[of_it["arm"] == arm] for arm in CONTROLS}
        for arm, there in arms.items():
            if missing := set(rows["replicate"]) - set(there["replicate"]):
                n = len(set(rows["replicate"]))
                return f"the arm {arm!r} of {transfer!r} is missing in {len(missing)} of {n} replicates"
        # That of a control, which is a run of its own where phase 1 is in the middle of phase 2, counts as well.
        with_controls = pd.concat([rows, of_it])
        missed = with_controls.loc[~with_controls["phase1_learnt"].eq(True), "replicate"].nunique()
        if missed:
            n = with_controls["replicate"].nunique()
            return f"phase 1 of {transfer!r} missed its gate in {missed} of {n} replicates"
    return ""


def edge_note(tables: Mapping[str, pd.DataFrame]) -> str:
    """Which arms were best at the edge of what was tried, by a claim's tables, in a sentence; "" where none was."""
    tuning = tables.get(TUNING)
    if tuning is None or "at_edge" not in tuning:
        return ""
    at_edge = tuning.loc[tuning["at_edge"].fillna("") != ""]
    found = []
    for row in at_edge.to_dict("records"):
        values = ", ".join(f"{name} {row[name]:g}".replace("_", " ") for name in row["at_edge"].split())
        found.append(f"{row['arm']} ({values})")
    if not found:
        return ""
    return f"Best at the edge of what was tried, so that a better value may lie beyond: {'; '.join(found)}."

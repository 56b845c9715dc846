"""What each condition of a table is compared with: no pretraining, on the same data."""

from collections.abc import Mapping

import pandas as pd

BASELINE = "none"
"""Name of the condition without phase 1 on a sweep's own task, which every sweep has."""


def baselines(table: pd.DataFrame, baseline: str = BASELINE) -> dict[str, str]:
    """Condition -> the one that it is compared with, without those for which the table has none, and baselines.

    A table whose conditions are trained on several tasks or texts says in `fresh_arm` which one has no phase 1 and is
    trained on the same, empty where none is. In any other table that is `baseline`, and so it is where another is
    asked for.
    """
    named = list(dict.fromkeys(table["condition"]))
    if baseline != BASELINE or "fresh_arm" not in table:
        found = dict.fromkeys(named, baseline)
    else:
        found = dict(zip(table["condition"], table["fresh_arm"]))
    return {condition: found[condition] for condition in named if found[condition] in {*named} - {condition}}


def compared_with(table: pd.DataFrame) -> set[str]:
    """The conditions that others are compared with, and which therefore have no gain of their own."""
    return {BASELINE} | set(table.reindex(columns=["fresh_arm"])["fresh_arm"].dropna())


def changes(values: pd.DataFrame, bases: Mapping[str, str]) -> pd.DataFrame:
    """Each condition's values less those of what it is compared with: replicates x conditions, as `values` is."""
    return values.loc[:, list(bases)] - values.loc[:, list(bases.values())].to_numpy()

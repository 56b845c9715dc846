"""What runs hold: their curves over one another, their numbers and files, and where their weights come from."""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from procpre_interp.store.run import Run
from procpre_interp.store.store import RunStore, load_histories
from procpre_interp.views.exhibits.exhibit import Exhibit
from procpre_interp.views.exhibits.results import QUANTITIES
from procpre_interp.views.exhibits.runs import name
from procpre_interp.views.plots.curves import learning_curves
from procpre_interp.views.plots.theme import OTHERS

MOST_COMPARED = len(OTHERS)
"""Runs over one another: as many as there are colours to tell them apart."""

SHARES = ("accuracy", "exact_match", "prompt_overlap", "answers_right")


def histories(runs: Sequence[Run], store: RunStore) -> tuple[pd.DataFrame, list[str]]:
    """The evaluations of runs, each a condition of its own; then a line for each whose history is damaged."""
    rows = [{"condition": run.id, "label": name(run.id, run.summary), "replicate": 0, "run": run.id} for run in runs]
    return load_histories(store, pd.DataFrame(rows, columns=["condition", "label", "replicate", "run"]))


def measured(evaluations: pd.DataFrame) -> list[str]:
    """The quantities that `curves` can draw of these evaluations."""
    whole = evaluations.loc[evaluations["split"] == "validation"]
    return [column for column in QUANTITIES if column in whole and whole[column].notna().to_numpy().any()]


def curves(evaluations: pd.DataFrame, quantity: str = "accuracy") -> Exhibit:
    """A validation quantity over training, one line per run of `histories`. Raises `ValueError` where there is none."""
    if quantity not in (known := measured(evaluations)):
        raise ValueError(f"no evaluations of {quantity} in these runs; there are: {', '.join(known) or 'none'}")
    drawn = evaluations.loc[evaluations[quantity].notna()]
    return Exhibit(
        name=f"run_{quantity}",
        figure=learning_curves(drawn, quantity, title=QUANTITIES[quantity]),
        reading="One line is one run: compare conditions over replicates, not runs.",
        table=evaluations.drop(columns=["condition", "replicate"]),
    )


def numbers(runs: Sequence[Run]) -> pd.DataFrame:
    """The runs' summaries as text, one row per field, one column per run; shares in %."""
    shown = {run.id: {**run.summary, "kept steps": ", ".join(f"{step:,}" for step in run.steps)} for run in runs}
    fields = [field for field in dict.fromkeys(key for row in shown.values() for key in row) if field != "run"]
    rows = [{"field": field, **{run: _text(field, row.get(field)) for run, row in shown.items()}} for field in fields]
    return pd.DataFrame(rows, columns=["field", *shown])


def stored_files(runs: Sequence[Run]) -> pd.DataFrame:
    """One row per file of the runs and its size in bytes."""
    rows = [[run.id, file, entry["bytes"]] for run in runs for file, entry in run.manifest.items()]
    return pd.DataFrame(rows, columns=["run", "file", "bytes"])


def _text(field: str, value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if field in SHARES:
        return f"{value:.1%}"
    if isinstance(value, int):
        return str(value) if field == "seed" else f"{value:,}"
    return f"{value:,.4g}"

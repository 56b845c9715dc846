"""Tables that a claim keeps beside its verdict: what else is computed from its cells and its runs."""

from collections.abc import Callable, Mapping

import pandas as pd

from procpre_interp.claims.fairness import TUNING
from procpre_interp.core.selectors import added_terms, place
from procpre_interp.stats.recovered_share import recovered_shares
from procpre_interp.store.store import RunStore
from procpre_interp.sweep.fair import Tuned, choices

Tables = Mapping[str, pd.DataFrame]
"""What else is computed from table and runs: name -> table."""
Extra = Callable[[pd.DataFrame, RunStore], Tables]
"""Computes them, to be kept beside the verdict."""


def no_tables(table: pd.DataFrame, store: RunStore) -> Tables:
    """The choice of a claim that needs nothing else."""
    return {}


def tuned_to(tuned: Tuned | None) -> Tables:
    """What each arm of a fair sweep was tuned to; nothing of another sweep."""
    return {} if tuned is None else {TUNING: choices(tuned.trials)}


def recovered(table: pd.DataFrame, store: RunStore) -> Tables:
    """A choice for `Experiment.extra`: the share of the gain of the condition `intact` that each condition has."""
    return {"recovered": recovered_shares(table)}


def layers_of_heads(table: pd.DataFrame, store: RunStore) -> Tables:
    """Which layers the transferred heads are of, for every finished run that names heads one by one."""
    rows = []
    for cell in table.loc[(table["status"] == "finished") & (table["run"] != "")].to_dict("records"):
        selectors = [parent.get("selector", "all") for parent in store.open(cell["run"]).config.get("parents", [])]
        heads = [place(term) for selector in selectors for term in added_terms(selector)]
        if layers := sorted({each.layer for each in heads if each.head is not None and each.layer is not None}):
            row = {key: cell[key] for key in ("condition", "replicate", "run", "accuracy", "breakthrough_step")}
            rows.append({**row, "layers": layers})
    return {"layers_of_heads": pd.DataFrame(rows)}

"""Which parts need one another, and which replace one another? Shapley interactions of a transfer map."""

import pandas as pd

from procpre_interp.claims.text import question_title
from procpre_interp.stats.decisions import Decision
from procpre_interp.stats.interactions import are_known, interaction_table
from procpre_interp.stats.rows import named_rows
from procpre_interp.stats.transfer_map import OUTCOMES
from procpre_interp.views.exhibits.exhibit import Exhibit
from procpre_interp.views.exhibits.where import TransferMap
from procpre_interp.views.plots.interactions import interaction_heatmap

MOST_NAMED = 3
"""Pairs that a title names."""


def interactions(found: TransferMap, outcome: str | None = None) -> pd.DataFrame | None:
    """The interactions of a map's parts, as `interaction_table` gives them; None where no replicate has what they
    need."""
    if not are_known(found.players, found.methods, found.sampling):
        return None
    try:
        return interaction_table(found.rows, found.players, outcome or found.outcome, sampling=found.sampling)
    except ValueError:  # no complete replicate
        return None


def heatmap(table: pd.DataFrame, values: pd.DataFrame) -> Exhibit:
    """Interactions with the values beside them: on the diagonal what each part is worth, as `where.effects` says."""
    outcome = str(table["outcome"].iloc[0])
    better = OUTCOMES[outcome].higher_is_better
    decided = table.loc[table["decision"] == Decision.SIGNIFICANT]
    largest = decided.reindex(decided["estimate"].abs().sort_values(ascending=False).index)
    named = [f"{row.player} with {row.other}" for row in named_rows(largest)]
    more = f" and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
    verdict = f"Decided: {', '.join(named[:MOST_NAMED])}{more}" if named else "No pair is decided"
    question = f"Which parts need one another for {outcome.replace('_', ' ')}?"
    together, apart = ("Blue", "red") if better else ("Red", "blue")
    return Exhibit(
        name="transfer_pairs",
        figure=interaction_heatmap(table, values, title=question_title(question, verdict)),
        reading="A cell off the diagonal is a pair, averaged over all sets of other parts. "
        f"{together}: the two are worth more together than apart, so they need one another; {apart}: less, so that one "
        "does what the other does. The diagonal is what each part is worth by itself, its Shapley value. Decisions on "
        "pairs are adjusted for the number of pairs (Holm).",
        table=table,
    )

"""How many tokens and how much compute does phase 1 save? From a stored table and the curves of its runs."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from procpre_interp.claims.contrast_text import bounds_text
from procpre_interp.claims.text import question_title
from procpre_interp.stats.rows import named_rows
from procpre_interp.stats.savings import SHARES, replicate_savings, summarise_savings
from procpre_interp.stats.summary import intervals_note
from procpre_interp.views.exhibits.exhibit import Exhibit
from procpre_interp.views.exhibits.results import Results
from procpre_interp.views.plots.savings import saved_against_spent, savings_by_condition

READING = (
    "A run saves what it does not need of the budget of no pretraining to reach its final validation loss, "
    "within a replicate. Counting phase 1 too, a share below 0 says that both phases together took more."
)
NOTE = (
    "A run that never reached that loss counts with its whole budget, so that it saves nothing: where not all of them "
    "reached it, the savings are at most these. Between evaluations the loss is interpolated in the logarithm of the "
    "tokens. A schedule that ends at zero is laid out over all tokens, so a run planned for fewer would have got "
    "there sooner: it is rather too little that is saved here. Where all replicates of a condition are alike, its "
    "bounds are those of what so few can have missed, since another one may save or lose a whole budget."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Savings:
    """What the conditions of a table save, by replicate and on average."""

    replicates: pd.DataFrame
    """`stats.savings.replicate_savings`."""
    summary: pd.DataFrame
    """`stats.savings.summarise_savings` of it."""

    @property
    def note(self) -> str:
        """What its intervals are, and how it was counted."""
        return f"Intervals: {intervals_note(self.summary['n'], 'in the table')}. {NOTE}"


def savings(results: Results, baseline: str = "none") -> Savings:
    """What each condition saves against the baseline.

    Raises `ValueError` where no replicate has curves of both a condition and the baseline, or runs have more phases
    than two.
    """
    if "phase2_run" in results.table and (results.table["phase2_run"].fillna("") != "").to_numpy().any():
        raise ValueError(
            f"runs of {results.name} have more phases than two, of which savings count phase 1 and the last"
        )
    table = results.table.loc[results.table["status"] != "failed"]
    lacking = [name for name in ("tokens", "loss_nats") if name not in results.histories or name not in table]
    if lacking:
        raise ValueError(f"the runs of {results.name} have no {' and no '.join(lacking)}, so nothing can be counted")
    found = replicate_savings(table, results.histories, baseline=baseline)
    if found.empty:
        raise ValueError(f"no replicate of {results.name} has curves of {baseline!r} and of another condition")
    return Savings(replicates=found, summary=summarise_savings(found))


def by_condition(found: Savings) -> Exhibit:
    """Tokens and compute saved by each condition."""
    better = [row.label for row in named_rows(found.summary) if row.compute_saved_low > 0]
    verdict = f"So say the intervals of {_listed(better)}" if better else "No interval says so, phase 1 counted"
    return Exhibit(
        name="savings",
        figure=savings_by_condition(found.summary, title=question_title("Does phase 1 save compute?", verdict)),
        reading=READING,
        table=found.replicates,
        notes=(NOTE,),
    )


def against_spent(found: Savings) -> Exhibit:
    """Tokens saved in phase 2 against tokens spent in phase 1."""
    paid = [row.label for row in named_rows(found.summary) if row.tokens_saved_low > 0]
    verdict = f"So say the intervals of {_listed(paid)}" if paid else "No interval says so"
    asked = "Does phase 1 save more tokens than it takes?"
    return Exhibit(
        name="saved_and_spent",
        figure=saved_against_spent(found.summary, title=question_title(asked, verdict)),
        reading="Above the dashed line, a phase 1 of so many tokens saved more of them than it took.",
        table=found.summary,
    )


def as_text(found: Savings) -> pd.DataFrame:
    """The summary for people, one row per condition: shares in percent, the change of the loss in nats."""
    lines = []
    for row in named_rows(found.summary):
        line = {"Condition": row.label, "n": str(row.n), "Reached the loss": f"{row.reached} of {row.n}"}
        for name, said in SHARES.items():
            at_most = "at most " if row.reached < row.n else ""
            line[f"Saved, % of {said}"] = at_most + _of(row, name, 100, "+.1f")
        line["Change of test loss, nats"] = _of(row, "loss_change_nats", 1, "+.4f")
        line["Phase 1, % of tokens"] = f"{100 * row.phase1_tokens_share_mean:.1f}"
        line["Phase 1, % of compute"] = f"{100 * row.phase1_compute_share_mean:.1f}"
        lines.append(line)
    return pd.DataFrame(lines)


def _of(row: object, name: str, scale: float | int, form: str) -> str:
    mean, low, high = (float(getattr(row, f"{name}_{part}")) for part in ("mean", "low", "high"))
    return bounds_text(mean, low, high, scale, form)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

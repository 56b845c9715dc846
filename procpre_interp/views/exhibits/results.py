"""Did transfer help? Accuracy, learning, time to breakthrough and cost by condition, from one stored table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import pandas as pd

from procpre_interp.claims.compared import trained
from procpre_interp.claims.fairness import is_on_text
from procpre_interp.claims.files import PREFIX
from procpre_interp.claims.text import READING_SURVIVAL, explain_columns, explain_intervals, question_title
from procpre_interp.stats.baselines import compared_with
from procpre_interp.stats.rows import named_rows
from procpre_interp.stats.summary import summarise_conditions
from procpre_interp.stats.survival import survival_curve
from procpre_interp.store.about import About, about_table
from procpre_interp.store.store import RunStore, load_histories
from procpre_interp.views.exhibits.exhibit import Answer, Exhibit
from procpre_interp.views.plots.curves import accuracy_by_condition, learning_curves, survival_curves

QUANTITIES = {
    "accuracy": "Accuracy",
    "exact_match": "Exact match",
    "loss_nats": "Loss",
    "bits_per_byte": "Bits per byte",
    "perplexity": "Perplexity",
}
"""What a history may hold: its column, and its name."""

LOSSES = ("loss_nats", "bits_per_byte", "perplexity")
"""Measures of one and the same loss, the first of them in the table of conditions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Results:
    """A stored table of conditions x replicates, its summary, the evaluations of its runs, and what is wrong there."""

    name: str
    table: pd.DataFrame
    about: About
    summary: pd.DataFrame
    histories: pd.DataFrame
    problems: tuple[str, ...]

    @property
    def title(self) -> str:
        """What the experiment is called."""
        return self.about.title or self.about.claim or self.name

    @property
    def labels(self) -> dict[str, str]:
        """Condition -> what people read, in the order of the table."""
        return dict(zip(self.summary["condition"], self.summary["label"]))

    @property
    def quantities(self) -> dict[str, str]:
        """What the evaluations hold: column -> what people read."""
        held = set(self.histories.columns[self.histories.notna().any()])
        return {name: title for name, title in QUANTITIES.items() if name in held}

    @property
    def on_text(self) -> bool:
        """Whether the last phase was text, where the loss says what accuracy says elsewhere.

        Decided by the table, whose runs the store may not hold.
        """
        return "loss_nats" in self.table and is_on_text(self.about.task, self.table)

    @property
    def is_observation(self) -> bool:
        """Whether no condition has a second replicate. Where some have one alone, as a condition's own `replicates`
        may say, their rows tell."""
        return bool((self.summary["n"] < 2).to_numpy().all())

    def keep(self, conditions: Sequence[str]) -> "Results":
        """These conditions alone; the gains stay those over no pretraining."""
        kept = {
            part: frame.loc[frame["condition"].isin(conditions)]
            for part in ("table", "summary", "histories")
            for frame in [getattr(self, part)]
        }
        return replace(self, **kept)

    def relabel(self, labels: Mapping[str, str]) -> "Results":
        """The results with other labels: condition -> label."""
        named = {
            part: frame.assign(label=frame["condition"].map(dict(labels)).fillna(frame["label"]))
            for part in ("table", "summary", "histories")
            for frame in [getattr(self, part)]
            if "label" in frame
        }
        return replace(self, **named)


COLUMNS = {"condition", "label", "replicate", "run", "breakthrough_step"}
"""What a table of conditions has at least."""

ARMS = {"arm", "control_of"}
"""What a table of a fair sweep has beside that."""

Kind = Literal["conditions", "maps", "damage", "fair"]
"""A table of conditions; one with transfer maps; one whose conditions damage weights; one of a fair sweep."""


def catalogue(store: RunStore) -> dict[str, set[Kind]]:
    """What each stored table of conditions can show: reproductions first, then the newest. Claims and damaged tables
    are left out."""
    found: dict[str, set[Kind]] = {}
    for name in sorted(store.tables(), key=lambda name: not name.startswith("reproduce-")):
        if PREFIX in name:
            continue
        try:
            stored = store.read_table(name)
        except (ValueError, OSError):
            continue
        if set(stored.frame) >= COLUMNS:
            about = about_table(stored.metadata)
            found[name] = {"conditions"}
            if any(len(each.effects) for each in about.maps):
                found[name].add("maps")
            if "ablation:" in about.config:
                found[name].add("damage")
            if set(stored.frame) >= ARMS:
                found[name].add("fair")
    return found


def load_results(store: RunStore, name: str = "") -> Results:
    """A table of `reproduce`, a sweep or a claim with all that belongs to it; by default the newest reproduction.

    Raises `UnknownRun` where there is none, and `ValueError` for a damaged table or one without conditions.
    """
    if not name:
        names = store.tables("reproduce-")
        if not names:
            raise ValueError(f"no result of `procpre-interp reproduce` in {store.path}")
        name = names[0]
    stored = store.read_table(name)
    table = trained(stored.frame).reset_index(drop=True)
    if missing := COLUMNS - set(table):
        raise ValueError(f"table {name} has no conditions (it lacks {', '.join(sorted(missing))})")
    histories, problems = load_histories(store, table)
    return Results(
        name=name,
        table=table,
        about=about_table(stored.metadata),
        summary=summarise_conditions(table),
        histories=histories,
        problems=tuple(problems),
    )


def sides(results: Results) -> tuple[list[str], list[str], list[str]]:
    """Conditions whose 95 % interval of the gain over no pretraining lies above 0, below 0, and on both sides of it."""
    above, below, both = [], [], []
    fresh = compared_with(results.table)
    for row in named_rows(results.summary):
        if row.condition not in fresh and row.n:
            (above if row.gain_low > 0 else below if row.gain_high < 0 else both).append(row.condition)
    return above, below, both


def answer(results: Results) -> Answer:
    """Which conditions gained over no pretraining by their intervals, which lost, which is open, and by how much."""
    rows = {str(row.condition): row for row in named_rows(results.summary)}

    def listed(names: Sequence[str]) -> str:
        return ", ".join(f"{rows[name].label} ({gain(name)})" for name in names)

    def gain(name: str) -> str:
        row = rows[name]
        mean, low, high = (100 * value for value in (row.gain_mean, row.gain_low, row.gain_high))
        interval = "no interval" if low != low else f"[{low:+.1f}, {high:+.1f}]"
        return f"{mean:+.1f} {interval} points, n = {row.gain_n}" if mean == mean else "no pair of runs"

    above, below, both = sides(results)
    parts = [f"Gained over no pretraining: {listed(above)}."] if above else ["No condition gained over no pretraining."]
    parts += [f"Lost: {listed(below)}."] if below else []
    parts += [f"Open: {listed(both)}."] if both else []
    rule = (
        "The rule: the 95 % interval of the gain, in brackets, lies above 0 (gained), below it (lost) or has 0 in it."
    )
    return Answer(" ".join([*parts, rule]), decided=bool(above or below))


def explained(results: Results) -> str:
    """What the intervals and columns of `conditions_table` are, for the line below it."""
    return f"{explain_intervals(results.summary)} {explain_columns(results.about)}"


def accuracy(results: Results) -> Exhibit:
    """Test accuracy of each condition with its interval, next to the paper's where it reports one."""
    above, below, both = sides(results)
    return Exhibit(
        name="accuracy",
        figure=accuracy_by_condition(
            results.summary,
            table=results.table,
            paper=results.about.paper,
            title=question_title(
                "Did transfer help?", f"It did in {len(above)} of {len(above) + len(below) + len(both)} conditions"
            ),
        ),
        reading="Transfer helped where the interval of the gain, in the table, lies wholly above 0.",
        table=results.summary,
        notes=tuple(f"{results.labels[name]}: {note}." for name, note in _paper_notes(results)),
    )


def learning(results: Results, quantity: str = "accuracy") -> Exhibit:
    """A validation quantity over training, by condition. Raises `ValueError` where no run can be read."""
    if quantity not in results.histories or results.histories.empty:
        raise ValueError(f"none of the runs of {results.name} has evaluations of {quantity}")
    threshold = None if quantity != "accuracy" else results.about.threshold
    name = QUANTITIES.get(quantity, quantity)
    reading = f"A sudden {'fall' if quantity in LOSSES else 'rise'} is the breakthrough."
    if threshold is not None:
        reading = f"{reading} The dotted line is the accuracy that defines it."
    return Exhibit(
        name=f"learning_{quantity}",
        figure=learning_curves(results.histories, quantity, threshold=threshold, title=_learned(results, name)),
        reading=reading,
        table=results.histories,
    )


def _learned(results: Results, quantity: str) -> str:
    drawn = results.table.loc[results.table["run"].isin(results.histories["run"])]
    broke = int(drawn["breakthrough_step"].notna().to_numpy().sum())
    return question_title(f"{quantity}: do they learn?", f"{broke} of {len(drawn)} runs broke through")


def survival(results: Results) -> Exhibit:
    """Share of replicates without breakthrough against steps, by condition."""
    return survival_of(results.table)


def survival_of(table: pd.DataFrame, name: str = "survival") -> Exhibit:
    """The same of any rows of conditions x replicates."""
    broke = int(table["breakthrough_step"].notna().to_numpy().sum())
    title = question_title("How soon do they break through?", f"{broke} of {len(table)} runs did")
    return Exhibit(
        name=name, figure=survival_curves(table, title=title), reading=READING_SURVIVAL, table=survival_curve(table)
    )


def _paper_notes(results: Results) -> list[tuple[str, str]]:
    return [(name, note) for name, note in results.about.paper_notes.items() if name in results.labels]

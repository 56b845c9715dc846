"""Did transfer help? Accuracy, learning, time to breakthrough and cost by condition, from one stored table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import pandas as pd

from procpre_interp.claims import PREFIX, trained
from procpre_interp.describe import READING_SURVIVAL
from procpre_interp.exhibits.exhibit import Exhibit
from procpre_interp.plots.curves import accuracy_by_condition, learning_curves, survival_curves
from procpre_interp.runs import RunStore, load_histories
from procpre_interp.stats import summarise_conditions
from procpre_interp.survival import survival_curve

QUANTITIES = {"accuracy": "Accuracy", "exact_match": "Exact match", "loss_nats": "Loss"}
"""What a history may hold: its column, and its name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Results:
    """A stored table of conditions x replicates, its summary, the evaluations of its runs, and what is wrong there."""

    name: str
    table: pd.DataFrame
    about: dict[str, Any]
    summary: pd.DataFrame
    histories: pd.DataFrame
    problems: tuple[str, ...]

    @property
    def title(self) -> str:
        """What the experiment is called."""
        return str(self.about.get("title") or self.about.get("claim") or self.name)

    @property
    def labels(self) -> dict[str, str]:
        """Condition -> what people read, in the order of the table."""
        return dict(zip(self.summary["condition"], self.summary["label"]))

    @property
    def quantities(self) -> dict[str, str]:
        """What the evaluations hold: column -> what people read."""
        return {name: title for name, title in QUANTITIES.items() if name in self.histories and len(self.histories)}

    def keep(self, conditions: Sequence[str]) -> "Results":
        """These conditions alone; the gains stay those over no pretraining."""
        kept = {
            part: frame.loc[frame["condition"].isin(conditions)]
            for part in ("table", "summary", "histories")
            for frame in [getattr(self, part)]
        }
        return replace(self, **kept)

    def relabel(self, labels: Mapping[str, str]) -> "Results":
        """With other names for people: condition -> label."""
        named = {
            part: frame.assign(label=frame["condition"].map(dict(labels)).fillna(frame["label"]))
            for part in ("table", "summary", "histories")
            for frame in [getattr(self, part)]
            if "label" in frame
        }
        return replace(self, **named)


COLUMNS = {"condition", "label", "replicate", "run", "breakthrough_step"}
"""What a table of conditions has at least."""

Kind = Literal["conditions", "maps", "damage"]
"""A table of conditions; one with transfer maps; one whose conditions damage weights."""


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
            about = stored.metadata
            found[name] = {"conditions"}
            if any(each.get("effects") for each in about.get("maps") or []):
                found[name].add("maps")
            if "ablation:" in str(about.get("config", "")):
                found[name].add("damage")
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
        about=stored.metadata,
        summary=summarise_conditions(table),
        histories=histories,
        problems=tuple(problems),
    )


def answer(results: Results) -> str:
    """In a sentence: which conditions gained over no pretraining for sure, and by how much."""
    gained, rest = [], []
    for row in results.summary.to_dict("records"):
        if row["condition"] == "none" or not row["n"]:
            continue
        low, high = 100 * row["gain_low"], 100 * row["gain_high"]
        said = f"{row['label']} ({100 * row['gain_mean']:+.1f} [{low:+.1f}, {high:+.1f}] points)"
        (gained if low > 0 else rest).append(said)
    if not gained:
        return "No condition is above no pretraining for sure: every interval of the gain includes 0."
    return f"For sure above no pretraining: {', '.join(gained)}. Not so: {', '.join(rest) or 'none'}."


def accuracy(results: Results) -> Exhibit:
    """Test accuracy of each condition with its interval, beside the paper's where it reports one."""
    paper = results.about.get("paper")
    return Exhibit(
        name="accuracy",
        figure=accuracy_by_condition(results.summary, table=results.table, paper=paper),
        reading="Transfer helped where the interval of the gain, in the table, lies wholly above 0.",
        table=results.summary,
        notes=tuple(f"{results.labels[name]}: {note}." for name, note in _paper_notes(results)),
    )


def learning(results: Results, quantity: str = "accuracy") -> Exhibit:
    """A validation quantity over training, by condition. Raises `ValueError` where no run can be read."""
    if quantity not in results.histories or results.histories.empty:
        raise ValueError(f"none of the runs of {results.name} has evaluations of {quantity}")
    threshold = None if quantity == "loss_nats" else results.about.get("threshold")
    return Exhibit(
        name=f"learning_{quantity}",
        figure=learning_curves(
            results.histories, quantity, threshold=threshold, title=QUANTITIES.get(quantity, quantity)
        ),
        reading="A jump is the breakthrough; the dotted line, where there is one, is the threshold that defines it.",
        table=results.histories,
    )


def survival(results: Results) -> Exhibit:
    """Share of replicates without breakthrough against steps, by condition."""
    return survival_of(results.table)


def survival_of(table: pd.DataFrame, name: str = "survival") -> Exhibit:
    """The same of any rows of conditions x replicates."""
    return Exhibit(name=name, figure=survival_curves(table), reading=READING_SURVIVAL, table=survival_curve(table))


def _paper_notes(results: Results) -> list[tuple[str, str]]:
    return [(name, note) for name, note in (results.about.get("paper_notes") or {}).items() if name in results.labels]

"""Runs: which there are, their curves over one another, what they hold, and where their weights come from."""

import math
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any

import pandas as pd

from procpre_interp.store.run import (
    DamagedRun,
    Run,
    UnknownRun,
    saved_state,
    saved_step,
    unfinished_config,
    unfinished_fields,
)
from procpre_interp.store.store import RunStore, load_histories
from procpre_interp.views.exhibits.exhibit import Answer, Exhibit
from procpre_interp.views.exhibits.results import QUANTITIES
from procpre_interp.views.plots.curves import learning_curves
from procpre_interp.views.plots.theme import OTHERS

MOST_COMPARED = len(OTHERS)
"""Runs over one another: as many as there are colours to tell them apart."""

MOST_UNFINISHED = 20
"""Unfinished runs of which configs are read."""

FIRST, LATER = "fresh weights", "from parents"
"""The phases of a list: runs without parents, and runs with some."""

DEFAULT_BATCH = 1000
"""Sequences per step of a config that does not say; a test compares it with the trainer's, which needs torch."""

SEARCHED = ("run", "task", "components", "condition", "parents", "stop_reason")
"""The columns that a search reads."""

COLUMNS = (
    "run",
    "status",
    "task",
    "phase",
    "components",
    "condition",
    "seed",
    "accuracy",
    "loss_nats",
    "breakthrough_step",
    "steps",
    "seconds",
    "created",
    "parents",
    "problem",
)
"""The columns that a list shows first."""

SHARES = ("accuracy", "exact_match", "prompt_overlap")


def conditions(store: RunStore) -> dict[str, str]:
    """Run -> what the store's tables call its condition, several names joined by "; ". Damaged tables are left out."""
    found: dict[str, dict[str, None]] = {}
    for name in store.tables():
        try:
            frame = store.read_table(name).frame
        except (ValueError, OSError):
            continue
        column = next((column for column in ("label", "condition") if column in frame), None)
        if column is not None and "run" in frame:
            for run, label in frame[["run", column]].dropna().itertuples(index=False, name=None):
                found.setdefault(str(run), {})[str(label)] = None
    return {run: "; ".join(labels) for run, labels in found.items()}


def listing(runs: pd.DataFrame, labels: Mapping[str, str]) -> pd.DataFrame:
    """`RunStore.query` with the columns phase and condition (from `labels`), the most telling columns first."""
    table = runs.reindex(columns=[*dict.fromkeys([*COLUMNS, *runs])])
    parents = [each if isinstance(each, tuple) else () for each in table["parents"]]  # damaged runs have none
    known = table["status"].isin(["finished", "diverged"])
    table["phase"] = [LATER if each else FIRST for each in parents]
    table["phase"] = table["phase"].where(known)
    table["parents"] = [", ".join(each) or None for each in parents]
    table["condition"] = [labels.get(run) for run in table["run"]]
    text = dict.fromkeys(("condition", "problem", "parents", "components"), "string")
    return table.convert_dtypes().astype(text)


def answer(table: pd.DataFrame) -> Answer:
    """How many runs a `listing` has of each status, and of which tasks."""
    counts = table["status"].value_counts()
    said = ", ".join(f"{count:,} {status}" for status, count in counts.items()) or "none"
    tasks = ", ".join(table["task"].dropna().value_counts().index[:6])
    return Answer(f"{len(table):,} runs: {said}." + (f" Tasks: {tasks}." if tasks else ""), decided=False)


def keep(table: pd.DataFrame, text: str = "", **among: Sequence[Any]) -> pd.DataFrame:
    """The rows of a `listing` that have one of the values in each column named, and in which each word of the text
    occurs, in upper or lower case. No values: any."""
    for column, values in among.items():
        if values:
            table = table.loc[table[column].isin(values)]
    if words := text.lower().split():
        columns = [table[column].astype(object).fillna("").astype(str) for column in SEARCHED if column in table]
        searched = reduce(lambda left, right: left + "\n" + right, columns).str.lower()
        table = table.loc[reduce(lambda a, b: a & b, [searched.str.contains(word, regex=False) for word in words])]
    return table.reset_index(drop=True)


def troubles(runs: pd.DataFrame, store: RunStore) -> list[tuple[str, pd.DataFrame]]:
    """What is damaged in a list and what is not finished: a line each, and the table behind it.

    An unfinished run has the step that it has saved, and of how many, where that is known; of many, the newest
    `MOST_UNFINISHED`, since their files are read.
    """
    damaged = runs.loc[runs["status"] == "damaged", ["run", "problem"]]
    found = [(f"{_count(damaged)} damaged and not used", damaged)] if len(damaged) else []
    for status, said in (("running", "being written"), ("interrupted", "interrupted: repeat the command to go on")):
        some = runs.loc[runs["status"] == status]
        if len(some):
            rows = [_unfinished(row, store) for row in some.head(MOST_UNFINISHED).to_dict("records")]
            found.append((f"{_count(some)} {said}", pd.DataFrame(rows).convert_dtypes()))
    return found


@dataclass(frozen=True, slots=True)
class Writing:
    """A run that a process is computing."""

    run: str
    task: str
    saved: int
    """The step of the last saved state; 0 before the first."""
    steps: int
    seconds: float = 0.0
    """Time spent on the saved steps."""
    history: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False, compare=False)
    """Its evaluations up to there."""

    @property
    def share(self) -> float:
        """Share of its steps that are saved, 0 to 1."""
        return min(1.0, self.saved / max(1, self.steps))

    @property
    def seconds_left(self) -> float | None:
        """Seconds left at the speed so far; None before there is one."""
        return self.seconds / self.saved * max(0, self.steps - self.saved) if self.saved and self.seconds else None

    @property
    def curve(self) -> Exhibit | None:
        """Its validation loss so far; None before the first evaluation is saved."""
        if self.history.empty or "split" not in self.history:
            return None
        labels = {"condition": self.run, "label": f"{self.run[:8]}, {self.task}", "replicate": 0, "run": self.run}
        evaluations = self.history.assign(**labels)
        return curves(evaluations, "loss_nats") if "loss_nats" in measured(evaluations) else None


def being_written(runs: pd.DataFrame, store: RunStore) -> list[Writing]:
    """The runs of a list that are being computed, those that say how long they are; the newest `MOST_UNFINISHED`."""
    rows = runs.loc[runs["status"] == "running"].head(MOST_UNFINISHED).to_dict("records")
    found = []
    for row in (_unfinished(row, store) for row in rows):
        if isinstance(row["of steps"], int):
            run, task, steps = str(row["run"]), str(row["task"]), int(row["of steps"])
            state = saved_state(store.path / "partial" / run)
            if state is None:
                found.append(Writing(run, task, 0, steps))
            else:
                found.append(Writing(run, task, state.step, steps, state.seconds, state.history))
    return found


def finished_between(runs: pd.DataFrame, start: str, end: str) -> list[str]:
    """The runs of a list that were finished between two times, to the second; the newest first."""
    done = runs.loc[runs["status"].isin(["finished", "diverged"])]
    created = pd.to_datetime(done["created"], utc=True, format="ISO8601", errors="coerce")
    since, until = (pd.to_datetime(time, utc=True, errors="coerce") for time in (start, end))
    return done.loc[(created >= since) & (created < until + pd.Timedelta(seconds=1)), "run"].tolist()


@dataclass(frozen=True, slots=True)
class Estimate:
    """How long a run will take, by the speed of one like it."""

    seconds: float
    run: str
    """The run whose speed it is."""


def estimate(
    runs: pd.DataFrame, store: RunStore, *, task: str, steps: int, batch_size: int, n_layers: int, d_model: int
) -> Estimate | None:
    """Time of `steps` steps at the speed of the newest finished run of the task and shape; None where there is none."""
    alike = runs.reindex(columns=["run", "status", "task", "n_layers", "d_model", "steps", "seconds"])
    alike = alike.loc[
        (alike["status"] == "finished")
        & (alike["task"] == task)
        & (alike["n_layers"] == n_layers)
        & (alike["d_model"] == d_model)
        & (alike["steps"] > 0)
        & (alike["seconds"] > 0)
    ]
    for run_id, seconds, n in alike[["run", "seconds", "steps"]].head(MOST_UNFINISHED).itertuples(index=False):
        try:
            config = store.open(run_id, verify=False).config
        except (UnknownRun, DamagedRun):
            continue
        known = (config.get("train") or {}).get("batch_size", DEFAULT_BATCH)
        return Estimate(float(seconds) / (float(n) * float(known)) * steps * batch_size, run_id)
    return None


def _count(runs: pd.DataFrame) -> str:
    return "1 run is" if len(runs) == 1 else f"{len(runs):,} runs are"


def _unfinished(row: Mapping[str, Any], store: RunStore) -> dict[str, object]:
    config = unfinished_config(store.path / "partial" / row["run"])
    task, train = config.get("task", {}), config.get("train", {})
    of_steps = train.get("steps")
    saved = saved_step(store.path / "partial" / row["run"])
    steps = {"saved step": saved, "of steps": of_steps if isinstance(of_steps, int) else None}
    return {"run": row["run"], "task": task.get("name"), **steps, "changed": row["created"]}


def names(table: pd.DataFrame) -> dict[str, str]:
    """Run -> its `name`, for all runs of a list."""
    # Next to runs that are not finished a column of seeds is one of floats, as they have none.
    fields = table.reindex(columns=["run", "status", "task", "components", "seed", "accuracy"])
    fields = fields.convert_dtypes().astype(object)
    rows = fields.where(fields.notna(), None).to_dict("records")
    return {row["run"]: name(row["run"], row) for row in rows}


def with_weights(runs: pd.DataFrame, store: RunStore) -> dict[str, str]:
    """Runs of a list that keep weights: run -> its `name`. Those that were pretrained and keep several steps first."""
    kept = {folder.name: _files(folder, "weights/step_*") for folder in (store.path / "runs").glob("*")}
    known = runs.loc[runs["status"].isin(["finished", "diverged"])].reindex(columns=["run", "parents"])
    pretrained = {run for run, parents in known[["run", "parents"]].itertuples(index=False) if parents}
    found = [run for run in known["run"] if kept.get(run)]
    called = names(runs)
    ordered = sorted(found, key=lambda run: (run not in pretrained, -len(kept[run])))
    return {run: called[run] for run in ordered}


def name(run: str, summary: Mapping[str, Any]) -> str:
    """What people call a run: the beginning of its id, its task, what its parents gave, its seed, its accuracy."""
    status, accuracy = summary.get("status"), summary.get("accuracy")
    if status not in ("finished", "diverged"):
        return f"{run} {status}"
    parts = [run[:8], str(summary.get("task")), summary.get("components") or FIRST, f"seed {summary.get('seed', 0)}"]
    return ", ".join([*parts, "diverged" if accuracy is None else f"{accuracy:.1%}"])


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


def ancestry(runs: Sequence[Run], store: RunStore) -> tuple[list[Run], list[str]]:
    """The runs and all their ancestors, each once; then a line for each that is missing or damaged."""
    found, problems = {run.id: run for run in runs}, []
    waiting = list(runs)
    while waiting:
        for entry in waiting.pop(0).config.get("parents") or []:
            if entry["run"] not in found:
                try:
                    parent = store.open(entry["run"], verify=False)
                except (UnknownRun, DamagedRun) as problem:
                    problems.append(str(problem))
                else:
                    found[parent.id] = parent
                    waiting.append(parent)
    return list(found.values()), list(dict.fromkeys(problems))


def children(runs: pd.DataFrame, run_id: str, store: RunStore) -> list[str]:
    """The runs of a list that have this one as a parent, those being written included."""
    table = runs.reindex(columns=["run", "status", "parents"])
    unknown = table["status"].isin(["running", "interrupted"])
    parents = {run: named for run, named in zip(table["run"], table["parents"]) if isinstance(named, tuple)}
    for run in table.loc[unknown, "run"]:  # whose config may have been written since the list was made
        parents[run] = tuple(unfinished_fields(store.path / "partial" / run).get("parents", ()))
    return [run for run, named in parents.items() if run_id in named]


def deletion(runs: pd.DataFrame, run_id: str, store: RunStore) -> str:
    """What deleting a run of a list takes away, and whose weights then come from a run that is gone."""
    if run_id not in set(runs["run"]):
        raise UnknownRun(f"no run {run_id!r} in the list of {store.path}")
    places = [store.path / folder / run_id for folder in ("runs", "partial")]
    sizes = [size for place in places for size in _files(place, "**/*")]
    status = runs.loc[runs["run"] == run_id, "status"].iloc[0]
    found = children(runs, run_id, store)
    what = f"Run {run_id} ({status}): {len(sizes)} files, {sum(sizes) / 1e6:,.2f} MB, in {store.path}."
    if not found:
        return f"{what} No run has it as a parent."
    more = f" and {len(found) - 8} more" if len(found) > 8 else ""
    return (
        f"{what} It is a parent of {', '.join(found[:8])}{more}: they stay, but cannot be traced to it or computed "
        "again without it."
    )


def _files(folder: Path, pattern: str) -> list[int]:
    """The sizes of a run's files, of those that are still there when they are asked for."""
    sizes = []
    with suppress(OSError):  # the folder is deleted meanwhile
        for path in folder.glob(pattern):
            if not stat.S_ISDIR((found := path.lstat()).st_mode):
                sizes.append(found.st_size)
    return sizes


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

"""The list of runs: which there are, what they are called, and what deleting one takes away."""

import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import reduce
from pathlib import Path
from typing import Any

import pandas as pd

from procpre_interp.store.run import UnknownRun
from procpre_interp.store.store import RunStore
from procpre_interp.store.unfinished import unfinished_config
from procpre_interp.views.exhibits.exhibit import Answer

FIRST, LATER, IMPORTED = "fresh weights", "from parents", "imported weights"
"""The phases of a list: runs without parents, runs with some, and models that were not trained here."""

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
    reasons = table["stop_reason"] if "stop_reason" in table else [None] * len(table)  # a list of no runs has none
    table["phase"] = [LATER if each else _origin(why) for each, why in zip(parents, reasons)]
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


def names(table: pd.DataFrame) -> dict[str, str]:
    """Run -> its `name`, for all runs of a list."""
    # Next to runs that are not finished a column of seeds is one of floats, as they have none.
    fields = table.reindex(columns=["run", "status", "task", "components", "seed", "accuracy", "stop_reason"])
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
    origin = _origin(summary.get("stop_reason"))
    parts = [run[:8], str(summary.get("task")), summary.get("components") or origin, f"seed {summary.get('seed', 0)}"]
    if origin == IMPORTED:
        return ", ".join(parts[:-1])
    return ", ".join([*parts, "diverged" if accuracy is None else f"{accuracy:.1%}"])


def _origin(stop_reason: object) -> str:
    """Where the weights of a run without parents came from."""
    return IMPORTED if isinstance(stop_reason, str) and stop_reason == "imported" else FIRST


def children(runs: pd.DataFrame, run_id: str, store: RunStore) -> list[str]:
    """The runs of a list that have this one as a parent, those being written included."""
    table = runs.reindex(columns=["run", "status", "parents"])
    unknown = table["status"].isin(["running", "interrupted"])
    parents = {run: named for run, named in zip(table["run"], table["parents"]) if isinstance(named, tuple)}
    for run in table.loc[unknown, "run"]:  # whose config may have been written since the list was made
        config = unfinished_config(store.path / "partial" / run) or {}
        parents[run] = tuple(entry["run"] for entry in config.get("parents") or ())
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

"""The list of a store's runs as plain rows: without pandas, which loads as slowly as thousands of runs."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from procpre_interp.core import locks
from procpre_interp.core.environment import now
from procpre_interp.core.messages import unknown_name
from procpre_interp.core.schema import STATUSES
from procpre_interp.store.leftovers import remove_all_leftovers
from procpre_interp.store.names import folders, lock_file
from procpre_interp.store.reading import DamagedRun, UnknownRun, read_summary
from procpre_interp.store.unfinished import unfinished_fields

FIRST_COLUMNS = ("run", "status", "created", "problem")
"""What every row has."""

Row = dict[str, Any]
"""What is known of a run, by column."""


def read_rows(store: Path) -> list[Row]:
    """One row per run of the store in this folder, newest first; see `RunStore.query`."""
    remove_all_leftovers(store)
    partial = folders(store / "partial")  # first: a run that moves meanwhile is met twice, not never
    found = (_summary_row(folder) for folder in folders(store / "runs"))
    rows = [row for row in found if row is not None]
    seen = {row["run"] for row in rows}
    for folder in partial:
        if folder.name not in seen:
            status = "running" if locks.is_locked(lock_file(store, folder.name)) else "interrupted"
            row: Row = {"run": folder.name, "status": status, "created": _modified(folder), "problem": None}
            rows.append(row | unfinished_fields(folder))
    return sorted(rows, key=lambda row: row["created"], reverse=True)


def columns_of(rows: Sequence[Row]) -> list[str]:
    """The columns that any row has: those of every row, those of finished runs, and the rest."""
    finished_first = sorted(rows, key=lambda row: row["status"] not in STATUSES)
    return list(dict.fromkeys([*FIRST_COLUMNS, *(name for row in finished_first for name in row)]))


def holds_numbers(column: Sequence[Any]) -> bool:
    """Whether a column has numbers, and nothing else but missing values."""
    kinds = {type(each) for each in column if each is not None}
    return bool(kinds) and kinds <= {int, float}


def matching(rows: Sequence[Row], equals: Mapping[str, Any]) -> list[bool]:
    """Whether each row's columns have these values. Raises `ValueError` for a column or value that cannot be."""
    kept = [True] * len(rows)
    for name, value in equals.items() if rows else ():
        column = [row.get(name) for row in rows]
        if not any(name in row for row in rows):
            raise unknown_name("column of the runs", name, columns_of(rows))
        kept = [before and now for before, now in zip(kept, _equals(column, name, value))]
    return kept


def _equals(column: Sequence[Any], name: str, value: Any) -> list[bool]:
    """Which entries have the value; text (from a command line) is read as a number in a column of numbers."""
    if name == "parents":  # which hold the value as one of several ids; those of a damaged run are not known
        return [isinstance(each, tuple) and (not each if value is None else value in each) for each in column]
    if value is None:
        return [each is None for each in column]
    if isinstance(value, str) and {type(each) for each in column if each is not None} == {bool}:
        if value.lower() not in ("true", "false"):
            raise ValueError(f"{name}={value!r}: the column {name} holds true and false")
        value = value.lower() == "true"
    elif isinstance(value, str) and holds_numbers(column):
        try:
            value = float(value)
        except ValueError:
            raise ValueError(f"{name}={value!r}: the column {name} holds numbers") from None
    return [each == value for each in column]


def _summary_row(folder: Path) -> Row | None:
    """A finished run's row of the list; None where it was deleted meanwhile."""
    try:
        row = cast(Row, read_summary(folder))
        row["run"], row["problem"] = folder.name, None
        return row
    except UnknownRun:
        return None
    except DamagedRun as damage:
        return {"run": folder.name, "status": "damaged", "created": _modified(folder), "problem": damage.problem}


def _modified(folder: Path) -> str:
    """When a folder last changed; now, where it went away this moment."""
    try:
        return datetime.fromtimestamp(folder.stat().st_mtime, UTC).isoformat(timespec="milliseconds")
    except OSError:
        return now()

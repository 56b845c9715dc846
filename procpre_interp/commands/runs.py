"""`procpre-interp runs`: what is in the store. Imports no torch, and pandas only for CSV and JSON."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path
from typing import Annotated, Any, Literal

from procpre_interp.commands._options import parse, several
from procpre_interp.core.environment import default_store
from procpre_interp.core.text_table import fitting, print_table, stdout_console
from procpre_interp.store.rows import Row, holds_numbers, matching, read_rows

COLUMNS = (
    "run",
    "status",
    "task",
    "seed",
    "parents",
    "components",
    "start_at",
    "steps",
    "accuracy",
    "loss_nats",
    "perplexity",
    "bits_per_byte",
    "answers_right",
    "epochs",
    "seconds",
)
"""What the table shows, where any run has it; CSV and JSON have every column."""

ALWAYS = ("run", "status")
OPTIONAL = ("seconds", "start_at", "parents", "bits_per_byte", "loss_nats", "components")
"""What a narrow terminal has no room for, the first of them first."""


@dataclass(frozen=True, kw_only=True)
class Runs:
    """List the runs of a store, newest first. --where keeps those whose columns have the given values.

    For example: procpre-interp runs --where task=haystack status=finished --format csv
    """

    store: Path = field(default_factory=default_store)
    """Folder of the runs."""
    where: Annotated[tuple[str, ...], several("COLUMN=VALUE")] = ()
    """Conditions COLUMN=VALUE, all of which must hold; an empty value matches a missing one."""
    format: Literal["table", "json", "csv"] = "table"
    """table for people; json (one object per run) and csv have every column."""


def main(arguments: list[str]) -> int:
    """Print the list."""
    command = parse(Runs, "runs", arguments)
    if not command.store.is_dir():
        raise FileNotFoundError(
            f"no store {command.store}; `procpre-interp reproduce --quick --out {command.store}` fills one"
        )
    equals = {}
    for condition in command.where:
        column, sign, value = condition.partition("=")
        if not sign:
            raise ValueError(f"--where {condition}: write COLUMN=VALUE, such as task=haystack")
        equals[column] = value or None
    if command.format == "table":
        rows = read_rows(command.store)
        print_rows(list(compress(rows, matching(rows, equals))))
    else:
        print_values(command.store, equals, command.format)
    return 0


def print_values(store: Path, equals: Mapping[str, Any], output_format: Literal["json", "csv"]) -> None:
    """Every column, for programs."""
    from procpre_interp.store.store import RunStore

    table = RunStore(store).query(**equals)
    if output_format == "json":
        print(table.to_json(orient="records", indent=1))
        return
    text = table.assign(parents=[cell("parents", each) for each in table["parents"]]) if "parents" in table else table
    text.to_csv(sys.stdout, index=False)


def print_rows(rows: Sequence[Row]) -> None:
    """The chosen columns, and below them what is wrong with damaged runs."""
    console = stdout_console()
    values = {column: [row.get(column) for row in rows] for column in COLUMNS}
    known = {name: column for name, column in values.items() if name in ALWAYS or any(x is not None for x in column)}
    text = {name: [cell(name, value) for value in column] for name, column in known.items()}
    words = [name for name, column in known.items() if not holds_numbers(column)]
    print_table(console, fitting(text, console.width, OPTIONAL), "", left=words)
    for row in rows:
        if row["status"] == "damaged":
            console.print(f"{row['run']} is damaged and not used: {row['problem']}", soft_wrap=True)
    console.print(f"{len(rows)} runs")


def cell(column: str, value: object) -> str:
    """A value as a person reads it."""
    if value is None or value != value:
        return ""
    if isinstance(value, tuple):
        return ", ".join(value)
    if isinstance(value, float):
        if column in ("accuracy", "answers_right"):
            return f"{value:.1%}"
        return f"{value:.0f}" if value.is_integer() else f"{value:.4g}"
    return str(value)

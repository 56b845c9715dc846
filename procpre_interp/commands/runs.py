"""`procpre-interp runs`: what is in the store. Imports no torch."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd

from procpre_interp.commands._options import parse, several
from procpre_interp.core.terminal import default_store, fitting, print_frame, stdout_console
from procpre_interp.store.store import RunStore

COLUMNS = (
    "run",
    "status",
    "task",
    "seed",
    "parents",
    "components",
    "steps",
    "accuracy",
    "loss_nats",
    "perplexity",
    "seconds",
)
"""What the table shows, where any run has it; CSV and JSON have every column."""

ALWAYS = ("run", "status")
OPTIONAL = ("seconds", "parents", "loss_nats", "components")
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
    table = RunStore(command.store).query(**equals)
    if command.format == "csv":
        text = (
            table.assign(parents=[cell("parents", each) for each in table["parents"]]) if "parents" in table else table
        )
        text.to_csv(sys.stdout, index=False)
    elif command.format == "json":
        print(table.to_json(orient="records", indent=1))
    else:
        print_table(table)
    return 0


def print_table(table: pd.DataFrame) -> None:
    """The chosen columns, and below them what is wrong with damaged runs."""
    console = stdout_console()
    columns = [
        column for column in COLUMNS if column in table and (column in ALWAYS or table[column].notna().to_numpy().any())
    ]
    text = pd.DataFrame({column: [cell(column, value) for value in table[column]] for column in columns}, dtype=str)
    shown = fitting(text, console.width, OPTIONAL)
    numbers = [column for column in shown if pd.api.types.is_numeric_dtype(table[column].dtype)]
    print_frame(console, shown, "", left=[column for column in shown if column not in numbers])
    damaged = table.loc[table["status"] == "damaged"]
    for run, problem in zip(damaged["run"], damaged["problem"]):
        console.print(f"{run} is damaged and not used: {problem}", soft_wrap=True)
    console.print(f"{len(table)} runs")


def cell(column: str, value: object) -> str:
    """A value as a person reads it."""
    if value is None or value != value:
        return ""
    if isinstance(value, tuple):
        return ", ".join(value)
    if isinstance(value, float):
        if column == "accuracy":
            return f"{value:.1%}"
        return f"{value:.0f}" if value.is_integer() else f"{value:.4g}"
    return str(value)

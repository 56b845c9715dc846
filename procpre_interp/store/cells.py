"""The table of cells: one row per condition and replicate of a sweep or a claim. Its columns, what they hold, and the
check of them when a table is written and when it is read."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import pandas as pd

from procpre_interp.core.schema import STATUSES, shown


class Kind(StrEnum):
    """What a column holds, next to missing values."""

    TEXT = "text"
    NUMBER = "a number"
    BOOLEAN = "true or false"
    RUNS = "a list of run ids"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table of cells."""

    kind: Kind
    meaning: str
    always: bool = False
    """Whether every table of cells has it."""


CELLS: dict[str, Column] = {
    "condition": Column(Kind.TEXT, "name of the condition", always=True),
    "label": Column(Kind.TEXT, "what people read", always=True),
    "replicate": Column(Kind.NUMBER, "seed of both phases", always=True),
    "phase1_run": Column(Kind.RUNS, "ids of the runs that weights come from, in the order of the sources"),
    "run": Column(Kind.TEXT, "id of the run of the last phase; empty for a cell that cannot be one", always=True),
    "phase2_run": Column(Kind.TEXT, "id of the run that ended phase 2, where another phase follows; otherwise empty"),
    "chain": Column(Kind.RUNS, "ids of the runs of all phases, in the order in which they were trained"),
    "status": Column(Kind.TEXT, "finished, diverged or failed", always=True),
    "accuracy": Column(Kind.NUMBER, "share of answer tokens on the test set"),
    "exact_match": Column(Kind.NUMBER, "share of test sequences without a wrong token"),
    "loss_nats": Column(Kind.NUMBER, "mean loss of a scored token, nats"),
    "perplexity": Column(Kind.NUMBER, "of a token of text"),
    "bits_per_byte": Column(Kind.NUMBER, "of text, to compare across tokenizers"),
    "answers_right": Column(Kind.NUMBER, "share of test questions whose whole answer the model wrote by itself"),
    "area": Column(Kind.NUMBER, "mean validation accuracy over training, share"),
    "breakthrough_step": Column(Kind.NUMBER, "first evaluation at the threshold, step"),
    "limit": Column(Kind.NUMBER, "step up to which a breakthrough would have been seen"),
    "tokens_to_target": Column(Kind.NUMBER, "tokens seen at the breakthrough"),
    "token_limit": Column(Kind.NUMBER, "tokens up to which it would have been seen"),
    "seconds": Column(Kind.NUMBER, "time of the last phase, which is phase 2 unless the table has chains"),
    "phase1_seconds": Column(Kind.NUMBER, "time of phase 1, of all parents together"),
    "tokens": Column(Kind.NUMBER, "tokens of the last phase"),
    "teraflops": Column(Kind.NUMBER, "compute of the last phase, 10^12 floating-point operations"),
    "phase1_tokens": Column(Kind.NUMBER, "tokens of phase 1, of all parents together"),
    "phase1_teraflops": Column(Kind.NUMBER, "compute of phase 1, of all parents together"),
    "epochs": Column(Kind.NUMBER, "how often the last phase went through its text"),
    "phase1_accuracy": Column(Kind.NUMBER, "the lowest of the parents, share"),
    "phase2_accuracy": Column(Kind.NUMBER, "accuracy at the end of phase 2, on its own test set, share"),
    "phase2_loss_nats": Column(Kind.NUMBER, "loss at the end of phase 2, on its own test set, nats"),
    "total_tokens": Column(Kind.NUMBER, "tokens of all phases together"),
    "total_seconds": Column(Kind.NUMBER, "time of all phases together"),
    "total_teraflops": Column(Kind.NUMBER, "compute of all phases together, 10^12 floating-point operations"),
    "positions_carried": Column(Kind.BOOLEAN, "whether position embeddings were transferred"),
    "arm": Column(Kind.TEXT, "in a fair sweep: fresh, transfer, scales, natural text or shuffled sequences"),
    "control_of": Column(Kind.TEXT, "the transfer that a control belongs to; empty for other arms"),
    "fresh_arm": Column(Kind.TEXT, "the arm without phase 1 that is trained on the same text"),
    "learning_rate": Column(Kind.NUMBER, "peak learning rate that the arm was tuned to"),
    "initial_scale": Column(Kind.NUMBER, "factor on initial weights that the arm was tuned to"),
    "phase1_learnt": Column(Kind.BOOLEAN, "whether all parents with a gate passed it"),
    "problem": Column(Kind.TEXT, "why a cell failed"),
}
"""Columns that other modules rely on; what a claim observes of its runs is in further ones."""


def check_columns(table: pd.DataFrame) -> None:
    """Raise `ValueError` where a known column holds anything else than it should."""
    for name in set(CELLS) & set(table):
        kind = CELLS[name].kind
        # A column of numbers says so by its type; others are looked at value by value.
        if kind is Kind.NUMBER and pd.api.types.is_numeric_dtype(table[name].dtype):
            continue
        for value in table[name].tolist():
            if not (is_missing(value) or _fits(value, kind)):
                raise ValueError(f"its column {name} holds {shown(value)}, not {kind}")


def check_cells(table: pd.DataFrame) -> None:
    """Raise `ValueError` for what is no table of cells: a column that lacks, a wrong type, or an unknown status."""
    lacking = [name for name, column in CELLS.items() if column.always and name not in table]
    if lacking:
        raise ValueError(
            f"a table of cells lacks {', '.join(lacking)}; it has {', '.join(map(str, table)) or 'nothing'}"
        )
    check_columns(table)
    if unknown := set(table["status"].dropna()) - {*STATUSES, "failed"}:
        raise ValueError(f"a cell has the status {shown(min(unknown))}, none of {', '.join((*STATUSES, 'failed'))}")


LISTS = tuple(name for name, column in CELLS.items() if column.kind is Kind.RUNS)
"""The columns that hold lists of run ids."""


def with_run_lists(table: pd.DataFrame) -> pd.DataFrame:
    """The table with lists of runs as tuples of ids. CSV files, and tables of older versions, have text with a blank
    between ids; Parquet gives arrays."""
    lists = {name: [run_list(each) for each in table[name]] for name in LISTS if name in table}
    return table.assign(**{name: pd.Series(each, table.index, dtype=object) for name, each in lists.items()})


def with_run_text(table: pd.DataFrame) -> pd.DataFrame:
    """The table with lists of runs as text, a blank between ids: for a CSV file, or for people."""
    known = [name for name in LISTS if name in table]
    return table.assign(**{name: [" ".join(map(str, run_list(each))) for each in table[name]] for name in known})


def run_list(value: object) -> tuple[object, ...]:
    """A stored list of run ids; what is in it is left to the check."""
    if is_missing(value):
        return ()
    if isinstance(value, str):
        return tuple(value.split())
    return tuple(value) if isinstance(value, Iterable) else (value,)


def is_missing(value: object) -> bool:
    """Whether a cell of a table has no value."""
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def _fits(value: object, kind: Kind) -> bool:
    if kind is Kind.RUNS:
        return isinstance(value, (tuple, list)) and all(isinstance(run, str) for run in value)
    kinds: dict[Kind, tuple[type, ...]] = {Kind.TEXT: (str,), Kind.BOOLEAN: (bool,), Kind.NUMBER: (int, float)}
    return isinstance(value, kinds[kind]) and not (kind is Kind.NUMBER and isinstance(value, bool))

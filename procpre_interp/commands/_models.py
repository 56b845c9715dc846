"""The models that `probe` and `patch` look at: of stored runs at some stage, or a GPT-2 of Hugging Face's."""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pandas as pd
import plotly.graph_objects as go
from pandas.api.types import is_numeric_dtype

from procpre_interp.commands._options import task_fields
from procpre_interp.core.config import from_dict, to_dict
from procpre_interp.core.places import check_file
from procpre_interp.core.terminal import default_store
from procpre_interp.core.text_table import GAP, print_table, stdout_console, text_width
from procpre_interp.data import Task
from procpre_interp.data.imported import ImportedTask
from procpre_interp.data.samples import MOST_SEQUENCES, SEQUENCES
from procpre_interp.model import from_huggingface
from procpre_interp.pipeline.lineage import StageName, Subject, moment_named
from procpre_interp.stats.resampling import bootstrap_interval, interval_note
from procpre_interp.store.cells import is_missing
from procpre_interp.store.store import RunStore
from procpre_interp.views.html_page import Section, write_report

Format = Literal["table", "csv", "json"]
MOST_ROWS = 80
"""Largest number of rows of a table on the screen."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """What `probe` and `patch` share: which models, which task, and where the table goes."""

    stage: StageName = "finished"
    """Which model of a run's lineage: before or after phase 1, fresh, transplanted, or finished."""
    task: str | None = None
    """Another task than the stage's own, whose tokens the model knows: a name, or YAML such as '{name: dyck, k: 4}'."""
    sequences: int = SEQUENCES
    """Sequences, or pairs, to measure on."""
    store: Path = field(default_factory=default_store)
    """Folder of the runs."""
    format: Format = "table"
    """table for people (means over runs), csv and json for programs (every row)."""
    html: Path | None = None
    """Also write one HTML file with the figures and the whole table."""

    def __post_init__(self) -> None:
        if self.html is not None:
            check_file(self.html)


def subjects(names: Sequence[str], command: Look, what: str, *, with_data: bool = True) -> list[Subject]:
    """The models that are named: RUN, RUN@STEP, or a folder with Hugging Face's config.json; each of them once.

    Raises `ValueError` for none, an unknown run, a stage that a model does not have, and, `with_data` of a task, a
    model without one, or to which it does not belong, and where a table for people would have means over several tasks.
    """
    check_named(names, what)
    if not 1 <= command.sequences <= MOST_SEQUENCES:
        raise ValueError(f"sequences={command.sequences}; there must be at least 1, and at most {MOST_SEQUENCES:,}")
    task = None if command.task is None else named_task(command.task)
    store = RunStore(command.store)
    stage = command.stage
    own = [name for name in dict.fromkeys(names) if not is_foreign(name)]
    made = {name: moment_named(name, store, stage=stage).load(store, task) for name in own}
    folders = {Path(name).resolve(): name for name in names if is_foreign(name)}
    labels = folder_labels(list(folders.values()), taken=[subject.label for subject in made.values()])
    made |= {name: _of_folder(name, label, stage, task, with_data) for name, label in zip(folders.values(), labels)}
    # Two names of one run, or of one folder, are one subject: else it would count twice among the n.
    found = list({made[name].label: made[name] for name in names if name in made}.values())
    if with_data:
        for subject in found:
            _check_task(subject)
    check_one_task([subject.task for subject in found], command)
    return found


def check_one_task(tasks: Sequence[Task], command: Look) -> None:
    """Raise `ValueError` where a table for people would have means over several tasks, or texts."""
    named = task_names(tasks)
    if len(named) > 1 and command.format == "table":
        raise ValueError(
            f"these models are measured on {', '.join(named)}, over which means say nothing; give those of one task, "
            "or --format csv, which has a row for each"
        )


def task_names(tasks: Sequence[Task]) -> list[str]:
    """What to call each of these tasks, once: by its name, and where several have one by the fields that differ."""
    each = list(dict.fromkeys(tasks))
    names = []
    for task in each:
        alike = [to_dict(other, defaults=True) for other in each if other.name == task.name]
        own = to_dict(task, defaults=True).items()
        differ = {key: value for key, value in own if any(other.get(key) != value for other in alike)}
        # A hash says nothing beside the name of what it is of.
        differ = {key: value for key, value in differ.items() if not key.endswith("_hash")} or differ
        said = ", ".join(f"{key}={value}" for key, value in differ.items())
        names.append(f"{task.name} ({said})" if said else task.name)
    return names


def options_given(command: Look, names: Collection[str]) -> list[str]:
    """Those of these options whose values are not the default ones, as they are written."""
    default = type(command)()
    return [f"--{name.replace('_', '-')}" for name in names if getattr(command, name) != getattr(default, name)]


def check_named(names: Sequence[str], what: str) -> None:
    """Raise `ValueError` where no run is named."""
    if not names:
        raise ValueError(f"procpre-interp {what} wants a RUN or several; `procpre-interp runs` lists them")


def is_foreign(name: str) -> bool:
    """Whether this is a folder of Hugging Face's, and no run."""
    folder = Path(name)
    return (folder / "config.json").is_file() and not (folder / "manifest.json").is_file()


def folder_labels(folders: Sequence[str], *, taken: Collection[str] = ()) -> list[str]:
    """What to call each folder: the shortest end of its path that no other one has, and that is not `taken`.

    So `a/checkpoint-1000` and `b/checkpoint-1000` are told apart, and `.` has the folder's own name.
    """
    paths = [Path(os.path.abspath(folder)) for folder in folders]
    tails = [["/".join(path.parts[-n:]) for n in range(1, len(path.parts) + 1)] for path in paths]
    labels = []
    for index, own in enumerate(tails):
        others = {tail for other in tails[:index] + tails[index + 1 :] for tail in other}.union(taken)
        labels.append(next((tail for tail in own if tail not in others), str(paths[index])))
    return labels


def _of_folder(folder: str, label: str, stage: StageName, task: Task | None, with_data: bool) -> Subject:
    if task is None and with_data:
        raise ValueError(f"{folder} is a model without a task; give --task, whose token ids must be the model's")
    if stage != "finished":
        raise ValueError(f"{folder} is a model without stages, so --stage {stage} has no meaning for it")
    model = from_huggingface(folder)
    task = task or ImportedTask(vocab=model.config.d_vocab, length=model.config.n_ctx)
    return Subject(label=label, model=model, task=task, moment=None)


def of_stored_runs(names: Sequence[str], what: str) -> None:
    """Raise `ValueError` where a model from elsewhere is among them, which has no other moments to compare with."""
    for name in names:
        if is_foreign(name):
            raise ValueError(f"{name} is a model without stages; --what {what} wants runs")


def named_task(text: str) -> Task:
    """A task from its name, or from YAML with its fields."""
    return from_dict(Task, task_fields(text, "--task")).resolve()


def _check_task(subject: Subject) -> None:
    """Raise `ValueError` where the task has no data, or tokens or positions that the model does not know."""
    task, model = subject.task, subject.model
    task.prepare()
    if task.d_vocab > model.config.d_vocab or task.n_ctx > model.config.n_ctx:
        raise ValueError(
            f"{task.name} has {task.d_vocab} token ids and sequences of {task.n_ctx}; the model knows "
            f"{model.config.d_vocab} ids and {model.config.n_ctx} positions"
        )


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of a table people are shown: what names a row, and its numbers."""

    keys: tuple[str, ...]
    values: tuple[str, ...]
    spread: str | None = None
    """Key whose values become columns, each with the first of `values`; a last row has the second. Default: none."""


def means_over_runs(table: pd.DataFrame, columns: Columns) -> pd.DataFrame:
    """The table for people, as text: one row per place, numbers as means over runs with their intervals.

    Rows of one run and place, such as random draws, are averaged first. A mean over fewer than the `n` runs, where the
    others have no such number, says of how many it is.
    """
    keys, values = list(columns.keys), list(columns.values)
    each = table.groupby(["run", *keys], sort=False, dropna=False, as_index=False).agg(dict.fromkeys(values, "mean"))
    several = len(set(table["run"])) > 1
    rows = []
    for _, group in each.groupby(keys, sort=False, dropna=False):
        row = {key: cell_text(value) for key, value in group.iloc[0][keys].items()}
        for value in values:
            known = group[value].dropna().to_numpy(dtype=float)
            found = bootstrap_interval(known)
            row[value] = cell_text(found.estimate)
            if several and len(known) > 1:
                row[value] += f" [{cell_text(found.low)}, {cell_text(found.high)}]"
            if 0 < len(known) < len(group):
                row[value] += f" of {len(known)}"
        rows.append(row | ({"n": str(len(group))} if several else {}))
    return pd.DataFrame(rows)


def spread_out(text: pd.DataFrame, columns: Columns, width: int) -> list[pd.DataFrame]:
    """A table of `means_over_runs` with a row per place and a column per value of `spread`, in parts of this width."""
    if columns.spread is None or text.empty:
        return [text]
    places = [key for key in columns.keys if key != columns.spread]
    value, reference = columns.values[:2]
    wide = text.pivot(index=places, columns=columns.spread, values=value).fillna("")
    # In the order that they came in: as text, head 10 would stand before head 2.
    order = pd.MultiIndex.from_frame(text.loc[:, places].drop_duplicates())
    wide = wide.reindex(order).loc[:, list(dict.fromkeys(text[columns.spread]))]
    last = text.groupby(columns.spread)[reference].first()[list(wide)].tolist()
    rows = pd.concat(
        [wide.reset_index(), pd.DataFrame([[reference, *[""] * (len(places) - 1), *last]], columns=[*places, *wide])],
        ignore_index=True,
    )
    counts = []
    if "n" in text:  # of several runs; scores that not all of them have differ in it
        several = text.groupby(places, sort=False)["n"].agg(lambda n: "/".join(dict.fromkeys(n)))
        rows["n"], counts = [*several.loc[order], ""], ["n"]
    parts: list[list[str]] = [[]]
    for score in map(str, wide):
        if parts[-1] and text_width(rows.loc[:, [*places, *parts[-1], score, *counts]].to_dict("list")) - GAP > width:
            parts.append([])
        parts[-1].append(score)
    return [rows.loc[:, [*places, *part, *counts]] for part in parts]


def show(table: pd.DataFrame, columns: Columns, command: Look, figures: Sequence[go.Figure], title: str) -> None:
    """Print the table as asked, and write the HTML file."""
    if command.format == "csv":
        print(table.to_csv(index=False), end="")
    elif command.format == "json":
        print(table.to_json(orient="records", indent=1))
    else:
        runs, text = len(set(table["run"])), means_over_runs(table, columns)
        console = stdout_console()
        words = [key for key in columns.keys if not is_numeric_dtype(table[key])]
        for part in spread_out(text, columns, console.width):
            print_table(console, part.head(MOST_ROWS).to_dict("list"), title, left=words)
            title = ""
            if len(part) > MOST_ROWS:
                console.print(f"{MOST_ROWS} of {len(part)} rows")
        if runs > 1:
            console.print(f"Means over {runs} runs, and intervals: {interval_note(runs)}")
        console.print("--format csv has every row and column")
    if command.html is not None:
        sections = [Section(title="Figures", blocks=list(figures)), Section(title="Every row", blocks=[table])]
        where = write_report(command.html, title, [each for each in sections if each.blocks])
        if command.format == "table":
            print(f"report: {where}")


def cell_text(value: object) -> str:
    if is_missing(value):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def stage_title(found: Sequence[Subject], what: str) -> str:
    """What was measured, on which task, and at which stages of the runs; nothing is said of models from elsewhere."""
    what = ", ".join([what, *task_names([subject.task for subject in found])])
    when = ", ".join(dict.fromkeys(subject.moment.when for subject in found if subject.moment is not None))
    return f"{what} ({when})" if when else what

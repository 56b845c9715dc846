"""A finished run: its files, each checked against the manifest when it is read."""

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pyarrow as pa

from procpre_interp.core import checksums
from procpre_interp.core.checksums import FileEntry
from procpre_interp.core.html import fields_html
from procpre_interp.core.messages import one_line, unknown_name
from procpre_interp.core.plain_values import parse_json, parse_yaml
from procpre_interp.core.schema import ClassFields, ConfigFields, ParentFields, Summary, check_config, check_summary
from procpre_interp.store.parquet import read_parquet
from procpre_interp.store.reading import (
    REQUIRED,
    DamagedRun,
    UnknownRun,
    read_fields,
    read_manifest,
    reading,
    with_parents,
)

_STEP = re.compile(r"weights/step_(\d+)\.safetensors")
TOKENIZER = "tokenizer.json"
"""The tokenizer of a run that was imported."""
OPTIMISER = "optimiser.safetensors"
"""The optimiser's final state, where it was kept."""
OWN_FILES = re.compile(
    rf"(config\.yaml|(environment|summary|tokenizer)\.json|(history|examples|answers)\.parquet|{_STEP.pattern}"
    rf"|{re.escape(OPTIMISER)}"
    r"|plugins/[0-9a-f]+/[\w.-]+)"
)
"""The files of a run; the system or an editor may leave others in its folder."""
HISTORY_NUMBERS = ("step", "tokens", "seconds", "task_length", "loss_nats", "accuracy", "exact_match", "learning_rate")
_SHAPE = {"n_layers": "layers", "n_heads": "heads", "d_model": "wide", "n_parameters": "parameters"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A finished run. Its files are read on demand, and each is checked against the manifest."""

    id: str
    folder: Path
    config: ConfigFields
    summary: Summary
    environment: Mapping[str, object]
    manifest: Mapping[str, FileEntry] = field(repr=False)
    verified: bool = field(repr=False)
    """Whether every file's content was compared with the manifest when the run was opened."""

    @property
    def seed(self) -> int:
        """Seed of the fresh weights and of the data. (A config leaves it out at its default, 0.)"""
        return int(self.config.get("seed", 0))

    @property
    def task(self) -> ClassFields:
        """Fields of its task, the name among them. Raises `DamagedRun` for a config that names none."""
        task = self.config.get("task", {})
        if "name" not in task:
            raise DamagedRun(self.folder, "config.yaml names no task")
        return task

    @property
    def accuracy(self) -> float:
        """Test token accuracy, a share; NaN where it diverged."""
        accuracy = self.summary["accuracy"]
        return math.nan if accuracy is None else float(accuracy)

    @property
    def first_step(self) -> int:
        """Step from which the run went on with the training of its first parent; 0 for a training of its own."""
        return int(self.config.get("train", {}).get("start_at", 0))

    @property
    def steps(self) -> list[int]:
        """Steps whose weights were kept; the last is the final one."""
        return sorted(int(found[1]) for name in self.manifest if (found := _STEP.fullmatch(name)))

    @property
    def is_light(self) -> bool:
        """Whether it is a copy that something was left out of."""
        return "left_out" in self.summary

    def lacks_weights(self, step: int | None = None) -> bool:
        """Whether it is a copy without the weights of a step, by default the last one."""
        return self.is_light and (self.summary.get("steps") if step is None else step) not in self.steps

    def file(self, name: str) -> Path:
        """Path of one file, its content checked. Raises `DamagedRun`, or `ValueError` without such a file."""
        self._require(name)
        if not self.verified:
            with self.reading():
                checksums.check_content(self.folder, name, self.manifest)
        return self.folder / name

    def read(self, name: str) -> bytes:
        """The content of one file, checked. Raises `DamagedRun`, or `ValueError` without such a file."""
        self._require(name)
        with self.reading():
            return checksums.read_checked(self.folder, name, self.manifest)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Turns errors of reading its files into `DamagedRun`, or `UnknownRun` where it was deleted meanwhile."""
        with reading(self.folder):
            yield

    def _require(self, name: str) -> None:
        if name not in self.manifest:
            raise unknown_name(f"file of run {self.id}", name, list(self.manifest))

    def weights_path(self, step: int | None = None) -> Path:
        """The weights after `step` optimiser steps, by default the final ones."""
        steps = self.steps
        if not steps or (step is not None and step not in steps):
            which = "no weights" if step is None else f"no weights of step {step}"
            hint = f". It is a copy without them; --config {self.folder / 'config.yaml'} with the command train, or "
            hint += "transfer if it has parents, computes them again"
            raise ValueError(
                f"run {self.id} keeps {which}; there are: {steps}{hint if self.lacks_weights(step) else ''}"
            )
        return self.file(weights_name(steps[-1] if step is None else step))

    def history(self) -> pd.DataFrame:
        """One row per evaluation (step, split, loss_nats, accuracy, ...), the run and its seed first."""
        table = self._table("history.parquet")
        if missing := {"step", "split"} - set(table):
            raise DamagedRun(self.folder, f"history.parquet lacks {', '.join(sorted(missing))}")
        for name in set(HISTORY_NUMBERS) & set(table):
            if not is_numeric(table, name):
                raise DamagedRun(self.folder, f"the column {name} of history.parquet holds no numbers")
        return table

    def examples(self) -> pd.DataFrame:
        """One row per example of the final test, the run and its seed first."""
        return self._table("examples.parquet")

    def answers(self) -> pd.DataFrame:
        """One row per question of the final test that the model answered by itself, of a run on text that asks."""
        return self._table("answers.parquet")

    def __str__(self) -> str:
        """What it is, how it went, and where it is, in a few lines."""
        seen, n = self.summary, self.summary.get("steps")
        how = f"{seen.get('status')} after {n:,} steps" if isinstance(n, int) else f"{seen.get('status')}"
        lines = [f"Run {self.id}: {seen.get('task')}, seed {self.seed}, {how} ({seen.get('stop_reason')})"]
        if isinstance(accuracy := seen.get("accuracy"), float) and isinstance(loss := seen.get("loss_nats"), float):
            lines.append(f"  test: accuracy {accuracy:.1%}, loss {loss:.4f} nats per token")
        if parents := [f"{each['run']} ({each.get('selector', 'all')})" for each in parents_of(self)]:
            state = "; with their optimiser's state" if self.config.get("optimiser") == "carried" else ""
            lines.append(f"  weights from: {', '.join(parents)}{state}")
        if start := self.first_step:
            lines.append(f"  goes on from step {start:,} of the first of them")
        if imported := self.config.get("imported"):
            lines.append(f"  imported from: {imported.get('folder')}, {len(imported['files'])} files")
        return "\n".join([*lines, f"  {self.folder}"])

    def __repr__(self) -> str:
        return f"Run({self.id!r}, {self.summary.get('task')}, seed {self.seed}, {self.summary.get('status')})"

    def _repr_html_(self) -> str:
        """What it is, how it went, and where its weights came from, as a notebook shows it."""
        seen = ("status", "stop_reason", "task", "steps", "accuracy", "exact_match", "loss_nats", "breakthrough_step")
        fields = {"seed": str(self.seed), **{name: self.summary.get(name) for name in seen}}
        parents = [f"{each['run']} ({each.get('selector', 'all')})" for each in parents_of(self)]
        fields |= {"parents": ", ".join(parents), "kept steps": ", ".join(f"{step:,}" for step in self.steps)}
        if self.first_step:
            fields["went on from step"] = f"{self.first_step:,}"
        if "optimiser" in self.config:
            fields["optimiser"] = self.config["optimiser"]
        shape = [f"{self.summary[name]} {word}" for name, word in _SHAPE.items() if name in self.summary]
        fields |= {"model": ", ".join(shape), "seconds": self.summary.get("seconds"), "folder": str(self.folder)}
        return fields_html(f"Run {self.id}", fields)

    def _table(self, name: str) -> pd.DataFrame:
        content = self.read(name)
        try:
            table = read_parquet(content)
        except (OSError, ValueError, LookupError, pa.ArrowException) as problem:
            raise DamagedRun(self.folder, f"{name} cannot be read ({one_line(problem)})") from None
        labels = {"run": self.id} | ({"seed": self.summary["seed"]} if "seed" in self.summary else {})
        rest = table.loc[:, [column for column in table if column not in labels]]
        return pd.DataFrame(labels, index=rest.index).join(rest)


def load_run(run: Run | str | Path) -> Run:
    """A finished run from its folder, wherever that is; a `Run` is returned as it is.

    Each file's content is checked when it is read. Raises `UnknownRun` where there is none, or `DamagedRun`.
    """
    if isinstance(run, Run):
        return run
    folder = Path(os.path.expanduser(run)).resolve()  # whose name is the run's id, also for "."
    if not (folder / checksums.MANIFEST).is_file():
        raise UnknownRun(f"no finished run in {folder}; give a run's folder, or RunStore(STORE).open(ID)")
    return read_run(folder, verify=False)


def load_history(run: Run | str | Path) -> pd.DataFrame:
    """The evaluations of a run, given as a `Run` or as its folder; one row per observation."""
    return load_run(run).history()


def parents_of(run: Run) -> list[ParentFields]:
    """The run's parents as its config has them."""
    return run.config.get("parents") or []


def joined_history(parts: Sequence[Run]) -> pd.DataFrame:
    """The evaluations of a training that was done in parts, the first one first; tokens and seconds count from there.

    Where one part ended and the next began there are two: before what was done in between, and after it.
    """
    if len(parts) == 1:
        return parts[0].history()
    histories, tokens, seconds = [], 0, 0.0
    for run in parts:
        history = run.history()
        histories.append(history.assign(tokens=history["tokens"] + tokens, seconds=history["seconds"] + seconds))
        tokens, seconds = tokens + run.summary["tokens"], seconds + run.summary["seconds"]
    return pd.concat(histories, ignore_index=True)


def of_whole_task(history: pd.DataFrame) -> pd.DataFrame:
    """The evaluations on the task as it is: others of a curriculum are of shorter, easier sequences."""
    return history.loc[history["task_length"].isna()] if "task_length" in history else history


def read_run(folder: Path, *, verify: bool) -> Run:
    """The finished run in `folder`; with `verify` all contents are checked now.

    Raises `DamagedRun`, or `UnknownRun` where it is deleted meanwhile.
    """
    manifest = read_manifest(folder)
    with reading(folder):
        for name in set(manifest) - set(REQUIRED) if verify else ():
            checksums.check_content(folder, name, manifest)
        config = read_fields(folder, "config.yaml", manifest, parse_yaml, check_config)
        environment = read_fields(folder, "environment.json", manifest, parse_json)
        summary = with_parents(read_fields(folder, "summary.json", manifest, parse_json, check_summary))
    return Run(
        id=folder.name,
        folder=folder,
        config=config,
        summary=summary,
        environment=environment,
        manifest=manifest,
        verified=verify,
    )


def is_numeric(table: pd.DataFrame, column: str) -> bool:
    """Whether a column holds numbers, or no values at all."""
    return bool(pd.api.types.is_numeric_dtype(table[column].dtype) or table[column].isna().to_numpy().all())


def weights_name(step: int) -> str:
    return f"weights/step_{step:08d}.safetensors"

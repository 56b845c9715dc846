"""One run: reading a finished one, each file checked against the manifest, and writing one."""

import io
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from procpre_interp.core import atomic_files, schema
from procpre_interp.core.config import parse_yaml
from procpre_interp.core.environment import now
from procpre_interp.core.html import fields_html
from procpre_interp.core.plugins import Plugin
from procpre_interp.core.registry import unknown_name

_STEP = re.compile(r"weights/step_(\d+)\.safetensors")
_RESUME, _PREVIOUS = "resume.safetensors", "resume.previous.safetensors"
_REQUIRED = ("config.yaml", "environment.json", "summary.json")
OWN_FILES = re.compile(
    rf"(config\.yaml|(environment|summary)\.json|(history|examples)\.parquet|{_STEP.pattern}"
    r"|plugins/[0-9a-f]+/[\w.-]+)"
)
"""The files of a run; the system or an editor may leave others in its folder."""
_LARGEST_HEADER = 100_000_000  # bytes; that of the format
_HISTORY_NUMBERS = ("step", "tokens", "seconds", "task_length", "loss_nats", "accuracy", "exact_match", "learning_rate")
_SHAPE = {"n_layers": "layers", "n_heads": "heads", "d_model": "wide", "n_parameters": "parameters"}


class UnknownRun(ValueError, LookupError):
    """No run, or no table, of that name."""


class DamagedRun(ValueError):
    """A finished run whose files are not those that were written, or hold what no run writes."""

    def __init__(self, folder: Path, problem: str) -> None:
        super().__init__(
            f"run {folder.name} is damaged: {problem}. Remove {folder} and repeat its command: it is computed again."
        )
        self.folder, self.problem = folder, problem

    def __reduce__(
        self,
    ) -> tuple[Any, ...]:  # an error of a worker process must reach the one that waits for it
        return type(self), (self.folder, self.problem)


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A finished run. Its files are read on demand, and each is checked against the manifest."""

    id: str
    folder: Path
    config: dict[str, Any]
    summary: dict[str, Any]
    environment: dict[str, Any]
    manifest: dict[str, dict[str, Any]] = field(repr=False)
    verified: bool = field(repr=False)
    """Whether every file's content was compared with the manifest when the run was opened."""

    @property
    def seed(self) -> int:
        """Seed of the fresh weights and of the data. (A config leaves it out at its default, 0.)"""
        return int(self.config.get("seed", 0))

    @property
    def steps(self) -> list[int]:
        """Steps whose weights were kept; the last is the final one."""
        return sorted(int(found[1]) for name in self.manifest if (found := _STEP.fullmatch(name)))

    def file(self, name: str) -> Path:
        """Path of one file, its content checked. Raises `DamagedRun`, or `ValueError` without such a file."""
        self._require(name)
        if not self.verified:
            with self.reading():
                atomic_files.check_content(self.folder, name, self.manifest)
        return self.folder / name

    def read(self, name: str) -> bytes:
        """The content of one file, checked. Raises `DamagedRun`, or `ValueError` without such a file."""
        self._require(name)
        with self.reading():
            return atomic_files.read_checked(self.folder, name, self.manifest)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Turns errors of reading its files into `DamagedRun`, or `UnknownRun` where it was deleted meanwhile."""
        with _reading(self.folder):
            yield

    def _require(self, name: str) -> None:
        if name not in self.manifest:
            raise unknown_name(f"file of run {self.id}", name, list(self.manifest))

    def weights_path(self, step: int | None = None) -> Path:
        """The weights after `step` optimiser steps, by default the final ones."""
        steps = self.steps
        if not steps or (step is not None and step not in steps):
            raise ValueError(f"run {self.id} keeps no weights of step {step}; there are: {steps}")
        return self.file(_weights_name(steps[-1] if step is None else step))

    def history(self) -> pd.DataFrame:
        """One row per evaluation (step, split, loss_nats, accuracy, ...), the run and its seed first."""
        table = self._table("history.parquet")
        if missing := {"step", "split"} - set(table):
            raise DamagedRun(self.folder, f"history.parquet lacks {', '.join(sorted(missing))}")
        for name in set(_HISTORY_NUMBERS) & set(table):
            if not is_numeric(table, name):
                raise DamagedRun(self.folder, f"the column {name} of history.parquet holds no numbers")
        return table

    def examples(self) -> pd.DataFrame:
        """One row per example of the final test, the run and its seed first."""
        return self._table("examples.parquet")

    def __str__(self) -> str:
        """What it is, how it went, and where it is, in a few lines."""
        seen, n = self.summary, self.summary.get("steps")
        how = f"{seen.get('status')} after {n:,} steps" if isinstance(n, int) else f"{seen.get('status')}"
        lines = [f"Run {self.id}: {seen.get('task')}, seed {self.seed}, {how} ({seen.get('stop_reason')})"]
        if isinstance(accuracy := seen.get("accuracy"), float) and isinstance(loss := seen.get("loss_nats"), float):
            lines.append(f"  test: accuracy {accuracy:.1%}, loss {loss:.4f} nats per token")
        if parents := [f"{each['run']} ({each.get('selector', 'all')})" for each in self.config.get("parents") or []]:
            lines.append(f"  weights from: {', '.join(parents)}")
        return "\n".join([*lines, f"  {self.folder}"])

    def __repr__(self) -> str:
        return f"Run({self.id!r}, {self.summary.get('task')}, seed {self.seed}, {self.summary.get('status')})"

    def _repr_html_(self) -> str:
        """What it is, how it went, and where its weights came from, as a notebook shows it."""
        seen = ("status", "stop_reason", "task", "steps", "accuracy", "exact_match", "loss_nats", "breakthrough_step")
        fields = {"seed": str(self.seed), **{name: self.summary.get(name) for name in seen}}
        parents = [f"{each['run']} ({each.get('selector', 'all')})" for each in self.config.get("parents") or []]
        fields |= {"parents": ", ".join(parents), "kept steps": ", ".join(f"{step:,}" for step in self.steps)}
        shape = [f"{self.summary[name]} {word}" for name, word in _SHAPE.items() if name in self.summary]
        fields |= {"model": ", ".join(shape), "seconds": self.summary.get("seconds"), "folder": str(self.folder)}
        return fields_html(f"Run {self.id}", fields)

    def _table(self, name: str) -> pd.DataFrame:
        content = self.read(name)
        try:
            table = pd.read_parquet(io.BytesIO(content))
        except (OSError, ValueError, LookupError, pa.ArrowException) as problem:
            raise DamagedRun(self.folder, f"{name} cannot be read ({_one_line(problem)})") from None
        labels = {"run": self.id} | ({"seed": self.summary["seed"]} if "seed" in self.summary else {})
        rest = table.loc[:, [column for column in table if column not in labels]]
        return pd.DataFrame(labels, index=rest.index).join(rest)


@dataclass(frozen=True, kw_only=True, slots=True)
class PartialRun:
    """A run being written by this process, which holds its lock. Files appear whole or not at all."""

    id: str
    folder: Path
    finished_folder: Path = field(repr=False)

    @property
    def resume_path(self) -> Path:
        """Where the training state is kept from which an interrupted run goes on; removed by `finish`."""
        return self.folder / _RESUME

    def weights_path(self, step: int) -> Path:
        """Where the weights of a checkpoint belong (write them within `atomic_files.atomic_write`)."""
        path = self.folder / _weights_name(step)
        path.parent.mkdir(exist_ok=True)
        return path

    def write_config(self, yaml_text: str) -> None:
        """Store the resolved config."""
        atomic_files.write_text(self.folder / "config.yaml", yaml_text)

    def write_json(self, name: str, value: Any) -> None:
        """Store a small value, such as `environment.json`."""
        atomic_files.write_json(self._own(name), value)

    def write_plugin(self, plugin: Plugin) -> None:
        """Keep a copy of a plugin's file, to be read or to be named by the user: nothing in a store is ever loaded."""
        folder = self.folder / "plugins" / plugin.digest
        folder.mkdir(parents=True, exist_ok=True)
        atomic_files.write_text(folder / plugin.name, plugin.text())

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        """Store a table as parquet: `history`, `examples`."""
        with atomic_files.atomic_write(self._own(f"{name.removesuffix('.parquet')}.parquet")) as temporary:
            table.to_parquet(temporary, index=False)

    def check_weights(self, kept: Mapping[str, str]) -> None:
        """Raise `ValueError` where weights, named by step, no longer have the SHA-256 that they were written with."""
        for step, digest in kept.items():
            name = _weights_name(int(step))
            try:
                found = atomic_files.sha256(self.folder / name)
            except OSError as problem:
                raise ValueError(f"{name} cannot be read ({problem.strerror})") from None
            if found != digest:
                raise ValueError(f"{name} has changed since it was written")

    def finish(self, summary: Mapping[str, Any], *, created: str | None = None) -> Run:
        """Seal the folder and move it among the finished runs; `summary` is its row in the list of runs.

        `created` is now, but for a copy of a run, which keeps its time. Raises `ValueError` for a summary that does
        not fit the list.
        """
        row = atomic_files.plain({"run": self.id, "status": "finished", **summary, "created": created or now()})
        schema.check_summary(row)
        self.write_json("summary.json", row)
        if missing := [name for name in _REQUIRED if not (self.folder / name).is_file()]:
            raise FileNotFoundError(f"{self.folder / missing[0]} was deleted while the run was computed; repeat it")
        atomic_files.seal(self.folder, OWN_FILES)
        self.finished_folder.parent.mkdir(exist_ok=True)
        self.folder.rename(self.finished_folder)
        # Only now: a process killed a moment earlier would have lost the whole run.
        for name in (_RESUME, _PREVIOUS):
            (self.finished_folder / name).unlink(missing_ok=True)
        atomic_files.sync_folder(self.finished_folder.parent)
        atomic_files.sync_folder(self.folder.parent)
        return read_run(self.finished_folder, verify=False)

    def _own(self, name: str) -> Path:
        if not OWN_FILES.fullmatch(name):
            raise ValueError(f"{name!r} is not a file of a run; it would be left out when the run is finished")
        return self.folder / name


@dataclass(frozen=True, kw_only=True, slots=True)
class SavedState:
    """How far a run being written has come, as the training state says that it saved last."""

    step: int
    seconds: float
    """Time spent training and evaluating, over all sittings."""
    history: pd.DataFrame = field(repr=False)
    """One row per evaluation so far, as `Run.history` will have it; empty before the first."""


def saved_state(folder: Path) -> SavedState | None:
    """What a run being written has saved in its folder, read without its weights; None where there is nothing."""
    for name in (_RESUME, _PREVIOUS):
        try:
            with atomic_files.open_regular(folder / name) as file:
                header = json.loads(file.read(min(int.from_bytes(file.read(8), "little"), _LARGEST_HEADER)))
            state = json.loads(header["__metadata__"]["state"])
            history = pd.DataFrame([dict(row) for row in state.get("history", [])])
            for column in set(history) & set(_HISTORY_NUMBERS):
                history[column] = pd.to_numeric(history[column])
            return SavedState(step=int(state["step"]), seconds=float(state.get("seconds", 0.0)), history=history)
        except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
            continue
    return None


def load_run(run: Run | str | Path) -> Run:
    """A finished run from its folder, wherever that is; a `Run` is returned as it is.

    Each file's content is checked when it is read. Raises `UnknownRun` where there is none, or `DamagedRun`.
    """
    if isinstance(run, Run):
        return run
    folder = Path(os.path.expanduser(run)).resolve()  # whose name is the run's id, also for "."
    if not (folder / atomic_files.MANIFEST).is_file():
        raise UnknownRun(f"no finished run in {folder}; give a run's folder, or RunStore(STORE).open(ID)")
    return read_run(folder, verify=False)


def saved_step(folder: Path) -> int | None:
    """Steps behind the training state that a run being written has saved in its folder; None where there is none."""
    state = saved_state(folder)
    return None if state is None else state.step


def unfinished_config(folder: Path) -> dict[str, Any]:
    """The config of a run being written; empty where it is not there yet, or cannot be read."""
    try:
        config = _parse_yaml(atomic_files.read_regular(folder / "config.yaml"))
        if not isinstance(config, dict):
            return {}
        schema.check_config(config)
    except (OSError, ValueError):
        return {}
    return config


def unfinished_fields(folder: Path) -> dict[str, Any]:
    """What is known of a run being written, under the names of a summary; nothing where its config cannot be read."""
    if not (config := unfinished_config(folder)):
        return {}
    parents = config.get("parents") or []
    return {
        "task": config.get("task", {}).get("name"),
        "seed": config.get("seed", 0),
        "parents": tuple(parent["run"] for parent in parents),
        "components": ", ".join(parent.get("selector", "all") for parent in parents) or None,
        "steps": saved_step(folder) or 0,
    }


def load_history(run: Run | str | Path) -> pd.DataFrame:
    """The evaluations of a run, given as a `Run` or as its folder; one row per observation."""
    return load_run(run).history()


def read_run(folder: Path, *, verify: bool) -> Run:
    """The finished run in `folder`; with `verify` all contents are checked now.

    Raises `DamagedRun`, or `UnknownRun` where it is deleted meanwhile.
    """
    manifest = read_manifest(folder)
    with _reading(folder):
        for name in set(manifest) - set(_REQUIRED) if verify else ():
            atomic_files.check_content(folder, name, manifest)
        config = _fields(folder, "config.yaml", manifest, _parse_yaml, schema.check_config)
        environment = _fields(folder, "environment.json", manifest, schema.parse_json)
        summary = _with_parents(_fields(folder, "summary.json", manifest, schema.parse_json, schema.check_summary))
    return Run(
        id=folder.name,
        folder=folder,
        config=config,
        summary=summary,
        environment=environment,
        manifest=manifest,
        verified=verify,
    )


def read_summary(folder: Path) -> dict[str, Any]:
    """The summary of the run in `folder`, as `read_run` checks it; the quickest look at a run."""
    manifest = read_manifest(folder)
    with _reading(folder):
        return _with_parents(_fields(folder, "summary.json", manifest, schema.parse_json, schema.check_summary))


def _with_parents(summary: dict[str, Any]) -> dict[str, Any]:
    """The summary with its parents as a tuple of ids; older versions wrote text, with commas between them, or null."""
    parents = summary.get("parents") or ()
    return {**summary, "parents": tuple(parents.split(", ") if isinstance(parents, str) else parents)}


def read_manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """The manifest of the run in `folder`, names and sizes checked.

    Raises `DamagedRun`, or `UnknownRun` where it is deleted meanwhile.
    """
    with _reading(folder):
        return atomic_files.read_manifest(folder, _REQUIRED)


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """Errors of reading a run's files as `DamagedRun`, or as `UnknownRun` where the run is gone."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as problem:  # torch's of a file that went away is of the last kind
        if not folder.is_dir():
            raise UnknownRun(f"run {folder.name} was deleted while it was read") from None
        if isinstance(problem, DamagedRun):
            raise
        raise DamagedRun(folder, _one_line(problem)) from None


def _parse_yaml(content: bytes) -> Any:
    """The plain value that YAML describes; no code runs. Raises `ValueError` for anything else."""
    value = parse_yaml(content)
    schema.check_plain(value)
    return value


def _fields(
    folder: Path,
    name: str,
    manifest: Mapping[str, Mapping[str, Any]],
    parse: Callable[[bytes], Any],
    check: Callable[[dict[str, Any]], None] = lambda fields: None,
) -> dict[str, Any]:
    """What a small file holds. Raises `ValueError` where its content changed, or is not what a run writes."""
    content = atomic_files.read_checked(folder, name, manifest)
    try:
        found = parse(content)
    except ValueError as problem:
        raise ValueError(f"{name} cannot be read ({_one_line(problem)})") from None
    if not isinstance(found, dict):
        raise ValueError(f"{name} holds no fields")
    try:
        check(found)
    except ValueError as problem:
        raise ValueError(f"{name}: {problem}") from None
    return found


def is_numeric(table: pd.DataFrame, column: str) -> bool:
    """Whether a column holds numbers, or no values at all."""
    return bool(pd.api.types.is_numeric_dtype(table[column].dtype) or table[column].isna().to_numpy().all())


def _one_line(problem: Exception) -> str:
    return " ".join(str(problem).split())


def _weights_name(step: int) -> str:
    return f"weights/step_{step:08d}.safetensors"

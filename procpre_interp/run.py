"""One run: reading a finished one, each file checked against the manifest, and writing one."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from procpre_interp import files
from procpre_interp.config import yaml_fields
from procpre_interp.environment import now
from procpre_interp.notebook import fields_html
from procpre_interp.registry import unknown_name

_STEP = re.compile(r"weights/step_(\d+)\.safetensors")
_RESUME = "resume.safetensors"
_SHAPE = {"n_layers": "layers", "n_heads": "heads", "d_model": "wide", "n_parameters": "parameters"}


class UnknownRun(ValueError, LookupError):
    """No run, or no table, of that name."""


class DamagedRun(ValueError):
    """A finished run whose files are not those that were written."""

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
        """Of the fresh weights and of the data. (A config leaves out what is at its default, 0.)"""
        return int(self.config.get("seed", 0))

    @property
    def steps(self) -> list[int]:
        """Steps whose weights were kept; the last is the final one."""
        return sorted(int(found[1]) for name in self.manifest if (found := _STEP.fullmatch(name)))

    def file(self, name: str) -> Path:
        """Path of one file, its content checked. Raises `DamagedRun`, or `ValueError` without such a file."""
        if name not in self.manifest:
            raise unknown_name(f"file of run {self.id}", name, list(self.manifest))
        if not self.verified:
            _check(self.folder, name, self.manifest)
        return self.folder / name

    def weights_path(self, step: int | None = None) -> Path:
        """The weights after `step` optimiser steps, by default the final ones."""
        steps = self.steps
        if not steps or (step is not None and step not in steps):
            raise ValueError(f"run {self.id} keeps no weights of step {step}; there are: {steps}")
        return self.file(_weights_name(steps[-1] if step is None else step))

    def history(self) -> pd.DataFrame:
        """One row an evaluation (step, split, loss_nats, accuracy, ...), the run and its seed first."""
        return self._table("history.parquet")

    def examples(self) -> pd.DataFrame:
        """One row an example of the final test, the run and its seed first."""
        return self._table("examples.parquet")

    def _repr_html_(self) -> str:
        """In a notebook: what it is, how it went, and where its weights came from."""
        seen = ("status", "stop_reason", "task", "steps", "accuracy", "exact_match", "loss_nats", "breakthrough_step")
        fields = {"seed": str(self.seed), **{name: self.summary.get(name) for name in seen}}
        parents = [f"{each['run']} ({each.get('selector', 'all')})" for each in self.config.get("parents") or []]
        fields |= {"parents": ", ".join(parents), "kept steps": ", ".join(f"{step:,}" for step in self.steps)}
        shape = [f"{self.summary[name]} {word}" for name, word in _SHAPE.items() if name in self.summary]
        fields |= {"model": ", ".join(shape), "seconds": self.summary.get("seconds"), "folder": str(self.folder)}
        return fields_html(f"Run {self.id}", fields)

    def _table(self, name: str) -> pd.DataFrame:
        table = pd.read_parquet(self.file(name))
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
        """Where the weights of a checkpoint belong (write them within `files.atomic_write`)."""
        path = self.folder / _weights_name(step)
        path.parent.mkdir(exist_ok=True)
        return path

    def write_config(self, yaml_text: str) -> None:
        """Store the resolved config."""
        files.write_text(self.folder / "config.yaml", yaml_text)

    def write_json(self, name: str, value: Any) -> None:
        """Store a small value, such as `environment.json`."""
        files.write_json(self.folder / name, value)

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        """Store a table as parquet: `history`, `examples`."""
        write_parquet(self.folder / f"{name.removesuffix('.parquet')}.parquet", table)

    def finish(self, summary: Mapping[str, Any], *, created: str | None = None) -> Run:
        """Seal the folder and move it among the finished runs; `summary` is its row in the list of runs.

        `created` is now, but for a copy of a run, which keeps its time.
        """
        self.write_json("summary.json", {"run": self.id, "status": "finished", **summary, "created": created or now()})
        files.seal(self.folder, leave_out=_RESUME)
        self.finished_folder.parent.mkdir(exist_ok=True)
        self.folder.rename(self.finished_folder)
        # Only now: a process killed a moment earlier would have lost the whole run.
        (self.finished_folder / _RESUME).unlink(missing_ok=True)
        files.sync_folder(self.finished_folder.parent)
        files.sync_folder(self.folder.parent)
        return read_run(self.finished_folder, verify=False)


def saved_step(folder: Path) -> int | None:
    """Steps behind the training state that a run being written has saved in its folder; None where there is none."""
    try:
        with (folder / _RESUME).open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        return int(json.loads(header["__metadata__"]["state"])["step"])
    except (OSError, ValueError, LookupError, TypeError, OverflowError, MemoryError):
        return None


def unfinished_fields(folder: Path) -> dict[str, Any]:
    """What is known of a run being written, under the names of a summary; nothing where its config cannot be read."""
    path = folder / "config.yaml"
    try:
        config = yaml_fields(path.read_text(encoding="utf-8"), str(path)) if path.is_file() else {}
    except (OSError, ValueError):
        config = {}
    task, parents = config.get("task"), config.get("parents")
    if not isinstance(task, dict):
        return {}
    listed = [each for each in parents if isinstance(each, dict)] if isinstance(parents, list) else []
    return {
        "task": task.get("name"),
        "seed": config.get("seed", 0),
        "parents": ", ".join(str(each.get("run")) for each in listed) or None,
        "components": ", ".join(str(each.get("selector", "all")) for each in listed) or None,
        "steps": saved_step(folder) or 0,
    }


def load_history(run: Run | str | Path) -> pd.DataFrame:
    """The evaluations of a run, given as a `Run` or as its folder; one row an observation."""
    return (run if isinstance(run, Run) else read_run(Path(run), verify=False)).history()


def read_run(folder: Path, *, verify: bool) -> Run:
    """The finished run in `folder`; with `verify` all contents are checked now. Raises `DamagedRun`."""
    manifest = read_manifest(folder)
    for name in manifest if verify else ("config.yaml", "summary.json", "environment.json"):
        _check(folder, name, manifest)
    return Run(
        id=folder.name,
        folder=folder,
        config=_fields(folder, "config.yaml", yaml.safe_load),  # which makes no objects: no code runs from a run
        summary=_fields(folder, "summary.json", json.loads),
        environment=_fields(folder, "environment.json", json.loads),
        manifest=manifest,
        verified=verify,
    )


def _fields(folder: Path, name: str, parse: Callable[[bytes], Any]) -> dict[str, Any]:
    """What a small file holds. Raises `DamagedRun` where it holds no fields, or what its format forbids."""
    try:
        found = parse((folder / name).read_bytes())
    except (ValueError, yaml.YAMLError) as problem:
        raise DamagedRun(folder, f"{name} cannot be read ({' '.join(str(problem).split())})") from None
    if not isinstance(found, dict):
        raise DamagedRun(folder, f"{name} holds no fields")
    return found


def read_manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """The manifest of the run in `folder`, names and sizes checked. Raises `DamagedRun`."""
    try:
        return files.read_manifest(folder)
    except ValueError as problem:
        raise DamagedRun(folder, str(problem)) from None


def _check(folder: Path, name: str, manifest: dict[str, dict[str, Any]]) -> None:
    if name not in manifest:
        raise DamagedRun(folder, f"{name} was never written")
    try:
        files.check_content(folder, name, manifest)
    except ValueError as problem:
        raise DamagedRun(folder, str(problem)) from None


def write_parquet(path: Path, table: pd.DataFrame) -> None:
    """Write a table atomically."""
    with files.atomic_write(path) as temporary:
        table.to_parquet(temporary, index=False)


def _weights_name(step: int) -> str:
    return f"weights/step_{step:08d}.safetensors"

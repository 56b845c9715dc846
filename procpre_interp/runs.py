"""The run store: one folder a run, named by the hash of its config, written once and checked when read.

    STORE/runs/<run id>/     config.yaml  environment.json  history.parquet  examples.parquet (optional)
                             summary.json  weights/step_00000100.safetensors ...  manifest.json (written last)
    STORE/partial/<run id>/  a run being written, with resume.safetensors; the process at work holds
                             <run id>.lock beside it
    STORE/tables/            <name>.parquet and <name>.json: results of experiments over many runs

A run moves from `partial` to `runs` by one rename, so whatever stands in `runs` was finished. Files and
tables only: nothing here needs torch.
"""

import difflib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from procpre_interp import files
from procpre_interp.environment import environment, now
from procpre_interp.registry import unknown_name

__all__ = [
    "DamagedRun",
    "PartialRun",
    "Run",
    "RunStore",
    "Table",
    "UnknownRun",
    "environment",
    "load_history",
]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_STEP = re.compile(r"weights/step_(\d+)\.safetensors")
_FIRST_COLUMNS = ["run", "status", "created", "problem"]


class UnknownRun(ValueError, LookupError):
    """No run, or no table, of that name."""


class DamagedRun(ValueError):
    """A finished run whose files are not those that were written."""

    def __init__(self, folder: Path, problem: str) -> None:
        super().__init__(
            f"run {folder.name} is damaged: {problem}. "
            f"Remove {folder} and repeat its command: it is computed again."
        )
        self.problem = problem


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
        return self.folder / "resume.safetensors"

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
        _write_parquet(self.folder / f"{name.removesuffix('.parquet')}.parquet", table)

    def finish(self, summary: Mapping[str, Any]) -> Run:
        """Seal the folder and move it among the finished runs; `summary` is its row in the list of runs."""
        self.write_json("summary.json", {"run": self.id, "status": "finished", **summary, "created": now()})
        self.resume_path.unlink(missing_ok=True)
        files.seal(self.folder)
        self.finished_folder.parent.mkdir(exist_ok=True)
        self.folder.rename(self.finished_folder)
        files.sync_folder(self.finished_folder.parent)
        files.sync_folder(self.folder.parent)
        return _read_run(self.finished_folder, verify=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A stored table of an experiment and what is to be known about it."""

    name: str
    frame: pd.DataFrame
    metadata: dict[str, Any]


class RunStore:
    """The runs and tables below one folder. Nothing is created before something is written."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path} is a file; a run store is a folder")

    def __repr__(self) -> str:
        return f"RunStore({str(self.path)!r})"

    @contextmanager
    def claim(
        self,
        run_id: str,
        *,
        timeout_seconds: float | int | None = None,
        waiting: Callable[[float], None] | None = None,
    ) -> Iterator[PartialRun | None]:
        """Take a run to compute it, or None when it is finished. Waits while another process is at it.

        Left before `finish`, the folder stays as it is, to be resumed. Meanwhile `waiting` is called with the
        seconds waited. Raises `TimeoutError` after `timeout_seconds`, and `DamagedRun`.
        """
        if self.is_finished(run_id):
            yield None
            return
        folder = self._partial(run_id)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with files.locked(self._lock(run_id), timeout_seconds=timeout_seconds, waiting=waiting):
            if self.is_finished(run_id):  # by whom we waited for
                yield None
                return
            folder.mkdir(exist_ok=True)
            yield PartialRun(id=run_id, folder=folder, finished_folder=self._finished(run_id))

    def is_finished(self, run_id: str) -> bool:
        """Whether the run is there. Raises `DamagedRun` when it is, but not as it was written."""
        folder = self._finished(run_id)
        if not folder.is_dir():
            return False
        _manifest(folder)
        return True

    def open(self, run_id: str, *, verify: bool = True) -> Run:
        """The finished run with this id, the unique beginning of one, or the newest for "latest".

        Without `verify` each file's content is checked when it is read, instead of all of them now. Raises
        `UnknownRun`, or `DamagedRun`.
        """
        return _read_run(self._finished(self._resolve(run_id)), verify=verify)

    def query(self, **equals: Any) -> pd.DataFrame:
        """One row a run, newest first: its summary, its status and, where it is damaged, the problem.

        Status is finished, diverged, damaged, running (a process is at it) or interrupted. `equals` keeps the
        rows whose columns have these values. Sizes are compared with the manifest, contents are not read.
        """
        rows = [_summary_row(folder) for folder in _folders(self.path / "runs")]
        for folder in _folders(self.path / "partial"):
            status = "running" if files.is_locked(self._lock(folder.name)) else "interrupted"
            if folder.is_dir():  # else finished meanwhile
                rows.append(
                    {"run": folder.name, "status": status, "created": _modified(folder), "problem": None}
                )
        table = pd.DataFrame(rows, columns=None if rows else _FIRST_COLUMNS)
        table = table.loc[:, _FIRST_COLUMNS + [column for column in table if column not in _FIRST_COLUMNS]]
        table = table.sort_values("created", ascending=False, kind="stable", ignore_index=True)
        for column, value in equals.items() if rows else ():
            if column not in table:
                raise unknown_name("column of the runs", column, list(table))
            table = table.loc[_equals(table[column], column, value)]
        return table.reset_index(drop=True)

    def delete(self, run_id: str) -> None:
        """Remove one run, finished, damaged or interrupted; its id in full. Raises `UnknownRun`.

        Raises `ValueError` while a process is at it.
        """
        try:
            self._partial(run_id).parent.mkdir(parents=True, exist_ok=True)
            with files.locked(self._lock(run_id), timeout_seconds=0):
                existing = [path for path in (self._finished(run_id), self._partial(run_id)) if path.is_dir()]
                if not existing:
                    raise self._unknown(run_id)
                for folder in existing:
                    # Out of sight by one rename first, so that nobody meets a half-deleted run.
                    hidden = self.path / "partial" / f".{run_id}.deleted"
                    shutil.rmtree(hidden, ignore_errors=True)
                    shutil.rmtree(folder.rename(hidden))
        except TimeoutError:
            raise ValueError(f"run {run_id} is being written by another process; stop that first") from None

    def write_table(self, name: str, table: pd.DataFrame, metadata: Mapping[str, Any]) -> None:
        """Store a tidy table of an experiment, and what is to be known about it."""
        folder = self.path / "tables"
        folder.mkdir(parents=True, exist_ok=True)
        _write_parquet(folder / f"{_checked(name)}.parquet", table)
        files.write_json(folder / f"{name}.json", {"created": now(), **metadata})

    def read_table(self, name: str) -> Table:
        """The stored table. Raises `UnknownRun`, or `ValueError` when its files cannot be read."""
        stem = self.path / "tables" / _checked(name)
        if name not in (names := self.tables()):
            raise UnknownRun(str(unknown_name("table", name, names)))
        try:
            metadata = json.loads(stem.with_name(f"{name}.json").read_bytes())
            return Table(
                name=name, frame=pd.read_parquet(stem.with_name(f"{name}.parquet")), metadata=metadata
            )
        except ValueError as problem:  # json's, and pyarrow's ArrowInvalid
            raise ValueError(
                f"table {name} is damaged: {problem}. Repeat the command that wrote it."
            ) from None

    def tables(self, prefix: str = "") -> list[str]:
        """Names of the stored tables, newest first."""
        found = [path for path in (self.path / "tables").glob("*.json") if path.name.startswith(prefix)]
        found = [
            path for path in found if _NAME.fullmatch(path.stem) and path.with_suffix(".parquet").exists()
        ]
        return [path.stem for path in sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True)]

    def _finished(self, run_id: str) -> Path:
        return self.path / "runs" / _checked(run_id)

    def _partial(self, run_id: str) -> Path:
        return self.path / "partial" / _checked(run_id)

    def _lock(self, run_id: str) -> Path:
        # Beside the folder, not in it: so it is held through the rename, and never ends up in a finished run.
        return self.path / "partial" / f"{run_id}.lock"

    def _resolve(self, run_id: str) -> str:
        if run_id == "latest":
            created = self.query()
            created = created.loc[created["status"].isin(["finished", "diverged"])]
            if created.empty:
                raise UnknownRun(f"no finished run in {self.path}")
            return str(created["run"].iloc[0])
        if self._finished(run_id).is_dir():
            return run_id
        matches = [folder.name for folder in _folders(self.path / "runs") if folder.name.startswith(run_id)]
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise UnknownRun(f"run {run_id!r} is not unique: {', '.join(sorted(matches)[:8])}")
        raise self._unknown(run_id)

    def _unknown(self, run_id: str) -> UnknownRun:
        if self._partial(run_id).is_dir():
            return UnknownRun(f"run {run_id} is not finished; repeat its command to go on where it stopped")
        ids = [folder.name for folder in _folders(self.path / "runs")]
        close = difflib.get_close_matches(run_id, ids, n=3, cutoff=0.4)
        hint = (
            f"closest: {', '.join(close)}"
            if close
            else f"{len(ids)} runs there; `procpre-interp runs` lists them"
        )
        return UnknownRun(f"no run {run_id!r} in {self.path} ({hint})")


def load_history(run: Run | str | Path) -> pd.DataFrame:
    """The evaluations of a run, given as a `Run` or as its folder; one row an observation."""
    return (run if isinstance(run, Run) else _read_run(Path(run), verify=False)).history()


def _read_run(folder: Path, *, verify: bool) -> Run:
    manifest = _manifest(folder)
    for name in manifest if verify else ("config.yaml", "summary.json", "environment.json"):
        _check(folder, name, manifest)
    return Run(
        id=folder.name,
        folder=folder,
        config=yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8")),
        summary=json.loads((folder / "summary.json").read_bytes()),
        environment=json.loads((folder / "environment.json").read_bytes()),
        manifest=manifest,
        verified=verify,
    )


def _manifest(folder: Path) -> dict[str, dict[str, Any]]:
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


def _summary_row(folder: Path) -> dict[str, Any]:
    try:
        _manifest(folder)
        summary = json.loads((folder / "summary.json").read_bytes())
        return {**summary, "run": folder.name, "problem": None}
    except DamagedRun as damage:
        problem = damage.problem
    except (OSError, ValueError) as error:
        problem = f"summary.json cannot be read ({error})"
    return {"run": folder.name, "status": "damaged", "created": _modified(folder), "problem": problem}


def _equals(column: pd.Series, name: str, value: Any) -> pd.Series:
    """Rows that have the value; text (from a command line) is read as a number in a numeric column."""
    if value is None:
        return column.isna()
    if isinstance(value, str) and pd.api.types.is_numeric_dtype(column.dtype):
        try:
            value = float(value)
        except ValueError:
            raise ValueError(f"{name}={value!r}: the column {name} holds numbers") from None
    return column == value


def _write_parquet(path: Path, table: pd.DataFrame) -> None:
    with files.atomic_write(path) as temporary:
        table.to_parquet(temporary, index=False)


def _weights_name(step: int) -> str:
    return f"weights/step_{step:08d}.safetensors"


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise UnknownRun(f"{name!r} is no name of a run or table (letters, digits, '.', '_' and '-')")
    return name


def _folders(parent: Path) -> list[Path]:
    try:
        return [path for path in parent.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()]
    except FileNotFoundError:
        return []


def _modified(folder: Path) -> str:
    return datetime.fromtimestamp(folder.stat().st_mtime, UTC).isoformat(timespec="milliseconds")

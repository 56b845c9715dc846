"""A run being written: its files, the state that it saved last, and the move among the finished ones."""

import errno
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from procpre_interp.core import atomic_files, checksums, schema
from procpre_interp.core.environment import now
from procpre_interp.core.locks import Lock
from procpre_interp.core.plugins import Plugin
from procpre_interp.store.leftovers import move_to_place
from procpre_interp.store.reading import REQUIRED, is_light
from procpre_interp.store.run import HISTORY_NUMBERS, OPTIMISER, OWN_FILES, TOKENIZER, Run, read_run, weights_name
from procpre_interp.store.unfinished import PREVIOUS, RESUME, SHARDS, saved_fields


@dataclass(frozen=True, kw_only=True, slots=True)
class PartialRun:
    """A run being written by this process, which holds its lock. Files appear whole or not at all."""

    id: str
    folder: Path
    finished_folder: Path = field(repr=False)
    lock: Lock = field(repr=False)

    @property
    def resume_path(self) -> Path:
        """Where the training state is kept from which an interrupted run goes on; removed by `finish`."""
        return self.folder / RESUME

    def weights_path(self, step: int) -> Path:
        """Where the weights of a checkpoint belong (write them within `atomic_files.atomic_write`)."""
        path = self.folder / weights_name(step)
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

    def write_optimiser(self, content: bytes) -> None:
        """Keep the optimiser's final state, as the bytes of a safetensors file."""
        with atomic_files.atomic_write(self._own(OPTIMISER)) as temporary:
            temporary.write_bytes(content)

    def write_tokenizer(self, text: str) -> None:
        """Keep the tokenizer of an imported model; it is read for those who ask, and never guides anything here."""
        atomic_files.write_text(self._own(TOKENIZER), text)

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        """Store a table as parquet: `history`, `examples`, `answers`."""
        with atomic_files.atomic_write(self._own(f"{name.removesuffix('.parquet')}.parquet")) as temporary:
            table.to_parquet(temporary, index=False)

    def check_weights(self, kept: Mapping[str, str]) -> None:
        """Raise `ValueError` where weights, named by step, no longer have the SHA-256 that they were written with."""
        for step, digest in kept.items():
            name = weights_name(int(step))
            try:
                found = checksums.sha256(self.folder / name)
            except OSError as problem:
                raise ValueError(f"{name} cannot be read ({problem.strerror})") from None
            if found != digest:
                raise ValueError(f"{name} has changed since it was written")

    def remove_weights_after(self, step: int) -> None:
        """Remove the weights of later steps than that from which the run goes on. They are of a sitting that was killed
        there; where this one has other last bits it may end sooner, and they would pass for its final ones."""
        for path in (self.folder / "weights").glob("step_*"):
            if path.relative_to(self.folder).as_posix() > weights_name(step):  # of equal length, so that text sorts
                path.unlink()

    def removed(self) -> FileNotFoundError | None:
        """An error that says so, where the folder or its lock was removed while the run was computed; otherwise None.

        Without the lock another process may be writing a run of this name there.
        """
        is_moved = self.finished_folder.is_dir() and not is_light(self.finished_folder)
        if is_moved or (self.folder.is_dir() and self.lock.is_held):
            return None
        what = "its folder" if not self.folder.is_dir() else f"the lock {self.lock.path.name}"
        return FileNotFoundError(
            errno.ENOENT,
            f"{what} was removed while the run was computed, so nothing of it is kept; repeat the command",
            str(self.folder),
        )

    def finish(self, summary: Mapping[str, Any], *, created: str | None = None) -> Run:
        """Seal the folder and move it among the finished runs; `summary` is its row in the list of runs.

        `created` is now, but for a copy of a run, which keeps its time. Raises `ValueError` for a summary that does
        not fit the list.
        """
        row = atomic_files.plain({"run": self.id, "status": "finished", **summary, "created": created or now()})
        schema.check_summary(row)
        if (removed := self.removed()) is not None:
            raise removed
        self.write_json("summary.json", row)
        if missing := [name for name in REQUIRED if not (self.folder / name).is_file()]:
            raise FileNotFoundError(f"{self.folder / missing[0]} was deleted while the run was computed; repeat it")
        checksums.seal(self.folder, OWN_FILES)
        # What was removed this moment is in no manifest, so that nobody would miss it later.
        checksums.read_manifest(self.folder, REQUIRED)
        move_to_place(self.folder, self.finished_folder)
        # Only now: a process killed a moment earlier would have lost the whole run.
        for name in (RESUME, PREVIOUS):
            (self.finished_folder / name).unlink(missing_ok=True)
        atomic_files.remove(self.finished_folder / SHARDS)
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
    for step, state in saved_fields(folder):
        try:
            history = pd.DataFrame([dict(row) for row in state.get("history", [])])
            for column in set(history) & set(HISTORY_NUMBERS):
                history[column] = pd.to_numeric(history[column])
            return SavedState(step=step, seconds=float(state.get("seconds", 0.0)), history=history)
        except (ValueError, TypeError, OverflowError):
            continue
    return None

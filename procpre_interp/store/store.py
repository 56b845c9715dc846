"""The run store: one folder per run, named by the hash of its config, written once and checked when read.

    STORE/runs/<run id>/     config.yaml  environment.json  history.parquet  examples.parquet (optional)
                             tokenizer.json (of an imported model)  optimiser.safetensors (where it was kept)
                             summary.json  weights/step_00000100.safetensors ...  manifest.json (written last)
    STORE/partial/<run id>/  a run being written, with resume.safetensors; the process at work holds
                             <run id>.lock beside it
    STORE/tables/            <name>.parquet: results of experiments over many runs; the footer holds their metadata
                             and a checksum of the file

A run moves from `partial` to `runs` by one rename, so whatever stands in `runs` was finished. Files and
tables only: nothing here needs torch.
"""

import difflib
import errno
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd

from procpre_interp.core import atomic_files, locks
from procpre_interp.core.environment import environment
from procpre_interp.core.messages import shown, unknown_name
from procpre_interp.core.places import LONGEST_NAME
from procpre_interp.store.leftovers import hidden_folder, remove_leftovers, try_to_remove_leftovers
from procpre_interp.store.names import NAME, check_new_name, folders, lock_file
from procpre_interp.store.partial_run import PartialRun
from procpre_interp.store.reading import is_light
from procpre_interp.store.rows import columns_of, matching, read_rows
from procpre_interp.store.run import (
    DamagedRun,
    Run,
    UnknownRun,
    joined_history,
    load_history,
    load_run,
    of_whole_task,
    read_manifest,
    read_run,
)
from procpre_interp.store.tables import Table, read_table, write_table

__all__ = [
    "DamagedRun",
    "PartialRun",
    "Run",
    "RunStore",
    "Table",
    "UnknownRun",
    "environment",
    "load_histories",
    "load_history",
    "load_run",
]

CLEANING_SECONDS = 2.0
"""How long a run may be locked by one who only looks for leftovers of it; who writes it holds the lock for longer."""


class RunStore:
    """The runs and tables below one folder. Nothing is created before something is written."""

    def __init__(self, path: str | Path) -> None:
        if "://" in str(path) or re.match(r"\w{2,}:/", str(path)):  # a Path has made one slash of two
            raise ValueError(
                f"{path} is a URL, and runs are computed in a folder: --mirror sends them to one as they are finished "
                "(sweep, reproduce, claims), `procpre-interp store push` all at once"
            )
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
        whole: bool = False,
        timeout_seconds: float | int | None = None,
        waiting: Callable[[float], None] | None = None,
    ) -> Iterator[PartialRun | None]:
        """Take a run to compute it, or None when it is finished; where `whole` is asked for, a light copy is no
        finished run, and stays until it is replaced.

        While another process is at it, this waits and calls `waiting` with the seconds waited. Left before
        `finish`, the folder stays as it is, to be resumed. Raises `TimeoutError` after `timeout_seconds`, `DamagedRun`,
        and `FileNotFoundError` where the folder was removed meanwhile, whatever error that led to.
        """
        if self.is_finished(run_id, whole=whole):
            yield None
            return
        folder = self._partial(run_id)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locks.locked(self._lock(run_id), timeout_seconds=timeout_seconds, waiting=waiting) as lock:
            if self.is_finished(run_id, whole=whole):  # by whom we waited for, who may have been killed then
                remove_leftovers(self.path, run_id)
                yield None
                return
            _make_folder(folder)
            partial = PartialRun(id=run_id, folder=folder, finished_folder=self._finished(run_id), lock=lock)
            try:
                yield partial
            except Exception as problem:
                if (removed := partial.removed()) is not None:
                    raise removed from problem
                raise

    def is_finished(self, run_id: str, *, whole: bool = False) -> bool:
        """Whether the run is there, and if `whole` is asked for, with everything: no light copy (`store.archive`).

        Raises `DamagedRun` when it is there, but not as it was written.
        """
        folder = self._finished(run_id)
        if not folder.is_dir():
            if os.path.lexists(folder):  # it stands where the run would go
                raise DamagedRun(folder, "it is no folder")
            return False
        try:
            read_manifest(folder)
            if whole and is_light(folder):
                return False
        except UnknownRun:  # deleted this moment
            return False
        if os.path.lexists(self._lock(run_id)):
            try_to_remove_leftovers(self.path, run_id)
        return True

    def is_begun(self, run_id: str) -> bool:
        """Whether there is something of the unfinished run, from which it could be resumed."""
        with suppress(OSError):
            return any(self._partial(run_id).iterdir())
        return False

    def open(self, run_id: str | Path, *, verify: bool = True) -> Run:
        """The finished run with this id, the unique beginning of one, the path of its folder, or the newest for
        "latest".

        A path must be that of a run of this store, since ids come from stored configs and from addresses too;
        `load_run` opens any other. Without `verify` each file's content is checked when it is read, instead of all of
        them now. Raises `UnknownRun`, or `DamagedRun`.
        """
        return read_run(self._finished(self._resolve(self._named(run_id))), verify=verify)

    def parts_of(self, run: Run) -> list[Run]:
        """The runs whose training a run goes on with, the first part first, and the run itself. Raises `UnknownRun`, or
        `DamagedRun`."""
        parts = [run]
        # A part begins where the one before it ended, so that even a store that was tampered with has an end.
        while (first := parts[0]).first_step:
            before = self.open(first.config["parents"][0]["run"], verify=False)  # pyright: ignore[reportTypedDictNotRequiredAccess]
            if before.first_step >= first.first_step:
                raise DamagedRun(before.folder, f"it starts at step {before.first_step}, after its end")
            parts.insert(0, before)
        return parts

    def query(self, /, **equals: Any) -> pd.DataFrame:
        """One row per run, newest first: its summary, its status and, where it is damaged, the problem.

        Status is finished, diverged, damaged, running (a process is at it) or interrupted. `equals` keeps the
        rows whose columns have these values. Sizes are compared with the manifest, and the summary's content; other
        contents are not read.
        """
        rows = read_rows(self.path)
        table = pd.DataFrame(rows, columns=columns_of(rows))
        return table.loc[matching(rows, equals)].reset_index(drop=True)

    def delete(self, run_id: str) -> None:
        """Remove one run, finished, damaged or interrupted; its id in full. Raises `UnknownRun`.

        Raises `ValueError` while a process is at it.
        """
        places = [self._finished(run_id), self._partial(run_id)]
        if not any(os.path.lexists(place) for place in places):
            raise self._unknown(run_id)
        hidden = hidden_folder(self.path, run_id)
        hidden.parent.mkdir(exist_ok=True)
        try:
            with locks.locked(self._lock(run_id), timeout_seconds=CLEANING_SECONDS):
                for place in filter(os.path.lexists, places):
                    # Out of sight by one rename first, so that nobody meets a half-deleted run.
                    atomic_files.remove(hidden)
                    atomic_files.remove(place.rename(hidden))
        except TimeoutError:
            raise ValueError(f"run {run_id} is being written by another process; stop that first") from None

    def write_table(self, name: str, table: pd.DataFrame, metadata: Mapping[str, Any]) -> None:
        """Store a tidy table of an experiment, and what is to be known about it: one file, whole or absent.

        Raises `ValueError` where a column of `cells.CELLS` holds anything else, and for a name that no file can have.
        """
        folder = self.path / "tables"
        check_new_name(name)
        folder.mkdir(parents=True, exist_ok=True)
        write_table(folder / f"{name}.parquet", table, metadata)
        (folder / f"{name}.json").unlink(missing_ok=True)  # of a version that wrote the metadata there

    def read_table(self, name: str) -> Table:
        """The stored table. Raises `UnknownRun`, or `ValueError` when its file is damaged."""
        path = self.path / "tables" / f"{_checked(name)}.parquet"
        if name not in (names := self.tables()):
            raise UnknownRun(str(unknown_name("table", name, names)))
        return read_table(path)

    def tables(self, prefix: str = "") -> list[str]:
        """Names of the stored tables, newest first."""
        times = {}
        for path in (self.path / "tables").glob("*.parquet"):
            if path.name.startswith(prefix) and NAME.fullmatch(path.stem):
                with suppress(FileNotFoundError):  # deleted this moment
                    times[path.stem] = path.lstat().st_mtime_ns
        return sorted(times, key=lambda name: times[name], reverse=True)

    def _finished(self, run_id: str) -> Path:
        return self.path / "runs" / _checked(run_id)

    def _partial(self, run_id: str) -> Path:
        return self.path / "partial" / _checked(run_id)

    def _lock(self, run_id: str) -> Path:
        return lock_file(self.path, run_id)

    def _named(self, run: str | Path) -> str:
        """The id in the path of a run's folder; anything else as it is."""
        path = Path(run)
        if path.name == str(run):  # no path
            return path.name
        if path.parent.resolve() in (self.path.resolve() / "runs", self.path.resolve() / "partial"):
            return path.name
        raise UnknownRun(
            f"{str(run)[:200]!r} is no name of a run, nor a folder of this store; load_run opens any run's"
        )

    def _resolve(self, run_id: str) -> str:
        if run_id == "latest":
            created = self.query()
            created = created.loc[created["status"].isin(["finished", "diverged"])]
            if created.empty:
                raise UnknownRun(f"no finished run in {self.path}")
            return str(created["run"].iloc[0])
        if self._finished(run_id).is_dir():
            return run_id
        matches = [folder.name for folder in folders(self.path / "runs") if folder.name.startswith(run_id)]
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise UnknownRun(f"run {shown(run_id)} is not unique: {', '.join(sorted(matches)[:8])}")
        raise self._unknown(run_id)

    def _unknown(self, run_id: str) -> UnknownRun:
        if self._partial(run_id).is_dir():
            return UnknownRun(f"run {run_id} is not finished; repeat its command to go on where it stopped")
        ids = [folder.name for folder in folders(self.path / "runs")]
        close = difflib.get_close_matches(run_id, ids, n=3)
        hint = f"closest: {', '.join(close)}" if close else f"{len(ids)} runs there; `procpre-interp runs` lists them"
        return UnknownRun(f"no run {shown(run_id)} in {self.path} ({hint})")


def _make_folder(folder: Path) -> None:
    """Make the folder of a run to be written, unless it is there. Raises `FileExistsError` for anything else there."""
    if folder.is_symlink() or (os.path.lexists(folder) and not folder.is_dir()):
        # Through a link the run would be written wherever that leads.
        raise FileExistsError(errno.EEXIST, "no folder, but in the place of one; remove it", str(folder))
    folder.mkdir(exist_ok=True)


def load_histories(store: RunStore, table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The evaluations of all runs of an experiment's table (columns condition, label, replicate, run), each with those
    of the first part of its training, where it is the rest of one; at the step between them, those of the rest.

    One row per observation, these columns first; then a line for each run that is missing or damaged.
    """
    columns = ["condition", "label", "replicate", "run"]
    histories, problems = [], []
    for cell in table[columns].itertuples(index=False, name=None):
        try:
            history = of_whole_task(joined_history(store.parts_of(store.open(cell[3], verify=False))))
        except (UnknownRun, DamagedRun) as problem:
            problems.append(str(problem))
        else:
            rest = history.drop(columns=columns, errors="ignore").drop_duplicates(["split", "step"], keep="last")
            histories.append(pd.DataFrame(dict(zip(columns, cell)), index=rest.index).join(rest))
    empty = pd.DataFrame(columns=[*columns, "split", "step"])
    return (pd.concat(histories, ignore_index=True) if histories else empty), problems


def _checked(name: str) -> str:
    if not NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        raise UnknownRun(f"{shown(name)} is no name of a run or table (letters, digits, '.', '_' and '-')")
    return name
